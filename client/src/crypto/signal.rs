//! Sessions on libsignal: build, encrypt, decrypt, archive (spec 08-encryption, 8.1).
//!
//! libsignal reads and writes through async traits. Each operation here puts the few records it
//! needs into libsignal's in-memory stores, polls once (nothing in there ever waits), and says what
//! changed. The in-memory identity store would trust on first use; it is filled with the key from
//! the account chain first, so that it trusts that key and no other.
//!
//! What this module deliberately does not do: see [`super`]. Note that libsignal logs refusals
//! through the `log` crate, with device ids; the driver must not enable its target.

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use libsignal_protocol as signal;
use libsignal_protocol::{
    CiphertextMessage, GenericSignedPreKey as _, IdentityKey, IdentityKeyStore as _, InMemIdentityKeyStore,
    InMemKyberPreKeyStore, InMemPreKeyStore, InMemSessionStore, InMemSignedPreKeyStore, KyberPreKeyRecord,
    KyberPreKeyStore as _, PreKeyRecord, PreKeySignalMessage, PreKeyStore as _, PublicKey, SessionRecord,
    SessionStore as _, SessionUsabilityRequirements, SignalMessage, SignalProtocolError, SignedPreKeyRecord,
    SignedPreKeyStore as _, kem,
};
use rand::CryptoRng;
use tidings_proto::id::DeviceId;

use super::bundle::PrekeyBundle;
use super::device::{LibsignalRng, LocalDevice, PeerDevice, key_bytes};
use super::error::{BundleError, DecryptError, EncryptError, SessionError};
use super::records::{Changes, KyberUse, Records};

/// Which of libsignal's two kinds a ciphertext is (`PayloadKind` on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CiphertextKind {
    /// Starts a session: sent until the other side has answered.
    Prekey,
    /// Within a session.
    Message,
}

/// A ciphertext for one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ciphertext {
    /// Its kind.
    pub kind: CiphertextKind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Private prekeys a message refers to. All of these ids come from the peer, unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedPrekeys {
    /// The one-time prekey, if the sender got one.
    pub one_time: Option<u32>,
    /// The signed prekey.
    pub signed: u32,
    /// The Kyber prekey, and the use to look for among those remembered.
    pub kyber: KyberUse,
}

/// Which prekeys to load before [`Pairwise::decrypt`]: none for a message within a session. The
/// keys may be gone already although the message can be read, if its session exists.
///
/// # Errors
/// [`DecryptError::BadCiphertext`].
pub fn wanted_prekeys(kind: CiphertextKind, bytes: &[u8]) -> Result<Option<WantedPrekeys>, DecryptError> {
    match kind {
        CiphertextKind::Message => Ok(None),
        CiphertextKind::Prekey => {
            let message = PreKeySignalMessage::try_from(bytes).map_err(DecryptError::from_signal)?;
            wanted(&message).map(Some)
        }
    }
}

fn wanted(message: &PreKeySignalMessage) -> Result<WantedPrekeys, DecryptError> {
    let kyber_id =
        message.kyber_pre_key_id().ok_or(DecryptError::BadCiphertext("no Kyber prekey named"))?.into();
    let signed = message.signed_pre_key_id().into();
    let kyber = KyberUse { kyber_id, signed_id: signed, base_key: key_bytes(message.base_key()) };
    Ok(WantedPrekeys { one_time: message.pre_key_id().map(u32::from), signed, kyber })
}

/// This device and another one, with the records loaded for them: what the operations are on.
#[derive(Debug, Clone, Copy)]
pub struct Pairwise<'a> {
    /// This device.
    pub local: &'a LocalDevice,
    /// The other one, from its verified chain.
    pub peer: &'a PeerDevice,
    /// What was loaded: the session with it and, to decrypt, [`wanted_prekeys`].
    pub records: &'a Records,
}

