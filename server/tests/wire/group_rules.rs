//! What a group's home and its hub refuse, and what they keep.

use prost::Message as _;
use tidings_proto::chain::group::GroupChange;
use tidings_proto::codec::Frame;
use tidings_proto::group_log::GroupEntry;
use tidings_proto::pb;
use tidings_server::config::Registration;
use tidings_server::refusal::Code;

use crate::client::{Client, Person, refused};
use crate::groups::{enter, invite, shared};
use crate::pair::Two;
use crate::room::Room;
use crate::world::World;

async fn append_refused(client: &mut Client, request: &pb::GroupAppend) -> pb::Failure {
    client.ask::<pb::GroupAppended>(request, false).await.expect_err("it is refused")
}

#[tokio::test]
async fn a_link_on_an_old_head_is_refused_with_the_new_one() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, bobs) = shared(&two, &mut a, &mut b).await;
    // Both made on the same head; Alice's comes first.
    let late = bobs.link(&two.bob, &GroupChange::Leave);
    let carol = Person::new(&two.a.domain, "carol", 3);
    alices.append(&two.alice, &mut a, &invite(&carol)).await;
    let failure = append_refused(&mut b, &late).await;
    assert_eq!(failure.code, Code::STALE_GROUP_LINK.0);
    assert_eq!(failure.head, alices.state.head().to_bytes());
    two.stop().await;
}

#[tokio::test]
async fn links_that_are_forged_too_large_or_of_others_are_refused() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, bobs) = shared(&two, &mut a, &mut b).await;
    let mut forged = alices.link(&two.alice, &GroupChange::SetProfile(b"mine".to_vec().into()));
    let other = alices.link(&two.alice, &GroupChange::SetProfile(b"other".to_vec().into()));
    forged.link.as_mut().expect("a link").signatures = other.link.expect("a link").signatures;
    assert_eq!(append_refused(&mut a, &forged).await.code, Code::LINK_INVALID.0);
    let large = alices.link(&two.alice, &GroupChange::SetProfile(vec![7; 9000].into()));
    assert_eq!(append_refused(&mut a, &large).await.code, Code::LINK_INVALID.0);
    let alices_link = alices.link(&two.alice, &GroupChange::Leave);
    assert_eq!(append_refused(&mut b, &alices_link).await.code, Code::NOT_PERMITTED.0);
    let above_rank = bobs.link(&two.bob, &GroupChange::RemoveMembers(vec![two.alice.account()]));
    assert_eq!(append_refused(&mut b, &above_rank).await.code, Code::RANK_TOO_LOW.0);
    assert_eq!(alices.say(&mut a, 1, "all is well").await.number, 1);
    alices.message(&mut a).await;
    two.stop().await;
}

#[tokio::test]
async fn posts_with_a_gap_or_under_a_head_before_a_removal_are_refused_and_repaired() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, mut bobs) = shared(&two, &mut a, &mut b).await;
    bobs.next_number(2);
    assert_eq!(bobs.say_refused(&mut b, 1, "number 2").await.code, Code::NUMBER_GAP.0);
    bobs.next_number(1);
    let carol = Person::new(&two.b.domain, "carol", 3);
    alices.append(&two.alice, &mut a, &invite(&carol)).await;
    // An older head is good as long as nobody was removed.
    bobs.say(&mut b, 2, "older").await;
    assert_eq!(alices.message(&mut a).await, "older");
    let (accept, mut c) = {
        let mut c = enter(&two.b, &carol).await;
        let mut carols = Room::fetch(&mut c, &alices.id().to_bytes(), Some(&two.a.server())).await;
        carols.accept(&carol, &mut c, None).await;
        (carols, c)
    };
    alices.next(&mut a).await;
    let before = bobs.post(3, "not for Carol");
    while bobs.position.seq < accept.position.seq {
        bobs.next(&mut b).await;
    }
    alices.append(&two.alice, &mut a, &GroupChange::RemoveMembers(vec![carol.account()])).await;
    while bobs.state.head() != alices.state.head() {
        bobs.next(&mut b).await;
    }
    let failure = refused(&b.submit(&before).await);
    assert_eq!((failure.code, failure.head), (Code::STALE_HEAD.0, bobs.state.head().to_bytes()));
    bobs.next_number(2);
    bobs.say(&mut b, 4, "for the others").await;
    assert_eq!(bobs.message(&mut b).await, "for the others");
    assert_eq!(alices.message(&mut a).await, "for the others");
    c.fence().await;
    two.stop().await;
}

