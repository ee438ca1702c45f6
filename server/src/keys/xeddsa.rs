//! Signatures of prekeys: XEdDSA by a Signal identity key, verified only (08-encryption, 8.1).

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::montgomery::MontgomeryPoint;
use curve25519_dalek::scalar::Scalar;
use sha2::{Digest as _, Sha512};

/// The type byte of a Curve25519 key as libsignal encodes it.
const CURVE25519: u8 = 5;

/// Whether `signature` is the identity key's over `message`.
///
/// As libsignal verifies: the sign of the Edwards point is in the top bit of the last byte, the scalar is below
/// 2^253, the equation is without cofactor.
#[must_use]
pub(super) fn verify(identity: &[u8; 33], message: &[u8], signature: &[u8]) -> bool {
    let Some((&CURVE25519, u)) = identity.split_first() else { return false };
    let (Ok(u), Ok(signature)) = (<[u8; 32]>::try_from(u), <[u8; 64]>::try_from(signature)) else {
        return false;
    };
    let (r, s) = signature.split_at(32);
    let (Ok(r), Ok(mut s)) = (<[u8; 32]>::try_from(r), <[u8; 32]>::try_from(s)) else { return false };
    let [.., top] = &mut s;
    let sign = *top >> 7;
    *top &= 0x7f;
    if *top & 0xe0 != 0 {
        return false;
    }
    let Some(point) = MontgomeryPoint(u).to_edwards(sign) else { return false };
    let hash = Sha512::new()
        .chain_update(r)
        .chain_update(point.compress().as_bytes())
        .chain_update(message)
        .finalize();
    let h = Scalar::from_bytes_mod_order_wide(&hash.into());
    let expected =
        EdwardsPoint::vartime_double_scalar_mul_basepoint(&h, &-point, &Scalar::from_bytes_mod_order(s));
    expected.compress() == CompressedEdwardsY(r)
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;

    use super::*;

    /// XEdDSA with a fixed nonce: good enough to be verified.
    fn sign(private: &Scalar, message: &[u8]) -> ([u8; 33], [u8; 64]) {
        let point = ED25519_BASEPOINT_POINT * private;
        let compressed = point.compress();
        let sign = compressed.as_bytes()[31] & 0x80;
        let nonce = Scalar::from_bytes_mod_order([7; 32]);
        let r = (ED25519_BASEPOINT_POINT * nonce).compress();
        let hash = Sha512::new()
            .chain_update(r.as_bytes())
            .chain_update(compressed.as_bytes())
            .chain_update(message)
            .finalize();
        let s = nonce + Scalar::from_bytes_mod_order_wide(&hash.into()) * private;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(r.as_bytes());
        signature[32..].copy_from_slice(s.as_bytes());
        signature[63] |= sign;
        let mut identity = [CURVE25519; 33];
        identity[1..].copy_from_slice(point.to_montgomery().as_bytes());
        (identity, signature)
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        for seed in 1..9 {
            let private = Scalar::from_bytes_mod_order([seed; 32]);
            let (identity, signature) = sign(&private, b"prekey");
            assert!(verify(&identity, b"prekey", &signature));
            assert!(!verify(&identity, b"prekez", &signature));
            let (other, _) = sign(&Scalar::from_bytes_mod_order([seed + 1; 32]), b"prekey");
            assert!(!verify(&other, b"prekey", &signature));
            let mut damaged = signature;
            damaged[40] ^= 1;
            assert!(!verify(&identity, b"prekey", &damaged));
            damaged = signature;
            damaged[63] |= 0x60;
            assert!(!verify(&identity, b"prekey", &damaged), "a scalar that is too large");
            assert!(!verify(&identity, b"prekey", &signature[..63]));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            identity in proptest::array::uniform32(proptest::num::u8::ANY),
            signature in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
        ) {
            let mut key = [CURVE25519; 33];
            key[1..].copy_from_slice(&identity);
            proptest::prop_assert!(!verify(&key, b"prekey", &signature));
        }
    }
}
