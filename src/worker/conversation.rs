//! `checkout → send → await_head`: one try of one request at one endpoint.
//!
//! The request goes out and the receive for the response goes in with the same turn of the loop; while a body is still being
//! uploaded, both directions run side by side, so that an endpoint may answer before it has read everything (RFC 9112 §9.5).
//!
//! Interim responses are settled here, because they come while the body goes up: `100 Continue` lets a client send that waits for it,
//! the others go to the client as they come. A retry can still follow them (RFC 9110 §15.2: they say nothing about the final one).
//! All that is sent to the client before its response is sent here, one after another.
//!
//! A pooled connection may have been closed by its server at the very moment it was taken. When one ends without a byte of response, so
//! early that this explains it, the same endpoint is tried once more on a new connection, within the same attempt: that is housekeeping,
//! not a failure of the endpoint. It is done once a request, and only if the request may be sent twice anyway, or nothing of it was sent,
//! or the kernel can prove that the endpoint never read it. A route that allows no retries (`attempts = 0`) is taken at its word: there it
//! is done only if not a byte was sent. What the endpoint may have read of the first try is counted as a try of its own.

use super::failure::{Ending, Failure};
use super::generation::Generation;
use super::going::{Going, Sending};
use super::hop::Hop;
use super::inbound::Inbound;
use super::upload::BodyState;
use crate::config::HeaderRules;
use crate::error::ProxyError;
use crate::http::reply;
use crate::http::response::ResponseHead;
use crate::http::scan::HeadScanner;
use crate::http::upgrade::Offer;
use crate::http::{Parsed, Version, encode};
use crate::limits::{CONTINUE_TIMEOUT, INTERIM_RESPONSES_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::net::block::Block;
use crate::net::clock;
use crate::net::receipt::Receipt;
use crate::net::timer;
use crate::net::upstream::Received;
use crate::observe::labels::HandshakeFailure;
use crate::policy::retry::Sent;
use crate::units::Instant;
use http::{Method, StatusCode};
use std::future::{Future as _, pending, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// A pooled connection that ends this soon after a request was sent on it had been closed before, most likely. One that ends later is a
/// failure like any other, unless it is proven that nobody has read the request.
const STALE_WITHIN: Duration = Duration::from_millis(20);

/// Looks for the reset that follows an end, one a tick: some 200 ms, more than a round trip within a region.
const RECEIPT_LOOKS: usize = 20;

/// What was asked, as far as the meaning of an answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    /// Of the client.
    pub(super) version: Version,
    /// The route's, for responses.
    pub(super) rules: &'a HeaderRules,
    /// To change the protocol.
    pub(super) offer: Option<&'a Offer>,
}

/// One request on one connection, up to its answer.
pub(super) struct Conversation<'c> {
    inbound: &'c Inbound<'c>,
    hop: &'c Hop<'c>,
    asked: Asked<'c>,
    began: Instant,
    /// The connection came from the pool, and nothing has been heard on it.
    reused: bool,
    /// The endpoint has ended its direction.
    ended: bool,
    /// The client waits for `100 Continue`.
    withheld: bool,
    interim: usize,
    scanner: HeadScanner,
    /// For the client, before its response.
    ahead: Block,
}

/// What the endpoint has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing that is an answer.
    More,
    /// The beginning of one.
    Answer,
}

/// What has happened while both directions were under way.
enum Happened {
    Received(Received),
    /// The client has waited for `100 Continue` long enough.
    Impatience,
    /// The client has failed us.
    ClientFailed(Failure),
}

impl<'c> Conversation<'c> {
    pub(super) fn new(inbound: &'c Inbound<'c>, hop: &'c Hop<'c>, asked: Asked<'c>) -> Self {
        Self {
            inbound,
            hop,
            asked,
            began: Instant::default(),
            reused: hop.lease.is_reused(),
            ended: false,
            withheld: hop.upload.body_state() == BodyState::Withheld,
            interim: 0,
            scanner: HeadScanner::default(),
            ahead: Block::default(),
        }
    }

