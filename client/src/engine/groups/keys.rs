//! Sender keys: when the own one rotates, who is given it, and what comes of keys that come or are missing (spec
//! 08-encryption, 8.8).
//!
//! | the own key | rotates |
//! |---|---|
//! | none yet | yes |
//! | made before the last rotation link (a member or a device left) | yes |
//! | given to a device that is no member's now | yes |
//! | used for `sender_key_messages_max` posts, or `sender_key_secs_max` old | yes |
//! | else | no; who lacks it is given it as it stands, and reads nothing from before |

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use rand::Rng as _;
use tidings_proto::chain::GroupState;
use tidings_proto::id::{AccountId, DeviceId, GroupId};
use tidings_proto::limits;
use tidings_proto::pb;

use super::follow::Placed;
use crate::chains;
use crate::crypto::{DistributionId, PeerDevice, SenderKey, SenderKeyError};
use crate::engine::session::{Session, now};
use crate::engine::{Ended, Engine, now_ms};
use crate::error::StoreError;
use crate::letter::Letter;
use crate::store::errands;
use crate::store::groups::Chat;
use crate::store::groups::keys::{self, OwnKey, Turn};
use crate::store::groups::posts::Place;

/// Silence of the home after which a key that has not come is asked for.
const IDLE: Duration = Duration::from_secs(2);

/// Whether the own key has to be replaced before the next post.
fn is_spent(key: &OwnKey, rotated: u64, strangers: bool, now_ms: u64) -> bool {
    let age_ms = now_ms.saturating_sub(key.at_ms);
    strangers
        || key.head_number < rotated
        || key.posts >= limits::SENDER_KEY_MESSAGES_MAX
        || age_ms >= limits::SENDER_KEY_SECS_MAX.saturating_mul(1000)
}

fn no_key(error: SenderKeyError) -> StoreError {
    tracing::error!(%error, "the own sender key is unusable");
    StoreError::Inconsistent { table: "sender_key", column: "record" }
}

impl Engine {
    /// The devices that posts of this one are for: those of all members, and the own others.
    async fn readers(&mut self, state: &GroupState) -> Result<BTreeMap<DeviceId, AccountId>, StoreError> {
        let members: Vec<_> =
            state.members().filter(|(_, member)| !member.invited).map(|(account, _)| *account).collect();
        let mut readers = BTreeMap::new();
        for account in members {
            let peers = self.chain(account).await?.map(chains::peers).unwrap_or_default();
            readers.extend(peers.iter().map(|peer| (peer.device, account)));
        }
        readers.remove(&self.me.device);
        Ok(readers)
    }

    /// The own key to encrypt the next post with; whoever lacks it is being given it. The number tells to how many
    /// devices.
    pub(super) async fn ready_key(
        &mut self,
        group: GroupId,
        state: &GroupState,
    ) -> Result<(OwnKey, usize), StoreError> {
        let (readers, now_ms) = (self.readers(state).await?, now_ms());
        let held = self.store.own_key(group).await?;
        let mut given = match &held {
            Some(key) => self.store.given(group, key.distribution).await?,
            None => BTreeMap::new(),
        };
        let strangers = given.keys().any(|device| !readers.contains_key(device));
        let key = match held {
            Some(key) if !is_spent(&key, state.rotated(), strangers, now_ms) => key,
            _ => {
                given.clear();
                self.new_key(group, state, now_ms).await?
            }
        };
        let lacking: Vec<_> = readers.into_iter().filter(|(device, _)| !given.contains_key(device)).collect();
        if lacking.is_empty() {
            return Ok((key, 0));
        }
        let record = self.own_record(group, key.distribution).await?;
        let sender =
            SenderKey { device: self.me.device, distribution: key.distribution, record: Some(&record) };
        let message = sender.hand_on(&mut self.rng).map_err(no_key)?;
        let content = distribution(group, state, key.distribution, &message);
        let mut tx = self.store.begin().await?;
        for (device, account) in &lacking {
            errands::put_for_group(&mut tx, group, (*account, *device), &content).await?;
            keys::put_given(&mut tx, group, key.distribution, (*device, &message), now_ms).await?;
        }
        tx.commit().await?;
        Ok((key, lacking.len()))
    }

