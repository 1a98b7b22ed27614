//! `selftest`: servers of which is known what has to come out, and whether it does.

use super::bench::{Bench, Repeats, Unknown};
use super::capacity::{self, Wanted};
use super::options::{OutputOptions, fresh_seed};
use super::session::{Refusal, Session, thresholds};
use crate::engine::take_for_generator;
use crate::load::{Load, Pace, Protocol, Target};
use crate::machine;
use crate::measure::Bound;
use crate::processes::Fleet;
use crate::result::{Gate, Run, SPOILED, Verdict};
use crate::stats::{merged, no_times, spectrum};
use crate::units::{digits, shown};
use crate::upstream::{Fault, Service, Time};
use crate::validity;
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The server stands still for so long, …
const STALL: f64 = 1.4;
/// … in a run of this length.
const STALLED_RUN: f64 = 30.0;
const STALL_TOLERANCE: f64 = 0.05;
/// Of the queue whose capacity is known.
///
/// How well a trial can know a queue grows with the number of services that it sees, so this one is fast and its trials are long: simulated
/// searches come to the right end in 60 of 60 seeds with 120,000 services a trial, and in 21 of 40 with 28,000. The bound is large against
/// the half of a millisecond for which hypervisors stop a core now and then. The first rate puts a rung of the ladder on what is expected.
const MU: f64 = 15_000.0;
const QUEUE_BOUND: f64 = 0.006;
const QUEUE_TRIAL: Duration = Duration::from_secs(8);
const QUEUE_START: f64 = 6_000.0;
/// Threads that take the generator's core away.
const HOGS: usize = 6;
/// What each of them takes at once.
const HOGGED: Duration = Duration::from_millis(2);

/// Searches of one that may be made, while the machine spoils them.
const SEARCHES: u32 = 3;

/// Has a server do what is known, for a seed.
type Oracle = fn(&mut Session, u64) -> Result<Judged, Refusal>;

/// What came out, and why it may be the machine's fault.
struct Judged {
    verdict: Verdict,
    doubts: Vec<Gate>,
}

impl Judged {
    fn of(verdict: Verdict) -> Self {
        Self { verdict, doubts: Vec::new() }
    }
}

/// Servers of which is known what has to come out.
#[derive(Clone, Debug, Args)]
pub struct SelftestOptions {
    /// How often, each time with other arrivals.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    seeds: u32,
    /// The first seed [default: another one each time].
    #[arg(long)]
    seed: Option<u64>,
    /// Only these oracles.
    #[arg(long, value_delimiter = ',', value_parser = ["stall", "queue", "failures", "throttled", "merge"])]
    only: Vec<String>,
    #[command(flatten)]
    output: OutputOptions,
}

/// Runs it.
///
/// # Errors
/// It cannot be done as asked.
pub fn selftest(options: &SelftestOptions) -> Result<ExitCode, Refusal> {
    // its oracles are its thresholds
    thresholds(None, &options.output, &[])?;
    let first = options.seed.unwrap_or_else(fresh_seed);
    let mut session = Session::begin("selftest", format!("{} seeds from {first}", options.seeds), &options.output)?;
    session.outcome.seed = first;
    let oracles: [(&str, Oracle); 5] =
        [("merge", merge), ("failures", failures), ("throttled", throttled), ("stall", stall), ("queue", queue)];
    for seed in (0..u64::from(options.seeds)).map(|row| first.wrapping_add(row)) {
        for (name, oracle) in &oracles {
            let is_asked_for = options.only.is_empty() || options.only.iter().any(|only| only == name);
            if !is_asked_for || session.watch.is_stopped() {
                continue;
            }
            let Judged { verdict, doubts } = oracle(&mut session, seed)?;
            if session.watch.is_stopped() {
                continue;
            }
            if !verdict.passed && !doubts.is_empty() {
                let why: Vec<_> = doubts.iter().map(|gate| format!("{}: {}", gate.name, gate.measured)).collect();
                session.progress.say(&format!("seed {seed}, {name}: INVALID: {}", why.join("; ")));
                let named = |gate: Gate| Gate { name: format!("{} ({name}, seed {seed})", gate.name), ..gate };
                session.outcome.gates.extend(doubts.into_iter().map(named));
                continue;
            }
            let word = if verdict.passed { "passed" } else { "FAILED" };
            session
                .progress
                .say(&format!("seed {seed}, {name}: {word}: {}, wanted {}", verdict.measured, verdict.wanted));
            session.outcome.verdicts.push(Verdict { name: format!("{}, seed {seed}", verdict.name), ..verdict });
        }
    }
    let spoiled = session.outcome.runs.iter().filter(|run| run.label == SPOILED).count();
    session.outcome.remarks.push(format!("{spoiled} runs were spoiled by the machine and made again"));
    session.end()
}

