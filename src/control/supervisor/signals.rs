//! The signals that [`super::run`] obeys, from the first moment of a start to the end.
//!
//! | signal | what it does |
//! |---|---|
//! | SIGTERM, SIGINT, SIGQUIT | drain; a second one ends the process at once, with the shell's usual code |
//! | SIGUSR1 | opens the access log anew |
//! | SIGHUP | reads the configuration anew; what comes of it stands in the log |
//! | SIGUSR2 | has the next process take over; what comes of it stands in the log |
//! | SIGXFSZ | nothing: what is written beyond RLIMIT_FSIZE fails, which the access log survives |
//!
//! What this does not do: stop a start half-way. A start that does not end by itself within [`GRACE`] of the signal is left where it is, and
//! the process ends.

use super::{Gateway, LOOK, StartError, interval};
use crate::observe::own_log;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

/// How long a start that was told to end may go on: if it succeeds, connections may be there by then, which are drained.
const GRACE: Duration = Duration::from_secs(1);
/// How long the log may take to be written before the process ends at once.
const FLUSH: Duration = Duration::from_millis(100);

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// Only held, so that the signal does not end the process.
    _file_size: Signal,
}

/// What a signal asks for.
enum Asked {
    /// To end; with this code if it was asked before.
    End(i32),
    Reload,
    Upgrade,
    Reopen,
}

impl Signals {
    /// Begins to listen. Must be called within a runtime.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            _file_size: signal(SignalKind::from_raw(libc::SIGXFSZ))?,
        })
    }

    /// The next one that asks for something.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End(128 + libc::SIGTERM),
            _ = self.interrupt.recv() => Asked::End(128 + libc::SIGINT),
            _ = self.quit.recv() => Asked::End(128 + libc::SIGQUIT),
            _ = self.user1.recv() => Asked::Reopen,
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.user2.recv() => Asked::Upgrade,
        }
    }

    /// Starts a gateway on a thread of its own, so that a start which waits for somebody can be ended; whether it was told to end meanwhile.
    pub(super) async fn start(
        &mut self,
        start: impl FnOnce() -> Result<Gateway, StartError> + Send + 'static,
    ) -> Result<(Gateway, bool), StartError> {
        let mut started = tokio::task::spawn_blocking(start);
        let mut told: Option<(i32, Instant)> = None;
        loop {
            let is_over = async {
                match told {
                    Some((_, until)) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                started = &mut started => {
                    let started = started.unwrap_or_else(|_| Err(StartError("the start has panicked".to_owned())));
                    return started.map(|gateway| (gateway, told.is_some()));
                }
                asked = self.next() => match asked {
                    Asked::End(code) if told.is_some() => end_at_once(code, "told twice"),
                    Asked::End(code) => told = Some((code, Instant::now() + GRACE)),
                    // it has just read what there is to read
                    Asked::Reload | Asked::Upgrade | Asked::Reopen => {}
                },
                () = is_over => {
                    let (code, _) = told.expect("it is only over once it was told");
                    end_at_once(code, "told to end, and the start goes on");
                }
            }
        }
    }

    /// Passes them on until the gateway has ended; `told`: it was told to end before.
    pub(super) async fn obey(&mut self, gateway: &Gateway, mut told: bool) {
        let mut look = interval(LOOK);
        if told {
            gateway.drain();
        }
        while !gateway.has_ended() {
            tokio::select! {
                asked = self.next() => match asked {
                    Asked::End(code) if told => end_at_once(code, "told twice"),
                    Asked::End(_) => {
                        told = true;
                        gateway.drain();
                    }
                    Asked::Reload => drop(gateway.reload()),
                    Asked::Upgrade => drop(gateway.upgrade()),
                    Asked::Reopen => gateway.reopen_log(),
                },
                _ = look.tick() => {}
            }
        }
    }
}

fn end_at_once(code: i32, why: &str) -> ! {
    tracing::warn!("{why}; ending at once");
    own_log::flush(FLUSH);
    std::process::exit(code)
}
