//! Who is at the other end: proofs bound to the connection (chapter 02).
//!
//! Two machines, [`Opener`] and [`Acceptor`]. Frames, exporter, keys and nonces go in as arguments;
//! frames to send and, in the end, a [`ChannelBound`] identity come out.
//!
//! | opener | acceptor |
//! |---|---|
//! | Hello, and at once Proof (exporter) if it can | |
//! | | Welcome, Proof |
//! | Proof (nonce) if no exporter on one side | |
//! | | Ready |
//!
//! What is signed ([`transcript`]), with `lp(x)` = 2-byte big-endian length, then x:
//! `role ‖ lp(ALPN) ‖ lp(acceptor's domain) ‖ lp(opener's identity) ‖ acceptor's server genesis ‖
//! SHA-256(Hello payload) ‖ SHA-256(Welcome payload) ‖ (exporter | opener's nonce ‖ acceptor's nonce)`.
//! In the opener's exporter proof, which may leave before Welcome is there, the hash of Welcome is
//! zeros and the genesis is the one in Hello (zeros if it pinned none); in all others both are those
//! of the Welcome.
//!
//! If both list the exporter, a nonce proof is a downgrade and is refused. What this module does not
//! do: time out, look devices up, or make randomness.

mod acceptor;
mod follow;
mod opener;

use crate::codec::Frame;
use crate::error::{Code, Refusal};
use crate::frame::RawFrame;
use crate::id::{AccountId, DeviceId, Hash, IdError, ServerId};
use crate::name::Domain;
use crate::pb;
use crate::sign::{PublicKey, Purpose, Signature, SigningKey, sha256};

pub use crate::pb::ProofKind;
pub use acceptor::{Acceptor, AcceptorConfig, AcceptorEvent, Client, Found};
pub use follow::HANDED_BYTES_MAX;
pub use opener::{Credentials, Opener, OpenerConfig, OpenerEvent, Server};

/// ALPN of clients.
pub const ALPN_CLIENT: &str = "tidings/1";
/// ALPN of servers.
pub const ALPN_SERVER: &str = "tidings-s2s/1";
/// WebSocket subprotocol of clients.
pub const SUBPROTOCOL_CLIENT: &str = "tidings.1";
/// WebSocket subprotocol of servers.
pub const SUBPROTOCOL_SERVER: &str = "tidings-s2s.1";
/// Label of the TLS exporter; the context is empty, 32 bytes are taken.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-tidings-auth";

/// Bytes that `software` may have.
pub const SOFTWARE_BYTES_MAX: usize = 64;

/// The TLS exporter's value.
pub type Exporter = [u8; 32];
/// A side's nonce.
pub type Nonce = [u8; 32];

/// Who the opener says it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A device on an account's list.
    Device {
        /// The account.
        account: AccountId,
        /// The device.
        device: DeviceId,
    },
    /// A key that stands on no chain yet.
    Candidate(PublicKey),
    /// Another server.
    Peer {
        /// Its domain.
        domain: Domain,
        /// Its chain.
        genesis: ServerId,
    },
}

impl Identity {
    /// As it stands in what is signed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Device { account, device } => [account.0, device.0].concat(),
            Self::Candidate(key) => key.to_vec(),
            Self::Peer { domain, genesis } => [domain.as_str().as_bytes(), genesis.as_ref()].concat(),
        }
    }

    fn from_hello(hello: &pb::Hello) -> Result<Self, Refusal> {
        let identity = hello.identity.as_ref().ok_or_else(|| malformed("no identity"))?;
        Ok(match identity {
            pb::hello::Identity::Device(device) => {
                Self::Device { account: id(&device.account)?, device: id(&device.device)? }
            }
            pb::hello::Identity::Candidate(candidate) => Self::Candidate(
                PublicKey::parse(&candidate.key).map_err(|error| malformed(&error.to_string()))?,
            ),
            pb::hello::Identity::Peer(peer) => Self::Peer {
                domain: Domain::parse(&peer.domain).map_err(|error| malformed(&error.to_string()))?,
                genesis: id(&peer.server_genesis)?,
            },
        })
    }
}

