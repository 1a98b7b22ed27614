//! What an error of the kernel says while a connection to an endpoint is made: about the endpoint, about this machine, or nothing.
//!
//! One list for requests and health checks. Only what proves that nobody answers there may put an endpoint aside at once; what this
//! machine lacks, or forbids, says nothing about anybody else; and what is not in the list proves nothing.
//!
//! Sources: socket(2), connect(2), accept(2), `epoll_ctl(2)`, `io_uring_enter(2)`, and what the kernel makes of ICMP (`icmp_err_convert`).

use crate::config::Address;
use std::io;

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens there, or who does ends the connection at once.
    Refused,
    /// There is no way to it.
    Unreachable,
    /// It is silent.
    TimedOut,
    /// A unix socket whose queue is full: somebody is there, and has more to do than he takes.
    Overrun,
    /// This machine lacks something that a connection needs, which may pass.
    Lacking,
    /// This machine may not connect to it, which will not pass by itself.
    Forbidden,
    /// Nothing that could be told.
    Unknown,
}

use Fault::{Forbidden, Lacking, Refused, TimedOut, Unreachable};

/// Errors of making a connection; [`Fault::Unknown`] for all others.
const CONNECTING: &[(i32, Fault)] = &[
    (libc::ECONNREFUSED, Refused),
    // a unix socket of another type: no service that speaks HTTP
    (libc::EPROTOTYPE, Refused),
    // it stood for a moment, and its peer has ended it before a byte was sent
    (libc::ECONNRESET, Refused),
    (libc::ECONNABORTED, Refused),
    (libc::ENOTCONN, Refused),
    (libc::EPIPE, Refused),
    (libc::ETIMEDOUT, TimedOut),
    // no route: a routing table, here or further away, or a neighbour that does not answer. Where it is our own network that is down nobody
    // can be reached either, and the first connection that stands ends it
    (libc::EHOSTUNREACH, Unreachable),
    (libc::ENETUNREACH, Unreachable),
    (libc::EHOSTDOWN, Unreachable),
    (libc::ENETDOWN, Unreachable),
    (libc::ENONET, Unreachable),
    // no such unix socket, or no such folder
    (libc::ENOENT, Unreachable),
    (libc::ENOTDIR, Unreachable),
    // descriptors, of this process and of the machine
    (libc::EMFILE, Lacking),
    (libc::ENFILE, Lacking),
    (libc::ENOMEM, Lacking),
    (libc::ENOBUFS, Lacking),
    // no port of ours is left towards this endpoint, or none for this pair of addresses
    (libc::EADDRNOTAVAIL, Lacking),
    (libc::EADDRINUSE, Lacking),
    // epoll: fs.epoll.max_user_watches
    (libc::ENOSPC, Lacking),
    // of TCP a table of ours that is full; of a unix socket see `Fault::Overrun`
    (libc::EAGAIN, Lacking),
    // the event loop has called it off
    (libc::ECANCELED, Lacking),
    (libc::EINTR, Lacking),
    // a firewall, a security module, the permissions of a unix socket's file
    (libc::EACCES, Forbidden),
    (libc::EPERM, Forbidden),
    // this kernel has no IPv6, or has it switched off
    (libc::EAFNOSUPPORT, Forbidden),
    (libc::EPROTONOSUPPORT, Forbidden),
];

/// What it means that no connection to `address` was made.
#[must_use]
pub fn of_connecting(error: &io::Error, address: &Address) -> Fault {
    let Some(errno) = error.raw_os_error() else { return Fault::Unknown };
    match address {
        Address::Unix(_) if errno == libc::EAGAIN => Fault::Overrun,
        _ => CONNECTING.iter().find(|(listed, _)| *listed == errno).map_or(Fault::Unknown, |(_, fault)| *fault),
    }
}

/// Whether a connection that stood has broken for want of something of our own.
#[must_use]
pub fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EADDRNOTAVAIL | libc::ENOSPC)
    )
}

/// Whether there is no descriptor for this process, or for any.
#[must_use]
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(errno: i32, address: &Address) -> Fault {
        of_connecting(&io::Error::from_raw_os_error(errno), address)
    }

    #[test]
    fn each_error_is_listed_once_and_means_what_the_list_says() {
        let tcp = Address::Tcp("192.0.2.1:80".parse().unwrap());
        for (row, (errno, fault)) in CONNECTING.iter().enumerate() {
            assert!(CONNECTING[..row].iter().all(|(other, _)| other != errno), "{errno} is there twice");
            assert_eq!(of(*errno, &tcp), *fault, "{errno}");
        }
        let faults = |wanted| CONNECTING.iter().filter(move |(_, fault)| *fault == wanted).map(|(errno, _)| *errno);
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::ENOSPC, libc::EADDRNOTAVAIL] {
            assert!(faults(Lacking).any(|listed| listed == errno), "{errno} is a shortage of ours");
        }
    }

    #[test]
    fn a_full_queue_is_the_endpoint_s_on_a_unix_socket_and_a_full_table_ours_on_tcp() {
        assert_eq!(of(libc::EAGAIN, &Address::Unix("/run/service.sock".into())), Fault::Overrun);
        assert_eq!(of(libc::EAGAIN, &Address::Tcp("[2001:db8::1]:80".parse().unwrap())), Lacking);
    }

    #[test]
    fn what_nobody_has_thought_of_proves_nothing() {
        let tcp = Address::Tcp("192.0.2.1:80".parse().unwrap());
        for errno in [libc::EBADF, libc::EINVAL, libc::ELOOP, libc::EPROTO, 4_095] {
            assert_eq!(of(errno, &tcp), Fault::Unknown);
        }
        assert_eq!(of_connecting(&io::ErrorKind::Other.into(), &tcp), Fault::Unknown);
        // `std` makes its own error of a path that is too long for a unix socket
        let long = socket2::SockAddr::unix("x".repeat(200)).unwrap_err();
        assert_eq!(of_connecting(&long, &tcp), Fault::Unknown);
    }
}
