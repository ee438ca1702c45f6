//! What a client needs to know before it can connect.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Which certificate authorities may vouch for a home.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// The public web's authorities.
    #[default]
    Web,
    /// The authorities in this PEM text, and no other: private networks and tests.
    Pem(Vec<u8>),
}

/// How a device reaches its home and where it keeps its state.
#[derive(Debug, Clone)]
pub struct Options {
    /// The SQLite file. One file is one device; a copy of it is a clone and is refused by the home.
    pub store: PathBuf,
    /// Where the home listens, if not at its domain on port 443.
    pub server: Option<SocketAddr>,
    /// Which authorities may vouch for the home's certificate.
    pub trust: Trust,
}
