//! A device with somebody behind it: the SDK's client, and waiting for what it comes to know.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tidings_client::{
    AccountId, Client, Event, Group, GroupId, Message, MessageId, Options, Post, PostState, State, Status,
};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// How long anything may take that needs no reconnection.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Messages of a conversation that are looked at.
const ALL: u32 = 10_000;

/// One device.
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
    pub(crate) options: Options,
    pub(crate) events: Receiver<Event>,
}

impl Person {
    /// Makes an account.
    pub(crate) async fn register(
        name: &'static str,
        address: &str,
        options: Options,
    ) -> anyhow::Result<Self> {
        let address = address.parse().with_context(|| format!("the address {address}"))?;
        let registered = tokio::time::timeout(PATIENCE, Client::register(options.clone(), address, None));
        let client = registered.await.with_context(|| format!("{name} waited for the registration"))?;
        Self::with(name, client.with_context(|| format!("the registration of {name}"))?, options).await
    }

    /// A device that is there; waits until it is connected.
    pub(crate) async fn with(name: &'static str, client: Client, options: Options) -> anyhow::Result<Self> {
        let events = client.events();
        let person = Self { name, client, options, events };
        person.connected(PATIENCE).await?;
        Ok(person)
    }

    /// Waits until it is connected.
    pub(crate) async fn connected(&self, patience: Duration) -> anyhow::Result<()> {
        let mut status = self.client.status();
        let connected = status.wait_for(|status| *status == Status::Connected);
        let connected = tokio::time::timeout(patience, connected).await;
        connected
            .with_context(|| format!("{} was not connected in {} s", self.name, patience.as_secs()))??;
        Ok(())
    }

    /// The next event; a lag loses events, not facts.
    pub(crate) async fn event(&mut self) -> anyhow::Result<Option<Event>> {
        match self.events.recv().await {
            Ok(event) => Ok(Some(event)),
            Err(RecvError::Lagged(_)) => Ok(None),
            Err(RecvError::Closed) => bail!("the device of {} ended", self.name),
        }
    }

    /// Waits for a value: looked for now, and again after each event.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl AsyncFnMut(&Client) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let waited = async {
            loop {
                if let Some(value) = look(&self.client).await? {
                    return Ok(value);
                }
                match self.events.recv().await {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => bail!("the device of {} ended", self.name),
                }
            }
        };
        let waited = tokio::time::timeout(patience, waited).await;
        waited.with_context(|| format!("{} waited {} s for {what}", self.name, patience.as_secs()))?
    }

    /// Waits until an own message has got as far as this.
    pub(crate) async fn reached(&mut self, id: MessageId, state: State) -> anyhow::Result<Message> {
        let what = format!("its message to be {state:?}");
        self.until(&what, PATIENCE, async |client: &Client| {
            let message = client.store().message(id).await?.context("the message is not in the store")?;
            if message.state == State::Failed {
                bail!("the message failed: {}", message.reason.as_deref().unwrap_or("no reason given"));
            }
            Ok((message.state >= state).then_some(message))
        })
        .await
    }

    /// Waits for a message by its id.
    pub(crate) async fn gets(&mut self, id: MessageId) -> anyhow::Result<Message> {
        let look = async |client: &Client| Ok(client.store().message(id).await?);
        self.until("a message", PATIENCE, look).await
    }

    /// Everything said with an account, oldest first.
    pub(crate) async fn conversation(&self, with: AccountId) -> anyhow::Result<Vec<Message>> {
        Ok(self.client.store().messages(with, u64::MAX, ALL).await?)
    }

    /// Waits until an own post has got as far as this.
    pub(crate) async fn post_reached(&mut self, id: MessageId, state: PostState) -> anyhow::Result<Post> {
        let what = format!("its post to be {state:?}");
        self.until(&what, PATIENCE, async |client: &Client| {
            let post = client.store().post(id).await?.context("the post is not in the store")?;
            if post.state == PostState::Failed {
                bail!("the post failed: {}", post.reason.as_deref().unwrap_or("no reason given"));
            }
            Ok((post.state >= state).then_some(post))
        })
        .await
    }

    /// Waits for a post by its id.
    pub(crate) async fn gets_post(&mut self, id: MessageId) -> anyhow::Result<Post> {
        let look = async |client: &Client| Ok(client.store().post(id).await?);
        self.until("a post", PATIENCE, look).await
    }

    /// Waits until a group is as it is wanted.
    pub(crate) async fn group_is(
        &mut self,
        group: GroupId,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Group) -> bool,
    ) -> anyhow::Result<Group> {
        let look =
            async |client: &Client| Ok(client.store().group(group).await?.filter(|group| wanted(group)));
        self.until(what, patience, look).await
    }

    /// Everything said in a group, in the order of its log.
    pub(crate) async fn posts(&self, group: GroupId) -> anyhow::Result<Vec<Post>> {
        Ok(self.client.store().posts(group, u64::MAX, ALL).await?)
    }
}
