//! From a QUIC connection to a proven peer, on either side (chapter 02, 2.3 and 2.4).

use std::time::Duration;

use prost::Message as _;
use quinn::{Connection, ConnectionError, VarInt};
use tidings_proto::chain::{ServerState, Verified};
use tidings_proto::codec::{Frame, FrameMessage};
use tidings_proto::error::{Code, Refusal};
use tidings_proto::frame::{FrameLimits, RawFrame};
use tidings_proto::handshake::{
    ALPN_SERVER, Acceptor, AcceptorConfig, AcceptorEvent, ChannelBound, Client, Credentials, Found, Identity,
    Opener, OpenerConfig, OpenerEvent, Server,
};
use tidings_proto::id::ServerId;
use tidings_proto::limits;
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::quic::{self, FrameReader, FrameWriter, StreamError};

use super::Shared;
use crate::discovery::{LookUpError, Target};
use crate::host::{OwnIdentity, PeerRecord};
use crate::peer::Opened;

/// Streams without direction that a peer may open: its link stream, and one more to be told that it is too many.
const UNIDIRECTIONAL_STREAMS: u32 = 2;

/// A connection whose other end is proven, and not yet told so if it dialled.
pub(crate) struct Proven {
    pub(crate) connection: Connection,
    pub(crate) control: (FrameWriter, FrameReader),
    pub(crate) domain: Domain,
    pub(crate) genesis: ServerId,
    /// All links of its chain, genesis first.
    pub(crate) links: Vec<pb::Link>,
    /// Of its Welcome; `None` where it dialled.
    pub(crate) limits: Option<Vec<pb::Limit>>,
    pub(crate) opened: Opened,
}

/// A chain that was proven under TLS for its domain, though the connection was refused.
#[derive(Debug)]
pub(crate) struct Learnt {
    pub(crate) genesis: ServerId,
    pub(crate) links: Vec<pb::Link>,
    pub(crate) limits: Vec<pb::Limit>,
}

/// Why a dial gave no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the domain's home was not found")]
    LookUp(#[source] LookUpError),
    #[error("no QUIC connection: {0}")]
    Connect(String),
    #[error("no handshake in time")]
    TimedOut,
    #[error("the peer refused: {0}")]
    Refused(Refusal, Option<Box<Learnt>>),
    #[error("the peer had lost links of its server chain and was handed them: {0}")]
    HandedOver(Refusal),
}

/// Who ends a handshake.
enum Ended {
    /// The peer, or the network.
    There(Refusal),
    /// This side.
    Here(Refusal),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Here(refusal)
    }
}

fn gone(error: &StreamError) -> Ended {
    match error {
        StreamError::Frame(error) => Ended::Here(Refusal::from(error)),
        StreamError::Read(quinn::ReadError::ConnectionLost(lost))
        | StreamError::Write(quinn::WriteError::ConnectionLost(lost)) => Ended::There(ended(lost)),
        other => Ended::There(Refusal::new(Code::PEER_UNREACHABLE, other.to_string())),
    }
}

/// Why a connection ended, in the words of whoever ended it.
pub(super) fn ended(error: &ConnectionError) -> Refusal {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let told = pb::Failure::decode(close.reason.clone()).ok().filter(|failure| failure.code > 0);
            let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            told.map_or_else(|| Refusal::new(Code(code), ""), Refusal::from)
        }
        other => Refusal::new(Code::PEER_UNREACHABLE, other.to_string()),
    }
}

/// Ends a connection with a refusal, in the close itself: a frame just before it would be lost with it.
pub(super) fn close(connection: &Connection, refusal: &Refusal) {
    // Links would not fit: they were handed over in a frame.
    let mut short = refusal.clone().with_links(Vec::new());
    short.detail.truncate(short.detail.floor_char_boundary(64));
    connection.close(VarInt::from_u32(refusal.code.0), &short.to_pb().encode_to_vec());
}

fn control_limits() -> FrameLimits {
    FrameLimits::new(usize::try_from(limits::CONTROL_FRAME_BYTES_MAX).unwrap_or(usize::MAX))
}

