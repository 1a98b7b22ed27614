//! What a generator writes down: requests that have ended, requests in flight, handshakes.

use super::connection::{Request, Shaken};
use super::generator::Generator;
use crate::units::Moment;
use crate::wire::Failure;

/// Watchers are told of requests in batches of this.
const TOLD: u64 = 64;

impl Generator<'_> {
    pub(super) fn record(&mut self, request: Request, status: Option<u16>, failure: Option<Failure>, now: Moment) {
        self.fly(-1, now);
        if request.due < self.judged {
            return;
        }
        if let Some(status) = status {
            self.tallies.statuses[usize::from(status) % 1_000] += 1;
        }
        let outcome = match failure {
            Some(failure) => Err(failure),
            None => Ok((now.since(request.due), now.since(request.begun))),
        };
        let (due, ended) = (request.due.since(self.judged), now.since(self.judged));
        self.tallies.record(request.target as usize, due, ended, outcome);
        self.untold.0 += 1;
        self.untold.1 += u64::from(failure.is_some());
        self.tell(TOLD);
    }

    pub(super) fn tell(&mut self, from: u64) {
        if self.untold.0 >= from {
            self.watch.add(self.untold.0, self.untold.1);
            self.untold = (0, 0);
        }
    }

    /// One more or less in flight.
    pub(super) fn fly(&mut self, change: i64, now: Moment) {
        let since = self.in_flight_since;
        if now > since {
            self.tallies.flew(self.in_flight, since.since(self.judged), now.since(self.judged));
            self.in_flight_since = now;
        }
        self.in_flight = self.in_flight.saturating_add_signed(change);
    }

    /// A connection has agreed on TLS, those of the start included.
    pub(super) fn count(&mut self, shaken: Option<Shaken>) {
        if let Some(Shaken { took, is_resumed }) = shaken {
            self.tallies.handshakes.record(took, is_resumed);
        }
    }
}
