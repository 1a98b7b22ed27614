//! The control thread's rooms: slow things, off the request path.
//!
//! [`supervisor`] starts and ends the gateway, and keeps its workers running; [`admin`] answers operators and Prometheus;
//! [`probes`] checks the health of endpoints; [`source`] is where the
//! configuration comes from, again at each reload; [`client`] asks a running gateway something; [`upgrade`] is how the next process takes over. They run on the control thread's single-threaded tokio runtime, and reach the workers
//! only through their mailboxes.
//!
//! Architecture invariant: nothing here runs on a worker's thread.

mod acme;
pub mod admin;
pub mod client;
mod crew;
mod difference;
pub(crate) mod endpoints;
mod generations;
mod key_sets;
mod memory;
mod names;
pub mod probes;
mod process;
mod quotas;
mod redis;
mod reports;
pub mod source;
pub mod supervisor;
mod systemd;
pub mod upgrade;
