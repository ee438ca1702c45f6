//! What is owed to a peer: read, settled, begun anew, closed (09-federation, 9.6).

use std::collections::BTreeMap;

use tidings_federation::host::{OutboxEntry, OutboxState, PeerKey};
use tidings_proto::error::Code;
use tidings_proto::id::Hash;
use tidings_proto::pb;

use crate::messages::{VOID, entry, notice, watermark};
use crate::node::Shared;
use crate::refusal::Refusal;
use crate::state::{HashAt, Log, LogOf, Need, New, Peer, Transaction, lane_of, shipped, transfer_of};
use crate::store::{EntryRow, LaneKey, PeerId};

/// Entries copied in one decision when an outbox begins anew.
const PAGE: u64 = 500;

pub(super) fn state_of(peer: &Peer) -> OutboxState {
    OutboxState {
        incarnation: peer.incarnation(),
        last: peer.outbox.last(),
        done: peer.done,
        done_hash: peer.done_hash,
        oldest_ms: peer.oldest_ms(),
    }
}

impl Shared {
    /// Gives numbers to what waits outside the outbox; gives the highest number.
    pub(super) async fn fill(&self, peer: PeerId, max: usize) -> Result<u64, Refusal> {
        let (last, waits) = self.state.look(|world| {
            world.peer(peer).map_or((0, false), |peer| (peer.outbox.last(), !peer.owed.is_empty()))
        });
        if !waits {
            return Ok(last);
        }
        let now_ms = self.now_ms();
        let (commit, last) = {
            let mut transaction = self.state.begin(&[]).await?;
            let last = transaction.change_peer(peer, |held, writes, batch| {
                for _ in 0..max {
                    let Some((key, entry)) = held.owed.pop_first() else { break };
                    writes.owed.insert((held.id, key), None);
                    held.outbox.append(New { entry, aux: now_ms, ..New::default() }, batch, writes);
                }
                held.outbox.last()
            });
            (transaction.commit().0, last.unwrap_or(0))
        };
        commit.durable().await?;
        Ok(last)
    }

    /// Durable entries after a number.
    pub(super) async fn outbox_entries(
        &self,
        peer: PeerId,
        after: u64,
        (most, bytes): (usize, usize),
    ) -> Result<Vec<OutboxEntry>, Refusal> {
        let ends = self.state.look(|world| world.peer(peer).map(|peer| peer.outbox.row().clone()));
        let Some(ends) = ends else { return Ok(Vec::new()) };
        let from = after.saturating_add(1);
        let mut out = Vec::new();
        if from < ends.first {
            let to = ends.first.saturating_sub(1);
            let reason = pb::VoidReason::Lapsed.into();
            let void = pb::Void { from, to, reason, hash: ends.before.to_bytes() };
            out.push(OutboxEntry { n: from, to, entry: entry(VOID, &void), hash: ends.before });
        }
        let now_ms = self.now_ms();
        let mut rows = self.state.read(LogOf::Peer(peer), from.max(ends.first), most).await?;
        let over =
            |row: &EntryRow| row.content.is_some() && row.expires_at_ms > 0 && row.expires_at_ms <= now_ms;
        let expired: Vec<u64> = rows.iter().filter(|row| over(row)).map(|row| row.n).collect();
        if !expired.is_empty() {
            for n in expired {
                let why = (Code::EXPIRED.into(), pb::VoidReason::Expired);
                self.drop_shipped(peer, n, why, now_ms).await?;
            }
            rows = self.state.read(LogOf::Peer(peer), from.max(ends.first), most).await?;
        }
        let mut size = 0_usize;
        for (n, to, entry, hash) in shipped(&rows) {
            size = size.saturating_add(entry.len());
            if !out.is_empty() && size > bytes {
                break;
            }
            out.push(OutboxEntry { n, to, entry, hash });
        }
        Ok(out)
    }

