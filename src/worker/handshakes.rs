//! Places for handshakes with clients: so many on a worker, so many of them for one client.
//!
//! A handshake holds memory and costs a hundred requests' work, so there are [`HANDSHAKES_MAX`] places, and one client has
//! [`HANDSHAKES_PER_CLIENT_MAX`] of them at most: who begins handshakes and never ends them is in his own way only. Whoever finds no place
//! waits for one, within the time that a handshake has; clients that wait get the next free places in turn, whatever each of them has
//! waiting. Nobody is refused for it, because many clients behind one address may come back at the same moment.
//!
//! A place is taken with the first byte of a handshake: a connection on which nothing has come is an idle connection.

use crate::limits::{HANDSHAKES_MAX, HANDSHAKES_PER_CLIENT_MAX};
use std::cell::{Cell, RefCell};
use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The places of a worker.
pub(super) struct Handshakes {
    all_max: usize,
    client_max: usize,
    queues: RefCell<Queues>,
}

#[derive(Default)]
struct Queues {
    under_way: usize,
    /// Given to who waits, to tell them apart and to keep their order.
    last: u64,
    clients: HashMap<Client, Of>,
    /// Clients of which somebody waits and may begin, but for the worker's number.
    next: VecDeque<Client>,
}

/// Whose handshakes are counted together; `None`: nobody's, since all peers of a unix socket or a trusted proxy would be one.
type Client = Option<IpAddr>;

/// What one client has.
#[derive(Default)]
struct Of {
    under_way: usize,
    waiting: BTreeMap<u64, Rc<Wait>>,
    is_next: bool,
}

/// Somebody who waits.
#[derive(Default)]
struct Wait {
    is_over: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

/// A handshake that has its place, or waits for one; dropping it gives either back.
pub(super) struct Place<'h> {
    handshakes: &'h Handshakes,
    client: Client,
    /// Its number among those who wait, until it has a place.
    waits: Option<(u64, Rc<Wait>)>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self::new(HANDSHAKES_MAX, HANDSHAKES_PER_CLIENT_MAX)
    }
}

impl Handshakes {
    fn new(all_max: usize, client_max: usize) -> Self {
        Self { all_max, client_max, queues: RefCell::default() }
    }

    /// A place for one more of `client`, an IPv6 client being its /64, or a place in its queue. `None`: those who are not counted by client.
    pub(super) fn enter(&self, client: Option<IpAddr>) -> Place<'_> {
        let client = client.map(network);
        let mut queues = self.queues.borrow_mut();
        let is_full = queues.under_way >= self.all_max;
        queues.last += 1;
        let number = queues.last;
        let of = queues.clients.entry(client).or_default();
        let may_begin = client.is_none() || of.under_way < self.client_max;
        let waits = if is_full || !may_begin || !of.waiting.is_empty() {
            let wait = Rc::new(Wait::default());
            of.waiting.insert(number, Rc::clone(&wait));
            Some((number, wait))
        } else {
            of.under_way += 1;
            queues.under_way += 1;
            None
        };
        if waits.is_some() {
            queues.line_up(client, self.client_max);
        }
        drop(queues);
        self.call();
        Place { handshakes: self, client, waits }
    }

    /// Gives free places to those who wait.
    fn call(&self) {
        let mut queues = self.queues.borrow_mut();
        while queues.under_way < self.all_max {
            let Some(client) = queues.next.pop_front() else { return };
            let Entry::Occupied(mut entry) = queues.clients.entry(client) else { continue };
            let of = entry.get_mut();
            of.is_next = false;
            let is_below = client.is_none() || of.under_way < self.client_max;
            let called = if is_below { of.waiting.pop_first() } else { None };
            let Some((_, called)) = called else {
                if of.is_idle() {
                    entry.remove();
                }
                continue;
            };
            of.under_way += 1;
            queues.under_way += 1;
            queues.line_up(client, self.client_max);
            called.is_over.set(true);
            if let Some(waker) = called.waker.take() {
                waker.wake();
            }
        }
    }

    /// Those that have a place, and those that wait for one.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let queues = self.queues.borrow();
        (queues.under_way, queues.clients.values().map(|of| of.waiting.len()).sum())
    }
}

impl Of {
    fn is_idle(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty() && !self.is_next
    }
}

impl Queues {
    /// Has this client called in its turn, if somebody of it waits and may begin.
    fn line_up(&mut self, client: Client, client_max: usize) {
        let Some(of) = self.clients.get_mut(&client) else { return };
        let may_begin = client.is_none() || of.under_way < client_max;
        if may_begin && !of.waiting.is_empty() && !of.is_next {
            of.is_next = true;
            self.next.push_back(client);
        }
    }
}

