//! Plans: what is offered, to which gateway, what happens meanwhile and what has to come of it, in one TOML file.
//!
//! A plan is read as the gateway's configuration is: all its errors at once, each with its place, what is allowed and what was probably
//! meant. What comes out ([`Plan`]) is typed and complete: defaults are filled in, names are rows, files have been read, cores are there.
//!
//! | file | what is in it |
//! |---|---|
//! | [`mod@file`] | every key with its unit, range and default; the JSON schema |
//! | `values`, `words` | numbers with units; services and faults as lines of text |
//! | `check`, `targets`, `phases` | what places of a plan must agree on |
//! | `cores` | who runs where |
//! | `spoken` | which HTTP, over TLS or not |
//! | `replay` | an access log as a load |
//! | `thresholds` | what has to hold of the whole, and which command judges it |
//! | `judge` | thresholds against results |
//!
//! Nothing here starts or sends anything. Files that a plan names are looked for in its own folder.

mod check;
mod cores;
pub mod file;
mod judge;
mod phases;
mod replay;
mod spoken;
mod targets;
#[cfg(test)]
mod tests;
mod thresholds;
mod values;
mod words;

pub use cores::Division;
pub use file::schema;
pub use replay::{Replay, ReplayError};
pub(crate) use targets::{BODY_FILE_BYTES_MAX, regular};
pub use thresholds::{About, Thresholds};
pub use values::{Allowed, Url, is_loopback};
pub use words::{Act, GatewayAct, Prefix};

pub use ringgate::config::{Errors, Problem};

use crate::gateways::{Kind, Template};
use crate::load::{Load, Pace, Protocol, Target};
use crate::machine;
use crate::result::PlanText;
use crate::upstream::{self as service, Time};
use crate::wire::TlsSettings;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A plan as it is used. Rows are those of its own tables.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// As it was read, for results.
    pub text: PlanText,
    /// What is offered.
    pub load: Offer,
    /// What is started for it; `None`: [`Offer::url`] is there already.
    pub gateway: Option<Gateway>,
    /// Services behind the gateway, in file order; none without [`Plan::gateway`].
    pub upstreams: Vec<Upstream>,
    /// In the order in which they happen; empty for one phase without faults.
    pub phases: Vec<Phase>,
    /// What capacity means, where the plan says.
    pub capacity: Option<Capacity>,
    /// How many hosts are asked for; with [`Plan::capacity`] only.
    pub size: Option<Sizing>,
    /// What has to hold of the whole.
    pub thresholds: Thresholds,
    /// What a reader of the result should know: requests of a log that were left out, cores that are shared.
    pub remarks: Vec<String>,
}

/// What is offered, and how.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Where it goes; `None`: to each of [`Plan::gateway`].
    pub url: Option<Url>,
    /// How TLS is spoken with [`Offer::url`], if it is.
    pub tls: TlsSettings,
    /// What is spoken.
    pub protocol: Protocol,
    /// Requests a second, where neither a log nor the answers decide.
    pub rate: f64,
    /// When requests are due.
    pub pace: Pacing,
    /// What is asked; at least one.
    pub requests: Vec<Request>,
    /// Not judged.
    pub warm_up: Duration,
    /// Judged; the sum of the phases, where there are any.
    pub length: Duration,
    /// Resolution of series.
    pub slice: Duration,
    /// Connections at the start.
    pub connections: usize,
    /// Connections at most.
    pub connections_max: usize,
    /// A connection for each request.
    pub reconnect: bool,
    /// From when a request is due.
    pub timeout: Duration,
    /// Of arrivals and of the mix.
    pub seed: u64,
    /// Of the generator, one thread each; empty: one that is not pinned.
    pub cores: Vec<usize>,
}

/// When requests are due.
#[derive(Clone, Debug)]
pub enum Pacing {
    /// Independent of each other, at [`Offer::rate`].
    Poisson,
    /// Evenly spaced, at [`Offer::rate`].
    Even,
    /// As fast as answers come.
    Closed,
    /// At these times from the start of the warm-up, with rows of [`Offer::requests`].
    Recorded(Arc<[(Duration, u32)]>),
}

