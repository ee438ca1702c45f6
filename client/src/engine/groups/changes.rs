//! Changes of groups that this device makes: each becomes a link on the chain as it is held; one that came too late
//! is made anew on the newer chain, where it still makes sense (spec 07-groups, "Changing a group").

use std::time::Duration;

use prost::Message as _;
use tidings_proto::chain::group::{Policy, Rank, ServerRef};
use tidings_proto::chain::{GroupChange, GroupState, assemble, link_id};
use tidings_proto::error::Code;
use tidings_proto::group_log::GroupPosition;
use tidings_proto::id::{AccountId, GroupId, LinkId};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::Purpose;
use tokio::time::Instant;

use super::{Answer, Answered, HomeSigner, asked};
use crate::crypto::seal_profile;
use crate::engine::session::{Session, now};
use crate::engine::{Ended, Engine};
use crate::error::{Error, StoreError};
use crate::event::Event;
use crate::home::HomeError;
use crate::store::groups::{self, Chat, GroupStatus};

/// How often a change is made anew.
const TRIES: u32 = 16;
/// Wait after a refusal that passes by itself and names no time.
const AGAIN: Duration = Duration::from_millis(500);
/// Time in which a change that was taken shows in the own log; after that whoever waits is told all the same.
const SHOWN: Duration = Duration::from_secs(10);

/// What somebody wants of a group.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    /// Invite these accounts, each at its domain.
    Invite(Vec<(AccountId, Domain)>),
    /// Become a member.
    Accept,
    /// Leave, or decline.
    Leave,
    /// Remove these accounts.
    Remove(Vec<AccountId>),
    /// Give an account a rank.
    Rank(AccountId, Rank),
    /// Another policy.
    Policy(Policy),
    /// Another name and description.
    Profile(String, String),
    /// These keepers, one step after the other.
    Keepers(Vec<ServerRef>),
    /// Another hub.
    Transfer(HomeSigner),
    /// The own home as hub, where no majority of keepers can be had.
    Succeed,
    /// The own account went on.
    Advance,
}

/// A change on its way.
pub(super) struct Pending {
    id: u64,
    group: GroupId,
    wish: Wish,
    answer: Option<Answer>,
    tries: u32,
    phase: Phase,
}

enum Phase {
    /// To be made, not before this.
    Ready(Instant),
    /// Offered, as this link on this head.
    Asked { link: LinkId, on: LinkId },
    /// Refused as too late on this head: made anew once the chain has gone on.
    Behind { on: LinkId, until: Instant },
    /// Taken; whoever waits is told when the own log shows it.
    Taken { link: LinkId, until: Instant },
}

impl Engine {
    /// Takes a wish up. It is carried out by [`Self::drive_changes`].
    pub(super) fn wish(&mut self, session: &mut Session, group: GroupId, wish: Wish, answer: Option<Answer>) {
        let work = &mut session.groups;
        let id = work.next_change;
        work.next_change = id.saturating_add(1);
        work.pending.push(Pending { id, group, wish, answer, tries: 0, phase: Phase::Ready(now()) });
    }

    /// Goes on with every change that can go on.
    pub(in crate::engine) async fn drive_changes(&mut self, session: &mut Session) -> Result<(), Ended> {
        let mut pending = std::mem::take(&mut session.groups.pending);
        let mut kept = Vec::new();
        for change in pending.drain(..) {
            let now = now();
            let chat = self.chat(change.group).await?;
            let head = chat.as_ref().and_then(|chat| chat.state.as_ref()).map(GroupState::head);
            match &change.phase {
                Phase::Asked { .. } => kept.push(change),
                Phase::Ready(at) if *at > now => kept.push(change),
                Phase::Behind { on, until } if head == Some(*on) => {
                    if *until > now {
                        kept.push(change);
                    } else {
                        change.end(Err(Error::Refused(Code::STALE_GROUP_LINK.into())));
                    }
                }
                Phase::Taken { link, until } => {
                    if *until <= now || self.store.holds_link(change.group, link).await? {
                        change.end(Ok(()));
                    } else {
                        kept.push(change);
                    }
                }
                Phase::Ready(_) | Phase::Behind { .. } => {
                    if let Some(change) = self.offer(session, chat, change).await? {
                        kept.push(change);
                    }
                }
            }
        }
        // What came up meanwhile stands behind.
        kept.append(&mut session.groups.pending);
        session.groups.pending = kept;
        Ok(())
    }

