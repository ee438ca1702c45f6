//! The command line.

mod incarnation;
mod init;
mod invite;
mod serve;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tidings_proto::name::Domain;

use crate::telemetry::LogFormat;

/// A Tidings homeserver.
#[derive(Debug, Parser)]
#[command(name = "tidings", version)]
pub struct Cli {
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the homeserver.
    Serve(serve::Serve),
    /// Makes the data folder of a new server (its chain and keys) and commented settings.
    Init {
        /// The domain it will answer for.
        #[arg(value_parser = domain)]
        domain: Domain,
        /// The data folder.
        #[arg(long, default_value = "data")]
        data: PathBuf,
        /// The settings to write; a file that is there stays as it is.
        #[arg(long, default_value = "tidings.toml")]
        config: PathBuf,
    },
    /// Begins a new incarnation: once, after the data folder was restored from a copy, before the server starts.
    ///
    /// Clients and other homes then see that state was lost, and send again what is missing.
    NewIncarnation {
        /// The settings.
        #[arg(long)]
        config: PathBuf,
    },
    /// Makes an invitation good for one account; prints its token.
    Invite {
        /// The settings.
        #[arg(long)]
        config: PathBuf,
    },
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// Whatever went wrong, for the operator.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run().await,
            Command::Init { domain, data, config } => init::run(&domain, &data, &config),
            Command::NewIncarnation { config } => incarnation::run(&config).await,
            Command::Invite { config } => invite::run(&config).await,
        }
    }
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}
