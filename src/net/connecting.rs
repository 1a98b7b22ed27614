//! Connections to endpoints, as they are made.

use super::driver::{self, CLOSING_TURNS};
use super::fault::is_out_of_descriptors;
use super::stream::Stream;
use crate::config::Address;
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Starts to connect. The socket exists then, so that a watch can be armed on it before [`Connecting::established`] is awaited.
///
/// Where no descriptor is left, those that were dropped a moment ago are waited for: a request that goes on to another endpoint has just
/// let go of one.
///
/// # Errors
/// The kernel refuses at once (no descriptor, no route, no such unix socket): see [`super::fault`].
pub async fn connect(address: &Address) -> io::Result<Connecting> {
    for _ in 0..CLOSING_TURNS {
        match begin(address) {
            Err(error) if is_out_of_descriptors(&error) => driver::next_turn().await,
            begun => return begun,
        }
    }
    begin(address)
}

fn begin(address: &Address) -> io::Result<Connecting> {
    let (domain, protocol, address) = match address {
        Address::Tcp(address) => (Domain::for_address(*address), Some(Protocol::TCP), SockAddr::from(*address)),
        Address::Unix(path) => (Domain::UNIX, None, SockAddr::unix(path)?),
    };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), protocol)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    let stream = match socket.connect(&address) {
        Ok(()) => Stream::from_fd(socket.into())?,
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Stream::from_connecting_fd(socket.into())?,
        Err(error) => return Err(error),
    };
    Ok(Connecting { stream })
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
        self.stream.with_socket(|socket| match socket.take_error()? {
            Some(error) => Err(error),
            None => meets_another(&socket),
        })?;
        Ok(self.stream)
    }
}

/// That a connection which stands has somebody else at its other end.
///
/// Where an endpoint of this machine is down, and its port is one of those that the kernel gives to connections that are made
/// (`net.ipv4.ip_local_port_range`), a connection may be given just that port: then it meets itself (simultaneous open, RFC 9293 §3.5),
/// and would answer a request with the request. To us that is an endpoint which refuses. It is reset, so that nothing of it keeps the port
/// from a service that comes back.
///
/// # Errors
/// It was shut down while connecting and has no peer, or is its own.
pub fn meets_another(socket: &SockRef<'_>) -> io::Result<()> {
    let peer = socket.peer_addr()?;
    if peer.is_unix() || peer != socket.local_addr()? {
        return Ok(());
    }
    socket.set_linger(Some(Duration::ZERO))?;
    Err(io::Error::from_raw_os_error(libc::ECONNREFUSED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::block::Block;
    use crate::net::clock;
    use crate::net::testing::on_each_driver;
    use std::io::{Read as _, Write as _};
    use std::net::SocketAddr;

    /// Long for a test, short for a person; nothing is measured against it but "not before".
    const SOON: Duration = Duration::from_millis(30);

    #[test]
    fn a_connection_that_meets_itself_is_refused() {
        on_each_driver(|_| async {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
            // nobody listens there, and it connects all the same
            let own = socket.local_addr().unwrap();
            socket.connect(&own).unwrap();
            socket.set_nonblocking(true).unwrap();
            let connecting = Connecting { stream: Stream::from_fd(socket.into()).unwrap() };
            let error = connecting.established().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn a_refused_connection_is_an_error_at_once() {
        on_each_driver(|timers| async move {
            // bound and not listening: nobody else can take the port meanwhile
            let place = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            place.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
            let address = Address::Tcp(place.local_addr().unwrap().as_socket().unwrap());
            let connecting = connect(&address).await.unwrap();
            let watch = timers.watch();
            let _guard = watch.over_connecting(connecting.fd(), clock::now() + Duration::from_secs(3_600));
            assert!(connecting.established().await.is_err());
            assert!(!watch.expired());
            let nowhere = Address::Unix("/nonexistent/folder/socket".into());
            assert_eq!(connect(&nowhere).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn a_connection_into_a_black_hole_ends_with_its_deadline() {
        on_each_driver(|timers| async move {
            // a queue of one, which is full: the kernel drops every further SYN
            let hole = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            hole.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
            hole.listen(0).unwrap();
            let address = hole.local_addr().unwrap().as_socket().unwrap();
            let _first = std::net::TcpStream::connect(address).unwrap();
            let connecting = connect(&Address::Tcp(address)).await.unwrap();
            let watch = timers.watch();
            let deadline = clock::now() + SOON;
            let _guard = watch.over_connecting(connecting.fd(), deadline);
            assert!(connecting.established().await.is_err());
            assert!(watch.expired() && clock::now() >= deadline);
        });
    }

    #[test]
    fn a_full_unix_socket_is_refused_at_once() {
        on_each_driver(|_| async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("full.sock");
            let hole = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            hole.bind(&SockAddr::unix(&path).unwrap()).unwrap();
            hole.listen(0).unwrap();
            let _first = connect(&Address::Unix(path.clone())).await.unwrap().established().await.unwrap();
            assert_eq!(connect(&Address::Unix(path)).await.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        });
    }

    #[test]
    fn a_connection_that_stands_carries_bytes_both_ways() {
        on_each_driver(|_| async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream =
                connect(&Address::Tcp(listener.local_addr().unwrap())).await.unwrap().established().await.unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            assert!(!stream.is_spent(), "an idle connection is good");
            let mut up = Block::from_vec(Vec::with_capacity(64));
            up.vec_mut().extend_from_slice(b"up");
            stream.send(up).await.0.unwrap();
            let mut up = [0; 2];
            peer.read_exact(&mut up).unwrap();
            peer.write_all(b"down").unwrap();
            stream.readable().await.unwrap();
            assert!(stream.is_spent(), "bytes that nobody asked for");
            let (received, got) = stream.receive(Block::from_vec(Vec::with_capacity(64))).await;
            assert_eq!((received.unwrap(), got.unread(), up), (4, &b"down"[..], *b"up"));
        });
    }
}
