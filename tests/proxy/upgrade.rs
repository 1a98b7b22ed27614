//! The next process takes over: nothing is refused, reset or forgotten, and where it cannot, nothing has happened.

use crate::support::{
    Client, Driver, Gate, Gateway, Setup, Upstream, behind, behind_endpoints, eventually, lock, on_both_drivers,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn start(driver: Driver, config: &str) -> Gateway {
    Gateway::start_with(driver, &Setup { workers: 2, config, ..Setup::default() })
}

/// Whether a process runs: one that has ended and was not waited for does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// Asks without a pause until it is told to end; on the connection that it has as long as that is not closed. What went wrong.
fn ask(address: &str, is_kept: bool, over: &AtomicBool, asked: &AtomicUsize) -> Option<String> {
    let mut client: Option<Client> = None;
    while !over.load(Ordering::SeqCst) {
        let connection = match client.take() {
            Some(client) => Ok(client),
            None => Client::try_connect(address),
        };
        let answered = connection.and_then(|mut connection| {
            let response = connection.try_get("/")?;
            Ok((connection, response))
        });
        match answered {
            Ok((connection, response)) if response.status == 200 => {
                let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                client = (is_kept && !closes).then_some(connection);
            }
            Ok((_, response)) => return Some(format!("{} {}", response.status, response.text())),
            Err(error) => return Some(error.to_string()),
        }
        asked.fetch_add(1, Ordering::SeqCst);
    }
    None
}

/// Six clients ask while `act` acts, half of them on new connections each time; fails if one of them saw anything but 200.
fn assert_no_failure_while(addresses: &[&str], act: impl FnOnce(&dyn Fn())) {
    let (over, asked, failures) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for row in 0..6 {
            let address = addresses[row % addresses.len()];
            let (over, asked, failures) = (&over, &asked, &failures);
            scope.spawn(move || {
                let failure = ask(address, row < 3, over, asked);
                lock(failures).extend(failure);
            });
        }
        let go_on = || {
            let goal = asked.load(Ordering::SeqCst) + 60;
            eventually("the clients get answers", || {
                (asked.load(Ordering::SeqCst) >= goal || !lock(&failures).is_empty()).then_some(())
            });
        };
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _end = End(&over);
        go_on();
        act(&go_on);
        go_on();
    });
    let failures = lock(&failures);
    assert!(failures.is_empty(), "of {} requests: {failures:?}", asked.load(Ordering::SeqCst));
}

