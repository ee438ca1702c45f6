//! Links that servers sign: a hub hands over, another takes its place, a hub restates the state.

use super::{CHECKPOINT, GroupEvidence, GroupLinkError, GroupState, HUB_SUCCESSION, HUB_TRANSFER};
use super::{ServerSigner, check_signer};
use crate::group_log::{GroupPosition, Vote};
use crate::id::{Hash, ServerId};
use crate::pb;
use crate::sign::PublicKey;

impl GroupState {
    /// What a server's signature changes, and the key that has to have signed.
    pub(super) fn change_by_server(
        &mut self,
        before: &Self,
        body: &pb::GroupLinkBody,
        evidence: &dyn GroupEvidence,
    ) -> Result<Option<PublicKey>, GroupLinkError> {
        match (body.r#type, &body.hub_transfer, &body.hub_succession, &body.checkpoint) {
            (HUB_TRANSFER, Some(transfer), ..) => self.transfer(before, transfer, evidence).map(Some),
            (HUB_SUCCESSION, _, Some(succession), _) => self.succeed(before, succession, evidence).map(Some),
            (CHECKPOINT, .., Some(checkpoint)) => self.restate(before, checkpoint, evidence).map(Some),
            _ => Ok(None),
        }
    }

    fn transfer(
        &mut self,
        before: &Self,
        transfer: &pb::HubTransfer,
        evidence: &dyn GroupEvidence,
    ) -> Result<PublicKey, GroupLinkError> {
        if before.term.checked_add(1) != Some(transfer.term) {
            return Err(GroupLinkError::Term { current: before.term, got: transfer.term });
        }
        let hub = ServerSigner::parse(transfer.hub.as_ref())?;
        if hub.server.genesis == before.hub.genesis {
            return Err(GroupLinkError::value("hub"));
        }
        check_signer(&hub, evidence)?;
        self.term = transfer.term;
        self.hub = hub.server;
        Ok(hub.key)
    }

    fn succeed(
        &mut self,
        before: &Self,
        succession: &pb::HubSuccession,
        evidence: &dyn GroupEvidence,
    ) -> Result<PublicKey, GroupLinkError> {
        let term = succession.term;
        if term <= before.term {
            return Err(GroupLinkError::Term { current: before.term, got: term });
        }
        let from =
            GroupPosition::parse(succession.from.as_ref()).map_err(|_| GroupLinkError::value("from"))?;
        // Every link has an entry of its own, so the head cannot lie beyond what the log goes on from.
        if from.seq <= before.number || from.term > before.term {
            return Err(GroupLinkError::value("from"));
        }
        let hub = ServerSigner::parse(succession.hub.as_ref())?;
        if !succession.votes.is_empty() {
            let wanted = (term, from, &hub);
            before.count_votes(&succession.votes, wanted, evidence)?;
        }
        check_signer(&hub, evidence)?;
        self.term = term;
        self.hub = hub.server;
        Ok(hub.key)
    }

    /// Every vote has to be good, of another keeper, for the same, and they a majority.
    fn count_votes(
        &self,
        votes: &[pb::SignedVote],
        (term, from, hub): (u64, GroupPosition, &ServerSigner),
        evidence: &dyn GroupEvidence,
    ) -> Result<(), GroupLinkError> {
        if votes.len() < self.majority() {
            return Err(GroupLinkError::Votes { got: votes.len(), keepers: self.keepers.len() });
        }
        let mut last: Option<ServerId> = None;
        for (place, signed) in votes.iter().enumerate() {
            let vote = Vote::parse(&signed.body)?;
            let keeper = vote.keeper.server.genesis;
            let same =
                (vote.group, vote.term, vote.from) == (self.group, term, from) && vote.hub == hub.server;
            if !same || !self.keepers.contains(&vote.keeper.server) || last >= Some(keeper) {
                return Err(GroupLinkError::Vote(place));
            }
            vote.check(signed, evidence)?;
            last = Some(keeper);
        }
        Ok(())
    }

    fn restate(
        &mut self,
        before: &Self,
        checkpoint: &pb::GroupCheckpoint,
        evidence: &dyn GroupEvidence,
    ) -> Result<PublicKey, GroupLinkError> {
        if before.since_checkpoint() == 0 {
            return Err(GroupLinkError::CheckpointEarly);
        }
        let hub = ServerSigner::parse(checkpoint.hub.as_ref())?;
        if hub.server != before.hub {
            return Err(GroupLinkError::NotHub);
        }
        if Hash::try_from(&checkpoint.state_hash)? != before.hash() {
            return Err(GroupLinkError::Checkpoint);
        }
        check_signer(&hub, evidence)?;
        self.checkpoint = self.number;
        Ok(hub.key)
    }
}
