//! A reader's position: it moves by entries and Voids that follow, and by nothing else.
//!
//! Input: pieces, each a byte that says how its number differs from the next one, a byte of length, and an entry.

use prost::Message;
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::{Agreement, Position, PositionError, next_hash};
use tidings_proto::{entries, pb};

use super::outcome;

pub(super) fn run(mut data: &[u8]) -> u64 {
    let mut at = Position::start(Incarnation([1; 16]));
    let mut fates = Vec::new();
    while let [number, length, rest @ ..] = data {
        let (entry, tail) = rest.split_at(rest.len().min(usize::from(*length)));
        data = tail;
        let number =
            at.n.wrapping_add(1).wrapping_add(u64::from(*number)).wrapping_sub(u64::from(*number >> 7) << 8);
        let (fate, next) = step(&at, number, entry);
        fates.push(fate);
        at = next;
    }
    fates.truncate(6);
    outcome(fates)
}

/// What became of an entry, and the position behind it.
fn step(at: &Position, number: u64, entry: &[u8]) -> (u8, Position) {
    let void = pb::Entry::decode(entry).ok().filter(|entry| entry.r#type == entries::VOID);
    let Some(void) = void.and_then(|entry| pb::Void::decode(entry.body).ok()) else {
        return match at.follow(number, entry) {
            Ok(next) => {
                assert_eq!((next.n, next.h), (number, next_hash(&at.h, entry)));
                check_moved(at, &next);
                (0, next)
            }
            Err(error) => (fate(error), *at),
        };
    };
    let Ok(hash) = Hash::try_from(&void.hash) else { return (9, *at) };
    match at.past_void(number, void.from, void.to, hash) {
        Ok(next) => {
            assert!(void.from == number && next.n == void.to && next.n > at.n && next.h == hash);
            check_moved(at, &next);
            (1, next)
        }
        Err(error) => (fate(error), *at),
    }
}

fn check_moved(before: &Position, after: &Position) {
    assert_eq!(after.incarnation, before.incarnation);
    assert_eq!((after.compare(before), before.compare(after)), (Agreement::Behind, Agreement::Ahead));
    assert_eq!(Position::new(after.incarnation, after.n, after.h), Ok(*after), "it can be told to others");
}

const fn fate(error: PositionError) -> u8 {
    match error {
        PositionError::Zero => 2,
        PositionError::NotNext { .. } => 3,
        PositionError::Exhausted(_) => 4,
        PositionError::Void { .. } => 5,
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let piece =
        |number: u8, entry: &[u8]| [&[number, u8::try_from(entry.len()).expect("short")][..], entry].concat();
    let entry = |kind: u64, body: Vec<u8>| pb::Entry { r#type: kind, body: body.into() }.encode_to_vec();
    let void = |from: u64, to: u64| {
        let body = pb::Void { from, to, reason: 1, hash: vec![5; 32].into() };
        entry(entries::VOID, body.encode_to_vec())
    };
    let plain = entry(0x08, vec![8, 3]);
    vec![
        [piece(0, &plain), piece(0, &plain), piece(0, &plain)].concat(),
        [piece(0, &plain), piece(0, &void(2, 9)), piece(0, &plain)].concat(),
        [piece(0, &void(1, u64::MAX)), piece(0, &plain)].concat(),
        [piece(1, &plain), piece(0, &void(2, 1))].concat(),
    ]
}
