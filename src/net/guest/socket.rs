//! A socket of monoio's that behaves like ours: what was received belongs to it, and not to whoever waits.
//!
//! A receive that is dropped may take bytes with it. So one future per socket, boxed with its first receive, runs receive after receive; it is
//! polled in place by whoever waits, and nobody's leaving drops it.
//!
//! Other waits are boxed: monoio's futures are larger than those of our own event loops, and whoever waits has room for either, so that each
//! connection would be larger on all of them.

use super::super::block::{Block, TAILROOM};
use crate::limits::BLOCK_SMALL;
use monoio::io::{AsyncReadRent as _, AsyncWriteRent as _};
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What an operation has come to, with its block.
type Received = (io::Result<usize>, Block);

/// A wait of a guest.
pub(in super::super) type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// See the module.
pub(in super::super) struct Socket(Rc<Shared>);

/// What the socket and its reader share.
struct Shared {
    stream: UnsafeCell<ManuallyDrop<TcpStream>>,
    /// Operations that have begun and were not seen to end: the driver has the descriptor as long as they are in flight.
    operations: Cell<usize>,
    /// For the next receive.
    wanted: Cell<Option<Block>>,
    in_flight: Cell<bool>,
    /// The last receive, until it is taken.
    got: RefCell<Option<Received>>,
    /// It holds what is shared: whoever drops the socket takes it out.
    reader: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl Socket {
    /// Takes a descriptor over.
    ///
    /// # Errors
    /// What the driver says when it cannot.
    pub(in super::super) fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned and handed over; a TcpStream of std is nothing but the descriptor.
        let socket = unsafe { std::net::TcpStream::from_raw_fd(fd.into_raw_fd()) };
        Ok(Self(Rc::new(Shared {
            stream: UnsafeCell::new(ManuallyDrop::new(TcpStream::from_std(socket)?)),
            operations: Cell::default(),
            wanted: Cell::default(),
            in_flight: Cell::default(),
            got: RefCell::default(),
            reader: RefCell::default(),
        })))
    }

    pub(in super::super) fn fd(&self) -> RawFd {
        self.0.shared().as_raw_fd()
    }

    /// Whether a receive is in flight, or over and not taken yet.
    pub(in super::super) fn is_receiving(&self) -> bool {
        self.0.in_flight.get()
    }

    /// Whether something was received, or the end, and not taken yet, as far as the driver has heard by its last turn. Not to be asked while
    /// somebody else waits.
    pub(in super::super) fn has_received(&self) -> bool {
        self.is_receiving() && self.run(&mut Context::from_waker(Waker::noop()))
    }

    /// Receives into the block's room, unless something was received already or is about to be.
    pub(in super::super) fn receive(&self, into: Block) -> Receive<'_> {
        Receive { socket: self, into: self.ask(into) }
    }

    /// The same for somebody who will come back for the result ([`Socket::poll_received`]) with the block that is returned, if one is.
    pub(in super::super) fn ask(&self, into: Block) -> Option<Block> {
        if self.is_receiving() {
            return Some(into);
        }
        let has_memory = into.room() > 0 || !into.all().is_empty();
        let into = if has_memory { into } else { Block::from_vec(Vec::with_capacity(BLOCK_SMALL + TAILROOM)) };
        debug_assert!(into.room() > 0, "a receive without room looks like the peer's end");
        self.0.wanted.set(Some(into));
        self.0.in_flight.set(true);
        self.0.reader.borrow_mut().get_or_insert_with(|| Box::pin(read_on(Rc::clone(&self.0))));
        // nobody waits yet: whoever does will poll again
        self.run(&mut Context::from_waker(Waker::noop()));
        None
    }

    /// Takes what has been received. `into` is what [`Socket::ask`] gave back.
    pub(in super::super) fn poll_received(&self, into: &mut Option<Block>, cx: &mut Context<'_>) -> Poll<Received> {
        if !self.is_receiving() {
            self.ask(into.take().unwrap_or_default());
        }
        if !self.run(cx) {
            return Poll::Pending;
        }
        self.0.in_flight.set(false);
        let got = self.0.got.borrow_mut().take();
        got.map_or(Poll::Pending, |(received, block)| {
            let block = merge(block, received.as_ref().map_or(0, |received| *received), into.take());
            Poll::Ready((received, block))
        })
    }

    /// Lets the reader run; true when there is a result to be taken.
    fn run(&self, cx: &mut Context<'_>) -> bool {
        if let Some(reader) = &mut *self.0.reader.borrow_mut() {
            let _endless = reader.as_mut().poll(cx);
        }
        self.0.got.borrow().is_some()
    }

    /// Waits until a receive would be over at once.
    pub(in super::super) fn readable(&self) -> Boxed<'_, io::Result<()>> {
        Box::pin(async {
            if self.is_receiving() {
                poll_fn(|cx| if self.run(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
                return Ok(());
            }
            self.0.counted(self.0.shared().readable(false)).await
        })
    }

    /// Waits until a send would be over at once.
    pub(in super::super) fn writable(&self) -> Boxed<'_, io::Result<()>> {
        Box::pin(self.0.counted(self.0.shared().writable(false)))
    }

    /// Sends what is unread in the block, as much as the kernel takes at once.
    pub(in super::super) fn send(&self, block: Block) -> Boxed<'_, Received> {
        Box::pin(self.0.counted(self.0.exclusive().write(block)))
    }
}

