//! One decision about a group: load it, decide with its lock held, hand what changed to the committer.
//!
//! A decision that does not come to its end (a cancelled request, a store that takes nothing) leaves no group in
//! memory: it is loaded again as the store has it, once all that was handed over before is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message as _;
use tidings_proto::chain::group::GroupState;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::{AccountId, DeviceId, GroupId};
use tidings_proto::pb;

use super::chains::{Known, Named, link_of};
use super::held::Held;
use super::replica::effect::{Effect, Row, Write};
use super::replica::{Context, Loader, Replica, slot_position};
use super::{GROUP_NOTICE, lock};
use crate::messages::lasting;
use crate::node::Shared;
use crate::refusal::Because as _;
use crate::state::{Need, Transaction, Woken, unreadable};
use crate::store::{Commit, GroupCursorRow, GroupEntryRow, GroupWrites};
use crate::telemetry::Chain;

/// Rows read in one step when a group is loaded.
const PAGE: usize = 512;

/// What a decision writes, before it is handed over.
#[derive(Default)]
pub(super) struct Draft {
    writes: GroupWrites,
    rows: Vec<Row>,
    notices: Vec<(AccountId, DeviceId, pb::GroupNotice)>,
    /// Accounts that read the group from now on, from behind this number.
    joined: BTreeMap<AccountId, u64>,
    /// What leaves when it is durable.
    pub(super) effects: Vec<Effect>,
}

/// A decision that was handed over.
pub(super) struct Decided<T> {
    pub(super) value: T,
    pub(super) commit: Commit,
}

impl<T> Decided<T> {
    /// What was decided, once it is durable.
    pub(super) async fn durable(self) -> Result<T, Refusal> {
        self.commit.durable().await?;
        Ok(self.value)
    }
}

