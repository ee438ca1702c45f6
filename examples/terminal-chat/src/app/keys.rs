//! Keys. The README's table and [`help`] say the same.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{App, Command, PAGE, Popup};
use crate::composer::Composer;

/// Lines that PageUp moves.
const LEAP: usize = 10;

const HELP: &[(&str, &str)] = &[
    ("Enter", "send; Alt-Enter begins a new line"),
    ("Tab  Shift-Tab", "next, previous conversation"),
    ("PgUp  PgDn", "scroll the messages"),
    ("↑  ↓", "move; in an empty line: your former texts"),
    ("Ctrl-N", "new conversation, by address"),
    ("Ctrl-R", "reply: choose a message with ↑ ↓ and Enter"),
    ("Ctrl-A", "accept, dismiss or block who is open"),
    ("Ctrl-S", "safety number: compare, mark as verified"),
    ("Ctrl-D", "your devices: list, remove, link a new one"),
    ("Ctrl-G", "connect now instead of waiting"),
    ("Ctrl-W  U  K", "delete word, to the beginning, to the end"),
    ("Esc", "close, or give up a reply"),
    ("F1  ?", "this help (? in an empty line)"),
    ("Ctrl-C", "quit; what waits is sent next time"),
    ("", "How far a message got"),
    ("…", "waits on this device"),
    ("›", "your home has it"),
    ("»", "the other home has it"),
    ("✓", "on a device of theirs"),
    ("✓✓", "read"),
    ("✗", "will not arrive; the reason stands below"),
    ("", "In the list"),
    ("+", "a request: a stranger who asks to write"),
    ("✓", "safety number compared"),
    ("!", "two histories were seen: nothing is sent"),
    ("⊘", "blocked"),
    ("✎", "a draft waits"),
];

/// The help: keys and what they do; a line without a key is a heading.
pub(crate) fn help() -> &'static [(&'static str, &'static str)] {
    HELP
}