/// One kind of request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Unique.
    pub name: String,
    /// Such as `GET`.
    pub method: String,
    /// `None`: the address that it goes to.
    pub host: Option<String>,
    /// With its query.
    pub path: String,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// Empty: none.
    pub body: Vec<u8>,
    /// Above 0.
    pub weight: f64,
    /// First and last good status.
    pub status: (u16, u16),
    /// In a good answer's body.
    pub body_has: Option<String>,
    /// The upstream that it is routed to, where the plan's own routes say.
    pub upstream: Option<usize>,
}

/// Gateways that are started, one after the other.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// In the order of the plan; the first is judged, the others stand beside it.
    pub kinds: Vec<Kind>,
    /// Clients speak TLS with it, by a certificate that is made for it.
    pub is_tls: bool,
    /// Event loops of each.
    pub workers: usize,
    /// Empty: not pinned.
    pub cores: Vec<usize>,
    /// Configurations that the user brings, by kind.
    pub configs: Vec<(Kind, Template)>,
}

/// A service behind the gateway.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Unique.
    pub name: String,
    /// At least 1.
    pub instances: usize,
    /// How long an answer takes.
    pub time: Time,
    /// Of an answer.
    pub body_bytes: usize,
    /// What is routed to it.
    pub path: Prefix,
    /// So many of the last instances are backups; less than all.
    pub backup: usize,
    /// Rows of instances that are not there at first.
    pub absent: Vec<usize>,
    /// Empty: not pinned.
    pub cores: Vec<usize>,
}

/// A part of the load.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Unique.
    pub name: String,
    /// Above 0.
    pub length: Duration,
    /// Of [`Offer::rate`].
    pub factor: f64,
    /// In the order in which they are done.
    pub faults: Vec<Timed>,
    /// Rows of requests whose upstream is well all through this phase, while another is not; empty when all or none are.
    pub bystanders: Vec<usize>,
    /// What has to hold.
    pub thresholds: PhaseThresholds,
}

impl Phase {
    /// Whether harm is done at once.
    #[must_use]
    pub fn begins_with_harm(&self) -> bool {
        self.faults.iter().any(|timed| timed.after.is_zero() && timed.fault.harms())
    }
}

/// A fault and when it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// From the start of its phase; before its end.
    pub after: Duration,
    /// What is done.
    pub fault: Fault,
}

/// Something that is done to somebody.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// To instances of an upstream.
    Upstream {
        /// Its row.
        row: usize,
        /// Its name, for reports.
        name: String,
        /// Rows of instances.
        instances: Vec<usize>,
        /// What.
        act: Act,
    },
    /// To the gateway.
    Gateway(GatewayAct),
}

impl Fault {
    /// Whether it does harm; else it undoes some.
    #[must_use]
    pub fn harms(&self) -> bool {
        !matches!(self, Self::Upstream { act: Act::Start | Act::Tell(service::Fault::Fine), .. })
    }
}

/// `upstream svc 1: kill`, with instances from 1.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream { name, instances, act, .. } => {
                let numbers: Vec<_> = instances.iter().map(|row| (row + 1).to_string()).collect();
                write!(f, "upstream {name} {}: {act}", numbers.join(", "))
            }
            Self::Gateway(act) => write!(f, "gateway: {act}"),
        }
    }
}

/// What has to hold in a phase; `None`: it is not asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PhaseThresholds {
    /// Of all requests.
    pub max_failed: Option<Allowed>,
    /// Of single requests, by row.
    pub max_failed_of: Vec<(usize, Allowed)>,
    /// Of [`Phase::bystanders`].
    pub max_bystanders_failed: Option<Allowed>,
    /// Median.
    pub max_p50: Option<Duration>,
    /// 99th percentile.
    pub max_p99: Option<Duration>,
    /// 99.9th percentile.
    pub max_p999: Option<Duration>,
    /// Of those that came.
    pub max_slowest: Option<Duration>,
    /// Good of due, 0 to 1.
    pub min_goodput: Option<f64>,
    /// At upstreams, of each of a client.
    pub max_amplification: Option<f64>,
    /// From the phase's start.
    pub max_detection: Option<Duration>,
    /// The same.
    pub max_recovery: Option<Duration>,
}

/// What capacity means.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// 0.5, 0.99 or 0.999.
    pub quantile: f64,
    /// Its bound.
    pub bound: Duration,
    /// Of all requests, 0 to 1.
    pub failures: f64,
    /// Of the bracket, as a share.
    pub width: f64,
    /// Of a full trial.
    pub trial: Duration,
    /// The search goes no further, requests a second.
    pub max_rate: f64,
    /// The upstream itself, where the plan does not start it.
    pub direct: Option<Url>,
}

