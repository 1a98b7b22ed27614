//! One request's decisions: an event comes in, the next action goes out.
//!
//! The owner (the worker's straight line, or a simulator) does what an [`Action`] says and tells what came of it; which endpoint, how
//! long, whether again, and what the client gets is decided here, by combining the cluster with the retry rules. Every attempt is
//! counted in the cluster when it begins and exactly once when it ends, on every path; an owner that must stop at
//! any point says [`Event::DownstreamGone`].
//!
//! How long an attempt gets: `per_try_timeout` where the route has one. Otherwise what is left of T_max is divided by the attempts
//! left, but only if cutting this attempt short could help: timeouts are retried, the request may go out twice, the budget would grant it,
//! and there is an endpoint that this request has not met. If not (a single endpoint, the last attempt, a POST), the attempt has
//! all that is left, and a service that never answers costs exactly T_max.
//!
//! T_max bounds everything up to the response head. A body that is being relayed is bounded by its owner (time without a byte). A response
//! that breaks before its owner has passed on a byte of it is as good as none, and tried again like a connection that broke before its head.

use crate::error::ProxyError;
use crate::policy::attempt::{Ask, Attempt, Shortage, Terms};
use crate::policy::cluster::Cluster;
use crate::policy::deadline::Deadline;
use crate::policy::retry::{self, Cause, Sent};
use crate::policy::visited::Visited;
use crate::units::{EndpointId, Instant, Rng};
use http::StatusCode;
use std::time::Duration;

pub use crate::policy::event::{Action, Event, Facts};

#[derive(Debug)]
enum State {
    /// Before the first attempt, or waiting for room.
    Idle,
    Trying {
        attempt: Attempt,
        until: Instant,
    },
    BackingOff,
    Relaying {
        attempt: Attempt,
        failed: bool,
    },
    Over,
}

/// One request on its way. Made without allocation; some 250 bytes.
#[derive(Debug)]
pub struct Exchange {
    facts: Facts,
    state: State,
    tried: Visited,
    refused: Visited,
    retries_left: u8,
    backoffs: u8,
    retry_reason: Option<Cause>,
    budget_stopped: bool,
    /// The request's deposit in the retry budget was made.
    deposited: bool,
}

impl Exchange {
    /// Nothing attempted yet; the first event is [`Event::Start`].
    #[must_use]
    pub fn new(facts: Facts) -> Self {
        Self {
            retries_left: facts.retry.retries_max,
            facts,
            state: State::Idle,
            tried: Visited::EMPTY,
            refused: Visited::EMPTY,
            backoffs: 0,
            retry_reason: None,
            budget_stopped: false,
            deposited: false,
        }
    }

    /// Endpoints attempted, in order, repeats included; its length is the number of attempts.
    #[must_use]
    pub fn tried(&self) -> &[EndpointId] {
        self.tried.as_slice()
    }

    /// Why the last retry was made.
    #[must_use]
    pub fn retry_reason(&self) -> Option<Cause> {
        self.retry_reason
    }

    /// Whether a retry was not made only because the budget did not cover it.
    #[must_use]
    pub fn was_stopped_by_budget(&self) -> bool {
        self.budget_stopped
    }

