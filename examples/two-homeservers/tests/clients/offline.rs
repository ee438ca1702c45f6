//! Nothing is lost and nothing comes twice, whoever goes away.

use tidings_client::{Event, State, Status};

use crate::world::{DEADLINE, Device, World};

async fn collect(bob: &mut Device, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(bob.message().await.text);
    }
    texts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_messages_survive_the_death_of_server_and_client_and_come_once_and_in_order() {
    let mut world = World::start().await;
    let alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    // A stranger could have no more than a few messages wait.
    bob.meet(&alice).await;
    bob.client.accept(alice.client.account()).await.expect("accepts");
    let text = |n: usize| format!("message {n}");
    for n in 0..10 {
        alice.say(&bob, &text(n)).await;
    }
    // Some are on their way, some answered, some not: then the power goes.
    world.kill().await;
    for n in 10..40 {
        alice.say(&bob, &text(n)).await;
    }
    alice.client.shutdown().await;
    let mut alice = world.open("alice").await;
    let mut last = alice.say(&bob, &text(40)).await;
    for n in 41..50 {
        last = alice.say(&bob, &text(n)).await;
    }
    world.restart().await;
    bob.client.reconnect().await;
    let wanted: Vec<String> = (0..50).map(text).collect();
    assert_eq!(collect(&mut bob, 50).await, wanted);
    alice.reaches(last, State::AcceptedByPeer).await;
    let end = alice.say(&bob, "the end").await;
    assert_eq!(bob.message().await.id, end, "nothing came twice before it");
    assert_eq!(bob.texts(&alice).await.len(), 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_was_away_gets_what_was_said_meanwhile() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let bob = world.person("bob").await;
    alice.meet(&bob).await;
    bob.status(Status::Connected).await;
    bob.client.shutdown().await;
    let id = alice.say(&bob, "are you there?").await;
    assert_eq!(alice.reaches(id, State::AcceptedByPeer).await.last(), Some(&State::AcceptedByPeer));
    let mut back = world.open("bob").await;
    assert_eq!(back.message().await.id, id);
    back.client.accept(alice.client.account()).await.expect("accepts");
    alice.reaches(id, State::Delivered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_a_lifetime_disappears_on_both_sides_after_it_was_read() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    alice.client.set_lifetime(bob.client.account(), 1).await.expect("sets");
    let id = alice.say(&bob, "for your eyes").await;
    assert_eq!(bob.message().await.lifetime_secs, 1);
    bob.client.accept(alice.client.account()).await.expect("accepts");
    bob.client.mark_read(alice.client.account()).await.expect("marks");
    let gone = |event| matches!(event, Event::Disappeared { ids } if ids == [id]).then_some(());
    alice.event("the end of it", gone).await;
    bob.event("the end of it", gone).await;
    assert!(alice.texts(&bob).await.is_empty());
    assert!(bob.texts(&alice).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_prekeys_run_low_publishes_more() {
    let world = World::start().await;
    let mut bob = world.person("bob").await;
    bob.status(Status::Connected).await;
    let next = async |bob: &Device| bob.client.store().value("next-prekey").await.expect("reads");
    let before = next(&bob).await;
    // Each takes one of the fifty that an account begins with; below twenty the home says so.
    for n in 0..32 {
        let person = world.person(&format!("person-{n}")).await;
        person.meet(&bob).await;
        person.say(&bob, "hello").await;
        bob.message().await;
    }
    assert_ne!(next(&bob).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_dialling_stops_at_once() {
    let mut world = World::start().await;
    let alice = world.person("alice").await;
    alice.status(Status::Connected).await;
    alice.client.shutdown().await;
    world.kill().await;
    // A socket that takes packets and says nothing: the dial would go on for seconds.
    let deaf = world.deaf_socket();
    let alice = world.open("alice").await;
    let mut packet = [0; 2048];
    tokio::time::timeout(DEADLINE, deaf.recv(&mut packet)).await.expect("it dials").expect("a packet");
    // Giving up on the handshake takes five seconds.
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(3), alice.client.shutdown()).await;
    assert!(stopped.is_ok(), "it waited for the dial");
}
