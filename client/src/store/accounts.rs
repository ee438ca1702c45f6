//! Accounts and their chains as this device has verified them (spec 04-chains, 05-accounts).

use sqlx::Row as _;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Address;
use tidings_proto::pb;

use super::{Store, Tx, signed};
use crate::error::StoreError;

/// What the user decided about another account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing yet: its messages are requests.
    Undecided,
    /// A contact.
    Accepted,
    /// Blocked.
    Blocked,
}

/// A known account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The account; conversations hang on it, never on the address.
    pub account: AccountId,
    /// Where it lives, as its chain says.
    pub address: Address,
    /// What the user decided about it.
    pub standing: Standing,
    /// Whether the user has compared the safety number.
    pub verified: bool,
    /// Whether two histories of its chain were seen; nothing is sent to it then.
    pub forked: bool,
    /// Seconds after reading at which messages to it disappear, 0 for never.
    pub lifetime_secs: u32,
}

fn contact(row: &sqlx::sqlite::SqliteRow) -> Result<Contact, StoreError> {
    let broken = |column| StoreError::Inconsistent { table: "account", column };
    let id: Vec<u8> = row.try_get("id")?;
    let address: String = row.try_get("address")?;
    Ok(Contact {
        account: AccountId::try_from(&id).map_err(|_| broken("id"))?,
        address: Address::parse(&address).map_err(|_| broken("address"))?,
        standing: match row.try_get::<i64, _>("accepted")? {
            0 => Standing::Undecided,
            1 => Standing::Accepted,
            2 => Standing::Blocked,
            _ => return Err(broken("accepted")),
        },
        verified: row.try_get::<i64, _>("verified")? != 0,
        forked: row.try_get::<i64, _>("forked")? != 0,
        lifetime_secs: u32::try_from(row.try_get::<i64, _>("lifetime")?).map_err(|_| broken("lifetime"))?,
    })
}

impl Store {
    /// All known accounts by address, but this device's own and strangers who were dismissed.
    ///
    /// # Errors
    /// If SQLite fails or a row is broken.
    pub async fn contacts(&self) -> Result<Vec<Contact>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM account WHERE id != (SELECT value FROM meta WHERE key = 'account') AND hidden = 0 \
             ORDER BY address, id",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(contact).collect()
    }

    /// One account.
    ///
    /// # Errors
    /// If SQLite fails or the row is broken.
    pub async fn contact(&self, account: AccountId) -> Result<Option<Contact>, StoreError> {
        let row = sqlx::query("SELECT * FROM account WHERE id = ?1")
            .bind(account.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(contact).transpose()
    }

    /// The account that was known first of those seen at an address. Another one that the address resolves to
    /// later is another person (ACC-002).
    ///
    /// # Errors
    /// If SQLite fails or the row is broken.
    pub async fn contact_at(&self, address: &Address) -> Result<Option<Contact>, StoreError> {
        let row = sqlx::query("SELECT * FROM account WHERE address = ?1 ORDER BY rowid LIMIT 1")
            .bind(address.to_string())
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(contact).transpose()
    }

    /// Accounts whose chains are to be fetched, with where they are said to live.
    pub(crate) async fn strangers(&self) -> Result<Vec<(AccountId, String)>, StoreError> {
        let rows =
            sqlx::query("SELECT id, address FROM stranger ORDER BY rowid").fetch_all(&self.pool).await?;
        let broken = |_| StoreError::Inconsistent { table: "stranger", column: "id" };
        rows.iter()
            .map(|row| {
                let id = AccountId::try_from(&row.try_get::<Vec<u8>, _>(0)?).map_err(broken)?;
                Ok((id, row.try_get(1)?))
            })
            .collect()
    }

    /// Whether an account's chain is still to be fetched.
    pub(crate) async fn is_stranger(&self, account: AccountId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT 1 FROM stranger WHERE id = ?1")
            .bind(account.to_vec())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some())
    }

    /// The links held of an account's chain, from its genesis.
    pub(crate) async fn links(&self, account: AccountId) -> Result<Vec<pb::Link>, StoreError> {
        let rows =
            sqlx::query("SELECT body, signatures FROM account_link WHERE account = ?1 ORDER BY number")
                .bind(account.to_vec())
                .fetch_all(&self.pool)
                .await?;
        rows.iter()
            .map(|row| {
                let body: Vec<u8> = row.try_get(0)?;
                let signatures: Vec<u8> = row.try_get(1)?;
                let signatures = signatures.chunks(65).map(bytes::Bytes::copy_from_slice).collect();
                Ok(pb::Link { body: body.into(), signatures })
            })
            .collect()
    }
}

