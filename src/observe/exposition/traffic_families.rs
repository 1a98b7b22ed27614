//! The metrics of what routes do with requests beyond passing them on.

use super::families::COUNTER;
use super::rows::per_route;
use super::{Family, Samples, Scrape};
use crate::observe::labels::TrafficEvent;

/// They follow [`super::grpc_families::GRPC_FAMILIES`].
pub(super) const TRAFFIC_FAMILIES: &[Family] = &[Family {
    name: "ringgate_traffic_events_total",
    help: "What was done with requests beyond passing them on: sides of a split that were taken for another, faults that were made.",
    kind: COUNTER,
    rows: per_route,
    render: events,
}];

fn events(scrape: &Scrape, row: usize, out: &mut Samples<'_>) {
    for event in TrafficEvent::ALL {
        let parts = scrape.stats.route_parts(row).touched();
        let count: u64 = parts.map(|route| route.traffic[event.index()].get()).sum();
        if count > 0 {
            out.sample(&[("route", scrape.stats.row_name(row)), ("event", event.token())], count);
        }
    }
}
