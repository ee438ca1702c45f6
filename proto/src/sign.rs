//! Signatures over labelled bytes (chapter 01).
//!
//! Nothing is signed bare: what is signed is `"tidings/1" 00 purpose 00 bytes`, so that a signature
//! made for one purpose is none for another. Keys and signatures carry an algorithm byte in front;
//! 1 is Ed25519, the only one in use. Verification is strict: S below the group order, A and R
//! canonical and not of small order, the equation without cofactor, never in batches.
//!
//! What this module does not do: make randomness. A signing key comes from a seed of the caller's.

use std::fmt;

use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha256};

use crate::id::{Hash, KeyId};
use crate::purposes;

/// The algorithm byte of Ed25519.
pub const ED25519: u8 = 1;
/// Bytes of a key on the wire.
pub const PUBLIC_KEY_LEN: usize = 33;
/// Bytes of a signature on the wire.
pub const SIGNATURE_LEN: usize = 65;

const LABEL: &[u8] = b"tidings/1";

/// What a signature is for; a registry (`spec/registry/purposes.toml`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Purpose(&'static str);

impl Purpose {
    /// A link of a server chain.
    pub const SERVER_LINK: Self = Self(purposes::SERVER_LINK);
    /// A link of an account chain.
    pub const ACCOUNT_LINK: Self = Self(purposes::ACCOUNT_LINK);
    /// The proof bound to the TLS session.
    pub const AUTH_EXPORTER: Self = Self(purposes::AUTH_EXPORTER);
    /// The proof over both nonces.
    pub const AUTH_NONCE: Self = Self(purposes::AUTH_NONCE);
    /// A device record.
    pub const DEVICE_RECORD: Self = Self(purposes::DEVICE_RECORD);
    /// A device's report of a message it cannot read.
    pub const REPORT: Self = Self(purposes::REPORT);
    /// What two devices say while one links the other; a MAC, not a signature.
    pub const LINK_CODE: Self = Self(purposes::LINK_CODE);
    /// A link of a group chain.
    pub const GROUP_LINK: Self = Self(purposes::GROUP_LINK);
    /// The head of a group log.
    pub const LOG_HEAD: Self = Self(purposes::LOG_HEAD);
    /// A keeper's vote for a new term.
    pub const KEEPER_VOTE: Self = Self(purposes::KEEPER_VOTE);

    /// All purposes, in the registry's order.
    pub const ALL: [Self; 10] = [
        Self::SERVER_LINK,
        Self::ACCOUNT_LINK,
        Self::AUTH_EXPORTER,
        Self::AUTH_NONCE,
        Self::DEVICE_RECORD,
        Self::REPORT,
        Self::LINK_CODE,
        Self::GROUP_LINK,
        Self::LOG_HEAD,
        Self::KEEPER_VOTE,
    ];

    /// The registered word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// `"tidings/1" 00 purpose 00 bytes`.
#[must_use]
pub fn labelled(purpose: Purpose, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().saturating_add(48));
    out.extend_from_slice(LABEL);
    out.push(0);
    out.extend_from_slice(purpose.0.as_bytes());
    out.push(0);
    out.extend_from_slice(bytes);
    out
}

/// SHA-256 over the labelled bytes: a link's id.
#[must_use]
pub fn labelled_hash(purpose: Purpose, bytes: &[u8]) -> Hash {
    sha256(&labelled(purpose, bytes))
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

/// Why a key or signature is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A key that is not 33 bytes.
    #[error("key has {0} bytes, not 33")]
    KeyLength(usize),
    /// A signature that is not 65 bytes.
    #[error("signature has {0} bytes, not 65")]
    SignatureLength(usize),
    /// An algorithm byte other than 1.
    #[error("algorithm {0} is not known")]
    Algorithm(u8),
    /// The key is not the canonical encoding of a point.
    #[error("key is not a canonical point")]
    KeyNotCanonical,
    /// The key is a point of small order.
    #[error("key is of small order")]
    KeySmallOrder,
    /// Key and signature are of different algorithms.
    #[error("signature is of another algorithm than the key")]
    OtherAlgorithm,
    /// The signature does not hold.
    #[error("signature does not verify")]
    Invalid,
}

/// A public key that was checked to be canonical and not of small order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; PUBLIC_KEY_LEN]);