/// The chain as held, and what was sent of it, as one list of links.
fn whole(held: &[pb::Link], sent: &[pb::Link], chain: &Verified<ServerState>) -> Vec<pb::Link> {
    let joined: Vec<pb::Link> = held.iter().chain(sent).cloned().collect();
    for links in [joined, sent.to_vec()] {
        if Verified::<ServerState>::verify(&links).is_ok_and(|verified| verified.head() == chain.head()) {
            return links;
        }
    }
    held.to_vec()
}

fn verified(record: Option<&PeerRecord>) -> Option<Verified<ServerState>> {
    let record = record.filter(|record| record.genesis.is_some())?;
    Verified::verify(&record.links).ok()
}

/// Dials a peer. With a record it is pinned to the record's chain; if the domain shows another one, that one is
/// proven and returned: what it means is for the peer's state to say.
pub(super) async fn dial(
    shared: &Shared,
    domain: &Domain,
    target: &Target,
    record: Option<&PeerRecord>,
) -> Result<Proven, DialError> {
    let within = Duration::from_millis(shared.settings.handshake_ms);
    let mut last = DialError::Connect("no address".to_owned());
    for address in &target.addresses {
        let connecting = match shared.endpoint.connect_with(target.config.clone(), *address, domain.as_str())
        {
            Ok(connecting) => connecting,
            Err(error) => {
                last = DialError::Connect(error.to_string());
                continue;
            }
        };
        let connection = match tokio::time::timeout(within, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                last = DialError::Connect(error.to_string());
                continue;
            }
            Err(_) => {
                last = DialError::TimedOut;
                continue;
            }
        };
        let mut learnt = None;
        let opened = open(shared, domain, &connection, record, &mut learnt);
        match tokio::time::timeout(within, Box::pin(opened)).await {
            Ok(Ok(proven)) => return Ok(proven),
            Ok(Err(Ended::Here(refusal))) if !refusal.links.is_empty() => {
                close(&connection, &refusal);
                return Err(DialError::HandedOver(refusal));
            }
            Ok(Err(Ended::There(refusal))) => {
                close(&connection, &refusal);
                shared.heed(&refusal).await;
                return Err(DialError::Refused(refusal, learnt.map(Box::new)));
            }
            Ok(Err(Ended::Here(refusal))) => {
                close(&connection, &refusal);
                return Err(DialError::Refused(refusal, learnt.map(Box::new)));
            }
            Err(_) => {
                close(&connection, &Code::TIMED_OUT.into());
                last = DialError::TimedOut;
            }
        }
    }
    Err(last)
}

fn opener_config(
    shared: &Shared,
    own: OwnIdentity,
    domain: &Domain,
    connection: &Connection,
    record: Option<&PeerRecord>,
) -> OpenerConfig {
    OpenerConfig {
        alpn: ALPN_SERVER.to_owned(),
        domain: domain.clone(),
        server: verified(record),
        server_links: record.map(|record| record.links.clone()).unwrap_or_default(),
        credentials: Credentials {
            identity: Identity::Peer { domain: own.domain().clone(), genesis: own.chain.server_id() },
            key: own.key,
            chain: own.links,
        },
        exporter: quic::exporter(connection),
        nonce_proof: false,
        nonce: shared.host.random(),
        boot_id: own.boot_id,
        capabilities: own.capabilities,
        software: own.software,
    }
}

