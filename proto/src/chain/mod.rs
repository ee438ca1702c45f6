//! Chains: hash-linked, signed lists that anyone can verify from their genesis (chapter 04).
//!
//! A link is a body and signatures. The body is canonical ([`crate::canonical`]), carried as bytes,
//! and its id is SHA-256 over the same labelled bytes that are signed. The body names its chain, the
//! link before, its number and its signers in order; state is therefore a function of ids alone.
//! [`Verified`] has no constructor but verification: from a genesis, or by extending another.
//!
//! Order of checks, and so the error where several hold: size, canonical form, lengths of ids, chain,
//! number, previous, known type, closed, a listed first signer, a free place, the one field, the state's
//! rules, signers, signatures.
//!
//! What this module does not do: fetch or store links, or say which of two forks is right.

pub mod account;
mod account_shape;
mod fork;
pub mod group;
pub mod server;

use bytes::Bytes;

use crate::canonical::{self, CanonicalError, Shape};
use crate::id::{IdError, KeyId, LinkId};
use crate::name::NameError;
use crate::pb;
use crate::sign::{PublicKey, Purpose, SignError, Signature, SigningKey, labelled_hash};

pub use account::{AccountChange, AccountState, DeviceKeys};
pub use fork::{Settled, settle};
pub use group::{GroupChange, GroupState};
pub use server::{ServerChange, ServerState};

/// Bytes the body of a link may have.
pub const LINK_BYTES_MAX: usize = 4096;

