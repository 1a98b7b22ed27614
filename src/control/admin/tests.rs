//! The admin API over real sockets.

use super::*;
use crate::config::Bind;
use crate::error::ProxyError;
use crate::observe::fixture;
use crate::observe::labels::{AttemptOutcome, EjectReason, EndpointState, MethodLabel, ProbeState};
use crate::observe::recorder::{EndpointGauges, Finished};
use crate::observe::stats::Failure;
use crate::units::{ClusterId, EndpointId, Ratio, RouteId, WorkerId};
use serde_json::Value;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway of two workers that only exists in its numbers.
struct Gateway {
    stats: Arc<Stats>,
    lifecycle: Arc<Lifecycle>,
    drains: Arc<AtomicUsize>,
}

impl Gateway {
    fn new() -> (Self, AdminState) {
        let config = fixture::config();
        let stats = Stats::new(&config, 2);
        let lifecycle = Lifecycle::new();
        let drains = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&drains);
        let state = AdminState {
            config,
            stats: Arc::clone(&stats),
            lifecycle: Arc::clone(&lifecycle),
            clock: fixture::clock,
            drain: Box::new(move || {
                count.fetch_add(1, Release);
            }),
            reload: Box::new(|| {
                let (done, outcome) = oneshot::channel();
                let _ = done.send(Err(NotReloaded::Wrong(vec!["first".into(), "second".into()])));
                outcome
            }),
            upgrade: Box::new(|| oneshot::channel().1),
            order: Box::new(|asked| {
                let (done, outcome) = oneshot::channel();
                let known = asked.upstream == "orders";
                let _ = done.send(if known { Ok(()) } else { Err(Refused::Unknown(format!("{asked:?}"))) });
                outcome
            }),
            generations: Box::new(|| {
                let view = |number| GenerationView {
                    number,
                    is_current: number == 2,
                    age: Duration::from_millis(1500),
                    requests: 3,
                    tunnels: 1,
                };
                vec![view(1), view(2)]
            }),
        };
        (Self { stats, lifecycle, drains }, state)
    }

    fn run_workers(&self) {
        self.stats.worker_ids().for_each(|worker| self.stats.set_worker_state(worker, WorkerState::Running));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, future).await.expect("the test ended in time") })
}

/// Starts the API on a free port; the task ends with the test's runtime.
fn start(state: AdminState) -> std::net::SocketAddr {
    let listener = AdminListener::bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
    let Bind::Tcp(address) = listener.local().unwrap() else { panic!("a TCP socket was asked for") };
    let state = Arc::new(state);
    tokio::spawn(serve(listener, move || Arc::clone(&state)));
    address
}

/// One exchange on a stream that is closed afterwards: status, head, body (chunks joined).
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String, String) {
    let request = request.replace("\r\n\r\n", "\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    let (head, mut rest) = response.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let mut body = String::new();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            body.push_str(&after[..size]);
            rest = &after[size + 2..];
        }
    } else {
        body.push_str(rest);
    }
    (status, head.to_owned(), body)
}

async fn get_page(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (status, _, body) = exchange(stream, &format!("GET {path} HTTP/1.1\r\n\r\n")).await;
    (status, body)
}

