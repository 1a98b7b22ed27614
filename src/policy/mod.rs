//! Decisions without sockets, clocks or global randomness: `now` and `rng` are arguments.

pub mod access;
pub mod admission;
pub mod attempt;
pub mod availability;
pub mod balancer;
pub mod budget;
pub mod chance;
pub mod client_slots;
pub mod cluster;
pub mod concurrency;
pub mod cookies;
pub mod cors;
pub mod deadline;
pub mod descriptors;
pub mod endpoint;
pub mod event;
pub mod exchange;
pub mod fair_queue;
pub mod far;
pub mod fault;
pub mod health;
pub mod identity;
pub mod key_table;
pub mod latencies;
pub mod limit_fields;
pub mod limiter;
pub mod login;
pub mod names;
pub mod networks;
pub mod outlier;
pub mod replay;
pub mod retry;
pub mod router;
pub mod signature;
pub mod split;
pub mod standings;
pub mod sticky;
pub mod tiers;
pub mod token;
pub mod token_bucket;
pub mod try_time;
pub mod verdict;
pub mod visited;

#[cfg(test)]
pub(crate) mod testing;
