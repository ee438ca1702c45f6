//! Prekeys: made here, published as plain structs, fetched by others as a bundle (spec 05-accounts, 5.6).
//!
//! What this module deliberately does not do: publish or fetch, or decide when a stock is low or a
//! signed prekey old.

use libsignal_protocol::{
    GenericSignedPreKey as _, KeyPair, KyberPreKeyRecord, PreKeyRecord, SignedPreKeyRecord, Timestamp, kem,
};
use rand::CryptoRng;

use super::IdentityPublic;
use super::device::{Identity, LibsignalRng};
use super::records::{KyberRecord, Records};

/// One-time prekeys of each kind that one call makes at most.
pub const PREKEYS_PER_CALL_MAX: u32 = 1_000;

/// A signed Curve25519 prekey, public part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPrekey {
    /// Its number on this device.
    pub id: u32,
    /// 33 bytes.
    pub public: Vec<u8>,
    /// By the identity key over `public`, 64 bytes.
    pub signature: Vec<u8>,
}

/// A signed Kyber1024 prekey, one-time or last-resort, public part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KyberPrekey {
    /// Its number on this device.
    pub id: u32,
    /// 1569 bytes: libsignal's type byte 08 and the key.
    pub public: Vec<u8>,
    /// By the identity key over `public`, 64 bytes.
    pub signature: Vec<u8>,
}

/// A one-time Curve25519 prekey, public part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneTimePrekey {
    /// Its number on this device.
    pub id: u32,
    /// 33 bytes.
    pub public: Vec<u8>,
}

/// What another device needs to start a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrekeyBundle {
    /// libsignal's number for one installation of the device.
    pub registration_id: u32,
    /// Identity key as served; a session comes about only if it is the account chain's.
    pub identity: IdentityPublic,
    /// The current signed prekey.
    pub signed: SignedPrekey,
    /// A one-time Kyber prekey, else the last resort.
    pub kyber: KyberPrekey,
    /// Absent when the stock is out or the asker's budget is spent.
    pub one_time: Option<OneTimePrekey>,
}

/// Which prekeys to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrekeyOrder {
    /// First id to give; ids of a device never come again, whatever their kind.
    pub start_id: u32,
    /// How many one-time prekeys of each kind, at most [`PREKEYS_PER_CALL_MAX`].
    pub one_time: u32,
    /// Whether to make a new signed prekey and a new last-resort Kyber prekey too.
    pub rotate: bool,
    /// Now, milliseconds since 1970; kept in the records, for deciding about the next rotation.
    pub now_ms: u64,
}

/// Prekeys to publish, and their private halves to store first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrekeySet {
    /// The signed prekey; `None` unless [`PrekeyOrder::rotate`].
    pub signed: Option<SignedPrekey>,
    /// The last-resort Kyber prekey; `None` unless [`PrekeyOrder::rotate`].
    pub kyber_last_resort: Option<KyberPrekey>,
    /// One-time Curve25519 prekeys.
    pub one_time: Vec<OneTimePrekey>,
    /// One-time Kyber prekeys.
    pub one_time_kyber: Vec<KyberPrekey>,
    /// Private halves (no sessions, no uses). To be durable before anything is published.
    pub private: Records,
    /// The next [`PrekeyOrder::start_id`]; to be stored with `private`.
    pub next_id: u32,
}

/// Why no prekeys could be made. Both are the caller's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrekeyError {
    /// More than [`PREKEYS_PER_CALL_MAX`] one-time prekeys asked for.
    #[error("{0} one-time prekeys asked for, at most {PREKEYS_PER_CALL_MAX} at once")]
    TooMany(u32),
    /// No ids left above `start_id`.
    #[error("no prekey ids left from {0}")]
    IdsExhausted(u32),
}

/// Makes prekeys signed by `identity`. About a millisecond for each pair of one-time prekeys.
///
/// # Errors
/// [`PrekeyError`], before anything is made.
pub fn generate_prekeys(
    identity: &Identity,
    order: &PrekeyOrder,
    rng: &mut impl CryptoRng,
) -> Result<PrekeySet, PrekeyError> {
    if order.one_time > PREKEYS_PER_CALL_MAX {
        return Err(PrekeyError::TooMany(order.one_time));
    }
    let count = order.one_time.saturating_mul(2).saturating_add(if order.rotate { 2 } else { 0 });
    let next_id = order.start_id.checked_add(count).ok_or(PrekeyError::IdsExhausted(order.start_id))?;
    let mut ids = order.start_id..next_id;
    let mut id = || ids.next().expect("as many ids were set aside as there are keys");

    let mut maker =
        Maker { identity, now_ms: order.now_ms, rng: LibsignalRng(rng), private: Records::default() };
    let signed = order.rotate.then(|| maker.signed(id()));
    let kyber_last_resort = order.rotate.then(|| maker.kyber(id(), true));
    let one_time = (0..order.one_time).map(|_| maker.one_time(id())).collect();
    let one_time_kyber = (0..order.one_time).map(|_| maker.kyber(id(), false)).collect();
    let private = maker.private;
    Ok(PrekeySet { signed, kyber_last_resort, one_time, one_time_kyber, private, next_id })
}

struct Maker<'a, R> {
    identity: &'a Identity,
    now_ms: u64,
    rng: LibsignalRng<'a, R>,
    private: Records,
}

impl<R: CryptoRng> Maker<'_, R> {
    fn sign(&mut self, public: &[u8]) -> Vec<u8> {
        let key = self.identity.pair().private_key();
        key.calculate_signature(public, &mut self.rng).expect("a Curve25519 key signs any bytes").into_vec()
    }

    fn signed(&mut self, id: u32) -> SignedPrekey {
        let pair = KeyPair::generate(&mut self.rng);
        let public = pair.public_key.serialize().into_vec();
        let signature = self.sign(&public);
        let record =
            SignedPreKeyRecord::new(id.into(), Timestamp::from_epoch_millis(self.now_ms), &pair, &signature);
        self.private.signed.insert(id, record.serialize().expect("a record just made serialises"));
        SignedPrekey { id, public, signature }
    }

    fn kyber(&mut self, id: u32, last_resort: bool) -> KyberPrekey {
        let pair = kem::KeyPair::generate(kem::KeyType::Kyber1024, &mut self.rng);
        let public = pair.public_key.serialize().into_vec();
        let signature = self.sign(&public);
        let record =
            KyberPreKeyRecord::new(id.into(), Timestamp::from_epoch_millis(self.now_ms), &pair, &signature);
        let record = record.serialize().expect("a record just made serialises");
        self.private.kyber.insert(id, KyberRecord { record, last_resort });
        KyberPrekey { id, public, signature }
    }

    fn one_time(&mut self, id: u32) -> OneTimePrekey {
        let pair = KeyPair::generate(&mut self.rng);
        let record = PreKeyRecord::new(id.into(), &pair);
        self.private.one_time.insert(id, record.serialize().expect("a record just made serialises"));
        OneTimePrekey { id, public: pair.public_key.serialize().into_vec() }
    }
}
