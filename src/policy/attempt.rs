//! The words in which an exchange and its cluster talk about one attempt.
//!
//! Plain values without behaviour; the rules are in [`crate::policy::cluster`] and [`crate::policy::exchange`].

use crate::policy::outlier::{Evidence, Reason};
use crate::policy::visited::Visited;
use crate::units::{EndpointId, Instant};

/// What a request asks of its cluster.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Endpoints that it must not meet again.
    pub tried: &'a [EndpointId],
    /// Endpoints that were found full, over all cores.
    pub refused: &'a Visited,
    /// The endpoint that its session has met, which is asked first if it is available.
    pub session: Option<EndpointId>,
    /// What the hash strategies hash; without it they draw.
    pub key: Option<u64>,
    /// Whether it may probe an endpoint: with its first attempt only, or one request would pay for all endpoints that are due.
    pub probes: bool,
    /// Whether a failure could be retried: such requests probe endpoints first.
    pub expendable: bool,
    /// T_max of the request.
    pub deadline: Instant,
}

/// Why no endpoint took a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Every endpoint that could was tried by this request, or is known to be dead.
    Tried,
    /// Some were not tried, but all of those are at their limit of requests.
    Full,
    /// The cluster has no endpoint of positive weight.
    Nothing,
}

/// On which terms an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// The endpoint was available, or shunned and nobody else was left.
    Usual,
    /// The one probe after an ejection.
    Probe {
        /// When its slot frees itself.
        lease: Instant,
    },
    /// The endpoint was put aside or is called down by its checks, and all others have failed this request or there are none.
    LastResort,
}

/// The receipt for one attempt in flight.
#[derive(Debug)]
#[must_use = "an attempt that is not ended stays in flight"]
pub struct Attempt {
    /// Where it goes.
    pub endpoint: EndpointId,
    /// On which terms.
    pub terms: Terms,
    /// When it began.
    pub began: Instant,
}

/// Something happened to an endpoint that metrics and logs want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub endpoint: EndpointId,
    /// When.
    pub at: Instant,
    /// What.
    pub kind: ChangeKind,
}

/// What happened to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Put aside.
    Ejected {
        /// Why.
        reason: Reason,
        /// On which evidence.
        evidence: Evidence,
        /// Until it is probed.
        until: Instant,
    },
    /// Not put aside, because the cap on soft evidence forbids it; shunned instead, or shunned already.
    EjectionRefused {
        /// Why it would have been.
        reason: Reason,
    },
    /// Picked only when nobody else is left.
    Shunned {
        /// Why.
        reason: Reason,
        /// Until then at most.
        until: Instant,
    },
    /// Left alone because it asked for it (Retry-After).
    Paused {
        /// Until then; a longer wish that follows is not told again.
        until: Instant,
    },
    /// Back.
    Readmitted {
        /// Why.
        by: Readmission,
    },
    /// By active checks.
    Unhealthy,
    /// By active checks.
    Healthy,
}

/// What brought an endpoint back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Readmission {
    /// The probe after its ejection succeeded.
    Probe,
    /// It answered a request that nobody else could answer.
    LastResort,
    /// Active checks call it healthy again.
    HealthCheck,
    /// The time for which it was paused or shunned is over.
    Time,
    /// It was shunned and has answered well, or those it was worse than were no better.
    Answers,
}
