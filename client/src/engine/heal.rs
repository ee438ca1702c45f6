//! Messages that cannot be read, and those that somebody else could not read (spec 08-encryption, 8.5).
//!
//! The reader's device signs a report and sends it over a fresh session; the writer's device sends the
//! message again to that device alone, under the same id, a bounded number of times.

use prost::Message as _;
use rand::Rng as _;
use tidings_proto::id::{AccountId, MessageId};
use tidings_proto::limits;
use tidings_proto::log::Position;
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, Signature, sha256};

use super::outbound::{Letter as Outgoing, Parcel, lane_of};
use super::session::{Session, put_position};
use super::{Ended, Engine, now_ms};
use crate::chains;
use crate::crypto::{PeerDevice, archive_session};
use crate::error::StoreError;
use crate::event::Event;
use crate::letter::Letter;
use crate::store::accounts::{self, Standing};
use crate::store::records::{drop_session, put_changes};
use crate::store::unreadable::{self, Unreadable};
use crate::store::{Tx, errands, lanes};

/// Milliseconds in which one pair of devices starts over once (`session_resets_per_hour`).
const RESET_APART_MS: u64 = 3_600_000 / limits::SESSION_RESETS_PER_HOUR;

/// Errands looked at in one go: those of a rotation of the key of a large group, and those behind them.
const ERRANDS: u32 = 4096;

