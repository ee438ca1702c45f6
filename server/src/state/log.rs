//! A log in memory: its ends, its newest entries, and which unread ones have a key. The rest is in the store.
//!
//! The tail is contiguous and ends at the newest entry; everything that is not durable yet is in it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::next_hash;
use tidings_proto::pb;

use crate::store::{EntryRow, LogId, LogRow, Writes};

/// Durable entries kept in memory for a reader that is there.
const TAIL_ENTRIES: usize = 256;
/// Their bytes.
const TAIL_BYTES: usize = 256 * 1024;

/// An entry to be appended.
#[derive(Debug, Clone, Default)]
pub struct New {
    /// The encoded `Entry`.
    pub entry: Bytes,
    /// When its content ends, Unix milliseconds; 0: never.
    pub expires_at_ms: u64,
    /// What makes two entries say the same; empty: nothing does.
    pub key: Bytes,
    /// A number of the entry's kind.
    pub aux: u64,
}

#[derive(Debug, Clone)]
struct Held {
    row: EntryRow,
    batch: u64,
}

/// What memory knows of the running hash at a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAt {
    /// This one.
    Known(Hash),
    /// The store knows it.
    Stored,
    /// The number was never given, or nobody can ask for it any more.
    Never,
}

/// One log.
#[derive(Debug, Clone)]
pub struct Log {
    row: LogRow,
    tail: VecDeque<Held>,
    tail_bytes: usize,
    keyed: BTreeMap<Bytes, (u64, u64)>,
}

impl Log {
    /// A new, empty one.
    #[must_use]
    pub const fn new(id: LogId, incarnation: Incarnation) -> Self {
        let (before, hash) = (Hash::ZERO, Hash::ZERO);
        let row = LogRow { id, incarnation, first: 1, last: 0, before, hash, lapsed: false, base: 0 };
        Self { row, tail: VecDeque::new(), tail_bytes: 0, keyed: BTreeMap::new() }
    }

    /// As the store holds it.
    #[must_use]
    pub fn stored(row: LogRow, keyed: Vec<(Bytes, u64, u64)>) -> Self {
        let keyed = keyed.into_iter().map(|(key, n, aux)| (key, (n, aux))).collect();
        Self { row, tail: VecDeque::new(), tail_bytes: 0, keyed }
    }

    /// Its row.
    #[must_use]
    pub const fn row(&self) -> &LogRow {
        &self.row
    }

    /// Its number in the store.
    #[must_use]
    pub const fn id(&self) -> LogId {
        self.row.id
    }

