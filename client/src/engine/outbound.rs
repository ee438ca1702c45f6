//! From a written message to a stored submission (spec 06-messages, 6.2 and 6.3; 08-encryption, 8.2 and 8.3).
//!
//! A message is encrypted when every device of both accounts has a session, not before, except for devices
//! that have published no prekeys: nobody can begin a session with these. A list that is stale is found out
//! by the home, which names the head it knows, and the message is encrypted anew under the same id and
//! another counter.

use prost::Message as _;
use rand::Rng as _;
use tidings_proto::id::{AccountId, DeviceId, GroupId, Incarnation, MessageId};
use tidings_proto::pb;

use super::session::{Session, now};
use super::{Ended, Engine, Step, now_ms};
use crate::chains;
use crate::crypto::{
    Ciphertext, CiphertextKind, Pairwise, PeerDevice, commitment, seal_plaintext, session_usable,
};
use crate::error::StoreError;
use crate::store::messages::{self, Lane, Message};
use crate::store::queue::{self, Sealed, Submission};
use crate::store::records::{drop_session, put_changes};

/// What goes into a plaintext.
pub(super) struct Letter {
    pub(super) id: MessageId,
    pub(super) class: pb::Class,
    pub(super) to: AccountId,
    pub(super) own_number: u64,
    pub(super) lifetime_secs: u32,
    pub(super) sent_at_ms: u64,
    pub(super) content: pb::Content,
}

/// Something to be submitted: what is sealed, and for whom.
pub(super) struct Parcel {
    /// The message; none for service.
    pub(super) message: Option<MessageId>,
    pub(super) class: pb::Class,
    pub(super) to: AccountId,
    pub(super) sealed: Sealed,
    pub(super) devices: Vec<PeerDevice>,
    pub(super) own_devices: Vec<PeerDevice>,
    /// The lane and number that it completes.
    pub(super) supplements: Option<pb::Watermark>,
    /// The group that a service message belongs to.
    pub(super) group: Option<GroupId>,
}

/// Whom a message is encrypted for.
#[derive(Debug, Clone)]
struct Targets {
    devices: Vec<PeerDevice>,
    own_devices: Vec<PeerDevice>,
}

impl Engine {
    /// Sends what waits, as far as the window and the sessions allow.
    pub(super) fn send_waiting<'a>(&'a mut self, session: &'a mut Session) -> Step<'a, ()> {
        Box::pin(self.send_what_waits(session))
    }

    async fn send_what_waits(&mut self, session: &mut Session) -> Result<(), Ended> {
        while session.is_open() {
            let room = u32::try_from(session.window.room()).unwrap_or(u32::MAX);
            if room == 0 {
                return Ok(());
            }
            let stored = self.store.submissions(session.window.sent(), room).await?;
            if stored.is_empty()
                && !self.run_errands(session).await?
                && !self.prepare(session, room).await?
                && !self.prepare_posts(session, room).await?
            {
                return Ok(());
            }
            for submission in stored {
                session.put(submission.counter, submission.bytes).await?;
            }
        }
        Ok(())
    }

    /// Turns waiting messages into stored submissions. False: there was nothing that could be.
    async fn prepare(&mut self, session: &mut Session, room: u32) -> Result<bool, Ended> {
        let mut made = 0;
        for to in self.store.waiting_conversations().await? {
            let Some(targets) = self.ready(session, to).await? else { continue };
            for message in self.store.unsubmitted(to, room.saturating_sub(made)).await? {
                let Targets { devices, own_devices } = targets.clone();
                let sealed = self.seal_message(message.clone()).await?;
                let (message, class) = (Some(message.id), pb::Class::Content);
                let parcel = Parcel {
                    message,
                    class,
                    to,
                    sealed,
                    devices,
                    own_devices,
                    supplements: None,
                    group: None,
                };
                if !self.submit(&parcel).await? {
                    // In order or not at all: the rest of the conversation waits with it.
                    break;
                }
                made += 1;
            }
            if made >= room {
                break;
            }
        }
        Ok(made > 0)
    }

    /// All devices a message to this account goes to: the other's, and the own ones but this.
    async fn targets(&mut self, to: AccountId) -> Result<Targets, StoreError> {
        let me = self.me.device;
        let mut own_devices = chains::peers(&self.own);
        own_devices.retain(|peer| peer.device != me);
        let devices = self.chain(to).await?.map(chains::peers).unwrap_or_default();
        Ok(Targets { devices, own_devices })
    }

