//! The metrics of gRPC, of routes that calls have come by.

use super::Family;
use super::families::COUNTER;
use super::rows::{calls, per_route};

/// They follow [`super::http2_families::HTTP2_FAMILIES`].
pub(super) const GRPC_FAMILIES: &[Family] = &[Family {
    name: "ringgate_grpc_requests_total",
    help: "Calls of gRPC that are over, by their grpc-status (none: the client was told none); methods that no service knows are other.",
    kind: COUNTER,
    rows: per_route,
    render: calls,
}];
