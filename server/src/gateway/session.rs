//! One connection: handshake by the pure machine, then its control stream and pipelines.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connection, Incoming, RecvStream, SendStream};
use tidings_federation::prefix::Prefix;
use tidings_proto::capabilities;
use tidings_proto::codec::{Frame, FrameMessage as _};
use tidings_proto::handshake::{ALPN_SERVER, Acceptor, AcceptorConfig, AcceptorEvent, Found, Identity};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::pb;
use tidings_proto::quic;
use tidings_proto::sign::PublicKey;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::budget::{Place, RequestBudget};
use super::pipeline;
use super::wire::{self, ReadError, Reader};
use crate::accounts::rendezvous::Seat;
use crate::groups::Feed;
use crate::node::Shared;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::Need;

/// Tasks that serve the streams of one connection.
type Streams = JoinSet<Result<(), ReadError>>;

/// How long a connection has for its last answers and its close when the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Connected devices; a newer connection of a device takes the place of the older.
#[derive(Debug, Default)]
pub struct Sessions {
    devices: Mutex<HashMap<DeviceId, Connection>>,
}

impl Sessions {
    fn enter(&self, device: DeviceId, connection: Connection) {
        let older = self.devices.lock().unwrap_or_else(PoisonError::into_inner).insert(device, connection);
        if let Some(older) = older {
            wire::close(&older, &Code::TAKEN_OVER.into());
        }
    }

    fn leave(&self, device: DeviceId, connection: &Connection) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        if devices.get(&device).is_some_and(|held| held.stable_id() == connection.stable_id()) {
            devices.remove(&device);
        }
    }

    /// Closes a device's connection.
    pub fn close(&self, device: &DeviceId, refusal: &Refusal) {
        let held = self.devices.lock().unwrap_or_else(PoisonError::into_inner).remove(device);
        if let Some(connection) = held {
            wire::close(&connection, refusal);
        }
    }
}

/// Who is proven at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    /// A device on its account's list.
    Device(AccountId, DeviceId),
    /// A key on no chain.
    Candidate(PublicKey),
}

/// What the streams of one connection share.
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) who: Who,
    pub(super) requests: Mutex<RequestBudget>,
    pub(super) submitting: AtomicBool,
    pub(super) seat: Mutex<Option<Seat>>,
    pub(super) acknowledged: watch::Sender<u64>,
    pub(super) pump: Mutex<JoinSet<()>>,
    /// What the event stream hears of groups.
    pub(super) feed: Mutex<Option<Arc<Feed>>>,
    /// Whether the client's program knows groups: else its event stream carries nothing of them.
    pub(super) groups: bool,
    pub(super) stopping: watch::Receiver<bool>,
}

