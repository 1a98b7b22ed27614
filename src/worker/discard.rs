//! The rest of a request's body that nobody wants: read and thrown away, so that the connection can carry the next request.
//!
//! A response may be complete before the request is: a refusal, an endpoint that answered early. Reading a little is cheaper than a new
//! connection for both sides; reading a lot is not, so there is a limit in bytes and one in time, beyond which the connection is
//! closed after all (RFC 9112 §9.3, §9.6). Nothing is read of a client that waits to be told to send (RFC 9110 §10.1.1): its next
//! bytes could be the body or the next request.

use super::inbound::Inbound;
use super::record::Record;
use crate::http::body::Body;
use crate::http::cycle::{Cycle, Next, Progress};
use crate::http::trailers::Trailers;
use crate::limits::{DISCARD_BYTES_MAX, DISCARD_TIMEOUT};
use crate::net::block::Block;
use crate::net::clock;
use crate::units::Instant;
use std::net::Shutdown;

/// What is left to do when an exchange is over but for its last bytes: to send them, and to finish the record.
#[derive(Debug)]
pub(super) struct Served {
    /// May be empty.
    pub(super) last: Block,
    /// The client's connection ends with them.
    pub(super) close: bool,
    /// … but not before the client had time to read them, because it may still be sending.
    pub(super) linger: bool,
    /// About now.
    pub(super) at: Instant,
}

/// The response is encoded: what becomes of the connection. When a little of the request is still to come, it is thrown away here,
/// after the response was sent, because a client may wait for that before it goes on sending.
pub(super) async fn conclude(
    inbound: &Inbound<'_>,
    cycle: &mut Cycle,
    mut rest: Rest<'_>,
    record: &mut Record,
    mut served: Served,
) -> Served {
    if inbound.stream.is_lane() {
        // one of many: what is still to come of it is stopped (RFC 9113 §8.1), and nothing waits behind it
        return Served { close: false, linger: false, ..served };
    }
    if cycle.request() == Progress::Body {
        match rest.skip() {
            Ok(true) => cycle.on_request_done(),
            Ok(false) => {}
            Err(_) => cycle.on_request_broken(),
        }
    }
    if cycle.next_downstream() == Next::Discard {
        let patience = inbound.config().body_timeout;
        let sent = inbound.send(std::mem::take(&mut served.last), patience).await;
        served.at = clock::now();
        record.on_answered(served.at);
        if let Err(error) = sent {
            record.on_broken(error);
            return Served { close: true, linger: false, ..served };
        }
        match rest.discard(inbound).await {
            Ok(()) => cycle.on_request_done(),
            Err(_) => cycle.on_request_broken(),
        }
        served.at = clock::now();
    }
    let close = cycle.next_downstream() != Next::Reuse;
    Served { close, linger: close && served.linger && cycle.may_send_more(), ..served }
}

/// What is still to come of a request.
#[derive(Debug)]
pub(super) struct Rest<'r> {
    /// Where it arrives.
    pub(super) inbox: &'r mut Block,
    /// How its end is found.
    pub(super) body: &'r mut Body,
    pub(super) trailers: &'r mut Trailers,
}

/// The rest cannot be skipped: it is malformed, too long or too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unwanted;

impl Rest<'_> {
    /// Skips what has arrived; true when that was the end. What lies behind the end stays in the inbox.
    pub(super) fn skip(&mut self) -> Result<bool, Unwanted> {
        if !self.body.is_done() && !self.inbox.is_empty() {
            let len = self.inbox.unread().len();
            let decoded = self.body.decode(self.inbox.unread_mut(), 0..len, self.trailers).map_err(|_| Unwanted)?;
            self.inbox.consume(decoded.consumed);
        }
        Ok(self.body.is_done())
    }

    /// Receives and skips until the end.
    pub(super) async fn discard(&mut self, inbound: &Inbound<'_>) -> Result<(), Unwanted> {
        let until = clock::now() + DISCARD_TIMEOUT;
        let patience = inbound.config().body_timeout;
        let mut left = DISCARD_BYTES_MAX;
        while !self.skip()? {
            if left == 0 {
                return Err(Unwanted);
            }
            self.inbox.clear();
            let block = inbound.worker.widen(std::mem::take(self.inbox), Some(0), false);
            let deadline = until.min(clock::now() + patience);
            let _guard = inbound.watch.over(inbound.stream, deadline, Shutdown::Read);
            let (received, block) = inbound.stream.receive(block).await;
            *self.inbox = block;
            let count = received.ok().filter(|count| *count > 0).ok_or(Unwanted)?;
            left = left.saturating_sub(count as u64);
        }
        Ok(())
    }
}
