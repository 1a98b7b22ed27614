//! The command line of `capacity` and `curve`: which server, and what is asked of it.

use super::bench::{Process, Unknown};
use super::capacity::{self, Wanted};
use super::options::{LoadOptions, OutputOptions, rate, share, time};
use super::rig::{Cores, Rig, program};
use super::session::{Refusal, Session};
use crate::gateways::Kind;
use crate::load::Load;
use crate::machine;
use crate::measure::{Bound, described, digits_of_quantile};
use crate::units::shown;
use crate::url::Url;
use clap::{Args, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;

/// A gateway that the tool can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindWord {
    /// This project's: $RINGGATE, `ringgate` on PATH, or the one that is built into the tool.
    Ringgate,
    /// nginx on PATH, or $NGINX.
    Nginx,
    /// haproxy on PATH, or $HAPROXY.
    Haproxy,
    /// envoy on PATH, or $ENVOY.
    Envoy,
}

impl From<KindWord> for Kind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Ringgate => Self::Ringgate,
            KindWord::Nginx => Self::Nginx,
            KindWord::Haproxy => Self::Haproxy,
            KindWord::Envoy => Self::Envoy,
        }
    }
}

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// http://HOST[:PORT][/PATH]
    #[arg(required_unless_present = "demo")]
    pub url: Option<String>,
    /// Start a gateway and a service here, and measure that.
    #[arg(long, conflicts_with = "url")]
    pub demo: bool,
    /// Which gateway --demo starts.
    #[arg(long, value_enum, default_value = "ringgate", requires = "demo")]
    pub gateway: KindWord,
    /// Bytes of the answers of --demo's service.
    #[arg(long, default_value_t = 1_024, requires = "demo", value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub body_bytes: u32,
    /// The upstream itself, to see whether it is what limits.
    #[arg(long, value_name = "URL", conflicts_with = "demo")]
    pub direct: Option<String>,
}

/// What has to be held.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Bound")]
pub struct BoundOptions {
    /// The 99th percentile must not exceed this.
    #[arg(long, value_parser = time, default_value = "5ms", conflicts_with_all = ["p50", "p999"])]
    pub p99: Duration,
    /// The median instead.
    #[arg(long, value_parser = time, conflicts_with = "p999")]
    pub p50: Option<Duration>,
    /// The 99.9th percentile instead.
    #[arg(long, value_parser = time)]
    pub p999: Option<Duration>,
    /// Failures among all requests that are allowed.
    #[arg(long, value_parser = share, default_value = "0.01%")]
    pub failures: f64,
    /// Width of the bracket [default: 5% on up to 4 cores, else 2.5%].
    #[arg(long, value_parser = share)]
    pub width: Option<f64>,
    /// Length of a trial that decides; those that look around have a third.
    #[arg(long, value_parser = time, default_value = "6s")]
    pub trial: Duration,
    /// The first rate that is tried.
    #[arg(long, value_parser = rate, default_value = "2000")]
    pub start: f64,
    /// The highest rate that is tried.
    #[arg(long, value_parser = rate, default_value = "1M")]
    pub max_rate: f64,
}

impl BoundOptions {
    /// Typed.
    ///
    /// # Errors
    /// A value makes no sense.
    pub fn wanted(&self, cores: usize) -> Result<Wanted, Refusal> {
        let (quantile, time) = match (self.p50, self.p999) {
            (Some(p50), _) => (0.5, p50),
            (_, Some(p999)) => (0.999, p999),
            _ => (0.99, self.p99),
        };
        let width = self.width.unwrap_or_else(|| Wanted::width_for(cores));
        if !(0.005..=0.5).contains(&width) {
            return Err(Refusal(format!("--width {width}: must be from 0.5% to 50%")));
        }
        if time.is_zero() || self.trial < Duration::from_secs(1) {
            return Err(Refusal("a bound is above 0, and a trial takes 1s at least".to_owned()));
        }
        let bound = Bound { quantile, time: time.as_secs_f64(), failures: self.failures };
        Ok(Wanted { bound, width, trial: self.trial, start: self.start, max: self.max_rate })
    }
}

/// The highest rate at which a percentile is still met.
#[derive(Clone, Debug, Args)]
pub struct CapacityOptions {
    #[command(flatten)]
    server: ServerOptions,
    #[command(flatten)]
    bound: BoundOptions,
    #[command(flatten)]
    load: LoadOptions,
    #[command(flatten)]
    output: OutputOptions,
}

