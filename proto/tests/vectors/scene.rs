//! The two sides of a handshake, from fixed keys and nonces.

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_proto::codec;
use tidings_proto::error::Refusal;
use tidings_proto::frame::{FrameLimits, RawFrame, decode_one};
use tidings_proto::handshake::{
    ALPN_CLIENT, ALPN_SERVER, Acceptor, AcceptorConfig, AcceptorEvent, Credentials, Found, Identity, Opener,
    OpenerConfig, OpenerEvent, ProofKind,
};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use crate::world::{PHONE, Server, key, server, server_of};

const EXPORTER: [u8; 32] = [0xee; 32];
const OPENER_NONCE: [u8; 32] = [0xc1; 32];
const ACCEPTOR_NONCE: [u8; 32] = [0xc2; 32];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Device,
    Candidate,
    Peer,
}

#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) who: Who,
    pub(crate) opener_exporter: bool,
    pub(crate) acceptor_exporter: bool,
    pub(crate) pinned: bool,
}

impl Scene {
    pub(crate) const fn device() -> Self {
        Self { who: Who::Device, opener_exporter: true, acceptor_exporter: true, pinned: true }
    }

    pub(crate) const fn candidate() -> Self {
        Self { who: Who::Candidate, ..Self::device() }
    }

    pub(crate) const fn peer() -> Self {
        Self { who: Who::Peer, ..Self::device() }
    }

