//! Where the homeserver keeps what it must not lose: two seams, the logs and the directory.
//!
//! [`LogStore`] holds the entries of mailboxes and outboxes and what advances with them; [`Directory`] answers
//! questions about accounts, devices, keys, lanes and peers; [`GroupStore`] is the part of both that groups need. What a decision changes is collected in [`Writes`]
//! and becomes durable as a whole by [`Store::commit`]. SQLite is the embedded store; a model of maps is held to
//! the same suite.
//!
//! What this module does not do: decide, cache, or wait for others.

mod committer;
mod groups;
#[cfg(test)]
mod model;
mod rows;
mod sqlite;
#[cfg(test)]
mod suite;
mod writes;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use tidings_proto::id::{AccountId, DeviceId, Hash, Incarnation};

pub use committer::{Commit, Committer};
pub use groups::{GroupCursorRow, GroupEntryRow, GroupStore, GroupWrites, StoredGroup};
#[cfg(test)]
pub(crate) use model::ModelStore;
pub use rows::{
    AccountRow, DeviceRow, EntryRow, KeyKind, KeyRow, LaneKey, LinkRow, LogId, LogRow, OpenKind, OpenRow,
    OutcomeRow, OwedRow, PeerId, PeerRow, RefusalRow,
};
pub use sqlite::SqliteStore;
pub use writes::Writes;

/// Why the store does not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refuses: the disk is full or fails, or the file is locked.
    #[error("{0}")]
    Database(sqlx::Error),
    /// The file is no database, or its pages contradict each other.
    #[error("the database file is damaged ({0}): stop the server and restore a backup")]
    Damaged(sqlx::Error),
    /// A row holds what nothing here wrote.
    #[error("the database is damaged: table {table}, column {column}, row {row}")]
    Inconsistent {
        /// Its table.
        table: &'static str,
        /// The column that cannot be read.
        column: &'static str,
        /// The row's key in hexadecimal.
        row: String,
    },
    /// Written by a newer version of this program.
    #[error(
        "the database has schema {found}, this version knows up to {known}: use the newer version, or restore a backup"
    )]
    NewerSchema {
        /// The version found.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// Another process has the data folder.
    #[error("the data folder {0} is in use by another process")]
    InUse(PathBuf),
    /// A file of the data folder.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<u32>().ok());
        match code.map(|code| code & 0xff) {
            // SQLITE_CORRUPT, SQLITE_NOTADB.
            Some(11 | 26) => Self::Damaged(error),
            _ => Self::Database(error),
        }
    }
}

/// An unread entry that has a key, as (key, number, aux).
pub type Keyed = (bytes::Bytes, u64, u64);

/// An answer that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Logs: numbered entries, read after a cursor.
pub trait LogStore: Send + Sync {
    /// Up to `most` rows of a log from number `from` on, ascending; rows without content are there too.
    fn entries(&self, log: LogId, from: u64, most: usize) -> Later<'_, Vec<EntryRow>>;
    /// Entries whose lifetime is over at `now_ms`, oldest first, at most `most`.
    fn expired_entries(&self, now_ms: u64, most: usize) -> Later<'_, Vec<(LogId, u64)>>;
    /// The highest log id ever given; 0 if none.
    fn last_log(&self) -> Later<'_, LogId>;
    /// Logs that are neither a mailbox nor an outbox: what a change that did not come to its end left behind.
    fn orphans(&self) -> Later<'_, Vec<LogId>>;
    /// A log's row and its unread entries that have a key, as (key, number, aux).
    fn log(&self, log: LogId) -> Later<'_, Option<(LogRow, Vec<Keyed>)>>;
    /// A stored outcome of a submission.
    fn outcome(&self, device: DeviceId, counter: u64) -> Later<'_, Option<OutcomeRow>>;
}

/// Questions about who is known, with which keys, and what goes between whom.
pub trait Directory: Send + Sync {
    /// An account with its links, ascending.
    fn account(&self, id: AccountId) -> Later<'_, Option<(AccountRow, Vec<LinkRow>)>>;
    /// All devices of an account here.
    fn devices(&self, account: AccountId) -> Later<'_, Vec<DeviceRow>>;
    /// Devices whose mailboxes are not of this incarnation, at most `most`.
    fn outdated(&self, incarnation: Incarnation, most: usize) -> Later<'_, Vec<DeviceRow>>;
    /// The device whose mailbox a log is, with its account.
    fn reader_of(&self, log: LogId) -> Later<'_, Option<(AccountId, DeviceId)>>;
    /// The account that a name was given to.
    fn named<'a>(&'a self, address: &'a str) -> Later<'a, Option<AccountId>>;
    /// The prekeys of a device, ascending by kind and id.
    fn prekeys(&self, device: DeviceId) -> Later<'_, Vec<KeyRow>>;
    /// Whether an invitation with this SHA-256 is unused.
    fn token(&self, digest: Hash) -> Later<'_, bool>;
    /// Domains that hold an account's chain, with the time of the last hand-over or message.
    fn handed(&self, account: AccountId) -> Later<'_, Vec<(String, u64)>>;
    /// A lane's state and its open numbers, ascending.
    fn lane(&self, key: LaneKey) -> Later<'_, (Option<bytes::Bytes>, Vec<OpenRow>)>;
    /// Accounts that a lane of `sender` goes to, ascending from behind `after`, at most `most`.
    fn recipients(&self, sender: AccountId, after: AccountId, most: usize) -> Later<'_, Vec<AccountId>>;
    /// Senders with open numbers held as requests for an account, the oldest request first.
    fn requesters(&self, recipient: AccountId) -> Later<'_, Vec<AccountId>>;
    /// Open numbers whose lifetime is over at `now_ms`, at most `most`.
    fn expired_open(&self, now_ms: u64, most: usize) -> Later<'_, Vec<OpenRow>>;
    /// All peer records.
    fn peers(&self) -> Later<'_, Vec<PeerRow>>;
    /// Refusals given to a peer that it has not seen, ascending.
    fn refusals(&self, peer: PeerId) -> Later<'_, Vec<RefusalRow>>;
    /// Facts that wait outside a peer's outbox, in order of their keys, at most `most`.
    fn owed(&self, peer: PeerId, most: usize) -> Later<'_, Vec<OwedRow>>;
}

/// Both seams, and the commit that makes a group of decisions durable.
pub trait Store: LogStore + Directory + GroupStore {
    /// Writes everything, or nothing. When it returns `Ok`, it survives a loss of power.
    fn commit<'a>(&'a self, writes: &'a Writes) -> Later<'a, ()>;
    /// Ends the store after what is in hand.
    fn close(&self) -> Later<'_, ()>;
}
