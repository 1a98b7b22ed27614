//! What a server sends: frames in, requests that have ended out.

use super::frame::{
    ACK, BYTES_MAX, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HAS_PRIORITY, HEAD_BYTES, HEADERS,
    NO_ERROR, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, REFUSED_STREAM, RST_STREAM, SETTINGS, WINDOW_MAX,
    WINDOW_UPDATE, head as frame_head, one_word, unpadded, word,
};
use super::stream::Fields;
use super::{Ended, Failure, Http2, OUT_BYTES_MAX, ROOM, STREAM_ROOM, Target};

/// A head in its compressed form may have so many bytes, in so many frames.
const BLOCK_BYTES_MAX: usize = 64 << 10;
const BLOCK_FRAMES_MAX: u32 = 64;

/// A head of which the last frame has not come.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// Whose a frame is.
enum Whose {
    /// Of the request at this slot.
    Slot(usize),
    /// Of one that was given up: nothing becomes of it.
    Nobody,
}

impl Http2 {
    /// Bytes came; requests that have ended by them are appended to `ended`.
    ///
    /// # Errors
    /// The server does not speak the protocol, or answers what nobody asked: the connection is of no use, and no request on it will be answered.
    pub fn receive(&mut self, mut bytes: &[u8], targets: &[Target], ended: &mut Vec<Ended>) -> Result<(), Failure> {
        if !self.held.is_empty() {
            // the frame that has begun, as far as it goes
            while let Some(missing) = self.missing()? {
                let taken = missing.min(bytes.len());
                if taken == 0 {
                    return Ok(());
                }
                self.held.extend_from_slice(&bytes[..taken]);
                bytes = &bytes[taken..];
            }
            let mut held = std::mem::take(&mut self.held);
            self.frames(&held, targets, ended)?;
            held.clear();
            self.held = held;
        }
        let taken = self.frames(bytes, targets, ended)?;
        self.held.extend_from_slice(&bytes[taken..]);
        Ok(())
    }

    /// Bytes that the frame in `held` lacks, of its head while that is not whole; `None`: none.
    fn missing(&self) -> Result<Option<usize>, Failure> {
        let wanted = match Frame::read(&self.held) {
            None => HEAD_BYTES,
            Some(frame) if frame.length > BYTES_MAX => return Err(Failure::Garbage),
            Some(frame) => HEAD_BYTES + frame.length,
        };
        Ok(wanted.checked_sub(self.held.len()).filter(|missing| *missing > 0))
    }

    /// Takes whole frames, and says how many bytes they had.
    fn frames(&mut self, bytes: &[u8], targets: &[Target], ended: &mut Vec<Ended>) -> Result<usize, Failure> {
        let mut taken = 0;
        while let Some(frame) = Frame::read(&bytes[taken..]) {
            if frame.length > BYTES_MAX {
                return Err(Failure::Garbage);
            }
            let Some(payload) = bytes[taken + HEAD_BYTES..].get(..frame.length) else { break };
            self.frame(frame, payload, targets, ended)?;
            if self.out.len() - self.out_gone > OUT_BYTES_MAX {
                return Err(Failure::Garbage);
            }
            taken += HEAD_BYTES + frame.length;
        }
        Ok(taken)
    }

    fn frame(
        &mut self,
        frame: Frame,
        payload: &[u8],
        targets: &[Target],
        ended: &mut Vec<Ended>,
    ) -> Result<(), Failure> {
        let is_first = !self.is_ready;
        if (is_first && (frame.kind != SETTINGS || frame.has(ACK)))
            || self.block.is_some() != (frame.kind == CONTINUATION)
        {
            return Err(Failure::Garbage);
        }
        match frame.kind {
            DATA => self.on_data(frame, payload, targets, ended),
            HEADERS => self.on_headers(frame, payload, targets, ended),
            CONTINUATION => self.on_continuation(frame, payload, targets, ended),
            RST_STREAM => self.on_reset(frame, payload, ended),
            SETTINGS => self.on_settings(frame, payload),
            PING if payload.len() == 8 && frame.stream == 0 => {
                if !frame.has(ACK) {
                    frame_head(&mut self.out, 8, PING, ACK, 0);
                    self.out.extend_from_slice(payload);
                }
                Ok(())
            }
            GOAWAY => self.on_goaway(frame, payload, ended),
            WINDOW_UPDATE => self.on_window(frame, payload),
            PRIORITY if payload.len() == 5 && frame.stream > 0 => Ok(()),
            PRIORITY | PING | PUSH_PROMISE => Err(Failure::Garbage),
            _ => Ok(()), // §5.5: unknown ones mean nothing
        }
    }

