//! Budgets: requests of a peer, and first contacts with domains never met (chapter 09, LIM-010 and LIM-011).
//!
//! A first contact makes this home look a domain up and knock at its door. Each is counted for the account that
//! wants it, for the home, and for what one operator of many names shares: the registrable domain, taken as the last
//! two labels, or the source prefix. What others make this home do, and what its own users do, is counted apart.
//!
//! What this module does not do: read the clock.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::AccountId;
use tidings_proto::name::Domain;

use crate::prefix::Prefix;

/// Budgets kept of each kind; beyond it the one that is nearest to full is forgotten.
const KEPT_MAX: usize = 4096;

/// So many in a time, all of them at once if nothing was taken before.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    count: u64,
    within_ms: u64,
}

impl Rate {
    pub(crate) const fn per_second(count: u64) -> Self {
        // Ten seconds' worth at once.
        Self { count: count.saturating_mul(10), within_ms: 10_000 }
    }

    pub(crate) const fn per_minute(count: u64) -> Self {
        Self { count, within_ms: 60_000 }
    }

    pub(crate) const fn per_hour(count: u64) -> Self {
        Self { count, within_ms: 3_600_000 }
    }

    /// What a budget that is full again at `full_at_us` becomes when one is taken.
    fn take(self, full_at_us: u64, now_ms: u64) -> Result<u64, Duration> {
        let (now_us, within_us) = (now_ms.saturating_mul(1000), self.within_ms.saturating_mul(1000));
        let one_us = within_us.checked_div(self.count).unwrap_or(within_us);
        let after = full_at_us.max(now_us).saturating_add(one_us);
        match after.saturating_sub(now_us).checked_sub(within_us) {
            None | Some(0) => Ok(after),
            Some(too_early_us) => Err(Duration::from_micros(too_early_us)),
        }
    }
}

/// One budget.
#[derive(Debug)]
pub(crate) struct Budget {
    rate: Rate,
    full_at_us: u64,
}

impl Budget {
    pub(crate) const fn new(rate: Rate) -> Self {
        Self { rate, full_at_us: 0 }
    }

    /// Takes one; else says how long until there is one.
    pub(crate) fn take(&mut self, now_ms: u64) -> Result<(), Duration> {
        self.full_at_us = self.rate.take(self.full_at_us, now_ms)?;
        Ok(())
    }
}

/// A budget for each key.
#[derive(Debug)]
struct Budgets<K> {
    rate: Rate,
    full_at_us: BTreeMap<K, u64>,
}

impl<K: Ord + Clone> Budgets<K> {
    const fn new(rate: Rate) -> Self {
        Self { rate, full_at_us: BTreeMap::new() }
    }

    /// What [`Self::put`] is to be given; nothing is taken yet.
    fn look(&self, key: &K, now_ms: u64) -> Result<u64, Duration> {
        self.rate.take(self.full_at_us.get(key).copied().unwrap_or(0), now_ms)
    }

    fn put(&mut self, key: K, full_at_us: u64, now_ms: u64) {
        if self.full_at_us.len() >= KEPT_MAX {
            let now_us = now_ms.saturating_mul(1000);
            self.full_at_us.retain(|_, full_at_us| *full_at_us > now_us);
        }
        if self.full_at_us.len() >= KEPT_MAX {
            let fullest = self.full_at_us.iter().min_by_key(|(_, full_at_us)| **full_at_us);
            if let Some(fullest) = fullest.map(|(key, _)| key.clone()) {
                self.full_at_us.remove(&fullest);
            }
        }
        self.full_at_us.insert(key, full_at_us);
    }
}

/// The last two labels of a domain.
fn registrable(domain: &Domain) -> String {
    let name = domain.as_str();
    let at = name.rmatch_indices('.').nth(1).map_or(0, |(dot, _)| dot.saturating_add(1));
    name.get(at..).unwrap_or(name).to_owned()
}

/// How many first contacts there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstContactRates {
    pub(crate) of_account: Rate,
    pub(crate) of_home: Rate,
    pub(crate) shared: Rate,
}

/// Counts first contacts.
#[derive(Debug)]
pub(crate) struct FirstContacts {
    home: Budget,
    accounts: Budgets<AccountId>,
    domains: Budgets<String>,
    strangers: Budget,
    stranger_domains: Budgets<String>,
    stranger_sources: Budgets<Prefix>,
}

fn spent(wait: Duration) -> Refusal {
    Refusal::new(Code::TOO_FAST, "too many new domains").after(wait)
}

impl FirstContacts {
    pub(crate) const fn new(rates: FirstContactRates) -> Self {
        Self {
            home: Budget::new(rates.of_home),
            accounts: Budgets::new(rates.of_account),
            domains: Budgets::new(rates.shared),
            strangers: Budget::new(rates.of_home),
            stranger_domains: Budgets::new(rates.shared),
            stranger_sources: Budgets::new(rates.shared),
        }
    }

    /// Takes a place for a domain that an account here, or the home itself, wants. A refusal takes nothing, so that
    /// one account's haste costs the others nothing.
    pub(crate) fn wanted(
        &mut self,
        account: Option<AccountId>,
        domain: &Domain,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let domain = registrable(domain);
        let of_account = account.map(|account| self.accounts.look(&account, now_ms)).transpose();
        let of_account = of_account.map_err(spent)?;
        let of_domain = self.domains.look(&domain, now_ms).map_err(spent)?;
        self.home.take(now_ms).map_err(spent)?;
        if let (Some(account), Some(after)) = (account, of_account) {
            self.accounts.put(account, after, now_ms);
        }
        self.domains.put(domain, of_domain, now_ms);
        Ok(())
    }

