//! A lane: one stream of a connection that carries many (HTTP/2), as whoever serves it sees it: a stream socket.
//!
//! What a client sends on it is delivered here by the connection's own task, and what is sent on it waits here until that task has room for
//! it; neither is copied more often than that. So whatever serves a request, with its deadlines and its waits, is the same code over a lane as
//! over a socket. A lane has a *descriptor* below zero, which no kernel knows: what the timers do to a descriptor that they watch
//! ([`super::timer`]) reaches the lane by it.
//!
//! A request's body comes out of a lane as it is framed: as it is where its length is known, else in the chunked coding, one chunk for all
//! that is there, so that an end that is the stream's is an end that everybody can see. What goes into a lane are frames of HTTP/2 with
//! the id 0, which is what the encoders write for such a client.
//!
//! Towards an endpoint it is the same the other way round ([`Lane::deliver_head`]): what is sent on it is a request as HTTP/1.1 writes it, and what
//! is received is a response so written; the connection's task makes frames of the one and the other of frames.
//!
//! It holds no block while nothing is under way, and knows neither ids nor windows.

mod bells;
pub(super) mod socket;

pub use bells::Bells;
pub use socket::{heeds_priorities, prioritize};

use super::block::{Block, Blocks};
use super::stream::Received;
use crate::http::body::{CHUNK_HEADROOM, frame_piece, push_piece};
use crate::http::framing::Framing;
use crate::http::h2::priority::Signal;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The descriptor of the first lane of a thread; those of others are below it.
const FIRST_FD: RawFd = -2;
/// Room for trailers that a lane keeps from one stream to the next; more than most have.
const TRAILERS_KEPT: usize = 256;
/// The same for the head of a response.
const HEAD_KEPT: usize = 4 << 10;
/// What the coding of a chunk takes beside its payload, with its end but without trailers.
const CHUNK_OVERHEAD: usize = 32;

thread_local! {
    /// Those of this thread, by their descriptors.
    static LANES: RefCell<Slab<Rc<Lane>>> = RefCell::default();
}

/// How a request's body comes to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// All of it is here.
    Ended,
    /// … and it was said.
    Told,
}

/// What the client has sent and nobody has taken.
#[derive(Debug, Default)]
struct Incoming {
    /// Of a response, and how much of it was taken.
    head: Vec<u8>,
    head_taken: usize,
    block: Block,
    /// Lines.
    trailers: Vec<u8>,
    end: End,
    is_chunked: bool,
}

impl Incoming {
    fn is_ready(&self) -> bool {
        !self.block.is_empty() || self.end != End::Open || self.has_head()
    }

    fn has_head(&self) -> bool {
        self.head_taken < self.head.len()
    }

    /// As much of the head as there is room for; and, if that is all of it, what there is of the body behind it.
    fn take_head(&mut self, mut into: Block) -> (usize, Received) {
        let left = &self.head[self.head_taken..];
        // one that is full has no room for anything, and must grow all the same
        let part = if into.room() == 0 { left.len() } else { left.len().min(into.room()) };
        into.vec_mut().extend_from_slice(&left[..part]);
        self.head_taken += part;
        if self.has_head() {
            return (0, (Ok(part), into));
        }
        self.head.clear();
        self.head_taken = 0;
        if self.block.is_empty() && self.end != End::Ended {
            return (0, (Ok(part), into));
        }
        let (taken, (received, into)) = self.take(into);
        (taken, (received.map(|bytes| bytes + part), into))
    }

