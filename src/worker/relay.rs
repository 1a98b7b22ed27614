//! `relay`: the response's body on its way down, piece by piece.
//!
//! A piece is received into a block, decoded and framed for the client in place, and sent from the same block: payload is not
//! copied, but for a first piece that is small enough to go out together with its head. The next piece is not read before this
//! one is sent, which is all the back-pressure there is: a slow client slows the endpoint by their TCP windows, and one block per
//! response is all the memory it costs.
//!
//! The last piece is not sent here but handed back, so that the caller can send it and arm the next receive in the same turn.
//!
//! As long as nothing was sent, a response that breaks can be had from another endpoint, and the client sees nothing of it. So the first
//! piece of one that may be replaced waits for the rest, if that fits behind it: for a moment, if its length is known; if not, only for
//! what has arrived already, because an event stream's next event may be an hour away.

use super::failure::Failure;
use super::generation::Generation;
use super::going::{Going, Sending};
use super::inbound::Inbound;
use super::pacing::Pace;
use super::upload::Upload;
use crate::config::HeaderRules;
use crate::error::ProxyError;
use crate::http::body::{Body, CHUNK_HEADROOM, LAST_CHUNK, frame_piece};
use crate::http::framing::Framing;
use crate::http::grpc_web::{self, Form};
use crate::http::h2::respond;
use crate::http::trailers::Trailers;
use crate::limits::BLOCK_SMALL;
use crate::net::block::Block;
use crate::net::timer::Watch;
use crate::net::upstream::{Received, Upstream};
use crate::net::{clock, driver};
use crate::units::Instant;
use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// A response that is being passed on.
pub(super) struct Relay<'a, 'g, F> {
    pub(super) inbound: &'a Inbound<'a>,
    /// The endpoint.
    pub(super) upstream: &'a Upstream,
    /// Over what is waited for of the endpoint.
    pub(super) watch: &'a Watch,
    /// The request, as far as it is still on its way.
    pub(super) going: &'a mut Going<'g, F>,
    /// As the endpoint sends it.
    pub(super) body: Body,
    /// As the client gets it.
    pub(super) framing: Framing,
    /// Without a byte from the endpoint, or without one taken by the client.
    pub(super) patience: Duration,
    /// The client may have got something of it.
    pub(super) begun: bool,
    /// Sent so far, head and body.
    pub(super) sent_bytes: u64,
    /// Until when the beginning may be kept from the client; `None`: nothing would come of it.
    pub(super) held_until: Option<Instant>,
    /// A receive is in flight that the last wait has not seen the end of.
    pub(super) asked: bool,
    /// The endpoint has ended the connection, and the body with it.
    pub(super) ended: bool,
    /// The last receive has filled its block.
    pub(super) fast: bool,
    /// Bytes came behind the end: the endpoint's connection is not to be used again.
    pub(super) excess: bool,
    /// When the last piece arrived.
    pub(super) now: Instant,
    pub(super) trailers: Trailers,
    /// It is made one of gRPC-Web: its trailers go behind its body.
    pub(super) web: Option<Form>,
    /// The route's, for responses.
    pub(super) rules: &'a HeaderRules,
    /// The request that is answered.
    pub(super) upload: &'a Upload<'a>,
    /// Whose bytes the client takes, where they are counted.
    pub(super) pace: Option<&'a Pace>,
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
        if self.upload.has_coder() {
            self.code(block, done).await?;
        }
        if block.unread().len() <= out.room() {
            out.vec_mut().extend_from_slice(block.unread());
            block.clear();
            if let Some(until) = self.held_until.filter(|_| !done) {
                done = self.hold_back(out, block, until).await?;
            }
        }
        loop {
            if done && block.is_empty() {
                return Ok(());
            }
            if !out.is_empty() {
                if let Some(pace) = self.pace {
                    self.wait_for(pace, out).await?;
                }
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
                if self.upload.has_coder() {
                    self.code(block, done).await?;
                    // it has taken its time, and others wait
                    driver::next_turn().await;
                }
            }
            std::mem::swap(out, block);
        }
    }

    /// Receives more into `out` before anything of it is sent, as long as it fits there and is expected to come at once; true when it is
    /// all. What did not fit is left in `block`.
    async fn hold_back(&mut self, out: &mut Block, block: &mut Block, until: Instant) -> Result<bool, Broken> {
        loop {
            let is_near = match self.body.left() {
                Some(left) => left <= out.room() as u64,
                None => self.upstream.stream().has_more(),
            };
            if !is_near || !self.receive_until(block, until).await? {
                return Ok(false);
            }
            let done = self.dress(block).map_err(Broken::Upstream)?;
            if self.upload.has_coder() {
                self.code(block, done).await?;
            }
            if block.unread().len() > out.room() {
                return Ok(done);
            }
            out.vec_mut().extend_from_slice(block.unread());
            block.clear();
            if done {
                return Ok(true);
            }
        }
    }

    /// Waits until the client may have what is in the block. In a box, because few responses wait and all of them would be as large.
    pub(super) fn wait_for<'s>(
        &'s mut self,
        pace: &Pace,
        out: &Block,
    ) -> Pin<Box<dyn Future<Output = Result<(), Broken>> + 's>> {
        let (pace, bytes) = (*pace, out.unread().len());
        Box::pin(async move {
            let taking = pin!(pace.take(self.inbound, bytes));
            let is_there = match self.going.is_under_way() {
                true => self.going.beside(taking).await.map_err(client_failed)?,
                false => taking.await,
            };
            if is_there { Ok(()) } else { Err(Broken::Downstream(ProxyError::ClientClosed)) }
        })
    }

    /// Sends what is in the block, which is empty then.
    async fn send(&mut self, block: &mut Block) -> Result<(), Broken> {
        self.begun = true;
        let bytes = block.unread().len() as u64;
        let watch = self.inbound.watch;
        let _guard = watch.over_send(self.inbound.stream, self.patience, clock::now());
        let progress = || watch.on_sent(clock::now());
        let mut sending = pin!(self.inbound.stream.send_noting(std::mem::take(block), progress));
        let (sent, back) = match self.going.is_under_way() {
            true => self.going.beside(sending).await.map_err(client_failed)?,
            false => sending.as_mut().await,
        };
        *block = back;
        block.clear();
        if sent.is_err() {
            return Err(Broken::Downstream(self.inbound.send_failure()));
        }
        self.sent_bytes += bytes;
        Ok(())
    }

    /// The next bytes of the endpoint; none at its end, which the body may or may not allow.
    async fn receive(&mut self, block: &mut Block) -> Result<(), Broken> {
        let watch = self.watch;
        let over = watch.over(self.upstream.stream(), clock::now() + self.patience, Shutdown::Both);
        let _guard = over.on_behalf_of(self.inbound.watch);
        self.ask(block);
        let received = match self.going.is_under_way() {
            true => self.going.beside(pin!(self.upstream.received())).await.map_err(client_failed)?,
            false => self.upstream.received().await,
        };
        // after either the end is ours and not the endpoint's, also the one that the next receive would find
        let (stalled, left) = (watch.expired(), self.inbound.watch.has_left());
        let taken = self.take(received, block);
        match (left, stalled) {
            (true, _) => Err(Broken::Downstream(ProxyError::ClientClosed)),
            (false, true) => Err(Broken::Upstream(ProxyError::UpstreamBodyTimeout)),
            (false, false) => taken,
        }
    }

    /// The same, but until then at most, when it goes on without anybody waiting: whether something has come. The connection is not touched.
    async fn receive_until(&mut self, block: &mut Block, until: Instant) -> Result<bool, Broken> {
        let watch = self.watch;
        let stall = self.now + self.patience;
        let _guard = watch.over_pause(until.min(stall)).on_behalf_of(self.inbound.watch);
        self.ask(block);
        let received = poll_fn(|cx| match self.upstream.poll_received(cx) {
            Poll::Ready(received) => Poll::Ready(Some(received)),
            Poll::Pending => watch.poll_passed(cx).map(|()| None),
        });
        match received.await {
            Some(received) => self.take(received, block).map(|()| true),
            None if self.inbound.watch.has_left() => Err(Broken::Downstream(ProxyError::ClientClosed)),
            None if stall <= until => Err(Broken::Upstream(ProxyError::UpstreamBodyTimeout)),
            None => Ok(false),
        }
    }

    /// Has the next piece received, into the block if it has room for what is expected, unless it is being received already.
    fn ask(&mut self, block: &mut Block) {
        if std::mem::replace(&mut self.asked, true) {
            return;
        }
        let mut left = self.body.left().or((!self.fast).then_some(BLOCK_SMALL as u64 + 1));
        if self.pace.is_some_and(Pace::is_slow) {
            left = Some(BLOCK_SMALL as u64);
        }
        let mut room = self.inbound.worker.widen(std::mem::take(block), left, self.fast);
        room.clear_with_headroom(CHUNK_HEADROOM);
        self.upstream.arm(room);
    }

    /// Takes what has been received.
    fn take(&mut self, (received, back): Received, block: &mut Block) -> Result<(), Broken> {
        self.asked = false;
        self.now = clock::now();
        self.upload.on_heard(self.now);
        // there is something in its place if it was received while something else was waited for
        self.inbound.worker.put(std::mem::replace(block, back));
        self.fast = !self.upload.has_coder() && self.pace.is_none() && self.upstream.stream().has_filled(block);
        self.ended = matches!(received, Ok(0)) && self.body.on_eof().is_ok();
        match received {
            Ok(1..) => Ok(()),
            _ if self.ended => Ok(()),
            _ => Err(Broken::Upstream(ProxyError::UpstreamTruncated)),
        }
    }

    /// Decodes the unread part of `block` and frames it for the client, in place, unless it is to be [compressed](Self::code) before; true when it
    /// holds the end.
    fn dress(&mut self, block: &mut Block) -> Result<bool, ProxyError> {
        let filled = block.range();
        if filled.is_empty() && !self.body.is_done() {
            return Ok(if self.upload.has_coder() { self.ended } else { self.end_by_close(block) });
        }
        let decoded = self
            .body
            .decode(block.unread_mut(), 0..filled.len(), &mut self.trailers)
            .map_err(crate::http::body::BodyError::upstream)?;
        self.excess |= decoded.consumed < filled.len();
        let mut payload = filled.start + decoded.payload.start..filled.start + decoded.payload.end;
        if let Some(form) = self.web {
            let end = self.trailers.end(decoded.done, self.rules);
            payload = restate(self.inbound.worker, block, payload, (form, end.unwrap_or_default()));
        }
        if self.upload.has_coder() {
            block.set_unread(payload);
            return Ok(decoded.done);
        }
        self.frame(block, payload, decoded.done)
    }

    /// Frames what is payload of the block for the client; whether it is the last.
    fn frame(&mut self, block: &mut Block, payload: Range<usize>, done: bool) -> Result<bool, ProxyError> {
        let mut end = self.trailers.end(done, self.rules);
        if self.web.is_some() {
            end = end.map(|_| &b""[..]); // they stand in the payload
        }
        let piece = match self.framing {
            Framing::Chunked => frame_piece(block.vec_mut(), payload, end).ok_or(ProxyError::Internal)?,
            Framing::Streamed => respond::frame_piece(block.vec_mut(), payload, end).ok_or(ProxyError::Internal)?,
            _ => payload,
        };
        block.set_unread(piece);
        Ok(done)
    }

    /// Compresses what is unread, and frames what has come of it, which may be nothing yet. As much a turn as all of a worker's coders may, in a box
    /// because few responses need it.
    #[inline(never)]
    fn code<'s>(
        &'s mut self,
        block: &'s mut Block,
        done: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), Broken>> + 's>> {
        const FAILED: Broken = Broken::Upstream(ProxyError::Internal);
        Box::pin(async move {
            let (mut rest, mut coded) = (block.range(), Vec::new());
            let flush = !done && !self.upstream.stream().has_more();
            loop {
                let ends = (flush, done);
                let ready = || self.upload.with_coder(|coder| coder?.ready(rest.len(), ends, clock::now()));
                let bytes = loop {
                    match ready() {
                        Some(bytes) => break bytes,
                        None => driver::next_turn().await,
                    }
                };
                let (piece, is_last) = (&block.all()[rest.start..rest.start + bytes], bytes == rest.len());
                let ends = (flush && is_last, done && is_last);
                let put = self.upload.with_coder(|coder| coder.map(|coder| coder.code(piece, ends, &mut coded)));
                put.and_then(Result::ok).ok_or(FAILED)?;
                if is_last {
                    break;
                }
                rest.start += bytes;
                driver::next_turn().await;
            }
            block.clear_with_headroom(CHUNK_HEADROOM);
            block.vec_mut().extend_from_slice(&coded);
            if block.is_empty() && !done {
                block.clear();
                return Ok(());
            }
            let payload = block.range();
            self.frame(block, payload, done).map(drop).map_err(Broken::Upstream)
        })
    }

    /// Nothing has arrived. Either nothing has been asked for yet (the first piece), or the endpoint has closed, and its body
    /// allows that.
    fn end_by_close(&mut self, block: &mut Block) -> bool {
        if !self.ended {
            return false;
        }
        match self.framing {
            Framing::Chunked => block.vec_mut().extend_from_slice(LAST_CHUNK),
            Framing::Streamed => respond::push_data_head(block.vec_mut(), 0, true),
            _ => {}
        }
        true
    }
}

