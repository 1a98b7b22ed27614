//! A service that stops answering and keeps its sockets: the kernel still accepts connections for it.

use std::time::Duration;

use crate::clock;
use crate::fleet::Fleet;
use crate::gateways::Setup;
use crate::report::{Report, milliseconds};
use crate::stage::Stage;

const SLOWEST: Duration = Duration::from_millis(1_500);

/// One of three stopped for 8 s, under 300 GETs a second.
pub(crate) fn one_of_three(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::started(3, Duration::from_millis(20))?;
    let gateway = stage.gateway(&fleet, Setup::default())?;
    let load = stage.load(&gateway, 300, 0, None)?;
    clock::wait(Duration::from_secs(3));
    let frozen = clock::now();
    fleet.at(1).freeze()?;
    clock::wait_until(frozen + stage.seconds(8));
    fleet.at(1).thaw()?;
    clock::wait(Duration::from_secs(2));
    let traffic = load.stop()?;
    let (mut report, _) = Report::of(&traffic, &fleet)?;
    let (failed, slowest) = (traffic.failed().count(), traffic.latency(1.0));
    report.tell("requests", traffic.count());
    report.none("failed", failed);
    report.tell("above 1.5 s", traffic.only(|sample| sample.latency > SLOWEST).count());
    report.within("slowest", slowest, SLOWEST);
    Ok(report.summed_up(format!("{failed} failed, slowest {}", milliseconds(slowest.unwrap_or_default()))))
}
