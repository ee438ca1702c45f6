//! The writing half of a link: this home's outbox goes out (chapter 09, 9.6).
//!
//! | event | no connection | resuming | shipping | paused |
//! |---|---|---|---|---|
//! | appended | note | note | fill, read, send while the window has room | note |
//! | LinkResume | – | resume; shipping | frame-unexpected | frame-unexpected |
//! | LinkAck of what was sent | – | frame-unexpected | settle, then ResultsSeen; send on | settle, then ResultsSeen |
//! | LinkAck below, same hash | – | frame-unexpected | settle the refusals it repeats | the same |
//! | LinkAck, other | – | position-invalid | position-invalid | position-invalid |
//! | Pause | – | note its end; resuming | paused | the later end; paused |
//! | pause over | – | none | none | send again from what the peer named last |
//! | lost | none | no connection | note what was in flight | note what was in flight |
//! | drain | – | – | send nothing new | send nothing new |
//!
//! After a connection broke, what was in flight goes out again slowly: one entry alone, then twice as many after
//! each acknowledgement. So whichever entry breaks connections is soon alone in flight, and known.

mod resume;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use tidings_proto::codec;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::RawFrame;
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::pb;

use super::wire::{self, invalid, malformed};
use super::{LinkLimits, Order, PeerLimits, Token, Tokens};
use crate::host::{OutboxEntry, OutboxState, Told};

/// What a LinkEntry adds to its entry: incarnation, number, lengths.
const ENTRY_OVERHEAD_BYTES: usize = 40;
/// Bytes asked from the store at once.
const READ_BYTES: usize = 1 << 20;
/// Refusals of the peer that may wait for the store before no more of its frames are read.
const REFUSALS_WAITING: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    Resuming,
    Shipping,
}

/// An order that changes the store; its effect outlives the connection.
#[derive(Debug)]
enum Storing {
    Settle { upto: u64, life: u64 },
    Replace { life: u64 },
    Restart { life: u64, previous: Incarnation },
}

/// An order that looks something up for this connection.
#[derive(Debug)]
enum Looking {
    Fill,
    Read,
    Resume,
    Repeated(Repeated),
}

/// Refusals that a LinkAck repeats below what was acknowledged, until its hash is looked up.
#[derive(Debug)]
struct Repeated {
    n: u64,
    hash: Hash,
    refusals: Vec<(u64, Refusal)>,
}

#[derive(Debug)]
struct Shipped {
    n: u64,
    to: u64,
    hash: Hash,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct Writer {
    limits: LinkLimits,
    peer: PeerLimits,
    outbox: OutboxState,
    phase: Phase,
    /// Counts connections, so that nothing of an older one is said on a newer one.
    life: u64,
    told: Option<Told>,
    /// The running hash here at the number that was told.
    held: Option<Option<Hash>>,
    notified: bool,
    /// As `notified`, but only if somebody said so.
    news: bool,
    draining: bool,
    paused_until: Option<u64>,
    /// What the peer named last on this connection.
    acked: (u64, Hash),
    ready: VecDeque<OutboxEntry>,
    window: VecDeque<Shipped>,
    window_bytes: usize,
    /// Entries that may be in flight while a broken connection is made up for.
    slow: Option<usize>,
    /// An entry with which alone the connection broke, and how often.
    broken: Option<(u64, u32)>,
    replace: Option<(u64, Code)>,
    storing: Option<(Token, Storing)>,
    looking: Option<(Token, Looking)>,
    unsettled: Option<(u64, BTreeMap<u64, Refusal>)>,
    repeated: Option<Repeated>,
    restart_due: Option<(Incarnation, Incarnation)>,
    seen_due: Option<u64>,
}

impl Writer {
    pub(super) fn new(outbox: OutboxState, limits: LinkLimits) -> Self {
        Self {
            limits,
            peer: PeerLimits::default(),
            outbox,
            phase: Phase::Down,
            life: 0,
            told: None,
            held: None,
            notified: true,
            news: false,
            draining: false,
            paused_until: None,
            acked: (0, Hash::ZERO),
            ready: VecDeque::new(),
            window: VecDeque::new(),
            window_bytes: 0,
            slow: None,
            broken: None,
            replace: None,
            storing: None,
            looking: None,
            unsettled: None,
            repeated: None,
            restart_due: None,
            seen_due: None,
        }
    }

