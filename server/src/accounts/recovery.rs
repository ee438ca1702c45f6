//! An account whose devices are all lost: who proves its recovery key as a candidate may read its chain and append
//! to it (05-accounts, 5.8).

use prost::Message as _;
use tidings_proto::id::AccountId;
use tidings_proto::pb;
use tidings_proto::sign::PublicKey;

use super::rules;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::Need;

impl Shared {
    /// The chain of an account here, for who has proven its recovery key.
    ///
    /// # Errors
    /// `message-malformed`, `not-here`; `no-such-account` also where the key is not the account's.
    pub async fn resolve_for_recovery(
        &self,
        key: &PublicKey,
        request: pb::Resolve,
    ) -> Result<pb::Resolved, Refusal> {
        let account = self.named_here(&request.address, &request.account).await?;
        self.recovers(account, key).await?;
        self.resolve_here(request, None).await
    }

    /// Appends a link that the recovery key signs first.
    ///
    /// # Errors
    /// As [`Shared::append_link`]; `no-such-account` where the key is not the account's, `not-permitted` for a link
    /// that it has not signed.
    pub async fn append_for_recovery(&self, key: &PublicKey, request: pb::AppendLink) -> Result<(), Refusal> {
        let malformed = || Code::MESSAGE_MALFORMED.because("link");
        let link = request.link.as_ref().ok_or_else(malformed)?;
        let body = pb::AccountLinkBody::decode(link.body.clone()).map_err(|_| malformed())?;
        let account = AccountId::try_from(&body.chain).map_err(|_| malformed())?;
        let needs = [Need::Account(account)];
        let signed = self.state.view(&needs, |world| {
            let held = world.local(&account).filter(|held| held.chain.state().recovery_key() == *key);
            held.map(|held| rules::by_recovery(link, &held.chain))
        });
        match signed.await? {
            None => Err(Code::NO_SUCH_ACCOUNT.into()),
            Some(false) => Err(Code::NOT_PERMITTED.because("not signed by the recovery key")),
            Some(true) => self.append_link(account, request).await,
        }
    }

    async fn recovers(&self, account: AccountId, key: &PublicKey) -> Result<(), Refusal> {
        let needs = [Need::Account(account)];
        let proven = self.state.view(&needs, |world| {
            world.local(&account).is_some_and(|held| held.chain.state().recovery_key() == *key)
        });
        if proven.await? { Ok(()) } else { Err(Code::NO_SUCH_ACCOUNT.into()) }
    }
}
