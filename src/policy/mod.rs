//! Decisions without sockets, clocks or global randomness: `now` and `rng` are arguments.

pub mod router;
