//! Deliveries that wait for the chain of the account that wrote them, in order.

use sqlx::Row as _;
use tidings_proto::id::AccountId;

use super::{Store, Tx};
use crate::error::StoreError;

/// Puts a delivery behind those that wait already.
pub(crate) async fn put(tx: &mut Tx, sender: AccountId, body: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO stash (sender, body) VALUES (?1, ?2)")
        .bind(sender.to_vec())
        .bind(body)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Whether anything waits for this account's chain.
pub(crate) async fn holds(store: &Store, sender: AccountId) -> Result<bool, StoreError> {
    Ok(first(store, sender).await?.is_some())
}

/// The oldest that waits for this account's chain.
pub(crate) async fn first(store: &Store, sender: AccountId) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
    let row = sqlx::query("SELECT seq, body FROM stash WHERE sender = ?1 ORDER BY seq LIMIT 1")
        .bind(sender.to_vec())
        .fetch_optional(&store.pool)
        .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// The accounts whose chains are waited for.
pub(crate) async fn senders(store: &Store) -> Result<Vec<AccountId>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT sender FROM stash").fetch_all(&store.pool).await?;
    let broken = |_| StoreError::Inconsistent { table: "stash", column: "sender" };
    rows.iter().map(|row| AccountId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(broken)).collect()
}

/// Gives up on what waits for an account that cannot be known.
pub(crate) async fn forget(store: &Store, sender: AccountId) -> Result<u64, StoreError> {
    let done =
        sqlx::query("DELETE FROM stash WHERE sender = ?1").bind(sender.to_vec()).execute(&store.pool).await?;
    Ok(done.rows_affected())
}

/// Forgets one.
pub(crate) async fn delete(store: &Store, seq: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM stash WHERE seq = ?1").bind(seq).execute(&store.pool).await?;
    Ok(())
}

/// The address that the oldest delivery of an account names; not to be believed before its chain says so.
pub(crate) async fn address(store: &Store, sender: AccountId) -> Result<String, StoreError> {
    let Some((_, body)) = first(store, sender).await? else { return Ok(String::new()) };
    let delivery = <tidings_proto::pb::Delivery as prost::Message>::decode(body.as_slice());
    Ok(delivery.map(|delivery| delivery.sender_address).unwrap_or_default())
}
