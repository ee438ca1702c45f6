//! A decision being made: changes apply to the world at once and are handed to the committer together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::{AccountState, Verified};
use tidings_proto::id::{AccountId, DeviceId, Hash, Incarnation};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::lane::Lane;
use super::log::{Log, New};
use super::peer::Peer;
use super::world::{Account, Device, Slot, Stock, World};
use crate::messages::rules::Stored;
use crate::store::{
    AccountRow, Commit, Committer, DeviceRow, KeyKind, LaneKey, LinkRow, LogId, OutcomeRow, PeerId, Writes,
};

/// Link times kept for an account.
const LINK_TIMES: usize = 64;

/// One decision. Dropped or committed, what was applied goes to the store: world and store never differ.
pub struct Transaction<'a> {
    world: MutexGuard<'a, World>,
    committer: &'a Committer,
    batch: u64,
    writes: Writes,
    devices: BTreeSet<DeviceId>,
    lanes: BTreeSet<LaneKey>,
    peers: BTreeSet<PeerId>,
    /// Devices whose mailboxes got something.
    woken: BTreeSet<DeviceId>,
    /// Domains whose outboxes got something.
    shipped: BTreeSet<Domain>,
}

/// Whom to wake once a decision is durable.
#[derive(Debug, Default)]
pub struct Woken {
    /// Devices with something new in their mailboxes.
    pub devices: Vec<DeviceId>,
    /// Domains with something new in their outboxes.
    pub domains: Vec<Domain>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(world: MutexGuard<'a, World>, committer: &'a Committer) -> Self {
        Self {
            batch: committer.next_number(),
            world,
            committer,
            writes: Writes::default(),
            devices: BTreeSet::new(),
            lanes: BTreeSet::new(),
            peers: BTreeSet::new(),
            woken: BTreeSet::new(),
            shipped: BTreeSet::new(),
        }
    }

    /// The world with this decision's changes so far.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    // ---- accounts ----

    /// Appends a verified link: the first makes the account.
    pub fn append_link(&mut self, chain: Verified<AccountState>, link: pb::Link, local: bool, at_ms: u64) {
        let id = chain.account_id();
        let number = u64::try_from(chain.len()).unwrap_or(u64::MAX).saturating_sub(1);
        let row = AccountRow { id, address: chain.state().address().to_string(), local };
        self.writes.accounts.insert(id, row);
        let encoded = Bytes::from(link.encode_to_vec());
        self.writes.links.insert((id, number), LinkRow { account: id, number, link: encoded, at_ms });
        let place = self.world.accounts.entry(id).or_insert(None);
        let account = match place {
            Some(account) => account,
            None => place.insert(Account {
                local,
                chain: chain.clone(),
                links: Vec::new(),
                link_times: std::collections::VecDeque::new(),
                requesters: Vec::new(),
                handed: BTreeMap::new(),
                batch: 0,
            }),
        };
        account.chain = chain;
        account.links.push(link);
        account.link_times.push_back(at_ms);
        if account.link_times.len() > LINK_TIMES {
            account.link_times.pop_front();
        }
        account.batch = self.batch;
    }

    /// Gives a name to an account, for ever.
    pub fn give_name(&mut self, address: String, account: AccountId) {
        self.writes.names.insert(address.clone(), account);
        self.world.names.insert(address, Slot { value: Some(account), batch: self.batch });
    }

    /// A device with an empty mailbox.
    pub fn add_device(&mut self, id: DeviceId, account: AccountId, incarnation: Incarnation) {
        let log = self.fresh_log();
        let row = DeviceRow {
            id,
            account,
            log,
            counter: 0,
            digest: Hash::ZERO,
            record: Bytes::new(),
            keyed: false,
            told_low: false,
            ec_high: 0,
            kyber_high: 0,
        };
        let device =
            Device { row, mailbox: Log::new(log, incarnation), outcomes: BTreeMap::new(), batch: self.batch };
        self.world.devices.insert(id, device);
        self.world.stocks.insert(id, Stock { batch: self.batch, ..Stock::default() });
        self.devices.insert(id);
    }

    /// A device is gone, with its mailbox, prekeys and outcomes.
    pub fn remove_device(&mut self, id: DeviceId) {
        let Some(device) = self.world.devices.remove(&id) else { return };
        self.world.stocks.remove(&id);
        self.devices.remove(&id);
        let log = device.mailbox.id();
        self.writes.entries.retain(|(owner, _), _| *owner != log);
        self.writes.logs.insert(log, None);
        self.writes.devices.insert(id, None);
    }

