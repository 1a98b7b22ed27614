//! Gateways under test: found on this machine, configured alike, started, reloaded, scraped.
//!
//! All get the same workers and cores, the same pools of kept connections and no access log; what makes a difference when endpoints fail
//! stands in the module of each, and is what its documentation begins with. A user's own configuration can take the place of the generated
//! one. As children of [`crate::processes`] they never outlive the tool.
//!
//! What it does not do: judge them.

mod envoy;
mod front;
mod haproxy;
mod nginx;
mod page;
mod program;
mod ringgate;
mod setup;
mod template;

pub use front::Front;
pub use program::Program;
pub use ringgate::{BuiltIn, built_in};
pub use setup::{Endpoint, Route, Setup};
pub use template::Template;

use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

use crate::clock;
use crate::processes::{Child, Error, FOLDER_PREFIX, Port, Spec, descendants};
use setup::Place;

/// How long a gateway may take to start or to load its configuration anew, on a machine that is busy.
const START: Duration = Duration::from_secs(20);
/// HAProxy's master is deaf for a moment when it has just started: a signal that nothing follows is sent again.
const SIGNAL_AGAIN: Duration = Duration::from_secs(3);
/// How long somebody else may listen where a gateway shall listen, before that is an error.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// How long the kernel may take to close the sockets of a process that is gone, which had an io_uring.
const CLOSING: Duration = Duration::from_secs(10);

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Kind {
    /// ringgate.
    Ringgate,
    /// nginx, the free edition.
    Nginx,
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
}

/// A gateway that runs. Dropping it ends it.
pub struct Gateway {
    // first, since it has the ports and writes to the folder until it has ended
    child: Child,
    program: Program,
    listen: Port,
    admin: Port,
    configuration: String,
    setup: Setup,
    /// Who vouches for it, where it speaks TLS.
    ca: Option<PathBuf>,
    folder: TempDir,
}

impl Gateway {
    /// Starts `program` and returns when it answers requests: any status will do, since endpoints may be down.
    ///
    /// # Errors
    /// The setup makes no sense, an address is taken, or it does not answer in time: with what it has said itself.
    pub fn start(program: &Program, setup: &Setup) -> Result<Self, Error> {
        let name = program.kind.name();
        let failed = |source: io::Error| Error::Start { name: name.to_owned(), source };
        let folder = make_folder().map_err(failed)?;
        let ca = setup.front.is_tls.then(|| front::write_certificate(folder.path())).transpose().map_err(failed)?;
        let (listen, admin) = (reserve(setup.listen).map_err(failed)?, reserve(setup.admin).map_err(failed)?);
        let place = Place { listen: listen.address(), admin: admin.address(), folder: folder.path() };
        let configuration =
            setup.configuration(program.kind, place).map_err(|what| Error::Refused { name: name.to_owned(), what })?;
        let file = folder.path().join(program.kind.file_name());
        std::fs::write(&file, &configuration).map_err(failed)?;
        let (path, arguments) = program.command(&file, setup.workers);
        let mut child = Child::start(&Spec {
            name: name.to_owned(),
            program: path,
            arguments,
            cores: setup.cores.clone(),
            nice: None,
            talks: false,
            has_children: true,
            folder: Some(folder.path().to_owned()),
        })?;
        let path = setup.routes.first().map_or("/", |route| route.prefix.as_str());
        child.until("answer", START, || answers(setup, listen.address(), path, ca.as_deref()))?;
        Ok(Self { program: program.clone(), listen, admin, configuration, child, setup: setup.clone(), ca, folder })
    }

