//! A ring of our own: the first step of the ladder ([`super::driver`]), for Linux 6.1 and later.
//!
//! What it has over monoio's, and why it exists: a socket that is listened to has one receive that stays in the kernel for as long as the
//! connection is busy (multishot), and the kernel chooses the buffer when bytes are there ([`buffers`]). So a receive is neither tried in
//! vain nor submitted nor armed once a request, and whoever waits holds no buffer. What was received belongs to the [`socket`] and not to
//! whoever waits for it, so a wait may be dropped. Tasks are those of [`super::tasks`].
//!
//! An operation is a row of one slab, and its number travels through the kernel and back. A row stays until the kernel has let go of it,
//! whoever has lost interest meanwhile, and the block that the kernel reads or writes stays with it.
//!
//! Descriptors are closed by the ring as well, in the order of submission: one that were closed at once could be another connection's by
//! the time that an operation submitted before reaches the kernel. So they are open until the end of the turn; where they are few
//! ([`Ring::close_at_once`]) what was submitted goes to the kernel with each close.
//!
//! A ring ends with its worker ([`ending`]): its tasks are dropped, what is in flight is called off and waited for, and everything goes
//! back to the kernel. What the kernel will not let go of is left behind, because it may still be written to.

mod buffers;
mod ending;
mod operation;
pub(super) mod socket;
#[cfg(test)]
mod tests;

use super::block::{Block, Blocks};
use super::clock;
use super::engine::{self, Engine};
use super::stream::shutdown_fd;
use super::tasks::Tasks;
use crate::limits::PIECES_AHEAD_MAX;
use buffers::Buffers;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use monoio::buf::IoBufMut as _;
use operation::{Operation, Pieces};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Waker};

/// Submission queue entries. The queue is written and read round and round, so it should stay in the caches: 16 KiB. A turn that wants
/// more submits in between.
const ENTRIES: u32 = 256;
/// Completion queue entries: 32 KiB. A turn brings some twenty receives, and what it has submitted; the kernel keeps what does not fit.
const COMPLETIONS: u32 = 2_048;
/// `io_uring_enter(2)`: run what has become due, and wait for completions.
const ENTER_GETEVENTS: u32 = 1;
/// So many of them do not end a wait: a turn of more has things to do anyway, and asking the kernel for many completions makes it put
/// more into one turn than the caches hold (512 connections: 1.12 of the CPU).
const UNAWAITED_MAX: u32 = 4;
/// Of operations about which only failures would be told, and nobody asks.
const UNHEARD: u64 = u64::MAX;
/// The same of one that closes a descriptor, whose number follows.
const CLOSING: u64 = 1 << 63;
/// Beyond so many operations a debug build does not look through all of them with each turn.
const CHECKED_MAX: usize = 256;

/// See the module.
pub(super) struct Ring {
    tasks: Tasks,
    io: RefCell<IoUring>,
    operations: RefCell<Slab<Operation>>,
    buffers: RefCell<Buffers>,
    pub(super) stock: Rc<RefCell<Blocks>>,
    /// Blocks that were received and not read yet, over all sockets.
    ahead: Cell<usize>,
    /// Operations submitted since the last turn that will be over at once, and that nobody waits for.
    unawaited: Cell<u32>,
    /// Those that were made and not dropped yet: each holds on to this ring.
    sockets: Cell<usize>,
    /// The kernel has refused a turn for good: nothing is submitted any more, and nothing will complete.
    is_broken: Cell<bool>,
    /// What each entry of the submission queue is about, by its number from the beginning: what the kernel has not taken, should it take no
    /// more, is known by that.
    queued: Box<[Cell<u64>; ENTRIES as usize]>,
    pushed: Cell<u32>,
    /// Operations that a broken ring was not given. Their rows stay, as nothing completes them, and the kernel has never seen them.
    unsubmitted: Cell<usize>,
    /// What is to be closed when nothing that was submitted for it can reach the kernel any more: only of a broken ring.
    unclosed: RefCell<Vec<RawFd>>,
    /// Descriptors are few: none waits for the end of the turn to be closed.
    closes_at_once: Cell<bool>,
    #[cfg(test)]
    refuses: Cell<bool>,
}

/// The number of an operation.
pub(super) type Number = u32;

/// Who made the ring of this thread, and ends it.
pub(super) struct Owner(*mut Ring);

