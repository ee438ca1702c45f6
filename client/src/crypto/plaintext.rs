//! What stands inside a ciphertext, and the commitment beside it (chapter 08, settled 28, 35).
//!
//! ```text
//! body      = header length, 4 bytes big-endian ‖ header ‖ content
//! plaintext = body ‖ 80 ‖ 00 … 00      up to the next multiple of 160 bytes (ISO/IEC 7816-4)
//! c         = HMAC-SHA-256(franking key, body)
//! ```
//!
//! The padding is 1 to 160 bytes, so there is exactly one plaintext for a header and a content.
//! The commitment covers the length too: without it, one `c` would fit two ways to cut the same
//! bytes into header and content.
//!
//! What this module deliberately does not do: read header or content, which are messages of
//! `tidings.v1`, or make the home's tag over `c`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Plaintexts are padded to a multiple of this many bytes (limit `plaintext_block_bytes`).
pub const PLAINTEXT_BLOCK_BYTES: usize = 160;

/// Bytes of the length before the header.
const LENGTH_BYTES: usize = 4;
const PAD_START: u8 = 0x80;

/// Why a plaintext cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaintextError {
    /// The header's length does not fit its field.
    #[error("a header of {0} bytes does not fit its length field")]
    HeaderTooLong(usize),
    /// The length is no multiple of [`PLAINTEXT_BLOCK_BYTES`].
    #[error("a plaintext of {0} bytes is not whole blocks")]
    NotWholeBlocks(usize),
    /// The padding is not 80 and at most 159 zeros.
    #[error("the padding of the plaintext is malformed")]
    BadPadding,
    /// The header is said to be longer than what is there.
    #[error("the plaintext ends within its header")]
    Truncated,
}

/// The two parts of a plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plaintext<'a> {
    /// A serialised `PlaintextHeader`.
    pub header: &'a [u8],
    /// A serialised `Content`.
    pub content: &'a [u8],
}

/// Frames and pads a header and a content: what [`super::Pairwise::encrypt`] takes.
///
/// # Errors
/// [`PlaintextError::HeaderTooLong`] for a header of 4 GiB or more.
pub fn seal_plaintext(header: &[u8], content: &[u8]) -> Result<Vec<u8>, PlaintextError> {
    let length = u32::try_from(header.len()).map_err(|_| PlaintextError::HeaderTooLong(header.len()))?;
    let mut plaintext = Vec::new();
    plaintext.extend_from_slice(&length.to_be_bytes());
    plaintext.extend_from_slice(header);
    plaintext.extend_from_slice(content);
    plaintext.push(PAD_START);
    plaintext.resize(plaintext.len().next_multiple_of(PLAINTEXT_BLOCK_BYTES), 0);
    Ok(plaintext)
}

/// Takes a decrypted plaintext apart again.
///
/// # Errors
/// Any [`PlaintextError`] but `HeaderTooLong`; the message then counts as undecryptable.
pub fn open_plaintext(plaintext: &[u8]) -> Result<Plaintext<'_>, PlaintextError> {
    if plaintext.is_empty() || !plaintext.len().is_multiple_of(PLAINTEXT_BLOCK_BYTES) {
        return Err(PlaintextError::NotWholeBlocks(plaintext.len()));
    }
    let start = plaintext.iter().rposition(|byte| *byte != 0).ok_or(PlaintextError::BadPadding)?;
    let (body, padding) = plaintext.split_at(start);
    if padding.first() != Some(&PAD_START) || padding.len() > PLAINTEXT_BLOCK_BYTES {
        return Err(PlaintextError::BadPadding);
    }
    let (length, rest) = body.split_first_chunk::<LENGTH_BYTES>().ok_or(PlaintextError::Truncated)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| PlaintextError::Truncated)?;
    let (header, content) = rest.split_at_checked(length).ok_or(PlaintextError::Truncated)?;
    Ok(Plaintext { header, content })
}

/// The commitment `c` that stands beside the ciphertexts, the same for all devices.
///
/// # Errors
/// [`PlaintextError::HeaderTooLong`], as [`seal_plaintext`].
pub fn commitment(
    franking_key: &[u8; 32],
    header: &[u8],
    content: &[u8],
) -> Result<[u8; 32], PlaintextError> {
    Ok(commit(franking_key, header, content)?.finalize().into_bytes().into())
}

/// Whether `c` is the commitment to this header and content; the comparison takes the same time
/// for any difference. A message for which this is false counts as undecryptable.
#[must_use]
pub fn verify_commitment(franking_key: &[u8; 32], plaintext: Plaintext<'_>, c: &[u8]) -> bool {
    commit(franking_key, plaintext.header, plaintext.content).is_ok_and(|mac| mac.verify_slice(c).is_ok())
}

fn commit(franking_key: &[u8; 32], header: &[u8], content: &[u8]) -> Result<Hmac<Sha256>, PlaintextError> {
    let length = u32::try_from(header.len()).map_err(|_| PlaintextError::HeaderTooLong(header.len()))?;
    let mut mac = Hmac::<Sha256>::new_from_slice(franking_key).expect("HMAC takes a key of any length");
    mac.update(&length.to_be_bytes());
    mac.update(header);
    mac.update(content);
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padding_hides_lengths_within_a_block() {
        // 4 bytes of length and at least one of padding: 155 is the most that fits one block.
        assert_eq!(seal_plaintext(b"", b"").unwrap().len(), 160);
        assert_eq!(seal_plaintext(&[7; 100], &[7; 55]).unwrap().len(), 160);
        assert_eq!(seal_plaintext(&[7; 100], &[7; 56]).unwrap().len(), 320);
    }

    #[test]
    fn a_longer_padding_than_needed_is_refused() {
        let mut plaintext = seal_plaintext(b"header", b"content").unwrap();
        plaintext.resize(320, 0);
        assert_eq!(open_plaintext(&plaintext), Err(PlaintextError::BadPadding));
        assert_eq!(open_plaintext(&[0; 160]), Err(PlaintextError::BadPadding));
        assert_eq!(open_plaintext(&[]), Err(PlaintextError::NotWholeBlocks(0)));
    }

    #[test]
    fn a_commitment_binds_key_content_and_the_cut_between_the_parts() {
        let c = commitment(&[1; 32], b"head", b"content").unwrap();
        assert!(verify_commitment(&[1; 32], Plaintext { header: b"head", content: b"content" }, &c));
        assert!(!verify_commitment(&[2; 32], Plaintext { header: b"head", content: b"content" }, &c));
        assert!(!verify_commitment(&[1; 32], Plaintext { header: b"headc", content: b"ontent" }, &c));
        assert!(!verify_commitment(&[1; 32], Plaintext { header: b"head", content: b"content" }, &c[..31]));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(header: Vec<u8>, content: Vec<u8>) {
            let sealed = seal_plaintext(&header, &content).unwrap();
            prop_assert_eq!(open_plaintext(&sealed), Ok(Plaintext { header: &header, content: &content }));
        }

        #[test]
        fn arbitrary_plaintexts_never_panic(blocks in 0_usize..4, bytes in prop::collection::vec(any::<u8>(), 640)) {
            if let Ok(Plaintext { header, content }) = open_plaintext(&bytes[..blocks * 160]) {
                prop_assert_eq!(seal_plaintext(header, content).unwrap(), &bytes[..blocks * 160]);
            }
        }
    }
}
