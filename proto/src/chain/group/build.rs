//! Making links. What is made is not checked: apply it.

use bytes::Bytes;
use prost::Message as _;

use super::{ACCEPT, ADD_MEMBERS, ADVANCE, Author, CHECKPOINT, GENESIS, GroupState, HUB_SUCCESSION};
use super::{HUB_TRANSFER, LEAVE, Policy, REMOVE_MEMBERS, REQUIRE_FEATURE, Rank, SET_KEEPERS, SET_POLICY};
use super::{SET_PROFILE, SET_ROLE, ServerRef, ServerSigner};
use crate::chain::sign_link;
use crate::group_log::GroupPosition;
use crate::id::{AccountId, KeyId};
use crate::name::{Address, Domain};
use crate::pb;
use crate::sign::{Purpose, SigningKey};

/// What a genesis says.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// 16 random bytes.
    pub salt: [u8; 16],
    /// The creator's address.
    pub address: Address,
    /// The creator's home.
    pub hub: ServerRef,
    /// Who may do what.
    pub policy: Policy,
    /// The sealed profile; may be empty.
    pub profile: Bytes,
}

/// A change that a link makes.
#[derive(Debug, Clone, PartialEq)]
pub enum GroupChange {
    /// Accounts are invited, each where its invitation goes. By a member of the rank that the policy says.
    AddMembers(Vec<(AccountId, Domain)>),
    /// The author, invited, becomes a member; its domain.
    Accept(Domain),
    /// The author leaves, or declines.
    Leave,
    /// By an admin, of lower ranks; by an owner, of all others.
    RemoveMembers(Vec<AccountId>),
    /// By an owner.
    SetRole(AccountId, Rank),
    /// By an owner.
    SetPolicy(Policy),
    /// The sealed profile. By a member of the rank that the policy says.
    SetProfile(Bytes),
    /// One server more or fewer than before, the others in their order. By an owner.
    SetKeepers(Vec<ServerRef>),
    /// The author's account went on since the head that the chain names.
    Advance {
        /// The domain of its address now.
        domain: Domain,
        /// A device left its list since the head that the chain named before.
        device_removed: bool,
    },
    /// A capability's code. By an owner.
    RequireFeature(u32),
    /// By an owner, then the new hub. The term is the next one.
    HubTransfer(ServerSigner),
    /// By the new hub, with the votes of keepers; without votes by an owner, then the new hub.
    HubSuccession {
        /// Above the current one.
        term: u64,
        /// The entry that the new term goes on from.
        from: GroupPosition,
        /// The new hub.
        hub: ServerSigner,
        /// In any order.
        votes: Vec<pb::SignedVote>,
    },
    /// By the hub.
    Checkpoint(ServerSigner),
}

impl GroupState {
    /// The body of the next link, for these signers in order. Lists are put in order.
    #[must_use]
    pub fn body(&self, author: Option<&Author>, change: &GroupChange, signers: &[KeyId]) -> Bytes {
        let mut body = pb::GroupLinkBody {
            chain: self.group.to_bytes(),
            previous: self.head.to_bytes(),
            number: self.number.saturating_add(1),
            signers: signers.iter().map(KeyId::to_bytes).collect(),
            author: author.map(Author::to_pb),
            ..Default::default()
        };
        body.r#type = match change {
            GroupChange::AddMembers(_)
            | GroupChange::Accept(_)
            | GroupChange::Leave
            | GroupChange::RemoveMembers(_)
            | GroupChange::SetRole(..)
            | GroupChange::Advance { .. } => fill_membership(&mut body, change),
            GroupChange::HubTransfer(_) | GroupChange::HubSuccession { .. } | GroupChange::Checkpoint(_) => {
                self.fill_by_server(&mut body, change)
            }
            _ => fill_setting(&mut body, change),
        };
        body.encode_to_vec().into()
    }

    /// The next link, signed by these keys in order.
    #[must_use]
    pub fn link(&self, author: Option<&Author>, change: &GroupChange, keys: &[&SigningKey]) -> pb::Link {
        let signers: Vec<KeyId> = keys.iter().map(|key| key.public().id()).collect();
        sign_link(Purpose::GROUP_LINK, self.body(author, change, &signers), keys)
    }

    fn fill_by_server(&self, body: &mut pb::GroupLinkBody, change: &GroupChange) -> u32 {
        match change {
            GroupChange::HubTransfer(hub) => {
                let term = self.term.saturating_add(1);
                body.hub_transfer = Some(pb::HubTransfer { term, hub: Some(hub.to_pb()) });
                HUB_TRANSFER
            }
            GroupChange::HubSuccession { term, from, hub, votes } => {
                let mut votes = votes.clone();
                votes.sort_by_cached_key(keeper_of);
                let (from, hub) = (Some(from.to_pb()), Some(hub.to_pb()));
                body.hub_succession = Some(pb::HubSuccession { term: *term, from, hub, votes });
                HUB_SUCCESSION
            }
            GroupChange::Checkpoint(hub) => {
                let state_hash = self.hash().to_bytes();
                body.checkpoint = Some(pb::GroupCheckpoint { state_hash, hub: Some(hub.to_pb()) });
                CHECKPOINT
            }
            _ => body.r#type,
        }
    }
}

