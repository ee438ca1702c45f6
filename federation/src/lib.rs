//! Homeserver to homeserver: discovery, peers, outbox and inbox (chapter 09).
//!
//! | part | what it is |
//! |---|---|
//! | [`link`] | pure: one peer's outbox going out and its outbox coming in, across connections |
//! | [`peer`] | pure: where a peer stands, when it is dialled, which of two connections stays |
//! | [`policy`] | allow and deny lists, replaced while running |
//! | [`discovery`] | where a domain's home is |
//! | [`host`] | what the server does for this crate: store, clock, answers |
//! | [`Federation`] | the running whole, over a QUIC endpoint that the server owns |
//!
//! A connection that a home dialled is authenticated for the peer's domain by TLS; one that it accepted only proves
//! a server chain. Therefore a chain is believed to be a domain's only once the domain has shown it to a dial of
//! this home: an unknown one is refused with `peer-unverified`, and the domain is dialled.
//!
//! What this crate does not do: keep anything, listen, know what entries mean, relay for third domains.
#![warn(missing_docs)]
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::arithmetic_side_effects, reason = "a test that overflows fails, as it is to")
)]

pub mod discovery;
mod federation;
pub mod host;
pub mod link;
mod net;
pub mod peer;
pub mod policy;
pub mod prefix;

pub use federation::{Config, Federation, Settings, StartError};