    /// Whom to encrypt for, if every device has a session or is known to have published nothing; what is missing
    /// is being fetched.
    async fn ready(&mut self, session: &mut Session, to: AccountId) -> Result<Option<Targets>, Ended> {
        let Some(contact) = self.store.contact(to).await? else { return Ok(None) };
        if contact.forked || session.fetching.contains(&to) || session.fetching.contains(&self.me.account) {
            return Ok(None);
        }
        let mut targets = self.targets(to).await?;
        let others = self.without_session(&targets.devices).await?;
        let own = self.without_session(&targets.own_devices).await?;
        let unknown = targets.devices.is_empty();
        targets.devices.retain(|peer| !others.contains(&peer.device));
        targets.own_devices.retain(|peer| !own.contains(&peer.device));
        let (others, own) = (self.worth_asking(others), self.worth_asking(own));
        let blocked = !others.is_empty() || !own.is_empty();
        if !others.is_empty() || unknown {
            self.fetch(session, to, &contact.address.to_string(), others).await?;
        }
        if !own.is_empty() {
            let address = self.me.address.to_string();
            self.fetch(session, self.me.account, &address, own).await?;
        }
        Ok((!blocked && !targets.devices.is_empty()).then_some(targets))
    }

    /// Those of these devices that may have published prekeys since they were last asked for.
    fn worth_asking(&self, mut devices: Vec<DeviceId>) -> Vec<DeviceId> {
        let now = now();
        devices.retain(|device| self.bare.get(device).is_none_or(|again| *again <= now));
        devices
    }

    /// Those devices that nothing can be encrypted for now.
    pub(super) async fn without_session(&self, devices: &[PeerDevice]) -> Result<Vec<DeviceId>, StoreError> {
        let mut missing = Vec::new();
        for peer in devices {
            let records = self.store.session_records(peer.device).await?;
            let usable = records.sessions.get(&peer.device).is_some_and(|record| {
                // A record that cannot be read is no session: a new one takes its place.
                session_usable(record, now_ms()).unwrap_or(false)
            });
            if !usable {
                missing.push(peer.device);
            }
        }
        Ok(missing)
    }

    /// Header and content of a message: the same for ever once a home has taken it (ENC-010).
    async fn seal_message(&mut self, mut message: Message) -> Result<Sealed, StoreError> {
        if message.number > 0
            && let Some(sealed) = self.store.sealed(message.id).await?
        {
            return Ok(sealed);
        }
        let mut tx = self.store.begin().await?;
        messages::set_own_number(&mut tx, &mut message).await?;
        tx.commit().await?;
        let mut letter = text_letter(&message);
        if let Some(body) = self.store.body(message.id).await? {
            let broken = |_| StoreError::Inconsistent { table: "message_body", column: "content" };
            letter.content = pb::Content::decode(body.as_slice()).map_err(broken)?;
        }
        self.seal(&letter).await
    }

    /// Header and content of a letter, with the heads of now.
    pub(super) async fn seal(&mut self, letter: &Letter) -> Result<Sealed, StoreError> {
        let mut key = [0; 32];
        self.rng.fill_bytes(&mut key);
        let header = pb::PlaintextHeader {
            message_id: letter.id.to_bytes(),
            sender_account: self.me.account.to_bytes(),
            sender_device: self.me.device.to_bytes(),
            conversation: letter.to.to_bytes(),
            class: letter.class.into(),
            number: letter.own_number,
            lifetime_secs: letter.lifetime_secs,
            sender_head: self.own.head().to_bytes(),
            sender_record: self.store.value("record-hash").await?.unwrap_or_default().into(),
            recipient_head: self.head_of(letter.to).await?,
            franking_key: bytes::Bytes::copy_from_slice(&key),
            sent_at_ms: letter.sent_at_ms,
            ..Default::default()
        };
        Ok(Sealed { header: header.encode_to_vec(), content: letter.content.encode_to_vec() })
    }

