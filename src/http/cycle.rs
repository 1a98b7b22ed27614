//! The life of a connection from one exchange to the next, as a table (after h11's state machine; RFC 9112 §9.3).
//!
//! A connection carries a request and a response, each of which is somewhere between not begun and done. What becomes of the connection
//! is a question to the pair, not to a set of flags: [`Cycle::next_downstream`] for the client's side and [`Cycle::next_upstream`] for
//! the endpoint's. One cycle per connection; both sides of an exchange have their own, because one may live on while the other dies.

use super::framing::Framing;
use crate::limits;

/// How far one message of the exchange has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// Nothing of it yet.
    #[default]
    Idle,
    /// The client holds its body back until it is told to continue, and was not told (RFC 9110 §10.1.1).
    Withheld,
    /// Its head is through, its body is not.
    Body,
    /// All of it is through.
    Done,
    /// It broke: malformed, cut, timed out. Where the next message begins is not known any more.
    Broken,
}

/// What a connection does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The exchange goes on, or has not begun.
    Continue,
    /// It is free for the next request.
    Reuse,
    /// The response is through, the request is not: read the rest and throw it away, at most
    /// [`limits::DISCARD_BYTES_MAX`], then ask again. Downstream only.
    Discard,
    /// It must be closed.
    Close,
}

/// One connection's exchange.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    request: Progress,
    response: Progress,
    is_persistent: bool,
    /// The client wanted to keep the connection, and may have sent its next request already.
    client_persists: bool,
}

impl Default for Cycle {
    fn default() -> Self {
        Self { request: Progress::Idle, response: Progress::Idle, is_persistent: true, client_persists: true }
    }
}

impl Cycle {
    /// The head of the request is through (received downstream, sent upstream). `persistent`: its sender wants to keep the connection.
    pub fn on_request_head(&mut self, framing: Framing, persistent: bool, withheld: bool) {
        debug_assert_eq!(self.request, Progress::Idle, "one request per cycle");
        self.is_persistent &= persistent;
        self.client_persists = persistent;
        self.request = match framing {
            _ if framing.is_empty() => Progress::Done,
            _ if withheld => Progress::Withheld,
            _ => Progress::Body,
        };
    }

    /// `100 Continue` was sent to the client: its body will come.
    pub fn on_continue(&mut self) {
        if self.request == Progress::Withheld {
            self.request = Progress::Body;
        }
    }

    /// The body of the request is through.
    pub fn on_request_done(&mut self) {
        if self.request != Progress::Broken {
            self.request = Progress::Done;
        }
    }

    /// The request broke.
    pub fn on_request_broken(&mut self) {
        self.request = Progress::Broken;
    }

    /// The head of the final response is through. `persistent`: its sender keeps the connection (and can be trusted to).
    pub fn on_response_head(&mut self, framing: Framing, persistent: bool) {
        debug_assert_eq!(self.response, Progress::Idle, "one final response per cycle");
        self.is_persistent &= persistent && framing != Framing::UntilClose;
        self.response = if framing.is_empty() { Progress::Done } else { Progress::Body };
    }

    /// The body of the response is through.
    pub fn on_response_done(&mut self) {
        if self.response != Progress::Broken {
            self.response = Progress::Done;
        }
    }

    /// The response broke, or bytes came that belong to none (RFC 9112 §9.2).
    pub fn on_response_broken(&mut self) {
        self.response = Progress::Broken;
    }

    /// The gateway drains, or the connection has served its share: this exchange is its last.
    pub fn on_drain(&mut self) {
        self.is_persistent = false;
    }

    /// Where the request is.
    #[must_use]
    pub fn request(&self) -> Progress {
        self.request
    }

    /// Where the response is.
    #[must_use]
    pub fn response(&self) -> Progress {
        self.response
    }

    /// Whether the head of the response must say `Connection: close`, when `left` bytes of the request's body are still to come (`None`:
    /// unknown, and nothing is promised that may not be kept). Asked just before that head is written (RFC 9112 §9.6).
    #[must_use]
    pub fn announces_close(&self, left: Option<u64>) -> bool {
        !self.is_persistent
            || match self.request {
                Progress::Idle | Progress::Withheld | Progress::Broken => true,
                Progress::Body => left.is_none_or(|left| left > limits::DISCARD_BYTES_MAX),
                Progress::Done => false,
            }
    }

    /// Whether there may be bytes of the client behind what was read of it. A connection that is closed with such bytes unread is reset,
    /// which takes what the client has not read yet of its responses (RFC 9112 §9.6).
    #[must_use]
    pub fn may_send_more(&self) -> bool {
        self.request != Progress::Done || self.client_persists
    }

