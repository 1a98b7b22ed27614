//! Services that are killed and started again while requests are under way.
//!
//! A POST that a killed service may have had is lost, and must be: sending it again could do it twice. What is judged is the rest: GETs,
//! POSTs that the gateway gave up without having sent them (503), and POSTs that failed when nothing had just been killed.

use rand::RngExt;
use std::collections::HashMap;
use std::time::Duration;

use crate::clock::{self, Moment};
use crate::fleet::Fleet;
use crate::gateways::Setup;
use crate::report::Report;
use crate::stage::Stage;
use crate::traffic::{Sample, Traffic};

/// From one kill to the next.
const PERIOD: Duration = Duration::from_secs(3);
/// How long after a kill a POST may still have been sent to a socket whose end was not known yet.
const AFTERMATH: Duration = Duration::from_millis(250);

/// One of three, in turn, killed every three seconds and back after 0.3 to 2 s, under 300 requests a second, one in five a POST.
pub(crate) fn in_turn(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::started(3, Duration::from_millis(20))?;
    let gateway = stage.gateway(&fleet, Setup::default())?;
    let load = stage.load(&gateway, 300, 5, None)?;
    let (begin, mut chance, mut kills) = (clock::now(), stage.chance(), Vec::new());
    for round in 0..stage.count(20, 3) {
        clock::wait_until(begin + Duration::from_secs(1) + PERIOD.mul_f64(u32::try_from(round)?.into()));
        let victim = fleet.at(usize::try_from(round % 3)?);
        kills.push(clock::now());
        victim.kill();
        clock::wait(Duration::from_millis(chance.random_range(300..2_000)));
        victim.start()?;
    }
    clock::wait(Duration::from_secs(2));
    let traffic = load.stop()?;
    let (report, times) = Report::of(&traffic, &fleet)?;
    Ok(judged(report, &traffic, &times, &kills))
}

fn judged(mut report: Report, traffic: &Traffic, times: &HashMap<u64, u32>, kills: &[Moment]) -> Report {
    let (failed_gets, failed_posts) = (traffic.gets().failed().count(), traffic.posts().failed());
    let unseen = failed_posts.only(|sample| !times.contains_key(&sample.id));
    let twice = traffic.posts().acted_on_twice(times).count();
    let unsent = unseen.only(|sample| sample.status() == Some(503)).count();
    report.tell("kills", kills.len());
    report.tell("requests", traffic.count());
    report.none("failed GETs", failed_gets);
    report.tell("failed POSTs", failed_posts.count());
    report.tell("of them never seen", unseen.count());
    report.none("never seen, 503", unsent);
    report.none("failed without a kill", failed_posts.only(|sample| !is_excused(sample, kills)).count());
    report.none("POSTs twice", twice);
    let inexcusable = unseen_503_or_unexcused(&failed_posts, times, kills);
    let summary = format!(
        "{failed_gets} GETs and {inexcusable} POSTs failed without need ({} more POSTs with a killed service), {twice} done twice",
        failed_posts.count() - inexcusable
    );
    report.summed_up(summary)
}

/// POSTs that need not have failed, for either reason.
fn unseen_503_or_unexcused(failed: &Traffic, times: &HashMap<u64, u32>, kills: &[Moment]) -> usize {
    let was_unsent = |sample: &Sample| sample.status() == Some(503) && !times.contains_key(&sample.id);
    failed.only(|sample| was_unsent(sample) || !is_excused(sample, kills)).count()
}

/// Whether something was killed while the request was under way, or just before.
fn is_excused(sample: &Sample, kills: &[Moment]) -> bool {
    let window = sample.due.saturating_sub(AFTERMATH)..=sample.due + sample.latency;
    kills.iter().any(|kill| window.contains(kill))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::End;

    const KILL: Moment = Duration::from_secs(10);

    fn post(id: u64, due: Duration, status: u16) -> Sample {
        let end = End::Answer { status, has_retry_after: false };
        Sample { id, is_post: true, due, late: Duration::ZERO, latency: Duration::from_millis(20), end }
    }

    /// Whether the drill would have been passed with this sample among others.
    fn passes(sample: Sample, times: u32) -> bool {
        let mut seen = HashMap::from([(1, 1), (2, 1)]);
        seen.extend((times > 0).then_some((sample.id, times)));
        let traffic = Traffic(vec![post(1, Duration::from_secs(9), 200), sample]);
        judged(Report::default(), &traffic, &seen, &[KILL]).passed()
    }

    #[test]
    fn a_post_may_be_lost_with_the_service_that_had_it() {
        let before = KILL - Duration::from_millis(10);
        assert!(passes(post(3, before, 200), 1));
        assert!(passes(post(3, before, 502), 1));
        assert!(passes(post(3, before, 502), 0), "it may have been sent and not read");
    }

    #[test]
    fn other_losses_are_the_gateways() {
        let (before, later) = (KILL - Duration::from_millis(10), KILL + Duration::from_millis(300));
        assert!(!passes(post(3, before, 503), 0), "never sent");
        assert!(!passes(post(3, later, 502), 1), "nothing was killed then");
        assert!(!passes(post(3, before, 200), 2), "done twice");
        assert!(!passes(Sample { is_post: false, ..post(3, before, 502) }, 1), "a GET may be repeated");
    }
}
