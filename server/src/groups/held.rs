//! A group in memory: its replica, who reads it here and how far, and its newest records as they go to devices.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::codec::{self};
use tidings_proto::id::{AccountId, DeviceId, GroupId};
use tidings_proto::pb;

use super::replica::Replica;
use super::replica::effect::Row;
use crate::store::GroupCursorRow;

/// Durable records kept in memory for readers.
const TAIL_RECORDS: usize = 256;
/// Their bytes.
const TAIL_BYTES: usize = 512 * 1024;

/// A record in memory.
#[derive(Debug, Clone)]
pub(super) struct Recent {
    /// As stored.
    pub row: Row,
    /// The frame that every device gets: encoded once.
    pub frame: Bytes,
    /// The decision that wrote it.
    batch: u64,
}

/// A group in memory.
pub(super) struct Held {
    pub replica: Replica,
    /// Accounts here that read it; above 0: removed at this number.
    pub readers: BTreeMap<AccountId, u64>,
    pub cursors: BTreeMap<DeviceId, GroupCursorRow>,
    /// Where the log was cut since the group is in memory, in order.
    pub cuts: Vec<u64>,
    /// Names this stay in memory.
    pub stay: u64,
    tail: VecDeque<Recent>,
    tail_bytes: usize,
    /// When it was used last.
    pub used_ms: u64,
}

impl Held {
    pub(super) fn new(replica: Replica, stay: u64) -> Self {
        Self {
            replica,
            readers: BTreeMap::new(),
            cursors: BTreeMap::new(),
            cuts: Vec::new(),
            stay,
            tail: VecDeque::new(),
            tail_bytes: 0,
            used_ms: 0,
        }
    }

    /// The number of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.replica.position().seq
    }

    /// A record was appended by a decision.
    pub(super) fn push(&mut self, id: GroupId, row: Row, batch: u64) {
        let next = self.tail.back().map_or(row.seq, |recent| recent.row.seq.saturating_add(1));
        if row.seq <= self.replica.first().seq || row.seq != next {
            // Links from before this home's log begins: for whoever joins by this home.
            return;
        }
        let frame = event(id, &row.record);
        self.tail_bytes = self.tail_bytes.saturating_add(frame.len());
        self.tail.push_back(Recent { row, frame, batch });
    }

    /// The records above a number are void.
    pub(super) fn cut(&mut self, after: u64) {
        while let Some(gone) = self.tail.pop_back_if(|recent| recent.row.seq > after) {
            self.tail_bytes = self.tail_bytes.saturating_sub(gone.frame.len());
        }
        self.cuts.push(after);
    }

    /// Nothing of before is kept.
    pub(super) fn reset(&mut self) {
        self.tail.clear();
        self.tail_bytes = 0;
    }

    pub(super) fn slot(&mut self, seq: u64, slot: &Bytes) {
        if let Some(recent) = self.tail.iter_mut().find(|recent| recent.row.seq == seq) {
            recent.row.slot = slot.clone();
        }
    }

    /// Records up to here are gone from the store.
    pub(super) fn trimmed(&mut self, upto: u64) {
        while let Some(gone) = self.tail.pop_front_if(|recent| recent.row.seq <= upto) {
            self.tail_bytes = self.tail_bytes.saturating_sub(gone.frame.len());
        }
    }

    /// Lets go of durable records that are too many.
    pub(super) fn shrink(&mut self, durable: u64) {
        while (self.tail.len() > TAIL_RECORDS || self.tail_bytes > TAIL_BYTES)
            && let Some(gone) = self.tail.pop_front_if(|recent| recent.batch <= durable)
        {
            self.tail_bytes = self.tail_bytes.saturating_sub(gone.frame.len());
        }
    }

    /// Whether everything is in the store.
    pub(super) fn is_durable(&self, durable: u64) -> bool {
        self.tail.iter().all(|recent| recent.batch <= durable)
    }

    /// Records after a number, durable ones only; `None` if the store has to be asked.
    pub(super) fn recent(&self, after: u64, most: usize, durable: u64) -> Option<Vec<Recent>> {
        if after >= self.last() {
            return Some(Vec::new());
        }
        let first = self.tail.front()?.row.seq;
        if first > after.saturating_add(1) {
            return None;
        }
        let skip = usize::try_from(after.saturating_add(1).saturating_sub(first)).unwrap_or(usize::MAX);
        let durable = self.tail.iter().skip(skip).take(most).take_while(|recent| recent.batch <= durable);
        Some(durable.cloned().collect())
    }

    /// A row in memory.
    pub(super) fn row(&self, seq: u64) -> Option<&Row> {
        let first = self.tail.front()?.row.seq;
        let place = usize::try_from(seq.checked_sub(first)?).ok()?;
        self.tail.get(place).map(|recent| &recent.row)
    }
}

/// The frame of a record; the record's bytes as stored.
pub(super) fn event(id: GroupId, record: &Bytes) -> Bytes {
    // A message's bytes stand in the outer message as they are: the record is neither read nor encoded again.
    let outer = Event { group: id.to_bytes(), record: record.clone() };
    let raw = tidings_proto::frame::RawFrame::new(
        <pb::GroupEvent as codec::FrameMessage>::KIND,
        outer.encode_to_vec(),
    );
    raw.encode().expect("registered codes fit a varint")
}

/// A `GroupEvent` whose record is encoded already.
#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(bytes = "bytes", tag = "1")]
    group: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    record: Bytes,
}
