//! A peer that breaks rules over a real connection: it is closed with the code that the text names.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, as it is to"
)]

mod homes;
mod model;

use std::sync::Arc;
use std::time::Duration;

use homes::{Authority, Home, ModelHost, domain};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError};
use tidings_federation::host::Host as _;
use tidings_federation::host::PeerRecord;
use tidings_federation::peer::PeerState;
use tidings_proto::codec::{self, Frame};
use tidings_proto::error::Code;
use tidings_proto::frame::{FrameLimits, RawFrame};
use tidings_proto::handshake::{ALPN_SERVER, Credentials, Identity, Opener, OpenerConfig, OpenerEvent};
use tidings_proto::pb;
use tidings_proto::quic::{self, FrameReader, FrameWriter};
use tokio::time::timeout;

/// A home `a.test` that knows `evil.test`, and a connection which the latter has proven.
struct Bench {
    home: Home,
    connection: Connection,
    control: (FrameWriter, FrameReader),
    _endpoint: quinn::Endpoint,
}

async fn bench() -> Bench {
    let authority = Authority::new();
    let endpoint = authority.endpoint("a.test");
    let address = endpoint.local_addr().unwrap();
    let (own, evil) = (ModelHost::new("a.test", 1), ModelHost::new("evil.test", 2));
    let record = PeerRecord {
        domain: domain("evil.test"),
        genesis: Some(evil.genesis()),
        links: evil.identity.links.clone(),
        state: PeerState::New,
        since_ms: 0,
        limits: Vec::new(),
        successor: None,
    };
    own.put_peer(record).await.unwrap();
    let home = Home::start(&authority, own, endpoint, &[]).await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(Arc::clone(&authority.roots))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN_SERVER.as_bytes().to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(quic::transport_config());
    let endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    let connection = endpoint.connect_with(config, address, "a.test").unwrap().await.unwrap();
    let control = prove(&connection, &evil).await;
    Bench { home, connection, control, _endpoint: endpoint }
}

async fn prove(connection: &Connection, evil: &ModelHost) -> (FrameWriter, FrameReader) {
    let streams = connection.open_bi().await.unwrap();
    let (mut writer, mut reader) = quic::frames(streams, FrameLimits::default());
    let (mut opener, frames) = Opener::start(OpenerConfig {
        alpn: ALPN_SERVER.to_owned(),
        domain: domain("a.test"),
        server: None,
        server_links: Vec::new(),
        credentials: Credentials {
            identity: Identity::Peer { domain: domain("evil.test"), genesis: evil.genesis() },
            key: evil.identity.key.clone(),
            chain: evil.identity.links.clone(),
        },
        exporter: quic::exporter(connection),
        nonce_proof: false,
        nonce: evil.random(),
        boot_id: [7; 16],
        capabilities: vec![0, 2],
        software: String::new(),
    });
    writer.write_all(&frames).await.unwrap();
    loop {
        let raw = reader.next_frame().await.unwrap().unwrap();
        let events = opener.handle(&raw).unwrap();
        if events.iter().any(|event| matches!(event, OpenerEvent::Ready(_))) {
            return (writer, reader);
        }
    }
}

impl Bench {
    async fn link(&self) -> FrameWriter {
        FrameWriter::new(self.connection.open_uni().await.unwrap())
    }

    async fn closed_with(&self) -> Code {
        let closed = timeout(Duration::from_secs(10), self.connection.closed()).await;
        match closed.expect("it stays open") {
            ConnectionError::ApplicationClosed(close) => Code(close.error_code.into_inner() as u32),
            other => panic!("{other}"),
        }
    }

    async fn request(&self, frames: &[RawFrame]) -> Vec<Frame> {
        let streams = self.connection.open_bi().await.unwrap();
        let (mut writer, mut reader) = quic::frames(streams, FrameLimits::default());
        writer.write_all(frames).await.unwrap();
        writer.finish();
        let mut answers = Vec::new();
        while let Some(raw) = reader.next_frame().await.unwrap() {
            answers.push(Frame::from_raw(&raw).unwrap().unwrap());
        }
        answers
    }
}

