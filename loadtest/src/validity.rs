//! May a number be believed? Each gate says what was measured, what it should be, and what to do.

use crate::measure::Bound;
use crate::result::{Gate, Run};
use crate::units::{digits, shown};
use crate::wire::Failure;

/// A generator thread that works more than this of its time is near its own limit.
const BUSY_MAX: f64 = 0.8;
/// CPU that others may take from this machine.
const STEAL_MAX: f64 = 0.02;
/// A core may stand still for this part of the requests that may be slower than the percentile: those that wait until the queue is gone
/// again are more than those that came meanwhile.
const STANDSTILL_OF_TAIL: f64 = 0.25;
/// The percentile where none is held against a bound.
const STANDSTILL_ANYWAY: f64 = 0.01;
/// Little's law holds so well, or something is counted wrongly.
const LITTLE_MAX: f64 = 0.05;
/// Share of requests that may wait for a connection.
const WAITED_MAX: f64 = 0.01;
/// Lateness that is always fine, in seconds: the precision of a wake-up.
const LAG_ALWAYS: f64 = 100e-6;
/// Where there is no bound to hold it against.
const LAG_ANYWAY: f64 = 1e-3;
/// Requests below which averages say nothing of Little's law.
const LITTLE_MIN: u64 = 1_000;

/// All gates of `runs`, judged by the worst of them. `bound` is what latencies are held against.
#[must_use]
pub fn gates(runs: &[&Run], bound: Option<Bound>) -> Vec<Gate> {
    gates_with(runs, runs, bound)
}

/// The same of trials. What was sent late or on a machine that others used counts from when it was due, so a trial that has passed all the same
/// is beyond that doubt: only for one that has not is it asked whose fault it was.
#[must_use]
pub fn gates_of_trials(trials: &[&Run], bound: Bound) -> Vec<Gate> {
    let failed: Vec<&Run> = trials.iter().copied().filter(|run| run.refused.is_some()).collect();
    gates_with(trials, &failed, Some(bound))
}

fn gates_with(runs: &[&Run], timed: &[&Run], bound: Option<Bound>) -> Vec<Gate> {
    let mut gates = Vec::new();
    if !timed.is_empty() {
        gates.extend([lag(timed, bound), steal(timed)]);
        gates.extend(standstill(timed, bound));
    }
    gates.extend([busy(runs), own_resources(runs)]);
    gates.extend(little(runs));
    gates.extend(connections(runs));
    gates
}

/// Of the upstream itself, asked without the gateway at half as much again as the gateway took: is it what limits?
#[must_use]
pub fn headroom(direct: &Run, bound: f64) -> Gate {
    let rate = direct.rate.unwrap_or_default();
    let p99 = direct.latency.p99.unwrap_or(f64::INFINITY);
    Gate {
        name: "upstream headroom".to_owned(),
        holds: p99 <= bound / 2.0,
        measured: format!("p99 of {} at {} requests/s without the gateway", shown(p99), digits(rate)),
        wanted: format!("at most {}, half of the bound", shown(bound / 2.0)),
        advice:
            "the upstream or this machine is the limit, not the gateway: give upstreams more cores or a cheaper answer"
                .to_owned(),
    }
}

/// What of the machine, and not of the server, spoiled a run, if another one may be better: somebody took the generator's CPU. A generator
/// that is at its own limit is late every time.
#[must_use]
pub fn spoiled(run: &Run, bound: Option<Bound>) -> Option<String> {
    let runs = [run];
    if run.rate.is_none() || !busy(&runs).holds {
        return None;
    }
    let gates = [steal(&runs), lag(&runs, bound)].into_iter().chain(standstill(&runs, bound));
    let spoils = gates.into_iter().find(|gate| !gate.holds)?;
    Some(format!("{}: {}", spoils.name, spoils.measured))
}

/// No trial could be made that was not spoiled.
#[must_use]
pub fn restless(why: &str) -> Gate {
    Gate {
        name: "quiet machine".to_owned(),
        holds: false,
        measured: format!("one run after the other was spoiled: {why}"),
        wanted: "a run that is not".to_owned(),
        advice: "others use this machine, or its cores are stopped: measure on a quiet host, or later, or ask for less than the limit, of which \
                 what a stopped core leaves behind is gone soon (--max-rate at half of the rate that was tried)"
            .to_owned(),
    }
}

fn worst(runs: &[&Run], of: impl Fn(&Run) -> f64) -> f64 {
    runs.iter().map(|run| of(run)).fold(0.0, f64::max)
}

