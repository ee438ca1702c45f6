//! The part of a group's log that a replica has in memory: from its base to its end (chapter 07).
//!
//! What can still be undone by a later term stands above the base: per entry a [`Slot`], per link the
//! state after it, and how the numbers of the devices stood at the base. All else about the log is in
//! the store. Invariants: slots are dense from the base, terms never fall, the base never passes `stable`.
//!
//! What this module does not do: judge entries, or write anything.

use std::collections::{BTreeMap, VecDeque};

use tidings_proto::chain::group::GroupState;
use tidings_proto::id::{AccountId, DeviceId, LinkId};
use tidings_proto::pb;

pub use tidings_proto::group_log::GroupPosition as At;

/// Which of two histories is longer: the later term, then the higher number.
#[must_use]
pub const fn rank(at: &At) -> (u64, u64) {
    (at.term, at.seq)
}

/// Whose numbers are counted: a device, under the account it posts for. A home that posts under another
/// domain's device cannot use up that device's numbers.
pub type DeviceKey = (AccountId, DeviceId);

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotKind {
    /// A link of the chain.
    Link {
        /// Its id.
        id: LinkId,
        /// Set where it begins a term; compares how well.
        start: Option<TermStart>,
    },
    /// A message.
    Message {
        /// Whose.
        key: DeviceKey,
        /// Its number.
        number: u64,
    },
    /// Of a type that is not known here.
    Other,
}

/// How a term came about; of two of one term the greater one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermStart {
    /// The term.
    pub term: u64,
    /// 2 by votes of the keepers, 1 by a transfer, 0 by an owner alone.
    pub level: u32,
    /// The link; of two alike the lower one stands.
    pub id: LinkId,
    /// A succession, whose term begins with this very link; a transfer's begins after it.
    pub succession: bool,
}

impl TermStart {
    /// Whether this one stands against `other`.
    #[must_use]
    pub fn beats(&self, other: &Self) -> bool {
        (self.term, self.level, std::cmp::Reverse(self.id))
            > (other.term, other.level, std::cmp::Reverse(other.id))
    }
}

/// One entry above the base.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// Its place.
    pub at: At,
    /// What it is.
    pub kind: SlotKind,
    /// The signed head that ended here, if one did: a later hub passes it on.
    pub head: Option<pb::SignedGroupHead>,
    /// Numbers of devices whose account a link removed: they begin anew. Not stored; follows from the states.
    pub dropped: Vec<(DeviceKey, u64)>,
}

/// What moved below the base.
#[derive(Debug)]
pub struct Rebased {
    /// Devices whose number at the base is another one now.
    pub devices: Vec<(DeviceKey, u64)>,
}

/// The log from its base to its end.
#[derive(Debug, Clone)]
pub struct History {
    base: At,
    base_state: GroupState,
    base_start: TermStart,
    base_devices: BTreeMap<DeviceKey, u64>,
    slots: VecDeque<Slot>,
    states: VecDeque<(u64, GroupState)>,
    devices: BTreeMap<DeviceKey, u64>,
    /// The first number of each run of entries of one term, from where the log is known on.
    terms: Vec<(u64, u64)>,
}

impl History {
    /// A log that is known from `base` on.
    #[must_use]
    pub fn new(base: At, state: GroupState, start: TermStart, devices: BTreeMap<DeviceKey, u64>) -> Self {
        Self {
            base,
            base_state: state,
            base_start: start,
            base_devices: devices.clone(),
            slots: VecDeque::new(),
            states: VecDeque::new(),
            devices,
            terms: vec![(base.term, base.seq)],
        }
    }

    /// The runs of terms up to the base, as they were stored.
    pub fn set_terms(&mut self, terms: Vec<(u64, u64)>) {
        if !terms.is_empty() {
            self.terms = terms;
        }
    }

    /// The runs of terms that begin at or below the base.
    #[must_use]
    pub fn base_terms(&self) -> Vec<(u64, u64)> {
        self.terms.iter().copied().filter(|(_, first)| *first <= self.base.seq).collect()
    }

    /// The last number, at or below this one, of an entry of this term or an earlier one.
    #[must_use]
    pub fn common_seq(&self, term: u64, seq: u64) -> u64 {
        let later = self.terms.iter().find(|(other, _)| *other > term);
        later.map_or(seq, |(_, first)| seq.min(first.saturating_sub(1)))
    }

