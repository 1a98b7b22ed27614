//! Blocks: the buffers that bytes travel in, and each worker's stock of them.
//!
//! A block is a vector of bytes with a read position: a receive appends to it, a send takes from its unread part, so one block can be
//! filled by one socket and emptied by another without a copy. The kernel writes into the vector's spare capacity, which is
//! therefore never zeroed. An idle connection holds no block.

use crate::limits::{BLOCK_BULK, BLOCK_LARGE, BLOCK_SMALL, BLOCKS_KEPT_BYTES, BULK_BLOCKS_MAX};
use monoio::buf::{IoBuf, IoBufMut};
use std::cell::Cell;
use std::ops::Range;

/// Bytes behind every received piece that are left for what an encoder writes there: the end of a chunk and of a body.
pub const TAILROOM: usize = 16;
/// Bytes before what is received into a small block, where they are left free: with the room of the endpoint's head behind them, the head
/// of the response is written there, so that head and body go on in one piece and the body is not moved.
pub const HEADROOM: usize = 128;

/// Bytes on their way; `bytes[start..]` is unread. A single pointer, because blocks are handed on at every step of a request, and `None`
/// when there is no memory behind it, as in the one that is left where a block was taken.
#[derive(Debug, Default)]
pub struct Block {
    body: Option<Box<Body>>,
}

#[derive(Debug, Default)]
struct Body {
    bytes: Vec<u8>,
    start: usize,
    /// The size it was made with for a worker's stock; 0: not for one.
    made_bytes: usize,
}

static EMPTY: Body = Body { bytes: Vec::new(), start: 0, made_bytes: 0 };

thread_local! {
    /// Those of [`BULK_BLOCKS_MAX`] that this worker has.
    static BULK_BLOCKS: Cell<usize> = const { Cell::new(0) };
    /// Bytes of all blocks that were made for this worker's stock, in it or lent.
    static MADE_BYTES: Cell<usize> = const { Cell::new(0) };
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.made_bytes > 0 {
            MADE_BYTES.set(MADE_BYTES.get() - self.made_bytes);
            BULK_BLOCKS.set(BULK_BLOCKS.get() - usize::from(self.made_bytes == BULK));
        }
    }
}

impl Block {
    /// An empty block over `bytes`' memory.
    #[must_use]
    pub fn from_vec(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { body: Some(Box::new(Body { bytes, start: 0, made_bytes: 0 })) }
    }

    /// One for a worker's stock.
    fn make(bytes: usize) -> Self {
        let mut block = Self::from_vec(Vec::with_capacity(bytes));
        block.body_mut().made_bytes = bytes;
        MADE_BYTES.set(MADE_BYTES.get() + bytes);
        block
    }

    /// What has not been read yet.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        let Body { bytes, start, .. } = self.body();
        &bytes[*start..]
    }

    /// The same, to be changed in place.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        match &mut self.body {
            Some(body) => &mut body.bytes[body.start..],
            None => &mut [],
        }
    }

    /// Everything, read or not.
    #[must_use]
    pub fn all(&self) -> &[u8] {
        &self.body().bytes
    }

    /// Marks `count` more bytes as read; the memory is used again once all are.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.unread().len(), "consumed more than there is");
        if let Some(body) = &mut self.body {
            body.start += count;
        }
    }

    /// Marks everything as read and forgets it.
    pub fn clear(&mut self) {
        if let Some(body) = &mut self.body {
            body.bytes.clear();
            body.start = 0;
        }
    }

    /// Makes `range` of [`Block::all`] the unread part and forgets what lies behind it.
    pub fn set_unread(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.all().len(), "a range outside of the block");
        if let Some(body) = &mut self.body {
            body.bytes.truncate(range.end);
            body.start = range.start;
        }
    }

    /// Empties the block and leaves `headroom` bytes before what will be appended, to be written later.
    pub fn clear_with_headroom(&mut self, headroom: usize) {
        let Body { bytes, start, .. } = self.body_mut();
        bytes.clear();
        bytes.resize(headroom, 0);
        *start = headroom;
    }

    /// Writes `head` right before the unread part, over what was read before; it is unread then. False if it does not fit there.
    #[must_use]
    pub fn put_before(&mut self, head: &[u8]) -> bool {
        let Body { bytes, start, .. } = self.body_mut();
        let Some(at) = start.checked_sub(head.len()) else { return false };
        bytes[at..*start].copy_from_slice(head);
        *start = at;
        true
    }

    /// Where the unread part lies in [`Block::all`].
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.consumed()..self.all().len()
    }

    /// How much of the block has been read.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.body().start
    }

    /// Marks everything as unread again, so that it can be sent once more.
    pub fn rewind(&mut self) {
        if let Some(body) = &mut self.body {
            body.start = 0;
        }
    }

    /// Leaves nothing unread, and keeps what there was.
    pub fn consume_all(&mut self) {
        self.consume(self.unread().len());
    }

    /// The vector, to be appended to by an encoder.
    pub fn vec_mut(&mut self) -> &mut Vec<u8> {
        &mut self.body_mut().bytes
    }

    /// Bytes that a receive may append: all that is free but [`TAILROOM`].
    #[must_use]
    pub fn room(&self) -> usize {
        let Body { bytes, .. } = self.body();
        (bytes.capacity() - bytes.len()).saturating_sub(TAILROOM)
    }

    /// Bytes of its memory.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.body().bytes.capacity()
    }

    /// True for a block that can hold a large piece.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.body().bytes.capacity() >= BLOCK_LARGE
    }

    /// True for a block of the largest size.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        self.body().bytes.capacity() >= BLOCK_BULK
    }

    /// Moves the unread bytes to the front, so that the room behind them is as large as it can be.
    pub fn compact(&mut self) {
        if let Some(Body { bytes, start, .. }) = self.body.as_deref_mut()
            && *start > 0
        {
            bytes.drain(..*start);
            *start = 0;
        }
    }

    /// True when nothing is unread.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unread().is_empty()
    }

    fn body(&self) -> &Body {
        self.body.as_deref().unwrap_or(&EMPTY)
    }

    fn body_mut(&mut self) -> &mut Body {
        self.body.get_or_insert_default()
    }
}

