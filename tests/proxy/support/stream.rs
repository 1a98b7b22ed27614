//! A byte stream over TCP or a unix socket, with the few socket options that tests need.

use super::PATIENCE;
use super::tls::{Authority, Session};
use rustls::ServerConfig;
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

/// A connected socket. Reads and writes through `&Stream`, so that another thread may cut it.
pub(crate) enum Stream {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// A unix stream socket.
    Unix(UnixStream),
    /// TLS over IPv4 or IPv6.
    Tls(Box<Session>),
}

impl Stream {
    /// Connects to `ip:port` or `unix:/path`.
    pub(crate) fn connect(address: &str) -> io::Result<Self> {
        let stream = match address.strip_prefix("unix:") {
            Some(path) => Self::Unix(UnixStream::connect(path)?),
            None => {
                let address = address.parse().map_err(io::Error::other)?;
                let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_nodelay(true)?;
                Self::Tcp(stream)
            }
        };
        stream.limit(PATIENCE)?;
        Ok(stream)
    }

    /// Speaks TLS over what it is, as a client that asks for `localhost`.
    pub(crate) fn encrypted(self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => Session::connect(socket, Authority::shared().client(), "localhost")
                .map(|session| Self::Tls(Box::new(session))),
            other => Ok(other),
        }
    }

    /// Speaks TLS over what it is, as a server.
    pub(crate) fn serving(self, rules: Arc<ServerConfig>) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => Session::accept(socket, rules).map(|session| Self::Tls(Box::new(session))),
            other => Ok(other),
        }
    }

    /// Its session, if it has one.
    pub(crate) fn session(&self) -> Option<&Session> {
        match self {
            Self::Tls(session) => Some(session),
            _ => None,
        }
    }

    /// Connects to `ip:port` from another address of this host.
    pub(crate) fn connect_from(source: &str, address: &str) -> io::Result<Self> {
        let source: IpAddr = source.parse().map_err(io::Error::other)?;
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect_timeout(&address.into(), PATIENCE)?;
        let stream = Self::Tcp(socket.into());
        stream.limit(PATIENCE)?;
        Ok(stream)
    }

    /// No read or write may take longer than `timeout`.
    pub(crate) fn limit(&self, timeout: Duration) -> io::Result<()> {
        let socket = self.socket();
        socket.set_read_timeout(Some(timeout))?;
        socket.set_write_timeout(Some(timeout))
    }

    /// Ends both directions at once; a peer sees the end of the stream.
    pub(crate) fn cut(&self) {
        // fails when the peer was faster, which is as good
        let _ = self.socket().shutdown(Shutdown::Both);
    }

    /// Ends the direction that this side sends in; the other goes on.
    pub(crate) fn end(&self) {
        if let Self::Tls(session) = self {
            session.end();
        }
        // fails when the peer has reset the connection, which whoever reads finds out
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// Waits until there is something to read, and leaves it there; whether there was.
    pub(crate) fn wait_readable(&self) -> bool {
        if self.session().is_some_and(Session::has_plaintext) {
            return true;
        }
        let mut byte = [MaybeUninit::uninit()];
        uninterrupted(|| self.socket().peek(&mut byte)).is_ok_and(|peeked| peeked > 0)
    }

    /// The close to come sends RST instead of FIN.
    pub(crate) fn reset_on_close(&self) {
        self.socket().set_linger(Some(Duration::ZERO)).expect("SO_LINGER is always allowed");
    }

    /// The kernel's buffers, small so that back-pressure is felt early.
    pub(crate) fn set_small_buffers(&self) {
        self.socket().set_recv_buffer_size(64 << 10).expect("SO_RCVBUF is always allowed");
        self.socket().set_send_buffer_size(64 << 10).expect("SO_SNDBUF is always allowed");
    }

    fn socket(&self) -> SockRef<'_> {
        match self {
            Self::Tcp(stream) => SockRef::from(stream),
            Self::Unix(stream) => SockRef::from(stream),
            Self::Tls(session) => SockRef::from(&session.socket),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Stream::Tcp(stream) => (&mut &*stream).read(into),
            Stream::Unix(stream) => (&mut &*stream).read(into),
            Stream::Tls(session) => session.read(into),
        })
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
            Stream::Tls(session) => session.write(bytes),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel does not restart a call on a socket that has a timeout.
fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
