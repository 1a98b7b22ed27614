//! Where requests go that belong to a session.

use super::*;

#[test]
fn a_session_meets_its_endpoint_while_that_is_available_and_nobody_else_s_turn_is_lost() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0, 0, 0]), 140);
    let first = world.request(|_| true, at(0));
    world.session = Some(EndpointId(2));
    for _ in 0..10 {
        assert_eq!(world.request(|_| true, at(1)), 2);
    }
    world.session = None;
    assert_eq!(world.request(|_| true, at(2)), (first + 1) % 3, "the turn has waited");
    world.session = Some(EndpointId(2));
    let until = world.eject(2, at(3));
    assert!((0..10).all(|_| world.request(|_| true, at(3)) != 2), "it is away");
    // it is not the session that finds out whether it is back, but neither is it the last to go there
    world.session = Some(EndpointId(0));
    assert_eq!(world.request(|_| true, until), 0, "a session is no probe");
    world.session = None;
    assert_eq!(world.request(|_| true, until), 2, "the probe");
    world.session = Some(EndpointId(2));
    assert_eq!(world.request(|_| true, until), 2, "its ramp declines no session");
    world.cluster.set_health(EndpointId(2), false, until);
    assert_ne!(world.request(|_| true, until), 2, "checks call it down");
    world.cluster.check_invariants();
}

#[test]
fn a_session_goes_elsewhere_where_its_endpoint_is_full_has_failed_it_or_is_unknown() {
    let mut full = config(Balance::RoundRobin, &[0, 0]);
    full.requests_max = Some(1);
    let mut world = World::new(&full, 141);
    world.session = Some(EndpointId(1));
    let held = world.begin(&[], at(0)).expect("room");
    assert_eq!(held.endpoint, EndpointId(1));
    assert_eq!(world.request(|_| true, at(0)), 0, "full");
    world.conclude(held, true, at(0));
    assert_eq!(world.begin(&[1], at(0)).expect("another").endpoint, EndpointId(0), "tried");
    world.session = Some(EndpointId(9));
    assert_eq!(world.request(|_| true, at(0)), 1, "there is no such endpoint");
}

#[test]
fn where_all_are_shunned_a_session_stays_where_it_is() {
    let mut world = World::new(&config(Balance::RoundRobin, &[0]), 142);
    world.fail_all(20);
    world.session = Some(EndpointId(0));
    assert_eq!(world.request(|_| true, at(1)), 0);
}
