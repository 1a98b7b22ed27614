//! The words in which an exchange and its cluster talk about one attempt.
//!
//! Plain values without behaviour; the rules are in [`crate::policy::cluster`] and [`crate::policy::exchange`].

use crate::policy::outlier::Reason;
use crate::policy::visited::Visited;
use crate::units::{EndpointId, Instant};

/// What a request asks of its cluster.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Endpoints that it must not meet again.
    pub tried: &'a [EndpointId],
    /// Endpoints that were found full, over all cores.
    pub refused: &'a Visited,
    /// What the hash strategies hash; without it they draw.
    pub key: Option<u64>,
    /// Whether a failure could be retried: such requests probe endpoints first.
    pub expendable: bool,
    /// T_max of the request.
    pub deadline: Instant,
}

/// Why no endpoint took a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// Every endpoint that could was tried by this request.
    Tried,
    /// Some were not tried, but all of those are at their limit of requests.
    Full,
    /// The cluster has no endpoint of positive weight.
    Nothing,
}

/// On which terms an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// The endpoint was available.
    Usual,
    /// The one probe after an ejection.
    Probe {
        /// When its slot frees itself.
        lease: Instant,
    },
    /// No endpoint was available.
    FailOpen,
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
        /// Until it is probed.
        until: Instant,
    },
    /// Left alone because it asked for it (Retry-After).
    Paused {
        /// Until then; a longer wish that follows is not told again.
        until: Instant,
    },
    /// Back, on its ramp.
    Readmitted,
    /// By active checks.
    Unhealthy,
    /// By active checks.
    Healthy,
}
