//! `result.json`: what was asked for, what was seen, and what follows from it.
//!
//! Histograms are kept whole (HdrHistogram's V2 encoding with deflate, in base64, in nanoseconds), so that results of several generators can
//! be merged and every verdict made again. Times are seconds, rates are requests a second. What is `null` where a time stands never came: a
//! percentile that falls among failures has no value, and is shown as ∞.

use crate::plan::Thresholds;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of this page. It grows by one when a field changes its meaning or goes; a new one may come without.
pub const SCHEMA: u32 = 1;

/// All of one command's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// [`SCHEMA`] of who wrote it.
    pub schema: u32,
    /// Version of ringgate-load.
    pub tool: String,
    /// `run`, `curve`, `capacity`, `drill`, `size` or `peers`.
    pub command: String,
    /// What it is about, for a heading: "Capacity of http://127.0.0.1:8080/ at p99 < 5 ms".
    pub title: String,
    /// Seconds since 1970, UTC.
    pub started: f64,
    /// The same.
    pub finished: f64,
    /// It was ended early (Ctrl-C): what is there is true, and not all.
    pub is_partial: bool,
    /// Everything random came from this.
    pub seed: u64,
    /// Where it ran.
    pub environment: Environment,
    /// What was offered.
    pub load: Described,
    /// The plan's text, if there was one.
    pub plan: Option<PlanText>,
    /// What had to hold: of the plan, and of `--thresholds`, which goes before it.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// Every trial and run, in the order in which they were made.
    pub runs: Vec<Run>,
    /// Of `capacity` and `size`.
    pub capacity: Option<Capacity>,
    /// Of `curve`: rows of [`Outcome::runs`] in ascending rate, through the gateway and directly at the upstream.
    pub curve: Option<Curve>,
    /// Of `drill`: one a gateway.
    pub drills: Vec<Drill>,
    /// Of `peers`.
    pub peers: Option<Peers>,
    /// Of `size`.
    pub sizing: Option<Sizing>,
    /// May the numbers be believed? One that does not hold makes the result INVALID.
    pub gates: Vec<Gate>,
    /// Thresholds, and whether they were met.
    pub verdicts: Vec<Verdict>,
    /// What a reader should know besides.
    pub remarks: Vec<String>,
    /// Gateways that were started for this and have ended before its end, and how.
    #[serde(default)]
    pub died: Vec<String>,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub host: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// Cores that this process may run on.
    pub cores: Vec<usize>,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Cores of the generator's threads.
    pub generator_cores: Vec<usize>,
    /// Cores of the gateway under test, where it was started by the tool.
    pub gateway_cores: Vec<usize>,
    /// Cores of upstreams that were started by the tool.
    pub upstream_cores: Vec<usize>,
    /// Seconds since 1970 by this machine at its monotonic clock's zero: where results of one machine differ in it, its clock was set in between.
    pub clock_offset: f64,
}

/// A load, in words and numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// Where it went, as the user wrote it.
    pub url: String,
    /// `poisson`, `even`, `recorded` or `closed`.
    pub pace: String,
    /// Connections at the start.
    pub connections: usize,
    /// Connections at most.
    pub connections_max: usize,
    /// One request a connection.
    pub reconnects: bool,
    /// What is spoken, such as `HTTP/1.1 over TLS`; empty in results of earlier versions, which knew nothing but HTTP/1.1.
    #[serde(default)]
    pub protocol: String,
    /// From the due time, seconds.
    pub timeout: f64,
    /// The mix.
    pub targets: Vec<DescribedTarget>,
}

/// One of a mix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DescribedTarget {
    /// Its name.
    pub name: String,
    /// Method and path.
    pub request: String,
    /// Its part of all requests, 0 to 1.
    pub share: f64,
    /// Bytes of its body.
    pub body_bytes: usize,
}

/// A plan as it was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanText {
    /// The file's name, without its folder.
    pub name: String,
    /// What was in it.
    pub text: String,
}

/// Label of a run that says nothing, because the machine spoiled it; another one was made instead.
pub const SPOILED: &str = "spoiled";

