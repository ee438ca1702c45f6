//! Which submissions are under way on one connection: go-back-N over counters (spec 06-messages, 6.2 and
//! 6.3). Pure: the driver reads the store, writes the stream and owns the clock.
//!
//! | event | effect |
//! |---|---|
//! | room, nothing refused | the submissions after [`Window::sent`] go out |
//! | an answer | belongs to the oldest counter under way |
//! | "later" for counter c | nothing new goes out; once all is answered and the time has passed, from c on again |

use std::collections::VecDeque;

use tokio::time::Instant;

/// The submissions under way.
#[derive(Debug)]
pub(crate) struct Window {
    most: usize,
    under_way: VecDeque<u64>,
    sent: u64,
    again_at: Option<Instant>,
}

impl Window {
    /// With at most so many unanswered (MSG-016).
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, under_way: VecDeque::new(), sent: 0, again_at: None }
    }

    /// How many more may go out now.
    pub(crate) fn room(&self) -> usize {
        if self.again_at.is_some() { 0 } else { self.most.saturating_sub(self.under_way.len()) }
    }

    /// The submissions after this counter are the next to go out.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether anything is unanswered.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// A submission went out.
    pub(crate) fn put(&mut self, counter: u64) {
        self.under_way.push_back(counter);
        self.sent = self.sent.max(counter);
    }

    /// An answer came: the counter it is for.
    pub(crate) fn answered(&mut self) -> Option<u64> {
        self.under_way.pop_front()
    }

    /// The answer for this counter was that nothing is taken before a time: it and all after it go out again
    /// then, in order (MSG-017).
    pub(crate) fn later(&mut self, counter: u64, at: Instant) {
        self.sent = self.sent.min(counter.saturating_sub(1));
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.max(at)));
    }

    /// When to go on, if that is only a matter of time.
    pub(crate) fn timer(&self) -> Option<Instant> {
        self.again_at.filter(|_| self.under_way.is_empty())
    }

    /// The time of [`Window::timer`] has come.
    pub(crate) fn go_on(&mut self) {
        self.again_at = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(secs: u64) -> Instant {
        // A point of reference; the tests compare and never wait.
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_secs(secs)
    }

    #[test]
    fn no_more_than_the_window_goes_out() {
        let mut window = Window::new(2);
        window.put(1);
        assert_eq!(window.room(), 1);
        window.put(2);
        assert_eq!((window.room(), window.sent()), (0, 2));
        assert_eq!(window.answered(), Some(1));
        assert_eq!(window.room(), 1);
    }

    #[test]
    fn after_a_later_all_from_the_failed_counter_goes_out_again_once_everything_is_answered() {
        let mut window = Window::new(8);
        (1..=4).for_each(|counter| window.put(counter));
        assert_eq!(window.answered(), Some(1));
        assert_eq!(window.answered(), Some(2));
        window.later(2, at(5));
        assert_eq!((window.room(), window.timer()), (0, None), "two answers are still to come");
        for counter in [3, 4] {
            assert_eq!(window.answered(), Some(counter));
            window.later(counter, at(1));
        }
        assert_eq!((window.timer(), window.sent()), (Some(at(5)), 1));
        window.go_on();
        assert_eq!((window.room(), window.sent(), window.timer()), (8, 1, None));
    }

    proptest! {
        /// A home that takes counters in order and now and then says later gets each exactly once, in order.
        #[test]
        fn every_counter_is_taken_once_and_in_order(most in 1_usize..6, total in 1_u64..20, fails in prop::collection::vec(any::<bool>(), 60)) {
            let mut window = Window::new(most);
            let mut fails = fails.into_iter();
            let (mut taken, mut waiting) = (0, None);
            for _ in 0..400 {
                while window.room() > 0 && window.sent() < total {
                    window.put(window.sent() + 1);
                }
                let Some(counter) = window.answered() else {
                    if window.timer().is_none() { break }
                    waiting = None;
                    window.go_on();
                    continue;
                };
                if counter == taken + 1 && waiting.is_none() && !fails.next().unwrap_or(false) {
                    taken = counter;
                } else if counter > taken {
                    waiting = Some(counter);
                    window.later(counter, at(1));
                }
            }
            prop_assert_eq!(taken, total);
            prop_assert!(window.is_idle());
        }
    }
}
