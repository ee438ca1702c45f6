//! How an outbox goes on where the peer is (chapter 09, 9.6, the steps of the resume).

use tidings_proto::id::Hash;

use super::{Looking, Phase, Storing, Tokens, Writer};
use crate::link::Order;

impl Writer {
    /// The steps of 9.6, as far as they go without asking the store.
    pub(super) fn poll_resume(&mut self, tokens: &mut Tokens) -> Option<Order> {
        if let Some(held) = self.held.take() {
            return self.go_on(held, tokens);
        }
        match self.told.as_ref()?.taken {
            None if self.outbox.done == 0 => {
                self.told = None;
                self.ship_from((0, Hash::ZERO));
                None
            }
            Some(taken) if taken.incarnation == self.outbox.incarnation => {
                if taken.n == 0 {
                    self.go_on(Some(Hash::ZERO), tokens)
                } else {
                    let token = tokens.next();
                    self.looking = Some((token, Looking::Resume));
                    Some(Order::Check { token, n: taken.n })
                }
            }
            _ => self.restart(tokens, false),
        }
    }

    pub(super) fn restart(&mut self, tokens: &mut Tokens, conflict: bool) -> Option<Order> {
        let told = self.told.take()?;
        let previous = told.taken.map_or(self.outbox.incarnation, |taken| taken.incarnation);
        let token = tokens.next();
        self.storing = Some((token, Storing::Restart { life: self.life, previous }));
        Some(Order::Restart { token, told, conflict })
    }

    /// The peer has the present incarnation up to a number whose running hash is this one.
    pub(super) fn go_on(&mut self, hash: Option<Hash>, tokens: &mut Tokens) -> Option<Order> {
        let taken = self.told.as_ref().and_then(|told| told.taken)?;
        if hash != Some(taken.h) {
            return self.restart(tokens, true);
        }
        let refusals = self.told.take().map(|told| told.refusals).unwrap_or_default();
        if taken.n > self.outbox.done || !refusals.is_empty() {
            self.settle(taken.n, refusals);
        } else if taken.n > 0 {
            self.seen_due = Some(taken.n);
        }
        self.ship_from((taken.n, taken.h));
        None
    }

    pub(super) fn ship_from(&mut self, acked: (u64, Hash)) {
        self.acked = acked;
        self.phase = Phase::Shipping;
        self.forget_sent();
        self.broken = self.broken.filter(|(n, _)| *n > acked.0);
    }
}
