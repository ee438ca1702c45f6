//! People, homes and a group, from which vectors of chapter 07 are made.

use std::collections::BTreeSet;

use prost::Message as _;
use serde_json::{Value, json};
use tidings_proto::chain::group::{
    Author, Chains, GroupChange, GroupEvidence, GroupState, NewGroup, Policy, Rank, ServerRef, ServerSigner,
    genesis,
};
use tidings_proto::chain::{AccountChange, Verified, account as chain, sign_link};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, SigningKey};

use crate::vector::File;
use crate::world::{Account, Life, Server, device, key, link_json, server_of};

/// The recovery key of person n is 30 + n, its device's 40 + n, a second device's 50 + n.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) n: u8,
    pub(crate) life: Account,
}

impl Person {
    fn new(n: u8, domain: &str) -> Self {
        let address = format!("u{n}@{domain}").parse().expect("an address");
        let body = chain::genesis_body(&key(30 + n).public(), &address, &device(40 + n), [9; 16]);
        let links = vec![chain::genesis(body, &key(30 + n), &key(40 + n))];
        Self { n, life: Life { chain: Verified::verify(&links).expect("a genesis"), links } }
    }

    pub(crate) fn id(&self) -> AccountId {
        self.life.chain.account_id()
    }

    pub(crate) fn domain(&self) -> Domain {
        self.life.chain.state().address().domain().clone()
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.id().0.into()
    }

    pub(crate) fn author(&self) -> Author {
        let number = u64::try_from(self.life.chain.len() - 1).expect("small");
        Author { account: self.id(), device: self.device(), head: self.life.chain.head(), number }
    }

    pub(crate) fn grow(&mut self) {
        self.life.add(&AccountChange::AddDevice(device(50 + self.n)), &[40 + self.n, 50 + self.n]);
    }

    pub(crate) fn lose(&mut self, device: DeviceId) {
        self.life.add(&AccountChange::RemoveDevice(device), &[40 + self.n]);
    }

    pub(crate) fn change(&mut self, change: &AccountChange) {
        self.life.add(change, &[30 + self.n]);
    }
}

/// Homes a, b and c; person 0 of a makes the group. 1 is of a, 2 and 3 of b, 4 of c.
#[derive(Clone)]
pub(crate) struct Crowd {
    pub(crate) homes: Vec<Server>,
    pub(crate) people: Vec<Person>,
    pub(crate) state: GroupState,
    pub(crate) links: Vec<pb::Link>,
}

pub(crate) fn reference(home: &Server) -> ServerRef {
    ServerRef { domain: home.chain.state().domain().clone(), genesis: home.chain.server_id() }
}

/// The key with which a home signs: the one that is online last.
pub(crate) fn signer(home: &Server, key: &SigningKey) -> ServerSigner {
    ServerSigner { server: reference(home), head: home.chain.head(), key: key.public() }
}

impl Crowd {
    pub(crate) fn new() -> Self {
        let homes = vec![server_of("a.example", 10), server_of("b.example", 20), server_of("c.example", 25)];
        let domains = ["a.example", "a.example", "b.example", "b.example", "c.example"];
        let people: Vec<Person> = (0..).zip(domains).map(|(n, domain)| Person::new(n, domain)).collect();
        let new = NewGroup {
            salt: [7; 16],
            address: people[0].life.chain.state().address().clone(),
            hub: reference(&homes[0]),
            policy: Policy::default(),
            profile: b"sealed".as_slice().into(),
        };
        let first = genesis(&people[0].author(), &new, &key(40));
        let state = GroupState::genesis(&first, &chains(&people, &homes)).expect("a genesis");
        Self { homes, people, state, links: vec![first] }
    }

    /// All five are members; 1 is an admin.
    pub(crate) fn full() -> Self {
        let mut crowd = Self::new();
        let others = (1..5).map(|person| crowd.invitee(person)).collect();
        crowd.step(0, &GroupChange::AddMembers(others));
        for person in 1..5 {
            crowd.step(person, &GroupChange::Accept(crowd.people[person].domain()));
        }
        crowd.step(0, &GroupChange::SetRole(crowd.id(1), Rank::Admin));
        crowd
    }

    pub(crate) fn id(&self, person: usize) -> AccountId {
        self.people[person].id()
    }

    pub(crate) fn invitee(&self, person: usize) -> (AccountId, Domain) {
        (self.id(person), self.people[person].domain())
    }

    /// The key with which a home signs.
    pub(crate) fn home_key(home: usize) -> SigningKey {
        key([11, 21, 26][home])
    }

    pub(crate) fn signer(&self, home: usize) -> ServerSigner {
        signer(&self.homes[home], &Self::home_key(home))
    }

