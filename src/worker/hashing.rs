//! The key by which a balancer that hashes picks an endpoint for a request, and what limits know of its path.

use super::plan::Planner;
use crate::config::{Balance, HashKey, LimitKey};
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
            HashKey::Capture(name) => text(self.captured(name)),
        }
    }

    /// What a limit knows that counts by the path.
    pub(super) fn by_path(&self, key: &LimitKey) -> Option<&[u8]> {
        match key {
            LimitKey::Capture(name) => self.captured(name),
            _ => {
                let route = &self.inbound.worker.shared.config.routes[self.routed.get()?.index()];
                Some(route.templates.as_ref()?.met(self.head.routed_path()).as_bytes())
            }
        }
    }

    /// What the route's path has found.
    fn captured(&self, name: &str) -> Option<&[u8]> {
        let (worker, route) = (self.inbound.worker, self.routed.get()?);
        let captures = worker.shared.config.routes[route.index()].captures.as_ref()?;
        let found = worker.router_cache.borrow_mut().captured(route, captures, self.head.routed_path(), name)?;
        Some(found.as_bytes())
    }
}

/// The first value of a cookie, whichever field it stands in.
pub(super) fn cookie<'h>(head: &RequestHead<'h>, name: &str) -> Option<&'h [u8]> {
    cookies::values(head.fields().get_all("cookie"), name).next()
}
