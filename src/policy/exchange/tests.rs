//! The rules of an exchange, one test each: events in, actions out.

mod codes;
mod failover;

use super::*;
use crate::config::{self, Balance, Retry};
use crate::policy::cluster::Common;
use crate::policy::retry::Rules;
use crate::policy::standings::Standing;
use crate::policy::testing::{at, cluster as config, ratio, retry};
use http::StatusCode;
use rand::SeedableRng;
use std::rc::Rc;

const REFUSED: Event = Event::ConnectFailed;
const RESET: Event = Event::ResetBeforeHead { sent: Sent::Maybe, excused: false };

fn head(status: u16) -> Event {
    Event::Head { status: StatusCode::from_u16(status).unwrap(), retry_after: None }
}

fn head_after(status: u16, millis: u64) -> Event {
    Event::Head { status: StatusCode::from_u16(status).unwrap(), retry_after: Some(Duration::from_millis(millis)) }
}

struct World {
    cluster: Cluster,
    rng: Rng,
    facts: Facts,
}

impl World {
    /// `n` endpoints in turn, a GET without a body, T_max two seconds from 0.
    fn new(n: usize) -> Self {
        Self::of(&config(Balance::RoundRobin, &vec![0; n]), &retry())
    }

    fn of(cluster: &config::Cluster, retry: &Retry) -> Self {
        let mut rng = Rng::seed_from_u64(7);
        let total = Duration::from_secs(2);
        let deadline = Deadline { at: at(2_000), total, shortened: false };
        let facts = Facts {
            deadline,
            retry: Rc::new(Rules::new(retry)),
            idempotent: true,
            replayable: true,
            session: None,
            key: None,
            try_time: None,
        };
        Self { cluster: Cluster::new(cluster, &Common::new(cluster, 1), &mut rng), rng, facts }
    }

    fn start(&mut self, millis: u64) -> (Exchange, Action) {
        let mut exchange = Exchange::new(self.facts.clone());
        let action = self.step(&mut exchange, Event::Start, millis);
        (exchange, action)
    }

    fn step(&mut self, exchange: &mut Exchange, event: Event, millis: u64) -> Action {
        let action = exchange.step(event, &mut self.cluster, at(millis), &mut self.rng);
        if is_attempt(action) {
            exchange.on_entered(&mut self.cluster, at(millis));
        }
        let in_flight: u32 = self.cluster.endpoints().iter().map(|e| e.in_flight).sum();
        assert_eq!(in_flight, u32::from(matches!(action, Action::Attempt { .. } | Action::Relay)), "after {event:?}");
        action
    }

    /// Starts and feeds the events; the last action.
    fn run(&mut self, events: &[Event]) -> (Exchange, Action) {
        let (mut exchange, mut action) = self.start(0);
        for (i, event) in events.iter().enumerate() {
            action = self.step(&mut exchange, *event, i as u64 + 1);
        }
        (exchange, action)
    }

    fn failures(&self, id: EndpointId) -> f32 {
        1.0 - self.cluster.endpoints()[id.index()].availability.get(at(1))
    }
}

fn is_attempt(action: Action) -> bool {
    matches!(action, Action::Attempt { .. })
}

fn until(action: Action) -> Instant {
    match action {
        Action::Attempt { until, .. } | Action::Backoff { until } => until,
        other => panic!("{other:?} has no end"),
    }
}

#[test]
fn a_good_response_is_relayed_and_counted_once() {
    let mut world = World::new(2);
    let (mut exchange, action) = world.run(&[head(200)]);
    assert_eq!(action, Action::Relay);
    assert_eq!(world.step(&mut exchange, Event::BodyDone, 5), Action::Finish);
    assert!(exchange.is_over());
    let endpoint = &world.cluster.endpoints()[exchange.tried()[0].index()];
    assert_eq!((endpoint.started, endpoint.finished), (1, 1));
    assert_eq!(world.step(&mut exchange, Event::DownstreamGone, 6), Action::Finish, "saying it late is harmless");
    assert_eq!((exchange.tried().len(), exchange.retry_reason()), (1, None));
}

