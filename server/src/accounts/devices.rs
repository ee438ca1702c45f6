//! An account's chain grows; a device publishes its record.

use std::collections::BTreeSet;

use prost::Message as _;
use tidings_proto::chain::{AccountState, Verified};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Address;
use tidings_proto::pb;

use super::rules;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Account, Need, Transaction, Woken};

/// What a link does here beside the chain.
struct Effects {
    added: Vec<DeviceId>,
    removed: Vec<DeviceId>,
    /// A new name of this domain.
    name: Option<Address>,
}

impl Shared {
    /// Appends a link to the device's own account's chain, and tells everybody who holds that chain.
    ///
    /// # Errors
    /// In the order of the card: `message-malformed`, `link-invalid`, `stale-link`, `link-limit`, `name-invalid`,
    /// `name-taken`, `unavailable`.
    pub async fn append_link(&self, account: AccountId, request: pb::AppendLink) -> Result<(), Refusal> {
        let link = request.link.ok_or_else(|| Code::MESSAGE_MALFORMED.because("no link"))?;
        let now_ms = self.now_ms();
        let mut needs = vec![Need::Account(account)];
        needs.extend(rules::new_address(&link).map(|address| Need::Name(address.to_string())));
        let id = tidings_proto::chain::link_id(tidings_proto::sign::Purpose::ACCOUNT_LINK, &link.body);
        let (commit, woken, removed, number) = loop {
            let chain = self.state.view(&needs, |world| world.local(&account).map(|held| held.chain.clone()));
            let chain = chain.await?.ok_or(Code::AUTH_REMOVED)?;
            if let Some(place) = chain.number_of(&id) {
                // A lost answer. What was told then is told again: the server may have ended in between.
                break (self.state.all_so_far(), Woken::default(), Vec::new(), place);
            }
            // Signatures are verified while others decide.
            let next = chain.extended(&link).map_err(|error| rules::refusal_of(&error, &chain))?;
            let mut transaction = self.state.begin(&needs).await?;
            let held = transaction.world().local(&account).ok_or(Code::AUTH_REMOVED)?;
            if held.chain.head() != chain.head() {
                continue;
            }
            self.check_link(held, (&link, &next), now_ms)?;
            let effects = self.effects(&transaction, account, &next)?;
            self.grow(&mut transaction, (account, next, link), &effects, now_ms);
            let (commit, woken) = transaction.commit();
            break (commit, woken, effects.removed, chain.len());
        };
        commit.durable().await?;
        for device in removed {
            self.sessions.close(&device, &Code::AUTH_REMOVED.into());
        }
        self.wake(&woken);
        self.announce_to_contacts(account, u64::try_from(number).unwrap_or(u64::MAX)).await
    }

    /// Whether the chain takes the link now.
    fn check_link(
        &self,
        held: &Account,
        (link, next): (&pb::Link, &Verified<AccountState>),
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let limits = &self.config.limits;
        if !rules::by_recovery(link, &held.chain) {
            if !rules::within_rate(&held.link_times, limits.device_links_per_hour(), now_ms) {
                return Err(Code::LINK_LIMIT.because("this hour's links are spent"));
            }
            let left = limits.account_links_max().saturating_sub(next.state().since_checkpoint());
            if left < limits.account_links_reserved() {
                return Err(Code::LINK_LIMIT.because("the rest is for the recovery key"));
            }
        }
        Ok(())
    }

    fn effects(
        &self,
        transaction: &Transaction<'_>,
        account: AccountId,
        next: &Verified<AccountState>,
    ) -> Result<Effects, Refusal> {
        let world = transaction.world();
        let held = world.local(&account).ok_or(Code::AUTH_REMOVED)?;
        let (old, new) = (held.chain.state(), next.state());
        let kept: BTreeSet<DeviceId> =
            if new.is_closed() { BTreeSet::new() } else { new.devices().keys().copied().collect() };
        let before = world.current_devices(&account);
        let moved = new.address() != old.address() && new.address().domain() == &self.config.domain;
        if moved && world.named(&new.address().to_string()).is_some_and(|owner| owner != account) {
            return Err(Code::NAME_TAKEN.into());
        }
        Ok(Effects {
            added: kept.difference(&before).copied().collect(),
            removed: before.difference(&kept).copied().collect(),
            name: moved.then(|| new.address().clone()),
        })
    }

    /// The link, what it does, and the announcements.
    fn grow(
        &self,
        transaction: &mut Transaction<'_>,
        (account, next, link): (AccountId, Verified<AccountState>, pb::Link),
        effects: &Effects,
        now_ms: u64,
    ) {
        let number = u64::try_from(next.len()).unwrap_or(u64::MAX).saturating_sub(1);
        transaction.append_link(next, link, true, now_ms);
        for device in &effects.added {
            transaction.add_device(*device, account, self.incarnation());
        }
        for device in &effects.removed {
            transaction.remove_device(*device);
        }
        if let Some(address) = &effects.name {
            transaction.give_name(address.to_string(), account);
        }
        self.announce_to(transaction, account, account, number);
        self.announce_abroad(transaction, account, now_ms);
    }

    /// Publishes a device's signed record; a higher version wins.
    ///
    /// # Errors
    /// `message-malformed`, `limit-exceeded`, `not-permitted`, `unavailable`.
    pub async fn publish_record(
        &self,
        account: AccountId,
        device: DeviceId,
        request: pb::PublishRecord,
    ) -> Result<(), Refusal> {
        let malformed = || Code::MESSAGE_MALFORMED.because("device record");
        let record = request.record.ok_or_else(malformed)?;
        if u64::try_from(record.body.len()).unwrap_or(u64::MAX) > self.config.limits.link_bytes_max() {
            return Err(Code::LIMIT_EXCEEDED.because("device record"));
        }
        let commit = {
            let mut transaction = self.state.begin(&[Need::Account(account)]).await?;
            let world = transaction.world();
            let held = world.local(&account).ok_or(Code::AUTH_REMOVED)?;
            let keys = held.chain.state().device(&device).ok_or(Code::AUTH_REMOVED)?;
            let body = tidings_proto::record::device_record(&record, &keys.key())
                .map_err(|error| Code::MESSAGE_MALFORMED.because(&error.to_string()))?;
            if body.account != account.to_bytes() || body.device != device.to_bytes() {
                return Err(malformed());
            }
            let encoded = bytes::Bytes::from(record.encode_to_vec());
            let stored = world.device(&device).map(|device| device.row.record.clone()).unwrap_or_default();
            let version = pb::SignedRecord::decode(stored.clone())
                .ok()
                .and_then(|record| pb::DeviceRecord::decode(record.body).ok())
                .map_or(0, |record| record.version);
            if encoded != stored {
                if body.version <= version {
                    return Err(Code::NOT_PERMITTED.because("the version is not above the stored one"));
                }
                transaction.change_device(&device, |row| row.record = encoded);
            }
            transaction.commit().0
        };
        commit.durable().await
    }
}
