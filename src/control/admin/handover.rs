//! How a successor gets the admin address of a gateway that drains.
//!
//! The admin API stays up during a drain, for who watches it. A new process that wants the same address asks the old one for it
//! (`POST /handover`), which then closes its listening socket and goes on with the connections that it has. It does so only when it
//! drains: else the address is taken, as any other. Both sides are this file's and the router's; nothing is shared between processes.
//!
//! Why not `SO_REUSEPORT`: then both would be asked in turns, and half of the answers of `/readyz` would be of the process that leaves.

use crate::config::Bind;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The predecessor is on this machine and answers in microseconds; whoever is slower is something else.
const PATIENCE: Duration = Duration::from_secs(1);

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
        Bind::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            status(stream)
        }),
    };
    answer.is_ok_and(|status| status == *b"HTTP/1.1 202")
}

fn status(mut stream: impl Read + Write) -> io::Result<[u8; 12]> {
    stream
        .write_all(b"POST /handover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    Ok(start)
}
