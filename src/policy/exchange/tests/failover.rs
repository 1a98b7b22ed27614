//! Going on without a retry, and retries that come to nothing.

use super::*;
use crate::limits::FAILOVERS_MAX;

#[test]
fn what_was_not_sent_meets_every_endpoint_of_every_tier_and_takes_nothing_from_retries_or_budget() {
    let mut cluster = config(Balance::RoundRobin, &[0, 0, 0, 1, 2]);
    cluster.retry_budget = config::RetryBudget { ratio: ratio(0.0), min_per_second: 0 };
    let none = Retry { attempts: 0, ..retry() };
    let mut world = World::of(&cluster, &none);
    (world.facts.idempotent, world.facts.replayable) = (false, false);
    let (mut exchange, action) = world.run(&[REFUSED; 4]);
    assert!(is_attempt(action));
    world.step(&mut exchange, Event::DownstreamGone, 9);
    let mut met: Vec<u16> = exchange.tried().iter().map(|id| id.0).collect();
    met.sort_unstable();
    assert_eq!(met, [0, 1, 2, 3, 4]);
    let (exchange, action) = world.run(&[REFUSED; 5]);
    assert_eq!(action, Action::Reply(ProxyError::NoHealthyEndpoint));
    assert!(!exchange.was_stopped_by_budget());
}

#[test]
fn a_request_goes_on_to_at_most_sixteen_others() {
    let mut world = World::of(&config(Balance::RoundRobin, &[0; 40]), &Retry { attempts: 0, ..retry() });
    let (exchange, action) = world.run(&[REFUSED; 17]);
    assert_eq!(action, Action::Reply(ProxyError::NoHealthyEndpoint));
    assert_eq!(exchange.tried().len(), 1 + FAILOVERS_MAX);
}

#[test]
fn once_everybody_is_known_to_be_out_the_answer_comes_at_once() {
    let mut world = World::new(2);
    let mut last = Action::Finish;
    for i in 0..10 {
        let (mut exchange, mut action) = world.start(i);
        while let Action::Attempt { .. } | Action::Backoff { .. } = action {
            let event = if is_attempt(action) { REFUSED } else { Event::BackoffOver };
            action = world.step(&mut exchange, event, i);
        }
        last = action;
    }
    assert_eq!(last, Action::Reply(ProxyError::NoHealthyEndpoint));
    let (exchange, action) = world.start(10);
    assert_eq!((action, exchange.tried().len()), (Action::Reply(ProxyError::NoHealthyEndpoint), 0));
}

#[test]
fn our_own_shortage_is_never_held_against_an_endpoint() {
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &Retry { attempts: 0, ..retry() });
    for _ in 0..100 {
        let (exchange, action) = world.run(&[Event::Exhausted, Event::Exhausted]);
        assert_eq!(action, Action::Reply(ProxyError::Exhausted));
        assert_eq!(exchange.tried().len(), 2, "another endpoint may have a pooled connection");
    }
    assert_eq!(world.cluster.available(at(5)), 2);
    assert!((0..2).all(|id| world.failures(EndpointId(id)) == 0.0));
}

#[test]
fn our_own_shortage_is_waited_for_and_paid_by_no_budget() {
    let mut cluster = config(Balance::RoundRobin, &[0, 0]);
    cluster.retry_budget = config::RetryBudget { ratio: ratio(0.0), min_per_second: 1 };
    cluster.outlier = None;
    let mut world = World::of(&cluster, &retry());
    for _ in 0..100 {
        let (mut exchange, action) = world.run(&[Event::Exhausted, Event::Exhausted]);
        let Action::Backoff { until } = action else { panic!("{action:?}") };
        let action = exchange.step(Event::BackoffOver, &mut world.cluster, until, &mut world.rng);
        assert!(is_attempt(action) && exchange.occasion() == Occasion::Failover, "nobody has got it yet: {action:?}");
        let answered = exchange.step(head(200), &mut world.cluster, until, &mut world.rng);
        assert_eq!(answered, Action::Relay);
        assert_eq!(exchange.step(Event::BodyDone, &mut world.cluster, until, &mut world.rng), Action::Finish);
    }
    // what was paid for a retry is given back when that has reached nobody
    for _ in 0..100 {
        let (mut exchange, action) = world.run(&[RESET, Event::Exhausted]);
        let Action::Backoff { until } = action else { panic!("{action:?}") };
        assert!(!exchange.was_stopped_by_budget());
        let gone = exchange.step(Event::DownstreamGone, &mut world.cluster, until, &mut world.rng);
        assert_eq!(gone, Action::Finish);
    }
}

