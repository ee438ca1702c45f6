//! The event stream: pulls from the mailbox while the window has room, waits on acknowledgements.
//!
//! A slow reader costs its cursor, not memory: nothing is read that may not be sent now.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use quinn::SendStream;
use tidings_proto::codec;
use tidings_proto::id::DeviceId;
use tidings_proto::pb;
use tokio::sync::watch;

use super::wire::{self, ReadError};
use crate::node::Shared;
use crate::state::{LogOf, shipped};

/// Entries read from the store at once.
const BATCH_ENTRIES: usize = 64;

/// What is sent and not acknowledged. Pure.
#[derive(Debug)]
pub struct Window {
    entries_max: usize,
    bytes_max: usize,
    bytes: usize,
    sent: VecDeque<(u64, usize)>,
}

impl Window {
    /// Room for so many entries and bytes.
    #[must_use]
    pub const fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries_max, bytes_max, bytes: 0, sent: VecDeque::new() }
    }

    /// Entries that may be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.bytes >= self.bytes_max { 0 } else { self.entries_max.saturating_sub(self.sent.len()) }
    }

    /// Whether an entry of this size may be sent now: one always may when nothing is unanswered.
    #[must_use]
    pub fn fits(&self, bytes: usize) -> bool {
        self.sent.is_empty() || (self.room() > 0 && self.bytes.saturating_add(bytes) <= self.bytes_max)
    }

    /// An entry was sent.
    pub fn sent(&mut self, n: u64, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.sent.push_back((n, bytes));
    }

    /// Everything up to `n` is durable at the reader.
    pub fn acknowledged(&mut self, n: u64) {
        while let Some((_, bytes)) = self.sent.pop_front_if(|(sent, _)| *sent <= n) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

/// Runs until the stream or connection ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    device: DeviceId,
    mut stream: SendStream,
    start: u64,
    mut acknowledged: watch::Receiver<u64>,
) -> Result<(), ReadError> {
    let limits = &shared.config.limits;
    let size = crate::config::Limits::size;
    let mut window = Window::new(size(limits.event_window_entries()), size(limits.event_window_bytes()));
    let mut next = start.saturating_add(1);
    let wake = shared.wakers.of(device);
    loop {
        window.acknowledged(*acknowledged.borrow_and_update());
        let mut woken = std::pin::pin!(wake.notified());
        woken.as_mut().enable();
        let room = window.room().min(BATCH_ENTRIES);
        let mut progressed = false;
        if room > 0 {
            let rows = shared.state.read(LogOf::Device(device), next, room).await?;
            let mut out = BytesMut::new();
            for (n, to, entry, _) in shipped(&rows) {
                let length = entry.len();
                if !window.fits(length) {
                    break;
                }
                out.extend_from_slice(&codec::encode(&pb::MailboxEntry { n, entry }));
                window.sent(to, length);
                next = to.saturating_add(1);
                progressed = true;
            }
            if progressed {
                wire::write_bytes(&mut stream, out.freeze()).await?;
            }
        }
        if progressed {
            continue;
        }
        tokio::select! {
            () = woken => {}
            changed = acknowledged.changed() => if changed.is_err() { return Ok(()) },
            _ = stream.stopped() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_closes_and_opens_with_acknowledgements() {
        let mut window = Window::new(2, 100);
        assert!(window.fits(1000), "one always may go");
        window.sent(1, 60);
        assert!(!window.fits(41));
        assert!(window.fits(40));
        window.sent(2, 40);
        assert_eq!(window.room(), 0);
        window.acknowledged(1);
        assert_eq!(window.room(), 1);
        window.acknowledged(9);
        assert_eq!(window.room(), 2);
        assert_eq!(window.bytes, 0);
    }
}
