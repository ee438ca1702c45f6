//! What nobody took in time is closed, and its sender told once.

use std::collections::BTreeMap;

use tidings_proto::pb;

use super::{LANE_CLOSE, lasting, notice, receipt};
use crate::node::Shared;
use crate::refusal::{Code, Refusal};
use crate::state::{LogOf, Need, lane_of, transfer_of};
use crate::store::{Commit, LaneKey, OpenKind, OpenRow, PeerId};

/// Rows looked at in one step.
const BATCH: usize = 500;

impl Shared {
    /// Closes numbers and drops contents whose lifetime is over at `now_ms`.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn expire(&self, now_ms: u64) -> Result<(), Refusal> {
        loop {
            let open = self.state.store().expired_open(now_ms, BATCH).await;
            let open = open.map_err(|error| crate::state::unreadable(&error))?;
            if open.is_empty() {
                break;
            }
            let mut lanes: BTreeMap<LaneKey, Vec<OpenRow>> = BTreeMap::new();
            for row in open {
                lanes.entry(row.lane).or_default().push(row);
            }
            for (key, rows) in lanes {
                self.close_expired(key, &rows, now_ms).await?;
            }
        }
        loop {
            let entries = self.state.store().expired_entries(now_ms, BATCH).await;
            let entries = entries.map_err(|error| crate::state::unreadable(&error))?;
            if entries.is_empty() {
                return Ok(());
            }
            let mut last = None;
            let mut known = false;
            for (log, n) in entries {
                match self.drop_expired(log, n, now_ms).await? {
                    Some(commit) => (last, known) = (Some(commit), true),
                    None => continue,
                }
            }
            if let Some(commit) = last {
                commit.durable().await?;
            }
            if !known {
                return Ok(());
            }
        }
    }

    async fn close_expired(&self, key: LaneKey, rows: &[OpenRow], now_ms: u64) -> Result<(), Refusal> {
        let needs = [Need::Lane(key), Need::Account(key.0), Need::Account(key.1)];
        let (commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            let lane = transaction.world().lane(&key);
            let id = lane.and_then(|lane| lane.id.clone());
            // Only what is still open, and over: since the rows were read a number may have been disposed of, a
            // range have grown, or the lane begun anew.
            let over = |row: &OpenRow| {
                let open = lane?.open.get(&row.number).filter(|open| open.expires_at_ms <= now_ms)?;
                Some((pb::Range { from: row.number, to: open.upto }, open.kind == OpenKind::Withheld))
            };
            let over: Vec<(pb::Range, bool)> = rows.iter().filter_map(over).collect();
            let freed = over.iter().any(|(_, withheld)| *withheld);
            let mut told: Vec<pb::Range> = Vec::new();
            for (range, _) in over {
                // One that a device holds was a request: it ends without a word.
                let held = transaction.change_lane(key, |lane, writes| {
                    let held = lane.open.get(&range.from).is_some_and(|open| open.acknowledged);
                    lane.dispose(key, range.from, writes);
                    held
                });
                match told.last_mut() {
                    _ if held => {}
                    Some(last) if last.to.checked_add(1) == Some(range.from) => last.to = range.to,
                    _ => told.push(range),
                }
            }
            let reason = Refusal::from(Code::EXPIRED);
            for (range, lane) in told.into_iter().zip(std::iter::repeat(id)) {
                if let Some(lane) = lane {
                    notice::closed(self, &mut transaction, key, (&lane, range), (&reason, now_ms));
                }
            }
            receipt::delivered(self, &mut transaction, key, now_ms);
            if freed {
                receipt::read_on(self, &mut transaction, key, now_ms);
            }
            transaction.commit()
        };
        commit.durable().await?;
        self.wake(&woken);
        Ok(())
    }

    /// The content of an entry goes. In an outbox its lane number is closed at the peer too.
    /// `None`: the log is nobody's, or not yet.
    async fn drop_expired(&self, log: i64, n: u64, now_ms: u64) -> Result<Option<Commit>, Refusal> {
        let reader = self.state.store().reader_of(log).await;
        if let Some((account, device)) = reader.map_err(|error| crate::state::unreadable(&error))? {
            let (commit, _) = {
                let mut transaction = self.state.begin(&[Need::Account(account)]).await?;
                transaction.change_mailbox(&device, |mailbox, writes| {
                    mailbox.void(n, pb::VoidReason::Expired, writes);
                });
                transaction.commit()
            };
            return Ok(Some(commit));
        }
        let peer =
            self.state.look(|world| world.peers().find(|peer| peer.outbox.id() == log).map(|peer| peer.id));
        match peer {
            Some(peer) => {
                self.drop_shipped(peer, n, (Code::EXPIRED.into(), pb::VoidReason::Expired), now_ms).await?;
                Ok(Some(self.state.all_so_far()))
            }
            None => Ok(None),
        }
    }

    /// An entry of an outbox will not be shipped: Void in its place, its lane number closed at the peer and told
    /// to its sender.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn drop_shipped(
        &self,
        peer: PeerId,
        n: u64,
        (reason, void): (Refusal, pb::VoidReason),
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let _alone = self.state.outbox(peer).await;
        let rows = self.state.rows(&[], LogOf::Peer(peer), n, n).await?;
        let row = rows.first().filter(|row| row.content.is_some());
        let transfer = row.and_then(|row| row.content.as_ref()).and_then(transfer_of);
        let Some(row) = row else { return Ok(()) };
        let mut needs = Vec::new();
        if let Some((key, _)) = transfer {
            needs.extend([Need::Lane(key), Need::Account(key.0)]);
        }
        let (commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            let open = transaction.change_peer(peer, |peer, writes, _| {
                peer.outbox.void(n, void, writes);
                let open = n > peer.done;
                if let Some((key, number)) = transfer.filter(|_| open) {
                    peer.settled(key, number, None);
                }
                open
            });
            if open == Some(true)
                && let Some((key, number)) = transfer.filter(|(_, number)| *number > 0)
                && let Some(lane) = lane_of(row)
            {
                let numbers = pb::Range { from: number, to: number };
                let close = pb::LaneClose {
                    lane: Some(lane.clone()),
                    numbers: Some(numbers),
                    reason: Some(reason.to_pb()),
                };
                transaction.ship(peer, crate::state::New { aux: now_ms, ..lasting(LANE_CLOSE, &close) });
                notice::closed(self, &mut transaction, key, (&lane, numbers), (&reason, now_ms));
            }
            transaction.commit()
        };
        commit.durable().await?;
        self.wake(&woken);
        Ok(())
    }
}
