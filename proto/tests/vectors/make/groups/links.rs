//! Links that a device signs alone.

use prost::Message as _;
use serde_json::json;
use tidings_proto::chain::group::{GroupChange, Policy, Rank, ServerRef};
use tidings_proto::chain::{AccountChange, sign_link};
use tidings_proto::id::AccountId;
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use crate::crowd::{Crowd, changed, reference, refuse, take};
use crate::vector::File;
use crate::world::key;

fn stranger(n: u8) -> (AccountId, tidings_proto::name::Domain) {
    (AccountId([n; 32]), "z.example".parse().expect("a domain"))
}

pub(super) fn membership(file: &mut File) {
    let crowd = Crowd::full();
    let remove = |who: &[usize]| GroupChange::RemoveMembers(who.iter().map(|n| crowd.id(*n)).collect());
    let add = |who: &[u8]| GroupChange::AddMembers(who.iter().copied().map(stranger).collect());
    let role = |person, rank| GroupChange::SetRole(crowd.id(person), rank);
    for (comment, by, change) in [
        ("an admin adds two", 1, add(&[7, 8])),
        ("an owner adds one", 0, add(&[7])),
        ("a member leaves", 3, GroupChange::Leave),
        ("the only owner leaves: the admin follows", 0, GroupChange::Leave),
        ("an admin removes a member", 1, remove(&[3])),
        ("an owner removes an admin and a member", 0, remove(&[1, 2])),
        ("an owner makes another", 0, role(2, Rank::Owner)),
        ("an owner takes a rank away", 0, role(1, Rank::Member)),
    ] {
        take(file, comment, &crowd, &crowd.link(by, &change));
    }
    let mut no_admin = crowd.clone();
    no_admin.step(0, &role(1, Rank::Member));
    let comment = "the only owner leaves, and all others were added by one link: the lower account id";
    take(file, comment, &no_admin, &no_admin.link(0, &GroupChange::Leave));
    for (comment, code, by, change) in [
        ("a member adds where admins do", "rank-too-low", 2, add(&[7])),
        ("nobody is added", "link-invalid", 0, add(&[])),
        ("one twice", "link-invalid", 0, add(&[7, 7])),
        ("a member is added", "link-invalid", 0, GroupChange::AddMembers(vec![crowd.invitee(2)])),
        ("a stranger leaves", "not-a-member", 5, GroupChange::Leave),
        ("a member accepts again", "not-a-member", 2, GroupChange::Accept(crowd.people[2].domain())),
        ("a member removes", "rank-too-low", 2, remove(&[3])),
        ("an admin removes the owner", "rank-too-low", 1, remove(&[0])),
        ("an admin removes itself", "link-invalid", 1, remove(&[1])),
        ("an owner removes itself", "link-invalid", 0, remove(&[0])),
        ("nobody is removed", "link-invalid", 0, remove(&[])),
        ("a stranger is removed", "link-invalid", 0, GroupChange::RemoveMembers(vec![stranger(7).0])),
        ("an admin gives ranks", "rank-too-low", 1, role(2, Rank::Admin)),
        ("the only owner steps down", "link-invalid", 0, role(0, Rank::Member)),
        ("a stranger gets a rank", "link-invalid", 0, GroupChange::SetRole(stranger(7).0, Rank::Admin)),
    ] {
        let mut crowd = crowd.clone();
        let mut stranger = crowd.people[4].clone();
        (stranger.n, stranger.life) = (9, crate::world::account());
        crowd.people.push(stranger);
        let link = crowd.link(by, &change);
        let link = if by == 5 { changed(&link, &[2], |_| ()) } else { link };
        refuse(file, (comment, code), &crowd, &link);
    }
    let two = crowd.link(0, &add(&[7, 8]));
    let disordered = changed(&two, &[40], |body| body.add_members.as_mut().expect("some").members.reverse());
    refuse(file, ("descending by account", "link-invalid"), &crowd, &disordered);
    let two = crowd.link(0, &remove(&[2, 3]));
    let disordered =
        changed(&two, &[40], |body| body.remove_members.as_mut().expect("some").accounts.reverse());
    refuse(file, ("removed ones descending by account", "link-invalid"), &crowd, &disordered);
    invited(file);
    full(file);
}

