//! The device's own store: one SQLite file, written in one transaction per effect.
//!
//! Invariant: a mailbox position, the message it brought and the session records it changed are
//! written together, so that a crash repeats a delivery but never loses or doubles one
//! (spec 03-logs, 06-messages). Not part of any backup: it holds ratchet state.

pub mod accounts;
pub(crate) mod errands;
pub mod groups;
pub(crate) mod lanes;
pub(crate) mod marks;
pub mod messages;
pub(crate) mod queue;
pub(crate) mod records;
pub(crate) mod stash;
pub(crate) mod unreadable;

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction};

use crate::error::StoreError;

/// Newest schema this version writes.
const SCHEMA: i64 = 2;

/// A transaction on the store.
pub(crate) type Tx = Transaction<'static, Sqlite>;

/// The device's store.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the file, making it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] if a newer version wrote it; [`StoreError::Sqlite`] if it cannot
    /// be opened or is not a database.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        // One connection: the client is one writer, and a second would only wait for the first.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        let store = Self { pool };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let found: i64 = sqlx::query("PRAGMA user_version").fetch_one(&self.pool).await?.try_get(0)?;
        if found > SCHEMA {
            return Err(StoreError::NewerSchema { found, known: SCHEMA });
        }
        if found < SCHEMA {
            let mut tx = self.begin().await?;
            if found == 0 {
                sqlx::raw_sql(include_str!("schema.sql")).execute(&mut *tx).await?;
            }
            sqlx::raw_sql(include_str!("schema_groups.sql")).execute(&mut *tx).await?;
            sqlx::raw_sql("PRAGMA user_version = 2").execute(&mut *tx).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// Begins a transaction. Nothing else of the store may be awaited while it is open.
    pub(crate) async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(self.pool.begin().await?)
    }

    /// Reads a value by its key.
    ///
    /// # Errors
    /// If SQLite fails.
    pub async fn value(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row =
            sqlx::query("SELECT value FROM meta WHERE key = ?1").bind(key).fetch_optional(&self.pool).await?;
        row.map(|row| row.try_get(0).map_err(StoreError::from)).transpose()
    }

    /// Closes the file after all writes.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Writes a value under its key.
pub(crate) async fn put_value(tx: &mut Tx, key: &str, value: &[u8]) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")
        .bind(key)
        .bind(value)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Numbers of the protocol are 64-bit unsigned and stay far below 2^63; SQLite's are signed.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The other way.
pub(crate) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
