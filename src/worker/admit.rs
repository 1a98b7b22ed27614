//! `admit`: the route's rate limits.
//!
//! A request that is over any of them takes a token from none: all are asked before one is taken from. Limits in dry run are asked and
//! counted, and never reject.

use super::shared::{Limiter, LimiterKind};
use super::state::Worker;
use crate::config::LimitKey;
use crate::error::ProxyError;
use crate::policy::rate_fields;
use crate::policy::token_bucket::{Decision, Gcra, Standing};
use crate::units::{Instant, Rate, RouteId};
use http::HeaderName;
use std::net::IpAddr;

/// A request is over a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    rate: Rate,
    gcra: Gcra,
    standing: Standing,
}

/// Buffers for the fields of a refusal.
#[derive(Debug, Default)]
pub(super) struct FieldTexts {
    retry_after: Vec<u8>,
    limit: Vec<u8>,
    policy: Vec<u8>,
}

impl Refusal {
    pub(super) fn error(&self) -> ProxyError {
        ProxyError::RateLimited
    }

    /// `Retry-After`, `RateLimit` and `RateLimit-Policy`.
    pub(super) fn fields<'t>(&self, texts: &'t mut FieldTexts) -> [(&'static str, &'t [u8]); 3] {
        let FieldTexts { retry_after, limit, policy } = texts;
        [&mut *retry_after, &mut *limit, &mut *policy].into_iter().for_each(Vec::clear);
        rate_fields::retry_after(retry_after, self.standing);
        rate_fields::rate_limit(limit, self.standing);
        rate_fields::rate_limit_policy(policy, self.rate, self.gcra.burst());
        [("Retry-After", retry_after), ("RateLimit", limit), ("RateLimit-Policy", policy)]
    }
}

impl Worker {
    /// Takes a token from each of the route's limits.
    ///
    /// # Errors
    /// The first limit that has none.
    pub(super) fn admit<'h>(
        &self,
        route: RouteId,
        client: IpAddr,
        header: &dyn Fn(&HeaderName) -> Option<&'h [u8]>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let limiters = &self.shared.limiters[route.index()];
        if let [] = limiters[..] {
            return Ok(());
        }
        if limiters.len() > 1 {
            self.ask_all(route, client, header, now)?;
        }
        for index in 0..limiters.len() {
            self.ask(route, index, client, header, now, true)?;
        }
        Ok(())
    }

    fn ask_all<'h>(
        &self,
        route: RouteId,
        client: IpAddr,
        header: &dyn Fn(&HeaderName) -> Option<&'h [u8]>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let limits = &self.shared.config.routes[route.index()].limits;
        for index in (0..limits.len()).filter(|index| !limits[*index].dry_run) {
            self.ask(route, index, client, header, now, false)?;
        }
        Ok(())
    }

    fn ask<'h>(
        &self,
        route: RouteId,
        index: usize,
        client: IpAddr,
        header: &dyn Fn(&HeaderName) -> Option<&'h [u8]>,
        now: Instant,
        take: bool,
    ) -> Result<(), Refusal> {
        let limit = &self.shared.config.routes[route.index()].limits[index];
        let limiter = &self.shared.limiters[route.index()][index];
        let decision = match &limiter.kind {
            LimiterKind::Route(reservoir) => {
                let lease = &mut self.routes.borrow_mut()[route.index()].leases[index];
                if take { lease.take(reservoir, now) } else { lease.peek(reservoir, now) }
            }
            LimiterKind::Keyed(_) => self.ask_keyed(limiter, &limit.per, client, header, now, take),
        };
        match decision {
            Decision::Admit => Ok(()),
            Decision::Reject(_) if limit.dry_run => {
                self.recorder.rate_limited_dry_run(route);
                Ok(())
            }
            Decision::Reject(standing) => Err(Refusal { rate: limit.rate, gcra: limiter.gcra, standing }),
        }
    }

    fn ask_keyed<'h>(
        &self,
        limiter: &Limiter,
        per: &LimitKey,
        client: IpAddr,
        header: &dyn Fn(&HeaderName) -> Option<&'h [u8]>,
        now: Instant,
        take: bool,
    ) -> Decision {
        let (Some(keys), LimiterKind::Keyed(id)) = (&self.shared.keys, &limiter.kind) else { return Decision::Admit };
        let key = match per {
            LimitKey::Header(name) => keys.header(*id, header(name)),
            LimitKey::ClientIp | LimitKey::Route => keys.client(*id, client),
        };
        if take { keys.take(key, limiter.gcra, now) } else { keys.peek(key, limiter.gcra, now) }
    }
}
