//! r = n / t as a token bucket, exact over all cores without a lock.
//!
//! GCRA (ITU-T I.371 annex A, "virtual scheduling"): the bucket is one instant, the *theoretical arrival time* TAT, at which it is full
//! again. A request may pass at `now` if max(TAT, `now`) + I ≤ `now` + B·I, where I is the interval between tokens and B the burst,
//! and then moves TAT to the left-hand side. No refill timer, no floats, and in any window [a, b] at most B + (b − a) / I pass: the
//! first that passes there leaves TAT ≥ a + I, each further one adds I, and the last one leaves TAT ≤ b + B·I. This does not
//! need the callers' `now` to be in order: a late one (a clock read once per turn of the loop) only makes the bucket stricter.
//!
//! [`Reservoir`] holds the TAT that all workers share: one compare-and-swap takes tokens. Where that would be the bottleneck (many
//! tokens a millisecond), a worker's [`Lease`] takes several at once and spends them alone for at most D ≤ [`limits::LEASE`].
//!
//! # Why leases never exceed the limit
//! A token is charged to TAT when its lease is taken and spent up to D later. What is spent in a window [a, b] was therefore charged in
//! [a − D, b], and GCRA with a burst of B′ admits at most B′ + (b − a + D) / I charges there. With B′ = B − ⌈D / I⌉ this is at most
//! B + (b − a) / I: the limit itself, in every window, whichever workers spend. So a leased reservoir keeps ⌈D / I⌉ tokens of its
//! burst back. D is chosen so that this is at most B / [`BURST_SHARE`].
//!
//! # Why leases hardly waste
//! A lease of k tokens is taken only by a worker that has spent [`EARN`]·k tokens since it last wasted one, and every wasted token
//! costs [`EARN`] of those. So a worker wastes at most one token per [`EARN`] it has spent (and at most one lease at its end), whatever its
//! traffic looks like: a core with little to do takes tokens one by one, which is exact.
//!
//! # Why unspent tokens do not go back
//! Lowering TAT by k·I is sound only if the bucket would not have been full in the meantime without the charge: while it is held, debt
//! evaporates at one token per I. A sound return after time d is therefore k − d / I tokens, and a lease lasts about as long as its
//! own tokens take to come: what could be returned when it expires is nothing. Not wasting beats returning.
//!
//! With one worker, a small burst or a low rate there is nothing to lease: every token is one compare-and-swap, and B′ = B.

use crate::limits;
use crate::units::{Instant, Rate, nanos};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Tokens that a worker must have spent for each token of its next lease: at most 1 % is wasted.
pub const EARN: u64 = 100;
/// The part of a burst that leases may keep back: at most 1/64, 1.6 %.
pub const BURST_SHARE: u64 = 64;
/// The longest that an empty bucket may take to be full, in nanoseconds: 146 years. B·I beyond it would leave a TAT no room before the
/// clock's end, and a bucket whose TAT stands at the end never refills; such a burst is cut to what comes in this time.
const REFILL_NANOS_MAX: u64 = 1 << 62;
/// In the place of a TAT: the tokens are in the next reservoir. No TAT is as late, and whoever takes from here finds nothing.
const MOVED: u64 = u64::MAX;

/// A limit as GCRA counts it: the interval between tokens and the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    interval_nanos: u64,
    burst: u64,
    /// No bucket is full before this, however long nothing is taken: see [`Gcra::until`].
    floor: u64,
}

/// What a limiter says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may pass.
    Admit,
    /// It may not; `remaining` is 0 and `reset` the time after which one would pass (`Retry-After`).
    Reject(Quota),
}

/// How a bucket stands, for the `RateLimit` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests that would pass now.
    pub remaining: u64,
    /// Until one more would; zero when the bucket is full.
    pub reset: Duration,
}

impl Decision {
    /// Whether it is [`Decision::Admit`].
    #[must_use]
    pub fn admits(self) -> bool {
        self == Self::Admit
    }
}

impl Gcra {
    /// `burst` of 0 counts as 1: otherwise nothing would ever pass. One that takes longer than 146 years to come anew counts as what comes
    /// in that time.
    ///
    /// The interval is whole nanoseconds, rounded up, so the rate errs below: by less than 1 ‰ up to a million a second.
    #[must_use]
    pub fn new(rate: Rate, burst: u64) -> Self {
        let interval_nanos = rate.interval_nanos();
        Self { interval_nanos, burst: burst.min(REFILL_NANOS_MAX / interval_nanos).max(1), floor: 0 }
    }

