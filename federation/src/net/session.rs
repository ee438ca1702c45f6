//! The streams of a proven connection as channels: the peer's task reads frames and events, and writes frames.
//!
//! Dropping a session ends its tasks; closing the connection is up to the owner.

use std::sync::{Arc, Mutex};

use quinn::Connection;
use tidings_proto::codec::Frame;
use tidings_proto::error::{Code, Refusal, Scope};
use tidings_proto::frame::{FrameLimits, RawFrame};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::quic::{FrameReader, FrameWriter, StreamError};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::Shared;
use super::budget::{Budget, Rate};
use super::handshake::{Proven, ended};
use super::remote::{self, Server};
use crate::peer::Opened;

/// Frames between the tasks of a connection and its peer's task.
const FRAMES: usize = 64;

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// The peer will close.
    GoAway(pb::GoAway),
    /// The peer broke a rule: close with this.
    Broke(Refusal),
    /// It is gone.
    Gone(Refusal),
}

/// A proven connection that serves.
pub(super) struct Session {
    pub(super) connection: Connection,
    pub(super) opened: Opened,
    pub(super) out: mpsc::Sender<RawFrame>,
    pub(super) frames: mpsc::Receiver<Frame>,
    pub(super) events: mpsc::Receiver<SessionEvent>,
    pub(super) control: FrameWriter,
    /// Pipelines for requests, but those of groups.
    places: Arc<Semaphore>,
    /// Pipelines for requests of groups.
    group_places: Arc<Semaphore>,
    /// GoAway came: no new streams.
    pub(super) leaving: bool,
    _tasks: JoinSet<()>,
}

impl Session {
    /// Serves a connection. Ready has been sent or has come. The peer takes so many pipelines at once.
    pub(super) fn start(shared: &Arc<Shared>, domain: &Domain, proven: Proven, pipelines: usize) -> Self {
        let connection = proven.connection;
        let (control, reader) = proven.control;
        let (out, outgoing) = mpsc::channel(FRAMES);
        let (incoming, frames) = mpsc::channel(FRAMES);
        let (tell, events) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(read_control(reader, tell.clone()));
        tasks.spawn(write_link(connection.clone(), outgoing));
        let limits = FrameLimits::new(shared.settings.frame_bytes);
        tasks.spawn(read_link(connection.clone(), limits, incoming, tell.clone()));
        let budget = |rate| Mutex::new(Budget::new(Rate::per_second(rate)));
        let server = Server {
            shared: Arc::clone(shared),
            domain: domain.clone(),
            budget: budget(shared.settings.requests_per_second),
            group_budget: budget(shared.settings.group_requests_per_second),
        };
        tasks.spawn(serve(Arc::new(server), connection.clone(), tell.clone()));
        tasks.spawn(watch(connection.clone(), tell));
        let (places, group_places) = places(pipelines);
        Self {
            connection,
            opened: proven.opened,
            out,
            frames,
            events,
            control,
            places,
            group_places,
            leaving: false,
            _tasks: tasks,
        }
    }

    /// The pipelines that a request of this type may take one of.
    pub(super) fn places_of(&self, kind: u64) -> Arc<Semaphore> {
        Arc::clone(if remote::is_of_groups(kind) { &self.group_places } else { &self.places })
    }

    /// Asks for nothing any more.
    pub(super) fn close_places(&self) {
        self.places.close();
        self.group_places.close();
    }
}

/// Half of the pipelines for groups, half for the rest; one that is all there is serves both.
fn places(pipelines: usize) -> (Arc<Semaphore>, Arc<Semaphore>) {
    let all = pipelines.clamp(1, 64);
    let half = all / 2;
    let rest = Arc::new(Semaphore::new(all.saturating_sub(half)));
    let of_groups = if half == 0 { Arc::clone(&rest) } else { Arc::new(Semaphore::new(half)) };
    (rest, of_groups)
}

async fn watch(connection: Connection, tell: mpsc::Sender<SessionEvent>) {
    let error = connection.closed().await;
    let _nobody = tell.send(SessionEvent::Gone(ended(&error))).await;
}

async fn serve(server: Arc<Server>, connection: Connection, tell: mpsc::Sender<SessionEvent>) {
    if let Some(refusal) = remote::serve(server, connection).await {
        let _nobody = tell.send(SessionEvent::Broke(refusal)).await;
    }
}

/// What a stream's fault is for the connection; `None` if the stream is only gone, which the connection tells.
fn fault(error: StreamError) -> Option<Refusal> {
    match error {
        StreamError::Frame(error) => {
            let mut refusal = Refusal::from(&error);
            refusal.scope = Scope::Connection;
            Some(refusal)
        }
        StreamError::Read(_) | StreamError::Write(_) => None,
    }
}

async fn read_control(mut reader: FrameReader, tell: mpsc::Sender<SessionEvent>) {
    loop {
        let read = match reader.next_frame().await {
            Ok(Some(raw)) => Frame::from_raw(&raw).map_err(StreamError::from),
            // The end of the control stream ends nothing (02-session, 2.5).
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let event = match read {
            Ok(None) => continue,
            Ok(Some(Frame::GoAway(away))) => SessionEvent::GoAway(away),
            Ok(Some(Frame::Failure(failure))) => SessionEvent::Gone(failure.into()),
            Ok(Some(frame)) => SessionEvent::Broke(Refusal::new(Code::FRAME_UNEXPECTED, frame.name())),
            Err(error) => match fault(error) {
                Some(refusal) => SessionEvent::Broke(refusal),
                None => return,
            },
        };
        let last = !matches!(event, SessionEvent::GoAway(_));
        if tell.send(event).await.is_err() || last {
            return;
        }
    }
}

async fn write_link(connection: Connection, mut outgoing: mpsc::Receiver<RawFrame>) {
    // An error here is the connection's end, which `watch` tells.
    let Ok(stream) = connection.open_uni().await else { return };
    let mut writer = FrameWriter::new(stream);
    let mut frames = Vec::with_capacity(FRAMES);
    while outgoing.recv_many(&mut frames, FRAMES).await > 0 {
        if writer.write_all(&frames).await.is_err() {
            return;
        }
        frames.clear();
    }
}

async fn read_link(
    connection: Connection,
    limits: FrameLimits,
    incoming: mpsc::Sender<Frame>,
    tell: mpsc::Sender<SessionEvent>,
) {
    let Ok(stream) = connection.accept_uni().await else { return };
    let reading = read_frames(FrameReader::new(stream, limits), incoming);
    let refusal = tokio::select! {
        refusal = reading => refusal,
        second = connection.accept_uni() => {
            second.is_ok().then(|| Refusal::new(Code::FRAME_UNEXPECTED, "a second link stream"))
        }
    };
    if let Some(refusal) = refusal {
        let _nobody = tell.send(SessionEvent::Broke(refusal)).await;
    }
}

async fn read_frames(mut reader: FrameReader, incoming: mpsc::Sender<Frame>) -> Option<Refusal> {
    loop {
        let raw = match reader.next_frame().await {
            Ok(Some(raw)) => raw,
            Ok(None) => return Some(Refusal::new(Code::FRAME_UNEXPECTED, "the link stream ended")),
            Err(error) => return fault(error),
        };
        match Frame::from_raw(&raw) {
            Ok(Some(Frame::Failure(failure))) => return Some(failure.into()),
            Ok(Some(frame)) => incoming.send(frame).await.ok()?,
            Ok(None) => {}
            Err(error) => return fault(error.into()),
        }
    }
}
