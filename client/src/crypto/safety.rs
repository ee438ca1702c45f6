//! Safety numbers: how two people make sure that no server is between them (settled 24).
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
/// For each account, `h_1 = SHA-512("tidings/1" 00 "safety-number" 00 ‖ id)` and
/// `h_{i+1} = SHA-512(h_i ‖ id)` up to `h_5200`; each of the first six groups of five bytes, as a
/// big-endian number modulo 100,000, is one group of digits. The smaller string stands first.
#[must_use]
pub fn safety_number(one: AccountId, other: AccountId) -> String {
    let (one, other) = (digits(one), digits(other));
    if one <= other { format!("{one} {other}") } else { format!("{other} {one}") }
}

fn digits(account: AccountId) -> String {
    let mut hash = Sha512::new().chain_update(LABEL).chain_update(account.as_bytes()).finalize();
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

/// What one side shows as a QR code.
///
/// As bytes: 01 ‖ own account id ‖ own head ‖ the other's account id ‖ the other's head as known
/// here; ids and heads are 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafetyQr {
    /// The account of the side that shows the code.
    pub own: AccountId,
    /// The head of its chain.
    pub own_head: LinkId,
    /// The account it believes to talk to.
    pub other: AccountId,
    /// The head of that chain as this side verified it.
    pub other_head: LinkId,
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
    /// The bytes to show as a code.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![QR_VERSION];
        bytes.extend_from_slice(self.own.as_bytes());
        bytes.extend_from_slice(self.own_head.as_bytes());
        bytes.extend_from_slice(self.other.as_bytes());
        bytes.extend_from_slice(self.other_head.as_bytes());
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
        let [own, own_head, other, other_head] = parts else {
            return Err(QrError::NotACode);
        };
        Ok(Self {
            own: AccountId(*own),
            own_head: LinkId(*own_head),
            other: AccountId(*other),
            other_head: LinkId(*other_head),
        })
    }

    /// Compares the code scanned from the other side with this side's own. The result lists the
    /// heads that differ: verified only if the caller finds that of each pair one extends the
    /// other. Empty: all is equal.
    ///
    /// # Errors
    /// [`QrError::OtherAccounts`].
    pub fn compare(&self, scanned: &Self) -> Result<Vec<HeadPair>, QrError> {
        if self.own != scanned.other || self.other != scanned.own {
            return Err(QrError::OtherAccounts);
        }
        let pairs = [
            HeadPair { account: self.own, here: self.own_head, scanned: scanned.other_head },
            HeadPair { account: self.other, here: self.other_head, scanned: scanned.own_head },
        ];
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
    fn codes_of_both_sides_match_and_differing_heads_are_named() {
        let ann = SafetyQr { own: ANN, own_head: LinkId([3; 32]), other: BEN, other_head: LinkId([4; 32]) };
        let mut ben =
            SafetyQr { own: BEN, own_head: LinkId([4; 32]), other: ANN, other_head: LinkId([3; 32]) };
        let scanned = SafetyQr::from_bytes(&ben.to_bytes()).unwrap();
        assert_eq!(ann.compare(&scanned), Ok(vec![]));
        ben.own_head = LinkId([5; 32]);
        let pair = HeadPair { account: BEN, here: LinkId([4; 32]), scanned: LinkId([5; 32]) };
        assert_eq!(ann.compare(&ben), Ok(vec![pair]));
        ben.other = AccountId([9; 32]);
        assert_eq!(ann.compare(&ben), Err(QrError::OtherAccounts));
    }

    #[test]
    fn what_is_no_code_is_refused() {
        assert_eq!(SafetyQr::from_bytes(&[]), Err(QrError::NotACode));
        assert_eq!(SafetyQr::from_bytes(&[1; QR_BYTES - 1]), Err(QrError::NotACode));
        assert_eq!(SafetyQr::from_bytes(&[1; QR_BYTES + 32]), Err(QrError::NotACode));
        assert_eq!(SafetyQr::from_bytes(&[2; QR_BYTES]), Err(QrError::Version(2)));
    }
}
