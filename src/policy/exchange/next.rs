//! What follows an attempt that came to nothing: the next endpoint, a retry, a backoff, or the answer in hand.

use super::{Action, Exchange, Occasion, State};
use crate::error::ProxyError;
use crate::limits::FAILOVERS_MAX;
use crate::policy::attempt::{Attempt, Shortage};
use crate::policy::cluster::Cluster;
use crate::policy::event::Facts;
use crate::policy::retry::{self, Cause, Sent};
use crate::policy::visited::Visited;
use crate::units::{Instant, Rng};
use std::time::Duration;

impl Exchange {
    /// The same request at another cluster, of which it has met nobody yet.
    #[must_use]
    pub fn elsewhere(&self) -> Self {
        Self::new(Facts { session: None, key: None, ..self.facts.clone() })
    }

    /// Nothing was sent: on to the next endpoint that this request has not met. `None` when there is none.
    pub(super) fn fail_over(&mut self, cluster: &mut Cluster, now: Instant, rng: &mut Rng) -> Option<Action> {
        if usize::from(self.failovers) >= FAILOVERS_MAX {
            return None;
        }
        match self.begin(Occasion::Failover, self.tried, cluster, now, rng) {
            Ok(action) => {
                self.failovers += 1;
                Some(action)
            }
            Err(Shortage::Full) => Some(self.without_endpoint(Shortage::Full)),
            Err(Shortage::Tried | Shortage::Nothing) => None,
        }
    }

    /// The endpoint was full after all: as if it had not been chosen.
    pub(super) fn on_saturated(
        &mut self,
        attempt: Attempt,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Action {
        let endpoint = attempt.endpoint;
        cluster.undo(attempt, now);
        self.tried.pop();
        let (occasion, has_waited) = (self.occasion, self.backoffs > 0);
        let begun = match self.refused.push(endpoint) {
            true => self.begin(occasion, self.tried, cluster, now, rng),
            false => Err(Shortage::Full),
        };
        // a retry that has waited has no answer in hand any more, and may go where it has been
        let begun = begun.or_else(|shortage| match has_waited && self.behind.is_none() {
            true => self.begin(occasion, Visited::EMPTY, cluster, now, rng),
            false => Err(shortage),
        });
        let shortage = match begun {
            Ok(action) => return action,
            Err(shortage) => shortage,
        };
        if let Occasion::Retry(_) = self.occasion {
            self.retries_left += 1;
            self.refund(cluster, now);
        }
        if let Some((attempt, failed)) = self.behind.take() {
            self.state = State::Relaying { attempt, failed };
            return Action::Relay;
        }
        self.without_endpoint(if shortage == Shortage::Nothing { shortage } else { Shortage::Full })
    }

    /// The next attempt or the backoff before it; `None` when there is to be none.
    pub(super) fn retry(
        &mut self,
        cause: Cause,
        sent: Sent,
        pause: Option<Duration>,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Action> {
        let Facts { deadline, retry: rules, .. } = &self.facts;
        let allowed = rules.covers(cause) || (sent == Sent::Nothing && rules.covers(Cause::Connect));
        let may_repeat = match cause {
            // who names a code in `on` says of calls that end so that they may be made again
            Cause::Code(_) => self.facts.replayable,
            _ => self.may_repeat(sent),
        };
        if self.retries_left == 0 || !allowed || !may_repeat || !rules.leaves_time(deadline, now) {
            return None;
        }
        if sent == Sent::Nothing && !cluster.has_hope(now) {
            return None;
        }
        let is_promising = cluster.is_promising(self.tried.as_slice(), now);
        self.held_back = !is_promising && !cluster.standings().is_retry_due(now);
        if self.held_back {
            return None;
        }
        // what was cut by our own impatience is made again, if on credit: no more is cut before that is paid
        if !cluster.budget().withdraw(now) {
            if cause != Cause::Timeout || !self.cut {
                self.budget_stopped = true;
                return None;
            }
            cluster.budget().owe(now);
        }
        self.paid = true;
        // last, because it takes what only one in a while may have
        self.held_back = !is_promising && !cluster.standings().claim_retry(now);
        if self.held_back {
            self.refund(cluster, now);
            return None;
        }
        self.retries_left -= 1;
        let next = Occasion::Retry(cause);
        let begun = self.begin(next, self.tried, cluster, now, rng);
        let action = begun.ok().or_else(|| self.back_off(next, pause, now, rng));
        if action.is_some() {
            self.retry_reason = Some(cause);
        } else {
            self.retries_left += 1;
            self.refund(cluster, now);
        }
        action
    }

    /// The gateway itself has lacked what a connection needs: nobody has failed, and no budget pays. Another endpoint may have a connection in
    /// its pool, or there are ports of ours towards it; else what is lacking may be there in a moment, for which a route waits that retries.
    pub(super) fn on_exhausted(
        &mut self,
        attempt: Attempt,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Action {
        cluster.end(attempt, now);
        if let Some(action) = self.fail_over(cluster, now, rng) {
            return action;
        }
        if self.retries_left > 0
            && self.facts.retry.covers(Cause::Connect)
            && let Some(action) = self.back_off(Occasion::Failover, None, now, rng)
        {
            self.retries_left -= 1;
            return action;
        }
        self.refund(cluster, now);
        Action::Reply(ProxyError::Exhausted)
    }

    /// No other endpoint is left: wait before one is tried again, if the wait leaves time for that, and none is asked for that is longer
    /// than the longest backoff.
    fn back_off(&mut self, next: Occasion, pause: Option<Duration>, now: Instant, rng: &mut Rng) -> Option<Action> {
        let Facts { deadline, retry: rules, .. } = &self.facts;
        let pause = pause.unwrap_or_default();
        let until = now + retry::backoff(u32::from(self.backoffs), rules.backoff_max, rng).max(pause);
        (pause <= rules.backoff_max && !self.tried.is_full() && rules.leaves_time(deadline, until)).then(|| {
            self.backoffs += 1;
            self.state = State::BackingOff { next };
            Action::Backoff { until }
        })
    }
}
