//! The frames about a connection, or about a stream as a whole (RFC 9113 §6.3 to §6.9), and what the caller has to say.

use super::code::{Code, Violation};
use super::connection::{CONTROL_BYTES_MAX, Connection, Event, STREAM_WINDOW_MAX};
use super::frame::{self, ACK, FrameHead, ID_MAX, Kind};
use super::guard::USEFUL_BYTES_MIN;
use super::priority::{Priority, Signal};
use super::streams::{Request, Response, Stream};
use crate::units::Instant;

type Taken = Result<Option<Event<'static>>, Violation>;

/// Memory for control frames that a connection keeps while nothing is to be said.
const CONTROL_KEPT: usize = 128;

impl Connection {
    pub(super) fn on_control(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Taken {
        let is_useless = !matches!(head.kind, Kind::RstStream | Kind::PushPromise);
        if is_useless {
            self.guard.on_useless(now).map_err(Violation::Connection)?;
        }
        let taken = match head.kind {
            Kind::Priority => return self.on_priority(head, payload),
            Kind::RstStream => self.on_reset(head, payload, now),
            Kind::Settings => self.on_settings(head, payload),
            Kind::Ping => self.on_ping(head, payload),
            Kind::Goaway => on_goaway(head, payload),
            Kind::PriorityUpdate => self.on_priority_update(head, payload),
            Kind::WindowUpdate => return self.on_window_update(head, payload),
            _ => Err(Code::Protocol), // PUSH_PROMISE: §8.4
        };
        taken.map_err(Violation::Connection)
    }

    /// §6.3; without effect, but its form is looked at.
    fn on_priority(&self, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id == 0 {
            return Err(Violation::Connection(Code::Protocol));
        }
        let code = match payload.len() {
            5 if frame::number31(payload) == Some(head.id) => Code::Protocol, // RFC 7540 §5.3.1
            5 => return Ok(None),
            _ => Code::FrameSize,
        };
        // one that was not begun cannot be reset
        Err(if self.is_idle(head.id) { Violation::Connection(code) } else { Violation::Stream(head.id, code) })
    }

    /// RFC 9218 §7.1. What it does not say is as if nothing had been said.
    fn on_priority_update(&mut self, head: FrameHead, payload: &[u8]) -> Result<Option<Event<'static>>, Code> {
        let (Some(id), Some(value)) = (frame::number31(payload), payload.get(4..)) else {
            return Err(Code::FrameSize);
        };
        // only clients send it, about streams of theirs
        if self.asks || head.id != 0 || id.is_multiple_of(2) {
            return Err(Code::Protocol);
        }
        let priority = Priority::default().with(Signal::parse(value));
        let early = self.priorities.get_or_insert_default();
        if id > self.last_id {
            early.note(id, priority);
        } else if let Some(place) = self.streams.find(id) {
            self.streams.get_mut(place).priority = priority;
        }
        Ok(None)
    }

    /// Notes how urgent a stream is that has begun. A frame about it that has come before counts for more than its head.
    #[cold]
    pub(super) fn prioritize(&mut self, place: usize, said: Option<Signal>) {
        let stream = self.streams.get_mut(place);
        let early = self.priorities.get_or_insert_default().take(stream.id);
        stream.priority = early.unwrap_or_else(|| Priority::default().with(said.unwrap_or_default()));
    }

    /// Whether the client has ever said how urgent something is: where it has not, all streams are alike.
    #[must_use]
    pub fn is_prioritized(&self) -> bool {
        self.priorities.is_some()
    }

    /// A service has said how urgent its response is, which it knows better than its client (RFC 9218 §8).
    pub fn correct_priority(&mut self, place: usize, said: Signal) {
        let stream = self.streams.get_mut(place);
        stream.priority = stream.priority.with(said);
    }

