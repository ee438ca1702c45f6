//! The group chain: who is in a group, who may do what, which server is its hub (chapter 07).
//!
//! | link | signed by | refused if |
//! |---|---|---|
//! | genesis 0x00 | the creator's device | the hub is not of the creator's domain |
//! | add-members 0x02 | a member of the rank that the policy says | in the group already; full |
//! | accept 0x04 | the invited account | its domain is another |
//! | leave 0x06 | a member or an invited account | |
//! | remove-members 0x08 | an admin, of lower ranks; an owner, of others | not in the group; oneself |
//! | set-role 0x0a | an owner | not a member; no owner would be left |
//! | set-policy 0x0c | an owner | |
//! | set-profile 0x0e | a member of the rank that the policy says | above 4 KiB |
//! | set-keepers 0x10 | an owner | not one server more or fewer; not 1 to 7; a new one without a member |
//! | advance 0x12 | a member | its account did not go on; domain or flag are not what its chain says |
//! | require-feature 0x14 | an owner | required already |
//! | hub-transfer 0x16 | an owner, then the new hub | not the next term; the hub it is already |
//! | hub-succession 0x18 | the new hub; without votes an owner, then the new hub | not a higher term; no majority |
//! | checkpoint 0x1a | the hub | it is of another state; right after another |
//!
//! [`GroupState`] comes about by verification only, or from bytes that were verified before: of a hash that
//! is trusted ([`GroupState::from_snapshot`]) or of one's own database ([`GroupState::from_trusted`]).
//! A link's author is judged by its account's chain as of the head that the link names, never later, so that
//! all readers agree whenever they look. What is missing for that is its own error, and says nothing of the link.
//!
//! Any link by whose account head the author has lost a device since is a rotation link, as is one by which a
//! member leaves: posts under older heads are refused.
//!
//! With 256 links after the last checkpoint only a checkpoint, a transfer or a succession can follow. When the
//! last member has left, nothing follows.
//!
//! What this module does not do: say where in the log a link stands ([`crate::group_log`]), or fetch chains.

mod build;
mod changes;
mod error;
mod evidence;
mod parts;
mod rules;
mod servers;
pub(crate) mod shape;
mod state;

pub use build::{GroupChange, NewGroup, genesis, genesis_body};
pub use error::{GroupLinkError, Missing};
pub use evidence::{AccountAt, Chains, GroupEvidence, ServerAt, check_signer};
pub use parts::{Author, Member, Policy, Rank, ServerRef, ServerSigner};
pub use state::GroupState;

/// Members and invited accounts a group may have.
pub const MEMBERS_MAX: usize = 1024;
/// Bytes the body of an add-members or remove-members link may have.
pub const BULK_LINK_BYTES_MAX: usize = 65_536;
/// Bytes the body of any other link may have.
pub const SMALL_LINK_BYTES_MAX: usize = 8192;
/// Links after the last checkpoint that any type may take.
pub const CHECKPOINT_LINKS: u64 = 256;
/// Keepers a group may have.
pub const KEEPERS_MAX: usize = 7;
/// Bytes a sealed profile may have.
pub const PROFILE_BYTES_MAX: usize = 4096;
/// Features a group may require.
pub const FEATURES_MAX: usize = 64;

const GENESIS: u32 = 0x00;
const ADD_MEMBERS: u32 = 0x02;
const ACCEPT: u32 = 0x04;
const LEAVE: u32 = 0x06;
const REMOVE_MEMBERS: u32 = 0x08;
const SET_ROLE: u32 = 0x0a;
const SET_POLICY: u32 = 0x0c;
const SET_PROFILE: u32 = 0x0e;
const SET_KEEPERS: u32 = 0x10;
const ADVANCE: u32 = 0x12;
const REQUIRE_FEATURE: u32 = 0x14;
const HUB_TRANSFER: u32 = 0x16;
const HUB_SUCCESSION: u32 = 0x18;
const CHECKPOINT: u32 = 0x1a;

#[cfg(test)]
pub(crate) mod tests;
