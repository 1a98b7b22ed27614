//! The services of one drill, as seen by its script: start, kill, freeze, tell, and read what they did.

use anyhow::Context;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

use crate::child::Child;
use crate::journal::{self, Entry};
use crate::mode::Mode;
use crate::port::Port;
use crate::service;

/// How long a service may take to start or to acknowledge.
const PATIENCE: Duration = Duration::from_secs(10);

/// The services of one drill. Dropping it ends them and removes their files.
pub(crate) struct Fleet {
    endpoints: Vec<Endpoint>,
    _folder: TempDir,
}

/// A place for a service, and the service while it runs.
pub(crate) struct Endpoint {
    port: Port,
    journal: PathBuf,
    think: Duration,
    running: Option<Running>,
}

struct Running {
    child: Child,
    control: UnixStream,
}

impl Fleet {
    /// Reserves `count` places. Nothing listens there until started; answers will take `think`.
    pub(crate) fn try_new(count: usize, think: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("drills-").tempdir()?;
        let place = |number: usize| {
            let journal = folder.path().join(format!("journal-{number}"));
            anyhow::Ok(Endpoint { port: Port::reserve()?, journal, think, running: None })
        };
        let endpoints = (0..count).map(place).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, _folder: folder })
    }

    /// The same, all started.
    pub(crate) fn started(count: usize, think: Duration) -> anyhow::Result<Self> {
        let mut fleet = Self::try_new(count, think)?;
        fleet.start_all()?;
        Ok(fleet)
    }

    /// Starts those that do not run, side by side, and returns when all listen.
    pub(crate) fn start_all(&mut self) -> anyhow::Result<()> {
        self.endpoints.iter_mut().try_for_each(Endpoint::begin)?;
        self.endpoints.iter_mut().try_for_each(Endpoint::await_acknowledgement)
    }

    /// Kills all of them.
    pub(crate) fn kill_all(&mut self) {
        self.endpoints.iter_mut().for_each(Endpoint::kill);
    }

    /// All answer like this from now on.
    pub(crate) fn tell_all(&mut self, mode: Mode) -> anyhow::Result<()> {
        self.endpoints.iter_mut().try_for_each(|endpoint| endpoint.tell(mode))
    }

    /// The endpoint with this number, from 0.
    pub(crate) fn at(&mut self, number: usize) -> &mut Endpoint {
        &mut self.endpoints[number]
    }

    /// Where they are, in their order.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.endpoints.iter().map(|endpoint| endpoint.port.address()).collect()
    }

    /// What each has written down, in their order.
    pub(crate) fn journals(&self) -> anyhow::Result<Vec<Vec<Entry>>> {
        self.endpoints.iter().map(|endpoint| Ok(journal::read(&endpoint.journal)?)).collect()
    }

    /// How often each request was acted on, by all of them together.
    pub(crate) fn times_acted_on(&self) -> anyhow::Result<HashMap<u64, u32>> {
        let mut times = HashMap::new();
        for entry in self.journals()?.into_iter().flatten() {
            *times.entry(entry.id).or_default() += 1;
        }
        Ok(times)
    }
}

impl Endpoint {
    /// Starts the service and returns when it listens.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.begin()?;
        self.await_acknowledgement()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    /// `SIGSTOP`: it keeps its sockets and does nothing.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        Ok(self.running.as_ref().context("it does not run")?.child.signal(libc::SIGSTOP)?)
    }

    /// `SIGCONT`.
    pub(crate) fn thaw(&self) -> anyhow::Result<()> {
        Ok(self.running.as_ref().context("it does not run")?.child.signal(libc::SIGCONT)?)
    }

    /// It answers like this from now on.
    pub(crate) fn tell(&mut self, mode: Mode) -> anyhow::Result<()> {
        let running = self.running.as_mut().context("it does not run")?;
        running.control.write_all(format!("{mode}\n").as_bytes())?;
        self.await_acknowledgement()
    }

    /// What it has written down.
    pub(crate) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        Ok(journal::read(&self.journal)?)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let (control, theirs) = UnixStream::pair()?;
        control.set_read_timeout(Some(PATIENCE))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("service").arg("--port").arg(self.port.address().port().to_string());
        command.arg("--journal").arg(&self.journal);
        command.arg("--think-ms").arg(self.think.as_millis().to_string());
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        self.running = Some(Running { child: Child::spawn(&mut command, libc::SIGKILL)?, control });
        Ok(())
    }

    fn await_acknowledgement(&mut self) -> anyhow::Result<()> {
        let running = self.running.as_mut().context("it does not run")?;
        let mut line = [0; service::ACKNOWLEDGED.len()];
        running.control.read_exact(&mut line).context("a service does not answer its control socket")?;
        anyhow::ensure!(line == service::ACKNOWLEDGED.as_bytes(), "a service does not acknowledge");
        Ok(())
    }
}
