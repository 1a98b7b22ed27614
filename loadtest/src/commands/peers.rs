//! `peers`: gateways side by side at the same rate, in turn, on the same cores.

use super::bench::{Bench, Repeats};
use super::options::{LoadOptions, OutputOptions, fresh_seed, rate, slice_of, time};
use super::rig::Rig;
use super::session::{Refusal, Session, thresholds};
use crate::bootstrap::{interval, median};
use crate::gateways::{Front, Kind, find};
use crate::load::{Load, Pace};
use crate::machine;
use crate::measure::described;
use crate::plan::{Division, Plan};
use crate::result::{Interval, Peer, Peers, Ratio, Run};
use crate::units::digits;
use crate::validity;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Of the slowest gateway's saturation, this is offered: where all of them are at work and none is at its end. A closed loop brings work in
/// batches, which costs half of what the same work costs when it comes one by one.
const SHARE: f64 = 0.3;
/// Pairs of runs that are needed for a difference: equal gateways have five on one side in 6 of 100 comparisons, and six in 3.
const PAIRS_MIN: usize = 6;
/// Saturation is looked for so long.
const SATURATION: Duration = Duration::from_millis(1_500);

/// Gateways side by side.
#[derive(Clone, Debug, Args)]
pub struct PeersOptions {
    /// Which; the first one is compared with all others. Those that are not installed are left out, and said so [default: the plan's, or all].
    #[arg(long, value_enum, value_delimiter = ',')]
    gateways: Vec<Kind>,
    /// What is asked, and what stands behind each: a file as in loadtest/plans.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Requests a second, offered to each [default: the plan's, or three tenths of what the slowest can take].
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Rounds; every second one goes the other way round.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each run.
    #[arg(long = "for", value_name = "TIME", default_value = "3s", value_parser = time)]
    length: Duration,
    /// They speak TLS, by certificates that are made for them and believed; with a plan that says it.
    #[arg(long, conflicts_with = "plan")]
    tls: bool,
    /// Bytes of answers.
    #[arg(long, default_value_t = 1_024, conflicts_with = "plan", value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    body_bytes: u32,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

struct Contender {
    name: String,
    rig: Rig,
    load: Load,
}

/// Runs it.
///
/// # Errors
/// It cannot be done as asked.
pub fn peers(options: &PeersOptions) -> Result<ExitCode, Refusal> {
    // it judges nothing, and says so
    thresholds(None, &options.output, &[])?;
    let seed = options.load.seed.unwrap_or_else(fresh_seed);
    let plan = options.plan.as_deref().map(Plan::open).transpose().map_err(|errors| Refusal(errors.to_string()))?;
    let of_plan = plan.as_ref().and_then(|plan| plan.gateway.as_ref()).map(|gateway| gateway.kinds.clone());
    let kinds: Vec<Kind> = match &options.gateways[..] {
        [] => of_plan.unwrap_or_else(|| Kind::ALL.to_vec()),
        asked => asked.to_vec(),
    };
    let (programs, missing) = find(&kinds);
    if programs.len() < 2 {
        return Err(Refusal(format!("at least two gateways are needed: {}", missing.join("; "))));
    }
    let cores = Division::of(&machine::cores());
    let mut session = Session::begin("peers", "Gateways side by side".to_owned(), &options.output)?;
    session.outcome.remarks.extend(missing);
    let front = Front { is_http2: options.load.http2, is_tls: options.tls };
    let mut contenders = Vec::new();
    for program in &programs {
        let rig = match &plan {
            Some(plan) => Rig::of_plan(plan, program)?,
            None => Rig::start(program, front, &cores, options.body_bytes as usize, seed)?,
        };
        let load = load_of(options, plan.as_ref(), &rig, &cores, seed)?;
        contenders.push(Contender { name: program.kind.name().to_owned(), rig, load });
    }
    session.outcome.seed = seed;
    session.outcome.load =
        described(&Load { pace: options.load.paced(1.0), ..contenders[0].load.clone() }, "each gateway in turn");
    session.outcome.environment.generator_cores = contenders[0].load.cores.clone();
    session.outcome.environment.gateway_cores = cores.gateway.clone();
    session.outcome.environment.upstream_cores = cores.upstreams.clone();
    session.outcome.plan = plan.as_ref().map(|plan| plan.text.clone());
    let rate = match options.rate.or(plan.as_ref().map(|plan| plan.load.rate)) {
        Some(rate) => rate,
        None => slowest(&mut session, &mut contenders)? * SHARE,
    };
    let rows = rounds(&mut session, &mut contenders, options, rate)?;
    let versions: Vec<_> = programs.iter().map(|program| program.version.clone()).collect();
    let judged: Vec<&Run> = rows.iter().flatten().map(|row| &session.outcome.runs[*row]).collect();
    let gates = validity::gates(&judged, None);
    session.outcome.gates.extend(gates);
    session.outcome.peers = Some(judge(&session.outcome.runs, &contenders, &versions, &rows, rate, seed));
    if (options.rounds as usize) < PAIRS_MIN {
        let remark = format!("a difference is shown by {PAIRS_MIN} rounds at least (--rounds), and there were fewer");
        session.outcome.remarks.push(remark);
    }
    drop(contenders);
    session.end()
}

/// What is offered to one of them.
fn load_of(
    options: &PeersOptions,
    plan: Option<&Plan>,
    rig: &Rig,
    cores: &Division,
    seed: u64,
) -> Result<Load, Refusal> {
    let length = options.length;
    if let Some(plan) = plan {
        let load = rig.load(plan)?;
        return Ok(Load { seed, ..load.in_one_phase(length, slice_of(length)) });
    }
    let url = rig.url()?;
    let ca = options.load.ca.clone().or(rig.tls().ca);
    let is_alone = cores.sets_generator_apart() && options.load.cores.is_empty();
    let cores = if options.load.cores.is_empty() { cores.generator.clone() } else { options.load.cores.clone() };
    let load = LoadOptions { cores, ca, seed: Some(seed), ..options.load.clone() }.load(&url, length)?;
    Ok(Load { is_alone, ..load })
}

/// Requests a second that the slowest serves at its end.
fn slowest(session: &mut Session, contenders: &mut [Contender]) -> Result<f64, Refusal> {
    let mut slowest = f64::INFINITY;
    for contender in contenders {
        let load = Load { pace: Pace::Closed, length: SATURATION, ..contender.load.clone() };
        let bench = Bench { watch: &session.watch, progress: &session.progress };
        let (_, run) = bench.run(&load, "saturation", &contender.name, &mut contender.rig.gateway)?;
        slowest = slowest.min(run.good as f64 / run.length);
        session.outcome.runs.push(run);
    }
    if slowest > 0.0 { Ok(slowest) } else { Err(Refusal("a gateway has answered nothing".to_owned())) }
}

/// Rows of each contender's runs.
fn rounds(
    session: &mut Session,
    contenders: &mut [Contender],
    options: &PeersOptions,
    rate: f64,
) -> Result<Vec<Vec<usize>>, Refusal> {
    let mut rows = vec![Vec::new(); contenders.len()];
    let mut repeats = Repeats::default();
    for round in 0..options.rounds {
        let there: Vec<usize> = (0..contenders.len()).collect();
        let order: Vec<usize> = if round % 2 == 0 { there } else { there.into_iter().rev().collect() };
        for row in order {
            let contender = &mut contenders[row];
            let seed = contender.load.seed.wrapping_add(u64::from(round));
            let load = Load { pace: options.load.paced(rate), seed, ..contender.load.clone() };
            let label = format!("round {}", round + 1);
            loop {
                if session.watch.is_stopped() {
                    return Ok(rows);
                }
                let bench = Bench { watch: &session.watch, progress: &session.progress };
                let (_, mut run) = bench.run(&load, &label, &contender.name, &mut contender.rig.gateway)?;
                let again = repeats.again(&mut run, None, &session.progress);
                if !again {
                    rows[row].push(session.outcome.runs.len());
                }
                session.outcome.runs.push(run);
                if !again {
                    break;
                }
            }
            if !session.lives(&contender.name, &mut contender.rig.gateway) {
                return Ok(rows);
            }
        }
    }
    repeats.conclude(&mut session.outcome);
    Ok(rows)
}

/// CPU microseconds per good request.
fn cost(run: &Run) -> f64 {
    run.server_cpu.unwrap_or(0.0) * 1e6 / run.good.max(1) as f64
}

fn judge(
    runs: &[Run],
    contenders: &[Contender],
    versions: &[String],
    rows: &[Vec<usize>],
    rate: f64,
    seed: u64,
) -> Peers {
    let of = |row: usize| rows[row].iter().map(|row| &runs[*row]);
    let peer = |(row, contender): (usize, &Contender)| {
        let costs: Vec<f64> = of(row).map(cost).collect();
        let p99s: Vec<f64> = of(row).map(|run| run.latency.p99.unwrap_or(f64::INFINITY)).collect();
        let (due, good) = of(row).fold((0, 0), |(due, good), run| (due + run.due, good + run.good));
        Peer {
            name: contender.name.clone(),
            version: versions[row].clone(),
            runs: rows[row].clone(),
            cpu: interval(&costs, seed),
            p99: Some(median(&p99s)).filter(|p99| p99.is_finite()),
            failures: (due - good) as f64 / due.max(1) as f64,
            resident: of(row).next_back().and_then(|run| run.server_resident),
        }
    };
    let ratio = |other: usize| {
        let pairs: Vec<f64> = of(0).zip(of(other)).map(|(one, other)| cost(one) / cost(other).max(1e-9)).collect();
        let cpu = interval(&pairs, seed);
        let verdict = verdict(pairs.len(), cpu).to_owned();
        Ratio { of: contenders[0].name.clone(), to: contenders[other].name.clone(), cpu, verdict }
    };
    Peers {
        rate: digits_kept(rate),
        peers: contenders.iter().enumerate().map(peer).collect(),
        ratios: (1..contenders.len()).map(ratio).collect(),
    }
}

/// What an interval over so many pairs says. All of fewer than [`PAIRS_MIN`] may lie on one side by chance: one pair always does.
fn verdict(pairs: usize, cpu: Interval) -> &'static str {
    match () {
        () if pairs < PAIRS_MIN => "no difference shown",
        () if cpu.high < 1.0 => "better",
        () if cpu.low > 1.0 => "worse",
        () => "no difference shown",
    }
}

/// A rate that was derived, to three digits as it is shown.
fn digits_kept(rate: f64) -> f64 {
    digits(rate).replace(',', "").parse().unwrap_or(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_not_shown_by_a_pair_or_two() {
        let below = Interval { value: 0.8, low: 0.8, high: 0.8 };
        assert_eq!(
            [verdict(1, below), verdict(5, below), verdict(6, below)],
            ["no difference shown", "no difference shown", "better"]
        );
        assert_eq!(verdict(0, Interval::default()), "no difference shown");
        assert_eq!(verdict(6, Interval { value: 1.2, low: 1.1, high: 1.4 }), "worse");
        assert_eq!(verdict(6, Interval { value: 1.2, low: 0.9, high: 1.4 }), "no difference shown");
    }
}
