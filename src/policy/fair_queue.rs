//! A queue in which nobody waits for another client's pile: its turns go round the clients that wait.
//!
//! Intuition: an item's round is the one after the last of its client that waits, or after the one that is served now. Who comes first within the
//! lowest round is next, so somebody with one item waits for at most two of each other client's, however many they have, and nobody who comes again and
//! again overtakes who waits. When there is no room, the last of the highest round gives way to an item of a lower one. (Start-time fair
//! queueing, Goyal, Vin and Cheng 1996, with items of one size.)
//!
//! A client is an address of IPv4, or a /64 of IPv6, which one customer commonly has whole. What it does not do: know what an item costs, or forget
//! by itself what nobody wants any more; who owns the queue says so.

use std::net::{IpAddr, Ipv6Addr};

/// See the module.
#[derive(Debug)]
pub struct FairQueue<T> {
    /// In the order of arrival.
    waiting: Vec<Waiting<T>>,
    /// The round that is served.
    round: u64,
    items_max: usize,
    share_max: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    client: IpAddr,
    round: u64,
    item: T,
}

/// What has become of an item that was to wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    /// It waits.
    Waits,
    /// It waits in the place of this one.
    InPlaceOf(T),
    /// There is no room for it.
    Refused(T),
}

impl<T> FairQueue<T> {
    /// Of at most `items_max`, of which one client has at most `share_max`; all memory that it will need is taken now.
    ///
    /// # Panics
    /// When one of the two is zero.
    #[must_use]
    pub fn new(items_max: usize, share_max: usize) -> Self {
        assert!(items_max > 0 && share_max > 0, "something can wait");
        Self { waiting: Vec::with_capacity(items_max), round: 0, items_max, share_max }
    }

    /// Has an item of a client wait.
    pub fn push(&mut self, client: IpAddr, item: T) -> Pushed<T> {
        let client = network(client);
        let own = self.waiting.iter().filter(|other| other.client == client).map(|other| other.round);
        if own.clone().count() >= self.share_max {
            return Pushed::Refused(item);
        }
        let waiting = Waiting { client, round: own.max().unwrap_or(self.round) + 1, item };
        if self.waiting.len() < self.items_max {
            self.waiting.push(waiting);
            return Pushed::Waits;
        }
        // of several the one that came last
        let last = (0..self.waiting.len()).max_by_key(|row| (self.waiting[*row].round, *row));
        match last.filter(|row| self.waiting[*row].round > waiting.round) {
            Some(row) => {
                let gone = self.waiting.remove(row);
                self.waiting.push(waiting);
                Pushed::InPlaceOf(gone.item)
            }
            None => Pushed::Refused(waiting.item),
        }
    }

    /// The next one.
    pub fn pop(&mut self) -> Option<T> {
        let next = (0..self.waiting.len()).min_by_key(|row| (self.waiting[*row].round, *row))?;
        let next = self.waiting.remove(next);
        self.round = next.round;
        Some(next.item)
    }

    #[cfg(test)]
    fn rounds(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().map(|waiting| waiting.round)
    }

    /// Takes out one that is not wanted any more, if there is one.
    pub fn take_unwanted(&mut self, is_wanted: impl Fn(&T) -> bool) -> Option<T> {
        let row = self.waiting.iter().position(|waiting| !is_wanted(&waiting.item))?;
        Some(self.waiting.remove(row).item)
    }
}

/// The one that stands for a client.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rng;
    use rand::{RngExt as _, SeedableRng as _};

    fn client(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn who_comes_with_one_waits_for_two_of_each_other_at_most() {
        let mut queue = FairQueue::new(64, 8);
        for other in 1..=3 {
            for n in 0..8 {
                assert_eq!(queue.push(client(other), (other, n)), Pushed::Waits);
            }
            assert_eq!(queue.push(client(other), (other, 8)), Pushed::Refused((other, 8)));
        }
        assert_eq!(queue.pop(), Some((1, 0)));
        assert_eq!(queue.push(client(9), (9, 0)), Pushed::Waits);
        let next: Vec<_> = (0..4).map(|_| queue.pop().unwrap()).collect();
        assert_eq!(
            next,
            [(2, 0), (3, 0), (1, 1), (2, 1)],
            "what is left of this round, and of the next what came before"
        );
        // whoever fills it up again and again stays behind who has not been served
        assert_eq!(queue.push(client(1), (1, 9)), Pushed::Waits);
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let at = |item| rest.iter().position(|other| *other == item).unwrap();
        assert!(at((9, 0)) == 1 && at((1, 9)) == rest.len() - 1, "{rest:?}");
    }

    #[test]
    fn when_it_is_full_who_has_most_gives_way() {
        let mut queue = FairQueue::new(4, 4);
        for n in 0..4 {
            assert_eq!(queue.push(client(1), (1, n)), Pushed::Waits);
        }
        assert_eq!(queue.push(client(2), (2, 0)), Pushed::InPlaceOf((1, 3)));
        assert_eq!(queue.push(client(3), (3, 0)), Pushed::InPlaceOf((1, 2)));
        assert_eq!(queue.push(client(2), (2, 1)), Pushed::Refused((2, 1)), "another round is no lower one");
        assert_eq!(queue.push(client(4), (4, 0)), Pushed::InPlaceOf((1, 1)));
        assert_eq!(queue.push(client(5), (5, 0)), Pushed::Refused((5, 0)), "all have one");
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [(1, 0), (2, 0), (3, 0), (4, 0)]);
    }

    #[test]
    fn a_client_is_its_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), client(1));
        assert_ne!(client(1), client(2));
    }

    #[test]
    fn what_nobody_wants_leaves_its_place() {
        let mut queue = FairQueue::new(2, 2);
        let _ = (queue.push(client(1), 1), queue.push(client(1), 2));
        assert_eq!(queue.take_unwanted(|n| *n != 1), Some(1));
        assert_eq!(queue.take_unwanted(|n| *n != 1), None);
        assert_eq!(queue.push(client(1), 3), Pushed::Waits);
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(3), None));
    }

    /// Every item that went in comes out once, no client has more than its share, and nobody is overtaken by more than one of each other client's.
    #[test]
    fn whatever_comes_nothing_is_lost_and_nobody_waits_long() {
        for seed in 0..200 {
            let mut rng = Rng::seed_from_u64(seed);
            let (items_max, share_max) = (rng.random_range(1..20), rng.random_range(1..6));
            let mut queue = FairQueue::new(items_max, share_max);
            let (mut inside, mut next) = (std::collections::BTreeSet::new(), 0_u32);
            for _ in 0..300 {
                let of = rng.random_range(0..8_u8);
                if rng.random_bool(0.6) {
                    next += 1;
                    match queue.push(client(of), (of, next)) {
                        Pushed::Waits => assert!(inside.insert((of, next))),
                        Pushed::InPlaceOf(gone) => {
                            assert!(inside.remove(&gone) && inside.insert((of, next)));
                            assert_ne!(gone.0, of, "nobody makes room for himself");
                        }
                        Pushed::Refused(item) => assert_eq!(item, (of, next)),
                    }
                } else if let Some(item) = queue.pop() {
                    assert!(inside.remove(&item), "seed {seed}");
                    assert!(
                        !inside.iter().any(|(other, n)| *other == item.0 && *n < item.1),
                        "a client's own in order"
                    );
                }
                assert!(inside.len() <= items_max && queue.rounds().all(|round| round >= queue.round), "seed {seed}");
                assert!((0..8).all(|one| inside.iter().filter(|(other, _)| *other == one).count() <= share_max));
            }
        }
    }
}