// SAFETY: the vector's memory does not move while monoio owns the block (the block is not touched until it is given back), the
// unread range is initialised, and `start <= len` always.
unsafe impl IoBuf for Block {
    fn read_ptr(&self) -> *const u8 {
        self.unread().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.unread().len()
    }
}

// SAFETY: the pointer and the size describe the vector's spare capacity, which is owned and does not move (see above).
// `set_init` is called with the number of bytes that the kernel has written there.
unsafe impl IoBufMut for Block {
    fn write_ptr(&mut self) -> *mut u8 {
        self.vec_mut().spare_capacity_mut().as_mut_ptr().cast()
    }

    fn bytes_total(&mut self) -> usize {
        self.room()
    }

    unsafe fn set_init(&mut self, received: usize) {
        let bytes = self.vec_mut();
        // SAFETY: the caller has written `received` bytes behind the last one.
        unsafe { bytes.set_len(bytes.len() + received) };
    }
}

const SMALL: usize = HEADROOM + BLOCK_SMALL + TAILROOM;
const LARGE: usize = BLOCK_LARGE + TAILROOM;
const BULK: usize = BLOCK_BULK + TAILROOM;

/// A worker's stock of blocks, by size; what comes back beyond [`BLOCKS_KEPT_BYTES`] is freed.
#[derive(Debug, Default)]
pub struct Blocks {
    small: Stock,
    large: Stock,
    bulk: Stock,
    /// Small ones that the kernel has, to be filled with what arrives next.
    given: usize,
}

/// Places for blocks that a stock keeps even when it is empty (512 bytes), so that the places of a small steady load are not freed with
/// one beat and made again with the next.
const STOCK_ROOM: usize = 64;

/// Blocks of one size.
#[derive(Debug, Default)]
struct Stock {
    blocks: Vec<Block>,
    /// The fewest there were since the last trim: so many were not needed.
    low: usize,
}

impl Stock {
    fn take(&mut self) -> Option<Block> {
        let block = self.blocks.pop();
        self.low = self.low.min(self.blocks.len());
        block
    }

    fn trim(&mut self) {
        self.blocks.truncate(self.blocks.len() - self.low.div_ceil(2).min(self.blocks.len()));
        self.blocks.shrink_to((2 * self.blocks.len()).max(STOCK_ROOM));
        self.low = self.blocks.len();
    }
}

impl Blocks {
    /// A block of [`BLOCK_SMALL`] bytes, and [`HEADROOM`].
    pub fn small(&mut self) -> Block {
        self.small.take().unwrap_or_else(|| Block::make(SMALL))
    }

    /// The same, with [`HEADROOM`] before what will be received.
    pub fn small_with_headroom(&mut self) -> Block {
        let mut block = self.small();
        block.clear_with_headroom(HEADROOM);
        block
    }

    /// A block of [`BLOCK_LARGE`] bytes.
    pub fn large(&mut self) -> Block {
        self.large.take().unwrap_or_else(|| Block::make(LARGE))
    }

    /// A block of [`BLOCK_BULK`] bytes, unless [`BULK_BLOCKS_MAX`] are in use.
    pub fn bulk(&mut self) -> Option<Block> {
        self.bulk.take().or_else(|| {
            let count = BULK_BLOCKS.get();
            if count >= BULK_BLOCKS_MAX {
                return None;
            }
            BULK_BLOCKS.set(count + 1);
            Some(Block::make(BULK))
        })
    }

