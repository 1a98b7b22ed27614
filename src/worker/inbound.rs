//! A request as the line takes it: whose it is, where the rest of it comes from, and where its response goes.
//!
//! The line knows no connection. A connection of HTTP/1.1 carries one request after the other, and is source and sink itself; a protocol that
//! carries many at once hands out one of these for each, with a stream and a watch of its own. So what belongs to all of them is in the
//! [`Client`], and what belongs to one is here: also the listener's row, because each request pins the generation that it begins under.

use super::client::{Client, Connection};
use super::generation::Generation;
use super::greeting::SessionFacts;
use crate::config::{self, ForwardedFor};
use crate::error::ProxyError;
use crate::http::head::RequestHead;
use crate::http::headers::Forwarding;
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::timer::Watch;
use crate::units::{Instant, ListenerId};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

/// A request on its way in, and its response on its way out.
pub(super) struct Inbound<'c> {
    /// The generation that it has pinned.
    pub(super) worker: &'c Rc<Generation>,
    pub(super) client: &'c Client,
    /// The client's listener, in the generation that the request has pinned.
    pub(super) listener: ListenerId,
    /// Where its body comes from, and where its response goes.
    pub(super) stream: &'c Stream,
    /// Over that stream, and nothing else.
    pub(super) watch: &'c Watch,
    /// Of the connection that the stream is one of many on, if that is encrypted; a stream that is the connection has a session itself.
    pub(super) session: Option<&'c SessionFacts>,
}

impl<'c> Inbound<'c> {
    /// The client's listener.
    pub(super) fn config(&self) -> &'c config::Listener {
        &self.worker.shared.config.listeners[self.listener.index()]
    }

    /// The client's address: the peer's, or what the listener's `trusted_proxies` say of the client.
    pub(super) fn client_ip(&self, head: &RequestHead<'_>) -> IpAddr {
        let peer = self.client.peer;
        if !peer.trusted {
            return peer.ip();
        }
        let trusted = &self.config().trusted_proxies;
        // a unix socket's peer has no address but the one that stands for it
        let is_peer = |ip: IpAddr| peer.address.is_none() && ip == peer.ip();
        head.client(peer.ip(), |ip| is_peer(ip) || trusted.iter().any(|net| net.contains(&ip)))
    }

    /// Whom `X-Forwarded-For` of a request gets to name: the peer, or the client in place of what anybody has said.
    pub(super) fn told_address(&self, head: &RequestHead<'_>) -> Option<IpAddr> {
        let peer = self.client.peer;
        if peer.trusted && self.config().forwarded_for == ForwardedFor::Replace {
            let client = self.client_ip(head);
            return (peer.address.is_some() || client != peer.ip()).then_some(client);
        }
        peer.address.map(|address| address.ip().to_canonical())
    }

    /// What an endpoint is told about the client of a request, which has this id if it brings none.
    pub(super) fn forwarding<'f>(&'f self, head: &RequestHead<'_>, request_id: &'f [u8]) -> Forwarding<'f> {
        let peer = self.client.peer;
        Forwarding {
            peer: self.told_address(head),
            replaces: self.config().forwarded_for == ForwardedFor::Replace,
            is_trusted: peer.trusted,
            scheme: self.scheme(),
            request_id,
            identity: self.identity(),
            tells_certificate: self.config().tls.as_ref().is_some_and(|tls| tls.tells_certificate),
        }
    }

    /// Whether the client has left, so that an answer would be for nobody.
    pub(super) fn has_left(&self) -> bool {
        self.watch.has_left() || self.stream.is_reset()
    }

    /// Waits until then on the client's behalf, and no longer than it is there; whether it is.
    pub(super) async fn pause_until(&self, until: Instant) -> bool {
        let is_there = self.worker.timers.watch().pause_until(until, self.watch).await;
        is_there && !self.stream.is_reset()
    }

    /// Why the client has not taken what was sent to it: its time was over, or it has left.
    pub(super) fn send_failure(&self) -> ProxyError {
        if self.watch.expired() { ProxyError::ClientWriteTimeout } else { ProxyError::ClientClosed }
    }

    /// Sends all of `block`; the client may take its time, but not longer than `patience` for any part of it.
    pub(super) async fn send(&self, block: Block, patience: Duration) -> Result<(), ProxyError> {
        let _guard = self.watch.over_send(self.stream, patience, clock::now());
        let progress = || self.watch.on_sent(clock::now());
        let (sent, block) = self.stream.send_noting(block, progress).await;
        self.worker.put(block);
        sent.map_err(|_| self.send_failure())
    }
}

impl Connection {
    /// The request that it carries, under a generation in which its listener has this row.
    pub(super) fn inbound<'c>(&'c self, worker: &'c Rc<Generation>, listener: ListenerId) -> Inbound<'c> {
        Inbound { worker, client: &self.client, listener, stream: &self.stream, watch: &self.watch, session: None }
    }
}
