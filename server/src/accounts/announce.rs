//! Who hears of an account's new links: its own devices, local contacts, and the domains that hold its chain
//! (06-messages, 6.10).

use bytes::Bytes;
use tidings_federation::peer::PeerState;
use tidings_proto::id::AccountId;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::heads;
use crate::config::Limits;
use crate::messages::{CHAIN_ANNOUNCE, entry};
use crate::node::Shared;
use crate::refusal::Refusal;
use crate::state::{Account, Need, New, Transaction};

/// Contacts looked at in one decision.
const CONTACTS: usize = 100;

/// What makes two announcements say the same: the account.
fn key(account: AccountId) -> Bytes {
    let mut key = vec![u8::try_from(CHAIN_ANNOUNCE).unwrap_or(u8::MAX)];
    key.extend_from_slice(&account.0);
    key.into()
}

/// An announcement of the links from number `from` on; where they do not fit, of the newest.
fn announcement(account: &Account, from: u64, most: usize) -> New {
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(account.links.len());
    let links = heads::newest(account.links.get(start..).unwrap_or_default(), most).to_vec();
    let first = account.links.len().saturating_sub(links.len());
    let id = account.chain.account_id();
    let announce = pb::ChainAnnounce {
        account: id.to_bytes(),
        address: account.chain.state().address().to_string(),
        links,
    };
    New {
        entry: entry(CHAIN_ANNOUNCE, &announce),
        key: key(id),
        aux: u64::try_from(first).unwrap_or(u64::MAX),
        ..New::default()
    }
}

impl Shared {
    fn links_max(&self) -> usize {
        Limits::size(self.config.limits.resolve_links_max())
    }

    /// Puts the links from number `from` on into the mailboxes of an account here. An unread announcement of the
    /// same account is taken in.
    pub(crate) fn announce_to(
        &self,
        transaction: &mut Transaction<'_>,
        about: AccountId,
        to: AccountId,
        from: u64,
    ) {
        for device in transaction.world().current_devices(&to) {
            let world = transaction.world();
            let unread = world.device(&device).and_then(|device| device.mailbox.keyed(&key(about)));
            let from = unread.map_or(from, |(_, first)| first.min(from));
            let Some(account) = world.account(&about) else { return };
            let new = announcement(account, from, self.links_max());
            transaction.place(device, new);
        }
    }

    /// Owes the links from number `from` on to every domain that holds the chain.
    pub(super) fn announce_abroad(&self, transaction: &mut Transaction<'_>, about: AccountId, now_ms: u64) {
        let kept = self.config.limits.lifetime_default_secs().saturating_mul(1000);
        let Some(account) = transaction.world().account(&about) else { return };
        // What waits for a peer stands for all it may lack: the newest links.
        let new = announcement(account, 0, self.links_max());
        let domains: Vec<Domain> = account
            .handed
            .iter()
            .filter(|(_, at_ms)| at_ms.saturating_add(kept) > now_ms)
            .filter_map(|(domain, _)| Domain::parse(domain).ok())
            .collect();
        for domain in domains {
            let state = transaction.world().peer_of(&domain).map(|peer| peer.record.state);
            if matches!(state, Some(PeerState::Replaced | PeerState::Gone)) {
                continue;
            }
            let peer = transaction.peer_for(&domain, self.fresh_incarnation(), now_ms);
            transaction.owe(peer, new.key.clone(), new.entry.clone());
        }
    }

    /// Puts the links of an account into the mailboxes of accounts here that have accepted it.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn announce_to_contacts(&self, about: AccountId, from: u64) -> Result<(), Refusal> {
        let mut after = AccountId::ZERO;
        loop {
            let page = self.state.store().recipients(about, after, CONTACTS).await;
            let page = page.map_err(|error| crate::state::unreadable(&error))?;
            let Some(last) = page.last() else { return Ok(()) };
            after = *last;
            let mut needs = vec![Need::Account(about)];
            needs.extend(page.iter().flat_map(|to| [Need::Account(*to), Need::Lane((about, *to))]));
            let (commit, woken) = {
                let mut transaction = self.state.begin(&needs).await?;
                for to in page {
                    let relation = transaction.world().relation(to, about);
                    if relation.accepted && !relation.blocked && transaction.world().local(&to).is_some() {
                        self.announce_to(&mut transaction, about, to, from);
                    }
                }
                transaction.commit()
            };
            commit.durable().await?;
            self.wake(&woken);
        }
    }
}
