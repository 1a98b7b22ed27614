//! A connected stream socket, TCP or unix, on whichever event loop runs.
//!
//! One type for all, because they only see a descriptor. Receive and send may be under way at once; each takes a [`Block`] and gives it
//! back. What was received belongs to the socket and not to whoever waits, so a wait may be dropped. There are no timeouts here: whoever
//! waits arms a [`super::timer::Watch`] on the descriptor first.

use super::block::Block;
use super::engine::{self, Engine};
use super::epoll::socket::Socket as EpollSocket;
use super::guest::socket::Socket as GuestSocket;
use super::receipt::Receipt;
use super::ring::socket::Socket as RingSocket;
use pin_project_lite::pin_project;
use socket2::SockRef;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a send buffer takes whatever its size, when everything sent before has been answered.
pub const SEND_AT_ONCE: usize = 4 << 10;

/// What a receive has come to, with the block it went into.
pub type Received = (io::Result<usize>, Block);

/// A stream socket owned by this core.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
}

/// Whose event loop it belongs to.
#[derive(Debug)]
enum Kind {
    Ring(RingSocket),
    Epoll(EpollSocket),
    Guest(GuestSocket),
}

/// The same of a socket of each kind.
macro_rules! each {
    ($stream:expr, $socket:ident => $what:expr) => {
        match &$stream.kind {
            Kind::Ring($socket) => $what,
            Kind::Epoll($socket) => $what,
            Kind::Guest($socket) => $what,
        }
    };
}

/// The same where that is a future, of another type each time.
macro_rules! future_of_each {
    ($stream:expr, $socket:ident => $what:expr) => {
        match &$stream.kind {
            Kind::Ring($socket) => Each::Ring { future: $what },
            Kind::Epoll($socket) => Each::Epoll { future: $what },
            Kind::Guest($socket) => Each::Guest { future: $what },
        }
    };
}

