//! What a worker tells others unasked, for the operator's log through the control thread.
//!
//! A report is sent without waiting and may be lost; what it says is in the metrics too. Nothing here is on a request's path: endpoints
//! change seldom, and complaints about connections are rationed.

use crate::observe::labels::{EjectReason, HandshakeFailure, Http2Failure, ReadmitReason};
use crate::policy::attempt::{ChangeKind, Readmission};
use crate::policy::outlier::Reason;
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, WorkerId};
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// How long a worker is silent about connections that are not taken once it has said so, for each reason.
pub(super) const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

/// What a worker has noticed, for the operator's log.
#[derive(Clone, Debug)]
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
    /// There is no TLS session with an endpoint. Each worker says so at most every ten seconds, of each.
    Handshake {
        /// Who noticed.
        worker: WorkerId,
        /// The cluster.
        cluster: ClusterId,
        /// The endpoint in it.
        endpoint: EndpointId,
        /// Why, in a word.
        reason: HandshakeFailure,
        /// The same in full.
        why: Box<str>,
    },
    /// An endpoint has done something to a connection of HTTP/2 that many requests share. Each worker says so at most every ten seconds, of each
    /// and for each reason.
    Http2 {
        /// Who noticed.
        worker: WorkerId,
        /// The cluster.
        cluster: ClusterId,
        /// The endpoint in it.
        endpoint: EndpointId,
        /// What.
        reason: Http2Failure,
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
    pub(super) budgets: RefCell<FxHashMap<ClusterId, Instant>>,
    pub(super) handshakes: RefCell<FxHashMap<(ClusterId, EndpointId), Instant>>,
    pub(super) http2_failures: RefCell<FxHashMap<(ClusterId, EndpointId, Http2Failure), Instant>>,
    pub(super) shunned: RefCell<FxHashMap<(ClusterId, EndpointId), Instant>>,
}

impl Complaints {
    /// Whether this one may be made now; it is taken as made.
    pub(super) fn admit(&self, refusal: Refusal, now: Instant) -> bool {
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
}