#[test]
fn a_gateway_that_stood_still_blames_nobody() {
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &Retry { attempts: 0, ..retry() });
    for _ in 0..100 {
        let (_, action) = world.run(&[Event::Overslept { sent: Sent::Maybe }]);
        assert_eq!(action, Action::Reply(ProxyError::UpstreamTimeout));
        let (_, action) = world.run(&[head(200), Event::Overslept { sent: Sent::Maybe }]);
        assert_eq!(action, Action::Finish);
        let broken = Event::AnswerBroken { reply: ProxyError::UpstreamBodyTimeout, excused: true };
        assert_eq!(world.run(&[head(200), broken]).1, Action::Reply(ProxyError::UpstreamBodyTimeout));
        let nothing = Event::Overslept { sent: Sent::Nothing };
        let (exchange, action) = world.run(&[nothing, nothing]);
        assert_eq!((action, exchange.occasion()), (Action::Reply(ProxyError::UpstreamTimeout), Occasion::Failover));
    }
    assert_eq!(world.cluster.available(at(5)), 2);
    assert!((0..2).all(|id| world.failures(EndpointId(id)) == 0.0));
}

#[test]
fn a_try_follows_the_route_while_somebody_else_could_answer() {
    let mut world = World::new(3);
    world.facts.try_time = Some(Duration::from_millis(30));
    let (mut exchange, action) = world.start(0);
    assert_eq!(until(action), at(250), "at least");
    let action = world.step(&mut exchange, Event::TimedOut, 250);
    assert_eq!(until(action), at(500));
    assert_eq!(until(world.step(&mut exchange, Event::TimedOut, 500)), at(2_000), "the last has what is left");
    let mut first = |facts: &dyn Fn(&mut Facts)| {
        facts(&mut world.facts);
        let mut world = World { facts: world.facts.clone(), ..World::new(3) };
        until(world.start(0).1)
    };
    assert_eq!(first(&|facts| facts.try_time = Some(Duration::from_millis(400))), at(400));
    let fair = at(0) + Duration::from_secs(2) / 3;
    assert_eq!(first(&|facts| facts.try_time = Some(Duration::from_secs(60))), fair, "at most the fair share");
    assert_eq!(first(&|facts| facts.idempotent = false), at(2_000), "a POST is not cut");
}

#[test]
fn a_retry_that_finds_its_endpoint_full_gives_the_answer_in_hand_and_costs_nothing() {
    let mut cluster = config(Balance::RoundRobin, &[0, 0]);
    cluster.retry_budget = config::RetryBudget { ratio: ratio(0.0), min_per_second: 1 };
    cluster.outlier = None;
    let mut world = World::of(&cluster, &retry());
    for _ in 0..100 {
        let (mut exchange, _) = world.start(0);
        let action = exchange.step(head(503), &mut world.cluster, at(1), &mut world.rng);
        assert!(is_attempt(action));
        assert_eq!(world.step(&mut exchange, Event::Saturated, 1), Action::Relay);
        assert_eq!(exchange.tried().len(), 1);
        world.step(&mut exchange, Event::BodyDone, 2);
    }
    assert!(world.cluster.endpoints().iter().all(|e| e.in_flight == 0 && e.started == e.finished));
}

#[test]
fn a_client_that_leaves_during_a_backoff_gets_its_retry_back() {
    let mut cluster = config(Balance::RoundRobin, &[0]);
    cluster.retry_budget = config::RetryBudget { ratio: ratio(0.0), min_per_second: 1 };
    cluster.outlier = None;
    let mut world = World::of(&cluster, &retry());
    for _ in 0..100 {
        let (mut exchange, action) = world.run(&[head(503)]);
        assert!(matches!(action, Action::Backoff { .. }), "{action:?}");
        assert_eq!(world.step(&mut exchange, Event::DownstreamGone, 2), Action::Finish);
    }
}