impl Owner {
    /// The ring. Whatever holds on to it is a task of the ring, or counted as a socket of it.
    pub(super) fn ring(&self) -> &'static Ring {
        // SAFETY: it was leaked by `Ring::leak`, and `end` frees it only when nobody is left who could have asked.
        unsafe { &*self.0 }
    }
}

impl Ring {
    /// Makes the ring of this thread.
    ///
    /// # Errors
    /// The kernel is older than 6.1, or refuses.
    pub(super) fn leak(stock: Rc<RefCell<Blocks>>) -> io::Result<Owner> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(ENTRIES)?;
        let owner = Owner(Box::into_raw(Box::new(Self {
            tasks: Tasks::default(),
            buffers: RefCell::new(Buffers::register(&io)?),
            io: RefCell::new(io),
            operations: RefCell::default(),
            stock,
            ahead: Cell::new(0),
            unawaited: Cell::new(0),
            sockets: Cell::new(0),
            is_broken: Cell::new(false),
            queued: Box::new([const { Cell::new(UNHEARD) }; ENTRIES as usize]),
            pushed: Cell::new(0),
            unsubmitted: Cell::new(0),
            unclosed: RefCell::default(),
            closes_at_once: Cell::new(false),
            #[cfg(test)]
            refuses: Cell::new(false),
        })));
        engine::set_current(Some(Engine::Ring(owner.ring())));
        clock::begin_turn();
        Ok(owner)
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// A turn of the loop.
    ///
    /// # Panics
    /// The ring is broken. Nothing else panics for that: a task, or a drop, goes on as if it had been given what it asked for, and is dropped
    /// with the others.
    pub(super) fn turn_or_panic(&self, wait: bool) {
        if let Err(error) = self.turn(wait) {
            panic!("the ring is broken: {error}");
        }
    }

