//! What servers sign of a group log: its end, and votes for a new term.

use bytes::Bytes;
use prost::Message as _;

use super::{GroupLogError, GroupPosition};
use crate::canonical;
use crate::chain::LinkError;
use crate::chain::group::{GroupEvidence, GroupLinkError, GroupState, ServerRef, ServerSigner};
use crate::chain::group::{check_signer, shape};
use crate::id::{GroupId, LinkId};
use crate::pb;
use crate::sign::{Purpose, Signature, SigningKey};

/// What a hub signs of the end of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupHead {
    /// The group.
    pub group: GroupId,
    /// The last entry.
    pub position: GroupPosition,
    /// The highest number that a majority of the keepers hold durably.
    pub stable: u64,
    /// Who signs.
    pub hub: ServerSigner,
}

impl GroupHead {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let head = pb::GroupHead {
            group: self.group.to_bytes(),
            position: Some(self.position.to_pb()),
            stable: self.stable,
            hub: Some(self.hub.to_pb()),
        };
        head.encode_to_vec().into()
    }

    /// Signed with the hub's key, the one that [`Self::hub`] names.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> pb::SignedGroupHead {
        let body = self.encode();
        let signature = key.sign(Purpose::LOG_HEAD, &body).to_bytes();
        pb::SignedGroupHead { body, signature }
    }

    /// Verifies that the server it names signed it, with a key online at the head it names. Whether that server is
    /// the hub is for [`Self::is_of`].
    ///
    /// # Errors
    /// [`GroupLogError`]: the first rule it breaks, or (in [`GroupLogError::Signer`]) the chain that is missing.
    pub fn verify(signed: &pb::SignedGroupHead, evidence: &dyn GroupEvidence) -> Result<Self, GroupLogError> {
        canonical::scan(&signed.body, &shape::HEAD).map_err(GroupLinkError::from)?;
        let head = pb::GroupHead::decode(signed.body.clone())?;
        let parsed = Self {
            group: GroupId::try_from(&head.group)?,
            position: GroupPosition::parse(head.position.as_ref())?,
            stable: head.stable,
            hub: ServerSigner::parse(head.hub.as_ref())?,
        };
        if parsed.stable > parsed.position.seq {
            return Err(GroupLogError::Stable { stable: parsed.stable, seq: parsed.position.seq });
        }
        check_signer(&parsed.hub, evidence)?;
        let signature = Signature::parse(&signed.signature).map_err(GroupLogError::Signature)?;
        let checked = parsed.hub.key.verify(Purpose::LOG_HEAD, &signed.body, &signature);
        checked.map_err(GroupLogError::Signature)?;
        Ok(parsed)
    }

    /// Whether it is of this group and its hub. At a transfer link that is the old hub: ask the state before it.
    #[must_use]
    pub fn is_of(&self, state: &GroupState) -> bool {
        self.group == state.group() && self.hub.server == *state.hub()
    }

    /// Whether two heads prove that one server signed two histories.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let place =
            |head: &Self| (head.group, head.hub.server.genesis, head.position.term, head.position.seq);
        place(self) == place(other) && self.position.hash != other.position.hash
    }
}

/// What a keeper is asked to vote for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The group.
    pub group: GroupId,
    /// The term.
    pub term: u64,
    /// The entry that it goes on from.
    pub from: GroupPosition,
    /// The hub.
    pub hub: ServerRef,
}

impl Proposal {
    /// The canonical bytes: a vote without its keeper.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.message().encode_to_vec().into()
    }

    /// Reads a vote without its keeper.
    ///
    /// # Errors
    /// [`GroupLinkError::Link`] if it is none.
    pub fn parse(body: &Bytes) -> Result<Self, GroupLinkError> {
        let (proposal, keeper) = read_vote(body)?;
        if keeper.is_some() { Err(GroupLinkError::value("keeper")) } else { Ok(proposal) }
    }

    /// The vote of a keeper for it.
    #[must_use]
    pub fn vote(self, keeper: ServerSigner) -> Vote {
        Vote { group: self.group, term: self.term, from: self.from, hub: self.hub, keeper }
    }

    fn message(&self) -> pb::KeeperVote {
        pb::KeeperVote {
            group: self.group.to_bytes(),
            term: self.term,
            from: Some(self.from.to_pb()),
            hub: Some(self.hub.to_pb()),
            keeper: None,
        }
    }
}

