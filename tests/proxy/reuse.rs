//! Upstream connections between two requests: what came behind a response is nobody's, an end is noticed without a request, and a
//! connection that is closed just as a request is sent costs no client a request that was not processed, and none is sent twice.

use crate::support::upstream::Conn;
use crate::support::{
    Driver, Gate, Gateway, Upstream, behind, behind_endpoints, eventually, first_then, lock, noise, on_both_drivers,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const NO_EJECTION: &str = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 100_000 }";

/// A response that nobody asked for.
const STRAY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";

/// Method, response, status and body for the client, and whether the connection may carry another request.
const CASES: [(&str, &str, u16, &str, bool); 13] = [
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{STRAY}", 200, "ok", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n", 200, "ok", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{STRAY}", 200, "", false),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{STRAY}", 200, "ok", false),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 103 Early Hints\r\n\r\n", 200, "ok", false),
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n{STRAY}", 200, "", false),
    ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "", false),
    ("GET", "HTTP/1.1 204 No Content\r\n\r\n{STRAY}", 204, "", false),
    ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 44\r\n\r\n{STRAY}", 204, "", false),
    ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 204, "", false),
    ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n{STRAY}", 304, "", false),
    // a 205 is framed like any other response (RFC 9112 6.3)
    ("GET", "HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nok", 205, "ok", true),
    ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, "", true),
];

/// Idle connections to the cluster.
fn idle(gateway: &Gateway) -> f64 {
    gateway.metric("ringgate_upstream_connections", &[("upstream", "svc"), ("state", "idle")])
}

/// How a connection that has carried a request ends on the next one.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The request is there and nobody has read it.
    UnreadThenEnd,
    UnreadThenReset,
    /// Its head was read.
    HeadThenEnd,
    /// All of it was read.
    WholeThenEnd,
    WholeThenReset,
    /// And an answer has begun.
    PartThenEnd,
    PartThenReset,
}

const ENDINGS: [Ending; 7] = [
    Ending::UnreadThenEnd,
    Ending::UnreadThenReset,
    Ending::HeadThenEnd,
    Ending::WholeThenEnd,
    Ending::WholeThenReset,
    Ending::PartThenEnd,
    Ending::PartThenReset,
];

impl Ending {
    fn perform(self, conn: &mut Conn) {
        match self {
            Self::UnreadThenEnd | Self::UnreadThenReset => assert!(conn.stream().wait_readable()),
            Self::HeadThenEnd => assert!(conn.head().is_some()),
            _ => assert!(conn.request().is_some()),
        }
        if matches!(self, Self::PartThenEnd | Self::PartThenReset) {
            conn.send("HTTP/1.1 200 OK\r\nContent-Le");
        }
        match self {
            Self::UnreadThenReset | Self::WholeThenReset | Self::PartThenReset => conn.reset(),
            _ => conn.stream().end(),
        }
    }
}

/// What the racing service has found out.
#[derive(Default)]
struct Race {
    /// How often each target was read whole.
    read: Mutex<BTreeMap<String, usize>>,
    /// What its kernel had taken when a connection was closed, and nobody answered.
    unanswered: Mutex<Vec<String>>,
    closed: AtomicUsize,
}

/// Answers, and now and then closes the connection a moment later, as servers do with idle ones. What its kernel had taken before is
/// read after that; what comes later its kernel answers with a reset.
fn racing(race: &Arc<Race>, seed: u64) -> Upstream {
    let race = Arc::clone(race);
    Upstream::scripted(move |conn| {
        let mut rng = StdRng::seed_from_u64(seed ^ conn.number as u64);
        while let Some(request) = conn.request() {
            *lock(&race.read).entry(request.target.clone()).or_default() += 1;
            conn.reply(200, &request.target);
            if !rng.random_bool(0.4) {
                continue;
            }
            let until = Instant::now() + Duration::from_micros(rng.random_range(0..600));
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            conn.stream().cut();
            race.closed.fetch_add(1, Ordering::SeqCst);
            while let Some(request) = conn.request() {
                *lock(&race.read).entry(request.target.clone()).or_default() += 1;
                lock(&race.unanswered).push(request.target);
            }
            lock(&race.unanswered).push(String::from_utf8_lossy(&conn.take_all()).into_owned());
            return;
        }
    })
}

