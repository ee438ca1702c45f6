//! Chains and bundles from other homes, fetched beside the session: a home that does not answer holds up
//! nothing but the messages to its own users (spec 05-accounts, 5.4 and 5.6).

use std::time::Duration;

use bytes::Bytes;
use tidings_proto::chain::link_id;
use tidings_proto::error::{Refusal, Retry};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::Purpose;
use tokio::sync::oneshot;

use super::session::{Session, lost, now};
use super::{Ended, Engine, now_ms};
use crate::chains;
use crate::crypto::{Pairwise, PeerDevice};
use crate::error::{Error, StoreError};
use crate::event::Event;
use crate::home::{Home, HomeError, Pipeline};
use crate::prekeys;
use crate::store::accounts::{self, Contact, Flag};
use crate::store::messages;
use crate::store::records::put_changes;
use crate::store::stash;

/// Answers of one chain: each carries at most 64 links, a chain has at most 1,024 since its checkpoint.
const PAGES: usize = 64;
/// Wait before an account is asked for again whose home gave no reason to ask sooner or later.
const AGAIN: Duration = Duration::from_secs(5);

/// What a fetch brought.
pub(crate) struct Fetched {
    what: What,
    result: Result<Brought, HomeError>,
}

/// Whom it was for.
enum What {
    /// An account that is known by its id; the devices with which sessions were wanted.
    Account(AccountId, Vec<DeviceId>),
    /// The same, and somebody waits for it.
    Refresh(AccountId, oneshot::Sender<Result<Contact, Error>>),
    /// Whoever lives at an address.
    Address(Address, oneshot::Sender<Result<Contact, Error>>),
}

#[derive(Default)]
struct Brought {
    links: Vec<pb::Link>,
    bundles: Vec<pb::Bundle>,
}

/// What to ask for.
struct Wanted {
    account: Option<AccountId>,
    address: String,
    after: Bytes,
    /// Devices to start sessions with; none: only the chain.
    devices: Vec<DeviceId>,
}

impl Engine {
    /// Starts to fetch an account's newer links, and bundles for these devices, unless that is under way.
    pub(super) async fn fetch(
        &mut self,
        session: &mut Session,
        account: AccountId,
        address: &str,
        devices: Vec<DeviceId>,
    ) -> Result<(), Ended> {
        let later = session.later.get(&account).is_some_and(|at| *at > now());
        let waits = later && !devices.is_empty();
        if waits || !session.is_open() || !session.fetching.insert(account) {
            return Ok(());
        }
        session.doubts.asking(account);
        let after = self.head_of(account).await?;
        let wanted =
            Wanted { account: Some(account), address: address.to_owned(), after, devices: devices.clone() };
        session.ask(What::Account(account, devices), wanted);
        Ok(())
    }

    /// Asks for newer links of a known account, for somebody who waits.
    pub(super) async fn refresh(
        &mut self,
        session: &mut Session,
        account: AccountId,
        answer: oneshot::Sender<Result<Contact, Error>>,
    ) -> Result<(), Ended> {
        let (after, address) = (self.head_of(account).await?, self.address_of(account).await?);
        session.ask(
            What::Refresh(account, answer),
            Wanted { account: Some(account), address, after, devices: Vec::new() },
        );
        Ok(())
    }

    /// Asks for the chains of accounts that this device knows by copies of its account's messages only.
    pub(super) async fn fetch_strangers(&mut self, session: &mut Session) -> Result<(), Ended> {
        for (account, address) in self.store.strangers().await? {
            if !session.later.contains_key(&account) {
                self.fetch(session, account, &address, Vec::new()).await?;
            }
        }
        Ok(())
    }

    async fn forget_stranger(&self, account: AccountId) -> Result<(), StoreError> {
        let mut tx = self.store.begin().await?;
        accounts::forget_stranger(&mut tx, account).await?;
        Ok(tx.commit().await?)
    }

    /// Answers who lives at an address.
    pub(super) fn resolve(
        &mut self,
        session: &mut Session,
        address: Address,
        answer: oneshot::Sender<Result<Contact, Error>>,
    ) {
        let wanted =
            Wanted { account: None, address: address.to_string(), after: Bytes::new(), devices: Vec::new() };
        session.ask(What::Address(address, answer), wanted);
    }