fn invited(file: &mut File) {
    let mut crowd = Crowd::new();
    crowd.step(0, &GroupChange::AddMembers(vec![crowd.invitee(1), crowd.invitee(2)]));
    let accept = GroupChange::Accept(crowd.people[2].domain());
    take(file, "an invited account accepts", &crowd, &crowd.link(2, &accept));
    take(file, "an invited account declines: no rotation", &crowd, &crowd.link(2, &GroupChange::Leave));
    take(
        file,
        "an invitation is taken back",
        &crowd,
        &crowd.link(0, &GroupChange::RemoveMembers(vec![crowd.id(2)])),
    );
    take(file, "the only member leaves: closed", &crowd, &crowd.link(0, &GroupChange::Leave));
    let elsewhere = GroupChange::Accept(crowd.people[1].domain());
    refuse(file, ("accept with another domain", "link-invalid"), &crowd, &crowd.link(2, &elsewhere));
    refuse(file, ("accept of one that was not added", "not-a-member"), &crowd, &crowd.link(3, &accept));
    let profile = GroupChange::SetProfile("x".into());
    refuse(file, ("an invited account changes something", "not-a-member"), &crowd, &crowd.link(2, &profile));
    let role = GroupChange::SetRole(crowd.id(2), Rank::Admin);
    refuse(file, ("an invited account gets a rank", "link-invalid"), &crowd, &crowd.link(0, &role));
    let mut closed = crowd.clone();
    closed.step(0, &GroupChange::Leave);
    refuse(file, ("accept in a closed group", "link-invalid"), &closed, &closed.link(2, &accept));
}

fn full(file: &mut File) {
    let mut crowd = Crowd::full();
    let policy = Policy { adds: Rank::Member, members_max: 6, ..Policy::default() };
    crowd.step(0, &GroupChange::SetPolicy(policy));
    let add = |who: &[u8]| GroupChange::AddMembers(who.iter().copied().map(stranger).collect());
    take(file, "a member adds where everybody may, up to the most", &crowd, &crowd.link(2, &add(&[7])));
    refuse(file, ("one more than the policy allows", "group-full"), &crowd, &crowd.link(2, &add(&[7, 8])));
}

pub(super) fn settings(file: &mut File) {
    let mut crowd = Crowd::full();
    let keepers = |crowd: &Crowd, which: &[usize]| {
        GroupChange::SetKeepers(which.iter().map(|home| reference(&crowd.homes[*home])).collect())
    };
    let edits = |members_max| {
        GroupChange::SetPolicy(Policy { members_max, edits: Rank::Member, ..Policy::default() })
    };
    for (comment, by, change) in [
        ("an owner sets the policy, to fewer than there are", 0, edits(3)),
        ("an admin sets the profile", 1, GroupChange::SetProfile(vec![1; 4096].into())),
        ("an empty profile", 1, GroupChange::SetProfile(Vec::new().into())),
        ("an owner requires a feature", 0, GroupChange::RequireFeature(0)),
        ("a keeper is added", 0, keepers(&crowd, &[0, 1])),
        ("a keeper is added in front", 0, keepers(&crowd, &[2, 0])),
    ] {
        take(file, comment, &crowd, &crowd.link(by, &change));
    }
    crowd.step(0, &keepers(&crowd, &[0, 1]));
    crowd.step(0, &GroupChange::RequireFeature(6));
    take(file, "a keeper is removed, the hub itself", &crowd, &crowd.link(0, &keepers(&crowd, &[1])));
    take(file, "a feature below another", &crowd, &crowd.link(0, &GroupChange::RequireFeature(4)));
    let nobody = ServerRef { domain: "z.example".parse().expect("a domain"), genesis: [9; 32].into() };
    let foreign = [0, 1].map(|home| reference(&crowd.homes[home])).into_iter().chain([nobody]).collect();
    for (comment, code, by, change) in [
        ("an admin sets the policy", "rank-too-low", 1, edits(3)),
        ("a policy for 1,025", "link-invalid", 0, edits(1025)),
        ("a member sets the profile", "rank-too-low", 2, GroupChange::SetProfile("x".into())),
        ("a profile of 4,097 bytes", "link-invalid", 1, GroupChange::SetProfile(vec![1; 4097].into())),
        ("an admin requires a feature", "rank-too-low", 1, GroupChange::RequireFeature(8)),
        ("a feature again", "link-invalid", 0, GroupChange::RequireFeature(6)),
        ("an admin sets the keepers", "rank-too-low", 1, keepers(&crowd, &[0])),
        ("no keepers", "link-invalid", 0, keepers(&crowd, &[])),
        ("the same keepers", "link-invalid", 0, keepers(&crowd, &[0, 1])),
        ("keepers in another order", "link-invalid", 0, keepers(&crowd, &[1, 0])),
        ("one keeper for another", "link-invalid", 0, keepers(&crowd, &[0, 2])),
        ("a keeper more, the others in another order", "link-invalid", 0, keepers(&crowd, &[1, 0, 2])),
        ("a keeper twice", "link-invalid", 0, keepers(&crowd, &[0, 1, 1])),
        ("a keeper whose domain has no member", "link-invalid", 0, GroupChange::SetKeepers(foreign)),
    ] {
        refuse(file, (comment, code), &crowd, &crowd.link(by, &change));
    }
}

