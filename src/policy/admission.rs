//! The request path's `admit`: a route's concurrency slot and all its rate limits, in one question.
//!
//! The slot comes first, because it can be put back; tokens cannot (see [`super::token_bucket`]). With several rate limits all are asked
//! before a token is taken from any, so a request that one limit rejects does not use up the others; only when another worker takes
//! the last token in between is one spent in vain, which is the safe side. A limit in dry run never rejects, but takes its tokens
//! as if it counted, and what it would have rejected is reported.
//!
//! [`Limits`] is shared by the workers, made with each configuration, and takes over the state of limits that did not change: a reload
//! gives nobody a fresh burst. [`Admission`] is one worker's hand in it.

use super::concurrency::{LocalSlots, SharedSlots};
use super::key_table::{KeyHash, KeyTable, LimiterId};
use super::limit_fields;
use super::token_bucket::{Decision, Gcra, Lease, Quota, Reservoir};
use crate::config::{Config, Limit, LimitKey, Route};
use crate::limits::ROUTE_LIMITS_MAX;
use crate::units::{Instant, RouteId};
use rustc_hash::FxHasher;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

/// What comes of [`Admission::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It may pass; its slot is [released](Admission::release) when the exchange ends.
    Pass {
        /// Limits in dry run that would have rejected it: bit n is the route's n-th limit.
        dry_run: u8,
    },
    /// 429: of the route's limits that have no token this row is the one whose next token is longest to come, so that a client that
    /// waits for it is not refused by another.
    RateLimited {
        /// Row of [`Route::limits`].
        limit: usize,
        /// How that limit stands; `reset` is `Retry-After`.
        quota: Quota,
    },
    /// 503: the route's `max_concurrent` is reached.
    ConcurrencyLimited,
}

impl Admitted {
    /// Whether it was refused at `now` for want of a token that is there at `later`: who was asked with a clock that was late, because its
    /// thread was held up, has to ask again.
    #[must_use]
    pub fn is_outdated(self, now: Instant, later: Instant) -> bool {
        matches!(self, Self::RateLimited { quota, .. } if now + quota.reset <= later)
    }
}

const _: () = assert!(ROUTE_LIMITS_MAX <= u8::BITS as usize, "one bit of `dry_run` each");

/// A limit and where its tokens are.
#[derive(Debug)]
struct Limiter {
    /// Says whether a limit of another configuration is the same one.
    id: LimiterId,
    /// Its name in the `RateLimit` fields.
    name: String,
    limit: Limit,
    bucket: Bucket,
    /// The bucket of the same limit before its rate or burst changed.
    before: Option<Arc<Reservoir>>,
}

#[derive(Debug)]
enum Bucket {
    Route(Arc<Reservoir>),
    Keyed(Gcra),
}

/// Room for most members of `RateLimit-Policy`: a short name, a quota, a window.
const POLICY_BYTES: usize = 40;

#[derive(Debug)]
struct RouteLimits {
    limiters: Box<[Limiter]>,
    slots: Option<Arc<SharedSlots>>,
    /// `max_concurrent`.
    slots_max: u32,
    name: String,
    /// Value of `RateLimit-Policy`.
    policies: Vec<u8>,
}

/// The limits of all routes. Shared by the workers (`Send + Sync`).
#[derive(Debug)]
pub struct Limits {
    routes: Box<[RouteLimits]>,
    table: Arc<KeyTable>,
    workers: usize,
}

impl Limits {
    /// The limits of `config` for `workers` workers. `table` lives as long as the process; `previous`, from the configuration before,
    /// gives its state to limits and slots that are the same (route name, rate, burst, key), and to a changed rate of a route and a
    /// changed `max_concurrent` once [`Limits::commit`] is called. A changed rate per client or header begins anew.
    #[must_use]
    pub fn new(config: &Config, table: Arc<KeyTable>, workers: usize, previous: Option<&Self>) -> Self {
        Self::of_routes(&config.routes, table, workers, previous)
    }

    fn of_routes(routes: &[Route], table: Arc<KeyTable>, workers: usize, previous: Option<&Self>) -> Self {
        let previous = previous.filter(|old| old.workers == workers);
        let old: rustc_hash::FxHashMap<&str, &RouteLimits> =
            previous.iter().flat_map(|old| &old.routes).map(|route| (route.name.as_str(), route)).collect();
        let routes = routes
            .iter()
            .map(|route| RouteLimits::new(route, workers, old.get(route.name.as_str()).copied()))
            .collect();
        Self { routes, table, workers }
    }

