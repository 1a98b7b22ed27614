//! Active health checks: what they ask, what they find, in which words they say it, and that nobody's checks wait for another's.

use crate::operation::said;
use crate::support::gateway::series;
use crate::support::{Client, Driver, Gateway, Upstream, behind, behind_endpoints, eventually, on_both_drivers};
use serde_json::Value;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The metric of one endpoint on this page, if it is there.
fn value(page: &str, name: &str, endpoint: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut found = page.lines().filter_map(series);
    found.find(|s| s.name == name && s.has(&[("endpoint", endpoint)]) && s.has(labels)).map(|s| s.value)
}

/// `health_check` of one endpoint in `/upstreams`.
fn shown(gateway: &Gateway, endpoint: &str) -> Value {
    let page = gateway.admin("/upstreams").json();
    let upstreams = page["upstreams"].as_array().expect("a list").iter();
    let mut endpoints = upstreams.flat_map(|upstream| upstream["endpoints"].as_array().expect("a list"));
    endpoints.find(|row| row["address"] == endpoint).expect("every endpoint is shown")["health_check"].clone()
}

/// Waits until the endpoint is down, and looks for the reason wherever it stands.
fn assert_down(gateway: &mut Gateway, upstream: &str, endpoint: &str, reason: &str) {
    let word = reason.split(' ').next().expect("a word");
    eventually(reason, || (shown(gateway, endpoint)["reason"] == reason).then_some(()));
    let check = shown(gateway, endpoint);
    assert_eq!(check["state"], "unhealthy", "{check}");
    assert!(check["failures"][word].as_u64().is_some_and(|count| count >= 1), "{check}");
    assert!(check["last_check_age_seconds"].as_f64().is_some_and(|age| age >= 0.0), "{check}");
    let page = gateway.admin("/metrics").text();
    let labels = [("upstream", upstream), ("reason", word)];
    assert!(value(&page, "ringgate_health_check_failures_total", endpoint, &labels) >= Some(1.0), "{reason}");
    assert!(value(&page, "ringgate_health_checks_total", endpoint, &[("result", "failed")]) >= Some(1.0), "{reason}");
    assert_eq!(value(&page, "ringgate_health_check_healthy", endpoint, &[]), Some(0.0), "{reason}");
    assert!(value(&page, "ringgate_health_check_age_seconds", endpoint, &[]) >= Some(0.0), "{reason}");
    let words = [
        "WARN",
        "unhealthy",
        &format!("upstream={upstream}"),
        &format!("endpoint={endpoint}"),
        &format!("reason=\"{reason}\""),
    ];
    said(gateway, &words);
}

