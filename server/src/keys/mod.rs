//! Prekeys: published by devices, handed out in bundles (05-accounts, 5.6).

mod budget;
mod xeddsa;

use std::collections::BTreeSet;

use prost::Message as _;
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Domain;
use tidings_proto::pb;

pub use budget::{Asker, FetchBudget};

use crate::accounts::{heads, rules};
use crate::config::Limits;
use crate::messages::{STOCK_LOW, entry};
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::{Need, New, Stock, Transaction};
use crate::store::KeyKind;

/// Every signature is by the identity key of the device's link.
///
/// # Errors
/// `message-malformed`.
pub(crate) fn check_signatures(keys: &pb::PublishKeys, identity: &[u8; 33]) -> Result<(), Refusal> {
    let mut signed = keys.signed_prekey.iter().chain(&keys.kyber_last_resort).chain(&keys.one_time_kyber);
    if signed.all(|key| xeddsa::verify(identity, &key.key, &key.signature)) {
        Ok(())
    } else {
        Err(Code::MESSAGE_MALFORMED.because("a prekey's signature is not by the device's identity key"))
    }
}

/// Puts published keys into the stock. One-time ids at or below the highest taken are skipped: they are repeated,
/// and may have been handed out.
pub(crate) fn publish(transaction: &mut Transaction<'_>, device: DeviceId, keys: pb::PublishKeys) {
    // The same request again drops nothing that it brings itself: what was handed out stays out.
    let again = |stock: &Stock| {
        let ec = keys.one_time.iter().filter(|key| stock.one_time.get(&key.id) == Some(key));
        let kyber = keys.one_time_kyber.iter().filter(|key| stock.one_time_kyber.get(&key.id) == Some(key));
        (ec.cloned().collect::<Vec<_>>(), kyber.cloned().collect::<Vec<_>>())
    };
    if keys.replace {
        let (ec, kyber) = transaction.world().stock(&device).map(again).unwrap_or_default();
        transaction.clear_keys(device);
        ec.into_iter().for_each(|key| transaction.put_one_time(device, key));
        kyber.into_iter().for_each(|key| transaction.put_signed_key(device, KeyKind::OneTimeKyber, key));
    }
    let keyed = keys.signed_prekey.is_some();
    for (kind, key) in [(KeyKind::Signed, keys.signed_prekey), (KeyKind::LastResort, keys.kyber_last_resort)]
    {
        if let Some(key) = key {
            transaction.put_signed_key(device, kind, key);
        }
    }
    let row = transaction.world().device(&device).map(|device| device.row.clone());
    let (ec_high, kyber_high) = row.map_or((0, 0), |row| (row.ec_high, row.kyber_high));
    let (mut ec, mut kyber) = (ec_high, kyber_high);
    for key in keys.one_time.into_iter().filter(|key| key.id > ec_high) {
        ec = key.id;
        transaction.put_one_time(device, key);
    }
    for key in keys.one_time_kyber.into_iter().filter(|key| key.id > kyber_high) {
        kyber = key.id;
        transaction.put_signed_key(device, KeyKind::OneTimeKyber, key);
    }
    transaction.change_device(&device, |row| {
        (row.ec_high, row.kyber_high, row.told_low) = (ec, kyber, false);
        row.keyed |= keyed;
    });
}

impl Shared {
    /// A device adds to its stock.
    ///
    /// # Errors
    /// `message-malformed`, `limit-exceeded`, `unavailable`.
    pub async fn publish_keys(
        &self,
        account: AccountId,
        device: DeviceId,
        keys: pb::PublishKeys,
    ) -> Result<(), Refusal> {
        let needs = [Need::Account(account), Need::Stock(device)];
        let identity = self.state.view(&needs, |world| {
            let keys = world.local(&account).and_then(|held| held.chain.state().device(&device));
            keys.map(|keys| *keys.identity_key())
        });
        let identity = identity.await?.ok_or(Code::AUTH_REMOVED)?;
        check_signatures(&keys, &identity)?;
        let commit = {
            let mut transaction = self.state.begin(&needs).await?;
            let held = transaction.world().stock(&device).map(Stock::left).unwrap_or_default();
            // Repeated keys are not counted: a lost answer is no fault.
            let row = transaction.world().device(&device).ok_or(Code::AUTH_REMOVED)?.row.clone();
            let mut fresh = keys.clone();
            fresh.one_time.retain(|key| key.id > row.ec_high || key.id == 0);
            fresh.one_time_kyber.retain(|key| key.id > row.kyber_high || key.id == 0);
            let most = self.config.limits.one_time_prekeys_max();
            rules::keys(&keys, (0, 0), most)?;
            rules::keys(&fresh, held, most)?;
            publish(&mut transaction, device, keys);
            transaction.commit().0
        };
        commit.durable().await
    }

