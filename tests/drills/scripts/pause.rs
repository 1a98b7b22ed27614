//! A service that refuses somebody (429) and says when that one may come back. Others have nothing to do with it.

use std::time::Duration;

use crate::clock;
use crate::fleet::Fleet;
use crate::gateways::Setup;
use crate::journal::Entry;
use crate::mode::Mode;
use crate::report::{Report, share};
use crate::stage::Stage;
use crate::traffic::Traffic;

const REFUSALS: u32 = 2;
const REQUESTS: usize = 3_000;
/// How long the refusals may take to happen.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of three answers two 429 with `Retry-After: 30`. Requests take 50 ms, so that fifty are under way and in-flight counts mean
/// something: chance alone would often be 5 % off.
pub(crate) fn two_refusals(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::started(3, Duration::from_millis(50))?;
    let gateway = stage.gateway(&fleet, Setup::default())?;
    let load = stage.load(&gateway, 1_000, 0, None)?;
    clock::wait(Duration::from_secs(2));
    fleet.at(1).tell(Mode::TooMany { answers: REFUSALS, retry_after_s: 30 })?;
    let deadline = clock::now() + PATIENCE;
    let is_refusal = |entry: &&Entry| entry.status == 429;
    while fleet.at(1).entries()?.iter().filter(is_refusal).count() < REFUSALS as usize {
        anyhow::ensure!(clock::now() < deadline, "the second endpoint was not asked");
        clock::wait(Duration::from_millis(10));
    }
    // their answers are on their way
    let begin = clock::now() + Duration::from_millis(100);
    clock::wait_until(begin + Duration::from_millis(3_200));
    let traffic = load.stop()?;
    let (mut report, _) = Report::of(&traffic, &fleet)?;
    let mut next = traffic.only(|sample| sample.due >= begin);
    anyhow::ensure!(next.count() >= REQUESTS, "only {} requests afterwards", next.count());
    next.0.truncate(REQUESTS);
    let shares = shares(&next, &fleet.journals()?);
    report.tell("requests", next.count());
    report.none("failed", next.failed().count());
    report.tell("share of each", shares.iter().map(|s| format!("{:.1}", s * 100.0)).collect::<Vec<_>>().join(" "));
    report.at_most("most uneven", unevenness(&shares).map(|uneven| uneven * 100.0), 5.0, " %");
    Ok(report.summed_up(format!("its share {:.1} % of {REQUESTS}", shares.get(1).copied().unwrap_or_default() * 100.0)))
}

/// Each endpoint's part of the attempts at these requests.
fn shares(traffic: &Traffic, journals: &[Vec<Entry>]) -> Vec<f64> {
    let ids: std::collections::HashSet<_> = traffic.0.iter().map(|sample| sample.id).collect();
    let counts = journals.iter().map(|entries| entries.iter().filter(|entry| ids.contains(&entry.id)).count());
    let counts: Vec<_> = counts.collect();
    let all = counts.iter().sum();
    counts.into_iter().map(|count| share(count, all).unwrap_or_default()).collect()
}

/// How far the share furthest from even is from it, as a part of the even one.
fn unevenness(shares: &[f64]) -> Option<f64> {
    let even = share(1, shares.len())?;
    shares.iter().map(|share| (share / even - 1.0).abs()).max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_left_out_is_uneven() {
        let uneven = |shares: [f64; 3]| unevenness(&shares).expect("there are three");
        assert!(uneven([0.33, 0.33, 0.34]) < 0.05);
        assert!(uneven([0.35, 0.31, 0.34]) > 0.05);
        assert!(uneven([0.5, 0.0, 0.5]) > 0.99);
        assert_eq!(unevenness(&[]), None);
    }
}
