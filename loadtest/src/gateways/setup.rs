//! What a gateway is to do, whichever it is.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use super::Kind;

/// Idle connections that a gateway may keep to the endpoints of an upstream, per worker.
pub(super) const POOL: usize = 1024;
/// How long either side may keep an idle connection, seconds: longer than a run waits anywhere.
pub(super) const KEEP_ALIVE_S: u64 = 600;

/// How a gateway is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Where clients connect; `None`: a port of 127.0.0.1 that the kernel chooses.
    pub listen: Option<SocketAddr>,
    /// Where its metrics or statistics are, if it has some; `None`: the same.
    pub admin: Option<SocketAddr>,
    /// Workers or threads, 1 or more.
    pub workers: usize,
    /// Cores that it may run on, one for each worker in turn; empty for all.
    pub cores: Vec<usize>,
    /// What goes where; at least one.
    pub routes: Vec<Route>,
    /// An answer with status 500 is taken for a failure of its endpoint and tried elsewhere, where that can be said.
    pub retries_on_500: bool,
    /// Endpoints are asked for `/healthz` every second, by gateways that do so.
    pub health_checks: bool,
    /// The user's own configuration instead of a generated one; see [`Setup::fill_in`].
    pub own: Option<String>,
}

/// Requests for paths that begin like this go to these endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `/`, or such as `/orders`.
    pub prefix: String,
    /// Name of the upstream: letters, digits, `_` and `-`. Routes with the same name have the same endpoints.
    pub upstream: String,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
}

/// An instance of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// It is there for when the others fail.
    pub is_backup: bool,
}

/// Where a gateway listens, and where its files are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) listen: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) folder: &'a Path,
}

impl Setup {
    /// One upstream `app` behind `/`, one worker, defaults.
    #[must_use]
    pub fn plain(endpoints: &[SocketAddr]) -> Self {
        let endpoints = endpoints.iter().map(|address| Endpoint { address: *address, is_backup: false }).collect();
        Self {
            listen: None,
            admin: None,
            workers: 1,
            cores: Vec::new(),
            routes: vec![Route { prefix: "/".to_owned(), upstream: "app".to_owned(), endpoints }],
            retries_on_500: false,
            health_checks: false,
            own: None,
        }
    }

