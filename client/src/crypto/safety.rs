//! Safety numbers: how two people make sure that no server is between them (spec 08-encryption, 8.6).
//!
//! The digits cover the two account ids, which are hashes over the first keys of the chains, so
//! they survive added devices, a rotated recovery key and a move. They do not show a fork of a
//! chain; the QR form carries the heads and does.
//!
//! What this module deliberately does not do: say whether one head extends another (the chains do).

use std::fmt::Write as _;

use sha2::{Digest, Sha512};
use tidings_proto::id::{AccountId, LinkId};

/// How often an account's digits are hashed, as libsignal does: it makes searching for an account
/// with the same first digits dear.
const ITERATIONS: usize = 5_200;
const LABEL: &[u8] = b"tidings/1\0safety-number\0";
/// Groups of five digits for each account.
const GROUPS: usize = 6;
const QR_VERSION: u8 = 1;
/// Bytes of a QR payload: a version, and account id and head of both sides.
pub const QR_BYTES: usize = 129;

/// The 60 digits both sides compare, as twelve groups of five with spaces between; the same
/// whichever account is named first.
///
/// For each account, `h_0 = "tidings/1" 00 "safety-number" 00 ‖ id` and `h_{k+1} = SHA-512(h_k ‖ id)` up to
/// `h_5200`; each of the first six groups of five bytes, as a big-endian number modulo 100,000, is one group of
/// digits. Those of the lower id stand first.
#[must_use]
pub fn safety_number(one: AccountId, other: AccountId) -> String {
    let (lower, higher) = if one.as_bytes() <= other.as_bytes() { (one, other) } else { (other, one) };
    format!("{} {}", digits(lower), digits(higher))
}

fn digits(account: AccountId) -> String {
    let labelled = Sha512::new().chain_update(LABEL).chain_update(account.as_bytes());
    let mut hash = labelled.chain_update(account.as_bytes()).finalize();
    for _ in 1..ITERATIONS {
        hash = Sha512::new().chain_update(hash).chain_update(account.as_bytes()).finalize();
    }
    let mut digits = String::new();
    for group in hash.chunks_exact(5).take(GROUPS) {
        let number = group.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)) % 100_000;
        let space = if digits.is_empty() { "" } else { " " };
        write!(digits, "{space}{number:05}").expect("a string takes what is written to it");
    }
    digits
}

/// What one side shows as a QR code; the same on both sides if nobody is between them.
///
/// As bytes: 01 ‖ lower account id ‖ its head ‖ higher account id ‖ its head; ids and heads are 32 bytes, and the
/// heads are those that the side which shows it has verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafetyQr {
    lower: (AccountId, LinkId),
    higher: (AccountId, LinkId),
}

/// Two heads of one account's chain that differ. One must extend the other; if neither does, the
/// chain is forked and the verification has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadPair {
    /// Whose chain.
    pub account: AccountId,
    /// The head known here.
    pub here: LinkId,
    /// The head in the scanned code.
    pub scanned: LinkId,
}

/// Why a scanned code does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QrError {
    /// Not a code of this kind.
    #[error("not a safety code")]
    NotACode,
    /// A version this client does not know.
    #[error("safety code of version {0}, this client knows {QR_VERSION}")]
    Version(u8),
    /// The other side sees other accounts: wrong person, or someone is in between.
    #[error("the safety code is for other accounts")]
    OtherAccounts,
}

impl SafetyQr {
    /// The code of two accounts with the heads that are known here, in either order.
    #[must_use]
    pub fn new(one: (AccountId, LinkId), other: (AccountId, LinkId)) -> Self {
        let ordered = one.0.as_bytes() <= other.0.as_bytes();
        let (lower, higher) = if ordered { (one, other) } else { (other, one) };
        Self { lower, higher }
    }

