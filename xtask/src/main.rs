//! The repository's rules as a program.
//!
//! - `cargo xtask tidy` checks who may use whom, licences, sizes, and the specification's requirement ids.
//! - `cargo xtask gen` writes the tables in `spec/` and the constants in `proto/src/generated/` from
//!   `spec/registry/`; `cargo xtask gen --check` only compares.
//!
//! It changes nothing else, needs no network beyond what cargo needs, and knows no crate of this workspace.

mod generate;
mod registry;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

const USAGE: &str = "usage: cargo xtask <command>

  tidy         check edges between crates, licences, sizes and the specification's ids
  gen          write the generated tables and constants
  gen --check  fail if one of them is out of date
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["tidy"] => repository().and_then(|root| tidy::run(&root)),
        ["gen"] => repository().and_then(|root| generate::run(&root, generate::Mode::Write)),
        ["gen", "--check"] => repository().and_then(|root| generate::run(&root, generate::Mode::Check)),
        [] | ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn repository() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().context("xtask lies in a folder of the repository")?;
    if !root.join("Cargo.toml").is_file() {
        bail!("{} is not the repository", root.display());
    }
    Ok(root.to_owned())
}