on_both_drivers! {
    fn nobody_is_refused_or_cut_while_one_process_follows_another(driver: Driver) {
        let upstream = Upstream::always("well");
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("edge.sock");
        let unix = format!("unix:{}", socket.display());
        let config = format!(
            "[[listener]]\nname = \"local\"\nlisten = \"{unix}\"\n\n{}",
            behind(&[&upstream], "", "")
        );
        let mut gateway = start(driver, &config);
        let edge = gateway.address("edge").to_owned();
        let mut pids = Vec::new();
        assert_no_failure_while(&[&edge, &unix], |go_on| {
            for _ in 0..3 {
                pids.push(gateway.upgrade());
                go_on();
            }
        });
        assert!(gateway.running().wait().success(), "the first one ends, and well");
        eventually("those in between end", || (!runs(pids[0]) && !runs(pids[1])).then_some(()));
        assert!(runs(pids[2]));
        assert_eq!(gateway.admin("/readyz").status, 200, "the admin address goes on");
        assert!(socket.exists(), "the file of a unix socket is the last one's");
        assert_eq!(Client::connect(&unix).get("/").status, 200);
    }

    fn a_signal_is_enough_and_tunnels_and_downloads_end_where_they_began(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let paced = Arc::clone(&gate);
        let upstream = Upstream::scripted(move |conn| {
            while let Some(head) = conn.head() {
                match head.target.as_str() {
                    "/echo" => {
                        conn.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
                        while let Some(byte) = conn.take(1) {
                            conn.send(byte);
                        }
                    }
                    _ => {
                        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
                        paced.wait();
                        conn.send("other");
                    }
                }
            }
        });
        let mut gateway = start(driver, &behind(&[&upstream], "", ""));
        let (mut tunnel, mut download) = (gateway.client(), gateway.client());
        tunnel.send("GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        assert_eq!(tunnel.read("GET").status, 101);
        download.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(download.read_head().unwrap().0, 200);
        gateway.running().signal("USR2");
        let next = gateway.await_upgrade();
        tunnel.send("still");
        assert_eq!(tunnel.take(5).unwrap(), b"still");
        gate.open();
        assert_eq!(download.take(10).unwrap(), b"firstother");
        assert!(gateway.running().ended().is_none(), "the tunnel is open");
        drop((tunnel, download));
        assert!(gateway.running().wait().success());
        assert!(runs(next) && gateway.get("/slow").status == 200);
    }

    fn what_waits_in_a_queue_and_what_is_idle_is_served(driver: Driver) {
        let upstream = Upstream::always("well");
        let mut gateway = start(driver, &behind(&[&upstream], "", ""));
        let mut idle: Vec<Client> = (0..8).map(|_| gateway.client()).collect();
        idle.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
        gateway.upgrade();
        for client in &mut idle {
            let response = client.get("/");
            assert_eq!((response.status, response.header("connection")), (200, Some("close")), "told, and answered");
        }
        assert!(gateway.running().wait().success());
    }

    fn an_upgrade_that_fails_leaves_everything_as_it_was(driver: Driver) {
        let upstream = Upstream::always("well");
        let config = behind(&[&upstream], "", "");
        let mut gateway = start(driver, &config);
        let file = gateway.file();
        let right = std::fs::read_to_string(&file).unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        for (wrong, said) in [
            (right.replace("[[route]]", "[[rout]]"), "unknown key"),
            (format!("{right}\n[[listener]]\nname = \"more\"\nlisten = \"{address}\"\n"), "another process listens there"),
        ] {
            std::fs::write(&file, wrong).unwrap();
            let response = Client::connect(gateway.address("admin")).request("POST", "/upgrade", &[], b"");
            let text = response.text();
            assert!(response.status == 500 && text.contains(said) && text.contains("this process goes on"), "{text}");
            assert_eq!((gateway.get("/").status, gateway.admin("/readyz").status), (200, 200));
            assert!(gateway.running().ended().is_none());
        }
        std::fs::write(&file, right).unwrap();
        gateway.upgrade();
        assert_eq!(gateway.get("/").status, 200, "and the next one is not hindered by those before");
        assert!(gateway.running().wait().success());
    }

    fn where_endpoints_stand_and_what_limits_have_left_is_passed_on(driver: Driver) {
        let bad = Upstream::answering(|_, conn| conn.reply(503, "bad"));
        let good = Upstream::always("well");
        let endpoints = format!("{{ address = \"{}\" }}, {{ address = \"{}\" }}", bad.address(), good.address());
        let eject = "balance = \"round_robin\"\noutlier = { consecutive = 1, eject = \"600s\", eject_max = \"600s\" }";
        let limit = "limit = [ { rate = \"1/h\", burst = 12, per = \"route\" } ]";
        let mut gateway = start(driver, &behind_endpoints(&endpoints, limit, eject));
        let mut admitted = 6;
        for _ in 0..admitted {
            assert_eq!(gateway.get("/").status, 200);
        }
        let labels = [("endpoint", bad.address())];
        let is_ejected = || gateway.metric("ringgate_endpoint_available", &labels) == 0.0;
        eventually("one is ejected", || is_ejected().then_some(()));
        let met = bad.requests().len();
        gateway.upgrade();
        // nobody has asked it anything yet
        eventually("it is ejected there, too", || {
            (gateway.metric("ringgate_endpoint_available", &labels) == 0.0).then_some(())
        });
        while gateway.get("/").status != 429 {
            admitted += 1;
            assert!(admitted <= 12, "no more than the burst, over both processes");
        }
        assert_eq!((admitted, bad.requests().len()), (12, met));
    }

    fn who_has_used_his_limit_up_gets_no_other_by_an_upgrade(driver: Driver) {
        let upstream = Upstream::always("well");
        let limit = "limit = [ { rate = \"1/h\", burst = 3, per = \"header:x-key\" } ]";
        let endpoint = format!("{{ address = \"{}\" }}", upstream.address());
        let mut gateway = start(driver, &behind_endpoints(&endpoint, limit, ""));
        let ask = |gateway: &Gateway, key| gateway.request("GET", "/", &[("X-Key", key)], b"").status;
        assert_eq!(["a", "a", "a", "a", "b"].map(|key| ask(&gateway, key)), [200, 200, 200, 429, 200]);
        gateway.upgrade();
        assert_eq!(["a", "b", "b", "b", "c"].map(|key| ask(&gateway, key)), [429, 200, 200, 429, 200]);
        gateway.upgrade();
        assert_eq!(["a", "b", "c", "c", "c"].map(|key| ask(&gateway, key)), [429, 429, 200, 200, 429]);
    }
}
