//! A request on its way to one connection, beside the answer to it.
//!
//! [`super::upload::Upload::run`] is one future, polled in place by whoever waits for the endpoint, so that neither needs a task of its own. Both sides
//! tell each other in cells what the other has to know ([`Delivery`]).

use super::failure::Failure;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::Timers;
use crate::units::Instant;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long a send that was told to end may take to do so.
const SETTLE: Duration = Duration::from_millis(50);

/// A request on its way to one connection: how far it has come, and what [`super::upload::Upload::run`] and the one who hears the endpoint tell
/// each other.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Bytes of what is kept of the request that were handed to the connection.
    pub(super) sent: Cell<usize>,
    /// The time of the attempt, which begins to run once the client has sent everything.
    pub(super) time: Cell<Duration>,
    /// The end of the attempt, as far as is known.
    pub(super) until: Cell<Instant>,
    /// The endpoint's connection has taken something.
    pub(super) has_left: Cell<bool>,
    /// The final response has begun: it tells how long is too long.
    pub(super) answered: Cell<bool>,
    /// Nothing more is to be sent.
    pub(super) stop: Cell<bool>,
    /// Bytes are on their way to the endpoint: what becomes of them would not be known if the upload was dropped now.
    pub(super) moving: Cell<bool>,
}

impl Default for Delivery {
    /// Of a request of which nothing was sent, and which may take as long as it will.
    fn default() -> Self {
        Self {
            sent: Cell::default(),
            time: Cell::new(Duration::MAX),
            until: Cell::new(Instant::NEVER),
            has_left: Cell::default(),
            answered: Cell::default(),
            stop: Cell::default(),
            moving: Cell::default(),
        }
    }
}

/// What [`super::upload::Upload::run`] returns.
pub(super) trait Sending: Future<Output = Result<(), Failure>> {}

impl<F: Future<Output = Result<(), Failure>>> Sending for F {}

/// The upload of one attempt under way ([`super::upload::Upload::run`]), to be driven beside what the attempt waits for.
pub(super) struct Going<'g, F> {
    delivery: &'g Delivery,
    sending: Pin<&'g mut F>,
    done: Option<Result<(), Failure>>,
}

impl<'g, F: Sending> Going<'g, F> {
    /// That of this one.
    pub(super) fn new(delivery: &'g Delivery, sending: Pin<&'g mut F>) -> Self {
        Self { delivery, sending, done: None }
    }

    /// Drives it on, and says so when it is the client that has failed.
    pub(super) fn poll_on(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.done.is_none()
            && let Poll::Ready(done) = self.sending.as_mut().poll(cx)
        {
            self.done = Some(done);
        }
        match self.done {
            Some(Err(failure @ Failure::Downstream(_))) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Whether it is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.done.is_none()
    }

    /// Whether the endpoint has been sent the whole request.
    pub(super) fn is_through(&self) -> bool {
        matches!(self.done, Some(Ok(())))
    }

    /// Waits for `other`, and for the upload meanwhile.
    ///
    /// # Errors
    /// The client has failed; `other` is dropped.
    pub(super) async fn beside<T>(&mut self, mut other: Pin<&mut impl Future<Output = T>>) -> Result<T, Failure> {
        poll_fn(|cx| {
            if let Poll::Ready(output) = other.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            match self.poll_on(cx) {
                Ok(()) => Poll::Pending,
                Err(failure) => Poll::Ready(Err(failure)),
            }
        })
        .await
    }

    /// Ends it without losing a byte: what the client has sent is either in hand or still to be received. The endpoint gets no more.
    pub(super) async fn settle(&mut self, upstream: &Stream, how: Shutdown, timers: &Rc<Timers>) {
        if !self.is_under_way() {
            return;
        }
        let Delivery { stop, moving, .. } = self.delivery;
        stop.set(true);
        // its last piece may have gone with the turn that brought what it is settled for
        let _ = self.poll_on(&mut Context::from_waker(Waker::noop()));
        if !self.is_under_way() {
            return;
        }
        if moving.get() {
            // a send that the endpoint does not take ends by this, or, on a unix socket under epoll, by the end of both directions
            upstream.shutdown(how);
            let watch = timers.watch();
            let _guard = watch.over(upstream, clock::now() + SETTLE, Shutdown::Both);
            poll_fn(|cx| {
                let _ = self.poll_on(cx);
                if self.is_under_way() && moving.get() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        self.done.get_or_insert(Err(Failure::BROKEN));
    }
}
