//! The server's state: a working set in memory, decisions on it one at a time, and the store they become durable in.
//!
//! A decision names what it needs ([`Need`]), gets it with nobody else deciding ([`State::begin`]), changes
//! it at once, and hands what changed to the committer. Answers leave when that is durable.
//!
//! What this module does not do: decide anything. That is `accounts`, `keys`, `messages` and `peering`.

mod lane;
mod load;
mod log;
mod peer;
mod renew;
mod transaction;
mod world;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidings_proto::id::DeviceId;
use tokio::sync::watch;

pub use lane::{Lane, Open, Relation, delivery_of, lane_key};
pub use load::Need;
pub(crate) use load::{lane_of, transfer_of};
pub use log::{HashAt, Log, New, shipped};
pub use peer::{Peer, Waiting, incarnations};
pub use transaction::{Transaction, Woken};
pub use world::{Account, Bounds, Device, Stock, World};

use crate::refusal::{Because as _, Code, Refusal};
use crate::store::{Commit, Committer, EntryRow, LaneKey, PeerId, Store, StoreError};
use crate::telemetry::Chain;

/// Links of one other domain's accounts that are kept in an hour: some 100 MB if each is as long as it may be.
const LINKS_PER_HOUR: usize = 30_000;

/// World, store and committer.
pub struct State {
    world: Mutex<World>,
    store: Arc<dyn Store>,
    committer: Committer,
    /// One change at a time for each outbox, with the look at its rows before.
    outboxes: Mutex<HashMap<PeerId, Arc<tokio::sync::Mutex<()>>>>,
    /// Links of other domains' chains kept in an hour.
    learned: Mutex<HashMap<String, (u64, usize)>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

impl State {
    /// Opens the state on a store.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(store: Arc<dyn Store>, mailbox_entries_max: u64) -> Result<Arc<Self>, StoreError> {
        let mut world = World { mailbox_entries_max, ..World::default() };
        load::drop_orphans(store.as_ref()).await?;
        load::peers(store.as_ref(), &mut world).await?;
        let committer = Committer::start(Arc::clone(&store));
        Ok(Arc::new(Self {
            world: Mutex::new(world),
            store,
            committer,
            outboxes: Mutex::default(),
            learned: Mutex::default(),
        }))
    }

