//! The replica: what one home holds of one group, and all it may do with it (chapter 07).
//!
//! | role \ event | own link makes this home hub | another's term | group-fenced | hub lost | vote asked |
//! |---|---|---|---|---|---|
//! | hub | - | truncate, follow | renew its term (campaign) | - | vote if the rules allow |
//! | not ready (restored, or renewing) | hub | truncate, follow | - | - | restored: refuse |
//! | follower | hub | truncate, follow | - | keeper: campaign | keeper: vote if the rules allow |
//!
//! One struct is origin, follower, keeper and hub in one. It is pure: no I/O, no clock, no randomness. Call
//! a method, then [`Replica::take_effects`]; commit its [`effect::Write`]s in one transaction; only then let
//! the answer and the other effects leave. What is held in memory and not written follows from what is.
//!
//! What this module does not do: talk to devices, keep old rows, fetch chains.

pub mod campaign;
pub mod effect;
mod follower;
pub mod history;
mod hub;
mod keeper;
mod load;
mod marks;
mod origin;
mod page;
pub mod pending;
mod ship;
mod stored;
mod timers;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidings_proto::chain::group::{GroupEvidence, GroupLinkError, GroupState, ServerSigner};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{GroupHead, TermLink};
use tidings_proto::id::{GroupId, Incarnation};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

use campaign::Campaign;
use effect::{Effect, Request, Row, Write};
use history::{At, DeviceKey, History, Slot, SlotKind, TermStart};
use marks::Marks;
use pending::Pending;
use ship::Follower;
use stored::{CheckpointRow, Core};
use timers::Timers;

pub use hub::Appended;
pub use load::{Joined, Loader};
pub use stored::{LoadError, slot_head, slot_is_link, slot_position};

/// This server, as it signs.
#[derive(Debug, Clone)]
pub struct Own {
    /// Server, head and key.
    pub signer: ServerSigner,
    /// The private key of it.
    pub key: SigningKey,
    /// The incarnation of this server's state: another one than a replica has stored means that state was lost.
    pub incarnation: Incarnation,
    /// The server's chain, put beside links that it signs.
    pub chain: pb::Evidence,
}

/// Bounds and times of a replica.
#[derive(Debug, Clone)]
pub struct ReplicaLimits {
    /// After so long without a way to the hub a keeper finds it lost.
    pub hub_lost_ms: u64,
    /// First delay before a request is tried again; it doubles.
    pub retry_ms: u64,
    /// The longest such delay.
    pub retry_ms_max: u64,
    /// How long new stable marks and marks of members wait for company.
    pub marks_ms: u64,
    /// Entries above `stable` beyond which a hub takes no more.
    pub unstable_entries: u64,
    /// Entries that stay in memory below `stable`; the base moves when there are twice as many.
    pub window_entries: u64,
    /// Posts in one offer.
    pub offer_posts: usize,
    /// Posts of one account that are not yet stable.
    pub pending_posts: usize,
    /// Links after a checkpoint after which the hub makes the next.
    pub checkpoint_links: u64,
    /// A signed head is stored with every so manieth entry, for a later hub to pass on.
    pub head_entries: u64,
    /// The same by bytes.
    pub head_bytes: u64,
    /// Records under one head: fewer than the shell reads at once.
    pub batch_records: usize,
    /// Their bytes: the same.
    pub batch_bytes: usize,
    /// How far beyond all that others know a restored keeper takes its lost votes to reach.
    pub lost_votes: u64,
    /// Only for tests that show what a rule is for.
    pub broken: Broken,
}

/// Rules that a simulation can switch off, one at a time, to show that it notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broken {
    /// None.
    #[default]
    Nothing,
    /// A keeper votes again in a term.
    VotesTwice,
    /// A keeper votes for less than it holds.
    VotesForLess,
    /// A keeper that voted goes on taking batches of the old term.
    TakesAfterVote,
    /// A post is dropped when it is placed, not when it is stable.
    DropsAtPlacement,
    /// A restored hub goes on in its old term.
    RestoredGoesOn,
    /// Posts under heads older than a rotation are sequenced.
    TakesStaleHeads,
    /// One keeper is enough for stable.
    StableAtOnce,
}

impl Default for ReplicaLimits {
    fn default() -> Self {
        Self {
            hub_lost_ms: 30_000,
            retry_ms: 1000,
            retry_ms_max: 300_000,
            marks_ms: 500,
            unstable_entries: 4096,
            window_entries: 512,
            offer_posts: 64,
            pending_posts: 256,
            checkpoint_links: 192,
            head_entries: 32,
            head_bytes: 32_768,
            batch_records: 192,
            batch_bytes: 65_536,
            lost_votes: 1024,
            broken: Broken::Nothing,
        }
    }
}

/// What every call is given.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Milliseconds since the epoch.
    pub now_ms: u64,
    /// This server.
    pub own: &'a Own,
    /// Chains that are known. A miss is answered as `evidence-missing`; nothing has changed then.
    pub evidence: &'a dyn GroupEvidence,
    /// Bounds.
    pub limits: &'a ReplicaLimits,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

