//! Carries out what a link asks of the store. An order that the store cannot do now is tried until it can: the
//! link waits for its answer, and nothing on the wire claims it before.

use std::sync::Arc;

use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::{Hash, ServerId};
use tidings_proto::name::Domain;

use super::{STORE_RETRY, Shared};
use crate::host::{NotNow, OutboxEntry, OutboxState, Taken};
use crate::link::{Link, Order, Token};

/// The answer to an order.
#[derive(Debug)]
pub(super) enum Answered {
    Filled(Token, u64),
    Read(Token, Vec<OutboxEntry>),
    Checked(Token, Option<Hash>),
    Replaced(Token, OutboxEntry),
    Restarted(Token, OutboxState),
    Taken(Token, Taken),
    Persisted(Token),
    /// The server stops; the order is left open.
    Stopped,
}

impl Answered {
    pub(super) fn give(self, link: &mut Link, now_ms: u64) {
        match self {
            Self::Filled(token, last) => link.filled(token, last),
            Self::Read(token, entries) => link.read(token, entries),
            Self::Checked(token, hash) => link.checked(token, hash),
            Self::Replaced(token, entry) => link.replaced(token, entry),
            Self::Restarted(token, outbox) => link.restarted(token, outbox),
            Self::Taken(token, taken) => link.taken(token, taken, now_ms),
            Self::Persisted(token) => link.persisted(token),
            Self::Stopped => {}
        }
    }
}

/// Carries out one order for one peer.
pub(super) async fn execute(shared: Arc<Shared>, domain: Domain, peer: ServerId, order: Order) -> Answered {
    let (shared, peer) = (&*shared, &peer);
    let done = match order {
        Order::Fill { token, max } => {
            shared.stored(|host| host.outbox_fill(peer, max)).await.map(|last| Answered::Filled(token, last))
        }
        Order::Read { token, after, max_entries, max_bytes } => shared
            .stored(|host| host.outbox_read(peer, after, max_entries, max_bytes))
            .await
            .map(|entries| Answered::Read(token, entries)),
        Order::Check { token, n } => {
            shared.stored(|host| host.outbox_hash(peer, n)).await.map(|hash| Answered::Checked(token, hash))
        }
        Order::Settle { token, upto, refusals } => shared
            .stored(|host| host.outbox_settle(peer, upto, refusals.clone()))
            .await
            .map(|()| Answered::Persisted(token)),
        Order::Replace { token, n, reason } => {
            tracing::warn!(%domain, n, %reason, "an entry cannot be shipped and is closed");
            shared
                .stored(|host| host.outbox_replace(peer, n, reason.clone()))
                .await
                .map(|entry| Answered::Replaced(token, entry))
        }
        Order::Restart { token, told, conflict } => {
            if conflict {
                tracing::error!(
                    %domain,
                    "the peer names a position that this home's outbox never had: one of the two was restored"
                );
                shared.host.position_conflict(&domain);
            }
            tracing::info!(%domain, "the outbox begins a new incarnation: it cannot go on where the peer is");
            shared
                .stored(|host| host.outbox_restart(peer, told.clone()))
                .await
                .map(|outbox| Answered::Restarted(token, outbox))
        }
        Order::Take { token, batch } => {
            Some(Answered::Taken(token, take(shared, &domain, peer, batch).await))
        }
        Order::Reset { token, incarnation } => {
            tracing::info!(%domain, "the peer's outbox begins a new incarnation");
            shared
                .stored(|host| host.inbox_restart(peer, incarnation))
                .await
                .map(|()| Answered::Persisted(token))
        }
        Order::Seen { token, upto } => {
            shared.stored(|host| host.results_seen(peer, upto)).await.map(|()| Answered::Persisted(token))
        }
        Order::Close(_) => None,
    };
    done.unwrap_or(Answered::Stopped)
}

/// Taking is not tried again here: the peer is told to pause, and keeps what it has.
async fn take(shared: &Shared, domain: &Domain, peer: &ServerId, batch: Vec<crate::host::Incoming>) -> Taken {
    match shared.host.take(peer, domain, batch).await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::warn!(%domain, %error, "entries cannot be taken now; the peer is told to wait");
            let reason = Refusal::new(Code::UNAVAILABLE, "store");
            Taken { verdicts: Vec::new(), not_now: Some(NotNow { wait: STORE_RETRY, reason }) }
        }
    }
}
