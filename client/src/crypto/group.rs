//! Sender keys on libsignal: make, hand on, learn, encrypt, decrypt (spec 08-encryption, 8.8).
//!
//! A device has one key for each group and rotation, named by a random distribution id. What it hands on lets the
//! receiver read from the key's place at that moment on, and nothing before it.
//!
//! What this module deliberately does not do: say when to rotate or who gets a key, or store records.

use libsignal_protocol as signal;
use libsignal_protocol::{
    InMemSenderKeyStore, SenderKeyDistributionMessage, SenderKeyMessage, SenderKeyRecord,
    SenderKeyStore as _, SignalProtocolError,
};
use rand::CryptoRng;
use tidings_proto::id::DeviceId;

use super::device::{LibsignalRng, address_of};
use super::signal::run;

/// Names one rotation of one device's key: 16 random bytes.
pub type DistributionId = [u8; 16];

/// Why an operation with a sender key came to nothing; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum SenderKeyError {
    /// The key, or that rotation of it, is not here: keep the post and ask for it.
    #[error("the sender key is not here")]
    Missing,
    /// Decrypted before.
    #[error("the post was decrypted before")]
    Duplicate,
    /// Malformed, altered, or by another key.
    #[error("the post or key is bad: {0}")]
    Bad(&'static str),
    /// Our own record is unusable.
    #[error("a stored sender key is unusable")]
    Inconsistent(#[source] SignalProtocolError),
}

impl SenderKeyError {
    fn from_signal(error: SignalProtocolError) -> Self {
        use SignalProtocolError as E;
        match error {
            E::NoSenderKeyState { .. } => Self::Missing,
            E::DuplicatedMessage(..) => Self::Duplicate,
            E::InvalidMessage(_, why) => Self::Bad(why),
            E::SignatureValidationFailed => Self::Bad("the signature"),
            E::InvalidSenderKeySession { .. } | E::InvalidState(..) => Self::Inconsistent(error),
            E::InvalidProtobufEncoding => Self::Bad("not the format"),
            E::CiphertextMessageTooShort(_) => Self::Bad("too short"),
            _ => Self::Bad("not a version in use, or no key"),
        }
    }
}

/// Which rotation a post was encrypted with.
///
/// # Errors
/// [`SenderKeyError::Bad`].
pub fn distribution_of(ciphertext: &[u8]) -> Result<DistributionId, SenderKeyError> {
    let message = SenderKeyMessage::try_from(ciphertext).map_err(SenderKeyError::from_signal)?;
    Ok(message.distribution_id().into_bytes())
}

/// One rotation of one device's key, with the record that is stored of it.
#[derive(Clone, Copy)]
pub struct SenderKey<'a> {
    /// Whose.
    pub device: DeviceId,
    /// Which.
    pub distribution: DistributionId,
    /// libsignal's record, secret; none yet if it is to be learnt.
    pub record: Option<&'a [u8]>,
}

impl std::fmt::Debug for SenderKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SenderKey").field("device", &self.device).finish_non_exhaustive()
    }
}

