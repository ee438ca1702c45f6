//! Several devices of one account.

use tidings_client::{Error, Event, Options, Standing, State, Status, join, recover};
use tokio::sync::oneshot;

use crate::world::{DEADLINE, Device, World, copy_store};

/// Links a new device to an account by a code, as two people with the two devices in their hands would.
pub(crate) async fn link(world: &World, existing: &Device, name: &str) -> Device {
    link_with(world.options(name), existing).await
}

async fn link_with(options: Options, existing: &Device) -> Device {
    existing.status(Status::Connected).await;
    let linking = existing.client.link_new_device().await.expect("a meeting");
    let code = linking.code();
    let (tell, told) = oneshot::channel();
    let new = async {
        let digits = |digits: &str| tell.send(digits.to_owned()).expect("somebody compares");
        join(options, &code, digits).await.expect("joins")
    };
    let existing = async {
        let pending = linking.wait().await.expect("the other one comes");
        assert_eq!(pending.digits(), told.await.expect("shown there"));
        pending.confirm().await.expect("appends")
    };
    let (client, id) = tokio::join!(new, existing);
    assert_eq!(client.device(), id);
    Device::new(client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_linked_by_code_gets_messages_and_copies_of_what_the_other_sends() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let mut second = link(&world, &bob, "bob-2").await;
    second.status(Status::Connected).await;
    alice.meet(&bob).await;
    let id = alice.say(&bob, "to both").await;
    assert_eq!(bob.message().await.id, id);
    assert_eq!(second.message().await.id, id);

    bob.client.accept(alice.client.account()).await.expect("accepts");
    let answer = bob.say(&alice, "from one").await;
    assert_eq!(alice.message().await.id, answer);
    let copy = second.message().await;
    assert_eq!(
        (copy.id, copy.sender, copy.conversation),
        (answer, bob.client.account(), alice.client.account())
    );
    let answer = second.say(&alice, "from the other").await;
    assert_eq!(alice.message().await.id, answer);
    assert_eq!(bob.message().await.id, answer);
    assert_eq!(bob.texts(&alice).await, second.texts(&alice).await);

    second.client.mark_read(alice.client.account()).await.expect("marks");
    alice.reaches(id, State::Read).await;
    bob.event("reading elsewhere", |event| matches!(event, Event::ReadElsewhere { .. }).then_some(())).await;
    assert_eq!(bob.client.store().unread_count(alice.client.account()).await.expect("reads"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_device_is_shut_out_and_nothing_is_encrypted_for_it() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    let second = link(&world, &bob, "bob-2").await;
    second.status(Status::Connected).await;
    alice.meet(&bob).await;
    let id = alice.say(&bob, "to both").await;
    bob.message().await;
    alice.reaches(id, State::AcceptedByPeer).await;
    let removed = second.client.device();
    bob.client.remove_device(removed).await.expect("removes");
    second.status(Status::Halted).await;
    assert_eq!(bob.client.devices().await.expect("knows"), [bob.client.device()]);

    let later = alice.say(&bob, "to one").await;
    assert_eq!(bob.message().await.id, later);
    alice.reaches(later, State::AcceptedByPeer).await;
    assert_eq!(second.texts(&alice).await, ["to both"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_the_sender_did_not_know_of_gets_the_message_as_well() {
    let world = World::start().await;
    let mut alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    let first = alice.say(&bob, "one device").await;
    bob.message().await;
    bob.client.accept(alice.client.account()).await.expect("accepts");
    alice.reaches(first, State::Delivered).await;
    // Alice is away while Bob links a device: her next message is made for the list she knows.
    alice.client.shutdown().await;
    let mut second = link(&world, &bob, "bob-2").await;
    second.status(Status::Connected).await;
    let mut alice = world.open("alice").await;
    let id = alice.say(&bob, "two devices").await;
    assert_eq!(bob.message().await.id, id);
    assert_eq!(second.message().await.id, id);
    alice.reaches(id, State::Delivered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_store_is_found_out_and_neither_sends_nor_reads() {
    let world = World::start().await;
    let alice = world.person("alice").await;
    let mut bob = world.person("bob").await;
    alice.meet(&bob).await;
    alice.client.shutdown().await;
    copy_store(&world.store("alice"), &world.store("clone"));

    let mut alice = world.open("alice").await;
    let id = alice.say(&bob, "from the original").await;
    bob.message().await;
    alice.reaches(id, State::AcceptedByPeer).await;
    alice.client.shutdown().await;

    let mut clone = world.open("clone").await;
    clone.event("its being found out", |event| matches!(event, Event::RolledBack).then_some(())).await;
    clone.status(Status::Halted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_connections_of_one_device_the_older_stays_away_until_its_user_acts() {
    let world = World::start().await;
    let alice = world.person("alice").await;
    alice.status(Status::Connected).await;
    alice.client.shutdown().await;
    copy_store(&world.store("alice"), &world.store("again"));
    let first = world.open("alice").await;
    first.status(Status::Connected).await;
    let second = world.open("again").await;
    second.status(Status::Connected).await;
    first.status(Status::Halted).await;
    first.client.reconnect().await;
    first.status(Status::Connected).await;
    second.status(Status::Halted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_device_gets_a_copy_to_a_contact_at_another_home_that_it_has_never_seen() {
    let [a, b] = World::pair().await;
    let mut alice = a.person("alice").await;
    let mut bob = b.person("bob").await;
    alice.meet(&bob).await;
    let mut second = link(&a, &alice, "alice-2").await;
    second.status(Status::Connected).await;
    let id = alice.say(&bob, "from the first").await;
    assert_eq!(bob.message().await.id, id);
    let copy = second.message().await;
    assert_eq!((copy.id, copy.conversation), (id, bob.client.account()));
    // What the copy says of where the other one lives is enough to answer: nobody resolved the address there.
    let known = async || second.client.store().contact(bob.client.account()).await.expect("reads");
    let wait = async {
        while known().await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the contact becomes known");
    let contact = known().await.expect("known");
    assert_eq!((&contact.address, contact.standing), (bob.client.address(), Standing::Accepted));
    let id = second.say(&bob, "from the second").await;
    assert_eq!(bob.message().await.id, id);
    assert_eq!(alice.message().await.id, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_without_prekeys_keeps_nobody_from_writing() {
    let [a, b] = World::pair().await;
    let mut bob = a.person("bob").await;
    let mut neighbour = a.person("alice").await;
    let mut far = b.person("carol").await;
    // The second device stands on the list and gets no further: its one connection was that of the linking.
    let (options, _relay) = a.options_for_one_connection("bob-2").await;
    let second = link_with(options, &bob).await;
    second.client.shutdown().await;
    for other in [&mut neighbour, &mut far] {
        other.meet(&bob).await;
        let id = other.say(&bob, "to whoever can read it").await;
        assert_eq!(bob.message().await.id, id);
        bob.client.accept(other.client.account()).await.expect("accepts");
        other.reaches(id, State::Delivered).await;
        let answer = bob.say(other, "from one of two").await;
        assert_eq!(other.message().await.id, answer);
        bob.reaches(answer, State::AcceptedByPeer).await;
    }
    // Once it has published, it is written to. What was made before by somebody far away is placed, and completed.
    let mut second = a.open("bob-2").await;
    second.status(Status::Connected).await;
    for other in [&mut neighbour, &mut far] {
        let id = other.say(&bob, "to both").await;
        assert_eq!(bob.message().await.id, id);
        assert_eq!(second.message().await.id, id);
        let answer = bob.say(other, "from one, with a copy").await;
        assert_eq!(other.message().await.id, answer);
        assert_eq!(second.message().await.id, answer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_whose_devices_are_lost_comes_back_by_its_recovery_code() {
    let world = World::start().await;
    let alice = world.person("alice").await;
    let bob = world.person("bob").await;
    bob.meet(&alice).await;
    let code = alice.client.recovery_code().await.expect("reads").expect("it made the account");
    let (account, lost) = (alice.client.account(), alice.client.device());
    alice.client.shutdown().await;
    let address = alice.client.address().clone();
    let wrong = recover(world.options("thief"), address.clone(), &"00".repeat(32)).await;
    let Err(Error::Refused(refusal)) = wrong else { panic!("{wrong:?}") };
    assert_eq!(refusal.code.name(), Some("no-such-account"), "nothing is told to who has another key");
    let client = recover(world.options("new"), address, &code).await.expect("comes back");
    assert_eq!(client.account(), account);
    let mut alice = Device::new(client);
    alice.status(Status::Connected).await;
    alice.client.remove_device(lost).await.expect("the lost one goes");
    assert_eq!(alice.client.devices().await.expect("reads"), [alice.client.device()]);
    let id = bob.say(&alice, "are you back?").await;
    assert_eq!(alice.message().await.id, id);
}
