//! How an instance is told what to do: one line of text in, one line of JSON out.
//!
//! | line | does | answer |
//! |---|---|---|
//! | a [`Fault`]: `slow 200ms`, `fine` … | switches to it | `{"fault":"slow 200ms"}` |
//! | `counters` | – | [`Counters`] as JSON |
//! | `die` | answers, and is killed (SIGKILL) before it does anything else: the counters are its last | [`Counters`] as JSON |
//! | anything else | – | `{"error":"…"}` |

use rustix::io::{Errno, read, write};
use serde_json::json;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::counters::Counters;
use super::fault::Fault;

/// Longest line.
const LINE_BYTES_MAX: usize = 4096;

/// Where lines come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Nowhere: it goes on as it began.
    None,
    /// Standard input; answers go to standard output, the first, `{"listening":"127.0.0.1:9001"}`, when it listens. The end of standard
    /// input ends the instance.
    Stdio,
    /// Anyone who connects to the Unix socket of this path, which is made and removed.
    Unix(PathBuf),
}

/// What a line asks for.
pub(super) enum Order {
    Fault(Fault),
    Counters,
    Die,
}

/// Who tells.
pub(super) struct Teller {
    input: OwnedFd,
    output: OwnedFd,
    line: Vec<u8>,
}

/// A Unix socket, which is removed with this.
pub(super) struct Door {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl Teller {
    /// Standard input and output.
    pub(super) fn stdio() -> io::Result<Self> {
        let (input, output) = (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self { input, output, line: Vec::new() })
    }

    /// Somebody who has connected. What they do not read is lost to them.
    pub(super) fn connected(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { input: stream.try_clone()?.into(), output: stream.into(), line: Vec::new() })
    }

    /// Where lines come from.
    pub(super) fn input(&self) -> &OwnedFd {
        &self.input
    }

    /// Reads once, and gives the whole lines there are; `None`: it has ended, or does not speak in lines.
    pub(super) fn lines(&mut self) -> Option<Vec<String>> {
        let mut bytes = [0; LINE_BYTES_MAX];
        match read(&self.input, &mut bytes) {
            Ok(0) => return None,
            Ok(length) => self.line.extend_from_slice(&bytes[..length]),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(_) => return None,
        }
        let mut lines = Vec::new();
        while let Some(end) = self.line.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
        }
        (self.line.len() < LINE_BYTES_MAX).then_some(lines)
    }

    /// Says a line; whether it was heard.
    pub(super) fn say(&self, line: &str) -> bool {
        let line = format!("{line}\n");
        let mut left = line.as_bytes();
        while !left.is_empty() {
            match write(&self.output, left) {
                Ok(written) => left = &left[written..],
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }
}

impl Door {
    /// Makes the socket. One that nobody listens on any more is replaced.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let explained = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
        if is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
            std::fs::remove_file(path).map_err(explained)?;
        }
        let listener = UnixListener::bind(path).map_err(explained)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // somebody else may have removed it
        let _ = std::fs::remove_file(&self.path);
    }
}

impl std::str::FromStr for Order {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        match line {
            "counters" => Ok(Self::Counters),
            "die" => Ok(Self::Die),
            _ => line.parse().map(Self::Fault).map_err(|error| format!("{error}; or counters, or die")),
        }
    }
}

/// The answer to a fault.
pub(super) fn acknowledgement(fault: Fault) -> String {
    json!({ "fault": fault.to_string() }).to_string()
}

/// The answer to `counters`.
pub(super) fn numbers(counters: &Counters) -> String {
    json!(counters).to_string()
}

/// The answer to what is no order.
pub(super) fn complaint(error: &str) -> String {
    json!({ "error": error }).to_string()
}

/// What is said first.
pub(super) fn greeting(address: std::net::SocketAddr) -> String {
    json!({ "listening": address }).to_string()
}
