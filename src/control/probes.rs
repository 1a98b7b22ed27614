//! Active health checks: asks every endpoint of every cluster that has a `health_check`, again and again.
//!
//! [`schedule`] says which check begins when: at most [`limits::PROBES_MAX`] are under way, and none of the clusters can take the others'
//! places. The first check of every endpoint is due at once, and its result counts at once; `rise` successes or `fall` failures in a
//! row change the verdict.
//!
//! An HTTP check is one GET on a connection of its own, which is closed after the response head: the body says nothing. Speaking
//! that much HTTP/1.1 with httparse is shorter than binding a client library, and it measures what the gateway would meet:
//! a connection, a head, in time.
//!
//! What this does not do: tell the workers (the caller's `report` does), or judge latency.

mod schedule;

use crate::config::{Address, Config, HealthCheck, Probe, ProxyVersion};
use crate::http::proxy_header;
use crate::limits;
use crate::observe::labels::ProbeState;
use crate::observe::stats::Stats;
use crate::units::{ClusterId, EndpointId, Instant, Rng};
use schedule::Schedule;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// All active checks of one configuration.
pub struct Probes<F> {
    config: Arc<Config>,
    stats: Arc<Stats>,
    clock: fn() -> Instant,
    rng: Rng,
    report: F,
    /// The schedule's targets, row by row.
    targets: Vec<Target>,
    schedule: Schedule,
}

/// One endpoint that is checked.
struct Target {
    cluster: ClusterId,
    endpoint: EndpointId,
    verdict: Verdict,
}

/// A check that is over and says something of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The endpoint's cluster.
    pub cluster: ClusterId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What this check alone says.
    pub passed: bool,
    /// Whether the endpoint is healthy, if this check changed the verdict or gave the first one.
    pub change: Option<bool>,
}

impl<F: FnMut(Checked)> Probes<F> {
    /// Checks for the endpoints of `config`. `report` is called with every check that is over; `clock` is what checks are scheduled by
    /// and stamps the results in `stats`; `rng` draws the jitter.
    pub fn new(config: Arc<Config>, stats: Arc<Stats>, clock: fn() -> Instant, rng: Rng, report: F) -> Self {
        let (mut targets, mut upstreams) = (Vec::new(), Vec::new());
        for (row, cluster) in config.clusters.iter().enumerate() {
            let Some(check) = &cluster.health_check else { continue };
            upstreams.push((cluster.endpoints.len(), check.interval));
            targets.extend((0..cluster.endpoints.len()).map(|number| Target {
                cluster: ClusterId::from_index(row),
                endpoint: EndpointId::from_index(number),
                verdict: Verdict::default(),
            }));
        }
        let schedule = Schedule::new(limits::PROBES_MAX, &upstreams, clock());
        Self { config, stats, clock, rng, report, targets, schedule }
    }

