//! Bodies that are signed: what passes the scan parses, and is the only encoding of what it says.

use std::mem::discriminant;

use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use tidings_proto::canonical::{Kind, Shape, scan};
use tidings_proto::chain::{AccountState, ChainState, ServerState};
use tidings_proto::{pb, record};

use super::outcome;
use crate::world;

pub(super) fn run(data: &[u8]) -> u64 {
    let Some((which, body)) = data.split_first() else { return 0 };
    match which % 4 {
        0 => of::<pb::AccountLinkBody>(body, AccountState::SHAPE),
        1 => of::<pb::ServerLinkBody>(body, ServerState::SHAPE),
        2 => of::<pb::DeviceRecord>(body, &record::DEVICE_RECORD),
        _ => of::<pb::UndecryptableReport>(body, &record::UNDECRYPTABLE_REPORT),
    }
}

fn of<M: Message + Default>(body: &[u8], shape: &'static Shape) -> u64 {
    let scanned = scan(body, shape);
    if scanned.is_ok() {
        let parsed = M::decode(body).expect("what passes the scan parses");
        let again = parsed.encode_to_vec();
        assert_eq!(again, known_part(body, shape), "there is one encoding");
        assert_eq!(scan(&again, shape), Ok(()), "what is written passes the scan");
    }
    let depth = body.len().min(512) / 64;
    outcome((shape.name, depth, scanned.map_err(|error| discriminant(&error))))
}

/// A body that passed the scan, without the fields that are not known here: those are skipped by readers.
fn known_part(mut body: &[u8], shape: &Shape) -> Vec<u8> {
    let mut out = Vec::new();
    while !body.is_empty() {
        let whole = body;
        let tag = decode_varint(&mut body).expect("a tag");
        let before_value = &whole[..whole.len() - body.len()];
        let mut inside: &[u8] = &[];
        match tag & 7 {
            0 => drop(decode_varint(&mut body).expect("a number")),
            1 => body = &body[8..],
            2 => {
                let length = decode_varint(&mut body).expect("a length");
                (inside, body) = body.split_at(usize::try_from(length).expect("a length in memory"));
            }
            _ => body = &body[4..],
        }
        let known = shape.fields.iter().find(|field| u64::from(field.number) == tag >> 3);
        match known.map(|field| field.kind) {
            Some(Kind::Message(shape)) => {
                let inside = known_part(inside, shape);
                out.extend_from_slice(before_value);
                encode_varint(u64::try_from(inside.len()).expect("a length"), &mut out);
                out.extend_from_slice(&inside);
            }
            Some(_) => out.extend_from_slice(&whole[..whole.len() - body.len()]),
            None => {}
        }
    }
    out
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let accounts = world::account_links().iter().map(|link| [&[0][..], &link.body].concat());
    let servers = world::server_links().iter().map(|link| [&[1][..], &link.body].concat());
    let others = [[&[2][..], &world::device_record()].concat(), [&[3][..], &world::report()].concat()];
    accounts.chain(servers).chain(others).collect()
}
