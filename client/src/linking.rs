//! Linking a new device by a code, on both sides (spec 05-accounts, 5.7).
//!
//! | existing device | new device |
//! |---|---|
//! | shows the code, waits ([`Linking::wait`]) | reads the code ([`join`]) |
//! | | sends its keys (LinkOffer) |
//! | sends the link to be signed (LinkDraft) | checks it, shows six digits, signs (LinkConsent) |
//! | shows the same six digits, waits for the person | |
//! | confirmed: appends the link, says so (LinkDone) | starts as a device of the account |
//!
//! ```no_run
//! # async fn existing(client: tidings_client::Client) -> Result<(), tidings_client::Error> {
//! let linking = client.link_new_device().await?;
//! println!("on the new device, enter {}", linking.code());
//! let pending = linking.wait().await?;
//! println!("does the new device show {}?", pending.digits());
//! let device = pending.confirm().await?;
//! # Ok(())
//! # }
//! # async fn new(options: tidings_client::Options, code: &str) -> Result<(), tidings_client::Error> {
//! // On the new device:
//! let client = tidings_client::join(options, code, |digits| println!("compare {digits}")).await?;
//! # Ok(())
//! # }
//! ```

use rand::Rng as _;
use rand::rngs::StdRng;
use tidings_proto::chain::{AccountChange, AccountState, DeviceKeys, Verified, assemble};
use tidings_proto::error::Code;
use tidings_proto::id::DeviceId;
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::{PublicKey, Purpose, Signature};

use crate::chains;
use crate::client::{Client, candidate_at, failed, generator};
use crate::engine::server_chain;
use crate::error::{Error, StoreError};
use crate::home::{Home, HomeError, Pipeline};
use crate::link_code::{Direction, LinkCode};
use crate::me::{Me, NewDevice};
use crate::options::Options;
use crate::store::{Store, accounts, put_value};

/// Questions, each of `request_deadline_ms`, before a meeting is given up: as long as the home keeps it
/// (`rendezvous_secs`).
const QUESTIONS: u32 = 40;

/// The words of a meeting, in their order.
#[derive(Debug, Clone, Copy)]
enum Word {
    Offer = 1,
    Draft = 2,
    Consent = 3,
    Done = 4,
}

/// One side of a meeting at the home.
struct Meeting {
    pipeline: Pipeline,
    code: LinkCode,
    out: Direction,
}

impl Meeting {
    async fn join(connection: &quinn::Connection, code: LinkCode, out: Direction) -> Result<Self, Error> {
        let mut pipeline = Home::pipeline_on(connection).await.map_err(failed)?;
        let id = code.rendezvous.to_vec().into();
        pipeline.ask::<pb::Done>(&pb::RendezvousJoin { id }).await.map_err(failed)?;
        Ok(Self { pipeline, code, out })
    }

    async fn send(&mut self, word: Word, message: &impl prost::Message) -> Result<(), Error> {
        let blob = self.code.seal(self.out, word as u8, &message.encode_to_vec()).into();
        self.pipeline.ask::<pb::Done>(&pb::RendezvousSend { blob }).await.map_err(failed)?;
        Ok(())
    }

    /// Waits for the other's word. Anything that was not sealed for this place ends the meeting (ACC-031).
    async fn receive<M: prost::Message + Default>(&mut self, word: Word) -> Result<M, Error> {
        let other = if self.out == Direction::ToNew { Direction::ToExisting } else { Direction::ToNew };
        for _ in 0..QUESTIONS {
            match self.pipeline.ask::<pb::RendezvousBlob>(&pb::RendezvousReceive {}).await {
                Ok(answer) => {
                    let opened = self.code.open(other, word as u8, &answer.blob);
                    let forged = || Error::Violation("a word of the other device was forged".to_owned());
                    return M::decode(opened.ok_or_else(forged)?).map_err(|_| forged());
                }
                Err(HomeError::Refused(refusal)) if refusal.code == Code::TIMED_OUT => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(Error::Misuse("the other device did not come".to_owned()))
    }
}

/// On the existing device: a meeting that waits for the new one.
pub struct Linking {
    client: Client,
    meeting: Meeting,
}

/// On the existing device: the new one has come and signed; the person compares the digits.
pub struct Pending {
    client: Client,
    meeting: Meeting,
    chain: Verified<AccountState>,
    link: pb::Link,
    digits: String,
}

impl std::fmt::Debug for Linking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linking").field("code", &self.meeting.code).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").field("digits", &self.digits).finish_non_exhaustive()
    }
}

