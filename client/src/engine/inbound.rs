//! From a mailbox entry to its effect, with the position, in one transaction (spec 03-logs, 3.4; 06-messages,
//! 6.5; 08-encryption, 8.2 to 8.5).

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::entries;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::{AccountId, DeviceId, Hash};
use tidings_proto::log::Position;
use tidings_proto::pb;

use super::outbound::lane_of;
use super::session::{Session, put_position};
use super::{Ended, Engine, Step};
use crate::chains;
use crate::crypto::{Changes, CiphertextKind, DecryptError, Pairwise, PeerDevice, wanted_prekeys};
use crate::error::StoreError;
use crate::event::Event;
use crate::letter::{self, Letter};
use crate::store::accounts::{self, Flag, Standing};
use crate::store::messages::{self, Message, State};
use crate::store::records::put_changes;
use crate::store::{Tx, groups, lanes, stash, unreadable};

/// Whether the device that wrote a message is known.
enum Writer {
    Known(PeerDevice),
    /// Its account's chain has to be fetched first.
    Fetch,
    /// It is on no list this device can verify.
    Unknown,
}

/// What a ciphertext turned out to be.
enum Opened {
    Letter(Box<Letter>, Changes),
    /// Decrypted before.
    Before,
    Unreadable,
}

impl Engine {
    /// Takes one entry of the mailbox.
    pub(super) fn entry<'a>(&'a mut self, session: &'a mut Session, entry: pb::MailboxEntry) -> Step<'a, ()> {
        Box::pin(self.take(session, entry))
    }

