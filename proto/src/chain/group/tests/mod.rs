mod random;
mod servers;
pub(crate) mod world;

use prost::Message as _;

use super::*;
use crate::chain::{LinkError, sign_link};
use crate::error::Code;
use crate::id::{AccountId, Hash, LinkId};
use crate::pb;
use crate::sign::Purpose;
use world::{Home, Person, World, domain, key, new_group};

/// A link of which something was changed, signed by these keys, which its body names.
fn changed(link: &pb::Link, keys: &[u8], change: impl FnOnce(&mut pb::GroupLinkBody)) -> pb::Link {
    let mut body = pb::GroupLinkBody::decode(link.body.clone()).unwrap();
    let keys: Vec<_> = keys.iter().copied().map(key).collect();
    body.signers = keys.iter().map(|key| key.public().id().to_bytes()).collect();
    change(&mut body);
    sign_link(Purpose::GROUP_LINK, body.encode_to_vec().into(), &keys.iter().collect::<Vec<_>>())
}

fn value(what: &'static str) -> GroupLinkError {
    GroupLinkError::value(what)
}

#[test]
fn the_creator_is_owner_and_its_home_hub_and_keeper() {
    let world = World::new();
    let (state, creator) = (&world.state, &world.people[0]);
    assert_eq!(state.group().0, state.head().0);
    assert_eq!((state.number(), state.term(), state.rotated(), state.checkpoint()), (0, 1, 0, 0));
    assert_eq!(state.rotated_head(), state.head());
    assert_eq!(
        (state.hub(), state.keepers()),
        (&world.homes[0].reference(), &[world.homes[0].reference()][..])
    );
    let owner = state.member(&creator.id()).unwrap();
    assert_eq!((owner.rank, owner.invited, owner.since), (Rank::Owner, false, 0));
    assert_eq!((owner.head, owner.added_by), (Some(creator.chain.head()), None));
}

#[test]
fn a_genesis_that_breaks_a_rule_is_refused() {
    let world = World::new();
    let first = &world.links[0];
    let refused = |link: &pb::Link| GroupState::genesis(link, &world.chains).unwrap_err();
    let with = |change: fn(&mut pb::GroupGenesis)| {
        refused(&changed(first, &[1], |body| change(body.genesis.as_mut().unwrap())))
    };
    assert_eq!(with(|g| g.address = "u2@a.example".into()), GroupLinkError::Account("address"));
    assert_eq!(with(|g| g.salt = vec![1; 15].into()), value("salt"));
    assert_eq!(with(|g| g.hub.as_mut().unwrap().domain = "b.example".into()), value("hub"));
    assert_eq!(with(|g| g.hub = None), value("server"));
    assert_eq!(with(|g| g.policy = None), value("policy"));
    assert_eq!(with(|g| g.policy.as_mut().unwrap().posts = 0), value("rank"));
    assert_eq!(with(|g| g.policy.as_mut().unwrap().adds = 4), value("rank"));
    assert_eq!(with(|g| g.policy.as_mut().unwrap().members_max = 1025), value("members_max"));
    assert_eq!(with(|g| g.policy.as_mut().unwrap().members_max = 0), value("members_max"));
    assert_eq!(with(|g| g.profile = vec![1; 4097].into()), value("profile"));
    let other = |keys: &[u8], change: fn(&mut pb::GroupLinkBody)| refused(&changed(first, keys, change));
    assert_eq!(other(&[1], |b| b.number = 1), LinkError::NotGenesis.into());
    assert_eq!(other(&[1], |b| b.chain = vec![1; 32].into()), LinkError::NotGenesis.into());
    assert_eq!(other(&[1], |b| b.genesis = None), LinkError::Field(0).into());
    assert_eq!(other(&[1], |b| b.leave = Some(pb::Leave {})), LinkError::Field(0).into());
    assert_eq!(other(&[1], |b| b.author = None), GroupLinkError::Author);
    assert_eq!(other(&[2], |_| ()), LinkError::Signers.into());
    assert_eq!(other(&[1, 1], |_| ()), LinkError::Signers.into());
    let later = |b: &mut pb::GroupLinkBody| b.author.as_mut().unwrap().account_number = 1;
    assert_eq!(refused(&changed(first, &[1], later)), GroupLinkError::AccountNumber { expected: 0, got: 1 });
}

