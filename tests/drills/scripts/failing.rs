//! A service that fails now and then, which no connection error gives away.

use std::time::Duration;

use crate::clock::{self, Moment};
use crate::fleet::Fleet;
use crate::gateways::Setup;
use crate::journal::Entry;
use crate::mode::Mode;
use crate::report::{Report, milliseconds, share};
use crate::stage::Stage;

/// What `[upstream.x] slow_start` is set to.
const SLOW_START: Duration = Duration::from_secs(3);
/// Until its share must be even again: twice the ramp, and three seconds.
const SETTLED: Duration = SLOW_START.saturating_mul(2).saturating_add(Duration::from_secs(3));
/// Over what a share is measured: long enough for chance to stay within a few percent of even.
const WINDOW: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(500);
/// "Within 10 %" of an even share.
const EVEN: std::ops::RangeInclusive<f64> = 0.45..=0.55;

/// One of two answers 500 to every second request for 25 s; 500 is retried, and ejections are short.
pub(crate) fn half_of_one(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::started(2, Duration::from_millis(5))?;
    let gateway = stage.gateway(&fleet, Setup { retries_500: true, ..Setup::default() })?;
    let load = stage.load(&gateway, 600, 0, None)?;
    clock::wait(Duration::from_secs(3));
    let begin = clock::now();
    fleet.at(0).tell(Mode::HalfErrors)?;
    clock::wait_until(begin + stage.seconds(25));
    fleet.at(0).tell(Mode::Fine)?;
    let end = clock::now();
    clock::wait_until(end + SETTLED + WINDOW + Duration::from_secs(1));
    let traffic = load.stop()?;
    let last = end + SETTLED + WINDOW;
    let (mut report, _) = Report::of(&traffic, &fleet)?;
    let journals = fleet.journals()?;
    let during = traffic.due(begin, end);
    let errors = share(during.failed().count(), during.count()).map(|share| share * 100.0);
    let even_after = even_after(&journals, end, last);
    report.tell("requests", traffic.count());
    report.at_most("errors", errors, 0.1, " %");
    report.none("failed afterwards", traffic.due(end, last).failed().count());
    report.tell("share while failing", percent(share_of_first(&journals, begin, end)));
    report.tell("share 2 s after", percent(share_of_first(&journals, end + WINDOW - STEP * 2, end + WINDOW)));
    report.within("even again after", even_after, SETTLED);
    let again =
        even_after.map_or_else(|| "not even again".to_owned(), |t| format!("even again after {}", milliseconds(t)));
    Ok(report.summed_up(format!("{:.2} % errors, {again}", errors.unwrap_or_default())))
}

/// How long after `end` the first endpoint's share is even and stays so until `last`.
fn even_after(journals: &[Vec<Entry>], end: Moment, last: Moment) -> Option<Duration> {
    let starts =
        std::iter::successors(Some(end), |start| Some(*start + STEP)).take_while(|start| *start + WINDOW <= last);
    let mut even_since = None;
    for start in starts {
        let is_even = share_of_first(journals, start, start + WINDOW).is_some_and(|share| EVEN.contains(&share));
        even_since = if is_even { even_since.or(Some(start)) } else { None };
    }
    even_since.map(|since| since.saturating_sub(end))
}

/// The first endpoint's part of all that services were asked between `begin` and `end`.
fn share_of_first(journals: &[Vec<Entry>], begin: Moment, end: Moment) -> Option<f64> {
    let counts = journals.iter().map(|entries| entries.iter().filter(|entry| (begin..end).contains(&entry.at)).count());
    let counts: Vec<_> = counts.collect();
    share(*counts.first()?, counts.iter().sum())
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", share * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 requests a second; the first endpoint has none before `back`, and every `period`-th from then on.
    fn journals(back: Duration, period: u64) -> Vec<Vec<Entry>> {
        let entry = |number: u64| Entry {
            id: number,
            at: Duration::from_secs(100) + Duration::from_millis(number * 5),
            status: 200,
            is_post: false,
        };
        let is_first = |entry: &Entry| entry.at >= Duration::from_secs(100) + back && entry.id.is_multiple_of(period);
        let (first, second) = (0..2_400).map(entry).partition(is_first);
        vec![first, second]
    }

    #[test]
    fn a_share_is_even_once_it_stays_even() {
        let (end, last) = (Duration::from_secs(100), Duration::from_secs(112));
        assert_eq!(even_after(&journals(Duration::ZERO, 2), end, last), Some(Duration::ZERO));
        let late = even_after(&journals(Duration::from_secs(4), 2), end, last).expect("it comes back");
        assert!(late > Duration::from_secs(3) && late <= Duration::from_secs(4), "{late:?}");
        assert_eq!(even_after(&journals(Duration::ZERO, 3), end, last), None, "a third is not even");
        assert_eq!(even_after(&journals(Duration::from_secs(30), 2), end, last), None, "it never came back");
    }
}
