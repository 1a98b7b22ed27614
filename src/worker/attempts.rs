//! `pick` and `classify`, as the line calls them: the policy's exchange with everything it needs and everything that counts it.
//!
//! The policy decides ([`crate::policy::exchange`]); this hands it the cluster, the clock and the generator, holds the endpoint's
//! place under `max_requests`, and writes down what happened. Dropping it, by whatever path, ends the attempt in flight.

use super::generation::{Generation, Slot};
use crate::config::HeaderRules;
use crate::limits::VISITS_MAX;
use crate::net::clock;
use crate::observe::labels::{AttemptOutcome, RetryReason};
use crate::policy::exchange::{Action, Event, Exchange, Facts, Occasion};
use crate::policy::retry::{Cause, Sent};
use crate::policy::verdict::speaks_against;
use crate::policy::visited::Visited;
use crate::units::{ClusterId, EndpointId, Instant, RouteId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The attempts of one request.
pub(super) struct Attempts<'w> {
    worker: &'w Rc<Generation>,
    route: RouteId,
    cluster: Cell<ClusterId>,
    /// How often it was changed.
    moves: Cell<u8>,
    /// Something of the request may have reached an endpoint.
    has_reached: Cell<bool>,
    exchange: RefCell<Exchange>,
    /// The time that endpoints take says something about the route.
    measures: bool,
    /// The route allows no retries.
    strict: bool,
    current: Cell<Option<Current>>,
    slot: RefCell<Option<Slot>>,
    upstream_time: Cell<Option<Duration>>,
    outcomes: Cell<Outcomes>,
}

/// How the attempts that are over have ended, in order; kept for the access log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcomes {
    list: [AttemptOutcome; VISITS_MAX],
    len: u8,
}

impl Outcomes {
    /// None is over yet.
    pub(super) const NONE: Self = Self { list: [AttemptOutcome::Cancelled; VISITS_MAX], len: 0 };

    fn push(&mut self, outcome: AttemptOutcome) {
        if let Some(next) = self.list.get_mut(usize::from(self.len)) {
            *next = outcome;
            self.len += 1;
        }
    }

    pub(super) fn as_slice(&self) -> &[AttemptOutcome] {
        &self.list[..usize::from(self.len)]
    }
}

/// The attempt in flight.
#[derive(Clone, Copy, Debug)]
struct Current {
    endpoint: EndpointId,
    began: Instant,
    /// Once there is a head.
    answered: Option<(AttemptOutcome, Duration)>,
}

/// What a request brings to its attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Brings {
    pub(super) route: RouteId,
    pub(super) cluster: ClusterId,
    pub(super) idempotent: bool,
    /// The body, as far as its head tells, can be kept.
    pub(super) replayable: bool,
    pub(super) hash: Option<u64>,
    /// The endpoint of its session.
    pub(super) session: Option<EndpointId>,
    pub(super) arrived: Instant,
    /// What its client allows for it.
    pub(super) timeout: Option<Duration>,
    /// It is a stream as long as its client goes on with it, and T_max waits for its end.
    pub(super) is_open: bool,
}

impl<'w> Attempts<'w> {
    pub(super) fn new(worker: &'w Rc<Generation>, brings: Brings) -> Self {
        let Brings { route, cluster, idempotent, replayable, hash: key, session, arrived, timeout, is_open } = brings;
        let facts = {
            let mut route = worker.route(route).borrow_mut();
            Facts {
                deadline: match is_open {
                    true => route.deadline.start_open(timeout, arrived),
                    false => route.deadline.start(timeout, arrived),
                },
                retry: Rc::clone(&route.retry),
                idempotent,
                replayable,
                session,
                key,
                try_time: route.try_time.get(brings.route, &worker.shared.try_times, arrived),
            }
        };
        Self::with(worker, (route, cluster), facts, true)
    }

    /// Those of a question about a request of this route, whose times are none of the route's.
    pub(super) fn of_question(worker: &'w Rc<Generation>, route: RouteId, cluster: ClusterId, facts: Facts) -> Self {
        Self::with(worker, (route, cluster), facts, false)
    }

    fn with(worker: &'w Rc<Generation>, (route, cluster): (RouteId, ClusterId), facts: Facts, measures: bool) -> Self {
        worker.count_active(cluster, 1);
        let strict = facts.retry.retries_max == 0;
        Self {
            worker,
            route,
            cluster: Cell::new(cluster),
            moves: Cell::new(0),
            has_reached: Cell::new(false),
            exchange: RefCell::new(Exchange::new(facts)),
            measures,
            strict,
            current: Cell::new(None),
            slot: RefCell::new(None),
            upstream_time: Cell::new(None),
            outcomes: Cell::new(Outcomes::NONE),
        }
    }

