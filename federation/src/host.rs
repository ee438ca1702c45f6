//! What the server does for this crate: its store, its clock, its answers to peers.
//!
//! One trait, [`Host`]. Every call that returns a [`Stored`] is durable when it returns `Ok`; one that fails is
//! tried again later, and nothing on the wire claims what it did not do. Chapter 09.
//!
//! Of the calls that change one peer's outbox one is open at a time, and likewise for its inbox; those that only
//! read can overlap with them.
//!
//! What this module does not do: say how entries are stored, or what an entry means.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tidings_proto::chain::{ServerState, Verified};
use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::RawFrame;
use tidings_proto::id::{Hash, Incarnation, ServerId};
use tidings_proto::log::Position;
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

use crate::peer::PeerState;

/// Something that comes later.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// Something that the store does; durable when it is `Ok`.
pub type Stored<'a, T> = Answer<'a, Result<T, Unavailable>>;

/// The store cannot do it now. It was logged by the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the store is not available: {0}")]
pub struct Unavailable(pub String);

/// Who this home is, as it presents itself to peers.
#[derive(Debug, Clone)]
pub struct OwnIdentity {
    /// Its domain's chain.
    pub chain: Verified<ServerState>,
    /// All links of that chain, genesis first.
    pub links: Vec<pb::Link>,
    /// One of its online keys.
    pub key: SigningKey,
    /// 16 random bytes, new at each start of the process.
    pub boot_id: [u8; 16],
    /// Its capabilities, ascending.
    pub capabilities: Vec<u64>,
    /// Every advertised limit, ascending by id.
    pub limits: Vec<pb::Limit>,
    /// Name and version for the other side's logs, at most 64 bytes.
    pub software: String,
}

impl OwnIdentity {
    /// Its domain.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        self.chain.state().domain()
    }
}

/// Names a peer: by its chain, or by its domain alone as long as no connection has proven a chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey {
    /// The domain.
    pub domain: Domain,
    /// Its server chain, once known.
    pub genesis: Option<ServerId>,
}

/// What is stored of a peer besides outbox and inbox. The key is `genesis`, or the domain while that is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its domain.
    pub domain: Domain,
    /// Its chain's id; `None` while no connection was proven. It is set once and never changes.
    pub genesis: Option<ServerId>,
    /// The links of its chain as held, genesis first.
    pub links: Vec<pb::Link>,
    /// Its state.
    pub state: PeerState,
    /// When that state began, milliseconds since 1970.
    pub since_ms: u64,
    /// The limits of its newest Welcome (id, value); empty while there was none.
    pub limits: Vec<pb::Limit>,
    /// In state replaced: the genesis id that the domain shows now, and since when without another in between.
    pub successor: Option<(ServerId, u64)>,
}

impl PeerRecord {
    /// How the host is asked about it.
    #[must_use]
    pub fn key(&self) -> PeerKey {
        PeerKey { domain: self.domain.clone(), genesis: self.genesis }
    }
}

/// An outbox at a glance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxState {
    /// Its life.
    pub incarnation: Incarnation,
    /// The highest number; 0 if it is empty.
    pub last: u64,
    /// Results are durable here up to this number.
    pub done: u64,
    /// The running hash at `done`.
    pub done_hash: Hash,
    /// When the oldest entry without a result was appended, milliseconds since 1970.
    pub oldest_ms: Option<u64>,
}

/// A peer's inbox: how far its outbox was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InboxState {
    /// The position; `None` where nothing was ever taken.
    pub taken: Option<Position>,
    /// Refusals that the peer has not yet seen, ascending by number, all of `taken`'s incarnation.
    pub unseen: Vec<(u64, Refusal)>,
}

/// All that is stored of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPeer {
    /// The record.
    pub record: PeerRecord,
    /// When the oldest entry of its outbox without a result was appended; `None` for an empty outbox.
    pub oldest_ms: Option<u64>,
}

