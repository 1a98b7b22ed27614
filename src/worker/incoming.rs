//! How a request's body comes, and how it goes up for that.

use crate::http::framing::Framing;
use crate::http::trailers::Trailers;
use std::time::Duration;

/// How a request's body comes.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Its framing as the client declared it, which is also how it goes up.
    pub(super) framing: Framing,
    /// For what may follow it.
    pub(super) trailers: Trailers,
    /// Payload bytes allowed.
    pub(super) bytes_max: u64,
    /// The client waits for `100 Continue`.
    pub(super) withheld: bool,
    /// Without a byte from the client.
    pub(super) patience: Duration,
    /// Bytes per second of waiting, once that has taken `patience`; 0: none.
    pub(super) rate_min: u64,
    /// It is a call of gRPC: what moves in one direction is patience for the other.
    pub(super) is_call: bool,
    /// … which comes as text (gRPC-Web), and goes up as what that says.
    pub(super) is_text: bool,
}

/// How a body goes up that comes so: of a text the length of what it says is not known.
pub(super) fn framing_up(framing: Framing, is_text: bool) -> Framing {
    if is_text && !framing.is_empty() { Framing::Chunked } else { framing }
}
