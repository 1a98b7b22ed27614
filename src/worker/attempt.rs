//! `checkout → send → await_head`: one try of one request at one endpoint.
//!
//! The request goes out and the receive for the response goes in with the same turn of the loop; while a body is still being
//! uploaded, both directions run side by side, so that an endpoint may answer before it has read everything (RFC 9112 §9.5).
//!
//! A pooled connection may have been closed by its server at the very moment it was taken. When a reused one ends without a byte of
//! response and the request may be sent twice anyway, the same endpoint is tried once more on a new connection, within the same
//! attempt: that is housekeeping, not a failure of the endpoint. A request that must not be sent twice is repeated too when the kernel
//! can prove that the endpoint never read it.

use super::connection::{Connection, poll_once};
use super::proxied;
use super::state::Worker;
use super::upload::Upload;
use crate::error::ProxyError;
use crate::net::block::Block;
use crate::net::clock;
use crate::net::stream::{self, Receipt, Stream};
use crate::net::timer::{self, Watch};
use crate::policy::exchange::Event;
use crate::policy::retry::Sent;
use crate::units::{ClusterId, EndpointId, Instant};
use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;

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

/// A connection that has begun to answer.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) stream: Stream,
    /// What has arrived: at least one byte of the response's head.
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
) -> Result<Answering, Failure> {
    let mut reuse = true;
    loop {
        let pooled = reuse.then(|| worker.checkout(to.cluster, to.endpoint, to.repeatable)).flatten();
        let reused = pooled.is_some();
        let stream = match pooled {
            Some(stream) => stream,
            None => connect(worker, connection, to).await?,
        };
        match converse(worker, connection, upload, stream, to).await {
            Err(Failure::Reset { sent, .. }) if reused => {
                worker.forget_idle(to.cluster, to.endpoint);
                if !((to.repeatable && upload.is_replayable()) || sent == Sent::Nothing) {
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

/// Sends the request and waits for the first bytes of its response.
async fn converse(
    worker: &Worker,
    client: &Connection,
    upload: &mut Upload<'_>,
    stream: Stream,
    to: Try,
) -> Result<Answering, Failure> {
    upload.rewind();
    let watch = &client.watch;
    let block = worker.blocks.borrow_mut().small();
    let (uploaded, received, block) = {
        let _guard = watch.over(&stream, to.until, Shutdown::Both).on_behalf_of(&client.stream);
        let mut sending = pin!(upload.run(&stream));
        let mut uploaded = poll_once(sending.as_mut()).await;
        let mut receiving = pin!(stream.receive(block));
        let (received, block) = poll_fn(|cx| {
            if uploaded.is_none()
                && let Poll::Ready(done) = sending.as_mut().poll(cx)
            {
                uploaded = Some(done);
                // a client that fails us ends the attempt; an endpoint that stops reading may still have something to say
            }
            if let Some(Err(Failure::Downstream(_))) = uploaded {
                return Poll::Ready((Ok(0), Block::default()));
            }
            receiving.as_mut().poll(cx)
        })
        .await;
        (uploaded, received, block)
    };
    if let Some(Err(failure @ Failure::Downstream(_))) = uploaded {
        return Err(failure);
    }
    match received {
        Ok(1..) => Ok(Answering { stream, block, uploaded: matches!(uploaded, Some(Ok(()))) }),
        _ => {
            worker.put(block);
            Err(match watch.expired() {
                _ if watch.client_gone() => Failure::Downstream(ProxyError::ClientClosed),
                true if upload.waits_for_client() => Failure::Downstream(ProxyError::RequestTimeout),
                true => Failure::TimedOut,
                false if !upload.has_sent() => Failure::Reset { sent: Sent::Nothing, reused: false },
                // what may be repeated anyway needs no proof
                false if received.is_err() || to.repeatable => Failure::Reset { sent: Sent::Maybe, reused: false },
                false => {
                    Failure::Reset { sent: ask_for_receipt(&stream, watch, upload, to.until).await, reused: false }
                }
            })
        }
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
