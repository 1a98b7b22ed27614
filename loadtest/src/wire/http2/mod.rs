//! HTTP/2 from the client's side (RFC 9113): many requests under way on one connection; bytes in, outcomes out, bytes to send beside them.
//!
//! This is the generator's own: it shares no line with the gateway's `http::h2`, so that a mistake of the one does not hide the same mistake
//! of the other. A server is taken at its word: its limit of streams, its windows and its frames' size are kept to, and what breaks the
//! protocol ends the connection, for everybody on it, as the failure [`Failure::Garbage`]. Nothing a server does makes it hold more than a head, a
//! frame and [`OUT_BYTES_MAX`].

mod answers;
mod fields;
mod frame;
mod head;
mod hpack;
mod huffman;
mod stream;
#[cfg(test)]
mod tests;

pub use head::{Head, is_of_connections};

use super::Failure;
use crate::load::Target;
use answers::Block;
use frame::{
    CANCEL, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, NO_ERROR, PROTOCOL_ERROR, RST_STREAM, SETTINGS, WINDOW,
    WINDOW_MAX, WINDOW_UPDATE, head as frame_head, one_word,
};
use std::collections::VecDeque;
use stream::Stream;

/// What a client says first (§3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a server may send on one stream, and on all of them, before it is told that it was taken.
const STREAM_ROOM: i64 = 1 << 20;
const ROOM: i64 = 16 << 20;
/// Of bodies so much is made ready at once.
const OUT_BYTES: usize = 64 << 10;
/// Who sends pings and reads nothing is not answered beyond this.
const OUT_BYTES_MAX: usize = 1 << 20;
/// Streams that were given up and may be answered yet; those before them are forgiven anything.
const CANCELLED_MAX: usize = 1_024;

/// What a server has said of itself.
#[derive(Clone, Copy, Debug)]
struct Peer {
    streams_max: usize,
    window: i64,
}

/// A request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its place on the connection.
    pub slot: usize,
    /// Of the answer, where there was one.
    pub status: Option<u16>,
    /// What is wrong with it, or why there is none.
    pub failure: Option<Failure>,
}

/// A connection.
#[derive(Debug)]
pub struct Http2 {
    is_tls: bool,
    streams_max: usize,
    peer: Peer,
    /// The server's settings have come: requests may go.
    is_ready: bool,
    /// No more requests go here: the server has said so, or the generator.
    is_closing: bool,
    has_goaway: bool,
    /// A frame of which a part has come.
    held: Vec<u8>,
    /// A head of which a part has come.
    block: Option<Block>,
    out: Vec<u8>,
    out_gone: usize,
    encoder: head::Encoder,
    decoder: hpack::Decoder,
    /// What may go up on all streams, and come.
    window: i64,
    room: i64,
    next: u32,
    /// By slot: the stream's id; 0: the slot is free.
    ids: Vec<u32>,
    streams: Vec<Stream>,
    free: Vec<usize>,
    cancelled: VecDeque<u32>,
    forgiven: u32,
    /// Slots with a body that has not gone.
    uploads: Vec<usize>,
}

impl Http2 {
    /// A connection on which `streams_max` requests may be under way, or as many as the server allows.
    #[must_use]
    pub fn new(streams_max: usize, is_tls: bool) -> Self {
        let mut out = PREFACE.to_vec();
        let settings = [(2_u16, 0), (4, STREAM_ROOM as u32)]; // no push; a stream's window
        frame_head(&mut out, settings.len() * 6, SETTINGS, 0, 0);
        for (key, value) in settings {
            out.extend_from_slice(&key.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        one_word(&mut out, WINDOW_UPDATE, 0, (ROOM - WINDOW) as u32);
        Self {
            is_tls,
            streams_max,
            peer: Peer { streams_max: usize::MAX, window: WINDOW },
            is_ready: false,
            is_closing: false,
            has_goaway: false,
            held: Vec::new(),
            block: None,
            out,
            out_gone: 0,
            encoder: head::Encoder::new(),
            decoder: hpack::Decoder::new(),
            window: WINDOW,
            room: ROOM,
            next: 1,
            ids: Vec::new(),
            streams: Vec::new(),
            free: Vec::new(),
            cancelled: VecDeque::new(),
            forgiven: 0,
            uploads: Vec::new(),
        }
    }

    /// The server has said how it wants to be spoken to: requests may go.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Requests that may be begun now.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.is_closing || !self.is_ready || i64::from(self.next) >= WINDOW_MAX {
            return 0;
        }
        self.streams_max.min(self.peer.streams_max).saturating_sub(self.in_flight())
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ids.len() - self.free.len()
    }