    /// T_max.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        &self.facts.deadline
    }

    /// Whether nothing is in flight and nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Whether a response that breaks could be had elsewhere, by the rules alone: the last try is no exception, because a response that
    /// was not begun leaves room for a reply.
    #[must_use]
    pub fn may_replace_answer(&self) -> bool {
        let rules = &self.facts.retry;
        rules.retries_max > 0 && rules.covers(Cause::Reset) && self.may_repeat(Sent::Maybe)
    }

    /// The request's body has outgrown what is kept for a replay. Returns the attempt's new `until`: since a timeout can no longer be
    /// retried, an attempt that was cut short for that has all the time that is left.
    pub fn forbid_replay(&mut self) -> Option<Instant> {
        self.facts.replayable = false;
        let fixed = self.facts.retry.per_try_timeout.is_some() || self.may_repeat(Sent::Maybe);
        let State::Trying { until, .. } = &mut self.state else { return None };
        if !fixed {
            *until = self.facts.deadline.at;
        }
        Some(*until)
    }

    /// Decides. An event that does not fit the state is a defect of the owner: it ends the exchange.
    pub fn step(&mut self, event: Event, cluster: &mut Cluster, now: Instant, rng: &mut Rng) -> Action {
        match (std::mem::replace(&mut self.state, State::Over), event) {
            (State::Idle, Event::Start) => self.start(cluster, now, rng),
            (State::BackingOff, Event::BackoffOver) => self.resume(cluster, now, rng),
            (State::Trying { attempt, .. }, event) => self.on_attempt(attempt, event, cluster, now, rng),
            (State::Relaying { attempt, failed }, Event::AnswerBroken(reply)) => {
                if !failed {
                    cluster.on_failure(&attempt, now, rng);
                }
                cluster.end(attempt, now);
                self.retry(Cause::Reset, Sent::Maybe, None, cluster, now, rng).unwrap_or(Action::Reply(reply))
            }
            (State::Relaying { attempt, failed }, event) => {
                let broke = matches!(event, Event::BodyFailed | Event::TimedOut);
                debug_assert!(broke || matches!(event, Event::BodyDone | Event::DownstreamGone), "{event:?}");
                match (failed, broke) {
                    (true, _) => {}
                    (false, true) => cluster.on_failure(&attempt, now, rng),
                    (false, false) => cluster.on_success(&attempt, now),
                }
                cluster.end(attempt, now);
                Action::Finish
            }
            (state, event) => {
                let ends = matches!(event, Event::DownstreamGone) || matches!(state, State::Over);
                debug_assert!(ends, "{event:?} does not fit {state:?}");
                Action::Finish
            }
        }
    }

    fn start(&mut self, cluster: &mut Cluster, now: Instant, rng: &mut Rng) -> Action {
        if !self.deposited {
            self.deposited = true;
            cluster.budget().deposit(now);
        }
        self.refused = Visited::EMPTY;
        if now >= self.facts.deadline.at {
            return Action::Reply(ProxyError::UpstreamTimeout);
        }
        match self.begin(Visited::EMPTY, cluster, now, rng) {
            Ok(action) => action,
            Err(shortage) => self.without_endpoint(shortage),
        }
    }

    /// After a backoff: an endpoint that was not tried if there is one by now, else any.
    fn resume(&mut self, cluster: &mut Cluster, now: Instant, rng: &mut Rng) -> Action {
        if now >= self.facts.deadline.at {
            return Action::Reply(ProxyError::UpstreamTimeout);
        }
        self.refused = Visited::EMPTY;
        let begun = self.begin(self.tried, cluster, now, rng);
        match begun.or_else(|_| self.begin(Visited::EMPTY, cluster, now, rng)) {
            Ok(action) => action,
            Err(shortage) => self.without_endpoint(shortage),
        }
    }

    fn without_endpoint(&mut self, shortage: Shortage) -> Action {
        if shortage == Shortage::Full {
            self.state = State::Idle; // the owner may queue the request and start again
            return Action::Reply(ProxyError::UpstreamSaturated);
        }
        Action::Reply(ProxyError::NoHealthyEndpoint)
    }

    fn begin(
        &mut self,
        avoid: Visited,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Action, Shortage> {
        let expendable = self.retries_left > 0 && self.may_repeat(Sent::Maybe) && cluster.budget().covers_retry(now);
        let ask = Ask {
            tried: avoid.as_slice(),
            refused: &self.refused,
            key: self.facts.key,
            expendable,
            deadline: self.facts.deadline.at,
        };
        let attempt = cluster.begin(&ask, now, rng)?;
        let endpoint = attempt.endpoint;
        self.tried.push(endpoint);
        let until = now + self.time_of_attempt(cluster, now);
        self.state = State::Trying { attempt, until };
        Ok(Action::Attempt { endpoint, connect_until: until.min(now + cluster.connect_timeout()), until })
    }

    fn time_of_attempt(&self, cluster: &mut Cluster, now: Instant) -> Duration {
        let left = self.facts.deadline.at.since(now);
        if let Some(timeout) = self.facts.retry.per_try_timeout {
            return timeout.min(left);
        }
        let cut_helps = self.retries_left > 0
            && self.facts.retry.covers(Cause::Timeout)
            && self.may_repeat(Sent::Maybe)
            && cluster.has_other(self.tried.as_slice(), now)
            && cluster.budget().covers_retry(now);
        if cut_helps { left / (u32::from(self.retries_left) + 1) } else { left }
    }

    fn may_repeat(&self, sent: Sent) -> bool {
        self.facts.retry.may_repeat(sent, self.facts.idempotent, self.facts.replayable)
    }

    fn on_attempt(
        &mut self,
        attempt: Attempt,
        event: Event,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Action {
        use ProxyError as E;
        // nobody was available and an endpoint tried all the same could not be reached: the reply names the cause
        let unreachable = |reply| if attempt.terms == Terms::FailOpen { E::NoHealthyEndpoint } else { reply };
        let (cause, sent, blamed, reply) = match event {
            Event::Head { status, retry_after } => {
                return self.on_head(attempt, status, retry_after, cluster, now, rng);
            }
            Event::Saturated => return self.on_saturated(attempt, cluster, now, rng),
            Event::ConnectFailed => (Cause::Connect, Sent::Nothing, true, unreachable(E::ConnectFailed)),
            Event::ConnectTimedOut => {
                (Cause::Connect, Sent::Nothing, !self.facts.deadline.shortened, unreachable(E::ConnectTimeout))
            }
            Event::ResetBeforeHead { sent, excused } => (Cause::Reset, sent, !excused, E::UpstreamReset),
            Event::BadHead(reply) => (Cause::Reset, Sent::Maybe, true, reply),
            // a client that allows a millisecond must not be able to eject anyone
            Event::TimedOut => (Cause::Timeout, Sent::Maybe, !self.facts.deadline.shortened, E::UpstreamTimeout),
            Event::Start
            | Event::BackoffOver
            | Event::BodyDone
            | Event::BodyFailed
            | Event::AnswerBroken(_)
            | Event::DownstreamGone => {
                debug_assert_eq!(event, Event::DownstreamGone, "does not fit an attempt");
                cluster.on_given_up(&attempt, now);
                cluster.end(attempt, now);
                return Action::Finish;
            }
        };
        if blamed {
            cluster.on_failure(&attempt, now, rng);
        } else {
            cluster.on_given_up(&attempt, now);
        }
        cluster.end(attempt, now);
        if now >= self.facts.deadline.at {
            return Action::Reply(E::UpstreamTimeout);
        }
        self.retry(cause, sent, None, cluster, now, rng).unwrap_or(Action::Reply(reply))
    }

    fn on_head(
        &mut self,
        attempt: Attempt,
        status: StatusCode,
        retry_after: Option<Duration>,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Action {
        let verdict = Verdict::of(status);
        match verdict {
            Verdict::Failure => cluster.on_failure(&attempt, now, rng),
            Verdict::Throttled => {
                cluster.on_answer(&attempt, now);
                cluster.on_throttled(&attempt, now);
            }
            Verdict::Fine => cluster.on_answer(&attempt, now),
        }
        let pause = retry_after.filter(|_| matches!(status.as_u16(), 429 | 503));
        if let Some(pause) = pause {
            cluster.penalise(attempt.endpoint, pause, now);
        }
        if let Some(action) = self.retry(Cause::Status(status), Sent::Maybe, pause, cluster, now, rng) {
            if verdict == Verdict::Fine {
                cluster.on_success(&attempt, now);
            }
            cluster.end(attempt, now);
            return action;
        }
        self.state = State::Relaying { attempt, failed: verdict != Verdict::Fine };
        Action::Relay
    }

    /// The endpoint was full after all: as if it had not been chosen.
    fn on_saturated(&mut self, attempt: Attempt, cluster: &mut Cluster, now: Instant, rng: &mut Rng) -> Action {
        let endpoint = attempt.endpoint;
        cluster.undo(attempt, now);
        self.tried.pop();
        let begun =
            if self.refused.push(endpoint) { self.begin(self.tried, cluster, now, rng) } else { Err(Shortage::Full) };
        match begun {
            Ok(action) => action,
            Err(Shortage::Tried | Shortage::Full) => self.without_endpoint(Shortage::Full),
            Err(Shortage::Nothing) => self.without_endpoint(Shortage::Nothing),
        }
    }

    /// The next attempt or the backoff before it; `None` when there is to be none.
    fn retry(
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
        if self.retries_left == 0 || !allowed || !self.may_repeat(sent) || !rules.leaves_time(deadline, now) {
            return None;
        }
        if !cluster.budget().withdraw(now) {
            self.budget_stopped = true;
            return None;
        }
        self.retries_left -= 1;
        let action = self.begin(self.tried, cluster, now, rng).ok().or_else(|| self.back_off(pause, now, rng));
        if action.is_some() {
            self.retry_reason = Some(cause);
        } else {
            self.retries_left += 1;
            cluster.budget().refund(now);
        }
        action
    }

    /// No other endpoint is left: wait before one is tried again, if the wait leaves time for that.
    fn back_off(&mut self, pause: Option<Duration>, now: Instant, rng: &mut Rng) -> Option<Action> {
        let Facts { deadline, retry: rules, .. } = &self.facts;
        let until = now + retry::backoff(u32::from(self.backoffs), rng).max(pause.unwrap_or_default());
        rules.leaves_time(deadline, until).then(|| {
            self.backoffs += 1;
            self.state = State::BackingOff;
            Action::Backoff { until }
        })
    }
}

/// What a status says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    Throttled,
    Failure,
}

impl Verdict {
    /// 5xx are failures, except 501 and 505, which are answers about the request (HAProxy's `observe layer7`).
    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            429 => Self::Throttled,
            501 | 505 => Self::Fine,
            500..=599 => Self::Failure,
            _ => Self::Fine,
        }
    }
}

#[cfg(test)]
mod tests;
