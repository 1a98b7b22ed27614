//! What a worker tells others unasked: the operator's log through the control thread, and what it thinks of its endpoints.
//!
//! A report is sent without waiting and may be lost; what it says is in the metrics too. Nothing here is on a request's path: endpoints
//! change seldom, and complaints about connections are rationed.

use super::state::Worker;
use crate::net::clock;
use crate::observe::labels::EndpointState;
use crate::observe::recorder::EndpointGauges;
use crate::policy::attempt::ChangeKind;
use crate::policy::endpoint::Endpoint;
use crate::policy::outlier::Standing;
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, Ratio, WorkerId};
use std::cell::Cell;
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
    /// accept(2) fails with this `errno`, for want of descriptors or memory; what comes waits in the kernel's queue.
    Exhausted(i32),
}

/// When each kind of complaint may be made again.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    refused: Cell<Instant>,
    exhausted: Cell<Instant>,
}

impl Complaints {
    /// Whether this one may be made now; it is taken as made.
    fn admit(&self, refusal: Refusal, now: Instant) -> bool {
        let quiet_until = match refusal {
            Refusal::ConnectionsMax => &self.refused,
            Refusal::Exhausted(_) => &self.exhausted,
        };
        let admitted = now >= quiet_until.get();
        if admitted {
            quiet_until.set(now + COMPLAINT_PAUSE);
        }
        admitted
    }
}

impl Worker {
    /// Has the operator told why connections are not taken, now and then: clients see it long before anybody reads the metrics.
    pub(super) fn complain(&self, listener: ListenerId, refusal: Refusal) {
        if self.complaints.admit(refusal, clock::now()) {
            let worker = self.recorder.worker();
            self.shared.report(Report::Refusing { worker, listener, refusal });
        }
    }

    /// Publishes what this worker thinks of every endpoint.
    pub(super) fn publish_endpoints(&self, now: Instant) {
        for (cluster, state) in self.clusters.borrow().iter().enumerate() {
            for (index, endpoint) in state.endpoints().iter().enumerate() {
                let (state, ejected_until) = endpoint_state(endpoint, now);
                let gauges = EndpointGauges {
                    state,
                    ejected_until,
                    in_flight: endpoint.in_flight,
                    availability: Ratio::try_new(f64::from(endpoint.availability.get(now))).unwrap_or(Ratio::ONE),
                };
                let id = EndpointId::from_index(index);
                self.recorder.publish_endpoint(ClusterId::from_index(cluster), id, &gauges);
            }
        }
    }
}

fn endpoint_state(endpoint: &Endpoint, now: Instant) -> (EndpointState, Instant) {
    match endpoint.outlier.standing() {
        _ if endpoint.weight == 0 => (EndpointState::Drained, Instant::default()),
        _ if !endpoint.healthy => (EndpointState::Unhealthy, Instant::default()),
        Standing::Ejected { until } => (EndpointState::Ejected, until),
        Standing::Ready { since } => (EndpointState::Ejected, since),
        Standing::Probing { .. } => (EndpointState::Probing, Instant::default()),
        Standing::Serving if endpoint.penalised_until > now => (EndpointState::Paused, endpoint.penalised_until),
        Standing::Serving if endpoint.ramp_from.is_some() => (EndpointState::Ramping, Instant::default()),
        Standing::Serving => (EndpointState::Available, Instant::default()),
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
        endpoint.penalised_until = until;
        assert_eq!(endpoint_state(&endpoint, now), (EndpointState::Paused, until));
        assert_eq!(endpoint_state(&endpoint, until).0, EndpointState::Ramping, "the pause is over");
        endpoint.healthy = false;
        assert_eq!(endpoint_state(&endpoint, now).0, EndpointState::Unhealthy);
        endpoint.weight = 0;
        assert_eq!(endpoint_state(&endpoint, now).0, EndpointState::Drained);
    }
}
