//! The admin listener: metrics that add up, health, and what the gateway knows of its upstreams and routes.

use crate::support::gateway::series;
use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use serde_json::{Value, json};

on_both_drivers! {
    fn metrics_count_what_clients_did(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "limit = [ { rate = \"3/h\", burst = 3, per = \"header:x-key\" } ]", "");
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").status, 200);
        }
        assert_eq!(client.get("/").status, 429);
        assert_eq!(client.request("POST", "/", &[("X-Key", "other")], b"x").status, 200);
        let requests = |method: &str, code: &str| {
            gateway.metric("ringgate_requests_total", &[("route", "all"), ("method", method), ("code", code)])
        };
        eventually("all are counted", || {
            let counts = [requests("GET", "200"), requests("GET", "429"), requests("POST", "200")];
            (counts == [3.0, 1.0, 1.0]).then_some(())
        });
        assert_eq!(gateway.metric("ringgate_rejected_total", &[("route", "all"), ("reason", "rate_limited")]), 1.0);
        let attempts = [("upstream", "svc"), ("endpoint", upstream.address()), ("outcome", "success")];
        assert_eq!(gateway.metric("ringgate_upstream_attempts_total", &attempts), 4.0);
        assert_eq!(gateway.metric("ringgate_request_duration_seconds_count", &[("route", "all")]), 5.0);
        assert!(gateway.metric("ringgate_upstream_duration_seconds_count", &[("upstream", "svc")]) >= 4.0);
        eventually("gauges follow", || {
            let downstream = gateway.metric("ringgate_connections", &[("listener", "edge")]);
            let idle = gateway.metric("ringgate_upstream_connections", &[("upstream", "svc"), ("state", "idle")]);
            ((downstream, idle) == (1.0, 1.0)).then_some(())
        });
    }

    fn the_metrics_page_is_the_prometheus_text_format(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        assert_eq!(gateway.get("/").status, 200);
        let page = gateway.admin("/metrics");
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{page:?}");
        let text = page.text();
        let mut typed = Vec::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.split(' ');
                let (kind, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(matches!(kind, "HELP" | "TYPE"), "{line}");
                if kind == "TYPE" {
                    assert!(!typed.contains(&name), "{name} is declared twice");
                    typed.push(name);
                }
                continue;
            }
            let Some(series) = series(line) else { panic!("not a series: {line:?}") };
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.name.strip_suffix(end));
            let declared = typed.contains(&series.name) || family.is_some_and(|family| typed.contains(&family));
            assert!(declared, "{} has no TYPE before it", series.name);
        }
        assert!(text.contains("ringgate_worker_"), "the workers are in the metrics");
    }

    fn histogram_buckets_grow_up_to_the_count(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for _ in 0..10 {
            client.get("/");
        }
        eventually("all are counted", || {
            (gateway.metric("ringgate_request_duration_seconds_count", &[("route", "all")]) == 10.0).then_some(())
        });
        let page = gateway.admin("/metrics").text();
        let buckets: Vec<f64> = page
            .lines()
            .filter_map(series)
            .filter(|s| s.name == "ringgate_request_duration_seconds_bucket" && s.has(&[("route", "all")]))
            .map(|s| s.value)
            .collect();
        assert!(buckets.len() > 5 && buckets.is_sorted() && buckets.last() == Some(&10.0), "{buckets:?}");
    }

    fn health_state_and_configuration_are_served(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        assert_eq!(gateway.get("/").status, 200);
        assert_eq!((gateway.admin("/healthz").status, gateway.admin("/readyz").status), (200, 200));
        for (path, part) in [("/upstreams", upstream.address()), ("/routes", "all"), ("/config", "svc")] {
            let page = gateway.admin(path);
            assert_eq!(page.status, 200, "{path}");
            assert!(page.json().to_string().contains(part), "{part} in {path}: {}", page.text());
        }
        assert_eq!(gateway.admin("/nothing").status, 404);
        assert_eq!(Client::connect(gateway.address("admin")).request("DELETE", "/metrics", &[], b"").status, 405);
    }

    fn what_is_configured_is_shown_under_the_file_s_keys(driver: Driver) {
        let upstream = Upstream::always("ok");
        let route = "[route.retry]\nattempts = 4\non = [\"connect\", \"503\"]\nnon_idempotent = true\nper_try_timeout = \"1500ms\"\n\
             backoff_max = \"2s\"\nmin_remaining = \"20%\"";
        let cluster = "connect_timeout = \"3s\"\nidle_timeout = \"20s\"\nmax_idle = 7\nmax_requests = 9\nproxy_protocol = \"v2\"\n\
             retry_after_max = \"45s\"\nspill = \"none\"\nslow_start = \"4s\"\n\
             retry_budget = { ratio = 0.5, min_per_second = 6 }\n\
             outlier = { consecutive = 8, min_success = 0.25, min_requests = 20, window = \"30s\", eject = \"5s\", eject_max = \"50s\" }";
        let listener = "max_connections_per_client = 11\nmax_requests_per_connection = 12\nmax_connection_age = \"13s\"\n\
             min_body_rate = \"1KiB/s\"\nheader_underscores = \"keep\"\nencoded_separators = \"keep\"\nserver = \"edge\"";
        let config = behind(&[&upstream], route, cluster);
        let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
        let page = gateway.admin("/config").json();
        let shown = |table: &Value, expected: Value| {
            for (key, value) in expected.as_object().expect("a table") {
                assert_eq!(&table[key], value, "{key} in {table}");
            }
        };
        shown(&page["route"][0]["retry"], json!({
            "attempts": 4, "on": ["connect", "503"], "non_idempotent": true, "per_try_timeout": "1500ms", "backoff_max": "2s",
            "min_remaining": "20%",
        }));
        shown(&page["upstream"]["svc"], json!({
            "connect_timeout": "3s", "idle_timeout": "20s", "max_idle": 7, "max_requests": 9, "proxy_protocol": "v2",
            "retry_after_max": "45s", "spill": "none", "slow_start": "4s", "retry_budget": { "ratio": 0.5, "min_per_second": 6 },
            "outlier": { "enabled": true, "consecutive": 8, "min_success": 0.25, "min_requests": 20, "window": "30s", "eject": "5s", "eject_max": "50s" },
        }));
        shown(&page["listener"][0], json!({
            "max_connections_per_client": 11, "max_requests_per_connection": 12, "max_connection_age": "13s", "min_body_rate": "1KiB/s",
            "proxy_protocol": false, "header_underscores": "keep", "encoded_separators": "keep", "server": "edge",
        }));
    }

    fn usage_names_the_route_and_the_client(driver: Driver) {
        let upstream = Upstream::always("some bytes");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        for _ in 0..7 {
            client.get("/");
        }
        eventually("usage has them", || {
            let page = gateway.admin("/usage?by=requests&top=5").json().to_string();
            (page.contains("all") && page.contains("127.0.0.1") && page.contains(":7")).then_some(())
        });
    }

    fn nothing_of_the_admin_listener_is_on_the_edge(driver: Driver) {
        let config = "[[route]]\nname = \"one\"\nmatch = { path = \"/one\" }\nrespond = { status = 200, body = \"1\" }\n";
        let gateway = Gateway::start(driver, config);
        for path in ["/metrics", "/config", "/healthz", "/drain"] {
            gateway.get(path).assert_rejected(404, "no_route");
        }
    }

    fn other_names_get_nothing_of_the_admin_listener(driver: Driver) {
        let gateway = Gateway::start(driver, "[[route]]\nrespond = {}\n");
        let ask = |host: &str| {
            Client::connect(gateway.address("admin")).request("GET", "/metrics", &[("Host", host)], b"").status
        };
        assert_eq!(["evil.example", "127.0.0.1.evil.example", "10.9.9.9"].map(ask), [421; 3]);
        assert_eq!(["localhost", "127.0.0.1:1", "test"].map(ask), [200; 3], "its own, and what the file says");
    }
}