#[test]
fn an_invited_account_accepts_or_declines_and_does_nothing_else() {
    let mut world = World::new();
    let invited = vec![world.invitee(2), world.invitee(1)];
    world.step(0, &GroupChange::AddMembers(invited));
    let member = world.state.member(&world.id(2)).unwrap();
    assert_eq!((member.invited, member.since, member.added_by), (true, 1, Some(world.id(0))));
    assert_eq!((member.rank, member.head), (Rank::Member, None));
    assert_eq!(world.state.full_member(&world.id(2)), None);
    let post = GroupChange::SetProfile("x".into());
    assert_eq!(world.refused(2, &post), GroupLinkError::NotMember(world.id(2)));
    assert_eq!(
        world.refused(3, &GroupChange::Accept(domain("b.example"))),
        GroupLinkError::NotMember(world.id(3))
    );
    assert_eq!(
        world.refused(2, &GroupChange::Accept(domain("a.example"))),
        GroupLinkError::Account("domain")
    );
    world.step(2, &GroupChange::Accept(domain("b.example")));
    let member = world.state.full_member(&world.id(2)).unwrap();
    assert_eq!((member.head, member.since), (Some(world.people[2].chain.head()), 1));
    assert_eq!(
        world.refused(2, &GroupChange::Accept(domain("b.example"))),
        GroupLinkError::NotMember(world.id(2))
    );
    world.step(1, &GroupChange::Leave);
    assert_eq!(
        (world.state.member(&world.id(1)), world.state.rotated()),
        (None, 0),
        "it knew no sender keys"
    );
    let again = GroupChange::AddMembers(vec![world.invitee(2)]);
    assert_eq!(world.refused(0, &again), GroupLinkError::Member(world.id(2)));
    assert_eq!(world.state.domains(), [&domain("a.example"), &domain("b.example")].into());
}

#[test]
fn who_adds_is_of_the_rank_that_the_policy_says_and_the_group_does_not_overflow() {
    let mut world = World::full();
    let stranger = || (AccountId([9; 32]), domain("z.example"));
    let add = GroupChange::AddMembers(vec![stranger()]);
    assert_eq!(world.refused(2, &add), GroupLinkError::RankTooLow);
    assert!(world.apply(&world.link(1, &add)).is_ok());
    let policy = Policy { adds: Rank::Member, members_max: 5, ..Policy::default() };
    assert_eq!(world.refused(1, &GroupChange::SetPolicy(policy)), GroupLinkError::RankTooLow);
    world.step(0, &GroupChange::SetPolicy(policy));
    assert_eq!(world.refused(2, &add), GroupLinkError::Full);
    assert_eq!(GroupLinkError::Full.code(), Code::GROUP_FULL);
    world.step(0, &GroupChange::SetPolicy(Policy { members_max: 6, ..policy }));
    assert!(world.apply(&world.link(2, &add)).is_ok());
    assert_eq!(world.refused(2, &GroupChange::AddMembers(Vec::new())), value("members"));
    let twice = GroupChange::AddMembers(vec![stranger(), stranger()]);
    assert_eq!(world.refused(2, &twice), value("members"));
    let disordered = changed(&world.link(2, &add), &[3], |body| {
        let members = &mut body.add_members.as_mut().unwrap().members;
        members.push(pb::Invitee { account: vec![8; 32].into(), domain: "z.example".into() });
    });
    assert_eq!(world.apply(&disordered), Err(value("members")));
}

