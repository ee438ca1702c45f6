use serde_json::{Value, json};
use tidings_proto::chain::{
    AccountState, ChainState, LinkError, ServerChange, ServerState, Settled, Verified,
    server as server_chain, settle,
};
use tidings_proto::error::Refusal;
use tidings_proto::id::Incarnation;
use tidings_proto::pb;

use super::{Verdict, hex_of};
use crate::make::places::filled;
use crate::world::{account_output, key, server_output};

pub(super) fn link(value: &Value) -> pb::Link {
    let signatures = value["signatures"].as_array().expect("a list");
    let signature = |each: &Value| hex::decode(each.as_str().expect("text")).expect("hexadecimal").into();
    pb::Link { body: hex_of(value, "body").into(), signatures: signatures.iter().map(signature).collect() }
}

pub(super) fn links(value: &Value) -> Vec<pb::Link> {
    value.as_array().expect("a list").iter().map(link).collect()
}

fn code(error: &LinkError) -> String {
    Refusal::from(error).code.to_string()
}

/// At once and link by link: both have to say the same.
fn verify<S: ChainState + PartialEq + std::fmt::Debug>(value: &Value) -> Result<Verified<S>, String> {
    let links = links(value);
    let whole = Verified::<S>::verify(&links);
    if let Some((first, rest)) = links.split_first() {
        let step_by_step = Verified::genesis(first)
            .and_then(|chain| rest.iter().try_fold(chain, |chain, link| chain.extended(link)));
        match (&whole, &step_by_step) {
            (Ok(one), Ok(other)) => assert_eq!(one, other),
            (Err(one), Err(other)) => assert_eq!(&one.source, other),
            (one, other) => panic!("at once: {one:?}; link by link: {other:?}"),
        }
    }
    whole.map_err(|error| code(&error.source))
}

pub(super) fn account(inputs: &Value) -> Verdict {
    if inputs["links"].is_array() {
        return Ok(account_output(&verify(&inputs["links"])?));
    }
    // A chain that is too long to be written out.
    let made = inputs["made"].as_array().expect("a list").iter().map(|part| {
        let count = part["count"].as_u64().and_then(|count| usize::try_from(count).ok()).expect("a number");
        (count, hex_of(part, "signing_seed")[0])
    });
    let held = filled(&made.collect::<Vec<_>>());
    assert_eq!(held.links[0], link(&inputs["genesis"]));
    held.chain
        .extended(&link(&inputs["link"]))
        .map(|chain| account_output(&chain))
        .map_err(|error| code(&error))
}

pub(super) fn server(inputs: &Value) -> Verdict {
    if inputs["links"].is_array() {
        return Ok(server_output(&verify(&inputs["links"])?));
    }
    // A chain that is too long to be written out.
    let mut chain = Verified::<ServerState>::genesis(&link(&inputs["genesis"])).expect("a genesis");
    for n in 1..=inputs["incarnations"].as_u64().expect("a number") {
        let mut incarnation = [7; 16];
        incarnation[..4].copy_from_slice(&u32::try_from(n).expect("small").to_be_bytes());
        let next = chain.link(&ServerChange::NewIncarnation(Incarnation(incarnation)), &[&key(11)]);
        chain.append(&next).expect("a link that fits");
    }
    assert_eq!(chain.len(), server_chain::LINKS_MAX);
    chain.extended(&link(&inputs["link"])).map(|chain| server_output(&chain)).map_err(|error| code(&error))
}

pub(super) fn fork(inputs: &Value) -> Verdict {
    let held: Verified<AccountState> = verify(&inputs["held"]).expect("what is held was verified");
    let came = verify(&inputs["came"]).map_err(|_| String::new())?;
    let settled = match settle(&held, &came) {
        Settled::Keep => "keep",
        Settled::Take => "take",
        Settled::Open => "open",
        Settled::OtherAccount => "other-account",
    };
    Ok(json!({"settled": settled}))
}
