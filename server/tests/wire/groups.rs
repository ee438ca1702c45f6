//! Groups on one, two and three homeservers.

use tidings_proto::chain::group::GroupChange;
use tidings_proto::codec::Frame;
use tidings_proto::pb;
use tidings_server::config::Registration;
use tidings_server::refusal::Code;

use crate::client::{Client, Person};
use crate::pair::Two;
use crate::room::Room;
use crate::world::World;

pub(crate) async fn enter(world: &World, person: &Person) -> Client {
    world.register(person, "").await.expect("registers");
    let mut client = world.device(person).await;
    client.sync(None).await;
    client
}

pub(crate) fn invite(person: &Person) -> GroupChange {
    GroupChange::AddMembers(vec![(person.account(), person.address.domain().clone())])
}

/// Alice's group with Bob of another home in it, each with what they have read.
pub(crate) async fn shared(two: &Two, a: &mut Client, b: &mut Client) -> (Room, Room) {
    let mut alices = Room::create(&two.alice, a, &two.a, 1).await;
    alices.append(&two.alice, a, &invite(&two.bob)).await;
    let hub = two.a.server();
    let mut bobs = Room::fetch(b, &alices.id().to_bytes(), Some(&hub)).await;
    bobs.accept(&two.bob, b, Some(&hub)).await;
    alices.next(a).await;
    assert_eq!(alices.state.head(), bobs.state.head());
    (alices, bobs)
}

#[tokio::test]
async fn on_one_home_a_message_goes_from_accepted_to_read_by_all() {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let (mut a, mut b) = (enter(&world, &alice).await, enter(&world, &bob).await);
    let mut alices = Room::create(&alice, &mut a, &world, 1).await;
    alices.append(&alice, &mut a, &invite(&bob)).await;
    let mut bobs = Room::fetch(&mut b, &alices.id().to_bytes(), None).await;
    bobs.accept(&bob, &mut b, None).await;
    alices.next(&mut a).await;

    let said = alices.say(&mut a, 1, "hello").await;
    assert!(said.local, "this home is the hub");
    assert_eq!(said.place, Some(pb::GroupPlace { term: 1, seq: 4 }));
    assert_eq!(alices.message(&mut a).await, "hello", "one's own posts come back at their place");
    assert_eq!(bobs.message(&mut b).await, "hello");
    bobs.until(&mut b, |room| room.stable == 4).await;
    alices.acknowledge(&mut a).await;
    bobs.acknowledge(&mut b).await;
    alices.until(&mut a, |room| room.all_delivered == 4).await;
    for client in [&mut a, &mut b] {
        client.done(&pb::GroupMarkRead { group: bobs.id().to_bytes(), upto: 4 }, true).await;
    }
    alices.until(&mut a, |room| room.all_read == 4).await;
    let table = pb::GroupMarksFetch { group: bobs.id().to_bytes(), ..Default::default() };
    let table: pb::GroupMarksTable = b.ask(&table, false).await.expect("a table");
    assert_eq!(table.marks.len(), 2);
    assert!(table.marks.iter().all(|mark| (mark.delivered, mark.read) == (4, 4)), "{table:?}");
    world.stop().await;
}

#[tokio::test]
async fn between_two_homes_everybody_reads_the_same_log() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, mut bobs) = shared(&two, &mut a, &mut b).await;
    assert!(alices.say(&mut a, 1, "from the hub").await.place.is_some());
    assert_eq!(bobs.message(&mut b).await, "from the hub");
    let said = bobs.say(&mut b, 1, "from afar").await;
    assert_eq!((said.local, said.place), (false, None), "its place is the hub's to give");
    assert_eq!(bobs.message(&mut b).await, "from afar");
    for expected in ["from the hub", "from afar"] {
        assert_eq!(alices.message(&mut a).await, expected);
    }
    assert_eq!(alices.position, bobs.position);
    alices.acknowledge(&mut a).await;
    bobs.acknowledge(&mut b).await;
    let end = alices.position.seq;
    bobs.until(&mut b, |room| room.all_delivered == end && room.stable == end).await;
    let table = pb::GroupMarksFetch { group: bobs.id().to_bytes(), ..Default::default() };
    let table: pb::GroupMarksTable = b.ask(&table, false).await.expect("the hub's table");
    assert!(table.marks.iter().all(|mark| mark.delivered == end), "{table:?}");
    two.stop().await;
}