fn lag(runs: &[&Run], bound: Option<Bound>) -> Gate {
    let late = worst(runs, |run| run.lag.p999.unwrap_or(0.0));
    let (limit, why) = match bound.map(|bound| bound.time) {
        Some(bound) if bound / 10.0 > LAG_ALWAYS => (bound / 10.0, "a tenth of the bound"),
        Some(_) => (LAG_ALWAYS, "the precision of a wake-up"),
        None => (LAG_ANYWAY, "there is no bound to hold it against"),
    };
    Gate {
        name: "schedule lag".to_owned(),
        holds: late <= limit,
        measured: format!("p99.9 of {}", shown(late)),
        wanted: format!("at most {}: {why}", shown(limit)),
        advice: if runs.iter().all(|run| run.generator_realtime) {
            "the generator sent late: give it a core of its own, or another host".to_owned()
        } else {
            "the generator sent late: give it a core of its own, real-time priority (chrt -f 1), or another host"
                .to_owned()
        },
    }
}

fn busy(runs: &[&Run]) -> Gate {
    let busy = worst(runs, |run| if run.rate.is_some() { run.generator_busy } else { 0.0 });
    Gate {
        name: "generator busy".to_owned(),
        holds: busy < BUSY_MAX,
        measured: format!("{:.0} % of the busiest thread's time", busy * 100.0),
        wanted: format!("below {:.0} %", BUSY_MAX * 100.0),
        advice: "add generator cores (--cores) or hosts: it measures itself otherwise".to_owned(),
    }
}

fn steal(runs: &[&Run]) -> Gate {
    let steal = worst(runs, |run| run.steal);
    Gate {
        name: "CPU steal".to_owned(),
        holds: steal < STEAL_MAX,
        measured: format!("{:.1} % of the machine's time", steal * 100.0),
        wanted: format!("below {:.0} %", STEAL_MAX * 100.0),
        advice: "other guests of this host took the CPU: measure on a quiet host".to_owned(),
    }
}

fn standstill(runs: &[&Run], bound: Option<Bound>) -> Option<Gate> {
    let share = runs.iter().filter_map(|run| run.stood_still).reduce(f64::max)?;
    let limit = bound.map_or(STANDSTILL_ANYWAY, |bound| (1.0 - bound.quantile) * STANDSTILL_OF_TAIL);
    Some(Gate {
        name: "standstill".to_owned(),
        holds: share <= limit,
        measured: format!("a core stood still for {:.2} % of the time", share * 100.0),
        wanted: format!("at most {:.2} %", limit * 100.0),
        advice: "the hypervisor or the kernel stopped a core, whoever ran there: measure on a quiet host".to_owned(),
    })
}

fn own_resources(runs: &[&Run]) -> Gate {
    let count: u64 = runs.iter().filter_map(|run| run.failures.get(Failure::Local.name())).sum();
    let unopened = runs.iter().map(|run| run.connections_unopened).max().unwrap_or(0);
    let connections = if unopened == 0 { String::new() } else { format!(", and {unopened} connections of the start") };
    Gate {
        name: "own resources".to_owned(),
        holds: count == 0 && unopened == 0,
        measured: format!("{count} requests without a descriptor, port or memory here{connections}"),
        wanted: "none".to_owned(),
        advice: "raise ulimit -n, or keep connections open: ports of closed ones are taken for a minute".to_owned(),
    }
}

/// Requests in flight = arrivals a second × time in flight (Little 1961), which holds whatever the distributions are.
fn little(runs: &[&Run]) -> Option<Gate> {
    let off = |run: &&&Run| {
        let (mean, lag) = (run.latency.mean?, run.lag.mean.unwrap_or(0.0));
        let failed = 1.0 - run.good as f64 / run.due.max(1) as f64;
        let expected = run.due as f64 / run.length * (mean - lag).max(0.0);
        // the time of a failure is not known, and the last answers fall behind the end
        let is_comparable = run.rate.is_some() && run.due >= LITTLE_MIN && failed < 0.001 && mean * 50.0 < run.length;
        is_comparable.then(|| ((run.in_flight - expected).abs() / expected.max(0.1), run.in_flight, expected))
    };
    let (share, seen, expected) =
        runs.iter().filter_map(|run| off(&run)).max_by(|one, other| one.0.total_cmp(&other.0))?;
    Some(Gate {
        name: "Little's law".to_owned(),
        holds: share <= LITTLE_MAX,
        measured: format!("{} in flight, {} expected of rate and latency", digits(seen), digits(expected)),
        wanted: format!("within {:.0} %", LITTLE_MAX * 100.0),
        advice: "requests are counted wrongly or the machine stood still: repeat, and report it if it stays".to_owned(),
    })
}

