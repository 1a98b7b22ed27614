//! Admission in the simulated world: several workers over shared limits, held against meters of the simulator's own.
//!
//! A meter is the other way to tell a token bucket: the debt of every request admitted, paid back as time goes by. It stays at or
//! below the burst exactly if in no window more than burst + rate × time pass. Where no worker holds a lease, a rejection has to be
//! right too.

use ringgate::config::{self, Measure};
use ringgate::policy::admission::{Admission, Admitted, Limits, Met};
use ringgate::policy::chance::below;
use ringgate::policy::key_table::KeyTable;
use ringgate::units::{Instant, ListenerId, Rate, Rng, RouteId};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

const ROUTE: RouteId = RouteId(0);
const CLIENTS: usize = 8;
/// Below this no plan of leases gives a worker two tokens: every token is taken by itself.
const LEASES_FROM_BURST: u64 = 128;

/// Debt in nanoseconds: what the admitted requests were worth, less the time since.
struct Meter {
    interval: u64,
    burst: u64,
    debt: u64,
    at: Instant,
}

impl Meter {
    fn new(rate: Rate, burst: u64) -> Self {
        Self { interval: rate.interval_nanos(), burst, debt: 0, at: Instant::default() }
    }

    /// The debt after one more request.
    fn with_one_more(&self, now: Instant) -> u64 {
        self.debt.saturating_sub(now.since(self.at).as_nanos() as u64) + self.interval
    }

    fn is_full(&self, now: Instant) -> bool {
        self.with_one_more(now) > self.burst * self.interval
    }

    fn on_admitted(&mut self, now: Instant) {
        assert!(!self.is_full(now), "more than {} + rate × time have passed at {now:?}", self.burst);
        self.debt = self.with_one_more(now);
        self.at = now;
    }
}

/// What the gate has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) passed: u64,
    pub(crate) limited_by_route: u64,
    pub(crate) limited_by_client: u64,
    pub(crate) crowded: u64,
}

impl std::ops::AddAssign for Said {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.limited_by_route += other.limited_by_route;
        self.limited_by_client += other.limited_by_client;
        self.crowded += other.crowded;
    }
}

/// The limits of one route and everybody who asks.
pub(crate) struct Gate {
    workers: Vec<Admission>,
    route: Meter,
    clients: HashMap<IpAddr, Meter>,
    /// Rate and burst of each client.
    client_limit: (Rate, u64),
    concurrent_max: usize,
    in_flight: usize,
    pub(crate) said: Said,
}

impl Gate {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let workers = 1 + below(rng, 4);
        let (rate, burst) = (200 + below(rng, 20_000) as u64, 1 + below(rng, 1_000) as u64);
        // half of the time the route's limit is the one that counts
        let generous = 1 + below(rng, 2) as u64 * 50;
        let (client_rate, client_burst) =
            (generous * (20 + below(rng, 1_000) as u64), generous * (10 + below(rng, 100) as u64));
        let concurrent_max = 5 + below(rng, 200);
        let text = format!(
            "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:8080\"\n\
             [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"\" }}\n\
             max_concurrent = {concurrent_max}\n\
             limit = [{{ rate = \"{rate}/s\", burst = {burst}, per = \"route\" }}, \
             {{ rate = \"{client_rate}/s\", burst = {client_burst}, per = \"client_ip\" }}]\n"
        );
        let config = config::parse(&text, "simulated").unwrap_or_else(|errors| panic!("{errors}"));
        let table = Arc::new(KeyTable::new(1 << 8, [1, 2]));
        let limits = Arc::new(Limits::new(&config, table, workers, None));
        let [by_route, by_client] = [0, 1].map(|row: usize| match config.routes[0].limits[row].measure {
            Measure::Rate { rate, burst } => (rate, burst),
            other => panic!("{other} is no rate"),
        });
        Self {
            workers: (0..workers).map(|_| Admission::new(Arc::clone(&limits))).collect(),
            route: Meter::new(by_route.0, by_route.1),
            clients: HashMap::new(),
            client_limit: by_client,
            concurrent_max,
            in_flight: 0,
            said: Said::default(),
        }
    }

    /// One request on a worker and from a client of chance's choice: the worker that let it pass, to be told when it ends.
    pub(crate) fn admit(&mut self, now: Instant, rng: &mut Rng) -> Option<usize> {
        // most come to one worker, which so earns larger leases
        let worker = if below(rng, 4) > 0 { 0 } else { below(rng, self.workers.len()) };
        let client = IpAddr::from(Ipv4Addr::new(192, 0, 2, below(rng, CLIENTS) as u8));
        let (rate, burst) = self.client_limit;
        let by_client = self.clients.entry(client).or_insert_with(|| Meter::new(rate, burst));
        match self.workers[worker].admit((ROUTE, ListenerId(0), Met::All), client.into(), &|_| None, now) {
            Admitted::Pass { dry_run } => {
                assert_eq!(dry_run, 0);
                self.route.on_admitted(now);
                by_client.on_admitted(now);
                self.in_flight += 1;
                assert!(self.in_flight <= self.concurrent_max, "{} at once", self.in_flight);
                self.said.passed += 1;
                return Some(worker);
            }
            Admitted::RateLimited { limit: 0, quota } => {
                let leased = self.workers.len() > 1 && self.route.burst >= LEASES_FROM_BURST;
                assert!(leased || self.route.is_full(now), "rejected though there was a token");
                assert!(leased || !self.route.is_full(now + quota.reset), "Retry-After is not enough");
                self.said.limited_by_route += 1;
            }
            Admitted::RateLimited { quota, .. } => {
                assert!(by_client.is_full(now), "a client was rejected though it had a token");
                assert!(!by_client.is_full(now + quota.reset), "Retry-After is not enough");
                self.said.limited_by_client += 1;
            }
            Admitted::ConcurrencyLimited => self.said.crowded += 1,
        }
        None
    }

    /// Many requests at one instant, which end at once, but for some that stay until the next volley. Every third one is a flood that
    /// empties a full bucket and asks for more. Returns the pause until the next: a rest in which the bucket fills, then some
    /// requests that may leave leases behind, then the flood while these are still good.
    pub(crate) fn volley(&mut self, number: u64, held: &mut Vec<usize>, now: Instant, rng: &mut Rng) -> Duration {
        held.drain(..).for_each(|worker| self.release(worker));
        let is_flood = number.is_multiple_of(3);
        let size = if is_flood { self.route.burst as usize + 64 } else { below(rng, 64) };
        for _ in 0..size {
            if let Some(worker) = self.admit(now, rng) {
                if !is_flood && below(rng, 4) == 0 { held.push(worker) } else { self.release(worker) }
            }
        }
        let millis_max = [1_000, 20, 5][number as usize % 3];
        Duration::from_micros(below(rng, millis_max * 1_000) as u64)
    }

    pub(crate) fn release(&mut self, worker: usize) {
        self.workers[worker].release(ROUTE);
        self.in_flight -= 1;
    }

    /// After the last one has ended.
    pub(crate) fn assert_empty(&self) {
        assert_eq!(self.in_flight, 0);
    }
}
