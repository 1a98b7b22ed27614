//! The control thread: what it owns, and its life: to look after everything, to reload, to drain.

use super::names::on_checked;
use super::{Ask, DRAIN_LOOK, FLUSH, Fault, LOOK, NotReloaded, Wish, ask, interval};
use crate::config::{self, Config};
use crate::control::acme::keep;
use crate::control::admin::{self, AdminListener, AdminState, Lifecycle, Passing, Phase};
use crate::control::crew::Crew;
use crate::control::endpoints::Wishes;
use crate::control::generations::Generations;
use crate::control::key_sets::KeySets;
use crate::control::memory::{self, Memory};
use crate::control::names::Names;
use crate::control::probes::Probes;
use crate::control::quotas::Keeper;
use crate::control::redis::Sharing;
use crate::control::reports;
use crate::control::source::{Source, Watch};
use crate::control::systemd::{self, Watchdog};
use crate::control::upgrade::NotUpgraded;
use crate::limits::CUT_BEFORE_DRAIN_ENDS;
use crate::net::guarded::guarded;
use crate::net::socket_file::SocketFile;
use crate::net::{clock, heap};
use crate::observe::stats::Stats;
use crate::tls::tickets::ROTATION;
use crate::units::{ClusterId, EndpointId, Instant, ListenerId, Rng};
use crate::worker::{Command, DoorKey, Report, Shared};
use rand::SeedableRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::sleep;

/// What the end of something means that this thread runs and that does not end.
fn fault_of(ended: &Result<(), JoinError>) -> Fault {
    Fault(match ended {
        Ok(()) => "the admin API or the health checks have ended".to_owned(),
        Err(error) => format!("the admin API or the health checks have panicked ({error})"),
    })
}

/// How often a file is looked after that is watched.
const WATCH: Duration = Duration::from_millis(500);
/// A look takes no more than one part in so many of this thread's time.
const WATCH_SHARE: u32 = 20;

/// Turns that other tasks of this thread have before it ends: those of an answer's way to its socket, and some more.
const ANSWERS_LAST: usize = 8;

/// How long who is connected to the admin API at an address that it leaves is still answered.
const ADMIN_LEAVES: Duration = Duration::from_secs(5);

/// What the control thread owns.
pub(super) struct Control {
    pub(super) crew: Crew,
    /// `None`: there is no file to read anew.
    pub(super) source: Option<Source>,
    pub(super) watch: Watch,
    /// When to look after the file again.
    pub(super) watched: Instant,
    /// When the keys of tickets were last exchanged.
    pub(super) keys_made: Instant,
    pub(super) names: Names,
    /// Fetches the keys of tokens.
    pub(super) key_sets: KeySets,
    /// What operators have changed about endpoints since the configuration was read.
    pub(super) wishes: Wishes,
    /// Who hears of other endpoints: the health checks.
    pub(super) followers: Option<mpsc::UnboundedSender<(Arc<Config>, Arc<Stats>)>>,
    /// A worker has not heard of the last endpoints.
    pub(super) is_behind: bool,
    pub(super) generations: Arc<Generations>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) wish: watch::Sender<Wish>,
    pub(super) wished: watch::Receiver<Wish>,
    pub(super) asks: mpsc::UnboundedSender<Ask>,
    pub(super) asked: mpsc::UnboundedReceiver<Ask>,
    pub(super) reported: mpsc::Receiver<(Arc<Config>, Report)>,
    pub(super) memory: Memory,
    pub(super) limiting: Limiting,
    /// What else this thread runs; none of it ends before the thread does, but for what a reload replaces.
    pub(super) tasks: JoinSet<()>,
    /// Two of those tasks.
    pub(super) admin: Option<Admin>,
    pub(super) probes: Option<AbortHandle>,
    /// Who looks after certificates that an authority issues.
    pub(super) certificates: Vec<(Arc<config::Acme>, AbortHandle)>,
    /// Of listeners on unix sockets; they remove themselves.
    pub(super) files: Vec<(DoorKey, SocketFile)>,
    /// Another process has taken so many sockets of these doors, and this one is to drain.
    pub(super) handed: Option<Vec<(DoorKey, usize)>>,
    pub(super) watchdog: Watchdog,
    /// Descriptors that were open at the start, before any client came.
    pub(super) opened: u64,
    pub(super) probes_max: usize,
    pub(super) admin_max: usize,
}

/// What limits need besides the workers.
#[derive(Default)]
pub(super) struct Limiting {
    /// Keeps quotas for a restart.
    pub(super) quotas: Keeper,
    /// Shares limits with other gateways.
    sharing: Option<Sharing>,
}

/// The admin API's listener, which one of the tasks has.
pub(super) struct Admin {
    serving: AbortHandle,
    /// Has it close its address.
    pub(super) closing: Arc<Notify>,
    pub(super) passing: Passing,
}

