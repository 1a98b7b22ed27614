//! What is known of reloads: the generation in use, and how the last reload ended.

use crate::observe::labels::ReloadResult;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Written by the control thread.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    /// The generation in use; the first is 1, 0 before that.
    generation: AtomicU64,
    /// Older ones that something in flight still uses.
    old: AtomicU64,
    /// Milliseconds since 1970 when the configuration in use came into use.
    changed_unix_ms: AtomicU64,
    /// The last reload failed, and the one before is still in use.
    has_failed: AtomicU64,
    /// By [`ReloadResult`].
    results: [AtomicU64; ReloadResult::ALL.len()],
}

impl Reloads {
    /// A configuration has come into use.
    pub(crate) fn set_generation(&self, number: u64, wall: Duration) {
        self.generation.store(number, Relaxed);
        self.changed_unix_ms.store(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// So many older ones are in use.
    pub(crate) fn set_old(&self, count: usize) {
        self.old.store(count as u64, Relaxed);
    }

    /// A reload is over.
    pub(crate) fn count(&self, result: ReloadResult) {
        self.has_failed.store(u64::from(result == ReloadResult::Failed), Relaxed);
        self.results[result.index()].fetch_add(1, Relaxed);
    }

    /// The generation in use.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Older ones in use.
    pub(crate) fn old(&self) -> u64 {
        self.old.load(Relaxed)
    }

    /// Whether the last reload, or the start, succeeded.
    pub(crate) fn last_succeeded(&self) -> bool {
        self.has_failed.load(Relaxed) == 0
    }

    /// When the configuration in use came into use: seconds since 1970.
    pub(crate) fn changed_unix_seconds(&self) -> f64 {
        self.changed_unix_ms.load(Relaxed) as f64 / 1e3
    }

    /// Reloads that ended so.
    pub(crate) fn results(&self, result: ReloadResult) -> u64 {
        self.results[result.index()].load(Relaxed)
    }
}
