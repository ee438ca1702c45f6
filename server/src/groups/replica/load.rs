//! Making a replica: a new group's, a joiner's, and what was stored.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::group::{GroupEvidence, GroupState};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{GroupEntry, GroupHead, link_entry};
use tidings_proto::id::{AccountId, DeviceId, Hash};
use tidings_proto::pb;

use super::effect::{Effect, Reply, Row, Write};
use super::follower::{log_refusal, unknown_start};
use super::history::{At, DeviceKey, History, Slot, SlotKind, rank};
use super::marks::Marks;
use super::pending::Pending;
use super::stored::{self, CheckpointRow, Core, LoadError, PartKey};
use super::timers::{Timer, Timers};
use super::{Context, Flight, Replica, term_start};

/// What a joining home fetched and verified.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The chain's state at the head.
    pub state: GroupState,
    /// The signed end of the log, from the last page.
    pub head: pb::SignedGroupHead,
    /// The last numbers of all devices there.
    pub numbers: Vec<pb::DeviceNumber>,
    /// The record of the last link that began a term, if there was one.
    pub term_began: Option<pb::GroupRecord>,
    /// The place of the checkpoint that was begun with, and the encoded state before it; none if begun with the genesis.
    pub checkpoint: Option<(pb::GroupPosition, Bytes)>,
    /// All records of links that were fetched, from the checkpoint or the genesis on: kept for those who join later.
    pub links: Vec<pb::GroupRecord>,
}

/// Stored parts, read; the rows of the log come next.
#[derive(Debug)]
pub struct Loader {
    core: Core,
    history: History,
    pending: Pending,
    leaving: BTreeMap<tidings_proto::name::Domain, u64>,
    marks: Marks,
    checkpoint: Option<CheckpointRow>,
}

impl Loader {
    /// Reads all parts of a group.
    ///
    /// # Errors
    /// [`LoadError`]: a part is missing or broken.
    pub fn new(parts: impl IntoIterator<Item = (Bytes, Bytes)>) -> Result<Self, LoadError> {
        let (mut core, mut base, mut checkpoint) = (None, None, None);
        let mut loader = (BTreeMap::new(), Pending::default(), BTreeMap::new(), Marks::default());
        for (key, value) in parts {
            match key.as_ref() {
                stored::CORE => core = Some(Core::read(&value).ok_or(LoadError::Broken("core"))?),
                stored::BASE => base = Some(value),
                stored::CHECKPOINT => {
                    let row = CheckpointRow::decode(value).map_err(|_| LoadError::Broken("checkpoint"))?;
                    checkpoint = Some(row);
                }
                other => {
                    let key = PartKey::read(other).ok_or(LoadError::Broken("key"))?;
                    read_part(key, &value, &mut loader).ok_or(LoadError::Broken("row"))?;
                }
            }
        }
        let (numbers, pending, leaving, marks) = loader;
        let core = core.ok_or(LoadError::Missing("core"))?;
        let base = base.ok_or(LoadError::Missing("base"))?;
        let history = stored::read_base(&base, numbers).ok_or(LoadError::Broken("base"))?;
        Ok(Self { core, history, pending, leaving, marks, checkpoint })
    }

    /// Rows above this number are needed next.
    #[must_use]
    pub const fn tail_after(&self) -> u64 {
        self.history.base().seq
    }

    /// Links above the base are applied again, as verified before: the evidence has to be at hand.
    ///
    /// # Errors
    /// [`LoadError::Row`]: a row that does not follow.
    pub fn finish(self, cx: &Context<'_>, rows: &[Row]) -> Result<Replica, LoadError> {
        let mut replica = Replica::with(self.history, self.core);
        replica.pending = self.pending;
        replica.leaving = self.leaving;
        replica.marks = self.marks;
        replica.checkpoint = self.checkpoint;
        for row in rows {
            replica.reload(row, cx.evidence).ok_or(LoadError::Row(row.seq))?;
        }
        replica.started(cx);
        Ok(replica)
    }
}

type Parts = (BTreeMap<DeviceKey, u64>, Pending, BTreeMap<tidings_proto::name::Domain, u64>, Marks);

