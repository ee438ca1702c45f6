//! One connection: its streams, and what comes along each (spec 02-session).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rand::RngExt as _;
use tidings_proto::codec::{self, Frame};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::{FrameLimits, RawFrame};
use tidings_proto::id::AccountId;
use tidings_proto::limits;
use tidings_proto::log::Position;
use tidings_proto::pb;
use tidings_proto::quic::{FrameReader, FrameWriter};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fetch::Fetched;
use super::groups::Work;
use super::heads::Doubts;
use super::window::Window;
use super::{Ask, Command, Ended, Engine, Status};
use crate::error::{Error, StoreError};
use crate::event::Event;
use crate::home::{self, DEAF, Home, HomeError, Notices, Pipeline};
use crate::store::{put_value, stash};

/// Entries after which an acknowledgement goes out even if more are there.
const ACKNOWLEDGE_EVERY: u32 = 64;
/// Time between two looks at what is only a matter of time.
const TICK: Duration = Duration::from_secs(1);
/// Silence after which the same holds although nothing was sent but the transport's own packets.
const SILENT: Duration = Duration::from_millis(limits::KEEPALIVE_MS + 10_000);

/// What one connection holds.
pub(crate) struct Session {
    pub(super) connection: quinn::Connection,
    pub(super) local: Pipeline,
    submit: FrameWriter,
    control: FrameWriter,
    pub(super) window: Window,
    pub(super) position: Position,
    unacknowledged: u32,
    pub(super) fetching: HashSet<AccountId>,
    pub(super) fetches: JoinSet<Fetched>,
    /// Accounts that are not asked for again before a time.
    pub(super) later: HashMap<AccountId, Instant>,
    /// Heads that no chain held here has, by the account they are of, each with who named it.
    pub(super) doubts: Doubts,
    /// What is under way for groups.
    pub(super) groups: Work,
    /// The home said that it goes away: how long to stay away, and when to give up on what is unanswered.
    draining: Option<(Duration, Instant)>,
    heard: (u64, Instant),
}

impl Engine {
    /// Serves one connection until it ends.
    pub(super) async fn session(&mut self, home: Home) -> Ended {
        let connection = home.connection.clone();
        let said = home.notices.said.clone();
        let ended = match self.serve(home).await {
            Ok(ended) | Err(ended) => ended,
        };
        // The home's own word, if it ended the connection with one, says more than a broken stream.
        let ended = match (said.get(), connection.close_reason(), ended) {
            (_, _, Ended::Shutdown) => Ended::Shutdown,
            (Some(refusal), _, _) => refusal.clone().into(),
            (None, Some(quinn::ConnectionError::ApplicationClosed(close)), Ended::Again(reason, wait)) => {
                match pb::Failure::decode(close.reason) {
                    Ok(failure) if failure.code != 0 => Refusal::from(failure).into(),
                    _ => Ended::Again(reason, wait),
                }
            }
            (_, _, ended) => ended,
        };
        home::close(&connection, if let Ended::Violation(refusal) = &ended { Some(refusal) } else { None });
        ended
    }

    async fn begin(&mut self, home: Home) -> Result<(Session, FrameReader, Notices), Ended> {
        let state = home.device.clone().unwrap_or_default();
        let mut local = home.pipeline().await?;
        let position = self.enter(&home, &mut local, &state).await?;
        let submit = home.pipeline().await?;
        let welcome = &home.server.welcome;
        // Both bounds hold for the submit pipeline: it is a pipeline like another (TRN-034, MSG-016).
        let window = home::limit(welcome, limits::id::SUBMIT_WINDOW, limits::SUBMIT_WINDOW).min(home::limit(
            welcome,
            limits::id::PIPELINE_REQUESTS_MAX,
            limits::PIPELINE_REQUESTS_MAX,
        ));
        let mut session = Session {
            connection: home.connection,
            local,
            submit: submit.writer,
            control: home.control,
            window: Window::new(usize::try_from(window).unwrap_or(1)),
            position,
            unacknowledged: 0,
            fetching: HashSet::new(),
            fetches: JoinSet::new(),
            later: HashMap::new(),
            doubts: Doubts::default(),
            groups: Work::new(),
            draining: None,
            heard: (0, now()),
        };
        self.upkeep(&mut session, Some(&state)).await?;
        self.begin_groups(&mut session).await?;
        self.fetch_strangers(&mut session).await?;
        if state.account_head.as_ref() != self.own.head().as_ref() {
            let (account, address) = (self.me.account, self.me.address.to_string());
            self.fetch(&mut session, account, &address, Vec::new()).await?;
        }
        for account in stash::senders(&self.store).await? {
            let address = self.store.contact(account).await?.map(|contact| contact.address.to_string());
            let address = match address {
                Some(address) => address,
                None => stash::address(&self.store, account).await?,
            };
            self.fetch(&mut session, account, &address, Vec::new()).await?;
        }
        Ok((session, submit.reader, home.notices))
    }