    /// Where memory begins.
    #[must_use]
    pub const fn base(&self) -> At {
        self.base
    }

    /// The state there.
    #[must_use]
    pub const fn base_state(&self) -> &GroupState {
        &self.base_state
    }

    /// How the term of the base began.
    #[must_use]
    pub const fn base_start(&self) -> &TermStart {
        &self.base_start
    }

    /// The last entry's place.
    #[must_use]
    pub fn end(&self) -> At {
        self.slots.back().map_or(self.base, |slot| slot.at)
    }

    /// The state after the last entry.
    #[must_use]
    pub fn state(&self) -> &GroupState {
        self.states.back().map_or(&self.base_state, |(_, state)| state)
    }

    /// The state after this entry; `None` below the base and above the end.
    #[must_use]
    pub fn state_at(&self, seq: u64) -> Option<&GroupState> {
        if seq < self.base.seq || seq > self.end().seq {
            return None;
        }
        let below = self.states.partition_point(|(at, _)| *at <= seq);
        match below.checked_sub(1) {
            Some(last) => self.states.get(last).map(|(_, state)| state),
            None => Some(&self.base_state),
        }
    }

    /// States after links above `seq`, in order, with the places of the links.
    pub fn states_after(&self, seq: u64) -> impl Iterator<Item = &(u64, GroupState)> {
        self.states.iter().skip(self.states.partition_point(|(at, _)| *at <= seq))
    }

    /// The entry; `None` at and below the base, and above the end.
    #[must_use]
    pub fn slot(&self, seq: u64) -> Option<&Slot> {
        self.slots.get(self.index(seq)?)
    }

    fn index(&self, seq: u64) -> Option<usize> {
        let index = seq.checked_sub(self.base.seq)?.checked_sub(1)?;
        usize::try_from(index).ok()
    }

