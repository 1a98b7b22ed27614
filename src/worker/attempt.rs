//! `checkout → send → await_head`: one try of one request at one endpoint.
//!
//! The request goes out and the receive for the response goes in with the same turn of the loop; while a body is still being
//! uploaded, both directions run side by side, so that an endpoint may answer before it has read everything (RFC 9112 §9.5).
//!
//! A pooled connection may have been closed by its server at the very moment it was taken. When a reused one ends without a byte of
//! response and the request may be sent twice anyway, the same endpoint is tried once more on a new connection, within the same
//! attempt: that is housekeeping, not a failure of the endpoint.

use super::connection::{Connection, poll_once};
use super::state::Worker;
use super::upload::Upload;
use crate::error::ProxyError;
use crate::net::block::Block;
use crate::net::stream::{self, Stream};
use crate::net::timer::Watch;
use crate::policy::exchange::Event;
use crate::policy::retry::Sent;
use crate::units::{ClusterId, EndpointId, Instant};
use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::pin::pin;
use std::task::Poll;

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
            None => connect(worker, &connection.watch, to).await?,
        };
        match converse(worker, connection, upload, stream, to.until).await {
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

async fn connect(worker: &Worker, watch: &Watch, to: Try) -> Result<Stream, Failure> {
    let cluster = &worker.shared.config.clusters[to.cluster.index()];
    let connecting = stream::connect(&cluster.endpoints[to.endpoint.index()].address).map_err(|_| Failure::Refused)?;
    let _guard = watch.over_connecting(connecting.fd(), to.connect_until);
    match connecting.established().await {
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
    until: Instant,
) -> Result<Answering, Failure> {
    upload.rewind();
    let watch = &client.watch;
    let block = worker.blocks.borrow_mut().small();
    let (uploaded, received, block) = {
        let _guard = watch.over(&stream, until, Shutdown::Both).on_behalf_of(&client.stream);
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
            let sent = if upload.has_sent() { Sent::Maybe } else { Sent::Nothing };
            Err(match watch.expired() {
                _ if watch.client_gone() => Failure::Downstream(ProxyError::ClientClosed),
                true if upload.waits_for_client() => Failure::Downstream(ProxyError::RequestTimeout),
                true => Failure::TimedOut,
                false => Failure::Reset { sent, reused: false },
            })
        }
    }
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
