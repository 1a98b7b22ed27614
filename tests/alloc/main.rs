//! Heap allocations per request in steady state: the goal is none.
//!
//! The gateway runs inside this process, so that the allocator below sees its workers; the service behind it and the client are threads of
//! the same process and are not counted. Each case warms up (stocks of buffers, slabs, tables and pools grow to what the load needs)
//! and is then counted over [`REQUESTS`] requests on hot keep-alive connections.
//!
//! With `RINGGATE_ALLOC_TRACE=1` the first allocations of each case are printed with their backtraces.

mod counting;
mod service;
mod streams;

use ringgate::config::{self, Bind};
use ringgate::control::supervisor::Gateway;
use service::Service;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const WARM_UP: usize = 1_000;
const REQUESTS: usize = 1_000;
/// Allocations that [`REQUESTS`] requests may make *together*: a slot of the timer wheel that gets more deadlines than ever before, a
/// table that grows for the first time. One per hundred requests; an allocation on the request path would make a hundred times as
/// many.
const ALLOWED: usize = 10;
/// Rounds of [`REQUESTS`] until one stays within [`ALLOWED`]: many, since on a busy machine most of them are disturbed.
const ROUNDS_MAX: usize = 40;

const GET: &str = "GET /small HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
const POST: &str = "POST /small HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 12\r\n\r\nhello, world";
const CHUNKED_POST: &str = "POST /small HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n\
                            5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n";

const KEY: &str = "a-key-of-acme";
/// Of acme, until 2100, signed with the secret of the configuration.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhY21lIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6ImEgYiJ9.V4REcJIAoy8Bm4KRrKSpzNtWqPOpzUdSXK5mLIqKgbo";

/// One kind of traffic.
struct Case {
    name: &'static str,
    request: String,
    /// Sent together before the first answer is awaited.
    pipelined: usize,
    connections: usize,
    status: &'static str,
}

fn cases() -> Vec<Case> {
    let case =
        |name, request: &str, status| Case { name, request: request.to_owned(), pipelined: 1, connections: 1, status };
    let to = |path: &str| GET.replace("/small", path);
    let with = |path: &str, line: &str| to(path).replace("Accept:", &format!("{line}\r\nAccept:"));
    vec![
        case("a small response", GET, "200"),
        Case { connections: 16, ..case("sixteen connections in turn", GET, "200") },
        Case { pipelined: 16, ..case("sixteen requests in one piece", GET, "200") },
        case("a fixed body", POST, "200"),
        case("a chunked body", CHUNKED_POST, "200"),
        case("a fixed response of many pieces", &to("/large"), "200"),
        case("a chunked response of many pieces", &to("/chunked"), "200"),
        case("a retry", &to("/retried"), "200"),
        case("an error that is passed on", &to("/failing"), "503"),
        case("a rate limit", &to("/limited"), "429"),
        case("an API key, and what the endpoint is told", &with("/keyed", &format!("X-Api-Key: {KEY}")), "200"),
        case("an API key in a query", &to(&format!("/keyed?a=1&key={KEY}&b=2")), "200"),
        case("a token that is known", &with("/keyed", &format!("Authorization: Bearer {TOKEN}")), "200"),
        case("nobody who is known", &to("/keyed"), "401"),
        case("who may not", &with("/closed", &format!("X-Api-Key: {KEY}")), "403"),
        case("a stream to an endpoint", &to("/up"), "200"),
        case("a body on a stream to an endpoint", &POST.replace("/small", "/up"), "200"),
        case("no route", &GET.replace("api.example.com", "elsewhere.example"), "404"),
        case("conditions on values", &with("/tested?a=%62c", "Cookie: x=1; tier=gold"), "200"),
        case("a session that begins, on a side by a cookie", &with("/kept", "Cookie: id=7; x=1"), "200"),
        case("a page of another origin", &with("/shared", "Origin: https://app.example"), "200"),
        case(
            "a preflight",
            &with("/shared", "Origin: https://app.example\r\nAccess-Control-Request-Method: GET")
                .replace("GET /", "OPTIONS /"),
            "204",
        ),
        case("the route's own response", &to("/own"), "200"),
    ]
}

