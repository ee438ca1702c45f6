//! What a group of decisions writes: per row the last state, so that many decisions cost one statement a table.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidings_proto::id::{AccountId, DeviceId, Hash};

use super::groups::GroupWrites;
use super::rows::{
    AccountRow, DeviceRow, EntryRow, KeyKind, LaneKey, LinkRow, LogId, LogRow, OpenRow, OutcomeRow, PeerId,
    PeerRow,
};

/// Rows put, by their ids; `None`: gone.
type Rows<K, V> = BTreeMap<K, Option<V>>;

/// Ids whose dependent rows go before anything is put.
#[derive(Debug, Default, Clone)]
pub struct Purged {
    /// Devices: prekeys and outcomes.
    pub devices: BTreeSet<DeviceId>,
    /// Logs: entries.
    pub logs: BTreeSet<LogId>,
    /// Peers: refusals and facts owed.
    pub peers: BTreeSet<PeerId>,
}

/// Rows to be written together. Later writes of a row take the place of earlier ones.
#[derive(Debug, Default, Clone)]
pub struct Writes {
    /// Accounts put.
    pub accounts: BTreeMap<AccountId, AccountRow>,
    /// Links appended.
    pub links: BTreeMap<(AccountId, u64), LinkRow>,
    /// Names given.
    pub names: BTreeMap<String, AccountId>,
    /// Devices put; `None`: gone, with its prekeys and outcomes.
    pub devices: BTreeMap<DeviceId, Option<DeviceRow>>,
    /// Devices whose prekeys are all dropped before `keys` are put.
    pub keys_cleared: BTreeSet<DeviceId>,
    /// Prekeys put; `None`: gone.
    pub keys: BTreeMap<(DeviceId, KeyKind, u32), Option<Bytes>>,
    /// Invitations: issued or used.
    pub tokens: BTreeMap<Hash, bool>,
    /// Hand-overs of chains to domains.
    pub handed: BTreeMap<(AccountId, String), u64>,
    /// Logs put; `None`: gone, with their entries.
    pub logs: BTreeMap<LogId, Option<LogRow>>,
    /// Entries appended.
    pub entries: BTreeMap<(LogId, u64), EntryRow>,
    /// Entries whose content goes, with the `pb::VoidReason`.
    pub voids: BTreeMap<(LogId, u64), i32>,
    /// Logs whose whole content goes, with the reason.
    pub voided_logs: BTreeMap<LogId, i32>,
    /// Entries up to here are gone.
    pub trims: BTreeMap<LogId, u64>,
    /// Outcomes stored.
    pub outcomes: BTreeMap<(DeviceId, u64), OutcomeRow>,
    /// Outcomes below this counter are gone.
    pub outcomes_trimmed: BTreeMap<DeviceId, u64>,
    /// Lanes put.
    pub lanes: BTreeMap<LaneKey, Bytes>,
    /// Open numbers put; `None`: disposed of.
    pub open: BTreeMap<(LaneKey, u64), Option<OpenRow>>,
    /// Peer records put; `None`: forgotten, with what belongs to it.
    pub peers: BTreeMap<PeerId, Option<PeerRow>>,
    /// Refusals put; `None`: seen.
    pub refusals: BTreeMap<(PeerId, u64), Option<Bytes>>,
    /// What was gone before it was put again: its rows go first.
    pub purged: Purged,
    /// Facts owed; `None`: shipped.
    pub owed: BTreeMap<(PeerId, Bytes), Option<Bytes>>,
    /// Groups.
    pub groups: GroupWrites,
}

