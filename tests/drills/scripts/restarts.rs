//! A deployment: one after the other is stopped and comes back, and for each the other one has to stand in at once.

use rand::RngExt;
use std::time::Duration;

use crate::clock;
use crate::fleet::Fleet;
use crate::gateways::Setup;
use crate::report::Report;
use crate::stage::Stage;

/// A down, A back and at once B down, B back; six times, with gaps of 0.5 to 3 s, under 300 GETs a second.
pub(crate) fn rolling(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::started(2, Duration::from_millis(5))?;
    let gateway = stage.gateway(&fleet, Setup::default())?;
    let load = stage.load(&gateway, 300, 0, None)?;
    let mut chance = stage.chance();
    let mut gap = || clock::wait(Duration::from_millis(chance.random_range(500..3_000)));
    let rounds = stage.count(6, 2);
    for _ in 0..rounds {
        gap();
        fleet.at(0).kill();
        gap();
        fleet.at(0).start()?;
        fleet.at(1).kill();
        gap();
        fleet.at(1).start()?;
    }
    clock::wait(Duration::from_secs(1));
    let traffic = load.stop()?;
    let (mut report, _) = Report::of(&traffic, &fleet)?;
    let failed = traffic.failed().count();
    report.tell("restarts", rounds * 2);
    report.tell("requests", traffic.count());
    report.none("failed", failed);
    report.tell("p99", crate::report::milliseconds(traffic.latency(0.99).unwrap_or_default()));
    Ok(report.summed_up(format!("{failed} of {} failed", traffic.count())))
}
