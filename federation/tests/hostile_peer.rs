//! A peer that breaks rules harms its own link and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, as it is to"
)]

mod model;

use bytes::Bytes;
use model::{Driven, Random, Store, entry_of, seed};
use prost::Message as _;
use tidings_proto::codec::Frame;
use tidings_proto::entries;
use tidings_proto::error::{Code, Refusal, Scope};
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::Position;
use tidings_proto::pb;

const LIFE: [u8; 16] = [9; 16];

fn zeros() -> pb::Position {
    pb::Position { incarnation: vec![0; 16].into(), n: 0, hash: vec![0; 32].into() }
}

fn at(position: Position) -> pb::Position {
    pb::Position { incarnation: position.incarnation.to_bytes(), n: position.n, hash: position.h.to_bytes() }
}

fn resume() -> pb::LinkResume {
    pb::LinkResume { taken: Some(zeros()), refusals: Vec::new() }
}

fn entry(n: u64, bytes: impl Into<Bytes>) -> pb::LinkEntry {
    pb::LinkEntry { incarnation: LIFE.to_vec().into(), n, entry: bytes.into() }
}

/// A home with five entries in its outbox, connected, that has heard the peer's resume.
fn home() -> (Driven, Vec<Frame>) {
    let mut home = Driven::new(Store::new(1));
    home.append(1..=5);
    home.connect();
    let frames = home.give(resume()).unwrap();
    (home, frames)
}

fn code(result: Result<Vec<Frame>, Refusal>) -> Code {
    let refusal = result.expect_err("it is refused");
    assert_eq!(refusal.scope, Scope::Connection, "there is no request to refuse alone");
    refusal.code
}

#[test]
fn nothing_comes_before_link_resume_and_it_comes_once() {
    for frame in [
        Frame::from(entry(1, entry_of(1))),
        pb::LinkAck { taken: Some(zeros()), refusals: Vec::new() }.into(),
        pb::ResultsSeen { upto: 0 }.into(),
        pb::Pause { for_ms: 1, reason: Some(Refusal::from(Code::UNAVAILABLE).to_pb()) }.into(),
        pb::LinkRestart::default().into(),
        pb::Submit::default().into(),
    ] {
        let mut home = Driven::new(Store::new(1));
        home.connect();
        assert_eq!(code(home.give(frame)), Code::FRAME_UNEXPECTED);
    }
    let (mut home, _) = home();
    assert_eq!(code(home.give(resume())), Code::FRAME_UNEXPECTED);
    assert_eq!(code(home.give(pb::Ping::default())), Code::FRAME_UNEXPECTED);
}

#[test]
fn positions_that_are_no_positions_are_malformed() {
    let life = || Bytes::from(LIFE.to_vec());
    let hash = || Bytes::from(vec![1; 32]);
    for taken in [
        None,
        Some(pb::Position::default()),
        Some(pb::Position { incarnation: life(), n: 0, hash: hash() }),
        Some(pb::Position { incarnation: vec![0; 16].into(), n: 1, hash: hash() }),
        Some(pb::Position { incarnation: vec![1; 15].into(), n: 1, hash: hash() }),
    ] {
        let mut home = Driven::new(Store::new(1));
        home.connect();
        let told = pb::LinkResume { taken, refusals: Vec::new() };
        assert_eq!(code(home.give(told)), Code::MESSAGE_MALFORMED);
    }
}

#[test]
fn an_absurd_position_in_a_resume_begins_this_outbox_anew_and_loses_nothing() {
    for n in [1, 5, 6, u64::MAX] {
        let mut home = Driven::new(Store::new(1));
        home.append(1..=5);
        let own = home.store.incarnation;
        home.connect();
        let taken = Some(at(Position { incarnation: own, n, h: Hash([7; 32]) }));
        let frames = home.give(pb::LinkResume { taken, refusals: Vec::new() }).unwrap();
        assert!(matches!(frames.first(), Some(Frame::LinkRestart(_))), "{n}");
        assert_eq!(frames.len(), 6, "all five entries follow");
        assert!(home.store.results.is_empty());
    }
}

#[test]
fn answers_to_what_was_not_sent_end_the_connection() {
    let (mut home, frames) = home();
    assert_eq!(frames.len(), 5);
    let own = home.store.incarnation;
    let hash = home.store.hash_at(5).unwrap();
    let ack = |position| pb::LinkAck { taken: Some(at(position)), refusals: Vec::new() };
    for position in [
        Position { incarnation: own, n: 6, h: hash },
        Position { incarnation: own, n: 5, h: Hash([7; 32]) },
        Position { incarnation: own, n: u64::MAX, h: hash },
        Position { incarnation: Incarnation(LIFE), n: 5, h: hash },
    ] {
        assert_eq!(code(home.give(ack(position))), Code::POSITION_INVALID);
    }
    assert!(home.store.results.is_empty(), "nothing of it counted");
    home.give(ack(Position { incarnation: own, n: 5, h: hash })).unwrap();
    let wrong = Position { incarnation: own, n: 3, h: Hash([7; 32]) };
    let refusals = vec![pb::EntryResult { n: 3, refused: Some(pb::Failure::default()) }];
    let repeated = pb::LinkAck { taken: Some(at(wrong)), refusals };
    assert_eq!(code(home.give(repeated)), Code::POSITION_INVALID);
}

