//! Chapter 02: where frames stand, what they look like, what a proof signs, whole handshakes.

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidings_proto::codec::{self, Frame};
use tidings_proto::handshake::ProofKind;
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use crate::samples;
use crate::scene::{Scene, hello_of};
use crate::vector::File;
use crate::world::{PHONE, key, server};

pub(crate) fn messages() -> File {
    let mut file = File::new("02-session", "messages", "Which frame is this, and what does it say?");
    for frame in samples::all() {
        let raw = frame.to_raw();
        let output = json!({
            "frame": frame.name(),
            "type": raw.kind.to_string(),
            "payload_bytes": raw.payload.len(),
        });
        let comment = format!("{}, with every field that stands in it", frame.name());
        let vector =
            file.valid(&["FRM-010"], &comment, json!({"bytes": hex::encode(frame.encode())}), output);
        vector.steps(crate::annotate::frame(&frame));
    }
    for frame in samples::all() {
        let raw = frame.to_raw();
        let cut = [&raw.payload[..], &[0xff]].concat();
        let bytes = tidings_proto::frame::RawFrame::new(raw.kind, cut).encode().expect("a frame");
        let comment = format!("{}, and its payload ends inside a tag", frame.name());
        let inputs = json!({"bytes": hex::encode(bytes)});
        file.invalid(&["FRM-010"], &comment, "message-malformed", inputs);
    }
    file
}

pub(crate) fn placement() -> File {
    let question = "Can a frame of this type come from this side on this stream?";
    let mut file = File::new("02-session", "placement", question);
    let of = |kind: u64, from: &str, stream: &str| json!({"type": kind, "from": from, "stream": stream});
    for (kind, from, stream, output, comment) in [
        (0x00, "opener", "control", "hello", "Hello"),
        (0x04, "opener", "control", "proof", "the opener's Proof"),
        (0x04, "acceptor", "control", "proof", "the acceptor's Proof"),
        (0x0c, "opener", "submit", "ping", "Ping on a submit pipeline"),
        (0x0c, "opener", "local", "ping", "Ping on a local pipeline"),
        (0x12, "acceptor", "event", "failure", "Failure on an event stream"),
        (0x12, "acceptor", "control", "failure", "Failure on the control stream"),
        (0x18, "acceptor", "event", "mailbox-entry", "MailboxEntry on an event stream"),
        (0x40, "opener", "submit", "submit", "Submit on its pipeline"),
        (0x24, "acceptor", "remote", "resolve", "Resolve from the acceptor, between homes"),
        (0x62, "acceptor", "link", "link-entry", "LinkEntry on a link stream"),
    ] {
        file.valid(&["TRN-013"], comment, of(kind, from, stream), json!({"frame": output}));
    }
    for (kind, stream) in [(0x21, "control"), (0x5f, "submit"), (0x01, "event"), (0x1_0001, "link")] {
        let comment = format!("an unknown odd type on a {stream} stream is skipped");
        file.valid(&["TRN-015"], &comment, of(kind, "opener", stream), json!({"frame": null}));
    }
    for (kind, from, stream, code, comment) in [
        (0x00, "acceptor", "control", "frame-unexpected", "Hello from the acceptor"),
        (0x02, "opener", "control", "frame-unexpected", "Welcome from the opener"),
        (0x06, "opener", "control", "frame-unexpected", "Ready from the opener"),
        (0x00, "opener", "local", "frame-unexpected", "Hello on a pipeline"),
        (0x0a, "acceptor", "control", "frame-unexpected", "Ack from the acceptor"),
        (0x0a, "opener", "local", "frame-unexpected", "Ack on a pipeline"),
        (0x0c, "opener", "control", "frame-unexpected", "Ping on the control stream"),
        (0x14, "opener", "control", "frame-unexpected", "Sync on the control stream"),
        (0x18, "opener", "event", "frame-unexpected", "MailboxEntry from the opener"),
        (0x18, "acceptor", "link", "frame-unexpected", "MailboxEntry on a link stream"),
        (0x40, "acceptor", "submit", "frame-unexpected", "Submit from the acceptor"),
        (0x40, "acceptor", "local", "frame-unexpected", "Submit from the acceptor, on a local pipeline"),
        (0x62, "opener", "event", "frame-unexpected", "LinkEntry on an event stream"),
        (0x62, "opener", "control", "frame-unexpected", "LinkEntry on the control stream"),
        (0x40, "opener", "local", "wrong-pipeline", "Submit on a local pipeline"),
        (0x14, "opener", "submit", "wrong-pipeline", "Sync on a submit pipeline"),
        (0x24, "opener", "local", "wrong-pipeline", "Resolve on a local pipeline"),
        (0x22, "opener", "remote", "wrong-pipeline", "AppendLink on a remote pipeline"),
        (0x7e, "opener", "control", "frame-unknown", "an unknown even type on the control stream"),
        (0x7e, "opener", "local", "frame-unknown", "an unknown even type on a pipeline"),
        (0x1_0000, "acceptor", "event", "frame-unknown", "an experimental even type on an event stream"),
    ] {
        let reqs: &[&str] = match code {
            "frame-unknown" => &["TRN-014"],
            "wrong-pipeline" => &["TRN-031"],
            _ => &["TRN-013"],
        };
        file.invalid(reqs, comment, code, of(kind, from, stream));
    }
    file
}

