//! Variable-length integers as in RFC 9000 §16, minimal encodings only (chapter 01).
//!
//! The two top bits of the first byte say how many bytes the number takes (1, 2, 4 or 8); the rest
//! is big-endian. Values end at 2^62 - 1. An encoding longer than needed is an error, so that every
//! number has exactly one encoding.
//!
//! What this module does not do: protobuf's own varints (see [`crate::canonical`]).

use bytes::BufMut;

/// The largest number a varint can carry: 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// Why bytes are not a varint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// More bytes are needed; not an error while a stream is still open.
    #[error("varint needs {needed} bytes, has {has}")]
    Incomplete {
        /// Bytes the encoding takes.
        needed: usize,
        /// Bytes there are.
        has: usize,
    },
    /// The number would have fitted a shorter encoding.
    #[error("varint {value} is encoded in {used} bytes, more than needed")]
    NotMinimal {
        /// The number read.
        value: u64,
        /// Bytes it was encoded in.
        used: usize,
    },
    /// The number is above [`MAX`]; only encoding can meet this.
    #[error("{0} is too large for a varint")]
    TooLarge(u64),
}

/// Bytes the minimal encoding of `value` takes; `None` above [`MAX`].
#[must_use]
pub const fn len(value: u64) -> Option<usize> {
    match value {
        0..=0x3f => Some(1),
        0x40..=0x3fff => Some(2),
        0x4000..=0x3fff_ffff => Some(4),
        0x4000_0000..=MAX => Some(8),
        _ => None,
    }
}

/// Reads one varint from the start of `bytes`: the number and the bytes it took.
///
/// # Errors
/// [`VarintError::Incomplete`] if bytes are missing, [`VarintError::NotMinimal`] if too many were used.
pub fn decode(bytes: &[u8]) -> Result<(u64, usize), VarintError> {
    let Some(first) = bytes.first() else {
        return Err(VarintError::Incomplete { needed: 1, has: 0 });
    };
    let used = 1_usize << (first >> 6);
    let Some(encoded) = bytes.get(..used) else {
        return Err(VarintError::Incomplete { needed: used, has: bytes.len() });
    };
    let value =
        encoded.iter().skip(1).fold(u64::from(first & 0x3f), |sum, byte| (sum << 8) | u64::from(*byte));
    if len(value) == Some(used) { Ok((value, used)) } else { Err(VarintError::NotMinimal { value, used }) }
}

/// Appends the minimal encoding of `value`.
///
/// # Errors
/// [`VarintError::TooLarge`] above [`MAX`]; nothing is written then.
pub fn encode(value: u64, out: &mut impl BufMut) -> Result<(), VarintError> {
    let bytes = value.to_be_bytes();
    let (skip, tag) = match len(value) {
        Some(1) => (7, 0x00),
        Some(2) => (6, 0x40),
        Some(4) => (4, 0x80),
        Some(_) => (0, 0xc0),
        None => return Err(VarintError::TooLarge(value)),
    };
    for (place, byte) in bytes.iter().skip(skip).enumerate() {
        out.put_u8(if place == 0 { byte | tag } else { *byte });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, &mut out).expect("in range");
        out
    }

    #[test]
    fn examples_of_rfc_9000_read_as_stated() {
        assert_eq!(decode(&hex::decode("c2197c5eff14e88c").unwrap()), Ok((151_288_809_941_952_652, 8)));
        assert_eq!(decode(&hex::decode("9d7f3e7d").unwrap()), Ok((494_878_333, 4)));
        assert_eq!(decode(&hex::decode("7bbd").unwrap()), Ok((15_293, 2)));
        assert_eq!(decode(&[0x25]), Ok((37, 1)));
    }

    #[test]
    fn the_long_encoding_of_37_is_refused() {
        assert_eq!(decode(&[0x40, 0x25]), Err(VarintError::NotMinimal { value: 37, used: 2 }));
    }

    #[test]
    fn borders_take_the_stated_lengths() {
        for (value, length) in
            [(0, 1), (63, 1), (64, 2), (16383, 2), (16384, 4), ((1 << 30) - 1, 4), (1 << 30, 8), (MAX, 8)]
        {
            assert_eq!(encoded(value).len(), length, "{value}");
        }
        assert_eq!(encode(MAX + 1, &mut Vec::new()), Err(VarintError::TooLarge(MAX + 1)));
    }

    #[test]
    fn a_cut_varint_is_incomplete() {
        assert_eq!(decode(&[]), Err(VarintError::Incomplete { needed: 1, has: 0 }));
        assert_eq!(decode(&[0xc0, 1, 2]), Err(VarintError::Incomplete { needed: 8, has: 3 }));
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX) {
            let bytes = encoded(value);
            prop_assert_eq!(decode(&bytes), Ok((value, bytes.len())));
        }

        #[test]
        fn whatever_reads_is_its_own_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Ok((value, used)) = decode(&bytes) {
                prop_assert_eq!(encoded(value), bytes[..used].to_vec());
            }
        }
    }
}
