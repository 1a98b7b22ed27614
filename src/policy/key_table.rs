//! Rate limits per client or header value: a bounded table of buckets that all workers share without a lock.
//!
//! Intuition: a client's bucket is one instant (the TAT of [`super::token_bucket`]), and a bucket whose instant is not after `now` is
//! full, which is what a client that was never seen has. So idle clients cost nothing and forgetting them loses nothing. The table is an
//! array of cache lines with four (key, TAT) entries each; a key lives in the line that its hash names. One table serves all limits of
//! the gateway: which limit it is, is part of the key. Untouched pages of it are never backed by memory.
//!
//! When a line is full of clients in debt, the one with the least debt is forgotten for the new one and counted: it may then pass up
//! to its burst anew. An attacker with many addresses can bring this about but cannot aim it: keys are SipHash with a secret.
//!
//! # Concurrency
//! - *Taking a token* is a compare-and-swap of the TAT. The entry may have changed hands between reading the key and swapping, so the
//!   key is read again afterwards: if it is another, the stranger has paid a token too much, and the taker starts over. Keys are
//!   published before the TAT that belongs to them, so a TAT that is read after its key was never a former owner's.
//! - *Inserting* happens under the mark [`BUSY`] in the TAT of the line's first entry, which keeps a second inserter of the line out; so
//!   a key never stands twice in its line. The victim's TAT is marked the same way while its key is replaced.
//! - *Replacing a full bucket* loses nothing only for callers whose `now` is past its TAT. Workers read their clocks once per turn, so
//!   another one may lag: the latest TAT that was dropped in a stripe of lines is remembered, and a key that is not there is taken to
//!   have that one.
//! - Waiting for a mark is bounded; whoever waits in vain (a worker was descheduled within these few instructions) is rejected.
//!
//! All errors are on the safe side: a race may cost a token, it never makes one.

use super::token_bucket::{Decision, Gcra, Quota};
use crate::units::Instant;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use zerocopy::FromZeros as _;

/// Which limit of the gateway; the caller numbers them. A limit that changes (rate, burst, what it counts) gets another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimiterId(pub u64);

/// A client of one limit. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(u64);

impl KeyHash {
    /// The hash.
    #[must_use]
    pub(super) fn get(self) -> u64 {
        self.0
    }

    /// For what a limit tells its clients apart by besides.
    #[must_use]
    pub fn as_limiter(self) -> LimiterId {
        LimiterId(self.0)
    }
}

/// Entries of a line.
const WAYS: usize = 4;
/// Words of a line: key and TAT of each entry.
const LINE: usize = 2 * WAYS;
/// In a TAT: somebody is replacing this entry's key (and, in the first entry, may be inserting into the line).
const BUSY: u64 = u64::MAX;
/// Lines that share one memory of dropped TATs.
const STRIPE: usize = 64;
/// Tries before a caller gives up; each is a few instructions of somebody else's.
const TRIES: u32 = 4_096;

/// The table. `Send + Sync`, used by `&self`.
#[derive(Debug)]
pub struct KeyTable {
    /// `lines` × [`LINE`] words, beginning at the word `first` so that each line is one cache line.
    words: Box<[AtomicU64]>,
    first: usize,
    mask: u64,
    /// Per [`STRIPE`] lines: the latest TAT of a full bucket that was replaced.
    dropped: Box<[AtomicU64]>,
    secret: [AtomicU64; 2],
    evictions: AtomicU64,
    contended: AtomicU64,
}

/// The clients of a table that are in debt, for the table of another process: [`KeyTable::debts`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Debts {
    /// What their keys are hashed with.
    pub secret: [u64; 2],
    /// A key, and nanoseconds until its bucket is full.
    pub clients: Vec<(u64, u64)>,
}

