//! What a worker tells others unasked: the operator's log through the control thread, and what it thinks of its endpoints.
//!
//! A report is sent without waiting and may be lost; what it says is in the metrics too. Nothing here is on a request's path: endpoints
//! change seldom, and complaints about connections are rationed.

use super::generation::Generation;
use crate::limits::SHUNNED_MIN;
use crate::net::clock;
use crate::observe::labels::{EjectReason, EndpointState, ReadmitReason};
use crate::observe::recorder::EndpointGauges;
use crate::policy::attempt::{Change, ChangeKind, Readmission};
use crate::policy::cluster::Cluster;
use crate::policy::endpoint::Endpoint;
use crate::policy::outlier::Reason;
use crate::policy::standings::Standing;
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, Ratio, WorkerId};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// How long a worker is silent about connections that are not taken once it has said so, for each reason.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// What a worker has noticed, for the operator's log.
#[derive(Clone, Copy, Debug)]
pub enum Report {
    /// Something has changed about an endpoint.
    Endpoint {
        /// Who noticed.
        worker: WorkerId,
        /// The cluster.
        cluster: ClusterId,
        /// The endpoint in it.
        endpoint: EndpointId,
        /// What.
        change: ChangeKind,
    },
    /// A request was not retried because the cluster's retry budget is spent. Each worker says so at most every ten seconds.
    BudgetExhausted {
        /// Who noticed.
        worker: WorkerId,
        /// Whose budget.
        cluster: ClusterId,
    },
    /// Connections are not taken. Each worker says so at most every ten seconds, however many there are.
    Refusing {
        /// Who refuses.
        worker: WorkerId,
        /// Where.
        listener: ListenerId,
        /// Why.
        refusal: Refusal,
    },
}

/// Why connections are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The listener has its `max_connections`; what comes is closed.
    ConnectionsMax,
    /// All listeners together have as many connections as descriptors allow.
    Descriptors,
    /// accept(2) fails with this `errno`, for want of descriptors or memory; what comes waits in the kernel's queue.
    Exhausted(i32),
    /// The event loop could not take them, with this `errno`, for want of memory or of epoll watches; what comes is closed.
    Unwatched(i32),
}

/// When each kind of complaint may be made again.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    refused: Cell<Instant>,
    descriptors: Cell<Instant>,
    exhausted: Cell<Instant>,
    budgets: RefCell<FxHashMap<ClusterId, Instant>>,
    shunned: RefCell<FxHashMap<(ClusterId, EndpointId), Instant>>,
}

impl Complaints {
    /// Whether this one may be made now; it is taken as made.
    fn admit(&self, refusal: Refusal, now: Instant) -> bool {
        let quiet_until = match refusal {
            Refusal::ConnectionsMax => &self.refused,
            Refusal::Descriptors => &self.descriptors,
            Refusal::Exhausted(_) | Refusal::Unwatched(_) => &self.exhausted,
        };
        let admitted = now >= quiet_until.get();
        if admitted {
            quiet_until.set(now + COMPLAINT_PAUSE);
        }
        admitted
    }
}

impl Generation {
    /// Has the operator told why connections are not taken, now and then: clients see it long before anybody reads the metrics.
    pub(super) fn complain(&self, listener: ListenerId, refusal: Refusal) {
        if self.complaints.admit(refusal, clock::now()) {
            let worker = self.life.worker();
            self.report(&self.shared.config, Report::Refusing { worker, listener, refusal });
        }
    }

    /// Has the operator told that a cluster's retry budget is spent, now and then.
    pub(super) fn complain_of_budget(&self, cluster: ClusterId, now: Instant) {
        let mut budgets = self.complaints.budgets.borrow_mut();
        let quiet_until = budgets.entry(cluster).or_default();
        if now >= *quiet_until {
            *quiet_until = now + COMPLAINT_PAUSE;
            self.report(&self.shared.config, Report::BudgetExhausted { worker: self.life.worker(), cluster });
        }
    }

    /// Counts what has happened to endpoints, and has the operator told.
    pub(super) fn tell_changes(&self, id: ClusterId, cluster: &mut Cluster) {
        for Change { endpoint, kind, .. } in cluster.take_changes() {
            let recorder = &self.recorder;
            match kind {
                ChangeKind::Ejected { reason, .. } => recorder.ejected(id, endpoint, eject_reason(reason)),
                ChangeKind::Paused { .. } => recorder.ejected(id, endpoint, EjectReason::RetryAfter),
                ChangeKind::EjectionRefused { reason } => {
                    recorder.ejection_refused(id, endpoint, eject_reason(reason));
                }
                ChangeKind::Shunned { reason, .. } => recorder.shunned(id, endpoint, eject_reason(reason)),
                ChangeKind::Readmitted { by } => recorder.readmitted(id, endpoint, readmit_reason(by)),
                // each worker is told of both by the checks, which count them
                ChangeKind::Unhealthy | ChangeKind::Healthy => {}
            }
            if self.is_worth_a_line(id, endpoint, kind) {
                let worker = self.life.worker();
                self.report(&self.shared.config, Report::Endpoint { worker, cluster: id, endpoint, change: kind });
            }
        }
    }

