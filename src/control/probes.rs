//! Active health checks: asks every endpoint of every cluster that has a `health_check`, again and again.
//!
//! [`schedule`] says which check begins when: at most so many as there are places ([`crate::limits::PROBES_MAX`] or fewer) are under way, and none of the clusters can take the others'
//! places. The first check of every endpoint is due at once, and its result counts at once; `rise` successes or `fall` failures in a
//! row change the verdict.
//!
//! [`mod@check`] is one check. Why the last one failed stands in the log when an endpoint goes down, in `/upstreams` as long as it is down,
//! and in the metrics, in the same words ([`crate::observe::labels::FailureReason`]). A check that could not be made for want of
//! something of our own is counted, and otherwise as if it had not been.
//!
//! What this does not do: tell the workers (the caller's `report` does), or judge latency.

pub(super) mod check;
mod grpc;
mod http2;
mod schedule;

use crate::config::{Address, Cluster, Config, HealthCheck};
use crate::observe::labels::{FailureReason, ProbeState};
use crate::observe::stats::Stats;
use crate::units::{ClusterId, EndpointId, Instant, Rng};
use check::{Miss, Way, check};
use schedule::Schedule;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// Between two lines of the log that say that checks cannot be made.
const SHORTAGE_SAID_EVERY: Duration = Duration::from_secs(10);

/// Configurations that differ from one another in endpoints only, each with its numbers.
type Followed = UnboundedReceiver<(Arc<Config>, Arc<Stats>)>;

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
    /// Checks under way, by their numbers: of which target.
    under_way: HashMap<u64, (usize, AbortHandle)>,
    /// Checks begun so far.
    begun: u64,
    places: usize,
    /// Configurations that differ from this one in endpoints only.
    followed: Followed,
    /// When the log last said that checks cannot be made.
    shortage_said: Option<Instant>,
}

/// One endpoint that is checked.
struct Target {
    cluster: ClusterId,
    endpoint: EndpointId,
    tally: Tally,
}

/// A check that is over and says something of its endpoint.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The endpoint's cluster as it was then: its ids are these.
    pub of: Arc<Cluster>,
    /// Its row.
    pub cluster: ClusterId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What this check alone says.
    pub passed: bool,
    /// Whether the endpoint is healthy, if this check changed the verdict or gave the first one.
    pub change: Option<bool>,
}

impl<F: FnMut(Checked)> Probes<F> {
    /// Checks for the endpoints of `config`, whose verdicts go on where `stats` knows one. `report` is called with every check that says something; `clock` is what checks are
    /// scheduled by and stamps the results in `stats`; `rng` draws the jitter; `places` checks are under way at most.
    pub fn new(
        config: Arc<Config>,
        stats: Arc<Stats>,
        clock: fn() -> Instant,
        rng: Rng,
        places: usize,
        (report, followed): (F, Followed),
    ) -> Self {
        let (targets, schedule) = planned(&config, &stats, places, clock());
        let (under_way, begun) = (HashMap::new(), 0);
        Self {
            config,
            stats,
            clock,
            rng,
            report,
            targets,
            schedule,
            under_way,
            begun,
            places,
            followed,
            shortage_said: None,
        }
    }

