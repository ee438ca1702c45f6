use serde_json::{Value, json};
use tidings_proto::codec::{self, Frame};
use tidings_proto::error::Refusal;
use tidings_proto::frame::{FrameLimits, decode_one};
use tidings_proto::frames::{Sender, Stream};
use tidings_proto::handshake::{
    Binding, Identity, OpenerEvent, ProofKind, Role, Transcript, check, transcript,
};
use tidings_proto::id::{AccountId, DeviceId, Hash, ServerId};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::{PublicKey, sha256};

use super::{Verdict, array, hex_of, text};
use crate::scene::Scene;

fn frame_of(bytes: &[u8]) -> Result<tidings_proto::frame::RawFrame, String> {
    decode_one(bytes, &FrameLimits::default()).map_err(|error| Refusal::from(&error).code.to_string())
}

pub(super) fn messages(inputs: &Value) -> Verdict {
    let bytes = hex_of(inputs, "bytes");
    let raw = frame_of(&bytes)?;
    let frame = Frame::from_raw(&raw).map_err(|error| Refusal::from(&error).code.to_string())?;
    let frame = frame.expect("a registered frame");
    assert_eq!(frame.encode(), bytes, "the sample is written as it was read");
    Ok(json!({"frame": frame.name(), "type": raw.kind.to_string(), "payload_bytes": raw.payload.len()}))
}

pub(super) fn placement(inputs: &Value) -> Verdict {
    let from = if text(inputs, "from") == "opener" { Sender::Opener } else { Sender::Acceptor };
    let on = match text(inputs, "stream") {
        "control" => Stream::Control,
        "local" => Stream::Local,
        "remote" => Stream::Remote,
        "submit" => Stream::Submit,
        "event" => Stream::Event,
        _ => Stream::Link,
    };
    let known = codec::stands(inputs["type"].as_u64().expect("a number"), from, on);
    known
        .map(|known| json!({"frame": known.map(|known| known.name)}))
        .map_err(|refusal| refusal.code.to_string())
}

fn identity(value: &Value) -> Identity {
    match text(value, "kind") {
        "device" => Identity::Device {
            account: AccountId(array(&hex_of(value, "account"))),
            device: DeviceId(array(&hex_of(value, "device"))),
        },
        "candidate" => Identity::Candidate(PublicKey::parse(&hex_of(value, "key")).expect("a key")),
        _ => Identity::Peer {
            domain: Domain::parse(text(value, "domain")).expect("a domain"),
            genesis: ServerId(array(&hex_of(value, "server_genesis"))),
        },
    }
}

pub(super) fn proof(inputs: &Value) -> Verdict {
    let who = identity(&inputs["identity"]);
    let binding = &inputs["binding"];
    let binding = if binding["exporter"].is_string() {
        Binding::Exporter(array(&hex_of(binding, "exporter")))
    } else {
        Binding::Nonces {
            opener: array(&hex_of(binding, "opener_nonce")),
            acceptor: array(&hex_of(binding, "acceptor_nonce")),
        }
    };
    let welcome = &inputs["welcome_payload"];
    let of = Transcript {
        role: if text(inputs, "role") == "opener" { Role::Opener } else { Role::Acceptor },
        alpn: text(inputs, "alpn"),
        domain: text(inputs, "domain"),
        identity: &who,
        genesis: ServerId(array(&hex_of(inputs, "server_genesis"))),
        hello: sha256(&hex_of(inputs, "hello_payload")),
        welcome: if welcome.is_null() { Hash::ZERO } else { sha256(&hex_of(inputs, "welcome_payload")) },
        binding,
    };
    let proof = pb::Proof {
        kind: i32::try_from(inputs["proof"]["kind"].as_i64().expect("a number")).expect("small"),
        key_id: hex_of(&inputs["proof"], "key_id").into(),
        signature: hex_of(&inputs["proof"], "signature").into(),
    };
    let key = PublicKey::parse(&hex_of(inputs, "key")).expect("a key");
    check(&of, &proof, &key).map_err(|refusal| refusal.code.to_string())?;
    assert_eq!(transcript(&of)[0], if of.role == Role::Opener { 1 } else { 2 });
    Ok(json!(true))
}

/// A whole handshake is run on both sides; frames of one side only are given to the other.
pub(super) fn handshake(inputs: &Value) -> Verdict {
    let scene = Scene::of(inputs);
    let frames: Vec<(&str, Vec<u8>)> = inputs["frames"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|frame| (text(frame, "from"), hex_of(frame, "bytes")))
        .collect();
    let (mut opener, mut from_opener) = scene.opener();
    let (mut acceptor, mut from_acceptor) = (scene.acceptor(), Vec::new());
    let whole = frames.iter().any(|(from, _)| *from == "opener")
        && frames.iter().any(|(from, _)| *from == "acceptor");
    let (mut by_acceptor, mut by_opener) = (None, None);
    for (from, bytes) in &frames {
        let raw = frame_of(bytes)?;
        if *from == "opener" {
            assert!(!whole || from_opener.remove(0) == raw, "the opener sends what the vector says");
            let (sent, proven) =
                scene.accept(&mut acceptor, &raw).map_err(|refusal| refusal.code.to_string())?;
            from_acceptor.extend(sent);
            by_acceptor = by_acceptor.or(proven);
        } else {
            assert!(!whole || from_acceptor.remove(0) == raw, "the acceptor sends what the vector says");
            for event in opener.handle(&raw).map_err(|refusal| refusal.code.to_string())? {
                match event {
                    OpenerEvent::Send(frame) => from_opener.push(frame),
                    OpenerEvent::Proven(server) => by_opener = Some(server.proof()),
                    OpenerEvent::Ready(_) => {}
                }
            }
        }
    }
    let name = |proof: Option<ProofKind>| match proof {
        Some(ProofKind::Exporter) => "exporter",
        Some(ProofKind::Nonce) => "nonce",
        _ => "none",
    };
    assert_eq!(name(by_acceptor), name(by_opener), "both sides have the same kind of proof");
    Ok(json!({"proof": name(by_opener)}))
}
