//! The shared connections of a cluster on one worker, and the shares of them that requests have.

use super::link::{Link, Seat};
use crate::config;
use crate::error::ProxyError;
use crate::net::clock;
use crate::net::upstream::Upstream;
use crate::observe::labels::Http2Failure;
use crate::policy::calm::Calm;
use crate::policy::retry::Sent;
use crate::units::EndpointId;
use crate::worker::failure::{Ending, Failure};
use crate::worker::lease::Lease;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Connections of a worker to one endpoint; beyond them requests wait for a stream.
const LINKS_MAX: usize = 16;
/// The same with those that take no more streams and end when the last of theirs does: a service that ends its connections by their age, and
/// serves long streams, has one of these an age.
const LINKS_LEAVING_MAX: usize = 16 * LINKS_MAX;
/// Requests that wait for one.
const WAITING_MAX: usize = 10_000;

/// Of one cluster.
pub(in crate::worker) struct Links {
    sites: Box<[Rc<Site>]>,
    pub(in crate::worker) streams_max: usize,
}

impl Links {
    pub(in crate::worker) fn new(config: &config::Cluster) -> Rc<Self> {
        let streams_max = config.streams_max as usize;
        let sites = config.endpoints.iter().map(|_| Rc::new(Site { streams_max, ..Site::default() })).collect();
        Rc::new(Self { sites, streams_max })
    }

    pub(in crate::worker) fn site(&self, endpoint: EndpointId) -> &Rc<Site> {
        &self.sites[endpoint.index()]
    }

    /// A stream of the first connection that has room.
    pub(in crate::worker) fn checkout(&self, endpoint: EndpointId, reuse: bool) -> Option<Lease> {
        let site = self.site(endpoint);
        if site.calm.get().is_some() && !site.grants_one_more() {
            return None;
        }
        let links = site.links.borrow();
        let link = links.iter().find(|link| link.has_room())?;
        Some(Lease::Shared(Share { seat: link.sit(), link: Rc::clone(link), is_finished: false, reuse }))
    }

    /// Whether an endpoint takes no streams on any connection that it has.
    pub(super) fn gives_none(&self, endpoint: EndpointId) -> bool {
        let links = self.site(endpoint).links.borrow();
        let mut open = links.iter().filter(|link| !link.is_draining.get()).peekable();
        open.peek().is_some() && open.all(|link| link.gives_none())
    }

    /// Nobody takes from them any more: they end with what is under way.
    pub(in crate::worker) fn retire(&self) {
        self.sites.iter().for_each(|site| {
            site.is_retired.set(true);
            site.links.borrow().iter().for_each(|link| link.drain());
        });
    }
}

/// Of one endpoint.
#[derive(Default)]
pub(in crate::worker) struct Site {
    links: RefCell<Vec<Rc<Link>>>,
    is_making: Cell<bool>,
    is_retired: Cell<bool>,
    /// What it speaks is not HTTP/2: nobody waits for another's connection.
    is_not_shared: Cell<bool>,
    /// It has asked for HTTP/1.1 where it could have had HTTP/2.
    requires_http1: Cell<bool>,
    changes: Cell<u64>,
    failures: Cell<u64>,
    /// Requests on all of its connections.
    streams: Cell<usize>,
    /// Of one connection.
    streams_max: usize,
    /// It has asked for calm, and not long ago.
    calm: Cell<Option<Calm>>,
    /// What has happened to its connections since that was last asked for, by [`Http2Failure`].
    failed: Cell<[u32; Http2Failure::ALL.len()]>,
    waiting: RefCell<Vec<Waker>>,
}

impl Site {
    /// The right to make a connection, if nobody has it.
    pub(super) fn begin_making(self: &Rc<Self>) -> Option<Making> {
        let may_share = || !self.is_making.get() && self.has_room_for_one() && self.grants_one_more();
        let is_free = self.is_not_shared.get() || may_share();
        is_free.then(|| {
            self.is_making.set(true);
            Making(Rc::clone(self))
        })
    }

    fn has_room_for_one(&self) -> bool {
        let links = self.links.borrow();
        links.len() < LINKS_MAX
            || (links.len() < LINKS_LEAVING_MAX
                && links.iter().filter(|link| !link.is_draining.get()).count() < LINKS_MAX)
    }

    /// A request has a stream of it.
    pub(super) fn begin_stream(&self) {
        self.streams.set(self.streams.get() + 1);
    }

    /// So many have theirs no more.
    pub(super) fn end_streams(&self, count: usize) {
        self.streams.set(self.streams.get().saturating_sub(count));
    }

    /// It asks for calm: fewer requests at once from now on ([`crate::policy::calm`]).
    #[cold]
    pub(super) fn on_calm(&self) {
        if let Some(calm) = Calm::asked(self.calm.get(), self.streams.get(), self.streams_max, clock::now()) {
            self.calm.set(Some(calm));
            self.note(Http2Failure::EnhanceYourCalm);
        }
    }

