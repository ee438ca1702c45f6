//! Messages that cannot be read come again.

use tidings_client::{Event, State, Status};

use crate::devices::link;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_read_is_reported_and_comes_again_over_a_new_session() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    // One message each way: the session is no longer one that every message could start anew.
    let first = alice.say(&bob, "first").await;
    bob.message().await;
    let answer = bob.say(&alice, "second").await;
    alice.message().await;
    alice.reaches(first, State::Delivered).await;
    bob.reaches(answer, State::Delivered).await;

    bob.client.store().forget_session(alice.client.device()).await.expect("forgets");
    let lost = alice.say(&bob, "third").await;
    bob.event("that it cannot be read", |event| matches!(event, Event::Undecryptable { .. }).then_some(()))
        .await;
    let healed = bob.message().await;
    assert_eq!((healed.id, healed.text.as_str()), (lost, "third"));
    let next = alice.say(&bob, "fourth").await;
    assert_eq!(bob.message().await.id, next);
    assert_eq!(bob.texts(&alice).await, ["first", "second", "third", "fourth"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_an_own_device_cannot_read_comes_again_as_well() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let mut second = link(&world, &bob, "bob-2").await;
    second.status(Status::Connected).await;
    bob.meet(&alice).await;
    let id = bob.say(&alice, "first").await;
    alice.message().await;
    assert_eq!(second.message().await.id, id);
    second.meet(&alice).await;
    let id = second.say(&alice, "second").await;
    alice.message().await;
    assert_eq!(bob.message().await.id, id);

    second.client.store().forget_session(bob.client.device()).await.expect("forgets");
    let lost = bob.say(&alice, "third").await;
    second
        .event("that it cannot be read", |event| matches!(event, Event::Undecryptable { .. }).then_some(()))
        .await;
    assert_eq!(second.message().await.id, lost);
    assert_eq!(alice.message().await.id, lost);
    assert_eq!(second.texts(&alice).await, ["first", "second", "third"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_message_that_cannot_be_read_is_reported_only_after_the_user_accepts() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    let first = alice.say(&bob, "first").await;
    bob.message().await;
    alice.reaches(first, State::AcceptedByPeer).await;
    // The keys that the stranger's first message used are gone with the session: nothing of it can be read.
    bob.client.store().forget_session(alice.client.device()).await.expect("forgets");
    let lost = alice.say(&bob, "second").await;
    bob.event("that it cannot be read", |event| matches!(event, Event::Undecryptable { .. }).then_some(()))
        .await;
    assert_eq!(bob.texts(&alice).await, ["first"]);
    bob.client.accept(alice.client.account()).await.expect("accepts");
    let healed = bob.message().await;
    assert_eq!((healed.id, healed.text.as_str()), (lost, "second"));
}