/// How many hosts are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizing {
    /// Requests a second of all hosts.
    pub peak: f64,
    /// Hosts that may fail at once.
    pub survive: u32,
}

impl Plan {
    /// Reads the plan at `path`, for this machine.
    ///
    /// # Errors
    /// Everything that is wrong with it, or that it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Errors> {
        let text = ringgate::config::reading::text_of(path, "a plan is a TOML file: see loadtest/plans")?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, &path.display().to_string(), folder, &machine::cores())
    }

    /// Reads a text that messages call `file_name`, for a process that may run on `cores`; files that it names are looked for in `folder`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file_name: &str, folder: &Path, cores: &[usize]) -> Result<Self, Errors> {
        let place = check::Place { text, file_name, folder, cores };
        ringgate::config::reading::document(text, file_name, |file, sink| check::plan(file, &place, sink))
    }

    /// Whether the load goes to servers that are started for it, which are always on this machine.
    #[must_use]
    pub fn starts_gateway(&self) -> bool {
        self.gateway.is_some()
    }

    /// Where everything runs; one that may run anywhere makes a list empty.
    #[must_use]
    pub fn division(&self) -> Division {
        let are_pinned = self.upstreams.iter().all(|upstream| !upstream.cores.is_empty());
        let pinned = self.upstreams.iter().filter(|_| are_pinned);
        Division {
            generator: self.load.cores.clone(),
            gateway: self.gateway.as_ref().map(|gateway| gateway.cores.clone()).unwrap_or_default(),
            upstreams: pinned.flat_map(|upstream| upstream.cores.clone()).collect(),
        }
    }

    /// The load on the server at `address`, without TLS.
    #[must_use]
    pub fn load(&self, address: SocketAddr) -> Load {
        let offer = &self.load;
        let pace = match &offer.pace {
            Pacing::Poisson => Pace::Poisson(offer.rate),
            Pacing::Even => Pace::Even(offer.rate),
            Pacing::Closed => Pace::Closed,
            Pacing::Recorded(times) => Pace::Recorded(Arc::clone(times)),
        };
        let mut end = Duration::ZERO;
        let ends = self.phases.iter().map(|phase| {
            end += phase.length;
            end
        });
        let busier =
            self.phases.iter().zip(self.phases.iter().skip(1)).map(|(before, phase)| phase.factor > before.factor);
        let harms = self.phases.iter().zip([false].into_iter().chain(busier));
        let is_steady = self.phases.iter().all(|phase| phase.factor == 1.0);
        Load {
            address,
            tls: None,
            protocol: offer.protocol,
            targets: self.targets(address),
            pace,
            warm_up: offer.warm_up,
            length: offer.length,
            phases: ends.collect(),
            factors: if is_steady { Vec::new() } else { self.phases.iter().map(|phase| phase.factor).collect() },
            harms: harms.map(|(phase, is_busier)| is_busier || phase.begins_with_harm()).collect(),
            slice: offer.slice,
            connections: offer.connections,
            connections_max: offer.connections_max,
            reconnects: offer.reconnect,
            timeout: offer.timeout,
            cores: offer.cores.clone(),
            is_alone: self.division().sets_generator_apart(),
            seed: offer.seed,
        }
    }

    /// The requests as bytes for the server at `address`.
    #[must_use]
    pub fn targets(&self, address: SocketAddr) -> Arc<[Target]> {
        let authority = self.load.url.as_ref().map_or_else(|| address.to_string(), |url| url.authority.clone());
        self.load.requests.iter().map(|request| request.target(&authority, self.load.reconnect)).collect()
    }
}

impl Request {
    fn target(&self, authority: &str, reconnects: bool) -> Target {
        let host = self.host.as_deref().unwrap_or(authority);
        let target = Target::new(&self.method, host, &self.path, &self.headers, &self.body, reconnects);
        Target {
            name: self.name.clone(),
            weight: self.weight,
            status: self.status.0..=self.status.1,
            body_has: self.body_has.as_ref().map(|text| text.as_bytes().into()),
            ..target
        }
    }
}

/// Reads thresholds from a file of their own, whose keys are those of a plan's `[thresholds]`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn thresholds(file_name: &str, text: &str) -> Result<Thresholds, Errors> {
    ringgate::config::reading::document(text, file_name, |table, _| Some(check::thresholds(table)))
}
