//! A downstream connection as the line of a request knows it: who is at the other end, and through which door they came.

use super::door::{At, Door};
use super::generation::{Generation, Pinned};
use crate::config;
use crate::error::ProxyError;
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::Watch;
use crate::units::{Instant, ListenerId};
use rand::RngExt as _;
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

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

/// What the line needs to know of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) watch: Watch,
    pub(super) door: Rc<Door>,
    /// The listener's row in the generation that the request pins which is under way, or was last.
    pub(super) listener: Cell<ListenerId>,
    pub(super) peer: Peer,
    /// What the peer connected to, where a PROXY header said so; else it is the socket's own address. Boxed, because most
    /// connections have none and most connections are idle.
    pub(super) destination: Option<Box<SocketAddr>>,
    /// When the last response was sent.
    pub(super) served_at: Cell<Instant>,
    /// From when on the next response is the last.
    ends_at: Instant,
    /// Requests whose heads have been read.
    requests: Cell<u64>,
}

impl Connection {
    pub(super) fn new(at: &At, door: &Rc<Door>, stream: Stream, peer: Peer) -> Self {
        let (worker, age_max) = (&door.worker, at.config().connection_age_max);
        Self {
            stream,
            watch: worker.timers.watch_tagged(door.tag),
            door: Rc::clone(door),
            listener: Cell::new(at.row),
            peer,
            destination: None,
            served_at: Cell::default(),
            ends_at: clock::now() + age_max.mul_f64(worker.rng.borrow_mut().random_range(AGE_SPREAD)),
            requests: Cell::default(),
        }
    }

    /// The generation in use, for one request: [`Connection::config`] is its listener's until the next one is pinned.
    pub(super) fn pin(&self) -> Pinned {
        let (pinned, row) = self.door.pin();
        self.listener.set(row);
        pinned
    }

    /// Whether it is to end: the worker drains, or its listener is gone.
    pub(super) fn is_leaving(&self) -> bool {
        self.door.is_leaving()
    }

    /// Why the client has not taken what was sent to it: its time was over, or it has left.
    pub(super) fn send_failure(&self) -> ProxyError {
        if self.watch.expired() { ProxyError::ClientWriteTimeout } else { ProxyError::ClientClosed }
    }

    /// Its listener, in the generation that is pinned.
    pub(super) fn config<'w>(&self, worker: &'w Generation) -> &'w config::Listener {
        &worker.shared.config.listeners[self.listener.get().index()]
    }

    /// Counts a request; true when it is to be the connection's last, by number or by age.
    pub(super) fn count_request(&self, config: &config::Listener, now: Instant) -> bool {
        let count = self.requests.get() + 1;
        self.requests.set(count);
        config.connection_requests_max.is_some_and(|max| count >= max) || now >= self.ends_at
    }
}

/// Sends all of `block`; the client may take its time, but not longer than `patience` for any part of it.
pub(super) async fn send(
    worker: &Generation,
    connection: &Connection,
    block: Block,
    patience: Duration,
) -> Result<(), ProxyError> {
    let _guard = connection.watch.over_send(&connection.stream, patience, clock::now());
    let progress = || connection.watch.on_sent(clock::now());
    let (sent, block) = connection.stream.send_noting(block, progress).await;
    worker.put(block);
    sent.map_err(|_| connection.send_failure())
}
