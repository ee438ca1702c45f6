//! Succession: how a keeper, or a hub whose term is over or whose state was lost, begins a term (chapter 07).
//!
//! | state \ event | a keeper's state | page | vote | time is up | a later term is taken | the hub speaks |
//! |---|---|---|---|---|---|---|
//! | asking | majority told: fetching, or proposing | - | - | restored: on with what was told, if it is enough; else asks again | ends | keeper: ends |
//! | fetching | - | all there: proposing | - | asks again | ends | keeper: ends |
//! | proposing | - | - | majority: begins the term | asks again | ends | keeper: ends |
//!
//! 1. Ask all keepers what they hold and voted; a restored hub asks the homes of all members too.
//! 2. When a majority (this home counted, unless it was restored) has told: take the longest held.
//! 3. Fetch what is missing, from whoever holds it, from `stable` on.
//! 4. Propose the highest term known and one, from the end of the log; collect votes; the own vote is stored last.
//! 5. With a majority: the succession link is the first entry of the new term.
//!
//! A restored keeper takes part in 1 and 2 only, and then stands as if it had voted in a term beyond all votes that
//! it may have lost.

use std::collections::{BTreeMap, BTreeSet};

use tidings_proto::chain::group::{GroupChange, ServerRef};
use tidings_proto::group_log::{GroupHead, Proposal, Vote};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::effect::Request;
use super::history::{At, rank};
use super::timers::Timer;
use super::{Context, Flight, Replica};

#[derive(Debug, Clone)]
struct Told {
    held: At,
    voted: u64,
}

#[derive(Debug)]
enum Phase {
    Asking,
    Fetching,
    Proposing { proposal: Proposal, votes: BTreeMap<Domain, pb::KeeperVoted> },
}

/// A try to begin a term.
#[derive(Debug)]
pub struct Campaign {
    phase: Phase,
    keepers: Vec<ServerRef>,
    asked: BTreeSet<Domain>,
    told: BTreeMap<Domain, Told>,
    hub: bool,
}

impl Replica {
    pub(super) fn end_campaign(&mut self) {
        self.campaign = None;
        self.timers.clear(&Timer::Campaign);
    }

    /// A hub whose keepers are bound to a later term goes on in a later one itself.
    pub(super) fn renew(&mut self, cx: &Context<'_>) {
        let wait = cx.limits.hub_lost_ms / 2;
        if self.campaign.is_none() && cx.now_ms >= self.renewed_at_ms.saturating_add(wait) {
            self.renewed_at_ms = cx.now_ms;
            self.campaign_begins(cx);
        }
    }

    /// Asks all keepers.
    pub(super) fn campaign_begins(&mut self, cx: &Context<'_>) {
        let own = cx.domain().clone();
        let state = self.state();
        let keepers = state.keepers().to_vec();
        let hub = *state.hub() == cx.own.signer.server;
        let mut asked: BTreeSet<Domain> = keepers.iter().map(|keeper| keeper.domain.clone()).collect();
        if self.core.recovering && hub {
            asked.extend(state.domains().into_iter().cloned());
        }
        asked.remove(&own);
        for domain in &asked {
            let ask = pb::KeeperAsk { group: self.group.to_bytes() };
            self.send(domain.clone(), Request::Ask(ask), Flight::Ask { of: domain.clone() });
        }
        self.campaign = Some(Campaign { phase: Phase::Asking, keepers, asked, told: BTreeMap::new(), hub });
        let half = cx.limits.hub_lost_ms / 2;
        let wait = half.saturating_mul(self.keeper_index(cx).saturating_add(1));
        self.timers.set(Timer::Campaign, cx.now_ms.saturating_add(wait.max(half)));
        self.weigh(cx, false);
    }

    /// Time is up.
    pub(super) fn campaign_timer(&mut self, cx: &Context<'_>) {
        if let Some(campaign) = &self.campaign
            && self.core.recovering
            && matches!(campaign.phase, Phase::Asking)
            && self.enough(cx)
        {
            return self.weigh(cx, true);
        }
        let hub = *self.state().hub() == cx.own.signer.server;
        self.end_campaign();
        if self.core.recovering || (!hub && self.is_keeper(cx) && self.hub_down_since_ms.is_some()) {
            self.campaign_begins(cx);
        }
        self.push_posts(cx);
        let waiting: Vec<Domain> = self.followers.keys().cloned().collect();
        for domain in waiting {
            self.ship(cx, &domain, false);
        }
    }

