//! What a group chain says after a link, and its one encoding.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::{FEATURES_MAX, GroupLinkError, KEEPERS_MAX, MEMBERS_MAX, Member, PROFILE_BYTES_MAX};
use super::{Policy, Rank, ServerRef};
use crate::id::{AccountId, GroupId, Hash, LinkId};
use crate::name::Domain;
use crate::pb;
use crate::sign::sha256;

/// The state after a link. Cheap to clone: a copy of 1,024 members copies as many pointers, and only when changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupState {
    pub(super) group: GroupId,
    pub(super) head: LinkId,
    pub(super) number: u64,
    pub(super) term: u64,
    pub(super) hub: ServerRef,
    pub(super) keepers: Arc<[ServerRef]>,
    pub(super) policy: Policy,
    pub(super) profile: Bytes,
    pub(super) members: Arc<BTreeMap<AccountId, Arc<Member>>>,
    pub(super) rotated: u64,
    pub(super) rotated_head: LinkId,
    pub(super) features: Arc<[u32]>,
    pub(super) checkpoint: u64,
    pub(super) closed: bool,
}

impl GroupState {
    /// The group: the id of the genesis.
    #[must_use]
    pub const fn group(&self) -> GroupId {
        self.group
    }

    /// Id of the newest link.
    #[must_use]
    pub const fn head(&self) -> LinkId {
        self.head
    }

    /// Its number; the genesis is 0.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The hub's term, from 1.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The server that sequences the log.
    #[must_use]
    pub const fn hub(&self) -> &ServerRef {
        &self.hub
    }

    /// The servers that hold the log and vote, in the order of the link that set them.
    #[must_use]
    pub fn keepers(&self) -> &[ServerRef] {
        &self.keepers
    }

