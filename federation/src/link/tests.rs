use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::entries;
use tidings_proto::log::{Position, next_hash};
use tidings_proto::pb;

use super::*;
use crate::host::{NotNow, Verdict};

const LIFE: Incarnation = Incarnation([4; 16]);

fn outbox(last: u64) -> OutboxState {
    OutboxState { incarnation: LIFE, last, done: 0, done_hash: Hash::ZERO, oldest_ms: None }
}

fn item(n: u64) -> Bytes {
    let body = vec![u8::try_from(n % 200).unwrap(); 3].into();
    pb::Entry { r#type: entries::TRANSFER, body }.encode_to_vec().into()
}

fn hash(n: u64) -> Hash {
    (1..=n).fold(Hash::ZERO, |before, n| next_hash(&before, &item(n)))
}

fn stored(n: u64) -> OutboxEntry {
    OutboxEntry { n, to: n, entry: item(n), hash: hash(n) }
}

fn position(n: u64) -> Position {
    Position { incarnation: LIFE, n, h: hash(n) }
}

fn resume(taken: Option<Position>) -> Frame {
    pb::LinkResume { taken: Some(wire::to_pb(taken)), refusals: Vec::new() }.into()
}

fn ack(n: u64) -> Frame {
    pb::LinkAck { taken: Some(wire::to_pb(Some(position(n)))), refusals: Vec::new() }.into()
}

/// A link whose outbox has this many entries, connected, LinkResume sent and the peer's received.
fn shipping(last: u64, limits: LinkLimits, peer: PeerLimits) -> Link {
    let mut link = Link::new(outbox(last), InboxState::default(), limits);
    connect(&mut link, peer, None);
    link
}

fn connect(link: &mut Link, peer: PeerLimits, taken: Option<Position>) {
    link.connected(peer);
    assert!(link.poll_frame(0).is_some_and(|raw| raw.kind == tidings_proto::frames::LINK_RESUME));
    link.frame(resume(taken), 0).unwrap();
}

/// Answers reads and fills, and gives the entry numbers that leave; stops at any other order.
fn ship(link: &mut Link, last: u64, now_ms: u64) -> (Vec<u64>, Option<Order>) {
    let mut sent = Vec::new();
    loop {
        match link.poll_order(now_ms) {
            Some(Order::Read { token, after, max_entries, .. }) => {
                let upto = last.min(after + u64::try_from(max_entries).unwrap());
                link.read(token, (after + 1..=upto).map(stored).collect());
            }
            Some(Order::Fill { token, .. }) => link.filled(token, last),
            Some(Order::Check { token, n }) => link.checked(token, Some(hash(n))),
            Some(other) => return (sent, Some(other)),
            None => match link.poll_frame(now_ms) {
                Some(raw) => {
                    if let Some(Frame::LinkEntry(entry)) = Frame::from_raw(&raw).unwrap() {
                        sent.push(entry.n);
                    }
                }
                None => return (sent, None),
            },
        }
    }
}

#[test]
fn no_more_than_a_window_is_without_an_answer() {
    let peer = PeerLimits { window_entries: 4, ..PeerLimits::default() };
    let mut link = shipping(10, LinkLimits::default(), peer);
    assert_eq!(ship(&mut link, 10, 0).0, [1, 2, 3, 4]);
    link.frame(ack(2), 0).unwrap();
    let (sent, order) = ship(&mut link, 10, 0);
    assert!(sent.is_empty() && matches!(order, Some(Order::Settle { upto: 2, .. })));
    assert_eq!(ship(&mut link, 10, 0).0, [5, 6]);
}

#[test]
fn results_seen_waits_until_results_are_stored() {
    let mut link = shipping(3, LinkLimits::default(), PeerLimits::default());
    ship(&mut link, 3, 0);
    link.frame(ack(3), 0).unwrap();
    let (_, Some(Order::Settle { token, .. })) = ship(&mut link, 3, 0) else { panic!("no order") };
    assert_eq!(link.poll_frame(0), None, "nothing is claimed");
    link.persisted(token);
    let frame = Frame::from_raw(&link.poll_frame(0).unwrap()).unwrap().unwrap();
    assert_eq!(frame, pb::ResultsSeen { upto: 3 }.into());
}

#[test]
fn what_was_appended_while_the_connection_ended_is_not_forgotten() {
    let mut link = shipping(0, LinkLimits::default(), PeerLimits::default());
    ship(&mut link, 0, 0);
    assert!(!link.has_news());
    link.drain();
    link.appended();
    link.lost(true);
    assert!(link.has_news(), "it was not even looked at");
    connect(&mut link, PeerLimits::default(), None);
    let Some(Order::Fill { token, .. }) = link.poll_order(0) else { panic!("no fill") };
    link.lost(true);
    link.filled(token, 1);
    assert!(link.has_news(), "the answer came too late to count");
}

#[test]
fn an_answer_of_an_older_connection_says_nothing_on_the_newer_one() {
    let mut link = shipping(3, LinkLimits::default(), PeerLimits::default());
    ship(&mut link, 3, 0);
    link.frame(ack(3), 0).unwrap();
    let (_, Some(Order::Settle { token, .. })) = ship(&mut link, 3, 0) else { panic!("no order") };
    link.lost(true);
    connect(&mut link, PeerLimits::default(), Some(position(3)));
    assert_eq!(ship(&mut link, 3, 0), (vec![], None), "the resume waits for the order");
    link.persisted(token);
    assert_eq!(ship(&mut link, 3, 0), (vec![], None));
    assert_eq!(link.queued(), 0);
}

#[test]
fn an_entry_that_breaks_connections_is_found_and_closed_as_poison() {
    let limits = LinkLimits { resends: 3, ..LinkLimits::default() };
    let mut link = shipping(8, limits, PeerLimits::default());
    assert_eq!(ship(&mut link, 8, 0).0.len(), 8);
    // Whatever comes with entry 5 kills the connection.
    let (mut taken, mut breaks) = (4, 0);
    link.lost(false);
    loop {
        connect(&mut link, PeerLimits::default(), Some(position(taken)));
        let (sent, order) = ship(&mut link, 8, 0);
        if let Some(Order::Settle { token, upto, .. }) = order {
            link.persisted(token);
            taken = upto;
            let (sent, order) = ship(&mut link, 8, 0);
            assert!(sent.len() == 1 && order.is_none(), "alone");
        } else if let Some(Order::Replace { n, reason, .. }) = order {
            assert_eq!((n, reason.code, breaks), (5, Code::POISON, 3));
            return;
        } else {
            assert_eq!(sent, [5], "alone");
        }
        breaks += 1;
        link.lost(false);
    }
}

#[test]
fn an_orderly_end_says_nothing_about_what_was_in_flight() {
    let limits = LinkLimits { resends: 1, ..LinkLimits::default() };
    let mut link = shipping(1, limits, PeerLimits::default());
    for _ in 0..5 {
        assert_eq!(ship(&mut link, 1, 0).0, [1]);
        link.lost(true);
        connect(&mut link, PeerLimits::default(), None);
    }
}

#[test]
fn what_the_peer_does_not_take_is_closed_as_too_large() {
    let peer = PeerLimits { frame_bytes: 42, ..PeerLimits::default() };
    let mut link = shipping(2, LinkLimits::default(), peer);
    let (sent, order) = ship(&mut link, 2, 0);
    assert!(sent.is_empty());
    let Some(Order::Replace { token, n: 1, reason }) = order else { panic!("{order:?}") };
    assert_eq!(reason.code, Code::TOO_LARGE);
    link.replaced(token, OutboxEntry { entry: Bytes::new(), ..stored(1) });
    let (sent, order) = ship(&mut link, 2, 0);
    assert_eq!(sent, [1]);
    assert!(matches!(order, Some(Order::Replace { n: 2, .. })));
}

#[test]
fn pause_stops_shipping_and_then_all_without_an_answer_goes_out_again() {
    let mut link = shipping(3, LinkLimits::default(), PeerLimits::default());
    assert_eq!(ship(&mut link, 3, 0).0, [1, 2, 3]);
    let pause = pb::Pause { for_ms: 100, reason: Some(Refusal::from(Code::UNAVAILABLE).to_pb()) };
    link.frame(pause.into(), 0).unwrap();
    assert_eq!(ship(&mut link, 5, 99).0, [0; 0]);
    link.appended();
    assert_eq!(ship(&mut link, 5, 100).0, [1, 2, 3, 4, 5]);
}

#[test]
fn goaway_stops_what_is_new() {
    let peer = PeerLimits { window_entries: 2, ..PeerLimits::default() };
    let mut link = shipping(9, LinkLimits::default(), peer);
    assert_eq!(ship(&mut link, 9, 0).0, [1, 2]);
    link.drain();
    assert!(!link.is_idle());
    link.frame(ack(2), 0).unwrap();
    let (_, Some(Order::Settle { token, .. })) = ship(&mut link, 9, 0) else { panic!("no order") };
    link.persisted(token);
    assert_eq!(ship(&mut link, 9, 0), (vec![], None));
    assert!(link.is_idle());
}

fn entry(n: u64) -> Frame {
    pb::LinkEntry { incarnation: LIFE.to_bytes(), n, entry: item(n) }.into()
}

fn take(link: &mut Link) -> (Token, Vec<Incoming>) {
    match link.poll_order(0) {
        Some(Order::Take { token, batch }) => (token, batch),
        other => panic!("{other:?}"),
    }
}

fn accept(count: usize) -> Taken {
    Taken { verdicts: vec![Verdict::Accepted; count], not_now: None }
}

fn quiet() -> Link {
    let mut link = shipping(0, LinkLimits::default(), PeerLimits::default());
    assert_eq!(ship(&mut link, 0, 0), (vec![], None));
    link
}

#[test]
fn entries_are_taken_in_batches_and_answered_when_they_are_stored() {
    let mut link = quiet();
    link.frame(entry(1), 0).unwrap();
    let (first, batch) = take(&mut link);
    assert_eq!(batch.len(), 1);
    for n in 2..=5 {
        link.frame(entry(n), 0).unwrap();
    }
    assert_eq!((link.poll_order(0), link.poll_frame(0)), (None, None), "one at a time, no answer before");
    link.taken(first, accept(1), 0);
    let (second, batch) = take(&mut link);
    assert_eq!(batch.iter().map(|incoming| incoming.n).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert_eq!(batch.last().map(|incoming| incoming.position), Some(position(5)));
    link.taken(second, accept(4), 0);
    let frame = Frame::from_raw(&link.poll_frame(0).unwrap()).unwrap().unwrap();
    assert_eq!(frame, ack(5), "one answer for both");
    assert_eq!(link.poll_frame(0), None);
}

#[test]
fn link_resume_waits_for_what_an_older_connection_is_storing() {
    let mut link = quiet();
    link.frame(entry(1), 0).unwrap();
    let (token, _) = take(&mut link);
    link.lost(false);
    link.connected(PeerLimits::default());
    assert_eq!(link.poll_frame(0), None);
    let taken = Taken { verdicts: vec![Verdict::Refused(Code::NOT_HERE.into())], not_now: None };
    link.taken(token, taken, 0);
    let frame = Frame::from_raw(&link.poll_frame(0).unwrap()).unwrap().unwrap();
    let Frame::LinkResume(resume) = frame else { panic!("{frame:?}") };
    assert_eq!(resume.taken.map(|taken| taken.n), Some(1));
    assert_eq!(resume.refusals.len(), 1, "the refusal did not die with the connection");
}

#[test]
fn what_cannot_be_taken_now_pauses_and_the_rest_is_dropped() {
    let mut link = quiet();
    for n in 1..=3 {
        link.frame(entry(n), 0).unwrap();
    }
    let (token, _) = take(&mut link);
    let not_now = NotNow { wait: Duration::from_secs(7200), reason: Code::INTERNAL.into() };
    link.taken(token, Taken { verdicts: vec![Verdict::Accepted], not_now: Some(not_now) }, 0);
    assert_eq!(Frame::from_raw(&link.poll_frame(0).unwrap()).unwrap(), Some(ack(1)));
    let frame = Frame::from_raw(&link.poll_frame(0).unwrap()).unwrap().unwrap();
    let Frame::Pause(pause) = frame else { panic!("{frame:?}") };
    assert_eq!(u64::from(pause.for_ms), LinkLimits::default().pause_ms);
    link.frame(entry(4), 0).unwrap();
    assert_eq!((link.poll_order(0), link.poll_frame(0)), (None, None), "ignored");
    link.frame(entry(2), 1000).unwrap();
    let again = Frame::from_raw(&link.poll_frame(1000).unwrap()).unwrap().unwrap();
    assert!(matches!(again, Frame::Pause(_)), "a writer that begins too early hears it again");
    let over = LinkLimits::default().pause_ms;
    assert_eq!(link.poll_order(over), None);
    link.frame(entry(2), over).unwrap();
    assert_eq!(take(&mut link).1.len(), 1);
}

#[test]
fn a_reader_with_a_full_buffer_wants_no_more() {
    let limits = LinkLimits { window_entries: 2, ..LinkLimits::default() };
    let mut link = shipping(0, limits, PeerLimits::default());
    ship(&mut link, 0, 0);
    link.frame(entry(1), 0).unwrap();
    let (token, _) = take(&mut link);
    link.frame(entry(2), 0).unwrap();
    assert!(link.wants_input());
    link.frame(entry(3), 0).unwrap();
    assert!(!link.wants_input());
    link.taken(token, accept(1), 0);
    take(&mut link);
    assert!(link.wants_input());
}
