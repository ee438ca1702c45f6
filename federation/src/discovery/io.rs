//! What discovery asks of the world: addresses, one HTTPS document, one DNS question.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::rdata::svcb::SvcParamValue;
use hickory_resolver::proto::rr::{RData, RecordType};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tidings_proto::limits;
use tidings_proto::name::Domain;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::address::is_global_unicast;
use super::document::{self, Place, PlaceHost};

/// Addresses that are tried at most.
const ADDRESSES_MAX: usize = 16;

/// What a look-up of the document gave.
#[derive(Debug)]
pub(super) enum Document {
    /// It stands there.
    Found(Place),
    /// The domain serves none: DNS is asked.
    Absent(String),
}

/// Why discovery stops.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// The document's server answered something else.
    #[error("the document's server answered with status {0}")]
    Status(u16),
    /// The document is not valid.
    #[error("the discovery document")]
    Document(#[from] document::DocumentError),
    /// More bytes than a document may have, or the connection broke.
    #[error("the body of the document: {0}")]
    Body(String),
    /// TLS or HTTP.
    #[error("HTTPS")]
    Https(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// DNS.
    #[error("DNS")]
    Dns(#[from] NetError),
    /// Nothing in global unicast space.
    #[error("no address in global unicast space")]
    NoAddress,
    /// `discovery_ms` is over.
    #[error("no answer in time")]
    TimedOut,
    /// Discovery is switched off and no static peer is named.
    #[error("not a static peer, and discovery is off")]
    Off,
}

fn https(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LookUpError {
    LookUpError::Https(error.into())
}

/// Global addresses of a name.
pub(super) async fn addresses(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, LookUpError> {
    let found = resolver.lookup_ip(format!("{name}.")).await?;
    let global: Vec<IpAddr> = found.iter().filter(|ip| is_global_unicast(*ip)).take(ADDRESSES_MAX).collect();
    if global.is_empty() { Err(LookUpError::NoAddress) } else { Ok(global) }
}

/// Step 7: where a place is.
pub(super) async fn locate(resolver: &TokioResolver, place: &Place) -> Result<Vec<SocketAddr>, LookUpError> {
    let found = match &place.host {
        PlaceHost::Address(address) if is_global_unicast(*address) => vec![*address],
        PlaceHost::Address(_) => return Err(LookUpError::NoAddress),
        PlaceHost::Name(name) => addresses(resolver, name.as_str()).await?,
    };
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, place.port)).collect())
}

/// Steps 3 and 4: the document, by HTTPS on port 443 of the domain.
pub(super) async fn well_known(
    resolver: &TokioResolver,
    tls: &Arc<rustls::ClientConfig>,
    domain: &Domain,
) -> Result<Document, LookUpError> {
    let found = match addresses(resolver, domain.as_str()).await {
        Ok(found) => found,
        Err(error) => return Ok(Document::Absent(error.to_string())),
    };
    let mut stream = None;
    for address in found {
        if let Ok(connected) = TcpStream::connect((address, 443)).await {
            stream = Some(connected);
            break;
        }
    }
    let Some(stream) = stream else {
        return Ok(Document::Absent("no TCP connection".to_owned()));
    };
    fetch(stream, tls, domain).await
}

/// One GET over a connection that stands. A redirect is a status like any other.
pub(super) async fn fetch(
    stream: TcpStream,
    tls: &Arc<rustls::ClientConfig>,
    domain: &Domain,
) -> Result<Document, LookUpError> {
    let name = ServerName::try_from(domain.to_string()).map_err(https)?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(https)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(https)?;
    // The connection's task ends with this set, when the answer is read.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get("/.well-known/tidings")
        .header(header::HOST, domain.as_str())
        .header(header::ACCEPT, "application/json")
        .body(Empty::new())
        .map_err(https)?;
    let response = sender.send_request(request).await.map_err(https)?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Document::Absent("no document".to_owned())),
        other => return Err(LookUpError::Status(other.as_u16())),
    }
    let most = usize::try_from(limits::DISCOVERY_BYTES_MAX).unwrap_or(usize::MAX);
    let body = Limited::new(response.into_body(), most).collect().await;
    let body = body.map_err(|error| LookUpError::Body(error.to_string()))?.to_bytes();
    Ok(Document::Found(document::parse(&body, domain)?))
}

/// Step 5: one question for SVCB; `None` if there is no such record.
pub(super) async fn service(resolver: &TokioResolver, domain: &Domain) -> Result<Option<Place>, LookUpError> {
    let found = match resolver.lookup(format!("_tidings.{domain}."), RecordType::SVCB).await {
        Ok(found) => found,
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    best_service(found.answers().iter().map(|record| &record.data), domain)
}

/// The place that SVCB records name: that of the lowest priority in ServiceMode; `None` if there is no such one.
fn best_service<'a>(
    records: impl Iterator<Item = &'a RData>,
    domain: &Domain,
) -> Result<Option<Place>, LookUpError> {
    let services = records.filter_map(|record| match record {
        // Priority 0 is AliasMode.
        RData::SVCB(svcb) if svcb.svc_priority > 0 => Some(svcb),
        _ => None,
    });
    let Some(best) = services.min_by_key(|svcb| svcb.svc_priority) else {
        return Ok(None);
    };
    let host = if best.target_name.is_root() {
        domain.clone()
    } else {
        let target = best.target_name.to_ascii().to_ascii_lowercase();
        Domain::parse(target.trim_end_matches('.')).map_err(|_| LookUpError::NoAddress)?
    };
    let port = best.svc_params.iter().find_map(|(_, value)| match value {
        SvcParamValue::Port(port) if *port > 0 => Some(*port),
        _ => None,
    });
    Ok(Some(Place { host: PlaceHost::Name(host), port: port.unwrap_or(443) }))
}

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;
