//! Posts of groups as a person sees them, and the own ones on their way (spec 07-groups).

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use tidings_proto::id::{AccountId, DeviceId, GroupId, MessageId};

use super::super::messages::next_seq;
use super::super::{Store, Tx, signed, unsigned};
use crate::error::StoreError;

/// How far a post got. A new term of the hub may undo `Placed` and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PostState {
    /// In this device's store only.
    Queued = 0,
    /// Durable at the sender's home.
    AcceptedByHome = 1,
    /// In the group's log.
    Placed = 2,
    /// Held by a majority of the keepers: it stays where it is.
    Stable = 3,
    /// Every member has it on a device.
    DeliveredToAll = 4,
    /// Will not arrive; the reason stands beside it.
    Failed = 5,
    /// Every member has read it.
    ReadByAll = 6,
    /// Came from somebody else.
    Received = 7,
}

impl PostState {
    fn from_column(value: i64) -> Result<Self, StoreError> {
        Ok(match value {
            0 => Self::Queued,
            1 => Self::AcceptedByHome,
            2 => Self::Placed,
            3 => Self::Stable,
            4 => Self::DeliveredToAll,
            5 => Self::Failed,
            6 => Self::ReadByAll,
            7 => Self::Received,
            _ => return Err(broken("state")),
        })
    }
}

/// A place in a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The term of the hub that gave it.
    pub term: u64,
    /// The number of the entry.
    pub seq: u64,
}

/// A post in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Place in this device's store; rises in the order of the log.
    pub local: u64,
    /// The group.
    pub group: GroupId,
    /// The id given by its sender, inside the ciphertext.
    pub id: MessageId,
    /// Where it stands in the log; none yet, or not any more.
    pub place: Option<Place>,
    /// Who wrote it.
    pub sender: AccountId,
    /// On which device.
    pub device: DeviceId,
    /// The sending device's own number in the group, 0 while it has none.
    pub number: u64,
    /// What it says.
    pub text: String,
    /// The post that it answers.
    pub reply_to: Option<Place>,
    /// Whom it names.
    pub mentions: Vec<AccountId>,
    /// The sender's clock, Unix milliseconds; for display only.
    pub sent_at_ms: u64,
    /// How far it got.
    pub state: PostState,
    /// Why it failed or cannot be shown, for people.
    pub reason: Option<String>,
}

fn broken(column: &'static str) -> StoreError {
    StoreError::Inconsistent { table: "post", column }
}

fn post(row: &SqliteRow) -> Result<Post, StoreError> {
    let bytes = |column: &'static str| row.try_get::<Vec<u8>, _>(column);
    let place = |term: &'static str, seq: &'static str| -> Result<Option<Place>, StoreError> {
        let (term, seq): (Option<i64>, Option<i64>) = (row.try_get(term)?, row.try_get(seq)?);
        Ok(term.zip(seq).map(|(term, seq)| Place { term: unsigned(term), seq: unsigned(seq) }))
    };
    let mentions = bytes("mentions")?;
    let mentions: Result<Vec<_>, _> = mentions.chunks(32).map(AccountId::try_from).collect();
    Ok(Post {
        local: unsigned(row.try_get("local")?),
        group: GroupId::try_from(&bytes("chat")?).map_err(|_| broken("chat"))?,
        id: MessageId::try_from(&bytes("id")?).map_err(|_| broken("id"))?,
        place: place("term", "seq")?,
        sender: AccountId::try_from(&bytes("sender")?).map_err(|_| broken("sender"))?,
        device: DeviceId::try_from(&bytes("device")?).map_err(|_| broken("device"))?,
        number: unsigned(row.try_get("number")?),
        text: row.try_get("text")?,
        reply_to: place("reply_term", "reply_seq")?,
        mentions: mentions.map_err(|_| broken("mentions"))?,
        sent_at_ms: unsigned(row.try_get("sent_at_ms")?),
        state: PostState::from_column(row.try_get("state")?)?,
        reason: row.try_get("reason")?,
    })
}

/// An own post that waits, and whether an earlier submission of it is still unanswered.
pub(crate) struct Waiting {
    pub(crate) post: Post,
    pub(crate) encrypted: bool,
    pub(crate) under_way: bool,
}