#[test]
fn a_request_of_many_attempts_stays_within_its_inline_memory() {
    let patient = Retry { attempts: 15, min_remaining: ratio(0.0), ..retry() };
    let mut world = World::of(&config(Balance::RoundRobin, &[0; 20]), &patient);
    let (exchange, action) = world.run(&[REFUSED; 16]);
    assert!(is_attempt(action));
    assert_eq!(exchange.tried().len(), 17, "sixteen failovers");
    assert!(size_of::<Exchange>() <= 384, "{}", size_of::<Exchange>());
}

#[test]
fn the_reply_says_that_nobody_is_healthy() {
    let mut drained = config(Balance::RoundRobin, &[0]);
    drained.endpoints[0].weight = crate::units::Weight(0);
    assert_eq!(World::of(&drained, &retry()).start(0).1, Action::Reply(ProxyError::NoHealthyEndpoint));
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0]), &Retry { attempts: 1, ..retry() });
    [0, 1].iter().for_each(|id| world.cluster.set_health(EndpointId(*id), false, at(0)));
    let (exchange, action) = world.run(&[REFUSED, REFUSED]);
    assert_eq!(exchange.tried().len(), 2, "the cluster fails open");
    assert_eq!(action, Action::Reply(ProxyError::NoHealthyEndpoint));
}

#[test]
fn when_all_that_are_left_are_failing_retries_are_probes_whatever_the_load() {
    let mut world = World::of(&config(Balance::RoundRobin, &[0, 0, 0]), &retry());
    let mut attempts = 0;
    // ten seconds in which all is well have paid for a thousand retries
    for i in 0..5_000 {
        let (mut exchange, _) = world.start(i * 2);
        let total = Duration::from_secs(60);
        world.facts.deadline = Deadline { at: at(i * 2) + total, total, shortened: false };
        world.step(&mut exchange, head(200), i * 2);
        world.step(&mut exchange, Event::BodyDone, i * 2);
    }
    for i in 5_000..10_000 {
        let (mut exchange, mut action) = world.start(i * 2);
        let total = Duration::from_secs(60);
        world.facts.deadline = Deadline { at: at(i * 2) + total, total, shortened: false };
        while let Action::Attempt { .. } = action {
            attempts += 1;
            action = world.step(&mut exchange, head(503), i * 2);
        }
        world.step(&mut exchange, Event::DownstreamGone, i * 2);
    }
    assert!((5_000..5_250).contains(&attempts), "{attempts} attempts for 5,000 requests in ten seconds");
}

#[test]
fn a_request_probes_once_however_many_endpoints_are_due() {
    let mut world = World::of(&config(Balance::RoundRobin, &[0; 30]), &Retry { attempts: 0, ..retry() });
    let is_dead = |id: EndpointId| id.0 > 0;
    let mut send = |millis: u64| {
        world.facts.deadline.at = at(millis + 2_000);
        let (mut exchange, mut action) = world.start(millis);
        while let Action::Attempt { endpoint, .. } = action {
            action = world.step(&mut exchange, if is_dead(endpoint) { REFUSED } else { head(200) }, millis);
        }
        world.step(&mut exchange, Event::DownstreamGone, millis);
        (exchange.tried().len(), action)
    };
    for i in 0..500 {
        send(i);
    }
    for i in 1..10 {
        let (tried, action) = send(i * 60_000);
        assert_eq!(action, Action::Relay);
        assert!(tried <= 2, "{tried}");
    }
}

