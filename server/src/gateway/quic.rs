//! The QUIC endpoint: certificate, transport limits, the loop that accepts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tidings_proto::handshake::{ALPN_CLIENT, ALPN_SERVER};
use tidings_proto::quic::TransportLimits;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::reset::{RandomIds, ResetKey};
use super::session;
use crate::config::Config;
use crate::identity::Franking;
use crate::node::Shared;
use crate::refusal::Code;

/// Unvalidated connection attempts above which sources have to prove their address first.
const RETRY_ABOVE: usize = 256;
/// Connections a node holds at most.
const CONNECTIONS_MAX: usize = 100_000;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A certificate or key file.
    #[error("{path}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A file without a certificate.
    #[error("{0}: there is no certificate in it (expected PEM, the server's own certificate first)")]
    NoCertificate(PathBuf),
    /// A certificate and a key of another.
    #[error("{certificate} and {key} do not belong together")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// TLS does not take certificate and key.
    #[error("TLS settings")]
    Tls(#[from] rustls::Error),
    /// No suitable cipher suite.
    #[error("QUIC settings")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// The socket.
    #[error("the UDP socket at {address} (is another program listening there?)")]
    Socket {
        /// Where it was to listen.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// The one socket: clients and peers come in by it, peers are dialled by it.
pub struct Listening {
    pub(crate) endpoint: Endpoint,
    address: SocketAddr,
}

impl Listening {
    /// Binds the socket; nothing is answered yet.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn bind(config: &Config, franking: &Franking) -> Result<Self, NetworkError> {
        let socket = |source| NetworkError::Socket { address: config.listen, source };
        let reset = ResetKey(franking.derive("stateless-reset"));
        let udp = std::net::UdpSocket::bind(config.listen).map_err(socket)?;
        let mut settings = EndpointConfig::new(Arc::new(reset));
        settings.cid_generator(|| Box::new(RandomIds));
        let endpoint = Endpoint::new(settings, Some(server_config(config)?), udp, Arc::new(TokioRuntime));
        let endpoint = endpoint.map_err(socket)?;
        let address = endpoint.local_addr().map_err(socket)?;
        Ok(Self { endpoint, address })
    }
}

/// The listening endpoint and its connections.
pub struct Gateway {
    endpoint: Endpoint,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Gateway {
    /// Answers what comes in.
    #[must_use]
    pub fn start(shared: Arc<Shared>, listening: Listening) -> Self {
        let Listening { endpoint, address } = listening;
        let stop = shared.stopping.clone();
        let stopping = stop.subscribe();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(endpoint.clone(), shared, stopping));
        Self { endpoint, address, stop, tasks }
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Tells all connections to go away, waits for them a moment, closes what is left.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(10), drained).await.is_err() {
            tracing::warn!("connections were still open after 10 s and are closed now");
        }
        self.endpoint.close(Code::GOING_AWAY.0.into(), b"");
        self.tasks.shutdown().await;
        // The socket is free when the last connection is drained: at most three times the longest wait for an answer.
        let _late = tokio::time::timeout(Duration::from_secs(4), self.endpoint.wait_idle()).await;
    }
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => match incoming { Some(incoming) => incoming, None => break },
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            () = stopped(&mut stopping) => break,
        };
        if connections.len() >= CONNECTIONS_MAX {
            incoming.refuse();
        } else if endpoint.open_connections() > RETRY_ABOVE && !incoming.remote_address_validated() {
            // Fails only for a validated address.
            let _validated = incoming.retry();
        } else {
            connections.spawn(session::serve(Arc::clone(&shared), incoming, stopping.clone()));
        }
    }
    // Who comes now is refused at once, and not left waiting.
    endpoint.set_server_config(None);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

fn server_config(config: &Config) -> Result<ServerConfig, NetworkError> {
    let pem = |path: &Path, source| NetworkError::Pem { path: path.to_owned(), source };
    let file = &config.certificate;
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| pem(file, source))?;
    if certificates.is_empty() {
        return Err(NetworkError::NoCertificate(file.clone()));
    }
    let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|source| pem(&config.key, source))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                NetworkError::Pair { certificate: file.clone(), key: config.key.clone() }
            }
            other => other.into(),
        })?;
    tls.alpn_protocols = vec![ALPN_CLIENT.as_bytes().to_vec(), ALPN_SERVER.as_bytes().to_vec()];
    tls.max_early_data_size = 0;
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let streams = u32::try_from(config.limits.pipelines_max()).unwrap_or(u32::MAX);
    let transport = TransportLimits {
        idle_timeout: Duration::from_millis(config.limits.idle_timeout_ms()),
        keepalive: Duration::from_millis(config.limits.keepalive_ms()),
        bidirectional_streams: streams.saturating_add(1),
        unidirectional_streams: 0,
        ..TransportLimits::default()
    };
    server.transport_config(transport.to_config());
    Ok(server)
}

/// Resolves when the node stops.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The sender is gone only when the node is: the same thing.
    let _gone = stopping.wait_for(|stopping| *stopping).await.map(|_| ());
}
