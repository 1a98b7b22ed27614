//! Decisions without sockets, clocks or global randomness: `now` and `rng` are arguments.

pub mod admission;
pub mod concurrency;
pub mod key_table;
pub mod limit_fields;
pub mod router;
pub mod token_bucket;