    async fn serve(&mut self, home: Home) -> Result<Ended, Ended> {
        let (mut session, mut outcomes, mut notices) = self.begin(home).await?;
        self.status.send_replace(Status::Connected);
        self.tell(Event::Connected);
        self.send_waiting(&mut session).await?;
        while let Some(command) = self.deferred.pop_front() {
            self.command(&mut session, command).await?;
        }
        // The stream opens with its first frame: that may be long after Syncing.
        let mut events = None;
        let mut tick = tokio::time::interval(TICK);
        let connection = session.connection.clone();
        loop {
            if let Some((wait, until)) = session.draining
                && (session.window.is_idle() || until <= now())
            {
                return Ok(Ended::Again("the home is going away".to_owned(), wait));
            }
            let again_at = session.window.timer();
            let settled = session.unacknowledged < ACKNOWLEDGE_EVERY;
            tokio::select! {
                biased;
                raw = next(&mut events), if settled => self.event_frame(&mut session, raw?).await?,
                () = std::future::ready(()), if session.unacknowledged > 0 => session.acknowledge().await?,
                stream = connection.accept_uni(), if events.is_none() => {
                    let stream = stream.map_err(|error| HomeError::Lost(error.to_string()))?;
                    events = Some(FrameReader::new(stream, FrameLimits::default()));
                }
                raw = outcomes.next_frame() => {
                    let raw = raw.map_err(HomeError::from)?.ok_or_else(|| lost("the home ended a pipeline"))?;
                    self.outcome(&mut session, &raw).await?;
                }
                Some(fetched) = session.fetches.join_next() => {
                    let fetched = fetched.map_err(|error| lost(&format!("a fetch failed: {error}")))?;
                    self.fetched(&mut session, fetched).await?;
                }
                Some(answered) = session.groups.asks.join_next() => {
                    let answered = answered.map_err(|error| lost(&format!("a request failed: {error}")))?;
                    self.group_answered(&mut session, answered).await?;
                }
                command = self.commands.recv() => match command {
                    None | Some(Command::Shutdown) => {
                        if session.unacknowledged > 0 {
                            session.acknowledge().await?;
                        }
                        return Ok(Ended::Shutdown);
                    }
                    Some(Command::Reconnect) => {
                        return Ok(Ended::Again("reconnecting".to_owned(), Duration::ZERO));
                    }
                    Some(command) => self.command(&mut session, command).await?,
                },
                raw = notices.frames.recv() => self.control_frame(&mut session, raw)?,
                () = at(again_at), if again_at.is_some() => {
                    session.window.go_on();
                    self.send_waiting(&mut session).await?;
                }
                _ = tick.tick() => self.tick(&mut session).await?,
            }
        }
    }

    /// GoAway, a failure of the connection, or its end; nothing else belongs there (TRN-020).
    fn control_frame(&mut self, session: &mut Session, raw: Option<RawFrame>) -> Result<(), Ended> {
        let Some(raw) = raw else { return Err(lost("the home closed the connection").into()) };
        let frame = Frame::from_raw(&raw).map_err(|error| Ended::Violation(Refusal::from(&error)))?;
        match frame {
            None => {}
            Some(Frame::GoAway(away)) => {
                let jitter =
                    Duration::from_millis(away.jitter_ms.into()).mul_f64(self.rng.random_range(0.0..1.0));
                let wait = Duration::from_millis(away.reconnect_after_ms.into()) + jitter;
                session.draining = Some((wait, now() + Duration::from_millis(limits::REQUEST_DEADLINE_MS)));
            }
            Some(Frame::Failure(failure)) => return Err(Refusal::from(failure).into()),
            Some(_) => {
                let refusal = Refusal::new(Code::FRAME_UNEXPECTED, "not on the control stream");
                return Err(Ended::Violation(refusal));
            }
        }
        Ok(())
    }

    async fn event_frame(&mut self, session: &mut Session, raw: RawFrame) -> Result<(), Ended> {
        let frame = Frame::from_raw(&raw).map_err(|error| Ended::Violation(Refusal::from(&error)))?;
        let Some(frame) = frame else { return Ok(()) };
        match frame {
            Frame::MailboxEntry(entry) => self.entry(session, entry).await?,
            Frame::GroupEvent(event) => {
                self.group_event(session, event).await?;
                self.drive_changes(session).await?;
                self.send_waiting(session).await?;
            }
            Frame::GroupHeadEvent(event) => self.group_head(session, event).await?,
            Frame::GroupGap(gap) => self.group_gap(session, gap).await?,
            _ => {
                let refusal = Refusal::new(Code::FRAME_UNEXPECTED, "not on an event stream");
                return Err(Ended::Violation(refusal));
            }
        }
        session.unacknowledged = session.unacknowledged.saturating_add(1);
        Ok(())
    }