pub(super) fn accounts(file: &mut File) {
    let mut crowd = Crowd::full();
    let advance = |crowd: &Crowd, device_removed| GroupChange::Advance {
        domain: crowd.people[2].domain(),
        device_removed,
    };
    refuse(
        file,
        ("an advance to the head that is held", "link-invalid"),
        &crowd,
        &crowd.link(2, &advance(&crowd, false)),
    );
    let early = crowd.people[2].clone();
    crowd.people[2].grow();
    let grown = crowd.people[2].clone();
    take(file, "an advance after a device came", &crowd, &crowd.link(2, &advance(&crowd, false)));
    refuse(
        file,
        ("a device is said to have left", "link-invalid"),
        &crowd,
        &crowd.link(2, &advance(&crowd, true)),
    );
    let old = crowd.state.link(Some(&early.author()), &GroupChange::Leave, &[&key(42)]);
    take(file, "the account's head as it was: later links are not looked at", &crowd, &old);
    let good = crowd.link(2, &advance(&crowd, true));
    for (last, comment) in [(0, "a flag of 0 that is written out"), (2, "a flag of 2")] {
        let mut body = changed(&good, &[42], |_| ()).body.to_vec();
        *body.last_mut().expect("the flag") = last;
        let link = sign_link(Purpose::GROUP_LINK, body.into(), &[&key(42)]);
        refuse(file, (comment, "link-invalid"), &crowd, &link);
    }
    let second = grown.life.chain.head().0.into();
    crowd.people[2].lose(second);
    take(file, "an advance after a device came and left", &crowd, &crowd.link(2, &advance(&crowd, true)));
    refuse(
        file,
        ("a device is not said to have left", "link-invalid"),
        &crowd,
        &crowd.link(2, &advance(&crowd, false)),
    );
    rotated_by_any(file, crowd.clone());
    let gone = changed(&crowd.link(2, &GroupChange::Leave), &[52], |body| {
        body.author.as_mut().expect("an author").device = grown.life.chain.head().to_bytes();
    });
    refuse(file, ("by a device that left the list", "link-invalid"), &crowd, &gone);
    crowd.step(2, &advance(&crowd, true));
    let stale = crowd.state.link(Some(&grown.author()), &GroupChange::Leave, &[&key(42)]);
    refuse(file, ("an older head of the account than named before", "link-invalid"), &crowd, &stale);
    let mut fork = crowd.clone();
    fork.people[2] = early;
    for n in 60..64 {
        fork.people[2].life.add(&AccountChange::AddDevice(crate::world::device(n)), &[42, n]);
    }
    refuse(
        file,
        ("another branch of the account's chain", "link-invalid"),
        &fork,
        &fork.link(2, &GroupChange::Leave),
    );
    moved(file);
}

fn rotated_by_any(file: &mut File, mut first: Crowd) {
    first.people[1].grow();
    let lost = first.people[1].life.chain.head().0.into();
    first.people[1].lose(lost);
    let profile = GroupChange::SetProfile("x".into());
    take(
        file,
        "any link by whose head a device has left is a rotation link",
        &first,
        &first.link(1, &profile),
    );
}

