//! The log of a group: its places, its signed heads, its keepers' votes (chapter 07).
//!
//! Every entry names group, term and number inside its body, so that none can be moved. The running hash is that
//! of chapter 03, over all terms. An entry's term is the one of the group's state before it; a succession link
//! carries the term that it begins, and names the place that it goes on from. A transfer link is the last entry
//! of the old term.
//!
//! [`GroupHead`] is what the hub signs of the end of its log; [`Vote`] what a keeper signs for a new term.
//!
//! What this module does not do: hold entries, or say which of several heads is newest.

mod entry;
mod signed;

use crate::chain::group::{GroupLinkError, GroupState};
use crate::id::{GroupId, Hash, IdError};
use crate::log::{next_hash, next_hash_of_digest};
use crate::pb;
use crate::sign::SignError;

pub use entry::{GroupEntry, link_entry, message_entry};
pub use signed::{GroupHead, Proposal, TermLink, Vote};

/// Why something of a group log cannot stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupLogError {
    /// A place before the first entry that has a term or a hash, or one after it that has no term.
    #[error("position {seq} of term {term}")]
    Position {
        /// Its term.
        term: u64,
        /// Its number.
        seq: u64,
    },
    /// Bytes that are not an entry of a group log.
    #[error("entry cannot be parsed")]
    Parse(#[from] prost::DecodeError),
    /// An id of the wrong length.
    #[error("id of the wrong length")]
    Id(#[from] IdError),
    /// An entry without what its type carries.
    #[error("entry of type {0:#x} without content")]
    Empty(u64),
    /// A critical type this reader does not know.
    #[error("unknown critical entry type {0:#x}")]
    UnknownCritical(u64),
    /// Of another group.
    #[error("of another group")]
    OtherGroup,
    /// Not the next number.
    #[error("entry {got} where {expected} was expected")]
    NotNext {
        /// The next number.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// Of another term than the group is in.
    #[error("term {got} where {expected} was expected")]
    Term {
        /// The group's term.
        expected: u64,
        /// The entry's.
        got: u64,
    },
    /// A succession that does not go on from here.
    #[error("the succession goes on from another place")]
    From,
    /// A void that does not begin at the next number, or has not one hash for each.
    #[error("void of {from} to {to} with {hashes} hashes")]
    Void {
        /// Its first number.
        from: u64,
        /// Its last number.
        to: u64,
        /// The hashes it has.
        hashes: usize,
    },
    /// A head that says more is stable than there is.
    #[error("stable {stable} beyond {seq}")]
    Stable {
        /// What it says is stable.
        stable: u64,
        /// Its number.
        seq: u64,
    },
    /// The server that signed, or the form of what it signed.
    #[error("signed by whom it cannot be")]
    Signer(#[from] GroupLinkError),
    /// A signature that does not hold.
    #[error("signature")]
    Signature(#[source] SignError),
}

/// A place in a group log: after entry `seq`, of `term`, whose running hash is `hash`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupPosition {
    /// The term of entry `seq`; 0 before the first.
    pub term: u64,
    /// Entries up to here; 0 before the first.
    pub seq: u64,
    /// Running hash; zeros at 0.
    pub hash: Hash,
}

impl GroupPosition {
    /// Before the first entry.
    pub const START: Self = Self { term: 0, seq: 0, hash: Hash::ZERO };

    /// Reads a message; an absent one is none.
    ///
    /// # Errors
    /// [`GroupLogError::Position`], [`GroupLogError::Id`].
    pub fn parse(position: Option<&pb::GroupPosition>) -> Result<Self, GroupLogError> {
        let position = position.ok_or(GroupLogError::Position { term: 0, seq: 0 })?;
        let (term, seq) = (position.term, position.seq);
        let hash = Hash::try_from(&position.hash)?;
        let whole = if seq == 0 { term == 0 && hash.is_zero() } else { term > 0 };
        if whole { Ok(Self { term, seq, hash }) } else { Err(GroupLogError::Position { term, seq }) }
    }

    /// As a message.
    #[must_use]
    pub fn to_pb(&self) -> pb::GroupPosition {
        pb::GroupPosition { term: self.term, seq: self.seq, hash: self.hash.to_bytes() }
    }

    /// The number of the entry that comes next.
    ///
    /// # Errors
    /// [`GroupLogError::NotNext`] after 2^64 - 1 entries.
    pub fn next_seq(&self) -> Result<u64, GroupLogError> {
        self.seq.checked_add(1).ok_or(GroupLogError::NotNext { expected: self.seq, got: 0 })
    }

    /// The place after an entry that one makes oneself: whatever it says of its place is not looked at.
    ///
    /// # Errors
    /// [`GroupLogError::NotNext`] after 2^64 - 1 entries.
    pub fn after(&self, term: u64, entry: &[u8]) -> Result<Self, GroupLogError> {
        Ok(Self { term, seq: self.next_seq()?, hash: next_hash(&self.hash, entry) })
    }

    /// The place after an entry that came, and what it is. `state` is the group's before the entry.
    ///
    /// # Errors
    /// [`GroupLogError`]: it is no entry, of another group, not the next, of the wrong term.
    pub fn follow(&self, state: &GroupState, entry: &[u8]) -> Result<(Self, GroupEntry), GroupLogError> {
        let parsed = GroupEntry::parse(entry)?;
        let (expected, got) = (self.next_seq()?, parsed.seq());
        if parsed.group() != state.group() {
            return Err(GroupLogError::OtherGroup);
        }
        if got != expected {
            return Err(GroupLogError::NotNext { expected, got });
        }
        let mut expected = state.term();
        if let Some(succession) = parsed.succession() {
            if Self::parse(succession.from.as_ref())? != *self {
                return Err(GroupLogError::From);
            }
            expected = succession.term.max(expected);
        }
        if parsed.term() != expected {
            return Err(GroupLogError::Term { expected, got: parsed.term() });
        }
        Ok((self.after(expected, entry)?, parsed))
    }

    /// The place after entries that are not there any more. `state` is the group's before them: they were no links.
    ///
    /// # Errors
    /// [`GroupLogError::OtherGroup`], [`GroupLogError::Void`], [`GroupLogError::Id`].
    pub fn past_void(&self, state: &GroupState, void: &pb::GroupVoid) -> Result<Self, GroupLogError> {
        if GroupId::try_from(&void.group)? != state.group() {
            return Err(GroupLogError::OtherGroup);
        }
        let hashes = void.entries.as_ref().map_or(&[][..], |entries| &entries.hashes);
        let (from, to) = (void.from, void.to);
        let last = u64::try_from(hashes.len()).ok().and_then(|count| self.seq.checked_add(count));
        if hashes.is_empty() || from != self.next_seq()? || last != Some(to) {
            return Err(GroupLogError::Void { from, to, hashes: hashes.len() });
        }
        let mut hash = self.hash;
        for entry in hashes {
            hash = next_hash_of_digest(&hash, &Hash::try_from(entry)?);
        }
        Ok(Self { term: state.term(), seq: to, hash })
    }
}

#[cfg(test)]
mod tests;
