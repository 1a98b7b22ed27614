//! nginx, with `proxy_next_upstream`, `max_fails` and `fail_timeout` as they are by default, and connections to endpoints kept.
//!
//! Where it is asked for: `proxy_next_upstream error timeout http_500` and `fail_timeout=3s`; `backup` servers. It has no health checks
//! (its free edition). Its access log is off; its error log is its standard error, where it is among its last words.

use std::fmt::Write;

use super::front::{CHAIN, KEY};
use super::setup::{KEEP_ALIVE_S, POOL, Place, Setup};

pub(super) fn configuration(setup: &Setup, place: Place<'_>) -> String {
    let (workers, folder, listen) = (setup.workers, place.folder.display(), place.listen);
    let (mut upstreams, mut locations) = (String::new(), String::new());
    for route in setup.upstreams() {
        let _ = writeln!(upstreams, "  upstream {} {{", route.upstream);
        for endpoint in &route.endpoints {
            let fail_timeout = if setup.retries_on_500 { " fail_timeout=3s" } else { "" };
            let backup = if endpoint.is_backup { " backup" } else { "" };
            let _ = writeln!(upstreams, "    server {}{fail_timeout}{backup};", endpoint.address);
        }
        let _ = writeln!(
            upstreams,
            "    keepalive {POOL};\n    keepalive_requests 1000000000;\n    keepalive_timeout {KEEP_ALIVE_S}s;\n  }}"
        );
    }
    for route in &setup.routes {
        let next = if setup.retries_on_500 { "      proxy_next_upstream error timeout http_500;\n" } else { "" };
        let _ = writeln!(
            locations,
            "    location {} {{\n      proxy_pass http://{};\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n\
             {:6}proxy_set_header X-Forwarded-For $remote_addr;\n{next}    }}",
            route.prefix, route.upstream, ""
        );
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {folder}/{what};\n"))
        .concat();
    let affinity = affinity(setup);
    let front = setup.front;
    let words = [if front.is_tls { " ssl" } else { "" }, if front.is_http2 { " http2" } else { "" }].concat();
    let certificate = if front.is_tls {
        format!("    ssl_certificate {folder}/{CHAIN};\n    ssl_certificate_key {folder}/{KEY};\n")
    } else {
        String::new()
    };
    format!(
        "daemon off;\nworker_processes {workers};\n{affinity}pid {folder}/pid;\nerror_log stderr error;\n\
         events {{ worker_connections 16384; }}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000000;\n  \
         keepalive_timeout {KEEP_ALIVE_S}s;\n{temporary}{upstreams}  server {{\n    listen {listen}{words} backlog=4096;\n{certificate}{locations}  }}\n}}\n"
    )
}

/// A mask for each worker, in binary, the first core last.
fn affinity(setup: &Setup) -> String {
    let Some(last) = setup.cores.iter().max() else { return String::new() };
    let masks = setup.cores.iter().cycle().take(setup.workers).map(|core| {
        let bits = (0..=*last).rev().map(|bit| if bit == *core { '1' } else { '0' });
        std::iter::once(' ').chain(bits).collect::<String>()
    });
    format!("worker_cpu_affinity{};\n", masks.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::setup::tests::{place, rich};
    use super::*;

    #[test]
    fn what_is_asked_for_is_there() {
        let text = configuration(&rich(), place());
        for part in [
            "worker_processes 2;\nworker_cpu_affinity 01 10;\n",
            "  upstream app {\n    server 127.0.0.1:9001 fail_timeout=3s;\n    server 127.0.0.1:9002 fail_timeout=3s backup;\n",
            "    location /orders/ {\n      proxy_pass http://orders;\n",
            "      proxy_set_header X-Forwarded-For $remote_addr;\n      proxy_next_upstream error timeout http_500;\n    }\n",
            "    listen 127.0.0.1:8080 backlog=4096;\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
