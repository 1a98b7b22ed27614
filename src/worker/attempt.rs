//! `checkout → send → await_head`: one try of one request at one endpoint.
//!
//! The request goes out and the receive for the response goes in with the same turn of the loop; while a body is still being
//! uploaded, both directions run side by side, so that an endpoint may answer before it has read everything (RFC 9112 §9.5).
//!
//! Interim responses are settled here, because they come while the body goes up: `100 Continue` lets a client send that waits for it,
//! the others go to the client as they come. A retry can still follow them (RFC 9110 §15.2: they say nothing about the final one).
//! All that is sent to the client before its response is sent here, one after another.
//!
//! A pooled connection may have been closed by its server at the very moment it was taken. When a reused one ends without a byte of
//! response and the request may be sent twice anyway, the same endpoint is tried once more on a new connection, within the same
//! attempt: that is housekeeping, not a failure of the endpoint. A request that must not be sent twice is repeated too when the kernel
//! can prove that the endpoint never read it.

use super::connection::{Connection, poll_once};
use super::proxied;
use super::state::Worker;
use super::upload::{Standing, Talk, Upload};
use crate::config::HeaderRules;
use crate::error::ProxyError;
use crate::http::reply::CONTINUE;
use crate::http::response::ResponseHead;
use crate::http::scan::HeadScanner;
use crate::http::upgrade::Offer;
use crate::http::{Parsed, Version, encode};
use crate::limits::{CONTINUE_TIMEOUT, INTERIM_RESPONSES_MAX, RESPONSE_HEAD_BYTES_MAX};
use crate::net::block::Block;
use crate::net::clock;
use crate::net::receipt::Receipt;
use crate::net::stream::{self, Stream};
use crate::net::timer::{self, Watch};
use crate::policy::exchange::Event;
use crate::policy::retry::Sent;
use crate::units::{ClusterId, EndpointId, Instant};
use http::{Method, StatusCode};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// A pooled connection that ends this soon after a request was sent on it had been closed before: its server cannot have worked on
/// the request. One that ends later is a failure like any other.
const STALE_WITHIN: Duration = Duration::from_millis(20);

/// Looks for the reset that follows an end, one a tick: some 200 ms, more than a round trip within a region.
const RECEIPT_LOOKS: usize = 20;

/// Where an attempt goes and how long it may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) cluster: ClusterId,
    pub(super) endpoint: EndpointId,
    /// End of the connect phase.
    pub(super) connect_until: Instant,
    /// End of the attempt: a whole response head must be there by then.
    pub(super) until: Instant,
    /// The request may be sent a second time without asking anybody.
    pub(super) repeatable: bool,
}

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

/// A connection that has begun to answer.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) stream: Stream,
    /// What has arrived of the final response, or of a 101: the beginning of its head, at least.
    pub(super) block: Block,
    /// The request went out whole; otherwise neither connection can carry another one.
    pub(super) uploaded: bool,
}

/// Why an attempt has nothing to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection.
    Refused,
    /// No connection in time.
    ConnectTimedOut,
    /// The connection ended or broke before a response.
    Reset {
        /// How much of the request may have reached the service.
        sent: Sent,
        /// The connection came from the pool.
        reused: bool,
    },
    /// What came is no response.
    BadHead(ProxyError),
    /// The attempt's time is over.
    TimedOut,
    /// The client is at fault: its body was malformed, too large, too slow, or broke off.
    Downstream(ProxyError),
}

impl Failure {
    /// The same for the policy. A client's failure never comes here.
    pub(super) fn event(self) -> Event {
        match self {
            Self::Refused => Event::ConnectFailed,
            Self::ConnectTimedOut => Event::ConnectTimedOut,
            Self::Reset { sent, reused } => Event::ResetBeforeHead { sent, reused },
            Self::BadHead(error) => Event::BadHead(error),
            Self::TimedOut => Event::TimedOut,
            Self::Downstream(_) => Event::DownstreamGone,
        }
    }
}

/// Makes the attempt; see the module.
pub(super) async fn attempt(
    worker: &Worker,
    connection: &Connection,
    upload: &mut Upload<'_>,
    to: Try,
    asked: Asked<'_>,
) -> Result<Answering, Failure> {
    let mut reuse = true;
    loop {
        if !upload.can_begin() {
            // a part of the request is gone with the last attempt, and half a request must not be sent
            return Err(Failure::Downstream(ProxyError::UpstreamReset));
        }
        let pooled = reuse.then(|| worker.checkout(to.cluster, to.endpoint)).flatten();
        let reused = pooled.is_some();
        let stream = match pooled {
            Some(stream) => stream,
            None => connect(worker, connection, to).await?,
        };
        let mut conversation = Conversation::new(worker, connection, asked, to, reused);
        let began = clock::now();
        match conversation.hold(upload, stream).await {
            Err(Failure::Reset { sent, reused: true }) => {
                worker.forget_idle(to.cluster, to.endpoint);
                let stale = clock::now().since(began) < STALE_WITHIN;
                let repeatable = stale && to.repeatable && upload.can_begin();
                if !repeatable && sent != Sent::Nothing {
                    return Err(Failure::Reset { sent, reused });
                }
                reuse = false;
            }
            done => return done,
        }
    }
}