    /// Which it is, with its version.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// Where clients go, as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}/", self.setup.front.scheme(), self.address())
    }

    /// Who vouches for its certificate, in PEM, where it speaks TLS.
    #[must_use]
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Where its metrics or statistics are; nginx has none.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// What it was started with.
    #[must_use]
    pub fn configuration(&self) -> &str {
        &self.configuration
    }

    /// Where its configuration is, and files that it writes; removed with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process: CPU time, memory, signals, its end.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Kills it and all its workers (SIGKILL), and returns when its port refuses connections.
    ///
    /// # Errors
    /// It goes on to accept connections.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.child.kill();
        let address = self.address();
        let refuses = || TcpStream::connect(address).is_err().then_some(());
        let what = "it was killed, and somebody still accepts its connections".to_owned();
        let error = Error::Refused { name: self.program.kind.name().to_owned(), what };
        clock::wait_for(CLOSING, refuses).ok_or(error)
    }

    /// Loads its configuration anew without refusing anyone: ringgate and nginx on SIGHUP, HAProxy on SIGUSR2. Returns when it is in use, or new
    /// workers run; old ones may still finish what they have.
    ///
    /// # Errors
    /// Envoy cannot: it takes a successor process, which is not started here. It has not come into use in time.
    pub fn reload(&mut self) -> Result<(), Error> {
        let signal = match self.program.kind {
            Kind::Nginx => Signal::HUP,
            Kind::Haproxy => Signal::USR2,
            Kind::Ringgate => return self.reload_ringgate(),
            Kind::Envoy => {
                let what = "it reads its configuration at its start: a reload would take a successor process, which this tool \
                            does not start"
                    .to_owned();
                return Err(Error::Refused { name: self.program.kind.name().to_owned(), what });
            }
        };
        let (before, pid) = (self.child.descendants(), self.child.pid());
        let is_new = |worker: &u32| !before.contains(worker);
        let mut again = clock::now();
        let mut has_new_worker = |child: &Child| {
            if clock::now() >= again {
                // one that ends meanwhile is noticed by who waits
                let _ = child.signal(signal);
                again = again + SIGNAL_AGAIN;
            }
            descendants(pid).iter().any(is_new).then_some(())
        };
        self.child.until_it("load its configuration anew", START, &mut has_new_worker)?;
        let (address, setup, ca) = (self.address(), &self.setup, self.ca.as_deref());
        self.child.until("answer after it has loaded its configuration", START, || answers(setup, address, "/", ca))?;
        Ok(())
    }

    /// ringgate tells which configuration it uses.
    fn reload_ringgate(&mut self) -> Result<(), Error> {
        let admin = self.admin.address();
        let generation = || {
            let samples = page::samples(&page::page(admin, "/metrics").ok()?);
            samples.get("ringgate_config_generation").copied()
        };
        let before = generation();
        let _ = self.child.signal(Signal::HUP);
        let mut is_new = |_: &Child| generation().filter(|now| before.is_none_or(|before| *now > before)).map(drop);
        self.child.until_it("load its configuration anew", START, &mut is_new)
    }

    /// ringgate's `/metrics`: name with labels, and value.
    ///
    /// # Errors
    /// It is another gateway, or does not answer.
    pub fn metrics(&self) -> io::Result<BTreeMap<String, f64>> {
        if self.program.kind != Kind::Ringgate {
            return Err(io::Error::other(format!("{} has no /metrics", self.program.kind)));
        }
        Ok(page::samples(&page::page(self.admin.address(), "/metrics")?))
    }
}

/// Whether it answers, in what it is spoken with.
fn answers(setup: &Setup, address: SocketAddr, path: &str, ca: Option<&Path>) -> Option<()> {
    if setup.front == Front::default() {
        return page::status(address, path).ok().map(drop);
    }
    front::is_answering(setup, address, path, ca).then_some(())
}

/// A port, or this one; a predecessor that is gone may still seem to listen there.
fn reserve(wanted: Option<SocketAddr>) -> io::Result<Port> {
    let address = wanted.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
    let is_free = || Port::reserve_at(address).ok();
    clock::wait_for(PREDECESSOR, is_free).map_or_else(|| Port::reserve_at(address), Ok)
}

/// A folder that workers under another user may look into too.
fn make_folder() -> io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix(FOLDER_PREFIX).tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// The gateways of `kinds` that there are, and for the others why not.
#[must_use]
pub fn find(kinds: &[Kind]) -> (Vec<Program>, Vec<String>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for kind in kinds {
        match kind.find() {
            Ok(program) => found.push(program),
            Err(why) => missing.push(why),
        }
    }
    (found, missing)
}

/// What `program` would be started with, for made-up ports: for who wants to see it.
///
/// # Errors
/// The setup makes no sense.
pub fn example(kind: Kind, setup: &Setup) -> Result<String, String> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let folder = PathBuf::from("FOLDER");
    let (listen, admin) = (setup.listen.unwrap_or(local(8080)), setup.admin.unwrap_or(local(9180)));
    setup.configuration(kind, Place { listen, admin, folder: &folder })
}
