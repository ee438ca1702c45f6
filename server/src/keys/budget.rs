//! How many bundle fetches take one-time keys: by asking domain, asking account and target, in an hour.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tidings_proto::id::AccountId;

/// Pairs counted at once; beyond it, askers get bundles without one-time keys.
const PAIRS_MAX: usize = 100_000;
const HOUR_MS: u64 = 3_600_000;

/// Who fetches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The domain that asks; `None`: a device here.
    pub domain: Option<String>,
    /// The account that it says it asks for.
    pub account: AccountId,
}

/// Fetches within the hour. In memory: a restart forgives.
#[derive(Debug, Default)]
pub struct FetchBudget {
    counted: Mutex<HashMap<(Asker, AccountId), (u64, u64)>>,
}

impl FetchBudget {
    /// Whether this fetch may take one-time keys.
    #[must_use]
    pub fn take(&self, asker: Asker, target: AccountId, per_hour: u64, now_ms: u64) -> bool {
        let hour = now_ms / HOUR_MS;
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.len() >= PAIRS_MAX {
            counted.retain(|_, (counted_hour, _)| *counted_hour == hour);
            if counted.len() >= PAIRS_MAX {
                return false;
            }
        }
        let (counted_hour, fetches) = counted.entry((asker, target)).or_insert((hour, 0));
        if *counted_hour != hour {
            (*counted_hour, *fetches) = (hour, 0);
        }
        *fetches = fetches.saturating_add(1);
        *fetches <= per_hour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_beyond_the_budget_gets_no_one_time_key_until_the_next_hour() {
        let budget = FetchBudget::default();
        let asker = |byte, domain: Option<&str>| Asker {
            domain: domain.map(str::to_owned),
            account: AccountId([byte; 32]),
        };
        let target = AccountId([9; 32]);
        assert!(budget.take(asker(1, None), target, 1, 0));
        assert!(!budget.take(asker(1, None), target, 1, 0));
        assert!(
            budget.take(asker(1, Some("b.test")), target, 1, 0),
            "another domain has a budget of its own"
        );
        assert!(budget.take(asker(2, None), target, 1, 0));
        assert!(budget.take(asker(1, None), target, 1, HOUR_MS));
    }
}