    /// Whose a frame of this stream is.
    ///
    /// # Errors
    /// Nobody has asked for it, or the answer was whole already.
    fn whose(&self, stream: u32) -> Result<Whose, Failure> {
        if let Some(slot) = self.ids.iter().position(|id| *id == stream && stream != 0) {
            return Ok(Whose::Slot(slot));
        }
        let was_asked = stream % 2 == 1 && stream < self.next;
        if !was_asked {
            return Err(if stream == 0 { Failure::Garbage } else { Failure::Surplus });
        }
        let is_given_up = stream <= self.forgiven || self.cancelled.contains(&stream);
        if is_given_up { Ok(Whose::Nobody) } else { Err(Failure::Surplus) }
    }

    /// A stream is malformed: it alone has failed (§8.1.1).
    fn fail(&mut self, slot: usize, failure: Failure, ended: &mut Vec<Ended>) {
        self.reset(self.ids[slot], PROTOCOL_ERROR);
        self.release(slot);
        ended.push(Ended { slot, status: None, failure: Some(failure) });
    }

    /// An answer is whole; what is left of its request is not wanted (§8.1).
    fn answer(&mut self, slot: usize, target: &Target, ended: &mut Vec<Ended>) {
        let (status, failure) = self.streams[slot].judged(target);
        if self.uploads.contains(&slot) {
            self.reset(self.ids[slot], NO_ERROR);
        }
        self.release(slot);
        ended.push(Ended { slot, status: Some(status), failure });
    }

    fn on_data(
        &mut self,
        frame: Frame,
        payload: &[u8],
        targets: &[Target],
        ended: &mut Vec<Ended>,
    ) -> Result<(), Failure> {
        let whose = self.whose(frame.stream)?;
        let length = frame.length as i64;
        self.room -= length;
        if self.room < 0 {
            return Err(Failure::Garbage);
        }
        if self.room < ROOM / 2 {
            one_word(&mut self.out, WINDOW_UPDATE, 0, (ROOM - self.room) as u32);
            self.room = ROOM;
        }
        let data = unpadded(frame, payload)?;
        let Whose::Slot(slot) = whose else { return Ok(()) };
        let (stream, ends) = (&mut self.streams[slot], frame.has(END_STREAM));
        stream.room -= length;
        if stream.room < 0 {
            return Err(Failure::Garbage);
        }
        if stream.room < STREAM_ROOM / 2 && !ends {
            one_word(&mut self.out, WINDOW_UPDATE, frame.stream, (STREAM_ROOM - stream.room) as u32);
            stream.room = STREAM_ROOM;
        }
        let target = &targets[stream.target as usize];
        match stream.data(data, ends, target) {
            Ok(true) => self.answer(slot, target, ended),
            Ok(false) => {}
            Err(failure) => self.fail(slot, failure, ended),
        }
        Ok(())
    }

    fn on_headers(
        &mut self,
        frame: Frame,
        payload: &[u8],
        targets: &[Target],
        ended: &mut Vec<Ended>,
    ) -> Result<(), Failure> {
        self.whose(frame.stream)?;
        let payload = unpadded(frame, payload)?;
        let fragment = if frame.has(HAS_PRIORITY) { payload.get(5..).ok_or(Failure::Garbage)? } else { payload };
        let ends = frame.has(END_STREAM);
        if frame.has(END_HEADERS) {
            return self.on_block(frame.stream, ends, fragment, targets, ended);
        }
        self.block = Some(Block { stream: frame.stream, ends, bytes: fragment.to_vec(), frames: 1 });
        Ok(())
    }

    fn on_continuation(
        &mut self,
        frame: Frame,
        payload: &[u8],
        targets: &[Target],
        ended: &mut Vec<Ended>,
    ) -> Result<(), Failure> {
        let mut block = self.block.take().ok_or(Failure::Garbage)?;
        block.frames += 1;
        let is_too_much = block.bytes.len() + payload.len() > BLOCK_BYTES_MAX || block.frames > BLOCK_FRAMES_MAX;
        if frame.stream != block.stream || is_too_much {
            return Err(Failure::Garbage);
        }
        block.bytes.extend_from_slice(payload);
        if frame.has(END_HEADERS) {
            return self.on_block(block.stream, block.ends, &block.bytes, targets, ended);
        }
        self.block = Some(block);
        Ok(())
    }