#[test]
fn an_admin_removes_those_below_an_owner_all_others() {
    let mut world = World::full();
    let remove = |world: &World, who: &[usize]| {
        GroupChange::RemoveMembers(who.iter().map(|person| world.id(*person)).collect())
    };
    assert_eq!(world.refused(2, &remove(&world, &[3])), GroupLinkError::RankTooLow);
    assert_eq!(world.refused(1, &remove(&world, &[0])), GroupLinkError::RankTooLow);
    assert_eq!(world.refused(1, &remove(&world, &[1])), value("accounts"));
    assert_eq!(world.refused(0, &remove(&world, &[0, 3])), value("accounts"));
    assert_eq!(world.refused(0, &remove(&world, &[])), value("accounts"));
    let gone = GroupChange::RemoveMembers(vec![AccountId([9; 32])]);
    assert_eq!(world.refused(0, &gone), GroupLinkError::Absent(AccountId([9; 32])));
    let other_admin = GroupChange::SetRole(world.id(2), Rank::Admin);
    world.step(0, &other_admin);
    assert_eq!(world.refused(1, &remove(&world, &[2])), GroupLinkError::RankTooLow, "of the same rank");
    world.step(1, &remove(&world, &[3, 4]));
    assert_eq!(
        (world.state.rotated(), world.state.rotated_head()),
        (world.state.number(), world.state.head())
    );
    world.step(0, &GroupChange::SetRole(world.id(2), Rank::Owner));
    world.step(2, &remove(&world, &[0]));
    assert_eq!(world.state.members().len(), 2);
    assert_eq!(world.refused(0, &GroupChange::Leave), GroupLinkError::NotMember(world.id(0)));
}

#[test]
fn when_the_last_owner_leaves_the_longest_admin_else_the_longest_member_follows() {
    let mut world = World::full();
    world.step(0, &GroupChange::Leave);
    assert_eq!(world.state.member(&world.id(1)).unwrap().rank, Rank::Owner, "the admin");
    assert_eq!(world.state.rotated(), world.state.number());
    world.step(1, &GroupChange::Leave);
    // They were added by one link: the lower id comes first.
    let heir = (2..5).min_by_key(|person| world.id(*person)).unwrap();
    assert_eq!(world.state.member(&world.id(heir)).unwrap().rank, Rank::Owner);
    assert_eq!(world.state.members().filter(|(_, member)| member.rank == Rank::Owner).count(), 1);
}

#[test]
fn when_the_last_member_leaves_nothing_follows_though_some_are_invited() {
    let mut world = World::new();
    world.step(0, &GroupChange::AddMembers(vec![world.invitee(1)]));
    world.step(0, &GroupChange::Leave);
    assert!(world.state.is_closed());
    assert_eq!(world.refused(1, &GroupChange::Accept(domain("a.example"))), LinkError::Closed.into());
    let hub = world.homes[0].signer();
    let checkpoint = world.link_by(0, &GroupChange::Checkpoint(hub));
    assert_eq!(world.apply(&checkpoint), Err(LinkError::Closed.into()));
    assert_eq!(GroupState::from_trusted(&world.state.encode()), Ok(world.state.clone()));
}

#[test]
fn roles_are_set_by_owners_and_an_owner_stays() {
    let mut world = World::full();
    let role = |person: usize, rank| GroupChange::SetRole(world.id(person), rank);
    assert_eq!(world.refused(1, &role(2, Rank::Admin)), GroupLinkError::RankTooLow);
    assert_eq!(world.refused(0, &role(0, Rank::Member)), GroupLinkError::NoOwner);
    let unknown = AccountId([9; 32]);
    assert_eq!(
        world.refused(0, &GroupChange::SetRole(unknown, Rank::Admin)),
        GroupLinkError::Absent(unknown)
    );
    let none =
        changed(&world.link(0, &role(2, Rank::Admin)), &[1], |body| body.set_role.as_mut().unwrap().rank = 0);
    assert_eq!(world.apply(&none), Err(value("rank")));
    let (promote, step_down) = (role(2, Rank::Owner), role(0, Rank::Member));
    world.step(0, &promote);
    world.step(0, &step_down);
    assert_eq!(world.state.member(&world.id(0)).unwrap().rank, Rank::Member);
    let mut world = World::new();
    world.step(0, &GroupChange::AddMembers(vec![world.invitee(1)]));
    let invited = world.id(1);
    assert_eq!(
        world.refused(0, &GroupChange::SetRole(invited, Rank::Owner)),
        GroupLinkError::Absent(invited)
    );
}

