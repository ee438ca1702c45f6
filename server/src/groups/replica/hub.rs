//! Sequencing: what a hub does with posts and links (chapter 07).
//!
//! What is sequenced is appended, signed and written in one call; [`super::ship`] brings it to the other homes.
//!
//! What this module does not do: decide who is hub.

use tidings_proto::chain::LinkError;
use tidings_proto::chain::group::{GroupChange, GroupLinkError, GroupState, ServerRef};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::group_log::{link_entry, message_entry};
use tidings_proto::id::LinkId;
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, Signature};

use super::effect::Effect;
use super::follower::check_post;
use super::history::{At, Slot, SlotKind};
use super::{Context, Replica, Role, refusal_of, term_start};

/// What came of a link.
#[derive(Debug, Clone, PartialEq)]
pub enum Appended {
    /// It stands in the log.
    Done(pb::GroupAppended),
    /// Another server has to see it first; its answer is the answer.
    Forward {
        /// Whom to ask.
        to: ServerRef,
        /// The request.
        request: Box<pb::GroupAppend>,
    },
    /// It does not stand.
    Refused(Refusal),
}

impl Replica {
    /// Posts that a member's home offers. What is answered as placed is in the log once this call's writes are.
    ///
    /// # Errors
    /// `group-fenced` for another term, `group-not-ready`.
    pub fn offer(
        &mut self,
        cx: &Context<'_>,
        from: &Domain,
        offer: &pb::GroupOffer,
    ) -> Result<pb::GroupPlaced, Refusal> {
        match self.role(cx) {
            Role::Hub if offer.term == self.state().term() => {}
            _ if offer.term > self.state().term() => {
                self.fetch_from(from.clone(), false);
                return Err(Code::GROUP_NOT_READY.into());
            }
            Role::Hub | Role::Follower => return Err(Code::GROUP_FENCED.into()),
            Role::NotReady => return Err(Code::GROUP_NOT_READY.into()),
        }
        let mut placed = pb::GroupPlaced { group: self.group.to_bytes(), ..Default::default() };
        for post in offer.posts.iter().take(cx.limits.offer_posts) {
            let result = match self.sequence(cx, from, post) {
                Ok(place) => pb::placed_post::Result::Place(place),
                Err(refusal) => pb::placed_post::Result::Refused(refusal.to_pb()),
            };
            let (device, number) = (post.sender_device.clone(), post.number);
            placed.results.push(pb::PlacedPost { device, number, result: Some(result) });
        }
        Ok(placed)
    }

    /// Puts one post into the log, or says where it is.
    pub(super) fn sequence(
        &mut self,
        cx: &Context<'_>,
        from: &Domain,
        post: &pb::GroupPost,
    ) -> Result<pb::GroupPlace, Refusal> {
        let state = self.state();
        let term = state.term();
        let key = check_post(cx, state, post)?;
        if state.full_member(&key.0).is_none_or(|member| member.domain != *from) {
            return Err(Code::NOT_A_MEMBER.into());
        }
        let last = self.history.last_number(&key);
        if post.number <= last && post.number > 0 {
            let at = self.history.find(&key, post.number);
            return Ok(at.map_or(pb::GroupPlace { term, seq: 0 }, |at| place(&at)));
        }
        if last.checked_add(1) != Some(post.number) {
            return Err(Code::NUMBER_GAP.into());
        }
        self.check_known_head(post)?;
        if post.expires_at_ms > 0 && post.expires_at_ms < cx.now_ms {
            return Err(Code::EXPIRED.into());
        }
        self.check_room(cx)?;
        let seq = self.next_seq()?;
        let entry = message_entry(&self.group, term, seq, post.clone());
        let kind = SlotKind::Message { key, number: post.number };
        let at = self.append_entry(cx, pb::GroupRecord { entry, evidence: Vec::new() }, kind, None)?;
        Ok(place(&at))
    }

    /// A head between the last rotation and the newest has to be one of this chain, where that is known.
    fn check_known_head(&self, post: &pb::GroupPost) -> Result<(), Refusal> {
        let of = |state: &GroupState| (state.number() == post.chain_number).then(|| state.head());
        let base = self.history.base().seq;
        let mut states = self.history.states_after(base).map(|(_, state)| state);
        let known = of(self.history.base_state()).or_else(|| states.find_map(of));
        if known.is_some_and(|head| head.as_ref() != post.chain_head.as_ref()) {
            return Err(Refusal::from(Code::STALE_HEAD).with_head(self.state().head().to_bytes()));
        }
        Ok(())
    }