impl Store {
    /// The newest posts of a group before `before` (a [`Post::local`]), oldest first; own ones that the log does not
    /// have come last.
    ///
    /// # Errors
    /// If SQLite fails or a row is broken.
    pub async fn posts(&self, of: GroupId, before: u64, limit: u32) -> Result<Vec<Post>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM post WHERE chat = ?1 AND local < ?2 ORDER BY (seq IS NULL) DESC, local DESC LIMIT ?3",
        )
        .bind(of.to_vec())
        .bind(signed(before))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().rev().map(post).collect()
    }

    /// One post by its id.
    ///
    /// # Errors
    /// If SQLite fails or the row is broken.
    pub async fn post(&self, id: MessageId) -> Result<Option<Post>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM post WHERE id = ?1").bind(id.to_vec()).fetch_optional(&self.pool);
        row.await?.as_ref().map(post).transpose()
    }

    /// How many posts of others in a group nobody of this account has read.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn unread_posts(&self, of: GroupId) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT COUNT(*) FROM post WHERE chat = ?1 AND state = 7 AND seq > (SELECT read FROM chat WHERE id = ?1) \
             AND sender != (SELECT value FROM meta WHERE key = 'account')",
        )
        .bind(of.to_vec())
        .fetch_one(&self.pool)
        .await?;
        Ok(unsigned(row.try_get(0)?))
    }

    /// Groups with own posts that wait to be encrypted, the longest waiting first.
    pub(crate) async fn waiting_groups(&self) -> Result<Vec<GroupId>, StoreError> {
        let rows = sqlx::query(
            "SELECT chat, MIN(local) AS oldest FROM post WHERE state = 0 AND counter IS NULL GROUP BY chat ORDER BY oldest",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| GroupId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(|_| broken("chat")))
            .collect()
    }

    /// Own posts of a group that no home has taken, in order.
    pub(crate) async fn waiting_posts(&self, of: GroupId) -> Result<Vec<Waiting>, StoreError> {
        let rows = sqlx::query(
            "SELECT *, EXISTS (SELECT 1 FROM submission WHERE submission.message = post.id) AS under_way \
             FROM post WHERE chat = ?1 AND state = 0 ORDER BY local",
        )
        .bind(of.to_vec())
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let encrypted = row.try_get::<Option<i64>, _>("counter")?.is_some();
                let under_way = row.try_get::<i64, _>("under_way")? != 0;
                Ok(Waiting { post: post(row)?, encrypted, under_way })
            })
            .collect()
    }

    /// The last number that this device gave a post of a group.
    pub(crate) async fn own_number(&self, group: GroupId) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT own_number FROM chat WHERE id = ?1")
            .bind(group.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        row.map_or(Ok(0), |row| Ok(unsigned(row.try_get(0)?)))
    }

    /// Own posts of a device in a group with a number, the newest first.
    pub(crate) async fn own_post(
        &self,
        group: GroupId,
        device: DeviceId,
        number: u64,
    ) -> Result<Option<Post>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM post WHERE chat = ?1 AND device = ?2 AND number = ?3 ORDER BY local DESC LIMIT 1",
        )
        .bind(group.to_vec())
        .bind(device.to_vec())
        .bind(signed(number))
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(post).transpose()
    }
}