    async fn take(&mut self, session: &mut Session, entry: pb::MailboxEntry) -> Result<(), Ended> {
        let inner = pb::Entry::decode(entry.entry.clone()).unwrap_or_else(|_| pb::Entry {
            // One entry that cannot be used never blocks what is behind it (LOG-033). No type has this code.
            r#type: u64::MAX - 1,
            body: Bytes::new(),
        });
        let at = next_position(&session.position, &entry, &inner)?;
        session.groups.heard = super::session::now();
        match inner.r#type {
            entries::DELIVERY => match pb::Delivery::decode(inner.body.clone()) {
                Ok(delivery) => self.delivery(session, delivery, Some(at)).await?,
                Err(_) => self.unusable(&inner, &at).await?,
            },
            entries::WATERMARK => match pb::Watermark::decode(inner.body.clone()) {
                Ok(mark) => self.watermark(&mark, &at).await?,
                Err(_) => self.unusable(&inner, &at).await?,
            },
            entries::NOTICE => match pb::Notice::decode(inner.body.clone()) {
                Ok(notice) => self.notice(session, &notice, &at).await?,
                Err(_) => self.unusable(&inner, &at).await?,
            },
            entries::CHAIN_ANNOUNCE => match pb::ChainAnnounce::decode(inner.body.clone()) {
                Ok(announced) => self.announced(session, announced, &at).await?,
                Err(_) => self.unusable(&inner, &at).await?,
            },
            entries::GROUP_NOTICE => match pb::GroupNotice::decode(inner.body.clone()) {
                Ok(notice) => self.group_notice(session, notice, &at).await?,
                Err(_) => self.unusable(&inner, &at).await?,
            },
            entries::STOCK_LOW => {
                let low = pb::StockLow::decode(inner.body).unwrap_or_default();
                self.moved(&at).await?;
                self.replenish(session, low.one_time_ec.min(low.one_time_kyber)).await?;
            }
            entries::VOID => {
                self.moved(&at).await?;
                if pb::Void::decode(inner.body).is_ok_and(|void| void.reason() == pb::VoidReason::Lapsed) {
                    self.tell(Event::MailboxLapsed);
                }
            }
            ignorable if ignorable % 2 == 1 => self.moved(&at).await?,
            _ => self.unusable(&inner, &at).await?,
        }
        session.position = at;
        Ok(())
    }

    /// Keeps what this version does not know or cannot read, and says so (LOG-032, LOG-033).
    async fn unusable(&self, entry: &pb::Entry, at: &Position) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        unreadable::put_unknown(&mut tx, entry.r#type, &entry.body).await?;
        put_position(&mut tx, at).await?;
        tx.commit().await?;
        self.tell(Event::Unsupported { kind: entry.r#type });
        Ok(())
    }

    async fn announced(
        &mut self,
        session: &mut Session,
        announced: pb::ChainAnnounce,
        at: &Position,
    ) -> Result<(), Ended> {
        if let Ok(account) = AccountId::try_from(&announced.account)
            && self.chain(account).await?.is_some()
            && !self.adopt_links(account, announced.links).await?
        {
            // Links in between did not fit in: asked for.
            self.fetch(session, account, &announced.address, Vec::new()).await?;
        }
        self.moved(at).await?;
        self.send_waiting(session).await
    }

    pub(super) async fn moved(&self, at: &Position) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        put_position(&mut tx, at).await?;
        Ok(tx.commit().await?)
    }

    fn delivery<'a>(
        &'a mut self,
        session: &'a mut Session,
        delivery: pb::Delivery,
        at: Option<Position>,
    ) -> Step<'a, ()> {
        Box::pin(self.deliver(session, delivery, at))
    }

    async fn deliver(
        &mut self,
        session: &mut Session,
        delivery: pb::Delivery,
        at: Option<Position>,
    ) -> Result<(), Ended> {
        let at = at.as_ref();
        let lane = delivery.lane.clone().unwrap_or_default();
        let (Ok(sender), Ok(device)) =
            (AccountId::try_from(&lane.sender), DeviceId::try_from(&delivery.sender_device))
        else {
            return Ok(self.skip(at).await?);
        };
        // Behind something that waits for the same account's chain, everything waits, in order.
        let waits = at.is_some() && stash::holds(&self.store, sender).await?;
        let writer = if waits { Writer::Fetch } else { self.writer(sender, device, &delivery).await? };
        match writer {
            Writer::Known(peer) => self.open(session, &delivery, &peer, at).await,
            Writer::Fetch if at.is_some() => {
                let mut tx = self.store.begin().await?;
                stash::put(&mut tx, sender, &delivery.encode_to_vec()).await?;
                if let Some(at) = at {
                    put_position(&mut tx, at).await?;
                }
                tx.commit().await.map_err(StoreError::from)?;
                self.fetch(session, sender, &delivery.sender_address, Vec::new()).await
            }
            Writer::Fetch | Writer::Unknown => {
                self.tell(Event::Undecryptable { sender, number: delivery.number });
                Ok(self.skip(at).await?)
            }
        }
    }

    async fn skip(&self, at: Option<&Position>) -> Result<(), StoreError> {
        match at {
            Some(at) => self.moved(at).await,
            None => Ok(()),
        }
    }

    async fn writer(
        &mut self,
        sender: AccountId,
        device: DeviceId,
        delivery: &pb::Delivery,
    ) -> Result<Writer, StoreError> {
        let head = delivery.sender_head.clone();
        let Some(chain) = self.chain(sender).await? else { return Ok(Writer::Fetch) };
        if let Some(peer) = chains::peers(chain).into_iter().find(|peer| peer.device == device) {
            return Ok(Writer::Known(peer));
        }
        let known = chain.ids().iter().any(|id| id.as_ref() == head.as_ref());
        Ok(if known { Writer::Unknown } else { Writer::Fetch })
    }

    /// Decrypts, and checks what is inside.
    async fn decrypt(&mut self, delivery: &pb::Delivery, peer: &PeerDevice) -> Result<Opened, StoreError> {
        let payload = delivery.payload.clone().unwrap_or_default();
        let kind = match payload.kind() {
            pb::PayloadKind::Message => CiphertextKind::Message,
            pb::PayloadKind::Prekey => CiphertextKind::Prekey,
            pb::PayloadKind::Unspecified | pb::PayloadKind::SenderKey => return Ok(Opened::Unreadable),
        };
        let opened = match wanted_prekeys(kind, &payload.ciphertext) {
            Ok(wanted) => {
                let records = self.store.records_for(peer.device, wanted.as_ref()).await?;
                let pairwise = Pairwise { local: &self.me.local, peer, records: &records };
                pairwise.decrypt(kind, &payload.ciphertext, &mut self.rng)
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((plaintext, changes)) => match letter::read(delivery, &plaintext) {
                Ok(letter) => Ok(Opened::Letter(Box::new(letter), changes)),
                Err(error) => {
                    tracing::warn!(%error, "a message contradicts its envelope");
                    Ok(Opened::Unreadable)
                }
            },
            Err(DecryptError::Duplicate) => Ok(Opened::Before),
            Err(error) => {
                tracing::warn!(%error, "a message cannot be read");
                Ok(Opened::Unreadable)
            }
        }
    }

    /// Decrypts, and stores the effect.
    async fn open(
        &mut self,
        session: &mut Session,
        delivery: &pb::Delivery,
        peer: &PeerDevice,
        at: Option<&Position>,
    ) -> Result<(), Ended> {
        match self.decrypt(delivery, peer).await? {
            Opened::Letter(letter, changes) => {
                let mut tx = self.store.begin().await?;
                put_changes(&mut tx, &changes).await?;
                let events = self.effect(&mut tx, delivery, &letter, peer).await?;
                if let Some(at) = at {
                    put_position(&mut tx, at).await?;
                }
                tx.commit().await.map_err(StoreError::from)?;
                events.into_iter().for_each(|event| self.tell(event));
                self.after(session, &letter, peer).await
            }
            Opened::Before => Ok(self.skip(at).await?),
            Opened::Unreadable => self.undecryptable(session, delivery, peer, at).await,
        }
    }

    /// What a readable message does to the store; the events to tell once it is durable.
    async fn effect(
        &self,
        tx: &mut Tx,
        delivery: &pb::Delivery,
        letter: &Letter,
        peer: &PeerDevice,
    ) -> Result<Vec<Event>, StoreError> {
        let mut events = Vec::new();
        let lane = delivery.lane.as_ref().and_then(lane_of);
        let own = letter.sender == self.me.account;
        let other = if own { letter.conversation } else { letter.sender };
        // Who is no request any more was accepted on another device; so is whom another device wrote to.
        if !delivery.request && letter.class == pb::Class::Content {
            accounts::set_accepted_elsewhere(tx, other).await?;
        }
        if own {
            accounts::put_stranger(tx, other, &delivery.recipient_address).await?;
        }
        events.extend(invited(tx, letter, own).await?);
        let Some(lane) = lane.filter(|_| delivery.number > 0) else { return Ok(events) };
        let mut gap = false;
        if !delivery.supplement && !own {
            let missing = lanes::seen(tx, other, lane, delivery.number, &delivery.not_for_you).await?;
            gap = missing.is_some();
            events.extend(missing.map(|(from, to)| Event::Gap { conversation: other, from, to }));
        }
        let place = unreadable::take(tx, letter.sender, lane, delivery.number).await?;
        let jumped = lanes::seen_of_device(tx, other, peer.device, letter.own_number).await?;
        let explained = delivery.supplement || gap || !delivery.not_for_you.is_empty();
        if !explained && jumped > unreadable::count(tx, peer.device).await? {
            events.push(Event::Withheld { conversation: other, device: peer.device, count: jumped });
        }
        let shown = match &letter.content.body {
            Some(pb::content::Body::Text(text)) => Some((text.text.clone(), None)),
            None => {
                Some((String::new(), Some("a newer version of the program can show this message".to_owned())))
            }
            Some(_) => None,
        };
        if let Some((text, reason)) = shown.filter(|_| letter.class == pb::Class::Content) {
            let message = Message {
                seq: match place {
                    Some(place) => place,
                    None => messages::next_seq(tx).await?,
                },
                id: letter.id,
                conversation: other,
                sender: letter.sender,
                device: peer.device,
                text,
                reply_to: letter.reply_to,
                sent_at_ms: letter.sent_at_ms,
                number: delivery.number,
                own_number: letter.own_number,
                lifetime_secs: letter.lifetime_secs,
                state: if own { State::AcceptedByHome } else { State::Received },
                reason,
            };
            if messages::put_message(tx, &message, Some(lane)).await? {
                accounts::set_flag(tx, other, Flag::Hidden, false).await?;
                events.push(Event::Message(Box::new(message)));
            }
        }
        Ok(events)
    }

    /// What follows a message once it is durable: answers, newer links.
    async fn after(
        &mut self,
        session: &mut Session,
        letter: &Letter,
        peer: &PeerDevice,
    ) -> Result<(), Ended> {
        match &letter.content.body {
            Some(pb::content::Body::Heads(heads)) => {
                self.adopt_links(letter.sender, heads.links.clone()).await?;
            }
            Some(pb::content::Body::Resend(request)) if letter.class == pb::Class::Service => {
                self.resend(letter, peer, request).await?;
            }
            Some(pb::content::Body::Invitation(invitation)) => self.invited(session, invitation).await?,
            Some(pb::content::Body::SenderKey(key)) if letter.class == pb::Class::Service => {
                self.key_came(letter, peer, key).await?;
            }
            Some(pb::content::Body::SenderKeyRequest(request)) if letter.class == pb::Class::Service => {
                self.key_asked(letter, peer, request).await?;
            }
            _ => {}
        }
        self.fetch_strangers(session).await?;
        self.compare_heads(session, letter, peer).await?;
        self.send_waiting(session).await
    }

    /// Opens what waited for an account's chain.
    pub(super) async fn unstash(&mut self, session: &mut Session, account: AccountId) -> Result<(), Ended> {
        while let Some((seq, body)) = stash::first(&self.store, account).await? {
            if let Ok(delivery) = pb::Delivery::decode(body.as_slice()) {
                self.delivery(session, delivery, None).await?;
            }
            stash::delete(&self.store, seq).await?;
        }
        Ok(())
    }

    /// Whether the user took this account as a contact; the own one counts.
    pub(super) async fn accepted_contact(&self, account: AccountId) -> Result<bool, StoreError> {
        let contact = self.store.contact(account).await?;
        Ok(account == self.me.account
            || contact.is_some_and(|contact| contact.standing == Standing::Accepted))
    }
}