impl PublicKey {
    /// Reads the algorithm byte and the key.
    ///
    /// # Errors
    /// [`SignError`], for wrong length, algorithm or point.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignError> {
        let whole: [u8; PUBLIC_KEY_LEN] = bytes.try_into().map_err(|_| SignError::KeyLength(bytes.len()))?;
        let (algorithm, point) = split::<32>(&whole).ok_or(SignError::KeyLength(bytes.len()))?;
        if algorithm != ED25519 {
            return Err(SignError::Algorithm(algorithm));
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(&point).map_err(|_| SignError::KeyNotCanonical)?;
        if key.is_weak() {
            return Err(SignError::KeySmallOrder);
        }
        if is_canonical(&point) { Ok(Self(whole)) } else { Err(SignError::KeyNotCanonical) }
    }

    /// The algorithm byte and the key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PUBLIC_KEY_LEN] {
        &self.0
    }

    /// As [`Self::as_bytes`], owned: what message fields take.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// As [`Self::as_bytes`], as a shared buffer: what message fields of type `Bytes` take.
    #[must_use]
    pub fn to_bytes(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }

    /// SHA-256 of the 33 bytes.
    #[must_use]
    pub fn id(&self) -> KeyId {
        sha256(&self.0).into()
    }

    /// Checks a signature over the labelled bytes.
    ///
    /// # Errors
    /// [`SignError::Invalid`] if it does not hold.
    pub fn verify(&self, purpose: Purpose, bytes: &[u8], signature: &Signature) -> Result<(), SignError> {
        let (algorithm, point) = split::<32>(&self.0).ok_or(SignError::Invalid)?;
        let (signed_with, raw) = split::<64>(&signature.0).ok_or(SignError::Invalid)?;
        if algorithm != signed_with {
            return Err(SignError::OtherAlgorithm);
        }
        let r: [u8; 32] = raw.first_chunk().copied().ok_or(SignError::Invalid)?;
        if !is_canonical(&r) {
            return Err(SignError::Invalid);
        }
        let key = ed25519_dalek::VerifyingKey::from_bytes(&point).map_err(|_| SignError::KeyNotCanonical)?;
        let raw = ed25519_dalek::Signature::from_bytes(&raw);
        key.verify_strict(&labelled(purpose, bytes), &raw).map_err(|_| SignError::Invalid)
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = SignError;

    fn try_from(bytes: &[u8]) -> Result<Self, SignError> {
        Self::parse(bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}..)", hex::encode(self.0.get(..5).unwrap_or_default()))
    }
}

/// A signature as carried: algorithm byte and 64 bytes. Nothing is checked before it is verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; SIGNATURE_LEN]);

impl Signature {
    /// Reads the algorithm byte and the signature.
    ///
    /// # Errors
    /// [`SignError::SignatureLength`], [`SignError::Algorithm`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignError> {
        let whole: [u8; SIGNATURE_LEN] =
            bytes.try_into().map_err(|_| SignError::SignatureLength(bytes.len()))?;
        match whole.first() {
            Some(&ED25519) => Ok(Self(whole)),
            other => Err(SignError::Algorithm(other.copied().unwrap_or_default())),
        }
    }

    /// The algorithm byte and the signature.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SIGNATURE_LEN] {
        &self.0
    }

    /// As [`Self::as_bytes`], owned: what message fields take.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// As [`Self::as_bytes`], as a shared buffer: what message fields of type `Bytes` take.
    #[must_use]
    pub fn to_bytes(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl TryFrom<&[u8]> for Signature {
    type Error = SignError;

    fn try_from(bytes: &[u8]) -> Result<Self, SignError> {
        Self::parse(bytes)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}..)", hex::encode(self.0.get(..5).unwrap_or_default()))
    }
}

/// A private key. Its memory is wiped when it is dropped; `Debug` shows the public key only.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// The key of this seed (32 bytes, secret and random: the caller's duty).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let mut public = [ED25519; PUBLIC_KEY_LEN];
        for (to, from) in public.iter_mut().skip(1).zip(key.verifying_key().to_bytes()) {
            *to = from;
        }
        Self { key, public: PublicKey(public) }
    }

    /// The seed it was made from: for keeping it, nothing else.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs the labelled bytes.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, bytes: &[u8]) -> Signature {
        let raw = self.key.sign(&labelled(purpose, bytes)).to_bytes();
        let mut signature = [ED25519; SIGNATURE_LEN];
        for (to, from) in signature.iter_mut().skip(1).zip(raw) {
            *to = from;
        }
        Signature(signature)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.public)
    }
}

