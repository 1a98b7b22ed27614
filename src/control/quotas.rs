//! Quotas over a restart: what was taken is written to a file each second, and read when the gateway begins.
//!
//! The file is written beside its place and renamed into it, so that there is a whole one at any time; what it says is counted to the
//! second of UTC, so it needs no clock of the process that wrote it. It begins with what it is and in which version, and ends with a checksum:
//! one that is damaged, or of another version, is left out with a warning, because a gateway that does not start is worse than a quota that
//! begins anew. It has the secret of its keys in it, so only its owner may read it.
//!
//! Who is killed loses what was taken since the last look, and while that was written: two seconds.

use crate::limits::QUOTA_TABLE_LINES;
use crate::net::clock;
use crate::policy::key_table::Debts;
use crate::units::Instant;
use crate::worker::Shared;
use siphasher::sip::SipHasher13;
use std::fs::{self, OpenOptions};
use std::hash::Hasher as _;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Between two looks at what was taken.
const EVERY: Duration = Duration::from_secs(1);
/// What the file is, and its version.
const MAGIC: &[u8; 16] = b"ringgate quota 1";
/// Magic, the secret, and how many clients there are.
const HEAD: usize = MAGIC.len() + 3 * WORD;
const WORD: usize = size_of::<u64>();
/// Of a client: its key, and until when how much.
const CLIENT: usize = 2 * WORD;
/// A file that is longer is none of ours: the clients of a whole table.
const BYTES_MAX: usize = HEAD + QUOTA_TABLE_LINES * 4 * CLIENT + WORD;

/// Goes on with what the file says, if there is one.
pub(super) fn load(shared: &Shared) {
    let Some(path) = &shared.config.gateway.quota_file else { return };
    match read(path).map(|bytes| decode(&bytes)) {
        Ok(Ok(taken)) => {
            tracing::info!("quotas go on: file={} clients={}", path.display(), taken.clients.len());
            shared.take_on_quotas(taken, clock::wall().as_secs());
        }
        Ok(Err(why)) => tracing::warn!("quotas begin anew: {} {why}", path.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("quotas begin anew: {} cannot be read: {error}", path.display()),
    }
}

/// What the file says, which is no pipe that never ends, and no more than it could ever be.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Keeps quotas where a restart finds them.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    next: Instant,
    /// Of what was written last.
    written: u64,
    /// … and where.
    path: Option<PathBuf>,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// The last write came to nothing, which was said.
    fails: bool,
}

impl Keeper {
    /// Begins to write what was taken, when it is time and something was; on a thread that may wait for a disk.
    pub(super) async fn look(&mut self, shared: &Arc<Shared>, now: Instant) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle().await;
        }
        let Some(path) = of(shared).filter(|_| now >= self.next && self.writing.is_none()) else { return };
        self.next = now + EVERY;
        if let Some(bytes) = self.changed(shared, &path) {
            self.writing = Some(tokio::task::spawn_blocking(move || write(&path, &bytes)));
        }
    }

    /// Waits until nothing is written any more: another process may write there from now on.
    pub(super) async fn settle(&mut self) {
        if let Some(writing) = self.writing.take() {
            let outcome = writing.await.unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")));
            self.tell(&outcome);
        }
    }

    /// Writes what was taken to the end.
    pub(super) async fn end(&mut self, shared: &Arc<Shared>) {
        self.settle().await;
        if let Some(path) = of(shared)
            && let Some(bytes) = self.changed(shared, &path)
        {
            let outcome = write(&path, &bytes);
            self.tell(&outcome);
        }
    }

    /// The file, if it says something else than before, or is another one, or is not there.
    fn changed(&mut self, shared: &Shared, path: &Path) -> Option<Vec<u8>> {
        let bytes = encode(&shared.quotas(clock::wall().as_secs()));
        let checksum = checksum(&bytes[..bytes.len() - WORD]);
        let is_there = self.path.as_deref() == Some(path) && path.exists();
        if !is_there {
            self.path = Some(path.to_owned());
        }
        (std::mem::replace(&mut self.written, checksum) != checksum || !is_there).then_some(bytes)
    }

    fn tell(&mut self, outcome: &io::Result<()>) {
        match outcome {
            Err(error) if !self.fails => tracing::error!("quotas cannot be kept for a restart: {error}"),
            Ok(()) if self.fails => tracing::info!("quotas are kept again"),
            _ => {}
        }
        self.fails = outcome.is_err();
        if self.fails {
            self.written = 0; // again with the next look
        }
    }
}

/// Where they are kept, if there are any.
fn of(shared: &Shared) -> Option<PathBuf> {
    shared.config.gateway.quota_file.clone().filter(|_| shared.has_quotas())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // one of its own: who may write into the folder may have put a link there, or a file that others read
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    // else a machine that loses its power may have the new name and not what is in it
    file.sync_data()?;
    fs::rename(&beside, path)
}

fn encode(taken: &Debts) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD + taken.clients.len() * CLIENT + WORD);
    bytes.extend_from_slice(MAGIC);
    let mut push = |word: u64| bytes.extend_from_slice(&word.to_le_bytes());
    taken.secret.iter().for_each(|word| push(*word));
    push(taken.clients.len() as u64);
    for (key, until) in &taken.clients {
        push(*key);
        push(*until);
    }
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Why not, as what is wrong with the file.
fn decode(bytes: &[u8]) -> Result<Debts, &'static str> {
    const DAMAGED: &str = "is damaged";
    if bytes.len() > BYTES_MAX || bytes.len() < HEAD + WORD {
        return Err(DAMAGED);
    }
    if !bytes.starts_with(MAGIC) {
        return Err("is no file of quotas of this version");
    }
    let (said, sum) = bytes.split_at(bytes.len() - WORD);
    let mut words =
        said[MAGIC.len()..].chunks_exact(WORD).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let mut next = || words.next().unwrap_or_default();
    let (secret, count) = ([next(), next()], next());
    let is_whole = count.checked_mul(CLIENT as u64) == Some((said.len() - HEAD) as u64);
    if !is_whole || checksum(said).to_le_bytes() != *sum {
        return Err(DAMAGED);
    }
    Ok(Debts { secret, clients: (0..count).map(|_| (next(), next())).collect() })
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_read() {
        assert!(read(Path::new("/dev/zero")).is_err() && read(Path::new("/dev")).is_err());
        assert_eq!(read(Path::new("/dev/none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_was_written_is_read_and_nothing_that_is_damaged() {
        for clients in [vec![], vec![(7, 8), (u64::MAX, 1), (3, u64::MAX - 1)]] {
            let taken = Debts { secret: [1, 2], clients };
            let bytes = encode(&taken);
            assert_eq!(decode(&bytes), Ok(taken));
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << (at % 8);
                assert!(decode(&damaged).is_err(), "byte {at}");
                assert!(decode(&bytes[..at]).is_err(), "{at} bytes");
            }
            assert!(decode(&[&bytes[..], b"x"].concat()).is_err());
        }
        assert_eq!(decode(&[b'x'; 64]), Err("is no file of quotas of this version"));
    }

    #[test]
    fn a_file_is_there_whole_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quotas");
        for text in [&b"first, which is longer"[..], b"second"] {
            write(&path, text).unwrap();
            assert_eq!(fs::read(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(write(&dir.path().join("gone/quotas"), b"x").is_err());
    }
}
