//! What each worker keeps beside the standings, brought up to date: who is available, who waits for a probe, who is on a ramp.

use super::Cluster;
use crate::policy::attempt::{ChangeKind, Readmission};
use crate::policy::endpoint::Endpoint;
use crate::policy::standings::Standing;
use crate::policy::tiers::Shares;
use crate::units::{EndpointId, Instant};

impl Cluster {
    /// Makes a change that takes nobody away softly, and sees it at once.
    pub(super) fn change(&mut self, id: EndpointId, from: Standing, to: Standing, now: Instant) -> bool {
        let changed = self.standings.change(id, from, to);
        if changed && self.seen.is_some_and(|seen| seen + 1 == self.standings.version()) && now < self.next_change {
            // nobody else has changed anything: one row is looked at, not all
            self.seen = self.seen.map(|seen| seen + 1);
            self.ready.retain(|ready| *ready != id);
            self.look(id, now);
        }
        self.refresh(now);
        changed
    }

    /// Brings everything that is kept beside the standings up to `now`.
    #[inline]
    pub fn refresh(&mut self, now: Instant) {
        if now >= self.next_change || self.seen != Some(self.standings.version()) {
            self.sweep(now);
        }
        if self.stale {
            self.rebuild();
        }
    }

    #[cold]
    #[inline(never)]
    fn rebuild(&mut self) {
        self.stale = false;
        // nobody is worse than the others where all are shunned
        let serves = match self.endpoints.iter().any(Endpoint::is_available) {
            true => Endpoint::is_available,
            false => Endpoint::is_left,
        };
        for tier in &mut self.tiers {
            let available = tier.members.iter().filter(|id| serves(&self.endpoints[id.index()]));
            tier.available.clear();
            tier.available.extend(available);
            tier.strategy.rebuild(&tier.available, &self.endpoints);
        }
        let counts = self.tiers.iter().map(|t| (t.available.len(), t.positive as usize));
        self.shares = Shares::new(counts, self.strict);
        self.available = self.tiers.iter().map(|t| t.available.len() as u32).sum();
    }

    /// Looks at every endpoint: what other workers have changed, and what time has.
    #[cold]
    #[inline(never)]
    fn sweep(&mut self, now: Instant) {
        // before the standings are read: what changes meanwhile is seen next time
        self.seen = Some(self.standings.version());
        self.ready.clear();
        self.next_change = Instant::NEVER;
        for row in 0..self.endpoints.len() {
            self.look(EndpointId::from_index(row), now);
        }
    }

    /// Looks at one endpoint, of which nothing is noted in `ready`.
    fn look(&mut self, id: EndpointId, now: Instant) {
        let standing = self.let_time_pass(id, now);
        self.next_change = self.next_change.min(standing.changes_at(now));
        if standing.ready_since(now).is_some() {
            self.ready.push(id);
        }
        let (readmitted, ramp_from) = self.standings.returned(id);
        let endpoint = &mut self.endpoints[id.index()];
        let before = (endpoint.is_available(), endpoint.is_left());
        self.ramping -= u32::from(endpoint.ramp_from.is_some());
        if endpoint.standing != standing {
            (endpoint.standing, endpoint.stands_since) = (standing, now);
        }
        if readmitted > endpoint.readmitted {
            endpoint.return_at(readmitted, ramp_from);
        }
        if let Some(from) = endpoint.ramp_from {
            let over = from + self.slow_start;
            if over <= now || standing != Standing::Serving {
                endpoint.ramp_from = None;
            } else {
                self.ramping += 1;
                self.next_change = self.next_change.min(over);
            }
        }
        self.stale |= before != (endpoint.is_available(), endpoint.is_left());
    }

    /// Ends a pause or a shunning that is over. Where it stands then.
    fn let_time_pass(&mut self, id: EndpointId, now: Instant) -> Standing {
        let standing = self.standings.get(id);
        let (Standing::Paused { until } | Standing::Shunned { until }) = standing else { return standing };
        if until > now {
            return standing;
        }
        // the balancer has known it all the time if it was shunned, and it has not been away for long if it was paused
        if self.standings.readmit(id, standing, now, false) {
            self.note(id, now, ChangeKind::Readmitted { by: Readmission::Time });
        }
        self.standings.get(id)
    }
}
