//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use tidings_client::Address;

use crate::plain;

/// A Tidings chat in the terminal: one device of one account, in one file.
#[derive(Debug, Parser)]
#[command(name = "terminal-chat", version, after_long_help = plain::HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// The device's file [default: ADDRESS.device in the user's data folder, or the only one there].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Where the home listens, if not at its domain on port 443; remembered beside the store.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
    /// PEM file of the only authority to trust, for a private network; remembered beside the store.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// One event a line and one command a line, for pipes and scripts. The default if standard output or input is
    /// no terminal.
    #[arg(long, global = true)]
    pub(crate) plain: bool,
    /// In plain mode: seconds to wait at the end of the input until everything is accepted by the home.
    #[arg(long, global = true, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) deadline: u64,
    /// Appends the library's log to this file; RUST_LOG sets how much.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

/// What to begin with.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Makes a new account, with this device as its first.
    Register {
        /// The address it will have: user@domain.
        #[arg(value_parser = address)]
        address: Address,
        /// The invitation, where the home wants one.
        #[arg(long)]
        token: Option<String>,
    },
    /// Joins an existing account as another device, by the code that one of its devices shows.
    Join {
        /// The code.
        code: String,
    },
    /// Gets an account back whose devices are all lost, with this one as a new device.
    Recover {
        /// Its address: user@domain.
        #[arg(value_parser = address)]
        address: Address,
        /// The recovery code that was shown when the account was made; asked for where it is missing.
        code: Option<String>,
    },
    /// Opens a device that is there. What is done without a command, too.
    Open,
}

fn address(text: &str) -> Result<Address, String> {
    text.parse().map_err(|error| format!("{error}; an address looks like alice@a.example"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_on_either_side_of_the_command() {
        let cli =
            Cli::try_parse_from(["x", "register", "a@b.example", "--server", "127.0.0.1:1"]).expect("right");
        assert_eq!(cli.common.server.as_deref(), Some("127.0.0.1:1"));
        assert!(Cli::try_parse_from(["x", "--store", "f"]).expect("right").command.is_none());
        assert!(Cli::try_parse_from(["x", "register", "A@b"]).is_err());
    }
}
