//! Strangers, contacts and the blocked.

use tidings_client::{Standing, State, Status};

use crate::world::{Device, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_receipts_wait_until_the_request_is_accepted() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    let id = alice.say(&bob, "may I?").await;
    bob.message().await;
    let contact = bob.client.store().contact(alice.client.account()).await.expect("reads").expect("known");
    assert_eq!(contact.standing, Standing::Undecided);
    bob.client.mark_read(alice.client.account()).await.expect("marks");
    // A message and its answer to somebody else and back stand for time: nothing was told meanwhile.
    let mut carol = world.person("carol").await;
    alice.meet(&carol).await;
    let fence = alice.say(&carol, "fence").await;
    carol.message().await;
    carol.client.accept(alice.client.account()).await.expect("accepts");
    alice.reaches(fence, State::Delivered).await;
    let state = alice.client.store().message(id).await.expect("reads").expect("there").state;
    assert_eq!(state, State::AcceptedByPeer, "a request is neither delivered nor read");

    bob.client.accept(alice.client.account()).await.expect("accepts");
    alice.reaches(id, State::Read).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_looks_like_somebody_who_is_offline() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    alice.say(&bob, "hello").await;
    bob.message().await;
    bob.client.accept(alice.client.account()).await.expect("accepts");
    bob.client.block(alice.client.account()).await.expect("blocks");
    let blocked = alice.say(&bob, "still there?").await;
    alice.reaches(blocked, State::AcceptedByPeer).await;
    bob.client.unblock(alice.client.account()).await.expect("unblocks");
    bob.client.accept(alice.client.account()).await.expect("accepts");
    bob.status(Status::Connected).await;
    let after = alice.say(&bob, "and now?").await;
    assert_eq!(bob.message().await.id, after, "what was said under the block never comes");
    assert_eq!(bob.texts(&alice).await, ["hello", "and now?"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stranger_wrote_can_be_dismissed_and_the_conversations_say_what_is_unread() {
    let world = World::start().await;
    let alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    alice.say(&bob, "one").await;
    alice.say(&bob, "two").await;
    bob.message().await;
    bob.message().await;
    let conversations = bob.client.store().conversations().await.expect("reads");
    let [conversation] = conversations.as_slice() else { panic!("{conversations:?}") };
    assert_eq!((conversation.unread, conversation.contact.account), (2, alice.client.account()));
    assert_eq!(conversation.last.as_ref().map(|message| message.text.as_str()), Some("two"));
    bob.client.dismiss(alice.client.account()).await.expect("dismisses");
    let listed = async |bob: &Device| bob.client.store().conversations().await.expect("reads");
    assert!(listed(&bob).await.is_empty() && bob.texts(&alice).await.is_empty());
    bob.client.shutdown().await;
    let mut bob = world.open("bob").await;
    assert!(listed(&bob).await.is_empty(), "it does not come back by itself");
    bob.status(Status::Connected).await;
    let id = alice.say(&bob, "three").await;
    assert_eq!(bob.message().await.id, id);
    assert_eq!((listed(&bob).await.len(), bob.texts(&alice).await), (1, vec!["three".to_owned()]));
}