    /// The bytes to show as a code.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![QR_VERSION];
        for (account, head) in [self.lower, self.higher] {
            bytes.extend_from_slice(account.as_bytes());
            bytes.extend_from_slice(head.as_bytes());
        }
        bytes
    }

    /// Reads scanned bytes.
    ///
    /// # Errors
    /// [`QrError::NotACode`] or [`QrError::Version`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, QrError> {
        let (version, rest) = bytes.split_first().ok_or(QrError::NotACode)?;
        if *version != QR_VERSION {
            return Err(QrError::Version(*version));
        }
        let (parts, []) = rest.as_chunks::<32>() else {
            return Err(QrError::NotACode);
        };
        let [lower, lower_head, higher, higher_head] = parts else {
            return Err(QrError::NotACode);
        };
        if lower >= higher {
            return Err(QrError::NotACode);
        }
        let side = |id: &[u8; 32], head: &[u8; 32]| (AccountId(*id), LinkId(*head));
        Ok(Self { lower: side(lower, lower_head), higher: side(higher, higher_head) })
    }

    /// Compares the code scanned from the other side with this side's own. The result lists the
    /// heads that differ: verified only if the caller finds that of each pair one extends the
    /// other. Empty: all is equal.
    ///
    /// # Errors
    /// [`QrError::OtherAccounts`].
    pub fn compare(&self, scanned: &Self) -> Result<Vec<HeadPair>, QrError> {
        if self.lower.0 != scanned.lower.0 || self.higher.0 != scanned.higher.0 {
            return Err(QrError::OtherAccounts);
        }
        let pair = |here: (AccountId, LinkId), scanned: (AccountId, LinkId)| HeadPair {
            account: here.0,
            here: here.1,
            scanned: scanned.1,
        };
        let pairs = [pair(self.lower, scanned.lower), pair(self.higher, scanned.higher)];
        Ok(pairs.into_iter().filter(|pair| pair.here != pair.scanned).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: AccountId = AccountId([1; 32]);
    const BEN: AccountId = AccountId([2; 32]);

    #[test]
    fn a_safety_number_is_sixty_digits_in_either_order() {
        let number = safety_number(ANN, BEN);
        assert_eq!(number, safety_number(BEN, ANN));
        assert_eq!(number.chars().filter(char::is_ascii_digit).count(), 60);
        assert_eq!(number.split(' ').count(), 12);
        assert_ne!(number, safety_number(ANN, AccountId([3; 32])));
    }

    #[test]
    fn the_digits_of_the_lower_id_stand_first() {
        let number = safety_number(BEN, ANN);
        assert!(number.starts_with(&digits(ANN)) && number.ends_with(&digits(BEN)));
    }

    #[test]
    fn codes_of_both_sides_match_and_differing_heads_are_named() {
        let head = |byte| LinkId([byte; 32]);
        let ann = SafetyQr::new((ANN, head(3)), (BEN, head(4)));
        let ben = SafetyQr::new((BEN, head(4)), (ANN, head(3)));
        assert_eq!(ann.to_bytes(), ben.to_bytes());
        let scanned = SafetyQr::from_bytes(&ben.to_bytes()).unwrap();
        assert_eq!(ann.compare(&scanned), Ok(vec![]));
        let newer = SafetyQr::new((BEN, head(5)), (ANN, head(3)));
        let pair = HeadPair { account: BEN, here: head(4), scanned: head(5) };
        assert_eq!(ann.compare(&newer), Ok(vec![pair]));
        let others = SafetyQr::new((BEN, head(5)), (AccountId([9; 32]), head(3)));
        assert_eq!(ann.compare(&others), Err(QrError::OtherAccounts));
    }

    #[test]
    fn what_is_no_code_is_refused() {
        assert_eq!(SafetyQr::from_bytes(&[]), Err(QrError::NotACode));
        assert_eq!(SafetyQr::from_bytes(&[1; QR_BYTES - 1]), Err(QrError::NotACode));
        assert_eq!(SafetyQr::from_bytes(&[1; QR_BYTES + 32]), Err(QrError::NotACode));
        assert_eq!(SafetyQr::from_bytes(&[2; QR_BYTES]), Err(QrError::Version(2)));
        assert_eq!(SafetyQr::from_bytes(&[1; QR_BYTES]), Err(QrError::NotACode), "the same id twice");
    }
}
