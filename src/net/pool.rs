//! Idle upstream connections of one worker, by endpoint, last in first out.
//!
//! The one used last is the one whose state is still in the caches, and the least likely to have been closed by its server; the
//! surplus at the bottom ages and is reaped. None carries a request whose server has ended it, or, worse, has sent bytes that nobody
//! asked for, which the next client would get for its response ([`Upstream::is_spent`]), however young the connection is.

use super::upstream::Upstream;
use crate::units::{EndpointId, Instant};
use std::time::Duration;

/// How much earlier than its server a connection is given up, which may have begun to count when it sent.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Idle {
    upstream: Upstream,
    since: Instant,
    until: Instant,
}

/// One cluster's idle connections.
#[derive(Debug)]
pub struct Pool {
    by_endpoint: Vec<Vec<Idle>>,
    idle: usize,
    idle_max: usize,
    idle_timeout: Duration,
}

impl Pool {
    /// For a cluster of `endpoints` endpoints, keeping at most `idle_max` connections, each for at most `idle_timeout`.
    #[must_use]
    pub fn new(endpoints: usize, idle_max: usize, idle_timeout: Duration) -> Self {
        Self { by_endpoint: (0..endpoints).map(|_| Vec::new()).collect(), idle: 0, idle_max, idle_timeout }
    }

    /// The connection to `endpoint` that was used last and is still good.
    pub fn checkout(&mut self, endpoint: EndpointId, now: Instant) -> Option<Upstream> {
        let idle = &mut self.by_endpoint[endpoint.index()];
        while let Some(Idle { upstream, until, .. }) = idle.pop() {
            self.idle -= 1;
            if now < until && !upstream.is_spent() {
                self.check();
                return Some(upstream);
            }
        }
        self.check();
        None
    }

    /// Takes a connection back, which its server keeps for `keep` (`Duration::MAX`: it did not say); one too many is closed, and so is
    /// one that has no time to wait. A server that closes a connection while a request is on its way to it cannot be told from one
    /// that fails, so the connection is given up [`MARGIN`] before.
    ///
    /// Returns it when it is kept.
    pub fn checkin(
        &mut self,
        endpoint: EndpointId,
        upstream: Upstream,
        keep: Duration,
        now: Instant,
    ) -> Option<&Upstream> {
        let wait = self.idle_timeout.min(keep.saturating_sub(MARGIN));
        if self.idle >= self.idle_max || wait.is_zero() {
            return None;
        }
        self.idle += 1;
        let idle = &mut self.by_endpoint[endpoint.index()];
        idle.push(Idle { upstream, since: now, until: now + wait });
        self.check();
        self.by_endpoint[endpoint.index()].last().map(|kept| &kept.upstream)
    }

    /// Closes what has been idle too long or was ended by its server. Called about once a second.
    pub fn reap(&mut self, now: Instant) {
        for idle in &mut self.by_endpoint {
            idle.retain(|i| now < i.until && !i.upstream.is_spent());
        }
        self.idle = self.by_endpoint.iter().map(Vec::len).sum();
    }

    /// Closes every connection to `endpoint`: it has just broken one of them without a word.
    pub fn forget(&mut self, endpoint: EndpointId) {
        self.idle -= std::mem::take(&mut self.by_endpoint[endpoint.index()]).len();
        self.check();
    }

    /// Takes over the connections of `old` to the endpoints that both have, by pairs of the old and the new row; of too many, those that have
    /// been idle for longest are closed.
    pub fn inherit(&mut self, old: &mut Self, endpoints: impl IntoIterator<Item = (EndpointId, EndpointId)>) {
        for (from, to) in endpoints {
            let mut taken = std::mem::take(&mut old.by_endpoint[from.index()]);
            old.idle -= taken.len();
            let room = self.idle_max.saturating_sub(self.idle);
            taken.drain(..taken.len().saturating_sub(room));
            self.idle += taken.len();
            self.by_endpoint[to.index()].extend(taken);
        }
        self.check();
        old.check();
    }

    /// Closes all, and whatever is still checked in.
    pub fn close(&mut self) {
        self.by_endpoint.iter_mut().for_each(Vec::clear);
        (self.idle, self.idle_max) = (0, 0);
    }

