//! What a worker thinks of its endpoints, published and counted; and what it has the operator told, now and then.

use super::generation::Generation;
use super::report::{COMPLAINT_PAUSE, Refusal, Report, eject_reason, readmit_reason};
use crate::limits::SHUNNED_MIN;
use crate::net::clock;
use crate::observe::labels::{EjectReason, EndpointState, Http2Failure};
use crate::observe::recorder::EndpointGauges;
use crate::policy::attempt::{Change, ChangeKind, Readmission};
use crate::policy::cluster::Cluster;
use crate::policy::endpoint::Endpoint;
use crate::policy::standings::Standing;
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, Ratio};

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
    #[inline]
    pub(super) fn tell_changes(&self, id: ClusterId, cluster: &mut Cluster) {
        if cluster.has_changes() {
            self.tell_each(id, cluster);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_each(&self, id: ClusterId, cluster: &mut Cluster) {
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

    /// Counts what has happened to the shared connections of an endpoint, and has the operator told, now and then.
    fn tell_http2_failures(&self, cluster: ClusterId, endpoint: EndpointId, now: Instant) {
        let Some(links) = self.links(cluster) else { return };
        let failed = links.site(endpoint).take_failed();
        for (reason, times) in Http2Failure::ALL.iter().copied().zip(failed).filter(|(_, times)| *times > 0) {
            self.recorder.http2_failed(cluster, endpoint, reason, u64::from(times));
            let mut told = self.complaints.http2_failures.borrow_mut();
            let quiet_until = told.entry((cluster, endpoint, reason)).or_default();
            if now >= *quiet_until {
                *quiet_until = now + COMPLAINT_PAUSE;
                let worker = self.life.worker();
                self.report(&self.shared.config, Report::Http2 { worker, cluster, endpoint, reason });
            }
        }
    }

    /// Publishes what this worker thinks of every endpoint.
    pub(super) fn publish_endpoints(&self, now: Instant) {
        self.publish_endpoints_of(now, |_| true);
    }

    /// The same for some of the clusters.
    pub(super) fn publish_endpoints_of(&self, now: Instant, is_meant: impl Fn(ClusterId) -> bool) {
        for (cluster, state) in self.each_cluster().filter(|(cluster, _)| is_meant(*cluster)) {
            let mut state = state.borrow_mut();
            // also where nobody asks: what time and other workers have changed
            state.refresh(now);
            self.tell_changes(cluster, &mut state);
            for (index, endpoint) in state.endpoints().iter().enumerate() {
                let since_before = self.in_flight_since_before(cluster, endpoint.identity);
                let (state, ejected_until) = endpoint_state(endpoint, now);
                let gauges = EndpointGauges {
                    state,
                    ejected_until,
                    in_flight: endpoint.in_flight + since_before,
                    availability: Ratio::try_new(f64::from(endpoint.availability.get(now))).unwrap_or(Ratio::ONE),
                };
                let id = EndpointId::from_index(index);
                self.recorder.publish_endpoint(cluster, id, &gauges);
                self.tell_http2_failures(cluster, id, now);
            }
        }
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
