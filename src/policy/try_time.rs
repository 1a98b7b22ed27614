//! How long one try of a route's request may take before another endpoint is asked: `per_try_timeout = "auto"`.
//!
//! It follows what the answers of the route take: [`TRY_AUTO_FACTOR`] × the p99 of the time to a response head that is no failure. Tries
//! that ran out of time are not among them, or a hung endpoint would lengthen the time that it costs. A service that slows
//! down for good is heard all the same: the last try of a request has all the time that is left, and without a retry budget no
//! try is cut.
//!
//! Each worker measures for itself; what it finds out it tells the others ([`TryTimes`]) for as long as they have seen too little
//! themselves. The first answers of a route are counted together, so that [`SAMPLES_MIN`] suffice whatever the number of workers.

use crate::limits::TRY_AUTO_FACTOR;
use crate::policy::latencies::Latencies;
use crate::units::{self, Instant, RouteId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Answers before their time counts.
const SAMPLES_MIN: u32 = 10;

/// What workers tell each other about one route.
#[derive(Debug, Default)]
struct Row {
    /// The last quantile that a worker found out, in nanoseconds; zero: none has.
    quantile: AtomicU64,
    /// The first answers over all workers, and the longest of them in nanoseconds.
    samples: AtomicU32,
    longest: AtomicU64,
}

/// What workers tell each other about all routes.
#[derive(Debug)]
pub struct TryTimes(Box<[Arc<Row>]>);

impl TryTimes {
    /// Nothing yet.
    #[must_use]
    pub fn new(routes: usize) -> Self {
        Self((0..routes).map(|_| Arc::default()).collect())
    }

    /// What workers go on to tell each other: `before` says which row of these each route had, if it had one.
    #[must_use]
    pub fn succeed(&self, before: impl Iterator<Item = Option<RouteId>>) -> Self {
        Self(before.map(|row| row.map_or_else(Arc::default, |row| Arc::clone(&self.0[row.index()]))).collect())
    }
}

/// One route's tries as one worker sees them.
#[derive(Clone, Debug, Default)]
pub struct TryTime {
    /// Since the first answer: most of ten thousand routes are never asked.
    latencies: Option<Box<Latencies>>,
    told: Option<Duration>,
}

impl TryTime {
    /// A try had its response head after `latency`, and it was no failure.
    pub fn on_answer(&mut self, latency: Duration, route: RouteId, shared: &TryTimes, now: Instant) {
        let row = &shared.0[route.index()];
        if row.samples.load(Ordering::Relaxed) < SAMPLES_MIN {
            row.longest.fetch_max(units::nanos(latency).max(1), Ordering::Relaxed);
            row.samples.fetch_add(1, Ordering::Relaxed);
        }
        self.latencies.get_or_insert_with(|| Box::new(Latencies::new(SAMPLES_MIN))).record(latency, now);
    }

    /// What a try may take; `None` while too little is known.
    pub fn get(&mut self, route: RouteId, shared: &TryTimes, now: Instant) -> Option<Duration> {
        let row = &shared.0[route.index()];
        let own = self.latencies.as_mut().and_then(|latencies| latencies.quantile(now));
        if own.is_some() && own != self.told {
            self.told = own;
            row.quantile.store(own.map_or(0, units::nanos), Ordering::Relaxed);
        }
        let of_others = || {
            let told = row.quantile.load(Ordering::Relaxed);
            let first = || match row.samples.load(Ordering::Relaxed) {
                SAMPLES_MIN.. => row.longest.load(Ordering::Relaxed),
                _ => 0,
            };
            Some(if told > 0 { told } else { first() }).filter(|nanos| *nanos > 0).map(Duration::from_nanos)
        };
        own.or_else(of_others).map(|quantile| quantile.saturating_mul(TRY_AUTO_FACTOR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::at;

    const ROUTE: RouteId = RouteId(1);

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_few_answers_suffice_whoever_has_seen_them() {
        let shared = TryTimes::new(2);
        let mut workers = vec![TryTime::default(); 16];
        for (i, worker) in workers.iter_mut().take(10).enumerate() {
            assert_eq!(worker.get(ROUTE, &shared, at(5)), None, "after {i}");
            worker.on_answer(millis(20 + i as u64), ROUTE, &shared, at(5));
        }
        assert_eq!(workers[15].get(ROUTE, &shared, at(5)), Some(millis(3 * 29)));
        assert_eq!(workers[15].get(RouteId(0), &shared, at(5)), None, "another route");
    }

    #[test]
    fn who_has_seen_enough_goes_by_that_and_tells_who_has_not() {
        let shared = TryTimes::new(2);
        let (mut busy, mut idle) = (TryTime::default(), TryTime::default());
        (0..10).for_each(|_| busy.on_answer(millis(500), ROUTE, &shared, at(0)));
        (0..10_000).for_each(|i| busy.on_answer(millis(10), ROUTE, &shared, at(i)));
        let own = busy.get(ROUTE, &shared, at(10_000));
        assert!(own.is_some_and(|own| (millis(30)..millis(35)).contains(&own)), "{own:?}");
        assert_eq!(idle.get(ROUTE, &shared, at(10_000)), own);
        assert_eq!(busy.get(ROUTE, &shared, at(600_000)), own, "nothing newer is known");
    }
}