    /// A keeper or member home told what it holds.
    pub(super) fn keeper_told(&mut self, cx: &Context<'_>, of: &Domain, state: Option<&pb::KeeperState>) {
        let told = state.and_then(|state| {
            let held = At::parse(state.held.as_ref()).ok()?;
            let proven = GroupHead::verify(state.head.as_ref()?, cx.evidence).ok()?;
            let held =
                if proven.position == held && proven.group == self.group { held } else { return None };
            Some(Told { held, voted: state.voted })
        });
        let Some(campaign) = &mut self.campaign else { return };
        campaign.asked.remove(of);
        if let Some(told) = told {
            campaign.told.insert(of.clone(), told);
        }
        self.weigh(cx, false);
    }

    /// Whether enough keepers told. A restored one does not count itself: what it held is lost.
    fn enough(&self, cx: &Context<'_>) -> bool {
        let Some(campaign) = &self.campaign else { return false };
        let own = &cx.own.signer.server;
        let told =
            campaign.keepers.iter().filter(|keeper| campaign.told.contains_key(&keeper.domain)).count();
        let keeper = campaign.keepers.contains(own);
        let all = campaign.keepers.len();
        match (self.core.recovering, keeper) {
            (true, true) if all == 1 => true,
            (true, true) => told > all.saturating_sub(1) / 2,
            (_, false) => told > all / 2,
            (false, true) => told.saturating_add(1) > all / 2,
        }
    }

    fn weigh(&mut self, cx: &Context<'_>, time_is_up: bool) {
        let Some(campaign) = &self.campaign else { return };
        if !matches!(campaign.phase, Phase::Asking) || !self.enough(cx) {
            return;
        }
        if self.core.recovering && campaign.hub && !campaign.asked.is_empty() && !time_is_up {
            return;
        }
        let best = campaign.told.iter().max_by_key(|(_, told)| rank(&told.held));
        let best = best.map(|(domain, told)| (domain.clone(), told.held));
        let voted = campaign.told.values().map(|told| told.voted).max().unwrap_or_default();
        if self.core.recovering {
            self.recovered_votes(cx, voted, best.as_ref().map(|(_, held)| *held));
        }
        match best {
            Some((domain, held)) if rank(&held) > rank(&self.history.end()) => {
                if let Some(campaign) = &mut self.campaign {
                    campaign.phase = Phase::Fetching;
                }
                self.fetch_from(domain, true);
            }
            _ if self.core.recovering && *self.state().hub() != cx.own.signer.server => self.recovered(cx),
            _ => self.ask_votes(cx, voted),
        }
    }

    /// The others told: whatever this keeper promised before it lost its state is below this.
    fn recovered_votes(&mut self, cx: &Context<'_>, told: u64, held: Option<At>) {
        let known = told.max(self.core.voted.term).max(self.state().term());
        if self.is_keeper(cx) {
            if !std::mem::replace(&mut self.votes_ruled_out, true) {
                self.core.voted.term = known.saturating_add(cx.limits.lost_votes);
                self.core.voted.vote = None;
            }
            self.core.voted.floor = held;
        }
        self.core_changed = true;
    }

    /// What was lost is here again; another one is the hub.
    fn recovered(&mut self, cx: &Context<'_>) {
        self.core.recovering = false;
        self.core.incarnation = cx.own.incarnation;
        self.core_changed = true;
        self.end_campaign();
        self.push_posts(cx);
    }

    /// Fetches the log from `stable` on: below it histories do not differ.
    pub(super) fn fetch_from(&mut self, domain: Domain, campaign: bool) {
        let flying =
            |flight: &Flight| matches!(flight, Flight::Fetch { campaign: other, .. } if *other == campaign);
        if self.flights.values().any(flying) {
            return;
        }
        self.fetch_after(domain, self.core.stable.max(self.history.base().seq), campaign);
    }