/// An identity that was proven on one connection; made by a finished handshake only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelBound<T> {
    value: T,
    proof: ProofKind,
}

impl<T> ChannelBound<T> {
    /// What was proven.
    #[must_use]
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// What was proven, owned.
    #[must_use]
    pub fn into_value(self) -> T {
        self.value
    }

    /// How: the nonce proof does not stop a relay that holds a rogue certificate.
    #[must_use]
    pub const fn proof(&self) -> ProofKind {
        self.proof
    }

    /// The same proof for a part of what was proven.
    #[must_use]
    pub fn map<U>(self, part: impl FnOnce(T) -> U) -> ChannelBound<U> {
        ChannelBound { value: part(self.value), proof: self.proof }
    }

    const fn new(value: T, proof: ProofKind) -> Self {
        Self { value, proof }
    }
}

/// Who signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that dialled.
    Opener,
    /// The side that was dialled.
    Acceptor,
}

/// What binds a proof to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The TLS exporter's value.
    Exporter(Exporter),
    /// Both nonces.
    Nonces {
        /// From Hello.
        opener: Nonce,
        /// From Welcome.
        acceptor: Nonce,
    },
}

impl Binding {
    /// The kind of proof it makes.
    #[must_use]
    pub const fn kind(&self) -> ProofKind {
        match self {
            Self::Exporter(_) => ProofKind::Exporter,
            Self::Nonces { .. } => ProofKind::Nonce,
        }
    }

    const fn purpose(&self) -> Purpose {
        match self {
            Self::Exporter(_) => Purpose::AUTH_EXPORTER,
            Self::Nonces { .. } => Purpose::AUTH_NONCE,
        }
    }
}

/// All that a proof signs.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    /// Who signs.
    pub role: Role,
    /// ALPN, or WebSocket subprotocol.
    pub alpn: &'a str,
    /// The acceptor's domain.
    pub domain: &'a str,
    /// The opener's identity.
    pub identity: &'a Identity,
    /// The acceptor's server chain; zeros if not known to the opener.
    pub genesis: ServerId,
    /// SHA-256 of the Hello payload.
    pub hello: Hash,
    /// SHA-256 of the Welcome payload; zeros in the opener's exporter proof.
    pub welcome: Hash,
    /// Exporter or nonces.
    pub binding: Binding,
}

