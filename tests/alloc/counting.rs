//! An allocator that counts what threads named `worker-…` ask for, while it is told to.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Backtraces printed of each case.
const TRACES: usize = 4;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static COUNTING: AtomicBool = AtomicBool::new(false);
static TRACING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    Unknown,
    Worker,
    Other,
    /// Inside of a backtrace, whose own allocations do not count.
    Printing,
}

thread_local! {
    // constant and without a destructor: reaching it allocates nothing
    static THREAD: Cell<Thread> = const { Cell::new(Thread::Unknown) };
}

struct Counting;

// SAFETY: every call is handed on to the system's allocator unchanged; what happens before neither allocates nor unwinds, except
// for a backtrace, whose allocations come back here marked as `Printing`.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps this function's contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

fn note(size: usize) {
    if !COUNTING.load(Ordering::Relaxed) {
        return;
    }
    // the thread's name is read only while counting, when every thread has long got its own
    let thread = THREAD.get();
    let thread = if thread == Thread::Unknown { who() } else { thread };
    if thread != Thread::Worker {
        THREAD.set(thread);
        return;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    if count < TRACES && TRACING.load(Ordering::Relaxed) {
        THREAD.set(Thread::Printing);
        eprintln!("--- {size} bytes\n{}", Backtrace::force_capture());
    }
    THREAD.set(Thread::Worker);
}

fn who() -> Thread {
    let mut name = [0_u8; 16];
    // SAFETY: PR_GET_NAME writes at most 16 bytes, the end included.
    let read = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    if read == 0 && name.starts_with(b"worker-") { Thread::Worker } else { Thread::Other }
}

/// Counts from 0.
pub(crate) fn begin() {
    TRACING.store(std::env::var_os("RINGGATE_ALLOC_TRACE").is_some(), Ordering::Relaxed);
    COUNT.store(0, Ordering::Relaxed);
    COUNTING.store(true, Ordering::SeqCst);
}

/// Ends counting and gives the count.
pub(crate) fn end() -> usize {
    COUNTING.store(false, Ordering::SeqCst);
    COUNT.load(Ordering::SeqCst)
}

/// That an allocation of a worker is seen, and one of another thread is not.
pub(crate) fn check_itself() {
    let allocate = |name: &str| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let body = || {
            begin();
            let kept = std::hint::black_box(vec![1_u8; 100]);
            let mut kept = std::hint::black_box(Box::new(kept));
            kept.reserve_exact(1_000);
            std::hint::black_box(&kept);
            end()
        };
        thread.spawn(body).expect("a thread").join().expect("no panic")
    };
    assert_eq!((allocate("worker-7"), allocate("client")), (3, 0));
}
