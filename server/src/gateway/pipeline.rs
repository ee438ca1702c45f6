//! A pipeline: requests in, answers out, in order; one class of requests each.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream};
use tidings_proto::codec::{self, Frame};
use tidings_proto::id::{AccountId, DeviceId};
use tidings_proto::pb;

use super::session::{Session, Who};
use super::wire::{self, ReadError, Reader};
use super::{pump, quic};
use crate::accounts::rendezvous::{Seat, Side};
use crate::groups::Feed;
use crate::messages::Submission;
use crate::refusal::{Because as _, Code, Refusal};
use crate::state::Need;

/// Which requests belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Answered by this server alone.
    Local,
    /// May wait for others.
    Remote,
    /// Submissions, of which a connection has one pipeline.
    Submit,
}

/// The class of a request; `None` for what is no request.
const fn class_of(frame: &Frame) -> Option<Class> {
    match frame {
        Frame::Sync(_)
        | Frame::Register(_)
        | Frame::AppendLink(_)
        | Frame::PublishRecord(_)
        | Frame::PublishKeys(_)
        | Frame::MarkRead(_)
        | Frame::Decide(_)
        | Frame::GroupRewind(_)
        | Frame::GroupMarkRead(_) => Some(Class::Local),
        Frame::Resolve(_)
        | Frame::FetchBundles(_)
        | Frame::GroupCreate(_)
        | Frame::GroupAppend(_)
        | Frame::GroupFetch(_)
        | Frame::GroupMarksFetch(_)
        | Frame::RendezvousJoin(_)
        | Frame::RendezvousSend(_)
        | Frame::RendezvousReceive(_) => Some(Class::Remote),
        Frame::Submit(_) => Some(Class::Submit),
        _ => None,
    }
}

/// Serves one pipeline to its end. An error of connection scope ends the connection.
pub(super) async fn run(
    session: Arc<Session>,
    mut send: SendStream,
    receive: RecvStream,
) -> Result<(), ReadError> {
    let mut reader = Reader::new(receive, session.shared.config.limits.frame_bytes_max());
    let mut class = None;
    let result = serve(&session, &mut send, &mut reader, &mut class).await;
    if class == Some(Class::Submit) {
        session.submitting.store(false, Ordering::Release);
    }
    let Err(ReadError::Refused(refusal)) = result else {
        return Ok(());
    };
    let _unsent = wire::write_refusal(&mut send, &refusal).await;
    let _finished = send.finish();
    if refusal.scope == pb::Scope::Connection { Err(refusal.into()) } else { Ok(()) }
}

async fn serve(
    session: &Arc<Session>,
    send: &mut SendStream,
    reader: &mut Reader,
    class: &mut Option<Class>,
) -> Result<(), ReadError> {
    let mut behind = false;
    let mut stopping = session.stopping.clone();
    loop {
        let read = tokio::select! {
            biased;
            read = reader.raw() => read?,
            // What was read is answered; nothing more is read here.
            () = quic::stopped(&mut stopping) => None,
        };
        let Some(raw) = read else {
            let _ended = send.finish();
            return Ok(());
        };
        let frame = match Frame::from_raw(&raw).map_err(|error| wire::refusal_of(&error)) {
            Ok(Some(frame)) => frame,
            Ok(None) => continue,
            // What cannot be parsed is refused in its place; the frame around it was whole.
            Err(refusal) if refusal.scope == pb::Scope::Request => {
                wire::write_refusal(send, &refusal).await?;
                continue;
            }
            Err(refusal) => return Err(refusal.into()),
        };
        if let Frame::Ping(ping) = frame {
            wire::write(send, &pb::Pong { opaque: ping.opaque }).await?;
            continue;
        }
        let own = class_of(&frame).ok_or_else(|| Code::FRAME_UNEXPECTED.because(frame.name()))?;
        enter(session, class, own)?;
        let spent = {
            let mut requests = session.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.take(session.shared.now_ms())
        };
        let answer = match spent {
            Err(wait) => Err(Refusal::from(Code::TOO_FAST).after(Duration::from_millis(wait.into()))),
            Ok(()) => {
                let deadline = Duration::from_millis(session.shared.config.limits.request_deadline_ms());
                let answer =
                    tokio::time::timeout(deadline, Box::pin(answer(session, frame, &raw.payload, behind)))
                        .await;
                answer.unwrap_or_else(|_| Err(Code::TIMED_OUT.into()))
            }
        };
        if own == Class::Submit {
            behind = answer.as_ref().is_err_and(|refusal| refusal.retry == pb::Retry::AfterDelay);
        }
        match answer {
            Ok(bytes) => wire::write_bytes(send, bytes).await?,
            Err(refusal) if refusal.scope == pb::Scope::Request => {
                wire::write_refusal(send, &refusal).await?
            }
            Err(refusal) => return Err(refusal.into()),
        }
    }
}

