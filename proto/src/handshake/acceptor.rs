//! The side that was dialled.
//!
//! | state | Hello | found | Proof | other |
//! |---|---|---|---|---|
//! | `Start` | `LookUp`, to `Asked` | - | auth-required | auth-required |
//! | `Asked` | frame-unexpected | Welcome and Proof sent, to `Waiting` | kept | auth-required |
//! | `Waiting` | frame-unexpected | - | checked, to `Done` | auth-required |
//! | `Done` | frame-unexpected | - | frame-unexpected | frame-unexpected |

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
use crate::sign::{PublicKey, SigningKey};

/// What an acceptor needs; one for each connection.
#[derive(Debug, Clone)]
pub struct AcceptorConfig {
    /// The protocol agreed in TLS, or the WebSocket subprotocol.
    pub alpn: String,
    /// Whether that protocol is the one between servers.
    pub between_servers: bool,
    /// The domain it answers for.
    pub domain: Domain,
    /// Its server chain.
    pub chain: Verified<ServerState>,
    /// All links of that chain, genesis first.
    pub links: Vec<pb::Link>,
    /// One of its online keys.
    pub key: SigningKey,
    /// The exporter's value, where the transport gives one.
    pub exporter: Option<Exporter>,
    /// Whether it takes the nonce proof at all.
    pub nonce_proof: bool,
    /// Its nonce: 32 random bytes, new for each connection.
    pub nonce: Nonce,
    /// The capabilities it has, ascending.
    pub capabilities: Vec<u64>,
    /// The rest of Welcome: boot id, limits, registration, software. Other fields are filled in.
    pub welcome: pb::Welcome,
}

/// What the driver knows of an identity.
#[derive(Debug, Clone)]
pub enum Found {
    /// The device is on its account's list, with this key.
    Device(PublicKey),
    /// A candidate may try.
    Candidate,
    /// A server that may connect.
    Peer {
        /// Its chain as held, if any.
        held: Option<Box<Verified<ServerState>>>,
        /// The links of that chain, genesis first: an opener that has lost some is handed them in the refusal.
        links: Vec<pb::Link>,
        /// Whether the operator allows it the nonce proof.
        nonce_proof: bool,
    },
    /// No: `auth-unknown`, `auth-removed`, `peer-denied`, `too-fast` or another.
    Refused(Refusal),
}

/// Who was proven, with what it said of itself.
#[derive(Debug, Clone)]
pub struct Client {
    /// Who.
    pub identity: Identity,
    /// The key it proved.
    pub key: PublicKey,
    /// Its Hello: boot id, capabilities, software.
    pub hello: pb::Hello,
    /// A peer's chain, as held and extended by what it sent.
    pub chain: Option<Box<Verified<ServerState>>>,
}

/// What the driver has to do.
#[derive(Debug, Clone)]
pub enum AcceptorEvent {
    /// Answer with [`Acceptor::found`].
    LookUp(Identity),
    /// Send this on the control stream.
    Send(RawFrame),
    /// The opener is proven: send `ready` and go on.
    Proven(Box<ChannelBound<Client>>),
}

enum State {
    Start,
    Asked,
    Waiting(Box<Waiting>),
    Done,
}

struct Waiting {
    kind: ProofKind,
    welcome: Hash,
    key: Option<PublicKey>,
    chain: Option<Box<Verified<ServerState>>>,
}

struct Opened {
    hello: pb::Hello,
    hash: Hash,
    identity: Identity,
    nonce: Nonce,
}

/// The acceptor's side of a handshake. After an error the connection is to be closed with it.
pub struct Acceptor {
    config: AcceptorConfig,
    state: State,
    opened: Option<Opened>,
    early_proof: Option<pb::Proof>,
}

impl Acceptor {
    /// A handshake that waits for Hello.
    #[must_use]
    pub const fn new(config: AcceptorConfig) -> Self {
        Self { config, state: State::Start, opened: None, early_proof: None }
    }

    /// Takes a frame of the control stream.
    ///
    /// # Errors
    /// The refusal to send and to close the connection with.
    pub fn handle(&mut self, raw: &RawFrame) -> Result<Vec<AcceptorEvent>, Refusal> {
        self.take(raw).map_err(of_the_connection)
    }

