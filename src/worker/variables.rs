//! What header rules ask of a request: the variables of [`crate::config::Variable`], as the gateway knows them.
//!
//! Nothing is taken from a client that only the gateway may say: a header that names who was recognised, or an `X-Forwarded-*` of an untrusted
//! peer, is what the endpoint will be told and not what was sent; and what is kept from the endpoint, a key or the gateway's own cookie, is not said
//! by a variable either ([`super::hidden`]). All values are free of CR and LF: heads are parsed so, and names and claims
//! are checked where they come from.

use super::believed::header_text;
use super::identify::Identified;
use super::inbound::Inbound;
use super::request_id::RequestId;
use crate::config::{OfClient, Piece, Template, Variable};
use crate::http::head::RequestHead;
use crate::http::headers;
use crate::http::push_address;
use crate::policy::token::claim;
use crate::units::RouteId;
use http::{HeaderName, header};

/// A request that has been routed, and what is known of it.
pub(super) struct Known<'k> {
    pub(super) inbound: &'k Inbound<'k>,
    /// `None`: there is none for it.
    pub(super) route: Option<RouteId>,
    /// Who sends it, if that was asked.
    pub(super) identified: Option<&'k Identified>,
    /// What the gateway calls it, if it brings no name of its own.
    pub(super) id: Option<&'k RequestId>,
    pub(super) head: &'k RequestHead<'k>,
}

impl Known<'_> {
    /// Appends a line for each of these headers, but for those of which a part is not there: then there is no such header at all, since what the
    /// other side has sent under its name is not passed on in any case.
    pub(super) fn push_lines(&self, templates: &[(HeaderName, Template)], out: &mut Vec<u8>) {
        for (name, Template(pieces)) in templates.iter().filter(|(name, _)| headers::is_configurable(name.as_str())) {
            let start = out.len();
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            let is_whole = pieces.iter().all(|piece| match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                Piece::Variable(variable) => {
                    let before = out.len();
                    self.push(variable, out).is_some() && out.len() > before
                }
            });
            if is_whole {
                out.extend_from_slice(b"\r\n");
            } else {
                out.truncate(start);
            }
        }
    }

    /// Appends what the route's path has found.
    pub(super) fn push_capture(&self, name: &str, out: &mut Vec<u8>) -> Option<()> {
        let worker = self.inbound.worker;
        let route = self.route?;
        let captures = worker.shared.config.routes[route.index()].captures.as_ref()?;
        let mut cache = worker.router_cache.borrow_mut();
        out.extend_from_slice(cache.captured(route, captures, self.head.routed_path(), name)?.as_bytes());
        Some(())
    }

    /// Appends what a variable stands for; `None`: there is no such thing here.
    pub(super) fn push(&self, variable: &Variable, out: &mut Vec<u8>) -> Option<()> {
        let (head, shared) = (self.head, &self.inbound.worker.shared);
        let text: &[u8] = match variable {
            Variable::ClientIp => {
                let (client, peer) = (self.inbound.client_ip(head), self.inbound.client.peer);
                // a unix socket's peer has no address but the one that stands for it
                if peer.address.is_none() && client == peer.ip() {
                    return None;
                }
                push_address(out, client);
                b""
            }
            Variable::Host => head.host()?.as_bytes(),
            Variable::Path => head.path().as_bytes(),
            Variable::Query => return self.push_public_query(b"", out),
            Variable::PathAndQuery => {
                out.extend_from_slice(head.path().as_bytes());
                let _ = self.push_public_query(b"?", out);
                b""
            }
            Variable::Scheme => self.inbound.scheme().as_bytes(),
            Variable::Method => head.method().as_str().as_bytes(),
            Variable::Listener => self.inbound.config().name.as_bytes(),
            Variable::Route => shared.config.routes[self.route?.index()].name.as_bytes(),
            Variable::Consumer => self.identified?.name(&shared.identities).as_bytes(),
            Variable::RequestId => head.request_id().or(self.id.map(|id| &id[..]))?,
            Variable::Claim(name) => {
                let text = header_text(claim(self.identified?.claims()?, name)?)?;
                out.extend_from_slice(text.as_bytes());
                b""
            }
            Variable::Header(name) => return self.push_header(name, out),
            Variable::Capture(name) => return self.push_capture(name, out),
            Variable::Cookie(name) => return self.push_public_cookie(name, out),
            Variable::Certificate(part) => {
                let identity = self.inbound.identity()?;
                match part {
                    OfClient::Subject => identity.subject.as_bytes(),
                    OfClient::Names => identity.names.as_bytes(),
                    OfClient::KeyHash => identity.key_hash.as_bytes(),
                    OfClient::Hash => identity.hash.as_bytes(),
                }
            }
        };
        out.extend_from_slice(text);
        Some(())
    }

    /// A header as the endpoint will be told it.
    fn push_header(&self, name: &HeaderName, out: &mut Vec<u8>) -> Option<()> {
        let shared = &self.inbound.worker.shared;
        if shared.is_identity(name) {
            return self.identified?.push_header(shared, name, out);
        }
        if self.is_stripped(name) {
            return if *name == header::COOKIE { self.push_public_cookies(out) } else { None };
        }
        let mut peer = Vec::new();
        if *name == "x-forwarded-for"
            && let Some(address) = self.inbound.told_address(self.head)
        {
            push_address(&mut peer, address);
        }
        let forwarding = self.inbound.forwarding(self.head, &[]);
        out.extend_from_slice(headers::routed(self.head, name.as_str(), &forwarding, &peer)?);
        Some(())
    }
}
