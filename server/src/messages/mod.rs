//! Direct messages (chapter 06): submissions, lanes, mailboxes, watermarks, notices, consent.

mod arrival;
mod consent;
mod expiry;
mod mailbox;
pub(crate) mod notice;
pub(crate) mod receipt;
pub mod rules;
mod submit;

use bytes::Bytes;
use prost::Message;
use tidings_proto::pb;

pub(crate) use arrival::{Arrival, Checked};
pub use submit::Submission;

use crate::state::New;
use crate::store::LaneKey;

/// Entry types of `registry/entries.toml`.
pub const DELIVERY: u64 = 0x00;
pub(crate) const WATERMARK: u64 = 0x02;
pub(crate) const NOTICE: u64 = 0x04;
pub(crate) const CHAIN_ANNOUNCE: u64 = 0x06;
pub(crate) const STOCK_LOW: u64 = 0x08;
pub(crate) const VOID: u64 = 0x0a;
pub(crate) const TRANSFER: u64 = 0x0c;
pub(crate) const LANE_CLOSE: u64 = 0x0e;

/// An encoded log entry.
pub(crate) fn entry(kind: u64, body: &impl Message) -> Bytes {
    pb::Entry { r#type: kind, body: body.encode_to_vec().into() }.encode_to_vec().into()
}

/// An entry that stays until it is read.
pub(crate) fn lasting(kind: u64, body: &impl Message) -> New {
    New { entry: entry(kind, body), ..New::default() }
}

/// A watermark, which takes the place of an unread older one of its kind and lane.
pub(crate) fn watermark(lane: LaneKey, mark: &pb::Watermark) -> New {
    New { entry: entry(WATERMARK, mark), key: lane_entry_key(WATERMARK, mark.kind, lane), ..New::default() }
}

/// What makes two entries about a lane say the same.
pub(crate) fn lane_entry_key(kind: u64, of: i32, lane: LaneKey) -> Bytes {
    let mut key = Vec::with_capacity(66);
    key.push(u8::try_from(kind).unwrap_or(u8::MAX));
    key.push(u8::try_from(of).unwrap_or(u8::MAX));
    key.extend_from_slice(&lane.0.0);
    key.extend_from_slice(&lane.1.0);
    key.into()
}
