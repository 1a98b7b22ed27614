//! What waits in lanes, on its way to the socket: frames with the stream's id, cut by its windows, one of each lane in turn.
//!
//! All that is small is collected in one block, so that the answers of one turn leave with one system call, and in one record.

use super::mux::Mux;
use super::runner::Runner;
use crate::http::h2::code::Code;
use crate::http::h2::frame::{END_STREAM, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, FrameHead, Kind};
use crate::limits::{BLOCK_LARGE, BLOCK_SMALL};
use crate::net::block::Block;
use crate::observe::labels::StreamSide;
use crate::worker::state::Worker;
use std::rc::Rc;

/// Bytes that are collected before they are sent: a large block, with one frame of DATA more.
pub(in crate::worker) const OUT_BYTES_MAX: usize = BLOCK_LARGE - FRAME_BYTES_MAX - 4 * FRAME_HEAD_BYTES;

/// A stream that is being served.
pub(super) struct Slot {
    pub(super) runner: Rc<Runner>,
    /// Of the DATA that is being written, what has not been.
    left: usize,
    /// The stream ends with it.
    ends: bool,
    /// It is among those that have something to write.
    pub(super) is_writing: bool,
}

impl Slot {
    pub(super) fn new(runner: Rc<Runner>) -> Self {
        Self { runner, left: 0, ends: false, is_writing: false }
    }
}

/// How far a lane has come in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// A frame, and there may be more.
    Some,
    /// Nothing waits in it any more.
    All,
    /// Its windows have no room.
    Blocked,
}

impl Mux {
    /// What is to be sent next; `None`: nothing is.
    pub(super) fn collect(&mut self, worker: &Worker) -> Option<Block> {
        let mut out = Block::default();
        self.push_control(worker, &mut out);
        if self.codec.is_prioritized() && self.writing.len() > 1 {
            self.write_by_urgency(worker, &mut out);
            self.push_control(worker, &mut out);
            return (!out.is_empty()).then_some(out);
        }
        let mut is_stuck = self.writing.is_empty();
        while !is_stuck {
            is_stuck = true;
            let mut at = 0;
            while at < self.writing.len() && out.unread().len() < OUT_BYTES_MAX {
                let place = self.writing[at] as usize;
                match self.write(place, worker, &mut out) {
                    Written::Some => (is_stuck, at) = (false, at + 1),
                    Written::Blocked => at += 1,
                    Written::All => {
                        self.writing.remove(at);
                        self.stop_writing(place, worker);
                    }
                }
            }
            is_stuck |= out.unread().len() >= OUT_BYTES_MAX;
        }
        if self.writing.len() > 1 {
            // whoever was first is last in the next turn
            self.writing.rotate_left(1);
        }
        if self.is_deaf && out.is_empty() {
            self.give_up_blocked();
        }
        self.push_control(worker, &mut out);
        (!out.is_empty()).then_some(out)
    }

    fn push_control(&mut self, worker: &Worker, out: &mut Block) {
        if !self.codec.control().is_empty() {
            make_room(worker, out, self.codec.control().len());
            out.vec_mut().extend_from_slice(self.codec.control());
            self.codec.control_sent();
        }
    }

    /// One frame of DATA of a lane, at most, with the heads before it.
    pub(super) fn write(&mut self, place: usize, worker: &Worker, out: &mut Block) -> Written {
        let Self { codec, slots, .. } = self;
        let Some(slot) = slots.get_mut(place).and_then(Option::as_mut) else { return Written::All };
        let Slot { runner, left, ends, .. } = slot;
        if codec.stream(place).is_reset() {
            runner.lane.outgoing(Block::clear);
            return Written::All;
        }
        runner.lane.outgoing(|block| {
            while *left == 0 {
                let Some(head) = FrameHead::parse(block.unread()) else { return Written::All };
                let is_last = head.has(END_STREAM);
                block.consume(FRAME_HEAD_BYTES);
                if head.kind == Kind::Headers {
                    make_room(worker, out, head.len + 2 * FRAME_HEAD_BYTES);
                    codec.push_headers(out.vec_mut(), place, &block.unread()[..head.len], is_last);
                    block.consume(head.len);
                } else if head.len == 0 {
                    make_room(worker, out, FRAME_HEAD_BYTES);
                    codec.push_data_head(out.vec_mut(), place, 0, is_last);
                } else {
                    (*left, *ends) = (head.len, is_last);
                }
            }
            let bytes = codec.room(place).min(*left).min(block.unread().len());
            if bytes == 0 {
                return if block.is_empty() { Written::All } else { Written::Blocked };
            }
            make_room(worker, out, bytes + FRAME_HEAD_BYTES);
            codec.push_data_head(out.vec_mut(), place, bytes, *ends && bytes == *left);
            out.vec_mut().extend_from_slice(&block.unread()[..bytes]);
            block.consume(bytes);
            *left -= bytes;
            if block.is_empty() { Written::All } else { Written::Some }
        })
    }

    pub(super) fn stop_writing(&mut self, place: usize, worker: &Worker) {
        if let Some(slot) = self.slots.get_mut(place).and_then(Option::as_mut) {
            slot.is_writing = false;
            if slot.runner.lane.is_finished() {
                self.release(place, worker);
            }
        }
    }

    /// Something is to be done for a lane.
    pub(super) fn on_rung(&mut self, place: usize, worker: &Worker) {
        let Some(slot) = self.slots.get_mut(place).and_then(Option::as_mut) else { return };
        let lane = &slot.runner.lane;
        lane.on_rung();
        let taken = lane.take_taken();
        if taken > 0 {
            self.codec.on_taken(place, taken, !worker.is_streams_full());
        }
        let is_cut = lane.is_cut();
        if is_cut && self.codec.reset(place, Code::Cancel) {
            self.count_reset(StreamSide::Gateway, Code::Cancel);
        }
        let Some(slot) = self.slots.get_mut(place).and_then(Option::as_mut) else { return };
        let lane = &slot.runner.lane;
        if let Some(said) = lane.take_priority() {
            self.codec.correct_priority(place, said);
        }
        let waits = lane.outgoing(|block| !block.is_empty());
        if waits && !slot.is_writing {
            slot.is_writing = true;
            self.writing.push(place as u32);
        }
        if !waits && lane.is_finished() {
            self.release(place, worker);
        }
    }

    /// The stream is over for whoever served it.
    pub(super) fn release(&mut self, place: usize, worker: &Worker) {
        let Some(slot) = self.slots.get_mut(place).and_then(Option::take) else { return };
        if slot.is_writing {
            self.writing.retain(|&other| other as usize != place);
        }
        if let Some(code) = self.codec.release(place) {
            self.count_reset(StreamSide::Gateway, code);
        }
        slot.runner.lane.take_blocks().into_iter().for_each(|block| worker.put(block));
        worker.put_runner(slot.runner);
    }
}

/// Makes room behind what is in the block, in a larger one if there must be.
pub(in crate::worker) fn make_room(worker: &Worker, block: &mut Block, bytes: usize) {
    if block.room() >= bytes {
        return;
    }
    let mut blocks = worker.blocks.borrow_mut();
    let needed = block.unread().len() + bytes;
    let mut larger = if needed <= BLOCK_SMALL { blocks.small() } else { blocks.large() };
    larger.clear();
    larger.vec_mut().extend_from_slice(block.unread());
    blocks.put(std::mem::replace(block, larger));
}
