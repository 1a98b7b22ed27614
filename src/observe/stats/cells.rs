//! What is counted of one route, cluster, endpoint or listener on one worker: plain structs of counters.

use super::calls::Calls;
use crate::error::ProxyError;
use crate::limits;
use crate::observe::counter::{Arena, Counter, counters};
use crate::observe::histogram::Histogram;
use crate::observe::labels::{
    AttemptOutcome, EjectReason, EndpointState, HandshakeFailure, Http2Failure, ReadmitReason, RefuseReason,
    RetryReason, StreamCode, StreamSide, TlsVersion, TrafficEvent,
};

/// Slots of a route's requests that are allocated at a time.
const REQUESTS_CHUNK: usize = 8;

/// Requests of one route with one method and status.
#[derive(Debug, Default)]
pub(crate) struct RequestSlot {
    /// [`RequestKey::kind`].
    pub(crate) key: Counter,
    pub(crate) count: Counter,
}

/// What a request counter is about; packed, it orders by route, then method, then status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestKey {
    /// Row of the routes' table of a generation; the last one: no route.
    pub(crate) route: u32,
    /// Index of a [`MethodLabel`](crate::observe::labels::MethodLabel).
    pub(crate) method: u8,
    /// HTTP status.
    pub(crate) status: u16,
}

impl RequestKey {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.route) << 32 | u64::from(self.method) << 16 | u64::from(self.status)
    }

    /// Method and status of a packed key, without the route.
    pub(crate) fn kind(key: u64) -> u64 {
        key & u64::from(u32::MAX)
    }

    pub(crate) fn unpack(key: u64) -> Self {
        // Each field is cut back to what `pack` put there.
        Self { route: (key >> 32) as u32, method: (key >> 16) as u8, status: key as u16 }
    }
}

/// One route on one worker.
#[derive(Debug)]
pub(crate) struct RouteStats {
    pub(crate) requests: Arena<RequestSlot, REQUESTS_CHUNK>,
    pub(crate) duration: Histogram,
    pub(crate) errors: Counter,
    pub(crate) bytes: Counter,
    /// By [`ProxyError`].
    pub(crate) rejected: [Counter; ProxyError::ALL.len()],
    /// Those that were calls of gRPC.
    pub(crate) calls: Calls,
    /// Requests that a limit in dry run would have rejected.
    pub(crate) rate_limited_dry_run: Counter,
    /// Requests that rules in dry run would have refused.
    pub(crate) forbidden_dry_run: Counter,
    /// Requests that somebody else has refused who was asked.
    pub(crate) refused_elsewhere: Counter,
    /// What was done with its traffic beyond passing it on, by [`TrafficEvent`].
    pub(crate) traffic: [Counter; TrafficEvent::ALL.len()],
}

impl RouteStats {
    pub(crate) fn new() -> Self {
        Self {
            requests: Arena::new(limits::ROUTE_REQUEST_COUNTERS_MAX),
            duration: Histogram::new(),
            errors: Counter::default(),
            bytes: Counter::default(),
            rejected: counters(),
            calls: Calls::new(),
            rate_limited_dry_run: Counter::default(),
            forbidden_dry_run: Counter::default(),
            refused_elsewhere: Counter::default(),
            traffic: counters(),
        }
    }
}

/// One consumer on one worker, by the number of its name.
#[derive(Debug, Default)]
pub(crate) struct ConsumerStats {
    pub(crate) number: Counter,
    pub(crate) requests: Counter,
    pub(crate) bytes: Counter,
}

/// One limit on one worker.
#[derive(Debug, Default)]
pub(crate) struct LimitStats {
    /// Requests that it has rejected.
    pub(crate) rejected: Counter,
    /// Requests that it would have rejected, were it not in dry run.
    pub(crate) dry_run: Counter,
}

/// One cluster on one worker.
#[derive(Debug)]
pub(crate) struct ClusterStats {
    pub(crate) duration: Histogram,
    pub(crate) retries: [Counter; RetryReason::ALL.len()],
    pub(crate) failovers: Counter,
    pub(crate) budget_exhausted: Counter,
    pub(crate) connections_stale: Counter,
    pub(crate) connections_idle: Counter,
    pub(crate) connections_active: Counter,
}

impl ClusterStats {
    pub(crate) fn new() -> Self {
        Self {
            duration: Histogram::new(),
            retries: counters(),
            failovers: Counter::default(),
            budget_exhausted: Counter::default(),
            connections_stale: Counter::default(),
            connections_idle: Counter::default(),
            connections_active: Counter::default(),
        }
    }
}