#[test]
fn profile_and_features_are_set_by_whom_they_are_for() {
    let mut world = World::full();
    assert_eq!(world.refused(2, &GroupChange::SetProfile("x".into())), GroupLinkError::RankTooLow);
    world.step(1, &GroupChange::SetProfile(vec![1; 4096].into()));
    assert_eq!(world.state.profile().len(), 4096);
    assert_eq!(world.refused(1, &GroupChange::SetProfile(vec![1; 4097].into())), value("profile"));
    assert_eq!(world.refused(1, &GroupChange::RequireFeature(6)), GroupLinkError::RankTooLow);
    for feature in [6, 0, 4] {
        world.step(0, &GroupChange::RequireFeature(feature));
    }
    assert_eq!(world.state.features(), [0, 4, 6]);
    assert_eq!(world.refused(0, &GroupChange::RequireFeature(4)), value("feature"));
    assert_eq!(GroupState::from_trusted(&world.state.encode()), Ok(world.state.clone()));
    for feature in 100..161 {
        world.step(0, &GroupChange::RequireFeature(feature));
    }
    assert_eq!(world.refused(0, &GroupChange::RequireFeature(7)), value("feature"));
}

#[test]
fn keepers_come_and_go_one_by_one() {
    let mut world = World::full();
    let keepers: Vec<ServerRef> = world.homes.iter().map(Home::reference).collect();
    let set = |which: &[usize]| GroupChange::SetKeepers(which.iter().map(|n| keepers[*n].clone()).collect());
    assert_eq!(world.refused(1, &set(&[0, 1])), GroupLinkError::RankTooLow);
    world.step(0, &set(&[1, 0]));
    for which in [&[][..], &[0, 0], &[1, 0], &[0, 1, 2], &[2, 0], &[2], &[1, 0, 1]] {
        assert_eq!(world.refused(0, &set(which)), value("keepers"), "{which:?}");
    }
    let stranger = ServerRef { domain: domain("z.example"), genesis: [9; 32].into() };
    let with =
        |other: ServerRef| GroupChange::SetKeepers(vec![keepers[1].clone(), keepers[0].clone(), other]);
    assert_eq!(world.refused(0, &with(stranger.clone())), value("keepers"), "nobody is there");
    let second = ServerRef { domain: domain("a.example"), ..stranger };
    assert_eq!(world.refused(0, &with(second)), value("keepers"), "a domain twice");
    world.step(0, &set(&[1, 2, 0]));
    assert_eq!(world.state.majority(), 2);
    world.step(0, &set(&[1, 2]));
    assert_eq!((world.state.keepers(), world.state.majority()), (&keepers[1..], 2));
    let many: Vec<ServerRef> = (0..8)
        .map(|n| ServerRef { domain: domain(&format!("{n}.example")), genesis: [n; 32].into() })
        .collect();
    assert_eq!(world.refused(0, &GroupChange::SetKeepers(many)), value("keepers"));
}

