//! What leaves once a decision is durable: requests to other homes with what comes of them, and wake-ups.

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::codec::FrameMessage;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::id::{AccountId, GroupId};
use tidings_proto::name::Domain;
use tidings_proto::pb;

use super::chains::Named;
use super::decide::{note_due, row_of};
use super::held::Held;
use super::hubs::note_hub;
use super::lock;
use super::replica::effect::{Effect, Reply, Request, Row};
use crate::config::Limits;
use crate::node::Shared;
use crate::state::unreadable;
use crate::store::Commit;

impl Shared {
    /// Sees to the effects of a decision. The group's lock is held.
    pub(super) fn leave(self: &Arc<Self>, id: GroupId, held: &Held, commit: &Commit, effects: Vec<Effect>) {
        note_due(self, id, held);
        note_hub(self, id, held);
        if effects.is_empty() {
            return;
        }
        let (shared, commit) = (Arc::clone(self), commit.clone());
        let readers: Vec<AccountId> = held.readers.keys().copied().collect();
        self.groups.spawn(async move {
            if commit.durable().await.is_err() {
                return;
            }
            for effect in effects {
                shared.act(id, &readers, effect).await;
            }
        });
    }

    async fn act(self: &Arc<Self>, id: GroupId, readers: &[AccountId], effect: Effect) {
        match effect {
            Effect::Write(_) => {}
            Effect::Wake => self.groups.wake(id, readers),
            Effect::Send { ticket, to, request } => {
                let shared = Arc::clone(self);
                self.groups.spawn(async move { shared.carry(id, ticket, to, request).await });
            }
            Effect::Read { ticket, after } => {
                if let Err(refusal) = self.read_for(id, ticket, after).await {
                    tracing::debug!(group = ?id, %refusal, "records could not be read for another home");
                }
            }
            Effect::Resync { from } => {
                let shared = Arc::clone(self);
                self.groups.spawn(async move {
                    if let Err(refusal) = shared.resync_group(id, &from).await {
                        tracing::warn!(group = ?id, domain = %from, %refusal, "a group could not be fetched anew");
                    }
                });
            }
            Effect::Gone => {
                tracing::info!(group = ?id, "no member of a group is here any more");
            }
            Effect::Fork { .. } => {
                tracing::error!(
                    group = ?id,
                    "the hub of a group signed two histories: both signed heads are kept as proof"
                );
                self.groups.wake(id, readers);
            }
        }
    }

    /// Asks another home, and tells the replica what came of it.
    async fn carry(self: Arc<Self>, id: GroupId, ticket: u64, to: Domain, request: Request) {
        let reply = self.request_of(&to, request).await;
        let mut named = Named::default();
        match &reply {
            Reply::Taken(taken) => named.records(&taken.fence),
            Reply::Page(page) => {
                named.records(&page.records);
                named.head(page.head.as_ref());
                named.evidence.extend(page.evidence.iter().cloned());
            }
            Reply::State(state) => named.head(state.head.as_ref()),
            Reply::Voted(voted) => named.evidence.extend(voted.evidence.iter().cloned()),
            Reply::Unreachable => {
                lock(&self.groups.waiting).entry(to.clone()).or_default().insert(id);
            }
            Reply::Placed(_) | Reply::Done | Reply::Failed(_) => {}
        }
        let told = self.in_group(id, &named, |replica, context, _| replica.answered(context, ticket, reply));
        if let Err(refusal) = told.await.map(|_| ()) {
            tracing::debug!(group = ?id, %refusal, "an answer of another home found no group");
        }
    }