impl Pairwise<'_> {
    /// Starts a session from a fetched bundle (PQXDH). An existing session is archived, so that
    /// what was sent within it can still be read.
    ///
    /// # Errors
    /// [`BundleError`]; a bundle for another identity key than the chain's is `UntrustedIdentity`.
    pub fn start_session(
        &self,
        bundle: &PrekeyBundle,
        now_ms: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Changes, BundleError> {
        if bundle.identity != self.peer.identity {
            return Err(BundleError::UntrustedIdentity);
        }
        let bundle = parse_bundle(bundle)?;
        let mut trust = self.trust().map_err(|_| BundleError::Malformed)?;
        let mut sessions = self.sessions().map_err(BundleError::Inconsistent)?;
        let address = self.peer.address();
        let rng = &mut LibsignalRng(rng);
        run(signal::process_prekey_bundle(&address, &mut sessions, &mut trust, &bundle, time(now_ms), rng))
            .map_err(BundleError::from_signal)?;
        let session = self.written(&sessions).map_err(BundleError::Inconsistent)?;
        Ok(Changes { session, ..Changes::default() })
    }

    /// Encrypts a plaintext (from [`super::seal_plaintext`]) in the current session.
    ///
    /// # Errors
    /// [`EncryptError`]; `NoSession` asks for [`Pairwise::start_session`].
    pub fn encrypt(
        &self,
        plaintext: &[u8],
        now_ms: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<(Ciphertext, Changes), EncryptError> {
        let mut trust = self.trust().map_err(|_| EncryptError::UntrustedIdentity)?;
        let mut sessions = self.sessions().map_err(EncryptError::Inconsistent)?;
        let address = self.peer.address();
        let rng = &mut LibsignalRng(rng);
        let message =
            run(signal::message_encrypt(plaintext, &address, &mut sessions, &mut trust, time(now_ms), rng))
                .map_err(EncryptError::from_signal)?;
        let kind = match message {
            CiphertextMessage::PreKeySignalMessage(_) => CiphertextKind::Prekey,
            _ => CiphertextKind::Message,
        };
        let session = self.written(&sessions).map_err(EncryptError::Inconsistent)?;
        let ciphertext = Ciphertext { kind, bytes: message.serialize().to_vec() };
        Ok((ciphertext, Changes { session, ..Changes::default() }))
    }

    /// Decrypts what came from the other device. Gives the padded plaintext, for
    /// [`super::open_plaintext`].
    ///
    /// # Errors
    /// [`DecryptError`]; nothing has changed then.
    pub fn decrypt(
        &self,
        kind: CiphertextKind,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Changes), DecryptError> {
        match kind {
            CiphertextKind::Prekey => self.decrypt_prekey(bytes, rng),
            CiphertextKind::Message => self.decrypt_message(bytes, rng),
        }
    }

    fn decrypt_message(
        &self,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Changes), DecryptError> {
        let message = SignalMessage::try_from(bytes).map_err(DecryptError::from_signal)?;
        let mut trust = self.trust().map_err(|_| DecryptError::UntrustedIdentity)?;
        let mut sessions = self.sessions().map_err(DecryptError::Inconsistent)?;
        let address = self.peer.address();
        let rng = &mut LibsignalRng(rng);
        let plaintext =
            run(signal::message_decrypt_signal(&message, &address, &mut sessions, &mut trust, rng))
                .map_err(DecryptError::from_signal)?;
        let session = self.written(&sessions).map_err(DecryptError::Inconsistent)?;
        Ok((plaintext, Changes { session, ..Changes::default() }))
    }

    fn decrypt_prekey(
        &self,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Vec<u8>, Changes), DecryptError> {
        let message = PreKeySignalMessage::try_from(bytes).map_err(DecryptError::from_signal)?;
        if key_bytes(message.identity_key().public_key()) != self.peer.identity {
            return Err(DecryptError::UntrustedIdentity);
        }
        let wanted = wanted(&message)?;
        let seen = self.records.kyber_uses.contains(&wanted.kyber);
        let mut trust = self.trust().map_err(|_| DecryptError::UntrustedIdentity)?;
        let mut sessions = self.sessions().map_err(DecryptError::Inconsistent)?;
        let mut one_time = self.one_time(&wanted).map_err(DecryptError::Inconsistent)?;
        let signed = self.signed(&wanted).map_err(DecryptError::Inconsistent)?;
        let mut kyber = self.kyber(&wanted).map_err(DecryptError::Inconsistent)?;
        let use_of_kyber = |kyber: &mut InMemKyberPreKeyStore| {
            let (kyber_id, signed_id) = (wanted.kyber.kyber_id.into(), wanted.signed.into());
            run(kyber.mark_kyber_pre_key_used(kyber_id, signed_id, message.base_key()))
        };
        if seen {
            use_of_kyber(&mut kyber).expect("the first mark in an empty store is taken");
        }
        let plaintext = run(signal::message_decrypt_prekey(
            &message,
            &self.peer.address(),
            &mut sessions,
            &mut trust,
            &mut one_time,
            &signed,
            &mut kyber,
            &mut LibsignalRng(rng),
        ))
        .map_err(|error| DecryptError::from_prekey(error, &wanted))?;
        let session = self.written(&sessions).map_err(DecryptError::Inconsistent)?;
        let mut changes = Changes { session, ..Changes::default() };
        // libsignal does not say whether the message started the session. It marked the use if so,
        // and only then a second mark is refused.
        if !seen && use_of_kyber(&mut kyber).is_err() {
            self.spend(&wanted, &mut changes);
        }
        Ok((plaintext, changes))
    }

    /// What a newly started session uses up.
    fn spend(&self, wanted: &WantedPrekeys, changes: &mut Changes) {
        changes.spent_one_time = wanted.one_time;
        if self.records.kyber.get(&wanted.kyber.kyber_id).is_some_and(|key| key.last_resort) {
            changes.kyber_use = Some(wanted.kyber);
        } else {
            changes.spent_kyber = Some(wanted.kyber.kyber_id);
        }
    }

    fn trust(&self) -> Result<InMemIdentityKeyStore, SignalProtocolError> {
        let mut trust = InMemIdentityKeyStore::new(*self.local.identity.pair(), self.local.registration_id);
        let key = IdentityKey::decode(&self.peer.identity)?;
        run(trust.save_identity(&self.peer.address(), &key))?;
        Ok(trust)
    }

    fn sessions(&self) -> Result<InMemSessionStore, SignalProtocolError> {
        let mut sessions = InMemSessionStore::new();
        if let Some(record) = self.records.sessions.get(&self.peer.device) {
            run(sessions.store_session(&self.peer.address(), &SessionRecord::deserialize(record)?))?;
        }
        Ok(sessions)
    }

    /// The session as the operation left it.
    fn written(
        &self,
        sessions: &InMemSessionStore,
    ) -> Result<Option<(DeviceId, Vec<u8>)>, SignalProtocolError> {
        let record = run(sessions.load_session(&self.peer.address()))?;
        record.map(|record| Ok((self.peer.device, record.serialize()?))).transpose()
    }

    fn one_time(&self, wanted: &WantedPrekeys) -> Result<InMemPreKeyStore, SignalProtocolError> {
        let mut store = InMemPreKeyStore::new();
        if let Some((id, record)) = wanted.one_time.and_then(|id| self.records.one_time.get_key_value(&id)) {
            run(store.save_pre_key((*id).into(), &PreKeyRecord::deserialize(record)?))?;
        }
        Ok(store)
    }

    fn signed(&self, wanted: &WantedPrekeys) -> Result<InMemSignedPreKeyStore, SignalProtocolError> {
        let mut store = InMemSignedPreKeyStore::new();
        if let Some(record) = self.records.signed.get(&wanted.signed) {
            run(store.save_signed_pre_key(wanted.signed.into(), &SignedPreKeyRecord::deserialize(record)?))?;
        }
        Ok(store)
    }

    fn kyber(&self, wanted: &WantedPrekeys) -> Result<InMemKyberPreKeyStore, SignalProtocolError> {
        let mut store = InMemKyberPreKeyStore::new();
        let id = wanted.kyber.kyber_id;
        if let Some(key) = self.records.kyber.get(&id) {
            run(store.save_kyber_pre_key(id.into(), &KyberPreKeyRecord::deserialize(&key.record)?))?;
        }
        Ok(store)
    }
}

/// Whether a session record can encrypt now: it has a sending chain, is post-quantum, and was
/// answered within 30 days. If not, fetch a bundle.
///
/// # Errors
/// [`SessionError`] if the record is not one of libsignal's.
pub fn session_usable(record: &[u8], now_ms: u64) -> Result<bool, SessionError> {
    SessionRecord::deserialize(record)
        .and_then(|record| record.has_usable_sender_chain(time(now_ms), SessionUsabilityRequirements::all()))
        .map_err(SessionError)
}

/// Ends the current session with a device (a session reset): the next encryption needs a bundle,
/// and what was sent within the old session can still be read. `None`: there is no session.
///
/// # Errors
/// [`SessionError`] if the record is not one of libsignal's.
pub fn archive_session(records: &Records, device: DeviceId) -> Result<Option<Changes>, SessionError> {
    let Some(bytes) = records.sessions.get(&device) else {
        return Ok(None);
    };
    let mut record = SessionRecord::deserialize(bytes).map_err(SessionError)?;
    record.archive_current_state().map_err(SessionError)?;
    let bytes = record.serialize().map_err(SessionError)?;
    Ok(Some(Changes { session: Some((device, bytes)), ..Changes::default() }))
}

fn parse_bundle(bundle: &PrekeyBundle) -> Result<signal::PreKeyBundle, BundleError> {
    let parse = || {
        let key = |bytes: &[u8]| PublicKey::deserialize(bytes).map_err(SignalProtocolError::from);
        let one_time = match &bundle.one_time {
            Some(one_time) => Some((one_time.id.into(), key(&one_time.public)?)),
            None => None,
        };
        signal::PreKeyBundle::new(
            bundle.registration_id,
            signal::DeviceId::new(1).expect("1 is a device number"),
            one_time,
            bundle.signed.id.into(),
            key(&bundle.signed.public)?,
            bundle.signed.signature.clone(),
            bundle.kyber.id.into(),
            kem::PublicKey::deserialize(&bundle.kyber.public)?,
            bundle.kyber.signature.clone(),
            IdentityKey::decode(&bundle.identity)?,
        )
    };
    parse().map_err(|_: SignalProtocolError| BundleError::Malformed)
}

fn time(ms: u64) -> SystemTime {
    // A time no clock shows is the caller's mistake; it must not become a panic.
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Runs a future of libsignal over in-memory stores to its end.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("libsignal awaits nothing but its stores, and these never wait"),
    }
}
