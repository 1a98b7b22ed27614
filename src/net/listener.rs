//! Listening sockets: bound by the control thread before any worker starts, drained by the workers.
//!
//! TCP sockets are one per worker and listener (`SO_REUSEPORT`), so the kernel spreads connections and no queue is shared; a unix
//! socket is one, shared. `TCP_NODELAY` is set here because accepted sockets inherit it.

use super::socket_file::SocketFile;
use super::stream::Stream;
use crate::config::Bind;
use crate::limits::ACCEPT_BATCH;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant as StdInstant};

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;
/// After a restart the kernel may still be taking down the last process's ring, and its listening socket with it; or the last process drains
/// and is about to let go of the address.
const BIND_RETRY: Duration = Duration::from_secs(2);

/// One listener's sockets, one per worker.
#[derive(Debug)]
pub struct Bound {
    /// Worker `i` accepts on `sockets[i]`.
    pub sockets: Vec<OwnedFd>,
    /// Where it listens, with the port that the kernel chose if the file says 0.
    pub address: Bind,
    /// Of a unix socket; to be kept until the end.
    pub file: Option<SocketFile>,
}

/// Binds `bind` for `workers` workers; a unix socket's file gets the permissions `unix_mode`.
///
/// # Errors
/// The address is taken, not ours, or needs a permission that is missing.
pub fn bind(bind: &Bind, unix_mode: u32, workers: usize) -> io::Result<Bound> {
    match bind {
        Bind::Tcp(address) => bind_tcp(*address, workers),
        Bind::Unix(path) => bind_unix(path, unix_mode, workers),
    }
}

/// Tries again for a moment while the address is taken.
#[expect(clippy::disallowed_methods, reason = "binding happens before any event loop turns")]
fn patiently<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = StdInstant::now();
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < BIND_RETRY => {
                std::thread::sleep(Duration::from_millis(50));
            }
            bound => return bound,
        }
    }
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Bound> {
    // A probe without SO_REUSEPORT first: with it, a second gateway on the same port would silently take half of the traffic.
    let probe = patiently(|| tcp_socket(address, false))?;
    let address = probe.local_addr()?.as_socket().unwrap_or(address);
    drop(probe);
    bind_over(address, workers)
}

/// Binds an address of which this process has a part already, all of a port or one of it, without asking whether somebody listens there: that
/// would be ourselves.
///
/// # Errors
/// As [`bind`].
pub fn bind_over(address: SocketAddr, workers: usize) -> io::Result<Bound> {
    let sockets = (0..workers)
        .map(|_| {
            let socket = tcp_socket(address, true)?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect::<io::Result<_>>()?;
    Ok(Bound { sockets, address: Bind::Tcp(address), file: None })
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: u32, workers: usize) -> io::Result<Bound> {
    let (listening, file) = patiently(|| SocketFile::bind(path, mode))?;
    listening.listen(BACKLOG)?;
    let listening: OwnedFd = listening.into();
    let sockets = (0..workers).map(|_| listening.try_clone()).collect::<io::Result<_>>()?;
    Ok(Bound { sockets, address: Bind::Unix(path.to_owned()), file: Some(file) })
}

/// One worker's end of a listener.
#[derive(Debug)]
pub struct Listener {
    socket: Stream,
}

/// A connection that has just been accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket, non-blocking and closed on exec.
    pub fd: OwnedFd,
    /// The peer's address and port; `None` for a unix socket.
    pub peer: Option<SocketAddr>,
}

impl Listener {
    /// Takes over a listening socket. Must be called inside the worker's runtime.
    ///
    /// # Errors
    /// What the driver says when it cannot register the descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: Stream::from_fd(fd)? })
    }

    /// The descriptor, for a watch.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Waits until connections are there.
    ///
    /// # Errors
    /// The socket is broken.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Accepts up to [`ACCEPT_BATCH`] connections that are there, without waiting.
    ///
    /// # Errors
    /// No descriptor or no memory is left (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`): the caller should let some connections end first.
    pub fn accept_batch(&self, mut each: impl FnMut(Accepted)) -> io::Result<usize> {
        for count in 0..ACCEPT_BATCH {
            match accept(self.fd()) {
                Ok(accepted) => each(accepted),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.socket.found_empty();
                    return Ok(count);
                }
                Err(error) if is_exhausted(&error) => return Err(error),
                // accept(2): errors of the connection that was about to be accepted; the next one may be fine
                Err(_) => {}
            }
        }
        Ok(ACCEPT_BATCH)
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EBADF | libc::EINVAL)
    )
}

