//! All endpoints are out. Nothing can be answered; what is judged is how that is said, what the endpoints are spared, and how soon
//! everything is well again.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::{self, Moment};
use crate::fleet::Fleet;
use crate::gateways::Setup;
use crate::mode::Mode;
use crate::report::{Report, milliseconds, share};
use crate::stage::Stage;
use crate::traffic::Traffic;

const WARM_UP: Duration = Duration::from_secs(3);
/// Requests due until then after a kill may still have met open connections.
const AFTERMATH: Duration = Duration::from_millis(250);
const ANSWER_MAX: Duration = Duration::from_millis(100);
const ATTEMPTS_PER_SECOND_MAX: f64 = 15.0;
const ATTEMPTS_PER_REQUEST_MAX: f64 = 1.3;
/// From the return of services that refused until no request may fail.
const BACK: Duration = Duration::from_millis(300);
/// The same of services that answered 503.
const WELL: Duration = Duration::from_secs(2);
const FIRST_SUCCESS_MAX: Duration = Duration::from_secs(1);

/// Both killed for 10 s, under 500 requests a second.
pub(crate) fn refusing_at_500(stage: &Stage<'_>) -> anyhow::Result<Report> {
    refusing(stage, 500)
}

/// Both killed for 10 s, under 5,000 requests a second.
pub(crate) fn refusing_at_5000(stage: &Stage<'_>) -> anyhow::Result<Report> {
    refusing(stage, 5_000)
}

fn refusing(stage: &Stage<'_>, per_second: u32) -> anyhow::Result<Report> {
    let mut fleet = Fleet::started(2, Duration::ZERO)?;
    let gateway = stage.gateway(&fleet, Setup::default())?;
    let load = stage.load(&gateway, per_second, 5, None)?;
    clock::wait(WARM_UP);
    let killed = clock::now();
    fleet.kill_all();
    clock::wait_until(killed + stage.seconds(10));
    let counted = gateway.refused_attempts();
    let down = clock::now().saturating_sub(killed);
    let returning = clock::now();
    fleet.start_all()?;
    let returned = clock::now();
    clock::wait_until(returned + Duration::from_secs(5));
    let traffic = load.stop()?;
    let (mut report, _) = Report::of(&traffic, &fleet)?;
    let most = counted?.into_iter().max().and_then(|most| u32::try_from(most).ok());
    let refused = traffic.due(killed + AFTERMATH, returning).failed();
    let disorderly = refused.only(|sample| !sample.is_orderly_refusal()).count();
    let late = traffic.only(|sample| sample.due >= returned + BACK).failed().count();
    let per_second = most.map(|most| f64::from(most) / down.as_secs_f64());
    report.tell("requests", traffic.count());
    report.tell("failed while down", refused.count());
    report.within("their p99", refused.latency(0.99), ANSWER_MAX);
    report.none("not 503 + Retry-After", disorderly);
    report.at_most("attempts/s endpoint", per_second, ATTEMPTS_PER_SECOND_MAX, "");
    report.none("failed 300 ms after", late);
    report.tell("last failure after", since(&traffic, returned));
    let p99 = milliseconds(refused.latency(0.99).unwrap_or_default());
    let attempts = per_second.map_or_else(|| "unknown".to_owned(), |attempts| format!("{attempts:.0}"));
    Ok(report.summed_up(format!("p99 {p99}, {attempts} attempts/s and endpoint, {late} failed after the return")))
}

/// How long after `returned` the last request that failed was due.
fn since(traffic: &Traffic, returned: Moment) -> String {
    let last = traffic.failed().0.last().map(|sample| sample.due.saturating_sub(returned));
    last.map_or_else(|| "-".to_owned(), milliseconds)
}

/// Both answer 503 for 10 s, under 500 GETs a second.
pub(crate) fn unavailable(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::started(2, Duration::ZERO)?;
    let gateway = stage.gateway(&fleet, Setup::default())?;
    let load = stage.load(&gateway, 500, 0, None)?;
    clock::wait(WARM_UP);
    let begin = clock::now();
    fleet.tell_all(Mode::Unavailable)?;
    clock::wait_until(begin + stage.seconds(10));
    let end = clock::now();
    fleet.tell_all(Mode::Fine)?;
    let returned = clock::now();
    clock::wait_until(returned + Duration::from_secs(6));
    let traffic = load.stop()?;
    let (mut report, times) = Report::of(&traffic, &fleet)?;
    let per_request = attempts_per_request(&traffic.due(begin, end), &times);
    let first = first_success(&traffic, returned);
    let late = traffic.only(|sample| sample.due >= returned + WELL).failed().count();
    report.tell("requests", traffic.count());
    report.at_most("attempts/request", per_request, ATTEMPTS_PER_REQUEST_MAX, "");
    report.within("first success after", first, FIRST_SUCCESS_MAX);
    report.none("failed 2 s after", late);
    report.tell("last failure after", since(&traffic, returned));
    let attempts = per_request.unwrap_or_default();
    let first = first.map_or_else(|| "never".to_owned(), milliseconds);
    Ok(report.summed_up(format!("{attempts:.2} attempts a request, first success after {first}, {late} failed later")))
}

/// How often services were asked for each of these requests, on average.
fn attempts_per_request(traffic: &Traffic, times: &HashMap<u64, u32>) -> Option<f64> {
    let attempts: u32 = traffic.0.iter().filter_map(|sample| times.get(&sample.id)).sum();
    share(attempts as usize, traffic.count())
}

/// From `returned` to the end of the first success after it.
fn first_success(traffic: &Traffic, returned: Moment) -> Option<Duration> {
    let ends = traffic.0.iter().filter(|sample| sample.is_fine()).map(|sample| sample.due + sample.latency);
    ends.filter(|end| *end >= returned).min().map(|end| end.saturating_sub(returned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::{End, Sample};

    fn sample(id: u64, due_s: u64, status: u16) -> Sample {
        let end = End::Answer { status, has_retry_after: true };
        let (late, latency) = (Duration::ZERO, Duration::from_millis(500));
        Sample { id, is_post: false, due: Duration::from_secs(due_s), late, latency, end }
    }

    #[test]
    fn attempts_are_counted_where_they_arrive() {
        let traffic = Traffic(vec![sample(1, 1, 503), sample(2, 2, 503)]);
        assert_eq!(attempts_per_request(&traffic, &HashMap::from([(1, 3), (9, 7)])), Some(1.5));
        assert_eq!(attempts_per_request(&Traffic::default(), &HashMap::new()), None);
    }

    #[test]
    fn the_first_success_is_one_that_ends_after_the_return() {
        let traffic = Traffic(vec![sample(1, 1, 200), sample(2, 4, 503), sample(3, 5, 200), sample(4, 6, 200)]);
        assert_eq!(first_success(&traffic, Duration::from_secs(4)), Some(Duration::from_millis(1_500)));
        assert_eq!(first_success(&traffic, Duration::from_secs(9)), None);
        assert_eq!(since(&traffic, Duration::from_secs(3)), "1.00 s");
    }
}