    async fn request_of(&self, to: &Domain, request: Request) -> Reply {
        let limits = &self.config.limits;
        let whole = Duration::from_millis(limits.request_deadline_ms());
        // Keepers find out who is there; who does not answer at once is not.
        let short = whole.min(Duration::from_millis(limits.group_hub_lost_ms() / 2));
        match request {
            Request::Batch(request) => self.reply(to, request, whole, Reply::Taken).await,
            Request::Offer(request) => self.reply(to, request, whole, Reply::Placed).await,
            Request::Fetch(request) => self.reply(to, request, whole, Reply::Page).await,
            Request::Marks(request) => self.reply(to, request, whole, |_: pb::Done| Reply::Done).await,
            Request::Ask(request) => self.reply(to, request, short, Reply::State).await,
            Request::Propose(request) => self.reply(to, request, short, Reply::Voted).await,
        }
    }

    async fn reply<M: FrameMessage, A: FrameMessage>(
        &self,
        to: &Domain,
        request: M,
        within: Duration,
        reply: impl FnOnce(A) -> Reply,
    ) -> Reply {
        let asked = tokio::time::timeout(within, self.ask_home(None, to, &request)).await;
        match asked.unwrap_or_else(|_| Err(Code::TIMED_OUT.into())) {
            Ok(answer) => reply(answer),
            Err(refusal) if is_of_the_way(&refusal) => Reply::Unreachable,
            Err(refusal) => Reply::Failed(refusal),
        }
    }

    /// Asks another home something about a group.
    ///
    /// # Errors
    /// The home's refusal, or why it cannot be reached.
    pub(super) async fn ask_home<M: FrameMessage, A: FrameMessage>(
        &self,
        asking: Option<AccountId>,
        to: &Domain,
        request: &M,
    ) -> Result<A, Refusal> {
        self.federation()?.group(asking, to, request).await
    }

    /// The rows that a batch takes.
    async fn read_for(self: &Arc<Self>, id: GroupId, ticket: u64, after: u64) -> Result<(), Refusal> {
        let rows = self.batch_rows(id, after, false).await?;
        self.in_group(id, &Named::default(), |replica, context, _| replica.rows(context, ticket, &rows))
            .await?;
        Ok(())
    }

    /// Durable rows behind a number, all or links alone, as many as one batch takes.
    pub(super) async fn batch_rows(
        &self,
        id: GroupId,
        after: u64,
        links_only: bool,
    ) -> Result<Vec<Row>, Refusal> {
        let limits = &self.config.limits;
        let most = Limits::size(limits.group_batch_records_max());
        let mut room = Limits::size(limits.group_batch_bytes_max());
        let (store, from) = (self.state.store(), after.saturating_add(1));
        let rows = if links_only {
            store.group_links(id, from, most).await
        } else {
            store.group_entries(id, from, most).await
        };
        let rows = rows.map_err(|error| unreadable(&error))?;
        let mut out = Vec::with_capacity(rows.len());
        for row in rows {
            let bytes = row.record.len();
            if bytes > room && !out.is_empty() {
                break;
            }
            room = room.saturating_sub(bytes);
            out.push(row_of(row));
        }
        Ok(out)
    }

    /// A home can be reached again: what waits for it goes on at once.
    pub(crate) fn home_is_back(self: &Arc<Self>, domain: &Domain) {
        let mut groups = lock(&self.groups.waiting).remove(domain).unwrap_or_default();
        groups.extend(lock(&self.groups.kept).of(domain));
        if groups.is_empty() {
            return;
        }
        let (shared, domain) = (Arc::clone(self), domain.clone());
        self.groups.spawn(async move {
            for id in groups {
                let nothing = Named::default();
                let told = shared.in_group(id, &nothing, |replica, context, _| {
                    replica.reachable(context, &domain);
                });
                if let Err(refusal) = told.await.map(|_| ()) {
                    tracing::debug!(group = ?id, %refusal, "a group did not hear that a home is back");
                }
            }
        });
    }
}

/// Whether a refusal is about the way, not about what was asked: it may or may not have been taken.
pub(super) fn is_of_the_way(refusal: &Refusal) -> bool {
    let codes =
        [Code::PEER_UNREACHABLE, Code::PEER_UNKNOWN, Code::TIMED_OUT, Code::TOO_FAST, Code::UNAVAILABLE];
    codes.contains(&refusal.code)
}