#[tokio::test]
async fn who_is_no_member_neither_reads_nor_posts() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, bobs) = shared(&two, &mut a, &mut b).await;
    alices.say(&mut a, 1, "secret").await;
    let carol = Person::new(&two.b.domain, "carol", 3);
    let mut c = enter(&two.b, &carol).await;
    for server in [None, Some(two.a.server().to_pb())] {
        let fetch =
            pb::GroupFetch { group: bobs.id().to_bytes(), server, from_state: true, ..Default::default() };
        let failure = c.ask::<pb::GroupPage>(&fetch, false).await.expect_err("not for Carol");
        assert_eq!(failure.code, Code::NOT_A_MEMBER.0);
    }
    let marks = pb::GroupMarksFetch { group: bobs.id().to_bytes(), ..Default::default() };
    let failure = c.ask::<pb::GroupMarksTable>(&marks, false).await.expect_err("not for Carol");
    assert_eq!(failure.code, Code::NOT_A_MEMBER.0);
    let mut none = Room::fetch(&mut b, &bobs.id().to_bytes(), None).await;
    assert_eq!(none.say_refused(&mut c, 1, "hello").await.code, Code::NOT_A_MEMBER.0);
    let leave = none.link(&carol, &GroupChange::Leave);
    assert_eq!(append_refused(&mut c, &leave).await.code, Code::NOT_A_MEMBER.0);
    // Who is invited sees who is in the group, and nothing of what is said.
    alices.message(&mut a).await;
    alices.append(&two.alice, &mut a, &invite(&carol)).await;
    let fetch = pb::GroupFetch {
        group: bobs.id().to_bytes(),
        server: Some(two.a.server().to_pb()),
        from_state: true,
        ..Default::default()
    };
    let page: pb::GroupPage = c.ask(&fetch, false).await.expect("a page");
    let entries = page.records.iter().map(|record| GroupEntry::parse(&record.entry).expect("an entry"));
    assert!(entries.into_iter().all(|entry| entry.post().is_none()));
    two.stop().await;
}

#[tokio::test]
async fn a_home_posts_for_its_own_members_only() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (mut alices, mut bobs) = shared(&two, &mut a, &mut b).await;
    bobs.say(&mut b, 1, "mine").await;
    let entry = bobs.next(&mut b).await;
    let post = entry.post().expect("a post").clone();
    let offer = |post: pb::GroupPost| pb::GroupOffer {
        group: bobs.id().to_bytes(),
        term: 1,
        posts: vec![pb::GroupPost { number: 2, ..post }],
    };
    let hub = two.a.node().shared();
    let other = tidings_proto::name::Domain::parse("c.test").expect("a domain");
    for (from, post) in [(&other, post.clone()), (&two.b.domain, forged_sender(&two, &post))] {
        let answer = hub.answer_home(from, Frame::GroupOffer(offer(post))).await.expect("results");
        let placed = pb::GroupPlaced::decode(answer.payload).expect("the answer");
        let Some(pb::placed_post::Result::Refused(failure)) = placed.results[0].result.clone() else {
            panic!("{placed:?}")
        };
        assert_eq!(failure.code, Code::NOT_A_MEMBER.0);
    }
    let old = pb::GroupOffer { term: 0, ..offer(post) };
    let answer = hub.answer_home(&two.b.domain, Frame::GroupOffer(old)).await.expect_err("another term");
    assert_eq!(answer.code, Code::GROUP_FENCED);
    assert_eq!(alices.message(&mut a).await, "mine");
    bobs.say(&mut b, 2, "number 2 is still free").await;
    assert_eq!(bobs.message(&mut b).await, "number 2 is still free");
    two.stop().await;
}

/// The post as if Alice had made it.
fn forged_sender(two: &Two, post: &pb::GroupPost) -> pb::GroupPost {
    pb::GroupPost {
        sender: two.alice.account().to_bytes(),
        sender_address: two.alice.address.to_string(),
        sender_device: two.alice.device_id().to_bytes(),
        ..post.clone()
    }
}

