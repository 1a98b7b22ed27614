//! `bandwidth`: responses that go to clients no faster than their route says.
//!
//! A bucket of bytes stands in the table that rates of clients stand in, so it is exact over all cores and is kept over a reload. A piece of a
//! response goes when the bucket has had all of it, and until then nothing more is read of the endpoint, which TCP (or the stream's window) tells it. So a
//! wait costs a timer and the block that is there already; neither side is blamed for it, because neither is waited for. A response that is there
//! with its head waits as well, before it is passed on.
//!
//! Not counted: what goes up, tunnels, and what the gateway answers itself.

use super::inbound::Inbound;
use super::plan::Planner;
use crate::config::{Bandwidth, BandwidthPer, SplitKey};
use crate::net::clock;
use crate::observe::labels::TrafficEvent;
use crate::policy::key_table::{KeyHash, LimiterId};
use crate::policy::token_bucket::{Decision, Gcra};
use crate::units::{Rate, RouteId};
use rustc_hash::FxHasher;
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a token, so that a gibibyte a second is a time between two that can be counted.
const TOKEN_BYTES: u64 = 64;
/// The shortest wait, which is what the timers tell apart in any case.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Whose bytes a response is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    route: RouteId,
    key: KeyHash,
    gcra: Gcra,
    /// Tokens that a full bucket has.
    burst: u64,
}

impl Planner<'_> {
    /// Whose bytes the response to this request will be.
    #[cold]
    #[inline(never)]
    pub(super) fn pace(&self, route: RouteId, bandwidth: &Bandwidth) -> Option<Pace> {
        let worker = self.inbound.worker;
        let mut hasher = FxHasher::default();
        let name = &worker.shared.config.routes[route.index()].name;
        (name, bandwidth.rate, bandwidth.burst, bandwidth.per.to_string()).hash(&mut hasher);
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
            let address = peer.address.map_or_else(Vec::new, |address| connection(address).to_vec());
            table.header(of(2), Some(&address))
        };
        let tokens = (bandwidth.rate / TOKEN_BYTES).max(1);
        let rate = Rate::try_new(tokens, Duration::from_secs(1))?;
        let burst = bandwidth.burst / TOKEN_BYTES;
        Some(Pace { route, key: key.unwrap_or_else(of_connection), gcra: Gcra::new(rate, burst), burst })
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
    /// Waits until the client may have so many bytes more, which are taken then; whether it is still there.
    pub(super) async fn take(&self, inbound: &Inbound<'_>, bytes: usize) -> bool {
        let worker = inbound.worker;
        // a piece that was put into another form may be more than a bucket ever has
        let mut left = (bytes as u64).div_ceil(TOKEN_BYTES);
        let mut has_waited = false;
        while left > 0 {
            let (now, tokens) = (clock::now(), left.min(self.burst));
            let taken = worker.shared.limits.table().take_many(self.key, self.gcra, tokens, now);
            let Decision::Reject(quota) = taken else {
                left -= tokens;
                continue;
            };
            if worker.is_cutting() {
                return true; // the drain's time is over, and so is the response with or without this
            }
            if !std::mem::replace(&mut has_waited, true) {
                worker.recorder.traffic(self.route, TrafficEvent::BandwidthWait);
            }
            if !inbound.pause_until(now + quota.reset.max(WAIT_MIN)).await {
                return false;
            }
        }
        true
    }
}
