//! What a decision needs to have in memory, and how it gets there.

use std::collections::BTreeMap;

use prost::Message as _;
use tidings_proto::chain::{AccountState, Verified};
use tidings_proto::id::{AccountId, DeviceId, Hash};
use tidings_proto::pb;

use super::lane::{Lane, lane_key};
use super::log::Log;
use super::peer::Peer;
use super::world::{Account, Device, Slot, Stock, World};
use crate::store::{LaneKey, Store, StoreError};

/// Rows of an outbox looked at in one step at start.
const PAGE: usize = 1000;

/// Something that a decision looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// An account, with its devices and their mailboxes if it lives here.
    Account(AccountId),
    /// Whom an address names.
    Name(String),
    /// A lane.
    Lane(LaneKey),
    /// The prekeys of a device.
    Stock(DeviceId),
    /// An invitation, by its SHA-256.
    Token(Hash),
}

/// What was loaded for a need.
pub(super) enum Loaded {
    Account(AccountId, Option<Box<Account>>, Vec<Device>),
    Name(String, Option<AccountId>),
    Lane(LaneKey, Box<Lane>),
    Stock(DeviceId, Stock),
    Token(Hash, bool),
}

impl World {
    /// Needs that are not in memory.
    pub(super) fn missing(&self, needs: &[Need]) -> Vec<Need> {
        let there = |need: &Need| match need {
            Need::Account(id) => self.accounts.contains_key(id),
            Need::Name(address) => self.names.contains_key(address),
            Need::Lane(key) => self.lanes.contains_key(key),
            Need::Stock(device) => self.stocks.contains_key(device),
            Need::Token(digest) => self.tokens.contains_key(digest),
        };
        needs.iter().filter(|need| !there(need)).cloned().collect()
    }

    /// Puts what was loaded into its place, unless somebody else did meanwhile: theirs is as new or newer. Where
    /// something was let go of since the load began, it may have been this, changed by then: it is loaded again.
    pub(super) fn enter(&mut self, loaded: Loaded, generation: u64) {
        if generation != self.generation {
            return;
        }
        match loaded {
            Loaded::Account(id, account, devices) => {
                if let std::collections::hash_map::Entry::Vacant(place) = self.accounts.entry(id) {
                    place.insert(account.map(|account| *account));
                    for device in devices {
                        self.devices.entry(device.row.id).or_insert(device);
                    }
                }
            }
            Loaded::Name(address, account) => {
                self.names.entry(address).or_insert(Slot { value: account, batch: 0 });
            }
            Loaded::Lane(key, lane) => {
                self.lanes.entry(key).or_insert_with(|| Slot { value: *lane, batch: 0 });
            }
            Loaded::Stock(device, stock) => {
                self.stocks.entry(device).or_insert(stock);
            }
            Loaded::Token(digest, unused) => {
                self.tokens.entry(digest).or_insert(Slot { value: unused, batch: 0 });
            }
        }
    }
}

pub(super) async fn load(store: &dyn Store, need: Need) -> Result<Loaded, StoreError> {
    Ok(match need {
        Need::Account(id) => account(store, id).await?,
        Need::Name(address) => {
            let account = store.named(&address).await?;
            Loaded::Name(address, account)
        }
        Need::Lane(key) => {
            let (state, open) = store.lane(key).await?;
            Loaded::Lane(key, Box::new(Lane::stored(key, state, open)?))
        }
        Need::Stock(device) => Loaded::Stock(device, Stock::stored(store.prekeys(device).await?)),
        Need::Token(digest) => Loaded::Token(digest, store.token(digest).await?),
    })
}

