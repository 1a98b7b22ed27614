//! Who uses which route how much: the heaviest (route, client) pairs of each worker, in bounded memory.
//!
//! A worker follows at most [`limits::USAGE_CLIENTS`] pairs by space saving: a pair it has no room for takes the place of the one
//! with the smallest weight and inherits that weight. Whoever is responsible for more than one part in `USAGE_CLIENTS` of a worker's
//! load is therefore always in the table, however many clients come and go. The weight of a request is 1, plus 1 for each
//! 16 KiB it moved and each 8 ms it took, so that heavy users by any of the measures stay. Numbers shown are what was counted
//! since the pair entered the table: never too high, and too low only for pairs that were pushed out in between.
//!
//! Finding a pair is one hash lookup. The smallest weight comes from a heap that is only put in order when a pair must go: entries
//! whose weight has grown since are sunk first, so a request of a known pair costs no heap work.
//!
//! The table's slots are atomics with one writer; a slot's version is odd while its pair is being replaced, and a reader that sees
//! it odd or changed looks again (a seqlock), so that no client is ever shown another one's numbers.
//!
//! What this does not do: exact totals per client over all time. Totals per route are exact and stand in [`super::stats`].
//!
//! Source: Metwally, Agrawal, El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams" (2005).

use super::counter::{Arena, Counter};
use crate::limits;
use crate::units::RouteId;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// Whom a request is counted for. IPv6 clients count by /64, as rate limits have it: one household, one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientKey {
    /// Came through a unix socket, or its address is not known.
    None,
    /// An IPv4 address, also one that came mapped into IPv6.
    V4(Ipv4Addr),
    /// The upper 64 bits of an IPv6 address.
    V6(u64),
}

impl From<Option<IpAddr>> for ClientKey {
    fn from(address: Option<IpAddr>) -> Self {
        match address.map(|address| address.to_canonical()) {
            None => Self::None,
            Some(IpAddr::V4(v4)) => Self::V4(v4),
            Some(IpAddr::V6(v6)) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("-"),
            Self::V4(v4) => v4.fmt(f),
            Self::V6(prefix) => write!(f, "{}/64", Ipv6Addr::from_bits(u128::from(*prefix) << 64)),
        }
    }
}

/// One pair that is followed: a route (`None`: requests that matched none) and who uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey {
    /// The route.
    pub route: Option<RouteId>,
    /// The client.
    pub client: ClientKey,
    /// The number of the consumer's name; 0: nobody was recognised.
    pub consumer: u64,
}

impl UsageKey {
    /// Three words: route and address family, address, consumer. A route's number is stored plus one, so the pair of a slot that was never
    /// filled reads as "no route, no client".
    fn pack(self) -> [u64; 3] {
        let (family, address) = match self.client {
            ClientKey::None => (0, 0),
            ClientKey::V4(v4) => (1, u64::from(v4.to_bits())),
            ClientKey::V6(prefix) => (2, prefix),
        };
        [family << 40 | self.route.map_or(0, |route| u64::from(route.0) + 1), address, self.consumer]
    }

    fn unpack([head, address, consumer]: [u64; 3]) -> Self {
        let client = match head >> 40 {
            0 => ClientKey::None,
            // The low half is all there is of an IPv4 address.
            1 => ClientKey::V4(Ipv4Addr::from_bits(address as u32)),
            _ => ClientKey::V6(address),
        };
        // Bits 0 to 39 hold a u32 plus one.
        let route = (head & 0xff_ffff_ffff).checked_sub(1).map(|id| RouteId(id as u32));
        Self { route, client, consumer }
    }
}

/// What a pair, or a route, has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests answered or broken off.
    pub requests: u64,
    /// Of these, the ones with a status of 400 or above.
    pub errors: u64,
    /// Bytes of request and response, heads included.
    pub bytes: u64,
    /// Time from the first byte of the request to the end of its response, added up, in nanoseconds.
    pub latency_nanos: u64,
}