impl Context<'_> {
    fn domain(&self) -> &Domain {
        &self.own.signer.server.domain
    }

    fn is(&self, broken: Broken) -> bool {
        self.limits.broken == broken
    }
}

/// What this home is in the group now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sequences.
    Hub,
    /// Is named as hub and sequences nothing: restored, or renewing its term.
    NotReady,
    /// Copies.
    Follower,
}

#[derive(Debug)]
enum Flight {
    Batch { to: Domain, after: At, stable: u64 },
    Offer { ordinals: Vec<(u64, DeviceKey, u64)>, term: u64 },
    Fetch { from: Domain, campaign: bool },
    Ask { of: Domain },
    Propose { of: Domain },
    Marks,
}

/// One home's copy of one group.
#[derive(Debug)]
pub struct Replica {
    group: GroupId,
    history: History,
    core: Core,
    pending: Pending,
    checkpoint: Option<CheckpointRow>,
    leaving: BTreeMap<Domain, u64>,
    marks: Marks,
    followers: BTreeMap<Domain, Follower>,
    idle: BTreeSet<Domain>,
    bytes_since_head: u64,
    signed: Option<(At, u64, pb::SignedGroupHead)>,
    campaign: Option<Campaign>,
    renewed_at_ms: u64,
    /// Votes that were lost are ruled out since this start.
    votes_ruled_out: bool,
    flights: BTreeMap<u64, Flight>,
    next_ticket: u64,
    timers: Timers,
    offering: bool,
    /// The term that `offering` and the wait for another try belong to.
    offered_term: u64,
    offer_delay_ms: u64,
    hub_down_since_ms: Option<u64>,
    resync_from: Option<Domain>,
    effects: Vec<Effect>,
    core_changed: bool,
}

impl Replica {
    /// The group.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// The chain's state after the last entry held.
    #[must_use]
    pub fn state(&self) -> &GroupState {
        self.history.state()
    }

    /// The last entry held.
    #[must_use]
    pub fn position(&self) -> At {
        self.history.end()
    }

    /// The highest number known to be held durably by a majority of the keepers. For a reader it never goes
    /// back, but where an owner's succession went behind it.
    #[must_use]
    pub const fn stable(&self) -> u64 {
        self.core.stable
    }

    /// The log can be read here after this place.
    #[must_use]
    pub fn first(&self) -> At {
        self.core.first.unwrap_or(At::START)
    }

    /// Rows at or below this number are no longer needed by the replica.
    #[must_use]
    pub fn trim_below(&self) -> u64 {
        self.history.base().seq
    }

    /// The shell removed the rows up to this place (in the transaction of this call's writes).
    pub fn trimmed(&mut self, first: At) {
        if first.seq > self.first().seq && first.seq <= self.trim_below() {
            self.core.first = Some(first);
            self.core_changed = true;
        }
    }

    /// What this home is.
    #[must_use]
    pub fn role(&self, cx: &Context<'_>) -> Role {
        if *self.state().hub() != cx.own.signer.server {
            Role::Follower
        } else if self.core.recovering || self.campaign.is_some() {
            Role::NotReady
        } else {
            Role::Hub
        }
    }

    /// Whether this home is a keeper.
    #[must_use]
    pub fn is_keeper(&self, cx: &Context<'_>) -> bool {
        self.state().keepers().contains(&cx.own.signer.server)
    }

    /// No member is here and this home is neither keeper nor hub.
    #[must_use]
    pub fn is_gone(&self, cx: &Context<'_>) -> bool {
        let here = self.state().members().any(|(_, member)| !member.invited && member.domain == *cx.domain());
        !here && !self.is_keeper(cx) && *self.state().hub() != cx.own.signer.server
    }

    /// Whether it lost state and was not yet told by the other keepers what it had.
    #[must_use]
    pub const fn is_recovering(&self) -> bool {
        self.core.recovering
    }

    /// The last number of the device in the log held.
    #[must_use]
    pub fn last_number(&self, key: &DeviceKey) -> u64 {
        self.history.last_number(key)
    }

    /// Posts of this home that are not yet stable.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Entries in memory.
    #[must_use]
    pub fn entries_in_memory(&self) -> usize {
        self.history.len()
    }

    /// How long the hub has been out of reach, as far as this home knows.
    #[must_use]
    pub const fn hub_down_since_ms(&self) -> Option<u64> {
        self.hub_down_since_ms
    }