async fn account(store: &dyn Store, id: AccountId) -> Result<Loaded, StoreError> {
    let Some((row, link_rows)) = store.account(id).await? else {
        return Ok(Loaded::Account(id, None, Vec::new()));
    };
    let broken =
        || StoreError::Inconsistent { table: "account_link", column: "link", row: hex::encode(id.0) };
    let mut links = Vec::with_capacity(link_rows.len());
    for link in &link_rows {
        links.push(pb::Link::decode(link.link.clone()).map_err(|_| broken())?);
    }
    let chain = Verified::<AccountState>::verify(&links).map_err(|_| broken())?;
    let skipped = link_rows.len().saturating_sub(64);
    let mut devices = Vec::new();
    if row.local {
        for row in store.devices(id).await? {
            let log = store.log(row.log).await?;
            let (log, keyed) = log.ok_or_else(|| StoreError::Inconsistent {
                table: "device",
                column: "log",
                row: hex::encode(row.id.0),
            })?;
            let mailbox = Log::stored(log, keyed);
            devices.push(Device { row, mailbox, outcomes: BTreeMap::new(), batch: 0 });
        }
    }
    let account = Account {
        local: row.local,
        chain,
        links,
        link_times: link_rows.iter().skip(skipped).map(|link| link.at_ms).collect(),
        requesters: if row.local { store.requesters(id).await? } else { Vec::new() },
        handed: store.handed(id).await?.into_iter().collect(),
        batch: 0,
    };
    Ok(Loaded::Account(id, Some(Box::new(account)), devices))
}

/// Logs that an interrupted change left behind go, with their entries.
pub(super) async fn drop_orphans(store: &dyn Store) -> Result<(), StoreError> {
    let logs: BTreeMap<_, _> = store.orphans().await?.into_iter().map(|log| (log, None)).collect();
    if logs.is_empty() {
        return Ok(());
    }
    store.commit(&crate::store::Writes { logs, ..crate::store::Writes::default() }).await
}

/// Peers are always in memory; what waits in their outboxes is counted anew.
pub(super) async fn peers(store: &dyn Store, world: &mut World) -> Result<(), StoreError> {
    world.last_log = store.last_log().await?;
    for row in store.peers().await? {
        let broken = || StoreError::Inconsistent { table: "peer", column: "log", row: row.id.to_string() };
        let (log, keyed) = store.log(row.log).await?.ok_or_else(broken)?;
        let refusals = store.refusals(row.id).await?.into_iter().map(|row| (row.n, row.failure)).collect();
        let owed =
            store.owed(row.id, usize::MAX).await?.into_iter().map(|row| (row.key, row.entry)).collect();
        let mut peer = Peer::stored(&row, Log::stored(log, keyed), refusals, owed)?;
        let mut from = peer.done.saturating_add(1);
        loop {
            let rows = store.entries(peer.outbox.id(), from, PAGE).await?;
            let Some(last) = rows.last() else { break };
            from = last.n.saturating_add(1);
            for row in &rows {
                if let Some((lane, number)) = row.content.as_ref().and_then(transfer_of) {
                    peer.wait(lane, number, row.aux);
                }
            }
        }
        world.last_peer = world.last_peer.max(row.id);
        world.peer_of.insert(row.domain.clone(), row.id);
        world.peers.insert(row.id, peer);
    }
    Ok(())
}

/// Lane and number of a transfer of class content in an outbox.
pub(crate) fn transfer_of(entry: &bytes::Bytes) -> Option<(LaneKey, u64)> {
    let entry = pb::Entry::decode(entry.clone()).ok()?;
    if entry.r#type != crate::messages::TRANSFER {
        return None;
    }
    let transfer = pb::Transfer::decode(entry.body).ok()?;
    Some((lane_key(transfer.lane.as_ref()?)?, if transfer.supplement { 0 } else { transfer.number }))
}

/// The lane of a transfer as its message names it.
pub(crate) fn lane_of(row: &crate::store::EntryRow) -> Option<pb::LaneId> {
    let entry = pb::Entry::decode(row.content.clone()?).ok()?;
    pb::Transfer::decode(entry.body).ok()?.lane
}
