//! Two devices that talk to each other through the public functions only.

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tidings_proto::id::DeviceId;

use super::*;

mod arbitrary;

const NOW: u64 = 1_790_000_000_000;
const DAY: u64 = 86_400_000;

/// One device with its own store.
struct Device {
    local: LocalDevice,
    id: DeviceId,
    records: Records,
    set: PrekeySet,
    rng: StdRng,
}

impl Device {
    fn new(number: u8) -> Self {
        let seed = std::env::var("TIDINGS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
        let mut rng = StdRng::seed_from_u64(seed ^ (u64::from(number) << 32));
        let identity = Identity::generate(&mut rng);
        let order = PrekeyOrder { start_id: 1, one_time: 2, rotate: true, now_ms: NOW };
        let set = generate_prekeys(&identity, &order, &mut rng).unwrap();
        let local = LocalDevice { identity, registration_id: 1 };
        Self { local, id: DeviceId([number; 32]), records: set.private.clone(), set, rng }
    }

    fn peer(&self) -> PeerDevice {
        PeerDevice { device: self.id, identity: self.local.identity.public() }
    }

    /// What the home hands out: with one-time keys, or the last resort when they are out.
    fn bundle(&self, one_time: Option<usize>) -> PrekeyBundle {
        PrekeyBundle {
            registration_id: 1,
            identity: self.local.identity.public(),
            signed: self.set.signed.clone().unwrap(),
            kyber: match one_time {
                Some(i) => self.set.one_time_kyber[i].clone(),
                None => self.set.kyber_last_resort.clone().unwrap(),
            },
            one_time: one_time.map(|i| self.set.one_time[i].clone()),
        }
    }

    fn start(&mut self, peer: &PeerDevice, bundle: &PrekeyBundle) -> Result<(), BundleError> {
        let pairwise = Pairwise { local: &self.local, peer, records: &self.records };
        let changes = pairwise.start_session(bundle, NOW, &mut self.rng)?;
        self.records.apply(&changes);
        Ok(())
    }

    fn encrypt(&mut self, peer: &PeerDevice, text: &[u8]) -> Result<Ciphertext, EncryptError> {
        let pairwise = Pairwise { local: &self.local, peer, records: &self.records };
        let (ciphertext, changes) = pairwise.encrypt(text, NOW, &mut self.rng)?;
        self.records.apply(&changes);
        Ok(ciphertext)
    }

    fn decrypt(&mut self, peer: &PeerDevice, ciphertext: &Ciphertext) -> Result<Vec<u8>, DecryptError> {
        let pairwise = Pairwise { local: &self.local, peer, records: &self.records };
        let (text, changes) = pairwise.decrypt(ciphertext.kind, &ciphertext.bytes, &mut self.rng)?;
        self.records.apply(&changes);
        Ok(text)
    }
}

/// Alice with a session started from Bob's bundle; both as peers.
fn pair(one_time: Option<usize>) -> (Device, PeerDevice, Device, PeerDevice) {
    let (mut alice, bob) = (Device::new(1), Device::new(2));
    let (a, b) = (alice.peer(), bob.peer());
    alice.start(&b, &bob.bundle(one_time)).unwrap();
    (alice, a, bob, b)
}

/// As [`pair`], and each has read one message of the other.
fn established() -> (Device, PeerDevice, Device, PeerDevice) {
    let (mut alice, a, mut bob, b) = pair(Some(0));
    let hello = alice.encrypt(&b, b"hello").unwrap();
    bob.decrypt(&a, &hello).unwrap();
    let answer = bob.encrypt(&a, b"answer").unwrap();
    alice.decrypt(&b, &answer).unwrap();
    (alice, a, bob, b)
}

#[test]
fn five_hundred_alternating_messages_arrive_and_one_time_keys_are_spent() {
    let (mut alice, a, mut bob, b) = pair(Some(0));
    for n in 0..250_u32 {
        let there = alice.encrypt(&b, &n.to_be_bytes()).unwrap();
        assert_eq!(there.kind, if n == 0 { CiphertextKind::Prekey } else { CiphertextKind::Message });
        assert_eq!(bob.decrypt(&a, &there).unwrap(), n.to_be_bytes());
        let back = bob.encrypt(&a, b"back").unwrap();
        assert_eq!(back.kind, CiphertextKind::Message);
        assert_eq!(alice.decrypt(&b, &back).unwrap(), b"back");
    }
    let (spent, spent_kyber) = (bob.set.one_time[0].id, bob.set.one_time_kyber[0].id);
    assert!(!bob.records.one_time.contains_key(&spent) && !bob.records.kyber.contains_key(&spent_kyber));
    assert_eq!(
        (bob.records.one_time.len(), bob.records.kyber.len(), bob.records.kyber_uses.len()),
        (1, 2, 0)
    );
    assert!(session_usable(&alice.records.sessions[&b.device], NOW).unwrap());
}

#[test]
fn messages_out_of_order_are_read_and_each_only_once() {
    let (mut alice, a, mut bob, b) = established();
    let sent: Vec<_> = (0..20_u8).map(|n| alice.encrypt(&b, &[n]).unwrap()).collect();
    for n in (0..20_u8).rev() {
        assert_eq!(bob.decrypt(&a, &sent[usize::from(n)]).unwrap(), [n]);
    }
    for ciphertext in &sent {
        assert!(matches!(bob.decrypt(&a, ciphertext), Err(DecryptError::Duplicate)));
    }
}

#[test]
fn a_lost_first_message_does_not_hinder_the_second_and_may_still_come() {
    let (mut alice, a, mut bob, b) = pair(Some(0));
    let first = alice.encrypt(&b, b"first").unwrap();
    let second = alice.encrypt(&b, b"second").unwrap();
    assert_eq!(second.kind, CiphertextKind::Prekey);
    assert_eq!(bob.decrypt(&a, &second).unwrap(), b"second");
    assert_eq!(bob.decrypt(&a, &first).unwrap(), b"first");
    assert!(matches!(bob.decrypt(&a, &second), Err(DecryptError::Duplicate)));
}

#[test]
fn a_failed_operation_changes_nothing() {
    let (mut alice, a, mut bob, b) = pair(Some(0));
    let mut hello = alice.encrypt(&b, b"hello").unwrap();
    let before = bob.records.clone();
    *hello.bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(bob.decrypt(&a, &hello), Err(DecryptError::BadCiphertext(_))));
    assert_eq!(bob.records, before);
    *hello.bytes.last_mut().unwrap() ^= 1;
    assert_eq!(bob.decrypt(&a, &hello).unwrap(), b"hello");
}

