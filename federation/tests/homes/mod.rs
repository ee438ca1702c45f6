//! Homes over real QUIC on the loopback address, with certificates of a test authority and stores of maps.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::model::{Store, verdict_of};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tidings_federation::discovery::StaticPeer;
use tidings_federation::host::{
    Adopted, Answer, Host, InboxState, Incoming, OutboxEntry, OutboxState, OwnIdentity, PeerKey, PeerRecord,
    PeerStatus, Stored, StoredPeer, Taken, Told, Verdict,
};
use tidings_federation::peer::PeerState;
use tidings_federation::{Config, Federation};
use tidings_proto::chain::{ServerChange, ServerState, Verified, server};
use tidings_proto::codec::{self, Frame};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::RawFrame;
use tidings_proto::handshake::ALPN_SERVER;
use tidings_proto::id::{Hash, Incarnation, ServerId};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::quic::TransportLimits;
use tidings_proto::sign::SigningKey;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

/// A certificate authority for all homes of a test.
pub struct Authority {
    pub issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub roots: Arc<rustls::RootCertStore>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { issuer: rcgen::Issuer::new(params, key), roots: Arc::new(roots) }
    }

    pub fn endpoint(&self, name: &str) -> Endpoint {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        tls.alpn_protocols = vec![ALPN_SERVER.as_bytes().to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        // As a gateway has it that serves clients on the same socket.
        config.transport_config(
            TransportLimits { unidirectional_streams: 0, ..TransportLimits::default() }.to_config(),
        );
        Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).unwrap()
    }
}

/// A home's store: one [`Store`] for each peer, and outboxes for domains that are not known yet.
pub struct ModelHost {
    pub identity: OwnIdentity,
    pub random: AtomicU64,
    pub records: Mutex<BTreeMap<(Domain, Option<ServerId>), PeerRecord>>,
    pub stores: Mutex<BTreeMap<ServerId, Store>>,
    pub unbound: Mutex<BTreeMap<Domain, Vec<u64>>>,
    pub states: watch::Sender<BTreeMap<Domain, PeerState>>,
    pub moved: watch::Sender<u64>,
    /// Links of the own chain that were taken from others.
    pub adopted: watch::Sender<Vec<pb::Link>>,
    pub began: Instant,
}

impl ModelHost {
    pub fn new(name: &str, seed: u8) -> Arc<Self> {
        Self::grown(name, seed, &[])
    }

    /// A host whose chain has these links behind the genesis.
    pub fn grown(name: &str, seed: u8, more: &[pb::Link]) -> Arc<Self> {
        let (root, online) = (SigningKey::from_seed(&[seed; 32]), SigningKey::from_seed(&[seed + 100; 32]));
        let genesis = server::genesis(&domain(name), &root, &online, Incarnation([seed; 16]));
        let links = [&[genesis], more].concat();
        let identity = OwnIdentity {
            chain: Verified::<ServerState>::verify(&links).unwrap(),
            links,
            key: online,
            boot_id: [seed; 16],
            capabilities: vec![0, 2],
            limits: Vec::new(),
            software: "model/1".to_owned(),
        };
        Arc::new(Self {
            identity,
            random: AtomicU64::new(u64::from(seed)),
            records: Mutex::default(),
            stores: Mutex::default(),
            unbound: Mutex::default(),
            states: watch::Sender::default(),
            moved: watch::Sender::default(),
            adopted: watch::Sender::default(),
            began: Instant::now(),
        })
    }

    /// The link that begins another incarnation behind the own chain.
    pub fn renewal(&self, n: u8) -> pb::Link {
        let change = ServerChange::NewIncarnation(Incarnation([n; 16]));
        self.identity.chain.link(&change, &[&self.identity.key])
    }

    pub fn genesis(&self) -> ServerId {
        self.identity.chain.server_id()
    }

    pub fn with<T>(&self, peer: &ServerId, what: impl FnOnce(&mut Store) -> T) -> T {
        let seed = self.random.fetch_add(1, Ordering::Relaxed);
        let mut stores = self.stores.lock().unwrap();
        let value = what(stores.entry(*peer).or_insert_with(|| Store::new(seed)));
        drop(stores);
        self.moved.send_modify(|moved| *moved += 1);
        value
    }

    pub fn append(&self, to: &Domain, item: u64) {
        let records = self.records.lock().unwrap();
        let known = records.keys().find(|(domain, genesis)| domain == to && genesis.is_some());
        match known.and_then(|(_, genesis)| *genesis) {
            Some(genesis) => self.with(&genesis, |store| store.append(item)),
            None => self.unbound.lock().unwrap().entry(to.clone()).or_default().push(item),
        }
    }

