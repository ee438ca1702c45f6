//! Who takes part: this device's identity key, and the other device as its account chain names it
//! (spec 08-encryption, ENC-002).
//!
//! What this module deliberately does not do: verify chains, or store keys.

use libsignal_protocol as signal;
use libsignal_protocol::{IdentityKeyPair, PrivateKey, ProtocolAddress, PublicKey};
use rand::CryptoRng;
use tidings_proto::id::DeviceId;

use super::IdentityPublic;
use super::error::IdentityError;

/// The version of randomness traits libsignal takes, over the one the rest of the program uses.
pub(super) struct LibsignalRng<'a, R>(pub(super) &'a mut R);

impl<R: CryptoRng> rand_for_libsignal::RngCore for LibsignalRng<'_, R> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

impl<R: CryptoRng> rand_for_libsignal::CryptoRng for LibsignalRng<'_, R> {}

/// This device's Signal identity key pair, for the life of the device.
#[derive(Clone)]
pub struct Identity(IdentityKeyPair);

impl Identity {
    /// A new one.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(IdentityKeyPair::generate(&mut LibsignalRng(rng)))
    }

    /// From what [`Identity::to_secret_bytes`] gave.
    ///
    /// # Errors
    /// [`IdentityError`] if these are not 32 bytes.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let bytes: &[u8; 32] = bytes.try_into().map_err(|_| IdentityError)?;
        let private = PrivateKey::deserialize(bytes).map_err(|_| IdentityError)?;
        IdentityKeyPair::try_from(private).map(Self).map_err(|_| IdentityError)
    }

    /// The private key, 32 bytes: secret, and never part of a backup.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Vec<u8> {
        self.0.private_key().serialize()
    }

    /// The public key, as the account link and bundles carry it.
    #[must_use]
    pub fn public(&self) -> IdentityPublic {
        key_bytes(self.0.public_key())
    }

    pub(super) fn pair(&self) -> &IdentityKeyPair {
        &self.0
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// This device, as libsignal wants to know it.
#[derive(Debug, Clone)]
pub struct LocalDevice {
    /// Its identity key pair.
    pub identity: Identity,
    /// libsignal's number for this installation, 1 to 16380; published with the bundle.
    pub registration_id: u32,
}

/// Another device, as the verified account chain names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerDevice {
    /// The id of the link that added it.
    pub device: DeviceId,
    /// The Signal identity key in that link.
    pub identity: IdentityPublic,
}

impl PeerDevice {
    /// Its libsignal address: the id in hexadecimal, device 1.
    pub(super) fn address(&self) -> ProtocolAddress {
        address_of(self.device)
    }
}

/// A device as libsignal names it.
pub(super) fn address_of(device: DeviceId) -> ProtocolAddress {
    let number = signal::DeviceId::new(1).expect("1 is a device number");
    ProtocolAddress::new(device.to_string(), number)
}

/// The 33 bytes libsignal writes for a public key.
pub(super) fn key_bytes(key: &PublicKey) -> IdentityPublic {
    key.serialize().as_ref().try_into().expect("a serialised Curve25519 key takes 33 bytes")
}
