//! Sender keys, who has the own one, and posts whose key is not here (spec 08-encryption, 8.8).

use std::collections::BTreeMap;

use sqlx::Row as _;
use tidings_proto::id::{AccountId, DeviceId, GroupId};

use super::super::messages::next_seq;
use super::super::{Store, Tx, signed, unsigned};
use crate::crypto::DistributionId;
use crate::error::StoreError;

/// The rotation in use of this device's own key in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnKey {
    pub(crate) distribution: DistributionId,
    /// The number of the group's head under which it was made.
    pub(crate) head_number: u64,
    /// Posts encrypted with it.
    pub(crate) posts: u64,
    pub(crate) at_ms: u64,
}

/// A post whose key is not here.
#[derive(Debug, Clone)]
pub(crate) struct Undecrypted {
    pub(crate) seq: u64,
    pub(crate) local: u64,
    pub(crate) term: u64,
    /// An encoded `GroupPost`.
    pub(crate) post: Vec<u8>,
}

/// Whose key of which rotation is missing in which group.
pub(crate) type MissingKey = (GroupId, DeviceId, DistributionId, Vec<u8>);

fn broken(column: &'static str) -> StoreError {
    StoreError::Inconsistent { table: "own_key", column }
}

impl Store {
    /// The record of a sender key, with the account that it came from.
    pub(crate) async fn sender_key(
        &self,
        group: GroupId,
        device: DeviceId,
        distribution: DistributionId,
    ) -> Result<Option<(AccountId, Vec<u8>)>, StoreError> {
        let row = sqlx::query(
            "SELECT account, record FROM sender_key WHERE chat = ?1 AND device = ?2 AND distribution = ?3",
        )
        .bind(group.to_vec())
        .bind(device.to_vec())
        .bind(distribution.to_vec())
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let account = AccountId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(|_| broken("account"))?;
        Ok(Some((account, row.try_get(1)?)))
    }

    /// The rotation in use of the own key.
    pub(crate) async fn own_key(&self, group: GroupId) -> Result<Option<OwnKey>, StoreError> {
        let row = sqlx::query("SELECT distribution, head_number, posts, at_ms FROM own_key WHERE chat = ?1")
            .bind(group.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(OwnKey {
            distribution: row.try_get::<Vec<u8>, _>(0)?.try_into().map_err(|_| broken("distribution"))?,
            head_number: unsigned(row.try_get(1)?),
            posts: unsigned(row.try_get(2)?),
            at_ms: unsigned(row.try_get(3)?),
        }))
    }

    /// The devices that were given a rotation of the own key, and what they were given.
    pub(crate) async fn given(
        &self,
        group: GroupId,
        distribution: DistributionId,
    ) -> Result<BTreeMap<DeviceId, Vec<u8>>, StoreError> {
        let rows = sqlx::query("SELECT device, message FROM key_given WHERE chat = ?1 AND distribution = ?2")
            .bind(group.to_vec())
            .bind(distribution.to_vec())
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| {
                let device = DeviceId::try_from(&row.try_get::<Vec<u8>, _>(0)?);
                Ok((device.map_err(|_| broken("device"))?, row.try_get(1)?))
            })
            .collect()
    }

    /// Posts of a device that wait for a rotation of its key, in order.
    pub(crate) async fn undecrypted(
        &self,
        group: GroupId,
        device: DeviceId,
        distribution: DistributionId,
    ) -> Result<Vec<Undecrypted>, StoreError> {
        let rows = sqlx::query(
            "SELECT seq, local, term, post FROM undecrypted WHERE chat = ?1 AND device = ?2 AND distribution = ?3 ORDER BY seq",
        )
        .bind(group.to_vec())
        .bind(device.to_vec())
        .bind(distribution.to_vec())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Undecrypted {
                    seq: unsigned(row.try_get(0)?),
                    local: unsigned(row.try_get(1)?),
                    term: unsigned(row.try_get(2)?),
                    post: row.try_get(3)?,
                })
            })
            .collect()
    }

    /// Keys that posts wait for, with one of those posts each.
    pub(crate) async fn missing_keys(&self) -> Result<Vec<MissingKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT chat, device, distribution, MIN(post) FROM undecrypted GROUP BY chat, device, distribution",
        )
        .fetch_all(&self.pool)
        .await?;
        let broken = |column| StoreError::Inconsistent { table: "undecrypted", column };
        rows.iter()
            .map(|row| {
                Ok((
                    GroupId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(|_| broken("chat"))?,
                    DeviceId::try_from(&row.try_get::<Vec<u8>, _>(1)?).map_err(|_| broken("device"))?,
                    row.try_get::<Vec<u8>, _>(2)?.try_into().map_err(|_| broken("distribution"))?,
                    row.try_get(3)?,
                ))
            })
            .collect()
    }
}

