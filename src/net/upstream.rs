//! A connection to an endpoint, with its next receive in flight ahead of time.
//!
//! A response is waited for by the request that asked for it, but the receive that brings it may have been submitted long before, by the
//! request before it: while the connection lies in the pool, that receive is what notices that the server has ended it, or has sent
//! what nobody asked for, and taking the connection out costs a look at memory instead of a system call. So the operation belongs to
//! the connection and not to whoever waits, and nobody's leaving can drop it: a receive that is dropped may take bytes with it.
//!
//! On a ring of ours it belongs to the socket. With monoio one future per connection, boxed when it is made, runs receive after receive; it
//! is polled in place by whoever holds the connection. While it lies in the pool nobody is woken.

use super::block::Block;
use super::ring::socket::Socket;
use super::stream::Stream;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What a receive has come to, with the block it went into.
pub type Received = (io::Result<usize>, Block);

/// See the module. A pointer, because it goes from the pool to a request and back.
pub struct Upstream(Rc<Line>);

/// What the connection and its reader share.
struct Line {
    stream: Stream,
    /// For the next receive.
    wanted: Cell<Option<Block>>,
    /// A receive was submitted with a block, and its result not taken.
    is_armed: Cell<bool>,
    /// Over all connections that share it: those that are armed, and so hold a block.
    armed: Rc<Cell<usize>>,
    /// `None` on a ring of ours, where what was received belongs to the socket. It holds the line: whoever drops the connection takes it out.
    reader: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
    /// The reader's last receive, until it is taken.
    got: RefCell<Option<Received>>,
}

impl Upstream {
    /// A connection without a receive. `armed` counts those with one, over all connections that were made with it.
    #[must_use]
    pub fn new(stream: Stream, armed: &Rc<Cell<usize>>) -> Self {
        let line = Rc::new(Line {
            stream,
            wanted: Cell::new(None),
            is_armed: Cell::new(false),
            armed: Rc::clone(armed),
            reader: RefCell::new(None),
            got: RefCell::new(None),
        });
        if line.stream.on_ring().is_none() {
            line.reader.replace(Some(Box::pin(read_on(Rc::clone(&line)))));
        }
        Self(line)
    }

    /// The connection itself, to send on, to watch, to shut down. It must not be received from while it is armed.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.0.stream
    }

    /// Whether a receive is in flight, or over and not taken yet.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.0.is_armed.get() || self.stream().on_ring().is_some_and(Socket::is_receiving)
    }

    /// Has a receive in flight, if it costs no block ([`Stream::listen`]) or as many connections as may hold one do not yet.
    pub fn stand_by(&self, armed_max: usize, block: impl FnOnce() -> Block) {
        // one on a ring that is not listened to has just carried bulk, and is looked at when it is taken out
        if !self.is_armed()
            && !self.stream().listen()
            && self.stream().on_ring().is_none()
            && self.0.armed.get() < armed_max
        {
            self.arm(block());
        }
    }

    /// Has a receive in flight, with a block if it needs one.
    pub fn expect(&self, block: impl FnOnce() -> Block) {
        if !self.is_armed() && !self.stream().listen() {
            self.arm(block());
        }
    }

    /// Submits a receive into the block's room.
    pub fn arm(&self, into: Block) {
        debug_assert!(!self.0.is_armed.get(), "one receive at a time");
        self.0.is_armed.set(true);
        self.0.armed.set(self.0.armed.get() + 1);
        if let Some(socket) = self.stream().on_ring() {
            return self.0.wanted.set(socket.ask(into));
        }
        self.0.wanted.set(Some(into));
        // nobody waits yet: whoever does will poll again
        let _ = self.run(&mut Context::from_waker(Waker::noop()));
    }

    /// Takes what the receive in flight has come to; never ready without one.
    pub fn poll_received(&self, cx: &mut Context<'_>) -> Poll<Received> {
        let Some(socket) = self.stream().on_ring() else { return self.poll_reader(cx) };
        let mut into = self.0.wanted.take();
        let received = socket.poll_received(&mut into, cx);
        self.0.wanted.set(into);
        if received.is_ready() {
            self.on_received();
        }
        received
    }

    fn poll_reader(&self, cx: &mut Context<'_>) -> Poll<Received> {
        if !self.run(cx) {
            return Poll::Pending;
        }
        self.on_received();
        self.0.got.borrow_mut().take().map_or(Poll::Pending, Poll::Ready)
    }

    fn on_received(&self) {
        if self.0.is_armed.replace(false) {
            self.0.armed.set(self.0.armed.get() - 1);
        }
    }

    /// Waits for what the receive in flight comes to. May be dropped: the receive goes on.
    pub async fn received(&self) -> Received {
        poll_fn(|cx| self.poll_received(cx)).await
    }

    /// True when the peer has ended the connection, or sent what nobody asked for: such a connection cannot carry a request. An armed one
    /// knows by itself what had arrived by the last turn of the loop; another one is looked at.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        match self.0.is_armed.get() && self.stream().on_ring().is_none() {
            true => self.run(&mut Context::from_waker(Waker::noop())),
            false => self.0.stream.is_spent(),
        }
    }

    /// Lets the reader run; true when there is a result to be taken.
    fn run(&self, cx: &mut Context<'_>) -> bool {
        if let Some(reader) = &mut *self.0.reader.borrow_mut() {
            let _endless = reader.as_mut().poll(cx);
        }
        self.0.got.borrow().is_some()
    }
}

