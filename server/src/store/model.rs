//! A store of maps: the model that the suite holds the backends to. Tests only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tidings_proto::id::{AccountId, DeviceId, Hash, Incarnation};

mod groups;

use super::{
    AccountRow, DeviceRow, Directory, EntryRow, KeyKind, KeyRow, Keyed, LaneKey, Later, LinkRow, LogId,
    LogRow, LogStore, OpenKind, OpenRow, OutcomeRow, OwedRow, PeerId, PeerRow, RefusalRow, Store, Writes,
};

#[derive(Default)]
struct Tables {
    accounts: BTreeMap<AccountId, AccountRow>,
    links: BTreeMap<(AccountId, u64), LinkRow>,
    names: BTreeMap<String, AccountId>,
    devices: BTreeMap<DeviceId, DeviceRow>,
    keys: BTreeMap<(DeviceId, KeyKind, u32), Bytes>,
    tokens: BTreeSet<Hash>,
    handed: BTreeMap<(AccountId, String), u64>,
    logs: BTreeMap<LogId, LogRow>,
    entries: BTreeMap<(LogId, u64), EntryRow>,
    outcomes: BTreeMap<(DeviceId, u64), OutcomeRow>,
    lanes: BTreeMap<LaneKey, Bytes>,
    open: BTreeMap<(LaneKey, u64), OpenRow>,
    peers: BTreeMap<PeerId, PeerRow>,
    refusals: BTreeMap<(PeerId, u64), Bytes>,
    owed: BTreeMap<(PeerId, Bytes), Bytes>,
    groups: groups::Tables,
}

/// The model.
#[derive(Default)]
pub(crate) struct ModelStore {
    tables: Mutex<Tables>,
}

impl ModelStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer<'a, T: Send + 'a>(&'a self, look: impl FnOnce(&mut Tables) -> T) -> Later<'a, T> {
        let answer = look(&mut self.tables());
        Box::pin(async move { Ok(answer) })
    }
}

impl LogStore for ModelStore {
    fn entries(&self, log: LogId, from: u64, most: usize) -> Later<'_, Vec<EntryRow>> {
        self.answer(|tables| {
            let range = tables.entries.range((log, from)..=(log, u64::MAX));
            range.map(|(_, row)| row.clone()).take(most).collect()
        })
    }

    fn expired_entries(&self, now_ms: u64, most: usize) -> Later<'_, Vec<(LogId, u64)>> {
        self.answer(|tables| {
            let over = |row: &&EntryRow| {
                row.content.is_some() && row.expires_at_ms > 0 && row.expires_at_ms <= now_ms
            };
            let mut rows: Vec<&EntryRow> = tables.entries.values().filter(over).collect();
            rows.sort_by_key(|row| row.expires_at_ms);
            rows.iter().take(most).map(|row| (row.log, row.n)).collect()
        })
    }

    fn last_log(&self) -> Later<'_, LogId> {
        self.answer(|tables| tables.logs.keys().next_back().copied().unwrap_or(0))
    }

    fn orphans(&self) -> Later<'_, Vec<LogId>> {
        self.answer(|tables| {
            let owned = |log: &LogId| {
                tables.devices.values().any(|row| row.log == *log)
                    || tables.peers.values().any(|row| row.log == *log)
            };
            tables.logs.keys().filter(|log| !owned(log)).copied().collect()
        })
    }

    fn log(&self, log: LogId) -> Later<'_, Option<(LogRow, Vec<Keyed>)>> {
        self.answer(|tables| {
            let row = tables.logs.get(&log)?.clone();
            let entries = tables.entries.range((log, 0)..=(log, u64::MAX)).map(|(_, row)| row);
            let keyed = entries
                .filter(|row| row.content.is_some() && !row.key.is_empty())
                .map(|row| (row.key.clone(), row.n, row.aux))
                .collect();
            Some((row, keyed))
        })
    }

    fn outcome(&self, device: DeviceId, counter: u64) -> Later<'_, Option<OutcomeRow>> {
        self.answer(|tables| tables.outcomes.get(&(device, counter)).cloned())
    }
}