#[test]
fn a_tampered_message_is_bad_and_the_true_one_still_reads() {
    let (mut alice, a, mut bob, b) = established();
    let sent = alice.encrypt(&b, b"true").unwrap();
    for at in 0..sent.bytes.len() {
        let mut tampered = sent.clone();
        tampered.bytes[at] ^= 4;
        assert!(bob.decrypt(&a, &tampered).is_err(), "byte {at} is not protected");
    }
    assert_eq!(bob.decrypt(&a, &sent).unwrap(), b"true");
}

#[test]
fn a_bundle_of_another_identity_or_with_another_signature_gives_no_session() {
    let (mut alice, bob, mallory) = (Device::new(1), Device::new(2), Device::new(3));
    let b = bob.peer();
    let result = alice.start(&b, &mallory.bundle(Some(0)));
    assert!(matches!(result, Err(BundleError::UntrustedIdentity)));
    let mixed = PrekeyBundle { identity: b.identity, ..mallory.bundle(Some(0)) };
    assert!(matches!(alice.start(&b, &mixed), Err(BundleError::BadSignature)));
    let mixed = PrekeyBundle { kyber: mallory.bundle(None).kyber, ..bob.bundle(Some(0)) };
    assert!(matches!(alice.start(&b, &mixed), Err(BundleError::BadSignature)));
    let mut malformed = bob.bundle(Some(0));
    malformed.kyber.public.truncate(100);
    assert!(matches!(alice.start(&b, &malformed), Err(BundleError::Malformed)));
    assert!(alice.records.sessions.is_empty());
}

#[test]
fn a_sender_with_another_identity_than_the_chains_is_refused() {
    let (mut alice, a, mut bob, b) = pair(Some(0));
    let other = PeerDevice { identity: Device::new(3).local.identity.public(), ..a };
    let hello = alice.encrypt(&b, b"hello").unwrap();
    assert!(matches!(bob.decrypt(&other, &hello), Err(DecryptError::UntrustedIdentity)));
    assert_eq!(bob.decrypt(&a, &hello).unwrap(), b"hello");
    let answer = bob.encrypt(&a, b"answer").unwrap();
    alice.decrypt(&b, &answer).unwrap();
    // Within a session as well, in both directions.
    let next = alice.encrypt(&b, b"next").unwrap();
    assert!(matches!(bob.decrypt(&other, &next), Err(DecryptError::UntrustedIdentity)));
    assert!(matches!(bob.encrypt(&other, b"no"), Err(EncryptError::UntrustedIdentity)));
    assert_eq!(bob.decrypt(&a, &next).unwrap(), b"next");
}

