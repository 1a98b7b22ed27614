//! The client's side of a connection: streams that we begin, and the heads that answer them (RFC 9113 §8.3.2).
//!
//! A stream gets its id when its head is written and not before, because ids must grow in the order in which heads leave (§5.1.1).

use super::code::{Code, Violation};
use super::connection::{Connection, Event};
use super::frame::{ID_MAX, PREFACE};
use super::priority::Priority;
use super::section::Section;
use super::settings::OwnSettings;
use super::streams::{Request, Response, Stream};
use super::window::{ReceiveWindow, SendWindow};
use crate::http::framing::Framing;
use crate::http::websocket::{self, Accept};
use crate::units::Instant;
use http::StatusCode;

impl Connection {
    /// One to an endpoint that begins at `now`, with the preface and our SETTINGS in [`Connection::control`].
    #[must_use]
    pub fn to_endpoint(own: OwnSettings, now: Instant) -> Self {
        let mut asking = Self::new(own, now);
        asking.control.clear();
        asking.control.extend_from_slice(PREFACE);
        own.push_asking(&mut asking.control);
        (asking.asks, asking.preface_left) = (true, 0);
        asking
    }

    /// Begins a stream, whose head is to be written next; `is_head`: its response has no body, whatever length that tells. The place;
    /// `None`: no ids are left, and another connection must be made.
    pub fn ask(&mut self, is_head: bool) -> Option<usize> {
        let id = if self.last_id == 0 { 1 } else { self.last_id + 2 };
        if id > ID_MAX {
            return None;
        }
        self.last_id = id;
        self.guard.on_stream();
        Some(self.streams.insert(Stream {
            id,
            request: Request::Open,
            response: Response::Open,
            send: SendWindow::new(self.peer.window),
            receive: ReceiveWindow::new(self.own.window),
            left: None,
            awaits_head: true,
            is_bodiless: is_head,
            priority: Priority::default(),
        }))
    }

    /// Streams that the endpoint takes at once.
    #[must_use]
    pub fn peer_streams_max(&self) -> usize {
        self.peer.streams_max as usize
    }

    /// Whether the endpoint takes extended CONNECT (RFC 8441).
    #[must_use]
    pub fn peer_takes_connect(&self) -> bool {
        self.peer.takes_connect
    }

    /// Whether nothing is missing of a response but its end, which carries nothing.
    #[must_use]
    pub fn awaits_end_only(&self, place: usize) -> bool {
        let stream = self.streams.get(place);
        let has_sent = stream.response == Response::Ended && stream.request == Request::Open;
        has_sent && !stream.awaits_head && stream.left == Some(0)
    }

    pub(super) fn on_response(
        &mut self,
        (id, ended): (u32, bool),
        place: usize,
        section: &Section,
    ) -> Result<Option<Event<'static>>, Violation> {
        let malformed = Err(Violation::Stream(id, Code::Protocol)); // §8.1.1
        let stream = self.streams.get_mut(place);
        if stream.is_reset() {
            return Ok(None);
        }
        if stream.request != Request::Open {
            return Err(Violation::Stream(id, Code::StreamClosed));
        }
        let Some(status) = section.status().filter(|_| section.fault().is_none()) else { return malformed };
        if status.is_informational() {
            // §8.6: there is no 101; §8.1: an interim head ends nothing
            return match ended || status == StatusCode::SWITCHING_PROTOCOLS {
                true => malformed,
                false => Ok(Some(Event::Interim { place })),
            };
        }
        let is_bodiless = stream.is_bodiless || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        stream.left = if is_bodiless { Some(0) } else { section.content_length() };
        stream.awaits_head = false;
        if ended {
            if stream.count(0, true).is_err() {
                return malformed;
            }
            stream.request = Request::Ended;
        }
        Ok(Some(Event::Response { place, ended }))
    }
}

/// Appends what the success of an extended CONNECT is on HTTP/1.1 (RFC 8441 §5, RFC 6455 §4.2.2), and returns how what follows is to be written.
pub fn switch(out: &mut Vec<u8>, section: &Section, accept: &Accept) -> Framing {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n");
    out.extend_from_slice(websocket::ACCEPT.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(accept);
    out.extend_from_slice(b"\r\n");
    let fields = memchr::memchr(b'\n', section.lines()).map_or(&[][..], |end| &section.lines()[end + 1..]);
    out.extend_from_slice(fields);
    out.extend_from_slice(b"\r\n");
    Framing::UntilClose
}

/// Appends the head of a response, interim or final, as HTTP/1.1 writes it, and returns how the body behind it is to be written.
/// `ended`: there is none.
pub fn restate(out: &mut Vec<u8>, section: &Section, is_bodiless: bool, ended: bool) -> Framing {
    let status = section.status().unwrap_or(StatusCode::BAD_GATEWAY);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    // the first line is `:status`, the only one that is no field
    let fields = memchr::memchr(b'\n', section.lines()).map_or(&[][..], |end| &section.lines()[end + 1..]);
    out.extend_from_slice(fields);
    let has_none =
        is_bodiless || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framing = match section.content_length() {
        _ if has_none => Framing::None,
        Some(bytes) => Framing::Fixed(bytes),
        None if ended => {
            out.extend_from_slice(b"content-length: 0\r\n");
            Framing::None
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}
