//! Groups in the store: the replica's parts, the log's records, who reads it and how far.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidings_proto::id::{AccountId, DeviceId, GroupId, Hash};

use super::Later;

/// An entry of a group's log with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEntryRow {
    /// Its number in the log.
    pub seq: u64,
    /// It is a link: kept as long as somebody may need it to join.
    pub link: bool,
    /// What the replica knows of it: term, hash and more.
    pub slot: Bytes,
    /// The encoded `GroupRecord`.
    pub record: Bytes,
    /// When it came, Unix milliseconds.
    pub at_ms: u64,
}

/// How far a device has a group's log durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GroupCursorRow {
    /// Term of the entry `seq`.
    pub term: u64,
    /// The number; 0 if it has nothing.
    pub seq: u64,
    /// The running hash after it.
    pub hash: Hash,
}

/// All but the records that is kept of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredGroup {
    /// The replica's parts, ascending by key.
    pub parts: Vec<(Bytes, Bytes)>,
    /// Accounts here that read it, ascending; above 0: removed at this number.
    pub readers: Vec<(AccountId, u64)>,
    /// Cursors, ascending by device.
    pub cursors: Vec<(DeviceId, GroupCursorRow)>,
}

/// What a group of decisions writes about groups.
#[derive(Debug, Default, Clone)]
pub struct GroupWrites {
    /// Groups that are gone with everything kept of them, before anything is put.
    pub gone: BTreeSet<GroupId>,
    /// Parts put; `None`: gone.
    pub parts: BTreeMap<(GroupId, Bytes), Option<Bytes>>,
    /// Records above this number are gone, before any is put.
    pub cut: BTreeMap<GroupId, u64>,
    /// Records appended.
    pub entries: BTreeMap<(GroupId, u64), GroupEntryRow>,
    /// Slots put in the place of those of records that are there.
    pub slots: BTreeMap<(GroupId, u64), Bytes>,
    /// Records up to the first number are gone, but for links from the second one on.
    pub trims: BTreeMap<GroupId, (u64, u64)>,
    /// Readers put; `None`: gone.
    pub readers: BTreeMap<(GroupId, AccountId), Option<u64>>,
    /// Cursors put; `None`: gone.
    pub cursors: BTreeMap<(GroupId, DeviceId), Option<GroupCursorRow>>,
}

impl GroupWrites {
    /// The number of rows.
    #[must_use]
    pub fn weight(&self) -> usize {
        [
            self.gone.len(),
            self.parts.len(),
            self.cut.len(),
            self.entries.len(),
            self.slots.len(),
            self.trims.len(),
            self.readers.len(),
            self.cursors.len(),
        ]
        .iter()
        .sum()
    }

    /// Takes the writes of a later decision in.
    pub fn absorb(&mut self, later: Self) {
        for group in &later.gone {
            self.parts.retain(|(owner, _), _| owner != group);
            self.entries.retain(|(owner, _), _| owner != group);
            self.slots.retain(|(owner, _), _| owner != group);
            self.readers.retain(|(owner, _), _| owner != group);
            self.cursors.retain(|(owner, _), _| owner != group);
            self.cut.remove(group);
            self.trims.remove(group);
        }
        self.gone.extend(later.gone);
        self.parts.extend(later.parts);
        for (group, after) in later.cut {
            self.entries.retain(|(owner, seq), _| *owner != group || *seq <= after);
            self.slots.retain(|(owner, seq), _| *owner != group || *seq <= after);
            let mark = self.cut.entry(group).or_insert(after);
            *mark = after.min(*mark);
        }
        self.entries.extend(later.entries);
        for (place, slot) in later.slots {
            match self.entries.get_mut(&place) {
                Some(row) => row.slot = slot,
                None => drop(self.slots.insert(place, slot)),
            }
        }
        for (group, (upto, links)) in later.trims {
            self.entries
                .retain(|(owner, seq), row| *owner != group || *seq > upto || (row.link && *seq >= links));
            let mark = self.trims.entry(group).or_insert((upto, links));
            *mark = (upto.max(mark.0), links.max(mark.1));
        }
        self.readers.extend(later.readers);
        self.cursors.extend(later.cursors);
    }
}

/// Questions about groups; logs and directory in one, as their rows are written in one transaction.
pub trait GroupStore: Send + Sync {
    /// All groups, ascending from behind `after`, at most `most`.
    fn groups(&self, after: GroupId, most: usize) -> Later<'_, Vec<GroupId>>;
    /// What is kept of a group; `None` if nothing is.
    fn group(&self, id: GroupId) -> Later<'_, Option<StoredGroup>>;
    /// Groups that an account here reads, ascending, with the number at which it was removed.
    fn groups_of(&self, account: AccountId) -> Later<'_, Vec<(GroupId, u64)>>;
    /// Records of a group from number `from` on, ascending, at most `most`.
    fn group_entries(&self, id: GroupId, from: u64, most: usize) -> Later<'_, Vec<GroupEntryRow>>;
    /// As [`Self::group_entries`], links alone.
    fn group_links(&self, id: GroupId, from: u64, most: usize) -> Later<'_, Vec<GroupEntryRow>>;
    /// The highest number of a group's log whose record came at this time or before; 0 if none did.
    fn group_older(&self, id: GroupId, at_ms: u64) -> Later<'_, u64>;
}
