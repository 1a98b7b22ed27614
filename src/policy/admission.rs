//! The request path's `admit`: a route's concurrency slot and all rate limits that a request meets, in one question.
//!
//! Those are the route's and, before them, its listener's, each once: a limit that both name counts a request once. The slot comes first,
//! because it can be put back; tokens cannot (see [`super::token_bucket`]). With several rate limits all are asked
//! before a token is taken from any, so a request that one limit rejects does not use up the others; only when another worker takes
//! the last token in between is one spent in vain, which is the safe side. Where it has to be found out who sends a request, limits that ask
//! for nobody come before that ([`Met`]), so that who guesses passwords is limited, too. A limit in dry run never rejects, but takes its tokens
//! as if it counted, and what it would have rejected is reported.
//!
//! [`Limits`] is shared by the workers, made with each configuration, and takes over the state of limits that did not change: a reload
//! gives nobody a fresh burst. [`Admission`] is one worker's hand in it.

mod gather;
mod taking;

use super::concurrency::{LocalSlots, SharedSlots};
use super::far::FarTable;
use super::key_table::KeyTable;
use super::limit_fields;
use super::limiter::{Caller, Limiter, Marks, Moment, Owner, Tables};
use super::token_bucket::{Lease, Quota, Reservoir};
use crate::config::{Config, Limit, LimitKey, Measure, Route};
use crate::limits::{LIMITED_AT_ONCE_MAX, QUOTA_TABLE_LINES, ROUTE_LIMITS_MAX};
use crate::units::{GroupId, Instant, ListenerId, RouteId};
use gather::Gathered;
use http::HeaderName;
use rustc_hash::FxHashMap;
use std::collections::HashMap;
use std::sync::Arc;
use taking::{take, take_each};

/// What comes of [`Admission::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It may pass; its slot is [released](Admission::release) when the exchange ends.
    Pass {
        /// Limits in dry run that would have rejected it: bit n is the n-th that it met.
        dry_run: u16,
    },
    /// 429: of the limits that have no token this is the one whose next token is longest to come, so that a client that waits for it is
    /// not refused by another.
    RateLimited {
        /// For [`Limits::name`].
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

/// Which of its limits a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// All, and `max_concurrent`.
    All,
    /// Before it is known who sends it: those that ask for nobody. `max_concurrent` comes with the others.
    Anybody,
    /// When it is known who sends it: the others, and `max_concurrent`.
    Known,
}

/// Limits that one request can meet.
const MET_MAX: usize = 2 * ROUTE_LIMITS_MAX;
const _: () = assert!(MET_MAX <= u16::BITS as usize, "one bit of `dry_run` each");

/// A limit that requests meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Row {
    limiter: u32,
    /// Tokens of each request.
    cost: u32,
}

/// What a route or a listener asks for.
#[derive(Debug)]
struct Entry {
    /// Its limits.
    rows: Box<[Row]>,
    /// Those of them that responses say the cost of, and where.
    told: Box<[(Row, HeaderName)]>,
    slots: Option<Arc<SharedSlots>>,
    /// `max_concurrent`.
    slots_max: u32,
    name: String,
    /// Value of `RateLimit-Policy`.
    policies: Vec<u8>,
}

/// The limits of all routes and listeners. Shared by the workers (`Send + Sync`).
#[derive(Debug)]
pub struct Limits {
    /// Those that are shared come first.
    limiters: Box<[Limiter]>,
    routes: Box<[Entry]>,
    listeners: Box<[Entry]>,
    tables: Tables,
    workers: usize,
}

impl Limits {
    /// The limits of `config` for `workers` workers. `table` lives as long as the process; `previous`, from the configuration before,
    /// gives its state to limits and slots that are the same (name of the route or limit, rate, burst, key), and to a changed rate of what
    /// counts all requests together and a changed `max_concurrent` once [`Limits::commit`] is called. A changed rate per client begins anew.
    #[must_use]
    pub fn new(config: &Config, table: Arc<KeyTable>, workers: usize, previous: Option<&Self>) -> Self {
        let listeners: Vec<_> = config.listeners.iter().map(|it| (it.name.as_str(), it.limits.as_slice())).collect();
        Self::of((&config.limits, &config.routes), &listeners, &config.consumers.groups, table, workers, previous)
    }