#[test]
fn without_a_session_or_prekey_the_error_says_which_is_missing() {
    let (mut alice, a, mut bob, b) = established();
    let message = alice.encrypt(&b, b"message").unwrap();
    bob.records.sessions.clear();
    assert!(matches!(bob.decrypt(&a, &message), Err(DecryptError::NoSession)));
    assert!(matches!(bob.encrypt(&a, b"no"), Err(EncryptError::NoSession)));

    alice.start(&b, &bob.bundle(Some(1))).unwrap();
    let hello = alice.encrypt(&b, b"hello").unwrap();
    let wanted = wanted_prekeys(hello.kind, &hello.bytes).unwrap().unwrap();
    assert_eq!(wanted.one_time, Some(bob.set.one_time[1].id));
    assert_eq!(wanted.kyber.kyber_id, bob.set.one_time_kyber[1].id);
    let kept = bob.records.clone();
    bob.records.one_time.clear();
    let result = bob.decrypt(&a, &hello);
    assert!(matches!(result, Err(DecryptError::MissingPrekey { kind: PrekeyKind::OneTime, .. })));
    bob.records = kept.clone();
    bob.records.kyber.clear();
    let result = bob.decrypt(&a, &hello);
    assert!(matches!(result, Err(DecryptError::MissingPrekey { kind: PrekeyKind::Kyber, .. })));
    bob.records = kept;
    bob.records.signed.clear();
    let result = bob.decrypt(&a, &hello);
    assert!(
        matches!(result, Err(DecryptError::MissingPrekey { kind: PrekeyKind::Signed, id }) if id == wanted.signed)
    );
}

#[test]
fn after_a_reset_both_old_and_new_messages_are_read() {
    let (mut alice, a, mut bob, b) = established();
    let old = alice.encrypt(&b, b"old").unwrap();
    let crossing = bob.encrypt(&a, b"crossing").unwrap();
    let changes = archive_session(&alice.records, b.device).unwrap().unwrap();
    alice.records.apply(&changes);
    assert!(!session_usable(&alice.records.sessions[&b.device], NOW).unwrap());
    assert!(matches!(alice.encrypt(&b, b"no"), Err(EncryptError::NoSession)));

    alice.start(&b, &bob.bundle(Some(1))).unwrap();
    let new = alice.encrypt(&b, b"new").unwrap();
    assert_eq!(new.kind, CiphertextKind::Prekey);
    assert_eq!(bob.decrypt(&a, &new).unwrap(), b"new");
    assert_eq!(bob.decrypt(&a, &old).unwrap(), b"old");
    assert_eq!(alice.decrypt(&b, &crossing).unwrap(), b"crossing");
    for _ in 0..4 {
        let there = alice.encrypt(&b, b"there").unwrap();
        assert_eq!(bob.decrypt(&a, &there).unwrap(), b"there");
        let back = bob.encrypt(&a, b"back").unwrap();
        assert_eq!(alice.decrypt(&b, &back).unwrap(), b"back");
    }
    assert!(archive_session(&alice.records, DeviceId([9; 32])).unwrap().is_none());
}

#[test]
fn a_receiver_that_lost_its_session_recovers_by_a_new_one() {
    let (mut alice, a, mut bob, b) = established();
    bob.records.sessions.clear();
    let lost = alice.encrypt(&b, b"lost").unwrap();
    assert!(matches!(bob.decrypt(&a, &lost), Err(DecryptError::NoSession)));
    bob.start(&a, &alice.bundle(Some(0))).unwrap();
    let reset = bob.encrypt(&a, b"reset").unwrap();
    assert_eq!(alice.decrypt(&b, &reset).unwrap(), b"reset");
    let again = alice.encrypt(&b, b"lost").unwrap();
    assert_eq!(bob.decrypt(&a, &again).unwrap(), b"lost");
}