    /// Waits until something holds for the store of a peer.
    pub async fn until(&self, peer: &ServerId, holds: impl Fn(&Store) -> bool) {
        let mut moved = self.moved.subscribe();
        let waiting = async {
            loop {
                moved.mark_unchanged();
                if self.stores.lock().unwrap().get(peer).is_some_and(&holds) {
                    return;
                }
                moved.changed().await.unwrap();
            }
        };
        timeout(Duration::from_secs(20), waiting).await.expect("it does not come about");
    }

    pub async fn until_state(&self, of: &Domain, state: PeerState) {
        let mut states = self.states.subscribe();
        let waiting = states.wait_for(|states| states.get(of) == Some(&state));
        timeout(Duration::from_secs(20), waiting).await.expect("the state does not come about").unwrap();
    }
}

pub fn ready<'a, T: Send + 'a>(value: T) -> Stored<'a, T> {
    Box::pin(async move { Ok(value) })
}

impl Host for ModelHost {
    fn identity(&self) -> OwnIdentity {
        self.identity.clone()
    }

    fn adopt<'a>(&'a self, links: Vec<pb::Link>, _: bytes::Bytes) -> Stored<'a, Adopted> {
        let mut chain = self.identity.chain.clone();
        if chain.extend(&links).is_err() {
            return ready(Adopted::Nothing);
        }
        self.adopted.send_replace(links);
        ready(Adopted::Grown)
    }

    fn now_ms(&self) -> u64 {
        1_000_000 + u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    fn random(&self) -> [u8; 32] {
        let mut out = [0; 32];
        let n = self.random.fetch_add(1, Ordering::Relaxed);
        out[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        out
    }

    fn peers(&self) -> Stored<'_, Vec<StoredPeer>> {
        let records = self.records.lock().unwrap();
        let peers = records.values().cloned().map(|record| StoredPeer { record, oldest_ms: Some(0) });
        ready(peers.collect())
    }

    fn put_peer(&self, record: PeerRecord) -> Stored<'_, ()> {
        let (domain, genesis) = (record.domain.clone(), record.genesis);
        let mut records = self.records.lock().unwrap();
        records.insert((domain.clone(), genesis), record);
        if let Some(genesis) = genesis {
            records.remove(&(domain.clone(), None));
            for item in self.unbound.lock().unwrap().remove(&domain).unwrap_or_default() {
                self.with(&genesis, |store| store.append(item));
            }
        }
        ready(())
    }

    fn outbox<'a>(&'a self, peer: &'a ServerId) -> Stored<'a, OutboxState> {
        ready(self.with(peer, |store| store.outbox()))
    }

    fn outbox_fill<'a>(&'a self, peer: &'a ServerId, max: usize) -> Stored<'a, u64> {
        ready(self.with(peer, |store| store.fill(max)))
    }

    fn outbox_read<'a>(
        &'a self,
        peer: &'a ServerId,
        after: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Stored<'a, Vec<OutboxEntry>> {
        ready(self.with(peer, |store| store.read(after, max_entries, max_bytes)))
    }

    fn outbox_hash<'a>(&'a self, peer: &'a ServerId, n: u64) -> Stored<'a, Option<Hash>> {
        ready(self.with(peer, |store| store.hash_at(n)))
    }

    fn outbox_settle<'a>(
        &'a self,
        peer: &'a ServerId,
        upto: u64,
        refusals: Vec<(u64, Refusal)>,
    ) -> Stored<'a, ()> {
        self.with(peer, |store| store.settle(upto, &refusals));
        ready(())
    }

    fn outbox_replace<'a>(&'a self, peer: &'a ServerId, n: u64, reason: Refusal) -> Stored<'a, OutboxEntry> {
        ready(self.with(peer, |store| store.replace(n, reason.code)))
    }

    fn outbox_restart<'a>(&'a self, peer: &'a ServerId, told: Told) -> Stored<'a, OutboxState> {
        ready(self.with(peer, |store| store.restart(&told)))
    }

    fn outbox_close<'a>(&'a self, peer: &'a PeerKey, code: Code) -> Stored<'a, ()> {
        if let Some(genesis) = &peer.genesis {
            self.with(genesis, |store| {
                for n in store.done + 1..=store.last() {
                    store.replace(n, code);
                }
            });
        }
        self.unbound.lock().unwrap().remove(&peer.domain);
        ready(())
    }

    fn inbox<'a>(&'a self, peer: &'a ServerId) -> Stored<'a, InboxState> {
        ready(self.with(peer, |store| store.inbox()))
    }

    fn take<'a>(&'a self, peer: &'a ServerId, _: &'a Domain, batch: Vec<Incoming>) -> Stored<'a, Taken> {
        ready(self.with(peer, |store| store.take(&batch)))
    }

    fn inbox_restart<'a>(&'a self, peer: &'a ServerId, incarnation: Incarnation) -> Stored<'a, ()> {
        self.with(peer, |store| store.inbox_restart(incarnation));
        ready(())
    }

    fn results_seen<'a>(&'a self, peer: &'a ServerId, upto: u64) -> Stored<'a, ()> {
        self.with(peer, |store| store.results_seen(upto));
        ready(())
    }

    fn resolve<'a>(
        &'a self,
        asking: &'a Domain,
        request: pb::Resolve,
    ) -> Answer<'a, Result<pb::Resolved, Refusal>> {
        let own = self.identity.domain();
        Box::pin(async move {
            if request.address.ends_with(own.as_str()) {
                Ok(pb::Resolved { account: asking.as_str().as_bytes().to_vec().into(), ..Default::default() })
            } else {
                Err(Code::NOT_HERE.into())
            }
        })
    }

    fn fetch_bundles<'a>(
        &'a self,
        _: &'a Domain,
        _: pb::FetchBundles,
    ) -> Answer<'a, Result<pb::Bundles, Refusal>> {
        Box::pin(async { Err(Code::NO_SUCH_ACCOUNT.into()) })
    }

    fn group<'a>(&'a self, asking: &'a Domain, request: Frame) -> Answer<'a, Result<RawFrame, Refusal>> {
        Box::pin(async move {
            match request {
                // A group without a name is one that nobody here knows.
                Frame::GroupBatch(batch) if batch.group.is_empty() => Err(Code::NO_SUCH_GROUP.into()),
                Frame::GroupBatch(batch) => {
                    let group = [batch.group.as_ref(), asking.as_str().as_bytes()].concat().into();
                    Ok(codec::to_raw(&pb::GroupTaken { group, ..Default::default() }))
                }
                other => Err(Refusal::new(Code::NOT_PERMITTED, other.name())),
            }
        })
    }

    fn peer_changed(&self, status: &PeerStatus) {
        self.states.send_modify(|states| {
            states.insert(status.domain.clone(), status.state);
        });
    }
}

