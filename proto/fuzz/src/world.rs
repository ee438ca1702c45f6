//! Fixed keys, chains and handshakes from which seeds are made.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::chain::group::{
    self, Author, Chains, GroupChange, GroupState, NewGroup, Policy, Rank, ServerRef, ServerSigner,
};
use tidings_proto::chain::{AccountChange, AccountState, DeviceKeys, ServerChange, ServerState, Verified};
use tidings_proto::chain::{account, link_id, server};
use tidings_proto::group_log::{GroupPosition, Proposal, link_entry, message_entry};
use tidings_proto::id::{GroupId, Hash, Incarnation, LinkId};
use tidings_proto::name::{Address, Domain};
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, SigningKey, sha256};

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

/// The chains that links of the group name: its two members' and its two homes'.
pub(crate) fn group_chains() -> &'static Chains {
    static CHAINS: LazyLock<Chains> = LazyLock::new(|| {
        let mut chains = Chains::new();
        chains.add_account(account_links()).expect("a good chain");
        chains.add_account(&[second_account()]).expect("a good chain");
        chains.add_server(server_links()).expect("a good chain");
        chains.add_server(peer_links()).expect("a good chain");
        chains
    });
    &CHAINS
}

/// The account of the second member: the key of its device is the laptop's.
fn second_account() -> pb::Link {
    let address = address("bob@b.example");
    let body = account::genesis_body(&key(NEW_RECOVERY).public(), &address, &device(LAPTOP), [8; 16]);
    account::genesis(body, &key(NEW_RECOVERY), &key(LAPTOP))
}

fn author(links: &[pb::Link]) -> Author {
    let chain = Verified::<AccountState>::verify(links).expect("a good chain");
    let number = u64::try_from(chain.len() - 1).expect("small");
    let (account, head) = (chain.account_id(), chain.head());
    Author { account, device: account.0.into(), head, number }
}

/// The hub of the group, as of its genesis.
pub(crate) fn group_hub() -> ServerSigner {
    home(&server_links()[..1], ONLINE)
}

fn home(links: &[pb::Link], online: u8) -> ServerSigner {
    let chain = Verified::<ServerState>::verify(links).expect("a good chain");
    let server = ServerRef { domain: chain.state().domain().clone(), genesis: chain.server_id() };
    ServerSigner { server, head: chain.head(), key: key(online).public() }
}

/// A group's chain with a link of every type.
pub(crate) fn group_links() -> &'static [pb::Link] {
    static LINKS: LazyLock<Vec<pb::Link>> = LazyLock::new(make_group_links);
    &LINKS
}

/// One step: the author's account links and key, the change, and the key of a server that signs too.
type Step = (Option<(Author, u8)>, GroupChange, Option<u8>);

fn make_group_links() -> Vec<pb::Link> {
    let (alice, bob) = (author(&account_links()[..1]), author(&[second_account()]));
    let new = NewGroup {
        salt: [5; 16],
        address: address("alice@a.example"),
        hub: group_hub().server,
        policy: Policy::default(),
        profile: Bytes::from_static(b"sealed"),
    };
    let mut links = vec![group::genesis(&alice, &new, &key(PHONE))];
    let mut state = GroupState::genesis(&links[0], group_chains()).expect("a genesis");
    let (hub, peer) = (group_hub(), home(peer_links(), PEER_ONLINE));
    let from = GroupPosition { term: 2, seq: 100, hash: Hash([3; 32]) };
    let asked = Proposal { group: state.group(), term: 5, from, hub: hub.server.clone() };
    let vote = |keeper: &ServerSigner, online: u8| asked.clone().vote(keeper.clone()).sign(&key(online));
    let votes = vec![vote(&hub, ONLINE), vote(&peer, PEER_ONLINE)];
    let by_alice = Some((alice, PHONE));
    let grown = Some((author(&account_links()[..2]), PHONE));
    let by_bob = Some((bob, LAPTOP));
    let succession = GroupChange::HubSuccession { term: 5, from, hub: hub.clone(), votes };
    let steps: Vec<Step> = vec![
        (by_alice, GroupChange::AddMembers(vec![(bob.account, domain("b.example"))]), None),
        (by_bob, GroupChange::Accept(domain("b.example")), None),
        (by_alice, GroupChange::SetRole(bob.account, Rank::Admin), None),
        (by_alice, GroupChange::SetPolicy(Policy { adds: Rank::Member, ..Policy::default() }), None),
        (by_bob, GroupChange::SetProfile(Bytes::from_static(b"other")), None),
        (by_alice, GroupChange::SetKeepers(vec![hub.server.clone(), peer.server.clone()]), None),
        (grown, GroupChange::Advance { domain: domain("a.example"), device_removed: false }, None),
        (grown, GroupChange::RequireFeature(4), None),
        (None, GroupChange::Checkpoint(hub), Some(ONLINE)),
        (grown, GroupChange::HubTransfer(peer), Some(PEER_ONLINE)),
        (None, succession, Some(ONLINE)),
        (grown, GroupChange::RemoveMembers(vec![bob.account]), None),
        (grown, GroupChange::Leave, None),
    ];
    for (author, change, server) in steps {
        let keys: Vec<SigningKey> = author.map(|(_, key)| key).into_iter().chain(server).map(key).collect();
        let by = author.map(|(author, _)| author);
        let link = state.link(by.as_ref(), &change, &keys.iter().collect::<Vec<_>>());
        state = state.apply(&link, group_chains()).expect("a link that fits");
        links.push(link);
    }
    links
}

fn group_id() -> GroupId {
    link_id(Purpose::GROUP_LINK, &group_links()[0].body).into()
}

/// The first entry of the group's log.
pub(crate) fn group_link_entry() -> Vec<u8> {
    link_entry(&group_id(), 1, 1, group_links()[0].clone()).to_vec()
}

/// The second.
pub(crate) fn group_message() -> Vec<u8> {
    let post = pb::GroupPost { number: 1, ciphertext: Bytes::from_static(b"sealed"), ..Default::default() };
    message_entry(&group_id(), 1, 2, post).to_vec()
}

/// A Void in its place.
pub(crate) fn group_void() -> pb::GroupVoid {
    let hashes = vec![sha256(&group_message()).to_bytes(), Bytes::from_static(&[7; 32])];
    let entries = Some(pb::VoidedEntries { hashes });
    pb::GroupVoid { group: group_id().to_bytes(), from: 2, to: 3, entries }
}
