//! What follows when one of two homes is restored from an older copy (chapter 09, 9.8).
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails, as it is to"
)]

mod model;

use model::{Driven, Store, talk, verdict_of};
use tidings_federation::host::{Told, Verdict};
use tidings_proto::codec::Frame;
use tidings_proto::error::Code;

fn pair() -> (Driven, Driven) {
    (Driven::new(Store::new(1)), Driven::new(Store::new(2)))
}

fn accepted(items: impl Iterator<Item = u64>) -> Vec<u64> {
    items.filter(|item| verdict_of(*item) == Verdict::Accepted).collect()
}

fn has(frames: &[Frame], holds: impl Fn(&Frame) -> bool) -> bool {
    frames.iter().any(holds)
}

#[test]
fn a_writer_that_was_restored_begins_a_new_incarnation_and_repeats_without_effect() {
    let (mut a, mut b) = pair();
    a.append(1..=10);
    let copy = a.store.clone();
    talk(&mut a, &mut b);
    a.append(11..=20);
    talk(&mut a, &mut b);
    // The copy knows of no result; the home knows that it is one (DUR-013).
    a.store = copy;
    let before = a.store.incarnation;
    a.store.restart(&Told { taken: None, refusals: Vec::new() });
    a.restart();
    a.append(21..=30);
    let frames = talk(&mut a, &mut b);
    assert!(has(&frames[0], |frame| matches!(frame, Frame::LinkRestart(_))));
    assert_ne!(a.store.incarnation, before);
    assert_eq!(b.store.effects, accepted(1..=30), "nothing twice, nothing missing");
    assert_eq!(a.store.results.get(&3), Some(&Err(Code::NOT_HERE)));
    assert_eq!(a.store.done, a.store.last());
}

#[test]
fn a_writer_that_does_not_know_it_was_restored_is_found_out_by_the_hash() {
    let (mut a, mut b) = pair();
    let copy = a.store.clone();
    a.append(1..=10);
    talk(&mut a, &mut b);
    a.store = copy;
    a.restart();
    // As many entries as before, so that only the hash differs.
    a.append(11..=25);
    let frames = talk(&mut a, &mut b);
    assert!(has(&frames[0], |frame| matches!(frame, Frame::LinkRestart(_))));
    assert_eq!(b.store.effects, accepted(1..=25));
    assert_eq!(a.store.done, 15);
}

#[test]
fn a_receiver_that_was_restored_gets_the_kept_entries_again() {
    let (mut a, mut b) = pair();
    a.append(1..=10);
    talk(&mut a, &mut b);
    let copy = b.store.clone();
    a.append(11..=40);
    talk(&mut a, &mut b);
    let incarnation = a.store.incarnation;
    b.store = copy;
    b.restart();
    a.append(41..=42);
    let frames = talk(&mut a, &mut b);
    assert!(!has(&frames[0], |frame| matches!(frame, Frame::LinkRestart(_))), "the outbox goes on");
    assert_eq!(a.store.incarnation, incarnation);
    assert_eq!(b.store.effects, accepted(1..=42));
    assert!(b.store.unseen.is_empty(), "the refusals were told and seen again");
}

#[test]
fn what_a_writer_has_trimmed_is_one_void_for_a_restored_receiver() {
    let (mut a, mut b) = pair();
    a.append(1..=10);
    talk(&mut a, &mut b);
    let copy = b.store.clone();
    a.append(11..=20);
    talk(&mut a, &mut b);
    for stored in &mut a.store.log[..15] {
        stored.voided = true;
    }
    b.store = copy;
    b.restart();
    talk(&mut a, &mut b);
    assert_eq!(b.store.effects, accepted((1..=10).chain(16..=20)));
    assert_eq!(b.store.taken.map(|taken| taken.n), Some(20));
}

#[test]
fn a_receiver_that_lost_its_inbox_makes_the_outbox_begin_anew() {
    let (mut a, mut b) = pair();
    a.append(1..=10);
    talk(&mut a, &mut b);
    b.store = Store::new(7);
    b.restart();
    a.append(11..=20);
    let frames = talk(&mut a, &mut b);
    assert!(has(&frames[0], |frame| matches!(frame, Frame::LinkRestart(_))));
    assert_eq!(b.store.effects, accepted(11..=20), "what was disposed of is not shipped again");
    assert_eq!(a.store.done, a.store.last());
}

#[test]
fn a_restart_that_the_peer_never_heard_of_is_repeated() {
    let (mut a, mut b) = pair();
    a.append(1..=10);
    talk(&mut a, &mut b);
    // The process ends between the new incarnation and its LinkRestart.
    a.store.restart(&Told { taken: None, refusals: Vec::new() });
    a.restart();
    a.append(11..=12);
    talk(&mut a, &mut b);
    assert_eq!(b.store.effects, accepted(1..=12));
    assert_eq!(a.store.done, a.store.last());
}

#[test]
fn both_sides_can_be_restored_at_once() {
    let (mut a, mut b) = pair();
    a.append(1..=10);
    b.append(101..=110);
    talk(&mut a, &mut b);
    let copies = (a.store.clone(), b.store.clone());
    a.append(11..=20);
    b.append(111..=120);
    talk(&mut a, &mut b);
    (a.store, b.store) = copies;
    for home in [&mut a, &mut b] {
        home.store.restart(&Told { taken: None, refusals: Vec::new() });
        home.restart();
    }
    a.append(21..=30);
    b.append(121..=130);
    talk(&mut a, &mut b);
    assert_eq!(b.store.effects, accepted((1..=10).chain(21..=30)));
    assert_eq!(a.store.effects, accepted((101..=110).chain(121..=130)));
    assert_eq!((a.store.done, b.store.done), (a.store.last(), b.store.last()));
}
