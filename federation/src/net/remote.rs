//! Remote requests between homes: Resolve, FetchBundles and those of groups, both ways (chapter 09, 9.9; chapter 02,
//! 2.6; chapter 07).
//!
//! Each request of this side goes on a pipeline of its own, so that none waits behind another; semaphores keep
//! them within the peer's `pipelines_max`. Requests of groups have places and a budget of their own: a busy group
//! holds up nobody's look-up, and look-ups hold up no group.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tidings_proto::codec::{self, Frame, FrameMessage as _};
use tidings_proto::error::{Code, Refusal, Scope};
use tidings_proto::frame::{FrameLimits, RawFrame};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::quic::{self, FrameReader, FrameWriter, StreamError};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Shared;
use super::budget::Budget;

/// Asks the peer at the other end of a connection.
pub(super) async fn ask(
    connection: Connection,
    places: Arc<Semaphore>,
    request: RawFrame,
    frame_bytes: usize,
) -> Result<Frame, Refusal> {
    let gone = |detail: String| Refusal::new(Code::PEER_UNREACHABLE, detail);
    let _place = places.acquire_owned().await.map_err(|error| gone(error.to_string()))?;
    let streams = connection.open_bi().await.map_err(|error| gone(error.to_string()))?;
    let (mut writer, mut reader) = quic::frames(streams, FrameLimits::new(frame_bytes));
    writer.write(&request).await.map_err(|error| gone(error.to_string()))?;
    writer.finish();
    loop {
        let raw = reader.next_frame().await.map_err(|error| gone(error.to_string()))?;
        let raw = raw.ok_or_else(|| gone("the pipeline ended without an answer".to_owned()))?;
        match Frame::from_raw(&raw) {
            Ok(Some(Frame::Failure(failure))) => {
                let refusal = Refusal::from(failure);
                let of_request = refusal.scope == Scope::Request;
                return Err(if of_request { refusal } else { gone(refusal.to_string()) });
            }
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(error) => return Err(gone(error.to_string())),
        }
    }
}

/// What is needed to serve the pipelines of one connection.
pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) domain: Domain,
    pub(super) budget: Mutex<Budget>,
    /// Of the requests of groups.
    pub(super) group_budget: Mutex<Budget>,
}

/// Whether a request of this type is about a group.
pub(super) const fn is_of_groups(kind: u64) -> bool {
    matches!(
        kind,
        pb::GroupBatch::KIND
            | pb::GroupOffer::KIND
            | pb::GroupAppend::KIND
            | pb::GroupFetch::KIND
            | pb::GroupMarks::KIND
            | pb::GroupMarksFetch::KIND
            | pb::KeeperAsk::KIND
            | pb::KeeperPropose::KIND
    )
}

/// Serves a peer's pipelines until one breaks a rule of the connection, or the connection ends.
pub(super) async fn serve(server: Arc<Server>, connection: Connection) -> Option<Refusal> {
    let most = server.shared.settings.pipelines_max;
    let frame_bytes = server.shared.settings.frame_bytes;
    let mut pipelines = JoinSet::new();
    loop {
        tokio::select! {
            accepted = connection.accept_bi() => {
                let (mut writer, reader) = quic::frames(accepted.ok()?, FrameLimits::new(frame_bytes));
                if pipelines.len() >= most {
                    let failure = Refusal::from(Code::TOO_MANY_STREAMS).to_pb();
                    super::handshake::tell(&mut writer, &failure).await;
                    writer.finish();
                } else {
                    pipelines.spawn(pipeline(Arc::clone(&server), writer, reader));
                }
            }
            Some(ended) = pipelines.join_next() => {
                if let Ok(Err(refusal)) = ended && refusal.scope == Scope::Connection {
                    return Some(refusal);
                }
            }
        }
    }
}

async fn pipeline(
    server: Arc<Server>,
    mut writer: FrameWriter,
    mut reader: FrameReader,
) -> Result<(), Refusal> {
    let ended = answer_all(&server, &mut writer, &mut reader).await;
    if let Err(refusal) = &ended {
        super::handshake::tell(&mut writer, &refusal.to_pb()).await;
    }
    writer.finish();
    ended
}