    /// Encrypts a parcel and stores the submission, with the sessions as they are then, in one transaction. False:
    /// a session could not be used and was thrown away; a new one comes with the next attempt.
    pub(super) async fn submit(&mut self, parcel: &Parcel) -> Result<bool, Ended> {
        let Parcel { sealed, .. } = parcel;
        let broken = || StoreError::Inconsistent { table: "sealed", column: "header" };
        let header = pb::PlaintextHeader::decode(sealed.header.as_slice()).map_err(|_| broken())?;
        let key: [u8; 32] = header.franking_key.as_ref().try_into().map_err(|_| broken())?;
        let plaintext = seal_plaintext(&sealed.header, &sealed.content).map_err(|_| broken())?;
        let (mut changed, mut payloads, mut own_payloads) = (Vec::new(), Vec::new(), Vec::new());
        let others = parcel.devices.iter().map(|peer| (peer, false));
        for (peer, own) in others.chain(parcel.own_devices.iter().map(|peer| (peer, true))) {
            let records = self.store.session_records(peer.device).await?;
            let pairwise = Pairwise { local: &self.me.local, peer, records: &records };
            match pairwise.encrypt(&plaintext, now_ms(), &mut self.rng) {
                Ok((ciphertext, changes)) => {
                    changed.push(changes);
                    let list = if own { &mut own_payloads } else { &mut payloads };
                    list.push(payload(peer.device, ciphertext));
                }
                Err(error) => {
                    tracing::warn!(%error, "a session could not be used");
                    let mut tx = self.store.begin().await?;
                    drop_session(&mut tx, peer.device).await?;
                    tx.commit().await.map_err(StoreError::from)?;
                    return Ok(false);
                }
            }
        }
        let lane = parcel.supplements.as_ref().and_then(|mark| mark.lane.clone()).unwrap_or_default();
        let counter = self.store.counter().await?.saturating_add(1);
        let submit = pb::Submit {
            counter,
            class: parcel.class.into(),
            to_account: parcel.to.to_bytes(),
            to_address: self.address_of(parcel.to).await?,
            to_head: self.head_of(parcel.to).await?,
            own_head: self.own.head().to_bytes(),
            lifetime_secs: 0,
            payloads,
            own_payloads,
            commitment: commitment(&key, &sealed.header, &sealed.content).to_vec().into(),
            supplements: parcel.supplements.as_ref().map_or(0, |mark| mark.upto),
            supplements_epoch_links: lane.address_links,
            supplements_incarnation: lane.incarnation,
            group: parcel.group.map(|group| group.to_bytes()).unwrap_or_default(),
            ..Default::default()
        };
        let id = MessageId::try_from(&header.message_id).map_err(|_| broken())?;
        let mut tx = self.store.begin().await?;
        for changes in changed {
            put_changes(&mut tx, &changes).await?;
        }
        if parcel.class == pb::Class::Content {
            queue::put_sealed(&mut tx, id, sealed).await?;
            for payload in submit.payloads.iter().chain(&submit.own_payloads) {
                queue::put_ciphertext(&mut tx, id, payload).await?;
            }
        }
        let bytes = submit.encode_to_vec().into();
        queue::put_submission(&mut tx, Submission { counter, message: parcel.message, bytes }).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(true)
    }

    /// The newest verified head of an account; empty if nothing is known of it.
    pub(super) async fn head_of(&mut self, account: AccountId) -> Result<bytes::Bytes, StoreError> {
        Ok(self.chain(account).await?.map(|chain| chain.head().to_bytes()).unwrap_or_default())
    }

    /// Where an account lives, as its chain says; empty if nothing is known of it.
    pub(super) async fn address_of(&mut self, account: AccountId) -> Result<String, StoreError> {
        Ok(self.chain(account).await?.map(|chain| chain.state().address().to_string()).unwrap_or_default())
    }
}

fn payload(device: DeviceId, ciphertext: Ciphertext) -> pb::Payload {
    let kind = match ciphertext.kind {
        CiphertextKind::Prekey => pb::PayloadKind::Prekey,
        CiphertextKind::Message => pb::PayloadKind::Message,
    };
    pb::Payload { device: device.to_bytes(), kind: kind.into(), ciphertext: ciphertext.bytes.into() }
}

/// The epoch of a lane, for the store.
pub(super) fn lane_of(lane: &pb::LaneId) -> Option<Lane> {
    let incarnation = Incarnation::try_from(&lane.incarnation).ok()?;
    Some(Lane { address_links: lane.address_links, incarnation: incarnation.0 })
}

/// Messages of the store as letters were made from them.
pub(super) fn text_letter(message: &Message) -> Letter {
    let text = pb::Text { text: message.text.clone() };
    Letter {
        id: message.id,
        class: pb::Class::Content,
        to: message.conversation,
        own_number: message.own_number,
        lifetime_secs: message.lifetime_secs,
        sent_at_ms: message.sent_at_ms,
        content: pb::Content {
            reply_to: message.reply_to.map(|id| id.to_bytes()).unwrap_or_default(),
            body: Some(pb::content::Body::Text(text)),
            ..Default::default()
        },
    }
}
