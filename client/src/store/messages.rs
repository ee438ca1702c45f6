//! Messages as a person sees them, with how far each got (spec 06-messages).

use sqlx::Row as _;
use tidings_proto::id::{AccountId, DeviceId, MessageId};

use super::accounts::Contact;
use super::{Store, Tx, signed, unsigned};
use crate::error::StoreError;

/// How far a message got. A later state never goes back to an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// In this device's store only.
    Queued = 0,
    /// Durable at the sender's home.
    AcceptedByHome = 1,
    /// Durable at the recipient's home.
    AcceptedByPeer = 2,
    /// On at least one of the recipient's devices.
    Delivered = 3,
    /// Read.
    Read = 4,
    /// Will not arrive; the reason stands beside it.
    Failed = 5,
    /// Came from somebody else.
    Received = 6,
}

impl State {
    pub(crate) fn from_column(value: i64) -> Result<Self, StoreError> {
        Ok(match value {
            0 => Self::Queued,
            1 => Self::AcceptedByHome,
            2 => Self::AcceptedByPeer,
            3 => Self::Delivered,
            4 => Self::Read,
            5 => Self::Failed,
            6 => Self::Received,
            _ => return Err(StoreError::Inconsistent { table: "message", column: "state" }),
        })
    }
}

/// A message in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Place in this device's store; rises in the order of arrival.
    pub seq: u64,
    /// The id given by its sender, inside the ciphertext.
    pub id: MessageId,
    /// The other account of the conversation.
    pub conversation: AccountId,
    /// Who wrote it.
    pub sender: AccountId,
    /// On which device.
    pub device: DeviceId,
    /// What it says.
    pub text: String,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// The sender's clock, Unix milliseconds; for display only.
    pub sent_at_ms: u64,
    /// Lane number, 0 while unknown.
    pub number: u64,
    /// The sending device's own number in the conversation.
    pub own_number: u64,
    /// Seconds it lives after it was read, 0 for ever.
    pub lifetime_secs: u32,
    /// How far it got.
    pub state: State,
    /// Why it failed or waits, for people.
    pub reason: Option<String>,
}

/// A conversation as a list of them shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// With whom. A request of a stranger is one whose standing is undecided.
    pub contact: Contact,
    /// The newest message; none if nothing was said yet.
    pub last: Option<Message>,
    /// How many messages from it nobody of this account has read.
    pub unread: u64,
}

/// The lane a message stands on, beside its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) address_links: u64,
    pub(crate) incarnation: [u8; 16],
}

fn message(row: &sqlx::sqlite::SqliteRow) -> Result<Message, StoreError> {
    let broken = |column| StoreError::Inconsistent { table: "message", column };
    let bytes = |column| row.try_get::<Vec<u8>, _>(column);
    let reply: Option<Vec<u8>> = row.try_get("reply_to")?;
    Ok(Message {
        seq: unsigned(row.try_get("seq")?),
        id: MessageId::try_from(&bytes("id")?).map_err(|_| broken("id"))?,
        conversation: AccountId::try_from(&bytes("conversation")?).map_err(|_| broken("conversation"))?,
        sender: AccountId::try_from(&bytes("sender")?).map_err(|_| broken("sender"))?,
        device: DeviceId::try_from(&bytes("device")?).map_err(|_| broken("device"))?,
        text: row.try_get("text")?,
        reply_to: reply.map(|id| MessageId::try_from(&id).map_err(|_| broken("reply_to"))).transpose()?,
        sent_at_ms: unsigned(row.try_get("sent_at_ms")?),
        number: unsigned(row.try_get("number")?),
        own_number: unsigned(row.try_get("own_number")?),
        lifetime_secs: u32::try_from(row.try_get::<i64, _>("lifetime")?).map_err(|_| broken("lifetime"))?,
        state: State::from_column(row.try_get("state")?)?,
        reason: row.try_get("reason")?,
    })
}

