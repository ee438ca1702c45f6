//! The task of one peer: it owns state, link, connection and dialling, and is the only one that does.
//!
//! What happened ([`Input`]) is waited for in one place and handled in one place; after each the link is driven
//! until it wants nothing more. State changes are in [`state`], connections in [`connection`].

mod connection;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::RawFrame;
use tidings_proto::id::ServerId;
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use super::handshake::{self, DialError, Proven};
use super::orders::{self, Answered};
use super::session::{Session, SessionEvent};
use super::{Bell, Command, Shared};
use crate::host::PeerRecord;
use crate::link::{Link, Order};
use crate::peer::Backoff;
use crate::policy::Rules;

/// Requests that may wait for a connection.
const WAITING_MAX: usize = 1024;
/// How often the age of the outbox and of a replacement is looked at.
const LOOK: Duration = Duration::from_secs(600);
/// How long a link may go on with what is in flight after GoAway.
const DRAIN_MS: u64 = 3000;

pub(super) type Reply = oneshot::Sender<Result<Frame, Refusal>>;

/// What a peer's task waits for.
enum Input {
    Command(Option<Command>),
    Appended,
    Frame(Option<Frame>),
    Session(Option<SessionEvent>),
    Room,
    Answer(Result<Answered, JoinError>),
    Dialled(Result<Result<Proven, DialError>, JoinError>),
    /// A request that is to be asked again.
    Back(Option<(RawFrame, Reply)>),
    Rules,
    Stop,
    Time,
}

/// See the module.
pub(super) struct Actor {
    shared: Arc<Shared>,
    domain: Domain,
    record: PeerRecord,
    /// Whether the record stands in the store; a domain that only asked to be looked up leaves nothing.
    stored: bool,
    commands: mpsc::Receiver<Command>,
    bell: Arc<Bell>,
    rules: watch::Receiver<Rules>,
    stopping: watch::Receiver<bool>,
    link: Option<Link>,
    session: Option<Session>,
    /// The session's channel is full; wait for room.
    full: bool,
    orders: JoinSet<Answered>,
    dials: JoinSet<Result<Proven, DialError>>,
    /// Requests, and look-ups that nobody waits for. A request whose connection was lost comes back.
    side: JoinSet<Option<(RawFrame, Reply)>>,
    backoff: Backoff,
    waiting: Vec<(RawFrame, Reply)>,
    /// Something was appended since the link last knew.
    owed: bool,
    /// When the oldest thing owed was appended, where only this task knows.
    oldest_ms: Option<u64>,
    /// A dial is wanted though nothing is owed.
    wanted: bool,
    last_error: Option<String>,
    /// The chain that the domain shows in place of the one on record.
    replacement: Option<(ServerId, Vec<pb::Link>, Vec<pb::Limit>)>,
    /// The connection is closed at this time at the latest.
    drain_until_ms: Option<u64>,
    looked_ms: u64,
}

impl Actor {
    pub(super) fn new(
        shared: Arc<Shared>,
        domain: Domain,
        record: Option<PeerRecord>,
        doors: (mpsc::Receiver<Command>, Arc<Bell>),
        oldest_ms: Option<u64>,
    ) -> Self {
        let now_ms = shared.host.now_ms();
        let settings = &shared.settings;
        let backoff = Backoff::new(settings.reconnect_base_ms, settings.reconnect_max_ms);
        Self {
            rules: shared.policy.changes(),
            stopping: shared.stopping.subscribe(),
            stored: record.is_some(),
            record: record.unwrap_or_else(|| state::new_record(&domain, now_ms)),
            shared,
            domain,
            commands: doors.0,
            bell: doors.1,
            link: None,
            session: None,
            full: false,
            orders: JoinSet::new(),
            dials: JoinSet::new(),
            side: JoinSet::new(),
            backoff,
            waiting: Vec::new(),
            owed: oldest_ms.is_some(),
            oldest_ms,
            wanted: false,
            last_error: None,
            replacement: None,
            drain_until_ms: None,
            looked_ms: now_ms,
        }
    }

    fn now_ms(&self) -> u64 {
        self.shared.host.now_ms()
    }