pub struct Home {
    pub host: Arc<ModelHost>,
    pub endpoint: Endpoint,
    pub federation: Federation,
    pub _gateway: JoinSet<()>,
}

impl Home {
    pub async fn start(
        authority: &Authority,
        host: Arc<ModelHost>,
        endpoint: Endpoint,
        peers: &[(&str, SocketAddr)],
    ) -> Self {
        let static_peers = peers.iter().map(|(name, address)| StaticPeer {
            pattern: name.parse().unwrap(),
            address: *address,
            trust: Some(Arc::clone(&authority.roots)),
        });
        let config = Config { static_peers: static_peers.collect(), discovery: false, ..Config::default() };
        let shared: Arc<dyn Host> = Arc::<ModelHost>::clone(&host);
        let federation = Federation::start(shared, endpoint.clone(), config).await.unwrap();
        let mut gateway = JoinSet::new();
        let (accepting, handle) = (endpoint.clone(), federation.clone());
        gateway.spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                if let Ok(connection) = incoming.await {
                    handle.accept(connection).await;
                }
            }
        });
        Self { host, endpoint, federation, _gateway: gateway }
    }

    pub fn send(&self, to: &str, items: std::ops::RangeInclusive<u64>) {
        for item in items {
            self.host.append(&domain(to), item);
        }
        self.federation.appended(&domain(to));
    }
}

pub fn accepted(items: impl Iterator<Item = u64>) -> Vec<u64> {
    items.filter(|item| verdict_of(*item) == Verdict::Accepted).collect()
}

pub async fn two_homes() -> (Home, Home, Authority) {
    // `RUST_LOG=tidings_federation=debug` shows what happens.
    let logs = tracing_subscriber::EnvFilter::from_default_env();
    let _before = tracing_subscriber::fmt().with_env_filter(logs).with_test_writer().try_init();
    let authority = Authority::new();
    let (at_a, at_b) = (authority.endpoint("a.test"), authority.endpoint("b.test"));
    let (address_a, address_b) = (at_a.local_addr().unwrap(), at_b.local_addr().unwrap());
    let a = Home::start(&authority, ModelHost::new("a.test", 1), at_a, &[("*.test", address_b)]).await;
    let b = Home::start(&authority, ModelHost::new("b.test", 2), at_b, &[("*.test", address_a)]).await;
    (a, b, authority)
}
