//! Positions in logs and the running hash (chapter 03).
//!
//! `h_n = SHA-256("tidings/1 log" 00 h_{n-1} SHA-256(entry_n))`, `h_0` is zeros. A position names
//! incarnation, number and hash, so that a writer or reader that lost state is found out at once.
//!
//! What this module does not do: hold entries.

use sha2::{Digest as _, Sha256};

use crate::id::{Hash, Incarnation};
use crate::sign::sha256;

const LABEL: &[u8] = b"tidings/1 log\0";

/// The running hash after one more entry, given as its bytes.
#[must_use]
pub fn next_hash(before: &Hash, entry: &[u8]) -> Hash {
    next_hash_of_digest(before, &sha256(entry))
}

/// The running hash after one more entry, given as its SHA-256 (what a `void` keeps of it).
#[must_use]
pub fn next_hash_of_digest(before: &Hash, entry: &Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(LABEL);
    hasher.update(before.0);
    hasher.update(entry.0);
    Hash(hasher.finalize().into())
}

/// A place in a log: after entry `n` of this incarnation, whose running hash is `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The writer's life.
    pub incarnation: Incarnation,
    /// Entries up to here; 0 before the first.
    pub n: u64,
    /// Running hash at `n`; zeros at 0.
    pub h: Hash,
}

/// Why a position cannot follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Number 0 with a hash.
    #[error("the hash at number 0 is zeros")]
    Zero,
    /// Not the next number.
    #[error("entry {got} where {expected} was expected")]
    NotNext {
        /// The next number.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// The log is at the last number.
    #[error("no number after {0}")]
    Exhausted(u64),
    /// A Void that is shipped under another number than its first, or ends before it begins.
    #[error("void of {from} to {to} under number {number}")]
    Void {
        /// The number it came with.
        number: u64,
        /// Its first number.
        from: u64,
        /// Its last number.
        to: u64,
    },
}

/// What two positions say about the one log they claim to be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Equal.
    Same,
    /// The other one is earlier; whether it is on this log only the hash stored at its number tells.
    Behind,
    /// The other one is later than this log's end: state was lost here.
    Ahead,
    /// Same number, other hash: state was lost on one side.
    OtherHash,
    /// Another life of the writer.
    OtherIncarnation,
}

impl Position {
    /// Before the first entry.
    #[must_use]
    pub const fn start(incarnation: Incarnation) -> Self {
        Self { incarnation, n: 0, h: Hash::ZERO }
    }

    /// A position as told by someone.
    ///
    /// # Errors
    /// [`PositionError::Zero`] for number 0 with another hash than zeros. Any hash can stand at other numbers:
    /// whether it is the log's is for [`Self::compare`] to say.
    pub fn new(incarnation: Incarnation, n: u64, h: Hash) -> Result<Self, PositionError> {
        if n > 0 || h.is_zero() { Ok(Self { incarnation, n, h }) } else { Err(PositionError::Zero) }
    }

    /// The position after one more entry.
    ///
    /// # Errors
    /// [`PositionError::Exhausted`] after 2^64 - 1 entries.
    pub fn after(&self, entry: &[u8]) -> Result<Self, PositionError> {
        let n = self.n.checked_add(1).ok_or(PositionError::Exhausted(self.n))?;
        Ok(Self { incarnation: self.incarnation, n, h: next_hash(&self.h, entry) })
    }

    /// The position after an entry that came with its number.
    ///
    /// # Errors
    /// [`PositionError::NotNext`] if the number is not the next, [`PositionError::Exhausted`].
    pub fn follow(&self, number: u64, entry: &[u8]) -> Result<Self, PositionError> {
        let next = self.after(entry)?;
        if number == next.n {
            Ok(next)
        } else {
            Err(PositionError::NotNext { expected: next.n, got: number })
        }
    }

    /// The position after a Void that came with a number: its last number, under the hash that it states.
    ///
    /// # Errors
    /// [`PositionError::NotNext`] if the number is not the next, [`PositionError::Void`] if the Void is not of the
    /// numbers from it on, [`PositionError::Exhausted`].
    pub fn past_void(&self, number: u64, from: u64, to: u64, hash: Hash) -> Result<Self, PositionError> {
        let expected = self.n.checked_add(1).ok_or(PositionError::Exhausted(self.n))?;
        if number != expected {
            return Err(PositionError::NotNext { expected, got: number });
        }
        if from != number || to < from {
            return Err(PositionError::Void { number, from, to });
        }
        Ok(Self { incarnation: self.incarnation, n: to, h: hash })
    }