impl Usage {
    /// Adds `other`'s numbers.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.wrapping_add(other.requests);
        self.errors = self.errors.wrapping_add(other.errors);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.latency_nanos = self.latency_nanos.wrapping_add(other.latency_nanos);
    }

    /// How much of the table's attention it deserves: a request, 16 KiB and 8 ms (2^23 ns) weigh the same.
    fn weight(&self) -> u64 {
        self.requests + (self.bytes >> 14) + (self.latency_nanos >> 23)
    }

    /// The number that `by` ranks.
    #[must_use]
    pub fn measure(&self, by: UsageBy) -> u64 {
        match by {
            UsageBy::Requests => self.requests,
            UsageBy::Errors => self.errors,
            UsageBy::Bytes => self.bytes,
            UsageBy::Latency => self.latency_nanos,
        }
    }
}

/// What a list of pairs is ranked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageBy {
    /// Number of requests.
    Requests,
    /// Number of requests that failed.
    Errors,
    /// Bytes moved.
    Bytes,
    /// Time taken, summed.
    Latency,
}

impl UsageBy {
    /// The query's words: `requests`, `errors`, `bytes`, `latency`.
    #[must_use]
    pub fn from_token(token: &str) -> Option<Self> {
        Some(match token {
            "requests" => Self::Requests,
            "errors" => Self::Errors,
            "bytes" => Self::Bytes,
            "latency" => Self::Latency,
            _ => return None,
        })
    }
}

/// One followed pair, as it lies in the worker's memory.
#[derive(Debug, Default)]
struct Slot {
    /// Even: at rest. Odd: the pair is being replaced.
    version: AtomicU64,
    key: [AtomicU64; 3],
    usage: [Counter; 4],
}

impl Slot {
    fn key(&self) -> [u64; 3] {
        [0, 1, 2].map(|word: usize| self.key[word].load(Relaxed))
    }

    fn usage(&self) -> Usage {
        let [requests, errors, bytes, latency_nanos] = [0, 1, 2, 3].map(|field: usize| self.usage[field].get());
        Usage { requests, errors, bytes, latency_nanos }
    }

    fn add(&self, usage: &Usage) {
        let fields = [usage.requests, usage.errors, usage.bytes, usage.latency_nanos];
        self.usage.iter().zip(fields).for_each(|(counter, n)| counter.add(n));
    }

    /// Gives the slot to another pair.
    fn replace(&self, key: [u64; 3]) {
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        // No store below may be seen before the odd version is.
        fence(Release);
        self.key.iter().zip(key).for_each(|(word, value)| word.store(value, Relaxed));
        self.usage.iter().for_each(|counter| counter.set(0));
        self.version.store(version + 2, Release);
    }

    /// Pair and numbers that belong together; `None` when the writer kept replacing them.
    fn read(&self) -> Option<(UsageKey, Usage)> {
        (0..8).find_map(|_| {
            let version = self.version.load(Acquire);
            let (key, usage) = (self.key(), self.usage());
            // The loads above must be over before the version is looked at again.
            fence(Acquire);
            (version.is_multiple_of(2) && self.version.load(Relaxed) == version).then(|| (UsageKey::unpack(key), usage))
        })
    }
}

/// The slots of one worker: what the control thread reads.
#[derive(Debug)]
pub(crate) struct UsageTable(Arena<Slot, CHUNK>);

/// Pairs that are allocated at a time.
const CHUNK: usize = 256;

impl UsageTable {
    /// An empty table for at most `pairs_max` pairs.
    pub(crate) fn new(pairs_max: usize) -> Self {
        Self(Arena::new(pairs_max))
    }

    /// Adds every pair to `sums`.
    pub(crate) fn sum_into(&self, sums: &mut HashMap<UsageKey, Usage>) {
        for (key, usage) in self.0.iter().filter_map(Slot::read) {
            sums.entry(key).or_default().add(&usage);
        }
    }
}

