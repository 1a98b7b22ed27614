//! Endpoints that speak HTTP/2: requests share connections, and each is a request like any other.

use crate::support::tls::{Authority, Session};
use crate::support::{Driver, Gateway, Setup, behind_endpoints, eventually, noise, on_both_drivers};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

/// What has happened at an endpoint, and how it is told to end.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Requests that wait for `go`.
    waiting: AtomicUsize,
    cancelled: AtomicUsize,
    go: Notify,
}

/// An endpoint on a thread of its own. Dropped, it is gone with all of its connections at once.
struct Endpoint {
    address: SocketAddr,
    seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Endpoint {
    fn start(streams_max: u32) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = serve(TcpListener::from_std(listener).unwrap(), shared, streams_max) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, seen, stop: Some(stop), thread: Some(thread) }
    }

    fn written(&self) -> String {
        format!("{{ address = \"{}\" }}", self.address)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, seen: Arc<Seen>, streams_max: u32) {
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let seen = Arc::clone(&seen);
        seen.connections.fetch_add(1, SeqCst);
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(streams_max).initial_window_size(1 << 20);
            let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                if request.uri().query() == Some("last") {
                    connection.graceful_shutdown();
                }
                tokio::spawn(answer(request, respond, Arc::clone(&seen)));
            }
        });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    seen.requests.fetch_add(1, SeqCst);
    let head = |status: u16| Response::builder().status(status).header("x-version", "2");
    let (parts, mut body) = request.into_parts();
    match parts.uri.path() {
        "/empty" => drop(respond.send_response(head(204).body(()).unwrap(), true)),
        "/head" => drop(respond.send_response(head(200).header("content-length", 7).body(()).unwrap(), true)),
        "/refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "/fail" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/wait" => {
            seen.waiting.fetch_add(1, SeqCst);
            tokio::select! {
                () = seen.go.notified() => drop(respond.send_response(head(200).body(()).unwrap(), true)),
                _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
                    seen.cancelled.fetch_add(1, SeqCst);
                }
            }
        }
        path => {
            let mut all = Vec::new();
            while let Some(Ok(piece)) = body.data().await {
                all.extend_from_slice(&piece);
                let _ = body.flow_control().release_capacity(piece.len());
            }
            let trailers = body.trailers().await.ok().flatten();
            let length = path == "/length";
            let head = if length { head(200).header("content-length", all.len()) } else { head(200) };
            let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) else { return };
            send_all(&mut stream, &all, length).await;
            if !length {
                let mut behind = trailers.unwrap_or_default();
                behind.insert("x-sum", all.len().into());
                let _ = stream.send_trailers(behind);
            }
        }
    }
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, mut rest: &[u8], ends: bool) {
    if rest.is_empty() && ends {
        let _ = stream.send_data(Bytes::new(), true);
    }
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let (piece, behind) = rest.split_at(room.min(rest.len()));
        rest = behind;
        if stream.send_data(Bytes::copy_from_slice(piece), ends && rest.is_empty()).is_err() {
            return;
        }
    }
}

/// A gateway before these endpoints, with one worker.
fn gateway(driver: Driver, endpoints: &[&Endpoint], route: &str, cluster: &str) -> Gateway {
    let endpoints: Vec<_> = endpoints.iter().map(|it| it.written()).collect();
    let cluster = format!("protocol = \"h2\"\n{cluster}");
    let config = behind_endpoints(&endpoints.join(", "), route, &cluster);
    Gateway::start_with(driver, &Setup { workers: 1, config: &config, ..Setup::default() })
}

