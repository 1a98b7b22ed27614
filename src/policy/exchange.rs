//! One request's decisions: an event comes in, the next action goes out.
//!
//! The owner (the worker's straight line, or a simulator) does what an [`Action`] says and tells what came of it; which endpoint, how
//! long, whether again, and what the client gets is decided here, by combining the cluster with the retry rules. Every attempt is
//! counted in the cluster when it begins and exactly once when it ends, on every path; an owner that must stop at
//! any point says [`Event::DownstreamGone`].
//!
//! How long an attempt gets: `per_try_timeout` where the route has one. Otherwise what is left of T_max is divided by the attempts
//! left, but only if cutting this attempt short could help: timeouts are retried, the request may go out twice, the budget would grant it
//! even if everything in flight ran out of time with it, and there is an endpoint that this request has not met. If not (a single endpoint, the last attempt, a POST), the attempt has
//! all that is left, and a service that never answers costs exactly T_max.
//!
//! By default an attempt that is cut short gets no more than what requests of its route usually take, a few times over and at least
//! [`TRY_AUTO_MIN`]: a hung endpoint then costs a fraction of a second and not a third of T_max.
//!
//! What was not sent at all is no retry. When an attempt could not be made, the request goes on to the next endpoint that it has not
//! met, at once, whatever its method and body, until T_max or until every endpoint was met; that takes nothing from `retry.attempts` and
//! nothing from the budget. Only when nobody could be reached, and somebody may yet be (no worker has put it aside), is asking again a
//! retry, after a backoff. Else the answer is 503 at once.
//!
//! What the gateway itself has lacked is no failure: the request goes on elsewhere or waits for a moment, and no budget pays for that. Nor is
//! it one when the gateway has stood still until the attempt's time was over.
//!
//! A retry that takes the place of an answer is made before the answer is let go: where the endpoint turns out to be full, the answer in
//! hand is passed on after all, and nothing was counted or paid.
//!
//! T_max bounds everything up to the response head. A body that is being relayed is bounded by its owner (time without a byte).
//! A response that breaks before its owner has passed on a byte of it is as good as none, and tried again like a connection that broke
//! before its head.

mod next;

use crate::error::ProxyError;
use crate::limits::{FAILOVERS_MAX, TRY_AUTO_MIN};
use crate::policy::attempt::{Ask, Attempt, Shortage, Terms};
use crate::policy::cluster::Cluster;
use crate::policy::deadline::Deadline;
use crate::policy::outlier::Evidence;
use crate::policy::retry::{Cause, Sent};
use crate::policy::verdict::{Pushback, Verdict, speaks_against};
use crate::policy::visited::Visited;
use crate::units::{EndpointId, Instant, Rng};
use std::time::Duration;

pub use crate::policy::event::{Action, Event, Facts, Occasion};

