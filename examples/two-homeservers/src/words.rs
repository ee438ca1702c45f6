//! What the program says: columns, elapsed times, colours on a terminal only.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Columns of the name in front of a line.
const NAME: usize = 8;
/// Columns of a line's text before its time.
const TEXT: usize = 62;

/// The voice of the program, with the time of its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    start: Instant,
    colours: bool,
}

/// Now.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A time with the unit that fits it.
pub(crate) fn short(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 10_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1000.0)
    }
}

/// A line on standard output. Whoever closed it does not read the story: it goes on all the same.
fn print(line: &str) {
    let _unread = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line on standard error.
pub(crate) fn complain(line: &str) {
    let _unread = writeln!(std::io::stderr().lock(), "two-homeservers: {line}");
}

impl Words {
    pub(crate) fn new() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { start: now(), colours: std::io::stdout().is_terminal() && !no_colour }
    }

    fn in_colour(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("{colour}{text}{RESET}") } else { text.to_owned() }
    }

    fn clock(&self) -> String {
        format!("{:>8.3}", now().duration_since(self.start).as_secs_f64())
    }

    /// Begins a step.
    pub(crate) fn step(&self, number: usize, title: &str) {
        print("");
        print(&self.in_colour(BOLD, &format!("{} s  {number}. {title}", self.clock())));
    }

    /// Somebody does or sees something.
    pub(crate) fn tell(&self, who: &str, what: &str) {
        let who = self.in_colour(CYAN, &format!("{who:<NAME$}"));
        print(&format!("{} s  {who}  {what}", self.in_colour(DIM, &self.clock())));
    }

    /// As [`Words::tell`], with the time it took in a column of its own.
    pub(crate) fn timed(&self, who: &str, what: &str, took: Duration) {
        let time = self.in_colour(BOLD, &format!("{:>9}", short(took)));
        self.tell(who, &format!("{what:<TEXT$} {time}"));
    }

    /// Something was verified.
    pub(crate) fn verified(&self, what: &str) {
        let mark = self.in_colour(GREEN, "✓");
        print(&format!("{} s  {:<NAME$}{mark} {what}", self.in_colour(DIM, &self.clock()), ""));
    }

    /// A line without a place in the story.
    pub(crate) fn say(&self, what: &str) {
        print(what);
    }

    /// The table at the end.
    pub(crate) fn table(&self, rows: &[(String, String)]) {
        print("");
        print(&self.in_colour(BOLD, "Every step was verified."));
        print("");
        let left = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default();
        let right = rows.iter().map(|(_, value)| value.chars().count()).max().unwrap_or_default();
        for (label, value) in rows {
            print(&format!("  {label:<left$}  {}", self.in_colour(BOLD, &format!("{value:>right$}"))));
        }
    }

    /// The step that failed, why, and where to look.
    pub(crate) fn failed(&self, step: &str, error: &anyhow::Error, logs: &[PathBuf]) {
        print("");
        print(&self.in_colour(RED, &format!("FAILED in the step \"{step}\"")));
        complain(&format!("failed in the step \"{step}\": {error:#}"));
        for log in logs {
            complain(&format!("log: {}", log.display()));
        }
    }

    /// How to join.
    pub(crate) fn invitation(&self, commands: &[(String, String)]) {
        print("");
        print(&self.in_colour(BOLD, "Both homeservers stay up. Join them from two more terminals:"));
        for (who, command) in commands {
            print("");
            print(&format!("  # {who}"));
            print(&format!("  {}", self.in_colour(CYAN, command)));
        }
        print("");
        print("Ctrl-C here stops both homeservers.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_unit_that_fits() {
        assert_eq!(short(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(short(Duration::from_millis(456)), "456 ms");
        assert_eq!(short(Duration::from_millis(12_345)), "12.3 s");
    }
}