    /// These are the limits from now on: what has changed takes over what there is.
    pub fn commit(&self, now: Instant) {
        for route in &self.routes {
            if let Some(slots) = &route.slots
                && slots.limit() != route.slots_max
            {
                slots.resize(route.slots_max);
            }
            for limiter in &route.limiters {
                if let (Bucket::Route(reservoir), Some(before)) = (&limiter.bucket, &limiter.before) {
                    reservoir.begin_with(before, now);
                }
            }
        }
    }

    /// What limits per route have left at `now`, by their names in the `RateLimit` fields, for [`Limits::take_on`].
    pub fn left(&self, now: Instant) -> impl Iterator<Item = (String, u64)> {
        self.per_route().map(move |(name, reservoir)| (name.to_owned(), reservoir.left(now)))
    }

    /// Goes on with what limits of the same names had left, no more than they may have. Before anybody is admitted.
    pub fn take_on(&self, left: &HashMap<String, u64>, now: Instant) {
        for (name, reservoir) in self.per_route() {
            if let Some(tokens) = left.get(name) {
                reservoir.begin_at(*tokens, now);
            }
        }
    }

    fn per_route(&self) -> impl Iterator<Item = (&str, &Reservoir)> {
        let limiters = self.routes.iter().flat_map(|route| &route.limiters);
        limiters.filter_map(|limiter| match &limiter.bucket {
            Bucket::Route(reservoir) => Some((limiter.name.as_str(), &**reservoir)),
            Bucket::Keyed(_) => None,
        })
    }

    /// The value of a route's `RateLimit-Policy` field: all its limits that reject. What is in dry run is no quota of the client's.
    #[must_use]
    pub fn policies(&self, route: RouteId) -> &[u8] {
        &self.routes[route.index()].policies
    }

    /// Appends the value of `RateLimit`: the limit that rejected.
    pub fn write_quota(&self, route: RouteId, limit: usize, quota: Quota, out: &mut Vec<u8>) {
        limit_fields::write_quotas([(self.routes[route.index()].limiters[limit].name.as_str(), quota)], out);
    }

    /// The table of clients, for its counters.
    #[must_use]
    pub fn table(&self) -> &KeyTable {
        &self.table
    }
}

impl RouteLimits {
    fn new(route: &Route, workers: usize, old: Option<&Self>) -> Self {
        let ids = identities(route);
        let limiters: Box<[Limiter]> = (0..ids.len()).map(|row| Limiter::new(route, row, &ids, workers, old)).collect();
        let mut policies = Vec::with_capacity(limiters.len() * POLICY_BYTES);
        limit_fields::write_policies(
            limiters.iter().filter(|it| !it.limit.dry_run).map(|it| (it.name.as_str(), &it.limit)),
            &mut policies,
        );
        let slots = route.concurrent_max.map(|limit| match old.and_then(|old| old.slots.as_ref()) {
            Some(slots) => Arc::clone(slots),
            None => Arc::new(SharedSlots::new(limit, workers)),
        });
        let slots_max = route.concurrent_max.unwrap_or_default();
        Self { limiters, slots, slots_max, name: route.name.clone(), policies }
    }
}

impl Limiter {
    /// Row `row` of a route's limits, which all have these `ids`.
    fn new(route: &Route, row: usize, ids: &[LimiterId], workers: usize, old: Option<&RouteLimits>) -> Self {
        let (id, limit) = (ids[row], &route.limits[row]);
        let name = if route.limits.len() == 1 { route.name.clone() } else { format!("{}-{}", route.name, row + 1) };
        let same = old.and_then(|old| old.limiters.iter().find(|limiter| limiter.id == id));
        // what stood in this row, unless it goes on in another
        let changed = old.and_then(|old| old.limiters.get(row)).filter(|changed| !ids.contains(&changed.id));
        let changed = changed.map(|changed| &changed.bucket);
        let mut before = None;
        let bucket = match (&limit.per, same.map(|same| &same.bucket)) {
            (LimitKey::Route, Some(Bucket::Route(reservoir))) => Bucket::Route(Arc::clone(reservoir)),
            (LimitKey::Route, _) => {
                before = changed.and_then(|changed| match changed {
                    Bucket::Route(reservoir) => Some(Arc::clone(reservoir)),
                    Bucket::Keyed(_) => None,
                });
                Bucket::Route(Arc::new(Reservoir::new(limit.rate, limit.burst, workers)))
            }
            (LimitKey::ClientIp | LimitKey::Consumer | LimitKey::Header(_) | LimitKey::ClientCertificate, _) => {
                Bucket::Keyed(Gcra::new(limit.rate, limit.burst))
            }
        };
        Self { id, name, limit: limit.clone(), bucket, before }
    }
}

