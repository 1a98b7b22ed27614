//! The connection that carries a protocol: a non-blocking socket. TLS will be another one.

use super::Failure;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
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

/// A connection, which never blocks.
pub trait Link: Sized {
    /// Begins to connect.
    ///
    /// # Errors
    /// It cannot even begin.
    fn connect(address: SocketAddr) -> Result<Self, Failure>;

    /// What an event loop waits for.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// It is ready for the first time: connected, or why not.
    ///
    /// # Errors
    /// It is not connected.
    fn connected(&mut self) -> Result<(), Failure>;

    /// Sends what goes, and says how much that was; 0: later.
    ///
    /// # Errors
    /// The connection is broken.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Failure>;

    /// Receives what is there.
    ///
    /// # Errors
    /// The connection is broken.
    fn receive(&mut self, into: &mut [u8]) -> Result<Taken, Failure>;
}

/// TCP without delay.
#[derive(Debug)]
pub struct Tcp(OwnedFd);

impl Link for Tcp {
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

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn connected(&mut self) -> Result<(), Failure> {
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

    fn send(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        match rustix::net::send(&self.0, bytes, rustix::net::SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(failure(error)),
        }
    }

    fn receive(&mut self, into: &mut [u8]) -> Result<Taken, Failure> {
        match rustix::net::recv(&self.0, into, rustix::net::RecvFlags::empty()) {
            Ok((0, _)) => Ok(Taken::End),
            Ok((received, _)) => Ok(Taken::Bytes(received)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Taken::Later),
            Err(error) => Err(failure(error)),
        }
    }
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