#[test]
fn the_last_resort_serves_many_sessions_but_no_replay() {
    let (mut alice, a, mut bob, b) = pair(None);
    let mut carol = Device::new(3);
    let c = carol.peer();
    carol.start(&b, &bob.bundle(None)).unwrap();
    let from_alice = alice.encrypt(&b, b"alice").unwrap();
    let from_carol = carol.encrypt(&b, b"carol").unwrap();
    assert_eq!(bob.decrypt(&a, &from_alice).unwrap(), b"alice");
    assert_eq!(bob.decrypt(&c, &from_carol).unwrap(), b"carol");
    assert_eq!((bob.records.kyber_uses.len(), bob.records.kyber.len()), (2, 3));
    // The session remembers the message; without the session, the remembered use does.
    assert!(matches!(bob.decrypt(&a, &from_alice), Err(DecryptError::Duplicate)));
    bob.records.sessions.clear();
    assert!(matches!(bob.decrypt(&a, &from_alice), Err(DecryptError::Duplicate)));
    alice.start(&b, &bob.bundle(None)).unwrap();
    let anew = alice.encrypt(&b, b"anew").unwrap();
    assert_eq!(bob.decrypt(&a, &anew).unwrap(), b"anew");
}

#[test]
fn a_second_message_of_the_same_start_is_no_replay() {
    let (mut alice, a, mut bob, b) = pair(None);
    for n in 0..3_u8 {
        let message = alice.encrypt(&b, &[n]).unwrap();
        assert_eq!(bob.decrypt(&a, &message).unwrap(), [n]);
    }
    assert_eq!(bob.records.kyber_uses.len(), 1);
}

#[test]
fn a_session_nobody_answered_for_thirty_days_is_not_used() {
    let (alice, _, _, b) = pair(Some(0));
    let mut rng = StdRng::seed_from_u64(1);
    let late = NOW + 31 * DAY;
    assert!(!session_usable(&alice.records.sessions[&b.device], late).unwrap());
    let pairwise = Pairwise { local: &alice.local, peer: &b, records: &alice.records };
    assert!(matches!(pairwise.encrypt(b"late", late, &mut rng), Err(EncryptError::NoSession)));
    assert!(pairwise.encrypt(b"absurd", u64::MAX, &mut rng).is_err());
}

#[test]
fn prekeys_number_on_and_a_refill_keeps_the_signed_ones() {
    let mut rng = StdRng::seed_from_u64(1);
    let identity = Identity::generate(&mut rng);
    let again = Identity::from_secret_bytes(&identity.to_secret_bytes()).unwrap();
    assert_eq!(again.public(), identity.public());
    assert_eq!(Identity::from_secret_bytes(&[1; 31]).unwrap_err(), IdentityError);

    let refill = PrekeyOrder { start_id: 10, one_time: 3, rotate: false, now_ms: NOW };
    let set = generate_prekeys(&identity, &refill, &mut rng).unwrap();
    assert!(set.signed.is_none() && set.kyber_last_resort.is_none());
    assert_eq!((set.next_id, set.one_time.len(), set.one_time_kyber.len()), (16, 3, 3));
    assert_eq!((set.one_time[0].public.len(), set.one_time_kyber[0].public.len()), (33, 1569));
    let exhausted = PrekeyOrder { start_id: u32::MAX - 5, ..refill };
    assert_eq!(
        generate_prekeys(&identity, &exhausted, &mut rng),
        Err(PrekeyError::IdsExhausted(u32::MAX - 5))
    );
    let many = PrekeyOrder { one_time: PREKEYS_PER_CALL_MAX + 1, ..refill };
    assert_eq!(
        generate_prekeys(&identity, &many, &mut rng),
        Err(PrekeyError::TooMany(PREKEYS_PER_CALL_MAX + 1))
    );
}

#[test]
fn equal_randomness_gives_equal_ciphertexts() {
    let ((mut one, _, _, b), (mut other, ..)) = (pair(Some(0)), pair(Some(0)));
    assert_eq!(one.encrypt(&b, b"vector").unwrap(), other.encrypt(&b, b"vector").unwrap());
}

#[test]
fn broken_records_of_ours_are_inconsistent_and_not_the_peers_fault() {
    let (mut alice, a, mut bob, b) = established();
    let message = alice.encrypt(&b, b"message").unwrap();
    bob.records.sessions.insert(a.device, vec![0xff; 40]);
    assert!(matches!(bob.decrypt(&a, &message), Err(DecryptError::Inconsistent(_))));
    assert!(matches!(bob.encrypt(&a, b"no"), Err(EncryptError::Inconsistent(_))));
    assert!(archive_session(&bob.records, a.device).is_err());
}
