//! Handshakes: frames of anybody never prove an identity that its key did not sign for.
//!
//! Input: a byte that chooses the scene, then the frames of one side. Nonces are fixed, so the frames that the honest
//! side sends in a scene are known; only those may prove anything.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use tidings_proto::chain::{ServerState, Verified};
use tidings_proto::codec;
use tidings_proto::frame::{FrameDecoder, FrameLimits, RawFrame};
use tidings_proto::handshake::{
    ALPN_CLIENT, ALPN_SERVER, Acceptor, AcceptorConfig, AcceptorEvent, Credentials, Found, Identity, Opener,
    OpenerConfig, OpenerEvent,
};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::pb;

use super::outcome;
use crate::world;

/// What both sides are like.
#[derive(Clone, Copy)]
struct Scene {
    who: Who,
    /// Opener and acceptor have the TLS exporter.
    exporter: (bool, bool),
    /// The opener knows the acceptor's chain.
    pinned: bool,
}

#[derive(Clone, Copy)]
enum Who {
    Device,
    Candidate,
    Peer,
}

const SCENES: [Scene; 6] = [
    Scene { who: Who::Device, exporter: (true, true), pinned: true },
    Scene { who: Who::Device, exporter: (true, false), pinned: true },
    Scene { who: Who::Candidate, exporter: (true, true), pinned: false },
    Scene { who: Who::Candidate, exporter: (false, false), pinned: false },
    Scene { who: Who::Peer, exporter: (true, true), pinned: true },
    Scene { who: Who::Peer, exporter: (false, true), pinned: false },
];

pub(super) fn run(data: &[u8]) -> u64 {
    let Some((choice, stream)) = data.split_first() else { return 0 };
    let scene = SCENES[usize::from(choice >> 1) % SCENES.len()];
    let frames = frames(stream);
    if choice.is_multiple_of(2) { to_acceptor(scene, &frames) } else { to_opener(scene, &frames) }
}

fn frames(stream: &[u8]) -> Vec<RawFrame> {
    let mut decoder = FrameDecoder::new(FrameLimits::new(8 * 1024));
    decoder.push(stream);
    let mut frames = Vec::new();
    while let (Ok(Some(frame)), true) = (decoder.next_frame(), frames.len() < 8) {
        frames.push(frame);
    }
    frames
}

fn to_acceptor(scene: Scene, frames: &[RawFrame]) -> u64 {
    let mut acceptor = Acceptor::new(scene.acceptor());
    let mut fates = Vec::new();
    let mut hellos = BTreeSet::new();
    for frame in frames {
        if frame.kind == 0 {
            hellos.insert(frame.payload.clone());
        }
        let result = acceptor.handle(frame).and_then(|events| answered(&mut acceptor, scene, events));
        let proven = result
            .as_ref()
            .is_ok_and(|events| events.iter().any(|event| matches!(event, AcceptorEvent::Proven(_))));
        if proven {
            let honest = scene
                .talk()
                .from_opener
                .iter()
                .any(|frame| frame.kind == 0 && hellos.contains(&frame.payload));
            assert!(honest, "an identity was proven by a Hello that its owner did not send");
        }
        fates.push((
            frame.kind.min(0x80),
            proven,
            result.as_ref().map(Vec::len).map_err(|refusal| refusal.code),
        ));
        if result.is_err() {
            break;
        }
    }
    outcome((0, fates))
}

fn answered(
    acceptor: &mut Acceptor,
    scene: Scene,
    events: Vec<AcceptorEvent>,
) -> Result<Vec<AcceptorEvent>, tidings_proto::error::Refusal> {
    let mut all = Vec::new();
    for event in events {
        if matches!(event, AcceptorEvent::LookUp(_)) {
            all.extend(acceptor.found(scene.found())?);
        } else {
            all.push(event);
        }
    }
    Ok(all)
}

fn to_opener(scene: Scene, frames: &[RawFrame]) -> u64 {
    let (mut opener, _) = Opener::start(scene.opener());
    let mut fates = Vec::new();
    let mut welcomes = BTreeSet::new();
    for frame in frames {
        if frame.kind == 2 {
            welcomes.insert(frame.payload.clone());
        }
        let result = opener.handle(frame);
        let proven = result
            .as_ref()
            .is_ok_and(|events| events.iter().any(|event| matches!(event, OpenerEvent::Proven(_))));
        if proven && scene.pinned {
            let sent = scene.talk().from_acceptor;
            let honest = sent.iter().any(|frame| frame.kind == 2 && welcomes.contains(&frame.payload));
            assert!(honest, "a server was proven by a Welcome that it did not send");
        }
        fates.push((
            frame.kind.min(0x80),
            proven,
            result.as_ref().map(Vec::len).map_err(|refusal| refusal.code),
        ));
        if result.is_err() {
            break;
        }
    }
    outcome((1, fates))
}

/// The frames that the honest sides send each other.
struct Talk {
    from_opener: Vec<RawFrame>,
    from_acceptor: Vec<RawFrame>,
}