    /// Takes what a fetch brought, and goes on with what waited for it.
    pub(super) async fn fetched(&mut self, session: &mut Session, fetched: Fetched) -> Result<(), Ended> {
        match fetched.what {
            What::Account(account, devices) => {
                session.fetching.remove(&account);
                match fetched.result {
                    Ok(brought) => self.brought(session, account, &devices, brought).await?,
                    Err(HomeError::Refused(refusal)) => {
                        self.fetch_refused(session, account, &devices, &refusal).await?
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            What::Refresh(account, answer) => {
                let result = match fetched.result {
                    Ok(brought) => {
                        self.adopt_links(account, brought.links).await?;
                        self.store
                            .contact(account)
                            .await
                            .map_err(Error::from)
                            .and_then(|c| c.ok_or(Error::Closed))
                    }
                    Err(error) => Err(caller(error)),
                };
                drop(answer.send(result));
            }
            What::Address(address, answer) => {
                let result = match fetched.result {
                    Ok(brought) => self.resolved(&address, brought.links).await?,
                    Err(error) => Err(caller(error)),
                };
                drop(answer.send(result));
            }
        }
        self.send_waiting(session).await
    }

    async fn brought(
        &mut self,
        session: &mut Session,
        account: AccountId,
        devices: &[DeviceId],
        brought: Brought,
    ) -> Result<(), Ended> {
        if !self.meet(account, brought.links).await? {
            // A forged or forked chain is no reason to ask again at once.
            session.later.insert(account, now() + AGAIN);
            if self.chain(account).await?.is_none() {
                // The address that a copy named is another account's by now.
                self.forget_stranger(account).await?;
            }
            return Ok(());
        }
        if self.settle_doubts(&mut session.doubts, account).await? {
            let address = self.address_of(account).await?;
            self.fetch(session, account, &address, Vec::new()).await?;
        }
        self.start_sessions(account, &brought.bundles).await?;
        let wanted = self.peers_among(account, devices).await?;
        let (missing, again) = (self.without_session(&wanted).await?, now() + AGAIN);
        if !missing.is_empty() {
            // Nobody is asked over and over.
            session.later.insert(account, again);
        }
        self.bare.retain(|device, _| !devices.contains(device));
        for device in missing {
            let served = brought.bundles.iter().any(|bundle| bundle.device.as_ref() == device.as_ref());
            if !served {
                // It has published nothing yet: messages go without it until it does (MSG-036).
                self.bare.insert(device, again);
            }
        }
        self.unstash(session, account).await?;
        self.chain_came(session).await?;
        if account == self.me.account { self.advance_groups(session).await } else { Ok(()) }
    }

    async fn peers_among(
        &mut self,
        account: AccountId,
        devices: &[DeviceId],
    ) -> Result<Vec<PeerDevice>, StoreError> {
        let mut peers = self.chain(account).await?.map(chains::peers).unwrap_or_default();
        peers.retain(|peer| devices.contains(&peer.device));
        Ok(peers)
    }

    async fn fetch_refused(
        &mut self,
        session: &mut Session,
        account: AccountId,
        devices: &[DeviceId],
        refusal: &Refusal,
    ) -> Result<(), Ended> {
        let reason = refusal.code.text();
        if refusal.retry == Retry::Never {
            for _ in 0..stash::forget(&self.store, account).await? {
                self.tell(Event::Undecryptable { sender: account, number: 0 });
            }
            self.forget_stranger(account).await?;
            return Ok(self.fail_waiting(account, reason).await?);
        }
        let again = now() + refusal.retry_after.unwrap_or(AGAIN);
        session.later.insert(account, again);
        for device in devices {
            // What was known to have published nothing keeps no message here while its home cannot be asked.
            self.bare.entry(*device).and_modify(|at| *at = again + AGAIN);
        }
        let mut fresh = false;
        for message in self.store.unsubmitted(account, u32::MAX).await? {
            let mut tx = self.store.begin().await?;
            fresh |= messages::set_waiting(&mut tx, message.id, Some(reason)).await?;
            tx.commit().await.map_err(StoreError::from)?;
        }
        if fresh {
            self.tell(Event::Pending {
                conversation: account,
                since_ms: now_ms(),
                reason: reason.to_owned(),
            });
        }
        Ok(())
    }

    /// Sessions from bundles: only with devices on the verified list, only with the keys in their links
    /// (ENC-002, KEY-012).
    async fn start_sessions(&mut self, account: AccountId, bundles: &[pb::Bundle]) -> Result<(), Ended> {
        let Some(chain) = self.chain(account).await? else { return Ok(()) };
        let numbers = chain.state().devices().clone();
        let peers = chains::peers(chain);
        for served in bundles {
            let Some(peer) = peers.iter().find(|peer| peer.device.as_ref() == served.device.as_ref()) else {
                continue;
            };
            let stated = numbers.get(&peer.device).map(|keys| keys.to_pb().registration_id);
            if stated != Some(served.registration_id) {
                tracing::warn!("a bundle with another registration id than the link's was refused");
                continue;
            }
            let Some(bundle) = prekeys::bundle(served) else { continue };
            let records = self.store.session_records(peer.device).await?;
            let pairwise = Pairwise { local: &self.me.local, peer, records: &records };
            match pairwise.start_session(&bundle, now_ms(), &mut self.rng) {
                Ok(changes) => {
                    let mut tx = self.store.begin().await?;
                    put_changes(&mut tx, &changes).await?;
                    tx.commit().await.map_err(StoreError::from)?;
                }
                // A home that serves a bundle with another identity key is lying or broken; no session.
                Err(error) => tracing::warn!(%error, "a bundle was refused"),
            }
        }
        Ok(())
    }

    /// Who lives at an address, verified and stored.
    async fn resolved(
        &mut self,
        address: &Address,
        links: Vec<pb::Link>,
    ) -> Result<Result<Contact, Error>, Ended> {
        let chain = match chains::first_contact(None, &links) {
            Ok(chain) => chain,
            Err(error) => return Ok(Err(Error::Violation(error.to_string()))),
        };
        if chain.state().address() != address {
            // ACC-003: an address is bound only where the account's own chain says so.
            let text = "the chain names another address than the one asked for".to_owned();
            return Ok(Err(Error::Violation(text)));
        }
        let account = chain.account_id();
        let before = self.store.contact_at(address).await?.filter(|before| before.account != account);
        if !self.adopt_links(account, links).await? {
            return Ok(Err(Error::Fork(address.to_string())));
        }
        let mut tx = self.store.begin().await?;
        // Who was asked for is wanted in the list again.
        accounts::set_flag(&mut tx, account, Flag::Hidden, false).await?;
        tx.commit().await.map_err(StoreError::from)?;
        if let Some(before) = before {
            let (address, before) = (address.clone(), before.account);
            self.tell(Event::AddressChanged { address, before, now: account });
        }
        Ok(self.store.contact(account).await?.ok_or(Error::Closed))
    }
}

impl Session {
    fn ask(&mut self, what: What, wanted: Wanted) {
        let connection = self.connection.clone();
        self.fetches.spawn(async move { Fetched { what, result: ask(&connection, &wanted).await } });
    }
}

/// A failed fetch as the caller sees it.
fn caller(error: HomeError) -> Error {
    match error {
        HomeError::Refused(refusal) => Error::Refused(refusal),
        HomeError::Violation(refusal) => Error::Violation(refusal.to_string()),
        HomeError::Lost(_) => Error::Offline,
    }
}

/// Opens a remote pipeline and asks.
async fn ask(connection: &quinn::Connection, wanted: &Wanted) -> Result<Brought, HomeError> {
    let mut pipeline = Home::pipeline_on(connection).await?;
    let mut links = chain_of(&mut pipeline, wanted).await?;
    let Some(account) = wanted.account.filter(|_| !wanted.devices.is_empty()) else {
        return Ok(Brought { links, bundles: Vec::new() });
    };
    let after = links.last().map_or_else(|| wanted.after.clone(), id_of);
    let answer: pb::Bundles = pipeline
        .ask(&pb::FetchBundles {
            account: account.to_bytes(),
            address: wanted.address.clone(),
            after,
            devices: wanted.devices.iter().map(DeviceId::to_bytes).collect(),
            asker: Bytes::new(),
        })
        .await?;
    links.extend(answer.links);
    Ok(Brought { links, bundles: answer.bundles })
}

/// All pages of a chain's links after one of them.
async fn chain_of(pipeline: &mut Pipeline, wanted: &Wanted) -> Result<Vec<pb::Link>, HomeError> {
    let (mut links, mut after) = (Vec::new(), wanted.after.clone());
    for _ in 0..PAGES {
        let request = pb::Resolve {
            address: wanted.address.clone(),
            account: wanted.account.map(|account| account.to_bytes()).unwrap_or_default(),
            after,
        };
        let answer: pb::Resolved = pipeline.ask(&request).await?;
        links.extend(answer.links);
        if !answer.more {
            return Ok(links);
        }
        after = links.last().map(id_of).ok_or_else(|| lost("a chain with more links and none"))?;
    }
    Err(lost("a chain without end"))
}

/// The links of an account's chain after one of them, from whoever shares a group with it.
pub(super) async fn account_links(
    connection: &quinn::Connection,
    account: AccountId,
    after: Bytes,
) -> Result<Vec<pb::Link>, HomeError> {
    let mut pipeline = Home::pipeline_on(connection).await?;
    let wanted = Wanted { account: Some(account), address: String::new(), after, devices: Vec::new() };
    chain_of(&mut pipeline, &wanted).await
}

fn id_of(link: &pb::Link) -> Bytes {
    link_id(Purpose::ACCOUNT_LINK, &link.body).to_bytes()
}
