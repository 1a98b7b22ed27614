//! A socket on a ring of ours.
//!
//! It is received from in one of two ways. *Listened to*, while it is busy with small things: the kernel puts what arrives into blocks of
//! its choice, and they wait here. *Asked*, for a first request and for bulk: one receive into the block of whoever asks, which may be
//! large. A connection goes over to being asked when somebody brings a large block or when it runs too far ahead of whoever reads; it is
//! listened to again when what it brings has become small. The receive belongs to the socket either way: who waits may leave.

use super::super::block::Block;
use super::operation::{Next, Operation, Pieces, is_void};
use super::{Number, Ring, buffers, wait_in};
use io_uring::{opcode, squeue, types};
use monoio::buf::IoBufMut as _;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{IntoRawFd as _, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What a receive has come to, with the bytes appended to the block.
type Received = (io::Result<usize>, Block);

/// A descriptor, and the receive that is in flight for it.
pub(in super::super) struct Socket {
    ring: &'static Ring,
    fd: RawFd,
    receiving: Cell<Option<Number>>,
    posted: Cell<Option<Number>>,
    /// What comes does not fit into small blocks.
    is_bulk: Cell<bool>,
}

/// What an operation has for who receives.
enum Found {
    Nothing,
    Piece(Block),
    /// The operation is over, with its block if it was one that was asked for.
    Over(Option<Block>, i32),
}

impl Socket {
    pub(in super::super) fn new(ring: &'static Ring, fd: OwnedFd) -> Self {
        ring.sockets.set(ring.sockets.get() + 1);
        Self {
            ring,
            fd: fd.into_raw_fd(),
            receiving: Cell::new(None),
            posted: Cell::new(None),
            is_bulk: Cell::new(false),
        }
    }

    pub(in super::super) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Whether a receive is in flight, or over and not taken yet.
    pub(in super::super) fn is_receiving(&self) -> bool {
        self.received().is_some()
    }

    /// Whether something was received, or the end, and not taken yet.
    pub(in super::super) fn has_received(&self) -> bool {
        self.received().is_some_and(|number| self.ring.with(number, |operation| operation.is_readable()))
    }

    /// The receive that is in flight, or over with something to tell. One that came to nothing is forgotten here: it would look as if the
    /// peer had spoken, or ended.
    fn received(&self) -> Option<Number> {
        let number = self.receiving.get()?;
        if self.ring.with(number, |operation| operation.is_void()) {
            self.receiving.set(None);
            self.ring.remove(number);
        }
        self.receiving.get()
    }

    /// Has the socket listened to from now on, if what it brings is small and the kernel gets buffers for it. True: whoever receives need
    /// not bring a block.
    pub(in super::super) fn listen(&self) -> bool {
        let Some(number) = self.received() else {
            if self.is_bulk.get() || self.ring.is_behind() {
                return false;
            }
            let entry = opcode::RecvMulti::new(types::Fd(self.fd), buffers::GROUP).build();
            self.receiving.set(Some(self.ring.submit(Operation::Listen(Pieces::new()), |_| entry)));
            return true;
        };
        let is_listening = |operation: &mut Operation| match operation {
            Operation::Listen(pieces) => !pieces.is_cancelled,
            _ => false,
        };
        self.ring.with(number, is_listening)
    }

    /// Receives into the block's room, unless something was received already or is about to be; submitted by this call.
    pub(in super::super) fn receive(&self, into: Block) -> Receive<'_> {
        Receive { socket: self, into: self.ask(into) }
    }

    /// The same for somebody who will come back for the result ([`Socket::poll_received`]) with the block that is returned, if one is.
    pub(in super::super) fn ask(&self, into: Block) -> Option<Block> {
        if into.is_large() {
            self.is_bulk.set(true);
        }
        let Some(number) = self.received() else {
            self.submit_receive(Some(into));
            return None;
        };
        if into.is_large() {
            let called_off = |operation: &mut Operation| match operation {
                Operation::Listen(pieces) => !std::mem::replace(&mut pieces.is_cancelled, true),
                _ => false,
            };
            if self.ring.with(number, called_off) {
                self.ring.cancel(number);
            }
        }
        Some(into)
    }

    /// Takes what has been received. `into` is what [`Socket::ask`] gave back.
    pub(in super::super) fn poll_received(&self, into: &mut Option<Block>, cx: &Context<'_>) -> Poll<Received> {
        loop {
            let Some(number) = self.receiving.get() else {
                // what was in flight came to nothing, for want of a buffer or because it was called off
                self.submit_receive(into.take());
                continue;
            };
            match self.ring.with(number, |operation| find(operation, cx)) {
                Found::Nothing => return Poll::Pending,
                Found::Piece(piece) => return Poll::Ready(self.deliver(number, piece, into.take())),
                Found::Over(block, result) => {
                    self.receiving.set(None);
                    self.ring.remove(number);
                    if let Some(received) = self.conclude(block, result, into) {
                        return Poll::Ready(received);
                    }
                }
            }
        }
    }

    /// Waits until a receive would be over at once.
    pub(in super::super) fn readable(&self) -> Ready<'_> {
        // one that is in flight will tell, or be the first to know that it has ended
        let wait = if self.is_receiving() { Wait::Received } else { self.poll(libc::POLLIN) };
        Ready { socket: self, wait }
    }

    /// Waits until a send would be over at once.
    pub(in super::super) fn writable(&self) -> Ready<'_> {
        Ready { socket: self, wait: self.poll(libc::POLLOUT) }
    }

    /// Sends what is unread in the block, as much as the kernel takes at once. `unawaited`: that is all of it as a rule, and nobody waits for
    /// that; where it takes nothing the error is [`io::ErrorKind::WouldBlock`].
    pub(in super::super) fn send(&self, block: Block, unawaited: bool) -> Send {
        if unawaited {
            self.ring.unawaited.set(self.ring.unawaited.get() + 1);
        }
        let flags = if unawaited { libc::MSG_DONTWAIT } else { 0 };
        let entry = |operation: &mut Operation| match operation {
            Operation::Send { block, .. } => send_entry(self.fd, block, flags),
            _ => opcode::Nop::new().build(),
        };
        let number = self.ring.submit(Operation::Send { block, result: None, waker: None }, entry);
        Send { ring: self.ring, number }
    }

    /// Sends all that is unread in a small block, without anybody hearing of it: if it fails, the connection is shut down. Only while the
    /// socket is listened to, so that this is noticed, and while its peer has said nothing more; else, or when the last one is not done
    /// yet, the block is given back.
    pub(in super::super) fn post(&self, block: Block) -> Result<(), Block> {
        if !self.listen() || self.has_received() || self.is_posting() {
            return Err(block);
        }
        self.ring.unawaited.set(self.ring.unawaited.get() + 1);
        let entry = |operation: &mut Operation| match operation {
            Operation::Post { block: Some(block), .. } => send_entry(self.fd, block, libc::MSG_DONTWAIT),
            _ => opcode::Nop::new().build(),
        };
        let post = Operation::Post { block: Some(block), fd: self.fd, waits: false, waker: None };
        self.posted.set(Some(self.ring.submit(post, entry)));
        Ok(())
    }

    /// Waits until what was posted is sent: what is sent at the same time could overtake it.
    pub(in super::super) async fn posted(&self) {
        poll_fn(|cx| {
            let Some(number) = self.posted.get() else { return Poll::Ready(()) };
            self.ring.with(number, |operation| wait_in(operation, cx));
            if self.is_posting() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Whether something that was posted is not sent yet.
    pub(in super::super) fn is_posting(&self) -> bool {
        let Some(number) = self.posted.get() else { return false };
        let in_flight = self.ring.with(number, |operation| operation.is_in_flight());
        if !in_flight {
            self.ring.remove(number);
            self.posted.set(None);
        }
        in_flight
    }

    fn poll(&self, events: libc::c_short) -> Wait {
        let entry = opcode::PollAdd::new(types::Fd(self.fd), u32::from(events.cast_unsigned())).build();
        Wait::Events(self.ring.submit(Operation::Poll { result: None, waker: None }, |_| entry))
    }

    /// Asks for a receive into this block, or into another if it is none.
    fn submit_receive(&self, into: Option<Block>) {
        let into = into.filter(|block| block.room() > 0 || !block.all().is_empty());
        let into = into.unwrap_or_else(|| self.ring.stock.borrow_mut().small_with_headroom());
        debug_assert!(into.room() > 0, "a receive without room looks like the peer's end");
        let entry = |operation: &mut Operation| {
            let (to, len) = match operation {
                Operation::Receive { block: Some(block), .. } => (block.write_ptr(), block.bytes_total()),
                _ => (std::ptr::null_mut(), 0),
            };
            opcode::Recv::new(types::Fd(self.fd), to, u32::try_from(len).unwrap_or(u32::MAX)).build()
        };
        let asked = Operation::Receive { block: Some(into), result: None, waker: None };
        self.receiving.set(Some(self.ring.submit(asked, entry)));
    }

    /// Hands out a piece of what was received by listening.
    fn deliver(&self, number: Number, mut piece: Block, into: Option<Block>) -> Received {
        let count = piece.unread().len();
        let Some(mut into) = self.unless_empty(into) else {
            self.ring.count_ahead(-1);
            return (Ok(count), piece);
        };
        let count = count.min(into.room());
        into.vec_mut().extend_from_slice(&piece.unread()[..count]);
        piece.consume(count);
        if piece.is_empty() {
            self.ring.count_ahead(-1);
            self.ring.put(piece);
        } else {
            self.ring.with(number, |operation| operation.push_front(piece));
        }
        (Ok(count), into)
    }

    /// What an operation that is over has come to; `None`: to nothing, and another is to be asked, with what `into` holds by then.
    fn conclude(&self, block: Option<Block>, result: i32, into: &mut Option<Block>) -> Option<Received> {
        let received = usize::try_from(result).unwrap_or_default();
        let block = match block {
            Some(block) => {
                if received > 0 && !block.is_large() && block.room() > 0 {
                    self.is_bulk.set(false);
                }
                self.merge(block, received, into.take())
            }
            None => into.take().unwrap_or_default(),
        };
        match result {
            0.. => Some((Ok(received), block)),
            _ if is_void(result) => {
                *into = Some(block);
                None
            }
            _ => Some((Err(io::Error::from_raw_os_error(-result)), block)),
        }
    }

    /// The block that was received into; or the one that whoever waits by now has brought, with the same bytes appended.
    fn merge(&self, mut block: Block, received: usize, into: Option<Block>) -> Block {
        let Some(into) = into else { return block };
        let arrived = block.all().len() - received..block.all().len();
        let Some(mut into) = self.unless_empty(Some(into)) else {
            // what stands before them was somebody else's
            block.set_unread(arrived);
            return block;
        };
        into.vec_mut().extend_from_slice(&block.all()[arrived]);
        self.ring.put(block);
        into
    }

    /// A block with nothing in it is not needed where another one is there that has something.
    fn unless_empty(&self, into: Option<Block>) -> Option<Block> {
        let into = into?;
        if into.all().is_empty() {
            self.ring.put(into);
            return None;
        }
        Some(into)
    }
}

/// Sends what is unread in a block.
pub(super) fn send_entry(fd: RawFd, block: &Block, flags: libc::c_int) -> squeue::Entry {
    let unread = block.unread();
    let len = u32::try_from(unread.len()).unwrap_or(u32::MAX);
    opcode::Send::new(types::Fd(fd), unread.as_ptr(), len).flags(libc::MSG_NOSIGNAL | flags).build()
}

impl Drop for Socket {
    fn drop(&mut self) {
        for number in [self.receiving.get(), self.posted.get()].into_iter().flatten() {
            self.ring.abandon(number);
        }
        self.ring.close(self.fd);
        self.ring.sockets.set(self.ring.sockets.get() - 1);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("fd", &self.fd).field("receiving", &self.receiving).finish_non_exhaustive()
    }
}

fn find(operation: &mut Operation, cx: &Context<'_>) -> Found {
    match operation {
        Operation::Listen(pieces) => match pieces.next() {
            Next::Piece(piece) => return Found::Piece(piece),
            Next::Over(end) => return Found::Over(None, end.unwrap_or(-libc::ECANCELED)),
            Next::Nothing => {}
        },
        Operation::Receive { block, result: Some(result), .. } => return Found::Over(block.take(), *result),
        _ => {}
    }
    wait_in(operation, cx);
    Found::Nothing
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

/// See [`Socket::readable`].
pub(in super::super) struct Ready<'a> {
    socket: &'a Socket,
    wait: Wait,
}

/// What tells that a socket is ready.
enum Wait {
    /// The receive that is in flight.
    Received,
    /// An operation that waits for just that.
    Events(Number),
    Over,
}

impl Future for Ready<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket;
        let number = match self.wait {
            Wait::Events(number) => number,
            Wait::Received => match socket.received() {
                Some(number) => number,
                // it has come to nothing, or somebody has taken what it brought
                None => {
                    self.wait = socket.poll(libc::POLLIN);
                    return self.poll(cx);
                }
            },
            Wait::Over => return Poll::Ready(Ok(())),
        };
        let ring = socket.ring;
        let result = ring.with(number, |operation| {
            if !operation.is_readable() {
                wait_in(operation, cx);
                return None;
            }
            Some(if let Operation::Poll { result: Some(events), .. } = operation { *events } else { 0 })
        });
        let Some(events) = result else { return Poll::Pending };
        if let Wait::Events(number) = std::mem::replace(&mut self.wait, Wait::Over) {
            ring.remove(number);
        }
        Poll::Ready(if events < 0 { Err(io::Error::from_raw_os_error(-events)) } else { Ok(()) })
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if let Wait::Events(number) = self.wait {
            self.socket.ring.abandon(number);
        }
    }
}

/// See [`Socket::send`].
pub(in super::super) struct Send {
    ring: &'static Ring,
    /// [`OVER`] when it is. No `Option`, so that this is returned in two registers.
    number: Number,
}

/// The number of no operation.
const OVER: Number = Number::MAX;

impl Future for Send {
    type Output = Received;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Received> {
        let number = self.number;
        let is_over = self.ring.with(number, |operation| {
            let is_over = !operation.is_in_flight();
            if !is_over {
                wait_in(operation, cx);
            }
            is_over
        });
        if !is_over {
            return Poll::Pending;
        }
        self.number = OVER;
        let Operation::Send { block, result, .. } = self.ring.remove(number) else {
            unreachable!("it was submitted so")
        };
        let result = result.unwrap_or_default();
        Poll::Ready((usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)), block))
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        if self.number != OVER {
            self.ring.abandon(self.number);
        }
    }
}
