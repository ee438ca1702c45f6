//! The QUIC endpoint of a device: TLS to the home's domain, nothing weaker (spec 02-session).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tidings_proto::name::Domain;
use tidings_proto::quic::transport_config;

use crate::error::Error;
use crate::options::{Options, Trust};

/// The ALPN of clients.
const ALPN: &[u8] = b"tidings/1";

/// Port of a home that says nothing else.
const PORT: u16 = 443;

fn roots(trust: &Trust) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Web => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Trust::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate =
                    certificate.map_err(|e| Error::Misuse(format!("the trust anchor is not PEM: {e}")))?;
                roots
                    .add(certificate)
                    .map_err(|e| Error::Misuse(format!("the trust anchor is not a certificate: {e}")))?;
            }
            if roots.is_empty() {
                return Err(Error::Misuse("the trust anchor holds no certificate".to_owned()));
            }
        }
    }
    Ok(roots)
}

/// The TLS and transport settings of a device.
pub(crate) fn client_config(trust: &Trust) -> Result<quinn::ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::Misuse(format!("TLS 1.3 is not available: {e}")))?
        .with_root_certificates(roots(trust)?)
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // Version 1 carries no frames in 0-RTT (spec 02-session).
    tls.enable_early_data = false;
    let quic = QuicClientConfig::try_from(tls)
        .map_err(|e| Error::Misuse(format!("no initial cipher suite for QUIC: {e}")))?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    config.transport_config(transport_config());
    Ok(config)
}

/// Connects to a home; the certificate has to be its domain's, wherever the packets go.
///
/// # Errors
/// A sentence for people; the caller decides when to try again.
pub(crate) async fn connect(options: &Options, domain: &Domain) -> Result<quinn::Connection, String> {
    let address = match options.server {
        Some(address) => address,
        None => tokio::net::lookup_host((domain.as_str(), PORT))
            .await
            .map_err(|e| format!("{domain} cannot be found: {e}"))?
            .next()
            .ok_or_else(|| format!("{domain} has no address"))?,
    };
    let local: SocketAddr =
        if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let mut endpoint = quinn::Endpoint::client(local).map_err(|e| format!("no UDP socket: {e}"))?;
    endpoint.set_default_client_config(client_config(&options.trust).map_err(|e| e.to_string())?);
    endpoint
        .connect(address, domain.as_str())
        .map_err(|e| format!("cannot connect to {domain}: {e}"))?
        .await
        .map_err(|e| format!("{domain} did not answer as a homeserver: {e}"))
}
