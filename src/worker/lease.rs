//! A way to an endpoint, for one request: a connection that is all the request's until it is given back, or a stream of one that many share.
//!
//! What the line does with one is in the stream; who else uses the connection, and what becomes of it after the response, is in here.

use super::attempt::Attempt;
use super::failure::Failure;
use super::generation::Generation;
use super::tunnel::Coding;
use super::up::links::Share;
use crate::net::stream::Stream;
use crate::net::upstream::Upstream;
use crate::units::Instant;
use std::time::Duration;

/// A connection to the endpoint of an attempt. Dropped, it is closed; of a shared one the stream is reset.
pub(super) enum Lease {
    /// All of one.
    Whole {
        /// It.
        upstream: Upstream,
        /// It has carried requests before.
        is_reused: bool,
    },
    /// A stream of one.
    Shared(Share),
}

impl Lease {
    /// One that was in the pool.
    pub(super) fn pooled(upstream: Upstream) -> Self {
        Self::Whole { upstream, is_reused: true }
    }

    /// A connection that has just been made.
    pub(super) fn new(stream: Stream) -> Self {
        Self::Whole { upstream: Upstream::new(stream), is_reused: false }
    }

    /// What the request is sent on and its response received from.
    pub(super) fn upstream(&self) -> &Upstream {
        match self {
            Self::Whole { upstream, .. } => upstream,
            Self::Shared(share) => share.upstream(),
        }
    }

    /// How the bytes of a tunnel go up.
    pub(super) fn coding(&self) -> Coding {
        match self {
            Self::Whole { .. } => Coding::Bare,
            Self::Shared(_) => Coding::Chunks,
        }
    }

    /// Whether it has carried requests before, and may have been closed just when this one came.
    pub(super) fn is_reused(&self) -> bool {
        matches!(self, Self::Whole { is_reused: true, .. })
    }

    /// What its connection knows of its end, if that is more than the end itself says.
    pub(super) fn told(&self) -> Option<Failure> {
        match self {
            Self::Whole { .. } => None,
            Self::Shared(share) => share.told(),
        }
    }

    /// Ends it in good order: the endpoint keeps the connection for so long.
    pub(super) fn checkin(self, worker: &Generation, attempt: &Attempt, keep: Duration, now: Instant) {
        match self {
            Self::Whole { upstream, .. } => worker.checkin(attempt.cluster, attempt.endpoint, upstream, keep, now),
            Self::Shared(share) => share.finish(),
        }
    }
}
