//! What a command says while it works: bars with the time that is left on a terminal, else plain lines.

use crate::clock;
use crate::units::{Moment, digits};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// Between two plain lines of one long run.
const LINES: Duration = Duration::from_secs(10);

/// One command's progress.
#[derive(Debug)]
pub struct Progress {
    is_quiet: bool,
    is_terminal: bool,
}

/// Of one run.
#[derive(Debug)]
pub struct Run<'p> {
    of: &'p Progress,
    bar: ProgressBar,
    what: String,
    took: Duration,
    told: Moment,
}

impl Progress {
    /// Quiet when nothing is to be said.
    #[must_use]
    pub fn new(is_quiet: bool) -> Self {
        Self { is_quiet, is_terminal: std::io::stderr().is_terminal() }
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        if !self.is_quiet {
            // whoever reads it may have gone
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    /// A run begins that takes so long.
    #[must_use]
    pub fn begin(&self, what: String, took: Duration) -> Run<'_> {
        let bar = ProgressBar::with_draw_target(
            Some(took.as_millis() as u64),
            match self.is_terminal && !self.is_quiet {
                true => ProgressDrawTarget::stderr_with_hz(8),
                false => ProgressDrawTarget::hidden(),
            },
        );
        let style = ProgressStyle::with_template("{msg:42} {bar:24} {elapsed:>4}, {eta} left {prefix}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what.clone());
        Run { of: self, bar, what, took, told: clock::now() }
    }
}

impl Run<'_> {
    /// So far.
    pub fn tell(&mut self, passed: Duration, ended: u64, failed: u64) {
        self.bar.set_position(passed.min(self.took).as_millis() as u64);
        let failures = if failed > 0 { format!(", {} failed", digits(failed as f64)) } else { String::new() };
        self.bar.set_prefix(format!("{} requests{failures}", digits(ended as f64)));
        let now = clock::now();
        if !self.of.is_terminal && Duration::from_nanos(now.since(self.told)) >= LINES {
            self.told = now;
            let left = self.took.saturating_sub(passed).as_secs();
            self.of.say(&format!("  {}: {} requests{failures}, {left} s left", self.what, digits(ended as f64)));
        }
    }

    /// It is over, and this came of it.
    pub fn end(self, line: &str) {
        self.bar.finish_and_clear();
        self.of.say(&format!("{:42} {line}", self.what));
    }
}