    /// §6.4
    fn on_reset(&mut self, head: FrameHead, payload: &[u8], now: Instant) -> Result<Option<Event<'static>>, Code> {
        let code =
            payload.try_into().map(|code| Code::from_wire(u32::from_be_bytes(code))).map_err(|_| Code::FrameSize)?;
        if self.is_idle(head.id) {
            return Err(Code::Protocol);
        }
        let Some(place) = self.streams.find(head.id) else {
            self.guard.on_useless(now)?;
            return Ok(None);
        };
        let asks = self.asks;
        let stream = self.streams.get_mut(place);
        if stream.request == Request::Reset {
            self.guard.on_useless(now)?;
            return Ok(None);
        }
        stream.request = Request::Reset;
        // an endpoint may have answered and not want the rest of a request (§8.1), or fail after we have sent all of it
        if stream.response == Response::Reset || (stream.response == Response::Ended && !asks) {
            self.guard.on_useless(now)?;
            return Ok(None);
        }
        if !asks {
            // an endpoint that is overloaded may refuse most of what it is asked, and each of these was begun by us
            self.guard.on_reset()?;
        }
        Ok(Some(Event::Reset { place, code, by_client: true }))
    }

    /// §6.5
    fn on_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<Option<Event<'static>>, Code> {
        if head.id != 0 {
            return Err(Code::Protocol);
        }
        if head.has(ACK) {
            self.is_acknowledged = true;
            return if payload.is_empty() { Ok(None) } else { Err(Code::FrameSize) };
        }
        let before = i64::from(self.peer.window);
        self.peer.apply(payload)?;
        if self.asks && self.peer.is_push_enabled {
            return Err(Code::Protocol); // §6.5.2: a server must not
        }
        self.is_greeted = true;
        let more = i64::from(self.peer.window) - before;
        if more != 0 {
            // §6.9.2: of every stream, and not of the connection
            for stream in self.streams.iter_mut() {
                stream.send.add(more)?;
            }
        }
        frame::push_settings_ack(&mut self.control);
        Ok((more > 0).then_some(Event::Room { place: None }))
    }

    /// §6.7
    fn on_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<Option<Event<'static>>, Code> {
        let data: [u8; 8] = payload.try_into().map_err(|_| Code::FrameSize)?;
        if head.id != 0 {
            return Err(Code::Protocol);
        }
        if head.has(ACK) {
            return Ok(Some(Event::Pong(data)));
        }
        frame::push_ping(&mut self.control, true, data);
        Ok(None)
    }

    /// §6.9
    fn on_window_update(&mut self, head: FrameHead, payload: &[u8]) -> Taken {
        let of_connection = Violation::Connection;
        let bytes = frame::number31(payload).filter(|_| payload.len() == 4).ok_or(of_connection(Code::FrameSize))?;
        if head.id == 0 {
            if bytes == 0 {
                return Err(of_connection(Code::Protocol));
            }
            self.send.add(i64::from(bytes)).map_err(of_connection)?;
            return Ok(Some(Event::Room { place: None }));
        }
        if self.is_idle(head.id) {
            return Err(of_connection(Code::Protocol)); // §5.1
        }
        let Some(place) = self.streams.find(head.id) else { return Ok(None) };
        let stream = self.streams.get_mut(place);
        let added = if bytes == 0 { Err(Code::Protocol) } else { stream.send.add(i64::from(bytes)) };
        added.map_err(|code| Violation::Stream(head.id, code))?;
        Ok((!stream.is_reset()).then_some(Event::Room { place: Some(place) }))
    }

    /// What waits to be sent before anything else. Whoever sends it empties it with [`Connection::control_sent`].
    #[must_use]
    pub fn control(&self) -> &[u8] {
        &self.control
    }

    /// All that [`Connection::control`] gave was taken over.
    pub fn control_sent(&mut self) {
        self.control.clear();
        if self.control.capacity() > CONTROL_KEPT {
            self.control = Vec::new();
        }
    }

    /// Whether more may be fed: not while a client that does not read has us answer and answer.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.control.len() < CONTROL_BYTES_MAX
    }

    /// Whether a header block has begun and not ended: then the time for heads runs.
    #[must_use]
    pub fn is_within_head(&self) -> bool {
        self.gathering.is_some()
    }

    /// Whether the client has begun as it must: its preface and SETTINGS are here.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Streams that have a place.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// The stream of a place.
    #[must_use]
    pub fn stream(&self, place: usize) -> &Stream {
        self.streams.get(place)
    }

    /// The largest frame that the client takes.
    #[must_use]
    pub fn frame_max(&self) -> usize {
        self.peer.frame_max as usize
    }

    /// Bytes of DATA that may be sent on a stream now, in one frame.
    #[must_use]
    pub fn room(&self, place: usize) -> usize {
        let room = self.send.room().min(self.streams.get(place).send.room());
        room.min(frame::FRAME_BYTES_MAX)
    }

    /// Appends the head of a DATA frame of `bytes`, which are no more than there is room for, and counts them as sent.
    pub fn push_data_head(&mut self, out: &mut Vec<u8>, place: usize, bytes: usize, ended: bool) {
        let stream = self.streams.get_mut(place);
        self.send.take(bytes);
        stream.send.take(bytes);
        if ended {
            stream.response = Response::Ended;
        }
        // whose WINDOW_UPDATEs it makes the endpoint send, however small it is; of clients, who choose what is asked for, see there
        self.guard.on_piece(if self.asks { bytes.max(USEFUL_BYTES_MIN) } else { bytes });
        frame::push_head(out, bytes, Kind::Data, if ended { frame::END_STREAM } else { 0 }, stream.id);
    }

    /// Appends a header block as HEADERS of a stream.
    pub fn push_headers(&mut self, out: &mut Vec<u8>, place: usize, block: &[u8], ended: bool) {
        let frame_max = self.frame_max();
        let owes_size = self.peer.has_small_table && !self.has_emptied_table;
        let stream = self.streams.get_mut(place);
        if ended {
            stream.response = Response::Ended;
        }
        let id = stream.id;
        if owes_size {
            self.has_emptied_table = true;
            return push_first_headers(out, id, block, ended, frame_max);
        }
        frame::push_headers(out, id, block, ended, frame_max);
    }

    /// So many bytes of a request's body have gone where they should; a reader that keeps up (`fast`) gets a larger window.
    pub fn on_taken(&mut self, place: usize, bytes: usize, fast: bool) {
        if fast {
            self.streams.get_mut(place).receive.widen(STREAM_WINDOW_MAX);
        }
        self.give_back(Some(place), bytes);
    }

    /// Resets a stream of our own will, if it is not over; whether it was not.
    pub fn reset(&mut self, place: usize, code: Code) -> bool {
        let stream = self.streams.get_mut(place);
        let is_over = stream.request != Request::Open && stream.response == Response::Ended;
        let is_open = !stream.is_reset() && !is_over;
        if is_open {
            stream.response = Response::Reset;
            frame::push_reset(&mut self.control, stream.id, code);
        }
        is_open
    }

    /// Whoever served the stream has ended. What of a body nobody has taken is given back; a request that is still coming when its response
    /// is through is told that it may stop (§8.1). With what code the stream was reset for that.
    pub fn release(&mut self, place: usize) -> Option<Code> {
        let stream = *self.streams.get(place);
        let code = match stream.response {
            Response::Ended if stream.request == Request::Ended => {
                self.guard.on_finished();
                None
            }
            // §8.1: only a server says that it has enough of a request
            Response::Ended | Response::Open if self.asks => Some(Code::Cancel),
            Response::Ended => Some(Code::NoError),
            Response::Open => Some(Code::Internal),
            Response::Reset => None,
        };
        let code = code.filter(|&code| self.reset(place, code));
        if self.asks && code.is_some() {
            self.guard.on_cancelled();
        }
        let mut held = self.streams.get(place).receive.held();
        if let Some(passing) = self.passing.as_mut().filter(|passing| passing.place == Some(place)) {
            // what is still to come of it is given back when it has come
            held -= passing.left;
            passing.place = None;
        }
        self.give_back(None, held);
        self.streams.remove(place);
        code
    }

    /// Tells the client that no streams will be taken above `last`, or above those there are.
    pub fn go_away(&mut self, code: Code, last: Option<u32>) {
        let last = last.unwrap_or(self.last_id).min(ID_MAX);
        self.goaway = Some(last);
        frame::push_goaway(&mut self.control, last, code);
    }

    /// Sends a sign of life, which [`Event::Pong`] answers.
    pub fn ping(&mut self, data: [u8; 8]) {
        frame::push_ping(&mut self.control, false, data);
    }

    /// Gives back what only streams need; for a connection that has none and expects none soon.
    pub fn shrink(&mut self) {
        self.streams.shrink();
        self.decoder.shrink();
        self.priorities.take_if(|early| early.is_empty());
        self.control.shrink_to_fit();
    }

    /// Bytes of memory that it holds beside itself.
    #[must_use]
    pub fn memory(&self) -> usize {
        let gathered = self.gathering.as_ref().map_or(0, |gathering| gathering.block.capacity());
        self.decoder.memory() + self.streams.memory() + self.control.capacity() + gathered
    }
}

/// The first block behind SETTINGS that make a table smaller says how large the sender has it from then on, and a peer that does not find that is
/// to end the connection (RFC 9113 §4.3.1, RFC 7541 §4.2). We use none, and 0 is no more than whatever is asked for later.
#[cold]
fn push_first_headers(out: &mut Vec<u8>, id: u32, block: &[u8], ended: bool, frame_max: usize) {
    const EMPTY_TABLE: u8 = 0x20;
    frame::push_headers(out, id, &[&[EMPTY_TABLE], block].concat(), ended, frame_max);
}

/// §6.8
fn on_goaway(head: FrameHead, payload: &[u8]) -> Result<Option<Event<'static>>, Code> {
    let code = payload.get(4..8).ok_or(Code::FrameSize)?;
    if head.id != 0 {
        return Err(Code::Protocol);
    }
    let code = code.try_into().map_or(Code::Internal, |code| Code::from_wire(u32::from_be_bytes(code)));
    let last = frame::number31(payload).unwrap_or_default();
    Ok(Some(Event::Goaway { code, last }))
}
