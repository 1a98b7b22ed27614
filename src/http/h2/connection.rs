//! A connection: bytes in, events out; and what is to be said, into a buffer (RFC 9113).
//!
//! It is a client's, where the gateway is the server, or one to an endpoint, where it is the client ([`super::ask`]): frames, bounds and
//! windows are the same, and what *request* says of a stream is the peer's direction, *response* ours.
//!
//! [`Connection::feed`] takes what has arrived, in whatever pieces, and tells one event at a time. Frames but DATA are taken when they are
//! whole, which the caller waits for; DATA is handed on as it comes. Heads are decoded into a [`Section`] that the caller brings. Answers
//! that the protocol asks for are collected in [`Connection::control`], which goes out before anything else, and while too much of it waits
//! nothing more is to be fed. Nothing is kept of a body, no time is read, and nothing waits.
//!
//! A *place* names a stream from its head until [`Connection::release`]; it is a small number, for the caller's own table.

use super::code::{Code, Violation};
use super::decoder::Decoder;
use super::frame::{self, ACK, END_STREAM, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FrameHead, Kind, PREFACE};
use super::guard::Guard;
use super::priority::{Early, Priority};
use super::section::{Bounds, Section};
use super::settings::{OwnSettings, PeerSettings};
use super::streams::{Past, Request, Response, Stream, Streams};
use super::window::{ReceiveWindow, SendWindow};
use crate::units::Instant;

/// Control frames that wait to be sent; beyond it nothing is read.
pub const CONTROL_BYTES_MAX: usize = 64 << 10;
/// How large a stream's window becomes while its reader keeps up.
pub const STREAM_WINDOW_MAX: u32 = 256 << 10;
/// Bytes that must be there of a frame other than DATA before it can be taken, at most.
pub const INPUT_BYTES_MAX: usize = FRAME_HEAD_BYTES + FRAME_BYTES_MAX;

/// What has happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// A request has begun; its head is in the section. `ended`: it has no body.
    Request {
        /// Its stream's.
        place: usize,
        /// Nothing follows.
        ended: bool,
    },
    /// A piece of a body; empty where only its end has come.
    Data {
        /// Its stream's.
        place: usize,
        /// What was sent.
        payload: &'b [u8],
        /// Nothing follows.
        ended: bool,
    },
    /// Trailers, which are in the section, and the end of a body.
    Trailers {
        /// Their stream's.
        place: usize,
    },
    /// The stream is over, by the client or for what it did. Its place stays until it is released.
    Reset {
        /// The stream's.
        place: usize,
        /// Why.
        code: Code,
        /// The peer has reset it; else we have.
        by_client: bool,
    },
    /// There is more room to send: for this stream, or for all.
    Room {
        /// The stream's.
        place: Option<usize>,
    },
    /// The final head of a response has come; it is in the section. `ended`: it has no body.
    Response {
        /// Its stream's.
        place: usize,
        /// Nothing follows.
        ended: bool,
    },
    /// The head of an interim response (RFC 9110 §15.2), in the section.
    Interim {
        /// Its stream's.
        place: usize,
    },
    /// The peer takes, or begins, no more streams.
    Goaway {
        /// Why.
        code: Code,
        /// Streams of ours above it were not looked at, and may be tried again (§6.8).
        last: u32,
    },
    /// The peer has answered a ping of ours.
    Pong([u8; 8]),
}

/// What [`Connection::feed`] has taken.
#[derive(Debug, PartialEq, Eq)]
pub struct Fed<'b> {
    /// Bytes at the front of what it was given. 0, and no event: it takes more than there is.
    pub consumed: usize,
    /// What they were, if anybody needs to know.
    pub event: Option<Event<'b>>,
}

/// A payload that is handed on, or thrown away, as it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    /// `None`: nobody wants it.
    pub(super) place: Option<usize>,
    pub(super) left: usize,
    pub(super) padding: usize,
    pub(super) ended: bool,
    /// Goes back to the connection's window when it was thrown away.
    pub(super) counted: bool,
}