#[test]
fn refusals_that_do_not_ascend_or_lie_above_the_position_are_malformed() {
    let (mut home, _) = home();
    let position = Position { incarnation: home.store.incarnation, n: 5, h: home.store.hash_at(5).unwrap() };
    let refused = |n| pb::EntryResult { n, refused: Some(Refusal::from(Code::NOT_HERE).to_pb()) };
    for refusals in [
        vec![refused(6)],
        vec![refused(0)],
        vec![refused(2), refused(2)],
        vec![refused(3), refused(1)],
        vec![pb::EntryResult { n: 1, refused: None }],
    ] {
        let ack = pb::LinkAck { taken: Some(at(position)), refusals };
        assert_eq!(code(home.give(ack)), Code::MESSAGE_MALFORMED);
    }
}

#[test]
fn a_false_restart_is_refused_and_changes_nothing() {
    let (mut home, _) = home();
    let taken = home.give(entry(1, entry_of(1))).unwrap();
    assert_eq!(taken.len(), 1, "acknowledged");
    let restart = |new: [u8; 16], previous: [u8; 16]| pb::LinkRestart {
        incarnation: new.to_vec().into(),
        previous_incarnation: previous.to_vec().into(),
    };
    assert_eq!(code(home.give(restart([8; 16], LIFE))), Code::FRAME_UNEXPECTED, "after an entry");
    for (new, previous, expected) in [
        ([8; 16], [7; 16], Code::POSITION_INVALID),
        (LIFE, LIFE, Code::MESSAGE_MALFORMED),
        ([0; 16], LIFE, Code::MESSAGE_MALFORMED),
        ([8; 16], [0; 16], Code::MESSAGE_MALFORMED),
    ] {
        home.connect();
        home.give(resume()).unwrap();
        let before = home.store.taken;
        assert_eq!(code(home.give(restart(new, previous))), expected);
        assert_eq!(home.store.taken, before);
    }
    home.connect();
    home.give(resume()).unwrap();
    home.give(restart([8; 16], LIFE)).unwrap();
    assert_eq!(home.store.taken, Some(Position::start(Incarnation([8; 16]))));
    assert_eq!(code(home.give(restart([6; 16], [8; 16]))), Code::FRAME_UNEXPECTED, "a second one");
}

#[test]
fn entries_out_of_order_are_ignored() {
    let (mut home, _) = home();
    for n in [0, 2, 7, u64::MAX] {
        assert!(home.give(entry(n, entry_of(n))).unwrap().is_empty(), "{n}");
    }
    assert_eq!(home.store.taken, None);
    home.give(entry(1, entry_of(1))).unwrap();
    assert!(home.give(entry(1, entry_of(2))).unwrap().is_empty(), "it is there already");
    let other = pb::LinkEntry { incarnation: vec![5; 16].into(), n: 2, entry: entry_of(2) };
    assert!(home.give(other).unwrap().is_empty(), "another incarnation");
    assert_eq!(home.store.effects, [1]);
}

#[test]
fn garbage_in_an_entry_is_refused_by_number_and_what_follows_is_taken() {
    let (mut home, _) = home();
    let unknown = |r#type| pb::Entry { r#type, body: Bytes::new() }.encode_to_vec();
    for (n, bytes) in [
        (1, vec![0xff; 40]),
        (2, unknown(0x7e)),
        (3, unknown(0x7f)),
        (4, unknown(entries::DELIVERY)),
        (5, entry_of(1).to_vec()),
    ] {
        home.give(entry(n, bytes)).unwrap();
    }
    let unseen: Vec<_> = home.store.unseen.iter().map(|(n, refusal)| (*n, refusal.code)).collect();
    let unknown = Code::ENTRY_UNKNOWN;
    assert_eq!(unseen, [(1, Code::MESSAGE_MALFORMED), (2, unknown), (4, unknown)]);
    assert_eq!(home.store.effects, [1]);
}

