//! What a replica waits for, by time.

use std::collections::{BTreeMap, BTreeSet};

use tidings_proto::name::Domain;

/// A thing that is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Ship to this domain again.
    Ship(Domain),
    /// Offer again.
    Offer,
    /// Find the hub lost.
    HubLost,
    /// The campaign took too long, or begins again.
    Campaign,
    /// Tell followers a new stable mark, or marks of members.
    Spread,
    /// Tell the hub marks of own members.
    Marks,
    /// Ask for the state again.
    Resync,
}

/// One time for each thing.
#[derive(Debug, Clone, Default)]
pub(super) struct Timers {
    at: BTreeMap<Timer, u64>,
    order: BTreeSet<(u64, Timer)>,
}

impl Timers {
    /// Sets the time of a thing, whatever it was.
    pub(super) fn set(&mut self, timer: Timer, at_ms: u64) {
        self.clear(&timer);
        self.order.insert((at_ms, timer.clone()));
        self.at.insert(timer, at_ms);
    }

    /// Sets the time of a thing that has none.
    pub(super) fn set_once(&mut self, timer: Timer, at_ms: u64) {
        if !self.at.contains_key(&timer) {
            self.set(timer, at_ms);
        }
    }

    pub(super) fn clear(&mut self, timer: &Timer) -> bool {
        let Some(at) = self.at.remove(timer) else { return false };
        self.order.remove(&(at, timer.clone()));
        true
    }

    pub(super) fn is_set(&self, timer: &Timer) -> bool {
        self.at.contains_key(timer)
    }

    pub(super) fn next(&self) -> Option<u64> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes the first thing that is due.
    pub(super) fn pop(&mut self, now_ms: u64) -> Option<Timer> {
        if self.next()? > now_ms {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.at.remove(&timer);
        Some(timer)
    }
}
