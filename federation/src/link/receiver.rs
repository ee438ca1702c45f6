//! The receiving half of a link: the peer's outbox comes in (chapter 09, 9.7).
//!
//! | event | no connection | resuming | taking | paused |
//! |---|---|---|---|---|
//! | connected | LinkResume once no order is open; resuming | – | – | – |
//! | LinkRestart that fits | – | begin anew; taking | frame-unexpected | begin anew; paused |
//! | LinkRestart, other | – | position-invalid | frame-unexpected | position-invalid |
//! | LinkEntry | – | take; taking | take; taking | ignore, and Pause again if the writer began too early |
//! | ResultsSeen ≤ taken | – | forget refusals | forget refusals | forget refusals |
//! | ResultsSeen above | – | position-invalid | position-invalid | position-invalid |
//! | cannot take now | – | Pause; paused | Pause; paused | Pause; paused |
//! | lost | – | no connection | no connection | no connection |
//!
//! What was received and not yet taken is dropped with the connection: it comes again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use prost::Message as _;
use tidings_proto::codec;
use tidings_proto::entries;
use tidings_proto::error::{Code, Refusal, Retry};
use tidings_proto::frame::{RawFrame, is_critical};
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::Position;
use tidings_proto::pb;

use super::wire::{self, REFUSAL_BYTES_MAX, invalid, malformed};
use super::{LinkLimits, Order, PeerLimits, Token, Tokens};
use crate::host::{Content, InboxState, Incoming, NotNow, Taken, Verdict};

/// How long a writer waits where the reason says nothing about it.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Down,
    /// LinkResume is due as soon as no order of an older connection is open.
    Waiting,
    /// LinkResume was sent, no LinkEntry or LinkRestart came yet.
    Resuming,
    Taking,
}

#[derive(Debug)]
enum Open {
    Take { after: Vec<Position> },
    Reset,
    Seen,
}

#[derive(Debug)]
pub(super) struct Receiver {
    limits: LinkLimits,
    frame_bytes: usize,
    phase: Phase,
    /// Durable.
    taken: Option<Position>,
    /// Durable.
    unseen: BTreeMap<u64, Refusal>,
    /// Bytes that those take in a LinkResume.
    unseen_bytes: usize,
    /// After all that was received.
    end: Option<Position>,
    received: VecDeque<Incoming>,
    received_bytes: usize,
    open: Option<(Token, Open)>,
    reset: Option<Incarnation>,
    seen: Option<u64>,
    /// The number in the last LinkResume or LinkAck of this connection.
    stated: u64,
    ack_due: bool,
    pause_due: Option<NotNow>,
    paused_until: Option<u64>,
}

impl Receiver {
    pub(super) fn new(inbox: InboxState, limits: LinkLimits) -> Self {
        Self {
            limits,
            frame_bytes: PeerLimits::default().frame_bytes,
            phase: Phase::Down,
            taken: inbox.taken,
            unseen_bytes: inbox.unseen.iter().map(|(n, refusal)| cost(*n, refusal)).sum(),
            unseen: inbox.unseen.into_iter().collect(),
            end: inbox.taken,
            received: VecDeque::new(),
            received_bytes: 0,
            open: None,
            reset: None,
            seen: None,
            stated: 0,
            ack_due: false,
            pause_due: None,
            paused_until: None,
        }
    }

    pub(super) fn connected(&mut self, peer: PeerLimits) {
        self.phase = Phase::Waiting;
        self.frame_bytes = peer.frame_bytes;
    }

    pub(super) fn lost(&mut self) {
        self.phase = Phase::Down;
        self.drop_received();
        (self.ack_due, self.pause_due, self.paused_until) = (false, None, None);
    }

