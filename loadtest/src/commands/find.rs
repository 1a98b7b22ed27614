//! The command line of `capacity` and `curve`: which server, and what is asked of it.

use super::bench::{Process, Unknown};
use super::capacity::{self, Wanted};
use super::options::{LoadOptions, OutputOptions, fresh_seed, rate, share, slice_of, time};
use super::rig::{Rig, program};
use super::session::{Refusal, Session, listen, thresholds};
use crate::gateways::{Front, Kind};
use crate::load::{Load, Protocol};
use crate::machine;
use crate::measure::{Bound, described, digits_of_quantile};
use crate::plan::{self, About, Division, Plan};
use crate::units::shown;
use crate::url::Url;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Which server.
#[derive(Clone, Debug, Args)]
pub struct ServerOptions {
    /// Such as `http://127.0.0.1:8080/path`.
    #[arg(required_unless_present_any = ["demo", "plan"])]
    pub url: Option<String>,
    /// Start a gateway and a service here, and measure that.
    #[arg(long, conflicts_with_all = ["url", "plan"])]
    pub demo: bool,
    /// What is asked of whom: a file as in loadtest/plans. Its requests go to URL where one is given.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Which gateway --demo or the plan starts [default: ringgate, or the plan's first].
    #[arg(long, value_enum, conflicts_with = "url")]
    pub gateway: Option<Kind>,
    /// The gateway of --demo speaks TLS, by a certificate that is made for it and believed.
    #[arg(long, requires = "demo")]
    pub tls: bool,
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
    /// The 99th percentile must not exceed this [default: the plan's, or 5ms].
    #[arg(long, value_parser = time, conflicts_with_all = ["p50", "p999"])]
    pub p99: Option<Duration>,
    /// The median instead.
    #[arg(long, value_parser = time, conflicts_with = "p999")]
    pub p50: Option<Duration>,
    /// The 99.9th percentile instead.
    #[arg(long, value_parser = time)]
    pub p999: Option<Duration>,
    /// Failures among all requests that are allowed [default: the plan's, or 0.01%].
    #[arg(long, value_parser = share)]
    pub failures: Option<f64>,
    /// Width of the bracket [default: the plan's, or 5% on up to 4 cores, else 2.5%].
    #[arg(long, value_parser = share)]
    pub width: Option<f64>,
    /// Length of a trial that decides; those that look around have a third [default: the plan's, or 6s].
    #[arg(long, value_parser = time)]
    pub trial: Option<Duration>,
    /// The first rate that is tried.
    #[arg(long, value_parser = rate, default_value = "2000")]
    pub start: f64,
    /// The highest rate that is tried [default: the plan's, or 1M; 20k with --demo on two or three cores].
    #[arg(long, value_parser = rate)]
    pub max_rate: Option<f64>,
}

impl BoundOptions {
    /// Typed, with what a plan says where no flag does.
    ///
    /// # Errors
    /// A value makes no sense.
    pub fn wanted(&self, server: &ServerOptions, plan: Option<&plan::Capacity>) -> Result<Wanted, Refusal> {
        let cores = machine::cores().len();
        let (quantile, time) = match (self.p50, self.p99, self.p999, plan) {
            (Some(p50), ..) => (0.5, p50),
            (_, Some(p99), ..) => (0.99, p99),
            (_, _, Some(p999), _) => (0.999, p999),
            (.., Some(plan)) => (plan.quantile, plan.bound),
            _ => (0.99, Duration::from_millis(5)),
        };
        let width = self.width.or(plan.map(|plan| plan.width)).unwrap_or_else(|| Wanted::width_for(cores));
        if !(0.005..=0.5).contains(&width) {
            return Err(Refusal(format!("--width {width}: must be from 0.5% to 50%")));
        }
        let trial = self.trial.or(plan.map(|plan| plan.trial)).unwrap_or(Duration::from_secs(6));
        if time.is_zero() || trial < Duration::from_secs(1) {
            return Err(Refusal("a bound is above 0, and a trial takes 1s at least".to_owned()));
        }
        let failures = self.failures.or(plan.map(|plan| plan.failures)).unwrap_or(1e-4);
        let max = self.max_rate.or(plan.map(|plan| plan.max_rate)).unwrap_or(server.ceiling(cores));
        let bound = Bound { quantile, time: time.as_secs_f64(), failures };
        Ok(Wanted { bound, width, trial, start: self.start, max })
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
    /// What is asked of it, if a plan says that.
    pub plan: Option<Plan>,
    /// The upstream itself.
    pub direct: Option<Url>,
    /// Where everything runs, if the tool has decided that.
    pub cores: Option<Division>,
}

/// Of a demonstration on two or three cores: what a core that stands still for a moment leaves behind is gone soon at this rate, and near the
/// limit it is not, which is some twice as high.
const DEMONSTRATED: f64 = 20_000.0;

impl ServerOptions {
    /// Where a search ends that is told nothing, on so many cores.
    fn ceiling(&self, cores: usize) -> f64 {
        if self.demo && cores < 4 { DEMONSTRATED } else { 1e6 }
    }