    /// `count` tokens until `end`, in whatever unit of time; of those that were taken before another `end` none counts. A TAT is `end`, and one
    /// more for each token that was taken: it is over soon after `end`, and any other end begins anew.
    #[must_use]
    pub fn until(end: Instant, count: u64) -> Self {
        Self { interval_nanos: 1, burst: count.max(1), floor: end.as_nanos() }
    }

    /// When all of [`until`](Self::until) are there again.
    #[must_use]
    pub(super) fn end(self) -> Instant {
        Instant::from_nanos(self.floor)
    }

    /// `burst` tokens, and one more each `interval_nanos`, which is at least 1.
    #[must_use]
    pub(super) fn every(interval_nanos: u64, burst: u64) -> Self {
        let interval_nanos = interval_nanos.max(1);
        Self { interval_nanos, burst: burst.min(REFILL_NANOS_MAX / interval_nanos).max(1), floor: 0 }
    }

    /// The part of it that each of so many gets, at least one token.
    #[must_use]
    pub(super) fn share(self, of: u64) -> Self {
        Self::every(self.interval_nanos.saturating_mul(of.max(1)), self.burst / of.max(1))
    }

    /// From when on debts count.
    fn base(self, now: Instant) -> u64 {
        now.as_nanos().max(self.floor)
    }

    /// Nanoseconds between two tokens, at least 1.
    #[must_use]
    pub fn interval_nanos(self) -> u64 {
        self.interval_nanos
    }

    /// Tokens of a full bucket, at least 1.
    #[must_use]
    pub fn burst(self) -> u64 {
        self.burst
    }

    /// The TAT that a bucket counts from. With an end, one that lies further behind it than anybody can take is of another one: the clock was set.
    fn counted(self, tat: u64, now: Instant) -> u64 {
        let is_of_another = self.floor > 0 && tat > self.floor.saturating_add(2 * self.burst);
        if is_of_another { self.base(now) } else { tat.max(self.base(now)) }
    }

    /// The latest TAT that a request at `now` may leave behind.
    fn ceiling(self, now: Instant) -> u64 {
        // u64::MAX is no TAT: the key table needs it as a mark.
        self.base(now).saturating_add(self.burst.saturating_mul(self.interval_nanos)).min(u64::MAX - 1)
    }

    /// Tokens that are there at `now`.
    fn available(self, tat: u64, now: Instant) -> u64 {
        self.ceiling(now).saturating_sub(self.counted(tat, now)) / self.interval_nanos
    }

    /// The TAT after taking `cost` tokens, if they are there. What costs more than a full bucket holds costs that.
    pub(super) fn take(self, tat: u64, cost: u64, now: Instant) -> Option<u64> {
        let next = self.counted(tat, now).checked_add(self.nanos_of(cost))?;
        (next <= self.ceiling(now)).then_some(next)
    }

    /// The TAT after taking `cost` tokens, whether they are there or not: no further than another burst below an empty bucket.
    pub(super) fn charge(self, tat: u64, cost: u64, now: Instant) -> u64 {
        let lowest = self.ceiling(now).saturating_add(self.burst.saturating_mul(self.interval_nanos)).min(u64::MAX - 1);
        let from = self.counted(tat, now);
        let next = from.saturating_add(cost.saturating_mul(self.interval_nanos));
        next.min(lowest).max(from)
    }

    /// The time in which so many tokens come, of those that a bucket holds.
    fn nanos_of(self, cost: u64) -> u64 {
        cost.min(self.burst).saturating_mul(self.interval_nanos)
    }

    /// How a bucket with this TAT stands for who needs one token more than it has.
    pub(super) fn quota(self, tat: u64, now: Instant) -> Quota {
        self.quota_for(tat, 1, now)
    }

    /// How it stands for who needs `cost` tokens.
    pub(super) fn quota_for(self, tat: u64, cost: u64, now: Instant) -> Quota {
        let remaining = self.available(tat, now);
        let debt = self.counted(tat, now) - self.base(now);
        let wanted = (remaining + 1).max(cost.min(self.burst));
        // They are there when the debt leaves room for them.
        let room =
            self.ceiling(now).saturating_sub(now.as_nanos()).saturating_sub(wanted.saturating_mul(self.interval_nanos));
        let reset = if debt == 0 { 0 } else { debt.saturating_sub(room) };
        Quota { remaining, reset: Duration::from_nanos(reset) }
    }