/// A number for each limit of a route that stays the same as long as the limit does, in whatever row; the second of the same rate, burst and
/// key is another one. Not secret and not aimed at by anyone but the operator.
fn identities(route: &Route) -> Vec<LimiterId> {
    let mut ids: Vec<LimiterId> = Vec::with_capacity(route.limits.len());
    for limit in &route.limits {
        let id = |twin| identity(route, twin, limit);
        let twin = (0..).find(|twin| !ids.contains(&id(*twin))).unwrap_or_default();
        ids.push(id(twin));
    }
    ids
}

fn identity(route: &Route, twin: usize, limit: &Limit) -> LimiterId {
    let mut hasher = FxHasher::default();
    (&route.name, twin, limit.rate.count(), limit.rate.per(), limit.burst).hash(&mut hasher);
    match &limit.per {
        LimitKey::Route => 0_u8.hash(&mut hasher),
        LimitKey::ClientIp => 1_u8.hash(&mut hasher),
        LimitKey::Header(name) => (2_u8, name).hash(&mut hasher),
        LimitKey::ClientCertificate => 3_u8.hash(&mut hasher),
        LimitKey::Consumer => 4_u8.hash(&mut hasher),
    }
    LimiterId(hasher.finish())
}

/// Whom limits count for.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'c> {
    /// The client's address after `trusted_proxies`.
    pub client: IpAddr,
    /// The name of who was recognised.
    pub consumer: Option<&'c str>,
}

impl From<IpAddr> for Caller<'_> {
    /// Nobody was recognised.
    fn from(client: IpAddr) -> Self {
        Self { client, consumer: None }
    }
}

/// One worker's hand in the limits. Dropping it puts its slots back.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    /// By route; a lease for each of its limits (unused for those per client).
    hands: Box<[Hand]>,
}

#[derive(Debug)]
struct Hand {
    leases: Box<[Lease]>,
    slots: Option<LocalSlots>,
}

impl Admission {
    /// An empty hand.
    #[must_use]
    pub fn new(limits: Arc<Limits>) -> Self {
        let hand = |route: &RouteLimits| Hand {
            leases: route.limiters.iter().map(|_| Lease::new()).collect(),
            slots: route.slots.as_ref().map(|slots| LocalSlots::new(Arc::clone(slots))),
        };
        let hands = limits.routes.iter().map(hand).collect();
        Self { limits, hands }
    }

    /// Takes a slot and a token of each limit of `route`, or says which one is wanting. Allocates nothing.
    ///
    /// `caller` is who sends the request; `value` gives the first value of a header, or what tells certificates apart, and is only called for
    /// limits by these.
    pub fn admit<'h>(
        &mut self,
        route: RouteId,
        caller: Caller<'_>,
        value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
        now: Instant,
    ) -> Admitted {
        let hand = &mut self.hands[route.index()];
        if hand.slots.as_mut().is_some_and(|slots| !slots.acquire()) {
            return Admitted::ConcurrencyLimited;
        }
        let limiters = &self.limits.routes[route.index()].limiters;
        let admitted = tokens(limiters, &mut hand.leases, &self.limits.table, caller, value, now);
        if !matches!(admitted, Admitted::Pass { .. }) {
            self.release(route);
        }
        admitted
    }

    /// Ends an exchange that [`Admission::admit`] let pass: puts its slot back.
    ///
    /// # Panics
    /// When it was ended before.
    pub fn release(&mut self, route: RouteId) {
        if let Some(slots) = &mut self.hands[route.index()].slots {
            slots.release();
        }
    }

    /// Puts back what it holds spare: another hand admits what comes, this one only [releases](Admission::release).
    pub fn retire(&mut self) {
        self.hands.iter_mut().filter_map(|hand| hand.slots.as_mut()).for_each(LocalSlots::retire);
    }

    /// The shared side.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

