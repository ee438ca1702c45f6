//! What holds for every chain.

use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// One attempt: whose device signs what. Many are refused, as they are to be.
#[derive(Debug, Clone)]
enum Step {
    Add(usize, Vec<usize>),
    Accept(usize),
    Leave(usize),
    Remove(usize, Vec<usize>),
    Role(usize, usize, Rank),
    Adds(usize, Rank),
    Grow(usize),
    Shrink(usize),
    Keep(usize, Vec<usize>),
    Checkpoint(usize),
    Transfer(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = || 0..5_usize;
    let rank = || prop_oneof![Just(Rank::Member), Just(Rank::Admin), Just(Rank::Owner)];
    let some = || proptest::collection::vec(0..5_usize, 1..3);
    prop_oneof![
        3 => (who(), some()).prop_map(|(by, whom)| Step::Add(by, whom)),
        4 => who().prop_map(Step::Accept),
        1 => who().prop_map(Step::Leave),
        1 => (who(), some()).prop_map(|(by, whom)| Step::Remove(by, whom)),
        2 => (who(), who(), rank()).prop_map(|(by, whom, rank)| Step::Role(by, whom, rank)),
        1 => (who(), rank()).prop_map(|(by, rank)| Step::Adds(by, rank)),
        1 => who().prop_map(Step::Grow),
        1 => who().prop_map(Step::Shrink),
        1 => (who(), proptest::collection::vec(0..3_usize, 1..4)).prop_map(|(by, homes)| Step::Keep(by, homes)),
        1 => (0..3_usize).prop_map(Step::Checkpoint),
        1 => (who(), 0..3_usize).prop_map(|(by, home)| Step::Transfer(by, home)),
    ]
}

fn made(world: &mut World, step: &Step) -> pb::Link {
    match step {
        Step::Add(by, whom) => {
            world.link(*by, &GroupChange::AddMembers(whom.iter().map(|n| world.invitee(*n)).collect()))
        }
        Step::Accept(by) => world.link(*by, &GroupChange::Accept(world.people[*by].domain())),
        Step::Leave(by) => world.link(*by, &GroupChange::Leave),
        Step::Remove(by, whom) => {
            world.link(*by, &GroupChange::RemoveMembers(whom.iter().map(|n| world.id(*n)).collect()))
        }
        Step::Role(by, whom, rank) => world.link(*by, &GroupChange::SetRole(world.id(*whom), *rank)),
        Step::Adds(by, adds) => {
            world.link(*by, &GroupChange::SetPolicy(Policy { adds: *adds, ..Policy::default() }))
        }
        Step::Grow(by) => {
            let held = world.people[*by].chain.len();
            let next = u8::try_from(40 + held).unwrap();
            if held < 8 {
                world.replace(*by, world.people[*by].with_device(next));
            }
            let domain = world.people[*by].domain();
            world.link(*by, &GroupChange::Advance { domain, device_removed: false })
        }
        Step::Shrink(by) => {
            let last = world.people[*by].chain.state().devices().keys().next_back().copied();
            let own = world.people[*by].device;
            if let Some(last) = last.filter(|last| *last != own) {
                world.replace(*by, world.people[*by].without_device(last));
            }
            world
                .link(*by, &GroupChange::Advance { domain: world.people[*by].domain(), device_removed: true })
        }
        Step::Keep(by, homes) => {
            let keepers = homes.iter().map(|home| world.homes[*home].reference()).collect();
            world.link(*by, &GroupChange::SetKeepers(keepers))
        }
        Step::Checkpoint(home) => world.link_by(*home, &GroupChange::Checkpoint(world.homes[*home].signer())),
        Step::Transfer(by, home) => {
            world.link_with(*by, *home, &GroupChange::HubTransfer(world.homes[*home].signer()))
        }
    }
}

/// What every state has.
fn sound(state: &GroupState) {
    let owners = state.members().filter(|(_, member)| member.rank == Rank::Owner).count();
    let full = state.members().filter(|(_, member)| !member.invited).count();
    assert_eq!(state.is_closed(), full == 0);
    assert!(state.is_closed() || owners > 0);
    assert!(state.rotated() <= state.number() && state.checkpoint() <= state.number());
    assert_eq!(GroupState::from_trusted(&state.encode()).as_ref(), Ok(state));
    assert_eq!(GroupState::from_snapshot(&state.encode(), &state.hash()).as_ref(), Ok(state));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_chain_leads_to_a_sound_state_that_is_a_function_of_its_links(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new();
        for step in &steps {
            let link = made(&mut world, step);
            let before = world.state.clone();
            if let Ok(next) = world.apply(&link) {
                prop_assert_eq!(next.head(), crate::chain::link_id(Purpose::GROUP_LINK, &link.body));
                sound(&next);
                world.push(link);
            }
            prop_assert_eq!(&before, &GroupState::from_trusted(&before.encode()).unwrap());
        }
        // Nothing but the links counts: neither who looked when, nor what accounts did since.
        let again = GroupState::verify(&world.links, &world.chains);
        prop_assert_eq!(again.as_ref(), Ok(&world.state));
        for person in 0..5 {
            world.replace(person, world.people[person].with_device(90));
        }
        let later = GroupState::verify(&world.links, &world.chains);
        prop_assert_eq!(later.as_ref(), Ok(&world.state));
    }

    #[test]
    fn a_damaged_link_is_refused_and_never_panics(
        person in 0..5_usize,
        place in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let world = World::full();
        let keepers: Vec<_> = world.homes.iter().take(2).map(Home::reference).collect();
        for change in [
            GroupChange::Leave,
            GroupChange::SetKeepers(keepers),
            GroupChange::SetProfile("x".into()),
        ] {
            let mut link = world.link(person, &change);
            let mut body = link.body.to_vec();
            let place = place.index(body.len());
            body[place] ^= 1 << bit;
            link.body = body.into();
            prop_assert!(world.apply(&link).is_err());
        }
    }

    #[test]
    fn a_damaged_state_is_another_or_none(place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let world = World::full();
        let mut bytes = world.state.encode().to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        prop_assert_eq!(GroupState::from_snapshot(&bytes, &world.state.hash()), Err(GroupLinkError::Snapshot));
        if let Ok(state) = GroupState::from_trusted(&bytes) {
            prop_assert_eq!(state.encode(), bytes);
            prop_assert_ne!(state, world.state);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let world = World::new();
        let _ = GroupState::from_trusted(&bytes);
        let link = pb::Link { body: bytes.clone().into(), signatures: vec![bytes.into()] };
        prop_assert!(GroupState::genesis(&link, &world.chains).is_err());
        prop_assert!(world.apply(&link).is_err());
    }
}

/// A group of 1,024: the copy that a link makes of the members costs about as much as the signature that it checks.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn what_a_link_costs_in_a_large_group() {
    let mut world = World::full();
    world.step(0, &GroupChange::SetPolicy(Policy { members_max: 1024, ..Policy::default() }));
    let account = |n: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&n.to_be_bytes());
        (AccountId(id), domain("somewhere.example"))
    };
    world.step(0, &GroupChange::AddMembers((0..1019).map(account).collect()));
    world.replace(1, world.people[1].with_device(40));
    let copying = world.link(1, &GroupChange::SetProfile("x".into()));
    let sharing = world.link(0, &GroupChange::SetProfile("x".into()));
    let time = |what: &str, run: &dyn Fn()| {
        let start = Instant::now();
        (0..1000).for_each(|_| run());
        println!("{what}: {:?}", start.elapsed() / 1000);
    };
    time("a link that moves its author's head", &|| drop(world.apply(&copying).unwrap()));
    time("a link that moves no head", &|| drop(world.apply(&sharing).unwrap()));
    time("encoding and hashing", &|| {
        let _ = world.state.hash();
    });
    println!("{} bytes", world.state.encode().len());
}
