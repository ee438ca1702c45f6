//! A proven connection to the home: control stream, request pipelines, event stream (spec 02-session).
//!
//! Invariant: nothing is asked before both sides are proven. A refusal of a request leaves the
//! connection as it was; everything else that goes wrong ends it, and the driver dials again.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::Message as _;
use tidings_proto::chain::{ServerState, Verified};
use tidings_proto::codec::{self, Frame, FrameMessage};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::{FrameLimits, RawFrame};
use tidings_proto::handshake::{ALPN_CLIENT, Credentials, Opener, OpenerConfig, OpenerEvent, Server};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::quic::{FrameReader, FrameWriter, exporter, frames, hand_over};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::net;
use crate::options::Options;

/// Time within which both sides are proven (`handshake_ms`).
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time within which a request is answered (`request_deadline_ms`), and a little for the way.
const ANSWER: Duration = Duration::from_secs(20);

/// Time in which a home acknowledges a packet, or is gone: a home that was cut off does not say so, and the
/// transport waits for a minute before it does.
pub(crate) const DEAF: Duration = Duration::from_secs(4);

/// Why there is no connection, or no longer one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HomeError {
    /// The home said why.
    #[error("{0}")]
    Refused(Refusal),
    /// It broke a rule; it is to be told so.
    #[error("the home broke a rule: {0}")]
    Violation(Refusal),
    /// It could not be reached, or went away.
    #[error("{0}")]
    Lost(String),
}

impl From<tidings_proto::quic::StreamError> for HomeError {
    fn from(error: tidings_proto::quic::StreamError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// What dialling needs beside the options.
pub(crate) struct Dial<'a> {
    pub(crate) options: &'a Options,
    pub(crate) domain: &'a Domain,
    pub(crate) server: Option<Verified<ServerState>>,
    /// The links of that chain: a home that has lost some is handed them.
    pub(crate) server_links: Vec<pb::Link>,
    pub(crate) credentials: Credentials,
    pub(crate) nonce: [u8; 32],
    pub(crate) boot_id: [u8; 16],
}

/// The connection.
pub(crate) struct Home {
    pub(crate) connection: quinn::Connection,
    /// The home as it proved itself: its chain is to be held from now on.
    pub(crate) server: Server,
    /// This device's state at the home; none for a candidate.
    pub(crate) device: Option<pb::DeviceState>,
    /// Acknowledgements go here.
    pub(crate) control: FrameWriter,
    /// GoAway and failures of the connection come here.
    pub(crate) notices: Notices,
}

impl Home {
    /// Dials and proves both sides to each other.
    pub(crate) async fn dial(dial: Dial<'_>) -> Result<Self, HomeError> {
        let connecting = tokio::time::timeout(HANDSHAKE, net::connect(dial.options, dial.domain));
        let unreachable = |_| HomeError::Lost("the home cannot be reached".to_owned());
        let connection = connecting.await.map_err(unreachable)?.map_err(HomeError::Lost)?;
        let handshake = Self::prove(connection.clone(), dial);
        let late = |_| HomeError::Lost("the home did not answer in time".to_owned());
        let proven = tokio::time::timeout(HANDSHAKE, handshake).await.map_err(late).flatten();
        proven.map_err(|error| match (error, connection.close_reason()) {
            // The home's own word says more than a broken stream.
            (HomeError::Lost(reason), Some(quinn::ConnectionError::ApplicationClosed(close))) => {
                pb::Failure::decode(close.reason)
                    .map_or(HomeError::Lost(reason), |f| HomeError::Refused(f.into()))
            }
            (error, _) => {
                close(&connection, error.violation());
                error
            }
        })
    }

    async fn prove(connection: quinn::Connection, dial: Dial<'_>) -> Result<Self, HomeError> {
        let lost = |error: quinn::ConnectionError| HomeError::Lost(error.to_string());
        let (mut control, mut notices) =
            frames(connection.open_bi().await.map_err(lost)?, FrameLimits::default());
        let (mut opener, first) = Opener::start(OpenerConfig {
            alpn: ALPN_CLIENT.to_owned(),
            domain: dial.domain.clone(),
            server: dial.server,
            server_links: dial.server_links,
            credentials: dial.credentials,
            exporter: exporter(&connection),
            nonce_proof: false,
            nonce: dial.nonce,
            boot_id: dial.boot_id,
            capabilities: crate::engine::CAPABILITIES.to_vec(),
            software: concat!("tidings-client/", env!("CARGO_PKG_VERSION")).to_owned(),
        });
        control.write_all(&first).await?;
        let mut server = None;
        loop {
            let raw = notices.next_frame().await?;
            let raw = raw.ok_or_else(|| HomeError::Lost("the home closed the connection".to_owned()))?;
            let told = matches!(Frame::from_raw(&raw), Ok(Some(Frame::Failure(_))));
            let refused =
                |refusal| if told { HomeError::Refused(refusal) } else { HomeError::Violation(refusal) };
            let events = match opener.handle(&raw) {
                Err(refusal) if !told && !refusal.links.is_empty() => {
                    // It was restored from an old copy; it mends that with what it is handed, and is dialled again.
                    hand_over(&mut control, &connection, &refusal.to_pb()).await;
                    return Err(HomeError::Lost(refusal.to_string()));
                }
                events => events.map_err(refused)?,
            };
            for event in events {
                match event {
                    OpenerEvent::Send(frame) => control.write(&frame).await?,
                    OpenerEvent::Proven(proven) => server = Some(proven.into_value()),
                    OpenerEvent::Ready(device) => {
                        let server = server.take().ok_or_else(|| {
                            HomeError::Lost("the home was ready before it was proven".to_owned())
                        })?;
                        let stated = server.welcome.incarnation.as_ref();
                        if stated != server.chain.state().incarnation().as_ref() {
                            // LOG-064: the chain is signed, Welcome alone is not.
                            let refusal =
                                Refusal::new(Code::WRONG_SERVER, "welcome states another incarnation");
                            return Err(HomeError::Violation(refusal));
                        }
                        let notices = Notices::watch(notices, connection.clone());
                        return Ok(Self { connection, server, device, control, notices });
                    }
                }
            }
        }
    }

