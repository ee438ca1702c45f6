use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::chain::LinkError;
use crate::chain::group::tests::world::{Home, World, key};
use crate::chain::group::{Chains, GroupChange, ServerSigner};
use crate::id::LinkId;
use crate::sign::Purpose;

/// A group with the log of its links.
struct Log {
    world: World,
    entries: Vec<bytes::Bytes>,
    at: GroupPosition,
}

impl Log {
    fn new() -> Self {
        let world = World::new();
        let first = link_entry(&world.state.group(), 1, 1, world.links[0].clone());
        let (at, entry) = GroupPosition::START.follow(&world.state, &first).unwrap();
        assert_eq!(entry.link(), Some(&world.links[0]));
        Self { world, entries: vec![first], at }
    }

    fn message(&self, term: u64, seq: u64, text: &'static str) -> bytes::Bytes {
        let post = pb::GroupPost { number: seq, ciphertext: text.into(), ..Default::default() };
        message_entry(&self.world.state.group(), term, seq, post)
    }

    fn follow(&self, entry: &[u8]) -> Result<GroupPosition, GroupLogError> {
        self.at.follow(&self.world.state, entry).map(|(at, _)| at)
    }

    fn push(&mut self, entry: bytes::Bytes) {
        let (at, parsed) = self.at.follow(&self.world.state, &entry).unwrap();
        if let Some(link) = parsed.link() {
            self.world.push(link.clone());
        }
        self.at = at;
        self.entries.push(entry);
    }

    fn link(&self, term: u64, link: &pb::Link) -> bytes::Bytes {
        link_entry(&self.world.state.group(), term, self.at.seq + 1, link.clone())
    }

    fn head(&self, home: usize) -> GroupHead {
        let hub = self.world.homes[home].signer();
        GroupHead { group: self.world.state.group(), position: self.at, stable: 1, hub }
    }
}

#[test]
fn the_hash_is_the_one_of_all_logs() {
    let mut log = Log::new();
    let second = log.message(1, 2, "hello");
    let expected = next_hash(&next_hash(&Hash::ZERO, &log.entries[0]), &second);
    log.push(second);
    assert_eq!((log.at.term, log.at.seq, log.at.hash), (1, 2, expected));
}

#[test]
fn entries_follow_one_by_one_in_their_group_and_term() {
    let log = Log::new();
    let good = log.message(1, 2, "hello");
    assert_eq!(log.follow(&good).map(|at| at.seq), Ok(2));
    assert_eq!(log.follow(&log.message(1, 1, "x")), Err(GroupLogError::NotNext { expected: 2, got: 1 }));
    assert_eq!(log.follow(&log.message(1, 3, "x")), Err(GroupLogError::NotNext { expected: 2, got: 3 }));
    assert_eq!(log.follow(&log.message(2, 2, "x")), Err(GroupLogError::Term { expected: 1, got: 2 }));
    assert_eq!(log.follow(&log.message(0, 2, "x")), Err(GroupLogError::Term { expected: 1, got: 0 }));
    let elsewhere = message_entry(&GroupId([1; 32]), 1, 2, pb::GroupPost::default());
    assert_eq!(log.follow(&elsewhere), Err(GroupLogError::OtherGroup));
    let last = GroupPosition { seq: u64::MAX, ..log.at };
    assert!(last.follow(&log.world.state, &good).is_err());
}

