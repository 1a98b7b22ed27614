//! `curve`: latency against rate, with the same of the upstream itself beneath.

use super::bench::{Bench, Process, Unknown};
use super::find::ServerOptions;
use super::options::{LoadOptions, OutputOptions, rate, slice_of, time};
use super::session::{Refusal, Session};
use crate::load::{Load, Pace};
use crate::result::{Curve, Run};
use crate::units::digits;
use crate::validity;
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// Latency against rate.
#[derive(Clone, Debug, Args)]
pub struct CurveOptions {
    #[command(flatten)]
    server: ServerOptions,
    /// The lowest rate.
    #[arg(long, value_parser = rate, default_value = "1000")]
    from: f64,
    /// The highest rate.
    #[arg(long, value_parser = rate)]
    to: f64,
    /// Rates between them, both included; the same factor apart.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=100))]
    points: u32,
    /// How long each.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = time)]
    length: Duration,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// Rates of a curve, ascending.
fn rates(from: f64, to: f64, points: u32) -> Vec<f64> {
    let step = (to / from).powf(1.0 / f64::from(points - 1));
    (0..points).map(|row| from * step.powi(row as i32)).collect()
}

/// Runs it.
///
/// # Errors
/// It cannot be done as asked.
pub fn curve(options: &CurveOptions) -> Result<ExitCode, Refusal> {
    if options.from >= options.to {
        return Err(Refusal(format!("--to {}: must be above --from {}", digits(options.to), digits(options.from))));
    }
    let seed = options.load.seed.unwrap_or_else(super::options::fresh_seed);
    let mut server = options.server.open(seed)?;
    let (load, direct) = server.loads(&options.load, options.length, seed)?;
    let mut session = Session::begin("curve", format!("Latency of {} against rate", server.name), &options.output)?;
    server.describe(&mut session, &load);
    let name = server.name.clone();
    let mut curve = Curve::default();
    let rates = rates(options.from, options.to, options.points);
    {
        let mut process = server.process();
        curve.through = walk(&mut session, &load, &rates, &name, process.as_mut())?;
    }
    if let Some(direct) = direct {
        curve.direct = walk(&mut session, &direct, &rates, "upstream", &mut Unknown)?;
    }
    // on a curve the last points are meant to be beyond what the server, and so the generator's connections, can take
    let runs: Vec<&Run> = session.outcome.runs.iter().filter(|run| run.failures.is_empty()).collect();
    session.outcome.gates =
        validity::gates(&runs, None).into_iter().filter(|gate| gate.name != "connections").collect();
    session.outcome.curve = Some(curve);
    session.end()
}

fn walk(
    session: &mut Session,
    load: &Load,
    rates: &[f64],
    name: &str,
    process: &mut dyn Process,
) -> Result<Vec<usize>, Refusal> {
    let mut rows = Vec::new();
    for rate in rates {
        if session.watch.is_stopped() {
            break;
        }
        let pace = if matches!(load.pace, Pace::Even(_)) { Pace::Even(*rate) } else { Pace::Poisson(*rate) };
        let load = Load { pace, slice: slice_of(load.length), ..load.clone() };
        let bench = Bench { watch: &session.watch, progress: &session.progress };
        let (_, run) = bench.run(&load, "point", name, process)?;
        rows.push(session.outcome.runs.len());
        session.outcome.runs.push(run);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_the_same_factor_apart() {
        let rates = rates(1_000.0, 8_000.0, 4);
        assert!(rates.iter().zip([1_000.0, 2_000.0, 4_000.0, 8_000.0]).all(|(one, other)| (one - other).abs() < 1e-6));
    }
}
