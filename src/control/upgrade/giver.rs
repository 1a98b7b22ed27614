//! The side of the old process: starts the new one, gives, and waits until it serves.

use super::{Door, Legacy, NotUpgraded, PROTOCOL, Reply, Serving, Upgraded, VARIABLE, wire};
use crate::worker::Estate;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long the next process may take from one message to the next. Ten thousand routes take it a second or two.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one that has failed may take to end by itself.
const ENDING: Duration = Duration::from_secs(2);

/// The process whose end ends all others of a container.
const FIRST: u32 = 1;

/// What there is to give.
pub(in crate::control) struct Given {
    /// With a socket for each worker.
    pub(in crate::control) doors: Vec<(Door, Vec<OwnedFd>)>,
    pub(in crate::control) admin: Option<(Door, OwnedFd)>,
}

/// Starts the next process and gives it this; `estate` is asked when it could begin. Returns when it serves, or has failed and ended.
/// Blocks for as long.
pub(in crate::control) fn give(
    given: Given,
    estate: impl FnOnce() -> Estate,
) -> Result<(Upgraded, Serving), NotUpgraded> {
    if std::process::id() == FIRST {
        return Err(NotUpgraded::because(
            "this is the first process of a container, which ends with it: start another container beside this one, and drain this one",
        ));
    }
    let program = program().map_err(|error| NotUpgraded::because(format!("cannot tell what to start: {error}")))?;
    let (own, its) = UnixStream::pair().map_err(NotUpgraded::because)?;
    let next = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, PROTOCOL.to_string())
        // it is asked to feed the watchdog in the place of this one
        .env_remove("WATCHDOG_PID")
        .stdin(Stdio::from(OwnedFd::from(its)))
        .spawn();
    let mut next =
        next.map_err(|error| NotUpgraded::because(format!("cannot start {}: {error}", program.display())))?;
    let pid = next.id();
    match hand(&own, given, estate) {
        Ok(serving) => {
            let upgraded = Upgraded { pid, version: serving.version.clone() };
            // it is this one's child for as long as this one drains, and init's after that
            std::thread::Builder::new().name("reaper".to_owned()).spawn(move || next.wait()).map_err(drop).ok();
            Ok((upgraded, serving))
        }
        Err(why) => {
            drop(own);
            Err(NotUpgraded::Failed(why.into_iter().chain(end(&mut next)).collect()))
        }
    }
}

/// Gives over this socket; why the other side does not serve, otherwise.
pub(super) fn hand(to: &UnixStream, given: Given, estate: impl FnOnce() -> Estate) -> Result<Serving, Vec<String>> {
    let lost = |error: io::Error| {
        vec![match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                "the next process ended before it served; its log says why".to_owned()
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                format!("the next process did not serve within {PATIENCE:?}")
            }
            _ => format!("the next process cannot be talked to: {error}"),
        }]
    };
    let (doors, sockets): (Vec<_>, Vec<_>) = given.doors.into_iter().unzip();
    let mut sockets: Vec<OwnedFd> = sockets.into_iter().flatten().collect();
    let (admin, admin_socket) = given.admin.unzip();
    sockets.extend(admin_socket);
    let begin = || {
        to.set_read_timeout(Some(PATIENCE))?;
        to.set_write_timeout(Some(PATIENCE))?;
        wire::send(to, &Legacy { doors, admin })?;
        wire::send_descriptors(to, &sockets)?;
        wire::receive(to)
    };
    match begin().map_err(lost)? {
        Reply::Prepared => {}
        Reply::Failed(why) => return Err(why),
        Reply::Serving(_) => return Err(vec!["the next process serves and was not told to".to_owned()]),
    }
    let finish = || {
        wire::send(to, &estate())?;
        wire::receive(to)
    };
    match finish().map_err(lost)? {
        Reply::Serving(serving) => Ok(serving),
        Reply::Failed(why) => Err(why),
        Reply::Prepared => Err(vec!["the next process does not get ready".to_owned()]),
    }
}

/// Ends a process that has failed; how it ended, if that says something.
#[expect(clippy::disallowed_methods, reason = "on a thread that may block, while nobody else knows of the process")]
fn end(next: &mut Child) -> Option<String> {
    let until = std::time::Instant::now() + ENDING;
    while std::time::Instant::now() < until {
        match next.try_wait() {
            Ok(Some(status)) => return (!status.success()).then(|| format!("the next process ended: {status}")),
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            Err(_) => break,
        }
    }
    let _ = next.kill().and_then(|()| next.wait());
    Some("the next process was killed".to_owned())
}

/// What is to be started: the path by which this process was started, which may lead to a newer file by now.
fn program() -> io::Result<PathBuf> {
    let name = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&name);
    match name.components().count() {
        // a name alone was looked for in PATH, and is looked for again
        0 => std::env::current_exe(),
        _ => Ok(name.to_owned()),
    }
}