#[derive(Debug)]
enum State {
    /// Before the first attempt, or waiting for room.
    Idle,
    Trying {
        attempt: Attempt,
        until: Instant,
    },
    /// Before an attempt that will be this.
    BackingOff {
        next: Occasion,
    },
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
    /// An answer in hand, in whose place the attempt that is being made would be.
    behind: Option<(Attempt, bool)>,
    occasion: Occasion,
    retries_left: u8,
    failovers: u8,
    backoffs: u8,
    retry_reason: Option<Cause>,
    budget_stopped: bool,
    /// A retry was paid for that has reached nobody yet.
    paid: bool,
    /// There was to be no retry because nobody is left that serves well.
    held_back: bool,
    /// The attempt has less time than is left, because that is what its route usually takes.
    cut: bool,
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
            behind: None,
            occasion: Occasion::First,
            failovers: 0,
            backoffs: 0,
            retry_reason: None,
            budget_stopped: false,
            paid: false,
            held_back: false,
            cut: false,
            deposited: false,
        }
    }

    /// Endpoints attempted, in order, repeats included; its length is the number of attempts.
    #[must_use]
    pub fn tried(&self) -> &[EndpointId] {
        self.tried.as_slice()
    }

    /// What the last attempt is.
    #[must_use]
    pub fn occasion(&self) -> Occasion {
        self.occasion
    }

    /// The attempt that was asked for last is being made: the answer in hand is let go.
    pub fn on_entered(&mut self, cluster: &mut Cluster, now: Instant) {
        if let Some((attempt, failed)) = self.behind.take() {
            if !failed {
                cluster.on_success(&attempt, now);
            }
            cluster.end(attempt, now);
        }
    }

    /// Why the last retry was decided on.
    #[must_use]
    pub fn retry_reason(&self) -> Option<Cause> {
        self.retry_reason
    }

    /// Whether a retry was not made only because the budget did not cover it.
    #[must_use]
    pub fn was_stopped_by_budget(&self) -> bool {
        self.budget_stopped
    }

    /// A retry was not made only because nobody is left that serves well.
    #[must_use]
    pub fn was_held_back(&self) -> bool {
        self.held_back
    }

    /// T_max.
    #[must_use]
    pub fn deadline(&self) -> &Deadline {
        &self.facts.deadline
    }

    /// The client has sent all of its request: what was waiting for that runs from now on ([`Deadline::begin`]).
    pub fn begin_deadline(&mut self, now: Instant) {
        self.facts.deadline.begin(now);
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
        if event != Event::Saturated {
            self.on_entered(cluster, now);
        }
        let action = self.decide(event, cluster, now, rng);
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
        action
    }

    /// Asserts what is true between any two steps.
    ///
    /// # Panics
    /// It is not, by a defect of this module.
    pub fn check_invariants(&self) {
        let Self { facts, tried, .. } = self;
        assert!(self.retries_left <= facts.retry.retries_max, "given back more often than taken");
        assert!(usize::from(self.failovers) <= FAILOVERS_MAX);
        assert!(
            self.behind.is_none() || matches!(self.state, State::Trying { .. }),
            "an answer in hand is let go or passed on"
        );
        match &self.state {
            State::Trying { attempt, until } => {
                assert_eq!(tried.as_slice().last(), Some(&attempt.endpoint), "what is tried was met last");
                assert!(*until <= facts.deadline.at.max(attempt.began), "no attempt outlives T_max");
            }
            State::BackingOff { .. } => assert!(self.backoffs > 0 && self.retries_left < facts.retry.retries_max),
            State::Relaying { attempt, .. } => assert!(tried.contains(attempt.endpoint), "who answers was asked"),
            State::Idle | State::Over => {}
        }
    }

    fn decide(&mut self, event: Event, cluster: &mut Cluster, now: Instant, rng: &mut Rng) -> Action {
        match (std::mem::replace(&mut self.state, State::Over), event) {
            (State::Idle, Event::Start) => self.start(cluster, now, rng),
            (State::BackingOff { next }, Event::BackoffOver) => self.resume(next, cluster, now, rng),
            (State::Trying { attempt, .. }, Event::Head { status, retry_after }) => {
                self.on_head(attempt, Verdict::of_status(status, retry_after), cluster, now, rng)
            }
            (State::Trying { attempt, .. }, Event::Code { code, retry }) => {
                let verdict = Verdict::of_code(code, retry, self.facts.deadline.shortened);
                self.on_head(attempt, verdict, cluster, now, rng)
            }
            (State::Trying { attempt, .. }, event) => self.on_attempt(attempt, event, cluster, now, rng),
            (State::Relaying { attempt, failed }, Event::AnswerBroken { reply, excused }) => {
                if !failed && !excused {
                    cluster.on_failure(&attempt, Evidence::Soft, now, rng);
                }
                cluster.end(attempt, now);
                self.retry(Cause::Reset, Sent::Maybe, None, cluster, now, rng).unwrap_or(Action::Reply(reply))
            }
            (State::Relaying { attempt, failed }, event) => {
                match event {
                    _ if failed => {}
                    Event::BodyDoneWith { code } if speaks_against(code, self.facts.deadline.shortened) => {
                        cluster.on_failure(&attempt, Evidence::Soft, now, rng);
                    }
                    Event::BodyFailed | Event::TimedOut => cluster.on_failure(&attempt, Evidence::Soft, now, rng),
                    Event::BodyDone | Event::BodyDoneWith { .. } | Event::DownstreamGone => {
                        cluster.on_success(&attempt, now);
                    }
                    event => debug_assert!(matches!(event, Event::Overslept { .. }), "{event:?}"),
                }
                cluster.end(attempt, now);
                Action::Finish
            }
            (State::BackingOff { .. }, Event::DownstreamGone) => {
                self.refund(cluster, now);
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
        match self.begin(Occasion::First, Visited::EMPTY, cluster, now, rng) {
            Ok(action) => action,
            Err(shortage) => self.without_endpoint(shortage),
        }
    }

    /// After a backoff: an endpoint that was not tried if there is one by now, else any.
    fn resume(&mut self, occasion: Occasion, cluster: &mut Cluster, now: Instant, rng: &mut Rng) -> Action {
        if now >= self.facts.deadline.at {
            self.refund(cluster, now);
            return Action::Reply(ProxyError::UpstreamTimeout);
        }
        self.refused = Visited::EMPTY;
        let begun = self.begin(occasion, self.tried, cluster, now, rng);
        match begun.or_else(|_| self.begin(occasion, Visited::EMPTY, cluster, now, rng)) {
            Ok(action) => action,
            Err(shortage) => {
                self.refund(cluster, now);
                self.without_endpoint(shortage)
            }
        }
    }

    /// What was paid for was not made.
    fn refund(&mut self, cluster: &mut Cluster, now: Instant) {
        if std::mem::take(&mut self.paid) {
            cluster.budget().refund(now);
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
        occasion: Occasion,
        avoid: Visited,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Action, Shortage> {
        if self.tried.is_full() {
            return Err(Shortage::Tried);
        }
        let expendable = self.retries_left > 0 && self.may_repeat(Sent::Maybe) && cluster.budget().covers(1, now);
        let ask = Ask {
            tried: avoid.as_slice(),
            refused: &self.refused,
            session: self.facts.session,
            key: self.facts.key,
            probes: self.tried.as_slice().is_empty(),
            expendable,
            deadline: self.facts.deadline.at,
        };
        let attempt = cluster.begin(&ask, now, rng)?;
        let endpoint = attempt.endpoint;
        self.tried.push(endpoint);
        self.occasion = occasion;
        let until = now + self.time_of_attempt(attempt.terms, cluster, now);
        self.cut = self.facts.try_time.is_some() && until < self.facts.deadline.at;
        self.state = State::Trying { attempt, until };
        Ok(Action::Attempt { endpoint, connect_until: until.min(now + cluster.connect_timeout()), until })
    }

    fn time_of_attempt(&self, terms: Terms, cluster: &mut Cluster, now: Instant) -> Duration {
        // T_max may not be running yet
        let left = self.facts.deadline.at.since(now).min(self.facts.deadline.total);
        if let Some(timeout) = self.facts.retry.per_try_timeout {
            return timeout.min(left);
        }
        let cut_helps = self.retries_left > 0
            && self.facts.retry.covers(Cause::Timeout)
            && self.may_repeat(Sent::Maybe)
            // from the last resort it is back to the first
            && (terms == Terms::LastResort || cluster.has_other(self.tried.as_slice(), now))
            && cluster.affords_cuts(now);
        if !cut_helps {
            return left;
        }
        let share = left / (u32::from(self.retries_left) + 1);
        self.facts.try_time.map_or(share, |usual| share.min(usual.max(TRY_AUTO_MIN)))
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
        use Evidence::{Hard, Soft};
        use ProxyError as E;
        // a client that allows a millisecond must not be able to eject anyone
        let shortened = self.facts.deadline.shortened;
        let (cause, sent, evidence, reply) = match event {
            Event::Saturated => return self.on_saturated(attempt, cluster, now, rng),
            Event::Exhausted => return self.on_exhausted(attempt, cluster, now, rng),
            Event::ConnectFailed => (Cause::Connect, Sent::Nothing, Some(Hard), E::NoHealthyEndpoint),
            Event::ConnectTimedOut => {
                let waited = now.since(attempt.began);
                let in_full = waited >= cluster.connect_timeout().min(TRY_AUTO_MIN);
                let evidence = if in_full { Hard } else { Soft };
                (Cause::Connect, Sent::Nothing, (in_full || !shortened).then_some(evidence), E::NoHealthyEndpoint)
            }
            Event::NoStreams => (Cause::Connect, Sent::Nothing, Some(Soft), E::UpstreamNoStreams),
            Event::NotSpoken => (Cause::Connect, Sent::Nothing, Some(Soft), E::UpstreamProtocol),
            Event::ResetBeforeHead { sent, excused } => {
                (Cause::Reset, sent, (!excused).then_some(Soft), E::UpstreamReset)
            }
            Event::BadHead(reply) => (Cause::Reset, Sent::Maybe, Some(Soft), reply),
            Event::TimedOut => (Cause::Timeout, Sent::Maybe, (!shortened).then_some(Soft), E::UpstreamTimeout),
            Event::Overslept { sent: Sent::Nothing } => (Cause::Connect, Sent::Nothing, None, E::UpstreamTimeout),
            Event::Overslept { sent } => (Cause::Timeout, sent, None, E::UpstreamTimeout),
            Event::Start
            | Event::BackoffOver
            | Event::BodyDone
            | Event::BodyDoneWith { .. }
            | Event::Head { .. }
            | Event::Code { .. }
            | Event::BodyFailed
            | Event::AnswerBroken { .. }
            | Event::DownstreamGone => {
                debug_assert_eq!(event, Event::DownstreamGone, "does not fit an attempt");
                cluster.on_given_up(&attempt, now);
                cluster.end(attempt, now);
                return Action::Finish;
            }
        };
        match evidence {
            Some(evidence) => cluster.on_failure(&attempt, evidence, now, rng),
            // the time is ours and not the endpoint's
            None if matches!(event, Event::Overslept { .. }) => {}
            None => cluster.on_given_up(&attempt, now),
        }
        cluster.end(attempt, now);
        self.paid = false;
        if now >= self.facts.deadline.at {
            return Action::Reply(E::UpstreamTimeout);
        }
        if sent == Sent::Nothing
            && let Some(action) = self.fail_over(cluster, now, rng)
        {
            return action;
        }
        self.retry(cause, sent, None, cluster, now, rng).unwrap_or(Action::Reply(reply))
    }

    /// The head of an answer: passed on, unless it is tried again.
    fn on_head(
        &mut self,
        attempt: Attempt,
        verdict: Verdict,
        cluster: &mut Cluster,
        now: Instant,
        rng: &mut Rng,
    ) -> Action {
        let Verdict { cause, failed, pause, retry } = verdict;
        self.paid = false;
        if failed {
            cluster.on_failure(&attempt, Evidence::Soft, now, rng);
        } else {
            cluster.on_answer(&attempt, now);
        }
        if let Some(pause) = pause {
            cluster.pause(attempt.endpoint, pause, now);
        }
        let after = match retry {
            Pushback::None => Some(None),
            Pushback::After(time) => Some(Some(time)),
            Pushback::Never => None,
        };
        match after.and_then(|after| self.retry(cause, Sent::Maybe, after, cluster, now, rng)) {
            None => {
                self.state = State::Relaying { attempt, failed };
                Action::Relay
            }
            Some(action) => {
                self.behind = Some((attempt, failed));
                if !matches!(action, Action::Attempt { .. }) {
                    self.on_entered(cluster, now);
                }
                action
            }
        }
    }
}

#[cfg(test)]
mod tests;