    /// Goes on with other endpoints. Checks under way of those that stay go on, and those of the others end.
    fn follow(&mut self, config: Arc<Config>, stats: Arc<Stats>) {
        let (targets, schedule) = planned(&config, &stats, self.places, (self.clock)());
        let moved = moved((&self.targets, &self.config), (&targets, &config));
        (self.config, self.stats, self.targets, self.schedule) = (config, stats, targets, schedule);
        let schedule = &mut self.schedule;
        self.under_way.retain(|_, (target, check)| match moved[*target] {
            Some(row) => {
                *target = row;
                schedule.resume(row);
                true
            }
            None => {
                check.abort();
                false
            }
        });
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
                Some((config, stats)) = self.followed.recv() => self.follow(config, stats),
                Some(result) = under_way.join_next() => match result {
                    Ok((check, result)) => self.on_end(check, result),
                    // its endpoint is gone
                    Err(error) if error.is_cancelled() => {}
                    // A check has no business panicking: a defect of ours, which must not end in silence.
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                // Nothing is checked: there is nothing to do, ever.
                else => std::future::pending().await,
            }
        }
    }

    fn start(&mut self, target: usize, under_way: &mut JoinSet<(u64, Result<(), Miss>)>) {
        let Target { cluster, endpoint, .. } = self.targets[target];
        let config = Arc::clone(&self.config);
        self.begun += 1;
        let number = self.begun;
        let check = under_way.spawn(async move {
            let of = &config.clusters[cluster.index()];
            let endpoint = &of.endpoints[endpoint.index()];
            let (address, tls) = (&endpoint.address, of.tls.as_ref());
            let tls = tls.map(|tls| (Arc::clone(&tls.rules), tls.name_of(endpoint)));
            let way = Way { proxy: of.proxy_protocol, protocol: of.protocol, tls };
            (number, check(address, health_check(&config, cluster), way).await)
        });
        self.under_way.insert(number, (target, check));
    }

    fn on_end(&mut self, number: u64, result: Result<(), Miss>) {
        let Some((target, _)) = self.under_way.remove(&number) else { return };
        self.schedule.end(target, &mut self.rng);
        let now = (self.clock)();
        let Target { cluster, endpoint, ref mut tally } = self.targets[target];
        let result = match result {
            Ok(()) => Ok(()),
            Err(Miss::Failed(failure)) => Err(failure),
            Err(Miss::Handshake(reason)) => {
                self.stats.record_handshake_failure(cluster, endpoint, reason, now);
                Err(FailureReason::Tls.into())
            }
            Err(Miss::Exhausted(errno)) => {
                self.stats.record_probe_exhausted(cluster, endpoint);
                return self.say_shortage(errno, now);
            }
        };
        let HealthCheck { rise, fall, .. } = *health_check(&self.config, cluster);
        let change = tally.on_result(result.is_ok(), rise, fall);
        self.stats.record_probe(cluster, endpoint, result, tally.state, now);
        if change.is_some() {
            let (upstream, address) = names(&self.config, cluster, endpoint);
            match result {
                Ok(()) => tracing::info!("healthy upstream={upstream} endpoint={address}"),
                Err(why) => {
                    let failed = self.stats.handshake_failure(cluster, endpoint).filter(|(_, at)| *at == now);
                    let of = failed.map_or_else(String::new, |(reason, _)| format!(" handshake={}", reason.token()));
                    tracing::warn!("unhealthy upstream={upstream} endpoint={address} reason=\"{why}\"{of}");
                }
            }
        }
        let of = Arc::clone(&self.config.clusters[cluster.index()]);
        (self.report)(Checked { of, cluster, endpoint, passed: result.is_ok(), change });
    }

    /// A shortage has many checks fail at once, and for as long as it lasts.
    fn say_shortage(&mut self, errno: i32, now: Instant) {
        if self.shortage_said.is_none_or(|said| now.since(said) >= SHORTAGE_SAID_EVERY) {
            self.shortage_said = Some(now);
            let error = io::Error::from_raw_os_error(errno);
            tracing::error!(
                "health checks cannot be made: {error}: see ringgate_health_checks_total{{result=\"exhausted\"}}"
            );
        }
    }
}

/// All endpoints that are checked, and when: those of which `stats` knows something in their time, the others at once.
fn planned(config: &Config, stats: &Stats, places: usize, now: Instant) -> (Vec<Target>, Schedule) {
    let (mut targets, mut upstreams) = (Vec::new(), Vec::new());
    for (row, cluster) in config.clusters.iter().enumerate() {
        let Some(check) = &cluster.health_check else { continue };
        let id = ClusterId::from_index(row);
        let ids = (0..cluster.endpoints.len()).map(EndpointId::from_index);
        let known = |endpoint| stats.probe(id, endpoint);
        upstreams.push((ids.clone().map(|endpoint| known(endpoint)?.checked).collect(), check.interval));
        targets.extend(ids.map(|endpoint| Target {
            cluster: id,
            endpoint,
            tally:
                known(endpoint).map_or_else(Tally::default, |view| Tally { state: view.state, against: view.against }),
        }));
    }
    let schedule = Schedule::new(places, &upstreams, now);
    (targets, schedule)
}

/// The rows that old targets have among the new ones, if they are still there.
fn moved((old, before): (&[Target], &Config), (new, after): (&[Target], &Config)) -> Vec<Option<usize>> {
    let is_same = |id: ClusterId| Arc::ptr_eq(&before.clusters[id.index()], &after.clusters[id.index()]);
    let (mut first, mut rows) = (HashMap::new(), HashMap::new());
    for (row, target) in new.iter().enumerate() {
        match is_same(target.cluster) {
            true => drop(first.entry(target.cluster).or_insert(row)),
            false => drop(rows.insert(target.known_by(after), row)),
        }
    }
    let row = |target: &Target| match is_same(target.cluster) {
        true => first.get(&target.cluster).map(|first| first + target.endpoint.index()),
        false => rows.get(&target.known_by(before)).copied(),
    };
    old.iter().map(row).collect()
}

