//! T_max: how long a request may take, fixed or following the service.
//!
//! Adaptive: T_max = T_now + k × t, where t is the p99 of the route's latency as this worker saw it ([`super::latencies`]).
//! Until 30 samples are there, and again when fewer than that have survived their ageing, `max` holds. Requests that ran into their
//! deadline are recorded too, with the time they took: k times that is the next deadline, so a service that
//! slows down raises its own limit (up to `max`) instead of failing for ever.
//!
//! A deadline that the client brings (grpc-timeout, a header) can only shorten T_max. A call of gRPC that its client goes on with is a stream, and no
//! service is slow that has not heard all of it: its T_max begins with the end of the request.

use crate::config::Timeout;
use crate::limits::STREAM_MAX;
use crate::policy::latencies::Latencies;
use crate::units::Instant;
use std::time::Duration;

/// Samples before the quantile counts.
const SAMPLES_MIN: u32 = 30;

/// T_max of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// T_max as a point in time.
    pub at: Instant,
    /// T_max as a duration from the request's start; what R is a share of.
    pub total: Duration,
    /// The client asked for less than the route allows: then a timeout is not held against an endpoint.
    pub shortened: bool,
}

impl Deadline {
    /// The request is whole, which T_max has waited for ([`RouteDeadline::start_open`]).
    pub fn begin(&mut self, now: Instant) {
        self.at = self.at.min(now + self.total);
    }
}

/// The deadline of one route on one worker.
#[derive(Clone, Debug)]
pub struct RouteDeadline {
    timeout: Timeout,
    /// Only when adaptive.
    latencies: Option<Box<Latencies>>,
}

impl RouteDeadline {
    /// As configured; allocates a kilobyte when adaptive.
    #[must_use]
    pub fn new(timeout: Timeout) -> Self {
        let latencies = matches!(timeout, Timeout::Adaptive { .. }).then(|| Box::new(Latencies::new(SAMPLES_MIN)));
        Self { timeout, latencies }
    }

    /// T_max of a request that begins at `now`; `incoming` is the time that the client gives it.
    pub fn start(&mut self, incoming: Option<Duration>, now: Instant) -> Deadline {
        let own = self.timeout(now);
        let total = incoming.map_or(own, |time| time.min(own));
        Deadline { at: now + total, total, shortened: total < own }
    }

    /// The same for a request that is a stream as long as its client goes on with it: until then only what that allows for it runs, if it says so.
    pub fn start_open(&mut self, incoming: Option<Duration>, now: Instant) -> Deadline {
        let at = now + incoming.map_or(STREAM_MAX, |time| time.min(STREAM_MAX));
        Deadline { at, ..self.start(incoming, now) }
    }

    /// A request of the route had its response head, or ran into its deadline, after `latency`. Not for clients that went away and
    /// not for replies that the gateway made without an attempt.
    pub fn on_latency(&mut self, latency: Duration, now: Instant) {
        if let Some(latencies) = &mut self.latencies {
            latencies.record(latency, now);
        }
    }

