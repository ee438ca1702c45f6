//! Two homeservers that federate.

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::pb;

use crate::client::{Client, accepted, deliveries};
use crate::pair::Two;

/// The next entry of a type, as its message. Watermarks replace each other and may come as Void.
async fn next<M: prost::Message + Default>(client: &mut Client, kind: u64) -> M {
    loop {
        let (_, entry) = client.entry().await;
        let entry = pb::Entry::decode(entry).expect("an entry");
        if entry.r#type == kind {
            return M::decode(entry.body).expect("its message");
        }
    }
}

async fn reached(client: &mut Client, kind: pb::WatermarkKind, upto: u64) {
    loop {
        let mark: pb::Watermark = next(client, 0x02).await;
        if mark.kind() == kind && mark.upto >= upto {
            return;
        }
    }
}

#[tokio::test]
async fn a_message_between_domains_goes_from_accepted_to_read() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    b.decide(&two.alice, pb::Decision::Accept).await;
    let first = accepted(&a.submit(&two.alice.submit_to(&two.bob, 1)).await);
    assert_eq!((first.number, first.local), (1, false));
    let (n, entry) = b.entry().await;
    let delivery = deliveries(&entry);
    assert_eq!((delivery.number, delivery.request, delivery.lane), (1, false, first.lane.clone()));
    assert_eq!(delivery.payload.expect("a payload").ciphertext, Bytes::from_static(b"sealed 1"));
    reached(&mut a, pb::WatermarkKind::AcceptedByPeer, 1).await;
    b.acknowledge(n).await;
    reached(&mut a, pb::WatermarkKind::Delivered, 1).await;
    b.done(&pb::MarkRead { lane: first.lane, upto: 1, except: Vec::new() }, true).await;
    reached(&mut a, pb::WatermarkKind::Read, 1).await;
    two.stop().await;
}

#[tokio::test]
async fn bundles_come_from_the_other_domain() {
    let two = Two::start().await;
    let (mut a, _b) = two.enter().await;
    let fetch = pb::FetchBundles {
        account: two.bob.account().to_bytes(),
        address: two.bob.address.to_string(),
        ..Default::default()
    };
    let bundles: pb::Bundles = a.ask(&fetch, false).await.expect("bundles");
    assert_eq!(bundles.bundles.len(), 1);
    assert!(bundles.bundles[0].kyber_last_resort);
    let nobody = pb::Resolve { address: format!("nobody@{}", two.b.domain), ..Default::default() };
    let refused = a.ask::<pb::Resolved>(&nobody, false).await.expect_err("nobody lives there");
    assert_eq!(refused.code, tidings_server::refusal::Code::NO_SUCH_ACCOUNT.0);
    two.stop().await;
}

#[tokio::test]
async fn what_is_sent_while_the_peer_is_away_arrives_once_and_in_order() {
    const COUNT: u64 = 60;
    let mut two = Two::start().await;
    let (mut a, b) = two.enter().await;
    drop(b);
    two.b.end().await;
    for counter in 1..=COUNT {
        assert_eq!(accepted(&a.submit(&two.alice.submit_to(&two.bob, counter)).await).number, counter);
    }
    two.a.end().await;
    two.a.begin().await;
    two.b.begin().await;
    let mut b = two.b.device(&two.bob).await;
    b.decide(&two.alice, pb::Decision::Accept).await;
    b.sync(None).await;
    for number in 1..=COUNT {
        let (n, entry) = b.entry().await;
        let delivery = deliveries(&entry);
        assert_eq!(delivery.number, number);
        assert_eq!(delivery.payload.expect("a payload").ciphertext, Bytes::from(format!("sealed {number}")));
        b.acknowledge(n).await;
    }
    let mut a = two.a.device(&two.alice).await;
    a.sync(None).await;
    reached(&mut a, pb::WatermarkKind::Delivered, COUNT).await;
    two.stop().await;
}

#[tokio::test]
async fn a_refusal_by_the_other_home_reaches_the_sender_and_blocks_nothing() {
    let two = Two::start().await;
    let (mut a, mut b) = two.enter().await;
    b.decide(&two.alice, pb::Decision::Accept).await;
    // A head that Bob's chain never had: only his home can know.
    let wrong = pb::Submit { to_head: vec![9; 32].into(), ..two.alice.submit_to(&two.bob, 1) };
    assert_eq!(accepted(&a.submit(&wrong).await).number, 1);
    assert_eq!(accepted(&a.submit(&two.alice.submit_to(&two.bob, 2)).await).number, 2);
    let notice: pb::Notice = next(&mut a, 0x04).await;
    let Some(pb::notice::What::Closed(closed)) = notice.what else { panic!("{notice:?}") };
    assert_eq!(closed.reason.expect("a reason").code, tidings_server::refusal::Code::UNKNOWN_HEAD.0);
    assert_eq!(notice.numbers, Some(pb::Range { from: 1, to: 1 }));
    let (_, entry) = b.entry().await;
    let delivery = deliveries(&entry);
    assert_eq!(delivery.number, 2);
    assert_eq!(delivery.not_for_you, vec![pb::Range { from: 1, to: 1 }], "no gap is shown");
    two.stop().await;
}

#[tokio::test]
async fn a_sender_hears_that_the_peer_cannot_be_reached() {
    let mut two = Two::start().await;
    let (mut a, b) = two.enter().await;
    drop(b);
    two.b.end().await;
    accepted(&a.submit(&two.alice.submit_to(&two.bob, 1)).await);
    let notice: pb::Notice = next(&mut a, 0x04).await;
    assert!(matches!(notice.what, Some(pb::notice::What::Pending(_))), "{notice:?}");
    let resolve = pb::Resolve { address: format!("carol@{}", two.b.domain), ..Default::default() };
    let refused = a.ask::<pb::Resolved>(&resolve, false).await.expect_err("away");
    assert_eq!(refused.code, tidings_server::refusal::Code::PEER_UNREACHABLE.0);
    two.a.stop().await;
}
