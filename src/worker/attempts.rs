//! `pick` and `classify`, as the line calls them: the policy's exchange with everything it needs and everything that counts it.
//!
//! The policy decides ([`crate::policy::exchange`]); this hands it the cluster, the clock and the generator, holds the endpoint's
//! place under `max_requests`, and writes down what happened. Dropping it, by whatever path, ends the attempt in flight.

use super::Report;
use super::state::{Slot, Worker};
use crate::config::HeaderRules;
use crate::net::clock;
use crate::observe::labels::{AttemptOutcome, EjectReason, RetryReason};
use crate::policy::attempt::ChangeKind;
use crate::policy::exchange::{Action, Event, Exchange, Facts};
use crate::policy::outlier::Reason;
use crate::policy::retry::Cause;
use crate::policy::visited::Visited;
use crate::units::{ClusterId, EndpointId, Instant, RouteId};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The attempts of one request.
pub(super) struct Attempts<'w> {
    worker: &'w Rc<Worker>,
    route: RouteId,
    cluster: ClusterId,
    exchange: RefCell<Exchange>,
    /// The route allows no retries.
    strict: bool,
    current: Cell<Option<Current>>,
    slot: RefCell<Option<Slot>>,
    upstream_time: Cell<Option<Duration>>,
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
    pub(super) arrived: Instant,
}

impl<'w> Attempts<'w> {
    pub(super) fn new(worker: &'w Rc<Worker>, brings: Brings) -> Self {
        let Brings { route, cluster, idempotent, replayable, hash: key, arrived } = brings;
        let facts = {
            let mut routes = worker.routes.borrow_mut();
            let route = &mut routes[route.index()];
            Facts {
                deadline: route.deadline.start(None, arrived),
                retry: Rc::clone(&route.retry),
                idempotent,
                replayable,
                key,
            }
        };
        worker.count_active(cluster, 1);
        let strict = facts.retry.retries_max == 0;
        Self {
            worker,
            route,
            cluster,
            exchange: RefCell::new(Exchange::new(facts)),
            strict,
            current: Cell::new(None),
            slot: RefCell::new(None),
            upstream_time: Cell::new(None),
        }
    }

