//! Taking what a request's limits ask for: places of requests at once first, tokens once all of them have been asked for.

use super::{Admitted, Limits, MET_MAX, Met, Row};
use crate::config::LimitKey;
use crate::policy::client_slots::Taken;
use crate::policy::limiter::{Caller, Marks, Moment};
use crate::policy::token_bucket::{Decision, Lease, Quota};
use crate::units::{ListenerId, RouteId};
use std::time::Duration;

/// What one worker takes: places of requests at once, and tokens.
type Hands<'h> = (&'h mut Vec<usize>, &'h mut [Lease]);

/// The first values of headers, cookies, claims and the like.
type Values<'v, 'h> = &'v dyn Fn(&LimitKey) -> Option<&'h [u8]>;

/// Takes what all that a request meets ask for.
#[inline(never)]
pub(super) fn take_each<'h>(
    limits: &Limits,
    asked: (RouteId, ListenerId, Met),
    (caller, value): (Caller<'_>, Values<'_, 'h>),
    hands: Hands<'_>,
    at: Moment,
) -> Admitted {
    let mut met = [Row::default(); MET_MAX];
    let rows = limits.rows(&mut met, asked);
    let mut marks: [Marks; MET_MAX] = [None; MET_MAX];
    for (mark, row) in marks.iter_mut().zip(rows) {
        *mark = limits.limiters[row.limiter as usize].marks(&limits.tables, caller, value, at);
    }
    take(limits, (rows, &marks[..rows.len()]), hands, at)
}

/// Takes what these rows ask for.
pub(super) fn take(limits: &Limits, marked: (&[Row], &[Marks]), (taken, leases): Hands<'_>, at: Moment) -> Admitted {
    match enter(limits, marked, taken) {
        Admitted::Pass { dry_run } => tokens(limits, marked, leases, dry_run, at),
        refused => refused,
    }
}

/// Takes a place in each limit of requests at once.
fn enter(limits: &Limits, (rows, marks): (&[Row], &[Marks]), taken: &mut Vec<usize>) -> Admitted {
    let mut dry_run = 0;
    for (bit, (row, mark)) in rows.iter().zip(marks).enumerate() {
        let limiter = &limits.limiters[row.limiter as usize];
        match limiter.enter(&limits.tables, *mark) {
            Taken::Slot(place) => taken.push(place),
            Taken::Uncounted => {}
            Taken::Refused if limiter.limit.dry_run => dry_run |= 1 << bit,
            Taken::Refused => {
                let quota = Quota { remaining: 0, reset: Duration::ZERO };
                return Admitted::RateLimited { limit: row.limiter as usize, quota };
            }
        }
    }
    Admitted::Pass { dry_run }
}

fn tokens(
    limits: &Limits,
    (rows, marks): (&[Row], &[Marks]),
    leases: &mut [Lease],
    mut dry_run: u16,
    at: Moment,
) -> Admitted {
    let tables = &limits.tables;
    let limiter = |row: &Row| &limits.limiters[row.limiter as usize];
    // of those that reject, the one whose next token is longest to come
    let longest = |leases: &[Lease]| {
        let rejecting = rows.iter().zip(marks).filter(|(row, _)| !limiter(row).limit.dry_run);
        let rejecting = rejecting.filter_map(|(row, mark)| {
            let row_of = row.limiter as usize;
            match limiter(row).peek(&leases[row_of], tables, (*mark, row.cost), at) {
                Decision::Admit => None,
                Decision::Reject(quota) => Some((row_of, quota)),
            }
        });
        rejecting.max_by_key(|(_, quota)| quota.reset)
    };
    if rows.len() > 1
        && let Some((limit, quota)) = longest(leases)
    {
        return Admitted::RateLimited { limit, quota };
    }
    for (bit, (row, mark)) in rows.iter().zip(marks).enumerate() {
        let limit = row.limiter as usize;
        match limiter(row).take(&mut leases[limit], tables, (*mark, row.cost), at) {
            Decision::Admit => {}
            Decision::Reject(_) if limiter(row).limit.dry_run => dry_run |= 1 << bit,
            Decision::Reject(quota) => {
                let other = longest(leases).filter(|(_, other)| other.reset > quota.reset);
                let (limit, quota) = other.unwrap_or((limit, quota));
                return Admitted::RateLimited { limit, quota };
            }
        }
    }
    Admitted::Pass { dry_run }
}
