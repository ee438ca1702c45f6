//! The account chain: which devices are a user's, and at which address (chapters 04, 05).
//!
//! | link | signed by | refused if |
//! |---|---|---|
//! | genesis 0x00 | recovery key, then the device | the keys are equal |
//! | add-device 0x02 | a listed device or recovery, then the new device | a key is in use; 32 listed |
//! | remove-device 0x04 | a listed device or recovery | not listed |
//! | rotate-recovery 0x06 | recovery, then the new key | the key is in use |
//! | change-address 0x08 | recovery | |
//! | checkpoint 0x0a | recovery | it restates another state |
//! | end-fork 0x0c | recovery | it names a link of this chain |
//! | close-account 0x0e | recovery | |
//!
//! After close-account nothing follows. At most 1,024 links stand after the last checkpoint (or the
//! genesis), the last 16 for the recovery key alone; a checkpoint itself always has a place.
//!
//! What this module does not do: limit how fast devices sign links; that is the home's.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use super::{ChainState, Envelope, LinkError, Verified, account_shape, key, sign_link, signers};
use crate::canonical::Shape;
use crate::id::{AccountId, DeviceId, KeyId, LinkId};
use crate::name::Address;
use crate::pb;
use crate::sign::{PublicKey, Purpose, SigningKey};

/// Devices an account may have at once.
pub const DEVICES_MAX: usize = 32;
/// Links after the last checkpoint.
pub const LINKS_MAX: u64 = 1024;
/// Of those, places that only the recovery key may use.
pub const LINKS_RESERVED: u64 = 16;
/// Bytes of a Signal identity key as libsignal encodes it.
pub const IDENTITY_KEY_LEN: usize = 33;

const GENESIS: u32 = 0x00;
const ADD_DEVICE: u32 = 0x02;
const REMOVE_DEVICE: u32 = 0x04;
const ROTATE_RECOVERY: u32 = 0x06;
const CHANGE_ADDRESS: u32 = 0x08;
const CHECKPOINT: u32 = 0x0a;
const END_FORK: u32 = 0x0c;
const CLOSE_ACCOUNT: u32 = 0x0e;

/// A device's keys, as its link carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceKeys {
    key: PublicKey,
    identity_key: [u8; IDENTITY_KEY_LEN],
    registration_id: u32,
}

impl DeviceKeys {
    /// Checks a device's keys.
    ///
    /// # Errors
    /// [`LinkError::Value`] for an identity key that is not 0x05 and 32 bytes, or a registration id
    /// outside 1 to 16380.
    pub fn new(key: PublicKey, identity_key: &[u8], registration_id: u32) -> Result<Self, LinkError> {
        let identity_key: [u8; IDENTITY_KEY_LEN] =
            identity_key.try_into().map_err(|_| LinkError::Value("identity key"))?;
        if identity_key.first() != Some(&5) {
            return Err(LinkError::Value("identity key"));
        }
        if !(1..=16380).contains(&registration_id) {
            return Err(LinkError::Value("registration id"));
        }
        Ok(Self { key, identity_key, registration_id })
    }

    /// The key that authenticates and signs.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// The Signal identity key as libsignal encodes it.
    #[must_use]
    pub const fn identity_key(&self) -> &[u8; IDENTITY_KEY_LEN] {
        &self.identity_key
    }

    /// libsignal's registration id.
    #[must_use]
    pub const fn registration_id(&self) -> u32 {
        self.registration_id
    }

    /// As the message that links carry.
    #[must_use]
    pub fn to_pb(&self) -> pb::Device {
        pb::Device {
            key: self.key.to_bytes(),
            identity_key: Bytes::copy_from_slice(&self.identity_key),
            registration_id: self.registration_id,
        }
    }

    fn parse(device: Option<&pb::Device>) -> Result<Self, LinkError> {
        let device = device.ok_or(LinkError::Value("device"))?;
        Self::new(key(&device.key)?, &device.identity_key, device.registration_id)
    }
}

/// What an account chain says after a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    recovery_key: PublicKey,
    address: Address,
    address_links: u32,
    devices: BTreeMap<DeviceId, DeviceKeys>,
    removed: Vec<(DeviceId, u64)>,
    ended_heads: Vec<LinkId>,
    since_checkpoint: u64,
    closed: bool,
}