impl Directory for ModelStore {
    fn account(&self, id: AccountId) -> Later<'_, Option<(AccountRow, Vec<LinkRow>)>> {
        self.answer(|tables| {
            let row = tables.accounts.get(&id)?.clone();
            let links = tables.links.range((id, 0)..=(id, u64::MAX)).map(|(_, row)| row.clone()).collect();
            Some((row, links))
        })
    }

    fn devices(&self, account: AccountId) -> Later<'_, Vec<DeviceRow>> {
        self.answer(|tables| tables.devices.values().filter(|row| row.account == account).cloned().collect())
    }

    fn outdated(&self, incarnation: Incarnation, most: usize) -> Later<'_, Vec<DeviceRow>> {
        self.answer(|tables| {
            let old = |row: &&DeviceRow| {
                tables.logs.get(&row.log).is_some_and(|log| log.incarnation != incarnation)
            };
            tables.devices.values().filter(old).take(most).cloned().collect()
        })
    }

    fn reader_of(&self, log: LogId) -> Later<'_, Option<(AccountId, DeviceId)>> {
        self.answer(|tables| {
            tables.devices.values().find(|row| row.log == log).map(|row| (row.account, row.id))
        })
    }

    fn named<'a>(&'a self, address: &'a str) -> Later<'a, Option<AccountId>> {
        self.answer(|tables| tables.names.get(address).copied())
    }

    fn prekeys(&self, device: DeviceId) -> Later<'_, Vec<KeyRow>> {
        self.answer(|tables| {
            let keys = tables.keys.iter().filter(|((owner, ..), _)| *owner == device);
            keys.map(|((_, kind, id), key)| KeyRow { kind: *kind, id: *id, key: key.clone() }).collect()
        })
    }

    fn token(&self, digest: Hash) -> Later<'_, bool> {
        self.answer(|tables| tables.tokens.contains(&digest))
    }

    fn handed(&self, account: AccountId) -> Later<'_, Vec<(String, u64)>> {
        self.answer(|tables| {
            let rows = tables.handed.iter().filter(|((owner, _), _)| *owner == account);
            rows.map(|((_, domain), at_ms)| (domain.clone(), *at_ms)).collect()
        })
    }

    fn lane(&self, key: LaneKey) -> Later<'_, (Option<Bytes>, Vec<OpenRow>)> {
        self.answer(|tables| {
            let open = tables.open.range((key, 0)..=(key, u64::MAX)).map(|(_, row)| *row).collect();
            (tables.lanes.get(&key).cloned(), open)
        })
    }

    fn recipients(&self, sender: AccountId, after: AccountId, most: usize) -> Later<'_, Vec<AccountId>> {
        self.answer(|tables| {
            let lanes = tables.lanes.keys().filter(|key| key.0 == sender && key.1 > after);
            lanes.map(|key| key.1).take(most).collect()
        })
    }

    fn requesters(&self, recipient: AccountId) -> Later<'_, Vec<AccountId>> {
        self.answer(|tables| {
            let mut first: BTreeMap<AccountId, u64> = BTreeMap::new();
            for row in tables.open.values() {
                if row.lane.1 == recipient && row.kind == OpenKind::Request {
                    let known = first.entry(row.lane.0).or_insert(row.expires_at_ms);
                    *known = row.expires_at_ms.min(*known);
                }
            }
            let mut senders: Vec<(u64, AccountId)> = first.into_iter().map(|(id, at)| (at, id)).collect();
            senders.sort_unstable();
            senders.into_iter().map(|(_, id)| id).collect()
        })
    }

    fn expired_open(&self, now_ms: u64, most: usize) -> Later<'_, Vec<OpenRow>> {
        self.answer(|tables| {
            let mut rows: Vec<OpenRow> =
                tables.open.values().filter(|row| row.expires_at_ms <= now_ms).copied().collect();
            rows.sort_by_key(|row| row.expires_at_ms);
            rows.truncate(most);
            rows
        })
    }

    fn peers(&self) -> Later<'_, Vec<PeerRow>> {
        self.answer(|tables| tables.peers.values().cloned().collect())
    }

    fn refusals(&self, peer: PeerId) -> Later<'_, Vec<RefusalRow>> {
        self.answer(|tables| {
            let rows = tables.refusals.range((peer, 0)..=(peer, u64::MAX));
            rows.map(|((_, n), failure)| RefusalRow { n: *n, failure: failure.clone() }).collect()
        })
    }

    fn owed(&self, peer: PeerId, most: usize) -> Later<'_, Vec<OwedRow>> {
        self.answer(|tables| {
            let rows = tables.owed.iter().filter(|((owner, _), _)| *owner == peer);
            rows.map(|((_, key), entry)| OwedRow { key: key.clone(), entry: entry.clone() })
                .take(most)
                .collect()
        })
    }
}