    /// Hands everything that was submitted to the kernel, with `wait` until something has completed, and hands out what has.
    ///
    /// What completes at once and matters to nobody does not end the wait: with one connection in use, that would be every other system
    /// call. It does complete at once, as it is not to wait for a peer that takes nothing: then the rest is sent once more, and may wait.
    fn turn(&self, wait: bool) -> io::Result<()> {
        if self.is_broken.get() {
            // nothing that was asked for since has reached the kernel: whoever waits for that would wait for ever
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // connections that are behind do not get the kernel's buffers refilled; they go on with their own
        if !self.is_behind() {
            self.buffers.borrow_mut().refill(&mut self.stock.borrow_mut());
        }
        let mut to_do = Vec::new();
        {
            let mut io = self.io.borrow_mut();
            let unawaited = Some(self.unawaited.take()).filter(|&count| count <= UNAWAITED_MAX);
            self.enter(&mut io, if wait { 1 + unawaited.unwrap_or(0) } else { 0 }, ENTER_GETEVENTS)?;
            clock::begin_turn();
            for completion in io.completion() {
                to_do.extend(self.complete(&completion));
            }
        }
        for then in to_do {
            match then {
                Then::Cancel(number) => self.cancel(number),
                Then::SendRest(number) => self.send_rest(number),
            }
        }
        if cfg!(debug_assertions) && self.operations.borrow().len() <= CHECKED_MAX {
            self.check_invariants();
        }
        Ok(())
    }

    /// Asserts what is true between any two turns.
    ///
    /// # Panics
    /// It is not, by a defect of this module.
    fn check_invariants(&self) {
        let operations = self.operations.borrow();
        let pieces = operations.iter().map(|(_, operation)| operation.pieces()).sum::<usize>();
        assert!(pieces <= self.ahead.get(), "what waits to be read is counted");
        assert!(
            self.unsubmitted.get() == 0 || self.is_broken.get(),
            "a ring that is whole has given all to the kernel"
        );
        self.buffers.borrow().check_invariants();
    }

    /// Makes the next turn fail as a kernel would that refuses it.
    #[cfg(test)]
    pub(super) fn break_it(&self) {
        self.is_broken.set(true);
    }

    /// Has every close reach the kernel at once, and what was submitted before with it.
    pub(super) fn close_at_once(&self) {
        self.closes_at_once.set(true);
    }

    /// Queues an operation for the next turn; false when the ring is broken, and the kernel will not see it. Does not panic.
    fn push(&self, entry: squeue::Entry, about: u64) -> bool {
        let entry = entry.user_data(about);
        while !self.is_broken.get() {
            // SAFETY: what an entry points to is owned by its row, which stays until the kernel is done with it.
            if unsafe { self.io.borrow_mut().submission().push(&entry) }.is_ok() {
                let number = self.pushed.get();
                self.queued[(number % ENTRIES) as usize].set(about);
                self.pushed.set(number.wrapping_add(1));
                return true;
            }
            // one that fails has broken the ring
            let _ = self.turn(false);
        }
        false
    }

    /// One `io_uring_enter(2)`; an error has broken the ring.
    fn enter(&self, io: &mut IoUring, wanted: u32, flags: u32) -> io::Result<()> {
        #[cfg(test)]
        if self.refuses.get() {
            self.is_broken.set(true);
            return Err(io::Error::from_raw_os_error(libc::EBADFD));
        }
        enter(io, wanted, flags).inspect_err(|_| self.is_broken.set(true))
    }

    /// Queues an operation that has a row.
    fn submit(&self, operation: Operation, entry: impl FnOnce(&mut Operation) -> squeue::Entry) -> Number {
        let mut operations = self.operations.borrow_mut();
        let vacant = operations.vacant_entry();
        let number = vacant.key();
        let entry = entry(vacant.insert(operation));
        drop(operations);
        self.push_row(entry, number as u64);
        Number::try_from(number).expect("fewer than four billion operations")
    }

    /// Queues what an operation that has a row wants of the kernel.
    fn push_row(&self, entry: squeue::Entry, number: u64) {
        if !self.push(entry, number) {
            self.unsubmitted.set(self.unsubmitted.get() + 1);
        }
    }

    fn cancel(&self, number: Number) {
        let entry = opcode::AsyncCancel::new(u64::from(number)).build();
        self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), UNHEARD);
    }

    /// Closes a descriptor behind everything that was submitted for it.
    fn close(&self, fd: RawFd) {
        let entry = opcode::Close::new(types::Fd(fd)).build();
        if !self.push(entry.flags(squeue::Flags::SKIP_SUCCESS), CLOSING | fd as u64) {
            // not here and now: what was queued for it would meet whoever gets its number next
            return self.unclosed.borrow_mut().push(fd);
        }
        if self.closes_at_once.get() {
            // one that fails has broken the ring, which the loop will find
            let _ = self.enter(&mut self.io.borrow_mut(), 0, 0);
        }
    }

    /// Whether so much waits to be read that the kernel gets no more buffers: nothing new need be listened to.
    fn is_behind(&self) -> bool {
        self.ahead.get() >= PIECES_AHEAD_MAX
    }

    /// Counts blocks that were received and not read yet.
    fn count_ahead(&self, change: isize) {
        self.ahead.set(self.ahead.get().saturating_add_signed(change));
    }

    fn put(&self, block: Block) {
        self.stock.borrow_mut().put(block);
    }

    /// Takes down what an operation has come to, and wakes who waits for it. Returns what is to be done about it.
    fn complete(&self, completion: &cqueue::Entry) -> Option<Then> {
        let (number, result, flags) = (completion.user_data(), completion.result(), completion.flags());
        let more = cqueue::more(flags);
        let received = usize::try_from(result).unwrap_or(0);
        let filled = cqueue::buffer_select(flags).and_then(|id| self.buffers.borrow_mut().take(id, received));
        if result == -libc::ENOBUFS {
            self.buffers.borrow_mut().on_shortage();
        }
        let mut operations = self.operations.borrow_mut();
        // that of what is unheard is none
        let operation = usize::try_from(number).ok().and_then(|number| operations.get_mut(number))?;
        match operation {
            Operation::Listen(pieces) => {
                match filled {
                    Some(block) if received > 0 => {
                        self.count_ahead(1);
                        pieces.push(block);
                    }
                    Some(block) => self.put(block),
                    None => {}
                }
                let flooded = pieces.on_completion(result, more);
                return flooded.then_some(Then::Cancel(Number::try_from(number).unwrap_or_default()));
            }
            Operation::Receive { block, result: kept, waker } => {
                if let Some(block) = block {
                    // SAFETY: the kernel has written so many bytes at the pointer that it was given.
                    unsafe { block.set_init(received) };
                }
                settle(kept, result, waker);
            }
            Operation::Send { result: kept, waker, .. } | Operation::Poll { result: kept, waker } => {
                settle(kept, result, waker);
            }
            Operation::Post { block: Some(block), waits: waits @ false, .. } if is_left(block, result) => {
                block.consume(received);
                *waits = true;
                return Some(Then::SendRest(Number::try_from(number).unwrap_or_default()));
            }
            Operation::Post { block, fd, waker, .. } => {
                // one that failed, or was cut short by its failure, is the end of the connection, which whoever receives will notice
                if block.take().is_some_and(|block| self.on_posted(block, received)) {
                    shutdown_fd(*fd, Shutdown::Both);
                }
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
            }
            Operation::Abandoned(_) if more => filled.into_iter().for_each(|block| self.put(block)),
            Operation::Abandoned(block) => {
                let kept = block.take();
                operations.remove(number as usize);
                filled.into_iter().chain(kept).for_each(|block| self.put(block));
            }
        }
        None
    }

    /// Sends what was posted and not taken, and waits until it is: in the kernel, where it holds nobody up.
    fn send_rest(&self, number: Number) {
        let entry = self.with(number, |operation| match operation {
            Operation::Post { block: Some(block), fd, .. } => Some(socket::send_entry(*fd, block, libc::MSG_WAITALL)),
            // it was given up since
            _ => None,
        });
        if let Some(entry) = entry {
            self.push_row(entry, number.into());
        }
    }

    /// Takes a block back that was to be sent; true when it was not sent whole.
    fn on_posted(&self, block: Block, sent: usize) -> bool {
        let is_cut = sent < block.unread().len();
        self.put(block);
        is_cut
    }

    /// Looks at an operation.
    fn with<T>(&self, number: Number, look: impl FnOnce(&mut Operation) -> T) -> T {
        look(&mut self.operations.borrow_mut()[number as usize])
    }

    fn remove(&self, number: Number) -> Operation {
        self.operations.borrow_mut().remove(number as usize)
    }

    /// Gives an operation up: it is called off if the kernel still has it, and forgotten.
    fn abandon(&self, number: Number) {
        let mut operations = self.operations.borrow_mut();
        let row = &mut operations[number as usize];
        let in_flight = row.is_in_flight();
        let blocks = match std::mem::replace(row, Operation::Abandoned(None)) {
            Operation::Listen(pieces) => self.forget(pieces),
            Operation::Receive { block, .. } | Operation::Post { block, .. } => block,
            Operation::Send { block, .. } => Some(block),
            Operation::Poll { .. } | Operation::Abandoned(_) => None,
        };
        if in_flight {
            *row = Operation::Abandoned(blocks);
            drop(operations);
            self.cancel(number);
        } else {
            operations.remove(number as usize);
            drop(operations);
            blocks.into_iter().for_each(|block| self.put(block));
        }
    }

    /// Puts back what nobody will read.
    fn forget(&self, pieces: Pieces) -> Option<Block> {
        for block in pieces.into_blocks() {
            self.count_ahead(-1);
            self.put(block);
        }
        None
    }
}