    /// Compares the end of a log (`self`) with what another says to have of it.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Agreement {
        if self.incarnation != other.incarnation {
            return Agreement::OtherIncarnation;
        }
        match other.n.cmp(&self.n) {
            std::cmp::Ordering::Less => Agreement::Behind,
            std::cmp::Ordering::Greater => Agreement::Ahead,
            std::cmp::Ordering::Equal if self.h == other.h => Agreement::Same,
            std::cmp::Ordering::Equal => Agreement::OtherHash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hash_runs_over_label_hash_and_digest() {
        let mut input = b"tidings/1 log\0".to_vec();
        input.extend_from_slice(&[0; 32]);
        input.extend_from_slice(&sha256(b"one").0);
        assert_eq!(next_hash(&Hash::ZERO, b"one"), sha256(&input));
    }

    #[test]
    fn positions_follow_one_by_one() {
        let start = Position::start(Incarnation([1; 16]));
        let one = start.follow(1, b"one").unwrap();
        assert_eq!(one.n, 1);
        assert_eq!(start.follow(2, b"one"), Err(PositionError::NotNext { expected: 1, got: 2 }));
        assert_eq!(one.follow(1, b"one"), Err(PositionError::NotNext { expected: 2, got: 1 }));
        let last = Position { n: u64::MAX, ..one };
        assert_eq!(last.after(b""), Err(PositionError::Exhausted(u64::MAX)));
    }

    #[test]
    fn lost_state_shows() {
        let start = Position::start(Incarnation([1; 16]));
        let one = start.after(b"one").unwrap();
        let other = start.after(b"other").unwrap();
        assert_eq!(one.compare(&one), Agreement::Same);
        assert_eq!(one.compare(&start), Agreement::Behind);
        assert_eq!(start.compare(&one), Agreement::Ahead);
        assert_eq!(one.compare(&other), Agreement::OtherHash);
        assert_eq!(one.compare(&Position::start(Incarnation([2; 16]))), Agreement::OtherIncarnation);
    }

    #[test]
    fn a_void_leads_to_its_last_number_and_hash() {
        let one = Position::start(Incarnation([1; 16])).after(b"one").unwrap();
        let five = Position { n: 5, h: Hash([5; 32]), ..one };
        assert_eq!(one.past_void(2, 2, 5, five.h), Ok(five));
        assert_eq!(one.past_void(2, 2, 2, five.h).map(|p| p.n), Ok(2));
        assert_eq!(one.past_void(3, 3, 5, five.h), Err(PositionError::NotNext { expected: 2, got: 3 }));
        assert_eq!(one.past_void(2, 1, 5, five.h), Err(PositionError::Void { number: 2, from: 1, to: 5 }));
        assert_eq!(one.past_void(2, 2, 1, five.h), Err(PositionError::Void { number: 2, from: 2, to: 1 }));
        let last = Position { n: u64::MAX, ..one };
        assert_eq!(last.past_void(0, 0, 1, five.h), Err(PositionError::Exhausted(u64::MAX)));
    }

    #[test]
    fn only_zeros_stand_at_the_start() {
        let life = Incarnation([1; 16]);
        assert_eq!(Position::new(life, 0, Hash([1; 32])), Err(PositionError::Zero));
        assert!(Position::new(life, 1, Hash::ZERO).is_ok(), "not the log's hash, but well-formed");
        assert!(Position::new(life, 0, Hash::ZERO).is_ok());
    }

    proptest! {
        #[test]
        fn a_position_only_moves_to_what_follows(n: u64, h: [u8; 32], number: u64, from: u64, to: u64, entry: Vec<u8>) {
            let life = Incarnation([1; 16]);
            if let Ok(at) = Position::new(life, n, Hash(h)) {
                let followed = at.follow(number, &entry);
                prop_assert_eq!(followed.is_ok(), n.checked_add(1) == Some(number));
                let past = at.past_void(number, from, to, Hash(h));
                prop_assert_eq!(past.is_ok(), n.checked_add(1) == Some(number) && from == number && to >= from);
                for next in [followed, past].into_iter().flatten() {
                    prop_assert_eq!(next.compare(&at), Agreement::Behind);
                    prop_assert_eq!(at.compare(&next), Agreement::Ahead);
                }
            } else {
                prop_assert!(n == 0 && h != [0; 32]);
            }
        }

        #[test]
        fn a_void_of_the_next_numbers_is_followed(n in 0_u64..u64::MAX, length in 0_u64..1000, h: [u8; 32]) {
            let at = Position { incarnation: Incarnation([1; 16]), n, h: Hash::ZERO };
            let to = (n + 1).saturating_add(length);
            let past = at.past_void(n + 1, n + 1, to, Hash(h));
            prop_assert_eq!(past, Ok(Position { n: to, h: Hash(h), ..at }));
        }
    }
}