impl Shared {
    /// Decides about a group that is here.
    ///
    /// # Errors
    /// `no-such-group`, `unavailable`.
    pub(super) async fn in_group<T>(
        self: &Arc<Self>,
        id: GroupId,
        named: &Named,
        op: impl FnOnce(&mut Replica, &Context<'_>, &Known) -> T,
    ) -> Result<Decided<T>, Refusal> {
        let slot = self.groups.slot(id);
        let mut place = slot.lock().await;
        let Some(mut held) = self.held(id, &mut place).await? else {
            drop(place);
            drop(slot);
            self.groups.forget(id);
            return Err(Code::NO_SUCH_GROUP.into());
        };
        let known = self.known_to(&held.replica, named).await?;
        let before = held.replica.state().clone();
        let value = {
            let context = self.groups.own.context(self.now_ms(), &known);
            op(&mut held.replica, &context, &known)
        };
        let commit = self.conclude(id, &mut held, Some(&before)).await?;
        *place = Some(held);
        Ok(Decided { value, commit })
    }

    /// The chains it takes: those of hub and keepers are always among them.
    pub(super) async fn known_to(&self, replica: &Replica, named: &Named) -> Result<Known, Refusal> {
        let mut named = named.clone();
        let state = replica.state();
        named.servers.insert(state.hub().genesis);
        named.servers.extend(state.keepers().iter().map(|keeper| keeper.genesis));
        named.servers.insert(self.groups.own.me.genesis);
        self.known(&named).await
    }

    /// The group in this place, taken out of it; loaded if it is not in memory.
    pub(super) async fn held(
        &self,
        id: GroupId,
        place: &mut Option<Box<Held>>,
    ) -> Result<Option<Box<Held>>, Refusal> {
        let held = match place.take() {
            Some(held) => Some(held),
            None => self.load_group(id).await?,
        };
        Ok(held.map(|mut held| {
            held.used_ms = self.now_ms();
            held
        }))
    }

    async fn load_group(&self, id: GroupId) -> Result<Option<Box<Held>>, Refusal> {
        self.state.all_so_far().durable().await?;
        let stored = self.state.store().group(id).await.map_err(|error| unreadable(&error))?;
        let Some(stored) = stored else { return Ok(None) };
        let damaged = |error: &dyn std::error::Error| {
            tracing::error!(group = ?id, error = %Chain(error), "a group in the database cannot be read");
            Code::UNAVAILABLE.because("the group cannot be read")
        };
        let loader = Loader::new(stored.parts).map_err(|error| damaged(&error))?;
        let mut rows = Vec::new();
        let mut from = loader.tail_after().saturating_add(1);
        loop {
            let page = self.state.store().group_entries(id, from, PAGE).await;
            let page = page.map_err(|error| unreadable(&error))?;
            let Some(last) = page.last() else { break };
            from = last.seq.saturating_add(1);
            rows.extend(page.into_iter().map(row_of));
        }
        // Links above the base are applied again: the chains that they were judged by stand beside them.
        let mut named = Named::default();
        named.servers.insert(self.groups.own.me.genesis);
        for row in &rows {
            if let Ok(record) = pb::GroupRecord::decode(row.record.clone()) {
                named.records(&[record]);
            }
        }
        let known = self.known(&named).await?;
        let replica = {
            let context = self.groups.own.context(self.now_ms(), &known);
            loader.finish(&context, &rows).map_err(|error| damaged(&error))?
        };
        let stay = u64::from_be_bytes(self.random());
        let mut held = Box::new(Held::new(replica, stay));
        held.readers = stored.readers.into_iter().collect();
        held.cursors = stored.cursors.into_iter().collect();
        Ok(Some(held))
    }

    /// Hands over what a decision changed, and sees to what follows once that is durable.
    ///
    /// # Errors
    /// `unavailable`: the group in hand is to be dropped.
    pub(super) async fn conclude(
        self: &Arc<Self>,
        id: GroupId,
        held: &mut Held,
        before: Option<&GroupState>,
    ) -> Result<Commit, Refusal> {
        let mut draft = self.draft(id, held, before);
        self.back_to_cuts(id, held, &mut draft).await?;
        if draft.is_empty() {
            let commit = self.state.all_so_far();
            self.leave(id, held, &commit, draft.effects);
            return Ok(commit);
        }
        let needs: BTreeSet<Need> = draft
            .notices
            .iter()
            .map(|(account, ..)| *account)
            .chain(draft.joined.keys().copied())
            .map(Need::Account)
            .collect();
        let needs: Vec<Need> = needs.into_iter().collect();
        let effects = std::mem::take(&mut draft.effects);
        let (commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            write(id, held, draft, &mut transaction);
            transaction.commit()
        };
        held.shrink(commit.so_far());
        self.wake_when_durable(&commit, woken);
        self.leave(id, held, &commit, effects);
        Ok(commit)
    }

    /// As [`Self::conclude`], into a transaction that has begun: nothing is waited for. Accounts that are told
    /// something have to be in memory.
    pub(super) fn conclude_in(
        &self,
        id: GroupId,
        held: &mut Held,
        transaction: &mut Transaction<'_>,
    ) -> Vec<Effect> {
        let before = held.replica.state().clone();
        let mut draft = self.draft(id, held, Some(&before));
        let effects = std::mem::take(&mut draft.effects);
        write(id, held, draft, transaction);
        effects
    }

    /// What a call of the replica asked for.
    fn draft(&self, id: GroupId, held: &mut Held, before: Option<&GroupState>) -> Draft {
        let mut draft = Draft::default();
        for effect in held.replica.take_effects() {
            match effect {
                Effect::Write(write) => draft.take(id, held, write, self.now_ms()),
                other => draft.effects.push(other),
            }
        }
        let changed = before.is_none_or(|before| before.head() != held.replica.state().head());
        if changed {
            self.readers(id, held, &mut draft);
        }
        draft
    }

    /// Who reads from now on, and who nothing more after this.
    fn readers(&self, id: GroupId, held: &mut Held, draft: &mut Draft) {
        let domain = &self.config.domain;
        let state = held.replica.state();
        let members: BTreeSet<AccountId> = state
            .members_of(domain)
            .filter(|(_, member)| !member.invited)
            .map(|(account, _)| *account)
            .collect();
        for account in &members {
            if held.readers.get(account).is_none_or(|upto| *upto > 0) {
                let from = draft.seq_of(account, |body| body.accept.is_some() || body.genesis.is_some());
                let from = from.map_or_else(|| held.last(), |seq| seq.saturating_sub(1));
                held.readers.insert(*account, 0);
                draft.writes.readers.insert((id, *account), Some(0));
                draft.joined.insert(*account, from);
            }
        }
        let gone: Vec<AccountId> = held
            .readers
            .iter()
            .filter(|(account, upto)| **upto == 0 && !members.contains(*account))
            .map(|(account, _)| *account)
            .collect();
        for account in gone {
            let upto = draft.seq_of_removal(&account).unwrap_or_else(|| held.last());
            held.readers.insert(account, upto.max(1));
            draft.writes.readers.insert((id, account), Some(upto.max(1)));
        }
    }

    /// Cursors above a cut go back to it.
    async fn back_to_cuts(&self, id: GroupId, held: &mut Held, draft: &mut Draft) -> Result<(), Refusal> {
        let Some(after) = draft.writes.cut.get(&id).copied() else { return Ok(()) };
        let behind: Vec<DeviceId> =
            held.cursors.iter().filter(|(_, cursor)| cursor.seq > after).map(|(device, _)| *device).collect();
        if behind.is_empty() {
            return Ok(());
        }
        let row = match held.row(after).cloned() {
            Some(row) => Some(row),
            None => {
                let rows = self.state.store().group_entries(id, after, 1).await;
                let rows = rows.map_err(|error| unreadable(&error))?;
                rows.into_iter().map(row_of).find(|row| row.seq == after)
            }
        };
        let cursor = row
            .and_then(|row| cursor_at(&row))
            .unwrap_or_else(|| GroupCursorRow { seq: after, ..GroupCursorRow::default() });
        for device in behind {
            held.cursors.insert(device, cursor);
            draft.writes.cursors.insert((id, device), Some(cursor));
        }
        Ok(())
    }

    /// Takes in a group that was not here.
    ///
    /// # Errors
    /// `unavailable`.
    pub(super) async fn enter_group(
        self: &Arc<Self>,
        id: GroupId,
        place: &mut Option<Box<Held>>,
        replica: Replica,
    ) -> Result<Commit, Refusal> {
        let mut held = Box::new(Held::new(replica, u64::from_be_bytes(self.random())));
        held.used_ms = self.now_ms();
        let commit = self.conclude(id, &mut held, None).await?;
        *place = Some(held);
        Ok(commit)
    }

    fn wake_when_durable(self: &Arc<Self>, commit: &Commit, woken: Woken) {
        if woken.devices.is_empty() && woken.domains.is_empty() {
            return;
        }
        let (shared, commit) = (Arc::clone(self), commit.clone());
        self.groups.spawn(async move {
            if commit.durable().await.is_ok() {
                shared.wake(&woken);
            }
        });
    }
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.writes.weight() == 0 && self.notices.is_empty() && self.joined.is_empty() && self.rows.is_empty()
    }

