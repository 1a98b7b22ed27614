//! Clients and services that send whatever comes to mind, from a seed, beside clients that must not notice anything of it.
//!
//! A few seconds here; `RINGGATE_GARBAGE_SECONDS=600` for the long run, `RINGGATE_GARBAGE_SEED` for another one.

use crate::support::upstream::Conn;
use crate::support::{Driver, Gateway, Setup, Upstream, eventually, on_both_drivers};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::sync::Mutex;
use std::time::{Duration, Instant};

const CLIENTS: u64 = 12;
/// How long one who behaves may have to wait for an answer, on a machine that does other things as well.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Short, so that what hangs comes free and much of it fits into the time.
const LISTENER: &str = "header_timeout = \"400ms\"\nbody_timeout = \"400ms\"\nidle_timeout = \"300ms\"\n\
                        tunnel_timeout = \"400ms\"\nmax_body = \"64KiB\"";

/// `idle_timeout` of that.
const IDLE: Duration = Duration::from_millis(300);

/// What is spoiled before it is sent to the gateway.
const REQUESTS: [&[u8]; 16] = [
    b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"GET http://a.example/x?y=z HTTP/1.1\r\nHost: a.example\r\nConnection: close, te\r\nTE: trailers\r\n\r\n",
    b"HEAD /x HTTP/1.0\r\n\r\n",
    b"GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0;a=b\r\nX: y\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x00",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\n\x00\r\nQUIT\r\n\r\n\x00\r\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02",
    b"GET /../%2e%2e/%2f//\\%00 HTTP/1.1\r\nHost: a\r\nA_b: c\r\nX-Forwarded-For: 1, 2\r\nCookie: \xff\xfe\r\n\r\n",
];

/// What is spoiled before it is sent back to the gateway.
const RESPONSES: [&[u8]; 10] = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil it ends",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01a",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\nETag: \"a\"\r\n\r\n",
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"ICY 200 OK\r\n\r\nSSH-2.0-OpenSSH_9.2\r\n",
];

/// Bytes that parsers care about.
const EDGES: &[u8] = b"\r\n\0 \t:;,%/\\\"0123456789afAFxX-+_*\x7f\x80\xff";

/// One of these as it is, spoiled in a few places, among others, or nothing but noise.
fn bytes(of: &[&[u8]], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        if rng.random_bool(0.1) {
            let len = rng.random_range(1..3_000);
            let is_text = rng.random_bool(0.5);
            bytes.extend((0..len).map(|_| if is_text { edge(rng) } else { rng.random() }));
        } else {
            bytes.extend_from_slice(of[rng.random_range(0..of.len())]);
        }
    }
    for _ in 0..[0, 1, 2, 10][rng.random_range(0..4)] {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] = edge(rng),
            1 => bytes.insert(at, edge(rng)),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            3 => bytes.truncate(at + 1),
            _ => {
                let end = rng.random_range(at..bytes.len().min(at + 200)) + 1;
                let part = bytes[at..end].repeat([1, 2, 100][rng.random_range(0..3)]);
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn edge(rng: &mut StdRng) -> u8 {
    EDGES[rng.random_range(0..EDGES.len())]
}

fn in_pieces(bytes: &[u8], rng: &mut StdRng, send: impl FnMut(&[u8]) -> bool) -> bool {
    let max = [bytes.len(), bytes.len(), bytes.len().div_ceil(3), 7][rng.random_range(0..4)];
    bytes.chunks(max.max(bytes.len() / 50)).all(send)
}

/// What the garbage has led to.
#[derive(Debug, Default)]
struct Tally {
    /// Connections by the status of their last answer; 0: none.
    statuses: BTreeMap<u16, usize>,
    connections: usize,
}

/// Opens connections, one after another, and ends each in a way of its own.
fn throw(gateway: &Gateway, until: Instant, seed: u64, tally: &Mutex<Tally>) {
    let mut rng = StdRng::seed_from_u64(seed);
    while Instant::now() < until {
        let mut client = gateway.client();
        let bytes = bytes(&REQUESTS, &mut rng);
        // fails when the gateway has had enough of it, which is its good right
        let is_sent = in_pieces(&bytes, &mut rng, |piece| client.try_send(piece).is_ok());
        let way = rng.random_range(0..4);
        if way == 0 {
            client.stream().reset_on_close();
        } else if way == 1 && is_sent {
            client.stream().end();
        }
        let mut status = 0;
        if way != 0 {
            // whatever it was: the connection ends, because everything that could be waited for has its time
            match client.read_to_end() {
                Ok(answer) => status = last_status(&answer),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                    "seed {seed}: {error} after {:?}",
                    bytes.escape_ascii().to_string()
                ),
            }
        }
        let mut tally = crate::support::lock(tally);
        *tally.statuses.entry(status).or_default() += 1;
        tally.connections += 1;
    }
}

fn last_status(answer: &[u8]) -> u16 {
    let begin = b"HTTP/1.1 ";
    let last = answer.windows(begin.len()).rposition(|window| window == begin);
    let digits = last.and_then(|at| answer.get(at + begin.len()..at + begin.len() + 3));
    digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
}

