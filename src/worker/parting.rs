//! The end of a client's connection: its last bytes, and what the client still sends meanwhile.

use super::inbound::Inbound;
use super::record::Record;
use crate::net::block::Block;
use crate::net::clock;
use std::net::Shutdown;
use std::time::Duration;

/// How long, and for how many bytes, what a client still sends is read before its connection is closed: a close with unread
/// bytes is a reset, which may take the response with it (RFC 9112 §9.6). More than what both kernels may hold of it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// Sends the last bytes of a connection. `lingers`: the client may still be sending, and is given time to read them.
pub(super) async fn finish(inbound: &Inbound<'_>, last: Block, mut record: Record, inbox: Block, lingers: bool) {
    let patience = inbound.config().body_timeout;
    inbound.stream.end_with_next_send();
    let sent = inbound.send(last, patience).await;
    record.finish(inbound.worker, clock::now(), sent);
    // a client that has said its last word and goes on all the same (RFC 9112 §9.6) still gets its response whole
    if sent.is_ok() && (lingers || !inbox.is_empty() || inbound.stream.has_unread()) {
        linger(inbound, inbox).await;
    } else {
        inbound.worker.put(inbox);
    }
}

/// Ends our direction and reads on for a moment.
pub(super) async fn linger(inbound: &Inbound<'_>, mut inbox: Block) {
    inbound.stream.shutdown(Shutdown::Write);
    let _guard = inbound.watch.over(inbound.stream, clock::now() + LINGER, Shutdown::Both);
    let mut left = LINGER_BYTES;
    if inbox.room() == 0 {
        // the receive that its block went into was given up, or there was none
        inbox = inbound.worker.blocks.borrow_mut().small();
    }
    while left > 0 {
        inbox.clear();
        let (received, block) = inbound.stream.receive(inbox).await;
        inbox = block;
        match received {
            Ok(count @ 1..) => left = left.saturating_sub(count),
            _ => break,
        }
    }
    inbound.worker.put(inbox);
}
