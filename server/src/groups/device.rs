//! Requests of devices about groups.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::group::GroupState;
use tidings_proto::chain::link_id;
use tidings_proto::id::{AccountId, GroupId};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use super::chains::Named;
use super::replica::effect::Row;
use super::replica::{Appended, Replica};
use super::{account_id, group_id, lock};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::unreadable;
use crate::store::LaneKey;

/// Links that a group may be created with.
const CREATE_LINKS_MAX: usize = 64;
/// An hour, in which invitations are counted.
const HOUR_MS: u64 = 3_600_000;
/// Accounts whose invitations are counted.
const INVITERS_MAX: usize = 20_000;

impl Shared {
    /// Begins a group whose hub this home is.
    ///
    /// # Errors
    /// `message-malformed`, `not-permitted`, `limit-exceeded`, or why a link is not good.
    pub(crate) async fn create_group(
        self: &Arc<Self>,
        account: AccountId,
        request: pb::GroupCreate,
    ) -> Result<pb::GroupAppended, Refusal> {
        let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
        let first = request.links.first().ok_or_else(|| malformed("no link"))?;
        if request.links.len() > CREATE_LINKS_MAX {
            return Err(Code::LIMIT_EXCEEDED.because("links"));
        }
        for link in &request.links {
            self.check_author(link, account)?;
        }
        let id = GroupId(link_id(Purpose::GROUP_LINK, &first.body).0);
        let mut named = Named::default();
        request.links.iter().for_each(|link| named.link(link));
        named.servers.insert(self.groups.own.me.genesis);
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        let held = self.held(id, &mut place).await?;
        if held.is_some() {
            // The answer was lost: the last link is where it is.
            *place = held;
            drop(place);
            let link = request.links.last().filter(|_| request.links.len() > 1).cloned();
            if link.is_none() {
                let place = Some(pb::GroupPlace { term: 1, seq: 1 });
                return Ok(pb::GroupAppended { group: id.to_bytes(), place, head: id.to_bytes() });
            }
            let again = pb::GroupAppend { group: id.to_bytes(), link, ..Default::default() };
            return self.append_to_group(account, again).await;
        }
        self.check_room_for_group(account).await?;
        let known = self.known(&named).await?;
        let evidence: Vec<pb::Evidence> = known.evidence_of(&account).into_iter().collect();
        let (replica, appended) = {
            let context = self.groups.own.context(self.now_ms(), &known);
            Replica::create(&context, &request.links, &evidence)?
        };
        let commit = self.enter_group(id, &mut place, replica).await?;
        drop(place);
        commit.durable().await?;
        Ok(appended)
    }

    /// A link is made by the account that brings it.
    fn check_author(&self, link: &pb::Link, account: AccountId) -> Result<pb::GroupLinkBody, Refusal> {
        let body = pb::GroupLinkBody::decode(link.body.clone())
            .map_err(|_| Code::MESSAGE_MALFORMED.because("a link's body"))?;
        let author = body.author.as_ref().map(|author| author.account.as_ref());
        if author != Some(account.as_bytes().as_slice()) {
            return Err(Code::NOT_PERMITTED.because("a link of another account"));
        }
        Ok(body)
    }

    async fn check_room_for_group(&self, account: AccountId) -> Result<(), Refusal> {
        let groups = self.state.store().groups_of(account).await.map_err(|error| unreadable(&error))?;
        let present = groups.iter().filter(|(_, upto)| *upto == 0).count();
        let most = crate::config::Limits::size(self.config.limits.groups_per_account());
        if present >= most { Err(Code::LIMIT_EXCEEDED.because("groups_per_account")) } else { Ok(()) }
    }

    /// So many invitations an account may make in an hour.
    fn check_invitations(&self, account: AccountId, count: usize) -> Result<(), Refusal> {
        let hour = self.now_ms() / HOUR_MS;
        let mut invited = lock(&self.groups.invited);
        if invited.len() > INVITERS_MAX {
            invited.retain(|_, (counted, _)| *counted == hour);
        }
        let (counted, made) = invited.entry(account).or_insert((hour, 0));
        if *counted != hour {
            (*counted, *made) = (hour, 0);
        }
        let after = made.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        // One large link is no flood: what is limited is how often.
        if *made > 0 && after > self.config.limits.group_invitations_per_hour() {
            return Err(Code::TOO_FAST.because("group_invitations_per_hour"));
        }
        *made = after;
        Ok(())
    }