async fn connect(worker: &Worker, client: &Connection, to: Try) -> Result<Stream, Failure> {
    let watch = &client.watch;
    let cluster = &worker.shared.config.clusters[to.cluster.index()];
    let connecting = stream::connect(&cluster.endpoints[to.endpoint.index()].address).map_err(|_| Failure::Refused)?;
    let _guard = watch.over_connecting(connecting.fd(), to.connect_until);
    let made = async {
        let stream = connecting.established().await?;
        proxied::introduce(worker, client, &stream, cluster.proxy_protocol).await?;
        Ok::<_, std::io::Error>(stream)
    };
    match made.await {
        Ok(stream) => Ok(stream),
        Err(_) if watch.expired() => Err(Failure::ConnectTimedOut),
        Err(_) => Err(Failure::Refused),
    }
}

/// One request on one connection, up to its answer.
struct Conversation<'c> {
    worker: &'c Worker,
    client: &'c Connection,
    asked: Asked<'c>,
    until: Instant,
    /// The request may be sent a second time without asking anybody.
    repeatable: bool,
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
    Received(io::Result<usize>, Block),
    /// The client has waited for `100 Continue` long enough.
    Impatience,
    /// The client has failed us.
    ClientFailed(Failure),
}

impl<'c> Conversation<'c> {
    fn new(worker: &'c Worker, client: &'c Connection, asked: Asked<'c>, to: Try, reused: bool) -> Self {
        Self {
            worker,
            client,
            asked,
            until: to.until,
            repeatable: to.repeatable,
            reused,
            ended: false,
            withheld: false,
            interim: 0,
            scanner: HeadScanner::default(),
            ahead: Block::default(),
        }
    }

