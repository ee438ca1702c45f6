//! Budgets of connections: how many unproven ones a source may hold, how many requests a proven one may make.
//!
//! Pure but for the lock around the table; time is an argument.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidings_federation::prefix::Prefix;

/// Counts unproven and candidate connections by source prefix.
#[derive(Debug, Clone)]
pub struct SourceBudget {
    limit: u64,
    held: Arc<Mutex<HashMap<Prefix, u64>>>,
}

/// One place in the budget; given back when dropped.
#[derive(Debug)]
pub struct Place {
    prefix: Prefix,
    held: Arc<Mutex<HashMap<Prefix, u64>>>,
}

impl SourceBudget {
    /// At most `limit` places a prefix.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, held: Arc::default() }
    }

    /// Takes a place, if one is left.
    #[must_use]
    pub fn take(&self, prefix: Prefix) -> Option<Place> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(prefix).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count = count.saturating_add(1);
        drop(held);
        Some(Place { prefix, held: Arc::clone(&self.held) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.prefix) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.prefix);
            }
        }
    }
}

/// A token bucket in thousandths: `rate` a second, a burst of ten times that.
#[derive(Debug, Clone)]
pub struct RequestBudget {
    rate: u64,
    thousandths: u64,
    filled_at_ms: u64,
}

impl RequestBudget {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: u64, now_ms: u64) -> Self {
        Self { rate, thousandths: rate.saturating_mul(10_000), filled_at_ms: now_ms }
    }

    /// Takes one request; if none is left, says how many milliseconds until there is one.
    ///
    /// # Errors
    /// The wait, in milliseconds.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u32> {
        let passed = now_ms.saturating_sub(self.filled_at_ms);
        self.filled_at_ms = self.filled_at_ms.max(now_ms);
        let full = self.rate.saturating_mul(10_000);
        self.thousandths = self.thousandths.saturating_add(passed.saturating_mul(self.rate)).min(full);
        match self.thousandths.checked_sub(1000) {
            Some(rest) => {
                self.thousandths = rest;
                Ok(())
            }
            None => {
                let missing = 1000_u64.saturating_sub(self.thousandths);
                Err(u32::try_from(missing.div_ceil(self.rate.max(1)).max(1)).unwrap_or(u32::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn a_place_comes_back_when_dropped() {
        let budget = SourceBudget::new(1);
        let prefix = Prefix::from(IpAddr::from([127, 0, 0, 1]));
        let place = budget.take(prefix);
        assert!(place.is_some());
        assert!(budget.take(Prefix::from(IpAddr::from([127, 0, 0, 9]))).is_none(), "same /24");
        assert!(budget.take(Prefix::from(IpAddr::from([127, 0, 1, 1]))).is_some());
        drop(place);
        assert!(budget.take(prefix).is_some());
    }

    #[test]
    fn requests_have_a_burst_and_then_a_rate() {
        let mut budget = RequestBudget::new(10, 0);
        for _ in 0..100 {
            assert_eq!(budget.take(0), Ok(()));
        }
        assert_eq!(budget.take(0), Err(100));
        assert_eq!(budget.take(100), Ok(()));
        assert!(budget.take(100).is_err());
    }
}