#[test]
fn a_link_is_judged_by_the_account_as_of_the_head_that_it_names() {
    let mut world = World::full();
    let before = world.people[2].clone();
    let phone = before.device;
    let tablet = before.with_device(33);
    let moved = Person { n: 33, device: tablet.chain.head().0.into(), ..tablet };
    let left = moved.without_device(phone);
    world.chains.add_account(&left.links).unwrap();
    // The phone is on the list at the head that it names, whatever came later.
    assert!(world.apply(&world.link(2, &GroupChange::Leave)).is_ok());
    world.people[2] = Person { n: 3, device: phone, ..left.clone() };
    assert_eq!(world.refused(2, &GroupChange::Leave), GroupLinkError::NotListed);
    world.people[2] = left.clone();
    let advance = |device_removed| GroupChange::Advance { domain: domain("b.example"), device_removed };
    assert_eq!(world.refused(2, &advance(false)), GroupLinkError::Account("list of devices"));
    let mut other = world.clone();
    other.step(2, &GroupChange::Leave);
    world.step(2, &advance(true));
    assert_eq!(world.state.rotated(), world.state.number());
    assert_eq!(world.state.member(&world.id(2)).unwrap().number, 2);
    assert_eq!(world.refused(2, &advance(false)), GroupLinkError::Account("head"), "it did not go on since");
    world.people[2] = before.clone();
    assert_eq!(world.refused(2, &GroupChange::Leave), GroupLinkError::StaleAccount, "an older head");
    let fork = before.with_device(34).with_device(35).with_device(36);
    world.replace(2, fork);
    assert_eq!(world.refused(2, &GroupChange::Leave), GroupLinkError::StaleAccount, "another branch");
}

#[test]
fn any_link_takes_the_account_head_along_and_an_address_moves_by_advance() {
    let mut world = World::full();
    let rotated = world.state.rotated();
    world.replace(1, world.people[1].with_device(34));
    world.step(1, &GroupChange::SetProfile("x".into()));
    assert_eq!(world.state.member(&world.id(1)).unwrap().head, Some(world.people[1].chain.head()));
    let lost = world.people[1].chain.head().0.into();
    let mut other = world.clone();
    other.replace(1, world.people[1].without_device(lost));
    other.step(1, &GroupChange::SetProfile("y".into()));
    assert_eq!(other.state.rotated(), other.state.number(), "whatever the link is");
    other.step(1, &GroupChange::SetProfile("z".into()));
    assert_eq!(other.state.rotated() + 1, other.state.number());
    world.replace(1, world.people[1].moved("c.example"));
    let advance = |to: &str| GroupChange::Advance { domain: domain(to), device_removed: false };
    assert_eq!(world.refused(1, &advance("a.example")), GroupLinkError::Account("domain"));
    world.step(1, &advance("c.example"));
    assert_eq!(world.state.members_of(&domain("c.example")).count(), 2);
    assert_eq!(world.state.rotated(), rotated, "moving lets nobody out");
}

#[test]
fn what_is_missing_is_said_and_is_not_a_verdict() {
    let world = World::full();
    let link = world.link(2, &GroupChange::Leave);
    let missing = Missing::Account { id: world.id(2), head: world.people[2].chain.head() };
    let error = world.state.apply(&link, &Chains::new()).unwrap_err();
    assert_eq!((error.missing(), error.code()), (Some(missing), Code::EVIDENCE_MISSING));
    let hub = world.homes[0].signer();
    let checkpoint = world.link_by(0, &GroupChange::Checkpoint(hub.clone()));
    let missing = Missing::Server { genesis: hub.server.genesis, head: hub.head };
    let error = world.state.apply(&checkpoint, &Chains::new()).unwrap_err();
    assert_eq!(error.missing(), Some(missing));
    // Evidence under another name is none.
    let mut chains = Chains::new();
    let links = world.people[2].links.clone();
    let wrong = pb::Evidence { chain: vec![1; 32].into(), links: links.clone(), server: false };
    assert!(chains.add(&wrong).is_err());
    chains.add(&pb::Evidence { chain: world.id(2).to_bytes(), links, server: false }).unwrap();
    assert!(world.state.apply(&link, &chains).is_ok());
}

