//! What others may see of a load while it runs, and how they end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared by who watches and the generator's threads; cloned cheaply.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stop: Arc<AtomicBool>,
    /// Nanoseconds of the machine's monotonic clock; 0: not begun.
    begun: AtomicU64,
    due: AtomicU64,
    failed: AtomicU64,
}

/// Of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When the first judged request was or will be due; `None`: connections are being opened.
    pub begun: Option<crate::units::Moment>,
    /// Judged requests that have ended.
    pub ended: u64,
    /// Of those, failures.
    pub failed: u64,
}

impl Watch {
    /// Ends the load: what is in flight is not waited for.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Somebody has ended it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// What stops it when it is set: for signals.
    #[must_use]
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.stop)
    }

    /// The same way to stop, and nothing counted yet: for the next load.
    #[must_use]
    pub fn again(&self) -> Self {
        Self(Arc::new(Inner { stop: self.stop_flag(), ..Inner::default() }))
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let begun = self.0.begun.load(Ordering::Relaxed);
        Progress {
            begun: (begun > 0).then_some(crate::units::Moment(begun)),
            ended: self.0.due.load(Ordering::Relaxed),
            failed: self.0.failed.load(Ordering::Relaxed),
        }
    }

    pub(super) fn begins(&self, at: crate::units::Moment) {
        self.0.begun.store(at.0, Ordering::Relaxed);
    }

    pub(super) fn add(&self, ended: u64, failed: u64) {
        self.0.due.fetch_add(ended, Ordering::Relaxed);
        self.0.failed.fetch_add(failed, Ordering::Relaxed);
    }
}
