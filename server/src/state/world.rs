//! The working set in memory: accounts, devices, lanes and peers that decisions are made on.
//!
//! What is here is at least as new as the store. What is not here is loaded when a decision needs it, and let go
//! of when it is in the store and there is too much of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use tidings_proto::chain::{AccountState, Verified};
use tidings_proto::id::{AccountId, DeviceId, Hash};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::lane::{Lane, Relation};
use super::log::Log;
use super::peer::Peer;
use crate::messages::rules::Stored;
use crate::store::{DeviceRow, KeyKind, LaneKey, LogId, PeerId};

/// How much may be in memory before what nobody uses is let go of.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Accounts, with their devices.
    pub accounts: usize,
    /// Lanes.
    pub lanes: usize,
    /// Stocks of prekeys: some 160 KB each.
    pub stocks: usize,
    /// Names, and invitations.
    pub names: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { accounts: 20_000, lanes: 50_000, stocks: 200, names: 50_000 }
    }
}

/// A bound, and the size at which the next look at everything is worth its cost.
#[derive(Debug, Default)]
struct Mark {
    due: usize,
}

impl Mark {
    fn is_due(&self, size: usize, bound: usize) -> bool {
        size > bound.max(self.due)
    }

    /// What could not be let go of does not count: each look pays for itself by what came since the one before.
    const fn looked(&mut self, left: usize, bound: usize) {
        self.due = left.saturating_add(bound);
    }
}

/// When each kind is looked at next.
#[derive(Debug, Default)]
pub(super) struct Marks {
    accounts: Mark,
    lanes: Mark,
    stocks: Mark,
    names: Mark,
    tokens: Mark,
}

/// An account: of this home, or of another whose chain is held.
#[derive(Debug)]
pub struct Account {
    /// It lives here.
    pub local: bool,
    /// Its verified chain.
    pub chain: Verified<AccountState>,
    /// Its links as carried, genesis first.
    pub links: Vec<pb::Link>,
    /// When recent links came, Unix milliseconds; at most 64.
    pub link_times: VecDeque<u64>,
    /// Strangers whose requests it holds, the oldest first.
    pub requesters: Vec<AccountId>,
    /// Domains that hold its chain, with the time of the last message or hand-over.
    pub handed: BTreeMap<String, u64>,
    pub(super) batch: u64,
}

/// A device on the list of an account here.
#[derive(Debug)]
pub struct Device {
    /// Its row but for the mailbox.
    pub row: DeviceRow,
    /// Its mailbox.
    pub mailbox: Log,
    /// Outcomes that may not be in the store yet.
    pub outcomes: BTreeMap<u64, Stored>,
    pub(super) batch: u64,
}

/// A device's prekeys.
#[derive(Debug, Default)]
pub struct Stock {
    /// The signed prekey.
    pub signed: Option<pb::SignedKey>,
    /// The last-resort Kyber key.
    pub last_resort: Option<pb::SignedKey>,
    /// One-time keys by id.
    pub one_time: BTreeMap<u32, pb::OneTimeKey>,
    /// One-time Kyber keys by id.
    pub one_time_kyber: BTreeMap<u32, pb::SignedKey>,
    pub(super) batch: u64,
}

/// Something in memory with the decision that changed it last.
#[derive(Debug, Default)]
pub(super) struct Slot<T> {
    pub(super) value: T,
    pub(super) batch: u64,
}

/// The working set.
#[derive(Debug, Default)]
pub struct World {
    pub(super) accounts: HashMap<AccountId, Option<Account>>,
    pub(super) names: HashMap<String, Slot<Option<AccountId>>>,
    pub(super) devices: HashMap<DeviceId, Device>,
    pub(super) lanes: HashMap<LaneKey, Slot<Lane>>,
    pub(super) stocks: HashMap<DeviceId, Stock>,
    pub(super) tokens: HashMap<Hash, Slot<bool>>,
    pub(super) peers: BTreeMap<PeerId, Peer>,
    pub(super) peer_of: HashMap<String, PeerId>,
    pub(super) last_log: LogId,
    pub(super) last_peer: PeerId,
    /// Devices with a connection: their mailboxes' tails are kept for the pump.
    pub(super) connected: HashMap<DeviceId, usize>,
    /// The most unread entries a mailbox takes before it lapses.
    pub(super) mailbox_entries_max: u64,
    /// How much may be in memory.
    pub(super) bounds: Bounds,
    /// When to look next.
    pub(super) marks: Marks,
    /// Counts up when something is let go of: a load that began before brings nothing back.
    pub(super) generation: u64,
}

impl World {
    /// The account of this id, if its chain is held.
    #[must_use]
    pub fn account(&self, id: &AccountId) -> Option<&Account> {
        self.accounts.get(id).and_then(Option::as_ref)
    }

    /// The account of this id that lives here.
    #[must_use]
    pub fn local(&self, id: &AccountId) -> Option<&Account> {
        self.account(id).filter(|account| account.local)
    }

    /// The account at this address.
    #[must_use]
    pub fn named(&self, address: &str) -> Option<AccountId> {
        self.names.get(address).and_then(|slot| slot.value)
    }

    /// The device of this id.
    #[must_use]
    pub fn device(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.get(id)
    }

    /// Whether a device's mailbox takes one more without lapsing.
    #[must_use]
    pub fn has_room(&self, id: &DeviceId) -> bool {
        let mailbox = self.devices.get(id).map(|device| &device.mailbox);
        mailbox.is_some_and(|mailbox| !mailbox.row().lapsed && mailbox.counted() < self.mailbox_entries_max)
    }

