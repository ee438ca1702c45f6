//! The host of the links: everything they keep is in the store, everything they ask is answered from it.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tidings_federation::host::{
    Adopted, Answer, Host, InboxState, Incoming, OutboxEntry, OutboxState, OwnIdentity, PeerKey, PeerRecord,
    PeerStatus, Stored, StoredPeer, Taken, Told, Unavailable,
};
use tidings_federation::peer::PeerState;
use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::RawFrame;
use tidings_proto::id::{AccountId, Hash, Incarnation, ServerId};
use tidings_proto::log::Position;
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::outbox::state_of;
use crate::node::Shared;
use crate::refusal::Because as _;
use crate::state::Peer;
use crate::store::PeerId;

/// The server as the links see it. Weak: the server owns the links.
pub(super) struct PeerHost(Weak<Shared>);

impl PeerHost {
    pub(super) const fn new(shared: Weak<Shared>) -> Self {
        Self(shared)
    }

    fn shared(&self) -> Result<Arc<Shared>, Unavailable> {
        self.0.upgrade().ok_or_else(|| Unavailable("the server stops".to_owned()))
    }

    fn peer(&self, genesis: &ServerId) -> Result<(Arc<Shared>, PeerId), Unavailable> {
        let shared = self.shared()?;
        let found = shared.state.look(|world| {
            world.peers().find(|peer| peer.record.genesis.as_ref() == Some(genesis)).map(|peer| peer.id)
        });
        let id = found.ok_or_else(|| Unavailable("no record of that peer".to_owned()))?;
        Ok((shared, id))
    }
}

fn unavailable(refusal: Refusal) -> Unavailable {
    Unavailable(refusal.to_string())
}

fn own_identity(shared: &Shared) -> OwnIdentity {
    OwnIdentity {
        chain: shared.identity.chain.clone(),
        links: shared.identity.links.clone(),
        key: shared.identity.key.clone(),
        boot_id: shared.boot_id,
        capabilities: crate::gateway::CAPABILITIES.to_vec(),
        limits: shared.config.limits.advertised(),
        software: crate::gateway::SOFTWARE.to_owned(),
    }
}

impl Host for PeerHost {
    fn identity(&self) -> OwnIdentity {
        let shared = self.0.upgrade().expect("links are stopped before the server is gone");
        own_identity(&shared)
    }

