//! The configuration in use, and those before it that something still uses: a request in flight, a tunnel.
//!
//! What the admin API shows and what a gateway's owner asks for comes from here, so that it is always of the one in use.

use crate::observe::access_log::AccessLogThread;
use crate::units::Instant;
use crate::worker::Shared;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// All generations that are in use.
#[derive(Default)]
pub(super) struct Generations {
    #[expect(clippy::disallowed_types, reason = "the control plane's own, held for the length of a call")]
    list: std::sync::Mutex<Vec<Generation>>,
}

/// One configuration's time.
struct Generation {
    number: u64,
    began: Instant,
    /// Held for the last one only: the others live as long as a worker uses them.
    held: Option<Arc<Shared>>,
    shared: Weak<Shared>,
    log: Option<Arc<AccessLogThread>>,
}

/// A generation, as `/generations` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationView {
    /// 1 is that of the start.
    pub number: u64,
    /// Whether it is the one in use.
    pub is_current: bool,
    /// Since it came into use.
    pub age: Duration,
    /// Requests in flight under it, as of the workers' last beat.
    pub requests: u64,
    /// Tunnels among them.
    pub tunnels: u64,
}

impl Generations {
    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Generation>> {
        // a panic while it is held leaves a list that is whole
        self.list.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One that comes into use; the one before is held by its workers alone from now on.
    pub(super) fn begin(&self, shared: &Arc<Shared>, log: Option<Arc<AccessLogThread>>, now: Instant) {
        let mut list = self.list();
        if let Some(last) = list.last_mut() {
            last.held = None;
        }
        let (held, weak) = (Some(Arc::clone(shared)), Arc::downgrade(shared));
        list.push(Generation { number: shared.number, began: now, held, shared: weak, log });
    }

    /// The one in use.
    ///
    /// # Panics
    /// Before the first has begun.
    pub(super) fn current(&self) -> Arc<Shared> {
        let list = self.list();
        let held = list.last().and_then(|last| last.held.clone());
        held.expect("a gateway has a configuration")
    }

    /// Where its access log goes.
    pub(super) fn log(&self) -> Option<Arc<AccessLogThread>> {
        self.list().last().and_then(|last| last.log.clone())
    }

    /// Forgets those that nobody uses any more: how many are left before the one in use, and access logs that are over.
    pub(super) fn prune(&self) -> (usize, Vec<Arc<AccessLogThread>>) {
        let mut list = self.list();
        let mut logs = Vec::new();
        list.retain_mut(|generation| {
            let is_used = generation.shared.strong_count() > 0;
            if !is_used && let Some(log) = generation.log.take() {
                log.end(generation.number);
                logs.push(log);
            }
            is_used
        });
        logs.retain(|log| !list.iter().any(|other| other.log.as_ref().is_some_and(|other| Arc::ptr_eq(other, log))));
        (list.len().saturating_sub(1), logs)
    }

    /// The access logs that are open, which are nobody's any more: for the end.
    pub(super) fn take_logs(&self) -> Vec<Arc<AccessLogThread>> {
        let mut logs: Vec<Arc<AccessLogThread>> = Vec::new();
        for log in self.list().iter_mut().filter_map(|generation| generation.log.take()) {
            if !logs.iter().any(|other| Arc::ptr_eq(other, &log)) {
                logs.push(log);
            }
        }
        logs
    }

    /// All of them, the one in use last.
    pub(super) fn views(&self, now: Instant) -> Vec<GenerationView> {
        let list = self.list();
        let view = |generation: &Generation| {
            let shared = generation.shared.upgrade()?;
            let (requests, tunnels) = shared.in_use();
            let is_current = generation.held.is_some();
            Some(GenerationView {
                number: generation.number,
                is_current,
                age: now.since(generation.began),
                requests,
                tunnels,
            })
        };
        list.iter().filter_map(view).collect()
    }
}
