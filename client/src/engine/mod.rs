//! The one task behind a [`crate::Client`]: it alone encrypts, decrypts and numbers, so that two of
//! these never overlap. It dials, syncs, sends what waits, and dials again (spec 02-session, 06-messages).
//!
//! | state | connected | entry | outcome | command | connection lost |
//! |---|---|---|---|---|---|
//! | waiting | to session | - | - | answered from the store, or `Offline`; while dialling, kept for the session | - |
//! | session | - | decrypted, stored, acknowledged | stored | carried out | to waiting, full jitter |
//! | draining (GoAway) | - | as session | stored; the last one: to waiting | `Offline` | to waiting |
//! | parked (taken over) | - | - | - | the user acts: dials, then carries it out | - |
//! | halted (removed, wrong server, rolled back) | - | - | - | `Offline`; reconnect: dials | - |
//!
//! Invariants: a message is in the store before it is encrypted; a submission's exact bytes are in the
//! store before they are sent; a mailbox position moves in the transaction that holds its effect.

mod enter;
mod fetch;
mod groups;
mod heads;
mod heal;
mod inbound;
mod marks;
mod outbound;
mod outcome;
mod session;
mod upkeep;
mod window;

pub(crate) use enter::server_chain;
pub(crate) use groups::{GroupCommand, Wish};
pub use groups::{HomeSigner, MemberMark};
pub(crate) use upkeep::{CAPABILITIES, store_prekeys};

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};
use tidings_proto::chain::{AccountChange, AccountState, ServerState, Verified};
use tidings_proto::error::{Code, Refusal, Retry};
use tidings_proto::handshake::{Credentials, Identity};
use tidings_proto::id::{AccountId, DeviceId, GroupId, MessageId};
use tidings_proto::name::Address;
use tidings_proto::pb;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::chains;
use crate::error::{Error, StoreError};
use crate::event::Event;
use crate::home::{Dial, Home, HomeError};
use crate::me::Me;
use crate::options::Options;
use crate::store::Store;
use crate::store::accounts::Contact;
use crate::store::groups::Chat;

/// First and longest wait before dialling again (`reconnect_base_ms`, `reconnect_max_ms`).
const RECONNECT_BASE: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(60);

/// A step of the task behind a pointer: the compiler judges whether it can move between threads here, and
/// not again, and in vain, in each step that calls it.
pub(crate) type Step<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, Ended>> + Send + 'a>>;

/// What the handle asks of the task.
pub(crate) enum Command {
    /// The store has something new to send.
    Wake,
    /// Who lives at this address?
    Resolve(Address, oneshot::Sender<Result<Contact, Error>>),
    /// A request that the home answers with Done.
    Ask(Box<Ask>, oneshot::Sender<Result<(), Error>>),
    /// Append to the own account's chain.
    Append(Box<AccountChange>, Vec<tidings_proto::sign::SigningKey>, oneshot::Sender<Result<(), Error>>),
    /// Append a link that two devices signed.
    AppendLink(Box<pb::Link>, oneshot::Sender<Result<(), Error>>),
    /// The own chain as it stands, with its links.
    OwnChain(oneshot::Sender<Verified<AccountState>>),
    /// The connection, for a meeting of two devices.
    Connection(oneshot::Sender<Result<quinn::Connection, Error>>),
    /// Newer links of an account are wanted.
    Refresh(AccountId, oneshot::Sender<Result<Contact, Error>>),
    /// Something about groups.
    Group(Box<GroupCommand>),
    /// Dial now: the user, or the network, gives a reason.
    Reconnect,
    /// Stop.
    Shutdown,
}

/// A request answered with Done.
pub(crate) enum Ask {
    /// What the account wants of another.
    Decide(pb::Decide),
}

/// Whether the device is connected, for whoever waits on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// No connection; another attempt follows.
    Waiting,
    /// Proven and synced.
    Connected,
    /// Only the user can go on: taken over, removed, or the wrong server.
    Halted,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Dial again after this long at least.
    Again(String, Duration),
    /// The home broke a rule: it is told, and dialled again.
    Violation(Refusal),
    /// Another connection of this device took over: only the user's acting brings it back (TRN-071).
    Parked,
    /// Not by itself.
    Halt(Halt),
    /// The handle is gone.
    Shutdown,
}

/// Why a device stays away from its home.
#[derive(Debug)]
pub(crate) enum Halt {
    /// For people.
    Refused(String),
    /// The mailbox is not the one this device read.
    HomeLostState,
    /// This device's store is a copy, or older than what it sent.
    RolledBack,
}