    /// Bytes of payload that were taken, and what they are now.
    fn take(&mut self, into: Block) -> (usize, Received) {
        if self.has_head() {
            return self.take_head(into);
        }
        let framing = if self.is_chunked { Framing::Chunked } else { Framing::UntilClose };
        let there = self.block.unread().len();
        let is_end = self.end == End::Ended && self.is_chunked;
        if !self.is_chunked && self.end == End::Ended {
            self.end = End::Told;
        }
        if there == 0 && !is_end {
            return (0, (Ok(0), into));
        }
        if into.all().is_empty() {
            let mut block = std::mem::replace(&mut self.block, into);
            if self.is_chunked {
                let end = is_end.then_some(&self.trailers[..]);
                let range = block.range();
                match frame_piece(block.vec_mut(), range, end) {
                    Some(range) => block.set_unread(range),
                    None => return (0, (Err(io::ErrorKind::OutOfMemory.into()), block)),
                }
            }
            self.told(is_end);
            let bytes = block.unread().len();
            return (there, (Ok(bytes), block));
        }
        let mut into = into;
        let before = into.unread().len();
        let room = into.room().saturating_sub(CHUNK_OVERHEAD + if is_end { self.trailers.len() } else { 0 });
        // one that is full has no room for anything, and must grow all the same
        let part = if room == 0 { there } else { there.min(room) };
        let is_end = is_end && part == there;
        let end = is_end.then_some(&self.trailers[..]);
        push_piece(into.vec_mut(), framing, &self.block.unread()[..part], end);
        self.block.consume(part);
        if self.block.is_empty() {
            self.block.clear();
        }
        self.told(is_end);
        let bytes = into.unread().len() - before;
        (part, (Ok(bytes), into))
    }

    fn told(&mut self, is_end: bool) {
        if is_end {
            self.end = End::Told;
        }
    }
}

/// See the module. Made once and used for one stream after another.
#[derive(Debug)]
pub struct Lane {
    fd: Cell<RawFd>,
    incoming: RefCell<Incoming>,
    outgoing: RefCell<Block>,
    /// Whoever sends what is in it waits for that.
    is_sending: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    /// Payload that was taken and that nobody has asked for yet.
    taken: Cell<usize>,
    /// Bytes of the block that its connection counts.
    held: Cell<usize>,
    /// Whoever serves it reads no more.
    is_deaf: Cell<bool>,
    /// … and sends no more either: what was begun is not ended.
    is_cut: Cell<bool>,
    /// The client has left, or has reset the stream.
    is_lost: Cell<bool>,
    /// The client has said that it sends nothing more, on any stream, and may still read.
    is_half_closed: Cell<bool>,
    /// The other end takes no more of what is sent, and minds nothing.
    is_parted: Cell<bool>,
    /// Whoever served it has ended.
    is_finished: Cell<bool>,
    is_due: Cell<bool>,
    bells: RefCell<Option<(Rc<Bells>, u32)>>,
    /// How urgent what is sent is, by who has made it.
    priority: Cell<Option<Signal>>,
    local: Cell<Option<SocketAddr>>,
    is_encrypted: Cell<bool>,
}

