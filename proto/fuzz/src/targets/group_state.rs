//! States of groups: what is taken has exactly the bytes it came as, and keeps its promises.

use tidings_proto::chain::group::{GroupLinkError, GroupState, Rank};
use tidings_proto::sign::sha256;

use super::outcome;
use crate::world;

pub(super) fn run(data: &[u8]) -> u64 {
    let hash = sha256(data);
    let result = GroupState::from_snapshot(data, &hash);
    assert_eq!(result, GroupState::from_trusted(data));
    let changed = [data, &[0]].concat();
    assert_eq!(GroupState::from_snapshot(&changed, &hash), Err(GroupLinkError::Snapshot));
    match result {
        Ok(state) => {
            assert_eq!(state.encode(), data, "a state has one encoding");
            assert_eq!(state.hash(), hash);
            let owned = state.members().any(|(_, member)| member.rank == Rank::Owner);
            let full = state.members().filter(|(_, member)| !member.invited).count();
            assert!(state.is_closed() == (full == 0) && (owned || full == 0));
            assert!((1..=7).contains(&state.keepers().len()) && state.majority() * 2 > state.keepers().len());
            // No link of another state follows it.
            for link in world::group_links() {
                let _follows_or_not = state.apply(link, world::group_chains());
            }
            outcome((state.members().len(), state.keepers().len(), state.features().len()))
        }
        Err(GroupLinkError::State(what)) => outcome(what),
        Err(error) => outcome(std::mem::discriminant(&error)),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let links = world::group_links();
    let state = |length: usize| GroupState::verify(&links[..length], world::group_chains()).expect("a chain");
    (1..=links.len()).map(|length| state(length).encode().to_vec()).collect()
}
