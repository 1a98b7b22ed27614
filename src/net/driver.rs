//! The driver ladder: the best event loop that this kernel allows.
//!
//! The best step is a ring of our own ([`super::ring`], Linux 6.1), the last an epoll of our own ([`super::epoll`]), which works where io_uring
//! is forbidden (Docker's and containerd's default seccomp profiles, `kernel.io_uring_disabled`). Between them monoio runs the tasks on its
//! ring ([`super::guest`]).
//!
//! `SINGLE_ISSUER | DEFER_TASKRUN` (Linux 6.1) runs completions only when the loop asks for them, which is worth a third of a
//! relay's CPU; `COOP_TASKRUN` (5.19) saves the interrupts; a plain ring needs 5.6 or so. monoio's own fusion driver fails when a flag
//! is refused, so the steps are tried here, on the thread that will run the loop, as `SINGLE_ISSUER` demands.

use super::block::Blocks;
use super::engine::{self, Engine};
use super::epoll::{self, Epoll};
use super::guest::{self, wards};
use super::ring::{self, Ring};
use crate::config;
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::Poll;

/// Turns after which what was dropped is closed, whichever event loop runs: rings close with the next turn, and on monoio's a receive in
/// flight is ended first.
pub const CLOSING_TURNS: u32 = 4;

/// A step of the ladder, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// epoll, in an event loop of our own.
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
            Self::Plain => "io_uring-plain",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A step that the kernel has refused.
#[derive(Debug)]
pub struct Refused {
    /// Which.
    pub step: Step,
    /// What the kernel said.
    pub error: io::Error,
}

impl Refused {
    /// What an operator can do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                "io_uring is forbidden to this process: set the sysctl kernel.io_uring_disabled to 0, or allow io_uring_setup, \
                 io_uring_enter and io_uring_register in the container's seccomp profile"
            }
            Some(libc::ENOSYS) => {
                "this kernel has no io_uring, or a seccomp profile hides it: allow io_uring_setup, io_uring_enter and \
                 io_uring_register there"
            }
            Some(libc::EINVAL) => "this kernel is too old for it",
            Some(libc::ENOMEM) => {
                "too little memory may be locked: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= of a service)"
            }
            Some(libc::EMFILE | libc::ENFILE) => {
                "no descriptor is left: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of a service)"
            }
            _ => "the system refuses it",
        }
    }
}

/// None of the steps that the configuration allows holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStep;

enum AnyRuntime {
    Ring(ring::Owner),
    Guest(guest::Owner),
    Epoll(epoll::Owner),
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
    /// Climbs down the ladder, beginning at `from`, until a step holds, and adds those that were refused.
    ///
    /// # Errors
    /// No step holds that `driver` allows.
    pub fn new(driver: config::Driver, from: Step, refused: &mut Vec<Refused>) -> Result<Self, NoStep> {
        let steps = match driver {
            config::Driver::Auto => &Step::ALL[..],
            config::Driver::IoUring => &Step::ALL[..4],
            config::Driver::Multishot => &[Step::Multishot],
            config::Driver::DeferTaskrun => &[Step::Defer],
            config::Driver::CoopTaskrun => &[Step::Coop],
            config::Driver::Plain => &[Step::Plain],
            config::Driver::Epoll => &Step::ALL[4..],
        };
        for step in steps.iter().filter(|step| **step >= from) {
            match Self::at(*step) {
                Ok(event_loop) => return Ok(event_loop),
                Err(error) => refused.push(Refused { step: *step, error }),
            }
        }
        Err(NoStep)
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
            AnyRuntime::Ring(owner) => owner.ring().tasks().block_on(Engine::Ring(owner.ring()), main),
            AnyRuntime::Guest(owner) => owner.block_on(main),
            AnyRuntime::Epoll(owner) => owner.epoll().tasks().block_on(Engine::Epoll(owner.epoll()), main),
        }
    }

    /// Drops everything that was spawned where it stands, and gives back what the event loop has taken: descriptors, memory, operations
    /// in the kernel. Also after a panic. Returns how many of these are left, because the kernel or somebody else still has them: they
    /// are leaked. Nothing of this thread may use a socket afterwards.
    pub fn end(self) -> usize {
        drop(self.stock);
        match self.runtime {
            AnyRuntime::Ring(owner) => owner.end(),
            AnyRuntime::Guest(owner) => owner.end(),
            AnyRuntime::Epoll(owner) => owner.end(),
        }
    }
}

/// Tells the event loop where the running task keeps the larger part of its state, so that it can be fetched into the caches before the
/// task's turn. Only a hint, which some event loops have no use for: the memory is not looked at, and may be gone.
pub fn hint_state<T>(state: &T) {
    if let Some(engine) = engine::current() {
        engine.tasks().hint_state((&raw const *state).cast(), size_of::<T>());
    }
}

/// Has `future` run by the event loop of this thread.
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    match engine::current() {
        Some(engine) => engine.tasks().spawn(future),
        None => wards::spawn(future),
    }
}

