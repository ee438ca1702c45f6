//! Watermarks and positions: merging is commutative, associative and idempotent, and loses nothing that was read.

use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::{Agreement, Position};
use tidings_proto::watermark::{Delivered, Epoch, EpochOrder, Read};

use super::{outcome, take_u64};

pub(super) fn run(data: &[u8]) -> u64 {
    let mut rest = data;
    let reads: Vec<_> = (0..3).map(|_| read(&mut rest)).collect();
    let fates: Vec<_> =
        reads.iter().map(|read| read.as_ref().map(|read| read.except().count().min(3))).collect();
    let fate = outcome(fates.iter().map(|fate| fate.map_err(std::mem::discriminant)).collect::<Vec<_>>());
    if let [Ok(a), Ok(b), Ok(c)] = reads.as_slice() {
        check_reads(a, b, c);
    }
    check_delivered(take_u64(&mut rest), take_u64(&mut rest));
    let epoch = check_epochs(&mut rest);
    let position = check_positions(&mut rest);
    outcome((fate, epoch, position))
}

fn read(data: &mut &[u8]) -> Result<Read, tidings_proto::watermark::ReadError> {
    let (count, n) = (take_u64(data) % 20, take_u64(data));
    let except: Vec<u64> = (0..count).map(|_| take_u64(data)).collect();
    Read::new(n, &except)
}

fn merged(a: &Read, b: &Read) -> Read {
    let mut both = a.clone();
    let moved = both.merge(b);
    assert_eq!(moved, both != *a, "merging says whether anything moved");
    both
}

fn check_reads(a: &Read, b: &Read, c: &Read) {
    let both = merged(a, b);
    assert_eq!(both, merged(b, a), "commutative");
    assert_eq!(merged(&both, b), both, "idempotent");
    assert_eq!(merged(&both, c), merged(a, &merged(b, c)), "associative");
    let exceptions: Vec<u64> = both.except().collect();
    assert_eq!(Read::new(both.n(), &exceptions).as_ref(), Ok(&both), "the result can be sent");
    let near = [a.n(), b.n(), 0, 1].into_iter().chain(a.except()).chain(b.except());
    for number in near.flat_map(|number| [number.saturating_sub(1), number, number.saturating_add(1)]) {
        assert_eq!(
            both.contains(number),
            a.contains(number) || b.contains(number),
            "what either has read is read"
        );
    }
}

fn check_delivered(a: u64, b: u64) {
    let mut merged = Delivered(a);
    assert_eq!(merged.merge(Delivered(b)), b > a);
    assert_eq!(merged, Delivered(a.max(b)));
}

fn check_epochs(data: &mut &[u8]) -> u8 {
    let mut epoch = || Epoch { address_links: take_u64(data), incarnation: incarnation(take_u64(data)) };
    let (a, b) = (epoch(), epoch());
    // A server chain gives every incarnation on it a place of its own.
    let place = |of: &Incarnation| {
        let [first, ..] = of.0.as_chunks::<8>().0 else { return None };
        Some(u64::from_be_bytes(*first)).filter(|place| *place < 1 << 63)
    };
    match (a.compare_by(&b, place), b.compare_by(&a, place)) {
        (EpochOrder::Same, EpochOrder::Same) => 0,
        (EpochOrder::Newer, EpochOrder::Older) => 1,
        (EpochOrder::Older, EpochOrder::Newer) => 2,
        (EpochOrder::OtherIncarnation, EpochOrder::OtherIncarnation) => 3,
        (one, other) => panic!("{one:?} one way and {other:?} the other"),
    }
}

fn check_positions(data: &mut &[u8]) -> u8 {
    let (life, n, first) = (take_u64(data), take_u64(data), take_u64(data).to_be_bytes()[0]);
    let Ok(position) = Position::new(incarnation(life), n, Hash([first; 32])) else { return 0 };
    assert_eq!(position.compare(&position), Agreement::Same);
    match position.after(data) {
        Ok(next) => {
            assert_eq!(position.follow(next.n, data), Ok(next));
            assert!(position.follow(n, data).is_err(), "an entry does not follow itself");
            assert_eq!(
                (next.compare(&position), position.compare(&next)),
                (Agreement::Behind, Agreement::Ahead)
            );
            1
        }
        Err(_) => 2,
    }
}

fn incarnation(of: u64) -> Incarnation {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&of.to_be_bytes());
    Incarnation(bytes)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let bytes = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let tail = [5, 6, 1, 1, 2, 1 << 56, 9, 3, 1 << 56, 7];
    let of = |reads: &[u64]| bytes(&[reads, &tail].concat());
    vec![
        of(&[0, 10, 0, 12, 0, 3]),
        of(&[2, 10, 3, 4, 1, 12, 10, 0, 3]),
        of(&[3, 40, 1, 20, 39, 3, 41, 2, 20, 40, 1, 5, 4]),
        of(&[1, u64::MAX, u64::MAX - 1, 0, 0, 1, 2, 1]),
    ]
}