fn read_part(key: PartKey, value: &Bytes, parts: &mut Parts) -> Option<()> {
    match key {
        PartKey::Number(key) => {
            parts.0.insert(key, stored::read_number(value)?);
        }
        PartKey::Pending(ordinal) => {
            let post = pb::GroupPost::decode(value.clone()).ok()?;
            let account = AccountId::try_from(&post.sender).ok()?;
            let device = DeviceId::try_from(&post.sender_device).ok()?;
            parts.1.insert(ordinal, (account, device), post);
        }
        PartKey::Leaving(domain) => {
            parts.2.insert(domain, stored::read_number(value)?);
        }
        PartKey::Mark(account) => {
            let (delivered, read) = value.split_at_checked(8)?;
            parts.3.load(account, stored::read_number(delivered)?, stored::read_number(read)?);
        }
    }
    Some(())
}

impl Replica {
    fn with(history: History, core: Core) -> Self {
        Self {
            group: history.state().group(),
            history,
            core,
            pending: Pending::default(),
            checkpoint: None,
            leaving: BTreeMap::new(),
            marks: Marks::default(),
            followers: BTreeMap::new(),
            idle: std::collections::BTreeSet::new(),
            bytes_since_head: 0,
            signed: None,
            campaign: None,
            renewed_at_ms: 0,
            votes_ruled_out: false,
            flights: BTreeMap::new(),
            next_ticket: 0,
            timers: Timers::default(),
            offering: false,
            offered_term: 0,
            offer_delay_ms: 0,
            hub_down_since_ms: None,
            resync_from: None,
            effects: Vec::new(),
            core_changed: true,
        }
    }

    /// A new group, this home its hub: genesis first, then further links of its creator.
    ///
    /// # Errors
    /// What is wrong with the links.
    pub fn create(
        cx: &Context<'_>,
        links: &[pb::Link],
        evidence: &[pb::Evidence],
    ) -> Result<(Self, pb::GroupAppended), Refusal> {
        let (genesis, rest) = links.split_first().ok_or(Code::LINK_INVALID)?;
        let state = GroupState::genesis(genesis, cx.evidence);
        let state = state.map_err(|error| Refusal::new(error.code(), error.to_string()))?;
        if *state.hub() != cx.own.signer.server {
            return Err(Refusal::new(Code::LINK_INVALID, "another server is to be the hub"));
        }
        let group = state.group();
        let entry = link_entry(&group, state.term(), 1, genesis.clone());
        let at = At::START.after(state.term(), &entry).map_err(|error| log_refusal(&error))?;
        let core = Core { incarnation: cx.own.incarnation, ..Core::default() };
        // The base is the genesis' own place: its record is written, its state is the base's.
        let mut replica = Self::with(History::new(at, state, unknown_start(1), BTreeMap::new()), core);
        let head = GroupHead { group, position: at, stable: 1, hub: cx.own.signer.clone() }.sign(&cx.own.key);
        replica.core.head = Some(head.clone());
        replica.core.stable = 1;
        let id = replica.state().head();
        let slot =
            Slot { at, kind: SlotKind::Link { id, start: None }, head: Some(head), dropped: Vec::new() };
        let mut beside = evidence.to_vec();
        beside.push(cx.own.chain.clone());
        let record = pb::GroupRecord { entry, evidence: beside };
        let record = record.encode_to_vec().into();
        replica.write(Write::Append(Row { seq: 1, slot: stored::slot_bytes(&slot), record }));
        replica.write_base();
        replica.become_hub(cx, at, None);
        let mut last = pb::GroupAppended {
            group: group.to_bytes(),
            place: Some(pb::GroupPlace { term: at.term, seq: at.seq }),
            head: id.to_bytes(),
        };
        for link in rest {
            let request = pb::GroupAppend {
                group: group.to_bytes(),
                hub: None,
                link: Some(link.clone()),
                evidence: evidence.to_vec(),
            };
            match replica.append(cx, &request) {
                super::hub::Appended::Done(appended) => last = appended,
                super::hub::Appended::Refused(refusal) => return Err(refusal),
                super::hub::Appended::Forward { .. } => return Err(Code::LINK_INVALID.into()),
            }
        }
        Ok((replica, last))
    }

    /// A home that has a member, or an invited account, for the first time. The log begins here after its end.
    ///
    /// # Errors
    /// The head is not of that state's hub, or not signed.
    pub fn join(cx: &Context<'_>, joined: &Joined) -> Result<Self, Refusal> {
        let (history, core) = begin(cx, joined)?;
        let mut replica = Self::with(history, core);
        // A keeper that has no memory of having been one may have forgotten votes.
        replica.core.recovering = replica.is_keeper(cx);
        replica.write_join(joined);
        replica.started(cx);
        Ok(replica)
    }

