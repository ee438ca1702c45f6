//! Strangers, requests, blocks (06-messages, 6.9).

use tidings_proto::pb;
use tidings_server::config::Registration;

use crate::client::{Client, Person, accepted};
use crate::world::World;

async fn enter(world: &World, person: &Person) -> Client {
    world.register(person, "").await.expect("registers");
    let mut client = world.device(person).await;
    client.sync(None).await;
    client
}

async fn two() -> (World, (Person, Client), (Person, Client)) {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let (a, b) = (enter(&world, &alice).await, enter(&world, &bob).await);
    (world, (alice, a), (bob, b))
}

#[tokio::test]
async fn a_request_that_is_accepted_counts_as_delivered_and_what_was_withheld_is_closed() {
    let (world, (alice, mut a), (bob, mut b)) = two().await;
    for counter in 1..=7 {
        accepted(&a.submit(&alice.submit_to(&bob, counter)).await);
    }
    for number in 1..=5 {
        let request: pb::Delivery = b.next(0x00).await;
        assert!(request.request && request.number == number);
    }
    b.acknowledge_all().await;
    b.fence().await;
    b.decide(&alice, pb::Decision::Accept).await;
    let notice: pb::Notice = a.next(0x04).await;
    assert_eq!(notice.numbers, Some(pb::Range { from: 6, to: 7 }), "beyond the budget");
    world.stop().await;
}

#[tokio::test]
async fn a_dismissed_request_is_withdrawn_from_the_mailbox_and_tells_the_sender_nothing() {
    let (world, (alice, mut a), (bob, mut b)) = two().await;
    let ends = accepted(&a.submit(&alice.submit_to(&bob, 1)).await).expires_at_ms;
    b.decide(&alice, pb::Decision::Dismiss).await;
    b.decide(&alice, pb::Decision::Dismiss).await;
    accepted(&a.submit(&alice.submit_to(&bob, 2)).await);
    b.decide(&alice, pb::Decision::Block).await;
    accepted(&a.submit(&alice.submit_to(&bob, 3)).await);
    b.sync(None).await;
    b.decide(&alice, pb::Decision::Accept).await;
    accepted(&a.submit(&alice.submit_to(&bob, 4)).await);
    // What was withheld ends as it would have on a device that is away: at its expiry, once, and not before.
    let shared = world.node().shared();
    shared.expire(ends.saturating_add(60_000)).await.expect("sweeps");
    shared.expire(ends.saturating_add(60_000)).await.expect("sweeps");
    let notice: pb::Notice = a.next(0x04).await;
    assert_eq!(notice.numbers, Some(pb::Range { from: 1, to: 4 }));
    assert_eq!(world.device(&alice).await.state.expect("a device").mailbox_last.expect("a position").n, 2);
    world.stop().await;
}

#[tokio::test]
async fn a_block_leaves_what_was_placed_and_silences_what_comes() {
    let (world, (alice, mut a), (bob, mut b)) = two().await;
    accepted(&a.submit(&alice.submit_to(&bob, 1)).await);
    b.decide(&alice, pb::Decision::Accept).await;
    b.decide(&alice, pb::Decision::Block).await;
    accepted(&a.submit(&alice.submit_to(&bob, 2)).await);
    b.decide(&alice, pb::Decision::Accept).await;
    let delivery: pb::Delivery = b.next(0x00).await;
    assert_eq!(delivery.number, 1, "it was accepted before the block");
    b.acknowledge_all().await;
    let mark: pb::Watermark = a.next(0x02).await;
    assert_eq!((mark.kind(), mark.upto), (pb::WatermarkKind::Delivered, 1), "it stops at what is withheld");
    b.done(&pb::MarkRead { lane: delivery.lane, upto: 2, except: Vec::new() }, true).await;
    let mark: pb::Watermark = a.next(0x02).await;
    assert_eq!((mark.kind(), mark.upto), (pb::WatermarkKind::Read, 1));
    world.stop().await;
}

#[tokio::test]
async fn one_stranger_too_many_withdraws_the_oldest() {
    let world = World::start_with(&[("request_queue_senders_max", 10)]).await;
    let bob = Person::new(&world.domain, "bob", 99);
    enter(&world, &bob).await;
    for seed in 1..=11 {
        let stranger = Person::new(&world.domain, &format!("s{seed}"), seed);
        let mut client = enter(&world, &stranger).await;
        accepted(&client.submit(&stranger.submit_to(&bob, 1)).await);
    }
    let mut late = world.device(&bob).await;
    late.sync(None).await;
    let (n, entry) = late.entry().await;
    assert_eq!((n, entry.as_ref().get(1).copied()), (1, Some(0x0a)), "the first one is withdrawn");
    world.stop().await;
}
