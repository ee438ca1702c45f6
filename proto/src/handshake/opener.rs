//! The side that dialled.
//!
//! | state | Welcome | Proof | Ready | other |
//! |---|---|---|---|---|
//! | `Hello` | checked, nonce proof sent if due, to `Welcome` | frame-unexpected | frame-unexpected | frame-unexpected |
//! | `Welcome` | frame-unexpected | checked, `Proven`, to `Proven` | auth-required | frame-unexpected |
//! | `Proven` | frame-unexpected | frame-unexpected | `Ready`, to `Done` | frame-unexpected |
//!
//! A `failure` ends it in any state.

use super::follow::follow;
use super::{
    Binding, ChannelBound, Exporter, Identity, Nonce, ProofKind, Role, Transcript, check, check_capabilities,
    check_common, choose, id, malformed, nonce, of_the_connection, payload_hash, proofs, prove, read,
    unexpected,
};
use crate::chain::{ServerState, Verified};
use crate::codec::{self, Frame};
use crate::error::{Code, Refusal};
use crate::frame::RawFrame;
use crate::id::{Hash, ServerId};
use crate::name::Domain;
use crate::pb;
use crate::sign::SigningKey;

/// Who the opener is, and the key that proves it.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Who.
    pub identity: Identity,
    /// The device's, candidate's or an online key.
    pub key: SigningKey,
    /// Of a peer: its chain's links after the head that the acceptor is known to hold, else all.
    pub chain: Vec<pb::Link>,
}

/// What an opener needs; one for each connection.
#[derive(Debug, Clone)]
pub struct OpenerConfig {
    /// The protocol agreed in TLS, or the WebSocket subprotocol.
    pub alpn: String,
    /// The acceptor's domain.
    pub domain: Domain,
    /// The acceptor's chain as held: it pins the acceptor.
    pub server: Option<Verified<ServerState>>,
    /// The links of that chain, genesis first: an acceptor that has lost some is handed them in the refusal. Empty
    /// where they are not at hand.
    pub server_links: Vec<pb::Link>,
    /// Who the opener is.
    pub credentials: Credentials,
    /// The exporter's value, where the transport gives one.
    pub exporter: Option<Exporter>,
    /// Whether it can do with the nonce proof.
    pub nonce_proof: bool,
    /// Its nonce: 32 random bytes, new for each connection.
    pub nonce: Nonce,
    /// Its boot id: 16 random bytes, new at each start of the process.
    pub boot_id: [u8; 16],
    /// The capabilities it has, ascending.
    pub capabilities: Vec<u64>,
    /// Name and version, for the other side's logs.
    pub software: String,
}

/// The acceptor, proven.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its chain, as held and extended by what it sent; to be held from now on.
    pub chain: Verified<ServerState>,
    /// Its Welcome: limits, incarnation, registration and the rest.
    pub welcome: pb::Welcome,
}

/// What the driver has to do.
#[derive(Debug, Clone)]
pub enum OpenerEvent {
    /// Send this on the control stream.
    Send(RawFrame),
    /// The acceptor is proven; Ready is still to come.
    Proven(Box<ChannelBound<Server>>),
    /// The acceptor holds the opener for proven: requests may be sent. To devices with their state.
    Ready(Option<pb::DeviceState>),
}

struct Welcomed {
    chain: Verified<ServerState>,
    welcome: pb::Welcome,
    hash: Hash,
    kind: ProofKind,
    nonce: Nonce,
}

enum State {
    Hello,
    Welcome(Box<Welcomed>),
    Proven,
    Done,
}

/// The opener's side of a handshake. After an error the connection is to be closed with it.
pub struct Opener {
    config: OpenerConfig,
    hello: Hash,
    state: State,
}

