//! One committer: the decisions of all connections meet here and become durable in groups.
//!
//! Decisions are handed over in the order in which they were made; a group is what waited while the one
//! before was being written. A group that cannot be written (a full disk) is tried again until it can: what was
//! decided stays decided, nobody is told before it is durable, and nothing new is taken meanwhile.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::Store;
use super::writes::Writes;
use crate::refusal::{Because as _, Code, Refusal};
use crate::telemetry::Chain;

/// Rows in one group; what is beyond waits for the next.
const GROUP_ROWS: usize = 4_000;
/// Rows that may wait; beyond it new decisions are refused for now.
const WAITING_ROWS: usize = 200_000;
/// Waits between attempts to write a group.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Waiting {
    decisions: std::collections::VecDeque<Writes>,
    rows: usize,
    /// The number of the last decision handed over.
    last: u64,
    failing: bool,
    closing: bool,
}

#[derive(Debug)]
struct Desk {
    waiting: Mutex<Waiting>,
    wake: Notify,
    durable: watch::Sender<u64>,
}

/// Takes decisions, tells when they are durable.
#[derive(Debug)]
pub struct Committer {
    desk: Arc<Desk>,
    task: tokio::sync::Mutex<JoinSet<()>>,
}

/// What to wait for before an answer may leave.
#[derive(Debug, Clone)]
pub struct Commit {
    number: u64,
    durable: watch::Receiver<u64>,
}

impl Committer {
    /// Starts the task that writes.
    #[must_use]
    pub fn start(store: Arc<dyn Store>) -> Self {
        let desk =
            Arc::new(Desk { waiting: Mutex::default(), wake: Notify::new(), durable: watch::channel(0).0 });
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(&desk), store));
        Self { desk, task: tokio::sync::Mutex::new(task) }
    }

    /// The number that the next decision gets. Stable while the world is locked.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.desk.lock().last.saturating_add(1)
    }

    /// The number of the last durable decision.
    #[must_use]
    pub fn durable(&self) -> u64 {
        *self.desk.durable.borrow()
    }

    /// Follows the number of the last durable decision.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.desk.durable.subscribe()
    }

    /// Whether new decisions are taken.
    ///
    /// # Errors
    /// `unavailable` while the store cannot be written or too much waits.
    pub fn open(&self) -> Result<(), Refusal> {
        let waiting = self.desk.lock();
        if waiting.failing || waiting.rows > WAITING_ROWS || waiting.closing {
            return Err(Code::UNAVAILABLE.because("the store takes nothing now"));
        }
        Ok(())
    }

    /// Hands a decision over. An empty one waits for those before it.
    #[must_use]
    pub fn hand_over(&self, writes: Writes) -> Commit {
        let mut waiting = self.desk.lock();
        if !writes.is_empty() {
            waiting.last = waiting.last.saturating_add(1);
            waiting.rows = waiting.rows.saturating_add(writes.weight());
            waiting.decisions.push_back(writes);
            self.desk.wake.notify_one();
        }
        Commit { number: waiting.last, durable: self.desk.durable.subscribe() }
    }

    /// Ends the task when everything handed over is durable, or cannot be written.
    pub async fn close(&self) {
        self.desk.lock().closing = true;
        self.desk.wake.notify_one();
        while self.task.lock().await.join_next().await.is_some() {}
    }
}

impl Desk {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next group, with the number of its last decision; `None` if nothing waits.
    fn next_group(&self) -> Option<(Writes, u64)> {
        let mut waiting = self.lock();
        let mut group = waiting.decisions.pop_front()?;
        while group.weight() < GROUP_ROWS
            && let Some(later) = waiting.decisions.pop_front()
        {
            group.absorb(later);
        }
        let left: usize = waiting.decisions.iter().map(Writes::weight).sum();
        waiting.rows = left;
        let behind = u64::try_from(waiting.decisions.len()).unwrap_or(u64::MAX);
        Some((group, waiting.last.saturating_sub(behind)))
    }
}

async fn run(desk: Arc<Desk>, store: Arc<dyn Store>) {
    loop {
        let Some((group, number)) = desk.next_group() else {
            if desk.lock().closing {
                return;
            }
            desk.wake.notified().await;
            continue;
        };
        while let Err(error) = store.commit(&group).await {
            let closing = {
                let mut waiting = desk.lock();
                waiting.failing = true;
                waiting.closing
            };
            tracing::error!(
                error = %Chain(&error),
                rows = group.weight(),
                "the database cannot be written: nothing is accepted until it can (is the disk full?)"
            );
            if closing {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
        if std::mem::take(&mut desk.lock().failing) {
            tracing::info!("the database can be written again");
        }
        desk.durable.send_replace(number);
    }
}

impl Commit {
    /// The decision's number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The number of the last decision that is durable by now.
    #[must_use]
    pub fn so_far(&self) -> u64 {
        *self.durable.borrow()
    }

    /// Waits until the decision survives a loss of power.
    ///
    /// # Errors
    /// `unavailable` when the store is closed before that.
    pub async fn durable(mut self) -> Result<(), Refusal> {
        let number = self.number;
        match self.durable.wait_for(|durable| *durable >= number).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Code::UNAVAILABLE.because("the store is closed")),
        }
    }
}
