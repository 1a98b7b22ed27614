//! What is known of the names of endpoints, as the control thread says it.

use crate::observe::labels::LookupResult;
use crate::units::Instant;
use std::collections::BTreeMap;

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameView {
    /// As the file writes it.
    pub name: String,
    /// Endpoints that it has.
    pub endpoints: usize,
    /// When those were learned; `None`: never.
    pub learned: Option<Instant>,
    /// Lookups in a row that brought nothing.
    pub failures: u32,
    /// Lookups so far, by [`LookupResult::index`].
    pub lookups: [u64; LookupResult::ALL.len()],
}

/// All of them. A lock, because the control thread writes it and a scrape may be rendered elsewhere; no worker ever sees it.
#[derive(Debug, Default)]
pub(crate) struct Names {
    #[expect(clippy::disallowed_types, reason = "held for the length of a call, by nobody who serves")]
    by_name: std::sync::Mutex<BTreeMap<String, NameView>>,
}

impl Names {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, NameView>> {
        // a panic while it is held leaves a table that is whole
        self.by_name.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn set(&self, view: NameView) {
        self.all().insert(view.name.clone(), view);
    }

    pub(crate) fn retain(&self, is_kept: impl Fn(&str) -> bool) {
        self.all().retain(|name, _| is_kept(name));
    }

    pub(crate) fn get(&self, name: &str) -> Option<NameView> {
        self.all().get(name).cloned()
    }

    pub(crate) fn views(&self) -> Vec<NameView> {
        self.all().values().cloned().collect()
    }
}
