//! How a replica's parts and slots are stored: small messages under short keys, opaque to the shell.
//!
//! What this module does not do: say when something is written.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use tidings_proto::chain::group::{GroupState, ServerRef};
use tidings_proto::id::{AccountId, DeviceId, Hash, Incarnation, LinkId};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::history::{At, DeviceKey, History, Slot, SlotKind, TermStart};

/// Stored parts that do not fit together: a fault here, not of a peer.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A part that is not there.
    #[error("part {0} of a group is missing")]
    Missing(&'static str),
    /// A part that cannot be read.
    #[error("part {0} of a group cannot be read")]
    Broken(&'static str),
    /// Rows that do not follow each other, or a link that does not follow from the state.
    #[error("row {0} of a group's log does not follow")]
    Row(u64),
}

pub(super) const CORE: &[u8] = b"core";
pub(super) const BASE: &[u8] = b"base";
pub(super) const CHECKPOINT: &[u8] = b"check";

#[derive(Clone, PartialEq, Message)]
struct SlotRow {
    #[prost(message, optional, tag = "1")]
    at: Option<pb::GroupPosition>,
    #[prost(bytes = "bytes", tag = "2")]
    link: Bytes,
    #[prost(message, optional, tag = "3")]
    start: Option<StartRow>,
    #[prost(bytes = "bytes", tag = "4")]
    account: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    device: Bytes,
    #[prost(uint64, tag = "6")]
    number: u64,
    #[prost(message, optional, tag = "7")]
    head: Option<pb::SignedGroupHead>,
}

#[derive(Clone, PartialEq, Message)]
struct StartRow {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint32, tag = "2")]
    level: u32,
    #[prost(bytes = "bytes", tag = "3")]
    id: Bytes,
    #[prost(bool, tag = "4")]
    succession: bool,
}

impl StartRow {
    fn of(start: &TermStart) -> Self {
        let (term, level, succession) = (start.term, start.level, start.succession);
        Self { term, level, id: start.id.to_bytes(), succession }
    }

    fn read(&self) -> Option<TermStart> {
        let id = LinkId::try_from(&self.id).ok()?;
        Some(TermStart { term: self.term, level: self.level, id, succession: self.succession })
    }
}

/// A slot as stored beside its record.
pub(super) fn slot_bytes(slot: &Slot) -> Bytes {
    let mut row = SlotRow { at: Some(slot.at.to_pb()), head: slot.head.clone(), ..SlotRow::default() };
    match &slot.kind {
        SlotKind::Link { id, start } => {
            row.link = id.to_bytes();
            row.start = start.as_ref().map(StartRow::of);
        }
        SlotKind::Message { key: (account, device), number } => {
            row.account = account.to_bytes();
            row.device = device.to_bytes();
            row.number = *number;
        }
        SlotKind::Other => {}
    }
    row.encode_to_vec().into()
}

/// A slot as it was stored.
pub(super) fn read_slot(bytes: &Bytes) -> Option<Slot> {
    let row = SlotRow::decode(bytes.clone()).ok()?;
    let at = At::parse(row.at.as_ref()).ok()?;
    let kind = if let Some(id) = LinkId::optional(&row.link).ok()? {
        SlotKind::Link { id, start: row.start.as_ref().and_then(StartRow::read) }
    } else if let Some(account) = AccountId::optional(&row.account).ok()? {
        SlotKind::Message { key: (account, DeviceId::try_from(&row.device).ok()?), number: row.number }
    } else {
        SlotKind::Other
    };
    Some(Slot { at, kind, head: row.head, dropped: Vec::new() })
}

/// The place of a stored row, for cursors of devices; `None` if the slot cannot be read.
#[must_use]
pub fn slot_position(slot: &Bytes) -> Option<pb::GroupPosition> {
    SlotRow::decode(slot.clone()).ok()?.at
}

/// The signed head that ended at a stored row, if one did.
#[must_use]
pub fn slot_head(slot: &Bytes) -> Option<pb::SignedGroupHead> {
    SlotRow::decode(slot.clone()).ok()?.head
}

/// Whether a stored row is a link of the chain.
#[must_use]
pub fn slot_is_link(slot: &Bytes) -> bool {
    SlotRow::decode(slot.clone()).is_ok_and(|row| !row.link.is_empty())
}

/// What a keeper promised.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Voted {
    /// The highest term it voted in; nothing of a lower term is taken.
    pub(super) term: u64,
    /// For whom, from where.
    pub(super) vote: Option<(ServerRef, At)>,
    /// It votes for nothing shorter than this.
    pub(super) floor: Option<At>,
}

/// The part that changes with almost every call.
#[derive(Debug, Clone, Default)]
pub(super) struct Core {
    pub(super) stable: u64,
    pub(super) head: Option<pb::SignedGroupHead>,
    pub(super) voted: Voted,
    pub(super) recovering: bool,
    pub(super) incarnation: Incarnation,
    pub(super) fence: Option<pb::GroupRecord>,
    pub(super) first: Option<At>,
}

