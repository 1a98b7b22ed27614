//! Connections or requests of each client at once, over all cores: a bounded table of counters that no worker waits for long.
//!
//! Intuition: a client that has no connection needs no entry, so the table only has to hold who is connected, and its size follows
//! from the listener's `max_connections`. An entry is one word: 40 bits that tell clients apart and a count. A client lives in the
//! cache line that its hash names, which has seven entries and a gate. Counting up is a compare-and-swap, counting down a
//! subtraction, on a word that cannot change hands while its count is above zero. Only a client's first connection takes the line's
//! gate, so that one client never gets two entries.
//!
//! What it does not do: refuse a client because seven others fill its line (one line in a thousand when the table is as full as it
//! gets). Such a connection is not counted: `max_connections` still bounds it, and hashes have a secret, so nobody can aim for it.
//! The count is exact otherwise, whichever cores the connections land on.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use zerocopy::FromZeros as _;

/// Words of a line: the gate, then entries.
const LINE: usize = 8;
/// Bits of an entry that count; the rest tell clients apart.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// Tries before a connection is left uncounted; each is a few instructions of somebody else's.
const TRIES: u32 = 4_096;
/// Lines of the largest table: 64 MiB of address space, of which only what is used is backed by memory.
const LINES_MAX: usize = 1 << 20;

/// A table of counters by hash. `Send + Sync`, used by `&self`.
#[derive(Debug)]
pub struct SlotTable {
    words: Box<[AtomicU64]>,
    /// Where the first line begins: on a cache line's boundary.
    first: usize,
    mask: u64,
}

/// The table of one listener. `Send + Sync`, used by `&self`.
#[derive(Debug)]
pub struct ClientSlots {
    table: SlotTable,
    limit: u32,
    secret: RandomState,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It has a slot, to be [released](ClientSlots::release) once.
    Slot(usize),
    /// Its client cannot be counted now; it may stay.
    Uncounted,
    /// Its client has as many as it may.
    Refused,
}

impl ClientSlots {
    /// `limit` connections for each client of a listener that takes `connections_max` in all. `secret` must be random.
    ///
    /// # Panics
    /// When `limit` is zero or does not fit an entry, or there is no memory for the table.
    #[must_use]
    pub fn new(limit: u32, connections_max: usize, secret: RandomState) -> Self {
        assert!(limit > 0 && u64::from(limit) < COUNT, "a count fits its bits");
        Self { table: SlotTable::new(connections_max), limit, secret }
    }

    /// A slot for one more connection of `client`; an IPv6 client is its /64.
    pub fn acquire(&self, client: IpAddr) -> Taken {
        let mut hasher = self.secret.build_hasher();
        match client.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()[..8]),
        }
        self.table.acquire(hasher.finish(), self.limit)
    }

    /// Gives a slot back, as [`SlotTable::release`].
    pub fn release(&self, slot: usize) {
        self.table.release(slot);
    }
}

impl SlotTable {
    /// An empty one, in which so many counters that are not zero hardly ever fill a line.
    ///
    /// # Panics
    /// When there is no memory for the table.
    #[must_use]
    pub fn new(held_max: usize) -> Self {
        let lines = (held_max / 2).next_power_of_two().min(LINES_MAX);
        let words =
            <[AtomicU64]>::new_box_zeroed_with_elems((lines + 1) * LINE).expect("memory for a table of clients");
        let first = words.as_ptr().align_offset(LINE * size_of::<AtomicU64>());
        assert!(first < LINE, "words are aligned to themselves");
        Self { words, first, mask: lines as u64 - 1 }
    }

    /// A slot for one more of those that have this hash, which must have a secret; `limit` is at most 2^24 - 2.
    pub fn acquire(&self, hash: u64, limit: u32) -> Taken {
        // the line comes from the low bits, the name from the high ones: twenty and forty of sixty-four
        let start = self.first + (hash & self.mask) as usize * LINE;
        let name = hash & !COUNT;
        for _ in 0..TRIES {
            if let Some(taken) = self.count_up(start, name, limit.into()).or_else(|| self.insert(start, name)) {
                return taken;
            }
            std::hint::spin_loop();
        }
        Taken::Uncounted
    }

    /// Gives a slot back.
    ///
    /// # Panics
    /// In debug builds, when it was not taken.
    pub fn release(&self, slot: usize) {
        let before = self.words[slot].fetch_sub(1, Ordering::Release);
        debug_assert!(before & COUNT > 0, "each slot is released once");
    }