    /// Finds it, or starts it; a gateway of the demonstration speaks HTTP/2 where that `is_http2`, one of a plan what the plan says.
    ///
    /// # Errors
    /// It cannot be found or started.
    pub fn open(&self, seed: u64, is_http2: bool) -> Result<Server, Refusal> {
        listen()?;
        let plan = self.plan.as_deref().map(Plan::open).transpose().map_err(|errors| Refusal(errors.to_string()))?;
        let direct = self.direct.as_deref().map(Url::parse).transpose()?;
        let of_plan = plan.as_ref().and_then(|plan| plan.load.url.as_ref()).map(|url| url.text.clone());
        if let Some(url) = self.url.clone().or(of_plan) {
            let url = Url::parse(&url)?;
            let told = plan.as_ref().and_then(|plan| plan.capacity.as_ref()?.direct.as_ref());
            let direct =
                direct.map_or_else(|| told.map(|url| Url::parse(&url.text)).transpose(), |url| Ok(Some(url)))?;
            return Ok(Server { name: url.authority.clone(), url, rig: None, plan, direct, cores: None });
        }
        let Some(plan) = plan else { return self.demo(seed, is_http2) };
        let first = plan.gateway.as_ref().and_then(|gateway| gateway.kinds.first().copied());
        let kind = self.gateway.or(first).unwrap_or(Kind::Ringgate);
        let rig = Rig::of_plan(&plan, &program(kind)?)?;
        let url = rig.url()?;
        let gateway = plan.gateway.as_ref().map(|gateway| gateway.cores.clone()).unwrap_or_default();
        let upstreams = plan.upstreams.iter().flat_map(|upstream| upstream.cores.clone()).collect();
        let cores = Some(Division { gateway, upstreams, generator: plan.load.cores.clone() });
        // with one service behind the gateway the same can be asked of it directly; of several no single one gets the whole load
        let only = if let [one] = &rig.fleets[..] { one.addresses() } else { Vec::new() };
        let direct = match (direct, &only[..]) {
            (Some(url), _) => Some(url),
            (None, [address]) => Some(Url::parse(&format!("http://{address}/"))?),
            (None, _) => None,
        };
        Ok(Server { name: kind.name().to_owned(), url, rig: Some(rig), plan: Some(plan), direct, cores })
    }

    fn demo(&self, seed: u64, is_http2: bool) -> Result<Server, Refusal> {
        let cores = Division::of_demonstration(&machine::cores());
        let program = program(self.gateway.unwrap_or(Kind::Ringgate))?;
        let front = Front { is_http2, is_tls: self.tls };
        let rig = Rig::start(&program, front, &cores, self.body_bytes as usize, seed)?;
        let url = rig.url()?;
        let direct = Url::parse(&format!("http://{}/", rig.fleets[0].addresses()[0]))?;
        let name = program.kind.name().to_owned();
        Ok(Server { url, name, rig: Some(rig), plan: None, direct: Some(direct), cores: Some(cores) })
    }
}

impl Server {
    /// Its process, where that is known.
    pub fn watched(&mut self) -> Box<dyn Process + '_> {
        match &mut self.rig {
            Some(rig) => Box::new(&mut rig.gateway),
            None => Box::new(Unknown),
        }
    }

