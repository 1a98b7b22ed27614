//! Nonces that were taken, so that a signed request is not taken twice: a bounded table that all workers share without a lock.
//!
//! Each place of the table is one word: 40 bits of the nonce's keyed hash, and the second from which on it may be forgotten. A nonce looks at the
//! [`WINDOW`] places from where its hash says on, and at all of them each time, so that a place may be taken over as soon as its nonce is over and
//! nothing has to be swept. When no place of a window is free the nonce is refused ([`Taken::Full`]): what could still be replayed is never forgotten.
//! More than half of the table is in use before the first window is full.
//!
//! Two nonces that share 40 bits and a window are taken for one: the later is refused, once in some 17 billion requests beside a full table.
//!
//! # Concurrency
//! A nonce is written by a compare-and-swap, and then the whole window is read again. Two workers with the same nonce write both before they read,
//! and all is in one order (`SeqCst`), so at least the later one sees the other and refuses; both may, and none may not.
//!
//! How long a signature may be good is the configuration's affair, and a table outlives that ([`Replays::keep_for`]). What was taken before a longer
//! time is forgotten by the shorter one, so a signature of before that is older than the shorter one could have been taken, and counts as if it was
//! ([`Replays::may_have_forgotten`]).
//!
//! An upgrade passes it on as it is at that moment ([`Replays::left`]); what the old process takes while it drains the new one does not know. A process
//! that is started anew knows nothing, and nothing is told to other hosts.

use siphasher::sip::SipHasher13;
use std::hash::Hasher as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use zerocopy::FromZeros as _;

/// Places that a nonce may be in: eight cache lines.
const WINDOW: usize = 64;
/// Bits of a word that say until when.
const TIME_BITS: u32 = 24;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// Seconds that a nonce is kept at most: more than the longest age with its leeway twice. What is further in the future was written half a round
/// of the time's bits ago.
const KEPT_MAX: u64 = 1 << 14;
const _: () = assert!(KEPT_MAX > 3 * 3600 && KEPT_MAX < TIME / 2);

/// What becomes of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was not there, and now is.
    New,
    /// It was taken before.
    Again,
    /// There is no room to remember it.
    Full,
}

/// The table. `Send + Sync`, used by `&self`.
#[derive(Debug)]
pub struct Replays {
    places: Box<[AtomicU64]>,
    secret: [AtomicU64; 2],
    /// Seconds from `created` on; 0 before it is said.
    life: AtomicU64,
    /// Of signatures that were made up to then (since 1970), nonces are known for so many seconds; 0: for `life`.
    before: AtomicU64,
    life_before: AtomicU64,
}

/// What a table remembers, for the table of another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// What its hashes are keyed with.
    pub secret: [u64; 2],
    /// How many places it has; in a table of another size its words mean nothing.
    pub places: usize,
    /// Places that are in use, and their words.
    pub words: Vec<(usize, u64)>,
    /// Seconds that they were to be remembered for; 0: that is not known.
    pub life: u64,
}

impl Replays {
    /// An empty one of so many places, a power of two of at least [`WINDOW`]; its hashes are keyed with `secret`, which nobody else knows.
    ///
    /// # Panics
    /// When `places` is none, or there is no memory for the table.
    #[must_use]
    pub fn new(places: usize, secret: [u64; 2]) -> Self {
        assert!(places.is_power_of_two() && places >= WINDOW, "a power of two of places");
        // zeroed by the kernel when first touched
        let places = <[AtomicU64]>::new_box_zeroed_with_elems(places).expect("there is memory for the table");
        let [life, before, life_before] = [0, 0, 0].map(AtomicU64::new);
        Self { places, secret: secret.map(AtomicU64::new), life, before, life_before }
    }

    /// Nonces are to be remembered for `life` from `created` on, from `now` since 1970 on; for longer by who says so when it takes one. The control
    /// plane's, before a configuration is in use.
    pub fn keep_for(&self, life: Duration, now: Duration) {
        self.lengthen((self.life.load(SeqCst), life.as_secs()), now.as_secs());
        self.life.store(life.as_secs(), SeqCst);
    }

