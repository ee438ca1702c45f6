//! What links and states of a group are made of, parsed.

use bytes::Bytes;

use super::GroupLinkError;
use crate::id::{AccountId, DeviceId, LinkId, ServerId};
use crate::name::Domain;
use crate::pb;
use crate::sign::PublicKey;

/// What a member may do; each may do what those below it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// Reads, and does what the policy leaves to everybody.
    Member,
    /// Removes members.
    Admin,
    /// Everything.
    Owner,
}

impl Rank {
    /// The rank of a wire value.
    #[must_use]
    pub fn from_wire(value: i32) -> Option<Self> {
        match pb::Rank::try_from(value).ok()? {
            pb::Rank::Unspecified => None,
            pb::Rank::Member => Some(Self::Member),
            pb::Rank::Admin => Some(Self::Admin),
            pb::Rank::Owner => Some(Self::Owner),
        }
    }

    /// The wire value.
    #[must_use]
    pub const fn to_pb(self) -> pb::Rank {
        match self {
            Self::Member => pb::Rank::Member,
            Self::Admin => pb::Rank::Admin,
            Self::Owner => pb::Rank::Owner,
        }
    }

    pub(super) fn parse(value: i32) -> Result<Self, GroupLinkError> {
        Self::from_wire(value).ok_or(GroupLinkError::value("rank"))
    }
}

/// Which rank may do what, and how many may be in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The least rank that may post.
    pub posts: Rank,
    /// The least rank that may add members.
    pub adds: Rank,
    /// The least rank that may change the profile.
    pub edits: Rank,
    /// Members and invited together.
    pub members_max: u32,
}

impl Default for Policy {
    /// Everybody posts, admins add and edit, the registered default number of members.
    fn default() -> Self {
        Self {
            posts: Rank::Member,
            adds: Rank::Admin,
            edits: Rank::Admin,
            members_max: u32::try_from(crate::limits::GROUP_MEMBERS_DEFAULT).unwrap_or(u32::MAX),
        }
    }
}

impl Policy {
    /// As a message.
    #[must_use]
    pub const fn to_pb(&self) -> pb::Policy {
        pb::Policy {
            posts: self.posts.to_pb() as i32,
            adds: self.adds.to_pb() as i32,
            edits: self.edits.to_pb() as i32,
            members_max: self.members_max,
        }
    }

    pub(super) fn parse(policy: &pb::Policy) -> Result<Self, GroupLinkError> {
        let members_max = policy.members_max;
        if members_max == 0 || u64::from(members_max) > super::MEMBERS_MAX as u64 {
            return Err(GroupLinkError::value("members_max"));
        }
        Ok(Self {
            posts: Rank::parse(policy.posts)?,
            adds: Rank::parse(policy.adds)?,
            edits: Rank::parse(policy.edits)?,
            members_max,
        })
    }
}

/// A server by its domain and its chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerRef {
    /// The domain.
    pub domain: Domain,
    /// The genesis of its chain.
    pub genesis: ServerId,
}

impl ServerRef {
    /// Reads a message.
    ///
    /// # Errors
    /// [`GroupLinkError::Link`] if it is absent, or domain or id are none.
    pub fn parse(server: Option<&pb::ServerRef>) -> Result<Self, GroupLinkError> {
        let server = server.ok_or(GroupLinkError::value("server"))?;
        Ok(Self { domain: Domain::parse(&server.domain)?, genesis: ServerId::try_from(&server.genesis)? })
    }

    /// As a message.
    #[must_use]
    pub fn to_pb(&self) -> pb::ServerRef {
        pb::ServerRef { domain: self.domain.to_string(), genesis: self.genesis.to_bytes() }
    }
}

/// A server that signs: with a key that is online on its chain as of `head`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSigner {
    /// Who.
    pub server: ServerRef,
    /// A link of its chain.
    pub head: LinkId,
    /// The key.
    pub key: PublicKey,
}

impl ServerSigner {
    /// Reads a message.
    ///
    /// # Errors
    /// [`GroupLinkError::Link`] if it is absent or a part of it is none.
    pub fn parse(signer: Option<&pb::ServerSigner>) -> Result<Self, GroupLinkError> {
        let signer = signer.ok_or(GroupLinkError::value("signing server"))?;
        Ok(Self {
            server: ServerRef::parse(signer.server.as_ref())?,
            head: LinkId::try_from(&signer.head)?,
            key: PublicKey::parse(&signer.key).map_err(crate::chain::LinkError::Key)?,
        })
    }

    /// As a message.
    #[must_use]
    pub fn to_pb(&self) -> pb::ServerSigner {
        pb::ServerSigner {
            server: Some(self.server.to_pb()),
            head: self.head.to_bytes(),
            key: self.key.to_bytes(),
        }
    }
}

/// The device that makes a link, on its account's chain as of `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Author {
    /// The account.
    pub account: AccountId,
    /// The device.
    pub device: DeviceId,
    /// The account chain's head as the device holds it.
    pub head: LinkId,
    /// That link's number.
    pub number: u64,
}

impl Author {
    /// As a message.
    #[must_use]
    pub fn to_pb(&self) -> pb::Author {
        pb::Author {
            account: self.account.to_bytes(),
            device: self.device.to_bytes(),
            account_head: self.head.to_bytes(),
            account_number: self.number,
        }
    }

    pub(super) fn parse(author: &pb::Author) -> Result<Self, GroupLinkError> {
        Ok(Self {
            account: AccountId::try_from(&author.account)?,
            device: DeviceId::try_from(&author.device)?,
            head: LinkId::try_from(&author.account_head)?,
            number: author.account_number,
        })
    }
}

/// An account in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where it is: of its address at `head`; of an invited account, where the invitation went.
    pub domain: Domain,
    /// Its rank.
    pub rank: Rank,
    /// Added, and has not accepted.
    pub invited: bool,
    /// The number of the link that added it.
    pub since: u64,
    /// The newest link of its account's chain that this chain names; none while it is invited.
    pub head: Option<LinkId>,
    /// That link's number.
    pub number: u64,
    /// Who added it; none for the creator.
    pub added_by: Option<AccountId>,
}

impl Member {
    pub(super) fn to_pb(&self, account: &AccountId) -> pb::GroupMember {
        pb::GroupMember {
            account: account.to_bytes(),
            domain: self.domain.to_string(),
            rank: self.rank.to_pb().into(),
            invited: self.invited,
            since: self.since,
            account_head: self.head.map_or_else(Bytes::new, |head| head.to_bytes()),
            account_number: self.number,
            added_by: self.added_by.map_or_else(Bytes::new, |account| account.to_bytes()),
        }
    }

    pub(super) fn parse(member: &pb::GroupMember) -> Result<(AccountId, Self), GroupLinkError> {
        let head = LinkId::optional(&member.account_head)?;
        let parsed = Self {
            domain: Domain::parse(&member.domain)?,
            rank: Rank::parse(member.rank)?,
            invited: member.invited,
            since: member.since,
            head,
            number: member.account_number,
            added_by: AccountId::optional(&member.added_by)?,
        };
        let bare = head.is_none() && parsed.number == 0 && parsed.rank == Rank::Member;
        if if parsed.invited { !bare } else { head.is_none() } {
            return Err(GroupLinkError::State("an invited account has a head, or a member has none"));
        }
        Ok((AccountId::try_from(&member.account)?, parsed))
    }
}
