//! A connected stream socket, TCP or unix, plain or with TLS over it ([`super::tls`]), on whichever event loop runs ([`super::plain`]).
//!
//! One type for all, because whoever has one sees bytes. Receive and send may be under way at once; each takes a [`Block`] and gives it
//! back. What was received belongs to the socket and not to whoever waits, so a wait may be dropped. There are no timeouts here: whoever
//! waits arms a [`super::timer::Watch`] on the descriptor first.

use super::block::Block;
use super::lane::Lane;
use super::lane::socket::{self as lane, LaneSocket};
use super::plain::Plain;
use super::receipt::Receipt;
use super::tls::Session;
use pin_project_lite::pin_project;
use socket2::SockRef;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a send buffer takes whatever its size, when everything sent before has been answered.
pub const SEND_AT_ONCE: usize = 4 << 10;

/// What a receive has come to, with the block it went into.
pub type Received = (io::Result<usize>, Block);

/// A stream socket owned by this core.
#[derive(Debug)]
pub struct Stream {
    plain: Plain,
    tls: Option<Box<Session>>,
}

/// A wait for a session, boxed so that a plain stream's is no larger for it.
pub(super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

pin_project! {
    /// A future of a plain stream or of a session.
    #[project = EitherPinned]
    enum Either<P, S> {
        Plain { #[pin] future: P },
        Tls { #[pin] future: S },
    }
}

impl<T, P: Future<Output = T>, S: Future<Output = T>> Future for Either<P, S> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.project() {
            EitherPinned::Plain { future } => future.poll(cx),
            EitherPinned::Tls { future } => future.poll(cx),
        }
    }
}

/// A receive of what a session has decrypted.
struct ReceiveTls<'a> {
    stream: &'a Stream,
    into: Option<Block>,
}

impl Future for ReceiveTls<'_> {
    type Output = Received;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Received> {
        let stream = self.stream;
        stream.poll_received(&mut self.into, cx)
    }
}

