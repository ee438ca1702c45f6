//! Keys, accounts and servers from which vectors are made. The seed of key n is 32 bytes n.

use serde_json::{Value, json};
use tidings_proto::chain::{
    AccountChange, AccountState, DeviceKeys, ServerChange, ServerState, Verified, account as chain,
    server as server_chain,
};
use tidings_proto::id::Incarnation;
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

pub(crate) const RECOVERY: u8 = 1;
pub(crate) const PHONE: u8 = 2;
pub(crate) const LAPTOP: u8 = 3;

pub(crate) fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

pub(crate) fn device(n: u8) -> DeviceKeys {
    let mut identity = [n; 33];
    identity[0] = 5;
    DeviceKeys::new(key(n).public(), &identity, u32::from(n)).expect("a device's keys")
}

pub(crate) fn link_json(link: &pb::Link) -> Value {
    let signatures: Vec<String> = link.signatures.iter().map(hex::encode).collect();
    json!({"body": hex::encode(&link.body), "signatures": signatures})
}

pub(crate) fn links_json(links: &[pb::Link]) -> Value {
    links.iter().map(link_json).collect()
}

/// A chain with its links.
#[derive(Clone)]
pub(crate) struct Life<S> {
    pub(crate) chain: Verified<S>,
    pub(crate) links: Vec<pb::Link>,
}

pub(crate) type Account = Life<AccountState>;
pub(crate) type Server = Life<ServerState>;

impl<S> Life<S> {
    pub(crate) fn json(&self) -> Value {
        links_json(&self.links)
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.chain.ids().iter().map(ToString::to_string).collect()
    }
}

macro_rules! life {
    ($state:ty, $change:ty) => {
        impl Life<$state> {
            pub(crate) fn link(&self, change: &$change, signers: &[u8]) -> pb::Link {
                let keys: Vec<SigningKey> = signers.iter().copied().map(key).collect();
                self.chain.link(change, &keys.iter().collect::<Vec<_>>())
            }

            pub(crate) fn add(&mut self, change: &$change, signers: &[u8]) {
                self.push(self.link(change, signers));
            }

            pub(crate) fn push(&mut self, link: pb::Link) {
                self.chain.append(&link).expect("a link that fits");
                self.links.push(link);
            }
        }
    };
}

life!(AccountState, AccountChange);
life!(ServerState, ServerChange);

impl Account {
    pub(crate) fn output(&self) -> Value {
        account_output(&self.chain)
    }
}

impl Server {
    pub(crate) fn output(&self) -> Value {
        server_output(&self.chain)
    }
}

pub(crate) fn account_output(chain: &Verified<AccountState>) -> Value {
    let state = chain.state();
    let devices: Vec<Value> = state
        .devices()
        .iter()
        .map(|(id, keys)| json!({"id": id.to_string(), "key": keys.key().to_string()}))
        .collect();
    json!({
        "head": chain.head().to_string(),
        "links": chain.len(),
        "recovery_key": state.recovery_key().to_string(),
        "address": state.address().to_string(),
        "address_links": state.address_links(),
        "devices": devices,
        "ended_heads": state.ended_heads().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "places_taken": state.since_checkpoint(),
        "closed": state.is_closed(),
    })
}

pub(crate) fn server_output(chain: &Verified<ServerState>) -> Value {
    let state = chain.state();
    json!({
        "head": chain.head().to_string(),
        "links": chain.len(),
        "domain": state.domain().to_string(),
        "root_key": state.root_key().to_string(),
        "online_keys": state.online_keys().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "incarnations": state.incarnations().iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// Alice, with her phone.
pub(crate) fn account() -> Account {
    let address = "alice@a.example".parse().expect("an address");
    let body = chain::genesis_body(&key(RECOVERY).public(), &address, &device(PHONE), [9; 16]);
    let links = vec![chain::genesis(body, &key(RECOVERY), &key(PHONE))];
    Life { chain: Verified::verify(&links).expect("a genesis"), links }
}

/// The home of `a.example`: root key 10, online key 11.
pub(crate) fn server() -> Server {
    server_of("a.example", 10)
}

/// The home of a domain, whose root key is `n` and whose online key the one after it.
pub(crate) fn server_of(domain: &str, n: u8) -> Server {
    let domain = Domain::parse(domain).expect("a domain");
    let links = vec![server_chain::genesis(&domain, &key(n), &key(n + 1), Incarnation([1; 16]))];
    Life { chain: Verified::verify(&links).expect("a genesis"), links }
}
