//! Retry rules of one route: which failures may be tried again, and how long to wait before the same endpoint is.
//!
//! A retry is a request that may reach a service for the second time. One that was not sent at all goes on to the next endpoint
//! without being one ([`crate::policy::exchange`]).
//!
//! A retry needs all of: attempts left; R = (T_max − T_now) / T_max at least `min_remaining`; a failure class, status or code of gRPC listed in `on`;
//! and a request that may go out twice. Where nothing was sent that is any request; otherwise its method is idempotent
//! (RFC 9110 §9.2.2) or the route opted in, and its body is still there to be replayed. The cluster's budget
//! ([`crate::policy::budget`]) has the last word; which endpoint is next is [`crate::policy::exchange`]'s.

use crate::config;
use crate::limits::{ATTEMPTS_MAX, BACKOFF_MIN, TRY_MIN};
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
    /// The connection broke, before a response or within it before anything of it was passed on; or what came was no response.
    Reset,
    /// No response head in the attempt's time.
    Timeout,
    /// A response whose status says so.
    Status(StatusCode),
    /// An answer to a call of gRPC whose code says so.
    Code(u8),
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
            Self::Code(code) => code_name(*code),
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Retries beyond the first try.
    pub retries_max: u8,
    /// Cuts every attempt to this; `None`: it follows the route, and what is left is divided.
    pub per_try_timeout: Option<Duration>,
    /// Longest wait before a retry.
    pub backoff_max: Duration,
    min_remaining: f64,
    connect: bool,
    reset: bool,
    timeout: bool,
    non_idempotent: bool,
    /// One bit per status from 400 to 599.
    statuses: [u64; 4],
    /// One bit per code of gRPC.
    codes: u32,
}

impl Rules {
    /// Nothing is tried again that was sent.
    pub const NONE: Self = Self {
        retries_max: 0,
        per_try_timeout: None,
        backoff_max: Duration::ZERO,
        min_remaining: 0.0,
        connect: false,
        reset: false,
        timeout: false,
        non_idempotent: false,
        statuses: [0; 4],
        codes: 0,
    };

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
            backoff_max: retry.backoff_max,
            min_remaining: retry.min_remaining.get(),
            connect: retry.on.connect,
            reset: retry.on.reset,
            timeout: retry.on.timeout,
            non_idempotent: retry.non_idempotent,
            statuses,
            codes: retry.on.codes.iter().fold(0, |bits, code| bits | 1 << (code % 32)),
        }
    }

    /// Whether failures of this class or status are retried.
    #[must_use]
    pub fn covers(&self, cause: Cause) -> bool {
        match cause {
            Cause::Connect => self.connect,
            Cause::Reset => self.reset,
            Cause::Timeout => self.timeout,
            Cause::Code(code) => self.codes >> (code % 32) & 1 == 1,
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

/// The name of a code in `retry.on`, in metrics and logs.
fn code_name(code: u8) -> &'static str {
    config::RETRIED_CODES.iter().find(|(_, known)| *known == code).map_or("grpc", |(name, _)| name)
}

/// The wait before the `nth` (from 0) retry on the same endpoint: full jitter (Brooker 2015, "Exponential backoff and jitter"),
/// uniform below a bound that doubles from [`BACKOFF_MIN`] to `max`.
#[must_use]
pub fn backoff(nth: u32, max: Duration, rng: &mut Rng) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1u32.checked_shl(nth).unwrap_or(u32::MAX)).min(max);
    bound.mul_f64(chance::unit(rng))
}

fn bit_of(status: StatusCode) -> Option<usize> {
    usize::from(status.as_u16()).checked_sub(400).filter(|bit| *bit < 200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{at, ratio, retry};
    use rand::SeedableRng;

    fn deadline(millis: u64) -> Deadline {
        Deadline { at: at(millis), total: Duration::from_millis(millis), shortened: false }
    }

    #[test]
    fn only_listed_classes_and_statuses_are_covered() {
        let mut config = retry();
        config.on.reset = false;
        config.on.statuses.push(StatusCode::from_u16(599).unwrap());
        let rules = Rules::new(&config);
        assert!(rules.covers(Cause::Connect) && rules.covers(Cause::Timeout) && !rules.covers(Cause::Reset));
        let covered: Vec<u16> =
            (100..=999).filter(|s| rules.covers(Cause::Status(StatusCode::from_u16(*s).unwrap()))).collect();
        assert_eq!(covered, [502, 503, 504, 599]);
    }

    #[test]
    fn what_was_not_sent_may_go_again_and_what_was_only_if_idempotent_and_replayable() {
        let rules = Rules::new(&retry());
        assert!(rules.may_repeat(Sent::Nothing, false, false));
        assert!(rules.may_repeat(Sent::Maybe, true, true));
        assert!(!rules.may_repeat(Sent::Maybe, true, false));
        assert!(!rules.may_repeat(Sent::Maybe, false, true));
        let opted_in = Rules::new(&config::Retry { non_idempotent: true, ..retry() });
        assert!(opted_in.may_repeat(Sent::Maybe, false, true));
        assert!(!opted_in.may_repeat(Sent::Maybe, false, false));
    }

    #[test]
    fn idempotent_methods_are_those_of_rfc_9110() {
        let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
        assert!(idempotent.iter().all(is_idempotent));
        let custom = Method::from_bytes(b"PURGE").unwrap();
        assert!(![Method::POST, Method::PATCH, Method::CONNECT, custom].iter().any(is_idempotent));
    }

    #[test]
    fn a_retry_needs_a_tenth_of_the_time_and_at_least_a_millisecond() {
        let rules = Rules::new(&retry());
        assert!(rules.leaves_time(&deadline(1_000), at(900)));
        assert!(!rules.leaves_time(&deadline(1_000), at(901)));
        assert!(!rules.leaves_time(&deadline(1_000), at(2_000)));
        let greedy = Rules::new(&config::Retry { min_remaining: ratio(0.0), ..retry() });
        assert!(greedy.leaves_time(&deadline(1_000), at(999)));
        assert!(!greedy.leaves_time(&deadline(1_000), at(999) + Duration::from_micros(1)));
    }

    #[test]
    fn backoffs_are_uniform_below_a_bound_that_doubles_to_a_quarter_second() {
        let mut rng = Rng::seed_from_u64(81);
        for (nth, bound) in [(0, 25.0), (1, 50.0), (2, 100.0), (3, 200.0), (4, 250.0), (31, 250.0), (32, 250.0)] {
            let waits: Vec<f64> =
                (0..4_000).map(|_| backoff(nth, retry().backoff_max, &mut rng).as_secs_f64() * 1e3).collect();
            assert!(waits.iter().all(|wait| (0.0..bound).contains(wait)));
            let mean = waits.iter().sum::<f64>() / waits.len() as f64;
            assert!((mean / bound - 0.5).abs() < 0.03, "{nth}: mean {mean} of {bound}");
        }
    }

    #[test]
    fn attempts_are_bounded_whatever_the_file_says() {
        let rules = Rules::new(&config::Retry { attempts: 1_000, ..retry() });
        assert_eq!(usize::from(rules.retries_max), ATTEMPTS_MAX - 1);
    }
}
