//! A socket on our epoll: a descriptor, and what the kernel has told of it.
//!
//! Receives and sends are rustix', which are the system calls themselves: the C library's are points where a thread may be cancelled, and pay for
//! that twice each.

use super::super::block::Block;
use super::super::stream::poll_now;
use super::super::tasks::Waiter;
use super::{ARRIVALS_AND_ROOM, Epoll};
use monoio::buf::IoBufMut as _;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::pin::Pin;
use std::slice;
use std::task::{Context, Poll};

/// What a receive has come to, with the bytes appended to the block.
type Received = (io::Result<usize>, Block);

/// See the module.
pub(in super::super) struct Socket {
    epoll: &'static Epoll,
    fd: RawFd,
    row: u32,
}

impl Socket {
    /// Takes a descriptor over; `connecting`: a connection is being made on it.
    ///
    /// # Errors
    /// The kernel cannot watch it: no memory, `fs.epoll.max_user_watches`.
    pub(in super::super) fn new(epoll: &'static Epoll, fd: OwnedFd, connecting: bool) -> io::Result<Self> {
        let row = epoll.add(std::os::fd::AsRawFd::as_raw_fd(&fd), connecting)?;
        Ok(Self { epoll, fd: fd.into_raw_fd(), row })
    }

    pub(in super::super) fn fd(&self) -> RawFd {
        self.fd
    }

    fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: it is this socket's, and open as long as that is there.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }

    /// Whether the kernel has told of something that nobody has received.
    pub(in super::super) fn may_receive(&self) -> bool {
        self.epoll.with(self.row, |row| row.is_readable)
    }

    #[cfg(test)]
    pub(super) fn is_unsure(&self) -> bool {
        self.epoll.with(self.row, |row| row.is_unsure)
    }

    /// Somebody has read from the descriptor himself, and found nothing more: what comes next is told.
    pub(in super::super) fn found_empty(&self) {
        self.epoll.with(self.row, |row| row.is_readable = row.is_unsure);
    }

