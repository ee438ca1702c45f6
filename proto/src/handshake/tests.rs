use super::*;
use crate::chain::{ServerChange, ServerState, Verified, server};
use crate::codec;
use crate::error::Scope;
use crate::id::Incarnation;
use bytes::Bytes;
use proptest::prelude::*;

const EXPORTER: Exporter = [0xee; 32];

fn seed(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn server_links(name: &str, n: u8) -> Vec<pb::Link> {
    vec![server::genesis(&domain(name), &seed(n), &seed(n + 1), Incarnation([n; 16]))]
}

fn server_chain(name: &str, n: u8) -> Verified<ServerState> {
    Verified::verify(&server_links(name, n)).unwrap()
}

fn device() -> Identity {
    Identity::Device { account: AccountId([0xaa; 32]), device: DeviceId([0xdd; 32]) }
}

fn opener() -> OpenerConfig {
    OpenerConfig {
        alpn: ALPN_CLIENT.into(),
        domain: domain("a.example"),
        server: Some(server_chain("a.example", 10)),
        server_links: server_links("a.example", 10),
        credentials: Credentials { identity: device(), key: seed(1), chain: Vec::new() },
        exporter: Some(EXPORTER),
        nonce_proof: true,
        nonce: [1; 32],
        boot_id: [1; 16],
        capabilities: vec![0, 2],
        software: "test".into(),
    }
}

fn acceptor() -> AcceptorConfig {
    AcceptorConfig {
        alpn: ALPN_CLIENT.into(),
        between_servers: false,
        domain: domain("a.example"),
        chain: server_chain("a.example", 10),
        links: server_links("a.example", 10),
        key: seed(11),
        exporter: Some(EXPORTER),
        nonce_proof: true,
        nonce: [2; 32],
        capabilities: vec![0, 2],
        welcome: pb::Welcome {
            boot_id: Bytes::from_static(&[2; 16]),
            incarnation: Bytes::from_static(&[10; 16]),
            ..Default::default()
        },
    }
}

fn peer() -> (OpenerConfig, AcceptorConfig, Found) {
    let identity =
        Identity::Peer { domain: domain("b.example"), genesis: server_chain("b.example", 20).server_id() };
    let credentials = Credentials { identity, key: seed(21), chain: server_links("b.example", 20) };
    let opener = OpenerConfig { alpn: ALPN_SERVER.into(), credentials, server: None, ..opener() };
    let acceptor = AcceptorConfig { alpn: ALPN_SERVER.into(), between_servers: true, ..acceptor() };
    (opener, acceptor, Found::Peer { held: None, links: Vec::new(), nonce_proof: false })
}

#[derive(Debug)]
struct Finished {
    client: ChannelBound<Client>,
    server: ChannelBound<Server>,
    round_trips: usize,
}

/// Runs both sides; an error says whose it is.
fn run(opener: OpenerConfig, acceptor: AcceptorConfig, found: Found) -> Result<Finished, (Role, Refusal)> {
    let (mut a, mut to_acceptor) = Opener::start(opener);
    let mut b = Acceptor::new(acceptor);
    let (mut client, mut server) = (None, None);
    for round_trips in 1..5 {
        let mut to_opener = Vec::new();
        for frame in std::mem::take(&mut to_acceptor) {
            let mut events = b.handle(&frame).map_err(|refusal| (Role::Acceptor, refusal))?;
            if matches!(events.first(), Some(AcceptorEvent::LookUp(_))) {
                events = b.found(found.clone()).map_err(|refusal| (Role::Acceptor, refusal))?;
            }
            for event in events {
                match event {
                    AcceptorEvent::Send(frame) => to_opener.push(frame),
                    AcceptorEvent::Proven(proven) => {
                        client = Some(*proven);
                        to_opener.push(codec::to_raw(&pb::Ready::default()));
                    }
                    AcceptorEvent::LookUp(_) => unreachable!("once"),
                }
            }
        }
        for frame in to_opener {
            for event in a.handle(&frame).map_err(|refusal| (Role::Opener, refusal))? {
                match event {
                    OpenerEvent::Send(frame) => to_acceptor.push(frame),
                    OpenerEvent::Proven(proven) => server = Some(*proven),
                    OpenerEvent::Ready(_) => {
                        let (client, server) = (client.unwrap(), server.unwrap());
                        return Ok(Finished { client, server, round_trips });
                    }
                }
            }
        }
    }
    panic!("the handshake does not end");
}

fn found() -> Found {
    Found::Device(seed(1).public())
}

fn refusal(result: Result<Finished, (Role, Refusal)>) -> (Role, Code) {
    let (role, refusal) = result.expect_err("has to be refused");
    (role, refusal.code)
}

#[test]
fn a_device_is_proven_in_one_round_trip() {
    let done = run(opener(), acceptor(), found()).unwrap();
    assert_eq!(
        (done.round_trips, done.client.proof(), done.server.proof()),
        (1, ProofKind::Exporter, ProofKind::Exporter)
    );
    assert_eq!(done.client.value().identity, device());
    assert_eq!(done.server.value().chain, server_chain("a.example", 10));
}

#[test]
fn without_an_exporter_on_either_side_the_nonces_do() {
    for (here, there) in [(None, Some(EXPORTER)), (Some(EXPORTER), None), (None, None)] {
        let opener = OpenerConfig { exporter: here, ..opener() };
        let acceptor = AcceptorConfig { exporter: there, ..acceptor() };
        let done = run(opener, acceptor, found()).unwrap();
        assert_eq!(
            (done.round_trips, done.client.proof(), done.server.proof()),
            (2, ProofKind::Nonce, ProofKind::Nonce)
        );
    }
}

#[test]
fn a_candidate_proves_its_key_to_a_server_it_has_not_seen() {
    let credentials =
        Credentials { identity: Identity::Candidate(seed(1).public()), key: seed(1), chain: Vec::new() };
    let opener = OpenerConfig { credentials, server: None, ..opener() };
    let done = run(opener, acceptor(), Found::Candidate).unwrap();
    assert_eq!(done.client.value().key, seed(1).public());
}

#[test]
fn servers_show_their_chains() {
    let (opener, acceptor, found) = peer();
    let done = run(opener, acceptor, found).unwrap();
    assert_eq!(done.client.value().chain.as_deref(), Some(&server_chain("b.example", 20)));
    assert_eq!(done.server.value().chain, server_chain("a.example", 10));
}

#[test]
fn a_relay_with_another_tls_session_is_found_out() {
    let acceptor = AcceptorConfig { exporter: Some([0xef; 32]), ..acceptor() };
    assert_eq!(refusal(run(opener(), acceptor, found())), (Role::Acceptor, Code::AUTH_FAILED));
}

#[test]
fn a_wrong_key_is_refused_on_either_side() {
    assert_eq!(
        refusal(run(opener(), acceptor(), Found::Device(seed(9).public()))),
        (Role::Acceptor, Code::AUTH_FAILED)
    );
    let thief = AcceptorConfig { key: seed(9), ..acceptor() };
    assert_eq!(refusal(run(opener(), thief, found())), (Role::Opener, Code::AUTH_FAILED));
    let (mut opener, acceptor, found) = peer();
    opener.credentials.key = seed(20);
    assert_eq!(
        refusal(run(opener, acceptor, found)),
        (Role::Acceptor, Code::AUTH_FAILED),
        "root is no online key"
    );
}

#[test]
fn another_chain_than_the_pinned_one_is_refused() {
    let pinned = OpenerConfig { server: Some(server_chain("a.example", 30)), ..opener() };
    assert_eq!(refusal(run(pinned, acceptor(), found())), (Role::Acceptor, Code::WRONG_SERVER));
    let mut wrong = opener();
    wrong.domain = domain("c.example");
    assert_eq!(refusal(run(wrong, acceptor(), found())), (Role::Acceptor, Code::WRONG_DOMAIN));
}

#[test]
fn a_server_that_shows_a_fork_of_its_chain_is_refused() {
    let base = server_chain("a.example", 10);
    let step = |n: u8| base.link(&ServerChange::NewIncarnation(Incarnation([n; 16])), &[&seed(11)]);
    let opener = OpenerConfig { server: Some(base.extended(&step(50)).unwrap()), ..opener() };
    let mut forked = acceptor();
    forked.links.push(step(51));
    forked.chain = base.extended(&step(51)).unwrap();
    assert_eq!(refusal(run(opener, forked, found())), (Role::Opener, Code::WRONG_SERVER));
}

#[test]
fn identities_keep_to_their_protocol() {
    let (opener, mut acceptor, found) = peer();
    acceptor.between_servers = false;
    assert_eq!(refusal(run(opener, acceptor, found)), (Role::Acceptor, Code::NOT_PERMITTED));
}

#[test]
fn peers_do_not_fall_back_to_nonces_unless_allowed() {
    let (mut opener, acceptor, found) = peer();
    opener.exporter = None;
    assert_eq!(
        refusal(run(opener.clone(), acceptor.clone(), found)),
        (Role::Acceptor, Code::VERSION_UNSUPPORTED)
    );
    let allowed = Found::Peer { held: None, links: Vec::new(), nonce_proof: true };
    assert_eq!(run(opener, acceptor, allowed).unwrap().client.proof(), ProofKind::Nonce);
}

#[test]
fn a_nonce_proof_is_a_downgrade_where_both_list_the_exporter() {
    let (_, frames) = Opener::start(opener());
    let mut b = Acceptor::new(acceptor());
    b.handle(&frames[0]).unwrap();
    b.found(found()).unwrap();
    let proof = pb::Proof { kind: ProofKind::Nonce.into(), ..Default::default() };
    assert_eq!(b.handle(&codec::to_raw(&proof)).unwrap_err().code, Code::AUTH_DOWNGRADE);

    let (mut a, _) = Opener::start(opener());
    let mut b = Acceptor::new(acceptor());
    b.handle(&frames[0]).unwrap();
    let events = b.found(found()).unwrap();
    let AcceptorEvent::Send(welcome) = &events[0] else { panic!("welcome first") };
    a.handle(welcome).unwrap();
    assert_eq!(a.handle(&codec::to_raw(&proof)).unwrap_err().code, Code::AUTH_DOWNGRADE);
}

#[test]
fn a_list_of_proofs_cut_on_the_way_breaks_the_proof() {
    let (_, frames) = Opener::start(opener());
    let mut hello: pb::Hello = codec::decode(&frames[0]).unwrap();
    hello.proofs = vec![ProofKind::Nonce.into()];
    let mut b = Acceptor::new(acceptor());
    b.handle(&codec::to_raw(&hello)).unwrap();
    let events = b.found(found()).unwrap();
    let (mut a, _) = Opener::start(opener());
    let mut refused = None;
    for event in &events {
        let AcceptorEvent::Send(frame) = event else {
            continue;
        };
        refused = refused.or_else(|| a.handle(frame).err());
    }
    assert_eq!(refused.map(|refusal| refusal.code), Some(Code::AUTH_DOWNGRADE));
}

#[test]
fn critical_capabilities_have_to_be_known() {
    let opener_of = |capabilities: &[u64]| OpenerConfig { capabilities: capabilities.to_vec(), ..opener() };
    assert_eq!(
        refusal(run(opener_of(&[0, 2, 4]), acceptor(), found())),
        (Role::Acceptor, Code::VERSION_UNSUPPORTED)
    );
    assert_eq!(
        refusal(run(opener_of(&[2, 0]), acceptor(), found())),
        (Role::Acceptor, Code::MESSAGE_MALFORMED)
    );
    assert!(run(opener_of(&[0, 2, 5]), acceptor(), found()).is_ok());
}

#[test]
fn nothing_but_the_handshake_is_taken_before_the_proof() {
    let (_, frames) = Opener::start(opener());
    let sync = codec::to_raw(&pb::Sync::default());
    let mut b = Acceptor::new(acceptor());
    assert_eq!(b.handle(&sync).unwrap_err().code, Code::AUTH_REQUIRED);
    assert_eq!(b.handle(&frames[1]).unwrap_err().code, Code::AUTH_REQUIRED, "proof before hello");
    b.handle(&frames[0]).unwrap();
    assert_eq!(b.handle(&frames[0]).unwrap_err().code, Code::FRAME_UNEXPECTED, "hello twice");
    assert_eq!(b.handle(&sync).unwrap_err().code, Code::AUTH_REQUIRED);
    assert!(b.handle(&RawFrame::new(0x21, Bytes::new())).unwrap().is_empty(), "grease is skipped");
    assert_eq!(b.handle(&RawFrame::new(0x7e, Bytes::new())).unwrap_err().code, Code::FRAME_UNKNOWN);
    let (mut a, _) = Opener::start(opener());
    assert_eq!(a.handle(&codec::to_raw(&pb::Ready::default())).unwrap_err().code, Code::FRAME_UNEXPECTED);
}

#[test]
fn a_refusal_by_the_driver_and_by_the_other_side_come_through() {
    let removed = Found::Refused(Code::AUTH_REMOVED.into());
    assert_eq!(refusal(run(opener(), acceptor(), removed)), (Role::Acceptor, Code::AUTH_REMOVED));
    let (mut a, _) = Opener::start(opener());
    let failure = codec::to_raw(&Refusal::from(Code::AUTH_REMOVED).to_pb());
    assert_eq!(a.handle(&failure).unwrap_err().code, Code::AUTH_REMOVED);
}

fn after_hello(change: fn(&mut pb::Hello)) -> Refusal {
    let (_, frames) = Opener::start(opener());
    let mut hello: pb::Hello = codec::decode(&frames[0]).unwrap();
    change(&mut hello);
    Acceptor::new(acceptor()).handle(&codec::to_raw(&hello)).unwrap_err()
}

fn after_welcome(change: fn(&mut pb::Welcome)) -> Refusal {
    let (mut a, frames) = Opener::start(opener());
    let mut b = Acceptor::new(acceptor());
    b.handle(&frames[0]).unwrap();
    let events = b.found(found()).unwrap();
    let AcceptorEvent::Send(frame) = &events[0] else { panic!("welcome first") };
    let mut welcome: pb::Welcome = codec::decode(frame).unwrap();
    change(&mut welcome);
    a.handle(&codec::to_raw(&welcome)).unwrap_err()
}

#[test]
fn a_hello_that_breaks_a_rule_is_refused_with_the_first_code_that_applies() {
    for (change, code) in [
        ((|h| h.identity = None) as fn(&mut pb::Hello), Code::MESSAGE_MALFORMED),
        (|h| h.nonce = Bytes::from_static(&[1; 31]), Code::MESSAGE_MALFORMED),
        (|h| h.boot_id = Bytes::new(), Code::MESSAGE_MALFORMED),
        (|h| h.server_head = Bytes::from_static(&[1; 31]), Code::MESSAGE_MALFORMED),
        (|h| h.proofs = vec![1, 1], Code::MESSAGE_MALFORMED),
        (|h| h.software = "x".repeat(65), Code::LIMIT_EXCEEDED),
        (|h| h.domain = "b.example".into(), Code::WRONG_DOMAIN),
        (|h| h.server_genesis = Bytes::from_static(&[9; 32]), Code::WRONG_SERVER),
        (|h| h.capabilities = vec![0, 0], Code::MESSAGE_MALFORMED),
        (|h| h.capabilities = vec![4], Code::VERSION_UNSUPPORTED),
        // The form of every field comes before what it says.
        (
            |h| (h.domain, h.server_genesis) = ("b.example".into(), Bytes::from_static(&[9; 31])),
            Code::MESSAGE_MALFORMED,
        ),
        (|h| (h.domain, h.capabilities) = ("b.example".into(), vec![4]), Code::WRONG_DOMAIN),
    ] {
        let refusal = after_hello(change);
        assert_eq!((refusal.code, refusal.scope), (code, Scope::Connection));
    }
}

#[test]
fn a_welcome_that_breaks_a_rule_is_refused_with_the_first_code_that_applies() {
    for (change, code) in [
        ((|w| w.domain = "b.example".into()) as fn(&mut pb::Welcome), Code::WRONG_DOMAIN),
        (|w| w.server_genesis = Bytes::from_static(&[9; 32]), Code::WRONG_SERVER),
        (|w| w.nonce = Bytes::new(), Code::MESSAGE_MALFORMED),
        (|w| w.boot_id = Bytes::new(), Code::MESSAGE_MALFORMED),
        (|w| w.incarnation = Bytes::new(), Code::MESSAGE_MALFORMED),
        (|w| w.incarnation = Bytes::from_static(&[9; 16]), Code::WRONG_SERVER),
        (|w| w.proofs = vec![2, 2], Code::MESSAGE_MALFORMED),
        (|w| w.proofs.clear(), Code::VERSION_UNSUPPORTED),
        (|w| w.software = "x".repeat(65), Code::LIMIT_EXCEEDED),
        (|w| w.capabilities = vec![0, 2, 4], Code::VERSION_UNSUPPORTED),
        (|w| w.limits = vec![pb::Limit { id: 8, value: 33 }], Code::MESSAGE_MALFORMED),
        (|w| w.limits = vec![pb::Limit { id: 1, value: 65_535 }], Code::MESSAGE_MALFORMED),
        (
            |w| w.limits = vec![pb::Limit { id: 8, value: 32 }, pb::Limit { id: 1, value: 65_536 }],
            Code::MESSAGE_MALFORMED,
        ),
        (|w| w.server_chain = vec![pb::Link::default()], Code::WRONG_SERVER),
    ] {
        let refusal = after_welcome(change);
        assert_eq!((refusal.code, refusal.scope), (code, Scope::Connection));
    }
}

#[test]
fn limits_within_their_range_and_unknown_ones_are_taken() {
    let limits = vec![
        pb::Limit { id: 1, value: 1_048_576 },
        pb::Limit { id: 8, value: 1 },
        pb::Limit { id: 9999, value: 0 },
    ];
    let welcome = pb::Welcome { limits, ..acceptor().welcome };
    assert!(run(opener(), AcceptorConfig { welcome, ..acceptor() }, found()).is_ok());
}

#[test]
fn welcome_states_the_newest_incarnation_of_the_chain() {
    let welcome = pb::Welcome { incarnation: Bytes::from_static(&[77; 16]), ..acceptor().welcome };
    let done = run(opener(), AcceptorConfig { welcome, ..acceptor() }, found()).unwrap();
    assert_eq!(done.server.value().welcome.incarnation.as_ref(), [10; 16]);
}

#[test]
fn whatever_is_refused_on_the_control_stream_ends_the_connection() {
    let mut b = Acceptor::new(acceptor());
    let of = |b: &mut Acceptor, kind: u64, payload: &'static [u8]| {
        b.handle(&RawFrame::new(kind, payload)).unwrap_err().scope
    };
    assert_eq!(of(&mut b, 0x7e, &[]), Scope::Connection, "an unknown critical frame");
    assert_eq!(of(&mut b, 0x00, &[0xff]), Scope::Connection, "a payload that does not parse");
    let (mut a, _) = Opener::start(opener());
    let unknown = codec::to_raw(&pb::Failure { code: 0x7777, scope: 1, ..Default::default() });
    assert_eq!(a.handle(&unknown).unwrap_err().scope, Scope::Connection);
    let misuse = Acceptor::new(acceptor()).found(found()).unwrap_err();
    assert_eq!((misuse.code, misuse.scope), (Code::INTERNAL, Scope::Connection));
}

