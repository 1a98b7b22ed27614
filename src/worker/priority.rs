//! What a service says of how urgent its response is (RFC 9218 §8), for a client's connection on which that makes a difference.

use crate::http::h2::priority::Signal;
use crate::http::response::ResponseHead;
use crate::net::lane;
use crate::net::stream::Stream;

/// Tells the client's connection what the head of a response says. The field is passed on as it is.
pub(super) fn heed(stream: &Stream, head: &ResponseHead<'_>) {
    if lane::heeds_priorities(stream)
        && let Some(value) = head.fields().get("priority")
    {
        lane::prioritize(stream, Signal::parse(value));
    }
}
