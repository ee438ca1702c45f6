//! Openers that do not prove who they are, or lie about it.

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::account::AccountChange;
use tidings_proto::codec::{self, Frame};
use tidings_proto::frame::RawFrame;
use tidings_proto::handshake::Identity;
use tidings_proto::id::ServerId;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;
use tidings_server::refusal::Code;

use crate::client::Person;
use crate::links::Account;
use crate::program::{Program, device};
use crate::raw::{Raw, first_frames, frame};

/// The code, and what is wrong with the Hello.
type Falsehood = (Code, fn(&mut pb::Hello));

/// Sends frames on a new connection and waits for the code that it is closed with.
async fn refused(program: &Program, frames: &[RawFrame]) -> u32 {
    let mut raw = Raw::silent(program).await;
    raw.control.0.write_all(frames).await.expect("writes");
    raw.closed().await
}

/// Hello and exporter proof with another Hello: the signature no longer fits, which is checked last.
async fn with_hello(program: &Program, person: &Person, change: impl FnOnce(&mut pb::Hello)) -> u32 {
    let mut raw = Raw::silent(program).await;
    let frames = first_frames(&raw.connection, program, (device(person), &person.device));
    let mut hello: pb::Hello = codec::decode(&frames[0]).expect("Hello");
    change(&mut hello);
    raw.control.0.write_all(&[codec::to_raw(&hello), frames[1].clone()]).await.expect("writes");
    raw.closed().await
}

#[tokio::test]
async fn connections_that_never_say_hello_have_a_budget_and_a_deadline() {
    let program = Program::start("handshake_ms = 1000\ncandidate_connections_per_source = 4").await;
    let (_alice, mut served) = program.enter("alice", 1).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(Raw::silent(&program).await);
    }
    // One drips a byte of a Hello that it never ends.
    silent[0].control_bytes(&[0x00, 0x40]).await;
    let mut turned_away = 0;
    for _ in 0..4 {
        turned_away += u32::from(program.dial_with(None).await.is_err());
    }
    assert_eq!(turned_away, 4, "beyond the budget nothing is let in");
    served.fence().await;
    for raw in &silent {
        assert_eq!(raw.closed().await, Code::AUTH_REQUIRED.0);
    }
    // The places come back.
    program.enter("bob", 2).await.1.fence().await;
    served.fence().await;
    program.stop().await;
}

#[tokio::test]
async fn each_false_hello_is_refused_with_its_own_code() {
    let program = Program::start("candidate_connections_per_source = 100").await;
    let (alice, _) = program.enter("alice", 1).await;
    let none = Person::new(&program.domain, "bob", 2);
    let cases: [Falsehood; 10] = [
        (Code::WRONG_DOMAIN, |hello| hello.domain = "other.test".to_owned()),
        (Code::WRONG_SERVER, |hello| hello.server_genesis = vec![9; 32].into()),
        (Code::MESSAGE_MALFORMED, |hello| hello.identity = None),
        (Code::MESSAGE_MALFORMED, |hello| hello.nonce = vec![9; 31].into()),
        (Code::MESSAGE_MALFORMED, |hello| hello.boot_id = Bytes::new()),
        (Code::MESSAGE_MALFORMED, |hello| hello.proofs = vec![1, 1]),
        (Code::MESSAGE_MALFORMED, |hello| hello.capabilities = vec![2, 0]),
        (Code::VERSION_UNSUPPORTED, |hello| hello.capabilities = vec![0, 2, 0x7ffe]),
        (Code::LIMIT_EXCEEDED, |hello| hello.software = "\u{e9}".repeat(40)),
        (Code::AUTH_FAILED, |hello| hello.software = "other/1".to_owned()),
    ];
    for (place, (code, change)) in cases.into_iter().enumerate() {
        assert_eq!(with_hello(&program, &alice, change).await, code.0, "case {place}");
    }
    assert_eq!(with_hello(&program, &none, |_| {}).await, Code::AUTH_UNKNOWN.0);
    program.device(&alice).await.fence().await;
    program.stop().await;
}

#[tokio::test]
async fn a_proof_by_another_key_or_of_another_connection_is_refused() {
    let program = Program::start("candidate_connections_per_source = 100").await;
    let (alice, _) = program.enter("alice", 1).await;
    let other = SigningKey::from_seed(&[200; 32]);
    let raw = Raw::silent(&program).await;
    let stolen = first_frames(&raw.connection, &program, (device(&alice), &alice.device));
    assert_eq!(refused(&program, &stolen).await, Code::AUTH_FAILED.0, "replayed");
    let mut forged = Raw::silent(&program).await;
    let frames = first_frames(&forged.connection, &program, (device(&alice), &other));
    forged.control.0.write_all(&frames).await.expect("writes");
    assert_eq!(forged.closed().await, Code::AUTH_FAILED.0, "another key");
    // The same with alice's key id beside the other key's signature.
    let mut forged = Raw::silent(&program).await;
    let frames = first_frames(&forged.connection, &program, (device(&alice), &other));
    let mut proof: pb::Proof = codec::decode(&frames[1]).expect("a proof");
    proof.key_id = alice.device.public().id().to_bytes();
    forged.control.0.write_all(&[frames[0].clone(), codec::to_raw(&proof)]).await.expect("writes");
    assert_eq!(forged.closed().await, Code::AUTH_FAILED.0, "another signature");
    drop(raw);
    program.device(&alice).await.fence().await;
    program.stop().await;
}