/// One load on one server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// What it was for: `run`, `short`, `full`, `direct`, `warm-up`, `drill`, `round 3` …; or [`SPOILED`].
    pub label: String,
    /// Whom it went to: `ringgate`, `nginx`, …, `upstream`, or the address.
    pub server: String,
    /// Requests a second that were to be offered; `None`: closed loop.
    pub rate: Option<f64>,
    /// Seconds over which requests were due that are judged.
    pub length: f64,
    /// When the first of them was due: seconds since 1970, UTC, by the generator's clock; 0 in results of earlier versions.
    #[serde(default)]
    pub began: f64,
    /// Judged requests that were due, and have ended.
    pub due: u64,
    /// Of those, answered as they should be.
    pub good: u64,
    /// Requests that were under way when a run was ended early, which are not among `due`: what would have become of them is not known.
    #[serde(default)]
    pub unfinished: u64,
    /// The others of those due, by [`crate::wire::Failure`]'s name.
    pub failures: BTreeMap<String, u64>,
    /// Answers by status, good and not.
    pub statuses: BTreeMap<u16, u64>,
    /// From due time to last byte, failures as ∞.
    pub latency: Spectrum,
    /// From when it was really sent; what a closed-loop tool would have said.
    pub uncorrected: Spectrum,
    /// How late requests were begun by the generator.
    pub lag: Spectrum,
    /// By slices of time, from the first judged request.
    pub series: Vec<Slice>,
    /// By target of the mix.
    pub targets: Vec<TargetCount>,
    /// Requests that waited because every connection was busy and no more were allowed.
    pub waited: u64,
    /// Connections that were opened, with those of the start.
    pub connections_opened: u64,
    /// Connections of the start that could not be, because this machine had no descriptor or port.
    #[serde(default)]
    pub connections_unopened: u64,
    /// TLS that was agreed on, where it is spoken.
    #[serde(default)]
    pub handshakes: Option<Handshakes>,
    /// Bytes of requests.
    pub sent_bytes: u64,
    /// Bytes of responses.
    pub received_bytes: u64,
    /// Part of its time in which the busiest generator thread worked, 0 to 1.
    pub generator_busy: f64,
    /// CPU seconds of all generator threads.
    pub generator_cpu: f64,
    /// Its threads had real-time priority: whoever else used their cores did not make them late.
    #[serde(default)]
    pub generator_realtime: bool,
    /// Share of the time in which one of this machine's cores stood still, the worst of them; `None`: that cannot be told here.
    #[serde(default)]
    pub stood_still: Option<f64>,
    /// CPU that the hypervisor gave to others, 0 to 1, while this ran.
    pub steal: f64,
    /// Requests in flight on average, measured over time.
    pub in_flight: f64,
    /// At most.
    pub in_flight_max: u64,
    /// CPU seconds of the server, where its process is known, all its threads and those the kernel runs for it.
    pub server_cpu: Option<f64>,
    /// Resident bytes of the server at the end, where its process is known.
    pub server_resident: Option<u64>,
    /// Why a trial of a search did not pass; `None`: it did, or it was none.
    pub refused: Option<String>,
}

/// TLS handshakes that ended well; one that failed is a failure of its request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handshakes {
    /// Of connections, those of the start and of the warm-up included.
    pub all: u64,
    /// Of those, such as went on with an earlier session.
    pub resumed: u64,
    /// From the first byte of TLS until requests may go. Those of the start are many at once.
    pub times: Spectrum,
}

/// A distribution of times in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// How many there are, failures included.
    pub count: u64,
    /// Of those, failures: ∞.
    pub infinite: u64,
    /// Of those that came.
    pub mean: Option<f64>,
    /// Half are not above this; `None`: ∞, or there are none.
    pub p50: Option<f64>,
    /// The same for 90 %.
    pub p90: Option<f64>,
    /// The same for 99 %.
    pub p99: Option<f64>,
    /// The same for 99.9 %.
    pub p999: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// The histogram, without failures.
    pub histogram: String,
}