/// A keeper's vote for a new term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// The group.
    pub group: GroupId,
    /// The term.
    pub term: u64,
    /// The entry that it goes on from.
    pub from: GroupPosition,
    /// The hub.
    pub hub: ServerRef,
    /// Whose vote.
    pub keeper: ServerSigner,
}

impl Vote {
    /// What it is for.
    #[must_use]
    pub fn proposal(&self) -> Proposal {
        Proposal { group: self.group, term: self.term, from: self.from, hub: self.hub.clone() }
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let vote = pb::KeeperVote { keeper: Some(self.keeper.to_pb()), ..self.proposal().message() };
        vote.encode_to_vec().into()
    }

    /// Signed with the keeper's key, the one that [`Self::keeper`] names.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> pb::SignedVote {
        let body = self.encode();
        let signature = key.sign(Purpose::KEEPER_VOTE, &body).to_bytes();
        pb::SignedVote { body, signature }
    }

    /// Verifies that the server it names signed it, with a key online at the head it names. Whether that server is
    /// a keeper is for the reader to see.
    ///
    /// # Errors
    /// [`GroupLinkError`]: the first rule it breaks, or the chain that is missing.
    pub fn verify(signed: &pb::SignedVote, evidence: &dyn GroupEvidence) -> Result<Self, GroupLinkError> {
        let vote = Self::parse(&signed.body)?;
        vote.check(signed, evidence)?;
        Ok(vote)
    }

    pub(crate) fn parse(body: &Bytes) -> Result<Self, GroupLinkError> {
        let (proposal, keeper) = read_vote(body)?;
        Ok(proposal.vote(ServerSigner::parse(keeper.as_ref())?))
    }

    pub(crate) fn check(
        &self,
        signed: &pb::SignedVote,
        evidence: &dyn GroupEvidence,
    ) -> Result<(), GroupLinkError> {
        check_signer(&self.keeper, evidence)?;
        let signature = Signature::parse(&signed.signature).map_err(GroupLinkError::VoteSignature)?;
        let checked = self.keeper.key.verify(Purpose::KEEPER_VOTE, &signed.body, &signature);
        checked.map_err(GroupLinkError::VoteSignature)
    }
}

fn read_vote(body: &Bytes) -> Result<(Proposal, Option<pb::ServerSigner>), GroupLinkError> {
    if body.len() > crate::chain::LINK_BYTES_MAX {
        return Err(LinkError::TooLarge(body.len()).into());
    }
    canonical::scan(body, &shape::VOTE)?;
    let vote = pb::KeeperVote::decode(body.clone())?;
    let from = GroupPosition::parse(vote.from.as_ref()).map_err(|_| GroupLinkError::value("from"))?;
    let group = GroupId::try_from(&vote.group)?;
    let hub = ServerRef::parse(vote.hub.as_ref())?;
    Ok((Proposal { group, term: vote.term, from, hub }, vote.keeper))
}

/// A link that begins a term. Of several the canonical history is the one whose link is greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermLink {
    /// The term it begins.
    pub term: u64,
    /// By a majority of the keepers; else by an owner.
    pub by_keepers: bool,
    /// The link.
    pub id: LinkId,
}

impl TermLink {
    /// What a transfer or succession begins; none for other links. The link is not verified here.
    #[must_use]
    pub fn of(link: &pb::Link) -> Option<Self> {
        let body = pb::GroupLinkBody::decode(link.body.clone()).ok()?;
        let id = crate::chain::link_id(Purpose::GROUP_LINK, &link.body);
        match (&body.hub_transfer, &body.hub_succession) {
            (Some(transfer), None) => Some(Self { term: transfer.term, by_keepers: false, id }),
            (None, Some(succession)) => {
                Some(Self { term: succession.term, by_keepers: !succession.votes.is_empty(), id })
            }
            _ => None,
        }
    }
}

impl Ord for TermLink {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let terms = (self.term, self.by_keepers).cmp(&(other.term, other.by_keepers));
        terms.then_with(|| other.id.cmp(&self.id))
    }
}

impl PartialOrd for TermLink {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
