//! Taking records: from the hub's batches, and from pages of another replica (chapter 07).
//!
//! | what comes \ state | nothing differs | differs from here on | keeper voted for a later term | restored keeper |
//! |---|---|---|---|---|
//! | after a place held, goes on from the end | append | - | group-fenced | group-not-ready |
//! | a term that beats the present one, from a place held | append | truncate, append | append if voted for it | group-not-ready |
//! | a lesser term | group-fenced, with the present term's link | group-fenced | group-fenced | group-not-ready |
//! | the same term, other hash | - | group-fork, both heads kept | group-fork | group-not-ready |
//! | after a place not held | own place: go on from there | the last place that can be common | | |
//! | after a place beyond what the sender keeps | resync | resync | resync | resync |
//!
//! A batch counts as a whole or not at all: every record is judged, the place reached has to be the one
//! that the hub signed, then all of it is written at once.

use std::collections::BTreeMap;

use tidings_proto::chain::group::GroupState;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{GroupEntry, GroupHead, GroupLogError};
use tidings_proto::id::{AccountId, DeviceId, LinkId};
use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;

use super::effect::{Effect, Write};
use super::history::{At, DeviceKey, Slot, SlotKind, TermStart, rank};
use super::timers::Timer;
use super::{Broken, Context, Replica, refusal_of, stored, term_start};

/// Why records were not taken.
#[derive(Debug)]
pub(super) enum Stop {
    /// Go on from this place instead.
    From(At),
    /// A later term is known here.
    Fenced,
    /// One hub signed two histories.
    Fork,
    /// What lies between is not to be had.
    Resync,
    /// A rule was broken, or evidence is missing.
    Refused(Refusal),
}

impl From<Code> for Stop {
    fn from(code: Code) -> Self {
        Self::Refused(code.into())
    }
}

/// Where records come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The hub ships them: what is answered counts.
    Batch,
    /// This home asked for them: nobody counts on it, so that a vote does not stand in the way.
    Page,
}

/// Records as they came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shipment<'a> {
    /// The place they follow.
    pub(super) after: At,
    /// The records.
    pub(super) records: &'a [pb::GroupRecord],
    /// The signed head of the last one.
    pub(super) head: Option<&'a pb::SignedGroupHead>,
}

/// Records that were judged and not yet written.
struct Staged {
    after: u64,
    slots: Vec<(Slot, pb::GroupRecord, Option<GroupState>)>,
    end: At,
    before: GroupState,
    state: GroupState,
}

impl Replica {
    /// A batch of the hub's log. What is answered is durable once this call's writes are.
    pub fn batch(&mut self, cx: &Context<'_>, from: &Domain, batch: &pb::GroupBatch) -> pb::GroupTaken {
        let mut taken = pb::GroupTaken { group: self.group.to_bytes(), ..Default::default() };
        let after = At::parse(batch.after.as_ref()).map_err(|error| Stop::Refused(log_refusal(&error)));
        let took = after.and_then(|after| {
            let shipment = Shipment { after, records: &batch.records, head: batch.head.as_ref() };
            self.take(cx, Source::Batch, shipment)
        });
        match took {
            Ok(()) => {
                self.heard_marks(batch.all_delivered, batch.all_read);
                if *from == self.state().hub().domain {
                    self.hub_spoke(cx);
                }
            }
            Err(Stop::From(at)) => {
                taken.taken = Some(at.to_pb());
                return taken;
            }
            Err(Stop::Fenced) => {
                if self.core.voted.term > self.state().term() {
                    // Whoever sends may be the hub voted for, and what it sends older than its term: what is fetched
                    // counts for nobody, so that no vote stands in its way.
                    self.fetch_from(from.clone(), false);
                }
                taken.refused = Some(Refusal::from(Code::GROUP_FENCED).to_pb());
                let voted = self.core.voted.term > self.state().term();
                taken.fence = if voted { Vec::new() } else { self.core.fence.iter().cloned().collect() };
            }
            Err(Stop::Fork) => taken.refused = Some(Refusal::from(Code::GROUP_FORK).to_pb()),
            Err(Stop::Resync) => self.want_resync(cx, from),
            Err(Stop::Refused(refusal)) => taken.refused = Some(refusal.to_pb()),
        }
        taken.taken = Some(self.history.end().to_pb());
        taken.gone = self.is_gone(cx);
        if taken.gone {
            self.effects.push(Effect::Gone);
        }
        taken
    }

