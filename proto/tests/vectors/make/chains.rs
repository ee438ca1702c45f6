//! Chapter 04: links, chains and forks.

use bytes::Bytes;
use prost::Message as _;
use serde_json::{Value, json};
use tidings_proto::chain::{AccountChange, ServerChange, sign_link};
use tidings_proto::id::{Incarnation, LinkId};
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, SigningKey};

use super::places::places;
use crate::vector::File;
use crate::world::{
    Account, LAPTOP, PHONE, RECOVERY, Server, account, device, key, link_json, links_json, server,
};

/// An account link of which something was changed, signed by these keys, which its body names.
fn changed(link: &pb::Link, keys: &[u8], change: impl FnOnce(&mut pb::AccountLinkBody)) -> pb::Link {
    let mut body = pb::AccountLinkBody::decode(link.body.clone()).expect("a body");
    let keys: Vec<SigningKey> = keys.iter().copied().map(key).collect();
    body.signers = keys.iter().map(|key| key.public().id().to_bytes()).collect();
    change(&mut body);
    let keys: Vec<&SigningKey> = keys.iter().collect();
    sign_link(Purpose::ACCOUNT_LINK, body.encode_to_vec().into(), &keys)
}

fn changed_server(link: &pb::Link, keys: &[u8], change: impl FnOnce(&mut pb::ServerLinkBody)) -> pb::Link {
    let mut body = pb::ServerLinkBody::decode(link.body.clone()).expect("a body");
    let keys: Vec<SigningKey> = keys.iter().copied().map(key).collect();
    body.signers = keys.iter().map(|key| key.public().id().to_bytes()).collect();
    change(&mut body);
    let keys: Vec<&SigningKey> = keys.iter().collect();
    sign_link(Purpose::SERVER_LINK, body.encode_to_vec().into(), &keys)
}

/// What a link becomes when its signatures are meddled with.
fn with_signatures(link: &pb::Link, change: impl FnOnce(&mut Vec<Bytes>)) -> pb::Link {
    let mut link = link.clone();
    change(&mut link.signatures);
    link
}

pub(crate) fn account_file() -> File {
    let question =
        "Do these links, verified in order from the genesis, make an account chain, and which state follows?";
    let mut file = File::new("04-chains", "account", question);
    account_lives(&mut file);
    account_genesis(&mut file);
    account_places(&mut file);
    account_rules(&mut file);
    account_signatures(&mut file);
    account_unknown(&mut file);
    places(&mut file);
    file
}

fn account_lives(file: &mut File) {
    let reqs = &["CHN-010", "CHN-011"];
    let mut life = account();
    let mut add = |comment: &str, life: &Account| {
        file.valid(reqs, comment, json!({"links": life.json()}), life.output())
            .steps(json!({"ids": life.ids()}));
    };
    add("a genesis", &life);
    life.add(&AccountChange::AddDevice(device(LAPTOP)), &[PHONE, LAPTOP]);
    add("a device adds a device", &life);
    life.add(&AccountChange::AddDevice(device(5)), &[RECOVERY, 5]);
    add("the recovery key adds a device", &life);
    life.add(&AccountChange::ChangeAddress("alice@c.example".parse().expect("an address")), &[RECOVERY]);
    add("the address changes", &life);
    life.add(&AccountChange::RemoveDevice(life.chain.account_id().0.into()), &[LAPTOP]);
    add("a device removes another", &life);
    life.add(&AccountChange::Checkpoint, &[RECOVERY]);
    add("a checkpoint frees the places", &life);
    life.add(&AccountChange::RotateRecovery(key(6).public()), &[RECOVERY, 6]);
    add("the recovery key is rotated", &life);
    life.add(&AccountChange::EndFork(LinkId([7; 32])), &[6]);
    add("a fork is ended", &life);
    let last = device(LAPTOP);
    let id = *life.chain.state().devices().iter().find(|(_, each)| **each == last).expect("is on the list").0;
    life.add(&AccountChange::RemoveDevice(id), &[LAPTOP]);
    add("a device removes itself", &life);
    life.add(&AccountChange::AddDevice(device(PHONE)), &[6, PHONE]);
    add("a key of a removed device comes back under a new name", &life);
    life.add(&AccountChange::Close("moved".into()), &[6]);
    add("the account is closed", &life);
}

