//! Frames of groups.

use bytes::Bytes;
use prost::Message as _;
use tidings_proto::codec::Frame;
use tidings_proto::error::Code;
use tidings_proto::pb;

use super::{failure, id, some};
use crate::world::{account, server};

fn group() -> Bytes {
    id(0x60)
}

fn at(seq: u64) -> Option<pb::GroupPosition> {
    Some(pb::GroupPosition { term: 2, seq, hash: id(0xe0) })
}

fn hub() -> Option<pb::ServerRef> {
    Some(pb::ServerRef { domain: "a.example".into(), genesis: id(0x5a) })
}

fn post() -> pb::GroupPost {
    pb::GroupPost {
        sender: id(0xa1),
        sender_address: "alice@a.example".into(),
        sender_device: id(0xa2),
        number: 4,
        chain_head: id(0x61),
        chain_number: 3,
        ciphertext: Bytes::from_static(b"sealed"),
        commitment: id(0xcc),
        franking_tag: id(0xcd),
        accepted_at_ms: 1_700_000_000_000,
        expires_at_ms: 1_700_086_400_000,
    }
}

fn link() -> pb::Link {
    pb::Link { body: Bytes::from_static(b"body"), signatures: vec![some(65, 1)] }
}

fn evidence() -> pb::Evidence {
    let alice = account();
    pb::Evidence { chain: alice.chain.account_id().to_bytes(), links: alice.links, server: false }
}

fn hub_evidence() -> pb::Evidence {
    let home = server();
    pb::Evidence { chain: home.chain.genesis_id().to_bytes(), links: home.links, server: true }
}

fn record() -> pb::GroupRecord {
    let message = pb::GroupMessage { group: group(), term: 2, seq: 6, post: Some(post()) };
    let entry = pb::Entry { r#type: 0x10, body: message.encode_to_vec().into() };
    pb::GroupRecord { entry: entry.encode_to_vec().into(), evidence: Vec::new() }
}

fn head() -> Option<pb::SignedGroupHead> {
    let signer = pb::ServerSigner { server: hub(), head: id(0x5b), key: some(33, 1) };
    let head = pb::GroupHead { group: group(), position: at(6), stable: 5, hub: Some(signer) };
    Some(pb::SignedGroupHead { body: head.encode_to_vec().into(), signature: some(65, 2) })
}

fn place() -> pb::GroupPlace {
    pb::GroupPlace { term: 2, seq: 6 }
}

fn marks() -> Vec<pb::MemberMark> {
    vec![pb::MemberMark { account: id(0xa1), delivered: 6, read: 4 }]
}

/// On the event stream of a device.
pub(super) fn events() -> Vec<Frame> {
    vec![
        pb::GroupEvent { group: group(), record: Some(record()) }.into(),
        pb::GroupHeadEvent { head: head(), all_delivered: 4, all_read: 3, evidence: vec![hub_evidence()] }
            .into(),
        pb::GroupGap { group: group(), after: at(2), first: at(5) }.into(),
    ]
}

pub(super) fn all() -> Vec<Frame> {
    [log(), requests(), keepers(), device()].concat()
}

fn log() -> Vec<Frame> {
    let batch = pb::GroupBatch {
        group: group(),
        after: at(5),
        records: vec![record()],
        head: head(),
        all_delivered: 4,
        all_read: 3,
    };
    let taken = pb::GroupTaken {
        group: group(),
        taken: at(6),
        gone: true,
        refused: Some(failure(Code::GROUP_FENCED)),
        fence: vec![record()],
    };
    let placed = |number, result| pb::PlacedPost { device: id(0xa2), number, result: Some(result) };
    let results = vec![
        placed(4, pb::placed_post::Result::Place(place())),
        placed(5, pb::placed_post::Result::Refused(failure(Code::STALE_HEAD))),
    ];
    vec![
        batch.into(),
        taken.into(),
        pb::GroupOffer { group: group(), term: 2, posts: vec![post()] }.into(),
        pb::GroupPlaced { group: group(), results }.into(),
    ]
}

fn requests() -> Vec<Frame> {
    let append =
        pb::GroupAppend { group: group(), hub: hub(), link: Some(link()), evidence: vec![evidence()] };
    let fetch = pb::GroupFetch {
        group: group(),
        server: hub(),
        account: id(0xa1),
        after_seq: 5,
        from_state: true,
        state_offset: 65_536,
        links_only: true,
    };
    let number = pb::DeviceNumber { device: id(0xa2), number: 4, seq: 6, account: id(0xa1) };
    let page = pb::GroupPage {
        group: group(),
        state: Bytes::from_static(b"state"),
        state_more: true,
        state_at: at(3),
        records: vec![record()],
        more: true,
        head: head(),
        numbers: vec![number],
        first: at(2),
        evidence: vec![hub_evidence()],
    };
    vec![
        append.into(),
        pb::GroupAppended { group: group(), place: Some(place()), head: id(0x61) }.into(),
        pb::GroupCreate { links: vec![link()] }.into(),
        fetch.into(),
        page.into(),
        pb::GroupMarks { group: group(), marks: marks() }.into(),
        pb::GroupMarksFetch { group: group(), account: id(0xa1) }.into(),
        pb::GroupMarksTable { group: group(), marks: marks() }.into(),
    ]
}

fn keepers() -> Vec<Frame> {
    let proposal = pb::KeeperVote { group: group(), term: 3, from: at(6), hub: hub(), keeper: None };
    let keeper = pb::ServerSigner { server: hub(), head: id(0x5b), key: some(33, 1) };
    let vote = pb::KeeperVote { keeper: Some(keeper), ..proposal.clone() };
    let vote = pb::SignedVote { body: vote.encode_to_vec().into(), signature: some(65, 3) };
    vec![
        pb::KeeperAsk { group: group() }.into(),
        pb::KeeperState { group: group(), held: at(6), stable: 5, voted: 2, head: head() }.into(),
        pb::KeeperPropose { body: proposal.encode_to_vec().into(), head: head() }.into(),
        pb::KeeperVoted { vote: Some(vote), evidence: vec![hub_evidence()] }.into(),
    ]
}

fn device() -> Vec<Frame> {
    vec![
        pb::GroupAck { group: group(), position: at(6) }.into(),
        pb::GroupRewind { group: group(), after: at(2) }.into(),
        pb::GroupMarkRead { group: group(), upto: 6 }.into(),
    ]
}