    async fn command(&mut self, session: &mut Session, command: Command) -> Result<(), Ended> {
        if session.draining.is_some() && !matches!(command, Command::OwnChain(_)) {
            // Nothing new is opened on this connection (TRN-062); what is in the store goes with the next.
            self.offline(command);
            return Ok(());
        }
        match command {
            Command::Wake => {
                self.tell_read(session).await?;
                self.tell_groups_read(session).await?;
                self.send_waiting(session).await?;
            }
            Command::Group(command) => self.group_command(session, *command).await?,
            Command::Shutdown | Command::Reconnect => {}
            Command::OwnChain(answer) => drop(answer.send(self.own.clone())),
            Command::Connection(answer) => drop(answer.send(Ok(session.connection.clone()))),
            Command::Resolve(address, answer) => self.resolve(session, address, answer),
            Command::Refresh(account, answer) => self.refresh(session, account, answer).await?,
            Command::Ask(ask, answer) => {
                let asked = match *ask {
                    Ask::Decide(decide) => session.local.ask::<pb::Done>(&decide).await,
                };
                reply(asked, answer)?;
            }
            Command::Append(change, others, answer) => {
                let mut keys = vec![&self.me.key];
                keys.extend(&others);
                let link = self.own.link(&change, &keys);
                self.append(session, link, answer).await?;
            }
            Command::AppendLink(link, answer) => self.append(session, *link, answer).await?,
        }
        Ok(())
    }

    /// Appends to the own chain at the home, then here.
    async fn append(
        &mut self,
        session: &mut Session,
        link: pb::Link,
        answer: oneshot::Sender<Result<(), Error>>,
    ) -> Result<(), Ended> {
        let asked = session.local.ask::<pb::Done>(&pb::AppendLink { link: Some(link.clone()) }).await;
        if asked.is_ok() {
            self.adopt_links(self.me.account, vec![link]).await?;
            self.advance_groups(session).await?;
        }
        reply(asked, answer)
    }

    /// What is a matter of time.
    async fn tick(&mut self, session: &mut Session) -> Result<(), Ended> {
        session.listen()?;
        self.upkeep(session, None).await?;
        self.group_tick(session).await?;
        if session.groups.has_acks() {
            session.acknowledge().await?;
        }
        let now = now();
        let before = session.later.len();
        session.later.retain(|_, at| *at > now);
        if session.later.len() < before {
            self.fetch_strangers(session).await?;
            self.send_waiting(session).await?;
        }
        Ok(())
    }
}

impl Session {
    /// Everything up to the position is durable here (LOG-031).
    async fn acknowledge(&mut self) -> Result<(), Ended> {
        self.unacknowledged = 0;
        let ack = pb::Ack { position: Some(wire(&self.position)) };
        self.control.send(&ack).await.map_err(HomeError::from)?;
        for ack in self.groups.take_acks() {
            self.control.send(&ack).await.map_err(HomeError::from)?;
        }
        Ok(())
    }

    /// Puts a submission's stored bytes on the wire.
    pub(super) async fn put(&mut self, counter: u64, bytes: Bytes) -> Result<(), Ended> {
        if self.window.is_idle() {
            self.heard.1 = now();
        }
        let frame = RawFrame::new(<pb::Submit as codec::FrameMessage>::KIND, bytes);
        self.submit.write(&frame).await.map_err(HomeError::from)?;
        self.window.put(counter);
        Ok(())
    }

    /// Whether anything new may be opened on this connection.
    pub(super) fn is_open(&self) -> bool {
        self.draining.is_none()
    }

    /// A home that was cut off does not say so, and the transport waits for a minute before it does.
    fn listen(&mut self) -> Result<(), HomeError> {
        let datagrams = self.connection.stats().udp_rx.datagrams;
        let now = now();
        if datagrams != self.heard.0 {
            self.heard = (datagrams, now);
        }
        let bound = if self.window.is_idle() { SILENT } else { DEAF };
        if now.duration_since(self.heard.1) > bound {
            return Err(lost("the home does not answer any more"));
        }
        Ok(())
    }
}

/// Hands the answer to whoever asked; a lost connection ends the session as well.
fn reply(
    asked: Result<pb::Done, HomeError>,
    answer: oneshot::Sender<Result<(), Error>>,
) -> Result<(), Ended> {
    match asked {
        Ok(pb::Done {}) => drop(answer.send(Ok(()))),
        Err(HomeError::Refused(refusal)) => drop(answer.send(Err(Error::Refused(refusal)))),
        Err(error) => {
            drop(answer.send(Err(Error::Offline)));
            return Err(error.into());
        }
    }
    Ok(())
}

async fn next(events: &mut Option<FrameReader>) -> Result<RawFrame, HomeError> {
    match events {
        Some(events) => events.next_frame().await?.ok_or_else(|| lost("the home ended the event stream")),
        None => std::future::pending().await,
    }
}

pub(super) fn lost(reason: &str) -> HomeError {
    HomeError::Lost(reason.to_owned())
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

pub(super) fn now() -> Instant {
    Instant::now()
}

/// A position as the wire has it.
pub(super) fn wire(position: &Position) -> pb::Position {
    pb::Position { incarnation: position.incarnation.to_bytes(), n: position.n, hash: position.h.to_bytes() }
}

/// Writes the mailbox position.
pub(super) async fn put_position(tx: &mut crate::store::Tx, position: &Position) -> Result<(), StoreError> {
    put_value(tx, "position", &wire(position).encode_to_vec()).await
}