fn fill_membership(body: &mut pb::GroupLinkBody, change: &GroupChange) -> u32 {
    match change {
        GroupChange::AddMembers(invitees) => {
            let mut invitees = invitees.clone();
            invitees.sort();
            let invitee = |(account, domain): &(AccountId, Domain)| pb::Invitee {
                account: account.to_bytes(),
                domain: domain.to_string(),
            };
            body.add_members = Some(pb::AddMembers { members: invitees.iter().map(invitee).collect() });
            ADD_MEMBERS
        }
        GroupChange::Accept(domain) => {
            body.accept = Some(pb::AcceptMembership { domain: domain.to_string() });
            ACCEPT
        }
        GroupChange::Leave => {
            body.leave = Some(pb::Leave {});
            LEAVE
        }
        GroupChange::RemoveMembers(accounts) => {
            let mut accounts = accounts.clone();
            accounts.sort();
            let accounts = accounts.iter().map(AccountId::to_bytes).collect();
            body.remove_members = Some(pb::RemoveMembers { accounts });
            REMOVE_MEMBERS
        }
        GroupChange::SetRole(account, rank) => {
            body.set_role = Some(pb::SetRole { account: account.to_bytes(), rank: rank.to_pb().into() });
            SET_ROLE
        }
        GroupChange::Advance { domain, device_removed } => {
            let (domain, device_removed) = (domain.to_string(), *device_removed);
            body.advance = Some(pb::Advance { domain, device_removed });
            ADVANCE
        }
        _ => body.r#type,
    }
}

fn fill_setting(body: &mut pb::GroupLinkBody, change: &GroupChange) -> u32 {
    match change {
        GroupChange::SetPolicy(policy) => {
            body.set_policy = Some(policy.to_pb());
            SET_POLICY
        }
        GroupChange::SetProfile(profile) => {
            body.set_profile = Some(pb::SetProfile { profile: profile.clone() });
            SET_PROFILE
        }
        GroupChange::SetKeepers(keepers) => {
            let keepers = keepers.iter().map(ServerRef::to_pb).collect();
            body.set_keepers = Some(pb::SetKeepers { keepers });
            SET_KEEPERS
        }
        GroupChange::RequireFeature(feature) => {
            body.require_feature = Some(pb::RequireFeature { feature: *feature });
            REQUIRE_FEATURE
        }
        _ => body.r#type,
    }
}

fn keeper_of(vote: &pb::SignedVote) -> Bytes {
    let vote = pb::KeeperVote::decode(vote.body.clone()).unwrap_or_default();
    vote.keeper.and_then(|keeper| keeper.server).unwrap_or_default().genesis
}

/// The body of a genesis, for the creator's device.
#[must_use]
pub fn genesis_body(author: &Author, new: &NewGroup, signer: &KeyId) -> Bytes {
    let body = pb::GroupLinkBody {
        r#type: GENESIS,
        signers: vec![signer.to_bytes()],
        author: Some(author.to_pb()),
        genesis: Some(pb::GroupGenesis {
            salt: Bytes::copy_from_slice(&new.salt),
            address: new.address.to_string(),
            hub: Some(new.hub.to_pb()),
            policy: Some(new.policy.to_pb()),
            profile: new.profile.clone(),
        }),
        ..Default::default()
    };
    body.encode_to_vec().into()
}

/// A genesis, signed by the creator's device.
#[must_use]
pub fn genesis(author: &Author, new: &NewGroup, key: &SigningKey) -> pb::Link {
    sign_link(Purpose::GROUP_LINK, genesis_body(author, new, &key.public().id()), &[key])
}
