//! What goes over a connection: a protocol as bytes in, outcomes out, and the connection that carries it.
//!
//! [`Codec`] is the small interface of a protocol with one request a connection, [`Http2`] that of one with many, [`Link`] that of a connection,
//! with TLS or without. None of them knows when anything is due.

mod chunks;
mod http1;
mod http2;
mod link;
mod tls;

pub use http1::Http1;
pub use http2::{Ended, Head, Http2, is_of_connections};
pub use link::{Link, Readiness, Taken, Tcp};
pub use tls::{Secure, TlsClient, TlsSettings, believed, server_name};

use crate::load::Target;

/// Why a request is none that was answered well. Each counts as a latency of ∞.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection was reset before the answer was whole.
    Reset,
    /// The connection ended before the answer was whole.
    Closed,
    /// A kept connection ended, with nothing of an answer, when the request was already under way on it.
    Stale,
    /// No whole answer within the load's timeout of the due time.
    Timeout,
    /// What came is no HTTP of the version that was asked for.
    Garbage,
    /// More came than the answer, or an answer that nobody asked for.
    Surplus,
    /// A status that is not good.
    Status,
    /// A body without what it should contain.
    Body,
    /// Not even begun within the timeout: every connection was busy.
    Unsent,
    /// This machine could not: no descriptor, port or memory left. No fault of who is tested.
    Local,
    /// Any other error of a connection: no route, a network that is down.
    Network,
    /// TLS was not agreed on, or broke: a certificate that is not believed, an alert, bytes that are no TLS, a server that does not speak HTTP/2.
    Tls,
    /// HTTP/2: the server said that it goes (GOAWAY) and did not look at the request, or went before the answer was whole.
    Goaway,
    /// HTTP/2: the server reset the request's stream.
    StreamReset,
    /// HTTP/2: the server reset the request's stream and said that it had not looked at it (REFUSED_STREAM).
    StreamRefused,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Refused,
        Self::Reset,
        Self::Closed,
        Self::Stale,
        Self::Timeout,
        Self::Garbage,
        Self::Surplus,
        Self::Status,
        Self::Body,
        Self::Unsent,
        Self::Local,
        Self::Network,
        Self::Tls,
        Self::Goaway,
        Self::StreamReset,
        Self::StreamRefused,
    ];

    /// Its name in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Stale => "stale",
            Self::Timeout => "timeout",
            Self::Garbage => "garbage",
            Self::Surplus => "surplus",
            Self::Status => "status",
            Self::Body => "body",
            Self::Unsent => "unsent",
            Self::Local => "local",
            Self::Network => "network",
            Self::Tls => "tls",
            Self::Goaway => "goaway",
            Self::StreamReset => "stream-reset",
            Self::StreamRefused => "stream-refused",
        }
    }

    /// What it means, for who reads a result for the first time.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Refused => "nobody listens there",
            Self::Reset => "the connection was reset before the answer was whole",
            Self::Closed => "the connection ended before the answer was whole",
            Self::Stale => "a kept connection ended, with nothing of an answer",
            Self::Timeout => "no whole answer within the timeout",
            Self::Garbage => "the answer was no HTTP",
            Self::Surplus => "more came than the answer",
            Self::Status => "another status than a good one",
            Self::Body => "a body without what it should contain",
            Self::Unsent => "not begun within the timeout: every connection was busy",
            Self::Local => "this machine had no descriptor, port or memory left",
            Self::Network => "no way to the server",
            Self::Tls => "TLS was not agreed on: a certificate that is not believed, or no TLS there",
            Self::Goaway => "the server went (GOAWAY)",
            Self::StreamReset => "the server reset the stream",
            Self::StreamRefused => "the server did not look at the stream",
        }
    }

    /// Its row among [`Failure::ALL`].
    #[must_use]
    pub const fn row(self) -> usize {
        self as usize
    }
}

/// An answer that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// What is wrong with it, if anything.
    pub failure: Option<Failure>,
    /// The connection may serve another request.
    pub keeps: bool,
}

/// What bytes have led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The answer is not whole.
    More,
    /// It is.
    Answered(Answer),
    /// There will be no answer, and the connection is of no use.
    Failed(Failure),
}

/// A protocol that has one request under way on a connection.
pub trait Codec {
    /// A request was sent; what comes from now on is its answer.
    fn begin(&mut self, target: &Target);

    /// Bytes came.
    fn receive(&mut self, bytes: &[u8], target: &Target) -> Step;

    /// No more bytes will come.
    fn end(&mut self, target: &Target) -> Step;

    /// Something of the answer has come.
    fn has_begun(&self) -> bool;
}
