//! What is due by time alone: the replicas' own deadlines, trimming, letting go of groups that nobody uses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidings_proto::group_log::GroupPosition;
use tidings_proto::id::GroupId;
use tidings_proto::pb;

use super::chains::{Known, Named};
use super::held::Held;
use super::lock;
use super::replica::slot_position;
use crate::node::Shared;
use crate::refusal::{Code, Refusal};
use crate::state::unreadable;
use crate::store::GroupWrites;

/// Groups looked at in one step at the start.
const PAGE: usize = 200;
/// How long a group stays in memory that nobody uses.
const IDLE_MS: u64 = 300_000;
/// How often is looked for such.
const LOOK: Duration = Duration::from_secs(60);
/// How long a group is left alone after the store failed it.
const RETRY_MS: u64 = 1000;

/// When each group is due; at most one time a group.
#[derive(Debug, Default)]
pub(super) struct Due {
    times: BTreeSet<(u64, GroupId)>,
    of: HashMap<GroupId, u64>,
}

impl Due {
    /// Sets a group's time. Gives whether it is now the first of all.
    pub(super) fn set(&mut self, id: GroupId, at_ms: Option<u64>) -> bool {
        if let Some(old) = self.of.remove(&id) {
            self.times.remove(&(old, id));
        }
        let Some(at_ms) = at_ms else { return false };
        self.of.insert(id, at_ms);
        self.times.insert((at_ms, id));
        self.times.first() == Some(&(at_ms, id))
    }

    fn next_ms(&self) -> Option<u64> {
        self.times.first().map(|(at_ms, _)| *at_ms)
    }

    fn take(&mut self, now_ms: u64) -> Option<GroupId> {
        let (_, id) = self.times.pop_first().filter(|first| {
            let due = first.0 <= now_ms;
            if !due {
                self.times.insert(*first);
            }
            due
        })?;
        self.of.remove(&id);
        Some(id)
    }
}

/// Looks at all groups once, as what was to be sent when the process ended follows from what is stored; then does
/// what is due, again and again.
pub(crate) async fn keep_time(shared: Arc<Shared>) {
    if let Err(refusal) = shared.begin_groups().await {
        tracing::error!(%refusal, "groups could not be looked at after the start");
    }
    let mut looks = tokio::time::interval(LOOK);
    loop {
        let next_ms = lock(&shared.groups.due).next_ms();
        let now_ms = shared.now_ms();
        let wait = next_ms.map_or(LOOK, |next| Duration::from_millis(next.saturating_sub(now_ms)).min(LOOK));
        tokio::select! {
            () = shared.groups.rung.notified() => {}
            () = tokio::time::sleep(wait) => {}
            _ = looks.tick() => shared.let_go().await,
        }
        loop {
            let Some(id) = lock(&shared.groups.due).take(shared.now_ms()) else { break };
            match shared.time_group(id).await {
                Err(refusal) if refusal.code != Code::NO_SUCH_GROUP => {
                    let again = shared.now_ms().saturating_add(RETRY_MS);
                    lock(&shared.groups.due).set(id, Some(again));
                }
                _ => {}
            }
        }
    }
}

impl Shared {
    /// Does what is due in a group; nobody waits for it to be durable.
    async fn time_group(self: &Arc<Self>, id: GroupId) -> Result<(), Refusal> {
        self.in_group(id, &Named::default(), |replica, context, _| replica.timer(context)).await.map(|_| ())
    }

    async fn begin_groups(self: &Arc<Self>) -> Result<(), Refusal> {
        let mut after = GroupId::ZERO;
        loop {
            let groups = self.state.store().groups(after, PAGE).await.map_err(|error| unreadable(&error))?;
            let Some(last) = groups.last() else { return Ok(()) };
            after = *last;
            for id in groups {
                if let Err(refusal) = self.time_group(id).await {
                    tracing::error!(group = ?id, %refusal, "a group could not be looked at after the start");
                }
            }
        }
    }