    fn of(
        (shared, routes): (&[Limit], &[Route]),
        listeners: &[(&str, &[Limit])],
        groups: &[Arc<str>],
        table: Arc<KeyTable>,
        workers: usize,
        previous: Option<&Self>,
    ) -> Self {
        let tables = previous.map(|old| old.tables.clone());
        let tables = tables.unwrap_or_else(|| Tables::new(table, QUOTA_TABLE_LINES, LIMITED_AT_ONCE_MAX));
        let previous = previous.filter(|old| old.workers == workers);
        let mut gathered = Gathered {
            limiters: Vec::new(),
            shared: FxHashMap::default(),
            groups,
            workers,
            old: previous.map_or(&[][..], |old| &old.limiters),
            old_shared: FxHashMap::default(),
            old_routes: FxHashMap::default(),
        };
        let old = gathered.old.iter().filter_map(|limiter| Some((&**limiter.limit.name.as_ref()?, limiter)));
        gathered.old_shared = old.collect();
        let old = previous.iter().flat_map(|old| &old.routes);
        gathered.old_routes = old.map(|entry| (entry.name.as_str(), entry)).collect();
        shared.iter().for_each(|limit| gathered.share(limit));
        let routes: Vec<_> = routes.iter().map(|route| gathered.route(route)).collect();
        let listeners: Vec<_> =
            listeners.iter().map(|(name, limits)| gathered.entry(&Owner::Shared(name), limits, &[])).collect();
        Self { limiters: gathered.limiters.into(), routes: routes.into(), listeners: listeners.into(), tables, workers }
    }

    /// These are the limits from now on: what has changed takes over what there is.
    pub fn commit(&self, now: Instant) {
        for route in &self.routes {
            if let Some(slots) = &route.slots
                && slots.limit() != route.slots_max
            {
                slots.resize(route.slots_max);
            }
        }
        self.limiters.iter().for_each(|limiter| limiter.begin(now));
    }

    /// What limits of all requests together have left at `now`, by what tells them apart, for [`Limits::take_on`].
    pub fn left(&self, now: Instant) -> impl Iterator<Item = (String, u64)> {
        self.of_all().map(move |(key, reservoir)| (key, reservoir.left(now)))
    }

    /// Goes on with what the same limits had left, no more than they may have. Before anybody is admitted.
    pub fn take_on(&self, left: &HashMap<String, u64>, now: Instant) {
        for (key, reservoir) in self.of_all() {
            if let Some(tokens) = left.get(&key) {
                reservoir.begin_at(*tokens, now);
            }
        }
    }

    fn of_all(&self) -> impl Iterator<Item = (String, &Reservoir)> {
        self.limiters.iter().filter_map(|limiter| Some((limiter.key(), limiter.reservoir()?)))
    }

    /// Appends the value of `RateLimit-Policy`: all limits that a request meets and that reject. What is in dry run is no quota of the
    /// client's. `groups` are those of who sends the request: they may have rates of their own.
    pub fn write_policies(&self, (route, listener): (RouteId, ListenerId), groups: &[GroupId], out: &mut Vec<u8>) {
        let (route, listener) = (&self.routes[route.index()], &self.listeners[listener.index()]);
        if listener.rows.is_empty() && groups.is_empty() {
            return out.extend_from_slice(&route.policies);
        }
        let mut met = [Row::default(); MET_MAX];
        limit_fields::write_policies(policies(&self.limiters, meet(&mut met, listener, route), groups), out);
    }

    /// Appends the value of `RateLimit`: the limit that rejected.
    pub fn write_quota(&self, limit: usize, quota: Quota, out: &mut Vec<u8>) {
        limit_fields::write_quotas([(self.name(limit), quota)], out);
    }

    /// What a limit is called in the `RateLimit` fields and in the log.
    #[must_use]
    pub fn name(&self, limit: usize) -> &str {
        &self.limiters[limit].name
    }

