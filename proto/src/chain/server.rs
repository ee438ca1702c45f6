//! The server chain: which keys speak for a domain, and the incarnations of its logs (chapter 04).
//!
//! | link | signed by | refused if |
//! |---|---|---|
//! | genesis 0x00 | root, then the online key | the keys are equal |
//! | add-online-key 0x02 | root, then the new key | the key is or was in use |
//! | retire-online-key 0x04 | root | the key is not on the list |
//! | new-incarnation 0x06 | root or an online key | the incarnation was used before |
//!
//! What this module does not do: keep the root key, which stays offline.

use bytes::Bytes;
use prost::Message as _;

use super::{ChainState, Envelope, LinkError, Verified, key, sign_link, signers};
use crate::canonical::{Kind, Shape, once, repeated};
use crate::id::{Incarnation, KeyId, LinkId, ServerId};
use crate::name::Domain;
use crate::pb;
use crate::sign::{PublicKey, Purpose, SigningKey};

/// Links a server chain may have, genesis included.
pub const LINKS_MAX: usize = 256;

const GENESIS: u32 = 0x00;
const ADD_ONLINE_KEY: u32 = 0x02;
const RETIRE_ONLINE_KEY: u32 = 0x04;
const NEW_INCARNATION: u32 = 0x06;

static GENESIS_SHAPE: Shape = Shape {
    name: "ServerGenesis",
    fields: &[once(1, Kind::Text), once(2, Kind::Bytes), once(3, Kind::Bytes), once(4, Kind::Bytes)],
};
static ONE_BYTES_SHAPE: Shape = Shape { name: "ServerLink", fields: &[once(1, Kind::Bytes)] };
static BODY_SHAPE: Shape = Shape {
    name: "ServerLinkBody",
    fields: &[
        once(1, Kind::Uint32),
        once(2, Kind::Bytes),
        once(3, Kind::Bytes),
        once(4, Kind::Uint64),
        repeated(5, Kind::Bytes),
        once(16, Kind::Message(&GENESIS_SHAPE)),
        once(17, Kind::Message(&ONE_BYTES_SHAPE)),
        once(18, Kind::Message(&ONE_BYTES_SHAPE)),
        once(19, Kind::Message(&ONE_BYTES_SHAPE)),
    ],
};

/// What a server chain says after a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerState {
    domain: Domain,
    root_key: PublicKey,
    online_keys: Vec<PublicKey>,
    retired: Vec<KeyId>,
    incarnations: Vec<Incarnation>,
    links: usize,
}

/// A change that a link makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerChange {
    /// Signed by root, then the new key.
    AddOnlineKey(PublicKey),
    /// Signed by root.
    RetireOnlineKey(KeyId),
    /// Signed by root or an online key.
    NewIncarnation(Incarnation),
}

impl ServerState {
    /// The domain.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The root key.
    #[must_use]
    pub const fn root_key(&self) -> PublicKey {
        self.root_key
    }

    /// The keys that speak for the domain now, oldest first.
    #[must_use]
    pub fn online_keys(&self) -> &[PublicKey] {
        &self.online_keys
    }

    /// The online key of this id.
    #[must_use]
    pub fn online_key(&self, id: &KeyId) -> Option<PublicKey> {
        self.online_keys.iter().copied().find(|known| known.id() == *id)
    }

    /// All incarnations, the current one last.
    #[must_use]
    pub fn incarnations(&self) -> &[Incarnation] {
        &self.incarnations
    }

    /// The current incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnations.last().copied().unwrap_or_default()
    }

    fn counted(&self) -> Result<Self, LinkError> {
        let links = self.links.saturating_add(1);
        if links > LINKS_MAX { Err(LinkError::Full) } else { Ok(Self { links, ..self.clone() }) }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<Vec<PublicKey>, LinkError> {
        let new = key(bytes)?;
        if self.signer(&new.id()).is_some() || self.retired.contains(&new.id()) {
            return Err(LinkError::KeyInUse);
        }
        self.online_keys.push(new);
        Ok(vec![self.root_key, new])
    }

    fn retire(&mut self, bytes: &Bytes) -> Result<Vec<PublicKey>, LinkError> {
        let id = KeyId::try_from(bytes)?;
        self.online_key(&id).ok_or(LinkError::NotListed)?;
        self.online_keys.retain(|known| known.id() != id);
        self.retired.push(id);
        Ok(vec![self.root_key])
    }

    fn renew(&mut self, bytes: &Bytes, envelope: &Envelope) -> Result<Vec<PublicKey>, LinkError> {
        let incarnation = Incarnation::try_from(bytes)?;
        if incarnation.is_zero() || self.incarnations.contains(&incarnation) {
            return Err(LinkError::Value("incarnation"));
        }
        let [id] = envelope.signers.as_slice() else {
            return Err(LinkError::Signers);
        };
        let signer = self.signer(id).ok_or(LinkError::Signers)?;
        self.incarnations.push(incarnation);
        Ok(vec![signer])
    }
}

impl ChainState for ServerState {
    const PURPOSE: Purpose = Purpose::SERVER_LINK;
    const SHAPE: &'static Shape = &BODY_SHAPE;
    type Body = pb::ServerLinkBody;

    fn envelope(body: &Self::Body) -> Result<Envelope, LinkError> {
        Ok(Envelope {
            kind: body.r#type,
            chain: body.chain.clone(),
            previous: body.previous.clone(),
            number: body.number,
            signers: signers(&body.signers)?,
        })
    }

