//! Group links: a bad one changes nothing, a good one leads to a state that can be stored, at once and link by link
//! alike.
//!
//! Input: a byte of flags, then an encoded message with repeated links. Mutated bodies are also joined to the chain's
//! head and signed again with known keys, so that the rules behind the signatures see them.

use std::mem::discriminant;

use prost::Message;
use tidings_proto::chain::group::{GroupLinkError, GroupState};
use tidings_proto::chain::sign_link;
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, SigningKey};

use super::outcome;
use crate::world;

const SIGN_AGAIN: u8 = 1;
const JOIN_AGAIN: u8 = 2;

pub(super) fn run(data: &[u8]) -> u64 {
    let Some((flags, rest)) = data.split_first() else { return 0 };
    let Ok(input) = pb::GroupCreate::decode(rest) else { return 1 };
    let mut links = input.links;
    links.truncate(16);
    let chains = world::group_chains();
    let mut state: Option<GroupState> = None;
    let (mut taken, mut fates) = (Vec::new(), Vec::new());
    for link in &links {
        let link = again(*flags, link, state.as_ref());
        let result = match &state {
            None => GroupState::genesis(&link, chains),
            Some(state) => state.apply(&link, chains),
        };
        match result {
            Ok(next) => {
                sound(&next, state.as_ref());
                assert!(next.apply(&link, chains).is_err(), "no link stands twice");
                state = Some(next);
                taken.push(link);
                fates.push(None);
            }
            Err(error) => fates.push(Some(fate(&error))),
        }
    }
    if let Some(state) = &state {
        let whole = GroupState::verify(&taken, chains);
        assert_eq!(whole.as_ref(), Ok(state), "at once and link by link are the same");
    }
    outcome(fates)
}

fn fate(error: &GroupLinkError) -> u64 {
    match error {
        GroupLinkError::Link(error) => outcome(discriminant(error)),
        other => outcome(discriminant(other)),
    }
}

fn sound(next: &GroupState, before: Option<&GroupState>) {
    assert_eq!(GroupState::from_trusted(&next.encode()).as_ref(), Ok(next), "it can be stored");
    if let Some(before) = before {
        assert_eq!(next.number(), before.number() + 1);
        assert!(next.term() >= before.term() && next.rotated() >= before.rotated());
        assert_eq!(next.group(), before.group());
    }
}

/// The link as it is, or joined to the chain's head, or signed again by those keys that its body names.
fn again(flags: u8, link: &pb::Link, state: Option<&GroupState>) -> pb::Link {
    let mut link = link.clone();
    let Ok(mut body) = pb::GroupLinkBody::decode(link.body.as_ref()) else { return link };
    if let (true, Some(state)) = (flags & JOIN_AGAIN != 0, state) {
        (body.chain, body.previous) = (state.group().to_bytes(), state.head().to_bytes());
        body.number = state.number() + 1;
        if let Some(checkpoint) = &mut body.checkpoint {
            checkpoint.state_hash = state.hash().to_bytes();
        }
        link.body = body.encode_to_vec().into();
    }
    if flags & SIGN_AGAIN == 0 {
        return link;
    }
    let keys = world::keys();
    let find = |id: &bytes::Bytes| keys.iter().find(|key| key.public().id().as_ref() == id.as_ref());
    let known: Option<Vec<&SigningKey>> = body.signers.iter().map(find).collect();
    match known {
        Some(known) if !known.is_empty() && known.len() <= 4 => {
            sign_link(Purpose::GROUP_LINK, link.body, &known)
        }
        _ => link,
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let links = world::group_links();
    let of = |flags: u8, links: &[pb::Link]| {
        let message = pb::GroupCreate { links: links.to_vec() };
        [&[flags][..], &message.encode_to_vec()].concat()
    };
    let mut seeds = vec![of(0, links)];
    // Short ones, which a mutation is more likely to leave valid up to its end.
    seeds.extend((1..=links.len()).map(|length| of(SIGN_AGAIN | JOIN_AGAIN, &links[..length])));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_seed_is_a_whole_chain() {
        let links = world::group_links();
        let state = GroupState::verify(links, world::group_chains()).expect("a chain");
        assert_eq!(state.number() + 1, links.len() as u64);
    }
}
