//! A gateway and services of the tool's own, on cores of their own as far as there are some.

use super::bench::Process;
use super::session::Refusal;
use crate::gateways::{Gateway, Kind, Program, Setup};
use crate::processes::Fleet;
use crate::upstream::{Service, Time};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Of the gateway under test.
    pub gateway: Vec<usize>,
    /// Of services.
    pub upstream: Vec<usize>,
    /// Of the generator.
    pub generator: Vec<usize>,
}

impl Cores {
    /// Half of them for the gateway, which is measured, the rest for the generator and services, which shall not limit it. On two cores those
    /// share one.
    #[must_use]
    pub fn divide(all: &[usize]) -> Self {
        let (gateway, rest) = all.split_at((all.len() / 2).max(1).min(all.len()));
        let rest = if rest.is_empty() { gateway } else { rest };
        let (upstream, generator) = rest.split_at(rest.len() / 2);
        let upstream = if upstream.is_empty() { generator } else { upstream };
        Self { gateway: gateway.to_vec(), upstream: upstream.to_vec(), generator: generator.to_vec() }
    }
}

/// A running rig; dropping it ends all of it.
pub struct Rig {
    /// First, so that it ends before its services.
    pub gateway: Gateway,
    /// The services.
    pub fleet: Fleet,
}

impl Rig {
    /// A gateway of this kind before `instances` services that answer at once with `body_bytes`.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn start(
        program: &Program,
        cores: &Cores,
        instances: usize,
        body_bytes: usize,
        seed: u64,
    ) -> Result<Self, Refusal> {
        let service = |row: usize| Service {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            time: Time::Fixed(Duration::ZERO),
            body_bytes,
            seed: seed.wrapping_add(row as u64),
        };
        let services: Vec<_> = (0..instances).map(service).collect();
        let fleet = Fleet::start_all(&services, &cores.upstream).map_err(|error| Refusal(error.to_string()))?;
        let setup =
            Setup { workers: cores.gateway.len(), cores: cores.gateway.clone(), ..Setup::plain(&fleet.addresses()) };
        let gateway = Gateway::start(program, &setup).map_err(|error| Refusal(error.to_string()))?;
        Ok(Self { gateway, fleet })
    }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_divided_and_none_is_left_out_or_without() {
        let divided = |n: usize| Cores::divide(&(0..n).collect::<Vec<_>>());
        assert_eq!(divided(1), Cores { gateway: vec![0], upstream: vec![0], generator: vec![0] });
        assert_eq!(divided(2), Cores { gateway: vec![0], upstream: vec![1], generator: vec![1] });
        assert_eq!(divided(3), Cores { gateway: vec![0], upstream: vec![1], generator: vec![2] });
        assert_eq!(divided(8), Cores { gateway: vec![0, 1, 2, 3], upstream: vec![4, 5], generator: vec![6, 7] });
    }
}
