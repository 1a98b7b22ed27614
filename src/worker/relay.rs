//! `relay`: the response's body on its way down, piece by piece.
//!
//! A piece is received into a block, decoded and framed for the client in place, and sent from the same block: payload is not
//! copied, but for a first piece that is small enough to go out together with its head. The next piece is not read before this
//! one is sent, which is all the back-pressure there is: a slow client slows the endpoint by their TCP windows, and one block per
//! response is all the memory it costs.
//!
//! The last piece is not sent here but handed back, so that the caller can send it and arm the next receive in the same turn.

use super::attempt::Failure;
use super::connection::Connection;
use super::going::{Going, Sending};
use super::state::Worker;
use crate::config::HeaderRules;
use crate::error::ProxyError;
use crate::http::body::{Body, CHUNK_HEADROOM, LAST_CHUNK, frame_piece};
use crate::http::framing::Framing;
use crate::http::trailers::Trailers;
use crate::limits::BLOCK_SMALL;
use crate::net::block::Block;
use crate::net::clock;
use crate::net::upstream::Upstream;
use crate::units::Instant;
use std::net::Shutdown;
use std::pin::pin;
use std::time::Duration;

/// A response that is being passed on.
pub(super) struct Relay<'a, 'g, F> {
    pub(super) worker: &'a Worker,
    pub(super) connection: &'a Connection,
    /// The endpoint.
    pub(super) upstream: &'a Upstream,
    /// The request, as far as it is still on its way.
    pub(super) going: &'a mut Going<'g, F>,
    /// As the endpoint sends it.
    pub(super) body: Body,
    /// As the client gets it.
    pub(super) framing: Framing,
    /// Without a byte from the endpoint, or without one taken by the client.
    pub(super) patience: Duration,
    /// Sent so far, head and body.
    pub(super) sent_bytes: u64,
    /// The last receive has filled its block.
    pub(super) fast: bool,
    /// Bytes came behind the end: the endpoint's connection is not to be used again.
    pub(super) excess: bool,
    /// When the last piece arrived.
    pub(super) now: Instant,
    pub(super) trailers: Trailers,
    /// The route's, for responses.
    pub(super) rules: &'a HeaderRules,
}

/// Why a response was not passed on whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The endpoint's fault.
    Upstream(ProxyError),
    /// The client took no more, because it has left or did not read; or its request, which was still coming, broke.
    Downstream(ProxyError),
}

impl<F: Sending> Relay<'_, '_, F> {
    /// Passes the body on. `out` holds the client's head, and at the end the last bytes to be sent; `block` what came behind the
    /// endpoint's.
    pub(super) async fn run(&mut self, out: &mut Block, block: &mut Block) -> Result<(), Broken> {
        let mut done = self.dress(block).map_err(Broken::Upstream)?;
        if block.unread().len() <= out.room() {
            out.vec_mut().extend_from_slice(block.unread());
            block.clear();
        }
        loop {
            if done && block.is_empty() {
                return Ok(());
            }
            if !out.is_empty() {
                self.send(out).await?;
            }
            if done {
                std::mem::swap(out, block);
                return Ok(());
            }
            if block.is_empty() {
                if out.room() > block.room() {
                    // empty as well by now, and one large block is enough
                    std::mem::swap(out, block);
                }
                self.receive(block).await?;
                done = self.dress(block).map_err(Broken::Upstream)?;
            }
            std::mem::swap(out, block);
        }
    }

    /// Sends what is in the block, which is empty then.
    async fn send(&mut self, block: &mut Block) -> Result<(), Broken> {
        let bytes = block.unread().len() as u64;
        let watch = &self.connection.watch;
        let _guard = watch.over_send(&self.connection.stream, self.patience, clock::now());
        let progress = || watch.on_sent(clock::now());
        let mut sending = pin!(self.connection.stream.send_noting(std::mem::take(block), progress));
        let (sent, back) = match self.going.is_under_way() {
            true => self.going.beside(sending).await.map_err(client_failed)?,
            false => sending.as_mut().await,
        };
        *block = back;
        block.clear();
        if sent.is_err() {
            return Err(Broken::Downstream(self.connection.send_failure()));
        }
        self.sent_bytes += bytes;
        Ok(())
    }

    /// The next bytes of the endpoint; none at its end, which the body may or may not allow.
    async fn receive(&mut self, block: &mut Block) -> Result<(), Broken> {
        let left = self.body.left().or((!self.fast).then_some(BLOCK_SMALL as u64 + 1));
        let mut room = self.worker.widen(std::mem::take(block), left, self.fast);
        room.clear_with_headroom(CHUNK_HEADROOM);
        let watch = &self.connection.watch;
        let stream = self.upstream.stream();
        let _guard =
            watch.over(stream, clock::now() + self.patience, Shutdown::Both).on_behalf_of(&self.connection.stream);
        self.upstream.arm(room);
        let (received, back) = match self.going.is_under_way() {
            true => self.going.beside(pin!(self.upstream.received())).await.map_err(client_failed)?,
            false => self.upstream.received().await,
        };
        self.now = clock::now();
        *block = back;
        self.fast = block.room() == 0;
        // after either the end is ours and not the endpoint's, also the one that the next receive would find
        let (stalled, left) = (watch.expired(), watch.client_gone());
        match received {
            Ok(1..) if !stalled && !left => Ok(()),
            Ok(0) if !stalled && !left && self.body.on_eof().is_ok() => Ok(()),
            _ => Err(match (left, stalled) {
                (true, _) => Broken::Downstream(ProxyError::ClientClosed),
                (false, true) => Broken::Upstream(ProxyError::UpstreamBodyTimeout),
                (false, false) => Broken::Upstream(ProxyError::UpstreamTruncated),
            }),
        }
    }

    /// Decodes the unread part of `block` and frames it for the client, in place; true when it holds the end.
    fn dress(&mut self, block: &mut Block) -> Result<bool, ProxyError> {
        let filled = block.range();
        if filled.is_empty() && !self.body.is_done() {
            return Ok(self.end_by_close(block));
        }
        let decoded = self
            .body
            .decode(block.unread_mut(), 0..filled.len(), &mut self.trailers)
            .map_err(crate::http::body::BodyError::upstream)?;
        self.excess |= decoded.consumed < filled.len();
        let payload = filled.start + decoded.payload.start..filled.start + decoded.payload.end;
        if self.framing != Framing::Chunked {
            block.set_unread(payload);
            return Ok(decoded.done);
        }
        let end = self.trailers.end(decoded.done, self.rules);
        let chunk = frame_piece(block.vec_mut(), payload, end).ok_or(ProxyError::Internal)?;
        block.set_unread(chunk);
        Ok(decoded.done)
    }

    /// Nothing has arrived. Either nothing has been asked for yet (the first piece), or the endpoint has closed, and its body
    /// allows that ([`Relay::receive`] has asked).
    fn end_by_close(&mut self, block: &mut Block) -> bool {
        if self.sent_bytes == 0 {
            return false;
        }
        if self.framing == Framing::Chunked {
            block.vec_mut().extend_from_slice(LAST_CHUNK);
        }
        true
    }
}

/// A response that is being passed on ends when the request that is still coming breaks.
fn client_failed(failure: Failure) -> Broken {
    Broken::Downstream(match failure {
        Failure::Downstream(error) => error,
        _ => ProxyError::ClientClosed,
    })
}
