//! The durable send queue: submissions as exact bytes until their outcome is known, and after that until
//! the recipient's home is known to have them (spec 06-messages, 6.3).

use bytes::Bytes;
use prost::Message as _;
use sqlx::Row as _;
use tidings_proto::id::{AccountId, Hash, Incarnation, MessageId};
use tidings_proto::pb;
use tidings_proto::sign::sha256;

use super::{Store, Tx, signed, unsigned};
use crate::error::StoreError;

/// A submission whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submission {
    /// The device's counter.
    pub(crate) counter: u64,
    /// The message it carries; none for service messages and supplements.
    pub(crate) message: Option<MessageId>,
    /// The payload of the Submit frame, to be sent again exactly so.
    pub(crate) bytes: Bytes,
}

/// What is known of the counter at the home, to be compared with what the home says (MSG-019).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// This device made a submission with this counter, with this digest.
    Made(Hash),
    /// Lower than the newest answered one, and its digest is forgotten.
    Older,
    /// 0, and nothing was ever answered.
    Beginning,
    /// This device never gave that counter out.
    Never,
}

fn read(row: &sqlx::sqlite::SqliteRow) -> Result<Submission, StoreError> {
    let message: Option<Vec<u8>> = row.try_get(1)?;
    let broken = |_| StoreError::Inconsistent { table: "submission", column: "message" };
    Ok(Submission {
        counter: unsigned(row.try_get(0)?),
        message: message.map(|id| MessageId::try_from(&id).map_err(broken)).transpose()?,
        bytes: row.try_get::<Vec<u8>, _>(2)?.into(),
    })
}

impl Store {
    /// Submissions after `counter`, in order.
    pub(crate) async fn submissions(&self, after: u64, limit: u32) -> Result<Vec<Submission>, StoreError> {
        let rows = sqlx::query(
            "SELECT counter, message, bytes FROM submission WHERE counter > ?1 ORDER BY counter LIMIT ?2",
        )
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(read).collect()
    }

    /// Accepted submissions that the recipient's home is not known to have, in the order of their counters.
    async fn kept(&self) -> Result<Vec<Submission>, StoreError> {
        let rows = sqlx::query("SELECT counter, message, bytes FROM kept ORDER BY counter")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(read).collect()
    }

    /// The highest counter ever given out by this device.
    pub(crate) async fn counter(&self) -> Result<u64, StoreError> {
        let value = self.value("counter").await?;
        let broken = |_| StoreError::Inconsistent { table: "meta", column: "counter" };
        value.map_or(Ok(0), |bytes| bytes.try_into().map(u64::from_be_bytes).map_err(broken))
    }

    /// What this device knows of a counter.
    pub(crate) async fn known(&self, counter: u64) -> Result<Known, StoreError> {
        if counter > self.counter().await? {
            return Ok(Known::Never);
        }
        if let Some(found) = self.submissions(counter.saturating_sub(1), 1).await?.first()
            && found.counter == counter
        {
            return Ok(Known::Made(sha256(&found.bytes)));
        }
        let broken = || StoreError::Inconsistent { table: "meta", column: "answered" };
        let Some(answered) = self.value("answered").await? else {
            return Ok(if counter == 0 { Known::Beginning } else { Known::Older });
        };
        let (number, digest) = answered.split_first_chunk::<8>().ok_or_else(broken)?;
        if u64::from_be_bytes(*number) != counter {
            return Ok(Known::Older);
        }
        Hash::try_from(digest).map(Known::Made).map_err(|_| broken())
    }
}