#[tokio::test]
async fn who_is_removed_gets_the_link_and_nothing_after() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, mut bobs) = shared(&two, &mut a, &mut b).await;
    alices.say(&mut a, 1, "before").await;
    alices.message(&mut a).await;
    alices.append(&two.alice, &mut a, &GroupChange::RemoveMembers(vec![two.bob.account()])).await;
    alices.say(&mut a, 2, "after").await;
    assert_eq!(alices.message(&mut a).await, "after");
    assert_eq!(bobs.message(&mut b).await, "before");
    let link = bobs.next(&mut b).await;
    assert!(link.link().is_some() && bobs.state.member(&two.bob.account()).is_none());
    bobs.acknowledge(&mut b).await;
    // What comes now is of the mailbox: nothing of the group is behind the link.
    let refused = bobs.say_refused(&mut b, 1, "still here?").await;
    assert_eq!(refused.code, Code::NOT_A_MEMBER.0);
    b.decide(&two.alice, pb::Decision::Accept).await;
    crate::client::accepted(&a.submit(&two.alice.submit_to(&two.bob, 3)).await);
    loop {
        match b.event().await {
            Frame::MailboxEntry(_) => break,
            Frame::GroupEvent(event) => panic!("{event:?}"),
            _ => {}
        }
    }
    let fetch = pb::GroupFetch {
        group: bobs.id().to_bytes(),
        server: Some(two.a.server().to_pb()),
        from_state: true,
        ..Default::default()
    };
    let refused = b.ask::<pb::GroupPage>(&fetch, false).await.expect_err("no member any more");
    assert_eq!(refused.code, Code::NOT_A_MEMBER.0);
    two.stop().await;
}

#[tokio::test]
async fn what_is_posted_while_the_hub_is_away_waits_and_comes_in_order() {
    let mut two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, mut bobs) = shared(&two, &mut a, &mut b).await;
    alices.acknowledge(&mut a).await;
    a.fence().await;
    drop(a);
    two.a.end().await;
    for counter in 1..=20 {
        assert_eq!(bobs.say(&mut b, counter, &format!("post {counter}")).await.place, None);
    }
    drop(b);
    two.b.end().await;
    two.b.begin().await;
    two.a.begin().await;
    let (mut a, mut b) = (two.a.device(&two.alice).await, two.b.device(&two.bob).await);
    a.sync(None).await;
    b.sync(None).await;
    for counter in 1..=20 {
        assert_eq!(alices.message(&mut a).await, format!("post {counter}"));
        assert_eq!(bobs.message(&mut b).await, format!("post {counter}"));
    }
    two.stop().await;
}

#[tokio::test]
async fn a_device_that_was_away_comes_back_from_its_cursor() {
    let mut two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, mut bobs) = shared(&two, &mut a, &mut b).await;
    alices.say(&mut a, 1, "one").await;
    assert_eq!(bobs.message(&mut b).await, "one");
    bobs.acknowledge(&mut b).await;
    b.fence().await;
    drop(b);
    for (counter, text) in [(2, "two"), (3, "three")] {
        alices.say(&mut a, counter, text).await;
    }
    for text in ["one", "two", "three"] {
        assert_eq!(alices.message(&mut a).await, text);
    }
    two.b.end().await;
    two.b.begin().await;
    let mut b = two.b.device(&two.bob).await;
    b.sync(None).await;
    for text in ["two", "three"] {
        assert_eq!(bobs.message(&mut b).await, text, "and nothing before it again");
    }
    // What it did not acknowledge comes again, and it may ask for more.
    let after = pb::GroupPosition { seq: 3, ..Default::default() };
    b.done(&pb::GroupRewind { group: bobs.id().to_bytes(), after: Some(after) }, true).await;
    loop {
        if let Frame::GroupEvent(event) = b.event().await {
            let entry = event.record.expect("a record").entry;
            let entry = tidings_proto::group_log::GroupEntry::parse(&entry).expect("an entry");
            assert_eq!(entry.seq(), 4);
            break;
        }
    }
    two.stop().await;
}

