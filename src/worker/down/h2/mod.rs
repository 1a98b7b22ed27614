//! HTTP/2 with a client: one connection, many streams, each of which runs the straight line.
//!
//! The connection's own task ([`mux`]) has the socket and the protocol ([`crate::http::h2::connection`]). A stream that has begun is given, as
//! a [`crate::net::lane`], to a *runner* ([`runner`]): a task of the worker's stock that serves one request after the other, of whatever
//! connection, so that a stream costs neither a task nor an allocation. The runner sees a stream socket and serves what
//! [`crate::worker::exchange`] serves; the mux delivers what comes and writes what waits, one frame of each lane in turn.
//!
//! Flow control is the back-pressure. What a runner has taken is given back to the client's windows; what the client has no room for waits in
//! its lane, one block each, and is watched there by the runner's own deadlines. What waits for endpoints over all connections of a worker is
//! bounded, too (`ahead`).

mod ahead;
mod farewell;
pub(in crate::worker) mod mux;
pub(in crate::worker) mod runner;
mod urgency;
pub(in crate::worker) mod writing;

use crate::limits::HEAD_BYTES_MIN;

/// Bytes of memory that a section keeps between two heads.
const SECTION_KEPT_BYTES: usize = 4 * HEAD_BYTES_MIN;
