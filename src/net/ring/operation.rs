//! What the kernel has been asked to do, and what has come of it so far.

use super::super::block::Block;
use crate::limits::PIECES_AHEAD;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::task::Waker;

/// A row of the ring's slab. A result is a count of bytes, a mask of events, or a negated error number.
pub(super) enum Operation {
    /// Receive again and again, into blocks that the kernel chooses.
    Listen(Pieces),
    /// Receive once, into this block.
    Receive { block: Option<Block>, result: Option<i32>, waker: Option<Waker> },
    /// Send what is unread in the block, as much as is taken.
    Send { block: Block, result: Option<i32>, waker: Option<Waker> },
    /// Send all of the block, about which nobody asks; `None` when it is done. `waits`: the kernel did not take it at once.
    Post { block: Option<Block>, fd: RawFd, waits: bool, waker: Option<Waker> },
    /// Wait until something can be done.
    Poll { result: Option<i32>, waker: Option<Waker> },
    /// Nobody waits any more; the kernel may still use the block.
    Abandoned(Option<Block>),
}

impl Operation {
    /// Whether the kernel has not let go of it.
    pub(super) fn is_in_flight(&self) -> bool {
        match self {
            Self::Listen(pieces) => pieces.in_flight,
            Self::Receive { result, .. } | Self::Send { result, .. } | Self::Poll { result, .. } => result.is_none(),
            Self::Post { block, .. } => block.is_some(),
            Self::Abandoned(_) => true,
        }
    }

    /// Whether a receive, of either kind, would be over at once.
    pub(super) fn is_readable(&self) -> bool {
        match self {
            Self::Listen(pieces) => pieces.first.is_some() || !pieces.in_flight,
            other => !other.is_in_flight(),
        }
    }

    /// Whether it is over and says nothing about the peer: listening was called off, or there was no buffer.
    pub(super) fn is_void(&self) -> bool {
        matches!(self, Self::Listen(pieces) if !pieces.in_flight && pieces.first.is_none() && pieces.end.is_none())
    }

    /// Blocks that were received by listening, and not read yet.
    pub(super) fn pieces(&self) -> usize {
        match self {
            Self::Listen(pieces) => pieces.first.iter().len() + pieces.more.as_ref().map_or(0, |more| more.len()),
            _ => 0,
        }
    }

    /// Puts the rest of the piece back that was taken last.
    pub(super) fn push_front(&mut self, piece: Block) {
        if let Self::Listen(pieces) = self {
            pieces.push_front(piece);
        }
    }

    /// Where to put the waker of who waits.
    pub(super) fn waker(&mut self) -> Option<&mut Option<Waker>> {
        match self {
            Self::Listen(pieces) => Some(&mut pieces.waker),
            Self::Receive { waker, .. }
            | Self::Send { waker, .. }
            | Self::Post { waker, .. }
            | Self::Poll { waker, .. } => Some(waker),
            Self::Abandoned(_) => None,
        }
    }
}

/// What a socket that is listened to has received.
#[derive(Default)]
pub(super) struct Pieces {
    /// The oldest; nearly always the only one.
    first: Option<Block>,
    #[expect(
        clippy::box_collection,
        reason = "a connection that is ahead is rare, and this row is as large as its largest part"
    )]
    more: Option<Box<VecDeque<Block>>>,
    /// How the connection ended: 0 for the peer's end, or an error; `None` when the kernel has only stopped listening.
    end: Option<i32>,
    in_flight: bool,
    /// It was called off.
    pub(super) is_cancelled: bool,
    waker: Option<Waker>,
}

/// What a socket that is listened to has for who reads.
pub(super) enum Next {
    Piece(Block),
    /// Nothing more will come, for the reason in `Pieces`.
    Over(Option<i32>),
    Nothing,
}

impl Pieces {
    /// As it is submitted.
    pub(super) fn new() -> Self {
        Self { in_flight: true, ..Self::default() }
    }

    pub(super) fn push(&mut self, block: Block) {
        match &self.first {
            None => self.first = Some(block),
            Some(_) => self.more.get_or_insert_default().push_back(block),
        }
    }

    fn push_front(&mut self, block: Block) {
        if let Some(second) = self.first.replace(block) {
            self.more.get_or_insert_default().push_front(second);
        }
    }

    pub(super) fn next(&mut self) -> Next {
        let Some(block) = self.first.take() else {
            return if self.in_flight { Next::Nothing } else { Next::Over(self.end) };
        };
        self.first = self.more.as_mut().and_then(|more| more.pop_front());
        Next::Piece(block)
    }

    /// Takes a completion down; true when the peer is too far ahead of whoever reads, so that the operation is to be cancelled.
    pub(super) fn on_completion(&mut self, result: i32, more: bool) -> bool {
        self.in_flight = more;
        if !more && result <= 0 && !is_void(result) {
            self.end = Some(result);
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        let ahead = self.more.as_ref().map_or(0, |more| more.len() + 1);
        more && ahead > PIECES_AHEAD && !std::mem::replace(&mut self.is_cancelled, true)
    }

    pub(super) fn into_blocks(self) -> impl Iterator<Item = Block> {
        self.first.into_iter().chain(self.more.into_iter().flat_map(|more| *more))
    }
}

/// Whether a receive's result says nothing about the connection, so that another is to be asked.
pub(super) fn is_void(result: i32) -> bool {
    matches!(-result, libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN)
}
