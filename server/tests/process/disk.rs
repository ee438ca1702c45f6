//! A disk without room.

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::pb;
use tidings_server::refusal::Code;

use crate::client::{Client, Person, deliveries};
use crate::program::Program;

const LIMITS: &str =
    "request_deadline_ms = 5000\nrequests_per_second = 100000\nrequest_queue_messages_max = 100";

fn large(from: &Person, to: &Person, counter: u64) -> pb::Submit {
    let mut request = from.submit_to(to, counter);
    request.payloads[0].ciphertext = Bytes::from(vec![u8::try_from(counter).expect("few"); 16_000]);
    request
}

/// Two people, and then the program in a world where no file grows beyond what it has and a little more.
async fn nearly_full() -> (Program, Person, Person) {
    let mut program = Program::start(LIMITS).await;
    let (alice, _) = program.enter("alice", 1).await;
    let (bob, mut b) = program.enter("bob", 2).await;
    b.decide(&alice, pb::Decision::Accept).await;
    drop(b);
    program.signal("-TERM");
    assert!(program.ended().await.success());
    // `ulimit -f` counts 512 bytes; the soft limit only, so that it can be raised again.
    let held = std::fs::metadata(program.data().join("tidings.db")).expect("a database").len();
    let blocks = (held + 64 * 1024) / 512;
    let script = "exec \"$0\" --log-format json serve --config \"$1\"";
    program.begin_by(&["trap '' XFSZ; ulimit -S -f ", &blocks.to_string(), "; ", script]).await;
    (program, alice, bob)
}

/// Sends until something is not accepted: the last counter that was, and the first refusal.
async fn fill(alice: &Person, bob: &Person, client: &mut Client) -> (u64, pb::Failure) {
    for counter in 1..200 {
        match client.submit(&large(alice, bob, counter)).await {
            Ok(outcome) => {
                assert!(matches!(outcome.result, Some(pb::outcome::Result::Accepted(_))), "{outcome:?}")
            }
            Err(failure) => return (counter - 1, failure),
        }
    }
    panic!("the disk is never full");
}

fn told_later(failure: &pb::Failure) {
    assert!([Code::UNAVAILABLE.0, Code::TIMED_OUT.0].contains(&failure.code), "{failure:?}");
    assert_eq!(failure.retry(), pb::Retry::AfterDelay);
}

async fn all_there(program: &Program, bob: &Person, upto: u64) {
    let mut b = program.device(bob).await;
    b.sync(None).await;
    for number in 1..=upto {
        let (_, entry) = b.entry().await;
        let delivery = deliveries(&entry);
        assert_eq!(
            (delivery.number, delivery.payload.expect("a payload").ciphertext[0]),
            (number, u8::try_from(number).expect("few"))
        );
    }
}

#[tokio::test]
async fn a_full_disk_accepts_nothing_and_loses_nothing_over_a_restart() {
    let (mut program, alice, bob) = nearly_full().await;
    let mut a = program.device(&alice).await;
    let (last, failure) = fill(&alice, &bob, &mut a).await;
    assert!(last > 0, "some had room");
    told_later(&failure);
    let next = a.submit(&large(&alice, &bob, last + 1)).await.expect_err("no room");
    assert_eq!(next.code, Code::UNAVAILABLE.0, "{next:?}");
    assert!(program.log().contains("is the disk full?"));
    program.kill().await;
    program.begin().await;
    let mut a = program.device(&alice).await;
    assert_eq!(a.state.as_ref().expect("a device").counter, last, "what was not accepted left nothing");
    for counter in 1..=last + 3 {
        let outcome = a.submit(&large(&alice, &bob, counter)).await.expect("room again");
        let Some(pb::outcome::Result::Accepted(accepted)) = outcome.result else { panic!("{outcome:?}") };
        assert_eq!(accepted.number, counter);
    }
    all_there(&program, &bob, last + 3).await;
    program.stop().await;
}

#[tokio::test]
async fn room_on_the_disk_ends_the_pause_without_a_restart() {
    let (program, alice, bob) = nearly_full().await;
    let mut a = program.device(&alice).await;
    let (last, failure) = fill(&alice, &bob, &mut a).await;
    told_later(&failure);
    let raised = std::process::Command::new("prlimit")
        .args(["--pid", &program.pid().to_string(), "--fsize=unlimited:unlimited"])
        .status();
    assert!(raised.expect("prlimit").success());
    let mut counter = last + 1;
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while counter <= last + 3 {
        match a.submit(&large(&alice, &bob, counter)).await {
            Ok(outcome) => {
                assert_eq!(pb::Outcome::decode(outcome.encode_to_vec().as_slice()).expect("whole"), outcome);
                counter += 1;
            }
            Err(failure) => told_later(&failure),
        }
        assert!(tokio::time::Instant::now() < deadline, "it never comes back: {}", program.log());
    }
    all_there(&program, &bob, last + 3).await;
    assert!(program.log().contains("can be written again"));
    program.stop().await;
}
