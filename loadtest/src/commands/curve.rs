//! `curve`: latency against rate, with the same of the upstream itself beneath.

use super::bench::{Bench, Process, Repeats, Unknown};
use super::find::ServerOptions;
use super::options::{LoadOptions, OutputOptions, rate, slice_of, time};
use super::rig::{Rig, program};
use super::session::{Refusal, Session, thresholds};
use crate::gateways::{Front, Kind};
use crate::load::{Load, Pace};
use crate::machine;
use crate::plan::Division;
use crate::result::{Curve, Run, SPOILED};
use crate::scalability::{Point, in_words};
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
    /// Also how much the gateway of --demo serves at most with so many workers, and what more of them would bring: 1,2,4,8.
    #[arg(long, value_delimiter = ',', requires = "demo", value_parser = clap::value_parser!(u32).range(1..=512))]
    workers: Vec<u32>,
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
    // it judges nothing, and says so
    thresholds(None, &options.output, &[])?;
    let seed = options.load.seed.unwrap_or_else(super::options::fresh_seed);
    let mut server = options.server.open(seed, options.load.http2)?;
    let (load, direct) = server.loads(&options.load, options.length, seed)?;
    let mut session = Session::begin("curve", format!("Latency of {} against rate", server.name), &options.output)?;
    server.describe(&mut session, &load);
    let name = server.name.clone();
    let mut curve = Curve::default();
    let rates = rates(options.from, options.to, options.points);
    {
        let mut process = server.watched();
        curve.through = walk(&mut session, &load, &rates, &name, process.as_mut())?;
    }
    if let Some(direct) = direct {
        curve.direct = walk(&mut session, &direct, &rates, "upstream", &mut Unknown)?;
    }
    server.look_after(&mut session);
    if !options.workers.is_empty() {
        drop(server);
        curve.scalability = Some(scalability(&mut session, options, seed)?);
    }
    // on a curve the last points are meant to be beyond what the server, and so the generator's connections, can take
    let runs: Vec<&Run> =
        session.outcome.runs.iter().filter(|run| run.failures.is_empty() && run.label != SPOILED).collect();
    let gates = validity::gates(&runs, None).into_iter().filter(|gate| gate.name != "connections");
    let gates: Vec<_> = gates.collect();
    session.outcome.gates.extend(gates);
    session.outcome.curve = Some(curve);
    session.end()
}

/// Saturation with each number of workers, and what the universal scalability law says of it.
fn scalability(session: &mut Session, options: &CurveOptions, seed: u64) -> Result<String, Refusal> {
    let all = machine::cores();
    let cores = Division::of(&all);
    let program = program(options.server.gateway.unwrap_or(Kind::Ringgate))?;
    let mut points = Vec::new();
    for workers in &options.workers {
        if session.watch.is_stopped() {
            break;
        }
        let those = all.iter().copied().cycle().take(*workers as usize).collect();
        let cores = Division { gateway: those, ..cores.clone() };
        let front = Front { is_http2: options.load.http2, is_tls: options.server.tls };
        let mut rig = Rig::start(&program, front, &cores, options.server.body_bytes as usize, seed)?;
        let cores = if options.load.cores.is_empty() { cores.generator } else { options.load.cores.clone() };
        let load = LoadOptions {
            cores,
            seed: Some(seed),
            ca: options.load.ca.clone().or(rig.tls().ca),
            ..options.load.clone()
        }
        .load(&rig.url()?, options.length)?;
        let load = Load { pace: Pace::Closed, ..load };
        let bench = Bench { watch: &session.watch, progress: &session.progress };
        let (_, run) = bench.run(&load, &format!("{workers} workers"), "saturation", &mut rig.gateway)?;
        points.push(Point {
            workers: *workers,
            rate: run.good as f64 / run.length,
            cpu_micros: run.server_cpu.map(|cpu| cpu * 1e6 / run.good.max(1) as f64),
        });
        session.outcome.runs.push(run);
    }
    Ok(in_words(&points, seed))
}

fn walk(
    session: &mut Session,
    load: &Load,
    rates: &[f64],
    name: &str,
    process: &mut dyn Process,
) -> Result<Vec<usize>, Refusal> {
    let (mut rows, mut repeats) = (Vec::new(), Repeats::default());
    let mut left = rates;
    while let ([rate, later @ ..], false) = (left, session.watch.is_stopped()) {
        let pace = if matches!(load.pace, Pace::Even(_)) { Pace::Even(*rate) } else { Pace::Poisson(*rate) };
        let load = Load { pace, slice: slice_of(load.length), ..load.clone() };
        let bench = Bench { watch: &session.watch, progress: &session.progress };
        let (_, mut run) = bench.run(&load, "point", name, process)?;
        if !repeats.again(&mut run, None, &session.progress) {
            rows.push(session.outcome.runs.len());
            left = later;
        }
        session.outcome.runs.push(run);
        if !session.lives(name, process) {
            break;
        }
    }
    repeats.conclude(&mut session.outcome);
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
