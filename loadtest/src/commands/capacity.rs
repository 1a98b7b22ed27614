//! `capacity`: the highest rate at which a percentile is still met, as a bracket that was shown from both sides.

use super::bench::{Bench, Process, Repeats, Unknown};
use super::options::RATE_MAX;
use super::session::{Refusal, Session};
use crate::load::{Load, Pace};
use crate::measure::{Bound, refusal};
use crate::result::{Capacity, Gate, Run};
use crate::search::{Bounds, Found, Search, Step, Trial};
use crate::units::{digits, shown};
use crate::validity;
use std::time::Duration;

/// A trial has at least so many requests, or it says nothing of a 99th percentile.
const REQUESTS_MIN: f64 = 1_000.0;
/// And lasts at most this many times what was asked for.
const STRETCH_MAX: u32 = 6;
/// A short trial is this part of a full one.
const SHORT: u32 = 3;
/// The upstream itself is asked at so many times the rate that the gateway holds.
const DIRECT: f64 = 1.5;

/// What is searched for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What a trial has to show.
    pub bound: Bound,
    /// Width of the bracket: 0.05.
    pub width: f64,
    /// Length of a full trial.
    pub trial: Duration,
    /// The first rate.
    pub start: f64,
    /// The last one.
    pub max: f64,
}

impl Wanted {
    /// Default width on a machine of so many cores.
    #[must_use]
    pub fn width_for(cores: usize) -> f64 {
        if cores <= 4 { 0.05 } else { 0.025 }
    }

    /// Length of a trial at this rate.
    fn length(&self, trial: Trial) -> Duration {
        let asked = if trial.is_full { self.trial } else { self.trial / SHORT };
        let needed = Duration::from_secs_f64((REQUESTS_MIN / trial.rate).min(3_600.0));
        asked.max(needed.min(self.trial * STRETCH_MAX))
    }
}

/// The load of a trial at this rate.
fn at(load: &Load, trial: Trial, length: Duration, number: u64) -> Load {
    let pace = match load.pace {
        Pace::Even(_) => Pace::Even(trial.rate),
        _ => Pace::Poisson(trial.rate),
    };
    let slice = (length / 40).max(Duration::from_millis(50));
    // every trial has arrivals of its own, or five of them would be one
    Load { pace, length, slice, seed: load.seed.wrapping_add(number.wrapping_mul(7_919)), ..load.clone() }
}

/// Searches, and leaves in the session what was seen. `direct` is the upstream itself with the same requests.
///
/// # Errors
/// The generator cannot run.
pub fn search(
    session: &mut Session,
    load: &Load,
    server: &str,
    process: &mut dyn Process,
    wanted: &Wanted,
    direct: Option<&Load>,
) -> Result<(), Refusal> {
    let max = wanted.max.min(RATE_MAX);
    let mut search = Search::new(Bounds { start: wanted.start.min(max), min: 1.0, max, width: wanted.width });
    let mut reasons: Vec<(f64, String)> = Vec::new();
    let mut repeats = Repeats::default();
    let found = loop {
        if session.watch.is_stopped() {
            break None;
        }
        let trial = match search.step() {
            Step::Done(found) => break Some(found),
            Step::Try(trial) => trial,
        };
        let load = at(load, trial, wanted.length(trial), session.outcome.runs.len() as u64);
        let label = if trial.is_full { "full" } else { "short" };
        let bench = Bench { watch: &session.watch, progress: &session.progress };
        let (measured, mut run) = bench.run(&load, label, server, process)?;
        if measured.is_partial || !session.lives(server, process) {
            break None;
        }
        run.refused = refusal(&wanted.bound, &measured, trial.is_full);
        // one that passed although it was sent late would have passed all the same
        if run.refused.is_some() && repeats.again(&mut run, Some(wanted.bound), &session.progress) {
            run.refused = None;
            session.outcome.runs.push(run);
            continue;
        }
        // votes of a machine that does not hold still would lead to some rate all the same, and to a wrong one
        let why = validity::spoiled(&run, Some(wanted.bound));
        if let Some(why) = why.filter(|_| trial.is_full && run.refused.is_some()) {
            run.refused = None;
            session.outcome.runs.push(run);
            session.outcome.gates.push(validity::restless(&why));
            repeats.conclude(&mut session.outcome);
            return Ok(());
        }
        search.observe(run.refused.is_none());
        if let Some(reason) = &run.refused {
            session.progress.say(&format!("  does not hold: {reason}"));
            reasons.push((trial.rate, reason.clone()));
        }
        session.outcome.runs.push(run);
    };
    let Some(found) = found else {
        session.outcome.is_partial = true;
        return Ok(());
    };
    let direct = direct.zip(found.holds).map(|(direct, (rate, _))| {
        let trial = Trial { rate: rate * DIRECT, is_full: true };
        ask_upstream(session, wanted, &mut repeats, direct, trial)
    });
    let direct = direct.transpose()?;
    repeats.conclude(&mut session.outcome);
    conclude(session, wanted, &found, &reasons, direct);
    Ok(())
}

