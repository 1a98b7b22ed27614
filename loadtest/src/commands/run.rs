//! `run`: one rate.

use super::bench::Bench;
use super::find::ServerOptions;
use super::options::{LoadOptions, OutputOptions, fresh_seed, rate, time};
use super::session::{Refusal, Session, thresholds};
use crate::load::{Load, Pace};
use crate::plan::About;
use crate::units::digits;
use crate::validity;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// One rate, for some time.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    #[command(flatten)]
    server: ServerOptions,
    /// Requests a second: 500, 20k [default: the plan's].
    #[arg(long, short, value_parser = rate, required_unless_present_any = ["closed", "plan"])]
    rate: Option<f64>,
    /// As fast as answers come over --connections: says what saturates, and nothing of latency.
    #[arg(long, conflicts_with = "rate")]
    closed: bool,
    /// How long [default: the plan's, or 10s].
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    length: Option<Duration>,
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
    if options.server.direct.is_some() {
        let help = "give its URL instead of the gateway's, or take capacity, size or curve";
        return Err(Refusal(format!(
            "--direct: `run` asks one server, so the upstream itself would not be asked; {help}"
        )));
    }
    let seed = options.load.seed.unwrap_or_else(fresh_seed);
    let mut server = options.server.open(seed, options.load.http2)?;
    let of_plan = server.plan.as_ref().map(|plan| plan.load.length);
    let length = options.length.or(of_plan).unwrap_or(Duration::from_secs(10));
    let (load, _) = server.loads(&options.load, length, seed)?;
    let pace = match (options.rate, &load.pace) {
        _ if options.closed => Pace::Closed,
        (Some(rate), Pace::Even(_)) => Pace::Even(rate),
        (Some(rate), _) => Pace::Poisson(rate),
        (None, pace) => pace.clone(),
    };
    let load = Load { pace, ..load };
    let (thresholds, unjudged) = thresholds(server.plan.as_ref(), &options.output, &[About::Run])?;
    let what = load.pace.rate().map_or("saturation".to_owned(), |rate| format!("{} requests/s", digits(rate)));
    let mut session = Session::begin("run", format!("{what} on {}", server.name), &options.output)?;
    session.holds_to(&thresholds, unjudged);
    server.describe(&mut session, &load);
    let name = server.name.clone();
    let bench = Bench { watch: &session.watch, progress: &session.progress };
    let (_, run) = bench.run(&load, "run", &name, server.watched().as_mut())?;
    session.outcome.gates = validity::gates(&[&run], None);
    server.look_after(&mut session);
    session.outcome.verdicts = thresholds.verdicts(&run);
    session.outcome.runs.push(run);
    session.end()
}