impl Client {
    /// Begins to link a new device: show [`Linking::code`] to the person. Each code is for one linking (ACC-034)
    /// and good for ten minutes.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::Refused`].
    pub async fn link_new_device(&self) -> Result<Linking, Error> {
        let mut rng = generator()?;
        let (mut rendezvous, mut secret) = ([0; 16], [0; 16]);
        rng.fill_bytes(&mut rendezvous);
        rng.fill_bytes(&mut secret);
        let code = LinkCode { rendezvous, secret, domain: self.address().domain().clone() };
        let meeting = Meeting::join(&self.connection().await?, code, Direction::ToNew).await?;
        Ok(Linking { client: self.clone(), meeting })
    }
}

impl Linking {
    /// What the person types or scans on the new device.
    #[must_use]
    pub fn code(&self) -> String {
        self.meeting.code.to_string()
    }

    /// Waits for the new device, and for its signature on the link that would add it. Nothing is appended yet.
    ///
    /// # Errors
    /// [`Error::Violation`] if its words were forged, [`Error::Misuse`] if it does not come, [`Error::Offline`] if
    /// the connection is lost: then begin again with a new code.
    pub async fn wait(mut self) -> Result<Pending, Error> {
        let violation = |error: &dyn std::fmt::Display| Error::Violation(error.to_string());
        let offer: pb::LinkOffer = self.meeting.receive(Word::Offer).await?;
        let key = PublicKey::parse(&offer.key).map_err(|error| violation(&error))?;
        let keys = DeviceKeys::new(key, &offer.identity_key, offer.registration_id)
            .map_err(|error| violation(&error))?;
        let own = &self.client.me().key;
        let digits = self.meeting.code.digits(own.public().as_bytes(), key.as_bytes(), keys.identity_key());
        let chain = self.client.own_chain().await?;
        let body = chain.body(&AccountChange::AddDevice(keys), &[own.public().id(), key.id()]);
        let links = self.client.store().links(self.client.account()).await?;
        let address = self.client.address().to_string();
        self.meeting.send(Word::Draft, &pb::LinkDraft { body: body.clone(), chain: links, address }).await?;
        let consent: pb::LinkConsent = self.meeting.receive(Word::Consent).await?;
        let theirs = Signature::parse(&consent.signature).map_err(|error| violation(&error))?;
        let link = assemble(body.clone(), &[own.sign(Purpose::ACCOUNT_LINK, &body), theirs]);
        chain.extended(&link).map_err(|error| violation(&error))?;
        Ok(Pending { client: self.client, meeting: self.meeting, chain, link, digits })
    }
}

impl Pending {
    /// Six digits; the new device shows the same. Anything else: do not confirm, drop this.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// The person says that the digits agree: the device joins the account (ACC-032).
    ///
    /// # Errors
    /// [`Error::Refused`] by the home; with `stale-link`, begin again with a new code.
    pub async fn confirm(mut self) -> Result<DeviceId, Error> {
        tracing::debug!(head = %self.chain.head(), "a device is appended");
        let id = tidings_proto::chain::link_id(Purpose::ACCOUNT_LINK, &self.link.body);
        self.client.append_link(self.link).await?;
        self.meeting.send(Word::Done, &pb::LinkDone { link: id.to_bytes() }).await?;
        Ok(DeviceId::from(id))
    }
}

/// On the new device: joins the account whose code was read. `digits` is told the six digits as soon as they
/// are known; the device starts when the person has confirmed them on the existing one.
///
/// # Errors
/// [`Error::Misuse`] for a bad code or a store that is in use, [`Error::Violation`] if what the other side
/// says does not hold, [`Error::Refused`], [`Error::Offline`].
pub async fn join(options: Options, code: &str, digits: impl FnOnce(&str)) -> Result<Client, Error> {
    let code: LinkCode = code.parse().map_err(|error| Error::Misuse(format!("{error}")))?;
    let store = Store::open(&options.store).await?;
    if Me::load(&store).await?.is_some() {
        return Err(Error::Misuse("the store holds another device".to_owned()));
    }
    let mut rng = generator()?;
    let device = NewDevice::generate(&mut rng);
    let home = candidate_at(&options, &code.domain.clone(), &device.key, &mut rng).await?;
    let joined = meet(&home, code, &device, digits).await;
    home.connection.close(0_u32.into(), b"");
    let joined = joined?;
    settle(&store, &home, device, &joined).await?;
    start(options, store, rng).await
}

