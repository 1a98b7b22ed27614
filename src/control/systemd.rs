//! systemd, where it has started this process: what it is told (sd_notify(3)), and the sockets that it gives (sd_listen_fds(3)).
//!
//! | when | what |
//! |---|---|
//! | all workers accept | `READY=1` |
//! | a reload | `RELOADING=1`, and `READY=1` when it is over, however it ended |
//! | an upgrade | `MAINPID=` of the next process |
//! | a drain | `STOPPING=1` |
//! | twice in `WatchdogSec=` | `WATCHDOG=1`, as long as the control thread looks after the workers, which it replaces where they stand still |
//!
//! Elsewhere nothing happens. That it cannot be told is no reason to end, or to say so each time.

use crate::config::{Bind, Listener};
use crate::net::listener::{self, Bound};
use crate::units::Instant;
use sd_notify::NotifyState;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd cannot be told: {error}");
    }
}

/// All workers accept.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload begins; [`ready`] ends it.
pub(super) fn reloading() {
    // without a clock, systemd takes the message for what it is all the same
    let since = NotifyState::monotonic_usec_now().ok();
    let states: Vec<_> = std::iter::once(NotifyState::Reloading).chain(since).collect();
    tell(&states);
}

/// This process ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// This process serves from now on.
pub(super) fn upgraded(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Says that the control thread lives, if somebody asks.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// Half of what systemd waits for; `None`: it does not.
    every: Option<Duration>,
    due: Instant,
}

impl Watchdog {
    /// As systemd has told this process.
    pub(super) fn asked_for() -> Self {
        Self { every: sd_notify::watchdog_enabled().map(|limit| limit / 2), due: Instant::default() }
    }

    /// Says so, if it is due.
    pub(super) fn look(&mut self, now: Instant) {
        if self.is_due(now) {
            tell(&[NotifyState::Watchdog]);
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let Some(every) = self.every.filter(|_| now >= self.due) else { return false };
        self.due = now + every;
        true
    }
}

/// Listening sockets that systemd has opened, by what the socket unit calls them (`FileDescriptorName=`).
#[derive(Debug, Default)]
pub(super) struct Activation(Vec<(String, OwnedFd)>);

impl Activation {
    /// What was given to this process.
    ///
    /// # Errors
    /// One of them is no listening stream socket, or more are promised than there are.
    pub(super) fn receive() -> io::Result<Self> {
        // names without sockets are those of another process, which has started this one
        if sd_notify::listen_fds()?.len() == 0 {
            return Ok(Self::default());
        }
        let given = sd_notify::listen_fds_with_names()?;
        given.map(|(fd, name)| Ok((name, listener::given(fd)?))).collect::<io::Result<_>>().map(Self)
    }

    /// The socket that has the listener's name, or else its address; all workers share it.
    pub(super) fn take(&mut self, wanted: &Listener, workers: usize) -> Option<io::Result<Bound>> {
        let is_at = |socket: &OwnedFd| listener::address_of(socket).is_ok_and(|address| address == wanted.bind);
        let named = self.0.iter().position(|(name, _)| *name == wanted.name);
        let row = named.or_else(|| self.0.iter().position(|(_, socket)| is_at(socket)))?;
        let (_, socket) = self.0.swap_remove(row);
        Some(shared(&socket, workers))
    }

    /// Those that no listener has taken.
    pub(super) fn left(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, socket)| match listener::address_of(socket) {
            Ok(Bind::Tcp(address)) => format!("{name} ({address})"),
            Ok(Bind::Unix(path)) => format!("{name} ({})", path.display()),
            Err(_) => name.clone(),
        })
    }
}

fn shared(socket: &OwnedFd, workers: usize) -> io::Result<Bound> {
    let sockets = (0..workers).map(|_| listener::duplicate(socket)).collect::<io::Result<_>>()?;
    // its file is systemd's
    Ok(Bound { sockets, address: listener::address_of(socket)?, file: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_fed_twice_in_its_time_and_not_without_one() {
        let mut watchdog = Watchdog { every: Some(Duration::from_secs(15)), due: Instant::default() };
        let at = |seconds| Instant::from_nanos(seconds * 1_000_000_000);
        let fed: Vec<u64> = (1..=60).filter(|second| watchdog.is_due(at(*second))).collect();
        assert_eq!(fed, [1, 16, 31, 46]);
        assert!(!Watchdog::default().is_due(at(1)));
    }
}
