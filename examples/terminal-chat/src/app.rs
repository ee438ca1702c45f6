//! What the screen shows, and what each key and each piece of news does to it. Pure: inputs in, commands out; no
//! terminal, no clock, no SDK call.
//!
//! | input | effect |
//! |---|---|
//! | key, paste | moves, edits, opens a popup, or orders a [`Command`] |
//! | [`Update`] | news from the device: conversations, messages, connection, answers |
//! | focus | whether what is open counts as seen |
//!
//! Invariant: a text leaves a draft only together with the command that sends it, and comes back into the draft if
//! the device could not store it.

mod chat;
mod keys;
mod popup;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use tidings_client::store::messages::Conversation;
use tidings_client::{AccountId, Address, DeviceId, Message, MessageId};

pub(crate) use chat::Chat;
pub(crate) use keys::help;
pub(crate) use popup::{Decision, Linking, Popup};

use crate::composer::Composer;
use crate::text;

/// Messages of a conversation that are loaded at first, and each time a person scrolls past the oldest.
pub(crate) const PAGE: u32 = 200;

/// Who this device is.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) account: AccountId,
    pub(crate) device: DeviceId,
    pub(crate) address: Address,
}

/// The connection to the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// The first attempt is under way.
    Connecting,
    Connected,
    /// Gone; the next attempt is at this time.
    Waiting {
        reason: String,
        until_ms: u64,
    },
    /// Gone for good.
    Halted {
        reason: String,
    },
}

/// News for the screen.
#[derive(Debug)]
pub(crate) enum Update {
    Conversations(Vec<Conversation>),
    /// The newest messages of a conversation; `complete` if there are no older ones.
    History {
        account: AccountId,
        messages: Vec<Message>,
        complete: bool,
    },
    Link(Link),
    /// Something to say inside a conversation.
    Note {
        account: AccountId,
        text: String,
    },
    /// The address a person asked for is this account.
    Resolved(AccountId),
    /// It could not be found.
    Unresolved(String),
    /// The text could not be stored.
    NotSent {
        to: AccountId,
        text: String,
        reason: String,
    },
    /// A line for the status bar: something was done, or could not be.
    Said(String),
    Safety {
        account: AccountId,
        digits: String,
    },
    /// The home knows what the person decided.
    Decided(AccountId, Decision),
    Devices(Vec<DeviceId>),
    LinkCode(String),
    LinkDigits(String),
    Linked(DeviceId),
    NotLinked(String),
}

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Load the newest `limit` messages, and again whenever one changes.
    Open {
        account: AccountId,
        limit: u32,
    },
    Resolve(Address),
    Send {
        to: AccountId,
        text: String,
        reply_to: Option<MessageId>,
    },
    MarkRead(AccountId),
    Decide(AccountId, Decision),
    Safety(AccountId),
    SetVerified(AccountId, bool),
    Devices,
    Remove(DeviceId),
    BeginLink,
    ConfirmLink,
    EndLink,
    /// Dial now.
    Reconnect,
    /// Keep the drafts on disk.
    KeepDrafts,
    Quit,
}

/// The whole state.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) me: Me,
    pub(crate) conversations: Vec<Conversation>,
    pub(crate) open: Option<AccountId>,
    pub(crate) chats: BTreeMap<AccountId, Chat>,
    pub(crate) popup: Option<Popup>,
    pub(crate) link: Link,
    /// The newest line for the status bar, until a key is pressed.
    pub(crate) said: Option<String>,
    pub(crate) focused: bool,
    pub(crate) now_ms: u64,
    /// The last message of each conversation up to which "read" was said.
    read: BTreeMap<AccountId, u64>,
}

impl App {
    /// Nothing loaded yet; `drafts` are what was typed in a former run.
    pub(crate) fn new(me: Me, drafts: BTreeMap<AccountId, String>, now_ms: u64) -> Self {
        let chat = |draft: String| Chat { draft: Composer::from(draft), ..Chat::default() };
        let chats = drafts.into_iter().map(|(account, draft)| (account, chat(draft))).collect();
        Self {
            me,
            conversations: Vec::new(),
            open: None,
            chats,
            popup: None,
            link: Link::Connecting,
            said: None,
            focused: true,
            now_ms,
            read: BTreeMap::new(),
        }
    }

    /// What was typed and not sent.
    pub(crate) fn drafts(&self) -> BTreeMap<AccountId, String> {
        let kept = self.chats.iter().filter(|(_, chat)| !chat.draft.is_empty());
        kept.map(|(account, chat)| (*account, chat.draft.text().to_owned())).collect()
    }

    /// The open conversation's line of the list.
    pub(crate) fn summary(&self) -> Option<&Conversation> {
        self.summary_of(self.open?)
    }