#[test]
fn a_post_that_was_not_sent_goes_on_to_another_endpoint() {
    let mut world = World::new(2);
    world.facts.idempotent = false;
    world.facts.replayable = false;
    for event in [REFUSED, Event::ConnectTimedOut, Event::ResetBeforeHead { sent: Sent::Nothing, excused: true }] {
        let (exchange, action) = world.run(&[event]);
        assert!(is_attempt(action), "{event:?}: {action:?}");
        assert_ne!(exchange.tried()[0], exchange.tried()[1]);
        assert_eq!((exchange.occasion(), exchange.retry_reason()), (Occasion::Failover, None));
        let mut exchange = exchange;
        world.step(&mut exchange, Event::DownstreamGone, 2);
    }
}

#[test]
fn does_not_repeat_a_post_that_may_have_arrived() {
    let mut world = World::new(2);
    world.facts.idempotent = false;
    assert_eq!(world.run(&[RESET]).1, Action::Reply(ProxyError::UpstreamReset));
    assert_eq!(world.run(&[Event::TimedOut]).1, Action::Reply(ProxyError::UpstreamTimeout));
    let bad = Event::BadHead(ProxyError::UpstreamProtocol);
    assert_eq!(world.run(&[bad]).1, Action::Reply(ProxyError::UpstreamProtocol));
    let (mut exchange, action) = world.run(&[head(503)]);
    assert_eq!(action, Action::Relay);
    world.step(&mut exchange, Event::BodyDone, 9);
}

#[test]
fn a_post_is_repeated_when_the_route_opted_in() {
    let opted_in = Retry { non_idempotent: true, ..retry() };
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &opted_in);
    world.facts.idempotent = false;
    let (exchange, action) = world.run(&[RESET]);
    assert!(is_attempt(action));
    assert_eq!(exchange.retry_reason(), Some(Cause::Reset));
}

#[test]
fn a_body_that_outgrew_its_buffer_is_not_repeated_and_its_attempt_gets_all_the_time() {
    let mut world = World::new(2);
    let (mut exchange, action) = world.start(0);
    assert!(until(action) < at(1_000), "a third of two seconds");
    assert_eq!(exchange.forbid_replay(), Some(at(2_000)));
    assert_eq!(world.step(&mut exchange, RESET, 1), Action::Reply(ProxyError::UpstreamReset));
    assert_eq!(exchange.forbid_replay(), None);
}

#[test]
fn another_endpoint_is_tried_at_once_and_the_same_one_after_a_backoff() {
    let mut world = World::new(2);
    let (mut exchange, action) = world.run(&[REFUSED]);
    assert!(is_attempt(action), "no backoff");
    let action = world.step(&mut exchange, REFUSED, 10);
    let Action::Backoff { until } = action else { panic!("{action:?}") };
    assert!(until >= at(10) && until <= at(35));
    assert!(is_attempt(exchange.step(Event::BackoffOver, &mut world.cluster, until, &mut world.rng)));
    assert_eq!(exchange.tried().len(), 3);
    assert_eq!(exchange.occasion(), Occasion::Retry(Cause::Connect));
    let action = world.step(&mut exchange, REFUSED, 50);
    let Action::Backoff { until } = action else { panic!("one retry is left: {action:?}") };
    assert!(is_attempt(exchange.step(Event::BackoffOver, &mut world.cluster, until, &mut world.rng)));
    assert_eq!(world.step(&mut exchange, REFUSED, 150), Action::Reply(ProxyError::NoHealthyEndpoint), "none is left");
}

#[test]
fn a_retryable_status_that_cannot_be_retried_is_passed_on() {
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0, 0]), &Retry { attempts: 1, ..retry() });
    let (mut exchange, action) = world.run(&[head(503), head(503)]);
    assert_eq!(action, Action::Relay);
    assert_eq!(exchange.retry_reason(), Some(Cause::Status(StatusCode::SERVICE_UNAVAILABLE)));
    assert_eq!(world.step(&mut exchange, Event::BodyDone, 3), Action::Finish);
    let (mut other, action) = world.run(&[head(500)]);
    assert_eq!(action, Action::Relay, "500 is not listed");
    world.step(&mut other, Event::BodyDone, 3);
}