fn tokens<'h>(
    limiters: &[Limiter],
    leases: &mut [Lease],
    table: &KeyTable,
    caller: Caller<'_>,
    value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
    now: Instant,
) -> Admitted {
    let mut keys: [Option<KeyHash>; ROUTE_LIMITS_MAX] = [None; ROUTE_LIMITS_MAX];
    for (key, limiter) in keys.iter_mut().zip(limiters) {
        *key = match &limiter.limit.per {
            LimitKey::Route => None,
            LimitKey::ClientIp => Some(table.client(limiter.id, caller.client)),
            LimitKey::Consumer => Some(table.header(limiter.id, caller.consumer.map(str::as_bytes))),
            per @ (LimitKey::Header(_) | LimitKey::ClientCertificate) => Some(table.header(limiter.id, value(per))),
        };
    }
    // of those that reject, the one whose next token is longest to come
    let longest = |leases: &[Lease]| {
        let rejecting = limiters.iter().enumerate().filter(|(_, limiter)| !limiter.limit.dry_run);
        let rejecting =
            rejecting.filter_map(|(row, limiter)| match limiter.peek(&leases[row], table, keys[row], now) {
                Decision::Admit => None,
                Decision::Reject(quota) => Some((row, quota)),
            });
        rejecting.max_by_key(|(_, quota)| quota.reset)
    };
    if limiters.len() > 1
        && let Some((limit, quota)) = longest(leases)
    {
        return Admitted::RateLimited { limit, quota };
    }
    let mut dry_run = 0;
    for (row, limiter) in limiters.iter().enumerate() {
        match limiter.take(&mut leases[row], table, keys[row], now) {
            Decision::Admit => {}
            Decision::Reject(_) if limiter.limit.dry_run => dry_run |= 1 << row,
            Decision::Reject(quota) => {
                let other = longest(leases).filter(|(_, other)| other.reset > quota.reset);
                let (limit, quota) = other.unwrap_or((row, quota));
                return Admitted::RateLimited { limit, quota };
            }
        }
    }
    Admitted::Pass { dry_run }
}

impl Limiter {
    fn take(&self, lease: &mut Lease, table: &KeyTable, key: Option<KeyHash>, now: Instant) -> Decision {
        match (&self.bucket, key) {
            (Bucket::Route(reservoir), _) => lease.take(reservoir, now),
            (Bucket::Keyed(gcra), key) => table.take(key.expect("limits by key have one"), *gcra, now),
        }
    }

