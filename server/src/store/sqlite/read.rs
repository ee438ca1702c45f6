//! The two seams, answered by SQLite.

use std::sync::PoisonError;

use bytes::Bytes;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tidings_proto::id::{AccountId, DeviceId, Hash, Incarnation};

use super::{SqliteStore, signed, unsigned};
use crate::store::{
    AccountRow, DeviceRow, Directory, EntryRow, KeyKind, KeyRow, Keyed, LaneKey, Later, LinkRow, LogId,
    LogRow, LogStore, OpenKind, OpenRow, OutcomeRow, OwedRow, PeerId, PeerRow, RefusalRow, Store, StoreError,
    Writes,
};

/// A fixed-length id in a column.
pub(super) fn id<T: for<'a> TryFrom<&'a [u8]>>(
    row: &SqliteRow,
    table: &'static str,
    column: &'static str,
) -> Result<T, StoreError> {
    let found: Vec<u8> = row.try_get(column)?;
    T::try_from(found.as_slice()).map_err(|_| StoreError::Inconsistent {
        table,
        column,
        row: hex::encode(&found),
    })
}

pub(super) fn blob(row: &SqliteRow, column: &str) -> Result<Bytes, StoreError> {
    Ok(row.try_get::<Vec<u8>, _>(column)?.into())
}

pub(super) fn number(row: &SqliteRow, column: &str) -> Result<u64, StoreError> {
    Ok(unsigned(row.try_get(column)?))
}

fn small(row: &SqliteRow, column: &str) -> Result<u32, StoreError> {
    Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(u32::MAX))
}

pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

impl LogStore for SqliteStore {
    fn entries(&self, log: LogId, from: u64, most: usize) -> Later<'_, Vec<EntryRow>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT n, hash, content, void, expires_at, key, aux FROM entry \
                 WHERE log = ? AND n >= ? ORDER BY n LIMIT ?",
            )
            .bind(log)
            .bind(signed(from))
            .bind(limit(most))
            .fetch_all(&self.readers)
            .await?;
            rows.iter()
                .map(|row| {
                    Ok(EntryRow {
                        log,
                        n: number(row, "n")?,
                        hash: id(row, "entry", "hash")?,
                        content: row.try_get::<Option<Vec<u8>>, _>("content")?.map(Bytes::from),
                        void: row.try_get("void")?,
                        expires_at_ms: number(row, "expires_at")?,
                        key: row.try_get::<Option<Vec<u8>>, _>("key")?.unwrap_or_default().into(),
                        aux: number(row, "aux")?,
                    })
                })
                .collect()
        })
    }

    fn expired_entries(&self, now_ms: u64, most: usize) -> Later<'_, Vec<(LogId, u64)>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT log, n FROM entry WHERE content IS NOT NULL AND expires_at > 0 AND expires_at <= ? \
                 ORDER BY expires_at LIMIT ?",
            )
            .bind(signed(now_ms))
            .bind(limit(most))
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| Ok((row.try_get("log")?, number(row, "n")?))).collect()
        })
    }

    fn last_log(&self) -> Later<'_, LogId> {
        Box::pin(async move {
            let row =
                sqlx::query("SELECT coalesce(max(id), 0) AS last FROM log").fetch_one(&self.readers).await?;
            Ok(row.try_get("last")?)
        })
    }

    fn orphans(&self) -> Later<'_, Vec<LogId>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT id FROM log WHERE id NOT IN (SELECT log FROM device) AND id NOT IN (SELECT log FROM peer)",
            )
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| Ok(row.try_get("id")?)).collect()
        })
    }

    fn log(&self, log: LogId) -> Later<'_, Option<(LogRow, Vec<Keyed>)>> {
        Box::pin(async move {
            let found = sqlx::query(
                "SELECT incarnation, first, last, before, hash, lapsed, base FROM log WHERE id = ?",
            )
            .bind(log)
            .fetch_optional(&self.readers)
            .await?;
            let Some(found) = found else { return Ok(None) };
            let keyed = sqlx::query(
                "SELECT key, n, aux FROM entry WHERE log = ? AND key IS NOT NULL AND content IS NOT NULL ORDER BY n",
            )
            .bind(log)
            .fetch_all(&self.readers)
            .await?;
            let row = LogRow {
                id: log,
                incarnation: id::<Incarnation>(&found, "log", "incarnation")?,
                first: number(&found, "first")?,
                last: number(&found, "last")?,
                before: id(&found, "log", "before")?,
                hash: id(&found, "log", "hash")?,
                lapsed: found.try_get("lapsed")?,
                base: number(&found, "base")?,
            };
            let keyed: Result<_, StoreError> = keyed
                .iter()
                .map(|row| Ok((blob(row, "key")?, number(row, "n")?, number(row, "aux")?)))
                .collect();
            Ok(Some((row, keyed?)))
        })
    }

    fn outcome(&self, device: DeviceId, counter: u64) -> Later<'_, Option<OutcomeRow>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT digest, outcome FROM outcome WHERE device = ? AND counter = ?")
                .bind(device.to_vec())
                .bind(signed(counter))
                .fetch_optional(&self.readers)
                .await?;
            found
                .map(|row| {
                    Ok(OutcomeRow { digest: id(&row, "outcome", "digest")?, outcome: blob(&row, "outcome")? })
                })
                .transpose()
        })
    }
}

