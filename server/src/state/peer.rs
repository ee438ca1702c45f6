//! What is known of another home: its record, what is owed to it, and how far its own outbox was taken in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use prost::Message;
use tidings_federation::host::PeerRecord;
use tidings_federation::peer::PeerState;
use tidings_proto::chain::{ServerState, Verified};
use tidings_proto::id::{AccountId, Hash, Incarnation, ServerId};
use tidings_proto::log::Position;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::log::Log;
use crate::store::{LaneKey, PeerId, PeerRow, StoreError};

/// Refused entries remembered.
const REFUSED_MAX: usize = 4096;
/// How long one mark of what was acknowledged when stands for: an hour.
const MARK_MS: u64 = 3_600_000;

/// Entries of one lane that wait for a result.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// How many.
    pub entries: u64,
    /// Since when the oldest waits, Unix milliseconds.
    pub since_ms: u64,
    /// The lowest number waiting.
    pub from: u64,
    /// The sender was told that the peer cannot be reached.
    pub told: bool,
}

/// A peer record with outbox and inbox.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its number in the store.
    pub id: PeerId,
    /// What the link keeps.
    pub record: PeerRecord,
    /// What is owed to it, in order.
    pub outbox: Log,
    /// Results are durable here up to this number.
    pub done: u64,
    /// The running hash there.
    pub done_hash: Hash,
    /// How far its outbox was taken in.
    pub taken: Option<Position>,
    /// Refusals that it has not seen, encoded.
    pub unseen: BTreeMap<u64, Bytes>,
    /// Acknowledged numbers with the time, for trimming; at most one an hour.
    pub marks: Vec<(u64, u64)>,
    /// Entries up to here are older than they have to be kept; 0: none. Found out anew after a start.
    pub trim_to: u64,
    /// Entries that it refused, as their senders were told; the newest.
    pub refused: BTreeSet<u64>,
    /// Facts of which only the newest counts, by what makes two the same.
    pub owed: BTreeMap<Bytes, Bytes>,
    /// The incarnations on its chain, in order.
    pub incarnations: Vec<Incarnation>,
    /// Entries without a result, by sending account.
    pub shares: HashMap<AccountId, u64>,
    /// Lanes with entries that wait.
    pub waiting: BTreeMap<LaneKey, Waiting>,
}

#[derive(Clone, PartialEq, Message)]
struct Stored {
    #[prost(bytes = "bytes", tag = "1")]
    genesis: Bytes,
    #[prost(message, repeated, tag = "2")]
    links: Vec<pb::Link>,
    #[prost(string, tag = "3")]
    state: String,
    #[prost(uint64, tag = "4")]
    since_ms: u64,
    #[prost(message, repeated, tag = "5")]
    limits: Vec<pb::Limit>,
    #[prost(bytes = "bytes", tag = "6")]
    successor: Bytes,
    #[prost(uint64, tag = "7")]
    successor_since_ms: u64,
    #[prost(uint64, tag = "8")]
    done: u64,
    #[prost(bytes = "bytes", tag = "9")]
    done_hash: Bytes,
    #[prost(message, optional, tag = "10")]
    taken: Option<pb::Position>,
    #[prost(message, repeated, tag = "11")]
    marks: Vec<Mark>,
    #[prost(uint64, repeated, tag = "12")]
    refused: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Mark {
    #[prost(uint64, tag = "1")]
    n: u64,
    #[prost(uint64, tag = "2")]
    at_ms: u64,
}

impl Peer {
    /// A record of a domain that nobody has connected to.
    #[must_use]
    pub fn new(id: PeerId, domain: Domain, outbox: Log, now_ms: u64) -> Self {
        let record = PeerRecord {
            domain,
            genesis: None,
            links: Vec::new(),
            state: PeerState::New,
            since_ms: now_ms,
            limits: Vec::new(),
            successor: None,
        };
        Self {
            id,
            record,
            outbox,
            done: 0,
            done_hash: Hash::ZERO,
            taken: None,
            unseen: BTreeMap::new(),
            marks: Vec::new(),
            trim_to: 0,
            refused: BTreeSet::new(),
            owed: BTreeMap::new(),
            incarnations: Vec::new(),
            shares: HashMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// From the store.
    ///
    /// # Errors
    /// [`StoreError::Inconsistent`].
    pub fn stored(
        row: &PeerRow,
        outbox: Log,
        unseen: BTreeMap<u64, Bytes>,
        owed: BTreeMap<Bytes, Bytes>,
    ) -> Result<Self, StoreError> {
        let broken = |column| StoreError::Inconsistent { table: "peer", column, row: row.id.to_string() };
        let stored = Stored::decode(row.state.clone()).map_err(|_| broken("state"))?;
        let successor = ServerId::optional(&stored.successor).map_err(|_| broken("state"))?;
        let taken = stored.taken.map(|taken| position(&taken).ok_or_else(|| broken("state"))).transpose()?;
        let record = PeerRecord {
            domain: Domain::parse(&row.domain).map_err(|_| broken("domain"))?,
            genesis: ServerId::optional(&stored.genesis).map_err(|_| broken("state"))?,
            links: stored.links,
            state: PeerState::parse(&stored.state).ok_or_else(|| broken("state"))?,
            since_ms: stored.since_ms,
            limits: stored.limits,
            successor: successor.map(|id| (id, stored.successor_since_ms)),
        };
        Ok(Self {
            id: row.id,
            incarnations: incarnations(&record.links),
            trim_to: 0,
            refused: stored.refused.into_iter().collect(),
            owed,
            record,
            outbox,
            done: stored.done,
            done_hash: Hash::try_from(&stored.done_hash).map_err(|_| broken("state"))?,
            taken,
            unseen,
            marks: stored.marks.into_iter().map(|mark| (mark.n, mark.at_ms)).collect(),
            shares: HashMap::new(),
            waiting: BTreeMap::new(),
        })
    }

    /// The row.
    #[must_use]
    pub fn to_row(&self) -> PeerRow {
        let record = &self.record;
        let stored = Stored {
            genesis: record.genesis.map(|id| id.to_bytes()).unwrap_or_default(),
            links: record.links.clone(),
            state: record.state.as_str().to_owned(),
            since_ms: record.since_ms,
            limits: record.limits.clone(),
            successor: record.successor.map(|(id, _)| id.to_bytes()).unwrap_or_default(),
            successor_since_ms: record.successor.map_or(0, |(_, since)| since),
            done: self.done,
            done_hash: self.done_hash.to_bytes(),
            taken: self.taken.map(|taken| pb::Position {
                incarnation: taken.incarnation.to_bytes(),
                n: taken.n,
                hash: taken.h.to_bytes(),
            }),
            marks: self.marks.iter().map(|(n, at_ms)| Mark { n: *n, at_ms: *at_ms }).collect(),
            refused: self.refused.iter().copied().collect(),
        };
        PeerRow {
            id: self.id,
            domain: record.domain.to_string(),
            log: self.outbox.id(),
            state: stored.encode_to_vec().into(),
        }
    }

    /// Entries without a result.
    #[must_use]
    pub const fn queued(&self) -> u64 {
        self.outbox.last().saturating_sub(self.done)
    }

    /// The outbox's incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.outbox.row().incarnation
    }

    /// When the oldest entry without a result was appended.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        self.waiting.values().map(|waiting| waiting.since_ms).min()
    }

