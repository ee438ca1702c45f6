//! The Tidings homeserver: sessions, accounts, keys, direct messages and groups of one domain.
//!
//! State changes go one way: gateway, service, state, pump.

pub mod accounts;
pub mod cli;
pub mod config;
pub mod gateway;
pub mod groups;
pub mod identity;
pub mod keys;
pub mod lifecycle;
pub mod messages;
pub mod node;
pub mod peering;
pub mod refusal;
pub mod state;
pub mod store;
pub mod telemetry;
