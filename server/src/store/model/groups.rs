//! Groups in the model.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tidings_proto::id::{AccountId, DeviceId, GroupId};

use super::{ModelStore, put};
use crate::store::{GroupCursorRow, GroupEntryRow, GroupStore, GroupWrites, Later, StoredGroup};

#[derive(Default)]
pub(super) struct Tables {
    parts: BTreeMap<(GroupId, Bytes), Bytes>,
    entries: BTreeMap<(GroupId, u64), GroupEntryRow>,
    readers: BTreeMap<(GroupId, AccountId), u64>,
    cursors: BTreeMap<(GroupId, DeviceId), GroupCursorRow>,
}

impl Tables {
    pub(super) fn commit(&mut self, writes: &GroupWrites) {
        let gone = |id: &GroupId| writes.gone.contains(id);
        self.parts.retain(|(id, _), _| !gone(id));
        self.readers.retain(|(id, _), _| !gone(id));
        self.cursors.retain(|(id, _), _| !gone(id));
        self.entries.retain(|(id, seq), row| {
            !gone(id)
                && writes.cut.get(id).is_none_or(|after| seq <= after)
                && writes.trims.get(id).is_none_or(|(upto, links)| seq > upto || (row.link && seq >= links))
        });
        for (place, slot) in &writes.slots {
            if let Some(row) = self.entries.get_mut(place) {
                row.slot = slot.clone();
            }
        }
        self.entries.extend(writes.entries.clone());
        put(&mut self.parts, &writes.parts);
        put(&mut self.readers, &writes.readers);
        put(&mut self.cursors, &writes.cursors);
    }

    fn of(&self, id: GroupId) -> impl Iterator<Item = &GroupEntryRow> {
        self.entries.range((id, 0)..=(id, u64::MAX)).map(|(_, row)| row)
    }
}

impl GroupStore for ModelStore {
    fn groups(&self, after: GroupId, most: usize) -> Later<'_, Vec<GroupId>> {
        self.answer(|tables| {
            let ids: BTreeSet<GroupId> = tables.groups.parts.keys().map(|(id, _)| *id).collect();
            ids.into_iter().filter(|id| *id > after).take(most).collect()
        })
    }

    fn group(&self, group: GroupId) -> Later<'_, Option<StoredGroup>> {
        self.answer(|tables| {
            let tables = &tables.groups;
            let of = |id: &GroupId| *id == group;
            let parts: Vec<_> = tables
                .parts
                .iter()
                .filter(|((id, _), _)| of(id))
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect();
            (!parts.is_empty()).then(|| StoredGroup {
                parts,
                readers: tables
                    .readers
                    .iter()
                    .filter(|((id, _), _)| of(id))
                    .map(|((_, account), upto)| (*account, *upto))
                    .collect(),
                cursors: tables
                    .cursors
                    .iter()
                    .filter(|((id, _), _)| of(id))
                    .map(|((_, device), row)| (*device, *row))
                    .collect(),
            })
        })
    }

    fn groups_of(&self, account: AccountId) -> Later<'_, Vec<(GroupId, u64)>> {
        self.answer(|tables| {
            let readers = tables.groups.readers.iter();
            readers
                .filter(|((_, reader), _)| *reader == account)
                .map(|((id, _), upto)| (*id, *upto))
                .collect()
        })
    }

    fn group_entries(&self, group: GroupId, from: u64, most: usize) -> Later<'_, Vec<GroupEntryRow>> {
        self.answer(|tables| {
            tables.groups.of(group).filter(|row| row.seq >= from).take(most).cloned().collect()
        })
    }

    fn group_links(&self, group: GroupId, from: u64, most: usize) -> Later<'_, Vec<GroupEntryRow>> {
        self.answer(|tables| {
            let links = tables.groups.of(group).filter(|row| row.link && row.seq >= from);
            links.take(most).cloned().collect()
        })
    }

    fn group_older(&self, group: GroupId, at_ms: u64) -> Later<'_, u64> {
        self.answer(|tables| {
            tables.groups.of(group).filter(|row| row.at_ms <= at_ms).map(|row| row.seq).max().unwrap_or(0)
        })
    }
}