pin_project! {
    /// A future of one of the event loops.
    #[project = EachPinned]
    enum Each<R, E, G> {
        Ring { #[pin] future: R },
        Epoll { #[pin] future: E },
        Guest { #[pin] future: G },
    }
}

impl<T, R: Future<Output = T>, E: Future<Output = T>, G: Future<Output = T>> Future for Each<R, E, G> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.project() {
            EachPinned::Ring { future } => future.poll(cx),
            EachPinned::Epoll { future } => future.poll(cx),
            EachPinned::Guest { future } => future.poll(cx),
        }
    }
}

impl Stream {
    /// Takes over a non-blocking, connected stream socket. Must be called inside a worker's runtime.
    ///
    /// # Errors
    /// What the driver says when it cannot register the descriptor (epoll only).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, false)
    }

    /// The same of one that is still connecting.
    pub(super) fn from_connecting_fd(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd, true)
    }

    fn new(fd: OwnedFd, connecting: bool) -> io::Result<Self> {
        let kind = match engine::current() {
            Some(Engine::Ring(ring)) => Kind::Ring(RingSocket::new(ring, fd)),
            Some(Engine::Epoll(epoll)) => Kind::Epoll(EpollSocket::new(epoll, fd, connecting)?),
            None => Kind::Guest(GuestSocket::new(fd)?),
        };
        Ok(Self { kind })
    }

    /// The descriptor, valid as long as `self`.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        each!(self, socket => socket.fd())
    }

    /// Has what comes received into blocks that the event loop chooses when it is there, as long as it is small. True: whoever receives need
    /// not bring a block.
    pub fn listen(&self) -> bool {
        match &self.kind {
            Kind::Ring(socket) => socket.listen(),
            Kind::Epoll(_) => true,
            Kind::Guest(_) => false,
        }
    }

    /// Receives into the block's room; where operations are submitted, by this call and not by the first poll.
    /// The block comes back in any case, or another in the place of an empty one, with the bytes appended; `Ok(0)` is the peer's end.
    pub fn receive(&self, into: Block) -> impl Future<Output = Received> + use<'_> {
        future_of_each!(self, socket => socket.receive(into))
    }

    /// The same for somebody who will come back for the result ([`Stream::poll_received`]) with the block that is returned, if one is.
    pub(super) fn ask(&self, into: Block) -> Option<Block> {
        match &self.kind {
            Kind::Ring(socket) => socket.ask(into),
            Kind::Epoll(_) => Some(into),
            Kind::Guest(socket) => socket.ask(into),
        }
    }

    /// Takes what has been received. `into` is what [`Stream::ask`] gave back.
    pub(super) fn poll_received(&self, into: &mut Option<Block>, cx: &mut Context<'_>) -> Poll<Received> {
        each!(self, socket => socket.poll_received(into, cx))
    }

    /// Whether a receive is in flight, or over and not taken yet.
    pub(super) fn is_receiving(&self) -> bool {
        match &self.kind {
            Kind::Ring(socket) => socket.is_receiving(),
            Kind::Epoll(_) => false,
            Kind::Guest(socket) => socket.is_receiving(),
        }
    }

    /// Whether something was received, or the end, and not taken yet.
    fn has_received(&self) -> bool {
        match &self.kind {
            Kind::Ring(socket) => socket.has_received(),
            Kind::Epoll(_) => false,
            Kind::Guest(socket) => socket.has_received(),
        }
    }

    /// Whoever reads from the descriptor by himself, after [`Stream::readable`], has found nothing more.
    pub(super) fn found_empty(&self) {
        if let Kind::Epoll(socket) = &self.kind {
            socket.found_empty();
        }
    }

    /// Sends what is small and is taken by the kernel at once, without waiting for it and without hearing of it: if it fails, the
    /// connection is shut down, which whoever receives will notice. Given back, or what is left of it, where that cannot be.
    pub fn post(&self, block: Block) -> Result<(), Block> {
        match &self.kind {
            Kind::Ring(socket) if block.unread().len() <= SEND_AT_ONCE => socket.post(block),
            Kind::Epoll(socket) => socket.post(block),
            _ => Err(block),
        }
    }

    /// Waits until what was posted is sent, or has failed; a drop would take it back.
    pub async fn posted(&self) {
        if let Kind::Ring(socket) = &self.kind {
            socket.posted().await;
        }
    }

    /// Sends what is unread in the block, like [`Stream::send`]; nobody waits for that, because what was sent last has been answered,
    /// and the whole of it is no more than [`SEND_AT_ONCE`].
    pub async fn send_unawaited(&self, block: Block) -> (io::Result<()>, Block) {
        let Kind::Ring(socket) = &self.kind else { return self.send(block).await };
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
    pub async fn send(&self, block: Block) -> (io::Result<()>, Block) {
        self.send_noting(block, || {}).await
    }

    /// The same, calling `progress` whenever the kernel has taken a part and not all.
    pub async fn send_noting(&self, mut block: Block, mut progress: impl FnMut()) -> (io::Result<()>, Block) {
        self.posted().await;
        while !block.is_empty() {
            let sending = match &self.kind {
                Kind::Ring(socket) => Each::Ring { future: socket.send(block, false) },
                Kind::Epoll(socket) => Each::Epoll { future: socket.send(block) },
                Kind::Guest(socket) => Each::Guest { future: socket.send(block) },
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
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        future_of_each!(self, socket => socket.readable())
    }

    pub(super) fn writable(&self) -> impl Future<Output = io::Result<()>> {
        future_of_each!(self, socket => socket.writable())
    }

    /// Ends one or both directions; errors mean that the peer was faster.
    pub fn shutdown(&self, how: Shutdown) {
        shutdown_fd(self.fd(), how);
    }

    /// True when the peer has ended the connection, or sent what nobody asked for: such a connection cannot carry a request. What has
    /// happened since the last turn of the loop may not be known.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        if self.is_receiving() {
            return self.has_received();
        }
        if matches!(&self.kind, Kind::Epoll(socket) if !socket.may_receive()) {
            return false;
        }
        match self.peek() {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// True when the peer has reset the connection: it neither sends any more nor takes anything. One that has only ended its direction
    /// may still read.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        poll_now(self.fd(), 0) != 0
    }

    /// True when a receive would be over at once: with bytes, the peer's end, or an error.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_received() || poll_now(self.fd(), libc::POLLIN) != 0
    }

    /// True when bytes of the peer wait to be received, with which a close would be a reset.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.has_received() || matches!(self.peek(), Ok(1..))
    }

    /// How much of one byte could be received now; 0 is the peer's end.
    fn peek(&self) -> io::Result<usize> {
        let mut byte = 0_u8;
        // SAFETY: one byte of room, peeked at, without waiting.
        let got = unsafe {
            libc::recv(self.fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// What the peer's kernel has let us know of the last `sent` bytes. Worth asking once the peer has ended its direction.
    #[must_use]
    pub fn receipt(&self, sent: usize) -> Receipt {
        super::receipt::ask(self.fd(), sent)
    }

    /// The address that the peer connected to; `None` for a unix socket.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.with_socket(|socket| socket.local_addr()).ok()?.as_socket()
    }

    /// Makes the close that follows a reset instead of an orderly end: the peer learns that what it got is not whole.
    pub fn reset_on_close(&self) {
        let _ = self.with_socket(|socket| socket.set_linger(Some(Duration::ZERO)));
    }

    /// The socket, if it is one of our ring's.
    #[cfg(test)]
    pub(super) fn on_ring(&self) -> Option<&RingSocket> {
        match &self.kind {
            Kind::Ring(socket) => Some(socket),
            _ => None,
        }
    }

    /// The same of our epoll's.
    #[cfg(test)]
    pub(super) fn on_epoll(&self) -> Option<&EpollSocket> {
        match &self.kind {
            Kind::Epoll(socket) => Some(socket),
            _ => None,
        }
    }

    pub(super) fn with_socket<T>(&self, ask: impl FnOnce(SockRef<'_>) -> T) -> T {
        // SAFETY: the descriptor lives as long as `self`, and so longer than this call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd()) };
        ask(SockRef::from(&fd))
    }
}

/// What is true of a socket at this moment, among `wanted` and the two that are always told: an error, and the end of both directions.
pub(super) fn poll_now(fd: RawFd, wanted: i16) -> i16 {
    let mut asked = libc::pollfd { fd, events: wanted, revents: 0 };
    // SAFETY: one live pollfd, and no waiting.
    unsafe { libc::poll(&raw mut asked, 1, 0) };
    asked.revents
}

/// `shutdown(2)`, errors ignored: the only one that can occur is that the connection is gone already.
pub fn shutdown_fd(fd: RawFd, how: Shutdown) {
    let how = match how {
        Shutdown::Read => libc::SHUT_RD,
        Shutdown::Write => libc::SHUT_WR,
        Shutdown::Both => libc::SHUT_RDWR,
    };
    // SAFETY: no memory is involved.
    unsafe { libc::shutdown(fd, how) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;
    use crate::net::testing::{on_each_driver, pair};
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::pin::pin;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Long for a test, short for a person; nothing is measured against it but "not before".
    const SOON: Duration = Duration::from_millis(30);

    fn block(bytes: &[u8]) -> Block {
        let mut block = Block::from_vec(Vec::with_capacity(bytes.len()));
        block.vec_mut().extend_from_slice(bytes);
        block
    }

    #[test]
    fn a_send_goes_on_after_partial_writes_until_a_slow_reader_has_all() {
        on_each_driver(|_| async {
            let (stream, mut peer) = pair();
            stream.with_socket(|socket| socket.set_send_buffer_size(64 << 10)).unwrap();
            let sent: Vec<u8> = (0..4_u32 << 20).map(|i| (i % 251) as u8).collect();
            let (begin, told) = channel();
            let reader = std::thread::spawn(move || {
                told.recv().unwrap();
                let (mut got, mut piece) = (Vec::new(), [0; 1_000]);
                loop {
                    match peer.read(&mut piece).unwrap() {
                        0 => return got,
                        received => got.extend_from_slice(&piece[..received]),
                    }
                }
            });
            let mut sending = pin!(stream.send(block(&sent)));
            let mut polled = false;
            let (result, back) = poll_fn(|cx| {
                let poll = sending.as_mut().poll(cx);
                if !polled {
                    assert!(poll.is_pending(), "4 MiB do not fit into the buffers of the sockets");
                    begin.send(()).unwrap();
                }
                polled = true;
                poll
            })
            .await;
            result.unwrap();
            assert!(back.is_empty());
            stream.shutdown(Shutdown::Write);
            assert!(reader.join().unwrap() == sent, "what arrived is what was sent");
        });
    }

    #[test]
    fn a_receive_takes_no_more_than_the_room_and_leaves_the_rest() {
        on_each_driver(|_| async {
            let (stream, mut peer) = pair();
            peer.write_all(b"abcdefghij").unwrap();
            let mut got = Vec::new();
            while got.len() < 10 {
                let block = Block::from_vec(Vec::with_capacity(3 + crate::net::block::TAILROOM));
                assert_eq!(block.room(), 3);
                let (received, block) = stream.receive(block).await;
                assert!((1..=3).contains(&received.unwrap()));
                got.extend_from_slice(block.unread());
            }
            assert_eq!(got, b"abcdefghij");
        });
    }

    #[test]
    fn a_receive_and_a_send_are_in_flight_at_once() {
        on_each_driver(|_| async {
            let (stream, mut peer) = pair();
            // submitted by the call, before the send
            let receiving = stream.receive(Block::from_vec(Vec::with_capacity(64)));
            stream.send(block(b"ping")).await.0.unwrap();
            let mut ping = [0; 4];
            peer.read_exact(&mut ping).unwrap();
            peer.write_all(b"pong").unwrap();
            let (received, got) = receiving.await;
            assert_eq!((received.unwrap(), got.unread(), ping), (4, &b"pong"[..], *b"ping"));
        });
    }

    #[test]
    fn a_watch_ends_a_receive_and_says_so() {
        on_each_driver(|timers| async move {
            for how in [Shutdown::Read, Shutdown::Both] {
                let (stream, mut peer) = pair();
                let watch = timers.watch();
                let deadline = clock::now() + SOON;
                let guard = watch.over(&stream, deadline, how);
                let (received, got) = stream.receive(Block::from_vec(Vec::with_capacity(64))).await;
                drop(guard);
                assert!(!matches!(received, Ok(1..)) && got.is_empty());
                assert!(watch.expired() && clock::now() >= deadline);
                let (sent, _) = stream.send(block(b"bye")).await;
                assert_eq!(sent.is_ok(), how == Shutdown::Read, "the other direction");
                // not a drop: the ring would close it with its next turn, and this thread waits here
                stream.shutdown(Shutdown::Both);
                let mut got = Vec::new();
                peer.read_to_end(&mut got).unwrap();
                assert_eq!(got, if how == Shutdown::Read { &b"bye"[..] } else { b"" });
            }
        });
    }

    #[test]
    fn a_peer_that_ends_is_not_taken_for_a_deadline() {
        on_each_driver(|timers| async move {
            let (stream, peer) = pair();
            let watch = timers.watch();
            let _guard = watch.over(&stream, clock::now() + Duration::from_secs(3_600), Shutdown::Both);
            drop(peer);
            let (received, _) = stream.receive(Block::from_vec(Vec::with_capacity(64))).await;
            assert_eq!(received.unwrap(), 0);
            assert!(!watch.expired());
        });
    }

    #[test]
    fn a_moved_deadline_counts_and_not_the_first_one() {
        on_each_driver(|timers| async move {
            let (stream, _peer) = pair();
            let watch = timers.watch();
            let began = clock::now();
            let _guard = watch.over(&stream, began + SOON, Shutdown::Read);
            watch.move_to(began + 3 * SOON);
            let _ = stream.receive(Block::from_vec(Vec::with_capacity(64))).await;
            assert!(watch.expired() && clock::now() >= began + 3 * SOON);
        });
    }
}
