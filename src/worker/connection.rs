//! One downstream connection: request after request until one side has had enough.
//!
//! The task that lives as long as the connection is small, because most connections are idle most of the time. While requests
//! come quickly ("hot"), the connection is served inside one boxed future that keeps a receive armed, with its buffer: the next
//! request then costs no extra turn of the loop. When none is expected soon, or too many connections wait that way, box and
//! buffer are given back and the task waits for readability alone, which holds no memory.

use super::client::Connection;
use super::discard::Served;
use super::down::h1::{self, Arrival};
use super::down::h2::mux;
use super::exchange;
use super::greeting;
use super::inbound::Inbound;
use super::parting;
use super::proxied;
use super::record::Record;
use super::seat::ConnectionSeat;
use super::state::Worker;
use crate::config;
use crate::http::h2::frame::PREFACE;
use crate::net::block::Block;
use crate::net::stream::Stream;
use crate::net::{clock, driver};
use crate::tls::HTTP2;
use crate::units::Instant;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

/// A connection whose last pause was shorter than this is hot.
const HOT: Duration = Duration::from_millis(100);

/// What a connection waits for outside of [`serve`], where it holds neither a block nor the room to serve a request.
#[derive(Debug)]
enum Wait {
    /// Its first request.
    First,
    /// Its next one.
    Next,
    /// The rest of a head.
    Rest(Box<Begun>),
    /// Nothing: HTTP/2 is spoken, which has begun so.
    Streams(Box<[u8]>),
    /// Nothing more.
    Over,
}

/// A request that has begun to arrive.
#[derive(Debug)]
struct Begun {
    bytes: Vec<u8>,
    arrived: Instant,
    /// More has arrived since.
    due: bool,
}

impl Begun {
    /// Takes the bytes out of a block, which is given back.
    fn new(worker: &Worker, inbox: Block, arrived: Instant) -> Box<Self> {
        let bytes = inbox.unread().to_vec();
        worker.put(inbox);
        Box::new(Self { bytes, arrived, due: true })
    }

    fn move_into(&self, worker: &Worker, inbox: &mut Block) -> Arrival {
        if self.bytes.len() > inbox.room() {
            worker.grow(inbox, self.bytes.len());
        }
        inbox.vec_mut().extend_from_slice(&self.bytes);
        Arrival { at: self.arrived, due: self.due }
    }
}

/// Runs a connection to its end.
#[expect(
    clippy::manual_async_fn,
    reason = "an async function holds its arguments twice, and what an idle connection holds counts"
)]
pub(super) fn run(seat: &ConnectionSeat, connection: &mut Connection) -> impl Future<Output = ()> {
    async move {
        let worker = seat.worker();
        let (mut begun, mut behind) = (None, Block::default());
        if connection.client.door.ask(|listener| listener.proxy_protocol) {
            let (pinned, listener) = connection.client.door.pin();
            let taken = Box::pin(async { proxied::take_header(&connection.inbound(&pinned, listener)).await });
            let Some(taken) = taken.await else { return };
            connection.client.peer = taken.client;
            connection.client.destination = taken.destination.map(Box::new);
            if !seat.claim_for(taken.client.client()) {
                return;
            }
            behind = taken.behind;
        }
        if connection.client.door.ask(|listener| listener.tls.is_some()) {
            let (pinned, listener) = connection.client.door.pin();
            let rules = pinned.shared.tls_rules(listener);
            let first = std::mem::take(&mut behind);
            if let Some(rules) = rules
                && !Box::pin(greeting::greet(&pinned, listener, connection, rules, first)).await
            {
                return;
            }
            if connection.stream.tls().is_some_and(|session| session.is_for(HTTP2)) {
                return Box::pin(mux::run(connection, Box::default())).await;
            }
        }
        if !behind.is_empty() {
            let first = Begun::new(worker, behind, clock::now());
            begun = Some(Box::new(Begun { due: false, ..*first }));
        } else {
            worker.put(behind);
        }
        if begun.is_none() && worker.is_crowded() && wait(connection, &Wait::First).await.is_err() {
            return;
        }
        loop {
            let serving = Box::pin(serve(connection, begun.take()));
            driver::hint_state(&*serving);
            let next = serving.await;
            if let Wait::Streams(first) = next {
                return Box::pin(mux::run(connection, first)).await;
            }
            if matches!(next, Wait::Over) {
                break;
            }
            if wait(connection, &next).await.is_err() {
                connection.stream.say_farewell();
                break;
            }
            if let Wait::Rest(rest) = next {
                begun = Some(rest);
            }
        }
        // a client that has ended its direction may still be reading
        let patience = connection.client.door.ask(|listener| listener.body_timeout);
        let _guard = connection.watch.over_send(&connection.stream, patience, clock::now());
        connection.stream.posted().await;
    }
}

