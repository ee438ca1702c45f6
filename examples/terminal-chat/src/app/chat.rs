//! One conversation on the screen.

use tidings_client::{Message, MessageId};

use super::PAGE;
use crate::composer::Composer;

/// Notes kept in a conversation; older ones go.
const NOTES: usize = 100;

/// A line between messages that no message is: devices changed, something is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// It stands behind the message with this [`Message::seq`].
    pub(crate) after: u64,
    pub(crate) text: String,
}

/// What is loaded, typed and selected.
#[derive(Debug)]
pub(crate) struct Chat {
    /// Oldest first.
    pub(crate) messages: Vec<Message>,
    pub(crate) notes: Vec<Note>,
    pub(crate) draft: Composer,
    /// The message that the draft answers.
    pub(crate) reply_to: Option<MessageId>,
    /// The message under the cursor while one to answer is being chosen.
    pub(crate) selected: Option<MessageId>,
    /// Lines above the newest.
    pub(crate) scroll: usize,
    pub(crate) scroll_max: usize,
    /// Messages asked for.
    pub(crate) limit: u32,
    /// Whether there are no older ones.
    pub(crate) complete: bool,
    /// Which of the own texts was fetched back into the draft, counted from the newest.
    pub(super) recalled: Option<usize>,
}

impl Default for Chat {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            notes: Vec::new(),
            draft: Composer::default(),
            reply_to: None,
            selected: None,
            scroll: 0,
            scroll_max: 0,
            limit: PAGE,
            complete: false,
            recalled: None,
        }
    }
}

impl Chat {
    pub(super) fn loaded(&mut self, messages: Vec<Message>, complete: bool) {
        self.messages = messages;
        self.complete = complete;
        if self.selected.is_some_and(|id| self.message(id).is_none()) {
            self.selected = None;
        }
    }

    pub(super) fn note(&mut self, text: String) {
        let after = self.messages.last().map_or(0, |message| message.seq);
        let note = Note { after, text };
        if self.notes.last() == Some(&note) {
            return;
        }
        self.notes.push(note);
        if self.notes.len() > NOTES {
            self.notes.remove(0);
        }
    }

    /// A message that is loaded.
    pub(crate) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.iter().find(|message| message.id == id)
    }

    /// The text of a draft that could not be stored, before what was typed since.
    pub(super) fn give_back(&mut self, text: &str) {
        let typed = self.draft.take();
        let both = if typed.is_empty() { text.to_owned() } else { format!("{text}\n{typed}") };
        self.draft = Composer::from(both);
    }

    /// The draft as a message to send; nothing if it is blank.
    pub(super) fn take(&mut self) -> Option<(String, Option<MessageId>)> {
        if self.draft.text().trim().is_empty() {
            return None;
        }
        self.recalled = None;
        self.scroll = 0;
        self.selected = None;
        Some((self.draft.take(), self.reply_to.take()))
    }

    /// Puts an own text of before into the draft: the next older one, or the next newer.
    pub(super) fn recall(&mut self, older: bool) {
        let mut own: Vec<&str> = Vec::new();
        for message in self.messages.iter().rev().filter(|message| message.sender != message.conversation) {
            if own.last() != Some(&message.text.as_str()) {
                own.push(&message.text);
            }
        }
        let wanted = match (self.recalled, older) {
            // What was typed and never sent is not overwritten.
            (None, true) if self.draft.is_empty() => Some(0),
            (None, _) => return,
            (Some(at), true) => Some(at + 1),
            (Some(at), false) => at.checked_sub(1),
        };
        match wanted {
            None => {
                self.recalled = None;
                self.draft.take();
            }
            Some(at) => {
                if let Some(text) = own.get(at) {
                    self.draft = Composer::from((*text).to_owned());
                    self.recalled = Some(at);
                }
            }
        }
    }

    /// The draft was edited: it is a text of its own from now on.
    pub(super) fn edited(&mut self) {
        self.recalled = None;
    }

    /// Moves the cursor over the messages; begins at the newest.
    pub(super) fn select(&mut self, older: bool) {
        let at = self.selected.and_then(|id| self.messages.iter().position(|message| message.id == id));
        let last = self.messages.len().checked_sub(1);
        let at = match (at, older) {
            (None, _) => last,
            (Some(at), true) => Some(at.saturating_sub(1)),
            (Some(at), false) => Some(at.saturating_add(1)).min(last),
        };
        self.selected = at.and_then(|at| self.messages.get(at)).map(|message| message.id);
    }
}
