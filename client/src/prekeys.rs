//! Prekeys between the wire's shapes and the crypto module's (spec 05-accounts). Pure.

use tidings_proto::pb;

use crate::crypto::{KyberPrekey, OneTimePrekey, PrekeyBundle, PrekeySet, SignedPrekey};

/// What the home is to hold of a freshly made set.
pub(crate) fn publish(set: &PrekeySet, replace: bool) -> pb::PublishKeys {
    pb::PublishKeys {
        signed_prekey: set.signed.as_ref().map(|key| signed(key.id, &key.public, &key.signature)),
        kyber_last_resort: set
            .kyber_last_resort
            .as_ref()
            .map(|key| signed(key.id, &key.public, &key.signature)),
        one_time: set
            .one_time
            .iter()
            .map(|key| pb::OneTimeKey { id: key.id, key: key.public.clone().into() })
            .collect(),
        one_time_kyber: set
            .one_time_kyber
            .iter()
            .map(|key| signed(key.id, &key.public, &key.signature))
            .collect(),
        replace,
    }
}

fn signed(id: u32, key: &[u8], signature: &[u8]) -> pb::SignedKey {
    pb::SignedKey { id, key: key.to_vec().into(), signature: signature.to_vec().into() }
}

/// A bundle as served; `None` if it lacks what a session cannot do without.
pub(crate) fn bundle(served: &pb::Bundle) -> Option<PrekeyBundle> {
    let signed = served.signed_prekey.as_ref()?;
    let kyber = served.kyber_prekey.as_ref()?;
    Some(PrekeyBundle {
        registration_id: served.registration_id,
        identity: served.identity_key.as_ref().try_into().ok()?,
        signed: SignedPrekey {
            id: signed.id,
            public: signed.key.to_vec(),
            signature: signed.signature.to_vec(),
        },
        kyber: KyberPrekey { id: kyber.id, public: kyber.key.to_vec(), signature: kyber.signature.to_vec() },
        one_time: served.one_time.as_ref().map(|key| OneTimePrekey { id: key.id, public: key.key.to_vec() }),
    })
}
