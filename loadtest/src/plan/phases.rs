//! What happens in the course of a load: phases, what is done in them to whom, and what must hold meanwhile.
//!
//! What is done stays done until it is undone, so each instance is followed through the phases: nobody is killed who is down, or started
//! who is up, and it is known which targets are bystanders.

use super::check::{given, value, wrong};
use super::values::{PaceWord, PhaseRate, RATE_MAX};
use super::words::{Act, INSTANCES_MAX, Which};
use super::{Fault, GatewayAct, Phase, PhaseThresholds, Replay, Request, Timed, file};
use crate::upstream;
use ringgate::config::reading::{Sink, Written};
use std::collections::HashMap;
use std::time::Duration;

/// The file that is checked, and what was made of it already; `None`: not even that, and it was reported.
struct Stage<'a> {
    load: &'a file::Load,
    has_gateway: bool,
    requests: Option<&'a [Request]>,
    upstreams: Option<Vec<Known<'a>>>,
}

/// An upstream, as far as it is known.
struct Known<'a> {
    name: &'a str,
    /// As many as there may be, where the number could not be read.
    instances: usize,
    absent: Vec<u64>,
}

impl<'a> Known<'a> {
    fn new(name: &'a str, table: &file::Upstream) -> Self {
        let instances = value(&table.instances).map_or(INSTANCES_MAX, |count| count.0);
        let absent = table.absent.iter().flat_map(|list| &list.value.0).map(|number| number.value.0).collect();
        Self { name, instances: usize::try_from(instances).unwrap_or(usize::MAX), absent }
    }

    fn conditions(&self) -> Vec<Condition> {
        (1..=self.instances as u64).map(|n| Condition { is_down: self.absent.contains(&n), is_ill: false }).collect()
    }
}

/// An instance in the course of time.
#[derive(Clone, Copy, Default)]
struct Condition {
    is_down: bool,
    is_ill: bool,
}

