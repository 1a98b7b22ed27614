//! Servers of a few lines that behave in one way each, on real sockets.

use super::*;
use crate::load::{Pace, Target};
use crate::wire::Failure;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// A server that does `serve` with each connection, in a thread of its own, until the test ends.
pub(super) fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Reads a request without a body; false at the end of the connection.
pub(super) fn has_request(stream: &mut impl Read) -> bool {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return false;
        }
        seen.push(byte[0]);
    }
    true
}

fn answering(answer: &'static str) -> SocketAddr {
    server(move |mut stream| while has_request(&mut stream) && stream.write_all(answer.as_bytes()).is_ok() {})
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub(super) fn load(address: SocketAddr) -> Load {
    Load {
        address,
        pace: Pace::Poisson(300.0),
        warm_up: Duration::from_millis(100),
        length: Duration::from_secs(1),
        slice: Duration::from_millis(100),
        timeout: Duration::from_millis(800),
        connections: 8,
        connections_max: 64,
        ..crate::load::load_for_tests()
    }
}

pub(super) fn failures(measured: &Measured) -> Vec<(Failure, u64)> {
    let counts = measured.tallies.failures();
    Failure::ALL.into_iter().map(|kind| (kind, counts[kind.row()])).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn everything_that_is_due_is_asked_and_answered_once() {
    for (threads, reconnects) in [(1, false), (3, false), (2, true)] {
        let target = Target::new("GET", "a.test", "/", &[], b"", reconnects);
        let cores = vec![0; threads];
        let load = Load { cores, reconnects, targets: [target].into(), ..load(answering(OK)) };
        let measured = offer(&load, &Watch::default()).unwrap();
        assert_eq!((measured.tallies.due(), failures(&measured)), (300, vec![]), "{threads} threads");
        assert_eq!(measured.tallies.statuses[200], 300);
        assert_eq!(measured.tallies.latency.len(), 300);
        assert!(!reconnects || measured.connections_opened >= 300, "{}", measured.connections_opened);
        // Little: what is in flight is what comes times how long it stays
        let expected = 300.0 * (measured.tallies.latency.mean() - measured.tallies.lag.mean()) / 1e9;
        assert!((measured.in_flight(&load) - expected).abs() < 0.05 * expected + 0.01, "{expected}");
    }
}

#[test]
fn whatever_a_server_does_has_an_end_and_a_kind() {
    let silent = server(|mut stream| while has_request(&mut stream) {});
    let resetting = server(|mut stream| {
        has_request(&mut stream);
        // what is not read makes a close a reset
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n");
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    });
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (name, address, kinds) in [
        ("refuses", refusing, &[Failure::Refused][..]),
        ("is silent", silent, &[Failure::Timeout, Failure::Unsent]),
        ("resets", resetting, &[Failure::Reset, Failure::Closed]),
        ("is no HTTP", answering("220 smtp ready\r\n"), &[Failure::Garbage]),
        ("fails", answering("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), &[Failure::Status]),
        ("says too much", answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and"), &[Failure::Surplus]),
        (
            "stops in the middle",
            server(|mut stream| {
                has_request(&mut stream);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok");
            }),
            &[Failure::Closed],
        ),
        ("closes", server(|mut stream| _ = has_request(&mut stream)), &[Failure::Closed]),
        ("never ends a head", answering("HTTP/1.1 200 OK\r\nX: y\r\n"), &[Failure::Timeout, Failure::Unsent]),
    ] {
        let timeout =
            if kinds.contains(&Failure::Timeout) { Duration::from_millis(800) } else { Duration::from_secs(20) };
        let measured = offer(&Load { timeout, ..load(address) }, &Watch::default()).unwrap();
        let seen = failures(&measured);
        assert_eq!(measured.tallies.due(), 300, "{name}");
        assert_eq!(seen.iter().map(|(_, count)| count).sum::<u64>(), 300, "{name}: {seen:?}");
        assert!(seen.iter().all(|(kind, _)| kinds.contains(kind)), "{name}: {seen:?}");
        assert!(measured.took < Duration::from_secs(30), "{name}");
    }
}

#[test]
fn a_stall_of_the_server_is_in_the_percentiles_and_a_closed_loop_would_not_see_it() {
    // every connection's 20th request waits for 300 ms: the requests behind it were due all the same
    let stalling = server(|mut stream| {
        for number in 1.. {
            if !has_request(&mut stream) {
                return;
            }
            if number % 20 == 0 {
                clock::wait(Duration::from_millis(300));
            }
            if stream.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    let load = Load { connections: 1, connections_max: 1, timeout: Duration::from_secs(20), ..load(stalling) };
    let measured = offer(&load, &Watch::default()).unwrap();
    assert_eq!(failures(&measured), []);
    assert!(measured.tallies.waited > 200, "{}", measured.tallies.waited);
    let median = |times: &crate::stats::Times| Duration::from_nanos(times.value_at_quantile(0.5));
    let (true_one, naive) = (median(&measured.tallies.latency), median(&measured.tallies.uncorrected));
    assert!(true_one > Duration::from_millis(500) && naive < Duration::from_millis(100), "{true_one:?} {naive:?}");
}

#[test]
fn a_body_goes_up_in_pieces_and_a_mix_has_its_shares() {
    let echo = server(|mut stream| {
        while has_request(&mut stream) {
            let mut body = vec![0; 700_000];
            if stream.read_exact(&mut body).is_err() || stream.write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    });
    let body = vec![b'x'; 700_000];
    let target = Target::new("POST", "a.test", "/", &[], &body, false);
    let load =
        Load { pace: Pace::Even(40.0), timeout: Duration::from_secs(20), targets: [target].into(), ..load(echo) };
    let measured = offer(&load, &Watch::default()).unwrap();
    assert_eq!((measured.tallies.due(), failures(&measured)), (40, vec![]));
    assert!(measured.sent > 40 * 700_000);
}

#[test]
fn a_closed_loop_saturates_and_a_stop_ends_anything_at_once() {
    let closed = Load { pace: Pace::Closed, ..load(answering(OK)) };
    let measured = offer(&closed, &Watch::default()).unwrap();
    assert!(measured.tallies.due() > 100 && failures(&measured).is_empty(), "{:?}", failures(&measured));

    let (watch, endless) = (Watch::default(), Load { length: Duration::from_secs(3_600), ..load(answering(OK)) });
    thread::scope(|scope| {
        let running = scope.spawn(|| offer(&endless, &watch).unwrap());
        let deadline = clock::now() + Duration::from_secs(30);
        while watch.progress().ended == 0 {
            assert!(clock::now() < deadline, "{:?}", watch.progress());
            thread::yield_now();
        }
        watch.stop();
        let measured = running.join().unwrap();
        assert!(measured.is_partial && measured.tallies.due() > 0);
        assert!(clock::now() < deadline, "it ends at once");
    });

    // what was asked and not answered is no failure yet, and may not be forgotten
    let silent = server(|mut stream| _ = stream.read_to_end(&mut Vec::new()));
    let (watch, endless) = (
        Watch::default(),
        Load { length: Duration::from_secs(3_600), timeout: Duration::from_secs(600), ..load(silent) },
    );
    thread::scope(|scope| {
        let running = scope.spawn(|| offer(&endless, &watch).unwrap());
        let deadline = clock::now() + Duration::from_secs(60);
        let has_asked =
            || watch.progress().begun.is_some_and(|begun| begun + Duration::from_millis(200) < clock::now());
        while !has_asked() {
            assert!(clock::now() < deadline, "{:?}", watch.progress());
            thread::yield_now();
        }
        watch.stop();
        let measured = running.join().unwrap();
        assert!(measured.unfinished > 0 && measured.tallies.due() == 0, "{}", measured.unfinished);
    });
}