#[test]
fn an_endpoint_that_hangs_is_left_for_one_that_was_put_aside() {
    let mut world = World::new(2);
    world.cluster.set_health(EndpointId(1), false, at(0));
    world.facts.try_time = Some(Duration::from_millis(5));
    let (mut exchange, action) = world.start(0);
    assert_eq!((exchange.tried(), until(action)), (&[EndpointId(0)][..], at(250)));
    let action = world.step(&mut exchange, Event::TimedOut, 250);
    assert_eq!((exchange.tried()[1], until(action)), (EndpointId(1), at(500)), "which may hang too");
    let action = world.step(&mut exchange, Event::TimedOut, 500);
    let Action::Backoff { until: end } = action else { panic!("{action:?}") };
    let action = exchange.step(Event::BackoffOver, &mut world.cluster, end, &mut world.rng);
    assert_eq!(until(action), at(2_000), "and back again, with all that is left");
}

#[test]
fn what_was_cut_short_is_made_again_if_on_credit() {
    let mut cluster = config(Balance::RoundRobin, &[0, 0]);
    cluster.retry_budget = config::RetryBudget { ratio: ratio(0.0), min_per_second: 1 };
    let mut world = World::of(&cluster, &retry());
    world.facts.try_time = Some(Duration::from_millis(5));
    let (mut exchange, action) = world.start(0);
    assert_eq!(until(action), at(250));
    while world.cluster.budget().withdraw(at(1)) {}
    assert!(is_attempt(world.step(&mut exchange, Event::TimedOut, 250)));
    world.step(&mut exchange, Event::DownstreamGone, 251);
    assert_eq!(until(world.start(300).1), at(2_000), "nothing more is cut before that is paid");
}

/// The one that serves is killed under ten requests, while two that were put aside before have been back for long: nobody asked them since.
#[test]
fn whoever_was_put_aside_and_not_asked_since_gets_the_retries_of_all() {
    let mut config = config(Balance::RoundRobin, &[0, 0, 0]);
    config.retry_budget = config::RetryBudget { ratio: ratio(1.0), min_per_second: 100 };
    let mut world = World::of(&config, &retry());
    let is_away = |id: usize| id < 2;
    let mut step = |exchange: &mut Exchange, event: Event, millis: u64| {
        let World { cluster, rng, .. } = &mut world;
        let action = exchange.step(event, cluster, at(millis), rng);
        let on = exchange.tried().last().map(|id| id.index());
        if is_attempt(action) {
            exchange.on_entered(cluster, at(millis));
        }
        (action, on, cluster.available(at(millis)))
    };
    let facts = World::new(3).facts;
    let start = |millis: u64| {
        let deadline = Deadline { at: at(millis + 2_000), ..facts.deadline };
        Exchange::new(Facts { deadline, ..facts.clone() })
    };
    let mut available = 3;
    for i in 0..100 {
        let mut exchange = start(i);
        let mut event = Event::Start;
        while let (Action::Attempt { .. }, on, left) = step(&mut exchange, event, i) {
            available = left;
            event = if is_away(on.unwrap()) { REFUSED } else { head(200) };
        }
        step(&mut exchange, Event::BodyDone, i);
    }
    assert_eq!(available, 1, "two are put aside");

    let mut under_way: Vec<_> = (0..10).map(|_| start(3_000)).collect();
    for exchange in &mut under_way {
        assert_eq!(step(exchange, Event::Start, 3_000).1, Some(2));
    }
    for exchange in &mut under_way {
        let (action, on, _) = step(exchange, RESET, 3_010);
        assert!(is_attempt(action) && on.is_some_and(is_away), "{action:?} {on:?}");
    }
    // they are not back after all: once that is known, retries are few
    for exchange in &mut under_way {
        while let (Action::Attempt { .. }, ..) = step(exchange, RESET, 3_020) {}
    }
    let mut late: Vec<_> = (0..10).map(|_| start(3_030)).collect();
    let begun: Vec<_> = late.iter_mut().map(|exchange| step(exchange, Event::Start, 3_030).0).collect();
    assert!(begun.into_iter().all(is_attempt));
    let retried =
        late.iter_mut().map(|exchange| step(exchange, RESET, 3_040).0).filter(|action| is_attempt(*action)).count();
    assert!(retried <= 1, "{retried} of 10 are retried");
    assert!(late.iter().any(Exchange::was_held_back));
}