impl Engine {
    /// Puts a message that cannot be read on record: a report goes to the device that wrote it.
    pub(super) async fn undecryptable(
        &mut self,
        session: &mut Session,
        delivery: &pb::Delivery,
        peer: &PeerDevice,
        at: Option<&Position>,
    ) -> Result<(), Ended> {
        let lane = delivery.lane.clone().unwrap_or_default();
        let ids = (AccountId::try_from(&lane.sender), AccountId::try_from(&lane.recipient), lane_of(&lane));
        let (Ok(sender), Ok(recipient), Some(epoch)) = ids else { return Ok(self.skip_at(at).await?) };
        if delivery.number == 0 {
            // Class service: nothing could be sent again (ENC-034).
            return Ok(self.skip_at(at).await?);
        }
        let conversation = if sender == self.me.account { recipient } else { sender };
        let ciphertext =
            delivery.payload.as_ref().map(|payload| payload.ciphertext.clone()).unwrap_or_default();
        let unreadable = Unreadable {
            sender,
            conversation,
            device: peer.device,
            lane: epoch,
            number: delivery.number,
            ciphertext: ciphertext.to_vec(),
            expires_at_ms: delivery.expires_at_ms,
        };
        let report = self.report(delivery, peer, &ciphertext);
        let records = self.store.session_records(peer.device).await?;
        let archived = archive_session(&records, peer.device);
        let mut tx = self.store.begin().await?;
        let mut events = vec![Event::Undecryptable { sender, number: delivery.number }];
        if sender != self.me.account && !delivery.supplement {
            let missing = lanes::seen(&mut tx, sender, epoch, delivery.number, &delivery.not_for_you).await?;
            events.extend(missing.map(|(from, to)| Event::Gap { conversation, from, to }));
        }
        unreadable::put(&mut tx, &unreadable).await?;
        if sender == self.me.account {
            accounts::put_stranger(&mut tx, recipient, &delivery.recipient_address).await?;
        }
        let mark = pb::Watermark { lane: Some(lane), upto: delivery.number, ..Default::default() };
        let errand =
            errands::Service { account: sender, device: peer.device, mark: Some(mark.encode_to_vec()) };
        if errands::may_reset(&mut tx, peer.device, now_ms(), RESET_APART_MS).await? {
            match archived {
                Ok(Some(reset)) => put_changes(&mut tx, &reset).await?,
                Ok(None) => {}
                Err(_) => drop_session(&mut tx, peer.device).await?,
            }
            let reset = pb::SessionReset { cause: sha256(&ciphertext).to_bytes() };
            let body = Some(pb::content::Body::Reset(reset));
            errand.put(&mut tx, &pb::Content { body, ..Default::default() }).await?;
        }
        errand.put(&mut tx, &report).await?;
        if let Some(at) = at {
            put_position(&mut tx, at).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        events.into_iter().for_each(|event| self.tell(event));
        self.fetch_strangers(session).await?;
        self.send_waiting(session).await
    }

    async fn skip_at(&self, at: Option<&Position>) -> Result<(), StoreError> {
        match at {
            Some(at) => self.moved(at).await,
            None => Ok(()),
        }
    }

    /// The signed report of one unreadable message (ENC-030).
    fn report(&self, delivery: &pb::Delivery, peer: &PeerDevice, ciphertext: &[u8]) -> pb::Content {
        let report = pb::UndecryptableReport {
            reporter_account: self.me.account.to_bytes(),
            reporter_device: self.me.device.to_bytes(),
            sender_device: peer.device.to_bytes(),
            lane: delivery.lane.clone(),
            number: delivery.number,
            ciphertext_hash: sha256(ciphertext).to_bytes(),
        }
        .encode_to_vec();
        let signature = self.me.key.sign(Purpose::REPORT, &report).to_bytes();
        let request = pb::ResendRequest { report: report.into(), signature };
        pb::Content { body: Some(pb::content::Body::Resend(request)), ..Default::default() }
    }

    /// Somebody's device could not read a message of this one: noted, to be sent again.
    pub(super) async fn resend(
        &mut self,
        letter: &Letter,
        peer: &PeerDevice,
        request: &pb::ResendRequest,
    ) -> Result<(), Ended> {
        let Some((lane, number, hash)) = self.valid_report(letter, peer, request).await? else {
            tracing::warn!("a report of an unreadable message is not valid");
            return Ok(());
        };
        let ids = (AccountId::try_from(&lane.recipient), lane_of(&lane));
        let (Ok(conversation), Some(epoch)) = ids else { return Ok(()) };
        let found = self.store.in_range(conversation, self.me.account, epoch, number..=number).await?;
        let Some(message) = found.into_iter().find(|message| message.device == self.me.device) else {
            return Ok(());
        };
        if !self.store.was_sent(message.id, peer.device.as_ref(), &hash).await? {
            // A home changed the ciphertext on its way, or somebody guesses.
            tracing::warn!("a report names a ciphertext that was never sent");
            return Ok(());
        }
        let mark = pb::Watermark { lane: Some(lane), upto: number, ..Default::default() };
        let most = i64::try_from(limits::RESENDS_MAX).unwrap_or(i64::MAX);
        let mut tx = self.store.begin().await?;
        errands::put_resend(&mut tx, letter.sender, peer.device, &mark.encode_to_vec(), most).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// The steps of 8.5 for the sender: the lane, number and hash that a report names, if it is valid.
    async fn valid_report(
        &mut self,
        letter: &Letter,
        peer: &PeerDevice,
        request: &pb::ResendRequest,
    ) -> Result<Option<(pb::LaneId, u64, Vec<u8>)>, StoreError> {
        let key = self
            .chain(letter.sender)
            .await?
            .and_then(|chain| chain.state().device(&peer.device).map(|d| d.key()));
        let (Some(key), Ok(report)) = (key, pb::UndecryptableReport::decode(request.report.clone())) else {
            return Ok(None);
        };
        let signed = Signature::parse(&request.signature)
            .is_ok_and(|signature| key.verify(Purpose::REPORT, &request.report, &signature).is_ok());
        let lane = report.lane.unwrap_or_default();
        // An own device reports the copy it got; anybody else a message to its own account.
        let reads = letter.sender == self.me.account || lane.recipient == letter.sender.to_bytes();
        let fits = signed
            && reads
            && report.reporter_account == letter.sender.to_bytes()
            && report.reporter_device == peer.device.to_bytes()
            && report.sender_device == self.me.device.to_bytes()
            && lane.sender == self.me.account.to_bytes();
        Ok(fits.then(|| (lane, report.number, report.ciphertext_hash.to_vec())))
    }

    /// Sends what is for single devices: reports, and messages again. True: something was stored to send.
    pub(super) async fn run_errands(&mut self, session: &mut Session) -> Result<bool, Ended> {
        let mut sent = false;
        for errand in errands::all(&self.store, ERRANDS).await? {
            let standing = self.store.contact(errand.account).await?.map(|contact| contact.standing);
            let own = errand.account == self.me.account;
            let stranger = !own && standing != Some(Standing::Accepted) && errand.content.is_some();
            // Members of a group are no strangers where it needs them (07-groups).
            if stranger && errand.chat.is_none() {
                // A stranger hears nothing before the user accepts, a blocked account nothing at all (ENC-036).
                if standing != Some(Standing::Undecided) {
                    errands::delete(&self.store, errand.seq).await?;
                }
                continue;
            }
            let Some(chain) = self.chain(errand.account).await? else {
                errands::delete(&self.store, errand.seq).await?;
                continue;
            };
            let address = chain.state().address().to_string();
            let Some(peer) = chains::peers(chain).into_iter().find(|peer| peer.device == errand.device)
            else {
                if !session.fetching.contains(&errand.account) {
                    // Its chain was fetched when the errand came: a device that is not on it has left.
                    errands::delete(&self.store, errand.seq).await?;
                }
                continue;
            };
            if !self.without_session(&[peer]).await?.is_empty() {
                self.fetch(session, errand.account, &address, vec![peer.device]).await?;
                continue;
            }
            if self.waits_for_a_chain(&errand).await? {
                continue;
            }
            if let Some(group) = errand.chat.filter(|_| own)
                && self.companion(group).await?.is_none()
            {
                // Nobody's message that it could travel with.
                continue;
            }
            match self.parcel(&errand, peer).await? {
                Some(parcel) if !self.submit(&parcel).await? => continue,
                parcel => sent |= parcel.is_some(),
            }
            errands::delete(&self.store, errand.seq).await?;
        }
        Ok(sent)
    }

    /// Whether an errand for an own device is about an account whose chain is still being fetched.
    async fn waits_for_a_chain(&mut self, errand: &errands::Errand) -> Result<bool, StoreError> {
        let lane = errand.mark.as_ref().and_then(|mark| mark.lane.as_ref());
        let Some(Ok(to)) = lane.map(|lane| AccountId::try_from(&lane.recipient)) else { return Ok(false) };
        Ok(self.chain(to).await?.is_none() && self.store.is_stranger(to).await?)
    }

    /// What an errand sends; `None` if there is nothing left to send.
    async fn parcel(
        &mut self,
        errand: &errands::Errand,
        peer: PeerDevice,
    ) -> Result<Option<Parcel>, StoreError> {
        let lane = errand.mark.as_ref().and_then(|mark| mark.lane.clone()).unwrap_or_default();
        let own = errand.account == self.me.account;
        // What is for an own device travels beside a message to the other side, whose copy it got.
        let to = match errand.chat {
            Some(group) if own => self.companion(group).await?,
            _ if own => AccountId::try_from(&lane.recipient).ok(),
            _ => Some(errand.account),
        };
        let Some(to) = to else { return Ok(None) };
        let (devices, own_devices) = if own { (vec![], vec![peer]) } else { (vec![peer], vec![]) };
        if let Some(content) = &errand.content {
            let mut id = [0; 16];
            self.rng.fill_bytes(&mut id);
            let broken = |_| StoreError::Inconsistent { table: "errand", column: "content" };
            let letter = Outgoing {
                id: MessageId(id),
                class: pb::Class::Service,
                to,
                own_number: 0,
                lifetime_secs: 0,
                sent_at_ms: now_ms(),
                content: pb::Content::decode(content.as_slice()).map_err(broken)?,
            };
            let sealed = self.seal(&letter).await?;
            let class = pb::Class::Service;
            return Ok(Some(Parcel {
                message: None,
                class,
                to,
                sealed,
                devices,
                own_devices,
                supplements: None,
                group: errand.chat,
            }));
        }
        let (Some(mark), Some(epoch)) = (&errand.mark, lane_of(&lane)) else { return Ok(None) };
        let found = self.store.in_range(to, self.me.account, epoch, mark.upto..=mark.upto).await?;
        let Some(message) = found.into_iter().find(|message| message.device == self.me.device) else {
            return Ok(None);
        };
        let supplements = errand.mark.clone();
        let class = pb::Class::Content;
        Ok(self.store.sealed(message.id).await?.map(|sealed| Parcel {
            message: None,
            class,
            to,
            sealed,
            devices,
            own_devices,
            supplements,
            group: None,
        }))
    }
}

impl errands::Service {
    async fn put(&self, tx: &mut Tx, content: &pb::Content) -> Result<(), StoreError> {
        errands::put_service(tx, self, &content.encode_to_vec()).await
    }
}