/// Writes a submission and the counter it used.
pub(crate) async fn put_submission(tx: &mut Tx, submission: Submission) -> Result<(), StoreError> {
    super::put_value(tx, "counter", &submission.counter.to_be_bytes()).await?;
    sqlx::query("INSERT INTO submission (counter, message, bytes) VALUES (?1, ?2, ?3)")
        .bind(signed(submission.counter))
        .bind(submission.message.map(|id| id.to_vec()))
        .bind(submission.bytes.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Takes a submission out whose outcome came, and remembers its digest. `None`: its outcome came before.
pub(crate) async fn take_submission(tx: &mut Tx, counter: u64) -> Result<Option<Submission>, StoreError> {
    let row = sqlx::query("DELETE FROM submission WHERE counter = ?1 RETURNING counter, message, bytes")
        .bind(signed(counter))
        .fetch_optional(&mut **tx)
        .await?;
    let Some(submission) = row.as_ref().map(read).transpose()? else { return Ok(None) };
    let mut answered = counter.to_be_bytes().to_vec();
    answered.extend_from_slice(sha256(&submission.bytes).as_ref());
    super::put_value(tx, "answered", &answered).await?;
    Ok(Some(submission))
}

/// Keeps an accepted submission until the recipient's home is known to have the message (MSG-018).
pub(crate) async fn keep(
    tx: &mut Tx,
    submission: &Submission,
    message: MessageId,
    expires_at_ms: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO kept (counter, message, bytes, expires_at_ms) VALUES (?1, ?2, ?3, ?4)",
    )
    .bind(signed(submission.counter))
    .bind(message.to_vec())
    .bind(submission.bytes.to_vec())
    .bind(signed(expires_at_ms))
    .execute(&mut **tx)
    .await?;
    sqlx::query("UPDATE sealed SET expires_at_ms = ?2 WHERE message = ?1")
        .bind(message.to_vec())
        .bind(signed(expires_at_ms))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Forgets kept submissions whose messages got further, failed, or expired; with those past their expiry goes
/// what a resend would need.
pub(crate) async fn release(tx: &mut Tx, now_ms: u64) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM kept WHERE expires_at_ms <= ?1 \
         OR EXISTS (SELECT 1 FROM message WHERE message.id = kept.message AND message.state >= 3)",
    )
    .bind(signed(now_ms))
    .execute(&mut **tx)
    .await?;
    sqlx::query("DELETE FROM sealed WHERE expires_at_ms <= ?1")
        .bind(signed(now_ms))
        .execute(&mut **tx)
        .await?;
    sqlx::query("DELETE FROM ciphertext_sent WHERE message NOT IN (SELECT message FROM sealed)")
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Forgets the kept submissions of messages whose recipient's home said that it has them.
pub(crate) async fn release_accepted(tx: &mut Tx, conversation: AccountId) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM kept WHERE EXISTS (SELECT 1 FROM message WHERE message.id = kept.message \
         AND message.conversation = ?1 AND message.state >= 2)",
    )
    .bind(conversation.to_vec())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// The home began a new life: it counts from 1 again, and what it may not know is to be sent again, in order
/// (spec 03-logs, 3.7). Everything that follows from that is written at once.
pub(crate) async fn begin_anew(store: &Store, incarnation: &Incarnation) -> Result<(), StoreError> {
    let mut waiting = store.kept().await?;
    waiting.extend(store.submissions(0, u32::MAX).await?);
    let mut tx = store.begin().await?;
    sqlx::raw_sql(
        "DELETE FROM submission; DELETE FROM kept; \
         DELETE FROM meta WHERE key IN ('answered', 'position', 'prekeys-published', 'counter')",
    )
    .execute(&mut *tx)
    .await?;
    let mut counter = 0_u64;
    for old in waiting {
        let broken = |_| StoreError::Inconsistent { table: "submission", column: "bytes" };
        let submit = pb::Submit::decode(old.bytes).map_err(broken)?;
        if submit.supplements > 0 {
            // It completes a number of a lane that is over; the receiver asks again if it has to.
            continue;
        }
        counter = counter.saturating_add(1);
        let bytes = pb::Submit { counter, ..submit }.encode_to_vec().into();
        put_submission(&mut tx, Submission { counter, message: old.message, bytes }).await?;
    }
    super::put_value(&mut tx, "incarnation", incarnation.as_ref()).await?;
    tx.commit().await?;
    Ok(())
}

/// Header and content of a message, the same in every ciphertext of it (ENC-010).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) header: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

impl Store {
    /// What was sealed of a message, while it is kept.
    pub(crate) async fn sealed(&self, message: MessageId) -> Result<Option<Sealed>, StoreError> {
        let row = sqlx::query("SELECT header, content FROM sealed WHERE message = ?1")
            .bind(message.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(Sealed { header: row.try_get(0)?, content: row.try_get(1)? })).transpose()
    }

