//! A reload: the file is read and checked whole, what is new is opened, every worker prepares; only then does anything change.
//!
//! | step | may fail because | then |
//! |---|---|---|
//! | read, check | the file is wrong | every error is told |
//! | compare | workers, cores or driver would change | every one is told |
//! | open | an address is taken, the access log cannot be opened, descriptors are too few | every one is told |
//! | prepare | a worker stands still, or lacks a descriptor | it is told |
//! | adopt | – | – |
//!
//! Until the last step the configuration in use is untouched, and what was opened is closed again.

use super::opening::{bind_beside, cannot_listen, cannot_log, fit_descriptors};
use super::thread::{Control, HealthChange};
use super::{LOOK, Wish, interval};
use crate::config::{self, Bind, Config};
use crate::control::admin::AdminListener;
use crate::control::crew::Next;
use crate::control::difference;
use crate::control::endpoints::Wishes;
use crate::control::key_sets::KeySets;
use crate::control::reports;
use crate::control::systemd;
use crate::net::clock;
use crate::net::listener::Bound;
use crate::net::socket_file::SocketFile;
use crate::observe::access_log::AccessLogThread;
use crate::observe::labels::ReloadResult;
use crate::policy::descriptors::Fit;
use crate::policy::router::Router;
use crate::worker::{DoorKey, Shared};
use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How long reading the file, and opening what is new, may take.
const OPENING: Duration = Duration::from_secs(30);

/// How a reload ended.
pub type Outcome = Result<Reloaded, NotReloaded>;

/// A configuration that has come into use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Its number.
    pub generation: u64,
    /// What is different, one line each; none where the file says what it said before.
    pub changes: Vec<String>,
    /// What is worth a second look.
    pub warnings: Vec<String>,
}

/// Why the configuration before is still in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReloaded {
    /// There is no file: the gateway was given its configuration.
    NoFile,
    /// The gateway drains.
    Draining,
    /// The file is wrong, or asks for something that cannot change: every error.
    Wrong(Vec<String>),
    /// It is right and could not be taken into use.
    Failed(Vec<String>),
}

impl NotReloaded {
    /// Why, one text each.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        match self {
            Self::NoFile => vec!["this gateway was started without a file to read".to_owned()],
            Self::Draining => vec!["the gateway drains".to_owned()],
            Self::Wrong(errors) | Self::Failed(errors) => errors.clone(),
        }
    }
}

/// What a configuration needs that the one in use does not have.
struct Opened {
    shared: Shared,
    log: Option<Arc<AccessLogThread>>,
    sockets: Vec<(DoorKey, Vec<OwnedFd>)>,
    files: Vec<(DoorKey, SocketFile)>,
    addresses: Vec<(String, Bind)>,
    fit: Fit,
}

impl Control {
    /// Reads the configuration anew and takes it into use, or says why not. Says so in the log too.
    pub(super) async fn reload(
        &mut self,
        health: (&UnboundedSender<HealthChange>, &mut UnboundedReceiver<HealthChange>),
    ) -> Outcome {
        systemd::reloading();
        let outcome = self.try_reload(health).await;
        systemd::ready();
        // those of the file that is not taken into use are forgotten
        let shared = Arc::clone(self.crew.shared());
        self.names.keep_only(&shared.config, &shared.stats.control);
        self.names.publish(&shared.stats.control);
        // what was learned while this thread was busy
        self.follow_names();
        let reloads = &self.crew.shared().stats.control.reloads;
        match &outcome {
            Ok(Reloaded { generation, changes, warnings }) => {
                reloads.count(ReloadResult::Succeeded);
                tracing::info!("reloaded generation={generation} changes={}", changes.len());
                changes.iter().for_each(|change| tracing::info!("reloaded {}", config::printable(change)));
                warnings.iter().for_each(|warning| tracing::warn!("{}", config::printable(warning)));
            }
            Err(why) => {
                reloads.count(ReloadResult::Failed);
                if matches!(why, NotReloaded::Failed(_)) {
                    self.watch.on_failed(clock::now());
                }
                tracing::error!("not reloaded, the configuration before stays in use: errors={}", why.errors().len());
                // one line an event, however many the error has
                why.errors().iter().for_each(|error| tracing::error!("not reloaded: {}", error.replace("\n   ", ";")));
            }
        }
        outcome
    }

