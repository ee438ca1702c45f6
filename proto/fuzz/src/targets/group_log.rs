//! Logs of groups: entries, Voids, signed heads and votes. What is taken says where it stands, and nothing else fits
//! there.
//!
//! Input: a byte that says what it is, then its bytes: an entry, a GroupVoid, a SignedGroupHead, a SignedVote, a
//! vote's proposal. Heads and votes are also signed again.

use bytes::Bytes;
use prost::Message;
use tidings_proto::chain::group::GroupState;
use tidings_proto::group_log::{GroupEntry, GroupHead, GroupPosition, Proposal, TermLink, Vote};
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use super::outcome;
use crate::world;

pub(super) fn run(data: &[u8]) -> u64 {
    let Some((kind, rest)) = data.split_first() else { return 0 };
    let fate = match kind & 3 {
        0 => entry(rest),
        1 => void(rest),
        2 => head(rest),
        _ => vote(rest),
    };
    outcome((kind & 3, fate))
}

fn scene() -> (GroupState, GroupPosition) {
    let state = GroupState::verify(&world::group_links()[..1], world::group_chains()).expect("a genesis");
    let at = GroupPosition::START.follow(&state, &world::group_link_entry()).expect("the genesis").0;
    (state, at)
}

fn entry(bytes: &[u8]) -> u64 {
    let (state, at) = scene();
    for from in [GroupPosition::START, at] {
        if let Ok((next, entry)) = from.follow(&state, bytes) {
            assert_eq!((next.seq, entry.seq(), entry.term()), (from.seq + 1, next.seq, next.term));
            assert_eq!(entry.group(), state.group());
            assert!(next.follow(&state, bytes).is_err(), "no entry stands twice");
            return outcome((entry.post().is_some(), entry.link().and_then(TermLink::of).is_some()));
        }
    }
    outcome(GroupEntry::parse(bytes).is_ok())
}

fn void(bytes: &[u8]) -> u64 {
    let (state, at) = scene();
    let Ok(void) = pb::GroupVoid::decode(bytes) else { return 1 };
    match at.past_void(&state, &void) {
        Ok(next) => {
            assert!(void.from == at.seq + 1 && next.seq == void.to && next.hash != at.hash);
            2
        }
        Err(error) => outcome(std::mem::discriminant(&error)),
    }
}

fn head(bytes: &[u8]) -> u64 {
    let Ok(signed) = pb::SignedGroupHead::decode(bytes) else { return 1 };
    let again = world::key(world::ONLINE).sign(Purpose::LOG_HEAD, &signed.body).to_bytes();
    let result =
        GroupHead::verify(&pb::SignedGroupHead { signature: again, ..signed.clone() }, world::group_chains());
    match result {
        Ok(head) => {
            assert_eq!(
                GroupHead::verify(&head.sign(&world::key(world::ONLINE)), world::group_chains()),
                Ok(head)
            );
            outcome(GroupHead::verify(&signed, world::group_chains()).is_ok())
        }
        Err(error) => outcome(std::mem::discriminant(&error)),
    }
}

fn vote(bytes: &[u8]) -> u64 {
    let Ok(signed) = pb::SignedVote::decode(bytes) else { return 1 };
    if let Ok(proposal) = Proposal::parse(&signed.body) {
        assert_eq!(Proposal::parse(&proposal.encode()), Ok(proposal));
    }
    let again = world::key(world::ONLINE).sign(Purpose::KEEPER_VOTE, &signed.body).to_bytes();
    let result = Vote::verify(&pb::SignedVote { signature: again, ..signed.clone() }, world::group_chains());
    match result {
        Ok(vote) => {
            assert_eq!(Vote::verify(&vote.sign(&world::key(world::ONLINE)), world::group_chains()), Ok(vote));
            outcome(Vote::verify(&signed, world::group_chains()).is_ok())
        }
        Err(error) => outcome(std::mem::discriminant(&error)),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let (state, at) = scene();
    let key = world::key(world::ONLINE);
    let hub = world::group_hub();
    let head = GroupHead { group: state.group(), position: at, stable: 1, hub: hub.clone() };
    let proposal = Proposal { group: state.group(), term: 2, from: at, hub: hub.server.clone() };
    let bare = pb::SignedVote { body: proposal.encode(), signature: Bytes::new() };
    let of = |kind: u8, bytes: &[u8]| [&[kind][..], bytes].concat();
    vec![
        of(0, &world::group_link_entry()),
        of(0, &world::group_message()),
        of(1, &world::group_void().encode_to_vec()),
        of(2, &head.sign(&key).encode_to_vec()),
        of(3, &proposal.vote(hub).sign(&key).encode_to_vec()),
        of(3, &bare.encode_to_vec()),
    ]
}