/// A server to be measured, whoever has started it.
pub struct Server {
    /// Where requests go.
    pub url: Url,
    /// Its name in results.
    pub name: String,
    /// What was started for it.
    pub rig: Option<Rig>,
    /// The upstream itself.
    pub direct: Option<Url>,
    /// Where everything runs, if the tool has decided that.
    pub cores: Option<Cores>,
}

impl ServerOptions {
    /// Finds it, or starts it.
    ///
    /// # Errors
    /// It cannot be found or started.
    pub fn open(&self, seed: u64) -> Result<Server, Refusal> {
        let Some(url) = &self.url else {
            let cores = Cores::divide(&machine::cores());
            let program = program(self.gateway.into())?;
            let rig = Rig::start(&program, &cores, 1, self.body_bytes as usize, seed)?;
            let url = Url::parse(&format!("http://{}/", rig.gateway.address()))?;
            let direct =
                rig.fleet.addresses().first().map(|address| Url::parse(&format!("http://{address}/"))).transpose()?;
            let name = rig.gateway.program().kind.name().to_owned();
            return Ok(Server { url, name, rig: Some(rig), direct, cores: Some(cores) });
        };
        let url = Url::parse(url)?;
        let direct = self.direct.as_deref().map(Url::parse).transpose()?;
        Ok(Server { name: url.authority.clone(), url, rig: None, direct, cores: None })
    }
}

impl Server {
    /// Its process, where that is known.
    pub fn process(&mut self) -> Box<dyn Process + '_> {
        match &mut self.rig {
            Some(rig) => Box::new(OfGateway(&mut rig.gateway)),
            None => Box::new(Unknown),
        }
    }

    /// The load on it, and the same on its upstream itself.
    ///
    /// # Errors
    /// As [`LoadOptions::load`].
    pub fn loads(&self, options: &LoadOptions, length: Duration, seed: u64) -> Result<(Load, Option<Load>), Refusal> {
        let mut options = LoadOptions { seed: Some(seed), ..options.clone() };
        if let Some(cores) = self.cores.as_ref().filter(|_| options.cores.is_empty()) {
            options.cores = cores.generator.clone();
        }
        let pace = options.paced(1.0);
        let load = |url| options.load(url, length).map(|load| Load { pace: pace.clone(), ..load });
        Ok((load(&self.url)?, self.direct.as_ref().map(load).transpose()?))
    }

    /// Tells a result where everything runs.
    pub fn describe(&self, session: &mut Session, load: &Load) {
        let outcome = &mut session.outcome;
        outcome.seed = load.seed;
        outcome.load = described(load, &self.url.text);
        outcome.environment.generator_cores = load.cores.clone();
        if let Some(cores) = &self.cores {
            outcome.environment.gateway_cores = cores.gateway.clone();
            outcome.environment.upstream_cores = cores.upstream.clone();
        }
        if let Some(rig) = &self.rig {
            outcome.remarks.push(format!("{} was started for this", rig.gateway.program().version));
        }
    }
}

struct OfGateway<'g>(&'g mut crate::gateways::Gateway);

impl Process for OfGateway<'_> {
    fn cpu(&mut self) -> Option<f64> {
        self.0.cpu()
    }

    fn resident(&mut self) -> Option<u64> {
        self.0.resident()
    }
}

/// Runs it.
///
/// # Errors
/// It cannot be done as asked.
pub fn capacity(options: &CapacityOptions) -> Result<ExitCode, Refusal> {
    let wanted = options.bound.wanted(machine::cores().len())?;
    let seed = options.load.seed.unwrap_or_else(super::options::fresh_seed);
    let mut server = options.server.open(seed)?;
    let (load, direct) = server.loads(&options.load, wanted.trial, seed)?;
    let bound = format!("p{} < {}", digits_of_quantile(wanted.bound.quantile), shown(wanted.bound.time));
    let mut session = Session::begin("capacity", format!("Capacity of {} at {bound}", server.name), &options.output)?;
    server.describe(&mut session, &load);
    let name = server.name.clone();
    let mut process = server.process();
    capacity::search(&mut session, &load, &name, process.as_mut(), &wanted, direct.as_ref())?;
    drop(process);
    session.end()
}
