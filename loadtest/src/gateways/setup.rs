//! What a gateway is to do, whichever it is.

use std::net::SocketAddr;
use std::path::Path;

use super::{Front, Kind, Template};

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
    /// How clients speak with it.
    pub front: Front,
    /// The user's own configuration instead of a generated one; its rows of upstreams are those of `routes`.
    pub own: Option<Template>,
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
            front: Front::default(),
            own: None,
        }
    }

    /// The configuration that a gateway of this kind is started with.
    pub(super) fn configuration(&self, kind: Kind, place: Place<'_>) -> Result<String, String> {
        self.check()?;
        if let Some(own) = &self.own {
            let instance = |upstream: usize, instance: usize| self.routes[upstream].endpoints[instance].address;
            return Ok(own.fill(place.listen, place.admin, place.folder, instance));
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
    fn the_users_own_configuration_takes_the_place_of_ours() {
        let own = "bind @listen@; http { server @app.1@ @orders.1@; } @folder@ {x}";
        let own = Template::try_new(own, &[("app", 2), ("orders", 1)]).unwrap();
        let filled = Setup { own: Some(own), ..rich() }.configuration(Kind::Nginx, place());
        let wanted = "bind 127.0.0.1:8080; http { server 127.0.0.1:9001 127.0.0.1:9003; } /folder {x}";
        assert_eq!(filled.as_deref(), Ok(wanted));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut twice = rich();
        twice.routes[1].upstream = "app".to_owned();
        let mut named = rich();
        named.routes[1].upstream = "a;b".to_owned();
        for (setup, error) in [
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
