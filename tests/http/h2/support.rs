//! Frames for tests, and what a connection makes of them, as text.

use ringgate::http::h2::connection::{Connection, Event};
use ringgate::http::h2::frame::{ACK, FRAME_HEAD_BYTES, FrameHead, Kind, PREFACE};
use ringgate::http::h2::section::Section;
use ringgate::http::h2::settings::OwnSettings;
use ringgate::units::Instant;
use std::collections::HashMap;
use std::fmt::Write as _;

pub(crate) const OWN: OwnSettings =
    OwnSettings { streams_max: 4, window: 65_535, connection_window: 65_535, head_bytes_max: 4_096, fields_max: 20 };
/// `GET http://a/`
pub(crate) const GET: &[u8] = b"\x82\x86\x84\x01\x01a";
/// `POST http://a/`
pub(crate) const POST: &[u8] = b"\x83\x86\x84\x01\x01a";

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY: u8 = 0x20;
/// A whole head without a body.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

/// Any frame.
pub(crate) fn raw(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags][..], &id.to_be_bytes(), payload].concat()
}

pub(crate) fn data(id: u32, flags: u8, bytes: usize) -> Vec<u8> {
    raw(0, flags, id, &vec![b'x'; bytes])
}

pub(crate) fn headers(id: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    raw(1, flags, id, block)
}

pub(crate) fn get(id: u32) -> Vec<u8> {
    headers(id, WHOLE, GET)
}

pub(crate) fn post(id: u32) -> Vec<u8> {
    headers(id, END_HEADERS, POST)
}

pub(crate) fn reset(id: u32, code: u32) -> Vec<u8> {
    raw(3, 0, id, &code.to_be_bytes())
}

pub(crate) fn settings(of: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        of.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    raw(4, 0, 0, &payload)
}

pub(crate) fn ping(flags: u8) -> Vec<u8> {
    raw(6, flags, 0, b"pingpong")
}

pub(crate) fn window(id: u32, bytes: u32) -> Vec<u8> {
    raw(8, 0, id, &bytes.to_be_bytes())
}

pub(crate) fn continuation(id: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    raw(9, flags, id, block)
}

/// A literal that nobody puts into a table.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    assert!(name.len() < 127 && value.len() < 127);
    [&[0, name.len() as u8][..], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// A block of these fields.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// The preface, SETTINGS, and these frames.
pub(crate) fn greeted(frames: &[Vec<u8>]) -> Vec<u8> {
    [&PREFACE[..], &settings(&[]), &frames.concat()].concat()
}

/// A connection, and a log of what it has said.
pub(crate) struct Observed {
    pub(crate) connection: Connection,
    pub(crate) section: Section,
    pub(crate) log: String,
    ids: HashMap<usize, u32>,
    /// The stream that the last piece of a body was of, and its bytes until now.
    piece: Option<(u32, usize)>,
    is_lost: bool,
}

impl Observed {
    pub(crate) fn new(own: OwnSettings) -> Self {
        let mut connection = Connection::new(own, Instant::from_nanos(0));
        connection.control_sent();
        let section = Section::default();
        Self { connection, section, log: String::new(), ids: HashMap::new(), piece: None, is_lost: false }
    }

    /// Feeds what there is, as much as is taken, and returns how much that was.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while !self.is_lost {
            let fed = self.connection.feed(&bytes[at..], &mut self.section, Instant::from_nanos(0));
            let Ok(fed) = fed else {
                self.is_lost = true;
                self.note_control();
                return bytes.len();
            };
            at += fed.consumed;
            let is_all = fed.consumed == 0 && fed.event.is_none();
            if let Some(event) = fed.event {
                self.note(&event);
            }
            self.note_control();
            if is_all {
                break;
            }
        }
        at
    }

    /// Feeds `bytes` in pieces that end at `ends`; what is not taken is there again with the next piece.
    pub(crate) fn feed_in_pieces(&mut self, bytes: &[u8], ends: impl IntoIterator<Item = usize>) {
        let mut from = 0;
        for end in ends {
            from += self.feed(&bytes[from..end]);
            if self.is_lost {
                return;
            }
        }
    }

    pub(crate) fn end(mut self) -> String {
        self.flush();
        self.log.trim().to_owned()
    }

    fn flush(&mut self) {
        if let Some((id, bytes)) = self.piece.take().filter(|(_, bytes)| *bytes > 0) {
            write!(self.log, " data{id}:{bytes}").unwrap();
        }
    }

    fn note(&mut self, event: &Event<'_>) {
        let id = |this: &Self, place: usize| this.ids[&place];
        if let Event::Data { place, payload, ended } = event {
            let id = id(self, *place);
            if self.piece.is_some_and(|(other, _)| other != id) {
                self.flush();
            }
            let bytes = self.piece.take().map_or(0, |(_, bytes)| bytes) + payload.len();
            self.piece = Some((id, bytes));
            if *ended {
                self.flush();
                write!(self.log, " end{id}").unwrap();
            }
            return;
        }
        self.flush();
        match event {
            Event::Request { place, ended } => {
                let id = self.connection.stream(*place).id();
                self.ids.insert(*place, id);
                let fault = self.section.fault().map(|fault| format!("({fault:?})")).unwrap_or_default();
                write!(self.log, " request{id}{fault}{}", if *ended { "." } else { "" }).unwrap();
            }
            Event::Trailers { place } => write!(self.log, " trailers{}", id(self, *place)).unwrap(),
            Event::Reset { place, code, by_client: true } => {
                write!(self.log, " reset{}:{code}", id(self, *place)).unwrap();
            }
            Event::Room { place: Some(place) } => write!(self.log, " room{}", id(self, *place)).unwrap(),
            Event::Room { place: None } => self.log.push_str(" room"),
            Event::Goaway { code, .. } => write!(self.log, " leaves:{code}").unwrap(),
            Event::Response { .. } | Event::Interim { .. } => panic!("the gateway is the server here"),
            Event::Pong(_) => self.log.push_str(" pong"),
            // what we reset is seen in the frame that says so
            Event::Reset { .. } | Event::Data { .. } => {}
        }
    }

    fn note_control(&mut self) {
        let control = self.connection.control().to_vec();
        self.connection.control_sent();
        if !control.is_empty() {
            self.flush();
        }
        let mut at = 0;
        while at < control.len() {
            let head = FrameHead::parse(&control[at..]).unwrap();
            let payload = &control[at + FRAME_HEAD_BYTES..at + FRAME_HEAD_BYTES + head.len];
            at += FRAME_HEAD_BYTES + head.len;
            let last = |payload: &[u8]| u32::from_be_bytes(*payload.last_chunk::<4>().unwrap());
            let code = |payload: &[u8]| ringgate::http::h2::code::Code::from_wire(last(payload));
            match head.kind {
                Kind::Settings => assert!(head.has(ACK), "our own are only said once"),
                Kind::RstStream => write!(self.log, " rst{}:{}", head.id, code(payload)).unwrap(),
                Kind::Goaway => write!(self.log, " goaway:{}", code(payload)).unwrap(),
                Kind::WindowUpdate => write!(self.log, " credit{}+{}", head.id, last(payload)).unwrap(),
                Kind::Ping => self.log.push_str(if head.has(ACK) { " ponged" } else { " ping" }),
                other => panic!("{other:?} is no control frame"),
            }
        }
    }
}

/// What a connection makes of bytes that arrive at once.
pub(crate) fn observe(bytes: &[u8]) -> String {
    let mut observed = Observed::new(OWN);
    observed.feed_in_pieces(bytes, [bytes.len()]);
    observed.end()
}