/// Waits until something has arrived; what it is, or that the time is over, a receive will tell.
fn wait(connection: &Connection, wait: &Wait) -> impl Future<Output = io::Result<()>> {
    let Connection { stream, watch, client, .. } = connection;
    let door = &client.door;
    let (header, idle) = door.ask(|listener| (listener.header_timeout, listener.idle_timeout));
    let guard = match wait {
        Wait::First => watch.over_idle(stream, clock::now() + header),
        // a worker that drains gives a request that is under way the length of a tick; the receive that follows finds it, or the end
        Wait::Next if door.is_leaving() => watch.over_idle(stream, door.idle_until(clock::now(), idle)),
        Wait::Next | Wait::Streams(_) | Wait::Over => watch.over_idle(stream, clock::now() + idle),
        Wait::Rest(begun) => watch.over(stream, begun.arrived + header, Shutdown::Read),
    };
    async move {
        let readable = stream.readable().await;
        drop(guard);
        readable
    }
}

/// Serves requests for as long as they come quickly. Each pins the generation in use; what is waited for between two of them pins none.
async fn serve(connection: &Connection, begun: Option<Box<Begun>>) -> Wait {
    let Connection { stream, client, .. } = connection;
    let door = &client.door;
    let mut inbox = door.worker.blocks.borrow_mut().small();
    let mut began = begun.map(|begun| begun.move_into(&door.worker, &mut inbox));
    if began.is_none() && !receive_first(connection, &mut inbox).await {
        return part(connection, inbox);
    }
    if let Some(streams) = read_preface(connection, &mut inbox).await {
        return streams;
    }
    loop {
        let (pinned, listener) = door.pin();
        let (worker, inbound) = (&*pinned, connection.inbound(&pinned, listener));
        if !inbound.is_let_in() {
            return part(connection, inbox);
        }
        let arrival = began.take().unwrap_or_else(|| Arrival { at: clock::now(), due: false });
        let hot = arrival.at.since(connection.served_at.get()) < HOT;
        let mut record = Record::new(&inbound, arrival.at);
        let served = match h1::read_head(&inbound, &mut inbox, arrival).await {
            Ok(Some(request)) => exchange::exchange(&inbound, &mut inbox, &mut record, request).await,
            Ok(None) => return Wait::Rest(Begun::new(worker, inbox, arrival.at)),
            Err(unread) => h1::refuse(&inbound, &mut inbox, &mut record, unread),
        };
        let Served { last, close, linger: lingers, at } = served;
        let patience = inbound.config().body_timeout;
        if close {
            parting::finish(&inbound, last, record, inbox, lingers).await;
            return Wait::Over;
        }
        if !inbox.is_empty() {
            // pipelined: the next request is here already (RFC 9112 §9.3.2)
            let sent = inbound.send(last, patience).await;
            record.finish(worker, clock::now(), sent);
            if sent.is_err() {
                worker.put(inbox);
                return Wait::Over;
            }
            continue;
        }
        inbox.clear();
        let stays = hot && !worker.is_crowded() && !client.is_leaving();
        let posted = if stays { stream.post(last) } else { Err(last) };
        let receive = |inbox| receive_next(worker, stream, inbox);
        let (since, receiving) = match posted {
            Ok(()) => {
                connection.served_at.set(at);
                record.finish(worker, at, Ok(()));
                (at, receive(inbox))
            }
            Err(last) => {
                let (at, receiving) = send_last(&inbound, last, &mut record, inbox, at, stays, receive).await;
                connection.served_at.set(at);
                match receiving {
                    Ok(receiving) => (at, receiving),
                    Err(wait) => return wait,
                }
            }
        };
        drop(pinned);
        let received;
        (received, inbox) = wait_armed(connection, since, receiving).await;
        if !matches!(received, Ok(1..)) {
            return part(connection, inbox);
        }
    }
}

/// The end between two requests.
fn part(connection: &Connection, inbox: Block) -> Wait {
    connection.stream.say_farewell();
    connection.client.door.worker.put(inbox);
    Wait::Over
}

