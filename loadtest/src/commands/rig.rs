//! A gateway and services of the tool's own, on cores of their own as far as there are some.

use super::bench::Process;
use super::session::Refusal;
use crate::gateways::{Endpoint, Front, Gateway, Kind, Program, Route, Setup};
use crate::load::{Load, Protocol};
use crate::plan::{Division, Plan};
use crate::processes::Fleet;
use crate::upstream::{Service, Time};
use crate::url::Url;
use crate::wire::TlsSettings;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A port that the kernel chooses.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A running rig; dropping it ends all of it.
pub struct Rig {
    /// First, so that it ends before its services.
    pub gateway: Gateway,
    /// The services, by row of upstream.
    pub fleets: Vec<Fleet>,
}

impl Rig {
    /// A gateway of this kind with this front, before one service that answers at once with `body_bytes`.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(
        program: &Program,
        front: Front,
        cores: &Division,
        body_bytes: usize,
        seed: u64,
    ) -> Result<Self, Refusal> {
        let service = Service { listen: ANY, time: Time::Fixed(Duration::ZERO), body_bytes, seed };
        let fleet = Fleet::start_all(&[service], &cores.upstreams).map_err(told)?;
        let setup = Setup {
            workers: cores.gateway.len().max(1),
            cores: cores.gateway.clone(),
            front,
            ..Setup::plain(&fleet.addresses())
        };
        let gateway = Gateway::start(program, &setup).map_err(told)?;
        Ok(Self { gateway, fleets: vec![fleet] })
    }

    /// What a plan has started.
    ///
    /// # Errors
    /// It starts no gateway, or one of them does not start.
    pub fn of_plan(plan: &Plan, program: &Program) -> Result<Self, Refusal> {
        let missing = || Refusal(format!("{}: [gateway] is missing: nothing is to be started", plan.text.name));
        let gateway = plan.gateway.as_ref().ok_or_else(missing)?;
        let (mut fleets, mut routes) = (Vec::new(), Vec::new());
        for (row, upstream) in plan.upstreams.iter().enumerate() {
            let service = |instance: usize| Service {
                listen: ANY,
                time: upstream.time,
                body_bytes: upstream.body_bytes,
                seed: plan.load.seed.wrapping_add((row * 1_000 + instance) as u64),
            };
            let services: Vec<_> = (0..upstream.instances).map(service).collect();
            let mut fleet = Fleet::reserve(&services, &upstream.cores).map_err(told)?;
            for instance in (0..upstream.instances).filter(|instance| !upstream.absent.contains(instance)) {
                fleet.start(instance).map_err(told)?;
            }
            let first_backup = upstream.instances - upstream.backup;
            let endpoint =
                |(row, address): (usize, &SocketAddr)| Endpoint { address: *address, is_backup: row >= first_backup };
            routes.push(Route {
                // a plan's `/*` has nothing before its star
                prefix: if upstream.path.0.is_empty() { "/".to_owned() } else { upstream.path.0.clone() },
                upstream: upstream.name.clone(),
                endpoints: fleet.addresses().iter().enumerate().map(endpoint).collect(),
            });
            fleets.push(fleet);
        }
        let setup = Setup {
            listen: None,
            admin: None,
            workers: gateway.workers,
            cores: gateway.cores.clone(),
            routes,
            retries_on_500: false,
            health_checks: false,
            front: Front { is_http2: plan.load.protocol != Protocol::Http1, is_tls: gateway.is_tls },
            own: gateway.configs.iter().find(|(kind, _)| *kind == program.kind).map(|(_, own)| own.clone()),
        };
        Ok(Self { gateway: Gateway::start(program, &setup).map_err(told)?, fleets })
    }

    /// Where its clients go.
    ///
    /// # Errors
    /// None that could be expected.
    pub fn url(&self) -> Result<Url, Refusal> {
        Ok(Url::parse(&self.gateway.url())?)
    }

    /// How TLS is spoken with it, if it is, unless somebody says otherwise: its own certificate is believed.
    #[must_use]
    pub fn tls(&self) -> TlsSettings {
        TlsSettings { ca: self.gateway.ca().map(Into::into), ..TlsSettings::default() }
    }

    /// The load of a plan on it.
    ///
    /// # Errors
    /// What the plan says of TLS cannot be used.
    pub fn load(&self, plan: &Plan) -> Result<Load, Refusal> {
        let load = plan.load(self.gateway.address());
        let settings = self.tls().overlaid(plan.load.tls.clone());
        let tls = self.url()?.tls(&settings, load.protocol != Protocol::Http1)?;
        Ok(Load { tls, ..load })
    }
}

fn told(error: crate::processes::Error) -> Refusal {
    Refusal(error.to_string())
}

/// The program of a kind.
///
/// # Errors
/// It is not installed.
pub fn program(kind: Kind) -> Result<Program, Refusal> {
    kind.find().map_err(Refusal)
}

impl Process for Gateway {
    fn cpu(&mut self) -> Option<f64> {
        Some(self.child().cpu_seconds())
    }

    fn resident(&mut self) -> Option<u64> {
        Some(self.child().resident_bytes())
    }

    fn ended(&mut self) -> Option<String> {
        self.child().has_ended().map(|ending| format!("{ending:?}"))
    }
}
