//! Starts the gateway, keeps its workers running, and ends it.
//!
//! Everything that can fail at a start fails here, before the first connection is accepted, with a sentence that says what to do.
//! Afterwards one control thread (tokio, current-thread) serves the admin API, runs the probes and watches the workers ([`Crew`]).

mod opening;
mod signals;

use super::admin::{self, AdminListener, AdminState, Lifecycle, Phase};
use super::crew::Crew;
use super::memory::{self, Memory};
use super::probes::{Checked, Probes};
use super::reports;
use crate::config::{Bind, Config};
use crate::limits::CUT_BEFORE_DRAIN_ENDS;
use crate::net::guarded::guarded;
use crate::net::socket_file::SocketFile;
use crate::net::{clock, heap, resources};
use crate::observe::access_log::AccessLogThread;
use crate::observe::stats::Stats;
use crate::policy::router::Router;
use crate::units::{Instant, Rng};
use crate::worker::{Command, Report, Shared};
use opening::{Bindings, bind_all, cannot_listen, core_name, fit_descriptors, no_thread, no_worker, open_log};
use rand::SeedableRng;
use signals::Signals;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior};

/// How often the workers are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// The same during a drain: who waits for the end of the process waits for the last look.
const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// Reports of workers that wait to be logged; what does not fit is lost, and is in the metrics all the same.
const REPORTS_MAX: usize = 1_024;
/// How long the last lines of the access log may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// Why the gateway cannot start, in a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    /// With this sentence.
    #[must_use]
    pub fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

/// A gateway that ran could not go on: something of its control plane has failed. It has drained, so nothing in flight was lost by that.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the gateway has drained and ended, because {0}")]
pub struct Fault(String);

/// Why [`run`] returns without having been told to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It did, and could not go on.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// How a gateway is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wish {
    Run,
    /// The control thread is to panic, for the test of what comes of that.
    #[cfg(test)]
    Panic,
    /// A worker is to fail.
    #[cfg(test)]
    Fail(usize, crate::worker::failing::Way),
    Drain,
    /// Nobody ever does.
    Never,
}

/// A running gateway.
pub struct Gateway {
    stats: Arc<Stats>,
    addresses: Vec<(String, Bind)>,
    wish: watch::Sender<Wish>,
    control: JoinHandle<Result<(), Fault>>,
    log: Option<Arc<AccessLogThread>>,
    /// For tests of what the workers hold.
    #[cfg(test)]
    shared: Arc<Shared>,
    /// Of listeners; they remove themselves at the end.
    _files: Vec<SocketFile>,
}

impl Gateway {
    /// Compiles the routes, and then as [`Gateway::start_with`].
    ///
    /// # Errors
    /// The routes cannot be compiled, or as [`Gateway::start_with`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        let router = Router::try_new(&config).map_err(|e| StartError(e.to_string()))?;
        Self::start_with(config, router)
    }

    /// Binds every listener, starts the workers and the control thread, and returns when all of them run. `router` is compiled from
    /// `config`.
    ///
    /// # Errors
    /// An address is taken or forbidden, the access log cannot be opened, a thread cannot be started, or the driver asked for is not
    /// available.
    pub fn start_with(config: Config, router: Router) -> Result<Self, StartError> {
        let workers = config.gateway.cores.len();
        // of both, before any is needed; on some kernels rings count as locked memory, and what is refused is logged by who is refused
        let _ = (resources::raise_descriptors(), resources::raise_locked());
        let Bindings { sockets, mut addresses, files } = bind_all(&config, workers)?;
        let (runtime, give, control) = control_thread()?;
        let config = Arc::new(config);
        let stats = Stats::new(&config, workers);
        let log = open_log(&config, &stats)?;
        let (reports, reported) = mpsc::channel(REPORTS_MAX);
        let fit = fit_descriptors(&config)?;
        let shared = Shared::new(Arc::clone(&config), router, Arc::clone(&stats), reports, &fit);
        let shared = Arc::new(shared);
        let mut crew = Crew::new(Arc::clone(&shared), log.clone(), sockets);
        let mustered = crew.muster(clock::now()).map_err(|e| no_worker(&config, &e))?;
        // last, because a predecessor may have to let go of it
        let (admin_listener, admin_address) = {
            let _inside = runtime.enter();
            AdminListener::bind(&config.admin.listen).and_then(|admin| admin.local().map(|address| (admin, address)))
        }
        .map_err(|e| cannot_listen("admin", &config.admin.listen, &e))?;
        addresses.push(("admin".to_owned(), admin_address));
        let step = crew.begin(mustered).map_err(|e| no_worker(&config, &e))?;
        let lifecycle = Lifecycle::new();
        lifecycle.set(Phase::Serving);

        let (wish, wished) = watch::channel(Wish::Run);
        let owned = Control {
            crew,
            config: Arc::clone(&config),
            stats: Arc::clone(&stats),
            lifecycle,
            wish: wish.clone(),
            wished,
            reported,
            memory: Memory::default(),
            tasks: JoinSet::new(),
            probes_max: fit.probes_max,
        };
        // it waits for this, and for nothing else
        let _ = give.send((owned, admin_listener.limited(fit.admin_max)));
        for index in 0..workers {
            tracing::info!("worker={index} core={} driver={step}", core_name(&config, index));
        }
        for (name, address) in &addresses {
            tracing::info!("listening listener={name} address={address}");
        }
        Ok(Self {
            stats,
            addresses,
            wish,
            control,
            log,
            #[cfg(test)]
            shared,
            _files: files,
        })
    }

    /// The gateway's numbers.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Where it listens: every listener by name, then `admin`, with the ports that the kernel chose.
    #[must_use]
    pub fn addresses(&self) -> &[(String, Bind)] {
        &self.addresses
    }

    /// Begins the drain; returns at once.
    pub fn drain(&self) {
        self.wish.send_replace(Wish::Drain);
    }

    /// Opens the access log's file anew.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// True when it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.control.is_finished()
    }

    /// Waits until it has drained and ended.
    ///
    /// # Errors
    /// It has ended by itself.
    pub fn join(self) -> Result<(), Fault> {
        let ended =
            self.control.join().unwrap_or_else(|_| Err(Fault("the control thread has panicked twice".to_owned())));
        if let Some(log) = self.log.and_then(Arc::into_inner)
            && !log.stop(FLUSH)
        {
            tracing::warn!("the last lines of the access log could not be written");
        }
        ended
    }

    /// Drains and waits for the end.
    ///
    /// # Errors
    /// As [`Gateway::join`].
    pub fn drain_and_stop(self) -> Result<(), Fault> {
        self.drain();
        self.join()
    }
}