    /// The lowest number that can be read; last + 1 if none.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.row.first
    }

    /// The number of the newest entry; 0 if there never was one.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.row.last
    }

    /// Numbers that can be read.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.row.last.saturating_add(1).saturating_sub(self.row.first)
    }

    /// Numbers that count towards its bound: those since it lapsed last.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.row.last.saturating_add(1).saturating_sub(self.row.first.max(self.row.base.saturating_add(1)))
    }

    /// Whether nothing can be read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lowest number in memory; last + 1 if none.
    #[must_use]
    pub fn tail_first(&self) -> u64 {
        self.tail.front().map_or_else(|| self.row.last.saturating_add(1), |held| held.row.n)
    }

    /// The unread entry with this key, as (number, aux).
    #[must_use]
    pub fn keyed(&self, key: &Bytes) -> Option<(u64, u64)> {
        self.keyed.get(key).copied()
    }

    /// Numbers of unread entries whose key begins so.
    #[must_use]
    pub fn keyed_under(&self, prefix: &Bytes) -> Vec<u64> {
        let from = self.keyed.range(prefix.clone()..);
        from.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, (n, _))| *n).collect()
    }

    /// The running hash after `n`.
    #[must_use]
    pub fn hash(&self, n: u64) -> HashAt {
        if n == self.row.last {
            return HashAt::Known(self.row.hash);
        }
        if n.saturating_add(1) == self.row.first {
            return HashAt::Known(self.row.before);
        }
        if n > self.row.last || n < self.row.first {
            return HashAt::Never;
        }
        self.in_tail(n).map_or(HashAt::Stored, |held| HashAt::Known(held.row.hash))
    }

    /// Appends. An unread entry with the same key becomes void. Gives the number, or `None` if the log lapsed.
    pub fn append(&mut self, new: New, batch: u64, writes: &mut Writes) -> Option<u64> {
        if self.row.lapsed {
            return None;
        }
        if !new.key.is_empty()
            && let Some((older, _)) = self.keyed.remove(&new.key)
        {
            self.empty(older, pb::VoidReason::Replaced, writes);
        }
        let n = self.row.last.saturating_add(1);
        let hash = next_hash(&self.row.hash, &new.entry);
        self.row.last = n;
        self.row.hash = hash;
        if !new.key.is_empty() {
            self.keyed.insert(new.key.clone(), (n, new.aux));
        }
        let row = EntryRow {
            log: self.row.id,
            n,
            hash,
            content: Some(new.entry),
            void: 0,
            expires_at_ms: new.expires_at_ms,
            key: new.key,
            aux: new.aux,
        };
        writes.entries.insert((row.log, n), row.clone());
        self.tail_bytes = self.tail_bytes.saturating_add(row.content.as_ref().map_or(0, Bytes::len));
        self.tail.push_back(Held { row, batch });
        Some(n)
    }

    /// Drops the content of an entry; number and hash stay.
    pub fn void(&mut self, n: u64, reason: pb::VoidReason, writes: &mut Writes) {
        if n < self.row.first || n > self.row.last {
            return;
        }
        self.keyed.retain(|_, (held, _)| *held != n);
        self.empty(n, reason, writes);
    }

    fn empty(&mut self, n: u64, reason: pb::VoidReason, writes: &mut Writes) {
        let mut freed = 0;
        if let Some(held) = self.place(n).and_then(|place| self.tail.get_mut(place))
            && let Some(content) = held.row.content.take()
        {
            freed = content.len();
            held.row.void = reason.into();
            held.row.key = Bytes::new();
        }
        self.tail_bytes = self.tail_bytes.saturating_sub(freed);
        match writes.entries.get_mut(&(self.row.id, n)) {
            Some(row) => {
                row.content = None;
                row.void = reason.into();
                row.key = Bytes::new();
            }
            None => drop(writes.voids.insert((self.row.id, n), reason.into())),
        }
    }

    /// Drops all content; nothing is stored until [`Self::revive`].
    pub fn lapse(&mut self, writes: &mut Writes) {
        let reason = i32::from(pb::VoidReason::Lapsed);
        for row in writes.entries.range_mut((self.row.id, 0)..=(self.row.id, u64::MAX)).map(|(_, row)| row) {
            row.content = None;
            row.void = reason;
            row.key = Bytes::new();
        }
        writes.voided_logs.insert(self.row.id, reason);
        for held in &mut self.tail {
            if held.row.content.take().is_some() {
                held.row.void = reason;
            }
        }
        self.tail_bytes = 0;
        self.keyed.clear();
        self.row.lapsed = true;
        self.row.base = self.row.last;
    }

    /// Takes entries again.
    pub const fn revive(&mut self) {
        self.row.lapsed = false;
    }

    /// Everything up to `n` is done with; `hash` is the running hash there.
    pub fn trim(&mut self, n: u64, hash: Hash, writes: &mut Writes) {
        if n < self.row.first || n > self.row.last {
            return;
        }
        while let Some(held) = self.tail.pop_front_if(|held| held.row.n <= n) {
            self.tail_bytes = self.tail_bytes.saturating_sub(held.row.content.as_ref().map_or(0, Bytes::len));
        }
        self.keyed.retain(|_, (held, _)| *held > n);
        self.row.first = n.saturating_add(1);
        self.row.before = hash;
        let gone: Vec<_> =
            writes.entries.range((self.row.id, 0)..=(self.row.id, n)).map(|(place, _)| *place).collect();
        for place in gone {
            writes.entries.remove(&place);
        }
        writes.trims.insert(self.row.id, n);
    }

    /// Rows from number `from` on that are in memory and durable when decision `durable` is, at most `most`;
    /// `None`: the store has to be asked.
    #[must_use]
    pub fn tail(&self, from: u64, most: usize, durable: u64) -> Option<Vec<EntryRow>> {
        let from = from.max(self.row.first);
        if from > self.row.last {
            return Some(Vec::new());
        }
        let place = self.place(from)?;
        let held = self.tail.iter().skip(place).take(most).take_while(|held| held.batch <= durable);
        Some(held.map(|held| held.row.clone()).collect())
    }

    /// All rows in memory from `from` on to `upto`, durable or not.
    pub fn tail_rows(&self, from: u64, upto: u64) -> impl Iterator<Item = &EntryRow> + '_ {
        self.tail.iter().map(|held| &held.row).filter(move |row| row.n >= from && row.n <= upto)
    }

    /// Lets go of durable entries: all of them for a reader that is away, the oldest beyond a bound else.
    pub fn forget(&mut self, durable: u64, live: bool) {
        let (entries, bytes) = if live { (TAIL_ENTRIES, TAIL_BYTES) } else { (0, 0) };
        while self.tail.len() > entries || self.tail_bytes > bytes {
            let Some(held) = self.tail.pop_front_if(|held| held.batch <= durable) else { break };
            self.tail_bytes = self.tail_bytes.saturating_sub(held.row.content.as_ref().map_or(0, Bytes::len));
        }
    }

    /// Whether everything in memory is in the store too.
    #[must_use]
    pub fn is_durable(&self, durable: u64) -> bool {
        self.tail.back().is_none_or(|held| held.batch <= durable)
    }

    fn place(&self, n: u64) -> Option<usize> {
        let first = self.tail.front()?.row.n;
        n.checked_sub(first)
            .and_then(|place| usize::try_from(place).ok())
            .filter(|place| *place < self.tail.len())
    }

    fn in_tail(&self, n: u64) -> Option<&Held> {
        self.place(n).and_then(|place| self.tail.get(place))
    }
}

