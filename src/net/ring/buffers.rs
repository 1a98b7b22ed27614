//! Buffers that the kernel chooses from when something has arrived, so that nobody who waits holds one.
//!
//! They are ordinary blocks of the worker's stock: the ring that is shared with the kernel (`IORING_REGISTER_PBUF_RING`) holds their
//! addresses. One that was filled leaves as a [`Block`], without a copy, and another takes its place before the next system call.
//!
//! The kernel fills them in the order in which they were given, so the one that is filled next is the one that has not been touched for the
//! longest time. Therefore it has no more of them than a turn takes, twice over: they are still in the caches.

use super::super::block::{Block, Blocks};
use crate::limits::{BLOCK_SMALL, RECEIVE_BUFFERS};
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use monoio::buf::IoBufMut as _;
use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only group of buffers of a ring.
pub(super) const GROUP: u16 = 0;

/// All of them, twice over, are no more than there are.
const PEAK_MAX: u32 = (RECEIVE_BUFFERS as u32 / 2) << 8;

/// The ring that is shared with the kernel, which wants it on a page boundary.
#[repr(C, align(4096))]
struct Shared([[u8; size_of::<BufRingEntry>()]; RECEIVE_BUFFERS as usize]);

/// See the module.
pub(super) struct Buffers {
    /// Freed by [`Buffers::free`] and by nothing else: the kernel reads it.
    shared: *mut BufRingEntry,
    /// By buffer id: what the kernel has.
    given: Vec<Option<Block>>,
    /// Ids that it has not.
    free: Vec<u16>,
    tail: u16,
    /// Filled since the last turn.
    taken: u32,
    /// What turns take at most, in 256ths of a buffer; forgotten slowly.
    peak: u32,
}

/// Buffers that the kernel has beyond twice what turns take.
const SPARE: u32 = 8;

impl Buffers {
    /// Registers the ring, still empty.
    ///
    /// # Errors
    /// The kernel has no such rings (before 5.19).
    pub(super) fn register(ring: &IoUring) -> io::Result<Self> {
        let shared = Box::into_raw(Box::new(Shared([[0; _]; _])));
        // SAFETY: one page-aligned allocation of so many entries, which is not freed before the kernel has forgotten it.
        let registered =
            unsafe { ring.submitter().register_buf_ring(shared.expose_provenance() as u64, RECEIVE_BUFFERS, GROUP) };
        if let Err(error) = registered {
            // SAFETY: the box that was just given away; the kernel has not taken it.
            drop(unsafe { Box::from_raw(shared) });
            return Err(error);
        }
        Ok(Self {
            shared: shared.cast(),
            given: (0..RECEIVE_BUFFERS).map(|_| None).collect(),
            free: (0..RECEIVE_BUFFERS).rev().collect(),
            tail: 0,
            taken: 0,
            peak: PEAK_MAX,
        })
    }

    /// Gives back the memory that was shared with the kernel, which has forgotten it: the ring was unregistered, and is gone.
    pub(super) fn free(self) {
        // SAFETY: the box that `register` has given away, of the same type, and nobody has the pointer any more.
        drop(unsafe { Box::from_raw(self.shared.cast::<Shared>()) });
    }

    /// The kernel has had none for something that arrived.
    pub(super) fn on_shortage(&mut self) {
        self.peak = PEAK_MAX;
    }

    /// Gives the kernel as many blocks of the stock as it is to have. Once a turn.
    pub(super) fn refill(&mut self, stock: &mut Blocks) {
        let taken = std::mem::take(&mut self.taken) << 8;
        self.peak = taken.max(self.peak - (self.peak >> 8)).min(PEAK_MAX);
        let wanted = SPARE + (self.peak >> 7);
        if self.count() >= wanted as usize || self.free.is_empty() {
            stock.set_given(self.count());
            return;
        }
        while self.count() < wanted as usize
            && let Some(id) = self.free.pop()
        {
            let mut block = stock.small_with_headroom();
            let slot = usize::from(self.tail & (RECEIVE_BUFFERS - 1));
            // SAFETY: the slot is inside of the allocation; the kernel does not look at it before the tail says so, and has let go of
            // what stood there: no more buffers are given than there are slots.
            let entry = unsafe { &mut *self.shared.add(slot) };
            entry.set_addr(block.write_ptr().expose_provenance() as u64);
            entry.set_len(BLOCK_SMALL as u32);
            entry.set_bid(id);
            self.given[usize::from(id)] = Some(block);
            self.tail = self.tail.wrapping_add(1);
        }
        stock.set_given(self.count());
        // SAFETY: the tail overlays a field of the first entry that nothing else uses; the kernel reads it at any time, so it is
        // written atomically, and behind the entries.
        unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.shared).cast_mut()) }.store(self.tail, Ordering::Release);
    }

    /// How many the kernel has.
    pub(super) fn count(&self) -> usize {
        self.given.len() - self.free.len()
    }

    /// Asserts that each buffer is either the kernel's or free.
    ///
    /// # Panics
    /// It is not so, by a defect of this module.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.given.iter().flatten().count(), self.count(), "what is not free the kernel has");
        assert!(self.free.iter().all(|id| self.given[usize::from(*id)].is_none()), "and nothing else");
    }

    /// Takes what the kernel has filled with `received` bytes; `None` for an id that it cannot have.
    pub(super) fn take(&mut self, id: u16, received: usize) -> Option<Block> {
        let mut block = self.given.get_mut(usize::from(id))?.take()?;
        self.free.push(id);
        self.taken += 1;
        // SAFETY: the kernel has written `received` bytes at the pointer that it was given, and no more than the `BLOCK_SMALL` that it
        // was told of.
        unsafe { block.set_init(received.min(BLOCK_SMALL)) };
        Some(block)
    }
}
