//! How far messages got, as the store keeps it.

use super::*;
use crate::store::marks;

const BOB: AccountId = AccountId([2; 32]);
const ALICE: AccountId = AccountId([1; 32]);
const LANE: Lane = Lane { address_links: 1, incarnation: [3; 16] };

async fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(&folder.path().join("device")).await.expect("opens");
    (folder, store)
}

/// A message that Alice's device wrote to Bob; its lane number is as given.
async fn write(tx: &mut Tx, id: u8, number: u64) -> Message {
    let seq = next_seq(tx).await.expect("reads");
    let message = Message {
        seq,
        id: MessageId([id; 16]),
        conversation: BOB,
        sender: ALICE,
        device: DeviceId([1; 32]),
        text: format!("message {id}"),
        reply_to: None,
        sent_at_ms: 0,
        number,
        own_number: 0,
        lifetime_secs: 0,
        state: if number > 0 { State::AcceptedByHome } else { State::Queued },
        reason: None,
    };
    assert!(put_message(tx, &message, (number > 0).then_some(LANE)).await.expect("writes"));
    message
}

async fn states(store: &Store) -> Vec<State> {
    let messages = store.messages(BOB, u64::MAX, 100).await.expect("reads");
    messages.into_iter().map(|message| message.state).collect()
}

#[tokio::test]
async fn a_watermark_raises_what_it_covers_but_its_exceptions_and_never_lowers() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    for id in 1..=4 {
        write(&mut tx, id, id.into()).await;
    }
    let mark = |upto, except: &[u64], state| Mark {
        sender: ALICE,
        lane: LANE,
        upto,
        except: except.to_vec(),
        state,
    };
    assert_eq!(raise(&mut tx, BOB, &mark(3, &[2], State::Read)).await.expect("writes"), 2);
    assert_eq!(raise(&mut tx, BOB, &mark(4, &[], State::Delivered)).await.expect("writes"), 2);
    let other = Mark { lane: Lane { incarnation: [9; 16], ..LANE }, ..mark(4, &[], State::Read) };
    assert_eq!(raise(&mut tx, BOB, &other).await.expect("writes"), 0, "another life of the home");
    tx.commit().await.expect("commits");
    assert_eq!(states(&store).await, [State::Read, State::Delivered, State::Read, State::Delivered]);
}

#[tokio::test]
async fn a_watermark_that_came_before_the_outcome_is_still_there_and_the_newest_is_kept() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    for (upto, except) in [(2, vec![1]), (5, vec![3, 4]), (4, vec![])] {
        let mark = Mark { sender: ALICE, lane: LANE, upto, except, state: State::Read };
        marks::put(&mut tx, BOB, &mark).await.expect("writes");
    }
    let kept = marks::of_lane(&mut tx, BOB, ALICE, LANE).await.expect("reads");
    let [mark] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!((mark.upto, mark.except.as_slice()), (5, [3, 4].as_slice()));
}

#[tokio::test]
async fn a_device_numbers_its_messages_densely_although_some_are_never_taken() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    let (mut first, mut second, mut third) =
        (write(&mut tx, 1, 0).await, write(&mut tx, 2, 0).await, write(&mut tx, 3, 0).await);
    set_own_number(&mut tx, &mut first).await.expect("writes");
    set_own_number(&mut tx, &mut second).await.expect("writes");
    set_failed(&mut tx, second.id, "too large").await.expect("writes");
    set_own_number(&mut tx, &mut third).await.expect("writes");
    assert_eq!((first.own_number, second.own_number, third.own_number), (1, 2, 2));
}

#[tokio::test]
async fn a_reason_to_wait_is_new_once_and_goes_with_the_next_state() {
    let (_folder, store) = store().await;
    let mut tx = store.begin().await.expect("begins");
    let message = write(&mut tx, 1, 1).await;
    assert!(set_waiting(&mut tx, message.id, Some("the other home is away")).await.expect("writes"));
    assert!(!set_waiting(&mut tx, message.id, Some("the other home is away")).await.expect("writes"));
    let mark = Mark { sender: ALICE, lane: LANE, upto: 1, except: vec![], state: State::AcceptedByPeer };
    raise(&mut tx, BOB, &mark).await.expect("writes");
    tx.commit().await.expect("commits");
    let message = store.message(message.id).await.expect("reads").expect("there");
    assert_eq!((message.state, message.reason), (State::AcceptedByPeer, None));
}