    /// The log between is not to be had: it goes on after what was fetched. Own posts stay.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub fn resync(&mut self, cx: &Context<'_>, joined: &Joined) -> Result<(), Refusal> {
        let (history, core) = begin(cx, joined)?;
        let shorter = rank(&history.end()) < rank(&self.history.end());
        if shorter || history.state().term() < self.state().term() || history.state().group() != self.group {
            return Err(Code::GROUP_FENCED.into());
        }
        self.resync_from = None;
        self.timers.clear(&Timer::Resync);
        self.write(Write::Reset);
        self.core.stable = core.stable.max(self.core.stable.min(history.end().seq));
        self.history = history;
        self.core.head = core.head;
        self.core.first = core.first;
        self.core.fence = core.fence.or_else(|| self.core.fence.take());
        self.checkpoint = None;
        self.signed = None;
        for one in self.pending.restart() {
            self.put(stored::pending_key(one.ordinal), one.post.encode_to_vec().into());
        }
        self.write_join(joined);
        self.effects.push(Effect::Wake);
        self.push_posts(cx);
        Ok(())
    }

    fn write_join(&mut self, joined: &Joined) {
        let end = self.history.base();
        for record in &joined.links {
            let Ok(entry) = GroupEntry::parse(&record.entry) else { continue };
            let Some(link) = entry.link() else { continue };
            let id = tidings_proto::chain::link_id(tidings_proto::sign::Purpose::GROUP_LINK, &link.body);
            // Of what was not fetched beside it the running hash is not known; nothing is shipped from there.
            let at = At { term: entry.term(), seq: entry.seq(), hash: Hash::ZERO };
            let at = if at.seq == end.seq { end } else { at };
            let kind = SlotKind::Link { id, start: term_start(link) };
            let slot = stored::slot_bytes(&Slot { at, kind, head: None, dropped: Vec::new() });
            self.write(Write::Append(Row { seq: at.seq, slot, record: record.encode_to_vec().into() }));
        }
        self.checkpoint = joined.checkpoint.clone().map(|(at, state)| CheckpointRow { at: Some(at), state });
        if let Some(row) = &self.checkpoint {
            let value = row.encode_to_vec().into();
            self.put(Bytes::from_static(stored::CHECKPOINT), value);
        }
        let numbers: Vec<(DeviceKey, u64)> =
            self.history.devices().iter().map(|(key, number)| (*key, *number)).collect();
        for (key, number) in numbers {
            self.put(stored::number_key(&key), Bytes::copy_from_slice(&number.to_be_bytes()));
        }
        self.write_base();
        self.core_changed = true;
    }

    fn reload(&mut self, row: &Row, evidence: &dyn GroupEvidence) -> Option<()> {
        let slot = stored::read_slot(&row.slot)?;
        let dense = self.history.end().seq.checked_add(1) == Some(row.seq) && slot.at.seq == row.seq;
        let record = pb::GroupRecord::decode(row.record.clone()).ok()?;
        let state = match &slot.kind {
            SlotKind::Link { .. } => {
                let entry = GroupEntry::parse(&record.entry).ok()?;
                Some(self.state().apply(entry.link()?, evidence).ok()?)
            }
            SlotKind::Message { key, number } => {
                self.pending.place(key, *number, row.seq);
                None
            }
            SlotKind::Other => None,
        };
        dense.then(|| self.history.push(slot, state))
    }

    /// After a start: what follows from what is stored is begun anew.
    fn started(&mut self, cx: &Context<'_>) {
        let hub = *self.state().hub() == cx.own.signer.server;
        let lost = self.core.incarnation != cx.own.incarnation;
        if lost && (hub || self.is_keeper(cx)) && !cx.is(super::Broken::RestoredGoesOn) {
            self.core.recovering = true;
        } else if lost {
            self.core.incarnation = cx.own.incarnation;
        }
        self.core_changed = true;
        if self.core.recovering {
            self.campaign_begins(cx);
        } else if hub || self.handed_over(cx) {
            let leaving = self.leaving.clone();
            self.become_hub(cx, self.history.end(), None);
            self.keep_leaving(cx, leaving);
        }
        self.tell_all_marks(cx);
        self.push_posts(cx);
    }

    /// Domains that still wait for the link that removed their last member.
    fn keep_leaving(&mut self, cx: &Context<'_>, leaving: BTreeMap<tidings_proto::name::Domain, u64>) {
        for (domain, seq) in leaving {
            if !self.followers.contains_key(&domain) {
                self.leave(domain.clone(), seq);
                self.follow(cx, domain, self.history.end());
            }
        }
    }

    /// The shell hands over what came of a request; an answer nobody waits for is passed over.
    pub fn answered(&mut self, cx: &Context<'_>, ticket: u64, reply: Reply) {
        let Some(flight) = self.flights.remove(&ticket) else { return };
        if matches!(&flight, Flight::Offer { term, .. } if *term != self.state().term()) {
            // It went to a hub of before; what waits is offered to the one of now.
            return;
        }
        match (flight, reply) {
            (Flight::Batch { to, after, stable }, Reply::Taken(taken)) => {
                self.taken(cx, &to, (after, stable), &taken);
            }
            (Flight::Batch { to, .. }, Reply::Failed(refusal)) if refusal.code == Code::NO_SUCH_GROUP => {
                self.silence(cx, &to);
            }
            (Flight::Batch { to, .. }, _) => self.not_taken(cx, &to),
            (Flight::Offer { ordinals, .. }, Reply::Placed(placed)) => {
                self.placed(cx, &ordinals, &placed);
            }
            (Flight::Offer { .. }, reply) => {
                match reply {
                    Reply::Unreachable => self.hub_down(cx),
                    // It knows a later term; the hub of that one may not know this home.
                    Reply::Failed(refusal) if refusal.code == Code::GROUP_FENCED => {
                        self.fetch_from(self.state().hub().domain.clone(), false);
                    }
                    _ => {}
                }
                self.offer_later(cx);
            }
            (Flight::Fetch { from, campaign }, Reply::Page(page)) => self.paged(cx, from, campaign, &page),
            (Flight::Ask { of }, Reply::State(state)) => self.keeper_told(cx, &of, Some(&state)),
            (Flight::Ask { of }, _) => self.keeper_told(cx, &of, None),
            (Flight::Propose { of }, Reply::Voted(voted)) => self.keeper_voted(cx, &of, &voted),
            (Flight::Fetch { .. } | Flight::Propose { .. } | Flight::Marks, _) => {}
        }
    }

    /// To be called at or after [`Self::deadline`].
    pub fn timer(&mut self, cx: &Context<'_>) {
        while let Some(timer) = self.timers.pop(cx.now_ms) {
            match timer {
                Timer::Ship(domain) => self.ship_again(cx, &domain),
                Timer::Offer => self.push_posts(cx),
                Timer::HubLost => {
                    if self.is_keeper(cx) && !self.core.recovering && self.campaign.is_none() {
                        self.campaign_begins(cx);
                    }
                }
                Timer::Campaign => self.campaign_timer(cx),
                Timer::Spread => {
                    self.count_marks();
                    self.spread(cx);
                }
                Timer::Marks => self.tell_marks(cx),
                Timer::Resync => {
                    if let Some(from) = self.resync_from.take() {
                        self.effects.push(Effect::Resync { from: from.clone() });
                        self.resync_from = Some(from);
                        let again = cx.now_ms.saturating_add(cx.limits.hub_lost_ms);
                        self.timers.set(Timer::Resync, again);
                    }
                }
            }
        }
    }
}

