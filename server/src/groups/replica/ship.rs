//! Shipping the log to the homes of members and to keepers, and counting what is stable (chapter 07).
//!
//! | follower \ event | entries or stable beyond what it has | it took | unreachable, refused | its last member left | no such group |
//! |---|---|---|---|---|---|
//! | idle | in flight | - | - | ships to the link, then gone | silent |
//! | in flight | in flight | idle, or in flight again | waiting | the same | silent |
//! | waiting | waiting | - | - | waiting | silent |
//! | silent (asks for nothing) | silent | - | - | gone | silent; fetching wakes it |
//!
//! A follower's place is not stored: after a start the hub tells its end, and is answered where to go on.
//! Work per entry is one batch per domain that is shipped to, and nothing for the others.

use bytes::Bytes;
use tidings_proto::chain::group::ServerRef;
use tidings_proto::error::Code;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::effect::{Effect, Request, Row, Write};
use super::history::{At, SlotKind};
use super::timers::Timer;
use super::{Broken, Context, Flight, Replica, Role, stored};

/// A domain that is shipped to.
#[derive(Debug, Clone)]
pub(super) struct Follower {
    /// The hub goes on from here.
    pub(super) taken: At,
    /// Durable there in this very history: what counts.
    pub(super) counted: u64,
    pub(super) in_flight: bool,
    told_stable: u64,
    told_marks: (u64, u64),
    delay_ms: u64,
    silent: bool,
    /// Asked where it is with the next batch, even an empty one.
    probe: bool,
}

impl Replica {
    /// What changes with links that were added: who is hub, who is shipped to, who left.
    pub(super) fn after_links(&mut self, cx: &Context<'_>, was_hub: bool, was_term: u64) {
        let is_hub = *self.state().hub() == cx.own.signer.server;
        if is_hub && (!was_hub || self.state().term() > was_term) && !self.core.recovering {
            let end = self.history.end();
            self.become_hub(cx, end, None);
        } else if is_hub && was_hub {
            self.sync_followers(cx);
        } else if was_hub && self.history.start().succession {
            self.stop_shipping();
        }
        if self.state().term() > was_term {
            self.timers.clear(&Timer::Offer);
            self.offer_delay_ms = 0;
            self.pending.unsend();
            self.hub_heard();
        }
        self.push_posts(cx);
    }

    fn stop_shipping(&mut self) {
        for domain in std::mem::take(&mut self.followers).into_keys() {
            self.timers.clear(&Timer::Ship(domain));
        }
        self.idle.clear();
        for domain in std::mem::take(&mut self.leaving).into_keys() {
            self.write(Write::Delete { key: stored::leaving_key(&domain) });
        }
    }

    /// Everybody is shipped to from `taken` on.
    pub(super) fn become_hub(&mut self, cx: &Context<'_>, taken: At, also: Option<Domain>) {
        self.stop_shipping();
        let state = self.state();
        let mut domains: Vec<Domain> = state.domains().into_iter().cloned().collect();
        domains.extend(state.keepers().iter().map(|keeper| keeper.domain.clone()));
        if let Some(domain) = also
            && !domains.contains(&domain)
        {
            self.leave(domain.clone(), self.history.end().seq);
            domains.push(domain);
        }
        for domain in domains {
            self.follow(cx, domain, taken);
        }
        self.timers.clear(&Timer::HubLost);
        self.count_stable(cx);
        self.push_posts(cx);
    }

    pub(super) fn leave(&mut self, domain: Domain, seq: u64) {
        self.put(stored::leaving_key(&domain), Bytes::copy_from_slice(&seq.to_be_bytes()));
        self.leaving.insert(domain, seq);
    }

    pub(super) fn follow(&mut self, cx: &Context<'_>, domain: Domain, taken: At) {
        if domain == *cx.domain() || self.followers.contains_key(&domain) {
            return;
        }
        let follower = Follower {
            taken,
            counted: 0,
            in_flight: false,
            told_stable: 0,
            told_marks: (0, 0),
            delay_ms: 0,
            silent: false,
            probe: false,
        };
        self.followers.insert(domain.clone(), follower);
        self.ship(cx, &domain, true);
    }

    fn sync_followers(&mut self, cx: &Context<'_>) {
        let end = self.history.end();
        let Some(before) = self.history.at(end.seq.saturating_sub(1)) else { return };
        let state = self.state().clone();
        let mut wanted = state.domains();
        wanted.extend(state.keepers().iter().map(|keeper| &keeper.domain));
        for domain in &wanted {
            if self.leaving.remove(*domain).is_some() {
                self.write(Write::Delete { key: stored::leaving_key(domain) });
            }
            self.follow(cx, (*domain).clone(), before);
        }
        let gone = |domain: &&Domain| !wanted.contains(domain) && !self.leaving.contains_key(*domain);
        let gone: Vec<Domain> = self.followers.keys().filter(gone).cloned().collect();
        for domain in gone {
            self.leave(domain, end.seq);
        }
    }

