//! The end: a drain loses no request in flight and takes no new one; a second signal does not wait.

use crate::operation::said;
use crate::support::gateway::{run_to_end, run_to_end_limited, write_config};
use crate::support::{Client, Driver, Gate, Gateway, Setup, Upstream, behind, eventually, on_every_step};
use std::sync::Arc;

/// A service that answers `/hold` only when let through.
fn holding(gate: &Arc<Gate>) -> Upstream {
    let gate = Arc::clone(gate);
    Upstream::answering(move |request, conn| {
        if request.target == "/hold" {
            gate.wait();
        }
        conn.reply(200, "whole");
    })
}

/// A gateway and a client whose request the service holds.
fn one_in_flight(driver: Driver, upstream: &Upstream, drain_timeout: &str) -> (Gateway, Client) {
    let config = behind(&[upstream], "timeout = \"600s\"", "");
    let gateway =
        Gateway::start_with(driver, &Setup { workers: 2, drain_timeout, config: &config, ..Setup::default() });
    let mut client = gateway.client();
    client.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    eventually("the request is with the service", || (upstream.requests().len() == 1).then_some(()));
    (gateway, client)
}

on_every_step! {
    fn a_drain_finishes_what_is_in_flight_and_refuses_what_is_new(driver: Driver) {
        for signal in ["TERM", "INT", "QUIT"] {
            let gate = Arc::new(Gate::default());
            let upstream = holding(&gate);
            let (mut gateway, mut held) = one_in_flight(driver, &upstream, "600s");
            let mut idle = gateway.client();
            assert_eq!(idle.get("/").status, 200);
            gateway.running().signal(signal);
            eventually("nothing new is taken", || Client::try_connect(gateway.address("edge")).is_err().then_some(()));
            idle.assert_closed();
            assert!(gateway.running().ended().is_none(), "a request is in flight");
            gate.open();
            let response = held.read("GET");
            assert_eq!((response.status, response.text().as_str()), (200, "whole"));
            held.assert_closed();
            assert_eq!(gateway.running().wait().code(), Some(0), "{signal}");
        }
    }

    fn the_admin_listener_can_ask_for_a_drain(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let (mut gateway, mut held) = one_in_flight(driver, &upstream, "600s");
        let mut admin = Client::connect(gateway.address("admin"));
        admin.send("POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(admin.read("POST").status, 202);
        eventually("nothing new is taken", || Client::try_connect(gateway.address("edge")).is_err().then_some(()));
        assert_eq!(gateway.admin("/readyz").status, 503);
        gate.open();
        assert_eq!(held.read("GET").status, 200);
        assert_eq!(gateway.running().wait().code(), Some(0));
    }

    fn an_idle_gateway_ends_at_once(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let mut gateway = Gateway::start_with(driver, &Setup { workers: 2, drain_timeout: "600s", config: &config, ..Setup::default() });
        assert_eq!(gateway.get("/").status, 200);
        gateway.running().signal("TERM");
        assert_eq!(gateway.running().wait().code(), Some(0));
    }

    fn workers_that_share_a_unix_socket_all_hear_of_a_drain(driver: Driver) {
        // the first of them to hear shuts it down under the others, to whom it then looks ready for ever
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        for round in 0..4 {
            let listen = format!("unix:{}", dir.path().join(format!("{round}.sock")).display());
            let setup = Setup { workers: 8, drain_timeout: "600s", listen: &listen, config: &config, ..Setup::default() };
            let mut gateway = Gateway::start_with(driver, &setup);
            assert_eq!(gateway.get("/").status, 200);
            gateway.running().signal("TERM");
            assert_eq!(gateway.running().wait().code(), Some(0));
        }
    }

    fn a_second_signal_ends_at_once(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let (mut gateway, _held) = one_in_flight(driver, &upstream, "600s");
        gateway.running().signal("TERM");
        eventually("it drains", || Client::try_connect(gateway.address("edge")).is_err().then_some(()));
        assert!(gateway.running().ended().is_none());
        gateway.running().signal("TERM");
        assert_eq!(gateway.running().wait().code(), Some(143), "128 + SIGTERM");
        gate.open();
    }

    fn other_signals_end_nothing(driver: Driver) {
        let upstream = Upstream::always("ok");
        let mut gateway = Gateway::start(driver, &behind(&[&upstream], "", ""));
        for signal in ["HUP", "USR1", "PIPE", "XFSZ"] {
            gateway.running().signal(signal);
            assert_eq!(gateway.get("/").text(), "ok", "{signal}");
        }
        said(&mut gateway, &["INFO", "reloaded generation=2 changes=0"]);
        gateway.running().signal("TERM");
        assert_eq!(gateway.running().wait().code(), Some(0));
    }

    fn a_drain_waits_no_longer_than_its_timeout(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let (mut gateway, _held) = one_in_flight(driver, &upstream, "300ms");
        gateway.running().signal("TERM");
        assert_eq!(gateway.running().wait().code(), Some(0));
        gate.open();
    }

    fn a_drain_under_load_loses_nothing_that_was_taken(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let mut gateway = Gateway::start_with(driver, &Setup { workers: 2, config: &config, ..Setup::default() });
        let clients: Vec<_> = (0..4).map(|_| gateway.client()).collect();
        let threads: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                std::thread::spawn(move || {
                    // ends with a response that closes, or with a close between two responses; never within one
                    let mut whole = 0;
                    while let Ok(response) = client.try_get("/") {
                        assert_eq!((response.status, response.text().as_str()), (200, "ok"));
                        whole += 1;
                        if response.header("connection") == Some("close") {
                            break;
                        }
                    }
                    whole
                })
            })
            .collect();
        eventually("there is load", || (upstream.requests().len() > 200).then_some(()));
        gateway.running().signal("TERM");
        let whole: usize = threads.into_iter().map(|thread| thread.join().expect("only whole responses")).sum();
        assert_eq!(gateway.running().wait().code(), Some(0));
        assert_eq!(whole, upstream.requests().len(), "every request that reached the service was answered");
    }

    fn a_drain_may_be_announced_before_connections_are_refused(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let config = behind(&[&upstream], "timeout = \"600s\"", "");
        let dir = tempfile::tempdir().unwrap();
        let file = Setup { drain_timeout: "600s", config: &config, ..Setup::default() }
            .file(driver)
            .replace("drain_timeout", "drain_delay = \"6s\"\ndrain_timeout");
        let mut gateway = Gateway::start_file(dir, &file);
        gateway.running().signal("TERM");
        eventually("/readyz says so", || (gateway.admin("/readyz").status == 503).then_some(()));
        assert_eq!(gateway.get("/").status, 200, "and connections are taken");
        let mut held = gateway.client();
        held.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
        eventually("they are not any more", || Client::try_connect(gateway.address("edge")).is_err().then_some(()));
        assert_eq!(gateway.admin("/readyz").text(), "draining\n", "the admin API is still there");
        gate.open();
        assert_eq!(held.read("GET").status, 200);
        assert_eq!(gateway.running().wait().code(), Some(0));
    }

    fn what_a_drain_cuts_is_told_and_logged(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        let upstream = Upstream::answering(|request, conn| match request.target.as_str() {
            "/half" => drop(conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")),
            _ => conn.wait_for_close(),
        });
        let config = format!("[access_log]\npath = \"{}\"\n\n", log.display())
            + &behind(&[&upstream], "timeout = \"600s\"", "");
        let setup = Setup { workers: 2, drain_timeout: "1s", config: &config, ..Setup::default() };
        let mut gateway = Gateway::start_with(driver, &setup);
        let (mut waiting, mut half, mut slow) = (gateway.client(), gateway.client(), gateway.client());
        waiting.send("GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
        half.send("GET /half HTTP/1.1\r\nHost: x\r\n\r\n");
        slow.send("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc");
        eventually("all are with the service", || (upstream.requests().len() >= 2).then_some(()));
        gateway.running().signal("TERM");
        waiting.read("GET").assert_rejected(503, "draining");
        slow.read("POST").assert_rejected(503, "draining");
        assert!(half.try_read("GET").is_err(), "no end is made up for what was begun");
        assert_eq!(gateway.running().wait().code(), Some(0));
        let text = std::fs::read_to_string(&log).unwrap();
        let mut lines: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON line"))
            .map(|line| format!("{} {} {}", line["target"], line["status"], line["error"]))
            .collect();
        lines.sort_unstable();
        let draining = ["\"/half\" 200", "\"/none\" 503", "\"/slow\" 503"].map(|line| format!("{line} \"draining\""));
        assert_eq!(lines, draining);
    }

    fn a_successor_takes_the_admin_address_of_one_that_drains(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = holding(&gate);
        let (mut old, mut held) = one_in_flight(driver, &upstream, "600s");
        let admin = old.address("admin").to_owned();
        let route = "[[route]]\nrespond = { body = \"new\" }\n";
        let file = Setup { config: route, ..Setup::default() }
            .file(driver)
            .replace("[admin]\nlisten = \"127.0.0.1:0\"", &format!("[admin]\nlisten = \"{admin}\""));
        let dir = tempfile::tempdir().unwrap();
        let refused = run_to_end(&["run", "-c", &write_config(dir.path(), &file)]);
        assert_eq!(refused.code, Some(3), "one that serves keeps its address: {}", refused.stderr);
        old.running().signal("TERM");
        eventually("it drains", || Client::try_connect(old.address("edge")).is_err().then_some(()));
        let failed = run_to_end_limited("-n 24", &["run", "-c", &write_config(dir.path(), &file)]);
        assert_eq!(failed.code, Some(3), "{}", failed.stderr);
        assert!(failed.stderr.contains("24 descriptors are allowed"), "{}", failed.stderr);
        assert_eq!(old.admin("/readyz").status, 503, "one that cannot start takes nothing over");
        let mut watching = Client::connect(&admin);
        assert_eq!(watching.get("/readyz").status, 503);
        let new = Gateway::start_file(dir, &file);
        assert_eq!((new.address("admin"), new.admin("/readyz").status), (admin.as_str(), 200));
        assert_eq!(watching.get("/readyz").status, 503, "connections of before are still served");
        gate.open();
        assert_eq!(held.read("GET").status, 200);
        assert_eq!(old.running().wait().code(), Some(0));
        assert_eq!(new.admin("/readyz").status, 200);
    }
}