#[test]
fn a_void_of_other_numbers_ends_the_connection() {
    let void = |from, to, hash: Vec<u8>| {
        let body = pb::Void { from, to, reason: 1, hash: hash.into() }.encode_to_vec().into();
        pb::Entry { r#type: entries::VOID, body }.encode_to_vec()
    };
    for bytes in [void(2, 2, vec![1; 32]), void(1, 0, vec![1; 32]), void(1, 1, vec![1; 31])] {
        let (mut home, _) = home();
        assert_eq!(code(home.give(entry(1, bytes))), Code::POSITION_INVALID);
    }
    let (mut home, _) = home();
    home.give(entry(1, void(1, u64::MAX, vec![1; 32]))).unwrap();
    assert!(home.give(entry(2, entry_of(1))).unwrap().is_empty(), "no number is left");
}

#[test]
fn results_seen_above_what_was_taken_ends_the_connection() {
    let (mut home, _) = home();
    home.give(entry(1, entry_of(3))).unwrap();
    assert_eq!(code(home.give(pb::ResultsSeen { upto: 2 })), Code::POSITION_INVALID);
    assert_eq!(home.store.unseen.len(), 1, "the refusal is kept");
    home.give(pb::ResultsSeen { upto: 1 }).unwrap();
    assert!(home.store.unseen.is_empty());
}

#[test]
fn a_writer_that_never_sees_results_is_paused_at_the_bound() {
    let (mut home, _) = home();
    let mut paused = 0;
    for n in 1..=10_000 {
        let frames = home.give(entry(n, vec![0xff; 8])).unwrap();
        paused += frames.iter().filter(|frame| matches!(frame, Frame::Pause(_))).count();
    }
    assert_eq!(paused, 1, "once, and then nothing more is taken");
    let kept = home.store.unseen.len() as u64;
    assert!(kept <= tidings_proto::limits::LINK_REFUSALS_MAX, "{kept}");
    let frames = home.connect();
    let Some(Frame::LinkResume(resume)) = frames.first() else { panic!("no resume") };
    assert_eq!(resume.refusals.len() as u64, kept, "all of them in one frame");
    assert!(resume.encoded_len() as u64 <= tidings_proto::limits::FRAME_BYTES_MAX);
}

#[test]
fn a_pause_is_no_longer_than_the_longest_and_the_later_end_counts() {
    let (mut home, _) = home();
    let pause = |for_ms| pb::Pause { for_ms, reason: Some(Refusal::from(Code::UNAVAILABLE).to_pb()) };
    assert_eq!(code(home.give(pb::Pause { for_ms: 1, reason: None })), Code::MESSAGE_MALFORMED);
    home.give(pause(u32::MAX)).unwrap();
    home.give(pause(1)).unwrap();
    let longest = tidings_proto::limits::RECONNECT_MAX_MS;
    assert_eq!(home.link.deadline(), Some(home.now_ms + longest));
    home.append(6..=7);
    assert!(home.frames().is_empty(), "paused");
    home.now_ms += longest;
    assert_eq!(home.frames().len(), 7, "all again, from what was acknowledged");
}

#[test]
fn whatever_frames_come_nothing_panics_and_nothing_of_the_outbox_is_lost() {
    let mut random = Random::new(seed());
    for _ in 0..300 {
        let (mut home, _) = home();
        for _ in 0..60 {
            let frame = any_frame(&mut random, &home.store);
            if home.give(frame).is_err() {
                home.connect();
                // A liar's resume can settle or begin anew, but never drop what has no result.
                let _closed = home.give(resume());
            }
            home.now_ms += random.below(2000);
        }
        for item in 1..=5 {
            let waits = home.store.log.iter().any(|stored| stored.item == Some(item));
            assert!(waits || home.store.results.contains_key(&item), "item {item} is gone");
        }
    }
}

fn any_frame(random: &mut Random, store: &Store) -> Frame {
    let n = [0, 1, 2, 3, 5, 6, u64::MAX][random.below(7) as usize];
    let incarnation = [store.incarnation, Incarnation(LIFE), Incarnation::ZERO][random.below(3) as usize];
    let h = if random.chance(50) { store.hash_at(n).unwrap_or(Hash([3; 32])) } else { Hash([3; 32]) };
    let taken = Some(at(Position { incarnation, n, h }));
    let refused = Some(Refusal::from(Code::NOT_HERE).to_pb());
    let refusals = if random.chance(30) { vec![pb::EntryResult { n: 1, refused }] } else { Vec::new() };
    match random.below(6) {
        0 => pb::LinkResume { taken, refusals }.into(),
        1 => pb::LinkAck { taken, refusals }.into(),
        2 => pb::ResultsSeen { upto: n }.into(),
        3 => pb::Pause { for_ms: random.below(5000) as u32, reason: Some(pb::Failure::default()) }.into(),
        4 => pb::LinkRestart {
            incarnation: random.incarnation().to_bytes(),
            previous_incarnation: incarnation.to_bytes(),
        }
        .into(),
        _ => entry(n, entry_of(random.below(50))).into(),
    }
}
