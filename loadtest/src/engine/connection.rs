//! One connection of a generator: one request under way at most, or many that share it ([`Mux`]).

use super::mux::Mux;
use crate::load::Target;
use crate::units::Moment;
use crate::wire::{Codec as _, Failure, Http1, Link, Readiness, Step, Taken};

/// Pieces of one connection that are read before others are looked at: an answer that does not end would keep the thread to itself.
const PIECES_MAX: usize = 4;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Row of the load's targets.
    pub(super) target: u32,
    /// When it was due.
    pub(super) due: Moment,
    /// When its first byte was sent, or its connection asked for.
    pub(super) begun: Moment,
}

/// What a connection is there for.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// Not connected yet; with a request that waits for it.
    Connecting(Option<Request>),
    /// It may take a request.
    Idle,
    /// Its request is under way; of it so many bytes are sent.
    Busy(Request, usize),
    /// Many requests may be under way.
    Shared,
    /// Nothing; the row may be taken again.
    Free,
}

/// A row of the generator's table.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: Option<Link>,
    pub(super) state: State,
    /// What many requests share, once it is connected.
    pub(super) mux: Option<Box<Mux>>,
    codec: Http1,
    /// Grows with each use of the row, so that what speaks of an earlier one is known to.
    pub(super) serial: u32,
    /// It has served a request before.
    is_used: bool,
    /// When it was connected and TLS began, until that is agreed on.
    shakes_since: Option<Moment>,
}

/// How a handshake has ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shaken {
    /// Nanoseconds from its first byte.
    pub(super) took: u64,
    pub(super) is_resumed: bool,
}