    /// Appends a device's link: here, or at the hub.
    ///
    /// # Errors
    /// `no-such-group`, `not-permitted`, why the link is not good, `hub-unreachable`.
    pub(crate) async fn append_to_group(
        self: &Arc<Self>,
        account: AccountId,
        mut request: pb::GroupAppend,
    ) -> Result<pb::GroupAppended, Refusal> {
        let id = group_id(&request.group)?;
        let link = request.link.as_ref().ok_or_else(|| Code::MESSAGE_MALFORMED.because("no link"))?;
        let body = self.check_author(link, account)?;
        if let Some(added) = &body.add_members {
            self.check_invitations(account, added.members.len())?;
        }
        if !self.holds_group(id).await? {
            let hub = request.hub.as_ref().ok_or(Code::NO_SUCH_GROUP)?;
            let hub = Domain::parse(&hub.domain).map_err(|_| Code::MESSAGE_MALFORMED.because("hub"))?;
            if hub == self.config.domain {
                return Err(Code::NO_SUCH_GROUP.into());
            }
            self.check_room_for_group(account).await?;
            self.join_group(id, account, &hub).await?;
        }
        request.hub = None;
        self.append_from(id, request, Some(account)).await
    }

    /// Appends a link that came from a home, or from a device of this one.
    pub(super) async fn append_from(
        self: &Arc<Self>,
        id: GroupId,
        mut request: pb::GroupAppend,
        account: Option<AccountId>,
    ) -> Result<pb::GroupAppended, Refusal> {
        let named = Named::append(&request);
        let decided = self
            .in_group(id, &named, |replica, context, known| {
                // Whoever reads the link elsewhere needs its author's chain.
                for author in &named.accounts {
                    let there = |evidence: &pb::Evidence| evidence.chain.as_ref() == author.as_bytes();
                    if !request.evidence.iter().any(there) {
                        request.evidence.extend(known.evidence_of(author));
                    }
                }
                replica.append(context, &request)
            })
            .await?;
        match decided.durable().await? {
            Appended::Done(appended) => Ok(appended),
            Appended::Refused(refusal) => Err(refusal),
            Appended::Forward { to, request } => {
                self.ask_home(account, &to.domain, request.as_ref()).await.map_err(of_hub)
            }
        }
    }

    /// Whether a group that a service message names has both accounts in it, within what one of them may send another
    /// for it in an hour.
    pub(crate) async fn share_group(&self, group: &Bytes, key: LaneKey) -> bool {
        let Ok(id) = GroupId::try_from(group) else { return false };
        let slot = self.groups.slot(id);
        let both = {
            let mut place = slot.lock().await;
            let Ok(held) = self.held(id, &mut place).await else { return false };
            let both = held.as_ref().is_some_and(|held| {
                let member = |account| held.replica.state().full_member(account).is_some();
                member(&key.0) && member(&key.1)
            });
            *place = held;
            both
        };
        drop(slot);
        if !both {
            self.groups.forget(id);
            return false;
        }
        let hour = self.now_ms() / HOUR_MS;
        let mut services = lock(&self.groups.services);
        if services.0 != hour {
            *services = (hour, HashMap::new());
        }
        let sent = services.1.entry((id, key)).or_insert(0_u64);
        *sent = sent.saturating_add(1);
        *sent <= self.config.limits.group_service_per_hour()
    }

    /// Whether a group is kept here.
    pub(super) async fn holds_group(self: &Arc<Self>, id: GroupId) -> Result<bool, Refusal> {
        let slot = self.groups.slot(id);
        let there = {
            let mut place = slot.lock().await;
            *place = self.held(id, &mut place).await?;
            place.is_some()
        };
        drop(slot);
        self.groups.forget(id);
        Ok(there)
    }

    /// A page of a group's state and log for a device: from here, or from the server it names.
    ///
    /// # Errors
    /// `no-such-group`, `not-a-member`, `hub-unreachable`, …
    pub(crate) async fn fetch_group(
        self: &Arc<Self>,
        account: AccountId,
        mut request: pb::GroupFetch,
    ) -> Result<pb::GroupPage, Refusal> {
        let id = group_id(&request.group)?;
        let server = request.server.take();
        request.account = account.to_bytes();
        if self.holds_group(id).await? {
            let domain = self.config.domain.clone();
            let here = self.page_of(id, &domain, &request).await;
            match (here, &server) {
                // A copy that was left behind when the account was last in the group.
                (Err(refusal), Some(_)) if refusal.code == Code::NOT_A_MEMBER => {}
                (here, _) => {
                    if !begins_late(&request, &here) {
                        return here;
                    }
                    // This home came later; the hub may have what is older.
                    let nothing = Named::default();
                    let hub =
                        self.in_group(id, &nothing, |replica, _, _| replica.state().hub().domain.clone());
                    let hub = hub.await?.value;
                    if hub == domain {
                        return here;
                    }
                    return self.ask_home(Some(account), &hub, &request).await.map_err(of_hub);
                }
            }
        }
        let server = server.ok_or(Code::NO_SUCH_GROUP)?;
        let domain = Domain::parse(&server.domain).map_err(|_| Code::MESSAGE_MALFORMED.because("server"))?;
        if domain == self.config.domain {
            return Err(Code::NO_SUCH_GROUP.into());
        }
        self.ask_home(Some(account), &domain, &request).await.map_err(of_hub)
    }

