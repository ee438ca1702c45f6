//! Places in a log, signed heads, votes, and which history comes first.

use prost::Message as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidings_proto::chain::group::{GroupChange, ServerSigner};
use tidings_proto::group_log::{GroupHead, GroupPosition, Proposal, link_entry, message_entry};
use tidings_proto::id::Hash;
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use crate::crowd::{Crowd, reference, signer};
use crate::vector::File;
use crate::world::{key, link_json};

fn shown(at: &GroupPosition) -> Value {
    json!({"term": at.term.to_string(), "seq": at.seq.to_string(), "hash": at.hash.to_string()})
}

/// The running hash of 3.2, without the library.
fn after(at: GroupPosition, term: u64, digest: &[u8]) -> GroupPosition {
    let hash: [u8; 32] = Sha256::digest([b"tidings/1 log\0", &at.hash.0[..], digest].concat()).into();
    GroupPosition { term, seq: at.seq + 1, hash: Hash(hash) }
}

fn entry(bytes: &[u8]) -> Value {
    json!({"entry": hex::encode(bytes)})
}

fn void(void: &pb::GroupVoid) -> Value {
    json!({"void": hex::encode(void.encode_to_vec())})
}

/// A group whose log a reader has up to its head.
struct Scene {
    crowd: Crowd,
    at: GroupPosition,
}

impl Scene {
    fn new() -> Self {
        let crowd = Crowd::full();
        let (mut at, mut seq) = (GroupPosition::START, 0);
        for link in &crowd.links {
            seq += 1;
            let bytes = link_entry(&crowd.state.group(), 1, seq, link.clone());
            at = after(at, 1, &Sha256::digest(&bytes));
        }
        Self { crowd, at }
    }

    fn inputs(&self, entries: &[Value]) -> Value {
        let state = hex::encode(self.crowd.state.encode());
        json!({"state": state, "position": shown(&self.at), "entries": entries})
    }

    fn message(&self, term: u64, seq: u64) -> Vec<u8> {
        let post = pb::GroupPost { number: seq, ciphertext: "sealed".into(), ..Default::default() };
        message_entry(&self.crowd.state.group(), term, seq, post).to_vec()
    }

