//! A lane: the numbered messages of one account to another, as far as this home has to do with it (06-messages).
//!
//! The sender's home gives the numbers; the recipient's home disposes of each. Where both live here, one row holds
//! both halves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::pb;
use tidings_proto::watermark::Read;

use crate::store::{LaneKey, OpenKind, OpenRow, StoreError, Writes};

/// Refused numbers remembered for a lane.
const REFUSED_MAX: usize = 64;
/// Devices remembered for a lane: twice what two accounts have.
const PLACED_MAX: usize = 128;
/// What ends within one of these is closed together.
const HOUR_MS: u64 = 3_600_000;
/// Ranges of lost numbers remembered for a lane; beyond it the oldest are forgotten.
const LOST_MAX: usize = 32;

/// What one account decided about another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relation {
    /// Accepted.
    pub accepted: bool,
    /// Blocked.
    pub blocked: bool,
}

/// A range of numbers that is not disposed of; longer than one only where withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Its last number.
    pub upto: u64,
    /// When it ends, Unix milliseconds.
    pub expires_at_ms: u64,
    /// How it is kept.
    pub kind: OpenKind,
    /// A device holds it.
    pub acknowledged: bool,
}

/// One lane.
#[derive(Debug, Clone, Default)]
pub struct Lane {
    /// The sender's half: the epoch numbers are given in.
    pub given_epoch: (u64, Bytes),
    /// The last number given in it.
    pub given: u64,
    /// How far the recipient's home says that it is delivered.
    pub peer_delivered: u64,
    /// How far the recipient's home says that it is read.
    pub peer_read: Read,
    /// The recipient's half: the lane as named last.
    pub id: Option<pb::LaneId>,
    /// Where its sender is reached.
    pub sender_address: String,
    /// The last number disposed of.
    pub disposed: u64,
    /// Numbers not disposed of by now, by the first of each range.
    pub open: BTreeMap<u64, Open>,
    /// The last delivered watermark told to the sender.
    pub told: u64,
    /// What the recipient read.
    pub read: Read,
    /// What the recipient decided about the sender.
    pub relation: Relation,
    /// The last number placed for each device.
    pub placed: BTreeMap<DeviceId, u64>,
    /// Numbers that never came.
    pub lost: Vec<pb::Range>,
    /// Requests that lack a payload for some devices, told when the sender is accepted.
    pub lacking: Vec<(u64, Vec<Bytes>)>,
    /// Service messages of a stranger since the last decision: they count as requests.
    pub service: u64,
    /// Numbers refused lately, with the refusal: the answer to a repetition.
    pub refused: Vec<(u64, Bytes)>,
}