/// The connection's side.
impl Lane {
    /// One that no stream uses.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            fd: Cell::new(-1),
            incoming: RefCell::default(),
            outgoing: RefCell::default(),
            is_sending: Cell::new(false),
            reader: RefCell::default(),
            writer: RefCell::default(),
            taken: Cell::new(0),
            held: Cell::new(0),
            is_deaf: Cell::new(false),
            is_cut: Cell::new(false),
            is_lost: Cell::new(false),
            is_half_closed: Cell::new(false),
            is_parted: Cell::new(false),
            is_finished: Cell::new(false),
            is_due: Cell::new(false),
            bells: RefCell::default(),
            priority: Cell::new(None),
            local: Cell::new(None),
            is_encrypted: Cell::new(false),
        })
    }

    /// Makes it a stream's of this place, whose body comes so.
    pub fn begin(&self, bells: &Rc<Bells>, place: usize, framing: Framing) {
        for flag in [&self.is_deaf, &self.is_cut, &self.is_lost, &self.is_parted, &self.is_finished, &self.is_due] {
            flag.set(false);
        }
        self.is_half_closed.set(false);
        self.priority.set(None);
        self.taken.set(0);
        self.held.set(0);
        let mut incoming = self.incoming.borrow_mut();
        incoming.trailers.clear();
        incoming.head.clear();
        incoming.head_taken = 0;
        incoming.is_chunked = framing == Framing::Chunked;
        incoming.end = if framing.is_empty() { End::Told } else { End::Open };
        *self.bells.borrow_mut() = Some((Rc::clone(bells), place as u32));
    }

    /// What is true of its connection.
    pub fn set_connection(&self, local: Option<SocketAddr>, is_encrypted: bool) {
        self.local.set(local);
        self.is_encrypted.set(is_encrypted);
    }

    /// The head of a response has come, interim or final, and is written by `write`, which says how the body comes behind it.
    pub fn deliver_head(&self, write: impl FnOnce(&mut Vec<u8>) -> Framing) {
        let mut incoming = self.incoming.borrow_mut();
        incoming.is_chunked = write(&mut incoming.head) == Framing::Chunked;
        drop(incoming);
        wake(&self.reader);
    }

    /// A piece of the body has come. Blocks are of the worker's stock.
    pub fn deliver(&self, payload: &[u8], blocks: &RefCell<Blocks>) {
        if payload.is_empty() {
            return;
        }
        let mut incoming = self.incoming.borrow_mut();
        let block = &mut incoming.block;
        if block.is_empty() {
            if block.room() < payload.len() + CHUNK_HEADROOM {
                blocks.borrow_mut().put(std::mem::take(block));
                *block = make_room(payload.len() + CHUNK_HEADROOM, blocks);
            }
            block.clear_with_headroom(CHUNK_HEADROOM);
        } else if block.room() < payload.len() {
            let mut larger = make_room(block.unread().len() + payload.len() + CHUNK_HEADROOM, blocks);
            larger.clear_with_headroom(CHUNK_HEADROOM);
            larger.vec_mut().extend_from_slice(block.unread());
            blocks.borrow_mut().put(std::mem::replace(block, larger));
        }
        block.vec_mut().extend_from_slice(payload);
        self.hold(block.capacity());
        drop(incoming);
        wake(&self.reader);
    }

    /// The body has come to its end, with these lines behind it.
    pub fn end(&self, trailers: &[u8]) {
        let mut incoming = self.incoming.borrow_mut();
        incoming.trailers.extend_from_slice(trailers);
        if incoming.end == End::Open {
            incoming.end = End::Ended;
        }
        drop(incoming);
        wake(&self.reader);
    }

    /// The client has left, or has reset the stream: nothing more will come, and nothing is taken any more.
    pub fn lose(&self) {
        self.is_lost.set(true);
        wake(&self.reader);
        wake(&self.writer);
    }

    /// The client has ended its direction of the whole connection. It may have left, so it is looked after as at a socket that was ended so.
    pub fn half_close(&self) {
        self.is_half_closed.set(true);
    }

    /// Nothing more is taken of what is sent on it, and what was received stands.
    pub fn part(&self) {
        self.is_parted.set(true);
        // whoever sends it may send it to somebody else
        self.outgoing.borrow_mut().consume_all();
        wake(&self.writer);
    }

    /// Payload that was taken since this was asked last.
    #[must_use]
    pub fn take_taken(&self) -> usize {
        self.taken.take()
    }

    /// How urgent what is sent on it is, if that was said since this was asked last ([`prioritize`]).
    #[must_use]
    pub fn take_priority(&self) -> Option<Signal> {
        self.priority.take()
    }

    /// It was heard that there is something to be done.
    pub fn on_rung(&self) {
        self.is_due.set(false);
    }

    /// What waits to be sent.
    pub fn outgoing<T>(&self, ask: impl FnOnce(&mut Block) -> T) -> T {
        let left = ask(&mut self.outgoing.borrow_mut());
        if self.outgoing.borrow().is_empty() {
            wake(&self.writer);
        }
        left
    }

    /// Whether what was begun on it will not be ended.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    /// Its connection is gone: nobody hears of it any more.
    pub fn leave(&self) {
        *self.bells.borrow_mut() = None;
        self.lose();
    }

    /// Whether whoever served it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.is_finished.get()
    }

    /// Blocks that are left in it.
    #[must_use]
    pub fn take_blocks(&self) -> [Block; 2] {
        let mut incoming = self.incoming.borrow_mut();
        incoming.trailers.clear();
        // the lane is kept for other clients' streams
        incoming.trailers.shrink_to(TRAILERS_KEPT);
        incoming.head.clear();
        incoming.head.shrink_to(HEAD_KEPT);
        self.hold(0);
        // what somebody is sending goes back to him
        let outgoing = if self.is_sending.get() { Block::default() } else { self.outgoing.take() };
        [std::mem::take(&mut incoming.block), outgoing]
    }
}

