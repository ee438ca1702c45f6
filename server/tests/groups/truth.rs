//! What was ever stable, and the rules that it has to keep (chapter 07, the invariants in its words).

use std::collections::BTreeMap;

use prost::Message as _;
use tidings_proto::chain::group::{Chains, GroupState};
use tidings_proto::group_log::GroupEntry;
use tidings_proto::id::{AccountId, Hash};
use tidings_proto::pb;
use tidings_server::groups::replica::effect::Row;
use tidings_server::groups::replica::slot_position;

use crate::people::read;

/// The history below `stable`, as all honest readers have it.
pub struct Truth {
    pub log: BTreeMap<u64, Hash>,
    pub state: Option<GroupState>,
    last: u64,
    /// The last message of each account that is in it.
    pub newest: BTreeMap<AccountId, u64>,
    pub messages: u64,
}

impl Truth {
    pub fn new() -> Self {
        Self { log: BTreeMap::new(), state: None, last: 0, newest: BTreeMap::new(), messages: 0 }
    }

    pub const fn last(&self) -> u64 {
        self.last
    }

    pub fn newest(&self, account: &AccountId) -> u64 {
        self.newest.get(account).copied().unwrap_or_default()
    }

    /// A reader holds this row at or below its stable mark.
    pub fn read(&mut self, who: &str, row: &Row, chains: &Chains) -> Result<(), String> {
        let place = slot_position(&row.slot).ok_or("a slot without a place")?;
        let hash = Hash::try_from(&place.hash).map_err(|error| error.to_string())?;
        match self.log.get(&row.seq) {
            Some(known) if *known == hash => Ok(()),
            Some(_) => Err(format!("one entry per number: {who} has another one at {}", row.seq)),
            None if row.seq != self.last + 1 => {
                Err(format!("{who}: {} is stable before {}", row.seq, self.last + 1))
            }
            None => {
                self.log.insert(row.seq, hash);
                self.last = row.seq;
                self.judge(row, chains)
            }
        }
    }

    fn judge(&mut self, row: &Row, chains: &Chains) -> Result<(), String> {
        let record = pb::GroupRecord::decode(row.record.clone()).map_err(|error| error.to_string())?;
        let entry = GroupEntry::parse(&record.entry).map_err(|error| error.to_string())?;
        if let Some(link) = entry.link() {
            let next = match &self.state {
                None => GroupState::genesis(link, chains),
                Some(state) => state.apply(link, chains),
            };
            self.state = Some(next.map_err(|error| format!("a link that does not follow: {error:?}"))?);
            return Ok(());
        }
        let (Some(post), Some(state)) = (entry.post(), &self.state) else {
            return Err("an entry that is neither".into());
        };
        self.messages += 1;
        let (account, id) = read(post);
        if state.full_member(&account).is_none() {
            return Err("no post by a removed member's device stands after its removal".into());
        }
        if post.chain_number < state.rotated() {
            return Err("nothing encrypted under a head older than the last rotation stands after it".into());
        }
        let newest = self.newest.entry(account).or_default();
        if id != *newest + 1 {
            return Err(format!("each message once, none lost, in its device's order: {id} after {newest}"));
        }
        *newest = id;
        Ok(())
    }
}