/// Consumers, ways to be recognised, and routes that ask.
const AUTH: &str = r#"
        [auth.key]
        header = "x-api-key"
        query = "key"
        headers = { x-consumer = "{consumer}", x-groups = "{groups}" }
        [auth.jwt]
        key = { secret = "a-secret-of-at-least-32-bytes-of-which-nobody-knows" }
        algorithms = ["HS256"]
        headers = { x-consumer = "{consumer}", x-scope = "{claim.scope}" }
        [consumer.acme]
        groups = ["a", "b"]
        keys = [{ sha256 = "9e454ec450503ff91434ef39098bcadc858fb6894114f9ce31ece9c19063a92a" }]

        [[route]]
        name = "keyed"
        match = { host = "api.example.com", path = "/keyed" }
        auth = ["key", "jwt"]
        allow = [{ client_ip = ["192.0.2.0/24"] }, { group = ["b"], method = ["GET"] }]
        limit = [{ rate = "1000000/s", burst = 1000000, per = "consumer" }]
        upstream = "good"

        [[route]]
        name = "tested"
        match = { host = "api.example.com", path = "/tested", query = { a = { regex = "^b" } }, cookie = { tier = { prefix = "go" } }, client_ip = ["127.0.0.0/8"] }
        upstream = "good"

        [[guard]]
        match = { path = "~^/kept/away" }
        deny = true

        [[route]]
        name = "shared"
        match = { host = "api.example.com", path = "/shared" }
        cors = { origins = ["~https://[a-z]+\\.example"], headers = ["*"] }
        response_headers = { set = { x-path = "{path}" } }
        upstream = "good"

        [[route]]
        name = "kept"
        match = { host = "api.example.com", path = "/kept" }
        split = [{ upstream = "kept", weight = 9 }, { upstream = "good", weight = 0 }]
        split_by = "cookie:id"

        [[route]]
        name = "closed"
        match = { host = "api.example.com", path = "/closed" }
        auth = ["key"]
        deny = { consumer = ["acme"] }
        upstream = "good"
"#;

/// An endpoint that speaks HTTP/2, and a route to it.
fn over_http2(service: &Service) -> String {
    let streams = service.streams;
    format!(
        r#"
        [[route]]
        name = "up"
        match = {{ host = "api.example.com", path = "/up" }}
        upstream = "streams"

        [upstream.streams]
        protocol = "h2"
        endpoints = [{{ address = "{streams}" }}]
        "#
    )
}

fn configuration(driver: &str, access_log: &str, service: &Service) -> String {
    let (good, bad, over_http2) = (service.good, service.failing, over_http2(service));
    format!(
        r#"
        {access_log}
        [gateway]
        workers = 1
        driver = "{driver}"
        [admin]
        listen = "127.0.0.1:0"
        [[listener]]
        name = "edge"
        listen = "127.0.0.1:0"
        http2 = {{ cleartext = true }}

        [[route]]
        name = "all"
        match = {{ host = "api.example.com", path = "/*" }}
        upstream = "good"
        timeout = {{ adaptive = true, k = 3.0, min = "2s", max = "5s" }}
        limit = [{{ rate = "1000000/s", burst = 1000000, per = "client_ip" }}, {{ rate = "1000000/s", burst = 1000000, per = "route" }}]
        max_concurrent = 1000
        retry = {{ attempts = 2 }}
        request_headers = {{ set = {{ x-env = "test" }}, remove = ["x-debug"] }}
        response_headers = {{ remove = ["server"] }}

        {AUTH}
        [[route]]
        name = "retried"
        match = {{ host = "api.example.com", path = "/retried" }}
        upstream = "half"
        retry = {{ attempts = 2, on = ["503"] }}

        [[route]]
        name = "failing"
        match = {{ host = "api.example.com", path = "/failing" }}
        upstream = "failing"
        retry = {{ attempts = 0 }}

        [[route]]
        name = "limited"
        match = {{ host = "api.example.com", path = "/limited" }}
        respond = {{ status = 200, body = "now and then" }}
        limit = [{{ rate = "1/min", burst = 1, per = "client_ip" }}]

        [[route]]
        name = "own"
        match = {{ host = "api.example.com", path = "/own" }}
        respond = {{ status = 200, body = "of its own" }}

        {over_http2}
        [upstream.good]
        endpoints = [{{ address = "{good}" }}]
        max_requests = 1000

        [upstream.kept]
        endpoints = [{{ address = "{good}" }}]
        sticky = {{ key = "0123456789abcdef" }}

        [upstream.half]
        balance = "round_robin"
        endpoints = [{{ address = "{good}" }}, {{ address = "{bad}" }}]
        retry_budget = {{ ratio = 1.0, min_per_second = 1000 }}
        outlier = {{ enabled = false }}

        [upstream.failing]
        endpoints = [{{ address = "{bad}" }}]
        "#
    )
}

