//! The full-screen mode's driver: terminal, keys, clock, drafts. Decisions are made in `app`, SDK calls in `worker`.

use std::future::poll_fn;
use std::io::{self, Stdout, stdout};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{
    DisableBracketedPaste, DisableFocusChange, EnableBracketedPaste, EnableFocusChange, Event, EventStream,
};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use futures_core::Stream as _;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tidings_client::{Client, Options};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::app::{App, Command, Me, Popup, Update};
use crate::worker::{Worker, shutdown};
use crate::{clock, draw, settings};

/// Updates and commands that may wait between screen and worker.
const QUEUE: usize = 64;

/// The terminal in full-screen mode; as it was before once this is dropped, and when the program panics.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
        FULL.store(true, Ordering::Release);
        enable_raw_mode()?;
        // From here on `restore` has something to undo, also if the next step fails.
        let entered = execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste, EnableFocusChange);
        match entered.and_then(|()| Terminal::new(CrosstermBackend::new(stdout()))) {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether there is something to restore: a second time would move the cursor over what was printed since.
static FULL: AtomicBool = AtomicBool::new(false);

/// Best effort: a terminal that is gone needs no restoring.
fn restore() {
    if !FULL.swap(false, Ordering::AcqRel) {
        return;
    }
    let left = execute!(
        stdout(),
        DisableFocusChange,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        crossterm::cursor::Show
    );
    drop(left);
    drop(disable_raw_mode());
}

/// Shows the device until the person quits. `recovery` is shown first, if the account is new.
pub(crate) async fn run(client: Client, options: Options, recovery: Option<String>) -> anyhow::Result<()> {
    let me = Me { account: client.account(), device: client.device(), address: client.address().clone() };
    let store = options.store.clone();
    let mut app = App::new(me, settings::drafts(&store), clock::now_ms());
    app.popup = recovery.map(Popup::Recovery);
    let (updates, mut news) = mpsc::channel(QUEUE);
    let (orders, commands) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(Worker::new(client.clone(), updates).run(commands));
    let mut screen = Screen::open()?;
    let ended = drive(&mut screen, &mut app, &mut news, &orders, &store).await;
    drop(screen);
    drop(orders);
    settings::keep_drafts(&store, &app.drafts())?;
    drop(news);
    while tasks.join_next().await.is_some() {}
    shutdown(&client).await;
    ended
}

async fn drive(
    screen: &mut Screen,
    app: &mut App,
    news: &mut mpsc::Receiver<Update>,
    orders: &mpsc::Sender<Command>,
    store: &Path,
) -> anyhow::Result<()> {
    let mut keys = EventStream::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let stopped = stopped();
    tokio::pin!(stopped);
    loop {
        let mut scroll_max = 0;
        screen.terminal.draw(|frame| scroll_max = draw::draw(frame, app))?;
        app.drawn(scroll_max);
        let commands = tokio::select! {
            event = next(&mut keys) => match event {
                Some(event) => handle(app, event?),
                None => return Ok(()),
            },
            update = news.recv() => {
                let Some(update) = update else { anyhow::bail!("the device ended") };
                let mut commands = app.update(update);
                while let Ok(update) = news.try_recv() {
                    commands.extend(app.update(update));
                }
                commands
            }
            _ = tick.tick() => Vec::new(),
            () = &mut stopped => return Ok(()),
        };
        app.now_ms = clock::now_ms();
        for command in commands {
            match command {
                Command::Quit => return Ok(()),
                Command::KeepDrafts => settings::keep_drafts(store, &app.drafts())?,
                // The worker may be waiting to tell news: take some in while handing it the order.
                command => send(app, news, orders, command).await?,
            }
        }
    }
}

async fn send(
    app: &mut App,
    news: &mut mpsc::Receiver<Update>,
    orders: &mpsc::Sender<Command>,
    command: Command,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            permit = orders.reserve() => {
                permit?.send(command);
                return Ok(());
            }
            Some(update) = news.recv() => {
                // What this orders is ordered again by the next news: nothing depends on this one.
                drop(app.update(update));
            }
        }
    }
}

async fn next(keys: &mut EventStream) -> Option<io::Result<Event>> {
    poll_fn(|context| Pin::new(&mut *keys).poll_next(context)).await
}

fn handle(app: &mut App, event: Event) -> Vec<Command> {
    match event {
        Event::Key(key) => app.key(key),
        Event::Paste(text) => {
            app.paste(&text);
            Vec::new()
        }
        Event::FocusGained => app.focus(true),
        Event::FocusLost => app.focus(false),
        Event::Mouse(_) | Event::Resize(..) => Vec::new(),
    }
}

/// The system asks the program to end.
#[cfg(unix)]
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(not(unix))]
async fn stopped() {
    std::future::pending().await
}