/// The parts of a transcript; every part can be changed alone.
#[derive(Clone)]
struct Parts {
    role: u8,
    alpn: &'static str,
    domain: &'static str,
    identity: Value,
    genesis: [u8; 32],
    hello: Vec<u8>,
    welcome: Option<Vec<u8>>,
    exporter: Option<[u8; 32]>,
    nonces: [[u8; 32]; 2],
}

impl Parts {
    fn purpose(&self) -> Purpose {
        if self.exporter.is_some() { Purpose::AUTH_EXPORTER } else { Purpose::AUTH_NONCE }
    }

    fn identity(&self) -> Vec<u8> {
        let part =
            |name: &str| hex::decode(self.identity[name].as_str().unwrap_or_default()).expect("hexadecimal");
        match self.identity["kind"].as_str() {
            Some("device") => [part("account"), part("device")].concat(),
            Some("candidate") => part("key"),
            _ => [self.identity["domain"].as_str().expect("a domain").as_bytes(), &part("server_genesis")]
                .concat(),
        }
    }

    fn transcript(&self) -> Vec<u8> {
        let lp = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
            [&length[..], bytes].concat()
        };
        let welcome = self.welcome.as_ref().map_or([0; 32], |welcome| Sha256::digest(welcome).into());
        let mut out = vec![self.role];
        out.extend(lp(self.alpn.as_bytes()));
        out.extend(lp(self.domain.as_bytes()));
        out.extend(lp(&self.identity()));
        out.extend(self.genesis);
        out.extend(Sha256::digest(&self.hello));
        out.extend(welcome);
        match self.exporter {
            Some(exporter) => out.extend(exporter),
            None => out.extend(self.nonces.concat()),
        }
        out
    }

    fn inputs(&self, signer: u8, proof: &pb::Proof) -> Value {
        let binding = match self.exporter {
            Some(exporter) => json!({"exporter": hex::encode(exporter)}),
            None => {
                json!({"opener_nonce": hex::encode(self.nonces[0]), "acceptor_nonce": hex::encode(self.nonces[1])})
            }
        };
        json!({
            "role": if self.role == 1 { "opener" } else { "acceptor" },
            "alpn": self.alpn,
            "domain": self.domain,
            "identity": self.identity,
            "server_genesis": hex::encode(self.genesis),
            "hello_payload": hex::encode(&self.hello),
            "welcome_payload": self.welcome.as_ref().map(hex::encode),
            "binding": binding,
            "key": key(signer).public().to_string(),
            "proof": {"kind": proof.kind, "key_id": hex::encode(&proof.key_id), "signature": hex::encode(&proof.signature)},
        })
    }

    fn steps(&self) -> Value {
        json!({"identity": hex::encode(self.identity()), "transcript": hex::encode(self.transcript())})
    }

    fn prove(&self, signer: u8) -> pb::Proof {
        let kind = if self.exporter.is_some() { ProofKind::Exporter } else { ProofKind::Nonce };
        pb::Proof {
            kind: kind.into(),
            key_id: key(signer).public().id().to_bytes(),
            signature: key(signer).sign(self.purpose(), &self.transcript()).to_bytes(),
        }
    }
}

