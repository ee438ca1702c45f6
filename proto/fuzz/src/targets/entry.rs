//! Entries of logs: what is read can be written and read again, and the running hash covers every byte.

use bytes::Bytes;
use prost::Message;
use tidings_proto::id::{Hash, Incarnation};
use tidings_proto::log::{Position, next_hash};
use tidings_proto::pb;
use tidings_proto::watermark::Read;

use super::outcome;
use crate::world;

pub(super) fn run(data: &[u8]) -> u64 {
    check_hash(data);
    let Ok(entry) = pb::Entry::decode(data) else { return 1 };
    check_again(&entry);
    let fate = match entry.r#type {
        0x00 => body::<pb::Delivery>(&entry.body),
        0x02 => {
            if let Ok(watermark) = pb::Watermark::decode(entry.body.clone()) {
                // Taken or refused; never a panic, whatever the numbers.
                let _taken = Read::new(watermark.upto, &watermark.except);
            }
            body::<pb::Watermark>(&entry.body)
        }
        0x04 => body::<pb::Notice>(&entry.body),
        0x06 => body::<pb::ChainAnnounce>(&entry.body),
        0x08 => body::<pb::StockLow>(&entry.body),
        0x0a => body::<pb::Void>(&entry.body),
        0x0c => body::<pb::Transfer>(&entry.body),
        0x0e => body::<pb::LaneClose>(&entry.body),
        0x10 => body::<pb::GroupMessage>(&entry.body),
        0x12 => body::<pb::GroupLink>(&entry.body),
        0x14 => body::<pb::GroupVoid>(&entry.body),
        0x16 => body::<pb::GroupNotice>(&entry.body),
        _ => return 2,
    };
    outcome((entry.r#type, fate))
}

fn body<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &Bytes) -> (bool, usize) {
    match M::decode(bytes.clone()) {
        Ok(message) => {
            check_again(&message);
            (true, message.encoded_len().min(512) / 32)
        }
        Err(_) => (false, 0),
    }
}

fn check_again<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M) {
    let bytes = message.encode_to_vec();
    assert_eq!(M::decode(bytes.as_slice()).as_ref(), Ok(message), "what was written reads the same");
}

fn check_hash(data: &[u8]) {
    let start = Position::start(Incarnation([1; 16]));
    let Ok(next) = start.after(data) else { return };
    assert_eq!(next.h, next_hash(&Hash::ZERO, data));
    let longer = [data, &[0]].concat();
    assert_ne!(start.after(&longer).map(|position| position.h), Ok(next.h), "every byte counts");
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let id = |byte: u8| Bytes::copy_from_slice(&[byte; 32]);
    let lane =
        pb::LaneId { sender: id(1), recipient: id(2), address_links: 1, incarnation: id(3).slice(..16) };
    let range = pb::Range { from: 3, to: 5 };
    let payload = pb::Payload { device: id(4), kind: 2, ciphertext: id(5) };
    let reason = pb::Failure { code: 0x39, scope: 1, retry: 1, ..Default::default() };
    let of = |kind: u64, body: Vec<u8>| pb::Entry { r#type: kind, body: body.into() }.encode_to_vec();
    let delivery = pb::Delivery {
        lane: Some(lane.clone()),
        number: 6,
        sender_address: "alice@a.example".to_owned(),
        payload: Some(payload.clone()),
        not_for_you: vec![range],
        ..Default::default()
    };
    let watermark =
        pb::Watermark { kind: 3, lane: Some(lane.clone()), upto: 9, except: vec![3, 5], at_ms: 1 };
    let notice = pb::Notice {
        lane: Some(lane.clone()),
        numbers: Some(range),
        what: Some(pb::notice::What::Closed(pb::Closed { reason: Some(reason.clone()) })),
        at_ms: 1,
    };
    let announce = pb::ChainAnnounce {
        account: id(1),
        address: "bob@b.example".to_owned(),
        links: world::account_links().to_vec(),
    };
    let transfer = pb::Transfer {
        lane: Some(lane.clone()),
        number: 6,
        payloads: vec![payload.clone(), payload],
        ..Default::default()
    };
    let close = pb::LaneClose { lane: Some(lane), numbers: Some(range), reason: Some(reason.clone()) };
    let group_notice = pb::GroupNotice {
        group: id(1),
        number: 4,
        what: Some(pb::group_notice::What::Refused(reason)),
        at_ms: 1,
    };
    vec![
        of(0x00, delivery.encode_to_vec()),
        of(0x02, watermark.encode_to_vec()),
        of(0x04, notice.encode_to_vec()),
        of(0x06, announce.encode_to_vec()),
        of(0x08, pb::StockLow { one_time_ec: 3, one_time_kyber: 4 }.encode_to_vec()),
        of(0x0a, pb::Void { from: 3, to: 9, reason: 1, hash: id(6) }.encode_to_vec()),
        of(0x0c, transfer.encode_to_vec()),
        of(0x0e, close.encode_to_vec()),
        world::group_message(),
        world::group_link_entry(),
        of(0x14, world::group_void().encode_to_vec()),
        of(0x16, group_notice.encode_to_vec()),
    ]
}