fn device_row(row: &SqliteRow) -> Result<DeviceRow, StoreError> {
    Ok(DeviceRow {
        id: id(row, "device", "id")?,
        account: id(row, "device", "account")?,
        log: row.try_get("log")?,
        counter: number(row, "counter")?,
        digest: id(row, "device", "digest")?,
        record: blob(row, "record")?,
        keyed: row.try_get("keyed")?,
        told_low: row.try_get("told_low")?,
        ec_high: small(row, "ec_high")?,
        kyber_high: small(row, "kyber_high")?,
    })
}

fn open_row(row: &SqliteRow) -> Result<OpenRow, StoreError> {
    let kind: i64 = row.try_get("kind")?;
    let broken = || StoreError::Inconsistent { table: "open", column: "kind", row: kind.to_string() };
    Ok(OpenRow {
        lane: (id::<AccountId>(row, "open", "sender")?, id::<AccountId>(row, "open", "recipient")?),
        number: number(row, "number")?,
        upto: number(row, "upto")?,
        expires_at_ms: number(row, "expires_at")?,
        kind: OpenKind::from_number(kind).ok_or_else(broken)?,
        acknowledged: row.try_get("acknowledged")?,
    })
}

impl Directory for SqliteStore {
    fn account(&self, account: AccountId) -> Later<'_, Option<(AccountRow, Vec<LinkRow>)>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT address, local FROM account WHERE id = ?")
                .bind(account.to_vec())
                .fetch_optional(&self.readers)
                .await?;
            let Some(found) = found else { return Ok(None) };
            let links =
                sqlx::query("SELECT number, link, at_ms FROM account_link WHERE account = ? ORDER BY number")
                    .bind(account.to_vec())
                    .fetch_all(&self.readers)
                    .await?;
            let row = AccountRow {
                id: account,
                address: found.try_get("address")?,
                local: found.try_get("local")?,
            };
            let links: Result<_, StoreError> = links
                .iter()
                .map(|row| {
                    Ok(LinkRow {
                        account,
                        number: number(row, "number")?,
                        link: blob(row, "link")?,
                        at_ms: number(row, "at_ms")?,
                    })
                })
                .collect();
            Ok(Some((row, links?)))
        })
    }

    fn devices(&self, account: AccountId) -> Later<'_, Vec<DeviceRow>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT id, account, log, counter, digest, record, keyed, told_low, ec_high, kyber_high FROM device \
                 WHERE account = ? ORDER BY id",
            )
            .bind(account.to_vec())
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(device_row).collect()
        })
    }

    fn outdated(&self, incarnation: Incarnation, most: usize) -> Later<'_, Vec<DeviceRow>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT d.id, d.account, d.log, d.counter, d.digest, d.record, d.keyed, d.told_low, d.ec_high, d.kyber_high \
                 FROM device d JOIN log ON log.id = d.log WHERE log.incarnation <> ? ORDER BY d.id LIMIT ?",
            )
            .bind(incarnation.to_vec())
            .bind(limit(most))
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(device_row).collect()
        })
    }

    fn reader_of(&self, log: LogId) -> Later<'_, Option<(AccountId, DeviceId)>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT account, id FROM device WHERE log = ?")
                .bind(log)
                .fetch_optional(&self.readers)
                .await?;
            found.map(|row| Ok((id(&row, "device", "account")?, id(&row, "device", "id")?))).transpose()
        })
    }

    fn named<'a>(&'a self, address: &'a str) -> Later<'a, Option<AccountId>> {
        Box::pin(async move {
            let found = sqlx::query("SELECT account FROM name WHERE address = ?")
                .bind(address)
                .fetch_optional(&self.readers)
                .await?;
            found.map(|row| id(&row, "name", "account")).transpose()
        })
    }

    fn prekeys(&self, device: DeviceId) -> Later<'_, Vec<KeyRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT kind, id, key FROM prekey WHERE device = ? ORDER BY kind, id")
                .bind(device.to_vec())
                .fetch_all(&self.readers)
                .await?;
            rows.iter()
                .map(|row| {
                    let kind: i64 = row.try_get("kind")?;
                    let broken = || StoreError::Inconsistent {
                        table: "prekey",
                        column: "kind",
                        row: kind.to_string(),
                    };
                    let kind = KeyKind::from_number(kind).ok_or_else(broken)?;
                    Ok(KeyRow { kind, id: small(row, "id")?, key: blob(row, "key")? })
                })
                .collect()
        })
    }

    fn token(&self, digest: Hash) -> Later<'_, bool> {
        Box::pin(async move {
            let found = sqlx::query("SELECT 1 FROM token WHERE digest = ?")
                .bind(digest.to_vec())
                .fetch_optional(&self.readers)
                .await?;
            Ok(found.is_some())
        })
    }

    fn handed(&self, account: AccountId) -> Later<'_, Vec<(String, u64)>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT domain, at_ms FROM handed WHERE account = ? ORDER BY domain")
                .bind(account.to_vec())
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(|row| Ok((row.try_get("domain")?, number(row, "at_ms")?))).collect()
        })
    }

    fn lane(&self, key: LaneKey) -> Later<'_, (Option<Bytes>, Vec<OpenRow>)> {
        Box::pin(async move {
            let state = sqlx::query("SELECT state FROM lane WHERE sender = ? AND recipient = ?")
                .bind(key.0.to_vec())
                .bind(key.1.to_vec())
                .fetch_optional(&self.readers)
                .await?;
            let state = state.map(|row| blob(&row, "state")).transpose()?;
            let rows = sqlx::query("SELECT * FROM open WHERE recipient = ? AND sender = ? ORDER BY number")
                .bind(key.1.to_vec())
                .bind(key.0.to_vec())
                .fetch_all(&self.readers)
                .await?;
            Ok((state, rows.iter().map(open_row).collect::<Result<_, _>>()?))
        })
    }

    fn recipients(&self, sender: AccountId, after: AccountId, most: usize) -> Later<'_, Vec<AccountId>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT recipient FROM lane WHERE sender = ? AND recipient > ? ORDER BY recipient LIMIT ?",
            )
            .bind(sender.to_vec())
            .bind(after.to_vec())
            .bind(limit(most))
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| id(row, "lane", "recipient")).collect()
        })
    }

    fn requesters(&self, recipient: AccountId) -> Later<'_, Vec<AccountId>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT sender FROM open WHERE recipient = ? AND kind = 1 GROUP BY sender ORDER BY min(expires_at)",
            )
            .bind(recipient.to_vec())
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(|row| id(row, "open", "sender")).collect()
        })
    }

    fn expired_open(&self, now_ms: u64, most: usize) -> Later<'_, Vec<OpenRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM open WHERE expires_at <= ? ORDER BY expires_at LIMIT ?")
                .bind(signed(now_ms))
                .bind(limit(most))
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(open_row).collect()
        })
    }

    fn peers(&self) -> Later<'_, Vec<PeerRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT id, domain, log, state FROM peer ORDER BY id")
                .fetch_all(&self.readers)
                .await?;
            rows.iter()
                .map(|row| {
                    Ok(PeerRow {
                        id: row.try_get("id")?,
                        domain: row.try_get("domain")?,
                        log: row.try_get("log")?,
                        state: blob(row, "state")?,
                    })
                })
                .collect()
        })
    }

    fn refusals(&self, peer: PeerId) -> Later<'_, Vec<RefusalRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT n, failure FROM refusal WHERE peer = ? ORDER BY n")
                .bind(peer)
                .fetch_all(&self.readers)
                .await?;
            rows.iter()
                .map(|row| Ok(RefusalRow { n: number(row, "n")?, failure: blob(row, "failure")? }))
                .collect()
        })
    }

    fn owed(&self, peer: PeerId, most: usize) -> Later<'_, Vec<OwedRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT key, entry FROM owed WHERE peer = ? ORDER BY key LIMIT ?")
                .bind(peer)
                .bind(limit(most))
                .fetch_all(&self.readers)
                .await?;
            rows.iter()
                .map(|row| Ok(OwedRow { key: blob(row, "key")?, entry: blob(row, "entry")? }))
                .collect()
        })
    }
}

impl Store for SqliteStore {
    fn commit<'a>(&'a self, writes: &'a Writes) -> Later<'a, ()> {
        self.commit_later(writes)
    }

    fn close(&self) -> Later<'_, ()> {
        Box::pin(async move {
            self.readers.close().await;
            self.writer.close().await;
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
            Ok(())
        })
    }
}
