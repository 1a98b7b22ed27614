//! HTTP/2 with an endpoint: connections that the requests of a worker share, each request a stream of one.
//!
//! [`links`] has the connections of a cluster and gives out shares of them, [`link`] is one connection and its streams, and [`mux`] the task
//! that owns its socket. A request sees a [`crate::net::lane`]: a stream socket, on which it speaks as on any other, so that what is sent once can be sent
//! again wherever it turns to, whatever is spoken there.

pub(super) mod link;
pub(super) mod links;
mod mux;

use super::attempt::Attempt;
use super::failure::{Ending, Failure};
use super::inbound::Inbound;
use super::lease::Lease;
use super::opening::connect;
use crate::config::Protocol;
use crate::error::ProxyError;
use crate::policy::retry::Sent;
use crate::tls::HTTP2;
use links::Links;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// A share of a connection. While one is being made the others wait for it; `reuse`: this is the request's first try here.
pub(super) async fn open(
    inbound: &Inbound<'_>,
    attempt: &Attempt,
    links: &Rc<Links>,
    reuse: bool,
) -> Result<Lease, Failure> {
    let config = &inbound.worker.shared.config.clusters[attempt.cluster.index()];
    let unsent = Failure::Reset { sent: Sent::Nothing, ending: Ending::Shared };
    loop {
        if let Some(lease) = links.checkout(attempt.endpoint, reuse) {
            return Ok(lease);
        }
        let site = links.site(attempt.endpoint);
        if let Some(making) = site.begin_making() {
            let stream = connect(inbound, attempt).await.inspect_err(|_| making.fail())?;
            let is_http2 = match config.protocol {
                Protocol::Negotiated => stream.tls().is_some_and(|session| session.is_for(HTTP2)),
                _ => true,
            };
            if !is_http2 {
                making.is_not_shared();
                return Ok(Lease::new(stream));
            }
            let link = link::Link::new(stream.is_encrypted(), site, links.streams_max);
            site.add(&link);
            mux::spawn(inbound.worker.worker(), link, stream, config.idle_timeout);
            continue;
        }
        let (seen, failures) = (site.changes(), site.failures());
        let guard = attempt.watch.over_pause(attempt.connect_until).on_behalf_of(inbound.watch);
        let has_changed = poll_fn(|cx| {
            if site.changes() != seen {
                return Poll::Ready(true);
            }
            if !site.wait(cx) {
                return Poll::Ready(false);
            }
            attempt.watch.poll_passed(cx).map(|()| false)
        });
        let has_changed = has_changed.await;
        drop(guard);
        match has_changed {
            _ if inbound.watch.has_left() => return Err(Failure::Downstream(ProxyError::ClientClosed)),
            // it was one attempt to connect, and who has made it answers for it
            _ if site.failures() != failures => return Err(unsent),
            true => {}
            false => return Err(unsent),
        }
    }
}
