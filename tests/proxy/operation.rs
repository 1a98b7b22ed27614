//! What an operator sees when something is wrong: the right word in the log, a number that moves, a line on standard error.

use crate::support::{Driver, Gate, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, on_both_drivers};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// The access log's last line, once there are `count`.
fn line(file: &Path, count: usize) -> Value {
    let text = eventually("the log has its lines", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        (text.lines().count() >= count && text.ends_with('\n')).then_some(text)
    });
    serde_json::from_str(text.lines().last().expect("at least one")).expect("JSON")
}

fn log_to(file: &Path) -> String {
    format!("[access_log]\npath = \"{}\"\n\n", file.display())
}

/// Waits for a line with all of these words on standard error.
pub(crate) fn said(gateway: &mut Gateway, words: &[&str]) {
    eventually("it is said on standard error", || {
        let said = gateway.running().stderr();
        said.iter().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    });
}

on_both_drivers! {
    fn an_endpoint_that_asks_to_be_left_alone_is_shown_as_paused(driver: Driver) {
        let busy = Upstream::answering(|_, conn| {
            conn.send("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n");
        });
        let fine = Upstream::always("fine");
        let endpoints = format!("{{ address = \"{}\" }}, {{ address = \"{}\", priority = 1 }}", busy.address(), fine.address());
        let mut gateway = Gateway::start(driver, &behind_endpoints(&endpoints, "", ""));
        for _ in 0..5 {
            assert_eq!(gateway.get("/").text(), "fine");
        }
        assert_eq!(busy.requests().len(), 1, "it is left alone");
        let labels = [("upstream", "svc"), ("endpoint", busy.address())];
        eventually("the gauge follows", || (gateway.metric("ringgate_endpoint_available", &labels) == 0.0).then_some(()));
        let [upstream, endpoint] = labels;
        let why = [upstream, endpoint, ("reason", "retry_after")];
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &why), 1.0);
        let page = gateway.admin("/upstreams").json();
        let row = &page["upstreams"][0]["endpoints"][0];
        assert_eq!(row["states"]["paused"], 1, "{row}");
        assert!(row["readmitted_in_seconds"].as_f64().is_some_and(|left| left > 1.0 && left <= 60.0), "{row}");
        said(&mut gateway, &["paused", "upstream=svc", "reason=retry_after"]);
    }

    fn a_service_that_stalls_within_its_response_is_named(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            conn.wait_for_close();
        });
        let config = log_to(&file) + &behind(&[&upstream], "timeout = \"600s\"", "");
        let setup = Setup { listener: "body_timeout = \"300ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.try_read("GET").is_err(), "it must not look whole");
        let line = line(&file, 1);
        assert_eq!((line["error"].as_str(), line["status"].as_u64()), (Some("upstream_body_timeout"), Some(200)), "{line}");
    }

    fn a_client_that_does_not_read_is_named(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20));
            while conn.send(vec![b'x'; 1 << 16]) {}
        });
        let config = log_to(&file) + &behind(&[&upstream], "timeout = \"600s\"", "");
        let setup = Setup { listener: "body_timeout = \"500ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.stream().set_small_buffers();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let line = line(&file, 1);
        assert_eq!(line["error"], "client_write_timeout", "{line}");
    }

    fn a_head_that_is_refused_is_logged_as_far_as_it_was_read(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("access.log");
        let upstream = Upstream::always("never");
        let config = log_to(&file) + &behind(&[&upstream], "", "");
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        client.send("GET /a?b=1 HTTP/1.1\r\nHost : x\r\n\r\n");
        let reply = client.read_to_end().expect("a reply");
        let refused = line(&file, 1);
        assert_eq!((refused["method"].as_str(), refused["target"].as_str()), (Some("GET"), Some("/a?b=1")), "{refused}");
        assert_eq!((refused["version"].as_str(), refused["status"].as_u64()), (Some("1.1"), Some(400)), "{refused}");
        assert_eq!(refused["response_bytes"].as_u64(), Some(reply.len() as u64), "{refused}");
        let mut client = gateway.client();
        client.send("\u{16}\u{3}\u{1} nonsense\r\n\r\n");
        client.read("GET").assert_rejected(400, "bad_request");
        let refused = line(&file, 2);
        assert!(["method", "target", "version"].iter().all(|name| refused[*name].is_null()), "{refused}");
    }

    fn connections_beyond_the_limit_are_said_and_not_each_of_them(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "max_connections = 1", config: &config, ..Setup::default() };
        let mut gateway = Gateway::start_with(driver, &setup);
        let mut first = gateway.client();
        assert_eq!(first.get("/").status, 200);
        for _ in 0..20 {
            gateway.client().assert_closed();
        }
        said(&mut gateway, &["WARN", "connections refused", "listener=edge", "max_connections=1"]);
        let lines = gateway.running().stderr();
        let told = lines.iter().filter(|line| line.contains("connections refused")).count();
        assert!(told < 5, "at most every ten seconds: {lines:?}");
        assert_eq!(gateway.metric("ringgate_connections_refused_total", &[("listener", "edge")]), 20.0);
        let accepted = gateway.metric("ringgate_connections_accepted_total", &[("listener", "edge")]);
        assert_eq!(accepted, 1.0 + 20.0, "those included that were refused");
    }

    fn running_out_of_descriptors_is_said_and_gets_over(driver: Driver) {
        let upstream = Upstream::always("ok");
        let mut gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        assert_eq!(gateway.get("/").status, 200);
        let before = gateway.running().limit_descriptors("1");
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        said(&mut gateway, &["ERROR", "connections wait", "listener=edge", "Too many open files"]);
        gateway.running().limit_descriptors(&before);
        assert_eq!(client.read("GET").text(), "ok");
        assert!(gateway.metric("ringgate_accept_exhausted_total", &[("listener", "edge")]) >= 1.0);
    }

    fn a_drain_that_is_cut_short_says_what_it_cut(driver: Driver) {
        let asked = Arc::new(Gate::default());
        let seen = Arc::clone(&asked);
        let upstream = Upstream::scripted(move |conn| {
            conn.head();
            seen.open();
            conn.wait_for_close();
        });
        let config = behind(&[&upstream], "timeout = \"600s\"", "");
        let mut gateway = Gateway::start_with(driver, &Setup { drain_timeout: "2s", config: &config, ..Setup::default() });
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        asked.wait();
        gateway.running().signal("TERM");
        said(&mut gateway, &["WARN", "drain_timeout", "connections=1", "requests=1"]);
        assert_eq!(gateway.running().wait().code(), Some(0));
    }

    fn a_log_that_cannot_be_opened_again_is_said(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("logs");
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("access.log");
        let upstream = Upstream::always("ok");
        let mut gateway = Gateway::start(driver, &(log_to(&file) + &behind(&[&upstream], "", "")));
        std::fs::rename(&folder, dir.path().join("moved")).unwrap();
        gateway.running().signal("USR1");
        said(&mut gateway, &["WARN", "access.log", "No such file"]);
    }

    fn the_first_line_says_what_runs(driver: Driver) {
        let upstream = Upstream::always("ok");
        let mut gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        let version = concat!("ringgate version=", env!("CARGO_PKG_VERSION"));
        said(&mut gateway, &["INFO", version, "revision=", "config=/"]);
    }
}