/// A health check's new opinion.
#[derive(Clone, Debug)]
pub(super) struct HealthChange {
    /// Whose ids these are.
    pub(super) of: Arc<config::Cluster>,
    pub(super) cluster: ClusterId,
    pub(super) endpoint: EndpointId,
    pub(super) healthy: bool,
}

impl Control {
    /// Looks after everything until it is told to end, or cannot go on, and then drains.
    pub(super) async fn run(mut self, admin_listener: AdminListener) -> Result<(), Fault> {
        let watched = guarded(self.watch(admin_listener)).await;
        let watched = watched.unwrap_or_else(|| Err(Fault("the control thread has panicked".to_owned())));
        if let Err(Fault(reason)) = &watched {
            tracing::error!("{reason}; the gateway drains and ends, with an exit code that says so");
            self.lifecycle.set(Phase::Draining);
        }
        let drained = guarded(self.drain()).await;
        // the next process has them
        if self.handed.is_none() {
            self.limiting.quotas.end(self.crew.shared()).await;
        }
        // who was answered last has the answer in a task that may not have had its turn: a drain may be over at once
        for _ in 0..ANSWERS_LAST {
            tokio::task::yield_now().await;
        }
        // what the workers said last
        while let Ok(report) = self.reported.try_recv() {
            reports::log(&report.0, report.1);
        }
        watched.and(drained.ok_or_else(|| Fault("the control thread has panicked in the drain".to_owned())))
    }

    /// Starts what this thread runs, and stays until the drain is to begin.
    async fn watch(&mut self, admin_listener: AdminListener) -> Result<(), Fault> {
        self.key_sets = KeySets::follow(&self.crew.shared().config, None);
        self.serve_admin(admin_listener);
        let (tell, mut changes) = mpsc::unbounded_channel();
        self.start_probes(&tell);
        self.keep_certificates();
        self.share_limits();
        self.watch_until(Instant::NEVER, (&tell, &mut changes), Wish::Drain).await?;
        let delay = self.crew.shared().config.gateway.drain_delay;
        self.lifecycle.set(Phase::Draining);
        // where another process serves, nobody has to look for another gateway
        if !delay.is_zero() && self.handed.is_none() {
            tracing::info!("draining in {delay:?} (drain_delay): /readyz says so, connections are still taken");
            self.watch_until(clock::now() + delay, (&tell, &mut changes), Wish::Never).await?;
        }
        Ok(())
    }

    /// Answers operators from now on through this listener, and through no other.
    pub(super) fn serve_admin(&mut self, listener: AdminListener) {
        let (generations, lifecycle) = (Arc::clone(&self.generations), Arc::clone(&self.lifecycle));
        let (wish, asks) = (self.wish.clone(), self.asks.clone());
        let state = move || {
            let (current, shown) = (generations.current(), Arc::clone(&generations));
            let [reloads, orders, upgrades] = [(); 3].map(|()| asks.clone());
            let wish = wish.clone();
            Arc::new(AdminState {
                config: Arc::clone(&current.config),
                stats: Arc::clone(&current.stats),
                lifecycle: Arc::clone(&lifecycle),
                clock: clock::now,
                drain: Box::new(move || {
                    wish.send_replace(Wish::Drain);
                }),
                reload: Box::new(move || ask(&reloads, Ask::Reload)),
                order: Box::new(move |asked| ask(&orders, |done| Ask::Endpoint(asked, done))),
                upgrade: Box::new(move || ask(&upgrades, Ask::Upgrade)),
                generations: Box::new(move || shown.views(clock::now())),
            })
        };
        let (closing, passing) = (listener.closing(), listener.passing());
        let serving = self.tasks.spawn(async move {
            if let Err(error) = admin::serve(listener, state).await {
                tracing::error!("the admin listener has ended: {error}");
            }
        });
        if let Some(before) = self.admin.replace(Admin { serving, closing, passing }) {
            before.closing.notify_one();
            // whoever has asked for the reload is answered there
            tokio::spawn(async move {
                sleep(ADMIN_LEAVES).await;
                before.serving.abort();
            });
        }
    }

    /// Ends the checks that run before `next` comes into use, unless it has the same clusters: then they go on as they are,
    /// because one that takes its time would never end while reloads come faster.
    pub(super) fn end_probes(&mut self, next: &Shared, probes_max: usize) {
        let goes_on = next.has_same_clusters() && probes_max == self.probes_max;
        self.probes_max = probes_max;
        if !goes_on && let Some(probes) = self.probes.take() {
            probes.abort();
        }
    }

