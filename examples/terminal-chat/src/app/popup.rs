//! The small windows above the conversation, and their keys.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use tidings_client::{AccountId, DeviceId, Standing};

use super::keys::edit_line;
use super::{App, Command, Update};
use crate::composer::Composer;
use crate::text;

/// What a person decides about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Accept,
    Block,
    Unblock,
    Dismiss,
}

/// How far the linking of a new device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Linking {
    /// The home is asked for a place to meet.
    Asking,
    /// The new device has to read this.
    Code(String),
    /// Both devices show these.
    Digits(String),
    /// The digits were confirmed.
    Adding,
    Done(DeviceId),
    Failed(String),
}

/// What is open above the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Popup {
    Help {
        scroll: u16,
    },
    /// The recovery code of a new account.
    Recovery(String),
    /// An address is typed.
    New {
        input: Composer,
        error: Option<String>,
        busy: bool,
    },
    Safety {
        account: AccountId,
        digits: Option<String>,
    },
    /// What to do with an account.
    Decide(AccountId),
    Devices {
        devices: Option<Vec<DeviceId>>,
        selected: usize,
        removing: bool,
    },
    Linking(Linking),
}

impl App {
    /// News that only a popup waits for; without it nobody does.
    pub(super) fn popup_update(&mut self, update: Update) {
        match (update, &mut self.popup) {
            (Update::Unresolved(reason), Some(Popup::New { error, busy, .. })) => {
                *error = Some(reason);
                *busy = false;
            }
            (Update::Unresolved(reason), _) => self.said = Some(reason),
            (Update::Safety { account, digits: news }, Some(Popup::Safety { account: shown, digits }))
                if account == *shown =>
            {
                *digits = Some(news);
            }
            (Update::Devices(news), Some(Popup::Devices { devices, selected, removing })) => {
                *selected = (*selected).min(news.len().saturating_sub(1));
                *removing = false;
                *devices = Some(news);
            }
            (Update::LinkCode(code), Some(Popup::Linking(stage))) => *stage = Linking::Code(code),
            (Update::LinkDigits(digits), Some(Popup::Linking(stage))) => *stage = Linking::Digits(digits),
            (Update::Linked(device), Some(Popup::Linking(stage))) => *stage = Linking::Done(device),
            (Update::Linked(device), _) => {
                self.said = Some(format!("the device {} joined", text::short(device)))
            }
            (Update::NotLinked(reason), Some(Popup::Linking(stage))) => *stage = Linking::Failed(reason),
            _ => {}
        }
    }

    /// A key while a popup is open.
    pub(super) fn popup_key(&mut self, mut popup: Popup, key: KeyEvent) -> Vec<Command> {
        // A linking has to be ended outside too; a recovery code is not closed by a stray key.
        if key.code == KeyCode::Esc && !matches!(popup, Popup::Linking(_) | Popup::Recovery(_)) {
            return Vec::new();
        }
        let commands = match &mut popup {
            Popup::Help { scroll } => {
                match key.code {
                    KeyCode::Down | KeyCode::PageDown => *scroll = scroll.saturating_add(1),
                    KeyCode::Up | KeyCode::PageUp => *scroll = scroll.saturating_sub(1),
                    _ => return Vec::new(),
                }
                Vec::new()
            }
            Popup::Recovery(_) => {
                if key.code == KeyCode::Enter {
                    return Vec::new();
                }
                Vec::new()
            }
            Popup::New { input, error, busy } => new_key(input, error, busy, key),
            Popup::Safety { account, .. } => match key.code {
                KeyCode::Char('y') => return vec![Command::SetVerified(*account, true)],
                KeyCode::Char('n') => return vec![Command::SetVerified(*account, false)],
                KeyCode::Enter => return Vec::new(),
                _ => Vec::new(),
            },
            Popup::Decide(account) => match self.decision(*account, key.code) {
                Some(decision) => return vec![Command::Decide(*account, decision)],
                None => Vec::new(),
            },
            Popup::Devices { devices, selected, removing } => {
                let own = self.me.device;
                match devices_key(devices.as_deref().unwrap_or_default(), own, selected, removing, key.code) {
                    DevicesKey::Close => return Vec::new(),
                    DevicesKey::Link => {
                        self.popup = Some(Popup::Linking(Linking::Asking));
                        return vec![Command::BeginLink];
                    }
                    DevicesKey::Stay(commands) => commands,
                }
            }
            Popup::Linking(stage) => match linking_key(stage, key) {
                Some(commands) => commands,
                None => return vec![Command::EndLink],
            },
        };
        self.popup = Some(popup);
        commands
    }

    fn decision(&self, account: AccountId, code: KeyCode) -> Option<Decision> {
        let standing = self.summary_of(account)?.contact.standing;
        match (standing, code) {
            (Standing::Undecided, KeyCode::Char('a')) => Some(Decision::Accept),
            (Standing::Undecided, KeyCode::Char('d')) => Some(Decision::Dismiss),
            (Standing::Blocked, KeyCode::Char('u')) => Some(Decision::Unblock),
            (Standing::Undecided | Standing::Accepted, KeyCode::Char('b')) => Some(Decision::Block),
            _ => None,
        }
    }
}

fn new_key(input: &mut Composer, error: &mut Option<String>, busy: &mut bool, key: KeyEvent) -> Vec<Command> {
    if key.code != KeyCode::Enter {
        edit_line(input, key);
        *error = None;
        return Vec::new();
    }
    if *busy {
        return Vec::new();
    }
    match input.text().trim().parse() {
        Ok(address) => {
            *busy = true;
            vec![Command::Resolve(address)]
        }
        Err(wrong) => {
            *error = Some(format!("{wrong}; an address looks like bob@b.example"));
            Vec::new()
        }
    }
}

enum DevicesKey {
    Close,
    Link,
    Stay(Vec<Command>),
}

fn devices_key(
    devices: &[DeviceId],
    own: DeviceId,
    selected: &mut usize,
    removing: &mut bool,
    code: KeyCode,
) -> DevicesKey {
    if *removing {
        *removing = false;
        let device = devices.get(*selected).filter(|_| code == KeyCode::Char('y'));
        return DevicesKey::Stay(device.map(|device| Command::Remove(*device)).into_iter().collect());
    }
    match code {
        KeyCode::Up => *selected = selected.saturating_sub(1),
        KeyCode::Down => *selected = (*selected + 1).min(devices.len().saturating_sub(1)),
        // This device cannot take itself off the list: nobody would be left to see it.
        KeyCode::Char('r') => *removing = devices.get(*selected).is_some_and(|device| *device != own),
        KeyCode::Char('l') => return DevicesKey::Link,
        KeyCode::Enter => return DevicesKey::Close,
        _ => {}
    }
    DevicesKey::Stay(Vec::new())
}

/// None: the popup closes, and with it the linking.
fn linking_key(stage: &mut Linking, key: KeyEvent) -> Option<Vec<Command>> {
    let over = matches!(stage, Linking::Done(_) | Linking::Failed(_));
    match (&stage, key.code) {
        (_, KeyCode::Esc) => None,
        (Linking::Digits(_), KeyCode::Char('y')) if key.modifiers == KeyModifiers::NONE => {
            *stage = Linking::Adding;
            Some(vec![Command::ConfirmLink])
        }
        (Linking::Digits(_), KeyCode::Char('n')) => None,
        (_, KeyCode::Enter) if over => None,
        _ => Some(Vec::new()),
    }
}