    fn peek(&self, lease: &Lease, table: &KeyTable, key: Option<KeyHash>, now: Instant) -> Decision {
        match (&self.bucket, key) {
            (Bucket::Route(reservoir), _) => lease.peek(reservoir, now),
            (Bucket::Keyed(gcra), key) => table.peek(key.expect("limits by key have one"), *gcra, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, HeaderRules, Match, Retry, RetryOn, Rewrite, Target, Timeout};
    use crate::units::{Rate, Ratio};
    use http::{HeaderValue, StatusCode};
    use std::time::Duration;

    fn limit(count: u64, burst: u64, per: LimitKey) -> Limit {
        Limit { rate: Rate::try_new(count, Duration::from_secs(1)).unwrap(), burst, per, dry_run: false }
    }

    fn route(name: &str, limits: Vec<Limit>, concurrent_max: Option<u32>) -> Route {
        let target = Target::Respond {
            status: StatusCode::OK,
            body: String::new(),
            content_type: HeaderValue::from_static("text/plain"),
        };
        let on = RetryOn { connect: true, reset: true, timeout: true, statuses: Vec::new(), codes: Vec::new() };
        let min_remaining = Ratio::try_new(0.1).unwrap();
        let retry = Retry {
            attempts: 0,
            on,
            non_idempotent: false,
            per_try_timeout: None,
            backoff_max: Duration::from_millis(250),
            min_remaining,
        };
        Route {
            name: name.into(),
            matcher: Match::default(),
            target,
            rewrite: Rewrite::None,
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            timeout: Timeout::Fixed(Duration::from_secs(1)),
            limits,
            concurrent_max,
            auth: None,
            access: config::Access::default(),
            body_bytes_max: None,
            retry,
        }
    }

    fn limits(routes: &[Route], previous: Option<&Limits>) -> Arc<Limits> {
        let table = previous.map_or_else(|| Arc::new(KeyTable::new(64, [3, 4])), |old| Arc::clone(&old.table));
        Arc::new(Limits::of_routes(routes, table, 2, previous))
    }

    fn ask(admission: &mut Admission, client: u8, header: Option<&[u8]>) -> Admitted {
        let now = Instant::from_nanos(1_000_000_000);
        admission.admit(RouteId(0), IpAddr::from([10, 0, 0, client]).into(), &|_| header, now)
    }

    const PASS: Admitted = Admitted::Pass { dry_run: 0 };

    fn limited_by(admitted: Admitted) -> Option<usize> {
        match admitted {
            Admitted::RateLimited { limit, .. } => Some(limit),
            Admitted::Pass { .. } | Admitted::ConcurrencyLimited => None,
        }
    }

    #[test]
    fn a_request_that_one_limit_rejects_uses_no_token_of_another() {
        let routes = [route("orders", vec![limit(1, 4, LimitKey::Route), limit(1, 2, LimitKey::ClientIp)], None)];
        let mut admission = Admission::new(limits(&routes, None));
        assert_eq!([ask(&mut admission, 1, None), ask(&mut admission, 1, None)], [PASS; 2]);
        for _ in 0..9 {
            assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(1));
        }
        assert_eq!([ask(&mut admission, 2, None), ask(&mut admission, 2, None)], [PASS; 2]);
        assert_eq!(limited_by(ask(&mut admission, 3, None)), Some(0));
    }

    #[test]
    fn of_several_limits_that_are_used_up_the_longest_wait_is_told() {
        let slow = Limit { rate: Rate::try_new(10, Duration::from_secs(60)).unwrap(), ..limit(1, 1, LimitKey::Route) };
        let slower = Limit { rate: Rate::try_new(1, Duration::from_secs(3_600)).unwrap(), ..slow.clone() };
        let dry = Limit { dry_run: true, ..slower };
        for limits_of_route in [
            vec![limit(1, 1, LimitKey::Route), slow.clone(), dry.clone()],
            vec![limit(1, 1, LimitKey::ClientIp), slow.clone()],
            vec![limit(1, 1, LimitKey::Route), Limit { per: LimitKey::ClientIp, ..slow.clone() }],
        ] {
            let mut admission = Admission::new(limits(&[route("orders", limits_of_route, None)], None));
            let mut ask =
                |now: Instant| admission.admit(RouteId(0), IpAddr::from([10, 0, 0, 1]).into(), &|_| None, now);
            let now = Instant::from_nanos(1_000_000_000);
            assert!(matches!(ask(now), Admitted::Pass { .. }));
            let Admitted::RateLimited { limit: 1, quota } = ask(now) else { panic!("the second is the slower") };
            assert_eq!(quota.reset, Duration::from_secs(6));
            assert!(matches!(ask(now + quota.reset), Admitted::Pass { .. }), "and its wait is enough");
        }
    }

    #[test]
    fn who_was_held_up_and_asks_with_a_late_clock_is_refused_only_until_it_asks_again() {
        let burst = 1_000;
        let per_second = |key| limit(1_000, burst, key);
        for limits_of_route in [
            vec![per_second(LimitKey::Route)],
            vec![per_second(LimitKey::ClientIp)],
            vec![per_second(LimitKey::Route), per_second(LimitKey::ClientIp)],
        ] {
            let shared = limits(&[route("orders", limits_of_route, None)], None);
            let mut workers = [Admission::new(Arc::clone(&shared)), Admission::new(shared)];
            let mut ask = |worker: usize, now: Instant| {
                workers[worker].admit(RouteId(0), IpAddr::from([10, 0, 0, 1]).into(), &|_| None, now)
            };
            let late = Instant::from_nanos(5_000_000_000);
            let now = late + Duration::from_millis(1_500);
            assert!(matches!(ask(0, now), Admitted::Pass { .. }));
            // the bucket is all but full, and the one who is late does not see it
            let refused = ask(1, late);
            assert_eq!(limited_by(refused), Some(0));
            assert!(!refused.is_outdated(late, late) && refused.is_outdated(late, now));
            assert!(matches!(ask(1, now), Admitted::Pass { .. }));
            // one that is empty is empty whoever asks
            let (mut passed, mut last) = (2, PASS);
            while !matches!(last, Admitted::RateLimited { .. }) {
                last = ask(passed % 2, now);
                passed += 1;
            }
            assert!(passed as u64 > burst * 9 / 10 && !last.is_outdated(now, now));
        }
        assert!(!PASS.is_outdated(Instant::default(), Instant::NEVER));
        assert!(!Admitted::ConcurrencyLimited.is_outdated(Instant::default(), Instant::NEVER));
    }

    #[test]
    fn nobody_is_told_of_a_limit_in_dry_run() {
        let dry = Limit { dry_run: true, ..limit(7, 7, LimitKey::Route) };
        let limits = limits(&[route("orders", vec![dry, limit(5, 5, LimitKey::Route)], None)], None);
        assert_eq!(limits.policies(RouteId(0)), br#""orders-2";q=5;w=1"#);
    }

    #[test]
    fn a_limit_by_header_counts_each_value_and_those_without_it_together() {
        let key = LimitKey::Header(http::HeaderName::from_static("x-api-key"));
        let mut admission = Admission::new(limits(&[route("orders", vec![limit(1, 1, key)], None)], None));
        for value in [Some(&b"a"[..]), Some(b"b"), None] {
            assert_eq!(ask(&mut admission, 1, value), PASS);
            assert_eq!(limited_by(ask(&mut admission, 2, value)), Some(0));
        }
    }

    #[test]
    fn a_limit_in_dry_run_reports_and_lets_pass() {
        let dry = Limit { dry_run: true, ..limit(1, 1, LimitKey::Route) };
        let mut admission =
            Admission::new(limits(&[route("orders", vec![limit(1, 3, LimitKey::Route), dry], None)], None));
        assert_eq!(ask(&mut admission, 1, None), PASS);
        assert_eq!(ask(&mut admission, 1, None), Admitted::Pass { dry_run: 0b10 });
        assert_eq!(ask(&mut admission, 1, None), Admitted::Pass { dry_run: 0b10 });
        assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(0));
    }

    #[test]
    fn slots_are_taken_before_tokens_and_put_back_when_tokens_are_wanting() {
        let routes = [route("orders", vec![limit(1, 3, LimitKey::Route)], Some(2))];
        let mut admission = Admission::new(limits(&routes, None));
        assert_eq!([ask(&mut admission, 1, None), ask(&mut admission, 1, None)], [PASS; 2]);
        assert_eq!(ask(&mut admission, 1, None), Admitted::ConcurrencyLimited);
        admission.release(RouteId(0));
        assert_eq!(ask(&mut admission, 1, None), PASS, "the refused request took no token");
        admission.release(RouteId(0));
        for _ in 0..3 {
            assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(0), "and this one keeps no slot");
        }
    }

