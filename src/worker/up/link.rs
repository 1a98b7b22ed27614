//! One shared connection to an endpoint: its streams, and what of them waits to be written.
//!
//! What a stream's request has not sent waits in its lane, and what its client has not read holds back that stream's window and no other's: the
//! connection's window is given back as DATA arrives.

use super::links::{Loss, Site};
use crate::http::h2::ask;
use crate::http::h2::code::Code;
use crate::http::h2::connection::{Connection as Codec, Event};
use crate::http::h2::section::Section;
use crate::http::h2::settings::OwnSettings;
use crate::http::h2::upward::Upward;
use crate::http::websocket::Accept;
use crate::limits::{INTERIM_RESPONSES_MAX, RESPONSE_HEAD_BYTES_MAX, RESPONSE_HEADERS_MAX};
use crate::net::block::Block;
use crate::net::clock;
use crate::net::lane::{Bells, Lane};
use crate::net::stream::Stream;
use crate::net::upstream::Upstream;
use crate::observe::labels::Http2Failure;
use crate::units::Instant;
use crate::worker::state::Worker;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Seats that a connection keeps for its next requests, at most: some hundred bytes each, and what their heads have taken.
const SEATS_KEPT: usize = 128;
/// What an endpoint may send on a stream before its client has taken any of it.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same for all streams of a connection: given back as it arrives.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A request's place on a connection.
pub(in crate::worker) struct Seat {
    pub(super) lane: Rc<Lane>,
    pub(super) upstream: Upstream,
    pub(super) loss: Cell<Loss>,
    /// Its head was written.
    pub(super) is_begun: Cell<bool>,
}

impl Seat {
    fn make() -> Rc<Self> {
        let lane = Lane::new();
        let upstream = Upstream::new(Stream::of_lane(&lane));
        Rc::new(Self { lane, upstream, loss: Cell::default(), is_begun: Cell::default() })
    }

    /// Whether nothing is left of the request that had it.
    fn is_free(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) == 1 && !self.upstream.is_armed()
    }
}

/// A stream, or one that is to begin.
pub(super) struct Slot {
    pub(super) seat: Rc<Seat>,
    /// The codec's, once it has begun.
    pub(super) place: Option<usize>,
    pub(super) upward: Upward,
    pub(super) is_head: bool,
    /// It is an extended CONNECT, and this goes to its client if that is taken up.
    pub(super) accept: Option<Accept>,
    pub(super) is_writing: bool,
    /// All of the response is here.
    pub(super) is_whole: bool,
    /// Whoever had it has ended, and only the end of the response is missing.
    pub(super) lingers_since: Option<Instant>,
    interim: usize,
}

/// See the module.
pub(in crate::worker) struct Link {
    pub(super) core: RefCell<Core>,
    pub(super) bells: Rc<Bells>,
    site: Rc<Site>,
    streams_max: usize,
    pub(super) is_draining: Cell<bool>,
    drains_behind_first: Cell<bool>,
    is_lost: Cell<bool>,
    /// The endpoint has broken the protocol.
    is_violated: Cell<bool>,
    /// Since when a part of a frame, or of a header block, is there.
    pub(super) part_since: Cell<Option<Instant>>,
    /// HTTP/1.1 was to be had as well.
    is_negotiated: bool,
    /// The one whose request answers for the loss.
    blamed: Cell<*const Seat>,
}

/// What the connection's task works on, for no longer than a call.
pub(super) struct Core {
    pub(super) codec: Codec,
    section: Section,
    pub(super) slots: Slab<Slot>,
    /// Seats that nobody has.
    spare: Vec<Rc<Seat>>,
    /// Keys of slots by the codec's places.
    pub(super) keys: Vec<usize>,
    pub(super) writing: Vec<usize>,
    /// A header block on its way.
    pub(super) block: Vec<u8>,
    pub(super) is_secure: bool,
}