/// Writes an account and the links that were verified on top of those held, the first being `from`.
pub(crate) async fn put_chain(
    tx: &mut Tx,
    account: AccountId,
    address: &Address,
    from: u64,
    links: Vec<pb::Link>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO account (id, address) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET address = ?2",
    )
    .bind(account.to_vec())
    .bind(address.to_string())
    .execute(&mut **tx)
    .await?;
    for (number, link) in (from..).zip(links) {
        sqlx::query(
            "INSERT OR IGNORE INTO account_link (account, number, body, signatures) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(account.to_vec())
        .bind(signed(number))
        .bind(link.body.to_vec())
        .bind(link.signatures.concat())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Puts another history of an account in the place of the one held: its owner ended the fork that way.
pub(crate) async fn replace_chain(
    tx: &mut Tx,
    account: AccountId,
    links: Vec<pb::Link>,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM account_link WHERE account = ?1")
        .bind(account.to_vec())
        .execute(&mut **tx)
        .await?;
    for (number, link) in (0_u64..).zip(links) {
        sqlx::query("INSERT INTO account_link (account, number, body, signatures) VALUES (?1, ?2, ?3, ?4)")
            .bind(account.to_vec())
            .bind(signed(number))
            .bind(link.body.to_vec())
            .bind(link.signatures.concat())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Keeps the other history of an account, as evidence (ENC-026).
pub(crate) async fn put_fork(
    tx: &mut Tx,
    account: AccountId,
    links: Vec<pb::Link>,
) -> Result<(), StoreError> {
    for (number, link) in (0_u64..).zip(links) {
        sqlx::query(
            "INSERT OR IGNORE INTO fork_link (account, number, body, signatures) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(account.to_vec())
        .bind(signed(number))
        .bind(link.body.to_vec())
        .bind(link.signatures.concat())
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}

/// Notes that a device is being told the links after an old head; false if it was told before (ENC-028).
pub(crate) async fn tell_heads(tx: &mut Tx, device: DeviceId, head: &[u8]) -> Result<bool, StoreError> {
    let done = sqlx::query("INSERT OR IGNORE INTO heads_told (device, head) VALUES (?1, ?2)")
        .bind(device.to_vec())
        .bind(head.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets after how many seconds messages to an account disappear.
pub(crate) async fn set_lifetime(tx: &mut Tx, account: AccountId, secs: u32) -> Result<(), StoreError> {
    sqlx::query("UPDATE account SET lifetime = ?2 WHERE id = ?1")
        .bind(account.to_vec())
        .bind(i64::from(secs))
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Records what the user decided.
pub(crate) async fn set_standing(
    tx: &mut Tx,
    account: AccountId,
    standing: Standing,
) -> Result<(), StoreError> {
    let value = match standing {
        Standing::Undecided => 0_i64,
        Standing::Accepted => 1,
        Standing::Blocked => 2,
    };
    sqlx::query("UPDATE account SET accepted = ?2, hidden = 0 WHERE id = ?1")
        .bind(account.to_vec())
        .bind(value)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Another device of this account took an account as a contact: an undecided one is accepted here too.
pub(crate) async fn set_accepted_elsewhere(tx: &mut Tx, account: AccountId) -> Result<(), StoreError> {
    sqlx::query("UPDATE account SET accepted = 1, hidden = 0 WHERE id = ?1 AND accepted = 0")
        .bind(account.to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// An account that another own device wrote to before this one knew it is accepted.
pub(crate) async fn accept_if_written(tx: &mut Tx, account: AccountId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE account SET accepted = 1 WHERE id = ?1 AND accepted = 0 AND EXISTS (SELECT 1 FROM message \
         WHERE conversation = ?1 AND sender = (SELECT value FROM meta WHERE key = 'account'))",
    )
    .bind(account.to_vec())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Sets or takes away a mark.
pub(crate) async fn set_flag(
    tx: &mut Tx,
    account: AccountId,
    flag: Flag,
    on: bool,
) -> Result<(), StoreError> {
    let statement = match flag {
        Flag::Verified => "UPDATE account SET verified = ?2 WHERE id = ?1",
        Flag::Forked => "UPDATE account SET forked = ?2 WHERE id = ?1",
        Flag::Hidden => "UPDATE account SET hidden = ?2 WHERE id = ?1",
    };
    sqlx::query(statement).bind(account.to_vec()).bind(i64::from(on)).execute(&mut **tx).await?;
    Ok(())
}

/// Drops what a stranger wrote and takes them off the list until something new comes. Nothing happens to an account
/// that the user decided about.
pub(crate) async fn dismiss(tx: &mut Tx, account: AccountId) -> Result<(), StoreError> {
    let done = sqlx::query("UPDATE account SET hidden = 1 WHERE id = ?1 AND accepted = 0")
        .bind(account.to_vec())
        .execute(&mut **tx)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    for statement in [
        "DELETE FROM message WHERE conversation = ?1 AND sender = ?1",
        "DELETE FROM unreadable WHERE conversation = ?1 AND sender = ?1",
        "DELETE FROM errand WHERE account = ?1",
    ] {
        sqlx::query(statement).bind(account.to_vec()).execute(&mut **tx).await?;
    }
    Ok(())
}

/// An account that a copy of an own message names: its chain is to be fetched, if it is not known.
pub(crate) async fn put_stranger(tx: &mut Tx, account: AccountId, address: &str) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO stranger (id, address) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM account WHERE id = ?1) \
         ON CONFLICT (id) DO UPDATE SET address = ?2",
    )
    .bind(account.to_vec())
    .bind(address)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Its chain is known now, or never will be.
pub(crate) async fn forget_stranger(tx: &mut Tx, account: AccountId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM stranger WHERE id = ?1").bind(account.to_vec()).execute(&mut **tx).await?;
    Ok(())
}

/// A mark on an account.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Flag {
    /// The safety number was compared.
    Verified,
    /// Two histories were seen.
    Forked,
    /// Its request was dismissed, and nothing new came.
    Hidden,
}
