//! `drill`: faults in phases under load, on one gateway after the other.

use super::bench::{Bench, Process, Script};
use super::options::OutputOptions;
use super::rig::Rig;
use super::session::{Refusal, Session, thresholds};
use crate::drill;
use crate::engine::Measured;
use crate::gateways::Kind;
use crate::load::Load;
use crate::measure::{described, phase_count};
use crate::plan::{About, Act, Fault, GatewayAct, Plan, Thresholds};
use crate::processes::{Usage, resident_bytes};
use crate::result::{Drill, Phase, PhaseCount, Run};
use crate::stats::Tally;
use crate::units::digits;
use crate::upstream::Counters;
use crate::validity;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Faults in phases under load.
#[derive(Clone, Debug, Args)]
pub struct DrillOptions {
    /// Plans, as in loadtest/plans; one after the other.
    #[arg(required = true)]
    plans: Vec<PathBuf>,
    /// Only these of the plans' gateways, or others than theirs.
    #[arg(long, value_enum, value_delimiter = ',')]
    gateways: Vec<Kind>,
    #[command(flatten)]
    output: OutputOptions,
}

/// Runs it.
///
/// # Errors
/// A plan has mistakes, or something does not start.
pub fn drill(options: &DrillOptions) -> Result<ExitCode, Refusal> {
    let plans = options.plans.iter().map(|file| Plan::open(file)).collect::<Vec<_>>();
    let wrong: Vec<_> = plans.iter().filter_map(|plan| plan.as_ref().err()).map(ToString::to_string).collect();
    if !wrong.is_empty() {
        return Err(Refusal(wrong.join("\n")));
    }
    let plans: Vec<Plan> = plans.into_iter().flatten().collect();
    // all that can be wrong is wrong before minutes have gone into it
    if let Some(plan) = plans.iter().find(|plan| plan.gateway.is_none()) {
        return Err(Refusal(format!("{}: a drill starts its gateway: [gateway] is missing", plan.text.name)));
    }
    let held = plans.iter().map(|plan| thresholds(Some(plan), &options.output, &[About::Run]));
    let held = held.collect::<Result<Vec<_>, _>>()?;
    let title = plans.iter().map(|plan| plan.name.as_str()).collect::<Vec<_>>().join("; ");
    let mut session = Session::begin("drill", title, &options.output)?;
    for (plan, (thresholds, unjudged)) in plans.iter().zip(held) {
        let Some(gateway) = &plan.gateway else { continue };
        session.holds_to(&thresholds, unjudged);
        let kinds = if options.gateways.is_empty() { &gateway.kinds } else { &options.gateways };
        session.outcome.seed = plan.load.seed;
        session.outcome.plan = Some(plan.text.clone());
        session.outcome.remarks.extend(plan.remarks.iter().cloned());
        for (row, kind) in kinds.iter().enumerate() {
            if session.watch.is_stopped() {
                break;
            }
            match kind.find() {
                Err(missing) if row > 0 => session.outcome.remarks.push(missing),
                Err(missing) => fail(&mut session, Refusal(missing))?,
                Ok(program) => {
                    one(&mut session, plan, &program, row == 0, &thresholds).or_else(|why| fail(&mut session, why))?;
                }
            }
        }
    }
    let runs: Vec<&Run> = session.outcome.runs.iter().collect();
    // a drill holds servers that answer late or never: connections are what is meant to run out
    session.outcome.gates.extend(validity::gates(&runs, None).into_iter().filter(|gate| gate.name != "connections"));
    session.end()
}

/// What was seen before something failed is not lost with it: it is a part of what was asked for. The first one's failure is everybody's.
fn fail(session: &mut Session, why: Refusal) -> Result<(), Refusal> {
    if session.outcome.drills.is_empty() {
        return Err(why);
    }
    session.progress.say(&why.0);
    session.outcome.remarks.push(why.0);
    session.outcome.is_partial = true;
    Ok(())
}