/// What is shipped for rows: entries as they are, and one `Void` for each run of rows without content.
/// Gives (number, last number covered, encoded entry, running hash at the last).
#[must_use]
pub fn shipped(rows: &[EntryRow]) -> Vec<(u64, u64, Bytes, Hash)> {
    let mut out: Vec<(u64, u64, Bytes, Hash)> = Vec::new();
    let mut rows = rows.iter().peekable();
    while let Some(row) = rows.next() {
        if let Some(content) = &row.content {
            out.push((row.n, row.n, content.clone(), row.hash));
            continue;
        }
        let mut last = row;
        while let Some(next) = rows.next_if(|next| next.content.is_none()) {
            last = next;
        }
        let void = pb::Void { from: row.n, to: last.n, reason: last.void, hash: last.hash.to_bytes() };
        out.push((row.n, last.n, crate::messages::entry(crate::messages::VOID, &void), last.hash));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(text: &'static str, key: &'static str) -> New {
        New {
            entry: Bytes::from_static(text.as_bytes()),
            key: Bytes::from_static(key.as_bytes()),
            ..New::default()
        }
    }

    fn log() -> (Log, Writes) {
        (Log::new(1, Incarnation([1; 16])), Writes::default())
    }

    #[test]
    fn numbers_and_hashes_stay_when_entries_go() {
        let (mut log, mut writes) = log();
        for text in ["a", "b", "c"] {
            log.append(new(text, ""), 1, &mut writes);
        }
        let HashAt::Known(hash) = log.hash(2) else { panic!("it is in the tail") };
        log.trim(2, hash, &mut writes);
        assert_eq!(log.hash(2), HashAt::Known(hash));
        assert_eq!(log.hash(1), HashAt::Never);
        assert_eq!((log.first(), log.last(), log.len()), (3, 3, 1));
        assert_eq!(log.tail(1, 9, 1).map(|rows| rows.len()), Some(1));
        assert_eq!(log.tail(1, 9, 0).map(|rows| rows.len()), Some(0), "not durable yet");
        log.forget(1, false);
        assert_eq!(log.tail(3, 9, 1), None, "the store has it");
        assert_eq!(log.hash(3), HashAt::Known(log.row().hash));
        assert_eq!(writes.entries.len(), 1);
    }

    #[test]
    fn a_newer_entry_takes_the_place_of_an_unread_one_with_its_key() {
        let (mut log, mut writes) = log();
        log.append(new("a", "k"), 1, &mut writes);
        log.append(new("b", ""), 1, &mut writes);
        log.append(new("c", "k"), 1, &mut writes);
        let rows = log.tail(1, 9, 1).expect("in memory");
        let hash = rows[0].hash;
        let out = shipped(&rows);
        assert_eq!(out.len(), 3);
        let entry = <pb::Entry as prost::Message>::decode(out[0].2.clone()).expect("an entry");
        let void = <pb::Void as prost::Message>::decode(entry.body).expect("a void");
        assert_eq!((void.from, void.to, void.hash), (1, 1, hash.to_bytes()));
        assert_eq!(log.keyed(&Bytes::from_static(b"k")), Some((3, 0)));
    }

    #[test]
    fn a_lapsed_log_takes_nothing_and_ships_one_void() {
        let (mut log, mut writes) = log();
        for text in ["a", "b"] {
            log.append(new(text, ""), 1, &mut writes);
        }
        log.lapse(&mut writes);
        assert_eq!(log.append(new("c", ""), 1, &mut writes), None);
        let out = shipped(&log.tail(1, 9, 1).expect("in memory"));
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].0, out[0].1), (1, 2));
        log.revive();
        assert_eq!(log.counted(), 0, "what lapsed does not make it lapse again");
        assert_eq!(log.append(new("c", ""), 1, &mut writes), Some(3));
        assert_eq!((log.counted(), log.len()), (1, 3));
    }
}