/// An entry of an outbox as it is shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its number.
    pub n: u64,
    /// Of a Void the last number it covers, else `n`.
    pub to: u64,
    /// The encoded Entry.
    pub entry: Bytes,
    /// The running hash at `to`.
    pub hash: Hash,
}

/// What a peer said of its place in an outbox that cannot go on there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its position; `None` if it says that it has taken nothing.
    pub taken: Option<Position>,
    /// The refusals it named. Only those of an earlier incarnation that the host still knows can be used.
    pub refusals: Vec<(u64, Refusal)>,
}

/// What is to be done with an entry of a peer's outbox. The host follows it.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Handle it as its card states: accept or refuse.
    Entry(pb::Entry),
    /// No effect, accepted: a Void, or an ignorable type not known here.
    Nothing,
    /// Refused already: it cannot be parsed, or its type may not stand in an outbox. Store the refusal.
    Refused(Refusal),
}

/// An entry of a peer's outbox, to be taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// Its number.
    pub n: u64,
    /// The position after it, to be stored in the same atomic step.
    pub position: Position,
    /// What it is.
    pub content: Content,
    /// The encoded Entry as it came.
    pub entry: Bytes,
}

/// The final result of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its effects are stored.
    Accepted,
    /// It had no effect; the refusal is stored until the peer has seen it.
    Refused(Refusal),
}

/// Why no more is taken for now. A retry class other than after-delay or after-repair is sent as `unavailable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotNow {
    /// For how long; above `reconnect_max_ms` it is cut.
    pub wait: Duration,
    /// Why.
    pub reason: Refusal,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// The results of the first entries, in order, all durable with the position after the last of them.
    pub verdicts: Vec<Verdict>,
    /// Why those behind were not taken. Needed exactly if there are fewer verdicts than entries.
    pub not_now: Option<NotNow>,
}

/// What an operator sees of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its domain.
    pub domain: Domain,
    /// Its chain's id, if proven once.
    pub genesis: Option<ServerId>,
    /// Its state.
    pub state: PeerState,
    /// When the state began, milliseconds since 1970.
    pub since_ms: u64,
    /// What went wrong last, if anything did since the connection stood.
    pub last_error: Option<String>,
    /// When the next dial is due, milliseconds since 1970.
    pub next_attempt_ms: Option<u64>,
    /// Entries in its outbox without a result, as far as the link knows.
    pub queued: u64,
}

/// What became of links of this home's own chain that a peer handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// They say nothing new, or are not of the chain: as before.
    Nothing,
    /// They go on where this home's chain ends, and are kept. This home has lost state: nothing is signed with what
    /// it held until it has started again.
    Grown,
}