    /// Judges and takes records that follow a place, up to a signed head.
    pub(super) fn take(
        &mut self,
        cx: &Context<'_>,
        source: Source,
        shipment: Shipment<'_>,
    ) -> Result<(), Stop> {
        if self.core.recovering && source == Source::Batch {
            return Err(Code::GROUP_NOT_READY.into());
        }
        let Shipment { after, records, head: signed } = shipment;
        let signed = signed.ok_or(Code::LINK_INVALID)?;
        let head =
            GroupHead::verify(signed, cx.evidence).map_err(|error| Stop::Refused(log_refusal(&error)))?;
        if head.group != self.group {
            return Err(Code::NO_SUCH_GROUP.into());
        }
        self.check_start(after, records.is_empty(), &head, signed)?;
        let staged = self.stage(cx, shipment, &head, signed)?;
        self.accept_signer(cx, &staged, &head, source == Source::Page)?;
        self.commit(cx, staged, &head, signed);
        Ok(())
    }

    /// Whether what comes can follow from something held here.
    fn check_start(
        &mut self,
        after: At,
        empty: bool,
        head: &GroupHead,
        signed: &pb::SignedGroupHead,
    ) -> Result<(), Stop> {
        let (base, end) = (self.history.base(), self.history.end());
        let truncated = empty && after != head.position;
        // Whoever signs the end of an older term does not know how the group went on.
        let old_hub = head.position.term < end.term && head.hub.server != *self.state().hub();
        if old_hub && self.history.at(after.seq) != Some(after) {
            return Err(Stop::Fenced);
        }
        if after.seq > end.seq {
            return Err(if truncated { Stop::Resync } else { Stop::From(end) });
        }
        if after.seq < base.seq {
            let behind = head.position.term > end.term && head.position.seq <= base.seq;
            return Err(if truncated || behind { Stop::Resync } else { Stop::From(end) });
        }
        let Some(own) = self.history.at(after.seq) else { return Err(Stop::From(end)) };
        if own == after {
            return Ok(());
        }
        if own.term == after.term {
            return Err(self.forked(after.seq, signed));
        }
        let common = self.history.last_upto(after.term.min(own.term), after.seq.saturating_sub(1));
        Err(common.map_or(Stop::Resync, Stop::From))
    }

    fn forked(&mut self, seq: u64, theirs: &pb::SignedGroupHead) -> Stop {
        let ours = self.history.slots_after(seq.saturating_sub(1)).find_map(|slot| slot.head.clone());
        if let Some(ours) = ours.or_else(|| self.core.head.clone()) {
            self.effects.push(Effect::Fork { ours, theirs: theirs.clone() });
        }
        Stop::Fork
    }

    fn stage(
        &mut self,
        cx: &Context<'_>,
        Shipment { after, records, .. }: Shipment<'_>,
        head: &GroupHead,
        signed: &pb::SignedGroupHead,
    ) -> Result<Staged, Stop> {
        let mut at = after;
        let mut rest = records.iter();
        let mut next = None;
        // What is held already is passed over.
        for record in rest.by_ref() {
            let Some(own) = self.history.at(at.seq.saturating_add(1)) else {
                next = Some(record);
                break;
            };
            let place =
                at.after(own.term, &record.entry).map_err(|error| Stop::Refused(log_refusal(&error)))?;
            if place.hash != own.hash {
                next = Some(record);
                break;
            }
            at = own;
        }
        let state = self.history.state_at(at.seq).ok_or(Stop::Resync)?.clone();
        let mut staged = Staged { after: at.seq, slots: Vec::new(), end: at, before: state.clone(), state };
        if let Some(first) = next {
            let others: Vec<&pb::GroupRecord> = std::iter::once(first).chain(rest.clone()).collect();
            self.check_branch(at, &others, signed)?;
            let mut numbers = self.history.numbers_at(at.seq);
            for record in std::iter::once(first).chain(rest) {
                self.stage_one(cx, &mut staged, record, &mut numbers)?;
            }
        }
        if staged.end != head.position {
            let held = staged.slots.is_empty() && self.history.holds(head.position) == Some(true);
            return if held { Ok(staged) } else { Err(Code::LINK_INVALID.into()) };
        }
        if let Some((slot, ..)) = staged.slots.last_mut() {
            slot.head = Some(signed.clone());
        }
        Ok(staged)
    }

    /// What comes stands in the place of something held: only a term that beats the present one may. Entries of an older
    /// term may stand before its succession.
    fn check_branch(
        &mut self,
        at: At,
        records: &[&pb::GroupRecord],
        signed: &pb::SignedGroupHead,
    ) -> Result<(), Stop> {
        if at.seq >= self.history.end().seq {
            return Ok(());
        }
        let start = |record: &&&pb::GroupRecord| {
            let entry = GroupEntry::parse(&record.entry).ok()?;
            entry.link().and_then(term_start).filter(|start| start.succession)
        };
        let present = self.history.start();
        if records.iter().filter_map(|record| start(&record)).any(|start| start.beats(&present)) {
            return Ok(());
        }
        let first = records.first().ok_or(Code::LINK_INVALID)?;
        let entry = GroupEntry::parse(&first.entry).map_err(|error| Stop::Refused(log_refusal(&error)))?;
        let own = self.history.slot(at.seq.saturating_add(1)).ok_or(Stop::Resync)?;
        let succeeds =
            |kind: &SlotKind| matches!(kind, SlotKind::Link { start: Some(start), .. } if start.succession);
        let begins = entry.link().and_then(term_start).is_some();
        if own.at.term == entry.term() && !succeeds(&own.kind) && !begins && present.term == own.at.term {
            return Err(self.forked(at.seq.saturating_add(1), signed));
        }
        Err(Stop::Fenced)
    }