on_both_drivers! {
    fn a_verdict_says_why_in_the_same_words_everywhere(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let mut refusing = Upstream::always("ok");
        refusing.stop();
        let absent = format!("unix:{}", dir.path().join("absent.sock").display());
        let failing = Upstream::answering(|_, conn| conn.reply(503, "ok"));
        let wrong = Upstream::always("I am down");
        let foreign = Upstream::scripted(|conn| {
            conn.head();
            conn.send("SSH-2.0-OpenSSH_9.7\r\n");
        });
        let closing = Upstream::scripted(|conn| {
            conn.head();
        });
        let hanging = Upstream::scripted(|conn| conn.wait_for_close());
        let addresses = [refusing.address(), &absent, failing.address(), wrong.address(), foreign.address(), closing.address()];
        let endpoints = addresses.map(|address| format!("{{ address = \"{address}\" }}")).join(", ");
        let check = "health_check = { path = \"/\", interval = \"100ms\", timeout = \"60s\", body = \"ok\" }";
        let brief = "health_check = { path = \"/\", interval = \"100ms\", timeout = \"200ms\" }";
        let config = format!(
            "{}[upstream.hung]\nendpoints = [{{ address = \"{}\" }}]\n{brief}\n",
            behind_endpoints(&endpoints, "", check),
            hanging.address()
        );
        let mut gateway = Gateway::start(driver, &config);
        let reasons = ["refused", "unreachable", "status 503", "body", "protocol", "closed"];
        for (address, reason) in addresses.into_iter().zip(reasons) {
            assert_down(&mut gateway, "svc", address, reason);
        }
        assert_down(&mut gateway, "hung", hanging.address(), "timeout");
    }

    fn an_endpoint_that_comes_back_has_no_reason_any_more(driver: Driver) {
        let sick = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&sick);
        let upstream = Upstream::answering(move |_, conn| {
            if failing.load(Ordering::SeqCst) { conn.reply(500, "sick") } else { conn.reply(200, "well") }
        });
        let check = "health_check = { path = \"/\", interval = \"100ms\", timeout = \"60s\", rise = 2, fall = 2 }";
        let mut gateway = Gateway::start(driver, &behind(&[&upstream], "", check));
        let address = upstream.address();
        let up = |gateway: &Gateway| eventually("it is found healthy", || (shown(gateway, address)["state"] == "healthy").then_some(()));
        up(&gateway);
        sick.store(true, Ordering::SeqCst);
        assert_down(&mut gateway, "svc", address, "status 500");
        let verdicts = |gateway: &mut Gateway| {
            let lines = gateway.running().stderr();
            lines.iter().filter(|line| line.contains("INFO") && line.contains(&format!("healthy upstream=svc endpoint={address}"))).count()
        };
        assert_eq!(verdicts(&mut gateway), 1);
        sick.store(false, Ordering::SeqCst);
        up(&gateway);
        assert_eq!(shown(&gateway, address)["reason"], Value::Null);
        assert_eq!(verdicts(&mut gateway), 2);
        let page = gateway.admin("/metrics").text();
        assert_eq!(value(&page, "ringgate_health_check_healthy", address, &[]), Some(1.0));
        assert!(value(&page, "ringgate_health_checks_total", address, &[("result", "passed")]) >= Some(3.0));
        assert!(value(&page, "ringgate_health_check_failures_total", address, &[("reason", "status")]) >= Some(2.0));
    }

    fn a_check_asks_what_the_file_says_and_looks_into_the_body(driver: Driver) {
        let sick = Arc::new(AtomicBool::new(false));
        let failing = Arc::clone(&sick);
        let checked = Upstream::answering(move |request, conn| {
            let status = if failing.load(Ordering::SeqCst) { "DOWN" } else { "UP" };
            if request.target == "/deep?x=1" {
                let head = "HTTP/1.1 204 No Content\r\n\r\n";
                let page = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{{\"is\": \r\n6\r\n\"{status:<4}\"\r\n1\r\n}}\r\n0\r\n\r\n");
                conn.send(if request.method == "OPTIONS" { page.as_str() } else { head });
            } else {
                conn.reply(200, "work");
            }
        });
        let check = "[upstream.svc.health_check]\npath = \"/deep?x=1\"\nmethod = \"OPTIONS\"\nhost = \"app.example.com:81\"\n\
                     headers = { X-Token = \"s3cr3t\", user-agent = \"checker\" }\nexpect = \"200\"\nbody = \"~\\\"is\\\": \\\"(UP|up) *\\\"\"\n\
                     interval = \"100ms\"\ntimeout = \"60s\"\nfall = 1\n";
        let mut gateway = Gateway::start(driver, &behind(&[&checked], "", check));
        let address = checked.address();
        eventually("it is found healthy", || (shown(&gateway, address)["state"] == "healthy").then_some(()));
        let asked = checked.requests().into_iter().find(|request| request.target == "/deep?x=1").expect("it was asked");
        assert_eq!(asked.method, "OPTIONS");
        assert_eq!((asked.header("host"), asked.count("host")), (Some("app.example.com:81"), 1));
        assert_eq!(asked.header("x-token"), Some("s3cr3t"));
        assert_eq!((asked.header("user-agent"), asked.count("user-agent")), (Some("checker"), 1));
        let probe = gateway.admin("/config").json()["upstream"]["svc"]["health_check"].clone();
        assert_eq!((&probe["method"], &probe["host"]), (&"OPTIONS".into(), &"app.example.com:81".into()), "{probe}");
        assert!(!gateway.admin("/config").text().contains("s3cr3t"), "a header's value may be a secret");
        sick.store(true, Ordering::SeqCst);
        assert_down(&mut gateway, "svc", address, "body");
    }

    fn hanging_endpoints_of_one_upstream_do_not_hold_up_the_checks_of_another(driver: Driver) {
        // nobody accepts here: connections wait in the backlog, or are not even made
        let silent = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let hanging: Vec<_> =
            (0..600).map(|n| format!("{{ address = \"127.0.{}.{}:{port}\" }}", 1 + n / 200, 1 + n % 200)).collect();
        let fine = Upstream::always("fine");
        let config = format!(
            "{}[upstream.other]\nendpoints = [{{ address = \"{}\" }}]\nhealth_check = {{ path = \"/\", interval = \"100ms\", timeout = \"60s\" }}\n",
            behind_endpoints(&hanging.join(", "), "", "health_check = { path = \"/\", interval = \"100ms\", timeout = \"1h\" }"),
            fine.address()
        );
        let gateway = Gateway::start(driver, &config);
        eventually("the other upstream is checked again and again", || (fine.requests().len() >= 10).then_some(()));
        let checks = |upstream, result| gateway.metric("ringgate_health_checks_total", &[("upstream", upstream), ("result", result)]);
        eventually("its checks pass", || (checks("other", "passed") >= 10.0).then_some(()));
        assert_eq!(checks("svc", "failed") + checks("svc", "passed") + checks("svc", "exhausted"), 0.0, "all of them hang");
    }

    fn missing_descriptors_are_not_held_against_endpoints(driver: Driver) {
        let upstream = Upstream::always("ok");
        let check = "health_check = { path = \"/\", interval = \"100ms\", timeout = \"60s\", fall = 1 }";
        let mut gateway = Gateway::start(driver, &behind(&[&upstream], "", check));
        let address = upstream.address();
        eventually("it is found healthy", || (shown(&gateway, address)["state"] == "healthy").then_some(()));
        // a connection to ask with while no other can be made
        let mut admin = Client::connect(gateway.address("admin"));
        let mut checks = |result: &str| {
            let page = admin.get("/metrics").text();
            assert_eq!(value(&page, "ringgate_health_check_healthy", address, &[]), Some(1.0), "nothing was found out");
            value(&page, "ringgate_health_checks_total", address, &[("result", result)]).expect("checks are counted")
        };
        assert_eq!(checks("exhausted"), 0.0);
        let before = gateway.running().limit_descriptors("1");
        said(&mut gateway, &["ERROR", "health checks cannot be made", "Too many open files"]);
        eventually("checks say nothing", || (checks("exhausted") >= 3.0).then_some(()));
        gateway.running().limit_descriptors(&before);
        let passed = checks("passed");
        eventually("checks pass again", || (checks("passed") > passed).then_some(()));
        assert_eq!(checks("failed"), 0.0);
    }
}
