//! Two homeservers and their users in one command: a story that checks itself, step by step.
//!
//! The program starts itself again as each homeserver, with certificates of an authority made on the spot, and plays
//! the users with the client SDK. `--once` is for machines: it ends with 0 only if every step was verified. Without
//! it the homeservers stay up for people to join.

mod act;
mod crash;
mod group;
mod person;
mod story;
mod succession;
mod words;
mod world;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::Context as _;
use clap::Parser;
use tidings_server::cli::Cli;
use tidings_server::telemetry;
use tracing_subscriber::EnvFilter;

use crate::story::Story;
use crate::words::Words;
use crate::world::{AS_HOMESERVER, World};

/// Two homeservers, a.localhost and b.localhost, and users who write to each other across them.
///
/// Every step of the story is checked: the safety numbers are compared, replies name what they answer, a second
/// device gets everything, and after one homeserver was killed in the middle of 200 messages each of them arrives
/// once and in order. Then a group over three domains loses its hub, the third homeserver, for good, and goes on under
/// a successor. At the end the homeservers stay up for you to join, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "two-homeservers", version)]
struct Args {
    /// Ends after the story: with 0 if every step was verified, else with the name of the step that failed.
    #[arg(long)]
    once: bool,
    /// Where to put everything; a folder that does not exist yet, and that stays [default: a fresh temporary one].
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|first| first == AS_HOMESERVER) {
        let rest = arguments.into_iter().enumerate().filter(|(at, _)| *at != 1).map(|(_, argument)| argument);
        return run(homeserver(Cli::parse_from(rest)));
    }
    run(play(Args::parse()))
}

fn run(program: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let done =
        tokio::runtime::Runtime::new().context("no runtime").and_then(|runtime| runtime.block_on(program));
    match done {
        Ok(code) => code,
        Err(error) => {
            words::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn homeserver(cli: Cli) -> anyhow::Result<ExitCode> {
    telemetry::start(cli.log_format);
    cli.run().await?;
    Ok(ExitCode::SUCCESS)
}

/// What the users' devices have to say goes to a file; RUST_LOG sets how much.
fn log_devices(log: File) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,tidings_client=debug"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    subscriber.with_writer(Mutex::new(log)).init();
}

async fn play(args: Args) -> anyhow::Result<ExitCode> {
    let words = Words::new();
    let mut world = World::new(args.folder.as_deref())?;
    log_devices(world.devices_log()?);
    let mut story = Story::new(&words);
    let told = tokio::select! {
        told = story.tell(&mut world) => told,
        stopped = tokio::signal::ctrl_c() => {
            stopped?;
            world.stop().await?;
            words.say("stopped before the end");
            return Ok(ExitCode::FAILURE);
        }
    };
    if let Err(error) = told {
        words.failed(story.step(), &error, &world.logs());
        world.keep();
        world.stop().await?;
        return Ok(ExitCode::FAILURE);
    }
    story.close().await;
    if !args.once {
        words.invitation(&world.invitation()?);
        tokio::signal::ctrl_c().await?;
        words.say("stopping both homeservers");
    }
    world.stop().await?;
    Ok(ExitCode::SUCCESS)
}
