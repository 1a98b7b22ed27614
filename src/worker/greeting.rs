//! TLS with a client: the handshake, before the first request.
//!
//! It is in the straight line of accepting: behind a PROXY header, which is never encrypted, and before anything is read. All of it has
//! `header_timeout`, as a head has, and a place among those of its worker and of its client ([`super::handshakes`]). A client that speaks plain
//! HTTP is told so in plain HTTP, because that is what it understands.

use super::client::Connection;
use super::generation::Generation;
use super::inbound::Inbound;
use super::parting;
use super::record::Record;
use crate::error::{ProxyError, Rule};
use crate::http::Version;
use crate::http::reply::{self, ReplyTo};
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::tls::Session;
use crate::net::tls::handshake::{self, Failed, Reason};
use crate::observe::access_log::LogTls;
use crate::observe::labels::{HandshakeFailure, TlsVersion};
use crate::tls::Identity;
use crate::tls::challenges::PROTOCOL;
use crate::units::{Instant, ListenerId};
use rustls::{ProtocolVersion, ServerConfig};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Makes the session by the listener's rules; `first` is what has arrived behind a PROXY header. False: the connection is to be closed, which
/// has been counted.
pub(super) async fn greet(
    worker: &Rc<Generation>,
    listener: ListenerId,
    connection: &mut Connection,
    rules: &Arc<ServerConfig>,
    first: Block,
) -> bool {
    let deadline = clock::now() + connection.inbound(worker, listener).config().header_timeout;
    let mut is_late = false;
    if first.is_empty() {
        // who has not begun is idle: a drain ends that
        let _guard = connection.watch.over_idle(&connection.stream, deadline);
        let _ = connection.stream.readable().await;
        is_late = connection.watch.expired() && clock::now() >= deadline;
    }
    let began = clock::now();
    let failed = match shake(worker, listener, connection, (rules, first), deadline).await {
        Ok(()) => {
            let session = connection.stream.tls();
            let is_13 = session.is_some_and(|session| session.version() == Some(ProtocolVersion::TLSv1_3));
            let version = if is_13 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
            let is_resumed = session.is_some_and(Session::is_resumed);
            worker.recorder.handshake(listener, version, is_resumed, clock::now().since(began));
            if session.is_some_and(|session| session.is_for(PROTOCOL)) {
                // who looks at a certificate has seen it
                connection.stream.say_farewell();
                return false;
            }
            let judge = connection.inbound(worker, listener).config().tls.as_ref().and_then(|tls| tls.clients.as_ref());
            if let (Some(session), Some(judge)) = (session, judge) {
                session.set_judge(judge);
            }
            return true;
        }
        Err(failed) => failed,
    };
    is_late |= connection.watch.expired() && matches!(failed, Failed::Silent | Failed::Closed | Failed::Broken(_));
    if matches!(failed, Failed::Silent) && !is_late {
        // who only looks whether the port answers, as balancers do
        return false;
    }
    let reason = if is_late { HandshakeFailure::Timeout } else { failure(failed.reason()) };
    worker.recorder.handshake_failed(listener, reason);
    match failed {
        Failed::Plain => refuse_plain(&connection.inbound(worker, listener)).await,
        // one of TLS 1.3 believes that it has a session, and sends its request: a reset would take the alert that says why with it
        Failed::Refused(_) => parting::linger(&connection.inbound(worker, listener), Block::default()).await,
        Failed::Silent | Failed::Closed | Failed::Broken(_) => {}
    }
    false
}

/// The handshake itself, once there is a place for it.
async fn shake(
    worker: &Generation,
    listener: ListenerId,
    connection: &mut Connection,
    (rules, first): (&Arc<ServerConfig>, Block),
    deadline: Instant,
) -> Result<(), Failed> {
    let Connection { stream, watch, client, .. } = connection;
    let (door, peer) = (&client.door, client.peer);
    let _guard = watch.over_connecting(stream.fd(), deadline);
    // behind a balancer that is trusted there are many
    let client = peer.client().filter(|_| !peer.trusted);
    let mut place = door.worker.handshakes.enter(client);
    if place.waits() {
        worker.recorder.handshake_queued(listener);
        let mut free_or_late = |cx: &mut Context<'_>| match place.poll_free(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => watch.poll_passed(cx).map(|()| false),
        };
        if !poll_fn(&mut free_or_late).await {
            worker.put(first);
            return Err(Failed::Closed);
        }
    }
    let _counted = UnderWay::new(worker, listener);
    handshake::serve(stream, rules, first).await
}