fn parts() -> Parts {
    let sample = |at: usize| samples::all()[at].to_raw().payload.to_vec();
    Parts {
        role: 1,
        alpn: "tidings/1",
        domain: "a.example",
        identity: json!({"kind": "device", "account": "a1".repeat(32), "device": "a2".repeat(32)}),
        genesis: server().chain.genesis_id().0,
        hello: sample(0),
        welcome: None,
        exporter: Some([0xee; 32]),
        nonces: [[0xc1; 32], [0xc2; 32]],
    }
}

pub(crate) fn proof() -> File {
    let question = "Does this Proof verify with this key, over the transcript of these parts?";
    let mut file = File::new("02-session", "proof", question);
    good_proofs(&mut file);
    changed_parts(&mut file);
    changed_proofs(&mut file);
    file
}

/// With the nonces, and Welcome at hand.
fn nonce_parts() -> Parts {
    Parts { exporter: None, welcome: Some(samples::all()[1].to_raw().payload.to_vec()), ..parts() }
}

fn bad_proof(file: &mut File, comment: &str, parts: &Parts, proof: &pb::Proof) {
    file.invalid(&["AUT-021"], comment, "auth-failed", parts.inputs(PHONE, proof)).steps(parts.steps());
}

fn good_proofs(file: &mut File) {
    let (opener, nonce) = (parts(), nonce_parts());
    let welcome = samples::all()[1].to_raw().payload.to_vec();
    let acceptor = Parts { role: 2, welcome: Some(welcome), ..opener.clone() };
    let key_hex = key(4).public().to_string();
    let b_genesis = hex::encode(crate::world::server_of("b.example", 20).chain.genesis_id());
    for (comment, parts, signer) in [
        ("the opener's exporter proof: Welcome is not there yet", opener.clone(), PHONE),
        ("the same, and no chain is pinned", Parts { genesis: [0; 32], ..opener.clone() }, PHONE),
        ("the acceptor's exporter proof", acceptor, 11),
        ("the opener's nonce proof", nonce.clone(), PHONE),
        ("the acceptor's nonce proof", Parts { role: 2, ..nonce }, 11),
        (
            "a candidate",
            Parts { identity: json!({"kind": "candidate", "key": key_hex}), ..opener.clone() },
            4,
        ),
        (
            "a peer",
            Parts {
                alpn: "tidings-s2s/1",
                identity: json!({"kind": "peer", "domain": "b.example", "server_genesis": b_genesis}),
                ..opener
            },
            21,
        ),
    ] {
        let inputs = parts.inputs(signer, &parts.prove(signer));
        file.valid(&["AUT-020"], comment, inputs, json!(true)).steps(parts.steps());
    }
}

fn changed_parts(file: &mut File) {
    let (opener, nonce) = (parts(), nonce_parts());
    let made = opener.prove(PHONE);
    for (comment, change) in [
        (
            "another exporter: a relay between two TLS sessions",
            (|p| p.exporter = Some([0xef; 32])) as fn(&mut Parts),
        ),
        ("the other role: reflected", |p| p.role = 2),
        ("another ALPN", |p| p.alpn = "tidings-s2s/1"),
        ("another domain", |p| p.domain = "b.example"),
        ("another device", |p| p.identity["device"] = "a4".repeat(32).into()),
        ("another account", |p| p.identity["account"] = "a4".repeat(32).into()),
        ("another server chain", |p| p.genesis = [9; 32]),
        ("no server chain where one is pinned", |p| p.genesis = [0; 32]),
        ("a bit of Hello changed", |p| p.hello[3] ^= 1),
        ("Welcome hashed where zeros stand", |p| p.welcome = Some(Vec::new())),
        ("the nonces where the exporter is due", |p| p.exporter = None),
    ] {
        let mut due = opener.clone();
        change(&mut due);
        bad_proof(file, comment, &due, &made);
    }
    for (comment, change) in [
        ("nonces in the other order", (|p| p.nonces.reverse()) as fn(&mut Parts)),
        ("another nonce", |p| p.nonces[1] = [0xc3; 32]),
        ("a bit of Welcome changed", |p| p.welcome.as_mut().expect("there")[3] ^= 1),
        ("the acceptor's proof, sent back", |p| p.role = 2),
    ] {
        let mut due = nonce.clone();
        change(&mut due);
        bad_proof(file, comment, &due, &nonce.prove(PHONE));
    }
}