/// Writes the record of a sender key.
pub(crate) async fn put_sender_key(
    tx: &mut Tx,
    group: GroupId,
    (account, device): (AccountId, DeviceId),
    distribution: DistributionId,
    (record, now_ms): (&[u8], u64),
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sender_key (chat, account, device, distribution, record, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (chat, device, distribution) DO UPDATE SET record = ?5",
    )
    .bind(group.to_vec())
    .bind(account.to_vec())
    .bind(device.to_vec())
    .bind(distribution.to_vec())
    .bind(record)
    .bind(signed(now_ms))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes which rotation of the own key is in use.
pub(crate) async fn put_own_key(tx: &mut Tx, group: GroupId, key: &OwnKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO own_key (chat, distribution, head_number, posts, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .bind(group.to_vec())
    .bind(key.distribution.to_vec())
    .bind(signed(key.head_number))
    .bind(signed(key.posts))
    .bind(signed(key.at_ms))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes what a device is given of a rotation of the own key.
pub(crate) async fn put_given(
    tx: &mut Tx,
    group: GroupId,
    distribution: DistributionId,
    (device, message): (DeviceId, &[u8]),
    now_ms: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO key_given (chat, distribution, device, message, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .bind(group.to_vec())
    .bind(distribution.to_vec())
    .bind(device.to_vec())
    .bind(message)
    .bind(signed(now_ms))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Keeps a post until its key comes, with the place among the posts that it will have.
pub(crate) async fn put_undecrypted(
    tx: &mut Tx,
    group: GroupId,
    (term, seq): (u64, u64),
    (device, distribution): (DeviceId, DistributionId),
    post: &[u8],
) -> Result<(), StoreError> {
    let local = next_seq(tx).await?;
    sqlx::query(
        "INSERT OR REPLACE INTO undecrypted (chat, seq, local, term, device, distribution, post) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(group.to_vec())
    .bind(signed(seq))
    .bind(signed(local))
    .bind(signed(term))
    .bind(device.to_vec())
    .bind(distribution.to_vec())
    .bind(post)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A post that waited was read, or never will be.
pub(crate) async fn take_undecrypted(tx: &mut Tx, group: GroupId, seq: u64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM undecrypted WHERE chat = ?1 AND seq = ?2")
        .bind(group.to_vec())
        .bind(signed(seq))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Which of the two sides of a request for a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Turn {
    /// Asking.
    Ask = 0,
    /// Answering.
    Answer = 1,
}

/// Whether a device may be asked for a key, or answered, now: at most `most` times an hour, and for one key once in a
/// minute. If so, that is noted.
pub(crate) async fn may(
    tx: &mut Tx,
    turn: Turn,
    (device, distribution): (DeviceId, DistributionId),
    now_ms: u64,
    most: u64,
) -> Result<bool, StoreError> {
    let kind = turn as i64;
    const HOUR_MS: u64 = 3_600_000;
    const APART_MS: u64 = 60_000;
    sqlx::query("DELETE FROM key_request WHERE at_ms < ?1")
        .bind(signed(now_ms.saturating_sub(HOUR_MS)))
        .execute(&mut **tx)
        .await?;
    let row = sqlx::query(
        "SELECT COUNT(*), COALESCE(SUM(distribution = ?2 AND at_ms > ?3), 0) FROM key_request WHERE device = ?1 AND kind = ?4",
    )
    .bind(device.to_vec())
    .bind(distribution.to_vec())
    .bind(signed(now_ms.saturating_sub(APART_MS)))
    .bind(kind)
    .fetch_one(&mut **tx)
    .await?;
    let (asked, recent) = (unsigned(row.try_get(0)?), unsigned(row.try_get(1)?));
    if asked >= most || recent > 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT OR IGNORE INTO key_request (kind, device, distribution, at_ms) VALUES (?4, ?1, ?2, ?3)",
    )
    .bind(device.to_vec())
    .bind(distribution.to_vec())
    .bind(signed(now_ms))
    .bind(kind)
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// Forgets keys that were replaced long ago: posts that need them are past their lifetime.
pub(crate) async fn prune_keys(tx: &mut Tx, before_ms: u64) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM sender_key WHERE at_ms < ?1 AND EXISTS (SELECT 1 FROM sender_key AS newer WHERE \
         newer.chat = sender_key.chat AND newer.device = sender_key.device AND newer.at_ms > sender_key.at_ms)",
        "DELETE FROM key_given WHERE at_ms < ?1 AND distribution NOT IN (SELECT distribution FROM own_key)",
    ] {
        sqlx::query(statement).bind(signed(before_ms)).execute(&mut **tx).await?;
    }
    Ok(())
}