    /// Admit if there are `cost` tokens, without taking them.
    pub(super) fn decide(self, tat: u64, cost: u64, now: Instant) -> Decision {
        match self.take(tat, cost, now) {
            Some(_) => Decision::Admit,
            None => Decision::Reject(self.quota_for(tat, cost, now)),
        }
    }
}

/// The bucket that all workers share. One cache line, so that two limits do not slow each other.
#[derive(Debug)]
#[repr(align(128))]
pub struct Reservoir {
    tat: AtomicU64,
    /// With the reduced burst B′ if there are leases.
    gcra: Gcra,
    lease: LeasePlan,
    /// Where the tokens have [moved](MOVED).
    next: OnceLock<Arc<Self>>,
}

/// How long and how large leases are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LeasePlan {
    /// D.
    nanos: u64,
    /// 1: no leases.
    tokens_max: u64,
}

impl LeasePlan {
    fn new(gcra: Gcra, workers: usize) -> Self {
        // Kept back from the burst, and what all workers together may hold for D.
        let kept = (nanos(limits::LEASE) / gcra.interval_nanos).min(gcra.burst / BURST_SHARE);
        let tokens_max = kept / workers.max(1) as u64;
        if workers < 2 || tokens_max < 2 {
            return Self { nanos: 0, tokens_max: 1 };
        }
        Self { nanos: kept * gcra.interval_nanos, tokens_max }
    }
}

impl Reservoir {
    /// A full bucket for `workers` workers.
    #[must_use]
    pub fn new(rate: Rate, burst: u64, workers: usize) -> Self {
        let mut gcra = Gcra::new(rate, burst);
        let lease = LeasePlan::new(gcra, workers);
        gcra.burst -= lease.nanos / gcra.interval_nanos;
        Self { tat: AtomicU64::new(0), gcra, lease, next: OnceLock::new() }
    }

    /// Takes up to `wanted` tokens, as many as there are.
    fn take_up_to(&self, wanted: u64, now: Instant) -> u64 {
        let mut tat = self.tat.load(Ordering::Relaxed);
        loop {
            let taken = self.gcra.available(tat, now).min(wanted);
            if taken == 0 {
                return 0;
            }
            // No overflow: `available` says that it stays below the ceiling. Relaxed: the instant is all that is shared.
            let next = tat.max(now.as_nanos()) + taken * self.gcra.interval_nanos;
            match self.tat.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return taken,
                Err(seen) => tat = seen,
            }
        }
    }

    /// Takes over the tokens that are left in `old`, the bucket of the same limit at another rate; no more than fit in here. Once, and before
    /// anybody takes from this one. Whoever still takes from `old` takes from here: a request that the limit allows is not refused because the
    /// limit changes, and no token is there twice.
    pub fn begin_with(self: &Arc<Self>, old: &Self, now: Instant) {
        old.next.get_or_init(|| Arc::clone(self));
        let mut tat = old.tat.load(Ordering::Relaxed);
        loop {
            let tokens = old.gcra.available(tat, now);
            self.begin_at(tokens, now);
            // Release: who sees that they have moved sees where they are
            match old.tat.compare_exchange_weak(tat, MOVED, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => tat = seen,
            }
        }
    }

    /// Tokens that are left at `now`, but for those in leases.
    #[must_use]
    pub fn left(&self, now: Instant) -> u64 {
        self.quota(now).remaining
    }

    /// Has no more than so many tokens from `now` on; before anybody takes from it.
    pub fn begin_at(&self, tokens: u64, now: Instant) {
        let missing = (self.gcra.burst - tokens.min(self.gcra.burst)) * self.gcra.interval_nanos;
        self.tat.store(now.as_nanos().saturating_add(missing).min(u64::MAX - 1), Ordering::Relaxed);
    }

    /// Where the tokens are that have moved from here.
    fn moved(&self) -> Option<&Arc<Self>> {
        if self.tat.load(Ordering::Acquire) == MOVED { self.next.get() } else { None }
    }

    fn take_exactly(&self, cost: u64, now: Instant) -> Decision {
        let mut tat = self.tat.load(Ordering::Relaxed);
        loop {
            let Some(next) = self.gcra.take(tat, cost, now) else {
                return Decision::Reject(self.gcra.quota_for(tat, cost, now));
            };
            match self.tat.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Decision::Admit,
                Err(seen) => tat = seen,
            }
        }
    }

    /// Takes `cost` tokens, whether they are there or not ([`Gcra::charge`]).
    pub fn charge(&self, cost: u64, now: Instant) {
        let mut from = self;
        while let Err(MOVED) = from.tat.fetch_update(Ordering::Relaxed, Ordering::Acquire, |tat| {
            (tat != MOVED).then(|| from.gcra.charge(tat, cost, now))
        }) && let Some(next) = from.moved()
        {
            from = next;
        }
    }

    /// How the shared bucket stands at `now`, not counting what workers hold in leases.
    #[must_use]
    pub fn quota(&self, now: Instant) -> Quota {
        self.gcra.quota(self.tat.load(Ordering::Relaxed), now)
    }
}

