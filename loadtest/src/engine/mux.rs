//! What a connection of HTTP/2 carries: many requests, each at a slot of its own.

use super::connection::Request;
use crate::load::Target;
use crate::units::Moment;
use crate::wire::{Ended, Failure, Http2, Link, Taken};

/// Read at once: requests become due while answers are taken.
const PIECE: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Mux {
    pub(super) codec: Http2,
    /// By slot; what stands at a slot that is free means nothing.
    requests: Vec<Request>,
    /// It stands among the connections that may take a request.
    pub(super) is_listed: bool,
    /// When something came last.
    pub(super) heard: Moment,
}

/// What came of a read.
pub(super) enum Heard {
    /// This much, and perhaps more.
    Some,
    /// Nothing more for now.
    All,
}

impl Mux {
    pub(super) fn new(streams: usize, is_tls: bool, now: Moment) -> Self {
        Self { codec: Http2::new(streams, is_tls), requests: Vec::new(), is_listed: false, heard: now }
    }

    /// Begins a request, and says at which slot and on which stream.
    pub(super) fn begin(&mut self, request: Request, target: &Target) -> (usize, u32) {
        let slot = self.codec.begin(request.target, target);
        if slot == self.requests.len() {
            self.requests.push(request);
        } else {
            self.requests[slot] = request;
        }
        (slot, self.codec.stream(slot).unwrap_or_default())
    }

    /// The request at a slot, if it is that of this stream.
    pub(super) fn request(&self, slot: usize, stream: u32) -> Option<Request> {
        (self.codec.stream(slot)? == stream).then(|| self.requests[slot])
    }

    /// The request that was at a slot when it ended.
    pub(super) fn ended(&self, slot: usize) -> Request {
        self.requests[slot]
    }

    /// All that are under way.
    pub(super) fn under_way(&self) -> Vec<Request> {
        self.codec.slots().map(|slot| self.requests[slot]).collect()
    }

    /// Sends what is to be sent, as far as the socket takes it.
    pub(super) fn push(&mut self, link: &mut Link, targets: &[Target], sent: &mut u64) -> Result<(), Failure> {
        loop {
            let bytes = self.codec.outgoing(targets);
            if bytes.is_empty() {
                break;
            }
            match link.send(bytes)? {
                0 => break,
                some => {
                    *sent += some as u64;
                    self.codec.gone(some);
                }
            }
        }
        link.flush().map(drop)
    }

    /// Reads a piece; what has ended by it is appended to `ended`.
    pub(super) fn pull(
        &mut self,
        link: &mut Link,
        targets: &[Target],
        buffer: &mut [u8],
        received: &mut u64,
        ended: &mut Vec<Ended>,
    ) -> Result<Heard, Failure> {
        let room = buffer.len().min(PIECE);
        match link.receive(&mut buffer[..room])? {
            Taken::Later => Ok(Heard::All),
            Taken::End => Err(Failure::Closed),
            Taken::Bytes(count) => {
                *received += count as u64;
                self.heard = crate::clock::now();
                self.codec.receive(&buffer[..count], targets, ended)?;
                Ok(if link.took_all(count, room) { Heard::All } else { Heard::Some })
            }
        }
    }

    /// What a failure of the connection is for who was under way on it: one that was told of before is of that kind.
    pub(super) fn kind(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Closed | Failure::Reset if self.codec.has_goaway() => Failure::Goaway,
            failure => failure,
        }
    }
}