fn accept(listener: RawFd) -> io::Result<Accepted> {
    // SAFETY: `sockaddr_storage` is plain memory for which all zeroes is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&storage)).expect("small");
    // SAFETY: both pointers are to live variables, and `length` says how much room the first has.
    let fd = unsafe {
        libc::accept4(listener, (&raw mut storage).cast(), &raw mut length, libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Accepted { fd, peer: socket_address(&storage) })
}

fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in, and it is large and aligned enough for any.
            let v4 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip, u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, a sockaddr_in6.
            let v6 = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::new(IpAddr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// One more descriptor of the same socket, for a worker that replaces another.
///
/// # Errors
/// No descriptor is left.
pub fn duplicate(socket: &OwnedFd) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

/// A duplicate of a listening socket that this process was started with, closed on exec; it does not block from now on.
///
/// # Errors
/// There is none of that number, or it is no listening stream socket.
pub fn given(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: for this call only; a number without a descriptor is an error of fcntl(2).
    let socket = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    let asked = SockRef::from(&socket);
    if asked.r#type()? != Type::STREAM || !asked.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket that was given does not listen for streams"));
    }
    asked.set_nonblocking(true)?;
    if asked.domain()? != Domain::UNIX {
        asked.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

/// Where a socket listens.
///
/// # Errors
/// Neither at an address nor at a path.
pub fn address_of(socket: &OwnedFd) -> io::Result<Bind> {
    let address = SockRef::from(socket).local_addr()?;
    let tcp = address.as_socket().map(Bind::Tcp);
    let unix = || address.as_pathname().map(|path| Bind::Unix(path.to_owned()));
    tcp.or_else(unix).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Whether `fd` is open; for tests of descriptor leaks.
#[cfg(test)]
pub(crate) fn is_open(fd: &impl std::os::fd::AsRawFd) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) >= 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::on_each_driver;
    use std::collections::HashSet;
    use std::future::Future;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    #[test]
    fn every_worker_gets_a_socket_of_the_same_port() {
        let bound = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 0, 3).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        assert!(bound.sockets.iter().all(is_open));
        let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
        assert_ne!(address.port(), 0);
        assert_eq!(bind(&Bind::Tcp(address), 0, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn what_is_given_must_listen() {
        let bound = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 0, 1).unwrap();
        let given_again = given(bound.sockets[0].as_raw_fd()).unwrap();
        assert_eq!(address_of(&given_again).unwrap(), bound.address);
        let connected =
            std::net::TcpStream::connect(SockRef::from(&given_again).local_addr().unwrap().as_socket().unwrap());
        let file = std::fs::File::open("/dev/null").unwrap();
        for fd in [connected.unwrap().as_raw_fd(), file.as_raw_fd()] {
            assert!(given(fd).is_err());
        }
    }

    #[test]
    fn workers_share_a_unix_socket_whose_file_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.sock");
        let bound = bind(&Bind::Unix(path.clone()), 0o666, 2).unwrap();
        assert_eq!((bound.sockets.len(), &bound.address), (2, &Bind::Unix(path.clone())));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(bind(&Bind::Unix(path.clone()), 0o666, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn peers_are_read_as_the_kernel_wrote_them() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let bound = bind(&Bind::Tcp(address.parse().unwrap()), 0, 1).unwrap();
            let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.write_all(b"x").unwrap();
            let accepted = accept(bound.sockets[0].as_raw_fd()).unwrap();
            assert_eq!(accepted.peer, Some(client.local_addr().unwrap()));
        }
    }

    #[test]
    fn a_batch_is_bounded_and_its_sockets_neither_block_nor_survive_an_exec() {
        on_each_driver(|_| async {
            let mut bound = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 0, 1).unwrap();
            let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
            let clients: Vec<_> =
                (0..ACCEPT_BATCH + 20).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            let listener = Listener::new(bound.sockets.remove(0)).unwrap();
            listener.ready().await.unwrap();
            let mut accepted = Vec::new();
            assert_eq!(listener.accept_batch(|a| accepted.push(a)).unwrap(), ACCEPT_BATCH);
            assert_eq!(listener.accept_batch(|a| accepted.push(a)).unwrap(), 20);
            assert_eq!(listener.accept_batch(|_| panic!("nobody is left")).unwrap(), 0);
            for Accepted { fd, .. } in &accepted {
                // SAFETY: no memory is involved.
                let flags = unsafe { [libc::F_GETFD, libc::F_GETFL].map(|what| libc::fcntl(fd.as_raw_fd(), what)) };
                assert!(flags[0] & libc::FD_CLOEXEC != 0 && flags[1] & libc::O_NONBLOCK != 0, "{flags:?}");
                assert!(SockRef::from(fd).tcp_nodelay().unwrap());
            }
            let peers: HashSet<_> = accepted.iter().filter_map(|a| a.peer).collect();
            assert_eq!(peers, clients.iter().map(|c| c.local_addr().unwrap()).collect());
        });
    }

    #[test]
    fn a_listener_that_is_shut_down_wakes_whoever_waits() {
        on_each_driver(|_| async {
            let mut bound = bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 0, 1).unwrap();
            let listener = Listener::new(bound.sockets.remove(0)).unwrap();
            let mut ready = std::pin::pin!(listener.ready());
            let mut told = false;
            let _ = std::future::poll_fn(|cx| {
                let poll = ready.as_mut().poll(cx);
                if !std::mem::replace(&mut told, true) {
                    assert!(poll.is_pending());
                    crate::net::stream::shutdown_fd(listener.fd(), std::net::Shutdown::Read);
                }
                poll
            })
            .await;
            assert!(listener.accept_batch(|_| panic!("nobody came")).is_err());
        });
    }
}