    /// Final results up to a number: watermarks and notices for the senders.
    pub(super) async fn settle(
        &self,
        peer: PeerId,
        upto: u64,
        refusals: Vec<(u64, Refusal)>,
    ) -> Result<(), Refusal> {
        let alone = self.state.outbox(peer).await;
        let found = self
            .state
            .look(|world| world.peer(peer).map(|held| (held.done, held.outbox.last(), held.outbox.first())));
        let Some((done, last, first)) = found else { return Ok(()) };
        let upto = upto.min(last);
        let hash = if upto > done { self.state.hash(LogOf::Peer(peer), upto).await? } else { None };
        let from = done.saturating_add(1);
        let mut rows =
            if upto > done { self.state.rows(&[], LogOf::Peer(peer), from, upto).await? } else { Vec::new() };
        for (n, _) in refusals.iter().filter(|(n, _)| *n <= done && *n >= first) {
            rows.extend(self.state.rows(&[], LogOf::Peer(peer), *n, *n).await?);
        }
        let refusals: BTreeMap<u64, Refusal> = refusals.into_iter().collect();
        let mut needs = Vec::new();
        for (key, _) in rows.iter().filter_map(|row| row.content.as_ref().and_then(transfer_of)) {
            needs.extend([Need::Lane(key), Need::Account(key.0)]);
        }
        let now_ms = self.now_ms();
        let (commit, woken) = {
            let mut transaction = self.state.begin(&needs).await?;
            let mut reached: BTreeMap<LaneKey, (pb::LaneId, u64)> = BTreeMap::new();
            for row in &rows {
                self.settle_row(&mut transaction, (peer, row), (refusals.get(&row.n), now_ms), &mut reached);
            }
            for (key, (lane, upto)) in reached {
                let mark = pb::Watermark {
                    kind: pb::WatermarkKind::AcceptedByPeer.into(),
                    lane: Some(lane),
                    upto,
                    except: Vec::new(),
                    at_ms: now_ms,
                };
                for device in transaction.world().current_devices(&key.0) {
                    transaction.place(device, watermark(key, &mark));
                }
            }
            self.advance(&mut transaction, peer, (upto, hash), now_ms);
            transaction.commit()
        };
        commit.durable().await?;
        self.wake(&woken);
        let trimmed = self.trim_outbox(peer).await;
        drop(alone);
        trimmed
    }

    fn settle_row(
        &self,
        transaction: &mut Transaction<'_>,
        (peer, row): (PeerId, &EntryRow),
        (refusal, now_ms): (Option<&Refusal>, u64),
        reached: &mut BTreeMap<LaneKey, (pb::LaneId, u64)>,
    ) {
        let Some((key, number)) = row.content.as_ref().and_then(transfer_of) else {
            if let Some(refusal) = refusal {
                tracing::warn!(n = row.n, %refusal, "a peer refused an entry that is no message");
            }
            return;
        };
        let (mut first, mut fresh) = (false, false);
        transaction.change_peer(peer, |held, _, _| {
            first = row.n > held.done;
            if first {
                held.settled(key, number, Some(row.aux));
            }
            fresh = refusal.is_some() && held.refuse(row.n);
        });
        let Some(lane) = lane_of(row).filter(|_| number > 0) else { return };
        if let Some(refusal) = refusal.filter(|_| fresh) {
            let numbers = pb::Range { from: number, to: number };
            notice::closed(self, transaction, key, (&lane, numbers), (refusal, now_ms));
        }
        // A refusal that is repeated, or late, moves nothing.
        if first {
            reached.insert(key, (lane, number));
        }
    }

    fn advance(
        &self,
        transaction: &mut Transaction<'_>,
        peer: PeerId,
        (upto, hash): (u64, Option<Hash>),
        now_ms: u64,
    ) {
        let kept_ms = self.config.limits.outbox_kept_secs().saturating_mul(1000);
        transaction.change_peer(peer, |held, _, _| {
            if let Some(hash) = hash.filter(|_| upto > held.done) {
                held.done = upto;
                held.done_hash = hash;
            }
            held.trim_to = held.trim_to.max(held.mark(now_ms, kept_ms));
        });
    }

    /// Acknowledged entries that are older than they have to be kept go.
    async fn trim_outbox(&self, peer: PeerId) -> Result<(), Refusal> {
        let upto = self.state.look(|world| world.peer(peer).map_or(0, |held| held.trim_to));
        if upto == 0 {
            return Ok(());
        }
        let Some(hash) = self.state.hash(LogOf::Peer(peer), upto).await? else { return Ok(()) };
        let commit = {
            let mut transaction = self.state.begin(&[]).await?;
            transaction.change_peer(peer, |held, writes, _| {
                held.outbox.trim(upto, hash, writes);
                held.trim_to = 0;
            });
            transaction.commit().0
        };
        commit.durable().await
    }

    /// A new incarnation of the outbox with every entry that has no result, in order.
    pub(super) async fn restart_outbox(&self, peer: PeerId) -> Result<Option<OutboxState>, Refusal> {
        let _alone = self.state.outbox(peer).await;
        let Some(mut from) =
            self.state.look(|world| world.peer(peer).map(|held| held.done.saturating_add(1)))
        else {
            return Ok(None);
        };
        let mut fresh: Option<Log> = None;
        loop {
            let upto = from.saturating_add(PAGE).saturating_sub(1);
            let rows = self.state.rows(&[], LogOf::Peer(peer), from, upto).await?;
            let (commit, finished) = {
                let mut transaction = self.state.begin(&[]).await?;
                let mut log = match fresh.take() {
                    Some(log) => log,
                    None => Log::new(transaction.fresh_log(), self.fresh_incarnation()),
                };
                for row in rows.iter().filter(|row| row.content.is_some()) {
                    let new = New {
                        entry: row.content.clone().unwrap_or_default(),
                        expires_at_ms: row.expires_at_ms,
                        aux: row.aux,
                        ..New::default()
                    };
                    let (writes, batch) = transaction.writes_and_batch();
                    log.append(new, batch, writes);
                }
                from = rows.last().map_or(from, |row| row.n.saturating_add(1));
                let last = transaction.world().peer(peer).map_or(0, |held| held.outbox.last());
                let finished = from > last;
                if finished {
                    transaction.swap_outbox(peer, log);
                    transaction.change_peer(peer, |held, _, _| {
                        held.done = 0;
                        held.done_hash = Hash::ZERO;
                        held.marks.clear();
                        held.refused.clear();
                        held.trim_to = 0;
                    });
                } else {
                    let (writes, _) = transaction.writes_and_batch();
                    writes.logs.insert(log.id(), Some(log.row().clone()));
                    fresh = Some(log);
                }
                (transaction.commit().0, finished)
            };
            commit.durable().await?;
            if finished {
                return Ok(self.state.look(|world| world.peer(peer).map(state_of)));
            }
            if let Some(log) = &mut fresh {
                log.forget(u64::MAX, false);
            }
        }
    }

