//! The server's own chain and keys, in files of the data folder.
//!
//! `server-root.key` may and should be taken offline after `init`; `server-online.key` signs proofs.
//! `franking.key` stays secret to this server.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use hex::FromHex as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use prost::Message as _;
use sha2::Sha256;
use tidings_proto::chain::server::ServerChange;
use tidings_proto::chain::{ServerState, Verified, link_id, server};
use tidings_proto::id::{AccountId, DeviceId, Incarnation};
use tidings_proto::name::Domain;
use tidings_proto::pb;
use tidings_proto::sign::{Purpose, SigningKey};

/// Why the identity cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{0} is damaged: restore it from a backup")]
    Damaged(PathBuf),
    /// The chain retired the key that this server has.
    #[error("{0} is not a key of the server's chain any more: put the present online key in its place")]
    KeyRetired(PathBuf),
    /// The chain is of another domain than the settings say.
    #[error("the data folder {folder} belongs to {found}, the settings are of {wanted}")]
    OtherDomain {
        /// The data folder.
        folder: PathBuf,
        /// Whose it is.
        found: Domain,
        /// The domain in the settings.
        wanted: Domain,
    },
    /// There is an identity already.
    #[error("{0} holds the identity of a server already: nothing was changed")]
    Exists(PathBuf),
}

/// Who this server is.
#[derive(Debug, Clone)]
pub struct ServerIdentity {
    /// Its chain.
    pub chain: Verified<ServerState>,
    /// The links, genesis first.
    pub links: Vec<pb::Link>,
    /// An online key.
    pub key: SigningKey,
}

/// The key that commitments are tagged with.
#[derive(Clone)]
pub struct Franking([u8; 32]);

impl std::fmt::Debug for Franking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Franking")
    }
}

impl Franking {
    /// A tag over what this server saw of a message (08-encryption, 8.3).
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "the things that a tag is over, in their order")]
    pub fn tag(
        &self,
        commitment: &[u8],
        device: &DeviceId,
        recipient: &AccountId,
        number: u64,
        at_ms: u64,
    ) -> Bytes {
        let mac = self
            .mac()
            .chain_update(commitment)
            .chain_update(device.0)
            .chain_update(recipient.0)
            .chain_update(number.to_be_bytes())
            .chain_update(at_ms.to_be_bytes());
        Bytes::copy_from_slice(&mac.finalize().into_bytes())
    }

    /// Another secret of this server, made of this one. No tag's input is as short as a label.
    #[must_use]
    pub fn derive(&self, label: &str) -> [u8; 32] {
        self.mac().chain_update(label).finalize().into_bytes().into()
    }

    fn mac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes a key of any length")
    }
}

const CHAIN: &str = "server-chain";
/// A branch of the chain that others hold and this folder does not.
const OTHER: &str = "server-chain.other";
const ROOT: &str = "server-root.key";
const ONLINE: &str = "server-online.key";
const FRANKING: &str = "franking.key";

/// Whether a folder holds an identity.
#[must_use]
pub fn exists(folder: &Path) -> bool {
    folder.join(CHAIN).exists()
}

/// Makes the identity of a new server.
///
/// # Errors
/// [`IdentityError::File`]; [`IdentityError::Exists`] if one is there already.
pub fn create(
    folder: &Path,
    domain: &Domain,
    mut random: impl FnMut() -> [u8; 32],
) -> Result<(), IdentityError> {
    if [CHAIN, ROOT, ONLINE, FRANKING].iter().any(|name| folder.join(name).exists()) {
        return Err(IdentityError::Exists(folder.to_owned()));
    }
    fs::create_dir_all(folder).map_err(|source| IdentityError::File { path: folder.to_owned(), source })?;
    let (root, online) = (SigningKey::from_seed(&random()), SigningKey::from_seed(&random()));
    let mut incarnation = [0; 16];
    incarnation.copy_from_slice(random().split_at(16).0);
    let genesis = server::genesis(domain, &root, &online, Incarnation(incarnation));
    write(folder, ROOT, hex::encode(root.seed()).as_bytes())?;
    write(folder, ONLINE, hex::encode(online.seed()).as_bytes())?;
    write(folder, FRANKING, hex::encode(random()).as_bytes())?;
    write(folder, CHAIN, hex::encode(genesis.encode_to_vec()).as_bytes())
}

/// Reads the identity.
///
/// # Errors
/// [`IdentityError`].
pub fn load(folder: &Path, domain: &Domain) -> Result<(ServerIdentity, Franking), IdentityError> {
    let (chain, links) = read_chain(folder, CHAIN)?;
    if chain.state().domain() != domain {
        let found = chain.state().domain().clone();
        return Err(IdentityError::OtherDomain { folder: folder.to_owned(), found, wanted: domain.clone() });
    }
    let key = SigningKey::from_seed(&seed(folder, ONLINE)?);
    if chain.state().online_key(&key.public().id()).is_none() {
        return Err(IdentityError::KeyRetired(folder.join(ONLINE)));
    }
    Ok((ServerIdentity { chain, links, key }, Franking(seed(folder, FRANKING)?)))
}

