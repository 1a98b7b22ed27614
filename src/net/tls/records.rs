//! What a session has in hand: the connection, records that were received and not read, and such that were made and not sent.

use super::super::block::{Block, Blocks};
use super::super::engine::{self, Engine};
use super::super::stream::Received;
use crate::limits::{BLOCK_LARGE, BLOCK_SMALL};
use rustls::{AlertDescription, Connection, Error, InvalidMessage};
use std::fmt;
use std::io::{self, BufRead as _, Write as _};

/// The most that a record carries (RFC 8446 §5.1).
const FRAGMENT_BYTES: usize = 16 << 10;
/// What a record has around that, at most: its header, an explicit nonce (TLS 1.2), the tag, the type.
pub(super) const OVERHEAD_BYTES: usize = 32;
/// The most that a peer may send after its last byte of plaintext without another one: the largest record, and tickets and keys besides. Empty
/// records cost as much to open as small ones, and nobody would ever be done with them (RFC 8446 §5.1 allows them, and OpenSSL takes 32).
const BARREN_BYTES_MAX: usize = 64 << 10;
/// Room for what the connection has to say itself: a new key, a ticket, the end.
const OWN_BYTES: usize = 128;

/// What every further receive comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer has said that this was all.
    Closed,
    /// It has ended the connection without that.
    Cut,
    /// The socket has failed, with this error of the kernel's, if it was one.
    Broken(Option<i32>),
    /// What it sent is not TLS, or not ours.
    Forged,
}

impl End {
    fn result(self) -> io::Result<usize> {
        Err(match self {
            Self::Closed => return Ok(0),
            Self::Cut => io::ErrorKind::UnexpectedEof.into(),
            Self::Broken(None) => io::ErrorKind::Other.into(),
            Self::Broken(Some(errno)) => io::Error::from_raw_os_error(errno),
            Self::Forged => io::ErrorKind::InvalidData.into(),
        })
    }
}

/// See the module.
pub(super) struct Records {
    pub(super) connection: Connection,
    /// Received and not read.
    unread: Block,
    /// Made and not sent.
    pub(super) unsent: Block,
    pub(super) end: Option<End>,
    has_said_end: bool,
    /// What the peer has ended it with.
    pub(super) alert: Option<AlertDescription>,
    /// Read since the last byte of plaintext, once the handshake was over.
    barren: usize,
    /// Sent since the last byte was received: plaintext, and what has become of it on the wire.
    sent: (usize, usize),
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("end", &self.end).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl Records {
    pub(super) fn new(mut connection: Connection) -> Self {
        // it is never given more than goes out at once
        connection.set_buffer_limit(Some(2 * (FRAGMENT_BYTES + OWN_BYTES)));
        Self {
            connection,
            unread: Block::default(),
            unsent: Block::default(),
            end: None,
            has_said_end: false,
            alert: None,
            barren: 0,
            sent: (0, 0),
        }
    }

    /// Takes what the socket has brought.
    pub(super) fn take_in(&mut self, (received, block): Received) {
        match received {
            Ok(1..) if self.end.is_none() && self.unread.is_empty() => {
                give(std::mem::replace(&mut self.unread, block));
                return;
            }
            Ok(1..) if self.end.is_none() => self.unread.vec_mut().extend_from_slice(block.unread()),
            Ok(1..) => {}
            Ok(0) => self.end = self.end.or(Some(End::Cut)),
            Err(error) => self.end = self.end.or(Some(End::Broken(error.raw_os_error()))),
        }
        give(block);
    }

    /// Whether records are in hand that were not read.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.unread.unread()
    }