    /// Makes the link and offers it. `None`: there is nothing left to do, or nothing can be done.
    async fn offer(
        &mut self,
        session: &mut Session,
        chat: Option<Chat>,
        mut change: Pending,
    ) -> Result<Option<Pending>, Ended> {
        let unknown = || Error::Misuse("there is no such group here".to_owned());
        let Some((chat, state)) = chat.and_then(|chat| chat.state.clone().map(|state| (chat, state))) else {
            change.end(Err(unknown()));
            return Ok(None);
        };
        if chat.status == GroupStatus::Gone {
            let done = matches!(change.wish, Wish::Leave);
            change.end(if done { Ok(()) } else { Err(unknown()) });
            return Ok(None);
        }
        if let Some(reason) = chat.damaged {
            change.end(Err(Error::Violation(reason)));
            return Ok(None);
        }
        let made = self.change_for(&chat, &state, &change.wish).await?;
        let Some(made) = made else {
            change.end(Ok(()));
            return Ok(None);
        };
        let mut evidence = vec![self.own_evidence().await?];
        let link = if let GroupChange::HubTransfer(hub) | GroupChange::HubSuccession { hub, .. } = &made {
            // The new hub signs after this device; its home adds that.
            let signers = [self.me.key.public().id(), hub.key.id()];
            let body = state.body(Some(&self.author()), &made, &signers);
            let links = match &change.wish {
                Wish::Transfer(home) => home.links.clone(),
                _ => crate::engine::held_links(&self.store).await?,
            };
            evidence.push(pb::Evidence { chain: hub.server.genesis.to_bytes(), links, server: true });
            let signature = self.me.key.sign(Purpose::GROUP_LINK, &body);
            assemble(body, &[signature])
        } else {
            state.link(Some(&self.author()), &made, &[&self.me.key])
        };
        let joining = matches!(change.wish, Wish::Accept) || state.full_member(&self.me.account).is_none();
        let request = pb::GroupAppend {
            group: change.group.to_bytes(),
            hub: joining.then(|| state.hub().to_pb()),
            link: Some(link.clone()),
            evidence,
        };
        change.tries = change.tries.saturating_add(1);
        let id = change.id;
        change.phase = Phase::Asked { link: link_id(Purpose::GROUP_LINK, &link.body), on: state.head() };
        let connection = session.connection.clone();
        session.groups.asks.spawn(async move { Answered::Appended(id, asked(&connection, &request).await) });
        Ok(Some(change))
    }

