//! Links in a group's log: the state that follows, and what that means here (spec 07-groups, "The group chain").

use std::collections::BTreeSet;

use prost::Message as _;
use tidings_proto::chain::GroupState;
use tidings_proto::chain::group::Rank;
use tidings_proto::group_log::GroupPosition;
use tidings_proto::id::{AccountId, GroupId, MessageId};
use tidings_proto::pb;

use super::open_profile;
use crate::engine::session::Session;
use crate::engine::{Ended, Engine, now_ms};
use crate::error::StoreError;
use crate::event::{Change, Event};
use crate::store::groups::posts;
use crate::store::groups::{self, Chat, GroupStatus};
use crate::store::messages::{self, Message, State};
use crate::store::{Tx, accounts, errands};

impl Engine {
    /// A link in the log. False: it waits for a chain.
    pub(super) async fn link_entry(
        &mut self,
        session: &mut Session,
        mut chat: Chat,
        at: GroupPosition,
        (link, evidence): (pb::Link, Vec<pb::Evidence>),
    ) -> Result<bool, Ended> {
        let group = chat.id;
        let Some(state) = chat.state.clone() else { return Ok(false) };
        let mut chains = super::evidence::beside(&evidence);
        let after = match self.judge(&mut chains, Some(&state), &link).await? {
            Ok(after) => after,
            Err(error) => {
                match error.missing() {
                    Some(tidings_proto::chain::group::Missing::Account { id, .. }) => {
                        self.stall(session, group, Some(id)).await?;
                    }
                    Some(_) => self.resync(session, group).await?,
                    None => self.damage(chat, &error).await?,
                }
                return Ok(false);
            }
        };
        self.learn(evidence).await?;
        let body = pb::GroupLinkBody::decode(link.body.clone()).unwrap_or_default();
        let before_term = state.term();
        chat.state = Some(after.clone());
        chat.position = at;
        if chat.awaits == Some(after.head()) {
            chat.awaits = None;
        }
        let mut events = self.standing_after(&mut chat, &state, &after);
        events.extend(take_profile(&mut chat, &after, &body));
        if after.term() > before_term {
            let hub = after.hub().domain.clone();
            // What an old hub signed twice is settled by the term that follows.
            chat.fork = None;
            events.push(Event::GroupTerm { group, term: after.term(), hub });
        }
        let by = body.author.as_ref().and_then(|author| AccountId::try_from(&author.account).ok());
        events.extend(change_of(&body, by, &chat).map(|change| Event::GroupChanged { group, by, change }));
        let gone: Vec<_> = leavers(&state, &after);
        let invitation = match &body.checkpoint {
            Some(checkpoint) => invitation_of(&chat, &after, Some(checkpoint.state_hash.clone())),
            None => self.invitation(&chat, &after).await?,
        };
        let mut tx = self.store.begin().await?;
        groups::put_chat(&mut tx, &chat).await?;
        groups::put_link(&mut tx, &after, at.seq, &link).await?;
        groups::put_place(&mut tx, group, &at, Some(&after)).await?;
        for account in &gone {
            errands::forget_member(&mut tx, group, *account).await?;
            groups::forget_numbers(&mut tx, group, *account).await?;
        }
        if state.full_member(&self.me.account).is_none() && chat.status == GroupStatus::Member {
            posts::set_own_number(&mut tx, group, 0).await?;
        }
        self.invite_after(&mut tx, &invitation, &after, &body).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.chats.insert(group, chat.clone());
        if events.iter().any(|event| matches!(event, Event::GroupJoined { .. })) {
            self.tell_own_devices(&chat).await?;
        }
        events.into_iter().for_each(|event| self.tell(event));
        self.applied(session, group, &after);
        self.meet_members(session, &after).await?;
        Ok(true)
    }

    /// What this account is after a link.
    fn standing_after(&self, chat: &mut Chat, before: &GroupState, after: &GroupState) -> Vec<Event> {
        let (group, me) = (chat.id, &self.me.account);
        let mut events = Vec::new();
        if after.full_member(me).is_some() {
            if chat.status != GroupStatus::Member {
                chat.status = GroupStatus::Member;
                events.push(Event::GroupJoined { group });
            }
        } else if before.member(me).is_some() && after.member(me).is_none() {
            chat.status = GroupStatus::Gone;
            events.push(Event::GroupGone { group });
        }
        events
    }

    /// This device invited somebody, or those it invited have to know of a checkpoint: they get what they need to
    /// verify the group (K4).
    async fn invite_after(
        &mut self,
        tx: &mut Tx,
        invitation: &pb::GroupInvitation,
        state: &GroupState,
        body: &pb::GroupLinkBody,
    ) -> Result<(), StoreError> {
        let mine = body.author.as_ref().is_some_and(|author| author.device == self.me.device.to_bytes());
        let invited: Vec<AccountId> = if let Some(added) = body.add_members.as_ref().filter(|_| mine) {
            added.members.iter().filter_map(|member| AccountId::try_from(&member.account).ok()).collect()
        } else if body.checkpoint.is_some() {
            let own = |member: &tidings_proto::chain::group::Member| {
                member.invited && member.added_by == Some(self.me.account)
            };
            state.members().filter(|(_, member)| own(member)).map(|(account, _)| *account).collect()
        } else {
            Vec::new()
        };
        for account in invited {
            self.put_invitation(tx, account, invitation).await?;
        }
        Ok(())
    }