/// The first request gives a pipeline its class.
fn enter(session: &Session, class: &mut Option<Class>, own: Class) -> Result<(), Refusal> {
    match *class {
        Some(held) if held == own => Ok(()),
        Some(_) => Err(Code::WRONG_PIPELINE.into()),
        None if own == Class::Submit && session.submitting.swap(true, Ordering::AcqRel) => {
            Err(Code::WRONG_PIPELINE.because("submissions have a pipeline already"))
        }
        None => {
            *class = Some(own);
            Ok(())
        }
    }
}

async fn answer(
    session: &Arc<Session>,
    frame: Frame,
    payload: &Bytes,
    behind: bool,
) -> Result<Bytes, Refusal> {
    match (frame, session.who) {
        (Frame::RendezvousJoin(request), who) => join(session, &request, who),
        (Frame::RendezvousSend(request), _) => {
            session.shared.meetings.send(seat(session)?, request.blob, session.shared.now_ms())?;
            Ok(done())
        }
        (Frame::RendezvousReceive(_), _) => {
            let blob = session.shared.meetings.receive(seat(session)?, session.shared.now_ms()).await?;
            Ok(codec::encode(&pb::RendezvousBlob { blob }))
        }
        (Frame::Register(request), Who::Candidate(key)) => {
            session.shared.register(&key, request).await.map(|()| done())
        }
        // Whose devices are lost proves the recovery key.
        (Frame::Resolve(request), Who::Candidate(key)) => {
            session.shared.resolve_for_recovery(&key, request).await.map(|answer| codec::encode(&answer))
        }
        (Frame::AppendLink(request), Who::Candidate(key)) => {
            session.shared.append_for_recovery(&key, request).await.map(|()| done())
        }
        (frame, Who::Device(account, device)) => {
            answer_device(session, frame, payload, (account, device, behind)).await
        }
        (frame, Who::Candidate(_)) => Err(Code::NOT_PERMITTED.because(frame.name())),
    }
}

async fn answer_device(
    session: &Arc<Session>,
    frame: Frame,
    payload: &Bytes,
    (account, device, behind): (AccountId, DeviceId, bool),
) -> Result<Bytes, Refusal> {
    let shared = &session.shared;
    let listed =
        shared.state.view(&[Need::Account(account)], |world| world.device(&device).is_some()).await?;
    if !listed {
        return Err(Code::AUTH_REMOVED.into());
    }
    match frame {
        Frame::Submit(request) => {
            let to_group = !request.group.is_empty() && request.class() == pb::Class::Content;
            let submission = Submission::new(account, device, payload, request, behind);
            let outcome = if to_group {
                shared.submit_post(submission).await?
            } else {
                shared.submit(submission).await?
            };
            let frame =
                tidings_proto::frame::RawFrame::new(<pb::Outcome as codec::FrameMessage>::KIND, outcome);
            frame.encode().map_err(|error| wire::refusal_of(&error))
        }
        Frame::Sync(request) => sync(session, (account, device), &request).await,
        Frame::AppendLink(request) => shared.append_link(account, request).await.map(|()| done()),
        Frame::PublishRecord(request) => {
            shared.publish_record(account, device, request).await.map(|()| done())
        }
        Frame::PublishKeys(request) => shared.publish_keys(account, device, request).await.map(|()| done()),
        Frame::MarkRead(request) => shared.mark_read(account, device, request).await.map(|()| done()),
        Frame::Decide(request) => shared.decide(account, request).await.map(|()| done()),
        Frame::Resolve(request) => {
            shared.resolve(account, request).await.map(|answer| codec::encode(&answer))
        }
        Frame::FetchBundles(request) => {
            shared.fetch_bundles(account, request).await.map(|answer| codec::encode(&answer))
        }
        frame => answer_about_groups(session, frame, account).await,
    }
}