    /// An endpoint that fails now and then is shunned and back again and again: the metrics count that, the log says it now and then.
    fn is_worth_a_line(&self, cluster: ClusterId, endpoint: EndpointId, change: ChangeKind) -> bool {
        let begins = match change {
            ChangeKind::EjectionRefused { .. } => true,
            ChangeKind::Shunned { .. } | ChangeKind::Readmitted { by: Readmission::Answers } => false,
            _ => return true,
        };
        let now = clock::now();
        let mut shunned = self.complaints.shunned.borrow_mut();
        let since = shunned.entry((cluster, endpoint)).or_default();
        let is_due = now.since(*since) >= COMPLAINT_PAUSE;
        if begins && is_due {
            *since = now;
        }
        // what belongs to a line that was written is written too
        is_due || (!begins && now.since(*since) <= SHUNNED_MIN)
    }

    /// Publishes what this worker thinks of every endpoint.
    pub(super) fn publish_endpoints(&self, now: Instant) {
        for (cluster, state) in self.each_cluster() {
            let mut state = state.borrow_mut();
            // also where nobody asks: what time and other workers have changed
            state.refresh(now);
            self.tell_changes(cluster, &mut state);
            for (index, endpoint) in state.endpoints().iter().enumerate() {
                let (state, ejected_until) = endpoint_state(endpoint, now);
                let gauges = EndpointGauges {
                    state,
                    ejected_until,
                    in_flight: endpoint.in_flight,
                    availability: Ratio::try_new(f64::from(endpoint.availability.get(now))).unwrap_or(Ratio::ONE),
                };
                let id = EndpointId::from_index(index);
                self.recorder.publish_endpoint(cluster, id, &gauges);
            }
        }
    }
}

/// The word of the metrics for why an endpoint was put aside; the log says the same.
#[must_use]
pub fn eject_reason(reason: Reason) -> EjectReason {
    match reason {
        Reason::Consecutive => EjectReason::Consecutive,
        Reason::SuccessRatio => EjectReason::SuccessRatio,
        Reason::Probe => EjectReason::ProbeFailed,
        Reason::RetryAfter => EjectReason::RetryAfter,
    }
}

/// The word of the metrics for what brought an endpoint back; the log says the same.
#[must_use]
pub fn readmit_reason(by: Readmission) -> ReadmitReason {
    match by {
        Readmission::Probe => ReadmitReason::Probe,
        Readmission::LastResort => ReadmitReason::LastResort,
        Readmission::HealthCheck => ReadmitReason::HealthCheck,
        Readmission::Time => ReadmitReason::Time,
        Readmission::Answers => ReadmitReason::Answers,
    }
}

fn endpoint_state(endpoint: &Endpoint, now: Instant) -> (EndpointState, Instant) {
    match endpoint.standing {
        _ if endpoint.weight == 0 => (EndpointState::Drained, Instant::default()),
        _ if !endpoint.healthy => (EndpointState::Unhealthy, Instant::default()),
        Standing::Ejected { due, .. } => (EndpointState::Ejected, due),
        Standing::Probing { .. } => (EndpointState::Probing, Instant::default()),
        Standing::Paused { until } if until > now => (EndpointState::Paused, until),
        Standing::Shunned { until } => (EndpointState::Shunned, until),
        Standing::Serving if endpoint.ramp_from.is_some() => (EndpointState::Ramping, Instant::default()),
        Standing::Serving | Standing::Paused { .. } => (EndpointState::Available, Instant::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_complaint_is_made_at_most_every_ten_seconds() {
        let (complaints, second) = (Complaints::default(), Duration::from_secs(1));
        let start = Instant::from_nanos(1);
        assert!(complaints.admit(Refusal::ConnectionsMax, start));
        assert!(!complaints.admit(Refusal::ConnectionsMax, start + 9 * second));
        assert!(complaints.admit(Refusal::Exhausted(24), start + 9 * second), "another kind");
        assert!(complaints.admit(Refusal::ConnectionsMax, start + 10 * second));
        assert!(!complaints.admit(Refusal::Exhausted(23), start + 18 * second), "the same kind");
    }

    #[test]
    fn an_endpoint_s_state_is_the_first_thing_that_keeps_traffic_from_it() {
        let (now, until) = (Instant::from_nanos(5), Instant::from_nanos(9));
        let mut endpoint = Endpoint::new(1, 0, 7);
        assert_eq!(endpoint_state(&endpoint, now).0, EndpointState::Available);
        endpoint.ramp_from = Some(now);
        assert_eq!(endpoint_state(&endpoint, now).0, EndpointState::Ramping);
        endpoint.standing = Standing::Paused { until };
        assert_eq!(endpoint_state(&endpoint, now), (EndpointState::Paused, until));
        endpoint.standing = Standing::Shunned { until };
        assert_eq!(endpoint_state(&endpoint, now), (EndpointState::Shunned, until));
        endpoint.healthy = false;
        assert_eq!(endpoint_state(&endpoint, now).0, EndpointState::Unhealthy);
        endpoint.weight = 0;
        assert_eq!(endpoint_state(&endpoint, now).0, EndpointState::Drained);
    }
}
