//! Time limits: of the whole request, of one attempt, of a connection attempt, of a client that is slow.

use crate::support::upstream::Blackhole;
use crate::support::{
    Driver, Gate, Gateway, PATIENCE, Setup, Upstream, behind, behind_endpoints, eventually, first_then, on_both_drivers,
};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reads requests and never answers.
fn silent() -> Upstream {
    Upstream::scripted(|conn| {
        conn.head();
        conn.wait_for_close();
    })
}

on_both_drivers! {
    fn a_service_that_never_answers_is_a_504_after_the_timeout(driver: Driver) {
        let upstream = silent();
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"2s\"", ""));
        let mut client = gateway.client();
        let sent = Instant::now();
        client.get("/").assert_rejected(504, "upstream_timeout");
        let took = sent.elapsed();
        assert!(took >= Duration::from_millis(1900) && took < Duration::from_secs(5), "{took:?}");
    }

    fn a_per_try_timeout_leaves_time_for_a_healthy_service(driver: Driver) {
        let (first, second) = (silent(), Upstream::always("second"));
        let route = "timeout = \"20s\"\n[route.retry]\nper_try_timeout = \"200ms\"";
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&first, &second), route, ""));
        let sent = Instant::now();
        assert_eq!(gateway.get("/").text(), "second");
        let took = sent.elapsed();
        assert!(took >= Duration::from_millis(190) && took < Duration::from_secs(5), "{took:?}");
        assert!(gateway.metric("ringgate_retries_total", &[("upstream", "svc"), ("reason", "timeout")]) >= 1.0);
    }

    fn all_attempts_end_within_the_timeout(driver: Driver) {
        let services = [silent(), silent(), silent(), silent()];
        let route = "timeout = \"1s\"\n[route.retry]\nattempts = 10\nper_try_timeout = \"150ms\"";
        let config = behind(&services.each_ref(), route, "retry_budget = { ratio = 1.0, min_per_second = 1000 }");
        let gateway = Gateway::start(driver, &config);
        let sent = Instant::now();
        gateway.get("/").assert_rejected(504, "upstream_timeout");
        assert!(sent.elapsed() < Duration::from_secs(4), "{:?}", sent.elapsed());
        assert!(services.iter().map(|service| service.requests().len()).sum::<usize>() >= 2, "it was tried again");
    }

    fn a_connection_that_is_not_made_in_time_is_given_up(driver: Driver) {
        let (blackhole, second) = (Blackhole::new(), Upstream::always("second"));
        let limit = "connect_timeout = \"200ms\"";
        let endpoint = format!("{{ address = \"{}\" }}", blackhole.address());
        let gateway = Gateway::start(driver, &behind_endpoints(&endpoint, "[route.retry]\nattempts = 0", limit));
        let sent = Instant::now();
        gateway.get("/").assert_rejected(503, "no_healthy_endpoint");
        assert!(sent.elapsed() >= Duration::from_millis(190) && sent.elapsed() < Duration::from_secs(5));
        let endpoints = format!("{endpoint}, {{ address = \"{}\", priority = 1 }}", second.address());
        let gateway = Gateway::start(driver, &behind_endpoints(&endpoints, "", limit));
        assert_eq!(gateway.request("POST", "/", &[], b"nothing was sent").text(), "second");
    }

    fn a_slow_service_within_the_timeout_is_waited_for(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let waiting = Arc::clone(&gate);
        let upstream = Upstream::answering(move |request, conn| {
            if request.target == "/slow" {
                waiting.wait();
            }
            conn.reply(200, &request.target);
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"600s\"", ""));
        let mut slow = gateway.client();
        slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        // others are served meanwhile, by the same worker
        for _ in 0..20 {
            assert_eq!(gateway.get("/quick").text(), "/quick");
        }
        gate.open();
        assert_eq!(slow.read("GET").text(), "/slow");
    }

    fn a_client_that_leaves_ends_the_attempt(driver: Driver) {
        let closed = Arc::new(Gate::default());
        let (asked, signal) = (Arc::new(Gate::default()), Arc::clone(&closed));
        let seen = Arc::clone(&asked);
        let upstream = Upstream::scripted(move |conn| {
            conn.head();
            seen.open();
            conn.wait_for_close();
            signal.open();
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"600s\"", ""));
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        asked.wait();
        drop(client);
        closed.wait();
    }

    fn a_head_that_never_ends_is_given_up(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "header_timeout = \"300ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        let sent = Instant::now();
        client.read("GET").assert_rejected(408, "request_timeout");
        client.assert_closed();
        assert!(sent.elapsed() < PATIENCE / 2);
    }

    fn a_body_that_stalls_is_given_up(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "timeout = \"600s\"", "");
        let setup = Setup { listener: "body_timeout = \"300ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
        client.read("POST").assert_rejected(408, "request_timeout");
        client.assert_closed();
    }

    fn a_route_s_times_take_the_place_of_the_listener_s(driver: Driver) {
        let upstream = Upstream::answering(|request, conn| {
            if request.target == "/half" {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
            } else {
                conn.reply(200, "ok");
            }
        });
        let route = "timeout = \"600s\"\nbody_timeout = \"300ms\"\nmin_body_rate = \"1MiB/s\"";
        let config = behind(&[&upstream], route, "");
        let setup = Setup { listener: "body_timeout = \"600s\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
        client.read("POST").assert_rejected(408, "request_timeout");
        client.assert_closed();
        let mut slow = gateway.client();
        slow.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n");
        // a byte now and then keeps body_timeout away
        slow.limit(Duration::from_millis(20));
        let response = eventually("the upload is refused", || {
            let _ = slow.try_send("x");
            match slow.try_read("POST") {
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => None,
                read => Some(read.unwrap()),
            }
        });
        response.assert_rejected(408, "request_timeout");
        let mut stalled = gateway.client();
        stalled.send("GET /half HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(stalled.read_head().unwrap().0, 200);
        assert_eq!(stalled.take(2).unwrap(), b"ab");
        stalled.assert_closed();
    }

    fn an_idle_connection_is_closed(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "idle_timeout = \"300ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        assert_eq!(client.get("/").status, 200);
        let idle = Instant::now();
        client.assert_closed();
        assert!(idle.elapsed() >= Duration::from_millis(200), "closed after {:?}", idle.elapsed());
    }

    fn an_adaptive_timeout_follows_the_service(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let upstream = Upstream::holding("/hang", &gate);
        let route = "timeout = { adaptive = true, k = 3.0, min = \"300ms\", max = \"50s\" }\n[route.retry]\nattempts = 0";
        let gateway = Gateway::start(driver, &behind(&[&upstream], route, ""));
        let mut client = gateway.client();
        for _ in 0..300 {
            assert_eq!(client.get("/").status, 200);
        }
        let sent = Instant::now();
        client.get("/hang").assert_rejected(504, "upstream_timeout");
        let took = sent.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(15), "{took:?}, not the upper bound");
        gate.open();
    }

    fn a_head_that_trickles_has_no_more_time_than_any_other(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup { listener: "header_timeout = \"500ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        for requests_before in [0, 1] {
            let mut client = gateway.client();
            for _ in 0..requests_before {
                assert_eq!(client.get("/").status, 200);
            }
            client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
            let sent = Instant::now();
            client.limit(Duration::from_millis(20));
            let given_up = eventually("the head is given up", || {
                // a byte now and then, far more often than the timeout
                let _ = client.try_send("x");
                match client.try_read("GET") {
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
                    read => Some(read),
                }
            });
            match given_up {
                Ok(response) => response.assert_rejected(408, "request_timeout"),
                // bytes that meet the close are answered with a reset
                Err(error) => assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{error}"),
            }
            assert!(sent.elapsed() >= Duration::from_millis(400), "{:?}", sent.elapsed());
        }
        assert!(upstream.requests().len() <= 1);
    }

    fn a_head_that_arrives_slowly_takes_nothing_from_the_endpoint_s_time(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| {
            let asked = Instant::now();
            eventually("the service takes a while", || (asked.elapsed() >= Duration::from_millis(100)).then_some(()));
            conn.reply(200, "ok");
        });
        let route = "timeout = \"60s\"\n[route.retry]\nattempts = 0\nper_try_timeout = \"2s\"";
        let gateway = Gateway::start(driver, &behind(&[&upstream], route, ""));
        let mut client = gateway.client();
        let began = Instant::now();
        client.send("GET / HTTP/1.1\r\nHost: x\r\n");
        eventually("a try's time passes", || (began.elapsed() >= Duration::from_millis(2200)).then_some(()));
        client.send("\r\n");
        assert_eq!(client.read("GET").text(), "ok");
        assert_eq!(upstream.requests().len(), 1);
    }

    fn a_client_that_needs_all_the_time_for_its_head_is_told_so_and_no_endpoint_is_blamed(driver: Driver) {
        let upstream = Upstream::always("ok");
        let gateway = Gateway::start(driver, &behind(&[&upstream], "timeout = \"300ms\"", ""));
        for _ in 0..6 {
            let mut client = gateway.client();
            let began = Instant::now();
            client.send("GET / HTTP/1.1\r\nHost: x\r\n");
            eventually("T_max passes", || (began.elapsed() >= Duration::from_millis(400)).then_some(()));
            client.send("\r\n");
            client.read("GET").assert_rejected(408, "request_timeout");
            client.assert_closed();
        }
        assert_eq!(upstream.connections(), 0);
    }

    fn a_connection_that_says_nothing_is_closed(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let listener = "header_timeout = \"300ms\"\nidle_timeout = \"600s\"";
        let gateway = Gateway::start_with(driver, &Setup { listener, config: &config, ..Setup::default() });
        let mut clients: Vec<_> = (0..50).map(|_| gateway.client()).collect();
        for client in &mut clients {
            client.assert_closed();
        }
        gateway.assert_nothing_left();
    }

    fn a_byte_that_comes_with_the_deadline_does_not_undo_it(driver: Driver) {
        let upstream = Upstream::always("ok");
        let config = behind(&[&upstream], "", "");
        let setup = Setup {
            listener: "header_timeout = \"100ms\"\nmax_head = \"256KiB\"",
            config: &config,
            ..Setup::default()
        };
        let gateway = Gateway::start_with(driver, &setup);
        for _ in 0..20 {
            let mut client = gateway.client();
            client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
            let sent = Instant::now();
            while sent.elapsed() < Duration::from_millis(130) && client.try_send("x").is_ok() {
                std::thread::yield_now();
            }
            client.read("GET").assert_rejected(408, "request_timeout");
        }
    }
}
