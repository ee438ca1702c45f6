//! A group's chain in pages: asked for, put together, verified (spec 07-groups, "Joining").

use prost::Message as _;
use tidings_proto::chain::GroupState;
use tidings_proto::chain::group::Missing;
use tidings_proto::error::Code;
use tidings_proto::group_log::{GroupEntry, GroupPosition};
use tidings_proto::id::{GroupId, Hash};
use tidings_proto::pb;

use super::links::{is_about, is_genesis};
use super::{Answer, Answered, gone};
use crate::engine::Engine;
use crate::engine::session::Session;
use crate::error::StoreError;
use crate::home::{Home, HomeError};
use crate::store::groups::Chat;

/// Pages of one fetch: bounded by what a checkpoint and the links after it can hold.
const PAGES: usize = 4096;
/// Why a group's chain is read.
pub(crate) enum Purpose {
    /// To accept an invitation.
    Accept(Option<Answer>),
    /// To decline one.
    Decline(Answer),
    /// This account is a member already, by another device.
    Adopt,
    /// The place that is held leads nowhere.
    Resync,
}

/// A reading of a group's chain.
pub(crate) struct Reading {
    pub(super) group: GroupId,
    pub(super) purpose: Purpose,
    server: Option<pb::ServerRef>,
    /// The hash of the checkpoint's state that somebody vouches for.
    expected: Option<Hash>,
    /// From the last checkpoint; else from the genesis, or after a place that is held.
    pub(super) from_state: bool,
    pub(super) after_seq: u64,
    /// Chains that were asked for so far.
    pub(super) chains: u32,
}

impl Reading {
    pub(super) const fn new(group: GroupId, purpose: Purpose, after_seq: u64) -> Self {
        Self { group, purpose, server: None, expected: None, from_state: false, after_seq, chains: 0 }
    }

    /// Of a group that is known by an invitation.
    pub(super) fn of(chat: &Chat, purpose: Purpose) -> Self {
        let invitation = chat.invitation.clone().unwrap_or_default();
        let expected = Hash::try_from(&invitation.checkpoint_hash).ok();
        let from_state = expected.is_some();
        Self { server: invitation.hub, expected, from_state, ..Self::new(chat.id, purpose, 0) }
    }
}

/// What a reading brought.
#[derive(Default)]
pub(crate) struct Pages {
    state: Vec<u8>,
    pub(super) records: Vec<pb::GroupRecord>,
    head: Option<pb::SignedGroupHead>,
    pub(super) evidence: Vec<pb::Evidence>,
}

impl Pages {
    /// The number that the signed head says is the last.
    fn end(&self) -> Option<u64> {
        let head = pb::GroupHead::decode(self.head.as_ref()?.body.clone()).ok()?;
        head.position.map(|position| position.seq)
    }
}

/// What verified pages come to.
pub(super) struct Verified {
    pub(super) state: GroupState,
    pub(super) position: GroupPosition,
    pub(super) head: pb::SignedGroupHead,
    /// Each link with its number in the log and the state after it.
    pub(super) links: Vec<(u64, pb::Link, GroupState)>,
}

/// Why pages are not taken.
pub(super) enum NotVerified {
    /// A chain is missing.
    Missing(Missing),
    /// Another way to read may do.
    OtherState,
    /// They break a rule.
    Invalid(String),
}

impl Engine {
    /// Asks for pages.
    pub(super) fn read(&self, session: &mut Session, reading: Reading) {
        let request = pb::GroupFetch {
            group: reading.group.to_bytes(),
            server: reading.server.clone(),
            after_seq: reading.after_seq,
            from_state: reading.from_state,
            links_only: true,
            ..Default::default()
        };
        let connection = session.connection.clone();
        session.groups.asks.spawn(async move {
            Answered::Pages(Box::new(reading), fetch(&connection, request).await.map(Box::new))
        });
    }