fn changed_proofs(file: &mut File) {
    let opener = parts();
    let made = opener.prove(PHONE);
    let other = |change: fn(&mut pb::Proof)| {
        let mut proof = made.clone();
        change(&mut proof);
        proof
    };
    let wrong_purpose = key(PHONE).sign(Purpose::AUTH_NONCE, &opener.transcript()).to_bytes();
    for (comment, proof) in [
        ("another key", opener.prove(9)),
        ("the right signature under another key's id", other(|p| p.key_id = vec![9; 32].into())),
        ("no signature", other(|p| p.signature = Bytes::new())),
        ("kind nonce, signed as exporter", other(|p| p.kind = 2)),
        ("an unknown kind", other(|p| p.kind = 9)),
        ("signed under the other purpose", pb::Proof { signature: wrong_purpose, ..made.clone() }),
    ] {
        bad_proof(file, comment, &opener, &proof);
    }
}

pub(crate) fn handshake() -> File {
    let question =
        "Do these frames, in this order, prove both sides? If not, which code does the last one meet?";
    let mut file = File::new("02-session", "handshake", question);
    for (comment, scene, proof) in [
        ("a device, with the exporter", Scene::device(), "exporter"),
        (
            "a device, with nonces: the acceptor has no exporter",
            Scene { acceptor_exporter: false, ..Scene::device() },
            "nonce",
        ),
        (
            "a device, with nonces: the opener has no exporter",
            Scene { opener_exporter: false, ..Scene::device() },
            "nonce",
        ),
        ("a candidate that has pinned nothing", Scene { pinned: false, ..Scene::candidate() }, "exporter"),
        ("a peer", Scene::peer(), "exporter"),
    ] {
        let frames = scene.run();
        let inputs = scene.inputs(&frames);
        file.valid(&["AUT-001", "AUT-005"], comment, inputs, json!({"proof": proof}));
    }
    refused_by_acceptor(&mut file);
    refused_by_opener(&mut file);
    file
}