    /// When [`Self::timer`] wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// The effects of the last call, in order. Writes first in one transaction, the others after its commit.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        if std::mem::take(&mut self.core_changed) {
            let value = self.core.bytes();
            self.put(Bytes::from_static(stored::CORE), value);
        }
        std::mem::take(&mut self.effects)
    }

    /// The signed end of the log: as hub, signed now; else as last received.
    pub fn signed_head(&mut self, cx: &Context<'_>) -> Option<pb::SignedGroupHead> {
        // A restored hub signs what it still has: it is a beginning of what it had.
        if *self.state().hub() == cx.own.signer.server || self.handed_over(cx) {
            Some(self.sign_head(cx, self.history.end()))
        } else {
            self.core.head.clone()
        }
    }

    fn sign_head(&mut self, cx: &Context<'_>, at: At) -> pb::SignedGroupHead {
        let stable = self.core.stable.min(at.seq);
        if let Some((place, said, head)) = &self.signed
            && *place == at
            && *said == stable
        {
            return head.clone();
        }
        let head = GroupHead { group: self.group, position: at, stable, hub: cx.own.signer.clone() };
        let signed = head.sign(&cx.own.key);
        self.signed = Some((at, stable, signed.clone()));
        signed
    }

    fn write(&mut self, write: Write) {
        self.effects.push(Effect::Write(write));
    }

    fn put(&mut self, key: Bytes, value: Bytes) {
        self.write(Write::Put { key, value });
    }

    fn send(&mut self, to: Domain, request: Request, flight: Flight) {
        let ticket = self.fly(flight);
        self.effects.push(Effect::Send { ticket, to, request });
    }

    fn fly(&mut self, flight: Flight) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        self.flights.insert(ticket, flight);
        ticket
    }

    /// Adds the next entry to log and store.
    fn add(&mut self, slot: Slot, record: &pb::GroupRecord, state: Option<GroupState>) {
        let bytes: Bytes = prost::Message::encode_to_vec(record).into();
        self.bytes_since_head = self.bytes_since_head.saturating_add(bytes.len() as u64);
        if slot.head.is_some() {
            self.bytes_since_head = 0;
        }
        let row = Row { seq: slot.at.seq, slot: stored::slot_bytes(&slot), record: bytes };
        self.write(Write::Append(row));
        match &slot.kind {
            SlotKind::Message { key, number } => self.pending.place(key, *number, slot.at.seq),
            SlotKind::Link { start: Some(_), .. } => {
                self.core.fence = Some(record.clone());
                self.core_changed = true;
                self.pending.unsend();
            }
            _ => {}
        }
        self.keep_checkpoint(&slot, state.as_ref());
        self.history.push(slot, state);
    }

    /// The state before a checkpoint is what newcomers are given.
    fn keep_checkpoint(&mut self, slot: &Slot, state: Option<&GroupState>) {
        if state.is_some_and(|state| state.checkpoint() == state.number() && state.number() > 0) {
            let row = CheckpointRow { at: Some(slot.at.to_pb()), state: self.history.state().encode() };
            self.put(Bytes::from_static(stored::CHECKPOINT), prost::Message::encode_to_vec(&row).into());
            self.checkpoint = Some(row);
        }
    }

    /// Moves the base when enough has become stable, and writes what load needs.
    fn settle(&mut self, cx: &Context<'_>) {
        let limit = if cx.is(Broken::DropsAtPlacement) { u64::MAX } else { self.core.stable };
        for ordinal in self.pending.settle(limit) {
            self.write(Write::Delete { key: stored::pending_key(ordinal) });
        }
        let (base, end) = (self.history.base().seq, self.history.end().seq);
        let window = cx.limits.window_entries;
        let to = self.core.stable.min(end.saturating_sub(window));
        if to.saturating_sub(base) >= window.max(1) {
            self.rebase(to);
        }
    }

    fn rebase(&mut self, to: u64) {
        for (key, number) in self.history.rebase(to).devices {
            let key = stored::number_key(&key);
            if number == 0 {
                self.write(Write::Delete { key });
            } else {
                self.put(key, Bytes::copy_from_slice(&number.to_be_bytes()));
            }
        }
        self.write_base();
    }

    fn write_base(&mut self) {
        let value = stored::base_bytes(&self.history);
        self.put(Bytes::from_static(stored::BASE), value);
    }

    fn raise_stable(&mut self, cx: &Context<'_>, stable: u64) -> bool {
        if stable <= self.core.stable {
            return false;
        }
        self.core.stable = stable;
        self.core_changed = true;
        self.settle(cx);
        true
    }
}

/// How the term begins that this link begins, if it begins one.
fn term_start(link: &pb::Link) -> Option<TermStart> {
    let begun = TermLink::of(link)?;
    let body = <pb::GroupLinkBody as prost::Message>::decode(link.body.clone()).ok()?;
    let succession = body.hub_succession.is_some();
    let level = if begun.by_keepers { 2 } else { u32::from(!succession) };
    Some(TermStart { term: begun.term, level, id: begun.id, succession })
}

/// What a peer is told of a link that does not stand.
fn refusal_of(error: &GroupLinkError, state: &GroupState) -> Refusal {
    let refusal = Refusal::new(error.code(), error.to_string());
    if error.code() == Code::STALE_GROUP_LINK { refusal.with_head(state.head().to_bytes()) } else { refusal }
}
