//! The file of a unix listening socket: made, told from those of others, and removed.
//!
//! A path in the configuration may be wrong, and whoever removes what stands there by its name alone removes a database, or the
//! socket of the process that has taken over. So nothing is ever removed but a socket: at the start one that refuses connections,
//! which is what a killed process leaves behind, and at the end the one that this process has made. The latter is known by its device
//! and inode, and held open (`O_PATH`) so that no other file gets its inode in the meantime: file systems give a freed number to the
//! next file at once.
//!
//! What this does not do: lock. Between a look at the path and the removal somebody else may put a socket there, as at any path.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

/// A socket's file; removed when this is dropped, if it is still the one that was made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    held: File,
    is_left: Arc<AtomicBool>,
}

/// See [`SocketFile::leaver`].
#[derive(Clone, Debug)]
pub struct Leaver(Arc<AtomicBool>);

impl Leaver {
    /// The file stays from now on.
    pub fn leave(&self) {
        self.0.store(true, Relaxed);
    }
}

impl SocketFile {
    /// Binds a non-blocking stream socket, which does not listen yet, to `path`, with these permissions.
    ///
    /// # Errors
    /// `AddrInUse`: somebody listens there. `AlreadyExists`: something is there that is no socket. Else what the system says.
    pub fn bind(path: &Path, mode: u32) -> io::Result<(Socket, Self)> {
        let address = SockAddr::unix(path)?;
        remove_stale(path, &address)?;
        let socket = socket()?;
        socket.bind(&address)?;
        let held = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        let file = Self { path: path.to_owned(), held, is_left: Arc::default() };
        // without this the umask decides, and that of most services keeps everybody else out
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok((socket, file))
    }

    /// Takes over what another process of ours has made there.
    ///
    /// # Errors
    /// What stands there is no socket, or nothing.
    pub fn adopt(path: &Path) -> io::Result<Self> {
        let held = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        if !held.metadata()?.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what stands there is no socket"));
        }
        Ok(Self { path: path.to_owned(), held, is_left: Arc::default() })
    }

    /// What leaves the file where it is when this is dropped, because another process has it.
    #[must_use]
    pub fn leaver(&self) -> Leaver {
        Leaver(Arc::clone(&self.is_left))
    }

    /// Whether the path still leads to what was made.
    fn is_ours(&self) -> bool {
        let identity = |file: Metadata| (file.dev(), file.ino());
        let now = std::fs::symlink_metadata(&self.path).map(identity);
        self.held.metadata().map(identity).ok().is_some_and(|ours| now.is_ok_and(|now| now == ours))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.is_left.load(Relaxed) && self.is_ours() {
            // a folder that has become read-only keeps it; the next start finds nobody listening there
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn socket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let message = "what stands there is no socket, and nothing else is ever replaced";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match socket()?.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match std::fs::remove_file(path) {
            // whoever had it has removed it in the meantime
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // it listens, or its queue is full
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_no_socket_stays_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (file, target) = (folder.path().join("precious.db"), folder.path().join("link"));
        std::fs::write(&file, "data").unwrap();
        std::os::unix::fs::symlink(&file, &target).unwrap();
        for path in [file.as_path(), &target, folder.path()] {
            let error = SocketFile::bind(path, 0o666).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{}", path.display());
        }
        assert_eq!(std::fs::read_to_string(target).unwrap(), "data");
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.sock");
        let live = UnixListener::bind(&path).unwrap();
        assert_eq!(SocketFile::bind(&path, 0o660).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        let (_socket, _file) = SocketFile::bind(&path, 0o660).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    }

    #[test]
    fn only_ones_own_socket_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edge.sock");
        let (socket, first) = SocketFile::bind(&path, 0o666).unwrap();
        drop(socket);
        let (successor, second) = SocketFile::bind(&path, 0o666).unwrap();
        successor.listen(1).unwrap();
        drop(first);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok(), "the successor's stays");
        drop(second);
        assert!(!path.exists());
    }
}
