//! The line mode: one command a line in, one event a line out. [`HELP`] is its description and a promise.
//!
//! Commands are carried out one after the other; events are printed between them, in the order they happened.

mod commands;
mod output;
mod tracker;

use std::process::ExitCode;
use std::time::Duration;

use tidings_client::{AccountId, Client, Event};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::plain::output::line;
use crate::plain::tracker::Tracker;
use crate::worker::shutdown;

/// The description of the line mode, for `--help`.
pub(crate) const HELP: &str = "\
PLAIN MODE (--plain, or no terminal)

Lines in:
  /to ADDRESS          the conversation that follows; looked up if it is new
  TEXT                 sends to it (a text that begins with / has another / before it)
  /send TEXT           the same, with \\n \\t \\\\ for line feed, tab, backslash
  /reply N TEXT        answers message N, with the same escapes
  /read                says that the conversation was read
  /accept /dismiss /block /unblock
  /safety              its safety number;  /verify: marks it as compared
  /history [N]         its last N messages (20)
  /contacts            everybody known
  /devices             the account's devices;  /remove ID: takes one off the list
  /link                links a new device: shows a code, then digits; /confirm or /cancel
  /status /help /quit  (the end of the input is /quit)

Lines out: fields separated by tabs, the first says what it is. Texts have \\n \\t \\\\ for line feed, tab and
backslash, other control characters are made visible. N numbers a message on this device. `-` is an empty field.
  ready ADDRESS ACCOUNT DEVICE            recovery CODE (once, for a new account: keep it)
  connected                               disconnected RETRY_MS|never REASON
  to ADDRESS STANDING VERIFIED UNREAD ACCOUNT   contact (the same fields, for each)
  queued N ADDRESS REPLY_TO TEXT          state N accepted|at-peer|delivered|read|failed REASON
  message N ADDRESS TIME REPLY_TO TEXT    own N ADDRESS TIME REPLY_TO TEXT (from another own device)
  history N ADDRESS me|them STATE TIME REPLY_TO TEXT
  pending ADDRESS SINCE REASON            gap ADDRESS FROM TO
  undecryptable ADDRESS NUMBER            devices-changed ADDRESS ADDED REMOVED
  fork ADDRESS                            withheld ADDRESS DEVICE COUNT
  head-disputed ADDRESS WHOSE
  address-changed ADDRESS BEFORE NOW      read-elsewhere ADDRESS, disappeared COUNT
  notice mailbox-lapsed|home-lost-state|home-restored|rolled-back
  safety ADDRESS DIGITS
  device ID this|other                    link-code CODE, link-digits DIGITS, linked ID
  status LINK WAITING                     done COMMAND
  error COMMAND REASON                    end WAITING FAILED
STANDING is undecided, accepted or blocked; VERIFIED is verified or unverified. At the end the program waits up to
--deadline seconds until the home has everything. It exits with 0 if nothing failed and nothing waits, else with 1.
";

/// Outcomes of a linking that may wait to be printed.
const QUEUE: usize = 8;

/// A line that the linking of a device has to say, or why it failed.
type LinkLine = Result<String, String>;

/// The line mode's state.
struct Plain {
    client: Client,
    /// How long a command waits for a connection, and the end for the home.
    deadline: Duration,
    current: Option<AccountId>,
    tracker: Tracker,
    tasks: JoinSet<()>,
    links: mpsc::Sender<LinkLine>,
    /// Present while the digits of a linking may be confirmed.
    confirm: Option<oneshot::Sender<bool>>,
    failed: u64,
}

/// Runs until the end of the input.
pub(crate) async fn run(
    client: Client,
    recovery: Option<String>,
    deadline_secs: u64,
) -> anyhow::Result<ExitCode> {
    let mut events = client.events();
    let (links, mut linked) = mpsc::channel(QUEUE);
    let mut plain = Plain {
        tracker: Tracker::load(&client).await?,
        client: client.clone(),
        deadline: Duration::from_secs(deadline_secs),
        current: None,
        tasks: JoinSet::new(),
        links,
        confirm: None,
        failed: 0,
    };
    let (account, device) = (client.account().to_string(), client.device().to_string());
    line(&["ready", &client.address().to_string(), &account, &device])?;
    if let Some(code) = recovery {
        line(&["recovery", &code])?;
    }
    let mut input = BufReader::new(tokio::io::stdin()).split(b'\n');
    loop {
        tokio::select! {
            read = input.next_segment() => {
                let Some(read) = read? else { break };
                let read = String::from_utf8_lossy(&read);
                if plain.input(read.trim_end_matches('\r')).await? {
                    break;
                }
                plain.pending_events(&mut events).await?;
            }
            event = events.recv() => plain.event(event).await?,
            Some(said) = linked.recv() => plain.linked(said)?,
        }
    }
    let waiting = plain.settle(&mut events, &mut linked).await?;
    plain.tasks.shutdown().await;
    shutdown(&client).await;
    line(&["end", &waiting.to_string(), &plain.failed.to_string()])?;
    Ok(if waiting == 0 && plain.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Plain {
    /// Prints what happened while a command was carried out.
    async fn pending_events(&mut self, events: &mut broadcast::Receiver<Event>) -> anyhow::Result<()> {
        loop {
            match events.try_recv() {
                Ok(event) => self.event(Ok(event)).await?,
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.catch_up().await?,
                Err(_) => return Ok(()),
            }
        }
    }

    async fn event(&mut self, event: Result<Event, broadcast::error::RecvError>) -> anyhow::Result<()> {
        match event {
            Ok(event) => self.failed += self.tracker.event(&self.client, event).await?,
            Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up().await?,
            Err(broadcast::error::RecvError::Closed) => anyhow::bail!("the device ended"),
        }
        Ok(())
    }

    /// Events were lost on the way; the store has the facts.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        self.failed += self.tracker.catch_up(&self.client).await?;
        Ok(())
    }

    fn linked(&mut self, said: LinkLine) -> anyhow::Result<()> {
        match said {
            Ok(text) => {
                let fields: Vec<&str> = text.split('\t').collect();
                line(&fields)
            }
            Err(reason) => {
                self.confirm = None;
                self.fail("/link", &reason)
            }
        }
    }

    /// Reports that a command failed.
    fn fail(&mut self, command: &str, reason: &str) -> anyhow::Result<()> {
        self.failed += 1;
        line(&["error", command, reason])
    }

    /// Waits until the home has everything, or the deadline. Returns how many messages still wait.
    async fn settle(
        &mut self,
        events: &mut broadcast::Receiver<Event>,
        linked: &mut mpsc::Receiver<LinkLine>,
    ) -> anyhow::Result<usize> {
        let until = deadline(self.deadline);
        self.pending_events(events).await?;
        // A linking that was confirmed is brought to its end, one that nobody can confirm any more is not.
        self.confirm = None;
        while self.tracker.waiting() > 0 || !self.tasks.is_empty() {
            tokio::select! {
                event = events.recv() => self.event(event).await?,
                Some(said) = linked.recv() => self.linked(said)?,
                Some(_) = self.tasks.join_next() => {}
                () = tokio::time::sleep_until(until) => break,
            }
        }
        while let Ok(said) = linked.try_recv() {
            self.linked(said)?;
        }
        Ok(self.tracker.waiting())
    }
}

fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}