/// Links that end with a bad one.
fn refuse(file: &mut File, (reqs, comment, code): (&[&str], &str, &str), held: &Account, bad: pb::Link) {
    let mut links = held.links.clone();
    links.push(bad);
    let inputs = json!({"links": links_json(&links)});
    file.invalid(reqs, comment, code, inputs).steps(json!({"bad_link": held.links.len()}));
}

fn account_genesis(file: &mut File) {
    let first = account().links.remove(0);
    let both = [RECOVERY, PHONE];
    let with = |change: fn(&mut pb::AccountGenesis)| {
        changed(&first, &both, |body| change(body.genesis.as_mut().expect("a genesis")))
    };
    fn of(genesis: &mut pb::AccountGenesis) -> &mut pb::Device {
        genesis.device.as_mut().expect("a device")
    }
    for (comment, link) in [
        ("type above 0", changed(&first, &both, |b| b.r#type = 2)),
        ("number above 0", changed(&first, &both, |b| b.number = 1)),
        ("names a chain", changed(&first, &both, |b| b.chain = vec![1; 32].into())),
        ("names a previous link", changed(&first, &both, |b| b.previous = vec![1; 32].into())),
        ("no field of its type", changed(&first, &both, |b| b.genesis = None)),
        (
            "a field of another type beside its own",
            changed(&first, &both, |b| b.close = Some(pb::CloseAccount::default())),
        ),
        ("an address in capitals", with(|g| g.address = "Alice@a.example".into())),
        ("no address", with(|g| g.address = String::new())),
        ("a salt of 15 bytes", with(|g| g.salt = vec![1; 15].into())),
        ("no salt", with(|g| g.salt = Bytes::new())),
        ("no device", with(|g| g.device = None)),
        ("one key for both", with(|g| g.device.as_mut().expect("a device").key = g.recovery_key.clone())),
        ("a recovery key of 32 bytes", with(|g| g.recovery_key = vec![1; 32].into())),
        (
            "a recovery key of small order",
            with(|g| g.recovery_key = [vec![1, 1], vec![0; 31]].concat().into()),
        ),
        ("an identity key of 32 bytes", with(|g| of(g).identity_key = vec![5; 32].into())),
        ("an identity key that begins with 06", with(|g| of(g).identity_key = vec![6; 33].into())),
        ("registration id 0", with(|g| of(g).registration_id = 0)),
        ("registration id 16381", with(|g| of(g).registration_id = 16381)),
        ("signed by the recovery key alone", changed(&first, &[RECOVERY], |_| ())),
        ("signed by the device alone", changed(&first, &[PHONE], |_| ())),
        ("signers in the other order", changed(&first, &[PHONE, RECOVERY], |_| ())),
        ("a signer too many", changed(&first, &[RECOVERY, PHONE, LAPTOP], |_| ())),
        (
            "under the purpose of server links",
            sign_link(Purpose::SERVER_LINK, first.body.clone(), &[&key(RECOVERY), &key(PHONE)]),
        ),
    ] {
        let inputs = json!({"links": links_json(&[link])});
        let comment = format!("genesis: {comment}");
        file.invalid(&["CHN-010"], &comment, "link-invalid", inputs).steps(json!({"bad_link": 0}));
    }
    let inputs = json!({"links": []});
    file.invalid(&["CHN-011"], "no links at all", "link-invalid", inputs).steps(json!({"bad_link": 0}));
}

fn account_places(file: &mut File) {
    let held = account();
    let good = held.chain.link(&AccountChange::Checkpoint, &[&key(RECOVERY)]);
    let with = |change: fn(&mut pb::AccountLinkBody)| changed(&good, &[RECOVERY], change);
    for (comment, code, link) in [
        ("of another chain", "link-invalid", with(|b| b.chain = vec![9; 32].into())),
        ("a chain id of 31 bytes", "link-invalid", with(|b| b.chain = vec![9; 31].into())),
        ("a previous id of 33 bytes", "link-invalid", with(|b| b.previous = vec![9; 33].into())),
        ("a signer of 31 bytes", "link-invalid", with(|b| b.signers[0].truncate(31))),
        ("stale: the number of the head", "stale-link", with(|b| b.number = 0)),
        ("ahead: a number left out", "stale-link", with(|b| b.number = 2)),
        ("builds on another link", "stale-link", with(|b| b.previous = vec![9; 32].into())),
        ("a genesis again", "link-invalid", held.links[0].clone()),
        ("type 0 behind a genesis", "link-invalid", with(|b| b.r#type = 0)),
    ] {
        refuse(file, (&["CHN-010"], comment, code), &held, link);
    }
    let not_canonical = |extra: &[u8]| {
        let body = [good.body.as_ref(), extra].concat();
        sign_link(Purpose::ACCOUNT_LINK, body.into(), &[&key(RECOVERY)])
    };
    refuse(file, (&["FRM-021"], "a body with a byte behind it", "link-invalid"), &held, not_canonical(&[0]));
    refuse(
        file,
        (&["FRM-021"], "a body with a field out of order", "link-invalid"),
        &held,
        not_canonical(&[0x20, 1]),
    );
    let large = sign_link(Purpose::ACCOUNT_LINK, vec![0xff; 4097].into(), &[&key(RECOVERY)]);
    refuse(file, (&["CHN-010"], "a body of 4097 bytes", "link-invalid"), &held, large);
}

fn account_rules(file: &mut File) {
    let mut held = account();
    held.add(&AccountChange::AddDevice(device(LAPTOP)), &[PHONE, LAPTOP]);
    let phone = held.chain.account_id().0.into();
    let address = || AccountChange::ChangeAddress("alice@c.example".parse().expect("an address"));
    let twin = pb::Device { identity_key: device(PHONE).to_pb().identity_key, ..device(5).to_pb() };
    for (comment, change, signers) in [
        ("a key that a device has", AccountChange::AddDevice(device(PHONE)), &[LAPTOP, PHONE][..]),
        ("the recovery key as a device's", AccountChange::AddDevice(device(RECOVERY)), &[PHONE, RECOVERY]),
        ("added by a stranger", AccountChange::AddDevice(device(5)), &[9, 5]),
        ("the new device did not sign", AccountChange::AddDevice(device(5)), &[PHONE]),
        ("new device first", AccountChange::AddDevice(device(5)), &[5, PHONE]),
        ("removed by a stranger", AccountChange::RemoveDevice(phone), &[9]),
        ("remove what is not listed", AccountChange::RemoveDevice([9; 32].into()), &[PHONE]),
        ("remove with a signer too many", AccountChange::RemoveDevice(phone), &[LAPTOP, RECOVERY]),
        ("rotation by a device", AccountChange::RotateRecovery(key(6).public()), &[PHONE, 6]),
        ("rotation without the new key", AccountChange::RotateRecovery(key(6).public()), &[RECOVERY]),
        ("rotation without the old key", AccountChange::RotateRecovery(key(6).public()), &[6]),
        ("rotation to itself", AccountChange::RotateRecovery(key(RECOVERY).public()), &[RECOVERY, RECOVERY]),
        (
            "rotation to a device's key",
            AccountChange::RotateRecovery(key(PHONE).public()),
            &[RECOVERY, PHONE],
        ),
        ("address changed by a device", address(), &[PHONE]),
        ("checkpoint by a device", AccountChange::Checkpoint, &[PHONE]),
        ("fork ended by a device", AccountChange::EndFork(LinkId([7; 32])), &[PHONE]),
        ("fork ended that is the head itself", AccountChange::EndFork(held.chain.head()), &[RECOVERY]),
        ("fork ended that is the genesis", AccountChange::EndFork(held.chain.genesis_id()), &[RECOVERY]),
        ("closed by a device", AccountChange::Close(String::new()), &[PHONE]),
    ] {
        let link = held.link(&change, signers);
        refuse(file, (&["CHN-010"], comment, "link-invalid"), &held, link);
    }
    let good = held.link(&AccountChange::AddDevice(device(5)), &[PHONE, 5]);
    let same_identity = changed(&good, &[PHONE, 5], |b| b.add_device = Some(twin));
    refuse(file, (&["CHN-010"], "an identity key that a device has", "link-invalid"), &held, same_identity);
    let both = changed(&good, &[PHONE, 5], |b| b.close = Some(pb::CloseAccount::default()));
    refuse(file, (&["CHN-010"], "two fields of known types", "link-invalid"), &held, both);
    let other = changed(&good, &[PHONE, 5], |b| b.r#type = 4);
    refuse(file, (&["CHN-010"], "the field of another type", "link-invalid"), &held, other);
    let restate = held.link(&AccountChange::Checkpoint, &[RECOVERY]);
    for (comment, change) in [
        ("an address link too many", (|c| c.address_links += 1) as fn(&mut pb::AccountCheckpoint)),
        ("another address", |c| c.address = "bob@a.example".into()),
        ("a device left out", |c| drop(c.devices.pop())),
        ("devices in another order", |c| c.devices.reverse()),
        ("another recovery key", |c| c.recovery_key = key(6).public().to_bytes()),
    ] {
        let link = changed(&restate, &[RECOVERY], |b| change(b.checkpoint.as_mut().expect("a checkpoint")));
        refuse(file, (&["CHN-010"], &format!("checkpoint with {comment}"), "link-invalid"), &held, link);
    }
    removed_rotated_closed(file);
}

fn removed_rotated_closed(file: &mut File) {
    let mut held = account();
    held.add(&AccountChange::AddDevice(device(LAPTOP)), &[PHONE, LAPTOP]);
    held.add(&AccountChange::RemoveDevice(held.chain.account_id().0.into()), &[RECOVERY]);
    held.add(&AccountChange::RotateRecovery(key(6).public()), &[RECOVERY, 6]);
    for (comment, change, signers) in [
        ("signed by a removed device", AccountChange::AddDevice(device(5)), &[PHONE, 5][..]),
        ("signed by the recovery key of before", AccountChange::Checkpoint, &[RECOVERY]),
    ] {
        let link = held.link(&change, signers);
        refuse(file, (&["CHN-010"], comment, "link-invalid"), &held, link);
    }
    held.add(&AccountChange::Close(String::new()), &[6]);
    let link = held.link(&AccountChange::Checkpoint, &[6]);
    let odd = changed(&link, &[9], |b| (b.r#type, b.checkpoint) = (0x21, None));
    refuse(file, (&["CHN-010"], "behind a closed account", "account-closed"), &held, link.clone());
    refuse(
        file,
        (&["CHN-010"], "an unknown odd link of a stranger behind a closed account", "account-closed"),
        &held,
        odd,
    );
    let even = changed(&link, &[6], |b| (b.r#type, b.checkpoint) = (0x10, None));
    refuse(file, (&["CHN-010"], "an unknown even link behind a closed account", "link-invalid"), &held, even);
}

fn account_signatures(file: &mut File) {
    let held = account();
    let good = held.link(&AccountChange::AddDevice(device(LAPTOP)), &[PHONE, LAPTOP]);
    for (comment, link) in [
        ("a signature missing", with_signatures(&good, |s| drop(s.pop()))),
        ("all signatures missing", with_signatures(&good, Vec::clear)),
        ("a signature too many", with_signatures(&good, |s| s.push(s[0].clone()))),
        ("signatures in the other order", with_signatures(&good, |s| s.swap(0, 1))),
        ("the same signature twice", with_signatures(&good, |s| s[1] = s[0].clone())),
        ("a signature of 64 bytes", with_signatures(&good, |s| s[0] = s[0].slice(1..))),
        (
            "a signature under algorithm 2",
            with_signatures(&good, |s| s[0] = [&[2], &s[0][1..]].concat().into()),
        ),
        (
            "a bit of a signature flipped",
            with_signatures(&good, |s| {
                let mut bytes = s[1].to_vec();
                bytes[40] ^= 1;
                s[1] = bytes.into();
            }),
        ),
    ] {
        refuse(file, (&["CHN-010"], comment, "link-invalid"), &held, link);
    }
}

fn account_unknown(file: &mut File) {
    let held = account();
    let template = held.link(&AccountChange::Checkpoint, &[RECOVERY]);
    let of = |kind: u32, keys: &[u8]| changed(&template, keys, |b| (b.r#type, b.checkpoint) = (kind, None));
    for (comment, keys) in [
        ("an unknown odd link by a device counts and changes nothing", &[PHONE][..]),
        ("an unknown odd link by the recovery key", &[RECOVERY]),
        ("an unknown odd link by two keys of the list", &[PHONE, RECOVERY]),
    ] {
        let mut life = account();
        life.push(of(0x21, keys));
        let inputs = json!({"links": life.json()});
        file.valid(&["CHN-015"], comment, inputs, life.output()).steps(json!({"ids": life.ids()}));
    }
    for (comment, reqs, link) in [
        ("an unknown odd link by a stranger", "CHN-015", of(0x21, &[9])),
        ("an unknown odd link by a key of the list and a stranger", "CHN-015", of(0x21, &[PHONE, 9])),
        ("an unknown odd link by nobody", "CHN-015", of(0x21, &[])),
        ("an unknown even link", "CHN-013", of(0x10, &[RECOVERY])),
        (
            "an unknown odd link without its signature",
            "CHN-015",
            with_signatures(&of(0x21, &[PHONE]), Vec::clear),
        ),
    ] {
        refuse(file, (&[reqs], comment, "link-invalid"), &held, link);
    }
    let unknown_field = |extra: &[u8]| {
        let body = [template.body.as_ref(), extra].concat();
        sign_link(Purpose::ACCOUNT_LINK, body.into(), &[&key(RECOVERY)])
    };
    let mut life = account();
    life.push(unknown_field(&[0xc0, 0x01, 0x05]));
    let inputs = json!({"links": life.json()});
    let comment = "a field that is not known changes nothing but the id";
    file.valid(&["FRM-023"], comment, inputs, life.output()).steps(json!({"ids": life.ids()}));
}

pub(crate) fn server_file() -> File {
    let question =
        "Do these links, verified in order from the genesis, make a server chain, and which state follows?";
    let mut file = File::new("04-chains", "server", question);
    server_lives(&mut file);
    server_genesis(&mut file);
    server_rules(&mut file);
    file
}

fn server_lives(file: &mut File) {
    let mut life = server();
    let mut add = |comment: &str, life: &Server| {
        file.valid(&["CHN-010"], comment, json!({"links": life.json()}), life.output())
            .steps(json!({"ids": life.ids()}));
    };
    add("a genesis", &life);
    life.add(&ServerChange::AddOnlineKey(key(12).public()), &[10, 12]);
    add("an online key is added", &life);
    life.add(&ServerChange::NewIncarnation(Incarnation([2; 16])), &[12]);
    add("a new incarnation by an online key", &life);
    life.add(&ServerChange::RetireOnlineKey(key(11).public().id()), &[10]);
    add("an online key is retired", &life);
    life.add(&ServerChange::NewIncarnation(Incarnation([3; 16])), &[10]);
    add("a new incarnation by the root key", &life);
    life.add(&ServerChange::RetireOnlineKey(key(12).public().id()), &[10]);
    add("the last online key is retired: mute", &life);
}

fn refuse_server(file: &mut File, comment: &str, code: &str, held: &Server, bad: pb::Link) {
    let mut links = held.links.clone();
    links.push(bad);
    let inputs = json!({"links": links_json(&links)});
    file.invalid(&["CHN-010"], comment, code, inputs).steps(json!({"bad_link": held.links.len()}));
}

fn server_genesis(file: &mut File) {
    let first = server().links.remove(0);
    let with = |change: fn(&mut pb::ServerGenesis)| {
        changed_server(&first, &[10, 11], |body| change(body.genesis.as_mut().expect("a genesis")))
    };
    for (comment, link) in [
        ("a domain in capitals", with(|g| g.domain = "A.example".into())),
        ("no domain", with(|g| g.domain = String::new())),
        ("an incarnation of zeros", with(|g| g.incarnation = vec![0; 16].into())),
        ("an incarnation of 15 bytes", with(|g| g.incarnation = vec![1; 15].into())),
        ("one key for both", with(|g| g.online_key = g.root_key.clone())),
        ("an online key of another algorithm", with(|g| g.online_key = vec![2; 33].into())),
        ("number above 0", changed_server(&first, &[10, 11], |b| b.number = 1)),
        ("no field of its type", changed_server(&first, &[10, 11], |b| b.genesis = None)),
        ("signed by the root key alone", changed_server(&first, &[10], |_| ())),
        ("signers in the other order", changed_server(&first, &[11, 10], |_| ())),
        ("an account's genesis", account().links.remove(0)),
    ] {
        let inputs = json!({"links": links_json(&[link])});
        let comment = format!("genesis: {comment}");
        file.invalid(&["CHN-010"], &comment, "link-invalid", inputs).steps(json!({"bad_link": 0}));
    }
}

fn server_rules(file: &mut File) {
    let mut held = server();
    held.add(&ServerChange::AddOnlineKey(key(12).public()), &[10, 12]);
    held.add(&ServerChange::RetireOnlineKey(key(11).public().id()), &[10]);
    let life = |n: u8| ServerChange::NewIncarnation(Incarnation([n; 16]));
    for (comment, change, signers) in [
        ("an online key adds a key", ServerChange::AddOnlineKey(key(13).public()), &[12, 13][..]),
        ("the new key did not sign", ServerChange::AddOnlineKey(key(13).public()), &[10]),
        ("a key on the list", ServerChange::AddOnlineKey(key(12).public()), &[10, 12]),
        ("a retired key comes back", ServerChange::AddOnlineKey(key(11).public()), &[10, 11]),
        ("the root key as an online key", ServerChange::AddOnlineKey(key(10).public()), &[10, 10]),
        ("an online key retires itself", ServerChange::RetireOnlineKey(key(12).public().id()), &[12]),
        ("retire what is not listed", ServerChange::RetireOnlineKey(key(13).public().id()), &[10]),
        ("retire the root key", ServerChange::RetireOnlineKey(key(10).public().id()), &[10]),
        ("incarnation by a retired key", life(2), &[11]),
        ("incarnation by a stranger", life(2), &[13]),
        ("incarnation by two", life(2), &[10, 12]),
        ("incarnation used before", life(1), &[12]),
        ("incarnation of zeros", life(0), &[12]),
    ] {
        let link = held.link(&change, signers);
        refuse_server(file, comment, "link-invalid", &held, link);
    }
    let good = held.link(&life(2), &[12]);
    let with = |change: fn(&mut pb::ServerLinkBody)| changed_server(&good, &[12], change);
    for (comment, code, link) in [
        ("of another chain", "link-invalid", with(|b| b.chain = vec![9; 32].into())),
        ("the number of the head", "stale-link", with(|b| b.number = 2)),
        ("a number left out", "stale-link", with(|b| b.number = 4)),
        ("builds on another link", "stale-link", with(|b| b.previous = vec![9; 32].into())),
        ("an unknown even link", "link-invalid", with(|b| (b.r#type, b.new_incarnation) = (8, None))),
        ("the field of another type", "link-invalid", with(|b| b.r#type = 2)),
    ] {
        refuse_server(file, comment, code, &held, link);
    }
    let mut full = server();
    for n in 1..256_u32 {
        let mut incarnation = [7; 16];
        incarnation[..4].copy_from_slice(&n.to_be_bytes());
        full.add(&ServerChange::NewIncarnation(Incarnation(incarnation)), &[11]);
    }
    let link = full.link(&life(2), &[10]);
    let inputs = json!({"genesis": link_json(&full.links[0]), "incarnations": 255, "signer": hex::encode([11; 32]), "link": link_json(&link)});
    let comment = "the 257th link: behind the genesis come 255 new incarnations, number n (4 bytes) and twelve bytes of 07";
    file.invalid(&["CHN-010"], comment, "link-limit", inputs)
        .flag("made")
        .steps(json!({"bad_link": 256, "head": full.chain.head().to_string()}));
}

pub(crate) fn fork_file() -> File {
    let question = "A chain of this account came beside the one held: which is held from now on?";
    let mut file = File::new("04-chains", "fork", question);
    let base = account();
    let branch = |n: u8| {
        let mut branch = base.clone();
        branch.add(&AccountChange::AddDevice(device(n)), &[PHONE, n]);
        branch
    };
    let ending = |branch: &Account, other: &Account| {
        let mut branch = branch.clone();
        branch.add(&AccountChange::EndFork(other.chain.head()), &[RECOVERY]);
        branch
    };
    let (a, b, c) = (branch(LAPTOP), branch(5), branch(6));
    let mut b_grown = b.clone();
    b_grown.add(&AccountChange::AddDevice(device(7)), &[PHONE, 7]);
    let (a_ends, b_ends) = (ending(&a, &b), ending(&b, &a));
    for (comment, held, came, settled) in [
        ("the same", &a, &a, "keep"),
        ("an older one: rolled back, or late", &a, &base, "keep"),
        ("a longer one", &base, &a, "take"),
        ("two branches", &a, &b, "open"),
        ("the one held ends the other", &a_ends, &b, "keep"),
        ("the other ends the one held", &b, &a_ends, "take"),
        ("an ended branch that has grown stays ended", &a_ends, &b_grown, "keep"),
        ("each ends the other", &a_ends, &b_ends, "open"),
        ("a third branch is not ended by a name of the second", &a_ends, &c, "open"),
    ] {
        let inputs = json!({"held": held.json(), "came": came.json()});
        let vector = file.valid(&["CHN-050", "CHN-054"], comment, inputs, json!({"settled": settled}));
        vector.steps(json!({"held": held.chain.head().to_string(), "came": came.chain.head().to_string()}));
    }
    let mut bad = b.links.clone();
    bad[1].signatures.clear();
    let unsigned: Value = links_json(&bad);
    let inputs = json!({"held": a.json(), "came": unsigned});
    file.invalid(&["CHN-050"], "the other branch does not verify: dropped", "", inputs);
    let by_device = a.link(&AccountChange::EndFork(b.chain.head()), &[PHONE]);
    let mut links = a.links.clone();
    links.push(by_device);
    let inputs = json!({"held": b.json(), "came": links_json(&links)});
    file.invalid(&["CHN-054"], "a device ends the fork: the branch does not verify", "", inputs);
    file
}