/// Requirement, comment, code, and what is wrong in a message.
type Fault<M> = (&'static str, &'static str, &'static str, fn(&mut M));

const HELLO_FAULTS: &[Fault<pb::Hello>] = &[
    ("AUT-014", "no identity", "message-malformed", |h| h.identity = None),
    ("AUT-014", "a nonce of 31 bytes", "message-malformed", |h| h.nonce.truncate(31)),
    ("AUT-014", "a boot id of 15 bytes", "message-malformed", |h| h.boot_id.truncate(15)),
    ("AUT-014", "a proof listed twice", "message-malformed", |h| h.proofs = vec![1, 1]),
    ("AUT-014", "software of 65 bytes", "limit-exceeded", |h| h.software = "x".repeat(65)),
    ("AUT-014", "another domain", "wrong-domain", |h| h.domain = "b.example".into()),
    ("AUT-014", "another chain pinned", "wrong-server", |h| h.server_genesis = vec![9; 32].into()),
    ("EXT-020", "capabilities out of order", "message-malformed", |h| h.capabilities.reverse()),
    ("EXT-021", "an unknown critical capability", "version-unsupported", |h| h.capabilities.push(4)),
    ("AUT-007", "no proof listed", "version-unsupported", |h| h.proofs.clear()),
    ("AUT-014", "two faults: the domain comes before the capability", "wrong-domain", |h| {
        (h.domain, h.capabilities) = ("b.example".into(), vec![4])
    }),
];

fn refused_by_acceptor(file: &mut File) {
    let scene = Scene::device();
    let good = scene.run();
    let (hello, proof) = (good[0].1.clone(), good[1].1.clone());
    let with = |change: fn(&mut pb::Hello)| {
        let mut changed = hello_of(&hello);
        change(&mut changed);
        codec::encode(&changed)
    };
    let nonce = codec::encode(&pb::Proof { kind: 2, ..Default::default() });
    let grease = Bytes::from_static(&[0x21, 0x00]);
    for (reqs, comment, code, frames) in [
        (["TRN-021"], "Proof before Hello", "auth-required", vec![proof.clone()]),
        (["TRN-021"], "Hello twice", "frame-unexpected", vec![hello.clone(), hello.clone()]),
        (
            ["TRN-021"],
            "a request before the proof",
            "auth-required",
            vec![hello.clone(), Frame::from(pb::Ping::default()).encode()],
        ),
        (
            ["TRN-014"],
            "an unknown critical frame",
            "frame-unknown",
            vec![hello.clone(), Bytes::from_static(&[0x40, 0x7e, 0x00])],
        ),
        (["AUT-003"], "a nonce proof where both list exporter", "auth-downgrade", vec![hello.clone(), nonce]),
        (
            ["TRN-015"],
            "grease is skipped, and then a second Hello",
            "frame-unexpected",
            vec![hello.clone(), grease, hello.clone()],
        ),
        (
            ["AUT-014"],
            "a peer's identity on the clients' ALPN",
            "not-permitted",
            vec![Scene::peer().run()[0].1.clone()],
        ),
        (
            ["AUT-021"],
            "a bit of Hello changed behind the signature",
            "auth-failed",
            vec![with(|h| h.software.push('x')), proof],
        ),
    ] {
        let frames: Vec<(&str, Bytes)> = frames.into_iter().map(|frame| ("opener", frame)).collect();
        file.invalid(&reqs, comment, code, scene.inputs(&frames));
    }
    for (req, comment, code, change) in HELLO_FAULTS {
        file.invalid(&[req], comment, code, scene.inputs(&[("opener", with(*change))]));
    }
}

const WELCOME_FAULTS: &[Fault<pb::Welcome>] = &[
    ("AUT-015", "another domain", "wrong-domain", |w| w.domain = "b.example".into()),
    ("AUT-015", "another chain than the pinned one", "wrong-server", |w| {
        w.server_genesis = vec![9; 32].into()
    }),
    ("AUT-015", "links that are no chain", "wrong-server", |w| w.server_chain = vec![pb::Link::default()]),
    ("LOG-064", "an incarnation that is not the chain's newest", "wrong-server", |w| {
        w.incarnation = vec![9; 16].into()
    }),
    ("FRM-062", "a limit below its minimum", "message-malformed", |w| w.limits[0].value = 1),
    ("FRM-062", "a limit above its maximum", "message-malformed", |w| w.limits[0].value = 1 << 30),
    ("EXT-021", "an unknown critical capability", "version-unsupported", |w| w.capabilities.push(4)),
    ("AUT-007", "no proof in common", "version-unsupported", |w| w.proofs.clear()),
];

fn refused_by_opener(file: &mut File) {
    let scene = Scene::device();
    let good = scene.run();
    let (welcome, proof) = (good[2].1.clone(), good[3].1.clone());
    let with = |change: fn(&mut pb::Welcome)| {
        let raw = tidings_proto::frame::decode_one(&welcome, &Default::default()).expect("a frame");
        let mut changed: pb::Welcome = codec::decode(&raw).expect("a Welcome");
        change(&mut changed);
        codec::encode(&changed)
    };
    let ready = codec::encode(&pb::Ready::default());
    let nonce = codec::encode(&pb::Proof { kind: 2, ..Default::default() });
    for (reqs, comment, code, frames) in [
        (["TRN-020"], "Ready before Welcome", "frame-unexpected", vec![ready.clone()]),
        (["TRN-020"], "Ready before Proof", "auth-required", vec![welcome.clone(), ready]),
        (["TRN-020"], "Welcome twice", "frame-unexpected", vec![welcome.clone(), welcome.clone()]),
        (["TRN-020"], "Proof before Welcome", "frame-unexpected", vec![proof.clone()]),
        (["TRN-020"], "Proof twice", "frame-unexpected", vec![welcome.clone(), proof.clone(), proof.clone()]),
        (
            ["AUT-003"],
            "a nonce proof where both list exporter",
            "auth-downgrade",
            vec![welcome.clone(), nonce],
        ),
        (
            ["AUT-021"],
            "a bit of Welcome changed behind the signature",
            "auth-failed",
            vec![with(|w| w.software.push('x')), proof],
        ),
    ] {
        let frames: Vec<(&str, Bytes)> = frames.into_iter().map(|frame| ("acceptor", frame)).collect();
        file.invalid(&reqs, comment, code, scene.inputs(&frames));
    }
    for (req, comment, code, change) in WELCOME_FAULTS {
        file.invalid(&[req], comment, code, scene.inputs(&[("acceptor", with(*change))]));
    }
}