    async fn new_key(
        &mut self,
        group: GroupId,
        state: &GroupState,
        now_ms: u64,
    ) -> Result<OwnKey, StoreError> {
        let mut distribution = [0; 16];
        self.rng.fill_bytes(&mut distribution);
        let sender = SenderKey { device: self.me.device, distribution, record: None };
        let record = sender.create(&mut self.rng).map_err(no_key)?;
        let key = OwnKey { distribution, head_number: state.number(), posts: 0, at_ms: now_ms };
        let own = (self.me.account, self.me.device);
        let mut tx = self.store.begin().await?;
        keys::put_sender_key(&mut tx, group, own, distribution, (&record, now_ms)).await?;
        keys::put_own_key(&mut tx, group, &key).await?;
        let kept_ms = limits::GROUP_KEPT_SECS.saturating_mul(1000);
        keys::prune_keys(&mut tx, now_ms.saturating_sub(kept_ms)).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// The record of a rotation of the own key.
    pub(super) async fn own_record(
        &self,
        group: GroupId,
        distribution: DistributionId,
    ) -> Result<Vec<u8>, StoreError> {
        let found = self.store.sender_key(group, self.me.device, distribution).await?;
        let missing = StoreError::Inconsistent { table: "sender_key", column: "record" };
        found.map(|(_, record)| record).ok_or(missing)
    }

    /// Another account whose chain is known: what is for own devices travels beside a message to it.
    pub(in crate::engine) async fn companion(
        &mut self,
        group: GroupId,
    ) -> Result<Option<AccountId>, StoreError> {
        let Some(state) = self.chat(group).await?.and_then(|chat| chat.state) else { return Ok(None) };
        let members: Vec<_> =
            state.members().filter(|(_, member)| !member.invited).map(|(account, _)| *account).collect();
        for account in members {
            if account != self.me.account && self.chain(account).await?.is_some() {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }

    /// A device handed its key on: what waited for it is read.
    pub(in crate::engine) async fn key_came(
        &mut self,
        letter: &Letter,
        peer: &PeerDevice,
        key: &pb::SenderKeyDistribution,
    ) -> Result<(), Ended> {
        let named: Result<DistributionId, _> = key.distribution.as_ref().try_into();
        let (Ok(group), Ok(distribution)) = (GroupId::try_from(&key.group), named) else { return Ok(()) };
        if self.chat(group).await?.is_none() || peer.device == self.me.device {
            return Ok(());
        }
        let held = self.store.sender_key(group, peer.device, distribution).await?;
        if held.as_ref().is_some_and(|(account, _)| *account != letter.sender) {
            return Ok(());
        }
        let sender = SenderKey {
            device: peer.device,
            distribution,
            record: held.as_ref().map(|(_, record)| record.as_slice()),
        };
        let record = match sender.learn(&key.message) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%error, "a sender key was not taken");
                return Ok(());
            }
        };
        let from = (letter.sender, peer.device);
        let mut tx = self.store.begin().await?;
        keys::put_sender_key(&mut tx, group, from, distribution, (&record, now_ms())).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.read_waiting(group, from, distribution).await
    }

    /// Reads posts that waited for a key.
    async fn read_waiting(
        &mut self,
        group: GroupId,
        (sender, device): (AccountId, DeviceId),
        distribution: DistributionId,
    ) -> Result<(), Ended> {
        for waiting in self.store.undecrypted(group, device, distribution).await? {
            let Ok(post) = pb::GroupPost::decode(waiting.post.as_slice()) else { continue };
            let opened = self.open_post(group, (sender, device), &post).await?;
            if matches!(opened, super::follow::Opened::Waits(_)) {
                continue;
            }
            let place = Place { term: waiting.term, seq: waiting.seq };
            let entry = Placed { group, sender, device, place, local: Some(waiting.local) };
            let mut tx = self.store.begin().await?;
            keys::take_undecrypted(&mut tx, group, waiting.seq).await?;
            let event = self.effect_of_post(&mut tx, &entry, opened, &post).await?;
            tx.commit().await.map_err(StoreError::from)?;
            event.into_iter().for_each(|event| self.tell(event));
        }
        Ok(())
    }