    fn check_room(&self, cx: &Context<'_>) -> Result<(), Refusal> {
        let unstable = self.history.end().seq.saturating_sub(self.core.stable);
        if unstable >= cx.limits.unstable_entries { Err(Code::GROUP_BUSY.into()) } else { Ok(()) }
    }

    fn next_seq(&self) -> Result<u64, Refusal> {
        self.history.end().next_seq().map_err(|_| Code::GROUP_FULL.into())
    }

    /// Adds an entry of this hub's, and wakes followers and own devices.
    fn append_entry(
        &mut self,
        cx: &Context<'_>,
        pb::GroupRecord { entry, evidence }: pb::GroupRecord,
        kind: SlotKind,
        state: Option<GroupState>,
    ) -> Result<At, Refusal> {
        let term = match &kind {
            SlotKind::Link { start: Some(start), .. } if start.succession => start.term,
            _ => self.state().term(),
        };
        let at = self.history.end().after(term, &entry).map_err(|_| Refusal::from(Code::GROUP_FULL))?;
        let ends_term = state.as_ref().is_some_and(|state| state.term() > term);
        let size = self.bytes_since_head.saturating_add(entry.len() as u64);
        let due = at.seq.checked_rem(cx.limits.head_entries) == Some(0) || size > cx.limits.head_bytes;
        let head = (due || ends_term).then(|| self.sign_head(cx, at));
        let record = pb::GroupRecord { entry, evidence };
        self.add(Slot { at, kind, head, dropped: Vec::new() }, &record, state);
        if let Some(head) = self.signed.as_ref().filter(|(place, ..)| *place == at) {
            self.core.head = Some(head.2.clone());
            self.core_changed = true;
        }
        self.count_stable(cx);
        self.ship_idle(cx);
        self.effects.push(Effect::Wake);
        Ok(at)
    }

    /// A link for the chain: from a device's home, or from the home that was asked to be hub.
    pub fn append(&mut self, cx: &Context<'_>, request: &pb::GroupAppend) -> Appended {
        match self.try_append(cx, request) {
            Ok(appended) => appended,
            Err(refusal) => Appended::Refused(refusal),
        }
    }

    fn try_append(&mut self, cx: &Context<'_>, request: &pb::GroupAppend) -> Result<Appended, Refusal> {
        let mut link = request.link.clone().ok_or(Code::LINK_INVALID)?;
        let id = tidings_proto::chain::link_id(Purpose::GROUP_LINK, &link.body);
        if let Some(at) = self.history.find_link(&id) {
            return Ok(Appended::Done(self.appended(&at, id)));
        }
        let body = <pb::GroupLinkBody as prost::Message>::decode(link.body.clone());
        let body = body.map_err(|_| Refusal::from(Code::LINK_INVALID))?;
        let named = body.hub_transfer.as_ref().and_then(|transfer| transfer.hub.as_ref());
        let named = named.or_else(|| body.hub_succession.as_ref().and_then(|next| next.hub.as_ref()));
        if let Some(named) = named
            && body.signers.len() == link.signatures.len().saturating_add(1)
        {
            let server = ServerRef::parse(named.server.as_ref());
            let server = server.map_err(|_| Refusal::from(Code::LINK_INVALID))?;
            if server != cx.own.signer.server {
                return Ok(Appended::Forward { to: server, request: Box::new(request.clone()) });
            }
            let signature: Signature = cx.own.key.sign(Purpose::GROUP_LINK, &link.body);
            link.signatures.push(signature.to_bytes());
        }
        if body.hub_succession.is_some() {
            return self.begin_by_owner(cx, link, request.evidence.clone());
        }
        match self.role(cx) {
            Role::Hub => {}
            Role::NotReady => return Err(Code::GROUP_NOT_READY.into()),
            Role::Follower => {
                let request = pb::GroupAppend { link: Some(link), ..request.clone() };
                let to = self.state().hub().clone();
                return Ok(Appended::Forward { to, request: Box::new(request) });
            }
        }
        self.check_room(cx)?;
        if body.set_keepers.is_some() && !self.keepers_settled() {
            return Err(Code::GROUP_BUSY.into());
        }
        self.checkpoint_if_due(cx)?;
        let at = self.append_link(cx, link, request.evidence.clone())?;
        Ok(Appended::Done(self.appended(&at, id)))
    }