/// A part of a run's time. Requests count where they were due.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Its start, seconds from the first judged moment.
    pub at: f64,
    /// Its length, seconds.
    pub length: f64,
    /// Requests due.
    pub due: u64,
    /// Of those, good.
    pub good: u64,
    /// Of all due, failures as ∞; `None`: ∞, or none.
    pub p50: Option<f64>,
    /// The same.
    pub p99: Option<f64>,
    /// Of those that came.
    pub max: Option<f64>,
    /// Of those that came.
    pub mean: Option<f64>,
    /// 99th percentile of the good ones alone.
    pub good_p99: Option<f64>,
    /// Requests in flight on average.
    pub in_flight: f64,
}

/// One target's part in a run, by phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetCount {
    /// Its name.
    pub name: String,
    /// By phase of the run (one, where there are none).
    pub phases: Vec<PhaseCount>,
}

/// What became of requests that were due in a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseCount {
    /// Requests due.
    pub due: u64,
    /// Of those, good.
    pub good: u64,
    /// The others, by kind.
    pub failures: BTreeMap<String, u64>,
    /// Failures as ∞.
    pub latency: Spectrum,
}

/// A bracket of capacity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Of the percentile: 0.99.
    pub quantile: f64,
    /// Its bound, seconds.
    pub bound: f64,
    /// Failures among all requests that are allowed.
    pub failures: f64,
    /// Highest rate that was shown to hold; `None`: none did.
    pub holds: Option<f64>,
    /// Lowest rate that was shown not to; `None`: the search ended at its upper limit.
    pub breaks: Option<f64>,
    /// Wanted width of the bracket, as a share.
    pub width: f64,
    /// Of how many full trials at `holds` how many passed.
    pub passed_at_holds: (u32, u32),
    /// The same at `breaks`.
    pub passed_at_breaks: (u32, u32),
    /// What broke first at `breaks`.
    pub because: Option<String>,
}

/// Latency against rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Rows of runs through the gateway.
    pub through: Vec<usize>,
    /// Rows of runs at the upstream itself.
    pub direct: Vec<usize>,
    /// Fit of the universal scalability law over workers, or why there is none.
    pub scalability: Option<String>,
}

/// What a gateway did in a fault drill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drill {
    /// `ringgate`, `nginx`, …
    pub gateway: String,
    /// Row of the run.
    pub run: usize,
    /// In the order of the plan.
    pub phases: Vec<Phase>,
    /// Numbers of the gateway itself (`/metrics`) at the end, where it has some: name with labels, and value.
    pub metrics: BTreeMap<String, f64>,
}

/// A part of a drill with its faults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// What was done to whom at its start: "upstream 1: killed".
    pub faults: Vec<String>,
    /// Seconds from the first judged moment.
    pub at: f64,
    /// Seconds.
    pub length: f64,
    /// What became of its requests: those that were due in it, but one that failed after a later phase had begun with harm counts there.
    pub count: PhaseCount,
    /// From the start of the phase to the end of the last slice of the series in which a failed request was due; 0 when there is none, `None` when
    /// it went on to the end.
    pub detection: Option<f64>,
    /// From the phase's start until latency and success are as in the first phase; `None`: never within the phase.
    pub recovery: Option<f64>,
    /// Requests that upstreams saw for each that clients made.
    pub amplification: Option<f64>,
    /// In flight at most.
    pub in_flight_max: u64,
    /// Failures of targets that have no faulty upstream.
    pub bystanders_failed: Option<u64>,
    /// Thresholds of this phase.
    pub verdicts: Vec<Verdict>,
}

/// Gateways side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// Requests a second, offered to each.
    pub rate: f64,
    /// One a gateway.
    pub peers: Vec<Peer>,
    /// Every one against the first.
    pub ratios: Vec<Ratio>,
}

/// One gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// `ringgate`, `nginx`, …
    pub name: String,
    /// As it says itself.
    pub version: String,
    /// Rows of its runs.
    pub runs: Vec<usize>,
    /// CPU microseconds per good request: median, and interval of 95 %.
    pub cpu: Interval,
    /// Seconds: median of its runs' 99th percentiles; `None`: ∞.
    pub p99: Option<f64>,
    /// Failures among all requests.
    pub failures: f64,
    /// Resident bytes at the end.
    pub resident: Option<u64>,
}