    pub(crate) fn link(&self, person: usize, change: &GroupChange) -> pb::Link {
        let by = key(40 + self.people[person].n);
        self.state.link(Some(&self.people[person].author()), change, &[&by])
    }

    pub(crate) fn link_with(&self, person: usize, home: usize, change: &GroupChange) -> pb::Link {
        let by = key(40 + self.people[person].n);
        self.state.link(Some(&self.people[person].author()), change, &[&by, &Self::home_key(home)])
    }

    pub(crate) fn link_by(&self, home: usize, change: &GroupChange) -> pb::Link {
        self.state.link(None, change, &[&Self::home_key(home)])
    }

    pub(crate) fn push(&mut self, link: pb::Link) {
        let next = self.state.apply(&link, &chains(&self.people, &self.homes));
        self.state = next.unwrap_or_else(|error| panic!("{error:?}"));
        self.links.push(link);
    }

    pub(crate) fn step(&mut self, person: usize, change: &GroupChange) {
        self.push(self.link(person, change));
    }

    /// What `group-link` gives: a state, a link, and the chains that the link names, as far as they are known.
    pub(crate) fn case(&self, link: &pb::Link) -> Value {
        let (accounts, servers) = self.chains_of(std::slice::from_ref(link));
        let state = hex::encode(self.state.encode());
        json!({"state": state, "link": link_json(link), "accounts": accounts, "servers": servers})
    }

    /// The chains that links name.
    pub(crate) fn chains_of(&self, links: &[pb::Link]) -> (Value, Value) {
        let (mut accounts, mut servers) = (BTreeSet::new(), BTreeSet::new());
        for link in links {
            let body = pb::GroupLinkBody::decode(link.body.clone()).unwrap_or_default();
            accounts.extend(body.author.map(|author| author.account));
            let succession = body.hub_succession.unwrap_or_default();
            let votes = succession.votes.iter().map(|vote| pb::KeeperVote::decode(vote.body.clone()));
            let keepers = votes.filter_map(|vote| vote.ok()?.keeper);
            let hubs = [
                body.hub_transfer.and_then(|transfer| transfer.hub),
                body.checkpoint.and_then(|checkpoint| checkpoint.hub),
                succession.hub,
            ];
            let signers = hubs.into_iter().flatten().chain(keepers).filter_map(|signer| signer.server);
            servers.extend(signers.map(|server| server.genesis));
        }
        let people = self.people.iter().filter(|person| accounts.contains(person.id().as_ref()));
        let homes = self.homes.iter().filter(|home| servers.contains(home.chain.server_id().as_ref()));
        (people.map(|person| person.life.json()).collect(), homes.map(Server::json).collect())
    }

    pub(crate) fn servers_json(&self) -> Value {
        self.homes.iter().map(Server::json).collect()
    }
}

pub(crate) fn chains(people: &[Person], homes: &[Server]) -> impl GroupEvidence + use<> {
    let mut chains = Chains::new();
    for person in people {
        chains.add_account(&person.life.links).expect("a good chain");
    }
    for home in homes {
        chains.add_server(&home.links).expect("a good chain");
    }
    chains
}

pub(crate) fn state_json(state: &GroupState) -> Value {
    json!({"state": hex::encode(state.encode()), "hash": state.hash().to_string()})
}

/// A link of which something was changed, signed by these keys, which its body names.
pub(crate) fn changed(link: &pb::Link, keys: &[u8], change: impl FnOnce(&mut pb::GroupLinkBody)) -> pb::Link {
    let mut body = pb::GroupLinkBody::decode(link.body.clone()).expect("a body");
    let keys: Vec<SigningKey> = keys.iter().copied().map(key).collect();
    body.signers = keys.iter().map(|key| key.public().id().to_bytes()).collect();
    change(&mut body);
    sign_link(Purpose::GROUP_LINK, body.encode_to_vec().into(), &keys.iter().collect::<Vec<_>>())
}

/// A link that stands.
pub(crate) fn take(file: &mut File, comment: &str, crowd: &Crowd, link: &pb::Link) {
    let next = crowd.state.apply(link, &chains(&crowd.people, &crowd.homes));
    let next = next.unwrap_or_else(|error| panic!("{comment}: {error:?}"));
    file.valid(&["GRP-001"], comment, crowd.case(link), state_json(&next))
        .steps(json!({"id": next.head().to_string()}));
}

/// A link that is refused.
pub(crate) fn refuse(file: &mut File, (comment, code): (&str, &str), crowd: &Crowd, link: &pb::Link) {
    file.invalid(&["GRP-001"], comment, code, crowd.case(link));
}