    /// Checks until the future is dropped, on a tokio runtime. Checks under way end with it.
    pub async fn run(mut self) {
        let mut under_way = JoinSet::new();
        loop {
            let now = (self.clock)();
            while let Some(target) = self.schedule.begin(now) {
                self.start(target, &mut under_way);
            }
            let due = self.schedule.next_due();
            tokio::select! {
                () = sleep(due.unwrap_or(now).since(now)), if due.is_some() => {}
                Some(result) = under_way.join_next() => match result {
                    Ok((target, passed)) => self.on_result(target, passed),
                    // A check has no business panicking: a defect of ours, which must not end in silence.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                // Nothing is checked: there is nothing to do, ever.
                else => std::future::pending().await,
            }
        }
    }

    fn start(&self, target: usize, under_way: &mut JoinSet<(usize, bool)>) {
        let Target { cluster, endpoint, .. } = self.targets[target];
        let config = Arc::clone(&self.config);
        under_way.spawn(async move {
            let cluster = &config.clusters[cluster.index()];
            let check = cluster.health_check.as_ref().expect("only clusters with a check have targets");
            (target, is_healthy(&cluster.endpoints[endpoint.index()].address, check, cluster.proxy_protocol).await)
        });
    }

    fn on_result(&mut self, target: usize, passed: bool) {
        self.schedule.end(target, &mut self.rng);
        let Target { cluster, endpoint, ref mut verdict } = self.targets[target];
        let check = self.config.clusters[cluster.index()].health_check.as_ref();
        let check = check.expect("only clusters with a check have targets");
        let change = verdict.on_result(passed, check.rise, check.fall);
        self.stats.record_probe(cluster, endpoint, passed, verdict.state, (self.clock)());
        if let Some(healthy) = change {
            tracing::info!(
                upstream = self.config.clusters[cluster.index()].name,
                endpoint = %self.config.clusters[cluster.index()].endpoints[endpoint.index()].address,
                healthy,
                "health check verdict"
            );
        }
        (self.report)(Checked { cluster, endpoint, passed, change });
    }
}

/// What the checks of one endpoint say.
#[derive(Debug)]
struct Verdict {
    state: ProbeState,
    /// Results in a row that contradict `state`.
    against: u32,
}

impl Default for Verdict {
    fn default() -> Self {
        Self { state: ProbeState::Unknown, against: 0 }
    }
}

impl Verdict {
    /// Considers one result; `Some(healthy)` when the verdict changed or is the first.
    fn on_result(&mut self, passed: bool, rise: u32, fall: u32) -> Option<bool> {
        let needed = match (self.state, passed) {
            (ProbeState::Unknown, _) => 1,
            (ProbeState::Healthy, false) => fall,
            (ProbeState::Unhealthy, true) => rise,
            (ProbeState::Healthy, true) | (ProbeState::Unhealthy, false) => {
                self.against = 0;
                return None;
            }
        };
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.state = if passed { ProbeState::Healthy } else { ProbeState::Unhealthy };
        Some(passed)
    }
}

/// One check: does the endpoint pass within the check's timeout?
async fn is_healthy(address: &Address, check: &HealthCheck, proxy: ProxyVersion) -> bool {
    matches!(timeout(check.timeout, attempt(address, &check.probe, proxy)).await, Ok(Ok(true)))
}

async fn attempt(address: &Address, probe: &Probe, proxy: ProxyVersion) -> io::Result<bool> {
    match address {
        Address::Tcp(tcp) => ask(TcpStream::connect(tcp).await?, address, probe, proxy).await,
        Address::Unix(path) => ask(UnixStream::connect(path).await?, address, probe, proxy).await,
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: &Address,
    probe: &Probe,
    proxy: ProxyVersion,
) -> io::Result<bool> {
    // an endpoint that wants a PROXY header takes no connection without one; this one is for nobody
    let mut header = Vec::new();
    match proxy {
        ProxyVersion::Off => {}
        ProxyVersion::V1 => proxy_header::push_v1(&mut header, None),
        ProxyVersion::V2 => proxy_header::push_v2_local(&mut header),
    }
    stream.write_all(&header).await?;
    let Probe::Http { path, expect: (low, high) } = probe else { return Ok(true) };
    let host = match address {
        Address::Tcp(tcp) => tcp.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ringgate-health/{version}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let status = read_status(&mut stream).await?;
    Ok((*low..=*high).contains(&status))
}

/// The status of the first response that is not interim.
async fn read_status(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut head = Vec::new();
    let mut parsed = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; limits::RESPONSE_HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head[parsed..]) {
            Ok(httparse::Status::Complete(len)) => match response.code {
                Some(100..=199) => {
                    parsed += len;
                    continue;
                }
                Some(status) => return Ok(status),
                None => return Err(io::ErrorKind::InvalidData.into()),
            },
            Ok(httparse::Status::Partial) => {}
            Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        }
        if head.len() >= limits::PROBE_HEAD_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if (&mut *stream).take(2048).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::observe::fixture;
    use rand::SeedableRng;
    use std::sync::atomic::{AtomicU16, Ordering};
    use std::time::Duration;
    use tokio::net::{TcpListener, UnixListener};
    use tokio::sync::mpsc;

    /// Longer than anything here takes: a test that hangs fails instead.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, future).await.expect("the test ended in time") })
    }

    fn http() -> Probe {
        Probe::Http { path: "/healthz".into(), expect: (200, 399) }
    }

    /// Answers every connection with `reply`, after it has seen a whole request head; returns what it read.
    async fn answer_once(listener: &TcpListener, reply: &[u8]) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        // The prober may have hung up before all of it was taken.
        let _ = stream.write_all(reply).await;
        String::from_utf8(request).unwrap()
    }

