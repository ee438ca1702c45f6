//! The homeserver binary: settings, logging, node, signals, drain.

use std::process::ExitCode;

use clap::Parser as _;
use tidings_server::cli::Cli;
use tidings_server::telemetry;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::start(cli.log_format);
    match cli.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line with all causes; a backtrace would tell an operator nothing.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