    /// All that wait for something new get it.
    pub(super) fn ship_idle(&mut self, cx: &Context<'_>) {
        for domain in std::mem::take(&mut self.idle) {
            self.ship(cx, &domain, false);
        }
    }

    /// A domain's time has come again.
    pub(super) fn ship_again(&mut self, cx: &Context<'_>, domain: &Domain) {
        if let Some(follower) = self.followers.get_mut(domain) {
            follower.silent = false;
        }
        self.ship(cx, domain, true);
    }

    /// Ships what the follower lacks, if it can take something now.
    pub(super) fn ship(&mut self, cx: &Context<'_>, domain: &Domain, even_if_empty: bool) {
        if self.timers.is_set(&Timer::Ship(domain.clone())) {
            return;
        }
        let (end, first, marks) = (self.history.end(), self.first(), self.marks.all());
        let stable = self.core.stable;
        let Some(follower) = self.followers.get_mut(domain) else { return };
        if follower.in_flight || follower.silent {
            return;
        }
        let news = follower.told_stable < stable || follower.told_marks != marks;
        if follower.taken.seq == first.seq {
            follower.taken = first;
        }
        let behind = follower.taken.seq < end.seq;
        if !behind && !news && !even_if_empty && !follower.probe {
            self.idle.insert(domain.clone());
            return;
        }
        follower.in_flight = true;
        follower.probe = false;
        follower.told_marks = marks;
        let after = follower.taken;
        let flight = Flight::Batch { to: domain.clone(), after, stable };
        if !behind || after.seq < first.seq {
            let after = if behind { first } else { after };
            let head = self.end_head(cx);
            let batch = self.empty_batch(after, head, marks);
            self.send(domain.clone(), Request::Batch(batch), flight);
        } else {
            // Below memory the place itself is read too, for its hash.
            let known = after.seq >= self.history.base().seq || after == first;
            let ticket = self.fly(flight);
            let after = if known { after.seq } else { after.seq.saturating_sub(1) };
            self.effects.push(Effect::Read { ticket, after });
        }
    }

    /// Of the end: signed now if the last entry is of this hub's term, or this hub has added nothing yet.
    fn end_head(&mut self, cx: &Context<'_>) -> pb::SignedGroupHead {
        let end = self.history.end();
        self.sign_head(cx, end)
    }

    fn empty_batch(&self, after: At, head: pb::SignedGroupHead, marks: (u64, u64)) -> pb::GroupBatch {
        pb::GroupBatch {
            group: self.group.to_bytes(),
            after: Some(after.to_pb()),
            records: Vec::new(),
            head: Some(head),
            all_delivered: marks.0,
            all_read: marks.1,
        }
    }

    /// The rows that were asked for with [`Effect::Read`]: they become a batch.
    pub fn rows(&mut self, cx: &Context<'_>, ticket: u64, rows: &[Row]) {
        let Some(Flight::Batch { to, after, stable }) = self.flights.get(&ticket) else { return };
        let (to, mut after, stable) = (to.clone(), *after, *stable);
        let mut rows = rows;
        if let Some((anchor, rest)) = rows.split_first()
            && anchor.seq == after.seq
            && let Some(slot) = stored::read_slot(&anchor.slot)
        {
            (after, rows) = (slot.at, rest);
        }
        let follows = rows.first().is_some_and(|row| Some(row.seq) == after.seq.checked_add(1));
        let held = rows.last().is_some_and(|row| self.is_current(row));
        let (head, count) = match self.cut_at_head(cx, rows) {
            Some(cut) if follows && held && self.followers.contains_key(&to) => cut,
            _ => {
                // Cut meanwhile, or no head is at hand: an empty batch asks the follower where it is.
                let end = self.history.end();
                let head = self.end_head(cx);
                let batch = self.empty_batch(end, head, self.marks.all());
                self.effects.push(Effect::Send { ticket, to, request: Request::Batch(batch) });
                return;
            }
        };
        let records =
            rows.iter().take(count).filter_map(|row| prost::Message::decode(row.record.clone()).ok());
        let records: Vec<pb::GroupRecord> = records.collect();
        let mut batch = self.empty_batch(after, head, self.marks.all());
        batch.records = records;
        // A head says no more of stable than its own place.
        let last = count.checked_sub(1).and_then(|last| rows.get(last)).map_or(0, |row| row.seq);
        self.flights.insert(ticket, Flight::Batch { to: to.clone(), after, stable: stable.min(last) });
        self.effects.push(Effect::Send { ticket, to, request: Request::Batch(batch) });
    }

