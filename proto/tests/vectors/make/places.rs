//! Chapter 04: how many links an account chain takes. Too long to be written out: the vectors say how links are made.

use std::collections::BTreeMap;
use std::sync::Mutex;

use prost::Message as _;
use serde_json::{Value, json};
use tidings_proto::chain::{AccountChange, sign_link};
use tidings_proto::pb;
use tidings_proto::sign::Purpose;

use crate::vector::File;
use crate::world::{Account, PHONE, RECOVERY, account, key, link_json};

/// A link of the unknown odd type 0x21 without a field of its own, behind the chain's head.
pub(crate) fn filler(life: &Account, signer: u8) -> pb::Link {
    let envelope = life.chain.next_envelope(0x21, &[]);
    let body = pb::AccountLinkBody {
        r#type: envelope.kind,
        chain: envelope.chain,
        previous: envelope.previous,
        number: envelope.number,
        signers: vec![key(signer).public().id().to_bytes()],
        ..Default::default()
    };
    sign_link(Purpose::ACCOUNT_LINK, body.encode_to_vec().into(), &[&key(signer)])
}

/// A chain with these links behind the genesis: how many, and whose.
pub(crate) fn filled(made: &[(usize, u8)]) -> Account {
    // Made once: a thousand links take a while.
    static MADE: Mutex<BTreeMap<Vec<(usize, u8)>, Account>> = Mutex::new(BTreeMap::new());
    let mut cache = MADE.lock().expect("no test panics while it makes links");
    cache.entry(made.to_vec()).or_insert_with(|| fill(made)).clone()
}

fn fill(made: &[(usize, u8)]) -> Account {
    let mut life = account();
    for (count, signer) in made {
        for _ in 0..*count {
            life.push(filler(&life, *signer));
        }
    }
    life
}

pub(super) fn places(file: &mut File) {
    let reserved = filled(&[(1008, PHONE)]);
    let full = filled(&[(1008, PHONE), (16, RECOVERY)]);
    let inputs = |made: Value, link: &pb::Link| json!({"genesis": link_json(&account().links[0]), "made": made, "link": link_json(link)});
    let by_phone = json!([{"count": 1008, "signing_seed": hex::encode([PHONE; 32])}]);
    let by_both = json!([
        {"count": 1008, "signing_seed": hex::encode([PHONE; 32])},
        {"count": 16, "signing_seed": hex::encode([RECOVERY; 32])},
    ]);
    let made =
        "the links between are of type 0x21, without a field of a type, each signed by the key of that seed";
    for (comment, held, made_of, link) in [
        ("the 1009th place, for the recovery key", &reserved, &by_phone, filler(&reserved, RECOVERY)),
        (
            "a checkpoint where all places are taken",
            &full,
            &by_both,
            full.link(&AccountChange::Checkpoint, &[RECOVERY]),
        ),
    ] {
        let mut after = held.clone();
        after.push(link.clone());
        let comment = format!("{comment}; {made}");
        let vector = file.valid(&["CHN-010"], &comment, inputs(made_of.clone(), &link), after.output());
        vector.flag("made").steps(json!({"head_before": held.chain.head().to_string()}));
    }
    for (comment, code, held, made_of, link) in [
        ("the 1009th place, by a device", "link-limit", &reserved, &by_phone, filler(&reserved, PHONE)),
        ("the 1025th place, by the recovery key", "link-limit", &full, &by_both, filler(&full, RECOVERY)),
        (
            "closing where all places are taken",
            "link-limit",
            &full,
            &by_both,
            full.link(&AccountChange::Close(String::new()), &[RECOVERY]),
        ),
        (
            "a checkpoint by a device where all places are taken",
            "link-invalid",
            &full,
            &by_both,
            full.link(&AccountChange::Checkpoint, &[PHONE]),
        ),
        ("a stranger where all places are taken", "link-invalid", &full, &by_both, filler(&full, 9)),
    ] {
        let comment = format!("{comment}; {made}");
        let vector = file.invalid(&["CHN-010"], &comment, code, inputs(made_of.clone(), &link));
        vector.flag("made").steps(json!({"head_before": held.chain.head().to_string()}));
    }
}
