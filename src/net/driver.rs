//! The driver ladder: the best event loop that this kernel allows.
//!
//! The best step is a ring of our own ([`super::ring`], Linux 6.1); below it monoio runs the tasks, on its ring or on epoll.
//!
//! `SINGLE_ISSUER | DEFER_TASKRUN` (Linux 6.1) runs completions only when the loop asks for them, which is worth a third of a
//! relay's CPU; `COOP_TASKRUN` (5.19) saves the interrupts; a plain ring needs 5.6 or so; epoll works where io_uring is forbidden
//! (Docker's and containerd's default seccomp profiles, `kernel.io_uring_disabled`). monoio's own fusion driver fails when a flag
//! is refused, so the steps are tried here, on the thread that will run the loop, as `SINGLE_ISSUER` demands.

use super::block::Blocks;
use super::guarded::caught;
use super::ring::{self, Ring};
use super::wards;
use crate::config;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::rc::Rc;

/// Submission queue entries; a turn that wants more submits in between.
const ENTRIES: u32 = 4_096;
/// Completion queue entries: more operations than this may be in flight, the kernel then keeps the overflow (`NODROP`), slowly.
const COMPLETIONS: u32 = 32_768;

/// A step of the ladder, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A ring of our own, with multishot receives and buffers that the kernel chooses.
    Multishot,
    /// io_uring with `SINGLE_ISSUER | DEFER_TASKRUN`.
    Defer,
    /// io_uring with `SINGLE_ISSUER | COOP_TASKRUN`.
    Coop,
    /// io_uring without flags.
    Plain,
    /// epoll.
    Epoll,
}

impl Step {
    /// All, best first.
    pub const ALL: [Self; 5] = [Self::Multishot, Self::Defer, Self::Coop, Self::Plain, Self::Epoll];

    /// Its name in the log and the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multishot => "io_uring-multishot",
            Self::Defer => "io_uring-defer-taskrun",
            Self::Coop => "io_uring-coop-taskrun",
            Self::Plain => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

enum AnyRuntime {
    Own(ring::Owner),
    Ring(Runtime<IoUringDriver>),
    Epoll(Runtime<LegacyDriver>),
}

/// A worker's event loop, bound to the thread that made it.
pub struct EventLoop {
    runtime: AnyRuntime,
    step: Step,
    stock: Rc<RefCell<Blocks>>,
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoop").field("step", &self.step).finish_non_exhaustive()
    }
}

impl EventLoop {
    /// Climbs down the ladder until a step holds.
    ///
    /// # Errors
    /// The error of the last step tried: for `io_uring` the kernel's refusal of a plain ring.
    pub fn new(driver: config::Driver) -> io::Result<Self> {
        let steps = match driver {
            config::Driver::Auto => &Step::ALL[..],
            config::Driver::IoUring => &Step::ALL[..4],
            config::Driver::Epoll => &Step::ALL[4..],
        };
        let mut refused = io::Error::other("no step to try");
        for step in steps {
            match Self::at(*step) {
                Ok(event_loop) => return Ok(event_loop),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// One step of the ladder and no other.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn at(step: Step) -> io::Result<Self> {
        let stock = Rc::default();
        Ok(Self { runtime: build(step, &stock)?, step, stock })
    }

    /// The blocks of this thread.
    #[must_use]
    pub fn stock(&self) -> Rc<RefCell<Blocks>> {
        Rc::clone(&self.stock)
    }

    /// The step that held.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// Runs `main` and everything it spawns, until `main` ends.
    pub fn block_on<F: Future>(&mut self, main: F) -> F::Output {
        match &mut self.runtime {
            AnyRuntime::Own(owner) => owner.ring().block_on(main),
            AnyRuntime::Ring(runtime) => runtime.block_on(main),
            AnyRuntime::Epoll(runtime) => runtime.block_on(main),
        }
    }

    /// Drops everything that was spawned where it stands, and gives back what the event loop has taken: descriptors, memory, operations
    /// in the kernel. Also after a panic. Returns how many of these are left, because the kernel or somebody else still has them: they
    /// are leaked. Nothing of this thread may use a socket afterwards.
    pub fn end(self) -> usize {
        drop(self.stock);
        match self.runtime {
            AnyRuntime::Own(owner) => owner.end(),
            AnyRuntime::Ring(runtime) => end(runtime),
            AnyRuntime::Epoll(runtime) => end(runtime),
        }
    }
}

/// Tells the event loop where the running task keeps the larger part of its state, so that it can be fetched into the caches before the
/// task's turn. Only a hint, which some event loops have no use for: the memory is not looked at, and may be gone.
pub fn hint_state<T>(state: &T) {
    if let Some(ring) = super::ring::current() {
        ring.tasks().hint_state((&raw const *state).cast(), size_of::<T>());
    }
}

/// Has `future` run by the event loop of this thread.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    match ring::current() {
        Some(ring) => ring.tasks().spawn(future),
        None => wards::spawn(future),
    }
}

/// Has every further turn of this thread's event loop fail, if it is one of ours.
#[cfg(test)]
pub(crate) fn break_it() -> bool {
    ring::current().map(Ring::break_it).is_some()
}

/// Ends a runtime of monoio's. One that is dropped leaks the tasks that it still has, and may touch them: so it is dropped only when all
/// have ended.
fn end<D: monoio::Driver>(runtime: Runtime<D>) -> usize {
    let mut runtime = ManuallyDrop::new(runtime);
    let left = caught(|| runtime.block_on(wards::end())).unwrap_or(1);
    if left == 0 {
        drop(ManuallyDrop::into_inner(runtime));
    }
    left
}

fn build(step: Step, stock: &Rc<RefCell<Blocks>>) -> io::Result<AnyRuntime> {
    let mut ring = io_uring::IoUring::builder();
    ring.setup_cqsize(COMPLETIONS);
    match step {
        Step::Multishot => return Ok(AnyRuntime::Own(Ring::leak(Rc::clone(stock))?)),
        Step::Defer => ring.setup_single_issuer().setup_defer_taskrun().setup_submit_all(),
        Step::Coop => ring.setup_single_issuer().setup_coop_taskrun().setup_submit_all(),
        Step::Plain => &mut ring,
        Step::Epoll => return Ok(AnyRuntime::Epoll(RuntimeBuilder::<LegacyDriver>::new().build()?)),
    };
    let runtime = RuntimeBuilder::<IoUringDriver>::new().with_entries(ENTRIES).uring_builder(ring).build()?;
    Ok(AnyRuntime::Ring(runtime))
}

/// Which steps this kernel allows, for `--version`.
#[must_use]
pub fn available() -> Vec<Step> {
    // a thread of its own: a single-issuer ring belongs to its thread, and a runtime is never dropped on one that lives on
    let probe = || Step::ALL.into_iter().filter(|step| EventLoop::at(*step).is_ok()).collect();
    std::thread::spawn(probe).join().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_always_holds_and_runs() {
        let mut event_loop = EventLoop::new(config::Driver::Epoll).unwrap();
        assert_eq!(event_loop.step(), Step::Epoll);
        assert_eq!(event_loop.block_on(async { 3 }), 3);
        assert_eq!(available().last(), Some(&Step::Epoll));
    }
}
