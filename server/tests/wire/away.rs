//! Two homeservers, one of which was away, restored or begun anew.

use tidings_proto::pb;
use tidings_server::refusal::Code;

use crate::client::{Client, accepted};
use crate::pair::Two;

/// The next message among other entries.
async fn delivery(client: &mut Client) -> pb::Delivery {
    client.find(0x00).await
}

/// The next watermark of this epoch.
async fn mark_of(client: &mut Client, lane: Option<&pb::LaneId>) -> pb::Watermark {
    loop {
        let mark: pb::Watermark = client.find(0x02).await;
        if mark.lane.as_ref() == lane {
            return mark;
        }
    }
}

#[tokio::test]
async fn what_expires_in_the_outbox_is_closed_at_the_peer_and_told_once() {
    let mut two = Two::start().await;
    let (mut a, mut b) = two.enter_accepted().await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 1)).await);
    assert_eq!(delivery(&mut b).await.number, 1);
    drop(b);
    two.b.end().await;
    let short = pb::Submit { lifetime_secs: 1, ..two.alice.submit_to(&two.bob, 2) };
    let ends = accepted(&a.submit(&short).await).expires_at_ms;
    two.a.node().shared().expire(ends).await.expect("sweeps");
    two.a.node().shared().expire(ends).await.expect("a second time changes nothing");
    let notice: pb::Notice = a.find(0x04).await;
    let closed = match notice.what {
        Some(pb::notice::What::Closed(closed)) => closed,
        _ => {
            let notice: pb::Notice = a.find(0x04).await;
            let Some(pb::notice::What::Closed(closed)) = notice.what else { panic!("{notice:?}") };
            closed
        }
    };
    assert_eq!(closed.reason.expect("a reason").code, Code::EXPIRED.0);
    two.b.begin().await;
    let mut b = two.b.device(&two.bob).await;
    b.sync(None).await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 3)).await);
    assert_eq!(delivery(&mut b).await.number, 1, "not acknowledged before");
    let third = delivery(&mut b).await;
    assert_eq!((third.number, third.not_for_you), (3, vec![pb::Range { from: 2, to: 2 }]), "no gap is shown");
    two.stop().await;
}

#[tokio::test]
async fn a_contact_at_another_domain_hears_of_a_new_device_and_older_heads_are_noticed() {
    let mut two = Two::start().await;
    let (mut a, mut b) = two.enter_accepted().await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 1)).await);
    assert_eq!(delivery(&mut b).await.number, 1);
    accepted(&b.submit(&two.bob.submit_to(&two.alice, 1)).await);
    assert_eq!(delivery(&mut a).await.number, 1);
    let older = two.alice.submit_to(&two.bob, 2);
    let (device, mut b2) = two.b.add(&mut two.bob, &mut b, 12).await;
    let announce: pb::ChainAnnounce = a.find(0x06).await;
    assert_eq!(announce.account, two.bob.account().to_bytes());
    accepted(&a.submit(&older).await);
    let notice: pb::Notice = a.find(0x04).await;
    let Some(pb::notice::What::MissingDevices(missing)) = notice.what else { panic!("{notice:?}") };
    assert_eq!(missing.devices, vec![device.id.to_bytes()]);
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 3)).await);
    assert_eq!(delivery(&mut b2).await.number, 3);
    two.stop().await;
}

#[tokio::test]
async fn a_new_incarnation_begins_a_new_epoch_at_the_peer() {
    let mut two = Two::start().await;
    let (mut a, mut b) = two.enter_accepted().await;
    for counter in 1..=2 {
        accepted(&a.submit(&two.alice.submit_to(&two.bob, counter)).await);
        assert_eq!(delivery(&mut b).await.number, counter);
    }
    drop(a);
    two.a.end().await;
    two.a.renew_incarnation();
    two.a.begin().await;
    let mut a = two.a.device(&two.alice).await;
    a.sync(None).await;
    let again = accepted(&a.submit(&two.alice.submit_to(&two.bob, 1)).await);
    assert_eq!(again.number, 1);
    // The two of the epoch before are acknowledged only now: that says nothing about the new number 1.
    b.acknowledge_all().await;
    b.fence().await;
    let first = delivery(&mut b).await;
    assert_eq!((first.number, first.lane.clone()), (1, again.lane));
    let mark = mark_of(&mut a, first.lane.as_ref()).await;
    assert_eq!((mark.kind(), mark.upto), (pb::WatermarkKind::AcceptedByPeer, 1));
    b.acknowledge_all().await;
    let mark = mark_of(&mut a, first.lane.as_ref()).await;
    assert_eq!((mark.kind(), mark.upto), (pb::WatermarkKind::Delivered, 1));
    two.stop().await;
}

#[tokio::test]
async fn a_receiver_restored_from_an_older_copy_gets_again_what_it_lost_and_nothing_twice() {
    let mut two = Two::start().await;
    let (mut a, mut b) = two.enter_accepted().await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 1)).await);
    assert_eq!(delivery(&mut b).await.number, 1);
    drop(b);
    two.b.end().await;
    let copy = two.b.copy();
    two.b.begin().await;
    let mut b = two.b.device(&two.bob).await;
    b.sync(None).await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 2)).await);
    assert_eq!((delivery(&mut b).await.number, delivery(&mut b).await.number), (1, 2));
    drop(b);
    two.b.end().await;
    two.b.restore(&copy);
    two.b.begin().await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 3)).await);
    let mut b = two.b.device(&two.bob).await;
    b.sync(None).await;
    for number in 1..=3 {
        assert_eq!(delivery(&mut b).await.number, number);
    }
    b.acknowledge_all().await;
    b.fence().await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 4)).await);
    assert_eq!(delivery(&mut b).await.number, 4);
    two.stop().await;
}