fn service(time: Time, seed: u64) -> Result<Fleet, Refusal> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let service = Service { listen, time, body_bytes: 64, seed };
    let first = machine::cores().into_iter().take(1).collect::<Vec<_>>();
    Fleet::start_all(&[service], &first).map_err(|error| Refusal(error.to_string()))
}

fn load(fleet: &Fleet, rate: f64, length: f64, seed: u64) -> Load {
    let address = fleet.addresses()[0];
    let length = Duration::from_secs_f64(length);
    Load {
        address,
        tls: None,
        protocol: Protocol::Http1,
        targets: [Target::new("GET", &address.to_string(), "/", &[], b"", false)].into(),
        pace: Pace::Poisson(rate),
        warm_up: Duration::from_millis(500),
        length,
        phases: Vec::new(),
        harms: Vec::new(),
        factors: Vec::new(),
        slice: super::options::slice_of(length),
        connections: 64,
        connections_max: 8_192,
        reconnects: false,
        timeout: Duration::from_secs(5),
        cores: machine::cores().last().copied().into_iter().collect(),
        // services have the first one
        is_alone: machine::cores().len() > 1,
        seed,
    }
}

fn told(error: impl std::fmt::Display) -> Refusal {
    Refusal(error.to_string())
}

/// A run with which everything is as it should be, or that the machine did not spoil, if one of them can be had: what is judged is the tool, and
/// not who else is here.
fn unspoiled(
    session: &mut Session,
    is_right: impl Fn(&Run) -> bool,
    mut make: impl FnMut(&Bench<'_>) -> Result<Run, Refusal>,
) -> Result<(Run, Vec<Gate>, u32), Refusal> {
    let (mut repeats, mut runs) = (Repeats::default(), 0);
    loop {
        runs += 1;
        let mut run = make(&Bench { watch: &session.watch, progress: &session.progress })?;
        if is_right(&run) || session.watch.is_stopped() || !repeats.again(&mut run, None, &session.progress) {
            let doubts = validity::spoiled(&run, None).map(|why| validity::restless(&why));
            return Ok((run, doubts.into_iter().collect(), runs));
        }
        session.outcome.runs.push(run);
    }
}

/// Whoever is due while the server stands still waits until it goes on: of all requests the share above x is (S − x) / T.
fn stall(session: &mut Session, seed: u64) -> Result<Judged, Refusal> {
    let mut fleet = service(Time::Fixed(Duration::ZERO), seed)?;
    let load = load(&fleet, 2_000.0, STALLED_RUN, seed);
    let watch = session.watch.clone();
    let expected = STALL - 0.01 * STALLED_RUN;
    let seen = |run: &Run| run.latency.p99.unwrap_or(f64::INFINITY);
    let is_right = |run: &Run| (seen(run) / expected - 1.0).abs() <= STALL_TOLERANCE;
    let (run, doubts, runs) = unspoiled(session, is_right, |bench| {
        std::thread::scope(|scope| {
            let fault = scope.spawn(|| {
                let moment = crate::clock::now() + Duration::from_secs(10);
                while crate::clock::now() < moment && !watch.is_stopped() {
                    crate::clock::wait(Duration::from_millis(20));
                }
                fleet.tell(0, Fault::Freeze(Duration::from_secs_f64(STALL)))
            });
            let run = bench.run(&load, "stall", "upstream", &mut Unknown).map(|(_, run)| run);
            fault.join().unwrap_or(Ok(())).map_err(told)?;
            run.map_err(told)
        })
    })?;
    let verdict = Verdict {
        name: "a stall is in the 99th percentile".to_owned(),
        passed: is_right(&run),
        measured: shown(seen(&run)) + &after(runs, "runs"),
        wanted: format!("{} ± {:.0} %", shown(expected), STALL_TOLERANCE * 100.0),
    };
    session.outcome.runs.push(run);
    Ok(Judged { verdict, doubts })
}

/// The time in an M/M/1 queue is exponential with rate µ − λ, so its 99th percentile is X at λ = µ − ln 100 / X.
fn queue(session: &mut Session, seed: u64) -> Result<Judged, Refusal> {
    let fleet = service(Time::MM1 { rate: MU }, seed)?;
    let load = load(&fleet, QUEUE_START, QUEUE_TRIAL.as_secs_f64(), seed);
    let wanted = Wanted {
        bound: Bound { quantile: 0.99, time: QUEUE_BOUND, failures: 0.000_1 },
        width: 0.05,
        trial: QUEUE_TRIAL,
        start: QUEUE_START,
        max: 100_000.0,
    };
    // searches of their own, whose gates and trials are judged here
    let expected = MU - 100f64.ln() / QUEUE_BOUND;
    let width = wanted.width;
    let is_right = |(holds, breaks): (f64, f64)| {
        holds <= expected * (1.0 + width)
            && breaks >= expected * (1.0 - width)
            && breaks <= holds * (1.0 + width) * 1.001
    };
    let (mut found, mut doubts, mut searches) = ((0.0, 0.0), Vec::new(), 0);
    while searches < SEARCHES {
        searches += 1;
        let quiet = OutputOptions { quiet: true, ..OutputOptions::default() };
        let mut inner = Session::begin("capacity", "a queue".to_owned(), &quiet)?;
        capacity::search(&mut inner, &load, "upstream", &mut Unknown, &wanted, None)?;
        session.outcome.runs.append(&mut inner.outcome.runs);
        let capacity = inner.outcome.capacity.take();
        found = capacity.map_or((0.0, 0.0), |it| (it.holds.unwrap_or(0.0), it.breaks.unwrap_or(f64::INFINITY)));
        doubts = inner.outcome.gates.into_iter().filter(|gate| !gate.holds).collect();
        if is_right(found) || doubts.is_empty() || session.watch.is_stopped() {
            break;
        }
        let why = doubts.iter().map(|gate: &Gate| format!("{}: {}", gate.name, gate.measured)).collect::<Vec<_>>();
        session.progress.say(&format!("  search {searches} of {SEARCHES} at most does not count: {}", why.join("; ")));
    }
    let verdict = Verdict {
        name: "capacity of a queue that is known".to_owned(),
        passed: is_right(found),
        measured: format!("{} to {} requests/s{}", digits(found.0), digits(found.1), after(searches, "searches")),
        wanted: format!("{} ± {:.0} %", digits(expected), width * 100.0),
    };
    Ok(Judged { verdict, doubts })
}

/// How often something was measured, where that was more than once.
fn after(times: u32, what: &str) -> String {
    if times > 1 { format!(" (after {times} {what})") } else { String::new() }
}

/// With 2 % of failures one request in a hundred is ∞.
fn failures(session: &mut Session, seed: u64) -> Result<Judged, Refusal> {
    let mut fleet = service(Time::Fixed(Duration::ZERO), seed)?;
    fleet.tell(0, Fault::Error(0.02)).map_err(told)?;
    let load = load(&fleet, 1_000.0, 4.0, seed);
    let is_right = |run: &Run| run.latency.p99.is_none() && run.latency.p50.is_some() && run.latency.infinite > 0;
    let (run, doubts, runs) = unspoiled(session, is_right, |bench| {
        bench.run(&load, "failures", "upstream", &mut Unknown).map(|(_, run)| run).map_err(told)
    })?;
    let verdict = Verdict {
        name: "2 % of failures make the 99th percentile infinite".to_owned(),
        passed: is_right(&run),
        measured: format!("p99 of {}, p50 of {}{}", of(run.latency.p99), of(run.latency.p50), after(runs, "runs")),
        wanted: "p99 of ∞ and a p50".to_owned(),
    };
    session.outcome.runs.push(run);
    Ok(Judged { verdict, doubts })
}

fn of(time: Option<f64>) -> String {
    shown(time.unwrap_or(f64::INFINITY))
}

/// A generator whose core others take cannot keep its schedule, and has to say so.
fn throttled(session: &mut Session, seed: u64) -> Result<Judged, Refusal> {
    let fleet = service(Time::Fixed(Duration::ZERO), seed)?;
    let load = load(&fleet, 10_000.0, 2.0, seed);
    let (over, core, cores) = (AtomicBool::new(false), load.cores.first().copied(), machine::cores().len());
    let is_alone = load.is_alone;
    let bench = Bench { watch: &session.watch, progress: &session.progress };
    let run = std::thread::scope(|scope| {
        for _ in 0..HOGS {
            scope.spawn(|| {
                if let Some(core) = core {
                    let mut set = rustix::thread::CpuSet::new();
                    set.set(core);
                    // where it is not allowed the hogs take what they get
                    let _ = rustix::thread::sched_setaffinity(None, &set);
                }
                take_for_generator(cores, is_alone);
                while !over.load(Ordering::Relaxed) {
                    // the core is theirs, in turn with the generator
                    let until = crate::clock::now() + HOGGED;
                    while crate::clock::now() < until {
                        std::hint::spin_loop();
                    }
                    std::thread::yield_now();
                }
            });
        }
        let run = bench.run(&load, "throttled", "upstream", &mut Unknown);
        over.store(true, Ordering::Relaxed);
        run
    });
    let (_, run) = run?;
    let closed: Vec<Run> = vec![run];
    let gates = validity::gates(
        &closed.iter().collect::<Vec<_>>(),
        Some(Bound { quantile: 0.99, time: 0.005, failures: 1e-4 }),
    );
    let names: Vec<_> = gates.iter().filter(|gate| !gate.holds).map(|gate| gate.name.as_str()).collect();
    let verdict = Verdict {
        name: "a throttled generator is INVALID".to_owned(),
        passed: !names.is_empty(),
        measured: if names.is_empty() { "valid".to_owned() } else { format!("INVALID by {}", names.join(", ")) },
        wanted: "INVALID".to_owned(),
    };
    session.outcome.runs.extend(closed);
    Ok(Judged::of(verdict))
}

/// Histograms of parts, merged, are the histogram of all.
fn merge(_: &mut Session, seed: u64) -> Result<Judged, Refusal> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut all, mut parts) = (no_times(), vec![no_times(); 5]);
    for row in 0..200_000 {
        let time = (-(1.0 - rng.random::<f64>()).ln() * 1e6) as u64 + 1_000;
        all.saturating_record(time);
        parts[row % 5].saturating_record(time);
    }
    let parts: Vec<_> = parts.iter().map(|part| spectrum(part, 11)).collect();
    let (sum, whole) = (merged(&parts)?, spectrum(&all, 55));
    Ok(Judged::of(Verdict {
        name: "merged histograms are the histogram of all".to_owned(),
        passed: sum == whole,
        measured: format!("p99.9 of {} over {} requests", of(sum.p999), sum.count),
        wanted: format!("p99.9 of {} over {} requests", of(whole.p999), whole.count),
    }))
}
