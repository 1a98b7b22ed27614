//! Who is at the other end of a downstream connection, and through which door they came.

use super::door::{At, Door};
use crate::config;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::Watch;
use crate::units::Instant;
use rand::RngExt as _;
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

/// Shares of `max_connection_age` that connections get, so that those of one moment do not all come back in one other (gRPC's
/// connection management gives ±10 %).
const AGE_SPREAD: std::ops::RangeInclusive<f64> = 0.9..=1.0;

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Its address; `None` behind a unix socket.
    pub(super) address: Option<SocketAddr>,
    /// Whether its `X-Forwarded-*` are believed.
    pub(super) trusted: bool,
}

impl Peer {
    pub(super) fn new(address: Option<SocketAddr>, trusted: &[ipnet::IpNet]) -> Self {
        let trusted = address.is_some_and(|a| trusted.iter().any(|net| net.contains(&a.ip().to_canonical())));
        Self { address, trusted }
    }

    /// Whether it may send PROXY headers: a trusted proxy, or somebody whom the file system lets open a unix socket.
    pub(super) fn may_relay(&self) -> bool {
        self.trusted || self.address.is_none()
    }

    /// The client whose connections are counted; none behind a unix socket, where all would be one.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }

    /// The address that limits, hashes and logs go by. All peers of a unix socket are one client, the local one.
    pub(super) fn ip(&self) -> IpAddr {
        self.address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip().to_canonical())
    }
}

/// What is the same for all requests of one connection, however many of them it carries at once.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) door: Rc<Door>,
    pub(super) peer: Peer,
    /// What the peer connected to, where a PROXY header said so; else it is the socket's own address. Boxed, because most
    /// connections have none and most connections are idle.
    pub(super) destination: Option<Box<SocketAddr>>,
    /// From when on the next response is the last.
    ends_at: Instant,
    /// Requests whose heads have been read.
    requests: Cell<u64>,
}

impl Client {
    pub(super) fn new(at: &At, door: &Rc<Door>, peer: Peer) -> Self {
        let (worker, age_max) = (&door.worker, at.config().connection_age_max);
        Self {
            door: Rc::clone(door),
            peer,
            destination: None,
            ends_at: clock::now() + age_max.mul_f64(worker.rng.borrow_mut().random_range(AGE_SPREAD)),
            requests: Cell::default(),
        }
    }

    /// Whether its connection is to end: the worker drains, or its listener is gone.
    pub(super) fn is_leaving(&self) -> bool {
        self.door.is_leaving()
    }

    /// Counts a request; true when it is to be the connection's last, by number or by age.
    pub(super) fn count_request(&self, config: &config::Listener, now: Instant) -> bool {
        let count = self.requests.get() + 1;
        self.requests.set(count);
        config.connection_requests_max.is_some_and(|max| count >= max) || now >= self.ends_at
    }

    /// Whether its connection has carried as many requests as it may, or is as old as it may be.
    pub(super) fn is_worn(&self, config: &config::Listener, now: Instant) -> bool {
        config.connection_requests_max.is_some_and(|max| self.requests.get() >= max) || now >= self.ends_at
    }
}

/// A downstream connection: its socket, and whose it is.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// Over that socket, and nothing else.
    pub(super) watch: Watch,
    pub(super) client: Client,
    /// When the last response was sent.
    pub(super) served_at: Cell<Instant>,
}

impl Connection {
    pub(super) fn new(at: &At, door: &Rc<Door>, stream: Stream, peer: Peer) -> Self {
        Self {
            watch: door.worker.timers.watch_client(&stream, door.tag),
            stream,
            client: Client::new(at, door, peer),
            served_at: Cell::default(),
        }
    }
}
