//! Loads over HTTP/2 against servers of another hand (the crate h2), and against some that do as they like.

use super::tests::{failures, load, server};
use super::*;
use crate::load::{Protocol, Target};
use crate::wire::Failure;
use bytes::Bytes;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a server of the crate h2 does with a request, by its path.
#[derive(Clone, Default)]
struct Kindly {
    streams_max: u32,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    held: Duration,
}

/// A server in a thread of its own, with one connection after the other in turn, until the test ends.
fn kindly(server: &Kindly) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = server.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(serve(stream, server.clone()));
            }
        });
    });
    address
}

async fn serve(stream: tokio::net::TcpStream, server: Kindly) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(server.streams_max).max_header_list_size(1 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, answer))) = connection.accept().await {
        if request.uri().path() == "/goaway" {
            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
        } else {
            tokio::task::spawn_local(answered(request, answer, server.clone()));
        }
    }
}

async fn answered(request: http::Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>, server: Kindly) {
    let now = server.open.fetch_add(1, Ordering::Relaxed) + 1;
    server.most.fetch_max(now, Ordering::Relaxed);
    let (head, mut body) = request.into_parts();
    let mut bytes = 0;
    while let Some(Ok(data)) = body.data().await {
        bytes += data.len();
        let _ = body.flow_control().release_capacity(data.len());
    }
    tokio::time::sleep(server.held).await;
    server.open.fetch_sub(1, Ordering::Relaxed);
    match head.uri.path() {
        "/reset" => answer.send_reset(h2::Reason::INTERNAL_ERROR),
        "/refuse" => answer.send_reset(h2::Reason::REFUSED_STREAM),
        "/never" => std::future::pending().await,
        path => {
            let length = if path == "/large" { 3 << 20 } else { 2 };
            let response = http::Response::builder().header("x-got", bytes.to_string()).header("server", "h2");
            let Ok(mut stream) = answer.send_response(response.body(()).unwrap(), false) else { return };
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-sum", http::HeaderValue::from_static("1"));
            let text = if bytes == 700_000 { "all" } else { "ok" };
            let body = [text.as_bytes(), &vec![b'x'; length - 2]].concat();
            let _ = stream.send_data(body.into(), false).and_then(|()| stream.send_trailers(trailers));
        }
    }
}

fn asking(path: &str) -> Target {
    Target::new("GET", "a.test", path, &[("x-tenant".to_owned(), "acme".to_owned())], b"", false)
}

/// Two connections of ten streams.
fn shared(address: SocketAddr, targets: &[Target]) -> Load {
    Load {
        protocol: Protocol::Http2 { streams: 10 },
        connections: 2,
        connections_max: 2,
        targets: targets.into(),
        timeout: Duration::from_secs(20),
        ..load(address)
    }
}

#[test]
fn everything_that_is_due_is_asked_and_answered_once() {
    let address = kindly(&Kindly { streams_max: 100, ..Kindly::default() });
    for (threads, reconnects) in [(1, false), (2, false), (1, true)] {
        let (cores, connections_max) = (vec![0; threads], if reconnects { 64 } else { 2 });
        let load = Load { cores, reconnects, connections_max, ..shared(address, &[asking("/")]) };
        let measured = offer(&load, &Watch::default()).unwrap();
        assert_eq!((measured.tallies.due(), failures(&measured)), (300, vec![]), "{threads} threads");
        assert_eq!((measured.tallies.statuses[200], measured.tallies.latency.len()), (300, 300));
        let opened = measured.connections_opened;
        assert!(if reconnects { opened >= 300 } else { opened == 2 }, "{opened} connections");
        let expected = 300.0 * (measured.tallies.latency.mean() - measured.tallies.lag.mean()) / 1e9;
        assert!((measured.in_flight(&load) - expected).abs() < 0.05 * expected + 0.01, "{expected}");
    }
}

