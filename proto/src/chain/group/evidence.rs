//! The chains of accounts and servers that a group link is judged by.
//!
//! A link names the head of its author's account chain. Whoever judges it has to have that chain up to
//! there, no further: what the account did later is not asked. [`GroupEvidence`] is where the rules ask;
//! [`Chains`] is one that holds chains in memory, such as those that came beside a link.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GroupLinkError, Missing, ServerRef, ServerSigner};
use crate::chain::{AccountState, ChainError, ChainState, LinkError, ServerState, Verified};
use crate::id::{AccountId, DeviceId, LinkId, ServerId};
use crate::name::{Address, Domain};
use crate::pb;
use crate::sign::PublicKey;

/// An account as of one link of its chain.
#[derive(Debug, Clone)]
pub struct AccountAt(Arc<Verified<AccountState>>);

impl AccountAt {
    /// The account as of the chain's head.
    #[must_use]
    pub const fn new(chain: Arc<Verified<AccountState>>) -> Self {
        Self(chain)
    }

    /// The account.
    #[must_use]
    pub fn id(&self) -> AccountId {
        self.0.account_id()
    }

    /// The link.
    #[must_use]
    pub fn head(&self) -> LinkId {
        self.0.head()
    }

    /// The link's number; the genesis is 0.
    #[must_use]
    pub fn number(&self) -> u64 {
        u64::try_from(self.0.len().saturating_sub(1)).unwrap_or(u64::MAX)
    }

    /// The address there.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.0.state().address()
    }

    /// The key of a device on the list there; none of a closed account.
    #[must_use]
    pub fn device_key(&self, device: &DeviceId) -> Option<PublicKey> {
        let state = self.0.state();
        if state.is_closed() { None } else { state.device(device).map(crate::chain::DeviceKeys::key) }
    }

    /// Whether that link is this one or one before it.
    #[must_use]
    pub fn extends(&self, head: &LinkId, number: u64) -> bool {
        let held = usize::try_from(number).ok().and_then(|number| self.0.ids().get(number));
        held == Some(head)
    }

    /// The number of the last link up to here that took a device off the list.
    #[must_use]
    pub fn last_removal(&self) -> Option<u64> {
        self.0.state().last_removal()
    }
}

/// A server as of one link of its chain.
#[derive(Debug, Clone)]
pub struct ServerAt(Arc<Verified<ServerState>>);

impl ServerAt {
    /// The server as of the chain's head.
    #[must_use]
    pub const fn new(chain: Arc<Verified<ServerState>>) -> Self {
        Self(chain)
    }

    /// Its genesis.
    #[must_use]
    pub fn id(&self) -> ServerId {
        self.0.server_id()
    }

    /// The link.
    #[must_use]
    pub fn head(&self) -> LinkId {
        self.0.head()
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        self.0.state().domain()
    }

    /// Whether the key is online there.
    #[must_use]
    pub fn is_online(&self, key: &PublicKey) -> bool {
        self.0.state().online_keys().contains(key)
    }
}

/// Where the rules ask for chains.
pub trait GroupEvidence {
    /// The account as of this link, if its chain is known up to there. It is the account and the link asked for.
    fn account(&self, id: &AccountId, head: &LinkId) -> Option<AccountAt>;
    /// The server as of this link, if its chain is known up to there. It is the server and the link asked for.
    fn server(&self, genesis: &ServerId, head: &LinkId) -> Option<ServerAt>;
}

pub(super) fn account(
    evidence: &dyn GroupEvidence,
    id: AccountId,
    head: LinkId,
) -> Result<AccountAt, GroupLinkError> {
    let found = evidence.account(&id, &head).filter(|at| at.id() == id && at.head() == head);
    found.ok_or(GroupLinkError::EvidenceMissing(Missing::Account { id, head }))
}