/// One gateway.
fn one(
    session: &mut Session,
    plan: &Plan,
    program: &crate::gateways::Program,
    is_judged: bool,
    thresholds: &Thresholds,
) -> Result<(), Refusal> {
    let mut stage = Stage { rig: Rig::of_plan(plan, program)?, troubles: Vec::new() };
    let name = program.kind.name();
    let load = stage.rig.load(plan)?;
    if session.outcome.runs.is_empty() {
        session.outcome.load = described(&load, &plan.name);
        session.outcome.environment.generator_cores = load.cores.clone();
        session.outcome.environment.gateway_cores =
            plan.gateway.as_ref().map(|it| it.cores.clone()).unwrap_or_default();
    }
    let mut process = ById { pid: stage.rig.gateway.child().pid(), usage: Usage::default() };
    let mut script = Playing::new(plan, &mut stage);
    let bench = Bench { watch: &session.watch, progress: &session.progress };
    let (measured, mut run) = bench.play(&load, "drill", name, &mut process, &mut script)?;
    let counters = script.finish();
    run.label = format!("drill: {}", plan.name);
    let mut drill = judged(plan, &load, &measured, &run, &counters, name, is_judged);
    drill.run = session.outcome.runs.len();
    if program.kind == Kind::Ringgate {
        drill.metrics = stage.rig.gateway.metrics().unwrap_or_default();
    }
    session.lives(name, &mut stage.rig.gateway);
    session.outcome.remarks.extend(stage.troubles.drain(..).map(|trouble| format!("{name}: {trouble}")));
    if is_judged {
        session.outcome.verdicts.extend(thresholds.verdicts(&run));
    }
    session.outcome.runs.push(run);
    session.outcome.drills.push(drill);
    Ok(())
}

/// A process that somebody else holds.
struct ById {
    pid: u32,
    usage: Usage,
}

impl Process for ById {
    fn cpu(&mut self) -> Option<f64> {
        Some(self.usage.cpu(self.pid).as_secs_f64())
    }

    fn resident(&mut self) -> Option<u64> {
        Some(resident_bytes(self.pid))
    }

    fn ended(&mut self) -> Option<String> {
        None
    }
}

/// A rig, and what could not be done with it.
struct Stage {
    rig: Rig,
    troubles: Vec<String>,
}

impl Stage {
    fn counters(&mut self) -> Counters {
        let mut sum = Counters::default();
        for fleet in &mut self.rig.fleets {
            for row in 0..fleet.len() {
                // one that is frozen says nothing; it has done nothing either
                let one = fleet.counters(row).unwrap_or_default();
                sum = sum + one;
            }
        }
        sum
    }

    fn apply(&mut self, row: usize, instance: usize, act: Act) {
        let fleet = &mut self.rig.fleets[row];
        let done = match act {
            Act::Kill => {
                fleet.kill(instance);
                Ok(())
            }
            Act::Start => fleet.start(instance),
            Act::Tell(fault) => fleet.tell(instance, fault),
            Act::Flap(_) => Ok(()),
        };
        if let Err(error) = done {
            self.troubles.push(error.to_string());
        }
    }

    fn apply_to_gateway(&mut self, act: GatewayAct) {
        let done = match act {
            GatewayAct::Reload => self.rig.gateway.reload().map_err(|error| error.to_string()),
            GatewayAct::Freeze(_) => self.rig.gateway.child().freeze().map_err(|error| error.to_string()),
        };
        if let Err(error) = done {
            self.troubles.push(error);
        }
    }
}

/// Something to do at a moment.
#[derive(Clone, Debug)]
enum Cue {
    Count,
    Upstream(usize, usize, Act),
    Gateway(GatewayAct),
    Thaw,
}

/// The script of a plan while it is played.
struct Playing<'s> {
    stage: &'s mut Stage,
    /// Ascending.
    cues: std::vec::IntoIter<(Duration, Cue)>,
    next: Option<(Duration, Cue)>,
    /// At the start of each phase.
    counts: Vec<Counters>,
}

impl<'s> Playing<'s> {
    fn new(plan: &Plan, stage: &'s mut Stage) -> Self {
        let mut cues = cues(plan).into_iter();
        let next = cues.next();
        Self { stage, cues, next, counts: Vec::new() }
    }

    /// Counters at the starts of phases, and at the end.
    fn finish(mut self) -> Vec<Counters> {
        let last = self.stage.counters();
        self.counts.push(last);
        self.counts
    }
}

impl Script for Playing<'_> {
    fn due(&self) -> Option<Duration> {
        self.next.as_ref().map(|(at, _)| *at)
    }

    fn act(&mut self) {
        match std::mem::replace(&mut self.next, self.cues.next()) {
            None => {}
            Some((_, Cue::Count)) => {
                let count = self.stage.counters();
                self.counts.push(count);
            }
            Some((_, Cue::Upstream(row, instance, act))) => self.stage.apply(row, instance, act),
            Some((_, Cue::Gateway(act))) => self.stage.apply_to_gateway(act),
            Some((_, Cue::Thaw)) => {
                if let Err(error) = self.stage.rig.gateway.child().thaw() {
                    self.stage.troubles.push(error.to_string());
                }
            }
        }
    }
}

