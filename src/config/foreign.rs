//! Words of other gateways: who comes from one writes its words first, and is told what they are here.

/// Keys that stand nowhere here, by the word without case, and what to write.
const KEYS: &[(&str, &str)] = &[
    // nginx
    ("server", "where it listens is a [[listener]], what it answers a [[route]], who does the work an [upstream.NAME]"),
    ("server_name", "write match = { host = \"…\" } in a [[route]]"),
    ("location", "write [[route]] with match = { path = \"…\" }"),
    ("proxy_pass", "write upstream = \"NAME\" in the route, and endpoints in [upstream.NAME]"),
    ("proxy_set_header", "write request_headers = { set = { … } } in the route"),
    ("add_header", "write response_headers = { set = { … } } in the route"),
    ("proxy_hide_header", "write response_headers = { remove = [\"…\"] } in the route"),
    ("proxy_connect_timeout", "write connect_timeout in the upstream"),
    ("proxy_read_timeout", "write timeout in the route: for the whole request, tries and all"),
    ("proxy_send_timeout", "write timeout in the route: for the whole request, tries and all"),
    ("proxy_next_upstream", "write retry = { on = […] } in the route"),
    ("proxy_next_upstream_tries", "write retry = { attempts = … } in the route"),
    ("client_max_body_size", "write max_body in the listener or the route"),
    ("client_body_timeout", "write body_timeout in the listener"),
    ("client_header_timeout", "write header_timeout in the listener"),
    ("keepalive_timeout", "write idle_timeout in the listener"),
    ("keepalive_requests", "write max_requests_per_connection in the listener"),
    ("keepalive", "write max_idle in the upstream"),
    ("real_ip_header", "write trusted_proxies in the listener"),
    ("set_real_ip_from", "write trusted_proxies in the listener"),
    ("limit_req", "write limit = [{ rate = \"…\", per = \"…\" }] in the route"),
    ("limit_conn", "write max_concurrent in the route, or max_connections_per_client in the listener"),
    ("return", "write respond = { … } or redirect = { … } in the route"),
    ("ssl_certificate", "write [listener.tls] with certificates = [{ chain = \"…\", key = \"…\" }]"),
    ("ssl_protocols", "write min_version in [listener.tls]"),
    ("worker_processes", "write workers in [gateway]"),
    ("worker_connections", "write max_connections in the listener"),
    ("least_conn", "write balance = \"least_request\" in the upstream"),
    ("ip_hash", "write balance = \"ring_hash\" and hash = \"client_ip\" in the upstream"),
    ("backup", "write priority = 1: it is used when those of priority 0 are not enough"),
    ("max_fails", "write outlier = { consecutive = … } in the upstream"),
    ("fail_timeout", "write outlier = { eject = \"…\" } in the upstream"),
    ("max_conns", "write max_requests in the upstream"),
    ("resolver_timeout", "write timeout in [resolver]"),
    ("grpc_pass", "write upstream = \"NAME\" in the route, and protocol = \"h2\" in [upstream.NAME]"),
    // HAProxy
    ("frontend", "write [[listener]], and [[route]] for what it answers"),
    ("backend", "write [upstream.NAME]"),
    ("bind", "write listen"),
    ("acl", "write match = { … } in a [[route]]"),
    ("use_backend", "write upstream = \"NAME\" in the route"),
    ("default_backend", "write a [[route]] that matches everything, with upstream = \"NAME\""),
    ("maxconn", "write max_connections in the listener, or max_requests in the upstream"),
    ("retries", "write retry = { attempts = … } in the route"),
    ("inter", "write interval in health_check"),
    ("slowstart", "write slow_start in the upstream"),
    ("stick-table", "write sticky = {} in the upstream, or balance = \"ring_hash\""),
    ("sticky_cookie", "write sticky = { cookie = \"…\" } in the upstream"),
    ("cookie_persistence", "write sticky = { cookie = \"…\" } in the upstream"),
    ("send-proxy", "write proxy_protocol = \"v1\" in the upstream"),
    ("send-proxy-v2", "write proxy_protocol = \"v2\" in the upstream"),
    ("accept-proxy", "write proxy_protocol = true in the listener"),
    ("cookie", "write sticky = { cookie = \"…\" } in the upstream"),
    ("fault_injection", "write fault = { delay = { time = \"…\" }, abort = { status = … } } in the route"),
    ("weighted_clusters", "write split = [{ upstream = \"…\", weight = … }] in the route"),
    ("split_clients", "write split = [{ upstream = \"…\", weight = … }] in the route"),
    ("shadow", "write mirror = { upstream = \"…\" } in the route"),
    ("request_mirror_policies", "write mirror = { upstream = \"…\" } in the route"),
    ("proxy_request_buffering", "write request_buffering = { max = \"…\" } in the route"),
    ("gzip", "write compression = { codings = [\"gzip\"] } in the route"),
    ("brotli", "write compression = { codings = [\"br\"] } in the route"),
    ("zstd", "write compression = { codings = [\"zstd\"] } in the route"),
    ("compress", "write compression = {} in the route"),
    ("option", "each option is a key of its own here"),
    // Envoy, Traefik, Caddy, Kong and others
    ("clusters", "write [upstream.NAME]"),
    ("services", "write [upstream.NAME]"),
    ("routers", "write [[route]]"),
    ("routes", "write [[route]]"),
    ("listeners", "write [[listener]]"),
    ("upstreams", "write [upstream.NAME]"),
    ("consumers", "write [consumer.NAME]"),
    ("entrypoints", "write [[listener]]"),
    ("middlewares", "what they do are keys of the [[route]]"),
    ("plugins", "what they do are keys of the [[route]]"),
    ("reverse_proxy", "write upstream = \"NAME\" in the route"),
    ("handle", "write [[route]] with match = { path = \"…\" }"),
    ("hosts", "write match = { host = \"…\" } in a [[route]] for each of them"),
    ("paths", "write match = { path = \"…\" } in a [[route]] for each of them"),
    ("methods", "write match = { method = [\"…\"] }"),
    ("lb_policy", "write balance"),
    ("outlier_detection", "write outlier"),
    ("circuit_breakers", "write max_requests in the upstream, and outlier"),
    ("health_checks", "write health_check"),
    ("healthcheck", "write health_check"),
    ("active_health_checks", "write health_check"),
    ("rate_limit", "write limit = [{ rate = \"…\", per = \"…\" }]"),
    ("ratelimit", "write limit = [{ rate = \"…\", per = \"…\" }]"),
    ("retry_policy", "write retry"),
    ("prefix_rewrite", "write strip_prefix or rewrite"),
    ("strip_path", "write strip_prefix"),
    ("stripprefix", "write strip_prefix"),
];

