//! Chapter 07: links and chains of groups, logs, signed heads, votes.

mod links;
mod logs;
mod servers;

use serde_json::json;
use tidings_proto::chain::AccountChange;
use tidings_proto::chain::group::{GroupChange, Policy, Rank};

use crate::crowd::{Crowd, reference, state_json};
use crate::vector::File;
use crate::world::links_json;

pub(crate) use logs::{heads, logs, terms, votes};

/// Whole chains from the genesis.
pub(crate) fn chain() -> File {
    let question =
        "Do these links, verified in order from the genesis, make a group chain, and which state follows?";
    let mut file = File::new("07-groups", "group-chain", question);
    let mut add = |comment: &str, crowd: &Crowd| {
        let (accounts, servers) = crowd.chains_of(&crowd.links);
        let inputs = json!({"links": links_json(&crowd.links), "accounts": accounts, "servers": servers});
        file.valid(&["GRP-001", "GRP-002"], comment, inputs, state_json(&crowd.state));
    };
    let mut crowd = Crowd::new();
    add("a genesis", &crowd);
    crowd = Crowd::full();
    add("four are added and accept", &crowd);
    crowd.people[2].grow();
    let device = crowd.people[2].life.chain.head().0.into();
    crowd.step(2, &GroupChange::Advance { domain: crowd.people[2].domain(), device_removed: false });
    crowd.people[2].lose(device);
    crowd.people[2].change(&AccountChange::ChangeAddress("u2@c.example".parse().expect("an address")));
    crowd.step(2, &GroupChange::Advance { domain: crowd.people[2].domain(), device_removed: true });
    add("a device comes and goes, the account moves", &crowd);
    crowd
        .step(0, &GroupChange::SetPolicy(Policy { posts: Rank::Admin, members_max: 7, ..Policy::default() }));
    crowd.step(0, &GroupChange::RequireFeature(6));
    crowd.step(0, &GroupChange::SetKeepers([0, 1].map(|home| reference(&crowd.homes[home])).to_vec()));
    let hub = crowd.signer(0);
    crowd.push(crowd.link_by(0, &GroupChange::Checkpoint(hub)));
    add("policy, a feature, a second keeper, a checkpoint", &crowd);
    crowd.push(crowd.link_with(0, 1, &GroupChange::HubTransfer(crowd.signer(1))));
    crowd.step(0, &GroupChange::Leave);
    add("the hub hands over, the owner leaves, the admin follows", &crowd);
    crowd.step(1, &GroupChange::RemoveMembers((2..5).map(|person| crowd.id(person)).collect()));
    crowd.step(1, &GroupChange::Leave);
    add("the last member leaves", &crowd);
    let crowd = Crowd::full();
    let mut links = crowd.links.clone();
    links.remove(1);
    let (accounts, servers) = crowd.chains_of(&links);
    let inputs = json!({"links": links_json(&links), "accounts": accounts, "servers": servers});
    file.invalid(&["GRP-001"], "a link is left out", "stale-group-link", inputs)
        .steps(json!({"bad_link": 1}));
    genesis(&mut file);
    file
}

fn genesis(file: &mut File) {
    use crate::crowd::changed;
    let crowd = Crowd::new();
    let first = &crowd.links[0];
    let with = |change: fn(&mut tidings_proto::pb::GroupGenesis)| {
        changed(first, &[40], |body| change(body.genesis.as_mut().expect("a genesis")))
    };
    let policy = |change: fn(&mut tidings_proto::pb::Policy)| {
        changed(first, &[40], |body| {
            change(body.genesis.as_mut().and_then(|genesis| genesis.policy.as_mut()).expect("a policy"));
        })
    };
    let author = |change: fn(&mut tidings_proto::pb::Author)| {
        changed(first, &[40], |body| change(body.author.as_mut().expect("an author")))
    };
    for (comment, code, link) in [
        ("another address than the account's", "link-invalid", with(|g| g.address = "u9@a.example".into())),
        ("a salt of 15 bytes", "link-invalid", with(|g| g.salt = vec![7; 15].into())),
        (
            "a hub of another domain",
            "link-invalid",
            with(|g| g.hub.as_mut().expect("a hub").domain = "b.example".into()),
        ),
        ("no hub", "link-invalid", with(|g| g.hub = None)),
        ("no policy", "link-invalid", with(|g| g.policy = None)),
        ("a policy without a rank for posts", "link-invalid", policy(|p| p.posts = 0)),
        ("a rank that is not known", "link-invalid", policy(|p| p.adds = 4)),
        ("a policy for nobody", "link-invalid", policy(|p| p.members_max = 0)),
        ("a policy for 1,025", "link-invalid", policy(|p| p.members_max = 1025)),
        ("a profile of 4,097 bytes", "link-invalid", with(|g| g.profile = vec![1; 4097].into())),
        ("number above 0", "link-invalid", changed(first, &[40], |body| body.number = 1)),
        ("of another type", "link-invalid", changed(first, &[40], |body| body.r#type = 2)),
        ("no field of its type", "link-invalid", changed(first, &[40], |body| body.genesis = None)),
        ("no author", "link-invalid", changed(first, &[40], |body| body.author = None)),
        ("signed by the recovery key", "link-invalid", changed(first, &[30], |_| ())),
        ("another number than that of the account's head", "link-invalid", author(|a| a.account_number = 1)),
        ("a device that is not on the list", "link-invalid", author(|a| a.device = vec![9; 32].into())),
        (
            "an account head that is not known",
            "evidence-missing",
            author(|a| a.account_head = vec![9; 32].into()),
        ),
    ] {
        let (accounts, servers) = crowd.chains_of(std::slice::from_ref(&link));
        let inputs = json!({"links": links_json(&[link]), "accounts": accounts, "servers": servers});
        let comment = format!("genesis: {comment}");
        file.invalid(&["GRP-001"], &comment, code, inputs).steps(json!({"bad_link": 0}));
    }
}

/// One link behind a state.
pub(crate) fn link() -> File {
    let question = "Can this link follow this state, judged by these chains, and which state follows?";
    let mut file = File::new("07-groups", "group-link", question);
    links::membership(&mut file);
    links::settings(&mut file);
    links::accounts(&mut file);
    links::form(&mut file);
    servers::checkpoints(&mut file);
    servers::transfers(&mut file);
    servers::successions(&mut file);
    servers::foreign_votes(&mut file);
    file
}