    /// Has the request sent and listens until the final response begins; what has arrived of it is put into `answer`.
    pub(super) async fn hold(
        &mut self,
        going: &mut Going<'_, impl Sending>,
        now: Instant,
        answer: &mut Block,
    ) -> Result<(), Failure> {
        self.began = now;
        let until = self.hop.upload.time(self.hop.delivery, self.hop.attempt.until, now);
        let heard = {
            let stream = self.hop.upstream().stream();
            let over = self.hop.attempt.watch.over(stream, until, Shutdown::Both);
            let _guard = over.on_behalf_of(self.inbound.watch);
            match self.listen(going, answer).await {
                Ok(()) => Ok(()),
                Err(failure) => {
                    let (at, starved) = (clock::now(), self.hop.upload.waits_for_client());
                    // nobody will hear what it still says
                    going.settle(stream, Shutdown::Both, &self.inbound.worker.timers).await;
                    Err(self.verdict(failure, at, starved))
                }
            }
        };
        self.inbound.worker.put(std::mem::take(&mut self.ahead));
        match heard {
            Err(Failure::Reset { sent: Sent::Maybe, ending }) if self.ended => {
                Err(self.look_for_receipt(ending).await?)
            }
            heard => heard,
        }
    }

    /// What a connection means that has ended, `at` that time, while the upload was waiting for its client (`starved`) or not.
    fn verdict(&self, failure: Failure, at: Instant, starved: bool) -> Failure {
        let Failure::Reset { ending, .. } = failure else { return failure };
        if let Some(told) = self.hop.lease.told()
            && !self.hop.attempt.watch.expired()
            && !self.inbound.has_left()
        {
            return told;
        }
        if let Some(refused) = self.refused() {
            return refused;
        }
        let watch = &self.hop.attempt.watch;
        let (sent, may_be_read) = match self.hop.has_sent() {
            true => (Sent::Maybe, true),
            false => (Sent::Nothing, false),
        };
        // what we have heard late may have happened early, or because nothing was heard of us
        let was_away = self.inbound.worker.timers.was_away(at);
        let raced = self.reused && (!may_be_read || at.since(self.began) < STALE_WITHIN || was_away);
        match watch.expired() {
            // one that has left just now is not tried again for
            _ if self.inbound.has_left() => Failure::Downstream(ProxyError::ClientClosed),
            true if starved => Failure::Downstream(ProxyError::RequestTimeout),
            true if watch.was_away() => Failure::Overslept { sent },
            true => Failure::TimedOut,
            false if ending == Ending::Short => Failure::Reset { sent, ending },
            false if raced => Failure::Reset { sent, ending: Ending::Stale { may_be_read } },
            false if was_away => Failure::Reset { sent, ending: Ending::Short },
            false if starved => Failure::Reset { sent, ending: Ending::Starved },
            false => Failure::Reset { sent, ending: Ending::Failed },
        }
    }

    /// What it means that an endpoint does not believe who we are, which one of TLS 1.3 says only after the handshake: it has read nothing of the
    /// request. `attempts = 0`: what has left here is not sent again.
    #[cold]
    fn refused(&self) -> Option<Failure> {
        let why = self.hop.upstream().stream().tls().filter(|_| !self.reused)?.refusal()?;
        let attempt = &self.hop.attempt;
        self.inbound.worker.complain_of_handshake(attempt, HandshakeFailure::Alert, &why);
        let sent = if attempt.strict { Sent::Maybe } else { Sent::Nothing };
        Some(Failure::Reset { sent, ending: Ending::Failed })
    }

    /// How much of a request the endpoint can have seen that ended the connection in place of an answer, as servers do that close an idle
    /// connection just as a request is sent. Proof is waited for only where it decides something.
    async fn look_for_receipt(&self, ending: Ending) -> Result<Failure, Failure> {
        let receipt = match self.hop.upload.sent_whole_bytes(self.hop.delivery) {
            Some(sent_bytes) if self.hop.attempt.repeatable || self.hop.attempt.strict => {
                self.hop.upstream().stream().receipt(sent_bytes)
            }
            Some(sent_bytes) => self.await_receipt(sent_bytes).await?,
            None => Receipt::Perhaps,
        };
        // `attempts = 0`: what has left here is not sent again, proof or not
        let sent = if receipt == Receipt::Never && !self.hop.attempt.strict { Sent::Nothing } else { Sent::Maybe };
        let ending = match ending {
            Ending::Stale { .. } => Ending::Stale { may_be_read: receipt == Receipt::Perhaps },
            _ if self.reused && receipt == Receipt::Never => Ending::Stale { may_be_read: false },
            ending => ending,
        };
        Ok(Failure::Reset { sent, ending })
    }

