//! Processes that the tool starts, and that never outlive it: not when it panics, not on Ctrl-C, not when it is killed.
//!
//! | file | what is in it |
//! |---|---|
//! | `guard` | the guardian, a process between us and each other one |
//! | `child` | a process as we see it |
//! | `family`, `usage` | /proc: descendants, CPU time, memory |
//! | `port` | ports that stay reserved while nobody listens |
//! | `fleet` | upstreams as processes |
//!
//! What it does not do: stop a single thread of a process. A signal stops all of them, and ptrace(2) cannot be had without `unsafe`; what
//! can be stopped is a process ([`Child::freeze`]).

mod child;
mod family;
mod fleet;
mod guard;
mod port;
mod usage;

pub use child::{Child, Ending, Error, Spec, this_program, use_program};
pub use fleet::Fleet;
pub use guard::{Guard, guard};
pub use port::Port;
pub use usage::{Usage, resident_bytes};

pub(crate) use family::living_descendants as descendants;
pub(crate) use guard::FOLDER_PREFIX;
