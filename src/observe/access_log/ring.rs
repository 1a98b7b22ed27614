//! A ring of bytes from one worker to the log's thread.
//!
//! The ring is made of words that are atomics, so that one side may write while the other reads without a lock and without
//! unsafe code; positions count words and never wrap (2^64 words are never written). A record is one word with its length in
//! bytes, then its bytes. The writing side publishes a record whole, by moving `head`; the reading side frees it, by moving `tail`.
//!
//! What this does not do: wait. A record that does not fit is refused, and the caller counts it.

use super::record::{LogRecord, PACKED_BYTES_MAX};
use crate::limits;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const WORD: usize = size_of::<u64>();
const _: () = assert!(limits::LOG_RING_BYTES / WORD > 2 * PACKED_BYTES_MAX / WORD, "a ring holds several records");

/// A position on its own cache lines, because each side writes one and reads the other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Position(AtomicU64);

/// The memory between the two sides: [`limits::LOG_RING_BYTES`].
#[derive(Debug)]
pub struct LogRing {
    words: Box<[AtomicU64]>,
    /// Words ever written.
    head: Position,
    /// Words ever freed.
    tail: Position,
}

impl LogRing {
    /// An empty ring.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let words = (0..limits::LOG_RING_BYTES / WORD).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self { words, head: Position::default(), tail: Position::default() })
    }

    fn word(&self, position: u64) -> &AtomicU64 {
        // The number of words is a power of two (asserted in `limits`).
        &self.words[position as usize & (self.words.len() - 1)]
    }

    /// Words that wait for the reading side.
    pub(super) fn waiting(&self) -> usize {
        (self.head.0.load(Acquire) - self.tail.0.load(Relaxed)) as usize
    }

    /// Can the ring be called half full?
    pub(super) fn is_half_full(&self) -> bool {
        self.waiting() * 2 >= self.words.len()
    }

    /// Moves the oldest packed record into `record` (emptied first); false when there is none. Only the log's thread calls this.
    pub(super) fn pop(&self, record: &mut Vec<u8>) -> bool {
        record.clear();
        let tail = self.tail.0.load(Relaxed);
        if tail == self.head.0.load(Acquire) {
            return false;
        }
        let len = self.word(tail).load(Relaxed) as usize;
        let words = len.div_ceil(WORD) as u64;
        (1..=words).for_each(|n| record.extend_from_slice(&self.word(tail + n).load(Relaxed).to_le_bytes()));
        record.truncate(len);
        self.tail.0.store(tail + 1 + words, Release);
        true
    }
}

/// A worker's end of its ring.
pub struct LogSender {
    ring: Arc<LogRing>,
    side: RefCell<Side>,
}

struct Side {
    packed: Vec<u8>,
    head: u64,
    /// `tail` as it was last seen: looked at again only when the ring seems full.
    tail: u64,
}

impl LogSender {
    /// The writing end of `ring`, which goes on where a thread before it ended. There must be only one at a time.
    #[must_use]
    pub fn new(ring: Arc<LogRing>) -> Self {
        let (head, tail) = (ring.head.0.load(Relaxed), ring.tail.0.load(Acquire));
        Self {
            ring,
            side: RefCell::new(Side {
                packed: Vec::with_capacity(PACKED_BYTES_MAX.next_multiple_of(WORD)),
                head,
                tail,
            }),
        }
    }

    /// Packs the record into the ring; false when the writer is so far behind that there is no room: the caller counts it
    /// ([`crate::observe::recorder::Life::log_line_dropped`]).
    #[must_use]
    pub fn send(&self, record: &LogRecord<'_>) -> bool {
        let Side { packed, head, tail } = &mut *self.side.borrow_mut();
        packed.clear();
        record.pack(packed);
        let words = 1 + packed.len().div_ceil(WORD) as u64;
        let room = self.ring.words.len() as u64;
        if *head + words - *tail > room {
            *tail = self.ring.tail.0.load(Acquire);
            if *head + words - *tail > room {
                return false;
            }
        }
        self.ring.word(*head).store(packed.len() as u64, Relaxed);
        // Filled up to whole words, so that the copy below has no odd end.
        packed.resize((words as usize - 1) * WORD, 0);
        for (chunk, position) in packed.chunks_exact(WORD).zip(*head + 1..) {
            let word = u64::from_le_bytes(chunk.try_into().expect("chunks are words"));
            self.ring.word(position).store(word, Relaxed);
        }
        *head += words;
        self.ring.head.0.store(*head, Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::full;
    use super::*;

    fn unpacked_request_bytes(packed: &[u8]) -> u64 {
        let mut tried = super::super::record::Tries::default();
        LogRecord::unpack(packed, &mut tried).expect("rings hold whole records").request_bytes
    }

    #[test]
    fn records_come_out_in_order_over_many_turns_of_the_ring() {
        let ring = LogRing::new();
        let sender = LogSender::new(Arc::clone(&ring));
        let mut packed = Vec::new();
        for n in 0..50_000 {
            let target = &b"/a/path/of/some/length/that/varies"[..n as usize % 34];
            assert!(sender.send(&LogRecord { request_bytes: n, target, ..full() }));
            assert!(ring.pop(&mut packed));
            assert_eq!(unpacked_request_bytes(&packed), n);
        }
        assert!(!ring.pop(&mut packed));
    }

    #[test]
    fn a_full_ring_refuses_and_takes_again_once_it_was_read() {
        let ring = LogRing::new();
        let sender = LogSender::new(Arc::clone(&ring));
        let fitted =
            (0..1_000_000).take_while(|n| sender.send(&LogRecord { request_bytes: *n, ..full() })).count() as u64;
        assert!(fitted > 1_000 && ring.is_half_full());
        let mut packed = Vec::new();
        assert!(ring.pop(&mut packed));
        assert_eq!(unpacked_request_bytes(&packed), 0);
        assert!(sender.send(&LogRecord { request_bytes: fitted, ..full() }));
        assert!(!sender.send(&full()));
        for n in 1..=fitted {
            assert!(ring.pop(&mut packed));
            assert_eq!(unpacked_request_bytes(&packed), n);
        }
        assert_eq!(ring.waiting(), 0);
    }

    #[test]
    fn a_restarted_worker_goes_on_where_the_last_one_ended() {
        let ring = LogRing::new();
        assert!(LogSender::new(Arc::clone(&ring)).send(&LogRecord { request_bytes: 1, ..full() }));
        assert!(LogSender::new(Arc::clone(&ring)).send(&LogRecord { request_bytes: 2, ..full() }));
        let mut packed = Vec::new();
        assert!(ring.pop(&mut packed));
        assert!(ring.pop(&mut packed));
        assert_eq!(unpacked_request_bytes(&packed), 2);
    }

    #[test]
    fn two_threads_lose_and_mix_nothing() {
        const RECORDS: u64 = 100_000;
        let ring = LogRing::new();
        std::thread::scope(|scope| {
            let sending = Arc::clone(&ring);
            scope.spawn(move || {
                let sender = LogSender::new(sending);
                for n in 0..RECORDS {
                    while !sender.send(&LogRecord { request_bytes: n, ..full() }) {
                        std::thread::yield_now();
                    }
                }
            });
            let (mut packed, mut expected) = (Vec::new(), 0);
            while expected < RECORDS {
                if ring.pop(&mut packed) {
                    assert_eq!(unpacked_request_bytes(&packed), expected);
                    expected += 1;
                } else {
                    std::thread::yield_now();
                }
            }
        });
    }
}
