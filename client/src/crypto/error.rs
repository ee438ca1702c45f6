//! What can go wrong in each operation, by who is at fault.
//!
//! `Inconsistent` is our own record that libsignal cannot use: a broken store, not the peer. What
//! the others mean for sending and healing is said at each.

use libsignal_protocol::SignalProtocolError;

use super::signal::WantedPrekeys;

/// These bytes are no identity key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a Signal identity key takes 32 bytes")]
pub struct IdentityError;

/// A stored session that libsignal cannot read: our data is broken.
#[derive(Debug, thiserror::Error)]
#[error("a stored session is unreadable")]
pub struct SessionError(#[source] pub(super) SignalProtocolError);

/// Why a bundle gives no session.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Its identity key is not the one in the account chain: the server that served it is lying or
    /// broken. Not to be retried with that bundle.
    #[error("the bundle's identity key is not the one in the account chain")]
    UntrustedIdentity,
    /// A prekey is not signed by the identity key.
    #[error("a prekey in the bundle is not signed by the identity key")]
    BadSignature,
    /// A key in it, or the identity key in the chain, is no key.
    #[error("the bundle holds bytes that are no key")]
    Malformed,
    /// Our own records are unusable.
    #[error("a stored record is unusable")]
    Inconsistent(#[source] SignalProtocolError),
}

/// Why nothing was encrypted.
#[derive(Debug, thiserror::Error)]
pub enum EncryptError {
    /// No session, or one not answered for 30 days: fetch a bundle and start one.
    #[error("there is no usable session with the device")]
    NoSession,
    /// The session is with another identity key than the account chain's.
    #[error("the session's identity key is not the one in the account chain")]
    UntrustedIdentity,
    /// Our own records are unusable: archive the session and start one anew.
    #[error("a stored record is unusable")]
    Inconsistent(#[source] SignalProtocolError),
}

/// Which kind of prekey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrekeyKind {
    /// One-time Curve25519.
    OneTime,
    /// Signed Curve25519.
    Signed,
    /// Kyber1024, one-time or last resort.
    Kyber,
}

/// Why a message could not be decrypted.
#[derive(Debug, thiserror::Error)]
pub enum DecryptError {
    /// No session with the device: report, the sender resends in a new one.
    #[error("there is no session with the device")]
    NoSession,
    /// Another identity key than the account chain's: report, and use no session with it.
    #[error("the message's identity key is not the one in the account chain")]
    UntrustedIdentity,
    /// Decrypted before, or a prekey message played again: acknowledge and forget.
    #[error("the message was decrypted before")]
    Duplicate,
    /// Malformed, altered, or for another session: report.
    #[error("the ciphertext is bad: {0}")]
    BadCiphertext(&'static str),
    /// A prekey it names is gone, or never was: report, the sender starts anew.
    #[error("the message names the {kind:?} prekey {id}, which is not here")]
    MissingPrekey {
        /// Which kind.
        kind: PrekeyKind,
        /// Its id, as the sender named it.
        id: u32,
    },
    /// Our own records are unusable: report, so that the sender starts anew.
    #[error("a stored record is unusable")]
    Inconsistent(#[source] SignalProtocolError),
}

impl BundleError {
    pub(super) fn from_signal(error: SignalProtocolError) -> Self {
        use SignalProtocolError as E;
        match error {
            E::UntrustedIdentity(_) => Self::UntrustedIdentity,
            E::SignatureValidationFailed => Self::BadSignature,
            E::InvalidSessionStructure(_) | E::InvalidState(..) => Self::Inconsistent(error),
            _ => Self::Malformed,
        }
    }
}

impl EncryptError {
    pub(super) fn from_signal(error: SignalProtocolError) -> Self {
        use SignalProtocolError as E;
        match error {
            E::SessionNotFound(_) => Self::NoSession,
            E::UntrustedIdentity(_) => Self::UntrustedIdentity,
            _ => Self::Inconsistent(error),
        }
    }
}

impl DecryptError {
    pub(super) fn from_signal(error: SignalProtocolError) -> Self {
        use SignalProtocolError as E;
        match error {
            E::SessionNotFound(_) => Self::NoSession,
            E::UntrustedIdentity(_) => Self::UntrustedIdentity,
            E::DuplicatedMessage(..) => Self::Duplicate,
            // libsignal has no variant of its own for a use it was told of; the version is pinned.
            E::InvalidMessage(_, "reused base key") => Self::Duplicate,
            E::InvalidMessage(_, why) => Self::BadCiphertext(why),
            E::InvalidSessionStructure(_) | E::InvalidState(..) => Self::Inconsistent(error),
            E::InvalidProtobufEncoding => Self::BadCiphertext("not the format"),
            E::CiphertextMessageTooShort(_) => Self::BadCiphertext("too short"),
            E::LegacyCiphertextVersion(_)
            | E::UnrecognizedCiphertextVersion(_)
            | E::UnrecognizedMessageVersion(_) => Self::BadCiphertext("not a version in use"),
            _ => Self::BadCiphertext("holds bytes that are no key"),
        }
    }

    pub(super) fn from_prekey(error: SignalProtocolError, wanted: &WantedPrekeys) -> Self {
        use SignalProtocolError as E;
        let (kind, id) = match error {
            E::InvalidPreKeyId => (PrekeyKind::OneTime, wanted.one_time.unwrap_or_default()),
            E::InvalidSignedPreKeyId => (PrekeyKind::Signed, wanted.signed),
            E::InvalidKyberPreKeyId => (PrekeyKind::Kyber, wanted.kyber.kyber_id),
            other => return Self::from_signal(other),
        };
        Self::MissingPrekey { kind, id }
    }
}
