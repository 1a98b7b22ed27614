//! What limits are called: in the `RateLimit` fields, in the access log and in the metrics.
//!
//! One with a name is called by that, one of a route by the route's name, with its place where the route has several limits. Two limits may so be
//! called the same; numbers of both are then one.

use super::Config;

impl Config {
    /// The names of all limits: those that can be shared first, then those of each route that are its own.
    pub fn limit_names(&self) -> impl Iterator<Item = String> + '_ {
        let shared = self.limits.iter().filter_map(|limit| Some(limit.name.as_ref()?.to_string()));
        let routes = self.routes.iter().flat_map(|route| {
            let own = route.limits.iter().filter(|limit| limit.name.is_none()).enumerate();
            own.map(|(row, _)| own_name(&route.name, row, route.limits.len()))
        });
        shared.chain(routes)
    }
}

/// The name of a route's own limit: the `row`-th of its own, of so many that it has in all.
pub(crate) fn own_name(route: &str, row: usize, limits: usize) -> String {
    if limits < 2 { route.to_owned() } else { format!("{route}-{}", row + 1) }
}