    /// How long nonces are remembered from `created` on.
    #[must_use]
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.life.load(SeqCst))
    }

    fn lengthen(&self, (old, life): (u64, u64), now: u64) {
        if old == 0 || old >= life {
            return;
        }
        let shorter =
            Some(self.life_before.load(SeqCst)).filter(|life| *life > 0 && self.before.load(SeqCst) + life > now);
        self.life_before.store(shorter.map_or(old, |shorter| shorter.min(old)), SeqCst);
        // what was taken by now was made by a clock that may be before ours, by less than its life
        self.before.fetch_max(now + old, SeqCst);
    }

    /// Whether a nonce of a signature that was made at `created` may have been taken and forgotten at `now`; both since 1970.
    #[must_use]
    pub fn may_have_forgotten(&self, created: Duration, now: Duration) -> bool {
        let life = self.life_before.load(SeqCst);
        life > 0 && created.as_secs() <= self.before.load(SeqCst) && created.as_secs() + life <= now.as_secs()
    }

    /// What must not be forgotten at `now` since 1970. What is taken meanwhile may be in it or not.
    #[must_use]
    pub fn left(&self, now: Duration) -> Left {
        let all = self.places.iter().map(|place| place.load(SeqCst)).enumerate();
        let words = all.filter(|(_, word)| is_live(*word, now.as_secs())).collect();
        Left { secret: self.secret(), places: self.places.len(), words, life: self.life.load(SeqCst) }
    }

    /// Goes on with what the table of another process knew at `now`. Only a table that nobody has asked yet may do so.
    pub fn take_on(&self, left: &Left, now: Duration) {
        if left.places != self.places.len() {
            return;
        }
        self.lengthen((left.life, self.life.load(SeqCst)), now.as_secs());
        for (own, secret) in self.secret.iter().zip(left.secret) {
            own.store(secret, SeqCst);
        }
        for (place, word) in &left.words {
            if let Some(place) = self.places.get(*place) {
                place.store(*word, SeqCst);
            }
        }
    }

    fn secret(&self) -> [u64; 2] {
        [0, 1].map(|half: usize| self.secret[half].load(SeqCst))
    }

    /// Takes a nonce of this key at `now`, to be remembered until `until` at least; both since 1970. What is over by then, or further away than any
    /// signature that can be good, needs no place.
    #[must_use]
    pub fn take(&self, keyid: &str, nonce: &str, (now, until): (Duration, Duration)) -> Taken {
        if !is_live((until.as_secs() + 2) & TIME, now.as_secs()) || until.as_secs() > now.as_secs() + KEPT_MAX {
            return Taken::New;
        }
        let [k0, k1] = self.secret();
        let mut hasher = SipHasher13::new_with_keys(k0, k1);
        hasher.write(keyid.as_bytes());
        hasher.write_u8(0xff); // neither has one
        hasher.write(nonce.as_bytes());
        // a second more than rounding takes, because clocks of workers are read once per turn and may lag
        self.take_hash(hasher.finish(), (now.as_secs(), until.as_secs() + 2))
    }

    fn take_hash(&self, hash: u64, (now, until): (u64, u64)) -> Taken {
        // a word of zeros is a place that was never used
        let name = (hash >> TIME_BITS).max(1);
        let word = name << TIME_BITS | (until & TIME);
        let is_same = |word: u64| word >> TIME_BITS == name && is_live(word, now);
        let first = hash as usize;
        let window = || (0..WINDOW).map(|step| &self.places[first.wrapping_add(step) & (self.places.len() - 1)]);
        loop {
            let mut free = None;
            for place in window() {
                match place.load(SeqCst) {
                    there if is_same(there) => return Taken::Again,
                    there if free.is_none() && !is_live(there, now) => free = Some((place, there)),
                    _ => {}
                }
            }
            let Some((place, there)) = free else { return Taken::Full };
            if place.compare_exchange(there, word, SeqCst, SeqCst).is_err() {
                continue; // somebody has taken the place: each time somebody else gets on
            }
            let copies = window().filter(|place| is_same(place.load(SeqCst))).count();
            return if copies == 1 { Taken::New } else { Taken::Again };
        }
    }
}