    async fn try_reload(
        &mut self,
        (tell, health): (&UnboundedSender<HealthChange>, &mut UnboundedReceiver<HealthChange>),
    ) -> Outcome {
        if *self.wished.borrow() >= Wish::Drain {
            return Err(NotReloaded::Draining);
        }
        let mut source = self.source.clone().ok_or(NotReloaded::NoFile)?;
        let (old, log, opened) = (Arc::clone(self.crew.shared()), self.generations.log(), self.opened);
        self.watch.on_begin();
        let reading = tokio::task::spawn_blocking(move || {
            let read = source.load();
            (source, read)
        });
        let (source, read) = self.while_busy(reading).await?;
        self.watch.on_read(&source);
        let (config, router) = read.map_err(|wrong| NotReloaded::Wrong(wrong.errors))?;
        let config = self.learn(config).await?;
        let opening = tokio::task::spawn_blocking(move || open((config, router), &old, log, opened));
        let opened = self.while_busy(opening).await??;
        let (old, new) = (Arc::clone(&self.crew.shared().config), Arc::clone(&opened.shared.config));
        let admin = self.next_admin(&old, &new)?;
        let Opened { shared, log, sockets, files, addresses, fit } = opened;
        let next = Next { shared: Arc::new(shared), log: log.clone(), sockets };
        let generation = next.shared.number;
        self.crew.prepare(&next).await.map_err(|error| NotReloaded::Failed(vec![error.to_string()]))?;

        // from here on nothing fails
        while let Ok(changed) = health.try_recv() {
            self.tell_health(changed);
        }
        self.end_probes(&next.shared, fit.probes_max);
        if let (Some(log), Some(words)) = (&log, &new.access_log) {
            log.begin(generation, &new, words);
        }
        // the file is what counts again
        self.wishes = Wishes::default();
        next.shared.commit(clock::now());
        self.generations.begin(&next.shared, log, clock::now());
        next.shared.stats.control.reloads.set_generation(generation, clock::wall());
        self.key_sets = KeySets::follow(&new, Some(&old));
        self.crew.adopt(next).await;
        self.start_probes(tell);
        self.keep_certificates();
        self.share_limits();
        if let Some(admin) = admin {
            self.serve_admin(admin.limited(self.admin_max));
        }
        self.files.extend(files);
        self.files.retain(|(key, _)| new.listeners.iter().any(|listener| DoorKey::of(listener) == *key));
        set_modes(&old, &new);
        addresses.iter().for_each(|(name, address)| tracing::info!("listening listener={name} address={address}"));
        let changes = difference::changes(&old, &new);
        Ok(Reloaded { generation, changes, warnings: config::warnings(&new, clock::wall()) })
    }

    /// Reading and binding may take a while, and a file that hangs (a pipe, a server that is away) takes for ever: meanwhile this thread looks
    /// after everything as before, and ends if it is told to.
    async fn while_busy<T>(&mut self, opening: JoinHandle<T>) -> Result<T, NotReloaded> {
        let failed = |why: &str| Err(NotReloaded::Failed(vec![why.to_owned()]));
        let (mut opening, mut look, mut patience) = (pin!(opening), interval(LOOK), pin!(sleep(OPENING)));
        loop {
            tokio::select! {
                opened = &mut opening => return opened.or_else(|_| failed("the reload has panicked")),
                () = &mut patience => return failed("the file, or what it names, cannot be read or opened in time"),
                _ = look.tick() => self.look(),
                Some((config, report)) = self.reported.recv() => reports::log(&config, report),
                _ = self.wished.changed() => {
                    if *self.wished.borrow() >= Wish::Drain {
                        return Err(NotReloaded::Draining);
                    }
                }
            }
        }
    }

    /// The admin API's next listener, if it is to have another address.
    fn next_admin(&self, old: &Config, new: &Config) -> Result<Option<AdminListener>, NotReloaded> {
        let listen = &new.admin.listen;
        if old.admin.listen == *listen {
            return Ok(None);
        }
        let bound = AdminListener::bind(listen);
        bound.map(Some).map_err(|error| NotReloaded::Failed(vec![cannot_listen("admin", listen, &error).to_string()]))
    }
}

/// Opens what is new about a configuration, if it may be taken into use.
fn open(
    (config, router): (Config, Router),
    old: &Shared,
    log: Option<Arc<AccessLogThread>>,
    opened: u64,
) -> Result<Opened, NotReloaded> {
    let forbidden = difference::forbidden(&old.config, &config);
    if !forbidden.is_empty() {
        return Err(NotReloaded::Wrong(forbidden));
    }
    let config = Arc::new(config);
    let (mut sockets, mut files, mut addresses, mut errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let known: Vec<DoorKey> = old.config.listeners.iter().map(DoorKey::of).collect();
    for listener in config.listeners.iter().filter(|listener| !known.contains(&DoorKey::of(listener))) {
        let key = DoorKey::of(listener);
        let known = old.config.listeners.iter().filter_map(|listener| match listener.bind {
            Bind::Tcp(address) => Some(address),
            Bind::Unix(_) => None,
        });
        match bind_beside(known, listener, config.gateway.cores.len()) {
            Ok(Bound { sockets: bound, address, file }) => {
                files.extend(file.map(|file| (key.clone(), file)));
                sockets.push((key, bound));
                addresses.push((listener.name.clone(), address));
            }
            Err(error) => errors.push(cannot_listen(&listener.name, &listener.bind, &error).to_string()),
        }
    }
    let stats = old.stats.succeed(&config);
    let log = match &config.access_log {
        None => None,
        Some(new) if old.config.access_log.as_ref().is_some_and(|old| old.path == new.path) => log,
        Some(new) => match AccessLogThread::open(new, &stats) {
            Ok(log) => Some(Arc::new(log)),
            Err(error) => {
                errors.push(cannot_log(new, &error).to_string());
                None
            }
        },
    };
    let fit = fit_descriptors(&config, opened).map_err(|error| errors.push(error.to_string())).ok();
    match fit.filter(|_| errors.is_empty()) {
        Some(fit) => {
            let shared = old.succeed(config, router, stats, &fit);
            Ok(Opened { shared, log, sockets, files, addresses, fit })
        }
        None => Err(NotReloaded::Failed(errors)),
    }
}

/// The files of unix sockets that stay get the permissions that they are to have now.
fn set_modes(old: &Config, new: &Config) {
    for listener in &new.listeners {
        let before = old.listeners.iter().find(|before| before.bind == listener.bind);
        if let (Bind::Unix(path), Some(before)) = (&listener.bind, before)
            && before.unix_mode != listener.unix_mode
            && let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(listener.unix_mode))
        {
            tracing::warn!("listener {:?}: unix_mode cannot be set: {error}", listener.name);
        }
    }
}