async fn get_json(address: std::net::SocketAddr, path: &str) -> Value {
    let (status, body) = get_page(address, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn finished(route: Option<u32>, client: &str, response_bytes: u64) -> Finished {
    Finished {
        consumer: None,
        route: route.map(RouteId),
        method: MethodLabel::Get,
        status: StatusCode::OK,
        error: None,
        duration: Duration::from_millis(4),
        request_bytes: 0,
        response_bytes,
        client: Some(client.parse().unwrap()),
    }
}

#[test]
fn readyz_is_503_until_all_workers_run_and_again_while_draining() {
    block_on(async {
        let (gateway, state) = Gateway::new();
        let address = start(state);
        assert_eq!(get_page(address, "/healthz").await, (200, "ok\n".into()));
        assert_eq!(get_page(address, "/readyz").await, (503, "starting\n".into()));
        gateway.lifecycle.set(Phase::Serving);
        assert_eq!(get_page(address, "/readyz").await, (503, "worker 0 is starting\n".into()));
        gateway.run_workers();
        assert_eq!(get_page(address, "/readyz").await, (200, "ready\n".into()));
        gateway.stats.set_worker_state(WorkerId(1), WorkerState::Stalled);
        assert_eq!(get_page(address, "/readyz").await, (503, "worker 1 is stalled\n".into()));
        gateway.lifecycle.set(Phase::Draining);
        assert_eq!(get_page(address, "/readyz").await, (503, "draining\n".into()));
        assert_eq!(get_page(address, "/healthz").await.0, 200);
    });
}

#[test]
fn drain_wants_post_and_no_web_page() {
    block_on(async {
        let (gateway, state) = Gateway::new();
        let address = start(state);
        assert_eq!(get_page(address, "/drain").await.0, 405);
        let stream = TcpStream::connect(address).await.unwrap();
        let (status, _, body) = exchange(stream, "POST /drain HTTP/1.1\r\nOrigin: https://evil.example\r\n\r\n").await;
        assert_eq!((status, gateway.drains.load(Acquire)), (403, 0), "{body}");
        let stream = TcpStream::connect(address).await.unwrap();
        let (status, _, body) = exchange(stream, "POST /drain HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!((status, body.as_str()), (202, "{\"draining\":true}"));
        assert_eq!(gateway.drains.load(Acquire), 1);
    });
}

#[test]
fn endpoints_are_changed_by_hand_and_by_no_web_page() {
    block_on(async {
        let (_gateway, state) = Gateway::new();
        let address = start(state);
        let ask = async |text: &str| {
            let stream = TcpStream::connect(address).await.unwrap();
            let (status, _, body) = exchange(stream, text).await;
            (status, body)
        };
        let path = "/upstreams/orders/endpoints/10.0.0.1:80";
        let said = r#"{"endpoint":"10.0.0.1:80","persisted":false,"upstream":"orders"}"#;
        assert_eq!(
            ask(&format!("PUT {path} HTTP/1.1\r\nContent-Length: 12\r\n\r\n{{\"weight\":7}}")).await,
            (200, said.to_owned())
        );
        assert_eq!(ask(&format!("DELETE {path} HTTP/1.1\r\n\r\n")).await.0, 200);
        for (verb, status) in [("drain", 200), ("eject", 200), ("readmit", 200), ("explode", 404)] {
            assert_eq!(
                ask(&format!("POST {path}/{verb} HTTP/1.1\r\nContent-Length: 0\r\n\r\n")).await.0,
                status,
                "{verb}"
            );
        }
        let page = format!("DELETE {path} HTTP/1.1\r\nOrigin: https://evil.example\r\n\r\n");
        assert_eq!(ask(&page).await.0, 403);
        let wrong = format!("PUT {path} HTTP/1.1\r\nContent-Length: 12\r\n\r\n{{\"wieght\":7}}");
        assert_eq!(ask(&wrong).await.0, 400);
        let much = format!("PUT {path} HTTP/1.1\r\nContent-Length: 5000\r\n\r\n{}", " ".repeat(5_000));
        assert_eq!(ask(&much).await.0, 413);
        let (status, body) =
            ask("PUT /upstreams/none/endpoints/a.test:80%2F10.0.0.1:80 HTTP/1.1\r\nContent-Length: 0\r\n\r\n").await;
        assert!(status == 404 && body.contains("a.test:80/10.0.0.1:80"), "{status} {body}");
    });
}

#[test]
fn unknown_pages_are_404_in_json() {
    block_on(async {
        let (_gateway, state) = Gateway::new();
        let (status, body) = get_page(start(state), "/nothing").await;
        assert_eq!(status, 404);
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["error"], "not_found");
    });
}

#[test]
fn metrics_are_prometheus_text() {
    block_on(async {
        let (gateway, state) = Gateway::new();
        gateway.stats.recorder(WorkerId(0)).finished(&finished(Some(0), "192.0.2.1", 10));
        let stream = TcpStream::connect(start(state)).await.unwrap();
        let (status, head, body) = exchange(stream, "GET /metrics HTTP/1.1\r\n\r\n").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        let line = "\nringgate_requests_total{route=\"orders\",method=\"GET\",code=\"200\"} 1\n";
        assert!(body.contains(line) && body.ends_with('\n'), "{body}");
    });
}

#[test]
fn upstreams_merge_what_the_workers_and_the_checks_say() {
    block_on(async {
        let (gateway, state) = Gateway::new();
        let (cluster, endpoint) = (ClusterId(0), EndpointId(1));
        let gauges = |state, in_flight, availability| EndpointGauges {
            state,
            ejected_until: fixture::clock() + Duration::from_secs(600),
            in_flight,
            availability: Ratio::try_new(availability).unwrap(),
        };
        let first = gateway.stats.recorder(WorkerId(0));
        first.publish_endpoint(cluster, endpoint, &gauges(EndpointState::Ejected, 1, 0.0));
        first.attempt(cluster, endpoint, AttemptOutcome::Timeout, Duration::from_millis(5));
        first.ejected(cluster, endpoint, EjectReason::Consecutive);
        let second = gateway.stats.recorder(WorkerId(1));
        second.publish_endpoint(cluster, endpoint, &gauges(EndpointState::Available, 2, 1.0));
        second.attempt(cluster, endpoint, AttemptOutcome::Success, Duration::from_millis(5));
        let down = Failure::of_status(StatusCode::SERVICE_UNAVAILABLE);
        gateway.stats.record_probe(cluster, endpoint, Err(down), ProbeState::Unhealthy, fixture::clock());
        gateway.stats.record_probe(cluster, endpoint, Ok(()), ProbeState::Unhealthy, fixture::clock());
        gateway.stats.record_probe(cluster, EndpointId(0), Err(down), ProbeState::Unhealthy, fixture::clock());
        gateway.stats.record_probe(cluster, EndpointId(0), Ok(()), ProbeState::Healthy, fixture::clock());
        gateway.stats.record_probe_exhausted(cluster, endpoint);

        let value = get_json(start(state), "/upstreams").await;
        assert_eq!(value["workers"], 2);
        assert_eq!(value["upstreams"][0]["name"], "orders");
        let row = &value["upstreams"][0]["endpoints"][1];
        assert_eq!(row["address"], "10.0.0.2:8080");
        assert_eq!((&row["tier"], &row["weight"]), (&json!(0), &json!(100)));
        assert_eq!(row["available"], "1 of 2 workers");
        assert_eq!(row["states"], json!({ "available": 1, "ejected": 1 }));
        let readmitted = row["readmitted_in_seconds"].as_f64().unwrap();
        assert!((500.0..=600.0).contains(&readmitted), "{readmitted}");
        let check = &row["health_check"];
        assert_eq!((&check["state"], &check["reason"]), (&json!("unhealthy"), &json!("status 503")));
        assert_eq!((&check["passed"], &check["failed"], &check["exhausted"]), (&json!(1), &json!(1), &json!(1)));
        assert_eq!(check["failures"], json!({ "status": 1 }));
        assert!(check["last_check_age_seconds"].as_f64().unwrap() >= 0.0);
        let healthy = &value["upstreams"][0]["endpoints"][0]["health_check"];
        assert_eq!((&healthy["state"], &healthy["reason"]), (&json!("healthy"), &Value::Null), "an old reason is none");
        assert_eq!((&row["in_flight"], &row["availability"]), (&json!(3), &json!(0.5)));
        assert_eq!((&row["attempts"], &row["failures"]), (&json!(2), &json!(1)));
        assert_eq!(row["outcomes"], json!({ "success": 1, "timeout": 1 }));
        assert_eq!(row["ejections"], json!({ "consecutive_failures": 1, "health_check": 1 }));
        assert!(value["upstreams"][1]["endpoints"][0]["health_check"].is_null());
    });
}

#[test]
fn routes_show_their_numbers() {
    block_on(async {
        let (gateway, state) = Gateway::new();
        let recorder = gateway.stats.recorder(WorkerId(0));
        recorder.finished(&finished(Some(1), "192.0.2.1", 10));
        recorder.finished(&Finished {
            consumer: None,
            error: Some(ProxyError::NoRoute),
            status: StatusCode::NOT_FOUND,
            ..finished(None, "192.0.2.1", 10)
        });
        let value = get_json(start(state), "/routes").await;
        assert_eq!(value["routes"][0]["name"], "orders");
        assert_eq!(value["routes"][0]["numbers"]["requests"], 0);
        assert!(value["routes"][0]["numbers"]["p99_seconds"].is_null());
        assert_eq!(value["routes"][1]["match"]["path"], "/plain/*");
        let p50 = value["routes"][1]["numbers"]["p50_seconds"].as_f64().unwrap();
        assert!((p50 / 0.004 - 1.0).abs() < 0.08, "{p50}");
        assert_eq!(value["routes"][2]["name"], "-");
        assert_eq!(value["routes"][2]["numbers"]["rejected"], json!({ "no_route": 1 }));
    });
}

#[test]
fn usage_ranks_clients_and_totals_routes() {
    block_on(async {
        let (gateway, state) = Gateway::new();
        for worker in gateway.stats.worker_ids() {
            let recorder = gateway.stats.recorder(worker);
            recorder.finished(&finished(Some(0), "192.0.2.1", 10));
            recorder.finished(&finished(Some(0), "192.0.2.1", 10));
            recorder.finished(&finished(Some(0), "2001:db8::7", 5_000));
            recorder.finished(&finished(Some(1), "192.0.2.9", 90_000));
        }
        let address = start(state);
        let value = get_json(address, "/usage").await;
        assert_eq!(value["by"], "requests");
        let top = json!({ "route": "orders", "client": "192.0.2.1", "consumer": null, "requests": 4, "errors": 0, "bytes": 40,
            "latency_seconds": 0.016 });
        assert_eq!(value["top"][0], top);
        assert_eq!(value["top"].as_array().unwrap().len(), 3);
        let total = json!({ "route": "orders", "requests": 6, "errors": 0, "bytes": 10_040, "latency_seconds": 0.024 });
        assert_eq!(value["routes"][0], total);
        assert_eq!(value["routes"].as_array().unwrap().len(), 2);
        let value = get_json(address, "/usage?by=bytes&top=1").await;
        assert_eq!(value["top"].as_array().unwrap().len(), 1);
        assert_eq!(value["top"][0]["client"], "192.0.2.9");
        assert_eq!(value["routes"].as_array().unwrap().len(), 1, "routes are cut like clients");
        assert_eq!(value["routes"][0]["bytes"], 180_000, "and ranked like them");
        for bad in ["/usage?by=colour", "/usage?top=0", "/usage?top=1001", "/usage?top=x", "/usage?buy=bytes"] {
            assert_eq!(get_page(address, bad).await.0, 400, "{bad}");
        }
    });
}

#[test]
fn the_configuration_is_shown() {
    block_on(async {
        let (_gateway, state) = Gateway::new();
        let value = get_json(start(state), "/config").await;
        assert_eq!(value["upstream"]["orders"]["balance"], "least_request");
        assert_eq!(value["listener"][0]["name"], "edge");
    });
}

#[test]
fn a_unix_socket_works_and_a_stale_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    // Dropping a listener leaves its file behind, as a killed process would.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    block_on(async {
        let bind = Bind::Unix(path.clone());
        let (_gateway, state) = Gateway::new();
        let listener = AdminListener::bind(&bind).unwrap();
        assert_eq!(listener.local().unwrap(), bind);
        let state = Arc::new(state);
        tokio::spawn(serve(listener, move || Arc::clone(&state)));
        let stream = UnixStream::connect(&path).await.unwrap();
        assert_eq!(exchange(stream, "GET /healthz HTTP/1.1\r\n\r\n").await.0, 200);
        assert!(AdminListener::bind(&bind).is_err(), "a living socket is not taken away");
        let file = folder.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(AdminListener::bind(&Bind::Unix(file.clone())).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    });
}

