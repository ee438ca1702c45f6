use super::*;
use crate::chain::{ChainError, Relation, relation};
use crate::sign::SignError;
use proptest::prelude::*;

fn seed(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn root() -> SigningKey {
    seed(1)
}

fn chain() -> Verified<ServerState> {
    Verified::genesis(&first()).expect("genesis")
}

fn first() -> pb::Link {
    genesis(&Domain::parse("a.example").unwrap(), &root(), &seed(2), Incarnation([1; 16]))
}

/// A link whose body was changed, signed anew.
fn changed(link: &pb::Link, keys: &[&SigningKey], change: impl FnOnce(&mut pb::ServerLinkBody)) -> pb::Link {
    let mut body = pb::ServerLinkBody::decode(link.body.clone()).unwrap();
    change(&mut body);
    body.signers = keys.iter().map(|key| key.public().id().to_bytes()).collect();
    sign_link(Purpose::SERVER_LINK, body.encode_to_vec().into(), keys)
}

#[test]
fn keys_come_and_go_and_incarnations_follow() {
    let mut chain = chain();
    assert_eq!(chain.state().incarnation(), Incarnation([1; 16]));
    let add = chain.link(&ServerChange::AddOnlineKey(seed(3).public()), &[&root(), &seed(3)]);
    chain.append(&add).unwrap();
    let retire = chain.link(&ServerChange::RetireOnlineKey(seed(2).public().id()), &[&root()]);
    chain.append(&retire).unwrap();
    let renew = chain.link(&ServerChange::NewIncarnation(Incarnation([2; 16])), &[&seed(3)]);
    chain.append(&renew).unwrap();
    assert_eq!(chain.state().online_keys(), [seed(3).public()]);
    assert_eq!(chain.state().incarnations(), [Incarnation([1; 16]), Incarnation([2; 16])]);
    assert_eq!(Verified::verify(&[first(), add, retire, renew]).unwrap(), chain);
}

#[test]
fn a_genesis_that_breaks_a_rule_is_refused() {
    let both = [&root(), &seed(2)];
    let of = |link: &pb::Link| Verified::<ServerState>::genesis(link).unwrap_err();
    let with = |change: fn(&mut pb::ServerGenesis)| {
        of(&changed(&first(), &both, |body| change(body.genesis.as_mut().unwrap())))
    };
    assert!(matches!(with(|g| g.domain = "A.example".into()), LinkError::Name(_)));
    assert!(matches!(
        with(|g| g.root_key = Bytes::from_static(&[1; 32])),
        LinkError::Key(SignError::KeyLength(32))
    ));
    assert_eq!(with(|g| g.online_key = g.root_key.clone()), LinkError::KeyInUse);
    assert_eq!(with(|g| g.incarnation = Bytes::from_static(&[0; 16])), LinkError::Value("incarnation"));
    assert!(matches!(with(|g| g.incarnation = Bytes::from_static(&[1; 15])), LinkError::Id(_)));
    assert_eq!(of(&changed(&first(), &[&seed(2), &root()], |_| ())), LinkError::Signers);
    assert_eq!(of(&changed(&first(), &[&root()], |_| ())), LinkError::Signers);
    assert_eq!(of(&changed(&first(), &both, |b| b.genesis = None)), LinkError::Field(0));
    assert_eq!(of(&changed(&first(), &both, |b| b.number = 1)), LinkError::NotGenesis);
    assert_eq!(of(&changed(&first(), &both, |b| b.r#type = 2)), LinkError::NotGenesis);
    assert_eq!(
        of(&changed(&first(), &both, |b| b.chain = Bytes::from_static(&[1; 32]))),
        LinkError::NotGenesis
    );
}

#[test]
fn signatures_missing_surplus_swapped_or_damaged_make_it_invalid() {
    let of = |change: fn(&mut pb::Link)| {
        let mut link = first();
        change(&mut link);
        Verified::<ServerState>::genesis(&link).unwrap_err()
    };
    assert_eq!(of(|l| drop(l.signatures.pop())), LinkError::SignatureCount { expected: 2, got: 1 });
    assert_eq!(
        of(|l| l.signatures.push(l.signatures[0].clone())),
        LinkError::SignatureCount { expected: 2, got: 3 }
    );
    assert_eq!(
        of(|l| l.signatures.swap(0, 1)),
        LinkError::Signature { place: 0, source: SignError::Invalid }
    );
    assert_eq!(
        of(|l| l.signatures[1] = Bytes::from_static(&[1; 64])),
        LinkError::Signature { place: 1, source: SignError::SignatureLength(64) }
    );
    assert!(matches!(of(|l| l.body = [l.body.as_ref(), &[0]].concat().into()), LinkError::Canonical(_)));
    assert_eq!(of(|l| l.body = vec![0; 4097].into()), LinkError::TooLarge(4097));
}

#[test]
fn a_link_stands_only_in_its_place() {
    let mut chain = chain();
    let add = chain.link(&ServerChange::AddOnlineKey(seed(3).public()), &[&root(), &seed(3)]);
    let keys = [&root(), &seed(3)];
    let with =
        |change: fn(&mut pb::ServerLinkBody)| chain.extended(&changed(&add, &keys, change)).unwrap_err();
    assert_eq!(with(|b| b.number = 2), LinkError::Number { expected: 1, got: 2 });
    assert_eq!(with(|b| b.chain = Bytes::from_static(&[9; 32])), LinkError::OtherChain);
    assert_eq!(
        with(|b| b.previous = Bytes::from_static(&[9; 32])),
        LinkError::Previous { got: LinkId([9; 32]) }
    );
    assert_eq!(with(|b| b.r#type = 4), LinkError::Field(4));
    assert_eq!(with(|b| b.r#type = 0), LinkError::Field(0));
    assert_eq!(with(|b| b.retire_online_key = Some(pb::RetireOnlineKey::default())), LinkError::Field(2));
    assert_eq!(with(|b| b.r#type = 0x40), LinkError::UnknownCritical(0x40));
    assert_eq!(chain.extended(&first()), Err(LinkError::OtherChain));
    chain.append(&add).unwrap();
    assert_eq!(chain.extended(&add), Err(LinkError::Number { expected: 2, got: 1 }));
}

#[test]
fn only_root_changes_keys() {
    let chain = chain();
    let of =
        |change: ServerChange, keys: &[&SigningKey]| chain.extended(&chain.link(&change, keys)).unwrap_err();
    let add = || ServerChange::AddOnlineKey(seed(3).public());
    assert_eq!(of(add(), &[&seed(2), &seed(3)]), LinkError::Signers);
    assert_eq!(of(add(), &[&root()]), LinkError::Signers, "the new key has to sign too");
    assert_eq!(of(ServerChange::AddOnlineKey(seed(2).public()), &[&root(), &seed(2)]), LinkError::KeyInUse);
    assert_eq!(of(ServerChange::AddOnlineKey(root().public()), &[&root(), &root()]), LinkError::KeyInUse);
    assert_eq!(of(ServerChange::RetireOnlineKey(seed(2).public().id()), &[&seed(2)]), LinkError::Signers);
    assert_eq!(of(ServerChange::RetireOnlineKey(seed(3).public().id()), &[&root()]), LinkError::NotListed);
    assert_eq!(of(ServerChange::RetireOnlineKey(root().public().id()), &[&root()]), LinkError::NotListed);
    assert_eq!(of(ServerChange::NewIncarnation(Incarnation([2; 16])), &[&seed(9)]), LinkError::Signers);
    assert_eq!(
        of(ServerChange::NewIncarnation(Incarnation([2; 16])), &[&root(), &seed(2)]),
        LinkError::Signers
    );
    assert_eq!(
        of(ServerChange::NewIncarnation(Incarnation([1; 16])), &[&seed(2)]),
        LinkError::Value("incarnation")
    );
}

#[test]
fn a_retired_key_signs_nothing_and_never_comes_back() {
    let mut chain = chain();
    chain.append(&chain.link(&ServerChange::RetireOnlineKey(seed(2).public().id()), &[&root()])).unwrap();
    let renew = chain.link(&ServerChange::NewIncarnation(Incarnation([2; 16])), &[&seed(2)]);
    assert_eq!(chain.extended(&renew), Err(LinkError::Signers));
    let again = chain.link(&ServerChange::AddOnlineKey(seed(2).public()), &[&root(), &seed(2)]);
    assert_eq!(chain.extended(&again), Err(LinkError::KeyInUse));
}

#[test]
fn unknown_ignorable_links_count_and_change_nothing() {
    let mut chain = chain();
    let before = chain.state().clone();
    let add = chain.link(&ServerChange::AddOnlineKey(seed(3).public()), &[&root(), &seed(3)]);
    let odd = changed(&add, &[&seed(2)], |b| (b.r#type, b.add_online_key) = (0x21, None));
    let stranger = changed(&odd, &[&seed(9)], |_| ());
    assert_eq!(chain.extended(&stranger), Err(LinkError::Signers));
    assert_eq!(chain.extended(&changed(&odd, &[], |_| ())), Err(LinkError::Signers), "somebody has to sign");
    chain.append(&odd).unwrap();
    assert_eq!((chain.len(), chain.state().online_keys()), (2, before.online_keys()));
}

#[test]
fn forks_are_told_from_extensions() {
    let base = chain();
    let renew = |n: u8| {
        base.extended(&base.link(&ServerChange::NewIncarnation(Incarnation([n; 16])), &[&seed(2)])).unwrap()
    };
    let (a, b) = (renew(2), renew(3));
    assert_eq!(relation(&a, &a), Relation::Same);
    assert_eq!(relation(&a, &base), Relation::Extends);
    assert_eq!(relation(&base, &a), Relation::Extended);
    assert_eq!(relation(&a, &b), Relation::Fork);
    let other = genesis(&Domain::parse("b.example").unwrap(), &root(), &seed(2), Incarnation([1; 16]));
    assert_eq!(relation(&a, &Verified::genesis(&other).unwrap()), Relation::OtherChain);
}

#[test]
fn a_chain_ends_at_256_links() {
    let mut chain = chain();
    for n in 1..256_u32 {
        let mut incarnation = [7; 16];
        incarnation[..4].copy_from_slice(&n.to_be_bytes());
        chain
            .append(&chain.link(&ServerChange::NewIncarnation(Incarnation(incarnation)), &[&seed(2)]))
            .unwrap();
    }
    let one_more = chain.link(&ServerChange::NewIncarnation(Incarnation([8; 16])), &[&root()]);
    assert_eq!(chain.extended(&one_more), Err(LinkError::Full));
}

#[test]
fn the_first_bad_link_is_named() {
    let chain = chain();
    let good = chain.link(&ServerChange::NewIncarnation(Incarnation([2; 16])), &[&seed(2)]);
    let error = Verified::<ServerState>::verify(&[first(), good.clone(), good]).unwrap_err();
    assert_eq!(error, ChainError { at: 2, source: LinkError::Number { expected: 2, got: 1 } });
    assert_eq!(Verified::<ServerState>::verify(&[]).unwrap_err().at, 0);
}

proptest! {
    #[test]
    fn damaged_links_never_panic_and_never_pass(at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let chain = chain();
        let mut link = chain.link(&ServerChange::AddOnlineKey(seed(3).public()), &[&root(), &seed(3)]);
        let mut body = link.body.to_vec();
        let at = at.index(body.len());
        body[at] ^= flip;
        link.body = body.into();
        prop_assert!(chain.extended(&link).is_err());
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let link = pb::Link { body: body.into(), signatures: Vec::new() };
        prop_assert!(Verified::<ServerState>::genesis(&link).is_err());
        prop_assert!(chain().append(&link).is_err());
    }
}