/// Why a link cannot stand where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// A body above what its chain allows.
    #[error("link body has {0} bytes, more than are allowed")]
    TooLarge(usize),
    /// The body is not in the one encoding.
    #[error("link body is not canonical")]
    Canonical(#[from] CanonicalError),
    /// The body passed the scan and does not parse.
    #[error("link body cannot be parsed")]
    Parse(#[from] prost::DecodeError),
    /// An id in the body is not 32 (or 16) bytes.
    #[error("link names an id of the wrong length")]
    Id(#[from] IdError),
    /// The link is of another chain, or a genesis stands inside a chain.
    #[error("link is of another chain")]
    OtherChain,
    /// Not the number after the head's.
    #[error("link number {got} where {expected} was expected")]
    Number {
        /// The next number.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// The link builds on another link than the head: stale, or a fork.
    #[error("link builds on another link than the head")]
    Previous {
        /// What it builds on.
        got: LinkId,
    },
    /// The chain does not begin with a genesis.
    #[error("the first link is not a genesis")]
    NotGenesis,
    /// A critical type this reader does not know: it stops here.
    #[error("unknown critical link type {0:#x}")]
    UnknownCritical(u32),
    /// The body does not carry exactly the field of its type.
    #[error("link of type {0:#x} does not carry exactly its own field")]
    Field(u32),
    /// Not the signers that the type takes.
    #[error("link is not signed by whom it has to be")]
    Signers,
    /// More or fewer signatures than signers.
    #[error("{got} signatures of {expected} signers")]
    SignatureCount {
        /// Signers named.
        expected: usize,
        /// Signatures carried.
        got: usize,
    },
    /// A signature that does not hold.
    #[error("signature {place} of a link")]
    Signature {
        /// Its place, from 0.
        place: usize,
        /// What is wrong.
        #[source]
        source: SignError,
    },
    /// A key in the body is not good.
    #[error("key in a link")]
    Key(#[source] SignError),
    /// A name in the body is not one.
    #[error("name in a link")]
    Name(#[from] NameError),
    /// A key that is already in use in this chain.
    #[error("key is in use already")]
    KeyInUse,
    /// A key or device that is not on the list.
    #[error("key or device is not on the list")]
    NotListed,
    /// A value that breaks a rule of its type.
    #[error("{0} breaks a rule")]
    Value(&'static str),
    /// The list of devices is full.
    #[error("the list of devices is full")]
    DevicesFull,
    /// The chain is full until its owner writes a checkpoint; some places are for the recovery key.
    #[error("the chain is full")]
    Full,
    /// The checkpoint does not restate the state.
    #[error("the checkpoint restates another state")]
    Checkpoint,
    /// The account is closed; nothing follows.
    #[error("the chain is closed")]
    Closed,
}

/// The first bad link among several.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("link {at} of those given")]
pub struct ChainError {
    /// Its place among the links given, from 0.
    pub at: usize,
    /// What is wrong with it.
    #[source]
    pub source: LinkError,
}

/// The fields that bodies of all chains have.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Link type.
    pub kind: u32,
    /// Chain id; empty in a genesis.
    pub chain: Bytes,
    /// Id of the link before; empty in a genesis.
    pub previous: Bytes,
    /// Number; 0 in a genesis.
    pub number: u64,
    /// Key ids of the signers, in order.
    pub signers: Vec<KeyId>,
}

/// What a kind of chain has to say; implemented by its state.
pub trait ChainState: Sized + Clone {
    /// Label of signed and hashed bytes.
    const PURPOSE: Purpose;
    /// The body's fields.
    const SHAPE: &'static Shape;
    /// The body.
    type Body: prost::Message + Default;

    /// The common fields of a body.
    ///
    /// # Errors
    /// [`LinkError::Id`] if a signer's id is not 32 bytes.
    fn envelope(body: &Self::Body) -> Result<Envelope, LinkError>;
    /// The state after a genesis, and the keys that have to have signed it, in order.
    ///
    /// # Errors
    /// [`LinkError`]: what is wrong with the genesis.
    fn first(id: LinkId, body: &Self::Body) -> Result<(Self, Vec<PublicKey>), LinkError>;
    /// The state after one more link, and the keys that have to have signed it, in order. `None` is
    /// an unknown ignorable type: it changes nothing, and any listed keys may sign it.
    ///
    /// # Errors
    /// [`LinkError`]: what is wrong with the link.
    fn next(
        &self,
        id: LinkId,
        envelope: &Envelope,
        body: &Self::Body,
    ) -> Result<Option<(Self, Vec<PublicKey>)>, LinkError>;
    /// The key of this id, if it may sign links at all.
    fn signer(&self, id: &KeyId) -> Option<PublicKey>;
    /// The state after a link that changes nothing: it counts.
    ///
    /// # Errors
    /// [`LinkError::Full`], [`LinkError::Closed`].
    fn skipped(&self, envelope: &Envelope) -> Result<Self, LinkError>;
}

/// A chain's state that came about by verification only.
#[derive(Debug, Clone)]
pub struct Verified<S> {
    state: S,
    ids: Vec<LinkId>,
    genesis: LinkId,
    head: LinkId,
}

impl<S: PartialEq> PartialEq for Verified<S> {
    fn eq(&self, other: &Self) -> bool {
        self.ids == other.ids && self.state == other.state
    }
}

/// How one chain stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same head.
    Same,
    /// The first has the second's links and more.
    Extends,
    /// The second has the first's links and more.
    Extended,
    /// Neither extends the other: someone signed two histories.
    Fork,
    /// Different geneses: different things.
    OtherChain,
}

/// How chain `a` stands to chain `b`.
#[must_use]
pub fn relation<S>(a: &Verified<S>, b: &Verified<S>) -> Relation {
    if a.genesis != b.genesis {
        Relation::OtherChain
    } else if a.ids == b.ids {
        Relation::Same
    } else if a.ids.starts_with(&b.ids) {
        Relation::Extends
    } else if b.ids.starts_with(&a.ids) {
        Relation::Extended
    } else {
        Relation::Fork
    }
}

/// A link's id: SHA-256 over its labelled body.
#[must_use]
pub fn link_id(purpose: Purpose, body: &[u8]) -> LinkId {
    labelled_hash(purpose, body).into()
}

/// A link of a body and its signatures, in the order of the body's signers.
#[must_use]
pub fn assemble(body: Bytes, signatures: &[Signature]) -> pb::Link {
    pb::Link { body, signatures: signatures.iter().map(Signature::to_bytes).collect() }
}

/// A link of a body, signed by these keys in order.
#[must_use]
pub fn sign_link(purpose: Purpose, body: Bytes, keys: &[&SigningKey]) -> pb::Link {
    let signatures: Vec<Signature> = keys.iter().map(|key| key.sign(purpose, &body)).collect();
    assemble(body, &signatures)
}

impl<S: ChainState> Verified<S> {
    /// Verifies a genesis.
    ///
    /// # Errors
    /// [`LinkError`]: the first rule it breaks.
    pub fn genesis(link: &pb::Link) -> Result<Self, LinkError> {
        let (id, body, envelope) = open::<S>(link)?;
        if !envelope.chain.is_empty()
            || !envelope.previous.is_empty()
            || envelope.number != 0
            || envelope.kind != 0
        {
            return Err(LinkError::NotGenesis);
        }
        let (state, keys) = S::first(id, &body)?;
        check_signatures(S::PURPOSE, link, &envelope.signers, &keys)?;
        Ok(Self { state, ids: vec![id], genesis: id, head: id })
    }

    /// Verifies a whole chain, genesis first.
    ///
    /// # Errors
    /// [`ChainError`] names the first bad link.
    pub fn verify(links: &[pb::Link]) -> Result<Self, ChainError> {
        let first = links.first().ok_or(ChainError { at: 0, source: LinkError::NotGenesis })?;
        let mut chain = Self::genesis(first).map_err(|source| ChainError { at: 0, source })?;
        for (at, link) in links.iter().enumerate().skip(1) {
            chain.append(link).map_err(|source| ChainError { at, source })?;
        }
        Ok(chain)
    }

    /// Verifies the next link; the chain stays as it was if the link is bad.
    ///
    /// # Errors
    /// [`LinkError`]: the first rule it breaks.
    pub fn append(&mut self, link: &pb::Link) -> Result<LinkId, LinkError> {
        let (id, body, envelope) = open::<S>(link)?;
        if envelope.chain.as_ref() != self.genesis.as_ref() {
            return Err(LinkError::OtherChain);
        }
        let expected = self.next_number();
        if envelope.number != expected {
            return Err(LinkError::Number { expected, got: envelope.number });
        }
        let got = LinkId::try_from(&envelope.previous)?;
        if got != self.head {
            return Err(LinkError::Previous { got });
        }
        let (state, keys) = match self.state.next(id, &envelope, &body)? {
            Some(next) => next,
            None => {
                let keys =
                    envelope.signers.iter().map(|key| self.state.signer(key)).collect::<Option<Vec<_>>>();
                let keys = keys.filter(|keys| !keys.is_empty()).ok_or(LinkError::Signers)?;
                (self.state.skipped(&envelope)?, keys)
            }
        };
        check_signatures(S::PURPOSE, link, &envelope.signers, &keys)?;
        self.state = state;
        self.ids.push(id);
        self.head = id;
        Ok(id)
    }

    /// The chain after one more link.
    ///
    /// # Errors
    /// [`LinkError`]: the first rule it breaks.
    pub fn extended(&self, link: &pb::Link) -> Result<Self, LinkError> {
        let mut next = self.clone();
        next.append(link)?;
        Ok(next)
    }

    /// Verifies further links in order; those before the first bad one stay appended.
    ///
    /// # Errors
    /// [`ChainError`] names the first bad link.
    pub fn extend(&mut self, links: &[pb::Link]) -> Result<(), ChainError> {
        for (at, link) in links.iter().enumerate() {
            self.append(link).map_err(|source| ChainError { at, source })?;
        }
        Ok(())
    }

    /// The envelope of the next link, signed by these keys.
    #[must_use]
    pub fn next_envelope(&self, kind: u32, signers: &[KeyId]) -> Envelope {
        Envelope {
            kind,
            chain: self.genesis.to_bytes(),
            previous: self.head.to_bytes(),
            number: self.next_number(),
            signers: signers.to_vec(),
        }
    }

    fn next_number(&self) -> u64 {
        u64::try_from(self.ids.len()).unwrap_or(u64::MAX)
    }
}

impl<S> Verified<S> {
    /// The state after the head.
    #[must_use]
    pub const fn state(&self) -> &S {
        &self.state
    }

    /// Id of the genesis, and so of the chain.
    #[must_use]
    pub const fn genesis_id(&self) -> LinkId {
        self.genesis
    }

    /// Id of the newest link.
    #[must_use]
    pub const fn head(&self) -> LinkId {
        self.head
    }

    /// Number of links, genesis included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Never: a verified chain has a genesis.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Ids of all links, genesis first.
    #[must_use]
    pub fn ids(&self) -> &[LinkId] {
        &self.ids
    }

    /// The number of this link in this chain; `None` if it is not in it.
    #[must_use]
    pub fn number_of(&self, id: &LinkId) -> Option<usize> {
        self.ids.iter().position(|known| known == id)
    }

    /// Whether this link is in this chain.
    #[must_use]
    pub fn contains(&self, id: &LinkId) -> bool {
        self.number_of(id).is_some()
    }
}

/// Checks size and form, parses, and takes the envelope out.
fn open<S: ChainState>(link: &pb::Link) -> Result<(LinkId, S::Body, Envelope), LinkError> {
    if link.body.len() > LINK_BYTES_MAX {
        return Err(LinkError::TooLarge(link.body.len()));
    }
    canonical::scan(&link.body, S::SHAPE)?;
    let body = <S::Body as prost::Message>::decode(link.body.clone())?;
    let envelope = S::envelope(&body)?;
    LinkId::optional(&envelope.chain)?;
    LinkId::optional(&envelope.previous)?;
    Ok((link_id(S::PURPOSE, &link.body), body, envelope))
}

fn check_signatures(
    purpose: Purpose,
    link: &pb::Link,
    signers: &[KeyId],
    keys: &[PublicKey],
) -> Result<(), LinkError> {
    if !keys.iter().map(PublicKey::id).eq(signers.iter().copied()) {
        return Err(LinkError::Signers);
    }
    if link.signatures.len() != keys.len() {
        return Err(LinkError::SignatureCount { expected: keys.len(), got: link.signatures.len() });
    }
    for (place, (key, bytes)) in keys.iter().zip(&link.signatures).enumerate() {
        Signature::parse(bytes)
            .and_then(|signature| key.verify(purpose, &link.body, &signature))
            .map_err(|source| LinkError::Signature { place, source })?;
    }
    Ok(())
}

fn signers(ids: &[Bytes]) -> Result<Vec<KeyId>, LinkError> {
    ids.iter().map(|id| KeyId::try_from(id).map_err(LinkError::from)).collect()
}

fn key(bytes: &[u8]) -> Result<PublicKey, LinkError> {
    PublicKey::parse(bytes).map_err(LinkError::Key)
}
