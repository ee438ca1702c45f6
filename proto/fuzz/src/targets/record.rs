//! Device records and reports: nothing is taken that its key did not sign, or that has another form.
//!
//! Input: a byte of flags, then a body. The body is signed with the right key, so that the rules behind the signature
//! see it, or with another.

use std::mem::discriminant;

use prost::Message;
use tidings_proto::canonical::scan;
use tidings_proto::pb;
use tidings_proto::record::{self, DEVICE_RECORD, RecordError, UNDECRYPTABLE_REPORT};
use tidings_proto::sign::Purpose;

use super::outcome;
use crate::world;

const REPORT: u8 = 1;
const OTHER_KEY: u8 = 2;

pub(super) fn run(data: &[u8]) -> u64 {
    let Some((flags, body)) = data.split_first() else { return 0 };
    let (own, other) = (world::key(world::PHONE), world::key(world::LAPTOP));
    let signer = if flags & OTHER_KEY == 0 { &own } else { &other };
    let (taken, shape, again) = if flags & REPORT == 0 {
        let signature = signer.sign(Purpose::DEVICE_RECORD, body).to_bytes();
        let signed = pb::SignedRecord { body: body.to_vec().into(), signature };
        let taken = record::device_record(&signed, &own.public());
        let again = taken.as_ref().map(Message::encode_to_vec).ok();
        (taken.map(|_| ()), &DEVICE_RECORD, again)
    } else {
        let signature = signer.sign(Purpose::REPORT, body).to_bytes();
        let signed = pb::ResendRequest { report: body.to_vec().into(), signature };
        let taken = record::report(&signed, &own.public());
        let again = taken.as_ref().map(Message::encode_to_vec).ok();
        (taken.map(|_| ()), &UNDECRYPTABLE_REPORT, again)
    };
    if let Some(again) = again {
        assert_eq!(flags & OTHER_KEY, 0, "only what the key signed is taken");
        assert_eq!(scan(body, shape), Ok(()), "only canonical bodies are taken");
        assert_eq!(scan(&again, shape), Ok(()), "what was taken can be written");
    }
    let fate = taken.as_ref().map_err(|error: &RecordError| discriminant(error));
    outcome((flags & (REPORT | OTHER_KEY), fate))
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let of = |flags: u8, body: Vec<u8>| [&[flags][..], &body].concat();
    vec![
        of(0, world::device_record()),
        of(REPORT, world::report()),
        of(OTHER_KEY, world::device_record()),
        of(REPORT | OTHER_KEY, world::report()),
    ]
}
