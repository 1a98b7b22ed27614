//! Responses that break while nothing of them was passed on: another endpoint is asked, and the client sees nothing of it. And what that
//! must not cost: a delay for those who trickle, or a second delivery of what must not be repeated.

use crate::support::upstream::Conn;
use crate::support::{
    Driver, Gate, Gateway, Setup, Upstream, behind_endpoints, eventually, first_then, on_both_drivers,
};
use serde_json::Value;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NO_EJECTION: &str = "outlier = { enabled = false }\nretry_budget = { ratio = 1.0, min_per_second = 100_000 }";
/// How long a beginning may be held back, and what a response takes that is not.
const HELD: Duration = Duration::from_millis(100);

/// A response of a hundred bytes, of which this much is sent, in one or two pieces.
const PARTS: [&[&str]; 4] = [
    &["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"],
    &["HTTP/1.1 200 OK\r\nContent-Length: 100\r\nX-From: first\r\n\r\nhalf"],
    &["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "half"],
    &["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nha", "lf"],
];

/// Reads one request for `/NUMBER` on each connection, sends that part of a response, and ends the connection like this.
fn breaking(end: impl Fn(&mut Conn) + Send + Sync + 'static) -> Upstream {
    Upstream::scripted(move |conn| {
        let Some(request) = conn.request() else { return };
        for piece in PARTS[request.target[1..].parse::<usize>().expect("a number")] {
            conn.send(piece);
        }
        end(conn);
    })
}

/// `first` gets every first attempt, `second` the retries.
fn two(first: &Upstream, second: &Upstream, route: &str) -> String {
    behind_endpoints(&first_then(first, second), route, NO_EJECTION)
}

/// The shortest of some times, so that a busy machine is not taken for a slow gateway.
fn shortest(mut took: impl FnMut() -> Duration) -> Duration {
    (0..10).map(|_| took()).min().expect("ten")
}

on_both_drivers! {
    fn a_small_body_that_is_cut_is_had_elsewhere(driver: Driver) {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("access.log");
        for end in [Conn::reset, |conn: &mut Conn| conn.stream().cut()] {
            let (first, second) = (breaking(end), Upstream::always("second"));
            let logged = format!("[access_log]\npath = \"{}\"\n\n", log.display());
            let gateway = Gateway::start(driver, &(logged + &two(&first, &second, "")));
            let mut client = gateway.client();
            for number in 0..PARTS.len() {
                for (method, body) in [("GET", ""), ("PUT", "set"), ("DELETE", "")] {
                    let response = client.request(method, &format!("/{number}"), &[], body.as_bytes());
                    assert_eq!((response.status, response.text().as_str()), (200, "second"), "{method} {number}");
                    assert_eq!((response.header("content-length"), response.header("x-from")), (Some("6"), None));
                }
            }
            let requests = 3 * PARTS.len();
            assert_eq!((first.requests().len(), second.requests().len()), (requests, requests));
            assert!(second.requests().iter().all(|request| request.body.len() == usize::from(request.method == "PUT") * 3));
            let count = |name, label| gateway.metric(name, &[label]) as usize;
            assert_eq!(count("ringgate_upstream_attempts_total", ("outcome", "truncated")), requests);
            assert_eq!(count("ringgate_upstream_attempts_total", ("outcome", "success")), requests);
            assert_eq!(count("ringgate_retries_total", ("reason", "reset")), requests);
            drop(client);
            gateway.assert_nothing_left();
            let lines = eventually("the log has its lines", || {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                (text.lines().count() == requests && text.ends_with('\n')).then_some(text)
            });
            for line in lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")) {
                let told = (line["status"].as_u64(), line["attempts"].as_u64(), line["error"].as_str());
                assert_eq!(told, (Some(200), Some(2), None), "{line}");
                let bytes = line["response_bytes"].as_u64().expect("a number");
                assert!((6 + 17..300).contains(&bytes), "of the second response alone: {line}");
            }
            std::fs::remove_file(&log).unwrap();
        }
    }

    fn what_must_not_be_sent_twice_is_told_that_its_answer_broke(driver: Driver) {
        let (first, second) = (breaking(|conn| conn.stream().cut()), Upstream::always("second"));
        for (method, route) in [("POST", ""), ("GET", "[route.retry]\nattempts = 0"), ("GET", "[route.retry]\non = [\"502\"]")] {
            let gateway = Gateway::start(driver, &two(&first, &second, route));
            for number in 0..PARTS.len() {
                match gateway.client().try_request(method, &format!("/{number}"), &[], b"") {
                    Ok(response) => response.assert_rejected(502, "upstream_truncated"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::UnexpectedEof),
                }
            }
        }
        assert!(second.requests().is_empty());
    }

    fn a_reply_in_place_of_a_broken_answer_leaves_the_connection_usable(driver: Driver) {
        let first = Upstream::answering(|request, conn| {
            if request.target == "/breaks" {
                conn.send(PARTS[1][0]);
                conn.stream().cut();
            } else {
                conn.reply(200, "fine");
            }
        });
        let only = format!("{{ address = \"{}\" }}", first.address());
        // both tries break, and nothing of either was passed on
        let gateway = Gateway::start(driver, &behind_endpoints(&only, "[route.retry]\nattempts = 1", NO_EJECTION));
        let mut client = gateway.client();
        for _ in 0..5 {
            let tries = first.requests().len();
            client.get("/breaks").assert_rejected(502, "upstream_truncated");
            assert_eq!(first.requests().len() - tries, 2);
            assert_eq!(client.get("/fine").text(), "fine");
        }
    }

    fn a_body_that_stalls_before_a_byte_was_passed_on_is_had_elsewhere(driver: Driver) {
        let first = breaking(Conn::wait_for_close);
        let second = Upstream::always("second");
        let config = two(&first, &second, "");
        let setup = Setup { listener: "body_timeout = \"50ms\"", config: &config, ..Setup::default() };
        let gateway = Gateway::start_with(driver, &setup);
        let mut client = gateway.client();
        for number in 0..PARTS.len() {
            assert_eq!(client.get(&format!("/{number}")).text(), "second");
        }
        let truncated = gateway.metric("ringgate_upstream_attempts_total", &[("outcome", "truncated")]);
        assert_eq!(truncated as usize, PARTS.len());
    }

    fn a_body_that_trickles_is_held_back_for_a_moment_only(driver: Driver) {
        let gate = Arc::new(Gate::default());
        let waiting = Arc::clone(&gate);
        let first = Upstream::answering(move |request, conn| {
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
            waiting.wait();
            if request.target == "/breaks" {
                conn.stream().cut();
            } else {
                conn.send("full");
            }
        });
        let second = Upstream::always("second");
        let gateway = Gateway::start(driver, &two(&first, &second, ""));
        let (mut patient, mut unlucky) = (gateway.client(), gateway.client());
        let began = Instant::now();
        patient.send("GET /ends HTTP/1.1\r\nHost: x\r\n\r\n");
        unlucky.send("GET /breaks HTTP/1.1\r\nHost: x\r\n\r\n");
        for client in [&mut patient, &mut unlucky] {
            assert_eq!(client.read_head().unwrap().0, 200);
            assert_eq!(client.take(4).unwrap(), b"half");
            assert!(began.elapsed() >= HELD - Duration::from_millis(10), "{:?}", began.elapsed());
        }
        gate.open();
        assert_eq!(patient.take(4).unwrap(), b"full");
        assert_eq!(patient.get("/ends").text(), "halffull", "and the connection goes on");
        unlucky.assert_closed();
        assert!(second.requests().is_empty(), "what the client has seen a part of is not replaced");
    }

    fn what_will_not_be_whole_soon_is_not_held_back(driver: Driver) {
        const BEGINNINGS: [&str; 3] = [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf",
        ];
        let upstream = Upstream::answering(|request, conn| {
            conn.send(BEGINNINGS[request.target[1..].parse::<usize>().expect("a number")]);
            conn.wait_for_close();
        });
        let gateway = Gateway::start(driver, &two(&upstream, &Upstream::always("second"), ""));
        for (number, beginning) in BEGINNINGS.iter().enumerate() {
            let took = shortest(|| {
                let mut client = gateway.client();
                let began = Instant::now();
                client.send(format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n"));
                assert_eq!(client.read_head().unwrap().0, 200);
                client.take(1).unwrap();
                began.elapsed()
            });
            assert!(took < HELD / 2, "{took:?}: {beginning}");
        }
    }

    fn a_chunked_body_whose_break_is_there_with_its_beginning_is_had_elsewhere(driver: Driver) {
        let first = Upstream::scripted(|conn| {
            if conn.request().is_some() {
                conn.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
                conn.stream().cut();
            }
        });
        let second = Upstream::always("second");
        let gateway = Gateway::start(driver, &two(&first, &second, ""));
        // whether the end is there when the gateway looks is a matter of microseconds
        eventually("it was there once", || match gateway.client().try_get("/") {
            Ok(response) => {
                assert_eq!(response.text(), "second");
                Some(())
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "half a body is none");
                None
            }
        });
    }
}
