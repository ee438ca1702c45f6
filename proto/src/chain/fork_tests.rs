use super::*;
use crate::chain::{AccountChange, DeviceKeys, account};
use crate::name::Address;
use crate::sign::SigningKey;

fn seed(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn device(n: u8) -> DeviceKeys {
    let mut identity = [n; 33];
    identity[0] = 5;
    DeviceKeys::new(seed(n).public(), &identity, u32::from(n)).unwrap()
}

fn base(n: u8) -> Verified<AccountState> {
    let address = Address::parse("alice@a.example").unwrap();
    let body = account::genesis_body(&seed(1).public(), &address, &device(2), [n; 16]);
    Verified::genesis(&account::genesis(body, &seed(1), &seed(2))).unwrap()
}

fn with_device(chain: &Verified<AccountState>, n: u8) -> Verified<AccountState> {
    chain.extended(&chain.link(&AccountChange::AddDevice(device(n)), &[&seed(2), &seed(n)])).unwrap()
}

fn ending(chain: &Verified<AccountState>, head: LinkId) -> Verified<AccountState> {
    chain.extended(&chain.link(&AccountChange::EndFork(head), &[&seed(1)])).unwrap()
}

#[test]
fn a_longer_chain_is_taken_and_an_older_one_changes_nothing() {
    let base = base(9);
    let longer = with_device(&base, 3);
    assert_eq!(settle(&base, &base), Settled::Keep);
    assert_eq!(settle(&longer, &base), Settled::Keep);
    assert_eq!(settle(&base, &longer), Settled::Take);
    assert_eq!(settle(&base, &self::base(8)), Settled::OtherAccount);
}

#[test]
fn two_branches_stay_open_until_one_ends_the_other() {
    let base = base(9);
    let (a, b) = (with_device(&base, 3), with_device(&base, 4));
    assert_eq!((settle(&a, &b), settle(&b, &a)), (Settled::Open, Settled::Open));
    let ended = ending(&a, b.head());
    assert_eq!((settle(&ended, &b), settle(&b, &ended)), (Settled::Keep, Settled::Take));
    let grown = with_device(&b, 5);
    assert_eq!(settle(&ended, &grown), Settled::Keep, "a branch that grows stays ended");
}

#[test]
fn ending_each_other_ends_nothing() {
    let base = base(9);
    let (a, b) = (with_device(&base, 3), with_device(&base, 4));
    let (a_ends, b_ends) = (ending(&a, b.head()), ending(&b, a.head()));
    assert_eq!((settle(&a_ends, &b_ends), settle(&b_ends, &a_ends)), (Settled::Open, Settled::Open));
}

#[test]
fn a_third_branch_is_not_ended_by_a_name_of_the_second() {
    let base = base(9);
    let (a, b, third) = (with_device(&base, 3), with_device(&base, 4), with_device(&base, 5));
    assert_eq!(settle(&ending(&a, b.head()), &third), Settled::Open);
}
