//! Upstreams as processes: start, kill, tell, count.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::child::{Child, Error, Spec, this_program};
use super::port::Port;
use crate::upstream::{Counters, Fault, Service};

/// How long an instance may take to listen, on a machine that is busy.
const START: Duration = Duration::from_secs(20);
/// How long one that is to die may take to say what it has done.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Instances of services, each a process on a port that stays its own while it does not run.
pub struct Fleet {
    instances: Vec<Instance>,
}

struct Instance {
    name: String,
    port: Port,
    service: Service,
    cores: Vec<usize>,
    running: Option<Child>,
    /// Of its former lives.
    before: Counters,
}

impl Fleet {
    /// Starts one instance for each of `services` on `cores` (all when empty), and returns when all listen. Where a service has port 0 the
    /// kernel chooses one.
    ///
    /// # Errors
    /// A port is taken, or an instance cannot be started: none is left then.
    pub fn start_all(services: &[Service], cores: &[usize]) -> Result<Self, Error> {
        let mut fleet = Self::reserve(services, cores)?;
        fleet.instances.iter_mut().try_for_each(Instance::begin)?;
        fleet.instances.iter_mut().try_for_each(Instance::await_listening)?;
        Ok(fleet)
    }

    /// Only has the ports: nobody listens there until [`Fleet::start`].
    ///
    /// # Errors
    /// A port is taken.
    pub fn reserve(services: &[Service], cores: &[usize]) -> Result<Self, Error> {
        let instance = |(row, service): (usize, &Service)| {
            let name = format!("upstream {row}");
            let port =
                Port::reserve_at(service.listen).map_err(|source| Error::Start { name: name.clone(), source })?;
            let service = Service { listen: port.address(), ..service.clone() };
            Ok(Instance { name, port, service, cores: cores.to_vec(), running: None, before: Counters::default() })
        };
        Ok(Self { instances: services.iter().enumerate().map(instance).collect::<Result<_, _>>()? })
    }

    /// How many there are, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Where they are, in their order.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.instances.iter().map(|instance| instance.port.address()).collect()
    }

    /// Starts instance `row` where it was, with no fault, and returns when it listens; one that runs goes on.
    ///
    /// # Errors
    /// It cannot be started.
    ///
    /// # Panics
    /// There is no such row; so it is with all that take one.
    pub fn start(&mut self, row: usize) -> Result<(), Error> {
        let instance = &mut self.instances[row];
        if instance.running.is_none() {
            instance.begin()?;
            instance.await_listening()?;
        }
        Ok(())
    }

    /// Kills instance `row` (SIGKILL) and returns when it is gone. Its connections end as the kernel ends them, new ones are refused. Its
    /// counters are kept; one that does not answer (it is frozen) takes with it what it has counted since it was last asked.
    pub fn kill(&mut self, row: usize) {
        let instance = &mut self.instances[row];
        let Some(child) = &mut instance.running else { return };
        // it answers, and kills itself before it does anything else: what it counts is all that it has done
        match child.ask_within(LAST_WORD, "die").ok().and_then(|line| serde_json::from_str(&line).ok()) {
            Some(last) => instance.before = instance.before + last,
            None => child.kill(),
        }
        child.kill();
        instance.running = None;
    }

    /// Instance `row` fails like this from now on.
    ///
    /// # Errors
    /// It does not run, or does not answer.
    pub fn tell(&mut self, row: usize, fault: Fault) -> Result<(), Error> {
        let answer = self.instances[row].child()?.ask(&fault.to_string())?;
        if answer.contains("\"error\"") {
            return Err(self.instances[row].refused(answer));
        }
        Ok(())
    }

    /// What instance `row` has done, over all its lives.
    ///
    /// # Errors
    /// It runs and does not answer.
    pub fn counters(&mut self, row: usize) -> Result<Counters, Error> {
        let instance = &mut self.instances[row];
        let before = instance.before;
        let Some(child) = &mut instance.running else { return Ok(before + Counters::default()) };
        let line = child.ask("counters")?;
        let counters = serde_json::from_str(&line).map_err(|error| instance.refused(format!("{line}: {error}")))?;
        Ok(before + counters)
    }

    /// The process of instance `row`; `None`: it does not run.
    pub fn child(&mut self, row: usize) -> Option<&mut Child> {
        self.instances[row].running.as_mut()
    }

    /// CPU seconds of those that run, since each was started.
    pub fn cpu_seconds(&mut self) -> f64 {
        self.instances.iter_mut().filter_map(|instance| Some(instance.running.as_mut()?.cpu_seconds())).sum()
    }
}

impl Instance {
    fn begin(&mut self) -> Result<(), Error> {
        let Service { listen, time, body_bytes, seed } = &self.service;
        let options = [
            ("--listen", listen.to_string()),
            ("--time", time.to_string()),
            ("--body", body_bytes.to_string()),
            ("--seed", seed.to_string()),
            ("--control", "stdio".to_owned()),
        ];
        let mut arguments = vec!["upstream".into()];
        arguments.extend(options.into_iter().flat_map(|(name, value)| [name.into(), value.into()]));
        let spec = Spec {
            name: self.name.clone(),
            program: this_program().to_owned(),
            arguments,
            cores: self.cores.clone(),
            talks: true,
            ..Spec::default()
        };
        self.running = Some(Child::start(&spec)?);
        Ok(())
    }

    fn await_listening(&mut self) -> Result<(), Error> {
        let child = self.child()?;
        let said = child.listen(START, "listen");
        if said.is_err() {
            self.running = None;
        }
        said.map(drop)
    }

    fn child(&mut self) -> Result<&mut Child, Error> {
        let name = &self.name;
        let absent = || Error::Refused { name: name.clone(), what: "it does not run".to_owned() };
        self.running.as_mut().ok_or_else(absent)
    }

    fn refused(&self, what: impl Into<String>) -> Error {
        Error::Refused { name: self.name.clone(), what: what.into() }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
