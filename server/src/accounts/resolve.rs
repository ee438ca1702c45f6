//! What an address points to, with the chain that proves it (05-accounts, 5.4).

use bytes::Bytes;
use tidings_proto::chain::{AccountState, Verified};
use tidings_proto::id::{AccountId, LinkId};
use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;

use super::heads;
use crate::config::Limits;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::Need;

impl Shared {
    /// Answers for accounts here; asks the other domain for others.
    ///
    /// # Errors
    /// `message-malformed`, `no-such-account`, `not-here`, `peer-unreachable`, `link-invalid`, `chain-fork`, …
    pub async fn resolve(&self, account: AccountId, request: pb::Resolve) -> Result<pb::Resolved, Refusal> {
        match self.remote_domain(&request.address)? {
            Some(domain) => {
                let answer = self.federation()?.resolve(Some(account), &domain, request).await?;
                self.learn(&domain, &answer.account, &answer.links).await?;
                Ok(answer)
            }
            None => self.resolve_here(request, None).await,
        }
    }

    /// The domain of an address, if it is not this one. An empty address is ours.
    ///
    /// # Errors
    /// `message-malformed`; `not-permitted` for a domain that is denied here.
    pub(crate) fn remote_domain(&self, address: &str) -> Result<Option<Domain>, Refusal> {
        if address.is_empty() {
            return Ok(None);
        }
        let address = Address::parse(address).map_err(|_| Code::MESSAGE_MALFORMED.because("address"))?;
        if *address.domain() == self.config.domain {
            return Ok(None);
        }
        if self.may_talk_to(address.domain()) {
            Ok(Some(address.domain().clone()))
        } else {
            Err(Code::NOT_PERMITTED.because("that domain is denied here"))
        }
    }

    /// Answers for accounts here only. What a peer asks is noted: it hears of later links.
    ///
    /// # Errors
    /// `message-malformed`, `no-such-account`, `not-here`.
    pub async fn resolve_here(
        &self,
        request: pb::Resolve,
        asking: Option<&Domain>,
    ) -> Result<pb::Resolved, Refusal> {
        let account = self.named_here(&request.address, &request.account).await?;
        if !request.after.is_empty() && request.after.len() != 32 {
            return Err(Code::MESSAGE_MALFORMED.because("after"));
        }
        let most = Limits::size(self.config.limits.resolve_links_max());
        let needs = [Need::Account(account)];
        let answer = self.state.view(&needs, |world| {
            let held = world.local(&account).ok_or(Code::NO_SUCH_ACCOUNT)?;
            let later = heads::links_after(held, &request.after);
            Ok::<_, Refusal>(pb::Resolved {
                account: account.to_bytes(),
                address: held.chain.state().address().to_string(),
                links: heads::oldest(later, most).to_vec(),
                more: later.len() > heads::oldest(later, most).len(),
                proof: Bytes::new(),
            })
        });
        let answer = answer.await??;
        self.note_hand_over(account, asking).await?;
        Ok(answer)
    }