fn connections(runs: &[&Run]) -> Option<Gate> {
    let paced: Vec<_> = runs.iter().filter(|run| run.rate.is_some() && run.refused.is_none()).collect();
    let share = paced
        .iter()
        .map(|run| run.waited as f64 / run.due.max(1) as f64)
        .fold(None, |max: Option<f64>, share| Some(max.map_or(share, |max| max.max(share))))?;
    Some(Gate {
        name: "connections".to_owned(),
        holds: share <= WAITED_MAX,
        measured: format!("{:.2} % of requests waited for one", share * 100.0),
        wanted: format!("at most {:.0} %", WAITED_MAX * 100.0),
        advice: "allow more connections (connections_max): real clients would open them".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Spectrum;

    const BOUND: Bound = Bound { quantile: 0.99, time: 0.005, failures: 1e-4 };

    fn run() -> Run {
        let latency = Spectrum { mean: Some(0.002), p99: Some(0.004), count: 20_000, ..Spectrum::default() };
        Run { rate: Some(2_000.0), length: 10.0, due: 20_000, good: 20_000, in_flight: 4.0, latency, ..Run::default() }
    }

    fn failing(run: &Run, bound: Option<Bound>) -> Vec<String> {
        gates(&[run], bound).into_iter().filter(|gate| !gate.holds).map(|gate| gate.name).collect()
    }

    #[test]
    fn each_gate_closes_for_its_reason_alone() {
        assert_eq!(failing(&run(), Some(BOUND)), Vec::<String>::new());
        let lag = Spectrum { p999: Some(0.000_6), ..Spectrum::default() };
        for (name, run) in [
            ("schedule lag", Run { lag, ..run() }),
            ("generator busy", Run { generator_busy: 0.85, ..run() }),
            ("CPU steal", Run { steal: 0.03, ..run() }),
            ("standstill", Run { stood_still: Some(0.003), ..run() }),
            ("own resources", Run { failures: [("local".to_owned(), 1)].into(), ..run() }),
            ("own resources", Run { connections_unopened: 40, ..run() }),
            ("Little's law", Run { in_flight: 4.3, ..run() }),
            ("connections", Run { waited: 300, ..run() }),
        ] {
            assert_eq!(failing(&run, Some(BOUND)), [name]);
        }
        let late = Spectrum { p999: Some(0.000_6), ..Spectrum::default() };
        assert!(failing(&Run { lag: late, ..run() }, None).is_empty(), "without a bound a millisecond is fine");
        let still = Run { stood_still: Some(0.003), ..run() };
        assert!(
            failing(&still, None).is_empty()
                && failing(&Run { stood_still: Some(0.002), ..run() }, Some(BOUND)).is_empty()
        );
    }

    #[test]
    fn a_trial_that_passed_although_it_was_sent_late_is_not_in_doubt() {
        let lag = Spectrum { p999: Some(0.000_6), ..Spectrum::default() };
        let passed = Run { lag, steal: 0.03, ..run() };
        let failed = Run { refused: Some("p99 is 6 ms".to_owned()), ..run() };
        let closed = |trials: &[&Run]| {
            let gates = gates_of_trials(trials, BOUND).into_iter();
            gates.filter(|gate| !gate.holds).map(|gate| gate.name).collect::<Vec<_>>()
        };
        assert!(closed(&[&passed]).is_empty() && closed(&[&passed, &failed]).is_empty());
        let doubted = Run { refused: failed.refused.clone(), ..passed.clone() };
        assert_eq!(closed(&[&passed, &doubted]), ["schedule lag", "CPU steal"]);
    }

    #[test]
    fn a_run_is_spoiled_by_others_and_not_by_its_own_limit() {
        let lag = || Spectrum { p999: Some(0.000_6), ..Spectrum::default() };
        let late = Run { lag: lag(), ..run() };
        assert_eq!(spoiled(&late, Some(BOUND)).as_deref(), Some("schedule lag: p99.9 of 600 µs"));
        assert!(spoiled(&Run { steal: 0.03, ..run() }, None).is_some_and(|why| why.starts_with("CPU steal")));
        for fine in [
            run(),
            Run { generator_busy: 0.9, ..late.clone() },
            Run { rate: None, ..late.clone() },
            Run { waited: 300, ..run() },
        ] {
            assert_eq!(spoiled(&fine, Some(BOUND)), None);
        }
    }

    #[test]
    fn an_upstream_has_headroom_at_half_of_the_bound() {
        assert!(headroom(&run(), 0.008).holds && !headroom(&run(), 0.007).holds);
        let failing = Run { latency: Spectrum::default(), ..run() };
        assert!(!headroom(&failing, 1.0).holds, "a percentile of ∞ is none");
    }
}