impl Store {
    /// The newest messages of a conversation before `before` (a [`Message::seq`]), oldest first.
    ///
    /// # Errors
    /// If SQLite fails or a row is broken.
    pub async fn messages(&self, of: AccountId, before: u64, limit: u32) -> Result<Vec<Message>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM message WHERE conversation = ?1 AND seq < ?2 AND NOT EXISTS \
             (SELECT 1 FROM message_body WHERE message_body.message = message.id) ORDER BY seq DESC LIMIT ?3",
        )
        .bind(of.to_vec())
        .bind(signed(before))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().rev().map(message).collect()
    }

    /// All conversations with their newest message and what is unread of them, the most recent first.
    ///
    /// # Errors
    /// If SQLite fails or a row is broken.
    pub async fn conversations(&self) -> Result<Vec<Conversation>, StoreError> {
        let mut conversations = Vec::new();
        for contact in self.contacts().await? {
            let last = self.messages(contact.account, u64::MAX, 1).await?.pop();
            let unread = self.unread_count(contact.account).await?;
            conversations.push(Conversation { contact, last, unread });
        }
        conversations.sort_by_key(|conversation| {
            std::cmp::Reverse(conversation.last.as_ref().map_or(0, |message| message.seq))
        });
        Ok(conversations)
    }

    /// One message by its id.
    ///
    /// # Errors
    /// If SQLite fails or the row is broken.
    pub async fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let row = sqlx::query("SELECT * FROM message WHERE id = ?1")
            .bind(id.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(message).transpose()
    }

    /// Conversations with messages that are not submitted yet, the longest waiting first.
    pub(crate) async fn waiting_conversations(&self) -> Result<Vec<AccountId>, StoreError> {
        let rows = sqlx::query(
            "SELECT conversation, MIN(seq) AS oldest FROM message WHERE state = 0 AND NOT EXISTS \
             (SELECT 1 FROM submission WHERE submission.message = message.id) GROUP BY conversation ORDER BY oldest",
        )
        .fetch_all(&self.pool)
        .await?;
        let broken = |_| StoreError::Inconsistent { table: "message", column: "conversation" };
        rows.iter().map(|row| AccountId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(broken)).collect()
    }

    /// Messages of a conversation not yet submitted, in the order they were written.
    pub(crate) async fn unsubmitted(&self, to: AccountId, limit: u32) -> Result<Vec<Message>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM message WHERE state = 0 AND conversation = ?1 AND NOT EXISTS \
             (SELECT 1 FROM submission WHERE submission.message = message.id) ORDER BY seq LIMIT ?2",
        )
        .bind(to.to_vec())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(message).collect()
    }
}

impl Store {
    /// What a message says that is no text, encoded.
    pub(crate) async fn body(&self, id: MessageId) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT content FROM message_body WHERE message = ?1")
            .bind(id.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(row.try_get(0)?)).transpose()
    }

    /// Messages one sender wrote in a conversation, by their lane numbers.
    pub(crate) async fn in_range(
        &self,
        to: AccountId,
        sender: AccountId,
        lane: Lane,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> Result<Vec<Message>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM message WHERE conversation = ?1 AND sender = ?2 AND lane_links = ?3 AND lane_home = ?4 \
             AND number BETWEEN MAX(?5, 1) AND ?6 ORDER BY number",
        )
        .bind(to.to_vec())
        .bind(sender.to_vec())
        .bind(signed(lane.address_links))
        .bind(lane.incarnation.to_vec())
        .bind(signed(*numbers.start()))
        .bind(signed(*numbers.end()))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(message).collect()
    }
}

/// The number the next message of this device in a conversation has.
async fn next_own_number(tx: &mut Tx, to: AccountId, device: DeviceId) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT COALESCE(MAX(own_number), 0) FROM message WHERE conversation = ?1 AND device = ?2",
    )
    .bind(to.to_vec())
    .bind(device.to_vec())
    .fetch_one(&mut **tx)
    .await?;
    Ok(unsigned(row.try_get(0)?).saturating_add(1))
}

/// Writes a message; one that is there already stays as it is. Returns whether it is new.
pub(crate) async fn put_message(
    tx: &mut Tx,
    message: &Message,
    lane: Option<Lane>,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT OR IGNORE INTO message (id, conversation, sender, device, text, reply_to, sent_at_ms, lane_links, \
         lane_home, number, own_number, lifetime, state, reason, seq) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )
    .bind(message.id.to_vec())
    .bind(message.conversation.to_vec())
    .bind(message.sender.to_vec())
    .bind(message.device.to_vec())
    .bind(&message.text)
    .bind(message.reply_to.map(|id| id.to_vec()))
    .bind(signed(message.sent_at_ms))
    .bind(signed(lane.map_or(0, |lane| lane.address_links)))
    .bind(lane.map(|lane| lane.incarnation.to_vec()))
    .bind(signed(message.number))
    .bind(signed(message.own_number))
    .bind(i64::from(message.lifetime_secs))
    .bind(message.state as i64)
    .bind(&message.reason)
    .bind(signed(message.seq))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What a message says that is no text: it stands in no list of messages.
pub(crate) async fn put_body(tx: &mut Tx, id: MessageId, content: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO message_body (message, content) VALUES (?1, ?2)")
        .bind(id.to_vec())
        .bind(content)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The next place in this device's store. None is given out twice, also after its message was deleted.
pub(crate) async fn next_seq(tx: &mut Tx) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "INSERT INTO place (one, seq) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET seq = seq + 1 RETURNING seq",
    )
    .fetch_one(&mut **tx)
    .await?;
    Ok(unsigned(row.try_get(0)?))
}

