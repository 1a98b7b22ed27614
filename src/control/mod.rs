//! The control thread's rooms: slow things, off the request path.
//!
//! [`admin`] answers operators and Prometheus; [`probes`] checks the health of endpoints. Both run on the control thread's
//! single-threaded tokio runtime, and tell the workers nothing themselves: they call back into whoever started them.
//!
//! Architecture invariant: nothing here runs on a worker's thread.

pub mod admin;
pub mod probes;
