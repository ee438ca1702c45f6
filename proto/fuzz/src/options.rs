//! The command line.

use std::time::Duration;

pub(crate) const USAGE: &str = "usage: tidings-fuzz [options]

  --seconds N    run for N seconds, shared by all targets (14)
  --runs N       run each target N times instead
  --target NAME  run one target only
  --seed N       where randomness begins (TIDINGS_SEED, else 1)
  --input HEX    run once on this input
";

pub(crate) struct Options {
    pub(crate) until: Until,
    pub(crate) target: Option<String>,
    pub(crate) seed: u64,
    pub(crate) input: Option<Vec<u8>>,
}

/// When a target has run long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Time(Duration),
    Runs(u64),
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let seed = std::env::var("TIDINGS_SEED").ok();
        let mut options = Self {
            until: Until::default(),
            target: None,
            seed: seed.map_or(Ok(1), |seed| number("TIDINGS_SEED", &seed))?,
            input: None,
        };
        while let Some(option) = args.next() {
            let value = args.next().ok_or_else(|| format!("{option} takes a value"))?;
            match option.as_str() {
                "--seconds" => options.until = Until::Time(Duration::from_secs(number(&option, &value)?)),
                "--runs" => options.until = Until::Runs(number(&option, &value)?),
                "--target" => options.target = Some(value),
                "--seed" => options.seed = number(&option, &value)?,
                "--input" => {
                    options.input = Some(hex::decode(value).map_err(|error| format!("{option}: {error}"))?)
                }
                _ => return Err(format!("{option} is not known")),
            }
        }
        Ok(options)
    }
}

fn number(option: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{option}: {text} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Options, String> {
        Options::parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_take_values() {
        let options = of("--runs 5 --target name --seed 9 --input 00ff").unwrap();
        assert_eq!((options.until, options.seed), (Until::Runs(5), 9));
        assert_eq!((options.target.as_deref(), options.input), (Some("name"), Some(vec![0, 255])));
        assert!(of("--runs").is_err() && of("--runs x").is_err() && of("--walk 1").is_err());
    }
}