    /// Changes a device.
    pub fn change_device(&mut self, id: &DeviceId, change: impl FnOnce(&mut DeviceRow)) {
        let batch = self.batch;
        if let Some(device) = self.world.devices.get_mut(id) {
            change(&mut device.row);
            device.batch = batch;
            self.devices.insert(*id);
        }
    }

    /// A domain holds the account's chain, or exchanged a message with it, at this time.
    pub fn hand(&mut self, account: AccountId, domain: &Domain, at_ms: u64) {
        let batch = self.batch;
        if let Some(Some(held)) = self.world.accounts.get_mut(&account) {
            let known = held.handed.get(domain.as_str()).copied().unwrap_or(0);
            // Once an hour is often enough for something that counts in days.
            if at_ms >= known.saturating_add(3_600_000) {
                held.handed.insert(domain.to_string(), at_ms);
                held.batch = batch;
                self.writes.handed.insert((account, domain.to_string()), at_ms);
            }
        }
    }

    /// Issues or uses an invitation.
    pub fn put_token(&mut self, digest: Hash, unused: bool) {
        self.writes.tokens.insert(digest, unused);
        self.world.tokens.insert(digest, Slot { value: unused, batch: self.batch });
    }

    // ---- prekeys ----

    /// Drops all prekeys of a device.
    pub fn clear_keys(&mut self, device: DeviceId) {
        self.writes.keys.retain(|(owner, ..), _| *owner != device);
        self.writes.keys_cleared.insert(device);
        self.world.stocks.insert(device, Stock { batch: self.batch, ..Stock::default() });
    }

    /// Puts a signed or last-resort key in the place of the one held, or adds a one-time Kyber key.
    pub fn put_signed_key(&mut self, device: DeviceId, kind: KeyKind, key: pb::SignedKey) {
        let batch = self.batch;
        let stock = self.world.stocks.entry(device).or_default();
        stock.batch = batch;
        let encoded = Bytes::from(key.encode_to_vec());
        let replaced = match kind {
            KeyKind::Signed => stock.signed.replace(key.clone()),
            KeyKind::LastResort => stock.last_resort.replace(key.clone()),
            KeyKind::OneTime => None,
            KeyKind::OneTimeKyber => stock.one_time_kyber.insert(key.id, key.clone()),
        };
        if let Some(replaced) = replaced {
            self.writes.keys.insert((device, kind, replaced.id), None);
        }
        self.writes.keys.insert((device, kind, key.id), Some(encoded));
    }

    /// Adds a one-time key.
    pub fn put_one_time(&mut self, device: DeviceId, key: pb::OneTimeKey) {
        let batch = self.batch;
        let stock = self.world.stocks.entry(device).or_default();
        stock.batch = batch;
        self.writes.keys.insert((device, KeyKind::OneTime, key.id), Some(key.encode_to_vec().into()));
        stock.one_time.insert(key.id, key);
    }

    /// Takes the oldest one-time key of each kind out.
    pub fn take_one_time(&mut self, device: DeviceId) -> (Option<pb::OneTimeKey>, Option<pb::SignedKey>) {
        let batch = self.batch;
        let Some(stock) = self.world.stocks.get_mut(&device) else { return (None, None) };
        stock.batch = batch;
        let (ec, kyber) = (stock.one_time.pop_first(), stock.one_time_kyber.pop_first());
        let taken = [
            ec.as_ref().map(|(id, _)| (KeyKind::OneTime, *id)),
            kyber.as_ref().map(|(id, _)| (KeyKind::OneTimeKyber, *id)),
        ];
        for (kind, id) in taken.into_iter().flatten() {
            self.writes.keys.insert((device, kind, id), None);
        }
        (ec.map(|(_, key)| key), kyber.map(|(_, key)| key))
    }

    // ---- mailboxes and submissions ----

    /// Appends to a mailbox; one that is full lapses. Gives whether it was stored.
    pub fn place(&mut self, id: DeviceId, new: New) -> bool {
        let batch = self.batch;
        self.lapse_if_full(&id);
        let Some(device) = self.world.devices.get_mut(&id) else { return false };
        device.batch = batch;
        self.devices.insert(id);
        let stored = device.mailbox.append(new, batch, &mut self.writes).is_some();
        if stored {
            self.woken.insert(id);
        }
        stored
    }

