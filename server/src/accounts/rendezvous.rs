//! Meetings of two devices at their home, where one links the other (chapter 05).
//!
//! Two sides, sealed blobs in both directions, nothing durable: a restart ends every meeting. The
//! home sees random ids and opaque bytes only.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::refusal::{Because as _, Code, Refusal};

/// Meetings that may be open at once; beyond it a join is refused.
const MEETINGS_MAX: usize = 10_000;
/// Bytes of blobs that wait in all of them.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The existing device, which made the id.
    Existing,
    /// The new one.
    New,
}

#[derive(Debug)]
struct Meeting {
    ends_at_ms: u64,
    new_joined: bool,
    for_existing: VecDeque<Bytes>,
    for_new: VecDeque<Bytes>,
    changed: Arc<Notify>,
}

impl Meeting {
    fn bytes(&self) -> usize {
        self.for_existing.iter().chain(&self.for_new).map(Bytes::len).sum()
    }
}

/// All open meetings.
#[derive(Debug)]
pub struct Meetings {
    open: Mutex<HashMap<[u8; 16], Meeting>>,
    lifetime_ms: u64,
    blobs_max: usize,
    blob_bytes_max: usize,
}

/// A side's seat, held by its connection.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    id: [u8; 16],
    side: Side,
}

impl Meetings {
    /// Meetings last `lifetime_ms`; at most `blobs_max` unread blobs a side, each at most `blob_bytes_max`.
    #[must_use]
    pub fn new(lifetime_ms: u64, blobs_max: usize, blob_bytes_max: usize) -> Self {
        Self { open: Mutex::default(), lifetime_ms, blobs_max, blob_bytes_max }
    }

    /// Takes a seat. A device opens the meeting, a candidate joins one that is open.
    ///
    /// # Errors
    /// `message-malformed`, `rendezvous-unknown`, `too-fast`.
    pub fn join(&self, id: &[u8], side: Side, now_ms: u64) -> Result<Seat, Refusal> {
        let id: [u8; 16] =
            id.try_into().map_err(|_| Code::MESSAGE_MALFORMED.because("a meeting's id has 16 bytes"))?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, meeting| meeting.ends_at_ms > now_ms);
        match side {
            Side::Existing if open.len() >= MEETINGS_MAX => {
                return Err(Code::TOO_FAST.because("too many meetings are open"));
            }
            Side::Existing if open.contains_key(&id) => return Err(Code::RENDEZVOUS_UNKNOWN.into()),
            Side::Existing => {
                open.entry(id).or_insert_with(|| Meeting {
                    ends_at_ms: now_ms.saturating_add(self.lifetime_ms),
                    new_joined: false,
                    for_existing: VecDeque::new(),
                    for_new: VecDeque::new(),
                    changed: Arc::default(),
                });
            }
            Side::New => {
                let meeting = open
                    .get_mut(&id)
                    .filter(|meeting| !meeting.new_joined)
                    .ok_or(Code::RENDEZVOUS_UNKNOWN)?;
                meeting.new_joined = true;
            }
        }
        Ok(Seat { id, side })
    }

    /// Puts a blob before the other side.
    ///
    /// # Errors
    /// `rendezvous-unknown`, `rendezvous-full`, `limit-exceeded`.
    pub fn send(&self, seat: Seat, blob: Bytes, now_ms: u64) -> Result<(), Refusal> {
        if blob.len() > self.blob_bytes_max {
            return Err(Code::LIMIT_EXCEEDED.because("blob"));
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = open.values().map(Meeting::bytes).sum();
        let meeting = open
            .get_mut(&seat.id)
            .filter(|meeting| meeting.ends_at_ms > now_ms)
            .ok_or(Code::RENDEZVOUS_UNKNOWN)?;
        if held.saturating_add(blob.len()) > BYTES_MAX {
            return Err(Code::RENDEZVOUS_FULL.because("too much waits in other meetings"));
        }
        let queue = match seat.side {
            Side::Existing => &mut meeting.for_new,
            Side::New => &mut meeting.for_existing,
        };
        if queue.len() >= self.blobs_max {
            return Err(Code::RENDEZVOUS_FULL.into());
        }
        queue.push_back(blob);
        meeting.changed.notify_waiters();
        Ok(())
    }

    /// The next blob for this side, or what to wait on.
    fn poll(&self, seat: Seat, now_ms: u64) -> Result<Result<Bytes, Arc<Notify>>, Refusal> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let meeting = open
            .get_mut(&seat.id)
            .filter(|meeting| meeting.ends_at_ms > now_ms)
            .ok_or(Code::RENDEZVOUS_UNKNOWN)?;
        let queue = match seat.side {
            Side::Existing => &mut meeting.for_existing,
            Side::New => &mut meeting.for_new,
        };
        Ok(queue.pop_front().ok_or_else(|| Arc::clone(&meeting.changed)))
    }

    /// Waits for the next blob; the caller has the deadline.
    ///
    /// # Errors
    /// `rendezvous-unknown`.
    pub async fn receive(&self, seat: Seat, now_ms: u64) -> Result<Bytes, Refusal> {
        loop {
            let changed = match self.poll(seat, now_ms)? {
                Ok(blob) => return Ok(blob),
                Err(changed) => changed,
            };
            let mut woken = std::pin::pin!(changed.notified());
            woken.as_mut().enable();
            // Between the look and the enabling a blob may have come.
            if let Ok(blob) = self.poll(seat, now_ms)? {
                return Ok(blob);
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meetings() -> Meetings {
        Meetings::new(1000, 4, 16)
    }

    #[tokio::test]
    async fn blobs_cross_in_order() {
        let meetings = meetings();
        let old = meetings.join(&[1; 16], Side::Existing, 0).expect("opens");
        let new = meetings.join(&[1; 16], Side::New, 0).expect("joins");
        for blob in [&b"a"[..], b"b"] {
            meetings.send(new, Bytes::from_static(blob), 0).expect("has room");
        }
        assert_eq!(meetings.receive(old, 0).await.expect("there"), "a");
        assert_eq!(meetings.receive(old, 0).await.expect("there"), "b");
    }

    #[test]
    fn unknown_full_late_and_third_are_refused() {
        let meetings = meetings();
        let code = |result: Result<Seat, Refusal>| result.expect_err("refused").code;
        assert_eq!(code(meetings.join(&[1; 16], Side::New, 0)), Code::RENDEZVOUS_UNKNOWN);
        let old = meetings.join(&[1; 16], Side::Existing, 0).expect("opens");
        meetings.join(&[1; 16], Side::New, 0).expect("joins");
        assert_eq!(code(meetings.join(&[1; 16], Side::New, 0)), Code::RENDEZVOUS_UNKNOWN);
        for _ in 0..4 {
            meetings.send(old, Bytes::new(), 0).expect("has room");
        }
        assert_eq!(meetings.send(old, Bytes::new(), 0).expect_err("full").code, Code::RENDEZVOUS_FULL);
        assert_eq!(
            meetings.send(old, Bytes::from(vec![0; 17]), 0).expect_err("large").code,
            Code::LIMIT_EXCEEDED
        );
        assert_eq!(meetings.send(old, Bytes::new(), 1000).expect_err("late").code, Code::RENDEZVOUS_UNKNOWN);
    }
}
