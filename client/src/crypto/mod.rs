//! End-to-end encryption between two devices: libsignal, its records, plaintext framing, franking,
//! safety numbers (spec 08-encryption).
//!
//! Everything here is synchronous and pure. No I/O, no clock, no randomness of its own: the caller
//! loads [`Records`], calls one operation, and gets back the result and the [`Changes`] to write in
//! one transaction with the message. An operation that fails has changed nothing.
//!
//! Invariants:
//!
//! - A session is built, used or accepted only if its identity key is [`PeerDevice::identity`], the
//!   key from the verified account chain. There is no trust on first use.
//! - Only PQXDH sessions come about; a message that asks for less is refused.
//! - Arbitrary bytes from a peer give a typed error, never a panic.
//! - [`Changes`] must be durable before the ciphertext leaves or the message is acknowledged, and
//!   operations with one device must not overlap: two encryptions from the same record would use
//!   one message key twice.
//!
//! What this module deliberately does not do: verify chains, fetch bundles, decide when to reset a
//! session or to resend, when to rotate a sender key, parse headers, or store anything.

mod bundle;
mod device;
mod error;
mod group;
mod plaintext;
mod profile;
mod records;
mod safety;
mod signal;
#[cfg(test)]
mod tests;

pub use bundle::{
    KyberPrekey, OneTimePrekey, PREKEYS_PER_CALL_MAX, PrekeyBundle, PrekeyError, PrekeyOrder, PrekeySet,
    SignedPrekey, generate_prekeys,
};
pub use device::{Identity, LocalDevice, PeerDevice};
pub use error::{BundleError, DecryptError, EncryptError, IdentityError, PrekeyKind, SessionError};
pub use group::{DistributionId, SenderKey, SenderKeyError, distribution_of};
pub use plaintext::{
    PLAINTEXT_BLOCK_BYTES, Plaintext, PlaintextError, commitment, open_plaintext, seal_plaintext,
    verify_commitment,
};
pub use profile::{open_profile, seal_profile};
pub use records::{Changes, KyberRecord, KyberUse, Records};
pub use safety::{HeadPair, QR_BYTES, QrError, SafetyQr, safety_number};
pub use signal::{
    Ciphertext, CiphertextKind, Pairwise, WantedPrekeys, archive_session, session_usable, wanted_prekeys,
};

/// A Signal identity key as account links carry it: the type byte 05 and 32 bytes of Curve25519.
pub type IdentityPublic = [u8; 33];