    /// The home's answer to a link.
    pub(super) async fn appended(
        &mut self,
        session: &mut Session,
        id: u64,
        result: Result<pb::GroupAppended, HomeError>,
    ) -> Result<(), Ended> {
        let Some(at) = session.groups.pending.iter().position(|change| change.id == id) else {
            return Ok(());
        };
        let mut change = session.groups.pending.remove(at);
        let Phase::Asked { link, on } = change.phase else { return Ok(()) };
        match result {
            Ok(_) if matches!(change.wish, Wish::Keepers(_)) => {
                // Perhaps only one step of several: looked at again when it shows.
                change.tries = 0;
                change.phase = Phase::Behind { on, until: now() + SHOWN };
            }
            Ok(_) => {
                if matches!(change.wish, Wish::Leave) && self.declined(change.group).await? {
                    change.end(Ok(()));
                    return Ok(());
                }
                if matches!(change.wish, Wish::Accept) {
                    // The home may not have this device on its list of readers before.
                    self.rewind(session, change.group).await?;
                }
                change.phase = Phase::Taken { link, until: now() + SHOWN };
            }
            Err(HomeError::Refused(refusal)) if change.tries < TRIES => match refusal.code {
                Code::STALE_GROUP_LINK => change.phase = Phase::Behind { on, until: now() + SHOWN },
                Code::GROUP_BUSY | Code::GROUP_NOT_READY => {
                    change.phase = Phase::Ready(now() + refusal.retry_after.unwrap_or(AGAIN));
                }
                _ => {
                    change.end(Err(Error::Refused(refusal)));
                    return Ok(());
                }
            },
            Err(HomeError::Refused(refusal)) => {
                change.end(Err(Error::Refused(refusal)));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        session.groups.pending.push(change);
        Ok(())
    }

    /// An invitation that was declined is over: its group's log does not come here. False: it was a membership.
    async fn declined(&mut self, group: GroupId) -> Result<bool, StoreError> {
        let Some(chat) = self.chat(group).await? else { return Ok(true) };
        if chat.status == GroupStatus::Member {
            return Ok(false);
        }
        let chat = Chat { status: GroupStatus::Gone, ..chat };
        let mut tx = self.store.begin().await?;
        groups::put_chat(&mut tx, &chat).await?;
        tx.commit().await?;
        self.chats.insert(group, chat);
        self.tell(Event::GroupGone { group });
        Ok(true)
    }

    /// The own log shows a link: whoever waits for it is told.
    pub(super) fn applied(&mut self, session: &mut Session, group: GroupId, state: &GroupState) {
        let head = state.head();
        let shown = |change: &mut Pending| {
            change.group == group && matches!(change.phase, Phase::Taken { link, .. } if link == head)
        };
        for change in session.groups.pending.extract_if(.., shown) {
            change.end(Ok(()));
        }
    }

    /// What a wish comes to on this state; nothing if it is so already.
    async fn change_for(
        &mut self,
        chat: &Chat,
        state: &GroupState,
        wish: &Wish,
    ) -> Result<Option<GroupChange>, StoreError> {
        let me = self.me.account;
        Ok(match wish {
            Wish::Invite(accounts) => {
                let new: Vec<_> =
                    accounts.iter().filter(|(account, _)| state.member(account).is_none()).cloned().collect();
                (!new.is_empty()).then_some(GroupChange::AddMembers(new))
            }
            Wish::Accept => {
                let invited = state.member(&me).is_some_and(|member| member.invited);
                invited.then(|| GroupChange::Accept(self.me.address.domain().clone()))
            }
            Wish::Leave => state.member(&me).map(|_| GroupChange::Leave),
            Wish::Remove(accounts) => {
                let there: Vec<_> =
                    accounts.iter().filter(|account| state.member(account).is_some()).copied().collect();
                (!there.is_empty()).then_some(GroupChange::RemoveMembers(there))
            }
            Wish::Rank(account, rank) => {
                let has = state.full_member(account).is_some_and(|member| member.rank == *rank);
                (!has).then_some(GroupChange::SetRole(*account, *rank))
            }
            Wish::Policy(policy) => (policy != state.policy()).then_some(GroupChange::SetPolicy(*policy)),
            Wish::Profile(name, description) => {
                if (name, description) == (&chat.name, &chat.description) {
                    return Ok(None);
                }
                let profile = pb::GroupProfile {
                    name: name.clone(),
                    description: description.clone(),
                    ..Default::default()
                };
                let sealed = seal_profile(&chat.profile_key, &profile.encode_to_vec(), &mut self.rng);
                Some(GroupChange::SetProfile(sealed.into()))
            }
            Wish::Keepers(keepers) => next_keepers(state.keepers(), keepers).map(GroupChange::SetKeepers),
            Wish::Transfer(hub) => {
                (hub.server() != state.hub()).then(|| GroupChange::HubTransfer(hub.signer.clone()))
            }
            Wish::Succeed => {
                let hub = self.home_signer().filter(|hub| hub.server != *state.hub());
                let term = state.term().saturating_add(1);
                let from: GroupPosition = chat.position;
                hub.map(|hub| GroupChange::HubSuccession { term, from, hub, votes: Vec::new() })
            }
            Wish::Advance => self.advance_for(state),
        })
    }

    /// The link that tells a group of a device that left the own account, or of its move; none if there is neither.
    fn advance_for(&self, state: &GroupState) -> Option<GroupChange> {
        let member = state.full_member(&self.me.account)?;
        let own = self.own.state();
        let device_removed = own.last_removal().is_some_and(|number| number > member.number);
        let domain = own.address().domain().clone();
        let needed = device_removed || domain != member.domain;
        needed.then_some(GroupChange::Advance { domain, device_removed })
    }

    /// The own account went on: groups that have to know of it are told (settled 41).
    pub(in crate::engine) async fn advance_groups(&mut self, session: &mut Session) -> Result<(), Ended> {
        for chat in self.store.chats().await? {
            let Some(state) = chat.state.as_ref().filter(|_| chat.status == GroupStatus::Member) else {
                continue;
            };
            let waits = session
                .groups
                .pending
                .iter()
                .any(|change| change.group == chat.id && matches!(change.wish, Wish::Advance));
            if !waits && self.advance_for(state).is_some() {
                self.wish(session, chat.id, Wish::Advance, None);
            }
        }
        self.drive_changes(session).await
    }
}

impl Pending {
    /// Tells whoever waits, if anybody does.
    fn end(self, result: Result<(), Error>) {
        if let Err(error) = &result {
            tracing::debug!(%error, "a change of a group came to nothing");
        }
        if let Some(answer) = self.answer {
            drop(answer.send(result));
        }
    }
}

/// The next step towards other keepers: one server more, or one fewer; those that come first, so that there are
/// always some. Two majorities then always have a keeper in common.
fn next_keepers(now: &[ServerRef], wanted: &[ServerRef]) -> Option<Vec<ServerRef>> {
    let has = |list: &[ServerRef], server: &ServerRef| list.iter().any(|one| one.genesis == server.genesis);
    const MOST: usize = 7;
    if let Some(new) = wanted.iter().find(|server| !has(now, server)).filter(|_| now.len() < MOST) {
        let mut next = now.to_vec();
        next.push(new.clone());
        return Some(next);
    }
    let old = now.iter().position(|server| !has(wanted, server))?;
    let mut next = now.to_vec();
    next.remove(old);
    Some(next)
}

#[cfg(test)]
mod tests {
    use tidings_proto::id::ServerId;

    use super::*;

    fn server(n: u8) -> ServerRef {
        ServerRef { domain: format!("h{n}.example").parse().expect("a domain"), genesis: ServerId([n; 32]) }
    }

    #[test]
    fn keepers_change_by_one_until_they_are_as_wanted() {
        let wanted = [server(3), server(4)];
        let mut now = vec![server(1), server(2)];
        let mut steps = 0;
        while let Some(next) = next_keepers(&now, &wanted) {
            assert_eq!(next.len().abs_diff(now.len()), 1);
            now = next;
            steps += 1;
        }
        assert_eq!((now.as_slice(), steps), (wanted.as_slice(), 4));
    }
}
