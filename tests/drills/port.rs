//! A port of 127.0.0.1 that stays one's own, whether somebody listens on it or not.
//!
//! A socket is bound and never listens. While it is there the kernel gives the port to nobody else, neither to a listener nor as the
//! source of a connection; connecting is refused, and a process that sets `SO_REUSEADDR`, as servers do, can still listen there.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

/// A reserved port.
pub(crate) struct Port {
    address: SocketAddr,
    _holder: Socket,
}

impl Port {
    /// One that the kernel chooses.
    pub(crate) fn reserve() -> io::Result<Self> {
        let holder = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        holder.set_reuse_address(true)?;
        holder.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = holder.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { address, _holder: holder })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}
