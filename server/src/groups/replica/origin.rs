//! Posts of this home's devices: taken in, offered to the hub, offered again (chapter 07, origin).
//!
//! Accepted means stored in the queue of [`super::pending`], which says when a post leaves it. One offer is in
//! flight at a time. What the hub answers is not proof: only the own copy of the log is.

use prost::Message as _;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::pb;

use super::effect::{Effect, Request, Write};
use super::follower::check_post;
use super::history::DeviceKey;
use super::timers::Timer;
use super::{Broken, Context, Flight, Replica, Role, stored};

impl Replica {
    /// A post of a device of this home, complete. `Ok` and committed: accepted; its device is told if it is
    /// refused later, and else it will be in the log.
    ///
    /// # Errors
    /// `not-a-member`, `rank-too-low`, `stale-head`, `number-gap`, `group-busy`: nothing has changed.
    pub fn post(&mut self, cx: &Context<'_>, post: pb::GroupPost) -> Result<(), Refusal> {
        let key = check_post(cx, self.state(), &post)?;
        let member = self.state().full_member(&key.0);
        if member.is_none_or(|member| member.domain != *cx.domain()) {
            return Err(Code::NOT_A_MEMBER.into());
        }
        if let Some(same) = self.pending.is_same(&key, &post) {
            return if same { Ok(()) } else { Err(Code::NUMBER_GAP.into()) };
        }
        let last = self.history.last_number(&key).max(self.pending.last_number(&key));
        if last.checked_add(1) != Some(post.number) {
            return Err(Code::NUMBER_GAP.into());
        }
        if self.pending.of_account(&key.0) >= cx.limits.pending_posts {
            return Err(Code::GROUP_BUSY.into());
        }
        let ordinal = self.pending.next_ordinal();
        self.put(stored::pending_key(ordinal), post.encode_to_vec().into());
        self.pending.insert(ordinal, key, post);
        self.push_posts(cx);
        Ok(())
    }

    /// Brings waiting posts on: sequenced here, or offered.
    pub(super) fn push_posts(&mut self, cx: &Context<'_>) {
        match self.role(cx) {
            Role::Hub => self.sequence_waiting(cx),
            Role::Follower if !self.core.recovering => self.offer_waiting(cx),
            _ => {}
        }
    }

    fn offer_waiting(&mut self, cx: &Context<'_>) {
        let term = self.state().term();
        if self.offered_term != term {
            // An offer to a hub of before may wait long for its answer; the hub of now is not kept waiting by it.
            (self.offered_term, self.offering, self.offer_delay_ms) = (term, false, 0);
            self.timers.clear(&Timer::Offer);
        }
        if self.offering || self.timers.is_set(&Timer::Offer) || !self.pending.has_waiting() {
            return;
        }
        let waiting = self.pending.waiting(cx.limits.offer_posts);
        let ordinals = waiting.iter().map(|one| (one.ordinal, one.key, one.post.number)).collect();
        let posts = waiting.into_iter().map(|one| one.post).collect();
        let offer = pb::GroupOffer { group: self.group.to_bytes(), term, posts };
        let hub = self.state().hub().domain.clone();
        self.offering = true;
        self.send(hub, Request::Offer(offer), Flight::Offer { ordinals, term });
    }

    pub(super) fn placed(
        &mut self,
        cx: &Context<'_>,
        ordinals: &[(u64, DeviceKey, u64)],
        placed: &pb::GroupPlaced,
    ) {
        self.offering = false;
        self.offer_delay_ms = 0;
        self.hub_heard();
        for ((ordinal, key, number), result) in ordinals.iter().zip(&placed.results) {
            match &result.result {
                Some(pb::placed_post::Result::Place(_)) => self.pending.sent(*ordinal),
                Some(pb::placed_post::Result::Refused(failure)) => {
                    let refusal = Refusal::from_pb(failure);
                    if is_later(refusal.code) {
                        self.offer_later(cx);
                        return;
                    }
                    self.refuse_posts(cx, key, *number, &refusal);
                }
                None => return self.offer_later(cx),
            }
        }
        self.push_posts(cx);
    }

    /// This post and all later ones of its device leave, and the device is told, once.
    pub(super) fn refuse_posts(&mut self, cx: &Context<'_>, key: &DeviceKey, number: u64, why: &Refusal) {
        let dropped = self.pending.drop_from(key, number);
        if dropped.is_empty() {
            return;
        }
        for ordinal in dropped {
            self.write(Write::Delete { key: stored::pending_key(ordinal) });
        }
        let notice = pb::GroupNotice {
            group: self.group.to_bytes(),
            number,
            at_ms: cx.now_ms,
            what: Some(pb::group_notice::What::Refused(why.to_pb())),
        };
        self.write(Write::Notice { account: key.0, device: key.1, notice });
        self.effects.push(Effect::Wake);
    }

    /// The hub cannot take posts now.
    pub(super) fn offer_later(&mut self, cx: &Context<'_>) {
        self.offering = false;
        let (first, most) = (cx.limits.retry_ms, cx.limits.retry_ms_max);
        self.offer_delay_ms = self.offer_delay_ms.saturating_mul(2).clamp(first, most);
        self.timers.set(Timer::Offer, cx.now_ms.saturating_add(self.offer_delay_ms));
    }

    /// As hub: own posts go straight into the log.
    fn sequence_waiting(&mut self, cx: &Context<'_>) {
        while self.role(cx) == Role::Hub {
            let Some(one) = self.pending.waiting(1).pop() else { break };
            match self.sequence(cx, cx.domain(), &one.post) {
                Ok(_) => self.pending.sent(one.ordinal),
                Err(refusal) if is_later(refusal.code) => {
                    self.offer_later(cx);
                    break;
                }
                Err(refusal) => self.refuse_posts(cx, &one.key, one.post.number, &refusal),
            }
        }
        if cx.is(Broken::DropsAtPlacement) {
            self.settle(cx);
        }
    }
}

/// Refusals that are of the moment: the post stays.
fn is_later(code: Code) -> bool {
    [
        Code::GROUP_FENCED,
        Code::GROUP_NOT_READY,
        Code::GROUP_BUSY,
        Code::HUB_UNREACHABLE,
        Code::EVIDENCE_MISSING,
        Code::NO_SUCH_GROUP,
    ]
    .contains(&code)
}