    #[test]
    fn workers_share_tokens_and_slots() {
        let shared = limits(&[route("orders", vec![limit(1, 3, LimitKey::Route)], Some(3))], None);
        let mut workers = [Admission::new(Arc::clone(&shared)), Admission::new(shared)];
        assert_eq!([0, 1, 0].map(|worker| ask(&mut workers[worker], 1, None)), [PASS; 3]);
        assert_eq!(ask(&mut workers[1], 1, None), Admitted::ConcurrencyLimited);
        workers[0].release(RouteId(0));
        assert_eq!(limited_by(ask(&mut workers[1], 1, None)), Some(0));
    }

    #[test]
    fn a_reload_keeps_the_state_of_limits_that_did_not_change() {
        let kept =
            |burst| route("orders", vec![limit(1, burst, LimitKey::Route), limit(1, 1, LimitKey::ClientIp)], Some(1));
        let first = limits(&[kept(1)], None);
        let mut before = Admission::new(Arc::clone(&first));
        assert_eq!(ask(&mut before, 1, None), PASS);
        let same = limits(&[route("new", Vec::new(), None), kept(1)], Some(&first));
        let mut after = Admission::new(Arc::clone(&same));
        let now = Instant::from_nanos(1_000_000_000);
        let mut ask_second =
            |client: u8| after.admit(RouteId(1), IpAddr::from([10, 0, 0, client]).into(), &|_| None, now);
        assert_eq!(ask_second(2), Admitted::ConcurrencyLimited, "the request of before is still in flight");
        before.release(RouteId(0));
        assert_eq!(limited_by(ask_second(2)), Some(0));
        let mut changed = Admission::new(limits(&[kept(9)], Some(&same)));
        assert_eq!(
            limited_by(ask(&mut changed, 1, None)),
            Some(1),
            "the client's limit is the same, the route's is new"
        );
        assert_eq!(ask(&mut changed, 2, None), PASS);
    }