#[test]
fn entries_of_other_types_are_skipped_or_stop() {
    let log = Log::new();
    let group = log.world.state.group();
    let head = pb::GroupEntryHead { group: group.to_bytes(), term: 1, seq: 2 };
    let entry = |kind, body: Vec<u8>| pb::Entry { r#type: kind, body: body.into() }.encode_to_vec();
    let odd = entry(0x41, head.encode_to_vec());
    let (at, parsed) = log.at.follow(&log.world.state, &odd).unwrap();
    assert_eq!(
        (at, parsed),
        (log.at.after(1, &odd).unwrap(), GroupEntry::Other { kind: 0x41, head: head.clone(), group })
    );
    let even = entry(0x40, head.encode_to_vec());
    assert_eq!(log.follow(&even), Err(GroupLogError::UnknownCritical(0x40)));
    let void = entry(crate::entries::GROUP_VOID, head.encode_to_vec());
    assert_eq!(
        log.follow(&void),
        Err(GroupLogError::UnknownCritical(0x14)),
        "a void stands in the place of entries"
    );
    let empty = entry(crate::entries::GROUP_MESSAGE, head.encode_to_vec());
    assert_eq!(log.follow(&empty), Err(GroupLogError::Empty(0x10)));
    let empty = entry(crate::entries::GROUP_LINK, head.encode_to_vec());
    assert_eq!(log.follow(&empty), Err(GroupLogError::Empty(0x12)));
}

#[test]
fn a_void_stands_for_messages_and_keeps_the_hash() {
    let mut log = Log::new();
    let (before, state) = (log.at, log.world.state.clone());
    let mut hashes = Vec::new();
    for seq in 2..6 {
        let entry = log.message(1, seq, "gone");
        hashes.push(crate::sign::sha256(&entry).to_bytes());
        log.push(entry);
    }
    let void = |from, to, hashes: &[bytes::Bytes]| pb::GroupVoid {
        group: state.group().to_bytes(),
        from,
        to,
        entries: Some(pb::VoidedEntries { hashes: hashes.to_vec() }),
    };
    assert_eq!(before.past_void(&state, &void(2, 5, &hashes)), Ok(log.at));
    let refused = |void: &pb::GroupVoid| before.past_void(&state, void).unwrap_err();
    assert_eq!(refused(&void(2, 4, &hashes)), GroupLogError::Void { from: 2, to: 4, hashes: 4 });
    assert_eq!(refused(&void(3, 6, &hashes)), GroupLogError::Void { from: 3, to: 6, hashes: 4 });
    assert_eq!(refused(&void(2, 1, &[])), GroupLogError::Void { from: 2, to: 1, hashes: 0 });
    assert!(matches!(refused(&void(2, 2, &[vec![1; 31].into()])), GroupLogError::Id(_)));
    let elsewhere = pb::GroupVoid { group: vec![1; 32].into(), ..void(2, 5, &hashes) };
    assert_eq!(refused(&elsewhere), GroupLogError::OtherGroup);
    let last = GroupPosition { seq: u64::MAX - 1, ..before };
    assert!(last.past_void(&state, &void(u64::MAX, u64::MAX, &hashes)).is_err());
}

#[test]
fn a_transfer_ends_the_old_term_and_the_new_one_goes_on() {
    let mut log = Log::new();
    let transfer = log.world.link_with(0, 1, &GroupChange::HubTransfer(log.world.homes[1].signer()));
    assert_eq!(log.follow(&log.link(2, &transfer)), Err(GroupLogError::Term { expected: 1, got: 2 }));
    log.push(log.link(1, &transfer));
    assert_eq!((log.at.term, log.world.state.term()), (1, 2));
    assert_eq!(log.follow(&log.message(1, 3, "x")), Err(GroupLogError::Term { expected: 2, got: 1 }));
    log.push(log.message(2, 3, "x"));
    assert_eq!(log.at.term, 2);
}

#[test]
fn a_succession_begins_its_term_where_it_says() {
    let mut log = Log::new();
    let succession = |from| {
        let change =
            GroupChange::HubSuccession { term: 3, from, hub: log.world.homes[1].signer(), votes: Vec::new() };
        log.world.link_with(0, 1, &change)
    };
    let elsewhere = GroupPosition { hash: Hash([1; 32]), ..log.at };
    assert_eq!(log.follow(&log.link(3, &succession(elsewhere))), Err(GroupLogError::From));
    let good = succession(log.at);
    assert_eq!(log.follow(&log.link(1, &good)), Err(GroupLogError::Term { expected: 3, got: 1 }));
    log.push(log.link(3, &good));
    assert_eq!((log.at.term, log.world.state.term()), (3, 3));
}

#[test]
fn positions_before_the_first_entry_are_zeros() {
    let read = |term, seq, hash: Hash| {
        GroupPosition::parse(Some(&pb::GroupPosition { term, seq, hash: hash.to_bytes() }))
    };
    assert_eq!(read(0, 0, Hash::ZERO), Ok(GroupPosition::START));
    assert_eq!(read(1, 0, Hash::ZERO), Err(GroupLogError::Position { term: 1, seq: 0 }));
    assert_eq!(read(0, 0, Hash([1; 32])), Err(GroupLogError::Position { term: 0, seq: 0 }));
    assert_eq!(read(0, 1, Hash([1; 32])), Err(GroupLogError::Position { term: 0, seq: 1 }));
    assert!(read(1, 1, Hash([1; 32])).is_ok());
    assert!(GroupPosition::parse(None).is_err());
    assert!(matches!(GroupPosition::parse(Some(&pb::GroupPosition::default())), Err(GroupLogError::Id(_))));
}

#[test]
fn a_head_is_signed_by_a_server_and_says_no_more_than_there_is() {
    let log = Log::new();
    let (head, hub) = (log.head(0), &log.world.homes[0]);
    let signed = head.sign(&hub.key());
    assert_eq!(GroupHead::verify(&signed, &log.world.chains), Ok(head.clone()));
    assert!(head.is_of(&log.world.state));
    assert!(!log.head(1).is_of(&log.world.state), "not the hub");
    let refused = |signed: &pb::SignedGroupHead| GroupHead::verify(signed, &log.world.chains).unwrap_err();
    assert!(matches!(refused(&head.sign(&key(3))), GroupLogError::Signature(_)));
    let vote = pb::SignedGroupHead {
        signature: hub.key().sign(Purpose::KEEPER_VOTE, &signed.body).to_bytes(),
        ..signed.clone()
    };
    assert!(matches!(refused(&vote), GroupLogError::Signature(_)), "of another purpose");
    let ahead = GroupHead { stable: 2, ..head.clone() };
    assert_eq!(refused(&ahead.sign(&hub.key())), GroupLogError::Stable { stable: 2, seq: 1 });
    let root = GroupHead { hub: ServerSigner { key: key(200).public(), ..hub.signer() }, ..head };
    assert_eq!(refused(&root.sign(&key(200))), GroupLogError::Signer(GroupLinkError::Server));
    let error = GroupHead::verify(&signed, &Chains::new()).unwrap_err();
    assert!(matches!(error, GroupLogError::Signer(ref error) if error.missing().is_some()));
    let mut loose = signed.clone();
    loose.body = [signed.body.as_ref(), &[0x18, 0x00]].concat().into();
    assert!(matches!(refused(&loose), GroupLogError::Signer(GroupLinkError::Link(LinkError::Canonical(_)))));
}

#[test]
fn two_heads_of_one_place_are_proof_against_their_server() {
    let log = Log::new();
    let one = log.head(0);
    let at = |position| GroupHead { position, ..one.clone() };
    assert!(one.contradicts(&at(GroupPosition { hash: Hash([1; 32]), ..one.position })));
    assert!(!one.contradicts(&one));
    assert!(!one.contradicts(&at(GroupPosition { hash: Hash([1; 32]), term: 2, ..one.position })));
    assert!(!one.contradicts(&at(GroupPosition { hash: Hash([1; 32]), seq: 2, ..one.position })));
    let other = GroupPosition { hash: Hash([1; 32]), ..one.position };
    assert!(!one.contradicts(&GroupHead { position: other, ..log.head(1) }), "another server");
}

#[test]
fn a_proposal_is_a_vote_without_its_keeper() {
    let log = Log::new();
    let home: &Home = &log.world.homes[1];
    let (group, hub) = (log.world.state.group(), home.reference());
    let proposal = Proposal { group, term: 2, from: log.at, hub };
    assert_eq!(Proposal::parse(&proposal.encode()), Ok(proposal.clone()));
    let vote = proposal.clone().vote(home.signer());
    assert_eq!(vote.proposal(), proposal);
    assert_eq!(Proposal::parse(&vote.encode()), Err(GroupLinkError::value("keeper")));
    let signed = vote.sign(&home.key());
    assert_eq!(Vote::verify(&signed, &log.world.chains), Ok(vote.clone()));
    let bare = pb::SignedVote { body: proposal.encode(), ..signed.clone() };
    assert_eq!(Vote::verify(&bare, &log.world.chains), Err(GroupLinkError::value("signing server")));
    let forged = vote.sign(&key(3));
    assert!(matches!(Vote::verify(&forged, &log.world.chains), Err(GroupLinkError::VoteSignature(_))));
    assert!(Vote::verify(&signed, &Chains::new()).unwrap_err().missing().is_some());
}

#[test]
fn a_majority_beats_an_owner_then_the_lower_id_and_a_higher_term_all() {
    let link = |term, by_keepers, id| TermLink { term, by_keepers, id: LinkId([id; 32]) };
    let mut links =
        [link(2, true, 1), link(3, false, 1), link(2, true, 9), link(2, false, 0), link(3, false, 5)];
    links.sort();
    let sorted =
        [link(2, false, 0), link(2, true, 9), link(2, true, 1), link(3, false, 5), link(3, false, 1)];
    assert_eq!(links, sorted);
    let world = World::new();
    assert_eq!(TermLink::of(&world.links[0]), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_no_entry_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let log = Log::new();
        prop_assert!(log.follow(&bytes).is_err());
        let body = bytes::Bytes::from(bytes);
        let _ = (GroupEntry::parse(&body), Proposal::parse(&body));
        let _ = TermLink::of(&pb::Link { body: body.clone(), signatures: Vec::new() });
        let signed = pb::SignedGroupHead { body: body.clone(), signature: body.clone() };
        prop_assert!(GroupHead::verify(&signed, &log.world.chains).is_err());
        let signed = pb::SignedVote { body: body.clone(), signature: body };
        prop_assert!(Vote::verify(&signed, &log.world.chains).is_err());
    }

    #[test]
    fn a_damaged_head_is_refused(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let log = Log::new();
        let mut signed = log.head(0).sign(&log.world.homes[0].key());
        let mut body = signed.body.to_vec();
        let place = place.index(body.len());
        body[place] ^= 1 << bit;
        signed.body = body.into();
        prop_assert!(GroupHead::verify(&signed, &log.world.chains).is_err());
    }

    #[test]
    fn what_voids_replaced_does_not_show_in_the_hash(count in 1..12_u64, cut in 1..12_u64) {
        let mut log = Log::new();
        let (start, state) = (log.at, log.world.state.clone());
        let mut hashes = Vec::new();
        for seq in 2..2 + count {
            let entry = log.message(1, seq, "x");
            hashes.push(crate::sign::sha256(&entry).to_bytes());
            log.push(entry);
        }
        let cut = usize::try_from(cut.min(count)).unwrap();
        let (first, rest) = hashes.split_at(cut);
        let mut at = start;
        for part in [first, rest].into_iter().filter(|part| !part.is_empty()) {
            let entries = Some(pb::VoidedEntries { hashes: part.to_vec() });
            let (from, to) = (at.seq + 1, at.seq + part.len() as u64);
            let void = pb::GroupVoid { group: state.group().to_bytes(), from, to, entries };
            at = at.past_void(&state, &void).unwrap();
        }
        prop_assert_eq!(at, log.at);
    }
}