/// Tells a client that speaks plain HTTP what is spoken here.
async fn refuse_plain(inbound: &Inbound<'_>) {
    let worker = inbound.worker;
    let mut last = worker.blocks.borrow_mut().small();
    let (now, server) = (clock::now(), &inbound.config().server);
    let to = ReplyTo {
        version: Version::Http11,
        head_only: false,
        close: true,
        date: &worker.date(now),
        server,
        rules: None,
        lines: b"",
        call_type: None,
        errors: &inbound.config().errors,
        id: b"",
    };
    reply::malformed(last.vec_mut(), Rule::PlainHttp, &to);
    let mut record = Record::new(inbound, now);
    record.on_unread(inbound, b"");
    record.on_malformed(Rule::PlainHttp);
    record.on_error(ProxyError::BadRequest);
    record.response_bytes = last.unread().len() as u64;
    parting::finish(inbound, last, record, Block::default(), true).await;
}

/// The word for it.
pub(crate) fn failure(reason: Reason) -> HandshakeFailure {
    match reason {
        Reason::PlainHttp => HandshakeFailure::PlainHttp,
        Reason::Closed => HandshakeFailure::Closed,
        Reason::Broken => HandshakeFailure::Broken,
        Reason::Version => HandshakeFailure::Version,
        Reason::Cipher => HandshakeFailure::Cipher,
        Reason::Issuer => HandshakeFailure::Issuer,
        Reason::Expired => HandshakeFailure::Expired,
        Reason::Name => HandshakeFailure::Name,
        Reason::Certificate => HandshakeFailure::Certificate,
        Reason::Alert => HandshakeFailure::Alert,
        Reason::Protocol => HandshakeFailure::Protocol,
    }
}

/// What is said about the session of a connection that carries many requests, whose streams have none of their own.
#[derive(Debug)]
pub(super) struct SessionFacts {
    tls: LogTls,
    server_name: String,
    /// Who the client is by its certificate.
    identity: Option<Identity>,
}

impl SessionFacts {
    /// Of a connection; `None`: it is plain.
    pub(super) fn of(stream: &Stream) -> Option<Self> {
        let session = stream.tls()?;
        let server_name = session.with_server_name(|name| name.unwrap_or_default().to_owned());
        Some(Self { tls: log_tls(session), server_name, identity: session.identity().cloned() })
    }
}

fn log_tls(session: &Session) -> LogTls {
    LogTls {
        version: session.version().map_or(0, u16::from),
        suite: session.suite().map_or(0, |suite| u16::from(suite.suite())),
        is_resumed: session.is_resumed(),
    }
}

impl Inbound<'_> {
    /// What the log says about its session.
    pub(super) fn log_tls(&self) -> Option<LogTls> {
        self.session.map(|facts| facts.tls).or_else(|| self.stream.tls().map(log_tls))
    }

    /// Asks for the name that its session has asked for; not of one without a session.
    pub(super) fn with_server_name(&self, ask: impl FnOnce(&str)) {
        if let Some(facts) = self.session {
            ask(&facts.server_name);
        } else if let Some(session) = self.stream.tls() {
            session.with_server_name(|name| ask(name.unwrap_or_default()));
        }
    }

    /// Whether its client would be let in by what its listener asks of clients now; a refusal is counted. A revocation list or an authority
    /// that has changed counts from the next request on, for who is here already as well.
    pub(super) fn is_let_in(&self) -> bool {
        let judge = self.config().tls.as_ref().and_then(|tls| tls.clients.as_ref());
        let is_let_in =
            judge.is_none_or(|judge| self.stream.tls().is_some_and(|session| session.is_believed_by(judge)));
        if !is_let_in {
            self.worker.recorder.handshake_failed(self.listener, HandshakeFailure::Certificate);
        }
        is_let_in
    }

    /// Who its client is by its certificate, if it has shown one that was believed.
    pub(super) fn identity(&self) -> Option<&Identity> {
        match self.session {
            Some(facts) => facts.identity.as_ref(),
            None => self.stream.tls()?.identity(),
        }
    }

    /// How what it carries is called in a URL.
    pub(super) fn scheme(&self) -> &'static str {
        if self.stream.is_encrypted() { "https" } else { "http" }
    }
}

/// Counts a handshake that has its place, until it is dropped.
struct UnderWay<'w>(&'w Generation, ListenerId);

impl<'w> UnderWay<'w> {
    fn new(worker: &'w Generation, listener: ListenerId) -> Self {
        worker.recorder.handshake_begins(listener);
        Self(worker, listener)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.recorder.handshake_ends(self.1);
    }
}