    /// Verifies pages; `before` is the state that their links go on from, if one is held.
    pub(super) async fn verify_pages(
        &mut self,
        reading: &Reading,
        before: Option<GroupState>,
        pages: &Pages,
    ) -> Result<Result<Verified, NotVerified>, StoreError> {
        let invalid = |text: &str| Ok(Err(NotVerified::Invalid(text.to_owned())));
        let mut evidence = pages.evidence.clone();
        evidence.extend(pages.records.iter().flat_map(|record| record.evidence.iter().cloned()));
        let mut chains = super::evidence::beside(&evidence);
        let mut state = before;
        if !pages.state.is_empty() {
            let held = self.chat(reading.group).await?.and_then(|chat| chat.state);
            let Some(read) = snapshot(reading, held.as_ref(), pages) else {
                return Ok(Err(NotVerified::OtherState));
            };
            state = Some(read);
        }
        let mut links = Vec::new();
        for record in &pages.records {
            let Ok(entry) = GroupEntry::parse(&record.entry) else { continue };
            let Some(link) = entry.link() else { continue };
            if entry.group() != reading.group || !is_about(reading.group, link) {
                return invalid("a link of another group");
            }
            if state.is_none() && !is_genesis(link) {
                return Ok(Err(NotVerified::OtherState));
            }
            let after = match self.judge(&mut chains, state.as_ref(), link).await? {
                Ok(after) => after,
                Err(error) => {
                    let missing = error.missing().map(NotVerified::Missing);
                    let stale = error.code() == Code::STALE_GROUP_LINK;
                    let other = stale.then_some(NotVerified::OtherState);
                    return Ok(Err(missing
                        .or(other)
                        .unwrap_or_else(|| NotVerified::Invalid(error.to_string()))));
                }
            };
            links.push((entry.seq(), link.clone(), after.clone()));
            state = Some(after);
        }
        let Some(state) = state else { return Ok(Err(NotVerified::OtherState)) };
        if state.group() != reading.group {
            return invalid("the chain of another group");
        }
        let Some(signed) = pages.head.clone() else { return invalid("no signed head") };
        let head = match self.judge_head(&mut chains, &signed).await? {
            Ok(head) => head,
            Err(error) => return Ok(Err(NotVerified::Invalid(error.to_string()))),
        };
        let last = links.last().map_or(0, |(seq, _, _)| *seq);
        if head.group != reading.group || head.position.seq < last {
            return invalid("a head of another log");
        }
        if !head.is_of(&state) && head.position.term >= state.term() {
            return invalid("a head that the hub did not sign");
        }
        Ok(Ok(Verified { state, position: head.position, head: signed, links }))
    }
}

/// The state that pages begin with, if it is the one vouched for: by an inviter, or, in a group that is known, by a
/// checkpoint that is signed by the hub held here, of the term held here.
fn snapshot(reading: &Reading, held: Option<&GroupState>, pages: &Pages) -> Option<GroupState> {
    let expected = match reading.expected {
        Some(expected) => expected,
        None => {
            let entry = GroupEntry::parse(&pages.records.first()?.entry).ok()?;
            let body = pb::GroupLinkBody::decode(entry.link()?.body.clone()).ok()?;
            Hash::try_from(&body.checkpoint?.state_hash).ok()?
        }
    };
    let state = GroupState::from_snapshot(&pages.state, &expected).ok()?;
    let anchored = reading.expected.is_some()
        || held.is_some_and(|held| (held.hub(), held.term()) == (state.hub(), state.term()));
    (anchored && state.group() == reading.group).then_some(state)
}

/// All pages of a fetch.
async fn fetch(connection: &quinn::Connection, mut request: pb::GroupFetch) -> Result<Pages, HomeError> {
    let mut pipeline = Home::pipeline_on(connection).await?;
    let mut pages = Pages::default();
    for _ in 0..PAGES {
        let page: pb::GroupPage = pipeline.ask(&request).await?;
        let (no_state, no_records) = (page.state.is_empty(), page.records.is_empty());
        pages.state.extend_from_slice(&page.state);
        pages.records.extend(page.records);
        pages.evidence.extend(page.evidence);
        pages.head = page.head.or(pages.head);
        if page.state_more {
            if no_state {
                return Err(gone());
            }
            request.state_offset = u64::try_from(pages.state.len()).unwrap_or(u64::MAX);
        } else if page.more {
            let last = pages.records.last().and_then(|record| GroupEntry::parse(&record.entry).ok());
            let next = if no_records { request.after_seq.saturating_add(1) } else { 0 };
            // A page of messages that were left out says nothing of where it ended.
            request.after_seq = last.map_or(0, |entry| entry.seq()).max(next);
            request.from_state = false;
            if no_records && pages.end().is_some_and(|end| request.after_seq >= end) {
                return Ok(pages);
            }
        } else {
            return Ok(pages);
        }
    }
    Err(gone())
}
