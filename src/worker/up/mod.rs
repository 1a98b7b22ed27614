//! HTTP/2 with an endpoint: connections that the requests of a worker share, each request a stream of one.
//!
//! [`links`] has the connections of a cluster and gives out shares of them, [`link`] is one connection and its streams, and [`mux`] the task
//! that owns its socket ([`writing`] is what it sends, [`owed`] what it waits for). A request sees a [`crate::net::lane`]: a stream socket, on which it speaks as on any other, so that what is sent once can be sent
//! again wherever it turns to, whatever is spoken there.

pub(super) mod link;
pub(super) mod links;
mod mux;
mod owed;
mod writing;

use super::attempt::Attempt;
use super::failure::{Ending, Failure};
use super::inbound::Inbound;
use super::lease::Lease;
use super::opening::connect;
use crate::config::Protocol;
use crate::error::ProxyError;
use crate::net::clock;
use crate::policy::retry::Sent;
use crate::tls::HTTP2;
use link::Link;
use links::{Links, Making, Site};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// A share of a connection. While one is being made the others wait for it; `reuse`: this is the request's first try here.
///
/// It is made when the endpoint's SETTINGS are here, which say how many streams it takes; it has until the end of the connect phase for them.
pub(super) async fn open(
    inbound: &Inbound<'_>,
    attempt: &Attempt,
    links: &Rc<Links>,
    reuse: bool,
) -> Result<Lease, Failure> {
    let unsent = |ending| Failure::Reset { sent: Sent::Nothing, ending };
    let site = links.site(attempt.endpoint);
    let mut made: Option<(Making, Rc<Link>)> = None;
    loop {
        if let Some(lease) = links.checkout(attempt.endpoint, reuse) {
            return Ok(lease);
        }
        if links.gives_none(attempt.endpoint) {
            return Err(Failure::NoStreams);
        }
        if made.as_ref().is_some_and(|(_, link)| link.is_greeted()) {
            made = None; // others were quicker
        }
        if made.is_none()
            && let Some(making) = site.begin_making()
        {
            match make(inbound, attempt, links).await.inspect_err(|_| making.fail())? {
                Made::Whole(lease) => {
                    making.is_not_shared();
                    return Ok(lease);
                }
                Made::Link(link) => made = Some((making, link)),
            }
        }
        let (seen, failures) = (site.changes(), site.failures());
        let has_changed = wait(inbound, attempt, site, seen).await;
        if inbound.watch.has_left() {
            return Err(Failure::Downstream(ProxyError::ClientClosed));
        }
        match &made {
            // it has come to nothing: who has made it answers for it, and the others are told
            Some((making, link)) if !has_changed || link.is_lost() => {
                making.fail();
                link.drain();
                if link.is_violated() {
                    return Err(Failure::NotSpoken);
                }
                let is_ours = inbound.worker.timers.was_away(clock::now());
                return Err(unsent(if is_ours { Ending::Short } else { Ending::Failed }));
            }
            None if !has_changed && !site.grants_one_more() => return Err(Failure::NoStreams),
            None if !has_changed || site.failures() != failures => return Err(unsent(Ending::Shared)),
            _ => {}
        }
    }
}

/// What has come of making a connection.
enum Made {
    Link(Rc<Link>),
    /// It is spoken to in HTTP/1.1, and the request has it alone.
    Whole(Lease),
}

async fn make(inbound: &Inbound<'_>, attempt: &Attempt, links: &Links) -> Result<Made, Failure> {
    let config = &inbound.worker.shared.config.clusters[attempt.cluster.index()];
    let site = links.site(attempt.endpoint);
    let stream = connect(inbound, attempt, site.requires_http1()).await?;
    let is_negotiated = config.protocol == Protocol::Negotiated;
    if is_negotiated && !stream.tls().is_some_and(|session| session.is_for(HTTP2)) {
        return Ok(Made::Whole(Lease::new(stream)));
    }
    let link = Link::new(stream.is_encrypted(), is_negotiated, site, links.streams_max);
    site.add(&link);
    mux::spawn(inbound.worker.worker(), Rc::clone(&link), stream, config.idle_timeout);
    Ok(Made::Link(link))
}

/// Waits until something has changed at the endpoint since it was `seen`; false: time is over, or too many wait.
async fn wait(inbound: &Inbound<'_>, attempt: &Attempt, site: &Site, seen: u64) -> bool {
    let _guard = attempt.watch.over_pause(attempt.connect_until).on_behalf_of(inbound.watch);
    let has_changed = poll_fn(|cx| {
        if site.changes() != seen {
            return Poll::Ready(true);
        }
        if !site.wait(cx) {
            return Poll::Ready(false);
        }
        attempt.watch.poll_passed(cx).map(|()| false)
    });
    has_changed.await
}