    /// Trims what may go, and lets go of groups that nobody used for a while.
    async fn let_go(self: &Arc<Self>) {
        let ids: Vec<GroupId> = lock(&self.groups.slots).keys().copied().collect();
        let durable = self.state.durable();
        for id in ids {
            if let Err(refusal) = self.trim_group(id, self.now_ms()).await {
                tracing::warn!(group = ?id, %refusal, "a group's log could not be trimmed");
            }
            let idle = |held: &Held| {
                let due = lock(&self.groups.due).of.contains_key(&id);
                !due && held.is_durable(durable)
                    && held.used_ms.saturating_add(IDLE_MS) <= self.now_ms()
                    && !self.groups.is_read(held)
            };
            let slot = self.groups.slot(id);
            if let Ok(mut place) = slot.try_lock()
                && place.as_ref().is_some_and(|held| idle(held))
                && let Some(held) = place.take()
                && let Err(refusal) = self.drop_if_gone(id, &held).await
            {
                tracing::warn!(group = ?id, %refusal, "a group that nobody here is in could not be dropped");
            }
            drop(slot);
            self.groups.forget(id);
        }
    }

    /// Nothing is kept of a group that nobody here reads and that this home does not keep for others.
    async fn drop_if_gone(&self, id: GroupId, held: &Held) -> Result<(), Refusal> {
        let known = Known::default();
        let gone = {
            let context = self.groups.own.context(self.now_ms(), &known);
            held.replica.is_gone(&context)
        };
        if !gone || !held.readers.is_empty() || held.replica.pending() > 0 {
            return Ok(());
        }
        let mut transaction = self.state.begin(&[]).await?;
        transaction.writes_and_batch().0.groups.gone.insert(id);
        let _nobody_waits = transaction.commit();
        tracing::info!(group = ?id, "a group that nobody here is in was dropped");
        Ok(())
    }

    /// Drops records that all devices here have and that nothing needs, or that are older or more than is kept.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn trim_group(self: &Arc<Self>, id: GroupId, now_ms: u64) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        let old_ms = now_ms.saturating_sub(limits.group_kept_secs().saturating_mul(1000));
        let older = self.state.store().group_older(id, old_ms).await.map_err(|error| unreadable(&error))?;
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        let Some(held) = place.as_ref() else { return Ok(()) };
        let many = held.last().saturating_sub(limits.group_kept_entries());
        let read = held.cursors.values().map(|cursor| cursor.seq).min();
        // What others lack they are given from any copy.
        let read = read.unwrap_or(0).min(held.replica.stable()).min(held.replica.all_delivered());
        let upto = older.max(many).max(read).min(held.replica.trim_below());
        if upto <= held.replica.first().seq {
            return Ok(());
        }
        let rows = self.state.store().group_entries(id, upto, 1).await.map_err(|error| unreadable(&error))?;
        let row = rows.into_iter().next().filter(|row| row.seq == upto);
        let position = row.and_then(|row| slot_position(&row.slot));
        let Ok(first) = GroupPosition::parse(position.as_ref()) else { return Ok(()) };
        let Some(mut held) = place.take() else { return Ok(()) };
        held.trimmed(upto);
        held.replica.trimmed(first);
        let mut writes = GroupWrites::default();
        // Whoever joins is given the links since the last checkpoint.
        let links = held.replica.page_after(&pb::GroupFetch { from_state: true, ..Default::default() });
        writes.trims.insert(id, (upto, links.saturating_add(1)));
        let (commit, effects) = {
            let mut transaction = self.state.begin(&[]).await?;
            transaction.writes_and_batch().0.groups.absorb(writes);
            let effects = self.conclude_in(id, &mut held, &mut transaction);
            (transaction.commit().0, effects)
        };
        self.leave(id, &held, &commit, effects);
        *place = Some(held);
        Ok(())
    }
}
