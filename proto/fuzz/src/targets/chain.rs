//! Chains: a bad link changes nothing, a good one extends, and verification at once and link by link agree.
//!
//! Input: a byte of flags, then an encoded message with repeated links. As signatures guard everything, mutated bodies
//! are also joined and signed again with known keys, so that the rules behind the signatures see them.

use std::mem::discriminant;

use prost::Message;
use tidings_proto::chain::{
    AccountState, ChainState, LinkError, Relation, ServerState, Verified, relation, sign_link,
};
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;

use super::outcome;
use crate::world;

const SERVER: u8 = 1;
const SIGN_AGAIN: u8 = 2;
const JOIN_AGAIN: u8 = 4;

pub(super) fn run(data: &[u8]) -> u64 {
    let Some((flags, rest)) = data.split_first() else { return 0 };
    let Ok(input) = pb::Resolved::decode(rest) else { return 1 };
    let mut links = input.links;
    links.truncate(12);
    if flags & SERVER == 0 {
        of::<AccountState>(*flags, &links, |body: &mut pb::AccountLinkBody, chain| {
            (body.chain, body.previous, body.number) = place(chain);
        })
    } else {
        of::<ServerState>(*flags, &links, |body: &mut pb::ServerLinkBody, chain| {
            (body.chain, body.previous, body.number) = place(chain);
        })
    }
}

fn place<S: ChainState>(chain: &Verified<S>) -> (bytes::Bytes, bytes::Bytes, u64) {
    let envelope = chain.next_envelope(0, &[]);
    (envelope.chain, envelope.previous, envelope.number)
}

fn of<S: ChainState + PartialEq>(
    flags: u8,
    links: &[pb::Link],
    join: impl Fn(&mut S::Body, &Verified<S>),
) -> u64 {
    let keys = if flags & SIGN_AGAIN == 0 { Vec::new() } else { world::keys() };
    let mut chain: Option<Verified<S>> = None;
    let mut taken = Vec::new();
    let mut fates = Vec::new();
    for link in links {
        let link = again(flags, link, chain.as_ref(), &keys, &join);
        let result = match &mut chain {
            None => Verified::genesis(&link).map(|first| chain = Some(first)),
            Some(chain) => append(chain, &link),
        };
        if result.is_ok() {
            taken.push(link);
        }
        fates.push(result.map_err(|error| discriminant(&error)));
    }
    match &chain {
        Some(chain) => {
            let whole = Verified::<S>::verify(&taken).expect("what was taken link by link is a chain");
            assert!(whole == *chain, "at once and link by link are the same");
            assert_eq!(chain.len(), taken.len());
        }
        None => assert!(Verified::<S>::verify(links).is_err() || flags & SIGN_AGAIN != 0),
    }
    outcome((flags & SERVER, fates))
}

fn append<S: ChainState + PartialEq>(chain: &mut Verified<S>, link: &pb::Link) -> Result<(), LinkError> {
    let before = chain.clone();
    let result = chain.append(link);
    match &result {
        Ok(id) => {
            assert_eq!(chain.head(), *id);
            assert_eq!(relation(chain, &before), Relation::Extends);
            let twice = chain.clone().append(link);
            assert!(twice.is_err(), "no link stands twice");
        }
        Err(_) => assert!(*chain == before, "a bad link changes nothing"),
    }
    result.map(|_| ())
}

/// The link as it is, or joined to the chain's head, or signed again by those keys that its body names.
fn again<S: ChainState>(
    flags: u8,
    link: &pb::Link,
    chain: Option<&Verified<S>>,
    keys: &[SigningKey],
    join: &impl Fn(&mut S::Body, &Verified<S>),
) -> pb::Link {
    let mut link = link.clone();
    if let (true, Some(chain), Ok(mut body)) =
        (flags & JOIN_AGAIN != 0, chain, S::Body::decode(link.body.as_ref()))
    {
        join(&mut body, chain);
        link.body = body.encode_to_vec().into();
    }
    if keys.is_empty() {
        return link;
    }
    let named = S::Body::decode(link.body.as_ref()).ok().and_then(|body| S::envelope(&body).ok());
    let signers = named.map(|envelope| envelope.signers).unwrap_or_default();
    let known: Option<Vec<&SigningKey>> =
        signers.iter().map(|id| keys.iter().find(|key| key.public().id() == *id)).collect();
    match known {
        Some(known) if !known.is_empty() && known.len() <= 4 => sign_link(S::PURPOSE, link.body, &known),
        _ => link,
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let of = |flags: u8, links: &[pb::Link]| {
        let message = pb::Resolved { links: links.to_vec(), ..Default::default() };
        [&[flags][..], &message.encode_to_vec()].concat()
    };
    let (account, server) = (world::account_links(), world::server_links());
    let again = SIGN_AGAIN | JOIN_AGAIN;
    let mut seeds = vec![of(0, account), of(SERVER, server), of(again, account), of(SERVER | again, server)];
    // Short ones, which a mutation is more likely to leave valid up to its end.
    seeds.extend((1..account.len()).map(|length| of(again, &account[..length])));
    seeds.extend((1..server.len()).map(|length| of(SERVER | again, &server[..length])));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_seeds_are_whole_chains() {
        let account = world::account_links();
        let server = world::server_links();
        assert_eq!(Verified::<AccountState>::verify(account).map(|chain| chain.len()), Ok(8));
        assert_eq!(Verified::<ServerState>::verify(server).map(|chain| chain.len()), Ok(4));
    }
}