    /// Bundles of an account here, or of one at another domain, for a device here.
    ///
    /// # Errors
    /// `message-malformed`, `no-such-account`, `not-here`, `peer-unreachable`, `unavailable`, …
    pub async fn fetch_bundles(
        &self,
        asker: AccountId,
        mut request: pb::FetchBundles,
    ) -> Result<pb::Bundles, Refusal> {
        match self.remote_domain(&request.address)? {
            Some(domain) => {
                request.asker = asker.to_bytes();
                let answer = self.federation()?.fetch_bundles(Some(asker), &domain, request).await?;
                self.learn(&domain, &answer.account, &answer.links).await?;
                Ok(answer)
            }
            None => self.fetch_here((None, asker), request).await,
        }
    }

    /// Bundles of an account here: never refused for the budget, then without one-time keys.
    ///
    /// # Errors
    /// `message-malformed`, `limit-exceeded`, `no-such-account`, `not-here`, `unavailable`.
    pub async fn fetch_here(
        &self,
        (asking, asker): (Option<&Domain>, AccountId),
        request: pb::FetchBundles,
    ) -> Result<pb::Bundles, Refusal> {
        let malformed = |what: &str| Code::MESSAGE_MALFORMED.because(what);
        let account = AccountId::try_from(&request.account).map_err(|_| malformed("account"))?;
        let wanted: Result<BTreeSet<DeviceId>, _> = request.devices.iter().map(DeviceId::try_from).collect();
        let wanted = wanted.map_err(|_| malformed("devices"))?;
        if u64::try_from(request.devices.len()).unwrap_or(u64::MAX) > self.config.limits.devices_max() {
            return Err(Code::LIMIT_EXCEEDED.because("devices"));
        }
        if !request.address.is_empty() {
            self.named_here(&request.address, &request.account).await?;
        }
        let listed =
            self.state.view(&[Need::Account(account)], |world| world.current_devices(&account)).await?;
        let mut needs = vec![Need::Account(account)];
        needs.extend(listed.iter().map(|device| Need::Stock(*device)));
        let rich = self.fetches.take(
            Asker { domain: asking.map(ToString::to_string), account: asker },
            account,
            self.config.limits.bundle_fetches_per_hour(),
            self.now_ms(),
        );
        let most = Limits::size(self.config.limits.resolve_links_max());
        let (answer, commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            let held = transaction.world().local(&account).ok_or(Code::NO_SUCH_ACCOUNT)?;
            let links = heads::oldest(heads::links_after(held, &request.after), most).to_vec();
            let devices: Vec<DeviceId> = held.chain.state().devices().keys().copied().collect();
            let mut bundles = Vec::new();
            for device in devices.into_iter().filter(|id| wanted.is_empty() || wanted.contains(id)) {
                bundles.extend(self.bundle(&mut transaction, account, device, rich));
            }
            if let Some(asking) = asking {
                transaction.hand(account, asking, self.now_ms());
            }
            let (commit, woken) = transaction.commit();
            (pb::Bundles { account: account.to_bytes(), links, bundles }, commit, woken)
        };
        commit.durable().await?;
        self.wake(&woken);
        Ok(answer)
    }

    fn bundle(
        &self,
        transaction: &mut Transaction<'_>,
        account: AccountId,
        id: DeviceId,
        rich: bool,
    ) -> Option<pb::Bundle> {
        let world = transaction.world();
        let keys = world.local(&account)?.chain.state().device(&id)?.clone();
        let row = world.device(&id)?.row.clone();
        let stock = world.stock(&id)?;
        let (signed, last_resort) = (stock.signed.clone()?, stock.last_resort.clone());
        let (one_time, kyber) = if rich { transaction.take_one_time(id) } else { (None, None) };
        if one_time.is_some() || kyber.is_some() {
            self.tell_if_low(transaction, id, row.told_low);
        }
        Some(pb::Bundle {
            device: id.to_bytes(),
            registration_id: keys.registration_id(),
            identity_key: bytes::Bytes::copy_from_slice(keys.identity_key()),
            signed_prekey: Some(signed),
            kyber_last_resort: kyber.is_none(),
            kyber_prekey: Some(kyber.or(last_resort)?),
            one_time,
            record: pb::SignedRecord::decode(row.record.clone()).ok().filter(|_| !row.record.is_empty()),
        })
    }

    /// A device whose stock fell below the limit is told once.
    fn tell_if_low(&self, transaction: &mut Transaction<'_>, id: DeviceId, told: bool) {
        let (ec, kyber) = transaction.world().stock(&id).map(Stock::left).unwrap_or_default();
        let low =
            u64::try_from(ec.min(kyber)).unwrap_or(u64::MAX) < self.config.limits.one_time_prekeys_low();
        if told || !low {
            return;
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let stock = pb::StockLow { one_time_ec: count(ec), one_time_kyber: count(kyber) };
        let key = bytes::Bytes::from(vec![u8::try_from(STOCK_LOW).unwrap_or(u8::MAX)]);
        transaction.place(id, New { entry: entry(STOCK_LOW, &stock), key, ..New::default() });
        transaction.change_device(&id, |row| row.told_low = true);
    }
}
