//! The side of the new process: what it was given, and what it says.

use super::{Door, Legacy, PROTOCOL, Place, Reply, Serving, VARIABLE, wire};
use crate::config::{Bind, Listener};
use crate::net::listener::{self, Bound};
use crate::net::socket_file::SocketFile;
use crate::worker::Estate;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// What a process was given by the one before.
#[derive(Debug)]
pub struct Inheritance {
    doors: Vec<(Door, Vec<OwnedFd>)>,
    admin: Option<(Door, OwnedFd)>,
    /// Of [`Serving::taken`].
    taken: Vec<usize>,
    before: UnixStream,
}

impl Inheritance {
    /// What was given to this process, if it was started to take over. Takes standard input away from it.
    ///
    /// # Errors
    /// It was, and what was given cannot be taken, in a sentence.
    pub fn receive() -> Result<Option<Self>, String> {
        let Ok(version) = std::env::var(VARIABLE) else { return Ok(None) };
        let before = standard_input().map_err(|error| format!("there is no process to take over from: {error}"))?;
        if version != PROTOCOL.to_string() {
            let why = format!("this version takes over from one that says {VARIABLE}={PROTOCOL}, not {version}");
            let _ = wire::send(&before, &Reply::Failed(vec![why.clone()]));
            return Err(why);
        }
        Self::from(before).map(Some).map_err(|error| format!("cannot take over from the process before: {error}"))
    }

    /// What comes over this socket.
    pub(super) fn from(before: UnixStream) -> io::Result<Self> {
        let legacy: Legacy = wire::receive(&before)?;
        let mut sockets = wire::receive_descriptors(&before, legacy.sockets())?.into_iter();
        let doors: Vec<_> = legacy
            .doors
            .into_iter()
            .map(|door| {
                let own: Vec<_> = sockets.by_ref().take(door.sockets).collect();
                (door, own)
            })
            .collect();
        let admin = legacy.admin.zip(sockets.next());
        let taken = vec![0; doors.len()];
        Ok(Self { doors, admin, taken, before })
    }

    /// The sockets of a listener, one a worker, if the process before has them.
    pub(in crate::control) fn take(&mut self, listener: &Listener, workers: usize) -> Option<io::Result<Bound>> {
        let is_its = |(door, _): &(Door, Vec<OwnedFd>)| door.is_of(&listener.name, &listener.bind);
        let row = self.doors.iter().position(is_its)?;
        let (door, sockets) = &mut self.doors[row];
        let (sockets, at) = (std::mem::take(sockets), door.at.clone());
        self.taken[row] = sockets.len().min(workers);
        Some(fitted(sockets, &at, workers))
    }

    /// Addresses that the process before listens on: whoever binds beside them meets them.
    pub(in crate::control) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.doors.iter().filter_map(|(door, _)| match door.at {
            Place::Tcp(address) => Some(address),
            Place::Unix(_) => None,
        })
    }

    /// The admin API's socket, if the process before has it there.
    pub(in crate::control) fn take_admin(&mut self, bind: &Bind) -> Option<OwnedFd> {
        let is_there = |(door, _): &mut (Door, OwnedFd)| door.is_of("admin", bind);
        self.admin.take_if(is_there).map(|(_, socket)| socket)
    }

    /// Says that everything is there, and waits for what the process before knows by then.
    pub(in crate::control) fn prepare(&self) -> io::Result<Estate> {
        wire::send(&self.before, &Reply::Prepared)?;
        wire::receive(&self.before)
    }

    /// Says that this process serves; the one before drains now.
    pub(in crate::control) fn serve(self) {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        // if the one before has just ended by itself, there is nobody who has to know
        let _ = wire::send(&self.before, &Reply::Serving(Serving { version, taken: self.taken }));
    }

    /// Says why this process does not serve; the one before goes on.
    pub fn decline(self, why: Vec<String>) {
        // it goes on as well if it never hears of it
        let _ = wire::send(&self.before, &Reply::Failed(why));
    }
}

/// As many sockets of the address as there are workers: the rest is left to the process before, what is missing is bound beside them.
fn fitted(mut sockets: Vec<OwnedFd>, at: &Place, workers: usize) -> io::Result<Bound> {
    sockets.truncate(workers);
    let missing = workers - sockets.len();
    let file = match at {
        Place::Tcp(address) if missing > 0 => {
            sockets.extend(listener::bind_over(*address, missing)?.sockets);
            None
        }
        Place::Tcp(_) => None,
        Place::Unix(path) => {
            let first = sockets.first().ok_or(io::ErrorKind::NotFound)?;
            let more = (0..missing).map(|_| listener::duplicate(first)).collect::<io::Result<Vec<_>>>()?;
            sockets.extend(more);
            Some(SocketFile::adopt(path)?)
        }
    };
    Ok(Bound { sockets, address: at.bind(), file })
}

/// The socket at standard input, which is empty from now on: whoever this process starts must not have it, and its end is to be its own.
fn standard_input() -> io::Result<UnixStream> {
    let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::net::sockopt::socket_type(&own)?;
    rustix::stdio::dup2_stdin(&std::fs::File::open("/dev/null")?)?;
    Ok(own.into())
}