    /// Whether a row read from the store is still of this history.
    fn is_current(&self, row: &Row) -> bool {
        let slot = stored::read_slot(&row.slot);
        slot.is_some_and(|slot| self.history.holds(slot.at).unwrap_or(true))
    }

    /// The last of these rows that can carry a signed head: one of this hub's term, or one that has it stored.
    pub(super) fn cut_at_head(
        &mut self,
        cx: &Context<'_>,
        rows: &[Row],
    ) -> Option<(pb::SignedGroupHead, usize)> {
        let term = self.signing_term(cx);
        let fits = fitting(cx, rows);
        let mut later = None;
        for (index, row) in rows.iter().enumerate().rev() {
            let slot = stored::read_slot(&row.slot)?;
            let count = index.saturating_add(1);
            if Some(slot.at.term) == term {
                if count <= fits {
                    return Some((self.sign_head(cx, slot.at), count));
                }
                continue;
            }
            let kept = self.history.slot(slot.at.seq).and_then(|slot| slot.head.clone());
            if let Some(head) = kept.or(slot.head) {
                if count <= fits {
                    return Some((head, count));
                }
                later = Some((head, count));
            }
        }
        later
    }

    /// The term whose entries this home signs: as hub, or as the one that handed over in its last entry.
    pub(super) fn signing_term(&self, cx: &Context<'_>) -> Option<u64> {
        if self.core.recovering {
            None
        } else if *self.state().hub() == cx.own.signer.server {
            Some(self.state().term())
        } else {
            self.handed_over(cx).then(|| self.history.end().term)
        }
    }

    /// The last entry is the transfer by which this home gave the hub away.
    pub(super) fn handed_over(&self, cx: &Context<'_>) -> bool {
        let end = self.history.end().seq;
        let transfer = self.history.slot(end).is_some_and(
            |slot| matches!(&slot.kind, SlotKind::Link { start: Some(start), .. } if !start.succession),
        );
        let before = self.history.state_at(end.saturating_sub(1));
        transfer && before.is_some_and(|state| *state.hub() == cx.own.signer.server)
    }

    /// A follower's answer to a batch.
    pub(super) fn taken(&mut self, cx: &Context<'_>, to: &Domain, sent: (At, u64), taken: &pb::GroupTaken) {
        let at = At::parse(taken.taken.as_ref()).unwrap_or(At::START);
        let held = self.history.holds(at);
        let ahead = self.signing_term(cx) == Some(at.term) && at.seq > self.history.end().seq;
        if ahead || at.term > self.state().term() {
            // A place of this hub's own term that it does not know: it may have lost state. Or a later term. What is
            // fetched tells.
            self.fetch_from(to.clone(), false);
        }
        // Of a place that is not in memory the number counts; the store has its hash.
        let seq = self.history.common_seq(at.term, at.seq.min(self.history.end().seq));
        let common = match held {
            Some(true) => at,
            Some(false) if seq == at.seq => self.known_place(seq.saturating_sub(1), at),
            _ => self.known_place(seq, at),
        };
        let Some(follower) = self.followers.get_mut(to) else { return };
        follower.in_flight = false;
        let stuck = follower.taken == common && common.seq < self.history.end().seq && sent.0 == common;
        follower.taken = common;
        self.marks_caught_up(cx.now_ms, cx.limits.marks_ms);
        let Some(follower) = self.followers.get_mut(to) else { return };
        if taken.refused.is_none() {
            follower.told_stable = sent.1;
            follower.delay_ms = 0;
            if held == Some(true) {
                follower.counted = at.seq;
            }
        }
        if self.leaving.get(to).is_some_and(|seq| taken.gone || common.seq >= *seq) {
            self.forget(to);
            return;
        }
        if taken.gone && common.seq == self.history.end().seq {
            // It does not see a member of its own in all there is: it asks when it does.
            return self.silence(cx, to);
        }
        if let Some(failure) = &taken.refused {
            self.batch_refused(cx, to, Code(failure.code), !taken.fence.is_empty());
        } else if stuck {
            self.not_taken(cx, to);
        } else {
            if self.state().keepers().iter().any(|keeper| keeper.domain == *to) {
                self.count_stable(cx);
            }
            self.handed_on(cx, to);
        }
    }

    fn known_place(&self, seq: u64, like: At) -> At {
        self.history.at(seq).unwrap_or(At { seq, ..like })
    }

    /// After a transfer: shipping ends for whoever has its link.
    fn handed_on(&mut self, cx: &Context<'_>, to: &Domain) {
        let end = self.history.end();
        let done = self.followers.get(to).is_some_and(|follower| follower.taken == end);
        if *self.state().hub() != cx.own.signer.server && done {
            self.forget(to);
        } else {
            self.ship(cx, to, false);
        }
    }