/// A running gateway, drained when dropped.
struct Running(Option<Gateway>);

impl Running {
    fn start(text: &str) -> Self {
        let config = config::parse(text, "the test's configuration").unwrap_or_else(|errors| panic!("{errors}"));
        Self(Some(Gateway::start(config).expect("it starts")))
    }

    fn address(&self) -> SocketAddr {
        match &self.0.as_ref().expect("running").addresses()[0].1 {
            Bind::Tcp(address) => *address,
            Bind::Unix(path) => panic!("listens on {path:?}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(gateway) = self.0.take() {
            gateway.drain_and_stop().expect("it drains");
        }
    }
}

/// A client that reads no more of a response than it needs to find its end.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        Self { stream, read: Vec::with_capacity(1 << 18) }
    }

    fn exchange(&mut self, requests: &[u8], count: usize, status: &str) {
        self.stream.write_all(requests).expect("the gateway reads");
        for _ in 0..count {
            let end = loop {
                if let Some(end) = service::message_end(&self.read) {
                    break end;
                }
                let mut piece = [0; 1 << 14];
                let received = service::read_some(&mut self.stream, &mut piece).expect("an answer in time");
                assert!(received > 0, "the gateway closed: {}", String::from_utf8_lossy(&self.read));
                self.read.extend_from_slice(&piece[..received]);
            };
            let head = &self.read[..end.min(200)];
            assert_eq!(&head[9..12], status.as_bytes(), "{}", String::from_utf8_lossy(head));
            self.read.drain(..end);
        }
    }
}

/// Runs one case and gives its allocations.
fn count(address: SocketAddr, case: &Case) -> usize {
    let mut clients: Vec<_> = (0..case.connections).map(|_| Client::connect(address)).collect();
    let requests = case.request.repeat(case.pipelined);
    let mut run = |total: usize| {
        for turn in 0..total / case.pipelined {
            let client = turn % clients.len();
            clients[client].exchange(requests.as_bytes(), case.pipelined, case.status);
        }
    };
    if case.name == "a rate limit" {
        Client::connect(address).exchange(case.request.as_bytes(), 1, "200");
    }
    count_rounds(&mut run)
}

/// The same of requests that are streams of HTTP/2.
fn count_streams(address: SocketAddr, case: &streams::Case) -> usize {
    let mut client = streams::Client::connect(address);
    count_rounds(&mut |total| (0..total / case.at_once).for_each(|_| client.exchange(case)))
}

fn count_rounds(run: &mut dyn FnMut(usize)) -> usize {
    run(WARM_UP);
    // A machine that stops the client for a tenth of a second makes its connection an idle one, which gives its buffers back: that is
    // not steady state, and is counted anew. An allocation on the request path would be there in every round.
    let mut fewest = usize::MAX;
    for _ in 0..ROUNDS_MAX {
        counting::begin();
        run(REQUESTS);
        fewest = fewest.min(counting::end());
        if fewest <= ALLOWED {
            break;
        }
    }
    fewest
}

fn drivers() -> &'static [&'static str] {
    if io_uring::IoUring::new(8).is_ok() {
        &["io_uring", "epoll"]
    } else {
        println!("io_uring is forbidden here: only epoll is counted");
        &["epoll"]
    }
}

/// One test, because the counter is one: what runs at the same time would be counted together.
#[test]
fn a_request_allocates_nothing_in_steady_state() {
    counting::check_itself();
    let service = Service::start();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("access.log");
    let log = format!("[access_log]\npath = \"{}\"\nformat = \"json\"\n", path.display());
    let mut complaints = Vec::new();
    for driver in drivers() {
        for (logged, access_log) in [("", ""), (" with an access log", log.as_str())] {
            let gateway = Running::start(&configuration(driver, access_log, &service));
            let mut counts: Vec<_> = cases().iter().map(|case| (case.name, count(gateway.address(), case))).collect();
            counts.extend(streams::CASES.iter().map(|case| (case.name, count_streams(gateway.address(), case))));
            for (name, allocations) in counts {
                let line = format!("{driver}{logged}: {name}: {allocations} allocations in {REQUESTS} requests");
                println!("{line}");
                if allocations > ALLOWED {
                    complaints.push(line);
                }
            }
        }
    }
    assert!(complaints.is_empty(), "more than is allowed:\n{}", complaints.join("\n"));
    let lines = std::fs::read_to_string(path).expect("the access log").lines().count();
    assert!(lines > 0, "nothing was logged, so the logged cases proved nothing");
}
