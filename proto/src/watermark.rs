//! Watermarks: how far a lane was delivered and read (chapter 06).
//!
//! A watermark only moves forwards: merging is commutative, associative and idempotent within an
//! epoch, so that it may come late, twice or out of order. A newer epoch replaces an older one.
//!
//! What this module does not do: decide who may see a watermark.

use std::collections::BTreeSet;

use crate::id::Incarnation;

/// Numbers a read watermark may leave out.
pub const EXCEPT_MAX: usize = 16;

/// Which life of a lane a number belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// Address links in the sender's account chain.
    pub address_links: u64,
    /// The sender's home's incarnation.
    pub incarnation: Incarnation,
}

/// How an epoch stands to the one held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochOrder {
    /// Equal.
    Same,
    /// More address links: it replaces the one held.
    Newer,
    /// Fewer address links: to be ignored.
    Older,
    /// Same address links, another incarnation: the home's server chain says which is later.
    OtherIncarnation,
}

impl Epoch {
    /// How `other` stands to this one. Incarnations are random, so their order is not in the bytes;
    /// see [`Self::compare_by`].
    #[must_use]
    pub fn compare(&self, other: &Self) -> EpochOrder {
        match other.address_links.cmp(&self.address_links) {
            std::cmp::Ordering::Greater => EpochOrder::Newer,
            std::cmp::Ordering::Less => EpochOrder::Older,
            std::cmp::Ordering::Equal if self.incarnation == other.incarnation => EpochOrder::Same,
            std::cmp::Ordering::Equal => EpochOrder::OtherIncarnation,
        }
    }

    /// As [`Self::compare`], with the order of incarnations given: the place of each on the server
    /// chain (`None`: not on it). An incarnation not on the chain is neither newer nor older.
    #[must_use]
    pub fn compare_by(&self, other: &Self, place: impl Fn(&Incarnation) -> Option<u64>) -> EpochOrder {
        let order = self.compare(other);
        if order != EpochOrder::OtherIncarnation {
            return order;
        }
        match (place(&self.incarnation), place(&other.incarnation)) {
            (Some(held), Some(told)) if told > held => EpochOrder::Newer,
            (Some(_), Some(_)) => EpochOrder::Older,
            _ => EpochOrder::OtherIncarnation,
        }
    }
}

/// Every number up to here is delivered, or closed and reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Delivered(pub u64);

impl Delivered {
    /// Takes in another; says whether anything moved.
    pub fn merge(&mut self, other: Self) -> bool {
        let moved = other > *self;
        *self = (*self).max(other);
        moved
    }
}

/// Why numbers are not a read watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// More than 16 exceptions.
    #[error("{0} exceptions, more than 16")]
    TooMany(usize),
    /// Exceptions have to ascend, each once.
    #[error("exceptions are not ascending")]
    Order,
    /// An exception is 0 or above the watermark.
    #[error("exception {0} is outside the watermark")]
    Outside(u64),
}

/// Every number up to `n` is read, except these (which may name `n` itself).
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct Read {
    n: u64,
    except: BTreeSet<u64>,
}

impl Read {
    /// Checks what came: exceptions ascending, from 1 to `n`, at most 16.
    ///
    /// # Errors
    /// [`ReadError`] says what is wrong.
    pub fn new(n: u64, except: &[u64]) -> Result<Self, ReadError> {
        if except.len() > EXCEPT_MAX {
            return Err(ReadError::TooMany(except.len()));
        }
        if !except.is_sorted_by(|a, b| a < b) {
            return Err(ReadError::Order);
        }
        if let Some(outside) = except.iter().find(|number| **number == 0 || **number > n) {
            return Err(ReadError::Outside(*outside));
        }
        Ok(Self { n, except: except.iter().copied().collect() })
    }

    /// The highest number read.
    #[must_use]
    pub const fn n(&self) -> u64 {
        self.n
    }

    /// The numbers up to it that are not.
    pub fn except(&self) -> impl Iterator<Item = u64> + '_ {
        self.except.iter().copied()
    }

    /// Whether this number is read.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        number > 0 && number <= self.n && !self.except.contains(&number)
    }

    /// Takes in another: what either has read is read. Says whether anything moved.
    ///
    /// The result has no more exceptions than the one with the higher number, so the bound holds.
    pub fn merge(&mut self, other: &Self) -> bool {
        let n = self.n.max(other.n);
        let except: BTreeSet<u64> = self
            .except
            .union(&other.except)
            .copied()
            .filter(|number| !self.contains(*number) && !other.contains(*number))
            .collect();
        let moved = n != self.n || except != self.except;
        *self = Self { n, except };
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read() -> impl Strategy<Value = Read> {
        (1_u64..40, proptest::collection::btree_set(1_u64..40, 0..16)).prop_map(|(n, except)| {
            let except: Vec<u64> = except.into_iter().filter(|number| *number <= n).collect();
            Read::new(n, &except).unwrap()
        })
    }

    #[test]
    fn delivered_never_goes_back() {
        let mut mark = Delivered(5);
        assert!(!mark.merge(Delivered(3)));
        assert!(mark.merge(Delivered(6)));
        assert_eq!(mark, Delivered(6));
    }

    #[test]
    fn what_is_no_read_watermark_is_refused() {
        assert_eq!(Read::new(5, &[6]), Err(ReadError::Outside(6)));
        assert!(Read::new(5, &[5]).is_ok(), "the watermark's own number can be left out");
        assert_eq!(Read::new(5, &[0]), Err(ReadError::Outside(0)));
        assert_eq!(Read::new(5, &[3, 2]), Err(ReadError::Order));
        assert_eq!(Read::new(5, &[2, 2]), Err(ReadError::Order));
        let many: Vec<u64> = (1..=17).collect();
        assert_eq!(Read::new(50, &many), Err(ReadError::TooMany(17)));
        assert!(Read::new(50, &many[..16]).is_ok());
    }

    #[test]
    fn epochs_order_by_address_links_then_chain() {
        let a = Epoch { address_links: 1, incarnation: Incarnation([1; 16]) };
        let b = Epoch { address_links: 2, incarnation: Incarnation([1; 16]) };
        let c = Epoch { address_links: 1, incarnation: Incarnation([2; 16]) };
        assert_eq!(a.compare(&b), EpochOrder::Newer);
        assert_eq!(b.compare(&a), EpochOrder::Older);
        assert_eq!(a.compare(&c), EpochOrder::OtherIncarnation);
        let place = |life: &Incarnation| Some(u64::from(9 - life.0[0]));
        assert_eq!(a.compare_by(&c, place), EpochOrder::Older);
        assert_eq!(a.compare_by(&c, |_| None), EpochOrder::OtherIncarnation);
    }

    proptest! {
        #[test]
        fn merging_is_the_union_in_any_order(a in read(), b in read()) {
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.merge(&b);
            ba.merge(&a);
            prop_assert_eq!(&ab, &ba);
            for number in 0..41 {
                prop_assert_eq!(ab.contains(number), a.contains(number) || b.contains(number));
            }
            prop_assert!(ab.except.len() <= EXCEPT_MAX);
            prop_assert!(!ab.clone().merge(&b), "a second time changes nothing");
        }
    }
}