    fn adopt<'a>(&'a self, links: Vec<pb::Link>, head: Bytes) -> Stored<'a, Adopted> {
        Box::pin(async move {
            let told = Refusal::from(Code::WRONG_SERVER).with_head(head).with_links(links);
            self.shared()?.adopt(&told).await.map_err(|error| Unavailable(error.to_string()))
        })
    }

    fn now_ms(&self) -> u64 {
        self.0.upgrade().map_or(0, |shared| shared.now_ms())
    }

    fn random(&self) -> [u8; 32] {
        crate::node::random()
    }

    fn peers(&self) -> Stored<'_, Vec<StoredPeer>> {
        Box::pin(async move {
            let stored =
                |peer: &Peer| StoredPeer { record: peer.record.clone(), oldest_ms: peer.oldest_ms() };
            Ok(self.shared()?.state.look(|world| world.peers().map(stored).collect()))
        })
    }

    fn put_peer(&self, record: PeerRecord) -> Stored<'_, ()> {
        Box::pin(async move {
            let shared = self.shared()?;
            let now_ms = shared.now_ms();
            let commit = {
                let mut transaction = shared.state.begin(&[]).await.map_err(unavailable)?;
                let known = transaction
                    .world()
                    .peers()
                    .find(|peer| record.genesis.is_some() && peer.record.genesis == record.genesis)
                    .map(|peer| peer.id);
                let open = transaction.world().peer_of(&record.domain);
                let open = open.filter(|peer| peer.record.genesis.is_none()).map(|peer| peer.id);
                let id = known.or(open);
                let id = match id {
                    Some(id) => id,
                    None => transaction.add_peer(&record.domain, shared.fresh_incarnation(), now_ms),
                };
                transaction.change_peer(id, |peer, _, _| {
                    peer.incarnations = crate::state::incarnations(&record.links);
                    peer.record = record;
                });
                transaction.commit().0
            };
            commit.durable().await.map_err(unavailable)
        })
    }

    fn outbox<'a>(&'a self, peer: &'a ServerId) -> Stored<'a, OutboxState> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            let state = shared.state.look(|world| world.peer(id).map(state_of));
            state.ok_or_else(|| Unavailable("no record of that peer".to_owned()))
        })
    }

    fn outbox_fill<'a>(&'a self, peer: &'a ServerId, max: usize) -> Stored<'a, u64> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            shared.fill(id, max).await.map_err(unavailable)
        })
    }

    fn outbox_read<'a>(
        &'a self,
        peer: &'a ServerId,
        after: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Stored<'a, Vec<OutboxEntry>> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            shared.outbox_entries(id, after, (max_entries, max_bytes)).await.map_err(unavailable)
        })
    }

    fn outbox_hash<'a>(&'a self, peer: &'a ServerId, n: u64) -> Stored<'a, Option<Hash>> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            shared.outbox_hash_at(id, n).await.map_err(unavailable)
        })
    }

    fn outbox_settle<'a>(
        &'a self,
        peer: &'a ServerId,
        upto: u64,
        refusals: Vec<(u64, Refusal)>,
    ) -> Stored<'a, ()> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            shared.settle(id, upto, refusals).await.map_err(unavailable)
        })
    }

    fn outbox_replace<'a>(&'a self, peer: &'a ServerId, n: u64, reason: Refusal) -> Stored<'a, OutboxEntry> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            let void = (reason, pb::VoidReason::Withdrawn);
            shared.drop_shipped(id, n, void, shared.now_ms()).await.map_err(unavailable)?;
            let entries = shared.outbox_entries(id, n.saturating_sub(1), (1, usize::MAX)).await;
            let mut entries = entries.map_err(unavailable)?;
            entries.pop().ok_or_else(|| Unavailable("the entry is not in the outbox".to_owned()))
        })
    }

    fn outbox_restart<'a>(&'a self, peer: &'a ServerId, _told: Told) -> Stored<'a, OutboxState> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            let state = shared.restart_outbox(id).await.map_err(unavailable)?;
            state.ok_or_else(|| Unavailable("no record of that peer".to_owned()))
        })
    }

    fn outbox_close<'a>(&'a self, peer: &'a PeerKey, code: Code) -> Stored<'a, ()> {
        Box::pin(async move {
            let shared = self.shared()?;
            match shared.peer_id(peer) {
                Some(id) => shared.close_outbox(id, code).await.map_err(unavailable),
                None => Ok(()),
            }
        })
    }

    fn inbox<'a>(&'a self, peer: &'a ServerId) -> Stored<'a, InboxState> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            let decoded = |failure: &Bytes| {
                let failure = <pb::Failure as prost::Message>::decode(failure.clone()).unwrap_or_default();
                Refusal::from_pb(&failure)
            };
            let state = shared.state.look(|world| {
                world.peer(id).map(|peer| InboxState {
                    taken: peer.taken,
                    unseen: peer.unseen.iter().map(|(n, failure)| (*n, decoded(failure))).collect(),
                })
            });
            Ok(state.unwrap_or_default())
        })
    }

    fn take<'a>(&'a self, peer: &'a ServerId, domain: &'a Domain, batch: Vec<Incoming>) -> Stored<'a, Taken> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            shared.take_entries((id, domain), batch).await.map_err(unavailable)
        })
    }

    fn inbox_restart<'a>(&'a self, peer: &'a ServerId, incarnation: Incarnation) -> Stored<'a, ()> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            let commit = {
                let mut transaction = shared.state.begin(&[]).await.map_err(unavailable)?;
                transaction.change_peer(id, |peer, writes, _| {
                    for n in std::mem::take(&mut peer.unseen).into_keys() {
                        writes.refusals.insert((peer.id, n), None);
                    }
                    peer.taken = Some(Position::start(incarnation));
                });
                transaction.commit().0
            };
            commit.durable().await.map_err(unavailable)
        })
    }

    fn results_seen<'a>(&'a self, peer: &'a ServerId, upto: u64) -> Stored<'a, ()> {
        Box::pin(async move {
            let (shared, id) = self.peer(peer)?;
            let commit = {
                let mut transaction = shared.state.begin(&[]).await.map_err(unavailable)?;
                transaction.change_peer(id, |peer, writes, _| {
                    let kept = peer.unseen.split_off(&upto.saturating_add(1));
                    for n in std::mem::replace(&mut peer.unseen, kept).into_keys() {
                        writes.refusals.insert((peer.id, n), None);
                    }
                });
                transaction.commit().0
            };
            commit.durable().await.map_err(unavailable)
        })
    }

    fn resolve<'a>(
        &'a self,
        asking: &'a Domain,
        request: pb::Resolve,
    ) -> Answer<'a, Result<pb::Resolved, Refusal>> {
        Box::pin(async move {
            let shared = self.shared().map_err(|_| Code::UNAVAILABLE.because("the server stops"))?;
            shared.resolve_here(request, Some(asking)).await
        })
    }

    fn fetch_bundles<'a>(
        &'a self,
        asking: &'a Domain,
        request: pb::FetchBundles,
    ) -> Answer<'a, Result<pb::Bundles, Refusal>> {
        Box::pin(async move {
            let shared = self.shared().map_err(|_| Code::UNAVAILABLE.because("the server stops"))?;
            let asker =
                AccountId::try_from(&request.asker).map_err(|_| Code::MESSAGE_MALFORMED.because("asker"))?;
            shared.fetch_here((Some(asking), asker), request).await
        })
    }

    fn group<'a>(&'a self, asking: &'a Domain, request: Frame) -> Answer<'a, Result<RawFrame, Refusal>> {
        Box::pin(async move {
            let shared = self.shared().map_err(|_| Code::UNAVAILABLE.because("the server stops"))?;
            shared.answer_home(asking, request).await
        })
    }

    fn peer_changed(&self, status: &PeerStatus) {
        let Some(shared) = self.0.upgrade() else { return };
        if status.state == PeerState::Up {
            shared.home_is_back(&status.domain);
        } else {
            shared.home_is_away(&status.domain);
        }
    }
}