/// What is to be done after a completion.
enum Then {
    /// Call off an operation that has run too far ahead.
    Cancel(Number),
    /// Send what the kernel has not taken at once.
    SendRest(Number),
}

/// Whether the kernel has taken a part, or nothing, for no other reason than that its peer takes nothing.
fn is_left(block: &Block, result: i32) -> bool {
    result == -libc::EAGAIN || (0..block.unread().len()).contains(&usize::try_from(result).unwrap_or(usize::MAX))
}

fn settle(kept: &mut Option<i32>, result: i32, waker: &mut Option<Waker>) {
    *kept = Some(result);
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Has an operation wake the task of this context.
fn wait_in(operation: &mut Operation, cx: &Context<'_>) {
    if let Some(waker) = operation.waker()
        && !waker.as_ref().is_some_and(|set| set.will_wake(cx.waker()))
    {
        *waker = Some(cx.waker().clone());
    }
}

/// One `io_uring_enter(2)`, until at least `wanted` completions are there.
///
/// # Errors
/// The ring is broken.
fn enter(io: &mut IoUring, wanted: u32, flags: u32) -> io::Result<()> {
    let queued = u32::try_from(io.submission().len()).expect("no more than the queue has");
    // SAFETY: no argument is passed that the kernel would read.
    let entered = unsafe { io.submitter().enter::<libc::sigset_t>(queued, wanted, flags, None) };
    let Err(error) = entered else { return Ok(()) };
    // a signal, or no memory for the moment: what was not taken stays queued for the next turn
    let passes = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY | libc::ENOMEM));
    if passes { Ok(()) } else { Err(error) }
}