/// Multiplies and folds (as wyhash does) from a secret start, so that clients cannot choose addresses that collide.
#[derive(Clone, Debug)]
struct SecretState(u64);

struct FoldHasher(u64);

impl BuildHasher for SecretState {
    type Hasher = FoldHasher;

    fn build_hasher(&self) -> FoldHasher {
        FoldHasher(self.0)
    }
}

impl Hasher for FoldHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The words as a key of the index: hashed word by word, without the length that a slice would add.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Packed([u64; 3]);

impl std::hash::Hash for Packed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.into_iter().for_each(|word| state.write_u64(word));
    }
}

/// The worker's own side of its [`UsageTable`]: where each pair is, and which one goes next.
pub(crate) struct UsageIndex {
    slots: HashMap<Packed, u32, SecretState>,
    /// Weight of each slot now.
    weights: Vec<u64>,
    /// Weight of each slot when it was last looked at: never more than it is now, so the smallest is found by sinking what grew.
    lightest: BinaryHeap<Reverse<(u64, u32)>>,
}

impl UsageIndex {
    /// The index of `table` as it stands: empty at first, or what the worker's last life left. `secret` is not for clients to know.
    pub(crate) fn new(table: &UsageTable, pairs_max: usize, secret: u64) -> Self {
        // Twice the room: then removals are cleaned up in place and the map never allocates again.
        let slots = HashMap::with_capacity_and_hasher(2 * pairs_max, SecretState(secret));
        let mut index =
            Self { slots, weights: Vec::with_capacity(pairs_max), lightest: BinaryHeap::with_capacity(pairs_max) };
        for slot in table.0.iter() {
            index.push(Packed(slot.key()), slot.usage().weight());
        }
        index
    }

    fn push(&mut self, key: Packed, weight: u64) {
        let slot = u32::try_from(self.weights.len()).expect("limits bound the table");
        self.slots.insert(key, slot);
        self.weights.push(weight);
        self.lightest.push(Reverse((weight, slot)));
    }

    /// Counts `usage` for `key`: O(1) for a pair that is known, O(log n) amortised for one that is not.
    pub(crate) fn record(&mut self, table: &UsageTable, key: UsageKey, usage: &Usage) {
        let key = Packed(key.pack());
        let weight = usage.weight();
        if let Some(&slot) = self.slots.get(&key) {
            self.weights[slot as usize] += weight;
            table.0.slot(slot as usize).add(usage);
            return;
        }
        let appended = table.0.append(|slot| {
            slot.replace(key.0);
            slot.add(usage);
        });
        if appended.is_some() {
            self.push(key, weight);
        } else {
            self.take_over(table, key, usage, weight);
        }
    }

    /// Replaces the lightest pair by a new one, which inherits its weight.
    fn take_over(&mut self, table: &UsageTable, key: Packed, usage: &Usage, weight: u64) {
        while let Some(mut lightest) = self.lightest.peek_mut() {
            let Reverse((seen, slot)) = *lightest;
            let now = self.weights[slot as usize];
            if now != seen {
                // Changing the top through `PeekMut` sinks it to its place.
                *lightest = Reverse((now, slot));
                continue;
            }
            *lightest = Reverse((now + weight, slot));
            self.weights[slot as usize] = now + weight;
            let old = table.0.slot(slot as usize);
            self.slots.remove(&Packed(old.key()));
            self.slots.insert(key, slot);
            old.replace(key.0);
            old.add(usage);
            return;
        }
    }
}

