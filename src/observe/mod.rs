//! What the gateway tells about itself: numbers, usage, the access log, and its own.
//!
//! Reading order: [`labels`] (the closed lists of label values), [`histogram`], [`stats`] (where the numbers lie),
//! [`recorder`] (how a worker writes them), [`exposition`] (how Prometheus reads them), [`usage`] (the heaviest clients),
//! [`access_log`], [`own_log`] (what operators are told).
//!
//! Architecture invariant: nothing here takes a lock, makes a system call or allocates per request on a worker's thread.

pub mod access_log;
pub mod exposition;
pub mod histogram;
pub mod labels;
pub mod own_log;
pub mod recorder;
pub mod stats;
pub mod usage;

mod counter;
#[cfg(test)]
pub(crate) mod fixture;
