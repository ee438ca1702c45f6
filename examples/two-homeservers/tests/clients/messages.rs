//! From one person to another and back.

use tidings_client::State;

use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_passes_its_states_in_order_and_is_answered() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    let id = alice.say(&bob, "hello").await;
    let got = bob.message().await;
    assert_eq!((got.text.as_str(), got.sender), ("hello", alice.client.account()));
    let stored = bob.client.store().message(id).await.expect("reads").expect("there");
    assert!(got.seq > 0 && got.seq == stored.seq, "an event names the place that the message has");
    bob.client.accept(alice.client.account()).await.expect("accepts");
    alice.reaches(id, State::Delivered).await;
    bob.client.mark_read(alice.client.account()).await.expect("marks");
    alice.reaches(id, State::Read).await;

    let answer =
        bob.client.send_text(alice.client.account(), "hello yourself", Some(id)).await.expect("stored");
    let got = alice.message().await;
    assert_eq!((got.text.as_str(), got.reply_to, got.id), ("hello yourself", Some(id), answer));
    bob.reaches(answer, State::Delivered).await;
}
