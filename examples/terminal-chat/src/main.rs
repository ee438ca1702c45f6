//! A chat in the terminal on the Tidings client SDK: one device of one account, in one file.
//!
//! Full-screen for people, one event a line for scripts.

mod app;
mod args;
mod clock;
mod composer;
mod draw;
mod plain;
mod screen;
mod settings;
mod text;
mod worker;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context as _;
use clap::Parser as _;
use tidings_client::{Client, Options};
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be closed: then nobody is there to be told.
            let _unread =
                writeln!(std::io::stderr(), "terminal-chat: {}", text::clean_line(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(mut cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(file) = &cli.common.log {
        log_to(file)?;
    }
    let plain = cli.common.plain || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal();
    let name = match &mut cli.command {
        Some(Command::Register { address, .. } | Command::Recover { address, .. }) => {
            Some(address.to_string())
        }
        Some(Command::Join { code }) => {
            // Copied from a small window it may carry the window's border and line ends.
            code.retain(|c| c.is_ascii_graphic());
            let code: tidings_client::link_code::LinkCode = code.parse().context("the code")?;
            Some(format!("linked@{}", code.domain))
        }
        Some(Command::Open) | None => None,
    };
    let store = settings::store(cli.common.store.as_deref(), name.as_deref())?;
    let options = settings::options(&cli.common, store)?;
    let command = cli.command.unwrap_or(Command::Open);
    let registering = matches!(command, Command::Register { .. });
    let client = begin(command, &options, plain).await?;
    settings::remember(&cli.common, &options.store)?;
    let recovery = if registering { client.recovery_code().await? } else { None };
    if plain {
        return plain::run(client, recovery, cli.common.deadline).await;
    }
    screen::run(client, options, recovery).await?;
    Ok(ExitCode::SUCCESS)
}

async fn begin(command: Command, options: &Options, plain: bool) -> anyhow::Result<Client> {
    match command {
        Command::Register { address, token } => {
            let registered = Client::register(options.clone(), address, token.as_deref());
            registered.await.context("the account could not be made")
        }
        Command::Join { code } => {
            let joined = tidings_client::join(options.clone(), &code, |digits| show_digits(digits, plain));
            joined.await.context("this device could not join")
        }
        Command::Recover { address, code } => {
            let code = match code {
                Some(code) => code,
                None => ask("recovery code: ")?,
            };
            let recovered = tidings_client::recover(options.clone(), address, &code).await;
            recovered.context("the account could not be got back")
        }
        Command::Open => {
            let file = &options.store;
            if !file.exists() {
                anyhow::bail!(
                    "there is no device at {}: begin with `register ADDRESS`, `join CODE` or `recover ADDRESS`",
                    file.display()
                );
            }
            Client::open(options.clone())
                .await
                .with_context(|| format!("{} could not be opened", file.display()))
        }
    }
}

/// A line from the person, so that it stands in no command history.
fn ask(prompt: &str) -> anyhow::Result<String> {
    let mut out = std::io::stdout();
    out.write_all(prompt.as_bytes()).and_then(|()| out.flush()).context("standard output")?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).context("standard input")?;
    Ok(line)
}

fn show_digits(digits: &str, plain: bool) {
    let text = if plain {
        format!("link-digits\t{digits}")
    } else {
        format!(
            "The other device has to show the same six digits; say yes there if it does:\n\n    {digits}\n"
        )
    };
    // If nobody reads them, nobody will confirm them.
    let _unread = writeln!(std::io::stdout(), "{text}");
}

fn log_to(file: &Path) -> anyhow::Result<()> {
    let log = std::fs::File::options().create(true).append(true).open(file);
    let log = log.with_context(|| format!("{} cannot be written", file.display()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    subscriber.with_writer(Mutex::new(log)).init();
    Ok(())
}
