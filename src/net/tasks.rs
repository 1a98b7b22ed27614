//! The tasks of one event loop of ours, and their turns.
//!
//! A worker's tasks never leave their thread, so nothing here is atomic or counted: a waker is a task's number. To wake is to put the
//! number into the run queue of the loop that runs on this thread. Numbers are reused, so a waker that outlives its task may wake another,
//! which looks, finds nothing, and waits on, as any future must. A waker that is used on another thread wakes nobody here; workers
//! hear from other threads by [`super::mailbox`] only.
//!
//! A turn: every task that is queued runs, then the kernel is asked what has happened with one system call ([`Engine::turn_or_panic`]), which
//! also waits if nobody is left to run. Tasks that keep waking themselves cannot keep the turn from ending.
//!
//! The state of a connection is some sixty cache lines, which those of many others have driven out of the near caches by the time that its
//! turn comes. So in a long turn the state of the next task is fetched while one runs: a microsecond is enough for that.

use super::engine::{self, Engine};
use super::guarded::caught;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::ptr;
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

/// The number of the future that [`Tasks::block_on`] was given. There are never as many tasks.
const MAIN: usize = u32::MAX as usize - 1;
/// Tasks that run in a turn beyond those that were queued when it began.
const EXTRA_RUNS: usize = 64;
/// Tasks that are queued when a turn begins, from which on the caches do not hold the state of all connections: with ten (64 connections)
/// fetching it brings nothing, and with three it costs two per cent.
const MANY: usize = 16;
/// What is dropped at the end may spawn something, and that too; nothing does so for ever.
const LAST_ROUNDS: usize = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Tasks {
    rows: RefCell<Slab<Row>>,
    queue: RefCell<VecDeque<usize>>,
    main_is_due: Cell<bool>,
    running: Cell<usize>,
    /// Counts the runs of tasks.
    run_number: Cell<u64>,
}

struct Row {
    /// `None` while it runs.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Where else its state is ([`Tasks::hint_state`]), and how many cache lines of it. Never followed.
    state: *const u8,
    state_lines: u16,
    is_queued: bool,
}

impl Row {
    /// Has the task's state fetched into the caches.
    fn prefetch(&self) {
        if let Some(future) = &self.future {
            prefetch((&raw const **future).cast(), size_of_val(&**future).div_ceil(LINE));
        }
        prefetch(self.state, self.state_lines.into());
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;

#[cfg(target_arch = "x86_64")]
fn prefetch(from: *const u8, lines: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    for line in 0..lines {
        // SAFETY: a hint, for which any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(line * LINE).cast()) };
    }
}

/// Stable Rust has no such hint for other processors.
#[cfg(not(target_arch = "x86_64"))]
fn prefetch(_from: *const u8, _lines: usize) {}

impl Tasks {
    /// Has `future` run by this loop from its next turn on.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let row = Row { future: Some(Box::pin(future)), state: ptr::null(), state_lines: 0, is_queued: true };
        let task = self.rows.borrow_mut().insert(row);
        self.queue.borrow_mut().push_back(task);
    }

    /// Runs `main` and all tasks until `main` ends.
    pub(super) fn block_on<F: Future>(&self, engine: Engine, main: F) -> F::Output {
        let mut main = pin!(main);
        let waker = waker(MAIN);
        let mut cx = Context::from_waker(&waker);
        self.main_is_due.set(true);
        loop {
            self.begin_run(MAIN);
            if self.main_is_due.take()
                && let Poll::Ready(output) = main.as_mut().poll(&mut cx)
            {
                return output;
            }
            self.run_queued();
            let is_idle = !self.main_is_due.get() && self.queue.borrow().is_empty();
            engine.turn_or_panic(is_idle);
        }
    }

    fn run_queued(&self) {
        let queued = self.queue.borrow().len();
        for _ in 0..queued + EXTRA_RUNS {
            let Some(task) = self.queue.borrow_mut().pop_front() else { return };
            if queued >= MANY
                && let Some(next) = self.queue.borrow().front()
                && let Some(row) = self.rows.borrow().get(*next)
            {
                row.prefetch();
            }
            self.run(task);
        }
    }

    /// Says where the running task keeps the larger part of its state. Only a hint: what is there is not looked at, and may be gone.
    pub(super) fn hint_state(&self, state: *const u8, bytes: usize) {
        if let Some(row) = self.rows.borrow_mut().get_mut(self.running.get()) {
            row.state = state;
            row.state_lines = u16::try_from(bytes.div_ceil(LINE)).unwrap_or_default();
        }
    }

    /// The number of the run of the task that is running.
    pub(super) fn run_number(&self) -> u64 {
        self.run_number.get()
    }

    fn begin_run(&self, task: usize) {
        self.running.set(task);
        self.run_number.set(self.run_number.get() + 1);
    }

    fn run(&self, task: usize) {
        self.begin_run(task);
        let begun = self.rows.borrow_mut().get_mut(task).and_then(|row| {
            row.is_queued = false;
            row.future.take()
        });
        let Some(mut future) = begun else { return };
        let waker = waker(task);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => self.rows.borrow_mut()[task].future = Some(future),
            Poll::Ready(()) => {
                self.rows.borrow_mut().remove(task);
            }
        }
    }

