//! Watermarks and notices: how far own messages got (spec 06-messages, 6.6 to 6.8).

use prost::Message as _;
use tidings_proto::error::Refusal;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::log::Position;
use tidings_proto::pb;

use super::outbound::lane_of;
use super::session::{Session, put_position};
use super::{Ended, Engine, now_ms};
use crate::error::StoreError;
use crate::event::Event;
use crate::store::messages::{self, Lane, Mark, Message, State};
use crate::store::{Tx, errands, lanes, marks, queue};

/// What a kind of watermark says of a message it covers.
fn state(kind: pb::WatermarkKind) -> Option<State> {
    match kind {
        pb::WatermarkKind::AcceptedByPeer => Some(State::AcceptedByPeer),
        pb::WatermarkKind::Delivered => Some(State::Delivered),
        pb::WatermarkKind::Read => Some(State::Read),
        pb::WatermarkKind::Unspecified => None,
    }
}

impl Engine {
    pub(super) async fn watermark(&self, mark: &pb::Watermark, at: &Position) -> Result<(), Ended> {
        let mut tx = self.store.begin().await?;
        let event = self.apply_watermark(&mut tx, mark).await?;
        put_position(&mut tx, at).await?;
        tx.commit().await.map_err(StoreError::from)?;
        event.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    async fn apply_watermark(&self, tx: &mut Tx, mark: &pb::Watermark) -> Result<Option<Event>, StoreError> {
        let lane = mark.lane.clone().unwrap_or_default();
        let ids = (AccountId::try_from(&lane.sender), AccountId::try_from(&lane.recipient), lane_of(&lane));
        let ((Ok(sender), Ok(recipient), Some(lane)), Some(state)) = (ids, state(mark.kind())) else {
            return Ok(None);
        };
        if sender != self.me.account {
            if state != State::Read {
                return Ok(None);
            }
            lanes::put_read(tx, sender, lane, mark.upto).await?;
            messages::start_lifetimes(tx, sender, false, now_ms()).await?;
            return Ok(Some(Event::ReadElsewhere { conversation: sender }));
        }
        let mark = Mark { sender, lane, upto: mark.upto, except: mark.except.clone(), state };
        marks::put(tx, recipient, &mark).await?;
        self.raise(tx, recipient, &mark).await
    }

    async fn raise(
        &self,
        tx: &mut Tx,
        recipient: AccountId,
        mark: &Mark,
    ) -> Result<Option<Event>, StoreError> {
        let (state, upto) = (mark.state, mark.upto);
        let raised = messages::raise(tx, recipient, mark).await?;
        if state == State::AcceptedByPeer {
            queue::release_accepted(tx, recipient).await?;
        } else {
            queue::release(tx, now_ms()).await?;
            messages::start_lifetimes(tx, recipient, true, now_ms()).await?;
        }
        Ok((raised > 0).then_some(Event::Progress { conversation: recipient, upto, state }))
    }

    pub(super) async fn notice(
        &mut self,
        session: &mut Session,
        notice: &pb::Notice,
        at: &Position,
    ) -> Result<(), Ended> {
        let lane = notice.lane.clone().unwrap_or_default();
        let range = notice.numbers.unwrap_or_default();
        let (Ok(to), Some(epoch)) = (AccountId::try_from(&lane.recipient), lane_of(&lane)) else {
            return Ok(self.moved(at).await?);
        };
        let own = self.store.in_range(to, self.me.account, epoch, range.from..=range.to).await?;
        let numbers = range.to.saturating_sub(range.from).saturating_add(1);
        let early = numbers > u64::try_from(own.len()).unwrap_or(u64::MAX);
        let mut tx = self.store.begin().await?;
        if early {
            // The outcome that gives a message this number may still be on its way, on another stream.
            marks::put_early(&mut tx, to, notice).await?;
            marks::settle(&mut tx).await?;
        }
        let events = self.apply_notice(&mut tx, notice, &own).await?;
        put_position(&mut tx, at).await?;
        tx.commit().await.map_err(StoreError::from)?;
        events.into_iter().for_each(|event| self.tell(event));
        if matches!(notice.what, Some(pb::notice::What::MissingDevices(_))) {
            let address = self.address_of(to).await?;
            self.fetch(session, to, &address, Vec::new()).await?;
        }
        Ok(())
    }

    /// What a notice says of these messages.
    async fn apply_notice(
        &self,
        tx: &mut Tx,
        notice: &pb::Notice,
        own: &[Message],
    ) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        match &notice.what {
            Some(pb::notice::What::Closed(closed)) => {
                let reason = Refusal::from(closed.reason.clone().unwrap_or_default()).code.text();
                for message in own {
                    messages::set_failed(tx, message.id, reason).await?;
                    events.push(Event::Failed { id: message.id, reason: reason.to_owned() });
                }
                queue::release(tx, now_ms()).await?;
            }
            Some(pb::notice::What::MissingDevices(devices)) => {
                let lane = notice.lane.clone().unwrap_or_default();
                self.put_supplements(tx, &lane, own, devices).await?;
            }
            Some(pb::notice::What::Pending(pending)) => {
                let reason = Refusal::from(pending.reason.clone().unwrap_or_default()).code.text().to_owned();
                for message in own {
                    messages::set_waiting(tx, message.id, Some(&reason)).await?;
                }
                if let Some(message) = own.first() {
                    let conversation = message.conversation;
                    events.push(Event::Pending { conversation, since_ms: pending.since_ms, reason });
                }
            }
            None => {}
        }
        Ok(events)
    }

    /// A message got its number: what came about that number before applies now.
    pub(super) async fn apply_early(
        &self,
        tx: &mut Tx,
        message: &Message,
        lane: Lane,
    ) -> Result<Vec<Event>, StoreError> {
        let (to, mut events) = (message.conversation, Vec::new());
        for notice in marks::early(tx, to).await? {
            let range = notice.numbers.unwrap_or_default();
            if notice.lane.as_ref().and_then(lane_of) == Some(lane)
                && (range.from..=range.to).contains(&message.number)
            {
                events.extend(self.apply_notice(tx, &notice, std::slice::from_ref(message)).await?);
            }
        }
        for mark in marks::of_lane(tx, to, self.me.account, lane).await? {
            if mark.upto >= message.number {
                events.extend(self.raise(tx, to, &mark).await?);
            }
        }
        marks::settle(tx).await?;
        Ok(events)
    }

    /// Devices that had no payload get the message, from the device that wrote it (MSG-028).
    async fn put_supplements(
        &self,
        tx: &mut Tx,
        lane: &pb::LaneId,
        own: &[Message],
        missing: &pb::MissingDevices,
    ) -> Result<(), StoreError> {
        let Ok(to) = AccountId::try_from(&lane.recipient) else { return Ok(()) };
        for message in own.iter().filter(|message| message.device == self.me.device) {
            let mark = pb::Watermark { lane: Some(lane.clone()), upto: message.number, ..Default::default() };
            for device in &missing.devices {
                if let Ok(device) = DeviceId::try_from(device) {
                    errands::put_supplement(tx, to, device, message.id, &mark.encode_to_vec()).await?;
                }
            }
        }
        Ok(())
    }
}
