//! `run`: one rate.

use super::bench::{Bench, Unknown};
use super::options::{LoadOptions, OutputOptions, rate, time};
use super::session::{Refusal, Session};
use crate::load::{Load, Pace};
use crate::measure::described;
use crate::units::digits;
use crate::url::Url;
use crate::validity;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// One rate, for some time.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// http://HOST[:PORT][/PATH]
    url: String,
    /// Requests a second: 500, 20k.
    #[arg(long, short, value_parser = rate, required_unless_present = "closed")]
    rate: Option<f64>,
    /// As fast as answers come over --connections: says what saturates, and nothing of latency.
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// How long.
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = time)]
    length: Duration,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// Runs it.
///
/// # Errors
/// It cannot be done as asked.
pub fn run(options: &RunOptions) -> Result<ExitCode, Refusal> {
    let url = Url::parse(&options.url)?;
    let pace = options.rate.map_or(Pace::Closed, |rate| options.load.paced(rate));
    let load = Load { pace, ..options.load.load(&url, options.length)? };
    let what = options.rate.map_or("saturation".to_owned(), |rate| format!("{} requests/s", digits(rate)));
    let mut session = Session::begin("run", format!("{what} on {}", url.text), &options.output)?;
    session.outcome.seed = load.seed;
    session.outcome.load = described(&load, &url.text);
    session.outcome.environment.generator_cores = load.cores.clone();
    let bench = Bench { watch: &session.watch, progress: &session.progress };
    let (_, run) = bench.run(&load, "run", &url.authority, &mut Unknown)?;
    session.outcome.gates = validity::gates(&[&run], None);
    session.outcome.runs.push(run);
    session.end()
}
