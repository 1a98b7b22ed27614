//! Envoy, with a router and outlier detection as by default, limits of its circuit breakers out of the way, and two retries of what could
//! not connect, was reset or refused: what its documentation's examples have (it has none by itself).
//!
//! Where it is asked for: retries of a 500 too; active health checks every second; backups as endpoints of priority 1.

use std::fmt::Write;

use super::front::{CHAIN, KEY};
use super::setup::{Place, Route, Setup};

/// Of connections, waiting requests and requests: more than a run has.
const LIMIT: u32 = 100_000;

pub(super) fn configuration(setup: &Setup, place: Place<'_>) -> String {
    let address = |address: std::net::SocketAddr| {
        format!("{{socket_address: {{address: \"{}\", port_value: {}}}}}", address.ip(), address.port())
    };
    let (statuses, on) =
        if setup.retries_on_500 { (", retriable_status_codes: [500]", ",retriable-status-codes") } else { ("", "") };
    let retry = format!("{{retry_on: \"connect-failure,refused-stream,reset{on}\", num_retries: 2{statuses}}}");
    let mut routes = String::new();
    for Route { prefix, upstream, .. } in setup.routes_by_length() {
        let _ = write!(
            routes,
            "\n              - {{match: {{prefix: \"{prefix}\"}}, route: {{cluster: {upstream}, retry_policy: {retry}}}}}"
        );
    }
    let mut clusters = String::new();
    for Route { upstream, endpoints, .. } in setup.upstreams() {
        let health = if setup.health_checks {
            "\n    health_checks: [{timeout: 1s, interval: 1s, no_traffic_interval: 1s, unhealthy_threshold: 3, healthy_threshold: 2, \
             http_health_check: {path: /healthz}}]"
        } else {
            ""
        };
        let mut groups = String::new();
        for priority in [0, 1] {
            let of_group = endpoints.iter().filter(|endpoint| u8::from(endpoint.is_backup) == priority);
            let lines: String =
                of_group.map(|e| format!("\n        - {{endpoint: {{address: {}}}}}", address(e.address))).collect();
            if !lines.is_empty() {
                let _ = write!(groups, "\n      - priority: {priority}\n        lb_endpoints:{lines}");
            }
        }
        let _ = write!(
            clusters,
            "\n  - name: {upstream}\n    type: STATIC\n    connect_timeout: 5s\n    outlier_detection: {{}}\n    \
             circuit_breakers: {{thresholds: [{{max_connections: {LIMIT}, max_pending_requests: {LIMIT}, \
             max_requests: {LIMIT}, max_retries: {LIMIT}}}]}}{health}\n    load_assignment:\n      cluster_name: {upstream}\n      \
             endpoints:{groups}"
        );
    }
    let folder = place.folder.display();
    let protocols = if setup.front.is_http2 { "h2, http/1.1" } else { "http/1.1" };
    let tls = if setup.front.is_tls {
        format!(
            "\n      transport_socket:\n        name: envoy.transport_sockets.tls\n        typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n          \
             common_tls_context: {{alpn_protocols: [{protocols}], tls_certificates: [{{certificate_chain: {{filename: \"{folder}/{CHAIN}\"}}, \
             private_key: {{filename: \"{folder}/{KEY}\"}}}}]}}"
        )
    } else {
        String::new()
    };
    format!(
        "admin: {{address: {admin}}}\nstatic_resources:\n  listeners:\n  - address: {listen}\n    filter_chains:\n    - filters:\n      \
         - name: envoy.filters.network.http_connection_manager\n        typed_config:\n          \
         \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: edge\n          use_remote_address: true\n          generate_request_id: false\n          route_config:\n            \
         virtual_hosts:\n            - name: all\n              domains: [\"*\"]\n              routes:{routes}\n          http_filters:\n          \
         - name: envoy.filters.http.router\n            typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}{tls}\n  clusters:{clusters}\n",
        admin = address(place.admin),
        listen = address(place.listen),
    )
}

#[cfg(test)]
mod tests {
    use super::super::setup::tests::{place, rich};
    use super::*;

    #[test]
    fn what_is_asked_for_is_there() {
        let text = configuration(&rich(), place());
        for part in [
            "admin: {address: {socket_address: {address: \"127.0.0.1\", port_value: 9180}}}\n",
            "\n              - {match: {prefix: \"/orders/\"}, route: {cluster: orders, retry_policy: {retry_on: \
             \"connect-failure,refused-stream,reset,retriable-status-codes\", num_retries: 2, retriable_status_codes: [500]}}}",
            "\n      - priority: 1\n        lb_endpoints:\n        - {endpoint: {address: {socket_address: {address: \"127.0.0.1\", port_value: 9002}}}}",
            "\n    health_checks: [",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