#[test]
fn the_place_of_a_link_is_in_its_body() {
    let mut world = World::full();
    let old = world.link(1, &GroupChange::SetProfile("x".into()));
    let with = |change: fn(&mut pb::GroupLinkBody)| world.apply(&changed(&old, &[2], change)).unwrap_err();
    assert_eq!(with(|b| b.chain = vec![1; 32].into()), LinkError::OtherChain.into());
    assert_eq!(with(|b| b.number += 1), LinkError::Number { expected: 7, got: 8 }.into());
    assert_eq!(
        with(|b| b.previous = vec![1; 32].into()),
        LinkError::Previous { got: LinkId([1; 32]) }.into()
    );
    assert_eq!(with(|b| b.set_profile = None), LinkError::Field(0x0e).into());
    assert_eq!(with(|b| b.r#type = 0x0c), LinkError::Field(0x0c).into());
    assert_eq!(with(|b| b.r#type = 0), LinkError::Field(0).into());
    assert_eq!(with(|b| b.leave = Some(pb::Leave {})), LinkError::Field(0x0e).into());
    assert_eq!(with(|b| b.r#type = 0x1c), LinkError::UnknownCritical(0x1c).into());
    assert_eq!(with(|b| b.author = None), GroupLinkError::Author);
    world.push(old.clone());
    let stale = world.apply(&old).unwrap_err();
    assert_eq!(
        (stale.code(), stale),
        (Code::STALE_GROUP_LINK, LinkError::Number { expected: 8, got: 7 }.into())
    );
}

#[test]
fn signatures_are_those_of_the_signers_named() {
    let world = World::full();
    let good = world.link(2, &GroupChange::Leave);
    let refused = |link: &pb::Link| world.apply(link).unwrap_err();
    assert_eq!(refused(&changed(&good, &[2], |_| ())), LinkError::Signers.into());
    assert_eq!(refused(&changed(&good, &[3, 2], |_| ())), LinkError::Signers.into());
    let mut bad = good.clone();
    bad.signatures.clear();
    assert_eq!(refused(&bad), LinkError::SignatureCount { expected: 1, got: 0 }.into());
    let forged = key(2).sign(Purpose::GROUP_LINK, &good.body).to_bytes();
    let bad = pb::Link { signatures: vec![forged], ..good.clone() };
    assert!(matches!(refused(&bad), GroupLinkError::Link(LinkError::Signature { place: 0, .. })));
    let elsewhere = key(3).sign(Purpose::ACCOUNT_LINK, &good.body).to_bytes();
    let bad = pb::Link { signatures: vec![elsewhere], ..good };
    assert!(matches!(refused(&bad), GroupLinkError::Link(LinkError::Signature { place: 0, .. })));
}

#[test]
fn sizes_are_bounded_by_type() {
    let mut world = World::full();
    let accounts = |range: std::ops::Range<u16>| {
        let account = |n: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            (AccountId(id), domain("z.example"))
        };
        GroupChange::AddMembers(range.map(account).collect())
    };
    world.step(0, &GroupChange::SetPolicy(Policy { members_max: 1024, ..Policy::default() }));
    world.step(0, &accounts(0..1019));
    assert_eq!(world.state.members().len(), MEMBERS_MAX);
    assert!(world.links.last().unwrap().body.len() > SMALL_LINK_BYTES_MAX);
    assert_eq!(world.refused(0, &accounts(2000..2001)), GroupLinkError::Full);
    let large = world.refused(0, &accounts(0..2000));
    assert!(matches!(large, GroupLinkError::Link(LinkError::TooLarge(_))), "{large:?}");
    let large = world.refused(0, &GroupChange::SetProfile(vec![1; 8200].into()));
    assert!(matches!(large, GroupLinkError::Link(LinkError::TooLarge(_))), "{large:?}");
}

#[test]
fn an_unknown_odd_link_counts_and_changes_nothing_but_its_authors_head() {
    let mut world = World::full();
    world.replace(3, world.people[3].with_device(34));
    let template = world.link(3, &GroupChange::Leave);
    let odd = changed(&template, &[4], |body| (body.r#type, body.leave) = (0x21, None));
    let carrying = changed(&template, &[4], |body| body.r#type = 0x21);
    for link in [odd, carrying] {
        let next = world.apply(&link).unwrap();
        assert_eq!((next.number(), next.members().len()), (7, 5));
        assert_eq!(next.member(&world.id(3)).unwrap().head, Some(world.people[3].chain.head()));
        assert_eq!(next.rotated(), world.state.rotated());
    }
    let stranger = Person::new(50, "a.example");
    world.replace(3, stranger);
    let template = world.link(3, &GroupChange::Leave);
    let odd = changed(&template, &[50], |body| (body.r#type, body.leave) = (0x21, None));
    assert_eq!(world.apply(&odd), Err(GroupLinkError::NotMember(world.id(3))));
    let unsigned = changed(&template, &[], |body| (body.r#type, body.author) = (0x21, None));
    assert_eq!(world.apply(&unsigned), Err(GroupLinkError::Author));
}

#[test]
fn a_closed_account_signs_nothing() {
    let mut world = World::full();
    let closed = world.people[2].after(&crate::chain::AccountChange::Close("done".into()), &[103]);
    world.replace(2, closed);
    assert_eq!(world.refused(2, &GroupChange::Leave), GroupLinkError::NotListed);
}

#[test]
fn a_snapshot_is_taken_by_its_hash_and_only_whole() {
    let world = World::full();
    let bytes = world.state.encode();
    assert_eq!(GroupState::from_snapshot(&bytes, &world.state.hash()), Ok(world.state.clone()));
    assert_eq!(GroupState::from_snapshot(&bytes, &Hash::ZERO), Err(GroupLinkError::Snapshot));
    let with = |change: fn(&mut pb::GroupState)| {
        let mut state = world.state.to_pb();
        change(&mut state);
        GroupState::from_trusted(&state.encode_to_vec()).unwrap_err()
    };
    assert_eq!(with(|s| s.members.swap(0, 1)), GroupLinkError::State("another encoding"));
    assert_eq!(with(|s| s.members[1] = s.members[0].clone()), GroupLinkError::State("an account twice"));
    assert_eq!(with(|s| s.features = vec![4, 4]), GroupLinkError::State("features"));
    assert_eq!(with(|s| s.term = 0), GroupLinkError::State("term 0"));
    assert_eq!(with(|s| s.checkpoint = 7), GroupLinkError::State("a number that is later than the head"));
    assert_eq!(with(|s| s.keepers.clear()), value("keepers"));
    assert_eq!(with(|s| s.policy = None), GroupLinkError::State("no policy"));
    let nobody = "no owner";
    assert_eq!(with(|s| s.members.iter_mut().for_each(|m| m.rank = 1)), GroupLinkError::State(nobody));
    let headless = GroupLinkError::State("an invited account has a head, or a member has none");
    assert_eq!(with(|s| s.members[0].account_head.clear()), headless);
    assert_eq!(with(|s| s.members[0].invited = true), headless);
}

#[test]
fn a_whole_chain_verifies_and_names_its_first_bad_link() {
    let world = World::full();
    assert_eq!(GroupState::verify(&world.links, &world.chains), Ok(world.state.clone()));
    assert_eq!(GroupState::verify(&[], &world.chains), Err((0, LinkError::NotGenesis.into())));
    let mut links = world.links.clone();
    links.remove(2);
    let error = LinkError::Number { expected: 2, got: 3 };
    assert_eq!(GroupState::verify(&links, &world.chains), Err((2, error.into())));
    let other = GroupState::genesis(&World::new().links[0], &world.chains).unwrap();
    assert_ne!(other, world.state);
    let again = genesis(&world.people[0].author(), &new_group(&world.people[0], &world.homes[0]), &key(1));
    assert_eq!(again, world.links[0], "made from the same, it is the same");
}
