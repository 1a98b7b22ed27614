//! The C library's heap.

/// Has it give back the pages that it does not need. Takes a while (milliseconds for a heap of hundreds of megabytes), during which who
/// allocates may wait. Does nothing where the library has no such call.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks and touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
