//! The words in which an exchange and its owner talk: facts at the start, events in, actions out.
//!
//! Plain values without behaviour; the rules are in [`crate::policy::exchange`].

use crate::error::ProxyError;
use crate::policy::deadline::Deadline;
use crate::policy::retry::{Cause, Rules, Sent};
use crate::policy::verdict::Pushback;
use crate::units::{EndpointId, Instant};
use http::StatusCode;
use std::rc::Rc;
use std::time::Duration;

/// What an exchange knows about its request from the start.
#[derive(Clone, Debug)]
pub struct Facts {
    /// T_max.
    pub deadline: Deadline,
    /// The route's retry rules; shared, because a request only looks at them.
    pub retry: Rc<Rules>,
    /// See [`crate::policy::retry::is_idempotent`].
    pub idempotent: bool,
    /// No body, or one that is (and as far as known will be) kept: at most `limits::REPLAY_BYTES_MAX`.
    pub replayable: bool,
    /// The endpoint that its session has met ([`crate::policy::sticky`]).
    pub session: Option<EndpointId>,
    /// What the hash strategies hash, from [`crate::policy::chance::hash_key`].
    pub key: Option<u64>,
    /// What a try of this route may take by what its requests usually take; `None`: unknown.
    pub try_time: Option<Duration>,
}

/// What the attempt of the last [`Action::Attempt`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The request's first.
    First,
    /// The one before could not be made, so nothing was sent: the request goes on to another endpoint.
    Failover,
    /// The request may reach a service for another time, because of this.
    Retry(Cause),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The request is admitted; also after a wait for room that followed [`ProxyError::UpstreamSaturated`].
    Start,
    /// The endpoint is at its limit over all cores; nothing was attempted.
    Saturated,
    /// The gateway itself lacks what a connection needs (descriptors, ports, memory), or may not make it; says nothing about the endpoint.
    Exhausted,
    /// No connection: refused, unreachable.
    ConnectFailed,
    /// No connection within [`Action::Attempt`]'s `connect_until`.
    ConnectTimedOut,
    /// The endpoint takes no streams of HTTP/2 (SETTINGS_MAX_CONCURRENT_STREAMS 0); nothing was sent.
    NoStreams,
    /// The endpoint does not speak HTTP/2 where it was to; nothing was sent.
    NotSpoken,
    /// The connection broke before a response head.
    ResetBeforeHead {
        /// How much may have reached the service.
        sent: Sent,
        /// Not held against the endpoint: it was a pooled connection that a healthy service may have closed just before, or an upload that
        /// waited for its client.
        excused: bool,
    },
    /// What came is not a response that can be passed on; with the reply for it.
    BadHead(ProxyError),
    /// A final response head.
    Head {
        /// Its status.
        status: StatusCode,
        /// Its Retry-After, as time from now.
        retry_after: Option<Duration>,
    },
    /// The head of an answer to a call of gRPC that has no body, and says that the call has failed; passed on unless there is something else to do.
    Code {
        /// Its `grpc-status`, which is not 0.
        code: u8,
        /// Its `grpc-retry-pushback-ms`.
        retry: Pushback,
    },
    /// No response head within [`Action::Attempt`]'s `until`; while relaying: the response body stalled.
    TimedOut,
    /// The same as a timeout, but the gateway itself has stood still meanwhile (its process, its machine); says nothing about the endpoint.
    Overslept {
        /// How much may have reached the service.
        sent: Sent,
    },
    /// The response was passed on whole.
    BodyDone,
    /// The same, and behind the body stood how the call of gRPC has ended.
    BodyDoneWith {
        /// Its `grpc-status`.
        code: u8,
    },
    /// The service broke off its response, or stalled in it, before a byte of it was passed on.
    AnswerBroken {
        /// The reply for it.
        reply: ProxyError,
        /// Not held against the endpoint: the gateway itself has stood still meanwhile.
        excused: bool,
    },
    /// The service broke off its response.
    BodyFailed,
    /// The client is gone, or its request broke; also: the owner stops for its own reasons.
    DownstreamGone,
    /// The time of [`Action::Backoff`] came.
    BackoffOver,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the request (from its start) to this endpoint.
    Attempt {
        /// Which.
        endpoint: EndpointId,
        /// Bound of the connect phase; at most `until`.
        connect_until: Instant,
        /// Bound of everything up to the response head.
        until: Instant,
    },
    /// Wait, then say [`Event::BackoffOver`].
    Backoff {
        /// Until then.
        until: Instant,
    },
    /// Pass this response on, then say [`Event::BodyDone`] or [`Event::BodyFailed`], or [`Event::AnswerBroken`] before anything was passed on.
    Relay,
    /// Answer with this; the exchange is over.
    Reply(ProxyError),
    /// Nothing more to do; the exchange is over.
    Finish,
}