    /// Starts a decision on what it needs; nobody else decides until the transaction is gone.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read or written now.
    pub async fn begin(&self, needs: &[Need]) -> Result<Transaction<'_>, Refusal> {
        self.committer.open()?;
        self.ready(needs).await
    }

    async fn ready(&self, needs: &[Need]) -> Result<Transaction<'_>, Refusal> {
        loop {
            let (missing, generation) = {
                let mut world = self.lock();
                if world.missing(needs).is_empty() {
                    return Ok(Transaction::new(world, &self.committer));
                }
                world.trim(self.committer.durable());
                (world.missing(needs), world.generation)
            };
            for need in missing {
                let loaded =
                    load::load(self.store.as_ref(), need).await.map_err(|error| unreadable(&error))?;
                self.lock().enter(loaded, generation);
            }
        }
    }

    /// Looks at what is needed; what is seen may not be durable yet.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    pub async fn view<T>(&self, needs: &[Need], look: impl FnOnce(&World) -> T) -> Result<T, Refusal> {
        let transaction = self.ready(needs).await?;
        Ok(look(transaction.world()))
    }

    /// Bounds what is kept in memory.
    pub fn bound(&self, bounds: Bounds) {
        self.lock().bounds = bounds;
    }

    /// Looks at what is in memory.
    pub fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.lock())
    }

    /// Nobody else settles, drops, closes or restarts in this outbox while the guard lives. Appending goes on.
    pub(crate) async fn outbox(&self, peer: PeerId) -> tokio::sync::OwnedMutexGuard<()> {
        let gate = {
            let mut gates = self.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(gates.entry(peer).or_default())
        };
        gate.lock_owned().await
    }

    /// Whether so many more links of a domain's accounts may be kept in this hour.
    pub(crate) fn admits_links(&self, domain: &str, links: usize, now_ms: u64) -> bool {
        let hour = now_ms / 3_600_000;
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.retain(|_, (counted, _)| *counted == hour);
        let (_, count) = learned.entry(domain.to_owned()).or_insert((hour, 0));
        *count = count.saturating_add(links);
        *count <= LINKS_PER_HOUR
    }

    /// Durable rows of a log from number `from` on, at most `most`.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    pub async fn read(&self, log: LogOf, from: u64, most: usize) -> Result<Vec<EntryRow>, Refusal> {
        let durable = self.committer.durable();
        let (id, first) = {
            let world = self.lock();
            let Some(log) = log.find(&world) else { return Ok(Vec::new()) };
            if let Some(rows) = log.tail(from, most, durable) {
                return Ok(rows);
            }
            (log.id(), log.first())
        };
        self.store.entries(id, from.max(first), most).await.map_err(|error| unreadable(&error))
    }

    /// All rows of a log in a range, durable or not, as everything decided before leaves them. `needs` bring the log
    /// into memory.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    pub async fn rows(
        &self,
        needs: &[Need],
        log: LogOf,
        from: u64,
        upto: u64,
    ) -> Result<Vec<EntryRow>, Refusal> {
        let in_memory = |world: &World| {
            let log = log.find(world)?;
            Some((log.id(), log.tail_first(), log.tail_rows(from, upto).cloned().collect::<Vec<_>>()))
        };
        let Some((_, tail_first, tail)) = in_memory(self.ready(needs).await?.world()) else {
            return Ok(Vec::new());
        };
        if from >= tail_first {
            return Ok(tail);
        }
        // What was made void in the store's part may not have reached the store.
        self.all_so_far().durable().await?;
        let Some((id, tail_first, tail)) = in_memory(self.ready(needs).await?.world()) else {
            return Ok(Vec::new());
        };
        let most =
            usize::try_from(upto.min(tail_first.saturating_sub(1)).saturating_sub(from).saturating_add(1));
        let stored = self.store.entries(id, from, most.unwrap_or(usize::MAX)).await;
        let mut rows = stored.map_err(|error| unreadable(&error))?;
        rows.retain(|row| row.n < tail_first && row.n <= upto);
        rows.extend(tail);
        Ok(rows)
    }

    /// The running hash of a log at a number.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be read.
    pub async fn hash(&self, log: LogOf, n: u64) -> Result<Option<tidings_proto::id::Hash>, Refusal> {
        let (id, known) = {
            let world = self.lock();
            let Some(log) = log.find(&world) else { return Ok(None) };
            (log.id(), log.hash(n))
        };
        match known {
            HashAt::Known(hash) => Ok(Some(hash)),
            HashAt::Never => Ok(None),
            HashAt::Stored => {
                let rows = self.store.entries(id, n, 1).await.map_err(|error| unreadable(&error))?;
                Ok(rows.first().filter(|row| row.n == n).map(|row| row.hash))
            }
        }
    }

    /// The store, for questions that no decision hangs on.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// A device has a connection: its mailbox's newest entries stay in memory.
    pub fn connected(&self, device: DeviceId) {
        let mut world = self.lock();
        let count = world.connected.entry(device).or_insert(0);
        *count = count.saturating_add(1);
    }

    /// That connection is gone.
    pub fn disconnected(&self, device: DeviceId) {
        let durable = self.committer.durable();
        let mut world = self.lock();
        if let Some(count) = world.connected.get_mut(&device) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                world.connected.remove(&device);
                if let Some(device) = world.devices.get_mut(&device) {
                    device.mailbox.forget(durable, false);
                }
            }
        }
    }

    /// The number of the last durable decision.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.committer.durable()
    }

    /// Follows the number of the last durable decision.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.committer.follow()
    }

    /// Waits until everything decided so far is durable.
    #[must_use]
    pub fn all_so_far(&self) -> Commit {
        self.committer.hand_over(crate::store::Writes::default())
    }

    /// Ends the committer after all that was handed to it is written, then the store.
    pub async fn close(&self) {
        self.committer.close().await;
        if let Err(error) = self.store.close().await {
            tracing::error!(error = %Chain(&error), "the database was not closed in order");
        }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which log is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOf {
    /// The mailbox of a device whose account is in memory.
    Device(DeviceId),
    /// The outbox for a peer.
    Peer(PeerId),
}

impl LogOf {
    fn find(self, world: &World) -> Option<&Log> {
        match self {
            Self::Device(id) => world.device(&id).map(|device| &device.mailbox),
            Self::Peer(id) => world.peer(id).map(|peer| &peer.outbox),
        }
    }
}

/// The refusal for a store that cannot be read; the operator gets the cause.
pub(crate) fn unreadable(error: &StoreError) -> Refusal {
    tracing::error!(error = %Chain(error), "the database cannot be read");
    Code::UNAVAILABLE.because("the store cannot be read")
}

/// Needs of a lane between two accounts, both ways.
#[must_use]
pub fn both_ways(key: LaneKey) -> [Need; 2] {
    [Need::Lane(key), Need::Lane((key.1, key.0))]
}