impl Session {
    /// What the event stream hears of groups, where there is a stream.
    pub(super) fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves a connection to its end.
pub(super) fn serve(
    shared: Arc<Shared>,
    incoming: Incoming,
    stopping: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send {
    Box::pin(async move {
        let Some(place) = shared.sources.take(Prefix::from(incoming.remote_address().ip())) else {
            incoming.refuse();
            return;
        };
        let deadline = Duration::from_millis(shared.config.limits.handshake_ms());
        let connecting = async {
            let connection = incoming.await.map_err(|_| ReadError::Gone)?;
            Ok::<_, ReadError>(connection)
        };
        let Ok(Ok(connection)) = tokio::time::timeout(deadline, connecting).await else {
            return;
        };
        if quic::alpn(&connection).as_deref() == Some(ALPN_SERVER) {
            drop(place);
            if let Ok(federation) = shared.federation() {
                Box::pin(federation.accept(connection)).await;
            }
            return;
        }
        let proven = tokio::time::timeout(deadline, handshake(&shared, &connection)).await;
        match proven.unwrap_or_else(|_| Err(Code::AUTH_REQUIRED.because("handshake_ms").into())) {
            Ok((opened, send, reader)) => {
                run(shared, connection, (opened, place), (send, reader), stopping).await;
            }
            Err(ReadError::Refused(refusal)) => wire::close(&connection, &refusal),
            Err(ReadError::Gone) => {}
        }
    })
}

/// Who opened a connection, with what its program can do.
#[derive(Clone, Copy)]
struct Opened {
    who: Who,
    groups: bool,
}

async fn handshake(
    shared: &Arc<Shared>,
    connection: &Connection,
) -> Result<(Opened, SendStream, Reader), ReadError> {
    let (mut send, receive): (SendStream, RecvStream) =
        connection.accept_bi().await.map_err(|_| ReadError::Gone)?;
    let mut reader = Reader::new(receive, shared.config.limits.control_frame_bytes_max());
    let mut machine = Acceptor::new(acceptor_config(shared, connection));
    loop {
        let raw = reader.raw().await?.ok_or(ReadError::Gone)?;
        let mut events: std::collections::VecDeque<_> = match machine.handle(&raw) {
            Ok(events) => events.into(),
            Err(refusal) if raw.kind == pb::Failure::KIND => {
                shared.heed(&refusal).await;
                return Err(ReadError::Refused(Code::GOING_AWAY.into()));
            }
            Err(refusal) => return Err(refuse(&mut send, refusal).await),
        };
        while let Some(event) = events.pop_front() {
            match event {
                AcceptorEvent::LookUp(identity) => match machine.found(look_up(shared, &identity).await) {
                    Ok(more) => events.extend(more),
                    Err(refusal) => return Err(refuse(&mut send, refusal).await),
                },
                AcceptorEvent::Send(frame) => {
                    let bytes = frame.encode().map_err(|error| wire::refusal_of(&error))?;
                    wire::write_bytes(&mut send, bytes).await?;
                }
                AcceptorEvent::Proven(client) => {
                    let client = client.into_value();
                    let who = match client.identity {
                        Identity::Device { account, device } => Who::Device(account, device),
                        Identity::Candidate(key) => Who::Candidate(key),
                        Identity::Peer { .. } => {
                            return Err(Code::NOT_PERMITTED.because("peers use another protocol").into());
                        }
                    };
                    let groups = client.hello.capabilities.contains(&capabilities::GROUPS);
                    return Ok((Opened { who, groups }, send, reader));
                }
            }
        }
    }
}

async fn refuse(send: &mut SendStream, refusal: Refusal) -> ReadError {
    // The close that follows carries the same; that this frame arrives is not needed.
    let _unsent = wire::write_refusal(send, &refusal).await;
    ReadError::Refused(refusal)
}

fn acceptor_config(shared: &Arc<Shared>, connection: &Connection) -> AcceptorConfig {
    AcceptorConfig {
        alpn: quic::alpn(connection).unwrap_or_default(),
        between_servers: false,
        domain: shared.config.domain.clone(),
        chain: shared.identity.chain.clone(),
        links: shared.identity.links.clone(),
        key: shared.identity.key.clone(),
        exporter: quic::exporter(connection),
        nonce_proof: true,
        nonce: shared.random(),
        capabilities: super::CAPABILITIES.to_vec(),
        welcome: pb::Welcome {
            boot_id: bytes::Bytes::copy_from_slice(&shared.boot_id),
            incarnation: shared.incarnation().to_bytes(),
            limits: shared.config.limits.advertised(),
            registration: pb::Registration::from(shared.config.registration).into(),
            software: super::SOFTWARE.to_owned(),
            ..Default::default()
        },
    }
}

async fn look_up(shared: &Shared, identity: &Identity) -> Found {
    let Identity::Device { account, device } = identity else {
        return Found::Candidate;
    };
    let needs = [Need::Account(*account), Need::Stock(*device)];
    let found = shared.state.view(&needs, |world| {
        let Some(held) = world.local(account) else {
            return Found::Refused(Code::AUTH_UNKNOWN.into());
        };
        let state = held.chain.state();
        match state.device(device) {
            Some(_) if state.is_closed() => Found::Refused(Code::AUTH_REMOVED.into()),
            Some(keys) => Found::Device(keys.key()),
            None if state.was_removed(device) => Found::Refused(Code::AUTH_REMOVED.into()),
            None => Found::Refused(Code::AUTH_UNKNOWN.into()),
        }
    });
    found.await.unwrap_or_else(Found::Refused)
}

async fn run(
    shared: Arc<Shared>,
    connection: Connection,
    (Opened { who, groups }, place): (Opened, Place),
    (mut send, reader): (SendStream, Reader),
    mut stopping: watch::Receiver<bool>,
) {
    // A candidate keeps its place in the budget, a device gives it back.
    let _place = match who {
        Who::Device(_, device) => {
            shared.sessions.enter(device, connection.clone());
            shared.state.connected(device);
            drop(place);
            None
        }
        Who::Candidate(_) => Some(place),
    };
    let device = match who {
        Who::Device(account, device) => shared.device_state((account, device)).await,
        Who::Candidate(_) => None,
    };
    let session = Arc::new(Session {
        requests: Mutex::new(RequestBudget::new(shared.config.limits.requests_per_second(), shared.now_ms())),
        shared,
        connection,
        who,
        submitting: AtomicBool::new(false),
        seat: Mutex::new(None),
        acknowledged: watch::channel(0).0,
        pump: Mutex::new(JoinSet::new()),
        feed: Mutex::new(None),
        groups,
        stopping: stopping.clone(),
    });
    let there = matches!(who, Who::Candidate(_)) || device.is_some();
    if there && wire::write(&mut send, &pb::Ready { device }).await.is_ok() {
        let mut tasks = JoinSet::new();
        let acknowledgements = JoinSet::from_iter([control(Arc::clone(&session), reader)]);
        let ended = serve_streams(&session, (&mut tasks, acknowledgements), &mut stopping).await;
        if let Err(refusal) = ended {
            if refusal.code == Code::GOING_AWAY {
                drain(&mut send, &session, &mut tasks, &refusal).await;
            } else {
                let _unsent = wire::write_refusal(&mut send, &refusal).await;
            }
            wire::close(&session.connection, &refusal);
        }
        tasks.shutdown().await;
    }
    if let Who::Device(_, device) = who {
        session.shared.sessions.leave(device, &session.connection);
        session.shared.state.disconnected(device);
    }
    session.pump.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    if let Who::Device(account, _) = who {
        drop(session.feed.lock().unwrap_or_else(PoisonError::into_inner).take());
        session.shared.groups.unfeed(account);
    }
}

/// Says that the server goes, answers what was read, and lets the client close.
async fn drain(send: &mut SendStream, session: &Session, tasks: &mut Streams, refusal: &Refusal) {
    let away = pb::GoAway { reconnect_after_ms: 500, jitter_ms: 5000, reason: Some(refusal.to_pb()) };
    let _unsent = wire::write(send, &away).await;
    let answered = async {
        while tasks.join_next().await.is_some() {}
        // The client closes when it has its answers; until then they may be on their way.
        session.connection.closed().await;
    };
    let _closed_by_client = tokio::time::timeout(DRAIN, answered).await;
}

/// Until the connection is gone, a stream broke a rule of the connection, or the server stops.
async fn serve_streams(
    session: &Arc<Session>,
    (tasks, mut control): (&mut Streams, Streams),
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), Refusal> {
    let most = crate::config::Limits::size(session.shared.config.limits.pipelines_max());
    loop {
        tokio::select! {
            accepted = session.connection.accept_bi() => {
                let Ok((mut send, receive)) = accepted else { return Ok(()) };
                if tasks.len() >= most {
                    let _unsent = wire::write_refusal(&mut send, &Code::TOO_MANY_STREAMS.into()).await;
                    continue;
                }
                tasks.spawn(pipeline::run(Arc::clone(session), send, receive));
            }
            Some(ended) = next_end(tasks, &mut control) => match ended {
                Ok(Err(ReadError::Refused(refusal))) => return Err(refusal),
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "a stream's task ended badly");
                    return Err(Code::INTERNAL.into());
                }
            },
            () = super::quic::stopped(stopping) => return Err(Code::GOING_AWAY.into()),
        }
    }
}

