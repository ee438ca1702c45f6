//! Links that servers sign.

use super::*;
use crate::chain::ServerChange;
use crate::group_log::{GroupPosition, Proposal, TermLink, Vote};
use crate::id::Incarnation;

/// Homes a, b and c keep; the log has as many entries as the chain has links.
fn kept() -> (World, GroupPosition) {
    let mut world = World::full();
    world.keep(1..=2);
    let seq = world.state.number() + 1;
    (world, GroupPosition { term: 1, seq, hash: Hash([5; 32]) })
}

fn proposal(world: &World, term: u64, from: GroupPosition, hub: usize) -> Proposal {
    Proposal { group: world.state.group(), term, from, hub: world.homes[hub].reference() }
}

fn votes(world: &World, proposal: &Proposal, keepers: &[usize]) -> Vec<pb::SignedVote> {
    let vote = |keeper: &usize| {
        let home = &world.homes[*keeper];
        proposal.clone().vote(home.signer()).sign(&home.key())
    };
    keepers.iter().map(vote).collect()
}

fn succession(
    world: &World,
    hub: usize,
    term: u64,
    from: GroupPosition,
    votes: Vec<pb::SignedVote>,
) -> GroupChange {
    GroupChange::HubSuccession { term, from, hub: world.homes[hub].signer(), votes }
}

#[test]
fn a_checkpoint_restates_the_state_by_its_hash() {
    let mut world = World::full();
    let hub = world.homes[0].signer();
    let wrong_hub = world.homes[1].signer();
    assert_eq!(
        world.apply(&world.link_by(1, &GroupChange::Checkpoint(wrong_hub))),
        Err(GroupLinkError::NotHub)
    );
    let good = world.link_by(0, &GroupChange::Checkpoint(hub.clone()));
    let with = |keys: &[u8], change: fn(&mut pb::GroupLinkBody)| {
        world.apply(&changed(&good, keys, change)).unwrap_err()
    };
    let body = |b: &mut pb::GroupLinkBody| b.checkpoint.as_mut().unwrap().state_hash = vec![1; 32].into();
    assert_eq!(with(&[201], body), GroupLinkError::Checkpoint);
    assert_eq!(with(&[200], |_| ()), LinkError::Signers.into());
    let by_device = |b: &mut pb::GroupLinkBody| b.author = Some(pb::Author::default());
    assert_eq!(with(&[201], by_device), GroupLinkError::Author);
    let root = |b: &mut pb::GroupLinkBody| {
        b.checkpoint.as_mut().unwrap().hub.as_mut().unwrap().key = key(200).public().to_bytes();
    };
    assert_eq!(with(&[200], root), GroupLinkError::Server, "the root key is not online");
    let hash = world.state.hash();
    let snapshot = world.state.encode();
    world.push(good.clone());
    assert_eq!((world.state.checkpoint(), world.state.since_checkpoint()), (world.state.number(), 0));
    let again = world.link_by(0, &GroupChange::Checkpoint(hub));
    assert_eq!(world.apply(&again), Err(GroupLinkError::CheckpointEarly));
    // Who joins verifies from the state that the hash is of.
    let joined = GroupState::from_snapshot(&snapshot, &hash).unwrap();
    assert_eq!(joined.apply(&good, &world.chains), Ok(world.state));
    let world = World::new();
    let first = world.link_by(0, &GroupChange::Checkpoint(world.homes[0].signer()));
    assert_eq!(world.apply(&first), Err(GroupLinkError::CheckpointEarly));
}

#[test]
fn after_256_links_only_a_checkpoint_or_another_hub_can_follow() {
    let mut world = World::new();
    for n in 0..256_u32 {
        world.step(0, &GroupChange::SetProfile(n.to_be_bytes().to_vec().into()));
    }
    let next = GroupChange::SetProfile("x".into());
    assert_eq!(world.refused(0, &next), GroupLinkError::CheckpointDue);
    let transfer = GroupChange::HubTransfer(world.homes[1].signer());
    assert!(world.apply(&world.link_with(0, 1, &transfer)).is_ok());
    world.checkpoint(0);
    world.step(0, &next);
}

