//! The event stream: pulls from the mailbox and from the logs of groups while the window has room, waits on
//! acknowledgements.
//!
//! A slow reader costs its cursors, not memory: nothing is read that may not be sent now. The mailbox goes first, as
//! it holds the keys to what groups say; groups take turns.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quinn::SendStream;
use tidings_proto::codec;
use tidings_proto::id::{AccountId, DeviceId, GroupId};
use tidings_proto::pb;
use tokio::sync::watch;

use super::wire::{self, ReadError};
use crate::groups::{Feed, Reading};
use crate::node::Shared;
use crate::state::{LogOf, shipped};

/// Entries read from the store at once.
const BATCH_ENTRIES: usize = 64;

/// What is sent and not acknowledged. Pure.
#[derive(Debug, Default)]
pub struct Window {
    entries_max: usize,
    bytes_max: usize,
    bytes: usize,
    sent: VecDeque<(u64, usize)>,
    groups: BTreeMap<GroupId, VecDeque<(u64, usize)>>,
    of_groups: usize,
}

impl Window {
    /// Room for so many entries and bytes.
    #[must_use]
    pub fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self { entries_max, bytes_max, ..Self::default() }
    }

    fn unanswered(&self) -> usize {
        self.sent.len().saturating_add(self.of_groups)
    }

    /// Entries that may be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.bytes >= self.bytes_max { 0 } else { self.entries_max.saturating_sub(self.unanswered()) }
    }

    /// Whether an entry of this size may be sent now: one always may when nothing is unanswered.
    #[must_use]
    pub fn fits(&self, bytes: usize) -> bool {
        self.unanswered() == 0 || (self.room() > 0 && self.bytes.saturating_add(bytes) <= self.bytes_max)
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

    /// An event of a group was sent. Numbers from it on that were sent before are of another history, or again.
    pub fn sent_of(&mut self, group: GroupId, seq: u64, bytes: usize) {
        self.drop_of(group, |sent| sent >= seq);
        self.bytes = self.bytes.saturating_add(bytes);
        self.of_groups = self.of_groups.saturating_add(1);
        self.groups.entry(group).or_default().push_back((seq, bytes));
    }

    /// Everything of a group up to `seq` is durable at the reader.
    pub fn acknowledged_of(&mut self, group: GroupId, seq: u64) {
        self.drop_of(group, |sent| sent <= seq);
    }

    fn drop_of(&mut self, group: GroupId, gone: impl Fn(u64) -> bool) {
        let Some(sent) = self.groups.get_mut(&group) else { return };
        sent.retain(|(seq, bytes)| {
            let gone = gone(*seq);
            if gone {
                self.bytes = self.bytes.saturating_sub(*bytes);
                self.of_groups = self.of_groups.saturating_sub(1);
            }
            !gone
        });
        if sent.is_empty() {
            self.groups.remove(&group);
        }
    }
}

/// The groups of one stream.
struct Groups {
    who: (AccountId, DeviceId),
    feed: Arc<Feed>,
    readings: BTreeMap<GroupId, Reading>,
    /// With something to send, in turn.
    turns: VecDeque<GroupId>,
}

impl Groups {
    fn wake(&mut self, group: GroupId) {
        if !self.turns.contains(&group) {
            self.turns.push_back(group);
        }
    }

    /// Takes in what happened since the last look.
    fn hear(&mut self, window: &mut Window) {
        let news = self.feed.take();
        for (group, seq) in news.acknowledged {
            window.acknowledged_of(group, seq);
        }
        for (group, after) in news.rewound {
            if let Some(reading) = self.readings.get_mut(&group) {
                reading.rewind(after);
            }
            window.acknowledged_of(group, u64::MAX);
        }
        news.groups.into_iter().for_each(|group| self.wake(group));
    }

    /// Sends what the group whose turn it is has, as far as there is room. Gives whether anything was done.
    async fn send(
        &mut self,
        shared: &Arc<Shared>,
        window: &mut Window,
        stream: &mut SendStream,
    ) -> Result<bool, ReadError> {
        let room = window.room().min(BATCH_ENTRIES);
        if room == 0 {
            return Ok(false);
        }
        let Some(group) = self.turns.pop_front() else { return Ok(false) };
        let reading = self.readings.entry(group).or_default();
        let Some(next) = shared.next_of_group(group, self.who, reading, room).await? else {
            self.readings.remove(&group);
            return Ok(true);
        };
        let mut out: Vec<Bytes> = next.gap.into_iter().collect();
        let (all, mut sent) = (next.events.len(), 0_usize);
        for (seq, frame) in next.events {
            let length = frame.len();
            if !window.fits(length) {
                break;
            }
            window.sent_of(group, seq, length);
            reading.sent(seq);
            out.push(frame);
            sent = sent.saturating_add(1);
        }
        if let Some(head) = next.head.filter(|_| sent == all) {
            reading.sent_head(&head);
            out.push(codec::encode(&head));
        }
        if sent < all || next.more {
            self.turns.push_back(group);
        }
        let progressed = !out.is_empty() || sent == all;
        if !out.is_empty() {
            stream.write_all_chunks(&mut out).await.map_err(|_| ReadError::Gone)?;
        }
        Ok(progressed)
    }
}

/// Runs until the stream or connection ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    (who, feed): ((AccountId, DeviceId), Arc<Feed>),
    mut stream: SendStream,
    start: u64,
    mut acknowledged: watch::Receiver<u64>,
) -> Result<(), ReadError> {
    let device = who.1;
    let limits = &shared.config.limits;
    let size = crate::config::Limits::size;
    let mut window = Window::new(size(limits.event_window_entries()), size(limits.event_window_bytes()));
    let mut next = start.saturating_add(1);
    let wake = shared.wakers.of(device);
    let turns = if feed.is_deaf() { VecDeque::new() } else { shared.groups_read_by(who.0).await?.into() };
    let mut groups = Groups { who, feed, readings: BTreeMap::new(), turns };
    loop {
        window.acknowledged(*acknowledged.borrow_and_update());
        let mut woken = std::pin::pin!(wake.notified());
        woken.as_mut().enable();
        groups.hear(&mut window);
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
        if progressed || groups.send(&shared, &mut window, &mut stream).await? {
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

    #[test]
    fn groups_share_the_window_with_the_mailbox() {
        let (one, other) = (GroupId([1; 32]), GroupId([2; 32]));
        let mut window = Window::new(4, 100);
        window.sent(1, 20);
        window.sent_of(one, 7, 20);
        window.sent_of(one, 8, 20);
        window.sent_of(other, 1, 30);
        assert_eq!((window.room(), window.bytes), (0, 90));
        window.acknowledged_of(one, 7);
        assert_eq!((window.room(), window.bytes), (1, 70));
        window.acknowledged(1);
        // Another history from 8 on.
        window.sent_of(one, 8, 10);
        assert_eq!((window.room(), window.bytes), (2, 40));
        window.acknowledged_of(one, 9);
        window.acknowledged_of(other, 9);
        assert_eq!((window.room(), window.bytes), (4, 0));
    }
}