/// What links of the own chain that somebody else held have led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// They say nothing new, or are not of this chain.
    Nothing,
    /// They are in the chain's file, with a new incarnation behind them if all had come. The server has to start
    /// again.
    Grown,
    /// As [`Self::Grown`]; and the online key of this folder is retired.
    Mute,
    /// They go on from an earlier link than the own head. They are kept beside the chain for [`renew`].
    Forked,
}

/// Takes links that another side holds of this server's chain, ending in `head` if they are all. What does not
/// verify is not taken. The folder's copy had lost them: a new incarnation follows at once (04-chains, CHN-028).
///
/// # Errors
/// [`IdentityError`].
pub fn adopt(
    folder: &Path,
    links: &[pb::Link],
    head: &[u8],
    incarnation: Incarnation,
) -> Result<Adoption, IdentityError> {
    let (chain, mut own) = read_chain(folder, CHAIN)?;
    let id_of = |link: &pb::Link| link_id(Purpose::SERVER_LINK, &link.body);
    let fresh: Vec<pb::Link> =
        links.iter().skip_while(|link| chain.contains(&id_of(link))).cloned().collect();
    let Some(first) = fresh.first() else { return Ok(Adoption::Nothing) };
    let Ok(body) = pb::ServerLinkBody::decode(first.body.clone()) else { return Ok(Adoption::Nothing) };
    let Some(place) = chain.ids().iter().position(|id| id.as_ref() == body.previous.as_ref()) else {
        return Ok(Adoption::Nothing);
    };
    let forked = place.saturating_add(1) < own.len();
    own.truncate(place.saturating_add(1));
    own.extend(fresh);
    let Ok(grown) = Verified::<ServerState>::verify(&own) else { return Ok(Adoption::Nothing) };
    if forked {
        write_chain(folder, OTHER, &own)?;
        return Ok(Adoption::Forked);
    }
    let key = SigningKey::from_seed(&seed(folder, ONLINE)?);
    let speaks = grown.state().online_key(&key.public().id()).is_some();
    if speaks && grown.head().as_ref() == head {
        let link = grown.link(&ServerChange::NewIncarnation(incarnation), &[&key]);
        // A full chain takes none: then the incarnation that was lost goes on.
        own.extend(grown.extended(&link).is_ok().then_some(link));
    }
    write_chain(folder, CHAIN, &own)?;
    Ok(if speaks { Adoption::Grown } else { Adoption::Mute })
}

/// Adds a new-incarnation link to the chain: after the data folder was restored from a copy, or lost state. Where
/// others hold another branch of the chain ([`Adoption::Forked`]), it takes the place of the folder's own.
///
/// # Errors
/// [`IdentityError`].
pub fn renew(folder: &Path, domain: &Domain, incarnation: Incarnation) -> Result<(), IdentityError> {
    let (own, _) = load(folder, domain)?;
    let (chain, mut links) = match read_chain(folder, OTHER) {
        Ok((chain, links)) if chain.server_id() == own.chain.server_id() => (chain, links),
        _ => (own.chain, own.links),
    };
    links.push(chain.link(&ServerChange::NewIncarnation(incarnation), &[&own.key]));
    Verified::<ServerState>::verify(&links).map_err(|_| IdentityError::KeyRetired(folder.join(ONLINE)))?;
    write_chain(folder, CHAIN, &links)?;
    // If it stays, it says nothing that the chain does not.
    let _gone = fs::remove_file(folder.join(OTHER));
    Ok(())
}

fn seed(folder: &Path, name: &str) -> Result<[u8; 32], IdentityError> {
    <[u8; 32]>::from_hex(read(folder, name)?.trim()).map_err(|_| IdentityError::Damaged(folder.join(name)))
}

/// A chain's file: a link a line, genesis first.
fn read_chain(folder: &Path, name: &str) -> Result<(Verified<ServerState>, Vec<pb::Link>), IdentityError> {
    let damaged = || IdentityError::Damaged(folder.join(name));
    let mut links = Vec::new();
    for line in read(folder, name)?.lines() {
        let bytes = hex::decode(line).map_err(|_| damaged())?;
        links.push(pb::Link::decode(bytes.as_slice()).map_err(|_| damaged())?);
    }
    let chain = Verified::<ServerState>::verify(&links).map_err(|_| damaged())?;
    Ok((chain, links))
}

/// Puts a chain in the place of the old one, which is whole until the new one is.
fn write_chain(folder: &Path, name: &str, links: &[pb::Link]) -> Result<(), IdentityError> {
    let path = folder.join(name);
    let failed = |source| IdentityError::File { path: path.clone(), source };
    let text: String = links.iter().map(|link| hex::encode(link.encode_to_vec()) + "\n").collect();
    let fresh = folder.join(format!("{name}.new"));
    fs::write(&fresh, text).map_err(failed)?;
    fs::File::open(&fresh).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::rename(&fresh, &path).map_err(failed)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn read(folder: &Path, name: &str) -> Result<String, IdentityError> {
    fs::read_to_string(folder.join(name))
        .map_err(|source| IdentityError::File { path: folder.join(name), source })
}

/// Writes a secret once: never over an existing file, readable by its owner only.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
    let path = folder.join(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(&path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .map_err(|source| IdentityError::File { path, source })
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
