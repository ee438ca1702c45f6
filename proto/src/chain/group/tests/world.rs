//! People, homes and a group, from fixed seeds. The seed of key n is 32 bytes n.

use crate::chain::group::{
    Author, Chains, GroupChange, GroupLinkError, GroupState, NewGroup, Policy, ServerRef, ServerSigner,
    genesis,
};
use crate::chain::{AccountChange, AccountState, DeviceKeys, ServerState, Verified, account, server};
use crate::id::{AccountId, DeviceId, Incarnation};
use crate::name::Domain;
use crate::pb;
use crate::sign::SigningKey;

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

pub(crate) fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

fn device_keys(n: u8) -> DeviceKeys {
    let mut identity = [n; 33];
    identity[0] = 5;
    DeviceKeys::new(key(n).public(), &identity, u32::from(n)).unwrap()
}

/// An account with its links; its device signs with key `n`, its recovery key is `n + 100`.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) n: u8,
    pub(crate) device: DeviceId,
    pub(crate) chain: Verified<AccountState>,
    pub(crate) links: Vec<pb::Link>,
}

impl Person {
    pub(crate) fn new(n: u8, domain: &str) -> Self {
        let address = format!("u{n}@{domain}").parse().unwrap();
        let body = account::genesis_body(&key(n + 100).public(), &address, &device_keys(n), [9; 16]);
        let links = vec![account::genesis(body, &key(n + 100), &key(n))];
        let chain = Verified::<AccountState>::verify(&links).unwrap();
        Self { n, device: chain.account_id().0.into(), chain, links }
    }

    pub(crate) fn id(&self) -> AccountId {
        self.chain.account_id()
    }

    pub(crate) fn domain(&self) -> Domain {
        self.chain.state().address().domain().clone()
    }

    pub(crate) fn author(&self) -> Author {
        let number = u64::try_from(self.chain.len() - 1).unwrap();
        Author { account: self.id(), device: self.device, head: self.chain.head(), number }
    }

    /// The same person after one more link of its chain.
    pub(crate) fn after(&self, change: &AccountChange, keys: &[u8]) -> Self {
        let keys: Vec<SigningKey> = keys.iter().copied().map(key).collect();
        let link = self.chain.link(change, &keys.iter().collect::<Vec<_>>());
        let mut next = self.clone();
        next.chain.append(&link).unwrap();
        next.links.push(link);
        next
    }

    pub(crate) fn with_device(&self, n: u8) -> Self {
        self.after(&AccountChange::AddDevice(device_keys(n)), &[self.n, n])
    }

    pub(crate) fn without_device(&self, device: DeviceId) -> Self {
        self.after(&AccountChange::RemoveDevice(device), &[self.n])
    }

    pub(crate) fn moved(&self, domain: &str) -> Self {
        let address = format!("u{}@{domain}", self.n).parse().unwrap();
        self.after(&AccountChange::ChangeAddress(address), &[self.n + 100])
    }
}

/// A server with its links; its root key is `n`, its online key `n + 1`.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) n: u8,
    pub(crate) chain: Verified<ServerState>,
    pub(crate) links: Vec<pb::Link>,
}

impl Home {
    pub(crate) fn new(n: u8, domain: &str) -> Self {
        let domain = domain.parse().unwrap();
        let links = vec![server::genesis(&domain, &key(n), &key(n + 1), Incarnation([1; 16]))];
        Self { n, chain: Verified::<ServerState>::verify(&links).unwrap(), links }
    }

    pub(crate) fn reference(&self) -> ServerRef {
        ServerRef { domain: self.chain.state().domain().clone(), genesis: self.chain.server_id() }
    }

    pub(crate) fn signer(&self) -> ServerSigner {
        ServerSigner { server: self.reference(), head: self.chain.head(), key: self.key().public() }
    }

    pub(crate) fn key(&self) -> SigningKey {
        key(self.n + 1)
    }
}

/// A group of a creator on `a.example`, with everybody's chains at hand.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) chains: Chains,
    pub(crate) homes: Vec<Home>,
    pub(crate) people: Vec<Person>,
    pub(crate) state: GroupState,
    pub(crate) links: Vec<pb::Link>,
}