impl App {
    /// A key was pressed.
    pub(crate) fn key(&mut self, key: KeyEvent) -> Vec<Command> {
        if key.kind == KeyEventKind::Release {
            return Vec::new();
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return vec![Command::KeepDrafts, Command::Quit];
        }
        if let Some(popup) = self.popup.take() {
            return self.popup_key(popup, key);
        }
        self.said = None;
        if key.modifiers.contains(KeyModifiers::CONTROL)
            && let KeyCode::Char(letter) = key.code
            && let Some(commands) = self.control(letter)
        {
            return commands;
        }
        if self.chat().is_some_and(|chat| chat.selected.is_some()) {
            return self.selecting(key.code);
        }
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::F(1) => self.popup = Some(Popup::Help { scroll: 0 }),
            KeyCode::Char('?') if self.chat().is_none_or(|chat| chat.draft.is_empty()) => {
                self.popup = Some(Popup::Help { scroll: 0 });
            }
            KeyCode::Tab => return self.step(true),
            KeyCode::BackTab => return self.step(false),
            KeyCode::Down if alt => return self.step(true),
            KeyCode::Up if alt => return self.step(false),
            KeyCode::PageUp => return self.scroll(true),
            KeyCode::PageDown => return self.scroll(false),
            KeyCode::Enter if !alt => return self.enter(),
            KeyCode::Esc => {
                if let Some(chat) = self.chat_mut() {
                    chat.reply_to = None;
                }
            }
            _ => self.write(key),
        }
        Vec::new()
    }

    /// Text was pasted.
    pub(crate) fn paste(&mut self, text: &str) {
        match &mut self.popup {
            Some(Popup::New { input, .. }) => input.insert(text.trim()),
            Some(_) => {}
            None => {
                if let Some(chat) = self.chat_mut() {
                    chat.draft.insert(text);
                    chat.edited();
                }
            }
        }
    }

    /// A control key that belongs to no text; None if it may be one for editing.
    fn control(&mut self, letter: char) -> Option<Vec<Command>> {
        let open = self.open;
        match letter {
            'n' => self.popup = Some(Popup::New { input: Composer::default(), error: None, busy: false }),
            'd' => {
                self.popup = Some(Popup::Devices { devices: None, selected: 0, removing: false });
                return Some(vec![Command::Devices]);
            }
            's' => {
                if let Some(account) = open {
                    self.popup = Some(Popup::Safety { account, digits: None });
                    return Some(vec![Command::Safety(account)]);
                }
            }
            'g' => return Some(vec![Command::Reconnect]),
            'a' => self.popup = open.map(Popup::Decide),
            'r' => {
                if let Some(chat) = self.chat_mut() {
                    chat.select(true);
                }
            }
            _ => return None,
        }
        Some(Vec::new())
    }

    /// The next or previous conversation of the list.
    fn step(&mut self, down: bool) -> Vec<Command> {
        let count = self.conversations.len();
        if count == 0 {
            return Vec::new();
        }
        let at = self.conversations.iter().position(|summary| Some(summary.contact.account) == self.open);
        let next = match (at, down) {
            (None, _) => 0,
            (Some(at), true) => (at + 1) % count,
            (Some(at), false) => (at + count - 1) % count,
        };
        match self.conversations.get(next).map(|summary| summary.contact.account) {
            Some(account) => self.show(account),
            None => Vec::new(),
        }
    }

    fn scroll(&mut self, up: bool) -> Vec<Command> {
        let Some(account) = self.open else { return Vec::new() };
        let Some(chat) = self.chat_mut() else { return Vec::new() };
        if !up {
            chat.scroll = chat.scroll.saturating_sub(LEAP);
            return self.mark_read();
        }
        if chat.scroll >= chat.scroll_max && !chat.complete {
            chat.limit = chat.limit.saturating_add(PAGE);
            // The drawing finds the new end once the older messages are there.
            chat.scroll_max = usize::MAX;
            chat.scroll = chat.scroll.saturating_add(LEAP);
            return vec![Command::Open { account, limit: chat.limit }];
        }
        chat.scroll = chat.scroll.saturating_add(LEAP).min(chat.scroll_max);
        Vec::new()
    }

    fn enter(&mut self) -> Vec<Command> {
        let Some(account) = self.open else {
            return Vec::new();
        };
        let taken = self.chat_mut().and_then(super::Chat::take);
        match taken {
            Some((text, reply_to)) => vec![Command::Send { to: account, text, reply_to }],
            None => {
                use tidings_client::Standing;
                let standing = self.summary().map(|summary| summary.contact.standing);
                if standing == Some(Standing::Undecided)
                    && self.summary().is_some_and(|line| line.last.is_some())
                {
                    self.popup = Some(Popup::Decide(account));
                }
                Vec::new()
            }
        }
    }

    /// While a message to answer is being chosen.
    fn selecting(&mut self, code: KeyCode) -> Vec<Command> {
        let Some(chat) = self.chat_mut() else { return Vec::new() };
        match code {
            KeyCode::Up => chat.select(true),
            KeyCode::Down => chat.select(false),
            KeyCode::Enter => {
                chat.reply_to = chat.selected.take();
                chat.scroll = 0;
            }
            KeyCode::Esc => chat.selected = None,
            _ => {}
        }
        Vec::new()
    }

    fn write(&mut self, key: KeyEvent) {
        let Some(chat) = self.chat_mut() else { return };
        match key.code {
            KeyCode::Enter => chat.draft.insert("\n"),
            KeyCode::Up if !chat.draft.up() => return chat.recall(true),
            KeyCode::Down if !chat.draft.down() => return chat.recall(false),
            KeyCode::Up | KeyCode::Down => return,
            _ if !edit_line(&mut chat.draft, key) => return,
            _ => {}
        }
        chat.edited();
    }
}

/// A key that edits one line. True if the text may have changed.
pub(super) fn edit_line(composer: &mut Composer, key: KeyEvent) -> bool {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    match key.code {
        KeyCode::Char('w') if control => composer.delete_word(),
        KeyCode::Char('u') if control => composer.delete_to_home(),
        KeyCode::Char('k') if control => composer.delete_to_end(),
        KeyCode::Char('e') if control => composer.end(),
        KeyCode::Char('b') if alt => composer.word_left(),
        KeyCode::Char('f') if alt => composer.word_right(),
        KeyCode::Char(_) if control || alt => return false,
        KeyCode::Char(c) => composer.insert(c.encode_utf8(&mut [0; 4])),
        KeyCode::Backspace if control || alt => composer.delete_word(),
        KeyCode::Backspace => composer.backspace(),
        KeyCode::Delete => composer.delete(),
        KeyCode::Left if control || alt => composer.word_left(),
        KeyCode::Right if control || alt => composer.word_right(),
        KeyCode::Left => composer.left(),
        KeyCode::Right => composer.right(),
        KeyCode::Home => composer.home(),
        KeyCode::End => composer.end(),
        _ => return false,
    }
    true
}
