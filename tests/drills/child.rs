//! A process that does not outlive the drill.
//!
//! It dies with its guard, also when a script fails or panics, and the kernel sends it a signal when this process is killed. It leads a
//! process group of its own, so that what it has started (nginx's workers) is ended with it and a Ctrl-C goes to the drills first.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child as Process, Command};
use std::time::Duration;

use crate::clock;

/// How long a process that was asked to end may take before it is killed.
const FAREWELL: Duration = Duration::from_secs(1);

/// A running process; dropping it ends it.
pub(crate) struct Child {
    process: Process,
    /// What the kernel sends it when this process dies.
    at_parents_death: i32,
}

impl Child {
    /// Starts `command`. With `SIGTERM` it is asked to end first and may end its own children; with `SIGKILL` it is killed.
    ///
    /// To be called by the main thread: the kernel takes the end of the *thread* that started a child for its parent's death.
    pub(crate) fn spawn(command: &mut Command, at_parents_death: i32) -> io::Result<Self> {
        command.process_group(0);
        // SAFETY: between fork and exec only an async-signal-safe system call is made, and nothing is allocated.
        unsafe {
            command.pre_exec(move || match libc::prctl(libc::PR_SET_PDEATHSIG, at_parents_death) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(Self { process: command.spawn()?, at_parents_death })
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Sends it `signal`.
    pub(crate) fn signal(&self, signal: i32) -> io::Result<()> {
        send(self.pid(), signal)
    }

    /// Kills it and all that it started, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // fails only when all of them have gone already
        let _ = send(-self.pid(), libc::SIGKILL);
        let _ = self.process.wait();
    }

    fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.at_parents_death == libc::SIGTERM && !self.has_ended() {
            let deadline = clock::now() + FAREWELL;
            let _ = self.signal(libc::SIGTERM);
            while !self.has_ended() && clock::now() < deadline {
                clock::wait(Duration::from_millis(5));
            }
        }
        self.kill();
    }
}

fn send(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
