//! One whole exchange: through the real gateway over loopback, and as the decisions alone.
//!
//! `loopback` runs client, gateway (one worker) and service in this process, on threads of their own; the number for many connections
//! is per exchange, with one request in flight on each. Most of it is the kernel's TCP. `decisions` is what the gateway itself
//! computes for the same request, sockets and waiting left out: the difference between the two is moving bytes.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{HeaderName, Method};
use rand::SeedableRng;
use ringgate::config::{self, Bind, Config};
use ringgate::control::supervisor::Gateway;
use ringgate::http::date::{self, HttpDate};
use ringgate::http::encode::{self, DownstreamResponse, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;
use ringgate::http::response::ResponseHead;
use ringgate::http::{Parsed, Version};
use ringgate::observe::labels::AttemptOutcome;
use ringgate::observe::recorder::{Finished, Recorder};
use ringgate::observe::stats::Stats;
use ringgate::policy::admission::{Admission, Admitted, Limits};
use ringgate::policy::cluster::Cluster;
use ringgate::policy::deadline::RouteDeadline;
use ringgate::policy::exchange::{Action, Event, Exchange, Facts};
use ringgate::policy::key_table::KeyTable;
use ringgate::policy::retry::{Rules, is_idempotent};
use ringgate::policy::router::{RequestView, Routed, Router, RouterCache};
use ringgate::units::{ClusterId, EndpointId, Instant, Rng, RouteId, WorkerId};
use std::hash::RandomState;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const REQUEST: &[u8] = b"GET /orders/8f14e45f/items?limit=50 HTTP/1.1\r\n\
Host: api.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
Accept: application/json, text/plain, */*\r\n\
Accept-Encoding: gzip, deflate, br\r\n\
Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.26.2\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Cache-Control: no-store\r\n\r\n";
const BODY_BYTES: usize = 1_024;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Every feature of the request path on.
fn config(endpoints: [SocketAddr; 2]) -> Config {
    let [first, second] = endpoints;
    let text = format!(
        r#"
        [gateway]
        workers = 1
        [admin]
        listen = "127.0.0.1:0"
        [[listener]]
        name = "edge"
        listen = "127.0.0.1:0"
        [[route]]
        name = "orders"
        match = {{ host = "api.example.com", path = "/orders/*" }}
        upstream = "orders"
        timeout = {{ adaptive = true, k = 3.0, min = "1s", max = "5s" }}
        limit = [{{ rate = "1000000/s", burst = 1000000, per = "client_ip" }}, {{ rate = "1000000/s", burst = 1000000, per = "route" }}]
        request_headers = {{ set = {{ x-env = "bench" }} }}
        response_headers = {{ remove = ["server"] }}
        [upstream.orders]
        endpoints = [{{ address = "{first}" }}, {{ address = "{second}" }}]
        "#
    );
    config::parse(&text, "the bench's configuration").unwrap_or_else(|errors| panic!("{errors}"))
}

/// A service that answers every request at once; its threads live as long as the process.
fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            std::thread::spawn(move || {
                let answer = [RESPONSE_HEAD, &[b'x'; BODY_BYTES]].concat();
                // one request is in flight on a connection, so what ends in an empty line is one whole request
                let mut read = Vec::new();
                while read_some(&mut stream, &mut read).is_ok_and(|received| received > 0) {
                    if read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        if stream.write_all(&answer).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn read_some(stream: &mut TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let mut piece = [0; 8 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(received) => {
                into.extend_from_slice(&piece[..received]);
                return Ok(received);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, read: Vec::new() }
    }

    fn send(&mut self) {
        self.stream.write_all(REQUEST).expect("the gateway reads");
    }

    fn receive(&mut self) {
        self.read.clear();
        loop {
            let head_bytes = memchr::memmem::find(&self.read, b"\r\n\r\n").map(|at| at + 4);
            if head_bytes.is_some_and(|head_bytes| self.read.len() == head_bytes + BODY_BYTES) {
                break;
            }
            let received = read_some(&mut self.stream, &mut self.read).expect("the gateway answers");
            assert!(received > 0, "the gateway closed");
        }
        assert!(self.read.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&self.read));
    }
}

fn loopback(criterion: &mut Criterion) {
    let gateway = Gateway::start(config([service(), service()])).expect("it starts");
    let Bind::Tcp(address) = gateway.addresses()[0].1 else { panic!("a TCP listener") };
    let mut group = criterion.benchmark_group("loopback");
    for connections in [1, 64] {
        let mut clients: Vec<_> = (0..connections).map(|_| Client::connect(address)).collect();
        group.throughput(Throughput::Elements(connections));
        group.bench_function(format!("{connections}_connections"), |bench| {
            bench.iter(|| {
                clients.iter_mut().for_each(Client::send);
                clients.iter_mut().for_each(Client::receive);
            });
        });
    }
    group.finish();
    gateway.drain_and_stop();
}

/// A request that is on its way.
struct Asked {
    exchange: Exchange,
    endpoint: EndpointId,
    route: RouteId,
    method: Method,
    version: Version,
    head_bytes: usize,
}

/// What a worker owns of the decisions.
struct Decider {
    config: Arc<Config>,
    router: Router,
    cache: RouterCache,
    admission: Admission,
    cluster: Cluster,
    deadline: RouteDeadline,
    rules: Rc<Rules>,
    recorder: Recorder,
    scratch: HeadScratch,
    rng: Rng,
    date: HttpDate,
    up: Vec<u8>,
    down: Vec<u8>,
}

impl Decider {
    fn new() -> Self {
        // nobody connects to these
        let config = Arc::new(config([9, 10].map(|port| (Ipv4Addr::LOCALHOST, port).into())));
        let mut rng = Rng::seed_from_u64(1);
        let limits = Limits::new(&config, Arc::new(KeyTable::new(1 << 10, RandomState::new())), 1, None);
        Self {
            router: Router::try_new(&config).expect("routes that compile"),
            cache: RouterCache::default(),
            admission: Admission::new(Arc::new(limits)),
            cluster: Cluster::new(&config.clusters[0], 1, &mut rng),
            deadline: RouteDeadline::new(config.routes[0].timeout),
            rules: Rc::new(Rules::new(&config.routes[0].retry)),
            recorder: Stats::new(&config, 1).recorder(WorkerId(0)),
            scratch: HeadScratch::default(),
            rng,
            // formatted once a second
            date: date::format(784_111_777),
            up: Vec::new(),
            down: Vec::new(),
            config,
        }
    }

    /// The verbs of the straight line, in its order. Returns the bytes of both heads.
    fn exchange(&mut self, began: Instant) -> usize {
        let asked = self.ask(began);
        let answered = began + Duration::from_micros(300);
        self.answer(asked, began, answered);
        self.up.len() + self.down.len()
    }

    /// `read_head → route → admit → pick → send`.
    fn ask(&mut self, began: Instant) -> Asked {
        let Ok(Parsed::Complete(head)) =
            RequestHead::parse(black_box(REQUEST), &HeadPolicy::of(&self.config.listeners[0]), &mut self.scratch)
        else {
            panic!("a valid request")
        };
        let header = |name: &HeaderName| head.fields().get(name.as_str());
        let view = RequestView {
            host: head.host(),
            path: head.path(),
            query: head.query(),
            method: head.method(),
            header: &header,
        };
        let Routed::Route(route) = self.router.route(&view, &mut self.cache) else { panic!("a route") };
        let admitted = self.admission.admit(route, CLIENT, &header, began);
        assert!(matches!(admitted, Admitted::Pass { .. }));
        encode_up(&mut self.up, &head, &self.config, route);
        let mut exchange = Exchange::new(Facts {
            deadline: self.deadline.start(None, began),
            retry: Rc::clone(&self.rules),
            idempotent: is_idempotent(head.method()),
            replayable: true,
            key: None,
        });
        let action = exchange.step(Event::Start, &mut self.cluster, began, &mut self.rng);
        let Action::Attempt { endpoint, .. } = action else { panic!("an endpoint") };
        let (method, version, head_bytes) = (head.method().clone(), head.version(), head.head_bytes());
        Asked { exchange, endpoint, route, method, version, head_bytes }
    }

    /// `classify → relay → record`.
    fn answer(&mut self, asked: Asked, began: Instant, answered: Instant) {
        let Asked { mut exchange, endpoint, route, method, version, head_bytes } = asked;
        let Ok(Parsed::Complete(head)) = ResponseHead::parse(black_box(RESPONSE_HEAD), &method, &mut self.scratch)
        else {
            panic!("a valid response")
        };
        let event = Event::Head { status: head.status(), retry_after: head.retry_after(|| 0) };
        assert_eq!(exchange.step(event, &mut self.cluster, answered, &mut self.rng), Action::Relay);
        self.deadline.on_latency(answered.since(began), answered);
        self.down.clear();
        let response = DownstreamResponse {
            head: &head,
            version,
            close: false,
            rules: &self.config.routes[route.index()].response_headers,
            server: &ringgate::config::ServerField::Pass,
            extra: &[],
            date: &self.date,
        };
        encode::response(&mut self.down, &response);
        exchange.step(Event::BodyDone, &mut self.cluster, answered, &mut self.rng);
        self.recorder.attempt(ClusterId(0), endpoint, AttemptOutcome::Success, answered.since(began));
        self.recorder.finished(&Finished {
            route: Some(route),
            method: (&method).into(),
            status: head.status(),
            error: None,
            duration: answered.since(began),
            request_bytes: head_bytes as u64,
            response_bytes: (self.down.len() + BODY_BYTES) as u64,
            client: Some(CLIENT),
        });
    }
}

fn encode_up(out: &mut Vec<u8>, head: &RequestHead<'_>, config: &Config, route: RouteId) {
    let forwarding = Forwarding {
        peer: Some(CLIENT),
        is_trusted: false,
        scheme: "http",
        request_id: b"0123456789abcdef0123456789abcdef",
    };
    out.clear();
    let request = UpstreamRequest {
        head,
        path: head.path(),
        query: head.query(),
        framing: head.framing(),
        rules: &config.routes[route.index()].request_headers,
        forwarding: &forwarding,
        host_fallback: "orders",
        expect_continue: false,
        offer: None,
    };
    encode::request(out, &request);
}

fn decisions(criterion: &mut Criterion) {
    let mut decider = Decider::new();
    let mut now = Instant::from_nanos(1_000_000_000);
    criterion.bench_function("decisions", |bench| {
        bench.iter(|| {
            now += Duration::from_micros(50);
            decider.exchange(now)
        });
    });
}

criterion_group!(benches, decisions, loopback);
criterion_main!(benches);
