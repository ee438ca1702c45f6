//! The rows of the store, as both backends hold them.

use bytes::Bytes;
use tidings_proto::id::{AccountId, DeviceId, Hash, Incarnation};

/// A log's number in the store.
pub type LogId = i64;
/// A peer record's number in the store.
pub type PeerId = i64;
/// Sender and recipient.
pub type LaneKey = (AccountId, AccountId);

/// An account: one that lives here, or one of another domain whose chain is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// The id of its genesis.
    pub id: AccountId,
    /// The address its chain names.
    pub address: String,
    /// It lives here.
    pub local: bool,
}

/// A link of an account chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// Whose chain.
    pub account: AccountId,
    /// Its number; the genesis has 0.
    pub number: u64,
    /// The encoded `Link`.
    pub link: Bytes,
    /// When it came, Unix milliseconds.
    pub at_ms: u64,
}

/// A device that is on the list of an account here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// The id of its link.
    pub id: DeviceId,
    /// Whose it is.
    pub account: AccountId,
    /// Its mailbox.
    pub log: LogId,
    /// The highest consumed submission counter; 0 if none.
    pub counter: u64,
    /// SHA-256 of that submission.
    pub digest: Hash,
    /// Its encoded `SignedRecord`; empty if it published none.
    pub record: Bytes,
    /// It has published a signed prekey: sessions with it can be begun.
    pub keyed: bool,
    /// It was told that its stock is low, and has not published since.
    pub told_low: bool,
    /// The highest one-time key id taken from it.
    pub ec_high: u32,
    /// The highest one-time Kyber key id taken from it.
    pub kyber_high: u32,
}

/// What a prekey is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyKind {
    /// The signed prekey; one of them.
    Signed = 1,
    /// The last-resort Kyber key; one of them.
    LastResort = 2,
    /// One-time keys.
    OneTime = 3,
    /// One-time Kyber keys.
    OneTimeKyber = 4,
}

impl KeyKind {
    /// The kind of this number.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::Signed),
            2 => Some(Self::LastResort),
            3 => Some(Self::OneTime),
            4 => Some(Self::OneTimeKyber),
            _ => None,
        }
    }
}

/// A prekey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// What for.
    pub kind: KeyKind,
    /// Its id.
    pub id: u32,
    /// The encoded `SignedKey` or `OneTimeKey`.
    pub key: Bytes,
}

/// A log's ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow {
    /// Its number.
    pub id: LogId,
    /// The life of the writer it belongs to.
    pub incarnation: Incarnation,
    /// The lowest number that can be read; last + 1 if none.
    pub first: u64,
    /// The highest number given; 0 if none.
    pub last: u64,
    /// The running hash after `first - 1`.
    pub before: Hash,
    /// The running hash after `last`.
    pub hash: Hash,
    /// It reached its bound: nothing is stored until its reader returns.
    pub lapsed: bool,
    /// Entries up to here do not count towards its bound: they lapsed.
    pub base: u64,
}

/// An entry, or the place of one that holds nothing any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// Its log.
    pub log: LogId,
    /// Its number.
    pub n: u64,
    /// The running hash after it.
    pub hash: Hash,
    /// The encoded `Entry`; `None` once void.
    pub content: Option<Bytes>,
    /// A `pb::VoidReason`; 0 while there is content.
    pub void: i32,
    /// When its content ends, Unix milliseconds; 0: never.
    pub expires_at_ms: u64,
    /// What makes two entries say the same; empty: nothing does.
    pub key: Bytes,
    /// A number of the entry's kind: for a chain announcement that of its first link.
    pub aux: u64,
}

/// A stored outcome of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRow {
    /// SHA-256 of the request.
    pub digest: Hash,
    /// The encoded `Outcome`.
    pub outcome: Bytes,
}

/// How an open number is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum OpenKind {
    /// In mailboxes.
    Placed = 0,
    /// In mailboxes, as a stranger's request.
    Request = 1,
    /// Nowhere: it looks like a message to a device that is offline.
    Withheld = 2,
}

impl OpenKind {
    /// The kind of this number.
    #[must_use]
    pub const fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Placed),
            1 => Some(Self::Request),
            2 => Some(Self::Withheld),
            _ => None,
        }
    }
}

/// A number of a lane that is not disposed of, or a range of withheld ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRow {
    /// The lane.
    pub lane: LaneKey,
    /// The number.
    pub number: u64,
    /// The last number of the range: `number` itself but for what is withheld.
    pub upto: u64,
    /// When it ends, Unix milliseconds.
    pub expires_at_ms: u64,
    /// How it is kept.
    pub kind: OpenKind,
    /// A device holds it (a request is not disposed of by that alone).
    pub acknowledged: bool,
}

/// What is known of another home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRow {
    /// Its number.
    pub id: PeerId,
    /// Its domain.
    pub domain: String,
    /// The outbox for it.
    pub log: LogId,
    /// The rest, encoded by `state`.
    pub state: Bytes,
}

/// A refusal given to a peer that it has not seen yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalRow {
    /// The entry of the peer's outbox.
    pub n: u64,
    /// The encoded `Failure`.
    pub failure: Bytes,
}

/// A fact of which only the newest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedRow {
    /// What makes two of them say the same.
    pub key: Bytes,
    /// The encoded `Entry`.
    pub entry: Bytes,
}
