//! Links that servers sign.

use tidings_proto::chain::ServerChange;
use tidings_proto::chain::group::{GroupChange, ServerSigner};
use tidings_proto::group_log::{GroupPosition, Proposal};
use tidings_proto::id::Hash;
use tidings_proto::pb;

use crate::crowd::{Crowd, changed, reference, refuse, signer, take};
use crate::vector::File;
use crate::world::{key, server_of};

pub(super) fn checkpoints(file: &mut File) {
    let mut crowd = Crowd::full();
    let good = crowd.link_by(0, &GroupChange::Checkpoint(crowd.signer(0)));
    take(file, "a checkpoint", &crowd, &good);
    let hub = |change: fn(&mut pb::ServerSigner)| {
        changed(&good, &[11], |body| {
            change(body.checkpoint.as_mut().and_then(|c| c.hub.as_mut()).expect("a hub"))
        })
    };
    let hash =
        changed(&good, &[11], |body| body.checkpoint.as_mut().expect("one").state_hash = vec![9; 32].into());
    for (comment, code, link) in [
        ("a checkpoint of another state", "link-invalid", hash),
        (
            "a checkpoint by a server that is not the hub",
            "link-invalid",
            crowd.link_by(1, &GroupChange::Checkpoint(crowd.signer(1))),
        ),
        (
            "a checkpoint by the hub under another domain",
            "link-invalid",
            hub(|h| h.server.as_mut().expect("a server").domain = "c.example".into()),
        ),
        (
            "a checkpoint under a server head that is not known",
            "evidence-missing",
            hub(|h| h.head = vec![9; 32].into()),
        ),
        (
            "a checkpoint by the root key",
            "link-invalid",
            changed(&good, &[10], |body| {
                body.checkpoint.as_mut().and_then(|c| c.hub.as_mut()).expect("a hub").key =
                    key(10).public().to_bytes();
            }),
        ),
        ("a checkpoint that another key signed", "link-invalid", changed(&good, &[21], |_| ())),
        (
            "a checkpoint with an author",
            "link-invalid",
            changed(&good, &[11], |body| {
                body.author = Some(crowd.people[0].author().to_pb());
            }),
        ),
    ] {
        refuse(file, (comment, code), &crowd, &link);
    }
    crowd.push(good);
    let again = crowd.link_by(0, &GroupChange::Checkpoint(crowd.signer(0)));
    refuse(file, ("a checkpoint right after another", "link-invalid"), &crowd, &again);
    let new = Crowd::new();
    let first = new.link_by(0, &GroupChange::Checkpoint(new.signer(0)));
    refuse(file, ("a checkpoint right after the genesis", "link-invalid"), &new, &first);
    let mut long = Crowd::new();
    while long.state.since_checkpoint() < 256 {
        long.step(0, &GroupChange::SetProfile(long.state.number().to_be_bytes().to_vec().into()));
    }
    take(
        file,
        "a checkpoint after 256 links",
        &long,
        &long.link_by(0, &GroupChange::Checkpoint(long.signer(0))),
    );
    let transfer = GroupChange::HubTransfer(long.signer(1));
    take(file, "a transfer where a checkpoint is due", &long, &long.link_with(0, 1, &transfer));
    let profile = GroupChange::SetProfile("x".into());
    refuse(file, ("another link where a checkpoint is due", "link-invalid"), &long, &long.link(0, &profile));
}

pub(super) fn transfers(file: &mut File) {
    let crowd = Crowd::full();
    let transfer = GroupChange::HubTransfer(crowd.signer(1));
    let good = crowd.link_with(0, 1, &transfer);
    take(file, "an owner and the new hub transfer", &crowd, &good);
    let term = |term| changed(&good, &[40, 21], |body| body.hub_transfer.as_mut().expect("one").term = term);
    let here = GroupChange::HubTransfer(crowd.signer(0));
    for (comment, code, link) in [
        ("an admin transfers", "rank-too-low", crowd.link_with(1, 1, &transfer)),
        ("a transfer without the new hub's signature", "link-invalid", crowd.link(0, &transfer)),
        ("a transfer that another home signed", "link-invalid", crowd.link_with(0, 2, &transfer)),
        ("a transfer by the new hub alone", "link-invalid", crowd.link_by(1, &transfer)),
        ("a transfer, signers in the other order", "link-invalid", changed(&good, &[21, 40], |_| ())),
        ("a transfer in the same term", "link-invalid", term(1)),
        ("a transfer that leaves out a term", "link-invalid", term(3)),
        ("a transfer to the hub", "link-invalid", crowd.link_with(0, 0, &here)),
    ] {
        refuse(file, (comment, code), &crowd, &link);
    }
    let mut later = crowd.clone();
    for (change, keys) in [
        (ServerChange::AddOnlineKey(key(22).public()), &[20, 22][..]),
        (ServerChange::RetireOnlineKey(key(21).public().id()), &[20]),
    ] {
        later.homes[1].add(&change, keys);
    }
    take(file, "a key that is online at the head that is named, and retired later", &later, &good);
    let retired = GroupChange::HubTransfer(signer(&later.homes[1], &key(21)));
    refuse(
        file,
        ("a key that is retired at the head that is named", "link-invalid"),
        &later,
        &later.link_with(0, 1, &retired),
    );
}