    /// A device lacks a key of this one: it is given again what it was given, or the key as it stands.
    pub(in crate::engine) async fn key_asked(
        &mut self,
        letter: &Letter,
        peer: &PeerDevice,
        request: &pb::SenderKeyRequest,
    ) -> Result<(), Ended> {
        let named: Result<DistributionId, _> = request.distribution.as_ref().try_into();
        let (Ok(group), Ok(distribution_id)) = (GroupId::try_from(&request.group), named) else {
            return Ok(());
        };
        let state = self.chat(group).await?.and_then(|chat| chat.state);
        let Some(state) = state.filter(|state| state.full_member(&letter.sender).is_some()) else {
            return Ok(());
        };
        let given = self.store.given(group, distribution_id).await?.remove(&peer.device);
        let message = match given {
            Some(message) => message,
            None => {
                let current = self.store.own_key(group).await?;
                if current.is_none_or(|key| key.distribution != distribution_id) {
                    // A rotation from before it joined, or that is forgotten.
                    return Ok(());
                }
                let record = self.own_record(group, distribution_id).await?;
                let sender = SenderKey {
                    device: self.me.device,
                    distribution: distribution_id,
                    record: Some(&record),
                };
                sender.hand_on(&mut self.rng).map_err(no_key)?
            }
        };
        let content = distribution(group, &state, distribution_id, &message);
        let to = (letter.sender, peer.device);
        let mut tx = self.store.begin().await?;
        let most = limits::SENDER_KEY_REQUESTS_PER_HOUR;
        if keys::may(&mut tx, Turn::Answer, (peer.device, distribution_id), now_ms(), most).await? {
            errands::put_for_group(&mut tx, group, to, &content).await?;
            keys::put_given(&mut tx, group, distribution_id, (peer.device, &message), now_ms()).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Asks for keys that posts wait for, once the home has nothing more to say: they may have been on their way.
    pub(super) async fn ask_for_keys(&mut self, session: &mut Session) -> Result<(), Ended> {
        if now().duration_since(session.groups.heard) < IDLE || !session.is_open() {
            return Ok(());
        }
        let mut asked = false;
        for (group, device, distribution, post) in self.store.missing_keys().await? {
            let sender = pb::GroupPost::decode(post.as_slice()).map(|post| post.sender).unwrap_or_default();
            let Ok(sender) = AccountId::try_from(&sender) else { continue };
            let request = pb::SenderKeyRequest {
                group: group.to_bytes(),
                distribution: bytes::Bytes::copy_from_slice(&distribution),
            };
            let body = Some(pb::content::Body::SenderKeyRequest(request));
            let content = pb::Content { body, ..Default::default() };
            let mut tx = self.store.begin().await?;
            let most = limits::SENDER_KEY_REQUESTS_PER_HOUR;
            if keys::may(&mut tx, Turn::Ask, (device, distribution), now_ms(), most).await? {
                errands::put_for_group(&mut tx, group, (sender, device), &content).await?;
                asked = true;
            }
            tx.commit().await.map_err(StoreError::from)?;
        }
        if asked { self.send_waiting(session).await } else { Ok(()) }
    }

    /// New devices of the own account hear of the groups it is in (K5).
    pub(in crate::engine) async fn tell_new_devices(&mut self, added: &[DeviceId]) -> Result<(), StoreError> {
        let others: Vec<_> = added.iter().filter(|device| **device != self.me.device).copied().collect();
        if others.is_empty() {
            return Ok(());
        }
        for chat in self.store.chats().await? {
            self.tell_devices(&chat, &others).await?;
        }
        Ok(())
    }

    /// The other devices of the own account hear of a group that it came into by this one.
    pub(super) async fn tell_own_devices(&mut self, chat: &Chat) -> Result<(), StoreError> {
        let mut others: Vec<_> = self.own.state().devices().keys().copied().collect();
        others.retain(|device| *device != self.me.device);
        self.tell_devices(chat, &others).await
    }

    async fn tell_devices(&mut self, chat: &Chat, devices: &[DeviceId]) -> Result<(), StoreError> {
        let Some(state) = chat.state.as_ref().filter(|state| state.full_member(&self.me.account).is_some())
        else {
            return Ok(());
        };
        let body = Some(pb::content::Body::Invitation(self.invitation(chat, state).await?));
        let content = pb::Content { body, ..Default::default() };
        let mut tx = self.store.begin().await?;
        for device in devices {
            errands::put_for_group(&mut tx, chat.id, (self.me.account, *device), &content).await?;
        }
        tx.commit().await.map_err(StoreError::from)
    }
}

/// What hands a key on.
fn distribution(
    group: GroupId,
    state: &GroupState,
    distribution: DistributionId,
    message: &[u8],
) -> pb::Content {
    let key = pb::SenderKeyDistribution {
        group: group.to_bytes(),
        distribution: bytes::Bytes::copy_from_slice(&distribution),
        message: bytes::Bytes::copy_from_slice(message),
        group_head: state.head().to_bytes(),
        group_number: state.number(),
    };
    pb::Content { body: Some(pb::content::Body::SenderKey(key)), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_when_somebody_left_when_it_is_old_and_when_it_is_worn() {
        let key = OwnKey { distribution: [1; 16], head_number: 5, posts: 999, at_ms: 1_000 };
        let later = |secs: u64| 1_000 + secs * 1000;
        assert!(!is_spent(&key, 5, false, later(604_799)));
        assert!(is_spent(&key, 6, false, later(1)), "a member or device left after it was made");
        assert!(is_spent(&key, 5, true, later(1)), "somebody has it who is no member");
        assert!(is_spent(&key, 5, false, later(604_800)));
        assert!(is_spent(&OwnKey { posts: 1_000, ..key }, 5, false, later(1)));
        assert!(!is_spent(&key, 0, false, 0), "a clock that went back is no reason");
    }
}
