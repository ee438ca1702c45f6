//! What can go wrong for a caller of the SDK.
//!
//! Losing the connection is not an error: the client reconnects and what was handed to it waits in
//! the store. Errors are what a caller has to do something about.

use tidings_proto::error::Refusal;

/// Why an operation of [`crate::Client`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The home, or the other side's home, refused; the code says whether trying again helps.
    #[error("{} ({})", .0.code.text(), .0.code)]
    Refused(Refusal),
    /// No connection to the home right now, and the operation cannot wait in the store.
    #[error("not connected to the home")]
    Offline,
    /// The local store failed.
    #[error("the local store failed")]
    Store(#[from] StoreError),
    /// The other side broke a rule of the protocol.
    #[error("the other side broke a rule: {0}")]
    Violation(String),
    /// A chain does not extend the one this device has verified; nothing is sent to it.
    #[error("the account {0} shows two histories")]
    Fork(String),
    /// The arguments make no sense.
    #[error("{0}")]
    Misuse(String),
    /// The client was shut down.
    #[error("the client was shut down")]
    Closed,
}

/// Why the local store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite refused.
    #[error("SQLite: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// A row holds what nothing here wrote.
    #[error("the store is damaged: table {table}, column {column}")]
    Inconsistent {
        /// Table of the broken row.
        table: &'static str,
        /// Column that cannot be read.
        column: &'static str,
    },
    /// Written by a newer version of this library.
    #[error("the store has schema {found}, this version knows {known}; use a newer version")]
    NewerSchema {
        /// Schema version found.
        found: i64,
        /// Newest schema version known here.
        known: i64,
    },
}

#[cfg(test)]
mod tests {
    use tidings_proto::error::Code;

    use super::*;

    #[test]
    fn a_refusal_reads_as_a_sentence_with_its_code() {
        let error = Error::Refused(Code::NAME_TAKEN.into());
        assert_eq!(error.to_string(), format!("{} (name-taken)", Code::NAME_TAKEN.text()));
    }
}
