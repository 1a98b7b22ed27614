//! What a reload changes, in words: one line for each thing that has come, gone or changed. And what it may not change.

use crate::config::{Bind, Config, Driver, Probe, Route, Target, secret_words};
use crate::units::ClusterId;
use std::collections::HashMap;
use std::fmt::Debug;

/// What cannot change while the gateway runs, and would: one sentence each.
pub(super) fn forbidden(old: &Config, new: &Config) -> Vec<String> {
    let (before, after) = (&old.gateway, &new.gateway);
    let mut found = Vec::new();
    if before.cores.len() != after.cores.len() {
        let (from, to) = (before.cores.len(), after.cores.len());
        found
            .push(format!("gateway.workers cannot change while the gateway runs: {from} to {to}; restart it for that"));
    } else if before.cores != after.cores {
        found.push("gateway.cores cannot change while the gateway runs; restart it for that".to_owned());
    }
    if before.driver != after.driver {
        let (from, to): (Driver, Driver) = (before.driver, after.driver);
        found.push(format!("gateway.driver cannot change while the gateway runs: {from} to {to}; restart it for that"));
    }
    if let (Bind::Tcp(before), Bind::Tcp(after)) = (&old.admin.listen, &new.admin.listen)
        && before != after
        && (before.port(), before.is_ipv4()) == (after.port(), after.is_ipv4())
        && (before.ip().is_unspecified() || after.ip().is_unspecified())
    {
        found.push(format!(
            "admin.listen cannot change while the gateway runs to an address that meets the one in use: {before} to {after}; take another \
             port, or restart it"
        ));
    }
    found
}

/// What is different: `route orders: changed`, `endpoint orders 10.0.0.1:80: removed`.
pub(super) fn changes(old: &Config, new: &Config) -> Vec<String> {
    let mut found = Vec::new();
    changed(&mut found, "gateway", &old.gateway, &new.gateway);
    changed(&mut found, "admin", &old.admin, &new.admin);
    changed(&mut found, "resolver", &old.resolver, &new.resolver);
    changed(&mut found, "consumers", &old.consumers, &new.consumers);
    changed(&mut found, "auth", &old.auth, &new.auth);
    changed(&mut found, "access_log", &old.access_log, &new.access_log);
    changed(&mut found, "redis", &old.redis, &new.redis);
    let listeners = |config: &Config| named(&config.listeners, |it| (format!("listener {}", it.name), words(it)));
    compare(&mut found, &listeners(old), &listeners(new));
    let routes = |config: &Config| {
        let row = |route: &Route| (format!("route {}", route.name), route_words(route, config));
        named(&config.routes, row)
    };
    let order = |config: &Config| config.routes.iter().map(|route| route.name.clone()).collect::<Vec<_>>();
    let count = found.len();
    compare(&mut found, &routes(old), &routes(new));
    if found.len() == count && order(old) != order(new) {
        found.push("routes: in another order".to_owned());
    }
    let upstreams = |config: &Config| {
        named(&config.clusters, |it| {
            // endpoints have lines of their own
            let mut rest = (**it).clone();
            rest.endpoints.clear();
            let secrets = match it.health_check.as_ref().map(|check| &check.probe) {
                Some(Probe::Http(probe)) => secret_words(&probe.headers),
                Some(Probe::Tcp | Probe::Grpc(_)) | None => String::new(),
            };
            (format!("upstream {}", it.name), format!("{rest:?} {secrets}"))
        })
    };
    compare(&mut found, &upstreams(old), &upstreams(new));
    compare(&mut found, &endpoints(old), &endpoints(new));
    found
}

type Named = Vec<(String, String)>;

fn named<T>(all: &[T], words: impl Fn(&T) -> (String, String)) -> Named {
    all.iter().map(words).collect()
}

fn words(it: &impl Debug) -> String {
    format!("{it:?}")
}

/// To be compared only, since there are secrets in it. By the names of upstreams: their rows change with what stands before them.
fn route_words(route: &Route, config: &Config) -> String {
    let secrets = [&route.request_headers, &route.response_headers].map(|rules| secret_words(&rules.set)).concat();
    let Target::Upstream(split) = &route.target else { return format!("{route:?} {secrets}") };
    let targets: Vec<_> = split.iter().map(|(id, weight)| (&config.clusters[id.index()].name, weight)).collect();
    let mut rest = Route { target: Target::Upstream(Vec::new()), ..route.clone() };
    let mirror = rest.traffic.mirror.as_mut().map(|mirror| std::mem::replace(&mut mirror.cluster, ClusterId(0)));
    let mirror = mirror.map(|id| &config.clusters[id.index()].name);
    format!("{rest:?} {targets:?} {mirror:?} {secrets}")
}

