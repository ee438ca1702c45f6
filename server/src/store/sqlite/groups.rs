//! Groups in SQLite.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tidings_proto::id::{AccountId, GroupId};

use super::read::{blob, id, limit, number};
use super::write::{Statement, Value, bytes, each, put};
use super::{SqliteStore, signed};
use crate::store::{GroupCursorRow, GroupEntryRow, GroupStore, GroupWrites, Later, StoreError, StoredGroup};

impl GroupStore for SqliteStore {
    fn groups(&self, after: GroupId, most: usize) -> Later<'_, Vec<GroupId>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT DISTINCT id FROM group_part WHERE id > ? ORDER BY id LIMIT ?")
                .bind(after.to_vec())
                .bind(limit(most))
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(|row| id(row, "group_part", "id")).collect()
        })
    }

    fn group(&self, group: GroupId) -> Later<'_, Option<StoredGroup>> {
        Box::pin(async move {
            // One view of all tables: a commit in between would show parts of two decisions.
            let mut view = self.readers.begin().await?;
            let parts = sqlx::query("SELECT key, value FROM group_part WHERE id = ? ORDER BY key")
                .bind(group.to_vec())
                .fetch_all(&mut *view)
                .await?;
            if parts.is_empty() {
                return Ok(None);
            }
            let readers = sqlx::query("SELECT account, upto FROM group_reader WHERE id = ? ORDER BY account")
                .bind(group.to_vec())
                .fetch_all(&mut *view)
                .await?;
            let cursors =
                sqlx::query("SELECT device, term, seq, hash FROM group_cursor WHERE id = ? ORDER BY device")
                    .bind(group.to_vec())
                    .fetch_all(&mut *view)
                    .await?;
            Ok(Some(StoredGroup {
                parts: parts
                    .iter()
                    .map(|row| Ok((blob(row, "key")?, blob(row, "value")?)))
                    .collect::<Result<_, StoreError>>()?,
                readers: readers
                    .iter()
                    .map(|row| Ok((id::<AccountId>(row, "group_reader", "account")?, number(row, "upto")?)))
                    .collect::<Result<_, StoreError>>()?,
                cursors: cursors
                    .iter()
                    .map(|row| Ok((id(row, "group_cursor", "device")?, cursor(row)?)))
                    .collect::<Result<_, StoreError>>()?,
            }))
        })
    }

    fn groups_of(&self, account: AccountId) -> Later<'_, Vec<(GroupId, u64)>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT id, upto FROM group_reader WHERE account = ? ORDER BY id")
                .bind(account.to_vec())
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(|row| Ok((id(row, "group_reader", "id")?, number(row, "upto")?))).collect()
        })
    }

    fn group_entries(&self, group: GroupId, from: u64, most: usize) -> Later<'_, Vec<GroupEntryRow>> {
        const ALL: &str = "SELECT seq, link, slot, record, at_ms FROM group_entry WHERE id = ? AND seq >= ? \
            ORDER BY seq LIMIT ?";
        Box::pin(self.records(ALL, group, from, most))
    }

    fn group_links(&self, group: GroupId, from: u64, most: usize) -> Later<'_, Vec<GroupEntryRow>> {
        const LINKS: &str = "SELECT seq, link, slot, record, at_ms FROM group_entry \
            WHERE id = ? AND seq >= ? AND link = 1 ORDER BY seq LIMIT ?";
        Box::pin(self.records(LINKS, group, from, most))
    }

    fn group_older(&self, group: GroupId, at_ms: u64) -> Later<'_, u64> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT coalesce(max(seq), 0) AS seq FROM group_entry WHERE id = ? AND at_ms <= ?",
            )
            .bind(group.to_vec())
            .bind(signed(at_ms))
            .fetch_one(&self.readers)
            .await?;
            number(&row, "seq")
        })
    }
}

impl SqliteStore {
    async fn records(
        &self,
        query: &'static str,
        group: GroupId,
        from: u64,
        most: usize,
    ) -> Result<Vec<GroupEntryRow>, StoreError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(group.to_vec())
            .bind(signed(from))
            .bind(limit(most))
            .fetch_all(&self.readers)
            .await?;
        let record = |row: &SqliteRow| {
            Ok(GroupEntryRow {
                seq: number(row, "seq")?,
                link: row.try_get("link")?,
                slot: blob(row, "slot")?,
                record: blob(row, "record")?,
                at_ms: number(row, "at_ms")?,
            })
        };
        rows.iter().map(record).collect()
    }
}