    /// Drops every task where it stands, and what is spawned by that. A drop that panics is the affair of its own task.
    pub(super) fn end(&self) {
        for _ in 0..LAST_ROUNDS {
            let rows = std::mem::take(&mut *self.rows.borrow_mut());
            if rows.is_empty() {
                break;
            }
            for (_, row) in rows {
                let _ = caught(|| drop(row));
            }
        }
        self.queue.borrow_mut().clear();
    }

    fn wake(&self, task: usize) {
        if task == MAIN {
            return self.main_is_due.set(true);
        }
        if let Some(row) = self.rows.borrow_mut().get_mut(task)
            && !std::mem::replace(&mut row.is_queued, true)
        {
            self.queue.borrow_mut().push_back(task);
        }
    }
}

fn waker(task: usize) -> Waker {
    // SAFETY: the functions of the table follow the contract of `RawWakerVTable`: the pointer is a number that is never followed, so
    // there is nothing to count or free, and they touch nothing but the calling thread's own loop.
    unsafe { Waker::from_raw(RawWaker::new(ptr::without_provenance(task), &VTABLE)) }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(
    |task| RawWaker::new(task, &VTABLE),
    |task| wake(task.addr()),
    |task| wake(task.addr()),
    |_| {},
);

/// Who waits for something, in four bytes where a [`Waker`] takes sixteen: there is one in the row of each socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter(u32);

/// Nobody.
impl Default for Waiter {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Waiter {
    /// The task of this context. One that is none of a loop's looks again at once: it would not be heard of any more.
    pub(super) fn of(cx: &Context<'_>) -> Self {
        if ptr::eq(cx.waker().vtable(), &raw const VTABLE) {
            return Self(cx.waker().data().addr() as u32);
        }
        cx.waker().wake_by_ref();
        Self::default()
    }

    #[cfg(test)]
    pub(super) fn numbered(number: u32) -> Self {
        Self(number)
    }

    /// Wakes it.
    pub(super) fn wake(self) {
        if self != Self::default() {
            wake(self.0 as usize);
        }
    }
}

fn wake(task: usize) {
    if let Some(engine) = engine::current() {
        engine.tasks().wake(task);
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{EventLoop, Step};
    use super::{MANY, Waiter};
    use crate::net::clock;
    use crate::net::driver::{hint_state, spawn};
    use crate::net::testing::yield_now;
    use crate::net::timer::{TICK, Timers};
    use std::cell::{Cell, RefCell};
    use std::future::{Future, poll_fn};
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    /// On each of ours, on a thread of its own; nothing where the kernel has no such ring.
    fn on_our_loops<F: Future<Output = ()>>(body: impl Fn() -> F + Clone + Send + 'static) {
        for step in [Step::Multishot, Step::Epoll] {
            let body = body.clone();
            let run = move || {
                let Ok(mut event_loop) = EventLoop::at(step) else { return };
                event_loop.block_on(body());
                assert_eq!(event_loop.end(), 0);
            };
            std::thread::spawn(run).join().unwrap();
        }
    }

    #[test]
    fn tasks_run_in_the_order_in_which_they_were_woken() {
        on_our_loops(|| async {
            let order = Rc::new(RefCell::new(Vec::new()));
            for task in 0..3 {
                let order = Rc::clone(&order);
                spawn(async move {
                    for round in 0..2 {
                        order.borrow_mut().push((round, task));
                        yield_now().await;
                    }
                });
            }
            while order.borrow().len() < 6 {
                yield_now().await;
            }
            assert_eq!(*order.borrow(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        });
    }

    #[test]
    fn where_state_was_may_be_gone() {
        on_our_loops(|| async {
            let rounds = Rc::new(Cell::new(0));
            for _ in 0..2 * MANY {
                let rounds = Rc::clone(&rounds);
                spawn(async move {
                    for round in 0..20_u8 {
                        // a mebibyte is unmapped when it is dropped
                        let state = vec![round; 1 << 20];
                        hint_state(state.first_chunk::<65_536>().unwrap());
                        drop(state);
                        yield_now().await;
                        rounds.set(rounds.get() + 1);
                    }
                });
            }
            while rounds.get() < 40 * MANY {
                yield_now().await;
            }
        });
    }

    #[test]
    fn a_task_that_always_wakes_itself_starves_nobody() {
        on_our_loops(|| async {
            let timers = Timers::new().unwrap();
            let running = Rc::clone(&timers);
            spawn(async move { running.run().await });
            let turns = Rc::new(Cell::new(0_u64));
            let counted = Rc::clone(&turns);
            spawn(async move {
                loop {
                    counted.set(counted.get() + 1);
                    yield_now().await;
                }
            });
            timers.watch().sleep_until(clock::now() + 3 * TICK).await;
            assert!(turns.get() > 1, "and it ran meanwhile");
        });
    }

    #[test]
    fn a_waiter_is_a_task_and_who_is_none_looks_again() {
        struct Counted(AtomicUsize);
        impl Wake for Counted {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counted = Arc::new(Counted(AtomicUsize::new(0)));
        let stranger = Waker::from(Arc::clone(&counted));
        assert_eq!(Waiter::of(&Context::from_waker(&stranger)), Waiter::default());
        assert_eq!(counted.0.load(Ordering::Relaxed), 1);
        Waiter::default().wake();
        on_our_loops(|| async {
            let (waiter, woken) = (Rc::new(Cell::new(Waiter::default())), Rc::new(Cell::new(false)));
            let (here, is_woken) = (Rc::clone(&waiter), Rc::clone(&woken));
            spawn(poll_fn(move |cx| {
                is_woken.set(here.replace(Waiter::of(cx)) != Waiter::default());
                if is_woken.get() { Poll::Ready(()) } else { Poll::Pending }
            }));
            while waiter.get() == Waiter::default() {
                yield_now().await;
            }
            assert!(!woken.get());
            waiter.get().wake();
            while !woken.get() {
                yield_now().await;
            }
            // the one of `block_on`
            poll_fn(|cx| {
                let is_second = waiter.replace(Waiter::of(cx)) == Waiter::of(cx);
                waiter.get().wake();
                if is_second { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        });
    }

    #[test]
    fn a_waker_that_outlives_its_task_and_one_from_elsewhere_do_no_harm() {
        on_our_loops(|| async {
            let kept = Rc::new(RefCell::new(None::<Waker>));
            let keep = Rc::clone(&kept);
            spawn(poll_fn(move |cx| {
                *keep.borrow_mut() = Some(cx.waker().clone());
                Poll::Ready(())
            }));
            while kept.borrow().is_none() {
                yield_now().await;
            }
            let waker = kept.borrow_mut().take().unwrap();
            waker.wake_by_ref();
            std::thread::spawn(move || waker.wake()).join().unwrap();
            yield_now().await;
        });
    }
}
