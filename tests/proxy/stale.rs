//! Pooled connections that end under a request, and whose fault that is: what is repaired without the policy, how often, what of it is
//! counted, and what speaks against the endpoint.

use crate::support::upstream::Conn;
use crate::support::{
    Driver, Gateway, Upstream, behind, behind_endpoints, eventually, first_then, lock, on_both_drivers,
};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NO_EJECTION: &str = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 100_000 }";

/// Answers the first request on each connection; the second is read, and then the connection is ended like this.
fn breaking(end: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
    Upstream::scripted(move |conn| {
        if conn.request().is_some() {
            conn.reply(200, "ok");
            if conn.request().is_some() {
                end(conn);
            }
        }
    })
}

fn attempts(gateway: &Gateway, labels: &[(&str, &str)]) -> usize {
    gateway.metric("ringgate_upstream_attempts_total", labels) as usize
}

fn stale(gateway: &Gateway) -> usize {
    gateway.metric("ringgate_stale_connections_total", &[("upstream", "svc")]) as usize
}

/// Lets that much time pass, as work would.
fn work(time: Duration) {
    let began = Instant::now();
    eventually("time passes", || (began.elapsed() >= time).then_some(()));
}

on_both_drivers! {
    fn a_route_without_retries_sends_nothing_twice(driver: Driver) {
        let upstream = breaking(Conn::reset);
        let gateway = Gateway::start(driver, &behind(&[&upstream], "[route.retry]\nattempts = 0", NO_EJECTION));
        let mut client = gateway.client();
        for number in 0..20 {
            let response = client.request("PUT", &format!("/{number}"), &[], b"set");
            if number % 2 == 0 {
                assert_eq!(response.text(), "ok");
            } else {
                response.assert_rejected(502, "upstream_reset");
            }
        }
        assert_eq!((upstream.requests().len(), attempts(&gateway, &[])), (20, 20), "once each");
        // beyond 20 ms it counts as a failure of the service, which a busy machine may need
        assert!((1..=10).contains(&stale(&gateway)), "{}", stale(&gateway));
    }

    fn a_farewell_on_a_route_without_retries_is_passed_on(driver: Driver) {
        let upstream = breaking(|conn| {
            conn.send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "[route.retry]\nattempts = 0", NO_EJECTION));
        let mut client = gateway.client();
        let statuses: Vec<u16> = (0..10).map(|_| client.get("/").status).collect();
        assert_eq!(statuses, [200, 408].repeat(5));
        assert_eq!((upstream.requests().len(), stale(&gateway)), (10, 0));
    }

    fn what_is_repaired_is_counted_as_often_as_the_service_has_seen_it(driver: Driver) {
        for end in [Conn::reset, |conn: &mut Conn| conn.stream().end()] {
            let upstream = breaking(end);
            let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
            let mut client = gateway.client();
            for _ in 0..20 {
                assert_eq!(client.get("/").text(), "ok");
            }
            assert_eq!(attempts(&gateway, &[]), upstream.requests().len());
            let repaired = attempts(&gateway, &[("outcome", "stale")]);
            assert_eq!(repaired, stale(&gateway), "all of them were read, and are sent again");
            let retried = gateway.metric("ringgate_retries_total", &[("reason", "reset")]) as usize;
            // each connection ends on its second request; what comes too late for a race is the policy's to retry
            assert!(repaired > 0 && repaired + retried == upstream.requests().len() - 20, "{repaired} {retried}");
        }
    }

    fn who_has_met_a_connection_that_was_closed_takes_no_other_of_the_pool(driver: Driver) {
        // the first request of a connection is answered, "/break" never
        let first = Upstream::scripted(|conn| {
            while conn.request().is_some_and(|request| request.target != "/break") {
                conn.reply(200, "first");
            }
            conn.reset();
        });
        let numbers: Arc<Mutex<Vec<usize>>> = Arc::default();
        let seen = Arc::clone(&numbers);
        let second = Upstream::scripted(move |conn| {
            while let Some(request) = conn.request() {
                if request.target == "/break" {
                    lock(&seen).push(conn.number);
                }
                conn.reply(200, "second");
            }
        });
        let config = behind_endpoints(&first_then(&first, &second), "", NO_EJECTION);
        let gateway = Gateway::start(driver, &config);
        let mut client = gateway.client();
        let mut repaired = 0;
        for _ in 0..20 {
            // both have a connection in the pool: the first one from here, the second one from the last round
            assert_eq!(client.get("/").text(), "first");
            let (tries, connections) = (first.requests().len(), second.connections());
            assert_eq!(client.get("/break").text(), "second");
            let tries = first.requests().len() - tries;
            assert!(tries <= 2, "repaired once");
            if tries == 2 {
                repaired += 1;
                assert_eq!(lock(&numbers).last(), Some(&connections), "on a connection of its own");
            }
        }
        assert!(repaired > 0);
    }

    fn a_reset_that_comes_too_late_for_a_race_speaks_against_the_service(driver: Driver) {
        let late = breaking(|conn| {
            work(Duration::from_millis(60));
            conn.reset();
        });
        let fine = Upstream::always("fine");
        let strict = "balance = \"round_robin\"\noutlier = { min_success = 0.9, min_requests = 5, window = \"600s\" }";
        let gateway = Gateway::start(driver, &behind(&[&late, &fine], "", strict));
        let mut client = gateway.client();
        let ejections = || gateway.metric("ringgate_endpoint_ejections_total", &[("reason", "success_ratio")]);
        eventually("it is ejected", || {
            client.request("POST", "/", &[], b"pay");
            (ejections() > 0.0).then_some(())
        });
        assert_eq!(stale(&gateway), 0);
        assert!(late.requests().len() < 20, "{}", late.requests().len());
    }

    fn a_service_that_gives_up_a_client_s_upload_is_not_at_fault(driver: Driver) {
        // closes without a word where the body has not come, or where it has
        let impatient = || Upstream::scripted(|conn| {
            let Some(head) = conn.head() else { return };
            let part = if head.target == "/part" { conn.take(4) } else { conn.body(&head) };
            assert!(part.is_some());
        });
        let (first, second) = (impatient(), impatient());
        let config = behind(&[&first, &second], "[route.retry]\nattempts = 0", "outlier = { consecutive = 2 }");
        let gateway = Gateway::start(driver, &config);
        let ejections = || gateway.metric("ringgate_endpoint_ejections_total", &[]);
        for _ in 0..10 {
            let mut client = gateway.client();
            client.send("POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
            client.read("POST").assert_rejected(502, "upstream_reset");
        }
        assert_eq!((ejections(), attempts(&gateway, &[("outcome", "reset")])), (0.0, 10));
        for _ in 0..10 {
            gateway.request("POST", "/whole", &[], b"whole body").assert_rejected(502, "upstream_reset");
        }
        assert!(ejections() > 0.0, "where the service had all of it");
    }
}
