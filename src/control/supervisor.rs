//! Starts the gateway, keeps its workers running, and ends it.
//!
//! Everything that can fail at a start fails here, before the first connection is accepted, with a sentence that says what to do.
//! Afterwards one control thread (tokio, current-thread) serves the admin API, runs the probes and watches the workers ([`Crew`]).

mod names;
mod opening;
mod reload;
mod signals;
mod thread;
mod upgrade;

use super::admin::{AdminListener, Lifecycle, Phase};
use super::crew::Crew;
use super::endpoints::{Asked, Refused, Wishes};
use super::generations::Generations;
use super::key_sets::KeySets;
use super::memory::Memory;
use super::names::Names;
use super::process;
use super::source::{Source, Watch};
use super::systemd::{self, Watchdog};
use super::upgrade::{Inheritance, NotUpgraded, Upgraded};
use crate::config::{Bind, Config};
use crate::net::{clock, resources};
use crate::observe::access_log::AccessLogThread;
use crate::observe::stats::Stats;
use crate::policy::router::Router;
use crate::worker::Shared;
use opening::{Bindings, bind_all, fit_descriptors, no_thread, no_worker, open_admin, open_log, take_on, tell_begun};
pub use reload::{NotReloaded, Outcome, Reloaded};
use signals::Signals;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use thread::{Control, Limiting};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
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

/// What the control thread is asked for while the gateway runs.
enum Ask {
    /// To read the configuration anew.
    Reload(oneshot::Sender<Outcome>),
    /// To have the next process take over.
    Upgrade(oneshot::Sender<Result<Upgraded, NotUpgraded>>),
    /// To open the access log's file anew.
    ReopenLog,
    /// To change an endpoint.
    Endpoint(Asked, oneshot::Sender<Result<(), Refused>>),
}

/// Asks the control thread for something; nothing is ever told if it is not there any more.
fn ask<T>(asks: &mpsc::UnboundedSender<Ask>, what: impl FnOnce(oneshot::Sender<T>) -> Ask) -> oneshot::Receiver<T> {
    let (done, outcome) = oneshot::channel();
    let _ = asks.send(what(done));
    outcome
}

/// A running gateway.
pub struct Gateway {
    generations: Arc<Generations>,
    addresses: Vec<(String, Bind)>,
    wish: watch::Sender<Wish>,
    asks: mpsc::UnboundedSender<Ask>,
    control: JoinHandle<Result<(), Fault>>,
}

impl Gateway {
    /// Compiles the routes, and then as [`Gateway::start_with`].
    ///
    /// # Errors
    /// The routes cannot be compiled, or as [`Gateway::start_with`].
    pub fn start(config: Config) -> Result<Self, StartError> {
        let router = Router::try_new(&config).map_err(|e| StartError(e.to_string()))?;
        Self::start_with(config, router, None, None)
    }

    /// Binds every listener, starts the workers and the control thread, and returns when all of them run. `router` is compiled from
    /// `config`, and both are what `source` has loaded, which is read anew when the gateway is to reload; without one it cannot. What is
    /// inherited from another process it goes on with, and that one is told whether it does.
    ///
    /// # Errors
    /// An address is taken or forbidden, the access log cannot be opened, a thread cannot be started, or the driver asked for is not
    /// available.
    pub fn start_with(
        config: Config,
        router: Router,
        source: Option<Source>,
        mut inherited: Option<Inheritance>,
    ) -> Result<Self, StartError> {
        let started = Self::open(config, router, source, inherited.as_mut());
        match (&started, inherited) {
            (Ok(_), Some(inherited)) => inherited.serve(),
            (Ok(_), None) => systemd::ready(),
            (Err(StartError(why)), Some(inherited)) => inherited.decline(vec![why.clone()]),
            (Err(_), None) => {}
        }
        started
    }

    fn open(
        config: Config,
        router: Router,
        source: Option<Source>,
        mut inherited: Option<&mut Inheritance>,
    ) -> Result<Self, StartError> {
        let workers = config.gateway.cores.len();
        // of both, before any is needed; on some kernels rings count as locked memory, and what is refused is logged by who is refused
        let _ = (resources::raise_descriptors(), resources::raise_locked());
        let Bindings { sockets, mut addresses, files } = bind_all(&config, workers, inherited.as_deref_mut())?;
        let (runtime, give, control) = control_thread()?;
        let (names, config) = learn_names(config)?;
        let stats = Stats::new(&config, workers);
        names.publish(&stats.control);
        let log = open_log(&config, &stats)?;
        let (reports, reported) = mpsc::channel(REPORTS_MAX);
        let opened = process::open_descriptors();
        let fit = fit_descriptors(&config, opened)?;
        let shared = Arc::new(Shared::new(Arc::clone(&config), router, Arc::clone(&stats), &fit));
        let mut crew = Crew::new(Arc::clone(&shared), log.clone(), sockets, reports);
        let mustered = crew.muster(clock::now()).map_err(|e| no_worker(&config, &e))?;
        // last, because a predecessor may have to let go of it
        let (admin_listener, admin_address) = {
            let _inside = runtime.enter();
            open_admin(&config.admin.listen, inherited.as_deref_mut())?
        };
        take_on(&shared, inherited)?;
        addresses.push(("admin".to_owned(), admin_address));
        let step = crew.begin(mustered).map_err(|e| no_worker(&config, &e))?;
        let lifecycle = Lifecycle::new();
        lifecycle.set(Phase::Serving);
        let generations = first_generation(&shared, log);
        let (wish, wished) = watch::channel(Wish::Run);
        let (asks, asked) = mpsc::unbounded_channel();
        let owned = Control {
            crew,
            watch: source.as_ref().map(Watch::of).unwrap_or_default(),
            source,
            watched: clock::now(),
            keys_made: clock::now(),
            names,
            key_sets: KeySets::default(),
            wishes: Wishes::default(),
            followers: None,
            is_behind: false,
            generations: Arc::clone(&generations),
            lifecycle,
            wish: wish.clone(),
            wished,
            asks: asks.clone(),
            asked,
            reported,
            memory: Memory::default(),
            limiting: Limiting::default(),
            tasks: JoinSet::new(),
            admin: None,
            probes: None,
            certificates: Vec::new(),
            files,
            handed: None,
            watchdog: Watchdog::asked_for(),
            opened,
            probes_max: fit.probes_max,
            admin_max: fit.admin_max,
        };
        // it waits for this, and for nothing else
        let _ = give.send((owned, admin_listener.limited(fit.admin_max)));
        tell_begun(&config, step, &addresses);
        Ok(Self { generations, addresses, wish, asks, control })
    }