/// The control thread, which waits for what it is to own and ends if that does not come, and its runtime.
#[expect(clippy::type_complexity, reason = "taken apart at once")]
fn control_thread() -> Result<(Handle, Sender<(Control, AdminListener)>, JoinHandle<Result<(), Fault>>), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| no_thread("the control plane", &e))?;
    let handle = runtime.handle().clone();
    let (give, given) = channel::<(Control, AdminListener)>();
    let run = move || match given.recv() {
        Ok((control, admin_listener)) => runtime.block_on(control.run(admin_listener)),
        Err(_) => Ok(()),
    };
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(run);
    Ok((handle, give, thread.map_err(|e| no_thread("the control thread", &e))?))
}

/// Runs a gateway until it is told to end: SIGTERM, SIGINT and SIGQUIT drain, a second one ends the process at once with the shell's usual
/// code; SIGUSR1 opens the access log anew.
///
/// # Errors
/// As [`Gateway::start_with`] and [`Gateway::join`].
pub fn run(config: Config, router: Router) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| no_thread("the signal handler", &e))?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(|e| StartError(format!("cannot handle signals: {e}")))?
    };
    let gateway = runtime.block_on(async {
        let (gateway, told) = signals.start(move || Gateway::start_with(config, router)).await?;
        signals.obey(&gateway, told).await;
        Ok::<_, StartError>(gateway)
    })?;
    Ok(gateway.join()?)
}

/// What the end of something means that this thread runs and that does not end.
fn fault_of(ended: &Result<(), JoinError>) -> Fault {
    Fault(match ended {
        Ok(()) => "the admin API or the health checks have ended".to_owned(),
        Err(error) => format!("the admin API or the health checks have panicked ({error})"),
    })
}

/// Ticks that are missed are not made up for: after a break (SIGSTOP) one look is enough.
fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What the control thread owns.
struct Control {
    crew: Crew,
    config: Arc<Config>,
    stats: Arc<Stats>,
    lifecycle: Arc<Lifecycle>,
    wish: watch::Sender<Wish>,
    wished: watch::Receiver<Wish>,
    reported: mpsc::Receiver<Report>,
    memory: Memory,
    /// What else this thread runs; none of it ends before the thread does.
    tasks: JoinSet<()>,
    probes_max: usize,
}