/// The part of a lane that is one row. Open numbers are rows of their own.
#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(uint64, tag = "1")]
    given: u64,
    #[prost(uint64, tag = "2")]
    given_links: u64,
    #[prost(bytes = "bytes", tag = "3")]
    given_incarnation: Bytes,
    #[prost(message, optional, tag = "4")]
    id: Option<pb::LaneId>,
    #[prost(string, tag = "5")]
    sender_address: String,
    #[prost(uint64, tag = "6")]
    disposed: u64,
    #[prost(uint64, tag = "7")]
    told: u64,
    #[prost(uint64, tag = "8")]
    read: u64,
    #[prost(uint64, repeated, tag = "9")]
    read_except: Vec<u64>,
    #[prost(bool, tag = "10")]
    accepted: bool,
    #[prost(bool, tag = "11")]
    blocked: bool,
    #[prost(message, repeated, tag = "12")]
    placed: Vec<Placed>,
    #[prost(message, repeated, tag = "13")]
    lost: Vec<pb::Range>,
    #[prost(message, repeated, tag = "14")]
    lacking: Vec<Lacking>,
    #[prost(message, repeated, tag = "15")]
    refused: Vec<Refused>,
    #[prost(uint64, tag = "16")]
    service: u64,
    #[prost(uint64, tag = "17")]
    peer_delivered: u64,
    #[prost(uint64, tag = "18")]
    peer_read: u64,
    #[prost(uint64, repeated, tag = "19")]
    peer_read_except: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Placed {
    #[prost(bytes = "bytes", tag = "1")]
    device: Bytes,
    #[prost(uint64, tag = "2")]
    number: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Lacking {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    devices: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Refused {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(bytes = "bytes", tag = "2")]
    failure: Bytes,
}

impl Lane {
    /// From the store.
    ///
    /// # Errors
    /// [`StoreError::Inconsistent`].
    pub fn stored(key: LaneKey, state: Option<Bytes>, open: Vec<OpenRow>) -> Result<Self, StoreError> {
        let broken = || StoreError::Inconsistent {
            table: "lane",
            column: "state",
            row: format!("{}{}", hex::encode(key.0.0), hex::encode(key.1.0)),
        };
        let state = Stored::decode(state.unwrap_or_default()).map_err(|_| broken())?;
        let mut placed = BTreeMap::new();
        for row in state.placed {
            placed.insert(DeviceId::try_from(&row.device).map_err(|_| broken())?, row.number);
        }
        let open = open.into_iter().map(|row| {
            let open = Open {
                upto: row.upto,
                expires_at_ms: row.expires_at_ms,
                kind: row.kind,
                acknowledged: row.acknowledged,
            };
            (row.number, open)
        });
        Ok(Self {
            given_epoch: (state.given_links, state.given_incarnation),
            given: state.given,
            peer_delivered: state.peer_delivered,
            peer_read: Read::new(state.peer_read, &state.peer_read_except).map_err(|_| broken())?,
            id: state.id,
            sender_address: state.sender_address,
            disposed: state.disposed,
            open: open.collect(),
            told: state.told,
            read: Read::new(state.read, &state.read_except).map_err(|_| broken())?,
            relation: Relation { accepted: state.accepted, blocked: state.blocked },
            placed,
            lost: state.lost,
            lacking: state.lacking.into_iter().map(|row| (row.number, row.devices)).collect(),
            service: state.service,
            refused: state.refused.into_iter().map(|row| (row.number, row.failure)).collect(),
        })
    }

    /// The row.
    #[must_use]
    pub fn to_row(&self) -> Bytes {
        let placed = self.placed.iter().map(|(id, number)| Placed { device: id.to_bytes(), number: *number });
        let lacking = self.lacking.iter().cloned().map(|(number, devices)| Lacking { number, devices });
        let refused = self.refused.iter().cloned().map(|(number, failure)| Refused { number, failure });
        let stored = Stored {
            given: self.given,
            given_links: self.given_epoch.0,
            given_incarnation: self.given_epoch.1.clone(),
            id: self.id.clone(),
            sender_address: self.sender_address.clone(),
            disposed: self.disposed,
            told: self.told,
            read: self.read.n(),
            read_except: self.read.except().collect(),
            accepted: self.relation.accepted,
            blocked: self.relation.blocked,
            placed: placed.collect(),
            lost: self.lost.clone(),
            lacking: lacking.collect(),
            refused: refused.collect(),
            service: self.service,
            peer_delivered: self.peer_delivered,
            peer_read: self.peer_read.n(),
            peer_read_except: self.peer_read.except().collect(),
        };
        stored.encode_to_vec().into()
    }

    /// Every number up to here is held by a device or closed.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.open.keys().next().map_or(self.disposed, |first| first.saturating_sub(1))
    }

    /// Messages held as requests.
    #[must_use]
    pub fn held(&self) -> u64 {
        count(self.open.values().filter(|open| open.kind == OpenKind::Request).count())
    }

    /// Keeps a number open. Withheld neighbours that end in the same hour are one range with the latest expiry.
    pub fn keep(&mut self, key: LaneKey, number: u64, open: Open, writes: &mut Writes) {
        if open.kind == OpenKind::Withheld
            && let Some((first, last)) = self.open.last_entry().map(|last| (*last.key(), *last.get()))
            && last.kind == OpenKind::Withheld
            && last.upto.saturating_add(1) == number
            && last.expires_at_ms / HOUR_MS == open.expires_at_ms / HOUR_MS
        {
            let expires_at_ms = last.expires_at_ms.max(open.expires_at_ms);
            self.put(key, first, Open { upto: open.upto, expires_at_ms, ..last }, writes);
        } else {
            self.put(key, number, open, writes);
        }
    }

    /// Replaces the range that begins at `number`.
    pub fn put(&mut self, key: LaneKey, number: u64, open: Open, writes: &mut Writes) {
        let row = OpenRow {
            lane: key,
            number,
            upto: open.upto,
            expires_at_ms: open.expires_at_ms,
            kind: open.kind,
            acknowledged: open.acknowledged,
        };
        writes.open.insert((key, number), Some(row));
        self.open.insert(number, open);
    }

    /// The range that begins at `number` is disposed of.
    pub fn dispose(&mut self, key: LaneKey, number: u64, writes: &mut Writes) {
        if let Some(open) = self.open.remove(&number) {
            self.lacking.retain(|(lacking, _)| *lacking < number || *lacking > open.upto);
            writes.open.insert((key, number), None);
        }
    }

    /// A new epoch: numbers, watermarks and what was open begin anew; consent stays.
    pub fn begin_epoch(&mut self, key: LaneKey, id: pb::LaneId, writes: &mut Writes) {
        for number in std::mem::take(&mut self.open).into_keys() {
            writes.open.insert((key, number), None);
        }
        self.id = Some(id);
        self.disposed = 0;
        self.told = 0;
        self.read = Read::default();
        self.placed.clear();
        self.lost.clear();
        self.lacking.clear();
        self.refused.clear();
    }

    /// A number was refused: a repetition gets the same answer.
    pub fn refuse(&mut self, number: u64, failure: Bytes) {
        self.refused.push((number, failure));
        if self.refused.len() > REFUSED_MAX {
            self.refused.remove(0);
        }
    }

    /// Numbers that will never come: devices show them as a gap.
    pub fn lose(&mut self, from: u64, to: u64) {
        self.lost.push(pb::Range { from, to });
        if self.lost.len() > LOST_MAX {
            self.lost.remove(0);
        }
    }

    /// The numbers between a device's previous entry of the lane and `number` that were closed or not for it.
    #[must_use]
    pub fn not_for_you(&self, device: &DeviceId, number: u64) -> Vec<pb::Range> {
        let mut from = self.placed.get(device).copied().unwrap_or(0).saturating_add(1);
        let mut ranges = Vec::new();
        for lost in &self.lost {
            if lost.to < from || lost.from >= number {
                continue;
            }
            if lost.from > from {
                ranges.push(pb::Range { from, to: lost.from.saturating_sub(1) });
            }
            from = from.max(lost.to.saturating_add(1));
        }
        if from < number {
            ranges.push(pb::Range { from, to: number.saturating_sub(1) });
        }
        ranges
    }

    /// A number was placed for a device. Where many devices are remembered, those that are on no list go.
    pub fn note_placed(&mut self, device: DeviceId, number: u64, listed: &BTreeSet<DeviceId>) {
        self.placed.insert(device, number);
        if self.placed.len() > PLACED_MAX {
            self.placed.retain(|device, _| listed.contains(device));
        }
    }

    /// The last number that a watermark may reach: it stops before what is held or withheld.
    #[must_use]
    pub fn stop(&self) -> u64 {
        let stops = self.open.iter().find(|(_, open)| open.kind != OpenKind::Placed);
        stops.map_or(u64::MAX, |(number, _)| number.saturating_sub(1))
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Sender and recipient of a lane named on the wire.
#[must_use]
pub fn lane_key(id: &pb::LaneId) -> Option<LaneKey> {
    Some((AccountId::try_from(&id.sender).ok()?, AccountId::try_from(&id.recipient).ok()?))
}

/// The delivery in an entry, if it is one.
#[must_use]
pub fn delivery_of(entry: &Bytes) -> Option<(LaneKey, pb::Delivery)> {
    let entry =
        pb::Entry::decode(entry.clone()).ok().filter(|entry| entry.r#type == crate::messages::DELIVERY)?;
    let delivery = pb::Delivery::decode(entry.body).ok()?;
    Some((lane_key(delivery.lane.as_ref()?)?, delivery))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LaneKey = (AccountId([1; 32]), AccountId([2; 32]));

    fn range(from: u64, to: u64) -> pb::Range {
        pb::Range { from, to }
    }

    #[test]
    fn what_is_not_for_a_device_leaves_lost_numbers_out() {
        let device = DeviceId([3; 32]);
        let mut lane = Lane::default();
        assert!(lane.not_for_you(&device, 1).is_empty());
        assert_eq!(lane.not_for_you(&device, 5), [range(1, 4)]);
        lane.placed.insert(device, 4);
        assert!(lane.not_for_you(&device, 5).is_empty());
        lane.lose(6, 7);
        assert_eq!(lane.not_for_you(&device, 10), [range(5, 5), range(8, 9)]);
        assert_eq!(lane.not_for_you(&device, 8), [range(5, 5)]);
    }

    #[test]
    fn withheld_neighbours_of_one_hour_are_one_range_with_the_latest_expiry() {
        let (mut lane, mut writes) = (Lane::default(), Writes::default());
        let open = |number, at, kind| Open { upto: number, expires_at_ms: at, kind, acknowledged: false };
        lane.keep(KEY, 1, open(1, 50, OpenKind::Placed), &mut writes);
        lane.keep(KEY, 2, open(2, 90, OpenKind::Withheld), &mut writes);
        lane.keep(KEY, 3, open(3, 60, OpenKind::Withheld), &mut writes);
        assert_eq!(lane.open.len(), 2);
        lane.keep(KEY, 4, open(4, HOUR_MS + 1, OpenKind::Withheld), &mut writes);
        assert_eq!(lane.open.len(), 3, "who writes on does not put off what ends before");
        lane.dispose(KEY, 4, &mut writes);
        assert_eq!((lane.open[&2].upto, lane.open[&2].expires_at_ms), (3, 90));
        lane.disposed = 3;
        assert_eq!(lane.delivered(), 0);
        lane.dispose(KEY, 1, &mut writes);
        assert_eq!(lane.delivered(), 1);
        lane.dispose(KEY, 2, &mut writes);
        assert_eq!(lane.delivered(), 3);
        let stored = Lane::stored(KEY, Some(lane.to_row()), Vec::new()).expect("it is whole");
        assert_eq!((stored.disposed, stored.open.len()), (3, 0));
    }

    #[test]
    fn watermarks_stop_at_what_is_held_and_what_ends_is_lacking_no_more() {
        let (mut lane, mut writes) = (Lane::default(), Writes::default());
        assert_eq!(lane.stop(), u64::MAX);
        let open = |number, kind| Open { upto: number, expires_at_ms: 9, kind, acknowledged: false };
        lane.keep(KEY, 1, open(1, OpenKind::Placed), &mut writes);
        lane.keep(KEY, 2, open(2, OpenKind::Request), &mut writes);
        lane.lacking.push((2, Vec::new()));
        assert_eq!(lane.stop(), 1);
        lane.dispose(KEY, 2, &mut writes);
        assert_eq!((lane.stop(), lane.lacking.len()), (u64::MAX, 0));
    }

    #[test]
    fn devices_that_are_on_no_list_are_forgotten() {
        let mut lane = Lane::default();
        let device = |number: u8| DeviceId([number; 32]);
        let listed = BTreeSet::from([device(0), device(200)]);
        for number in 0..=200 {
            lane.note_placed(device(number), u64::from(number), &listed);
        }
        assert!(lane.placed.len() <= PLACED_MAX);
        assert!(lane.placed.contains_key(&device(0)) && lane.placed.contains_key(&device(200)));
    }
}
