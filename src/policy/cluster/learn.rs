//! What the outcome of an attempt teaches about its endpoint, and what follows from it for all workers.

use super::Cluster;
use crate::config::Outlier;
use crate::limits::{DOUBT, RTT_PENALTY, SHUNNED_MIN};
use crate::policy::attempt::{Attempt, ChangeKind, Readmission, Terms};
use crate::policy::chance;
use crate::policy::outlier::{Evidence, Reason, Track};
use crate::policy::standings::{Standing, coarse};
use crate::units::{EndpointId, Instant, Rng};
use std::time::Duration;

/// How often a change is tried that others are in the way of. If they are for so long, the next failure tries again.
const TRIES: usize = 4;

impl Cluster {
    /// A connection to the endpoint stands: it is not dead.
    pub fn on_connected(&mut self, id: EndpointId, now: Instant) {
        self.standings.revive(id, now);
    }

    /// A response head came that is not a failure: the endpoint answers. A probe has succeeded with it, and so has a last resort.
    pub fn on_answer(&mut self, attempt: &Attempt, now: Instant) {
        let id = attempt.endpoint;
        self.endpoints[id.index()].rtt.on_sample(now.since(attempt.began), now);
        let standing = match attempt.terms {
            Terms::Usual => return,
            Terms::Probe { .. } | Terms::LastResort => self.standings.get(id),
        };
        self.standings.on_reached(id, now);
        match (attempt.terms, standing) {
            (_, Standing::Serving | Standing::Shunned { .. }) => {}
            (Terms::Probe { lease: own }, from @ (Standing::Ejected { .. } | Standing::Probing { .. })) => {
                let proofs = self.standings.track(id).on_proof();
                if Track::suffices(proofs, self.standings.whole(id), now) {
                    self.readmit(id, Readmission::Probe, now);
                } else if let Standing::Probing { evidence, lease } = from
                    && lease == own
                {
                    self.change(id, from, Standing::Ejected { evidence, due: now }, now);
                }
            }
            _ => self.readmit(id, Readmission::LastResort, now),
        }
    }

    /// The attempt succeeded as a whole.
    pub fn on_success(&mut self, attempt: &Attempt, now: Instant) {
        let id = attempt.endpoint;
        let endpoint = &mut self.endpoints[id.index()];
        endpoint.availability.on_outcome(true, now);
        endpoint.doubts = 0;
        let Some(rules) = &self.outlier else { return };
        if attempt.began < endpoint.readmitted {
            return;
        }
        match endpoint.standing {
            Standing::Serving => {
                endpoint.successes.add(now, rules.window);
                self.standings.track(id).on_success();
            }
            Standing::Shunned { .. } => {
                endpoint.successes.add(now, rules.window);
                let track = self.standings.track(id);
                track.on_success();
                if track.on_proof() >= rules.consecutive && now.since(endpoint.stands_since) >= SHUNNED_MIN {
                    self.readmit(id, Readmission::Answers, now);
                }
            }
            Standing::Paused { .. } | Standing::Ejected { .. } | Standing::Probing { .. } => {}
        }
    }

    /// The attempt failed by the endpoint's fault. May put it aside, for all workers.
    pub fn on_failure(&mut self, attempt: &Attempt, evidence: Evidence, now: Instant, rng: &mut Rng) {
        let id = attempt.endpoint;
        let endpoint = &mut self.endpoints[id.index()];
        endpoint.availability.on_outcome(false, now);
        endpoint.rtt.on_sample(now.since(attempt.began).max(RTT_PENALTY), now);
        endpoint.doubts = endpoint.doubts.saturating_add(1);
        endpoint.doubted_until = now + DOUBT;
        self.standings.set_failed(id, attempt.began, now);
        if evidence == Evidence::Hard {
            self.standings.set_unreached(id);
        }
        let Some(rules) = self.outlier else { return };
        let standing = self.standings.get(id);
        if evidence == Evidence::Hard && attempt.terms != Terms::Usual {
            self.standings.set_dead(id, attempt.began, now);
        }
        match (attempt.terms, standing) {
            (_, Standing::Serving | Standing::Shunned { .. }) => {
                self.on_usual_failure(attempt, evidence, (standing, &rules), now, rng);
            }
            (Terms::Probe { lease: own }, _) => {
                let holds = matches!(standing, Standing::Probing { lease, .. } if lease == own);
                if holds || standing.ready_since(now).is_some() {
                    // the same fault going on: no relapse, and so no doubling
                    let due = now + rules.eject.mul_f64(1.0 - chance::unit(rng) / 10.0);
                    self.standings.track(id).on_disproof();
                    self.set_aside(id, (standing, evidence), Reason::Probe, due, now);
                }
            }
            (_, from @ Standing::Paused { .. }) if evidence == Evidence::Hard => {
                let due = now + rules.eject.mul_f64(1.0 - chance::unit(rng) / 10.0);
                self.set_aside(id, (from, evidence), Reason::Consecutive, due, now);
            }
            (_, from @ Standing::Ejected { due, .. }) if evidence == Evidence::Hard && !from.is_hard() => {
                self.standings.track(id).on_disproof();
                self.change(id, from, Standing::Ejected { evidence, due }, now);
            }
            _ => self.standings.track(id).on_disproof(),
        }
    }