    fn appended(&self, at: &At, head: LinkId) -> pb::GroupAppended {
        pb::GroupAppended { group: self.group.to_bytes(), place: Some(place(at)), head: head.to_bytes() }
    }

    /// Whether the last change of keepers, and this hub's own term, are stable: only then may they change again.
    fn keepers_settled(&self) -> bool {
        let stable = self.core.stable;
        let changed = self.history.states_after(stable).any(|(_, state)| {
            self.history.state_at(stable).is_none_or(|before| before.keepers() != state.keepers())
        });
        !changed && self.history.succession() <= stable
    }

    fn append_link(
        &mut self,
        cx: &Context<'_>,
        link: pb::Link,
        evidence: Vec<pb::Evidence>,
    ) -> Result<At, Refusal> {
        let state = self.state().clone();
        let next = state.apply(&link, cx.evidence).map_err(|error| refusal_of(&error, &state))?;
        let (was_hub, was_term) = (*state.hub() == cx.own.signer.server, state.term());
        let kind = SlotKind::Link { id: next.head(), start: term_start(&link) };
        let entry = link_entry(&self.group, was_term, self.next_seq()?, link);
        let at = self.append_entry(cx, pb::GroupRecord { entry, evidence }, kind, Some(next))?;
        self.after_links(cx, was_hub, was_term);
        Ok(at)
    }

    fn checkpoint_if_due(&mut self, cx: &Context<'_>) -> Result<(), Refusal> {
        if self.state().since_checkpoint() < cx.limits.checkpoint_links {
            return Ok(());
        }
        let change = GroupChange::Checkpoint(cx.own.signer.clone());
        let link = self.state().link(None, &change, &[&cx.own.key]);
        self.append_link(cx, link, vec![cx.own.chain.clone()]).map(|_| ())
    }

    /// An owner's word makes this home the hub, where the keepers cannot.
    fn begin_by_owner(
        &mut self,
        cx: &Context<'_>,
        link: pb::Link,
        evidence: Vec<pb::Evidence>,
    ) -> Result<Appended, Refusal> {
        let start = term_start(&link).ok_or(Code::LINK_INVALID)?;
        if start.term <= self.core.voted.term {
            return Err(Code::GROUP_FENCED.into());
        }
        let at = self.begin_term(cx, link, evidence)?;
        Ok(Appended::Done(self.appended(&at, start.id)))
    }

    /// Adds the succession that makes this home the hub.
    pub(super) fn begin_term(
        &mut self,
        cx: &Context<'_>,
        link: pb::Link,
        mut evidence: Vec<pb::Evidence>,
    ) -> Result<At, Refusal> {
        let start = term_start(&link).filter(|start| start.succession).ok_or(Code::LINK_INVALID)?;
        let state = self.state().clone();
        let end = self.history.end();
        let next = state.apply(&link, cx.evidence).map_err(|error| refusal_of(&error, &state))?;
        if *next.hub() != cx.own.signer.server {
            return Err(refusal_of(&GroupLinkError::Link(LinkError::Signers), &state));
        }
        let entry = link_entry(&self.group, start.term, self.next_seq()?, link);
        end.follow(&state, &entry).map_err(|error| super::follower::log_refusal(&error))?;
        self.core.recovering = false;
        self.core.incarnation = cx.own.incarnation;
        self.end_campaign();
        evidence.push(cx.own.chain.clone());
        let kind = SlotKind::Link { id: start.id, start: Some(start) };
        let old_hub = state.hub().domain.clone();
        let at = self.append_entry(cx, pb::GroupRecord { entry, evidence }, kind, Some(next))?;
        self.become_hub(cx, end, Some(old_hub));
        Ok(at)
    }
}

fn place(at: &At) -> pb::GroupPlace {
    pb::GroupPlace { term: at.term, seq: at.seq }
}
