//! The handle of a device: what an app calls. Cheap to clone; the work is done by one task behind it.

use std::sync::Arc;

use prost::Message as _;
use rand::rngs::{StdRng, SysRng};
use rand::{Rng as _, SeedableRng as _};
use tidings_proto::chain::{AccountChange, AccountState, Verified};
use tidings_proto::handshake::{Credentials, Identity};
use tidings_proto::id::{AccountId, DeviceId, MessageId};
use tidings_proto::name::Address;
use tidings_proto::pb;
use tidings_proto::sign::SigningKey;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::crypto::{PrekeyOrder, generate_prekeys};
use crate::engine::{Ask, Command, Engine, Parts, Status, now_ms, server_chain, store_prekeys};
use crate::error::{Error, StoreError};
use crate::event::Event;
use crate::home::{Dial, Home, HomeError};
use crate::me::{Me, new_account};
use crate::options::Options;
use crate::prekeys;
use crate::store::accounts::{self, Contact, Standing};
use crate::store::messages::{self, Message, State};
use crate::store::{Store, put_value};

/// Events kept for a program that is slow to read them; the store has everything all the same.
const EVENTS: usize = 1024;
/// Commands that wait for the task.
const COMMANDS: usize = 64;
/// Longest text in bytes: what fits a ciphertext (`ciphertext_bytes_max`) beside header, padding and the keys of a
/// session's first message.
pub const TEXT_BYTES_MAX: usize = 56 * 1024;
/// One-time prekeys of each kind that a new account starts with.
const FIRST_PREKEYS: u32 = 50;

/// One device of one account.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    me: Me,
    store: Store,
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<Event>,
    status: watch::Receiver<Status>,
}

/// A generator seeded by the system's.
pub(crate) fn generator() -> Result<StdRng, Error> {
    StdRng::try_from_rng(&mut SysRng)
        .map_err(|error| Error::Misuse(format!("the system gives no random numbers: {error}")))
}

impl Client {
    /// Makes a new account at its home, with this device as its first, and starts it.
    ///
    /// `token` is the invitation, where the home wants one. If a former call was cut off after its keys
    /// were stored, the same account is registered again; the home recognises it.
    ///
    /// # Errors
    /// [`Error::Refused`] with the home's reason (name taken, no invitation, …), [`Error::Offline`] if it
    /// cannot be reached, [`Error::Misuse`] if the store holds another device.
    pub async fn register(options: Options, address: Address, token: Option<&str>) -> Result<Self, Error> {
        let store = Store::open(&options.store).await?;
        let mut rng = generator()?;
        if store.value("registered").await?.is_some() {
            return Err(Error::Misuse("the store holds a registered device: open it".to_owned()));
        }
        if Me::load(&store).await?.is_none() {
            prepare(&store, address.clone(), &mut rng).await?;
        }
        let broken = |column| StoreError::Inconsistent { table: "meta", column };
        let me = Me::load(&store).await?.ok_or_else(|| broken("address"))?;
        if me.address != address {
            return Err(Error::Misuse(format!("the store was begun for {}", me.address)));
        }
        let request = store.value("register").await?.ok_or_else(|| broken("register"))?;
        let mut request = pb::Register::decode(request.as_slice()).map_err(|_| broken("register"))?;
        token.unwrap_or_default().clone_into(&mut request.token);
        let home = candidate(&options, &me.address, &me.key, &mut rng).await?;
        let asked = async {
            let mut pipeline = home.pipeline().await?;
            pipeline.ask::<pb::Done>(&request).await
        };
        asked.await.map_err(failed)?;
        home.connection.close(0_u32.into(), b"");
        let chain = server_chain(&store, &home).await?;
        let mut tx = store.begin().await?;
        put_value(&mut tx, "registered", b"1").await?;
        // The home is pinned, and this is its life that the device knows (AUT-016).
        put_value(&mut tx, "server-chain", &chain).await?;
        put_value(&mut tx, "incarnation", home.server.chain.state().incarnation().as_ref()).await?;
        put_value(&mut tx, "prekeys-published", b"1").await?;
        put_value(&mut tx, "rotated-at-ms", &now_ms().to_be_bytes()).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Self::start(options, me, store, rng).await
    }