    /// The entries above `seq`.
    pub fn slots_after(&self, seq: u64) -> impl DoubleEndedIterator<Item = &Slot> {
        let skip = seq.saturating_sub(self.base.seq);
        self.slots.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    /// The place of this number; `None` below the base and above the end.
    #[must_use]
    pub fn at(&self, seq: u64) -> Option<At> {
        if seq == self.base.seq { Some(self.base) } else { self.slot(seq).map(|slot| slot.at) }
    }

    /// Whether this place is one of this history; `None` below the base.
    #[must_use]
    pub fn holds(&self, at: At) -> Option<bool> {
        if at.seq < self.base.seq { None } else { Some(self.at(at.seq) == Some(at)) }
    }

    /// The last place at or below this number and term; `None` if that is below the base.
    #[must_use]
    pub fn last_upto(&self, term: u64, seq: u64) -> Option<At> {
        let count = self.slots.partition_point(|slot| slot.at.term <= term && slot.at.seq <= seq);
        match count.checked_sub(1) {
            Some(last) => self.slots.get(last).map(|slot| slot.at),
            None => (self.base.term <= term && self.base.seq <= seq).then_some(self.base),
        }
    }

    /// The device's last number; 0 if it has none.
    #[must_use]
    pub fn last_number(&self, key: &DeviceKey) -> u64 {
        self.devices.get(key).copied().unwrap_or_default()
    }

    /// The last numbers of all devices.
    #[must_use]
    pub const fn devices(&self) -> &BTreeMap<DeviceKey, u64> {
        &self.devices
    }

    /// How the devices that appear above `seq` stood there.
    #[must_use]
    pub fn numbers_at(&self, seq: u64) -> BTreeMap<DeviceKey, u64> {
        let mut numbers = BTreeMap::new();
        for slot in self.slots_after(seq).rev() {
            if let SlotKind::Message { key, number } = &slot.kind {
                numbers.insert(*key, number.saturating_sub(1));
            }
            numbers.extend(slot.dropped.iter().copied());
        }
        numbers
    }

    /// Where a message of this device stands, if that is above the base.
    #[must_use]
    pub fn find(&self, key: &DeviceKey, number: u64) -> Option<At> {
        let wanted = SlotKind::Message { key: *key, number };
        self.slots.iter().rev().find(|slot| slot.kind == wanted).map(|slot| slot.at)
    }

    /// Where a link stands, if that is above the base.
    #[must_use]
    pub fn find_link(&self, wanted: &LinkId) -> Option<At> {
        let is = |slot: &&Slot| matches!(&slot.kind, SlotKind::Link { id, .. } if id == wanted);
        self.slots.iter().rev().find(is).map(|slot| slot.at)
    }

    /// How the present term began: that of the last link that began one.
    #[must_use]
    pub fn start(&self) -> TermStart {
        let begun = self.slots.iter().rev().find_map(|slot| match &slot.kind {
            SlotKind::Link { start, .. } => *start,
            _ => None,
        });
        begun.unwrap_or(self.base_start)
    }

    /// The last succession's own number; 0 if it is at or below the base.
    #[must_use]
    pub fn succession(&self) -> u64 {
        let is = |slot: &&Slot| matches!(&slot.kind, SlotKind::Link { start: Some(start), .. } if start.succession);
        self.slots.iter().rev().find(is).map_or(0, |slot| slot.at.seq)
    }

    /// Adds the next entry; for a link with the state after it.
    pub fn push(&mut self, mut slot: Slot, state: Option<GroupState>) {
        debug_assert_eq!(Some(slot.at.seq), self.end().seq.checked_add(1), "the log is dense");
        if let SlotKind::Message { key, number } = &slot.kind {
            self.devices.insert(*key, *number);
        }
        if let Some(state) = state {
            slot.dropped = self.dropped_by(&state);
            for (key, _) in &slot.dropped {
                self.devices.remove(key);
            }
            self.states.push_back((slot.at.seq, state));
        }
        if self.terms.last().is_none_or(|(term, _)| *term != slot.at.term) {
            self.terms.push((slot.at.term, slot.at.seq));
        }
        self.slots.push_back(slot);
    }

    /// Devices whose account is no longer in the group after a link.
    fn dropped_by(&self, next: &GroupState) -> Vec<(DeviceKey, u64)> {
        if next.members().len() >= self.state().members().len() {
            return Vec::new();
        }
        let gone = |(key, _): &(&DeviceKey, &u64)| next.member(&key.0).is_none();
        self.devices.iter().filter(gone).map(|(key, number)| (*key, *number)).collect()
    }

    /// Puts the signed head at its entry; false if it has one already, or the entry is not here.
    pub fn set_head(&mut self, seq: u64, head: pb::SignedGroupHead) -> bool {
        let Some(index) = self.index(seq) else { return false };
        match self.slots.get_mut(index) {
            Some(slot) if slot.head.is_none() => {
                slot.head = Some(head);
                true
            }
            _ => false,
        }
    }

    /// Takes all entries above `seq` (not below the base) away, the last one first.
    pub fn truncate(&mut self, seq: u64) -> Vec<Slot> {
        let mut gone = Vec::new();
        while self.end().seq > seq {
            let Some(slot) = self.slots.pop_back() else { break };
            if let SlotKind::Message { key, number } = &slot.kind {
                self.devices.insert(*key, number.saturating_sub(1));
            }
            self.devices.extend(slot.dropped.iter().copied());
            gone.push(slot);
        }
        while self.states.back().is_some_and(|(at, _)| *at > seq) {
            self.states.pop_back();
        }
        self.terms.retain(|(_, first)| *first <= seq.max(self.base.seq));
        gone
    }

    /// Moves the base up to this number.
    pub fn rebase(&mut self, seq: u64) -> Rebased {
        let mut changed = BTreeMap::new();
        while self.slots.front().is_some_and(|slot| slot.at.seq <= seq) {
            let Some(slot) = self.slots.pop_front() else { break };
            match slot.kind {
                SlotKind::Message { key, number } => {
                    self.base_devices.insert(key, number);
                    changed.insert(key, number);
                }
                SlotKind::Link { start, .. } => self.base_start = start.unwrap_or(self.base_start),
                SlotKind::Other => {}
            }
            for (key, _) in slot.dropped {
                self.base_devices.remove(&key);
                changed.insert(key, 0);
            }
            self.base = slot.at;
        }
        while self.states.front().is_some_and(|(at, _)| *at <= seq) {
            if let Some((_, state)) = self.states.pop_front() {
                self.base_state = state;
            }
        }
        Rebased { devices: changed.into_iter().collect() }
    }

    /// Entries in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the log has nothing above its base.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}