fn split<const N: usize>(bytes: &[u8]) -> Option<(u8, [u8; N])> {
    let (algorithm, rest) = bytes.split_first()?;
    Some((*algorithm, rest.try_into().ok()?))
}

/// Whether y, without the sign bit, is below p = 2^255 - 19.
fn is_canonical(point: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = point;
    !(last & 0x7f == 0x7f && middle.iter().all(|byte| *byte == 0xff) && *first >= 0xed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    fn key() -> SigningKey {
        SigningKey::from_seed(&[7; 32])
    }

    #[test]
    fn labelled_bytes_are_exactly_these() {
        assert_eq!(labelled(Purpose::REPORT, b"x"), b"tidings/1\0report\0x");
    }

    #[test]
    fn a_signature_holds_for_its_purpose_key_and_bytes_only() {
        let signature = key().sign(Purpose::REPORT, b"x");
        assert_eq!(key().public().verify(Purpose::REPORT, b"x", &signature), Ok(()));
        assert_eq!(key().public().verify(Purpose::DEVICE_RECORD, b"x", &signature), Err(SignError::Invalid));
        assert_eq!(key().public().verify(Purpose::REPORT, b"y", &signature), Err(SignError::Invalid));
        let other = SigningKey::from_seed(&[8; 32]).public();
        assert_eq!(other.verify(Purpose::REPORT, b"x", &signature), Err(SignError::Invalid));
    }

    #[test]
    fn s_plus_the_group_order_is_refused() {
        let mut bytes = *key().sign(Purpose::REPORT, b"x").as_bytes();
        let mut carry = 0_u16;
        for (byte, add) in bytes[33..].iter_mut().zip(L) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        let forged = Signature::parse(&bytes).unwrap();
        assert_eq!(key().public().verify(Purpose::REPORT, b"x", &forged), Err(SignError::Invalid));
    }

    #[test]
    fn bad_points_are_no_keys() {
        let of = |first: u8, fill: u8, last: u8| {
            let mut key = [fill; 33];
            (key[0], key[1], key[32]) = (1, first, last);
            PublicKey::parse(&key)
        };
        assert_eq!(of(1, 0, 0), Err(SignError::KeySmallOrder), "neutral element");
        assert_eq!(of(0, 0, 0), Err(SignError::KeySmallOrder), "order 4");
        assert!(of(0xed, 0xff, 0x7f).is_err(), "p is 0");
        assert!(of(0xee, 0xff, 0x7f).is_err(), "p + 1 is 1");
        assert_eq!(
            (0xed..=0xff).filter(|first| of(*first, 0xff, 0x7f).is_ok()).count(),
            0,
            "no y at or above p"
        );
        assert_eq!((0xed..=0xff).filter(|first| of(*first, 0xff, 0xff).is_ok()).count(), 0);
        assert_eq!(PublicKey::parse(&[0; 33]), Err(SignError::Algorithm(0)));
        assert_eq!(PublicKey::parse(&[1; 32]), Err(SignError::KeyLength(32)));
        assert_eq!(Signature::parse(&[2; 65]), Err(SignError::Algorithm(2)));
        assert_eq!(Signature::parse(&[1; 64]), Err(SignError::SignatureLength(64)));
    }

    #[test]
    fn a_small_order_r_is_refused() {
        let mut bytes = [0; 65];
        (bytes[0], bytes[1]) = (1, 1);
        let forged = Signature::parse(&bytes).unwrap();
        assert_eq!(key().public().verify(Purpose::REPORT, b"x", &forged), Err(SignError::Invalid));
    }

    proptest! {
        #[test]
        fn arbitrary_keys_and_signatures_never_panic(key in any::<[u8; 32]>(), signature in proptest::collection::vec(any::<u8>(), 64)) {
            let whole: Vec<u8> = std::iter::once(1).chain(key).collect();
            let signature: Vec<u8> = std::iter::once(1).chain(signature).collect();
            if let (Ok(key), Ok(signature)) = (PublicKey::parse(&whole), Signature::parse(&signature)) {
                prop_assert!(key.verify(Purpose::REPORT, b"x", &signature).is_err());
            }
        }

        #[test]
        fn any_flipped_bit_breaks_a_signature(bit in 8_usize..520) {
            let mut bytes = *key().sign(Purpose::REPORT, b"x").as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(key().public().verify(Purpose::REPORT, b"x", &Signature::parse(&bytes).unwrap()).is_err());
        }
    }
}