/// A change that a link makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountChange {
    /// Signed by a listed device or recovery, then the new device.
    AddDevice(DeviceKeys),
    /// Signed by a listed device or recovery.
    RemoveDevice(DeviceId),
    /// Signed by recovery, then the new key.
    RotateRecovery(PublicKey),
    /// Signed by recovery.
    ChangeAddress(Address),
    /// Restates the state; signed by recovery.
    Checkpoint,
    /// This chain goes on, that head does not; signed by recovery.
    EndFork(LinkId),
    /// Closed for good; signed by recovery. The reason is for people.
    Close(String),
}

enum Signer {
    Recovery,
    Device,
}

impl AccountState {
    /// The recovery key.
    #[must_use]
    pub const fn recovery_key(&self) -> PublicKey {
        self.recovery_key
    }

    /// The address.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Links so far that set the address; the genesis counts.
    #[must_use]
    pub const fn address_links(&self) -> u32 {
        self.address_links
    }

    /// The devices on the list, ascending by id.
    #[must_use]
    pub const fn devices(&self) -> &BTreeMap<DeviceId, DeviceKeys> {
        &self.devices
    }

    /// A device on the list.
    #[must_use]
    pub fn device(&self, id: &DeviceId) -> Option<&DeviceKeys> {
        self.devices.get(id)
    }

    /// Whether a device was on the list and was removed.
    #[must_use]
    pub fn was_removed(&self, id: &DeviceId) -> bool {
        self.removed.iter().any(|(removed, _)| removed == id)
    }

    /// The number of the last link that removed a device.
    #[must_use]
    pub fn last_removal(&self) -> Option<u64> {
        self.removed.last().map(|(_, number)| *number)
    }

    /// Heads that the recovery key declared not to go on.
    #[must_use]
    pub fn ended_heads(&self) -> &[LinkId] {
        &self.ended_heads
    }

    /// Links after the last checkpoint, or the genesis.
    #[must_use]
    pub const fn since_checkpoint(&self) -> u64 {
        self.since_checkpoint
    }

    /// Whether the account is closed.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// The checkpoint that restates this state.
    #[must_use]
    pub fn checkpoint(&self) -> pb::AccountCheckpoint {
        let named = |(id, device): (&DeviceId, &DeviceKeys)| pb::NamedDevice {
            id: id.to_bytes(),
            device: Some(device.to_pb()),
        };
        pb::AccountCheckpoint {
            recovery_key: self.recovery_key.to_bytes(),
            address: self.address.to_string(),
            address_links: self.address_links,
            devices: self.devices.iter().map(named).collect(),
        }
    }

    fn authority(&self, envelope: &Envelope) -> Result<(PublicKey, Signer), LinkError> {
        let id = envelope.signers.first().ok_or(LinkError::Signers)?;
        if self.recovery_key.id() == *id {
            return Ok((self.recovery_key, Signer::Recovery));
        }
        self.signer(id).map(|key| (key, Signer::Device)).ok_or(LinkError::Signers)
    }

    fn counted(&self, envelope: &Envelope) -> Result<Self, LinkError> {
        if self.closed {
            return Err(LinkError::Closed);
        }
        let since_checkpoint = self.since_checkpoint.saturating_add(1);
        let places = match self.authority(envelope)?.1 {
            Signer::Recovery => LINKS_MAX,
            Signer::Device => LINKS_MAX.saturating_sub(LINKS_RESERVED),
        };
        if since_checkpoint > places && envelope.kind != CHECKPOINT {
            return Err(LinkError::Full);
        }
        Ok(Self { since_checkpoint, ..self.clone() })
    }

    fn add(&mut self, id: LinkId, device: &pb::Device) -> Result<PublicKey, LinkError> {
        let new = DeviceKeys::parse(Some(device))?;
        let in_use = |known: &DeviceKeys| known.key == new.key || known.identity_key == new.identity_key;
        if new.key == self.recovery_key || self.devices.values().any(in_use) {
            return Err(LinkError::KeyInUse);
        }
        if self.devices.len() >= DEVICES_MAX {
            return Err(LinkError::DevicesFull);
        }
        let key = new.key;
        self.devices.insert(id.into(), new);
        Ok(key)
    }

    fn remove(&mut self, id: &Bytes, number: u64) -> Result<(), LinkError> {
        let id = DeviceId::try_from(id)?;
        self.devices.remove(&id).ok_or(LinkError::NotListed)?;
        self.removed.push((id, number));
        Ok(())
    }

