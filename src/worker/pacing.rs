//! `bandwidth`: responses that go to clients, and requests that come from them, no faster than their route says.
//!
//! A bucket of bytes stands in the table that rates of clients stand in, one for each direction, so it is exact over all cores and is kept over a
//! reload. A piece of a body goes when the bucket has had all of it, and until then nothing more is read of whoever sends it, which TCP (or the stream's
//! window) tells him. So a wait costs a timer and the block that is there already; neither side is blamed for it, because neither is waited for. A
//! response that is there with its head waits as well, before it is passed on. What is sent up once more to another endpoint counts once. In a tunnel each
//! direction waits for itself.
//!
//! A piece is taken in parts, so that who sends small ones does not keep others from a bucket that is never full; and where a rate is small, small pieces
//! are read, so that no side is silent for longer than some seconds. Not counted: what the gateway answers itself.

use super::generation::Generation;
use super::inbound::Inbound;
use super::plan::Planner;
use crate::config::{Bandwidth, BandwidthPer, Flow, SplitKey};
use crate::limits::BLOCK_LARGE;
use crate::net::clock;
use crate::observe::labels::TrafficEvent;
use crate::policy::key_table::{KeyHash, LimiterId};
use crate::policy::token_bucket::{Decision, Gcra};
use crate::units::{Instant, Rate, RouteId};
use rustc_hash::FxHasher;
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a token, so that a gibibyte a second is a time between two that can be counted.
const TOKEN_BYTES: u64 = 64;
/// A bucket is asked for so much of it at once.
const PARTS: u64 = 4;
/// Where a large block is more than is passed on in such a part of a second, small ones are read.
const SLOW_PARTS: u64 = 4;
/// The shortest wait, which is what the timers tell apart in any case.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Whose bytes one direction is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    route: RouteId,
    key: KeyHash,
    gcra: Gcra,
    /// Tokens that are asked for at once.
    part: u64,
    is_slow: bool,
}

/// Whose bytes a response and its request are, where they are counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Paces {
    /// Of what the client gets.
    pub(super) down: Option<Pace>,
    /// Of what it sends.
    pub(super) up: Option<Pace>,
}

impl Planner<'_> {
    /// Whose bytes this request and its response are.
    #[cold]
    #[inline(never)]
    pub(super) fn paces(&self, route: RouteId, bandwidth: &Bandwidth) -> Paces {
        let pace = |flow: Option<Flow>, is_up| self.pace(route, bandwidth, (flow?, is_up));
        Paces { down: pace(bandwidth.down, false), up: pace(bandwidth.up, true) }
    }

    fn pace(&self, route: RouteId, bandwidth: &Bandwidth, (flow, is_up): (Flow, bool)) -> Option<Pace> {
        let worker = self.inbound.worker;
        let mut hasher = FxHasher::default();
        let name = &worker.shared.config.routes[route.index()].name;
        (name, flow, is_up, bandwidth.per.to_string()).hash(&mut hasher);
        let table = worker.shared.limits.table();
        let of = |kind: u64| LimiterId(hasher.finish() ^ kind);
        let peer = self.inbound.client.peer;
        let key = match &bandwidth.per {
            BandwidthPer::Route => Some(table.header(of(0), None)),
            BandwidthPer::Connection => None,
            BandwidthPer::Key(SplitKey::ClientIp) => self.client.get().map(|client| table.client(of(1), client)),
            BandwidthPer::Key(key) => self.split_value(key).map(|value| table.header(of(1), Some(value))),
        };
        let of_connection = || {
            match peer.address {
                Some(address) => table.header(of(2), Some(&connection(address))),
                // who comes by a unix socket has no address, and its connection lies in one place as long as it is there
                None => {
                    let place = std::ptr::from_ref(self.inbound.client).addr();
                    table.header(of(3), Some(&place.to_le_bytes()))
                }
            }
        };
        let tokens = (flow.rate / TOKEN_BYTES).max(1);
        let rate = Rate::try_new(tokens, Duration::from_secs(1))?;
        let burst = flow.burst / TOKEN_BYTES;
        let is_slow = flow.rate / SLOW_PARTS < BLOCK_LARGE as u64;
        let (key, part) = (key.unwrap_or_else(of_connection), (burst / PARTS).max(1));
        Some(Pace { route, key, gcra: Gcra::new(rate, burst), part, is_slow })
    }
}

/// An address and its port.
fn connection(address: SocketAddr) -> [u8; 18] {
    let mut bytes = [0; 18];
    match address {
        SocketAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => bytes[..16].copy_from_slice(&v6.ip().octets()),
    }
    bytes[16..].copy_from_slice(&address.port().to_le_bytes());
    bytes
}

impl Pace {
    /// Whether only small pieces are to be read.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Waits until so many bytes more may be passed on, which are taken then; whether the client is still there.
    pub(super) async fn take(&self, inbound: &Inbound<'_>, bytes: usize) -> bool {
        self.take_noting(inbound, bytes, |_| ()).await
    }

    /// The same, and says of each part when it was taken.
    pub(super) async fn take_noting(&self, inbound: &Inbound<'_>, bytes: usize, taken: impl Fn(usize)) -> bool {
        let (mut left, mut has_waited) = (bytes, false);
        while left > 0 {
            match self.take_part(inbound.worker, left) {
                Ok(part) => {
                    left -= part;
                    taken(part);
                }
                // the drain's time is over, and so is the body with or without this
                Err(_) if inbound.worker.is_cutting() => return true,
                Err(until) => {
                    self.count(inbound.worker, &mut has_waited);
                    if !inbound.pause_until(until).await {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// The same of bytes in a tunnel, whose ends somebody else watches.
    pub(super) async fn take_in_tunnel(&self, worker: &Generation, bytes: usize) {
        let (mut left, mut has_waited) = (bytes, false);
        while left > 0 {
            match self.take_part(worker, left) {
                Ok(part) => left -= part,
                Err(until) => {
                    self.count(worker, &mut has_waited);
                    worker.timers.watch().sleep_until(until).await;
                }
            }
        }
    }

    /// Takes what is asked for at once of so many bytes; or says when it may be there.
    fn take_part(&self, worker: &Generation, left: usize) -> Result<usize, Instant> {
        let part = left.min(usize::try_from(self.part * TOKEN_BYTES).unwrap_or(usize::MAX));
        let (now, tokens) = (clock::now(), (part as u64).div_ceil(TOKEN_BYTES));
        match worker.shared.limits.table().take_many(self.key, self.gcra, tokens, now) {
            Decision::Reject(quota) => Err(now + quota.reset.max(WAIT_MIN)),
            Decision::Admit => Ok(part),
        }
    }

    fn count(&self, worker: &Generation, has_waited: &mut bool) {
        if !std::mem::replace(has_waited, true) {
            worker.recorder.traffic(self.route, TrafficEvent::BandwidthWait);
        }
    }
}
