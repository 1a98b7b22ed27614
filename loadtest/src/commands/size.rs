//! `size`: how many hosts a peak needs, so that some of them may fail.

use super::bench::Bench;
use super::capacity::{self, Wanted};
use super::find::{BoundOptions, ServerOptions};
use super::options::{LoadOptions, OutputOptions, fresh_seed, rate, slice_of};
use super::session::{Refusal, Session, read, thresholds};
use crate::load::Load;
use crate::measure::{at, digits_of_quantile, refusal};
use crate::plan::About;
use crate::result::{Outcome, Sizing, Verdict};
use crate::sizing::Host;
use crate::units::{digits, grouped, shown};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// What is judged.
const JUDGED: &[About] = &[About::Capacity, About::Hosts];

/// How many hosts a peak needs.
#[derive(Clone, Debug, Args)]
pub struct SizeOptions {
    #[command(flatten)]
    server: ServerOptions,
    /// Requests a second at the peak, of all hosts together [default: the plan's].
    #[arg(long, value_parser = rate, required_unless_present = "plan")]
    peak: Option<f64>,
    /// Hosts that may fail at once [default: the plan's, or 1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    survive: Option<u32>,
    /// A result of `capacity` instead of a search now: take it for the URL.
    #[arg(long, conflicts_with_all = ["demo", "plan", "direct", "gateway", "p50", "p99", "p999", "failures", "width", "trial", "start", "max_rate"])]
    from_result: bool,
    #[command(flatten)]
    bound: BoundOptions,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// What follows from a search for capacity; `None`: no rate holds.
fn sizing(outcome: &Outcome, peak: f64, survive: u32) -> Option<Sizing> {
    let capacity = outcome.capacity.as_ref()?;
    let through = outcome.runs.iter().filter(|run| matches!(run.label.as_str(), "short" | "full"));
    let curve: Vec<(f64, f64)> =
        through.filter_map(|run| Some((run.rate?, at(&run.latency, capacity.quantile)))).collect();
    Some(Host::on_curve(capacity.holds?, capacity.bound, &curve)?.sizing(peak, survive))
}

/// Runs it.
///
/// # Errors
/// It cannot be done as asked.
pub fn size(options: &SizeOptions) -> Result<ExitCode, Refusal> {
    let title = |of: &str, (peak, survive): (f64, u32)| {
        format!("Hosts for {} requests/s of {of}, {survive} of them may fail", digits(peak))
    };
    if options.from_result {
        let file = PathBuf::from(options.server.url.clone().unwrap_or_default());
        let asked =
            (options.peak.ok_or_else(|| Refusal("--peak is missing".to_owned()))?, options.survive.unwrap_or(1));
        let known = read(&file)?;
        let (thresholds, unjudged) = thresholds(None, &options.output, JUDGED)?;
        let mut session = Session::begin("size", title(&known.load.url, asked), &options.output)?;
        let sizing = sizing(&known, asked.0, asked.1)
            .ok_or_else(|| Refusal(format!("{}: no capacity was found there", file.display())))?;
        session.outcome = Outcome { command: "size".to_owned(), title: session.outcome.title, ..known };
        let rate = digits(sizing.each_after_failures);
        session.outcome.remarks.push(format!("the plan was not confirmed by a run at {rate} requests/s"));
        session.holds_to(&thresholds, unjudged);
        session.outcome.verdicts.extend(thresholds.verdict_on_hosts(Some(&sizing)));
        session
            .outcome
            .verdicts
            .extend(session.outcome.capacity.as_ref().and_then(|it| thresholds.verdict_on_capacity(it)));
        session.outcome.sizing = Some(sizing);
        return session.end();
    }
    let seed = options.load.seed.unwrap_or_else(fresh_seed);
    let mut server = options.server.open(seed, options.load.http2)?;
    let of_plan = server.plan.as_ref().and_then(|plan| plan.size);
    let peak = options.peak.or(of_plan.map(|size| size.peak));
    let peak = peak.ok_or_else(|| Refusal("--peak is missing, and the plan has no [size]".to_owned()))?;
    let survive = options.survive.or(of_plan.map(|size| size.survive)).unwrap_or(1);
    let wanted = options.bound.wanted(&options.server, server.plan.as_ref().and_then(|plan| plan.capacity.as_ref()))?;
    let (thresholds, unjudged) = thresholds(server.plan.as_ref(), &options.output, JUDGED)?;
    let (load, direct) = server.loads(&options.load, wanted.trial, seed)?;
    let mut session = Session::begin("size", title(&server.name, (peak, survive)), &options.output)?;
    session.holds_to(&thresholds, unjudged);
    server.describe(&mut session, &load);
    let name = server.name.clone();
    let mut process = server.watched();
    capacity::search(&mut session, &load, &name, process.as_mut(), &wanted, direct.as_ref())?;
    let planned = sizing(&session.outcome, peak, survive);
    session
        .outcome
        .verdicts
        .extend(session.outcome.capacity.as_ref().and_then(|it| thresholds.verdict_on_capacity(it)));
    let Some(mut planned) = planned.filter(|_| !session.watch.is_stopped()) else {
        session.outcome.verdicts.extend(thresholds.verdict_on_hosts(None));
        return session.end();
    };
    confirm(&mut session, &load, &name, process.as_mut(), &wanted, &mut planned)?;
    session.outcome.verdicts.extend(thresholds.verdict_on_hosts(Some(&planned)));
    session.outcome.sizing = Some(planned);
    drop(process);
    server.look_after(&mut session);
    session.end()
}

/// With `survive` hosts gone each of the others takes more: that is tried, not believed.
fn confirm(
    session: &mut Session,
    load: &Load,
    name: &str,
    process: &mut dyn super::bench::Process,
    wanted: &Wanted,
    sizing: &mut Sizing,
) -> Result<(), Refusal> {
    let pace = match load.pace {
        crate::load::Pace::Even(_) => crate::load::Pace::Even(sizing.each_after_failures),
        _ => crate::load::Pace::Poisson(sizing.each_after_failures),
    };
    let load = Load { pace, slice: slice_of(load.length), seed: load.seed.wrapping_add(1), ..load.clone() };
    let bench = Bench { watch: &session.watch, progress: &session.progress };
    let (measured, mut run) = bench.run(&load, "confirmation", name, process)?;
    run.refused = refusal(&wanted.bound, &measured, true);
    let percentile = shown(at(&run.latency, wanted.bound.quantile));
    session.outcome.verdicts.push(Verdict {
        name: format!("{} hosts with {} gone", grouped(sizing.hosts.cast_signed()), sizing.survive),
        passed: run.refused.is_none(),
        measured: run
            .refused
            .clone()
            .unwrap_or_else(|| format!("p{} of {percentile}", digits_of_quantile(wanted.bound.quantile))),
        wanted: format!(
            "{} requests/s at p{} < {}",
            digits(sizing.each_after_failures),
            digits_of_quantile(wanted.bound.quantile),
            shown(wanted.bound.time)
        ),
    });
    sizing.confirmed = Some(session.outcome.runs.len());
    session.outcome.runs.push(run);
    Ok(())
}
