//! A Signal identity key that signs prekeys, as a client has one.

use bytes::Bytes;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::scalar::Scalar;
use sha2::{Digest as _, Sha512};
use tidings_proto::pb;

/// An identity key made of a number.
pub(crate) struct IdentityKey(Scalar);

impl IdentityKey {
    pub(crate) fn new(seed: u8) -> Self {
        Self(Scalar::from_bytes_mod_order([seed; 32]))
    }

    /// 33 bytes, as libsignal encodes it.
    pub(crate) fn public(&self) -> [u8; 33] {
        let mut bytes = [5; 33];
        bytes[1..].copy_from_slice((ED25519_BASEPOINT_POINT * self.0).to_montgomery().as_bytes());
        bytes
    }

    /// XEdDSA with a fixed nonce: good enough to be verified.
    pub(crate) fn signed(&self, id: u32, key: &[u8]) -> pb::SignedKey {
        let public = (ED25519_BASEPOINT_POINT * self.0).compress();
        let nonce = Scalar::from_bytes_mod_order([7; 32]);
        let r = (ED25519_BASEPOINT_POINT * nonce).compress();
        let hash = Sha512::new()
            .chain_update(r.as_bytes())
            .chain_update(public.as_bytes())
            .chain_update(key)
            .finalize();
        let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.into()) * self.0;
        let mut signature = [r.to_bytes(), s.to_bytes()].concat();
        signature[63] |= public.as_bytes()[31] & 0x80;
        pb::SignedKey { id, key: Bytes::copy_from_slice(key), signature: signature.into() }
    }

    /// What a new device publishes.
    pub(crate) fn prekeys(&self) -> pb::PublishKeys {
        pb::PublishKeys {
            signed_prekey: Some(self.signed(1, &[5; 33])),
            kyber_last_resort: Some(self.signed(1, &[8; 1569])),
            ..Default::default()
        }
    }
}
