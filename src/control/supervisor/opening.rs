//! What a gateway opens before it begins: listeners, the access log, and the descriptors that there are; and what is said when it cannot.

use super::StartError;
use crate::config::{AccessLog, Bind, Config, Driver, Listener, Lookup};
use crate::control::admin::AdminListener;
use crate::control::crew::{NoCrew, reasons};
use crate::control::quotas;
use crate::control::systemd::Activation;
use crate::control::upgrade::Inheritance;
use crate::limits::LOOKUPS_MAX;
use crate::net::clock;
use crate::net::driver::Step;
use crate::net::listener::{self, Bound};
use crate::net::resources;
use crate::net::socket_file::SocketFile;
use crate::observe::access_log::AccessLogThread;
use crate::observe::stats::Stats;
use crate::policy::descriptors::{self, Fit, Wanted};
use crate::worker::{DoorKey, Shared};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What the admin API's listening takes.
const ADMIN_SOCKETS: u64 = 1;

/// All listeners, bound.
pub(super) struct Bindings {
    /// `[worker][listener]`
    pub(super) sockets: Vec<Vec<OwnedFd>>,
    /// By name.
    pub(super) addresses: Vec<(String, Bind)>,
    pub(super) files: Vec<(DoorKey, SocketFile)>,
}

/// Binds what was neither inherited nor given by systemd.
pub(super) fn bind_all(
    config: &Config,
    workers: usize,
    mut inherited: Option<&mut Inheritance>,
) -> Result<Bindings, StartError> {
    let mut activation = Activation::receive()
        .map_err(|error| StartError(format!("the sockets that systemd gives cannot be used: {error}")))?;
    let mut all =
        Bindings { sockets: (0..workers).map(|_| Vec::new()).collect(), addresses: Vec::new(), files: Vec::new() };
    for listener in &config.listeners {
        let bound = match inherited.as_deref_mut() {
            None => activation
                .take(listener, workers)
                .unwrap_or_else(|| listener::bind(&listener.bind, listener.unix_mode, workers)),
            Some(inherited) => inherited
                .take(listener, workers)
                .unwrap_or_else(|| bind_beside(inherited.addresses(), listener, workers)),
        };
        let Bound { sockets, address, file } = bound.map_err(|e| cannot_listen(&listener.name, &listener.bind, &e))?;
        all.sockets.iter_mut().zip(sockets).for_each(|(of_worker, socket)| of_worker.push(socket));
        all.addresses.push((listener.name.clone(), address));
        all.files.extend(file.map(|file| (DoorKey::of(listener), file)));
    }
    for socket in activation.left() {
        tracing::warn!("systemd gives a socket that no listener has, by name or by address: {socket}");
    }
    Ok(all)
}

/// The admin API's listener, inherited or bound, and where it listens. Must be called within the control thread's runtime.
pub(super) fn open_admin(
    listen: &Bind,
    inherited: Option<&mut Inheritance>,
) -> Result<(AdminListener, Bind), StartError> {
    let admin = match inherited.and_then(|inherited| inherited.take_admin(listen)) {
        Some(socket) => AdminListener::inherit(socket, listen),
        None => AdminListener::bind(listen),
    };
    admin
        .and_then(|admin| admin.local().map(|address| (admin, address)))
        .map_err(|error| cannot_listen("admin", listen, &error))
}

/// Goes on with quotas of before a restart, and with what the process before knows by now, which has to be the last thing before workers begin.
pub(super) fn take_on(shared: &Shared, inherited: Option<&mut Inheritance>) -> Result<(), StartError> {
    quotas::load(shared);
    let Some(inherited) = inherited else { return Ok(()) };
    let lost = |error| StartError(format!("the process before does not hand over any more: {error}"));
    shared.take_on(inherited.prepare().map_err(lost)?, clock::now());
    Ok(())
}

/// Says who runs how, and where the gateway listens.
pub(super) fn tell_begun(config: &Config, step: Step, addresses: &[(String, Bind)]) {
    for index in 0..config.gateway.cores.len() {
        tracing::info!("worker={index} core={} driver={step}", core_name(config, index));
    }
    for (name, address) in addresses {
        tracing::info!("listening listener={name} address={address}");
    }
}

/// Binds a new listener while others are open. One that is to have all addresses of a port of which another has one, or one where another has
/// all, meets that, which goes or stays as the configuration says.
pub(super) fn bind_beside(
    mut others: impl Iterator<Item = SocketAddr>,
    listener: &Listener,
    workers: usize,
) -> io::Result<Bound> {
    let mut meets = |address: SocketAddr| {
        others.any(|other| {
            other.port() == address.port()
                && other.is_ipv4() == address.is_ipv4()
                && (other.ip().is_unspecified() || address.ip().is_unspecified())
        })
    };
    match listener.bind {
        Bind::Tcp(address) if meets(address) => listener::bind_over(address, workers),
        _ => listener::bind(&listener.bind, listener.unix_mode, workers),
    }
}

