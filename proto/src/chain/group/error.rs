//! Why a group link cannot stand where it is.

use crate::canonical::CanonicalError;
use crate::chain::LinkError;
use crate::error::Code;
use crate::id::{AccountId, IdError, LinkId, ServerId};
use crate::name::NameError;
use crate::sign::SignError;

/// A chain that has to be at hand to judge, and is not. Nothing is said of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// An account's chain up to this link.
    #[error("account {id:?} up to {head:?}")]
    Account {
        /// Whose chain.
        id: AccountId,
        /// Up to which link.
        head: LinkId,
    },
    /// A server's chain up to this link.
    #[error("server {genesis:?} up to {head:?}")]
    Server {
        /// Which chain.
        genesis: ServerId,
        /// Up to which link.
        head: LinkId,
    },
}

/// Why a group link, a vote or a state is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupLinkError {
    /// What can be wrong with a link of any chain: form, place, field, signers, signatures.
    #[error("link of a group")]
    Link(#[from] LinkError),
    /// A chain is missing: neither good nor bad. Get it and ask again.
    #[error("a chain is missing")]
    EvidenceMissing(#[source] Missing),
    /// A link that a device makes has no author, or one that a server makes has one.
    #[error("author where none belongs, or none where one does")]
    Author,
    /// The author's account is not a member (to accept: not invited).
    #[error("the author's account {0:?} is not a member")]
    NotMember(AccountId),
    /// The account is a member or invited already.
    #[error("account {0:?} is in the group already")]
    Member(AccountId),
    /// The account that the link is about is not in the group, or only invited.
    #[error("account {0:?} is not in the group")]
    Absent(AccountId),
    /// The author's rank does not allow it.
    #[error("the author's rank is too low")]
    RankTooLow,
    /// The device is not on the account's list at the head that is named, or the account is closed there.
    #[error("the device is not on the list at the head that is named")]
    NotListed,
    /// The number named is not the one of the head named.
    #[error("account head {got} is number {expected}")]
    AccountNumber {
        /// What the chain says.
        expected: u64,
        /// What the link says.
        got: u64,
    },
    /// The account head is older than one named before in this chain, or of another branch.
    #[error("the account head does not extend the one named before")]
    StaleAccount,
    /// The link says something else of the author's account than the account's chain.
    #[error("the account's chain says another {0}")]
    Account(&'static str),
    /// More members and invited than the policy allows.
    #[error("the group is full")]
    Full,
    /// The state would have no owner.
    #[error("the group would have no owner")]
    NoOwner,
    /// Not the term that can follow.
    #[error("term {got} after term {current}")]
    Term {
        /// The term of the state.
        current: u64,
        /// The term of the link.
        got: u64,
    },
    /// The server's chain says another domain, or the key is not online at the head that is named.
    #[error("the server's chain does not list that domain and key")]
    Server,
    /// A checkpoint by another server than the hub.
    #[error("not by the hub")]
    NotHub,
    /// Fewer votes than a majority of the keepers.
    #[error("{got} votes of {keepers} keepers")]
    Votes {
        /// Good votes.
        got: usize,
        /// Keepers.
        keepers: usize,
    },
    /// A vote for something else, of a server that is no keeper, or twice of one.
    #[error("vote {0} does not belong here")]
    Vote(usize),
    /// A vote's signature.
    #[error("signature of a vote")]
    VoteSignature(#[source] SignError),
    /// A checkpoint with the hash of another state.
    #[error("the checkpoint is of another state")]
    Checkpoint,
    /// No checkpoint can stand here: none is due after none.
    #[error("a checkpoint right after another")]
    CheckpointEarly,
    /// Nothing but a checkpoint, a transfer or a succession can stand here.
    #[error("a checkpoint is due")]
    CheckpointDue,
    /// A snapshot with another hash than the one expected.
    #[error("the snapshot has another hash")]
    Snapshot,
    /// Bytes that are not the one encoding of a state.
    #[error("not the encoding of a state: {0}")]
    State(&'static str),
}

impl GroupLinkError {
    /// The registered code that a peer is told.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Link(LinkError::Number { .. } | LinkError::Previous { .. }) => Code::STALE_GROUP_LINK,
            Self::EvidenceMissing(_) => Code::EVIDENCE_MISSING,
            Self::NotMember(_) => Code::NOT_A_MEMBER,
            Self::RankTooLow => Code::RANK_TOO_LOW,
            Self::Full => Code::GROUP_FULL,
            _ => Code::LINK_INVALID,
        }
    }

    /// The chain that is missing, if that is all.
    #[must_use]
    pub const fn missing(&self) -> Option<Missing> {
        if let Self::EvidenceMissing(missing) = self { Some(*missing) } else { None }
    }

    pub(crate) const fn value(what: &'static str) -> Self {
        Self::Link(LinkError::Value(what))
    }
}

impl From<IdError> for GroupLinkError {
    fn from(error: IdError) -> Self {
        Self::Link(error.into())
    }
}

impl From<NameError> for GroupLinkError {
    fn from(error: NameError) -> Self {
        Self::Link(error.into())
    }
}

impl From<CanonicalError> for GroupLinkError {
    fn from(error: CanonicalError) -> Self {
        Self::Link(error.into())
    }
}

impl From<prost::DecodeError> for GroupLinkError {
    fn from(error: prost::DecodeError) -> Self {
        Self::Link(error.into())
    }
}