    /// Checks the endpoints of the configuration in use from now on, if nobody does.
    pub(super) fn start_probes(&mut self, tell: &mpsc::UnboundedSender<HealthChange>) {
        let shared = Arc::clone(self.crew.shared());
        let (config, stats, tell) = (Arc::clone(&shared.config), Arc::clone(&shared.stats), tell.clone());
        if let (Some(_), Some(followers)) = (&self.probes, &self.followers) {
            // those that go on, over the same clusters
            let _ = followers.send((config, stats));
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "the one seed of the probes' own generator")]
        let rng = Rng::from_rng(&mut rand::rng());
        let (followers, followed) = mpsc::unbounded_channel();
        self.followers = Some(followers);
        let generations = Arc::clone(&self.generations);
        let report = move |checked| on_checked(&generations.current(), checked, &tell);
        let probes = Probes::new(config, stats, clock::now, rng, self.probes_max, (report, followed));
        self.probes = Some(self.tasks.spawn(probes.run()));
    }

    /// Shares the limits of the configuration in use with other gateways, if it says so.
    pub(super) fn share_limits(&mut self) {
        let shared = self.crew.shared();
        let redis = shared.config.redis.as_ref().filter(|_| shared.config.limits.iter().any(|limit| limit.is_shared));
        self.limiting.sharing = Sharing::follow(self.limiting.sharing.take(), redis, shared.far(), &shared.stats);
    }

    /// Has the certificates of the configuration in use looked after that an authority issues; those of the one before, no more, unless they
    /// are the same: an order that is under way goes on.
    pub(super) fn keep_certificates(&mut self) {
        let shared = Arc::clone(self.crew.shared());
        let of_listener = |it: &config::Listener| {
            let tls = it.tls.as_ref()?;
            // it stands behind those of files
            let used = tls.names.all().last().map(|it| it.fingerprint.clone()).unwrap_or_default();
            Some((tls.acme.clone()?, used))
        };
        let wanted: Vec<_> = shared.config.listeners.iter().filter_map(of_listener).collect();
        self.certificates.retain(|(acme, keeping)| {
            let stays = wanted.iter().any(|(wanted, _)| wanted == acme);
            if !stays {
                keeping.abort();
            }
            stays
        });
        for (acme, used) in wanted {
            if self.certificates.iter().any(|(known, _)| *known == acme) {
                continue;
            }
            #[expect(clippy::disallowed_methods, reason = "the one seed of the keeper's own generator")]
            let rng = Rng::from_rng(&mut rand::rng());
            let asks = self.asks.clone();
            // what comes of it stands in the log
            let reload = move || drop(ask(&asks, Ask::Reload));
            let keeping = keep(Arc::clone(&acme), used, Arc::clone(&shared.challenges), rng, reload);
            self.certificates.push((acme, self.tasks.spawn(keeping)));
        }
    }

    /// Makes a new key for the tickets of TLS when it is time, so that who gets hold of one can read what is a day old at most.
    fn exchange_ticket_keys(&mut self, now: Instant) {
        if now >= self.keys_made + ROTATION {
            self.crew.shared().ticket_keys.rotate();
            self.keys_made = now;
        }
    }

    /// Looks after the workers until `until`, or until this is wished for.
    ///
    /// # Errors
    /// Something else that this thread runs has ended.
    async fn watch_until(
        &mut self,
        until: Instant,
        (tell, changes): (&mpsc::UnboundedSender<HealthChange>, &mut mpsc::UnboundedReceiver<HealthChange>),
        wish: Wish,
    ) -> Result<(), Fault> {
        let mut look = interval(LOOK);
        // not those of a configuration, which may be over before this is
        let stats = Arc::clone(&self.crew.shared().stats.control);
        while *self.wished.borrow() < wish && clock::now() < until {
            tokio::select! {
                _ = look.tick() => {
                    self.look();
                    self.memory.look(clock::now(), memory::resident_bytes, heap::give_back);
                    self.prune();
                    self.names.look_at_system(clock::now());
                    self.exchange_ticket_keys(clock::now());
                    self.limiting.quotas.look(self.crew.shared(), clock::now()).await;
                    if self.is_behind {
                        let shared = Arc::clone(self.crew.shared());
                        self.is_behind = !self.crew.follow(&shared);
                    }
                    if self.has_changed_file(clock::now()) {
                        // what comes of it stands in the log
                        let _ = self.reload((tell, &mut *changes)).await;
                    }
                }
                Some(changed) = changes.recv() => self.tell_health(changed),
                () = self.names.changed(&stats) => self.follow_names(),
                Some((config, report)) = self.reported.recv() => reports::log(&config, report),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    // what a reload has replaced
                    if !ended.as_ref().is_err_and(JoinError::is_cancelled) {
                        return Err(fault_of(&ended));
                    }
                }
                Some(asked) = self.asked.recv() => match asked {
                    Ask::Reload(done) => {
                        let outcome = self.reload((tell, &mut *changes)).await;
                        // whoever has asked may have gone
                        let _ = done.send(outcome);
                    }
                    Ask::Upgrade(done) => {
                        let outcome = self.upgrade((tell, &mut *changes)).await;
                        let is_over = outcome.is_ok();
                        let _ = done.send(outcome);
                        if is_over {
                            self.wish.send_replace(Wish::Drain);
                        }
                    }
                    Ask::ReopenLog => self.reopen_log(),
                    Ask::Endpoint(asked, done) => {
                        let _ = done.send(self.obey(&asked));
                    }
                },
                _ = self.wished.changed() => {
                    #[cfg(test)]
                    match *self.wished.borrow() {
                        Wish::Panic => panic!("on purpose, on the control thread"),
                        Wish::Fail(worker, way) => self.crew.order(worker, way),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn tell_health(&self, HealthChange { of, cluster, endpoint, healthy }: HealthChange) {
        self.crew.tell(|| Command::Health { of: Arc::clone(&of), cluster, endpoint, healthy });
    }

    /// Whether there is a file to be looked after, and it is to be read anew.
    fn has_changed_file(&mut self, now: Instant) -> bool {
        let is_wanted = self.source.is_some() && self.crew.shared().config.gateway.watch;
        if !is_wanted || now < self.watched {
            return false;
        }
        let has_changed = self.watch.look(now);
        // tens of thousands of files take their time, which nobody else has on this thread
        self.watched = now + WATCH.max((clock::now() - now) * WATCH_SHARE);
        has_changed
    }

    fn reopen_log(&self) {
        if let Some(log) = self.generations.log() {
            log.reopen();
        }
    }

    /// Lets go of generations that nobody uses any more, and of what only they had.
    fn prune(&self) {
        let (old, logs) = self.generations.prune();
        self.crew.shared().stats.control.reloads.set_old(old);
        for log in logs {
            // it may wait for a reader that does not read
            tokio::task::spawn_blocking(move || Arc::into_inner(log).is_none_or(|log| log.stop(FLUSH)));
        }
    }

    /// Looks after the workers.
    pub(super) fn look(&mut self) {
        let now = clock::now();
        self.crew.look(now);
        self.watchdog.look(now);
    }

    async fn drain(&mut self) {
        let limit = self.crew.shared().config.gateway.drain_timeout;
        tracing::info!("draining: no new connections; requests in flight have {limit:?}");
        match self.handed.take() {
            Some(taken) => self.leave_to_next(&taken),
            None => {
                systemd::stopping();
                self.crew.drain();
            }
        }
        let cut = clock::now() + (limit - (limit / 10).min(CUT_BEFORE_DRAIN_ENDS));
        if self.done_until(cut).await {
            tracing::info!("drained");
            return;
        }
        let (connections, requests) = self.left();
        tracing::warn!(
            "ending after {limit:?} (drain_timeout) with connections={connections} requests={requests} cut off"
        );
        self.crew.tell(|| Command::Cut);
        self.done_until(cut + CUT_BEFORE_DRAIN_ENDS).await;
    }

    /// Waits until no worker runs any more, but not longer than `until`.
    async fn done_until(&mut self, until: Instant) -> bool {
        let mut look = interval(DRAIN_LOOK);
        loop {
            if self.crew.is_done() {
                return true;
            }
            if clock::now() >= until {
                return false;
            }
            tokio::select! {
                _ = look.tick() => self.look(),
                Some((config, report)) = self.reported.recv() => reports::log(&config, report),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if !ended.as_ref().is_err_and(JoinError::is_cancelled) {
                        tracing::error!("{}", fault_of(&ended).0);
                    }
                }
                Some(asked) = self.asked.recv() => match asked {
                    Ask::Reload(done) => {
                        let _ = done.send(Err(NotReloaded::Draining));
                    }
                    Ask::Upgrade(done) => {
                        let _ = done.send(Err(NotUpgraded::Draining));
                    }
                    Ask::ReopenLog => self.reopen_log(),
                    // who asks is told that nobody answers any more
                    Ask::Endpoint(..) => {}
                },
            }
        }
    }

    /// Downstream connections that are open, and requests that endpoints have not answered whole.
    fn left(&self) -> (u64, u64) {
        let Shared { stats, config, .. } = &**self.crew.shared();
        let listeners = (0..config.listeners.len()).map(ListenerId::from_index);
        let connections =
            listeners.flat_map(|id| stats.listener_parts(id).touched()).map(|of| of.connections.get()).sum();
        let clusters = (0..config.clusters.len()).map(ClusterId::from_index);
        let active =
            clusters.flat_map(|id| stats.cluster_parts(id).touched()).map(|of| of.connections_active.get()).sum();
        (connections, active)
    }
}