    /// No request will be begun here any more.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.is_closing || i64::from(self.next) >= WINDOW_MAX
    }

    /// The server has said that it goes (§6.8).
    #[must_use]
    pub fn has_goaway(&self) -> bool {
        self.has_goaway
    }

    /// Begins no more requests here.
    pub fn stop(&mut self) {
        self.is_closing = true;
    }

    /// The stream at a slot, if a request is under way there.
    #[must_use]
    pub fn stream(&self, slot: usize) -> Option<u32> {
        self.ids.get(slot).copied().filter(|id| *id != 0)
    }

    /// Slots with a request under way.
    pub fn slots(&self) -> impl Iterator<Item = usize> {
        self.ids.iter().enumerate().filter(|(_, id)| **id != 0).map(|(slot, _)| slot)
    }

    /// Begins a request, of the target in this row, for which there is room; says at which slot.
    pub fn begin(&mut self, row: u32, target: &Target) -> usize {
        let (id, stream) = (self.next, Stream::new(row, self.peer.window, STREAM_ROOM));
        self.next += 2;
        let slot = self.free.pop().unwrap_or(self.ids.len());
        if slot == self.ids.len() {
            self.ids.push(id);
            self.streams.push(stream);
        } else {
            (self.ids[slot], self.streams[slot]) = (id, stream);
        }
        let start = self.out.len();
        frame_head(&mut self.out, 0, HEADERS, END_HEADERS, id);
        self.encoder.encode(&target.head, self.is_tls, &mut self.out);
        let length = self.out.len() - start - frame::HEAD_BYTES;
        let flags = if target.body().is_empty() { END_STREAM } else { 0 };
        self.frame_headers(start, length, flags, id);
        if !target.body().is_empty() {
            self.uploads.push(slot);
        }
        slot
    }

    /// Writes the heads of frames for a block that stands at `start`: one frame, or several where it is longer than one may be.
    fn frame_headers(&mut self, start: usize, length: usize, flags: u8, id: u32) {
        let most = frame::BYTES_MAX;
        let block_at = start + frame::HEAD_BYTES;
        if length <= most {
            self.out[start..start + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            self.out[start + 4] |= flags;
            return;
        }
        let block = self.out.split_off(block_at);
        self.out.truncate(start);
        let last = block.chunks(most).count() - 1;
        for (row, part) in block.chunks(most).enumerate() {
            let kind = if row == 0 { HEADERS } else { frame::CONTINUATION };
            let ends = if row == last { END_HEADERS } else { 0 };
            frame_head(&mut self.out, part.len(), kind, ends | if row == 0 { flags } else { 0 }, id);
            self.out.extend_from_slice(part);
        }
    }

    /// Gives a request up.
    pub fn cancel(&mut self, slot: usize) {
        if let Some(id) = self.stream(slot) {
            self.reset(id, CANCEL);
            self.release(slot);
        }
    }

    fn reset(&mut self, id: u32, code: u32) {
        one_word(&mut self.out, RST_STREAM, id, code);
        self.forget(id);
    }

    /// Nothing that comes for this stream means anything from now on.
    fn forget(&mut self, id: u32) {
        self.cancelled.push_back(id);
        if self.cancelled.len() > CANCELLED_MAX {
            self.forgiven = self.cancelled.pop_front().unwrap_or(0).max(self.forgiven);
        }
    }

    fn release(&mut self, slot: usize) {
        self.ids[slot] = 0;
        self.free.push(slot);
        self.uploads.retain(|other| *other != slot);
    }

    /// The connection ends by our will, because of what the server has done if that `is_its_fault`: what is to be sent last.
    pub fn say_goodbye(&mut self, is_its_fault: bool) {
        frame_head(&mut self.out, 8, GOAWAY, 0, 0);
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(&(if is_its_fault { PROTOCOL_ERROR } else { NO_ERROR }).to_be_bytes());
    }

    /// What is to be sent: what was told before by [`Http2::begin`] and others, and as much of bodies as windows let through.
    pub fn outgoing(&mut self, targets: &[Target]) -> &[u8] {
        if self.out_gone == self.out.len() {
            self.out.clear();
            self.out_gone = 0;
        } else if self.out_gone >= OUT_BYTES {
            self.out.drain(..self.out_gone);
            self.out_gone = 0;
        }
        self.fill(targets);
        &self.out[self.out_gone..]
    }

    /// So much of that has gone.
    pub fn gone(&mut self, bytes: usize) {
        self.out_gone += bytes;
    }

    /// A frame of each body in turn, while there is room.
    fn fill(&mut self, targets: &[Target]) {
        let mut row = 0;
        while row < self.uploads.len() && self.out.len() - self.out_gone < OUT_BYTES {
            let slot = self.uploads[row];
            let stream = &mut self.streams[slot];
            let body = &targets[stream.target as usize].body()[stream.gone..];
            let allowed = usize::try_from(stream.window.min(self.window)).unwrap_or(0);
            let length = body.len().min(allowed).min(frame::BYTES_MAX);
            if length == 0 {
                row += 1;
                continue;
            }
            let is_last = length == body.len();
            frame_head(&mut self.out, length, DATA, if is_last { END_STREAM } else { 0 }, self.ids[slot]);
            self.out.extend_from_slice(&body[..length]);
            stream.gone += length;
            stream.window -= length as i64;
            self.window -= length as i64;
            // to the end of the line, or out of it
            self.uploads.remove(row);
            if !is_last {
                self.uploads.push(slot);
            }
        }
    }
}