fn put<K: Ord + Clone, V: Clone>(table: &mut BTreeMap<K, V>, writes: &BTreeMap<K, Option<V>>) {
    for (key, value) in writes {
        match value {
            Some(value) => drop(table.insert(key.clone(), value.clone())),
            None => drop(table.remove(key)),
        }
    }
}

impl Store for ModelStore {
    fn commit<'a>(&'a self, writes: &'a Writes) -> Later<'a, ()> {
        self.answer(|tables| {
            tables.accounts.extend(writes.accounts.clone());
            tables.links.extend(writes.links.clone());
            tables.names.extend(writes.names.clone());
            tables.handed.extend(writes.handed.clone());
            for (digest, unused) in &writes.tokens {
                if *unused {
                    tables.tokens.insert(*digest)
                } else {
                    tables.tokens.remove(digest)
                };
            }
            let gone = |id: &DeviceId| writes.devices.get(id).is_some_and(Option::is_none);
            tables.keys.retain(|(id, ..), _| !gone(id) && !writes.keys_cleared.contains(id));
            tables.outcomes.retain(|(id, _), _| !gone(id));
            put(&mut tables.devices, &writes.devices);
            put(&mut tables.keys, &writes.keys);
            let gone = |log: &LogId| writes.logs.get(log).is_some_and(Option::is_none);
            tables
                .entries
                .retain(|(log, n), _| !gone(log) && writes.trims.get(log).is_none_or(|upto| n > upto));
            put(&mut tables.logs, &writes.logs);
            for row in tables.entries.values_mut() {
                let reason = writes.voids.get(&(row.log, row.n)).or_else(|| writes.voided_logs.get(&row.log));
                if let Some(reason) = reason
                    && row.content.take().is_some()
                {
                    row.void = *reason;
                    row.key = Bytes::new();
                }
            }
            tables.entries.extend(writes.entries.clone());
            tables.outcomes.extend(writes.outcomes.clone());
            let kept = |id: &DeviceId, counter: &u64| {
                writes.outcomes_trimmed.get(id).is_none_or(|below| counter >= below)
            };
            tables.outcomes.retain(|(id, counter), _| kept(id, counter));
            tables.lanes.extend(writes.lanes.clone());
            put(&mut tables.open, &writes.open);
            let gone = |peer: &PeerId| writes.peers.get(peer).is_some_and(Option::is_none);
            tables.refusals.retain(|(peer, _), _| !gone(peer));
            tables.owed.retain(|(peer, _), _| !gone(peer));
            put(&mut tables.peers, &writes.peers);
            put(&mut tables.refusals, &writes.refusals);
            put(&mut tables.owed, &writes.owed);
            tables.groups.commit(&writes.groups);
        })
    }

    fn close(&self) -> Later<'_, ()> {
        self.answer(|_| ())
    }
}
