//! Retry rules of one route: which failures may be tried again, and how long to wait before the same endpoint is.
//!
//! A retry needs all of: attempts left; R = (T_max − T_now) / T_max at least `min_remaining`; a failure class or status listed in `on`;
//! and a request that may go out twice. Where nothing was sent that is any request; otherwise its method is idempotent
//! (RFC 9110 §9.2.2) or the route opted in, and its body is still there to be replayed. The cluster's budget
//! ([`crate::policy::budget`]) has the last word; which endpoint is next is [`crate::policy::exchange`]'s.

use crate::config;
use crate::limits::{ATTEMPTS_MAX, BACKOFF_MAX, BACKOFF_MIN, TRY_MIN};
use crate::policy::chance;
use crate::policy::deadline::Deadline;
use crate::units::{Instant, Rng};
use http::{Method, StatusCode};
use std::time::Duration;

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No connection.
    Connect,
    /// The connection broke, or what came was no response.
    Reset,
    /// No response head in the attempt's time.
    Timeout,
    /// A response whose status says so.
    Status(StatusCode),
}

impl Cause {
    /// The word for it in metrics and logs; a status is its number there.
    #[must_use]
    pub fn token(&self) -> &str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Status(status) => status.as_str(),
        }
    }
}

/// How much of the request may have reached the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Not one byte was handed to a connection: any method may be tried again.
    Nothing,
    /// Perhaps all of it: the service may have acted.
    Maybe,
}

/// The rules of one route, small enough to be copied into each exchange.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Retries beyond the first try.
    pub retries_max: u8,
    /// Cuts every attempt to this; `None`: what is left is divided.
    pub per_try_timeout: Option<Duration>,
    min_remaining: f64,
    connect: bool,
    reset: bool,
    timeout: bool,
    non_idempotent: bool,
    /// One bit per status from 400 to 599.
    statuses: [u64; 4],
}

impl Rules {
    /// As configured.
    #[must_use]
    pub fn new(retry: &config::Retry) -> Self {
        let mut statuses = [0; 4];
        for bit in retry.on.statuses.iter().filter_map(|status| bit_of(*status)) {
            statuses[bit / 64] |= 1 << (bit % 64);
        }
        Self {
            retries_max: retry.attempts.min(ATTEMPTS_MAX as u32 - 1) as u8,
            per_try_timeout: retry.per_try_timeout,
            min_remaining: retry.min_remaining.get(),
            connect: retry.on.connect,
            reset: retry.on.reset,
            timeout: retry.on.timeout,
            non_idempotent: retry.non_idempotent,
            statuses,
        }
    }

    /// Whether failures of this class or status are retried.
    #[must_use]
    pub fn covers(&self, cause: Cause) -> bool {
        match cause {
            Cause::Connect => self.connect,
            Cause::Reset => self.reset,
            Cause::Timeout => self.timeout,
            Cause::Status(status) => bit_of(status).is_some_and(|bit| self.statuses[bit / 64] >> (bit % 64) & 1 == 1),
        }
    }

    /// Whether a request may go out again.
    #[must_use]
    pub fn may_repeat(&self, sent: Sent, idempotent: bool, replayable: bool) -> bool {
        sent == Sent::Nothing || ((idempotent || self.non_idempotent) && replayable)
    }

    /// Whether an attempt that begins at `then` has enough of the request's time left: R ≥ `min_remaining`, and more than
    /// [`TRY_MIN`].
    #[must_use]
    pub fn leaves_time(&self, deadline: &Deadline, then: Instant) -> bool {
        let left = deadline.at.since(then);
        left >= TRY_MIN && left.as_secs_f64() >= self.min_remaining * deadline.total.as_secs_f64()
    }
}

/// Whether repeating a request of this method has the effect of one: RFC 9110 §9.2.2. Unknown methods are not.
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE)
}

/// The wait before the `nth` (from 0) retry on the same endpoint: full jitter (Brooker 2015, "Exponential backoff and jitter"),
/// uniform below a bound that doubles from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
#[must_use]
pub fn backoff(nth: u32, rng: &mut Rng) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1u32.checked_shl(nth).unwrap_or(u32::MAX)).min(BACKOFF_MAX);
    bound.mul_f64(chance::unit(rng))
}

fn bit_of(status: StatusCode) -> Option<usize> {
    usize::from(status.as_u16()).checked_sub(400).filter(|bit| *bit < 200)
}
