//! The tasks of monoio's event loops, in our own hands: monoio cannot end a task from outside, and leaks those that its runtime has when
//! it is dropped.
//!
//! What monoio runs is a shell that knows a number; the future is a row of this thread's table. At the end the futures are dropped here,
//! and the shells, which find nothing, end by themselves.

use super::super::alarm::Alarm;
use super::super::clock;
use super::super::guarded::caught;
use slab::Slab;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Looks at the end whether the shells have ended and the driver has taken back its operations, and the time between two of them.
const LAST_LOOKS: u32 = 50;
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// The last operations to be taken back are those of sockets that the last shell has dropped.
const LOOKS_AFTERWARDS: u32 = 2;

thread_local! {
    static WARDS: RefCell<Slab<Ward>> = const { RefCell::new(Slab::new()) };
}

struct Ward {
    /// `None` while it runs, and once it was dropped.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Its shell's.
    waker: Option<Waker>,
    is_over: bool,
}

/// Has monoio run `future`.
pub(in super::super) fn spawn(future: impl Future<Output = ()> + 'static) {
    let ward = Ward { future: Some(Box::pin(future)), waker: None, is_over: false };
    let number = WARDS.with_borrow_mut(|wards| wards.insert(ward));
    drop(monoio::spawn(poll_fn(move |cx| poll(number, cx))));
}

fn poll(number: usize, cx: &mut Context<'_>) -> Poll<()> {
    let future = WARDS.with_borrow_mut(|wards| {
        let ward = &mut wards[number];
        if ward.waker.is_none() {
            // monoio wakes a task by the same waker for as long as it lives
            ward.waker = Some(cx.waker().clone());
        }
        ward.future.take()
    });
    if let Some(mut future) = future
        && future.as_mut().poll(cx).is_pending()
    {
        let kept = WARDS.with_borrow_mut(|wards| match &mut wards[number] {
            ward if ward.is_over => Some(future),
            ward => ward.future.replace(future),
        });
        if kept.is_none() {
            return Poll::Pending;
        }
    }
    drop(WARDS.with_borrow_mut(|wards| wards.remove(number)));
    Poll::Ready(())
}

/// Drops every future where it stands, and waits until the shells have ended and the driver has taken back what they had in flight. Returns
/// how many are left.
pub(super) async fn end() -> usize {
    // first of all: it frees the descriptor that the pause needs, where none is left
    drop_all();
    // one of its own: the timers of the worker may be what has failed
    let Ok(pause) = Alarm::timerfd() else { return WARDS.with_borrow(Slab::len).max(1) };
    let mut looks_afterwards = LOOKS_AFTERWARDS;
    for _ in 0..LAST_LOOKS {
        pause.set(clock::now() + BETWEEN_LOOKS);
        if pause.rings().await.is_err() {
            break;
        }
        // what was spawned by a drop
        drop_all();
        if WARDS.with_borrow(Slab::is_empty) {
            looks_afterwards -= 1;
            if looks_afterwards == 0 {
                break;
            }
        }
    }
    WARDS.with_borrow(Slab::len)
}

fn drop_all() {
    let futures: Vec<_> = WARDS.with_borrow_mut(|wards| {
        let rows = wards.iter_mut().map(|(_, ward)| {
            ward.is_over = true;
            (ward.future.take(), ward.waker.take())
        });
        rows.collect()
    });
    for (future, waker) in futures {
        // a drop that panics is the affair of its own task
        let _ = caught(|| drop(future));
        waker.into_iter().for_each(Waker::wake);
    }
}
