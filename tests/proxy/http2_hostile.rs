//! Endpoints that speak HTTP/2 badly: what is theirs alone fails alone, is told as what it is, and goes nowhere else that it must not go.

use crate::operation::said;
use crate::support::{Driver, Gateway, Setup, behind_endpoints, eventually, on_both_drivers};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// An endpoint's end of a connection, whose frames are written by hand.
struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
    /// That the gateway has sent.
    pings: usize,
}

/// The head of a request: its stream, whether that was all, and its block, in which the path stands as it is.
struct Asked {
    id: u32,
    is_whole: bool,
    block: Vec<u8>,
}

impl Asked {
    fn is_for(&self, path: &str) -> bool {
        self.block.windows(path.len()).any(|part| part == path.as_bytes())
    }
}

impl Peer {
    fn read(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.unread.len() < bytes {
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.unread.extend_from_slice(&piece[..count]),
            }
        }
        Ok(self.unread.drain(..bytes).collect())
    }

    /// The next frame that asks for no answer of the connection: its kind, flags, stream and payload.
    fn frame(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        loop {
            let head = self.read(9)?;
            let payload = self.read(usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]))?;
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match (head[3], head[4] & 1) {
                (SETTINGS, 0) => self.write(&frame(SETTINGS, 1, 0, b""))?,
                (PING, 0) => {
                    self.pings += 1;
                    self.write(&frame(PING, 1, 0, &payload))?;
                }
                _ => return Ok((head[3], head[4], id, payload)),
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next request, as soon as its head is here.
    fn asked(&mut self) -> io::Result<Asked> {
        loop {
            if let (HEADERS, flags, id, block) = self.frame()? {
                return Ok(Asked { id, is_whole: flags & END_STREAM != 0, block });
            }
        }
    }

    /// The same, when all of it is here.
    fn asked_whole(&mut self) -> io::Result<Asked> {
        let asked = self.asked()?;
        let mut is_whole = asked.is_whole;
        while !is_whole {
            let (_, flags, ..) = self.frame()?;
            is_whole = flags & END_STREAM != 0;
        }
        Ok(asked)
    }

    /// Waits until the gateway has taken all that was written.
    fn settle(&mut self) -> io::Result<()> {
        self.write(&frame(PING, 0, 0, b"attended"))?;
        while !matches!(self.frame()?, (PING, 1, ..)) {}
        Ok(())
    }
}

/// An endpoint that greets, and then does with each connection what it is told to.
struct Hostile {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Hostile {
    /// `serve` is given the requests' count, to add to it.
    fn start(serve: impl Fn(&mut Peer, &AtomicUsize) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start_silent(move |peer, requests| {
            peer.read(24)?;
            peer.write(&frame(SETTINGS, 0, 0, b""))?;
            serve(peer, requests)
        })
    }

    /// The same, without a greeting.
    fn start_silent(serve: impl Fn(&mut Peer, &AtomicUsize) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, asked, serve) = (Arc::clone(&connections), Arc::clone(&requests), Arc::new(serve));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, SeqCst);
                let (asked, serve) = (Arc::clone(&asked), Arc::clone(&serve));
                // it ends with its connection, whose end is no failure
                thread::spawn(move || serve(&mut Peer { stream, unread: Vec::new(), pings: 0 }, &asked));
            }
        });
        Self { address, connections, requests }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
}

/// A header block of literals (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

fn head(id: u32, fields: &[(&str, &str)], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, id, &block(fields))
}

fn answer(id: u32, status: &str, body: &str) -> Vec<u8> {
    let length = body.len().to_string();
    [head(id, &[(":status", status), ("content-length", &length)], 0), frame(DATA, END_STREAM, id, body.as_bytes())]
        .concat()
}

fn gateway(driver: Driver, endpoints: &[&Hostile], route: &str, cluster: &str) -> Gateway {
    let endpoint = |(tier, it): (usize, &&Hostile)| format!("{{ address = \"{}\", priority = {tier} }}", it.address);
    let endpoints: Vec<_> = endpoints.iter().enumerate().map(endpoint).collect();
    let cluster = format!("protocol = \"h2\"\n{cluster}");
    let config = behind_endpoints(&endpoints.join(", "), route, &cluster);
    Gateway::start_with(driver, &Setup { workers: 1, config: &config, ..Setup::default() })
}