async fn open(
    shared: &Shared,
    domain: &Domain,
    connection: &Connection,
    record: Option<&PeerRecord>,
    learnt: &mut Option<Learnt>,
) -> Result<Proven, Ended> {
    connection.set_max_concurrent_uni_streams(UNIDIRECTIONAL_STREAMS.into());
    let own = shared.host.identity();
    let own_chain = own.chain.clone();
    let streams = connection.open_bi().await.map_err(|error| Ended::There(ended(&error)))?;
    let (mut writer, mut reader) = quic::frames(streams, control_limits());
    let config = opener_config(shared, own, domain, connection, record);
    let at_ms = shared.host.now_ms();
    let (mut opener, frames) = Opener::start(config);
    writer.write_all(&frames).await.map_err(|error| gone(&error))?;
    let mut server = None;
    loop {
        let raw = next(&mut reader).await?;
        let events = match opener.handle(&raw) {
            Ok(events) => events,
            Err(refusal) => return Err(refused(connection, &mut writer, &raw, refusal).await),
        };
        for event in events {
            match event {
                OpenerEvent::Send(frame) => writer.write(&frame).await.map_err(|error| gone(&error))?,
                OpenerEvent::Proven(proven) => {
                    let Server { chain, welcome } = ChannelBound::into_value(*proven);
                    lost_own_links(&own_chain, &welcome.opener_head, domain);
                    let held = record.map_or(&[][..], |record| &record.links);
                    let links = whole(held, &welcome.server_chain, &chain);
                    let (genesis, limits) = (chain.server_id(), welcome.limits.clone());
                    *learnt = Some(Learnt { genesis, links, limits });
                    server = Some(welcome);
                }
                OpenerEvent::Ready(_) => {
                    let (Some(learnt), Some(welcome)) = (learnt.take(), server.take()) else {
                        return Err(Refusal::new(Code::AUTH_REQUIRED, "ready before the proof").into());
                    };
                    let peer_boot = welcome.boot_id.as_ref().try_into().unwrap_or_default();
                    return Ok(Proven {
                        connection: connection.clone(),
                        control: (writer, reader),
                        domain: domain.clone(),
                        genesis: learnt.genesis,
                        links: learnt.links,
                        limits: Some(learnt.limits),
                        opened: Opened { by_us: true, at_ms, peer_boot },
                    });
                }
            }
        }
    }
}

async fn next(reader: &mut FrameReader) -> Result<RawFrame, Ended> {
    let raw = reader.next_frame().await.map_err(|error| gone(&error))?;
    raw.ok_or_else(|| Ended::There(Refusal::new(Code::PEER_UNREACHABLE, "the control stream ended")))
}

/// A frame that a handshake does not go on after: the other side's refusal, or the reason for one. Links that the
/// other side has lost are handed over at once.
async fn refused(
    connection: &Connection,
    writer: &mut FrameWriter,
    raw: &RawFrame,
    refusal: Refusal,
) -> Ended {
    if raw.kind == pb::Failure::KIND {
        return Ended::There(refusal);
    }
    if !refusal.links.is_empty() {
        tracing::warn!(
            links = refusal.links.len(),
            "a peer shows an older copy of its server chain than is held here; it is handed what it lacks"
        );
        quic::hand_over(writer, connection, &refusal.to_pb()).await;
    }
    Ended::Here(refusal)
}

/// A peer that holds a head which is not on this home's own chain has seen keys that this home has lost.
fn lost_own_links(own: &Verified<ServerState>, named: &[u8], peer: &Domain) {
    if !named.is_empty() && !own.ids().iter().any(|id| id.as_ref() == named) {
        tracing::error!(
            %peer,
            "a peer holds a link of this home's server chain that is not here: was the chain restored from an old copy?"
        );
    }
}

/// Serves the acceptor's side up to the proof. Ready is not sent: first it is decided whether the peer may stay.
pub(super) async fn accept(shared: &Shared, connection: &Connection) -> Result<Proven, Refusal> {
    connection.set_max_concurrent_uni_streams(UNIDIRECTIONAL_STREAMS.into());
    let within = Duration::from_millis(shared.settings.handshake_ms);
    let proving = Box::pin(prove(shared, connection));
    match tokio::time::timeout(within, proving).await {
        Ok(Ok(proven)) => Ok(proven),
        Ok(Err(Ended::Here(refusal))) => Err(refusal),
        Ok(Err(Ended::There(refusal))) => {
            shared.heed(&refusal).await;
            Err(refusal)
        }
        Err(_) => Err(Code::AUTH_REQUIRED.into()),
    }
}

/// Until a connection that was refused is gone: its opener may have something to hand over.
pub(super) async fn last_words(shared: &Shared, connection: &Connection, control: &mut FrameReader) {
    while let Ok(Some(raw)) = control.next_frame().await {
        if let Ok(Some(Frame::Failure(failure))) = Frame::from_raw(&raw) {
            close(connection, &Code::GOING_AWAY.into());
            shared.heed(&failure.into()).await;
            return;
        }
    }
    connection.closed().await;
}

