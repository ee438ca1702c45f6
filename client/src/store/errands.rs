//! What is to be sent to single devices: reports, and messages again (spec 06-messages, "Healing").

use prost::Message as _;
use sqlx::Row as _;
use tidings_proto::id::{AccountId, DeviceId, GroupId, MessageId};
use tidings_proto::pb;

use super::{Store, Tx, signed};
use crate::error::StoreError;

/// Something for one device.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) seq: i64,
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    /// An encoded `Content` of class service.
    pub(crate) content: Option<Vec<u8>>,
    /// Or the lane and number of a message to be sent again.
    pub(crate) mark: Option<pb::Watermark>,
    /// The group that it belongs to.
    pub(crate) chat: Option<GroupId>,
}

/// Whom a service message is for, and the lane and number it is about.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) mark: Option<Vec<u8>>,
}

/// A service message for one device.
pub(crate) async fn put_service(tx: &mut Tx, to: &Service, content: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO errand (account, device, content, mark) VALUES (?1, ?2, ?3, ?4)")
        .bind(to.account.to_vec())
        .bind(to.device.to_vec())
        .bind(content)
        .bind(to.mark.clone())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A service message for one device that belongs to a group.
pub(crate) async fn put_for_group(
    tx: &mut Tx,
    group: GroupId,
    (account, device): (AccountId, DeviceId),
    content: &pb::Content,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO errand (account, device, content, chat) VALUES (?1, ?2, ?3, ?4)")
        .bind(account.to_vec())
        .bind(device.to_vec())
        .bind(content.encode_to_vec())
        .bind(group.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Forgets what is for an account that left a group.
pub(crate) async fn forget_member(tx: &mut Tx, group: GroupId, account: AccountId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM errand WHERE chat = ?1 AND account = ?2")
        .bind(group.to_vec())
        .bind(account.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The accounts that something of a group waits for.
pub(crate) async fn awaited(store: &Store, group: GroupId) -> Result<Vec<AccountId>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT account FROM errand WHERE chat = ?1")
        .bind(group.to_vec())
        .fetch_all(&store.pool)
        .await?;
    let broken = |_| StoreError::Inconsistent { table: "errand", column: "account" };
    rows.iter().map(|row| AccountId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(broken)).collect()
}

/// A message for a device that had no payload of it.
pub(crate) async fn put_supplement(
    tx: &mut Tx,
    account: AccountId,
    device: DeviceId,
    message: MessageId,
    mark: &[u8],
) -> Result<(), StoreError> {
    let known = sqlx::query("SELECT 1 FROM errand WHERE device = ?1 AND message = ?2")
        .bind(device.to_vec())
        .bind(message.to_vec())
        .fetch_optional(&mut **tx)
        .await?;
    if known.is_none() {
        sqlx::query("INSERT INTO errand (account, device, message, mark) VALUES (?1, ?2, ?3, ?4)")
            .bind(account.to_vec())
            .bind(device.to_vec())
            .bind(message.to_vec())
            .bind(mark)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// A message again for a device that could not read it, at most `most` times.
pub(crate) async fn put_resend(
    tx: &mut Tx,
    account: AccountId,
    device: DeviceId,
    mark: &[u8],
    most: i64,
) -> Result<(), StoreError> {
    let row = sqlx::query(
        "INSERT INTO resend (device, mark, times) VALUES (?1, ?2, 1) \
         ON CONFLICT (device, mark) DO UPDATE SET times = times + 1 RETURNING times",
    )
    .bind(device.to_vec())
    .bind(mark)
    .fetch_one(&mut **tx)
    .await?;
    if row.try_get::<i64, _>(0)? <= most {
        sqlx::query("INSERT INTO errand (account, device, mark) VALUES (?1, ?2, ?3)")
            .bind(account.to_vec())
            .bind(device.to_vec())
            .bind(mark)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Whether the session with a device may start over now; if so, that is noted.
pub(crate) async fn may_reset(
    tx: &mut Tx,
    device: DeviceId,
    now_ms: u64,
    apart_ms: u64,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO session_reset (device, at_ms) VALUES (?1, ?2) \
         ON CONFLICT (device) DO UPDATE SET at_ms = ?2 WHERE at_ms <= ?2 - ?3",
    )
    .bind(device.to_vec())
    .bind(signed(now_ms))
    .bind(signed(apart_ms))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The oldest errands.
pub(crate) async fn all(store: &Store, limit: u32) -> Result<Vec<Errand>, StoreError> {
    let rows =
        sqlx::query("SELECT seq, account, device, content, mark, chat FROM errand ORDER BY seq LIMIT ?1")
            .bind(i64::from(limit))
            .fetch_all(&store.pool)
            .await?;
    let broken = |column| StoreError::Inconsistent { table: "errand", column };
    rows.iter()
        .map(|row| {
            let mark: Option<Vec<u8>> = row.try_get(4)?;
            let chat: Option<Vec<u8>> = row.try_get(5)?;
            let mark = mark.map(|mark| pb::Watermark::decode(mark.as_slice()).map_err(|_| broken("mark")));
            Ok(Errand {
                seq: row.try_get(0)?,
                account: AccountId::try_from(&row.try_get::<Vec<u8>, _>(1)?)
                    .map_err(|_| broken("account"))?,
                device: DeviceId::try_from(&row.try_get::<Vec<u8>, _>(2)?).map_err(|_| broken("device"))?,
                content: row.try_get(3)?,
                mark: mark.transpose()?,
                chat: chat.map(|id| GroupId::try_from(&id).map_err(|_| broken("chat"))).transpose()?,
            })
        })
        .collect()
}

/// Forgets one.
pub(crate) async fn delete(store: &Store, seq: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM errand WHERE seq = ?1").bind(seq).execute(&store.pool).await?;
    Ok(())
}