impl Control {
    /// Looks after everything until it is told to end, or cannot go on, and then drains.
    async fn run(mut self, admin_listener: AdminListener) -> Result<(), Fault> {
        let watched = guarded(self.watch(admin_listener)).await;
        let watched = watched.unwrap_or_else(|| Err(Fault("the control thread has panicked".to_owned())));
        if let Err(Fault(reason)) = &watched {
            tracing::error!("{reason}; the gateway drains and ends, with an exit code that says so");
            self.lifecycle.set(Phase::Draining);
        }
        let drained = guarded(self.drain()).await;
        // what the workers said last
        while let Ok(report) = self.reported.try_recv() {
            reports::log(&self.config, report);
        }
        watched.and(drained.ok_or_else(|| Fault("the control thread has panicked in the drain".to_owned())))
    }

    /// Starts what this thread runs, and stays until the drain is to begin.
    async fn watch(&mut self, admin_listener: AdminListener) -> Result<(), Fault> {
        let wish = self.wish.clone();
        let state = AdminState {
            config: Arc::clone(&self.config),
            stats: Arc::clone(&self.stats),
            lifecycle: Arc::clone(&self.lifecycle),
            clock: clock::now,
            drain: Box::new(move || {
                wish.send_replace(Wish::Drain);
            }),
        };
        self.tasks.spawn(async move {
            if let Err(error) = admin::serve(admin_listener, state).await {
                tracing::error!("the admin listener has ended: {error}");
            }
        });
        let (report, mut verdicts) = mpsc::unbounded_channel();
        let shared = Arc::clone(self.crew.shared());
        #[expect(clippy::disallowed_methods, reason = "the one seed of the probes' own generator")]
        let rng = Rng::from_rng(&mut rand::rng());
        let probes = Probes::new(
            Arc::clone(&self.config),
            Arc::clone(&self.stats),
            clock::now,
            rng,
            self.probes_max,
            move |Checked { cluster, endpoint, passed, change }| {
                let standings = &shared.clusters[cluster.index()].standings;
                if passed {
                    standings.on_check_passed(endpoint, clock::now());
                }
                if let Some(healthy) = change {
                    standings.set_healthy(endpoint, healthy);
                    // nobody listens any more once the drain has begun
                    let _ = report.send(Command::Health { cluster, endpoint, healthy });
                }
            },
        );
        self.tasks.spawn(probes.run());
        self.watch_until(Instant::NEVER, &mut verdicts, Wish::Drain).await?;
        let delay = self.config.gateway.drain_delay;
        self.lifecycle.set(Phase::Draining);
        if !delay.is_zero() {
            tracing::info!("draining in {delay:?} (drain_delay): /readyz says so, connections are still taken");
            self.watch_until(clock::now() + delay, &mut verdicts, Wish::Never).await?;
        }
        Ok(())
    }

    /// Looks after the workers until `until`, or until this is wished for.
    ///
    /// # Errors
    /// Something else that this thread runs has ended.
    async fn watch_until(
        &mut self,
        until: Instant,
        verdicts: &mut mpsc::UnboundedReceiver<Command>,
        wish: Wish,
    ) -> Result<(), Fault> {
        let mut look = interval(LOOK);
        while *self.wished.borrow() < wish && clock::now() < until {
            tokio::select! {
                _ = look.tick() => {
                    self.crew.look(clock::now());
                    self.memory.look(clock::now(), memory::resident_bytes, heap::give_back);
                }
                Some(verdict) = verdicts.recv() => self.crew.tell(verdict),
                Some(report) = self.reported.recv() => reports::log(&self.config, report),
                Some(ended) = self.tasks.join_next() => return Err(fault_of(&ended)),
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

    async fn drain(&mut self) {
        let limit = self.config.gateway.drain_timeout;
        tracing::info!("draining: no new connections; requests in flight have {limit:?}");
        self.crew.drain();
        let cut = clock::now() + (limit - (limit / 10).min(CUT_BEFORE_DRAIN_ENDS));
        if self.done_until(cut).await {
            tracing::info!("drained");
            return;
        }
        let (connections, requests) = self.left();
        tracing::warn!(
            "ending after {limit:?} (drain_timeout) with connections={connections} requests={requests} cut off"
        );
        self.crew.tell(Command::Cut);
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
                _ = look.tick() => self.crew.look(clock::now()),
                Some(report) = self.reported.recv() => reports::log(&self.config, report),
                Some(ended) = self.tasks.join_next() => tracing::error!("{}", fault_of(&ended).0),
            }
        }
    }

    /// Downstream connections that are open, and requests that endpoints have not answered whole.
    fn left(&self) -> (u64, u64) {
        let stats = &self.stats;
        let connections = stats.lives().flat_map(|life| &life.listeners).map(|of| of.connections.get()).sum();
        let clusters = 0..self.config.clusters.len();
        let active = |cluster| stats.lives().filter_map(move |life| life.clusters.get(cluster));
        (connections, clusters.flat_map(active).map(|cluster| cluster.connections_active.get()).sum())
    }
}

#[cfg(test)]
mod tests;