/// A device that stands on an account's chain from now on.
pub(crate) struct Joined {
    /// Where the account lives.
    pub(crate) address: Address,
    /// The links up to the one that added it.
    pub(crate) links: Vec<pb::Link>,
    /// The same, verified.
    pub(crate) chain: Verified<AccountState>,
    /// The id of the link that added it.
    pub(crate) device: DeviceId,
}

async fn meet(
    home: &Home,
    code: LinkCode,
    device: &NewDevice,
    digits: impl FnOnce(&str),
) -> Result<Joined, Error> {
    let mut meeting = Meeting::join(&home.connection, code, Direction::ToExisting).await?;
    let offer = pb::LinkOffer {
        key: device.key.public().to_bytes(),
        identity_key: device.local.identity.public().to_vec().into(),
        registration_id: device.local.registration_id,
    };
    meeting.send(Word::Offer, &offer).await?;
    let draft: pb::LinkDraft = meeting.receive(Word::Draft).await?;
    let chain = check(&draft, device, &meeting.code, digits)?;
    let signature = device.key.sign(Purpose::ACCOUNT_LINK, &draft.body).to_bytes();
    meeting.send(Word::Consent, &pb::LinkConsent { signature }).await?;
    let done: pb::LinkDone = meeting.receive(Word::Done).await?;
    let link = tidings_proto::chain::link_id(Purpose::ACCOUNT_LINK, &draft.body);
    if done.link != link.to_bytes() {
        return Err(Error::Violation("another link was appended than the one that was signed".to_owned()));
    }
    let address = chain.state().address().clone();
    Ok(Joined { address, links: draft.chain, chain, device: DeviceId::from(link) })
}

/// What is to be signed is exactly this device joining exactly the account of the chain, at this home (ACC-033).
fn check(
    draft: &pb::LinkDraft,
    device: &NewDevice,
    code: &LinkCode,
    digits: impl FnOnce(&str),
) -> Result<Verified<AccountState>, Error> {
    let violation = |text: &str| Error::Violation(text.to_owned());
    let chain = chains::first_contact(None, &draft.chain).map_err(|error| violation(&error.to_string()))?;
    let keys = device.keys()?;
    let signer = chain.state().devices().values().find(|existing| {
        let change = AccountChange::AddDevice(keys.clone());
        chain.body(&change, &[existing.key().id(), keys.key().id()]) == draft.body
    });
    let existing = signer.ok_or_else(|| violation("the link to be signed says something else"))?;
    let address = chain.state().address();
    if address.to_string() != draft.address || *address.domain() != code.domain {
        return Err(violation("the chain names another address"));
    }
    let own = device.key.public();
    digits(&code.digits(existing.key().as_bytes(), own.as_bytes(), keys.identity_key()));
    Ok(chain)
}

/// Writes what makes the store this device's.
pub(crate) async fn settle(
    store: &Store,
    home: &Home,
    device: NewDevice,
    joined: &Joined,
) -> Result<(), Error> {
    let address = joined.address.clone();
    let me = Me {
        address: address.clone(),
        account: joined.chain.account_id(),
        device: joined.device,
        key: device.key,
        local: device.local,
    };
    let chain = server_chain(store, home).await?;
    let mut tx = store.begin().await?;
    me.save(&mut tx).await?;
    accounts::put_chain(&mut tx, me.account, &address, 0, joined.links.clone()).await?;
    put_value(&mut tx, "registered", b"1").await?;
    // The home is pinned (AUT-016).
    put_value(&mut tx, "server-chain", &chain).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

pub(crate) async fn start(options: Options, store: Store, rng: StdRng) -> Result<Client, Error> {
    let broken = StoreError::Inconsistent { table: "meta", column: "address" };
    let me = Me::load(&store).await?.ok_or(broken)?;
    Client::start(options, me, store, rng).await
}