#[test]
fn classes_that_are_not_listed_are_not_retried() {
    let mut config_retry = retry();
    config_retry.on =
        config::RetryOn { connect: false, reset: false, timeout: false, statuses: Vec::new(), codes: Vec::new() };
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &config_retry);
    let unreachable = Action::Reply(ProxyError::NoHealthyEndpoint);
    assert_eq!(world.run(&[REFUSED, REFUSED]).1, unreachable, "no retry, and so no backoff");
    assert_eq!(world.run(&[Event::ConnectTimedOut, Event::ConnectTimedOut]).1, unreachable);
    assert_eq!(world.run(&[RESET]).1, Action::Reply(ProxyError::UpstreamReset));
    assert_eq!(world.run(&[Event::TimedOut]).1, Action::Reply(ProxyError::UpstreamTimeout));
}

#[test]
fn the_budget_stops_retries_and_says_so() {
    let mut config = config(Balance::RoundRobin, &[0, 0]);
    config.retry_budget = config::RetryBudget { ratio: ratio(0.0), min_per_second: 0 };
    config.outlier = None;
    let mut world = World::of(&config, &retry());
    let (exchange, action) = world.run(&[RESET]);
    assert_eq!(action, Action::Reply(ProxyError::UpstreamReset));
    assert!(exchange.was_stopped_by_budget());
    assert!(is_attempt(world.run(&[REFUSED]).1), "what was not sent costs nothing");
    config.retry_budget = config::RetryBudget { ratio: ratio(0.2), min_per_second: 0 };
    let mut world = World::of(&config, &Retry { attempts: 1, ..retry() });
    let retried = (0..1_000).filter(|_| world.run(&[RESET, RESET]).0.tried().len() == 2).count();
    assert_eq!(retried, 200);
}

#[test]
fn a_single_endpoint_that_never_answers_costs_exactly_t_max() {
    let mut world = World::new(1);
    let (mut exchange, action) = world.start(0);
    assert_eq!(until(action), at(2_000));
    assert_eq!(world.step(&mut exchange, Event::TimedOut, 2_000), Action::Reply(ProxyError::UpstreamTimeout));
    assert_eq!(exchange.tried().len(), 1);
}

#[test]
fn time_is_divided_while_there_is_another_endpoint_and_the_last_one_gets_the_rest() {
    let mut world = World::new(2);
    let (mut exchange, action) = world.start(0);
    assert_eq!(until(action), at(0) + Duration::from_secs(2) / 3);
    let action = world.step(&mut exchange, Event::TimedOut, 667);
    assert_eq!(until(action), at(2_000), "no third endpoint to save time for");
    assert_eq!(world.step(&mut exchange, Event::TimedOut, 2_000), Action::Reply(ProxyError::UpstreamTimeout));
    let mut many = World::new(5);
    let (mut exchange, _) = many.start(0);
    let action = many.step(&mut exchange, Event::TimedOut, 1_000);
    assert_eq!(until(action), at(1_500));
    assert_eq!(until(many.step(&mut exchange, Event::TimedOut, 1_500)), at(2_000));
}

#[test]
fn time_is_not_divided_when_a_timeout_could_not_be_retried() {
    let whole = |world: &mut World| until(world.start(0).1) == at(2_000);
    let mut post = World::new(3);
    post.facts.idempotent = false;
    let mut none = World::of(&config(Balance::RoundRobin, &[0, 0]), &Retry { attempts: 0, ..retry() });
    let mut unlisted = retry();
    unlisted.on.timeout = false;
    let mut unlisted = World::of(&config(Balance::RoundRobin, &[0, 0]), &unlisted);
    let mut broke = config(Balance::RoundRobin, &[0, 0]);
    broke.retry_budget = config::RetryBudget { ratio: ratio(0.0), min_per_second: 0 };
    let mut broke = World::of(&broke, &retry());
    assert!([&mut post, &mut none, &mut unlisted, &mut broke].into_iter().all(whole));
}