    /// The load on it, and the same on its upstream itself: as the plan says, if there is one.
    ///
    /// # Errors
    /// As [`LoadOptions::load`].
    pub fn loads(&self, options: &LoadOptions, length: Duration, seed: u64) -> Result<(Load, Option<Load>), Refusal> {
        let mut options = LoadOptions { seed: Some(seed), ..options.clone() };
        let own = self.rig.as_ref().map(Rig::tls).unwrap_or_default();
        if self.plan.is_none() {
            options.ca = options.ca.or(own.ca.clone());
        }
        if let Some(cores) = self.cores.as_ref().filter(|_| options.cores.is_empty()) {
            options.cores = cores.generator.clone();
        }
        let pace = options.paced(1.0);
        let is_alone = self
            .cores
            .as_ref()
            .is_some_and(|cores| Division { generator: options.cores.clone(), ..cores.clone() }.sets_generator_apart());
        let load = |url: &Url, is_upstream: bool| {
            // a gateway that speaks TLS may stand before an upstream that does not, and one that speaks HTTP/2 before HTTP/1.1
            let is_plain = is_upstream && !url.is_tls;
            let Some(plan) = &self.plan else {
                let options = if is_upstream { options.of_upstream(is_plain) } else { options.clone() };
                return options.load(url, length).map(|load| Load { pace: pace.clone(), is_alone, ..load });
            };
            url.allow(options.i_own_this_target)?;
            let offered = plan.load(url.address);
            let protocol = if is_upstream { Protocol::Http1 } else { offered.protocol };
            let is_http2 = protocol != Protocol::Http1;
            let tls = if is_plain {
                None
            } else {
                url.tls(&own.overlaid(plan.load.tls.clone()).overlaid(options.tls()), is_http2)?
            };
            let load = Load { tls, protocol, ..offered };
            Ok(Load { seed, ..load.in_one_phase(length, slice_of(length)) })
        };
        let direct = self.direct.as_ref().map(|url| load(url, true)).transpose()?;
        Ok((load(&self.url, false)?, direct))
    }

    /// Tells a result that the gateway has died, if it has.
    pub fn look_after(&mut self, session: &mut Session) {
        if let Some(rig) = &mut self.rig {
            session.lives(&self.name, &mut rig.gateway);
        }
    }

    /// Tells a result where everything runs.
    pub fn describe(&self, session: &mut Session, load: &Load) {
        let outcome = &mut session.outcome;
        outcome.seed = load.seed;
        outcome.load = described(load, &self.url.text);
        outcome.environment.generator_cores = load.cores.clone();
        if let Some(cores) = &self.cores {
            outcome.environment.gateway_cores = cores.gateway.clone();
            outcome.environment.upstream_cores = cores.upstreams.clone();
        }
        if let Some(plan) = &self.plan {
            outcome.plan = Some(plan.text.clone());
            outcome.remarks.extend(plan.remarks.iter().cloned());
        }
        if let Some(rig) = &self.rig {
            outcome.remarks.push(format!("{} was started for this", rig.gateway.program().version));
        }
    }
}

/// Runs it.
///
/// # Errors
/// It cannot be done as asked.
pub fn capacity(options: &CapacityOptions) -> Result<ExitCode, Refusal> {
    let seed = options.load.seed.unwrap_or_else(fresh_seed);
    let mut server = options.server.open(seed, options.load.http2)?;
    let of_plan = server.plan.as_ref().and_then(|plan| plan.capacity.as_ref());
    let wanted = options.bound.wanted(&options.server, of_plan)?;
    let (thresholds, unjudged) = thresholds(server.plan.as_ref(), &options.output, &[About::Capacity])?;
    let (load, direct) = server.loads(&options.load, wanted.trial, seed)?;
    let bound = format!("p{} < {}", digits_of_quantile(wanted.bound.quantile), shown(wanted.bound.time));
    let mut session = Session::begin("capacity", format!("Capacity of {} at {bound}", server.name), &options.output)?;
    session.holds_to(&thresholds, unjudged);
    server.describe(&mut session, &load);
    let name = server.name.clone();
    let mut process = server.watched();
    capacity::search(&mut session, &load, &name, process.as_mut(), &wanted, direct.as_ref())?;
    drop(process);
    server.look_after(&mut session);
    let verdict = session.outcome.capacity.as_ref().and_then(|capacity| thresholds.verdict_on_capacity(capacity));
    session.outcome.verdicts.extend(verdict);
    session.end()
}
