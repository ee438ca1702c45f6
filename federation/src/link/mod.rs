//! A link between two homes: this home's outbox going out, the peer's outbox coming in (chapter 09, 9.5 to 9.8).
//!
//! A pure machine that outlives connections: one [`Link`] stands for one peer record, so that there is one inbox
//! writer for a peer whatever connections come and go. Frames, the store's answers and the time go in; frames
//! come out of [`Link::poll_frame`], which is asked whenever the transport takes one more, and orders for the
//! store come out of [`Link::poll_order`]. A frame that claims durability leaves only after the order it depends
//! on was answered.
//!
//! Invariants: entries leave in order without a hole; at most a window of them is without an answer; nothing but
//! the entry after `taken` is taken; a LinkAck states only what the host said is stored; ResultsSeen only what
//! was settled.
//!
//! | event | writer | receiver |
//! |---|---|---|
//! | connected | waits for LinkResume | LinkResume, once no order of an older connection is open |
//! | LinkResume | resume: go on, ship again, or a new incarnation | – |
//! | LinkAck, Pause | settle, stop for a while | – |
//! | LinkRestart, LinkEntry, ResultsSeen | – | begin anew, take, forget refusals |
//! | lost | what was in flight goes out alone first | drops what was not taken |
//!
//! What this module does not do: read a clock, make random numbers, talk to anybody, know what entries mean.

mod receiver;
mod wire;
mod writer;

#[cfg(test)]
mod tests;

use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::RawFrame;
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::limits;

use crate::host::{InboxState, Incoming, OutboxEntry, OutboxState, Taken, Told};

use receiver::Receiver;
use writer::Writer;

/// Names an order, so that its answer is put where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// What the peer of a connection takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerLimits {
    /// `frame_bytes_max`.
    pub frame_bytes: usize,
    /// `link_window_entries`.
    pub window_entries: usize,
}

/// This side's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimits {
    /// `link_refusals_max`.
    pub refusals: usize,
    /// `link_window_entries` as advertised.
    pub window_entries: usize,
    /// Bytes of entries that are in flight, or received and not yet taken; one entry of any size always fits.
    pub window_bytes: usize,
    /// `reconnect_max_ms`: the longest pause.
    pub pause_ms: u64,
    /// `resends_max`: how often a connection may break with one entry alone in flight.
    pub resends: u32,
    /// Entries in one take.
    pub batch_entries: usize,
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self { frame_bytes: size(limits::FRAME_BYTES_MAX), window_entries: size(limits::LINK_WINDOW_ENTRIES) }
    }
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            refusals: size(limits::LINK_REFUSALS_MAX),
            window_entries: size(limits::LINK_WINDOW_ENTRIES),
            window_bytes: 4 << 20,
            pause_ms: limits::RECONNECT_MAX_MS,
            resends: u32::try_from(limits::RESENDS_MAX).unwrap_or(u32::MAX),
            batch_entries: 256,
        }
    }
}

/// What the driver has to do. All but [`Order::Close`] are answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// `outbox_fill`; answer with [`Link::filled`].
    Fill {
        /// Names it.
        token: Token,
        /// At most so many.
        max: usize,
    },
    /// `outbox_read`; answer with [`Link::read`].
    Read {
        /// Names it.
        token: Token,
        /// The number before the first.
        after: u64,
        /// At most so many.
        max_entries: usize,
        /// At most so many bytes, but one entry.
        max_bytes: usize,
    },
    /// `outbox_hash`; answer with [`Link::checked`].
    Check {
        /// Names it.
        token: Token,
        /// Of which number.
        n: u64,
    },
    /// `outbox_settle`; answer with [`Link::persisted`].
    Settle {
        /// Names it.
        token: Token,
        /// Up to this number.
        upto: u64,
        /// What was refused.
        refusals: Vec<(u64, Refusal)>,
    },
    /// `outbox_replace`; answer with [`Link::replaced`].
    Replace {
        /// Names it.
        token: Token,
        /// Which entry.
        n: u64,
        /// Why.
        reason: Refusal,
    },
    /// `outbox_restart`; answer with [`Link::restarted`].
    Restart {
        /// Names it.
        token: Token,
        /// What the peer said.
        told: Told,
        /// Whether it named a position of the present incarnation that this log never had.
        conflict: bool,
    },
    /// `take`; answer with [`Link::taken`].
    Take {
        /// Names it.
        token: Token,
        /// The entries.
        batch: Vec<Incoming>,
    },
    /// `inbox_restart`; answer with [`Link::persisted`].
    Reset {
        /// Names it.
        token: Token,
        /// The peer's new incarnation.
        incarnation: Incarnation,
    },
    /// `results_seen`; answer with [`Link::persisted`].
    Seen {
        /// Names it.
        token: Token,
        /// Up to this number.
        upto: u64,
    },
    /// Close the connection with this; then [`Link::lost`].
    Close(Refusal),
}

/// Hands out tokens.
#[derive(Debug, Default)]
struct Tokens(u64);

impl Tokens {
    fn next(&mut self) -> Token {
        self.0 = self.0.wrapping_add(1);
        Token(self.0)
    }
}

/// Both directions of a peer's link.
#[derive(Debug)]
pub struct Link {
    tokens: Tokens,
    writer: Writer,
    receiver: Receiver,
    /// Whether the peer's LinkResume came on this connection; `None` without one.
    resumed: Option<bool>,
    closing: Option<Refusal>,
}

