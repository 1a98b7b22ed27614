//! Ways in which a worker fails on purpose, in tests of those who notice. No part of a build that is used.

use crate::http::head::RequestHead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

/// A request with this header makes its connection's task panic while everything that planning borrows is borrowed.
pub(crate) const HEADER: &str = "x-test-panic";

/// Each test that stalls a worker has a gate of its own.
static GATES: [AtomicBool; 8] = [const { AtomicBool::new(false) }; 8];

/// What a worker is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Panic, outside of any connection.
    Panic,
    /// Have the kernel refuse the event loop, if it is one of ours; else panic.
    Break,
    /// Stand still until [`open`] is called for this gate.
    Stall {
        /// Row of the gates.
        gate: usize,
    },
}

impl Way {
    /// Does it, on the worker's thread.
    pub(crate) fn fail(self) {
        match self {
            Self::Break if crate::net::driver::break_it() => {}
            Self::Panic | Self::Break => panic!("on purpose, outside of any connection"),
            Self::Stall { gate } => {
                while !GATES[gate].load(Ordering::Acquire) {
                    std::thread::park();
                }
            }
        }
    }
}

/// Lets a stalled worker go on.
pub(crate) fn open(gate: usize, stalled: &Thread) {
    GATES[gate].store(true, Ordering::Release);
    stalled.unpark();
}

/// Makes the gate hold the next one.
pub(crate) fn close(gate: usize) {
    GATES[gate].store(false, Ordering::Release);
}

/// Panics for a request that asks for it.
pub(crate) fn on_head(head: &RequestHead<'_>) {
    assert!(head.fields().get(HEADER).is_none(), "on purpose, inside of a connection");
}
