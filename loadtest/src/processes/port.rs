//! A port that stays one's own, whether somebody listens on it or not.
//!
//! A socket is bound and never listens. While it is there the kernel gives the port to nobody else, neither to a listener nor as the source
//! of a connection; connecting is refused, and a process that sets `SO_REUSEADDR`, as servers do, can listen there.

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;

/// A reserved port.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _holder: OwnedFd,
}

impl Port {
    /// One of 127.0.0.1 that the kernel chooses.
    ///
    /// # Errors
    /// There are no more ports, or no more descriptors.
    pub fn reserve() -> io::Result<Self> {
        Self::reserve_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// This one; with port 0 one that the kernel chooses.
    ///
    /// # Errors
    /// Somebody listens there or uses it as a source, or the address is none of this machine's.
    pub fn reserve_at(address: SocketAddr) -> io::Result<Self> {
        let explained = |error: rustix::io::Errno| {
            let error = io::Error::from(error);
            io::Error::new(error.kind(), format!("cannot have {address}: {error}"))
        };
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let holder = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&holder, true)?;
        bind(&holder, &address).map_err(explained)?;
        let address = getsockname(&holder)?.try_into()?;
        Ok(Self { address, _holder: holder })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn nobody_answers_at_a_reserved_port_until_somebody_listens() {
        let port = Port::reserve().expect("a port");
        let refused = TcpStream::connect(port.address()).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // std sets SO_REUSEADDR
        let listener = TcpListener::bind(port.address()).expect("it may be listened on");
        assert!(TcpStream::connect(port.address()).is_ok());
        let taken = Port::reserve_at(port.address()).expect_err("somebody listens").to_string();
        assert!(taken.starts_with(&format!("cannot have {}: ", port.address())), "{taken}");
        drop(listener);
        assert!(TcpStream::connect(port.address()).is_err());
    }
}