    fn stage_one(
        &self,
        cx: &Context<'_>,
        staged: &mut Staged,
        record: &pb::GroupRecord,
        numbers: &mut BTreeMap<DeviceKey, u64>,
    ) -> Result<(), Stop> {
        let state = &staged.state;
        let followed = staged.end.follow(state, &record.entry);
        let (at, entry) = followed.map_err(|error| Stop::Refused(log_refusal(&error)))?;
        let (kind, next) = match &entry {
            GroupEntry::Message(message, _) => {
                let post = message.post.as_ref().ok_or(Code::LINK_INVALID)?;
                let key = check_post(cx, state, post)?;
                let last = numbers.get(&key).copied().unwrap_or_else(|| self.history.last_number(&key));
                if last.checked_add(1) != Some(post.number) {
                    return Err(Refusal::new(Code::NUMBER_GAP, "hub let a number out").into());
                }
                numbers.insert(key, post.number);
                (SlotKind::Message { key, number: post.number }, None)
            }
            GroupEntry::Link(link, _) => {
                let link = link.link.as_ref().ok_or(Code::LINK_INVALID)?;
                let next = state.apply(link, cx.evidence);
                let next = next.map_err(|error| Stop::Refused(refusal_of(&error, state)))?;
                let gone = |key: &DeviceKey| state.member(&key.0).is_some() && next.member(&key.0).is_none();
                if next.members().len() < state.members().len() {
                    let known: Vec<DeviceKey> =
                        self.history.devices().keys().chain(numbers.keys()).copied().collect();
                    numbers.extend(known.into_iter().filter(gone).map(|key| (key, 0)));
                }
                (SlotKind::Link { id: next.head(), start: term_start(link) }, Some(next))
            }
            GroupEntry::Other { .. } => (SlotKind::Other, None),
        };
        let slot = Slot { at, kind, head: None, dropped: Vec::new() };
        staged.end = at;
        if let Some(next) = &next {
            staged.before = std::mem::replace(&mut staged.state, next.clone());
        } else {
            staged.before = staged.state.clone();
        }
        staged.slots.push((slot, record.clone(), next));
        Ok(())
    }

    /// The head has to be by the hub of its place, or by the one that the state after it names; and a keeper that
    /// voted takes nothing of a lower term.
    fn accept_signer(
        &self,
        cx: &Context<'_>,
        staged: &Staged,
        head: &GroupHead,
        fetching: bool,
    ) -> Result<(), Stop> {
        let (before, after) = if staged.slots.is_empty() {
            let seq = head.position.seq;
            let before = self.history.state_at(seq.saturating_sub(1)).unwrap_or(&staged.before);
            (before, self.history.state_at(seq).unwrap_or(&staged.state))
        } else {
            (&staged.before, &staged.state)
        };
        let present = self.state();
        let voted = &self.core.voted;
        // A vote that has not come to a term yet: nothing is taken but of the term voted for, or a later one.
        if !fetching && voted.term > present.term() && !cx.is(Broken::TakesAfterVote) {
            let (term, hub) = (staged.state.term(), staged.state.hub());
            let voted_for = voted.vote.as_ref().is_some_and(|(voted, _)| voted == hub);
            if term < voted.term || (term == voted.term && !voted_for) {
                return Err(Stop::Fenced);
            }
        }
        let of_place = head.is_of(before) && before.term() == head.position.term;
        if head.is_of(after) {
            return Ok(());
        }
        if of_place && (staged.slots.is_empty() || after.term() > before.term()) {
            // The old hub ends its term with a transfer; or it says again what is past.
            let past = staged.slots.is_empty() && present.term() > after.term();
            return if past { Err(Stop::Fenced) } else { Ok(()) };
        }
        if present.term() > after.term() || head.position.term < present.term() {
            return Err(Stop::Fenced);
        }
        Err(Refusal::new(Code::LINK_INVALID, "head of another server than the hub").into())
    }

