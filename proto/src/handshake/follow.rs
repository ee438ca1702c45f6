//! The other side's server chain, followed: what is held from now on, or what the other side has lost (chapter 04,
//! 4.3).

use prost::Message as _;

use crate::chain::{Relation, ServerState, Verified, relation};
use crate::error::{Code, Refusal};
use crate::pb;

/// Encoded bytes of links that a refusal hands over: it fits a control stream of the smallest permitted frames.
pub const HANDED_BYTES_MAX: usize = 15 * 1024;

/// A chain as held, extended by links that came; or, where those begin with a genesis, what they say if it extends
/// the chain held.
///
/// `held_links` are the links of the chain held, genesis first. Where the other side showed its whole chain and
/// lacks some of them, the refusal hands those over.
pub(super) fn follow(
    held: Option<Verified<ServerState>>,
    held_links: &[pb::Link],
    links: &[pb::Link],
) -> Result<Verified<ServerState>, Refusal> {
    let invalid = |error: crate::chain::ChainError| {
        Refusal::new(Code::WRONG_SERVER, format!("{error}: {}", error.source))
    };
    let Some(mut held) = held else {
        return Verified::verify(links).map_err(invalid);
    };
    if links.is_empty() {
        return Ok(held);
    }
    let Ok(whole) = Verified::verify(links) else {
        held.extend(links).map_err(invalid)?;
        return Ok(held);
    };
    match relation(&whole, &held) {
        Relation::Same | Relation::Extends => Ok(whole),
        Relation::Extended => Err(lacking(&held, held_links, &whole, "chain lacks links that are held here")),
        Relation::Fork => Err(lacking(&held, held_links, &whole, "chain does not extend the one held")),
        Relation::OtherChain => Err(Refusal::new(Code::WRONG_SERVER, "another chain than the one held")),
    }
}

/// The refusal with the links behind the last one that both have, as many as fit.
fn lacking(
    held: &Verified<ServerState>,
    held_links: &[pb::Link],
    shown: &Verified<ServerState>,
    detail: &str,
) -> Refusal {
    let refusal = Refusal::new(Code::WRONG_SERVER, detail);
    if held_links.len() != held.ids().len() {
        return refusal;
    }
    let common = held.ids().iter().zip(shown.ids()).take_while(|(ours, theirs)| ours == theirs).count();
    let mut bytes = 0_usize;
    let fits = |link: &&pb::Link| {
        bytes = bytes.saturating_add(link.encoded_len());
        bytes <= HANDED_BYTES_MAX
    };
    let links = held_links.iter().skip(common).take_while(fits).cloned().collect();
    refusal.with_head(held.head().to_bytes()).with_links(links)
}
