//! A group's state from another home: to take part in it for the first time, or anew after too long an absence.
//!
//! What comes is verified as far as a server can: the state against the hash that the hub signed into its last
//! checkpoint, every link after that, and the signed head. Members verify more, end to end.

use std::sync::Arc;

use prost::Message as _;
use tidings_proto::chain::group::GroupState;
use tidings_proto::group_log::GroupHead;
use tidings_proto::id::{AccountId, GroupId, Hash};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::chains::{Named, link_of};
use super::device::of_hub;
use super::replica::{Joined, Replica};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};

/// Pages of one group: a checkpoint is never further back than a few hundred links.
const PAGES_MAX: usize = 256;
/// Bytes of a state: 1,024 members take some 200 KB.
const STATE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What came of a group, not verified yet.
#[derive(Default)]
struct Fetched {
    state: Vec<u8>,
    at: Option<pb::GroupPosition>,
    records: Vec<pb::GroupRecord>,
    head: Option<pb::SignedGroupHead>,
    numbers: Vec<pb::DeviceNumber>,
    /// The chain that it takes to verify the head.
    evidence: Vec<pb::Evidence>,
}

impl Shared {
    /// Makes this home a reader of a group, for an account that is invited or a member.
    ///
    /// # Errors
    /// The other home's refusal, or what is wrong with what it sent.
    pub(super) async fn join_group(
        self: &Arc<Self>,
        id: GroupId,
        account: AccountId,
        hub: &Domain,
    ) -> Result<(), Refusal> {
        let (joined, named) = self.fetch_state(id, Some(account), hub).await.map_err(of_hub)?;
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        if let Some(held) = self.held(id, &mut place).await? {
            // Somebody else here was faster.
            *place = Some(held);
            return Ok(());
        }
        let known = self.known(&named).await?;
        let replica = {
            let context = self.groups.own.context(self.now_ms(), &known);
            Replica::join(&context, &joined)?
        };
        let commit = self.enter_group(id, &mut place, replica).await?;
        drop(place);
        commit.durable().await
    }

    /// The log between is not to be had any more: goes on from the present state.
    pub(super) async fn resync_group(self: &Arc<Self>, id: GroupId, from: &Domain) -> Result<(), Refusal> {
        let own = self.config.domain.clone();
        let nothing = Named::default();
        let decided = self.in_group(id, &nothing, |replica, _, _| {
            let mut members = replica.state().members_of(&own);
            members.find(|(_, member)| !member.invited).map(|(account, _)| *account)
        });
        let account = decided.await?.value;
        let (joined, named) = self.fetch_state(id, account, from).await?;
        let decided = self.in_group(id, &named, |replica, context, _| replica.resync(context, &joined));
        decided.await?.durable().await?
    }

    async fn fetch_state(
        self: &Arc<Self>,
        id: GroupId,
        account: Option<AccountId>,
        from: &Domain,
    ) -> Result<(Joined, Named), Refusal> {
        let fetched = self.fetch_pages(id, account, from).await?;
        let mut named = Named::default();
        named.records(&fetched.records);
        named.head(fetched.head.as_ref());
        named.evidence.extend(fetched.evidence.iter().cloned());
        let known = self.known(&named).await?;
        let wrong = |what: &str| Code::LINK_INVALID.because(what);
        let refused = |error: tidings_proto::chain::group::GroupLinkError| {
            Refusal::new(error.code(), error.to_string())
        };
        let mut links = fetched.records.iter().map(link_of);
        let mut next = || links.next().map(|link| link.ok_or_else(|| wrong("a record is no link")));
        let first = next().ok_or_else(|| wrong("no record"))??;
        let mut state = if fetched.state.is_empty() {
            GroupState::genesis(&first, &known).map_err(refused)?
        } else {
            let body = pb::GroupLinkBody::decode(first.body.clone()).map_err(|_| wrong("body"))?;
            let checkpoint = body.checkpoint.ok_or_else(|| wrong("no checkpoint behind the state"))?;
            let hash = Hash::try_from(&checkpoint.state_hash).map_err(|_| wrong("state_hash"))?;
            let before = GroupState::from_snapshot(&fetched.state, &hash).map_err(refused)?;
            before.apply(&first, &known).map_err(refused)?
        };
        while let Some(link) = next() {
            state = state.apply(&link?, &known).map_err(refused)?;
        }
        if state.group() != id {
            return Err(wrong("another group"));
        }
        let head = fetched.head.ok_or_else(|| wrong("no signed head"))?;
        let said = GroupHead::verify(&head, &known).map_err(|error| wrong(&error.to_string()))?;
        if !said.is_of(&state) {
            return Err(wrong("the head is not of this group's hub"));
        }
        let term_began = fetched.records.iter().rev().find(|record| begins_term(record)).cloned();
        let checkpoint = fetched.at.filter(|_| !fetched.state.is_empty());
        let checkpoint = checkpoint.map(|at| (at, fetched.state.into()));
        named.servers.insert(state.hub().genesis);
        let numbers = fetched.numbers;
        let joined = Joined { state, head, numbers, term_began, checkpoint, links: fetched.records };
        Ok((joined, named))
    }

    async fn fetch_pages(
        self: &Arc<Self>,
        id: GroupId,
        account: Option<AccountId>,
        from: &Domain,
    ) -> Result<Fetched, Refusal> {
        let too_much = || Code::LIMIT_EXCEEDED.because("the state of a group");
        let mut fetched = Fetched::default();
        let mut request = pb::GroupFetch {
            group: id.to_bytes(),
            account: account.map(|account| account.to_bytes()).unwrap_or_default(),
            from_state: true,
            links_only: true,
            ..Default::default()
        };
        for _ in 0..PAGES_MAX {
            let page: pb::GroupPage = self.ask_home(account, from, &request).await?;
            if fetched.at != page.state_at && !fetched.state.is_empty() && request.from_state {
                // There is a newer checkpoint by now.
                fetched = Fetched::default();
                request.state_offset = 0;
                continue;
            }
            fetched.at.clone_from(&page.state_at);
            fetched.state.extend_from_slice(&page.state);
            if fetched.state.len() > STATE_BYTES_MAX {
                return Err(too_much());
            }
            if page.state_more {
                request.state_offset = u64::try_from(fetched.state.len()).unwrap_or(u64::MAX);
                continue;
            }
            let last = page.records.last().and_then(seq_of);
            fetched.records.extend(page.records);
            fetched.head = page.head.or(fetched.head);
            fetched.numbers.extend(page.numbers);
            fetched.evidence.extend(page.evidence);
            match (page.more, last) {
                (false, _) => return Ok(fetched),
                (true, Some(last)) => {
                    (request.from_state, request.state_offset, request.after_seq) = (false, 0, last);
                }
                (true, None) => return Err(Code::LINK_INVALID.because("an empty page with more behind it")),
            }
        }
        Err(too_much())
    }
}

fn begins_term(record: &pb::GroupRecord) -> bool {
    let body = link_of(record).and_then(|link| pb::GroupLinkBody::decode(link.body).ok());
    body.is_some_and(|body| body.hub_transfer.is_some() || body.hub_succession.is_some())
}

/// The number of a record's entry.
fn seq_of(record: &pb::GroupRecord) -> Option<u64> {
    let entry = pb::Entry::decode(record.entry.clone()).ok()?;
    pb::GroupLink::decode(entry.body).ok().map(|link| link.seq)
}