#[test]
fn a_per_try_timeout_cuts_every_attempt_and_the_connect_timeout_its_beginning() {
    let per_try = Retry { per_try_timeout: Some(Duration::from_millis(1_500)), ..retry() };
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &per_try);
    let (mut exchange, action) = world.start(0);
    let Action::Attempt { connect_until, until: end, .. } = action else { panic!("{action:?}") };
    assert_eq!((connect_until, end), (at(1_000), at(1_500)));
    let action = world.step(&mut exchange, Event::TimedOut, 1_500);
    let Action::Attempt { connect_until, until: end, .. } = action else { panic!("{action:?}") };
    assert_eq!((connect_until, end), (at(2_000), at(2_000)));
    let mut single = World::of(&config(Balance::RoundRobin, &[0]), &per_try);
    assert_eq!(until(single.start(0).1), at(1_500));
}

#[test]
fn nothing_begins_at_or_after_the_deadline_or_in_its_last_tenth() {
    let mut world = World::new(3);
    assert_eq!(world.start(2_000).1, Action::Reply(ProxyError::UpstreamTimeout));
    let (mut exchange, _) = world.start(0);
    assert_eq!(world.step(&mut exchange, RESET, 1_801), Action::Reply(ProxyError::UpstreamReset), "R < 10 %");
    let (mut exchange, _) = world.start(0);
    assert!(is_attempt(world.step(&mut exchange, RESET, 1_800)), "R = 10 %");
    assert_eq!(world.step(&mut exchange, Event::ConnectTimedOut, 2_000), Action::Reply(ProxyError::UpstreamTimeout));
    let (mut exchange, _) = world.start(0);
    assert!(is_attempt(world.step(&mut exchange, REFUSED, 1_999)), "no retry: until T_max");
    assert_eq!(world.step(&mut exchange, REFUSED, 2_000), Action::Reply(ProxyError::UpstreamTimeout));
    let mut single = World::new(1);
    let (mut exchange, _) = single.start(0);
    assert!(matches!(single.step(&mut exchange, REFUSED, 1_000), Action::Backoff { .. }));
    assert_eq!(single.step(&mut exchange, Event::BackoffOver, 2_000), Action::Reply(ProxyError::UpstreamTimeout));
}

#[test]
fn retry_after_is_waited_for_if_it_is_no_longer_than_a_backoff_and_passed_on_if_not() {
    let mut single = World::new(1);
    let (mut exchange, action) = single.run(&[head_after(503, 250)]);
    let Action::Backoff { until } = action else { panic!("{action:?}") };
    assert_eq!(until, at(251));
    assert!(is_attempt(single.step(&mut exchange, Event::BackoffOver, 252)));
    single.step(&mut exchange, Event::DownstreamGone, 253);
    let mut single = World::new(1);
    assert_eq!(single.run(&[head_after(503, 251)]).1, Action::Relay);
    let mut two = World::new(2);
    let (exchange, action) = two.run(&[head_after(503, 60_000)]);
    assert!(is_attempt(action), "another endpoint did not ask for a pause");
    let Standing::Paused { until } = two.cluster.endpoints()[exchange.tried()[0].index()].standing else {
        panic!("not paused")
    };
    assert!(until > at(30_000) && until <= at(30_001), "thirty seconds at most: {until:?}");
}

#[test]
fn retry_after_is_obeyed_for_503_only() {
    for (status, penalised) in [(429, false), (503, true), (200, false), (500, false), (404, false)] {
        let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &Retry { attempts: 0, ..retry() });
        let (mut exchange, action) = world.run(&[head_after(status, 5_000)]);
        assert_eq!(action, Action::Relay);
        world.step(&mut exchange, Event::BodyDone, 3);
        assert_eq!(world.cluster.available(at(4)), if penalised { 1 } else { 2 }, "{status}");
    }
}

#[test]
fn a_timeout_that_the_client_asked_for_is_not_held_against_the_endpoint() {
    let mut world = World::new(2);
    world.facts.deadline = Deadline { at: at(5), total: Duration::from_millis(5), shortened: true };
    world.facts.idempotent = false;
    for _ in 0..100 {
        let (mut exchange, _) = world.start(0);
        assert_eq!(world.step(&mut exchange, Event::TimedOut, 5), Action::Reply(ProxyError::UpstreamTimeout));
    }
    assert_eq!(world.cluster.available(at(5)), 2);
    assert_eq!(world.failures(EndpointId(0)), 0.0);
}

