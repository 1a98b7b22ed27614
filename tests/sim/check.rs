//! What must hold at every step, by bookkeeping of the simulator's own.

use ringgate::policy::cluster::Cluster;
use ringgate::policy::outlier::Standing;
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
    pub(crate) fn new(ratio: f64, min_per_second: u32) -> Self {
        let ratio_permille = (ratio * 1_000.0).round() as i64;
        Self { ratio_permille, floor: i64::from(min_per_second) * 10_000, balance: HashMap::new() }
    }

    pub(crate) fn on_request(&mut self, now: Instant) {
        *self.balance.entry(second(now)).or_default() += self.ratio_permille;
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
    pub(crate) until: Instant,
    pub(crate) deadline: Instant,
    pub(crate) now: Instant,
}

/// True when the attempt is a probe.
pub(crate) fn attempt(begun: &Begun<'_>, cluster: &mut Cluster, requests_max: u32) -> bool {
    let Begun { endpoint, tried, until, deadline, now } = *begun;
    assert!(now < deadline, "an attempt begins after its deadline");
    assert!(now < until && until <= deadline);
    let available = cluster.available(now);
    let all = cluster.endpoints();
    let chosen = &all[endpoint.index()];
    assert!(chosen.weight > 0, "a drained endpoint got a request");
    assert!(chosen.in_flight <= requests_max, "an endpoint is over its limit");
    if tried.contains(&endpoint) {
        let untried = |i: &usize| {
            let e = &all[*i];
            e.is_available(now) && e.in_flight < requests_max && !tried.contains(&EndpointId::from_index(*i))
        };
        assert_eq!((0..all.len()).find(untried), None, "{endpoint:?} again although another was not tried");
    }
    let probing = matches!(chosen.outlier.standing(), Standing::Probing { .. });
    assert!(
        available == 0 || probing || chosen.is_available(now),
        "{endpoint:?} is {:?} and got a request though {available} are available",
        chosen.outlier.standing()
    );
    probing && available > 0
}

/// What holds between any two steps; `live` attempts by endpoint.
pub(crate) fn cluster(cluster: &Cluster, live: &HashMap<EndpointId, u32>) {
    let mut tiers: HashMap<u8, (usize, usize)> = HashMap::new();
    for (i, endpoint) in cluster.endpoints().iter().enumerate() {
        let expected = live.get(&EndpointId::from_index(i)).copied().unwrap_or(0);
        assert_eq!(endpoint.in_flight, expected, "in flight of {i}");
        assert_eq!(
            endpoint.started,
            endpoint.finished + u64::from(endpoint.in_flight),
            "started = finished + in flight"
        );
        let (all, away) = tiers.entry(endpoint.tier).or_default();
        *all += usize::from(endpoint.weight > 0);
        *away += usize::from(endpoint.outlier.standing() != Standing::Serving);
    }
    for (tier, (all, away)) in tiers {
        assert!(away <= (all / 2).max(1) && (all < 2 || away < all), "tier {tier}: {away} of {all} are away");
        assert!(all != 1 || away == 0, "the only endpoint of tier {tier} is away");
    }
}
