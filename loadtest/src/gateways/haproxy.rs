//! HAProxy, with `option redispatch`, `retries 3` and the timeouts of Debian's configuration (it has none by itself), a master and a worker,
//! so that it can be reloaded.
//!
//! Where it is asked for: `retry-on conn-failure 500`; `option httpchk` with `check inter 1s`; `backup` servers, which without checks are
//! never used.

use std::fmt::Write;

use super::front::BOTH;
use super::setup::{KEEP_ALIVE_S, Place, Setup};

pub(super) fn configuration(setup: &Setup, place: Place<'_>) -> String {
    let Place { listen, admin, folder } = place;
    let words = match (setup.front.is_http2, setup.front.is_tls) {
        (false, false) => String::new(),
        (true, false) => " proto h2".to_owned(),
        (is_http2, true) => {
            let protocols = if is_http2 { "h2,http/1.1" } else { "http/1.1" };
            format!(" ssl crt {}/{BOTH} alpn {protocols}", folder.display())
        }
    };
    let mut text = format!("global\n  nbthread {}\n  maxconn 9000\n", setup.workers);
    if !setup.cores.is_empty() {
        let _ = write!(text, "  cpu-map auto:1/1-{}", setup.workers);
        for core in setup.cores.iter().cycle().take(setup.workers) {
            let _ = write!(text, " {core}");
        }
        text.push('\n');
    }
    let _ = write!(
        text,
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 50s\n  timeout server 50s\n  \
         timeout http-keep-alive {KEEP_ALIVE_S}s\n  http-reuse always\n  option redispatch\n  retries 3\n\
         frontend edge\n  bind {listen} backlog 4096{words}\n  option forwardfor\n"
    );
    for route in setup.routes_by_length() {
        let _ = match route.prefix.as_str() {
            "/" => writeln!(text, "  default_backend {}", route.upstream),
            prefix => writeln!(text, "  use_backend {} if {{ path_beg {prefix} }}", route.upstream),
        };
    }
    for route in setup.upstreams() {
        let _ = writeln!(text, "backend {}", route.upstream);
        if setup.health_checks {
            text.push_str("  option httpchk GET /healthz\n");
        }
        if setup.retries_on_500 {
            text.push_str("  retry-on conn-failure 500\n");
        }
        for (row, endpoint) in route.endpoints.iter().enumerate() {
            let check = if setup.health_checks { " check inter 1s" } else { "" };
            let backup = if endpoint.is_backup { " backup" } else { "" };
            let _ = writeln!(text, "  server s{row} {}{check}{backup}", endpoint.address);
        }
    }
    let _ = write!(text, "frontend stats\n  bind {admin}\n  stats enable\n  stats uri /stats\n");
    text
}

#[cfg(test)]
mod tests {
    use super::super::setup::tests::{place, rich};
    use super::*;

    #[test]
    fn what_is_asked_for_is_there() {
        let text = configuration(&rich(), place());
        for part in [
            "  nbthread 2\n",
            "  cpu-map auto:1/1-2 0 1\n",
            "  use_backend orders if { path_beg /orders/ }\n  default_backend app\n",
            "backend app\n  option httpchk GET /healthz\n  retry-on conn-failure 500\n  server s0 127.0.0.1:9001 check inter 1s\n  \
             server s1 127.0.0.1:9002 check inter 1s backup\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