/// What became of what was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It goes on.
    Nothing,
    /// The request under way has ended: status, where there was one, and failure.
    Ended { status: Option<u16>, failure: Option<Failure>, keeps: bool },
    /// There is no request under way, and the connection has ended.
    Gone,
    /// There is more to read, of which the kernel does not tell again.
    Unread,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            link: None,
            state: State::Free,
            mux: None,
            codec: Http1::default(),
            serial: 0,
            is_used: false,
            shakes_since: None,
        }
    }

    /// Takes the row for a new connection.
    pub(super) fn take(&mut self, link: Link, request: Option<Request>) {
        self.link = Some(link);
        self.state = State::Connecting(request);
        self.is_used = false;
        self.shakes_since = None;
        self.serial = self.serial.wrapping_add(1);
    }

    /// Gives the row back; the socket closes.
    pub(super) fn free(&mut self) {
        self.link = None;
        self.mux = None;
        self.state = State::Free;
        self.serial = self.serial.wrapping_add(1);
    }

    /// Begins `request` on an idle connection.
    pub(super) fn begin(&mut self, request: Request, target: &Target, sent: &mut u64) -> Came {
        self.codec.begin(target);
        self.state = State::Busy(request, 0);
        self.push(target, sent)
    }

    /// Sends what is left of the request under way.
    pub(super) fn push(&mut self, target: &Target, sent: &mut u64) -> Came {
        let (State::Busy(_, at), Some(link)) = (&mut self.state, &mut self.link) else { return Came::Nothing };
        while *at < target.bytes.len() {
            match link.send(&target.bytes[*at..]) {
                Ok(0) => break,
                Ok(some) => {
                    *at += some;
                    *sent += some as u64;
                }
                // an answer may stand in the socket: servers answer early and close
                Err(Failure::Reset) => break,
                Err(failure) => return Came::Ended { status: None, failure: Some(failure), keeps: false },
            }
        }
        match link.flush() {
            // as above
            Ok(_) | Err(Failure::Reset) => Came::Nothing,
            Err(failure) => Came::Ended { status: None, failure: Some(failure), keeps: false },
        }
    }

    /// The socket is ready at `now`, and nothing was sent yet: whether a request may be, and after which handshake.
    pub(super) fn connected(&mut self, now: Moment) -> Result<(Readiness, Option<Shaken>), Failure> {
        let Some(link) = &mut self.link else { return Ok((Readiness::Later, None)) };
        let since = *self.shakes_since.get_or_insert(now);
        let readiness = link.connected()?;
        if readiness == Readiness::Later {
            return Ok((readiness, None));
        }
        let shaken = |is_resumed| Shaken { took: crate::clock::now().since(since), is_resumed };
        Ok((readiness, link.is_resumed().map(shaken)))
    }

    /// What it has under way.
    pub(super) fn request(&self) -> Option<Request> {
        match self.state {
            State::Connecting(request) => request,
            State::Busy(request, _) => Some(request),
            State::Idle | State::Shared | State::Free => None,
        }
    }

    /// What is under way at this place of it.
    pub(super) fn request_at(&self, (slot, stream): (usize, u32)) -> Option<Request> {
        match (&self.mux, self.state) {
            (Some(mux), State::Shared) => mux.request(slot, stream),
            _ => self.request(),
        }
    }

    /// It may take a request.
    pub(super) fn has_room(&self) -> bool {
        match &self.mux {
            None => true,
            Some(mux) => mux.codec.room() > 0,
        }
    }

    /// Reads until there is no more, the request under way has ended, or it was much. Less than the buffer takes is all there is for now, and the
    /// kernel tells when there is more; but not when the connection `ends`, which it has told already.
    pub(super) fn pull(&mut self, target: Option<&Target>, ends: bool, buffer: &mut [u8], received: &mut u64) -> Came {
        let Some(link) = &mut self.link else { return Came::Nothing };
        for _ in 0..PIECES_MAX {
            let taken = link.receive(buffer);
            let Some(target) = target else {
                return match taken {
                    Ok(Taken::Later) => Came::Nothing,
                    Ok(Taken::Bytes(_)) => Came::Ended { status: None, failure: Some(Failure::Surplus), keeps: false },
                    Ok(Taken::End) | Err(_) => Came::Gone,
                };
            };
            let (step, is_all) = match taken {
                Ok(Taken::Bytes(count)) => {
                    *received += count as u64;
                    (self.codec.receive(&buffer[..count], target), link.took_all(count, buffer.len()) && !ends)
                }
                Ok(Taken::Later) => return Came::Nothing,
                Ok(Taken::End) => (self.codec.end(target), true),
                Err(failure) => (Step::Failed(failure), true),
            };
            match step {
                Step::More if is_all => return Came::Nothing,
                Step::More => {}
                Step::Answered(answer) => {
                    self.is_used = true;
                    let whole = self.has_sent_all(target);
                    return Came::Ended {
                        status: Some(answer.status),
                        failure: answer.failure,
                        keeps: answer.keeps && whole,
                    };
                }
                Step::Failed(failure) => {
                    let failure = self.kind(failure);
                    return Came::Ended { status: None, failure: Some(failure), keeps: false };
                }
            }
        }
        Came::Unread
    }

    /// A reset or end without a byte of an answer on a connection that was kept is the server's way to be rid of it.
    fn kind(&self, failure: Failure) -> Failure {
        match failure {
            Failure::Reset | Failure::Stale | Failure::Closed if self.is_used && !self.codec.has_begun() => {
                Failure::Stale
            }
            Failure::Stale => Failure::Closed,
            failure => failure,
        }
    }

    fn has_sent_all(&mut self, target: &Target) -> bool {
        let has_gone = self.link.as_mut().is_some_and(|link| link.flush() == Ok(true));
        has_gone && matches!(self.state, State::Busy(_, sent) if sent == target.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    #[test]
    fn an_answer_without_an_end_does_not_keep_the_thread() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let link = Link::connect(listener.local_addr().expect("it is bound"), None).expect("it begins");
        let (mut server, _) = listener.accept().expect("somebody comes");
        let target = Target::new("GET", "a.test", "/", &[], b"", false);
        let request = Request { target: 0, due: Moment(1), begun: Moment(1) };
        let (mut connection, mut sent, mut received) = (Connection::new(), 0, 0);
        connection.take(link, None);
        assert_eq!(connection.connected(Moment(1)), Ok((Readiness::Ready, None)));
        assert_eq!(connection.begin(request, &target, &mut sent), Came::Nothing);
        let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".as_slice(), &[b'x'; 8_192]].concat();
        server.write_all(&answer).expect("the socket takes it");
        let mut buffer = [0; 64];
        let deadline = crate::clock::now() + std::time::Duration::from_secs(30);
        // what was written may take a moment to come
        let mut came = Came::Nothing;
        while came == Came::Nothing && crate::clock::now() < deadline {
            came = connection.pull(Some(&target), false, &mut buffer, &mut received);
        }
        assert_eq!((came, received), (Came::Unread, (PIECES_MAX * buffer.len()) as u64));
    }
}