    /// Reads records until one has brought something, or none is left.
    ///
    /// # Errors
    /// They are none of this connection.
    pub(super) fn read(&mut self) -> Result<(), rustls::Error> {
        while !self.unread.is_empty() && !self.has_plaintext() {
            let mut rest = self.unread.unread();
            // it takes some 4 KiB at once, and refuses nothing while it holds no plaintext
            let taken = self.connection.read_tls(&mut rest).unwrap_or_default();
            self.unread.consume(taken);
            let state = self.connection.process_new_packets();
            let has_closed = state.as_ref().is_ok_and(|state| state.peer_has_closed());
            let is_barren = state.as_ref().is_ok_and(|state| state.plaintext_bytes_to_read() == 0);
            // a handshake is bounded by what it consists of
            let counts = is_barren && !self.connection.is_handshaking();
            self.barren = if counts { self.barren + taken } else { 0 };
            if state.is_err() || taken == 0 || has_closed || self.barren > BARREN_BYTES_MAX {
                give(std::mem::take(&mut self.unread));
                self.end = Some(if has_closed { End::Closed } else { End::Forged });
            }
            if let Err(Error::AlertReceived(alert)) = state {
                self.alert = Some(alert);
            }
            state?;
            if taken == 0 && !has_closed {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
        }
        if self.unread.is_empty() {
            give(std::mem::take(&mut self.unread));
        }
        Ok(())
    }

    fn has_plaintext(&mut self) -> bool {
        self.connection.reader().fill_buf().is_ok_and(|bytes| !bytes.is_empty())
    }

    /// Whether a receive would be over at once.
    pub(super) fn is_ready(&mut self) -> bool {
        let _told_by_end = self.read();
        self.has_plaintext() || self.end.is_some()
    }

    /// Hands out what was decrypted, as much as fits into the block that somebody has brought, or into a small one; `None`: there is nothing.
    pub(super) fn hand_out(&mut self, into: &mut Option<Block>) -> Option<Received> {
        let mut count = 0;
        loop {
            let _told_by_end = self.read();
            let mut reader = self.connection.reader();
            let Ok(bytes @ [_, ..]) = reader.fill_buf() else { break };
            let block = into.get_or_insert_default();
            if block.room() == 0 && block.all().is_empty() {
                give(std::mem::replace(block, small_block()));
            }
            let taken = bytes.len().min(block.room());
            debug_assert!(taken > 0 || count > 0, "a receive without room looks like the peer's end");
            if taken == 0 {
                break;
            }
            block.vec_mut().extend_from_slice(&bytes[..taken]);
            reader.consume(taken);
            count += taken;
        }
        if count > 0 {
            self.sent = (0, 0);
            return Some((Ok(count), into.take().unwrap_or_default()));
        }
        self.end.map(|end| (end.result(), into.take().unwrap_or_default()))
    }

    /// Makes records of what is unread in `block`, as many as go out at once; `ends`: and of the end, behind the last byte. Empty: that is all.
    pub(super) fn seal(&mut self, block: &mut Block, ends: bool) -> Block {
        if !self.unsent.is_empty() {
            return std::mem::take(&mut self.unsent);
        }
        if block.is_empty() && !self.connection.wants_write() && (!ends || self.has_said_end) {
            return Block::default();
        }
        let mut out = block_for(block.unread().len());
        let mut sealed = 0;
        loop {
            while self.connection.wants_write() {
                if !matches!(self.connection.write_tls(&mut Room(&mut out)), Ok(1..)) {
                    break;
                }
            }
            let room = out.room().saturating_sub(OVERHEAD_BYTES + OWN_BYTES);
            let piece = block.unread().len().min(FRAGMENT_BYTES).min(room);
            if self.connection.wants_write() || (piece == 0 && !block.is_empty()) {
                break;
            }
            if piece == 0 {
                if !ends || std::mem::replace(&mut self.has_said_end, true) {
                    break;
                }
                self.connection.send_close_notify();
                continue;
            }
            let written = self.connection.writer().write(&block.unread()[..piece]).unwrap_or_default();
            block.consume(written);
            sealed += written;
            if written == 0 {
                break;
            }
        }
        self.sent = (self.sent.0 + sealed, self.sent.1 + out.unread().len());
        out
    }

    /// Bytes on the wire of the last `plaintext` bytes that were sent, and perhaps of some before them; `None`: something was received since.
    pub(super) fn wire_bytes(&self, plaintext: usize) -> Option<usize> {
        (self.sent.0 >= plaintext).then_some(self.sent.1)
    }
}

/// What a block has room for, to be written to.
struct Room<'a>(&'a mut Block);

impl io::Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0.room());
        self.0.vec_mut().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A block for the records of so many bytes, or of as many as go out at once.
fn block_for(bytes: usize) -> Block {
    let wire = bytes + bytes.div_ceil(FRAGMENT_BYTES) * OVERHEAD_BYTES + 2 * (OVERHEAD_BYTES + OWN_BYTES);
    of_stock(|blocks| match wire {
        ..BLOCK_SMALL => blocks.small(),
        BLOCK_SMALL..BLOCK_LARGE => blocks.large(),
        _ => blocks.bulk().unwrap_or_else(|| blocks.large()),
    })
}

pub(super) fn small_block() -> Block {
    of_stock(Blocks::small_with_headroom)
}

/// A block for what is received, as large as the one that its plaintext goes into.
pub(super) fn block_like(into: &Block) -> Block {
    of_stock(|blocks| match into {
        _ if into.is_bulk() => blocks.bulk().unwrap_or_else(|| blocks.large()),
        _ if into.is_large() => blocks.large(),
        _ => blocks.small(),
    })
}

/// Gives a block back to where it came from.
pub(in super::super) fn give(block: Block) {
    if block.room() > 0 || !block.all().is_empty() {
        of_stock(|blocks| blocks.put(block));
    }
}

/// Bytes of blocks that are not in this thread's stock.
#[cfg(test)]
pub(super) fn lent_bytes() -> usize {
    of_stock(|blocks| blocks.lent_bytes())
}

fn of_stock<T>(ask: impl FnOnce(&mut Blocks) -> T) -> T {
    match engine::current() {
        Some(Engine::Ring(ring)) => ask(&mut ring.stock.borrow_mut()),
        Some(Engine::Epoll(epoll)) => ask(&mut epoll.stock.borrow_mut()),
        // guests have blocks of their own
        None => ask(&mut Blocks::default()),
    }
}
