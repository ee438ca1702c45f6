//! The node: assembles everything, once. The only place with a clock and a source of randomness.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rand::RngExt as _;
use tidings_federation::Federation;
use tidings_federation::policy::Policy;
use tidings_proto::id::{DeviceId, Incarnation};
use tidings_proto::name::Domain;
use tokio::sync::{Notify, watch};

use crate::accounts::rendezvous::Meetings;
use crate::config::{Config, Limits};
use crate::gateway::{Gateway, Listening, Sessions, SourceBudget};
use crate::groups::{self, Groups};
use crate::identity::{self, Franking, IdentityError, ServerIdentity};
use crate::keys::FetchBudget;
use crate::peering::{self, PeeringError};
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{State, Woken};
use crate::store::{SqliteStore, StoreError};

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's chain or keys.
    #[error("the server's identity (run `tidings init DOMAIN` first?)")]
    Identity(#[from] IdentityError),
    /// The database.
    #[error("the server's database (tidings.db in the data folder)")]
    Store(#[from] StoreError),
    /// Beginning a new incarnation.
    #[error("the mailboxes of a new incarnation: {0}")]
    Renew(#[from] Refusal),
    /// The way to other homes.
    #[error("federation")]
    Federation(#[from] PeeringError),
    /// Certificate or socket.
    #[error("the network")]
    Network(#[from] crate::gateway::NetworkError),
}

/// Wakes the pumps of devices.
#[derive(Debug, Default)]
pub struct Wakers {
    waiting: Mutex<HashMap<DeviceId, Arc<Notify>>>,
}

impl Wakers {
    /// What the pump of a device waits on.
    #[must_use]
    pub fn of(&self, device: DeviceId) -> Arc<Notify> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|known, notify| *known == device || Arc::strong_count(notify) > 1);
        Arc::clone(waiting.entry(device).or_default())
    }

    /// Something was placed for these devices.
    pub fn wake(&self, devices: &[DeviceId]) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for notify in devices.iter().filter_map(|device| waiting.get(device)) {
            notify.notify_waiters();
        }
    }
}

/// What all connections share.
pub struct Shared {
    /// The settings.
    pub config: Config,
    /// Who this server is.
    pub identity: ServerIdentity,
    /// Tags commitments.
    pub franking: Franking,
    /// Everything durable.
    pub state: Arc<State>,
    /// Wakes pumps.
    pub wakers: Wakers,
    /// Connected devices.
    pub sessions: Sessions,
    /// Places for unproven connections.
    pub sources: SourceBudget,
    /// Bundle fetches.
    pub fetches: FetchBudget,
    /// Groups in memory.
    pub groups: Groups,
    /// Meetings of devices being linked.
    pub meetings: Meetings,
    /// Which domains the operator lets this server talk to.
    pub policy: Policy,
    /// The way to other homes, while it runs.
    pub(crate) federation: ArcSwapOption<Federation>,
    /// New at each start.
    pub boot_id: [u8; 16],
    /// Set when nothing is to be served any more.
    pub(crate) stopping: watch::Sender<bool>,
    /// Held while the chain's file is changed.
    pub(crate) adopting: Mutex<()>,
}

impl Shared {
    /// Now, Unix milliseconds.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the node reads the clock for everybody")]
    pub fn now_ms(&self) -> u64 {
        let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    /// Random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        random()
    }

    /// The incarnation of this server's logs.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.identity.chain.state().incarnation()
    }

    /// An incarnation for a new outbox.
    #[must_use]
    pub fn fresh_incarnation(&self) -> Incarnation {
        Incarnation(self.random())
    }

    /// Whether the operator lets this server talk to a domain.
    #[must_use]
    pub fn may_talk_to(&self, domain: &Domain) -> bool {
        self.policy.allows(domain)
    }

    /// Other allow and deny lists from now on; connections of domains that are denied now are closed.
    pub fn reload(&self, config: &Config) {
        self.policy.replace(config.rules());
        if let Some(federation) = self.federation.load_full() {
            federation.reload(config.rules());
        }
    }

    /// The way to other homes.
    ///
    /// # Errors
    /// `peer-unreachable` while this server starts or stops.
    pub(crate) fn federation(&self) -> Result<Arc<Federation>, Refusal> {
        let running = self.federation.load_full();
        running.ok_or_else(|| Code::PEER_UNREACHABLE.because("federation is not running"))
    }

    /// Brings outboxes, mailboxes and counters to this home's incarnation, where they are of an earlier one.
    async fn renew(&self) -> Result<(), Refusal> {
        let incarnation = self.incarnation();
        if !self.state.is_outdated(incarnation).await? {
            return Ok(());
        }
        // Outboxes first: after a crash in between the mailboxes still tell that it is not done.
        let outboxes = self.renew_outboxes().await?;
        let mailboxes = self.state.renew(incarnation).await?;
        tracing::warn!(mailboxes, outboxes, "a new incarnation: mailboxes, counters and outboxes begin anew");
        Ok(())
    }

    /// Wakes the pumps and links that have something to send now.
    pub fn wake(&self, woken: &Woken) {
        self.wakers.wake(&woken.devices);
        if let Some(federation) = self.federation.load_full() {
            woken.domains.iter().for_each(|domain| federation.appended(domain));
        }
    }
}