#[tokio::test]
async fn a_post_submitted_again_has_the_outcome_it_had() {
    let world = World::start(Registration::Open).await;
    let alice = Person::new(&world.domain, "alice", 1);
    let mut a = enter(&world, &alice).await;
    let mut room = Room::create(&alice, &mut a, &world, 1).await;
    let post = room.post(1, "once");
    let first = a.submit(&post).await.expect("decided");
    assert_eq!(a.submit(&post).await.expect("decided"), first);
    let other = pb::Submit { lifetime_secs: 60, ..post.clone() };
    assert_eq!(a.submit(&other).await.expect_err("other bytes").code, Code::COUNTER_CONFLICT.0);
    let direct = pb::Submit { to_address: "bob@home.test".to_owned(), ..room.post(2, "both") };
    assert_eq!(refused(&a.submit(&direct).await).code, Code::MESSAGE_MALFORMED.0);
    room.next_number(2);
    room.say(&mut a, 3, "twice").await;
    assert_eq!(room.message(&mut a).await, "once");
    assert_eq!(room.message(&mut a).await, "twice");
    world.stop().await;
}

#[tokio::test]
async fn what_is_older_than_what_is_kept_comes_as_a_gap() {
    const POSTS: u64 = 1200;
    let world = World::start_with(&[("requests_per_second", 10_000)]).await;
    let (alice, bob) = (Person::new(&world.domain, "alice", 1), Person::new(&world.domain, "bob", 2));
    let (mut a, mut b) = (enter(&world, &alice).await, enter(&world, &bob).await);
    let mut alices = Room::create(&alice, &mut a, &world, 1).await;
    alices.append(&alice, &mut a, &invite(&bob)).await;
    let mut bobs = Room::fetch(&mut b, &alices.id().to_bytes(), None).await;
    bobs.accept(&bob, &mut b, None).await;
    bobs.acknowledge(&mut b).await;
    b.fence().await;
    alices.next(&mut a).await;
    drop(b);
    for counter in 1..=POSTS {
        alices.say(&mut a, counter, "one of many").await;
    }
    let shared = world.node().shared();
    let month_ms = 31 * 24 * 3_600_000;
    shared.trim_group(alices.id(), shared.now_ms() + month_ms).await.expect("trimmed");
    let mut b = world.device(&bob).await;
    b.sync(None).await;
    let gap = loop {
        if let Frame::GroupGap(gap) = b.event().await {
            break gap;
        }
    };
    assert_eq!(gap.after, Some(bobs.position.to_pb()));
    let mut next = gap.first.expect("a place").seq;
    assert!(next > bobs.position.seq && next < POSTS, "{next}");
    while next < POSTS + 3 {
        if let Frame::GroupEvent(event) = b.event().await {
            let record = event.record.expect("a record");
            next += 1;
            assert_eq!(GroupEntry::parse(&record.entry).expect("an entry").seq(), next);
            let position = pb::GroupPosition { seq: next, ..Default::default() };
            // Not what was had: it acknowledges nothing, and harms nothing.
            b.send_group_ack(&pb::GroupAck { group: event.group, position: Some(position) }).await;
        }
    }
    // Links are kept for whoever joins.
    let carol = Person::new(&world.domain, "carol", 3);
    while alices.position.seq < POSTS + 3 {
        alices.next(&mut a).await;
        if alices.position.seq.is_multiple_of(200) {
            alices.acknowledge(&mut a).await;
        }
    }
    alices.append(&alice, &mut a, &invite(&carol)).await;
    let mut c = enter(&world, &carol).await;
    let fetch = pb::GroupFetch {
        group: alices.id().to_bytes(),
        from_state: true,
        links_only: true,
        ..Default::default()
    };
    let page: pb::GroupPage = c.ask(&fetch, false).await.expect("a page");
    assert!(GroupEntry::parse(&page.records[0].entry).expect("an entry").seq() == 1, "the genesis");
    world.stop().await;
}

#[tokio::test]
async fn what_serves_a_group_takes_no_consent_between_its_members() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    let (_, bobs) = shared(&two, &mut a, &mut b).await;
    let group = bobs.id().to_bytes();
    let service = |counter, group: &[u8]| pb::Submit {
        class: pb::Class::Service.into(),
        group: group.to_vec().into(),
        own_payloads: Vec::new(),
        ..two.alice.submit_to(&two.bob, counter)
    };
    for (counter, named) in [(1, group.as_ref()), (2, &[7; 32][..]), (3, &[][..])] {
        crate::client::accepted(&a.submit(&service(counter, named)).await);
        let delivery = loop {
            if let Frame::MailboxEntry(entry) = b.event().await {
                let entry = pb::Entry::decode(entry.entry).expect("an entry");
                if entry.r#type == 0x00 {
                    break pb::Delivery::decode(entry.body).expect("a delivery");
                }
            }
        };
        assert_eq!(delivery.group, named);
        assert_eq!(delivery.request, counter != 1, "only a group that both are in speaks for a stranger");
    }
    two.stop().await;
}
