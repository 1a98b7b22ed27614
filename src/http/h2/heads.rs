//! HEADERS and CONTINUATION: header blocks, and the streams that they begin or end (RFC 9113 §6.2, §6.10, §8.1).

use super::code::{Code, Violation};
use super::connection::{Connection, Event, Gathering};
use super::frame::{self, END_HEADERS, END_STREAM, FrameHead};
use super::section::{Fault, Role, Section};
use super::streams::{Past, Request};
use crate::units::Instant;

/// Frames that a header block may come in. Those in use have one, or two with a large cookie.
const BLOCK_FRAMES_MAX: usize = 8;

type Taken = Result<Option<Event<'static>>, Violation>;

impl Connection {
    pub(super) fn on_headers(&mut self, head: FrameHead, payload: &[u8], section: &mut Section, now: Instant) -> Taken {
        if head.id.is_multiple_of(2) {
            return Err(Violation::Connection(Code::Protocol)); // §5.1.1, §6.2
        }
        let (block, depends_on_itself) = strip(head, payload)?;
        let ended = head.has(END_STREAM);
        if head.has(END_HEADERS) {
            return self.on_block((head.id, ended, depends_on_itself), block, section, now);
        }
        let gathering = Gathering { id: head.id, ended, depends_on_itself, frames: 0, block: Vec::new() };
        self.gathering = Some(Box::new(gathering));
        self.gather(block)
    }

    pub(super) fn on_continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        section: &mut Section,
        now: Instant,
    ) -> Taken {
        if self.gathering.as_ref().is_none_or(|gathering| gathering.id != head.id) {
            return Err(Violation::Connection(Code::Protocol)); // §6.10
        }
        self.gather(payload)?;
        let Some(gathering) = self.gathering.take_if(|_| head.has(END_HEADERS)) else { return Ok(None) };
        let Gathering { id, ended, depends_on_itself, block, .. } = *gathering;
        self.on_block((id, ended, depends_on_itself), &block, section, now)
    }

    /// Keeps a piece of a block. A client that never ends one (CONTINUATION flood, 2024) gets no further than a head may be large.
    fn gather(&mut self, piece: &[u8]) -> Taken {
        let block_max = self.own.head_bytes_max as usize;
        let Some(gathering) = &mut self.gathering else { return Ok(None) };
        gathering.frames += 1;
        if gathering.frames > BLOCK_FRAMES_MAX || gathering.block.len() + piece.len() > block_max {
            return Err(Violation::Connection(Code::EnhanceYourCalm));
        }
        gathering.block.extend_from_slice(piece);
        Ok(None)
    }

    /// A whole block. It is decoded whatever it is for, since the table is the connection's.
    fn on_block(
        &mut self,
        (id, ended, depends_on_itself): (u32, bool, bool),
        block: &[u8],
        section: &mut Section,
        now: Instant,
    ) -> Taken {
        let place = self.streams.find(id);
        let is_new = id > self.last_id;
        if is_new && self.asks {
            return Err(Violation::Connection(Code::Protocol)); // §5.1: nobody has begun it
        }
        let is_head = place.is_some_and(|place| self.streams.get(place).awaits_head);
        section.clear(match (is_new, is_head) {
            (true, _) => Role::Request,
            (false, true) => Role::Response,
            (false, false) => Role::Trailers,
        });
        let bounds = self.bounds();
        self.decoder.decode(block, &bounds, section).map_err(|_| Violation::Connection(Code::Compression))?;
        if depends_on_itself {
            if is_new {
                self.note_id(id);
            }
            return Err(Violation::Stream(id, Code::Protocol)); // RFC 7540 §5.3.1
        }
        if let Some(place) = place.filter(|_| is_head) {
            self.on_response((id, ended), place, section)
        } else if is_new {
            self.on_request(id, ended, section, now)
        } else {
            self.on_trailers((id, ended), place, section, now)
        }
    }

    fn on_request(&mut self, id: u32, ended: bool, section: &Section, now: Instant) -> Taken {
        self.note_id(id);
        if self.goaway.is_some_and(|last| id > last) {
            // §6.8: it was told, and will try again elsewhere
            self.guard.on_useless(now).map_err(Violation::Connection)?;
            return Ok(None);
        }
        if self.streams.len() >= self.own.streams_max as usize {
            self.guard.on_stream();
            if !self.is_acknowledged {
                // it cannot have known
                self.guard.on_useless(now).map_err(Violation::Connection)?;
                frame::push_reset(&mut self.control, id, Code::RefusedStream);
                return Ok(None);
            }
            return Err(Violation::Stream(id, Code::RefusedStream)); // §5.1.2
        }
        let length = section.content_length();
        let is_malformed =
            section.fault() == Some(Fault::Malformed) || (ended && length.is_some_and(|bytes| bytes > 0));
        if is_malformed {
            self.guard.on_stream();
            return Err(Violation::Stream(id, Code::Protocol)); // §8.1.1
        }
        let place = self.begin_stream(id, ended, length);
        if section.priority().is_some() || self.is_prioritized() {
            self.prioritize(place, section.priority());
        }
        Ok(Some(Event::Request { place, ended }))
    }

    fn on_trailers(
        &mut self,
        (id, ended): (u32, bool),
        place: Option<usize>,
        section: &Section,
        now: Instant,
    ) -> Taken {
        let Some(place) = place else {
            self.guard.on_useless(now).map_err(Violation::Connection)?;
            return match self.streams.past(id) {
                Past::Reset => Ok(None),
                // begun and closed so long ago that we may well have reset it: what was under way then is paid for and thrown away
                Past::Unknown if self.was_begun(id) => Ok(None),
                Past::Closed => Err(Violation::Connection(Code::StreamClosed)), // §5.1
                Past::Unknown => Err(Violation::Connection(Code::Protocol)),    // §5.1.1
            };
        };
        let stream = self.streams.get_mut(place);
        match stream.request {
            Request::Reset => return Err(Violation::Connection(Code::StreamClosed)),
            _ if stream.is_reset() => return Ok(None),
            Request::Ended => return Err(Violation::Stream(id, Code::StreamClosed)),
            Request::Open => {}
        }
        // §8.1: a second section ends the message; §8.1.1: of the length that was announced
        if !ended || section.fault().is_some() || stream.count(0, true).is_err() {
            return Err(Violation::Stream(id, Code::Protocol));
        }
        stream.request = Request::Ended;
        Ok(Some(Event::Trailers { place }))
    }
}

/// The block in a HEADERS frame, without padding and priorities; and whether those make the stream depend on itself.
fn strip(head: FrameHead, payload: &[u8]) -> Result<(&[u8], bool), Violation> {
    let too_small = Violation::Connection(Code::FrameSize);
    let (padding, mut rest) = match head.has(frame::PADDED) {
        false => (0, payload),
        true => payload.split_first().map(|(padding, rest)| (usize::from(*padding), rest)).ok_or(too_small)?,
    };
    let mut depends_on_itself = false;
    if head.has(frame::PRIORITY) {
        let (priority, behind) = rest.split_first_chunk::<5>().ok_or(too_small)?;
        depends_on_itself = frame::number31(priority) == Some(head.id);
        rest = behind;
    }
    let block = rest.len().checked_sub(padding).ok_or(Violation::Connection(Code::Protocol))?; // §6.2
    Ok((&rest[..block], depends_on_itself))
}