/// Whether it may not be forgotten yet, at this second.
fn is_live(word: u64, now: u64) -> bool {
    (1..=KEPT_MAX).contains(&((word & TIME).wrapping_sub(now) & TIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    fn at(now: u64, until: u64) -> (Duration, Duration) {
        (Duration::from_secs(now), Duration::from_secs(until))
    }

    #[test]
    fn a_nonce_is_taken_once_until_it_is_over() {
        let replays = Replays::new(1 << 10, [1, 2]);
        let (now, until) = (1_618_884_473, 1_618_884_773);
        assert_eq!(replays.take("a", "n", at(now, until)), Taken::New);
        assert_eq!(replays.take("a", "n", at(until, until + 300)), Taken::Again);
        assert_eq!(replays.take("a", "n", at(now - 5, until)), Taken::Again, "a worker whose clock is behind");
        assert_eq!(replays.take("b", "n", at(now, until)), Taken::New, "another key's");
        assert_eq!(replays.take("an", "", at(now, until)), Taken::New, "names do not run together");
        assert_eq!(replays.take("a", "n", at(until + 2, until + 300)), Taken::New);
    }

    #[test]
    fn what_is_full_refuses_and_forgets_nothing() {
        let replays = Replays::new(WINDOW, [3, 4]);
        let taken = |n: usize, now| replays.take("k", &n.to_string(), at(now, now + 100));
        assert!((0..WINDOW).all(|n| taken(n, 1_000) == Taken::New));
        assert_eq!(taken(WINDOW, 1_000), Taken::Full);
        assert!((0..WINDOW).all(|n| taken(n, 1_050) == Taken::Again));
        assert_eq!(taken(WINDOW, 1_102), Taken::New, "all are over");
    }

    #[test]
    fn the_next_process_knows_what_is_not_over() {
        let (before, after) = (Replays::new(1 << 8, [7, 8]), Replays::new(1 << 8, [0, 0]));
        for (nonce, until) in [("over", 1_010), ("good", 1_100)] {
            assert_eq!(before.take("k", nonce, at(1_000, until)), Taken::New);
        }
        let left = before.left(Duration::from_secs(1_050));
        assert_eq!(left.words.len(), 1);
        after.take_on(&left, Duration::from_secs(1_050));
        let takes = |table: &Replays, nonce| table.take("k", nonce, at(1_050, 1_100));
        assert_eq!(["good", "over", "new"].map(|it| takes(&after, it)), [Taken::Again, Taken::New, Taken::New]);
        let other = Replays::new(1 << 7, [1, 2]);
        other.take_on(&left, Duration::from_secs(1_050));
        assert_eq!(takes(&other, "good"), Taken::New, "another size means nothing");
    }

    #[test]
    fn what_a_shorter_life_has_forgotten_is_not_taken_again() {
        let secs = Duration::from_secs;
        let replays = Replays::new(1 << 8, [7, 8]);
        replays.keep_for(secs(90), secs(1_000));
        assert_eq!((replays.life(), replays.may_have_forgotten(secs(1), secs(2_000))), (secs(90), false));
        // a reload says longer: what was made before it is good for as long as it was
        replays.keep_for(secs(3_600), secs(2_000));
        for (created, now, forgotten) in [
            (1_950, 2_001, false),
            (1_910, 2_001, true),
            (1_950, 2_039, false),
            (1_950, 2_040, true),
            (2_020, 2_110, true),
            (2_091, 3_000, false),
        ] {
            assert_eq!(replays.may_have_forgotten(secs(created), secs(now)), forgotten, "{created} at {now}");
        }
        // and shorter, and longer again, while that may still be asked for: the shortest counts
        replays.keep_for(secs(30), secs(2_010));
        replays.keep_for(secs(7_200), secs(2_020));
        assert!(
            replays.may_have_forgotten(secs(2_015), secs(2_045))
                && !replays.may_have_forgotten(secs(2_015), secs(2_044))
        );
        // a process that goes on with it knows as much
        let (left, next) = (replays.left(secs(9_000)), Replays::new(1 << 8, [0, 0]));
        next.keep_for(secs(9_000), secs(9_000));
        next.take_on(&left, secs(9_001));
        assert!(
            next.may_have_forgotten(secs(1_500), secs(9_002)) && !next.may_have_forgotten(secs(8_000), secs(9_002))
        );
        // what is over, or further away than can be good, takes no place
        for until in [2_000, 100_000] {
            assert_eq!([0; 2].map(|_| replays.take("k", "far", at(3_000, until))), [Taken::New; 2]);
        }
    }

    #[test]
    fn more_than_half_of_a_table_is_in_use_before_it_refuses() {
        for seed in 0..4 {
            println!("seed {seed}");
            let places = 1 << 14;
            let replays = Replays::new(places, [seed, !seed]);
            let taken = (0..places).take_while(|n| replays.take("k", &n.to_string(), at(9, 99)) == Taken::New).count();
            assert!(taken > places / 2, "{taken} of {places}");
        }
    }

    #[test]
    fn no_two_threads_take_the_same_nonce() {
        const THREADS: usize = 4;
        const NONCES: usize = 2_000;
        let replays = Replays::new(1 << 13, [5, 6]);
        let (barrier, taken) = (Barrier::new(THREADS), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for n in 0..NONCES {
                        if n % 100 == 0 {
                            barrier.wait();
                        }
                        if replays.take("k", &n.to_string(), at(9, 99)) == Taken::New {
                            taken.fetch_add(1, SeqCst);
                        }
                    }
                });
            }
        });
        let taken = taken.into_inner();
        assert!(taken <= NONCES, "{taken}");
        assert!((0..NONCES).all(|n| replays.take("k", &n.to_string(), at(9, 99)) == Taken::Again));
    }
}
