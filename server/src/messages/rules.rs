//! What may be submitted, and what follows from it (chapter 06). Pure: facts in, verdict out.

use std::collections::BTreeSet;

use bytes::Bytes;
use tidings_proto::id::{DeviceId, Hash};
use tidings_proto::pb;

use crate::refusal::{Because as _, Code, Refusal};

/// What a device's counter says about a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// The next one: decide it.
    New,
    /// Decided before: the same answer again.
    Known(Bytes),
}

/// A stored outcome: the digest of the request it belongs to, and the answer's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// SHA-256 of the request's payload.
    pub digest: Hash,
    /// The encoded `Outcome`.
    pub outcome: Bytes,
}

/// Whose turn it is. `last` is the highest consumed counter, `stored` the outcome kept for `counter`,
/// `behind` whether an earlier submission on this pipeline was answered "later".
///
/// # Errors
/// `message-malformed`, `counter-conflict`, `counter-too-old`, `counter-gap`, `after-earlier`; none consumes a number.
pub fn turn(
    last: u64,
    counter: u64,
    digest: &Hash,
    stored: Option<Stored>,
    behind: bool,
) -> Result<Turn, Refusal> {
    if counter == 0 {
        return Err(Code::MESSAGE_MALFORMED.because("counters start at 1"));
    }
    if counter <= last {
        return match stored {
            None => Err(Code::COUNTER_TOO_OLD.into()),
            Some(stored) if stored.digest == *digest => Ok(Turn::Known(stored.outcome)),
            Some(_) => Err(Code::COUNTER_CONFLICT.into()),
        };
    }
    if counter == last.saturating_add(1) {
        return Ok(Turn::New);
    }
    Err(if behind { Code::AFTER_EARLIER.into() } else { Code::COUNTER_GAP.into() })
}

/// Milliseconds a message lives.
///
/// # Errors
/// `lifetime-invalid`.
pub fn lifetime_ms(asked_secs: u32, default_secs: u64, max_secs: u64) -> Result<u64, Refusal> {
    let secs = if asked_secs == 0 { default_secs } else { u64::from(asked_secs) };
    if secs > max_secs {
        return Err(Code::LIFETIME_INVALID.because("above lifetime_max_secs"));
    }
    Ok(secs.saturating_mul(1000))
}

/// The class of a submission.
///
/// # Errors
/// `message-malformed`.
pub fn class(submit: &pb::Submit) -> Result<pb::Class, Refusal> {
    match pb::Class::try_from(submit.class) {
        Ok(class @ (pb::Class::Content | pb::Class::Service)) => Ok(class),
        _ => Err(Code::MESSAGE_MALFORMED.because("class")),
    }
}

/// The devices of payloads: one each, none twice.
///
/// # Errors
/// `message-malformed`.
pub fn devices_of(payloads: &[pb::Payload]) -> Result<BTreeSet<DeviceId>, Refusal> {
    let mut devices = BTreeSet::new();
    for payload in payloads {
        let device = DeviceId::try_from(&payload.device)
            .map_err(|_| Code::MESSAGE_MALFORMED.because("payload device"))?;
        if pb::PayloadKind::try_from(payload.kind).unwrap_or_default() == pb::PayloadKind::Unspecified {
            return Err(Code::MESSAGE_MALFORMED.because("payload kind"));
        }
        if !devices.insert(device) {
            return Err(Code::MESSAGE_MALFORMED.because("a device twice"));
        }
    }
    Ok(devices)
}

/// Number of payloads.
///
/// # Errors
/// `limit-exceeded`.
pub fn numbers(payloads: &[pb::Payload], most: u64) -> Result<(), Refusal> {
    if u64::try_from(payloads.len()).unwrap_or(u64::MAX) > most {
        return Err(Code::LIMIT_EXCEEDED.because("payloads"));
    }
    Ok(())
}

/// Size of payloads.
///
/// # Errors
/// `too-large`.
pub fn sizes(payloads: &[pb::Payload], ciphertext_max: u64) -> Result<(), Refusal> {
    let size = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    if payloads.iter().any(|payload| size(payload.ciphertext.len()) > ciphertext_max) {
        return Err(Code::TOO_LARGE.because("ciphertext"));
    }
    Ok(())
}

/// Whether the devices encrypted to are those of the head that was named. Devices in `without_keys` can be
/// absent: nobody can begin a session with them.
///
/// # Errors
/// `wrong-devices`, with those missing or surplus and the current head.
pub fn exact_devices(
    named: &BTreeSet<DeviceId>,
    at_head: &BTreeSet<DeviceId>,
    without_keys: &BTreeSet<DeviceId>,
    head: Bytes,
) -> Result<(), Refusal> {
    let missing = at_head.difference(named).filter(|device| !without_keys.contains(device));
    let differing: Vec<Bytes> = missing.chain(named.difference(at_head)).map(DeviceId::to_bytes).collect();
    if differing.is_empty() {
        return Ok(());
    }
    Err(Code::WRONG_DEVICES.because("not the devices of that head").with_devices(differing).with_head(head))
}

