//! One connection: what was asked on it, in order, and what the kernel has not taken yet.

use rustix::event::epoll::EventFlags;
use rustix::io::{Errno, writev};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendFlags, send};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::reader::Reader;
use super::responses::Response;
use crate::units::Moment;

/// A client that has so many requests and answers on one connection is not read from until there are fewer.
const WAITING_MAX: usize = 64;
/// Answers that are written with one system call.
const PIECES_AT_ONCE: usize = 16;

/// A connection of a client.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    /// No other connection has or had this number; its descriptor's number comes again.
    pub(super) serial: u64,
    pub(super) reader: Reader,
    /// Requests without an answer, in the order in which they came.
    pub(super) asked: VecDeque<Asked>,
    output: VecDeque<Piece>,
    /// Requests whose last byte of the answer has not been taken by the kernel.
    pub(super) unanswered: u64,
    /// Nothing more is read: the client has said that it is done, or nothing it says counts.
    pub(super) is_deaf: bool,
    /// Its first request stands in the queue of due times.
    pub(super) is_queued: bool,
    /// What epoll was asked for.
    pub(super) interest: EventFlags,
}

/// A request that waits for its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) due: Moment,
    pub(super) answer: Answer,
    /// `HEAD`
    pub(super) is_head: bool,
    pub(super) closes: bool,
}

/// How a request will be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Fine,
    /// 503
    Error,
    /// 400
    Malformed,
    Never,
    /// Head, and then byte by byte: how much time is between two, and what was sent.
    Drip(Duration, Option<usize>),
}

/// A part of an answer.
struct Piece {
    bytes: Rc<[u8]>,
    from: usize,
    to: usize,
    /// The answer ends with it.
    is_last: bool,
    /// So does the connection.
    closes: bool,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    /// It has ended: by us, by the client, by the network.
    Ends,
    /// It is reset.
    Resets,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, serial: u64) -> Self {
        Self {
            socket,
            serial,
            reader: Reader::default(),
            asked: VecDeque::new(),
            output: VecDeque::new(),
            unanswered: 0,
            is_deaf: false,
            is_queued: false,
            interest: EventFlags::IN,
        }
    }

    /// Puts a whole answer at the end of the output; `is_head`: only its head.
    pub(super) fn answer(&mut self, response: &Response, is_head: bool, closes: bool) {
        let to = if is_head { response.head_bytes } else { response.bytes.len() };
        self.output.push_back(Piece { bytes: Rc::clone(&response.bytes), from: 0, to, is_last: true, closes });
    }

    /// Puts an interim answer at the end of the output.
    pub(super) fn answer_interim(&mut self, response: &Response) {
        let (bytes, to) = (Rc::clone(&response.bytes), response.head_bytes);
        self.output.push_back(Piece { bytes, from: 0, to, is_last: false, closes: false });
    }

    /// Puts the next part of a dripping answer at the end of the output: the head, when `sent` is `None`, else one byte of the body after
    /// `sent` of them. How many bytes of the body were sent then; `None`: all of it.
    pub(super) fn drip(&mut self, response: &Response, asked: &Asked, sent: Option<usize>) -> Option<usize> {
        let end = if asked.is_head { response.head_bytes } else { response.bytes.len() };
        let (from, to) = match sent {
            None => (0, response.head_bytes),
            Some(sent) => (response.head_bytes + sent, response.head_bytes + sent + 1),
        };
        let is_last = to >= end;
        let closes = is_last && asked.closes;
        self.output.push_back(Piece { bytes: Rc::clone(&response.bytes), from, to, is_last, closes });
        (!is_last).then(|| to - response.head_bytes)
    }

    /// Writes what there is. How many answers have gone whole, and what becomes of the connection.
    pub(super) fn flush(&mut self) -> (u64, Fate) {
        let mut answered = 0;
        while !self.output.is_empty() {
            match self.write() {
                Ok(bytes) => {
                    let (whole, closes) = self.advance(bytes);
                    answered += whole;
                    if closes {
                        return (answered, Fate::Ends);
                    }
                }
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => {}
                Err(_) => return (answered, Fate::Ends),
            }
        }
        (answered, Fate::Stays)
    }

    fn write(&self) -> rustix::io::Result<usize> {
        if let [only] = self.output.as_slices().0
            && self.output.len() == 1
        {
            return send(&self.socket, &only.bytes[only.from..only.to], SendFlags::NOSIGNAL);
        }
        let pieces =
            self.output.iter().take(PIECES_AT_ONCE).map(|piece| IoSlice::new(&piece.bytes[piece.from..piece.to]));
        writev(&self.socket, &pieces.collect::<Vec<_>>())
    }

    /// Takes `bytes` off the output: how many answers end there, and whether the connection does.
    fn advance(&mut self, mut bytes: usize) -> (u64, bool) {
        let mut answered = 0;
        while let Some(piece) = self.output.front_mut() {
            let length = piece.to - piece.from;
            if length > bytes {
                piece.from += bytes;
                break;
            }
            bytes -= length;
            let (is_last, closes) = (piece.is_last, piece.closes);
            self.output.pop_front();
            self.unanswered -= u64::from(is_last);
            answered += u64::from(is_last);
            if closes {
                return (answered, true);
            }
        }
        (answered, false)
    }

    /// What epoll should report.
    pub(super) fn interest_wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, !self.is_deaf && self.asked.len() + self.output.len() < WAITING_MAX);
        wanted.set(EventFlags::OUT, !self.output.is_empty());
        wanted
    }

    /// Nothing will ever be said on it again.
    pub(super) fn is_over(&self) -> bool {
        let is_lost = self.asked.front().is_some_and(|asked| asked.answer == Answer::Never);
        self.is_deaf && self.output.is_empty() && (self.asked.is_empty() || is_lost)
    }

    /// Closing it will send a reset instead of an end.
    pub(super) fn will_reset(&self) {
        // fails only where the connection is gone already
        let _ = set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
