//! What a configuration that is fine probably does not mean.
//!
//! Errors keep a gateway from starting; these do not, because each is right at times: an upstream stands ready for a route to come, and
//! all endpoints are drained before a service is taken away. Forgotten, both are outages that nothing else points out.

use super::{AccessLog, Address, Bind, Config, LogPath, Measure, Target};
use super::{access_warnings, certificate_warnings, effect_warnings, route_warnings};
use crate::units::Weight;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// One sentence each, in the order of the file's tables; empty for most files. `wall` is the time since 1970, by which certificates are
/// judged.
#[must_use]
pub fn warnings(config: &Config, wall: Duration) -> Vec<String> {
    let mut used = vec![false; config.clusters.len()];
    for route in config.routes.iter() {
        if let Target::Upstream(parts) = &route.target {
            parts.iter().for_each(|(cluster, _)| used[cluster.index()] = true);
        }
    }
    let mirrors = config.routes.iter().filter_map(|route| route.traffic.mirror.as_ref());
    mirrors.for_each(|mirror| used[mirror.cluster.index()] = true);
    config.auth.iter().filter_map(|way| way.forward()).for_each(|forward| used[forward.cluster.index()] = true);
    let mut warnings: Vec<String> = config.access_log.as_ref().and_then(missing_folder).into_iter().collect();
    let bodiless = config.listeners.iter().filter(|listener| listener.body_bytes_max == 0);
    warnings.extend(bodiless.map(|listener| {
        format!("listener {:?}: max_body = \"0B\" forbids every body; it does not stand for no limit", listener.name)
    }));
    warnings.extend(forgetful(config));
    for (cluster, used) in config.clusters.iter().zip(used) {
        let name = &cluster.name;
        if !used {
            warnings.push(format!("upstream.{name}: no route uses it"));
        }
        let drained = |weight: Weight| weight.0 == 0;
        let mut weights = cluster.endpoints.iter().map(|it| it.weight).chain(cluster.names.iter().map(|it| it.weight));
        if weights.all(drained) {
            warnings.push(format!(
                "upstream.{name}: every endpoint has weight 0, so all its requests are answered with 503"
            ));
        }
        for endpoint in &cluster.endpoints {
            let own = config.listeners.iter().find(|listener| leads_to(&endpoint.address, &listener.bind));
            warnings.extend(own.map(|listener| {
                format!(
                    "upstream.{name}: {} is this gateway's own listener {:?}: requests that come back to the same route go \
                     round until they are refused with 508",
                    endpoint.address, listener.name
                )
            }));
        }
    }
    warnings.extend(route_warnings::of(config));
    warnings.extend(effect_warnings::of(config));
    warnings.extend(access_warnings::of(config));
    warnings.extend(certificate_warnings::of(config, wall));
    warnings
}

/// The log's folder is made by nobody, and is no log, so a gateway would not start here.
fn missing_folder(log: &AccessLog) -> Option<String> {
    let LogPath::File(path) = &log.path else { return None };
    if path.is_dir() {
        return Some(format!(
            "access_log.path: {} is a folder, so the gateway would not start on this machine",
            path.display()
        ));
    }
    let folder = path.parent().filter(|folder| !folder.is_dir())?;
    Some(format!(
        "access_log.path: there is no folder {}, so the gateway would not start on this machine",
        folder.display()
    ))
}

/// Whether a connection to `endpoint` is one to `listener`.
fn leads_to(endpoint: &Address, listener: &Bind) -> bool {
    match (endpoint, listener) {
        (Address::Unix(endpoint), Bind::Unix(listener)) => endpoint == listener,
        (Address::Tcp(endpoint), Bind::Tcp(listener)) if endpoint.port() == listener.port() => {
            let (to, at) = (endpoint.ip().to_canonical(), listener.ip());
            to == at.to_canonical() || (at.is_unspecified() && at.is_ipv4() == to.is_ipv4() && is_local(to))
        }
        _ => false,
    }
}

