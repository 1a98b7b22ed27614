//! `checkout`: a pooled connection to the endpoint of an attempt, or a new one.

use super::attempt::Attempt;
use super::failure::{Ending, Failure};
use super::generation::Generation;
use super::greeting;
use super::hop::Hop;
use super::inbound::Inbound;
use super::lease::Lease;
use super::proxied;
use super::report::{COMPLAINT_PAUSE, Report};
use super::up;
use crate::config::{Address, Protocol};
use crate::error::ProxyError;
use crate::net::clock;
use crate::net::connecting;
use crate::net::fault::{self, Fault};
use crate::net::stream::Stream;
use crate::net::tls::handshake::{self, Failed};
use crate::observe::labels::HandshakeFailure;
use crate::policy::retry::Sent;
use crate::tls::HTTP2;
use crate::tls::demand::for_http1;
use crate::units::Instant;
use std::fmt::Display;
use std::io;

/// A pooled connection if one may be taken, else a new one.
pub(super) async fn open(
    inbound: &Inbound<'_>,
    attempt: &Attempt,
    reuse: bool,
    now: Instant,
) -> Result<Lease, Failure> {
    if reuse && let Some(lease) = inbound.worker.checkout(attempt.cluster, attempt.endpoint, now) {
        return Ok(lease);
    }
    if let Some(links) = inbound.worker.links(attempt.cluster) {
        return Box::pin(up::open(inbound, attempt, links, reuse)).await;
    }
    // boxed: most requests find a connection, and every connection of a client would hold the room for making one
    let stream = Box::pin(connect(inbound, attempt, false)).await?;
    Ok(Lease::new(stream))
}

/// Whether a request whose pooled connection was closed may be sent on a new one.
pub(super) fn may_repair(sent: Sent, hop: &Hop<'_>) -> bool {
    let may_repeat = match hop.attempt.strict {
        true => !hop.has_sent(),
        false => hop.attempt.repeatable || sent == Sent::Nothing,
    };
    // a part of the request may be gone with the connection, and half a request must not be sent
    may_repeat && hop.upload.can_begin()
}

/// A connection that has just been made; `is_http1`: on which nothing else is to be spoken, whatever else the endpoint offers.
pub(super) async fn connect(inbound: &Inbound<'_>, attempt: &Attempt, is_http1: bool) -> Result<Stream, Failure> {
    let worker = inbound.worker;
    let watch = &attempt.watch;
    let cluster = &worker.shared.config.clusters[attempt.cluster.index()];
    let address = &cluster.endpoints[attempt.endpoint.index()].address;
    let connecting = connecting::connect(address).await.map_err(|error| unconnected(&error, address))?;
    let _guard = watch.over_connecting(connecting.fd(), attempt.connect_until).on_behalf_of(inbound.watch);
    let unless_ended = |failure| match watch.expired() {
        _ if inbound.watch.has_left() => Failure::Downstream(ProxyError::ClientClosed),
        true if watch.was_away() => Failure::Overslept { sent: Sent::Nothing },
        true => Failure::ConnectTimedOut,
        false => failure,
    };
    let mut stream = connecting.established().await.map_err(|error| unless_ended(unconnected(&error, address)))?;
    if cluster.tls.is_none() {
        worker.cluster(attempt.cluster).borrow_mut().on_connected(attempt.endpoint, clock::now());
    }
    let introduced = proxied::introduce(inbound, &stream, cluster.proxy_protocol).await;
    introduced.map_err(|error| unless_ended(Failure::broken(Some(&error), Sent::Nothing)))?;
    if let (Some(tls), Some(rules)) = (&cluster.tls, worker.tls_rules(attempt.cluster)) {
        let endpoint = &cluster.endpoints[attempt.endpoint.index()];
        let Some(name) = tls.name_of(endpoint) else {
            worker.complain_of_handshake(attempt, HandshakeFailure::Name, &"nothing says what it is called (tls.name)");
            return Err(Failure::Refused);
        };
        let rules = if is_http1 { &for_http1(rules) } else { rules };
        let made = handshake::connect(&mut stream, rules, name).await;
        made.map_err(|failed| {
            let is_late = watch.expired() && !watch.was_away() && !inbound.watch.has_left();
            unless_ended(unsure(worker, attempt, &failed, is_late))
        })?;
        if cluster.protocol == Protocol::Http2 && !stream.tls().is_some_and(|session| session.is_for(HTTP2)) {
            let why = &"it does not speak HTTP/2 (ALPN)";
            worker.complain_of_handshake(attempt, HandshakeFailure::Protocol, why);
            return Err(Failure::Refused);
        }
        worker.cluster(attempt.cluster).borrow_mut().on_connected(attempt.endpoint, clock::now());
    }
    match inbound.watch.has_left() {
        true => Err(Failure::Downstream(ProxyError::ClientClosed)),
        false => Ok(stream),
    }
}