impl Core {
    /// What the endpoint has said of how many streams it takes.
    fn terms(&self) -> (bool, usize) {
        (self.codec.is_greeted(), self.codec.peer_streams_max())
    }
}

impl Link {
    pub(super) fn new(is_secure: bool, is_negotiated: bool, site: &Rc<Site>, streams_max: usize) -> Rc<Self> {
        let own = OwnSettings {
            streams_max: 0,
            window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            head_bytes_max: RESPONSE_HEAD_BYTES_MAX as u32,
            fields_max: RESPONSE_HEADERS_MAX,
        };
        let core = Core {
            codec: Codec::to_endpoint(own, clock::now()),
            section: Section::default(),
            slots: Slab::new(),
            spare: Vec::new(),
            keys: Vec::new(),
            writing: Vec::new(),
            block: Vec::new(),
            is_secure,
        };
        Rc::new(Self {
            core: RefCell::new(core),
            bells: Rc::default(),
            site: Rc::clone(site),
            streams_max,
            is_draining: Cell::new(false),
            drains_behind_first: Cell::new(false),
            is_lost: Cell::new(false),
            is_violated: Cell::new(false),
            part_since: Cell::new(None),
            is_negotiated,
            blamed: Cell::new(std::ptr::null()),
        })
    }

    /// Whether one more stream may be begun: not before the endpoint has said how many it takes (RFC 9113 §5.1.2).
    pub(super) fn has_room(&self) -> bool {
        let core = self.core.borrow();
        let (is_greeted, peer_max) = core.terms();
        !self.is_draining.get() && is_greeted && core.slots.len() < self.streams_max.min(peer_max)
    }

    /// Whether the endpoint has said that it takes none at all.
    pub(super) fn gives_none(&self) -> bool {
        self.core.borrow().terms() == (true, 0)
    }

