//! Posts of this home's devices that are not yet stable, in the order they came (chapter 07, origin).
//!
//! | state \ event | offered: placed | in own copy at n | stable >= n | n truncated | new term | refused |
//! |---|---|---|---|---|---|---|
//! | waiting | sent | placed n | - | - | waiting | dropped, told |
//! | sent | sent | placed n | - | - | waiting | dropped, told |
//! | placed n | placed n | placed n | dropped | waiting | placed n | placed n |
//!
//! A post leaves only when it is stable or its device was told. Bounded per account.

use std::collections::{BTreeMap, BTreeSet};

use tidings_proto::id::AccountId;
use tidings_proto::pb;

use super::history::DeviceKey;

/// Where a pending post is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Sent,
    Placed(u64),
}

#[derive(Debug, Clone)]
struct Item {
    key: DeviceKey,
    post: pb::GroupPost,
    stage: Stage,
}

/// A post that is to be offered.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// Its place in this queue.
    pub ordinal: u64,
    /// Whose it is.
    pub key: DeviceKey,
    /// The post.
    pub post: pb::GroupPost,
}

/// All pending posts of one group at one home.
#[derive(Debug, Clone, Default)]
pub struct Pending {
    items: BTreeMap<u64, Item>,
    numbers: BTreeMap<DeviceKey, BTreeMap<u64, u64>>,
    accounts: BTreeMap<AccountId, usize>,
    placed: BTreeMap<u64, u64>,
    waiting: BTreeSet<u64>,
    next: u64,
}

impl Pending {
    /// Takes a post in, or back in after a start, under its ordinal.
    pub fn insert(&mut self, ordinal: u64, key: DeviceKey, post: pb::GroupPost) {
        self.numbers.entry(key).or_default().insert(post.number, ordinal);
        let count = self.accounts.entry(key.0).or_default();
        *count = count.saturating_add(1);
        self.waiting.insert(ordinal);
        self.items.insert(ordinal, Item { key, post, stage: Stage::Waiting });
        self.next = self.next.max(ordinal.saturating_add(1));
    }

    /// The ordinal of the next post.
    #[must_use]
    pub const fn next_ordinal(&self) -> u64 {
        self.next
    }

    /// How many posts an account has here.
    #[must_use]
    pub fn of_account(&self, account: &AccountId) -> usize {
        self.accounts.get(account).copied().unwrap_or_default()
    }

    /// The highest number of the device here; 0 if none.
    #[must_use]
    pub fn last_number(&self, key: &DeviceKey) -> u64 {
        self.numbers.get(key).and_then(|numbers| numbers.last_key_value()).map_or(0, |(number, _)| *number)
    }

    /// Whether a post of this number is here, and the same one.
    #[must_use]
    pub fn is_same(&self, key: &DeviceKey, post: &pb::GroupPost) -> Option<bool> {
        let ordinal = self.numbers.get(key)?.get(&post.number)?;
        Some(self.items.get(ordinal)?.post.ciphertext == post.ciphertext)
    }

    /// Posts in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether any post is still to be offered.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The first posts that are to be offered.
    #[must_use]
    pub fn waiting(&self, most: usize) -> Vec<Waiting> {
        let of = |ordinal: &u64| {
            let item = self.items.get(ordinal)?;
            Some(Waiting { ordinal: *ordinal, key: item.key, post: item.post.clone() })
        };
        self.waiting.iter().filter_map(of).take(most).collect()
    }

    /// The hub says that it has it; the own copy of the log will tell where.
    pub fn sent(&mut self, ordinal: u64) {
        if let Some(item) = self.items.get_mut(&ordinal)
            && item.stage == Stage::Waiting
        {
            item.stage = Stage::Sent;
            self.waiting.remove(&ordinal);
        }
    }

    /// The own copy of the log has it at this place.
    pub fn place(&mut self, key: &DeviceKey, number: u64, seq: u64) {
        let ordinal = self.numbers.get(key).and_then(|numbers| numbers.get(&number));
        let Some(ordinal) = ordinal.copied() else { return };
        if let Some(item) = self.items.get_mut(&ordinal) {
            item.stage = Stage::Placed(seq);
            self.waiting.remove(&ordinal);
            self.placed.insert(seq, ordinal);
        }
    }

    /// Places above `seq` are void: those posts wait again.
    pub fn unplace(&mut self, seq: u64) {
        for ordinal in self.placed.split_off(&seq.saturating_add(1)).into_values() {
            if let Some(item) = self.items.get_mut(&ordinal) {
                item.stage = Stage::Waiting;
                self.waiting.insert(ordinal);
            }
        }
    }

    /// A new term: what only the old hub knew of is offered again.
    pub fn unsend(&mut self) {
        for (ordinal, item) in &mut self.items {
            if item.stage == Stage::Sent {
                item.stage = Stage::Waiting;
                self.waiting.insert(*ordinal);
            }
        }
    }

    /// The own copy of the log begins anew: all posts wait again; all of them, to be stored anew.
    pub fn restart(&mut self) -> Vec<Waiting> {
        self.placed.clear();
        for (ordinal, item) in &mut self.items {
            item.stage = Stage::Waiting;
            self.waiting.insert(*ordinal);
        }
        self.waiting(usize::MAX)
    }

    /// Everything at or below `stable` is done; the ordinals of what left.
    pub fn settle(&mut self, stable: u64) -> Vec<u64> {
        let above = self.placed.split_off(&stable.saturating_add(1));
        let done: Vec<u64> = std::mem::replace(&mut self.placed, above).into_values().collect();
        for ordinal in &done {
            self.remove(*ordinal);
        }
        done
    }

    /// The device's posts from this number on that are not placed leave; their ordinals.
    pub fn drop_from(&mut self, key: &DeviceKey, number: u64) -> Vec<u64> {
        let numbers = self.numbers.get(key).map(|numbers| numbers.range(number..));
        let unplaced = |ordinal: &u64| !self.is_placed(*ordinal);
        let ordinals: Vec<u64> =
            numbers.into_iter().flatten().map(|(_, ordinal)| *ordinal).filter(unplaced).collect();
        for ordinal in &ordinals {
            self.remove(*ordinal);
        }
        ordinals
    }

    fn is_placed(&self, ordinal: u64) -> bool {
        self.items.get(&ordinal).is_some_and(|item| matches!(item.stage, Stage::Placed(_)))
    }

    fn remove(&mut self, ordinal: u64) {
        let Some(item) = self.items.remove(&ordinal) else { return };
        self.waiting.remove(&ordinal);
        if let Stage::Placed(seq) = item.stage {
            self.placed.remove(&seq);
        }
        if let Some(numbers) = self.numbers.get_mut(&item.key) {
            numbers.remove(&item.post.number);
            if numbers.is_empty() {
                self.numbers.remove(&item.key);
            }
        }
        if let Some(count) = self.accounts.get_mut(&item.key.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.accounts.remove(&item.key.0);
            }
        }
    }
}
