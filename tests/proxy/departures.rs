//! Clients that leave while something is being waited for on their behalf: the wait ends, their places are free, nothing more is sent for
//! them, and the log says that it was they who left. Every other limit in here is far beyond what a test may take.

use crate::support::upstream::Blackhole;
use crate::support::{Client, Driver, Gate, Gateway, Upstream, behind, behind_endpoints, eventually, on_every_step};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Nothing but the client's leaving ends a wait, and whoever waits keeps everybody else out.
const PATIENT: &str = "timeout = \"600s\"\nmax_concurrent = 1";
const NO_EJECTION: &str = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 1000 }";

/// How a client leaves, and whether the gateway can know it at once.
const LEAVES: [fn(&Client); 2] = [|client| client.stream().reset_on_close(), |client| client.stream().end()];

fn log_to(file: &Path) -> String {
    format!("[access_log]\npath = \"{}\"\n\n", file.display())
}

/// The log's lines about requests that were admitted, once there are `count`.
fn admitted(file: &Path, count: usize) -> Vec<Value> {
    eventually("the log has its lines", || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"));
        let lines: Vec<_> = lines.filter(|line| line["error"] != "concurrency_limited").collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// A request of every kind of leaver for whom `wait_begins` says when the wait has begun. Each has to make room for the next.
fn assert_waits_end(gateway: &Gateway, log: &Path, mut wait_begins: impl FnMut(usize)) {
    for (number, leave) in LEAVES.iter().enumerate() {
        let mut client = gateway.client();
        client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
        wait_begins(number);
        gateway.get("/refused").assert_rejected(503, "concurrency_limited");
        leave(&client);
        // who has ended only its own direction sees the other end
        if number == 0 {
            drop(client);
        } else {
            client.assert_closed();
        }
        let line = admitted(log, number + 1).pop().expect("as many as were asked for");
        let said = (line["status"].as_u64(), line["error"].as_str(), line["target"].as_str());
        assert_eq!(said, (Some(499), Some("client_closed"), Some("/waits")), "{line}");
    }
    gateway.assert_nothing_left();
}

on_every_step! {
    fn who_leaves_while_a_connection_is_being_made_waits_for_it_no_longer(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let blackhole = Blackhole::new();
        let endpoint = format!("{{ address = \"{}\" }}", blackhole.address());
        let config = log_to(&log) + &behind_endpoints(&endpoint, PATIENT, "connect_timeout = \"600s\"");
        let gateway = Gateway::start(driver, &config);
        let active = || gateway.metric("ringgate_upstream_connections", &[("state", "active")]);
        assert_waits_end(&gateway, &log, |_| eventually("it is under way", || (active() == 1.0).then_some(())));
        let cancelled = gateway.metric("ringgate_upstream_attempts_total", &[("outcome", "cancelled")]);
        assert_eq!(cancelled, LEAVES.len() as f64, "it says nothing about the endpoint");
    }

    fn who_leaves_while_a_head_is_waited_for_waits_for_it_no_longer(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let silent = Upstream::scripted(|conn| {
            conn.head();
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &(log_to(&log) + &behind(&[&silent], PATIENT, "")));
        assert_waits_end(&gateway, &log, |number| {
            eventually("it is asked", || (silent.requests().len() == number + 1).then_some(()));
        });
        assert_eq!(silent.requests().len(), LEAVES.len(), "asked once each");
    }

    fn who_leaves_before_a_backoff_is_over_is_asked_for_no_more(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let (asked, left) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
        let (asking, leaving) = (Arc::clone(&asked), Arc::clone(&left));
        let busy = Upstream::answering(move |_, conn| {
            asking.open();
            leaving.wait();
            conn.reply(503, "busy");
        });
        let route = format!("{PATIENT}\n[route.retry]\nattempts = 15");
        let gateway = Gateway::start(driver, &(log_to(&log) + &behind(&[&busy], &route, NO_EJECTION)));
        let mut client = gateway.client();
        client.send("GET /waits HTTP/1.1\r\nHost: x\r\n\r\n");
        asked.wait();
        client.stream().reset_on_close();
        drop(client);
        // there is no other endpoint, so the answer is followed by a backoff
        left.open();
        let line = &admitted(&log, 1)[0];
        assert_eq!((line["status"].as_u64(), line["error"].as_str()), (Some(499), Some("client_closed")), "{line}");
        gateway.assert_nothing_left();
        assert_eq!(busy.requests().len(), 1, "nothing is sent for nobody");
    }
}