/// The next task that ended; pending while none runs.
async fn next_end(
    tasks: &mut Streams,
    control: &mut Streams,
) -> Option<Result<Result<(), ReadError>, tokio::task::JoinError>> {
    tokio::select! {
        Some(ended) = tasks.join_next() => Some(ended),
        Some(ended) = control.join_next() => Some(ended),
        else => None,
    }
}

/// The control stream after Ready: acknowledgements, going away.
async fn control(session: Arc<Session>, mut reader: Reader) -> Result<(), ReadError> {
    while let Some((frame, _)) = reader.frame().await? {
        match (frame, session.who) {
            (Frame::Ack(ack), Who::Device(account, device)) => {
                let n = session.shared.acknowledge((account, device), &ack).await?;
                session.acknowledged.send_if_modified(|held| {
                    let moved = n > *held;
                    *held = n.max(*held);
                    moved
                });
            }
            (Frame::GroupAck(ack), Who::Device(account, device)) => {
                let acknowledged = session.shared.acknowledge_group((account, device), &ack).await?;
                if let (Some((group, seq)), Some(feed)) = (acknowledged, session.feed()) {
                    feed.acknowledged(group, seq);
                }
            }
            (Frame::GoAway(_), _) => return Ok(()),
            (Frame::Failure(failure), _) => {
                session.shared.heed(&failure.into()).await;
                return Err(Code::GOING_AWAY.because("the client refused").into());
            }
            (frame, _) => return Err(Code::FRAME_UNEXPECTED.because(frame.name()).into()),
        }
    }
    Ok(())
}
