//! Connections that many requests share, as HTTP/2 has them: how a generator uses them.
//!
//! Each stands once among those that may take a request while there is room on it, and goes to the end of the line when it has taken one, so
//! requests are spread evenly. One that a request has waited for in vain while nothing at all came takes no more.

use super::connection::{Request, State};
use super::generator::Generator;
use super::mux::{Heard, Mux};
use crate::clock;
use crate::load::{Pace, Protocol};
use crate::units::Moment;
use crate::wire::Failure;
use rustix::event::epoll::EventFlags;

/// Pieces of one connection that are read before others are looked at.
const PIECES_MAX: usize = 64;

impl Generator<'_> {
    /// A connection is there: the protocol begins on it.
    pub(super) fn share(&mut self, row: usize, streams: usize, now: Moment) {
        let streams = if self.load.reconnects { 1 } else { streams };
        self.connections[row].mux = Some(Box::new(Mux::new(streams, self.load.tls.is_some(), now)));
        self.on_shared(row, EventFlags::IN, now);
    }

    /// The socket of a connection that is shared is ready for something.
    pub(super) fn on_shared(&mut self, row: usize, flags: EventFlags, now: Moment) {
        let serial = self.connections[row].serial;
        if let Err(failure) = self.push(row)
            // an answer, or a reason, may stand in the socket
            && failure != Failure::Reset
        {
            return self.lose(row, failure, now);
        }
        let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if !ends && !flags.contains(EventFlags::IN) {
            return;
        }
        for _ in 0..PIECES_MAX {
            let heard = self.hear(row);
            let now = clock::now();
            let heard = match heard {
                Ok(heard) => heard,
                Err(failure) => return self.lose(row, failure, now),
            };
            if let Err(failure) = self.push(row) {
                return self.lose(row, failure, now);
            }
            self.refresh(row, now);
            self.catch_up(now);
            if self.connections[row].serial != serial {
                return;
            }
            if matches!(heard, Heard::All) && !ends {
                return;
            }
        }
        // the kernel tells of it only once
        self.unread.push_back((row, serial, flags));
    }

    /// Reads a piece, and enters what has ended by it.
    fn hear(&mut self, row: usize) -> Result<Heard, Failure> {
        let connection = &mut self.connections[row];
        let (Some(link), Some(mux)) = (&mut connection.link, &mut connection.mux) else { return Ok(Heard::All) };
        let mut ended = std::mem::take(&mut self.ended);
        let heard = mux.pull(link, &self.targets, &mut self.buffer, &mut self.received, &mut ended);
        let now = clock::now();
        for end in ended.drain(..) {
            if let Some(mux) = &self.connections[row].mux {
                self.record(mux.ended(end.slot), end.status, end.failure, now);
            }
        }
        self.ended = ended;
        heard
    }

    fn push(&mut self, row: usize) -> Result<(), Failure> {
        let connection = &mut self.connections[row];
        let (Some(link), Some(mux)) = (&mut connection.link, &mut connection.mux) else { return Ok(()) };
        mux.push(link, &self.targets, &mut self.sent)
    }

    /// Begins a request on a connection that has room.
    pub(super) fn send_shared(&mut self, row: usize, request: Request, now: Moment) {
        let connection = &mut self.connections[row];
        let Some(mux) = &mut connection.mux else { return };
        let (slot, stream) = mux.begin(request, &self.targets[request.target as usize]);
        if self.load.reconnects {
            mux.codec.stop();
        }
        let serial = connection.serial;
        self.enter(request.due, row, serial, (slot, stream));
        match self.push(row) {
            // what came before it is read yet
            Ok(()) | Err(Failure::Reset) => self.list(row),
            Err(failure) => self.lose(row, failure, now),
        }
    }

    /// A connection with room stands among those that may take a request.
    fn list(&mut self, row: usize) {
        let connection = &mut self.connections[row];
        if let Some(mux) = &mut connection.mux
            && !mux.is_listed
            && mux.codec.room() > 0
            && matches!(connection.state, State::Shared)
        {
            mux.is_listed = true;
            self.idle.push_back((row, connection.serial));
        }
    }

    /// There may be room that was not there before, or nothing left to wait for.
    fn refresh(&mut self, row: usize, now: Moment) {
        let connection = &mut self.connections[row];
        let (serial, Some(mux)) = (connection.serial, &connection.mux) else { return };
        if let State::Connecting(request) = connection.state {
            if !mux.codec.is_ready() {
                return;
            }
            connection.state = State::Shared;
            let is_closing = mux.codec.is_closing();
            if let Some(request) = request {
                if is_closing {
                    // its server goes with the first word; asked again at once, it would be asked without end
                    self.record(request, None, Some(Failure::Goaway), now);
                } else if mux.codec.room() > 0 {
                    self.send_shared(row, Request { begun: now, ..request }, now);
                } else {
                    self.waiting.push_front(request);
                }
            }
        }
        while self.has_room(row, serial) {
            if let Some(request) = self.waiting.pop_front() {
                self.send_shared(row, Request { begun: now, ..request }, now);
            } else if matches!(self.load.pace, Pace::Closed) && now >= self.start && now < self.end {
                self.fly(1, now);
                let target = self.mix.draw(&mut self.rng);
                self.send_shared(row, Request { target, due: now, begun: now }, now);
            } else {
                return self.list(row);
            }
        }
        let connection = &self.connections[row];
        let is_over = |mux: &Mux| mux.codec.is_closing() && mux.codec.in_flight() == 0;
        if connection.serial == serial && connection.mux.as_deref().is_some_and(is_over) {
            self.bid_goodbye(row, false);
            self.close(row, now);
        }
    }

    fn has_room(&self, row: usize, serial: u32) -> bool {
        let connection = &self.connections[row];
        let room = |mux: &Mux| mux.codec.room() > 0;
        connection.serial == serial && connection.mux.as_deref().is_some_and(room)
    }

    /// A request took too long: the others on its connection may be well.
    pub(super) fn expire(&mut self, row: usize, (slot, stream): (usize, u32), now: Moment) {
        let Some(mux) = &mut self.connections[row].mux else { return };
        let Some(request) = mux.request(slot, stream) else { return };
        mux.codec.cancel(slot);
        if mux.heard < request.begun {
            mux.codec.stop();
        }
        self.record(request, None, Some(Failure::Timeout), now);
        match self.push(row) {
            Ok(()) => self.refresh(row, now),
            Err(failure) => self.lose(row, failure, now),
        }
    }

    /// The connection has ended, or is of no use: so have all requests on it.
    fn lose(&mut self, row: usize, failure: Failure, now: Moment) {
        if let Some(mux) = &self.connections[row].mux {
            let kind = mux.kind(failure);
            let mut lost = mux.under_way();
            if let State::Connecting(Some(request)) = self.connections[row].state {
                lost.push(request);
            }
            for request in lost {
                self.record(request, None, Some(kind), now);
            }
        }
        self.bid_goodbye(row, matches!(failure, Failure::Garbage | Failure::Surplus));
        self.close(row, now);
    }

    /// Says why the connection ends; who does not take it at once is not waited for.
    fn bid_goodbye(&mut self, row: usize, is_its_fault: bool) {
        if let Some(mux) = &mut self.connections[row].mux {
            mux.codec.say_goodbye(is_its_fault);
        }
        let _ = self.push(row);
    }

    /// Connections of which more is there to be read.
    pub(super) fn read_on(&mut self, now: Moment) {
        for _ in 0..self.unread.len() {
            let Some((row, serial, flags)) = self.unread.pop_front() else { return };
            self.on_ready(row, serial, flags, now);
        }
    }

    /// What is spoken, where many requests share a connection.
    pub(super) fn streams(&self) -> Option<usize> {
        match self.load.protocol {
            Protocol::Http1 => None,
            Protocol::Http2 { streams } => Some(streams),
        }
    }
}