    async fn check_against(reply: &[u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let check = fixture::health_check(http());
        let (healthy, request) =
            tokio::join!(is_healthy(&address, &check, ProxyVersion::Off), answer_once(&listener, reply));
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
        healthy
    }

    #[test]
    fn the_status_decides_and_only_a_valid_head_counts() {
        let cases: &[(&[u8], bool)] = &[
            (b"HTTP/1.1 200 OK\r\n\r\n", true),
            (b"HTTP/1.1 399 Odd\r\nContent-Length: 5\r\n\r\nhello", true),
            (b"HTTP/1.0 204 No Content\r\n\r\n", true),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", true),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nContent-Le", false),
            (b"SSH-2.0-OpenSSH_9.7\r\n", false),
            (b"", false),
        ];
        block_on(async {
            for (reply, healthy) in cases {
                assert_eq!(check_against(reply).await, *healthy, "{}", String::from_utf8_lossy(reply));
            }
            let endless =
                [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'a'; 2 * limits::PROBE_HEAD_BYTES_MAX]].concat();
            assert!(!check_against(&endless).await);
        });
    }

    #[test]
    fn a_service_that_accepts_and_never_answers_fails_in_time() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address::Tcp(listener.local_addr().unwrap());
            let check = HealthCheck { timeout: Duration::from_millis(20), ..fixture::health_check(http()) };
            assert!(!is_healthy(&address, &check, ProxyVersion::Off).await);
            let tcp = HealthCheck { timeout: PATIENCE, ..fixture::health_check(Probe::Tcp) };
            assert!(is_healthy(&address, &tcp, ProxyVersion::Off).await, "it does accept");
            drop(listener);
            assert!(!is_healthy(&address, &tcp, ProxyVersion::Off).await, "nobody listens any more");
        });
    }

    #[test]
    fn unix_sockets_are_checked_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("service.sock");
        let address = Address::Unix(path.clone());
        block_on(async {
            let check = HealthCheck { timeout: PATIENCE, ..fixture::health_check(http()) };
            assert!(!is_healthy(&address, &check, ProxyVersion::Off).await);
            let listener = UnixListener::bind(&path).unwrap();
            let answer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let mut request = Vec::new();
                stream.read_to_end(&mut request).await
            };
            let (healthy, _) = tokio::join!(is_healthy(&address, &check, ProxyVersion::Off), answer);
            assert!(healthy);
        });
    }

    #[test]
    fn the_first_result_counts_at_once_and_later_ones_by_rise_and_fall() {
        for first in [true, false] {
            assert_eq!(Verdict::default().on_result(first, 5, 5), Some(first));
        }
        let mut verdict = Verdict::default();
        let mut after = |results: &[bool]| -> Vec<Option<bool>> {
            results.iter().map(|passed| verdict.on_result(*passed, 2, 3)).collect()
        };
        assert_eq!(after(&[true, false, false, true, false, false]), [Some(true), None, None, None, None, None]);
        assert_eq!(after(&[false, false]), [Some(false), None]);
        assert_eq!(after(&[true, false, true, true]), [None, None, None, Some(true)]);
        assert_eq!(after(&[false, false, false]), [None, None, Some(false)]);
    }

    /// A service whose status can be changed while it runs.
    async fn serve_status(listener: TcpListener, status: Arc<AtomicU16>) {
        loop {
            let reply = format!("HTTP/1.1 {} X\r\n\r\n", status.load(Ordering::Relaxed));
            answer_once(&listener, reply.as_bytes()).await;
        }
    }

    fn one_cluster(addresses: Vec<Address>) -> Arc<Config> {
        let base = fixture::config();
        let check = fixture::health_check(http());
        Arc::new(Config { clusters: vec![fixture::cluster("orders", addresses, Some(check))], ..(*base).clone() })
    }

    #[test]
    fn every_check_is_reported_and_in_the_numbers() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config = one_cluster(vec![Address::Tcp(listener.local_addr().unwrap())]);
            let stats = Stats::new(&config, 1);
            let (changed, mut checks) = mpsc::unbounded_channel();
            let report = move |checked| changed.send(checked).unwrap();
            let probes = Probes::new(config, Arc::clone(&stats), fixture::clock, Rng::seed_from_u64(1), report);
            let status = Arc::new(AtomicU16::new(200));
            tokio::spawn(serve_status(listener, Arc::clone(&status)));
            let running = tokio::spawn(probes.run());
            let (cluster, endpoint) = (ClusterId(0), EndpointId(0));
            for (code, healthy, unchanged) in [(200, true, 0), (500, false, 2), (204, true, 1)] {
                status.store(code, Ordering::Relaxed);
                let mut against = 0;
                let checked = loop {
                    let checked = checks.recv().await.unwrap();
                    assert_eq!((checked.cluster, checked.endpoint), (cluster, endpoint));
                    if checked.change.is_some() {
                        break checked;
                    }
                    against += usize::from(checked.passed == healthy);
                };
                assert_eq!((checked.passed, checked.change, against), (healthy, Some(healthy), unchanged));
                let expected = if healthy { ProbeState::Healthy } else { ProbeState::Unhealthy };
                let probe = stats.probe(cluster, endpoint).unwrap();
                assert_eq!(probe.state, expected);
                assert!(probe.checked.is_some_and(|checked| checked <= fixture::clock()));
            }
            let probe = stats.probe(cluster, endpoint).unwrap();
            assert!(probe.failed >= 3 && probe.passed >= 3, "{probe:?}");
            running.abort();
        });
    }

    #[test]
    fn no_more_checks_than_the_bound_are_under_way_and_all_get_their_turn() {
        block_on(async {
            // One address many times: a service that counts who is being served, and answers when all slots are taken.
            let endpoints = limits::PROBES_MAX + 10;
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config = one_cluster(vec![Address::Tcp(listener.local_addr().unwrap()); endpoints]);
            let mut config = (*config).clone();
            let check = HealthCheck { timeout: PATIENCE, interval: 60 * PATIENCE, ..fixture::health_check(http()) };
            config.clusters[0].health_check = Some(check);
            let config = Arc::new(config);
            let stats = Stats::new(&config, 1);
            let (changed, mut changes) = mpsc::unbounded_channel();
            let report = move |checked: Checked| changed.send((checked.endpoint, checked.passed)).unwrap();
            let probes = Probes::new(config, stats, fixture::clock, Rng::seed_from_u64(1), report);
            tokio::spawn(probes.run());
            let mut waiting = Vec::new();
            for _ in 0..limits::PROBES_MAX {
                waiting.push(listener.accept().await.unwrap().0);
            }
            let more = timeout(Duration::from_millis(100), listener.accept()).await;
            assert!(more.is_err(), "a check beyond the bound was begun");
            for mut stream in waiting {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            }
            for _ in limits::PROBES_MAX..endpoints {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            }
            let mut seen = std::collections::HashSet::new();
            while seen.len() < endpoints {
                let (endpoint, healthy) = changes.recv().await.unwrap();
                assert!(healthy && seen.insert(endpoint));
            }
        });
    }
}
