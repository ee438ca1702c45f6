//! The chains that links and heads of groups are judged by: those that came beside them, else those held here, else
//! asked for (spec 07-groups, "Evidence").

use tidings_proto::chain::group::{Chains, GroupEvidence as _, GroupLinkError, Missing};
use tidings_proto::chain::{GroupState, ServerState, Verified};
use tidings_proto::group_log::{GroupHead, GroupLogError};
use tidings_proto::id::{AccountId, ServerId};
use tidings_proto::pb;

use crate::engine::{Ended, Engine, held_links};
use crate::error::StoreError;
use crate::store::accounts::{self, Flag};
use crate::store::groups;

/// What came beside something, as far as it verifies: what does not is as good as absent.
pub(super) fn beside(evidence: &[pb::Evidence]) -> Chains {
    let mut chains = Chains::new();
    for one in evidence {
        if let Err(error) = chains.add(one) {
            tracing::warn!(%error, "a chain beside a group's entry is not valid");
        }
    }
    chains
}

impl Engine {
    /// The state after a link; `state` is the one before, none before the genesis.
    pub(super) async fn judge(
        &mut self,
        chains: &mut Chains,
        state: Option<&GroupState>,
        link: &pb::Link,
    ) -> Result<Result<GroupState, GroupLinkError>, StoreError> {
        loop {
            let judged = match state {
                Some(state) => state.apply(link, chains),
                None => GroupState::genesis(link, chains),
            };
            match judged.as_ref().err().and_then(GroupLinkError::missing) {
                Some(missing) if self.supply(chains, &missing).await? => {}
                _ => return Ok(judged),
            }
        }
    }

    /// What a server signed of the end of a log.
    pub(super) async fn judge_head(
        &mut self,
        chains: &mut Chains,
        signed: &pb::SignedGroupHead,
    ) -> Result<Result<GroupHead, GroupLogError>, StoreError> {
        loop {
            let judged = GroupHead::verify(signed, chains);
            let missing = match &judged {
                Err(GroupLogError::Signer(error)) => error.missing(),
                _ => None,
            };
            match missing {
                Some(missing) if self.supply(chains, &missing).await? => {}
                _ => return Ok(judged),
            }
        }
    }

    /// Adds a chain that is held here, if it reaches as far as it has to.
    async fn supply(&mut self, chains: &mut Chains, missing: &Missing) -> Result<bool, StoreError> {
        match missing {
            Missing::Account { id, head } => {
                let links = self.store.links(*id).await?;
                // What is held was verified; a chain that broke since is a damaged store, and of no use here.
                Ok(chains.add_account(&links).is_ok() && chains.account(id, head).is_some())
            }
            Missing::Server { genesis, head } => {
                let own = held_links(&self.store).await?;
                let held = self.store.server_links(*genesis).await?;
                let taken = [own, held].iter().any(|links| chains.add_server(links).as_ref() == Ok(genesis));
                Ok(taken && chains.server(genesis, head).is_some())
            }
        }
    }

    /// Keeps the chains that came beside something: of members, to encrypt to them, and of servers.
    pub(super) async fn learn(&mut self, evidence: Vec<pb::Evidence>) -> Result<(), Ended> {
        for one in evidence {
            if one.server {
                let Ok(server) = ServerId::try_from(&one.chain) else { continue };
                let fits = Verified::<ServerState>::verify(&one.links)
                    .is_ok_and(|chain| chain.server_id() == server);
                if fits {
                    let mut tx = self.store.begin().await?;
                    groups::put_server(&mut tx, server, &one.links).await?;
                    tx.commit().await.map_err(StoreError::from)?;
                }
            } else if let Ok(account) = AccountId::try_from(&one.chain) {
                self.meet(account, one.links).await?;
            }
        }
        Ok(())
    }

    /// Takes links of an account that a group brought. Somebody who was unknown is on no list of people by that.
    pub(in crate::engine) async fn meet(
        &mut self,
        account: AccountId,
        links: Vec<pb::Link>,
    ) -> Result<bool, Ended> {
        let unknown = self.chain(account).await?.is_none();
        let taken = self.adopt_links(account, links).await?;
        if unknown && taken {
            let mut tx = self.store.begin().await?;
            accounts::set_flag(&mut tx, account, Flag::Hidden, true).await?;
            tx.commit().await.map_err(StoreError::from)?;
        }
        Ok(taken)
    }
}