/// What it means that no session could be made on a connection: nothing of the request was sent, and nobody is there to send it to.
fn unsure(worker: &Generation, attempt: &Attempt, failed: &Failed, is_late: bool) -> Failure {
    if let Failed::Broken(error) = failed
        && fault::is_ours(error)
    {
        return Failure::Exhausted;
    }
    match is_late {
        true => {
            worker.complain_of_handshake(attempt, HandshakeFailure::Timeout, &"it was not over within connect_timeout")
        }
        false => worker.complain_of_handshake(attempt, greeting::failure(failed.reason()), failed),
    }
    Failure::Refused
}

/// What it means that no connection could be made.
fn unconnected(error: &io::Error, address: &Address) -> Failure {
    match fault::of_connecting(error, address) {
        Fault::Refused | Fault::Unreachable => Failure::Refused,
        Fault::TimedOut => Failure::ConnectTimedOut,
        Fault::Lacking | Fault::Forbidden => Failure::Exhausted,
        Fault::Overrun => Failure::Reset { sent: Sent::Nothing, ending: Ending::Overrun },
        // it may be the endpoint, and it may not
        Fault::Unknown => Failure::Reset { sent: Sent::Nothing, ending: Ending::Failed },
    }
}

impl Generation {
    /// Has the operator told why there is no session with an endpoint, unless that was said a moment ago.
    pub(super) fn complain_of_handshake(&self, attempt: &Attempt, reason: HandshakeFailure, why: &dyn Display) {
        let now = clock::now();
        self.recorder.endpoint_handshake_failed(attempt.cluster, attempt.endpoint, reason, now);
        let mut told = self.complaints.handshakes.borrow_mut();
        let quiet_until = told.entry((attempt.cluster, attempt.endpoint)).or_default();
        if now >= *quiet_until {
            *quiet_until = now + COMPLAINT_PAUSE;
            let Attempt { cluster, endpoint, .. } = *attempt;
            let (worker, why) = (self.life.worker(), why.to_string().into());
            self.report(&self.shared.config, Report::Handshake { worker, cluster, endpoint, reason, why });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::exchange::Event;

    #[test]
    fn only_who_cannot_be_reached_is_taken_for_dead() {
        let of = |errno, address: &Address| unconnected(&io::Error::from_raw_os_error(errno), address).event();
        let tcp = Address::Tcp("192.0.2.1:80".parse().unwrap());
        let soft = Event::ResetBeforeHead { sent: Sent::Nothing, excused: false };
        for (errno, event) in [
            (libc::ECONNREFUSED, Event::ConnectFailed),
            (libc::EHOSTUNREACH, Event::ConnectFailed),
            (libc::ETIMEDOUT, Event::ConnectTimedOut),
            (libc::EMFILE, Event::Exhausted),
            (libc::ENOSPC, Event::Exhausted),
            (libc::EAGAIN, Event::Exhausted),
            (libc::EPERM, Event::Exhausted),
            (libc::EINVAL, soft),
        ] {
            assert_eq!(of(errno, &tcp), event, "{errno}");
        }
        let overrun = Event::ResetBeforeHead { sent: Sent::Nothing, excused: true };
        assert_eq!(of(libc::EAGAIN, &Address::Unix("/run/service.sock".into())), overrun);
    }
}