fn cursor(row: &SqliteRow) -> Result<GroupCursorRow, StoreError> {
    Ok(GroupCursorRow {
        term: number(row, "term")?,
        seq: number(row, "seq")?,
        hash: id(row, "group_cursor", "hash")?,
    })
}

/// The statements of a group of decisions; what goes, goes first.
pub(super) fn groups(out: &mut Vec<Statement>, writes: &GroupWrites) {
    for statement in [
        "DELETE FROM group_part WHERE id = ?",
        "DELETE FROM group_entry WHERE id = ?",
        "DELETE FROM group_reader WHERE id = ?",
        "DELETE FROM group_cursor WHERE id = ?",
    ] {
        each(out, statement, writes.gone.iter(), |id| vec![bytes(&id.0)]);
    }
    entries(out, writes);
    let gone = writes.parts.iter().filter(|(_, value)| value.is_none());
    let statement = "DELETE FROM group_part WHERE id = ? AND key = ?";
    each(out, statement, gone, |((id, key), _)| vec![bytes(&id.0), bytes(key)]);
    let held = writes.parts.iter().filter_map(|(place, value)| value.as_ref().map(|value| (place, value)));
    let head = "INSERT OR REPLACE INTO group_part (id, key, value)";
    put(out, (head, 3), held, |values, ((id, key), value)| {
        values.push_bind(id.to_vec()).push_bind(key.to_vec()).push_bind(value.to_vec());
    });
    readers(out, writes);
}

fn entries(out: &mut Vec<Statement>, writes: &GroupWrites) {
    let upto = |(id, seq): (&GroupId, &u64)| vec![bytes(&id.0), Value::Number(signed(*seq))];
    each(out, "DELETE FROM group_entry WHERE id = ? AND seq > ?", writes.cut.iter(), upto);
    let trimmed = "DELETE FROM group_entry WHERE id = ? AND seq <= ? AND (link = 0 OR seq < ?)";
    each(out, trimmed, writes.trims.iter(), |(id, (upto, links))| {
        vec![bytes(&id.0), Value::Number(signed(*upto)), Value::Number(signed(*links))]
    });
    let statement = "UPDATE group_entry SET slot = ? WHERE id = ? AND seq = ?";
    each(out, statement, writes.slots.iter(), |((id, seq), slot)| {
        vec![bytes(slot), bytes(&id.0), Value::Number(signed(*seq))]
    });
    let head = "INSERT OR REPLACE INTO group_entry (id, seq, link, slot, record, at_ms)";
    put(out, (head, 6), writes.entries.iter(), |values, ((id, seq), row)| {
        values
            .push_bind(id.to_vec())
            .push_bind(signed(*seq))
            .push_bind(row.link)
            .push_bind(row.slot.to_vec())
            .push_bind(row.record.to_vec())
            .push_bind(signed(row.at_ms));
    });
}

fn readers(out: &mut Vec<Statement>, writes: &GroupWrites) {
    let gone = writes.readers.iter().filter(|(_, upto)| upto.is_none());
    let statement = "DELETE FROM group_reader WHERE id = ? AND account = ?";
    each(out, statement, gone, |((id, account), _)| vec![bytes(&id.0), bytes(&account.0)]);
    let held = writes.readers.iter().filter_map(|(place, upto)| upto.map(|upto| (place, upto)));
    let head = "INSERT OR REPLACE INTO group_reader (id, account, upto)";
    put(out, (head, 3), held, |values, ((id, account), upto)| {
        values.push_bind(id.to_vec()).push_bind(account.to_vec()).push_bind(signed(upto));
    });
    let gone = writes.cursors.iter().filter(|(_, row)| row.is_none());
    let statement = "DELETE FROM group_cursor WHERE id = ? AND device = ?";
    each(out, statement, gone, |((id, device), _)| vec![bytes(&id.0), bytes(&device.0)]);
    let held = writes.cursors.iter().filter_map(|(place, row)| row.map(|row| (place, row)));
    let head = "INSERT OR REPLACE INTO group_cursor (id, device, term, seq, hash)";
    put(out, (head, 5), held, |values, ((id, device), row): (_, GroupCursorRow)| {
        values
            .push_bind(id.to_vec())
            .push_bind(device.to_vec())
            .push_bind(signed(row.term))
            .push_bind(signed(row.seq))
            .push_bind(row.hash.to_vec());
    });
}
