//! What people can rely on when they compare codes, and what shows when a home has lost state.

use tidings_client::{Event, State, Status};

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_see_the_same_safety_number_and_each_others_code_fits() {
    let world = World::start().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    let eve = world.person("eve").await;
    for (one, other) in [(&alice, &bob), (&bob, &alice), (&alice, &eve), (&eve, &alice)] {
        one.meet(other).await;
    }
    let (a, b) = (alice.client.account(), bob.client.account());
    assert_eq!(alice.client.safety_number(b), bob.client.safety_number(a));
    let shown = bob.client.safety_qr(a).await.expect("known").to_bytes();
    assert!(alice.client.check_safety_qr(b, &shown).await.expect("a code"));
    let other = eve.client.safety_qr(a).await.expect("known").to_bytes();
    assert!(!alice.client.check_safety_qr(b, &other).await.expect("a code"), "somebody is in between");
    alice.client.set_verified(b, true).await.expect("sets");
    assert!(alice.client.store().contact(b).await.expect("reads").expect("known").verified);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_came_back_from_an_old_copy_is_noticed_before_anything_is_read_or_sent() {
    let mut world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    let id = alice.say(&bob, "one").await;
    bob.message().await;
    alice.reaches(id, State::AcceptedByPeer).await;
    world.kill().await;
    world.keep_copy();
    world.restart().await;
    alice.client.reconnect().await;
    let id = alice.say(&bob, "two").await;
    alice.reaches(id, State::AcceptedByPeer).await;
    world.kill().await;
    world.restore_copy();
    world.restart().await;
    alice.client.reconnect().await;
    alice.event("the loss", |event| matches!(event, Event::HomeLostState).then_some(())).await;
    alice.status(Status::Halted).await;
    assert_eq!(alice.texts(&bob).await, ["one", "two"], "history is the device's own");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_that_begins_a_new_life_gets_again_what_it_lost_and_nobody_gets_it_twice() {
    let mut world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    let first = alice.say(&bob, "one").await;
    bob.message().await;
    bob.client.accept(alice.client.account()).await.expect("accepts");
    alice.reaches(first, State::Delivered).await;
    bob.client.shutdown().await;
    world.kill().await;
    world.keep_copy();
    world.restart().await;
    alice.client.reconnect().await;
    let lost = alice.say(&bob, "two").await;
    alice.reaches(lost, State::AcceptedByPeer).await;
    world.kill().await;
    world.restore_copy();
    world.command(&["new-incarnation", "--config", "tidings.toml"]).await;
    world.restart().await;

    alice.client.reconnect().await;
    alice.event("the new life", |event| matches!(event, Event::HomeRestored).then_some(())).await;
    let mut back = world.open("bob").await;
    assert_eq!(back.message().await.id, lost);
    alice.reaches(lost, State::Delivered).await;
    let next = alice.say(&back, "three").await;
    assert_eq!(back.message().await.id, next);
    alice.reaches(next, State::Delivered).await;
    let answer = back.say(&alice, "four").await;
    assert_eq!(alice.message().await.id, answer);
    assert_eq!(back.texts(&alice).await, ["one", "two", "three", "four"]);
}