    fn entry(&self, kind: u64, term: u64, seq: u64) -> Vec<u8> {
        let head = pb::GroupEntryHead { group: self.crowd.state.group().to_bytes(), term, seq };
        pb::Entry { r#type: kind, body: head.encode_to_vec().into() }.encode_to_vec()
    }

    fn link(&self, term: u64, link: pb::Link) -> Vec<u8> {
        link_entry(&self.crowd.state.group(), term, self.at.seq + 1, link).to_vec()
    }

    fn succession(&self, from: GroupPosition) -> pb::Link {
        let change =
            GroupChange::HubSuccession { term: 3, from, hub: self.crowd.signer(1), votes: Vec::new() };
        self.crowd.link_with(0, 1, &change)
    }

    fn head(&self, stable: u64) -> GroupHead {
        let hub = self.crowd.signer(0);
        GroupHead { group: self.crowd.state.group(), position: self.at, stable, hub }
    }
}

pub(crate) fn logs() -> File {
    let question = "A reader with this state, at this position, gets these entries, the last of which may be a link: \
                    at which position is it then?";
    let mut file = File::new("07-groups", "group-log", question);
    taken(&mut file);
    refused(&mut file);
    file
}

fn taken(file: &mut File) {
    let scene = Scene::new();
    let next = scene.at.seq + 1;
    let two = [scene.message(1, next), scene.message(1, next + 1)];
    let digests: Vec<Vec<u8>> = two.iter().map(|bytes| Sha256::digest(bytes).to_vec()).collect();
    let end = digests.iter().fold(scene.at, |at, digest| after(at, 1, digest));
    let odd = scene.entry(0x41, 1, next);
    let transfer =
        scene.link(1, scene.crowd.link_with(0, 1, &GroupChange::HubTransfer(scene.crowd.signer(1))));
    let succession = scene.link(3, scene.succession(scene.at));
    let voided = pb::GroupVoid {
        group: scene.crowd.state.group().to_bytes(),
        from: next,
        to: next + 1,
        entries: Some(pb::VoidedEntries {
            hashes: digests.iter().map(|digest| digest.clone().into()).collect(),
        }),
    };
    let single = |bytes: &[u8], term| after(scene.at, term, &Sha256::digest(bytes));
    for (comment, entries, at) in [
        ("two messages", vec![entry(&two[0]), entry(&two[1])], end),
        ("a void in the place of both: the same hash", vec![void(&voided)], end),
        ("an odd type that is not known", vec![entry(&odd)], single(&odd, 1)),
        ("a transfer is the last entry of its term", vec![entry(&transfer)], single(&transfer, 1)),
        ("a succession is the first entry of its term", vec![entry(&succession)], single(&succession, 3)),
        ("nothing", Vec::new(), scene.at),
    ] {
        file.valid(&["GRP-021"], comment, scene.inputs(&entries), shown(&at));
    }
}

fn refused(file: &mut File) {
    let scene = Scene::new();
    let (next, group) = (scene.at.seq + 1, scene.crowd.state.group().to_bytes());
    let bad = GroupPosition { hash: Hash([9; 32]), ..scene.at };
    let elsewhere = message_entry(&[9; 32].into(), 1, next, pb::GroupPost::default()).to_vec();
    let transfer = scene.crowd.link_with(0, 1, &GroupChange::HubTransfer(scene.crowd.signer(1)));
    let voided = |from, to, count: usize, length: usize| {
        let hashes = vec![vec![9; length].into(); count];
        void(&pb::GroupVoid { group: group.clone(), from, to, entries: Some(pb::VoidedEntries { hashes }) })
    };
    let foreign = pb::GroupVoid {
        group: vec![9; 32].into(),
        from: next,
        to: next,
        entries: Some(pb::VoidedEntries { hashes: vec![vec![9; 32].into()] }),
    };
    for (comment, entries) in [
        ("the number of the last entry", entry(&scene.message(1, next - 1))),
        ("a number left out", entry(&scene.message(1, next + 1))),
        ("a term to come", entry(&scene.message(2, next))),
        ("no term", entry(&scene.message(0, next))),
        ("of another group", entry(&elsewhere)),
        ("an even type that is not known", entry(&scene.entry(0x40, 1, next))),
        ("a message without a post", entry(&scene.entry(0x10, 1, next))),
        ("a link entry without a link", entry(&scene.entry(0x12, 1, next))),
        ("a void shipped as an entry", entry(&scene.entry(0x14, 1, next))),
        ("a transfer that carries the term it leads to", entry(&scene.link(2, transfer))),
        ("a succession that carries the term before", entry(&scene.link(1, scene.succession(scene.at)))),
        ("a succession from another place", entry(&scene.link(3, scene.succession(bad)))),
        ("a void that begins later", voided(next + 1, next + 1, 1, 32)),
        ("a void that begins earlier", voided(next - 1, next, 2, 32)),
        ("a void with a hash too few", voided(next, next + 1, 1, 32)),
        ("a void with a hash too many", voided(next, next, 2, 32)),
        ("a void of nothing", voided(next, next - 1, 0, 32)),
        ("a void with a hash of 31 bytes", voided(next, next, 1, 31)),
        ("a void of another group", void(&foreign)),
        ("bytes that are no entry", entry(&[0x0a])),
    ] {
        file.invalid(&["GRP-021"], comment, "", scene.inputs(&[entries]));
    }
    let mut inputs = scene.inputs(&[]);
    for (comment, term, seq, hash) in [
        ("a position before the first entry with a hash", 0, 0, "09"),
        ("a position before the first entry with a term", 1, 0, "00"),
        ("a position without a term", 0, 3, "09"),
    ] {
        inputs["position"] =
            json!({"term": term.to_string(), "seq": seq.to_string(), "hash": hash.repeat(32)});
        file.invalid(&["GRP-021"], comment, "", inputs.clone());
    }
}

pub(crate) fn heads() -> File {
    let question =
        "Did a server sign this head, with a key that its chain lists, and what does the head say?";
    let mut file = File::new("07-groups", "group-head", question);
    let scene = Scene::new();
    let servers = scene.crowd.servers_json();
    let of = |signed: &pb::SignedGroupHead| {
        let signature = hex::encode(&signed.signature);
        json!({"body": hex::encode(&signed.body), "signature": signature, "servers": servers})
    };
    for (comment, stable) in [("nothing is stable", 0), ("all is stable", scene.at.seq)] {
        let output = json!({
            "group": scene.crowd.state.group().to_string(),
            "position": shown(&scene.at),
            "stable": stable.to_string(),
            "server": scene.crowd.homes[0].chain.server_id().to_string(),
        });
        file.valid(&["GRP-020"], comment, of(&scene.head(stable).sign(&key(11))), output);
    }
    let good = scene.head(3);
    let signed = good.sign(&key(11));
    let hub = |hub: ServerSigner, by: u8| GroupHead { hub, ..good.clone() }.sign(&key(by));
    let mine = scene.crowd.signer(0);
    let vote = key(11).sign(Purpose::KEEPER_VOTE, &signed.body).to_bytes();
    let with = |change: fn(&mut pb::GroupHead)| {
        let mut head = pb::GroupHead::decode(signed.body.clone()).expect("a head");
        change(&mut head);
        let body = head.encode_to_vec();
        let signature = key(11).sign(Purpose::LOG_HEAD, &body).to_bytes();
        pb::SignedGroupHead { body: body.into(), signature }
    };
    let loose = [signed.body.as_ref(), &[0x18, 0x01]].concat();
    for (comment, signed) in [
        ("signed by another key", good.sign(&key(21))),
        ("signed as a vote", pb::SignedGroupHead { signature: vote, ..signed.clone() }),
        ("without a signature", pb::SignedGroupHead { signature: Vec::new().into(), ..signed.clone() }),
        ("more is stable than there is", scene.head(scene.at.seq + 1).sign(&key(11))),
        ("the root key", hub(ServerSigner { key: key(10).public(), ..mine.clone() }, 10)),
        ("a server head that is not known", hub(ServerSigner { head: [9; 32].into(), ..mine.clone() }, 11)),
        (
            "another domain",
            hub(
                ServerSigner {
                    server: tidings_proto::chain::group::ServerRef {
                        domain: scene.crowd.people[2].domain(),
                        ..mine.server.clone()
                    },
                    ..mine
                },
                11,
            ),
        ),
        ("no position", with(|head| head.position = None)),
        ("a position without a term", with(|head| head.position.as_mut().expect("one").term = 0)),
        ("no server", with(|head| head.hub = None)),
        ("a group of 31 bytes", with(|head| head.group = vec![9; 31].into())),
        ("a field out of order", pb::SignedGroupHead { body: loose.into(), ..signed }),
    ] {
        file.invalid(&["GRP-020"], comment, "", of(&signed));
    }
    file
}

pub(crate) fn votes() -> File {
    let question = "Did a server sign this vote, with a key that its chain lists, and what is it for?";
    let mut file = File::new("07-groups", "group-vote", question);
    let scene = Scene::new();
    let servers = scene.crowd.servers_json();
    let of = |signed: &pb::SignedVote| {
        let signature = hex::encode(&signed.signature);
        json!({"body": hex::encode(&signed.body), "signature": signature, "servers": servers})
    };
    let hub = reference(&scene.crowd.homes[1]);
    let asked = Proposal { group: scene.crowd.state.group(), term: 2, from: scene.at, hub };
    let vote = asked.clone().vote(scene.crowd.signer(2));
    let good = vote.sign(&key(26));
    let output = json!({
        "group": scene.crowd.state.group().to_string(),
        "term": "2",
        "from": shown(&scene.at),
        "hub": scene.crowd.homes[1].chain.server_id().to_string(),
        "keeper": scene.crowd.homes[2].chain.server_id().to_string(),
    });
    file.valid(&["GRP-112"], "a vote", of(&good), output);
    let head = key(26).sign(Purpose::LOG_HEAD, &good.body).to_bytes();
    let with = |change: fn(&mut pb::KeeperVote)| {
        let mut vote = pb::KeeperVote::decode(good.body.clone()).expect("a vote");
        change(&mut vote);
        let body = vote.encode_to_vec();
        let signature = key(26).sign(Purpose::KEEPER_VOTE, &body).to_bytes();
        pb::SignedVote { body: body.into(), signature }
    };
    let root = asked.vote(ServerSigner { key: key(25).public(), ..signer(&scene.crowd.homes[2], &key(26)) });
    for (comment, signed) in [
        ("signed by another key", vote.sign(&key(21))),
        ("signed as a head", pb::SignedVote { signature: head, ..good.clone() }),
        ("the root key", root.sign(&key(25))),
        ("no keeper: a proposal", with(|vote| vote.keeper = None)),
        ("no hub", with(|vote| vote.hub = None)),
        ("no place", with(|vote| vote.from = None)),
        ("a place without a term", with(|vote| vote.from.as_mut().expect("one").term = 0)),
        (
            "a keeper under another domain",
            with(|vote| {
                let server = vote.keeper.as_mut().and_then(|keeper| keeper.server.as_mut());
                server.expect("a server").domain = "b.example".into();
            }),
        ),
    ] {
        file.invalid(&["GRP-112"], comment, "", of(&signed));
    }
    file
}

pub(crate) fn terms() -> File {
    let question =
        "Two valid histories end with these links, each the first of its term: which is the group's?";
    let mut file = File::new("07-groups", "group-term", question);
    let scene = Scene::new();
    let crowd = &scene.crowd;
    let link = |term, hub: usize, keepers: &[usize]| {
        let asked =
            Proposal { group: crowd.state.group(), term, from: scene.at, hub: reference(&crowd.homes[hub]) };
        let vote = |keeper: &usize| asked.clone().vote(crowd.signer(*keeper)).sign(&Crowd::home_key(*keeper));
        let votes: Vec<_> = keepers.iter().map(vote).collect();
        let voted = !votes.is_empty();
        let change = GroupChange::HubSuccession { term, from: scene.at, hub: crowd.signer(hub), votes };
        if voted { crowd.link_by(hub, &change) } else { crowd.link_with(0, hub, &change) }
    };
    let transfer = |hub: usize| crowd.link_with(0, hub, &GroupChange::HubTransfer(crowd.signer(hub)));
    let (voted, other) = (link(2, 1, &[0, 1]), link(2, 2, &[0, 2]));
    let (owner, handed) = (link(2, 1, &[]), transfer(2));
    let later = link(3, 2, &[]);
    for (comment, a, b) in [
        ("two with votes: the lower id", &voted, &other),
        ("votes before an owner", &owner, &voted),
        ("votes before a transfer", &handed, &voted),
        ("an owner's and a transfer: the lower id", &owner, &handed),
        ("the higher term, whoever signed", &voted, &later),
    ] {
        let ids = [a, b].map(|link| tidings_proto::chain::link_id(Purpose::GROUP_LINK, &link.body));
        let lower = if ids[0] < ids[1] { "a" } else { "b" };
        let first = if comment.ends_with("lower id") { lower } else { "b" };
        let inputs = json!({"a": link_json(a), "b": link_json(b)});
        let vector = file.valid(&["GRP-025"], comment, inputs, json!({"first": first}));
        vector.steps(json!({"ids": ids.map(|id| id.to_string())}));
    }
    file
}