    /// A domain holds the chain now.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn note_hand_over(
        &self,
        account: AccountId,
        asking: Option<&Domain>,
    ) -> Result<(), Refusal> {
        let Some(asking) = asking else { return Ok(()) };
        let commit = {
            let mut transaction = self.state.begin(&[Need::Account(account)]).await?;
            transaction.hand(account, asking, self.now_ms());
            transaction.commit().0
        };
        commit.durable().await
    }

    /// The account of this home that an address or an id names; the address goes first.
    ///
    /// # Errors
    /// `message-malformed`, `no-such-account`, `not-here`.
    pub(crate) async fn named_here(&self, address: &str, account: &Bytes) -> Result<AccountId, Refusal> {
        let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
        let given = AccountId::optional(account).map_err(|_| malformed("account"))?;
        if address.is_empty() {
            return given.ok_or_else(|| malformed("neither address nor account"));
        }
        let parsed = Address::parse(address).map_err(|_| malformed("address"))?;
        if *parsed.domain() != self.config.domain {
            return Err(Code::NOT_HERE.into());
        }
        let needs = [Need::Name(address.to_owned())];
        let named = self.state.view(&needs, |world| world.named(address)).await?;
        named.ok_or_else(|| Code::NO_SUCH_ACCOUNT.into())
    }

    /// Keeps the links of an account of another domain that a peer handed over: verified, and only if they extend
    /// what is held.
    ///
    /// # Errors
    /// `link-invalid`, `chain-fork`, `unavailable`.
    pub(crate) async fn learn(
        &self,
        domain: &Domain,
        account: &Bytes,
        links: &[pb::Link],
    ) -> Result<u64, Refusal> {
        let id = AccountId::try_from(account).map_err(|_| Code::MESSAGE_MALFORMED.because("account"))?;
        let needs = [Need::Account(id)];
        loop {
            let held = self.state.view(&needs, |world| match world.account(&id) {
                Some(held) if held.local => Err(Code::LINK_INVALID.because("an account of this home")),
                held => Ok(held.map(|held| held.chain.clone())),
            });
            let held = held.await??;
            let before = u64::try_from(held.as_ref().map_or(0, Verified::len)).unwrap_or(u64::MAX);
            let head = held.as_ref().map(Verified::head);
            // Signatures are verified while others decide.
            let (chain, fresh) = verified(held, id, links)?;
            if chain.is_some_and(|chain| chain.state().address().domain() != domain) {
                return Err(Code::LINK_INVALID.because("the account lives at another domain"));
            }
            if !fresh.is_empty() && !self.state.admits_links(domain.as_str(), fresh.len(), self.now_ms()) {
                return Err(Code::TOO_FAST.because("that domain's links of this hour are spent"));
            }
            let commit = {
                let mut transaction = self.state.begin(&needs).await?;
                if transaction.world().account(&id).map(|held| held.chain.head()) != head {
                    continue;
                }
                for (chain, link) in fresh {
                    transaction.append_link(chain, link, false, self.now_ms());
                }
                transaction.commit().0
            };
            commit.durable().await?;
            return Ok(before);
        }
    }
}

/// The links that extend a chain, each with the chain up to it.
type Grown = Vec<(Verified<AccountState>, pb::Link)>;

/// The chain with the links that came, and those that are new.
///
/// # Errors
/// `link-invalid`, `chain-fork`.
fn verified(
    mut chain: Option<Verified<AccountState>>,
    id: AccountId,
    links: &[pb::Link],
) -> Result<(Option<Verified<AccountState>>, Grown), Refusal> {
    let mut fresh = Vec::new();
    for link in links {
        let next = match &chain {
            None => Verified::<AccountState>::genesis(link)
                .ok()
                .filter(|chain| chain.account_id() == id)
                .ok_or_else(|| Code::LINK_INVALID.because("genesis"))?,
            Some(chain) if is_known(chain, link)? => continue,
            Some(chain) => {
                chain.extended(link).map_err(|error| Code::LINK_INVALID.because(&error.to_string()))?
            }
        };
        fresh.push((next.clone(), link.clone()));
        chain = Some(next);
    }
    Ok((chain, fresh))
}

/// Whether a link is on the chain already.
///
/// # Errors
/// `chain-fork` for another link with the number of one that is.
fn is_known(chain: &Verified<AccountState>, link: &pb::Link) -> Result<bool, Refusal> {
    let id: LinkId = tidings_proto::chain::link_id(tidings_proto::sign::Purpose::ACCOUNT_LINK, &link.body);
    if chain.contains(&id) {
        return Ok(true);
    }
    let body = <pb::AccountLinkBody as prost::Message>::decode(link.body.clone())
        .map_err(|_| Code::LINK_INVALID.because("body"))?;
    if usize::try_from(body.number).unwrap_or(usize::MAX) < chain.len() {
        return Err(Code::CHAIN_FORK.into());
    }
    Ok(false)
}
