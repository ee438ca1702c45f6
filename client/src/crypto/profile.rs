//! The sealed profile of a group: AES-256-GCM under a key that members have, nonce ‖ ciphertext (spec 07-groups).

use rand::CryptoRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

fn key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("a key of AES-256 has 32 bytes"))
}

/// Seals a profile with a random nonce.
pub fn seal_profile(with: &[u8; 32], profile: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    rng.fill_bytes(&mut nonce);
    let mut sealed = profile.to_vec();
    let tag = key(with)
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .expect("a profile is shorter than what AES-GCM seals at once");
    [nonce.as_slice(), &sealed, tag.as_ref()].concat()
}

/// Opens one; `None` if it was not sealed with this key.
#[must_use]
pub fn open_profile(with: &[u8; 32], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut opened = sealed.to_vec();
    let plain =
        key(with).open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::empty(), &mut opened).ok()?;
    Some(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_profile_opens_with_its_key_and_unchanged_only() {
        let mut rng = StdRng::seed_from_u64(7);
        let sealed = seal_profile(&[1; 32], b"name", &mut rng);
        assert_eq!(open_profile(&[1; 32], &sealed).as_deref(), Some(b"name".as_slice()));
        assert_eq!(open_profile(&[2; 32], &sealed), None);
        for cut in 0..sealed.len() {
            assert_eq!(open_profile(&[1; 32], &sealed[..cut]), None);
            let mut changed = sealed.clone();
            changed[cut] ^= 1;
            assert_eq!(open_profile(&[1; 32], &changed), None);
        }
        assert_ne!(sealed, seal_profile(&[1; 32], b"name", &mut rng), "never the same nonce");
    }
}