impl Stream {
    /// Takes over a non-blocking, connected stream socket. Must be called inside a worker's runtime.
    ///
    /// # Errors
    /// What the driver says when it cannot register the descriptor (epoll only).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { plain: Plain::from_fd(fd)?, tls: None })
    }

    /// The same of one that is still connecting.
    pub(super) fn from_connecting_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { plain: Plain::from_connecting_fd(fd)?, tls: None })
    }

    /// One end of a lane ([`super::lane`]).
    #[must_use]
    pub fn of_lane(lane: &Rc<Lane>) -> Self {
        Self { plain: Plain::of_lane(lane), tls: None }
    }

    /// Whether it is one of many on one connection, so that its end is not the connection's.
    #[must_use]
    pub fn is_lane(&self) -> bool {
        self.plain.lane().is_some()
    }

    /// Of a lane that only carries a sign: whether it was shut down for reading since this was asked last.
    #[must_use]
    pub fn hear(&self) -> bool {
        self.plain.lane().is_some_and(LaneSocket::hear)
    }

    /// Whether what it carries is encrypted on its way.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some() || self.plain.lane().is_some_and(LaneSocket::is_encrypted)
    }

    /// The socket itself, for a session's records.
    pub(super) fn plain(&self) -> &Plain {
        &self.plain
    }

    /// From now on what is sent and received goes through this session, whose handshake is over.
    pub(super) fn set_session(&mut self, session: Box<Session>) {
        self.tls = Some(session);
    }

    /// Its session; `None`: it is plain.
    #[must_use]
    pub fn tls(&self) -> Option<&Session> {
        self.tls.as_deref()
    }

    /// The descriptor, valid as long as `self`.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.plain.fd()
    }

    /// Has what comes received into blocks that the event loop chooses when it is there, as long as it is small. True: whoever receives need
    /// not bring a block.
    pub fn listen(&self) -> bool {
        self.plain.listen()
    }

    /// Receives into the block's room; where operations are submitted, by this call and not by the first poll.
    /// The block comes back in any case, or another in the place of an empty one, with the bytes appended; `Ok(0)` is the peer's end.
    pub fn receive(&self, into: Block) -> impl Future<Output = Received> + use<'_> {
        match &self.tls {
            None => Either::Plain { future: self.plain.receive(into) },
            Some(session) => {
                let into = Some(session.ask(&self.plain, into));
                Either::Tls { future: ReceiveTls { stream: self, into } }
            }
        }
    }

    /// The same for somebody who will come back for the result ([`Stream::poll_received`]) with the block that is returned, if one is.
    pub(super) fn ask(&self, into: Block) -> Option<Block> {
        match &self.tls {
            None => self.plain.ask(into),
            Some(session) => Some(session.ask(&self.plain, into)),
        }
    }

    /// Takes what has been received. `into` is what [`Stream::ask`] gave back.
    pub(super) fn poll_received(&self, into: &mut Option<Block>, cx: &mut Context<'_>) -> Poll<Received> {
        match &self.tls {
            None => self.plain.poll_received(into, cx),
            Some(session) => session.poll_received(&self.plain, into, cx),
        }
    }

    /// Whether a receive is in flight, or over and not taken yet.
    pub(super) fn is_receiving(&self) -> bool {
        self.plain.is_receiving()
    }

    /// Whether something was received, or the end, and not taken yet.
    fn has_received(&self) -> bool {
        self.plain.has_received() || self.tls.as_ref().is_some_and(|session| session.has_received())
    }

    /// Whoever reads from the descriptor by himself, after [`Stream::readable`], has found nothing more.
    pub(super) fn found_empty(&self) {
        self.plain.found_empty();
    }

    /// Sends what is small and is taken by the kernel at once, without waiting for it and without hearing of it: if it fails, the
    /// connection is shut down, which whoever receives will notice. Given back, or what is left of it, where that cannot be; who then sends
    /// it, though nothing may be unread in it, has the rest sent.
    pub fn post(&self, block: Block) -> Result<(), Block> {
        match &self.tls {
            None => self.plain.post(block),
            Some(session) => session.post(&self.plain, block),
        }
    }

    /// Waits until what was posted is sent, or has failed; a drop would take it back.
    pub fn posted(&self) -> impl Future<Output = ()> {
        self.plain.posted()
    }

    /// Sends what is unread in the block, like [`Stream::send`]; nobody waits for that, because what was sent last has been answered,
    /// and the whole of it is no more than [`SEND_AT_ONCE`].
    pub fn send_unawaited(&self, block: Block) -> impl Future<Output = (io::Result<()>, Block)> {
        match &self.tls {
            None => Either::Plain { future: self.plain.send_unawaited(block) },
            Some(session) => Either::Tls { future: session.send_unawaited(&self.plain, block) },
        }
    }

    /// Sends all that is unread in the block, which comes back with nothing unread, or an error.
    pub fn send(&self, block: Block) -> impl Future<Output = (io::Result<()>, Block)> {
        self.send_noting(block, || {})
    }

    /// The same, calling `progress` whenever the kernel has taken a part and not all.
    pub fn send_noting<'a, P: FnMut() + 'a>(
        &'a self,
        block: Block,
        progress: P,
    ) -> impl Future<Output = (io::Result<()>, Block)> + use<'a, P> {
        match &self.tls {
            None => Either::Plain { future: self.plain.send_noting(block, progress) },
            Some(session) => Either::Tls { future: session.send(&self.plain, block, progress) },
        }
    }

    /// What is sent next is the last: a session ends with it (close_notify), so that the peer knows that it has all (RFC 8446 §6.1).
    pub fn end_with_next_send(&self) {
        if let Some(session) = &self.tls {
            session.end_with_next_send();
        }
    }

    /// Ends our direction, when all that was to be sent has been, and lets the peer know that this was all.
    pub async fn end(&self) -> io::Result<()> {
        if let Some(session) = &self.tls {
            session.end_with_next_send();
            session.send(&self.plain, Block::default(), || {}).await.0?;
        }
        self.shutdown(Shutdown::Write);
        Ok(())
    }

    /// Lets the peer of a connection on which nothing is under way know that nothing more will come, as far as that can be done without
    /// waiting.
    pub fn say_farewell(&self) {
        if let Some(session) = &self.tls {
            session.say_farewell(&self.plain);
        }
    }

    /// Waits until a receive would not wait. Holds no buffer and may be dropped.
    pub fn readable(&self) -> impl Future<Output = io::Result<()>> {
        match &self.tls {
            None => Either::Plain { future: self.plain.readable() },
            Some(session) => Either::Tls { future: session.readable(&self.plain) },
        }
    }

    pub(super) fn writable(&self) -> impl Future<Output = io::Result<()>> {
        self.plain.writable()
    }

    /// Ends one or both directions; errors mean that the peer was faster.
    pub fn shutdown(&self, how: Shutdown) {
        shutdown_fd(self.fd(), how);
    }

    /// True when the peer has ended the connection, or sent what nobody asked for: such a connection cannot carry a request. What has
    /// happened since the last turn of the loop may not be known.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        match &self.tls {
            None => self.plain.is_spent(),
            Some(session) => session.is_spent(&self.plain),
        }
    }

    /// True when the peer has reset the connection: it neither sends any more nor takes anything. One that has only ended its direction
    /// may still read.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        poll_now(self.fd(), 0) != 0
    }

    /// True when a receive would be over at once: with bytes, the peer's end, or an error. Of a session: when something is there that may be
    /// the beginning of a record.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_received() || poll_now(self.fd(), libc::POLLIN) != 0
    }

    /// True when bytes of the peer wait to be received, with which a close would be a reset.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.has_received() || matches!(self.plain.peek(), Ok(1..))
    }

    /// Whether a receive has filled its block, so that more may be there already. Records do not end where a block does.
    #[must_use]
    pub fn has_filled(&self, block: &Block) -> bool {
        block.room() == 0 || (self.tls.is_some() && block.room() < block.all().len() / 2)
    }

    /// What the peer's kernel has let us know of the last `sent` bytes. Worth asking once the peer has ended its direction.
    #[must_use]
    pub fn receipt(&self, sent: usize) -> Receipt {
        let sent = self.tls.as_ref().map_or(Some(sent), |session| session.wire_bytes(sent));
        sent.map_or(Receipt::Perhaps, |sent| super::receipt::ask(self.fd(), sent))
    }

    /// The address that the peer connected to; `None` for a unix socket.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self.plain.lane() {
            Some(lane) => lane.local_address(),
            None => self.with_socket(|socket| socket.local_addr()).ok()?.as_socket(),
        }
    }

    /// Makes the close that follows a reset instead of an orderly end: the peer learns that what it got is not whole.
    pub fn reset_on_close(&self) {
        if let Some(session) = &self.tls {
            session.cut();
        }
        if let Some(lane) = self.plain.lane() {
            return lane.shutdown(Shutdown::Both);
        }
        let _ = self.with_socket(|socket| socket.set_linger(Some(Duration::ZERO)));
    }

    /// The socket, if it is one of our ring's.
    #[cfg(test)]
    pub(super) fn on_ring(&self) -> Option<&super::ring::socket::Socket> {
        self.plain.on_ring()
    }

    /// The same of our epoll's.
    #[cfg(test)]
    pub(super) fn on_epoll(&self) -> Option<&super::epoll::socket::Socket> {
        self.plain.on_epoll()
    }

    pub(super) fn with_socket<T>(&self, ask: impl FnOnce(SockRef<'_>) -> T) -> T {
        self.plain.with_socket(ask)
    }
}

/// What is true of a socket at this moment, among `wanted` and the two that are always told: an error, and the end of both directions.
pub(super) fn poll_now(fd: RawFd, wanted: i16) -> i16 {
    if lane::is_lane(fd) {
        return lane::poll_now(fd, wanted);
    }
    let mut asked = libc::pollfd { fd, events: wanted, revents: 0 };
    // SAFETY: one live pollfd, and no waiting.
    unsafe { libc::poll(&raw mut asked, 1, 0) };
    asked.revents
}

/// `shutdown(2)`, errors ignored: the only one that can occur is that the connection is gone already.
pub fn shutdown_fd(fd: RawFd, how: Shutdown) {
    if lane::is_lane(fd) {
        return lane::shutdown_fd(fd, how);
    }
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
