//! Where a domain's home is (chapter 09, 9.2): static peers, the cache, the document, DNS, the domain itself.
//!
//! The certificate is always the domain's own, wherever the connection goes. A peer's task makes one discovery at
//! a time (`net`), so that there is at most one per domain.
//!
//! What this module does not do: connect by QUIC.

pub mod address;
pub mod document;
mod io;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use tidings_proto::handshake::ALPN_SERVER;
use tidings_proto::limits;
use tidings_proto::name::Domain;
use tidings_proto::quic::TransportLimits;

use crate::policy::Pattern;
use document::{Place, PlaceHost};
pub use io::LookUpError;

/// A peer named in the settings: found without discovery, at any address.
#[derive(Debug, Clone)]
pub struct StaticPeer {
    /// Which domains.
    pub pattern: Pattern,
    /// Where they are.
    pub address: SocketAddr,
    /// Whom to trust for their certificates; `None` for the web's trust anchors.
    pub trust: Option<Arc<rustls::RootCertStore>>,
}

/// Where and how to connect.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) config: quinn::ClientConfig,
}

/// Why TLS or DNS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// TLS.
    #[error("TLS settings")]
    Tls(#[from] rustls::Error),
    /// QUIC.
    #[error("QUIC settings")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// DNS.
    #[error("DNS settings")]
    Dns(#[from] hickory_resolver::net::NetError),
}

/// How long an answer is used before it is asked for again.
const LIFETIME_MS: u64 = limits::DISCOVERY_LIFETIME_SECS.saturating_mul(1000);

struct Cached {
    addresses: Vec<SocketAddr>,
    at_ms: u64,
}

/// Finds homes.
pub(crate) struct Discovery {
    fixed: Vec<(StaticPeer, Option<quinn::ClientConfig>)>,
    web: quinn::ClientConfig,
    https: Arc<rustls::ClientConfig>,
    resolver: Option<TokioResolver>,
    cache: Mutex<HashMap<Domain, Cached>>,
    /// Refreshed behind the back of a connection just now.
    refreshing: Mutex<BTreeSet<Domain>>,
}

/// The trust anchors of the web.
#[must_use]
pub fn web_trust() -> rustls::RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

fn tls(trust: Arc<rustls::RootCertStore>, alpn: &[u8]) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(trust)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_early_data = false;
    Ok(config)
}

fn quic(trust: Arc<rustls::RootCertStore>) -> Result<quinn::ClientConfig, SetUpError> {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls(trust, ALPN_SERVER.as_bytes())?)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(TransportLimits::default().to_config());
    Ok(config)
}

impl Discovery {
    pub(crate) fn new(
        fixed: Vec<StaticPeer>,
        web: rustls::RootCertStore,
        dns: bool,
    ) -> Result<Self, SetUpError> {
        let web = Arc::new(web);
        let mut with_config = Vec::with_capacity(fixed.len());
        for peer in fixed {
            let config = peer.trust.clone().map(quic).transpose()?;
            with_config.push((peer, config));
        }
        Ok(Self {
            fixed: with_config,
            https: Arc::new(tls(Arc::clone(&web), b"http/1.1")?),
            web: quic(web)?,
            resolver: if dns { Some(TokioResolver::builder_tokio()?.build()?) } else { None },
            cache: Mutex::default(),
            refreshing: Mutex::default(),
        })
    }

    /// Whether a static peer covers a domain.
    pub(crate) fn is_static(&self, domain: &Domain) -> bool {
        self.fixed.iter().any(|(peer, _)| peer.pattern.matches(domain))
    }

    /// The steps of 9.2. Exact static peers go before suffixes.
    pub(crate) async fn find(&self, domain: &Domain, now_ms: u64) -> Result<Target, LookUpError> {
        let matching = || self.fixed.iter().filter(|(peer, _)| peer.pattern.matches(domain));
        let exact = matching().find(|(peer, _)| matches!(peer.pattern, Pattern::Exact(_)));
        if let Some((peer, config)) = exact.or_else(|| matching().next()) {
            let config = config.clone().unwrap_or_else(|| self.web.clone());
            return Ok(Target { addresses: vec![peer.address], config });
        }
        if let Some((addresses, age_ms)) = self.cached(domain, now_ms)
            && age_ms < LIFETIME_MS
        {
            return Ok(Target { addresses, config: self.web.clone() });
        }
        self.refresh(domain, now_ms).await
    }

    /// Asks anew where the cached answer is past half of its time, and not past all of it.
    pub(crate) async fn refresh_if_due(&self, domain: &Domain, now_ms: u64) {
        let age_ms = self.cached(domain, now_ms).map_or(0, |(_, age_ms)| age_ms);
        let due = age_ms > LIFETIME_MS.wrapping_div(2) && age_ms < LIFETIME_MS;
        let begun = || self.refreshing.lock().unwrap_or_else(PoisonError::into_inner).insert(domain.clone());
        if due && begun() {
            // A failure keeps the answer that is there.
            let _kept = self.refresh(domain, now_ms).await;
            self.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(domain);
        }
    }

    /// Steps 3 to 9: asks anew; a cached answer of any age is used while that fails.
    async fn refresh(&self, domain: &Domain, now_ms: u64) -> Result<Target, LookUpError> {
        let within = Duration::from_millis(limits::DISCOVERY_MS);
        let asked = tokio::time::timeout(within, self.ask(domain)).await;
        match asked.unwrap_or(Err(LookUpError::TimedOut)) {
            Ok(addresses) => {
                let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
                cache.insert(domain.clone(), Cached { addresses: addresses.clone(), at_ms: now_ms });
                Ok(Target { addresses, config: self.web.clone() })
            }
            Err(error) => match self.cached(domain, now_ms) {
                Some((addresses, _)) => Ok(Target { addresses, config: self.web.clone() }),
                None => Err(error),
            },
        }
    }

    fn cached(&self, domain: &Domain, now_ms: u64) -> Option<(Vec<SocketAddr>, u64)> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = cache.get(domain)?;
        Some((cached.addresses.clone(), now_ms.saturating_sub(cached.at_ms)))
    }

    async fn ask(&self, domain: &Domain) -> Result<Vec<SocketAddr>, LookUpError> {
        let resolver = self.resolver.as_ref().ok_or(LookUpError::Off)?;
        let place = match io::well_known(resolver, &self.https, domain).await? {
            io::Document::Found(place) => place,
            io::Document::Absent(why) => {
                tracing::debug!(%domain, why, "no discovery document; asking DNS");
                let own = || Place { host: PlaceHost::Name(domain.clone()), port: 443 };
                io::service(resolver, domain).await?.unwrap_or_else(own)
            }
        };
        io::locate(resolver, &place).await
    }
}
