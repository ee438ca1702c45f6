//! What becomes of a chain that does not extend the one held (chapter 04, forks).
//!
//! | held | came | result |
//! |---|---|---|
//! | any | a part of it, or the same | `Keep` |
//! | a part of the other | any | `Take` |
//! | ends the other | does not end it | `Keep` |
//! | does not end the other | ends it | `Take` |
//! | both, or neither, end the other | | `Open` |
//!
//! A chain *ends* the other if it holds an end-fork link that names a link of the other one's branch, behind the last
//! link that both share.
//!
//! What this module does not do: keep evidence, or tell anybody.

use std::collections::BTreeSet;

use super::{AccountState, Relation, Verified, relation};
use crate::id::LinkId;

/// Which of two verified chains of one account is held from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The one held stays: the other is older, the same, or was ended.
    Keep,
    /// The other one is held from now on: it extends the one held, or ended its branch.
    Take,
    /// Neither ends the other: the one held stays, the other is evidence, and nothing is encrypted to the account.
    Open,
    /// They are different accounts.
    OtherAccount,
}

/// Decides between the chain held and one that came.
#[must_use]
pub fn settle(held: &Verified<AccountState>, came: &Verified<AccountState>) -> Settled {
    match relation(held, came) {
        Relation::OtherChain => Settled::OtherAccount,
        Relation::Same | Relation::Extends => Settled::Keep,
        Relation::Extended => Settled::Take,
        Relation::Fork => match (ends(held, came), ends(came, held)) {
            (true, false) => Settled::Keep,
            (false, true) => Settled::Take,
            _ => Settled::Open,
        },
    }
}

/// Whether `chain` ended the branch of `other`.
///
/// An end-fork link cannot name a link that is built on itself, for the name is a hash. So whatever it names of the
/// other branch, it stands behind the last link that both share.
fn ends(chain: &Verified<AccountState>, other: &Verified<AccountState>) -> bool {
    let shared = chain.ids().iter().zip(other.ids()).take_while(|(a, b)| a == b).count();
    let branch: BTreeSet<&LinkId> = other.ids().iter().skip(shared).collect();
    chain.state().ended_heads().iter().any(|head| branch.contains(head))
}

#[cfg(test)]
#[path = "fork_tests.rs"]
mod tests;
