//! What came about own messages before the outcome that gives them their number: between two streams there is
//! no order (spec 02-session, 2.6).

use prost::Message as _;
use sqlx::Row as _;
use tidings_proto::id::AccountId;
use tidings_proto::pb;

use super::messages::{Lane, Mark, State};
use super::{Tx, signed, unsigned};
use crate::error::StoreError;

/// Keeps the newest watermark of a lane and state.
pub(crate) async fn put(tx: &mut Tx, conversation: AccountId, mark: &Mark) -> Result<(), StoreError> {
    let exceptions = mark.except.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    sqlx::query(
        "INSERT INTO mark (conversation, links, home, state, upto, exceptions) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (conversation, links, home, state) DO UPDATE SET upto = ?5, exceptions = ?6 WHERE upto <= ?5",
    )
    .bind(conversation.to_vec())
    .bind(signed(mark.lane.address_links))
    .bind(mark.lane.incarnation.to_vec())
    .bind(mark.state as i64)
    .bind(signed(mark.upto))
    .bind(exceptions)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The newest watermarks of a lane, the least state first.
pub(crate) async fn of_lane(
    tx: &mut Tx,
    conversation: AccountId,
    sender: AccountId,
    lane: Lane,
) -> Result<Vec<Mark>, StoreError> {
    let rows = sqlx::query(
        "SELECT state, upto, exceptions FROM mark WHERE conversation = ?1 AND links = ?2 AND home = ?3 ORDER BY state",
    )
    .bind(conversation.to_vec())
    .bind(signed(lane.address_links))
    .bind(lane.incarnation.to_vec())
    .fetch_all(&mut **tx)
    .await?;
    rows.iter()
        .map(|row| {
            let exceptions: String = row.try_get(2)?;
            let except = exceptions.split(',').filter_map(|number| number.parse().ok()).collect();
            let state = State::from_column(row.try_get(0)?)?;
            Ok(Mark { sender, lane, upto: unsigned(row.try_get(1)?), except, state })
        })
        .collect()
}

/// Keeps a notice about numbers that no message here has yet.
pub(crate) async fn put_early(
    tx: &mut Tx,
    conversation: AccountId,
    notice: &pb::Notice,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO early_notice (conversation, body) VALUES (?1, ?2)")
        .bind(conversation.to_vec())
        .bind(notice.encode_to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The notices that came early in a conversation.
pub(crate) async fn early(tx: &mut Tx, conversation: AccountId) -> Result<Vec<pb::Notice>, StoreError> {
    let rows = sqlx::query("SELECT body FROM early_notice WHERE conversation = ?1 ORDER BY seq")
        .bind(conversation.to_vec())
        .fetch_all(&mut **tx)
        .await?;
    let broken = |_| StoreError::Inconsistent { table: "early_notice", column: "body" };
    rows.iter()
        .map(|row| pb::Notice::decode(row.try_get::<Vec<u8>, _>(0)?.as_slice()).map_err(broken))
        .collect()
}

/// Forgets those that came early when no outcome is to come any more.
pub(crate) async fn settle(tx: &mut Tx) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM early_notice WHERE NOT EXISTS (SELECT 1 FROM submission)")
        .execute(&mut **tx)
        .await?;
    Ok(())
}
