//! What this device believes of account chains, and what the heads that others name tell it (spec 04-chains;
//! 08-encryption, 8.4).

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::{AccountState, Verified};
use tidings_proto::id::AccountId;
use tidings_proto::pb;

use super::session::Session;
use super::{Ended, Engine, Step};
use crate::chains::{self, Adoption, History};
use crate::crypto::PeerDevice;
use crate::error::StoreError;
use crate::event::Event;
use crate::letter::Letter;
use crate::store::accounts::{self, Flag};
use crate::store::{errands, records};

impl Engine {
    /// The verified chain of an account, from memory or the store.
    pub(super) async fn chain(
        &mut self,
        account: AccountId,
    ) -> Result<Option<&Verified<AccountState>>, StoreError> {
        if account == self.me.account {
            return Ok(Some(&self.own));
        }
        if !self.chains.contains_key(&account) {
            let links = self.store.links(account).await?;
            if links.is_empty() {
                return Ok(None);
            }
            let broken = |_| StoreError::Inconsistent { table: "account_link", column: "body" };
            let chain = chains::first_contact(Some(account), &links).map_err(broken)?;
            self.chains.insert(account, chain);
        }
        Ok(self.chains.get(&account))
    }

    /// Joins links to what is known of an account, durably. False: nothing came of it.
    pub(super) fn adopt_links(&mut self, account: AccountId, links: Vec<pb::Link>) -> Step<'_, bool> {
        Box::pin(self.adopt(account, links))
    }

    async fn adopt(&mut self, account: AccountId, links: Vec<pb::Link>) -> Result<bool, Ended> {
        let known = self.chain(account).await?.cloned();
        let Some(known) = known else {
            let Ok(chain) = chains::first_contact(Some(account), &links) else { return Ok(false) };
            let address = chain.state().address().clone();
            let mut tx = self.store.begin().await?;
            accounts::put_chain(&mut tx, account, &address, 0, links).await?;
            accounts::accept_if_written(&mut tx, account).await?;
            accounts::forget_stranger(&mut tx, account).await?;
            tx.commit().await.map_err(StoreError::from)?;
            self.chains.insert(account, chain);
            return Ok(true);
        };
        let held = self.store.links(account).await?;
        match chains::adopt(&known, &held, &links) {
            Ok(Adoption::Known) => Ok(true),
            Ok(Adoption::Extended(history)) => {
                self.extended(account, history, &known, false).await?;
                Ok(true)
            }
            // The owner ended the fork by going on with the other history (ENC-027).
            Ok(Adoption::Fork(fork)) if fork.chain.state().ended_heads().contains(&known.head()) => {
                self.extended(account, fork, &known, true).await?;
                Ok(true)
            }
            Ok(Adoption::Fork(fork)) => {
                self.forked(account, fork.links).await?;
                Ok(false)
            }
            Err(error) => {
                tracing::warn!(%error, "links of an account were not taken");
                Ok(false)
            }
        }
    }

    /// Holds a longer chain, or with `anew` one that took the place of the one held.
    async fn extended(
        &mut self,
        account: AccountId,
        history: History,
        known: &Verified<AccountState>,
        anew: bool,
    ) -> Result<(), Ended> {
        let History { chain, links } = history;
        let (before, after) = (known.state().devices(), chain.state().devices());
        let added: Vec<_> = after.keys().filter(|id| !before.contains_key(id)).copied().collect();
        let removed: Vec<_> = before.keys().filter(|id| !after.contains_key(id)).copied().collect();
        let address = chain.state().address().clone();
        let ends_fork = chain.state().ended_heads().len() > known.state().ended_heads().len();
        let mut tx = self.store.begin().await?;
        if anew {
            accounts::replace_chain(&mut tx, account, links).await?;
        } else {
            let from = u64::try_from(known.len()).unwrap_or(u64::MAX);
            accounts::put_chain(&mut tx, account, &address, from, links).await?;
        }
        for device in &removed {
            // ENC-005: nothing is sent to it or taken from it any more.
            records::drop_session(&mut tx, *device).await?;
        }
        if anew || ends_fork {
            accounts::set_flag(&mut tx, account, Flag::Forked, false).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        if account == self.me.account {
            self.own = *chain;
        } else {
            self.chains.insert(account, *chain);
        }
        if account == self.me.account {
            self.tell_new_devices(&added).await?;
        }
        if !added.is_empty() || !removed.is_empty() {
            self.tell(Event::DevicesChanged { account, address, added, removed });
        }
        Ok(())
    }

    /// Two histories of one account: both are kept, and nothing is encrypted to it (ENC-026).
    async fn forked(&mut self, account: AccountId, other: Vec<pb::Link>) -> Result<(), Ended> {
        let mut tx = self.store.begin().await?;
        accounts::set_flag(&mut tx, account, Flag::Forked, true).await?;
        accounts::put_fork(&mut tx, account, other).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.tell(Event::Fork { account });
        Ok(())
    }

    /// Compares the heads that a message names with what is held here.
    pub(super) async fn compare_heads(
        &mut self,
        session: &mut Session,
        letter: &Letter,
        peer: &PeerDevice,
    ) -> Result<(), Ended> {
        let own = letter.sender == self.me.account;
        if let Some(chain) = self.chain(letter.sender).await?
            && !chain.ids().iter().any(|id| id.as_ref() == letter.sender_head.as_ref())
        {
            let address = chain.state().address().to_string();
            if session.doubts.named(letter.sender, &letter.sender_head, letter.sender) {
                self.fetch(session, letter.sender, &address, Vec::new()).await?;
            }
        }
        if own {
            return Ok(());
        }
        match self.own.ids().iter().position(|id| id.as_ref() == letter.recipient_head.as_ref()) {
            Some(at) if at.saturating_add(1) < self.own.len() => self.tell_heads(letter, peer, at).await?,
            Some(_) => {}
            None => {
                let (account, address) = (self.me.account, self.me.address.to_string());
                if session.doubts.named(account, &letter.recipient_head, letter.sender) {
                    self.fetch(session, account, &address, Vec::new()).await?;
                }
            }
        }
        Ok(())
    }

    /// The sender knows an earlier head of the own chain: it is told the links that follow, once (ENC-028).
    async fn tell_heads(&mut self, letter: &Letter, peer: &PeerDevice, at: usize) -> Result<(), Ended> {
        if letter.class != pb::Class::Content || !self.accepted_contact(letter.sender).await? {
            return Ok(());
        }
        let links = self.store.links(self.me.account).await?.into_iter().skip(at.saturating_add(1)).collect();
        let heads = pb::content::Body::Heads(pb::HeadsUpdate { links });
        let content = pb::Content { body: Some(heads), ..Default::default() };
        let mut tx = self.store.begin().await?;
        if accounts::tell_heads(&mut tx, peer.device, &letter.recipient_head).await? {
            let service = errands::Service { account: letter.sender, device: peer.device, mark: None };
            errands::put_service(&mut tx, &service, &content.encode_to_vec()).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// After an account's home was asked: a head that was named and is still in no chain is one contact's claim.
    /// Anybody can write any head: it is worth a warning, and no reason to fall silent (ENC-024). True: others were
    /// named since the home was asked.
    pub(super) async fn settle_doubts(
        &mut self,
        doubts: &mut Doubts,
        account: AccountId,
    ) -> Result<bool, StoreError> {
        let Some(chain) = self.chain(account).await? else { return Ok(false) };
        for contact in doubts.settle(account, |head| chain.ids().iter().any(|id| id.as_ref() == head)) {
            self.tell(Event::HeadDisputed { contact, account });
        }
        Ok(doubts.waits(account))
    }
}

/// Heads that were named and that no chain held here has, until the account's home was asked.
#[derive(Debug, Default)]
pub(crate) struct Doubts {
    /// Whose chain, which head, who named it: not asked for yet.
    open: BTreeSet<(AccountId, Bytes, AccountId)>,
    /// What the home was asked for since.
    asked: BTreeSet<(AccountId, Bytes, AccountId)>,
    /// What the user was told of: not asked for again on this connection.
    disputed: BTreeSet<(AccountId, Bytes, AccountId)>,
}

impl Doubts {
    /// A contact named a head of an account that is in no chain. True: it is to be asked for.
    fn named(&mut self, account: AccountId, head: &Bytes, contact: AccountId) -> bool {
        let doubt = (account, head.clone(), contact);
        !self.disputed.contains(&doubt) && {
            self.open.insert(doubt);
            true
        }
    }

    /// Whether a head of an account was named since its home was last asked.
    fn waits(&self, account: AccountId) -> bool {
        self.open.iter().any(|(of, _, _)| *of == account)
    }

    /// The account's home is being asked; what is named from now on is not part of the question.
    pub(super) fn asking(&mut self, account: AccountId) {
        self.asked.extend(self.open.extract_if(.., |(of, _, _)| *of == account));
    }

    /// The account's home answered. Gives those who named heads that are still not `held`, each once.
    fn settle(&mut self, account: AccountId, held: impl Fn(&[u8]) -> bool) -> BTreeSet<AccountId> {
        let settled: Vec<_> = self.asked.extract_if(.., |(of, _, _)| *of == account).collect();
        let unknown = settled.into_iter().filter(|(_, head, _)| !held(head));
        unknown.filter(|doubt| self.disputed.insert(doubt.clone())).map(|(_, _, contact)| contact).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: AccountId = AccountId([1; 32]);
    const BOB: AccountId = AccountId([2; 32]);
    const EVE: AccountId = AccountId([3; 32]);

    #[test]
    fn a_head_that_stays_unknown_is_told_once_with_who_named_it_and_one_that_came_is_not() {
        let mut doubts = Doubts::default();
        let (made_up, late) = (Bytes::from_static(&[9; 32]), Bytes::from_static(&[8; 32]));
        assert!(doubts.named(OWN, &made_up, EVE));
        assert!(doubts.named(OWN, &late, BOB));
        assert!(doubts.named(BOB, &made_up, BOB));
        assert_eq!(doubts.settle(OWN, |_| false), BTreeSet::new(), "nobody was asked yet");
        assert!(doubts.waits(OWN));
        doubts.asking(OWN);
        assert!(!doubts.waits(OWN));
        assert_eq!(doubts.settle(OWN, |head| head == late), BTreeSet::from([EVE]));
        assert!(!doubts.named(OWN, &made_up, EVE), "told already");
        assert!(doubts.named(OWN, &made_up, BOB), "another contact says so too");
        doubts.asking(OWN);
        doubts.asking(BOB);
        assert_eq!(doubts.settle(BOB, |_| false), BTreeSet::from([BOB]));
        assert_eq!(doubts.settle(OWN, |_| false), BTreeSet::from([BOB]));
    }
}
