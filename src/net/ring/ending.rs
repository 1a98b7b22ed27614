//! The end of a ring: everything that is in flight is called off and waited for, and goes back to the kernel.
//!
//! Nothing here may panic, whatever is broken: a worker's thread ends with it, and has clients that are still to be told.

use super::super::clock;
use super::super::engine;
use super::super::guarded::caught;
use super::{CLOSING, ENTER_GETEVENTS, ENTRIES, Owner, Ring, UNHEARD, buffers};
use io_uring::types;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

/// How long the kernel may take at the end to let go of what is in flight, and how often it is asked to.
const LAST_SECONDS: u64 = 1;
const LAST_TURNS: u32 = 4;

impl Owner {
    /// Drops every task, has the kernel let go of everything, and gives back the ring, which may be broken. Returns how many sockets and
    /// operations are left, which can only stay as they are.
    pub(in super::super) fn end(self) -> usize {
        let ring = self.ring();
        ring.tasks.end();
        ring.call_off();
        engine::set_current(None);
        clock::end_turns();
        if ring.sockets.get() > 0 {
            return ring.sockets.get();
        }
        // SAFETY: the pointer is that of a leaked box, and nobody uses it any more: tasks are dropped and no socket is left.
        let Ring { tasks, io, operations, buffers, unsubmitted, .. } = *unsafe { Box::from_raw(self.0) };
        let (io, operations, buffers) = (io.into_inner(), operations.into_inner(), buffers.into_inner());
        // a waker that is kept somewhere finds no ring, and no task
        drop(tasks);
        let left = operations.len().saturating_sub(unsubmitted.get())
            + usize::from(io.submitter().unregister_buf_ring(buffers::GROUP).is_err());
        drop(io);
        if left == 0 {
            buffers.free();
        } else {
            // the kernel may write there
            std::mem::forget((operations, buffers));
        }
        left
    }
}

impl Ring {
    /// Has the kernel let go of everything that is in flight, and takes down what has come of it. Must not panic, whatever is broken.
    fn call_off(&self) {
        // closes, and what was posted
        let _ = caught(|| self.turn(false));
        let patience = types::Timespec::new().sec(LAST_SECONDS);
        for _ in 0..LAST_TURNS {
            let mut io = self.io.borrow_mut();
            // what the kernel has not taken over yet it must, or it is never over; a broken ring may take nothing
            let _ = self.enter(&mut io, 0, ENTER_GETEVENTS);
            let _ = io.submitter().register_sync_cancel(Some(patience), types::CancelBuilder::any());
            // what was called off is told by another turn
            let _ = self.enter(&mut io, 0, ENTER_GETEVENTS);
            for completion in io.completion() {
                self.complete(&completion);
            }
            drop(io);
            if self.operations.borrow().is_empty() {
                break;
            }
        }
        self.take_back();
        // SAFETY: whoever owned them has given them away.
        self.unclosed.take().into_iter().for_each(|fd| drop(unsafe { OwnedFd::from_raw_fd(fd) }));
    }

    /// Takes back what is queued and the kernel has not taken, when it will take nothing any more.
    fn take_back(&self) {
        let left = self.io.borrow_mut().submission().len();
        let end = self.pushed.get();
        for number in (0..left).map(|back| end.wrapping_sub(back as u32 + 1)) {
            match self.queued[(number % ENTRIES) as usize].get() {
                UNHEARD => {}
                closing if closing & CLOSING != 0 => self.unclosed.borrow_mut().push((closing & !CLOSING) as RawFd),
                row => drop(self.operations.borrow_mut().try_remove(row as usize)),
            }
        }
    }
}