    /// Sends the request and listens until the final response begins.
    async fn hold(&mut self, upload: &mut Upload<'_>, stream: Stream) -> Result<Answering, Failure> {
        upload.rewind();
        self.withheld = upload.standing() == Standing::Withheld;
        let waited = self.withheld;
        let (worker, client) = (self.worker, self.client);
        let (heard, uploaded, block) = {
            let until = upload.time_attempt(self.until);
            let _guard = client.watch.over(&stream, until, Shutdown::Both).on_behalf_of(&client.stream);
            let talk = Talk::default();
            let mut sending = pin!(upload.run(&stream, &talk));
            let mut uploaded = poll_once(sending.as_mut()).await;
            let mut block = worker.blocks.borrow_mut().small();
            let heard = self.listen(&stream, &mut block, &talk, &mut uploaded, sending.as_mut()).await;
            talk.stop.set(true);
            if uploaded.is_none() && talk.receiving.get() {
                poll_fn(|cx| {
                    go_on(&mut uploaded, sending.as_mut(), cx);
                    if uploaded.is_some() || !talk.receiving.get() { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            (heard, uploaded, block)
        };
        if waited && !self.withheld {
            upload.on_told();
        }
        worker.put(std::mem::take(&mut self.ahead));
        match heard {
            Ok(()) => Ok(Answering { stream, block, uploaded: matches!(uploaded, Some(Ok(()))) }),
            Err(failure) => {
                worker.put(block);
                let verdict = self.verdict(failure, upload);
                // what may be repeated anyway needs no proof
                if let Failure::Reset { sent: Sent::Maybe, reused } = verdict
                    && self.ended
                    && !self.repeatable
                {
                    let sent = ask_for_receipt(&stream, &client.watch, upload, self.until).await;
                    return Err(Failure::Reset { sent, reused });
                }
                Err(verdict)
            }
        }
    }

    /// What a connection that has ended means.
    fn verdict(&self, failure: Failure, upload: &Upload<'_>) -> Failure {
        let Failure::Reset { .. } = failure else { return failure };
        let watch = &self.client.watch;
        let sent = if upload.has_sent() { Sent::Maybe } else { Sent::Nothing };
        match watch.expired() {
            _ if watch.client_gone() => Failure::Downstream(ProxyError::ClientClosed),
            true if upload.waits_for_client() => Failure::Downstream(ProxyError::RequestTimeout),
            true => Failure::TimedOut,
            false => Failure::Reset { sent, reused: self.reused },
        }
    }

    async fn listen(
        &mut self,
        stream: &Stream,
        block: &mut Block,
        talk: &Talk,
        uploaded: &mut Option<Result<(), Failure>>,
        mut sending: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    ) -> Result<(), Failure> {
        let patience = self.withheld.then(|| self.worker.timers.watch());
        let mut impatience = pin!(async {
            match &patience {
                Some(watch) => watch.sleep_until(clock::now() + CONTINUE_TIMEOUT).await,
                None => pending().await,
            }
        });
        loop {
            let mut receiving = pin!(stream.receive(std::mem::take(block)));
            let (received, back) = loop {
                let happened = poll_fn(|cx| {
                    go_on(uploaded, sending.as_mut(), cx);
                    // a client that fails us ends the attempt; an endpoint that stops reading may still have something to say
                    if let Some(Err(failure @ Failure::Downstream(_))) = *uploaded {
                        return Poll::Ready(Happened::ClientFailed(failure));
                    }
                    if let Poll::Ready((received, block)) = receiving.as_mut().poll(cx) {
                        return Poll::Ready(Happened::Received(received, block));
                    }
                    if self.withheld && impatience.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Happened::Impatience);
                    }
                    Poll::Pending
                })
                .await;
                match happened {
                    Happened::Received(received, block) => break (received, block),
                    Happened::ClientFailed(failure) => return Err(failure),
                    Happened::Impatience => {
                        self.let_send();
                        self.tell(talk).await?;
                    }
                }
            };
            *block = back;
            if !matches!(received, Ok(1..)) {
                self.ended = received.is_ok();
                return Err(Failure::Reset { sent: Sent::Maybe, reused: false });
            }
            self.reused = false;
            let heard = self.hear(block).map_err(Failure::BadHead)?;
            self.tell(talk).await?;
            if heard == Heard::Answer {
                return Ok(());
            }
            if block.room() == 0 {
                block.compact();
                self.worker.grow(block, RESPONSE_HEAD_BYTES_MAX);
            }
        }
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
            let worker = self.worker;
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
            } else if version == Version::Http11 {
                // RFC 9110 §15.2: never to a 1.0 client
                encode::interim(put_ahead(worker, &mut self.ahead), &head, rules);
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
            put_ahead(self.worker, &mut self.ahead).extend_from_slice(CONTINUE);
        }
    }

    /// Sends the client what was put aside for it.
    async fn tell(&mut self, talk: &Talk) -> Result<(), Failure> {
        if !self.ahead.is_empty() {
            let watch = self.worker.timers.watch();
            let patience = self.client.config(self.worker).body_timeout;
            let _guard = watch.over(&self.client.stream, clock::now() + patience, Shutdown::Both);
            let (sent, mut ahead) = self.client.stream.send(std::mem::take(&mut self.ahead)).await;
            ahead.clear();
            self.ahead = ahead;
            sent.map_err(|_| Failure::Downstream(ProxyError::ClientClosed))?;
        }
        talk.go.set(!self.withheld);
        Ok(())
    }
}

/// Where something is put aside for the client. Most requests need no block for it.
fn put_ahead<'b>(worker: &Worker, ahead: &'b mut Block) -> &'b mut Vec<u8> {
    if ahead.room() == 0 && ahead.is_empty() {
        *ahead = worker.blocks.borrow_mut().small();
    }
    ahead.vec_mut()
}

fn go_on(
    uploaded: &mut Option<Result<(), Failure>>,
    sending: Pin<&mut impl Future<Output = Result<(), Failure>>>,
    cx: &mut Context<'_>,
) {
    if uploaded.is_none()
        && let Poll::Ready(done) = sending.poll(cx)
    {
        *uploaded = Some(done);
    }
}

/// How much of a request the endpoint can have seen that ended the connection in place of an answer, as servers do that close an idle
/// connection just as a request is sent. The reset that proves it comes a round trip after the end, so it is waited for.
async fn ask_for_receipt(stream: &Stream, watch: &Watch, upload: &Upload<'_>, until: Instant) -> Sent {
    let Some(sent_bytes) = upload.sent_whole_bytes() else { return Sent::Maybe };
    for _ in 0..RECEIPT_LOOKS {
        match stream.receipt(sent_bytes) {
            Receipt::Never => return Sent::Nothing,
            Receipt::Perhaps => return Sent::Maybe,
            Receipt::Pending => {}
        }
        let next = clock::now() + timer::TICK;
        if next >= until {
            break;
        }
        watch.sleep_until(next).await;
    }
    Sent::Maybe
}

impl Answering {
    /// Receives more of the head.
    pub(super) async fn receive_more(&mut self, watch: &Watch, until: Instant) -> Result<(), Failure> {
        let _guard = watch.over(&self.stream, until, Shutdown::Both);
        let (received, block) = self.stream.receive(std::mem::take(&mut self.block)).await;
        self.block = block;
        match received {
            Ok(1..) => Ok(()),
            _ if watch.expired() => Err(Failure::TimedOut),
            _ => Err(Failure::Reset { sent: Sent::Maybe, reused: false }),
        }
    }
}