    /// One more for a client that has an entry; `None`: it has none, or it just changed.
    fn count_up(&self, start: usize, name: u64, limit: u64) -> Option<Taken> {
        let (slot, word) = self.find(start, name)?;
        if word & COUNT >= limit {
            return Some(Taken::Refused);
        }
        let swapped = self.words[slot].compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed);
        swapped.is_ok().then_some(Taken::Slot(slot))
    }

    /// The first one of a client; `None`: try again.
    fn insert(&self, start: usize, name: u64) -> Option<Taken> {
        let gate = &self.words[start];
        gate.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        // behind the gate no entry of this line begins: a free one stays free, and a client that has none gets none
        let taken = if self.find(start, name).is_some() {
            None
        } else {
            let free = (start + 1..start + LINE).find(|&slot| self.words[slot].load(Ordering::Acquire) & COUNT == 0);
            Some(free.map_or(Taken::Uncounted, |slot| {
                self.words[slot].store(name | 1, Ordering::Release);
                Taken::Slot(slot)
            }))
        };
        gate.store(0, Ordering::Release);
        taken
    }

    fn find(&self, start: usize, name: u64) -> Option<(usize, u64)> {
        let words = (start + 1..start + LINE).map(|slot| (slot, self.words[slot].load(Ordering::Acquire)));
        words.into_iter().find(|(_, word)| word & COUNT > 0 && word & !COUNT == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    fn slot(taken: Taken) -> usize {
        match taken {
            Taken::Slot(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_client_has_its_own_limit_and_gets_a_slot_back() {
        let slots = ClientSlots::new(2, 1_000, RandomState::new());
        let first = slot(slots.acquire(v4(1)));
        slot(slots.acquire(v4(1)));
        assert_eq!(slots.acquire(v4(1)), Taken::Refused);
        slot(slots.acquire(v4(2)));
        slots.release(first);
        slot(slots.acquire(v4(1)));
        assert_eq!(slots.acquire(v4(1)), Taken::Refused);
    }

    #[test]
    fn an_ipv6_client_is_its_network_and_a_mapped_address_is_ipv4() {
        let slots = ClientSlots::new(1, 10, RandomState::new());
        let v6 = |text: &str| IpAddr::from(text.parse::<Ipv6Addr>().unwrap());
        slot(slots.acquire(v6("2001:db8::1")));
        assert_eq!(slots.acquire(v6("2001:db8::ffff:0:0:1")), Taken::Refused);
        slot(slots.acquire(v6("2001:db8:0:1::1")));
        slot(slots.acquire(v4(0x0102_0304)));
        assert_eq!(slots.acquire(v6("::ffff:1.2.3.4")), Taken::Refused);
    }

    #[test]
    fn a_line_that_is_full_counts_no_more_clients_and_refuses_none() {
        let slots = ClientSlots::new(1, 1, RandomState::new());
        let taken: Vec<_> = (0..7).map(|n| slot(slots.acquire(v4(n)))).collect();
        assert_eq!(slots.acquire(v4(7)), Taken::Uncounted);
        assert_eq!(slots.acquire(v4(3)), Taken::Refused, "who is in it still is counted");
        slots.release(taken[5]);
        slot(slots.acquire(v4(7)));
        assert_eq!(slots.acquire(v4(7)), Taken::Refused);
        slot_is_free_for_nobody(&slots);
    }

    fn slot_is_free_for_nobody(slots: &ClientSlots) {
        assert_eq!(slots.acquire(v4(100)), Taken::Uncounted);
    }

    #[test]
    fn no_interleaving_gives_a_client_more_than_its_limit() {
        let slots = ClientSlots::new(3, 4, RandomState::new());
        let held: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for worker in 0..4_u32 {
                let (slots, held) = (&slots, &held);
                scope.spawn(move || {
                    for turn in 0..20_000_u32 {
                        let client = (turn.wrapping_mul(2_654_435_761) >> 16).wrapping_add(worker) % 5;
                        if let Taken::Slot(slot) = slots.acquire(v4(client)) {
                            let before = held[client as usize].fetch_add(1, Ordering::SeqCst);
                            assert!(before < 3, "client {client} holds {before} and got one more");
                            held[client as usize].fetch_sub(1, Ordering::SeqCst);
                            slots.release(slot);
                        }
                    }
                });
            }
        });
        for client in 0..5 {
            for _ in 0..3 {
                slot(slots.acquire(v4(client)));
            }
            assert_eq!(slots.acquire(v4(client)), Taken::Refused, "everything was given back");
        }
    }
}