fn failed(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric("ringgate_endpoint_http2_failures_total", &[("reason", reason)])
}

/// What an endpoint says in place of an answer, by the stream that was asked on.
type Said = fn(u32) -> Vec<u8>;

/// What breaks a stream, and leaves the others of its connection as they are.
const OF_A_STREAM: &[(&str, Said)] = &[
    ("no status", |id| head(id, &[("a", "b")], END_STREAM)),
    ("an empty head", |id| head(id, &[], END_STREAM)),
    ("two statuses", |id| head(id, &[(":status", "200"), (":status", "200")], END_STREAM)),
    ("a status of two digits", |id| head(id, &[(":status", "20")], END_STREAM)),
    ("a status beyond 599", |id| head(id, &[(":status", "600")], END_STREAM)),
    ("101", |id| head(id, &[(":status", "101")], 0)),
    ("an interim head that ends", |id| head(id, &[(":status", "103")], END_STREAM)),
    ("a pseudo-field of requests", |id| head(id, &[(":status", "200"), (":path", "/")], END_STREAM)),
    ("a pseudo-field behind a field", |id| head(id, &[("a", "b"), (":status", "200")], END_STREAM)),
    ("a name in upper case", |id| head(id, &[(":status", "200"), ("A", "b")], END_STREAM)),
    ("a field of the connection", |id| head(id, &[(":status", "200"), ("connection", "close")], END_STREAM)),
    ("a transfer coding", |id| head(id, &[(":status", "200"), ("transfer-encoding", "chunked")], END_STREAM)),
    ("a line break in a value", |id| head(id, &[(":status", "200"), ("a", "b\r\nc: d")], END_STREAM)),
    ("a length of which nothing comes", |id| head(id, &[(":status", "200"), ("content-length", "5")], END_STREAM)),
    ("a length that is none", |id| head(id, &[(":status", "200"), ("content-length", "-5")], END_STREAM)),
    ("DATA before the head", |id| frame(DATA, END_STREAM, id, b"HTTP/1.1 200 OK\r\n\r\n")),
    ("a window of nothing", |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
    ("interim heads without an end", |id| head(id, &[(":status", "100")], 0).repeat(200)),
];

/// What breaks the connection.
const OF_A_CONNECTION: &[(&str, Said)] = &[
    ("a head on a stream that nobody has begun", |id| head(id + 2, &[(":status", "200")], END_STREAM)),
    ("a head on a stream of its own", |_| head(2, &[(":status", "200")], END_STREAM)),
    ("a push", |id| frame(5, END_HEADERS, id, &[0, 0, 0, 2])),
    ("a block that cannot be decoded", |id| frame(HEADERS, END_HEADERS | END_STREAM, id, b"\xff\xff\xff\xff")),
    ("a block without an end", |id| {
        [frame(HEADERS, 0, id, &block(&[(":status", "200")])), frame(CONTINUATION, 0, id, b"").repeat(100)].concat()
    }),
    ("another frame within a block", |id| {
        [frame(HEADERS, 0, id, &block(&[(":status", "200")])), frame(PING, 0, 0, &[0; 8])].concat()
    }),
    ("a frame that is too large", |id| frame(HEADERS, END_HEADERS, id, &[0; 20_000])),
    ("a window beyond what windows may be", |_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
    ("a reset of nothing", |id| frame(RST_STREAM, 0, id + 2, &[0; 4])),
    ("settings that are cut", |_| frame(SETTINGS, 0, 0, &[0; 5])),
    ("pings without an end", |_| frame(PING, 0, 0, &[0; 8]).repeat(5_000)),
    ("text of HTTP/1.1", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
];

on_both_drivers! {
    /// One that is asked for `/N` says what stands in row N of the tables, and answers anything else.
    fn what_is_no_answer_is_told_as_that_and_costs_what_it_breaks(driver: Driver) {
        let cases = || OF_A_STREAM.iter().chain(OF_A_CONNECTION);
        let hostile = Hostile::start(move |peer, requests| loop {
            let asked = peer.asked_whole()?;
            requests.fetch_add(1, SeqCst);
            match (0..cases().count()).find(|row| asked.is_for(&format!("/{row}/"))) {
                Some(row) => peer.write(&cases().nth(row).unwrap().1(asked.id))?,
                None => peer.write(&answer(asked.id, "200", "ok"))?,
            }
        });
        let gateway = gateway(driver, &[&hostile], "retry = { attempts = 0 }", "outlier = { enabled = false }");
        for (row, (name, _)) in cases().enumerate() {
            for method in ["GET", "POST"] {
                assert_eq!(gateway.get("/").status, 200, "before {name}");
                let (connections, requests) = (hostile.connections(), hostile.requests());
                let body: &[u8] = if method == "GET" { b"" } else { b"once" };
                let answer = gateway.request(method, &format!("/{row}/"), &[], body);
                assert_eq!(answer.status, 502, "{name}: {answer:?}");
                assert!(answer.text().contains("\"upstream_protocol_error\""), "{name}: {answer:?}");
                assert_eq!(gateway.get("/").status, 200, "after {name}");
                let new = usize::from(row >= OF_A_STREAM.len());
                assert_eq!(hostile.connections() - connections, new, "connections made: {name}");
                assert_eq!(hostile.requests() - requests, 2, "requests: {name}");
            }
        }
        let broken = |reason| failed(&gateway, reason);
        let others = 2.0 * (OF_A_CONNECTION.len() - 1) as f64;
        eventually("each is told as what it is", || (broken("plain_http1") == 2.0 && broken("protocol") == others).then_some(()));
        gateway.assert_nothing_left();
    }

    fn one_that_does_not_speak_http2_is_passed_by_and_told_as_that(driver: Driver) {
        let good = || Hostile::start(|peer, requests| loop {
            let asked = peer.asked_whole()?;
            requests.fetch_add(1, SeqCst);
            peer.write(&answer(asked.id, "200", "ok"))?;
        });
        for (name, words) in [
            ("text of HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec()),
            ("a frame before SETTINGS", frame(PING, 0, 0, &[0; 8])),
            ("SETTINGS of a stream", frame(SETTINGS, 0, 1, b"")),
        ] {
            let other = Hostile::start_silent(move |peer, _| {
                peer.read(24)?;
                peer.write(&words)?;
                peer.read(1 << 20).map(drop)
            });
            let alone = gateway(driver, &[&other], "retry = { attempts = 0 }", "outlier = { enabled = false }");
            let refused = alone.request("POST", "/", &[], b"once");
            assert!(refused.status == 502 && refused.text().contains("\"upstream_protocol_error\""), "{name}: {refused:?}");
            drop(alone);
            let good = good();
            let mut both = gateway(driver, &[&other, &good], "retry = { attempts = 0 }", "");
            for _ in 0..10 {
                assert_eq!(both.request("POST", "/", &[], b"once").status, 200, "{name}: nothing was sent");
            }
            assert_eq!(good.requests(), 10, "{name}: nothing is sent twice");
            assert_eq!(both.metric("ringgate_endpoint_ejections_total", &[]), 1.0, "{name}");
            let reason = if name.starts_with("text") { "plain_http1" } else { "protocol" };
            eventually("it is told as that", || (failed(&both, reason) >= 1.0).then_some(()));
            said(&mut both, &["http2 failed upstream=svc", &format!("endpoint={}", other.address), &format!("reason={reason} ")]);
        }
    }

    /// The client still sends when an answer comes that says that this is not wanted, and its body comes later.
    fn an_early_refusal_comes_whole(driver: Driver) {
        const PIECES: usize = 12;
        let hostile = Hostile::start(|peer, _| loop {
            let asked = peer.asked()?;
            peer.write(&head(asked.id, &[(":status", "413"), ("content-length", "120000")], 0))?;
            for piece in 1..=PIECES {
                peer.settle()?;
                peer.write(&frame(DATA, u8::from(piece == PIECES), asked.id, &[b'n'; 10_000]))?;
            }
            peer.write(&frame(RST_STREAM, 0, asked.id, &[0; 4]))?;
        });
        let gateway = gateway(driver, &[&hostile], "max_body = \"16MiB\"", "");
        for _ in 0..5 {
            let mut client = gateway.client();
            // more than the endpoint takes of it, and less than the client has said
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n");
            client.send(vec![b'y'; 100_000]);
            let response = client.read("POST");
            assert_eq!((response.status, response.body.len()), (413, 120_000));
        }
        assert_eq!(hostile.connections(), 1);
        gateway.assert_nothing_left();
    }

    /// Bodies that break off with their connection, one connection after the other, many streams on each.
    fn a_connection_that_is_lost_amid_bodies_is_one_failure(driver: Driver) {
        const STREAMS: usize = 6;
        let hostile = Hostile::start(|peer, requests| {
            for _ in 0..STREAMS {
                let asked = peer.asked_whole()?;
                requests.fetch_add(1, SeqCst);
                peer.write(&head(asked.id, &[(":status", "200"), ("content-length", "9")], 0))?;
                peer.write(&frame(DATA, 0, asked.id, b"part"))?;
            }
            while peer.asked_whole().is_ok_and(|asked| !asked.is_for("/last")) {}
            Ok(())
        });
        let second = Hostile::start(|peer, _| loop {
            let asked = peer.asked_whole()?;
            peer.write(&answer(asked.id, "200", "ok"))?;
        });
        let cluster = "outlier = { consecutive = 3 }\nbalance = \"round_robin\"";
        let gateway = gateway(driver, &[&hostile, &second], "retry = { attempts = 0 }\ntimeout = \"30s\"", cluster);
        for lost in 1..=3 {
            let mut clients: Vec<_> = (0..STREAMS).map(|_| gateway.client()).collect();
            for client in &mut clients {
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                assert_eq!(client.read_head().unwrap().0, 200);
                assert_eq!(client.take(4).unwrap(), b"part");
            }
            assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 0.0, "before {lost} were lost");
            let mut last = gateway.client();
            last.send(b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n");
            for client in &mut clients {
                client.assert_closed();
            }
            last.read("GET");
        }
        assert_eq!(hostile.requests(), 3 * STREAMS);
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 1.0);
    }

    /// RFC 9113 §6.7: whoever has gone meanwhile is found out a round trip later, and whoever is there hears one frame more.
    fn one_that_was_idle_for_long_is_asked_whether_it_is_there_along_with_the_next_request(driver: Driver) {
        let endpoint = Hostile::start(|peer, _| loop {
            let asked = peer.asked_whole()?;
            let pings = peer.pings.to_string();
            peer.write(&answer(asked.id, "200", &pings))?;
        });
        let gateway = gateway(driver, &[&endpoint], "", "");
        let pings = || gateway.get("/").text();
        assert_eq!([pings(), pings()], ["0", "0"]);
        let began = Instant::now();
        eventually("ten seconds are over", || (began.elapsed() > Duration::from_millis(10_300)).then_some(()));
        assert_eq!([pings(), pings()], ["1", "1"]);
        assert_eq!(endpoint.connections(), 1);
    }

    /// RFC 9113 §7: what is asked for is heard, by one worker, of all its connections to the endpoint.
    fn one_that_asks_for_calm_is_given_half_and_more_again_later(driver: Driver) {
        const FIRST: usize = 8;
        let (go, has_asked) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (goes, asks) = (Arc::clone(&go), Arc::clone(&has_asked));
        let hostile = Hostile::start(move |peer, requests| {
            let mut held = Vec::new();
            while held.len() < FIRST {
                held.push(peer.asked_whole()?.id);
                requests.fetch_add(1, SeqCst);
            }
            peer.write(&frame(RST_STREAM, 0, held.remove(0), &[0, 0, 0, 0xb]))?;
            peer.settle()?;
            let began = Instant::now();
            asks.store(1, SeqCst);
            let mut answered = 0;
            eventually("the others wait", || (goes.load(SeqCst) == 1).then_some(()));
            while !held.is_empty() {
                peer.write(&answer(held.remove(0), "200", "ok"))?;
                peer.write(&frame(PING, 0, 0, b"attended"))?;
                loop {
                    match peer.frame()? {
                        (HEADERS, _, id, _) => held.push(id),
                        (PING, 1, ..) => break,
                        _ => {}
                    }
                }
                answered += 1;
                // those that it had are not taken from it, and a slow machine makes a long time of it
                let limit = (FIRST / 2) << (began.elapsed().as_secs() / 10);
                if held.len() > limit.max((FIRST - 1).saturating_sub(answered)) {
                    return Ok(()); // which its clients notice
                }
            }
            peer.read(1 << 20).map(drop)
        });
        let cluster = "max_streams = 16\nconnect_timeout = \"60s\"\noutlier = { enabled = false }";
        let gateway = gateway(driver, &[&hostile], "retry = { attempts = 0 }\ntimeout = \"60s\"", cluster);
        let ask = || {
            let mut client = gateway.client();
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        };
        let mut clients: Vec<_> = (0..FIRST).map(|_| ask()).collect();
        eventually("it has asked for calm", || (has_asked.load(SeqCst) == 1).then_some(()));
        clients.extend((0..FIRST).map(|_| ask()));
        let waiting = || gateway.metric("ringgate_endpoint_in_flight", &[]);
        eventually("the others wait", || (waiting() == (2 * FIRST - 1) as f64).then_some(()));
        go.store(1, SeqCst);
        let mut statuses: Vec<_> = clients.iter_mut().map(|client| client.read("GET").status).collect();
        statuses.sort_unstable();
        assert_eq!((&statuses[..2 * FIRST - 1], statuses[2 * FIRST - 1]), (&[200; 2 * FIRST - 1][..], 502));
        assert_eq!(hostile.connections(), 1, "more of them would be no calm");
        eventually("it is counted once", || (failed(&gateway, "enhance_your_calm") == 1.0).then_some(()));
        let upstreams = gateway.admin("/upstreams").text();
        assert!(upstreams.contains("\"http2_failures\":{\"enhance_your_calm\":1}"), "{upstreams}");
    }

    /// A block of a head holds back all that is behind it (§4.3): who does not end it has no connection any more, and is to blame once.
    fn a_frame_without_its_end_costs_the_connection_and_not_every_request_its_time(driver: Driver) {
        const ASKED: usize = 6;
        let parts: [fn(u32) -> Vec<u8>; 3] = [
            |id| frame(HEADERS, 0, id, &block(&[(":status", "200")])),
            |id| answer(id, "200", "")[..12].to_vec(),
            |_| vec![0; 5],
        ];
        let good = Hostile::start(|peer, _| loop {
            let asked = peer.asked_whole()?;
            peer.write(&answer(asked.id, "200", "ok"))?;
        });
        let cluster = "outlier = { consecutive = 3 }\nretry_budget = { ratio = 1.0, min_per_second = 1000 }";
        let under_way: Vec<_> = parts
            .map(|part| {
                let hostile = Hostile::start(move |peer, requests| {
                    let first = peer.asked_whole()?.id;
                    for _ in 1..ASKED {
                        peer.asked_whole()?;
                    }
                    requests.fetch_add(1, SeqCst);
                    peer.write(&part(first))?;
                    peer.read(1 << 20).map(drop)
                });
                let gateway = gateway(driver, &[&hostile, &good], "timeout = \"60s\"", cluster);
                let ask = |n| {
                    let mut client = gateway.client();
                    let method = if n == 0 { "POST" } else { "GET" };
                    client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
                    client
                };
                let clients: Vec<_> = (0..ASKED).map(ask).collect();
                (gateway, hostile, clients)
            })
            .into();
        for (gateway, hostile, mut clients) in under_way {
            for (n, client) in clients.iter_mut().enumerate() {
                // what may have been looked at is not sent again
                assert_eq!(client.read("GET").status, if n == 0 { 502 } else { 200 }, "{n}");
            }
            assert_eq!((hostile.connections(), hostile.requests()), (1, 1));
            eventually("it is told as that", || (failed(&gateway, "part_timeout") == 1.0).then_some(()));
            assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 0.0, "one event of three");
        }
    }
}