/// Everything that is done, with its moment from the first judged one. At one moment counts come first, then faults in the order of the plan.
fn cues(plan: &Plan) -> Vec<(Duration, Cue)> {
    let mut cues = Vec::new();
    let mut begin = Duration::ZERO;
    for phase in &plan.phases {
        let end = begin + phase.length;
        cues.push((begin, Cue::Count));
        for timed in &phase.faults {
            let at = begin + timed.after;
            match &timed.fault {
                Fault::Gateway(act) => {
                    cues.push((at, Cue::Gateway(*act)));
                    if let GatewayAct::Freeze(time) = act {
                        cues.push((at + *time, Cue::Thaw));
                    }
                }
                Fault::Upstream { row, instances, act, .. } => {
                    for instance in instances {
                        match act {
                            Act::Flap(every) => flap(&mut cues, (at, end), *every, (*row, *instance)),
                            act => cues.push((at, Cue::Upstream(*row, *instance, *act))),
                        }
                    }
                }
            }
        }
        begin = end;
    }
    cues.sort_by_key(|(at, _)| *at);
    cues
}

/// Killed and started in turn, and there at the end.
fn flap(
    cues: &mut Vec<(Duration, Cue)>,
    (from, to): (Duration, Duration),
    every: Duration,
    (row, instance): (usize, usize),
) {
    let mut at = from;
    for turn in 0.. {
        if at >= to {
            break;
        }
        let act = if turn % 2 == 0 { Act::Kill } else { Act::Start };
        cues.push((at, Cue::Upstream(row, instance, act)));
        at += every;
    }
    cues.push((to, Cue::Upstream(row, instance, Act::Start)));
}

fn judged(
    plan: &Plan,
    load: &Load,
    measured: &Measured,
    run: &Run,
    counters: &[Counters],
    name: &str,
    is_judged: bool,
) -> Drill {
    let phases = measured.tallies.phases();
    let (mut seen, mut at, mut usual) = (Vec::new(), 0.0, 0.0);
    for (row, phase) in plan.phases.iter().enumerate().take(phases) {
        let length = phase.length.as_secs_f64();
        // a phase that was not gone through has shown nothing: not even that nothing failed
        if measured.is_partial && at + length > run.length {
            break;
        }
        let slices = drill::within(&run.series, at, length);
        if row == 0 {
            usual = drill::usual(slices);
        }
        let tallies: Vec<&Tally> =
            (0..load.targets.len()).map(|target| &measured.tallies.parts[target * phases + row]).collect();
        let count = phase_count(&Tally::sum(&tallies));
        let asked =
            counters.get(row).zip(counters.get(row + 1)).map(|(one, next)| next.requests.saturating_sub(one.requests));
        let first = (at / load.slice.as_secs_f64()).round() as usize;
        let flights = measured.tallies.in_flight_max.iter().skip(first).take(slices.len());
        let of_targets: Vec<(&str, PhaseCount)> = run
            .targets
            .iter()
            .map(|target| (target.name.as_str(), target.phases.get(row).cloned().unwrap_or_default()))
            .collect();
        let bystanders = phase.bystanders.iter().map(|target| tallies[*target].failed()).sum();
        let mut of = Phase {
            name: phase.name.clone(),
            faults: phase.faults.iter().map(|timed| faulted(timed.after, &timed.fault)).collect(),
            at,
            length,
            detection: drill::detection(slices, at),
            recovery: drill::recovery(slices, at, usual),
            amplification: asked.filter(|_| count.due > 0).map(|asked| asked as f64 / count.due as f64),
            in_flight_max: flights.copied().max().unwrap_or(0),
            bystanders_failed: (!phase.bystanders.is_empty()).then_some(bystanders),
            count,
            verdicts: Vec::new(),
        };
        if is_judged {
            let borrowed: Vec<(&str, &PhaseCount)> = of_targets.iter().map(|(name, count)| (*name, count)).collect();
            of.verdicts = phase.verdicts(&of, &borrowed);
        }
        seen.push(of);
        at += length;
    }
    Drill { gateway: name.to_owned(), phases: seen, ..Drill::default() }
}

fn faulted(after: Duration, fault: &Fault) -> String {
    if after.is_zero() { fault.to_string() } else { format!("{fault} (after {} s)", digits(after.as_secs_f64())) }
}
