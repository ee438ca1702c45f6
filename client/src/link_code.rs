//! The code that one device shows and another reads, and the sealing of what they then say to each
//! other through their home (spec 05-accounts, "Linking"). Pure.
//!
//! The home carries the blobs and cannot change one: each has a MAC under the secret that only the
//! code carries. The six digits catch a code that somebody else read along.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use tidings_proto::name::Domain;

const VERSION: u8 = 1;
const LABEL: &[u8] = b"tidings/1\0link-code\0";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const MAC_BYTES: usize = 32;

/// What a person carries from the existing device to the new one, as text or QR code.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkCode {
    /// Where the two devices meet.
    pub rendezvous: [u8; 16],
    /// What seals their words; never leaves the two devices.
    pub secret: [u8; 16],
    /// The home at which they meet.
    pub domain: Domain,
}

/// Why a text is not a linking code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkCodeError {
    /// There is no `@` between code and domain.
    #[error("a linking code ends with @ and the home's domain")]
    NoDomain,
    /// The part after the `@` is not a domain.
    #[error("the part after the @ is not a domain")]
    Domain,
    /// A character that the alphabet does not have, or the wrong length.
    #[error("the code is not complete or has a character that no code has")]
    Code,
    /// A newer kind of code.
    #[error("this code needs a newer version of the program")]
    Version,
}

impl fmt::Debug for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkCode").field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl fmt::Display for LinkCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.rendezvous);
        bytes.extend_from_slice(&self.secret);
        write!(f, "{}@{}", base32(&bytes), self.domain)
    }
}

impl FromStr for LinkCode {
    type Err = LinkCodeError;

    fn from_str(text: &str) -> Result<Self, LinkCodeError> {
        let (code, domain) = text.trim().split_once('@').ok_or(LinkCodeError::NoDomain)?;
        let domain = Domain::parse(domain).map_err(|_| LinkCodeError::Domain)?;
        let bytes = unbase32(code).ok_or(LinkCodeError::Code)?;
        let (&version, rest) = bytes.split_first().ok_or(LinkCodeError::Code)?;
        if version != VERSION {
            return Err(LinkCodeError::Version);
        }
        let (rendezvous, secret) = rest.split_at_checked(16).ok_or(LinkCodeError::Code)?;
        Ok(Self {
            rendezvous: rendezvous.try_into().map_err(|_| LinkCodeError::Code)?,
            secret: secret.try_into().map_err(|_| LinkCodeError::Code)?,
            domain,
        })
    }
}

/// Which way a sealed word goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the new device to the existing one.
    ToExisting = 1,
    /// From the existing device to the new one.
    ToNew = 2,
}

impl LinkCode {
    fn mac(&self, direction: Direction, sequence: u8, message: &[u8]) -> Hmac<Sha256> {
        let mut derive = hmac(&self.secret);
        derive.update(LABEL);
        derive.update(&self.rendezvous);
        let mut mac = hmac(&derive.finalize().into_bytes());
        mac.update(&[direction as u8, sequence]);
        mac.update(message);
        mac
    }

    /// Seals a word; `sequence` is 1 for LinkOffer, 2 for LinkDraft, 3 for LinkConsent, 4 for LinkDone.
    #[must_use]
    pub fn seal(&self, direction: Direction, sequence: u8, message: &[u8]) -> Vec<u8> {
        let mut blob = self.mac(direction, sequence, message).finalize().into_bytes().to_vec();
        blob.extend_from_slice(message);
        blob
    }

    /// Opens a blob; `None` if it was not sealed with this code for this place.
    #[must_use]
    pub fn open<'a>(&self, direction: Direction, sequence: u8, blob: &'a [u8]) -> Option<&'a [u8]> {
        let (mac, message) = blob.split_at_checked(MAC_BYTES)?;
        self.mac(direction, sequence, message).verify_slice(mac).ok()?;
        Some(message)
    }

    /// The six digits both devices show, from the keys each believes the other to have.
    #[must_use]
    pub fn digits(&self, existing_key: &[u8], new_key: &[u8], new_identity: &[u8]) -> String {
        let mut hash = Sha256::new();
        for part in [LABEL, &self.secret, existing_key, new_key, new_identity] {
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, ..] = digest;
        format!("{:06}", u32::from_be_bytes([a, b, c, d]) % 1_000_000)
    }
}

fn hmac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes a key of any length")
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for &byte in bytes {
        held = held << 8 | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0_u32, 0_u32);
    for symbol in text.bytes() {
        let value = ALPHABET.iter().position(|&known| known == symbol)?;
        held = held << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
            held &= (1 << bits) - 1;
        }
    }
    // What is left over carries nothing: one text for one code.
    (bits < 5 && held == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code() -> LinkCode {
        LinkCode {
            rendezvous: [7; 16],
            secret: [9; 16],
            domain: Domain::parse("a.example").expect("a domain"),
        }
    }

    #[test]
    fn a_blob_opens_only_in_its_own_place() {
        let blob = code().seal(Direction::ToNew, 0, b"draft");
        assert_eq!(code().open(Direction::ToNew, 0, &blob), Some(&b"draft"[..]));
        assert_eq!(code().open(Direction::ToNew, 1, &blob), None);
        assert_eq!(code().open(Direction::ToExisting, 0, &blob), None);
        let other = LinkCode { secret: [8; 16], ..code() };
        assert_eq!(other.open(Direction::ToNew, 0, &blob), None);
        assert_eq!(code().open(Direction::ToNew, 0, &blob[..31]), None);
    }

    #[test]
    fn the_digits_depend_on_every_key() {
        let digits = code().digits(b"existing", b"new", b"identity");
        assert_eq!(digits.len(), 6);
        assert_ne!(digits, code().digits(b"existing", b"other", b"identity"));
        assert_ne!(digits, code().digits(b"existing", b"new", b"forged"));
    }

    #[test]
    fn what_is_not_a_code_says_why() {
        assert_eq!("abc".parse::<LinkCode>(), Err(LinkCodeError::NoDomain));
        assert_eq!("abc@A".parse::<LinkCode>(), Err(LinkCodeError::Domain));
        assert_eq!("!@a.example".parse::<LinkCode>(), Err(LinkCodeError::Code));
        let text = code().to_string().replacen('a', "b", 1);
        assert!(text.parse::<LinkCode>().is_err());
        assert_eq!(
            text.get(..9).map(|cut| format!("{cut}@a.example").parse::<LinkCode>().is_err()),
            Some(true)
        );
    }

    proptest! {
        #[test]
        fn a_code_reads_back(rendezvous: [u8; 16], secret: [u8; 16]) {
            let code = LinkCode { rendezvous, secret, ..code() };
            prop_assert_eq!(code.to_string().parse::<LinkCode>(), Ok(code));
        }

        #[test]
        fn any_text_gives_an_answer(text in ".{0,80}") {
            drop(text.parse::<LinkCode>());
        }

        #[test]
        fn base32_reads_back(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(unbase32(&base32(&bytes)), Some(bytes));
        }
    }
}
