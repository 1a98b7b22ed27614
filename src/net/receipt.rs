//! Whether a request that was sent has been read by anybody, as far as the kernel can tell.
//!
//! A server that closes an idle connection at the moment a request is on its way to it leaves the gateway with a request of unknown fate;
//! one that must not be sent twice could then only fail. The kernel often knows more: which bytes the peer's kernel acknowledged, and
//! whether its socket is closed. Asked only when a connection has ended, never while it works.
//!
//! Source: RFC 9293 §3.5.3 (resets), tcp(7), `tcp_ioctl` and `tcp_reset` of Linux; the problem is that of RFC 9110 §9.2.2.

use std::os::fd::RawFd;

/// What is known of bytes that were sent to a peer which has ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The peer's kernel has refused the connection's further use without acknowledging one of them: nobody has read them.
    Never,
    /// Some were acknowledged, or nothing can be known: they may have been read.
    Perhaps,
    /// Not known yet.
    Pending,
}

/// The end of the peer's direction alone proves nothing, since it may still read. But when a reset follows, its socket is closed, and
/// `tcpi_state` says so; what had been acknowledged until then is no longer in the send queue. A reset without an end before it (a
/// crash, a close with unread bytes) is no proof either: its receiver may have read what it had not acknowledged yet.
pub(super) fn ask(fd: RawFd, sent: usize) -> Receipt {
    /// `TCP_CLOSE` of `tcp_states.h`
    const CLOSED: u8 = 7;
    let mut queued: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (TIOCOUTQ) writes one int, which is live.
    if unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut queued) } < 0 {
        return Receipt::Perhaps;
    }
    // SAFETY: `tcp_info` is plain numbers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).expect("small");
    // SAFETY: both pointers are to live variables, and `length` says how much room the first has.
    let got =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length) };
    match usize::try_from(queued) {
        Ok(queued) if got == 0 && sent > 0 && queued >= sent => match info.tcpi_state {
            CLOSED => Receipt::Never,
            _ => Receipt::Pending,
        },
        _ => Receipt::Perhaps,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream as StdStream};
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

    /// A client and its server, that have exchanged something before.
    fn pair() -> (StdStream, StdStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"first").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        (client, server)
    }

    fn wait_for_end(client: &mut StdStream) {
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }

    /// The verdict, once there is one, or the last word after three seconds.
    fn verdict(client: &StdStream) -> Receipt {
        for _ in 0..3_000 {
            match ask(client.as_raw_fd(), REQUEST.len()) {
                Receipt::Pending => std::thread::park_timeout(Duration::from_millis(1)),
                known => return known,
            }
        }
        Receipt::Pending
    }

    #[test]
    fn what_was_sent_to_a_closed_socket_was_never_read() {
        let (mut client, server) = pair();
        drop(server);
        wait_for_end(&mut client);
        assert_eq!(ask(client.as_raw_fd(), 0), Receipt::Perhaps, "nothing was sent that could be proved unread");
        client.write_all(REQUEST).unwrap();
        assert_eq!(verdict(&client), Receipt::Never);
        wait_for_end(&mut client);
    }

    #[test]
    fn what_was_read_before_the_end_may_have_been_acted_on() {
        let (mut client, mut server) = pair();
        client.write_all(REQUEST).unwrap();
        server.read_exact(&mut [0; REQUEST.len()]).unwrap();
        drop(server);
        wait_for_end(&mut client);
        assert_eq!(verdict(&client), Receipt::Perhaps);
    }

    #[test]
    fn what_lies_unread_when_the_socket_closes_is_no_proof() {
        let (mut client, server) = pair();
        client.write_all(REQUEST).unwrap();
        let mut byte = [0; 1];
        assert_eq!(server.peek(&mut byte).unwrap(), 1, "it has arrived");
        drop(server);
        assert!(client.read(&mut byte).is_err(), "a reset, without an end before it");
    }

    #[test]
    fn a_server_that_has_only_stopped_writing_may_still_read() {
        let (mut client, mut server) = pair();
        server.shutdown(Shutdown::Write).unwrap();
        wait_for_end(&mut client);
        client.write_all(REQUEST).unwrap();
        assert_eq!(verdict(&client), Receipt::Perhaps);
        server.read_exact(&mut [0; REQUEST.len()]).unwrap();
        drop(server);
        assert_eq!(verdict(&client), Receipt::Perhaps);
    }

    #[test]
    fn a_unix_socket_knows_nothing() {
        let (mut client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        client.write_all(REQUEST).unwrap();
        drop(server);
        assert_eq!(ask(client.as_raw_fd(), REQUEST.len()), Receipt::Perhaps);
    }
}