    fn commit(&mut self, cx: &Context<'_>, staged: Staged, head: &GroupHead, signed: &pb::SignedGroupHead) {
        let was_hub = *self.state().hub() == cx.own.signer.server;
        let was_term = self.state().term();
        if staged.after < self.history.end().seq && !staged.slots.is_empty() {
            self.cut(staged.after);
        }
        let news = !staged.slots.is_empty();
        for (slot, record, state) in staged.slots {
            self.add(slot, &record, state);
        }
        if self.state().term() > was_term && !self.core.recovering {
            self.end_campaign();
        }
        let newest = self.core.head.as_ref().and_then(place_and_stable);
        let is_end = head.position == self.history.end();
        if is_end && newest.is_none_or(|(at, stable)| at != head.position || stable < head.stable) {
            self.core.head = Some(signed.clone());
            self.core_changed = true;
        }
        let raised = self.raise_stable(cx, head.stable.min(self.history.end().seq));
        if news || raised {
            self.settle(cx);
            self.effects.push(Effect::Wake);
        }
        self.after_links(cx, was_hub, was_term);
    }

    /// Entries above `seq` are void.
    pub(super) fn cut(&mut self, seq: u64) {
        self.history.truncate(seq);
        self.write(Write::Truncate { after: seq });
        self.pending.unplace(seq);
        self.signed = None;
        if self.core.stable > seq {
            self.core.stable = seq;
            self.core_changed = true;
        }
        let cut = self.checkpoint.as_ref().and_then(|row| row.at.as_ref()).is_some_and(|at| at.seq > seq);
        if cut {
            self.checkpoint = None;
            self.write(Write::Delete { key: bytes::Bytes::from_static(stored::CHECKPOINT) });
        }
        self.leaving.retain(|_, at| *at <= seq);
        self.marks.cut(seq);
    }

    fn want_resync(&mut self, cx: &Context<'_>, from: &Domain) {
        if self.resync_from.replace(from.clone()).is_none() {
            self.effects.push(Effect::Resync { from: from.clone() });
            self.timers.set(Timer::Resync, cx.now_ms.saturating_add(cx.limits.hub_lost_ms));
        }
    }

    /// The hub spoke: nobody needs another one.
    fn hub_spoke(&mut self, cx: &Context<'_>) {
        self.hub_heard();
        if !self.core.recovering && *self.state().hub() != cx.own.signer.server {
            self.end_campaign();
        }
        if self.resync_from.take().is_some() {
            self.timers.clear(&Timer::Resync);
        }
        self.push_posts(cx);
    }

    /// The hub was heard of.
    pub(super) fn hub_heard(&mut self) {
        self.hub_down_since_ms = None;
        self.timers.clear(&Timer::HubLost);
    }

    /// The longest that is held.
    pub(super) fn held_rank(&self) -> (u64, u64) {
        let held = rank(&self.history.end());
        self.core.voted.floor.map_or(held, |floor| held.max(rank(&floor)))
    }
}

fn place_and_stable(signed: &pb::SignedGroupHead) -> Option<(At, u64)> {
    let head = <pb::GroupHead as prost::Message>::decode(signed.body.clone()).ok()?;
    Some((At::parse(head.position.as_ref()).ok()?, head.stable))
}

pub(super) fn log_refusal(error: &GroupLogError) -> Refusal {
    let code = match error {
        GroupLogError::Signer(error) => error.code(),
        GroupLogError::OtherGroup => Code::NO_SUCH_GROUP,
        _ => Code::LINK_INVALID,
    };
    Refusal::new(code, error.to_string())
}

/// What hub and readers alike ask of a post at its place; its number apart.
pub(super) fn check_post(
    cx: &Context<'_>,
    state: &GroupState,
    post: &pb::GroupPost,
) -> Result<DeviceKey, Refusal> {
    let bad = |_| Refusal::new(Code::LINK_INVALID, "id in a post");
    let sender = AccountId::try_from(&post.sender).map_err(bad)?;
    let device = DeviceId::try_from(&post.sender_device).map_err(bad)?;
    let head = LinkId::try_from(&post.chain_head).map_err(bad)?;
    let member = state.full_member(&sender).ok_or(Code::NOT_A_MEMBER)?;
    let address = Address::parse(&post.sender_address).ok();
    if address.is_none_or(|address| *address.domain() != member.domain) {
        return Err(Code::NOT_A_MEMBER.into());
    }
    if !state.may_post(&sender) {
        return Err(Code::RANK_TOO_LOW.into());
    }
    let stale = post.chain_number < state.rotated() || post.chain_number > state.number();
    let other = (post.chain_number == state.rotated() && head != state.rotated_head())
        || (post.chain_number == state.number() && head != state.head());
    if (stale || other) && !cx.is(Broken::TakesStaleHeads) {
        return Err(Refusal::from(Code::STALE_HEAD).with_head(state.head().to_bytes()));
    }
    Ok((sender, device))
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// For joiners whose term's beginning is not known: anything that begins one stands before it.
pub(super) fn unknown_start(term: u64) -> TermStart {
    TermStart { term, level: 0, id: LinkId([0xff; 32]), succession: false }
}