/// The bytes that a proof signs, before the label.
#[must_use]
pub fn transcript(of: &Transcript<'_>) -> Vec<u8> {
    let mut out = vec![match of.role {
        Role::Opener => 1,
        Role::Acceptor => 2,
    }];
    for part in [of.alpn.as_bytes(), of.domain.as_bytes(), &of.identity.to_bytes()] {
        // A domain has at most 253 bytes, an identity 285, an ALPN 255.
        out.extend_from_slice(&u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out.extend_from_slice(of.genesis.as_ref());
    out.extend_from_slice(of.hello.as_ref());
    out.extend_from_slice(of.welcome.as_ref());
    match of.binding {
        Binding::Exporter(exporter) => out.extend_from_slice(&exporter),
        Binding::Nonces { opener, acceptor } => {
            out.extend_from_slice(&opener);
            out.extend_from_slice(&acceptor);
        }
    }
    out
}

/// Signs a transcript.
#[must_use]
pub fn prove(of: &Transcript<'_>, key: &SigningKey) -> pb::Proof {
    pb::Proof {
        kind: of.binding.kind().into(),
        key_id: key.public().id().to_bytes(),
        signature: key.sign(of.binding.purpose(), &transcript(of)).to_bytes(),
    }
}

/// Checks a proof against the key it has to be of.
///
/// # Errors
/// `auth-failed` for another key or kind, or a signature that does not hold.
pub fn check(of: &Transcript<'_>, proof: &pb::Proof, key: &PublicKey) -> Result<(), Refusal> {
    let failed = |detail: &str| Refusal::new(Code::AUTH_FAILED, detail);
    if proof.kind != i32::from(of.binding.kind()) {
        return Err(failed("another kind of proof was due"));
    }
    if proof.key_id.as_ref() != key.id().as_ref() {
        return Err(failed("proof names another key"));
    }
    Signature::parse(&proof.signature)
        .and_then(|signature| key.verify(of.binding.purpose(), &transcript(of), &signature))
        .map_err(|error| failed(&error.to_string()))
}

/// The proof that two lists agree on; the exporter wins.
fn choose(own: &[i32], other: &[i32]) -> Result<ProofKind, Refusal> {
    let both = |kind: ProofKind| own.contains(&kind.into()) && other.contains(&kind.into());
    if both(ProofKind::Exporter) {
        Ok(ProofKind::Exporter)
    } else if both(ProofKind::Nonce) {
        Ok(ProofKind::Nonce)
    } else {
        Err(Refusal::new(Code::VERSION_UNSUPPORTED, "no proof that both sides can do"))
    }
}

fn proofs(exporter: bool, nonce: bool) -> Vec<i32> {
    let listed = [(exporter, ProofKind::Exporter), (nonce, ProofKind::Nonce)];
    listed.into_iter().filter(|(can, _)| *can).map(|(_, kind)| kind.into()).collect()
}

/// Critical capabilities of the other side that this side lacks.
fn check_capabilities(own: &[u64], other: &[u64]) -> Result<(), Refusal> {
    if !other.is_sorted_by(|a, b| a < b) {
        return Err(malformed("capabilities are not ascending"));
    }
    match other.iter().find(|code| crate::frame::is_critical(**code) && !own.contains(code)) {
        Some(code) => Err(Refusal::new(Code::VERSION_UNSUPPORTED, format!("capability {code:#x}"))),
        None => Ok(()),
    }
}

fn read(raw: &RawFrame) -> Result<Option<Frame>, Refusal> {
    Frame::from_raw(raw).map_err(|error| Refusal::from(&error))
}

/// The control stream has no request that could be refused alone: whatever is refused there ends the connection.
fn of_the_connection(mut refusal: Refusal) -> Refusal {
    refusal.scope = crate::error::Scope::Connection;
    refusal
}

fn malformed(detail: &str) -> Refusal {
    Refusal::new(Code::MESSAGE_MALFORMED, detail)
}

/// What Hello and Welcome have in common: no proof twice, and a name that fits a log line.
fn check_common(proofs: &[i32], software: &str) -> Result<(), Refusal> {
    if proofs.iter().enumerate().any(|(place, kind)| proofs.iter().take(place).any(|other| other == kind)) {
        return Err(malformed("a proof is listed twice"));
    }
    if software.len() > SOFTWARE_BYTES_MAX {
        return Err(Refusal::new(Code::LIMIT_EXCEEDED, "software has more than 64 bytes"));
    }
    Ok(())
}

fn unexpected(frame: &Frame) -> Refusal {
    Refusal::new(Code::FRAME_UNEXPECTED, frame.name())
}

fn id<T>(bytes: &bytes::Bytes) -> Result<T, Refusal>
where
    T: for<'a> TryFrom<&'a [u8], Error = IdError>,
{
    T::try_from(bytes.as_ref()).map_err(|error| malformed(&error.to_string()))
}

fn nonce(bytes: &[u8]) -> Result<Nonce, Refusal> {
    bytes.try_into().map_err(|_| malformed("nonce is not 32 bytes"))
}

fn payload_hash(raw: &RawFrame) -> Hash {
    sha256(&raw.payload)
}

#[cfg(test)]
mod tests;