#[test]
fn an_owner_and_the_new_hub_transfer_the_group() {
    let mut world = World::full();
    let transfer = GroupChange::HubTransfer(world.homes[1].signer());
    assert_eq!(world.apply(&world.link_with(1, 1, &transfer)), Err(GroupLinkError::RankTooLow));
    assert_eq!(world.apply(&world.link(0, &transfer)), Err(LinkError::Signers.into()));
    assert_eq!(world.apply(&world.link_with(0, 2, &transfer)), Err(LinkError::Signers.into()));
    assert_eq!(world.apply(&world.link_by(1, &transfer)), Err(GroupLinkError::Author));
    let here = GroupChange::HubTransfer(world.homes[0].signer());
    assert_eq!(world.apply(&world.link_with(0, 0, &here)), Err(value("hub")));
    let good = world.link_with(0, 1, &transfer);
    for term in [1, 3] {
        let bad = changed(&good, &[1, 211], |body| body.hub_transfer.as_mut().unwrap().term = term);
        assert_eq!(world.apply(&bad), Err(GroupLinkError::Term { current: 1, got: term }));
    }
    world.push(good);
    assert_eq!((world.state.term(), world.state.hub()), (2, &world.homes[1].reference()));
    let old = world.link_by(0, &GroupChange::Checkpoint(world.homes[0].signer()));
    assert_eq!(world.apply(&old), Err(GroupLinkError::NotHub));
    world.checkpoint(1);
}

#[test]
fn a_majority_of_the_keepers_gives_the_group_a_new_hub() {
    let (mut world, from) = kept();
    let asked = proposal(&world, 4, from, 1);
    let voted = votes(&world, &asked, &[2, 1]);
    let change = succession(&world, 1, 4, from, voted.clone());
    assert_eq!(world.apply(&world.link_by(2, &change)), Err(LinkError::Signers.into()));
    assert_eq!(world.apply(&world.link_with(0, 1, &change)), Err(GroupLinkError::Author));
    let one = succession(&world, 1, 4, from, voted[..1].to_vec());
    assert_eq!(world.apply(&world.link_by(1, &one)), Err(GroupLinkError::Votes { got: 1, keepers: 3 }));
    let twice = succession(&world, 1, 4, from, vec![voted[0].clone(), voted[0].clone()]);
    assert_eq!(world.apply(&world.link_by(1, &twice)), Err(GroupLinkError::Vote(1)));
    let good = world.link_by(1, &change);
    let swapped = changed(&good, &[211], |body| body.hub_succession.as_mut().unwrap().votes.reverse());
    assert_eq!(world.apply(&swapped), Err(GroupLinkError::Vote(1)));
    world.push(good.clone());
    assert_eq!((world.state.term(), world.state.hub()), (4, &world.homes[1].reference()));
    let begins = TermLink::of(&good).unwrap();
    assert_eq!((begins.term, begins.by_keepers, begins.id), (4, true, world.state.head()));
    // A hub that lost its state takes a new term for itself.
    let from = GroupPosition { seq: from.seq + 1, term: 4, ..from };
    let own = proposal(&world, 5, from, 1);
    let own = succession(&world, 1, 5, from, votes(&world, &own, &[0, 1, 2]));
    world.push(world.link_by(1, &own));
    assert_eq!(world.state.term(), 5);
}

