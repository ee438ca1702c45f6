//! Signed bodies that are no links: a device's record, and its report of a message it cannot read (chapters 01, 05, 08).
//!
//! Each is carried as bytes, canonical ([`crate::canonical`]), and signed by the device's key as the bytes it came as.
//! Order of checks: size, canonical form, lengths, the body's own rule, signature.
//!
//! What this module does not do: know which key is a device's, or which of two versions is newer.

use bytes::Bytes;

use crate::canonical::{self, CanonicalError, Kind, Shape, once, repeated};
use crate::chain::LINK_BYTES_MAX;
use crate::id::{AccountId, DeviceId, Hash, IdError, Incarnation};
use crate::pb;
use crate::sign::{PublicKey, Purpose, SignError, Signature};

static LANE: Shape = Shape {
    name: "LaneId",
    fields: &[once(1, Kind::Bytes), once(2, Kind::Bytes), once(3, Kind::Uint64), once(4, Kind::Bytes)],
};

/// The fields of `DeviceRecord`, for the scan.
pub static DEVICE_RECORD: Shape = Shape {
    name: "DeviceRecord",
    fields: &[once(1, Kind::Bytes), once(2, Kind::Bytes), once(3, Kind::Uint64), repeated(4, Kind::Packed)],
};

/// The fields of `UndecryptableReport`, for the scan.
pub static UNDECRYPTABLE_REPORT: Shape = Shape {
    name: "UndecryptableReport",
    fields: &[
        once(1, Kind::Bytes),
        once(2, Kind::Bytes),
        once(3, Kind::Bytes),
        once(4, Kind::Message(&LANE)),
        once(5, Kind::Uint64),
        once(6, Kind::Bytes),
    ],
};

