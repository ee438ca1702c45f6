//! The chains that links, votes and signed heads are judged by: what this home holds, and what came beside them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use prost::Message as _;
use tidings_proto::chain::group::{AccountAt, Chains, GroupEvidence, ServerAt};
use tidings_proto::chain::{AccountState, ServerState, Verified};
use tidings_proto::id::{AccountId, LinkId, ServerId};
use tidings_proto::pb;

use super::lock;
use crate::node::Shared;
use crate::refusal::Refusal;
use crate::state::Need;

/// Accounts looked up for one decision: a batch has no more records.
const ACCOUNTS_MAX: usize = 256;
/// Server chains kept verified.
const SERVERS_MAX: usize = 4096;

/// Entry type of a link in a group's log.
const GROUP_LINK: u64 = 0x12;

/// What a request is about: whose chains it takes to judge it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Named {
    pub(super) accounts: BTreeSet<AccountId>,
    pub(super) servers: BTreeSet<ServerId>,
    pub(super) evidence: Vec<pb::Evidence>,
}

impl Named {
    /// The author of a link, and the server that signs it.
    pub(super) fn link(&mut self, link: &pb::Link) {
        let Ok(body) = pb::GroupLinkBody::decode(link.body.clone()) else { return };
        let account = body.author.as_ref().and_then(|author| AccountId::try_from(&author.account).ok());
        self.accounts.extend(account.filter(|_| self.accounts.len() < ACCOUNTS_MAX));
        let transfer = body.hub_transfer.and_then(|transfer| transfer.hub);
        let succession = body.hub_succession.and_then(|succession| succession.hub);
        let checkpoint = body.checkpoint.and_then(|checkpoint| checkpoint.hub);
        for signer in [transfer, succession, checkpoint].into_iter().flatten() {
            self.server(signer.server.as_ref());
        }
    }

    pub(super) fn server(&mut self, server: Option<&pb::ServerRef>) {
        self.servers.extend(server.and_then(|server| ServerId::try_from(&server.genesis).ok()));
    }

    pub(super) fn records(&mut self, records: &[pb::GroupRecord]) {
        for record in records {
            self.evidence.extend(record.evidence.iter().cloned());
            if let Some(link) = link_of(record) {
                self.link(&link);
            }
        }
    }

    pub(super) fn head(&mut self, head: Option<&pb::SignedGroupHead>) {
        let head = head.and_then(|head| pb::GroupHead::decode(head.body.clone()).ok());
        let hub = head.and_then(|head| head.hub);
        self.server(hub.as_ref().and_then(|hub| hub.server.as_ref()));
    }

    /// Of a link that is to be appended, with what came beside it.
    pub(super) fn append(request: &pb::GroupAppend) -> Self {
        let mut named = Self::default();
        request.link.iter().for_each(|link| named.link(link));
        named.evidence.extend(request.evidence.iter().cloned());
        named
    }
}

/// The link in a record, if it is one.
pub(super) fn link_of(record: &pb::GroupRecord) -> Option<pb::Link> {
    let entry = pb::Entry::decode(record.entry.clone()).ok()?;
    if entry.r#type != GROUP_LINK {
        return None;
    }
    pb::GroupLink::decode(entry.body).ok()?.link
}

/// A chain with its links, so that it can be looked at as of an earlier one.
pub(super) struct Held<S> {
    chain: Arc<Verified<S>>,
    pub(super) links: Arc<Vec<pb::Link>>,
}

impl<S> Held<S> {
    pub(super) fn new(chain: Verified<S>, links: Vec<pb::Link>) -> Self {
        Self { chain: Arc::new(chain), links: Arc::new(links) }
    }
}

impl<S> Clone for Held<S> {
    fn clone(&self) -> Self {
        Self { chain: Arc::clone(&self.chain), links: Arc::clone(&self.links) }
    }
}

impl<S: tidings_proto::chain::ChainState> Held<S> {
    fn at(&self, head: &LinkId) -> Option<Arc<Verified<S>>> {
        if self.chain.head() == *head {
            return Some(Arc::clone(&self.chain));
        }
        let number = self.chain.number_of(head)?;
        Verified::verify(self.links.get(..=number)?).ok().map(Arc::new)
    }
}

/// Chains at hand for one decision.
#[derive(Default)]
pub(super) struct Known {
    pub(super) accounts: BTreeMap<AccountId, Held<AccountState>>,
    servers: BTreeMap<ServerId, Held<ServerState>>,
    others: Chains,
}

