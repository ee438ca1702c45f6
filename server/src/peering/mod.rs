//! Between this home and others: [`tidings_federation`] moves entries, this module says what they mean here and
//! keeps what must last. Chapter 09.

mod adopt;
mod host;
mod inbound;
mod outbox;
mod pending;
mod transfer;

use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tidings_federation::discovery::StaticPeer;
use tidings_federation::{Config, Federation, Settings, StartError};

pub(crate) use pending::watch_pending;

use crate::config::Limits;
use crate::node::Shared;

/// Why federation does not start.
#[derive(Debug, thiserror::Error)]
pub enum PeeringError {
    /// A trust anchor's file.
    #[error("trust anchor {path}")]
    Anchor {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// A trust anchor that TLS does not take.
    #[error("trust anchor {path}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// TLS, DNS or the store.
    #[error("links to other homes")]
    Start(#[from] StartError),
}

/// Starts the links to other homes on the server's socket.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    endpoint: quinn::Endpoint,
) -> Result<Federation, PeeringError> {
    let mut peers = Vec::new();
    for peer in &shared.config.peers {
        let trust = match &peer.trust_anchor {
            None => None,
            Some(path) => Some(Arc::new(anchor(path)?)),
        };
        peers.push(StaticPeer { pattern: peer.pattern.clone(), address: peer.address, trust });
    }
    let config = Config {
        static_peers: peers,
        web_trust: tidings_federation::discovery::web_trust(),
        discovery: shared.config.discovery,
        rules: shared.config.rules(),
        settings: settings(&shared.config.limits),
    };
    let host = Arc::new(host::PeerHost::new(Arc::downgrade(shared)));
    Ok(Federation::start(host, endpoint, config).await?)
}

fn settings(limits: &Limits) -> Settings {
    Settings {
        frame_bytes: Limits::size(limits.frame_bytes_max()),
        pipelines_max: Limits::size(limits.pipelines_max()),
        requests_per_second: limits.requests_per_second(),
        request_deadline_ms: limits.request_deadline_ms(),
        handshake_ms: limits.handshake_ms(),
        outbox_age_max_secs: limits.outbox_age_max_secs(),
        reconnect_base_ms: limits.reconnect_base_ms(),
        reconnect_max_ms: limits.reconnect_max_ms(),
        account_new_domains_per_hour: limits.account_new_domains_per_hour(),
        home_new_domains_per_minute: limits.home_new_domains_per_minute(),
        shared_new_domains_per_hour: limits.shared_new_domains_per_hour(),
        ..Settings::default()
    }
}

fn anchor(path: &PathBuf) -> Result<rustls::RootCertStore, PeeringError> {
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    for certificate in certificates.map_err(|source| PeeringError::Anchor { path: path.clone(), source })? {
        roots.add(certificate).map_err(|source| PeeringError::Unusable { path: path.clone(), source })?;
    }
    Ok(roots)
}