    pub(super) fn connected(&mut self, peer: PeerLimits) {
        self.life = self.life.wrapping_add(1);
        self.phase = Phase::Resuming;
        self.peer = peer;
        self.notified = true;
        self.draining = false;
    }

    pub(super) fn lost(&mut self, orderly: bool) {
        if !orderly && let Some(first) = self.window.front() {
            self.slow = Some(1);
            let times = self.broken.filter(|(n, _)| *n == first.n).map_or(0, |(_, times)| times);
            self.broken = (self.window.len() == 1).then(|| (first.n, times.saturating_add(1)));
        }
        self.phase = Phase::Down;
        self.told = None;
        self.held = None;
        self.paused_until = None;
        // Its answer will say nothing any more.
        self.news |= matches!(self.looking, Some((_, Looking::Fill)));
        self.looking = None;
        self.repeated = None;
        self.restart_due = None;
        self.seen_due = None;
        self.replace = None;
        self.forget_sent();
    }

    fn forget_sent(&mut self) {
        self.ready.clear();
        self.window.clear();
        self.window_bytes = 0;
    }

    pub(super) const fn appended(&mut self) {
        self.notified = true;
        self.news = true;
    }

    pub(super) const fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.window.is_empty()
            && self.unsettled.is_none()
            && self.storing.is_none()
            && self.seen_due.is_none()
    }

    pub(super) fn wants_input(&self) -> bool {
        self.repeated.is_none()
            && self.unsettled.as_ref().is_none_or(|(_, refusals)| refusals.len() < REFUSALS_WAITING)
    }

    pub(super) const fn has_news(&self) -> bool {
        self.news
    }

    pub(super) const fn queued(&self) -> u64 {
        self.outbox.last.saturating_sub(self.outbox.done)
    }

    pub(super) const fn deadline(&self) -> Option<u64> {
        self.paused_until
    }

    /// LinkResume; handled when no order of an older connection is open.
    pub(super) fn resume(&mut self, told: Told) {
        self.told = Some(told);
    }

    pub(super) fn ack(&mut self, ack: pb::LinkAck) -> Result<(), Refusal> {
        if self.phase != Phase::Shipping {
            return Err(Refusal::new(Code::FRAME_UNEXPECTED, "link-ack before the resume"));
        }
        let taken = wire::position(ack.taken)?.ok_or_else(|| invalid("an answer that names nothing"))?;
        let refusals = wire::refusals(ack.refusals, taken.n)?;
        if taken.incarnation != self.outbox.incarnation {
            return Err(invalid("an answer to another incarnation"));
        }
        if taken.n == self.acked.0 && refusals.is_empty() && taken.h == self.acked.1 {
            return Ok(());
        }
        if taken.n == self.acked.0 {
            if taken.h != self.acked.1 {
                return Err(invalid("another hash than before"));
            }
        } else if taken.n < self.acked.0 {
            if !refusals.is_empty() {
                self.repeated = Some(Repeated { n: taken.n, hash: taken.h, refusals });
            }
            return Ok(());
        } else {
            let place = self.window.iter().position(|sent| sent.to == taken.n && sent.hash == taken.h);
            let place = place.ok_or_else(|| invalid("an answer to what was not sent"))?;
            for sent in self.window.drain(..=place) {
                self.window_bytes = self.window_bytes.saturating_sub(sent.bytes);
            }
            self.acked = (taken.n, taken.h);
            self.broken = self.broken.filter(|(n, _)| *n > taken.n);
            self.slow =
                self.slow.map(|slow| slow.saturating_mul(2)).filter(|slow| *slow < self.peer.window_entries);
        }
        self.settle(taken.n, refusals);
        Ok(())
    }

    fn settle(&mut self, upto: u64, refusals: Vec<(u64, Refusal)>) {
        let (held, all) = self.unsettled.get_or_insert_with(|| (0, BTreeMap::new()));
        *held = upto.max(*held);
        all.extend(refusals);
    }

