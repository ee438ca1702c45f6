//! How far members are: coalesced at their home, counted at the hub (chapter 07).
//!
//! Marks are latest-wins facts of little weight: they are stored at the hub when they are spread, and told again by
//! homes whenever a term begins. `all_delivered` and `all_read` never go back for one reader.

use std::collections::BTreeMap;

use bytes::Bytes;
use tidings_proto::id::AccountId;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::effect::{Effect, Request};
use super::timers::Timer;
use super::{Context, Flight, Replica, stored};

/// Marks of members, and of all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Marks {
    table: BTreeMap<AccountId, (u64, u64)>,
    changed: BTreeMap<AccountId, ()>,
    all: (u64, u64),
    /// A home told more than it is known to have taken: its answer is on the way.
    ahead: bool,
}

impl Marks {
    pub(super) const fn all(&self) -> (u64, u64) {
        self.all
    }

    pub(super) fn load(&mut self, account: AccountId, delivered: u64, read: u64) {
        self.table.insert(account, (delivered, read));
    }

    /// Raises a mark; whether it changed.
    fn raise(&mut self, account: AccountId, delivered: u64, read: u64) -> bool {
        let mark = self.table.entry(account).or_default();
        // Who read it has it: the acknowledgement of the device may come later.
        let raised = (mark.0.max(delivered).max(read), mark.1.max(read));
        let changed = *mark != raised;
        *mark = raised;
        if changed {
            self.changed.insert(account, ());
        }
        changed
    }

    /// Nothing above `seq` was delivered: it is void.
    pub(super) fn cut(&mut self, seq: u64) {
        for (delivered, read) in self.table.values_mut() {
            *delivered = (*delivered).min(seq);
            *read = (*read).min(seq);
        }
        self.all = (self.all.0.min(seq), self.all.1.min(seq));
    }
}

impl Replica {
    /// Every member has everything up to here, as far as is known.
    #[must_use]
    pub const fn all_delivered(&self) -> u64 {
        self.marks.all.0
    }

    /// Every member read up to here, as far as is known.
    #[must_use]
    pub const fn all_read(&self) -> u64 {
        self.marks.all.1
    }

    /// A member of this home has, or read, everything up to these numbers.
    pub fn mark(&mut self, cx: &Context<'_>, account: &AccountId, delivered: u64, read: u64) {
        let end = self.history.end().seq;
        let here = self.state().full_member(account).is_some_and(|member| member.domain == *cx.domain());
        if here && self.marks.raise(*account, delivered.min(end), read.min(end)) {
            let at = cx.now_ms.saturating_add(cx.limits.marks_ms);
            let hub = *self.state().hub() == cx.own.signer.server;
            self.timers.set_once(if hub { Timer::Spread } else { Timer::Marks }, at);
        }
    }

    /// Marks that a member's home tells the hub. Others' members are passed over; what the home has not taken counts once
    /// it has.
    pub fn marks(&mut self, cx: &Context<'_>, from: &Domain, marks: &pb::GroupMarks) {
        let end = self.history.end().seq;
        for mark in &marks.marks {
            let Ok(account) = AccountId::try_from(&mark.account) else { continue };
            let theirs = self.state().full_member(&account).is_some_and(|member| member.domain == *from);
            if theirs && self.marks.raise(account, mark.delivered.min(end), mark.read.min(end)) {
                self.timers.set_once(Timer::Spread, cx.now_ms.saturating_add(cx.limits.marks_ms));
            }
        }
    }

    /// How far each member is.
    #[must_use]
    pub fn marks_table(&self) -> Vec<pb::MemberMark> {
        let of = |(account, (delivered, read)): (&AccountId, &(u64, u64))| pb::MemberMark {
            account: account.to_bytes(),
            delivered: *delivered,
            read: *read,
        };
        self.marks.table.iter().map(of).collect()
    }

    /// As hub, before marks are spread: the least of all members, and what changed is stored.
    pub(super) fn count_marks(&mut self) {
        let state = self.history.state().clone();
        self.marks.table.retain(|account, _| state.full_member(account).is_some());
        let mut all = (u64::MAX, u64::MAX);
        self.marks.ahead = false;
        for (account, member) in state.members() {
            if !member.invited {
                let mark = self.marks.table.get(account).copied().unwrap_or_default();
                let taken = self.followers.get(&member.domain).map(|follower| follower.taken.seq);
                let most =
                    taken.unwrap_or_else(|| if member.domain == state.hub().domain { u64::MAX } else { 0 });
                self.marks.ahead |= mark.0 > most;
                all = (all.0.min(mark.0.min(most)), all.1.min(mark.1.min(most)));
            }
        }
        if all.0 != u64::MAX {
            self.marks.all = (self.marks.all.0.max(all.0), self.marks.all.1.max(all.1));
        }
        for account in std::mem::take(&mut self.marks.changed).into_keys() {
            if let Some((delivered, read)) = self.marks.table.get(&account) {
                let value = [delivered.to_be_bytes(), read.to_be_bytes()].concat();
                self.put(stored::mark_key(&account), Bytes::from(value));
            }
        }
        self.effects.push(Effect::Wake);
    }

    /// A follower's home has more than before: what it told ahead of that counts now.
    pub(super) fn marks_caught_up(&mut self, now_ms: u64, wait_ms: u64) {
        if std::mem::take(&mut self.marks.ahead) {
            self.timers.set_once(Timer::Spread, now_ms.saturating_add(wait_ms));
        }
    }

    /// As member's home: tells the hub.
    pub(super) fn tell_marks(&mut self, cx: &Context<'_>) {
        let changed = std::mem::take(&mut self.marks.changed);
        let of = |account: &AccountId| {
            let (delivered, read) = self.marks.table.get(account).copied()?;
            Some(pb::MemberMark { account: account.to_bytes(), delivered, read })
        };
        let marks: Vec<pb::MemberMark> = changed.keys().filter_map(of).collect();
        if !marks.is_empty() && *self.state().hub() != cx.own.signer.server {
            let hub = self.state().hub().domain.clone();
            let request = pb::GroupMarks { group: self.group.to_bytes(), marks };
            self.send(hub, Request::Marks(request), Flight::Marks);
        }
    }

    /// Own members' marks are told to the next hub again.
    pub(super) fn tell_all_marks(&mut self, cx: &Context<'_>) {
        self.marks.changed = self.marks.table.keys().map(|account| (*account, ())).collect();
        if !self.marks.changed.is_empty() {
            self.timers.set_once(Timer::Marks, cx.now_ms.saturating_add(cx.limits.marks_ms));
        }
    }

    pub(super) fn heard_marks(&mut self, delivered: u64, read: u64) {
        let all = (self.marks.all.0.max(delivered), self.marks.all.1.max(read));
        if self.marks.all != all {
            self.marks.all = all;
            self.effects.push(Effect::Wake);
        }
    }
}