    /// The configuration that a gateway of this kind is started with.
    pub(super) fn configuration(&self, kind: Kind, place: Place<'_>) -> Result<String, String> {
        self.check()?;
        if let Some(own) = &self.own {
            return self.fill_in(own, place);
        }
        Ok(match kind {
            Kind::Ringgate => super::ringgate::configuration(self, place),
            Kind::Nginx => super::nginx::configuration(self, place),
            Kind::Haproxy => super::haproxy::configuration(self, place),
            Kind::Envoy => super::envoy::configuration(self, place),
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.workers == 0 {
            return Err("a gateway has one worker at least".to_owned());
        }
        if self.routes.is_empty() {
            return Err("a gateway has one route at least".to_owned());
        }
        for Route { prefix, upstream, endpoints } in &self.routes {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if upstream.is_empty() || !upstream.chars().all(is_name) {
                return Err(format!("{upstream:?} is no name of an upstream: letters, digits, _ and -"));
            }
            let is_path = |c: char| c.is_ascii_alphanumeric() || "/_-.~".contains(c);
            if !prefix.starts_with('/') || !prefix.chars().all(is_path) {
                return Err(format!("{prefix:?} is no path of a route, such as / or /orders"));
            }
            if endpoints.iter().all(|endpoint| endpoint.is_backup) {
                return Err(format!("upstream {upstream} has no endpoint that is no backup"));
            }
            if self.upstreams().any(|other| other.upstream == *upstream && other.endpoints != *endpoints) {
                return Err(format!("two routes to upstream {upstream} have different endpoints"));
            }
        }
        Ok(())
    }

    /// Routes with the longest prefix first.
    pub(super) fn routes_by_length(&self) -> Vec<&Route> {
        let mut routes: Vec<_> = self.routes.iter().collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        routes
    }

    /// The first route to each upstream.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Route> {
        let is_first = |row: usize, route: &Route| !self.routes[..row].iter().any(|r| r.upstream == route.upstream);
        self.routes.iter().enumerate().filter(move |(row, route)| is_first(*row, route)).map(|(_, route)| route)
    }

    /// A user's configuration with addresses and paths for its placeholders: `{listen}`, `{admin}`, `{folder}` (for files that the gateway
    /// writes), `{workers}`, `{upstream.NAME.0}` (the first endpoint of an upstream). Other braces are left as they are.
    fn fill_in(&self, own: &str, place: Place<'_>) -> Result<String, String> {
        let mut known = vec![
            ("{listen}".to_owned(), place.listen.to_string()),
            ("{admin}".to_owned(), place.admin.to_string()),
            ("{folder}".to_owned(), place.folder.display().to_string()),
            ("{workers}".to_owned(), self.workers.to_string()),
        ];
        for route in self.upstreams() {
            for (row, endpoint) in route.endpoints.iter().enumerate() {
                known.push((format!("{{upstream.{}.{row}}}", route.upstream), endpoint.address.to_string()));
            }
        }
        let (mut text, mut rest) = (String::with_capacity(own.len()), own);
        while let Some(start) = rest.find('{') {
            let (before, here) = rest.split_at(start);
            text.push_str(before);
            if let Some((name, value)) = known.iter().find(|(name, _)| here.starts_with(name)) {
                text.push_str(value);
                rest = &here[name.len()..];
                continue;
            }
            if here.starts_with("{upstream.") {
                let line = 1 + own[..own.len() - here.len()].matches('\n').count();
                let written = here.split_inclusive('}').next().unwrap_or(here).lines().next().unwrap_or_default();
                let mut there_are = String::new();
                for (name, _) in &known {
                    let _ = write!(there_are, " {name}");
                }
                return Err(format!("line {line}: {written} stands for nothing; there are{there_are}"));
            }
            text.push('{');
            rest = &here[1..];
        }
        if !own.contains("{listen}") {
            return Err("{listen} is nowhere: the gateway would listen where nobody looks for it".to_owned());
        }
        text.push_str(rest);
        Ok(text)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::gateways) fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Two upstreams, one with a backup, and all that can be asked for.
    pub(in crate::gateways) fn rich() -> Setup {
        let mut setup = Setup::plain(&[local(9001), local(9002)]);
        setup.routes[0].endpoints[1].is_backup = true;
        let endpoints = vec![Endpoint { address: local(9003), is_backup: false }];
        setup.routes.push(Route { prefix: "/orders/".to_owned(), upstream: "orders".to_owned(), endpoints });
        Setup { workers: 2, cores: vec![0, 1], retries_on_500: true, health_checks: true, ..setup }
    }

    pub(in crate::gateways) fn place() -> Place<'static> {
        Place { listen: local(8080), admin: local(9180), folder: Path::new("/folder") }
    }

    #[test]
    fn placeholders_are_filled_in_and_other_braces_stay() {
        let own = "bind {listen}; http { server {upstream.app.0} {upstream.orders.0}; } {folder} {x}";
        let filled = Setup { own: Some(own.to_owned()), ..rich() }.configuration(Kind::Nginx, place());
        let wanted = "bind 127.0.0.1:8080; http { server 127.0.0.1:9001 127.0.0.1:9003; } /folder {x}";
        assert_eq!(filled.as_deref(), Ok(wanted));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let own = |text: &str| Setup { own: Some(text.to_owned()), ..Setup::plain(&[local(9001)]) };
        let mut twice = rich();
        twice.routes[1].upstream = "app".to_owned();
        let mut named = rich();
        named.routes[1].upstream = "a;b".to_owned();
        for (setup, error) in [
            (
                own("{listen}\n{upstream.api.0}\n"),
                "line 2: {upstream.api.0} stands for nothing; there are {listen} {admin} {folder} {workers} {upstream.app.0}",
            ),
            (own("x"), "{listen} is nowhere: the gateway would listen where nobody looks for it"),
            (Setup { workers: 0, ..rich() }, "a gateway has one worker at least"),
            (Setup { routes: Vec::new(), ..rich() }, "a gateway has one route at least"),
            (Setup::plain(&[]), "upstream app has no endpoint that is no backup"),
            (twice, "two routes to upstream app have different endpoints"),
            (named, "\"a;b\" is no name of an upstream: letters, digits, _ and -"),
        ] {
            assert_eq!(setup.configuration(Kind::Nginx, place()), Err(error.to_owned()));
        }
    }
}
