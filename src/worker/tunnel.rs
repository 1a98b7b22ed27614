//! The tunnel that an upgraded connection becomes (RFC 9110 §7.8): bytes from either side to the other, until both have ended.
//!
//! Each direction holds one block while it has something in hand, and none while it waits: an idle tunnel, which is what most
//! WebSockets are, costs no buffer. A piece is sent before the next one is received, so a side that does not read slows the other
//! by its TCP window and nothing else. The end of one direction is passed on as the end of that direction alone; a reset is passed on
//! as a reset, because a stream that broke must not look complete.
//!
//! It ends when both directions have, when one side breaks, when no byte has moved for `tunnel_timeout`, or when a drain's time is
//! over. It looks at no byte: what is spoken there is not HTTP any more.
//!
//! Either side may be a stream of HTTP/2 (RFC 8441): then its bytes go in frames, and the end of a direction is that of the stream's.

use super::generation::Generation;
use super::inbound::Inbound;
use super::pacing::Paces;
use crate::error::ProxyError;
use crate::http::body::{CHUNK_HEADROOM, LAST_CHUNK, frame_piece};
use crate::http::h2::respond;
use crate::net::block::Block;
use crate::net::stream::Stream;
use crate::units::ListenerId;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// Two connections that are one from now on.
pub(super) struct Tunnel<'a> {
    inbound: &'a Inbound<'a>,
    /// Without a byte in either direction.
    timeout: Duration,
    upstream: &'a Stream,
    /// How bytes go down, and up.
    codings: [Coding; 2],
    /// Whose bytes each direction is, where they are counted.
    paces: Paces,
    up_bytes: Cell<u64>,
    down_bytes: Cell<u64>,
    _open: Open<'a>,
}

/// A tunnel that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Bytes that the endpoint took.
    pub(super) up_bytes: u64,
    /// Bytes that the client took, the 101 included.
    pub(super) down_bytes: u64,
    /// Why it ended, if not because both sides have ended it.
    pub(super) error: Option<ProxyError>,
}

/// How bytes go into a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are: the connection is the tunnel's.
    Bare,
    /// In DATA frames, as they go to a client of HTTP/2.
    Frames,
    /// In chunks, of which a shared connection to an endpoint makes frames.
    Chunks,
}

impl Coding {
    /// Writes what is unread in a block so: in place, where somebody has left room for it.
    fn dress(self, block: &mut Block) {
        let range = block.range();
        if self == Self::Bare || range.is_empty() {
            return;
        }
        if range.start < CHUNK_HEADROOM {
            let payload = block.unread().to_vec();
            block.clear_with_headroom(CHUNK_HEADROOM);
            block.vec_mut().extend_from_slice(&payload);
        }
        let range = block.range();
        let framed = match self {
            Self::Frames => respond::frame_piece(block.vec_mut(), range, None),
            _ => frame_piece(block.vec_mut(), range, None),
        };
        block.set_unread(framed.expect("there is room before it"));
    }

    /// Appends what ends the direction; false: that is said otherwise.
    fn push_end(self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Bare => return false,
            Self::Frames => respond::push_data_head(out, 0, true),
            Self::Chunks => out.extend_from_slice(LAST_CHUNK),
        }
        true
    }
}

/// Which side broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// What one direction has come to.
type Carried = Option<Result<(), Side>>;

