//! Identifiers: fixed-length byte strings that cannot be mixed up (chapters 01, 04, 05).
//!
//! All print as lower-case hexadecimal and read back from exactly that; `Debug` prints the first
//! eight digits, enough to follow a log.
//!
//! What this module does not do: say how an id comes about ([`crate::chain`], [`crate::sign`]).

use std::fmt;
use std::str::FromStr;

/// Why something is not an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the length this kind of identifier has.
    #[error("{what} takes {expected} bytes, got {got}")]
    Length {
        /// Which kind of identifier.
        what: &'static str,
        /// Its length.
        expected: usize,
        /// The length that came.
        got: usize,
    },
    /// Not lower-case hexadecimal.
    #[error("{0} is not lower-case hexadecimal")]
    NotHex(&'static str),
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// Bytes one takes.
            pub const LEN: usize = $length;
            /// All bytes zero: "none" where the specification says so.
            pub const ZERO: Self = Self([0; $length]);

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $length] {
                &self.0
            }

            /// The bytes, owned: what message fields take.
            #[must_use]
            pub fn to_vec(&self) -> Vec<u8> {
                self.0.to_vec()
            }

            /// The bytes as a cheap shared buffer: what message fields of type `Bytes` take.
            #[must_use]
            pub fn to_bytes(&self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }

            /// Whether all bytes are zero.
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0 == [0; $length]
            }

            /// Reads a field that may be empty for "none".
            ///
            /// # Errors
            /// [`IdError::Length`] if it is neither empty nor whole.
            pub fn optional(bytes: &[u8]) -> Result<Option<Self>, IdError> {
                if bytes.is_empty() { Ok(None) } else { Self::try_from(bytes).map(Some) }
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                let length = IdError::Length { what: stringify!($name), expected: $length, got: bytes.len() };
                bytes.try_into().map(Self).map_err(|_| length)
            }
        }

        impl TryFrom<&Vec<u8>> for $name {
            type Error = IdError;

            fn try_from(bytes: &Vec<u8>) -> Result<Self, IdError> {
                Self::try_from(bytes.as_slice())
            }
        }

        impl TryFrom<&bytes::Bytes> for $name {
            type Error = IdError;

            fn try_from(bytes: &bytes::Bytes) -> Result<Self, IdError> {
                Self::try_from(bytes.as_ref())
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}(", stringify!($name))?;
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, "..)")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(IdError::NotHex(stringify!($name)));
                }
                let bytes = hex::decode(text).map_err(|_| IdError::NotHex(stringify!($name)))?;
                Self::try_from(bytes.as_slice())
            }
        }
    };
}

macro_rules! of_hash {
    ($($name:ident),*) => {$(
        impl From<Hash> for $name {
            fn from(hash: Hash) -> Self {
                Self(hash.0)
            }
        }

        impl From<$name> for Hash {
            fn from(id: $name) -> Self {
                Self(id.0)
            }
        }
    )*};
}

id!(
    /// A SHA-256 digest.
    Hash, 32
);
id!(
    /// An account: the id of the genesis link of its chain.
    AccountId, 32
);
id!(
    /// A server: the id of the genesis link of its chain.
    ServerId, 32
);
id!(
    /// A device: the id of the link that put it on its account's list (the genesis for the first).
    DeviceId, 32
);
id!(
    /// A group: the id of the genesis link of its chain.
    GroupId, 32
);
id!(
    /// A link of a chain.
    LinkId, 32
);
id!(
    /// A key: SHA-256 over its algorithm byte and its bytes.
    KeyId, 32
);
id!(
    /// A message: 16 random bytes chosen by its sender's device.
    MessageId, 16
);
id!(
    /// One life of a writer of logs; a writer that lost state takes a new one.
    Incarnation, 16
);

of_hash!(AccountId, ServerId, DeviceId, LinkId, KeyId, GroupId);

impl From<LinkId> for AccountId {
    fn from(id: LinkId) -> Self {
        Self(id.0)
    }
}

impl From<LinkId> for ServerId {
    fn from(id: LinkId) -> Self {
        Self(id.0)
    }
}

impl From<LinkId> for GroupId {
    fn from(id: LinkId) -> Self {
        Self(id.0)
    }
}

impl From<LinkId> for DeviceId {
    fn from(id: LinkId) -> Self {
        Self(id.0)
    }
}

impl From<DeviceId> for LinkId {
    fn from(id: DeviceId) -> Self {
        Self(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debug_is_short_and_display_whole() {
        let id = MessageId([0xab; 16]);
        assert_eq!(format!("{id:?}"), "MessageId(abababab..)");
        assert_eq!(id.to_string(), "ab".repeat(16));
    }

    #[test]
    fn wrong_lengths_and_digits_are_refused() {
        assert!(matches!(
            AccountId::try_from(&[0_u8; 31][..]),
            Err(IdError::Length { expected: 32, got: 31, .. })
        ));
        assert_eq!("AB".repeat(16).parse::<MessageId>(), Err(IdError::NotHex("MessageId")));
        assert_eq!("abc".parse::<MessageId>(), Err(IdError::NotHex("MessageId")));
        assert_eq!(Hash::optional(&[]), Ok(None));
        assert!(Hash::optional(&[1]).is_err());
    }

    proptest! {
        #[test]
        fn text_round_trip(bytes: [u8; 32]) {
            prop_assert_eq!(DeviceId(bytes).to_string().parse(), Ok(DeviceId(bytes)));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,80}") {
            let _ = text.parse::<LinkId>();
        }
    }
}
