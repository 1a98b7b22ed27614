//! The connection that carries a protocol: a non-blocking socket, with TLS over it or without.

use super::Failure;
use super::tls::{Secure, TlsClient};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What came of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Later,
    /// No more will come.
    End,
}

/// How far a connection is with its begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not there yet: TLS is being agreed on.
    Later,
    /// Bytes may go.
    Ready,
}

/// A connection, which never blocks.
#[derive(Debug)]
pub enum Link {
    /// As bytes are.
    Plain(Tcp),
    /// Within TLS.
    Secure(Box<Secure>),
}

impl Link {
    /// Begins to connect, with TLS if `tls` says how.
    ///
    /// # Errors
    /// It cannot even begin.
    pub fn connect(address: SocketAddr, tls: Option<&TlsClient>) -> Result<Self, Failure> {
        let tcp = Tcp::connect(address)?;
        Ok(match tls {
            None => Self::Plain(tcp),
            Some(tls) => Self::Secure(Box::new(Secure::new(tcp, tls)?)),
        })
    }

    /// What an event loop waits for.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(tcp) => tcp.0.as_fd(),
            Self::Secure(secure) => secure.tcp.0.as_fd(),
        }
    }

    /// The socket is ready, and nothing was sent yet: whether the connection is.
    ///
    /// # Errors
    /// It is not connected, or TLS could not be agreed on.
    pub fn connected(&mut self) -> Result<Readiness, Failure> {
        match self {
            Self::Plain(tcp) => tcp.connected().map(|()| Readiness::Ready),
            Self::Secure(secure) => secure.connected(),
        }
    }

    /// Whether TLS went on with an earlier session; `None`: there is no TLS, or not yet.
    #[must_use]
    pub fn is_resumed(&self) -> Option<bool> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(secure) => secure.is_resumed(),
        }
    }

    /// Takes bytes to send, and says how many; 0: later. What TLS has taken and not sent goes with [`Link::flush`].
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        match self {
            Self::Plain(tcp) => tcp.send(bytes),
            Self::Secure(secure) => secure.send(bytes),
        }
    }

    /// Sends what was taken and did not go; says whether all has gone.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Secure(secure) => secure.flush(),
        }
    }

    /// Receives what is there.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn receive(&mut self, into: &mut [u8]) -> Result<Taken, Failure> {
        match self {
            Self::Plain(tcp) => tcp.receive(into),
            Self::Secure(secure) => secure.receive(into),
        }
    }

    /// Whether a read that filled `count` of `room` bytes has taken all that the socket had. With TLS that is not known.
    #[must_use]
    pub fn took_all(&self, count: usize, room: usize) -> bool {
        matches!(self, Self::Plain(_)) && count < room
    }
}

/// TCP without delay.
#[derive(Debug)]
pub struct Tcp(OwnedFd);

impl Tcp {
    fn connect(address: SocketAddr) -> Result<Self, Failure> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).map_err(failure)?;
        sockopt::set_tcp_nodelay(&socket, true).map_err(failure)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(Self(socket)),
            Err(error) => Err(failure(error)),
        }
    }

    pub(super) fn connected(&self) -> Result<(), Failure> {
        match sockopt::socket_error(&self.0) {
            Ok(Ok(())) => {}
            Ok(Err(error)) | Err(error) => return Err(failure(error)),
        }
        // while ports run short a connection to a port where nobody listens may be answered by itself (RFC 9293 §3.5)
        match (rustix::net::getsockname(&self.0), rustix::net::getpeername(&self.0)) {
            (Ok(here), Ok(Some(there))) if here == there => Err(Failure::Refused),
            _ => Ok(()),
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Failure> {
        match rustix::net::send(&self.0, bytes, rustix::net::SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(failure(error)),
        }
    }

    fn receive(&self, into: &mut [u8]) -> Result<Taken, Failure> {
        match rustix::net::recv(&self.0, into, rustix::net::RecvFlags::empty()) {
            Ok((0, _)) => Ok(Taken::End),
            Ok((received, _)) => Ok(Taken::Bytes(received)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Taken::Later),
            Err(error) => Err(failure(error)),
        }
    }
}

impl io::Read for &Tcp {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (received, _) = rustix::net::recv(&self.0, into, rustix::net::RecvFlags::empty())?;
        Ok(received)
    }
}

impl io::Write for &Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, rustix::net::SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whose fault an error of a socket is.
pub(super) fn failure_of(error: &io::Error) -> Failure {
    Errno::from_io_error(error).map_or(Failure::Network, failure)
}

/// Whose fault an error is.
fn failure(error: Errno) -> Failure {
    match error {
        Errno::CONNREFUSED => Failure::Refused,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED => Failure::Reset,
        Errno::TIMEDOUT => Failure::Timeout,
        Errno::MFILE
        | Errno::NFILE
        | Errno::NOMEM
        | Errno::NOBUFS
        | Errno::ADDRNOTAVAIL
        | Errno::ADDRINUSE
        | Errno::NOSPC
        | Errno::ACCESS
        | Errno::PERM
        | Errno::AGAIN => Failure::Local,
        _ => Failure::Network,
    }
}
