use super::*;
use crate::chain::link_id;
use proptest::prelude::*;

fn seed(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn recovery() -> SigningKey {
    seed(1)
}

fn device(n: u8) -> DeviceKeys {
    let mut identity = [n; 33];
    identity[0] = 5;
    DeviceKeys::new(seed(n).public(), &identity, u32::from(n)).unwrap()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn first() -> pb::Link {
    let body = genesis_body(&recovery().public(), &address("alice@a.example"), &device(2), [9; 16]);
    genesis(body, &recovery(), &seed(2))
}

fn chain() -> Verified<AccountState> {
    Verified::genesis(&first()).expect("genesis")
}

fn changed(link: &pb::Link, keys: &[&SigningKey], change: impl FnOnce(&mut pb::AccountLinkBody)) -> pb::Link {
    let mut body = pb::AccountLinkBody::decode(link.body.clone()).unwrap();
    change(&mut body);
    body.signers = keys.iter().map(|key| key.public().id().to_bytes()).collect();
    sign_link(Purpose::ACCOUNT_LINK, body.encode_to_vec().into(), keys)
}

fn refused(chain: &Verified<AccountState>, change: AccountChange, keys: &[&SigningKey]) -> LinkError {
    chain.extended(&chain.link(&change, keys)).unwrap_err()
}

#[test]
fn the_first_device_is_named_by_the_genesis() {
    let chain = chain();
    let id = DeviceId::from(link_id(Purpose::ACCOUNT_LINK, &first().body));
    assert_eq!(chain.account_id(), AccountId(id.0));
    assert_eq!(chain.state().device(&id), Some(&device(2)));
    assert_eq!(
        (chain.state().address().to_string(), chain.state().address_links()),
        ("alice@a.example".into(), 1)
    );
}

#[test]
fn a_whole_life_verifies() {
    let mut chain = chain();
    let mut links = vec![first()];
    let steps: Vec<(AccountChange, Vec<SigningKey>)> = vec![
        (AccountChange::AddDevice(device(3)), vec![seed(2), seed(3)]),
        (AccountChange::AddDevice(device(4)), vec![recovery(), seed(4)]),
        (AccountChange::RotateRecovery(seed(10).public()), vec![recovery(), seed(10)]),
        (AccountChange::ChangeAddress(address("alice@b.example")), vec![seed(10)]),
        (AccountChange::RemoveDevice(chain.account_id().0.into()), vec![seed(3)]),
        (AccountChange::EndFork(LinkId([7; 32])), vec![seed(10)]),
        (AccountChange::Checkpoint, vec![seed(10)]),
        (AccountChange::Close("moved on".into()), vec![seed(10)]),
    ];
    for (change, keys) in steps {
        let keys: Vec<&SigningKey> = keys.iter().collect();
        let link = chain.link(&change, &keys);
        chain.append(&link).unwrap_or_else(|error| panic!("{change:?}: {error}"));
        links.push(link);
    }
    assert_eq!(Verified::verify(&links).unwrap(), chain);
    let state = chain.state();
    assert_eq!((state.devices().len(), state.address_links(), state.is_closed()), (2, 2, true));
    assert!(state.was_removed(&chain.account_id().0.into()));
    assert_eq!(state.ended_heads(), [LinkId([7; 32])]);
    assert_eq!(refused(&chain, AccountChange::Checkpoint, &[&seed(10)]), LinkError::Closed);
}

#[test]
fn a_genesis_that_breaks_a_rule_is_refused() {
    let both = [&recovery(), &seed(2)];
    let of = |link: &pb::Link| Verified::<AccountState>::genesis(link).unwrap_err();
    let with = |change: fn(&mut pb::AccountGenesis)| {
        of(&changed(&first(), &both, |b| change(b.genesis.as_mut().unwrap())))
    };
    assert!(matches!(with(|g| g.address = "Alice@a.example".into()), LinkError::Name(_)));
    assert!(matches!(with(|g| g.address = String::new()), LinkError::Name(_)));
    assert_eq!(with(|g| g.salt = Bytes::from_static(&[1; 15])), LinkError::Value("salt"));
    assert_eq!(with(|g| g.device = None), LinkError::Value("device"));
    assert_eq!(with(|g| g.device.as_mut().unwrap().registration_id = 0), LinkError::Value("registration id"));
    assert_eq!(
        with(|g| g.device.as_mut().unwrap().registration_id = 16381),
        LinkError::Value("registration id")
    );
    assert_eq!(
        with(|g| g.device.as_mut().unwrap().identity_key = Bytes::from_static(&[5; 32])),
        LinkError::Value("identity key")
    );
    assert_eq!(
        with(|g| g.device.as_mut().unwrap().identity_key = Bytes::from_static(&[6; 33])),
        LinkError::Value("identity key")
    );
    assert_eq!(with(|g| g.device.as_mut().unwrap().key = g.recovery_key.clone()), LinkError::KeyInUse);
    assert_eq!(of(&changed(&first(), &[&recovery()], |_| ())), LinkError::Signers, "the device has to sign");
    assert_eq!(
        of(&changed(&first(), &[&seed(2)], |_| ())),
        LinkError::Signers,
        "the recovery key has to sign"
    );
}

#[test]
fn nobody_adds_a_ghost_device() {
    let chain = chain();
    let add = || AccountChange::AddDevice(device(3));
    assert_eq!(refused(&chain, add(), &[&seed(9), &seed(3)]), LinkError::Signers, "a stranger");
    assert_eq!(refused(&chain, add(), &[&seed(3)]), LinkError::Signers, "the device alone");
    assert_eq!(refused(&chain, add(), &[&seed(2)]), LinkError::Signers, "without the new device");
    assert_eq!(refused(&chain, add(), &[&seed(3), &seed(2)]), LinkError::Signers, "reordered");
    assert_eq!(refused(&chain, add(), &[&recovery(), &seed(2), &seed(3)]), LinkError::Signers, "surplus");
    assert_eq!(
        refused(&chain, AccountChange::AddDevice(device(2)), &[&seed(2), &seed(2)]),
        LinkError::KeyInUse
    );
    let same_identity = DeviceKeys::new(seed(3).public(), device(2).identity_key(), 3).unwrap();
    assert_eq!(
        refused(&chain, AccountChange::AddDevice(same_identity), &[&seed(2), &seed(3)]),
        LinkError::KeyInUse
    );
}

#[test]
fn a_device_does_not_do_what_recovery_does() {
    let chain = chain();
    for change in [
        AccountChange::ChangeAddress(address("alice@b.example")),
        AccountChange::Checkpoint,
        AccountChange::EndFork(LinkId([7; 32])),
        AccountChange::Close(String::from("x")),
    ] {
        assert_eq!(refused(&chain, change, &[&seed(2)]), LinkError::Signers);
    }
    assert_eq!(
        refused(&chain, AccountChange::RotateRecovery(seed(9).public()), &[&seed(2), &seed(9)]),
        LinkError::Signers
    );
    assert_eq!(
        refused(&chain, AccountChange::RotateRecovery(seed(9).public()), &[&recovery()]),
        LinkError::Signers
    );
    assert_eq!(
        refused(&chain, AccountChange::RotateRecovery(seed(2).public()), &[&recovery(), &seed(2)]),
        LinkError::KeyInUse
    );
}

#[test]
fn a_removed_device_signs_nothing() {
    let mut chain = chain();
    let id = DeviceId(chain.account_id().0);
    assert_eq!(
        refused(&chain, AccountChange::RemoveDevice(DeviceId([3; 32])), &[&seed(2)]),
        LinkError::NotListed
    );
    chain.append(&chain.link(&AccountChange::RemoveDevice(id), &[&seed(2)])).unwrap();
    assert!(chain.state().devices().is_empty());
    assert_eq!(
        refused(&chain, AccountChange::AddDevice(device(3)), &[&seed(2), &seed(3)]),
        LinkError::Signers
    );
    assert_eq!(refused(&chain, AccountChange::RemoveDevice(id), &[&recovery()]), LinkError::NotListed);
    chain.append(&chain.link(&AccountChange::AddDevice(device(3)), &[&recovery(), &seed(3)])).unwrap();
}

#[test]
fn a_rotated_recovery_key_has_no_say() {
    let mut chain = chain();
    chain
        .append(&chain.link(&AccountChange::RotateRecovery(seed(9).public()), &[&recovery(), &seed(9)]))
        .unwrap();
    assert_eq!(refused(&chain, AccountChange::Checkpoint, &[&recovery()]), LinkError::Signers);
}

#[test]
fn a_checkpoint_restates_exactly() {
    let chain = chain();
    let good = chain.link(&AccountChange::Checkpoint, &[&recovery()]);
    assert!(chain.extended(&good).is_ok());
    let with = |change: fn(&mut pb::AccountCheckpoint)| {
        chain
            .extended(&changed(&good, &[&recovery()], |b| change(b.checkpoint.as_mut().unwrap())))
            .unwrap_err()
    };
    assert_eq!(with(|c| c.address_links = 2), LinkError::Checkpoint);
    assert_eq!(with(|c| c.devices.clear()), LinkError::Checkpoint);
    assert_eq!(with(|c| c.devices.push(c.devices[0].clone())), LinkError::Checkpoint);
    assert_eq!(with(|c| c.address = "bob@a.example".into()), LinkError::Checkpoint);
}

#[test]
fn a_fork_is_not_ended_in_favour_of_itself() {
    let chain = chain();
    assert_eq!(
        refused(&chain, AccountChange::EndFork(chain.head()), &[&recovery()]),
        LinkError::Value("other head")
    );
}

#[test]
fn unknown_types_are_skipped_or_stop() {
    let chain = chain();
    let link = chain.link(&AccountChange::Checkpoint, &[&recovery()]);
    let of = |kind: u32, key: &SigningKey| {
        chain.extended(&changed(&link, &[key], |b| (b.r#type, b.checkpoint) = (kind, None)))
    };
    assert_eq!(of(0x21, &seed(2)).unwrap().state().devices(), chain.state().devices());
    assert_eq!(of(0x21, &seed(9)), Err(LinkError::Signers));
    assert_eq!(of(0x10, &recovery()), Err(LinkError::UnknownCritical(0x10)));
    assert_eq!(of(0x0a, &recovery()), Err(LinkError::Field(0x0a)));
}

#[test]
fn behind_the_end_of_an_account_everything_is_closed_but_a_stop() {
    let chain = chain();
    let template = chain.link(&AccountChange::Checkpoint, &[&recovery()]);
    let closed = chain.extended(&chain.link(&AccountChange::Close(String::new()), &[&recovery()])).unwrap();
    let place = closed.next_envelope(0, &[]);
    let of = |kind: u32, key: &SigningKey| {
        closed.extended(&changed(&template, &[key], |b| {
            (b.r#type, b.checkpoint, b.number) = (kind, None, place.number);
            b.previous = place.previous.clone();
        }))
    };
    assert_eq!(of(0x21, &seed(9)), Err(LinkError::Closed), "before its signers are looked at");
    assert_eq!(of(0x02, &seed(2)), Err(LinkError::Closed));
    assert_eq!(of(0x10, &recovery()), Err(LinkError::UnknownCritical(0x10)));
}

#[test]
fn ids_of_a_wrong_length_come_before_the_place() {
    let chain = chain();
    let link = chain.link(&AccountChange::Checkpoint, &[&recovery()]);
    let with = |change: fn(&mut pb::AccountLinkBody)| {
        chain.extended(&changed(&link, &[&recovery()], change)).unwrap_err()
    };
    assert!(matches!(with(|b| (b.previous, b.number) = (Bytes::from_static(&[1; 31]), 7)), LinkError::Id(_)));
    assert!(matches!(with(|b| b.chain = Bytes::from_static(&[1; 33])), LinkError::Id(_)));
}

#[test]
fn thirty_two_devices_and_a_checkpoint_fit() {
    let mut chain = chain();
    let long = format!("{}@{}", "a".repeat(63), [&"b".repeat(63)[..]; 3].join("."));
    chain.append(&chain.link(&AccountChange::ChangeAddress(address(&long)), &[&recovery()])).unwrap();
    for n in 3..34 {
        chain.append(&chain.link(&AccountChange::AddDevice(device(n)), &[&seed(2), &seed(n)])).unwrap();
    }
    assert_eq!(
        refused(&chain, AccountChange::AddDevice(device(40)), &[&recovery(), &seed(40)]),
        LinkError::DevicesFull
    );
    chain.append(&chain.link(&AccountChange::Checkpoint, &[&recovery()])).unwrap();
}

#[test]
fn the_last_places_are_for_the_recovery_key() {
    let mut chain = chain();
    let template = chain.link(&AccountChange::Checkpoint, &[&recovery()]);
    let filler = |chain: &Verified<AccountState>, key: &SigningKey| {
        let envelope = chain.next_envelope(0x21, &[]);
        changed(&template, &[key], |b| {
            (b.r#type, b.checkpoint, b.previous, b.number) = (0x21, None, envelope.previous, envelope.number);
        })
    };
    for _ in 0..LINKS_MAX - LINKS_RESERVED {
        chain.append(&filler(&chain, &seed(2))).unwrap();
    }
    assert_eq!(chain.extended(&filler(&chain, &seed(2))), Err(LinkError::Full));
    for _ in 0..LINKS_RESERVED {
        chain.append(&filler(&chain, &recovery())).unwrap();
    }
    assert_eq!(chain.extended(&filler(&chain, &recovery())), Err(LinkError::Full));
    chain.append(&chain.link(&AccountChange::Checkpoint, &[&recovery()])).unwrap();
    chain.append(&filler(&chain, &seed(2))).unwrap();
}

proptest! {
    #[test]
    fn damaged_links_never_panic_and_never_pass(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let mut link = first();
        let mut body = link.body.to_vec();
        let at = at.index(body.len());
        body[at] ^= flip;
        link.body = body.into();
        prop_assert!(Verified::<AccountState>::genesis(&link).is_err());
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let link = pb::Link { body: body.into(), signatures: Vec::new() };
        prop_assert!(Verified::<AccountState>::genesis(&link).is_err());
        prop_assert!(chain().append(&link).is_err());
    }
}
