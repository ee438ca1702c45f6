//! The embedded store: one SQLite file, WAL, `synchronous=FULL`. One connection writes, some read.

mod groups;
mod read;
mod write;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Executor as _, Row as _};

use super::StoreError;

/// Migrations in order. A released one is never changed.
const MIGRATIONS: &[&str] =
    &[include_str!("../migrations/0001_base.sql"), include_str!("../migrations/0002_groups.sql")];
/// Connections that read.
const READERS: u32 = 4;

/// The SQLite store.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held for as long as the store is open: two processes would each trust their own memory.
    lock: Mutex<Option<File>>,
}

impl SqliteStore {
    /// Opens or makes `folder/tidings.db`, for this process alone, and brings its schema up to date.
    ///
    /// # Errors
    /// [`StoreError`]: in use, of a newer version, damaged, or not writable.
    pub async fn open(folder: &Path) -> Result<Self, StoreError> {
        let file = |path: PathBuf| move |source| StoreError::File { path, source };
        std::fs::create_dir_all(folder).map_err(file(folder.to_owned()))?;
        let path = folder.join("tidings.lock");
        let lock = File::options().create(true).append(true).open(&path).map_err(file(path))?;
        lock.try_lock().map_err(|_| StoreError::InUse(folder.to_owned()))?;
        let mut store = Self::connect(folder).await?;
        store.lock = Mutex::new(Some(lock));
        Ok(store)
    }

    /// Opens the database beside a server that may be running: for commands that add a row and leave.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn beside(folder: &Path) -> Result<Self, StoreError> {
        Self::connect(folder).await
    }

    async fn connect(folder: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("tidings.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(std::time::Duration::from_secs(10))
            .pragma("journal_size_limit", "67108864")
            .statement_cache_capacity(256);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .min_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await?;
        migrate(&writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer, readers, lock: Mutex::new(None) })
    }
}

async fn migrate(writer: &SqlitePool) -> Result<(), StoreError> {
    let found: i64 = writer.fetch_one("PRAGMA user_version").await?.try_get(0)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for (version, script) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let mut transaction = writer.begin().await?;
        transaction.execute(sqlx::AssertSqlSafe(*script)).await?;
        transaction.execute(sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"))).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// SQLite's integers are signed; numbers here stay far below 2^63.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
impl SqliteStore {
    /// Damages the database as a test wants it.
    pub(crate) async fn execute_for_test(&self, statement: &'static str) {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&self.writer).await.expect("it is done");
    }
}
