//! How the descriptors that the system allows are divided, so that running out of them is nobody else's trouble.
//!
//! A client's connection needs one, and one more to its endpoint while it has a request there. Beside them stand the idle connections to
//! endpoints, the admin API, health checks and what the process itself needs. Where the limit (RLIMIT_NOFILE) does not cover what the
//! configuration may ask for, fewer clients are taken: the newest is refused, who is there is served, and operators get their answers.

use crate::limits::{ADMIN_CONNECTIONS_MAX, PROBES_MAX};

/// What a worker has open by itself: its event loop (two), timers, both ends of its mailbox, what it is about to close. That is one, because
/// where descriptors are few none waits to be closed with others.
const PER_WORKER: u64 = 6;
/// For the process beside what it has open at its start: a log that is opened anew, a file of /proc that is read, an operator who takes
/// another one's place.
const SPARE: u64 = 5;
/// The admin API gets an eighth of what is left, but so many at least.
const ADMIN_MIN: u64 = 4;
/// The part of what is left for the admin API, and for health checks.
const SHARE: u64 = 8;
/// The part for idle connections to endpoints, of what is left then.
const IDLE_SHARE: u64 = 5;

/// So many requests at once are enough: beyond them, not every client has one to an endpoint at the same time. If they do all the same, what
/// finds no descriptor gets 503.
const AT_ONCE: u64 = 4_096;

/// What a gateway would have.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Descriptors that are open already.
    pub open: u64,
    /// Workers.
    pub workers: u64,
    /// Listeners; each worker has a socket of each.
    pub listeners: u64,
    /// Clients' connections, over all listeners.
    pub connections: u64,
    /// Idle connections to endpoints, over all clusters and workers.
    pub idle: u64,
    /// Endpoints that are checked.
    pub checked: u64,
}

/// What it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Clients' connections over all listeners, if that is fewer than the listeners allow by themselves.
    pub connections_max: Option<u32>,
    /// Idle connections to endpoints that one worker keeps.
    pub idle_max: usize,
    /// Connections of the admin API.
    pub admin_max: usize,
    /// Health checks under way at once.
    pub probes_max: usize,
}

impl Fit {
    /// What a gateway may have to which the limit does not matter.
    pub const WHOLE: Self =
        Self { connections_max: None, idle_max: usize::MAX, admin_max: ADMIN_CONNECTIONS_MAX, probes_max: PROBES_MAX };
}

/// Divides `granted` descriptors.
///
/// # Errors
/// They do not even do for one client; how many would.
pub fn fit(granted: u64, wanted: &Wanted) -> Result<Fit, u64> {
    // one worker more: a successor begins before its predecessor has ended
    let own = wanted.open + SPARE + (wanted.workers + 1) * (PER_WORKER + wanted.listeners);
    let probes_wanted = wanted.checked.min(PROBES_MAX as u64);
    let full = own + ADMIN_CONNECTIONS_MAX as u64 + probes_wanted;
    if granted >= full + 2 * wanted.connections + wanted.idle {
        return Ok(Fit::WHOLE);
    }
    let least = own + ADMIN_MIN + wanted.checked.min(1) + 2 * wanted.workers;
    if granted < least {
        return Err(least);
    }
    let left = granted - own;
    let admin = (left / SHARE).clamp(ADMIN_MIN, ADMIN_CONNECTIONS_MAX as u64);
    let probes = probes_wanted.min((left / SHARE).max(1));
    let left = left - admin - probes;
    // one at least, where it costs no more than it would spare
    let one = u64::from(left >= 4 * wanted.workers && wanted.idle >= wanted.workers);
    let idle_each = ((left / IDLE_SHARE).min(wanted.idle) / wanted.workers).max(one);
    let both = left - idle_each * wanted.workers;
    let connections = (both / 2).max(both.saturating_sub(AT_ONCE));
    Ok(Fit {
        connections_max: (connections < wanted.connections).then(|| u32::try_from(connections).unwrap_or(u32::MAX)),
        idle_max: usize::try_from(idle_each).unwrap_or(usize::MAX),
        admin_max: usize::try_from(admin).unwrap_or(ADMIN_CONNECTIONS_MAX),
        probes_max: usize::try_from(probes.max(1)).unwrap_or(PROBES_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WANTED: Wanted = Wanted { open: 14, workers: 2, listeners: 1, connections: 65_536, idle: 1_024, checked: 0 };

    #[test]
    fn where_there_is_enough_nothing_is_limited() {
        assert_eq!(fit(1 << 20, &WANTED), Ok(Fit::WHOLE));
    }

    #[test]
    fn a_small_limit_takes_few_clients_and_leaves_room_for_the_rest() {
        let fit = fit(64, &WANTED).unwrap();
        assert_eq!(fit, Fit { connections_max: Some(8), idle_max: 2, admin_max: 4, probes_max: 1 });
    }

    #[test]
    fn a_large_limit_is_not_halved_for_clients_that_idle() {
        let fit = fit(20_000, &WANTED).unwrap();
        assert!((14_000..16_000).contains(&fit.connections_max.unwrap()), "{fit:?}");
    }

    #[test]
    fn what_does_not_do_for_anybody_is_an_error_that_says_what_would() {
        let least = fit(40, &WANTED).unwrap_err();
        assert!(least > 40 && fit(least - 1, &WANTED).is_err() && fit(least, &WANTED).is_ok());
    }

    proptest! {
        #[test]
        fn all_together_never_need_more_than_is_granted(
            granted in 0_u64..2_000_000, open in 3_u64..100, workers in 1_u64..128, listeners in 1_u64..16,
            connections in 1_u64..2_000_000, idle in 0_u64..100_000, checked in 0_u64..5_000,
        ) {
            let wanted = Wanted { open, workers, listeners, connections, idle, checked };
            let Ok(fit) = fit(granted, &wanted) else { return Ok(()) };
            prop_assert!(fit.admin_max >= 4 && fit.probes_max >= 1 && fit.connections_max != Some(0));
            let connections = fit.connections_max.map_or(connections, u64::from);
            let idle = (fit.idle_max as u64).saturating_mul(workers).min(idle);
            let probes = (fit.probes_max as u64).min(checked);
            let at_once = if fit == Fit::WHOLE { connections } else { connections.min(AT_ONCE) };
            let all = open + workers * (PER_WORKER + listeners) + connections + at_once + idle + fit.admin_max as u64 + probes;
            prop_assert!(all <= granted, "{} of {}: {:?}", all, granted, fit);
        }
    }
}
