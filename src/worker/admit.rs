//! `admit`: the route's rate limits.
//!
//! A request that is over any of them takes a token from none: all are asked before one is taken from. Limits in dry run are asked and
//! counted, and never reject.

use super::shared::{Limiter, LimiterKind};
use super::state::Worker;
use crate::config::{Limit, LimitKey};
use crate::policy::limit_fields;
use crate::policy::token_bucket::{Decision, Standing};
use crate::units::{Instant, RouteId};
use http::HeaderName;
use std::net::IpAddr;

/// A request is over a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    /// Which of the route's.
    limit: usize,
    standing: Standing,
}

/// Buffers for the fields of a refusal.
#[derive(Debug, Default)]
pub(super) struct FieldTexts {
    retry_after: Vec<u8>,
    standing: Vec<u8>,
    policies: Vec<u8>,
}

impl Refusal {
    /// Writes `Retry-After`, `RateLimit` (the limit that rejected) and `RateLimit-Policy` (all of the route's).
    pub(super) fn fields<'t>(
        &self,
        limits: &[Limit],
        limiters: &[Limiter],
        texts: &'t mut FieldTexts,
    ) -> [(&'static str, &'t [u8]); 3] {
        let FieldTexts { retry_after, standing, policies } = texts;
        [&mut *retry_after, &mut *standing, &mut *policies].into_iter().for_each(Vec::clear);
        limit_fields::write_retry_after(self.standing.reset, retry_after);
        limit_fields::write_standings([(limiters[self.limit].name.as_str(), self.standing)], standing);
        let names = limiters.iter().map(|limiter| limiter.name.as_str());
        limit_fields::write_policies(names.zip(limits), policies);
        [("Retry-After", retry_after), ("RateLimit", standing), ("RateLimit-Policy", policies)]
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
            Decision::Reject(standing) => Err(Refusal { limit: index, standing }),
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