    /// An entry of a lane waits for a result; `number` is 0 for what has no number of its own.
    pub fn wait(&mut self, lane: LaneKey, number: u64, at_ms: u64) {
        let share = self.shares.entry(lane.0).or_insert(0);
        *share = share.saturating_add(1);
        if number == 0 {
            return;
        }
        let first = Waiting { entries: 0, since_ms: at_ms, from: number, told: false };
        let waiting = self.waiting.entry(lane).or_insert(first);
        waiting.entries = waiting.entries.saturating_add(1);
    }

    /// Whether this refusal is new; it is remembered.
    pub fn refuse(&mut self, n: u64) -> bool {
        let fresh = self.refused.insert(n);
        if self.refused.len() > REFUSED_MAX {
            self.refused.pop_first();
        }
        fresh
    }

    /// An entry of a lane has its result. `since_ms`: when it was appended, if everything before it has one too.
    pub fn settled(&mut self, lane: LaneKey, number: u64, since_ms: Option<u64>) {
        if let Some(share) = self.shares.get_mut(&lane.0) {
            *share = share.saturating_sub(1);
            if *share == 0 {
                self.shares.remove(&lane.0);
            }
        }
        if let Some(waiting) = self.waiting.get_mut(&lane).filter(|_| number > 0) {
            waiting.entries = waiting.entries.saturating_sub(1);
            // The next one is no older than the one before it.
            if since_ms.is_some() || number == waiting.from {
                waiting.from = waiting.from.max(number.saturating_add(1));
                waiting.since_ms = waiting.since_ms.max(since_ms.unwrap_or(0));
            }
            if waiting.entries == 0 {
                self.waiting.remove(&lane);
            }
        }
    }

    /// Notes what is acknowledged now; gives the number up to which entries are older than `kept_ms`.
    pub fn mark(&mut self, now_ms: u64, kept_ms: u64) -> u64 {
        match self.marks.last_mut() {
            Some((n, at_ms)) if now_ms < at_ms.saturating_add(MARK_MS) => *n = self.done,
            _ => self.marks.push((self.done, now_ms)),
        }
        let old = self.marks.iter().take_while(|(_, at_ms)| at_ms.saturating_add(kept_ms) <= now_ms).count();
        self.marks.drain(..old).next_back().map_or(0, |(n, _)| n)
    }
}

fn position(stored: &pb::Position) -> Option<Position> {
    let incarnation = Incarnation::try_from(&stored.incarnation).ok()?;
    Position::new(incarnation, stored.n, Hash::try_from(&stored.hash).ok()?).ok()
}

/// The incarnations on a server chain, in order; none if it does not verify.
#[must_use]
pub fn incarnations(links: &[pb::Link]) -> Vec<Incarnation> {
    Verified::<ServerState>::verify(links)
        .map(|chain| chain.state().incarnations().to_vec())
        .unwrap_or_default()
}