impl Link {
    /// A link without a connection, as stored.
    #[must_use]
    pub fn new(outbox: OutboxState, inbox: InboxState, limits: LinkLimits) -> Self {
        Self {
            tokens: Tokens::default(),
            writer: Writer::new(outbox, limits),
            receiver: Receiver::new(inbox, limits),
            resumed: None,
            closing: None,
        }
    }

    /// A proven connection stands. An older one has to be lost first.
    pub fn connected(&mut self, peer: PeerLimits) {
        self.lost(true);
        self.resumed = Some(false);
        self.writer.connected(peer);
        self.receiver.connected(peer);
    }

    /// The connection is gone. `orderly`: it was ended on purpose (GoAway, taken over, a stop), which says
    /// nothing about what was in flight.
    pub fn lost(&mut self, orderly: bool) {
        if self.resumed.take().is_some() {
            self.closing = None;
            self.writer.lost(orderly);
            self.receiver.lost();
        }
    }

    /// Something may have been appended to the outbox, or waits for a number.
    pub const fn appended(&mut self) {
        self.writer.appended();
    }

    /// GoAway came or was sent: nothing new is shipped.
    pub const fn drain(&mut self) {
        self.writer.drain();
    }

    /// Nothing is in flight that waits for the peer's answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.writer.is_idle() && self.receiver.is_idle()
    }

    /// Whether the next frame should be read. If not, an order is open whose answer changes that.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.writer.wants_input() && self.receiver.wants_input()
    }

    /// Something was appended that [`Self::queued`] does not count yet.
    #[must_use]
    pub const fn has_news(&self) -> bool {
        self.writer.has_news()
    }

    /// Entries without a result, as far as is known.
    #[must_use]
    pub const fn queued(&self) -> u64 {
        self.writer.queued()
    }

    /// A frame of the peer's link stream.
    ///
    /// # Errors
    /// What to close the connection with; then [`Self::lost`].
    pub fn frame(&mut self, frame: Frame, now_ms: u64) -> Result<(), Refusal> {
        let unexpected = |name: &str| Err(Refusal::new(Code::FRAME_UNEXPECTED, name));
        match (frame, self.resumed) {
            (frame, None) => unexpected(frame.name()),
            (Frame::LinkResume(resume), Some(false)) => {
                self.resumed = Some(true);
                self.writer.resume(wire::told(resume)?);
                Ok(())
            }
            (frame, Some(false)) => unexpected(frame.name()),
            (Frame::LinkEntry(entry), _) => self.receiver.entry(entry, now_ms),
            (Frame::LinkAck(ack), _) => self.writer.ack(ack),
            (Frame::ResultsSeen(seen), _) => self.receiver.results_seen(seen.upto),
            (Frame::Pause(pause), _) => self.writer.pause(&pause, now_ms),
            (Frame::LinkRestart(restart), _) => self.receiver.restart(&restart),
            (frame, _) => unexpected(frame.name()),
        }
    }

    /// The next frame for this side's link stream. To be asked when the stream takes one.
    pub fn poll_frame(&mut self, now_ms: u64) -> Option<RawFrame> {
        self.resumed?;
        if let Some(frame) = self.receiver.poll_resume() {
            return Some(frame);
        }
        // LinkResume is the first frame of the stream, whatever else is ready.
        if !self.receiver.has_resumed() {
            return None;
        }
        self.writer
            .poll_control()
            .or_else(|| self.receiver.poll_frame())
            .or_else(|| self.writer.poll_entry(now_ms))
    }

    /// The next order. To be asked after every input until it is `None`.
    pub fn poll_order(&mut self, now_ms: u64) -> Option<Order> {
        if let Some(refusal) = self.closing.take() {
            return Some(Order::Close(refusal));
        }
        self.writer
            .poll_order(&mut self.tokens, now_ms)
            .or_else(|| self.receiver.poll_order(&mut self.tokens, now_ms))
    }

    /// When something is due by time alone, milliseconds since 1970.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        [self.writer.deadline(), self.receiver.deadline()].into_iter().flatten().min()
    }

    /// Answer to [`Order::Fill`].
    pub fn filled(&mut self, token: Token, last: u64) {
        self.writer.filled(token, last);
    }

    /// Answer to [`Order::Read`].
    pub fn read(&mut self, token: Token, entries: Vec<OutboxEntry>) {
        self.writer.read(token, entries);
    }

    /// Answer to [`Order::Check`].
    pub fn checked(&mut self, token: Token, hash: Option<Hash>) {
        self.closing = self.writer.checked(token, hash).err().or_else(|| self.closing.take());
    }

    /// Answer to [`Order::Replace`].
    pub fn replaced(&mut self, token: Token, entry: OutboxEntry) {
        self.writer.replaced(token, entry);
    }

    /// Answer to [`Order::Restart`].
    pub fn restarted(&mut self, token: Token, outbox: OutboxState) {
        self.writer.restarted(token, outbox);
    }

    /// Answer to [`Order::Take`].
    pub fn taken(&mut self, token: Token, taken: Taken, now_ms: u64) {
        self.receiver.taken(token, taken, now_ms);
    }

    /// Answer to [`Order::Settle`], [`Order::Reset`] and [`Order::Seen`].
    pub fn persisted(&mut self, token: Token) {
        self.writer.persisted(token);
        self.receiver.persisted(token);
    }
}