    fn on_block(
        &mut self,
        stream: u32,
        ends: bool,
        block: &[u8],
        targets: &[Target],
        ended: &mut Vec<Ended>,
    ) -> Result<(), Failure> {
        let mut fields = Fields::default();
        // of a stream that was given up too: later heads may refer to its fields
        self.decoder.decode(block, |name, value| fields.add(name, value))?;
        let Whose::Slot(slot) = self.whose(stream)? else { return Ok(()) };
        let target = &targets[self.streams[slot].target as usize];
        match self.streams[slot].head(&fields, ends, target) {
            Ok(true) => self.answer(slot, target, ended),
            Ok(false) => {}
            Err(failure) => self.fail(slot, failure, ended),
        }
        Ok(())
    }

    fn on_reset(&mut self, frame: Frame, payload: &[u8], ended: &mut Vec<Ended>) -> Result<(), Failure> {
        if payload.len() != 4 || frame.stream == 0 {
            return Err(Failure::Garbage);
        }
        if frame.stream.is_multiple_of(2) || frame.stream >= self.next {
            return Err(Failure::Surplus);
        }
        // one that is whole may be reset, since its request needs not be (§8.1)
        if let Some(slot) = self.ids.iter().position(|id| *id == frame.stream) {
            let is_refused = word(payload) == REFUSED_STREAM;
            let failure = if is_refused { Failure::StreamRefused } else { Failure::StreamReset };
            self.release(slot);
            ended.push(Ended { slot, status: None, failure: Some(failure) });
        }
        Ok(())
    }

    fn on_settings(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Failure> {
        let is_wrong =
            frame.stream != 0 || if frame.has(ACK) { !payload.is_empty() } else { !payload.len().is_multiple_of(6) };
        if is_wrong {
            return Err(Failure::Garbage);
        }
        if frame.has(ACK) {
            return Ok(());
        }
        for setting in payload.chunks_exact(6) {
            let (key, value) = (u16::from_be_bytes([setting[0], setting[1]]), word(&setting[2..]));
            match key {
                1 => self.encoder.resize(value as usize),
                2 if value != 0 => return Err(Failure::Garbage), // §6.5.2: a server has nothing to allow here
                3 => self.peer.streams_max = value as usize,
                4 => self.on_initial_window(i64::from(value))?,
                // every server takes frames of BYTES_MAX, and longer ones save nothing
                5 if !(BYTES_MAX..1 << 24).contains(&(value as usize)) => return Err(Failure::Garbage),
                _ => {}
            }
        }
        self.is_ready = true;
        frame_head(&mut self.out, 0, SETTINGS, ACK, 0);
        Ok(())
    }

    /// §6.9.2: it changes what the streams that are open may send, below nothing if need be.
    fn on_initial_window(&mut self, window: i64) -> Result<(), Failure> {
        if window > WINDOW_MAX {
            return Err(Failure::Garbage);
        }
        let change = window - self.peer.window;
        self.peer.window = window;
        for (stream, _) in self.streams.iter_mut().zip(&self.ids).filter(|(_, id)| **id != 0) {
            stream.window += change;
            if stream.window > WINDOW_MAX {
                return Err(Failure::Garbage);
            }
        }
        Ok(())
    }

    /// §6.8: streams beyond the last one were not looked at. The others may be answered yet.
    fn on_goaway(&mut self, frame: Frame, payload: &[u8], ended: &mut Vec<Ended>) -> Result<(), Failure> {
        if frame.stream != 0 || payload.len() < 8 {
            return Err(Failure::Garbage);
        }
        let last = word(payload) & 0x7fff_ffff;
        (self.is_closing, self.has_goaway) = (true, true);
        for slot in 0..self.ids.len() {
            if self.ids[slot] > last {
                self.forget(self.ids[slot]);
                self.release(slot);
                ended.push(Ended { slot, status: None, failure: Some(Failure::Goaway) });
            }
        }
        Ok(())
    }

    fn on_window(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Failure> {
        if payload.len() != 4 {
            return Err(Failure::Garbage);
        }
        let more = i64::from(word(payload) & 0x7fff_ffff);
        if frame.stream == 0 {
            self.window += more;
            let is_wrong = more == 0 || self.window > WINDOW_MAX;
            return if is_wrong { Err(Failure::Garbage) } else { Ok(()) };
        }
        if frame.stream.is_multiple_of(2) || frame.stream >= self.next {
            return Err(Failure::Surplus);
        }
        if let Some(slot) = self.ids.iter().position(|id| *id == frame.stream) {
            let stream = &mut self.streams[slot];
            stream.window += more;
            if more == 0 || stream.window > WINDOW_MAX {
                return Err(Failure::Garbage);
            }
        }
        Ok(())
    }
}