impl Opener {
    /// Begins: the handshake and the frames to send at once.
    #[must_use]
    pub fn start(config: OpenerConfig) -> (Self, Vec<RawFrame>) {
        let hello = codec::to_raw(&hello(&config));
        let opener = Self { hello: payload_hash(&hello), config, state: State::Hello };
        let mut frames = vec![hello];
        if let Some(exporter) = opener.config.exporter {
            let genesis = opener.config.server.as_ref().map_or(ServerId::ZERO, Verified::server_id);
            let of = opener.transcript(Role::Opener, genesis, Hash::ZERO, Binding::Exporter(exporter));
            frames.push(codec::to_raw(&prove(&of, &opener.config.credentials.key)));
        }
        (opener, frames)
    }

    /// Takes a frame of the control stream.
    ///
    /// # Errors
    /// The refusal that came, or the one to send and to close the connection with.
    pub fn handle(&mut self, raw: &RawFrame) -> Result<Vec<OpenerEvent>, Refusal> {
        self.take(raw).map_err(of_the_connection)
    }

    fn take(&mut self, raw: &RawFrame) -> Result<Vec<OpenerEvent>, Refusal> {
        let Some(frame) = read(raw)? else {
            return Ok(Vec::new());
        };
        match (&self.state, frame) {
            (_, Frame::Failure(failure)) => Err(failure.into()),
            (State::Hello, Frame::Welcome(welcome)) => self.welcome(welcome, raw),
            (State::Welcome(welcomed), Frame::Proof(proof)) => {
                let server = self.proof(welcomed, &proof)?;
                self.state = State::Proven;
                Ok(vec![OpenerEvent::Proven(Box::new(server))])
            }
            (State::Welcome(_), Frame::Ready(_)) => {
                Err(Refusal::new(Code::AUTH_REQUIRED, "ready before the proof"))
            }
            (State::Proven, Frame::Ready(ready)) => {
                self.state = State::Done;
                Ok(vec![OpenerEvent::Ready(ready.device)])
            }
            (_, frame) => Err(unexpected(&frame)),
        }
    }

    fn welcome(&mut self, welcome: pb::Welcome, raw: &RawFrame) -> Result<Vec<OpenerEvent>, Refusal> {
        if welcome.domain != self.config.domain.as_str() {
            return Err(Refusal::new(Code::WRONG_DOMAIN, "welcome is of another domain"));
        }
        let genesis: ServerId = id(&welcome.server_genesis)?;
        if self.config.server.as_ref().is_some_and(|held| held.server_id() != genesis) {
            return Err(Refusal::new(Code::WRONG_SERVER, "not the chain that was pinned"));
        }
        let acceptor_nonce = nonce(&welcome.nonce)?;
        if welcome.boot_id.len() != 16 || welcome.incarnation.len() != 16 {
            return Err(malformed("boot id or incarnation is not 16 bytes"));
        }
        check_common(&welcome.proofs, &welcome.software)?;
        check_limits(&welcome.limits)?;
        check_capabilities(&self.config.capabilities, &welcome.capabilities)?;
        let chain = follow(self.config.server.clone(), &self.config.server_links, &welcome.server_chain)?;
        if chain.server_id() != genesis {
            return Err(Refusal::new(Code::WRONG_SERVER, "chain and genesis differ"));
        }
        if *chain.state().domain() != self.config.domain {
            return Err(Refusal::new(Code::WRONG_DOMAIN, "chain is of another domain"));
        }
        if chain.state().incarnation().as_ref() != welcome.incarnation.as_ref() {
            return Err(Refusal::new(Code::WRONG_SERVER, "incarnation is not the newest of the chain"));
        }
        let own = proofs(self.config.exporter.is_some(), self.config.nonce_proof);
        let kind = choose(&own, &welcome.proofs)?;
        let welcomed = Welcomed { chain, welcome, hash: payload_hash(raw), kind, nonce: acceptor_nonce };
        let mut events = Vec::new();
        if kind == ProofKind::Nonce {
            let binding = Binding::Nonces { opener: self.config.nonce, acceptor: acceptor_nonce };
            let of = self.transcript(Role::Opener, genesis, welcomed.hash, binding);
            events.push(OpenerEvent::Send(codec::to_raw(&prove(&of, &self.config.credentials.key))));
        }
        self.state = State::Welcome(Box::new(welcomed));
        Ok(events)
    }