    pub(super) fn route(&self) -> RouteId {
        self.route
    }

    pub(super) fn cluster(&self) -> ClusterId {
        self.cluster.get()
    }

    /// The request goes on to another cluster, of which it has met nobody.
    pub(super) fn move_to(&self, cluster: ClusterId) {
        self.worker.count_active(self.cluster.replace(cluster), -1);
        self.worker.count_active(cluster, 1);
        self.moves.set(self.moves.get() + 1);
        let exchange = self.exchange.borrow().elsewhere();
        self.exchange.replace(exchange);
        self.outcomes.set(Outcomes::NONE);
    }

    /// How often it has.
    pub(super) fn moves(&self) -> u8 {
        self.moves.get()
    }

    /// Whether an endpoint may have seen something of it.
    pub(super) fn has_reached(&self) -> bool {
        self.has_reached.get()
    }

    /// The route's rules for what goes up.
    pub(super) fn request_rules(&self) -> &HeaderRules {
        &self.worker.shared.config.routes[self.route.index()].request_headers
    }

    /// Endpoints attempted, in order.
    pub(super) fn tried(&self) -> Visited {
        let mut tried = Visited::EMPTY;
        self.exchange.borrow().tried().iter().for_each(|endpoint| {
            tried.push(*endpoint);
        });
        tried
    }

    /// How they ended, but for one that is under way.
    pub(super) fn outcomes(&self) -> Outcomes {
        self.outcomes.get()
    }

    /// From the start of the last attempt to its response head.
    pub(super) fn upstream_time(&self) -> Option<Duration> {
        self.upstream_time.get()
    }

    /// The body has outgrown what is kept: this attempt is the last one that can send it.
    pub(super) fn forbid_replay(&self) {
        self.exchange.borrow_mut().forbid_replay();
    }

    /// The request is whole, which T_max may have waited for.
    pub(super) fn begin_deadline(&self, now: Instant) {
        self.exchange.borrow_mut().begin_deadline(now);
    }

    /// Whether the route allows no retries, of whatever kind.
    pub(super) fn are_strict(&self) -> bool {
        self.strict
    }

    /// Whether a response that breaks before a byte of it was passed on could be had elsewhere.
    pub(super) fn may_replace_answer(&self) -> bool {
        self.exchange.borrow().may_replace_answer()
    }

    /// The attempt in flight has met a pooled connection that was closed. `tried`: it goes on with a new one, and the endpoint may have
    /// read the request on the old one, which was a try too.
    pub(super) fn on_stale(&self, tried: bool, now: Instant) {
        self.worker.recorder.stale_connection(self.cluster.get());
        if let Some(Current { endpoint, began, .. }) = self.current.get().filter(|_| tried) {
            self.worker.recorder.attempt(self.cluster.get(), endpoint, AttemptOutcome::Stale, now.since(began));
        }
    }

    /// T_max.
    pub(super) fn deadline(&self) -> Instant {
        self.exchange.borrow().deadline().at
    }

    /// T_max as a duration.
    pub(super) fn time(&self) -> Duration {
        self.exchange.borrow().deadline().total
    }

    /// Tells what happened and asks what is next.
    pub(super) fn step(&self, event: Event, now: Instant) -> Action {
        match event {
            Event::Head { status, .. } => self.on_head(status.is_server_error(), now),
            Event::Code { code, .. } => self.on_head(self.speaks_against(code), now),
            Event::BadHead(_) | Event::TimedOut => self.has_reached.set(true),
            Event::ResetBeforeHead { sent, .. } | Event::Overslept { sent } if sent != Sent::Nothing => {
                self.has_reached.set(true);
            }
            _ => {}
        }
        let mut action = self.decide(event, now);
        // an endpoint that is full over all cores is only found out by asking for a place there
        while let Action::Attempt { endpoint, .. } = action {
            if let Ok(slot) = self.worker.enter_endpoint(self.cluster.get(), endpoint) {
                self.count_end(event, now);
                self.enter(endpoint, slot, now);
                return action;
            }
            action = self.decide(Event::Saturated, now);
        }
        if action != Action::Relay {
            self.count_end(event, now);
            self.hold(None);
        }
        if matches!(event, Event::TimedOut | Event::ConnectTimedOut) && matches!(action, Action::Reply(_)) {
            self.on_latency(self.exchange.borrow().deadline().total, now);
        }
        action
    }

    fn decide(&self, event: Event, now: Instant) -> Action {
        let worker = self.worker;
        let mut exchange = self.exchange.borrow_mut();
        let budget_stopped = exchange.was_stopped_by_budget();
        let mut cluster = worker.cluster(self.cluster.get()).borrow_mut();
        let action = exchange.step(event, &mut cluster, now, &mut worker.rng.borrow_mut());
        worker.tell_changes(self.cluster.get(), &mut cluster);
        if exchange.was_stopped_by_budget() && !budget_stopped {
            worker.recorder.retry_budget_exhausted(self.cluster.get());
            worker.complain_of_budget(self.cluster.get(), now);
        }
        action
    }

