//! Who this device is: its keys and chain position, made once and kept in the store (spec 05-accounts).

use bytes::Bytes;
use rand::{CryptoRng, RngExt as _};
use tidings_proto::chain::account::{genesis, genesis_body};
use tidings_proto::chain::{AccountState, DeviceKeys, Verified};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

use crate::crypto::{Identity, LocalDevice};
use crate::error::{Error, StoreError};
use crate::store::{Store, Tx, put_value};

/// libsignal's registration ids: 1 to 16380.
const REGISTRATION_IDS: std::ops::RangeInclusive<u32> = 1..=16_380;

/// This device.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) address: Address,
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) key: SigningKey,
    pub(crate) local: LocalDevice,
}

/// Keys of a device that stands on no chain yet.
pub(crate) struct NewDevice {
    pub(crate) key: SigningKey,
    pub(crate) local: LocalDevice,
}

impl NewDevice {
    /// Fresh keys.
    pub(crate) fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let identity = Identity::generate(rng);
        let registration_id = rng.random_range(REGISTRATION_IDS);
        Self { key: SigningKey::from_seed(&seed), local: LocalDevice { identity, registration_id } }
    }

    /// What a link says of it.
    pub(crate) fn keys(&self) -> Result<DeviceKeys, Error> {
        DeviceKeys::new(self.key.public(), &self.local.identity.public(), self.local.registration_id)
            .map_err(|error| Error::Misuse(format!("a fresh device key was refused: {error}")))
    }
}

/// A new account's first link, with the keys behind it.
pub(crate) struct NewAccount {
    pub(crate) me: Me,
    pub(crate) recovery: SigningKey,
    pub(crate) link: pb::Link,
}

/// Makes an account at an address; nothing knows of it yet.
pub(crate) fn new_account(address: Address, rng: &mut impl CryptoRng) -> Result<NewAccount, Error> {
    let device = NewDevice::generate(rng);
    let (mut seed, mut salt) = ([0; 32], [0; 16]);
    rng.fill_bytes(&mut seed);
    rng.fill_bytes(&mut salt);
    let recovery = SigningKey::from_seed(&seed);
    let body = genesis_body(&recovery.public(), &address, &device.keys()?, salt);
    let link = genesis(body, &recovery, &device.key);
    let chain = Verified::<AccountState>::genesis(&link)
        .map_err(|error| Error::Misuse(format!("the new account's own link was refused: {error}")))?;
    let me = Me {
        address,
        account: chain.account_id(),
        device: DeviceId::from(chain.genesis_id()),
        key: device.key,
        local: device.local,
    };
    Ok(NewAccount { me, recovery, link })
}

impl Me {
    /// Writes what makes this device itself.
    pub(crate) async fn save(&self, tx: &mut Tx) -> Result<(), StoreError> {
        put_value(tx, "address", self.address.to_string().as_bytes()).await?;
        put_value(tx, "account", self.account.as_ref()).await?;
        put_value(tx, "device", self.device.as_ref()).await?;
        put_value(tx, "device-key", &self.key.seed()).await?;
        put_value(tx, "identity", &self.local.identity.to_secret_bytes()).await?;
        put_value(tx, "registration-id", &self.local.registration_id.to_be_bytes()).await
    }

    /// Reads it back; `None` if the store is new.
    pub(crate) async fn load(store: &Store) -> Result<Option<Self>, StoreError> {
        let broken = |column| StoreError::Inconsistent { table: "meta", column };
        let Some(address) = store.value("address").await? else { return Ok(None) };
        let address = String::from_utf8(address).ok().and_then(|text| Address::parse(&text).ok());
        let account = required(store, "account").await?;
        let device = required(store, "device").await?;
        let seed: [u8; 32] = array(store, "device-key").await?;
        let identity = required(store, "identity").await?;
        let registration_id = u32::from_be_bytes(array(store, "registration-id").await?);
        Ok(Some(Self {
            address: address.ok_or_else(|| broken("address"))?,
            account: AccountId::try_from(account.as_ref()).map_err(|_| broken("account"))?,
            device: DeviceId::try_from(device.as_ref()).map_err(|_| broken("device"))?,
            key: SigningKey::from_seed(&seed),
            local: LocalDevice {
                identity: Identity::from_secret_bytes(&identity).map_err(|_| broken("identity"))?,
                registration_id,
            },
        }))
    }
}

async fn required(store: &Store, key: &'static str) -> Result<Bytes, StoreError> {
    let value = store.value(key).await?;
    value.map(Bytes::from).ok_or(StoreError::Inconsistent { table: "meta", column: key })
}

async fn array<const N: usize>(store: &Store, key: &'static str) -> Result<[u8; N], StoreError> {
    let value = required(store, key).await?;
    value.as_ref().try_into().map_err(|_| StoreError::Inconsistent { table: "meta", column: key })
}