/// One gateway against another, in pairs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Above the line.
    pub of: String,
    /// Below it.
    pub to: String,
    /// CPU per good request, above by below.
    pub cpu: Interval,
    /// `better`, `worse` or `no difference shown`.
    pub verdict: String,
}

/// A value with what it may be with 95 % confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Best guess.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// How many hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sizing {
    /// Requests a second at the peak.
    pub peak: f64,
    /// Hosts that may fail at once.
    pub survive: u32,
    /// Requests a second that one host is planned to take.
    pub planned: f64,
    /// Why so many: "three quarters of capacity" or "p99 is half of the bound there".
    pub planned_by: String,
    /// Hosts.
    pub hosts: u64,
    /// Requests a second of each, all well.
    pub each: f64,
    /// The same with `survive` hosts gone.
    pub each_after_failures: f64,
    /// Rows for other numbers of failures: failures, hosts, and requests a second of each after them.
    pub table: Vec<(u32, u64, f64)>,
    /// Row of the run at `each_after_failures` that confirms it, if it could be made.
    pub confirmed: Option<usize>,
}

/// Something that has to hold for a number to be believed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// What: "schedule lag", "generator busy", "Little's law", "CPU steal", "upstream headroom", "connections".
    pub name: String,
    /// It does.
    pub holds: bool,
    /// As measured, in words: "p99.9 of 38 µs".
    pub measured: String,
    /// What it should be: "at most 500 µs, a tenth of the bound".
    pub wanted: String,
    /// What to do when it does not hold.
    pub advice: String,
}

/// A threshold, and whether it was met.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What: "failed requests while one endpoint is dead".
    pub name: String,
    /// It was.
    pub passed: bool,
    /// As measured, in words.
    pub measured: String,
    /// What was asked for.
    pub wanted: String,
}

impl Outcome {
    /// Nothing that was measured may be believed when this is false.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.gates.iter().all(|gate| gate.holds)
    }

    /// Verdicts of the whole and of all phases.
    pub fn all_verdicts(&self) -> impl Iterator<Item = &Verdict> {
        let of_phases = self.drills.iter().flat_map(|drill| &drill.phases).flat_map(|phase| &phase.verdicts);
        self.verdicts.iter().chain(of_phases)
    }

    /// A gateway under test has ended by itself: nothing that was seen of it says anything.
    pub fn gateway_died(&mut self, name: &str, how: &str) {
        let told = format!("{name}: {how}");
        if self.died.contains(&told) {
            return;
        }
        self.died.push(told);
        self.gates.push(Gate {
            name: format!("{name} lives"),
            holds: false,
            measured: format!("it has ended: {how}"),
            wanted: "running to the end".to_owned(),
            advice: "look at what it has said".to_owned(),
        });
    }

    /// What the process ends with: 0, 1 when a threshold was missed, 3 when a gate did not hold, or when it was ended early and nothing was
    /// missed until then (who was told half of what was asked for may not take it for a success), 4 when a gateway has died.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match () {
            () if !self.died.is_empty() => 4,
            () if !self.is_valid() => 3,
            () if self.all_verdicts().any(|verdict| !verdict.passed) => 1,
            () if self.is_partial => 3,
            () => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_that_was_seen_decides_the_exit_code() {
        let mut outcome = Outcome::default();
        assert_eq!(outcome.exit_code(), 0);
        outcome.verdicts.push(Verdict::default());
        assert_eq!(outcome.exit_code(), 1);
        assert_eq!(Outcome { is_partial: true, ..Outcome::default() }.exit_code(), 3, "ended early is no success");
        assert_eq!(Outcome { is_partial: true, ..outcome.clone() }.exit_code(), 1, "what was missed was missed");
        outcome.gates.push(Gate::default());
        assert_eq!(outcome.exit_code(), 3);
        outcome.gateway_died("nginx", "killed");
        assert_eq!((outcome.exit_code(), outcome.is_valid()), (4, false));
    }
}
