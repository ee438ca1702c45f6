//! Histories with a point of their own.

use tidings_proto::chain::group::GroupChange;
use tidings_server::groups::replica::Broken;

use crate::world::World;

fn all_write(world: &mut World, rounds: usize) {
    for _ in 0..rounds {
        for person in 0..world.people.len() {
            if world.view(person).is_some() {
                world.write(person);
            }
        }
        world.run_for(40);
    }
}

/// Two domains and one keeper: nobody can vote when its home is gone, so an owner's word makes the other the hub.
#[test]
fn an_owner_moves_a_group_of_two_domains_when_its_only_keeper_is_gone() {
    let mut world = World::new(1, 2, 4, Broken::Nothing);
    world.settle_in(1);
    let owner = world.people[1].account();
    world.submit(0, &GroupChange::SetRole(owner, tidings_proto::chain::group::Rank::Owner));
    all_write(&mut world, 5);
    world.homes[0].crash();
    world.homes[0].dead = true;
    world.owner_took_over = true;
    let state = world.view(1).unwrap();
    let from = world.homes[1].replica.as_ref().unwrap().position();
    let hub = world.homes[1].own.signer.clone();
    let term = state.term() + 1;
    world.submit(1, &GroupChange::HubSuccession { term, from, hub, votes: Vec::new() });
    let replica = world.homes[1].replica.as_ref().unwrap();
    assert_eq!((replica.state().term(), replica.position().seq), (term, from.seq + 1));
    let before = replica.position().seq;
    all_write(&mut world, 2);
    let after = world.homes[1].replica.as_ref().unwrap().position().seq;
    assert_eq!(after, before + 4, "its two people post on");
    assert_eq!(world.fault, None);
}

/// One message in a group of many domains: one batch to each, one answer, one more for stable, and nothing else.
#[test]
fn a_message_costs_many_domains_one_batch_each() {
    let domains = crate::setting("TIDINGS_DOMAINS", 60) as usize;
    let mut world = World::new(2, domains, domains, Broken::Nothing);
    world.limits.checkpoint_links = 192;
    world.limits.unstable_entries = 4096;
    world.limits.window_entries = 512;
    world.join_many();
    world.run_for(5000);
    let calls = world.calls;
    world.write(0);
    world.run_for(5000);
    let end = world.homes[0].replica.as_ref().unwrap().position();
    for home in &world.homes {
        let replica = home.replica.as_ref().unwrap();
        assert_eq!((replica.position(), replica.stable()), (end, end.seq), "{}", home.domain);
    }
    let each = (world.calls - calls) / domains as u64;
    assert!(each <= 12, "{each} calls for each domain");
    assert_eq!(world.fault, None);
}

/// Domains without number have no voice: only keepers vote, and only they make an entry stable.
#[test]
fn many_member_domains_elect_nobody_while_the_keepers_are_away() {
    let mut world = World::new(3, 12, 12, Broken::Nothing);
    world.settle_in(3);
    all_write(&mut world, 2);
    for at in 0..3 {
        world.homes[at].crash();
    }
    let term = world.view(5).unwrap().term();
    let stable = world.truth.last();
    for _ in 0..50 {
        for at in 3..12 {
            for peer in 0..12 {
                if at != peer {
                    world.notice(at, peer);
                }
            }
        }
        all_write(&mut world, 1);
        world.run_for(200);
    }
    for at in 3..12 {
        assert_eq!(world.homes[at].replica.as_ref().unwrap().state().term(), term);
    }
    assert_eq!(world.truth.last(), stable, "nothing becomes stable without a keeper");
    world.heal().unwrap();
}
