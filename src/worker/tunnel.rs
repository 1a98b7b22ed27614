//! The tunnel that an upgraded connection becomes (RFC 9110 §7.8): bytes from either side to the other, until both have ended.
//!
//! Each direction holds one block while it has something in hand, and none while it waits: an idle tunnel, which is what most
//! WebSockets are, costs no buffer. A piece is sent before the next one is received, so a side that does not read slows the other
//! by its TCP window and nothing else. The end of one direction is passed on as the end of that direction alone; a reset is passed on
//! as a reset, because a stream that broke must not look complete.
//!
//! It ends when both directions have, when one side breaks, when no byte has moved for `tunnel_timeout`, or when a drain's time is
//! over. It looks at no byte: what is spoken there is not HTTP any more.

use super::generation::Generation;
use super::inbound::Inbound;
use crate::error::ProxyError;
use crate::net::block::Block;
use crate::net::stream::Stream;
use crate::units::ListenerId;
use std::cell::Cell;
use std::future::{Future, poll_fn};
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

/// Which side broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Upstream,
}

/// What one direction has come to.
type Carried = Option<Result<(), Side>>;

impl<'a> Tunnel<'a> {
    pub(super) fn new(inbound: &'a Inbound<'a>, upstream: &'a Stream, timeout: Duration) -> Self {
        let open = Open::new(inbound.worker, inbound.listener);
        Self { inbound, timeout, upstream, up_bytes: Cell::new(0), down_bytes: Cell::new(0), _open: open }
    }

    /// Carries bytes until the end. `up` is what the client sent behind its request, `head` the 101 for it, `down` what came behind
    /// the endpoint's.
    pub(super) async fn run(&self, up: Block, head: Block, down: Block) -> Ended {
        let watch = self.inbound.watch;
        let timeout = self.timeout;
        let guard = watch.over_tunnel(self.inbound.stream, self.inbound.worker.tunnel_deadline(timeout));
        let broken = {
            let mut upward = pin!(self.carry(Side::Client, [up, Block::default()]));
            let mut downward = pin!(self.carry(Side::Upstream, [head, down]));
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

    /// One direction, from its first bytes to its end, which is passed on.
    async fn carry(&self, from: Side, first: [Block; 2]) -> Result<(), Side> {
        let (source, sink, to, bytes) = match from {
            Side::Client => (self.inbound.stream, self.upstream, Side::Upstream, &self.up_bytes),
            Side::Upstream => (self.upstream, self.inbound.stream, Side::Client, &self.down_bytes),
        };
        for block in first {
            self.pass_on(sink, block, bytes).await.ok_or(to)?;
        }
        let mut bulk = false;
        loop {
            // no block is held while nothing comes; what is wrong with the socket, the receive will say
            let _ = source.readable().await;
            let block = {
                let mut blocks = self.inbound.worker.blocks.borrow_mut();
                if bulk { blocks.large() } else { blocks.small() }
            };
            let room = block.room();
            let (received, block) = source.receive(block).await;
            match received {
                Ok(0) => {
                    self.inbound.worker.put(block);
                    return sink.end().await.map_err(|_| to);
                }
                Ok(count) => bulk = count == room || (bulk && count > room / 8),
                Err(_) => {
                    self.inbound.worker.put(block);
                    return Err(from);
                }
            }
            self.on_progress();
            self.pass_on(sink, block, bytes).await.ok_or(to)?;
        }
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
