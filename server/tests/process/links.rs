//! Account chains: forked, stale, filled.

use tidings_proto::chain::account::AccountChange;
use tidings_proto::chain::{AccountState, DeviceKeys, Verified};
use tidings_proto::codec::{self, Frame};
use tidings_proto::id::DeviceId;
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;
use tidings_server::refusal::Code;

use crate::client::{Client, Person};
use crate::program::Program;
use crate::signal::IdentityKey;

/// An account's chain as its owner holds it.
pub(crate) struct Account {
    pub chain: Verified<AccountState>,
    pub recovery: SigningKey,
}

impl Account {
    /// Of a person made of `seed`.
    pub(crate) fn of(person: &Person, seed: u8) -> Self {
        let chain = Verified::<AccountState>::genesis(&person.genesis).expect("a good genesis");
        Self { chain, recovery: SigningKey::from_seed(&[seed; 32]) }
    }

    pub(crate) fn link(&self, change: &AccountChange, keys: &[&SigningKey]) -> pb::Link {
        self.chain.link(change, keys)
    }

    /// Appends a link that the home has to take.
    pub(crate) async fn append(&mut self, client: &mut Client, change: &AccountChange, keys: &[&SigningKey]) {
        let link = self.link(change, keys);
        assert_eq!(offer(client, &link).await, None);
        self.chain.append(&link).expect("it follows");
    }

    /// A new device of this key; gives its id.
    pub(crate) async fn add(&mut self, client: &mut Client, by: &SigningKey, key: &SigningKey) -> DeviceId {
        let change = AccountChange::AddDevice(keys(key));
        self.append(client, &change, &[by, key]).await;
        let id = self.chain.state().devices().iter().find(|(_, held)| held.key() == key.public());
        *id.expect("it was added").0
    }
}

fn keys(key: &SigningKey) -> DeviceKeys {
    DeviceKeys::new(key.public(), &IdentityKey::new(77).public(), 1).expect("good keys")
}

/// What the home says to a link: nothing, or the code.
pub(crate) async fn offer(client: &mut Client, link: &pb::Link) -> Option<Code> {
    match client.answer(codec::encode(&pb::AppendLink { link: Some(link.clone()) }), "local").await {
        Frame::Done(_) => None,
        Frame::Failure(failure) => Some(Code(failure.code)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn forked_stale_and_forged_links_are_refused_and_the_chain_goes_on() {
    let program = Program::start("").await;
    let (alice, mut client) = program.enter("alice", 1).await;
    let mut account = Account::of(&alice, 1);
    let (second, third) = (SigningKey::from_seed(&[150; 32]), SigningKey::from_seed(&[151; 32]));
    let fork = account.link(&AccountChange::AddDevice(keys(&third)), &[&alice.device, &third]);
    let id = account.add(&mut client, &alice.device, &second).await;
    assert_eq!(offer(&mut client, &fork).await, Some(Code::STALE_LINK), "another link of that number");
    assert_eq!(offer(&mut client, &alice.genesis).await, None, "what is in the chain is a lost answer");
    let stranger = account.link(&AccountChange::RemoveDevice(id), &[&third]);
    assert_eq!(
        offer(&mut client, &stranger).await,
        Some(Code::LINK_INVALID),
        "a key that is not on the list"
    );
    let device = account.link(&AccountChange::Close(String::new()), &[&alice.device]);
    assert_eq!(offer(&mut client, &device).await, Some(Code::LINK_INVALID), "only for the recovery key");
    let mut broken = account.link(&AccountChange::RemoveDevice(id), &[&alice.device]);
    let mut body = broken.body.to_vec();
    body.extend_from_slice(&[0x80, 0x00]);
    broken.body = body.into();
    assert_eq!(offer(&mut client, &broken).await, Some(Code::LINK_INVALID), "no canonical body");
    let huge = pb::Link { body: vec![0; 5000].into(), ..broken };
    assert_eq!(offer(&mut client, &huge).await, Some(Code::LINK_INVALID), "above link_bytes_max");
    account.append(&mut client, &AccountChange::RemoveDevice(id), &[&alice.device]).await;
    assert!(account.chain.state().was_removed(&id));
    program.stop().await;
}

#[tokio::test]
async fn a_device_that_fills_the_chain_is_stopped_and_the_recovery_key_goes_on() {
    let program = Program::start("device_links_per_hour = 4").await;
    let (alice, mut client) = program.enter("alice", 1).await;
    let mut account = Account::of(&alice, 1);
    let other = SigningKey::from_seed(&[150; 32]);
    let mut taken = 0;
    let refused = loop {
        let device = account.chain.state().devices().iter().find(|(_, held)| held.key() == other.public());
        let (change, signers) = match device {
            Some((id, _)) => (AccountChange::RemoveDevice(*id), vec![&alice.device]),
            None => (AccountChange::AddDevice(keys(&other)), vec![&alice.device, &other]),
        };
        let link = account.link(&change, &signers);
        if let Some(code) = offer(&mut client, &link).await {
            break code;
        }
        account.chain.append(&link).expect("it follows");
        taken += 1;
        assert!(taken <= 4, "no end");
    };
    assert_eq!(refused, Code::LINK_LIMIT);
    let recovery = account.recovery.clone();
    for _ in 0..8 {
        account.append(&mut client, &AccountChange::Checkpoint, &[&recovery]).await;
    }
    let taken_name = Address::parse("bob@home.test").expect("an address");
    program.register(&Person::new(&program.domain, "bob", 2), "").await.expect("registers");
    let link = account.link(&AccountChange::ChangeAddress(taken_name), &[&recovery]);
    assert_eq!(offer(&mut client, &link).await, Some(Code::NAME_TAKEN));
    client.fence().await;
    program.stop().await;
}

#[tokio::test]
async fn a_closed_account_ends_its_connections_and_takes_no_link() {
    let program = Program::start("candidate_connections_per_source = 100").await;
    let (alice, mut client) = program.enter("alice", 1).await;
    let account = Account::of(&alice, 1);
    let close = account.link(&AccountChange::Close("lost".to_owned()), &[&account.recovery]);
    let bytes = codec::encode(&pb::AppendLink { link: Some(close) });
    client.send_raw(&bytes).await;
    assert_eq!(client.closed().await, Code::AUTH_REMOVED.0);
    let mut raw = crate::raw::Raw::silent(&program).await;
    let frames =
        crate::raw::first_frames(&raw.connection, &program, (crate::program::device(&alice), &alice.device));
    raw.control.0.write_all(&frames).await.expect("writes");
    assert_eq!(raw.closed().await, Code::AUTH_REMOVED.0);
    program.stop().await;
}
