//! What may be registered and appended. Pure.

use prost::Message as _;
use tidings_proto::chain::{AccountState, LinkError, Verified};
use tidings_proto::id::KeyId;
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::PublicKey;

use crate::refusal::{Because as _, Code, Refusal};

/// A genesis that this home may take from a candidate that proved `key`.
///
/// # Errors
/// `link-invalid`, `name-invalid`.
pub fn genesis(link: &pb::Link, key: &PublicKey) -> Result<Verified<AccountState>, Refusal> {
    let chain = Verified::<AccountState>::genesis(link).map_err(|error| match error {
        LinkError::Name(_) => Code::NAME_INVALID.because("genesis address"),
        other => Code::LINK_INVALID.because(&other.to_string()),
    })?;
    if chain.state().devices().values().all(|device| device.key() != *key) {
        return Err(Code::LINK_INVALID.because("another key was proven"));
    }
    Ok(chain)
}

/// What the registry says to a link that cannot follow.
#[must_use]
pub fn refusal_of(error: &LinkError, chain: &Verified<AccountState>) -> Refusal {
    let code = match error {
        LinkError::Number { .. } | LinkError::Previous { .. } => Code::STALE_LINK,
        LinkError::Full => Code::LINK_LIMIT,
        LinkError::Closed => Code::ACCOUNT_CLOSED,
        _ => Code::LINK_INVALID,
    };
    code.because(&error.to_string()).with_head(chain.head().to_bytes())
}

/// The address that a link gives the account, if it changes it.
#[must_use]
pub fn new_address(link: &pb::Link) -> Option<Address> {
    let body = pb::AccountLinkBody::decode(link.body.clone()).ok()?;
    Address::parse(&body.change_address?.address).ok()
}

/// Whether the recovery key is the link's first signer: such a link is never refused for its rate.
#[must_use]
pub fn by_recovery(link: &pb::Link, chain: &Verified<AccountState>) -> bool {
    let Ok(body) = pb::AccountLinkBody::decode(link.body.clone()) else {
        return false;
    };
    body.signers.first().and_then(|id| KeyId::try_from(id).ok()) == Some(chain.state().recovery_key().id())
}

/// Whether one more device-signed link is within the hour's number.
#[must_use]
pub fn within_rate<'a>(times: impl IntoIterator<Item = &'a u64>, per_hour: u64, now_ms: u64) -> bool {
    let since = now_ms.saturating_sub(3_600_000);
    let recent = times.into_iter().filter(|at| **at > since).count();
    u64::try_from(recent).unwrap_or(u64::MAX) < per_hour
}

/// Prekeys by themselves: numbers, lengths, ids ascending from 1.
///
/// # Errors
/// `message-malformed`, `limit-exceeded`.
pub fn keys(keys: &pb::PublishKeys, held: (usize, usize), most: u64) -> Result<(), Refusal> {
    let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
    let signed = keys.signed_prekey.iter().chain(&keys.kyber_last_resort).chain(&keys.one_time_kyber);
    if signed.clone().any(|key| key.key.is_empty() || key.signature.len() != 64 || key.key.len() > 2048) {
        return Err(malformed("a prekey"));
    }
    if keys.one_time.iter().any(|key| key.key.len() != 33) {
        return Err(malformed("a one-time prekey"));
    }
    let ascending = |ids: &[u32]| ids.first() != Some(&0) && ids.is_sorted_by(|a, b| a < b);
    let ec: Vec<u32> = keys.one_time.iter().map(|key| key.id).collect();
    let kyber: Vec<u32> = keys.one_time_kyber.iter().map(|key| key.id).collect();
    if !ascending(&ec) || !ascending(&kyber) {
        return Err(malformed("one-time ids"));
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let held = if keys.replace { (0, 0) } else { held };
    if held.0.saturating_add(ec.len()) > most || held.1.saturating_add(kyber.len()) > most {
        return Err(Code::LIMIT_EXCEEDED.because("one-time prekeys"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_the_last_hour() {
        let now = 10_000_000;
        assert!(within_rate(&[now, now], 3, now));
        assert!(!within_rate(&[now, now], 2, now));
        assert!(within_rate(&[now - 3_600_000, now], 2, now));
    }

    #[test]
    fn too_many_prekeys_are_refused() {
        let one = |id| pb::OneTimeKey { id, key: vec![1; 33].into() };
        let request = pb::PublishKeys { one_time: vec![one(1), one(2), one(9)], ..Default::default() };
        let twice = pb::PublishKeys { one_time: vec![one(2), one(2)], ..Default::default() };
        assert_eq!(keys(&twice, (0, 0), 3).expect_err("twice").code, Code::MESSAGE_MALFORMED);
        assert!(keys(&request, (0, 0), 3).is_ok());
        assert_eq!(keys(&request, (1, 0), 3).expect_err("full").code, Code::LIMIT_EXCEEDED);
        assert!(keys(&pb::PublishKeys { replace: true, ..request }, (1, 0), 3).is_ok());
    }
}
