//! Clients that take more than their part, or nothing at all.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::codec::{self, Frame};
use tidings_proto::frame::FrameLimits;
use tidings_proto::pb;
use tidings_proto::quic::FrameReader;
use tidings_server::refusal::Code;
use tokio::task::JoinSet;

use crate::client::{Client, Person, accepted};
use crate::program::{Program, within};
use crate::raw::{Raw, Streams, frame, send};

const FAST: &str = "requests_per_second = 100000\n";

#[tokio::test]
async fn a_flood_of_requests_is_told_to_wait_and_others_are_served() {
    let program = Program::start("requests_per_second = 10").await;
    let (bob, mut served) = program.enter("bob", 2).await;
    let (alice, _) = program.enter("alice", 1).await;
    let raw = Raw::device(&program, &alice).await;
    let mut local = raw.stream().await;
    let request = codec::encode(&pb::Decide {
        account: bob.account().to_bytes(),
        decision: pb::Decision::Accept.into(),
    });
    let (mut done, mut waits) = (0, Vec::new());
    for _ in 0..130 {
        send(&mut local, &request).await;
    }
    for _ in 0..130 {
        match frame(&mut local).await {
            Frame::Done(_) => done += 1,
            Frame::Failure(failure) => {
                assert_eq!((failure.code, failure.retry()), (Code::TOO_FAST.0, pb::Retry::AfterDelay));
                waits.push(failure.retry_after_ms);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((100..=125).contains(&done), "a burst of ten seconds: {done}");
    assert!(waits.iter().all(|wait| (1..=100).contains(wait)), "{waits:?}");
    served.fence().await;
    program.stop().await;
}

#[tokio::test]
async fn pipelines_end_at_their_number_and_come_back() {
    let program = Program::start("pipelines_max = 3").await;
    let (alice, mut served) = program.enter("alice", 1).await;
    served.fence().await;
    let raw = Raw::device(&program, &alice).await;
    let mut open: Vec<Streams> = Vec::new();
    for _ in 0..3 {
        let mut stream = raw.stream().await;
        send(&mut stream, &codec::encode(&pb::Ping::default())).await;
        assert!(matches!(frame(&mut stream).await, Frame::Pong(_)));
        open.push(stream);
    }
    // A fourth has no credit until one ends.
    let mut fourth = std::pin::pin!(raw.stream());
    assert!(futures_pending(&mut fourth).await, "no credit for a fourth");
    let mut first = open.remove(0);
    first.0.finish();
    assert!(within(first.1.next_frame()).await.expect("ends in order").is_none());
    let mut stream = fourth.await;
    send(&mut stream, &codec::encode(&pb::Ping::default())).await;
    assert!(matches!(frame(&mut stream).await, Frame::Pong(_)));
    program.stop().await;
}

/// Whether a future is not ready when asked once.
async fn futures_pending<F: Future>(future: &mut std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

/// Alice writes to Bob; Bob has accepted her.
async fn pair(program: &Program) -> (Person, Client, Person) {
    let (alice, a) = program.enter("alice", 1).await;
    let (bob, mut b) = program.enter("bob", 2).await;
    b.decide(&alice, pb::Decision::Accept).await;
    (alice, a, bob)
}

fn sized(from: &Person, to: &Person, counter: u64, bytes: usize) -> pb::Submit {
    let mut request = from.submit_to(to, counter);
    request.payloads[0].ciphertext = Bytes::from(vec![8; bytes]);
    request
}

fn resident_kib(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// Answers to many submissions at once.
async fn submit_all(program: &Program, alice: &Person, bob: &Person, (from, to, bytes): (u64, u64, usize)) {
    let raw = Raw::device(program, alice).await;
    let mut submit = raw.stream().await;
    let (mut sent, mut answered) = (from - 1, from - 1);
    while answered < to {
        while sent < to && sent < answered + 32 {
            sent += 1;
            submit.0.send(&sized(alice, bob, sent, bytes)).await.expect("writes");
        }
        answered += 1;
        match frame(&mut submit).await {
            Frame::Outcome(outcome) => {
                assert_eq!(outcome.counter, answered);
                if let Some(pb::outcome::Result::Refused(failure)) = outcome.result {
                    assert_eq!(failure.code, Code::MAILBOX_FULL.0, "{answered}: {failure:?}");
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_reader_that_never_acknowledges_gets_one_window_and_its_pipelines_go_on() {
    let program =
        Program::start(&format!("{FAST}event_window_entries = 128\nevent_window_bytes = 262144")).await;
    let (alice, _, bob) = pair(&program).await;
    submit_all(&program, &alice, &bob, (1, 300, 100)).await;
    let mut raw = Raw::device(&program, &bob).await;
    let mut local = raw.stream().await;
    local.0.send(&pb::Sync::default()).await.expect("writes");
    let Frame::Syncing(syncing) = frame(&mut local).await else { panic!("no Syncing") };
    let mut events =
        FrameReader::new(raw.connection.accept_uni().await.expect("a stream"), FrameLimits::default());
    let mut position = syncing.start.expect("a start");
    for n in 1..=128 {
        let entry: pb::MailboxEntry = within(events.expect()).await.expect("an entry");
        assert_eq!(entry.n, n);
        let before = tidings_proto::id::Hash::try_from(&position.hash).expect("a hash");
        position.n = n;
        position.hash = tidings_proto::log::next_hash(&before, &entry.entry).to_bytes();
    }
    for _ in 0..20 {
        send(
            &mut local,
            &codec::encode(&pb::Decide {
                account: alice.account().to_bytes(),
                decision: pb::Decision::Accept.into(),
            }),
        )
        .await;
        assert!(matches!(frame(&mut local).await, Frame::Done(_)), "pipelines go on");
    }
    let mut next = std::pin::pin!(events.next_frame());
    assert!(futures_pending(&mut next).await, "the window is full");
    raw.control.0.send(&pb::Ack { position: Some(position) }).await.expect("writes");
    let entry: pb::MailboxEntry =
        codec::decode(&within(next).await.expect("reads").expect("a frame")).expect("an entry");
    assert_eq!(entry.n, 129);
    program.stop().await;
}

#[tokio::test]
async fn clients_that_never_read_cost_windows_and_no_more() {
    let program = Program::start(FAST).await;
    let (alice, mut served, bob) = pair(&program).await;
    submit_all(&program, &alice, &bob, (1, 300, 60_000)).await;
    let before = resident_kib(&program);
    // 18 MB wait; this client gives no credit for more than its first windows.
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(4096_u32.into()).receive_window(65_536_u32.into());
    let connection = program.dial_with(Some(transport)).await.expect("a connection");
    let raw = Raw::on(connection).await;
    let raw = raw.prove(&program.domain, (crate::program::device(&bob), &bob.device)).await.expect("proven");
    let mut local = raw.stream().await;
    local.0.send(&pb::Sync::default()).await.expect("writes");
    let _events = within(raw.connection.accept_uni()).await.expect("a stream");
    let mut asking = raw.stream().await;
    let resolve = codec::encode(&pb::Resolve { address: alice.address.to_string(), ..Default::default() });
    // Until the server takes no more requests, because nobody takes its answers.
    let flooding = async {
        for _ in 0..200_000 {
            asking.0.stream_mut().write_all(&resolve).await.expect("writes");
        }
    };
    let flooded = tokio::time::timeout(std::time::Duration::from_secs(2), flooding).await;
    assert!(flooded.is_err(), "requests are not taken without end");
    served = {
        drop(served);
        program.device(&alice).await
    };
    served.fence().await;
    let grown = resident_kib(&program).saturating_sub(before);
    println!("{grown} KiB more");
    assert!(grown < 16 * 1024, "{grown} KiB more");
    raw.connection.close(0_u32.into(), b"");
    program.stop().await;
}

#[tokio::test]
async fn a_mailbox_at_its_cap_lapses_and_its_device_hears_of_it_first() {
    const CAP: u64 = 10_000;
    const SENDERS: u8 = 10;
    let program =
        Program::start(&format!("{FAST}mailbox_entries_max = {CAP}\ncandidate_connections_per_source = 100"))
            .await;
    let (alice, mut a, bob) = pair(&program).await;
    let (carol, mut c) = program.enter("carol", 3).await;
    c.decide(&alice, pb::Decision::Accept).await;
    c.sync(None).await;
    // Many at once: what they send becomes durable together.
    let mut b = program.device(&bob).await;
    let mut senders = Vec::new();
    for seed in 10..10 + SENDERS {
        let (sender, _) = program.enter(&format!("sender{seed}"), seed).await;
        b.decide(&sender, pb::Decision::Accept).await;
        senders.push(sender);
    }
    drop(b);
    let each = CAP / u64::from(SENDERS) + 5;
    let (program, bob) = (Arc::new(program), Arc::new(bob));
    let mut tasks = JoinSet::new();
    for sender in senders {
        let (program, bob) = (Arc::clone(&program), Arc::clone(&bob));
        tasks.spawn(async move { submit_all(&program, &sender, &bob, (1, each, 10)).await });
    }
    tasks.join_all().await;
    accepted(&a.submit(&alice.submit_to(&carol, 1)).await);
    assert_eq!(c.entry().await.0, 1, "other devices are untouched");
    let mut b = program.device(&bob).await;
    b.sync(None).await;
    let mut upto = 0;
    while upto < CAP {
        let (n, entry) = b.entry().await;
        let entry = pb::Entry::decode(entry).expect("an entry");
        assert_eq!(entry.r#type, 0x0a, "entry {n} behind {upto}: {}", program.log());
        let void = pb::Void::decode(entry.body).expect("a void");
        assert_eq!((n, void.from, void.reason()), (upto + 1, n, pb::VoidReason::Lapsed));
        upto = void.to;
    }
    accepted(&a.submit(&alice.submit_to(&bob, 2)).await);
    assert_eq!(b.entry().await.0, upto + 1, "it takes entries again");
    Arc::into_inner(program).expect("all tasks are gone").stop().await;
}