    /// The attempt that was asked for is being made, and counted as what it is.
    fn enter(&self, endpoint: EndpointId, slot: Option<Slot>, now: Instant) {
        self.hold(slot);
        self.current.set(Some(Current { endpoint, began: now, answered: None }));
        let mut exchange = self.exchange.borrow_mut();
        let recorder = &self.worker.recorder;
        match exchange.occasion() {
            Occasion::First => return,
            Occasion::Failover => recorder.failover(self.cluster.get()),
            Occasion::Retry(cause) => recorder.retry(self.cluster.get(), retry_reason(cause)),
        }
        exchange.on_entered(&mut self.worker.cluster(self.cluster.get()).borrow_mut(), now);
    }

    /// Holds this place at an endpoint and no other; few have any.
    fn hold(&self, slot: Option<Slot>) {
        let mut held = self.slot.borrow_mut();
        if held.is_some() || slot.is_some() {
            *held = slot;
        }
    }

    fn on_head(&self, failed: bool, now: Instant) {
        self.has_reached.set(true);
        let Some(mut current) = self.current.get() else { return };
        let elapsed = now.since(current.began);
        let outcome = if failed { AttemptOutcome::ErrorStatus } else { AttemptOutcome::Success };
        current.answered = Some((outcome, elapsed));
        self.current.set(Some(current));
        self.upstream_time.set(Some(elapsed));
        self.on_latency(elapsed, now);
        if !self.measures {
            return;
        }
        let mut route = self.worker.route(self.route).borrow_mut();
        // where it is asked for, and only there: it is a kilobyte for each route
        if !failed && route.retry.per_try_timeout.is_none() && route.retry.retries_max > 0 {
            route.try_time.on_answer(elapsed, self.route, &self.worker.shared.try_times, now);
        }
    }

    fn speaks_against(&self, code: u8) -> bool {
        speaks_against(code, self.exchange.borrow().deadline().shortened)
    }

    fn on_latency(&self, latency: Duration, now: Instant) {
        if !self.measures {
            return;
        }
        self.worker.route(self.route).borrow_mut().deadline.on_latency(latency, now);
    }

    fn count_end(&self, event: Event, now: Instant) {
        let Some(Current { endpoint, began, answered }) = self.current.take() else { return };
        let (outcome, elapsed) = match (event, answered) {
            // the client was cut off, and not the endpoint's fault
            (Event::Overslept { .. }, _) => (AttemptOutcome::Cancelled, now.since(began)),
            (Event::BodyFailed | Event::TimedOut | Event::AnswerBroken { .. }, Some((_, elapsed))) => {
                (AttemptOutcome::Truncated, elapsed)
            }
            (Event::BodyDoneWith { code }, Some((_, elapsed))) if self.speaks_against(code) => {
                (AttemptOutcome::ErrorStatus, elapsed)
            }
            (_, Some(answered)) => answered,
            (Event::Exhausted, None) => (AttemptOutcome::Exhausted, now.since(began)),
            (Event::ConnectFailed, None) => (AttemptOutcome::ConnectFailed, now.since(began)),
            (Event::ConnectTimedOut, None) => (AttemptOutcome::ConnectTimeout, now.since(began)),
            (Event::TimedOut, None) => (AttemptOutcome::Timeout, now.since(began)),
            (Event::BadHead(_) | Event::NoStreams | Event::NotSpoken, None) => {
                (AttemptOutcome::Protocol, now.since(began))
            }
            (Event::ResetBeforeHead { .. }, None) => (AttemptOutcome::Reset, now.since(began)),
            (_, None) => (AttemptOutcome::Cancelled, now.since(began)),
        };
        self.worker.recorder.attempt(self.cluster.get(), endpoint, outcome, elapsed);
        if self.worker.log.is_some() {
            let mut outcomes = self.outcomes.get();
            outcomes.push(outcome);
            self.outcomes.set(outcomes);
        }
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        if !self.exchange.borrow().is_over() {
            self.step(Event::DownstreamGone, clock::now());
        }
        self.worker.count_active(self.cluster.get(), -1);
    }
}

fn retry_reason(cause: Cause) -> RetryReason {
    match cause {
        Cause::Connect => RetryReason::Connect,
        Cause::Reset => RetryReason::Reset,
        Cause::Timeout => RetryReason::Timeout,
        Cause::Status(_) | Cause::Code(_) => RetryReason::Status,
    }
}
