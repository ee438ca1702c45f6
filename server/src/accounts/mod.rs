//! Accounts: registration, chains, devices, look-ups (chapters 04 and 05).

mod announce;
mod devices;
pub mod heads;
mod recovery;
mod registration;
pub mod rendezvous;
pub(crate) mod resolve;
pub mod rules;
