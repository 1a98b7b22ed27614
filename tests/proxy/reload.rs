//! A configuration that changes while the gateway runs: what comes into use, what does not, and that nobody who is served notices.

use crate::support::gateway::{run_to_end, series, write_config};
use crate::support::load::assert_no_failure_while;
use crate::support::{Client, Driver, Gate, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// A file with two workers, with this behind the listener `edge`.
fn file(driver: Driver, config: &str) -> String {
    Setup { workers: 2, config, ..Setup::default() }.file(driver)
}

fn start(driver: Driver, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { workers: 2, config, ..Setup::default() })
}

/// A route that answers by itself.
fn answering(name: &str, path: &str, body: &str) -> String {
    format!("[[route]]\nname = \"{name}\"\nmatch = {{ path = \"{path}\" }}\nrespond = {{ body = \"{body}\" }}\n\n")
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap_or_else(|| panic!("a list: {value}")).iter().filter_map(Value::as_str).collect()
}

fn generations(gateway: &Gateway) -> Vec<(u64, u64, u64)> {
    let rows = gateway.admin("/generations").json()["generations"].clone();
    let number = |row: &Value, key: &str| row[key].as_u64().expect("a number");
    let rows = rows.as_array().expect("a list").iter();
    rows.map(|row| (number(row, "generation"), number(row, "requests"), number(row, "tunnels"))).collect()
}

/// All counters, by their series.
fn counters(gateway: &Gateway) -> HashMap<String, f64> {
    let page = gateway.admin("/metrics").text();
    let is_counter = |name: &str| ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
    let counters = page.lines().filter_map(series).filter(|series| is_counter(series.name));
    counters.map(|series| (format!("{}{{{}}}", series.name, series.labels), series.value)).collect()
}