/// Gives a message the sending device's number in its conversation, once.
pub(crate) async fn set_own_number(tx: &mut Tx, message: &mut Message) -> Result<(), StoreError> {
    if message.own_number > 0 {
        return Ok(());
    }
    message.own_number = next_own_number(tx, message.conversation, message.device).await?;
    sqlx::query("UPDATE message SET own_number = ?2 WHERE id = ?1")
        .bind(message.id.to_vec())
        .bind(signed(message.own_number))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Notes why a message waits; `None` if it does not any more. Returns whether that is new.
pub(crate) async fn set_waiting(
    tx: &mut Tx,
    id: MessageId,
    reason: Option<&str>,
) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE message SET reason = ?2 WHERE id = ?1 AND state < 2 AND reason IS NOT ?2")
        .bind(id.to_vec())
        .bind(reason)
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Messages with a lifetime in a conversation were read up to now: those of others, or own ones.
pub(crate) async fn start_lifetimes(
    tx: &mut Tx,
    conversation: AccountId,
    own: bool,
    now_ms: u64,
) -> Result<(), StoreError> {
    // Own ones begin when the other side has read them; those of others when the user has.
    let which = if own {
        "UPDATE message SET gone_at_ms = ?2 + lifetime * 1000 WHERE conversation = ?1 AND lifetime > 0 \
         AND gone_at_ms IS NULL AND state = 4"
    } else {
        "UPDATE message SET gone_at_ms = ?2 + lifetime * 1000 WHERE conversation = ?1 AND lifetime > 0 \
         AND gone_at_ms IS NULL AND state = 6 AND sender = ?1 AND EXISTS (SELECT 1 FROM lane WHERE \
         lane.sender = message.sender AND lane.links = message.lane_links AND lane.home = message.lane_home \
         AND message.number <= lane.read)"
    };
    sqlx::query(which).bind(conversation.to_vec()).bind(signed(now_ms)).execute(&mut **tx).await?;
    Ok(())
}

/// Deletes messages whose lifetime is over.
pub(crate) async fn delete_gone(tx: &mut Tx, now_ms: u64) -> Result<Vec<MessageId>, StoreError> {
    let rows = sqlx::query("DELETE FROM message WHERE gone_at_ms <= ?1 RETURNING id")
        .bind(signed(now_ms))
        .fetch_all(&mut **tx)
        .await?;
    let broken = |_| StoreError::Inconsistent { table: "message", column: "id" };
    rows.iter().map(|row| MessageId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(broken)).collect()
}

/// Sets the lane and number that the home gave, with the state that follows.
pub(crate) async fn set_accepted(
    tx: &mut Tx,
    id: MessageId,
    lane: Lane,
    number: u64,
    state: State,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE message SET lane_links = ?2, lane_home = ?3, number = ?4, state = MAX(state, ?5), reason = NULL WHERE id = ?1",
    )
    .bind(id.to_vec())
    .bind(signed(lane.address_links))
    .bind(lane.incarnation.to_vec())
    .bind(signed(number))
    .bind(state as i64)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// A message that the home did not take, or that it forgot, waits to be encrypted anew.
pub(crate) async fn set_queued(tx: &mut Tx, id: MessageId) -> Result<(), StoreError> {
    sqlx::query("UPDATE message SET state = 0 WHERE id = ?1 AND state < 3")
        .bind(id.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Sets a message to failed, with a reason for people.
pub(crate) async fn set_failed(tx: &mut Tx, id: MessageId, reason: &str) -> Result<(), StoreError> {
    // A message that the home never took has no number that a reader could miss: the next one takes it.
    sqlx::query(
        "UPDATE message SET state = 5, reason = ?2, own_number = iif(number = 0, 0, own_number) WHERE id = ?1 AND state < 3",
    )
        .bind(id.to_vec())
        .bind(reason)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What a watermark says of own messages.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    pub(crate) sender: AccountId,
    pub(crate) lane: Lane,
    pub(crate) upto: u64,
    /// Numbers below that it does not cover.
    pub(crate) except: Vec<u64>,
    pub(crate) state: State,
}

/// Raises all messages of one sender in a lane up to a number to a state. Returns how many changed.
pub(crate) async fn raise(tx: &mut Tx, conversation: AccountId, mark: &Mark) -> Result<u64, StoreError> {
    // At most `read_exceptions_max` numbers, and numbers only: nothing to escape.
    let except = mark.except.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
    let done = sqlx::query(
        "UPDATE message SET state = ?6, reason = NULL WHERE conversation = ?1 AND sender = ?2 AND lane_links = ?3 \
         AND lane_home = ?4 AND number BETWEEN 1 AND ?5 AND state BETWEEN 1 AND ?6 - 1 \
         AND instr(',' || ?7 || ',', ',' || number || ',') = 0",
    )
    .bind(conversation.to_vec())
    .bind(mark.sender.to_vec())
    .bind(signed(mark.lane.address_links))
    .bind(mark.lane.incarnation.to_vec())
    .bind(signed(mark.upto))
    .bind(mark.state as i64)
    .bind(except)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected())
}

#[cfg(test)]
mod tests;
