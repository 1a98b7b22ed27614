//! What the gateway computes for one request, from the bytes of its head to its record, sockets and waiting left out: the verbs of the
//! straight line, with every feature of the request path on.
//!
//! `decisions` is one request of an ordinary configuration. The other groups are its curves: the same request as routes, endpoints and
//! rate-limited clients become many. They are to be flat; `cargo bench --bench curves` draws them.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderName, Method};
use rand::SeedableRng;
use ringgate::config::{self, Config, LimitKey};
use ringgate::http::date::{self, HttpDate};
use ringgate::http::encode::{self, DownstreamResponse, UpstreamRequest};
use ringgate::http::fields::HeadScratch;
use ringgate::http::head::{HeadPolicy, RequestHead};
use ringgate::http::headers::Forwarding;
use ringgate::http::response::ResponseHead;
use ringgate::http::{Parsed, Version};
use ringgate::limits;
use ringgate::observe::labels::AttemptOutcome;
use ringgate::observe::recorder::{Finished, Recorder};
use ringgate::observe::stats::Stats;
use ringgate::policy::admission::{Admission, Admitted, Limits, Met};
use ringgate::policy::cluster::{Cluster, Common};
use ringgate::policy::deadline::RouteDeadline;
use ringgate::policy::exchange::{Action, Event, Exchange, Facts};
use ringgate::policy::key_table::KeyTable;
use ringgate::policy::retry::{Rules, is_idempotent};
use ringgate::policy::router::{RequestView, Routed, Router, RouterCache, Source};
use ringgate::units::{ClusterId, EndpointId, Instant, ListenerId, Rng, RouteId, WorkerId};
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

const RESPONSE_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.26.2\r\n\
Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
Content-Type: application/json; charset=utf-8\r\n\
Content-Length: 1024\r\n\
Cache-Control: no-store\r\n\r\n";
const BODY_BYTES: usize = 1_024;

/// How much of everything there is.
#[derive(Clone, Copy)]
struct Size {
    routes: u32,
    endpoints: u32,
    /// Clients that take turns, each with a rate of its own.
    clients: u32,
}

const ORDINARY: Size = Size { routes: 1, endpoints: 2, clients: 1 };

/// Every feature of the request path on.
fn config(size: Size) -> Config {
    let mut text = r#"
        [gateway]
        workers = 1
        [[listener]]
        name = "edge"
        listen = "127.0.0.1:0"
        "#
    .to_owned();
    for route in 0..size.routes {
        let _ = write!(
            text,
            r#"
            [[route]]
            name = "orders-{route}"
            match = {{ host = "api.example.com", path = "/orders-{route}/*" }}
            upstream = "orders"
            timeout = {{ adaptive = true, k = 3.0, min = "1s", max = "5s" }}
            limit = [{{ rate = "1000000/s", burst = 1000000, per = "client_ip" }}, {{ rate = "1000000/s", burst = 1000000, per = "route" }}]
            request_headers = {{ set = {{ x-env = "bench" }} }}
            response_headers = {{ remove = ["server"] }}
            "#
        );
    }
    // nobody connects to these
    let endpoints: Vec<_> =
        (0..size.endpoints).map(|i| format!("{{ address = \"10.0.{}.{}:80\" }}", i / 250, i % 250 + 1)).collect();
    let _ = write!(text, "[upstream.orders]\nendpoints = [{}]\n", endpoints.join(", "));
    config::parse(&text, "the bench's configuration").unwrap_or_else(|errors| panic!("{errors}"))
}

