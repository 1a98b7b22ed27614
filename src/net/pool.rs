//! Idle upstream connections of one worker, by endpoint, last in first out.
//!
//! The one used last is the one whose state is still in the caches, and the least likely to have been closed by its server; the
//! surplus at the bottom ages and is reaped. A connection that has been idle for longer than [`FRESH`] is looked at before it
//! carries a request, because its server may have ended it meanwhile; a younger one is trusted, which saves the system call where
//! it would cost most. A request that must not be sent twice trusts none: if its connection breaks, it cannot be repeated.

use super::stream::Stream;
use crate::units::{EndpointId, Instant};
use std::time::Duration;

/// How long a connection is trusted without a look.
const FRESH: Duration = Duration::from_millis(1);
/// How much earlier than its server a connection is given up, which may have begun to count when it sent.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: Instant,
    until: Instant,
}

/// One cluster's idle connections.
#[derive(Debug)]
pub struct Pool {
    by_endpoint: Vec<Vec<Idle>>,
    idle: usize,
    idle_max: usize,
    idle_timeout: Duration,
}

impl Pool {
    /// For a cluster of `endpoints` endpoints, keeping at most `idle_max` connections, each for at most `idle_timeout`.
    #[must_use]
    pub fn new(endpoints: usize, idle_max: usize, idle_timeout: Duration) -> Self {
        Self { by_endpoint: (0..endpoints).map(|_| Vec::new()).collect(), idle: 0, idle_max, idle_timeout }
    }

    /// The connection to `endpoint` that was used last and is still good; without a look only for a `repeatable` request.
    pub fn checkout(&mut self, endpoint: EndpointId, repeatable: bool, now: Instant) -> Option<Stream> {
        let idle = &mut self.by_endpoint[endpoint.index()];
        while let Some(Idle { stream, since, until }) = idle.pop() {
            self.idle -= 1;
            if now < until && ((repeatable && now.since(since) < FRESH) || !stream.is_spent()) {
                return Some(stream);
            }
        }
        None
    }

    /// Takes a connection back, which its server keeps for `keep` (`Duration::MAX`: it did not say); one too many is closed, and so is
    /// one that has no time to wait. A server that closes a connection while a request is on its way to it cannot be told from one
    /// that fails, so the connection is given up [`MARGIN`] before.
    pub fn checkin(&mut self, endpoint: EndpointId, stream: Stream, keep: Duration, now: Instant) {
        let wait = self.idle_timeout.min(keep.saturating_sub(MARGIN));
        if self.idle < self.idle_max && !wait.is_zero() {
            self.idle += 1;
            self.by_endpoint[endpoint.index()].push(Idle { stream, since: now, until: now + wait });
        }
    }

    /// Closes what has been idle too long or was ended by its server. Called about once a second.
    pub fn reap(&mut self, now: Instant) {
        for idle in &mut self.by_endpoint {
            idle.retain(|i| now < i.until && !i.stream.is_spent());
        }
        self.idle = self.by_endpoint.iter().map(Vec::len).sum();
    }

    /// Closes every connection to `endpoint`: it has just broken one of them without a word.
    pub fn forget(&mut self, endpoint: EndpointId) {
        self.idle -= std::mem::take(&mut self.by_endpoint[endpoint.index()]).len();
    }

    /// Idle connections.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle
    }
}
