//! The side of a lane that whoever serves it has: a socket among the others ([`crate::net::plain`]), and what the timers do to its descriptor.

use super::{FIRST_FD, LANES, Lane, keep};
use crate::http::h2::priority::Signal;
use crate::net::block::Block;
use crate::net::stream::{Received, Stream};
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A lane, as its descriptor's owner has it.
#[derive(Debug)]
pub(in crate::net) struct LaneSocket(Rc<Lane>);

impl LaneSocket {
    pub(in crate::net) fn new(lane: &Rc<Lane>) -> Self {
        let index = LANES.with_borrow_mut(|lanes| lanes.insert(Rc::clone(lane)));
        lane.fd.set(FIRST_FD - index as RawFd);
        Self(Rc::clone(lane))
    }

    pub(in crate::net) fn fd(&self) -> RawFd {
        self.0.fd.get()
    }

    pub(in crate::net) fn local_address(&self) -> Option<SocketAddr> {
        self.0.local.get()
    }

    pub(in crate::net) fn is_encrypted(&self) -> bool {
        self.0.is_encrypted.get()
    }

    pub(in crate::net) fn has_received(&self) -> bool {
        self.0.incoming.borrow().is_ready() || self.0.is_over()
    }

    pub(in crate::net) fn shutdown(&self, how: Shutdown) {
        self.0.shutdown(how);
    }

    pub(in crate::net) fn hear(&self) -> bool {
        self.0.is_deaf.replace(false)
    }

    pub(in crate::net) fn receive(&self, into: Block) -> Receiving<'_> {
        Receiving { lane: &self.0, into: Some(into) }
    }

    pub(in crate::net) fn poll_received(&self, into: &mut Option<Block>, cx: &Context<'_>) -> Poll<Received> {
        self.0.poll_received(into, cx)
    }

    pub(in crate::net) fn readable(&self) -> Readable<'_> {
        Readable { lane: &self.0 }
    }

    /// Hands over what is small enough not to be waited for, if nothing else is waited for.
    pub(in crate::net) fn post(&self, block: Block) -> Result<(), Block> {
        let lane = &self.0;
        if lane.is_over() || lane.is_parted.get() || !lane.outgoing.borrow().is_empty() {
            return Err(block);
        }
        *lane.outgoing.borrow_mut() = block;
        lane.ring();
        Ok(())
    }

    pub(in crate::net) fn send(&self, block: Block) -> Sending<'_> {
        Sending { lane: &self.0, block: Some(block), is_handed: false }
    }
}

impl Drop for LaneSocket {
    fn drop(&mut self) {
        let index = (FIRST_FD - self.0.fd.replace(-1)) as usize;
        // outside of the borrow: a lane may own what comes back here
        let lane = LANES.with_borrow_mut(|lanes| lanes.try_remove(index));
        drop(lane);
    }
}

/// A receive.
pub(in crate::net) struct Receiving<'a> {
    lane: &'a Rc<Lane>,
    into: Option<Block>,
}

impl Future for Receiving<'_> {
    type Output = Received;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Received> {
        let lane = self.lane;
        lane.poll_received(&mut self.into, cx)
    }
}

/// A wait for something to receive.
pub(in crate::net) struct Readable<'a> {
    lane: &'a Rc<Lane>,
}

impl Future for Readable<'_> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lane.poll_readable(cx).map(Ok)
    }
}

/// A send: over when the connection has taken the last byte.
pub(in crate::net) struct Sending<'a> {
    lane: &'a Rc<Lane>,
    block: Option<Block>,
    is_handed: bool,
}

impl Future for Sending<'_> {
    type Output = (io::Result<()>, Block);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lane = self.lane;
        if lane.is_over() || lane.is_parted.get() {
            let block = if self.is_handed { lane.outgoing.take() } else { self.block.take().unwrap_or_default() };
            return Poll::Ready((Err(io::ErrorKind::BrokenPipe.into()), block));
        }
        let is_free = lane.outgoing.borrow().is_empty();
        match (self.is_handed, is_free) {
            (true, true) => return Poll::Ready((Ok(()), lane.outgoing.take())),
            (false, true) => {
                let block = self.block.take().unwrap_or_default();
                if block.is_empty() {
                    return Poll::Ready((Ok(()), block));
                }
                *lane.outgoing.borrow_mut() = block;
                self.is_handed = true;
                lane.is_sending.set(true);
                lane.ring();
            }
            // what was posted goes first
            (_, false) => {}
        }
        keep(&lane.writer, cx);
        Poll::Pending
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.is_handed {
            self.lane.is_sending.set(false);
        }
        if self.is_handed && !self.lane.outgoing.borrow().is_empty() && !self.lane.is_over() {
            // given up: half of a frame must not be followed by anything
            self.lane.shutdown(Shutdown::Both);
        }
    }
}

/// What [`crate::net::stream::shutdown_fd`] does to a lane.
pub(in crate::net) fn shutdown_fd(fd: RawFd, how: Shutdown) {
    with(fd, |lane| lane.shutdown(how));
}

/// What [`crate::net::stream::poll_now`] says of a lane.
pub(in crate::net) fn poll_now(fd: RawFd, wanted: i16) -> i16 {
    with(fd, |lane| {
        let gone = if lane.is_lost.get() { libc::POLLERR | libc::POLLHUP } else { 0 };
        let readable = if lane.incoming.borrow().is_ready() { wanted & libc::POLLIN } else { 0 };
        let half_closed = if lane.is_half_closed.get() { wanted & libc::POLLRDHUP } else { 0 };
        gone | readable | half_closed
    })
    .unwrap_or(libc::POLLNVAL)
}

/// Whether a stream is a lane to whom it makes a difference how urgent a response is ([`prioritize`]).
#[must_use]
pub fn heeds_priorities(stream: &Stream) -> bool {
    is_lane(stream.fd())
        && with(stream.fd(), |lane| lane.bells.borrow().as_ref().is_some_and(|(bells, _)| bells.is_prioritized()))
            .unwrap_or(false)
}

/// Says how urgent what is sent on a lane from now on is; nothing is done for another stream.
pub fn prioritize(stream: &Stream, priority: Signal) {
    with(stream.fd(), |lane| lane.priority.set(Some(priority)));
}

/// Bytes that wait to be sent.
pub(in crate::net) fn queued(fd: RawFd) -> libc::c_int {
    with(fd, |lane| lane.outgoing.borrow().unread().len() as libc::c_int).unwrap_or(0)
}

/// Whether a descriptor is a lane's.
pub(in crate::net) fn is_lane(fd: RawFd) -> bool {
    fd <= FIRST_FD
}

fn with<T>(fd: RawFd, ask: impl FnOnce(&Lane) -> T) -> Option<T> {
    let lane = LANES.with_borrow(|lanes| lanes.get((FIRST_FD - fd) as usize).cloned());
    lane.map(|lane| ask(&lane))
}
