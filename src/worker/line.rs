//! A request on its way through: what the steps of the line share, and how each of them tells what it has come to.

use super::attempts::Attempts;
use super::failure::Failure;
use super::inbound::Inbound;
use super::kept::Kept;
use super::plan::Forward;
use super::record::Record;
use super::upload::{BodyState, Upload};
use crate::config::{HeaderRules, Route};
use crate::error::{Fault, ProxyError, Rule};
use crate::http::cycle::Cycle;
use crate::http::framing::Framing;
use crate::http::grpc;
use crate::http::grpc_web::Form;
use crate::http::reply::{self, ReplyTo};
use crate::net::block::Block;
use crate::policy::exchange::{Action, Event};
use crate::units::Instant;
use http::Method;
use std::time::Duration;

/// A request on its way through; what the steps of the line share.
pub(super) struct Line<'w> {
    pub(super) inbound: &'w Inbound<'w>,
    pub(super) attempts: &'w Attempts<'w>,
    pub(super) cycle: &'w mut Cycle,
    pub(super) record: &'w mut Record,
    pub(super) forward: &'w Forward,
    /// Those of its route.
    pub(super) rules: &'w Route,
    /// Its head, until that is encoded.
    pub(super) head: Option<Box<Kept>>,
    /// It has met a pooled connection that was closed, and takes none any more.
    pub(super) met_stale: bool,
    /// When the last thing that was waited for has happened: what is decided without waiting is decided at one time, and the clock
    /// is read once.
    pub(super) now: Instant,
}

/// The end of what a request gets: its last bytes, if it gets any.
#[derive(Debug, Default)]
pub(super) struct Last {
    pub(super) block: Block,
    /// The client is there to read them, and what came before.
    pub(super) is_heard: bool,
}

impl<'w> Line<'w> {
    /// The route's rules for what goes down.
    pub(super) fn response_rules(&self) -> &'w HeaderRules {
        &self.rules.response_headers
    }

    /// How long a tunnel or a stream may stand still.
    pub(super) fn tunnel_timeout(&self) -> Duration {
        self.rules.tunnel_timeout.unwrap_or(self.inbound.config().tunnel_timeout)
    }

    /// How long a body may.
    pub(super) fn body_timeout(&self) -> Duration {
        self.rules.body_timeout.unwrap_or(self.inbound.config().body_timeout)
    }

    /// Tells what an attempt has failed of. A client's failure is the end.
    pub(super) fn fail(&self, failure: Failure, upload: &Upload<'_>) -> Action {
        match failure {
            Failure::Downstream(error) => {
                self.attempts.step(Event::DownstreamGone, self.now);
                Action::Reply(error)
            }
            failure => self.step(failure.event(), upload),
        }
    }

    /// Tells what an attempt has come to. One that took a part of the request with it was the last.
    pub(super) fn step(&self, event: Event, upload: &Upload<'_>) -> Action {
        if !upload.can_begin() {
            self.attempts.forbid_replay();
        }
        self.attempts.step(event, self.now)
    }

    /// Takes down where the client is with its body.
    pub(super) fn settle(&mut self, upload: &Upload<'_>) {
        match upload.body_state() {
            BodyState::Complete => self.cycle.on_request_done(),
            BodyState::Sending => self.cycle.on_continue(),
            BodyState::Withheld => {}
            BodyState::Severed => self.cycle.on_request_broken(),
        }
    }

    /// A reply of the gateway's own in place of a response.
    pub(super) fn reply(&mut self, error: ProxyError, upload: &Upload<'_>) -> Last {
        self.record.on_error(error);
        let mut last = self.inbound.worker.blocks.borrow_mut().small();
        if error == ProxyError::ClientClosed {
            self.cycle.on_request_broken();
            return Last { block: last, is_heard: false };
        }
        self.settle(upload);
        // its body is what was wrong; or it was too slow (RFC 9110 §15.5.9: 408 ends the connection)
        if error == ProxyError::RequestTimeout || (error.fault() == Fault::Downstream && !upload.is_complete()) {
            self.cycle.on_request_broken();
        }
        let close = self.cycle.announces_close(upload.left());
        self.cycle.on_response_head(Framing::Fixed(0), !close);
        let to = ReplyTo {
            version: self.forward.version,
            head_only: self.forward.method == Method::HEAD,
            close,
            date: &self.inbound.worker.date(self.now),
            server: &self.inbound.config().server,
            rules: Some(self.response_rules()).filter(|rules| rules.always),
            lines: self.forward.own_lines.of_errors(),
            call_type: self.forward.call.map(|_| self.forward.web.map_or(grpc::CONTENT_TYPE, Form::content_type)),
            errors: &self.inbound.config().errors,
            id: self.forward.own_lines.id(),
        };
        let busy =
            matches!(error, ProxyError::NoHealthyEndpoint | ProxyError::UpstreamSaturated | ProxyError::Exhausted);
        let extra: &[(&str, &[u8])] = if busy { &[("Retry-After", b"1")] } else { &[] };
        match error {
            // its head was fine, so it is its body, and only its coding can be wrong
            ProxyError::BadRequest => {
                let rule = if self.forward.web == Some(Form::Text) { Rule::Base64 } else { Rule::Chunk };
                self.record.on_malformed(rule);
                reply::malformed(last.vec_mut(), rule, &to);
            }
            ProxyError::FaultInjected => {
                let status = self.forward.injected.as_ref().and_then(|injected| injected.abort);
                let status = status.unwrap_or(error.status());
                self.record.on_error_as(error, status);
                reply::error_as(last.vec_mut(), error, status, &to);
            }
            error => reply::error(last.vec_mut(), error, extra, &to),
        }
        self.record.response_bytes = last.unread().len() as u64;
        Last { block: last, is_heard: true }
    }
}