impl Drop for Reservoir {
    fn drop(&mut self) {
        // one after the other: a tunnel may hold the first of very many
        let mut next = self.next.take();
        while let Some(mut last) = next.and_then(Arc::into_inner) {
            next = last.next.take();
        }
    }
}

/// One worker's hand in a [`Reservoir`]; always used with the same one.
#[derive(Debug, Default)]
pub struct Lease {
    /// Tokens in hand …
    tokens: u64,
    /// … until this instant.
    until: Instant,
    /// Tokens spent, less [`EARN`] for each wasted; bounded, so that old merit does not pay for new waste.
    earned: u64,
}

impl Lease {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one token.
    pub fn take(&mut self, reservoir: &Reservoir, now: Instant) -> Decision {
        self.take_many(reservoir, 1, now)
    }

    /// Takes `cost` tokens, or none.
    pub fn take_many(&mut self, reservoir: &Reservoir, cost: u64, now: Instant) -> Decision {
        let (mut taken, mut from) = (self.take_here(reservoir, cost, now), reservoir);
        while !taken.admits()
            && let Some(next) = from.moved()
        {
            (taken, from) = (next.take_exactly(cost, now), next);
        }
        taken
    }

    fn take_here(&mut self, reservoir: &Reservoir, cost: u64, now: Instant) -> Decision {
        if reservoir.lease.tokens_max < 2 {
            return reservoir.take_exactly(cost, now);
        }
        self.drop_expired(now);
        if cost > 1 {
            // what is left of a lease must not live on in another one, so it is used whole or not at all
            if self.tokens < cost {
                return reservoir.take_exactly(cost, now);
            }
        } else if self.tokens == 0 {
            let size = (self.earned / EARN).clamp(1, reservoir.lease.tokens_max);
            self.tokens = reservoir.take_up_to(size, now);
            if self.tokens == 0 {
                return Decision::Reject(reservoir.quota(now));
            }
            self.until = now + Duration::from_nanos(reservoir.lease.nanos);
        }
        self.tokens -= cost;
        self.earned = (self.earned + cost).min(EARN * reservoir.lease.tokens_max);
        Decision::Admit
    }

    /// What [`Lease::take`] would say, without taking: with several limits, ask all before taking from any.
    #[must_use]
    pub fn peek(&self, reservoir: &Reservoir, now: Instant) -> Decision {
        self.peek_many(reservoir, 1, now)
    }

    /// The same of [`Lease::take_many`].
    #[must_use]
    pub fn peek_many(&self, reservoir: &Reservoir, cost: u64, now: Instant) -> Decision {
        if self.tokens >= cost && now <= self.until {
            return Decision::Admit;
        }
        let decide = |from: &Reservoir| from.gcra.decide(from.tat.load(Ordering::Relaxed), cost, now);
        let (mut decided, mut from) = (decide(reservoir), reservoir);
        while !decided.admits()
            && let Some(next) = from.moved()
        {
            (decided, from) = (decide(next), next);
        }
        decided
    }

    fn drop_expired(&mut self, now: Instant) {
        if self.tokens > 0 && now > self.until {
            self.earned = self.earned.saturating_sub(EARN * self.tokens);
            self.tokens = 0;
        }
    }
}

#[cfg(test)]
mod tests;