/// Requests for up to 64 of the routes, spread over them.
fn requests(size: Size) -> Vec<Vec<u8>> {
    let count = size.routes.min(64);
    (0..count)
        .map(|i| {
            let route = u64::from(i) * u64::from(size.routes) / u64::from(count);
            format!(
                "GET /orders-{route}/8f14e45f/items?limit=50 HTTP/1.1\r\n\
                 Host: api.example.com\r\n\
                 User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\n\
                 Accept: application/json, text/plain, */*\r\n\
                 Accept-Encoding: gzip, deflate, br\r\n\
                 Authorization: Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P\r\n\
                 Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"
            )
            .into_bytes()
        })
        .collect()
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
    requests: Vec<Vec<u8>>,
    /// Whose turn it is.
    turn: u32,
    clients: u32,
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
    fn new(size: Size) -> Self {
        let config = Arc::new(config(size));
        let mut rng = Rng::seed_from_u64(1);
        let table = Arc::new(KeyTable::new(limits::LIMIT_TABLE_BUCKETS, [1, 2]));
        let limits = Limits::new(&config, table, 1, None);
        Self {
            requests: requests(size),
            turn: 0,
            clients: size.clients,
            router: Router::try_new(&config).expect("routes that compile"),
            cache: RouterCache::default(),
            admission: Admission::new(Arc::new(limits)),
            cluster: Cluster::new(&config.clusters[0], &Common::new(&config.clusters[0], 1), &mut rng),
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
        self.turn = self.turn.wrapping_add(1);
        // a stride that meets all of them, in no order that a cache could foresee
        let client = (u64::from(self.turn) * 7_919 % u64::from(self.clients)) as u32;
        let client = IpAddr::V4(Ipv4Addr::from(0x0B00_0000 + client));
        let asked = self.ask(began, client);
        let answered = began + Duration::from_micros(300);
        self.answer(asked, began, answered, client);
        self.up.len() + self.down.len()
    }

    /// `read_head → route → admit → pick → send`.
    fn ask(&mut self, began: Instant, client: IpAddr) -> Asked {
        let request = &self.requests[self.turn as usize % self.requests.len()];
        let Ok(Parsed::Complete(head)) =
            RequestHead::parse(black_box(request), &HeadPolicy::of(&self.config.listeners[0]), &mut self.scratch)
        else {
            panic!("a valid request")
        };
        let header =
            |name: &HeaderName, is: &mut dyn FnMut(&[u8]) -> bool| head.fields().get_all(name.as_str()).any(is);
        let view = RequestView {
            host: head.host(),
            path: head.path(),
            query: head.query(),
            method: head.method(),
            source: Source::default(),
            header: &header,
        };
        let Routed::Route(route) = self.router.route(&view, &mut self.cache) else { panic!("a route") };
        let limited_by = |_: &LimitKey| None;
        let admitted = self.admission.admit((route, ListenerId(0), Met::All), client.into(), &limited_by, began);
        assert!(matches!(admitted, Admitted::Pass { .. }));
        encode_up(&mut self.up, &head, &self.config, route, client);
        let mut exchange = Exchange::new(Facts {
            deadline: self.deadline.start(None, began),
            retry: Rc::clone(&self.rules),
            idempotent: is_idempotent(head.method()),
            replayable: true,
            session: None,
            key: None,
            try_time: None,
        });
        let action = exchange.step(Event::Start, &mut self.cluster, began, &mut self.rng);
        let Action::Attempt { endpoint, .. } = action else { panic!("an endpoint") };
        let (method, version, head_bytes) = (head.method().clone(), head.version(), head.head_bytes());
        Asked { exchange, endpoint, route, method, version, head_bytes }
    }

    /// `classify → relay → record`.
    fn answer(&mut self, asked: Asked, began: Instant, answered: Instant, client: IpAddr) {
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
            is_recoded: false,
            head: &head,
            version,
            close: false,
            rules: &self.config.routes[route.index()].response_headers,
            server: &ringgate::config::ServerField::Pass,
            lines: b"",
            date: &self.date,
        };
        encode::response(&mut self.down, &response);
        exchange.step(Event::BodyDone, &mut self.cluster, answered, &mut self.rng);
        self.recorder.attempt(ClusterId(0), endpoint, AttemptOutcome::Success, answered.since(began));
        self.recorder.finished(&Finished {
            consumer: None,
            route: Some(route),
            method: (&method).into(),
            status: head.status(),
            error: None,
            duration: answered.since(began),
            request_bytes: head_bytes as u64,
            response_bytes: (self.down.len() + BODY_BYTES) as u64,
            client: Some(client),
        });
    }
}

fn encode_up(out: &mut Vec<u8>, head: &RequestHead<'_>, config: &Config, route: RouteId, client: IpAddr) {
    let forwarding = Forwarding {
        replaces: false,
        peer: Some(client),
        is_trusted: false,
        scheme: "http",
        request_id: b"0123456789abcdef0123456789abcdef",
        identity: None,
        tells_certificate: false,
    };
    out.clear();
    let request = UpstreamRequest {
        grpc_timeout: None,
        lines: b"",
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

/// One request after another, 50 microseconds apart.
fn run(bench: &mut criterion::Bencher<'_>, size: Size) {
    let mut decider = Decider::new(size);
    let mut now = Instant::from_nanos(1_000_000_000);
    bench.iter(|| {
        now += Duration::from_micros(50);
        decider.exchange(now)
    });
}

fn decisions(criterion: &mut Criterion) {
    criterion.bench_function("decisions", |bench| run(bench, ORDINARY));
}

fn curves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("by_routes");
    for routes in [1, 10, 100, 1_000, 10_000] {
        group.bench_function(BenchmarkId::from_parameter(routes), |bench| run(bench, Size { routes, ..ORDINARY }));
    }
    group.finish();
    let mut group = criterion.benchmark_group("by_endpoints");
    for endpoints in [2, 10, 100, 1_000] {
        group
            .bench_function(BenchmarkId::from_parameter(endpoints), |bench| run(bench, Size { endpoints, ..ORDINARY }));
    }
    group.finish();
    let mut group = criterion.benchmark_group("by_clients");
    for clients in [1, 100, 10_000, 1_000_000] {
        group.bench_function(BenchmarkId::from_parameter(clients), |bench| run(bench, Size { clients, ..ORDINARY }));
    }
    group.finish();
}

criterion_group!(benches, decisions, curves);
criterion_main!(benches);