/// Sends the last bytes of a response; the next receive goes in with the same turn of the loop, if the connection stays hot. When they
/// were sent, and that receive; or what is waited for instead.
async fn send_last<R>(
    inbound: &Inbound<'_>,
    last: Block,
    record: &mut Record,
    inbox: Block,
    at: Instant,
    stays: bool,
    receive: impl FnOnce(Block) -> R,
) -> (Instant, Result<R, Wait>) {
    let Inbound { worker, stream, watch, .. } = inbound;
    let _guard = watch.over_send(stream, inbound.config().body_timeout, at);
    let mut sending = pin!(stream.send_noting(last, || watch.on_sent(clock::now())));
    let early = poll_once(sending.as_mut()).await;
    let (receiving, inbox) = match stays {
        true => (Some(receive(inbox)), Block::default()),
        false => (None, inbox),
    };
    let (sent, last) = match early {
        Some(done) => done,
        None => sending.await,
    };
    let sent_at = clock::now();
    worker.put(last);
    worker.put(inbox);
    let sent = sent.map_err(|_| inbound.send_failure());
    record.finish(worker, sent_at, sent);
    let next = if sent.is_err() { Err(Wait::Over) } else { receiving.ok_or(Wait::Next) };
    (sent_at, next)
}

/// Waits for the next request with the receive armed.
async fn wait_armed(
    connection: &Connection,
    since: Instant,
    receiving: impl Future<Output = (io::Result<usize>, Block)>,
) -> (io::Result<usize>, Block) {
    // a drain that came while the response was being sent has not seen this connection idle
    let Connection { stream, watch, client, .. } = connection;
    let door = &client.door;
    let idle = door.ask(|listener| listener.idle_timeout);
    let _guard = watch.over_idle(stream, door.idle_until(since, idle));
    let _armed = door.worker.arm();
    receiving.await
}

/// Has what comes next received: into a block that it brings itself, or into this one.
fn receive_next<'c>(
    worker: &Worker,
    stream: &'c Stream,
    mut inbox: Block,
) -> impl Future<Output = (io::Result<usize>, Block)> + use<'c> {
    if stream.listen() {
        worker.put(std::mem::take(&mut inbox));
    }
    stream.receive(inbox)
}

async fn receive_first(connection: &Connection, inbox: &mut Block) -> bool {
    let door = &connection.client.door;
    let wait = door.ask(|listener| listener.header_timeout);
    let _guard = connection.watch.over_idle(&connection.stream, clock::now() + wait);
    let _armed = door.worker.arm();
    let (received, block) = connection.stream.receive(std::mem::take(inbox)).await;
    *inbox = block;
    matches!(received, Ok(1..))
}

/// Reads on as long as what has arrived may be the preface of HTTP/2 (RFC 9113 §3.4), where that is spoken and nothing was served yet. Takes what
/// has arrived, if it is; else it is left in the inbox for whoever reads heads.
async fn read_preface(connection: &Connection, inbox: &mut Block) -> Option<Wait> {
    let door = &connection.client.door;
    if connection.served_at.get() != Instant::default() || !door.ask(config::Listener::speaks_http2_in_clear) {
        return None;
    }
    let deadline = clock::now() + door.ask(|listener| listener.header_timeout);
    while inbox.unread().len() < PREFACE.len() && PREFACE.starts_with(inbox.unread()) {
        let _guard = connection.watch.over(&connection.stream, deadline, Shutdown::Read);
        let (received, block) = connection.stream.receive(std::mem::take(inbox)).await;
        *inbox = block;
        if !matches!(received, Ok(1..)) {
            return None;
        }
    }
    let first = inbox.unread().starts_with(PREFACE).then(|| inbox.unread().into())?;
    door.worker.put(std::mem::take(inbox));
    Some(Wait::Streams(first))
}

/// Polls once, to have an operation submitted before the next one.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of<'c, F>(_: impl FnOnce(&'c Connection, Option<Box<Begun>>) -> F) -> usize {
        size_of::<F>()
    }

    /// Beyond that it is out of the near caches with some hundred connections.
    #[test]
    fn what_a_request_holds_where_it_serves_is_small() {
        let (serving, idle) = (bytes_of(serve), size_of::<Connection>());
        println!("{serving} bytes where a request is served, {idle} of an idle connection");
        assert!(serving <= 3_360 && idle <= 144);
    }
}