    /// Whether one more request may be put on it, after what it has said.
    #[inline(never)]
    pub(super) fn grants_one_more(&self) -> bool {
        let Some(calm) = self.calm.get() else { return true };
        let limit = calm.limit(clock::now());
        if limit >= LINKS_MAX * self.streams_max {
            self.calm.set(None);
        }
        self.streams.get() < limit
    }

    /// Notes what has happened to a connection of it.
    #[cold]
    pub(super) fn note(&self, failure: Http2Failure) {
        let mut failed = self.failed.get();
        failed[failure.index()] = failed[failure.index()].saturating_add(1);
        self.failed.set(failed);
    }

    /// What has happened since this was last asked for, by [`Http2Failure`].
    pub(in crate::worker) fn take_failed(&self) -> [u32; Http2Failure::ALL.len()] {
        self.failed.take()
    }

    pub(super) fn add(&self, link: &Rc<Link>) {
        self.is_not_shared.set(false);
        if self.is_retired.get() {
            // who makes it uses it, and nobody after
            link.drain_behind_first();
        }
        self.links.borrow_mut().push(Rc::clone(link));
    }

    pub(super) fn remove(&self, link: &Link) {
        self.links.borrow_mut().retain(|other| !std::ptr::eq(Rc::as_ptr(other), link));
        self.changed();
    }

    /// Whether it is spoken to in HTTP/1.1, whatever else it offers.
    pub(super) fn requires_http1(&self) -> bool {
        self.requires_http1.get()
    }

    pub(super) fn require_http1(&self) {
        self.requires_http1.set(true);
        self.is_not_shared.set(true);
        self.changed();
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes.get()
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Has a task woken with the next change; false: too many wait.
    pub(super) fn wait(&self, cx: &Context<'_>) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= WAITING_MAX {
            return false;
        }
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        true
    }

    /// There may be room, or a connection to be made.
    pub(super) fn changed(&self) {
        self.changes.set(self.changes.get() + 1);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A connection is being made. Dropped, by whatever path, it is not any more.
pub(super) struct Making(Rc<Site>);

impl Making {
    /// Nobody is there. Who waits is told.
    pub(super) fn fail(&self) {
        self.0.failures.set(self.0.failures.get() + 1);
    }

    /// The endpoint has chosen HTTP/1.1.
    pub(super) fn is_not_shared(&self) {
        self.0.is_not_shared.set(true);
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.0.is_making.set(false);
        self.0.changed();
    }
}

/// A stream of a shared connection, for one request. Dropped, it is reset.
pub(in crate::worker) struct Share {
    seat: Rc<Seat>,
    link: Rc<Link>,
    is_finished: bool,
    reuse: bool,
}

/// Why a stream has ended, if its connection knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Loss {
    /// It has not, or by itself.
    #[default]
    None,
    /// The endpoint has not looked at it, because the connection was to end (RFC 9113 §6.8).
    Unprocessed,
    /// The endpoint has refused it, and not looked at it (§8.7).
    Refused,
    /// What the endpoint has sent on it is no response (§8.1.1), or breaks another rule about streams.
    Malformed,
    /// The connection is lost.
    Connection,
}

impl Share {
    pub(in crate::worker) fn upstream(&self) -> &Upstream {
        &self.seat.upstream
    }

    /// The request and its response are through.
    pub(in crate::worker) fn finish(mut self) {
        self.is_finished = true;
        self.seat.lane.finish();
    }

    /// What is known of its end. A connection that is lost is lost once, however many streams it had: the first one who asks answers for it.
    pub(in crate::worker) fn told(&self) -> Option<Failure> {
        let ended = |sent, ending| Some(Failure::Reset { sent, ending });
        match self.seat.loss.get() {
            Loss::None => None,
            // on a new connection, once
            Loss::Unprocessed if self.reuse => ended(Sent::Nothing, Ending::Stale { may_be_read: false }),
            Loss::Unprocessed | Loss::Refused => ended(Sent::Nothing, Ending::Shared),
            Loss::Malformed => Some(Failure::BadHead(ProxyError::UpstreamProtocol)),
            Loss::Connection => {
                let sent = if self.seat.is_begun.get() { Sent::Maybe } else { Sent::Nothing };
                let is_first = self.link.blame(&self.seat);
                if is_first && self.link.is_violated() {
                    let is_unsent = sent == Sent::Nothing;
                    let begun = Failure::BadHead(ProxyError::UpstreamProtocol);
                    return Some(if is_unsent { Failure::NotSpoken } else { begun });
                }
                ended(sent, if is_first { Ending::Failed } else { Ending::Shared })
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if !self.is_finished {
            self.seat.lane.abandon();
        }
    }
}