    fn forget(&mut self, domain: &Domain) {
        self.followers.remove(domain);
        self.idle.remove(domain);
        self.timers.clear(&Timer::Ship(domain.clone()));
        if self.leaving.remove(domain).is_some() {
            self.write(Write::Delete { key: stored::leaving_key(domain) });
        }
    }

    fn batch_refused(&mut self, cx: &Context<'_>, to: &Domain, code: Code, proof: bool) {
        self.not_taken(cx, to);
        let keeper = self.state().keepers().iter().any(|keeper| keeper.domain == *to);
        match code {
            Code::GROUP_FENCED if proof => self.fetch_from(to.clone(), false),
            Code::GROUP_FENCED if keeper && self.role(cx) == Role::Hub => self.renew(cx),
            _ => {}
        }
    }

    /// A batch did not come through: later again.
    pub(super) fn not_taken(&mut self, cx: &Context<'_>, to: &Domain) {
        let (first, most) = (cx.limits.retry_ms, cx.limits.retry_ms_max);
        let Some(follower) = self.followers.get_mut(to) else { return };
        follower.in_flight = false;
        follower.delay_ms = follower.delay_ms.saturating_mul(2).clamp(first, most);
        let at = cx.now_ms.saturating_add(follower.delay_ms);
        self.timers.set(Timer::Ship(to.clone()), at);
    }

    /// The domain has no such group: nothing is shipped until it fetches, or for long.
    pub(super) fn silence(&mut self, cx: &Context<'_>, to: &Domain) {
        if self.leaving.contains_key(to) {
            self.forget(to);
        } else if let Some(follower) = self.followers.get_mut(to) {
            follower.in_flight = false;
            follower.silent = true;
            let at = cx.now_ms.saturating_add(cx.limits.retry_ms_max);
            self.timers.set(Timer::Ship(to.clone()), at);
        }
    }

    /// A domain fetched the group up to here: it is shipped to from there.
    pub(super) fn fetched(&mut self, cx: &Context<'_>, domain: &Domain, at: At) {
        if let Some(follower) = self.followers.get_mut(domain)
            && follower.silent
        {
            follower.silent = false;
            follower.taken = at;
            self.timers.clear(&Timer::Ship(domain.clone()));
            self.ship(cx, domain, true);
        }
    }

    /// Counts anew what a majority of the keepers holds.
    pub(super) fn count_stable(&mut self, cx: &Context<'_>) {
        if self.signing_term(cx).is_none() {
            return;
        }
        let durable = self.durable(cx);
        if durable >= self.history.succession() && self.raise_stable(cx, durable) {
            self.effects.push(Effect::Wake);
            self.timers.set_once(Timer::Spread, cx.now_ms.saturating_add(cx.limits.marks_ms));
            self.push_posts(cx);
        }
    }

    /// The highest number that no election can go behind: across changes of the keepers, each set has to hold all
    /// up to the link that replaced it.
    fn durable(&self, cx: &Context<'_>) -> u64 {
        let stable = self.core.stable;
        let Some(state) = self.history.state_at(stable) else { return stable };
        let mut keepers = state.keepers();
        let mut reached = stable;
        for (seq, state) in self.history.states_after(stable) {
            if state.keepers() == keepers {
                continue;
            }
            let held = self.held_by_majority(cx, keepers);
            if held < *seq {
                return reached.max(held);
            }
            reached = *seq;
            keepers = state.keepers();
        }
        reached.max(self.held_by_majority(cx, keepers))
    }

    fn held_by_majority(&self, cx: &Context<'_>, keepers: &[ServerRef]) -> u64 {
        let end = self.history.end().seq;
        let held = |keeper: &ServerRef| {
            if keeper == &cx.own.signer.server {
                end
            } else {
                self.followers.get(&keeper.domain).map_or(0, |follower| follower.counted)
            }
        };
        let mut held: Vec<u64> = keepers.iter().map(held).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        let majority = if cx.is(Broken::StableAtOnce) { 0 } else { held.len() / 2 };
        held.get(majority).copied().unwrap_or_default()
    }

    /// New stable marks and marks of members go to whoever is idle.
    pub(super) fn spread(&mut self, cx: &Context<'_>) {
        self.ship_idle(cx);
    }
}

/// How many of these rows the hub of a term puts under one head: fewer than are read at once, so that whoever goes on
/// from in between finds that head in what it reads.
fn fitting(cx: &Context<'_>, rows: &[Row]) -> usize {
    let mut bytes = 0_usize;
    let fits = |row: &&Row| {
        bytes = bytes.saturating_add(row.record.len());
        bytes <= cx.limits.batch_bytes
    };
    rows.iter().take(cx.limits.batch_records).take_while(fits).count().max(1)
}

impl Follower {
    /// It is there again, perhaps with less than it had.
    pub(super) const fn is_back(&mut self) {
        self.delay_ms = 0;
        self.probe = true;
    }
}