    pub(super) fn fetch_after(&mut self, domain: Domain, after_seq: u64, campaign: bool) {
        let fetch = pb::GroupFetch { group: self.group.to_bytes(), after_seq, ..Default::default() };
        let flight = Flight::Fetch { from: domain.clone(), campaign };
        self.send(domain, Request::Fetch(fetch), flight);
    }

    /// What was missing is here.
    pub(super) fn campaign_fetched(&mut self, cx: &Context<'_>) {
        let hub = *self.state().hub() == cx.own.signer.server;
        let Some(campaign) = &self.campaign else { return };
        if !matches!(campaign.phase, Phase::Fetching) {
            return;
        }
        if self.core.recovering && !hub {
            return self.recovered(cx);
        }
        if campaign.keepers != self.state().keepers() {
            return self.campaign_begins(cx);
        }
        let voted = campaign.told.values().map(|told| told.voted).max().unwrap_or_default();
        self.ask_votes(cx, voted);
    }

    fn ask_votes(&mut self, cx: &Context<'_>, voted: u64) {
        let term = voted.max(self.core.voted.term).max(self.state().term()).saturating_add(1);
        let (group, from, hub) = (self.group, self.history.end(), cx.own.signer.server.clone());
        let proposal = Proposal { group, term, from, hub };
        let head = self.signed_head(cx);
        let Some(campaign) = &mut self.campaign else { return };
        let body = proposal.encode();
        let keepers = campaign.keepers.clone();
        campaign.phase = Phase::Proposing { proposal, votes: BTreeMap::new() };
        for keeper in keepers {
            if keeper != cx.own.signer.server {
                let propose = pb::KeeperPropose { body: body.clone(), head: head.clone() };
                let flight = Flight::Propose { of: keeper.domain.clone() };
                self.send(keeper.domain, Request::Propose(propose), flight);
            }
        }
        self.count_votes(cx);
    }

    /// A keeper voted.
    pub(super) fn keeper_voted(&mut self, cx: &Context<'_>, of: &Domain, voted: &pb::KeeperVoted) {
        let Some(signed) = &voted.vote else { return };
        let Ok(vote) = Vote::verify(signed, cx.evidence) else { return };
        let Some(campaign) = &mut self.campaign else { return };
        let Phase::Proposing { proposal, votes } = &mut campaign.phase else { return };
        let keeper = campaign.keepers.contains(&vote.keeper.server) && vote.keeper.server.domain == *of;
        if keeper && vote.proposal() == *proposal {
            votes.insert(of.clone(), voted.clone());
            self.count_votes(cx);
        }
    }

    fn count_votes(&mut self, cx: &Context<'_>) {
        let Some(Campaign { phase: Phase::Proposing { proposal, votes }, keepers, .. }) = &self.campaign
        else {
            return;
        };
        let keeper = keepers.contains(&cx.own.signer.server);
        if votes.len().saturating_add(usize::from(keeper)) <= keepers.len() / 2 {
            return;
        }
        let (proposal, votes) = (proposal.clone(), votes.clone());
        if self.history.end() != proposal.from || proposal.term <= self.core.voted.term {
            // The log went on meanwhile, or this keeper voted for another: from the beginning, when time is up.
            return;
        }
        let mut evidence: Vec<pb::Evidence> = votes.values().flat_map(|one| one.evidence.clone()).collect();
        let mut votes: Vec<pb::SignedVote> = votes.into_values().filter_map(|one| one.vote).collect();
        let (term, from) = (proposal.term, proposal.from);
        if keeper {
            self.store_vote(term, proposal.hub.clone(), from);
            votes.push(proposal.vote(cx.own.signer.clone()).sign(&cx.own.key));
        }
        evidence.dedup();
        let hub = cx.own.signer.clone();
        let change = GroupChange::HubSuccession { term, from, hub, votes };
        let link = self.state().link(None, &change, &[&cx.own.key]);
        // A link that does not stand costs this try, no more: the vote is given all the same.
        let _refused = self.begin_term(cx, link, evidence).err();
    }
}
