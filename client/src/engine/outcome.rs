//! What the home answers to submissions (spec 06-messages, 6.2 and 6.3).

use std::time::Duration;

use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal, Retry, Scope};
use tidings_proto::frame::RawFrame;
use tidings_proto::id::{AccountId, DeviceId, MessageId};
use tidings_proto::pb;

use super::outbound::lane_of;
use super::session::{Session, lost, now};
use super::{Ended, Engine, Halt};
use crate::error::StoreError;
use crate::event::Event;
use crate::store::messages::{self, State};
use crate::store::queue::{self, Submission};

/// Wait after a `later` that names no time.
const LATER: Duration = Duration::from_secs(2);
/// How often one message is encrypted anew for a list that turned out stale.
const REPAIRS: u32 = 8;

impl Engine {
    /// Takes the answer to the oldest unanswered submission.
    pub(super) async fn outcome(&mut self, session: &mut Session, raw: &RawFrame) -> Result<(), Ended> {
        let frame = Frame::from_raw(raw).map_err(|error| Ended::Violation(Refusal::from(&error)))?;
        let Some(frame) = frame else { return Ok(()) };
        let unasked =
            || Ended::Violation(Refusal::new(Code::FRAME_UNEXPECTED, "an answer that nothing asked for"));
        let counter = session.window.answered().ok_or_else(unasked)?;
        match frame {
            Frame::Outcome(outcome) if outcome.counter == counter => match outcome.result {
                Some(pb::outcome::Result::Accepted(accepted)) => self.accepted(counter, &accepted).await?,
                Some(pb::outcome::Result::Refused(failure)) => {
                    self.refused(session, counter, failure.into()).await?;
                }
                None => return Err(lost("an outcome without a result").into()),
            },
            Frame::Failure(failure) => not_taken(session, counter, Refusal::from(failure))?,
            _ => return Err(unasked()),
        }
        self.send_waiting(session).await
    }

    async fn accepted(&mut self, counter: u64, accepted: &pb::Accepted) -> Result<(), Ended> {
        let lane = accepted.lane.as_ref().and_then(lane_of);
        let state = if accepted.local { State::AcceptedByPeer } else { State::AcceptedByHome };
        let stored = self.store.submissions(counter.saturating_sub(1), 1).await?;
        let id = stored.first().filter(|one| one.counter == counter).and_then(|one| one.message);
        if let Some(id) = id
            && self.post_accepted(counter, id, accepted).await?
        {
            return Ok(());
        }
        let message = match id {
            Some(id) => self.store.message(id).await?,
            None => None,
        };
        let mut events = Vec::new();
        let mut tx = self.store.begin().await?;
        let taken = queue::take_submission(&mut tx, counter).await?;
        if let (Some(taken), Some(mut message), Some(lane)) = (&taken, message, lane) {
            let (id, number) = (message.id, accepted.number);
            messages::set_accepted(&mut tx, id, lane, number, state).await?;
            queue::keep(&mut tx, taken, id, accepted.expires_at_ms).await?;
            events.push(Event::Accepted { id, number, local: accepted.local });
            message.number = number;
            events.extend(self.apply_early(&mut tx, &message, lane).await?);
            self.repairs.remove(&id);
        }
        tx.commit().await.map_err(StoreError::from)?;
        events.into_iter().for_each(|event| self.tell(event));
        Ok(())
    }

    async fn refused(&mut self, session: &mut Session, counter: u64, refusal: Refusal) -> Result<(), Ended> {
        let stored = self.store.submissions(counter.saturating_sub(1), 1).await?;
        let id = stored.first().filter(|one| one.counter == counter).and_then(|one| one.message);
        if let Some(id) = id
            && self.post_refused(counter, id, &refusal).await?
        {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let taken = queue::take_submission(&mut tx, counter).await?;
        let Some(Submission { message: Some(id), .. }) = taken else {
            // A report or a supplement: the other side asks again if it still needs it.
            tracing::debug!(code = %refusal.code, "a service message was refused");
            return Ok(tx.commit().await.map_err(StoreError::from)?);
        };
        let tries = self.repairs.entry(id).or_default();
        *tries = tries.saturating_add(1);
        // The lists are fetched and the message is encrypted anew; nothing else can be mended here.
        let mend = matches!(refusal.code, Code::WRONG_DEVICES | Code::UNKNOWN_HEAD) && *tries <= REPAIRS;
        if mend {
            messages::set_queued(&mut tx, id).await?;
        } else {
            messages::set_failed(&mut tx, id, refusal.code.text()).await?;
            self.repairs.remove(&id);
        }
        tx.commit().await.map_err(StoreError::from)?;
        if mend {
            for device in refusal.devices.iter().filter_map(|id| DeviceId::try_from(id).ok()) {
                // The home misses it: it has published prekeys by now.
                self.bare.remove(&device);
            }
            return self.fetch_lists(session, id).await;
        }
        self.tell(Event::Failed { id, reason: refusal.code.text().to_owned() });
        Ok(())
    }

    /// Both lists may be the stale one: the newer links of both accounts say.
    async fn fetch_lists(&mut self, session: &mut Session, id: MessageId) -> Result<(), Ended> {
        let Some(message) = self.store.message(id).await? else { return Ok(()) };
        for account in [message.conversation, self.me.account] {
            let address = self.address_of(account).await?;
            session.later.remove(&account);
            self.fetch(session, account, &address, Vec::new()).await?;
        }
        Ok(())
    }

    /// Messages to an account that can never be reached fail, with a reason.
    pub(super) async fn fail_waiting(&mut self, to: AccountId, reason: &str) -> Result<(), StoreError> {
        for message in self.store.unsubmitted(to, u32::MAX).await? {
            let mut tx = self.store.begin().await?;
            messages::set_failed(&mut tx, message.id, reason).await?;
            tx.commit().await?;
            self.tell(Event::Failed { id: message.id, reason: reason.to_owned() });
        }
        Ok(())
    }
}

/// A Failure in an outcome's place: nothing was consumed.
fn not_taken(session: &mut Session, counter: u64, refusal: Refusal) -> Result<(), Ended> {
    match refusal.code {
        // The home answered this counter before, for other bytes: two devices count with one identity.
        Code::COUNTER_CONFLICT | Code::COUNTER_TOO_OLD => Err(Ended::Halt(Halt::RolledBack)),
        Code::COUNTER_GAP => Err(Ended::Halt(Halt::HomeLostState)),
        _ if refusal.retry == Retry::AfterDelay => {
            session.window.later(counter, now() + refusal.retry_after.unwrap_or(LATER));
            Ok(())
        }
        _ if refusal.scope == Scope::Request => {
            Err(Ended::Halt(Halt::Refused(refusal.code.text().to_owned())))
        }
        // The stream is over: everything goes again on the next connection, by its counters.
        _ => Err(lost(refusal.code.text()).into()),
    }
}
