//! The access log: one line per request, written by a thread of its own.
//!
//! A worker packs a [`LogRecord`] into its own ring of bytes ([`ring`]) and goes on; the log's thread (`writer`) empties all
//! rings about every 50 ms, gives ids their names, redacts, formats (`format`) and writes in large pieces. When the thread is
//! behind (a full disk, a reader that does not read), rings fill, lines are dropped and counted, and no request waits.
//!
//! What this does not do: keep the order of lines between workers; every line carries its time.

pub mod chosen;
pub mod ring;

mod dates;
mod format;
mod record;
mod writer;

pub use record::{LogRecord, LogTls};
pub use ring::{LogRing, LogSender};
pub use writer::AccessLogThread;