impl<'a> Tunnel<'a> {
    /// `codings` say how bytes go down, and up.
    pub(super) fn new(
        (inbound, upstream): (&'a Inbound<'a>, &'a Stream),
        codings: [Coding; 2],
        paces: Paces,
        timeout: Duration,
    ) -> Self {
        let open = Open::new(inbound.worker, inbound.listener);
        Self {
            inbound,
            timeout,
            upstream,
            codings,
            paces,
            up_bytes: Cell::new(0),
            down_bytes: Cell::new(0),
            _open: open,
        }
    }

    /// Carries bytes until the end. `up` is what the client sent behind its request, `head` the 101 for it, `down` what came behind
    /// the endpoint's.
    pub(super) async fn run(&self, up: Block, head: Block, down: Block) -> Ended {
        let watch = self.inbound.watch;
        let timeout = self.timeout;
        let guard = watch.over_tunnel(self.inbound.stream, self.inbound.worker.tunnel_deadline(timeout));
        let broken = {
            let mut upward = pin!(self.carry(Side::Client, Block::default(), up));
            let mut downward = pin!(self.carry(Side::Upstream, head, down));
            let mut passed = pin!(watch.passed());
            let (mut up, mut down) = (None, None);
            poll_fn(|cx| {
                go_on(&mut up, upward.as_mut(), cx);
                go_on(&mut down, downward.as_mut(), cx);
                match (up, down) {
                    // first, because it makes the client's connection look broken
                    _ if passed.as_mut().poll(cx).is_ready() => Poll::Ready(None),
                    (Some(Err(side)), _) | (_, Some(Err(side))) => Poll::Ready(Some(Err(side))),
                    (Some(Ok(())), Some(Ok(()))) => Poll::Ready(Some(Ok(()))),
                    _ => Poll::Pending,
                }
            })
            .await
        };
        drop(guard);
        let error = match broken {
            Some(Ok(())) => None,
            Some(Err(Side::Client)) => {
                self.upstream.reset_on_close();
                Some(ProxyError::ClientClosed)
            }
            Some(Err(Side::Upstream)) => {
                self.inbound.stream.reset_on_close();
                Some(ProxyError::UpstreamTruncated)
            }
            None if self.inbound.worker.tunnels_have_ended() => Some(ProxyError::Draining),
            None => Some(ProxyError::TunnelTimeout),
        };
        if broken != Some(Err(Side::Client)) {
            // not before a reset, which would come behind an end that looks orderly
            self.upstream.shutdown(Shutdown::Both);
        }
        Ended { up_bytes: self.up_bytes.get(), down_bytes: self.down_bytes.get(), error }
    }

    /// One direction, from its first bytes to its end, which is passed on: a head as it is, and what came behind the other side's.
    async fn carry(&self, from: Side, head: Block, mut first: Block) -> Result<(), Side> {
        let [down, up] = self.codings;
        let (source, sink, coding, to, bytes) = match from {
            Side::Client => (self.inbound.stream, self.upstream, up, Side::Upstream, &self.up_bytes),
            Side::Upstream => (self.upstream, self.inbound.stream, down, Side::Client, &self.down_bytes),
        };
        let pace = if from == Side::Client { self.paces.up } else { self.paces.down };
        let pay = async |block: &Block| {
            if let Some(pace) = &pace {
                pace.take_in_tunnel(self.inbound.worker, block.unread().len()).await;
                self.on_progress(); // it is the gateway that has stood still
            }
        };
        coding.dress(&mut first);
        self.pass_on(sink, head, bytes).await.ok_or(to)?;
        pay(&first).await;
        self.pass_on(sink, first, bytes).await.ok_or(to)?;
        let mut bulk = false;
        loop {
            // no block is held while nothing comes; what is wrong with the socket, the receive will say
            let _ = source.readable().await;
            let mut block = {
                let mut blocks = self.inbound.worker.blocks.borrow_mut();
                if bulk { blocks.large() } else { blocks.small() }
            };
            if coding != Coding::Bare {
                block.clear_with_headroom(CHUNK_HEADROOM);
            }
            let room = block.room();
            let (received, mut block) = source.receive(block).await;
            match received {
                Ok(0) => {
                    block.clear();
                    return self.end(sink, coding, block).await.map_err(|_| to);
                }
                Ok(count) => bulk = count == room || (bulk && count > room / 8),
                Err(_) => {
                    self.inbound.worker.put(block);
                    return Err(from);
                }
            }
            self.on_progress();
            bulk &= pace.is_none();
            coding.dress(&mut block);
            pay(&block).await;
            self.pass_on(sink, block, bytes).await.ok_or(to)?;
        }
    }

    /// Passes on that nothing more will come.
    async fn end(&self, sink: &Stream, coding: Coding, mut block: Block) -> io::Result<()> {
        let is_said = coding.push_end(block.vec_mut());
        let (sent, block) = match is_said {
            true => sink.send(block).await,
            false => (sink.end().await, block),
        };
        self.inbound.worker.put(block);
        sent
    }

    /// Sends the block, counts it and gives it back; `None` when the other side takes no more.
    async fn pass_on(&self, sink: &Stream, block: Block, bytes: &Cell<u64>) -> Option<()> {
        let count = block.unread().len() as u64;
        let sent = if count > 0 {
            let (sent, block) = sink.send(block).await;
            self.inbound.worker.put(block);
            self.on_progress();
            sent
        } else {
            self.inbound.worker.put(block);
            Ok(())
        };
        bytes.set(bytes.get() + if sent.is_ok() { count } else { 0 });
        sent.ok()
    }

    fn on_progress(&self) {
        let timeout = self.timeout;
        self.inbound.watch.move_to(self.inbound.worker.tunnel_deadline(timeout));
    }
}

fn go_on<F: Future<Output = Result<(), Side>>>(carried: &mut Carried, direction: Pin<&mut F>, cx: &mut Context<'_>) {
    if carried.is_none()
        && let Poll::Ready(done) = direction.poll(cx)
    {
        *carried = Some(done);
    }
}

/// A tunnel in the listener's numbers, until it is dropped.
struct Open<'a> {
    worker: &'a Generation,
    listener: ListenerId,
}

impl<'a> Open<'a> {
    fn new(worker: &'a Generation, listener: ListenerId) -> Self {
        worker.recorder.tunnel_opened(listener);
        worker.tunnels.set(worker.tunnels.get() + 1);
        Self { worker, listener }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.worker.recorder.tunnel_closed(self.listener);
        self.worker.tunnels.set(self.worker.tunnels.get() - 1);
    }
}
