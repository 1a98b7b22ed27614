//! A connected stream socket, TCP or unix, on whichever event loop runs: the bytes as they are on the wire.
//!
//! One type for all, because they only see a descriptor. Above it is [`super::stream::Stream`], which is what everybody else has.

use super::block::Block;
use super::engine::{self, Engine};
use super::epoll::socket::Socket as EpollSocket;
use super::guest::socket::Socket as GuestSocket;
use super::lane::Lane;
use super::lane::socket::LaneSocket;
use super::ring::socket::Socket as RingSocket;
use super::stream::{Received, SEND_AT_ONCE};
use monoio::buf::IoBufMut as _;
use pin_project_lite::pin_project;
use socket2::SockRef;
use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A socket of one of the event loops.
#[derive(Debug)]
pub(super) enum Plain {
    Ring(RingSocket),
    Epoll(EpollSocket),
    Guest(GuestSocket),
    /// One of many on a connection of its own.
    Lane(LaneSocket),
}

/// The same of a socket of each kind.
macro_rules! each {
    ($stream:expr, $socket:ident => $what:expr) => {
        match $stream {
            Self::Ring($socket) => $what,
            Self::Epoll($socket) => $what,
            Self::Guest($socket) => $what,
            Self::Lane($socket) => $what,
        }
    };
}

/// The same where that is a future, of another type each time.
macro_rules! future_of_each {
    ($stream:expr, $socket:ident => $what:expr) => {
        match $stream {
            Self::Ring($socket) => Each::Ring { future: $what },
            Self::Epoll($socket) => Each::Epoll { future: $what },
            Self::Guest($socket) => Each::Guest { future: $what },
            Self::Lane($socket) => Each::Lane { future: $what },
        }
    };
}