    /// The reset that proves that nobody has read the request comes a round trip after the end, so it is waited for.
    async fn await_receipt(&self, sent_bytes: usize) -> Result<Receipt, Failure> {
        for _ in 0..RECEIPT_LOOKS {
            let receipt = self.hop.upstream().stream().receipt(sent_bytes);
            let next = clock::now() + timer::TICK;
            if receipt != Receipt::Pending || next >= self.hop.delivery.until.get() {
                return Ok(receipt);
            }
            if !self.inbound.pause_until(next).await {
                return Err(Failure::Downstream(ProxyError::ClientClosed));
            }
        }
        Ok(Receipt::Pending)
    }

    async fn listen(&mut self, going: &mut Going<'_, impl Sending>, answer: &mut Block) -> Result<(), Failure> {
        let patience = self.withheld.then(|| self.inbound.worker.timers.watch());
        let mut impatience = pin!(async {
            match &patience {
                Some(watch) => watch.sleep_until(clock::now() + CONTINUE_TIMEOUT).await,
                None => pending().await,
            }
        });
        // the request goes out before the receive goes in
        let mut calm = self.submit(going).await;
        self.hop.upstream().expect(|| self.inbound.worker.blocks.borrow_mut().small_with_headroom());
        loop {
            let happened = poll_fn(|cx| {
                if let Some(looks) = &mut calm {
                    *looks += 1;
                    let received = self.hop.upstream().poll_received(cx);
                    if received.is_pending() && *looks == 1 {
                        self.hop.attempt.watch.nudge(cx.waker());
                        return Poll::Pending;
                    }
                    calm = None;
                    if let Poll::Ready(received) = received {
                        // a whole request cannot be its client's failure
                        let _ = going.poll_on(cx);
                        return Poll::Ready(Happened::Received(received));
                    }
                }
                // a client that fails us ends the attempt; an endpoint that stops reading may still have something to say
                if let Err(failure) = going.poll_on(cx) {
                    return Poll::Ready(Happened::ClientFailed(failure));
                }
                if let Poll::Ready(received) = self.hop.upstream().poll_received(cx) {
                    return Poll::Ready(Happened::Received(received));
                }
                if self.withheld && impatience.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Happened::Impatience);
                }
                Poll::Pending
            })
            .await;
            match happened {
                Happened::Received(received) => {
                    let heard = self.take(received, answer)?;
                    if !self.ahead.is_empty() {
                        Box::pin(self.tell()).await?;
                    }
                    if heard == Heard::Answer {
                        return Ok(());
                    }
                    self.go_on(std::mem::take(answer));
                }
                Happened::ClientFailed(failure) => return Err(failure),
                Happened::Impatience => {
                    self.let_send();
                    Box::pin(self.tell()).await?;
                }
            }
        }
    }

    /// Submits the first send. `Some`, a count of looks, when the request is whole with it and small: then it is the answer that wakes us
    /// and not that send, which the kernel takes at once. Should it not, for want of memory, the next nudge ([`timer::Watch::nudge`]) has us
    /// look after it.
    async fn submit(&self, going: &mut Going<'_, impl Sending>) -> Option<u32> {
        let is_whole = self.hop.goes_at_once();
        poll_fn(|cx| {
            let mut nobody = Context::from_waker(Waker::noop());
            let _ = going.poll_on(if is_whole { &mut nobody } else { cx });
            Poll::Ready(is_whole.then_some(0))
        })
        .await
    }

    /// Takes what was received, into `answer`, and says what it is.
    fn take(&mut self, (received, block): Received, answer: &mut Block) -> Result<Heard, Failure> {
        *answer = block;
        // what arrives with the deadline is late: the connection has been shut down, and what follows would look like its end
        if !matches!(received, Ok(1..)) || self.hop.attempt.watch.expired() {
            // servers that speak TLS seldom say that they close an idle connection
            self.ended = received.as_ref().map_or_else(|e| e.kind() == io::ErrorKind::UnexpectedEof, |n| *n == 0);
            return Err(Failure::broken(received.as_ref().err(), Sent::Maybe));
        }
        let farewell = self.reused && self.hop.delivery.has_left.get() && self.is_farewell(answer);
        // an answer to a request that has not left belongs to another one, as does whatever may follow it
        if std::mem::take(&mut self.reused) && (farewell || !self.hop.delivery.has_left.get()) {
            self.reused = true;
            return Err(Failure::BROKEN);
        }
        self.hear(answer).map_err(Failure::BadHead)
    }

    /// Submits the next receive, behind what is there of a head.
    fn go_on(&self, mut block: Block) {
        if block.room() == 0 {
            block.compact();
            self.inbound.worker.grow(&mut block, RESPONSE_HEAD_BYTES_MAX);
        }
        self.hop.upstream().arm(block);
    }

    /// Whether the first thing that is heard on a pooled connection is a server's word that it has waited long enough for a request, which
    /// has crossed with this one (RFC 9110 §15.5.9: it closes the connection, and the request may be repeated). A 408 that leaves the
    /// connection open is the service's answer: repeated, every such request would reach it twice.
    fn is_farewell(&self, block: &Block) -> bool {
        ResponseHead::may_be_request_timeout(block.unread())
            && self.hop.attempt.repeatable
            && !self.hop.attempt.strict
            && self.hop.upload.can_begin()
            && clock::now().since(self.began) < STALE_WITHIN
            && self.says_close(block)
    }

    fn says_close(&self, block: &Block) -> bool {
        let mut scratch = self.inbound.worker.scratch.borrow_mut();
        let Asked { method, offer, .. } = self.asked;
        let head = ResponseHead::parse_answer(block.unread(), method, offer, &mut scratch.head);
        matches!(head, Ok(Parsed::Complete(head)) if !head.is_persistent())
    }

    /// Takes what has arrived: interim responses are put aside for the client, and dropped from the block.
    fn hear(&mut self, block: &mut Block) -> Result<Heard, ProxyError> {
        loop {
            if block.is_empty() {
                block.clear();
                return Ok(Heard::More);
            }
            // a final response is parsed by whoever passes it on, and only there
            if !ResponseHead::may_be_informational(block.unread()) {
                return Ok(Heard::Answer);
            }
            if !self.scanner.is_ready(block.unread()) {
                return Ok(Heard::More);
            }
            let worker = self.inbound.worker;
            let mut scratch = worker.scratch.borrow_mut();
            let Asked { method, offer, version, rules } = self.asked;
            let head = match ResponseHead::parse_answer(block.unread(), method, offer, &mut scratch.head)? {
                Parsed::Complete(head) if head.is_switching() => return Ok(Heard::Answer),
                Parsed::Complete(head) => head,
                Parsed::Partial => return Ok(Heard::More),
            };
            self.interim += 1;
            if self.interim > INTERIM_RESPONSES_MAX {
                return Err(ProxyError::UpstreamProtocol);
            }
            if head.status() == StatusCode::CONTINUE {
                self.let_send();
            } else if version != Version::Http10 {
                // RFC 9110 §15.2: never to a 1.0 client
                encode::interim(put_ahead(worker, &mut self.ahead), &head, rules, version);
            }
            let head_bytes = head.head_bytes();
            drop(scratch);
            block.consume(head_bytes);
            self.scanner = HeadScanner::default();
        }
    }

    /// Puts `100 Continue` aside for a client that waits for it.
    fn let_send(&mut self) {
        if std::mem::take(&mut self.withheld) {
            reply::go_on(put_ahead(self.inbound.worker, &mut self.ahead), self.asked.version);
        }
    }

    /// Sends the client what was put aside for it.
    async fn tell(&mut self) -> Result<(), Failure> {
        let watch = self.inbound.worker.timers.watch();
        let patience = self.inbound.config().body_timeout;
        let _guard = watch.over_send(self.inbound.stream, patience, clock::now());
        let (sent, mut ahead) = self.inbound.stream.send(std::mem::take(&mut self.ahead)).await;
        ahead.clear();
        self.ahead = ahead;
        sent.map_err(|_| Failure::Downstream(ProxyError::ClientClosed))?;
        if !self.withheld {
            self.hop.upload.let_go();
        }
        Ok(())
    }
}

/// Where something is put aside for the client. Most requests need no block for it.
fn put_ahead<'b>(worker: &Generation, ahead: &'b mut Block) -> &'b mut Vec<u8> {
    if ahead.room() == 0 && ahead.is_empty() {
        *ahead = worker.blocks.borrow_mut().small();
    }
    ahead.vec_mut()
}