/// Writes a post; one that is there already stays as it is. Returns whether it is new.
pub(crate) async fn put_post(tx: &mut Tx, post: &Post, digest: Option<&[u8]>) -> Result<bool, StoreError> {
    let mentions: Vec<u8> = post.mentions.iter().flat_map(|account| account.0).collect();
    let done = sqlx::query(
        "INSERT OR IGNORE INTO post (local, id, chat, term, seq, sender, device, number, text, reply_term, reply_seq, \
         mentions, sent_at_ms, state, reason, digest) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )
    .bind(signed(post.local))
    .bind(post.id.to_vec())
    .bind(post.group.to_vec())
    .bind(post.place.map(|place| signed(place.term)))
    .bind(post.place.map(|place| signed(place.seq)))
    .bind(post.sender.to_vec())
    .bind(post.device.to_vec())
    .bind(signed(post.number))
    .bind(&post.text)
    .bind(post.reply_to.map(|place| signed(place.term)))
    .bind(post.reply_to.map(|place| signed(place.seq)))
    .bind(mentions)
    .bind(signed(post.sent_at_ms))
    .bind(post.state as i64)
    .bind(&post.reason)
    .bind(digest)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An own post was encrypted and numbered; the submission with this counter carries it.
pub(crate) async fn set_encrypted(
    tx: &mut Tx,
    post: &Post,
    counter: u64,
    digest: &[u8],
) -> Result<(), StoreError> {
    sqlx::query("UPDATE post SET number = ?2, counter = ?3, digest = ?4 WHERE id = ?1")
        .bind(post.id.to_vec())
        .bind(signed(post.number))
        .bind(signed(counter))
        .bind(digest)
        .execute(&mut **tx)
        .await?;
    set_own_number(tx, post.group, post.number).await
}

/// Sets the last number that this device gave a post of a group.
pub(crate) async fn set_own_number(tx: &mut Tx, group: GroupId, number: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE chat SET own_number = ?2 WHERE id = ?1")
        .bind(group.to_vec())
        .bind(signed(number))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The own home has a post. False: that submission is not the post's any more.
pub(crate) async fn set_accepted(tx: &mut Tx, id: MessageId, counter: u64) -> Result<bool, StoreError> {
    let done =
        sqlx::query("UPDATE post SET state = MAX(state, 1), reason = NULL WHERE id = ?1 AND counter = ?2")
            .bind(id.to_vec())
            .bind(signed(counter))
            .execute(&mut **tx)
            .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether a submission is still the one that carries a post.
pub(crate) async fn is_carried(tx: &mut Tx, id: MessageId, counter: u64) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM post WHERE id = ?1 AND counter = ?2 AND seq IS NULL")
        .bind(id.to_vec())
        .bind(signed(counter))
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.is_some())
}

/// Posts of this device from a number on that the log does not have wait to be encrypted anew, under the same ids
/// and, in the same order, numbers.
pub(crate) async fn requeue(
    tx: &mut Tx,
    group: GroupId,
    device: DeviceId,
    from: u64,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM kept WHERE message IN (SELECT id FROM post WHERE chat = ?1 AND device = ?2 AND number >= ?3 AND seq IS NULL)")
        .bind(group.to_vec())
        .bind(device.to_vec())
        .bind(signed(from))
        .execute(&mut **tx)
        .await?;
    sqlx::query(
        "UPDATE post SET state = 0, number = 0, counter = NULL WHERE chat = ?1 AND device = ?2 AND number >= ?3 \
         AND seq IS NULL AND state < 2",
    )
    .bind(group.to_vec())
    .bind(device.to_vec())
    .bind(signed(from))
    .execute(&mut **tx)
    .await?;
    set_own_number(tx, group, from.saturating_sub(1)).await
}

/// Sets a post to failed, with a reason for people; it has no number any more.
pub(crate) async fn set_failed(tx: &mut Tx, id: MessageId, reason: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE post SET state = 5, reason = ?2, number = 0, counter = NULL WHERE id = ?1 AND seq IS NULL",
    )
    .bind(id.to_vec())
    .bind(reason)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The log has a post: it moves behind everything that stands before it there.
pub(crate) async fn set_placed(tx: &mut Tx, id: MessageId, place: Place) -> Result<(), StoreError> {
    let local = next_seq(tx).await?;
    sqlx::query(
        "UPDATE post SET local = ?2, term = ?3, seq = ?4, reason = NULL, state = iif(state = 7, 7, 2) WHERE id = ?1",
    )
    .bind(id.to_vec())
    .bind(signed(local))
    .bind(signed(place.term))
    .bind(signed(place.seq))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Raises own posts up to a number of the log to a state. Returns how many changed.
pub(crate) async fn raise(
    tx: &mut Tx,
    group: GroupId,
    upto: u64,
    state: PostState,
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "UPDATE post SET state = ?3 WHERE chat = ?1 AND seq <= ?2 AND state BETWEEN 2 AND ?3 - 1 AND state != 5",
    )
    .bind(group.to_vec())
    .bind(signed(upto))
    .bind(state as i64)
    .execute(&mut **tx)
    .await?;
    if state == PostState::Stable {
        sqlx::query(
            "DELETE FROM kept WHERE message IN (SELECT id FROM post WHERE chat = ?1 AND seq <= ?2 AND counter IS NOT NULL)",
        )
        .bind(group.to_vec())
        .bind(signed(upto))
        .execute(&mut **tx)
        .await?;
    }
    Ok(done.rows_affected())
}

/// The user read a group up to where this device has it.
pub(crate) async fn read_all(tx: &mut Tx, group: GroupId) -> Result<(), StoreError> {
    sqlx::query("UPDATE chat SET read = MAX(read, seq) WHERE id = ?1")
        .bind(group.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The home was told so.
pub(crate) async fn put_told(tx: &mut Tx, group: GroupId, upto: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE chat SET told = MAX(told, ?2) WHERE id = ?1")
        .bind(group.to_vec())
        .bind(signed(upto))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

impl Store {
    /// Groups of which the user read more than the home knows, with how far.
    pub(crate) async fn untold_groups(&self) -> Result<Vec<(GroupId, u64)>, StoreError> {
        let rows = sqlx::query("SELECT id, read FROM chat WHERE read > told AND status = 3")
            .fetch_all(&self.pool)
            .await?;
        let broken = |_| StoreError::Inconsistent { table: "chat", column: "id" };
        rows.iter()
            .map(|row| {
                let id = GroupId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(broken)?;
                Ok((id, unsigned(row.try_get(1)?)))
            })
            .collect()
    }
}

/// Whether a post of a device is known and stands nowhere in the log.
pub(crate) async fn is_unplaced(tx: &mut Tx, id: MessageId, device: DeviceId) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM post WHERE id = ?1 AND device = ?2 AND seq IS NULL")
        .bind(id.to_vec())
        .bind(device.to_vec())
        .fetch_optional(&mut **tx)
        .await?;
    Ok(row.is_some())
}

/// The post of a device with this ciphertext that stands nowhere in the log.
pub(crate) async fn unplaced_of(
    tx: &mut Tx,
    group: GroupId,
    device: DeviceId,
    digest: &[u8],
) -> Result<Option<MessageId>, StoreError> {
    let row =
        sqlx::query("SELECT id FROM post WHERE chat = ?1 AND device = ?2 AND digest = ?3 AND seq IS NULL")
            .bind(group.to_vec())
            .bind(device.to_vec())
            .bind(digest)
            .fetch_optional(&mut **tx)
            .await?;
    row.map(|row| MessageId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(|_| broken("id"))).transpose()
}