#[test]
fn whoever_waits_for_a_stream_has_been_due_all_the_same() {
    // 4 at once for 40 ms each are 100 a second, and 200 are asked for
    let server = Kindly { streams_max: 2, held: Duration::from_millis(40), ..Kindly::default() };
    let load = Load { pace: Pace::Even(200.0), ..shared(kindly(&server), &[asking("/")]) };
    let measured = offer(&load, &Watch::default()).unwrap();
    assert_eq!((measured.tallies.due(), failures(&measured)), (200, vec![]));
    assert_eq!((server.most.load(Ordering::Relaxed), measured.connections_opened), (4, 2), "its limit is kept to");
    assert!(measured.tallies.waited > 100, "{}", measured.tallies.waited);
    let median = |times: &crate::stats::Times| Duration::from_nanos(times.value_at_quantile(0.5));
    let (true_one, naive) = (median(&measured.tallies.latency), median(&measured.tallies.uncorrected));
    assert!(true_one > Duration::from_millis(300) && naive < true_one / 2, "{true_one:?} {naive:?}");
}

#[test]
fn bodies_go_both_ways_and_one_that_is_lost_does_not_harm_its_neighbours() {
    let address = kindly(&Kindly { streams_max: 100, ..Kindly::default() });
    let looking = |target: Target, text: &str| Target { body_has: Some(text.as_bytes().into()), ..target };
    let up = Target::new("POST", "a.test", "/", &[], &vec![b'x'; 700_000], false);
    let both = [looking(up, "all"), looking(asking("/large"), "ok")];
    let measured = offer(&Load { pace: Pace::Even(40.0), ..shared(address, &both) }, &Watch::default()).unwrap();
    assert_eq!((measured.tallies.due(), failures(&measured)), (40, vec![]));
    assert!(measured.sent > 700_000 && measured.received > 3 << 20, "{} {}", measured.sent, measured.received);

    let head = Target { method: "HEAD".to_owned(), ..Target::new("HEAD", "a.test", "/", &[], b"", false) };
    let paths = ["/", "/reset", "/refuse", "/never"].map(asking);
    let load = Load { timeout: Duration::from_millis(800), ..shared(address, &[&paths[..], &[head]].concat()) };
    let measured = offer(&load, &Watch::default()).unwrap();
    let of = |row: usize| {
        let tally = &measured.tallies.parts[row];
        (tally.due > 20, tally.good() == tally.due, Failure::ALL.map(|kind| tally.failures[kind.row()] == tally.due))
    };
    let only = |wanted: Failure| (true, false, Failure::ALL.map(|kind| kind == wanted));
    assert_eq!((of(0).0, of(0).1), (true, true), "{:?}", failures(&measured));
    assert_eq!((of(1), of(2)), (only(Failure::StreamReset), only(Failure::StreamRefused)));
    let never = &measured.tallies.parts[3];
    let waited_in_vain = never.failures[Failure::Timeout.row()] + never.failures[Failure::Unsent.row()];
    assert!(never.due > 20 && waited_in_vain == never.due);
    assert_eq!((of(4).0, of(4).1), (true, true), "what an answer to HEAD has is its own affair");
    assert_eq!(measured.connections_opened, 2, "connections are kept");
}

#[test]
fn a_closed_loop_has_as_many_under_way_as_there_are_streams() {
    let server = Kindly { streams_max: 8, held: Duration::from_millis(5), ..Kindly::default() };
    let load =
        Load { pace: Pace::Closed, length: Duration::from_millis(500), ..shared(kindly(&server), &[asking("/")]) };
    let measured = offer(&load, &Watch::default()).unwrap();
    assert_eq!(failures(&measured), []);
    assert_eq!(server.most.load(Ordering::Relaxed), 16, "{} requests", measured.tallies.due());
}

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A server that says its settings, waits for a request, answers with `bytes`, and goes on to read.
fn saying(bytes: Vec<u8>, closes: bool) -> SocketAddr {
    server(move |mut stream: TcpStream| {
        let mut seen = [0; 4_096];
        let is_asked =
            |seen: &[u8]| seen.windows(6).any(|part| part[0] == 1 && part[1] & 4 != 0 && part[2..] == [0, 0, 0, 1]);
        let _ = stream.write_all(SETTINGS);
        while let Ok(count @ 1..) = stream.read(&mut seen) {
            if is_asked(&seen[..count]) {
                break;
            }
        }
        let _ = stream.write_all(&bytes);
        while !closes && stream.read(&mut seen).is_ok_and(|count| count > 0) {}
    })
}