    pub(super) fn pause(&mut self, pause: &pb::Pause, now_ms: u64) -> Result<(), Refusal> {
        if pause.reason.is_none() {
            return Err(malformed("a pause without a reason"));
        }
        let wait = u64::from(pause.for_ms).min(self.limits.pause_ms);
        let until = now_ms.saturating_add(wait);
        self.paused_until = Some(self.paused_until.map_or(until, |before| before.max(until)));
        Ok(())
    }

    pub(super) fn poll_order(&mut self, tokens: &mut Tokens, now_ms: u64) -> Option<Order> {
        if self.paused_until.is_some_and(|until| until <= now_ms) {
            self.paused_until = None;
            // What was sent before or during the pause was ignored.
            self.looking.take_if(|(_, looking)| matches!(looking, Looking::Read));
            self.forget_sent();
        }
        if self.storing.is_none()
            && let Some(order) = self.poll_storing(tokens)
        {
            return Some(order);
        }
        if self.looking.is_some() || !matches!(self.storing, None | Some((_, Storing::Settle { .. }))) {
            return None;
        }
        let (order, looking) = self.look(tokens)?;
        let token = match &order {
            Order::Check { token, .. } | Order::Fill { token, .. } | Order::Read { token, .. } => *token,
            _ => return Some(order),
        };
        self.looking = Some((token, looking));
        Some(order)
    }

    fn poll_storing(&mut self, tokens: &mut Tokens) -> Option<Order> {
        if let Some((upto, refusals)) = self.unsettled.take() {
            let token = tokens.next();
            self.storing = Some((token, Storing::Settle { upto, life: self.life }));
            return Some(Order::Settle { token, upto, refusals: refusals.into_iter().collect() });
        }
        if self.told.is_some() && self.looking.is_none() {
            return self.poll_resume(tokens);
        }
        if let Some((n, code)) = self.replace.take() {
            let token = tokens.next();
            self.storing = Some((token, Storing::Replace { life: self.life }));
            return Some(Order::Replace { token, n, reason: code.into() });
        }
        None
    }

    fn next_after(&self) -> u64 {
        let ready = self.ready.back().map(|entry| entry.to);
        ready.or_else(|| self.window.back().map(|sent| sent.to)).unwrap_or(self.acked.0)
    }

    fn has_room(&self) -> bool {
        let entries = self.slow.unwrap_or(usize::MAX).min(self.peer.window_entries.max(1));
        self.window.len() < entries
            && (self.window.is_empty() || self.window_bytes < self.limits.window_bytes)
    }

    fn may_ship(&self) -> bool {
        self.phase == Phase::Shipping && !self.draining && self.paused_until.is_none()
    }

    fn look(&mut self, tokens: &mut Tokens) -> Option<(Order, Looking)> {
        if let Some(repeated) = self.repeated.take() {
            let token = tokens.next();
            return Some((Order::Check { token, n: repeated.n }, Looking::Repeated(repeated)));
        }
        if !self.may_ship() || !self.ready.is_empty() || self.replace.is_some() || !self.has_room() {
            return None;
        }
        let max_entries = self.peer.window_entries.saturating_sub(self.window.len()).max(1);
        let after = self.next_after();
        if after < self.outbox.last {
            let max_bytes = READ_BYTES.min(self.limits.window_bytes);
            let token = tokens.next();
            return Some((Order::Read { token, after, max_entries, max_bytes }, Looking::Read));
        }
        if !self.notified {
            return None;
        }
        self.notified = false;
        self.news = false;
        let token = tokens.next();
        Some((Order::Fill { token, max: max_entries }, Looking::Fill))
    }

    /// Takes the open look-up of this token; an answer for an older connection finds none.
    fn looked(&mut self, token: Token) -> Option<Looking> {
        self.looking.take_if(|(open, _)| *open == token).map(|(_, looking)| looking)
    }

    pub(super) fn filled(&mut self, token: Token, last: u64) {
        if self.looked(token).is_some() {
            self.outbox.last = self.outbox.last.max(last);
        }
    }