    fn first(_id: LinkId, body: &Self::Body) -> Result<(Self, Vec<PublicKey>), LinkError> {
        let (Some(genesis), 1) = (&body.genesis, fields(body)) else {
            return Err(LinkError::Field(GENESIS));
        };
        let domain = Domain::parse(&genesis.domain)?;
        let (root_key, online_key) = (key(&genesis.root_key)?, key(&genesis.online_key)?);
        if root_key == online_key {
            return Err(LinkError::KeyInUse);
        }
        let incarnation = Incarnation::try_from(&genesis.incarnation)?;
        if incarnation.is_zero() {
            return Err(LinkError::Value("incarnation"));
        }
        let state = Self {
            domain,
            root_key,
            online_keys: vec![online_key],
            retired: Vec::new(),
            incarnations: vec![incarnation],
            links: 1,
        };
        Ok((state, vec![root_key, online_key]))
    }

    fn next(
        &self,
        _id: LinkId,
        envelope: &Envelope,
        body: &Self::Body,
    ) -> Result<Option<(Self, Vec<PublicKey>)>, LinkError> {
        let kind = envelope.kind;
        if !matches!(kind, GENESIS | ADD_ONLINE_KEY | RETIRE_ONLINE_KEY | NEW_INCARNATION) {
            return if crate::frame::is_critical(kind.into()) {
                Err(LinkError::UnknownCritical(kind))
            } else {
                Ok(None)
            };
        }
        let mut next = self.counted()?;
        if fields(body) != 1 {
            return Err(LinkError::Field(kind));
        }
        let keys = match (kind, &body.add_online_key, &body.retire_online_key, &body.new_incarnation) {
            (ADD_ONLINE_KEY, Some(add), _, _) => next.add(&add.key)?,
            (RETIRE_ONLINE_KEY, _, Some(retire), _) => next.retire(&retire.key_id)?,
            (NEW_INCARNATION, _, _, Some(new)) => next.renew(&new.incarnation, envelope)?,
            _ => return Err(LinkError::Field(kind)),
        };
        Ok(Some((next, keys)))
    }

    fn signer(&self, id: &KeyId) -> Option<PublicKey> {
        if self.root_key.id() == *id { Some(self.root_key) } else { self.online_key(id) }
    }

    fn skipped(&self, _envelope: &Envelope) -> Result<Self, LinkError> {
        self.counted()
    }
}

fn fields(body: &pb::ServerLinkBody) -> usize {
    [
        body.genesis.is_some(),
        body.add_online_key.is_some(),
        body.retire_online_key.is_some(),
        body.new_incarnation.is_some(),
    ]
    .into_iter()
    .filter(|there| *there)
    .count()
}

/// A genesis, signed.
#[must_use]
pub fn genesis(
    domain: &Domain,
    root: &SigningKey,
    online: &SigningKey,
    incarnation: Incarnation,
) -> pb::Link {
    let body = pb::ServerLinkBody {
        r#type: GENESIS,
        signers: vec![root.public().id().to_bytes(), online.public().id().to_bytes()],
        genesis: Some(pb::ServerGenesis {
            domain: domain.to_string(),
            root_key: root.public().to_bytes(),
            online_key: online.public().to_bytes(),
            incarnation: incarnation.to_bytes(),
        }),
        ..Default::default()
    };
    sign_link(Purpose::SERVER_LINK, body.encode_to_vec().into(), &[root, online])
}

impl Verified<ServerState> {
    /// The server's id.
    #[must_use]
    pub fn server_id(&self) -> ServerId {
        self.genesis_id().into()
    }

    /// The body of the next link, for these signers in order.
    #[must_use]
    pub fn body(&self, change: &ServerChange, signers: &[KeyId]) -> Bytes {
        let kind = match change {
            ServerChange::AddOnlineKey(_) => ADD_ONLINE_KEY,
            ServerChange::RetireOnlineKey(_) => RETIRE_ONLINE_KEY,
            ServerChange::NewIncarnation(_) => NEW_INCARNATION,
        };
        let envelope = self.next_envelope(kind, signers);
        let mut body = pb::ServerLinkBody {
            r#type: kind,
            chain: envelope.chain,
            previous: envelope.previous,
            number: envelope.number,
            signers: signers.iter().map(KeyId::to_bytes).collect(),
            ..Default::default()
        };
        match change {
            ServerChange::AddOnlineKey(key) => {
                body.add_online_key = Some(pb::AddOnlineKey { key: key.to_bytes() })
            }
            ServerChange::RetireOnlineKey(id) => {
                body.retire_online_key = Some(pb::RetireOnlineKey { key_id: id.to_bytes() })
            }
            ServerChange::NewIncarnation(new) => {
                body.new_incarnation = Some(pb::NewIncarnation { incarnation: new.to_bytes() })
            }
        }
        body.encode_to_vec().into()
    }

    /// The next link, signed by these keys in order. It is not checked: append it.
    #[must_use]
    pub fn link(&self, change: &ServerChange, keys: &[&SigningKey]) -> pb::Link {
        let signers: Vec<KeyId> = keys.iter().map(|key| key.public().id()).collect();
        sign_link(Purpose::SERVER_LINK, self.body(change, &signers), keys)
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