#[derive(Clone, PartialEq, Message)]
struct CoreRow {
    #[prost(uint64, tag = "1")]
    stable: u64,
    #[prost(message, optional, tag = "2")]
    head: Option<pb::SignedGroupHead>,
    #[prost(uint64, tag = "3")]
    voted: u64,
    #[prost(message, optional, tag = "4")]
    voted_hub: Option<pb::ServerRef>,
    #[prost(message, optional, tag = "5")]
    voted_from: Option<pb::GroupPosition>,
    #[prost(message, optional, tag = "6")]
    floor: Option<pb::GroupPosition>,
    #[prost(bool, tag = "7")]
    recovering: bool,
    #[prost(bytes = "bytes", tag = "8")]
    incarnation: Bytes,
    #[prost(message, optional, tag = "9")]
    fence: Option<pb::GroupRecord>,
    #[prost(message, optional, tag = "10")]
    first: Option<pb::GroupPosition>,
}

impl Core {
    pub(super) fn bytes(&self) -> Bytes {
        let vote = self.voted.vote.as_ref();
        let row = CoreRow {
            stable: self.stable,
            head: self.head.clone(),
            voted: self.voted.term,
            voted_hub: vote.map(|(hub, _)| hub.to_pb()),
            voted_from: vote.map(|(_, from)| from.to_pb()),
            floor: self.voted.floor.map(|floor| floor.to_pb()),
            recovering: self.recovering,
            incarnation: self.incarnation.to_bytes(),
            fence: self.fence.clone(),
            first: self.first.map(|first| first.to_pb()),
        };
        row.encode_to_vec().into()
    }

    pub(super) fn read(bytes: &Bytes) -> Option<Self> {
        let row = CoreRow::decode(bytes.clone()).ok()?;
        let vote = match (&row.voted_hub, &row.voted_from) {
            (Some(hub), Some(from)) => Some((ServerRef::parse(Some(hub)).ok()?, At::parse(Some(from)).ok()?)),
            _ => None,
        };
        let floor = row.floor.as_ref().map(|floor| At::parse(Some(floor))).transpose().ok()?;
        Some(Self {
            stable: row.stable,
            head: row.head,
            voted: Voted { term: row.voted, vote, floor },
            recovering: row.recovering,
            incarnation: Incarnation::try_from(&row.incarnation).ok()?,
            fence: row.fence,
            first: row.first.as_ref().map(|first| At::parse(Some(first))).transpose().ok()?,
        })
    }
}

/// Where memory begins.
#[derive(Clone, PartialEq, Message)]
struct BaseRow {
    #[prost(message, optional, tag = "1")]
    at: Option<pb::GroupPosition>,
    #[prost(bytes = "bytes", tag = "2")]
    state: Bytes,
    #[prost(message, optional, tag = "3")]
    start: Option<StartRow>,
    /// Term and first number of each run of a term, one after the other.
    #[prost(uint64, repeated, tag = "4")]
    terms: Vec<u64>,
}

pub(super) fn base_bytes(history: &History) -> Bytes {
    let row = BaseRow {
        at: Some(history.base().to_pb()),
        state: history.base_state().encode(),
        start: Some(StartRow::of(history.base_start())),
        terms: history.base_terms().into_iter().flat_map(|(term, first)| [term, first]).collect(),
    };
    row.encode_to_vec().into()
}

/// The log as it is known at its base.
pub(super) fn read_base(bytes: &Bytes, numbers: BTreeMap<DeviceKey, u64>) -> Option<History> {
    let row = BaseRow::decode(bytes.clone()).ok()?;
    let state = GroupState::from_trusted(&row.state).ok()?;
    let mut history = History::new(At::parse(row.at.as_ref()).ok()?, state, row.start?.read()?, numbers);
    let pairs = row.terms.chunks_exact(2);
    history.set_terms(pairs.filter_map(|pair| Some((*pair.first()?, *pair.last()?))).collect());
    Some(history)
}

/// The state at the last checkpoint, with the place of the checkpoint's link.
#[derive(Clone, PartialEq, Message)]
pub(super) struct CheckpointRow {
    #[prost(message, optional, tag = "1")]
    pub(super) at: Option<pb::GroupPosition>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) state: Bytes,
}

pub(super) fn number_key(key: &DeviceKey) -> Bytes {
    [b"d".as_slice(), key.0.as_bytes(), key.1.as_bytes()].concat().into()
}

pub(super) fn pending_key(ordinal: u64) -> Bytes {
    [b"p".as_slice(), &ordinal.to_be_bytes()].concat().into()
}

pub(super) fn leaving_key(domain: &Domain) -> Bytes {
    [b"x".as_slice(), domain.as_str().as_bytes()].concat().into()
}

pub(super) fn mark_key(account: &AccountId) -> Bytes {
    [b"m".as_slice(), account.as_bytes()].concat().into()
}

/// A key of one letter and the rest, read back.
#[derive(Debug)]
pub(super) enum PartKey {
    Number(DeviceKey),
    Pending(u64),
    Leaving(Domain),
    Mark(AccountId),
}

impl PartKey {
    pub(super) fn read(key: &[u8]) -> Option<Self> {
        let (kind, rest) = key.split_first()?;
        match kind {
            b'd' => {
                let (account, device) = rest.split_at_checked(Hash::LEN)?;
                Some(Self::Number((AccountId::try_from(account).ok()?, DeviceId::try_from(device).ok()?)))
            }
            b'p' => Some(Self::Pending(u64::from_be_bytes(rest.try_into().ok()?))),
            b'x' => Some(Self::Leaving(Domain::parse(std::str::from_utf8(rest).ok()?).ok()?)),
            b'm' => Some(Self::Mark(AccountId::try_from(rest).ok()?)),
            _ => None,
        }
    }
}

pub(super) fn read_number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}
