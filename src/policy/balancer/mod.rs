//! Choosing one of a tier's available endpoints: seven strategies behind one enum.
//!
//! A [`Strategy`] serves one tier of one cluster. When the set of available endpoints changes (rarely) it is rebuilt from that set; a
//! choice (often) then only meets endpoints that are available. What differs from request to request is asked of [`Candidates`]: this
//! request tried the endpoint before, the endpoint is full, or its ramp declines. Those are *skipped* in a way that leaves the
//! strategy's turn, proportions and other keys as they are. Choosing allocates nothing.
//!
//! Tiers, probes and failing open are not known here; that is [`crate::policy::cluster`].

pub mod alias;
pub mod hash;
pub mod maglev;
pub mod random;
pub mod ring;
pub mod round_robin;
pub mod rtt;
pub mod two_choices;
pub mod weighted;

use crate::config::Balance;
use crate::policy::endpoint::Endpoint;
use crate::policy::standings::Standings;
use crate::policy::visited::Visited;
use crate::units::{EndpointId, Instant, Rng};
use std::time::Duration;

/// One request's view of a cluster's endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// All endpoints of the cluster; ids are rows.
    pub endpoints: &'a [Endpoint],
    /// Tried before by this request.
    pub tried: &'a [EndpointId],
    /// Found full by this request.
    pub refused: &'a Visited,
    /// For a request that has failed before: who knows which endpoints could not be reached last; those are left out.
    pub reached: Option<&'a Standings>,
    /// In flight per endpoint on this worker; `u32::MAX`: no limit.
    pub requests_max: u32,
    /// The ramp of endpoints that came back.
    pub slow_start: Duration,
    /// What the hash strategies hash; well mixed.
    pub key: u64,
    /// Drawn from [0, 1) when an endpoint is on its ramp: those whose ramp is below it decline. `None`: nobody declines.
    pub coin: Option<f64>,
    /// The time of the choice.
    pub now: Instant,
}

impl<'a> Candidates<'a> {
    /// The endpoint of `id`.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> &'a Endpoint {
        &self.endpoints[id.index()]
    }

    /// Whether the request may go to `id`, which is available.
    #[must_use]
    pub fn take(&self, id: EndpointId) -> bool {
        let endpoint = self.endpoint(id);
        endpoint.in_flight < self.requests_max
            && !self.tried.contains(&id)
            && !self.refused.contains(id)
            && self.reached.is_none_or(|standings| !standings.is_unreached(id))
            && self.coin.is_none_or(|coin| coin < endpoint.ramp(self.now, self.slow_start))
    }

    /// Whether this is a request's first try: only that one takes a turn where turns are counted.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.tried.is_empty()
    }
}

/// `upstream.balance` for one tier.
#[derive(Clone, Debug)]
pub enum Strategy {
    /// In proportion to availability.
    Random(random::Random),
    /// In turn.
    RoundRobin(round_robin::RoundRobin),
    /// In proportion to weight, smoothly.
    Weighted(weighted::Weighted),
    /// The better of two.
    TwoChoices(two_choices::TwoChoices),
    /// Ketama.
    Ring(ring::Ring),
    /// Maglev.
    Maglev(maglev::Maglev),
}

impl Strategy {
    /// For a tier with these `members`; hash tables are built here, once, over all members of positive weight.
    #[must_use]
    pub fn new(balance: &Balance, members: &[EndpointId], endpoints: &[Endpoint], rng: &mut Rng) -> Self {
        match balance {
            Balance::Random => Self::Random(random::Random),
            Balance::RoundRobin => Self::RoundRobin(round_robin::RoundRobin::new(members, rng)),
            Balance::Weighted => Self::Weighted(weighted::Weighted::new(members, rng)),
            Balance::LeastRequest => Self::TwoChoices(two_choices::TwoChoices::least_request(members.len())),
            Balance::PeakEwma => Self::TwoChoices(two_choices::TwoChoices::peak_ewma(members.len())),
            Balance::RingHash(_) => Self::Ring(ring::Ring::new(members, endpoints)),
            Balance::Maglev(_) => Self::Maglev(maglev::Maglev::new(members, endpoints)),
        }
    }

    /// The tier's available endpoints, ascending, are now these.
    pub fn rebuild(&mut self, available: &[EndpointId], endpoints: &[Endpoint]) {
        match self {
            Self::Weighted(s) => s.rebuild(available, endpoints),
            Self::TwoChoices(s) => s.rebuild(available, endpoints),
            Self::Random(_) | Self::RoundRobin(_) | Self::Ring(_) | Self::Maglev(_) => {}
        }
    }

    /// One of `available` (as last given to [`Strategy::rebuild`]) that [`Candidates::take`]s the request; `None` when none does.
    pub fn choose(&mut self, available: &[EndpointId], c: &Candidates<'_>, rng: &mut Rng) -> Option<EndpointId> {
        match self {
            Self::Random(s) => s.choose(available, c, rng),
            Self::RoundRobin(s) => s.choose(available, c),
            Self::Weighted(s) => s.choose(c),
            Self::TwoChoices(s) => s.choose(available, c, rng),
            Self::Ring(s) => s.choose(available, c),
            Self::Maglev(s) => s.choose(available, c),
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
