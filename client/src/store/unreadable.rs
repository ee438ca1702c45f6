//! Messages that could not be read, until they come again or expire (spec 08-encryption, 8.5).

use sqlx::Row as _;
use tidings_proto::id::{AccountId, DeviceId};

use super::messages::{Lane, next_seq};
use super::{Store, Tx, signed, unsigned};
use crate::error::StoreError;

/// A message that could not be read.
#[derive(Debug, Clone)]
pub(crate) struct Unreadable {
    pub(crate) sender: AccountId,
    /// The other account of the conversation.
    pub(crate) conversation: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) lane: Lane,
    pub(crate) number: u64,
    pub(crate) ciphertext: Vec<u8>,
    pub(crate) expires_at_ms: u64,
}

/// Keeps one, with the place in the conversation that it will have. Returns false if it is kept already.
pub(crate) async fn put(tx: &mut Tx, unreadable: &Unreadable) -> Result<bool, StoreError> {
    if find(tx, unreadable.sender, unreadable.lane, unreadable.number).await?.is_some() {
        return Ok(false);
    }
    let seq = next_seq(tx).await?;
    sqlx::query(
        "INSERT INTO unreadable (seq, sender, conversation, links, home, number, device, ciphertext, expires_at_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .bind(signed(seq))
    .bind(unreadable.sender.to_vec())
    .bind(unreadable.conversation.to_vec())
    .bind(signed(unreadable.lane.address_links))
    .bind(unreadable.lane.incarnation.to_vec())
    .bind(signed(unreadable.number))
    .bind(unreadable.device.to_vec())
    .bind(&unreadable.ciphertext)
    .bind(signed(unreadable.expires_at_ms))
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// The place of one in the conversation.
async fn find(tx: &mut Tx, sender: AccountId, lane: Lane, number: u64) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query(
        "SELECT seq FROM unreadable WHERE sender = ?1 AND links = ?2 AND home = ?3 AND number = ?4",
    )
    .bind(sender.to_vec())
    .bind(signed(lane.address_links))
    .bind(lane.incarnation.to_vec())
    .bind(signed(number))
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.map(|row| row.try_get(0).map(unsigned)).transpose()?)
}

/// It came again and could be read: gives the place that was kept for it.
pub(crate) async fn take(
    tx: &mut Tx,
    sender: AccountId,
    lane: Lane,
    number: u64,
) -> Result<Option<u64>, StoreError> {
    let Some(seq) = find(tx, sender, lane, number).await? else { return Ok(None) };
    sqlx::query("DELETE FROM unreadable WHERE seq = ?1").bind(signed(seq)).execute(&mut **tx).await?;
    Ok(Some(seq))
}

/// How many of a device are kept: they explain that its numbers jump.
pub(crate) async fn count(tx: &mut Tx, device: DeviceId) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT COUNT(*) FROM unreadable WHERE device = ?1")
        .bind(device.to_vec())
        .fetch_one(&mut **tx)
        .await?;
    Ok(unsigned(row.try_get(0)?))
}

/// Drops those past their expiry; their conversations and numbers are gaps.
pub(crate) async fn expire(store: &Store, now_ms: u64) -> Result<Vec<(AccountId, u64)>, StoreError> {
    let mut tx = store.begin().await?;
    let rows = sqlx::query("DELETE FROM unreadable WHERE expires_at_ms <= ?1 RETURNING conversation, number")
        .bind(signed(now_ms))
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    let broken = |_| StoreError::Inconsistent { table: "unreadable", column: "conversation" };
    rows.iter()
        .map(|row| {
            let conversation = AccountId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(broken)?;
            Ok((conversation, unsigned(row.try_get(1)?)))
        })
        .collect()
}

/// Keeps a mailbox entry of a kind that this version does not know (spec 03-logs, 3.4).
pub(crate) async fn put_unknown(tx: &mut Tx, kind: u64, body: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO unknown_entry (kind, body) VALUES (?1, ?2)")
        .bind(signed(kind))
        .bind(body)
        .execute(&mut **tx)
        .await?;
    Ok(())
}
