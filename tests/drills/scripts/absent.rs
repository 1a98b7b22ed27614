//! Endpoints that were never there: connections to them are refused from the first request on.

use std::time::Duration;

use crate::fleet::Fleet;
use crate::gateways::Setup;
use crate::report::Report;
use crate::stage::Stage;

/// Three endpoints, two of them closed ports. Nothing was ever sent to those, so a POST is as safe as a GET.
pub(crate) fn dead_ports(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::try_new(3, Duration::ZERO)?;
    fleet.at(2).start()?;
    let gateway = stage.gateway(&fleet, Setup::default())?;
    let traffic = stage.load(&gateway, 1_000, 2, Some(stage.count(10_000, 100)))?.finish()?;
    let (mut report, times) = Report::of(&traffic, &fleet)?;
    let failed = traffic.failed();
    report.tell("requests", traffic.count());
    report.none("failed GETs", failed.gets().count());
    report.none("failed POSTs", failed.posts().count());
    report.none("POSTs twice", traffic.posts().acted_on_twice(&times).count());
    Ok(report.summed_up(format!("{} of {} failed", failed.count(), traffic.count())))
}

/// A tier of one dead endpoint, and a backup that is well.
pub(crate) fn backup(stage: &Stage<'_>) -> anyhow::Result<Report> {
    let mut fleet = Fleet::try_new(2, Duration::ZERO)?;
    fleet.at(1).start()?;
    let gateway = stage.gateway(&fleet, Setup { last_is_backup: true, ..Setup::default() })?;
    let traffic = stage.load(&gateway, 250, 5, Some(stage.count(1_000, 100)))?.finish()?;
    let (mut report, _) = Report::of(&traffic, &fleet)?;
    let failed = traffic.failed().count();
    report.tell("requests", traffic.count());
    report.none("failed", failed);
    Ok(report.summed_up(format!("{failed} of {} failed", traffic.count())))
}