pub(crate) fn new_group(creator: &Person, home: &Home) -> NewGroup {
    NewGroup {
        salt: [7; 16],
        address: creator.chain.state().address().clone(),
        hub: home.reference(),
        policy: Policy::default(),
        profile: b"sealed".as_slice().into(),
    }
}

impl World {
    /// Homes a, b, c; person 0 of a has made the group, 1 of a, 2 of b, 3 of b and 4 of c are not in it.
    pub(crate) fn new() -> Self {
        let homes =
            vec![Home::new(200, "a.example"), Home::new(210, "b.example"), Home::new(220, "c.example")];
        let people: Vec<Person> = ["a.example", "a.example", "b.example", "b.example", "c.example"]
            .into_iter()
            .zip(1..)
            .map(|(domain, n)| Person::new(n, domain))
            .collect();
        let mut chains = Chains::new();
        for home in &homes {
            chains.add_server(&home.links).unwrap();
        }
        for person in &people {
            chains.add_account(&person.links).unwrap();
        }
        let first = genesis(&people[0].author(), &new_group(&people[0], &homes[0]), &key(1));
        let state = GroupState::genesis(&first, &chains).unwrap();
        Self { chains, homes, people, state, links: vec![first] }
    }

    /// All five are members; 1 is an admin.
    pub(crate) fn full() -> Self {
        let mut world = Self::new();
        let others = (1..5).map(|n| world.invitee(n)).collect();
        world.step(0, &GroupChange::AddMembers(others));
        for n in 1..5 {
            let domain = world.people[n].domain();
            world.step(n, &GroupChange::Accept(domain));
        }
        let admin = world.id(1);
        world.step(0, &GroupChange::SetRole(admin, super::Rank::Admin));
        world
    }

    pub(crate) fn id(&self, person: usize) -> AccountId {
        self.people[person].id()
    }

    pub(crate) fn invitee(&self, person: usize) -> (AccountId, Domain) {
        (self.id(person), self.people[person].domain())
    }

    /// The next link, by a person's device.
    pub(crate) fn link(&self, person: usize, change: &GroupChange) -> pb::Link {
        let person = &self.people[person];
        self.state.link(Some(&person.author()), change, &[&key(person.n)])
    }

    /// The next link, by a person's device and then a home.
    pub(crate) fn link_with(&self, person: usize, home: usize, change: &GroupChange) -> pb::Link {
        let (person, home) = (&self.people[person], &self.homes[home]);
        self.state.link(Some(&person.author()), change, &[&key(person.n), &home.key()])
    }

    /// The next link, by a home alone.
    pub(crate) fn link_by(&self, home: usize, change: &GroupChange) -> pb::Link {
        self.state.link(None, change, &[&self.homes[home].key()])
    }

    pub(crate) fn apply(&self, link: &pb::Link) -> Result<GroupState, GroupLinkError> {
        self.state.apply(link, &self.chains)
    }

    pub(crate) fn push(&mut self, link: pb::Link) {
        self.state = self.apply(&link).unwrap_or_else(|error| panic!("{error:?}"));
        self.links.push(link);
    }

    pub(crate) fn step(&mut self, person: usize, change: &GroupChange) {
        self.push(self.link(person, change));
    }

    pub(crate) fn checkpoint(&mut self, home: usize) {
        let hub = self.homes[home].signer();
        self.push(self.link_by(home, &GroupChange::Checkpoint(hub)));
    }

    /// These homes keep, one link for each that is added.
    pub(crate) fn keep(&mut self, homes: std::ops::RangeInclusive<usize>) {
        for home in homes {
            let keepers = (0..=home).map(|home| self.homes[home].reference()).collect();
            self.step(0, &GroupChange::SetKeepers(keepers));
        }
    }

    pub(crate) fn refused(&self, person: usize, change: &GroupChange) -> GroupLinkError {
        self.apply(&self.link(person, change)).expect_err("the link breaks a rule")
    }

    /// A person goes on; the chain is at hand.
    pub(crate) fn replace(&mut self, person: usize, next: Person) {
        self.chains.add_account(&next.links).unwrap();
        self.people[person] = next;
    }
}
