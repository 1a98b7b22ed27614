//! Calls of gRPC that services refuse or fail: by the code in the head, and by the one behind the body.

use super::*;
use crate::policy::verdict::Pushback;

fn code(code: u8) -> Event {
    Event::Code { code, retry: Pushback::None }
}

/// Two endpoints, and these codes to be retried; calls are POSTs.
fn world(codes: &[u8]) -> (World, Exchange) {
    let mut rules = retry();
    rules.on.codes = codes.to_vec();
    let mut config = config(Balance::RoundRobin, &[0, 0]);
    config.retry_budget = config::RetryBudget { ratio: ratio(1.0), min_per_second: 100 };
    let mut world = World::of(&config, &rules);
    world.facts.idempotent = false;
    let exchange = world.start(0).0;
    (world, exchange)
}

#[test]
fn a_code_that_is_named_is_retried_whatever_the_method_and_no_other_is() {
    let (mut world, mut exchange) = world(&[14]);
    assert!(is_attempt(world.step(&mut exchange, code(14), 1)));
    assert_eq!(exchange.occasion(), Occasion::Retry(Cause::Code(14)));
    assert_eq!(world.step(&mut exchange, code(13), 2), Action::Relay, "13 is not named");
    world.step(&mut exchange, Event::BodyDone, 3);
    let mut second = world.start(4).0;
    second.forbid_replay();
    assert_eq!(world.step(&mut second, code(14), 5), Action::Relay, "its body is gone");
    world.step(&mut second, Event::BodyDone, 6);
}

#[test]
fn who_pushes_back_for_good_is_not_asked_again_and_who_names_a_time_is_left_alone_for_it() {
    let (mut world, mut exchange) = world(&[14]);
    let never = Event::Code { code: 14, retry: Pushback::Never };
    assert_eq!(world.step(&mut exchange, never, 1), Action::Relay);
    world.step(&mut exchange, Event::BodyDone, 2);
    let mut second = world.start(10).0;
    let first = *second.tried().last().unwrap();
    let later = Event::Code { code: 14, retry: Pushback::After(Duration::from_millis(200)) };
    assert!(is_attempt(world.step(&mut second, later, 11)), "the other one has not said so");
    assert_ne!(second.tried().last(), Some(&first));
    let Action::Backoff { until } = world.step(&mut second, later, 12) else { panic!("both have") };
    assert!(until >= at(212), "{until:?}");
    world.step(&mut second, Event::DownstreamGone, 13);
}

#[test]
fn codes_behind_a_body_speak_against_an_endpoint_as_statuses_do() {
    for (failing, ejected) in [(14, true), (13, true), (5, false), (8, false), (0, false)] {
        let (mut world, mut exchange) = world(&[]);
        for n in 0..20 {
            assert_eq!(world.step(&mut exchange, head(200), 10 * n + 1), Action::Relay);
            let code = if exchange.tried().last() == Some(&EndpointId(0)) { failing } else { 0 };
            world.step(&mut exchange, Event::BodyDoneWith { code }, 10 * n + 2);
            exchange = world.start(10 * n + 3).0;
        }
        let out = matches!(world.cluster.endpoints()[0].standing, Standing::Ejected { .. });
        assert_eq!(out, ejected, "{failing}");
        world.step(&mut exchange, Event::DownstreamGone, 300);
    }
}
