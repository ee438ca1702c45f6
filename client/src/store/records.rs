//! libsignal's records, read before an operation and written with its effects (spec 08-encryption).

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tidings_proto::id::DeviceId;

use super::{Store, Tx, signed};
use crate::crypto::{Changes, KyberRecord, KyberUse, Records, WantedPrekeys};
use crate::error::StoreError;

const SESSION: &str = "session";
const ONE_TIME: &str = "one-time";
const SIGNED: &str = "signed";
const KYBER: &str = "kyber";
const KYBER_USE: &str = "kyber-use";

fn broken(column: &'static str) -> StoreError {
    StoreError::Inconsistent { table: "record", column }
}

fn number(key: &str) -> Result<u32, StoreError> {
    key.parse().map_err(|_| broken("key"))
}

impl Store {
    /// The session with one device: what an encryption needs.
    pub(crate) async fn session_records(&self, with: DeviceId) -> Result<Records, StoreError> {
        self.select(vec![(SESSION, with.to_string())]).await
    }

    /// The session with one device and the prekeys a message refers to: what a decryption needs.
    pub(crate) async fn records_for(
        &self,
        with: DeviceId,
        wanted: Option<&WantedPrekeys>,
    ) -> Result<Records, StoreError> {
        let mut keys = vec![(SESSION, with.to_string())];
        if let Some(wanted) = wanted {
            keys.push((SIGNED, wanted.signed.to_string()));
            keys.push((KYBER, wanted.kyber.kyber_id.to_string()));
            keys.push((KYBER_USE, write_use(&wanted.kyber)));
            keys.extend(wanted.one_time.map(|id| (ONE_TIME, id.to_string())));
        }
        self.select(keys).await
    }

    async fn select(&self, keys: Vec<(&'static str, String)>) -> Result<Records, StoreError> {
        let mut records = Records::default();
        for (kind, key) in keys {
            let row = sqlx::query("SELECT kind, key, value FROM record WHERE kind = ?1 AND key = ?2")
                .bind(kind)
                .bind(key)
                .fetch_optional(&self.pool)
                .await?;
            if let Some(row) = row {
                add(&mut records, &row)?;
            }
        }
        Ok(records)
    }
}

fn add(records: &mut Records, row: &SqliteRow) -> Result<(), StoreError> {
    let kind: String = row.try_get(0)?;
    let key: String = row.try_get(1)?;
    let value: Vec<u8> = row.try_get(2)?;
    match kind.as_str() {
        SESSION => {
            let device = key.parse::<DeviceId>().map_err(|_| broken("key"))?;
            records.sessions.insert(device, value);
        }
        ONE_TIME => {
            records.one_time.insert(number(&key)?, value);
        }
        SIGNED => {
            records.signed.insert(number(&key)?, value);
        }
        KYBER => {
            let (&flag, record) = value.split_first().ok_or_else(|| broken("value"))?;
            let record = KyberRecord { record: record.to_vec(), last_resort: flag == 1 };
            records.kyber.insert(number(&key)?, record);
        }
        KYBER_USE => {
            records.kyber_uses.insert(read_use(&key)?);
        }
        _ => return Err(broken("kind")),
    }
    Ok(())
}

fn write_use(used: &KyberUse) -> String {
    let base: String = used.base_key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}/{}/{base}", used.kyber_id, used.signed_id)
}

fn read_use(key: &str) -> Result<KyberUse, StoreError> {
    let mut parts = key.split('/');
    let mut next = || parts.next().ok_or_else(|| broken("key"));
    let (kyber_id, signed_id, base) = (number(next()?)?, number(next()?)?, next()?);
    let bytes = hex::decode(base).map_err(|_| broken("key"))?;
    Ok(KyberUse { kyber_id, signed_id, base_key: bytes.try_into().map_err(|_| broken("key"))? })
}

async fn put(tx: &mut Tx, kind: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO record (kind, key, value) VALUES (?1, ?2, ?3) ON CONFLICT (kind, key) DO UPDATE SET value = ?3")
        .bind(kind)
        .bind(key)
        .bind(value)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn delete(tx: &mut Tx, kind: &str, key: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM record WHERE kind = ?1 AND key = ?2")
        .bind(kind)
        .bind(key)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes what an operation changed.
pub(crate) async fn put_changes(tx: &mut Tx, changes: &Changes) -> Result<(), StoreError> {
    if let Some((device, record)) = &changes.session {
        put(tx, SESSION, &device.to_string(), record).await?;
    }
    if let Some(id) = changes.spent_one_time {
        delete(tx, ONE_TIME, &id.to_string()).await?;
    }
    if let Some(id) = changes.spent_kyber {
        delete(tx, KYBER, &id.to_string()).await?;
    }
    if let Some(used) = &changes.kyber_use {
        put(tx, KYBER_USE, &write_use(used), &[]).await?;
    }
    Ok(())
}

/// Writes freshly made private prekeys.
pub(crate) async fn put_records(tx: &mut Tx, records: &Records) -> Result<(), StoreError> {
    for (id, record) in &records.one_time {
        put(tx, ONE_TIME, &id.to_string(), record).await?;
    }
    for (id, record) in &records.signed {
        put(tx, SIGNED, &id.to_string(), record).await?;
    }
    for (id, record) in &records.kyber {
        let mut value = vec![u8::from(record.last_resort)];
        value.extend_from_slice(&record.record);
        put(tx, KYBER, &id.to_string(), &value).await?;
    }
    Ok(())
}

/// Forgets the session with a device that left.
pub(crate) async fn drop_session(tx: &mut Tx, device: DeviceId) -> Result<(), StoreError> {
    delete(tx, SESSION, &device.to_string()).await
}

/// Notes which prekeys are not published any more: signed and last-resort ones, or with `one_time` all.
pub(crate) async fn set_replaced(tx: &mut Tx, now_ms: u64, one_time: bool) -> Result<(), StoreError> {
    // The first byte of a Kyber record says whether it is a last resort.
    let which = if one_time {
        "UPDATE record SET replaced_at_ms = ?1 WHERE replaced_at_ms IS NULL AND kind IN ('one-time', 'signed', 'kyber')"
    } else {
        "UPDATE record SET replaced_at_ms = ?1 WHERE replaced_at_ms IS NULL \
         AND (kind = 'signed' OR (kind = 'kyber' AND substr(value, 1, 1) = x'01'))"
    };
    sqlx::query(which).bind(signed(now_ms)).execute(&mut **tx).await?;
    Ok(())
}

/// Forgets prekeys that were replaced before a time, and the uses of those (KEY-013).
pub(crate) async fn prune_replaced(tx: &mut Tx, before_ms: u64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM record WHERE replaced_at_ms < ?1")
        .bind(signed(before_ms))
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "DELETE FROM record WHERE kind = 'kyber-use' AND substr(key, 1, instr(key, '/') - 1) NOT IN \
         (SELECT key FROM record WHERE kind = 'kyber')",
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

impl Store {
    /// Throws the session with a device away, as a damaged file would: what that device sent in it and is still
    /// under way cannot be read and is asked for again (spec 08-encryption, 8.5). For support tools and tests.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn forget_session(&self, with: DeviceId) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        drop_session(&mut tx, with).await?;
        tx.commit().await?;
        Ok(())
    }
}
