//! Secrets of sessions, written to a file for those who have to read what was said (Wireshark): RFC 9850's format, which NSS has made known.
//!
//! Whoever has the file can read everything. It is written where the configuration names it and nowhere else, readable for the owner alone.
//! Handshakes do not wait for the disk: lines go through a bounded queue to a thread that begins with the first of them, and one for which
//! there is no room is lost, which is told.

use rustls::KeyLog;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Lines that wait for the disk: five a handshake, of 200 bytes.
const LINES_MAX: usize = 4_096;

/// A file of secrets.
pub struct KeyLogFile {
    path: PathBuf,
    queue: OnceLock<SyncSender<String>>,
    has_lost: AtomicBool,
}

impl KeyLogFile {
    /// At this path; it is opened with the first secret.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, queue: OnceLock::new(), has_lost: AtomicBool::new(false) }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn queue(&self) -> &SyncSender<String> {
        self.queue.get_or_init(|| {
            let (queue, lines) = sync_channel(LINES_MAX);
            let path = self.path.clone();
            let spawned = std::thread::Builder::new().name("key-log".to_owned()).spawn(move || write(&path, &lines));
            if let Err(error) = spawned {
                tracing::error!("key_log {}: no thread to write it: {error}", self.path.display());
            }
            queue
        })
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyLogFile").field(&self.path).finish()
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        push_hex(&mut line, client_random);
        line.push(' ');
        push_hex(&mut line, secret);
        line.push('\n');
        if self.queue().try_send(line).is_err() && !self.has_lost.swap(true, Ordering::Relaxed) {
            tracing::error!("key_log {}: lines are lost", self.path.display());
        }
    }
}

fn push_hex(line: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _infallible = write!(line, "{byte:02x}");
    }
}

/// Until the rules that it is for are nobody's any more.
fn write(path: &Path, lines: &Receiver<String>) {
    let written = open(path).and_then(|mut file| lines.iter().try_for_each(|line| file.write_all(line.as_bytes())));
    if let Err(error) = written {
        tracing::error!("key_log {}: {error}: no more lines are written", path.display());
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    #[test]
    fn lines_are_written_for_the_owner_alone_and_nothing_before_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let log = KeyLogFile::new(path.clone());
        assert!(!path.exists());
        log.log("CLIENT_RANDOM", &[0, 255], &[16]);
        log.log("EXPORTER_SECRET", &[1], &[2]);
        let read = || std::fs::read_to_string(&path).unwrap_or_default();
        for _ in 0..12_000 {
            if read().lines().count() == 2 {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let text = read();
        assert_eq!(text, "CLIENT_RANDOM 00ff 10\nEXPORTER_SECRET 01 02\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
