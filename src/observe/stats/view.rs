//! What a reader is told: the numbers of all workers added up, at one moment.
//!
//! Plain values, detached from the memory they were read from.

use super::Failure;
use crate::error::ProxyError;
use crate::observe::histogram::HistogramSum;
use crate::observe::labels::{
    AttemptOutcome, EjectReason, EndpointState, FailureReason, Http2Failure, ProbeState, ReadmitReason, WorkerState,
};
use crate::observe::usage::Usage;
use crate::units::Instant;
use std::collections::HashMap;

/// Health checks of one endpoint, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeView {
    /// The last checks in a row that contradict the verdict.
    pub against: u32,
    /// The verdict after rise and fall.
    pub state: ProbeState,
    /// Why the last check that failed did; `None`: none has.
    pub last_failure: Option<Failure>,
    /// When the last check that says something ended; `None`: there was none yet.
    pub checked: Option<Instant>,
    /// Checks that passed.
    pub passed: u64,
    /// Checks that failed, by [`FailureReason::index`].
    pub failed: [u64; FailureReason::ALL.len()],
    /// Checks that say nothing, because the gateway lacked what it takes to make them.
    pub exhausted: u64,
}

impl ProbeView {
    /// Checks that failed, whyever.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.iter().sum()
    }

    /// Why it is unhealthy, if it is.
    #[must_use]
    pub fn reason(&self) -> Option<Failure> {
        self.last_failure.filter(|_| self.state == ProbeState::Unhealthy)
    }
}

/// One endpoint over all workers, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointView {
    /// Workers that have said something of it.
    pub workers: usize,
    /// Of these, the ones that would send it requests.
    pub workers_available: usize,
    /// How many workers see it in which state, by [`EndpointState::index`].
    pub states: [usize; EndpointState::ALL.len()],
    /// The latest end of an ejection, pause or shunning over all workers that keep it away.
    pub ejected_until: Option<Instant>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Attempts by [`AttemptOutcome::index`].
    pub attempts: [u64; AttemptOutcome::ALL.len()],
    /// Ejections by [`EjectReason::index`].
    pub ejections: [u64; EjectReason::ALL.len()],
    /// Ejections that the cap refused, by [`EjectReason::index`].
    pub refused: [u64; EjectReason::ALL.len()],
    /// Shunnings by [`EjectReason::index`].
    pub shunnings: [u64; EjectReason::ALL.len()],
    /// Readmissions by [`ReadmitReason::index`].
    pub readmissions: [u64; ReadmitReason::ALL.len()],
    /// What it has done to connections of HTTP/2, by [`Http2Failure::index`].
    pub http2_failures: [u64; Http2Failure::ALL.len()],
    /// Mean availability over the workers that have said something, in [0, 1]; `None` when none has.
    pub availability: Option<f64>,
}

impl EndpointView {
    /// Attempts that ended, whichever way.
    #[must_use]
    pub fn attempts_total(&self) -> u64 {
        self.attempts.iter().sum()
    }

    /// Attempts that speak against it.
    #[must_use]
    pub fn failures_total(&self) -> u64 {
        AttemptOutcome::ALL
            .iter()
            .filter(|outcome| outcome.is_failure())
            .map(|outcome| self.attempts[outcome.index()])
            .sum()
    }

    /// The share of workers that would send it requests, in [0, 1]; 1 before any worker has said something, because an endpoint
    /// never tried counts as available.
    #[must_use]
    pub fn available_share(&self) -> f64 {
        if self.workers == 0 { 1.0 } else { self.workers_available as f64 / self.workers as f64 }
    }
}

/// One route over all workers, at one moment.
#[derive(Clone, Debug)]
pub struct RouteView {
    /// Durations of its requests.
    pub duration: HistogramSum,
    /// Requests with a status of 400 or above.
    pub errors: u64,
    /// Bytes of requests and responses.
    pub bytes: u64,
    /// Replies the gateway made itself, by [`ProxyError`]'s discriminant.
    pub rejected: [u64; ProxyError::ALL.len()],
    /// Requests that a limit in dry run would have rejected.
    pub rate_limited_dry_run: u64,
    /// Requests that rules in dry run would have refused.
    pub forbidden_dry_run: u64,
    /// Requests that somebody else has refused who was asked.
    pub refused_elsewhere: u64,
}

impl Default for RouteView {
    fn default() -> Self {
        let (duration, rejected) = (HistogramSum::default(), [0; ProxyError::ALL.len()]);
        Self {
            duration,
            errors: 0,
            bytes: 0,
            rejected,
            rate_limited_dry_run: 0,
            forbidden_dry_run: 0,
            refused_elsewhere: 0,
        }
    }
}

/// Requests and bytes of consumers, over all workers.
#[derive(Clone, Debug, Default)]
pub struct ConsumerSums {
    /// By the number of the name ([`crate::config::Consumer::number`]).
    pub by_number: HashMap<u64, (u64, u64)>,
    /// Of those that have no counters of their own.
    pub others: (u64, u64),
}

impl RouteView {
    /// The numbers as `/usage` shows them.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage {
            requests: self.duration.count(),
            errors: self.errors,
            bytes: self.bytes,
            latency_nanos: self.duration.sum_nanos(),
        }
    }
}

/// One worker, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// As the supervisor set it.
    pub state: WorkerState,
    /// Threads that were started after the first.
    pub restarts: u64,
    /// When its loop last turned; `None`: never.
    pub last_turn: Option<Instant>,
}