#[tokio::test]
async fn a_peer_does_not_come_in_by_the_door_of_clients() {
    let program = Program::start("").await;
    let key = SigningKey::from_seed(&[200; 32]);
    let mut raw = Raw::silent(&program).await;
    let identity = Identity::Peer { domain: program.domain.clone(), genesis: ServerId([3; 32]) };
    let frames = first_frames(&raw.connection, &program, (identity, &key));
    raw.control.0.write_all(&frames).await.expect("writes");
    assert_eq!(raw.closed().await, Code::NOT_PERMITTED.0);
    program.stop().await;
}

#[tokio::test]
async fn a_candidate_may_do_nothing_that_is_for_devices() {
    let program = Program::start("").await;
    let (alice, _) = program.enter("alice", 1).await;
    let bob = Person::new(&program.domain, "bob", 2);
    let requests: [(Bytes, &'static str); 6] = [
        (codec::encode(&pb::Sync::default()), "local"),
        (codec::encode(&pb::PublishKeys::default()), "local"),
        (codec::encode(&pb::MarkRead::default()), "local"),
        (codec::encode(&pb::Decide::default()), "local"),
        (
            codec::encode(&pb::FetchBundles { account: alice.account().to_bytes(), ..Default::default() }),
            "remote",
        ),
        (codec::encode(&bob.submit_to(&alice, 1)), "submit"),
    ];
    let mut candidate = program.candidate(&bob).await;
    for (request, pipeline) in requests {
        match candidate.answer(request, pipeline).await {
            Frame::Failure(failure) => assert_eq!(failure.code, Code::NOT_PERMITTED.0, "{failure:?}"),
            other => panic!("{other:?}"),
        }
    }
    // Who does not prove her recovery key is told nothing of Alice, not even that she is there.
    let nobody = format!("nobody@{}", program.domain);
    let body = pb::AccountLinkBody { chain: alice.account().to_bytes(), ..Default::default() };
    let link = pb::Link { body: body.encode_to_vec().into(), signatures: Vec::new() };
    let requests: [(Bytes, &'static str); 3] = [
        (codec::encode(&pb::Resolve { address: alice.address.to_string(), ..Default::default() }), "remote"),
        (codec::encode(&pb::Resolve { address: nobody, ..Default::default() }), "remote"),
        (codec::encode(&pb::AppendLink { link: Some(link) }), "local"),
    ];
    for (request, pipeline) in requests {
        match candidate.answer(request, pipeline).await {
            Frame::Failure(failure) => assert_eq!(failure.code, Code::NO_SUCH_ACCOUNT.0, "{failure:?}"),
            other => panic!("{other:?}"),
        }
    }
    let mut raw = Raw::candidate(&program, &bob).await;
    raw.control.0.send(&pb::Ack::default()).await.expect("writes");
    assert_eq!(raw.closed().await, Code::FRAME_UNEXPECTED.0);
    let mut raw = Raw::device(&program, &alice).await;
    let mut local = raw.stream().await;
    let register = pb::Register {
        genesis: Some(bob.genesis.clone()),
        keys: Some(bob.identity.prekeys()),
        ..Default::default()
    };
    local.0.send(&register).await.expect("writes");
    assert_eq!(crate::raw::failure(&mut local).await, Code::NOT_PERMITTED.0);
    raw.control.0.send(&pb::Hello::decode(&[][..]).expect("empty")).await.expect("writes");
    // The refusal is on the control stream as well as in the close, unless the close overtakes it.
    let _first = frame_or_end(&mut raw).await;
    assert_eq!(raw.closed().await, Code::FRAME_UNEXPECTED.0);
    program.stop().await;
}

async fn frame_or_end(raw: &mut Raw) -> Option<RawFrame> {
    crate::program::within(raw.control.1.next_frame()).await.ok().flatten()
}

#[tokio::test]
async fn a_removed_device_is_told_at_once_and_never_comes_back() {
    let program = Program::start("candidate_connections_per_source = 100").await;
    let (alice, mut first) = program.enter("alice", 1).await;
    let mut account = Account::of(&alice, 1);
    let second = SigningKey::from_seed(&[150; 32]);
    let id = account.add(&mut first, &alice.device, &second).await;
    let who = || Identity::Device { account: alice.account(), device: id };
    let raw = Raw::silent(&program).await.prove(&program.domain, (who(), &second)).await.expect("proven");
    let mut local = raw.stream().await;
    local.0.send(&pb::Sync::default()).await.expect("writes");
    assert!(matches!(frame(&mut local).await, Frame::Syncing(_)));
    let identity = who();
    account.append(&mut first, &AccountChange::RemoveDevice(id), &[&alice.device]).await;
    assert_eq!(raw.closed().await, Code::AUTH_REMOVED.0);
    let mut again = Raw::silent(&program).await;
    let frames = first_frames(&again.connection, &program, (identity, &second));
    again.control.0.write_all(&frames).await.expect("writes");
    assert_eq!(again.closed().await, Code::AUTH_REMOVED.0);
    first.fence().await;
    program.stop().await;
}
