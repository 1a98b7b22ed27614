//! What an instance has seen and done, from its start.

use serde::{Deserialize, Serialize};
use std::ops::Add;

/// `requests` = `answered` + `resets` + `gone` + `in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Requests whose last byte has come; what is no request counts too.
    pub requests: u64,
    /// Answers that the kernel has taken, errors among them.
    pub answered: u64,
    /// 503s that were decided on, by [`super::Fault::Error`].
    pub errors: u64,
    /// Requests whose connection was reset, by [`super::Fault::Reset`].
    pub resets: u64,
    /// Requests whose client has left before its answer, those that a killed instance has not answered included.
    pub gone: u64,
    /// What was no request and got a 400.
    pub malformed: u64,
    /// Requests without a whole answer now.
    pub in_flight: u64,
    /// The most there were at once.
    pub in_flight_max: u64,
}

impl Add for Counters {
    type Output = Self;

    /// Of two lives of an instance, one after the other: nothing is in flight from the first.
    fn add(self, later: Self) -> Self {
        Self {
            connections: self.connections + later.connections,
            requests: self.requests + later.requests,
            answered: self.answered + later.answered,
            errors: self.errors + later.errors,
            resets: self.resets + later.resets,
            gone: self.gone + self.in_flight + later.gone,
            malformed: self.malformed + later.malformed,
            in_flight: later.in_flight,
            in_flight_max: self.in_flight_max.max(later.in_flight_max),
        }
    }
}
