//! A client of which every byte can be chosen.

use bytes::Bytes;
use tidings_proto::codec::Frame;
use tidings_proto::frame::{FrameLimits, RawFrame};
use tidings_proto::handshake::{ALPN_CLIENT, Credentials, Identity, Opener, OpenerConfig, OpenerEvent};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::quic::{self, FrameReader, FrameWriter};
use tidings_proto::sign::SigningKey;
use tidings_server::node;

use crate::client::{Person, close_code};
use crate::program::{Program, device, within};

/// Numbers from a seed that is printed and can be set by `TIDINGS_SEED`.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        let seed =
            std::env::var("TIDINGS_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_241_124);
        println!("TIDINGS_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// A stream as frames, both ways.
pub(crate) type Streams = (FrameWriter, FrameReader);

/// A connection with its control stream.
pub(crate) struct Raw {
    pub connection: quinn::Connection,
    pub control: Streams,
    pub state: Option<pb::DeviceState>,
}

pub(crate) fn opener(
    connection: &quinn::Connection,
    domain: &Domain,
    who: (Identity, &SigningKey),
) -> OpenerConfig {
    OpenerConfig {
        alpn: ALPN_CLIENT.to_owned(),
        domain: domain.clone(),
        server: None,
        server_links: Vec::new(),
        credentials: Credentials { identity: who.0, key: who.1.clone(), chain: Vec::new() },
        exporter: quic::exporter(connection),
        nonce_proof: true,
        nonce: node::random(),
        boot_id: node::random(),
        capabilities: vec![0, 2, 5],
        software: "raw/1".to_owned(),
    }
}

/// What an opener would send first.
pub(crate) fn first_frames(
    connection: &quinn::Connection,
    program: &Program,
    who: (Identity, &SigningKey),
) -> Vec<RawFrame> {
    Opener::start(opener(connection, &program.domain, who)).1
}

impl Raw {
    /// A connection and its first stream; nothing is sent.
    pub(crate) async fn silent(program: &Program) -> Self {
        Self::on(program.dial().await).await
    }

    pub(crate) async fn on(connection: quinn::Connection) -> Self {
        let streams = connection.open_bi().await.expect("a stream");
        Self { control: quic::frames(streams, FrameLimits::default()), connection, state: None }
    }

    /// Up to Ready; `None` if the connection is lost on the way.
    pub(crate) async fn prove(mut self, domain: &Domain, who: (Identity, &SigningKey)) -> Option<Self> {
        let (mut machine, first) = Opener::start(opener(&self.connection, domain, who));
        self.control.0.write_all(&first).await.ok()?;
        loop {
            let raw = within(self.control.1.next_frame()).await.ok()??;
            for event in machine.handle(&raw).ok()? {
                match event {
                    OpenerEvent::Send(frame) => self.control.0.write(&frame).await.ok()?,
                    OpenerEvent::Proven(_) => {}
                    OpenerEvent::Ready(state) => {
                        self.state = state;
                        return Some(self);
                    }
                }
            }
        }
    }

    pub(crate) async fn device(program: &Program, person: &Person) -> Self {
        let raw = Self::silent(program).await;
        raw.prove(&program.domain, (device(person), &person.device)).await.expect("proven")
    }

    pub(crate) async fn candidate(program: &Program, person: &Person) -> Self {
        let raw = Self::silent(program).await;
        let identity = Identity::Candidate(person.device.public());
        raw.prove(&program.domain, (identity, &person.device)).await.expect("proven")
    }

    pub(crate) async fn stream(&self) -> Streams {
        quic::frames(within(self.connection.open_bi()).await.expect("a stream"), FrameLimits::default())
    }

    pub(crate) async fn control_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed before it took everything.
        let _gone = self.control.0.stream_mut().write_all(bytes).await;
    }

    /// The registry code that the server ends the connection with.
    pub(crate) async fn closed(&self) -> u32 {
        close_code(within(self.connection.closed()).await)
    }
}

pub(crate) async fn send(streams: &mut Streams, bytes: &Bytes) {
    streams.0.stream_mut().write_all(bytes).await.expect("writes");
}

/// The next known frame of a stream.
pub(crate) async fn frame(streams: &mut Streams) -> Frame {
    let raw = within(streams.1.next_frame()).await.expect("reads").expect("a frame");
    Frame::from_raw(&raw).expect("a frame").expect("a known one")
}

/// The code of the Failure that comes next.
pub(crate) async fn failure(streams: &mut Streams) -> u32 {
    match frame(streams).await {
        Frame::Failure(failure) => failure.code,
        other => panic!("{other:?}"),
    }
}