    /// What becomes of a client's connection.
    #[must_use]
    pub fn next_downstream(&self) -> Next {
        match (self.request, self.response) {
            (Progress::Broken, _) | (_, Progress::Broken) => Next::Close,
            (Progress::Done, Progress::Done) if self.is_persistent => Next::Reuse,
            (Progress::Body, Progress::Done) if self.is_persistent => Next::Discard,
            (_, Progress::Done) => Next::Close,
            (_, Progress::Idle | Progress::Withheld | Progress::Body) => Next::Continue,
        }
    }

    /// What becomes of a connection to an endpoint. One that answered before it had the whole request is not used again: the endpoint
    /// may take the rest of the body for a request.
    #[must_use]
    pub fn next_upstream(&self) -> Next {
        match self.next_downstream() {
            Next::Discard => Next::Close,
            next => next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Progress; 5] = [Progress::Idle, Progress::Withheld, Progress::Body, Progress::Done, Progress::Broken];

    #[test]
    fn the_table_is_complete() {
        for request in ALL {
            for response in ALL {
                for is_persistent in [false, true] {
                    let cycle = Cycle { request, response, is_persistent, client_persists: true };
                    let pair = (cycle.next_downstream(), cycle.next_upstream());
                    let expected = match (request, response, is_persistent) {
                        (Progress::Broken, ..) | (_, Progress::Broken, _) => (Next::Close, Next::Close),
                        (Progress::Done, Progress::Done, true) => (Next::Reuse, Next::Reuse),
                        (Progress::Body, Progress::Done, true) => (Next::Discard, Next::Close),
                        (_, Progress::Done, _) => (Next::Close, Next::Close),
                        _ => (Next::Continue, Next::Continue),
                    };
                    assert_eq!(pair, expected, "{cycle:?}");
                }
            }
        }
    }

    #[test]
    fn a_connection_carries_one_exchange_after_another() {
        let mut cycle = Cycle::default();
        cycle.on_request_head(Framing::Fixed(5), true, false);
        assert_eq!((cycle.request(), cycle.next_downstream()), (Progress::Body, Next::Continue));
        cycle.on_request_done();
        cycle.on_response_head(Framing::Chunked, true);
        assert_eq!((cycle.response(), cycle.next_downstream()), (Progress::Body, Next::Continue));
        cycle.on_response_done();
        assert_eq!((cycle.next_downstream(), cycle.next_upstream()), (Next::Reuse, Next::Reuse));
    }

    #[test]
    fn each_side_and_a_drain_can_end_the_connection() {
        let run = |request: bool, response: bool, drain: bool, framing| {
            let mut cycle = Cycle::default();
            cycle.on_request_head(Framing::None, request, false);
            if drain {
                cycle.on_drain();
            }
            cycle.on_response_head(framing, response);
            cycle.on_response_done();
            cycle.next_downstream()
        };
        assert_eq!(run(true, true, false, Framing::Fixed(0)), Next::Reuse);
        assert_eq!(run(false, true, false, Framing::Fixed(0)), Next::Close);
        assert_eq!(run(true, false, false, Framing::Fixed(0)), Next::Close);
        assert_eq!(run(true, true, true, Framing::Fixed(0)), Next::Close);
        assert_eq!(run(true, true, false, Framing::UntilClose), Next::Close);
    }

    #[test]
    fn a_body_that_was_withheld_is_not_waited_for() {
        let mut cycle = Cycle::default();
        cycle.on_request_head(Framing::Fixed(5), true, true);
        assert!(cycle.announces_close(Some(5)));
        cycle.on_response_head(Framing::Fixed(0), true);
        assert_eq!(
            cycle.next_downstream(),
            Next::Close,
            "RFC 9110 §10.1.1: the client may send the body or the next request"
        );
        let mut told = Cycle::default();
        told.on_request_head(Framing::Fixed(5), true, true);
        told.on_continue();
        assert!(!told.announces_close(Some(5)));
        told.on_response_head(Framing::Fixed(0), true);
        assert_eq!(told.next_downstream(), Next::Discard);
        told.on_request_done();
        assert_eq!(told.next_downstream(), Next::Reuse);
    }

    #[test]
    fn an_early_response_announces_close_when_too_much_is_still_to_come() {
        let mut cycle = Cycle::default();
        assert!(cycle.announces_close(None), "an answer to no request is the last");
        cycle.on_request_head(Framing::Chunked, true, false);
        assert!(cycle.announces_close(None), "nobody knows whether it will be little");
        assert!(!cycle.announces_close(Some(limits::DISCARD_BYTES_MAX)));
        assert!(cycle.announces_close(Some(limits::DISCARD_BYTES_MAX + 1)));
        cycle.on_request_broken();
        assert!(cycle.announces_close(Some(0)));
        cycle.on_request_done();
        assert_eq!(cycle.request(), Progress::Broken, "what broke stays broken");
    }
}