impl GroupEvidence for Known {
    fn account(&self, id: &AccountId, head: &LinkId) -> Option<AccountAt> {
        let held = self.accounts.get(id).and_then(|held| held.at(head)).map(AccountAt::new);
        held.or_else(|| self.others.account(id, head))
    }

    fn server(&self, genesis: &ServerId, head: &LinkId) -> Option<ServerAt> {
        let held = self.servers.get(genesis).and_then(|held| held.at(head)).map(ServerAt::new);
        held.or_else(|| self.others.server(genesis, head))
    }
}

/// Server chains that were verified once.
pub(super) type Servers = Mutex<HashMap<ServerId, Held<ServerState>>>;

impl Shared {
    /// The chains that it takes to judge what is named, as far as this home has them.
    pub(super) async fn known(&self, named: &Named) -> Result<Known, Refusal> {
        let mut known = Known::default();
        if !named.accounts.is_empty() {
            let needs: Vec<Need> = named.accounts.iter().map(|account| Need::Account(*account)).collect();
            let view = self.state.view(&needs, |world| {
                named
                    .accounts
                    .iter()
                    .filter_map(|id| {
                        let account = world.account(id)?;
                        let (chain, links) = (account.chain.clone(), account.links.clone());
                        Some((*id, Held { chain: Arc::new(chain), links: Arc::new(links) }))
                    })
                    .collect()
            });
            known.accounts = view.await?;
        }
        for server in &named.servers {
            if let Some(held) = self.server_chain(server) {
                known.servers.insert(*server, held);
            }
        }
        for evidence in &named.evidence {
            if !known.covers(evidence)
                && let Err(error) = known.others.add(evidence)
            {
                tracing::debug!(%error, "evidence beside a link is no chain");
            }
        }
        Ok(known)
    }

    /// The chain that it takes to verify a signed head.
    pub(super) fn evidence_of_head(&self, head: Option<&pb::SignedGroupHead>) -> Vec<pb::Evidence> {
        let mut named = Named::default();
        named.head(head);
        let of = |id: &ServerId| {
            let links = self.server_chain(id)?.links.as_ref().clone();
            Some(pb::Evidence { chain: id.to_bytes(), links, server: true })
        };
        named.servers.iter().filter_map(of).collect()
    }

    /// The chain of this server or of one that this home has met.
    fn server_chain(&self, id: &ServerId) -> Option<Held<ServerState>> {
        if *id == self.groups.own.me.genesis {
            return Some(self.groups.own.held.clone());
        }
        let links = self.state.look(|world| {
            let peer = world.peers().find(|peer| peer.record.genesis.as_ref() == Some(id))?;
            let cached = lock(&self.groups.servers).get(id).cloned();
            match cached.filter(|held| held.links.len() == peer.record.links.len()) {
                Some(held) => Some(Ok(held)),
                None => Some(Err(peer.record.links.clone())),
            }
        })?;
        match links {
            Ok(held) => Some(held),
            Err(links) => {
                let chain = Verified::<ServerState>::verify(&links).ok()?;
                let held = Held { chain: Arc::new(chain), links: Arc::new(links) };
                let mut servers = lock(&self.groups.servers);
                if servers.len() >= SERVERS_MAX {
                    servers.clear();
                }
                servers.insert(*id, held.clone());
                Some(held)
            }
        }
    }
}

impl Known {
    /// Whether a chain that came says nothing that is not known: it is not verified again.
    fn covers(&self, evidence: &pb::Evidence) -> bool {
        let known = if evidence.server {
            let id = ServerId::try_from(&evidence.chain).ok();
            id.and_then(|id| self.servers.get(&id)).map(|held| Arc::clone(&held.links))
        } else {
            let id = AccountId::try_from(&evidence.chain).ok();
            id.and_then(|id| self.accounts.get(&id)).map(|held| Arc::clone(&held.links))
        };
        known.is_some_and(|links| links.starts_with(&evidence.links))
    }

    /// The chain of an account that this home has, as evidence for others.
    pub(super) fn evidence_of(&self, account: &AccountId) -> Option<pb::Evidence> {
        let held = self.accounts.get(account)?;
        let links = held.links.as_ref().clone();
        Some(pb::Evidence { chain: account.to_bytes(), links, server: false })
    }
}
