//! Senders are told when a message waits for a peer that cannot be reached (06-messages, MSG-032).
//!
//! A peer that answers nothing for that long cannot be reached, whether or not its connection is known to be dead.

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::pb;

use crate::messages::{NOTICE, lasting, notice};
use crate::node::Shared;
use crate::refusal::{Code, Refusal};
use crate::state::Need;
use crate::store::{LaneKey, PeerId};

/// Lanes told in one decision.
const BATCH: usize = 200;

/// Looks at what waits in outboxes, again and again.
pub(crate) async fn watch_pending(shared: Arc<Shared>) {
    let every = Duration::from_millis(shared.config.limits.pending_after_ms().clamp(1000, 60_000));
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        if let Err(refusal) = shared.tell_pending(shared.now_ms()).await {
            tracing::warn!(%refusal, "senders could not be told that messages wait");
        }
    }
}

impl Shared {
    async fn tell_pending(&self, now_ms: u64) -> Result<(), Refusal> {
        let after = self.config.limits.pending_after_ms();
        loop {
            let waiting: Vec<(PeerId, LaneKey)> = self.state.look(|world| {
                world
                    .peers()
                    .flat_map(|peer| {
                        peer.waiting.iter().map(move |(lane, waiting)| (peer.id, *lane, *waiting))
                    })
                    .filter(|(_, _, waiting)| {
                        !waiting.told && waiting.since_ms.saturating_add(after) <= now_ms
                    })
                    .map(|(peer, lane, _)| (peer, lane))
                    .take(BATCH)
                    .collect()
            });
            if waiting.is_empty() {
                return Ok(());
            }
            let needs: Vec<Need> =
                waiting.iter().flat_map(|(_, key)| [Need::Lane(*key), Need::Account(key.0)]).collect();
            let (commit, woken) = {
                let mut transaction = self.state.begin(&needs).await?;
                for (peer, key) in waiting {
                    self.tell_one(&mut transaction, peer, key, now_ms);
                }
                transaction.commit()
            };
            commit.durable().await?;
            self.wake(&woken);
        }
    }

    fn tell_one(
        &self,
        transaction: &mut crate::state::Transaction<'_>,
        peer: PeerId,
        key: LaneKey,
        now_ms: u64,
    ) {
        let waiting = transaction.change_peer(peer, |peer, _, _| {
            peer.waiting.get_mut(&key).map(|waiting| {
                waiting.told = true;
                *waiting
            })
        });
        let Some(waiting) = waiting.flatten() else { return };
        let world = transaction.world();
        let Some(lane) = world.lane(&key) else { return };
        let id = pb::LaneId {
            sender: key.0.to_bytes(),
            recipient: key.1.to_bytes(),
            address_links: lane.given_epoch.0,
            incarnation: lane.given_epoch.1.clone(),
        };
        let notice = pb::Notice {
            lane: Some(id),
            numbers: Some(pb::Range { from: waiting.from, to: lane.given.max(waiting.from) }),
            what: Some(pb::notice::What::Pending(pb::Pending {
                since_ms: waiting.since_ms,
                reason: Some(Refusal::from(Code::PEER_UNREACHABLE).to_pb()),
            })),
            at_ms: now_ms,
        };
        notice::tell(self, transaction, key, &lasting(NOTICE, &notice), now_ms);
    }
}
