//! The one flag that ends the demo: set by a signal or at the end of the time asked for, waited on instead of sleeping.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// A flag that is set once.
#[derive(Default)]
pub(super) struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Sets the flag and wakes everybody.
    pub(super) fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until `deadline` or the flag, whichever is first; whether the flag is set.
    pub(super) fn wait_until(&self, deadline: Instant) -> bool {
        let timeout = deadline.saturating_duration_since(Instant::now());
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let (stopped, _) = self
            .changed
            .wait_timeout_while(stopped, timeout, |stopped| !*stopped)
            .unwrap_or_else(PoisonError::into_inner);
        *stopped
    }
}

/// Sets the flag at the first SIGINT or SIGTERM; a second one ends the process at once with the shell's usual code.
pub(super) fn on_signal(stop: &Arc<Stop>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let stop = Arc::clone(stop);
    std::thread::Builder::new().name("demo-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for second in [false, true] {
                let code = tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                };
                if second {
                    std::process::exit(code);
                }
                stop.stop();
            }
        });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waiting_ends_at_the_deadline_or_at_the_flag() {
        let stop = Stop::default();
        assert!(!stop.wait_until(Instant::now()));
        stop.stop();
        assert!(stop.wait_until(Instant::now() + Duration::from_secs(3600)));
    }
}