/// One endpoint on one worker.
#[derive(Debug)]
pub(crate) struct EndpointStats {
    pub(crate) attempts: [Counter; AttemptOutcome::ALL.len()],
    pub(crate) ejections: [Counter; EjectReason::ALL.len()],
    /// Ejections that the cap on soft evidence refused.
    pub(crate) refused: [Counter; EjectReason::ALL.len()],
    pub(crate) shunnings: [Counter; EjectReason::ALL.len()],
    pub(crate) readmissions: [Counter; ReadmitReason::ALL.len()],
    pub(crate) http2_failures: [Counter; Http2Failure::ALL.len()],
    /// 0: the worker has not said yet; else an [`EndpointState`]'s index plus one.
    pub(crate) state: Counter,
    /// Instant in nanoseconds; 0: neither ejected nor paused.
    pub(crate) ejected_until: Counter,
    pub(crate) in_flight: Counter,
    /// Millionths.
    pub(crate) availability: Counter,
}

impl EndpointStats {
    pub(crate) fn new() -> Self {
        Self {
            attempts: counters(),
            ejections: counters(),
            refused: counters(),
            shunnings: counters(),
            readmissions: counters(),
            http2_failures: counters(),
            state: Counter::default(),
            ejected_until: Counter::default(),
            in_flight: Counter::default(),
            availability: Counter::default(),
        }
    }

    /// What the worker last said of it; `None` before it said anything.
    pub(crate) fn state(&self) -> Option<EndpointState> {
        EndpointState::ALL.get(usize::try_from(self.state.get()).ok()?.checked_sub(1)?).copied()
    }
}

/// One listener on one worker; on lines of its own, because connections come and go on many cores at once.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ListenerStats {
    pub(crate) connections: Counter,
    pub(crate) accepted: Counter,
    /// By [`RefuseReason`].
    pub(crate) refused: [Counter; RefuseReason::ALL.len()],
    pub(crate) exhausted: Counter,
    /// Connections among them that are tunnels.
    pub(crate) tunnels: Counter,
    pub(crate) tunnels_opened: Counter,
    /// By [`TlsVersion`], and whether they were resumed.
    pub(crate) handshakes: [[Counter; 2]; TlsVersion::ALL.len()],
    /// By [`HandshakeFailure`].
    pub(crate) handshake_failures: [Counter; HandshakeFailure::ALL.len()],
    pub(crate) handshake_duration: Histogram,
    pub(crate) handshakes_under_way: Counter,
    pub(crate) handshakes_queued: Counter,
    /// Requests under way that are streams.
    pub(crate) streams: Counter,
    /// By [`StreamCode`].
    pub(crate) goaways: [Counter; StreamCode::ALL.len()],
    /// By [`StreamSide`] and [`StreamCode`].
    pub(crate) stream_resets: [[Counter; StreamCode::ALL.len()]; StreamSide::ALL.len()],
}

/// The worker's event loop and its own resources.
#[derive(Debug, Default)]
pub(crate) struct LoopStats {
    pub(crate) driver: Counter,
    pub(crate) turns: Counter,
    /// Instant in nanoseconds; 0: never.
    pub(crate) last_turn: Counter,
    pub(crate) panics: Counter,
    pub(crate) log_lines_dropped: Counter,
    pub(crate) limit_evictions: Counter,
    pub(crate) buffers_in_use_bytes: Counter,
    pub(crate) buffers_kept_bytes: Counter,
}

/// What has gauges, which end with the thread that set them.
pub(crate) trait Gauges {
    fn reset(&self);
}

impl Gauges for ListenerStats {
    fn reset(&self) {
        self.connections.set(0);
        self.tunnels.set(0);
        self.streams.set(0);
    }
}

impl Gauges for ClusterStats {
    fn reset(&self) {
        self.connections_idle.set(0);
        self.connections_active.set(0);
    }
}

impl Gauges for EndpointStats {
    fn reset(&self) {
        self.in_flight.set(0);
        self.state.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_keys_survive_packing_and_order_by_route_first() {
        let key = RequestKey { route: 100_000, method: 9, status: 999 };
        assert_eq!(RequestKey::unpack(key.pack()), key);
        assert_eq!(RequestKey::kind(key.pack()), RequestKey { route: 0, ..key }.pack());
        let next = RequestKey { route: 100_001, method: 0, status: 100 };
        assert!(next.pack() > key.pack());
    }
}
