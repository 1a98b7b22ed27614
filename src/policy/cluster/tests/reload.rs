//! What a cluster keeps over a change of its configuration.

use super::*;

#[test]
fn a_reload_forgets_nothing_about_endpoints_that_stay() {
    let old_config = config(Balance::RoundRobin, &[0, 0, 0]);
    let common = Common::new(&old_config, 1);
    let mut old = World::of(&common, &old_config, 120, 1).remove(0);
    old.cluster.set_health(EndpointId(2), false, at(0));
    common.standings.set_healthy(EndpointId(2), false);
    let until = old.eject(1, at(0));
    let mut config = old_config.clone();
    config.endpoints.remove(0);
    config.endpoints[0].weight = Weight(7);
    let mut new = World::of(&common.succeed(&old_config, &config), &config, 121, 1).remove(0);
    new.cluster.inherit(&old.cluster, at(1));
    assert_eq!(new.ejected_until(0), Some(until));
    assert_eq!(new.cluster.endpoints()[0].weight, 7);
    assert_eq!(new.cluster.standings.soft(), 1);
    assert_eq!(new.cluster.available(at(1)), 0, "one is ejected, one unhealthy");
    new.cluster.set_health(EndpointId(1), true, at(2));
    assert_eq!(new.cluster.available(at(2)), 1);
    assert_eq!(new.request(|_| true, until), 0, "the probe");
    assert_eq!(new.cluster.standings.soft(), 0);
}

#[test]
fn workers_of_two_configurations_learn_together_where_the_endpoints_are_the_same() {
    let old_config = config(Balance::RoundRobin, &[0, 0, 0]);
    let mut new_config = old_config.clone();
    new_config.endpoints[1].weight = Weight(9);
    let common = Common::new(&old_config, 1);
    let after = common.succeed(&old_config, &new_config);
    assert!(Arc::ptr_eq(&common.standings, &after.standings) && Arc::ptr_eq(&common.account, &after.account));
    let mut old = World::of(&common, &old_config, 130, 1).remove(0);
    let mut new = World::of(&after, &new_config, 131, 1).remove(0);
    new.cluster.inherit(&old.cluster, at(0));
    assert_eq!(new.cluster.available(at(0)), 3);
    let until = old.eject(2, at(1));
    assert_eq!((new.cluster.available(at(1)), new.ejected_until(2)), (2, Some(until)), "a request of before told it");
    new_config.retry_budget.min_per_second += 1;
    new_config.endpoints.swap(0, 2);
    let other = common.succeed(&old_config, &new_config);
    assert!(!Arc::ptr_eq(&common.standings, &other.standings) && !Arc::ptr_eq(&common.account, &other.account));
    assert!(other.standings.get(EndpointId(0)).ejected_on().is_some(), "by address, not by row");
    new.cluster.check_invariants();
}
