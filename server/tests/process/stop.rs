//! Stopped by a signal.

use tidings_proto::codec::{self, Frame};
use tidings_proto::pb;
use tidings_server::refusal::Code;

use crate::program::Program;
use crate::raw::{Raw, frame, send};

async fn told_to_go(raw: &mut Raw) -> pb::GoAway {
    match frame(&mut raw.control).await {
        Frame::GoAway(away) => away,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stop_tells_to_go_away_and_answers_what_is_in_flight() {
    const COUNT: u64 = 24;
    let mut program = Program::start("request_queue_messages_max = 100").await;
    let (alice, _) = program.enter("alice", 1).await;
    let (bob, _) = program.enter("bob", 2).await;
    let mut raw = Raw::device(&program, &alice).await;
    let mut submit = raw.stream().await;
    for counter in 1..=COUNT {
        send(&mut submit, &codec::encode(&alice.submit_to(&bob, counter))).await;
    }
    // The first answer shows that the stream was read; the rest is on its way.
    assert!(matches!(frame(&mut submit).await, Frame::Outcome(_)));
    program.signal("-TERM");
    let away = told_to_go(&mut raw).await;
    assert!(away.jitter_ms > 0 && away.reason.is_some(), "{away:?}");
    let mut answered = 1;
    while let Some(raw) = crate::program::within(submit.1.next_frame()).await.expect("ends in order") {
        let Some(Frame::Outcome(outcome)) = Frame::from_raw(&raw).expect("a frame") else {
            panic!("{raw:?}")
        };
        answered += 1;
        assert_eq!(outcome.counter, answered);
    }
    assert_eq!(answered, COUNT, "all were read before the signal");
    assert_eq!(raw.closed().await, Code::GOING_AWAY.0);
    assert!(program.ended().await.success());
    program.begin().await;
    let state = program.device(&bob).await.state.expect("a device");
    assert_eq!(state.mailbox_last.expect("a position").n, COUNT, "nothing is lost");
    program.stop().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut program = Program::start("request_deadline_ms = 60000").await;
    let (alice, _) = program.enter("alice", 1).await;
    let mut raw = Raw::device(&program, &alice).await;
    let mut remote = raw.stream().await;
    send(&mut remote, &codec::encode(&pb::RendezvousJoin { id: vec![7; 16].into() })).await;
    assert!(matches!(frame(&mut remote).await, Frame::Done(_)));
    // Waits for the other side of the meeting, which never comes.
    send(&mut remote, &codec::encode(&pb::RendezvousReceive {})).await;
    send(&mut remote, &codec::encode(&pb::Ping::default())).await;
    program.signal("-TERM");
    told_to_go(&mut raw).await;
    let before = tokio::time::Instant::now();
    program.signal("-TERM");
    assert!(program.ended().await.success());
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
    assert!(program.log().contains("stopped hard"));
    program.check_log();
}