    /// What an invited account, or a new own device, needs to verify a group: with the hash of the last checkpoint.
    pub(super) async fn invitation(
        &self,
        chat: &Chat,
        state: &GroupState,
    ) -> Result<pb::GroupInvitation, StoreError> {
        let link = self.store.group_link(chat.id, state.checkpoint()).await?;
        let body = link.and_then(|link| pb::GroupLinkBody::decode(link.body).ok());
        let checkpoint = body.and_then(|body| body.checkpoint).map(|checkpoint| checkpoint.state_hash);
        Ok(invitation_of(chat, state, checkpoint))
    }

    /// A direct message that carries an invitation.
    async fn put_invitation(
        &mut self,
        tx: &mut Tx,
        to: AccountId,
        invitation: &pb::GroupInvitation,
    ) -> Result<(), StoreError> {
        let mut id = [0; 16];
        rand::Rng::fill_bytes(&mut self.rng, &mut id);
        let message = Message {
            seq: messages::next_seq(tx).await?,
            id: MessageId(id),
            conversation: to,
            sender: self.me.account,
            device: self.me.device,
            text: String::new(),
            reply_to: None,
            sent_at_ms: now_ms(),
            number: 0,
            own_number: 0,
            lifetime_secs: 0,
            state: State::Queued,
            reason: None,
        };
        messages::put_message(tx, &message, None).await?;
        // Writing to somebody accepts them, here as at the home.
        accounts::set_accepted_elsewhere(tx, to).await?;
        let body = Some(pb::content::Body::Invitation(invitation.clone()));
        let content = pb::Content { body, ..Default::default() };
        messages::put_body(tx, message.id, &content.encode_to_vec()).await
    }

    /// Chains of members that are not held here are asked for: nothing can be encrypted to them before.
    pub(super) async fn meet_members(
        &mut self,
        session: &mut Session,
        state: &GroupState,
    ) -> Result<(), Ended> {
        if state.full_member(&self.me.account).is_none() {
            return Ok(());
        }
        let members: Vec<_> = state.members().filter(|(_, member)| !member.invited).collect();
        for (account, member) in members {
            let behind = match self.chain(*account).await? {
                Some(chain) => member.head.is_some_and(|head| !chain.contains(&head)),
                None => true,
            };
            if behind && !session.later.contains_key(account) {
                let address = self.address_of(*account).await?;
                self.fetch(session, *account, &address, Vec::new()).await?;
            }
        }
        Ok(())
    }
}

/// What an invited account, or a new own device, needs to verify a group.
fn invitation_of(chat: &Chat, state: &GroupState, checkpoint: Option<bytes::Bytes>) -> pb::GroupInvitation {
    pb::GroupInvitation {
        group: chat.id.to_bytes(),
        hub: Some(state.hub().to_pb()),
        head: state.head().to_bytes(),
        number: state.number(),
        checkpoint_hash: checkpoint.unwrap_or_default(),
        profile_key: bytes::Bytes::copy_from_slice(&chat.profile_key),
        name: chat.name.clone(),
    }
}

/// Who was in the group, or invited, and is not any more.
fn leavers(before: &GroupState, after: &GroupState) -> Vec<AccountId> {
    let still: BTreeSet<_> = after.members().map(|(account, _)| account).collect();
    before.members().map(|(account, _)| account).filter(|account| !still.contains(account)).copied().collect()
}

/// The name and description, where a link set them.
pub(super) fn take_profile(chat: &mut Chat, state: &GroupState, body: &pb::GroupLinkBody) -> Option<Event> {
    if body.set_profile.is_none() && body.genesis.is_none() && !chat.name.is_empty() {
        return None;
    }
    let profile = open_profile(chat, state.profile())?;
    chat.name = profile.name;
    chat.description = profile.description;
    None
}

/// A link, for people.
fn change_of(body: &pb::GroupLinkBody, by: Option<AccountId>, chat: &Chat) -> Option<Change> {
    let ids = |accounts: &[bytes::Bytes]| -> Vec<AccountId> {
        accounts.iter().filter_map(|id| AccountId::try_from(id).ok()).collect()
    };
    if let Some(added) = &body.add_members {
        let accounts: Vec<_> = added.members.iter().map(|member| member.account.clone()).collect();
        return Some(Change::Invited(ids(&accounts)));
    }
    if let Some(removed) = &body.remove_members {
        return Some(Change::Removed(ids(&removed.accounts)));
    }
    if let Some(role) = &body.set_role {
        let account = AccountId::try_from(&role.account).ok()?;
        return Some(Change::Rank(account, Rank::from_wire(role.rank)?));
    }
    if body.accept.is_some() {
        return Some(Change::Joined(by?));
    }
    if body.leave.is_some() {
        return Some(Change::Left(by?));
    }
    if body.advance.is_some() {
        return Some(Change::Advanced(by?));
    }
    if body.set_policy.is_some() {
        return Some(Change::Policy);
    }
    if body.set_profile.is_some() {
        let (name, description) = (chat.name.clone(), chat.description.clone());
        return Some(Change::Profile { name, description });
    }
    if body.set_keepers.is_some() {
        return Some(Change::Keepers);
    }
    if body.hub_transfer.is_some() || body.hub_succession.is_some() {
        return Some(Change::Hub);
    }
    // A checkpoint says nothing new.
    body.checkpoint.is_none().then_some(Change::Other)
}

/// Whether a link is of this group's chain; of the first one only its id says so.
pub(super) fn is_about(group: GroupId, link: &pb::Link) -> bool {
    pb::GroupLinkBody::decode(link.body.clone())
        .is_ok_and(|body| body.chain.is_empty() || body.chain == group.to_bytes())
}

/// Whether a link can only be the first of a chain.
pub(super) fn is_genesis(link: &pb::Link) -> bool {
    pb::GroupLinkBody::decode(link.body.clone()).is_ok_and(|body| body.genesis.is_some())
}