#[test]
fn whatever_a_server_does_has_an_end_and_a_kind() {
    let head = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream][..], payload].concat()
    };
    let goaway = move |last: u8| head(7, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]);
    let silent = server(|mut stream| while stream.read(&mut [0; 4_096]).is_ok_and(|count| count > 0) {});
    let mute = saying(Vec::new(), false);
    let at_once = server(move |mut stream| {
        let _ = stream.write_all(&[SETTINGS, &goaway(0)].concat());
        while stream.read(&mut [0; 4_096]).is_ok_and(|count| count > 0) {}
    });
    let flooding = server(|mut stream| {
        let _ = stream.write_all(SETTINGS);
        let pings = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8].repeat(4_096);
        // it reads nothing, and never ends by itself
        while stream.write_all(&pings).is_ok() {}
    });
    let http1 = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        while stream.read(&mut [0; 4_096]).is_ok_and(|count| count > 0) {}
    });
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let timed = &[Failure::Timeout, Failure::Unsent][..];
    let lost = &[Failure::Goaway, Failure::Unsent, Failure::Closed, Failure::Reset][..];
    let cases = [
        ("refuses", refusing, &[Failure::Refused][..], Failure::Refused),
        ("is silent", silent, timed, Failure::Timeout),
        ("never answers", mute, timed, Failure::Timeout),
        ("goes at once", at_once, lost, Failure::Goaway),
        ("goes when it is asked", saying(goaway(0), false), &lost[..2], Failure::Goaway),
        ("says that it goes, and goes", saying(goaway(9), true), lost, Failure::Goaway),
        ("sends garbage", saying(vec![0xff; 4_096], false), &[Failure::Garbage, Failure::Unsent], Failure::Garbage),
        ("is HTTP/1.1", http1, &[Failure::Garbage, Failure::Unsent], Failure::Garbage),
        (
            "answers others",
            saying(head(1, 5, 99, &[0x88]), false),
            &[Failure::Surplus, Failure::Unsent],
            Failure::Surplus,
        ),
        ("closes", saying(Vec::new(), true), &[Failure::Closed, Failure::Reset, Failure::Unsent], Failure::Closed),
        ("floods", flooding, &[Failure::Garbage, Failure::Reset, Failure::Timeout, Failure::Unsent], Failure::Garbage),
        ("stops in the middle", saying(head(1, 4, 1, &[0x88]), false), timed, Failure::Timeout),
    ];
    // most of the time is waiting
    thread::scope(|scope| {
        for (name, address, kinds, wanted) in cases {
            scope.spawn(move || {
                // who is silent is not waited for beforehand
                let load = Load {
                    timeout: Duration::from_millis(800),
                    reconnects: name == "is silent",
                    ..shared(address, &[asking("/")])
                };
                let measured = offer(&load, &Watch::default()).unwrap();
                let seen = failures(&measured);
                assert_eq!(measured.tallies.due(), 300, "{name}");
                assert_eq!(seen.iter().map(|(_, count)| count).sum::<u64>(), 300, "{name}: {seen:?}");
                assert!(seen.iter().all(|(kind, _)| kinds.contains(kind)), "{name}: {seen:?}");
                assert!(seen.iter().any(|(kind, _)| *kind == wanted), "{name}: {seen:?}");
                assert!(measured.took < Duration::from_secs(30), "{name}");
            });
        }
    });
}