    /// Whether the connection is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.get()
    }

    /// Whether that was because the endpoint does not keep to the protocol.
    pub(super) fn is_violated(&self) -> bool {
        self.is_violated.get()
    }

    /// It does not: what is at the front of its inbox is against it.
    #[cold]
    pub(super) fn on_violation(&self, unread: &[u8]) {
        self.is_violated.set(true);
        let is_http1 = unread.starts_with(b"HTTP/1.");
        self.note(if is_http1 { Http2Failure::PlainHttp1 } else { Http2Failure::Protocol });
    }

    /// Notes what has happened to it.
    pub(super) fn note(&self, failure: Http2Failure) {
        self.site.note(failure);
    }

    /// A place for a request.
    pub(super) fn sit(&self) -> Rc<Seat> {
        let mut core = self.core.borrow_mut();
        let seat = core.spare.pop().unwrap_or_else(Seat::make);
        self.site.begin_stream();
        seat.lane.set_connection(None, core.is_secure);
        seat.loss.set(Loss::None);
        seat.is_begun.set(false);
        let key = core.slots.insert(Slot {
            seat: Rc::clone(&seat),
            place: None,
            upward: Upward::default(),
            is_head: false,
            accept: None,
            is_writing: false,
            is_whole: false,
            lingers_since: None,
            interim: 0,
        });
        // open to what comes: how that is framed is said with its head
        seat.lane.begin(&self.bells, key, crate::http::framing::Framing::UntilClose);
        if self.drains_behind_first.get() {
            self.is_draining.set(true);
        }
        seat
    }

    /// No more streams are begun, and it ends with the last one.
    pub(super) fn drain(&self) {
        self.is_draining.set(true);
        self.bells.wake();
    }

    pub(super) fn drain_behind_first(&self) {
        self.drains_behind_first.set(true);
    }

    /// Whether this seat's request answers for the loss of the connection: the first one that asks.
    pub(super) fn blame(&self, seat: &Rc<Seat>) -> bool {
        if self.blamed.get().is_null() {
            self.blamed.set(Rc::as_ptr(seat));
        }
        std::ptr::eq(self.blamed.get(), Rc::as_ptr(seat))
    }

    pub(super) fn streams(&self) -> usize {
        self.core.borrow().slots.len()
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_draining.get() && self.streams() == 0
    }

    pub(super) fn takes_more(&self) -> bool {
        self.core.borrow().codec.takes_more()
    }

    pub(super) fn is_greeted(&self) -> bool {
        self.core.borrow().codec.is_greeted()
    }

    pub(super) fn ping(&self) {
        self.core.borrow_mut().codec.ping(*b"ringgate");
    }

    pub(super) fn go_away(&self) {
        self.core.borrow_mut().codec.go_away(Code::NoError, Some(0));
    }

    /// The connection is gone, and every stream with it that has not got all it was to get.
    pub(super) fn lose(&self) {
        self.is_draining.set(true);
        self.is_lost.set(true);
        let slots = std::mem::take(&mut self.core.borrow_mut().slots);
        self.site.end_streams(slots.len());
        for (_, slot) in slots {
            match slot.is_whole {
                // its response stands; nobody takes the rest of its request
                true => slot.seat.lane.part(),
                false => {
                    if slot.seat.loss.get() == Loss::None {
                        slot.seat.loss.set(Loss::Connection);
                    }
                    slot.seat.lane.leave();
                }
            }
        }
        self.site.remove(self);
    }

    /// Takes what is in the inbox; whether a pong came is said.
    pub(super) fn take(&self, inbox: &mut Block, worker: &Worker, now: Instant) -> Result<bool, Code> {
        if inbox.is_empty() {
            return Ok(false); // a part of a frame may be with the receive that is in flight
        }
        let (mut core, mut has_pong) = (self.core.borrow_mut(), false);
        let mut part_since = self.part_since.get();
        let core = &mut *core;
        let terms = core.terms();
        while !inbox.is_empty() && core.codec.takes_more() {
            let fed = core.codec.feed(inbox.unread(), &mut core.section, now)?;
            match fed.event {
                None if fed.consumed == 0 => break,
                Some(Event::Data { place, payload, ended }) => {
                    let slot = &mut core.slots[core.keys[place]];
                    slot.seat.lane.deliver(payload, &worker.blocks);
                    if ended {
                        slot.end(&[]);
                    }
                    self.release_if_lingering(core, core.keys[place], worker);
                }
                Some(Event::Trailers { place }) => {
                    core.slots[core.keys[place]].end(core.section.lines());
                    self.release_if_lingering(core, core.keys[place], worker);
                }
                Some(event) => has_pong |= self.on_event(core, event),
                None => {}
            }
            let consumed = fed.consumed;
            inbox.consume(consumed);
            if consumed > 0 && !core.codec.is_within_head() {
                part_since = None;
            }
        }
        let has_part = !inbox.is_empty() && core.codec.takes_more();
        let is_within = has_part || core.codec.is_within_head();
        self.part_since.set(is_within.then(|| part_since.unwrap_or(now)));
        if inbox.is_empty() {
            inbox.clear();
        }
        if core.terms() != terms {
            self.site.changed();
        }
        Ok(has_pong)
    }

    fn on_event(&self, core: &mut Core, event: Event<'_>) -> bool {
        match event {
            Event::Response { place, ended } => {
                let slot = &mut core.slots[core.keys[place]];
                let (section, is_head) = (&core.section, slot.is_head);
                let is_success = section.status().is_some_and(|status| status.is_success());
                match slot.accept.filter(|_| is_success && !ended) {
                    Some(accept) => slot.seat.lane.deliver_head(|out| ask::switch(out, section, &accept)),
                    None => slot.seat.lane.deliver_head(|out| ask::restate(out, section, is_head, ended)),
                }
                if ended {
                    slot.end(&[]);
                }
            }
            Event::Interim { place } => {
                let slot = &mut core.slots[core.keys[place]];
                slot.interim += 1;
                if slot.interim > INTERIM_RESPONSES_MAX {
                    core.codec.reset(place, Code::EnhanceYourCalm);
                    slot.seat.loss.set(Loss::Malformed);
                    slot.seat.lane.lose();
                    return false;
                }
                let (section, is_head) = (&core.section, slot.is_head);
                slot.seat.lane.deliver_head(|out| ask::restate(out, section, is_head, false));
            }
            Event::Reset { place, code, by_client } => {
                let slot = &mut core.slots[core.keys[place]];
                if by_client && code == Code::EnhanceYourCalm {
                    self.site.on_calm();
                }
                if slot.is_whole {
                    slot.seat.lane.part(); // RFC 9113 §8.1: it has enough of the request
                } else {
                    match code {
                        _ if !by_client => slot.seat.loss.set(Loss::Malformed),
                        Code::RefusedStream => slot.seat.loss.set(Loss::Refused),
                        Code::Http11Required if self.falls_back() => slot.seat.loss.set(Loss::Unprocessed),
                        _ => {}
                    }
                    slot.seat.lane.lose();
                }
            }
            Event::Goaway { last, code } => {
                self.is_draining.set(true);
                match code {
                    Code::Http11Required => drop(self.falls_back()),
                    Code::EnhanceYourCalm => self.site.on_calm(),
                    _ => {}
                }
                for (_, slot) in core.slots.iter().filter(|(_, slot)| !slot.is_whole) {
                    if slot.place.is_none_or(|place| core.codec.stream(place).id() > last) {
                        slot.seat.loss.set(Loss::Unprocessed);
                        slot.seat.lane.lose();
                    }
                }
                self.site.changed();
            }
            Event::Pong(_) => return true,
            _ => {}
        }
        false
    }

    /// The endpoint wants to be spoken to in HTTP/1.1 (RFC 9113 §7, HTTP_1_1_REQUIRED). Whether that is done from now on.
    fn falls_back(&self) -> bool {
        if self.is_negotiated {
            self.site.require_http1();
            self.is_draining.set(true);
        }
        self.is_negotiated
    }

    pub(super) fn release(&self, core: &mut Core, key: usize, worker: &Worker) {
        let slot = core.slots.remove(key);
        self.site.end_streams(1);
        if let Some(place) = slot.place {
            core.codec.release(place);
        }
        slot.seat.lane.leave();
        slot.seat.lane.take_blocks().into_iter().for_each(|block| worker.put(block));
        if slot.seat.is_free() && core.spare.len() < SEATS_KEPT {
            core.spare.push(slot.seat);
        }
        self.site.changed();
    }

    /// Something is to be done for a lane.
    pub(super) fn on_rung(&self, key: usize, worker: &Worker) {
        let mut core = self.core.borrow_mut();
        let Core { codec, slots, writing, .. } = &mut *core;
        let Some(slot) = slots.get_mut(key) else { return };
        let lane = Rc::clone(&slot.seat.lane);
        lane.on_rung();
        let taken = lane.take_taken();
        if let Some(place) = slot.place {
            if taken > 0 {
                codec.on_taken(place, taken, !worker.is_streams_full());
            }
            if lane.is_cut() {
                codec.reset(place, Code::Cancel);
            }
        }
        if lane.is_cut() {
            lane.outgoing(Block::consume_all); // it may be sent again, elsewhere
        }
        let waits = lane.outgoing(|block| !block.is_empty());
        if waits && !slot.is_writing {
            slot.is_writing = true;
            writing.push(key);
        }
        if !waits && lane.is_finished() {
            self.end(&mut core, key, worker);
        }
    }

    /// Whoever had it has ended.
    pub(super) fn end(&self, core: &mut Core, key: usize, worker: &Worker) {
        let slot = &mut core.slots[key];
        match slot.place.is_some_and(|place| core.codec.awaits_end_only(place)) && !slot.is_whole {
            true => slot.lingers_since = Some(clock::now()),
            false => self.release(core, key, worker),
        }
    }
}

impl Slot {
    fn end(&mut self, trailers: &[u8]) {
        self.is_whole = true;
        self.seat.lane.end(trailers);
    }
}
