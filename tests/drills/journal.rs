//! What a service acted on, in a file that survives its killing.
//!
//! One record of fixed size is appended per request with one write, before the answer. What was written is in the kernel's hands, so a
//! `kill -9` loses none, and a service that is started again continues the file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::clock::Moment;

const RECORD_BYTES: usize = 19;

/// One request that a service has read whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The number that the load gave the request.
    pub(crate) id: u64,
    /// When it was read.
    pub(crate) at: Moment,
    /// What it is answered.
    pub(crate) status: u16,
    /// A POST; else a GET.
    pub(crate) is_post: bool,
}

impl Entry {
    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        let at_us = u64::try_from(self.at.as_micros()).unwrap_or(u64::MAX);
        bytes[8..16].copy_from_slice(&at_us.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.status.to_le_bytes());
        bytes[18] = u8::from(self.is_post);
        bytes
    }

    fn from_bytes(bytes: [u8; RECORD_BYTES]) -> Self {
        let [.., low, high, post] = bytes;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|offset| bytes[at + offset]));
        Self {
            id: number(0),
            at: Duration::from_micros(number(8)),
            status: u16::from_le_bytes([low, high]),
            is_post: post == 1,
        }
    }
}

/// The service's end.
pub(crate) struct Journal(File);

impl Journal {
    /// Continues the file at `path`, or begins it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    /// Writes one record down.
    pub(crate) fn append(&self, entry: Entry) -> io::Result<()> {
        (&self.0).write_all(&entry.to_bytes())
    }
}

/// All that was written so far; none if the service never ran.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    let whole = bytes.as_chunks::<RECORD_BYTES>().0;
    Ok(whole.iter().map(|record| Entry::from_bytes(*record)).collect())
}