    pub(crate) fn summary_of(&self, account: AccountId) -> Option<&Conversation> {
        self.conversations.iter().find(|summary| summary.contact.account == account)
    }

    /// The open conversation.
    pub(crate) fn chat(&self) -> Option<&Chat> {
        self.chats.get(&self.open?)
    }

    pub(crate) fn chat_mut(&mut self) -> Option<&mut Chat> {
        let account = self.open?;
        Some(self.chats.entry(account).or_default())
    }

    /// A name for an account: its address, else the beginning of its id.
    pub(crate) fn name(&self, account: AccountId) -> String {
        match self.summary_of(account) {
            _ if account == self.me.account => self.me.address.to_string(),
            Some(summary) => summary.contact.address.to_string(),
            None => text::short(account),
        }
    }

    /// The screen has lost or gained the person's eyes.
    pub(crate) fn focus(&mut self, focused: bool) -> Vec<Command> {
        self.focused = focused;
        self.mark_read()
    }

    /// How far up the messages can be scrolled, as the drawing found out.
    pub(crate) fn drawn(&mut self, scroll_max: usize) {
        if let Some(chat) = self.chat_mut() {
            chat.scroll_max = scroll_max;
            chat.scroll = chat.scroll.min(scroll_max);
        }
    }

    /// Opens a conversation.
    pub(crate) fn show(&mut self, account: AccountId) -> Vec<Command> {
        self.open = Some(account);
        let chat = self.chats.entry(account).or_default();
        chat.scroll = 0;
        chat.selected = None;
        let mut commands = vec![Command::KeepDrafts, Command::Open { account, limit: chat.limit }];
        commands.extend(self.mark_read());
        commands
    }

    /// Takes news.
    pub(crate) fn update(&mut self, update: Update) -> Vec<Command> {
        match update {
            Update::Conversations(summaries) => return self.listed(summaries),
            Update::History { account, messages, complete } => {
                self.chats.entry(account).or_default().loaded(messages, complete);
                return self.mark_read();
            }
            Update::Link(link) => {
                self.link = link;
                return vec![Command::KeepDrafts];
            }
            Update::Note { account, text } => self.chats.entry(account).or_default().note(text),
            Update::Resolved(account) => {
                if matches!(self.popup, Some(Popup::New { .. })) {
                    self.popup = None;
                }
                return self.show(account);
            }
            Update::NotSent { to, text, reason } => {
                self.chats.entry(to).or_default().give_back(&text);
                self.said = Some(format!("not sent: {reason}"));
            }
            Update::Decided(account, Decision::Dismiss) => return self.dismiss(account),
            Update::Decided(..) => {}
            Update::Said(text) => self.said = Some(text),
            other => self.popup_update(other),
        }
        Vec::new()
    }

    fn listed(&mut self, mut summaries: Vec<Conversation>) -> Vec<Command> {
        summaries.retain(|summary| summary.contact.account != self.me.account);
        let at = |summary: &Conversation| summary.last.as_ref().map_or(0, |message| message.seq);
        summaries.sort_by(|one, other| {
            at(other).cmp(&at(one)).then_with(|| one.contact.address.cmp_text(&other.contact.address))
        });
        self.conversations = summaries;
        let first = self.conversations.first().map(|summary| summary.contact.account);
        match (self.open, first) {
            (None, Some(account)) => self.show(account),
            _ => self.mark_read(),
        }
    }

    /// The request goes from the list and from the screen, as it went from the store.
    fn dismiss(&mut self, account: AccountId) -> Vec<Command> {
        self.chats.remove(&account);
        if self.open == Some(account) {
            self.open = None;
        }
        let mut listed = std::mem::take(&mut self.conversations);
        listed.retain(|summary| summary.contact.account != account);
        self.listed(listed)
    }

    /// Says "read" for what is before the person's eyes: on the screen, in a focused window. Strangers do not hear
    /// of it before they are accepted: the SDK sees to that.
    fn mark_read(&mut self) -> Vec<Command> {
        let Some(summary) = self.summary() else { return Vec::new() };
        let account = summary.contact.account;
        let seen = self.focused && summary.unread > 0 && self.chat().is_some_and(|chat| chat.scroll == 0);
        let last = summary.last.as_ref().map_or(0, |message| message.seq);
        if !seen || self.read.insert(account, last) == Some(last) {
            return Vec::new();
        }
        vec![Command::MarkRead(account)]
    }
}

/// Addresses in the order a person looks for them.
trait ByText {
    fn cmp_text(&self, other: &Self) -> std::cmp::Ordering;
}

impl ByText for Address {
    fn cmp_text(&self, other: &Self) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}