    fn take(&mut self, raw: &RawFrame) -> Result<Vec<AcceptorEvent>, Refusal> {
        let Some(frame) = read(raw)? else {
            return Ok(Vec::new());
        };
        match (&self.state, frame) {
            (State::Start, Frame::Hello(hello)) => self.hello(hello, raw).map(|event| vec![event]),
            (State::Asked, Frame::Proof(proof)) if self.early_proof.is_none() => {
                self.early_proof = Some(proof);
                Ok(Vec::new())
            }
            (State::Waiting(_), Frame::Proof(proof)) => self.proof(&proof),
            (State::Done, frame) => Err(unexpected(&frame)),
            (State::Asked | State::Waiting(_), frame @ (Frame::Hello(_) | Frame::Proof(_))) => {
                Err(unexpected(&frame))
            }
            (_, Frame::Failure(failure)) => Err(failure.into()),
            (_, frame) => Err(Refusal::new(Code::AUTH_REQUIRED, frame.name())),
        }
    }

    fn hello(&mut self, hello: pb::Hello, raw: &RawFrame) -> Result<AcceptorEvent, Refusal> {
        let identity = Identity::from_hello(&hello)?;
        if matches!(identity, Identity::Peer { .. }) != self.config.between_servers {
            return Err(Refusal::new(Code::NOT_PERMITTED, "identity does not belong to this protocol"));
        }
        let nonce = nonce(&hello.nonce)?;
        if hello.boot_id.len() != 16 {
            return Err(malformed("boot id is not 16 bytes"));
        }
        let pinned =
            if hello.server_genesis.is_empty() { None } else { Some(id::<ServerId>(&hello.server_genesis)?) };
        if !hello.server_head.is_empty() {
            id::<ServerId>(&hello.server_head)?;
        }
        check_common(&hello.proofs, &hello.software)?;
        if hello.domain != self.config.domain.as_str() {
            return Err(Refusal::new(Code::WRONG_DOMAIN, "not the domain of this server"));
        }
        if pinned.is_some_and(|pinned| pinned != self.config.chain.server_id()) {
            return Err(Refusal::new(Code::WRONG_SERVER, "another chain was pinned"));
        }
        check_capabilities(&self.config.capabilities, &hello.capabilities)?;
        self.opened = Some(Opened { hello, hash: payload_hash(raw), identity: identity.clone(), nonce });
        self.state = State::Asked;
        Ok(AcceptorEvent::LookUp(identity))
    }

    /// Takes the driver's answer to [`AcceptorEvent::LookUp`].
    ///
    /// # Errors
    /// The refusal to send and to close the connection with.
    pub fn found(&mut self, found: Found) -> Result<Vec<AcceptorEvent>, Refusal> {
        self.answer(found).map_err(of_the_connection)
    }

    fn answer(&mut self, found: Found) -> Result<Vec<AcceptorEvent>, Refusal> {
        let misuse = || Refusal::new(Code::INTERNAL, "answer to a question that was not asked");
        let (State::Asked, Some(opened)) = (&self.state, &self.opened) else {
            return Err(misuse());
        };
        let mut opener_head = bytes::Bytes::new();
        let (key, chain, nonce_proof) = match (found, &opened.identity) {
            (Found::Refused(refusal), _) => return Err(refusal),
            (Found::Device(key), Identity::Device { .. }) => (Some(key), None, self.config.nonce_proof),
            (Found::Candidate, Identity::Candidate(key)) => (Some(*key), None, self.config.nonce_proof),
            (Found::Peer { held, links, nonce_proof }, Identity::Peer { domain, genesis }) => {
                let held = (held.map(|held| *held), links.as_slice());
                let chain = peer_chain(held, &opened.hello, domain, *genesis)?;
                opener_head = chain.head().to_bytes();
                (None, Some(Box::new(chain)), nonce_proof && self.config.nonce_proof)
            }
            _ => return Err(misuse()),
        };
        let own = proofs(self.config.exporter.is_some(), nonce_proof);
        let kind = choose(&own, &opened.hello.proofs)?;
        let welcome = codec::to_raw(&self.welcome(&opened.hello, own, opener_head));
        let waiting = Waiting { kind, welcome: payload_hash(&welcome), key, chain };
        let proof = prove(&self.transcript(opened, &waiting, Role::Acceptor)?, &self.config.key);
        self.state = State::Waiting(Box::new(waiting));
        let mut events = vec![AcceptorEvent::Send(welcome), AcceptorEvent::Send(codec::to_raw(&proof))];
        if let Some(early) = self.early_proof.take() {
            events.extend(self.proof(&early)?);
        }
        Ok(events)
    }