    pub(super) fn cluster(&self) -> ClusterId {
        self.cluster
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

    /// From the start of the last attempt to its response head.
    pub(super) fn upstream_time(&self) -> Option<Duration> {
        self.upstream_time.get()
    }

    /// The body has outgrown what is kept: this attempt is the last one that can send it.
    pub(super) fn forbid_replay(&self) {
        self.exchange.borrow_mut().forbid_replay();
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
        self.worker.recorder.stale_connection(self.cluster);
        if let Some(Current { endpoint, began, .. }) = self.current.get().filter(|_| tried) {
            self.worker.recorder.attempt(self.cluster, endpoint, AttemptOutcome::Stale, now.since(began));
        }
    }

    /// T_max.
    pub(super) fn deadline(&self) -> Instant {
        self.exchange.borrow().deadline().at
    }

    /// Tells what happened and asks what is next.
    pub(super) fn step(&self, event: Event, now: Instant) -> Action {
        let mut action = self.decide(event, now);
        // an endpoint that is full over all cores is only found out by asking for a place there
        while let Action::Attempt { endpoint, .. } = action {
            if let Ok(slot) = self.worker.enter_endpoint(self.cluster, endpoint) {
                *self.slot.borrow_mut() = slot;
                self.current.set(Some(Current { endpoint, began: now, answered: None }));
                break;
            }
            action = self.decide(Event::Saturated, now);
        }
        action
    }

    fn decide(&self, event: Event, now: Instant) -> Action {
        let worker = self.worker;
        let mut exchange = self.exchange.borrow_mut();
        let budget_stopped = exchange.was_stopped_by_budget();
        let mut clusters = worker.clusters.borrow_mut();
        let cluster = &mut clusters[self.cluster.index()];
        let action = exchange.step(event, cluster, now, &mut worker.rng.borrow_mut());
        for change in cluster.take_changes() {
            self.count_change(change.endpoint, change.kind);
        }
        drop(clusters);
        if let Event::Head { status, .. } = event {
            self.on_head(status.is_server_error(), now);
        }
        if action != Action::Relay {
            self.count_end(event, now);
            self.slot.borrow_mut().take();
        }
        let retried = matches!(action, Action::Attempt { .. } | Action::Backoff { .. });
        if retried && let (Some(cause), true) = (exchange.retry_reason(), is_failure(event)) {
            worker.recorder.retry(self.cluster, retry_reason(cause));
        }
        if exchange.was_stopped_by_budget() && !budget_stopped {
            worker.recorder.retry_budget_exhausted(self.cluster);
        }
        if matches!(event, Event::TimedOut | Event::ConnectTimedOut) && matches!(action, Action::Reply(_)) {
            self.on_latency(exchange.deadline().total, now);
        }
        action
    }

    fn on_head(&self, failed: bool, now: Instant) {
        let Some(mut current) = self.current.get() else { return };
        let elapsed = now.since(current.began);
        let outcome = if failed { AttemptOutcome::ErrorStatus } else { AttemptOutcome::Success };
        current.answered = Some((outcome, elapsed));
        self.current.set(Some(current));
        self.upstream_time.set(Some(elapsed));
        self.on_latency(elapsed, now);
    }

    fn on_latency(&self, latency: Duration, now: Instant) {
        self.worker.routes.borrow_mut()[self.route.index()].deadline.on_latency(latency, now);
    }

    fn count_end(&self, event: Event, now: Instant) {
        let Some(Current { endpoint, began, answered }) = self.current.take() else { return };
        let (outcome, elapsed) = match (event, answered) {
            (Event::BodyFailed | Event::TimedOut | Event::AnswerBroken(_), Some((_, elapsed))) => {
                (AttemptOutcome::Truncated, elapsed)
            }
            (_, Some(answered)) => answered,
            (Event::ConnectFailed, None) => (AttemptOutcome::ConnectFailed, now.since(began)),
            (Event::ConnectTimedOut, None) => (AttemptOutcome::ConnectTimeout, now.since(began)),
            (Event::TimedOut, None) => (AttemptOutcome::Timeout, now.since(began)),
            (Event::BadHead(_), None) => (AttemptOutcome::Protocol, now.since(began)),
            (Event::ResetBeforeHead { .. }, None) => (AttemptOutcome::Reset, now.since(began)),
            (_, None) => (AttemptOutcome::Cancelled, now.since(began)),
        };
        self.worker.recorder.attempt(self.cluster, endpoint, outcome, elapsed);
    }

    fn count_change(&self, endpoint: EndpointId, kind: ChangeKind) {
        let (worker, cluster) = (self.worker.recorder.worker(), self.cluster);
        self.worker.shared.report(Report::Endpoint { worker, cluster, endpoint, change: kind });
        let reason = match kind {
            ChangeKind::Ejected { reason: Reason::Consecutive, .. } => EjectReason::Consecutive,
            ChangeKind::Ejected { reason: Reason::SuccessRatio, .. } => EjectReason::SuccessRatio,
            ChangeKind::Ejected { reason: Reason::Probe, .. } => EjectReason::ProbeFailed,
            ChangeKind::Paused { .. } => EjectReason::RetryAfter,
            ChangeKind::Readmitted | ChangeKind::Unhealthy | ChangeKind::Healthy => return,
        };
        self.worker.recorder.ejected(self.cluster, endpoint, reason);
    }
}

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        if !self.exchange.borrow().is_over() {
            self.step(Event::DownstreamGone, clock::now());
        }
        self.worker.count_active(self.cluster, -1);
    }
}

fn is_failure(event: Event) -> bool {
    !matches!(event, Event::Start | Event::Saturated | Event::BackoffOver)
}

fn retry_reason(cause: Cause) -> RetryReason {
    match cause {
        Cause::Connect => RetryReason::Connect,
        Cause::Reset => RetryReason::Reset,
        Cause::Timeout => RetryReason::Timeout,
        Cause::Status(_) => RetryReason::Status,
    }
}