#[test]
fn failures_are_held_against_the_endpoint_but_a_closed_pooled_connection_is_not() {
    let stale = Event::ResetBeforeHead { sent: Sent::Maybe, excused: true };
    let cases = [(REFUSED, true), (RESET, true), (Event::TimedOut, true), (stale, false)];
    for (event, blamed) in cases {
        let mut world = World::new(2);
        let (mut exchange, action) = world.run(&[event]);
        assert!(is_attempt(action), "{event:?}");
        assert_eq!(world.failures(exchange.tried()[0]) > 0.0, blamed, "{event:?}");
        world.step(&mut exchange, Event::DownstreamGone, 2);
    }
    let judged = [(200, false), (404, false), (500, true), (501, false), (503, true), (505, false), (429, false)];
    for (status, blamed) in judged {
        let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &Retry { attempts: 0, ..retry() });
        let (mut exchange, _) = world.run(&[head(status)]);
        world.step(&mut exchange, Event::BodyDone, 3);
        assert_eq!(world.failures(exchange.tried()[0]) > 0.0, blamed, "{status}");
    }
}

#[test]
fn throttling_never_ejects() {
    let mut world = World::new(2);
    for _ in 0..100 {
        let (mut exchange, _) = world.run(&[head(429)]);
        world.step(&mut exchange, Event::BodyDone, 3);
    }
    assert_eq!(world.cluster.available(at(4)), 2);
}

#[test]
fn a_response_that_breaks_off_counts_as_a_failure_and_ends_the_exchange() {
    for event in [Event::BodyFailed, Event::TimedOut] {
        let mut world = World::new(2);
        for _ in 0..10 {
            let (mut exchange, _) = world.run(&[head(200)]);
            assert_eq!(world.step(&mut exchange, event, 3), Action::Finish);
        }
        assert_eq!(world.cluster.available(at(4)), 1, "five in a row eject");
    }
}

#[test]
fn a_response_that_breaks_before_it_was_passed_on_is_had_elsewhere() {
    const BROKEN: Event = Event::AnswerBroken { reply: ProxyError::UpstreamTruncated, excused: false };
    let mut world = World::new(2);
    let (mut exchange, _) = world.run(&[head(200)]);
    let broken = exchange.tried()[0];
    assert!(exchange.may_replace_answer() && is_attempt(world.step(&mut exchange, BROKEN, 3)));
    assert_eq!((exchange.retry_reason(), exchange.tried().len()), (Some(Cause::Reset), 2));
    assert_ne!(exchange.tried()[1], broken);
    assert!(world.failures(broken) > 0.0);
    world.step(&mut exchange, head(200), 4);
    assert_eq!(world.step(&mut exchange, Event::BodyDone, 5), Action::Finish);
    // a status that counted as a failure already is not counted again
    let mut world = World::new(2);
    for _ in 0..4 {
        let (mut exchange, _) = world.run(&[head(500)]);
        assert!(is_attempt(world.step(&mut exchange, BROKEN, 3)));
        world.step(&mut exchange, Event::DownstreamGone, 4);
    }
    assert_eq!(world.cluster.available(at(4)), 2, "four in a row, not eight");
}

#[test]
fn a_response_that_breaks_is_replied_to_when_it_cannot_be_had_elsewhere() {
    const BROKEN: Event = Event::AnswerBroken { reply: ProxyError::UpstreamTruncated, excused: false };
    const REPLY: Action = Action::Reply(ProxyError::UpstreamTruncated);
    let not_repeatable = |world: &mut World| world.facts.idempotent = false;
    let not_kept = |world: &mut World| world.facts.replayable = false;
    let none_left = |world: &mut World| world.facts.retry = Rc::new(Rules::new(&Retry { attempts: 0, ..retry() }));
    for change in [not_repeatable as fn(&mut World), not_kept, none_left] {
        let mut world = World::new(2);
        change(&mut world);
        let (mut exchange, _) = world.run(&[head(200)]);
        assert!(!exchange.may_replace_answer());
        assert_eq!(world.step(&mut exchange, BROKEN, 3), REPLY);
        assert!(exchange.is_over());
    }
    let mut world = World::new(2);
    let (mut exchange, _) = world.run(&[head(200)]);
    assert_eq!(world.step(&mut exchange, BROKEN, 1_999), REPLY, "no time is left");
}