    /// Receives into the block's room, or into a small one if it has none.
    pub(in super::super) fn receive(&self, into: Block) -> Receive<'_> {
        Receive { socket: self, into: Some(into) }
    }

    /// Takes what has arrived, into `into` or a block of the stock, which is taken only then.
    pub(in super::super) fn poll_received(&self, into: &mut Option<Block>, cx: &Context<'_>) -> Poll<Received> {
        let waits = self.epoll.with(self.row, |row| {
            if !row.is_readable {
                row.reader = Waiter::of(cx);
            }
            !row.is_readable
        });
        let moves_bulk = into.as_ref().is_some_and(Block::is_large);
        if waits || self.epoll.is_served(cx, moves_bulk) {
            return Poll::Pending;
        }
        let brought = into.take().filter(|block| block.room() > 0 || !block.all().is_empty());
        let is_brought = brought.is_some();
        let mut block = brought.unwrap_or_else(|| self.epoll.stock.borrow_mut().small_with_headroom());
        match self.try_receive(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if is_brought {
                    *into = Some(block);
                } else {
                    self.epoll.stock.borrow_mut().put(block);
                }
                self.epoll.with(self.row, |row| row.reader = Waiter::of(cx));
                Poll::Pending
            }
            received => {
                self.epoll.count_share(received.as_ref().map_or(0, |received| *received));
                Poll::Ready((received, block))
            }
        }
    }

    /// One `recv(2)`.
    fn try_receive(&self, block: &mut Block) -> io::Result<usize> {
        let (to, room) = (block.write_ptr(), block.bytes_total());
        debug_assert!(room > 0, "a receive without room looks like the peer's end");
        loop {
            // SAFETY: so much room is behind the pointer, and nobody else has the block.
            let into = unsafe { slice::from_raw_parts_mut(to.cast::<MaybeUninit<u8>>(), room) };
            let received = recv(self.borrow(), into, RecvFlags::DONTWAIT).map(|(_, count)| count);
            let received = received.map_err(io::Error::from);
            match &received {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.epoll.with(self.row, |row| row.is_readable = false);
                }
                Ok(count @ 1..) => {
                    // SAFETY: the kernel has written so many bytes there.
                    unsafe { block.set_init(*count) };
                    if *count < room {
                        self.found_empty();
                    }
                }
                // the end, which stays
                Ok(0) | Err(_) => {}
            }
            return received;
        }
    }

    /// Waits until a receive would be over at once.
    pub(in super::super) fn readable(&self) -> Readable<'_> {
        Readable { socket: self, has_waited: false }
    }

    /// Waits until a send would be over at once.
    pub(in super::super) fn writable(&self) -> Writable<'_> {
        Writable { socket: self }
    }

    /// Sends what is unread in the block, as much as the kernel takes at once.
    pub(in super::super) fn send(&self, block: Block) -> Send<'_> {
        Send { socket: self, block }
    }

    /// Sends all that is unread in the block, here and now. What was not taken is given back; a failure is met by who sends or receives next.
    pub(in super::super) fn post(&self, mut block: Block) -> Result<(), Block> {
        if !self.epoll.with(self.row, |row| row.is_writable) {
            return Err(block);
        }
        let sent = self.try_send(&block).unwrap_or_default();
        block.consume(sent);
        if !block.is_empty() {
            return Err(block);
        }
        self.epoll.stock.borrow_mut().put(block);
        Ok(())
    }

    /// One `send(2)`.
    fn try_send(&self, block: &Block) -> io::Result<usize> {
        let unread = block.unread();
        loop {
            let sent = send(self.borrow(), unread, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(io::Error::from);
            match &sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.epoll.with(self.row, |row| row.is_writable = false);
                }
                Ok(count) if *count < unread.len() => self.epoll.with(self.row, |row| row.is_writable = false),
                _ => {}
            }
            return sent;
        }
    }

    /// Waits for room; ready when there may be some.
    fn poll_room(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let tells = self.epoll.with(self.row, |row| {
            if row.is_writable {
                return None;
            }
            row.writer = Waiter::of(cx);
            Some((std::mem::replace(&mut row.tells_room, true), row.generation))
        });
        match tells {
            None => Poll::Ready(Ok(())),
            Some((true, _)) => Poll::Pending,
            Some((false, generation)) => {
                let told = self.epoll.control(libc::EPOLL_CTL_MOD, self.fd, (self.row, generation), ARRIVALS_AND_ROOM);
                match told {
                    Ok(()) => Poll::Pending,
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.epoll.rows.borrow_mut().remove(self.row as usize);
        // SAFETY: it was given away by who owned it.
        drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("fd", &self.fd).finish_non_exhaustive()
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

/// See [`Socket::readable`].
pub(in super::super) struct Readable<'a> {
    socket: &'a Socket,
    /// What is told from now on is news.
    has_waited: bool,
}

impl Future for Readable<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Socket { epoll, fd, row } = self.socket;
        let (is_readable, is_unsure) = epoll.with(*row, |row| (row.is_readable, row.is_unsure));
        // what was told before may have been taken since, and urgent data alone are nothing to be received
        let is_sure = self.has_waited && !is_unsure;
        let is_known = is_readable && (is_sure || poll_now(*fd, libc::POLLIN) != 0);
        if is_known {
            if epoll.is_served(cx, false) {
                return Poll::Pending;
            }
            epoll.count_share(0);
            return Poll::Ready(Ok(()));
        }
        self.has_waited = true;
        epoll.with(*row, |row| {
            row.is_readable = false;
            row.reader = Waiter::of(cx);
        });
        Poll::Pending
    }
}

/// See [`Socket::writable`].
pub(in super::super) struct Writable<'a> {
    socket: &'a Socket,
}

impl Future for Writable<'_> {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_room(cx)
    }
}

/// See [`Socket::send`].
pub(in super::super) struct Send<'a> {
    socket: &'a Socket,
    block: Block,
}

impl Future for Send<'_> {
    type Output = Received;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Received> {
        let socket = self.socket;
        loop {
            let room = socket.poll_room(cx);
            let sent = match room {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => Err(error),
                Poll::Ready(Ok(())) => socket.try_send(&self.block),
            };
            if !sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready((sent, std::mem::take(&mut self.block)));
            }
        }
    }
}