    /// Takes a place for a home that has connected and has to be looked up.
    pub(crate) fn knocked(&mut self, domain: &Domain, source: IpAddr, now_ms: u64) -> Result<(), Refusal> {
        let (domain, source) = (registrable(domain), Prefix::from(source));
        let of_domain = self.stranger_domains.look(&domain, now_ms).map_err(spent)?;
        let of_source = self.stranger_sources.look(&source, now_ms).map_err(spent)?;
        self.strangers.take(now_ms).map_err(spent)?;
        self.stranger_domains.put(domain, of_domain, now_ms);
        self.stranger_sources.put(source, of_source, now_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: FirstContactRates = FirstContactRates {
        of_account: Rate::per_hour(3),
        of_home: Rate::per_minute(10),
        shared: Rate::per_hour(4),
    };

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn account(n: u8) -> Option<AccountId> {
        Some(AccountId([n; 32]))
    }

    #[test]
    fn a_budget_is_spent_at_once_and_fills_again_evenly() {
        let mut budget = Budget::new(Rate::per_hour(3));
        for _ in 0..3 {
            budget.take(1_000_000).unwrap();
        }
        assert_eq!(budget.take(1_000_000), Err(Duration::from_secs(1200)));
        assert!(budget.take(1_000_000 + 1_200_000).is_ok());
        assert!(budget.take(1_000_000 + 1_200_000).is_err());
        let mut none = Budget::new(Rate::per_hour(0));
        assert!(none.take(0).is_ok_and(|()| none.take(0).is_err()), "no rate is a rate of one");
    }

    #[test]
    fn an_accounts_haste_costs_the_others_nothing() {
        let mut contacts = FirstContacts::new(RATES);
        for n in 0..3 {
            contacts.wanted(account(1), &domain(&format!("d{n}.example{n}.org")), 0).unwrap();
        }
        for n in 0..50 {
            let refusal = contacts.wanted(account(1), &domain(&format!("{n}.net")), 0).unwrap_err();
            assert_eq!(refusal.code, Code::TOO_FAST);
            assert!(refusal.retry_after.is_some());
        }
        assert!(contacts.wanted(account(2), &domain("fresh.org"), 0).is_ok());
        assert!(contacts.wanted(None, &domain("fresher.org"), 0).is_ok());
    }

    #[test]
    fn the_home_has_a_budget_of_its_own() {
        let mut contacts = FirstContacts::new(RATES);
        let met =
            (0..20_u8).filter(|n| contacts.wanted(account(*n), &domain(&format!("{n}.net")), 0).is_ok());
        assert_eq!(met.count(), 10);
        assert!(
            contacts.wanted(account(99), &domain("later.net"), 6000).is_ok(),
            "a place every six seconds"
        );
    }

    #[test]
    fn domains_under_one_registrable_domain_share_a_budget() {
        let mut contacts = FirstContacts::new(RATES);
        let met = (0..9_u8)
            .filter(|n| contacts.wanted(account(*n), &domain(&format!("x{n}.y.many.example")), 0).is_ok());
        assert_eq!(met.count(), 4);
        assert!(contacts.wanted(account(1), &domain("one.other.example"), 0).is_ok());
        assert_eq!(registrable(&domain("a.b.c.example")), "c.example");
        assert_eq!(registrable(&domain("c.example")), "c.example");
    }

    #[test]
    fn homes_of_one_prefix_share_a_budget_whatever_they_are_called() {
        let mut contacts = FirstContacts::new(RATES);
        let from = |last: u8| IpAddr::from([198, 51, 100, last]);
        let met = (0..9_u8).filter(|n| contacts.knocked(&domain(&format!("d{n}.org")), from(*n), 0).is_ok());
        assert_eq!(met.count(), 4);
        assert!(contacts.knocked(&domain("e.org"), IpAddr::from([198, 51, 101, 1]), 0).is_ok());
        let v6 = |text: &str| Prefix::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(v6("2001:db8:1:1ff::1"), v6("2001:db8:1:100::2"));
        assert_ne!(v6("2001:db8:1:1ff::1"), v6("2001:db8:1:2ff::1"));
        assert_eq!(v6("::ffff:198.51.100.7"), Prefix::V4([198, 51, 100]));
        let own = contacts.wanted(account(1), &domain("mine.org"), 0);
        assert!(own.is_ok(), "what strangers do costs the users nothing");
    }

    #[test]
    fn no_more_budgets_are_kept_than_there_is_room_for() {
        let mut budgets = Budgets::new(Rate::per_hour(2));
        for n in 0..10_000_u64 {
            let after = budgets.look(&n, n).unwrap();
            budgets.put(n, after, n);
        }
        assert_eq!(budgets.full_at_us.len(), KEPT_MAX);
        let after = budgets.look(&1, 10_000_000).unwrap();
        budgets.put(1, after, 10_000_000);
        assert_eq!(budgets.full_at_us.len(), 1, "those that are full again are forgotten first");
    }
}