/// What others have and this version has not.
const ABSENT: &[&str] = &[
    "hedge",
    "queue",
    "auth_request",
    "forward_auth",
    "forwardauth",
    "ext_authz",
    "error_page",
    "error_pages",
    "errorfile",
    "cache",
    "proxy_cache",
    "basic_auth",
    "basicauth",
    "auth_basic",
    "http3",
    "quic",
    "lua",
    "wasm",
];

/// What serves files, which this does not.
const FILES: &[&str] = &["root", "index", "try_files", "static", "file_server", "autoindex", "alias"];

/// Words for balancing.
const BALANCE: &[(&str, &str)] = &[
    ("leastconn", "least_request"),
    ("least_conn", "least_request"),
    ("least_connections", "least_request"),
    ("least-connections", "least_request"),
    ("roundrobin", "round_robin"),
    ("round-robin", "round_robin"),
    ("rr", "round_robin"),
    ("wrr", "weighted"),
    ("ip_hash", "ring_hash"),
    ("consistent", "ring_hash"),
    ("consistent-hashing", "ring_hash"),
    ("source", "ring_hash"),
    ("uri", "ring_hash"),
    ("ewma", "peak_ewma"),
    ("p2c", "least_request"),
    ("first", "random"),
];

/// What to do about an unknown key of which others have made a habit.
pub(super) fn key(word: &str) -> Option<String> {
    let word = word.to_lowercase();
    if let Some((_, ours)) = KEYS.iter().find(|(theirs, _)| *theirs == word) {
        return Some((*ours).to_owned());
    }
    match word.as_str() {
        "websocket" | "websockets" => Some("tunnels need no key: an offer to upgrade goes on".to_owned()),
        "grpc" | "h2c" => Some("write protocol = \"h2\" in the upstream".to_owned()),
        word if ABSENT.contains(&word) => Some("this version does not have it".to_owned()),
        word if FILES.contains(&word) => Some("it serves no files; put a web server behind it".to_owned()),
        _ => None,
    }
}

/// The word of ours, among `known`, for one of theirs.
pub(super) fn word<'k>(theirs: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let theirs = theirs.to_lowercase();
    let (_, ours) = BALANCE.iter().find(|(word, _)| *word == theirs)?;
    known.into_iter().find(|word| word == ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn no_key_of_ours_is_called_somebody_else_s() {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nrespond = {}\n";
        for (word, help) in KEYS {
            assert_eq!(word.to_lowercase(), *word);
            assert!(
                KEYS.iter().filter(|(other, _)| other == word).count() == 1 && !ABSENT.contains(word),
                "{word} stands twice"
            );
            let errors = config::parse(&format!("{word} = 1\n{text}"), "f").unwrap_err().to_string();
            // where it is the name of a table of ours it is said to be one
            assert!(errors.contains(help), "{word}: {errors}");
        }
        for (theirs, ours) in BALANCE {
            let upstream = format!("[upstream.a]\nbalance = \"{theirs}\"\nendpoints = []\n");
            let errors = config::parse(&(text.to_owned() + &upstream), "f").unwrap_err().to_string();
            assert!(errors.contains(&format!("that is {ours:?} here")), "{theirs}: {errors}");
        }
    }

    #[test]
    fn who_comes_from_elsewhere_is_told_the_word() {
        assert_eq!(word("leastconn", ["random", "least_request"]), Some("least_request"));
        assert_eq!(word("leastconn", ["random"]), None);
        assert_eq!(key("Backup").unwrap(), key("backup").unwrap());
        assert!(key("lua").unwrap().contains("does not have it") && key("try_files").unwrap().contains("no files"));
        assert_eq!(key("anything"), None);
    }
}