fn begin(cx: &Context<'_>, joined: &Joined) -> Result<(History, Core), Refusal> {
    let head = GroupHead::verify(&joined.head, cx.evidence).map_err(|error| log_refusal(&error))?;
    let state = joined.state.clone();
    if !head.is_of(&state) && head.position.term >= state.term() {
        return Err(Refusal::new(Code::LINK_INVALID, "head of another server than the hub"));
    }
    let mut numbers = BTreeMap::new();
    for number in &joined.numbers {
        let bad = |_| Refusal::new(Code::LINK_INVALID, "id in a number");
        let account = AccountId::try_from(&number.account).map_err(bad)?;
        let device = DeviceId::try_from(&number.device).map_err(bad)?;
        numbers.insert((account, device), number.number);
    }
    let began = joined.term_began.as_ref().and_then(|record| GroupEntry::parse(&record.entry).ok());
    let start = began.as_ref().and_then(GroupEntry::link).and_then(term_start);
    let start = start.filter(|start| start.term == state.term());
    let start = start.unwrap_or_else(|| unknown_start(state.term()));
    let core = Core {
        stable: head.stable.min(head.position.seq),
        head: Some(joined.head.clone()),
        incarnation: cx.own.incarnation,
        fence: joined.term_began.clone(),
        first: Some(head.position),
        ..Core::default()
    };
    Ok((History::new(head.position, state, start, numbers), core))
}
