//! What a script is given: the gateway to drill, how long things last, and chance.

use rand::SeedableRng;
use rand::rngs::StdRng;
use std::time::Duration;

use crate::fleet::Fleet;
use crate::gateways::{Gateway, Setup, Variant};
use crate::load::{Load, Plan};

/// Client connections for each worker, so that the kernel gives every one of them some.
const CONNECTIONS_PER_WORKER: usize = 4;
const CONNECTIONS_MIN: usize = 16;

/// One run of one script.
pub(crate) struct Stage<'a> {
    pub(crate) variant: &'a Variant,
    /// Of all durations and counts.
    pub(crate) scale: f64,
    pub(crate) seed: u64,
}

impl Stage<'_> {
    /// So long, at this scale.
    pub(crate) fn seconds(&self, seconds: u32) -> Duration {
        Duration::from_secs(seconds.into()).mul_f64(self.scale)
    }

    /// So many, at this scale, and at least `least`.
    pub(crate) fn count(&self, count: u32, least: u64) -> u64 {
        let scaled = (f64::from(count) * self.scale).round() as u64;
        scaled.max(least)
    }

    /// The same chances for every gateway.
    pub(crate) fn chance(&self) -> StdRng {
        StdRng::seed_from_u64(self.seed)
    }

    /// Starts the gateway in front of `fleet`.
    pub(crate) fn gateway(&self, fleet: &Fleet, setup: Setup) -> anyhow::Result<Gateway> {
        Gateway::start(self.variant, &Setup { endpoints: fleet.addresses(), ..setup })
    }

    /// Begins a load on it: `per_second` requests, every `post_every`-th a POST (0: none), `requests` of them or until stopped.
    pub(crate) fn load(
        &self,
        gateway: &Gateway,
        per_second: u32,
        post_every: u64,
        requests: Option<u64>,
    ) -> anyhow::Result<Load> {
        let connections = (self.variant.workers * CONNECTIONS_PER_WORKER).max(CONNECTIONS_MIN);
        Load::start(Plan { target: gateway.address(), per_second, post_every, connections, requests })
    }
}