/// The server, as this crate sees it.
pub trait Host: Send + Sync + 'static {
    /// Who this home is. Asked for each connection, so that a new key or link counts at once.
    fn identity(&self) -> OwnIdentity;

    /// Links of this home's own chain that a peer holds and this home did not show, with the head that the peer
    /// holds: verified and kept if they extend the own chain (FED-007). Durable when it returns.
    fn adopt<'a>(&'a self, links: Vec<pb::Link>, head: Bytes) -> Stored<'a, Adopted>;

    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// 32 random bytes from a source nobody else can predict.
    fn random(&self) -> [u8; 32];

    /// Every stored peer record, and one in state new for each domain that has an outbox and no record.
    fn peers(&self) -> Stored<'_, Vec<StoredPeer>>;

    /// Stores a record. Where `genesis` is set for the first time, the outbox kept for the domain becomes this
    /// record's, and the record without a chain is gone. A record that exists under that genesis is overwritten.
    fn put_peer(&self, record: PeerRecord) -> Stored<'_, ()>;

    /// The outbox for a peer; an empty one with a fresh random incarnation is made if there is none.
    fn outbox<'a>(&'a self, peer: &'a ServerId) -> Stored<'a, OutboxState>;

    /// Gives numbers to what waits outside the outbox as a set by key (watermarks, chain announcements), at most
    /// `max` of it, and puts a Void in the place of what has expired. Returns the highest number.
    fn outbox_fill<'a>(&'a self, peer: &'a ServerId, max: usize) -> Stored<'a, u64>;

    /// Entries after `after`, ascending without a gap, at most so many and so many bytes, but one if there is one.
    /// For numbers whose content is gone: one Void whose `from` is the number it is asked for.
    fn outbox_read<'a>(
        &'a self,
        peer: &'a ServerId,
        after: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Stored<'a, Vec<OutboxEntry>>;

    /// The running hash of the present incarnation at `n`; `None` if it is above the last number or kept no more.
    fn outbox_hash<'a>(&'a self, peer: &'a ServerId, n: u64) -> Stored<'a, Option<Hash>>;

    /// The peer's final results: these are refused, every other entry up to `upto` that had no result yet is
    /// accepted. Idempotent: an entry that has a result keeps it. May overlap with [`Self::outbox_read`].
    fn outbox_settle<'a>(
        &'a self,
        peer: &'a ServerId,
        upto: u64,
        refusals: Vec<(u64, Refusal)>,
    ) -> Stored<'a, ()>;

    /// Closes one entry that cannot be shipped (`too-large`, `poison`): its senders get their notices, and what
    /// is returned, a Void over it, is shipped in its place.
    fn outbox_replace<'a>(&'a self, peer: &'a ServerId, n: u64, reason: Refusal) -> Stored<'a, OutboxEntry>;

    /// Begins a new incarnation of the outbox: 16 random bytes, numbers from 1, every entry without a final
    /// result again, in order. What was told is used as 9.6, step 3, states.
    fn outbox_restart<'a>(&'a self, peer: &'a ServerId, told: Told) -> Stored<'a, OutboxState>;

    /// Makes every entry without a result a Void, with one Notice `closed` per lane and range to its sender.
    fn outbox_close<'a>(&'a self, peer: &'a PeerKey, code: Code) -> Stored<'a, ()>;

    /// How far the peer's outbox was taken in.
    fn inbox<'a>(&'a self, peer: &'a ServerId) -> Stored<'a, InboxState>;

    /// Takes entries of a peer, in order: each one's effects, its refusal and its position in one atomic step.
    /// One commit can serve the whole batch. An entry whose effects are there already (same lane and number, same
    /// link) has no further effect and the result it had.
    fn take<'a>(&'a self, peer: &'a ServerId, domain: &'a Domain, batch: Vec<Incoming>) -> Stored<'a, Taken>;

    /// The peer's outbox began anew: drops the unseen refusals, sets the position to the start of `incarnation`.
    fn inbox_restart<'a>(&'a self, peer: &'a ServerId, incarnation: Incarnation) -> Stored<'a, ()>;

    /// The peer has stored all results up to here: drops the refusals that were kept for it.
    fn results_seen<'a>(&'a self, peer: &'a ServerId, upto: u64) -> Stored<'a, ()>;

    /// Answers a peer from the own store only; `not-here` for an address of another domain.
    fn resolve<'a>(
        &'a self,
        asking: &'a Domain,
        request: pb::Resolve,
    ) -> Answer<'a, Result<pb::Resolved, Refusal>>;

    /// As [`Self::resolve`].
    fn fetch_bundles<'a>(
        &'a self,
        asking: &'a Domain,
        request: pb::FetchBundles,
    ) -> Answer<'a, Result<pb::Bundles, Refusal>>;

    /// Answers a peer's request about a group: GroupBatch, GroupOffer, GroupAppend, GroupFetch, GroupMarks,
    /// GroupMarksFetch, KeeperAsk or KeeperPropose (chapter 07). What the answer claims is durable.
    fn group<'a>(&'a self, asking: &'a Domain, request: Frame) -> Answer<'a, Result<RawFrame, Refusal>>;

    /// A peer's state, or the reason for it, has changed. Logged already.
    fn peer_changed(&self, status: &PeerStatus);

    /// A peer named a position that the log of the present incarnation never had: somebody lost state. The
    /// operator is to be told. Logged already.
    fn position_conflict(&self, _domain: &Domain) {}
}
