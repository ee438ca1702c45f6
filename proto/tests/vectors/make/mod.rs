//! The generator: what the files of `spec/vectors` hold.

mod bytes;
mod canonical;
mod chains;
mod ed25519;
mod groups;
mod logs;
mod name;
pub(crate) mod places;
mod session;

use crate::vector::File;

/// All files, in the order of chapters.
pub(crate) fn all() -> Vec<File> {
    vec![
        bytes::varint(),
        bytes::frame(),
        bytes::failure(),
        bytes::labelled(),
        canonical::canonical(),
        ed25519::ed25519(),
        name::name(),
        session::messages(),
        session::placement(),
        session::proof(),
        session::handshake(),
        logs::log(),
        logs::compare(),
        chains::account_file(),
        chains::server_file(),
        chains::fork_file(),
        logs::watermark(),
        groups::chain(),
        groups::link(),
        groups::logs(),
        groups::heads(),
        groups::votes(),
        groups::terms(),
    ]
}
