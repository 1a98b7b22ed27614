//! What a rejected client is told: `RateLimit-Policy`, `RateLimit` and `Retry-After`.
//!
//! The first two are draft-ietf-httpapi-ratelimit-headers-11, §3 and §4: Lists of Structured Fields (RFC 9651), each member a String that
//! names a policy, with Integer parameters. `q` is the quota and `w` its window in seconds, `r` what is left and `t` the seconds until
//! there is more. A token bucket is told as the smallest window of whole seconds in which its burst B comes anew, and all the tokens
//! of that window: `q / w` is the rate, and `r` ≤ B never exceeds `q`. A quota of a month has no `w`, because months are not alike; requests at
//! once have the draft's unit for them (`qu`).
//!
//! `Retry-After` (RFC 9110 §10.2.3, for 429 RFC 6585 §4) is never earlier than the end of `t`, as the draft's §6 asks: both round up.
//!
//! Only values are written, without name and line end. Partition keys (`pk`) are not told: they would disclose how clients are told apart.

use super::token_bucket::{Gcra, Quota};
use crate::config::Measure;
use crate::units::{Rate, nanos};
use std::time::Duration;

/// The largest Integer of a structured field (RFC 9651 §3.3.1).
const INTEGER_MAX: u64 = 999_999_999_999_999;
const SECOND_NANOS: u128 = 1_000_000_000;

/// Appends the value of `RateLimit-Policy`: one member for each limit of the route, in its order. `name` is what the client reads;
/// what a String cannot hold (RFC 9651 §3.3.3: all but printable ASCII) becomes `_`.
pub fn write_policies<'n>(limits: impl IntoIterator<Item = (&'n str, Measure)>, out: &mut Vec<u8>) {
    for (index, (name, measure)) in limits.into_iter().enumerate() {
        write_name(index, name, out);
        let (quota, window) = match measure {
            Measure::Rate { rate, burst } => {
                let (quota, window) = quota_and_window(rate, burst);
                (quota, Some(window))
            }
            Measure::Quota { count, window } => (count, window.seconds()),
            Measure::Concurrency(most) => (most.into(), None),
        };
        write_parameter(b";q=", quota, out);
        if let Some(window) = window {
            write_parameter(b";w=", window, out);
        }
        if let Measure::Concurrency(_) = measure {
            out.extend_from_slice(b";qu=\"concurrent-requests\"");
        }
    }
}

/// Tokens, and the seconds in which they come.
fn quota_and_window(rate: Rate, burst: u64) -> (u64, u64) {
    let (count, per) = (u128::from(rate.count()), u128::from(nanos(rate.per())));
    let burst = u128::from(Gcra::new(rate, burst).burst());
    let window = (burst * per).div_ceil(count * SECOND_NANOS);
    let quota = window.saturating_mul(SECOND_NANOS).saturating_mul(count) / per;
    (u64::try_from(quota.max(burst)).unwrap_or(u64::MAX), u64::try_from(window).unwrap_or(u64::MAX))
}

/// Appends the value of `RateLimit`: one member for each limit of the route, in its order.
pub fn write_quotas<'n>(limits: impl IntoIterator<Item = (&'n str, Quota)>, out: &mut Vec<u8>) {
    for (index, (name, quota)) in limits.into_iter().enumerate() {
        write_name(index, name, out);
        write_parameter(b";r=", quota.remaining, out);
        write_parameter(b";t=", whole_seconds(quota.reset), out);
    }
}

/// Appends the value of `Retry-After`: whole seconds, rounded up, at least 1 (0 would invite a loop).
pub fn write_retry_after(after: Duration, out: &mut Vec<u8>) {
    write_number(whole_seconds(after).max(1), out);
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

fn write_name(index: usize, name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(if index > 0 { b", \"" } else { b"\"" });
    for char in name.chars() {
        match char {
            '"' | '\\' => out.extend_from_slice(&[b'\\', char as u8]),
            ' '..='~' => out.push(char as u8),
            _ => out.push(b'_'),
        }
    }
    out.push(b'"');
}

fn write_parameter(key: &[u8], value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(key);
    write_number(value.min(INTEGER_MAX), out);
}

fn write_number(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0_u8; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return out.extend_from_slice(&digits[first..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Window;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn limit(count: u64, per: Duration, burst: u64) -> Measure {
        Measure::Rate { rate: Rate::try_new(count, per).unwrap(), burst }
    }

    fn policy(count: u64, per: Duration, burst: u64) -> String {
        text(|out| write_policies([("orders", limit(count, per, burst))], out))
    }

    #[test]
    fn a_policy_is_a_quota_in_whole_seconds_that_has_the_limits_rate_and_holds_its_burst() {
        let second = Duration::from_secs(1);
        assert_eq!(policy(100, second, 200), r#""orders";q=200;w=2"#);
        assert_eq!(policy(100, second, 1), r#""orders";q=100;w=1"#);
        assert_eq!(policy(100, second, 250), r#""orders";q=300;w=3"#);
        assert_eq!(policy(6_000, Duration::from_secs(60), 100), r#""orders";q=100;w=1"#);
        assert_eq!(policy(1, Duration::from_secs(3_600), 2), r#""orders";q=2;w=7200"#);
        assert_eq!(policy(3, second, 3), r#""orders";q=3;w=1"#);
        assert_eq!(policy(1, second, u64::MAX), r#""orders";q=4611686018;w=4611686018"#);
    }

    #[test]
    fn a_quota_has_its_window_and_requests_at_once_their_unit() {
        let measures = [
            ("day", Measure::Quota { count: 9, window: Window::Day }),
            ("month", Measure::Quota { count: 90, window: Window::Month }),
            ("few", Measure::Concurrency(3)),
        ];
        let written = text(|out| write_policies(measures, out));
        assert_eq!(written, r#""day";q=9;w=86400, "month";q=90, "few";q=3;qu="concurrent-requests""#);
    }

    #[test]
    fn several_limits_are_members_of_one_list() {
        let limit = limit(5, Duration::from_secs(1), 5);
        let quotas = [
            ("per client", Quota { remaining: 0, reset: Duration::from_millis(1_001) }),
            ("route", Quota { remaining: 17, reset: Duration::ZERO }),
        ];
        assert_eq!(
            text(|out| write_policies([("per client", limit), ("route", limit)], out)),
            r#""per client";q=5;w=1, "route";q=5;w=1"#
        );
        assert_eq!(text(|out| write_quotas(quotas, out)), r#""per client";r=0;t=2, "route";r=17;t=0"#);
    }

    #[test]
    fn names_are_quoted_and_hold_printable_ascii_only() {
        let quota = Quota { remaining: 1, reset: Duration::from_secs(9) };
        assert_eq!(text(|out| write_quotas([("a\"b\\c\u{e9}\n~ ", quota)], out)), r#""a\"b\\c__~ ";r=1;t=9"#);
    }

    #[test]
    fn retry_after_rounds_up_to_a_second_and_is_never_before_the_end_of_t() {
        for (nanos, value) in
            [(0, "1"), (1, "1"), (1_000_000_000, "1"), (1_000_000_001, "2"), (86_400_000_000_000, "86400")]
        {
            assert_eq!(text(|out| write_retry_after(Duration::from_nanos(nanos), out)), value);
        }
        assert_eq!(text(|out| write_retry_after(Duration::MAX, out)), u64::MAX.to_string());
    }

    #[test]
    fn writing_appends() {
        assert_eq!(
            text(|out| [0, 1].into_iter().for_each(|secs| write_retry_after(Duration::from_secs(secs), out))),
            "11"
        );
    }
}