    /// What an open order will make durable stays expected; the rest comes again.
    fn drop_received(&mut self) {
        self.received.clear();
        self.received_bytes = 0;
        self.end = match &self.open {
            Some((_, Open::Take { after })) => after.last().copied().or(self.taken),
            _ => self.reset.map(Position::start).or(self.taken),
        };
    }

    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.received.is_empty() && !self.ack_due
    }

    pub(super) fn wants_input(&self) -> bool {
        self.received.is_empty()
            || (self.received.len() < self.limits.window_entries
                && self.received_bytes < self.limits.window_bytes)
    }

    pub(super) const fn deadline(&self) -> Option<u64> {
        self.paused_until
    }

    pub(super) const fn has_resumed(&self) -> bool {
        matches!(self.phase, Phase::Resuming | Phase::Taking)
    }

    fn number(&self) -> u64 {
        self.taken.map_or(0, |taken| taken.n)
    }

    pub(super) fn restart(&mut self, restart: &pb::LinkRestart) -> Result<(), Refusal> {
        if self.phase != Phase::Resuming {
            return Err(Refusal::new(Code::FRAME_UNEXPECTED, "link-restart after the first entry"));
        }
        let read = |bytes| {
            Incarnation::try_from(bytes)
                .ok()
                .filter(|incarnation| !incarnation.is_zero())
                .ok_or_else(|| malformed("an incarnation is 16 bytes, not all zero"))
        };
        let (new, previous) = (read(&restart.incarnation)?, read(&restart.previous_incarnation)?);
        if new == previous {
            return Err(malformed("the new incarnation is the previous one"));
        }
        if self.taken.is_some_and(|taken| taken.incarnation != previous) {
            return Err(invalid("nothing was taken of the previous incarnation"));
        }
        self.phase = Phase::Taking;
        self.unseen.clear();
        self.unseen_bytes = 0;
        self.seen = None;
        self.taken = Some(Position::start(new));
        self.end = self.taken;
        self.reset = Some(new);
        self.stated = 0;
        Ok(())
    }

    pub(super) fn entry(&mut self, entry: pb::LinkEntry, now_ms: u64) -> Result<(), Refusal> {
        if !self.has_resumed() {
            return Err(Refusal::new(Code::FRAME_UNEXPECTED, "link-entry before link-resume"));
        }
        let incarnation = Incarnation::try_from(&entry.incarnation)
            .ok()
            .filter(|incarnation| !incarnation.is_zero())
            .ok_or_else(|| malformed("an incarnation is 16 bytes, not all zero"))?;
        self.phase = Phase::Taking;
        let end = self.end.unwrap_or_else(|| Position::start(incarnation));
        if end.incarnation != incarnation || end.n.checked_add(1) != Some(entry.n) {
            return Ok(());
        }
        if let Some(until) = self.paused_until {
            // It is the one that is waited for: the writer's clock runs ahead, and would not send it again.
            let wait = Duration::from_millis(until.saturating_sub(now_ms).max(1));
            let reason = Refusal::new(Code::UNAVAILABLE, "still paused");
            self.pause_due.get_or_insert(NotNow { wait, reason });
            return Ok(());
        }
        let (content, position) = content(&entry, end)?;
        self.received_bytes = self.received_bytes.saturating_add(entry.entry.len());
        self.received.push_back(Incoming { n: entry.n, position, content, entry: entry.entry });
        self.end = Some(position);
        Ok(())
    }

    pub(super) fn results_seen(&mut self, upto: u64) -> Result<(), Refusal> {
        if upto > self.number() {
            return Err(invalid("results-seen above what was taken"));
        }
        let rest = self.unseen.split_off(&upto.saturating_add(1));
        if !self.unseen.is_empty() {
            let seen: usize = self.unseen.iter().map(|(n, refusal)| cost(*n, refusal)).sum();
            self.unseen_bytes = self.unseen_bytes.saturating_sub(seen);
            self.seen = Some(upto);
        }
        self.unseen = rest;
        Ok(())
    }

    /// How many refusals can still come before a LinkResume would not hold them all.
    fn room(&self) -> usize {
        let free = self.frame_bytes.saturating_sub(256).saturating_sub(self.unseen_bytes);
        let by_bytes = free.checked_div(REFUSAL_BYTES_MAX).unwrap_or(0);
        self.limits.refusals.saturating_sub(self.unseen.len()).min(by_bytes)
    }

    fn pause(&mut self, not_now: NotNow, now_ms: u64) {
        self.drop_received();
        if self.phase == Phase::Down {
            return;
        }
        let longest = Duration::from_millis(self.limits.pause_ms);
        let wait = not_now.wait.clamp(Duration::from_millis(1), longest);
        let class = not_now.reason.retry;
        let reason = if matches!(class, Retry::AfterDelay | Retry::AfterRepair) {
            not_now.reason
        } else {
            Refusal::new(Code::UNAVAILABLE, not_now.reason.to_string())
        };
        let millis = u64::try_from(wait.as_millis()).unwrap_or(self.limits.pause_ms);
        self.paused_until = Some(now_ms.saturating_add(millis));
        self.pause_due = Some(NotNow { wait, reason });
    }

    pub(super) fn poll_order(&mut self, tokens: &mut Tokens, now_ms: u64) -> Option<Order> {
        if self.paused_until.is_some_and(|until| until <= now_ms) {
            self.paused_until = None;
        }
        if self.open.is_some() {
            return None;
        }
        if let Some(incarnation) = self.reset.take() {
            let token = tokens.next();
            self.open = Some((token, Open::Reset));
            return Some(Order::Reset { token, incarnation });
        }
        if let Some(upto) = self.seen.take() {
            let token = tokens.next();
            self.open = Some((token, Open::Seen));
            return Some(Order::Seen { token, upto });
        }
        if self.received.is_empty() {
            return None;
        }
        let room = self.room();
        if room == 0 {
            let reason = Refusal::new(Code::UNAVAILABLE, "results were not seen yet");
            self.pause(NotNow { wait: PAUSE, reason }, now_ms);
            return None;
        }
        let count = self.received.len().min(room).min(self.limits.batch_entries.max(1));
        let batch: Vec<Incoming> = self.received.drain(..count).collect();
        let bytes = batch.iter().map(|incoming| incoming.entry.len()).sum();
        self.received_bytes = self.received_bytes.saturating_sub(bytes);
        let token = tokens.next();
        let after = batch.iter().map(|incoming| incoming.position).collect();
        self.open = Some((token, Open::Take { after }));
        Some(Order::Take { token, batch })
    }

    pub(super) fn taken(&mut self, token: Token, taken: Taken, now_ms: u64) {
        let Some((open, Open::Take { after })) = self.open.take_if(|(open, _)| *open == token) else {
            return;
        };
        debug_assert_eq!(open, token);
        let all = after.len();
        let done = taken.verdicts.len().min(all);
        let mut before = self.number();
        for (position, verdict) in after.into_iter().zip(taken.verdicts) {
            if let Verdict::Refused(refusal) = verdict {
                let (n, refusal) = (before.saturating_add(1), wire::bounded(refusal));
                self.unseen_bytes = self.unseen_bytes.saturating_add(cost(n, &refusal));
                self.unseen.insert(n, refusal);
            }
            before = position.n;
            self.taken = Some(position);
        }
        if self.phase == Phase::Down || self.phase == Phase::Waiting {
            self.drop_received();
            return;
        }
        self.ack_due |= done > 0;
        if done < all {
            let reason = || Refusal::new(Code::UNAVAILABLE, "not stored");
            self.pause(taken.not_now.unwrap_or_else(|| NotNow { wait: PAUSE, reason: reason() }), now_ms);
        }
    }

    pub(super) fn persisted(&mut self, token: Token) {
        self.open.take_if(|(open, kind)| *open == token && !matches!(kind, Open::Take { .. }));
    }

    /// LinkResume, the first frame of the stream. It waits for orders of an older connection: what they make
    /// durable belongs into it.
    pub(super) fn poll_resume(&mut self) -> Option<RawFrame> {
        if self.phase != Phase::Waiting || self.open.is_some() || self.reset.is_some() || self.seen.is_some()
        {
            return None;
        }
        self.phase = Phase::Resuming;
        self.drop_received();
        self.stated = self.number();
        let refusals = self.unseen.iter().map(|(n, refusal)| wire::result(*n, refusal)).collect();
        Some(codec::to_raw(&pb::LinkResume { taken: Some(wire::to_pb(self.taken)), refusals }))
    }

    pub(super) fn poll_frame(&mut self) -> Option<RawFrame> {
        if self.ack_due {
            self.ack_due = false;
            let since = self.unseen.range(self.stated.saturating_add(1)..);
            let refusals = since.map(|(n, refusal)| wire::result(*n, refusal)).collect();
            self.stated = self.number();
            return Some(codec::to_raw(&pb::LinkAck { taken: Some(wire::to_pb(self.taken)), refusals }));
        }
        let NotNow { wait, reason } = self.pause_due.take()?;
        let for_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        Some(codec::to_raw(&pb::Pause { for_ms, reason: Some(reason.to_pb()) }))
    }
}

