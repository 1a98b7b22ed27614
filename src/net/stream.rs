//! A connected stream socket, TCP or unix, on whichever driver runs.
//!
//! One type for all, because the ring and epoll only see a descriptor. Receive and send may be in flight at once; each takes a
//! [`Block`] and gives it back. There are no timeouts here: whoever waits arms a [`super::timer::Watch`] on the descriptor first.

use super::block::Block;
use crate::config::Address;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::TcpStream;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::cell::UnsafeCell;
use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A stream socket owned by this core.
#[derive(Debug)]
pub struct Stream {
    inner: UnsafeCell<TcpStream>,
}

impl Stream {
    /// Takes over a non-blocking, connected (or connecting) stream socket. Must be called inside a worker's runtime.
    ///
    /// # Errors
    /// What the driver says when it cannot register the descriptor (epoll only).
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned and handed over; a TcpStream of std is nothing but the descriptor.
        let socket = unsafe { std::net::TcpStream::from_raw_fd(fd.into_raw_fd()) };
        Ok(Self { inner: UnsafeCell::new(TcpStream::from_std(socket)?) })
    }

    /// The descriptor, valid as long as `self`.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.shared().as_raw_fd()
    }

    /// Receives into the block's room; the operation is submitted by this call, not by the first poll.
    /// The block comes back in any case, with the bytes appended; `Ok(0)` is the peer's end.
    pub fn receive(&self, into: Block) -> impl Future<Output = (io::Result<usize>, Block)> + use<'_> {
        // SAFETY: `read` and `write` of monoio only clone the shared descriptor out of `self` before they return; no reference
        // to the TcpStream lives in their futures' state that another call could alias mutably (its own `Split` rests on the same).
        unsafe { &mut *self.inner.get() }.read(into)
    }

    /// Sends all that is unread in the block, which comes back with nothing unread, or an error.
    pub async fn send(&self, block: Block) -> (io::Result<()>, Block) {
        self.send_noting(block, || {}).await
    }

    /// The same, calling `progress` whenever the kernel has taken a part and not all.
    pub async fn send_noting(&self, mut block: Block, mut progress: impl FnMut()) -> (io::Result<()>, Block) {
        while !block.is_empty() {
            // SAFETY: as in `receive`.
            let (result, back) = unsafe { &mut *self.inner.get() }.write(block).await;
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
    pub async fn readable(&self) -> io::Result<()> {
        self.shared().readable(false).await
    }

    async fn writable(&self) -> io::Result<()> {
        self.shared().writable(false).await
    }

    /// Ends one or both directions; errors mean that the peer was faster.
    pub fn shutdown(&self, how: Shutdown) {
        shutdown_fd(self.fd(), how);
    }

    /// True when the peer has ended the connection, or sent what nobody asked for: such a connection cannot carry a request.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        let mut byte = 0_u8;
        // SAFETY: one byte of room, peeked at, without waiting.
        let got = unsafe {
            libc::recv(self.fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        got >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
    }

    /// What the peer's kernel has let us know of the last `sent` bytes. Worth asking once the peer has ended its direction.
    #[must_use]
    pub fn receipt(&self, sent: usize) -> Receipt {
        receipt(self.fd(), sent)
    }

    /// The address that the peer connected to; `None` for a unix socket.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.with_socket(|socket| socket.local_addr()).ok()?.as_socket()
    }

    /// Makes the close that follows a reset instead of an orderly end: the peer learns that what it got is not whole.
    pub fn reset_on_close(&self) {
        let _ = self.with_socket(|socket| socket.set_linger(Some(std::time::Duration::ZERO)));
    }

    fn with_socket<T>(&self, ask: impl FnOnce(socket2::SockRef<'_>) -> T) -> T {
        // SAFETY: the descriptor lives as long as `self`, and so longer than this call.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd()) };
        ask(socket2::SockRef::from(&fd))
    }

    fn shared(&self) -> &TcpStream {
        // SAFETY: the exclusive references that `receive` and `send` make end before they return.
        unsafe { &*self.inner.get() }
    }
}

/// What is known of bytes that were sent to a peer which has ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The peer's kernel has refused the connection's further use without acknowledging one of them: nobody has read them.
    Never,
    /// Some were acknowledged, or nothing can be known: they may have been read.
    Perhaps,
    /// Not known yet.
    Pending,
}

/// The end of the peer's direction alone proves nothing, since it may still read. But when a reset follows, its socket is closed, and
/// `tcpi_state` says so; what had been acknowledged until then is no longer in the send queue. A reset without an end before it (a
/// crash, a close with unread bytes) is no proof either: its receiver may have read what it had not acknowledged yet.
fn receipt(fd: RawFd, sent: usize) -> Receipt {
    /// `TCP_CLOSE` of `tcp_states.h`
    const CLOSED: u8 = 7;
    let mut queued: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (TIOCOUTQ) writes one int, which is live.
    if unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut queued) } < 0 {
        return Receipt::Perhaps;
    }
    // SAFETY: `tcp_info` is plain numbers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("small");
    // SAFETY: both pointers are to live variables, and `length` says how much room the first has.
    let got =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length) };
    match usize::try_from(queued) {
        Ok(queued) if got == 0 && sent > 0 && queued >= sent => match info.tcpi_state {
            CLOSED => Receipt::Never,
            _ => Receipt::Pending,
        },
        _ => Receipt::Perhaps,
    }
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

