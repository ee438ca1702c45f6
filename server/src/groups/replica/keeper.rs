//! What a keeper answers: what it holds, and whether it votes (chapter 07, succession).
//!
//! | asked for a vote in term t from p by c | answer |
//! |---|---|
//! | restored and not yet told by the others | group-not-ready |
//! | this very vote was given before | the same vote |
//! | t is not above the term held and the term voted in | vote-refused |
//! | p is shorter than what is held, or of another history | vote-refused |
//! | p is of a later term than the one held | group-not-ready; fetches from c what it lacks |
//! | c is not the hub, and the hub is not out of reach from here | vote-refused |
//! | else | stores (t, c, p), then votes |
//!
//! A stored vote fences: nothing of a lower term is taken afterwards.

use tidings_proto::chain::group::ServerRef;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{GroupHead, Proposal};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::history::{At, rank};
use super::timers::Timer;
use super::{Broken, Context, Replica};

impl Replica {
    /// What this home holds: for keepers, and for a hub that lost state.
    pub fn ask(&mut self, cx: &Context<'_>) -> pb::KeeperState {
        pb::KeeperState {
            group: self.group.to_bytes(),
            held: Some(self.history.end().to_pb()),
            stable: self.core.stable,
            voted: self.core.voted.term,
            head: self.signed_head(cx),
        }
    }

    /// A keeper is asked for its vote. It may leave once this call's writes are committed.
    ///
    /// # Errors
    /// `vote-refused`, `group-not-ready`.
    pub fn propose(
        &mut self,
        cx: &Context<'_>,
        from: &Domain,
        asked: &pb::KeeperPropose,
    ) -> Result<pb::KeeperVoted, Refusal> {
        let proposal = Proposal::parse(&asked.body);
        let proposal = proposal.map_err(|error| Refusal::new(Code::VOTE_REFUSED, error.to_string()))?;
        if proposal.group != self.group || proposal.hub.domain != *from || !self.is_keeper(cx) {
            return Err(Refusal::new(Code::VOTE_REFUSED, "not a keeper's to vote on"));
        }
        if self.core.recovering {
            return Err(Code::GROUP_NOT_READY.into());
        }
        let proof = asked.head.as_ref().and_then(|head| GroupHead::verify(head, cx.evidence).ok());
        let proven = proof.is_some_and(|head| {
            head.group == self.group && head.position == proposal.from && self.may_sign(&head)
        });
        if !proven {
            return Err(Refusal::new(Code::VOTE_REFUSED, "no hub signed the place"));
        }
        let voted = &self.core.voted;
        let same = voted.term == proposal.term
            && voted.vote.as_ref() == Some(&(proposal.hub.clone(), proposal.from));
        if !same {
            self.may_vote(cx, from, &proposal)?;
            self.store_vote(proposal.term, proposal.hub.clone(), proposal.from);
        }
        let vote = proposal.vote(cx.own.signer.clone()).sign(&cx.own.key);
        Ok(pb::KeeperVoted { vote: Some(vote), evidence: vec![cx.own.chain.clone()] })
    }

    /// Whether the head is by the hub of its place, as far as that is known: of a later term it is not.
    fn may_sign(&self, head: &GroupHead) -> bool {
        let state = self.state();
        let end = self.history.end().seq;
        let before = self.history.state_at(end.saturating_sub(1)).unwrap_or(state);
        if head.position.term > state.term() {
            true
        } else if head.position.term == state.term() {
            head.hub.server == *state.hub()
        } else {
            head.hub.server == *before.hub() || self.history.holds(head.position) == Some(true)
        }
    }

    pub(super) fn store_vote(&mut self, term: u64, hub: ServerRef, from: At) {
        self.core.voted.term = term;
        self.core.voted.vote = Some((hub, from));
        self.core_changed = true;
    }

    fn may_vote(&mut self, cx: &Context<'_>, from: &Domain, proposal: &Proposal) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::new(Code::VOTE_REFUSED, why));
        if proposal.term <= self.state().term() {
            return refuse("the term is not a later one");
        }
        if proposal.term <= self.core.voted.term && !cx.is(Broken::VotesTwice) {
            return refuse("voted in that term or a later one");
        }
        if !cx.is(Broken::VotesForLess) {
            if rank(&proposal.from) < self.held_rank() {
                return refuse("more is held here");
            }
            if proposal.from.term > self.state().term() {
                self.fetch_from(from.clone(), false);
                return Err(Code::GROUP_NOT_READY.into());
            }
            let end = self.history.end();
            if proposal.from.seq == end.seq && proposal.from.term == end.term && proposal.from != end {
                return refuse("another history");
            }
        }
        if proposal.hub != *self.state().hub() && !self.finds_hub_lost(cx, 2) {
            return refuse("the hub is within reach");
        }
        Ok(())
    }

    /// Whether the hub has been out of reach for the stated time, or a part of it.
    pub(super) fn finds_hub_lost(&self, cx: &Context<'_>, part: u64) -> bool {
        let lost_ms = cx.limits.hub_lost_ms.checked_div(part).unwrap_or_default();
        let lost = |since: u64| cx.now_ms.saturating_sub(since) >= lost_ms;
        *self.state().hub() != cx.own.signer.server && self.hub_down_since_ms.is_some_and(lost)
    }

    /// The shell has no way to a domain: no proven connection, while dialling.
    pub fn unreachable(&mut self, cx: &Context<'_>, domain: &Domain) {
        if self.state().hub().domain == *domain {
            self.hub_down(cx);
        }
    }

    pub(super) fn hub_down(&mut self, cx: &Context<'_>) {
        if *self.state().hub() == cx.own.signer.server {
            return;
        }
        let since = *self.hub_down_since_ms.get_or_insert(cx.now_ms);
        if self.is_keeper(cx) && self.campaign.is_none() {
            let half = cx.limits.hub_lost_ms / 2;
            let wait = cx.limits.hub_lost_ms.saturating_add(half.saturating_mul(self.keeper_index(cx)));
            self.timers.set_once(Timer::HubLost, since.saturating_add(wait).max(cx.now_ms));
        }
    }

    pub(super) fn keeper_index(&self, cx: &Context<'_>) -> u64 {
        let own = &cx.own.signer.server;
        let index = self.state().keepers().iter().position(|keeper| keeper == own);
        u64::try_from(index.unwrap_or_default()).unwrap_or_default()
    }

    /// A domain is there again: what waits for it is due.
    pub fn reachable(&mut self, cx: &Context<'_>, domain: &Domain) {
        if self.state().hub().domain == *domain {
            self.hub_heard();
            if self.timers.clear(&Timer::Offer) {
                self.offer_delay_ms = 0;
                self.push_posts(cx);
            }
        }
        self.timers.clear(&Timer::Ship(domain.clone()));
        if let Some(follower) = self.followers.get_mut(domain) {
            // It may have been restored: an empty batch asks where it is.
            follower.is_back();
            self.ship_again(cx, domain);
        }
    }
}
