//! One homeserver.

use prost::Message as _;
use tidings_proto::id::Hash;
use tidings_proto::pb;
use tidings_server::config::Registration;
use tidings_server::refusal::Code;

use crate::client::{self, Client, Person, accepted, deliveries};
use crate::world::World;

/// Registers and comes back as a device, with a session opened from the start of the mailbox.
async fn enter(world: &World, person: &Person) -> Client {
    world.register(person, "").await.expect("registers");
    world.device(person).await
}

#[tokio::test]
async fn a_message_goes_from_submit_to_delivered_watermark() {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut a = enter(&world, &alice).await;
    let mut b = enter(&world, &bob).await;
    a.sync(None).await;
    b.sync(None).await;
    b.decide(&alice, pb::Decision::Accept).await;

    let first = accepted(&a.submit(&alice.submit_to(&bob, 1)).await);
    assert_eq!((first.number, first.local), (1, true));
    let (n, entry) = b.entry().await;
    let delivery = deliveries(&entry);
    assert_eq!((n, delivery.number, delivery.request), (1, 1, false));
    b.acknowledge(n).await;

    let (_, entry) = a.entry().await;
    let entry = pb::Entry::decode(entry).expect("an entry");
    assert_eq!(entry.r#type, 0x02);
    let mark = pb::Watermark::decode(entry.body).expect("a watermark");
    assert_eq!((mark.kind(), mark.upto), (pb::WatermarkKind::Delivered, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_resubmission_gives_the_stored_outcome_and_other_bytes_conflict() {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut a = enter(&world, &alice).await;
    let mut b = enter(&world, &bob).await;
    b.sync(None).await;
    let request = alice.submit_to(&bob, 1);
    let first = a.submit(&request).await.expect("decided");
    assert_eq!(a.submit(&request).await.expect("decided"), first);
    let other = pb::Submit { lifetime_secs: 77, ..request.clone() };
    assert_eq!(a.submit(&other).await.expect_err("conflict").code, Code::COUNTER_CONFLICT.0);
    assert_eq!(a.submit(&alice.submit_to(&bob, 5)).await.expect_err("gap").code, Code::COUNTER_GAP.0);
    let wrong = pb::Submit { payloads: Vec::new(), ..alice.submit_to(&bob, 2) };
    match a.submit(&wrong).await.expect("final").result {
        Some(pb::outcome::Result::Refused(failure)) => assert_eq!(failure.code, Code::WRONG_DEVICES.0),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        accepted(&a.submit(&alice.submit_to(&bob, 3)).await).number,
        2,
        "a refusal takes no lane number"
    );
    let (_, first) = b.entry().await;
    let (_, second) = b.entry().await;
    assert_eq!((deliveries(&first).number, deliveries(&second).number), (1, 2), "placed once");
    assert!(deliveries(&first).request, "a stranger's message is a request");
    world.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut a = enter(&world, &alice).await;
    enter(&world, &bob).await;
    let request = alice.submit_to(&bob, 1);
    let outcome = a.submit(&request).await.expect("decided");
    drop(a);
    world = world.restart().await;
    let mut a = world.device(&alice).await;
    assert_eq!(a.state.as_ref().expect("a device").counter, 1);
    assert_eq!(a.submit(&request).await.expect("decided"), outcome);
    let mut b = world.device(&bob).await;
    b.sync(None).await;
    let (n, entry) = b.entry().await;
    assert_eq!((n, deliveries(&entry).number), (1, 1));
    b.decide(&alice, pb::Decision::Accept).await;
    a.sync(None).await;
    b.acknowledge(1).await;
    let (_, told) = a.entry().await;
    assert_eq!(pb::Entry::decode(told).expect("an entry").r#type, 0x02, "the acknowledgement is durable");
    drop(b);
    world = world.restart().await;
    let state = world.device(&bob).await.state.expect("a device");
    assert_eq!((state.mailbox_first, state.mailbox_last.expect("a position").n), (2, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_token_is_good_for_one_account() {
    let world = World::start(Registration::Token).await;
    let token = world.node().shared().invite().await.expect("an invitation");
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    assert_eq!(world.register(&alice, "nothing").await.expect_err("no token").code, Code::TOKEN_INVALID.0);
    world.register(&alice, &token).await.expect("registers");
    assert_eq!(world.register(&bob, &token).await.expect_err("used").code, Code::TOKEN_INVALID.0);
    world.register(&alice, &token).await.expect("the same account again is a lost answer");
    world.stop().await;
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let world = World::start(Registration::Open).await;
    world.register(&Person::new(&world.domain, "alice", 1), "").await.expect("registers");
    let refused = world.register(&Person::new(&world.domain, "alice", 2), "").await.expect_err("taken");
    assert_eq!(refused.code, Code::NAME_TAKEN.0);
    world.stop().await;
}

#[tokio::test]
async fn a_newer_connection_takes_over() {
    let world = World::start(Registration::Open).await;
    let alice = Person::new(&world.domain, "alice", 1);
    let older = enter(&world, &alice).await;
    let mut newer = world.device(&alice).await;
    assert_eq!(older.closed().await, Code::TAKEN_OVER.0);
    newer.fence().await;
    world.stop().await;
}

#[tokio::test]
async fn broken_frames_get_a_typed_error_and_others_are_served() {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut served = enter(&world, &bob).await;
    world.register(&alice, "").await.expect("registers");
    // A length that is no minimal varint, a frame above the limit, a frame out of place, garbage.
    let cases: [(&[u8], Code); 4] = [
        (&[0x0c, 0x40, 0x00], Code::FRAME_MALFORMED),
        (&[0x0c, 0xbf, 0xff, 0xff, 0xff], Code::FRAME_TOO_LARGE),
        (&[0x02, 0x00], Code::FRAME_UNEXPECTED),
        (&[0x40, 0x01], Code::FRAME_MALFORMED),
    ];
    for (bytes, code) in cases {
        let mut client = world.device(&alice).await;
        client.send_raw(bytes).await;
        assert_eq!(client.closed().await, code.0, "{bytes:?}");
        served.fence().await;
    }
    let before = world.dial().await;
    let (mut send, _receive) = before.open_bi().await.expect("a stream");
    send.write_all(&[0x0c, 0x00]).await.expect("writes");
    assert_eq!(
        client::close_code(before.closed().await),
        Code::AUTH_REQUIRED.0,
        "a request before the proof"
    );
    world.stop().await;
}

#[tokio::test]
async fn bundles_come_with_one_time_keys_and_the_chain_resolves() {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut a = enter(&world, &alice).await;
    let mut b = enter(&world, &bob).await;
    let key = pb::OneTimeKey { id: 7, key: vec![5; 33].into() };
    b.done(&pb::PublishKeys { one_time: vec![key.clone()], ..Default::default() }, true).await;
    let resolve = pb::Resolve { address: bob.address.to_string(), ..Default::default() };
    let resolved: pb::Resolved = a.ask(&resolve, false).await.expect("resolves");
    assert_eq!((resolved.account, resolved.links), (bob.account().to_bytes(), vec![bob.genesis.clone()]));
    let fetch = pb::FetchBundles { account: bob.account().to_bytes(), ..Default::default() };
    let bundles: pb::Bundles = a.ask(&fetch, false).await.expect("bundles");
    assert_eq!(bundles.bundles[0].one_time, Some(key));
    let bundles: pb::Bundles = a.ask(&fetch, false).await.expect("bundles");
    assert_eq!(bundles.bundles[0].one_time, None, "handed out once");
    b.sync(None).await;
    let (_, entry) = b.entry().await;
    assert_eq!(pb::Entry::decode(entry).expect("an entry").r#type, 0x08, "told once that the stock is low");
    world.stop().await;
}

#[tokio::test]
async fn a_wrong_position_is_refused_and_a_block_is_silent() {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut a = enter(&world, &alice).await;
    let mut b = enter(&world, &bob).await;
    b.decide(&alice, pb::Decision::Block).await;
    assert_eq!(accepted(&a.submit(&alice.submit_to(&bob, 1)).await).number, 1, "answered as always");
    b.decide(&alice, pb::Decision::Unblock).await;
    b.decide(&alice, pb::Decision::Accept).await;
    accepted(&a.submit(&alice.submit_to(&bob, 2)).await);
    let start = b.sync(None).await;
    let (n, entry) = b.entry().await;
    let delivery = deliveries(&entry);
    assert_eq!((n, delivery.number), (1, 2));
    assert_eq!(delivery.not_for_you, vec![pb::Range { from: 1, to: 1 }]);
    let wrong = pb::Position { n: 1, hash: Hash([9; 32]).to_bytes(), ..start };
    b.send_ack(wrong).await;
    assert_eq!(b.closed().await, Code::POSITION_INVALID.0);
    world.stop().await;
}

#[tokio::test]
async fn what_nobody_took_in_time_is_closed_and_its_sender_told() {
    let mut world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut a = enter(&world, &alice).await;
    enter(&world, &bob).await;
    a.sync(None).await;
    let short = pb::Submit { lifetime_secs: 1, ..alice.submit_to(&bob, 1) };
    let ends = accepted(&a.submit(&short).await).expires_at_ms;
    world.node().shared().expire(ends).await.expect("sweeps");
    world.node().shared().expire(ends).await.expect("a second time changes nothing");
    let (n, entry) = a.entry().await;
    let entry = pb::Entry::decode(entry).expect("an entry");
    let notice = pb::Notice::decode(entry.body).expect("a notice");
    assert_eq!((n, entry.r#type, notice.numbers), (1, 0x04, Some(pb::Range { from: 1, to: 1 })));
    drop(a);
    world = world.restart().await;
    let state = world.device(&alice).await.state.expect("a device");
    assert_eq!(state.mailbox_last.expect("a position").n, 1, "told once");
    let mut b = world.device(&bob).await;
    b.sync(None).await;
    let (n, entry) = b.entry().await;
    assert_eq!((n, pb::Entry::decode(entry).expect("an entry").r#type), (1, 0x0a));
    world.stop().await;
}

#[tokio::test]
async fn a_new_incarnation_numbers_from_one_and_loses_nothing() {
    let mut world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let mut a = enter(&world, &alice).await;
    let mut b = enter(&world, &bob).await;
    b.done(
        &pb::PublishKeys {
            one_time: vec![pb::OneTimeKey { id: 1, key: vec![5; 33].into() }],
            ..Default::default()
        },
        true,
    )
    .await;
    for counter in 1..=3 {
        accepted(&a.submit(&alice.submit_to(&bob, counter)).await);
    }
    b.sync(None).await;
    let before = b.entry().await;
    b.acknowledge(1).await;
    // The answer to a later acknowledgement that is wrong shows that this one was handled.
    let wrong = pb::Position { incarnation: vec![3; 16].into(), n: 1, hash: vec![3; 32].into() };
    b.send_ack(wrong).await;
    assert_eq!(b.closed().await, Code::POSITION_INVALID.0);
    drop((a, b));
    world.end().await;
    world.renew_incarnation();
    world.begin().await;
    let mut b = world.device(&bob).await;
    let state = b.state.clone().expect("a device");
    assert_eq!((state.counter, state.mailbox_first, state.mailbox_last.expect("a position").n), (0, 1, 2));
    let old = pb::Position { incarnation: vec![3; 16].into(), n: before.0, hash: vec![3; 32].into() };
    let start = b.sync(Some(old)).await;
    assert_eq!(start.n, 0, "from the first entry");
    assert_eq!((deliveries(&b.entry().await.1).number, deliveries(&b.entry().await.1).number), (2, 3));
    let mut a = world.device(&alice).await;
    let again = accepted(&a.submit(&alice.submit_to(&bob, 1)).await);
    assert_eq!(again.number, 1, "a new epoch of the lane");
    let fetch = pb::FetchBundles { account: bob.account().to_bytes(), ..Default::default() };
    let bundles: pb::Bundles = a.ask(&fetch, false).await.expect("bundles");
    assert_eq!(bundles.bundles[0].one_time, None, "no one-time key of an earlier incarnation");
    world.stop().await;
}
