//! The Tidings protocol as types. No I/O, no clock, no randomness, no storage.
//!
//! - [`varint`], [`frame`], [`codec`]: bytes to messages and back.
//! - [`name`], [`id`], [`sign`]: names, identifiers, signatures.
//! - [`canonical`], [`chain`], [`record`]: chains that are verified from their genesis, and other signed bodies.
//! - [`log`], [`watermark`]: positions in logs, how far a lane was delivered and read.
//! - [`group_log`]: the log of a group, its heads and its keepers' votes.
//! - [`handshake`]: who is at the other end of a connection.
//! - [`error`]: codes and refusals.
//! - [`frames`], [`entries`], [`links`], [`limits`], [`capabilities`], [`purposes`]: the registry as constants.
//! - [`pb`]: the messages of `tidings/v1/*.proto`.
//!
//! Bytes that come from elsewhere never make this crate panic.
#![warn(missing_docs)]
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it is to")
)]

pub mod canonical;
pub mod chain;
pub mod codec;
pub mod error;
pub mod frame;
mod generated;
pub mod group_log;
pub mod handshake;
pub mod id;
pub mod log;
pub mod name;
#[cfg(feature = "quic")]
pub mod quic;
pub mod record;
pub mod sign;
pub mod varint;
pub mod watermark;

pub use generated::{capabilities, entries, frames, limits, links, purposes};

/// The messages of `tidings/v1/*.proto`, generated at build time.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::arithmetic_side_effects,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
#[rustfmt::skip]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/tidings.v1.rs"));
}

#[cfg(test)]
mod registry_tests;