    fn alpn(&self) -> &'static str {
        if self.who == Who::Peer { ALPN_SERVER } else { ALPN_CLIENT }
    }

    fn peer_server() -> Server {
        server_of("b.example", 20)
    }

    const fn signer(&self) -> u8 {
        match self.who {
            Who::Device => PHONE,
            Who::Candidate => 4,
            Who::Peer => 21,
        }
    }

    fn identity(&self) -> Identity {
        match self.who {
            Who::Device => Identity::Device { account: AccountId([0xa1; 32]), device: DeviceId([0xa2; 32]) },
            Who::Candidate => Identity::Candidate(key(self.signer()).public()),
            Who::Peer => Identity::Peer {
                domain: Domain::parse("b.example").expect("a domain"),
                genesis: Self::peer_server().chain.server_id(),
            },
        }
    }

    pub(crate) fn opener(&self) -> (Opener, Vec<RawFrame>) {
        let chain = if self.who == Who::Peer { Self::peer_server().links } else { Vec::new() };
        Opener::start(OpenerConfig {
            alpn: self.alpn().into(),
            domain: Domain::parse("a.example").expect("a domain"),
            server: self.pinned.then(|| server().chain),
            server_links: Vec::new(),
            credentials: Credentials { identity: self.identity(), key: key(self.signer()), chain },
            exporter: self.opener_exporter.then_some(EXPORTER),
            nonce_proof: true,
            nonce: OPENER_NONCE,
            boot_id: [0xb1; 16],
            capabilities: vec![0, 2],
            software: "story/1".into(),
        })
    }

    pub(crate) fn acceptor(&self) -> Acceptor {
        let home = server();
        Acceptor::new(AcceptorConfig {
            alpn: self.alpn().into(),
            between_servers: self.who == Who::Peer,
            domain: Domain::parse("a.example").expect("a domain"),
            chain: home.chain,
            links: home.links,
            key: key(11),
            exporter: self.acceptor_exporter.then_some(EXPORTER),
            nonce_proof: true,
            nonce: ACCEPTOR_NONCE,
            capabilities: vec![0, 2],
            welcome: pb::Welcome {
                boot_id: vec![0xb2; 16].into(),
                limits: vec![pb::Limit { id: 1, value: 262_144 }, pb::Limit { id: 2, value: 65_536 }],
                registration: pb::Registration::Open.into(),
                software: "home/1".into(),
                ..Default::default()
            },
        })
    }

    fn found(&self) -> Found {
        match self.who {
            Who::Device => Found::Device(key(self.signer()).public()),
            Who::Candidate => Found::Candidate,
            Who::Peer => Found::Peer { held: None, links: Vec::new(), nonce_proof: false },
        }
    }

    /// What the acceptor says to one frame, and the proof it found the opener to have.
    pub(crate) fn accept(
        &self,
        acceptor: &mut Acceptor,
        frame: &RawFrame,
    ) -> Result<(Vec<RawFrame>, Option<ProofKind>), Refusal> {
        let mut events = acceptor.handle(frame)?;
        if matches!(events.first(), Some(AcceptorEvent::LookUp(_))) {
            events = acceptor.found(self.found())?;
        }
        let (mut frames, mut proven) = (Vec::new(), None);
        for event in events {
            match event {
                AcceptorEvent::Send(frame) => frames.push(frame),
                AcceptorEvent::Proven(by) => {
                    proven = Some(by.proof());
                    let device = (self.who == Who::Device).then(pb::DeviceState::default);
                    frames.push(codec::to_raw(&pb::Ready { device }));
                }
                AcceptorEvent::LookUp(_) => unreachable!("once, and first"),
            }
        }
        Ok((frames, proven))
    }

    /// The frames of both sides, in the order in which they are sent.
    pub(crate) fn run(&self) -> Vec<(&'static str, Bytes)> {
        let (mut opener, mut to_acceptor) = self.opener();
        let mut acceptor = self.acceptor();
        let mut sent = Vec::new();
        while !to_acceptor.is_empty() {
            let mut to_opener = Vec::new();
            for frame in std::mem::take(&mut to_acceptor) {
                sent.push(("opener", frame.encode().expect("a frame")));
                to_opener.extend(self.accept(&mut acceptor, &frame).expect("a good frame").0);
            }
            for frame in to_opener {
                sent.push(("acceptor", frame.encode().expect("a frame")));
                for event in opener.handle(&frame).expect("a good frame") {
                    if let OpenerEvent::Send(frame) = event {
                        to_acceptor.push(frame);
                    }
                }
            }
        }
        sent
    }

    pub(crate) fn inputs(&self, frames: &[(&str, Bytes)]) -> Value {
        let frames: Vec<Value> =
            frames.iter().map(|(from, frame)| json!({"from": from, "bytes": hex::encode(frame)})).collect();
        let who = match self.who {
            Who::Device => "device",
            Who::Candidate => "candidate",
            Who::Peer => "peer",
        };
        let own = |has: bool| has.then(|| hex::encode(EXPORTER));
        json!({
            "alpn": self.alpn(),
            "acceptor_domain": "a.example",
            "opener": {
                "kind": who,
                "signing_seed": hex::encode([self.signer(); 32]),
                "public_key": key(self.signer()).public().to_string(),
                "exporter": own(self.opener_exporter),
                "pins_the_chain": self.pinned,
            },
            "acceptor": {
                "signing_seed": hex::encode([11; 32]),
                "public_key": key(11).public().to_string(),
                "exporter": own(self.acceptor_exporter),
                "chain": server().json(),
            },
            "frames": frames,
        })
    }

    /// The scene that a vector's inputs describe.
    pub(crate) fn of(inputs: &Value) -> Self {
        let who = match inputs["opener"]["kind"].as_str() {
            Some("device") => Who::Device,
            Some("candidate") => Who::Candidate,
            _ => Who::Peer,
        };
        Self {
            who,
            opener_exporter: inputs["opener"]["exporter"].is_string(),
            acceptor_exporter: inputs["acceptor"]["exporter"].is_string(),
            pinned: inputs["opener"]["pins_the_chain"] == true,
        }
    }
}

pub(crate) fn hello_of(frame: &Bytes) -> pb::Hello {
    let raw = decode_one(frame, &FrameLimits::default()).expect("a frame");
    codec::decode(&raw).expect("a Hello")
}