    /// Opens a pipeline; its class is that of the first request on it.
    pub(crate) async fn pipeline(&self) -> Result<Pipeline, HomeError> {
        Self::pipeline_on(&self.connection).await
    }

    /// As [`Self::pipeline`], for tasks beside the session.
    pub(crate) async fn pipeline_on(connection: &quinn::Connection) -> Result<Pipeline, HomeError> {
        let streams = connection.open_bi().await.map_err(|error| HomeError::Lost(error.to_string()))?;
        let (writer, reader) = frames(streams, FrameLimits::default());
        Ok(Pipeline { connection: connection.clone(), writer, reader })
    }
}

/// What comes on the control stream after the handshake. It is read whatever else is waited for: a home that refuses
/// the connection says why there, and answers nothing any more.
pub(crate) struct Notices {
    /// Frames but failures; it ends with the stream.
    pub(crate) frames: mpsc::Receiver<RawFrame>,
    /// Why the home ended the connection.
    pub(crate) said: Arc<OnceLock<Refusal>>,
    _watch: JoinSet<()>,
}

impl Notices {
    fn watch(mut reader: FrameReader, connection: quinn::Connection) -> Self {
        let (tell, frames) = mpsc::channel(8);
        let said = Arc::new(OnceLock::new());
        let word = said.clone();
        let mut watch = JoinSet::new();
        watch.spawn(async move {
            while let Ok(Some(raw)) = reader.next_frame().await {
                if let Ok(Some(Frame::Failure(failure))) = Frame::from_raw(&raw) {
                    word.get_or_init(|| Refusal::from(failure));
                    // Whoever waits for an answer waits no longer.
                    connection.close(0_u32.into(), b"");
                    return;
                }
                if tell.send(raw).await.is_err() {
                    return;
                }
            }
        });
        Self { frames, said, _watch: watch }
    }
}

/// Closes a connection; with what the home did wrong, if that is why.
pub(crate) fn close(connection: &quinn::Connection, violation: Option<&Refusal>) {
    match violation {
        Some(refusal) => connection.close(refusal.code.0.into(), &refusal.to_pb().encode_to_vec()),
        None => connection.close(0_u32.into(), b""),
    }
}

impl HomeError {
    fn violation(&self) -> Option<&Refusal> {
        match self {
            Self::Violation(refusal) => Some(refusal),
            Self::Refused(_) | Self::Lost(_) => None,
        }
    }
}

/// The value of a limit that the home advertised, or the registry's.
pub(crate) fn limit(welcome: &pb::Welcome, id: u32, default: u64) -> u64 {
    welcome.limits.iter().find(|limit| limit.id == id).map_or(default, |limit| limit.value)
}

/// A pipeline used for one request after the other.
pub(crate) struct Pipeline {
    connection: quinn::Connection,
    pub(crate) writer: FrameWriter,
    pub(crate) reader: FrameReader,
}

impl Pipeline {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask<A: FrameMessage>(&mut self, request: &impl FrameMessage) -> Result<A, HomeError> {
        self.writer.send(request).await?;
        let deaf = deaf(&self.connection);
        let raw = tokio::select! {
            raw = tokio::time::timeout(ANSWER, self.reader.next_frame()) => {
                raw.map_err(|_| HomeError::Lost("the home did not answer a request in time".to_owned()))??
            }
            () = deaf => return Err(HomeError::Lost("the home does not answer any more".to_owned())),
        };
        let raw = raw.ok_or_else(|| HomeError::Lost("the home ended a pipeline".to_owned()))?;
        answer(&raw)
    }
}

/// Ends when nothing at all was heard for [`DEAF`], although something is due.
async fn deaf(connection: &quinn::Connection) {
    let mut heard = connection.stats().udp_rx.datagrams;
    loop {
        tokio::time::sleep(DEAF).await;
        let now = connection.stats().udp_rx.datagrams;
        if now == heard {
            return;
        }
        heard = now;
    }
}

/// Reads an answer: the expected frame, or the refusal in its place.
pub(crate) fn answer<A: FrameMessage>(raw: &RawFrame) -> Result<A, HomeError> {
    if let Ok(Some(Frame::Failure(failure))) = Frame::from_raw(raw) {
        return Err(HomeError::Refused(failure.into()));
    }
    codec::decode(raw)
        .map_err(|error| HomeError::Violation(Refusal::new(Code::FRAME_UNEXPECTED, error.to_string())))
}
