//! A server in a folder of its own, with a throw-away certificate.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;
use tidings_proto::chain::group::ServerRef;
use tidings_proto::codec::{self, Frame};
use tidings_proto::handshake::{ALPN_CLIENT, Identity};
use tidings_proto::id::Incarnation;
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_server::config::{Config, Registration, StaticPeer};
use tidings_server::node::Node;
use tidings_server::{identity, node};

use crate::client::{Another, Client, Person};

/// The world of one test.
pub(crate) struct World {
    pub domain: Domain,
    folder: TempDir,
    config: Config,
    certificate: CertificateDer<'static>,
    node: Option<Node>,
    endpoint: quinn::Endpoint,
}

impl World {
    pub(crate) async fn start(registration: Registration) -> Self {
        let mut world = Self::prepare("home.test");
        world.config.registration = registration;
        world.begin().await;
        world
    }

    /// With some limits of the operator's.
    pub(crate) async fn start_with(limits: &[(&str, u64)]) -> Self {
        let mut world = Self::prepare("home.test");
        for (name, value) in limits {
            world.config.limits.set(name, *value).expect("in range");
        }
        world.begin().await;
        world
    }

    /// Two homes that know each other as static peers; nothing runs yet.
    pub(crate) fn pair() -> (Self, Self) {
        let [a, b] = Self::several(["a.test", "b.test"], &[]);
        (a, b)
    }

    /// Homes that know each other as static peers, with some limits of their operators'; nothing runs yet.
    pub(crate) fn several<const N: usize>(domains: [&str; N], limits: &[(&str, u64)]) -> [Self; N] {
        let mut worlds = domains.map(Self::prepare);
        let configs: Vec<Config> = worlds.iter().map(|world| world.config.clone()).collect();
        for world in &mut worlds {
            for other in configs.iter().filter(|other| other.domain != world.domain) {
                world.config.peers.push(StaticPeer {
                    pattern: other.domain.as_str().parse().expect("a domain"),
                    address: other.listen,
                    trust_anchor: Some(other.certificate.clone()),
                });
            }
            for (name, value) in limits {
                world.config.limits.set(name, *value).expect("in range");
            }
        }
        worlds
    }

    /// The server as groups name it.
    pub(crate) fn server(&self) -> ServerRef {
        let genesis = self.node().shared().identity.chain.server_id();
        ServerRef { domain: self.domain.clone(), genesis }
    }

    fn prepare(domain: &str) -> Self {
        let domain = Domain::parse(domain).expect("a domain");
        let folder = tempfile::tempdir().expect("a folder");
        identity::create(folder.path(), &domain, node::random::<32>).expect("an identity");
        let made = rcgen::generate_simple_self_signed(vec![domain.to_string()]).expect("a certificate");
        let mut config = Config::new(domain.clone(), folder.path());
        std::fs::write(&config.certificate, made.cert.pem()).expect("writes");
        std::fs::write(&config.key, made.signing_key.serialize_pem()).expect("writes");
        // Asked of the system and given back: the server binds it a moment later, and again after a restart.
        let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
        config.listen = socket.local_addr().expect("an address");
        config.registration = Registration::Open;
        config.discovery = false;
        config.limits.set("candidate_connections_per_source", 100).expect("in range");
        let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
        Self { domain, folder, config, certificate: made.cert.der().clone(), node: None, endpoint }
    }

    /// Starts the node, for the first time or again.
    pub(crate) async fn begin(&mut self) {
        self.node = Some(Node::start(self.config.clone()).await.expect("starts"));
    }

    /// Stops the node; its folder stays.
    pub(crate) async fn end(&mut self) {
        self.node.take().expect("it runs").stop().await;
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    /// What `tidings new-incarnation` does.
    pub(crate) fn renew_incarnation(&self) {
        let incarnation = Incarnation(node::random());
        identity::renew(self.folder.path(), &self.domain, incarnation).expect("a link");
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn chain_file(&self) -> std::path::PathBuf {
        self.folder().join("server-chain")
    }

    pub(crate) async fn restart(mut self) -> Self {
        self.end().await;
        self.begin().await;
        self
    }

    pub(crate) async fn stop(mut self) {
        self.end().await;
        assert!(self.folder.path().join("tidings.db").exists());
    }

    /// A copy of the data folder of a server that does not run.
    pub(crate) fn copy(&self) -> TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        copy_files(self.folder.path(), copy.path());
        copy
    }

    /// Puts such a copy in the place of the data.
    pub(crate) fn restore(&self, copy: &TempDir) {
        for file in std::fs::read_dir(self.folder.path()).expect("a folder") {
            let path = file.expect("an entry").path();
            if path.is_file() {
                std::fs::remove_file(path).expect("removes");
            }
        }
        copy_files(copy.path(), self.folder.path());
    }

    pub(crate) async fn dial(&self) -> quinn::Connection {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN_CLIENT.as_bytes().to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("a suite")));
        let connecting = self.endpoint.connect_with(config, self.node().local_addr(), self.domain.as_str());
        connecting.expect("a dial").await.expect("a connection")
    }

    pub(crate) async fn device(&self, person: &Person) -> Client {
        let identity = Identity::Device { account: person.account(), device: person.device_id() };
        Client::enter(self.dial().await, &self.domain, identity, &person.device).await
    }

    /// The connection of a second device.
    pub(crate) async fn another(&self, person: &Person, device: &Another) -> Client {
        let identity = Identity::Device { account: person.account(), device: device.id };
        Client::enter(self.dial().await, &self.domain, identity, &device.key).await
    }

    /// Adds a second device by the first one's connection; it has prekeys and an event stream.
    pub(crate) async fn add(&self, person: &mut Person, first: &mut Client, seed: u8) -> (Another, Client) {
        let (device, link) = person.add_device(seed);
        first.done(&pb::AppendLink { link: Some(link) }, true).await;
        let mut client = self.another(person, &device).await;
        client.done(&device.identity.prekeys(), true).await;
        client.sync(None).await;
        (device, client)
    }

    pub(crate) async fn register(&self, person: &Person, token: &str) -> Result<(), pb::Failure> {
        let identity = Identity::Candidate(person.device.public());
        let mut client = Client::enter(self.dial().await, &self.domain, identity, &person.device).await;
        let request = pb::Register {
            genesis: Some(person.genesis.clone()),
            token: token.to_owned(),
            keys: Some(person.identity.prekeys()),
        };
        match client.answer(codec::encode(&request), "local").await {
            Frame::Done(_) => Ok(()),
            Frame::Failure(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).expect("a folder") {
        let file = file.expect("an entry");
        if file.path().is_file() {
            std::fs::copy(file.path(), to.join(file.file_name())).expect("copies");
        }
    }
}