    /// Since when the one has been idle that has been it for longest. Of each endpoint's that is the first.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        self.by_endpoint.iter().filter_map(|idle| Some(idle.first()?.since)).min()
    }

    /// Closes that one.
    pub fn close_longest_idle(&mut self) {
        let since = |idle: &&mut Vec<Idle>| idle.first().map_or(Instant::NEVER, |first| first.since);
        if let Some(idle) = self.by_endpoint.iter_mut().min_by_key(since)
            && !idle.is_empty()
        {
            idle.remove(0);
            self.idle -= 1;
        }
        self.check();
    }

    /// Asserts what is true between any two calls.
    ///
    /// # Panics
    /// It is not, by a defect of this module.
    pub fn check_invariants(&self) {
        assert_eq!(self.idle, self.by_endpoint.iter().map(Vec::len).sum::<usize>(), "each is counted once");
        assert!(self.idle <= self.idle_max);
        for idle in &self.by_endpoint {
            assert!(idle.iter().all(|idle| idle.since < idle.until), "none is kept for no time");
        }
    }

    fn check(&self) {
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    /// Idle connections.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;
    use crate::net::testing::{self, on_each_driver};

    const ENDPOINT: EndpointId = EndpointId(1);
    const OTHER: EndpointId = EndpointId(0);
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// Not armed: what arms it is the worker.
    fn pair() -> (Upstream, std::net::TcpStream) {
        let (stream, peer) = testing::pair();
        (Upstream::new(stream), peer)
    }

    #[test]
    fn the_one_that_was_idle_for_longest_makes_room() {
        on_each_driver(|_| async {
            let mut pool = Pool::new(2, 8, TIMEOUT);
            pool.close_longest_idle();
            let now = clock::now();
            let mut peers = Vec::new();
            for (endpoint, after) in [(ENDPOINT, 1), (OTHER, 0), (ENDPOINT, 2)] {
                let (upstream, peer) = pair();
                assert!(pool.checkin(endpoint, upstream, Duration::MAX, now + Duration::from_secs(after)).is_some());
                peers.push(peer);
            }
            assert_eq!(pool.idle_since(), Some(now));
            pool.close_longest_idle();
            assert_eq!((pool.idle(), pool.idle_since()), (2, Some(now + Duration::from_secs(1))));
            assert!(pool.checkout(OTHER, now).is_none());
            pool.close_longest_idle();
            pool.close_longest_idle();
            assert_eq!((pool.idle(), pool.idle_since()), (0, None));
        });
    }

    #[test]
    fn a_connection_that_its_server_closed_is_not_given_out() {
        on_each_driver(|_| async {
            let mut pool = Pool::new(2, 8, TIMEOUT);
            let now = clock::now();
            let ((good, _peer), (closed, closed_peer)) = (pair(), pair());
            let good_fd = good.stream().fd();
            pool.checkin(ENDPOINT, good, Duration::MAX, now);
            drop(closed_peer);
            closed.stream().readable().await.unwrap();
            pool.checkin(ENDPOINT, closed, Duration::MAX, now);
            let given = pool.checkout(ENDPOINT, now).unwrap();
            assert_eq!((given.stream().fd(), pool.idle()), (good_fd, 0));
            assert!(pool.checkout(ENDPOINT, now).is_none());
        });
    }

    #[test]
    fn a_connection_with_bytes_that_nobody_asked_for_is_not_given_out() {
        use std::io::Write as _;
        on_each_driver(|_| async {
            let mut pool = Pool::new(2, 8, TIMEOUT);
            let now = clock::now();
            let (spoken, mut peer) = pair();
            peer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            spoken.stream().readable().await.unwrap();
            pool.checkin(ENDPOINT, spoken, Duration::MAX, now);
            assert!(pool.checkout(ENDPOINT, now).is_none(), "the next client would get it as its response");
        });
    }

    #[test]
    fn the_last_one_in_is_the_first_one_out_and_endpoints_are_apart() {
        on_each_driver(|_| async {
            let mut pool = Pool::new(2, 8, TIMEOUT);
            let now = clock::now();
            let pairs = [pair(), pair(), pair()];
            let (mut fds, mut peers) = (Vec::new(), Vec::new());
            for (stream, peer) in pairs {
                fds.push(stream.stream().fd());
                peers.push(peer);
                pool.checkin(ENDPOINT, stream, Duration::MAX, now);
            }
            assert!(pool.checkout(OTHER, now).is_none());
            let out: Vec<_> = (0..3).map(|_| pool.checkout(ENDPOINT, now).unwrap()).collect();
            assert!(out.iter().map(|out| out.stream().fd()).eq(fds.into_iter().rev()));
        });
    }

    #[test]
    fn what_is_too_much_too_old_or_closed_is_reaped() {
        on_each_driver(|_| async {
            let mut pool = Pool::new(2, 2, TIMEOUT);
            let now = clock::now();
            let ((old, _old_peer), (young, young_peer), (surplus, _surplus_peer)) = (pair(), pair(), pair());
            pool.checkin(ENDPOINT, old, Duration::MAX, now);
            pool.checkin(OTHER, young, Duration::MAX, now + TIMEOUT);
            pool.checkin(OTHER, surplus, Duration::MAX, now + TIMEOUT);
            assert_eq!(pool.idle(), 2, "one too many is closed");
            assert!(pool.checkout(ENDPOINT, now + TIMEOUT).is_none(), "too old");
            pool.reap(now + TIMEOUT);
            assert_eq!(pool.idle(), 1);
            drop(young_peer);
            let (probe, probe_peer) = pair();
            drop(probe_peer);
            // the peer's end has arrived here too once a later one has
            probe.stream().readable().await.unwrap();
            pool.reap(now + TIMEOUT);
            assert_eq!(pool.idle(), 0);
        });
    }

    #[test]
    fn a_connection_is_given_up_a_second_before_its_server_does() {
        on_each_driver(|_| async {
            let mut pool = Pool::new(2, 8, TIMEOUT);
            let now = clock::now();
            let until_given_up = |pool: &mut Pool, keep: Duration| {
                let (stream, _peer) = pair();
                pool.checkin(ENDPOINT, stream, keep, now);
                // looks every half second; the peer stays open, so only time can end it
                let mut at = Duration::ZERO;
                while pool.idle() > 0 {
                    at += Duration::from_millis(500);
                    pool.reap(now + at);
                }
                at
            };
            let seconds = Duration::from_secs;
            assert_eq!(until_given_up(&mut pool, seconds(5)), seconds(4));
            assert_eq!(until_given_up(&mut pool, seconds(60)), TIMEOUT, "ours is shorter");
            assert_eq!(until_given_up(&mut pool, Duration::MAX), TIMEOUT);
            assert_eq!(until_given_up(&mut pool, seconds(1)), Duration::ZERO, "no time to wait");
            assert_eq!(until_given_up(&mut pool, Duration::ZERO), Duration::ZERO);
            let (stream, _peer) = pair();
            pool.checkin(ENDPOINT, stream, seconds(3), now);
            assert!(pool.checkout(ENDPOINT, now + seconds(2)).is_none(), "also before it is reaped");
        });
    }

    #[test]
    fn a_broken_endpoint_loses_its_idle_connections_and_no_other_does() {
        on_each_driver(|_| async {
            let mut pool = Pool::new(2, 8, TIMEOUT);
            let now = clock::now();
            let ((first, _first_peer), (second, _second_peer)) = (pair(), pair());
            pool.checkin(ENDPOINT, first, Duration::MAX, now);
            pool.checkin(OTHER, second, Duration::MAX, now);
            pool.forget(ENDPOINT);
            assert_eq!(pool.idle(), 1);
            assert!(pool.checkout(ENDPOINT, now).is_none() && pool.checkout(OTHER, now).is_some());
        });
    }

    #[test]
    fn connections_to_endpoints_that_stay_go_on_in_the_next_pool_and_the_others_are_closed() {
        on_each_driver(|_| async {
            let (mut old, mut new) = (Pool::new(2, 8, TIMEOUT), Pool::new(1, 2, TIMEOUT));
            let now = clock::now();
            let mut peers = Vec::new();
            let mut descriptors = Vec::new();
            for endpoint in [ENDPOINT, OTHER, ENDPOINT, ENDPOINT] {
                let (upstream, peer) = pair();
                descriptors.push(upstream.stream().fd());
                assert!(old.checkin(endpoint, upstream, Duration::MAX, now).is_some());
                peers.push(peer);
            }
            new.inherit(&mut old, [(ENDPOINT, EndpointId(0))]);
            assert_eq!((old.idle(), new.idle()), (1, 2), "of three there is room for two");
            old.close();
            let (late, _peer) = pair();
            assert!(old.checkin(OTHER, late, Duration::MAX, now).is_none(), "what is in flight is not kept");
            assert_eq!(old.idle(), 0);
            let given = [0, 1].map(|_| new.checkout(EndpointId(0), now).unwrap().stream().fd());
            assert_eq!(given, [descriptors[3], descriptors[2]], "the last ones used");
        });
    }
}