pin_project! {
    /// A future of one of the event loops.
    #[project = EachPinned]
    pub(super) enum Each<R, E, G, L> {
        Ring { #[pin] future: R },
        Epoll { #[pin] future: E },
        Guest { #[pin] future: G },
        Lane { #[pin] future: L },
    }
}

impl<T, R: Future<Output = T>, E: Future<Output = T>, G: Future<Output = T>, L: Future<Output = T>> Future
    for Each<R, E, G, L>
{
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.project() {
            EachPinned::Ring { future } => future.poll(cx),
            EachPinned::Epoll { future } => future.poll(cx),
            EachPinned::Guest { future } => future.poll(cx),
            EachPinned::Lane { future } => future.poll(cx),
        }
    }
}

impl Plain {
    /// Takes over a non-blocking, connected stream socket. Must be called inside a worker's runtime.
    ///
    /// # Errors
    /// What the driver says when it cannot register the descriptor (epoll only).
    pub(super) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, false)
    }

    /// The same of one that is still connecting.
    pub(super) fn from_connecting_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, true)
    }

    fn new(fd: OwnedFd, connecting: bool) -> io::Result<Self> {
        Ok(match engine::current() {
            Some(Engine::Ring(ring)) => Self::Ring(RingSocket::new(ring, fd)),
            Some(Engine::Epoll(epoll)) => Self::Epoll(EpollSocket::new(epoll, fd, connecting)?),
            None => Self::Guest(GuestSocket::new(fd)?),
        })
    }

    /// Serves a lane.
    pub(super) fn of_lane(lane: &Rc<Lane>) -> Self {
        Self::Lane(LaneSocket::new(lane))
    }

    /// The lane that it is.
    pub(super) fn lane(&self) -> Option<&LaneSocket> {
        match self {
            Self::Lane(lane) => Some(lane),
            _ => None,
        }
    }

    /// The descriptor, valid as long as `self`.
    pub(super) fn fd(&self) -> RawFd {
        each!(self, socket => socket.fd())
    }

    /// Has what comes received into blocks that the event loop chooses when it is there, as long as it is small. True: whoever receives need
    /// not bring a block.
    pub(super) fn listen(&self) -> bool {
        match self {
            Self::Ring(socket) => socket.listen(),
            Self::Epoll(_) => true,
            Self::Guest(_) | Self::Lane(_) => false,
        }
    }

    /// Receives into the block's room; where operations are submitted, by this call and not by the first poll.
    /// The block comes back in any case, or another in the place of an empty one, with the bytes appended; `Ok(0)` is the peer's end.
    pub(super) fn receive(&self, into: Block) -> impl Future<Output = Received> + use<'_> {
        future_of_each!(self, socket => socket.receive(into))
    }

    /// The same for somebody who will come back for the result ([`Plain::poll_received`]) with the block that is returned, if one is.
    pub(super) fn ask(&self, into: Block) -> Option<Block> {
        match self {
            Self::Ring(socket) => socket.ask(into),
            Self::Epoll(_) | Self::Lane(_) => Some(into),
            Self::Guest(socket) => socket.ask(into),
        }
    }

    /// Takes what has been received. `into` is what [`Plain::ask`] gave back.
    pub(super) fn poll_received(&self, into: &mut Option<Block>, cx: &mut Context<'_>) -> Poll<Received> {
        each!(self, socket => socket.poll_received(into, cx))
    }

    /// Whether a receive is in flight, or over and not taken yet.
    pub(super) fn is_receiving(&self) -> bool {
        match self {
            Self::Ring(socket) => socket.is_receiving(),
            Self::Epoll(_) | Self::Lane(_) => false,
            Self::Guest(socket) => socket.is_receiving(),
        }
    }

    /// Whether something was received, or the end, and not taken yet.
    pub(super) fn has_received(&self) -> bool {
        match self {
            Self::Ring(socket) => socket.has_received(),
            Self::Epoll(_) => false,
            Self::Guest(socket) => socket.has_received(),
            Self::Lane(lane) => lane.has_received(),
        }
    }

    /// Whoever reads from the descriptor by himself, after [`Plain::readable`], has found nothing more.
    pub(super) fn found_empty(&self) {
        if let Self::Epoll(socket) = self {
            socket.found_empty();
        }
    }

    /// Sends what is small and is taken by the kernel at once, without waiting for it and without hearing of it: if it fails, the
    /// connection is shut down, which whoever receives will notice. Given back, or what is left of it, where that cannot be.
    pub(super) fn post(&self, block: Block) -> Result<(), Block> {
        match self {
            Self::Ring(socket) if block.unread().len() <= SEND_AT_ONCE => socket.post(block),
            Self::Epoll(socket) => socket.post(block),
            Self::Lane(lane) => lane.post(block),
            _ => Err(block),
        }
    }

    /// Whether what is small could be posted now.
    pub(super) fn may_post(&self) -> bool {
        match self {
            Self::Ring(socket) => socket.listen() && !socket.has_received() && !socket.is_posting(),
            Self::Epoll(_) => true,
            Self::Guest(_) | Self::Lane(_) => false,
        }
    }

    /// Whether something that was posted is not sent yet.
    pub(super) fn is_posting(&self) -> bool {
        matches!(self, Self::Ring(socket) if socket.is_posting())
    }

    /// Waits until what was posted is sent, or has failed; a drop would take it back.
    pub(super) async fn posted(&self) {
        if let Self::Ring(socket) = self {
            socket.posted().await;
        }
    }

    /// Sends what is unread in the block, like [`Plain::send`]; nobody waits for that, because what was sent last has been answered,
    /// and the whole of it is no more than [`SEND_AT_ONCE`].
    pub(super) async fn send_unawaited(&self, block: Block) -> (io::Result<()>, Block) {
        let Self::Ring(socket) = self else { return self.send(block).await };
        let (sent, mut block) = socket.send(block, true).await;
        match sent {
            Ok(sent) => {
                block.consume(sent);
                self.send(block).await
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                self.send(block).await
            }
            Err(error) => (Err(error), block),
        }
    }

    /// Sends all that is unread in the block, which comes back with nothing unread, or an error.
    pub(super) async fn send(&self, block: Block) -> (io::Result<()>, Block) {
        self.send_noting(block, || {}).await
    }

    /// The same, calling `progress` whenever the kernel has taken a part and not all.
    pub(super) async fn send_noting(&self, mut block: Block, mut progress: impl FnMut()) -> (io::Result<()>, Block) {
        if let Self::Lane(lane) = self {
            return lane.send(block).await;
        }
        self.posted().await;
        while !block.is_empty() {
            let sending = match self {
                Self::Ring(socket) => Each::Ring { future: socket.send(block, false) },
                Self::Epoll(socket) => Each::Epoll { future: socket.send(block) },
                Self::Guest(socket) => Each::Guest { future: socket.send(block) },
                Self::Lane(_) => Each::Lane { future: std::future::ready((Ok(0), block)) }, // sent above
            };
            let (result, back) = sending.await;
            block = back;
            match result {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), block),
                Ok(sent) => {
                    block.consume(sent);
                    if !block.is_empty() {
                        progress();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (Err(error), block),
            }
        }
        (Ok(()), block)
    }

    /// Waits until a receive would not wait. Holds no buffer and may be dropped.
    pub(super) fn readable(&self) -> impl Future<Output = io::Result<()>> {
        future_of_each!(self, socket => socket.readable())
    }

    pub(super) fn writable(&self) -> impl Future<Output = io::Result<()>> {
        match self {
            Self::Ring(socket) => Each::Ring { future: socket.writable() },
            Self::Epoll(socket) => Each::Epoll { future: socket.writable() },
            Self::Guest(socket) => Each::Guest { future: socket.writable() },
            // it is handed over whole, and waited for then
            Self::Lane(_) => Each::Lane { future: std::future::ready(Ok(())) },
        }
    }

    /// True when the peer has ended the connection, or sent what nobody asked for: such a connection cannot carry a request. What has
    /// happened since the last turn of the loop may not be known.
    pub(super) fn is_spent(&self) -> bool {
        if self.is_receiving() {
            return self.has_received();
        }
        if matches!(self, Self::Epoll(socket) if !socket.may_receive()) {
            return false;
        }
        match self.peek() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// What has arrived by now, without waiting; `None`: nothing. Not to be asked while somebody waits for it.
    pub(super) fn take_arrived(&self, into: impl FnOnce() -> Block) -> Option<Received> {
        debug_assert!(self.lane().is_none(), "a lane has no session");
        if self.is_receiving() {
            let mut nobody = Context::from_waker(Waker::noop());
            return match self.has_received().then(|| self.poll_received(&mut None, &mut nobody)) {
                Some(Poll::Ready(received)) => Some(received),
                _ => None,
            };
        }
        if matches!(self, Self::Epoll(socket) if !socket.may_receive()) {
            return None;
        }
        let mut block = into();
        let (to, room) = (block.write_ptr(), block.bytes_total());
        // SAFETY: so much room is behind the pointer, and nobody else has the block.
        let received = unsafe { libc::recv(self.fd(), to.cast(), room, libc::MSG_DONTWAIT) };
        match usize::try_from(received).map_err(|_| io::Error::last_os_error()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                super::tls::give(block);
                None
            }
            Ok(count) => {
                // SAFETY: the kernel has written so many bytes there.
                unsafe { block.set_init(count) };
                Some((Ok(count), block))
            }
            Err(error) => Some((Err(error), block)),
        }
    }

    /// How much of one byte could be received now; 0 is the peer's end.
    pub(super) fn peek(&self) -> io::Result<usize> {
        if let Self::Lane(lane) = self {
            return if lane.has_received() { Ok(1) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut byte = 0_u8;
        // SAFETY: one byte of room, peeked at, without waiting.
        let got = unsafe {
            libc::recv(self.fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// The socket, if it is one of our ring's.
    #[cfg(test)]
    pub(super) fn on_ring(&self) -> Option<&RingSocket> {
        match self {
            Self::Ring(socket) => Some(socket),
            _ => None,
        }
    }

    /// The same of our epoll's.
    #[cfg(test)]
    pub(super) fn on_epoll(&self) -> Option<&EpollSocket> {
        match self {
            Self::Epoll(socket) => Some(socket),
            _ => None,
        }
    }

    pub(super) fn with_socket<T>(&self, ask: impl FnOnce(SockRef<'_>) -> T) -> T {
        // SAFETY: the descriptor lives as long as `self`, and so longer than this call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd()) };
        ask(SockRef::from(&fd))
    }
}