fn acceptor_config(shared: &Shared, own: OwnIdentity, connection: &Connection) -> AcceptorConfig {
    AcceptorConfig {
        alpn: ALPN_SERVER.to_owned(),
        between_servers: true,
        domain: own.domain().clone(),
        links: own.links,
        key: own.key,
        exporter: quic::exporter(connection),
        nonce_proof: false,
        nonce: shared.host.random(),
        capabilities: own.capabilities,
        welcome: pb::Welcome {
            boot_id: bytes::Bytes::copy_from_slice(&own.boot_id),
            incarnation: own.chain.state().incarnation().to_bytes(),
            limits: own.limits,
            registration: pb::Registration::Closed.into(),
            software: own.software,
            ..Default::default()
        },
        chain: own.chain,
    }
}

async fn prove(shared: &Shared, connection: &Connection) -> Result<Proven, Ended> {
    let streams = connection.accept_bi().await.map_err(|error| Ended::There(ended(&error)))?;
    let (mut writer, mut reader) = quic::frames(streams, control_limits());
    let own = shared.host.identity();
    let own_chain = own.chain.clone();
    let at_ms = shared.host.now_ms();
    let mut acceptor = Acceptor::new(acceptor_config(shared, own, connection));
    let mut record = None;
    loop {
        let raw = next(&mut reader).await?;
        let mut events = match acceptor.handle(&raw) {
            Ok(events) => events,
            Err(refusal) => return Err(refused(connection, &mut writer, &raw, refusal).await),
        };
        while !events.is_empty() {
            for event in std::mem::take(&mut events) {
                match event {
                    AcceptorEvent::LookUp(identity) => {
                        record = known(shared, &identity);
                        match acceptor.found(found(&own_chain, &identity, record.as_ref())) {
                            Ok(more) => events = more,
                            Err(refusal) => {
                                return Err(refused(connection, &mut writer, &raw, refusal).await);
                            }
                        }
                    }
                    AcceptorEvent::Send(frame) => {
                        writer.write(&frame).await.map_err(|error| gone(&error))?;
                    }
                    AcceptorEvent::Proven(proven) => {
                        let client = ChannelBound::into_value(*proven);
                        let proven = peer_of(connection, (writer, reader), client, record.as_ref(), at_ms)?;
                        return Ok(proven);
                    }
                }
            }
        }
    }
}

fn known(shared: &Shared, identity: &Identity) -> Option<PeerRecord> {
    let Identity::Peer { domain, genesis } = identity else {
        return None;
    };
    shared.record(domain).filter(|record| record.genesis == Some(*genesis))
}

fn found(own: &Verified<ServerState>, identity: &Identity, record: Option<&PeerRecord>) -> Found {
    match identity {
        Identity::Peer { domain, .. } if domain == own.state().domain() => {
            Found::Refused(Refusal::new(Code::WRONG_DOMAIN, "that is the domain of this home"))
        }
        Identity::Peer { .. } => Found::Peer {
            held: verified(record).map(Box::new),
            links: record.map(|record| record.links.clone()).unwrap_or_default(),
            nonce_proof: false,
        },
        _ => Found::Refused(Refusal::new(Code::NOT_PERMITTED, "not a home")),
    }
}

fn peer_of(
    connection: &Connection,
    control: (FrameWriter, FrameReader),
    client: Client,
    record: Option<&PeerRecord>,
    at_ms: u64,
) -> Result<Proven, Refusal> {
    let (Identity::Peer { domain, genesis }, Some(chain)) = (client.identity, client.chain) else {
        return Err(Refusal::new(Code::NOT_PERMITTED, "not a home"));
    };
    let sent = match &client.hello.identity {
        Some(pb::hello::Identity::Peer(peer)) => peer.chain.as_slice(),
        _ => &[],
    };
    let links = whole(record.map_or(&[][..], |record| &record.links), sent, &chain);
    let peer_boot = client.hello.boot_id.as_ref().try_into().unwrap_or_default();
    Ok(Proven {
        connection: connection.clone(),
        control,
        domain,
        genesis,
        links,
        limits: None,
        opened: Opened { by_us: false, at_ms, peer_boot },
    })
}

/// Sends a message where the peer may be gone already: then its end says so.
pub(super) async fn tell<M: FrameMessage>(writer: &mut FrameWriter, message: &M) {
    let _gone = writer.send(message).await;
}
