//! The gateways that are drilled: each with the configuration that its documentation begins with, as a process.
//!
//! What is configured is what has to be: where to listen and which endpoints there are. What makes a difference in a drill stands in
//! the module of each gateway; `--configurations` prints them.

mod haproxy;
mod nginx;
mod ringgate;

use anyhow::Context;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

use crate::child::Child;
use crate::clock;
use crate::port::Port;

/// How long a gateway may take to start.
const START: Duration = Duration::from_secs(10);
/// How long one page of a gateway's own figures may take.
const PAGE: Duration = Duration::from_secs(5);
/// Longest page read.
const PAGE_BYTES_MAX: u64 = 16 << 20;

/// Which gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The one that has to pass.
    Ringgate,
    /// nginx (open source).
    Nginx,
    /// HAProxy without health checks.
    Haproxy,
    /// HAProxy with a health check every second.
    HaproxyCheck,
}

/// A gateway as it is drilled: a column of the table.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) workers: usize,
    /// ringgate's `[gateway] driver`.
    pub(crate) driver: String,
    /// TOML at the end of ringgate's configuration.
    pub(crate) extra: String,
    pub(crate) label: String,
}

/// What a drill needs besides endpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) endpoints: Vec<SocketAddr>,
    /// The last endpoint is there for when the others fail.
    pub(crate) last_is_backup: bool,
    /// A 500 is retried too, and an endpoint is tried again 3 s after it was taken out, where that can be said.
    pub(crate) retries_500: bool,
}

/// Where a gateway listens, and where its files are.
struct Place<'a> {
    listen: SocketAddr,
    admin: SocketAddr,
    folder: &'a Path,
}

/// A gateway that runs. Dropping it ends it.
pub(crate) struct Gateway {
    kind: Kind,
    listen: Port,
    admin: Port,
    endpoints: Vec<SocketAddr>,
    // before the folder: it writes there until it has ended
    _child: Child,
    folder: TempDir,
}

impl Gateway {
    /// Starts it, and returns when it accepts connections.
    pub(crate) fn start(variant: &Variant, setup: &Setup) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("drills-").tempdir()?;
        let (listen, admin) = (Port::reserve()?, Port::reserve()?);
        let place = Place { listen: listen.address(), admin: admin.address(), folder: folder.path() };
        let file = folder.path().join("configuration");
        fs::write(&file, configuration(variant, setup, &place))?;
        let log = folder.path().join("output");
        let mut command = Command::new(&variant.program);
        command.args(arguments(variant.kind, &file)).stdin(Stdio::null());
        command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
        let mut child = Child::spawn(&mut command, variant.kind.farewell())
            .with_context(|| format!("{} does not start", variant.program.display()))?;
        await_listening(&mut child, listen.address(), &log)?;
        Ok(Self { kind: variant.kind, listen, admin, endpoints: setup.endpoints.clone(), _child: child, folder })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// Attempts at each endpoint that were refused, in the order of the endpoints, as the gateway itself counts them.
    pub(crate) fn refused_attempts(&self) -> anyhow::Result<Vec<u64>> {
        let counted: HashMap<SocketAddr, u64> = match self.kind {
            Kind::Ringgate => ringgate::refused_attempts(&page(self.admin.address(), "/metrics")?),
            Kind::Nginx => nginx::refused_attempts(&fs::read_to_string(self.folder.path().join(nginx::ERROR_LOG))?),
            Kind::Haproxy | Kind::HaproxyCheck => {
                haproxy::refused_attempts(&page(self.admin.address(), "/stats;csv")?, &self.endpoints)?
            }
        };
        let count = |endpoint| match (counted.get(endpoint), self.kind) {
            (Some(count), _) => Ok(*count),
            // what has not happened is no line of a log
            (None, Kind::Nginx) => Ok(0),
            (None, _) => anyhow::bail!("it does not say how often connecting to {endpoint} failed"),
        };
        self.endpoints.iter().map(count).collect()
    }
}

impl Kind {
    /// What it is looked for as, where no path is given.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Ringgate => "ringgate",
            Self::Nginx => "nginx",
            Self::Haproxy | Self::HaproxyCheck => "haproxy",
        }
    }

    /// What it is called in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HaproxyCheck => "haproxy-check",
            _ => self.program(),
        }
    }

    /// The argument that makes it say its version.
    pub(crate) fn version_argument(self) -> &'static str {
        match self {
            Self::Ringgate => "--version",
            _ => "-v",
        }
    }

    /// nginx has children of its own, which only it can end when this process is killed.
    fn farewell(self) -> i32 {
        match self {
            Self::Nginx => libc::SIGTERM,
            _ => libc::SIGKILL,
        }
    }
}

/// The configuration of a gateway for made-up ports: what `--configurations` prints.
pub(crate) fn example(variant: &Variant) -> String {
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let setup = Setup { endpoints: vec![local(9001), local(9002), local(9003)], ..Setup::default() };
    configuration(variant, &setup, &Place { listen: local(8080), admin: local(9180), folder: Path::new("FOLDER") })
}

fn configuration(variant: &Variant, setup: &Setup, place: &Place<'_>) -> String {
    match variant.kind {
        Kind::Ringgate => ringgate::configuration(variant, setup, place),
        Kind::Nginx => nginx::configuration(variant, setup, place),
        Kind::Haproxy | Kind::HaproxyCheck => haproxy::configuration(variant, setup, place),
    }
}

fn arguments(kind: Kind, file: &Path) -> Vec<String> {
    let file = file.display().to_string();
    match kind {
        Kind::Ringgate => vec!["run".to_owned(), "-c".to_owned(), file],
        // -e: what goes wrong before the configuration is read
        Kind::Nginx => vec!["-e".to_owned(), "stderr".to_owned(), "-c".to_owned(), file],
        Kind::Haproxy | Kind::HaproxyCheck => vec!["-db".to_owned(), "-f".to_owned(), file],
    }
}

fn await_listening(child: &mut Child, listen: SocketAddr, log: &Path) -> anyhow::Result<()> {
    let deadline = clock::now() + START;
    while TcpStream::connect(listen).is_err() {
        if child.has_ended() || clock::now() > deadline {
            anyhow::bail!("it does not listen: {}", fs::read_to_string(log).unwrap_or_default().trim());
        }
        clock::wait(Duration::from_millis(10));
    }
    Ok(())
}

/// GETs `path`, with HTTP/1.0 so that the page ends with the connection.
fn page(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PAGE)?;
    stream.set_read_timeout(Some(PAGE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.take(PAGE_BYTES_MAX).read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("a page without a head")?;
    anyhow::ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {}", head.lines().next().unwrap_or_default());
    Ok(body.to_owned())
}
