//! Requests of proven clients with contents that nobody should send.

use bytes::Bytes;
use tidings_proto::codec::{self, Frame};
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_server::refusal::Code;

use crate::client::{Client, Person, accepted};
use crate::program::Program;
use crate::raw::{Raw, failure, frame, send};

/// The code, and what is wrong with the submission.
type Fault = (Code, fn(&mut pb::Submit));

/// The code of a final refusal.
fn refused(outcome: Result<pb::Outcome, pb::Failure>) -> u32 {
    match outcome.expect("an outcome").result {
        Some(pb::outcome::Result::Refused(failure)) => failure.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn absurd_counters_consume_nothing() {
    let program = Program::start("outcomes_kept = 64\nrequest_queue_messages_max = 100").await;
    let (alice, mut a) = program.enter("alice", 1).await;
    let (bob, _) = program.enter("bob", 2).await;
    for (counter, code) in
        [(0, Code::MESSAGE_MALFORMED), (2, Code::COUNTER_GAP), (u64::MAX, Code::COUNTER_GAP)]
    {
        assert_eq!(
            a.submit(&alice.submit_to(&bob, counter)).await.expect_err("no").code,
            code.0,
            "{counter}"
        );
    }
    for counter in 1..=70 {
        accepted(&a.submit(&alice.submit_to(&bob, counter)).await);
    }
    let old = a.submit(&alice.submit_to(&bob, 1)).await.expect_err("beyond the window");
    assert_eq!(old.code, Code::COUNTER_TOO_OLD.0);
    assert_eq!(accepted(&a.submit(&alice.submit_to(&bob, 7)).await).number, 7, "the last 64 are kept");
    program.stop().await;
}

#[tokio::test]
async fn absurd_submissions_are_refused_for_good_and_the_next_is_taken() {
    let program = Program::start("").await;
    let (alice, mut a) = program.enter("alice", 1).await;
    let (bob, _) = program.enter("bob", 2).await;
    let cases: [Fault; 13] = [
        (Code::LIFETIME_INVALID, |request| request.lifetime_secs = u32::MAX),
        (Code::MESSAGE_MALFORMED, |request| request.class = 99),
        (Code::MESSAGE_MALFORMED, |request| request.to_account = Bytes::new()),
        (Code::MESSAGE_MALFORMED, |request| request.to_address = "b\u{43e}b@home.test".to_owned()),
        (Code::MESSAGE_MALFORMED, |request| request.to_address = "bob@HOME.test".to_owned()),
        (Code::MESSAGE_MALFORMED, |request| request.to_head = vec![1; 33].into()),
        (Code::MESSAGE_MALFORMED, |request| request.commitment = Bytes::new()),
        (Code::MESSAGE_MALFORMED, |request| request.supplements = u64::MAX),
        (Code::MESSAGE_MALFORMED, |request| request.payloads[0].device = vec![1; 3].into()),
        (Code::TOO_LARGE, |request| request.payloads[0].ciphertext = vec![1; 65_537].into()),
        (Code::UNKNOWN_HEAD, |request| request.to_head = vec![1; 32].into()),
        (Code::NO_SUCH_ACCOUNT, |request| request.to_account = vec![1; 32].into()),
        (Code::WRONG_DEVICES, |request| request.payloads.clear()),
    ];
    for (counter, (code, change)) in (1..).zip(cases) {
        let mut request = alice.submit_to(&bob, counter);
        change(&mut request);
        assert_eq!(refused(a.submit(&request).await), code.0, "case {counter}");
    }
    let many = vec![alice.submit_to(&bob, 1).payloads[0].clone(); 33];
    let request = pb::Submit { payloads: many, ..alice.submit_to(&bob, 14) };
    assert!([Code::LIMIT_EXCEEDED.0, Code::MESSAGE_MALFORMED.0].contains(&refused(a.submit(&request).await)));
    let own = pb::Submit { to_account: alice.account().to_bytes(), ..alice.submit_to(&alice, 15) };
    assert_eq!(refused(a.submit(&own).await), Code::MESSAGE_MALFORMED.0);
    assert_eq!(accepted(&a.submit(&alice.submit_to(&bob, 16)).await).number, 1);
    program.stop().await;
}

#[tokio::test]
async fn absurd_positions_close_the_connection_and_move_nothing() {
    let program = Program::start("").await;
    let (alice, mut a) = program.enter("alice", 1).await;
    let (bob, b) = program.enter("bob", 2).await;
    accepted(&a.submit(&alice.submit_to(&bob, 1)).await);
    let incarnation =
        b.state.as_ref().and_then(|state| state.mailbox_last.clone()).expect("a position").incarnation;
    let at = |n, hash: u8, length| pb::Position {
        incarnation: incarnation.clone(),
        n,
        hash: vec![hash; length].into(),
    };
    let cases = [
        (at(1, 9, 32), Code::POSITION_INVALID),
        (at(u64::MAX, 9, 32), Code::POSITION_INVALID),
        (at(2, 0, 32), Code::POSITION_INVALID),
        (at(0, 9, 32), Code::MESSAGE_MALFORMED),
        (at(1, 9, 31), Code::MESSAGE_MALFORMED),
        (pb::Position { incarnation: Bytes::new(), ..at(1, 9, 32) }, Code::MESSAGE_MALFORMED),
    ];
    for (position, code) in cases {
        let mut raw = Raw::device(&program, &bob).await;
        raw.control.0.send(&pb::Ack { position: Some(position.clone()) }).await.expect("writes");
        assert_eq!(raw.closed().await, code.0, "Ack {position:?}");
        let raw = Raw::device(&program, &bob).await;
        let mut local = raw.stream().await;
        local.0.send(&pb::Sync { after: Some(position.clone()) }).await.expect("writes");
        if code == Code::POSITION_INVALID {
            assert_eq!(raw.closed().await, code.0, "Sync {position:?}");
        } else {
            assert_eq!(failure(&mut local).await, code.0, "Sync {position:?}");
        }
    }
    let mut raw = Raw::device(&program, &bob).await;
    raw.control.0.send(&pb::Ack { position: None }).await.expect("writes");
    assert_eq!(raw.closed().await, Code::MESSAGE_MALFORMED.0);
    let state = program.device(&bob).await.state.expect("a device");
    assert_eq!((state.mailbox_first, state.mailbox_last.expect("a position").n), (1, 1));
    program.stop().await;
}

/// A genesis whose address is this text, correctly signed.
fn named(text: &str, seed: u8) -> Option<Person> {
    let domain = tidings_proto::name::Domain::parse("home.test").expect("a domain");
    let (user, _) = text.split_once('@')?;
    Address::parse(text).is_ok().then(|| Person::new(&domain, user, seed))
}

#[tokio::test]
async fn names_that_look_like_others_or_are_forbidden_cannot_be_registered() {
    let program = Program::start("candidate_connections_per_source = 100").await;
    let longest = format!("{}@home.test", "x".repeat(64));
    let forbidden = [
        "Alice",
        "al\u{456}ce",
        "alice\u{200b}",
        "-alice",
        ".alice",
        "_alice",
        "al ice",
        "al/ice",
        "al@ice",
        "",
        "al\nice",
        "\u{ff41}lice",
    ];
    for text in forbidden.iter().map(|user| format!("{user}@home.test")).chain([longest]) {
        assert!(named(&text, 3).is_none(), "{text:?}");
        // The bytes of a good genesis with this name in its place: no reader takes it, whoever signed.
        let person = Person::new(&program.domain, "placeholder", 3);
        let mut body =
            <pb::AccountLinkBody as prost::Message>::decode(person.genesis.body.clone()).expect("a body");
        let genesis = body.genesis.as_mut().expect("a genesis");
        genesis.address = text.clone();
        let body = Bytes::from(prost::Message::encode_to_vec(&body));
        let recovery = tidings_proto::sign::SigningKey::from_seed(&[3; 32]);
        let link = tidings_proto::chain::account::genesis(body, &recovery, &person.device);
        let mut candidate = program.candidate(&person).await;
        let request =
            pb::Register { genesis: Some(link), token: String::new(), keys: Some(person.identity.prekeys()) };
        match candidate.answer(codec::encode(&request), "local").await {
            Frame::Failure(failure) => assert_eq!(failure.code, Code::NAME_INVALID.0, "{text:?} {failure:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
    program.stop().await;
}

#[tokio::test]
async fn hostile_registrations_make_nothing() {
    let program = Program::start("candidate_connections_per_source = 100").await;
    let (alice, bob) = (Person::new(&program.domain, "alice", 1), Person::new(&program.domain, "bob", 2));
    let good = || pb::Register {
        genesis: Some(alice.genesis.clone()),
        token: String::new(),
        keys: Some(alice.identity.prekeys()),
    };
    let cases = [
        (pb::Register::default(), Code::MESSAGE_MALFORMED),
        (pb::Register { keys: None, ..good() }, Code::MESSAGE_MALFORMED),
        (pb::Register { token: "\u{e9}".repeat(100), ..good() }, Code::LIMIT_EXCEEDED),
        (pb::Register { genesis: Some(bob.genesis.clone()), ..good() }, Code::LINK_INVALID),
        (pb::Register { keys: Some(bob.identity.prekeys()), ..good() }, Code::MESSAGE_MALFORMED),
    ];
    let mut candidate = program.candidate(&alice).await;
    for (request, code) in cases {
        match candidate.answer(codec::encode(&request), "local").await {
            Frame::Failure(failure) => assert_eq!(failure.code, code.0, "{request:?}"),
            other => panic!("{other:?}"),
        }
    }
    program.register(&alice, "").await.expect("the name is still free");
    program.stop().await;
}

async fn take_bundle(client: &mut Client, of: &Person) -> pb::Bundle {
    let fetch = pb::FetchBundles { account: of.account().to_bytes(), ..Default::default() };
    let mut bundles: pb::Bundles = client.ask(&fetch, false).await.expect("never refused");
    bundles.bundles.remove(0)
}

#[tokio::test]
async fn draining_prekeys_ends_in_bundles_without_them_and_spares_the_rest_of_the_stock() {
    let program = Program::start("bundle_fetches_per_hour = 10").await;
    let (_alice, mut a) = program.enter("alice", 1).await;
    let (bob, mut b) = program.enter("bob", 2).await;
    let (_carol, mut c) = program.enter("carol", 3).await;
    let keys = (1..=30).map(|id| pb::OneTimeKey { id, key: vec![5; 33].into() }).collect();
    b.done(&pb::PublishKeys { one_time: keys, ..Default::default() }, true).await;
    let mut got = Vec::new();
    for _ in 0..30 {
        let bundle = take_bundle(&mut a, &bob).await;
        assert!(bundle.signed_prekey.is_some() && bundle.kyber_last_resort);
        got.extend(bundle.one_time.map(|key| key.id));
    }
    assert_eq!(got, (1..=10).collect::<Vec<u32>>(), "ten, each once");
    assert_eq!(
        take_bundle(&mut c, &bob).await.one_time.map(|key| key.id),
        Some(11),
        "the budget is the asker's own"
    );
    let absurd = pb::OneTimeKey { id: u32::MAX, key: vec![5; 33].into() };
    b.done(&pb::PublishKeys { one_time: vec![absurd], ..Default::default() }, true).await;
    let many = (1..=300).map(|id| pb::OneTimeKey { id, key: vec![5; 33].into() }).collect();
    let refused = b
        .ask::<pb::Done>(&pb::PublishKeys { one_time: many, ..Default::default() }, true)
        .await
        .expect_err("too many");
    assert_eq!(refused.code, Code::LIMIT_EXCEEDED.0);
    program.stop().await;
}

#[tokio::test]
async fn a_second_submit_pipeline_and_mixed_classes_are_refused_on_their_stream() {
    let program = Program::start("").await;
    let (alice, _) = program.enter("alice", 1).await;
    let (bob, _) = program.enter("bob", 2).await;
    let raw = Raw::device(&program, &alice).await;
    let (mut first, mut second, mut mixed) = (raw.stream().await, raw.stream().await, raw.stream().await);
    send(&mut first, &codec::encode(&alice.submit_to(&bob, 1))).await;
    assert!(matches!(frame(&mut first).await, Frame::Outcome(_)));
    send(&mut second, &codec::encode(&alice.submit_to(&bob, 2))).await;
    assert_eq!(failure(&mut second).await, Code::WRONG_PIPELINE.0);
    send(
        &mut mixed,
        &codec::encode(&pb::Decide {
            account: bob.account().to_bytes(),
            decision: pb::Decision::Accept.into(),
        }),
    )
    .await;
    assert!(matches!(frame(&mut mixed).await, Frame::Done(_)));
    send(&mut mixed, &codec::encode(&pb::Resolve { address: bob.address.to_string(), ..Default::default() }))
        .await;
    assert_eq!(failure(&mut mixed).await, Code::WRONG_PIPELINE.0);
    send(&mut first, &codec::encode(&alice.submit_to(&bob, 2))).await;
    assert!(matches!(frame(&mut first).await, Frame::Outcome(_)), "the first goes on");
    program.stop().await;
}