    #[test]
    fn a_reload_that_changes_a_limit_converts_what_there_is() {
        let of = |burst, slots| route("orders", vec![limit(1, burst, LimitKey::Route)], Some(slots));
        let first = limits(&[of(5, 4)], None);
        let mut before = Admission::new(Arc::clone(&first));
        assert_eq!([(); 3].map(|()| ask(&mut before, 1, None)), [PASS; 3]);
        let prepared = limits(&[of(9, 2)], Some(&first));
        assert_eq!(ask(&mut before, 1, None), PASS, "what is only prepared changes nothing");
        prepared.commit(Instant::from_nanos(1_000_000_000));
        before.retire();
        let mut after = Admission::new(prepared);
        assert_eq!(ask(&mut after, 1, None), Admitted::ConcurrencyLimited, "four are in flight, of two");
        (0..3).for_each(|_| before.release(RouteId(0)));
        assert_eq!(ask(&mut after, 1, None), PASS, "one token was left");
        before.release(RouteId(0));
        assert_eq!(limited_by(ask(&mut after, 1, None)), Some(0), "and no more");
    }

    #[test]
    fn no_token_is_there_twice_while_some_workers_still_have_the_limits_of_before() {
        let of = |burst| route("orders", vec![limit(1, burst, LimitKey::Route)], None);
        let first = limits(&[of(5)], None);
        let [mut slow, mut quick] = [(); 2].map(|()| Admission::new(Arc::clone(&first)));
        assert_eq!(ask(&mut slow, 1, None), PASS);
        let second = limits(&[of(9)], Some(&first));
        second.commit(Instant::from_nanos(1_000_000_000));
        assert_eq!(ask(&mut quick, 1, None), PASS, "nobody is refused whom the limit allows");
        quick = Admission::new(Arc::clone(&second));
        assert_eq!([ask(&mut slow, 1, None), ask(&mut quick, 1, None)], [PASS; 2]);
        let third = limits(&[of(7)], Some(&second));
        third.commit(Instant::from_nanos(1_000_000_000));
        quick = Admission::new(third);
        assert_eq!(ask(&mut slow, 1, None), PASS, "the fifth");
        for admission in [&mut slow, &mut quick] {
            assert_eq!(limited_by(ask(admission, 1, None)), Some(0));
        }
    }

    #[test]
    fn a_limit_that_moves_to_another_row_keeps_its_tokens() {
        let (own, common) = (limit(1, 3, LimitKey::ClientIp), limit(1, 2, LimitKey::Route));
        let first = limits(&[route("orders", vec![own.clone(), common.clone()], None)], None);
        let mut before = Admission::new(Arc::clone(&first));
        assert_eq!([ask(&mut before, 1, None), ask(&mut before, 1, None)], [PASS; 2]);
        let new = limit(1, 9, LimitKey::Route);
        let second = limits(&[route("orders", vec![new, common, own], None)], Some(&first));
        second.commit(Instant::from_nanos(1_000_000_000));
        let mut after = Admission::new(second);
        assert_eq!(limited_by(ask(&mut after, 1, None)), Some(1));
        assert_eq!(limited_by(ask(&mut before, 1, None)), Some(1), "and stays where it was");
    }

    #[test]
    fn the_fields_name_each_limit() {
        let routes = [route("orders", vec![limit(5, 5, LimitKey::Route), limit(1, 2, LimitKey::ClientIp)], None)];
        let limits = limits(&routes, None);
        assert_eq!(limits.policies(RouteId(0)), br#""orders-1";q=5;w=1, "orders-2";q=2;w=2"#);
        let mut out = Vec::new();
        limits.write_quota(RouteId(0), 1, Quota { remaining: 0, reset: Duration::from_millis(900) }, &mut out);
        assert_eq!(out, br#""orders-2";r=0;t=1"#);
    }
}