    fn welcome(&self, hello: &pb::Hello, proofs: Vec<i32>, opener_head: bytes::Bytes) -> pb::Welcome {
        let held = self.config.chain.ids().iter().position(|id| id.as_ref() == hello.server_head.as_ref());
        let known = held.map_or(0, |place| place.saturating_add(1));
        pb::Welcome {
            nonce: bytes::Bytes::copy_from_slice(&self.config.nonce),
            proofs,
            capabilities: self.config.capabilities.clone(),
            domain: self.config.domain.to_string(),
            server_genesis: self.config.chain.genesis_id().to_bytes(),
            server_chain: self.config.links.iter().skip(known).cloned().collect(),
            incarnation: self.config.chain.state().incarnation().to_bytes(),
            opener_head,
            ..self.config.welcome.clone()
        }
    }

    fn transcript<'a>(
        &'a self,
        opened: &'a Opened,
        waiting: &Waiting,
        role: Role,
    ) -> Result<Transcript<'a>, Refusal> {
        let binding = match (waiting.kind, self.config.exporter) {
            (ProofKind::Exporter, Some(exporter)) => Binding::Exporter(exporter),
            (ProofKind::Nonce, _) => Binding::Nonces { opener: opened.nonce, acceptor: self.config.nonce },
            _ => return Err(Refusal::new(Code::INTERNAL, "no exporter")),
        };
        let own = self.config.chain.server_id();
        let early = role == Role::Opener && waiting.kind == ProofKind::Exporter;
        Ok(Transcript {
            role,
            alpn: &self.config.alpn,
            domain: self.config.domain.as_str(),
            identity: &opened.identity,
            // A pinned genesis was compared with our own when Hello came.
            genesis: if early && opened.hello.server_genesis.is_empty() { ServerId::ZERO } else { own },
            hello: opened.hash,
            welcome: if early { Hash::ZERO } else { waiting.welcome },
            binding,
        })
    }

    fn proof(&mut self, proof: &pb::Proof) -> Result<Vec<AcceptorEvent>, Refusal> {
        let (State::Waiting(waiting), Some(opened)) = (&self.state, &self.opened) else {
            return Err(Refusal::new(Code::FRAME_UNEXPECTED, "proof"));
        };
        match (waiting.kind, ProofKind::try_from(proof.kind)) {
            (ProofKind::Exporter, Ok(ProofKind::Nonce)) => {
                return Err(Refusal::new(Code::AUTH_DOWNGRADE, "both sides can do the exporter proof"));
            }
            // It left before Welcome said that this side has no exporter; the nonce proof follows.
            (ProofKind::Nonce, Ok(ProofKind::Exporter)) => return Ok(Vec::new()),
            _ => {}
        }
        let key = match (&waiting.key, &waiting.chain) {
            (Some(key), _) => Some(*key),
            (None, Some(chain)) => chain
                .state()
                .online_keys()
                .iter()
                .copied()
                .find(|key| key.id().as_ref() == proof.key_id.as_ref()),
            (None, None) => None,
        };
        let key = key.ok_or_else(|| Refusal::new(Code::AUTH_FAILED, "key is not on the chain"))?;
        check(&self.transcript(opened, waiting, Role::Opener)?, proof, &key)?;
        let client = Client {
            identity: opened.identity.clone(),
            key,
            hello: opened.hello.clone(),
            chain: waiting.chain.clone(),
        };
        let proven = ChannelBound::new(client, waiting.kind);
        self.state = State::Done;
        Ok(vec![AcceptorEvent::Proven(Box::new(proven))])
    }
}

/// A peer's chain: as held, extended by what it sent; or all of it.
fn peer_chain(
    (held, links): (Option<Verified<ServerState>>, &[pb::Link]),
    hello: &pb::Hello,
    domain: &Domain,
    genesis: ServerId,
) -> Result<Verified<ServerState>, Refusal> {
    let Some(pb::hello::Identity::Peer(peer)) = &hello.identity else {
        return Err(malformed("no peer"));
    };
    let chain = super::follow::follow(held, links, &peer.chain)?;
    if chain.server_id() != genesis {
        return Err(Refusal::new(Code::WRONG_SERVER, "chain and identity differ"));
    }
    if chain.state().domain() != domain {
        return Err(Refusal::new(Code::WRONG_DOMAIN, "chain and identity differ"));
    }
    Ok(chain)
}
