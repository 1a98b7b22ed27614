//! A client's connection that carries many streams: its task, from the preface to the last GOAWAY.
//!
//! In a turn it takes what has arrived, hears what its lanes want, and sends what there is of both in one piece. While something is being sent
//! it goes on receiving; what waits in lanes meanwhile leaves together. A connection on which no stream is open waits as one of HTTP/1.1
//! does: without a block, and without the room to serve.
//!
//! A drain, or the connection's age, is told at once (GOAWAY with the largest id); a round trip later, or after a second, no new streams are
//! taken any more, and when the last one has ended the connection is closed (RFC 9113 §6.8).

use super::SECTION_KEPT_BYTES;
use super::farewell::{Alarm, Farewell, GRACE_PING};
use super::runner::Work;
use super::urgency::Turn;
use super::writing::Slot;
use crate::http::framing::Framing;
use crate::http::h2::code::Code;
use crate::http::h2::connection::{Connection as Codec, Event};
use crate::http::h2::section::Section;
use crate::http::h2::settings::OwnSettings;
use crate::http::head::HeadPolicy;
use crate::net::block::Block;
use crate::net::clock;
use crate::net::lane::Bells;
use crate::net::stream::Stream;
use crate::net::timer::Watch;
use crate::observe::labels::{StreamCode, StreamSide};
use crate::units::Instant;
use crate::worker::client::{Client, Connection};
use crate::worker::greeting::SessionFacts;
use crate::worker::state::Worker;
use rand::RngExt as _;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// What a client may send on a stream before anybody has read it: enough for most bodies, and what one block holds.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// How long a connection without streams waits for the next one with a receive armed.
const HOT: Duration = Duration::from_millis(100);
/// See the module.
pub(super) struct Mux {
    pub(super) codec: Codec,
    pub(super) slots: Vec<Option<Slot>>,
    /// Places of lanes that have something to be sent, in their turns.
    pub(super) writing: Vec<u32>,
    pub(super) turn: Turn,
    pub(super) bells: Rc<Bells>,
    /// Of what its lanes hold, what the worker knows.
    pub(super) counted: usize,
    pub(super) client: Rc<Client>,
    session: Option<Rc<SessionFacts>>,
    /// What the client has connected to, asked of the kernel once.
    local: Option<SocketAddr>,
    pub(super) farewell: Farewell,
    /// The client has ended its direction: nothing more is received.
    pub(super) is_deaf: bool,
    /// A part of a frame is with the receive that is in flight.
    has_part: bool,
    /// When the block that is coming began.
    pub(super) head_began: Option<Instant>,
}

/// What [`Mux::serve`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// No stream is open, and none is expected soon.
    Idle,
    /// There is something left to be said, and then the connection is over.
    Close,
    /// The connection is over.
    Over,
}

/// Serves a connection on which HTTP/2 is spoken, to its end. `first` is what has arrived of it.
pub(in crate::worker) async fn run(connection: &Connection, mut first: Box<[u8]>) {
    let began = clock::now();
    let mut mux = Box::new(Mux::new(connection, began));
    loop {
        let next = Box::pin(mux.serve(connection, std::mem::take(&mut first), began)).await;
        if next == Next::Over {
            break;
        }
        mux.shrink();
        let Connection { stream, watch, client, .. } = connection;
        let idle = client.door.ask(|listener| listener.idle_timeout);
        let guard = watch.over_idle(stream, client.door.idle_until(clock::now(), idle));
        let readable = stream.readable().await;
        drop(guard);
        if readable.is_err() {
            break;
        }
    }
    mux.lose_all();
}

impl Mux {
    fn new(connection: &Connection, now: Instant) -> Self {
        let own = connection.client.door.ask(|listener| OwnSettings {
            streams_max: listener.http2.map_or(1, |http2| http2.streams_max),
            window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            head_bytes_max: u32::try_from(listener.head_bytes_max).unwrap_or(u32::MAX),
            fields_max: listener.headers_max,
        });
        Self {
            codec: Codec::new(own, now),
            slots: Vec::new(),
            writing: Vec::new(),
            turn: Turn::default(),
            bells: Rc::default(),
            counted: 0,
            client: Rc::new(connection.client.clone()),
            session: SessionFacts::of(&connection.stream).map(Rc::new),
            local: connection.stream.local_address(),
            farewell: Farewell::No,
            is_deaf: false,
            has_part: false,
            head_began: None,
        }
    }

