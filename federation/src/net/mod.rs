//! The thin shell around the machines: sockets, tasks, the clock (chapters 02 and 09).
//!
//! One task for each peer ([`actor`]) owns its state, its link and its connection; so nothing here needs a lock
//! while it waits. [`handshake`] proves connections, [`session`] turns one into channels, [`remote`] carries
//! requests, [`orders`] carries out what the link asks of the store.
//!
//! What this module does not do: listen. The server owns the socket and hands connections over.

mod actor;
mod budget;
mod handshake;
mod orders;
pub(crate) mod remote;
mod session;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::Connection;
use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal, Scope};
use tidings_proto::frame::RawFrame;
use tidings_proto::handshake::ALPN_SERVER;
use tidings_proto::id::AccountId;
use tidings_proto::name::Domain;
use tidings_proto::quic;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::discovery::Discovery;
use crate::federation::Settings;
use crate::host::{Adopted, Host, PeerRecord, PeerStatus, Stored, Unavailable};
use crate::policy::Policy;
use actor::Actor;
use budget::{FirstContactRates, FirstContacts, Rate};
use handshake::Proven;

/// Commands that may wait for a peer's task.
const COMMANDS: usize = 256;
/// How long the store is left alone after it failed.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What a peer's task is told.
pub(crate) enum Command {
    /// A connection that the peer opened is proven.
    Connected(Box<Proven>),
    /// Ask the peer.
    Ask(RawFrame, oneshot::Sender<Result<Frame, Refusal>>),
    /// Somebody claims to be this domain under a chain not known here: look under its certificate.
    Verify,
    /// The operator wants it dialled now.
    Retry,
    /// The operator accepts the chain that replaced the one on record.
    AcceptReplacement,
    /// The operator forgets the peer.
    Forget,
    /// How is it?
    Status(oneshot::Sender<PeerStatus>),
}

/// Rung when something was appended; it stays rung until the peer's task has seen it.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    notify: Notify,
}

impl Bell {
    fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire)
    }

    async fn heard(&self) {
        while !self.rung.swap(false, Ordering::AcqRel) {
            self.notify.notified().await;
        }
    }
}

#[derive(Clone)]
struct Door {
    commands: mpsc::Sender<Command>,
    bell: Arc<Bell>,
}