/// The upstream itself.
fn ask_upstream(
    session: &mut Session,
    wanted: &Wanted,
    repeats: &mut Repeats,
    load: &Load,
    trial: Trial,
) -> Result<Run, Refusal> {
    loop {
        let load = at(load, trial, wanted.length(trial), session.outcome.runs.len() as u64);
        let bench = Bench { watch: &session.watch, progress: &session.progress };
        let (_, mut run) = bench.run(&load, "direct", "upstream", &mut Unknown)?;
        if session.watch.is_stopped() || !repeats.again(&mut run, Some(wanted.bound), &session.progress) {
            return Ok(run);
        }
        session.outcome.runs.push(run);
    }
}

/// What follows from the trials.
fn conclude(session: &mut Session, wanted: &Wanted, found: &Found, reasons: &[(f64, String)], direct: Option<Run>) {
    let outcome = &mut session.outcome;
    let because = found.breaks.and_then(|(rate, _)| {
        let near = |at: f64| (at / rate - 1.0).abs() < 1e-9;
        reasons.iter().rev().find(|(at, _)| near(*at)).map(|(_, reason)| reason.clone())
    });
    outcome.capacity = Some(Capacity {
        quantile: wanted.bound.quantile,
        bound: wanted.bound.time,
        failures: wanted.bound.failures,
        holds: found.holds.map(|(rate, _)| rate),
        breaks: found.breaks.map(|(rate, _)| rate),
        width: wanted.width,
        passed_at_holds: found.holds.map_or((0, 0), |(_, votes)| votes),
        passed_at_breaks: found.breaks.map_or((0, 0), |(_, votes)| votes),
        because,
    });
    // what decides is what was shown at both ends: there the generator has to be beyond doubt
    let ends = [found.holds, found.breaks];
    let is_end = |run: &&Run| {
        let rate = run.rate.unwrap_or_default();
        run.label == "full" && ends.iter().flatten().any(|(end, _)| (end / rate - 1.0).abs() < 1e-9)
    };
    let judged: Vec<&Run> = outcome.runs.iter().filter(is_end).collect();
    let mut gates = validity::gates_of_trials(&judged, wanted.bound);
    if !found.is_settled {
        gates.push(Gate {
            name: "agreement of trials".to_owned(),
            holds: false,
            measured: "trials at the same rates contradicted each other".to_owned(),
            wanted: format!("a bracket of {:.1} %", wanted.width * 100.0),
            advice: "quiet the machine, or make trials longer (--trial)".to_owned(),
        });
    }
    if found.holds.is_none() {
        outcome.remarks.push(format!("at no rate is the bound of {} met", shown(wanted.bound.time)));
    }
    if let (None, Some((highest, _))) = (found.breaks, found.holds) {
        outcome.remarks.push(format!(
            "it holds at {} requests/s, the highest rate that was tried: the capacity is that at least (--max-rate goes further)",
            digits(highest)
        ));
    }
    match direct {
        Some(direct) => {
            gates.push(validity::headroom(&direct, wanted.bound.time));
            outcome.runs.push(direct);
        }
        None => outcome
            .remarks
            .push("the upstream itself was not measured (--direct URL): it may be what limits".to_owned()),
    }
    outcome.gates = gates;
}
