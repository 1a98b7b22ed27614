//! What waits in the lanes of one shared connection to an endpoint, on its way to the socket: frames of what the line has written, cut by the
//! windows, one of each lane in turn.

use super::link::{Core, Link};
use super::links::Loss;
use crate::http::h2::code::Code;
use crate::http::h2::connection::Connection as Codec;
use crate::http::h2::frame::FRAME_HEAD_BYTES;
use crate::http::h2::upward::{Step, Terms};
use crate::net::block::Block;
use crate::worker::down::h2::writing::{OUT_BYTES_MAX, make_room};
use crate::worker::state::Worker;
use std::rc::Rc;

/// How far a lane has come in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Some,
    All,
    Blocked,
}

impl Link {
    /// What is to be sent next; `None`: nothing is.
    pub(super) fn collect(&self, worker: &Worker) -> Option<Block> {
        let mut core = self.core.borrow_mut();
        let mut out = Block::default();
        push_control(&mut core.codec, worker, &mut out);
        let mut is_stuck = core.writing.is_empty();
        while !is_stuck {
            is_stuck = true;
            let mut at = 0;
            while at < core.writing.len() && out.unread().len() < OUT_BYTES_MAX {
                let key = core.writing[at];
                match self.write(&mut core, key, worker, &mut out) {
                    Written::Some => (is_stuck, at) = (false, at + 1),
                    Written::Blocked => at += 1,
                    Written::All => {
                        core.writing.remove(at);
                        self.stop_writing(&mut core, key, worker);
                    }
                }
            }
            is_stuck |= out.unread().len() >= OUT_BYTES_MAX;
        }
        if core.writing.len() > 1 {
            core.writing.rotate_left(1);
        }
        push_control(&mut core.codec, worker, &mut out);
        (!out.is_empty()).then_some(out)
    }

    fn stop_writing(&self, core: &mut Core, key: usize, worker: &Worker) {
        let Some(slot) = core.slots.get_mut(key) else { return };
        slot.is_writing = false;
        if slot.seat.lane.is_finished() {
            self.end(core, key, worker);
        }
    }

    /// One frame of DATA of a lane, at most, with the head before it.
    fn write(&self, core: &mut Core, key: usize, worker: &Worker, out: &mut Block) -> Written {
        let Core { codec, slots, keys, block: fields, is_secure, .. } = core;
        let Some(slot) = slots.get_mut(key) else { return Written::All };
        let lane = Rc::clone(&slot.seat.lane);
        let terms = Terms { is_secure: *is_secure, connects: codec.peer_takes_connect() };
        lane.outgoing(|waiting| {
            loop {
                if slot.place.is_some_and(|place| codec.stream(place).is_reset()) || lane.is_cut() {
                    waiting.consume_all();
                    return Written::All;
                }
                fields.clear();
                let Ok(step) = slot.upward.next(waiting.unread(), terms, fields) else {
                    slot.place.map(|place| codec.reset(place, Code::Internal));
                    lane.lose();
                    return Written::All;
                };
                match (step, slot.place) {
                    (Step::Nothing, _) => return Written::All,
                    (Step::Head { consumed, ended, is_head, accept }, _) => {
                        // the endpoint may have lowered its limit since there was room
                        let is_within = codec.streams() < codec.peer_streams_max();
                        let Some(place) = is_within.then(|| codec.ask(is_head)).flatten() else {
                            self.is_draining.set(is_within || self.is_draining.get());
                            slot.seat.loss.set(Loss::Unprocessed);
                            lane.lose();
                            return Written::All;
                        };
                        if keys.len() <= place {
                            keys.resize(place + 1, 0);
                        }
                        (keys[place], slot.place, slot.is_head) = (key, Some(place), is_head);
                        slot.accept = accept;
                        slot.seat.is_begun.set(true);
                        make_room(worker, out, fields.len() + 8 * FRAME_HEAD_BYTES);
                        codec.push_headers(out.vec_mut(), place, fields, ended);
                        waiting.consume(consumed);
                    }
                    (Step::Data { len, ended }, Some(place)) => {
                        let bytes = codec.room(place).min(len);
                        if bytes == 0 {
                            return Written::Blocked;
                        }
                        make_room(worker, out, bytes + FRAME_HEAD_BYTES);
                        codec.push_data_head(out.vec_mut(), place, bytes, ended && bytes == len);
                        out.vec_mut().extend_from_slice(&waiting.unread()[..bytes]);
                        waiting.consume(bytes);
                        slot.upward.taken(bytes);
                        return if waiting.is_empty() { Written::All } else { Written::Some };
                    }
                    (Step::End { consumed, has_trailers }, Some(place)) => {
                        make_room(worker, out, fields.len() + 8 * FRAME_HEAD_BYTES);
                        match has_trailers {
                            true => codec.push_headers(out.vec_mut(), place, fields, true),
                            false => codec.push_data_head(out.vec_mut(), place, 0, true),
                        }
                        waiting.consume(consumed);
                    }
                    (Step::Coding { consumed }, _) => waiting.consume(consumed),
                    (_, None) => return Written::All,
                }
            }
        })
    }
}

fn push_control(codec: &mut Codec, worker: &Worker, out: &mut Block) {
    if !codec.control().is_empty() {
        make_room(worker, out, codec.control().len());
        out.vec_mut().extend_from_slice(codec.control());
        codec.control_sent();
    }
}
