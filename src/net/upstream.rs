//! A connection to an endpoint, with its next receive asked for ahead of time.
//!
//! A response is waited for by the request that asked for it, but what brings it may be older: while the connection lies in the pool, it is
//! listened to, and that is what notices that the server has ended it, or has sent what nobody asked for. So taking the connection out costs
//! a look at memory instead of a system call, where the event loop can listen ([`Stream::listen`]).

use super::block::Block;
pub use super::stream::Received;
use super::stream::Stream;
use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

/// See the module. A pointer, because it goes from the pool to a request and back.
pub struct Upstream(Box<Inner>);

/// The connection itself, and what was asked of it.
struct Inner {
    stream: Stream,
    /// For the next receive, as the event loop has given it back.
    wanted: Cell<Option<Block>>,
    /// A receive was asked for with a block, and its result not taken.
    is_armed: Cell<bool>,
}

impl Upstream {
    /// A connection without a receive.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self(Box::new(Inner { stream, wanted: Cell::default(), is_armed: Cell::default() }))
    }

    /// The connection itself, to send on, to watch, to shut down. It must not be received from while it is armed.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.0.stream
    }

    /// Whether a receive was asked for, or is in flight, and not taken yet.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.0.is_armed.get() || self.0.stream.is_receiving()
    }

    /// Has it listened to where that costs no block; it is looked at otherwise when it is taken out.
    pub fn stand_by(&self) {
        if !self.is_armed() {
            self.0.stream.listen();
        }
    }

    /// Has what comes received, with a block if one is needed.
    pub fn expect(&self, block: impl FnOnce() -> Block) {
        if !self.is_armed() && !self.0.stream.listen() {
            self.arm(block());
        }
    }

    /// Asks for a receive into the block's room.
    pub fn arm(&self, into: Block) {
        debug_assert!(!self.0.is_armed.get(), "one receive at a time");
        self.0.is_armed.set(true);
        self.0.wanted.set(self.0.stream.ask(into));
    }

    /// Takes what has come.
    pub fn poll_received(&self, cx: &mut Context<'_>) -> Poll<Received> {
        let mut into = self.0.wanted.take();
        let received = self.0.stream.poll_received(&mut into, cx);
        self.0.wanted.set(into);
        if received.is_ready() {
            self.0.is_armed.set(false);
        }
        received
    }

    /// Waits for what comes. May be dropped: nothing is lost.
    pub async fn received(&self) -> Received {
        poll_fn(|cx| self.poll_received(cx)).await
    }

    /// True when the peer has ended the connection, or sent what nobody asked for: such a connection cannot carry a request
    /// ([`Stream::is_spent`]).
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.0.stream.is_spent()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("fd", &self.0.stream.fd()).field("is_armed", &self.0.is_armed).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::block::TAILROOM;
    use crate::net::testing::{on_each_driver, pair};
    use std::future::Future as _;
    use std::io::{self, Read as _, Write as _};

    fn block() -> Block {
        Block::from_vec(Vec::with_capacity(64 + TAILROOM))
    }

    fn upstream() -> (Upstream, std::net::TcpStream) {
        let (stream, peer) = pair();
        (Upstream::new(stream), peer)
    }

    #[test]
    fn one_receive_after_another_brings_what_was_sent() {
        on_each_driver(|_| async {
            let (upstream, mut peer) = upstream();
            for text in [&b"one"[..], b"two"] {
                upstream.arm(block());
                assert!(upstream.is_armed() && !upstream.is_spent());
                peer.write_all(text).unwrap();
                let (received, got) = upstream.received().await;
                assert_eq!((received.unwrap(), got.unread()), (3, text));
                assert!(!upstream.is_armed());
            }
        });
    }

    #[test]
    fn who_leaves_takes_no_byte_with_it() {
        on_each_driver(|_| async {
            let (upstream, mut peer) = upstream();
            upstream.arm(block());
            {
                let mut leaver = std::pin::pin!(upstream.received());
                let left = poll_fn(|cx| Poll::Ready(leaver.as_mut().poll(cx).is_pending())).await;
                assert!(left, "nothing was sent yet");
            }
            peer.write_all(b"late").unwrap();
            assert_eq!(upstream.received().await.1.unread(), b"late");
        });
    }

    #[test]
    fn an_armed_one_notices_an_end_and_bytes_that_nobody_asked_for() {
        on_each_driver(|timers| async move {
            let watch = timers.watch();
            for says in [&b"HTTP/1.1 408 Request Timeout\r\n\r\n"[..], b""] {
                let (upstream, mut peer) = upstream();
                upstream.arm(block());
                assert!(!upstream.is_spent());
                peer.write_all(says).unwrap();
                let _kept = if says.is_empty() {
                    drop(peer);
                    None
                } else {
                    Some(peer)
                };
                let until = crate::net::clock::now() + std::time::Duration::from_secs(30);
                while !upstream.is_spent() {
                    let now = crate::net::clock::now();
                    assert!(now < until, "still not noticed");
                    watch.sleep_until(now + crate::net::timer::TICK).await;
                }
            }
        });
    }

    #[test]
    fn a_dropped_one_is_closed() {
        on_each_driver(|timers| async move {
            for how in ["armed", "armed and heard", "as it was made"] {
                let (upstream, mut peer) = upstream();
                if how != "as it was made" {
                    upstream.arm(block());
                }
                if how == "armed and heard" {
                    peer.write_all(b"heard").unwrap();
                    assert_eq!(upstream.received().await.1.unread(), b"heard");
                }
                drop(upstream);
                peer.set_nonblocking(true).unwrap();
                let watch = timers.watch();
                let until = crate::net::clock::now() + std::time::Duration::from_secs(30);
                loop {
                    match peer.read(&mut [0; 8]) {
                        Ok(0) => break,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        other => panic!("{other:?}"),
                    }
                    let now = crate::net::clock::now();
                    assert!(now < until, "still open: {how}");
                    watch.sleep_until(now + crate::net::timer::TICK).await;
                }
            }
        });
    }
}