impl Place<'_> {
    /// Whether it has to wait.
    pub(super) fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// Waits until the place is free.
    pub(super) fn poll_free(&mut self, cx: &Context<'_>) -> Poll<()> {
        match &self.waits {
            Some((_, wait)) if !wait.is_over.get() => {
                wait.waker.set(Some(cx.waker().clone()));
                Poll::Pending
            }
            _ => {
                self.waits = None;
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queues = self.handshakes.queues.borrow_mut();
        let Entry::Occupied(mut entry) = queues.clients.entry(self.client) else { return };
        let of = entry.get_mut();
        match &self.waits {
            Some((number, wait)) if !wait.is_over.get() => {
                of.waiting.remove(number);
                if of.is_idle() {
                    entry.remove();
                }
            }
            _ => {
                of.under_way -= 1;
                if of.is_idle() {
                    entry.remove();
                }
                queues.under_way -= 1;
                queues.line_up(self.client, self.handshakes.client_max);
            }
        }
        drop(queues);
        self.handshakes.call();
    }
}

/// What one client is: an address, or a /64 of IPv6, as for `max_connections_per_client`.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rng;
    use rand::{RngExt as _, SeedableRng as _};

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn is_free(place: &mut Place<'_>) -> bool {
        place.poll_free(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn one_client_is_in_its_own_way_only() {
        let handshakes = Handshakes::new(8, 2);
        let mut greedy: Vec<_> = (0..5).map(|_| handshakes.enter(address(1))).collect();
        let free: Vec<_> = greedy.iter_mut().map(is_free).collect();
        assert_eq!(free, [true, true, false, false, false]);
        assert!(is_free(&mut handshakes.enter(address(2))), "another one");
        drop(greedy.remove(3));
        drop(greedy.remove(0));
        let free: Vec<_> = greedy.iter_mut().map(is_free).collect();
        assert_eq!(free, [true, true, false], "the first one who waits and is still there");
        drop(greedy);
        assert_eq!(handshakes.counts(), (0, 0));
        assert!(handshakes.queues.borrow().clients.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn clients_that_wait_get_places_in_turn() {
        let handshakes = Handshakes::new(2, 2);
        let mut held = vec![handshakes.enter(address(9)), handshakes.enter(address(9))];
        let mut waiting: Vec<_> = [1, 1, 1, 2, 3].into_iter().map(|of| (of, handshakes.enter(address(of)))).collect();
        let mut order = Vec::new();
        while let Some(place) = held.pop() {
            drop(place);
            while let Some(at) = waiting.iter_mut().position(|(_, place)| is_free(place)) {
                let (of, place) = waiting.remove(at);
                order.push(of);
                held.insert(0, place);
            }
        }
        assert_eq!(order, [1, 2, 3, 1, 1], "who has three waiting is not served before the others");
    }

    #[test]
    fn networks_of_ipv6_are_one_client_and_unix_peers_are_none() {
        let handshakes = Handshakes::new(8, 1);
        let _one = handshakes.enter("2001:db8::1".parse().ok());
        assert!(!is_free(&mut handshakes.enter("2001:db8::2".parse().ok())));
        assert!(is_free(&mut handshakes.enter("2001:db8:0:1::1".parse().ok())));
        let mut local: Vec<_> = (0..3).map(|_| handshakes.enter(None)).collect();
        assert!(local.iter_mut().all(is_free));
    }

    #[test]
    fn numbers_hold_whoever_comes_and_goes() {
        for seed in 0..64 {
            let mut rng = Rng::seed_from_u64(seed);
            let handshakes = Handshakes::new(5, 2);
            let mut places: Vec<(u8, Place<'_>)> = Vec::new();
            for step in 0..400 {
                if rng.random_bool(0.5) {
                    let of = rng.random_range(0..5);
                    places.push((of, handshakes.enter(if of == 0 { None } else { address(of) })));
                } else if !places.is_empty() {
                    places.swap_remove(rng.random_range(0..places.len()));
                }
                let mut free = [0; 5];
                let mut waiting = [0; 5];
                for (of, place) in &mut places {
                    match is_free(place) {
                        true => free[usize::from(*of)] += 1,
                        false => waiting[usize::from(*of)] += 1,
                    }
                }
                let at = format!("seed {seed}, step {step}: {free:?} {waiting:?}");
                let under_way: usize = free.iter().sum();
                assert_eq!(handshakes.counts(), (under_way, waiting.iter().sum()), "{at}");
                assert!(under_way <= 5 && free[1..].iter().all(|count| *count <= 2), "{at}");
                let could = (0..5).any(|of| waiting[of] > 0 && (of == 0 || free[of] < 2));
                assert!(under_way == 5 || !could, "a place is free and somebody waits for it: {at}");
            }
            drop(places);
            assert!(handshakes.queues.borrow().clients.is_empty(), "seed {seed}");
        }
    }
}