/// A header block in pieces.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) id: u32,
    pub(super) ended: bool,
    pub(super) depends_on_itself: bool,
    pub(super) frames: usize,
    pub(super) block: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    /// We are the client.
    pub(super) asks: bool,
    pub(super) own: OwnSettings,
    pub(super) peer: PeerSettings,
    pub(super) decoder: Decoder,
    pub(super) streams: Streams,
    pub(super) guard: Guard,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Bytes of the preface that are still to come.
    pub(super) preface_left: usize,
    /// SETTINGS have come.
    pub(super) is_greeted: bool,
    /// Our SETTINGS were acknowledged.
    pub(super) is_acknowledged: bool,
    pub(super) passing: Option<Passing>,
    pub(super) gathering: Option<Box<Gathering>>,
    /// The first id that the client has used; 0: none yet.
    pub(super) first_id: u32,
    /// The largest id that the client has used.
    pub(super) last_id: u32,
    /// Between the two it has left some out, which no client in use does.
    pub(super) has_skipped: bool,
    /// Streams above it were announced not to be looked at.
    pub(super) goaway: Option<u32>,
    pub(super) control: Vec<u8>,
    /// The peer was told that nothing we send is in its table (RFC 7541 §4.2).
    pub(super) has_emptied_table: bool,
    /// The client has said how urgent something is.
    pub(super) priorities: Option<Box<Early>>,
}

impl Connection {
    /// One that begins at `now`, with our SETTINGS in [`Connection::control`].
    #[must_use]
    pub fn new(own: OwnSettings, now: Instant) -> Self {
        let mut control = Vec::with_capacity(64);
        own.push(&mut control);
        let peer = PeerSettings::default();
        Self {
            asks: false,
            own,
            peer,
            decoder: Decoder::default(),
            streams: Streams::default(),
            guard: Guard::new(now),
            send: SendWindow::new(peer.window),
            receive: ReceiveWindow::new(own.connection_window.max(peer.window)),
            preface_left: PREFACE.len(),
            is_greeted: false,
            is_acknowledged: false,
            passing: None,
            gathering: None,
            first_id: 0,
            last_id: 0,
            has_skipped: false,
            goaway: None,
            control,
            has_emptied_table: false,
            priorities: None,
        }
    }

