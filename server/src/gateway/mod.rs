//! Connections of clients: accepted, proven, served (chapter 02).

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

mod budget;
mod pipeline;
mod pump;
mod quic;
mod reset;
mod session;
mod wire;

pub use budget::{Place, RequestBudget, SourceBudget};
pub use pump::Window;
pub use quic::{Gateway, Listening, NetworkError};
pub use session::Sessions;

/// The capabilities of this server, ascending.
pub(crate) const CAPABILITIES: [u64; 3] = [0x00, 0x02, 0x05];
/// Name and version, for the logs of others.
pub(crate) const SOFTWARE: &str = concat!("tidings/", env!("CARGO_PKG_VERSION"));