    /// Begins every outbox anew: this home lost state (09-federation, DUR-013). Gives how many there are.
    ///
    /// # Errors
    /// `unavailable`.
    pub(crate) async fn renew_outboxes(&self) -> Result<usize, Refusal> {
        let peers: Vec<PeerId> = self.state.look(|world| world.peers().map(|peer| peer.id).collect());
        for peer in &peers {
            self.restart_outbox(*peer).await?;
        }
        Ok(peers.len())
    }

    /// Everything without a result is void; each sender is told once per lane and range.
    pub(super) async fn close_outbox(&self, peer: PeerId, code: Code) -> Result<(), Refusal> {
        let _alone = self.state.outbox(peer).await;
        let mut from =
            self.state.look(|world| world.peer(peer).map_or(0, |held| held.done.saturating_add(1)));
        let mut open: BTreeMap<LaneKey, Vec<(pb::LaneId, pb::Range)>> = BTreeMap::new();
        let (now_ms, reason) = (self.now_ms(), Refusal::from(code));
        loop {
            let upto = from.saturating_add(PAGE).saturating_sub(1);
            for row in self.state.rows(&[], LogOf::Peer(peer), from, upto).await? {
                from = row.n.saturating_add(1);
                collect(&mut open, &row);
            }
            let needs: Vec<Need> =
                open.keys().flat_map(|key| [Need::Lane(*key), Need::Account(key.0)]).collect();
            let (commit, woken) = {
                let mut transaction = self.state.begin(&needs).await?;
                if transaction.world().peer(peer).is_some_and(|held| held.outbox.last() >= from) {
                    continue;
                }
                transaction.change_peer(peer, |held, writes, _| {
                    held.outbox.lapse(writes);
                    held.outbox.revive();
                    held.done = held.outbox.last();
                    held.done_hash = held.outbox.row().hash;
                    for key in std::mem::take(&mut held.owed).into_keys() {
                        writes.owed.insert((held.id, key), None);
                    }
                    held.shares.clear();
                    held.waiting.clear();
                });
                for (key, ranges) in open {
                    for (lane, numbers) in ranges {
                        notice::closed(self, &mut transaction, key, (&lane, numbers), (&reason, now_ms));
                    }
                }
                transaction.commit()
            };
            commit.durable().await?;
            self.wake(&woken);
            return Ok(());
        }
    }

    /// The record that a key names.
    pub(super) fn peer_id(&self, key: &PeerKey) -> Option<PeerId> {
        self.state.look(|world| {
            let found = world.peers().find(|peer| match key.genesis {
                Some(genesis) => peer.record.genesis == Some(genesis),
                None => peer.record.genesis.is_none() && peer.record.domain == key.domain,
            });
            found.map(|peer| peer.id)
        })
    }

    /// The running hash of an outbox.
    pub(super) async fn outbox_hash_at(&self, peer: PeerId, n: u64) -> Result<Option<Hash>, Refusal> {
        let known = self.state.look(|world| world.peer(peer).map(|held| held.outbox.hash(n)));
        match known {
            None | Some(HashAt::Never) => Ok(None),
            Some(HashAt::Known(hash)) => Ok(Some(hash)),
            Some(HashAt::Stored) => self.state.hash(LogOf::Peer(peer), n).await,
        }
    }
}

/// Adds the number of a transfer to its lane's ranges.
fn collect(open: &mut BTreeMap<LaneKey, Vec<(pb::LaneId, pb::Range)>>, row: &EntryRow) {
    let Some((key, number)) = row.content.as_ref().and_then(transfer_of).filter(|(_, number)| *number > 0)
    else {
        return;
    };
    let Some(lane) = lane_of(row) else { return };
    let ranges = open.entry(key).or_default();
    match ranges.last_mut() {
        Some((last, range)) if *last == lane && range.to.saturating_add(1) == number => range.to = number,
        _ => ranges.push((lane, pb::Range { from: number, to: number })),
    }
}
