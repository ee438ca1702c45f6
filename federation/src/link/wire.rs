//! Positions and refusals as they stand in link frames.

use prost::Message as _;
use tidings_proto::error::{Code, Refusal, Scope};
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::Position;
use tidings_proto::pb;

use crate::host::Told;

/// Bytes that a refusal may take in a LinkResume: with this bound a receiver knows how many still fit.
pub(super) const REFUSAL_BYTES_MAX: usize = 1500;

/// On a link there is no request that could be refused alone.
pub(super) fn malformed(detail: &str) -> Refusal {
    let mut refusal = Refusal::new(Code::MESSAGE_MALFORMED, detail);
    refusal.scope = Scope::Connection;
    refusal
}

/// A position that a log never had.
pub(super) fn invalid(detail: &str) -> Refusal {
    Refusal::new(Code::POSITION_INVALID, detail)
}

/// A position; `None` if it is all zero.
pub(super) fn position(told: Option<pb::Position>) -> Result<Option<Position>, Refusal> {
    let told = told.ok_or_else(|| malformed("no position"))?;
    let incarnation =
        Incarnation::try_from(&told.incarnation).map_err(|error| malformed(&error.to_string()))?;
    let hash = Hash::try_from(&told.hash).map_err(|error| malformed(&error.to_string()))?;
    let position = Position::new(incarnation, told.n, hash).map_err(|error| malformed(&error.to_string()))?;
    match (incarnation.is_zero(), told.n) {
        (true, 0) => Ok(None),
        (true, _) => Err(malformed("a number without an incarnation")),
        (false, _) => Ok(Some(position)),
    }
}

/// Refusals, ascending and not above the position they belong to.
pub(super) fn refusals(told: Vec<pb::EntryResult>, upto: u64) -> Result<Vec<(u64, Refusal)>, Refusal> {
    let mut before = 0;
    let mut refusals = Vec::with_capacity(told.len());
    for result in told {
        if result.n <= before || result.n > upto {
            return Err(malformed("refusals do not ascend up to the position"));
        }
        before = result.n;
        let refused = result.refused.ok_or_else(|| malformed("a refusal without a reason"))?;
        refusals.push((result.n, Refusal::from(refused)));
    }
    Ok(refusals)
}

pub(super) fn told(resume: pb::LinkResume) -> Result<Told, Refusal> {
    let taken = position(resume.taken)?;
    let refusals = refusals(resume.refusals, taken.map_or(0, |taken| taken.n))?;
    Ok(Told { taken, refusals })
}

pub(super) fn to_pb(position: Option<Position>) -> pb::Position {
    let (incarnation, n, hash) =
        position.map_or((Incarnation::ZERO, 0, Hash::ZERO), |at| (at.incarnation, at.n, at.h));
    pb::Position { incarnation: incarnation.to_bytes(), n, hash: hash.to_bytes() }
}

pub(super) fn result(n: u64, refusal: &Refusal) -> pb::EntryResult {
    pb::EntryResult { n, refused: Some(refusal.to_pb()) }
}

/// A refusal that is no larger than [`REFUSAL_BYTES_MAX`] where it is repeated.
pub(super) fn bounded(mut refusal: Refusal) -> Refusal {
    let fits =
        |refusal: &Refusal| result(u64::MAX, refusal).encoded_len().saturating_add(4) <= REFUSAL_BYTES_MAX;
    if !fits(&refusal) {
        refusal.detail.clear();
    }
    if !fits(&refusal) {
        refusal.devices.clear();
    }
    if !fits(&refusal) {
        refusal.head.clear();
    }
    refusal
}
