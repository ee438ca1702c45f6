//! One frame of every type, as the running story has it: what tests of frames and the examples in the text are made of.

mod groups;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::AccountChange;
use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use crate::world::{LAPTOP, PHONE, account, device, key, server};

/// 32 bytes that are told apart at a glance.
fn id(byte: u8) -> Bytes {
    vec![byte; 32].into()
}

fn some(length: usize, byte: u8) -> Bytes {
    vec![byte; length].into()
}

fn position(n: u64) -> Option<pb::Position> {
    Some(pb::Position { incarnation: some(16, 1), n, hash: if n == 0 { id(0) } else { id(0xe0) } })
}

fn failure(code: Code) -> pb::Failure {
    Refusal::from(code).to_pb()
}

fn lane() -> Option<pb::LaneId> {
    Some(pb::LaneId { sender: id(0xa1), recipient: id(0xb0), address_links: 1, incarnation: some(16, 1) })
}

fn payload(device: u8, kind: pb::PayloadKind) -> pb::Payload {
    pb::Payload { device: id(device), kind: kind.into(), ciphertext: Bytes::from_static(b"sealed") }
}

fn entry() -> Bytes {
    let void = pb::Void { from: 3, to: 5, reason: pb::VoidReason::Expired.into(), hash: id(0xe5) };
    pb::Entry { r#type: 0x0a, body: void.encode_to_vec().into() }.encode_to_vec().into()
}

fn signed_key(id: u32, length: usize) -> pb::SignedKey {
    pb::SignedKey { id, key: some(length, 0x50), signature: some(64, 0x51) }
}

fn record() -> pb::SignedRecord {
    let body = pb::DeviceRecord { account: id(0xa1), device: id(0xa2), version: 1, capabilities: vec![0, 2] };
    let body = body.encode_to_vec();
    let signature = key(PHONE).sign(Purpose::DEVICE_RECORD, &body).to_bytes();
    pb::SignedRecord { body: body.into(), signature }
}

fn publish() -> pb::PublishKeys {
    pb::PublishKeys {
        signed_prekey: Some(signed_key(1, 33)),
        kyber_last_resort: Some(signed_key(2, 40)),
        one_time: vec![pb::OneTimeKey { id: 3, key: some(33, 0x52) }],
        one_time_kyber: vec![signed_key(4, 40)],
        replace: true,
    }
}

/// Every frame of the registry, in its order.
pub(crate) fn all() -> Vec<Frame> {
    let frames = [session(), groups::events(), accounts(), messages(), links(), groups::all()].concat();
    assert!(frames.is_sorted_by_key(Frame::kind));
    frames
}

fn session() -> Vec<Frame> {
    let server = server();
    let device = pb::DeviceIdentity { account: id(0xa1), device: id(0xa2) };
    let hello = pb::Hello {
        identity: Some(pb::hello::Identity::Device(device)),
        boot_id: some(16, 0xb1),
        nonce: id(0xc1),
        proofs: vec![1, 2],
        capabilities: vec![0, 2],
        domain: "a.example".into(),
        server_genesis: server.chain.genesis_id().to_bytes(),
        server_head: server.chain.head().to_bytes(),
        software: "story/1".into(),
    };
    let welcome = pb::Welcome {
        boot_id: some(16, 0xb2),
        nonce: id(0xc2),
        proofs: vec![1, 2],
        capabilities: vec![0, 2],
        domain: "a.example".into(),
        server_genesis: server.chain.genesis_id().to_bytes(),
        server_chain: Vec::new(),
        incarnation: some(16, 1),
        limits: vec![pb::Limit { id: 1, value: 262_144 }, pb::Limit { id: 2, value: 65_536 }],
        registration: pb::Registration::Open.into(),
        opener_head: Bytes::new(),
        software: "home/1".into(),
    };
    let state = pb::DeviceState {
        mailbox_last: position(5),
        mailbox_first: 3,
        counter: 7,
        counter_digest: id(0xd7),
        account_head: id(0xa3),
        one_time_ec: 100,
        one_time_kyber: 99,
    };
    let key_id = key(PHONE).public().id().to_bytes();
    let going =
        pb::GoAway { reconnect_after_ms: 1000, jitter_ms: 500, reason: Some(failure(Code::GOING_AWAY)) };
    let opaque = Bytes::from_static(b"fence");
    vec![
        hello.into(),
        welcome.into(),
        pb::Proof { kind: 1, key_id, signature: some(65, 1) }.into(),
        pb::Ready { device: Some(state) }.into(),
        going.into(),
        pb::Ack { position: position(5) }.into(),
        pb::Ping { opaque: opaque.clone() }.into(),
        pb::Pong { opaque }.into(),
        pb::Done {}.into(),
        Refusal::from(Code::TOO_FAST).after(std::time::Duration::from_secs(2)).to_pb().into(),
        pb::Sync { after: position(0) }.into(),
        pb::Syncing { start: position(5) }.into(),
        pb::MailboxEntry { n: 3, entry: entry() }.into(),
    ]
}

fn accounts() -> Vec<Frame> {
    let alice = account();
    let add = alice.link(&AccountChange::AddDevice(device(LAPTOP)), &[PHONE, LAPTOP]);
    let register = pb::Register {
        genesis: alice.links.first().cloned(),
        token: "invitation".into(),
        keys: Some(publish()),
    };
    let resolved = pb::Resolved {
        account: id(0xb0),
        address: "bob@b.example".into(),
        links: alice.links,
        more: true,
        proof: Bytes::new(),
    };
    let bundle = pb::Bundle {
        device: id(0xb2),
        registration_id: 2,
        identity_key: some(33, 5),
        signed_prekey: Some(signed_key(1, 33)),
        kyber_prekey: Some(signed_key(4, 40)),
        one_time: Some(pb::OneTimeKey { id: 3, key: some(33, 0x52) }),
        record: Some(record()),
        kyber_last_resort: false,
    };
    let fetch = pb::FetchBundles {
        account: id(0xb0),
        address: "bob@b.example".into(),
        after: id(0xb3),
        devices: vec![id(0xb2)],
        asker: id(0xa1),
    };
    let resolve = pb::Resolve { address: "bob@b.example".into(), account: id(0xb0), after: id(0xb3) };
    let blob = Bytes::from_static(b"sealed");
    vec![
        register.into(),
        pb::AppendLink { link: Some(add) }.into(),
        resolve.into(),
        resolved.into(),
        pb::PublishRecord { record: Some(record()) }.into(),
        fetch.into(),
        pb::Bundles { account: id(0xb0), links: Vec::new(), bundles: vec![bundle] }.into(),
        publish().into(),
        pb::RendezvousJoin { id: some(16, 0x4d) }.into(),
        pb::RendezvousSend { blob: blob.clone() }.into(),
        pb::RendezvousReceive {}.into(),
        pb::RendezvousBlob { blob }.into(),
    ]
}

fn messages() -> Vec<Frame> {
    let submit = pb::Submit {
        counter: 8,
        class: pb::Class::Content.into(),
        to_account: id(0xb0),
        to_address: "bob@b.example".into(),
        to_head: id(0xb3),
        own_head: id(0xa3),
        lifetime_secs: 86_400,
        payloads: vec![payload(0xb2, pb::PayloadKind::Prekey)],
        own_payloads: vec![payload(0xa4, pb::PayloadKind::Message)],
        commitment: id(0xcc),
        ..Default::default()
    };
    let accepted = pb::Accepted {
        lane: lane(),
        number: 1,
        accepted_at_ms: 1_700_000_000_000,
        expires_at_ms: 1_700_086_400_000,
        local: false,
        place: None,
    };
    vec![
        submit.into(),
        pb::Outcome { counter: 8, result: Some(pb::outcome::Result::Accepted(accepted)) }.into(),
        pb::MarkRead { lane: lane(), upto: 9, except: vec![4, 7] }.into(),
        pb::Decide { account: id(0xa1), decision: pb::Decision::Accept.into() }.into(),
    ]
}

fn links() -> Vec<Frame> {
    let refusals = vec![pb::EntryResult { n: 4, refused: Some(failure(Code::NOT_HERE)) }];
    vec![
        pb::LinkResume { taken: position(5), refusals: refusals.clone() }.into(),
        pb::LinkEntry { incarnation: some(16, 1), n: 3, entry: entry() }.into(),
        pb::LinkAck { taken: position(6), refusals }.into(),
        pb::ResultsSeen { upto: 6 }.into(),
        pb::Pause { for_ms: 30_000, reason: Some(failure(Code::UNAVAILABLE)) }.into(),
        pb::LinkRestart { incarnation: some(16, 2), previous_incarnation: some(16, 1) }.into(),
    ]
}
