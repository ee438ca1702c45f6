//! The side of the full-screen mode that talks to the SDK: carries out commands, turns events into updates.
//!
//! What a person sees is read from the store after each event, so that the screen can never disagree with it. What
//! needs the network runs beside everything else.

use std::time::Duration;

use tidings_client::{AccountId, Address, Client, Error, Event, Status};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use crate::app::{Command, Decision, Link, Update};
use crate::clock;
use crate::text;

/// Events taken in before the screen is told what they changed.
const BATCH: usize = 256;

/// The worker's state.
pub(crate) struct Worker {
    client: Client,
    updates: mpsc::Sender<Update>,
    /// The conversation on the screen, and how many of its messages.
    open: Option<(AccountId, u32)>,
    tasks: JoinSet<()>,
    linking: Option<(AbortHandle, Option<oneshot::Sender<()>>)>,
}

impl Worker {
    pub(crate) fn new(client: Client, updates: mpsc::Sender<Update>) -> Self {
        Self { client, updates, open: None, tasks: JoinSet::new(), linking: None }
    }

    /// Runs until the screen is gone, which drops the sender of the commands.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut events = self.client.events();
        // The connection may have come before anybody listened.
        let status = *self.client.status().borrow();
        if status == Status::Connected {
            self.tell(Update::Link(Link::Connected)).await;
        }
        self.refresh().await;
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => break,
                },
                event = events.recv() => {
                    if matches!(event, Err(broadcast::error::RecvError::Closed)) {
                        break;
                    }
                    // A lag loses events, not facts: those are read again below.
                    if let Ok(event) = event {
                        self.event(event).await;
                    }
                    for _ in 0..BATCH {
                        match events.try_recv() {
                            Ok(event) => self.event(event).await,
                            Err(_) => break,
                        }
                    }
                    self.refresh().await;
                }
                Some(_) = self.tasks.join_next() => self.refresh().await,
            }
        }
        self.tasks.shutdown().await;
    }

    /// A screen that is gone needs no news.
    async fn tell(&self, update: Update) {
        drop(self.updates.send(update).await);
    }

    async fn refresh(&self) {
        let read = async {
            let mut updates = vec![Update::Conversations(self.client.store().conversations().await?)];
            if let Some((account, limit)) = self.open {
                let messages = self.client.store().messages(account, u64::MAX, limit).await?;
                let complete = messages.len() < usize::try_from(limit).unwrap_or(usize::MAX);
                updates.insert(0, Update::History { account, messages, complete });
            }
            Ok::<_, Error>(updates)
        };
        match read.await {
            Ok(updates) => {
                for update in updates {
                    self.tell(update).await;
                }
            }
            Err(error) => self.tell(Update::Said(cause(&error))).await,
        }
    }

    fn disputed(&self, contact: AccountId, account: AccountId) -> Update {
        let own = self.client.account();
        if contact == own {
            return Update::Said("a device of yours names another list of your devices".to_owned());
        }
        let whose = if account == own { "your" } else { "their own" };
        let text = format!("a device of theirs names another list of {whose} devices; compare safety codes");
        Update::Note { account: contact, text }
    }

    async fn event(&self, event: Event) {
        let update = match event {
            Event::Connected => Update::Link(Link::Connected),
            Event::Disconnected { reason, retry_in_ms: Some(wait) } => {
                Update::Link(Link::Waiting { reason, until_ms: clock::now_ms().saturating_add(wait) })
            }
            Event::Disconnected { reason, retry_in_ms: None } => Update::Link(Link::Halted { reason }),
            Event::Pending { conversation, since_ms, reason } => {
                let since = clock::hour_minute(since_ms);
                let text =
                    format!("their home cannot be reached since {since} ({reason}); messages wait at yours");
                Update::Note { account: conversation, text }
            }
            Event::DevicesChanged { account, address, added, removed } => {
                let text = devices_changed(&address, added.len(), removed.len());
                if account == self.client.account() {
                    Update::Said(text)
                } else {
                    Update::Note { account, text }
                }
            }
            Event::Fork { account } if account == self.client.account() => {
                Update::Said("two histories of your own account were seen".to_owned())
            }
            Event::Fork { account } => {
                let text =
                    "two histories of this account were seen; nothing is sent until its owner mends that";
                Update::Note { account, text: text.to_owned() }
            }
            Event::HeadDisputed { contact, account } => self.disputed(contact, account),
            Event::Undecryptable { sender, number } => {
                let text = format!(
                    "message {number} cannot be read; the sender's device was asked to send it again"
                );
                Update::Note { account: sender, text }
            }
            Event::Gap { conversation, from, to } if from == to => {
                Update::Note { account: conversation, text: format!("message {from} never came") }
            }
            Event::Gap { conversation, from, to } => {
                Update::Note { account: conversation, text: format!("messages {from} to {to} never came") }
            }
            Event::Withheld { conversation, device, count } => {
                let device = text::short(device);
                let text = format!("{count} messages of the device {device} were withheld on the way");
                Update::Note { account: conversation, text }
            }
            Event::AddressChanged { address, before, .. } => {
                let text = format!("{address} is another account now: nothing written here goes there");
                Update::Note { account: before, text }
            }
            Event::MailboxLapsed => {
                Update::Said("your home dropped messages: too many or too old".to_owned())
            }
            Event::HomeLostState => {
                Update::Said("your home has lost state; its operator has to mend that".to_owned())
            }
            Event::HomeRestored => {
                Update::Said("your home began a new life; what it lost is sent again".to_owned())
            }
            Event::RolledBack => {
                Update::Said("this device's file is an old copy: link it as a new device".to_owned())
            }
            // Everything else shows in the store.
            _ => return,
        };
        self.tell(update).await;
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Open { account, limit } => {
                self.open = Some((account, limit));
                self.refresh().await;
            }
            Command::Send { to, text, reply_to } => {
                if let Err(error) = self.client.send_text(to, text.clone(), reply_to).await {
                    self.tell(Update::NotSent { to, text, reason: cause(&error) }).await;
                }
                self.refresh().await;
            }
            Command::SetVerified(account, verified) => {
                if let Err(error) = self.client.set_verified(account, verified).await {
                    self.tell(Update::Said(cause(&error))).await;
                }
                self.refresh().await;
            }
            Command::Safety(account) => {
                let digits = self.client.safety_number(account);
                self.tell(Update::Safety { account, digits }).await;
            }
            Command::Resolve(address) => self.beside(|client| resolve(client, address)),
            Command::MarkRead(account) => self.beside(async move |client: Client| {
                let done = client.mark_read(account).await;
                done.err().map(|error| Update::Said(cause(&error)))
            }),
            Command::Decide(account, decision) => self.beside(async move |client: Client| {
                Some(match decide(&client, account, decision).await {
                    Ok(()) => Update::Decided(account, decision),
                    Err(error) => Update::Said(cause(&error)),
                })
            }),
            Command::Devices => self.beside(devices),
            Command::Remove(device) => {
                self.beside(async move |client: Client| match client.remove_device(device).await {
                    Ok(()) => devices(client).await,
                    Err(error) => Some(Update::Said(cause(&error))),
                })
            }
            Command::BeginLink => self.begin_link(),
            Command::ConfirmLink => {
                if let Some(confirm) = self.linking.as_mut().and_then(|(_, confirm)| confirm.take()) {
                    // A linking that has ended in between says so itself.
                    let _ended = confirm.send(());
                }
            }
            Command::EndLink => {
                if let Some((task, Some(_unconfirmed))) = self.linking.take() {
                    task.abort();
                }
            }
            Command::Reconnect => self.client.reconnect().await,
            Command::KeepDrafts | Command::Quit => {}
        }
    }

    /// Runs something that may take long, and tells what came of it.
    fn beside<F>(&mut self, work: impl FnOnce(Client) -> F)
    where
        F: Future<Output = Option<Update>> + Send + 'static,
    {
        let work = work(self.client.clone());
        let updates = self.updates.clone();
        self.tasks.spawn(async move {
            if let Some(update) = work.await {
                drop(updates.send(update).await);
            }
        });
    }

    fn begin_link(&mut self) {
        let (confirm, confirmed) = oneshot::channel();
        let (client, updates) = (self.client.clone(), self.updates.clone());
        let task = self.tasks.spawn(async move {
            let update = match link(&client, &updates, confirmed).await {
                Ok(update) => update,
                Err(error) => Update::NotLinked(cause(&error)),
            };
            drop(updates.send(update).await);
        });
        if let Some((former, _)) = self.linking.replace((task, Some(confirm))) {
            former.abort();
        }
    }
}