/// The `top` pairs or routes of `sums` by `by`, largest first, without those that measure 0; equal ones in the order of their keys. At
/// most [`limits::USAGE_TOP_MAX`].
#[must_use]
pub fn top<K: Copy + Ord>(sums: impl IntoIterator<Item = (K, Usage)>, by: UsageBy, top: usize) -> Vec<(K, Usage)> {
    let mut pairs: Vec<_> = sums.into_iter().filter(|(_, usage)| usage.measure(by) > 0).collect();
    pairs.sort_unstable_by_key(|(key, usage)| (Reverse(usage.measure(by)), *key));
    pairs.truncate(top.min(limits::USAGE_TOP_MAX));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rng;
    use rand::{RngExt, SeedableRng};

    fn key(route: u32, client: &str) -> UsageKey {
        UsageKey { route: Some(RouteId(route)), client: Some(client.parse().unwrap()).into(), consumer: 0 }
    }

    fn one(bytes: u64) -> Usage {
        Usage { requests: 1, errors: 0, bytes, latency_nanos: 0 }
    }

    fn sums(table: &UsageTable) -> HashMap<UsageKey, Usage> {
        let mut sums = HashMap::new();
        table.sum_into(&mut sums);
        sums
    }

    #[test]
    fn ipv6_clients_count_by_their_64_and_mapped_ipv4_as_ipv4() {
        assert_eq!(key(0, "2001:db8:1:2::5"), key(0, "2001:db8:1:2:ffff::1"));
        assert_ne!(key(0, "2001:db8:1:2::5"), key(0, "2001:db8:1:3::5"));
        assert_eq!(key(0, "::ffff:192.0.2.1"), key(0, "192.0.2.1"));
        assert_eq!(key(0, "2001:db8:1:2::5").client.to_string(), "2001:db8:1:2::/64");
        assert_eq!(ClientKey::from(None).to_string(), "-");
    }

    #[test]
    fn packing_keeps_the_key() {
        let keys = [
            key(0, "0.0.0.0"),
            key(99_999, "255.255.255.255"),
            key(u32::MAX, "ffff::"),
            key(1, "::"),
            UsageKey { route: None, client: ClientKey::None, consumer: 0 },
            UsageKey { route: None, client: ClientKey::V4(Ipv4Addr::new(10, 0, 0, 1)), consumer: 0 },
        ];
        for key in keys {
            assert_eq!(UsageKey::unpack(key.pack()), key);
        }
    }

    #[test]
    fn counts_are_exact_while_the_table_has_room() {
        let table = UsageTable::new(8);
        let mut index = UsageIndex::new(&table, 8, 1);
        for _ in 0..3 {
            index.record(&table, key(1, "10.0.0.1"), &one(100));
        }
        index.record(&table, key(2, "10.0.0.1"), &Usage { requests: 1, errors: 1, bytes: 7, latency_nanos: 9 });
        let sums = sums(&table);
        assert_eq!(sums.len(), 2);
        assert_eq!(sums[&key(1, "10.0.0.1")], Usage { requests: 3, errors: 0, bytes: 300, latency_nanos: 0 });
        assert_eq!(sums[&key(2, "10.0.0.1")], Usage { requests: 1, errors: 1, bytes: 7, latency_nanos: 9 });
    }

    #[test]
    fn heavy_clients_stay_among_a_million_light_ones() {
        const PAIRS: usize = 256;
        let seed = 0x5eed_0001;
        println!("seed {seed:#x}");
        let mut rng = Rng::seed_from_u64(seed);
        let table = UsageTable::new(PAIRS);
        let mut index = UsageIndex::new(&table, PAIRS, seed);
        let (slots, weights, heap) = (index.slots.capacity(), index.weights.capacity(), index.lightest.capacity());
        let (frequent, bulky) = (key(0, "192.0.2.1"), key(0, "192.0.2.2"));
        for n in 0..1_000_000u32 {
            let light = UsageKey { route: Some(RouteId(0)), client: ClientKey::V6(rng.random()), consumer: 0 };
            index.record(&table, light, &one(10));
            if n % 50 == 0 {
                index.record(&table, frequent, &one(10));
            }
            if n % 10_000 == 0 {
                index.record(&table, bulky, &one(16 << 20));
            }
        }
        let sums = sums(&table);
        assert_eq!(sums.len(), PAIRS);
        assert_eq!(index.slots.len(), PAIRS);
        // A map's capacity shrinks by the places of removed keys until it cleans up; it grows only when it allocates.
        assert!(index.slots.capacity() <= slots, "a million new clients allocate nothing");
        assert_eq!((index.weights.capacity(), index.lightest.capacity()), (weights, heap));
        let seen = sums[&frequent].requests;
        assert!((19_000..=20_000).contains(&seen), "{seen}");
        let bulk = sums[&bulky].bytes;
        assert!((95 * (16 << 20)..=100 * (16 << 20)).contains(&bulk), "{bulk}");
        assert_eq!(top(sums, UsageBy::Bytes, 1)[0].0, bulky);
    }

    #[test]
    fn the_lightest_pair_goes_first_even_when_its_heap_entry_is_stale() {
        let table = UsageTable::new(2);
        let mut index = UsageIndex::new(&table, 2, 1);
        index.record(&table, key(0, "10.0.0.1"), &one(0));
        index.record(&table, key(0, "10.0.0.2"), &one(0));
        index.record(&table, key(0, "10.0.0.1"), &one(0));
        index.record(&table, key(0, "10.0.0.3"), &one(0));
        let sums = sums(&table);
        assert!(sums.contains_key(&key(0, "10.0.0.1")) && sums.contains_key(&key(0, "10.0.0.3")));
        assert!(!sums.contains_key(&key(0, "10.0.0.2")));
    }

    #[test]
    fn a_restarted_worker_goes_on_with_the_table_it_left() {
        let table = UsageTable::new(4);
        let mut first = UsageIndex::new(&table, 4, 1);
        first.record(&table, key(0, "10.0.0.1"), &one(5));
        let mut second = UsageIndex::new(&table, 4, 1);
        second.record(&table, key(0, "10.0.0.1"), &one(5));
        assert_eq!(sums(&table)[&key(0, "10.0.0.1")].requests, 2);
    }

    #[test]
    fn a_reader_never_sees_one_client_with_another_s_numbers() {
        // Client n always moves n bytes a request, so any mixture shows.
        let table = UsageTable::new(2);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut index = UsageIndex::new(&table, 2, 1);
                for n in 0..200_000u32 {
                    let client = 1 + n % 5;
                    let key = UsageKey { route: None, client: ClientKey::V4(Ipv4Addr::from_bits(client)), consumer: 0 };
                    index.record(
                        &table,
                        key,
                        &Usage { requests: 0, errors: 0, bytes: u64::from(client), latency_nanos: 0 },
                    );
                }
                done.store(true, Release);
            });
            while !done.load(Acquire) {
                for (key, usage) in sums(&table) {
                    let ClientKey::V4(client) = key.client else { panic!("only IPv4 clients were recorded: {key:?}") };
                    assert_eq!(usage.bytes % u64::from(client.to_bits()), 0, "{key:?} {usage:?}");
                }
            }
        });
    }

    #[test]
    fn top_ranks_by_the_measure_and_leaves_out_zeros() {
        let mut sums = HashMap::new();
        sums.insert(key(0, "10.0.0.1"), Usage { requests: 5, errors: 0, bytes: 1, latency_nanos: 9 });
        sums.insert(key(0, "10.0.0.2"), Usage { requests: 2, errors: 2, bytes: 9, latency_nanos: 1 });
        assert_eq!(top(sums.clone(), UsageBy::Requests, 9)[0].0, key(0, "10.0.0.1"));
        assert_eq!(top(sums.clone(), UsageBy::Errors, 9).len(), 1);
        assert_eq!(top(sums.clone(), UsageBy::Bytes, 1), vec![(key(0, "10.0.0.2"), sums[&key(0, "10.0.0.2")])]);
        assert_eq!(UsageBy::from_token("latency"), Some(UsageBy::Latency));
        assert_eq!(UsageBy::from_token("Latency"), None);
    }
}
