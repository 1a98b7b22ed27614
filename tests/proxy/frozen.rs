//! A gateway that stood still, as a stopped process or a paused machine does: what has arrived meanwhile counts, and nobody is blamed.

use crate::support::{Driver, Gate, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Time limits of what is frozen, long enough for everything that comes before.
const LIMIT: Duration = Duration::from_secs(3);
const CLIENTS: usize = 8;
const ROUTE: &str = "timeout = \"3s\"\n[route.retry]\nattempts = 0";
/// One failure is enough for everything that can be done to an endpoint.
const STRICT: &str = "outlier = { consecutive = 1 }";

/// Stops the gateway, and lets it go on when all limits that began before are over.
fn freeze(gateway: &mut Gateway, meanwhile: impl FnOnce(Instant)) {
    gateway.running().signal("STOP");
    let since = Instant::now();
    meanwhile(since);
    eventually("all limits are over", || (since.elapsed() > LIMIT).then_some(()));
    gateway.running().signal("CONT");
}

fn blamed(gateway: &Gateway) -> f64 {
    [
        "ringgate_endpoint_ejections_total",
        "ringgate_endpoint_ejections_refused_total",
        "ringgate_endpoint_shunnings_total",
    ]
    .iter()
    .map(|name| gateway.metric(name, &[]))
    .sum()
}

on_both_drivers! {
    fn answers_that_came_meanwhile_are_passed_on(driver: Driver) {
        let (gate, answered) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
        let service = || {
            let (gate, answered) = (Arc::clone(&gate), Arc::clone(&answered));
            Upstream::answering(move |_, conn| {
                gate.wait();
                conn.reply(200, "meanwhile");
                answered.fetch_add(1, Ordering::SeqCst);
            })
        };
        let services = [service(), service()];
        let mut gateway = Gateway::start(driver, &behind(&services.each_ref(), ROUTE, STRICT));
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| gateway.client()).collect();
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        let asked = || services.iter().map(|service| service.requests().len()).sum::<usize>();
        eventually("everybody asks", || (asked() == CLIENTS).then_some(()));
        freeze(&mut gateway, |since| {
            // what the loop hears of first, when it goes on, is that it is late
            eventually("its next beat is missed", || (since.elapsed() > LIMIT / 3).then_some(()));
            gate.open();
            eventually("everybody answers", || (answered.load(Ordering::SeqCst) == CLIENTS).then_some(()));
        });
        for client in &mut clients {
            assert_eq!(client.read("GET").text(), "meanwhile");
        }
        assert_eq!(blamed(&gateway), 0.0);
        let succeeded = gateway.metric("ringgate_upstream_attempts_total", &[("outcome", "success")]);
        assert_eq!(succeeded as usize, CLIENTS);
    }

    fn no_answer_is_held_against_nobody(driver: Driver) {
        let silent = || Upstream::scripted(|conn| while conn.head().is_some() {});
        let services = [silent(), silent()];
        let mut gateway = Gateway::start(driver, &behind(&services.each_ref(), ROUTE, STRICT));
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| gateway.client()).collect();
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
        let asked = || services.iter().map(|service| service.requests().len()).sum::<usize>();
        eventually("everybody asks", || (asked() == CLIENTS).then_some(()));
        freeze(&mut gateway, |_| {});
        for client in &mut clients {
            client.read("GET").assert_rejected(504, "upstream_timeout");
        }
        assert_eq!(blamed(&gateway), 0.0);
        // while it goes on, silence is their fault
        eventually("somebody is blamed", || {
            gateway.get("/").assert_rejected(504, "upstream_timeout");
            (blamed(&gateway) > 0.0).then_some(())
        });
    }

    fn what_clients_sent_meanwhile_is_not_late(driver: Driver) {
        let service = Upstream::answering(|request, conn| {
            conn.reply(200, std::str::from_utf8(&request.body).expect("text"));
        });
        let listener = "header_timeout = \"3s\"\nbody_timeout = \"3s\"\nidle_timeout = \"3s\"\nmin_body_rate = \"1KiB/s\"";
        // whose answer comes after the thaw
        let patient = "[[route]]\nname = \"patient\"\nmatch = { path = \"/patient\" }\nupstream = \"svc\"\ntimeout = \"60s\"\n";
        let config = behind(&[&service], ROUTE, STRICT) + patient;
        let mut gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
        let (mut heads, mut bodies, mut idle) = (gateway.client(), gateway.client(), gateway.client());
        assert_eq!(idle.get("/").status, 200);
        heads.send("GET / HTTP/1.1\r\nHo");
        bodies.send("POST /patient HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nmean");
        // the one worker has read them by the time that it answers another
        eventually("a turn later", || {
            (0..3).all(|_| gateway.get("/").status == 200).then_some(())
        });
        freeze(&mut gateway, |since| {
            eventually("its next beat is missed", || (since.elapsed() > LIMIT / 3).then_some(()));
            heads.send("st: x\r\n\r\n");
            bodies.send("time");
            idle.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        });
        assert_eq!(heads.read("GET").status, 200);
        assert_eq!(bodies.read("POST").text(), "meantime");
        assert_eq!(idle.read("GET").status, 200);
    }
}