#[tokio::test]
async fn three_homes_read_one_log_and_a_killed_hub_is_followed_by_a_keeper() {
    let limits = [("group_hub_lost_ms", 1000)];
    let [mut first, mut second, mut third] = World::several(["a.test", "b.test", "c.test"], &limits);
    for world in [&mut first, &mut second, &mut third] {
        world.begin().await;
    }
    let alice = Person::new(&first.domain, "alice", 1);
    let bob = Person::new(&second.domain, "bob", 2);
    let carol = Person::new(&third.domain, "carol", 3);
    let mut a = enter(&first, &alice).await;
    let (mut b, mut c) = (enter(&second, &bob).await, enter(&third, &carol).await);
    let mut alices = Room::create(&alice, &mut a, &first, 1).await;
    alices.append(&alice, &mut a, &invite(&bob)).await;
    alices.append(&alice, &mut a, &invite(&carol)).await;
    let hub = first.server();
    let mut bobs = Room::fetch(&mut b, &alices.id().to_bytes(), Some(&hub)).await;
    bobs.accept(&bob, &mut b, Some(&hub)).await;
    let mut carols = Room::fetch(&mut c, &alices.id().to_bytes(), Some(&hub)).await;
    carols.accept(&carol, &mut c, Some(&hub)).await;
    alices.next(&mut a).await;
    alices.next(&mut a).await;
    bobs.next(&mut b).await;
    for last in [2, 3] {
        let keepers = [first.server(), second.server(), third.server()].into_iter().take(last).collect();
        alices.append(&alice, &mut a, &GroupChange::SetKeepers(keepers)).await;
    }
    alices.say(&mut a, 1, "before").await;
    let end = alices.position.seq + 1;
    bobs.until(&mut b, |room| room.stable == end).await;
    carols.until(&mut c, |room| room.stable == end).await;
    drop(a);
    first.end().await;
    // Who posts now is heard once there is another hub.
    carols.say(&mut c, 1, "is anybody there?").await;
    for (room, client) in [(&mut bobs, &mut b), (&mut carols, &mut c)] {
        let link = room.next(client).await;
        assert!(link.link().is_some(), "{link:?}");
        assert!(room.state.term() > 1 && *room.state.hub() != hub, "{:?}", room.state.hub());
        assert_eq!(room.message(client).await, "is anybody there?");
    }
    assert_eq!(bobs.state.hub(), carols.state.hub());
    // The old hub comes back and follows.
    first.begin().await;
    let mut a = first.device(&alice).await;
    a.sync(None).await;
    while alices.position.seq < carols.position.seq {
        alices.next(&mut a).await;
    }
    alices.say(&mut a, 2, "I am back").await;
    assert_eq!(bobs.message(&mut b).await, "I am back");
    assert_eq!(carols.message(&mut c).await, "I am back");
    // Homes that came later than the genesis have what newcomers need, also the one that is the hub by now.
    alices.message(&mut a).await;
    let dave = Person::new(&third.domain, "dave", 4);
    alices.append(&alice, &mut a, &invite(&dave)).await;
    while carols.position.seq < alices.position.seq {
        carols.next(&mut c).await;
    }
    let mut d = enter(&third, &dave).await;
    let mut daves = Room::fetch(&mut d, &alices.id().to_bytes(), None).await;
    daves.accept(&dave, &mut d, None).await;
    daves.say(&mut d, 1, "hello all").await;
    while alices.position.seq <= daves.position.seq {
        alices.next(&mut a).await;
    }
    assert_eq!(daves.message(&mut d).await, "hello all");
    for world in [first, second, third] {
        world.stop().await;
    }
}