#[test]
fn a_vote_counts_for_what_it_says_only() {
    let (world, from) = kept();
    let good = proposal(&world, 2, from, 1);
    let refused = |other: &Proposal| {
        let mixed = [votes(&world, &good, &[1]), votes(&world, other, &[2])].concat();
        world.apply(&world.link_by(1, &succession(&world, 1, 2, from, mixed))).unwrap_err()
    };
    let is_vote = |error: GroupLinkError| matches!(error, GroupLinkError::Vote(_));
    assert!(is_vote(refused(&Proposal { term: 3, ..good.clone() })));
    assert!(is_vote(refused(&Proposal { group: [1; 32].into(), ..good.clone() })));
    assert!(is_vote(refused(&Proposal { hub: world.homes[2].reference(), ..good.clone() })));
    assert!(is_vote(refused(&Proposal { from: GroupPosition { seq: 99, ..from }, ..good.clone() })));
    let mut stranger = World { homes: vec![Home::new(230, "d.example")], ..world.clone() };
    stranger.chains.add_server(&stranger.homes[0].links).unwrap();
    let foreign = [votes(&world, &good, &[1]), votes(&stranger, &good, &[0])].concat();
    let link = world.link_by(1, &succession(&world, 1, 2, from, foreign));
    assert!(is_vote(stranger.apply(&link).unwrap_err()));
    let mut forged = votes(&world, &good, &[1, 2]);
    forged[1].signature = forged[0].signature.clone();
    let link = world.link_by(1, &succession(&world, 1, 2, from, forged));
    assert!(matches!(world.apply(&link), Err(GroupLinkError::VoteSignature(_))));
    // The purposes keep a signed head from being a vote.
    let vote = good.clone().vote(world.homes[2].signer());
    let signature = world.homes[2].key().sign(Purpose::LOG_HEAD, &vote.encode()).to_bytes();
    let signed = pb::SignedVote { body: vote.encode(), signature };
    assert!(matches!(Vote::verify(&signed, &world.chains), Err(GroupLinkError::VoteSignature(_))));
}

#[test]
fn without_votes_an_owner_and_the_new_hub_serve() {
    let (mut world, from) = kept();
    let change = succession(&world, 2, 2, from, Vec::new());
    assert_eq!(world.apply(&world.link_by(2, &change)), Err(GroupLinkError::Author));
    assert_eq!(world.apply(&world.link_with(1, 2, &change)), Err(GroupLinkError::RankTooLow));
    assert_eq!(world.apply(&world.link(0, &change)), Err(LinkError::Signers.into()));
    let good = world.link_with(0, 2, &change);
    assert!(!TermLink::of(&good).unwrap().by_keepers);
    world.push(good);
    assert_eq!((world.state.term(), world.state.hub()), (2, &world.homes[2].reference()));
}

#[test]
fn a_succession_goes_on_from_where_the_chain_is_and_under_a_higher_term() {
    let (world, from) = kept();
    let refused = |term, from| {
        let change = succession(&world, 1, term, from, Vec::new());
        world.apply(&world.link_with(0, 1, &change)).unwrap_err()
    };
    assert_eq!(refused(1, from), GroupLinkError::Term { current: 1, got: 1 });
    assert_eq!(refused(0, from), GroupLinkError::Term { current: 1, got: 0 });
    assert_eq!(refused(2, GroupPosition { seq: from.seq - 1, ..from }), value("from"));
    assert_eq!(refused(3, GroupPosition { term: 2, ..from }), value("from"));
    assert_eq!(refused(2, GroupPosition::START), value("from"));
}

#[test]
fn a_server_signs_with_a_key_that_is_online_at_the_head_that_it_names() {
    let mut world = World::full();
    let mut home = world.homes[1].clone();
    let retire = ServerChange::RetireOnlineKey(key(211).public().id());
    for (change, keys) in [
        (ServerChange::AddOnlineKey(key(212).public()), &[210, 212][..]),
        (ServerChange::NewIncarnation(Incarnation([2; 16])), &[212]),
        (retire, &[210]),
    ] {
        let keys: Vec<_> = keys.iter().copied().map(key).collect();
        let link = home.chain.link(&change, &keys.iter().collect::<Vec<_>>());
        home.chain.append(&link).unwrap();
        home.links.push(link);
    }
    world.chains.add_server(&home.links).unwrap();
    let before = world.homes[1].signer();
    let with = |signer: ServerSigner, keys: &[u8]| {
        let link = world.link_with(0, 1, &GroupChange::HubTransfer(signer));
        world.apply(&changed(&link, keys, |_| ()))
    };
    assert!(with(before.clone(), &[1, 211]).is_ok(), "at the head that it names the key is online");
    let head = home.chain.head();
    assert_eq!(with(ServerSigner { head, ..before.clone() }, &[1, 211]), Err(GroupLinkError::Server));
    assert!(with(ServerSigner { head, key: key(212).public(), ..before.clone() }, &[1, 212]).is_ok());
    let elsewhere = ServerRef { domain: domain("c.example"), ..before.server };
    assert_eq!(with(ServerSigner { server: elsewhere, ..before }, &[1, 211]), Err(GroupLinkError::Server));
}
