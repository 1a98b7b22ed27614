//! TLS with a client: the handshake, before the first request.
//!
//! It is in the straight line of accepting: behind a PROXY header, which is never encrypted, and before anything is read. All of it has
//! `header_timeout`, as a head has. There are [`HANDSHAKES_MAX`] at most on a worker; further connections wait in the kernel. A client that
//! speaks plain HTTP is told so in plain HTTP, because that is what it understands.

use super::client::Connection;
use super::generation::Generation;
use super::inbound::Inbound;
use super::parting;
use super::record::Record;
use super::state::Worker;
use crate::error::{ProxyError, Rule};
use crate::http::Version;
use crate::http::reply::{self, ReplyTo};
use crate::limits::HANDSHAKES_MAX;
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::Stream;
use crate::net::tls::Session;
use crate::net::tls::handshake::{self, Failed, Reason};
use crate::observe::access_log::LogTls;
use crate::observe::labels::{HandshakeFailure, TlsVersion};
use crate::units::ListenerId;
use rustls::{ProtocolVersion, ServerConfig};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Makes the session by the listener's rules; `first` is what has arrived behind a PROXY header. False: the connection is to be closed, which
/// has been counted.
pub(super) async fn greet(
    worker: &Rc<Generation>,
    listener: ListenerId,
    connection: &mut Connection,
    rules: &Arc<ServerConfig>,
    first: Block,
) -> bool {
    let door = Rc::clone(&connection.client.door);
    let _under_way = UnderWay::new(&door.worker.handshakes);
    let began = clock::now();
    let deadline = began + connection.inbound(worker, listener).config().header_timeout;
    let mut is_late = false;
    let made = {
        let Connection { stream, watch, .. } = &mut *connection;
        if first.is_empty() {
            // who has not begun is idle: a drain ends that
            let _guard = watch.over_idle(stream, deadline);
            let _ = stream.readable().await;
            is_late = watch.expired() && clock::now() >= deadline;
        }
        let _guard = watch.over_connecting(stream.fd(), deadline);
        handshake::serve(stream, rules, first).await
    };
    let failed = match made {
        Ok(()) => {
            let session = connection.stream.tls();
            let is_13 = session.is_some_and(|session| session.version() == Some(ProtocolVersion::TLSv1_3));
            let version = if is_13 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
            let is_resumed = session.is_some_and(Session::is_resumed);
            worker.recorder.handshake(listener, version, is_resumed, clock::now().since(began));
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
    if matches!(failed, Failed::Plain) {
        refuse_plain(&connection.inbound(worker, listener)).await;
    }
    false
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
pub(super) fn failure(reason: Reason) -> HandshakeFailure {
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

/// What the log says about the session of a connection that carries many requests, whose streams have none of their own.
#[derive(Debug)]
pub(super) struct SessionFacts {
    tls: LogTls,
    server_name: String,
}

impl SessionFacts {
    /// Of a connection; `None`: it is plain.
    pub(super) fn of(stream: &Stream) -> Option<Self> {
        let session = stream.tls()?;
        let server_name = session.with_server_name(|name| name.unwrap_or_default().to_owned());
        Some(Self { tls: log_tls(session), server_name })
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

    /// How what it carries is called in a URL.
    pub(super) fn scheme(&self) -> &'static str {
        if self.stream.is_encrypted() { "https" } else { "http" }
    }
}

impl Worker {
    /// Whether as many handshakes are under way as may be.
    pub(super) fn is_greeting_enough(&self) -> bool {
        self.handshakes.get() >= HANDSHAKES_MAX
    }
}

/// Counts a handshake under way, until it is dropped.
struct UnderWay<'w>(&'w Cell<usize>);

impl<'w> UnderWay<'w> {
    fn new(count: &'w Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
