//! The key by which a balancer that hashes picks an endpoint for a request.

use super::plan::Planner;
use crate::config::{Balance, HashKey};
use crate::http::head::RequestHead;
use crate::policy::chance::hash_key;
use crate::policy::cookies;
use crate::units::ClusterId;
use std::net::IpAddr;

impl Planner<'_> {
    pub(super) fn hash(&self, cluster: ClusterId, client: IpAddr) -> Option<u64> {
        let (Balance::RingHash(key) | Balance::Maglev(key)) =
            &self.inbound.worker.shared.config.clusters[cluster.index()].balance
        else {
            return None;
        };
        // who has no key yet (the first request of a session) must not meet all others who have none: the balancer draws for it
        let text = |value: Option<&[u8]>| value.filter(|value| !value.is_empty()).map(hash_key);
        match key {
            HashKey::ClientIp => Some(match client {
                IpAddr::V4(ip) => hash_key(&ip.octets()),
                IpAddr::V6(ip) => hash_key(&ip.octets()),
            }),
            HashKey::Header(name) => text(self.field(name)),
            HashKey::Cookie(name) => text(cookie(self.head, name)),
            HashKey::Path => Some(hash_key(self.head.path().as_bytes())),
        }
    }
}

/// The first value of a cookie, whichever field it stands in.
pub(super) fn cookie<'h>(head: &RequestHead<'h>, name: &str) -> Option<&'h [u8]> {
    cookies::values(head.fields().get_all("cookie"), name).next()
}