fn moved(file: &mut File) {
    let mut moved = Crowd::full();
    moved.people[2].change(&AccountChange::ChangeAddress("u2@c.example".parse().expect("an address")));
    let advance = GroupChange::Advance { domain: moved.people[2].domain(), device_removed: false };
    take(file, "an advance after the account moved", &moved, &moved.link(2, &advance));
    let elsewhere = GroupChange::Advance { domain: moved.people[0].domain(), device_removed: false };
    refuse(file, ("an advance with another domain", "link-invalid"), &moved, &moved.link(2, &elsewhere));
    moved.people[2].change(&AccountChange::Close(String::new()));
    refuse(file, ("by a closed account", "link-invalid"), &moved, &moved.link(2, &GroupChange::Leave));
}

pub(super) fn form(file: &mut File) {
    let crowd = Crowd::full();
    let good = crowd.link(2, &GroupChange::Leave);
    let with = |change: fn(&mut pb::GroupLinkBody)| changed(&good, &[42], change);
    let author = |change: fn(&mut pb::Author)| {
        changed(&good, &[42], |body| change(body.author.as_mut().expect("an author")))
    };
    take(file, "an unknown odd link counts", &crowd, &with(|b| (b.r#type, b.leave) = (0x21, None)));
    take(file, "an unknown odd link with a known field changes nothing", &crowd, &with(|b| b.r#type = 0x21));
    let mut loose = good.body.to_vec();
    loose.extend([0x20, 0x07]);
    let mut unsigned = good.clone();
    unsigned.signatures.clear();
    let mut twice = good.clone();
    twice.signatures.push(good.signatures[0].clone());
    let forged = pb::Link { signatures: vec![crowd.links[0].signatures[0].clone()], ..good.clone() };
    for (comment, code, link) in [
        ("of another group", "link-invalid", with(|b| b.chain = vec![9; 32].into())),
        ("the number of the head", "stale-group-link", with(|b| b.number -= 1)),
        ("a number left out", "stale-group-link", with(|b| b.number += 1)),
        ("builds on another link", "stale-group-link", with(|b| b.previous = vec![9; 32].into())),
        ("an unknown even link", "link-invalid", with(|b| (b.r#type, b.leave) = (0x1c, None))),
        ("the field of another type", "link-invalid", with(|b| b.r#type = 0x0c)),
        ("no field", "link-invalid", with(|b| b.leave = None)),
        (
            "two fields",
            "link-invalid",
            with(|b| b.accept = Some(pb::AcceptMembership { domain: "b.example".into() })),
        ),
        (
            "a second genesis",
            "link-invalid",
            with(|b| (b.r#type, b.leave, b.genesis) = (0, None, Some(pb::GroupGenesis::default()))),
        ),
        ("no author", "link-invalid", with(|b| b.author = None)),
        (
            "an unknown odd link without an author",
            "link-invalid",
            with(|b| (b.r#type, b.author) = (0x21, None)),
        ),
        ("another number than the account's head has", "link-invalid", author(|a| a.account_number = 1)),
        ("a device that is not on the list", "link-invalid", author(|a| a.device = vec![9; 32].into())),
        ("a head that is not known", "evidence-missing", author(|a| a.account_head = vec![9; 32].into())),
        ("signed by another device", "link-invalid", changed(&good, &[43], |_| ())),
        ("signed by two", "link-invalid", changed(&good, &[42, 43], |_| ())),
        ("without its signature", "link-invalid", unsigned),
        ("a signature too many", "link-invalid", twice),
        ("the signature of another link", "link-invalid", forged),
        ("a field out of order", "link-invalid", pb::Link { body: loose.into(), ..good.clone() }),
    ] {
        refuse(file, (comment, code), &crowd, &link);
    }
    let inputs = json!({
        "state": hex::encode(crowd.state.encode()),
        "link": crate::world::link_json(&good),
        "accounts": [],
        "servers": [],
    });
    file.invalid(&["GRP-001", "GRP-013"], "the account's chain is not there", "evidence-missing", inputs);
    let mut large = pb::GroupLinkBody::decode(good.body.clone()).expect("a body").encode_to_vec();
    // A field that is not known, so that only the size is wrong.
    large.extend([0xf2, 0x01, 0x80, 0x40]);
    large.extend([1; 8192]);
    let large = sign_link(Purpose::GROUP_LINK, large.into(), &[&key(42)]);
    refuse(file, ("a body above 8 KiB", "link-invalid"), &crowd, &large);
}