async fn read_on(line: Rc<Line>) {
    loop {
        let wanted = || line.wanted.take().map_or(Poll::Pending, Poll::Ready);
        let into = poll_fn(|_| wanted()).await;
        let received = line.stream.receive(into).await;
        *line.got.borrow_mut() = Some(received);
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("fd", &self.stream().fd()).field("is_armed", &self.0.is_armed).finish()
    }
}

impl Drop for Upstream {
    /// A receive in flight is ended and waited for, not dropped: its descriptor is then closed here and now and not by the driver, in the
    /// middle of reading its completions.
    fn drop(&mut self) {
        let is_armed = self.0.is_armed.get();
        if is_armed {
            self.0.armed.set(self.0.armed.get() - 1);
        }
        let is_over = !is_armed || self.run(&mut Context::from_waker(Waker::noop()));
        let Some(mut reader) = self.0.reader.take() else { return };
        if is_over {
            return;
        }
        self.stream().shutdown(Shutdown::Both);
        let line = Rc::clone(&self.0);
        super::driver::spawn(poll_fn(move |cx| {
            let _endless = reader.as_mut().poll(cx);
            if line.got.borrow().is_some() { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::block::TAILROOM;
    use crate::net::testing::{on_each_driver, pair};
    use std::io::{Read as _, Write as _};

    fn block() -> Block {
        Block::from_vec(Vec::with_capacity(64 + TAILROOM))
    }

    fn upstream() -> (Upstream, std::net::TcpStream, Rc<Cell<usize>>) {
        let (stream, peer) = pair();
        let armed = Rc::default();
        (Upstream::new(stream, &armed), peer, armed)
    }

    #[test]
    fn one_receive_after_another_brings_what_was_sent() {
        on_each_driver(|_| async {
            let (upstream, mut peer, armed) = upstream();
            for text in [&b"one"[..], b"two"] {
                upstream.arm(block());
                assert!(upstream.is_armed() && armed.get() == 1 && !upstream.is_spent());
                peer.write_all(text).unwrap();
                let (received, got) = upstream.received().await;
                assert_eq!((received.unwrap(), got.unread()), (3, text));
                assert!(!upstream.is_armed() && armed.get() == 0);
            }
        });
    }

    #[test]
    fn who_leaves_takes_no_byte_with_it() {
        on_each_driver(|_| async {
            let (upstream, mut peer, _armed) = upstream();
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
                let (upstream, mut peer, _armed) = upstream();
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
    fn a_dropped_one_is_closed_and_not_counted_any_more() {
        on_each_driver(|timers| async move {
            for how in ["armed", "armed and heard", "as it was made"] {
                let (upstream, mut peer, armed) = upstream();
                if how != "as it was made" {
                    upstream.arm(block());
                }
                if how == "armed and heard" {
                    peer.write_all(b"heard").unwrap();
                    assert_eq!(upstream.received().await.1.unread(), b"heard");
                }
                drop(upstream);
                assert_eq!(armed.get(), 0);
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
