use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::svcb::{SVCB, SvcParamKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// A web server for one connection, and what a client that trusts it makes of its answer.
async fn answered(certified: &str, response: String) -> Result<Document, LookUpError> {
    let certified = rcgen::generate_simple_self_signed(vec![certified.to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let Ok(mut stream) = acceptor.accept(stream).await else { return };
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
        assert!(request.starts_with(b"GET /.well-known/tidings HTTP/1.1\r\nhost: a.example\r\n"));
        // A client that has read enough closes before the end.
        let _closed = stream.write_all(response.as_bytes()).await;
        let _closed = stream.shutdown().await;
    });
    fetch(stream, &Arc::new(client), &Domain::parse("a.example").unwrap()).await
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

const DOCUMENT: &str = r#"{"tidings": {"host": "t.a.example", "port": 4433}}"#;

#[tokio::test]
async fn a_document_is_fetched() {
    let found = answered("a.example", response("200 OK", DOCUMENT)).await.unwrap();
    let Document::Found(place) = found else { panic!("{found:?}") };
    assert_eq!(place.port, 4433);
}

#[tokio::test]
async fn absent_is_not_the_same_as_wrong() {
    for status in ["404 Not Found", "410 Gone"] {
        let found = answered("a.example", response(status, "")).await.unwrap();
        assert!(matches!(found, Document::Absent(_)));
    }
    for (status, code) in [("302 Found\r\nlocation: /x", 302), ("500 Oops", 500), ("204 No Content", 204)] {
        let error = answered("a.example", response(status, "")).await.unwrap_err();
        assert!(matches!(error, LookUpError::Status(got) if got == code), "{error:?}");
    }
    let error = answered("a.example", response("200 OK", "{}")).await.unwrap_err();
    assert!(matches!(error, LookUpError::Document(_)));
}

#[tokio::test]
async fn a_body_above_the_limit_is_not_read() {
    let long = format!("{DOCUMENT}{}", " ".repeat(5000));
    let error = answered("a.example", response("200 OK", &long)).await.unwrap_err();
    assert!(matches!(error, LookUpError::Body(_)), "{error:?}");
}

#[tokio::test]
async fn a_certificate_of_another_domain_does_not_count() {
    let error = answered("b.example", response("200 OK", DOCUMENT)).await.unwrap_err();
    assert!(matches!(error, LookUpError::Https(_)), "{error:?}");
}

fn record(priority: u16, target: &str, port: Option<u16>) -> RData {
    let params = port.map(|port| (SvcParamKey::Port, SvcParamValue::Port(port)));
    let target = Name::from_ascii(target).unwrap();
    RData::SVCB(SVCB::new(priority, target, params.into_iter().collect()))
}

fn named(host: &str, port: u16) -> Place {
    Place { host: PlaceHost::Name(Domain::parse(host).unwrap()), port }
}

#[test]
fn the_service_of_the_lowest_priority_is_the_place() {
    let own = Domain::parse("a.example").unwrap();
    let best = |records: &[RData]| best_service(records.iter(), &own).unwrap();
    let records = [record(2, "far.example.", None), record(1, "T.Near.example.", Some(4433))];
    assert_eq!(best(&records), Some(named("t.near.example", 4433)));
    assert_eq!(best(&records[..1]), Some(named("far.example", 443)), "443 without a port");
    assert_eq!(
        best(&[record(1, ".", Some(8443))]),
        Some(named("a.example", 8443)),
        "a dot is the domain itself"
    );
}

#[test]
fn aliases_other_records_and_none_are_no_service() {
    let own = Domain::parse("a.example").unwrap();
    let address = RData::A(std::net::Ipv4Addr::new(198, 51, 100, 1).into());
    for records in [vec![], vec![address], vec![record(0, "alias.example.", None)]] {
        assert_eq!(best_service(records.iter(), &own).unwrap(), None);
    }
}

#[test]
fn a_target_that_is_no_domain_is_no_place() {
    let own = Domain::parse("a.example").unwrap();
    let odd = [record(1, "under_score.example.", None)];
    assert!(matches!(best_service(odd.iter(), &own), Err(LookUpError::NoAddress)));
}
