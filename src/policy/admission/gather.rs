//! Limits of a configuration, gathered: those that are shared once, each route's own, and which of them whoever names them meets.

use super::{Entry, Row, policies};
use crate::config::{Limit, Route};
use crate::policy::concurrency::SharedSlots;
use crate::policy::limit_fields;
use crate::policy::limiter::{Limiter, Owner};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Room for most members of `RateLimit-Policy`: a short name, a quota, a window.
const POLICY_BYTES: usize = 40;

/// Limits while they are gathered.
pub(super) struct Gathered<'g> {
    pub(super) limiters: Vec<Limiter>,
    /// Rows of those with a name.
    pub(super) shared: FxHashMap<Arc<str>, u32>,
    pub(super) groups: &'g [Arc<str>],
    pub(super) workers: usize,
    /// Those of before, all and by name; and routes of before, by name.
    pub(super) old: &'g [Limiter],
    pub(super) old_shared: FxHashMap<&'g str, &'g Limiter>,
    pub(super) old_routes: FxHashMap<&'g str, &'g Entry>,
}

impl Gathered<'_> {
    pub(super) fn share(&mut self, limit: &Limit) {
        let Some(name) = limit.name.as_ref().filter(|name| !self.shared.contains_key(*name)) else { return };
        let before: Vec<_> = self.old_shared.get(&**name).copied().into_iter().collect();
        self.shared.insert(Arc::clone(name), self.limiters.len() as u32);
        let limiters =
            Limiter::all(&Owner::Shared(name), std::slice::from_ref(limit), (self.groups, self.workers), &before);
        self.limiters.extend(limiters);
    }

    /// The rows of these limits, those of which are added that are nobody else's.
    fn rows(&mut self, owner: &Owner<'_>, limits: &[Limit], before: &[&Limiter]) -> Box<[Row]> {
        let own: Vec<Limit> = limits.iter().filter(|limit| limit.name.is_none()).cloned().collect();
        let first = self.limiters.len() as u32;
        self.limiters.extend(Limiter::all(owner, &own, (self.groups, self.workers), before));
        let mut next = first..;
        let limiter = |limit: &Limit| match &limit.name {
            Some(name) => self.shared.get(name).copied(),
            None => next.next(),
        };
        limits
            .iter()
            .map(limiter)
            .zip(limits)
            .filter_map(|(row, of)| Some(Row { limiter: row?, cost: of.cost }))
            .collect()
    }

    pub(super) fn entry(&mut self, owner: &Owner<'_>, limits: &[Limit], before: &[&Limiter]) -> Entry {
        let rows = self.rows(owner, limits, before);
        let mut written = Vec::with_capacity(rows.len() * POLICY_BYTES);
        limit_fields::write_policies(policies(&self.limiters, &rows, &[]), &mut written);
        let told = rows.iter().zip(limits).filter_map(|(row, limit)| Some((*row, limit.cost_header.clone()?)));
        Entry {
            told: told.collect(),
            rows,
            slots: None,
            slots_max: 0,
            name: owner.name().to_owned(),
            policies: written,
        }
    }

    pub(super) fn route(&mut self, route: &Route) -> Entry {
        let old = self.old_routes.get(route.name.as_str()).copied();
        let before = old.iter().flat_map(|entry| &entry.rows).map(|row| &self.old[row.limiter as usize]);
        let before: Vec<&Limiter> = before.filter(|limiter| limiter.limit.name.is_none()).collect();
        let slots = route.concurrent_max.map(|limit| match old.and_then(|old| old.slots.as_ref()) {
            Some(slots) => Arc::clone(slots),
            None => Arc::new(SharedSlots::new(limit, self.workers)),
        });
        let owner = Owner::Route { name: &route.name, limits: route.limits.len() };
        Entry {
            slots,
            slots_max: route.concurrent_max.unwrap_or_default(),
            ..self.entry(&owner, &route.limits, &before)
        }
    }
}
