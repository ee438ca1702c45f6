//! Fixed keys, chains and handshakes from which seeds are made.

use std::sync::LazyLock;

use prost::Message as _;
use tidings_proto::chain::{AccountChange, AccountState, DeviceKeys, ServerChange, ServerState, Verified};
use tidings_proto::chain::{account, server};
use tidings_proto::id::{Incarnation, LinkId};
use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

/// The keys of this world: all links of seeds are signed by them, and mutated links are signed again.
pub(crate) const RECOVERY: u8 = 1;
pub(crate) const NEW_RECOVERY: u8 = 2;
pub(crate) const PHONE: u8 = 3;
pub(crate) const LAPTOP: u8 = 4;
pub(crate) const ROOT: u8 = 5;
pub(crate) const ONLINE: u8 = 6;
pub(crate) const NEW_ONLINE: u8 = 7;
pub(crate) const PEER_ROOT: u8 = 8;
pub(crate) const PEER_ONLINE: u8 = 9;

pub(crate) fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&[number; 32])
}

pub(crate) fn keys() -> Vec<SigningKey> {
    (RECOVERY..=PEER_ONLINE).map(key).collect()
}

pub(crate) fn domain(text: &str) -> Domain {
    Domain::parse(text).expect("a domain")
}

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

fn device(number: u8) -> DeviceKeys {
    let mut identity_key = [number; 33];
    identity_key[0] = 5;
    DeviceKeys::new(key(number).public(), &identity_key, u32::from(number)).expect("a device's keys")
}

/// An account chain with a link of every type.
pub(crate) fn account_links() -> &'static [pb::Link] {
    static LINKS: LazyLock<Vec<pb::Link>> = LazyLock::new(make_account_links);
    &LINKS
}

fn make_account_links() -> Vec<pb::Link> {
    let body =
        account::genesis_body(&key(RECOVERY).public(), &address("alice@a.example"), &device(PHONE), [7; 16]);
    let mut links = vec![account::genesis(body, &key(RECOVERY), &key(PHONE))];
    let mut chain = Verified::<AccountState>::verify(&links).expect("a genesis");
    let laptop: LinkId =
        add(&mut chain, &mut links, &AccountChange::AddDevice(device(LAPTOP)), &[PHONE, LAPTOP]);
    let changes = [
        (AccountChange::ChangeAddress(address("alice@b.example")), vec![RECOVERY]),
        (AccountChange::Checkpoint, vec![RECOVERY]),
        (AccountChange::RemoveDevice(laptop.into()), vec![PHONE]),
        (AccountChange::RotateRecovery(key(NEW_RECOVERY).public()), vec![RECOVERY, NEW_RECOVERY]),
        (AccountChange::EndFork(LinkId([9; 32])), vec![NEW_RECOVERY]),
        (AccountChange::Close("moved".to_owned()), vec![NEW_RECOVERY]),
    ];
    for (change, signers) in changes {
        add(&mut chain, &mut links, &change, &signers);
    }
    links
}

fn add(
    chain: &mut Verified<AccountState>,
    links: &mut Vec<pb::Link>,
    change: &AccountChange,
    signers: &[u8],
) -> LinkId {
    let keys: Vec<SigningKey> = signers.iter().copied().map(key).collect();
    let link = chain.link(change, &keys.iter().collect::<Vec<_>>());
    let id = chain.append(&link).expect("a link that fits");
    links.push(link);
    id
}

/// A server chain with a link of every type.
pub(crate) fn server_links() -> &'static [pb::Link] {
    static LINKS: LazyLock<Vec<pb::Link>> = LazyLock::new(make_server_links);
    &LINKS
}

fn make_server_links() -> Vec<pb::Link> {
    let mut links =
        vec![server::genesis(&domain("a.example"), &key(ROOT), &key(ONLINE), Incarnation([1; 16]))];
    let mut chain = Verified::<ServerState>::verify(&links).expect("a genesis");
    let changes = [
        (ServerChange::AddOnlineKey(key(NEW_ONLINE).public()), vec![ROOT, NEW_ONLINE]),
        (ServerChange::NewIncarnation(Incarnation([2; 16])), vec![NEW_ONLINE]),
        (ServerChange::RetireOnlineKey(key(NEW_ONLINE).public().id()), vec![ROOT]),
    ];
    for (change, signers) in changes {
        let keys: Vec<SigningKey> = signers.iter().copied().map(key).collect();
        let link = chain.link(&change, &keys.iter().collect::<Vec<_>>());
        chain.append(&link).expect("a link that fits");
        links.push(link);
    }
    links
}

/// The body of a device's record.
pub(crate) fn device_record() -> Vec<u8> {
    let id = |byte: u8| vec![byte; 32].into();
    pb::DeviceRecord { account: id(1), device: id(2), version: 3, capabilities: vec![0, 2, 0x21] }
        .encode_to_vec()
}

/// The body of a report of a message that cannot be read.
pub(crate) fn report() -> Vec<u8> {
    let id = |byte: u8| vec![byte; 32].into();
    let lane =
        pb::LaneId { sender: id(4), recipient: id(5), address_links: 1, incarnation: vec![6; 16].into() };
    let report = pb::UndecryptableReport {
        reporter_account: id(1),
        reporter_device: id(2),
        sender_device: id(3),
        lane: Some(lane),
        number: 9,
        ciphertext_hash: id(7),
    };
    report.encode_to_vec()
}

/// The chain of another server.
pub(crate) fn peer_links() -> &'static [pb::Link] {
    static LINKS: LazyLock<Vec<pb::Link>> = LazyLock::new(make_peer_links);
    &LINKS
}

fn make_peer_links() -> Vec<pb::Link> {
    vec![server::genesis(&domain("b.example"), &key(PEER_ROOT), &key(PEER_ONLINE), Incarnation([3; 16]))]
}