    /// Serves for as long as streams are open or come quickly.
    async fn serve(&mut self, connection: &Connection, first: Box<[u8]>, began: Instant) -> Next {
        let worker = Rc::clone(&connection.client.door.worker);
        let stream = &connection.stream;
        let mut inbox = worker.blocks.borrow_mut().small();
        inbox.vec_mut().extend_from_slice(&first);
        drop(first);
        // heads in it are whole, so that nothing of it is needed while no stream is open
        let mut section = Section::default();
        // where a drain is heard of while streams are open: by a watch over what is no socket
        let (alarm, pause) = (Alarm::new(&connection.client, &worker), worker.timers.watch());
        let ringing = alarm.watch.over_idle(&alarm.stream, Instant::NEVER);
        let sending = worker.timers.watch();
        let mut receiving = pin!(None);
        let next = loop {
            if let Err(code) = self.take(connection, &mut inbox, &mut section) {
                self.count_goaway(code);
                break Next::Close;
            }
            self.say_farewell();
            let is_held_back = self.is_held_back(&worker);
            let may_receive =
                !self.is_deaf && !is_held_back && self.codec.takes_more() && self.has_room(&mut inbox, &worker);
            if receiving.is_none() && may_receive {
                self.has_part = !inbox.is_empty();
                receiving.set(Some(receive(&worker, stream, &mut inbox)));
            }
            if let Some(out) = self.collect(&worker) {
                match self.send(connection, out, &sending, receiving.as_mut()).await {
                    Ok(Some(block)) => {
                        receiving.set(None);
                        inbox = block;
                    }
                    Ok(None) => {}
                    Err(_) => break Next::Over,
                }
                continue;
            }
            if self.is_over() {
                break Next::Close;
            }
            if receiving.is_none() && !self.is_deaf && !is_held_back {
                break Next::Over; // a frame that is larger than any may be
            }
            let timers = (&alarm, &pause, is_held_back);
            let happened = self.wait(connection, timers, receiving.as_mut(), began).await;
            match happened {
                Waited::Received((received, block)) => {
                    receiving.set(None);
                    self.has_part = false;
                    inbox = block;
                    if !matches!(received, Ok(1..)) && !self.on_half_close(connection, &received) {
                        break self.on_end(connection);
                    }
                }
                Waited::Rung => {}
                Waited::Passed if self.may_idle(&inbox) => break Next::Idle,
                Waited::Passed if is_held_back && stream.is_reset() => break Next::Over, // no receive tells
                Waited::Passed => {}
            }
        };
        drop(ringing);
        receiving.set(None);
        worker.put(inbox);
        match next {
            Next::Close => self.close(connection, &sending).await,
            next => next,
        }
    }