/// Why a signed body cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A body above 4 KiB.
    #[error("body has {0} bytes, more than 4096")]
    TooLarge(usize),
    /// The body is not in the one encoding.
    #[error("body is not canonical")]
    Canonical(#[from] CanonicalError),
    /// The body passed the scan and does not parse.
    #[error("body cannot be parsed")]
    Parse(#[from] prost::DecodeError),
    /// A field of another length than stated.
    #[error("body names an id of the wrong length")]
    Id(#[from] IdError),
    /// A report without the lane of its message.
    #[error("report names no lane")]
    NoLane,
    /// The capabilities do not ascend.
    #[error("capabilities are not ascending")]
    Order,
    /// The signature does not hold.
    #[error("signature of a body")]
    Signature(#[from] SignError),
}

/// A device's record, checked whole: form, lengths, order of capabilities, signature by this key.
///
/// # Errors
/// [`RecordError`]: the first rule it breaks.
pub fn device_record(record: &pb::SignedRecord, key: &PublicKey) -> Result<pb::DeviceRecord, RecordError> {
    let body: pb::DeviceRecord = open(&record.body, &DEVICE_RECORD)?;
    AccountId::try_from(&body.account)?;
    DeviceId::try_from(&body.device)?;
    if !body.capabilities.is_sorted_by(|a, b| a < b) {
        return Err(RecordError::Order);
    }
    verify(Purpose::DEVICE_RECORD, &record.body, &record.signature, key)?;
    Ok(body)
}

/// A device's report of a message it cannot read, checked whole: form, lengths, signature by this key.
///
/// # Errors
/// [`RecordError`]: the first rule it breaks.
pub fn report(request: &pb::ResendRequest, key: &PublicKey) -> Result<pb::UndecryptableReport, RecordError> {
    let body: pb::UndecryptableReport = open(&request.report, &UNDECRYPTABLE_REPORT)?;
    AccountId::try_from(&body.reporter_account)?;
    DeviceId::try_from(&body.reporter_device)?;
    DeviceId::try_from(&body.sender_device)?;
    let lane = body.lane.as_ref().ok_or(RecordError::NoLane)?;
    AccountId::try_from(&lane.sender)?;
    AccountId::try_from(&lane.recipient)?;
    Incarnation::try_from(&lane.incarnation)?;
    Hash::try_from(&body.ciphertext_hash)?;
    verify(Purpose::REPORT, &request.report, &request.signature, key)?;
    Ok(body)
}

fn open<M: prost::Message + Default>(body: &Bytes, shape: &'static Shape) -> Result<M, RecordError> {
    if body.len() > LINK_BYTES_MAX {
        return Err(RecordError::TooLarge(body.len()));
    }
    canonical::scan(body, shape)?;
    Ok(M::decode(body.clone())?)
}

fn verify(purpose: Purpose, body: &[u8], signature: &[u8], key: &PublicKey) -> Result<(), SignError> {
    key.verify(purpose, body, &Signature::parse(signature)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SigningKey;
    use proptest::prelude::*;
    use prost::Message as _;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[3; 32])
    }

    fn id(byte: u8) -> Bytes {
        vec![byte; 32].into()
    }

    fn body() -> pb::DeviceRecord {
        pb::DeviceRecord { account: id(1), device: id(2), version: 7, capabilities: vec![0, 2, 33] }
    }

    fn signed(body: Vec<u8>) -> pb::SignedRecord {
        let signature = key().sign(Purpose::DEVICE_RECORD, &body).to_bytes();
        pb::SignedRecord { body: body.into(), signature }
    }

    fn refused(change: impl FnOnce(&mut pb::DeviceRecord)) -> RecordError {
        let mut body = body();
        change(&mut body);
        device_record(&signed(body.encode_to_vec()), &key().public()).unwrap_err()
    }

    #[test]
    fn a_record_is_taken_as_its_device_signed_it() {
        assert_eq!(device_record(&signed(body().encode_to_vec()), &key().public()), Ok(body()));
        let other = SigningKey::from_seed(&[4; 32]).public();
        let wrong = device_record(&signed(body().encode_to_vec()), &other);
        assert_eq!(wrong, Err(RecordError::Signature(SignError::Invalid)));
    }

    #[test]
    fn a_record_that_breaks_a_rule_is_refused_though_it_is_signed() {
        assert!(matches!(refused(|b| b.account = Bytes::new()), RecordError::Id(_)));
        assert!(matches!(refused(|b| b.device = id(2).slice(1..)), RecordError::Id(_)));
        assert_eq!(refused(|b| b.capabilities = vec![2, 0]), RecordError::Order);
        assert_eq!(refused(|b| b.capabilities = vec![2, 2]), RecordError::Order);
        assert_eq!(refused(|b| b.capabilities = vec![1 << 62; 600]), RecordError::TooLarge(5473));
        let written_out = [body().encode_to_vec(), vec![0x22, 0x01, 0x05]].concat();
        assert!(matches!(
            device_record(&signed(written_out), &key().public()),
            Err(RecordError::Canonical(CanonicalError::Twice { field: 4, .. }))
        ));
    }

    #[test]
    fn a_report_is_checked_in_the_same_way() {
        let lane =
            pb::LaneId { sender: id(4), recipient: id(5), address_links: 1, incarnation: id(6).slice(..16) };
        let body = pb::UndecryptableReport {
            reporter_account: id(1),
            reporter_device: id(2),
            sender_device: id(3),
            lane: Some(lane),
            number: 9,
            ciphertext_hash: id(7),
        };
        let of = |body: &pb::UndecryptableReport| {
            let bytes = body.encode_to_vec();
            let signature = key().sign(Purpose::REPORT, &bytes).to_bytes();
            report(&pb::ResendRequest { report: bytes.into(), signature }, &key().public())
        };
        assert_eq!(of(&body), Ok(body.clone()));
        assert_eq!(of(&pb::UndecryptableReport { lane: None, ..body.clone() }), Err(RecordError::NoLane));
        assert!(matches!(
            of(&pb::UndecryptableReport { ciphertext_hash: Bytes::new(), ..body }),
            Err(RecordError::Id(_))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let request = pb::ResendRequest { report: body.clone().into(), signature: vec![1; 65].into() };
            prop_assert!(report(&request, &key().public()).is_err());
            let record = pb::SignedRecord { signature: vec![1; 65].into(), body: body.into() };
            prop_assert!(device_record(&record, &key().public()).is_err());
        }
    }
}