/// Makes a piece of a body of gRPC one of gRPC-Web, with the trailers behind it that came with its end. Where it lies then.
fn restate(
    worker: &Generation,
    block: &mut Block,
    payload: Range<usize>,
    (form, trailers): (Form, &[u8]),
) -> Range<usize> {
    if form == Form::Binary && trailers.is_empty() {
        return payload;
    }
    worker.restate_in_room(|made| {
        let piece = &block.all()[payload];
        match form {
            Form::Binary => made.extend_from_slice(piece),
            Form::Text => grpc_web::push_text(made, piece),
        }
        block.clear();
        if !trailers.is_empty() && form == Form::Text {
            grpc_web::push_trailers(block.vec_mut(), trailers);
            grpc_web::push_text(made, block.all());
        } else if !trailers.is_empty() {
            grpc_web::push_trailers(made, trailers);
        }
        block.clear_with_headroom(CHUNK_HEADROOM);
        if block.room() < made.len() {
            worker.grow(block, CHUNK_HEADROOM + made.len());
            block.clear_with_headroom(CHUNK_HEADROOM);
        }
        block.vec_mut().extend_from_slice(made);
        block.range()
    })
}

/// A response that is being passed on ends when the request that is still coming breaks.
fn client_failed(failure: Failure) -> Broken {
    Broken::Downstream(match failure {
        Failure::Downstream(error) => error,
        _ => ProxyError::ClientClosed,
    })
}