    /// Lets a mailbox that would exceed its bound lapse.
    pub fn lapse_if_full(&mut self, id: &DeviceId) {
        let most = self.world.mailbox_entries_max;
        let batch = self.batch;
        if let Some(device) = self.world.devices.get_mut(id)
            && device.mailbox.counted() >= most
            && !device.mailbox.row().lapsed
        {
            tracing::warn!(device = ?id, "a mailbox reached its bound and lapsed until its device returns");
            device.mailbox.lapse(&mut self.writes);
            device.batch = batch;
            self.devices.insert(*id);
        }
    }

    /// A message found no room with an account: its full mailboxes lapse, as if it had been placed.
    pub fn lapse_full_of(&mut self, account: &AccountId, payloads: &[pb::Payload]) {
        let current = self.world.current_devices(account);
        let named = payloads.iter().filter_map(|payload| DeviceId::try_from(&payload.device).ok());
        for device in named.filter(|device| current.contains(device)) {
            self.lapse_if_full(&device);
        }
    }

    /// Changes a mailbox.
    pub fn change_mailbox(&mut self, id: &DeviceId, change: impl FnOnce(&mut Log, &mut Writes)) {
        let batch = self.batch;
        if let Some(device) = self.world.devices.get_mut(id) {
            change(&mut device.mailbox, &mut self.writes);
            device.batch = batch;
            self.devices.insert(*id);
        }
    }

    /// Puts a new log in the place of a mailbox, which is gone with the outcomes of before.
    pub fn swap_mailbox(&mut self, id: DeviceId, mailbox: Log) {
        let batch = self.batch;
        let Some(device) = self.world.devices.get_mut(&id) else { return };
        device.row.log = mailbox.id();
        let old = std::mem::replace(&mut device.mailbox, mailbox);
        device.outcomes.clear();
        device.batch = batch;
        self.devices.insert(id);
        self.writes.entries.retain(|(owner, _), _| *owner != old.id());
        self.writes.logs.insert(old.id(), None);
        self.writes.outcomes_trimmed.insert(id, u64::MAX);
    }

    /// Consumes a submission's counter and keeps its outcome.
    pub fn consume(&mut self, id: DeviceId, counter: u64, (digest, outcome): (Hash, Bytes), keep: u64) {
        let (batch, durable) = (self.batch, self.committer.durable());
        let Some(device) = self.world.devices.get_mut(&id) else { return };
        device.row.counter = counter;
        device.row.digest = digest;
        if device.batch <= durable {
            device.outcomes.clear();
        }
        device.outcomes.insert(counter, Stored { digest, outcome: outcome.clone() });
        while u64::try_from(device.outcomes.len()).unwrap_or(u64::MAX) > keep.max(1) {
            device.outcomes.pop_first();
        }
        device.batch = batch;
        self.devices.insert(id);
        self.writes.outcomes.insert((id, counter), OutcomeRow { digest, outcome });
        let below = counter.saturating_sub(keep).saturating_add(1);
        if below > 1 {
            self.writes.outcomes_trimmed.insert(id, below);
        }
    }

    // ---- lanes ----

    /// Changes a lane.
    pub fn change_lane<T>(&mut self, key: LaneKey, change: impl FnOnce(&mut Lane, &mut Writes) -> T) -> T {
        let batch = self.batch;
        let slot = self.world.lanes.entry(key).or_default();
        slot.batch = batch;
        let result = change(&mut slot.value, &mut self.writes);
        let held = slot.value.held() > 0;
        self.lanes.insert(key);
        if let Some(Some(account)) = self.world.accounts.get_mut(&key.1) {
            let known = account.requesters.iter().position(|sender| *sender == key.0);
            match known {
                Some(place) if !held => drop(account.requesters.remove(place)),
                None if held => account.requesters.push(key.0),
                _ => return result,
            }
            // It follows from rows that may not be in the store yet.
            account.batch = batch;
        }
        result
    }

    // ---- peers ----