async fn link(
    client: &Client,
    updates: &mpsc::Sender<Update>,
    confirmed: oneshot::Receiver<()>,
) -> Result<Update, Error> {
    let linking = client.link_new_device().await?;
    drop(updates.send(Update::LinkCode(linking.code())).await);
    let pending = linking.wait().await?;
    drop(updates.send(Update::LinkDigits(pending.digits().to_owned())).await);
    if confirmed.await.is_err() {
        return Ok(Update::NotLinked("given up".to_owned()));
    }
    Ok(Update::Linked(pending.confirm().await?))
}

async fn resolve(client: Client, address: Address) -> Option<Update> {
    Some(match client.resolve(&address).await {
        Ok(contact) if contact.account == client.account() => Update::Unresolved("that is you".to_owned()),
        Ok(contact) => Update::Resolved(contact.account),
        Err(error) => Update::Unresolved(cause(&error)),
    })
}

async fn devices(client: Client) -> Option<Update> {
    Some(match client.devices().await {
        Ok(devices) => Update::Devices(devices),
        Err(error) => Update::Said(cause(&error)),
    })
}

async fn decide(client: &Client, account: AccountId, decision: Decision) -> Result<(), Error> {
    match decision {
        Decision::Accept => client.accept(account).await,
        Decision::Block => client.block(account).await,
        Decision::Unblock => client.unblock(account).await,
        Decision::Dismiss => client.dismiss(account).await,
    }
}

/// What changed about somebody's devices, for people.
fn devices_changed(address: &Address, added: usize, removed: usize) -> String {
    let devices = |count: usize| if count == 1 { "a device".to_owned() } else { format!("{count} devices") };
    match (added, removed) {
        (added, 0) => format!("{address} added {}", devices(added)),
        (0, removed) => format!("{address} removed {}", devices(removed)),
        (added, removed) => format!("{address} added {} and removed {}", devices(added), devices(removed)),
    }
}

/// An error with its causes, on one line. A refusal speaks for itself.
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(Error::Refused(refusal)) = error.downcast_ref() {
        return text::clean_line(refusal.code.text());
    }
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(&format!(": {error}"));
        source = error.source();
    }
    text::clean_line(&line)
}

/// Ends the device's task; what waits stays in the store.
pub(crate) async fn shutdown(client: &Client) {
    const PATIENCE: Duration = Duration::from_secs(3);
    // A home that does not answer is not waited for: everything is in the store already.
    drop(tokio::time::timeout(PATIENCE, client.shutdown()).await);
}
