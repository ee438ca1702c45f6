//! Feeds mutated input to every decoder of `tidings-proto`.
//!
//! Each target is a function over bytes that checks what has to hold for any bytes at all, and panics where it does
//! not. Inputs are made from seeds (valid input, built here) and the corpus (`corpus/<target>/*.hex`: input that once
//! broke something) by random mutation. An input that led to an outcome not seen before is kept and mutated further.
//! Everything follows from the seed but where the time ends, so `--runs` in place of `--seconds` repeats exactly.
//!
//! This is a smoke test that any toolchain can run on each change. It does not measure coverage.

mod corpus;
mod mutate;
mod options;
mod rng;
mod targets;
mod world;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use options::{Options, Until};
use rng::Rng;
use targets::Target;

/// Inputs kept for further mutation, beyond seeds and corpus.
const KEPT_MAX: usize = 4096;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let chosen: Vec<&Target> = targets::ALL
        .iter()
        .filter(|target| options.target.as_deref().is_none_or(|name| name == target.name))
        .collect();
    if chosen.is_empty() {
        eprintln!("no such target; there are: {}", targets::names().join(", "));
        return ExitCode::from(2);
    }
    if let Some(input) = &options.input {
        for target in chosen {
            println!("{}: outcome {:#x}", target.name, (target.run)(input));
        }
        return ExitCode::SUCCESS;
    }
    println!("seed {}", options.seed);
    let share = options.until.share(chosen.len());
    for target in chosen {
        match fuzz(target, share, options.seed) {
            Ok(report) => println!("{report}"),
            Err(broken) => {
                eprintln!("{broken}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Runs one target; the report, or what broke it.
fn fuzz(target: &Target, until: Until, seed: u64) -> Result<String, String> {
    let mut rng = Rng::new(seed);
    let stored = corpus::read(target.name)?;
    let from_corpus = stored.len();
    let mut inputs: Vec<Vec<u8>> = stored.into_iter().chain((target.seeds)()).collect();
    let mut outcomes = BTreeSet::new();
    for (place, input) in inputs.iter().enumerate() {
        let what = if place < from_corpus { "input of the corpus" } else { "seed" };
        outcomes.insert(attempt(target, input).map_err(|()| broken(target, input, seed, what))?);
    }
    let fixed = inputs.len();
    let began = now();
    let mut runs: u64 = 0;
    while until.goes_on(runs, began) {
        let input = mutate::mutated(&inputs, &mut rng);
        let outcome =
            attempt(target, &input).map_err(|()| broken(target, &input, seed, &format!("run {runs}")))?;
        if outcomes.insert(outcome) && inputs.len() < fixed + KEPT_MAX {
            inputs.push(input);
        }
        runs += 1;
    }
    let millis = now().duration_since(began).as_millis().max(1);
    Ok(format!(
        "{:<10} {runs:>9} runs, {:>7}/s, {from_corpus} from the corpus, {} seeds, {} different outcomes",
        target.name,
        u128::from(runs) * 1000 / millis,
        fixed - from_corpus,
        outcomes.len(),
    ))
}

fn attempt(target: &Target, input: &[u8]) -> Result<u64, ()> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|_| ())
}

fn broken(target: &Target, input: &[u8], seed: u64, place: &str) -> String {
    format!(
        "\n{0} broke: {place}, seed {seed}, input of {1} bytes:\n{2}\n\nIt runs alone with `--target {0} --input HEX`. \
         Put it into proto/fuzz/corpus/{0}/ as a .hex file, together with the repair.",
        target.name,
        input.len(),
        hex::encode(input),
    )
}

impl Until {
    fn goes_on(self, runs: u64, began: Instant) -> bool {
        match self {
            Self::Runs(most) => runs < most,
            // The clock is read rarely: most targets take microseconds.
            Self::Time(length) => !runs.is_multiple_of(64) || now().duration_since(began) < length,
        }
    }

    /// What each of several targets gets.
    fn share(self, targets: usize) -> Self {
        match self {
            Self::Runs(_) => self,
            Self::Time(length) => Self::Time(length / u32::try_from(targets).unwrap_or(u32::MAX)),
        }
    }
}

impl Default for Until {
    fn default() -> Self {
        Self::Time(Duration::from_secs(14))
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the driver; the clock only says when to stop")]
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_survives_seeds_corpus_and_a_few_thousand_mutations() {
        for target in targets::ALL {
            if let Err(broken) = fuzz(target, Until::Runs(target.test_runs), 1) {
                panic!("{broken}");
            }
        }
    }

    #[test]
    fn a_panic_on_some_input_is_found_and_named() {
        fn run(data: &[u8]) -> u64 {
            assert!(!data.windows(2).any(|pair| pair == [0x41, 0x00]), "planted");
            u64::from(data.first().copied().unwrap_or_default())
        }
        let target = Target { name: "planted", run, seeds: || vec![b"AAAA".to_vec()], test_runs: 0 };
        let broken = fuzz(&target, Until::Runs(10_000), 1).expect_err("has to be found");
        assert!(broken.contains("planted broke: run ") && broken.contains("4100"), "{broken}");
        let calm = Target { run: |_| 0, ..target };
        assert!(fuzz(&calm, Until::Runs(100), 1).is_ok());
    }

    #[test]
    fn every_target_tells_its_seeds_apart_from_noise() {
        for target in targets::ALL {
            let noise = (target.run)(&[0xff; 24]);
            let seeds = (target.seeds)();
            let other = seeds.iter().filter(|seed| (target.run)(seed) != noise).count();
            assert_eq!(other, seeds.len(), "{}", target.name);
        }
    }
}