    /// Starts a device whose store is there.
    ///
    /// # Errors
    /// [`Error::Misuse`] if there is no registered device in the store.
    pub async fn open(options: Options) -> Result<Self, Error> {
        let store = Store::open(&options.store).await?;
        let registered = store.value("registered").await?.is_some();
        match Me::load(&store).await? {
            Some(me) if registered => Self::start(options, me, store, generator()?).await,
            _ => Err(Error::Misuse("the store holds no registered device".to_owned())),
        }
    }

    pub(crate) async fn start(options: Options, me: Me, store: Store, rng: StdRng) -> Result<Self, Error> {
        let (commands, received) = mpsc::channel(COMMANDS);
        let (events, _) = broadcast::channel(EVENTS);
        let (told, status) = watch::channel(Status::Waiting);
        let parts = Parts {
            options,
            me: me.clone(),
            store: store.clone(),
            commands: received,
            events: events.clone(),
            status: told,
        };
        let engine = Engine::load(parts, rng).await?;
        #[expect(clippy::disallowed_methods, reason = "the one task of a client; it ends with the handle")]
        tokio::spawn(engine.run());
        Ok(Self { inner: Arc::new(Inner { me, store, commands, events, status }) })
    }

    /// Events from now on. A program that lags behind by more than 1,024 misses the oldest, not the facts:
    /// those are in the store.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// Whether the device is connected; can be awaited.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// This account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.inner.me.account
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.inner.me.device
    }

    /// Where the account lives.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.inner.me.address
    }

    /// What this device has stored: contacts, messages.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The account's recovery key in hexadecimal, on the device that made the account: to be written down
    /// and kept elsewhere. Without it a lost last device is a lost account.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn recovery_code(&self) -> Result<Option<String>, Error> {
        Ok(self.inner.store.value("recovery-key").await?.map(hex::encode))
    }

    /// Who lives at an address: asked of its home, verified, and remembered.
    ///
    /// # Errors
    /// [`Error::Refused`] (no such account, unreachable, …), [`Error::Violation`] if the answer is forged,
    /// [`Error::Offline`].
    pub async fn resolve(&self, address: &Address) -> Result<Contact, Error> {
        self.command(|answer| Command::Resolve(address.clone(), answer)).await
    }

    /// Writes a message. It is in the store when this returns, and sent when everything for it is there.
    ///
    /// # Errors
    /// [`Error::Misuse`] if the account is not known ([`Client::resolve`] it first) or the text is longer than
    /// [`crate::TEXT_BYTES_MAX`]; [`Error::Fork`].
    pub async fn send_text(
        &self,
        to: AccountId,
        text: impl Into<String>,
        reply_to: Option<MessageId>,
    ) -> Result<MessageId, Error> {
        let text = text.into();
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::Misuse(format!("a text has at most {TEXT_BYTES_MAX} bytes")));
        }
        let unknown = || Error::Misuse("the account is not known: resolve it first".to_owned());
        let contact = self.inner.store.contact(to).await?.ok_or_else(unknown)?;
        if contact.forked {
            return Err(Error::Fork(contact.address.to_string()));
        }
        let mut id = [0; 16];
        generator()?.fill_bytes(&mut id);
        let id = MessageId(id);
        let device = self.inner.me.device;
        let mut tx = self.inner.store.begin().await?;
        let message = Message {
            seq: messages::next_seq(&mut tx).await?,
            id,
            conversation: to,
            sender: self.inner.me.account,
            device,
            text,
            reply_to,
            sent_at_ms: now_ms(),
            number: 0,
            own_number: 0,
            lifetime_secs: contact.lifetime_secs,
            state: State::Queued,
            reason: None,
        };
        messages::put_message(&mut tx, &message, None).await?;
        if contact.standing == Standing::Undecided {
            // Writing to somebody accepts them, here as at the home.
            accounts::set_standing(&mut tx, to, Standing::Accepted).await?;
        }
        tx.commit().await.map_err(StoreError::from)?;
        self.wake().await;
        Ok(id)
    }

    /// Says that everything from this account was read, here and on the account's other devices. Kept and told to
    /// the home when there is a connection; the other side hears of it only if the user accepted it (PRV-009).
    ///
    /// # Errors
    /// If the store fails.
    pub async fn mark_read(&self, from: AccountId) -> Result<(), Error> {
        let mut tx = self.inner.store.begin().await?;
        crate::store::lanes::read_all(&mut tx, from).await?;
        messages::start_lifetimes(&mut tx, from, false, now_ms()).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.wake().await;
        Ok(())
    }

    /// Asks the home of a known account for newer links of its chain, and gives what is known of it then.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Offline`].
    pub async fn refresh(&self, account: AccountId) -> Result<Contact, Error> {
        self.command(|answer| Command::Refresh(account, answer)).await
    }

    /// Sets after how many seconds messages written to an account from now on disappear on both sides: counted
    /// from when they are read, 0 for never.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn set_lifetime(&self, account: AccountId, secs: u32) -> Result<(), Error> {
        let mut tx = self.inner.store.begin().await?;
        accounts::set_lifetime(&mut tx, account, secs).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Gives the connection up and dials anew: the network changed, or the user asks for it. Also what brings a
    /// device back that another connection took over, or that was halted. Between two attempts it changes nothing:
    /// the wait there protects the home (TRN-064).
    pub async fn reconnect(&self) {
        drop(self.inner.commands.send(Command::Reconnect).await);
    }

    /// Takes an account as a contact: its receipts and messages come as a contact's.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::Refused`].
    pub async fn accept(&self, account: AccountId) -> Result<(), Error> {
        self.decide(account, pb::Decision::Accept, Standing::Accepted).await
    }

    /// Blocks an account. It is not told; to it you look like somebody who is offline.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::Refused`].
    pub async fn block(&self, account: AccountId) -> Result<(), Error> {
        self.decide(account, pb::Decision::Block, Standing::Blocked).await
    }

    /// Drops what a stranger wrote, here and at the home, without a word to them; they can write again. Until they
    /// do, or the user asks for their address, they are on no list. Changes nothing for a contact or a blocked account.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::Refused`].
    pub async fn dismiss(&self, account: AccountId) -> Result<(), Error> {
        let decision = pb::Decision::Dismiss.into();
        self.ask(Ask::Decide(pb::Decide { account: account.to_bytes(), decision })).await?;
        let mut tx = self.inner.store.begin().await?;
        accounts::dismiss(&mut tx, account).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Ends a block.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::Refused`].
    pub async fn unblock(&self, account: AccountId) -> Result<(), Error> {
        self.decide(account, pb::Decision::Unblock, Standing::Undecided).await
    }

    async fn decide(
        &self,
        account: AccountId,
        decision: pb::Decision,
        standing: Standing,
    ) -> Result<(), Error> {
        let decide = pb::Decide { account: account.to_bytes(), decision: decision.into() };
        self.ask(Ask::Decide(decide)).await?;
        let mut tx = self.inner.store.begin().await?;
        accounts::set_standing(&mut tx, account, standing).await?;
        tx.commit().await.map_err(StoreError::from)?;
        // What waited for the decision, as a report of a request that could not be read, goes now.
        self.wake().await;
        Ok(())
    }

    /// The devices of this account, as its chain says.
    ///
    /// # Errors
    /// [`Error::Closed`] after the client was shut down.
    pub async fn devices(&self) -> Result<Vec<DeviceId>, Error> {
        Ok(self.own_chain().await?.state().devices().keys().copied().collect())
    }

    /// The devices of another account, as its verified chain says; empty if it is not known.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn devices_of(&self, account: AccountId) -> Result<Vec<DeviceId>, Error> {
        let links = self.inner.store.links(account).await?;
        let chain = crate::chains::first_contact(Some(account), &links).ok();
        Ok(chain.map(|chain| chain.state().devices().keys().copied().collect()).unwrap_or_default())
    }

    /// Takes a device off the account's list.
    ///
    /// # Errors
    /// [`Error::Offline`], [`Error::Refused`].
    pub async fn remove_device(&self, device: DeviceId) -> Result<(), Error> {
        let change = Box::new(AccountChange::RemoveDevice(device));
        self.command(|answer| Command::Append(change, Vec::new(), answer)).await
    }

    pub(crate) async fn append_link(&self, link: pb::Link) -> Result<(), Error> {
        self.command(|answer| Command::AppendLink(Box::new(link), answer)).await
    }

    pub(crate) async fn connection(&self) -> Result<quinn::Connection, Error> {
        self.command(Command::Connection).await
    }

    pub(crate) async fn own_chain(&self) -> Result<Verified<AccountState>, Error> {
        let (answer, answered) = oneshot::channel();
        self.inner.commands.send(Command::OwnChain(answer)).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)
    }

    pub(crate) fn me(&self) -> &Me {
        &self.inner.me
    }

    pub(crate) async fn wake(&self) {
        // A task that is gone has nothing to be woken for: what is to be sent waits in the store.
        drop(self.inner.commands.send(Command::Wake).await);
    }

    async fn ask(&self, ask: Ask) -> Result<(), Error> {
        self.command(|answer| Command::Ask(Box::new(ask), answer)).await
    }

    pub(crate) async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.inner.commands.send(command(answer)).await.map_err(|_| Error::Closed)?;
        // Whoever would have answered went away with the connection.
        answered.await.map_err(|_| Error::Offline)?
    }

    /// Ends the task after what it is doing. What waits stays in the store.
    pub async fn shutdown(&self) {
        drop(self.inner.commands.send(Command::Shutdown).await);
        self.inner.commands.closed().await;
    }
}

/// Makes the account's keys and stores everything before the home hears of it.
async fn prepare(store: &Store, address: Address, rng: &mut StdRng) -> Result<(), Error> {
    let new = new_account(address, rng)?;
    let order = PrekeyOrder { start_id: 1, one_time: FIRST_PREKEYS, rotate: true, now_ms: now_ms() };
    let set = generate_prekeys(&new.me.local.identity, &order, rng)
        .map_err(|error| Error::Misuse(error.to_string()))?;
    let request = pb::Register {
        genesis: Some(new.link.clone()),
        token: String::new(),
        keys: Some(prekeys::publish(&set, true)),
    };
    let mut tx = store.begin().await?;
    new.me.save(&mut tx).await?;
    store_prekeys(&mut tx, &set).await?;
    put_value(&mut tx, "recovery-key", &new.recovery.seed()).await?;
    put_value(&mut tx, "register", &request.encode_to_vec()).await?;
    accounts::put_chain(&mut tx, new.me.account, &new.me.address, 0, vec![new.link]).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

/// Connects with a key that stands on no chain yet.
pub(crate) async fn candidate(
    options: &Options,
    address: &Address,
    key: &SigningKey,
    rng: &mut StdRng,
) -> Result<Home, Error> {
    candidate_at(options, address.domain(), key, rng).await
}

/// As [`candidate`], by the home's domain.
pub(crate) async fn candidate_at(
    options: &Options,
    domain: &tidings_proto::name::Domain,
    key: &SigningKey,
    rng: &mut StdRng,
) -> Result<Home, Error> {
    let (mut nonce, mut boot_id) = ([0; 32], [0; 16]);
    rng.fill_bytes(&mut nonce);
    rng.fill_bytes(&mut boot_id);
    let identity = Identity::Candidate(key.public());
    let credentials = Credentials { identity, key: key.clone(), chain: Vec::new() };
    let dial = Dial { options, domain, server: None, server_links: Vec::new(), credentials, nonce, boot_id };
    Home::dial(dial).await.map_err(failed)
}

/// A failed request as the caller sees it.
pub(crate) fn failed(error: HomeError) -> Error {
    match error {
        HomeError::Refused(refusal) => Error::Refused(refusal),
        HomeError::Violation(refusal) => Error::Violation(refusal.to_string()),
        HomeError::Lost(reason) => {
            tracing::debug!(%reason, "the home was lost");
            Error::Offline
        }
    }
}