#[test]
fn a_client_that_leaves_at_any_point_leaves_nothing_behind() {
    let paths: [&[Event]; 5] = [&[], &[REFUSED], &[REFUSED, REFUSED], &[head(200)], &[head(503), head(200)]];
    for path in paths {
        let mut world = World::new(2);
        let (mut exchange, _) = world.run(path);
        assert_eq!(world.step(&mut exchange, Event::DownstreamGone, 9), Action::Finish);
        assert!(exchange.is_over());
        assert!(world.cluster.endpoints().iter().all(|e| e.in_flight == 0 && e.started == e.finished));
    }
    let mut world = World::new(1);
    let mut unstarted = Exchange::new(world.facts.clone());
    assert_eq!(world.step(&mut unstarted, Event::DownstreamGone, 0), Action::Finish);
}

#[test]
fn a_client_that_leaves_frees_the_probe() {
    let mut world = World::new(2);
    world.facts.deadline.at = at(60_000);
    world.facts.deadline.total = Duration::from_secs(60);
    for _ in 0..20 {
        let (mut exchange, _) = world.start(0);
        let works = exchange.tried()[0] == EndpointId(0);
        let action = world.step(&mut exchange, if works { head(200) } else { RESET }, 1);
        world.step(&mut exchange, if is_attempt(action) { Event::DownstreamGone } else { Event::BodyDone }, 1);
    }
    let standing = |world: &World| world.cluster.endpoints()[1].standing;
    assert!(matches!(standing(&world), Standing::Ejected { .. }));
    let (mut exchange, _) = world.start(10_001);
    assert_eq!(exchange.tried(), [EndpointId(1)]);
    assert!(matches!(standing(&world), Standing::Probing { .. }));
    world.step(&mut exchange, Event::DownstreamGone, 10_002);
    assert!(standing(&world).ready_since(at(10_002)).is_some());
    let (mut exchange, _) = world.start(10_003);
    assert_eq!(world.step(&mut exchange, head(200), 10_004), Action::Relay);
    assert_eq!(standing(&world), Standing::Serving, "the head is enough; the body may be endless");
    world.step(&mut exchange, Event::DownstreamGone, 10_005);
}

#[test]
fn saturation_over_all_cores_costs_neither_an_attempt_nor_a_failure() {
    let mut world = World::new(3);
    let (mut exchange, action) = world.run(&[Event::Saturated, Event::Saturated]);
    assert!(is_attempt(action));
    assert_eq!(exchange.tried().len(), 1);
    let action = world.step(&mut exchange, Event::Saturated, 3);
    assert_eq!(action, Action::Reply(ProxyError::UpstreamSaturated));
    assert!(exchange.tried().is_empty());
    assert!((0..3).all(|id| world.failures(EndpointId(id)) == 0.0));
    assert!(world.cluster.endpoints().iter().all(|e| (e.started, e.finished) == (0, 0)));
    assert!(is_attempt(world.step(&mut exchange, Event::Start, 4)), "the owner queued it and there is room now");
    world.step(&mut exchange, Event::DownstreamGone, 5);
}

#[test]
fn endpoints_at_this_workers_own_limit_are_not_even_asked() {
    let mut config = config(Balance::LeastRequest, &[0, 0]);
    config.requests_max = Some(1);
    let mut world = World::of(&config, &retry());
    let mut exchanges: Vec<_> = (0..3).map(|_| Exchange::new(world.facts.clone())).collect();
    let mut step = |i: usize, event| exchanges[i].step(event, &mut world.cluster, at(0), &mut world.rng);
    assert!(is_attempt(step(0, Event::Start)) && is_attempt(step(1, Event::Start)));
    assert_eq!(step(2, Event::Start), Action::Reply(ProxyError::UpstreamSaturated));
    step(0, Event::DownstreamGone);
    assert!(is_attempt(step(2, Event::Start)));
}
