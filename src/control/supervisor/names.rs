//! What follows when names have other endpoints: another generation, of which everything but the clusters in question is the same.
//!
//! It costs what the change costs, and a pointer for each of the other clusters: nothing is read, compared or compiled, and workers do not
//! prepare, since nothing of it can fail. An endpoint that is new ramps up, one that is gone gets nothing new and its idle connections are
//! closed; what is in flight ends under the generation that it began with.

use super::thread::{Control, HealthChange};
use super::{LOOK, NotReloaded, Wish, interval};
use crate::config::{Config, Endpoint, printable};
use crate::control::endpoints::{Asked, Refused};
use crate::control::probes::Checked;
use crate::control::reports;
use crate::limits::ENDPOINTS_MAX;
use crate::net::clock;
use crate::units::EndpointId;
use crate::worker::Shared;
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

impl Control {
    /// Takes what is known of names into use.
    pub(super) fn follow_names(&mut self) {
        let old = Arc::clone(self.crew.shared());
        let (config, changed) = old.config.told(&|lookup| self.names.answer(lookup), self.wishes.all());
        if changed.is_empty() {
            return;
        }
        let config = Arc::new(config);
        for id in &changed {
            tell_difference(&old.config.clusters[id.index()], &config.clusters[id.index()]);
        }
        let stats = old.stats.with_endpoints(&config, &changed);
        let is_checked = changed.iter().any(|id| config.clusters[id.index()].health_check.is_some());
        let shared = Arc::new(old.with_endpoints(Arc::clone(&config), Arc::clone(&stats), changed.clone()));
        shared.commit_endpoints();
        let log = self.generations.log();
        if let Some(log) = &log {
            log.follow(old.number, (shared.number, &config), &changed);
        }
        self.generations.begin(&shared, log, clock::now());
        self.is_behind = !self.crew.follow(&shared);
        if let Some(followers) = self.followers.as_ref().filter(|_| is_checked) {
            // who has ended is replaced by a reload, which knows of this
            let _ = followers.send((config, stats));
        }
    }

    /// The configuration with the endpoints that are known of its names; those of which nothing is known yet are asked for first.
    ///
    /// # Errors
    /// The gateway is told to end meanwhile.
    pub(super) async fn learn(&mut self, config: Config) -> Result<Config, NotReloaded> {
        self.names.add_next(&config);
        self.while_learning().await?;
        Ok(config.told(&|lookup| self.names.answer(lookup), &HashMap::new()).0)
    }

    async fn while_learning(&mut self) -> Result<(), NotReloaded> {
        let (mut learning, mut look) = (pin!(self.names.learn()), interval(LOOK));
        loop {
            tokio::select! {
                () = &mut learning => return Ok(()),
                _ = look.tick() => {
                    let now = clock::now();
                    self.crew.look(now);
                    self.watchdog.look(now);
                }
                Some((config, report)) = self.reported.recv() => reports::log(&config, report),
                _ = self.wished.changed() => {
                    if *self.wished.borrow() >= Wish::Drain {
                        return Err(NotReloaded::Draining);
                    }
                }
            }
        }
    }

    /// Does what an operator asks, if it can be done.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn obey(&mut self, asked: &Asked) -> Result<(), Refused> {
        let shared = Arc::clone(self.crew.shared());
        let is_other = self.wishes.take(asked, &shared)?;
        let Asked { upstream, endpoint, order } = asked;
        tracing::info!("by hand upstream={upstream} endpoint={} order={order:?}", printable(endpoint));
        if is_other {
            self.follow_names();
        }
        Ok(())
    }
}

/// What a check has found out, taken down where all see it.
pub(super) fn on_checked(shared: &Shared, checked: Checked, changes: &UnboundedSender<HealthChange>) {
    let Checked { of, cluster, endpoint, passed, change } = checked;
    let Some(now) = shared.config.clusters.get(cluster.index()) else { return };
    let endpoint = match Arc::ptr_eq(now, &of) {
        true => Some(endpoint),
        // others have come or gone since the check began
        false => of.endpoints.get(endpoint.index()).and_then(|known| {
            let identity = known.identity();
            now.endpoints.iter().position(|it| it.identity() == identity).map(EndpointId::from_index)
        }),
    };
    let Some(endpoint) = endpoint else { return };
    let standings = &shared.clusters[cluster.index()].standings;
    if passed {
        standings.on_check_passed(endpoint, clock::now());
    }
    if let Some(healthy) = change {
        standings.set_healthy(endpoint, healthy);
        // nobody listens any more once the drain has begun
        let _ = changes.send(HealthChange { of: Arc::clone(now), cluster, endpoint, healthy });
    }
}

fn tell_difference(old: &crate::config::Cluster, new: &crate::config::Cluster) {
    let identities = |list: &[Endpoint]| list.iter().map(Endpoint::identity).collect::<HashSet<_>>();
    let (before, after) = (identities(&old.endpoints), identities(&new.endpoints));
    let (added, removed) = (after.difference(&before).count(), before.difference(&after).count());
    tracing::info!("names upstream={} endpoints={} added={added} removed={removed}", new.name, after.len());
    if new.endpoints.len() == ENDPOINTS_MAX {
        tracing::warn!("names upstream={} has {ENDPOINTS_MAX} endpoints; more than that are left out", new.name);
    }
}