    fn take(&mut self, id: GroupId, held: &mut Held, write: Write, now_ms: u64) {
        match write {
            Write::Reset => {
                self.writes = GroupWrites::default();
                self.writes.gone.insert(id);
                self.rows.clear();
                held.reset();
                for (account, upto) in &held.readers {
                    self.writes.readers.insert((id, *account), Some(*upto));
                }
                for (device, cursor) in &held.cursors {
                    self.writes.cursors.insert((id, *device), Some(*cursor));
                }
            }
            Write::Put { key, value } => drop(self.writes.parts.insert((id, key), Some(value))),
            Write::Delete { key } => drop(self.writes.parts.insert((id, key), None)),
            Write::Append(row) => {
                let stored = GroupEntryRow {
                    seq: row.seq,
                    link: is_link(&row.record),
                    slot: row.slot.clone(),
                    record: row.record.clone(),
                    at_ms: now_ms,
                };
                self.writes.entries.insert((id, row.seq), stored);
                self.rows.push(row);
            }
            Write::Slot { seq, slot } => {
                held.slot(seq, &slot);
                match self.writes.entries.get_mut(&(id, seq)) {
                    Some(row) => row.slot = slot,
                    None => drop(self.writes.slots.insert((id, seq), slot)),
                }
            }
            Write::Truncate { after } => {
                self.rows.retain(|row| row.seq <= after);
                self.writes.entries.retain(|(_, seq), _| *seq <= after);
                self.writes.slots.retain(|(_, seq), _| *seq <= after);
                let mark = self.writes.cut.entry(id).or_insert(after);
                *mark = after.min(*mark);
                held.cut(after);
            }
            Write::Notice { account, device, notice } => self.notices.push((account, device, notice)),
        }
    }

