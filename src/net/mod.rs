//! The only room that knows rings, monoio, sockets, timers and clocks.
//!
//! Everything here is mechanism: it moves bytes and tells the time, and decides nothing. The event loops are our own where it matters most:
//! [`ring`] on the kernels of today, [`epoll`] where io_uring is forbidden, both with the same [`tasks`]. Between them there is monoio's
//! ring ([`guest`]), whose hazards (0.2.4) this room works around, once, so that nobody else needs to know them:
//!
//! - no `enable_timer`: a sleep costs 640 bytes and two clock reads a turn. One alarm and one lazy wheel per worker instead
//!   ([`timer`]); a deadline on I/O is a `shutdown(2)` of the socket.
//! - no `accept` operation: one connection per turn, no CLOEXEC. [`listener`] polls and drains `accept4`.
//! - no vectored writes: `write_vectored_all` corrupts on partial writes. One contiguous [`block::Block`] per send.
//! - no receive is dropped, which might take bytes with it: it belongs to its socket ([`guest::socket`]).
//! - no wakers across threads: [`mailbox`] is a queue and an eventfd.
//! - a panic in a task would end the core: [`guarded`] turns it into a value.
//! - a runtime that is dropped leaks its tasks and what they hold: [`guest::wards`] keeps them where they can be ended.

mod alarm;
pub mod block;
pub mod clock;
pub mod connecting;
pub mod driver;
mod engine;
mod epoll;
pub mod fault;
pub mod guarded;
mod guest;
pub mod heap;
pub mod lane;
pub mod listener;
mod looks;
pub mod mailbox;
mod plain;
pub mod pool;
pub mod receipt;
pub mod resources;
mod ring;
pub mod socket_file;
pub mod stream;
mod tasks;
pub mod timer;
pub mod tls;
pub mod upstream;
mod wheel;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
