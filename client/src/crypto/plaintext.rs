//! What stands inside a ciphertext, and the commitment beside it (spec 08-encryption, 8.2 and 8.3).
//!
//! ```text
//! plaintext = header length, 4 bytes big-endian ‖ header ‖ content length, 4 bytes big-endian ‖ content
//!             ‖ 80 ‖ 00 … 00      up to the next multiple of 160 bytes (ISO/IEC 7816-4)
//! c         = HMAC-SHA-256(franking key, header length, 4 bytes big-endian ‖ header ‖ content)
//! ```
//!
//! The padding is 1 to 160 bytes, so there is exactly one plaintext for a header and a content.
//!
//! What this module deliberately does not do: read header or content, which are messages of
//! `tidings.v1`, or make the home's tag over `c`.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Plaintexts are padded to a multiple of this many bytes (limit `plaintext_block_bytes`).
pub const PLAINTEXT_BLOCK_BYTES: usize = 160;

/// Bytes of the length before each part.
const LENGTH_BYTES: usize = 4;
const PAD_START: u8 = 0x80;

/// Why a plaintext cannot be made or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaintextError {
    /// A part's length does not fit its field.
    #[error("a part of {0} bytes does not fit its length field")]
    TooLong(usize),
    /// The length is no multiple of [`PLAINTEXT_BLOCK_BYTES`].
    #[error("a plaintext of {0} bytes is not whole blocks")]
    NotWholeBlocks(usize),
    /// The padding is not 80 and at most 159 zeros.
    #[error("the padding of the plaintext is malformed")]
    BadPadding,
    /// A part is said to be longer than what is there.
    #[error("the plaintext ends within its header or content")]
    Truncated,
    /// Something stands between the content and the padding.
    #[error("the plaintext goes on behind its content")]
    Trailing,
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
/// [`PlaintextError::TooLong`] for a part of 4 GiB or more.
pub fn seal_plaintext(header: &[u8], content: &[u8]) -> Result<Vec<u8>, PlaintextError> {
    let mut plaintext = Vec::new();
    for part in [header, content] {
        let length = u32::try_from(part.len()).map_err(|_| PlaintextError::TooLong(part.len()))?;
        plaintext.extend_from_slice(&length.to_be_bytes());
        plaintext.extend_from_slice(part);
    }
    plaintext.push(PAD_START);
    plaintext.resize(plaintext.len().next_multiple_of(PLAINTEXT_BLOCK_BYTES), 0);
    Ok(plaintext)
}

/// Takes a decrypted plaintext apart again.
///
/// # Errors
/// Any [`PlaintextError`] but `TooLong`; the message then counts as undecryptable (ENC-011).
pub fn open_plaintext(plaintext: &[u8]) -> Result<Plaintext<'_>, PlaintextError> {
    if plaintext.is_empty() || !plaintext.len().is_multiple_of(PLAINTEXT_BLOCK_BYTES) {
        return Err(PlaintextError::NotWholeBlocks(plaintext.len()));
    }
    let start = plaintext.iter().rposition(|byte| *byte != 0).ok_or(PlaintextError::BadPadding)?;
    let (body, padding) = plaintext.split_at(start);
    if padding.first() != Some(&PAD_START) || padding.len() > PLAINTEXT_BLOCK_BYTES {
        return Err(PlaintextError::BadPadding);
    }
    let (header, rest) = part(body)?;
    let (content, rest) = part(rest)?;
    if !rest.is_empty() {
        return Err(PlaintextError::Trailing);
    }
    Ok(Plaintext { header, content })
}

/// The first part of these bytes, and what is behind it.
fn part(bytes: &[u8]) -> Result<(&[u8], &[u8]), PlaintextError> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(PlaintextError::Truncated)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| PlaintextError::Truncated)?;
    rest.split_at_checked(length).ok_or(PlaintextError::Truncated)
}

/// The commitment `c` that stands beside the ciphertexts, the same for all devices (ENC-020).
#[must_use]
pub fn commitment(franking_key: &[u8; 32], header: &[u8], content: &[u8]) -> [u8; 32] {
    commit(franking_key, header, content).finalize().into_bytes().into()
}

/// Whether `c` is the commitment to this header and content; the comparison takes the same time
/// for any difference. A message for which this is false counts as undecryptable (ENC-021).
#[must_use]
pub fn verify_commitment(franking_key: &[u8; 32], plaintext: Plaintext<'_>, c: &[u8]) -> bool {
    commit(franking_key, plaintext.header, plaintext.content).verify_slice(c).is_ok()
}

fn commit(franking_key: &[u8; 32], header: &[u8], content: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(franking_key).expect("HMAC takes a key of any length");
    // The length says where the header ends: the same bytes cut elsewhere are another message. A header that is
    // longer than any plaintext's has no such length, and nothing sealed fits it.
    mac.update(&u32::try_from(header.len()).unwrap_or(u32::MAX).to_be_bytes());
    mac.update(header);
    mac.update(content);
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn padding_hides_lengths_within_a_block() {
        // Twice 4 bytes of length and at least one of padding: 151 is the most that fits one block.
        assert_eq!(seal_plaintext(b"", b"").unwrap().len(), 160);
        assert_eq!(seal_plaintext(&[7; 100], &[7; 51]).unwrap().len(), 160);
        assert_eq!(seal_plaintext(&[7; 100], &[7; 52]).unwrap().len(), 320);
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
    fn nothing_stands_between_the_content_and_the_padding() {
        let mut plaintext = seal_plaintext(b"header", b"content").unwrap();
        // The padding begins one byte later: the byte before it belongs to no part.
        let end = 4 + 6 + 4 + 7;
        plaintext[end] = 1;
        plaintext[end + 1] = 0x80;
        assert_eq!(open_plaintext(&plaintext), Err(PlaintextError::Trailing));
    }

    #[test]
    fn a_commitment_binds_key_header_and_content() {
        let c = commitment(&[1; 32], b"head", b"content");
        assert!(verify_commitment(&[1; 32], Plaintext { header: b"head", content: b"content" }, &c));
        assert!(!verify_commitment(&[2; 32], Plaintext { header: b"head", content: b"content" }, &c));
        assert!(!verify_commitment(&[1; 32], Plaintext { header: b"Head", content: b"content" }, &c));
        assert!(!verify_commitment(&[1; 32], Plaintext { header: b"head", content: b"Content" }, &c));
        assert!(!verify_commitment(&[1; 32], Plaintext { header: b"head", content: b"content" }, &c[..31]));
    }

    #[test]
    fn a_commitment_binds_the_cut_between_header_and_content() {
        let c = commitment(&[1; 32], b"head", b"content");
        for (header, content) in
            [(&b"headc"[..], &b"ontent"[..]), (b"hea", b"dcontent"), (b"", b"headcontent")]
        {
            assert!(!verify_commitment(&[1; 32], Plaintext { header, content }, &c));
        }
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