/// The side of whoever serves it.
impl Lane {
    /// Whoever serves it has ended; what is left to be sent is sent.
    pub fn finish(&self) {
        self.is_finished.set(true);
        self.ring();
    }

    /// The same of somebody who has failed: what was begun is not ended.
    pub fn abandon(&self) {
        self.shutdown(Shutdown::Both);
        self.finish();
    }

    fn ring(&self) {
        if self.is_due.replace(true) {
            return;
        }
        if let Some((bells, place)) = &*self.bells.borrow() {
            bells.ring(*place);
        }
    }

    /// Tells the connection how much it holds.
    fn hold(&self, bytes: usize) {
        let before = self.held.replace(bytes);
        if before != bytes
            && let Some((bells, _)) = &*self.bells.borrow()
        {
            bells.hold(bytes.cast_signed() - before.cast_signed());
        }
    }

    fn is_over(&self) -> bool {
        self.is_lost.get() || self.is_cut.get()
    }

    /// The end of our direction alone is no end of the stream: what comes of the other one is still received.
    fn shutdown(&self, how: Shutdown) {
        if how == Shutdown::Write {
            return self.part();
        }
        self.is_deaf.set(true);
        if how != Shutdown::Read {
            self.is_cut.set(true);
            self.ring();
            wake(&self.writer);
        }
        wake(&self.reader);
    }

    fn poll_received(&self, into: &mut Option<Block>, cx: &Context<'_>) -> Poll<Received> {
        if self.is_lost.get() {
            return Poll::Ready((Err(io::ErrorKind::ConnectionReset.into()), into.take().unwrap_or_default()));
        }
        if self.is_deaf.get() || self.is_cut.get() {
            return Poll::Ready((Ok(0), into.take().unwrap_or_default()));
        }
        let mut incoming = self.incoming.borrow_mut();
        if !incoming.is_ready() {
            keep(&self.reader, cx);
            return Poll::Pending;
        }
        let (taken, received) = incoming.take(into.take().unwrap_or_default());
        self.taken.set(self.taken.get() + taken);
        self.hold(if incoming.block.is_empty() { 0 } else { incoming.block.capacity() });
        drop(incoming);
        if taken > 0 {
            self.ring();
        }
        Poll::Ready(received)
    }

    fn poll_readable(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_over() || self.is_deaf.get() || self.incoming.borrow().is_ready() {
            return Poll::Ready(());
        }
        keep(&self.reader, cx);
        Poll::Pending
    }
}

fn keep(waiting: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut waiting = waiting.borrow_mut();
    if !waiting.as_ref().is_some_and(|set| set.will_wake(cx.waker())) {
        *waiting = Some(cx.waker().clone());
    }
}

fn wake(waiting: &RefCell<Option<Waker>>) {
    let waiting = waiting.borrow_mut().take();
    if let Some(waker) = waiting {
        waker.wake();
    }
}

/// A block for so many bytes, or the largest that there is.
fn make_room(bytes: usize, blocks: &RefCell<Blocks>) -> Block {
    let mut blocks = blocks.borrow_mut();
    if bytes <= crate::limits::BLOCK_SMALL {
        return blocks.small();
    }
    let is_bulk = bytes > crate::limits::BLOCK_LARGE;
    is_bulk.then(|| blocks.bulk()).flatten().unwrap_or_else(|| blocks.large())
}

#[cfg(test)]
mod tests;
