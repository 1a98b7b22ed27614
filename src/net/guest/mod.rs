//! monoio's event loop as a guest in this house: its ring runs where the kernel has io_uring and not what ours needs ([`super::driver`]).
//!
//! All that is there for its sake is here: its [`socket`]s, which behave like ours, its tasks ([`wards`]), and how it ends.

pub(super) mod socket;
pub(super) mod wards;

use super::guarded::caught;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;

/// Submission queue entries; a turn that wants more submits in between.
const ENTRIES: u32 = 4_096;
/// Completion queue entries: more operations than this may be in flight, the kernel then keeps the overflow (`NODROP`), slowly.
const COMPLETIONS: u32 = 32_768;

/// monoio's event loop on this thread.
pub(super) struct Owner(Runtime<IoUringDriver>);

impl Owner {
    /// Makes it on a ring of this kind.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn new(mut ring: io_uring::Builder) -> io::Result<Self> {
        ring.setup_cqsize(COMPLETIONS);
        let runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).uring_builder(ring).build()?;
        Ok(Self(runtime))
    }

    pub(super) fn block_on<F: Future>(&mut self, main: F) -> F::Output {
        self.0.block_on(main)
    }

    /// Ends it. One that is dropped leaks the tasks that it still has, and may touch them: so it is dropped only when all have ended. Returns
    /// how many are left.
    pub(super) fn end(self) -> usize {
        let mut runtime = ManuallyDrop::new(self.0);
        let left = caught(|| runtime.block_on(wards::end())).unwrap_or(1);
        if left == 0 {
            drop(ManuallyDrop::into_inner(runtime));
        }
        left
    }
}