/// Homes a, b and c keep; the log has one entry for each link.
fn kept() -> (Crowd, GroupPosition) {
    let mut crowd = Crowd::full();
    for homes in [&[0, 1][..], &[0, 1, 2]] {
        let keepers = homes.iter().map(|home| reference(&crowd.homes[*home])).collect();
        crowd.step(0, &GroupChange::SetKeepers(keepers));
    }
    let seq = crowd.state.number() + 1;
    (crowd, GroupPosition { term: 1, seq, hash: Hash([5; 32]) })
}

fn proposal(crowd: &Crowd, from: GroupPosition) -> Proposal {
    Proposal { group: crowd.state.group(), term: 4, from, hub: reference(&crowd.homes[1]) }
}

fn votes(crowd: &Crowd, proposal: &Proposal, keepers: &[usize]) -> Vec<pb::SignedVote> {
    let vote = |keeper: &usize| proposal.clone().vote(crowd.signer(*keeper)).sign(&Crowd::home_key(*keeper));
    keepers.iter().map(vote).collect()
}

fn succession(crowd: &Crowd, from: GroupPosition, votes: Vec<pb::SignedVote>) -> GroupChange {
    GroupChange::HubSuccession { term: 4, from, hub: crowd.signer(1), votes }
}

pub(super) fn successions(file: &mut File) {
    let (crowd, from) = kept();
    let asked = proposal(&crowd, from);
    let with = |keepers: &[usize]| succession(&crowd, from, votes(&crowd, &asked, keepers));
    let good = crowd.link_by(1, &with(&[1, 2]));
    take(file, "two of three keepers vote, a term is left out", &crowd, &good);
    take(file, "all three vote", &crowd, &crowd.link_by(1, &with(&[0, 1, 2])));
    let by_owner = with(&[]);
    take(file, "an owner and the new hub, without votes", &crowd, &crowd.link_with(0, 1, &by_owner));
    let own = Proposal { hub: reference(&crowd.homes[0]), ..asked.clone() };
    let own = GroupChange::HubSuccession {
        term: 4,
        from,
        hub: crowd.signer(0),
        votes: votes(&crowd, &own, &[0, 2]),
    };
    take(file, "the hub takes a new term itself", &crowd, &crowd.link_by(0, &own));
    let set = |term: u64, from: GroupPosition| {
        let change = GroupChange::HubSuccession { term, from, hub: crowd.signer(1), votes: Vec::new() };
        crowd.link_with(0, 1, &change)
    };
    for (comment, code, link) in [
        ("one of three keepers", "link-invalid", crowd.link_by(1, &with(&[2]))),
        ("one keeper twice", "link-invalid", crowd.link_by(1, &with(&[2, 2]))),
        (
            "votes in descending order",
            "link-invalid",
            changed(&good, &[21], |body| {
                body.hub_succession.as_mut().expect("one").votes.reverse();
            }),
        ),
        ("with votes, signed by another home", "link-invalid", crowd.link_by(2, &with(&[1, 2]))),
        ("with votes and an author", "link-invalid", crowd.link_with(0, 1, &with(&[1, 2]))),
        ("without votes and author", "link-invalid", crowd.link_by(1, &by_owner)),
        ("without votes by an admin", "rank-too-low", crowd.link_with(1, 1, &by_owner)),
        ("without votes and the new hub's signature", "link-invalid", crowd.link(0, &by_owner)),
        ("the current term", "link-invalid", set(1, from)),
        (
            "from a place before the chain's head",
            "link-invalid",
            set(4, GroupPosition { seq: from.seq - 1, ..from }),
        ),
        ("from a place of a term to come", "link-invalid", set(4, GroupPosition { term: 2, ..from })),
        ("from the start", "link-invalid", set(4, GroupPosition::START)),
    ] {
        refuse(file, (&format!("succession: {comment}"), code), &crowd, &link);
    }
}

pub(super) fn foreign_votes(file: &mut File) {
    let (crowd, from) = kept();
    let good = proposal(&crowd, from);
    let mixed = |other: &Proposal| {
        let votes = [votes(&crowd, &good, &[1]), votes(&crowd, other, &[2])].concat();
        crowd.link_by(1, &succession(&crowd, from, votes))
    };
    let mut forged = votes(&crowd, &good, &[1, 2]);
    forged[0].signature = forged[1].signature.clone();
    let mut foreign = crowd.clone();
    foreign.homes.push(server_of("d.example", 70));
    let stranger: ServerSigner = signer(&foreign.homes[3], &key(71));
    let stranger = good.clone().vote(stranger).sign(&key(71));
    let with_stranger = [votes(&crowd, &good, &[1]), vec![stranger]].concat();
    let elsewhere = GroupPosition { hash: Hash([6; 32]), ..from };
    for (comment, link) in [
        ("another term", mixed(&Proposal { term: 5, ..good.clone() })),
        ("another group", mixed(&Proposal { group: [9; 32].into(), ..good.clone() })),
        ("another hub", mixed(&Proposal { hub: reference(&crowd.homes[2]), ..good.clone() })),
        ("another place", mixed(&Proposal { from: elsewhere, ..good.clone() })),
        ("the same, with the signature of another", crowd.link_by(1, &succession(&crowd, from, forged))),
        (
            "the same, by a server that is no keeper",
            crowd.link_by(1, &succession(&crowd, from, with_stranger)),
        ),
    ] {
        refuse(file, (&format!("succession: a vote for {comment}"), "link-invalid"), &foreign, &link);
    }
}