on_both_drivers! {
    fn requests_of_http1_go_up_as_streams_of_one_connection(driver: Driver) {
        let service = Endpoint::start(100);
        let gateway = gateway(driver, &[&service], "max_body = \"16MiB\"", "");
        let mut client = gateway.client();
        for size in [0, 1, 100, 8_000, 16_384, 70_000, 300_000, 3 << 20] {
            let body = noise(size as u64, size);
            for path in ["/length", "/unknown"] {
                let response = client.request("POST", path, &[], &body);
                assert_eq!((response.status, response.header("x-version")), (200, Some("2")), "{size} {path}");
                assert!(response.body == body, "{size} bytes of {path}");
            }
        }
        let mut chunked = b"POST /unknown HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        chunked.extend_from_slice(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-behind: 1\r\n\r\n");
        client.send(&chunked);
        let response = client.read("POST");
        assert_eq!((response.status, response.text()), (200, "abcdefg".to_owned()));
        assert_eq!(client.get("/empty").status, 204);
        let head = client.request("HEAD", "/head", &[], b"");
        assert_eq!((head.status, head.header("content-length")), (200, Some("7")));
        assert_eq!(client.get("/length").status, 200);
        assert_eq!(service.seen.connections.load(SeqCst), 1, "one connection for all of them");
        drop(client);
        gateway.assert_nothing_left();
    }

    fn a_client_that_leaves_has_its_stream_reset_and_no_other(driver: Driver) {
        let service = Endpoint::start(100);
        let gateway = gateway(driver, &[&service], "", "");
        let mut stays = gateway.client();
        stays.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the first request waits", || (service.seen.waiting.load(SeqCst) == 1).then_some(()));
        let mut leaves = gateway.client();
        leaves.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the second request waits", || (service.seen.waiting.load(SeqCst) == 2).then_some(()));
        drop(leaves);
        eventually("its stream is reset", || (service.seen.cancelled.load(SeqCst) == 1).then_some(()));
        service.seen.go.notify_one();
        assert_eq!(stays.read("GET").status, 200);
        assert_eq!(service.seen.connections.load(SeqCst), 1);
    }

    fn more_connections_are_made_when_streams_are_used_up(driver: Driver) {
        let service = Endpoint::start(2);
        let gateway = gateway(driver, &[&service], "", "max_streams = 2");
        let mut clients: Vec<_> = (0..6).map(|_| gateway.client()).collect();
        for (sent, client) in clients.iter_mut().enumerate() {
            client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
            eventually("it waits", || (service.seen.waiting.load(SeqCst) == sent + 1).then_some(()));
        }
        assert_eq!(service.seen.connections.load(SeqCst), 3);
        service.seen.go.notify_waiters();
        for client in &mut clients {
            assert_eq!(client.read("GET").status, 200);
        }
    }

    /// A service that ends its connections by their age, while long streams are on them.
    fn connections_that_end_with_their_last_stream_keep_nobody_from_others(driver: Driver) {
        const HELD: usize = 24;
        let service = Endpoint::start(100);
        let gateway = gateway(driver, &[&service], "", "");
        let mut clients: Vec<_> = (0..HELD).map(|_| gateway.client()).collect();
        for (sent, client) in clients.iter_mut().enumerate() {
            client.send("GET /wait?last HTTP/1.1\r\nHost: a\r\n\r\n");
            eventually("it waits", || (service.seen.waiting.load(SeqCst) == sent + 1).then_some(()));
        }
        assert_eq!(gateway.get("/").status, 200);
        service.seen.go.notify_waiters();
        for client in &mut clients {
            assert_eq!(client.read("GET").status, 200);
        }
    }

    fn an_endpoint_that_takes_no_streams_is_asked_once_and_left_alone(driver: Driver) {
        let (none, good) = (Endpoint::start(0), Endpoint::start(100));
        let alone = gateway(driver, &[&none], "", "outlier = { enabled = false }");
        for _ in 0..5 {
            let refused = alone.request("POST", "/length", &[], b"once");
            assert_eq!(refused.status, 503);
            assert!(refused.text().contains("\"upstream_no_streams\""), "{}", refused.text());
        }
        assert_eq!((none.seen.connections.load(SeqCst), none.seen.requests.load(SeqCst)), (1, 0), "it costs no more than that");
        drop(alone);
        let both = gateway(driver, &[&none, &good], "", "balance = \"round_robin\"\nretry_budget = { ratio = 0.0, min_per_second = 0 }");
        for _ in 0..20 {
            assert_eq!(both.request("POST", "/length", &[], b"once").status, 200, "it goes on to who takes some");
        }
        assert_eq!(none.seen.requests.load(SeqCst), 0);
        assert_eq!(both.metric("ringgate_endpoint_ejections_total", &[]), 1.0, "and is held against the other one");
    }

    fn what_was_refused_goes_elsewhere_whatever_its_method(driver: Driver) {
        let (first, second) = (Endpoint::start(100), Endpoint::start(100));
        let gateway = gateway(driver, &[&first, &second], "", "balance = \"round_robin\"\noutlier = { enabled = false }");
        let before = |it: &Endpoint| it.seen.requests.load(SeqCst);
        let refused = gateway.request("POST", "/refuse", &[], b"once");
        assert_eq!(refused.status, 502, "both refuse it");
        let asked = before(&first) + before(&second);
        assert!(before(&first) >= 1 && before(&second) >= 1, "both were asked");
        let failed = gateway.request("POST", "/fail", &[], b"once");
        assert_eq!(failed.status, 502);
        assert_eq!(before(&first) + before(&second), asked + 1, "one that may have been looked at is not sent again");
    }

    fn one_that_refuses_most_of_what_it_is_asked_keeps_its_connection(driver: Driver) {
        let service = Endpoint::start(100);
        let gateway = gateway(driver, &[&service], "retry = { attempts = 0 }", "outlier = { enabled = false }");
        let mut client = gateway.client();
        for _ in 0..150 {
            assert_eq!(client.request("POST", "/refuse", &[], b"once").status, 502);
        }
        assert_eq!(client.get("/length").status, 200);
        assert_eq!(service.seen.connections.load(SeqCst), 1, "what others have on it goes on");
    }

    fn an_endpoint_that_dies_with_a_hundred_streams_is_one_event(driver: Driver) {
        let (first, second) = (Endpoint::start(100), Endpoint::start(200));
        let cluster = "balance = \"round_robin\"\nmax_streams = 200\nretry_budget = { ratio = 1.0, min_per_second = 1000 }";
        let gateway = gateway(driver, &[&first, &second], "timeout = \"30s\"", cluster);
        let mut clients: Vec<_> = (0..100).map(|_| gateway.client()).collect();
        for client in &mut clients {
            client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        let waiting = |it: &Endpoint| it.seen.waiting.load(SeqCst);
        eventually("all of them wait", || (waiting(&first) + waiting(&second) == 100).then_some(()));
        drop(first);
        eventually("all are with the other one", || (waiting(&second) == 100).then_some(()));
        second.seen.go.notify_waiters();
        for client in &mut clients {
            assert_eq!(client.read("GET").status, 200, "no request fails");
        }
        // a lost connection is one failure of five that eject; the next request finds nobody there, which is enough
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 0.0);
        for _ in 0..20 {
            assert_eq!(gateway.get("/length").status, 200);
        }
        assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 1.0);
        assert_eq!(second.seen.connections.load(SeqCst), 1, "no storm of connections");
    }

    fn posts_that_a_dead_endpoint_may_have_looked_at_fail_and_go_nowhere_else(driver: Driver) {
        let (first, second) = (Endpoint::start(100), Endpoint::start(100));
        let gateway = gateway(driver, &[&first, &second], "timeout = \"30s\"", "balance = \"round_robin\"");
        let mut clients: Vec<_> = (0..40).map(|_| gateway.client()).collect();
        for client in &mut clients {
            client.send("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
        }
        let waiting = |it: &Endpoint| it.seen.waiting.load(SeqCst);
        eventually("all of them wait", || (waiting(&first) + waiting(&second) == 40).then_some(()));
        let lost = waiting(&first);
        assert!(lost > 0, "both are asked");
        drop(first);
        eventually("those of the dead one are answered", || {
            (gateway.metric("ringgate_requests_total", &[("code", "502")]) == lost as f64).then_some(())
        });
        second.seen.go.notify_waiters();
        let served = clients.iter_mut().filter_map(|client| (client.read("POST").status == 200).then_some(())).count();
        assert_eq!((served, second.seen.requests.load(SeqCst)), (40 - lost, 40 - lost), "none is sent twice");
    }
}