/// Starts to connect. The socket exists at once, so that a watch can be armed on it before [`Connecting::established`] is awaited.
///
/// # Errors
/// No descriptor is left, or the kernel refuses at once (no route, no such unix socket).
pub fn connect(address: &Address) -> io::Result<Connecting> {
    let (domain, protocol, address) = match address {
        Address::Tcp(address) => (Domain::for_address(*address), Some(Protocol::TCP), SockAddr::from(*address)),
        Address::Unix(path) => (Domain::UNIX, None, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), protocol)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    match socket.connect(&address) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(Connecting { stream: Stream::from_fd(socket.into())? })
}

/// A connection that is being made.
#[derive(Debug)]
pub struct Connecting {
    stream: Stream,
}

impl Connecting {
    /// The descriptor, for a watch.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.stream.fd()
    }

    /// Waits until the connection stands.
    ///
    /// # Errors
    /// Refused, unreachable, or shut down by a watch.
    pub async fn established(self) -> io::Result<Stream> {
        self.stream.writable().await?;
        // a socket that was shut down while connecting has no pending error, but no peer either
        self.stream.with_socket(|socket| match socket.take_error()? {
            Some(error) => Err(error),
            None => socket.peer_addr(),
        })?;
        Ok(self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::time::Duration;

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

    /// A client and its server, that have exchanged something before.
    fn pair() -> (StdStream, StdStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"first").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        (client, server)
    }

    fn wait_for_end(client: &mut StdStream) {
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }

    /// The verdict, once there is one, or the last word after three seconds.
    fn verdict(client: &StdStream) -> Receipt {
        for _ in 0..3_000 {
            match receipt(client.as_raw_fd(), REQUEST.len()) {
                Receipt::Pending => std::thread::park_timeout(Duration::from_millis(1)),
                known => return known,
            }
        }
        Receipt::Pending
    }

    #[test]
    fn what_was_sent_to_a_closed_socket_was_never_read() {
        let (mut client, server) = pair();
        drop(server);
        wait_for_end(&mut client);
        assert_eq!(receipt(client.as_raw_fd(), 0), Receipt::Perhaps, "nothing was sent that could be proved unread");
        client.write_all(REQUEST).unwrap();
        assert_eq!(verdict(&client), Receipt::Never);
        wait_for_end(&mut client);
    }

    #[test]
    fn what_was_read_before_the_end_may_have_been_acted_on() {
        let (mut client, mut server) = pair();
        client.write_all(REQUEST).unwrap();
        server.read_exact(&mut [0; REQUEST.len()]).unwrap();
        drop(server);
        wait_for_end(&mut client);
        assert_eq!(verdict(&client), Receipt::Perhaps);
    }

    #[test]
    fn what_lies_unread_when_the_socket_closes_is_no_proof() {
        let (mut client, server) = pair();
        client.write_all(REQUEST).unwrap();
        let mut byte = [0; 1];
        assert_eq!(server.peek(&mut byte).unwrap(), 1, "it has arrived");
        drop(server);
        assert!(client.read(&mut byte).is_err(), "a reset, without an end before it");
    }

    #[test]
    fn a_server_that_has_only_stopped_writing_may_still_read() {
        let (mut client, mut server) = pair();
        server.shutdown(Shutdown::Write).unwrap();
        wait_for_end(&mut client);
        client.write_all(REQUEST).unwrap();
        assert_eq!(verdict(&client), Receipt::Perhaps);
        server.read_exact(&mut [0; REQUEST.len()]).unwrap();
        drop(server);
        assert_eq!(verdict(&client), Receipt::Perhaps);
    }

    #[test]
    fn a_unix_socket_knows_nothing() {
        let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        client.write_all(REQUEST).unwrap();
        drop(server);
        assert_eq!(receipt(client.as_raw_fd(), REQUEST.len()), Receipt::Perhaps);
    }
}