on_both_drivers! {
    fn the_next_request_on_a_connection_meets_the_new_configuration(driver: Driver) {
        let mut gateway = start(driver, &answering("first", "/*", "one"));
        let mut client = gateway.client();
        assert_eq!(client.get("/").text(), "one");
        let response = gateway.reload(&file(driver, &(answering("second", "/b", "two") + &answering("first", "/*", "uno"))));
        let said = response.json();
        assert_eq!((response.status, &said["generation"]), (200, &Value::from(2)), "{said}");
        assert_eq!(strings(&said["changes"]), ["route second: added", "route first: changed"]);
        assert_eq!((client.get("/").text().as_str(), client.get("/b").text().as_str()), ("uno", "two"));
        for (name, value) in [("generation", 2.0), ("last_reload_success", 1.0), ("reloads_total", 1.0)] {
            assert_eq!(gateway.metric(&format!("ringgate_config_{name}"), &[]), value, "{name}");
        }
        assert!(gateway.metric("ringgate_config_last_reload_timestamp_seconds", &[]) > 1.7e9);
        assert_eq!(gateway.metric("ringgate_requests_total", &[("route", "first")]), 2.0);
        assert_eq!(gateway.admin("/config").json()["route"][0]["name"], "second");
        assert_eq!(strings(&gateway.reload(&file(driver, &answering("second", "/b", "two"))).json()["changes"]), ["route first: removed"]);
        assert_eq!(client.get("/").status, 404);
    }

    fn a_file_that_is_wrong_changes_nothing_and_every_error_is_told(driver: Driver) {
        let mut gateway = start(driver, &answering("first", "/*", "one"));
        let mut client = gateway.client();
        let wrong = file(driver, "[[route]]\nname = \"first\"\nupstrem = \"x\"\n\n[upstream.a]\nbalance = \"best\"\nendpoints = []\n");
        let response = gateway.reload(&wrong);
        let said = response.json();
        assert_eq!((response.status, &said["error"]), (422, &Value::from("wrong")), "{said}");
        let errors = strings(&said["errors"]);
        assert!(errors.len() >= 3 && errors.iter().all(|error| error.contains("ringgate.toml:")), "{errors:#?}");
        assert!(errors.iter().any(|error| error.contains("did you mean \"upstream\"?")), "{errors:#?}");
        assert_eq!(client.get("/").text(), "one");
        assert_eq!(gateway.metric("ringgate_config_last_reload_success", &[]), 0.0);
        assert_eq!(gateway.metric("ringgate_config_reloads_total", &[("result", "failed")]), 1.0);
        assert_eq!(gateway.metric("ringgate_config_generation", &[]), 1.0);

        // the command finds the gateway by the same file, however wrong that is; this one says where its admin API listens
        let at = |text: &str, gateway: &Gateway| text.replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{}\"", gateway.address("admin")));
        let dir = tempfile::tempdir().unwrap();
        let own = write_config(dir.path(), &at(&wrong, &gateway));
        let command = run_to_end(&["reload", "-c", &own]);
        assert_eq!((command.code, command.stdout.as_str()), (Some(1), ""));
        assert!(command.stderr.contains("balance = \"best\"") && command.stderr.ends_with("not reloaded: the configuration before stays in use"), "{command:?}");
        write_config(std::path::Path::new(&gateway.file()).parent().unwrap(), &file(driver, &answering("first", "/*", "two")));
        let command = run_to_end(&["reload", "-c", &own]);
        assert_eq!((command.code, command.stdout.as_str()), (Some(0), "route first: changed\nreloaded: generation 2"), "{command:?}");
        assert_eq!(client.get("/").text(), "two");
        assert_eq!(gateway.metric("ringgate_config_last_reload_success", &[]), 1.0);
        gateway.running().signal("TERM");
        assert!(gateway.running().wait().success());
        let command = run_to_end(&["reload", "-c", &own]);
        assert_eq!((command.code, command.stdout.as_str()), (Some(1), ""));
        assert!(command.stderr.starts_with("no gateway answers at its admin address 127.0.0.1:"), "{command:?}");
    }

    fn a_signal_reloads_and_the_log_tells(driver: Driver) {
        let mut gateway = start(driver, &answering("first", "/*", "one"));
        let mut client = gateway.client();
        let (file, path) = (file(driver, &answering("first", "/*", "two")), gateway.file());
        std::fs::write(path, file).unwrap();
        gateway.running().signal("HUP");
        eventually("it is read", || (client.get("/").text() == "two").then_some(()));
        eventually("it is told", || {
            let lines = gateway.running().stderr();
            lines.iter().any(|line| line.contains("reloaded generation=2 changes=1")).then_some(())
        });
    }

    fn a_file_that_is_watched_is_read_when_it_changes(driver: Driver) {
        let watching = |config: &str| file(driver, config).replacen("[gateway]", "[gateway]\nwatch = true", 1);
        let dir = tempfile::tempdir().unwrap();
        let mut gateway = Gateway::start_file(dir, &watching(&answering("first", "/*", "one")));
        let mut client = gateway.client();
        assert_eq!(client.get("/").text(), "one");
        let path = gateway.file();
        let replacement = format!("{path}.new");
        std::fs::write(&replacement, watching(&answering("first", "/*", "two"))).unwrap();
        std::fs::rename(&replacement, &path).unwrap();
        eventually("a file in its place is read", || (client.get("/").text() == "two").then_some(()));
        std::fs::write(&path, "wrong").unwrap();
        eventually("what is wrong is told", || {
            (gateway.metric("ringgate_config_last_reload_success", &[]) == 0.0).then_some(())
        });
        assert_eq!(client.get("/").text(), "two");
        std::fs::write(&path, file(driver, &answering("first", "/*", "three"))).unwrap();
        eventually("the file itself, written anew, is read", || (client.get("/").text() == "three").then_some(()));
        assert_eq!(gateway.metric("ringgate_config_reloads_total", &[("result", "failed")]), 1.0, "once");
        assert!(gateway.running().stderr().iter().any(|line| line.contains("not TOML")));
    }

    fn workers_and_driver_stay_and_a_taken_address_changes_nothing(driver: Driver) {
        let mut gateway = start(driver, &answering("first", "/*", "one"));
        let fewer = Setup { workers: 1, config: &answering("first", "/*", "two"), ..Setup::default() }.file(driver);
        let response = gateway.reload(&fewer);
        assert_eq!(response.status, 422);
        assert!(strings(&response.json()["errors"])[0].contains("gateway.workers cannot change"), "{}", response.text());
        let other = if driver == Driver::Epoll { Driver::IoUring } else { Driver::Epoll };
        assert!(gateway.reload(&file(other, &answering("first", "/*", "two"))).text().contains("gateway.driver cannot change"));
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = format!("[[listener]]\nname = \"second\"\nlisten = \"{}\"\n\n", taken.local_addr().unwrap());
        let response = gateway.reload(&file(driver, &(listener + &answering("first", "/*", "two"))));
        assert_eq!((response.status, &response.json()["error"]), (500, &Value::from("failed")));
        assert!(response.text().contains("another process listens there"), "{}", response.text());
        assert_eq!(gateway.get("/").text(), "one");
        assert_eq!(gateway.metric("ringgate_config_generation", &[]), 1.0);
    }

    fn nobody_fails_and_no_counter_goes_back_over_many_reloads(driver: Driver) {
        let services = [Upstream::always("ok"), Upstream::always("ok")];
        let both: Vec<&Upstream> = services.iter().collect();
        let second = "[[listener]]\nname = \"second\"\nlisten = \"127.0.0.1:0\"\n\n";
        let limited = "limit = [ { rate = \"100000/s\", burst = 100000, per = \"route\" } ]\nmax_concurrent = 900";
        let variants = [
            behind(&both[..1], "", ""),
            answering("more", "/more", "x") + &behind(&both, limited, "max_requests = 700"),
            second.to_owned() + &behind(&both[1..], "max_concurrent = 700", "balance = \"round_robin\""),
            answering("other", "/other", "x") + second + &behind(&both, limited, "balance = \"maglev\"\nhash = \"path\""),
        ];
        let mut gateway = start(driver, &variants[0]);
        let mut before = HashMap::new();
        // once alone, so that there is something to count
        assert_eq!(gateway.get("/").status, 200);
        let texts: Vec<_> = variants.iter().map(|config| file(driver, config)).collect();
        let admin = gateway.address("admin").to_owned();
        let path = gateway.file();
        assert_no_failure_while(&gateway, |load| {
            for round in 0..32 {
                std::fs::write(&path, &texts[(round + 1) % texts.len()]).unwrap();
                let response = Client::connect(&admin).request("POST", "/reload", &[], b"");
                assert_eq!(response.status, 200, "{}", response.text());
                load.goes_on_for(20);
                let now = counters(&gateway);
                for (series, value) in &now {
                    let known = before.get(series).copied().unwrap_or(0.0);
                    assert!(*value >= known, "round {round}: {series} goes from {known} back to {value}");
                }
                before.extend(now);
            }
        });
        assert!(before.keys().any(|series| series.contains("route=\"all\"")), "{before:?}");
        assert!(services.iter().all(|service| !service.requests().is_empty()), "both were asked");
        eventually("the old ones are gone", || (generations(&gateway).len() == 1).then_some(()));
        gateway.running().signal("TERM");
        assert!(gateway.running().wait().success());
    }

    fn listeners_come_and_go_and_the_others_stay(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = Upstream::holding("/slow", &gate);
        let routes = behind(&[&upstream], "timeout = \"600s\"", "");
        let mut gateway = start(driver, &routes);
        let edge = gateway.address("edge").to_owned();
        let mut client = gateway.client();
        assert_eq!(client.get("/").status, 200);
        let second = "[[listener]]\nname = \"second\"\nlisten = \"127.0.0.1:0\"\n\n";
        gateway.reload_well(&file(driver, &(second.to_owned() + &routes)));
        gateway.await_listener("second");
        let address = gateway.address("second").to_owned();
        let (mut idle, mut busy) = (Client::connect(&address), Client::connect(&address));
        assert_eq!(idle.get("/").status, 200);
        busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("it is asked", || upstream.requests().iter().any(|request| request.target == "/slow").then_some(()));
        assert_eq!(gateway.metric("ringgate_connections", &[("listener", "second")]), 2.0);

        gateway.reload_well(&file(driver, &routes));
        eventually("nobody comes in any more", || Client::try_connect(&address).is_err().then_some(()));
        idle.assert_closed();
        gate.open();
        let response = busy.read("GET");
        assert_eq!((response.status, response.header("connection")), (200, Some("close")), "what was in flight ends well");
        busy.assert_closed();
        eventually("the generation with that listener is gone", || (generations(&gateway).len() == 1).then_some(()));
        assert_eq!(gateway.address("edge"), edge);
        assert_eq!(client.get("/").status, 200, "the other listener's connections stay");
        gateway.reload_well(&file(driver, &(second.to_owned() + &routes)));
        assert_eq!(gateway.metric("ringgate_connections", &[("listener", "second")]), 0.0);
        assert_eq!(gateway.metric("ringgate_connections_accepted_total", &[("listener", "second")]), 2.0);
    }

    fn a_tunnel_and_its_generation_live_to_the_end_of_the_tunnel(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            conn.head();
            conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
            while let Some(byte) = conn.take(1) {
                conn.send(byte);
            }
        });
        let mut gateway = start(driver, &behind(&[&upstream], "", ""));
        let mut client = gateway.client();
        client.send("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(client.read("GET").status, 101);
        for round in 0..5 {
            gateway.reload_well(&file(driver, &answering("first", "/*", &round.to_string())));
            client.send("x");
            assert_eq!(client.take(1).unwrap(), b"x");
        }
        assert_eq!(gateway.get("/").text(), "4");
        eventually("its generation is shown", || (generations(&gateway) == [(1, 1, 1), (6, 0, 0)]).then_some(()));
        eventually("it is counted", || (gateway.metric("ringgate_config_generations_old", &[]) == 1.0).then_some(()));
        assert_eq!(gateway.metric("ringgate_tunnels", &[]), 1.0);
        client.stream().end();
        client.assert_closed();
        eventually("it is freed with it", || (generations(&gateway) == [(6, 0, 0)]).then_some(()));
    }
}