    /// The gateway's numbers, as of the configuration in use.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.current().stats)
    }

    /// What the workers share under the configuration in use.
    #[must_use]
    pub fn current(&self) -> Arc<Shared> {
        self.generations.current()
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

    /// Has the access log's file opened anew; returns at once.
    pub fn reopen_log(&self) {
        // who is not there any more has nothing open
        let _ = self.asks.send(Ask::ReopenLog);
    }

    /// Has the configuration read anew and taken into use; what comes of it is told by what is returned, and logged. Returns at once.
    pub fn reload(&self) -> oneshot::Receiver<Outcome> {
        ask(&self.asks, Ask::Reload)
    }

    /// Has the next process take over, and drains when that serves; as [`Gateway::reload`].
    pub fn upgrade(&self) -> oneshot::Receiver<Result<Upgraded, NotUpgraded>> {
        ask(&self.asks, Ask::Upgrade)
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
        for log in self.generations.take_logs() {
            if Arc::into_inner(log).is_some_and(|log| !log.stop(FLUSH)) {
                tracing::warn!("the last lines of the access log could not be written");
            }
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

/// The one that a gateway begins with.
fn first_generation(shared: &Arc<Shared>, log: Option<Arc<AccessLogThread>>) -> Arc<Generations> {
    let generations = Arc::<Generations>::default();
    generations.begin(shared, log, clock::now());
    shared.stats.control.reloads.set_generation(shared.number, clock::wall());
    generations
}

/// What is known of the names of a configuration, and the configuration with that.
fn learn_names(config: Config) -> Result<(Names, Arc<Config>), StartError> {
    let mut names = Names::new(&config);
    names.learn_at_start().map_err(|e| no_thread("the resolver", &e))?;
    for lookup in names.unknown() {
        tracing::warn!("name={lookup} has no endpoint yet; requests that need it are answered with 503 until it has");
    }
    let config = config.told(&|lookup| names.answer(lookup), &HashMap::new()).0;
    Ok((names, Arc::new(config)))
}

/// The control thread, which waits for what it is to own and ends if that does not come, and its runtime.
#[expect(clippy::type_complexity, reason = "taken apart at once")]
fn control_thread() -> Result<(Handle, Sender<(Control, AdminListener)>, JoinHandle<Result<(), Fault>>), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| no_thread("the control plane", &e))?;
    let handle = runtime.handle().clone();
    let (give, given) = channel::<(Control, AdminListener)>();
    let run = move || match given.recv() {
        Ok((control, admin_listener)) => {
            let ended = runtime.block_on(control.run(admin_listener));
            // a reload may hang in a file that cannot be read: nobody waits for that
            runtime.shutdown_background();
            ended
        }
        Err(_) => Ok(()),
    };
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(run);
    Ok((handle, give, thread.map_err(|e| no_thread("the control thread", &e))?))
}

/// Runs a gateway until it is told to end: SIGTERM, SIGINT and SIGQUIT drain, a second one ends the process at once with the shell's usual
/// code; SIGHUP reads `source` anew, SIGUSR1 opens the access log anew, SIGUSR2 has the next process take over. `config` and `router` are what
/// `source` has loaded; `inherited` comes from the process before, if this one takes over.
///
/// # Errors
/// As [`Gateway::start_with`] and [`Gateway::join`].
pub fn run(config: Config, router: Router, source: Source, inherited: Option<Inheritance>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| no_thread("the signal handler", &e))?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(|e| StartError(format!("cannot handle signals: {e}")))?
    };
    let gateway = runtime.block_on(async {
        let (gateway, told) =
            signals.start(move || Gateway::start_with(config, router, Some(source), inherited)).await?;
        signals.obey(&gateway, told).await;
        Ok::<_, StartError>(gateway)
    })?;
    Ok(gateway.join()?)
}

/// Ticks that are missed are not made up for: after a break (SIGSTOP) one look is enough.
fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

#[cfg(test)]
mod tests;