#[test]
fn a_reflected_proof_is_refused() {
    // The acceptor's own proof, sent back to it by somebody who claims to be it.
    let identity =
        Identity::Peer { domain: domain("a.example"), genesis: server_chain("a.example", 10).server_id() };
    let (mut opener, acceptor, found) = peer();
    opener.credentials = Credentials { identity, key: seed(9), chain: server_links("a.example", 10) };
    let (_, frames) = Opener::start(opener);
    let mut b = Acceptor::new(acceptor);
    b.handle(&frames[0]).unwrap();
    let events = b.found(found).unwrap();
    let AcceptorEvent::Send(proof) = &events[1] else { panic!("proof second") };
    assert_eq!(b.handle(proof).unwrap_err().code, Code::AUTH_FAILED);
}

proptest! {
    #[test]
    fn damaged_frames_never_panic_and_never_prove(which in 0_usize..2, at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (_, mut frames) = Opener::start(opener());
        let mut payload = frames[which].payload.to_vec();
        let at = at.index(payload.len());
        payload[at] ^= flip;
        frames[which].payload = payload.into();
        let mut b = Acceptor::new(acceptor());
        let mut proven = false;
        for frame in &frames {
            let Ok(mut events) = b.handle(frame) else { break };
            if matches!(events.first(), Some(AcceptorEvent::LookUp(_))) {
                let Ok(more) = b.found(found()) else { break };
                events.extend(more);
            }
            proven |= events.iter().any(|event| matches!(event, AcceptorEvent::Proven(_)));
        }
        prop_assert!(!proven);
    }

    #[test]
    fn a_damaged_answer_never_panics_and_never_proves_the_acceptor(which in 0_usize..2, at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (mut a, frames) = Opener::start(opener());
        let mut b = Acceptor::new(acceptor());
        b.handle(&frames[0]).unwrap();
        let events = b.found(found()).unwrap();
        let mut proven = false;
        for (place, event) in events.iter().enumerate() {
            let AcceptorEvent::Send(frame) = event else { continue };
            let mut payload = frame.payload.to_vec();
            if place == which {
                let at = at.index(payload.len());
                payload[at] ^= flip;
            }
            let Ok(events) = a.handle(&RawFrame::new(frame.kind, payload)) else { break };
            proven |= events.iter().any(|event| matches!(event, OpenerEvent::Proven(_)));
        }
        prop_assert!(!proven);
    }
}

#[path = "lost_tests.rs"]
mod lost;