async fn answer_about_groups(
    session: &Arc<Session>,
    frame: Frame,
    account: AccountId,
) -> Result<Bytes, Refusal> {
    let shared = &session.shared;
    match frame {
        Frame::GroupCreate(request) => {
            shared.create_group(account, request).await.map(|answer| codec::encode(&answer))
        }
        Frame::GroupAppend(request) => {
            shared.append_to_group(account, request).await.map(|answer| codec::encode(&answer))
        }
        Frame::GroupFetch(request) => {
            shared.fetch_group(account, request).await.map(|answer| codec::encode(&answer))
        }
        Frame::GroupMarksFetch(request) => {
            shared.fetch_group_marks(account, request).await.map(|answer| codec::encode(&answer))
        }
        Frame::GroupMarkRead(request) => shared.mark_group_read(account, request).await.map(|()| done()),
        Frame::GroupRewind(request) => {
            let (group, after) = shared.rewind_group(account, &request).await?;
            // Without a stream there is nothing that could go back.
            session
                .feed()
                .ok_or_else(|| Code::NOT_PERMITTED.because("no event stream"))?
                .rewound(group, after);
            Ok(done())
        }
        other => Err(Code::NOT_PERMITTED.because(other.name())),
    }
}

/// Starts the event stream; an older one of this connection ends.
async fn sync(
    session: &Arc<Session>,
    (account, device): (AccountId, DeviceId),
    request: &pb::Sync,
) -> Result<Bytes, Refusal> {
    let start = session.shared.sync_start((account, device), request.after.as_ref()).await?;
    let stream =
        session.connection.open_uni().await.map_err(|_| Code::UNAVAILABLE.because("no event stream"))?;
    let acknowledged = session.acknowledged.subscribe();
    let mut pump = session.pump.lock().unwrap_or_else(PoisonError::into_inner);
    pump.abort_all();
    let shared = Arc::clone(&session.shared);
    let from = start.n;
    let wake = shared.wakers.of(device);
    let feed = if session.groups { shared.groups.feed(account, wake) } else { Feed::deaf(wake) };
    *session.feed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&feed));
    pump.spawn(async move {
        let who = ((account, device), feed);
        if let Err(ReadError::Refused(refusal)) = pump::run(shared, who, stream, from, acknowledged).await {
            tracing::warn!(%refusal, "an event stream ended");
        }
    });
    Ok(codec::encode(&pb::Syncing { start: Some(start) }))
}

fn join(session: &Session, request: &pb::RendezvousJoin, who: Who) -> Result<Bytes, Refusal> {
    let side = match who {
        Who::Device(..) => Side::Existing,
        Who::Candidate(_) => Side::New,
    };
    let seat = session.shared.meetings.join(&request.id, side, session.shared.now_ms())?;
    *session.seat.lock().unwrap_or_else(PoisonError::into_inner) = Some(seat);
    Ok(done())
}

fn seat(session: &Session) -> Result<Seat, Refusal> {
    let seat = *session.seat.lock().unwrap_or_else(PoisonError::into_inner);
    seat.ok_or_else(|| Code::RENDEZVOUS_UNKNOWN.because("no meeting was joined"))
}

fn done() -> Bytes {
    codec::encode(&pb::Done {})
}
