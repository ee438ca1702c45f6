//! Whatever a peer or a server sends: an error, never a panic.

use proptest::prelude::*;
use rand::rngs::StdRng;

use super::*;

#[test]
fn mutated_messages_never_panic() {
    let (mut alice, a, mut bob, b) = established();
    let message = alice.encrypt(&b, b"message").unwrap();
    let mut carol = Device::new(3);
    let c = carol.peer();
    carol.start(&b, &bob.bundle(Some(1))).unwrap();
    let prekey = carol.encrypt(&b, b"prekey").unwrap();
    let mut rng = StdRng::seed_from_u64(5);
    for n in 0..600 {
        let (from, original) = if n % 2 == 0 { (&a, &message) } else { (&c, &prekey) };
        let mut mutated = original.clone();
        for _ in 0..=rng.next_u32() % 3 {
            // Mostly the front, where the structure is.
            let range = if rng.next_u32() % 2 == 0 { 64 } else { mutated.bytes.len() };
            let at = rng.next_u32() as usize % range.min(mutated.bytes.len());
            mutated.bytes[at] = rng.next_u32() as u8;
        }
        if rng.next_u32() % 8 == 0 {
            mutated.bytes.truncate(rng.next_u32() as usize % original.bytes.len());
        }
        let pairwise = Pairwise { local: &bob.local, peer: from, records: &bob.records };
        let _ = wanted_prekeys(mutated.kind, &mutated.bytes);
        let _ = pairwise.decrypt(mutated.kind, &mutated.bytes, &mut bob.rng);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_never_panic_in_decrypt(
        version in prop::option::of(prop::sample::select(vec![0x33_u8, 0x44])),
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        thread_local! {
            static WORLD: (Device, PeerDevice, Device, PeerDevice) = established();
        }
        if let (Some(version), Some(first)) = (version, bytes.first_mut()) {
            *first = version;
        }
        WORLD.with(|(_, a, bob, _)| {
            let pairwise = Pairwise { local: &bob.local, peer: a, records: &bob.records };
            let mut rng = StdRng::seed_from_u64(2);
            prop_assert!(pairwise.decrypt(CiphertextKind::Prekey, &bytes, &mut rng).is_err());
            prop_assert!(pairwise.decrypt(CiphertextKind::Message, &bytes, &mut rng).is_err());
            Ok(())
        })?;
    }

    #[test]
    fn arbitrary_keys_in_a_bundle_never_panic(key in prop::collection::vec(any::<u8>(), 0..40)) {
        let (alice, bob) = (Device::new(1), Device::new(2));
        let mut bundle = bob.bundle(Some(0));
        bundle.signed.public = key;
        let peer = bob.peer();
        let pairwise = Pairwise { local: &alice.local, peer: &peer, records: &alice.records };
        prop_assert!(pairwise.start_session(&bundle, NOW, &mut StdRng::seed_from_u64(2)).is_err());
    }
}