    /// Sends what was collected. What was received meanwhile is not looked at before all is sent, but taken from the socket.
    async fn send<F: Future<Output = (io::Result<usize>, Block)>>(
        &mut self,
        connection: &Connection,
        out: Block,
        sending: &Watch,
        mut receiving: Pin<&mut Option<F>>,
    ) -> io::Result<Option<Block>> {
        let Connection { stream, client, .. } = connection;
        let out = match stream.post(out) {
            Ok(()) => return Ok(None),
            Err(out) => out,
        };
        let patience = client.door.ask(|listener| listener.body_timeout);
        let _guard = sending.over_send(stream, patience, clock::now());
        let mut send = pin!(stream.send_noting(out, || sending.on_sent(clock::now())));
        let mut arrived = None;
        loop {
            match poll_fn(|cx| poll_sent(send.as_mut(), receiving.as_mut(), cx)).await {
                Happened::Sent((sent, block)) => {
                    client.door.worker.put(block);
                    return sent.map(|()| arrived);
                }
                Happened::Received((received, block)) => {
                    receiving.set(None);
                    self.has_part = false;
                    if !matches!(received, Ok(1..)) && !self.on_half_close(connection, &received) {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    arrived = Some(block);
                }
            }
        }
    }

    /// Waits for the next thing that happens.
    async fn wait<F: Future<Output = (io::Result<usize>, Block)>>(
        &mut self,
        connection: &Connection,
        (alarm, pause, is_held_back): (&Alarm, &Watch, bool),
        mut receiving: Pin<&mut Option<F>>,
        began: Instant,
    ) -> Waited {
        let Connection { stream, watch, client, .. } = connection;
        let now = clock::now();
        let (header, idle) = client.door.ask(|listener| (listener.header_timeout, listener.idle_timeout));
        let is_quiet = self.codec.streams() == 0;
        let _guard = match (self.codec.is_greeted(), self.head_began) {
            (false, _) => Some(watch.over(stream, began + header, Shutdown::Read)),
            (true, Some(began)) => Some(watch.over(stream, began + header, Shutdown::Read)),
            (true, None) if is_quiet => Some(watch.over_idle(stream, client.door.idle_until(now, idle))),
            (true, None) => None,
        };
        let pause_until = match self.farewell {
            Farewell::Told(until) => until,
            // what others hold may have become less
            _ if is_quiet || is_held_back => now + HOT,
            _ => Instant::NEVER,
        };
        let _pause = pause.over_pause(pause_until);
        let _armed = client.door.worker.arm();
        let worker = Rc::clone(&client.door.worker);
        poll_fn(|cx| {
            let mut is_rung = alarm.poll(cx);
            while let Poll::Ready(place) = self.bells.poll_next(cx) {
                self.on_rung(place, &worker);
                is_rung = true;
            }
            if let Some(future) = receiving.as_mut().as_pin_mut()
                && let Poll::Ready(received) = future.poll(cx)
            {
                return Poll::Ready(Waited::Received(received));
            }
            if is_rung {
                return Poll::Ready(Waited::Rung);
            }
            pause.poll_passed(cx).map(|()| Waited::Passed)
        })
        .await
    }

    /// Takes what is in the inbox.
    fn take(&mut self, connection: &Connection, inbox: &mut Block, section: &mut Section) -> Result<(), Code> {
        let worker = &connection.client.door.worker;
        while let Poll::Ready(place) = self.bells.poll_next(&Context::from_waker(std::task::Waker::noop())) {
            self.on_rung(place, worker);
        }
        let now = clock::now();
        while !inbox.is_empty() && self.codec.takes_more() {
            let fed = self.codec.feed(inbox.unread(), section, now)?;
            match fed.event {
                None if fed.consumed == 0 => break,
                Some(Event::Request { place, ended }) => self.begin(connection, section, (place, ended), now)?,
                Some(Event::Data { place, payload, ended }) => {
                    if let Some(slot) = self.slots.get(place).and_then(Option::as_ref) {
                        slot.runner.lane.deliver(payload, &worker.blocks);
                        if ended {
                            slot.runner.lane.end(&[]);
                        }
                    }
                }
                Some(Event::Trailers { place }) => {
                    if let Some(slot) = self.slots.get(place).and_then(Option::as_ref) {
                        slot.runner.lane.end(section.lines());
                    }
                }
                Some(Event::Reset { place, code, by_client }) => {
                    let side = if by_client { StreamSide::Client } else { StreamSide::Gateway };
                    self.count_reset(side, code);
                    if let Some(slot) = self.slots.get(place).and_then(Option::as_ref) {
                        slot.runner.lane.lose();
                    }
                }
                Some(Event::Pong(GRACE_PING)) if matches!(self.farewell, Farewell::Told(_)) => {
                    self.farewell = Farewell::Told(now);
                }
                _ => {}
            }
            let consumed = fed.consumed;
            inbox.consume(consumed);
            if consumed > 0 && !self.codec.is_within_head() {
                self.head_began = None; // another one was
            }
        }
        let has_part = self.has_part || !inbox.is_empty();
        let is_within = self.codec.is_within_head() || (has_part && self.codec.is_greeted());
        self.head_began = is_within.then(|| self.head_began.unwrap_or(now));
        if inbox.is_empty() {
            inbox.clear();
        }
        Ok(())
    }

    /// A request has begun: a runner serves it.
    ///
    /// # Errors
    /// Its client would not be let in any more.
    fn begin(
        &mut self,
        connection: &Connection,
        section: &mut Section,
        (place, ended): (usize, bool),
        now: Instant,
    ) -> Result<(), Code> {
        let door = &connection.client.door;
        let worker = &door.worker;
        let (pinned, listener) = door.pin();
        if !connection.inbound(&pinned, listener).is_let_in() {
            return Err(Code::InadequateSecurity);
        }
        let config = &pinned.shared.config.listeners[listener.index()];
        let policy = HeadPolicy::of(config);
        if self.client.is_worn(config, now) {
            self.tell_to_go(now);
        }
        if self.codec.is_prioritized() {
            self.bells.prioritize();
        }
        let is_connect = section.protocol().is_some();
        if is_connect {
            let nonce = worker.rng.borrow_mut().random();
            section.add_websocket_key(nonce);
        }
        let mut kept = worker.room_for_head();
        kept.at = 0;
        let taken = kept.head.take(section, ended, &policy);
        let mut inbox = worker.blocks.borrow_mut().small();
        let (head, framing) = match taken {
            Ok(()) => {
                inbox.vec_mut().extend_from_slice(section.lines());
                inbox.consume(inbox.unread().len());
                let framing = kept.head.framing();
                (Ok(kept), framing)
            }
            Err(error) => {
                let rule = kept.head.broken_rule().filter(|_| error == crate::error::ProxyError::BadRequest);
                worker.put_head(kept);
                section.push_request_line(inbox.vec_mut());
                (Err((error, rule)), Framing::None)
            }
        };
        section.trim(SECTION_KEPT_BYTES);
        let runner = worker.take_runner();
        // what comes behind an extended CONNECT is no body: whoever takes it takes it as it is
        let is_tunnel = is_connect && head.is_ok();
        runner.lane.begin(&self.bells, place, if is_tunnel { Framing::UntilClose } else { framing });
        runner.lane.set_connection(self.local, connection.stream.is_encrypted());
        if framing.is_empty() && ended == is_tunnel {
            runner.lane.end(&[]);
        }
        let (client, session) = (Rc::clone(&self.client), self.session.clone());
        runner.give(Work { client, session, pinned, listener, head, inbox, at: now });
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        self.slots[place] = Some(Slot::new(runner));
        Ok(())
    }

    /// Gives back what serving has taken.
    fn shrink(&mut self) {
        (self.slots, self.writing) = (Vec::new(), Vec::new());
        self.codec.shrink();
        self.bells.shrink();
    }

    fn may_idle(&self, inbox: &Block) -> bool {
        self.codec.streams() == 0
            && self.farewell == Farewell::No
            && !self.is_deaf
            && self.head_began.is_none()
            && inbox.is_empty()
            && self.codec.is_greeted()
    }

    /// Room for a receive behind what is there of a frame; false: the frame is larger than any may be.
    fn has_room(&self, inbox: &mut Block, worker: &Worker) -> bool {
        inbox.compact();
        if inbox.room() == 0 && !inbox.is_empty() {
            worker.grow(inbox, crate::http::h2::connection::INPUT_BYTES_MAX);
        }
        inbox.is_empty() || inbox.room() > 0
    }

    pub(super) fn count_reset(&self, side: StreamSide, code: Code) {
        let at = self.client.door.at();
        at.generation.recorder.stream_reset(at.row, side, StreamCode::ALL[code as usize]);
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.lose_all();
        let client = Rc::clone(&self.client);
        self.count_ahead(0, &client.door.worker);
    }
}

/// What ends a wait.
enum Waited {
    Received((io::Result<usize>, Block)),
    /// A lane wants something, or a drain has begun.
    Rung,
    /// Time is over.
    Passed,
}

/// What ends a wait while something is being sent.
enum Happened {
    Sent((io::Result<()>, Block)),
    Received((io::Result<usize>, Block)),
}

fn poll_sent<S, R>(send: Pin<&mut S>, receiving: Pin<&mut Option<R>>, cx: &mut Context<'_>) -> Poll<Happened>
where
    S: Future<Output = (io::Result<()>, Block)>,
    R: Future<Output = (io::Result<usize>, Block)>,
{
    if let Poll::Ready(sent) = send.poll(cx) {
        return Poll::Ready(Happened::Sent(sent));
    }
    match receiving.as_pin_mut().map(|future| future.poll(cx)) {
        Some(Poll::Ready(received)) => Poll::Ready(Happened::Received(received)),
        _ => Poll::Pending,
    }
}

/// Has what comes next received: behind what is there of a frame, or into a block that it brings itself.
fn receive<'c>(
    worker: &Worker,
    stream: &'c Stream,
    inbox: &mut Block,
) -> impl Future<Output = (io::Result<usize>, Block)> + use<'c> {
    let mut into = std::mem::take(inbox);
    if into.is_empty() && stream.listen() {
        worker.put(std::mem::take(&mut into));
    } else if into.room() == 0 {
        into = worker.blocks.borrow_mut().small();
    }
    stream.receive(into)
}