impl Target {
    /// By what it is the same over configurations that differ in endpoints only.
    fn known_by(&self, config: &Config) -> (ClusterId, String) {
        (self.cluster, config.clusters[self.cluster.index()].endpoints[self.endpoint.index()].identity())
    }
}

fn health_check(config: &Config, cluster: ClusterId) -> &HealthCheck {
    config.clusters[cluster.index()].health_check.as_ref().expect("only clusters with a check have targets")
}

fn names(config: &Config, cluster: ClusterId, endpoint: EndpointId) -> (&str, &Address) {
    let cluster = &config.clusters[cluster.index()];
    (&cluster.name, &cluster.endpoints[endpoint.index()].address)
}

/// What the checks of one endpoint say.
#[derive(Debug)]
struct Tally {
    state: ProbeState,
    /// Results in a row that contradict `state`.
    against: u32,
}

impl Default for Tally {
    fn default() -> Self {
        Self { state: ProbeState::Unknown, against: 0 }
    }
}

impl Tally {
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

#[cfg(test)]
mod tests {
    use super::check::tests::{PATIENCE, answer_once, block_on, http};
    use super::*;
    use crate::limits;
    use crate::observe::fixture;
    use rand::SeedableRng;
    use std::sync::atomic::{AtomicU16, Ordering};
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    #[test]
    fn the_first_result_counts_at_once_and_later_ones_by_rise_and_fall() {
        for first in [true, false] {
            assert_eq!(Tally::default().on_result(first, 5, 5), Some(first));
        }
        let mut tally = Tally::default();
        let mut after = |results: &[bool]| -> Vec<Option<bool>> {
            results.iter().map(|passed| tally.on_result(*passed, 2, 3)).collect()
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
        Arc::new(Config {
            clusters: vec![Arc::new(fixture::cluster("orders", addresses, Some(check)))],
            ..(*base).clone()
        })
    }

    #[test]
    fn every_check_is_reported_and_in_the_numbers() {
        block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let config = one_cluster(vec![Address::Tcp(listener.local_addr().unwrap())]);
            let stats = Stats::new(&config, 1);
            let (changed, mut checks) = mpsc::unbounded_channel();
            let report = (move |checked| changed.send(checked).unwrap(), mpsc::unbounded_channel().1);
            let probes = Probes::new(
                config,
                Arc::clone(&stats),
                fixture::clock,
                Rng::seed_from_u64(1),
                limits::PROBES_MAX,
                report,
            );
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
                assert_eq!(probe.reason().map(|why| why.to_string()), (!healthy).then(|| "status 500".to_owned()));
                assert!(probe.checked.is_some_and(|checked| checked <= fixture::clock()));
            }
            let probe = stats.probe(cluster, endpoint).unwrap();
            assert!(probe.failed() >= 3 && probe.passed >= 3, "{probe:?}");
            running.abort();
        });
    }

    #[test]
    fn a_check_that_says_nothing_changes_nothing_but_its_count() {
        block_on(async { says_nothing() });
    }

    fn says_nothing() {
        let config = one_cluster(vec![fixture::tcp("10.0.0.1:80")]);
        let stats = Stats::new(&config, 1);
        let report = (|checked| panic!("reported: {checked:?}"), mpsc::unbounded_channel().1);
        let mut probes =
            Probes::new(config, Arc::clone(&stats), fixture::clock, Rng::seed_from_u64(1), limits::PROBES_MAX, report);
        for exhausted in 1..10 {
            let now = probes.schedule.next_due().unwrap();
            assert_eq!(probes.schedule.begin(now), Some(0), "it is asked again in its time");
            let check = tokio::spawn(std::future::pending::<()>()).abort_handle();
            probes.under_way.insert(exhausted, (0, check));
            probes.on_end(exhausted, Err(Miss::Exhausted(libc::EMFILE)));
            let probe = stats.probe(ClusterId(0), EndpointId(0)).unwrap();
            assert_eq!((probe.state, probe.exhausted, probe.checked), (ProbeState::Unknown, exhausted, None));
        }
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
            Arc::make_mut(&mut config.clusters[0]).health_check = Some(check);
            let config = Arc::new(config);
            let stats = Stats::new(&config, 1);
            let (changed, mut changes) = mpsc::unbounded_channel();
            let report = move |checked: Checked| changed.send((checked.endpoint, checked.passed)).unwrap();
            let report = (report, mpsc::unbounded_channel().1);
            let probes = Probes::new(config, stats, fixture::clock, Rng::seed_from_u64(1), limits::PROBES_MAX, report);
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
