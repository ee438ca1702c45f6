//! What an account's verified chain said at an earlier head.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::id::{DeviceId, LinkId};
use tidings_proto::pb;

use crate::state::Account;

/// The devices on the list after the link named; `None` if it is not on the chain.
///
/// The chain is verified, so that an earlier state follows from the bodies alone.
#[must_use]
pub fn devices_at(account: &Account, head: &Bytes) -> Option<BTreeSet<DeviceId>> {
    let head = LinkId::try_from(head).ok()?;
    if head == account.chain.head() {
        return Some(account.chain.state().devices().keys().copied().collect());
    }
    let at = account.chain.number_of(&head)?;
    let mut devices = BTreeSet::new();
    for (link, id) in account.links.iter().zip(account.chain.ids()).take(at.saturating_add(1)) {
        let body = pb::AccountLinkBody::decode(link.body.clone()).ok()?;
        if body.genesis.is_some() || body.add_device.is_some() {
            devices.insert(DeviceId(id.0));
        } else if let Some(removed) = &body.remove_device {
            devices.remove(&DeviceId::try_from(&removed.device).ok()?);
        } else if body.close.is_some() {
            devices.clear();
        }
    }
    Some(devices)
}

/// The links after the one named; all if it is not on the chain.
#[must_use]
pub fn links_after<'a>(account: &'a Account, after: &Bytes) -> &'a [pb::Link] {
    let known = LinkId::try_from(after).ok().and_then(|id| account.chain.number_of(&id));
    let start = known.map_or(0, |place| place.saturating_add(1));
    account.links.get(start..).unwrap_or_default()
}

/// Bytes of links in one answer or entry: with what stands beside them they fit the smallest frame.
const LINK_BYTES: usize = 48 * 1024;

/// The first links, at most `most`, as far as they fit an answer.
#[must_use]
pub fn oldest(links: &[pb::Link], most: usize) -> &[pb::Link] {
    links.get(..fitting(links.iter(), most)).unwrap_or_default()
}

/// The newest links, at most `most`, as far as they fit an entry.
#[must_use]
pub fn newest(links: &[pb::Link], most: usize) -> &[pb::Link] {
    links.get(links.len().saturating_sub(fitting(links.iter().rev(), most))..).unwrap_or_default()
}

fn fitting<'a>(links: impl Iterator<Item = &'a pb::Link>, most: usize) -> usize {
    let mut bytes = 0_usize;
    let fits = |link: &&pb::Link| {
        bytes = bytes.saturating_add(link.encoded_len().saturating_add(8));
        bytes <= LINK_BYTES
    };
    links.take(most).take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_bounded_by_number_and_bytes() {
        let link = |bytes: usize| pb::Link { body: vec![7; bytes].into(), signatures: Vec::new() };
        let small: Vec<_> = (0..100).map(|_| link(300)).collect();
        assert_eq!((oldest(&small, 64).len(), newest(&small, 64).len()), (64, 64));
        let large: Vec<_> = (0..64).map(|_| link(4000)).collect();
        let fits = oldest(&large, 64).len();
        assert!(fits < 16 && fits > 8, "{fits}");
        assert_eq!(newest(&large, 64).len(), fits);
    }
}
