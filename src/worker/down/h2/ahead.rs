//! What waits in the lanes of clients' connections until somebody takes it: bodies that come faster than their endpoints take them.
//!
//! A connection's window bounds that for one connection, and there may be many. So all connections of a worker count into one account, by the
//! blocks that are in use. While it is full, those that hold more than their share are not received from, as connections of HTTP/1.1 are not
//! that are ahead of whoever reads them: what they send waits in the kernel, and then with the client. All others go on.
//!
//! RFC 9113 §5.2.2 warns of not reading, since WINDOW_UPDATEs are not read either. It is the last resort: `body_timeout` ends what stands still,
//! and a client that has left is found by looking.

use super::mux::Mux;
use crate::limits::{BLOCK_LARGE, STREAMS_AHEAD_BYTES_MAX};
use crate::net::clock;
use crate::worker::state::Worker;

impl Mux {
    /// Counts what its lanes hold, and says whether it is too much to receive more now.
    pub(super) fn is_held_back(&mut self, worker: &Worker) -> bool {
        let held = self.bells.held();
        if held != self.counted {
            self.count_ahead(held, worker);
        }
        let is_held_back = held > BLOCK_LARGE && worker.is_streams_full();
        if is_held_back && self.head_began.is_some() {
            // that it does not go on is not the client's doing
            self.head_began = Some(clock::now());
        }
        is_held_back
    }

    pub(super) fn count_ahead(&mut self, held: usize, worker: &Worker) {
        let all = &worker.streams_ahead;
        all.set(all.get() - self.counted + held);
        self.counted = held;
    }
}

impl Worker {
    /// Whether bodies of streams wait in as much memory as they may.
    pub(in crate::worker) fn is_streams_full(&self) -> bool {
        self.streams_ahead.get() >= STREAMS_AHEAD_BYTES_MAX
    }
}
