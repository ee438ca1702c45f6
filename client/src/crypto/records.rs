//! The records one operation reads, and the changes it asks for.
//!
//! Records are opaque bytes in libsignal's format, below 1 KB for a session between messages. All
//! of them are secret and none may be part of a backup: a device restored from an old copy would
//! use message keys twice.
//!
//! What this module deliberately does not do: say how records are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tidings_proto::id::DeviceId;

use super::IdentityPublic;

/// A private Kyber prekey.
#[derive(Clone, PartialEq, Eq)]
pub struct KyberRecord {
    /// libsignal's record, secret.
    pub record: Vec<u8>,
    /// Whether it is a last resort: kept after use, its uses remembered as [`KyberUse`].
    pub last_resort: bool,
}

impl fmt::Debug for KyberRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KyberRecord").field("last_resort", &self.last_resort).finish_non_exhaustive()
    }
}

/// One use of a last-resort Kyber prekey; the same use a second time is a replay and refused.
/// Remembered for as long as the private key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KyberUse {
    /// The last-resort Kyber prekey.
    pub kyber_id: u32,
    /// The signed prekey used with it.
    pub signed_id: u32,
    /// The sender's base key.
    pub base_key: IdentityPublic,
}

/// The serialised records relevant to one operation. More than needed does no harm; what is absent
/// is taken not to exist. For a decryption, [`super::wanted_prekeys`] says which to load.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// Sessions by the other device.
    pub sessions: BTreeMap<DeviceId, Vec<u8>>,
    /// Private one-time prekeys by id.
    pub one_time: BTreeMap<u32, Vec<u8>>,
    /// Private signed prekeys by id: the current one and those replaced but kept.
    pub signed: BTreeMap<u32, Vec<u8>>,
    /// Private Kyber prekeys by id, one-time and last-resort.
    pub kyber: BTreeMap<u32, KyberRecord>,
    /// Uses of last-resort Kyber prekeys seen so far.
    pub kyber_uses: BTreeSet<KyberUse>,
}

impl Records {
    /// Applies changes as the store does. A change names whole records: applying it twice is the
    /// same as once.
    pub fn apply(&mut self, changes: &Changes) {
        if let Some((device, record)) = &changes.session {
            self.sessions.insert(*device, record.clone());
        }
        if let Some(id) = changes.spent_one_time {
            self.one_time.remove(&id);
        }
        if let Some(id) = changes.spent_kyber {
            self.kyber.remove(&id);
        }
        self.kyber_uses.extend(changes.kyber_use);
    }

    /// Adds freshly generated or loaded records to these; same ids are replaced.
    pub fn extend(&mut self, other: Self) {
        self.sessions.extend(other.sessions);
        self.one_time.extend(other.one_time);
        self.signed.extend(other.signed);
        self.kyber.extend(other.kyber);
        self.kyber_uses.extend(other.kyber_uses);
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records")
            .field("sessions", &self.sessions.keys())
            .field("one_time", &self.one_time.keys())
            .field("signed", &self.signed.keys())
            .field("kyber", &self.kyber)
            .field("kyber_uses", &self.kyber_uses.len())
            .finish()
    }
}

/// What the store has to write, all in one transaction with the message it belongs to.
#[must_use = "a session whose changes are lost uses message keys twice"]
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The session to write.
    pub session: Option<(DeviceId, Vec<u8>)>,
    /// The one-time prekey to delete.
    pub spent_one_time: Option<u32>,
    /// The one-time Kyber prekey to delete.
    pub spent_kyber: Option<u32>,
    /// The use of a last-resort Kyber prekey to remember.
    pub kyber_use: Option<KyberUse>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("session", &self.session.as_ref().map(|(device, _)| device))
            .field("spent_one_time", &self.spent_one_time)
            .field("spent_kyber", &self.spent_kyber)
            .field("kyber_use", &self.kyber_use)
            .finish()
    }
}