    fn on_usual_failure(
        &mut self,
        attempt: &Attempt,
        evidence: Evidence,
        (standing, rules): (Standing, &Outlier),
        now: Instant,
        rng: &mut Rng,
    ) {
        let id = attempt.endpoint;
        let endpoint = &mut self.endpoints[id.index()];
        // not this worker's copy: a failure from before another one's readmission would be taken for a relapse
        let (readmitted, _) = self.standings.returned(id);
        if attempt.began < readmitted {
            return;
        }
        let track = self.standings.track(id);
        if standing != Standing::Serving {
            track.on_disproof();
        }
        let Some(reason) = track.on_failure(&mut endpoint.successes, now, rules) else { return };
        // an endpoint that answers now and then can be reached
        let evidence = if reason == Reason::Consecutive { evidence } else { Evidence::Soft };
        let sentence = track.sentence(readmitted, now, rules, rng);
        if self.set_aside(id, (standing, evidence), reason, sentence.due, now) {
            self.standings.set_whole(id, sentence.whole);
            self.standings.track(id).serve(sentence);
        }
    }

    /// The attempt was given up without telling anything about the endpoint but that it takes at least this long.
    pub fn on_given_up(&mut self, attempt: &Attempt, now: Instant) {
        self.endpoints[attempt.endpoint.index()].rtt.on_given_up(now.since(attempt.began), now);
    }

    /// The endpoint asked (Retry-After) for no requests for `time`, of which at most `retry_after_max` is granted, and nothing that the
    /// cap forbids.
    pub fn pause(&mut self, id: EndpointId, time: Duration, now: Instant) {
        let until = coarse(now + time.min(self.pause_max));
        if until <= now {
            return;
        }
        match self.standings.get(id) {
            from @ Standing::Serving => {
                if self.put_aside(id, from, Standing::Paused { until }, now) {
                    self.note(id, now, ChangeKind::Paused { until });
                } else {
                    self.shun(id, from, Reason::RetryAfter, until, now);
                }
            }
            from @ Standing::Paused { until: before } if until > before => {
                self.change(id, from, Standing::Paused { until }, now);
            }
            _ => {}
        }
    }

    /// Ejects an endpoint, or shuns it where the cap forbids that. True when it was ejected.
    fn set_aside(
        &mut self,
        id: EndpointId,
        (from, evidence): (Standing, Evidence),
        reason: Reason,
        due: Instant,
        now: Instant,
    ) -> bool {
        let to = Standing::Ejected { evidence, due: coarse(due) };
        let done = match evidence {
            Evidence::Soft if !from.is_soft() => self.put_aside(id, from, to, now),
            _ => self.change(id, from, to, now),
        };
        if done {
            self.note(id, now, ChangeKind::Ejected { reason, evidence, until: due });
        } else if evidence == Evidence::Soft && !from.is_soft() {
            self.shun(id, from, reason, due, now);
        }
        done
    }

    /// Puts an endpoint aside softly, if the cap allows it.
    fn put_aside(&mut self, id: EndpointId, from: Standing, to: Standing, now: Instant) -> bool {
        for _ in 0..TRIES {
            let Some(soft) = self.may_put_aside(id) else { return false };
            if self.standings.put_aside(id, from, to, soft) {
                self.refresh(now);
                return true;
            }
            if self.standings.get(id) != from {
                return false;
            }
        }
        false
    }

    /// At most half of the endpoints that are left, but one at least, may be away softly, and never the last of the cluster. How many are
    /// away, if one more may be.
    fn may_put_aside(&self, id: EndpointId) -> Option<u32> {
        // before the rows: one that is counted and not seen is about to go
        let soft = self.standings.soft();
        let (mut left, mut away, mut others, mut seen) = (0u32, 0u32, 0u32, 0u32);
        for (row, endpoint) in self.endpoints.iter().enumerate().filter(|(_, e)| e.weight > 0) {
            let other = EndpointId::from_index(row);
            let standing = self.standings.get(other);
            seen += u32::from(standing.is_soft());
            if endpoint.healthy && !standing.is_hard() {
                left += 1;
                away += u32::from(standing.is_soft());
                others += u32::from(!standing.is_soft() && other != id);
            }
        }
        let going = soft.saturating_sub(seen);
        (others > going && away + going < (left / 2).max(1)).then_some(soft)
    }

    fn shun(&mut self, id: EndpointId, from: Standing, reason: Reason, until: Instant, now: Instant) {
        if let Standing::Shunned { until: before } = from
            && before.since(now) > until.since(now) / 2
        {
            return; // long enough; every change has all workers look
        }
        if self.change(id, from, Standing::Shunned { until: coarse(until) }, now) {
            self.note(id, now, ChangeKind::EjectionRefused { reason });
            if !matches!(from, Standing::Shunned { .. }) {
                self.note(id, now, ChangeKind::Shunned { reason, until });
            }
        }
    }
}