/// Random bytes from the system's generator.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the node owns the source of randomness")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes[..]);
    bytes
}

/// Closes what expired, once a minute.
async fn sweep(shared: Arc<Shared>) {
    let mut minute = tokio::time::interval(std::time::Duration::from_secs(60));
    loop {
        minute.tick().await;
        if let Err(refusal) = shared.expire(shared.now_ms()).await {
            tracing::error!(%refusal, "expired messages could not be closed");
        }
    }
}

/// A running homeserver.
pub struct Node {
    shared: Arc<Shared>,
    gateway: Gateway,
    chores: tokio::task::JoinSet<()>,
}

impl Node {
    /// Opens the data folder and starts to listen.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (identity, franking) = identity::load(&config.data, &config.domain)?;
        let store = Arc::new(SqliteStore::open(&config.data).await?);
        let limits = &config.limits;
        let state = State::open(store, limits.mailbox_entries_max()).await?;
        let meetings = Meetings::new(
            limits.rendezvous_secs().saturating_mul(1000),
            Limits::size(limits.rendezvous_blobs_max()),
            Limits::size(limits.rendezvous_blob_bytes_max()),
        );
        let shared = Arc::new(Shared {
            sources: SourceBudget::new(limits.candidate_connections_per_source()),
            policy: Policy::new(config.rules()),
            groups: Groups::new(&identity, &config.limits),
            meetings,
            config,
            identity,
            franking,
            state,
            wakers: Wakers::default(),
            sessions: Sessions::default(),
            fetches: FetchBudget::default(),
            federation: ArcSwapOption::empty(),
            boot_id: random(),
            stopping: watch::Sender::new(false),
            adopting: Mutex::default(),
        });
        shared.renew().await?;
        let listening = Listening::bind(&shared.config, &shared.franking)?;
        let federation = peering::start(&shared, listening.endpoint.clone()).await?;
        shared.federation.store(Some(Arc::new(federation)));
        let gateway = Gateway::start(Arc::clone(&shared), listening);
        let mut chores = tokio::task::JoinSet::new();
        chores.spawn(sweep(Arc::clone(&shared)));
        chores.spawn(peering::watch_pending(Arc::clone(&shared)));
        chores.spawn(groups::keep_time(Arc::clone(&shared)));
        chores.spawn(groups::watch_hubs(Arc::clone(&shared)));
        Ok(Self { shared, gateway, chores })
    }

    /// What the node's parts share.
    #[must_use]
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// Resolves when nothing is served any more, because the server has learnt that it lost state: it is to be
    /// stopped and started again. Logged already.
    pub async fn ended(&self) {
        // The sender is gone only when the node is.
        let _set = self.shared.stopping.subscribe().wait_for(|stopping| *stopping).await.map(|_| ());
    }

    /// Ends it: connections are told to go elsewhere, what was handed to the log is written.
    pub async fn stop(mut self) {
        self.chores.shutdown().await;
        if let Some(federation) = self.shared.federation.swap(None) {
            federation.stop().await;
        }
        self.gateway.stop().await;
        self.shared.groups.stop().await;
        self.shared.state.close().await;
    }
}
