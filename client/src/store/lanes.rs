//! How far each lane was seen and read by this account (spec 06-messages, "Lanes").

use sqlx::Row as _;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::pb;

use super::messages::Lane;
use super::{Store, Tx, signed, unsigned};
use crate::error::StoreError;

/// Notes that a number of a lane came. Returns the numbers before it that never came and that nobody
/// accounts for, if there are any.
pub(crate) async fn seen(
    tx: &mut Tx,
    sender: AccountId,
    lane: Lane,
    number: u64,
    accounted: &[pb::Range],
) -> Result<Option<(u64, u64)>, StoreError> {
    let row = sqlx::query("SELECT seen FROM lane WHERE sender = ?1 AND links = ?2 AND home = ?3")
        .bind(sender.to_vec())
        .bind(signed(lane.address_links))
        .bind(lane.incarnation.to_vec())
        .fetch_optional(&mut **tx)
        .await?;
    let before = row.map(|row| row.try_get(0).map(unsigned)).transpose()?.unwrap_or(0);
    sqlx::query(
        "INSERT INTO lane (sender, links, home, seen) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (sender, links, home) DO UPDATE SET seen = MAX(seen, ?4)",
    )
    .bind(sender.to_vec())
    .bind(signed(lane.address_links))
    .bind(lane.incarnation.to_vec())
    .bind(signed(number))
    .execute(&mut **tx)
    .await?;
    Ok(gap(before, number, accounted))
}

/// Notes a device's own number in a conversation. Returns how many were jumped over; 0 also for the first that
/// is seen of a device, which may have written before this one knew it (ENC-015).
pub(crate) async fn seen_of_device(
    tx: &mut Tx,
    conversation: AccountId,
    device: DeviceId,
    number: u64,
) -> Result<u64, StoreError> {
    let row = sqlx::query("SELECT number FROM device_seen WHERE conversation = ?1 AND device = ?2")
        .bind(conversation.to_vec())
        .bind(device.to_vec())
        .fetch_optional(&mut **tx)
        .await?;
    let before = row.map(|row| row.try_get(0).map(unsigned)).transpose()?;
    sqlx::query(
        "INSERT INTO device_seen (conversation, device, number) VALUES (?1, ?2, ?3) \
         ON CONFLICT (conversation, device) DO UPDATE SET number = MAX(number, ?3)",
    )
    .bind(conversation.to_vec())
    .bind(device.to_vec())
    .bind(signed(number))
    .execute(&mut **tx)
    .await?;
    Ok(before.map_or(0, |before| number.saturating_sub(before.saturating_add(1))))
}

/// The first unaccounted numbers strictly between two.
fn gap(before: u64, number: u64, accounted: &[pb::Range]) -> Option<(u64, u64)> {
    let mut next = before.saturating_add(1);
    let mut ranges: Vec<_> = accounted.iter().collect();
    ranges.sort_by_key(|range| range.from);
    for range in ranges {
        if range.from <= next {
            next = next.max(range.to.saturating_add(1));
        }
    }
    (next < number).then(|| (next, number.saturating_sub(1)))
}

/// Another device of this account read a lane up to here, and the home said so.
pub(crate) async fn put_read(
    tx: &mut Tx,
    sender: AccountId,
    lane: Lane,
    upto: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO lane (sender, links, home, read, told) VALUES (?1, ?2, ?3, ?4, ?4) \
         ON CONFLICT (sender, links, home) DO UPDATE SET read = MAX(read, ?4), told = MAX(told, ?4)",
    )
    .bind(sender.to_vec())
    .bind(signed(lane.address_links))
    .bind(lane.incarnation.to_vec())
    .bind(signed(upto))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The user read everything seen of one account; the home is told when there is a connection.
pub(crate) async fn read_all(tx: &mut Tx, sender: AccountId) -> Result<(), StoreError> {
    sqlx::query("UPDATE lane SET read = MAX(read, seen) WHERE sender = ?1")
        .bind(sender.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The home knows that a lane was read up to here.
pub(crate) async fn put_told(tx: &mut Tx, unread: &Untold) -> Result<(), StoreError> {
    sqlx::query("UPDATE lane SET told = MAX(told, ?4) WHERE sender = ?1 AND links = ?2 AND home = ?3")
        .bind(unread.sender.to_vec())
        .bind(signed(unread.lane.address_links))
        .bind(unread.lane.incarnation.to_vec())
        .bind(signed(unread.upto))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A lane of which the user read more than the home knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Untold {
    pub(crate) sender: AccountId,
    pub(crate) lane: Lane,
    pub(crate) upto: u64,
}

impl Store {
    /// The lanes of accepted accounts of which the user read more than the home knows (PRV-009).
    pub(crate) async fn untold(&self) -> Result<Vec<Untold>, StoreError> {
        let rows = sqlx::query(
            "SELECT sender, links, home, read FROM lane JOIN account ON account.id = lane.sender \
             WHERE read > told AND account.accepted = 1",
        )
        .fetch_all(&self.pool)
        .await?;
        let broken = |column| StoreError::Inconsistent { table: "lane", column };
        rows.iter()
            .map(|row| {
                let sender =
                    AccountId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(|_| broken("sender"))?;
                let incarnation = row.try_get::<Vec<u8>, _>(2)?.try_into().map_err(|_| broken("home"))?;
                let lane = Lane { address_links: unsigned(row.try_get(1)?), incarnation };
                Ok(Untold { sender, lane, upto: unsigned(row.try_get(3)?) })
            })
            .collect()
    }

    /// How many messages from one account nobody of this account has read.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn unread_count(&self, sender: AccountId) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM message JOIN lane ON lane.sender = message.sender AND lane.links = message.lane_links \
             AND lane.home = message.lane_home WHERE message.conversation = ?1 AND message.sender = ?1 AND message.number > lane.read",
        )
        .bind(sender.to_vec())
        .fetch_one(&self.pool)
        .await?;
        Ok(unsigned(row.try_get(0)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_what_nobody_accounts_for() {
        let range = |from, to| pb::Range { from, to };
        assert_eq!(gap(0, 1, &[]), None);
        assert_eq!(gap(3, 4, &[]), None);
        assert_eq!(gap(3, 7, &[]), Some((4, 6)));
        assert_eq!(gap(3, 7, &[range(4, 6)]), None);
        assert_eq!(gap(3, 7, &[range(6, 6), range(4, 4)]), Some((5, 6)));
        assert_eq!(gap(3, 7, &[range(5, 6), range(4, 4)]), None);
        assert_eq!(gap(9, 7, &[]), None, "a supplement or a repetition");
    }
}