impl From<HomeError> for Ended {
    fn from(error: HomeError) -> Self {
        match error {
            HomeError::Refused(refusal) => refusal.into(),
            HomeError::Violation(refusal) => Self::Violation(refusal),
            HomeError::Lost(reason) => Self::Again(reason, Duration::ZERO),
        }
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        const HALTING: [Code; 4] =
            [Code::AUTH_REMOVED, Code::AUTH_UNKNOWN, Code::WRONG_SERVER, Code::AUTH_FAILED];
        match refusal.code {
            Code::TAKEN_OVER => Self::Parked,
            Code::POSITION_INVALID => Self::Halt(Halt::HomeLostState),
            code if HALTING.contains(&code) || refusal.retry == Retry::Never => {
                Self::Halt(Halt::Refused(code.text().to_owned()))
            }
            code => Self::Again(code.text().to_owned(), refusal.retry_after.unwrap_or_default()),
        }
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the local store failed");
        Self::Again(error.to_string(), Duration::from_secs(5))
    }
}

/// The task's state.
pub(crate) struct Engine {
    pub(crate) me: Me,
    pub(crate) store: Store,
    pub(crate) options: Options,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) status: watch::Sender<Status>,
    pub(crate) rng: StdRng,
    boot_id: [u8; 16],
    server: Option<Verified<ServerState>>,
    own: Verified<AccountState>,
    /// Verified chains of others, read from the store once.
    chains: HashMap<AccountId, Verified<AccountState>>,
    /// Groups, read from the store once.
    chats: BTreeMap<GroupId, Chat>,
    /// How often a message was encrypted anew after a refusal that can be mended.
    repairs: BTreeMap<MessageId, u32>,
    /// Devices that have published no prekeys, with the time to ask again: messages go without them.
    bare: HashMap<DeviceId, tokio::time::Instant>,
    /// What the user asked for while there was no connection.
    deferred: VecDeque<Command>,
}

/// What the handle and the task share.
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) me: Me,
    pub(crate) store: Store,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) status: watch::Sender<Status>,
}

/// Now, Unix milliseconds.
#[expect(clippy::disallowed_methods, reason = "the client's task owns the clock")]
pub(crate) fn now_ms() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}

impl Engine {
    /// Reads what the store holds; the connection comes with [`Engine::run`].
    pub(crate) async fn load(parts: Parts, mut rng: StdRng) -> Result<Self, Error> {
        let Parts { options, me, store, commands, events, status } = parts;
        let broken = StoreError::Inconsistent { table: "account_link", column: "body" };
        let own =
            chains::first_contact(Some(me.account), &store.links(me.account).await?).map_err(|_| broken)?;
        let server = held_server(&store).await?;
        let mut boot_id = [0; 16];
        rng.fill_bytes(&mut boot_id);
        Ok(Self {
            me,
            store,
            options,
            commands,
            events,
            status,
            rng,
            boot_id,
            server,
            own,
            chains: HashMap::new(),
            chats: BTreeMap::new(),
            repairs: BTreeMap::new(),
            bare: HashMap::new(),
            deferred: VecDeque::new(),
        })
    }

