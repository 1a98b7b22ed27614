//! A panic in one connection must not end its core: monoio does not catch it, so each connection's future is wrapped here.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs `future`; `None` when it panicked. What it owned has been dropped by then, as by any unwinding.
pub fn guarded<F: Future>(future: F) -> impl Future<Output = Option<F::Output>> {
    Guarded { future: Some(future) }
}

/// The same for what is done in one go.
pub fn caught<T>(what: impl FnOnce() -> T) -> Option<T> {
    // AssertUnwindSafe: as below; whoever calls this gives up what `what` has touched, or finds it as its guards have left it.
    catch_unwind(AssertUnwindSafe(what)).ok()
}

struct Guarded<F> {
    future: Option<F>,
}

impl<F: Future> Future for Guarded<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `future` is structurally pinned: it is never moved out, only dropped in place by `Pin::set`.
        let mut slot = unsafe { self.map_unchecked_mut(|guarded| &mut guarded.future) };
        let Some(future) = slot.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        // AssertUnwindSafe: the worker's cells are left consistent by their guards' drops, and the future is never polled again.
        if let Ok(poll) = catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            return poll.map(Some);
        }
        // its drop may panic too, for the same reason as its poll did
        let _ = catch_unwind(AssertUnwindSafe(|| slot.set(None)));
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn a_panic_becomes_a_value() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut bad = std::pin::pin!(guarded(async { std::hint::black_box(None::<u8>).expect("on purpose") }));
        assert!(matches!(bad.as_mut().poll(&mut cx), Poll::Ready(None)));
        let mut good = std::pin::pin!(guarded(async { 7 }));
        assert!(matches!(good.as_mut().poll(&mut cx), Poll::Ready(Some(7))));
    }
}
