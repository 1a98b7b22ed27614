//! The built-in services: what stands behind a gateway under test, of known speed, with faults on command.
//!
//! One process is one instance: one thread with an epoll loop of its own (no runtime, and no code of the gateway's event loop), one queue
//! of due times, answers made beforehand. A request costs one read, one write and the turn around them, since instances share their core
//! with the load generator. It speaks HTTP/1.1: keep-alive, pipelining, `Content-Length` and chunked bodies, which are read and thrown
//! away, `HEAD`, `Expect: 100-continue`; anything else gets a 400.
//!
//! | file | what is in it |
//! |---|---|
//! | `service`, `fault`, `words` | what it is and how it fails, as text |
//! | `times` | when answers are due: pure, from a seed |
//! | `request`, `reader` | requests from bytes: pure |
//! | `responses` | answers, made once |
//! | `connection`, `answer`, `instance` | the event loop |
//! | `control`, `counters` | lines in, JSON out |
//! | `command` | `ringgate-load upstream` |
//!
//! What it does not do: TLS, HTTP/2, paths of different speed, a bound on its queue. Latency that a real service has from its own load is
//! what [`Time::MM1`] is for.

mod answer;
mod command;
mod connection;
mod control;
mod counters;
mod fault;
mod instance;
mod reader;
mod request;
mod responses;
mod service;
mod times;
mod words;

pub use command::{Upstream, command};
pub use control::Control;
pub use counters::Counters;
pub use fault::Fault;
pub use instance::Instance;
pub use service::{Service, Time};
pub use words::Misread;

use std::io;

/// Serves until it is killed, or standard input ends where that is the control.
///
/// # Errors
/// As [`Instance::open`] and [`Instance::serve`].
pub fn run(service: &Service, control: &Control) -> io::Result<()> {
    Instance::open(service, control)?.serve()
}