    /// The route's T_max now.
    pub fn timeout(&mut self, now: Instant) -> Duration {
        match (self.timeout, &mut self.latencies) {
            (Timeout::Adaptive { k, min, max }, Some(latencies)) => {
                let Some(quantile) = latencies.quantile(now) else { return max };
                Duration::try_from_secs_f64(quantile.as_secs_f64() * k).unwrap_or(max).min(max).max(min)
            }
            (Timeout::Adaptive { max: time, .. } | Timeout::Fixed(time), _) => time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::at;

    fn millis(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn adaptive() -> RouteDeadline {
        RouteDeadline::new(Timeout::Adaptive { k: 3.0, min: millis(50), max: millis(5_000) })
    }

    #[test]
    fn a_fixed_deadline_is_just_that_and_a_client_can_only_shorten_it() {
        let mut route = RouteDeadline::new(Timeout::Fixed(millis(2_000)));
        let own = Deadline { at: at(2_100), total: millis(2_000), shortened: false };
        assert_eq!(route.start(None, at(100)), own);
        assert_eq!(route.start(Some(millis(9_000)), at(100)), own);
        let shorter = Deadline { at: at(400), total: millis(300), shortened: true };
        assert_eq!(route.start(Some(millis(300)), at(100)), shorter);
        route.on_latency(millis(1), at(100));
        assert_eq!(route.start(None, at(100)), own);
    }

    #[test]
    fn a_stream_s_time_begins_with_the_end_of_its_request() {
        let mut route = RouteDeadline::new(Timeout::Fixed(millis(2_000)));
        let mut open = route.start_open(None, at(100));
        assert_eq!((open.at, open.shortened), (at(100) + STREAM_MAX, false));
        open.begin(at(60_000));
        open.begin(at(90_000));
        assert_eq!(open, Deadline { at: at(62_000), total: millis(2_000), shortened: false });
        let mut limited = route.start_open(Some(millis(61_000)), at(0));
        assert_eq!(limited.at, at(61_000), "a client's own limit runs from the beginning on");
        limited.begin(at(60_000));
        assert_eq!(limited.at, at(61_000));
        let mut short = route.start_open(Some(millis(300)), at(0));
        short.begin(at(100));
        assert_eq!(short, Deadline { at: at(300), total: millis(300), shortened: true });
    }

    #[test]
    fn the_maximum_holds_until_thirty_samples_were_seen() {
        let mut route = adaptive();
        (0..29).for_each(|i| route.on_latency(millis(20), at(i)));
        assert_eq!(route.timeout(at(30)), millis(5_000));
        route.on_latency(millis(20), at(31));
        let timeout = route.timeout(at(31));
        assert!((60.0..=67.5).contains(&(timeout.as_secs_f64() * 1e3)), "{timeout:?}");
    }

    #[test]
    fn t_is_the_99th_percentile_and_the_result_stays_within_its_bounds() {
        let mut route = adaptive();
        (0..990).for_each(|_| route.on_latency(millis(20), at(0)));
        (0..5).for_each(|_| route.on_latency(millis(400), at(0)));
        assert!(route.timeout(at(0)) < millis(70), "0.5 % are slow");
        (0..15).for_each(|_| route.on_latency(millis(400), at(0)));
        let timeout = route.timeout(at(200));
        assert!((millis(1_200)..millis(1_351)).contains(&timeout), "2 % are slow: {timeout:?}");
        let (mut quick, mut slow) = (adaptive(), adaptive());
        (0..30).for_each(|_| quick.on_latency(millis(1), at(0)));
        (0..30).for_each(|_| slow.on_latency(millis(3_000), at(0)));
        assert_eq!((quick.timeout(at(0)), slow.timeout(at(0))), (millis(50), millis(5_000)));
    }

    #[test]
    fn the_quantile_is_computed_once_in_64_samples_or_100_milliseconds() {
        let mut route = adaptive();
        (0..30).for_each(|_| route.on_latency(millis(20), at(1_000)));
        let before = route.timeout(at(1_000));
        (0..63).for_each(|_| route.on_latency(millis(200), at(1_001)));
        assert_eq!(route.timeout(at(1_002)), before);
        assert!(route.timeout(at(1_100)) > before);
        let mut busy = adaptive();
        (0..30).for_each(|_| busy.on_latency(millis(20), at(1_000)));
        let before = busy.timeout(at(1_000));
        (0..64).for_each(|_| busy.on_latency(millis(200), at(1_001)));
        assert!(busy.timeout(at(1_001)) > before);
    }

    #[test]
    fn a_service_that_slows_down_raises_its_deadline_and_one_that_recovers_lowers_it() {
        let mut route = adaptive();
        let mut now = at(0);
        let mut serve = |latency: Duration, requests: u32| {
            for _ in 0..requests {
                let timeout = route.timeout(now);
                route.on_latency(latency.min(timeout), now);
                now += millis(10);
            }
            route.timeout(now)
        };
        assert!(serve(millis(20), 1_000) < millis(70));
        assert!(serve(millis(1_000), 2_000) >= millis(3_000), "requests that run into their deadline raise it");
        assert!(serve(millis(20), 10_000) < millis(70));
    }

    #[test]
    fn a_quiet_route_goes_back_to_its_maximum() {
        let mut route = adaptive();
        (0..100).for_each(|_| route.on_latency(millis(20), at(0)));
        assert!(route.timeout(at(0)) < millis(70));
        assert_eq!(route.timeout(at(60_000)), millis(5_000));
    }
}