    fn rotate(&mut self, bytes: &[u8]) -> Result<PublicKey, LinkError> {
        let new = key(bytes)?;
        if self.signer(&new.id()).is_some() {
            return Err(LinkError::KeyInUse);
        }
        self.recovery_key = new;
        Ok(new)
    }

    fn change_address(&mut self, address: &str) -> Result<(), LinkError> {
        self.address = Address::parse(address)?;
        self.address_links = self.address_links.checked_add(1).ok_or(LinkError::Full)?;
        Ok(())
    }

    fn restate(&mut self, checkpoint: &pb::AccountCheckpoint) -> Result<(), LinkError> {
        self.since_checkpoint = 0;
        if *checkpoint == self.checkpoint() { Ok(()) } else { Err(LinkError::Checkpoint) }
    }

    /// The change that only the recovery key may make, and the second signer if there is one.
    fn change_by_recovery(
        &mut self,
        envelope: &Envelope,
        body: &pb::AccountLinkBody,
    ) -> Result<Option<PublicKey>, LinkError> {
        let field = || LinkError::Field(envelope.kind);
        match envelope.kind {
            ROTATE_RECOVERY => {
                return self.rotate(&body.rotate_recovery.as_ref().ok_or_else(field)?.recovery_key).map(Some);
            }
            CHANGE_ADDRESS => {
                self.change_address(&body.change_address.as_ref().ok_or_else(field)?.address)?
            }
            CHECKPOINT => self.restate(body.checkpoint.as_ref().ok_or_else(field)?)?,
            END_FORK => {
                let other = LinkId::try_from(&body.end_fork.as_ref().ok_or_else(field)?.other_head)?;
                if other.as_ref() == envelope.previous.as_ref() || other.as_ref() == envelope.chain.as_ref() {
                    return Err(LinkError::Value("other head"));
                }
                self.ended_heads.push(other);
            }
            CLOSE_ACCOUNT => {
                body.close.as_ref().ok_or_else(field)?;
                self.closed = true;
            }
            _ => return Err(field()),
        }
        Ok(None)
    }
}

impl ChainState for AccountState {
    const PURPOSE: Purpose = Purpose::ACCOUNT_LINK;
    const SHAPE: &'static Shape = &account_shape::BODY;
    type Body = pb::AccountLinkBody;

    fn envelope(body: &Self::Body) -> Result<Envelope, LinkError> {
        Ok(Envelope {
            kind: body.r#type,
            chain: body.chain.clone(),
            previous: body.previous.clone(),
            number: body.number,
            signers: signers(&body.signers)?,
        })
    }

    fn first(id: LinkId, body: &Self::Body) -> Result<(Self, Vec<PublicKey>), LinkError> {
        let (Some(genesis), 1) = (&body.genesis, fields(body)) else {
            return Err(LinkError::Field(GENESIS));
        };
        let recovery_key = key(&genesis.recovery_key)?;
        let device = DeviceKeys::parse(genesis.device.as_ref())?;
        if device.key == recovery_key {
            return Err(LinkError::KeyInUse);
        }
        if genesis.salt.len() != 16 {
            return Err(LinkError::Value("salt"));
        }
        let keys = vec![recovery_key, device.key];
        let state = Self {
            recovery_key,
            address: Address::parse(&genesis.address)?,
            address_links: 1,
            devices: BTreeMap::from([(id.into(), device)]),
            removed: Vec::new(),
            ended_heads: Vec::new(),
            since_checkpoint: 0,
            closed: false,
        };
        Ok((state, keys))
    }

    fn next(
        &self,
        id: LinkId,
        envelope: &Envelope,
        body: &Self::Body,
    ) -> Result<Option<(Self, Vec<PublicKey>)>, LinkError> {
        let kind = envelope.kind;
        let critical = crate::frame::is_critical(kind.into());
        if critical && kind > CLOSE_ACCOUNT {
            return Err(LinkError::UnknownCritical(kind));
        }
        if self.closed {
            return Err(LinkError::Closed);
        }
        if !critical {
            return Ok(None);
        }
        let mut next = self.counted(envelope)?;
        if fields(body) != 1 || kind == GENESIS {
            return Err(LinkError::Field(kind));
        }
        let (authority, who) = self.authority(envelope)?;
        let mut keys = vec![authority];
        match (kind, &body.add_device, &body.remove_device) {
            (ADD_DEVICE, Some(device), _) => keys.push(next.add(id, device)?),
            (REMOVE_DEVICE, _, Some(remove)) => next.remove(&remove.device, envelope.number)?,
            (ADD_DEVICE | REMOVE_DEVICE, ..) => return Err(LinkError::Field(kind)),
            _ if matches!(who, Signer::Device) => return Err(LinkError::Signers),
            _ => keys.extend(next.change_by_recovery(envelope, body)?),
        }
        Ok(Some((next, keys)))
    }