    /// Runs until the handle is gone.
    pub(crate) async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let ended = match self.dial().await {
                Ok(home) => {
                    failures = 0;
                    self.session(home).await
                }
                Err(ended) => ended,
            };
            let gone = match ended {
                Ended::Shutdown => true,
                Ended::Parked => {
                    self.stopped("another connection of this device took over".to_owned());
                    self.park(true).await
                }
                Ended::Halt(halt) => {
                    match halt {
                        Halt::Refused(reason) => self.stopped(reason),
                        Halt::HomeLostState => {
                            self.tell(Event::HomeLostState);
                            self.stopped("the home or this device has lost state".to_owned());
                        }
                        Halt::RolledBack => {
                            self.tell(Event::RolledBack);
                            self.stopped(
                                "this device's store is a copy, or older than what it sent".to_owned(),
                            );
                        }
                    }
                    self.park(false).await
                }
                Ended::Violation(refusal) => {
                    tracing::warn!(%refusal, "the home broke a rule");
                    failures = failures.saturating_add(1);
                    self.wait(refusal.code.text().to_owned(), Duration::ZERO, failures).await
                }
                Ended::Again(reason, at_least) => {
                    failures = failures.saturating_add(1);
                    self.wait(reason, at_least, failures).await
                }
            };
            if gone {
                break;
            }
        }
        self.store.close().await;
    }

    fn stopped(&mut self, reason: String) {
        self.status.send_replace(Status::Halted);
        self.answer_deferred();
        self.tell(Event::Disconnected { reason, retry_in_ms: None });
    }

    /// Waits, answering what can be answered without a home. True if the handle is gone.
    async fn wait(&mut self, reason: String, at_least: Duration, failures: u32) -> bool {
        self.status.send_replace(Status::Waiting);
        self.answer_deferred();
        let time = at_least + backoff(failures, self.rng.random_range(0.0..1.0));
        self.tell(Event::Disconnected { reason, retry_in_ms: u64::try_from(time.as_millis()).ok() });
        let until = tokio::time::sleep(time);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return false,
                command = self.commands.recv() => match command {
                    None | Some(Command::Shutdown) => return true,
                    Some(command) => self.offline(command),
                },
            }
        }
    }

    /// Stays away until the user acts; with `any`, whatever they ask for is acting, else only to reconnect. True
    /// if the handle is gone.
    async fn park(&mut self, any: bool) -> bool {
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Shutdown => return true,
                Command::Reconnect => return false,
                Command::OwnChain(_) => self.offline(command),
                command if any => {
                    self.deferred.push_back(command);
                    return false;
                }
                command => self.offline(command),
            }
        }
        true
    }

    fn answer_deferred(&mut self) {
        while let Some(command) = self.deferred.pop_front() {
            self.offline(command);
        }
    }

    fn offline(&self, command: Command) {
        // Whoever asked may be gone: then nobody waits for the answer.
        match command {
            Command::Wake | Command::Shutdown | Command::Reconnect => {}
            Command::OwnChain(answer) => drop(answer.send(self.own.clone())),
            Command::Group(command) => command.offline(),
            Command::Connection(answer) => drop(answer.send(Err(Error::Offline))),
            Command::Resolve(_, answer) | Command::Refresh(_, answer) => {
                drop(answer.send(Err(Error::Offline)))
            }
            Command::Ask(_, answer) | Command::Append(_, _, answer) | Command::AppendLink(_, answer) => {
                drop(answer.send(Err(Error::Offline)));
            }
        }
    }

    async fn dial(&mut self) -> Result<Home, Ended> {
        let mut nonce = [0; 32];
        self.rng.fill_bytes(&mut nonce);
        let credentials = Credentials {
            identity: Identity::Device { account: self.me.account, device: self.me.device },
            key: self.me.key.clone(),
            chain: Vec::new(),
        };
        let domain = self.me.address.domain().clone();
        let dial = Dial {
            options: &self.options,
            domain: &domain,
            server: self.server.clone(),
            server_links: held_links(&self.store).await?,
            credentials,
            nonce,
            boot_id: self.boot_id,
        };
        let dialling = Home::dial(dial);
        tokio::pin!(dialling);
        loop {
            tokio::select! {
                home = &mut dialling => return Ok(home?),
                command = self.commands.recv() => match command {
                    None | Some(Command::Shutdown) => return Err(Ended::Shutdown),
                    // Both are being done.
                    Some(Command::Wake | Command::Reconnect) => {}
                    Some(Command::OwnChain(answer)) => drop(answer.send(self.own.clone())),
                    Some(command) => self.deferred.push_back(command),
                },
            }
        }
    }

    /// Tells the program; nobody listening is fine.
    pub(crate) fn tell(&self, event: Event) {
        drop(self.events.send(event));
    }
}

/// Full jitter before the attempt after failed attempt `k`, from 1: anything between nothing and the doubled base,
/// so that no two devices agree (TRN-064). `random` is from 0 to 1.
fn backoff(k: u32, random: f64) -> Duration {
    RECONNECT_BASE.saturating_mul(1 << k.min(8)).min(RECONNECT_MAX).mul_f64(random)
}

/// The server chain that pins the home, as held.
pub(crate) async fn held_server(store: &Store) -> Result<Option<Verified<ServerState>>, StoreError> {
    let links = held_links(store).await?;
    if links.is_empty() {
        return Ok(None);
    }
    let broken = |_| StoreError::Inconsistent { table: "meta", column: "server-chain" };
    Verified::<ServerState>::verify(&links).map(Some).map_err(broken)
}

/// The links of that chain, genesis first.
pub(crate) async fn held_links(store: &Store) -> Result<Vec<pb::Link>, StoreError> {
    let broken = |_| StoreError::Inconsistent { table: "meta", column: "server-chain" };
    let Some(bytes) = store.value("server-chain").await? else { return Ok(Vec::new()) };
    Ok(<pb::PeerIdentity as prost::Message>::decode(bytes.as_slice()).map_err(broken)?.chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_before_dialling_doubles_up_to_its_bound_and_is_spread_over_all_of_it() {
        assert_eq!(backoff(1, 1.0), Duration::from_secs(1));
        assert_eq!(backoff(3, 0.5), Duration::from_secs(2));
        assert_eq!(backoff(40, 1.0), RECONNECT_MAX);
        assert_eq!(backoff(40, 0.0), Duration::ZERO);
    }

    #[test]
    fn a_taken_over_device_stays_away_and_a_busy_home_is_dialled_again() {
        assert!(matches!(Ended::from(Refusal::from(Code::TAKEN_OVER)), Ended::Parked));
        assert!(matches!(Ended::from(Refusal::from(Code::AUTH_REMOVED)), Ended::Halt(_)));
        assert!(matches!(
            Ended::from(Refusal::from(Code::POSITION_INVALID)),
            Ended::Halt(Halt::HomeLostState)
        ));
        let busy = Refusal::from(Code::TOO_FAST).after(Duration::from_secs(3));
        assert!(matches!(Ended::from(busy), Ended::Again(_, wait) if wait == Duration::from_secs(3)));
    }
}