async fn read_on(shared: Rc<Shared>) {
    loop {
        let into = poll_fn(|_| shared.wanted.take().map_or(Poll::Pending, Poll::Ready)).await;
        let received = shared.counted(shared.exclusive().read(into)).await;
        *shared.got.borrow_mut() = Some(received);
    }
}

/// The block that was received into; or the one that whoever waits by now has brought, with the same bytes appended.
fn merge(mut block: Block, received: usize, into: Option<Block>) -> Block {
    let Some(mut into) = into else { return block };
    let arrived = block.all().len() - received..block.all().len();
    if into.all().is_empty() {
        // what stands before them was somebody else's
        block.set_unread(arrived);
        return block;
    }
    into.vec_mut().extend_from_slice(&block.all()[arrived]);
    into
}

impl Shared {
    /// Counts an operation for as long as it is in flight; for ever, if it is dropped before its end.
    async fn counted<T>(&self, operation: impl Future<Output = T>) -> T {
        self.operations.set(self.operations.get() + 1);
        let result = operation.await;
        self.operations.set(self.operations.get() - 1);
        result
    }

    fn shared(&self) -> &TcpStream {
        // SAFETY: the exclusive references that reading and writing make end before they return.
        unsafe { &*self.stream.get() }
    }

    #[expect(clippy::mut_from_ref, reason = "monoio wants it; see below")]
    fn exclusive(&self) -> &mut TcpStream {
        // SAFETY: `read` and `write` of monoio only clone the shared descriptor out of it before they return; no reference to the
        // TcpStream lives in their futures' state that another call could alias mutably (its own `Split` rests on the same).
        unsafe { &mut *self.stream.get() }
    }
}

impl Drop for Shared {
    /// Closes the descriptor here and now, where monoio would have it closed by an operation: who lets go of one for want of another gets it.
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and nothing is left that could ask for it.
        let stream = unsafe { ManuallyDrop::take(self.stream.get_mut()) };
        if self.operations.get() == 0 {
            // SAFETY: the descriptor was ours, and the stream that is given up for it does not close it.
            drop(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
        }
    }
}

impl Drop for Socket {
    /// A receive in flight is ended and waited for, not dropped: its descriptor is then closed here and now and not by the driver, in the
    /// middle of reading its completions.
    fn drop(&mut self) {
        let is_over = !self.is_receiving() || self.has_received();
        let Some(mut reader) = self.0.reader.take() else { return };
        if is_over {
            return;
        }
        // only this direction: how the other one ends is for the close to say
        super::super::stream::shutdown_fd(self.fd(), Shutdown::Read);
        let shared = Rc::clone(&self.0);
        super::wards::spawn(poll_fn(move |cx| {
            let _endless = reader.as_mut().poll(cx);
            if shared.got.borrow().is_some() { Poll::Ready(()) } else { Poll::Pending }
        }));
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("fd", &self.fd()).field("in_flight", &self.0.in_flight).finish_non_exhaustive()
    }
}

/// See [`Socket::receive`].
pub(in super::super) struct Receive<'a> {
    socket: &'a Socket,
    into: Option<Block>,
}

impl Future for Receive<'_> {
    type Output = Received;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Received> {
        let socket = self.socket;
        socket.poll_received(&mut self.into, cx)
    }
}
