//! The answer to a request of the gateway's own: a copy that goes to a mirror, a question of whoever decides.
//!
//! There is no client whose response it would be, so nothing is passed on: a head is waited for, past interim ones, and a body is read up to a
//! bound, so that the connection can be used again. What either means is the business of who has asked.

use super::attempt::Attempt;
use super::failure::Failure;
use super::generation::Generation;
use crate::error::ProxyError;
use crate::http::body::Body;
use crate::http::framing::Framing;
use crate::http::trailers::Trailers;
use crate::limits::{INTERIM_RESPONSES_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::net::block::Block;
use crate::net::upstream::Upstream;
use std::io;

/// What has arrived, taken for a head.
pub(super) enum Heard<T> {
    /// A part of one.
    Part,
    /// An interim one, of so many bytes.
    Interim(usize),
    /// The final one, of so many bytes, and what it says.
    Final(T, usize),
}

/// Waits for the final head of an answer, as long as `to` has time; with what has come behind that. `read` takes what has arrived for a head, and
/// `broken` says what the end of the connection means.
///
/// # Errors
/// The connection has ended, its time is over, or it is no head.
pub(super) async fn await_head<T>(
    (worker, to, upstream): (&Generation, &Attempt, &Upstream),
    read: impl Fn(&Block) -> Result<Heard<T>, ProxyError>,
    broken: impl Fn(Option<&io::Error>) -> Failure,
) -> Result<(T, Block), Failure> {
    upstream.expect(|| worker.blocks.borrow_mut().small_with_headroom());
    let mut interim = 0;
    loop {
        let (received, mut block) = upstream.received().await;
        if !matches!(received, Ok(1..)) || to.watch.expired() {
            worker.put(block);
            return Err(broken(received.as_ref().err()));
        }
        loop {
            match read(&block) {
                Ok(Heard::Interim(head_bytes)) if interim < INTERIM_RESPONSES_MAX => {
                    interim += 1;
                    block.consume(head_bytes);
                }
                Ok(Heard::Final(answer, head_bytes)) => {
                    block.consume(head_bytes);
                    return Ok((answer, block));
                }
                Ok(Heard::Part) if block.unread().len() < RESPONSE_HEAD_BYTES_MAX => break,
                other => {
                    worker.put(block);
                    return Err(Failure::BadHead(other.err().unwrap_or(ProxyError::UpstreamHeadTooLarge)));
                }
            }
        }
        if block.room() == 0 {
            block.compact();
            worker.grow(&mut block, RESPONSE_HEAD_BYTES_MAX);
        }
        upstream.arm(block);
    }
}

/// Reads a body of at most `bytes_max`, of which `block` has the beginning, and hands each piece on; whether it was whole, in its time, and nothing
/// stands behind it.
pub(super) async fn read_body(
    (worker, to, upstream): (&Generation, &Attempt, &Upstream),
    (framing, mut trailers): (Framing, Trailers),
    mut block: Block,
    bytes_max: u64,
    mut each: impl FnMut(&[u8]),
) -> bool {
    if framing.exceeds(bytes_max) {
        worker.put(block);
        return false;
    }
    let mut body = Body::new(framing, bytes_max);
    let is_whole = loop {
        let filled = 0..block.unread().len();
        let Ok(decoded) = body.decode(block.unread_mut(), filled.clone(), &mut trailers) else { break false };
        each(&block.unread()[decoded.payload]);
        if decoded.done || body.is_done() {
            break decoded.consumed == filled.end;
        }
        block.clear();
        upstream.arm(block);
        let (received, back) = upstream.received().await;
        block = back;
        match received {
            _ if to.watch.expired() => break false,
            Ok(1..) => {}
            Ok(_) => break body.on_eof().is_ok(),
            Err(_) => break false,
        }
    };
    worker.put(block);
    is_whole
}