/// An endpoint that offers both, by ALPN, and says on HTTP/2 that it wants HTTP/1.1. How often it has said so, and answered.
fn wants_http1(authority: &Authority, goes_away: bool) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::<[AtomicUsize; 2]>::default());
    let mut rules = ServerConfig::clone(&authority.server("both"));
    rules.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (rules, counted) = (Arc::new(rules), Arc::clone(&seen));
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (rules, counted) = (Arc::clone(&rules), Arc::clone(&counted));
            thread::spawn(move || {
                let Ok(session) = Session::accept(socket, rules) else { return };
                let is_http2 = session.ask(|connection| connection.alpn_protocol() == Some(b"h2"));
                let mut said = Vec::new();
                let end = if is_http2 { b"/once".as_slice() } else { b"once-body" };
                if is_http2 {
                    session.write(b"\0\0\0\x04\0\0\0\0\0").unwrap();
                }
                loop {
                    let mut piece = [0; 4096];
                    let Ok(count @ 1..) = session.read(&mut piece) else { return };
                    said.extend_from_slice(&piece[..count]);
                    if !said.windows(end.len()).any(|part| part == end) {
                        continue;
                    }
                    said.clear();
                    counted[usize::from(!is_http2)].fetch_add(1, SeqCst);
                    let frame: &[u8] = match goes_away {
                        true => b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0d",
                        false => b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x0d",
                    };
                    session
                        .write(if is_http2 { frame } else { b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" })
                        .unwrap();
                }
            });
        }
    });
    (address, seen)
}