    /// Whether a device was sent a ciphertext of a message with this hash.
    pub(crate) async fn was_sent(
        &self,
        message: MessageId,
        device: &[u8],
        hash: &[u8],
    ) -> Result<bool, StoreError> {
        let row =
            sqlx::query("SELECT 1 FROM ciphertext_sent WHERE message = ?1 AND device = ?2 AND hash = ?3")
                .bind(message.to_vec())
                .bind(device.to_vec())
                .bind(hash.to_vec())
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.is_some())
    }
}

/// Keeps what was sealed of a message.
pub(crate) async fn put_sealed(tx: &mut Tx, message: MessageId, sealed: &Sealed) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sealed (message, header, content) VALUES (?1, ?2, ?3) \
         ON CONFLICT (message) DO UPDATE SET header = ?2, content = ?3",
    )
    .bind(message.to_vec())
    .bind(&sealed.header)
    .bind(&sealed.content)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Notes a ciphertext that a device was sent.
pub(crate) async fn put_ciphertext(
    tx: &mut Tx,
    message: MessageId,
    payload: &pb::Payload,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR IGNORE INTO ciphertext_sent (message, device, hash) VALUES (?1, ?2, ?3)")
        .bind(message.to_vec())
        .bind(payload.device.to_vec())
        .bind(sha256(&payload.ciphertext).to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("device")).await.expect("opens");
        (folder, store)
    }

    fn submission(counter: u64, supplements: u64) -> Submission {
        let submit = pb::Submit { counter, supplements, lifetime_secs: 7, ..Default::default() };
        let message = (supplements == 0).then_some(MessageId([u8::try_from(counter).expect("small"); 16]));
        Submission { counter, message, bytes: submit.encode_to_vec().into() }
    }

    #[tokio::test]
    async fn a_counter_is_known_by_the_digest_of_what_was_made() {
        let (_folder, store) = store().await;
        assert_eq!(store.known(0).await.expect("reads"), Known::Beginning);
        assert_eq!(store.known(1).await.expect("reads"), Known::Never);
        let mut tx = store.begin().await.expect("begins");
        for counter in 1..=3 {
            put_submission(&mut tx, submission(counter, 0)).await.expect("writes");
        }
        take_submission(&mut tx, 1).await.expect("writes").expect("was there");
        take_submission(&mut tx, 2).await.expect("writes").expect("was there");
        assert_eq!(take_submission(&mut tx, 2).await.expect("writes"), None);
        tx.commit().await.expect("commits");
        for counter in [0, 1] {
            assert_eq!(store.known(counter).await.expect("reads"), Known::Older);
        }
        for counter in [2, 3] {
            let digest = sha256(&submission(counter, 0).bytes);
            assert_eq!(store.known(counter).await.expect("reads"), Known::Made(digest));
        }
        assert_eq!(store.known(4).await.expect("reads"), Known::Never);
    }

    #[tokio::test]
    async fn a_new_life_of_the_home_numbers_from_one_what_is_not_known_to_have_arrived() {
        let (_folder, store) = store().await;
        let mut tx = store.begin().await.expect("begins");
        for counter in 1..=5 {
            put_submission(&mut tx, submission(counter, u64::from(counter == 4))).await.expect("writes");
        }
        for counter in 1..=2 {
            let taken = take_submission(&mut tx, counter).await.expect("writes").expect("was there");
            if counter == 2 {
                keep(&mut tx, &taken, MessageId([2; 16]), 1_000).await.expect("writes");
            }
        }
        tx.commit().await.expect("commits");
        begin_anew(&store, &Incarnation([9; 16])).await.expect("begins anew");
        let waiting = store.submissions(0, 10).await.expect("reads");
        let messages: Vec<_> =
            waiting.iter().map(|one| (one.counter, one.message.expect("of a message"))).collect();
        let wanted = [2, 3, 5].map(|message| MessageId([message; 16]));
        assert_eq!(messages, [(1, wanted[0]), (2, wanted[1]), (3, wanted[2])]);
        for one in waiting {
            let submit = pb::Submit::decode(one.bytes).expect("a submission");
            assert_eq!((submit.counter, submit.lifetime_secs), (one.counter, 7));
        }
        assert_eq!(store.counter().await.expect("reads"), 3);
        assert_eq!(store.value("incarnation").await.expect("reads"), Some(vec![9; 16]));
    }
}