impl Scene {
    fn identity(self) -> (Identity, u8) {
        match self.who {
            Who::Device => {
                (Identity::Device { account: AccountId([1; 32]), device: DeviceId([2; 32]) }, world::PHONE)
            }
            Who::Candidate => (Identity::Candidate(world::key(world::LAPTOP).public()), world::LAPTOP),
            Who::Peer => {
                let chain = &*PEER;
                (
                    Identity::Peer { domain: world::domain("b.example"), genesis: chain.server_id() },
                    world::PEER_ONLINE,
                )
            }
        }
    }

    const fn alpn(self) -> &'static str {
        match self.who {
            Who::Peer => ALPN_SERVER,
            Who::Device | Who::Candidate => ALPN_CLIENT,
        }
    }

    fn found(self) -> Found {
        match self.who {
            Who::Device => Found::Device(world::key(world::PHONE).public()),
            Who::Candidate => Found::Candidate,
            Who::Peer => Found::Peer { held: None, links: Vec::new(), nonce_proof: true },
        }
    }

    fn opener(self) -> OpenerConfig {
        let (identity, key) = self.identity();
        let peer = matches!(self.who, Who::Peer);
        OpenerConfig {
            alpn: self.alpn().to_owned(),
            domain: world::domain("a.example"),
            server: self.pinned.then(|| PINNED.clone()),
            server_links: if self.pinned { world::server_links().to_vec() } else { Vec::new() },
            credentials: Credentials {
                identity,
                key: world::key(key),
                chain: if peer { world::peer_links().to_vec() } else { Vec::new() },
            },
            exporter: self.exporter.0.then_some([5; 32]),
            nonce_proof: true,
            nonce: [6; 32],
            boot_id: [7; 16],
            capabilities: vec![0, 2],
            software: "fuzz/1".to_owned(),
        }
    }

    fn acceptor(self) -> AcceptorConfig {
        AcceptorConfig {
            alpn: self.alpn().to_owned(),
            between_servers: matches!(self.who, Who::Peer),
            domain: world::domain("a.example"),
            chain: SERVER.clone(),
            links: world::server_links().to_vec(),
            key: world::key(world::ONLINE),
            exporter: self.exporter.1.then_some([5; 32]),
            nonce_proof: true,
            nonce: [8; 32],
            capabilities: vec![0, 2],
            welcome: pb::Welcome {
                boot_id: vec![9; 16].into(),
                incarnation: vec![2; 16].into(),
                ..Default::default()
            },
        }
    }

    /// Runs the handshake to its end.
    fn talk(self) -> Talk {
        let mut acceptor = Acceptor::new(self.acceptor());
        let (mut opener, mut from_opener) = Opener::start(self.opener());
        let mut from_acceptor = Vec::new();
        let (mut given, mut taken) = (0, 0);
        while given < from_opener.len() || taken < from_acceptor.len() {
            if let Some(frame) = from_opener.get(given) {
                given += 1;
                let events = acceptor.handle(frame).and_then(|events| answered(&mut acceptor, self, events));
                for event in events.expect("the honest opener is taken") {
                    match event {
                        AcceptorEvent::Send(frame) => from_acceptor.push(frame),
                        AcceptorEvent::Proven(_) => from_acceptor.push(codec::to_raw(&pb::Ready::default())),
                        AcceptorEvent::LookUp(_) => {}
                    }
                }
            } else if let Some(frame) = from_acceptor.get(taken) {
                taken += 1;
                for event in opener.handle(frame).expect("the honest acceptor is taken") {
                    if let OpenerEvent::Send(frame) = event {
                        from_opener.push(frame);
                    }
                }
            }
        }
        Talk { from_opener, from_acceptor }
    }
}

static SERVER: LazyLock<Verified<ServerState>> = LazyLock::new(|| chain(world::server_links()));
static PINNED: LazyLock<Verified<ServerState>> = LazyLock::new(|| chain(&world::server_links()[..1]));
static PEER: LazyLock<Verified<ServerState>> = LazyLock::new(|| chain(world::peer_links()));

fn chain(links: &[pb::Link]) -> Verified<ServerState> {
    Verified::verify(links).expect("a chain of this world")
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let bytes = |choice: u8, frames: &[RawFrame]| {
        let frames = frames.iter().map(|frame| frame.encode().expect("a frame").to_vec());
        [vec![choice]].into_iter().chain(frames).collect::<Vec<_>>().concat()
    };
    (0_u8..)
        .zip(SCENES)
        .flat_map(|(number, scene)| {
            let talk = scene.talk();
            [bytes(2 * number, &talk.from_opener), bytes(2 * number + 1, &talk.from_acceptor)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scene_ends_with_both_sides_proven() {
        for scene in SCENES {
            let talk = scene.talk();
            assert!(
                talk.from_acceptor.iter().any(|frame| frame.kind == 6),
                "the acceptor holds the opener for proven"
            );
        }
    }
}