/// Lets the event loop turn once: what was submitted reaches the kernel.
pub async fn next_turn() {
    let mut has_turned = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut has_turned, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Has this thread's event loop close descriptors as they are dropped, where it does so with its next turn: for who has no more of them than
/// are in use. It is a system call for each connection that ends.
pub fn close_at_once() {
    if let Some(engine) = engine::current() {
        engine.close_at_once();
    }
}

/// Has every further turn of this thread's event loop fail, if it is one of ours.
#[cfg(test)]
pub(crate) fn break_it() -> bool {
    engine::current().map(Engine::break_it).is_some()
}

fn build(step: Step, stock: &Rc<RefCell<Blocks>>) -> io::Result<AnyRuntime> {
    let mut ring = io_uring::IoUring::builder();
    match step {
        Step::Multishot => return Ok(AnyRuntime::Ring(Ring::leak(Rc::clone(stock))?)),
        Step::Defer => ring.setup_single_issuer().setup_defer_taskrun().setup_submit_all(),
        Step::Coop => ring.setup_single_issuer().setup_coop_taskrun().setup_submit_all(),
        Step::Plain => &mut ring,
        Step::Epoll => return Ok(AnyRuntime::Epoll(Epoll::leak(Rc::clone(stock))?)),
    };
    Ok(AnyRuntime::Guest(guest::Owner::new(ring)?))
}

/// What this kernel says to each step, for `--version`.
#[must_use]
pub fn try_all() -> Vec<(Step, Result<(), Refused>)> {
    let probe = |step| match EventLoop::at(step) {
        Ok(event_loop) => {
            event_loop.end();
            (step, Ok(()))
        }
        Err(error) => (step, Err(Refused { step, error })),
    };
    // a thread of its own: a single-issuer ring belongs to its thread
    std::thread::spawn(move || Step::ALL.into_iter().map(probe).collect()).join().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;
    use crate::net::timer::{TICK, Timers};

    #[test]
    fn epoll_always_holds_and_runs() {
        let mut refused = Vec::new();
        let mut event_loop = EventLoop::new(config::Driver::Epoll, Step::Multishot, &mut refused).unwrap();
        assert_eq!((event_loop.step(), refused.len()), (Step::Epoll, 0));
        assert_eq!(event_loop.block_on(async { 3 }), 3);
        assert_eq!(event_loop.end(), 0);
        assert!(matches!(try_all().last(), Some((Step::Epoll, Ok(())))));
    }

    #[test]
    fn the_climb_begins_where_it_is_told() {
        let mut refused = Vec::new();
        let event_loop = EventLoop::new(config::Driver::Auto, Step::Epoll, &mut refused).unwrap();
        assert_eq!((event_loop.step(), refused.len()), (Step::Epoll, 0));
        assert_eq!(event_loop.end(), 0);
        assert_eq!(EventLoop::new(config::Driver::IoUring, Step::Epoll, &mut refused).err(), Some(NoStep));
    }

    /// As a worker has that must climb down again, because another one got no ring.
    #[test]
    fn a_thread_may_have_one_event_loop_after_another() {
        let one_after_another = || {
            for step in [Step::Multishot, Step::Epoll, Step::Multishot, Step::Defer, Step::Epoll] {
                let Ok(mut event_loop) = EventLoop::at(step) else { continue };
                event_loop.block_on(async {
                    let timers = Timers::new().unwrap();
                    let running = Rc::clone(&timers);
                    spawn(async move { running.run().await });
                    timers.watch().sleep_until(clock::now() + 2 * TICK).await;
                });
                assert_eq!(event_loop.end(), 0, "{step}");
            }
        };
        std::thread::spawn(one_after_another).join().unwrap();
    }

    #[test]
    fn who_asks_for_one_step_gets_that_or_none() {
        use config::Driver::{CoopTaskrun, DeferTaskrun, Multishot, Plain};
        let asked = [
            (Multishot, Step::Multishot),
            (DeferTaskrun, Step::Defer),
            (CoopTaskrun, Step::Coop),
            (Plain, Step::Plain),
        ];
        for (driver, step) in asked {
            let mut refused = Vec::new();
            match EventLoop::new(driver, Step::Multishot, &mut refused) {
                Ok(event_loop) => assert_eq!((event_loop.step(), event_loop.end()), (step, 0)),
                Err(NoStep) => assert!(refused.len() == 1 && refused[0].step == step, "{refused:?}"),
            }
        }
    }

    #[test]
    fn each_refusal_has_its_advice() {
        let advice = |errno| Refused { step: Step::Multishot, error: io::Error::from_raw_os_error(errno) }.advice();
        assert!(advice(libc::EPERM).contains("seccomp") && advice(libc::ENOMEM).contains("MEMLOCK"));
        assert!(advice(libc::EINVAL).contains("old") && advice(libc::EMFILE).contains("NOFILE"));
    }
}