/// What a message that carries an invitation to a group does to the store.
async fn invited(tx: &mut Tx, letter: &Letter, own: bool) -> Result<Option<Event>, StoreError> {
    let Some(pb::content::Body::Invitation(invitation)) = &letter.content.body else { return Ok(None) };
    if own && letter.class != pb::Class::Service {
        // A copy of what another own device sent somebody is no invitation.
        return Ok(None);
    }
    let chat = groups::remember_invitation(tx, (letter.sender, own), invitation).await?;
    let invited = chat.as_ref().and_then(groups::invitation).filter(|_| !own);
    Ok(invited.map(|invitation| Event::GroupInvited(Box::new(invitation))))
}

/// The position after an entry. Another number or a hash that does not follow is the home's fault: the
/// connection ends, and the next one starts from the stored position.
fn next_position(before: &Position, entry: &pb::MailboxEntry, inner: &pb::Entry) -> Result<Position, Ended> {
    let invalid = |detail: String| Ended::Violation(Refusal::new(Code::POSITION_INVALID, detail));
    let after = before.follow(entry.n, &entry.entry).map_err(|error| invalid(error.to_string()))?;
    if inner.r#type != entries::VOID {
        return Ok(after);
    }
    let void =
        pb::Void::decode(inner.body.clone()).map_err(|_| invalid("a void that cannot be read".to_owned()))?;
    let hash = Hash::try_from(&void.hash).map_err(|_| invalid("a void without its hash".to_owned()))?;
    if void.from != entry.n || void.to < void.from {
        return Err(invalid("a void that is not where it says".to_owned()));
    }
    Position::new(before.incarnation, void.to, hash).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use tidings_proto::id::Incarnation;

    use super::*;

    fn void(from: u64, to: u64) -> (pb::MailboxEntry, pb::Entry) {
        let void = pb::Void { from, to, hash: vec![7; 32].into(), ..Default::default() };
        let inner = pb::Entry { r#type: entries::VOID, body: void.encode_to_vec().into() };
        (pb::MailboxEntry { n: 4, entry: inner.encode_to_vec().into() }, inner)
    }

    #[test]
    fn a_void_moves_the_position_over_its_range_and_nothing_else_does() {
        let before = Position::new(Incarnation([1; 16]), 3, Hash([2; 32])).expect("a position");
        let (entry, inner) = void(4, 9);
        let after = next_position(&before, &entry, &inner).expect("it follows");
        assert_eq!((after.n, after.h), (9, Hash([7; 32])));
        for (from, to) in [(5, 9), (4, 3)] {
            let (entry, inner) = void(from, to);
            assert!(matches!(next_position(&before, &entry, &inner), Err(Ended::Violation(_))));
        }
        let skipped = pb::MailboxEntry { n: 5, ..Default::default() };
        assert!(matches!(next_position(&before, &skipped, &pb::Entry::default()), Err(Ended::Violation(_))));
    }
}
