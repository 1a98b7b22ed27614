//! `Location` of an endpoint that names itself, on routes that make it ours (`rewrite_location`).
//!
//! The endpoint may know itself by its address, by its name, or by the `Host` that it was told, all of them by the scheme that is spoken with it;
//! and by what the client calls us, by the client's. A redirect from http to https of the same host is none of these and stays.

use super::line::Line;
use crate::config::Relocation;
use crate::config::location::PLACES;
use crate::http::headers::push;
use crate::http::location::{Moved, Origin, relocate};
use crate::http::response::ResponseHead;
use crate::units::EndpointId;
use http::header;

impl Line<'_> {
    /// What the route makes of an endpoint's `Location`, if anything.
    pub(super) fn relocation(&self) -> Option<&Relocation> {
        self.rules.traffic.relocation.as_deref()
    }

    /// Appends the headers that name a place, which are not copied: what has become of them, or as they are.
    #[cold]
    #[inline(never)]
    pub(super) fn push_places(
        &self,
        (endpoint, head): (EndpointId, &ResponseHead<'_>),
        relocation: &Relocation,
        out: &mut Vec<u8>,
    ) {
        let fields = head.fields();
        if PLACES.iter().all(|name| fields.get(name.as_str()).is_none()) {
            return;
        }
        let config = &self.inbound.worker.shared.config;
        let cluster = &config.clusters[self.attempts.cluster().index()];
        let endpoint = &cluster.endpoints[endpoint.index()];
        let address = endpoint.address.to_string();
        let ruled = config.routes[self.forward.route.index()].request_headers.set.iter();
        let ruled = ruled.filter(|(name, _)| *name == header::HOST).map(|(_, value)| value.as_bytes()).next();
        let called = self.forward.own_lines.authority();
        let told = ruled.unwrap_or(if called.is_empty() { cluster.name.as_bytes() } else { called });
        let inside = if cluster.tls.is_some() { "https" } else { "http" };
        let named = endpoint.name.as_deref().unwrap_or_default().as_bytes();
        let own = [(inside, address.as_bytes()), (inside, named), (inside, told), (self.inbound.scheme(), called)];
        let own = own.map(|(scheme, authority)| Origin { scheme, authority });
        let moved = Moved { inner: &relocation.inner, outer: &relocation.outer };
        for name in PLACES.iter().filter(|name| relocation.rules.strip.contains(name)) {
            let written: &[u8] = if *name == header::LOCATION { b"Location" } else { b"Content-Location" };
            for value in fields.get_all(name.as_str()) {
                let start = out.len();
                out.extend_from_slice(written);
                out.extend_from_slice(b": ");
                if relocate(value, &own, moved, out).is_some() {
                    out.extend_from_slice(b"\r\n");
                } else {
                    out.truncate(start);
                    push(out, written, value);
                }
            }
        }
    }
}
