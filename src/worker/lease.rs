//! A way to an endpoint, for one request: a connection that is all the request's until it is given back.
//!
//! What the line does with one is in the stream; who else uses the connection, and what becomes of it after the response, is in here.

use super::attempt::Attempt;
use super::generation::Generation;
use crate::net::stream::Stream;
use crate::net::upstream::Upstream;
use crate::units::Instant;
use std::time::Duration;

/// A connection to the endpoint of an attempt. Dropped, it is closed.
pub(super) struct Lease {
    upstream: Upstream,
    is_reused: bool,
}

impl Lease {
    /// A pooled connection, if there is one.
    pub(super) fn checkout(worker: &Generation, attempt: &Attempt, now: Instant) -> Option<Self> {
        let upstream = worker.checkout(attempt.cluster, attempt.endpoint, now)?;
        Some(Self { upstream, is_reused: true })
    }

    /// A connection that has just been made.
    pub(super) fn new(stream: Stream) -> Self {
        Self { upstream: Upstream::new(stream), is_reused: false }
    }

    /// What the request is sent on and its response received from.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether it has carried requests before.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Ends it in good order: the endpoint keeps the connection for so long.
    pub(super) fn checkin(self, worker: &Generation, attempt: &Attempt, keep: Duration, now: Instant) {
        worker.checkin(attempt.cluster, attempt.endpoint, self.upstream, keep, now);
    }
}
