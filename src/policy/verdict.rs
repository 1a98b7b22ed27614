//! What the head of an answer says about who sent it: by its status, or, of a call of gRPC that has failed without a body, by its code.
//!
//! A status of 5xx speaks against its endpoint, except 501 and 505, which are answers about the request (HAProxy's `observe layer7`). 429 does
//! not: it speaks about the client. Codes are read as the statuses that they stand for: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and
//! DATA_LOSS are 5xx, RESOURCE_EXHAUSTED is a 429 and UNIMPLEMENTED a 501.
//!
//! Source: gRFC A6 (pushback), Envoy's reading of codes as statuses.

use crate::policy::retry::Cause;
use http::StatusCode;
use std::time::Duration;

/// When whoever answers wants to be asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pushback {
    /// It does not say.
    #[default]
    None,
    /// After so much time.
    After(Duration),
    /// Not for this request.
    Never,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// Why there might be a retry.
    pub(super) cause: Cause,
    /// It speaks against the endpoint.
    pub(super) failed: bool,
    /// How long the endpoint is to be left alone.
    pub(super) pause: Option<Duration>,
    /// When it may be asked again.
    pub(super) retry: Pushback,
}

impl Verdict {
    /// Of this status, with its Retry-After.
    pub(super) fn of_status(status: StatusCode, retry_after: Option<Duration>) -> Self {
        let failed = status.is_server_error() && !matches!(status.as_u16(), 501 | 505);
        // that of a 429 speaks about the client
        let pause = retry_after.filter(|_| status == StatusCode::SERVICE_UNAVAILABLE);
        let retry = retry_after.map_or(Pushback::None, Pushback::After);
        Self { cause: Cause::Status(status), failed, pause, retry }
    }

    /// Of this code. `shortened`: the client allows less time than the route, so that running out of it is not the endpoint's fault.
    pub(super) fn of_code(code: u8, retry: Pushback, shortened: bool) -> Self {
        let pause = match retry {
            Pushback::After(time) if code == UNAVAILABLE => Some(time),
            _ => None,
        };
        Self { cause: Cause::Code(code), failed: speaks_against(code, shortened), pause, retry }
    }
}

const DEADLINE_EXCEEDED: u8 = 4;
const UNAVAILABLE: u8 = 14;

/// Whether a code speaks against its endpoint, wherever it stands.
#[must_use]
pub fn speaks_against(code: u8, shortened: bool) -> bool {
    match code {
        DEADLINE_EXCEEDED => !shortened,
        2 | 13 | UNAVAILABLE | 15 => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_the_statuses_that_they_stand_for() {
        let against: Vec<u8> = (0..=16).filter(|code| speaks_against(*code, false)).collect();
        assert_eq!(against, [2, 4, 13, 14, 15]);
        assert!(!speaks_against(4, true), "a client that allows a millisecond must not eject anyone");
    }

    #[test]
    fn only_who_is_unavailable_is_left_alone() {
        let second = Duration::from_secs(1);
        assert_eq!(Verdict::of_code(14, Pushback::After(second), false).pause, Some(second));
        assert_eq!(Verdict::of_code(8, Pushback::After(second), false).pause, None);
        assert_eq!(Verdict::of_code(14, Pushback::Never, false).pause, None);
        let status = |code| Verdict::of_status(StatusCode::from_u16(code).unwrap(), Some(second));
        assert_eq!([429, 500, 503].map(|code| status(code).pause.is_some()), [false, false, true]);
        assert_eq!([429, 500, 501, 503, 505].map(|code| status(code).failed), [false, true, false, true, false]);
    }
}