    /// Calls for each limit in dry run that would have rejected a request, by the bits of [`Admitted::Pass`], for [`Limits::name`].
    pub fn in_dry_run(&self, asked: (RouteId, ListenerId, Met), bits: u16, mut each: impl FnMut(usize)) {
        let mut met = [Row::default(); MET_MAX];
        for (bit, row) in self.rows(&mut met, asked).iter().enumerate() {
            if bits & (1 << bit) != 0 {
                each(row.limiter as usize);
            }
        }
    }

    /// Limits of a route whose responses say what they have cost, and in which header.
    pub fn told(&self, route: RouteId) -> impl ExactSizeIterator<Item = &HeaderName> {
        self.routes[route.index()].told.iter().map(|(_, header)| header)
    }

    /// What those limits tell a request apart by, in the same order, for [`Limits::charge`].
    pub fn marks<'h>(
        &self,
        route: RouteId,
        caller: Caller<'_>,
        value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
        at: Moment,
        out: &mut [Marks; ROUTE_LIMITS_MAX],
    ) {
        for ((row, _), mark) in self.routes[route.index()].told.iter().zip(out) {
            *mark = self.limiters[row.limiter as usize].marks(&self.tables, caller, value, at);
        }
    }

    /// Takes what a request has cost in all in the `index`-th of those limits beyond what was `paid` already, or taken when it began: at once, whether it is there or
    /// not, but not further than a burst below zero.
    pub fn charge(&self, (route, index): (RouteId, usize), marks: Marks, (paid, cost): (u64, u64), at: Moment) {
        let (row, _) = &self.routes[route.index()].told[index];
        let more = cost.saturating_sub(paid.max(row.cost.into()));
        if more > 0 {
            self.limiters[row.limiter as usize].charge(&self.tables, marks, more, at);
        }
    }

    /// What a request meets, if that is what stands on its route.
    fn rows_of_route(&self, (route, listener, which): (RouteId, ListenerId, Met)) -> Option<&[Row]> {
        let is_all = which == Met::All && self.listeners[listener.index()].rows.is_empty();
        is_all.then(|| &*self.routes[route.index()].rows)
    }

    /// What a request meets.
    fn rows<'m>(
        &'m self,
        met: &'m mut [Row; MET_MAX],
        (route, listener, which): (RouteId, ListenerId, Met),
    ) -> &'m [Row] {
        if let Some(rows) = self.rows_of_route((route, listener, which)) {
            return rows;
        }
        let (of_route, of_listener) = (&self.routes[route.index()], &self.listeners[listener.index()]);
        let len = meet(met, of_listener, of_route).len();
        let mut kept = 0;
        for row in 0..len {
            let limiter = &self.limiters[met[row].limiter as usize];
            // a place is taken when nothing else is waited for
            let is_late = limiter.asks_for_somebody() || limiter.is_at_once();
            if which == Met::All || is_late == (which == Met::Known) {
                met[kept] = met[row];
                kept += 1;
            }
        }
        &met[..kept]
    }

    /// The table of clients, for its counters.
    #[must_use]
    pub fn table(&self) -> &KeyTable {
        &self.tables.rates
    }

    /// The table of quotas, to be kept where a restart finds it.
    #[must_use]
    pub fn quotas(&self) -> &KeyTable {
        &self.tables.quotas
    }

    /// The table of rates that several hosts share, for who talks to the store.
    #[must_use]
    pub fn far(&self) -> &Arc<FarTable> {
        &self.tables.far
    }

    /// Whether any limit is a quota.
    #[must_use]
    pub fn has_quotas(&self) -> bool {
        self.limiters.iter().any(|limiter| matches!(limiter.limit.measure, Measure::Quota { .. }))
    }

    /// A request gives back its place in a limit of requests at once, which [`Admission::taken`] has told. Once.
    pub fn leave(&self, place: usize) {
        self.tables.at_once.release(place);
    }
}