/// A gateway before one endpoint that speaks TLS and is vouched for by this authority.
fn before_tls(driver: Driver, authority: &Authority, address: SocketAddr, keys: &str) -> Gateway {
    let config = format!(
        "[[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nupstream = \"svc\"\n\n\
         [upstream.svc]\nendpoints = [{{ address = \"{address}\" }}]\n\
         tls = {{ ca = \"{}\", name = \"localhost\" }}\n{keys}\n",
        authority.ca()
    );
    Gateway::start_with(driver, &Setup { workers: 1, config: &config, ..Setup::default() })
}

on_both_drivers! {
    fn an_endpoint_that_wants_http1_is_spoken_to_so_from_then_on(driver: Driver) {
        let authority = Authority::new();
        authority.sign("both", &["localhost"]);
        for goes_away in [false, true] {
            let (address, seen) = wants_http1(&authority, goes_away);
            let gateway = before_tls(driver, &authority, address, "protocol = \"auto\"");
            for _ in 0..3 {
                let answer = gateway.request("POST", "/once", &[], b"once-body");
                assert_eq!((answer.status, answer.text()), (200, "ok".to_owned()));
            }
            assert_eq!([&seen[0], &seen[1]].map(|count| count.load(SeqCst)), [1, 3], "{goes_away}");
            assert_eq!(gateway.metric("ringgate_endpoint_ejections_total", &[]), 0.0);
        }
    }
}

/// An endpoint that speaks only this, over TLS, and answers everything with 200. How many connections it has answered.
fn speaks_only(authority: &Authority, spoken: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let mut rules = ServerConfig::clone(&authority.server("one"));
    rules.alpn_protocols = vec![spoken.to_vec()];
    let (rules, counted) = (Arc::new(rules), Arc::clone(&seen));
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let (rules, counted) = (Arc::clone(&rules), Arc::clone(&counted));
            thread::spawn(move || {
                let Ok(session) = Session::accept(socket, rules) else { return };
                let is_http2 = spoken == b"h2";
                let (mut said, mut piece) = (Vec::new(), [0; 4096]);
                // a HEADERS frame of the first stream that is whole and has no body
                let end: &[u8] = if is_http2 { b"\x01\x05\0\0\0\x01" } else { b"\r\n\r\n" };
                while !said.windows(end.len()).any(|part| part == end) {
                    let Ok(count @ 1..) = session.read(&mut piece) else { return };
                    said.extend_from_slice(&piece[..count]);
                }
                let answer: &[u8] = match is_http2 {
                    true => b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88",
                    false => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                };
                counted.fetch_add(1, SeqCst);
                let _ = session.write(answer);
                while matches!(session.read(&mut piece), Ok(1..)) {}
            });
        }
    });
    (address, seen)
}

on_both_drivers! {
    fn checks_by_a_path_ask_in_what_the_endpoint_speaks(driver: Driver) {
        let authority = Authority::new();
        authority.sign("one", &["localhost"]);
        let check = "health_check = { path = \"/healthz\", interval = \"100ms\", timeout = \"30s\", fall = 1 }";
        let healthy = |gateway: &Gateway| gateway.metric("ringgate_health_check_healthy", &[]);
        for (spoken, protocol, passes) in
            [(&b"h2"[..], "h2", true), (b"h2", "auto", true), (b"http/1.1", "auto", true), (b"http/1.1", "h2", false)]
        {
            let (address, seen) = speaks_only(&authority, spoken);
            let keys = format!("protocol = \"{protocol}\"\n{check}");
            let gateway = before_tls(driver, &authority, address, &keys);
            let result = if passes { "passed" } else { "failed" };
            eventually("it is checked twice", || {
                (gateway.metric("ringgate_health_checks_total", &[("result", result)]) >= 2.0).then_some(())
            });
            assert_eq!((healthy(&gateway), seen.load(SeqCst) >= 2), (f64::from(u8::from(passes)), passes), "{protocol}");
        }
        let service = Endpoint::start(100);
        let gateway = gateway(driver, &[&service], "", check);
        eventually("it is checked twice, without TLS", || (service.seen.requests.load(SeqCst) >= 2).then_some(()));
        eventually("it is found healthy", || (healthy(&gateway) == 1.0).then_some(()));
    }
}