on_both_drivers! {
    fn bytes_behind_a_response_are_nobody_s(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(request) = conn.request() {
                match request.target[1..].parse::<usize>() {
                    Ok(case) => conn.send(CASES[case].1.replace("{STRAY}", STRAY)),
                    Err(_) => conn.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnext"),
                };
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        for (case, (method, response, status, body, kept)) in CASES.iter().enumerate() {
            let before = upstream.connections();
            let mut client = gateway.client();
            let got = client.request(method, &format!("/{case}"), &[], b"");
            assert_eq!((got.status, got.text().as_str()), (*status, *body), "{response}");
            assert_eq!(client.get("/next").text(), "next", "{response}");
            assert_eq!(upstream.connections() - before, if *kept { 1 } else { 2 }, "{response}");
        }
    }

    fn bytes_behind_a_body_that_fills_a_block_are_nobody_s(driver: Driver) {
        let upstream = Upstream::scripted(|conn| {
            while let Some(request) = conn.request() {
                let size: usize = request.target[1..].parse().expect("a number");
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size:06}\r\n\r\n");
                conn.send([head.as_bytes(), &noise(1, size), STRAY.as_bytes()].concat());
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        let mut client = gateway.client();
        for whole in [8 << 10, 16 << 10, 64 << 10, 80 << 10] {
            for size in whole - 48..=whole + 2 {
                assert_eq!(client.get(&format!("/{size}")).body.len(), size);
            }
        }
        assert_eq!(upstream.connections(), upstream.requests().len(), "no connection was used twice");
    }

    fn bytes_behind_an_answer_that_is_retried_are_nobody_s(driver: Driver) {
        let first = Upstream::scripted(|conn| {
            let mut failed = false;
            while conn.request().is_some() {
                assert!(!failed, "used twice");
                conn.send(format!("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno{STRAY}"));
                failed = true;
            }
        });
        let second = Upstream::always("second");
        let gateway = Gateway::start(driver, &behind_endpoints(&first_then(&first, &second), "", NO_EJECTION));
        for _ in 0..3 {
            assert_eq!(gateway.get("/").text(), "second");
        }
        assert_eq!((first.connections(), first.requests().len()), (3, 3));
    }

    fn an_idle_connection_that_ends_or_speaks_is_given_up_without_a_request(driver: Driver) {
        let (gate, arrived) = (Arc::new(Gate::default()), Arc::new(AtomicUsize::new(0)));
        let (waiting, arriving) = (Arc::clone(&gate), Arc::clone(&arrived));
        let upstream = Upstream::scripted(move |conn| {
            conn.request();
            arriving.fetch_add(1, Ordering::SeqCst);
            // none is free for another one's request
            eventually("all are asked", || (arriving.load(Ordering::SeqCst) >= 3).then_some(()));
            conn.reply(200, "ok");
            waiting.wait();
            match conn.number {
                0 => conn.stream().end(),
                1 => conn.reset(),
                2 => drop(conn.send(STRAY)),
                _ => return conn.reply(200, "never"),
            }
            if conn.number != 1 {
                conn.wait_for_close();
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        let mut clients = [gateway.client(), gateway.client(), gateway.client()];
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        for client in &mut clients {
            assert_eq!(client.read("GET").text(), "ok");
        }
        eventually("three are idle", || (idle(&gateway) == 3.0).then_some(()));
        gate.open();
        eventually("none is idle", || (idle(&gateway) == 0.0).then_some(()));
        assert_eq!((upstream.connections(), upstream.requests().len()), (3, 3));
        assert_eq!(clients[0].get("/").text(), "ok");
        assert_eq!(upstream.connections(), 4);
    }

    fn a_farewell_that_crosses_with_a_request_is_no_answer_to_it(driver: Driver) {
        // RFC 9110 §15.5.9, as servers say it that do not close an idle connection without a word
        const FAREWELL: &str = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let upstream = Upstream::scripted(|conn| {
            conn.request();
            conn.reply(200, "ok");
            if conn.request().is_some() {
                conn.send(FAREWELL);
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        let mut client = gateway.client();
        let statuses: Vec<u16> = (0..40).map(|_| client.get("/").status).collect();
        let told = statuses.iter().filter(|&&status| status == 408).count();
        // each connection says it to its second request; beyond 20 ms it counts as an answer, which a busy machine may need
        assert!(told < 10 && statuses.iter().all(|status| [200, 408].contains(status)), "{statuses:?}");
        let mut post = || client.request("POST", "/", &[], b"x").status;
        assert_eq!([post(), post()].into_iter().filter(|&status| status == 408).count(), 1, "no POST is sent twice");
    }

    fn a_408_that_leaves_the_connection_open_is_an_answer(driver: Driver) {
        let upstream = Upstream::answering(|_, conn| conn.reply(408, "too slow"));
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        let mut client = gateway.client();
        for method in ["GET", "DELETE", "PUT", "GET"] {
            let response = client.request(method, "/", &[], b"");
            assert_eq!((response.status, response.text().as_str()), (408, "too slow"), "{method}");
        }
        assert_eq!((upstream.requests().len(), upstream.connections()), (4, 1), "asked once each, on one connection");
    }

    fn a_connection_that_ends_on_its_second_request_costs_a_get_nothing_and_no_post_is_sent_twice(driver: Driver) {
        let next = Arc::new(AtomicUsize::new(0));
        let row = Arc::clone(&next);
        let upstream = Upstream::scripted(move |conn| {
            while let Some(request) = conn.request() {
                conn.reply(200, &request.target);
                if request.target == "/first" {
                    return ENDINGS[row.load(Ordering::SeqCst)].perform(conn);
                }
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        for (number, ending) in ENDINGS.iter().enumerate() {
            next.store(number, Ordering::SeqCst);
            for (method, body) in [("GET", ""), ("PUT", "set"), ("POST", "pay")] {
                let mut client = gateway.client();
                // the pool holds nothing else: it is emptied by whoever finds its connection ended
                assert_eq!(client.request("GET", "/first", &[("Connection", "keep-alive")], b"").text(), "/first");
                let path = format!("/{method}/{number}");
                let response = client.request(method, &path, &[], body.as_bytes());
                let seen = upstream.requests().iter().filter(|request| request.target == path).count();
                if method == "POST" {
                    response.assert_rejected(502, "upstream_reset");
                    assert!(seen <= 1, "{ending:?}: sent {seen} times");
                } else {
                    assert_eq!((response.status, response.text()), (200, path), "{ending:?}");
                    assert!(seen <= 2, "{ending:?}: sent {seen} times");
                }
            }
        }
        gateway.get("/last");
    }

    fn a_race_of_close_and_request_is_lost_by_nobody(driver: Driver) {
        const SEED: u64 = 0x5eed;
        const REQUESTS: usize = 400;
        println!("seed {SEED}");
        let race: Arc<Race> = Arc::default();
        let upstream = racing(&race, SEED);
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        let mut client = gateway.client();
        let mut refused = Vec::new();
        for number in 0..REQUESTS {
            let (method, body) = [("GET", ""), ("POST", "pay")][number % 2];
            let path = format!("/{method}/{number}.");
            let response = client.request(method, &path, &[], body.as_bytes());
            match response.status {
                200 => assert_eq!(response.text(), path),
                502 if method == "POST" => refused.push(path),
                _ => panic!("{method}: {response:?}"),
            }
        }
        let attempts = |labels: &[_]| gateway.metric("ringgate_upstream_attempts_total", labels) as usize;
        let (all, failed) = (attempts(&[]), attempts(&[("outcome", "reset")]));
        let stale = gateway.metric("ringgate_stale_connections_total", &[]) as usize;
        drop(gateway);
        let unanswered = || lock(&race.unanswered).join(" ");
        for path in &refused {
            eventually("a POST that was refused had reached the service", || unanswered().contains(path).then_some(()));
        }
        // what failed may have been read or not, everything else was counted exactly when it was
        let read = || lock(&race.read).values().sum::<usize>();
        eventually("all that was counted was read", || (read() + failed >= all).then_some(()));
        assert!(stale > 0 && read() <= all, "{} read, {all} counted, {failed} of them failed", read());
        let read = lock(&race.read).clone();
        let twice: Vec<_> = read.iter().filter(|(target, count)| target.starts_with("/POST") && **count > 1).collect();
        assert!(twice.is_empty(), "{twice:?}");
        let closed = race.closed.load(Ordering::SeqCst);
        println!("{closed} connections closed, {stale} of them too late, {all} attempts, {failed} failed");
        println!("{} POSTs refused: {refused:?}", refused.len());
        assert!(closed > REQUESTS / 10, "{closed}");
    }

    fn a_pooled_unix_connection_that_ends_costs_nothing_either(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::on_unix_socket(&dir.path().join("service.sock"), |request, conn| {
            conn.reply(200, &request.target);
            if request.target == "/ends" {
                conn.stream().end();
            } else if request.target == "/speaks" {
                conn.send(STRAY);
            }
        });
        let gateway = Gateway::start(driver, &behind(&[&upstream], "", NO_EJECTION));
        for (last, connections) in [("/ends", 1), ("/speaks", 2)] {
            assert_eq!(gateway.get(last).text(), last);
            assert_eq!(upstream.connections(), connections);
            gateway.await_gauges();
            eventually("none is idle", || (idle(&gateway) == 0.0).then_some(()));
            assert_eq!(gateway.request("POST", "/next", &[], b"pay").text(), "/next");
        }
        assert_eq!(upstream.connections(), 3);
    }
}