fn resume() -> pb::LinkResume {
    let zeros = pb::Position { incarnation: vec![0; 16].into(), n: 0, hash: vec![0; 32].into() };
    pb::LinkResume { taken: Some(zeros), refusals: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_stream_begins_with_link_resume() {
    let bench = bench().await;
    let mut link = bench.link().await;
    link.send(&pb::ResultsSeen { upto: 0 }).await.unwrap();
    assert_eq!(bench.closed_with().await, Code::FRAME_UNEXPECTED);
    bench.home.host.until_state(&domain("evil.test"), PeerState::Unreachable).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_link_stream_ends_the_connection() {
    let bench = bench().await;
    let (mut first, mut second) = (bench.link().await, bench.link().await);
    first.send(&resume()).await.unwrap();
    second.send(&resume()).await.unwrap();
    assert_eq!(bench.closed_with().await, Code::FRAME_UNEXPECTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_critical_frame_ends_the_connection_and_an_ignorable_one_does_not() {
    let bench = bench().await;
    let mut link = bench.link().await;
    link.write(&RawFrame::new(0x21, &b"grease"[..])).await.unwrap();
    link.send(&resume()).await.unwrap();
    link.write(&RawFrame::new(0x7e, &b""[..])).await.unwrap();
    assert_eq!(bench.closed_with().await, Code::FRAME_UNKNOWN);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_above_the_limit_ends_the_connection() {
    let bench = bench().await;
    let mut link = bench.link().await;
    link.send(&resume()).await.unwrap();
    let _closed = link.write(&RawFrame::new(0x62, vec![0; 300_000])).await;
    assert_eq!(bench.closed_with().await, Code::FRAME_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshake_is_not_repeated_on_a_proven_connection() {
    let mut bench = bench().await;
    bench.control.0.send(&pb::Hello::default()).await.unwrap();
    assert_eq!(bench.closed_with().await, Code::FRAME_UNEXPECTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_answers_each_request_in_its_place() {
    let bench = bench().await;
    let resolve =
        |address: &str| codec::to_raw(&pb::Resolve { address: address.to_owned(), ..Default::default() });
    let answers = bench
        .request(&[
            resolve("x@a.test"),
            RawFrame::new(0x24, vec![0xff; 9]),
            RawFrame::new(0x21, &b"grease"[..]),
            codec::to_raw(&pb::Submit::default()),
            resolve("x@b.test"),
            codec::to_raw(&pb::Ping { opaque: vec![5].into() }),
        ])
        .await;
    let codes: Vec<_> = answers
        .iter()
        .map(|frame| match frame {
            Frame::Failure(failure) => Some(Code(failure.code)),
            _ => None,
        })
        .collect();
    let (malformed, denied, elsewhere) = (Code::MESSAGE_MALFORMED, Code::NOT_PERMITTED, Code::NOT_HERE);
    assert_eq!(codes, [None, Some(malformed), Some(denied), Some(elsewhere), None]);
    assert_eq!(answers.last(), Some(&pb::Pong { opaque: vec![5].into() }.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_budget_are_told_to_wait() {
    let bench = bench().await;
    let resolve = codec::to_raw(&pb::Resolve { address: "x@a.test".to_owned(), ..Default::default() });
    let answers = bench.request(&vec![resolve; 1500]).await;
    assert_eq!(answers.len(), 1500);
    let refused = answers.iter().filter_map(|frame| match frame {
        Frame::Failure(failure) => Some((Code(failure.code), failure.retry_after_ms > 0)),
        _ => None,
    });
    let refused: Vec<_> = refused.collect();
    assert!(refused.len() > 100, "{}", refused.len());
    assert!(refused.iter().all(|refused| *refused == (Code::TOO_FAST, true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spent_budget_leaves_the_requests_of_groups_theirs() {
    let bench = bench().await;
    let resolve = codec::to_raw(&pb::Resolve { address: "x@a.test".to_owned(), ..Default::default() });
    let batch = codec::to_raw(&pb::GroupBatch { group: vec![7].into(), ..Default::default() });
    let mut requests = vec![resolve; 1500];
    requests.extend(vec![batch; 100]);
    requests.push(codec::to_raw(&pb::GroupCreate::default()));
    let answers = bench.request(&requests).await;
    let taken = answers.iter().filter(|answer| matches!(answer, Frame::GroupTaken(_))).count();
    assert_eq!(taken, 100);
    let Some(Frame::Failure(last)) = answers.last() else { panic!("{:?}", answers.last()) };
    assert_eq!(Code(last.code), Code::NOT_PERMITTED, "only devices create groups");
}