    fn random(&self) -> u64 {
        let random = self.shared.host.random();
        random.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// Until the server stops, or nobody needs the task any more.
    pub(super) async fn run(mut self) {
        self.begin().await;
        loop {
            self.drive();
            self.dial_if_due();
            match self.next().await {
                Input::Stop => break,
                input => Box::pin(self.handle(input)).await,
            }
            if self.is_useless() && self.shared.take_down(&self.domain, &self.bell, &mut self.commands) {
                return;
            }
        }
        self.leave().await;
    }

    /// Nothing stored, nothing waiting: a claim that came to nothing.
    fn is_useless(&self) -> bool {
        !self.stored
            && !self.owed
            && !self.wanted
            && self.waiting.is_empty()
            && self.session.is_none()
            && self.dials.is_empty()
            && self.side.is_empty()
            && self.commands.is_empty()
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Command(Some(command)) => self.command(command).await,
            Input::Appended => self.on_appended().await,
            Input::Frame(Some(frame)) => {
                let now_ms = self.now_ms();
                let taken = self.link.as_mut().map(|link| link.frame(frame, now_ms));
                if let Some(Err(refusal)) = taken {
                    self.end_connection(refusal, true).await;
                }
            }
            // The reader's end; its reason comes as an event.
            Input::Frame(None) => {
                if let Some(session) = &mut self.session {
                    session.frames.close();
                }
            }
            Input::Session(event) => self.on_session(event).await,
            Input::Room => self.full = false,
            Input::Answer(Ok(answered)) => {
                let now_ms = self.now_ms();
                if let Some(link) = &mut self.link {
                    answered.give(link, now_ms);
                }
            }
            Input::Answer(Err(error)) => {
                // Its token stays open and the link stands still: begin from what is stored.
                tracing::error!(domain = %self.domain, %error, "an order to the store ended badly");
                self.end_connection(Code::INTERNAL.into(), true).await;
                self.link = None;
            }
            Input::Dialled(Ok(dialled)) => self.on_dialled(dialled).await,
            Input::Dialled(Err(error)) => {
                tracing::error!(domain = %self.domain, %error, "a dial ended badly");
                self.failed(error.to_string()).await;
            }
            Input::Back(request) => {
                if let Some((request, reply)) = request {
                    self.ask(request, reply);
                }
            }
            Input::Rules => self.on_rules().await,
            Input::Time => self.on_time().await,
            Input::Command(None) | Input::Stop => {}
        }
        if self.drain_until_ms.is_some_and(|until| until <= self.now_ms()) {
            self.end_connection(Code::GOING_AWAY.into(), true).await;
        }
    }

    /// As [`Self::next`], when the stop is known already.
    async fn next_while_leaving(&mut self) -> Input {
        self.stopping = watch::Sender::new(false).subscribe();
        self.next().await
    }

    async fn next(&mut self) -> Input {
        let wait = self.wait();
        let reads = self.link.as_ref().is_some_and(Link::wants_input);
        let (full, session) = (self.full, self.session.as_mut());
        let (frames, events, out) = match session {
            Some(session) => (Some(&mut session.frames), Some(&mut session.events), Some(&session.out)),
            None => (None, None, None),
        };
        // Not biased: no source of input can starve another.
        tokio::select! {
            Ok(_) = self.stopping.wait_for(|stopping| *stopping) => Input::Stop,
            Some(answer) = self.orders.join_next() => Input::Answer(answer),
            command = self.commands.recv() => Input::Command(command),
            frame = receive(frames), if reads => match frame {
                Some(frame) => Input::Frame(Some(frame)),
                None => Input::Frame(None),
            },
            event = receive(events) => Input::Session(event),
            () = room(out), if full => Input::Room,
            Some(dialled) = self.dials.join_next() => Input::Dialled(dialled),
            () = self.bell.heard() => Input::Appended,
            changed = self.rules.changed() => match changed {
                Ok(()) => Input::Rules,
                Err(_) => Input::Stop,
            },
            Some(ended) = self.side.join_next() => Input::Back(ended.ok().flatten()),
            () = tokio::time::sleep(wait) => Input::Time,
        }
    }

    /// How long until something is due by time alone.
    fn wait(&self) -> Duration {
        let now_ms = self.now_ms();
        let link = self.session.as_ref().and(self.link.as_ref()).and_then(Link::deadline);
        let dial = (self.may_dial() && self.dials.is_empty()).then(|| self.backoff.next_ms());
        let due = [link, dial, self.drain_until_ms].into_iter().flatten().min();
        due.map_or(LOOK, |due| Duration::from_millis(due.saturating_sub(now_ms).max(1)).min(LOOK))
    }

    /// Carries out what the link wants, until it wants nothing more.
    fn drive(&mut self) {
        let now_ms = self.now_ms();
        let (Some(link), Some(peer)) = (&mut self.link, self.record.genesis) else {
            return;
        };
        loop {
            let mut idle = true;
            while let Some(order) = link.poll_order(now_ms) {
                idle = false;
                if let Order::Close(refusal) = order {
                    if let Some(session) = &self.session {
                        handshake::close(&session.connection, &refusal);
                    }
                } else {
                    let execute = orders::execute(Arc::clone(&self.shared), self.domain.clone(), peer, order);
                    self.orders.spawn(execute);
                }
            }
            while let Some(session) = &self.session {
                let Ok(permit) = session.out.try_reserve() else {
                    self.full = !session.out.is_closed();
                    break;
                };
                let Some(frame) = link.poll_frame(now_ms) else { break };
                permit.send(frame);
                idle = false;
            }
            if idle {
                return;
            }
        }
    }
}

/// The next of a channel that may not be there; one that has ended is not asked again.
async fn receive<T>(channel: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match channel {
        Some(channel) if !(channel.is_closed() && channel.is_empty()) => channel.recv().await,
        _ => std::future::pending().await,
    }
}

async fn room(out: Option<&mpsc::Sender<RawFrame>>) {
    match out {
        // The permit is given back at once: it is only waited for.
        Some(out) => drop(out.reserve().await),
        None => std::future::pending().await,
    }
}
