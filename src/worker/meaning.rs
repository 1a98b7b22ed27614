//! What a response head means for the exchange: wait for more of it, do something else, or pass it on.

use crate::http::cycle::Cycle;
use crate::http::framing::Framing;
use crate::http::response::ResponseHead;
use crate::http::trailers::Trailers;
use crate::net::block::Block;
use crate::policy::exchange::Action;
use std::time::Duration;

/// What a response head means.
pub(super) enum Meaning {
    /// It is not all there, or only an interim one.
    More,
    /// This response is not passed on.
    Next {
        /// What is done instead.
        action: Action,
        /// All of it has arrived and the endpoint keeps the connection for so long: it can carry another request.
        keep: Option<Duration>,
    },
    /// It is.
    Commit(Commit),
}

/// A response that is passed on.
pub(super) struct Commit {
    /// The head for the client; all of the response, if it is whole.
    pub(super) out: Block,
    /// The whole response has arrived already, and nothing is left to be sent to the endpoint.
    pub(super) is_whole: bool,
    /// How the endpoint's body ends.
    pub(super) from: Framing,
    /// How the client's does.
    pub(super) to: Framing,
    /// For those of the response.
    pub(super) trailers: Trailers,
    /// How long the endpoint keeps its connection; `None`: it does not.
    pub(super) keep: Option<Duration>,
    /// The client's connection before this response, in case nothing of it can be sent.
    pub(super) before: Cycle,
    /// It is a 101: no response follows, but a tunnel.
    pub(super) switching: bool,
}

impl Commit {
    /// Of a response with a body like that, which the client gets as it is.
    pub(super) fn new(framing: Framing, before: Cycle) -> Self {
        Self {
            out: Block::default(),
            is_whole: false,
            from: framing,
            to: framing,
            trailers: Trailers::default(),
            keep: None,
            before,
            switching: false,
        }
    }
}

/// How long the endpoint keeps the connection for another request, by what it says; `None`: it closes it.
pub(super) fn keep(head: &ResponseHead<'_>) -> Option<Duration> {
    head.is_persistent().then(|| head.idle_timeout().unwrap_or(Duration::MAX))
}