fn policies<'l>(
    limiters: &'l [Limiter],
    rows: &'l [Row],
    groups: &'l [GroupId],
) -> impl Iterator<Item = (&'l str, Measure)> {
    let limiters = rows.iter().map(|row| &limiters[row.limiter as usize]);
    limiters.filter(|it| !it.limit.dry_run).map(|it| (it.name.as_str(), it.measure_for(groups)))
}

/// The rows that a request meets, each once: where both name a limit, it costs what the route says.
fn meet<'m>(met: &'m mut [Row; MET_MAX], listener: &Entry, route: &Entry) -> &'m [Row] {
    let mut len = listener.rows.len();
    met[..len].copy_from_slice(&listener.rows);
    for row in &route.rows {
        let place = listener.rows.iter().position(|of_listener| of_listener.limiter == row.limiter);
        met[place.unwrap_or(len)] = *row;
        len += usize::from(place.is_none());
    }
    &met[..len]
}

/// One worker's hand in the limits. Dropping it puts its slots back.
#[derive(Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    /// By limiter; unused for those by client.
    leases: Box<[Lease]>,
    /// By route.
    slots: Box<[Option<LocalSlots>]>,
    /// Places in limits of requests at once, of the request that was admitted last.
    taken: Vec<usize>,
}

impl Admission {
    /// An empty hand.
    #[must_use]
    pub fn new(limits: Arc<Limits>) -> Self {
        let leases = limits.limiters.iter().map(|_| Lease::new()).collect();
        let slots = |route: &Entry| route.slots.as_ref().map(|slots| LocalSlots::new(Arc::clone(slots)));
        let slots = limits.routes.iter().map(slots).collect();
        Self { limits, leases, slots, taken: Vec::with_capacity(MET_MAX) }
    }

    /// Takes a slot and a token of each limit of `route` and `listener`, or says which one is wanting. Allocates nothing.
    ///
    /// `caller` is who sends the request; `value` gives the first value of a header, a cookie or a claim, or what tells certificates or groups
    /// apart, and is only called for limits by these.
    pub fn admit<'h>(
        &mut self,
        (route, listener, which): (RouteId, ListenerId, Met),
        caller: Caller<'_>,
        value: &dyn Fn(&LimitKey) -> Option<&'h [u8]>,
        at: impl Into<Moment>,
    ) -> Admitted {
        let at = at.into();
        self.taken.clear();
        let has_slot = which != Met::Anybody;
        if has_slot && self.slots[route.index()].as_mut().is_some_and(|slots| !slots.acquire()) {
            return Admitted::ConcurrencyLimited;
        }
        let limits = &*self.limits;
        let admitted = match limits.rows_of_route((route, listener, which)) {
            Some([]) => Admitted::Pass { dry_run: 0 },
            // most requests meet one, and the tables for many cost more than it does
            Some([row]) => {
                let mark = limits.limiters[row.limiter as usize].marks(&limits.tables, caller, value, at);
                let marked = (std::slice::from_ref(row), std::slice::from_ref(&mark));
                take(limits, marked, (&mut self.taken, &mut self.leases), at)
            }
            _ => {
                let hands = (&mut self.taken, &mut *self.leases);
                take_each(limits, (route, listener, which), (caller, value), hands, at)
            }
        };
        if !matches!(admitted, Admitted::Pass { .. }) {
            self.taken.drain(..).for_each(|place| self.limits.leave(place));
            if has_slot {
                self.release(route);
            }
        }
        admitted
    }

    /// Places in limits of requests at once that the request which was admitted last has taken: each is [left](Limits::leave) when it ends.
    #[must_use]
    pub fn taken(&self) -> &[usize] {
        &self.taken
    }

    /// Ends an exchange that [`Admission::admit`] let pass: puts its slot back.
    ///
    /// # Panics
    /// When it was ended before.
    pub fn release(&mut self, route: RouteId) {
        if let Some(slots) = &mut self.slots[route.index()] {
            slots.release();
        }
    }

    /// Puts back what it holds spare: another hand admits what comes, this one only [releases](Admission::release).
    pub fn retire(&mut self) {
        self.slots.iter_mut().flatten().for_each(LocalSlots::retire);
    }

    /// The shared side.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

#[cfg(test)]
mod tests;