impl KeyTable {
    /// An empty table of `lines` cache lines (a power of two; [`crate::limits::LIMIT_TABLE_BUCKETS`] for a gateway), whose keys are
    /// hashed with `secret`: it must be random and the gateway's own.
    ///
    /// # Panics
    /// When `lines` is no power of two, or there is no memory for the table.
    #[must_use]
    pub fn new(lines: usize, secret: [u64; 2]) -> Self {
        assert!(lines.is_power_of_two(), "a power of two of lines");
        // Zeroed by the kernel when first touched; a line more, to begin on a cache line's boundary.
        let words = zeroed((lines + 1) * LINE);
        let first = words.as_ptr().align_offset(LINE * size_of::<AtomicU64>());
        assert!(first < LINE, "words are aligned to themselves");
        let (evictions, contended) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            words,
            first,
            mask: lines as u64 - 1,
            dropped: zeroed(lines.div_ceil(STRIPE)),
            secret: secret.map(AtomicU64::new),
            evictions,
            contended,
        }
    }

    /// Who is in debt at `now`. What is taken meanwhile may be in it or not.
    #[must_use]
    pub fn debts(&self, now: Instant) -> Debts {
        let entries = self.lines().flat_map(|line| (0..WAYS).map(move |entry| (line.key(entry), line.tat(entry))));
        let debt = |(key, tat): (&AtomicU64, &AtomicU64)| {
            let (key, tat) = (key.load(Ordering::Acquire), tat.load(Ordering::Acquire));
            // one that is just replaced is that of a client who is not in debt, or hardly
            (key != 0 && tat != BUSY && tat > now.as_nanos()).then(|| (key, tat - now.as_nanos()))
        };
        Debts { secret: self.secret(), clients: entries.filter_map(debt).collect() }
    }

    /// Goes on with what the table of another process knew. Only a table that nobody has asked for a key yet may do so.
    pub fn take_on(&self, debts: &Debts, now: Instant) {
        for (own, secret) in self.secret.iter().zip(debts.secret) {
            own.store(secret, Ordering::Relaxed);
        }
        for &(key, debt) in &debts.clients {
            let (line, until) = (self.line(KeyHash(key)), now.as_nanos().saturating_add(debt).min(BUSY - 1));
            let (victim, other) = match line.find(KeyHash(key)) {
                Some(entry) => (entry, line.tat(entry).load(Ordering::Relaxed)),
                None => line.least_debt(line.tat(0).load(Ordering::Relaxed)),
            };
            // the line of a smaller table may be full
            if key != 0 && other < until {
                line.key(victim).store(key, Ordering::Relaxed);
                line.tat(victim).store(until, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn secret(&self) -> [u64; 2] {
        [0, 1].map(|half: usize| self.secret[half].load(Ordering::Relaxed))
    }

    /// The client with this address: IPv4 (also mapped into IPv6) whole, IPv6 by its /64, which one customer commonly has whole.
    #[must_use]
    pub fn client(&self, limiter: LimiterId, address: IpAddr) -> KeyHash {
        match address.to_canonical() {
            IpAddr::V4(address) => self.key(limiter, 4, &address.octets()),
            IpAddr::V6(address) => self.key(limiter, 6, &address.octets()[..8]),
        }
    }

    /// The clients of a network: so many leading bits of an address of IPv4 (also mapped into IPv6) and of IPv6.
    #[must_use]
    pub fn network(&self, limiter: LimiterId, address: IpAddr, (v4, v6): (u8, u8)) -> KeyHash {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let kept = u32::MAX.checked_shl(32 - u32::from(v4.min(32))).unwrap_or_default();
                self.key(limiter, 14, &(address.to_bits() & kept).to_be_bytes())
            }
            IpAddr::V6(address) => {
                let kept = u128::MAX.checked_shl(128 - u32::from(v6.min(128))).unwrap_or_default();
                self.key(limiter, 16, &(address.to_bits() & kept).to_be_bytes())
            }
        }
    }

    /// Requests with this value of a header; those without it count together, apart from an empty value.
    #[must_use]
    pub fn header(&self, limiter: LimiterId, value: Option<&[u8]>) -> KeyHash {
        match value {
            Some(value) => self.key(limiter, 1, value),
            None => self.key(limiter, 0, &[]),
        }
    }

    fn key(&self, limiter: LimiterId, kind: u8, bytes: &[u8]) -> KeyHash {
        let [k0, k1] = self.secret();
        let mut hasher = SipHasher13::new_with_keys(k0, k1);
        hasher.write_u64(limiter.0);
        hasher.write_u8(kind);
        hasher.write(bytes);
        // 0 marks an entry that was never used.
        KeyHash(hasher.finish().max(1))
    }

    /// Takes one of `key`'s tokens. A key always comes with the same `gcra`.
    pub fn take(&self, key: KeyHash, gcra: Gcra, now: Instant) -> Decision {
        self.take_many(key, gcra, 1, now)
    }

    /// Takes `cost` of `key`'s tokens, or none. A key always comes with the same `gcra`.
    pub fn take_many(&self, key: KeyHash, gcra: Gcra, cost: u64, now: Instant) -> Decision {
        let next = |tat| gcra.take(tat, cost, now).ok_or_else(|| gcra.quota_for(tat, cost, now));
        self.settle(key, now, next).unwrap_or_else(|| {
            Decision::Reject(Quota { remaining: 0, reset: Duration::from_nanos(gcra.interval_nanos()) })
        })
    }

    /// Takes `cost` of `key`'s tokens, whether they are there or not ([`Gcra::charge`]).
    pub fn charge(&self, key: KeyHash, gcra: Gcra, cost: u64, now: Instant) {
        self.settle(key, now, |tat| Ok(gcra.charge(tat, cost, now)));
    }

    /// Moves `key`'s TAT to where `next` says, or does what it says instead; `None`: the line was busy all the time.
    fn settle(&self, key: KeyHash, now: Instant, next: impl Fn(u64) -> Result<u64, Quota>) -> Option<Decision> {
        let line = self.line(key);
        for _ in 0..TRIES {
            let step = match line.find(key) {
                Some(entry) => line.charge(entry, key, &next),
                None => self.insert(line, key, &next, now),
            };
            if step.is_some() {
                return step;
            }
            std::hint::spin_loop();
        }
        self.contended.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// What [`KeyTable::take`] would say, without taking: with several limits, ask all before taking from any.
    #[must_use]
    pub fn peek(&self, key: KeyHash, gcra: Gcra, now: Instant) -> Decision {
        self.peek_many(key, gcra, 1, now)
    }

    /// The same of [`KeyTable::take_many`].
    #[must_use]
    pub fn peek_many(&self, key: KeyHash, gcra: Gcra, cost: u64, now: Instant) -> Decision {
        gcra.decide(self.tat(key), cost, now)
    }

    /// How `key`'s bucket stands at `now`.
    #[must_use]
    pub fn quota(&self, key: KeyHash, gcra: Gcra, now: Instant) -> Quota {
        gcra.quota(self.tat(key), now)
    }

    /// Clients that were forgotten while in debt because their line was full.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Requests that were rejected because another worker was held up within an insertion; practically none.
    #[must_use]
    pub fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }

    /// A guess where the entry is just changing: only `take` decides.
    fn tat(&self, key: KeyHash) -> u64 {
        let line = self.line(key);
        match line.find(key).map(|entry| line.tat(entry).load(Ordering::Acquire)) {
            None | Some(BUSY) => self.dropped(key).load(Ordering::Relaxed),
            Some(tat) => tat,
        }
    }

    fn dropped(&self, key: KeyHash) -> &AtomicU64 {
        &self.dropped[(key.0 & self.mask) as usize / STRIPE]
    }

    fn line(&self, key: KeyHash) -> Line<'_> {
        self.line_at((key.0 & self.mask) as usize)
    }

    fn line_at(&self, row: usize) -> Line<'_> {
        let start = self.first + row * LINE;
        Line { words: self.words[start..start + LINE].try_into().expect("a line's length") }
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        (0..=self.mask as usize).map(|row| self.line_at(row))
    }

    /// Puts `key` into its line with tokens taken; `None`: try again.
    fn insert(
        &self,
        line: Line<'_>,
        key: KeyHash,
        next: &impl Fn(u64) -> Result<u64, Quota>,
        now: Instant,
    ) -> Option<Decision> {
        let gate = line.tat(0);
        let first_tat = gate.load(Ordering::Relaxed);
        if first_tat == BUSY || gate.compare_exchange(first_tat, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return None;
        }
        // From here on no key of this line changes but by this insertion.
        if line.find(key).is_some() {
            gate.store(first_tat, Ordering::Release);
            return None;
        }
        let dropped = self.dropped(key);
        // Ordered behind the keys that `find` has read, whose writers told the TATs they dropped before.
        let latest = dropped.load(Ordering::Relaxed);
        let tat = match next(latest) {
            Ok(tat) => tat,
            Err(quota) => {
                gate.store(first_tat, Ordering::Release);
                return Some(Decision::Reject(quota));
            }
        };
        let (victim, debt_until) = line.least_debt(first_tat);
        let busy = victim == 0
            || line.tat(victim).compare_exchange(debt_until, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if busy {
            let full_at = debt_until.min(now.as_nanos());
            if full_at > latest {
                dropped.fetch_max(full_at, Ordering::Relaxed);
            }
            line.key(victim).store(key.0, Ordering::Release);
            line.tat(victim).store(tat, Ordering::Release);
        }
        if victim != 0 {
            gate.store(first_tat, Ordering::Release);
        }
        if !busy {
            return None;
        }
        if debt_until > now.as_nanos() {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        Some(Decision::Admit)
    }
}

/// Four entries.
#[derive(Clone, Copy)]
struct Line<'t> {
    words: &'t [AtomicU64; LINE],
}