    fn signer(&self, id: &KeyId) -> Option<PublicKey> {
        let recovery = std::iter::once(self.recovery_key);
        recovery.chain(self.devices.values().map(|device| device.key)).find(|key| key.id() == *id)
    }

    fn skipped(&self, envelope: &Envelope) -> Result<Self, LinkError> {
        self.counted(envelope)
    }
}

fn fields(body: &pb::AccountLinkBody) -> usize {
    [
        body.genesis.is_some(),
        body.add_device.is_some(),
        body.remove_device.is_some(),
        body.rotate_recovery.is_some(),
        body.change_address.is_some(),
        body.checkpoint.is_some(),
        body.end_fork.is_some(),
        body.close.is_some(),
    ]
    .into_iter()
    .filter(|there| *there)
    .count()
}

/// The body of a genesis. `salt` is random.
#[must_use]
pub fn genesis_body(recovery: &PublicKey, address: &Address, device: &DeviceKeys, salt: [u8; 16]) -> Bytes {
    let body = pb::AccountLinkBody {
        r#type: GENESIS,
        signers: vec![recovery.id().to_bytes(), device.key.id().to_bytes()],
        genesis: Some(pb::AccountGenesis {
            recovery_key: recovery.to_bytes(),
            address: address.to_string(),
            device: Some(device.to_pb()),
            salt: Bytes::copy_from_slice(&salt),
        }),
        ..Default::default()
    };
    body.encode_to_vec().into()
}

/// A genesis of this body, signed.
#[must_use]
pub fn genesis(body: Bytes, recovery: &SigningKey, device: &SigningKey) -> pb::Link {
    sign_link(Purpose::ACCOUNT_LINK, body, &[recovery, device])
}

impl Verified<AccountState> {
    /// The account's id.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        self.genesis_id().into()
    }

    /// The body of the next link, for these signers in order.
    #[must_use]
    pub fn body(&self, change: &AccountChange, signers: &[KeyId]) -> Bytes {
        let mut body = pb::AccountLinkBody::default();
        let kind = match change {
            AccountChange::AddDevice(device) => {
                body.add_device = Some(device.to_pb());
                ADD_DEVICE
            }
            AccountChange::RemoveDevice(device) => {
                body.remove_device = Some(pb::RemoveDevice { device: device.to_bytes() });
                REMOVE_DEVICE
            }
            AccountChange::RotateRecovery(key) => {
                body.rotate_recovery = Some(pb::RotateRecovery { recovery_key: key.to_bytes() });
                ROTATE_RECOVERY
            }
            AccountChange::ChangeAddress(address) => {
                body.change_address = Some(pb::ChangeAddress { address: address.to_string() });
                CHANGE_ADDRESS
            }
            AccountChange::Checkpoint => {
                body.checkpoint = Some(self.state().checkpoint());
                CHECKPOINT
            }
            AccountChange::EndFork(head) => {
                body.end_fork = Some(pb::EndFork { other_head: head.to_bytes() });
                END_FORK
            }
            AccountChange::Close(reason) => {
                body.close = Some(pb::CloseAccount { reason: reason.clone() });
                CLOSE_ACCOUNT
            }
        };
        let envelope = self.next_envelope(kind, signers);
        body.r#type = kind;
        (body.chain, body.previous, body.number) = (envelope.chain, envelope.previous, envelope.number);
        body.signers = signers.iter().map(KeyId::to_bytes).collect();
        body.encode_to_vec().into()
    }

    /// The next link, signed by these keys in order. It is not checked: append it.
    #[must_use]
    pub fn link(&self, change: &AccountChange, keys: &[&SigningKey]) -> pb::Link {
        let signers: Vec<KeyId> = keys.iter().map(|key| key.public().id()).collect();
        sign_link(Purpose::ACCOUNT_LINK, self.body(change, &signers), keys)
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
