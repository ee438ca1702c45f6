use serde_json::{Value, json};
use tidings_proto::chain::group::{Chains, GroupState};
use tidings_proto::error::Refusal;
use tidings_proto::group_log::{GroupHead, GroupPosition, TermLink, Vote};
use tidings_proto::id::Hash;
use tidings_proto::pb;

use super::chains::{link, links};
use super::{Verdict, hex_of, number};
use crate::crowd::state_json;

fn chains(inputs: &Value) -> Chains {
    let mut chains = Chains::new();
    for account in inputs["accounts"].as_array().into_iter().flatten() {
        chains.add_account(&links(account)).expect("a good chain");
    }
    for server in inputs["servers"].as_array().into_iter().flatten() {
        chains.add_server(&links(server)).expect("a good chain");
    }
    chains
}

fn state(inputs: &Value) -> GroupState {
    GroupState::from_trusted(&hex_of(inputs, "state")).expect("a state")
}

pub(super) fn chain(inputs: &Value) -> Verdict {
    let state = GroupState::verify(&links(&inputs["links"]), &chains(inputs));
    state.map(|state| state_json(&state)).map_err(|(_, error)| Refusal::from(&error).code.to_string())
}

pub(super) fn one_link(inputs: &Value) -> Verdict {
    let state = state(inputs);
    let next = state.apply(&link(&inputs["link"]), &chains(inputs));
    let next = next.map_err(|error| Refusal::from(&error).code.to_string())?;
    let snapshot = GroupState::from_snapshot(&next.encode(), &next.hash());
    assert_eq!(snapshot.as_ref(), Ok(&next), "what was reached can be stored");
    Ok(state_json(&next))
}

fn position(value: &Value) -> Result<GroupPosition, String> {
    let position = pb::GroupPosition {
        term: number(value, "term"),
        seq: number(value, "seq"),
        hash: hex_of(value, "hash").into(),
    };
    GroupPosition::parse(Some(&position)).map_err(|_| String::new())
}

fn shown(at: &GroupPosition) -> Value {
    json!({"term": at.term.to_string(), "seq": at.seq.to_string(), "hash": at.hash.to_string()})
}

pub(super) fn log(inputs: &Value) -> Verdict {
    use prost::Message as _;
    let state = state(inputs);
    let mut at = position(&inputs["position"])?;
    for shipped in inputs["entries"].as_array().expect("a list") {
        at = if shipped["void"].is_string() {
            let void =
                pb::GroupVoid::decode(hex_of(shipped, "void").as_slice()).map_err(|_| String::new())?;
            at.past_void(&state, &void)
        } else {
            at.follow(&state, &hex_of(shipped, "entry")).map(|(at, _)| at)
        }
        .map_err(|_| String::new())?;
    }
    Ok(shown(&at))
}

pub(super) fn head(inputs: &Value) -> Verdict {
    let signed = pb::SignedGroupHead {
        body: hex_of(inputs, "body").into(),
        signature: hex_of(inputs, "signature").into(),
    };
    let head = GroupHead::verify(&signed, &chains(inputs)).map_err(|_| String::new())?;
    assert_eq!(head.encode(), signed.body, "it has one encoding");
    Ok(json!({
        "group": head.group.to_string(),
        "position": shown(&head.position),
        "stable": head.stable.to_string(),
        "server": head.hub.server.genesis.to_string(),
    }))
}

pub(super) fn vote(inputs: &Value) -> Verdict {
    let signed =
        pb::SignedVote { body: hex_of(inputs, "body").into(), signature: hex_of(inputs, "signature").into() };
    let vote = Vote::verify(&signed, &chains(inputs)).map_err(|_| String::new())?;
    assert_eq!(vote.encode(), signed.body, "it has one encoding");
    Ok(json!({
        "group": vote.group.to_string(),
        "term": vote.term.to_string(),
        "from": shown(&vote.from),
        "hub": vote.hub.genesis.to_string(),
        "keeper": vote.keeper.server.genesis.to_string(),
    }))
}

pub(super) fn term(inputs: &Value) -> Verdict {
    let [a, b] = ["a", "b"].map(|name| TermLink::of(&link(&inputs[name])).expect("it begins a term"));
    assert_ne!(Hash::from(a.id), Hash::from(b.id));
    Ok(json!({"first": if a > b { "a" } else { "b" }}))
}