    fn proof(&self, welcomed: &Welcomed, proof: &pb::Proof) -> Result<ChannelBound<Server>, Refusal> {
        let binding = match (welcomed.kind, self.config.exporter) {
            (ProofKind::Exporter, Some(exporter)) => Binding::Exporter(exporter),
            _ => Binding::Nonces { opener: self.config.nonce, acceptor: welcomed.nonce },
        };
        if welcomed.kind == ProofKind::Exporter && proof.kind == i32::from(ProofKind::Nonce) {
            return Err(Refusal::new(Code::AUTH_DOWNGRADE, "both sides can do the exporter proof"));
        }
        let keys = welcomed.chain.state().online_keys();
        let key = keys.iter().find(|key| key.id().as_ref() == proof.key_id.as_ref());
        let key = key.ok_or_else(|| Refusal::new(Code::AUTH_FAILED, "key is not on the chain"))?;
        check(
            &self.transcript(Role::Acceptor, welcomed.chain.server_id(), welcomed.hash, binding),
            proof,
            key,
        )?;
        let server = Server { chain: welcomed.chain.clone(), welcome: welcomed.welcome.clone() };
        Ok(ChannelBound::new(server, welcomed.kind))
    }

    fn transcript(&self, role: Role, genesis: ServerId, welcome: Hash, binding: Binding) -> Transcript<'_> {
        Transcript {
            role,
            alpn: &self.config.alpn,
            domain: self.config.domain.as_str(),
            identity: &self.config.credentials.identity,
            genesis,
            hello: self.hello,
            welcome,
            binding,
        }
    }
}

fn hello(config: &OpenerConfig) -> pb::Hello {
    let identity = match &config.credentials.identity {
        Identity::Device { account, device } => pb::hello::Identity::Device(pb::DeviceIdentity {
            account: account.to_bytes(),
            device: device.to_bytes(),
        }),
        Identity::Candidate(key) => {
            pb::hello::Identity::Candidate(pb::CandidateIdentity { key: key.to_bytes() })
        }
        Identity::Peer { domain, genesis } => pb::hello::Identity::Peer(pb::PeerIdentity {
            domain: domain.to_string(),
            server_genesis: genesis.to_bytes(),
            chain: config.credentials.chain.clone(),
        }),
    };
    let server = config.server.as_ref();
    pb::Hello {
        identity: Some(identity),
        boot_id: bytes::Bytes::copy_from_slice(&config.boot_id),
        nonce: bytes::Bytes::copy_from_slice(&config.nonce),
        proofs: proofs(config.exporter.is_some(), config.nonce_proof),
        capabilities: config.capabilities.clone(),
        domain: config.domain.to_string(),
        server_genesis: server.map(|held| held.genesis_id().to_bytes()).unwrap_or_default(),
        server_head: server.map(|held| held.head().to_bytes()).unwrap_or_default(),
        software: config.software.clone(),
    }
}

/// Limits ascend, and each one known here is within its range. Those not known are skipped.
fn check_limits(limits: &[pb::Limit]) -> Result<(), Refusal> {
    if !limits.is_sorted_by(|a, b| a.id < b.id) {
        return Err(malformed("limits are not ascending"));
    }
    let outside = |limit: &&pb::Limit| {
        crate::limits::find(limit.id).is_some_and(|known| !(known.min..=known.max).contains(&limit.value))
    };
    match limits.iter().find(outside) {
        Some(limit) => Err(malformed(&format!("limit {} is outside its range", limit.id))),
        None => Ok(()),
    }
}
