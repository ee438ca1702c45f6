use tidings_proto::chain::server::ServerChange;

use super::*;

struct Folder {
    path: tempfile::TempDir,
    domain: Domain,
}

impl Folder {
    fn new() -> Self {
        let path = tempfile::tempdir().expect("a folder");
        let domain = Domain::parse("a.test").expect("a domain");
        let mut n = 0;
        create(path.path(), &domain, || {
            n += 1;
            [n; 32]
        })
        .expect("an identity");
        Self { path, domain }
    }

    fn load(&self) -> ServerIdentity {
        load(self.path.path(), &self.domain).expect("an identity").0
    }

    fn adopt(&self, links: &[pb::Link], head: &[u8]) -> Adoption {
        adopt(self.path.path(), links, head, Incarnation([0xad; 16])).expect("files")
    }

    fn root(&self) -> SigningKey {
        SigningKey::from_seed(&seed(self.path.path(), ROOT).expect("a root key"))
    }

    /// The chain after `step` as somebody else holds it, and the last link.
    fn elsewhere(&self, change: &ServerChange, keys: &[&SigningKey]) -> (Verified<ServerState>, pb::Link) {
        let identity = self.load();
        let link = identity.chain.link(change, keys);
        (identity.chain.extended(&link).expect("it extends"), link)
    }
}

#[test]
fn an_old_copy_takes_the_links_it_lost_and_begins_a_new_incarnation() {
    let folder = Folder::new();
    let key = folder.load().key;
    let lost = ServerChange::NewIncarnation(Incarnation([7; 16]));
    let (held, link) = folder.elsewhere(&lost, &[&key]);
    assert_eq!(folder.adopt(std::slice::from_ref(&link), held.head().as_ref()), Adoption::Grown);
    let healed = folder.load();
    assert_eq!(healed.chain.ids().get(..held.len()), Some(held.ids()));
    assert_eq!(healed.chain.state().incarnation(), Incarnation([0xad; 16]));
    assert_eq!(folder.adopt(&[link], held.head().as_ref()), Adoption::Nothing, "a second time it is no news");
}

#[test]
fn as_long_as_links_are_missing_no_new_incarnation_is_signed() {
    let folder = Folder::new();
    let key = folder.load().key;
    let (_, link) = folder.elsewhere(&ServerChange::NewIncarnation(Incarnation([7; 16])), &[&key]);
    assert_eq!(folder.adopt(&[link], &[9; 32]), Adoption::Grown);
    assert_eq!(folder.load().chain.state().incarnation(), Incarnation([7; 16]));
}

#[test]
fn forged_links_are_ignored() {
    let folder = Folder::new();
    let before = folder.load();
    let thief = SigningKey::from_seed(&[0x66; 32]);
    let forged = before.chain.link(&ServerChange::NewIncarnation(Incarnation([7; 16])), &[&thief]);
    let other = server::genesis(&folder.domain, &thief, &before.key, Incarnation([7; 16]));
    for links in [vec![forged], vec![other], vec![pb::Link::default()], Vec::new()] {
        assert_eq!(folder.adopt(&links, &[]), Adoption::Nothing);
    }
    assert_eq!(folder.load().links, before.links);
}

#[test]
fn a_retired_key_signs_no_more() {
    let folder = Folder::new();
    let retired = ServerChange::RetireOnlineKey(folder.load().key.public().id());
    let (held, link) = folder.elsewhere(&retired, &[&folder.root()]);
    assert_eq!(folder.adopt(&[link], held.head().as_ref()), Adoption::Mute);
    let error = load(folder.path.path(), &folder.domain).expect_err("no key");
    assert!(matches!(error, IdentityError::KeyRetired(_)), "{error}");
}

#[test]
fn a_new_incarnation_after_a_fork_goes_on_where_the_others_are() {
    let folder = Folder::new();
    let key = folder.load().key;
    let (held, link) = folder.elsewhere(&ServerChange::NewIncarnation(Incarnation([7; 16])), &[&key]);
    // The copy did not have that link when its operator said that it was restored.
    renew(folder.path.path(), &folder.domain, Incarnation([8; 16])).expect("a link");
    let before = folder.load();
    assert_eq!(folder.adopt(&[link], held.head().as_ref()), Adoption::Forked);
    assert_eq!(folder.load().links, before.links, "nothing changes without the operator");
    renew(folder.path.path(), &folder.domain, Incarnation([9; 16])).expect("a link");
    let after = folder.load();
    assert_eq!(after.chain.ids().get(..held.len()), Some(held.ids()));
    assert_eq!(after.chain.state().incarnation(), Incarnation([9; 16]));
}
