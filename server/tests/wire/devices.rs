//! An account with two devices.

use tidings_proto::pb;
use tidings_server::config::Registration;
use tidings_server::refusal::Code;
use tidings_server::state::Bounds;

use crate::client::{Client, Person, accepted, payload, refused};
use crate::world::World;

async fn enter(world: &World, person: &Person) -> Client {
    world.register(person, "").await.expect("registers");
    let mut client = world.device(person).await;
    client.sync(None).await;
    client
}

/// Alice, and Bob who has accepted her.
async fn two() -> (World, (Person, Client), (Person, Client)) {
    let world = World::start(Registration::Open).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let a = enter(&world, &alice).await;
    let mut b = enter(&world, &bob).await;
    b.decide(&alice, pb::Decision::Accept).await;
    (world, (alice, a), (bob, b))
}

#[tokio::test]
async fn a_message_reaches_both_devices_and_a_copy_the_sender_s_other_one() {
    let (world, (mut alice, mut a), (mut bob, mut b)) = two().await;
    let (_, mut a2) = world.add(&mut alice, &mut a, 11).await;
    let (_, mut b2) = world.add(&mut bob, &mut b, 12).await;
    accepted(&a.submit(&alice.submit_to(&bob, 1)).await);
    let _own: pb::ChainAnnounce = b.find(0x06).await;
    let first: pb::Delivery = b.find(0x00).await;
    let second: pb::Delivery = b2.find(0x00).await;
    assert_eq!((first.number, second.number, first.own_copy), (1, 1, false));
    let copy: pb::Delivery = a2.find(0x00).await;
    assert!(copy.own_copy && !copy.request && copy.number == 1);
    b2.acknowledge_all().await;
    let mark: pb::Watermark = a2.find(0x02).await;
    assert_eq!((mark.kind(), mark.upto), (pb::WatermarkKind::Delivered, 1), "one device is enough");
    b.done(&pb::MarkRead { lane: first.lane, upto: 1, except: Vec::new() }, true).await;
    let read: pb::Watermark = b2.find(0x02).await;
    assert_eq!((read.kind(), read.upto), (pb::WatermarkKind::Read, 1), "the other device shows it read");
    world.stop().await;
}

#[tokio::test]
async fn wrong_devices_are_refused_with_the_device_and_the_head() {
    let (world, (alice, mut a), (mut bob, mut b)) = two().await;
    let (device, _b2) = world.add(&mut bob, &mut b, 12).await;
    let mut lacking = alice.submit_to(&bob, 1);
    lacking.payloads.retain(|payload| payload.device != device.id.to_bytes());
    let failure = refused(&a.submit(&lacking).await);
    assert_eq!(failure.code, Code::WRONG_DEVICES.0);
    assert_eq!((failure.devices, failure.head), (vec![device.id.to_bytes()], bob.head()));
    world.stop().await;
}

#[tokio::test]
async fn an_older_head_is_served_noticed_and_supplemented() {
    let (world, (alice, mut a), (mut bob, mut b)) = two().await;
    let older = alice.submit_to(&bob, 1);
    let (device, mut b2) = world.add(&mut bob, &mut b, 12).await;
    let lane = accepted(&a.submit(&older).await);
    let announce: pb::ChainAnnounce = a.next(0x06).await;
    assert_eq!(announce.account, bob.account().to_bytes());
    let notice: pb::Notice = a.next(0x04).await;
    let Some(pb::notice::What::MissingDevices(missing)) = notice.what else { panic!("{notice:?}") };
    assert_eq!((missing.devices, missing.head), (vec![device.id.to_bytes()], bob.head()));
    let named = lane.lane.expect("a lane");
    let supplement = pb::Submit {
        payloads: vec![payload(device.id, 2)],
        supplements: 1,
        supplements_epoch_links: named.address_links,
        supplements_incarnation: named.incarnation.clone(),
        ..alice.submit_to(&bob, 2)
    };
    assert_eq!(accepted(&a.submit(&supplement).await).number, 1, "no number of its own");
    let unknown = pb::Submit { counter: 3, supplements: 9, ..supplement };
    assert_eq!(refused(&a.submit(&unknown).await).code, Code::LANE_UNKNOWN.0);
    accepted(&a.submit(&alice.submit_to(&bob, 4)).await);
    let late: pb::Delivery = b2.find(0x00).await;
    assert!(late.supplement && late.number == 1);
    let second: pb::Delivery = b2.find(0x00).await;
    assert_eq!((second.number, second.not_for_you), (2, vec![pb::Range { from: 1, to: 1 }]));
    world.stop().await;
}