async fn answer_all(
    server: &Server,
    writer: &mut FrameWriter,
    reader: &mut FrameReader,
) -> Result<(), Refusal> {
    loop {
        let raw = match reader.next_frame().await {
            Ok(Some(raw)) => raw,
            Ok(None) | Err(StreamError::Read(_) | StreamError::Write(_)) => return Ok(()),
            Err(StreamError::Frame(error)) => return Err(Refusal::from(&error)),
        };
        let frame = match Frame::from_raw(&raw).map_err(|error| Refusal::from(&error)) {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => continue,
            // What cannot be parsed is refused in its place; the frame around it was whole.
            Err(refusal) if refusal.scope == Scope::Request => Err(refusal),
            Err(refusal) => return Err(refusal),
        };
        let answer = match frame {
            Ok(frame) => answer(server, frame).await,
            Err(refusal) => Err(refusal),
        };
        let sent = match answer {
            Ok(frame) => writer.write(&frame).await,
            Err(refusal) if refusal.scope == Scope::Request => writer.send(&refusal.to_pb()).await,
            Err(refusal) => return Err(refusal),
        };
        if sent.is_err() {
            return Ok(());
        }
    }
}

async fn answer(server: &Server, frame: Frame) -> Result<RawFrame, Refusal> {
    let (host, domain) = (&server.shared.host, &server.domain);
    let request = match frame {
        Frame::Ping(pb::Ping { opaque }) if opaque.len() > 32 => return Err(Code::LIMIT_EXCEEDED.into()),
        Frame::Ping(pb::Ping { opaque }) => return Ok(codec::to_raw(&pb::Pong { opaque })),
        Frame::Resolve(_) | Frame::FetchBundles(_) => frame,
        frame if is_of_groups(frame.kind()) => frame,
        other => return Err(not_for_peers(&other)),
    };
    let of_groups = is_of_groups(request.kind());
    let budget = if of_groups { &server.group_budget } else { &server.budget };
    let spent = {
        let mut budget = budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.take(host.now_ms())
    };
    spent.map_err(|wait| Refusal::from(Code::TOO_FAST).after(wait))?;
    let answering = async {
        match request {
            Frame::Resolve(request) => {
                host.resolve(domain, request).await.map(|answer| codec::to_raw(&answer))
            }
            Frame::FetchBundles(request) => {
                host.fetch_bundles(domain, request).await.map(|answer| codec::to_raw(&answer))
            }
            request => host.group(domain, request).await,
        }
    };
    let deadline = Duration::from_millis(server.shared.settings.request_deadline_ms);
    tokio::time::timeout(deadline, answering).await.unwrap_or_else(|_| Err(Code::TIMED_OUT.into()))
}

/// A request that only devices may make is refused in its place; any other frame breaks the stream's rules.
fn not_for_peers(frame: &Frame) -> Refusal {
    let request = matches!(
        frame,
        Frame::Sync(_)
            | Frame::Register(_)
            | Frame::AppendLink(_)
            | Frame::PublishRecord(_)
            | Frame::PublishKeys(_)
            | Frame::RendezvousJoin(_)
            | Frame::RendezvousSend(_)
            | Frame::RendezvousReceive(_)
            | Frame::Submit(_)
            | Frame::MarkRead(_)
            | Frame::Decide(_)
            | Frame::GroupCreate(_)
            | Frame::GroupRewind(_)
            | Frame::GroupMarkRead(_)
    );
    Refusal::new(if request { Code::NOT_PERMITTED } else { Code::FRAME_UNEXPECTED }, frame.name())
}

/// A request as it is asked.
pub(crate) fn request<M: codec::FrameMessage>(message: &M) -> RawFrame {
    let payload: Bytes = message.encode_to_vec().into();
    RawFrame::new(M::KIND, payload)
}
