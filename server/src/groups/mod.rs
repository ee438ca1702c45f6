//! Groups of this home: the log of each is kept once and fanned out to its devices (chapter 07).
//!
//! What a group's server has to decide is in [`replica`], which is pure. Around it: a group is loaded when something
//! is to be decided about it, decided on with its own lock held, written in the one committer's next transaction, and
//! only then do answers, requests to other homes and wake-ups leave. What was to be sent when the process died
//! follows again from what is stored.
//!
//! | part | what it does |
//! |---|---|
//! | `held` | a group in memory: replica, readers, cursors, newest records |
//! | `chains` | the account and server chains that links are judged by |
//! | `decide` | one decision: load, decide, write |
//! | `after` | what leaves when it is durable: requests to homes, wake-ups |
//! | `clock` | what is due by time alone; letting go of what nobody uses; trimming |
//! | `device`, `post`, `cursors` | requests of devices |
//! | `home` | requests of other homes |
//! | `hubs` | whether the hubs of groups kept here can be reached |
//! | `join` | the state of a group from another home |
//! | `feed` | what the event streams of devices read |
//!
//! What this module does not do: decide what a group's log says, or read ciphertexts.

mod after;
mod chains;
mod clock;
mod cursors;
mod decide;
mod device;
mod feed;
mod held;
mod home;
mod hubs;
mod join;
mod post;
pub mod replica;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tidings_proto::chain::ServerState;
use tidings_proto::chain::group::{ServerRef, ServerSigner};
use tidings_proto::id::{AccountId, GroupId};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::config::Limits;
use crate::identity::ServerIdentity;
use crate::refusal::{Because as _, Code, Refusal};
use crate::store::LaneKey;

pub(crate) use feed::{Feed, Reading};
use held::Held;
use replica::{Context, ReplicaLimits};

pub(crate) use clock::keep_time;
pub(crate) use hubs::watch_hubs;

/// Entry `group-notice` of a mailbox.
pub(crate) const GROUP_NOTICE: u64 = 0x16;

/// A group's place in memory; the lock is held while something is decided about it.
type Slot = tokio::sync::Mutex<Option<Box<Held>>>;

/// Who this server is to groups.
struct Own {
    me: ServerRef,
    /// Its chain, for those who judge what it signed.
    held: chains::Held<ServerState>,
    replica: replica::Own,
    limits: ReplicaLimits,
}

impl Own {
    fn context<'a>(&'a self, now_ms: u64, evidence: &'a chains::Known) -> Context<'a> {
        Context { now_ms, own: &self.replica, evidence, limits: &self.limits }
    }
}

/// An hour, and how many service messages went for a group along a lane in it.
type Services = (u64, HashMap<(GroupId, LaneKey), u64>);

/// All groups in memory, and what runs for them.
pub struct Groups {
    own: Own,
    slots: Mutex<HashMap<GroupId, Arc<Slot>>>,
    due: Mutex<clock::Due>,
    /// Something is due earlier than before.
    rung: Notify,
    tasks: Mutex<JoinSet<()>>,
    feeds: Mutex<HashMap<AccountId, Vec<Weak<Feed>>>>,
    /// Groups that wait for a home that could not be reached.
    waiting: Mutex<BTreeMap<Domain, BTreeSet<GroupId>>>,
    /// Server chains that were verified, by how many links they had.
    servers: chains::Servers,
    kept: Mutex<hubs::Kept>,
    /// Service messages for a group from one account to another, in this hour.
    services: Mutex<Services>,
    /// Invitations that accounts made in an hour.
    invited: Mutex<HashMap<AccountId, (u64, u64)>>,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Groups")
    }
}

impl Groups {
    /// Nothing in memory yet.
    #[must_use]
    pub fn new(identity: &ServerIdentity, limits: &Limits) -> Self {
        let state = identity.chain.state();
        let me = ServerRef { domain: state.domain().clone(), genesis: identity.chain.server_id() };
        let signer =
            ServerSigner { server: me.clone(), head: identity.chain.head(), key: identity.key.public() };
        let chain =
            pb::Evidence { chain: me.genesis.to_bytes(), links: identity.links.clone(), server: true };
        let replica =
            replica::Own { signer, key: identity.key.clone(), incarnation: state.incarnation(), chain };
        let held = chains::Held::new(identity.chain.clone(), identity.links.clone());
        let own = Own { me, held, replica, limits: replica_limits(limits) };
        Self {
            own,
            slots: Mutex::default(),
            due: Mutex::default(),
            rung: Notify::new(),
            tasks: Mutex::default(),
            feeds: Mutex::default(),
            waiting: Mutex::default(),
            servers: chains::Servers::default(),
            kept: Mutex::default(),
            services: Mutex::default(),
            invited: Mutex::default(),
        }
    }

    fn slot(&self, id: GroupId) -> Arc<Slot> {
        Arc::clone(lock(&self.slots).entry(id).or_default())
    }

    /// Takes a place out that holds nothing and that nobody waits for.
    fn forget(&self, id: GroupId) {
        let mut slots = lock(&self.slots);
        let unused = slots.get(&id).is_some_and(|slot| {
            Arc::strong_count(slot) == 1 && slot.try_lock().is_ok_and(|held| held.is_none())
        });
        if unused {
            slots.remove(&id);
        }
    }

    /// Does something besides; what has ended is taken out here, so that the set stays as small as what runs.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task of a group panicked");
            }
        }
        tasks.spawn(task);
    }

    /// Ends what runs.
    pub(crate) async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        tasks.shutdown().await;
    }
}

fn replica_limits(limits: &Limits) -> ReplicaLimits {
    ReplicaLimits {
        hub_lost_ms: limits.group_hub_lost_ms(),
        marks_ms: limits.group_marks_ms(),
        offer_posts: Limits::size(limits.group_offer_posts_max()),
        pending_posts: Limits::size(limits.group_pending_posts()),
        ..ReplicaLimits::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The group that a request names.
fn group_id(bytes: &Bytes) -> Result<GroupId, Refusal> {
    GroupId::try_from(bytes).map_err(|_| Code::MESSAGE_MALFORMED.because("group"))
}

fn account_id(bytes: &Bytes) -> Result<AccountId, Refusal> {
    AccountId::try_from(bytes).map_err(|_| Code::MESSAGE_MALFORMED.because("account"))
}
