//! Account chains as this device knows them: verified, pinned, and never replaced by anything that
//! does not extend them (spec 04-chains, 05-accounts).

use prost::Message as _;
use tidings_proto::chain::{AccountState, ChainError, Relation, Verified, relation};
use tidings_proto::id::{AccountId, LinkId};
use tidings_proto::pb;

use crate::crypto::PeerDevice;

/// What became of links that somebody handed over.
#[derive(Debug)]
pub(crate) enum Adoption {
    /// They extend what was known.
    Extended(History),
    /// Nothing new.
    Known,
    /// They contradict what was known: another valid history of the account, whole.
    Fork(History),
}

/// A chain and its links: those behind what was known, or all.
#[derive(Debug)]
pub(crate) struct History {
    /// The chain.
    pub(crate) chain: Box<Verified<AccountState>>,
    /// Its links.
    pub(crate) links: Vec<pb::Link>,
}

/// Why links were not adopted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdoptError {
    /// A link breaks a rule.
    #[error("the chain is not valid")]
    Invalid(#[from] ChainError),
    /// The chain is another account's than the one asked for.
    #[error("the chain belongs to another account")]
    OtherAccount,
}

/// Verifies a chain from its genesis for an account known by nothing but its id, or not even that.
pub(crate) fn first_contact(
    expected: Option<AccountId>,
    links: &[pb::Link],
) -> Result<Verified<AccountState>, AdoptError> {
    let chain = Verified::<AccountState>::verify(links)?;
    if expected.is_some_and(|expected| expected != chain.account_id()) {
        return Err(AdoptError::OtherAccount);
    }
    Ok(chain)
}

/// Joins links to a chain, whose own links are `held`. They may be a whole chain, or begin anywhere in what is
/// known.
pub(crate) fn adopt(
    known: &Verified<AccountState>,
    held: &[pb::Link],
    links: &[pb::Link],
) -> Result<Adoption, AdoptError> {
    let Some(first) = links.iter().position(|link| !holds(known, link)) else {
        return Ok(Adoption::Known);
    };
    let new = links.get(first..).unwrap_or_default();
    let mut chain = known.clone();
    let Err(error) = chain.extend(new) else {
        return Ok(Adoption::Extended(History { chain: Box::new(chain), links: new.to_vec() }));
    };
    // Not behind the end; perhaps behind an earlier link, or from a beginning of its own.
    let Some(upto) = new.first().and_then(|link| place(known, link)) else { return Err(error.into()) };
    let mut whole = held.get(..upto).unwrap_or_default().to_vec();
    whole.extend_from_slice(new);
    let other = Verified::<AccountState>::verify(&whole)?;
    match relation(known, &other) {
        Relation::Same | Relation::Extends => Ok(Adoption::Known),
        Relation::OtherChain => Err(AdoptError::OtherAccount),
        Relation::Fork | Relation::Extended => {
            Ok(Adoption::Fork(History { chain: Box::new(other), links: whole }))
        }
    }
}

/// How many links of what is known stand before the place that a link names as its own.
fn place(known: &Verified<AccountState>, link: &pb::Link) -> Option<usize> {
    let body = pb::AccountLinkBody::decode(link.body.as_ref()).ok()?;
    if body.previous.is_empty() {
        return Some(0);
    }
    let previous = LinkId::try_from(&body.previous).ok()?;
    known.number_of(&previous).map(|number| number.saturating_add(1))
}

fn holds(known: &Verified<AccountState>, link: &pb::Link) -> bool {
    known.contains(&tidings_proto::chain::link_id(tidings_proto::sign::Purpose::ACCOUNT_LINK, &link.body))
}

/// The devices of an account as encryption wants them.
pub(crate) fn peers(chain: &Verified<AccountState>) -> Vec<PeerDevice> {
    let devices = chain.state().devices().iter();
    devices.map(|(id, keys)| PeerDevice { device: *id, identity: *keys.identity_key() }).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use tidings_proto::chain::AccountChange;
    use tidings_proto::sign::SigningKey;

    use super::*;
    use crate::me::{NewDevice, new_account};

    struct Owner {
        links: Vec<pb::Link>,
        chain: Verified<AccountState>,
        key: SigningKey,
        recovery: SigningKey,
        rng: StdRng,
    }

    impl Owner {
        fn new() -> Self {
            let mut rng = StdRng::seed_from_u64(7);
            let new = new_account("alice@a.example".parse().expect("an address"), &mut rng).expect("makes");
            let chain = Verified::<AccountState>::genesis(&new.link).expect("valid");
            Self { links: vec![new.link], chain, key: new.me.key, recovery: new.recovery, rng }
        }

        fn append(&mut self, change: &AccountChange, keys: &[&SigningKey]) {
            let link = self.chain.link(change, keys);
            self.chain = self.chain.extended(&link).expect("valid");
            self.links.push(link);
        }

        /// Adds a device of keys that nobody had before.
        fn add_device(&mut self) {
            let device = NewDevice::generate(&mut self.rng);
            let change = AccountChange::AddDevice(device.keys().expect("keys"));
            let own = self.key.clone();
            self.append(&change, &[&own, &device.key]);
        }
    }

    #[test]
    fn links_extend_what_is_known_wherever_they_begin() {
        let mut owner = Owner::new();
        let (known, held) = (owner.chain.clone(), owner.links.clone());
        owner.add_device();
        owner.add_device();
        for links in [&owner.links[..], &owner.links[1..]] {
            let Ok(Adoption::Extended(history)) = adopt(&known, &held, links) else { panic!("extends") };
            assert_eq!((history.chain.head(), history.links.len()), (owner.chain.head(), 2));
        }
        assert!(matches!(adopt(&owner.chain, &owner.links, &held), Ok(Adoption::Known)));
        assert!(matches!(adopt(&owner.chain, &owner.links, &[]), Ok(Adoption::Known)));
    }

    #[test]
    fn a_missing_link_in_between_is_not_taken_and_no_fork() {
        let mut owner = Owner::new();
        let (known, held) = (owner.chain.clone(), owner.links.clone());
        owner.add_device();
        owner.add_device();
        assert!(adopt(&known, &held, &owner.links[2..]).is_err());
    }

    #[test]
    fn two_histories_are_a_fork_whether_one_sees_all_of_the_other_or_its_end() {
        let mut one = Owner::new();
        let mut other = Owner::new();
        one.add_device();
        other.rng = StdRng::seed_from_u64(8);
        other.add_device();
        for links in [&other.links[..], &other.links[1..]] {
            let Ok(Adoption::Fork(fork)) = adopt(&one.chain, &one.links, links) else { panic!("a fork") };
            assert_eq!((fork.chain.head(), fork.links.len()), (other.chain.head(), 2));
        }
    }

    #[test]
    fn the_history_that_the_owner_goes_on_with_names_the_one_it_ends() {
        let mut one = Owner::new();
        let mut other = Owner::new();
        one.add_device();
        other.rng = StdRng::seed_from_u64(8);
        other.add_device();
        let recovery = other.recovery.clone();
        other.append(&AccountChange::EndFork(one.chain.head()), &[&recovery]);
        let Ok(Adoption::Fork(fork)) = adopt(&one.chain, &one.links, &other.links[1..]) else {
            panic!("a fork")
        };
        assert!(fork.chain.state().ended_heads().contains(&one.chain.head()));
    }
}