#[tokio::test]
async fn a_removed_device_is_closed_and_an_appended_link_again_is_done() {
    let (world, (alice, mut a), (mut bob, mut b)) = two().await;
    let (device, b2) = world.add(&mut bob, &mut b, 12).await;
    let before = alice.submit_to(&bob, 1);
    let link = bob.remove_device(device.id);
    b.done(&pb::AppendLink { link: Some(link.clone()) }, true).await;
    assert_eq!(b2.closed().await, Code::AUTH_REMOVED.0);
    b.done(&pb::AppendLink { link: Some(link) }, true).await;
    accepted(&a.submit(&before).await);
    let delivery: pb::Delivery = b.find(0x00).await;
    assert_eq!(delivery.number, 1);
    world.stop().await;
}

#[tokio::test]
async fn a_contact_hears_of_a_new_device_with_the_links() {
    let (world, (alice, mut a), (mut bob, mut b)) = two().await;
    // Bob wrote to Alice: she accepts him by writing back.
    accepted(&a.submit(&alice.submit_to(&bob, 1)).await);
    let _message: pb::Delivery = b.find(0x00).await;
    accepted(&b.submit(&bob.submit_to(&alice, 1)).await);
    let _answer: pb::Delivery = a.next(0x00).await;
    let (_, _b2) = world.add(&mut bob, &mut b, 12).await;
    let announce: pb::ChainAnnounce = a.next(0x06).await;
    assert_eq!((announce.account, announce.links.len()), (bob.account().to_bytes(), 1));
    world.stop().await;
}

#[tokio::test]
async fn what_is_let_go_of_from_memory_comes_back_whole() {
    let world = World::start(Registration::Open).await;
    let small = Bounds { accounts: 1, lanes: 1, stocks: 1, names: 1 };
    world.node().shared().state.bound(small);
    let persons: Vec<Person> =
        (1..=6).map(|seed| Person::new(&world.domain, &format!("p{seed}"), seed)).collect();
    for person in &persons {
        world.register(person, "").await.expect("registers");
    }
    for (place, person) in persons.iter().enumerate() {
        let mut client = world.device(person).await;
        for (counter, other) in (1..).zip(persons.iter().filter(|other| other.account() != person.account()))
        {
            let request = person.submit_to(other, counter);
            let outcome = client.submit(&request).await.expect("decided");
            accepted(&Ok(outcome.clone()));
            assert_eq!(client.submit(&request).await.expect("decided"), outcome, "{place}");
        }
    }
    for person in &persons {
        let mut client = world.device(person).await;
        client.sync(None).await;
        for _ in 1..persons.len() {
            let delivery: pb::Delivery = client.next(0x00).await;
            assert_eq!(delivery.number, 1);
        }
        client.acknowledge_all().await;
        client.fence().await;
    }
    assert!(world.node().shared().state.look(|held| held.size()) < 40, "it was let go of");
    world.stop().await;
}

#[tokio::test]
async fn prekeys_published_again_after_a_lost_answer_stay_and_none_is_handed_out_twice() {
    let (world, (_alice, mut a), (bob, mut b)) = two().await;
    let key = |id| pb::OneTimeKey { id, key: vec![5; 33].into() };
    let keys = pb::PublishKeys { one_time: vec![key(1), key(2)], replace: true, ..bob.identity.prekeys() };
    b.done(&keys, true).await;
    let fetch = pb::FetchBundles { account: bob.account().to_bytes(), ..Default::default() };
    let mut handed = Vec::new();
    for _ in 0..3 {
        let bundles: pb::Bundles = a.ask(&fetch, false).await.expect("bundles");
        handed.push(bundles.bundles[0].one_time.as_ref().map(|key| key.id));
        b.done(&keys, true).await;
    }
    assert_eq!(handed, [Some(1), Some(2), None]);
    world.stop().await;
}