/// All phases; `None` when something was reported.
pub(super) fn phases(
    file: &file::File,
    load: &file::Load,
    requests: Option<&[Request]>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Phase>> {
    let list = &file.phase.as_ref()?.value.0;
    let upstreams = file
        .upstream
        .as_ref()
        .map(|map| map.value.0.iter().map(|(name, table)| Known::new(&name.value.0, &table.value)).collect::<Vec<_>>());
    let mut conditions: Vec<Vec<Condition>> = upstreams.iter().flatten().map(Known::conditions).collect();
    let has_gateway = file.gateway.is_some() || sink.reported("gateway");
    let stage = Stage { load, has_gateway, requests, upstreams };
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut phases = Vec::with_capacity(list.len());
    for (row, table) in list.iter().enumerate() {
        if let Some(name) = &table.value.name
            && let Some(first) = names.insert(&name.value.0, name.span.start)
        {
            let message = format!("the phase in line {} has this name too", sink.line(first));
            wrong(sink, table.value.at.key("name"), name, message, Some("give it another one".to_owned()));
        }
        phases.extend(phase(&table.value, row, &stage, &mut conditions, sink));
    }
    (phases.len() == list.len()).then_some(phases)
}

fn phase(
    table: &file::Phase,
    row: usize,
    stage: &Stage<'_>,
    conditions: &mut [Vec<Condition>],
    sink: &mut Sink<'_>,
) -> Option<Phase> {
    let factor = factor(table, stage, sink);
    let length = value(&table.length).map(|length| length.0);
    let is_unwell = |instances: &Vec<Condition>| instances.iter().any(|instance| instance.is_down || instance.is_ill);
    let mut unwell: Vec<bool> = conditions.iter().map(is_unwell).collect();
    let mut faults = Vec::new();
    let mut entries: Vec<_> = table.faults.as_ref()?.value.0.iter().collect();
    entries.sort_by_key(|entry| value(&entry.value.after).map(|after| after.0));
    let mut are_readable = true;
    for entry in &entries {
        let timed = timed(&entry.value, length, stage, conditions, sink);
        are_readable &= timed.is_some();
        if let Some(Timed { fault: fault @ Fault::Upstream { row, .. }, .. }) = &timed {
            unwell[*row] |= fault.harms();
        }
        faults.extend(timed);
    }
    let is_gateway = faults.iter().any(|timed| matches!(timed.fault, Fault::Gateway(_)));
    let is_bystander = |request: &Request| !is_gateway && request.upstream.is_some_and(|upstream| !unwell[upstream]);
    let rows = stage.requests.unwrap_or_default().iter().enumerate().filter(|(_, request)| is_bystander(request));
    let mut bystanders: Vec<usize> = rows.map(|(row, _)| row).collect();
    if !unwell.contains(&true) {
        bystanders.clear();
    }
    let thresholds = thresholds(table, stage.requests, sink);
    meaningless(table, row, stage, &bystanders, length.zip(factor), sink);
    are_readable.then_some(())?;
    Some(Phase {
        name: value(&table.name)?.0,
        length: length?,
        factor: factor?,
        faults,
        bystanders,
        thresholds: thresholds?,
    })
}

/// The phase's rate as a factor of the load's.
fn factor(table: &file::Phase, stage: &Stage<'_>, sink: &mut Sink<'_>) -> Option<f64> {
    let written = table.rate.as_ref()?;
    let rate = value(&stage.load.rate)?.0;
    let decided = match value(&stage.load.pace) {
        Some(PaceWord::Closed) => Some("a closed loop has no rate"),
        _ if stage.load.from_log.is_some() => Some("the log decides when requests come"),
        _ => None,
    };
    if let (true, Some(why)) = (written.given, decided) {
        wrong(sink, table.at.key("rate"), written, why.to_owned(), Some("take it away".to_owned()));
    }
    let factor = match written.value {
        PhaseRate::Factor(factor) => factor,
        PhaseRate::Absolute(own) => own / rate,
    };
    if factor * rate > RATE_MAX as f64 {
        let message = format!("{factor} times {rate}/s is more than {RATE_MAX}/s");
        wrong(sink, table.at.key("rate"), written, message, None);
    }
    Some(factor)
}

/// One fault, and what it makes of those that it is done to.
fn timed(
    table: &file::Fault,
    length: Option<Duration>,
    stage: &Stage<'_>,
    conditions: &mut [Vec<Condition>],
    sink: &mut Sink<'_>,
) -> Option<Timed> {
    let after = table.after.as_ref()?;
    let fault = match (&table.upstream, &table.gateway) {
        (Some(_), Some(gateway)) => {
            let message = "one fault is done to one: the upstream or the gateway".to_owned();
            wrong(sink, table.at.key("gateway"), gateway, message, Some("write two".to_owned()));
            return None;
        }
        (None, None) => {
            if ["upstream", "gateway"].iter().all(|key| !sink.reported(table.at.key(key))) {
                let help = "write upstream = \"NAME\" and do = \"kill\", or gateway = \"reload\"".to_owned();
                sink.place(
                    &table.at.path,
                    table.at.offset,
                    "nobody is named to whom it is done".to_owned(),
                    Some(help),
                );
            }
            return None;
        }
        (None, Some(gateway)) => {
            for (key, span) in [("do", span(&table.r#do)), ("instance", given(&table.instance).map(|w| w.span.clone()))]
            {
                if let Some(span) = span {
                    sink.value(
                        table.at.key(key),
                        span,
                        "this is for upstreams".to_owned(),
                        Some("take it away".to_owned()),
                    );
                }
            }
            if !stage.has_gateway {
                let message = "this plan starts no gateway to which it could be done".to_owned();
                wrong(sink, table.at.key("gateway"), gateway, message, Some("write [gateway]".to_owned()));
            }
            Fault::Gateway(gateway.value.0)
        }
        (Some(name), None) => on_upstream(table, name, stage, conditions, sink)?,
    };
    let length = length?;
    if after.value.0 >= length {
        let message = format!("the phase is over after {length:?}");
        wrong(sink, table.at.key("after"), after, message, None);
    }
    let lasts = match &fault {
        Fault::Gateway(GatewayAct::Freeze(time))
        | Fault::Upstream { act: Act::Tell(upstream::Fault::Freeze(time)), .. } => *time,
        _ => Duration::ZERO,
    };
    if after.value.0 < length && after.value.0 + lasts > length {
        let key = if matches!(fault, Fault::Gateway(_)) { "gateway" } else { "do" };
        let span = span(&table.r#do).or_else(|| span(&table.gateway))?;
        let help = format!("make the phase {:?} long, or the freeze shorter", after.value.0 + lasts);
        sink.value(table.at.key(key), span, "the phase is over before it ends".to_owned(), Some(help));
    }
    Some(Timed { after: after.value.0, fault })
}

fn span<T>(written: &Option<Written<T>>) -> Option<std::ops::Range<usize>> {
    written.as_ref().map(|written| written.span.clone())
}

fn on_upstream(
    table: &file::Fault,
    name: &Written<ringgate::config::reading::Name>,
    stage: &Stage<'_>,
    conditions: &mut [Vec<Condition>],
    sink: &mut Sink<'_>,
) -> Option<Fault> {
    if table.r#do.is_none() && !sink.reported(table.at.key("do")) {
        let help = Some("write do = \"kill\"".to_owned());
        sink.place(table.at.key("do"), table.at.offset, "missing: what is done to it".to_owned(), help);
    }
    let upstreams = stage.upstreams.as_ref()?;
    let Some(row) = upstreams.iter().position(|upstream| upstream.name == name.value.0) else {
        let known: Vec<&str> = upstreams.iter().map(|upstream| upstream.name).collect();
        let help = sink.did_you_mean(&name.value.0, &known);
        let message = match known[..] {
            [] => "this plan has no upstreams to which it could be done".to_owned(),
            _ => format!("no such upstream; there are {}", ringgate::config::reading::listed(&known)),
        };
        wrong(sink, table.at.key("upstream"), name, message, help);
        return None;
    };
    let upstream = &upstreams[row];
    let which = table.instance.as_ref()?;
    let instances: Vec<usize> = match which.value {
        Which::All => (0..upstream.instances).collect(),
        Which::One(number) if number > upstream.instances => {
            let message = format!("{} has only {} instances", upstream.name, upstream.instances);
            let help = format!("write instances = {number} for it, or a number up to {}", upstream.instances);
            wrong(sink, table.at.key("instance"), which, message, Some(help));
            return None;
        }
        Which::One(number) => vec![number - 1],
    };
    let act = table.r#do.as_ref()?;
    let wants_down = act.value.0 == Act::Start;
    let meant: Vec<usize> = instances.into_iter().filter(|at| conditions[row][*at].is_down == wants_down).collect();
    if meant.is_empty() {
        let (message, help) = match wants_down {
            true => ("it is there already", "kill it before, or write absent in its upstream"),
            false => ("it is not there: it was killed before, or absent", "write do = \"start\" before"),
        };
        wrong(sink, table.at.key("do"), act, message.to_owned(), Some(help.to_owned()));
        return None;
    }
    for at in &meant {
        conditions[row][*at] = match act.value.0 {
            Act::Kill => Condition { is_down: true, is_ill: false },
            Act::Start | Act::Flap(_) | Act::Tell(upstream::Fault::Fine) => Condition::default(),
            Act::Tell(upstream::Fault::Freeze(_)) => conditions[row][*at],
            Act::Tell(_) => Condition { is_down: false, is_ill: true },
        };
    }
    Some(Fault::Upstream { row, name: upstream.name.to_owned(), instances: meant, act: act.value.0 })
}

fn thresholds(table: &file::Phase, requests: Option<&[Request]>, sink: &mut Sink<'_>) -> Option<PhaseThresholds> {
    let mut max_failed_of = Vec::new();
    for (name, allowed) in &table.max_failed_of.as_ref()?.value.0 {
        let requests = requests?;
        match requests.iter().position(|request| request.name == name.value.0) {
            Some(row) => max_failed_of.push((row, allowed.value)),
            None => {
                let known: Vec<&str> = requests.iter().map(|request| &*request.name).collect();
                let help = sink.did_you_mean(&name.value.0, &known);
                let message = format!("no such target; there are {}", ringgate::config::reading::listed(&known));
                sink.place(
                    format_args!("{}.{}", table.at.key("max_failed_of"), name.value.0),
                    name.span.start,
                    message,
                    help,
                );
            }
        }
    }
    let time = |key: &Option<Written<super::values::Latency>>| value(key).map(|bound| bound.0);
    Some(PhaseThresholds {
        max_failed: value(&table.max_failed),
        max_failed_of,
        max_bystanders_failed: value(&table.max_bystanders_failed),
        max_p50: time(&table.max_p50),
        max_p99: time(&table.max_p99),
        max_p999: time(&table.max_p999),
        max_slowest: time(&table.max_slowest),
        min_goodput: value(&table.min_goodput).map(|share| share.0.get()),
        max_amplification: value(&table.max_amplification).map(|factor| factor.0),
        max_detection: value(&table.max_detection).map(|time| time.0),
        max_recovery: value(&table.max_recovery).map(|time| time.0),
    })
}

/// Thresholds that could not be judged are reported: a plan that passes because nothing was measured is worse than none.
fn meaningless(
    table: &file::Phase,
    row: usize,
    stage: &Stage<'_>,
    bystanders: &[usize],
    shape: Option<(Duration, f64)>,
    sink: &mut Sink<'_>,
) {
    let mut refuse = |key: &str, span: Option<std::ops::Range<usize>>, message: &str| {
        if let Some(span) = span {
            sink.value(table.at.key(key), span, message.to_owned(), Some("take it away".to_owned()));
        }
    };
    if row == 0 {
        refuse("max_recovery", span(&table.max_recovery), "the first phase is what later ones are compared with");
    }
    if table.faults.as_ref().is_some_and(|faults| faults.value.0.is_empty()) {
        refuse("max_detection", span(&table.max_detection), "nothing is done in this phase that could be detected");
    }
    if !stage.has_gateway {
        refuse(
            "max_amplification",
            span(&table.max_amplification),
            "upstreams are not this plan's, and do not count for it",
        );
    }
    if bystanders.is_empty() && stage.requests.is_some() {
        let message = "nobody is a bystander here: there is no target whose upstream is well while another is not";
        refuse("max_bystanders_failed", span(&table.max_bystanders_failed), message);
    }
    for (key, bound) in [("max_detection", &table.max_detection), ("max_recovery", &table.max_recovery)] {
        if let (Some(written), Some(bound), Some(slice)) = (bound, value(bound), value(&stage.load.slice))
            && bound.0 < slice.0
        {
            let message = format!("this is measured in slices of {:?}, and is never less than one", slice.0);
            wrong(sink, table.at.key(key), written, message, Some("write slice = \"100ms\" in [load]".to_owned()));
        }
    }
    let Some((length, factor)) = shape.filter(|_| stage.load.from_log.is_none()) else { return };
    let rate = value(&stage.load.rate).filter(|_| value(&stage.load.pace) != Some(PaceWord::Closed));
    let Some(due) = rate.map(|rate| (rate.0 * factor * length.as_secs_f64()).floor()) else { return };
    for (key, span, least) in [("max_p99", span(&table.max_p99), 100.0), ("max_p999", span(&table.max_p999), 1_000.0)] {
        if let Some(span) = span.filter(|_| due < least) {
            let message = format!("{due} requests are due in this phase, and this percentile needs {least} at least");
            sink.value(table.at.key(key), span, message, Some("make it longer, or its rate higher".to_owned()));
        }
    }
}

/// How long requests are judged: the phases' sum, what is left of a log, or what the plan says.
pub(super) fn length(
    load: &file::Load,
    file: &file::File,
    replay: Option<&Replay>,
    warm_up: Duration,
    sink: &mut Sink<'_>,
) -> Option<Duration> {
    let phases = &file.phase.as_ref()?.value.0;
    let lengths: Option<Vec<_>> =
        phases.iter().map(|phase| value(&phase.value.length).map(|length| length.0)).collect();
    let sum: Duration = lengths?.iter().sum();
    if load.from_log.is_some() && replay.is_none() {
        return None;
    }
    let logged = replay.map(|replay| (replay.span() + Duration::from_millis(1)).saturating_sub(warm_up));
    let written = load.length.as_ref()?;
    let wanted = if phases.is_empty() { written.value.0 } else { sum };
    if written.given && !phases.is_empty() && written.value.0 != sum {
        let message = format!("the phases are {sum:?} long together");
        let help = format!("write length = \"{}\", or take it away", in_words(sum));
        wrong(sink, load.at.key("length"), written, message, Some(help));
    }
    let Some(logged) = logged else { return Some(wanted) };
    if logged.is_zero()
        && let Some(written) = &load.warm_up
    {
        wrong(sink, load.at.key("warm_up"), written, "longer than the log".to_owned(), None);
    }
    if wanted > logged && (written.given || !phases.is_empty()) {
        let message = format!("the log has {logged:?} after the warm-up, and {wanted:?} is asked for");
        let path = if phases.is_empty() { load.at.key("length").to_string() } else { "phase".to_owned() };
        let at = phases.first().map_or(written.span.start, |phase| phase.span.start);
        sink.place(path, at, message, Some("make it shorter, or speed lower".to_owned()));
    }
    Some(if written.given || !phases.is_empty() { wanted } else { logged })
}

/// A length of time as a plan writes it, in whole milliseconds or seconds.
fn in_words(time: Duration) -> String {
    let millis = time.as_millis();
    if millis.is_multiple_of(1_000) { format!("{}s", millis / 1_000) } else { format!("{millis}ms") }
}

/// The timeout; the default gives way to the shortest phase, so that what is asked in one is over in the next.
pub(super) fn timeout(load: &file::Load, file: &file::File, sink: &mut Sink<'_>) -> Option<Duration> {
    let written = load.timeout.as_ref()?;
    let phases = &file.phase.as_ref()?.value.0;
    let lengths = phases.iter().filter_map(|phase| Some((value(&phase.value.length)?.0, value(&phase.value.name)?.0)));
    let Some((shortest, name)) = lengths.min() else { return Some(written.value.0) };
    if written.given && written.value.0 > shortest {
        let message =
            format!("longer than the phase {name:?} ({shortest:?}), whose failures would show only in the next");
        let help = format!("write timeout = \"{}\"", in_words(shortest));
        wrong(sink, load.at.key("timeout"), written, message, Some(help));
    }
    Some(written.value.0.min(shortest))
}