    /// Gives a block back. One that grew to neither size is freed: growth is rare and must not be kept.
    pub fn put(&mut self, mut block: Block) {
        block.clear();
        let bytes = block.body().bytes.capacity();
        let kept = self.kept_bytes() + bytes <= BLOCKS_KEPT_BYTES;
        match bytes {
            SMALL if kept => self.small.blocks.push(block),
            LARGE if kept => self.large.blocks.push(block),
            BULK if kept => self.bulk.blocks.push(block),
            _ => {}
        }
    }

    /// Bytes in stock.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.small.blocks.len() * SMALL + self.large.blocks.len() * LARGE + self.bulk.blocks.len() * BULK
    }

    /// Bytes of the blocks that connections have, as they were made.
    #[must_use]
    pub fn lent_bytes(&self) -> usize {
        MADE_BYTES.get().saturating_sub(self.kept_bytes() + self.given * SMALL)
    }

    /// So many small ones the kernel has for what it will receive; nobody uses them yet.
    pub fn set_given(&mut self, count: usize) {
        self.given = count;
    }

    /// Frees half of what was not needed since the last call, so that a burst's memory goes back and a steady load's does not.
    pub fn trim(&mut self) {
        self.small.trim();
        self.large.trim();
        self.bulk.trim();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receive_appends_and_a_send_takes_what_is_unread() {
        let mut block = Blocks::default().small();
        block.vec_mut().extend_from_slice(b"abc");
        block.consume(1);
        assert_eq!(block.bytes_init(), 2);
        // SAFETY: two bytes are written at the write pointer, inside the room.
        unsafe {
            block.write_ptr().copy_from_nonoverlapping(b"de".as_ptr(), 2);
            block.set_init(2);
        }
        assert_eq!(block.unread(), b"bcde");
        block.compact();
        assert_eq!((block.all(), block.room()), (&b"bcde"[..], HEADROOM + BLOCK_SMALL - 4));
    }

    #[test]
    fn a_head_goes_over_what_was_read_and_not_beyond() {
        let mut block = Blocks::default().small_with_headroom();
        assert!(block.is_empty() && block.room() == BLOCK_SMALL);
        block.vec_mut().extend_from_slice(b"readbody");
        block.consume(4);
        assert!(!block.put_before(&[b'x'; HEADROOM + 5]), "one more than there is");
        assert_eq!(block.unread(), b"body");
        assert!(block.put_before(&[b'x'; HEADROOM + 4]));
        assert_eq!(block.unread(), [&[b'x'; HEADROOM + 4][..], b"body"].concat());
        assert!(!block.put_before(b"y") && block.put_before(b""));
        assert!(!Block::default().put_before(b"y"));
    }

    #[test]
    fn the_stock_is_bounded_and_keeps_only_its_sizes() {
        let mut blocks = Blocks::default();
        for _ in 0..2 * BLOCKS_KEPT_BYTES / BLOCK_LARGE {
            blocks.put(Block::from_vec(Vec::with_capacity(LARGE)));
        }
        assert!(blocks.kept_bytes() <= BLOCKS_KEPT_BYTES);
        let full = blocks.kept_bytes();
        blocks.trim();
        assert_eq!(blocks.kept_bytes(), full, "all of it came since the last trim");
        blocks.trim();
        let half = blocks.kept_bytes();
        assert!(half <= full / 2 + LARGE);
        blocks.put(Block::from_vec(Vec::with_capacity(LARGE + 1)));
        assert_eq!(blocks.kept_bytes(), half);
    }

    #[test]
    fn what_is_lent_is_known_until_it_comes_back_or_is_dropped() {
        let mut blocks = Blocks::default();
        let (small, large) = (blocks.small(), blocks.large());
        assert_eq!((blocks.lent_bytes(), blocks.kept_bytes()), (SMALL + LARGE, 0));
        blocks.put(small);
        assert_eq!((blocks.lent_bytes(), blocks.kept_bytes()), (LARGE, SMALL));
        let given = blocks.small();
        blocks.set_given(1);
        assert_eq!(blocks.lent_bytes(), LARGE);
        drop((large, given));
        blocks.set_given(0);
        assert_eq!(blocks.lent_bytes(), 0);
    }

    #[test]
    fn there_are_few_bulk_blocks_and_one_that_is_dropped_makes_room() {
        let mut blocks = Blocks::default();
        let mut all: Vec<_> = std::iter::from_fn(|| blocks.bulk()).collect();
        assert_eq!(all.len(), BULK_BLOCKS_MAX);
        assert!(all.iter().all(|block| block.is_bulk() && block.room() == BLOCK_BULK));
        drop(all.pop());
        all.extend(blocks.bulk());
        assert!(all.len() == BULK_BLOCKS_MAX && blocks.bulk().is_none());
        blocks.put(all.pop().unwrap());
        assert!(blocks.bulk().is_some(), "from the stock");
        drop((all, blocks));
        assert_eq!(BULK_BLOCKS.get(), 0);
    }
}
