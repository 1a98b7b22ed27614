//! The only room that knows rings, monoio, sockets, timers and clocks.
//!
//! Everything here is mechanism: it moves bytes and tells the time, and decides nothing. Where the kernel allows it, the event loop is
//! our own ([`ring`], [`tasks`]); else it is monoio's ([`driver`]), whose hazards (0.2.4) this room works around, once, so that nobody
//! else needs to know them:
//!
//! - no `enable_timer`: a sleep costs 640 bytes and two clock reads a turn. One timerfd and one lazy wheel per worker instead
//!   ([`timer`]); a deadline on I/O is a `shutdown(2)` of the socket, so no pending receive is dropped
//!   to stop waiting on a connection that is kept.
//! - no `accept` operation: one connection per turn, no CLOEXEC. [`listener`] polls and drains `accept4`.
//! - no vectored writes: `write_vectored_all` corrupts on partial writes. One contiguous [`block::Block`] per send.
//! - no wakers across threads: [`mailbox`] is a queue and an eventfd.
//! - a panic in a task would end the core: [`guarded`] turns it into a value.
//! - a runtime that is dropped leaks its tasks and what they hold: [`wards`] keeps them where they can be ended.

pub mod block;
pub mod clock;
pub mod connecting;
pub mod driver;
pub mod fault;
pub mod guarded;
pub mod heap;
pub mod listener;
pub mod mailbox;
pub mod pool;
pub mod receipt;
pub mod resources;
mod ring;
pub mod socket_file;
pub mod stream;
mod tasks;
pub mod timer;
pub mod upstream;
mod wards;
mod wheel;

#[cfg(test)]
pub(crate) mod testing;