/// What all tasks share.
pub(crate) struct Shared {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) discovery: Discovery,
    pub(crate) policy: Policy,
    pub(crate) settings: Settings,
    pub(crate) stopping: watch::Sender<bool>,
    contacts: Mutex<FirstContacts>,
    doors: Mutex<BTreeMap<Domain, Door>>,
    records: Mutex<BTreeMap<Domain, PeerRecord>>,
    tasks: Mutex<JoinSet<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        endpoint: quinn::Endpoint,
        discovery: Discovery,
        policy: Policy,
        settings: Settings,
    ) -> Self {
        let contacts = FirstContacts::new(FirstContactRates {
            of_account: Rate::per_hour(settings.account_new_domains_per_hour),
            of_home: Rate::per_minute(settings.home_new_domains_per_minute),
            shared: Rate::per_hour(settings.shared_new_domains_per_hour),
        });
        Self {
            host,
            endpoint,
            discovery,
            policy,
            settings,
            stopping: watch::Sender::new(false),
            contacts: Mutex::new(contacts),
            doors: Mutex::default(),
            records: Mutex::default(),
            tasks: Mutex::default(),
        }
    }

    /// The present record of a domain.
    pub(crate) fn record(&self, domain: &Domain) -> Option<PeerRecord> {
        lock(&self.records).get(domain).cloned()
    }

    /// Takes a place in the budgets for domains that this home has never met (LIM-010). A static peer needs no
    /// looking up, and one that is being looked up just now is not looked up twice.
    pub(crate) fn may_discover(&self, domain: &Domain, account: Option<AccountId>) -> Result<(), Refusal> {
        let met = self.record(domain).is_some() || lock(&self.doors).contains_key(domain);
        if met || self.discovery.is_static(domain) {
            return Ok(());
        }
        lock(&self.contacts).wanted(account, domain, self.host.now_ms())
    }

    pub(crate) fn set_record(&self, record: PeerRecord) {
        lock(&self.records).insert(record.domain.clone(), record);
    }

    pub(crate) fn domains(&self) -> Vec<Domain> {
        lock(&self.doors).keys().cloned().collect()
    }

    /// Does a thing that the store has to do, however long it takes; `None` if the server stops first.
    async fn stored<'a, T>(&'a self, what: impl Fn(&'a dyn Host) -> Stored<'a, T>) -> Option<T> {
        let mut stopping = self.stopping.subscribe();
        loop {
            match what(&*self.host).await {
                Ok(value) => return Some(value),
                Err(Unavailable(error)) => tracing::warn!(error, "the store is not available; trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_RETRY) => {}
                _stopped = stopping.wait_for(|stopping| *stopping) => return None,
            }
        }
    }

    /// Takes a door out, unless somebody has knocked meanwhile.
    fn take_down(&self, domain: &Domain, bell: &Bell, commands: &mut mpsc::Receiver<Command>) -> bool {
        let mut doors = lock(&self.doors);
        if bell.is_rung() || !commands.is_empty() {
            return false;
        }
        commands.close();
        doors.remove(domain);
        true
    }

    fn door(self: &Arc<Self>, domain: &Domain, oldest_ms: Option<u64>) -> Door {
        self.door_in(&mut lock(&self.doors), domain, oldest_ms)
    }

    fn door_in(
        self: &Arc<Self>,
        doors: &mut BTreeMap<Domain, Door>,
        domain: &Domain,
        oldest_ms: Option<u64>,
    ) -> Door {
        if let Some(door) = doors.get(domain).filter(|door| !door.commands.is_closed()) {
            return door.clone();
        }
        let (sender, commands) = mpsc::channel(COMMANDS);
        let door = Door { commands: sender, bell: Arc::default() };
        doors.insert(domain.clone(), door.clone());
        let actor = Actor::new(
            Arc::clone(self),
            domain.clone(),
            self.record(domain),
            (commands, Arc::clone(&door.bell)),
            oldest_ms,
        );
        let mut tasks = lock(&self.tasks);
        // Ended ones are taken out here, so that the set stays as small as the number of peers.
        while let Some(ended) = tasks.try_join_next() {
            report(ended);
        }
        tasks.spawn(actor.run());
        door
    }

    /// Wakes a stored peer at the start.
    pub(crate) fn wake(self: &Arc<Self>, record: PeerRecord, oldest_ms: Option<u64>) {
        let domain = record.domain.clone();
        self.set_record(record);
        self.door(&domain, oldest_ms);
    }

    pub(crate) fn appended(self: &Arc<Self>, domain: &Domain) {
        // Under the lock under which a task takes its door down.
        let mut doors = lock(&self.doors);
        self.door_in(&mut doors, domain, None).bell.ring();
    }

    /// Tells a peer's task, if there is one or `make` says to start one.
    pub(crate) async fn tell(self: &Arc<Self>, domain: &Domain, command: Command, make: bool) -> bool {
        let mut command = command;
        loop {
            let door =
                if make { Some(self.door(domain, None)) } else { lock(&self.doors).get(domain).cloned() };
            let Some(door) = door else { return false };
            match door.commands.send(command).await {
                Ok(()) => return true,
                // The task has just ended for having nothing to do.
                Err(mpsc::error::SendError(back)) if make && !*self.stopping.borrow() => command = back,
                Err(_) => return false,
            }
        }
    }

    /// Serves a connection that another home opened, up to its proof; the peer's task does the rest.
    pub(crate) async fn accept(self: &Arc<Self>, connection: Connection) {
        if quic::alpn(&connection).as_deref() != Some(ALPN_SERVER) {
            handshake::close(&connection, &Refusal::new(Code::NOT_PERMITTED, "not between homes"));
            return;
        }
        if *self.stopping.borrow() {
            handshake::close(&connection, &Code::GOING_AWAY.into());
            return;
        }
        let mut proven = match handshake::accept(self, &connection).await {
            Ok(proven) => proven,
            Err(refusal) => {
                tracing::debug!(%refusal, "a home's connection was refused");
                handshake::close(&connection, &refusal);
                return;
            }
        };
        let domain = proven.domain.clone();
        let Err(refusal) = self.admit(&proven) else {
            self.tell(&domain, Command::Connected(Box::new(proven)), true).await;
            return;
        };
        tracing::info!(%domain, %refusal, "a home's connection was refused");
        if refusal.code == Code::PEER_UNVERIFIED {
            self.tell(&domain, Command::Verify, true).await;
        }
        // Not by a close: it would overtake Welcome and Proof, from which the opener learns this home's chain.
        handshake::tell(&mut proven.control.0, &refusal.to_pb()).await;
        proven.control.0.finish();
        let within = Duration::from_millis(self.settings.handshake_ms);
        let last_words = handshake::last_words(self, &connection, &mut proven.control.1);
        let _closed = tokio::time::timeout(within, last_words).await;
        handshake::close(&connection, &refusal);
    }

    /// A refusal that hands over links of this home's own chain: this home has lost state. What it held is signed
    /// with no more, so everything ends here until it has started again (FED-007).
    pub(crate) async fn heed(&self, refusal: &Refusal) {
        if refusal.code != Code::WRONG_SERVER || refusal.links.is_empty() {
            return;
        }
        match self.host.adopt(refusal.links.clone(), refusal.head.clone()).await {
            Ok(Adopted::Nothing) => {}
            Ok(Adopted::Grown) => {
                self.stopping.send_replace(true);
            }
            Err(Unavailable(error)) => {
                tracing::error!(
                    error,
                    "links of this home's server chain that a peer handed over were not kept"
                );
            }
        }
    }

    /// Whether a proven opener may stay; a chain that nobody has shown under the domain's certificate may not.
    fn admit(&self, proven: &Proven) -> Result<(), Refusal> {
        if !self.policy.allows(&proven.domain) {
            return Err(Code::PEER_DENIED.into());
        }
        let record = self.record(&proven.domain);
        let known = record.is_some_and(|record| {
            record.genesis == Some(proven.genesis) && record.state != crate::peer::PeerState::Replaced
        });
        if known {
            return Ok(());
        }
        let source = proven.connection.remote_address().ip();
        let knocked = lock(&self.contacts).knocked(&proven.domain, source, self.host.now_ms());
        knocked.map_err(|refusal| Refusal { scope: Scope::Connection, ..refusal })?;
        let wait = Duration::from_millis(self.settings.reconnect_base_ms);
        Err(Refusal::from(Code::PEER_UNVERIFIED).after(wait))
    }

    /// Waits for all peers' tasks.
    pub(crate) async fn join(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a peer's task panicked");
    }
}
