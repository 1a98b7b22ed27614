//! The streams of one connection, by their ids and by their places (RFC 9113 §5.1).
//!
//! A stream has a place from its head until whoever serves it has ended too, whoever has reset it: that is what keeps a client that resets
//! its requests from having more of them served than it may have streams. Places are few (`max_streams`), so an id is found by looking at
//! them all, which for a hundred is as fast as any table.

use super::code::Code;
use super::priority::Priority;
use super::window::{ReceiveWindow, SendWindow};

/// Streams that were closed of which a connection knows how: frames for them may still be under way.
const CLOSED_KEPT: usize = 16;

/// What becomes of the client's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// More of it will come.
    Open,
    /// All of it is here.
    Ended,
    /// The client has reset the stream.
    Reset,
}

/// What becomes of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// More of it will go, or has not begun.
    Open,
    /// All of it has gone.
    Ended,
    /// We have reset the stream.
    Reset,
}

/// One stream.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Odd; 0 is a place that is free.
    pub(super) id: u32,
    pub(super) request: Request,
    pub(super) response: Response,
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Of the length that was announced, what is still to come.
    pub(super) left: Option<u64>,
    /// Of one that we have begun: its final head has not come.
    pub(super) awaits_head: bool,
    /// … and it has no body, whatever length it tells (HEAD).
    pub(super) is_bodiless: bool,
    pub(super) priority: Priority,
}

impl Stream {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How urgent its response is.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// Whether all of the request is here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.request == Request::Ended
    }

    /// Whether all of the response has gone.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.response == Response::Ended
    }

    /// Whether either end has reset it.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.request == Request::Reset || self.response == Response::Reset
    }

    /// Takes `bytes` of DATA off the length that was announced (RFC 9113 §8.1.1).
    pub(super) fn count(&mut self, bytes: usize, ended: bool) -> Result<(), Code> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(bytes as u64).ok_or(Code::Protocol)?;
            if ended && *left > 0 {
                return Err(Code::Protocol);
            }
        }
        Ok(())
    }
}

/// What is known of a stream that has no place any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// We have reset it, and the client may not have known.
    Reset,
    /// It has ended in another way.
    Closed,
    /// Nothing: it is long ago, or it never was.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Streams {
    ids: Vec<u32>,
    places: Vec<Stream>,
    free: Vec<u32>,
    /// Ids of those closed last, each with a bit that tells whether we have reset it.
    closed: [u32; CLOSED_KEPT],
    closed_next: usize,
}

impl Streams {
    /// How many have a place.
    pub(super) fn len(&self) -> usize {
        self.ids.len() - self.free.len()
    }

    /// The place of a stream.
    pub(super) fn find(&self, id: u32) -> Option<usize> {
        self.ids.iter().position(|&other| other == id)
    }

    pub(super) fn get(&self, place: usize) -> &Stream {
        &self.places[place]
    }

    pub(super) fn get_mut(&mut self, place: usize) -> &mut Stream {
        &mut self.places[place]
    }

    /// Those that have a place.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().filter(|stream| stream.id != 0)
    }

    pub(super) fn insert(&mut self, stream: Stream) -> usize {
        if let Some(place) = self.free.pop() {
            let place = place as usize;
            (self.ids[place], self.places[place]) = (stream.id, stream);
            return place;
        }
        self.ids.push(stream.id);
        self.places.push(stream);
        self.ids.len() - 1
    }

    pub(super) fn remove(&mut self, place: usize) {
        let stream = &mut self.places[place];
        debug_assert!(stream.id != 0, "a place is given back once");
        self.closed[self.closed_next] = stream.id << 1 | u32::from(stream.response == Response::Reset);
        self.closed_next = (self.closed_next + 1) % CLOSED_KEPT;
        stream.id = 0;
        self.ids[place] = 0;
        self.free.push(place as u32);
    }

    /// Gives back the room of places, if none is taken.
    pub(super) fn shrink(&mut self) {
        if self.len() == 0 {
            let Self { closed, closed_next, .. } = *self;
            *self = Self { closed, closed_next, ..Self::default() };
        }
    }

    /// What is known of a stream that has no place.
    pub(super) fn past(&self, id: u32) -> Past {
        match self.closed.iter().find(|&&closed| closed >> 1 == id && id != 0) {
            Some(closed) if closed & 1 == 1 => Past::Reset,
            Some(_) => Past::Closed,
            None => Past::Unknown,
        }
    }

    /// Bytes of memory that they hold.
    pub(super) fn memory(&self) -> usize {
        self.places.capacity() * size_of::<Stream>() + 4 * (self.ids.capacity() + self.free.capacity())
    }
}