/// Bytes of a refusal in a LinkResume, with its tag and length.
fn cost(n: u64, refusal: &Refusal) -> usize {
    wire::result(n, refusal).encoded_len().saturating_add(4)
}

/// What an entry is, and the position after it.
fn content(entry: &pb::LinkEntry, end: Position) -> Result<(Content, Position), Refusal> {
    let next = end.after(&entry.entry).map_err(|error| invalid(&error.to_string()))?;
    let Ok(parsed) = pb::Entry::decode(entry.entry.clone()) else {
        return Ok((Content::Refused(Refusal::new(Code::MESSAGE_MALFORMED, "entry")), next));
    };
    if parsed.r#type == entries::VOID {
        return Ok((Content::Nothing, void(&parsed, entry.n, end)?));
    }
    let content = match entries::find(parsed.r#type) {
        Some(spec) if spec.in_outbox => Content::Entry(parsed),
        Some(spec) => Content::Refused(Refusal::new(Code::ENTRY_UNKNOWN, spec.name)),
        None if is_critical(parsed.r#type) => {
            Content::Refused(Refusal::new(Code::ENTRY_UNKNOWN, format!("type {:#x}", parsed.r#type)))
        }
        None => Content::Nothing,
    };
    Ok((content, next))
}

/// A Void that names other numbers than its own breaks the log itself, not one entry of it.
fn void(entry: &pb::Entry, n: u64, end: Position) -> Result<Position, Refusal> {
    let void = pb::Void::decode(entry.body.clone()).map_err(|_| invalid("a void that cannot be parsed"))?;
    if void.from != n || void.to < n {
        return Err(invalid("a void of other numbers"));
    }
    let hash = Hash::try_from(&void.hash).map_err(|_| invalid("a void without a running hash"))?;
    Position::new(end.incarnation, void.to, hash).map_err(|error| invalid(&error.to_string()))
}