    pub(super) fn read(&mut self, token: Token, entries: Vec<OutboxEntry>) {
        if self.looked(token).is_none() {
            return;
        }
        if entries.is_empty() {
            // The store has less than it said; it will say when there is more.
            self.outbox.last = self.next_after();
            return;
        }
        for entry in entries {
            if entry.n.checked_sub(1) != Some(self.next_after()) || entry.to < entry.n {
                self.outbox.last = self.next_after();
                return;
            }
            let bytes = entry.entry.len().saturating_add(ENTRY_OVERHEAD_BYTES);
            if bytes > self.peer.frame_bytes {
                self.replace = Some((entry.n, Code::TOO_LARGE));
                return;
            }
            if self.broken.is_some_and(|(n, times)| n == entry.n && times >= self.limits.resends) {
                self.replace = Some((entry.n, Code::POISON));
                return;
            }
            self.ready.push_back(entry);
        }
    }

    /// # Errors
    /// A LinkAck that repeated a position which this log never had.
    pub(super) fn checked(&mut self, token: Token, hash: Option<Hash>) -> Result<(), Refusal> {
        match self.looked(token) {
            Some(Looking::Resume) => {
                self.held = Some(hash);
                Ok(())
            }
            Some(Looking::Repeated(Repeated { n, hash: named, refusals })) => {
                if hash != Some(named) {
                    return Err(invalid("an answer with another hash"));
                }
                self.settle(n, refusals);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn replaced(&mut self, token: Token, entry: OutboxEntry) {
        let Some((_, Storing::Replace { life })) = self.storing.take_if(|(open, _)| *open == token) else {
            return;
        };
        self.broken = self.broken.filter(|(n, _)| *n != entry.n);
        if life == self.life
            && self.phase == Phase::Shipping
            && entry.n.checked_sub(1) == Some(self.next_after())
        {
            self.ready.push_back(entry);
        }
    }

    pub(super) fn restarted(&mut self, token: Token, outbox: OutboxState) {
        let Some((_, Storing::Restart { life, previous })) = self.storing.take_if(|(open, _)| *open == token)
        else {
            return;
        };
        self.outbox = outbox;
        self.broken = None;
        if life == self.life && self.phase == Phase::Resuming {
            self.restart_due = Some((outbox.incarnation, previous));
            self.ship_from((0, Hash::ZERO));
        }
    }

    pub(super) fn persisted(&mut self, token: Token) {
        let Some((_, Storing::Settle { upto, life })) =
            self.storing.take_if(|(open, kind)| *open == token && matches!(kind, Storing::Settle { .. }))
        else {
            return;
        };
        self.outbox.done = self.outbox.done.max(upto);
        self.outbox.last = self.outbox.last.max(upto);
        if life == self.life && self.phase == Phase::Shipping && upto > 0 {
            self.seen_due = Some(self.seen_due.unwrap_or(0).max(upto));
        }
    }

    pub(super) fn poll_control(&mut self) -> Option<RawFrame> {
        if let Some((incarnation, previous)) = self.restart_due.take() {
            return Some(codec::to_raw(&pb::LinkRestart {
                incarnation: incarnation.to_bytes(),
                previous_incarnation: previous.to_bytes(),
            }));
        }
        let upto = self.seen_due.take()?;
        Some(codec::to_raw(&pb::ResultsSeen { upto }))
    }

    pub(super) fn poll_entry(&mut self, now_ms: u64) -> Option<RawFrame> {
        if !self.may_ship() || self.paused_until.is_some_and(|until| until > now_ms) || !self.has_room() {
            return None;
        }
        let entry = self.ready.pop_front()?;
        let bytes = entry.entry.len();
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        self.window.push_back(Shipped { n: entry.n, to: entry.to, hash: entry.hash, bytes });
        Some(self.frame(entry.n, entry.entry))
    }

    fn frame(&self, n: u64, entry: Bytes) -> RawFrame {
        codec::to_raw(&pb::LinkEntry { incarnation: self.outbox.incarnation.to_bytes(), n, entry })
    }
}
