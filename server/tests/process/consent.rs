//! Strangers who write a lot.

use prost::Message as _;
use tidings_proto::pb;

use crate::client::{accepted, deliveries};
use crate::program::Program;

#[tokio::test]
async fn a_stranger_beyond_the_queue_is_withheld_and_told_nothing() {
    let program = Program::start("request_queue_messages_max = 2").await;
    let (alice, mut a) = program.enter("alice", 1).await;
    let (bob, mut b) = program.enter("bob", 2).await;
    a.sync(None).await;
    b.sync(None).await;
    for counter in 1..=5 {
        assert_eq!(
            accepted(&a.submit(&alice.submit_to(&bob, counter)).await).number,
            counter,
            "answered as always"
        );
    }
    for number in 1..=2 {
        let (n, entry) = b.entry().await;
        assert_eq!((n, deliveries(&entry).number, deliveries(&entry).request), (number, number, true));
    }
    b.acknowledge(2).await;
    b.fence().await;
    let state = program.device(&bob).await.state.expect("a device");
    assert_eq!(state.mailbox_last.expect("a position").n, 2, "nothing behind them");
    let state = program.device(&alice).await.state.expect("a device");
    assert_eq!(state.mailbox_last.expect("a position").n, 0, "the sender hears nothing");
    program.stop().await;
}

#[tokio::test]
async fn the_oldest_request_leaves_when_too_many_strangers_write() {
    let limits = "request_queue_senders_max = 10\ncandidate_connections_per_source = 100";
    let program = Program::start(limits).await;
    let (bob, mut b) = program.enter("bob", 99).await;
    for seed in 1..=12 {
        let (stranger, mut client) = program.enter(&format!("stranger{seed}"), seed).await;
        accepted(&client.submit(&stranger.submit_to(&bob, 1)).await);
    }
    b.sync(None).await;
    let (mut void, mut requests, mut n) = (0, 0, 0);
    while n < 12 {
        let (_, entry) = b.entry().await;
        let entry = pb::Entry::decode(entry).expect("an entry");
        if entry.r#type == 0x0a {
            let withdrawn = pb::Void::decode(entry.body).expect("a void");
            assert_eq!(withdrawn.reason(), pb::VoidReason::Withdrawn);
            void += withdrawn.to - withdrawn.from + 1;
            n = withdrawn.to;
        } else {
            requests += 1;
            n += 1;
        }
    }
    assert_eq!((void, requests), (2, 10));
    program.stop().await;
}