    /// A page for a device here or for another home.
    pub(super) async fn page_of(
        self: &Arc<Self>,
        id: GroupId,
        from: &Domain,
        request: &pb::GroupFetch,
    ) -> Result<pb::GroupPage, Refusal> {
        // Homes ask each other for what they lack without naming anybody.
        let account = if request.account.is_empty() { None } else { Some(account_id(&request.account)?) };
        let nothing = Named::default();
        let asked = self.in_group(id, &nothing, |replica, _, _| {
            let state = replica.state();
            let (may, invited) = match account.map(|account| state.member(&account)) {
                Some(Some(member)) => (member.domain == *from, member.invited),
                Some(None) => (false, false),
                None => (is_home_of(state, from), false),
            };
            let after = replica.page_after(request);
            if may { Ok((after, invited)) } else { Err(Refusal::from(Code::NOT_A_MEMBER)) }
        });
        let (after, invited) = asked.await?.durable().await??;
        // Who was only invited sees who is in the group, not what is said.
        let links_only = request.links_only || invited;
        let request = &pb::GroupFetch { links_only, ..request.clone() };
        let rows: Vec<Row> = self.batch_rows(id, after, links_only).await?;
        let ship = (*from != self.config.domain).then_some(from);
        let page =
            self.in_group(id, &nothing, |replica, context, _| replica.page(context, request, &rows, ship));
        let mut page = page.await?.durable().await??;
        if !page.more {
            page.evidence.extend(self.evidence_of_head(page.head.as_ref()));
        }
        Ok(page)
    }

    /// Who has what, as the hub knows it.
    ///
    /// # Errors
    /// `no-such-group`, `not-a-member`, `hub-unreachable`.
    pub(crate) async fn fetch_group_marks(
        self: &Arc<Self>,
        account: AccountId,
        request: pb::GroupMarksFetch,
    ) -> Result<pb::GroupMarksTable, Refusal> {
        let id = group_id(&request.group)?;
        let domain = self.config.domain.clone();
        match self.marks_table_of(id, &domain, account).await? {
            Ok(table) => Ok(table),
            Err(hub) => {
                let request = pb::GroupMarksFetch { account: account.to_bytes(), ..request };
                self.ask_home(Some(account), &hub, &request).await.map_err(of_hub)
            }
        }
    }

    /// The table, or which home has it.
    pub(super) async fn marks_table_of(
        self: &Arc<Self>,
        id: GroupId,
        from: &Domain,
        account: AccountId,
    ) -> Result<Result<pb::GroupMarksTable, Domain>, Refusal> {
        let own = &self.config.domain;
        let nothing = Named::default();
        let decided = self.in_group(id, &nothing, |replica, _, _| {
            let member = replica.state().full_member(&account);
            if member.is_none_or(|member| member.domain != *from) {
                return Err(Code::NOT_A_MEMBER.into());
            }
            let hub = &replica.state().hub().domain;
            Ok(if hub == own {
                Ok(pb::GroupMarksTable { group: id.to_bytes(), marks: replica.marks_table() })
            } else {
                Err(hub.clone())
            })
        });
        decided.await?.durable().await?
    }

    /// An account read a group up to a number.
    ///
    /// # Errors
    /// `no-such-group`, `not-a-member`, `message-malformed` beyond the end.
    pub(crate) async fn mark_group_read(
        self: &Arc<Self>,
        account: AccountId,
        request: pb::GroupMarkRead,
    ) -> Result<(), Refusal> {
        let id = group_id(&request.group)?;
        let nothing = Named::default();
        let decided = self.in_group(id, &nothing, |replica, context, _| {
            if replica.state().full_member(&account).is_none() {
                return Err(Refusal::from(Code::NOT_A_MEMBER));
            }
            if request.upto > replica.position().seq {
                return Err(Code::MESSAGE_MALFORMED.because("beyond the log's end"));
            }
            replica.mark(context, &account, 0, request.upto);
            Ok(())
        });
        decided.await?.durable().await?
    }
}

/// Whether a page has nothing of what it is to begin with, because this home's own log begins later.
fn begins_late(request: &pb::GroupFetch, page: &Result<pb::GroupPage, Refusal>) -> bool {
    match page {
        Err(refusal) => refusal.code == Code::GROUP_NOT_READY,
        Ok(page) => {
            let first = page.first.as_ref().map_or(0, |first| first.seq);
            !request.from_state && !request.links_only && request.after_seq < first
        }
    }
}

/// Whether a domain's home is hub, keeper or the home of somebody in a group.
pub(super) fn is_home_of(state: &GroupState, domain: &Domain) -> bool {
    state.hub().domain == *domain
        || state.keepers().iter().any(|keeper| keeper.domain == *domain)
        || state.members_of(domain).next().is_some()
}

/// A refusal of the way to another home, as a device reads it.
pub(super) fn of_hub(refusal: Refusal) -> Refusal {
    match refusal.code {
        Code::PEER_UNREACHABLE | Code::TIMED_OUT | Code::PEER_UNKNOWN => {
            Code::HUB_UNREACHABLE.because(&refusal.to_string())
        }
        _ => refusal,
    }
}