/// Whether it is an address of this machine: then a socket can be bound to it. Nothing is sent.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// What limits forget, or nobody asks for.
fn forgetful(config: &Config) -> Vec<String> {
    let all = || config.limits.iter().chain(config.routes.iter().flat_map(|route| &route.limits));
    let mut warnings = Vec::new();
    if config.gateway.quota_file.is_none() && all().any(|limit| matches!(limit.measure, Measure::Quota { .. })) {
        warnings.push("gateway: without quota_file a restart begins all quotas anew".to_owned());
    }
    if config.redis.is_some() && !config.limits.iter().any(|limit| limit.is_shared) {
        warnings.push("redis: no limit says shared = \"redis\", so nobody asks it".to_owned());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        warnings(&crate::config::parse(text, "f").unwrap_or_else(|errors| panic!("{errors}")), Duration::ZERO)
    }

    #[test]
    fn quotas_without_a_file_and_a_redis_that_nobody_asks_are_told() {
        let text = |gateway: &str, limit: &str| {
            let config = format!(
                "[gateway]\n{gateway}\n[redis]\nurl = \"redis://127.0.0.1\"\n[limit.all]\n{limit}\n[[listener]]\nlisten = \"127.0.0.1:0\"\nlimit = [\"all\"]\n[[route]]\nrespond = {{}}\n"
            );
            forgetful(&super::super::parse(&config, "f").unwrap()).len()
        };
        assert_eq!(text("", "quota = \"1/day\""), 2);
        assert_eq!(text("quota_file = \"/var/q\"", "quota = \"1/day\""), 1);
        assert_eq!(text("", "rate = \"1/s\"\nshared = \"redis\""), 0);
    }

    #[test]
    fn upstreams_that_get_or_answer_nothing_are_named() {
        let drained = "endpoints = [{ address = \"10.0.0.1:1\", weight = 0 }]";
        let mixed = "endpoints = [{ address = \"10.0.0.1:1\", weight = 0 }, { address = \"10.0.0.2:1\" }]";
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nsplit = [{{ upstream = \"a\", weight = 1 }}, \
             {{ upstream = \"b\", weight = 0 }}]\n[upstream.a]\n{mixed}\n[upstream.b]\n{drained}\n[upstream.c]\n{mixed}\n"
        );
        assert_eq!(
            of(&text),
            [
                "upstream.b: every endpoint has weight 0, so all its requests are answered with 503",
                "upstream.c: no route uses it"
            ]
        );
    }

    #[test]
    fn endpoints_that_are_listeners_are_told() {
        let file = |listen: &str, address: &str| {
            format!(
                "[[listener]]\nname = \"edge\"\nlisten = \"{listen}\"\n[[route]]\nupstream = \"a\"\n\
                 [upstream.a]\nendpoints = [{{ address = \"{address}\" }}]\n"
            )
        };
        for (listen, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            let warnings = of(&file(listen, address));
            assert!(warnings.len() == 1 && warnings[0].contains("own listener \"edge\""), "{warnings:?}");
        }
        for (listen, address) in [
            ("127.0.0.1:8080", "127.0.0.1:8081"),
            ("127.0.0.1:8080", "127.0.0.2:8080"),
            ("0.0.0.0:8080", "192.0.2.7:8080"),
            ("[::]:8080", "127.0.0.1:8080"),
            ("unix:/run/a.sock", "unix:/run/b.sock"),
        ] {
            assert_eq!(of(&file(listen, address)), [""; 0], "{listen} {address}");
        }
    }

    #[test]
    fn who_forbids_bodies_is_told_that_he_does() {
        let text = "[[listener]]\nname = \"l\"\nlisten = \"127.0.0.1:0\"\nmax_body = \"0B\"\n[[route]]\nname = \"r\"\nrespond = {}\n";
        let told = of(text);
        assert!(told.len() == 1 && told[0].starts_with("listener \"l\": max_body = \"0B\" forbids"), "{told:?}");
    }

    #[test]
    fn a_log_without_its_folder_is_told() {
        let text = "[access_log]\npath = \"/nonexistent/folder/a.log\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
                    [[route]]\nname = \"r\"\nrespond = {}\nresponse_headers = { set = { nel = '{\"max_age\": 1}', x-b = \"{}\" } }\n";
        assert_eq!(
            of(text),
            ["access_log.path: there is no folder /nonexistent/folder, so the gateway would not start on this machine"]
        );
    }
}