    /// Where among the new records a link of this account stands.
    fn seq_of(&self, account: &AccountId, wanted: impl Fn(&pb::GroupLinkBody) -> bool) -> Option<u64> {
        self.bodies().find(|(_, body)| author_is(body, account) && wanted(body)).map(|(seq, _)| seq)
    }

    /// Where among the new records the account was removed, or left.
    fn seq_of_removal(&self, account: &AccountId) -> Option<u64> {
        let gone = |body: &pb::GroupLinkBody| {
            let removed = body.remove_members.as_ref();
            removed.is_some_and(|removed| removed.accounts.iter().any(|id| id.as_ref() == account.as_bytes()))
                || (body.leave.is_some() && author_is(body, account))
        };
        self.bodies().find(|(_, body)| gone(body)).map(|(seq, _)| seq)
    }

    fn bodies(&self) -> impl Iterator<Item = (u64, pb::GroupLinkBody)> {
        self.rows.iter().filter_map(|row| {
            let record = pb::GroupRecord::decode(row.record.clone()).ok()?;
            let link = link_of(&record)?;
            Some((row.seq, pb::GroupLinkBody::decode(link.body).ok()?))
        })
    }
}

fn is_link(record: &bytes::Bytes) -> bool {
    pb::GroupRecord::decode(record.clone()).is_ok_and(|record| link_of(&record).is_some())
}

fn author_is(body: &pb::GroupLinkBody, account: &AccountId) -> bool {
    body.author.as_ref().is_some_and(|author| author.account.as_ref() == account.as_bytes())
}

/// Puts a draft into a transaction; the records come into memory with its number.
fn write(id: GroupId, held: &mut Held, mut draft: Draft, transaction: &mut Transaction<'_>) {
    for (account, from) in std::mem::take(&mut draft.joined) {
        let cursor = position_at(held, &draft.rows, from);
        for device in transaction.world().current_devices(&account) {
            held.cursors.insert(device, cursor);
            draft.writes.cursors.insert((id, device), Some(cursor));
        }
    }
    for (_, device, notice) in draft.notices {
        transaction.place(device, lasting(GROUP_NOTICE, &notice));
    }
    let (writes, batch) = transaction.writes_and_batch();
    writes.groups.absorb(draft.writes);
    for row in draft.rows {
        held.push(id, row, batch);
    }
}

/// The cursor of somebody who has everything up to a number.
fn position_at(held: &Held, rows: &[Row], seq: u64) -> GroupCursorRow {
    let position = held.replica.position();
    if seq == position.seq {
        return cursor_of(&position.to_pb());
    }
    let row = rows.iter().find(|row| row.seq == seq).or_else(|| held.row(seq));
    row.and_then(cursor_at).unwrap_or_else(|| GroupCursorRow { seq, ..GroupCursorRow::default() })
}

pub(super) fn cursor_of(position: &pb::GroupPosition) -> GroupCursorRow {
    let hash = tidings_proto::id::Hash::try_from(&position.hash).unwrap_or_default();
    GroupCursorRow { term: position.term, seq: position.seq, hash }
}

pub(super) fn cursor_at(row: &Row) -> Option<GroupCursorRow> {
    slot_position(&row.slot).map(|position| cursor_of(&position))
}

pub(super) fn row_of(stored: GroupEntryRow) -> Row {
    Row { seq: stored.seq, slot: stored.slot, record: stored.record }
}

/// The lowest and highest numbers stay with whoever holds the slot's lock; the due time is everybody's.
pub(super) fn note_due(shared: &Shared, id: GroupId, held: &Held) {
    let earlier = lock(&shared.groups.due).set(id, held.replica.deadline());
    if earlier {
        shared.groups.rung.notify_one();
    }
}