/// For a supplement or a service message: only devices of the head that was named, at least one.
///
/// # Errors
/// `wrong-devices`, with the surplus ones.
pub fn some_devices(
    named: &BTreeSet<DeviceId>,
    current: &BTreeSet<DeviceId>,
    head: Bytes,
) -> Result<(), Refusal> {
    let surplus: Vec<Bytes> = named.difference(current).map(DeviceId::to_bytes).collect();
    if surplus.is_empty() && !named.is_empty() {
        return Ok(());
    }
    Err(Code::WRONG_DEVICES.because("not on the list").with_devices(surplus).with_head(head))
}

/// How a message of one account to another is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Placed in the mailboxes.
    Place,
    /// Placed, marked as a request.
    Request,
    /// Answered like a message to a device that is offline; nothing is placed.
    Withhold,
}

/// What is known of the recipient's mind about the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The recipient accepted the sender (or wrote to them first, or is the sender).
    pub accepted: bool,
    /// The recipient blocked the sender.
    pub blocked: bool,
    /// Messages of this sender held as requests, service messages included.
    pub held: u64,
}

/// Consent and blocks. Withholding never shows.
#[must_use]
pub const fn treatment(standing: Standing, held_max: u64) -> Treatment {
    if standing.blocked {
        Treatment::Withhold
    } else if standing.accepted {
        Treatment::Place
    } else if standing.held >= held_max {
        Treatment::Withhold
    } else {
        Treatment::Request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: Hash = Hash([1; 32]);

    fn code(result: Result<Turn, Refusal>) -> Code {
        result.expect_err("refused").code
    }

    #[test]
    fn the_next_counter_is_decided_and_an_old_one_repeated() {
        let stored = Stored { digest: D, outcome: Bytes::from_static(b"x") };
        assert_eq!(turn(0, 1, &D, None, false), Ok(Turn::New));
        assert_eq!(turn(1, 1, &D, Some(stored.clone()), false), Ok(Turn::Known(stored.outcome.clone())));
        assert_eq!(code(turn(1, 1, &Hash([2; 32]), Some(stored), false)), Code::COUNTER_CONFLICT);
        assert_eq!(code(turn(500, 1, &D, None, false)), Code::COUNTER_TOO_OLD);
        assert_eq!(code(turn(1, 3, &D, None, false)), Code::COUNTER_GAP);
        assert_eq!(code(turn(1, 3, &D, None, true)), Code::AFTER_EARLIER);
        assert_eq!(turn(1, 2, &D, None, true), Ok(Turn::New), "the one that waited comes again");
        assert_eq!(code(turn(1, 0, &D, None, true)), Code::MESSAGE_MALFORMED);
    }

    #[test]
    fn lifetimes_default_and_end() {
        assert_eq!(lifetime_ms(0, 30, 90), Ok(30_000));
        assert_eq!(lifetime_ms(90, 30, 90), Ok(90_000));
        assert_eq!(lifetime_ms(91, 30, 90).expect_err("too long").code, Code::LIFETIME_INVALID);
    }

    #[test]
    fn devices_that_differ_are_named() {
        let set = |bytes: &[u8]| bytes.iter().map(|byte| DeviceId([*byte; 32])).collect::<BTreeSet<_>>();
        let none = BTreeSet::new();
        assert!(exact_devices(&set(&[1, 2]), &set(&[1, 2]), &none, Bytes::new()).is_ok());
        assert!(exact_devices(&set(&[1]), &set(&[1, 2]), &set(&[2]), Bytes::new()).is_ok(), "2 has no keys");
        let refusal = exact_devices(&set(&[1, 3]), &set(&[1, 2]), &none, Bytes::new()).expect_err("differ");
        assert_eq!(refusal.devices.len(), 2);
        assert!(some_devices(&set(&[1]), &set(&[1, 2]), Bytes::new()).is_ok());
        assert!(some_devices(&set(&[]), &set(&[1, 2]), Bytes::new()).is_err());
    }

    #[test]
    fn blocks_and_full_queues_are_silent() {
        let standing = Standing { accepted: true, blocked: true, ..Standing::default() };
        assert_eq!(treatment(standing, 5), Treatment::Withhold);
        assert_eq!(treatment(Standing { accepted: true, ..Standing::default() }, 5), Treatment::Place);
        assert_eq!(treatment(Standing::default(), 5), Treatment::Request);
        assert_eq!(treatment(Standing { held: 5, ..Standing::default() }, 5), Treatment::Withhold);
    }

    #[test]
    fn a_malformed_submission_is_told_from_one_that_is_too_large() {
        let payload = |device: u8, size: usize| pb::Payload {
            device: vec![device; 32].into(),
            kind: pb::PayloadKind::Message.into(),
            ciphertext: vec![0; size].into(),
        };
        let code = |payloads: &[pb::Payload]| {
            devices_of(payloads).and_then(|_| numbers(payloads, 2)).and_then(|()| sizes(payloads, 10))
        };
        assert!(code(&[payload(1, 10), payload(2, 1)]).is_ok());
        assert_eq!(code(&[payload(1, 1), payload(1, 1)]).expect_err("twice").code, Code::MESSAGE_MALFORMED);
        assert_eq!(code(&[payload(1, 11)]).expect_err("large").code, Code::TOO_LARGE);
        let many = [payload(1, 1), payload(2, 1), payload(3, 1)];
        assert_eq!(code(&many).expect_err("many").code, Code::LIMIT_EXCEEDED);
    }
}
