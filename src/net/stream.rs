//! A connected stream socket, TCP or unix, on whichever driver runs.
//!
//! One type for all, because the ring and epoll only see a descriptor. Receive and send may be in flight at once; each takes a
//! [`Block`] and gives it back. There are no timeouts here: whoever waits arms a [`super::timer::Watch`] on the descriptor first.

use super::block::Block;
use super::receipt::Receipt;
use super::ring::{self, socket::Socket as RingSocket};
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use pin_project_lite::pin_project;
use socket2::SockRef;
use std::cell::UnsafeCell;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a send buffer takes whatever its size, when everything sent before has been answered.
pub const SEND_AT_ONCE: usize = 4 << 10;

/// A stream socket owned by this core.
#[derive(Debug)]
pub struct Stream {
    kind: Kind,
}

/// Whose event loop it belongs to.
#[derive(Debug)]
enum Kind {
    Ring(RingSocket),
    /// Boxed, because it is four times as large.
    Monoio(Box<UnsafeCell<TcpStream>>),
}

pin_project! {
    /// A future of either event loop.
    #[project = EitherPinned]
    enum Either<R, M> {
        Ring { #[pin] future: R },
        Monoio { #[pin] future: M },
    }
}

impl<T, R: Future<Output = T>, M: Future<Output = T>> Future for Either<R, M> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.project() {
            EitherPinned::Ring { future } => future.poll(cx),
            EitherPinned::Monoio { future } => future.poll(cx),
        }
    }
}

impl Stream {
    /// Takes over a non-blocking, connected (or connecting) stream socket. Must be called inside a worker's runtime.
    ///
    /// # Errors
    /// What the driver says when it cannot register the descriptor (epoll only).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if let Some(ring) = ring::current() {
            return Ok(Self { kind: Kind::Ring(RingSocket::new(ring, fd)) });
        }
        // SAFETY: the descriptor is owned and handed over; a TcpStream of std is nothing but the descriptor.
        let socket = unsafe { std::net::TcpStream::from_raw_fd(fd.into_raw_fd()) };
        Ok(Self { kind: Kind::Monoio(Box::new(UnsafeCell::new(TcpStream::from_std(socket)?))) })
    }

    /// The descriptor, valid as long as `self`.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        match &self.kind {
            Kind::Ring(socket) => socket.fd(),
            Kind::Monoio(stream) => shared(stream).as_raw_fd(),
        }
    }

    /// Has the kernel receive what comes, as long as it is small, into buffers of its own choice. True: it does, and who receives need
    /// not bring a block.
    pub fn listen(&self) -> bool {
        matches!(&self.kind, Kind::Ring(socket) if socket.listen())
    }

    /// The socket, on an event loop where what was received belongs to it and not to who waits.
    pub(super) fn on_ring(&self) -> Option<&RingSocket> {
        match &self.kind {
            Kind::Ring(socket) => Some(socket),
            Kind::Monoio(_) => None,
        }
    }

    /// Receives into the block's room; the operation is submitted by this call, not by the first poll.
    /// The block comes back in any case, or another in the place of an empty one, with the bytes appended; `Ok(0)` is the peer's end.
    pub fn receive(&self, into: Block) -> impl Future<Output = (io::Result<usize>, Block)> + use<'_> {
        match &self.kind {
            Kind::Ring(socket) => Either::Ring { future: socket.receive(into) },
            Kind::Monoio(stream) => {
                debug_assert!(into.room() > 0, "a receive without room looks like the peer's end");
                Either::Monoio { future: exclusive(stream).read(into) }
            }
        }
    }

    /// Sends what is small and is taken by the kernel at once, without waiting for it and without hearing of it: if it fails, the
    /// connection is shut down, which whoever receives will notice. Given back where that cannot be.
    pub fn post(&self, block: Block) -> Result<(), Block> {
        match &self.kind {
            Kind::Ring(socket) if block.unread().len() <= SEND_AT_ONCE => socket.post(block),
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
                Kind::Ring(socket) => Either::Ring { future: socket.send(block, false) },
                Kind::Monoio(stream) => Either::Monoio { future: exclusive(stream).write(block) },
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
        match &self.kind {
            Kind::Ring(socket) => Either::Ring { future: socket.readable() },
            Kind::Monoio(stream) => Either::Monoio { future: shared(stream).readable(false) },
        }
    }

    pub(super) fn writable(&self) -> impl Future<Output = io::Result<()>> {
        match &self.kind {
            Kind::Ring(socket) => Either::Ring { future: socket.writable() },
            Kind::Monoio(stream) => Either::Monoio { future: shared(stream).writable(false) },
        }
    }

    /// Ends one or both directions; errors mean that the peer was faster.
    pub fn shutdown(&self, how: Shutdown) {
        shutdown_fd(self.fd(), how);
    }

    /// True when the peer has ended the connection, or sent what nobody asked for: such a connection cannot carry a request.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        if let Some(socket) = self.on_ring()
            && socket.is_receiving()
        {
            return socket.has_received();
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
        self.on_ring().is_some_and(RingSocket::has_received) || poll_now(self.fd(), libc::POLLIN) != 0
    }

    /// True when bytes of the peer wait to be received, with which a close would be a reset.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        let taken_in = self.on_ring().is_some_and(RingSocket::has_received);
        taken_in || matches!(self.peek(), Ok(1..))
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

    pub(super) fn with_socket<T>(&self, ask: impl FnOnce(SockRef<'_>) -> T) -> T {
        // SAFETY: the descriptor lives as long as `self`, and so longer than this call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd()) };
        ask(SockRef::from(&fd))
    }
}

fn shared(stream: &UnsafeCell<TcpStream>) -> &TcpStream {
    // SAFETY: the exclusive references that `receive` and `send` make end before they return.
    unsafe { &*stream.get() }
}

#[expect(clippy::mut_from_ref, reason = "monoio wants it; see below")]
fn exclusive(stream: &UnsafeCell<TcpStream>) -> &mut TcpStream {
    // SAFETY: `read` and `write` of monoio only clone the shared descriptor out of it before they return; no reference to the
    // TcpStream lives in their futures' state that another call could alias mutably (its own `Split` rests on the same).
    unsafe { &mut *stream.get() }
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