    /// The record that a domain has now; one is made where there is none.
    pub fn peer_for(&mut self, domain: &Domain, outbox: Incarnation, now_ms: u64) -> PeerId {
        if let Some(id) = self.world.peer_of.get(domain.as_str()) {
            return *id;
        }
        self.add_peer(domain, outbox, now_ms)
    }

    /// A fresh record, which takes the domain over.
    pub fn add_peer(&mut self, domain: &Domain, outbox: Incarnation, now_ms: u64) -> PeerId {
        let log = self.fresh_log();
        self.world.last_peer = self.world.last_peer.saturating_add(1);
        let id = self.world.last_peer;
        let peer = Peer::new(id, domain.clone(), Log::new(log, outbox), now_ms);
        self.world.peers.insert(id, peer);
        self.world.peer_of.insert(domain.to_string(), id);
        self.peers.insert(id);
        id
    }

    /// Changes a peer record.
    pub fn change_peer<T>(
        &mut self,
        id: PeerId,
        change: impl FnOnce(&mut Peer, &mut Writes, u64) -> T,
    ) -> Option<T> {
        let peer = self.world.peers.get_mut(&id)?;
        self.peers.insert(id);
        Some(change(peer, &mut self.writes, self.batch))
    }

    /// Appends to a peer's outbox.
    pub fn ship(&mut self, id: PeerId, new: New) {
        let domain = self.change_peer(id, |peer, writes, batch| {
            peer.outbox.append(new, batch, writes);
            peer.record.domain.clone()
        });
        self.shipped.extend(domain);
    }

    /// Leaves a fact for a peer outside its outbox, in the place of an older one with its key.
    pub fn owe(&mut self, id: PeerId, key: Bytes, entry: Bytes) {
        self.writes.owed.insert((id, key.clone()), Some(entry.clone()));
        let domain = self.change_peer(id, |peer, _, _| {
            peer.owed.insert(key, entry);
            peer.record.domain.clone()
        });
        self.shipped.extend(domain);
    }

    /// Puts a peer's outbox in a new log in the place of the old one, which is gone.
    pub fn swap_outbox(&mut self, id: PeerId, outbox: Log) {
        let old = self.change_peer(id, |peer, _, _| std::mem::replace(&mut peer.outbox, outbox));
        if let Some(old) = old {
            self.writes.entries.retain(|(owner, _), _| *owner != old.id());
            self.writes.logs.insert(old.id(), None);
        }
    }

    /// Writes to a log that is in nobody's hands yet.
    pub fn writes_and_batch(&mut self) -> (&mut Writes, u64) {
        (&mut self.writes, self.batch)
    }

    /// A number for a new log.
    pub fn fresh_log(&mut self) -> LogId {
        self.world.last_log = self.world.last_log.saturating_add(1);
        self.world.last_log
    }

    // ---- the end ----

    /// Whom this decision wakes once it is durable.
    #[must_use]
    pub fn woken(&self) -> Woken {
        Woken {
            devices: self.woken.iter().copied().collect(),
            domains: self.shipped.iter().cloned().collect(),
        }
    }

    /// Hands the changes to the committer. Without changes: what was decided before still has to be durable.
    #[must_use]
    pub fn commit(mut self) -> (Commit, Woken) {
        let woken = self.woken();
        (self.hand_over(), woken)
    }

    fn hand_over(&mut self) -> Commit {
        let durable = self.committer.durable();
        for id in std::mem::take(&mut self.devices) {
            let live = self.world.connected.contains_key(&id);
            if let Some(device) = self.world.devices.get_mut(&id) {
                device.mailbox.forget(durable, live);
                self.writes.devices.insert(id, Some(device.row.clone()));
                self.writes.logs.insert(device.mailbox.id(), Some(device.mailbox.row().clone()));
            }
        }
        for key in std::mem::take(&mut self.lanes) {
            if let Some(slot) = self.world.lanes.get(&key) {
                self.writes.lanes.insert(key, slot.value.to_row());
            }
        }
        for id in std::mem::take(&mut self.peers) {
            if let Some(peer) = self.world.peers.get_mut(&id) {
                peer.outbox.forget(durable, true);
                self.writes.peers.insert(id, Some(peer.to_row()));
                self.writes.logs.insert(peer.outbox.id(), Some(peer.outbox.row().clone()));
            }
        }
        self.committer.hand_over(std::mem::take(&mut self.writes))
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let _nobody_waits = self.hand_over();
    }
}
