//! What is fed, and what has to hold for any bytes.

mod canonical;
mod chain;
mod codec;
mod entry;
mod group;
mod group_log;
mod group_state;
mod handshake;
mod log;
mod name;
mod record;
mod watermark;

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// One thing that reads bytes of others.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Runs once. The same number comes back for inputs that fared alike.
    pub(crate) run: fn(&[u8]) -> u64,
    /// Valid inputs, so that mutations reach deep.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Runs in `cargo test`: unoptimised, and each has to stay well under a second.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the tests only"))]
    pub(crate) test_runs: u64,
}

pub(crate) const ALL: &[Target] = &[
    Target { name: "codec", run: codec::run, seeds: codec::seeds, test_runs: 4000 },
    Target { name: "chain", run: chain::run, seeds: chain::seeds, test_runs: 300 },
    Target { name: "handshake", run: handshake::run, seeds: handshake::seeds, test_runs: 300 },
    Target { name: "watermark", run: watermark::run, seeds: watermark::seeds, test_runs: 4000 },
    Target { name: "canonical", run: canonical::run, seeds: canonical::seeds, test_runs: 4000 },
    Target { name: "name", run: name::run, seeds: name::seeds, test_runs: 4000 },
    Target { name: "entry", run: entry::run, seeds: entry::seeds, test_runs: 4000 },
    Target { name: "log", run: log::run, seeds: log::seeds, test_runs: 4000 },
    Target { name: "group", run: group::run, seeds: group::seeds, test_runs: 100 },
    Target { name: "group_state", run: group_state::run, seeds: group_state::seeds, test_runs: 1000 },
    Target { name: "group_log", run: group_log::run, seeds: group_log::seeds, test_runs: 300 },
    Target { name: "record", run: record::run, seeds: record::seeds, test_runs: 300 },
];

pub(crate) fn names() -> Vec<&'static str> {
    ALL.iter().map(|target| target.name).collect()
}

/// A number for what happened, alike for what is alike.
fn outcome(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// A big-endian number off the front; zeros stand for bytes that are not there.
fn take_u64(data: &mut &[u8]) -> u64 {
    let (head, tail) = data.split_at(data.len().min(8));
    *data = tail;
    let mut bytes = [0; 8];
    bytes[..head.len()].copy_from_slice(head);
    u64::from_be_bytes(bytes)
}
