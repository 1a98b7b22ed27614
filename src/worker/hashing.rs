//! The key by which a balancer that hashes picks an endpoint for a request.

use super::identify::{of_cookie, pairs};
use super::plan::Planner;
use crate::config::{Balance, HashKey};
use crate::http::head::RequestHead;
use crate::policy::chance::hash_key;
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
    head.fields().get_all("cookie").flat_map(pairs).find_map(|pair| of_cookie(pair, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Parsed;
    use crate::http::fields::HeadScratch;
    use crate::http::head::HeadPolicy;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut scratch = HeadScratch::default();
        let bytes = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: xid=1; id=22;b=3\r\n\r\n";
        let Ok(Parsed::Complete(head)) = RequestHead::parse(bytes, &HeadPolicy::default(), &mut scratch) else {
            panic!("a valid head")
        };
        assert_eq!(cookie(&head, "id"), Some(&b"22"[..]));
        assert_eq!(cookie(&head, "b"), Some(&b"3"[..]));
        assert_eq!(cookie(&head, "d"), None);
    }
}