impl SenderKey<'_> {
    /// The record of a new key of this device.
    ///
    /// # Errors
    /// [`SenderKeyError::Inconsistent`] if there is a record already that cannot be read.
    pub fn create(&self, rng: &mut impl CryptoRng) -> Result<Vec<u8>, SenderKeyError> {
        let mut store = self.store()?;
        self.hand_on_from(&mut store, rng)?;
        self.written(&store)
    }

    /// What lets another device read everything that is encrypted with this key from now on.
    ///
    /// # Errors
    /// [`SenderKeyError::Missing`] without a record.
    pub fn hand_on(&self, rng: &mut impl CryptoRng) -> Result<Vec<u8>, SenderKeyError> {
        self.record.ok_or(SenderKeyError::Missing)?;
        self.hand_on_from(&mut self.store()?, rng)
    }

    /// Takes a key that its device handed on. Gives the record.
    ///
    /// # Errors
    /// [`SenderKeyError`]; a message of another rotation is `Bad`.
    pub fn learn(&self, message: &[u8]) -> Result<Vec<u8>, SenderKeyError> {
        let message = SenderKeyDistributionMessage::try_from(message).map_err(SenderKeyError::from_signal)?;
        let named = message.distribution_id().map_err(SenderKeyError::from_signal)?;
        if named.into_bytes() != self.distribution {
            return Err(SenderKeyError::Bad("of another rotation"));
        }
        let mut store = self.store()?;
        run(signal::process_sender_key_distribution_message(&address_of(self.device), &message, &mut store))
            .map_err(SenderKeyError::from_signal)?;
        self.written(&store)
    }

    /// Encrypts a plaintext (from [`super::seal_plaintext`]). Gives the ciphertext and the record to write.
    ///
    /// # Errors
    /// [`SenderKeyError`].
    pub fn encrypt(
        &self,
        plaintext: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Vec<u8>), SenderKeyError> {
        let mut store = self.store()?;
        let (address, id) = (address_of(self.device), uuid(self.distribution));
        let rng = &mut LibsignalRng(rng);
        let message = run(signal::group_encrypt(&mut store, &address, id, plaintext, rng))
            .map_err(SenderKeyError::from_signal)?;
        Ok((message.serialized().to_vec(), self.written(&store)?))
    }

    /// Decrypts a post. Gives the padded plaintext and the record to write.
    ///
    /// # Errors
    /// [`SenderKeyError`].
    pub fn decrypt(&self, ciphertext: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SenderKeyError> {
        if distribution_of(ciphertext)? != self.distribution {
            return Err(SenderKeyError::Missing);
        }
        let mut store = self.store()?;
        let plaintext = run(signal::group_decrypt(ciphertext, &mut store, &address_of(self.device)))
            .map_err(SenderKeyError::from_signal)?;
        Ok((plaintext, self.written(&store)?))
    }

    fn hand_on_from(
        &self,
        store: &mut InMemSenderKeyStore,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SenderKeyError> {
        let (address, id) = (address_of(self.device), uuid(self.distribution));
        let rng = &mut LibsignalRng(rng);
        let message = run(signal::create_sender_key_distribution_message(&address, id, store, rng))
            .map_err(SenderKeyError::from_signal)?;
        Ok(message.serialized().to_vec())
    }

    fn store(&self) -> Result<InMemSenderKeyStore, SenderKeyError> {
        let mut store = InMemSenderKeyStore::new();
        if let Some(record) = self.record {
            let record = SenderKeyRecord::deserialize(record).map_err(SenderKeyError::Inconsistent)?;
            run(store.store_sender_key(&address_of(self.device), uuid(self.distribution), &record))
                .map_err(SenderKeyError::Inconsistent)?;
        }
        Ok(store)
    }

    fn written(&self, store: &InMemSenderKeyStore) -> Result<Vec<u8>, SenderKeyError> {
        // Reading is a method of a mutable store.
        let mut store = store.clone();
        let record = run(store.load_sender_key(&address_of(self.device), uuid(self.distribution)))
            .map_err(SenderKeyError::Inconsistent)?
            .ok_or(SenderKeyError::Missing)?;
        record.serialize().map_err(SenderKeyError::Inconsistent)
    }
}

/// The id in libsignal's type, which this crate does not name.
fn uuid<U: TryFrom<Vec<u8>>>(distribution: DistributionId) -> U {
    let id = U::try_from(distribution.to_vec());
    id.unwrap_or_else(|_| unreachable!("16 bytes are a UUID"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const ALICE: DeviceId = DeviceId([1; 32]);
    const FIRST: DistributionId = [7; 16];

    fn key(record: Option<&Vec<u8>>) -> SenderKey<'_> {
        SenderKey { device: ALICE, distribution: FIRST, record: record.map(Vec::as_slice) }
    }

    #[test]
    fn who_gets_the_key_reads_from_then_on_and_nothing_before() {
        let mut rng = StdRng::seed_from_u64(7);
        let record = key(None).create(&mut rng).unwrap();
        let for_bob = key(Some(&record)).hand_on(&mut rng).unwrap();
        let (first, record) = key(Some(&record)).encrypt(&[1; 160], &mut rng).unwrap();
        let for_carol = key(Some(&record)).hand_on(&mut rng).unwrap();
        let (second, _) = key(Some(&record)).encrypt(&[2; 160], &mut rng).unwrap();
        let bob = key(None).learn(&for_bob).unwrap();
        let carol = key(None).learn(&for_carol).unwrap();
        assert_eq!(distribution_of(&first).unwrap(), FIRST);
        let (text, bob) = key(Some(&bob)).decrypt(&first).unwrap();
        assert_eq!(text, [1; 160]);
        assert!(matches!(key(Some(&bob)).decrypt(&first), Err(SenderKeyError::Duplicate)));
        assert_eq!(key(Some(&bob)).decrypt(&second).unwrap().0, [2; 160]);
        assert_eq!(key(Some(&carol)).decrypt(&second).unwrap().0, [2; 160]);
        assert!(matches!(key(Some(&carol)).decrypt(&first), Err(SenderKeyError::Duplicate)), "not readable");
    }

    #[test]
    fn posts_come_in_any_order_and_no_other_key_opens_them() {
        let mut rng = StdRng::seed_from_u64(8);
        let record = key(None).create(&mut rng).unwrap();
        let message = key(Some(&record)).hand_on(&mut rng).unwrap();
        let (first, record) = key(Some(&record)).encrypt(&[1; 160], &mut rng).unwrap();
        let (second, _) = key(Some(&record)).encrypt(&[2; 160], &mut rng).unwrap();
        let bob = key(None).learn(&message).unwrap();
        let (text, bob) = key(Some(&bob)).decrypt(&second).unwrap();
        assert_eq!(text, [2; 160]);
        assert_eq!(key(Some(&bob)).decrypt(&first).unwrap().0, [1; 160]);
        let other = SenderKey { distribution: [8; 16], ..key(Some(&bob)) };
        assert!(matches!(other.decrypt(&first), Err(SenderKeyError::Missing)));
        assert!(matches!(other.learn(&message), Err(SenderKeyError::Bad(_))));
        assert!(matches!(key(None).decrypt(&first), Err(SenderKeyError::Missing)));
        let forged = key(None).create(&mut rng).unwrap();
        assert!(matches!(key(Some(&forged)).decrypt(&first), Err(SenderKeyError::Missing)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_no_post_and_no_key(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut rng = StdRng::seed_from_u64(9);
            let record = key(None).create(&mut rng).unwrap();
            prop_assert!(key(Some(&record)).decrypt(&bytes).is_err());
            prop_assert!(key(None).learn(&bytes).is_err());
        }

        #[test]
        fn a_changed_post_is_refused(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut rng = StdRng::seed_from_u64(10);
            let record = key(None).create(&mut rng).unwrap();
            let message = key(Some(&record)).hand_on(&mut rng).unwrap();
            let bob = key(None).learn(&message).unwrap();
            let (mut post, _) = key(Some(&record)).encrypt(&[1; 160], &mut rng).unwrap();
            let place = place.index(post.len());
            post[place] ^= 1 << bit;
            prop_assert!(key(Some(&bob)).decrypt(&post).is_err());
        }
    }
}
