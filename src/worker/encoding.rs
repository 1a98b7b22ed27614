//! `encode`: a head that was kept, written for the endpoint of an attempt.
//!
//! It is done as late as that, because only then it is known who the endpoint is. The text is that of HTTP/1.1, which a stream of
//! HTTP/2 translates ([`crate::http::h2`]), and to all of a cluster's endpoints it is the same: so it is written once, into the block that the request is sent from and, if it must be, sent from
//! again.

use super::identify;
use super::inbound::Inbound;
use super::kept::Kept;
use super::plan::Forward;
use super::variables::Known;
use crate::config;
use crate::http::encode::{self, UpstreamRequest};
use crate::http::framing::Framing;
use crate::http::grpc_web::Form;
use crate::limits::BLOCK_SMALL;
use crate::net::block::Block;
use crate::policy::router::rewrite;
use std::time::Duration;

/// The head, in a block that has room for the body that comes with it. Its bytes are in the inbox still. `left`: how long the client of a call still
/// waits, if it has said so.
pub(super) fn request(
    inbound: &Inbound<'_>,
    forward: &Forward,
    (kept, left): (&Kept, Option<Duration>),
    inbox: &Block,
) -> Block {
    let worker = inbound.worker;
    let mut outbound = match forward.framing {
        Framing::None => worker.blocks.borrow_mut().small(),
        Framing::Fixed(bytes) if bytes < BLOCK_SMALL as u64 / 2 => worker.blocks.borrow_mut().small(),
        _ => worker.blocks.borrow_mut().large(),
    };
    let head = kept.view(inbox);
    let mut scratch = worker.scratch.borrow_mut();
    identify::tell(inbound, (forward.route, kept.identified.as_ref()), &head, &mut scratch);
    let scratch = &mut *scratch;
    let rules = &worker.shared.config.routes[forward.route.index()];
    let (identified, id) = (kept.identified.as_ref(), kept.id.as_ref());
    let of = Known { inbound, route: Some(forward.route), identified, id, head: &head };
    if !rules.request_headers.templates.is_empty() {
        of.push_lines(&rules.request_headers.templates, &mut scratch.lines);
    }
    let path = match &rules.rewrite {
        config::Rewrite::None => head.path(),
        how => {
            scratch.text.clear();
            match how {
                // which was looked at when the request was planned
                config::Rewrite::Made { pieces, .. } => drop(of.push_path((rules, pieces), &mut scratch.text)),
                how => rewrite(how, &rules.matcher, head.path(), &mut scratch.text),
            }
            // the path is visible ASCII and so is every template that the configuration accepts
            str::from_utf8(&scratch.text).unwrap_or(head.path())
        }
    };
    let mut query = match str::from_utf8(&scratch.query).ok().and_then(|query| query.strip_prefix('?')) {
        None => head.query(),
        Some(others) => Some(others).filter(|others| !others.is_empty()),
    };
    if !rules.query.is_empty() {
        scratch.edited.clear();
        of.push_query(&rules.query, query, &mut scratch.edited);
        query = str::from_utf8(&scratch.edited).ok().filter(|edited| !edited.is_empty());
    }
    let forwarding = inbound.forwarding(&head, kept.id.as_ref().map_or(&[], |id| id));
    let request = UpstreamRequest {
        head: &head,
        path,
        query,
        lines: &scratch.lines,
        framing: super::incoming::framing_up(forward.framing, forward.web == Some(Form::Text)),
        rules: &rules.request_headers,
        forwarding: &forwarding,
        host_fallback: &worker.shared.config.clusters[forward.cluster.index()].name,
        // what is awaited here is told to come by us
        expect_continue: forward.withheld && rules.traffic.buffered_bytes_max.is_none(),
        grpc_timeout: left,
        offer: forward.offer.as_deref().copied(),
    };
    encode::request(outbound.vec_mut(), &request);
    outbound
}