impl Writes {
    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weight() == 0
    }

    /// The number of rows: what a group is bounded by.
    #[must_use]
    pub fn weight(&self) -> usize {
        [
            self.accounts.len(),
            self.links.len(),
            self.names.len(),
            self.devices.len(),
            self.keys_cleared.len(),
            self.keys.len(),
            self.tokens.len(),
            self.handed.len(),
            self.logs.len(),
            self.entries.len(),
            self.voids.len(),
            self.voided_logs.len(),
            self.trims.len(),
            self.outcomes.len(),
            self.outcomes_trimmed.len(),
            self.lanes.len(),
            self.open.len(),
            self.peers.len(),
            self.refusals.len(),
            self.owed.len(),
            self.groups.weight(),
        ]
        .iter()
        .sum()
    }

    /// Takes the writes of a later decision in.
    pub fn absorb(&mut self, later: Self) {
        self.accounts.extend(later.accounts);
        self.links.extend(later.links);
        self.names.extend(later.names);
        for device in gone(&later.devices) {
            self.keys.retain(|(owner, ..), _| *owner != device);
            self.outcomes.retain(|(owner, _), _| *owner != device);
            self.purged.devices.insert(device);
        }
        for peer in gone(&later.peers) {
            self.refusals.retain(|(owner, _), _| *owner != peer);
            self.owed.retain(|(owner, _), _| *owner != peer);
            self.purged.peers.insert(peer);
        }
        self.devices.extend(later.devices);
        for device in &later.keys_cleared {
            self.keys.retain(|(owner, ..), _| owner != device);
        }
        self.keys_cleared.extend(later.keys_cleared);
        self.keys.extend(later.keys);
        self.tokens.extend(later.tokens);
        self.handed.extend(later.handed);
        self.absorb_logs((later.logs, later.entries), (later.voids, later.voided_logs), later.trims);
        self.outcomes.extend(later.outcomes);
        self.outcomes_trimmed.extend(later.outcomes_trimmed);
        self.lanes.extend(later.lanes);
        self.open.extend(later.open);
        self.peers.extend(later.peers);
        self.refusals.extend(later.refusals);
        self.owed.extend(later.owed);
        self.groups.absorb(later.groups);
    }

    /// Entries that are trimmed or void before they were ever written are not written at all, or empty.
    fn absorb_logs(
        &mut self,
        (logs, entries): (Rows<LogId, LogRow>, BTreeMap<(LogId, u64), EntryRow>),
        (voids, voided_logs): (BTreeMap<(LogId, u64), i32>, BTreeMap<LogId, i32>),
        trims: BTreeMap<LogId, u64>,
    ) {
        for log in gone(&logs) {
            self.entries.retain(|(owner, _), _| *owner != log);
            self.purged.logs.insert(log);
        }
        self.logs.extend(logs);
        for (log, reason) in voided_logs {
            let held = self.entries.range_mut((log, 0)..=(log, u64::MAX));
            held.for_each(|(_, row)| empty(row, reason));
            self.voided_logs.insert(log, reason);
        }
        self.entries.extend(entries);
        for (place, reason) in voids {
            match self.entries.get_mut(&place) {
                Some(row) => empty(row, reason),
                None => drop(self.voids.insert(place, reason)),
            }
        }
        for (log, upto) in trims {
            let gone: Vec<_> = self.entries.range((log, 0)..=(log, upto)).map(|(place, _)| *place).collect();
            for place in gone {
                self.entries.remove(&place);
            }
            let mark = self.trims.entry(log).or_insert(upto);
            *mark = upto.max(*mark);
        }
    }
}

/// Ids without a row.
pub(super) fn gone<K: Copy, V>(rows: &BTreeMap<K, Option<V>>) -> impl Iterator<Item = K> + '_ {
    rows.iter().filter(|(_, row)| row.is_none()).map(|(id, _)| *id)
}

fn empty(row: &mut EntryRow, reason: i32) {
    if row.content.take().is_some() {
        row.void = reason;
        row.key = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> EntryRow {
        EntryRow {
            log: 1,
            n,
            hash: Hash([1; 32]),
            content: Some(Bytes::from_static(b"x")),
            void: 0,
            expires_at_ms: 0,
            key: Bytes::new(),
            aux: 0,
        }
    }

    #[test]
    fn an_entry_trimmed_in_the_same_group_is_never_written() {
        let mut group = Writes::default();
        group.absorb(Writes { entries: (1..=3).map(|n| ((1, n), entry(n))).collect(), ..Writes::default() });
        group.absorb(Writes { trims: BTreeMap::from([(1, 2)]), ..Writes::default() });
        assert_eq!(group.entries.keys().copied().collect::<Vec<_>>(), [(1, 3)]);
        group.absorb(Writes { voids: BTreeMap::from([((1, 3), 2), ((1, 9), 2)]), ..Writes::default() });
        assert_eq!(group.entries[&(1, 3)].content, None);
        assert_eq!(group.voids.len(), 1, "one is in the group, the other in the store");
    }

    #[test]
    fn keys_put_after_a_clearing_stay() {
        let device = DeviceId([1; 32]);
        let put = |id| Writes {
            keys: BTreeMap::from([((device, KeyKind::OneTime, id), Some(Bytes::new()))]),
            ..Writes::default()
        };
        let mut group = put(1);
        group.absorb(Writes { keys_cleared: BTreeSet::from([device]), ..put(2) });
        assert_eq!(group.keys.len(), 1);
    }
}