#[test]
fn clients_that_are_stuck_keep_nobody_out() {
    block_on(async {
        let (_gateway, state) = Gateway::new();
        let address = start(state);
        let mut held = Vec::new();
        for n in 0..limits::ADMIN_CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc").await.unwrap();
            } else {
                // an answer proves that all before it were accepted; keep-alive holds its place
                stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
            }
            held.push(stream);
        }
        assert_eq!(get_page(address, "/healthz").await.0, 200);
        let left = held[0].read(&mut [0; 1024]).await;
        assert!(matches!(left, Ok(0) | Err(_)), "the one that has been stuck for longest has made room: {left:?}");
        held[1].write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_ne!(held[1].read(&mut [0; 1024]).await.unwrap(), 0, "the others stay");
    });
}

#[test]
fn requests_to_other_names_are_refused() {
    block_on(async {
        let (_gateway, state) = Gateway::new();
        let address = start(state);
        for (host, expected) in [("evil.example", 421), ("localhost:1", 200), ("127.0.0.1", 200), ("ops.example", 200)]
        {
            for path in ["/metrics", "/healthz"] {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut response = String::new();
                stream.read_to_string(&mut response).await.unwrap();
                assert!(response.starts_with(&format!("HTTP/1.1 {expected} ")), "{host}: {response}");
            }
        }
    });
}

#[test]
fn only_a_gateway_that_drains_hands_its_address_over() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for bind in [Bind::Tcp(free), Bind::Unix(folder.path().join("admin.sock"))] {
        let (gateway, state) = Gateway::new();
        let (bound, wait) = std::sync::mpsc::channel();
        let (at, state) = (bind.clone(), Arc::new(state));
        // a runtime of its own, as a process has: whoever asks for the address waits without turning his
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = AdminListener::bind(&at).unwrap();
                let (ended, end) = tokio::sync::oneshot::channel::<()>();
                bound.send(ended).unwrap();
                tokio::select! {
                    _ = serve(listener, move || Arc::clone(&state)) => {}
                    _ = end => {}
                }
            });
        });
        let ended = wait.recv().unwrap();
        block_on(async {
            gateway.lifecycle.set(Phase::Serving);
            assert_eq!(AdminListener::bind(&bind).unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
            gateway.lifecycle.set(Phase::Draining);
            let _successor = AdminListener::bind(&bind).unwrap();
            drop(ended);
            thread.join().unwrap();
            if let Bind::Unix(path) = &bind {
                assert!(UnixStream::connect(path).await.is_ok(), "the successor's file stays");
            }
        });
    }
}
