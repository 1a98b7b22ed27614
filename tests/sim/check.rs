//! What must hold at every step, by bookkeeping of the simulator's own.

use ringgate::policy::cluster::{Cluster, Common};
use ringgate::policy::standings::Standing;
use ringgate::units::{EndpointId, Instant};
use std::collections::HashMap;
use std::time::Duration;

/// Requests and retries of each second: the budget, told again in other words.
pub(crate) struct Ledger {
    ratio_permille: i64,
    floor: i64,
    /// By second: thousandths of a retry.
    balance: HashMap<u64, i64>,
}

impl Ledger {
    /// Less than a retry each worker may count later than it was deposited.
    pub(crate) fn new(ratio: f64, min_per_second: u32, workers: usize) -> Self {
        let ratio_permille = (ratio * 1_000.0).round() as i64;
        let late = if ratio > 0.0 { workers as i64 * 1_000 } else { 0 };
        Self { ratio_permille, floor: i64::from(min_per_second) * 10_000 + late, balance: HashMap::new() }
    }

    pub(crate) fn on_request(&mut self, now: Instant) {
        *self.balance.entry(second(now)).or_default() += self.ratio_permille;
    }

    /// A retry that was paid for was not made.
    pub(crate) fn on_refund(&mut self, now: Instant) {
        *self.balance.entry(second(now)).or_default() += 1_000;
    }

    /// retries ≤ budget.
    pub(crate) fn on_retry(&mut self, now: Instant) {
        let this = second(now);
        *self.balance.entry(this).or_default() -= 1_000;
        let window: i64 = (0..10).filter_map(|back| self.balance.get(&this.checked_sub(back)?)).sum();
        assert!(window + self.floor >= 0, "a retry beyond the budget at {now:?}: {window}");
    }
}

fn second(now: Instant) -> u64 {
    now.as_nanos() / 1_000_000_000
}

/// Which exchange probes which endpoint, and until when it may.
#[derive(Default)]
pub(crate) struct Probes {
    by_endpoint: HashMap<EndpointId, (usize, Instant)>,
    pub(crate) seen: u64,
}

impl Probes {
    /// An attempt begins on an endpoint that is not serving although others are available: it must be the one probe.
    pub(crate) fn on_attempt(&mut self, id: EndpointId, exchange: usize, deadline: Instant, now: Instant) {
        if let Some((other, until)) = self.by_endpoint.get(&id) {
            assert!(*until <= now, "exchange {exchange} probes {id:?} while exchange {other} does, at {now:?}");
        }
        self.by_endpoint.insert(id, (exchange, deadline.min(now + Duration::from_secs(60))));
        self.seen += 1;
    }

    pub(crate) fn on_end(&mut self, exchange: usize) {
        self.by_endpoint.retain(|_, (other, _)| *other != exchange);
    }
}

/// What an attempt that has just begun may look like.
pub(crate) struct Begun<'a> {
    pub(crate) endpoint: EndpointId,
    /// What the request had tried before.
    pub(crate) tried: &'a [EndpointId],
    /// What it has found full since it last waited.
    pub(crate) refused: &'a [EndpointId],
    pub(crate) until: Instant,
    pub(crate) deadline: Instant,
    pub(crate) now: Instant,
}

/// True when the attempt is a probe for certain, and not the last resort beside somebody else's probe.
pub(crate) fn attempt(begun: &Begun<'_>, cluster: &mut Cluster, requests_max: u32) -> bool {
    let Begun { endpoint, tried, refused, until, deadline, now } = *begun;
    assert!(now < deadline, "an attempt begins after its deadline");
    assert!(now < until && until <= deadline);
    let available = cluster.available(now);
    let all = cluster.endpoints();
    let chosen = &all[endpoint.index()];
    assert!(chosen.weight > 0, "a drained endpoint got a request");
    assert!(chosen.in_flight <= requests_max, "an endpoint is over its limit");
    let untried = |i: &usize| {
        let e = &all[*i];
        let id = EndpointId::from_index(*i);
        e.is_available() && e.in_flight < requests_max && !tried.contains(&id) && !refused.contains(&id)
    };
    let better = (0..all.len()).find(untried);
    if tried.contains(&endpoint) {
        assert_eq!(better, None, "{endpoint:?} again although another was not tried");
    }
    let probing = matches!(chosen.standing, Standing::Probing { .. });
    // the last resort, and who is shunned, only when all that are available have failed this request
    assert!(
        probing || chosen.is_available() || better.is_none(),
        "{endpoint:?} is {:?} and got a request though {better:?} of {available} was not tried",
        chosen.standing
    );
    probing && better.is_some()
}

/// What a request that gets an error has left out.
pub(crate) struct GivenUp<'a> {
    pub(crate) tried: &'a [EndpointId],
    /// Endpoints that have been reachable for a while.
    pub(crate) reachable: &'a [EndpointId],
    pub(crate) now: Instant,
}

/// A request that could not be sent fails only when every endpoint that would have taken it was tried.
pub(crate) fn given_up(up: &GivenUp<'_>, cluster: &Cluster, requests_max: u32) {
    for id in up.reachable.iter().filter(|id| !up.tried.contains(id)) {
        let endpoint = &cluster.endpoints()[id.index()];
        let takes = endpoint.weight > 0 && endpoint.in_flight < requests_max;
        assert!(!takes, "{id:?} is {:?} and reachable, and was not asked at {:?}", endpoint.standing, up.now);
    }
}

/// What holds between any two steps; `live` attempts by endpoint of one worker.
pub(crate) fn cluster(cluster: &Cluster, live: &HashMap<EndpointId, u32>) {
    for (i, endpoint) in cluster.endpoints().iter().enumerate() {
        let expected = live.get(&EndpointId::from_index(i)).copied().unwrap_or(0);
        assert_eq!(endpoint.in_flight, expected, "in flight of {i}");
    }
    cluster.check_invariants();
}

/// What holds of that which workers share; `cluster` knows who is healthy. Half of all is more than half of what is left at times, when others
/// are lost after that.
pub(crate) fn common(common: &Common, cluster: &Cluster) {
    let rows = || cluster.endpoints().iter().enumerate();
    let is_soft = |row: usize| common.standings.get(EndpointId::from_index(row)).is_soft();
    let soft = rows().filter(|(row, _)| is_soft(*row)).count();
    assert_eq!(soft, common.standings.soft() as usize, "who is away softly is counted");
    // a check that calls an endpoint down leaves nothing to believe
    let away = rows().filter(|(row, endpoint)| is_soft(*row) && endpoint.healthy).count();
    let positive = rows().filter(|(_, endpoint)| endpoint.weight > 0).count();
    assert!(away <= (positive / 2).max(1) && (positive != 1 || away == 0), "{away} of {positive} are away softly");
}
