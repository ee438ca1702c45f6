//! Accounts with one device each, and how a device posts: in order, again until its own log has it.

use std::collections::VecDeque;

use bytes::Bytes;
use tidings_proto::chain::group::{Author, Chains, GroupState};
use tidings_proto::chain::{AccountState, DeviceKeys, Verified, account};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

/// A post that its device keeps until it is stable.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Counts this device's messages, for ever.
    pub id: u64,
    pub number: u64,
    pub accepted: bool,
}

pub struct Person {
    pub home: usize,
    pub address: Address,
    pub author: Author,
    pub key: SigningKey,
    pub drafts: VecDeque<Draft>,
    pub next_id: u64,
    /// The membership that the numbers count in.
    pub since: Option<u64>,
    pub home_restored: u64,
    /// The home may know less than was accepted: it was restored, or membership changed.
    pub excused: bool,
    /// The last number that became stable, in this membership.
    pub last_number: u64,
    pub number_gaps: u64,
}

impl Person {
    pub fn new(index: usize, home: usize, domain: &str, chains: &mut Chains) -> Self {
        let seed = |kind: u8| {
            let mut seed = [kind; 32];
            seed[..8].copy_from_slice(&(index as u64).to_be_bytes());
            SigningKey::from_seed(&seed)
        };
        let (recovery, device) = (seed(3), seed(4));
        let address = Address::parse(&format!("user{index}@{domain}")).unwrap();
        let mut identity = [5; 33];
        identity[1..9].copy_from_slice(&(index as u64).to_be_bytes());
        let keys = DeviceKeys::new(device.public(), &identity, 1).unwrap();
        let mut salt = [0; 16];
        salt[..8].copy_from_slice(&(index as u64).to_be_bytes());
        let body = account::genesis_body(&recovery.public(), &address, &keys, salt);
        let link = account::genesis(body, &recovery, &device);
        let chain = Verified::<AccountState>::verify(std::slice::from_ref(&link)).unwrap();
        chains.add_account(std::slice::from_ref(&link)).unwrap();
        let id: DeviceId = *chain.state().devices().keys().next().unwrap();
        let author = Author { account: chain.account_id(), device: id, head: chain.head(), number: 0 };
        Self {
            home,
            address,
            author,
            key: device,
            drafts: VecDeque::new(),
            next_id: 1,
            since: None,
            home_restored: 0,
            excused: false,
            last_number: 0,
            number_gaps: 0,
        }
    }

    pub const fn account(&self) -> AccountId {
        self.author.account
    }

    pub fn write(&mut self) {
        let number = self.drafts.back().map_or(self.last_number, |draft| draft.number) + 1;
        let id = self.next_id;
        self.next_id += 1;
        self.drafts.push_back(Draft { id, number, accepted: false });
    }

    /// The post of a draft under the head that the device knows now.
    pub fn post(&self, draft: &Draft, state: &GroupState, now_ms: u64) -> pb::GroupPost {
        pb::GroupPost {
            sender: self.account().to_bytes(),
            sender_address: self.address.to_string(),
            sender_device: self.author.device.to_bytes(),
            number: draft.number,
            chain_head: state.head().to_bytes(),
            chain_number: state.number(),
            ciphertext: Bytes::copy_from_slice(&draft.id.to_be_bytes()),
            commitment: Bytes::new(),
            franking_tag: Bytes::new(),
            accepted_at_ms: now_ms,
            expires_at_ms: 0,
        }
    }

    /// From this number on nothing is accepted any more.
    pub fn again_from(&mut self, number: u64) {
        for draft in &mut self.drafts {
            draft.accepted &= draft.number < number;
        }
    }
}

/// Whose message an entry is, and which.
pub fn read(post: &pb::GroupPost) -> (AccountId, u64) {
    let id = post.ciphertext.as_ref().try_into().map_or(0, u64::from_be_bytes);
    (AccountId::try_from(&post.sender).unwrap(), id)
}