    /// How many keepers are a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        (self.keepers.len() / 2).saturating_add(1)
    }

    /// Who may do what.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The sealed profile; may be empty.
    #[must_use]
    pub const fn profile(&self) -> &Bytes {
        &self.profile
    }

    /// Members and invited accounts, ascending by account.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&AccountId, &Member)> {
        self.members.iter().map(|(account, member)| (account, member.as_ref()))
    }

    /// A member or an invited account.
    #[must_use]
    pub fn member(&self, account: &AccountId) -> Option<&Member> {
        self.members.get(account).map(AsRef::as_ref)
    }

    /// A member: not one that is only invited.
    #[must_use]
    pub fn full_member(&self, account: &AccountId) -> Option<&Member> {
        self.member(account).filter(|member| !member.invited)
    }

    /// Members and invited accounts of a domain, ascending by account.
    pub fn members_of<'a>(&'a self, domain: &'a Domain) -> impl Iterator<Item = (&'a AccountId, &'a Member)> {
        self.members().filter(move |(_, member)| member.domain == *domain)
    }

    /// The domains of members; those of accounts only invited do not count.
    #[must_use]
    pub fn domains(&self) -> BTreeSet<&Domain> {
        self.members().filter(|(_, member)| !member.invited).map(|(_, member)| &member.domain).collect()
    }

    /// Whether a member of this account may post.
    #[must_use]
    pub fn may_post(&self, account: &AccountId) -> bool {
        self.full_member(account).is_some_and(|member| member.rank >= self.policy.posts)
    }

    /// Number of the last link after which posts under older heads are refused; 0 if there was none.
    #[must_use]
    pub const fn rotated(&self) -> u64 {
        self.rotated
    }

    /// Id of that link; the genesis if there was none.
    #[must_use]
    pub const fn rotated_head(&self) -> LinkId {
        self.rotated_head
    }

    /// The features that are required, ascending by code.
    #[must_use]
    pub fn features(&self) -> &[u32] {
        &self.features
    }

    /// Number of the last checkpoint; 0 if there was none.
    #[must_use]
    pub const fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// Links after the last checkpoint, or the genesis.
    #[must_use]
    pub const fn since_checkpoint(&self) -> u64 {
        self.number.saturating_sub(self.checkpoint)
    }

    /// Whether the last member has left: nothing follows.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// As a message.
    #[must_use]
    pub fn to_pb(&self) -> pb::GroupState {
        pb::GroupState {
            group: self.group.to_bytes(),
            head: self.head.to_bytes(),
            number: self.number,
            term: self.term,
            hub: Some(self.hub.to_pb()),
            keepers: self.keepers.iter().map(ServerRef::to_pb).collect(),
            policy: Some(self.policy.to_pb()),
            profile: self.profile.clone(),
            members: self.members().map(|(account, member)| member.to_pb(account)).collect(),
            rotated: self.rotated,
            features: self.features.to_vec(),
            checkpoint: self.checkpoint,
            rotated_head: self.rotated_head.to_bytes(),
        }
    }

    /// The one encoding: what a checkpoint's hash is over.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.to_pb().encode_to_vec().into()
    }

    /// SHA-256 of the encoding.
    #[must_use]
    pub fn hash(&self) -> Hash {
        sha256(&self.encode())
    }

    /// The state that a trusted hash is of: a checkpoint's, as a member's invitation names it.
    ///
    /// # Errors
    /// [`GroupLinkError::Snapshot`] for bytes of another hash, [`GroupLinkError::State`] for bytes that no state has.
    pub fn from_snapshot(bytes: &[u8], expected: &Hash) -> Result<Self, GroupLinkError> {
        if sha256(bytes) == *expected { Self::from_trusted(bytes) } else { Err(GroupLinkError::Snapshot) }
    }

    /// The state of bytes that this very side stored after it had verified them. Never of bytes that came from
    /// elsewhere: nothing here proves that a chain leads to this state.
    ///
    /// # Errors
    /// [`GroupLinkError`] if they are not the encoding of a state.
    pub fn from_trusted(bytes: &[u8]) -> Result<Self, GroupLinkError> {
        let message = pb::GroupState::decode(bytes)?;
        let state = Self::parse(&message)?;
        if state.encode() == bytes { Ok(state) } else { Err(GroupLinkError::State("another encoding")) }
    }

    fn parse(state: &pb::GroupState) -> Result<Self, GroupLinkError> {
        let mut members = BTreeMap::new();
        for member in &state.members {
            let (account, member) = Member::parse(member)?;
            if members.insert(account, Arc::new(member)).is_some() {
                return Err(GroupLinkError::State("an account twice"));
            }
        }
        let keepers = state.keepers.iter().map(|keeper| ServerRef::parse(Some(keeper)));
        let parsed = Self {
            group: GroupId::try_from(&state.group)?,
            head: LinkId::try_from(&state.head)?,
            number: state.number,
            term: state.term,
            hub: ServerRef::parse(state.hub.as_ref())?,
            keepers: checked_keepers(keepers.collect::<Result<_, _>>()?)?,
            policy: Policy::parse(state.policy.as_ref().ok_or(GroupLinkError::State("no policy"))?)?,
            profile: state.profile.clone(),
            closed: !members.values().any(|member| !member.invited),
            members: Arc::new(members),
            rotated: state.rotated,
            rotated_head: LinkId::try_from(&state.rotated_head)?,
            features: state.features.as_slice().into(),
            checkpoint: state.checkpoint,
        };
        parsed.consistent().map_or(Ok(parsed), |what| Err(GroupLinkError::State(what)))
    }

    /// What no chain leads to.
    fn consistent(&self) -> Option<&'static str> {
        let ascending = self.features.windows(2).all(|pair| pair.first() < pair.last());
        let numbers = [self.rotated, self.checkpoint];
        let since = self.members.values().map(|member| member.since);
        if self.term == 0 {
            Some("term 0")
        } else if self.members.len() > MEMBERS_MAX || self.profile.len() > PROFILE_BYTES_MAX {
            Some("larger than its limit")
        } else if !ascending || self.features.len() > FEATURES_MAX {
            Some("features")
        } else if numbers.into_iter().chain(since).any(|number| number > self.number) {
            Some("a number that is later than the head")
        } else if (self.number == 0) != (self.head.0 == self.group.0) {
            Some("the head is not of its number")
        } else if !self.closed && !self.has_owner() {
            Some("no owner")
        } else {
            None
        }
    }

    pub(super) fn has_owner(&self) -> bool {
        self.members.values().any(|member| member.rank == Rank::Owner)
    }
}

/// 1 to 7 servers, no domain and no chain twice.
pub(super) fn checked_keepers(keepers: Vec<ServerRef>) -> Result<Arc<[ServerRef]>, GroupLinkError> {
    let domains: BTreeSet<_> = keepers.iter().map(|keeper| &keeper.domain).collect();
    let chains: BTreeSet<_> = keepers.iter().map(|keeper| keeper.genesis).collect();
    let count = keepers.len();
    if count == 0 || count > KEEPERS_MAX || domains.len() != count || chains.len() != count {
        return Err(GroupLinkError::value("keepers"));
    }
    Ok(keepers.into())
}
