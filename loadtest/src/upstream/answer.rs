//! What an instance does with requests: when each is answered, and how, under the fault that is on.

use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::cmp::Reverse;

use super::connection::{Answer, Asked, Connection, Fate};
use super::fault::Fault;
use super::instance::Instance;
use super::reader::Event;
use super::request::Head;
use super::times::happens;
use crate::clock;
use crate::units::Moment;

impl Instance {
    /// Reads once and takes all requests that are whole then.
    pub(super) fn on_readable(&mut self, connection: &mut Connection) -> Fate {
        let mut buffer = std::mem::take(&mut self.buffer);
        let fate = match rustix::net::recv(&connection.socket, &mut buffer[..], RecvFlags::empty()) {
            Ok((0, _)) => {
                // what was asked is answered, for those who end only their half of the connection
                connection.is_deaf = true;
                Fate::Stays
            }
            Ok((length, _)) => self.on_bytes(connection, &buffer[..length]),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Fate::Stays,
            Err(_) => Fate::Ends,
        };
        self.buffer = buffer;
        fate
    }

    fn on_bytes(&mut self, connection: &mut Connection, mut bytes: &[u8]) -> Fate {
        while !connection.is_deaf {
            match connection.reader.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(Event::Request(head))) => {
                    if self.on_request(connection, &head) == Fate::Resets {
                        return Fate::Resets;
                    }
                }
                // before its turn it would be taken for the answer to another request; then the client goes on after a while by itself
                Ok(Some(Event::Expects)) if connection.unanswered == 0 && self.fault != Fault::Blackhole => {
                    connection.answer_interim(&self.responses.go_on);
                }
                Ok(Some(Event::Expects)) => {}
                Err(_) => {
                    self.count(connection);
                    self.counters.malformed += 1;
                    let due = clock::now();
                    connection.asked.push_back(Asked { due, answer: Answer::Malformed, is_head: false, closes: true });
                    connection.is_deaf = true;
                }
            }
        }
        Fate::Stays
    }

    fn count(&mut self, connection: &mut Connection) {
        self.counters.requests += 1;
        self.counters.in_flight += 1;
        self.counters.in_flight_max = self.counters.in_flight_max.max(self.counters.in_flight);
        connection.unanswered += 1;
    }

    fn on_request(&mut self, connection: &mut Connection, head: &Head) -> Fate {
        self.count(connection);
        connection.is_deaf = head.closes;
        let answer = match self.fault {
            Fault::Reset => {
                self.counters.resets += 1;
                self.counters.in_flight -= 1;
                connection.unanswered -= 1;
                return Fate::Resets;
            }
            Fault::Error(share) if happens(&mut self.rng, share) => {
                self.counters.errors += 1;
                Answer::Error
            }
            Fault::Blackhole => Answer::Never,
            Fault::Drip(every) => Answer::Drip(every, None),
            _ => Answer::Fine,
        };
        let mut asked = Asked { due: Moment::default(), answer, is_head: head.is_head, closes: head.closes };
        let is_at_once = self.times.are_zero() && self.frozen_until.is_none() && !matches!(self.fault, Fault::Slow(_));
        if is_at_once && connection.asked.is_empty() && matches!(answer, Answer::Fine | Answer::Error) {
            self.give(connection, &asked);
            return Fate::Stays;
        }
        asked.due = self.times.due(clock::now());
        if let Fault::Slow(more) = self.fault {
            asked.due = asked.due + more;
        }
        connection.asked.push_back(asked);
        Fate::Stays
    }

    /// Gives the answers of a connection that are due, in the order of their requests.
    pub(super) fn on_due(&mut self, connection: &mut Connection, now: Moment) -> Fate {
        connection.is_queued = false;
        while let Some(asked) = connection.asked.front_mut()
            && asked.due <= now
            && asked.answer != Answer::Never
        {
            let Answer::Drip(every, sent) = asked.answer else {
                let asked = *asked;
                connection.asked.pop_front();
                self.give(connection, &asked);
                continue;
            };
            asked.due = asked.due + every;
            let asked = *asked;
            let sent = connection.drip(self.responses.fine(asked.closes), &asked, sent);
            match connection.asked.front_mut() {
                Some(asked) if sent.is_some() => asked.answer = Answer::Drip(every, sent),
                _ => drop(connection.asked.pop_front()),
            }
        }
        Fate::Stays
    }

    fn give(&self, connection: &mut Connection, asked: &Asked) {
        let response = match asked.answer {
            Answer::Error => self.responses.error(asked.closes),
            Answer::Malformed => self.responses.malformed(),
            Answer::Fine | Answer::Drip(..) | Answer::Never => self.responses.fine(asked.closes),
        };
        connection.answer(response, asked.is_head, asked.closes);
    }

    /// Puts a connection's first request into the queue, unless it is there or will never be answered.
    pub(super) fn enqueue(&mut self, row: usize, connection: &mut Connection) {
        match connection.asked.front() {
            Some(asked) if !connection.is_queued && asked.answer != Answer::Never => {
                connection.is_queued = true;
                self.queue.push(Reverse((asked.due, row, connection.serial)));
            }
            _ => {}
        }
    }
}
