//! What is known when the configuration changes, and is known after it: of endpoints, limits, connections; and what ends.

use crate::support::gateway::behind_endpoints;
use crate::support::{Client, Driver, Gate, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::sync::Arc;

fn file(driver: Driver, config: &str) -> String {
    Setup { workers: 2, config, ..Setup::default() }.file(driver)
}

fn start(driver: Driver, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { workers: 2, config, ..Setup::default() })
}

/// An unrelated route, so that something changes.
fn beside(number: usize) -> String {
    format!("[[route]]\nname = \"beside-{number}\"\nmatch = {{ path = \"/beside/{number}\" }}\nrespond = {{}}\n\n")
}

on_both_drivers! {
    fn a_rate_limit_is_as_exact_over_reloads_as_without(driver: Driver) {
        let upstream = Upstream::always("ok");
        for per in ["route", "client_ip"] {
            let limit = format!("limit = [ {{ rate = \"1/h\", burst = 30, per = \"{per}\" }} ]").replace("1/h", "1/min");
            let config = |number| beside(number) + &behind(&[&upstream], &limit, "");
            let mut gateway = start(driver, &config(0));
            let mut clients = [gateway.client(), gateway.client()];
            let began = std::time::Instant::now();
            let mut passed = 0;
            for number in 1..=20 {
                for client in &mut clients {
                    passed += [0, 1, 2].map(|_| usize::from(client.get("/").status == 200)).iter().sum::<usize>();
                }
                gateway.reload_well(&file(driver, &config(number)));
            }
            let earned = began.elapsed().as_secs() as usize / 60 + 1;
            assert!((30..=30 + earned).contains(&passed), "{per}: {passed} of 120 passed, and {earned} came");
        }
    }

    fn a_rate_that_changes_gives_nobody_a_fresh_burst(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = |burst: usize| {
            behind(&[&upstream], &format!("limit = [ {{ rate = \"1/min\", burst = {burst}, per = \"route\" }} ]"), "")
        };
        let mut gateway = start(driver, &config(40));
        let mut client = gateway.client();
        assert!((0..35).all(|_| client.get("/").status == 200));
        gateway.reload_well(&file(driver, &config(60)));
        let passed = (0..60).filter(|_| client.get("/").status == 200).count();
        assert!((5..=7).contains(&passed), "five were left, and a minute may have passed: {passed}");
    }

    fn places_under_a_limit_are_kept_and_given_back(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = Upstream::holding("/slow", &gate);
        let config = |max: usize| behind(&[&upstream], &format!("timeout = \"600s\"\nmax_concurrent = {max}"), "");
        let mut gateway = start(driver, &config(2));
        let mut busy = [gateway.client(), gateway.client()];
        for client in &mut busy {
            client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        eventually("both are in flight", || (upstream.requests().len() == 2).then_some(()));
        for (max, status) in [(2, 503), (3, 200), (1, 503)] {
            gateway.reload_well(&file(driver, &config(max)));
            assert_eq!(gateway.get("/").status, status, "max_concurrent = {max}");
        }
        gate.open();
        for client in &mut busy {
            assert_eq!(client.read("GET").status, 200);
        }
        for max in [1, 2] {
            gateway.reload_well(&file(driver, &config(max)));
            assert_eq!(gateway.get("/").status, 200, "max_concurrent = {max}");
        }
        gateway.await_gauges();
        eventually("nothing is in flight", || (gateway.metric("ringgate_endpoint_in_flight", &[]) == 0.0).then_some(()));
    }

    fn an_ejected_endpoint_stays_ejected(driver: Driver) {
        let (good, mut bad) = (Upstream::always("good"), Upstream::always("bad"));
        bad.stop();
        let config = |number, weight| {
            let (good, bad) = (good.address(), bad.address());
            let endpoints = format!("{{ address = \"{bad}\" }}, {{ address = \"{good}\", weight = {weight} }}");
            beside(number) + &behind_endpoints(&endpoints, "", "balance = \"round_robin\"\noutlier = { eject = \"300s\", eject_max = \"300s\" }")
        };
        let mut gateway = start(driver, &config(0, 100));
        let mut client = gateway.client();
        let labels = [("endpoint", bad.address())];
        let attempts = |gateway: &Gateway| gateway.metric("ringgate_upstream_attempts_total", &labels);
        eventually("it is ejected", || {
            assert_eq!(client.get("/").text(), "good");
            (gateway.metric("ringgate_endpoint_ejections_total", &labels) == 1.0).then_some(())
        });
        let before = attempts(&gateway);
        // the cluster stays as it is, then it changes too
        for (number, weight) in [(1, 100), (2, 50), (3, 50)] {
            gateway.reload_well(&file(driver, &config(number, weight)));
            assert!((0..20).all(|_| client.get("/").text() == "good"));
            assert_eq!(attempts(&gateway), before, "nobody has asked it");
            assert_eq!(gateway.metric("ringgate_endpoint_available", &labels), 0.0);
        }
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &labels), 1.0);
    }

    fn connections_to_endpoints_that_stay_are_kept_and_those_to_others_end(driver: Driver) {
        let (stays, goes) = (Upstream::always("stays"), Upstream::always("goes"));
        // who comes back has its whole share at once
        let balance = "balance = \"round_robin\"\nslow_start = \"0s\"";
        let mut gateway = start(driver, &behind(&[&stays, &goes], "", balance));
        let mut client = gateway.client();
        let mut seen = [client.get("/").text(), client.get("/").text()];
        seen.sort();
        assert_eq!(seen, ["goes", "stays"]);
        gateway.await_gauges();
        gateway.reload_well(&file(driver, &behind(&[&stays], "", balance)));
        assert!((0..10).all(|_| client.get("/").text() == "stays"));
        assert_eq!((stays.connections(), goes.requests().len()), (1, 1), "one connection, and nothing new for who is gone");
        let idle = || gateway.metric("ringgate_upstream_connections", &[("state", "idle")]);
        eventually("the one to who is gone has ended", || (idle() == 1.0).then_some(()));
        gateway.reload_well(&file(driver, &behind(&[&goes, &stays], "", balance)));
        assert!((0..10).any(|_| client.get("/").text() == "goes"), "and who comes back is asked again");
        assert_eq!(stays.connections(), 1);
    }

    fn a_request_in_flight_ends_at_the_endpoint_that_is_gone(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let waiting = Arc::clone(&gate);
        let old = Upstream::answering(move |_, conn| {
            waiting.wait();
            conn.reply(200, "old");
        });
        let new = Upstream::always("new");
        let mut gateway = start(driver, &behind(&[&old], "timeout = \"600s\"", ""));
        let mut busy = gateway.client();
        busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("it is asked", || (old.requests().len() == 1).then_some(()));
        gateway.reload_well(&file(driver, &behind(&[&new], "", "")));
        assert_eq!(gateway.get("/").text(), "new");
        gate.open();
        assert_eq!(busy.read("GET").text(), "old");
        assert_eq!(busy.get("/").text(), "new", "the next one on the same connection");
        assert_eq!(old.requests().len(), 1);
    }

    fn the_access_log_begins_moves_and_ends_and_knows_the_names_of_each_time(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let log = |name: &str, format: &str| format!("[access_log]\npath = \"{}\"\nformat = \"{format}\"\n\n", path(name));
        let route = |name: &str| format!("[[route]]\nname = \"{name}\"\nrespond = {{ body = \"x\" }}\n\n");
        let lines = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
        let mut gateway = start(driver, &route("silent"));
        let mut client = gateway.client();
        client.get("/silent");
        for (config, target) in [
            (log("one", "json") + &route("first"), "/1"),
            (log("one", "combined") + &beside(0) + &route("second"), "/2"),
            (log("two", "json") + &route("third"), "/3"),
            (route("silent"), "/4"),
        ] {
            gateway.reload_well(&file(driver, &config));
            assert_eq!(client.get(target).status, 200);
        }
        eventually("all is written", || (lines("one").lines().count() == 2 && lines("two").lines().count() == 1).then_some(()));
        let one = lines("one");
        let written: Vec<_> = one.lines().collect();
        assert!(written[0].contains("\"route\":\"first\"") && written[0].contains("\"target\":\"/1\""), "{one}");
        assert!(written[1].contains("route=\"second\"") && written[1].contains("\"GET /2 HTTP/1.1\""), "{one}");
        assert!(lines("two").contains("\"route\":\"third\""), "{}", lines("two"));
        assert_eq!(gateway.metric("ringgate_access_log_lines_lost_total", &[]), 0.0);
    }

    fn health_checks_go_on_where_they_were(driver: Driver) {
        let (good, mut bad) = (Upstream::always("good"), Upstream::always("bad"));
        bad.stop();
        let config = |number, fall| {
            let check = format!("health_check = {{ path = \"/healthz\", interval = \"100ms\", fall = {fall} }}");
            beside(number) + &behind(&[&good, &bad], "", &check)
        };
        let mut gateway = start(driver, &config(0, 3));
        let address = bad.address().to_owned();
        let labels = [("endpoint", address.as_str())];
        let healthy = |gateway: &Gateway| gateway.metric("ringgate_health_check_healthy", &labels);
        let checks = |gateway: &Gateway| gateway.metric("ringgate_health_checks_total", &labels);
        eventually("it is checked", || (checks(&gateway) >= 1.0).then_some(()));
        for (number, fall) in [(1, 3), (2, 5)] {
            gateway.reload_well(&file(driver, &config(number, fall)));
            assert_eq!(healthy(&gateway), 0.0);
            let before = checks(&gateway);
            assert!((0..10).all(|_| Client::connect(gateway.address("edge")).get("/").text() == "good"));
            eventually("it is checked on", || (checks(&gateway) > before).then_some(()));
        }
        bad.start();
        eventually("it is found again", || (healthy(&gateway) == 1.0).then_some(()));
        eventually("and asked", || (gateway.get("/").text() == "bad").then_some(()));
    }

    fn a_check_ends_however_often_the_rest_changes(driver: Driver) {
        // it takes requests, and answers none
        let upstream = Upstream::scripted(|conn| conn.wait_for_close());
        let check = "health_check = { path = \"/healthz\", interval = \"1s\", timeout = \"900ms\" }";
        let config = |number| beside(number) + &behind(&[&upstream], "", check);
        let mut gateway = start(driver, &config(0));
        let mut number = 0;
        eventually("a check has failed", || {
            number += 1;
            gateway.reload_well(&file(driver, &config(number)));
            (gateway.metric("ringgate_health_checks_total", &[]) >= 1.0).then_some(())
        });
        assert!(number > 3, "reloads came faster than checks end");
        assert_eq!(gateway.metric("ringgate_health_check_healthy", &[]), 0.0);
        eventually("the workers hear of it", || (gateway.metric("ringgate_endpoint_available", &[]) == 0.0).then_some(()));
    }
}