    /// Devices on the account's list now, if it lives here.
    #[must_use]
    pub fn current_devices(&self, account: &AccountId) -> BTreeSet<DeviceId> {
        let devices =
            self.local(account).map(|account| account.chain.state().devices().keys().copied().collect());
        devices.unwrap_or_default()
    }

    /// Devices on the account's list that have published no prekeys.
    #[must_use]
    pub fn devices_without_keys(&self, account: &AccountId) -> BTreeSet<DeviceId> {
        let keyed = |id: &DeviceId| self.device(id).is_some_and(|device| device.row.keyed);
        self.current_devices(account).into_iter().filter(|id| !keyed(id)).collect()
    }

    /// Devices on the lists of both ends of a lane, as far as they live here.
    #[must_use]
    pub fn devices_of_both(&self, key: &LaneKey) -> BTreeSet<DeviceId> {
        let mut devices = self.current_devices(&key.0);
        devices.extend(self.current_devices(&key.1));
        devices
    }

    /// The lane; one that nothing ever went along is empty.
    #[must_use]
    pub fn lane(&self, key: &LaneKey) -> Option<&Lane> {
        self.lanes.get(key).map(|slot| &slot.value)
    }

    /// What `account` decided about `other`.
    #[must_use]
    pub fn relation(&self, account: AccountId, other: AccountId) -> Relation {
        self.lane(&(other, account)).map(|lane| lane.relation).unwrap_or_default()
    }

    /// A device's prekeys.
    #[must_use]
    pub fn stock(&self, device: &DeviceId) -> Option<&Stock> {
        self.stocks.get(device)
    }

    /// Whether an invitation with this SHA-256 is unused.
    #[must_use]
    pub fn token_valid(&self, digest: &Hash) -> bool {
        self.tokens.get(digest).is_some_and(|slot| slot.value)
    }

    /// The record that a domain has now.
    #[must_use]
    pub fn peer_of(&self, domain: &Domain) -> Option<&Peer> {
        self.peer_of.get(domain.as_str()).and_then(|id| self.peers.get(id))
    }

    /// A peer record.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    /// All peer records.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// Lets go of what is in the store and used by nobody, where there is too much of it.
    pub(super) fn trim(&mut self, durable: u64) {
        let before = self.size();
        let bounds = self.bounds;
        if self.marks.stocks.is_due(self.stocks.len(), bounds.stocks) {
            self.stocks.retain(|_, stock| stock.batch > durable);
            self.marks.stocks.looked(self.stocks.len(), bounds.stocks);
        }
        if self.marks.lanes.is_due(self.lanes.len(), bounds.lanes) {
            self.lanes.retain(|_, slot| slot.batch > durable);
            self.marks.lanes.looked(self.lanes.len(), bounds.lanes);
        }
        if self.marks.names.is_due(self.names.len(), bounds.names) {
            self.names.retain(|_, slot| slot.batch > durable);
            self.marks.names.looked(self.names.len(), bounds.names);
        }
        if self.marks.tokens.is_due(self.tokens.len(), bounds.names) {
            self.tokens.retain(|_, slot| slot.batch > durable);
            self.marks.tokens.looked(self.tokens.len(), bounds.names);
        }
        if self.marks.accounts.is_due(self.accounts.len(), bounds.accounts) {
            self.trim_accounts(durable);
            self.marks.accounts.looked(self.accounts.len(), bounds.accounts);
        }
        if self.size() < before {
            self.generation = self.generation.saturating_add(1);
        }
    }

    /// Accounts, names, lanes, stocks and invitations in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        [self.accounts.len(), self.names.len(), self.lanes.len(), self.stocks.len(), self.tokens.len()]
            .iter()
            .sum()
    }

    fn trim_accounts(&mut self, durable: u64) {
        let (devices, connected) = (&mut self.devices, &self.connected);
        let busy = |id: &DeviceId, device: &Device| {
            connected.contains_key(id) || device.batch > durable || !device.mailbox.is_durable(durable)
        };
        let kept: BTreeSet<AccountId> = devices
            .iter()
            .filter(|(id, device)| busy(id, device))
            .map(|(_, device)| device.row.account)
            .collect();
        self.accounts.retain(|id, account| {
            kept.contains(id) || account.as_ref().is_some_and(|account| account.batch > durable)
        });
        let accounts = &self.accounts;
        devices.retain(|_, device| accounts.contains_key(&device.row.account));
    }
}

impl Stock {
    /// How many one-time keys of each kind are left.
    #[must_use]
    pub fn left(&self) -> (usize, usize) {
        (self.one_time.len(), self.one_time_kyber.len())
    }

    /// From the store's rows; a key that cannot be read is as good as gone.
    pub(super) fn stored(rows: Vec<crate::store::KeyRow>) -> Self {
        let mut stock = Self::default();
        for row in rows {
            match row.kind {
                KeyKind::Signed => stock.signed = decoded(row.key),
                KeyKind::LastResort => stock.last_resort = decoded(row.key),
                KeyKind::OneTime => stock.one_time.extend(decoded(row.key).map(|key| (row.id, key))),
                KeyKind::OneTimeKyber => {
                    stock.one_time_kyber.extend(decoded(row.key).map(|key| (row.id, key)))
                }
            }
        }
        stock
    }
}

fn decoded<M: prost::Message + Default>(bytes: Bytes) -> Option<M> {
    M::decode(bytes).ok()
}