/// Answers as it likes, sometimes before it was asked, sometimes not at all.
fn babble(conn: &mut Conn, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed ^ conn.number as u64);
    loop {
        // what it is told may be a tunnel's bytes, and is nothing to it anyway
        if rng.random_bool(0.95) && !matches!(conn.stream().read(&mut [0; 4096]), Ok(1..)) {
            return;
        }
        let bytes = bytes(&RESPONSES, &mut rng);
        if !in_pieces(&bytes, &mut rng, |piece| conn.send(piece)) {
            return;
        }
        match rng.random_range(0..4) {
            0 => return conn.reset(),
            1 => return,
            _ => {}
        }
    }
}

/// Asks and is answered, all the time, on connections that last and on new ones.
fn behave(gateway: &Gateway, until: Instant) -> (usize, Duration) {
    let (mut asked, mut late, mut longest) = (0, 0, Duration::ZERO);
    // the gateway has answered the last request at some time after this
    let (mut client, mut last) = (gateway.client(), Instant::now());
    while Instant::now() < until {
        // a machine with too much to do may keep it away for longer than an idle connection is kept
        if asked % 50 == 0 || last.elapsed() >= IDLE / 2 {
            client = gateway.client();
        }
        client.limit(ANSWER_WITHIN);
        let began = Instant::now();
        let answer = match client.try_get("/good") {
            Ok(answer) => answer,
            Err(_) if last.elapsed() >= IDLE && late <= asked / 10_000 => {
                (client, last, late) = (gateway.client(), Instant::now(), late + 1);
                continue;
            }
            Err(error) => panic!("request {asked}, {:?} after the last one was sent: {error}", last.elapsed()),
        };
        last = began;
        assert_eq!((answer.status, answer.text().as_str()), (200, "good"), "request {asked}: {answer:?}");
        longest = longest.max(began.elapsed());
        asked += 1;
        std::thread::park_timeout(Duration::from_millis(2));
    }
    (asked, longest)
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect("a number"))
}

on_both_drivers! {
    fn garbage_from_both_sides_harms_nobody_else(driver: Driver) {
        let seed = from_environment("RINGGATE_GARBAGE_SEED", 1);
        let seconds = from_environment("RINGGATE_GARBAGE_SECONDS", 3);
        println!("replay with RINGGATE_GARBAGE_SEED={seed} RINGGATE_GARBAGE_SECONDS={seconds}");
        let good = Upstream::always("good");
        let bad = Upstream::scripted(move |conn| babble(conn, seed));
        let config = format!(
            "[[route]]\nname = \"good\"\nmatch = {{ path = \"/good\" }}\nupstream = \"good\"\n\n\
             [[route]]\nname = \"bad\"\nmatch = {{ path = \"/*\" }}\nupstream = \"bad\"\ntimeout = \"500ms\"\n\n\
             [upstream.good]\nendpoints = [{{ address = \"{}\" }}]\n\n\
             [upstream.bad]\nendpoints = [{{ address = \"{}\" }}]\noutlier = {{ enabled = false }}\nidle_timeout = \"300ms\"\n",
            good.address(),
            bad.address()
        );
        let gateway = Gateway::start_with(driver, &Setup { listener: LISTENER, config: &config, ..Setup::default() });
        let tally = Mutex::default();
        // what the first clients leave behind (pools, a table, the allocator's arenas) is no leak
        let rest = |gateway: &Gateway| {
            gateway.assert_nothing_left();
            eventually("pooled connections to the bad service end", || {
                (gateway.metric("ringgate_upstream_connections", &[("upstream", "bad")]) == 0.0).then_some(())
            });
            (gateway.resident_bytes(), gateway.descriptors())
        };
        let spell = |seconds: u64, seed: u64| {
            let until = Instant::now() + Duration::from_secs(seconds);
            std::thread::scope(|scope| {
                let (gateway, tally) = (&gateway, &tally);
                for client in 0..CLIENTS {
                    scope.spawn(move || throw(gateway, until, seed * CLIENTS + client, tally));
                }
                let behaving: Vec<_> = (0..2).map(|_| scope.spawn(move || behave(gateway, until))).collect();
                behaving.into_iter().map(|client| client.join().expect("it was answered")).collect::<Vec<_>>()
            })
        };
        spell(1, seed + 1_000);
        let (resident, descriptors) = rest(&gateway);
        let answered = spell(seconds, seed);
        let (resident_then, descriptors_then) = rest(&gateway);
        println!("answered, longest wait of those who behave: {answered:?}\n{:?}", tally.lock());
        println!("resident {} then {} KiB, descriptors {descriptors} then {descriptors_then}", resident >> 10, resident_then >> 10);
        assert_eq!(gateway.metric("ringgate_worker_panics_total", &[]), 0.0);
        assert!(descriptors_then <= descriptors + 4, "{descriptors} descriptors, then {descriptors_then}");
        assert!(resident_then < resident + (8 << 20), "{resident} bytes resident, then {resident_then}");
    }
}