impl<'t> Line<'t> {
    fn key(self, entry: usize) -> &'t AtomicU64 {
        &self.words[2 * entry]
    }

    fn tat(self, entry: usize) -> &'t AtomicU64 {
        &self.words[2 * entry + 1]
    }

    fn find(self, key: KeyHash) -> Option<usize> {
        (0..WAYS).find(|&entry| self.key(entry).load(Ordering::Acquire) == key.0)
    }

    /// The entry that is forgotten with the least loss, and until when it is in debt. `first_tat` is what the gate covers.
    fn least_debt(self, first_tat: u64) -> (usize, u64) {
        let rest = (1..WAYS).map(|entry| (entry, self.tat(entry).load(Ordering::Relaxed)));
        rest.fold((0, first_tat), |least, entry| if entry.1 < least.1 { entry } else { least })
    }

    /// Takes tokens from `entry`, which was seen to be `key`'s; `None`: it was busy or no longer is.
    fn charge(self, entry: usize, key: KeyHash, next: &impl Fn(u64) -> Result<u64, Quota>) -> Option<Decision> {
        let tat = self.tat(entry).load(Ordering::Acquire);
        if tat == BUSY {
            return None;
        }
        let decision = match next(tat) {
            Err(quota) => Decision::Reject(quota),
            Ok(next) => {
                self.tat(entry).compare_exchange(tat, next, Ordering::AcqRel, Ordering::Relaxed).ok()?;
                Decision::Admit
            }
        };
        (self.key(entry).load(Ordering::Acquire) == key.0).then_some(decision)
    }
}

/// `count` words of 0 from zeroed pages, which exist only once they are written.
fn zeroed(count: usize) -> Box<[AtomicU64]> {
    <[AtomicU64]>::new_box_zeroed_with_elems(count).expect("memory for the table of rate limits")
}

#[cfg(test)]
mod tests;
