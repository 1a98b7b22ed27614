//! nginx, with `proxy_next_upstream`, `max_fails` and `fail_timeout` as they are by default, and connections to endpoints kept.
//!
//! Where a drill asks for it: `proxy_next_upstream error timeout http_500`, `fail_timeout=3s` and a `backup` server.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;

use super::{Place, Setup, Variant};

/// Name of the file in which each refused attempt is a line.
pub(super) const ERROR_LOG: &str = "error.log";

pub(super) fn configuration(variant: &Variant, setup: &Setup, place: &Place<'_>) -> String {
    let Place { listen, admin: _, folder } = place;
    let (workers, folder) = (variant.workers, folder.display());
    let mut servers = String::new();
    for (number, address) in setup.endpoints.iter().enumerate() {
        let backup = if setup.last_is_backup && number + 1 == setup.endpoints.len() { " backup" } else { "" };
        let fail_timeout = if setup.retries_500 { " fail_timeout=3s" } else { "" };
        let _ = writeln!(servers, "    server {address}{fail_timeout}{backup};");
    }
    let next = if setup.retries_500 { "      proxy_next_upstream error timeout http_500;\n" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("  {what}_temp_path {folder}/{what};\n"))
        .concat();
    format!(
        "daemon off;\nworker_processes {workers};\npid {folder}/pid;\nerror_log {folder}/{ERROR_LOG} error;\n\
         events {{ worker_connections 16384; }}\nhttp {{\n  access_log off;\n{temporary}  upstream app {{\n{servers}    \
         keepalive 64;\n  }}\n  server {{\n    listen {listen};\n    location / {{\n      proxy_pass http://app;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n{next}    }}\n  }}\n}}\n"
    )
}

/// Lines of the error log that say so.
pub(super) fn refused_attempts(log: &str) -> HashMap<SocketAddr, u64> {
    let mut counted = HashMap::new();
    for line in log.lines().filter(|line| line.contains("connect() failed")) {
        let upstream = line.split_once("upstream: \"http://").and_then(|(_, rest)| rest.split('/').next());
        if let Some(address) = upstream.and_then(|address| address.parse().ok()) {
            *counted.entry(address).or_default() += 1;
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_attempt_is_a_line_of_the_log() {
        let line = "connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: , \
                    request: \"GET /drill HTTP/1.1\", upstream: \"http://127.0.0.1:9001/drill\", host: \"drill.test\"\n";
        let counted = refused_attempts(&format!("{line}{line}no live upstreams while connecting to upstream\n"));
        assert_eq!(counted, HashMap::from([("127.0.0.1:9001".parse().expect("an address"), 2)]));
    }
}