fn endpoints(config: &Config) -> Named {
    let of = |cluster: &std::sync::Arc<crate::config::Cluster>| {
        let name = cluster.name.clone();
        let row = move |it: &crate::config::Endpoint| (format!("endpoint {name} {}", it.identity()), words(it));
        cluster.endpoints.iter().map(row).collect::<Vec<_>>()
    };
    config.clusters.iter().flat_map(of).collect()
}

fn changed(found: &mut Vec<String>, what: &str, old: &impl Debug, new: &impl Debug) {
    if words(old) != words(new) {
        found.push(format!("{what}: changed"));
    }
}

fn compare(found: &mut Vec<String>, old: &Named, new: &Named) {
    let before: HashMap<&str, &str> = old.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
    let after: HashMap<&str, &str> = new.iter().map(|(name, words)| (name.as_str(), words.as_str())).collect();
    for (name, words) in new {
        match before.get(name.as_str()) {
            None => found.push(format!("{name}: added")),
            Some(before) if before != words => found.push(format!("{name}: changed")),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|(name, _)| !after.contains_key(name.as_str()));
    found.extend(gone.map(|(name, _)| format!("{name}: removed")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn parse(text: &str) -> Config {
        let text = format!("[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:80\"\n{text}");
        config::check::parse_for(&text, "test", &[0, 1]).unwrap_or_else(|errors| panic!("{errors}"))
    }

    const OLD: &str = "[[route]]\nname = \"a\"\nmatch = { path = \"/a\" }\nupstream = \"one\"\n\
        [[route]]\nname = \"b\"\nmatch = { path = \"/b\" }\nupstream = \"two\"\n\
        [upstream.one]\nendpoints = [{ address = \"10.0.0.1:80\" }, { address = \"10.0.0.2:80\" }]\n\
        [upstream.two]\nendpoints = [{ address = \"10.0.0.3:80\" }]\n";

    #[test]
    fn what_has_come_gone_and_changed_is_named() {
        let new = "[gateway]\ndrain_timeout = \"9s\"\n\
            [[route]]\nname = \"c\"\nmatch = { path = \"/c\" }\nupstream = \"two\"\n\
            [[route]]\nname = \"b\"\nmatch = { path = \"/b\" }\nupstream = \"two\"\ntimeout = \"3s\"\n\
            [upstream.two]\nbalance = \"random\"\nendpoints = [{ address = \"10.0.0.3:80\", weight = 7 }, { address = \"10.0.0.4:80\" }]\n";
        assert_eq!(
            changes(&parse(OLD), &parse(new)),
            [
                "gateway: changed",
                "route c: added",
                "route b: changed",
                "route a: removed",
                "upstream two: changed",
                "upstream one: removed",
                "endpoint two 10.0.0.3:80: changed",
                "endpoint two 10.0.0.4:80: added",
                "endpoint one 10.0.0.1:80: removed",
                "endpoint one 10.0.0.2:80: removed",
            ]
        );
        assert_eq!(changes(&parse(OLD), &parse(OLD)), [""; 0]);
    }

    #[test]
    fn a_row_that_moves_is_no_change() {
        let more = OLD
            .replace("[upstream.one]", "[upstream.nil]\nendpoints = [{ address = \"10.0.0.9:80\" }]\n[upstream.one]");
        assert_eq!(changes(&parse(OLD), &parse(&more)), ["upstream nil: added", "endpoint nil 10.0.0.9:80: added"]);
    }

    #[test]
    fn workers_cores_and_driver_stay() {
        let with = |keys: &str| parse(&format!("[gateway]\n{keys}\n{OLD}"));
        assert_eq!(forbidden(&with("workers = 2"), &with("workers = 2")), [""; 0]);
        let found = forbidden(&with("workers = 2"), &with("workers = 1\ndriver = \"epoll\""));
        assert!(found[0].starts_with("gateway.workers cannot change while the gateway runs: 2 to 1"), "{found:?}");
        assert!(found[1].contains("auto to epoll") && found.len() == 2, "{found:?}");
        let admin = |listen: &str| parse(&format!("[admin]\nlisten = \"{listen}\"\n{OLD}"));
        assert_eq!(forbidden(&admin("127.0.0.1:9180"), &admin("127.0.0.2:9180")), [""; 0]);
        let found = forbidden(&admin("127.0.0.1:9180"), &admin("0.0.0.0:9180"));
        assert!(found.len() == 1 && found[0].starts_with("admin.listen cannot change"), "{found:?}");
        let found = forbidden(&with("workers = 1\ncores = [0]"), &with("workers = 1\ncores = [1]"));
        assert!(found.len() == 1 && found[0].starts_with("gateway.cores"), "{found:?}");
    }
}
