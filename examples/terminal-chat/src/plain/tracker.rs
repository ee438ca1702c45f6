//! Which messages were printed, and how far the own ones got.

use std::collections::BTreeMap;

use tidings_client::{AccountId, Client, Event, Message, MessageId, State};

use super::output::{line, message, state};
use crate::clock;

/// Messages of each conversation that are looked at when the program starts, or lost count.
const LOOK_BACK: u32 = 1_000;

/// An own message that can still get further.
struct Own {
    seq: u64,
    conversation: AccountId,
    number: u64,
    state: State,
}

/// The tracker.
pub(super) struct Tracker {
    /// By the message's id; read ones and failed ones are gone.
    own: BTreeMap<MessageId, Own>,
    /// The highest [`Message::seq`] printed.
    printed: u64,
}

impl Tracker {
    /// Begins with what the store holds.
    pub(super) async fn load(client: &Client) -> anyhow::Result<Self> {
        let mut tracker = Self { own: BTreeMap::new(), printed: 0 };
        for contact in client.store().contacts().await? {
            for message in client.store().messages(contact.account, u64::MAX, LOOK_BACK).await? {
                tracker.printed = tracker.printed.max(message.seq);
                tracker.track(client, &message);
            }
        }
        Ok(tracker)
    }

    /// Own messages that the home does not have.
    pub(super) fn waiting(&self) -> usize {
        self.own.values().filter(|own| own.state == State::Queued).count()
    }

    /// Follows an own message.
    pub(super) fn track(&mut self, client: &Client, message: &Message) {
        if message.sender == client.account() && message.state < State::Read {
            let Message { seq, conversation, number, state, .. } = *message;
            self.own.insert(message.id, Own { seq, conversation, number, state });
        }
    }

    /// Prints an event. Returns how many messages failed by it.
    pub(super) async fn event(&mut self, client: &Client, event: Event) -> anyhow::Result<u64> {
        match event {
            Event::Connected => line(&["connected"])?,
            Event::Disconnected { reason, retry_in_ms } => {
                let retry = retry_in_ms.map_or_else(|| "never".to_owned(), |ms| ms.to_string());
                line(&["disconnected", &retry, &reason])?;
            }
            Event::Message(came) => {
                if let Some(stored) = client.store().message(came.id).await? {
                    self.print(client, &stored).await?;
                }
            }
            Event::Accepted { id, .. } | Event::Failed { id, .. } => return self.look(client, id).await,
            Event::Progress { conversation, upto, state } => {
                let further =
                    |own: &Own| own.conversation == conversation && own.number <= upto && own.state < state;
                let further = self.own.iter().filter(|(_, own)| own.number > 0 && further(own));
                let mut ids: Vec<_> = further.map(|(id, own)| (own.seq, *id)).collect();
                ids.sort_unstable_by_key(|(seq, _)| *seq);
                let mut failed = 0;
                for (_, id) in ids {
                    failed += self.look(client, id).await?;
                }
                return Ok(failed);
            }
            Event::Pending { conversation, since_ms, reason } => {
                line(&["pending", &name(client, conversation).await?, &clock::stamp(since_ms), &reason])?;
            }
            Event::DevicesChanged { address, added, removed, .. } => {
                let (added, removed) = (added.len().to_string(), removed.len().to_string());
                line(&["devices-changed", &address.to_string(), &added, &removed])?;
            }
            Event::Fork { account } => line(&["fork", &name(client, account).await?])?,
            Event::HeadDisputed { contact, account } => {
                line(&["head-disputed", &name(client, contact).await?, &name(client, account).await?])?;
            }
            Event::Undecryptable { sender, number } => {
                line(&["undecryptable", &name(client, sender).await?, &number.to_string()])?;
            }
            Event::Gap { conversation, from, to } => {
                line(&["gap", &name(client, conversation).await?, &from.to_string(), &to.to_string()])?;
            }
            other => self::other(client, other).await?,
        }
        Ok(0)
    }

    /// Prints a message that came, unless it was printed before.
    async fn print(&mut self, client: &Client, stored: &Message) -> anyhow::Result<()> {
        if stored.seq <= self.printed {
            return Ok(());
        }
        self.printed = stored.seq;
        let kind = if stored.sender == client.account() { "own" } else { "message" };
        self.track(client, stored);
        let reply_to = reply_number(client, stored).await?;
        message(kind, stored, &name(client, stored.conversation).await?, &reply_to)
    }

    /// Reads how far a message got and prints it if that is news. Returns 1 if it failed.
    async fn look(&mut self, client: &Client, id: MessageId) -> anyhow::Result<u64> {
        let Some(stored) = client.store().message(id).await? else { return Ok(0) };
        let Some(own) = self.own.get_mut(&id) else { return Ok(0) };
        own.number = stored.number;
        if own.state == stored.state {
            return Ok(0);
        }
        own.state = stored.state;
        if stored.state >= State::Read {
            self.own.remove(&id);
        }
        let reason = stored.reason.as_deref().unwrap_or_default();
        line(&["state", &stored.seq.to_string(), state(stored.state), reason])?;
        Ok(u64::from(stored.state == State::Failed))
    }

    /// Prints what the store holds and was not printed.
    pub(super) async fn catch_up(&mut self, client: &Client) -> anyhow::Result<u64> {
        let mut failed = 0;
        let ids: Vec<_> = self.own.keys().copied().collect();
        for id in ids {
            failed += self.look(client, id).await?;
        }
        let mut missed = Vec::new();
        for contact in client.store().contacts().await? {
            let messages = client.store().messages(contact.account, u64::MAX, LOOK_BACK).await?;
            missed.extend(messages.into_iter().filter(|message| message.seq > self.printed));
        }
        missed.sort_unstable_by_key(|message| message.seq);
        for message in missed {
            if !self.own.contains_key(&message.id) {
                self.print(client, &message).await?;
            }
        }
        Ok(failed)
    }
}

/// Events that concern no message of this tracker.
async fn other(client: &Client, event: Event) -> anyhow::Result<()> {
    match event {
        Event::Withheld { conversation, device, count } => {
            let address = name(client, conversation).await?;
            line(&["withheld", &address, &device.to_string(), &count.to_string()])
        }
        Event::ReadElsewhere { conversation } => {
            line(&["read-elsewhere", &name(client, conversation).await?])
        }
        Event::Disappeared { ids } => line(&["disappeared", &ids.len().to_string()]),
        Event::AddressChanged { address, before, now } => {
            line(&["address-changed", &address.to_string(), &before.to_string(), &now.to_string()])
        }
        Event::MailboxLapsed => line(&["notice", "mailbox-lapsed"]),
        Event::HomeLostState => line(&["notice", "home-lost-state"]),
        Event::HomeRestored => line(&["notice", "home-restored"]),
        Event::RolledBack => line(&["notice", "rolled-back"]),
        // What a later version of the library tells is not promised here yet.
        _ => Ok(()),
    }
}

/// An account's address, else its id.
pub(super) async fn name(client: &Client, account: AccountId) -> anyhow::Result<String> {
    if account == client.account() {
        return Ok(client.address().to_string());
    }
    let contact = client.store().contact(account).await?;
    Ok(contact.map_or_else(|| account.to_string(), |contact| contact.address.to_string()))
}

/// The number of the message that is answered; `?` if this device does not have it.
pub(super) async fn reply_number(client: &Client, of: &Message) -> anyhow::Result<String> {
    let Some(id) = of.reply_to else { return Ok(String::new()) };
    let answered = client.store().message(id).await?;
    Ok(answered.map_or_else(|| "?".to_owned(), |message| message.seq.to_string()))
}