/// Checks that the signing server is of its domain and its key online at the head that it names.
///
/// # Errors
/// [`GroupLinkError::Server`], [`GroupLinkError::EvidenceMissing`].
pub fn check_signer(signer: &ServerSigner, evidence: &dyn GroupEvidence) -> Result<(), GroupLinkError> {
    let ServerRef { domain, genesis } = &signer.server;
    let head = signer.head;
    let found = evidence.server(genesis, &head).filter(|at| at.id() == *genesis && at.head() == head);
    let missing = Missing::Server { genesis: *genesis, head };
    let at = found.ok_or(GroupLinkError::EvidenceMissing(missing))?;
    if at.domain() == domain && at.is_online(&signer.key) { Ok(()) } else { Err(GroupLinkError::Server) }
}

/// One chain that is known, with its links, so that it can be looked at as of an earlier one.
#[derive(Debug, Clone)]
struct Known<S> {
    chain: Arc<Verified<S>>,
    links: Vec<pb::Link>,
}

impl<S: ChainState> Known<S> {
    fn verify(links: &[pb::Link]) -> Result<Self, ChainError> {
        Ok(Self { chain: Arc::new(Verified::verify(links)?), links: links.to_vec() })
    }

    fn at(&self, head: &LinkId) -> Option<Arc<Verified<S>>> {
        if self.chain.head() == *head {
            return Some(Arc::clone(&self.chain));
        }
        let number = self.chain.number_of(head)?;
        Verified::verify(self.links.get(..=number)?).ok().map(Arc::new)
    }
}

/// Evidence in memory. Of two branches of one chain both are kept.
#[derive(Debug, Clone, Default)]
pub struct Chains {
    accounts: BTreeMap<AccountId, Vec<Known<AccountState>>>,
    servers: BTreeMap<ServerId, Vec<Known<ServerState>>>,
}

impl Chains {
    /// No chains.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an account's chain in, genesis first.
    ///
    /// # Errors
    /// [`ChainError`] names the first bad link.
    pub fn add_account(&mut self, links: &[pb::Link]) -> Result<AccountId, ChainError> {
        let known = Known::<AccountState>::verify(links)?;
        let id = known.chain.account_id();
        keep(self.accounts.entry(id).or_default(), known);
        Ok(id)
    }

    /// Takes a server's chain in, genesis first.
    ///
    /// # Errors
    /// [`ChainError`] names the first bad link.
    pub fn add_server(&mut self, links: &[pb::Link]) -> Result<ServerId, ChainError> {
        let known = Known::<ServerState>::verify(links)?;
        let id = known.chain.server_id();
        keep(self.servers.entry(id).or_default(), known);
        Ok(id)
    }

    /// Takes in what came beside a link.
    ///
    /// # Errors
    /// [`ChainError`] names the first bad link; a chain of another id than the one stated is a bad genesis.
    pub fn add(&mut self, evidence: &pb::Evidence) -> Result<(), ChainError> {
        let mut taken = Self::new();
        let id = if evidence.server {
            LinkId(taken.add_server(&evidence.links)?.0)
        } else {
            LinkId(taken.add_account(&evidence.links)?.0)
        };
        if evidence.chain.as_ref() != id.as_bytes() {
            return Err(ChainError { at: 0, source: LinkError::OtherChain });
        }
        taken.accounts.into_iter().for_each(|(id, known)| {
            let kept = self.accounts.entry(id).or_default();
            known.into_iter().for_each(|known| keep(kept, known));
        });
        taken.servers.into_iter().for_each(|(id, known)| {
            let kept = self.servers.entry(id).or_default();
            known.into_iter().for_each(|known| keep(kept, known));
        });
        Ok(())
    }
}

/// Keeps a chain, and none that another one extends.
fn keep<S>(kept: &mut Vec<Known<S>>, new: Known<S>) {
    if kept.iter().any(|known| known.chain.ids().starts_with(new.chain.ids())) {
        return;
    }
    kept.retain(|known| !new.chain.ids().starts_with(known.chain.ids()));
    kept.push(new);
}

impl GroupEvidence for Chains {
    fn account(&self, id: &AccountId, head: &LinkId) -> Option<AccountAt> {
        self.accounts.get(id)?.iter().find_map(|known| known.at(head)).map(AccountAt)
    }

    fn server(&self, genesis: &ServerId, head: &LinkId) -> Option<ServerAt> {
        self.servers.get(genesis)?.iter().find_map(|known| known.at(head)).map(ServerAt)
    }
}
