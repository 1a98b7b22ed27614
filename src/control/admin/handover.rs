//! How a successor gets the admin address of a gateway that drains.
//!
//! The admin API stays up during a drain, for who watches it. A new process that wants the same address asks the old one for it
//! (`POST /handover`), which then closes its listening socket and goes on with the connections that it has. It does so only when it
//! drains: else the address is taken, as any other. Both sides are this file's and the router's; nothing is shared between processes.
//!
//! Why not `SO_REUSEPORT`: then both would be asked in turns, and half of the answers of `/readyz` would be of the process that leaves.

use crate::config::Bind;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// The predecessor is on this machine and answers in microseconds, or when it gets a core; whoever is slower is something else.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks whoever listens there to let go; true when it does.
pub(super) fn ask(bind: &Bind) -> bool {
    let answer = match bind {
        Bind::Tcp(address) => {
            let mut there = *address;
            if there.ip().is_unspecified() {
                there.set_ip(if there.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            TcpStream::connect_timeout(&there, PATIENCE).and_then(|stream| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                status(stream)
            })
        }
        Bind::Unix(path) => connect_unix(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            status(stream)
        }),
    };
    answer.is_ok_and(|status| status == *b"HTTP/1.1 202")
}

/// Connects, but waits no longer than [`PATIENCE`] for room in the queue: connect(2) on a unix socket follows the timeout of sends.
fn connect_unix(path: &Path) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

#[expect(clippy::disallowed_methods, reason = "nothing else runs yet")]
fn status(mut stream: impl Read + Write) -> io::Result<[u8; 12]> {
    stream
        .write_all(b"POST /handover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let (until, mut start, mut read) = (Instant::now() + PATIENCE, [0; 12], 0);
    while read < start.len() {
        // a byte now and then is no answer either
        match stream.read(&mut start[read..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ if Instant::now() > until => return Err(io::ErrorKind::TimedOut.into()),
            received => read += received,
        }
    }
    Ok(start)
}