pub(super) fn open_log(config: &Arc<Config>, stats: &Arc<Stats>) -> Result<Option<Arc<AccessLogThread>>, StartError> {
    let Some(log) = &config.access_log else { return Ok(None) };
    let thread = AccessLogThread::start(config, log, stats).map_err(|e| cannot_log(log, &e))?;
    Ok(Some(Arc::new(thread)))
}

pub(super) fn cannot_log(log: &AccessLog, error: &io::Error) -> StartError {
    StartError(format!("cannot open the access log ({}): {error}{}", log.path, advice(error)))
}

/// Divides the descriptors that there are; says so when they are fewer than the configuration may need. `opened`: what was open at the start,
/// when all was bound and opened but for the admin API's socket, and no client had come.
pub(super) fn fit_descriptors(config: &Config, opened: u64) -> Result<Fit, StartError> {
    let granted = resources::descriptors_max();
    let workers = config.gateway.cores.len() as u64;
    let wanted = Wanted {
        open: opened + ADMIN_SOCKETS + lookups(config),
        workers,
        listeners: config.listeners.len() as u64,
        connections: config.listeners.iter().map(|listener| listener.connections_max as u64).sum(),
        idle: workers * config.clusters.iter().map(|cluster| cluster.idle_max as u64).sum::<u64>(),
        checked: checked(config),
    };
    let fit = descriptors::fit(granted, &wanted).map_err(|least| {
        StartError(format!(
            "{granted} descriptors are allowed (RLIMIT_NOFILE), and {workers} workers need {least} at least: raise the \
             limit (ulimit -n, LimitNOFILE= of a service) or lower gateway.workers"
        ))
    })?;
    if let Some(connections) = fit.connections_max {
        tracing::info!(
            "{granted} descriptors are allowed (RLIMIT_NOFILE): at most {connections} connections of clients at once, of the \
             {} that max_connections allows; one more is refused. Raise the limit (ulimit -n, LimitNOFILE= of a service)",
            wanted.connections
        );
    }
    Ok(fit)
}

/// Sockets that lookups of names may have at once: one for each family.
fn lookups(config: &Config) -> u64 {
    let names = config.lookups().filter(|lookup| !matches!(lookup, Lookup::File(_))).count();
    2 * names.min(LOOKUPS_MAX) as u64
}

/// Endpoints that are checked; of a name as many as it has now, and one at least.
fn checked(config: &Config) -> u64 {
    let checked = config.clusters.iter().filter(|cluster| cluster.health_check.is_some());
    checked.map(|cluster| cluster.endpoints.len().max(cluster.names.len()) as u64).sum()
}

pub(super) fn cannot_listen(name: &str, bind: &Bind, error: &io::Error) -> StartError {
    let what_to_do = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process listens there; stop it or choose another address",
        io::ErrorKind::PermissionDenied => {
            ": it is not permitted; ports below 1024 need CAP_NET_BIND_SERVICE, a socket file a writable folder"
        }
        io::ErrorKind::AlreadyExists => ": move it away or choose another path",
        io::ErrorKind::AddrNotAvailable => ": this machine has no such address",
        _ => advice(error),
    };
    let what_to_do = if what_to_do.is_empty() { ": check the address" } else { what_to_do };
    StartError(format!("listener {name:?} cannot listen on {bind}: {error}{what_to_do}"))
}

pub(super) fn no_thread(what: &str, error: &io::Error) -> StartError {
    StartError(format!("cannot start {what}: {error}{}", advice(error)))
}

pub(super) fn no_worker(config: &Config, why: &NoCrew) -> StartError {
    let driver = config.gateway.driver;
    match why {
        NoCrew::Thread(error) => no_thread("the workers", error),
        NoCrew::Begin(error) => StartError(format!("the workers cannot begin: {error}{}", advice(error))),
        NoCrew::Refused(refused) => {
            let reasons: Vec<_> = reasons(refused).collect();
            let instead = match driver {
                Driver::IoUring => "; driver = \"auto\" runs on epoll instead",
                Driver::Multishot | Driver::DeferTaskrun | Driver::CoopTaskrun | Driver::Plain => {
                    "; driver = \"auto\" takes the best that is to be had"
                }
                Driver::Auto | Driver::Epoll => "",
            };
            StartError(format!("cannot start the workers with driver = \"{driver}\": {}{instead}", reasons.join("; ")))
        }
    }
}

/// What to do where the system lacks something; empty for other errors.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            ": no descriptor is left (RLIMIT_NOFILE): raise the limit (ulimit -n, LimitNOFILE= of a service) or lower gateway.workers"
        }
        Some(libc::ENFILE) => ": no descriptor is left on this machine: raise the sysctl fs.file-max",
        Some(libc::EAGAIN) => {
            ": no thread is left (RLIMIT_NPROC): raise the limit (ulimit -u, LimitNPROC= or TasksMax= of a service) or lower gateway.workers"
        }
        Some(libc::ENOMEM | libc::ENOBUFS) => ": no memory is left on this machine or in this container",
        _ => "",
    }
}

fn core_name(config: &Config, worker: usize) -> String {
    config.gateway.cores[worker].map_or_else(|| "any".to_owned(), |core| core.to_string())
}