    /// Takes what is at the front of `bytes`. To be called until it takes nothing; heads are put into `section`, whatever it held.
    ///
    /// # Errors
    /// The connection is lost. [`Connection::control`] ends with the GOAWAY that says so; nothing is to be fed any more.
    pub fn feed<'b>(&mut self, bytes: &'b [u8], section: &mut Section, now: Instant) -> Result<Fed<'b>, Code> {
        self.take(bytes, section, now).inspect_err(|&code| {
            // an endpoint begins no streams
            let last = if self.asks { 0 } else { self.goaway.unwrap_or(self.last_id).min(self.last_id) };
            frame::push_goaway(&mut self.control, last, code);
        })
    }

    fn take<'b>(&mut self, bytes: &'b [u8], section: &mut Section, now: Instant) -> Result<Fed<'b>, Code> {
        if self.preface_left > 0 {
            return self.take_preface(bytes);
        }
        if let Some(passing) = self.passing {
            return Ok(self.pass(passing, bytes));
        }
        let Some(head) = FrameHead::parse(bytes) else { return Ok(Fed { consumed: 0, event: None }) };
        if head.len > FRAME_BYTES_MAX {
            return Err(Code::FrameSize); // RFC 9113 §4.2
        }
        if !self.is_greeted && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(Code::Protocol); // §3.4
        }
        if self.gathering.is_some() && head.kind != Kind::Continuation {
            return Err(Code::Protocol); // §6.10
        }
        match head.kind {
            Kind::Data => return self.begin_data(head, bytes, now),
            Kind::Unknown => {
                self.guard.on_useless(now)?;
                self.passing = passing_of_nobody(head.len, false);
                return Ok(Fed { consumed: FRAME_HEAD_BYTES, event: None });
            }
            _ => {}
        }
        let Some(payload) = bytes.get(FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + head.len) else {
            return Ok(Fed { consumed: 0, event: None });
        };
        let taken = match head.kind {
            Kind::Headers => self.on_headers(head, payload, section, now),
            Kind::Continuation => self.on_continuation(head, payload, section, now),
            Kind::Data | Kind::Unknown => Ok(None), // taken above
            _ => self.on_control(head, payload, now),
        };
        let event = match taken {
            Ok(event) => event,
            Err(Violation::Connection(code)) => return Err(code),
            Err(Violation::Stream(id, code)) => self.refuse(id, code)?,
        };
        Ok(Fed { consumed: FRAME_HEAD_BYTES + head.len, event })
    }

    fn take_preface<'b>(&mut self, bytes: &[u8]) -> Result<Fed<'b>, Code> {
        let expected = &PREFACE[PREFACE.len() - self.preface_left..];
        let consumed = bytes.len().min(expected.len());
        if bytes[..consumed] != expected[..consumed] {
            return Err(Code::Protocol); // §3.4
        }
        self.preface_left -= consumed;
        Ok(Fed { consumed, event: None })
    }

    /// The head of a DATA frame (§6.1), with the length of its padding.
    fn begin_data<'b>(&mut self, head: FrameHead, bytes: &'b [u8], now: Instant) -> Result<Fed<'b>, Code> {
        let is_padded = head.has(frame::PADDED);
        let padding = match (is_padded, bytes.get(FRAME_HEAD_BYTES)) {
            (false, _) => 0,
            (true, _) if head.len == 0 => return Err(Code::FrameSize), // §4.2
            (true, None) => return Ok(Fed { consumed: 0, event: None }),
            (true, Some(&padding)) => usize::from(padding),
        };
        let consumed = FRAME_HEAD_BYTES + usize::from(is_padded);
        let left = head.len - usize::from(is_padded);
        if padding > left {
            return Err(Code::Protocol); // §6.1
        }
        if head.id == 0 || self.is_idle(head.id) {
            return Err(Code::Protocol); // §5.1, §6.1
        }
        self.receive.receive(head.len)?;
        if self.asks {
            // what one client does not read must not keep the others from being sent to: only the stream's window waits for it
            self.give_back_connection(head.len);
        }
        let ended = head.has(END_STREAM);
        let (payload, overhead) = (left - padding, head.len - (left - padding));
        let taker = self.check_data(head, payload, now);
        self.guard.on_piece(payload);
        if payload == 0 && !ended {
            self.guard.on_useless(now)?;
        }
        if let Ok(Some(place)) = taker {
            self.give_back(Some(place), overhead);
            if payload > 0 {
                self.passing = Some(Passing { place: Some(place), left: payload, padding, ended, counted: true });
                return Ok(Fed { consumed, event: None });
            }
            self.passing = passing_of_nobody(padding, false);
            return Ok(Fed { consumed, event: ended.then_some(Event::Data { place, payload: &[], ended }) });
        }
        self.give_back(None, head.len - left);
        self.passing = passing_of_nobody(left, true);
        let event = match taker {
            Ok(_) => None,
            Err(Violation::Connection(code)) => return Err(code),
            Err(Violation::Stream(id, code)) => self.refuse(id, code)?,
        };
        Ok(Fed { consumed, event })
    }

    /// Whom a DATA frame is for: a stream, nobody, or a stream that it breaks.
    fn check_data(&mut self, head: FrameHead, payload: usize, now: Instant) -> Result<Option<usize>, Violation> {
        let of_stream = |code| Violation::Stream(head.id, code);
        let Some(place) = self.streams.find(head.id) else {
            self.guard.on_useless(now).map_err(Violation::Connection)?;
            return match self.streams.past(head.id) {
                // we have told the client already (§5.1); or may have, so long ago that others were closed since
                Past::Reset | Past::Unknown => Ok(None),
                Past::Closed => Err(of_stream(Code::StreamClosed)),
            };
        };
        let stream = self.streams.get_mut(place);
        if stream.response == Response::Reset {
            return Ok(None);
        }
        if stream.request != Request::Open {
            return Err(of_stream(Code::StreamClosed));
        }
        if stream.awaits_head {
            return Err(of_stream(Code::Protocol)); // §8.1
        }
        let ended = head.has(END_STREAM);
        // the window last: what is in it is given back by the stream
        stream.count(payload, ended).and_then(|()| stream.receive.receive(head.len)).map_err(of_stream)?;
        if ended {
            stream.request = Request::Ended;
        }
        Ok(Some(place))
    }

    /// Hands on what is there of a payload.
    fn pass<'b>(&mut self, mut passing: Passing, bytes: &'b [u8]) -> Fed<'b> {
        let payload = &bytes[..bytes.len().min(passing.left)];
        let behind = (bytes.len() - payload.len()).min(passing.padding);
        let consumed = payload.len() + behind;
        passing.left -= payload.len();
        passing.padding -= behind;
        let is_over = passing.left == 0 && passing.padding == 0;
        self.passing = (!is_over).then_some(passing);
        let Some(place) = passing.place else {
            self.give_back(None, if passing.counted { payload.len() } else { 0 });
            return Fed { consumed, event: None };
        };
        if payload.is_empty() || self.streams.get(place).is_reset() {
            // padding; or it was reset since its frame has begun
            self.give_back(Some(place), payload.len());
            return Fed { consumed, event: None };
        }
        let ended = passing.ended && passing.left == 0;
        Fed { consumed, event: Some(Event::Data { place, payload, ended }) }
    }

    /// Whether no stream of this id has been begun; clients' are odd (§5.1.1).
    pub(super) fn is_idle(&self, id: u32) -> bool {
        id > self.last_id || id.is_multiple_of(2)
    }

    /// Notes that the client has used a new id.
    pub(super) fn note_id(&mut self, id: u32) {
        if self.first_id == 0 {
            self.first_id = id;
        } else {
            self.has_skipped |= id != self.last_id + 2;
        }
        self.last_id = id;
    }

    /// Whether a stream of this id that has no place any more was begun once, as far as that is known without a list of all.
    pub(super) fn was_begun(&self, id: u32) -> bool {
        !self.has_skipped && id >= self.first_id
    }

    /// Resets a stream for what the client did, which counts as if it had done it.
    fn refuse<'b>(&mut self, id: u32, code: Code) -> Result<Option<Event<'b>>, Code> {
        let place = self.streams.find(id);
        if let Some(place) = place
            && self.streams.get(place).is_reset()
        {
            // §5.4.2: once
            self.guard.on_reset()?;
            return Ok(None);
        }
        frame::push_reset(&mut self.control, id, code);
        self.guard.on_reset()?;
        let Some(place) = place else { return Ok(None) };
        self.streams.get_mut(place).response = Response::Reset;
        Ok(Some(Event::Reset { place, code, by_client: false }))
    }

    /// So many bytes of DATA have gone where they should, or were thrown away: whoever sent them may send as many more.
    pub(super) fn give_back(&mut self, place: Option<usize>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        if !self.asks {
            self.give_back_connection(bytes);
        }
        let Some(place) = place else { return };
        let stream = self.streams.get_mut(place);
        if let Some(more) = stream.receive.take(bytes)
            && stream.request == Request::Open
            && !stream.is_reset()
        {
            frame::push_window_update(&mut self.control, stream.id, more);
        }
    }

    fn give_back_connection(&mut self, bytes: usize) {
        if bytes > 0
            && let Some(more) = self.receive.take(bytes)
        {
            frame::push_window_update(&mut self.control, 0, more);
        }
    }

    pub(super) fn begin_stream(&mut self, id: u32, ended: bool, left: Option<u64>) -> usize {
        self.guard.on_stream();
        self.streams.insert(Stream {
            id,
            request: if ended { Request::Ended } else { Request::Open },
            response: Response::Open,
            send: SendWindow::new(self.peer.window),
            receive: ReceiveWindow::new(self.own.window),
            left,
            awaits_head: false,
            is_bodiless: false,
            priority: Priority::default(),
        })
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { bytes_max: self.own.head_bytes_max as usize, fields_max: self.own.fields_max }
    }
}

/// A payload that is thrown away.
fn passing_of_nobody(left: usize, counted: bool) -> Option<Passing> {
    (left > 0).then_some(Passing { place: None, left, padding: 0, ended: false, counted })
}
