//! One worker and many on one row: who makes a change, and what is seen of it.

use super::*;
use crate::policy::testing::at;

const ID: EndpointId = EndpointId(0);

fn soft(millis: u64) -> Standing {
    Standing::Ejected { evidence: Evidence::Soft, due: coarse(at(millis)) }
}

#[test]
fn every_standing_fits_its_word() {
    let time = coarse(at(123_456_789));
    for evidence in [Evidence::Hard, Evidence::Soft] {
        for standing in [
            Standing::Serving,
            Standing::Shunned { until: time },
            Standing::Paused { until: time },
            Standing::Ejected { evidence, due: time },
            Standing::Probing { evidence, lease: time },
        ] {
            assert_eq!(Standing::of(standing.word()), standing);
        }
    }
}

#[test]
fn of_two_who_see_the_same_one_makes_the_change() {
    let standings = Standings::new(1);
    let before = standings.version();
    let hard = Standing::Ejected { evidence: Evidence::Hard, due: coarse(at(10)) };
    assert!(standings.change(ID, Standing::Serving, hard));
    assert!(!standings.change(ID, Standing::Serving, hard));
    assert_eq!((standings.get(ID), standings.version()), (hard, before + 1));
    assert!(standings.readmit(ID, hard, at(5), true) && !standings.readmit(ID, hard, at(5), true));
    assert_eq!(standings.returned(ID), (at(5), Some(at(5))));
}

#[test]
fn who_was_put_aside_softly_is_counted_until_the_end() {
    let standings = Standings::new(2);
    assert!(standings.put_aside(ID, Standing::Serving, soft(10), 0));
    assert!(!standings.put_aside(EndpointId(1), Standing::Serving, soft(10), 0), "somebody was since");
    assert!(!standings.put_aside(ID, Standing::Serving, soft(20), 1), "it stands elsewhere");
    assert_eq!(standings.soft(), 1);
    let hard = Standing::Ejected { evidence: Evidence::Hard, due: coarse(at(10)) };
    assert!(standings.change(ID, soft(10), hard));
    assert_eq!(standings.soft(), 0);
    assert!(standings.readmit(ID, hard, at(1), false));
    assert_eq!(standings.soft(), 0);
}

#[test]
fn a_dead_endpoint_is_asked_by_one_at_a_time_until_it_is_reached_or_forgotten() {
    let standings = Standings::new(1);
    assert!(standings.claim(ID, at(1_000)) && standings.claim(ID, at(1_000)), "nobody knows that it is dead");
    standings.set_dead(ID, at(1_000), at(1_000));
    assert!(standings.is_dead(ID, at(1_099)) && !standings.claim(ID, at(1_099)));
    assert!(standings.claim(ID, at(1_100)), "the first to ask");
    assert!(!standings.claim(ID, at(1_100)), "the others wait for what comes of it");
    standings.revive(ID, at(1_101));
    assert!(standings.claim(ID, at(1_101)) && standings.claim(ID, at(1_101)));
    standings.set_dead(ID, at(1_100), at(1_102));
    assert!(standings.claim(ID, at(1_102)) && standings.claim(ID, at(1_102)), "that was before it was reached");
    standings.set_dead(ID, at(1_200), at(1_700));
    assert!(standings.claim(ID, at(1_700)), "half a second ago it was dead");
    assert!(!standings.claim(ID, at(1_700)), "and may still be");
    standings.set_dead(ID, at(2_000), at(2_000));
    let later = at(2_000) + DEAD + DEAD_KNOWN;
    assert!(standings.claim(ID, later) && standings.claim(ID, later));
}

#[test]
fn retries_that_are_probes_come_one_at_a_time() {
    let standings = Standings::new(2);
    assert!(standings.claim_retry(at(5)) && !standings.claim_retry(at(5)) && !standings.claim_retry(at(104)));
    assert!(standings.claim_retry(at(105)) && !standings.claim_retry(at(106)));
}

#[test]
fn a_check_that_passes_makes_an_ejection_due() {
    let standings = Standings::new(1);
    standings.on_check_passed(ID, at(1));
    assert_eq!((standings.get(ID), standings.version()), (Standing::Serving, 0));
    assert!(standings.put_aside(ID, Standing::Serving, soft(10_000), 0));
    standings.set_dead(ID, at(100), at(100));
    standings.on_check_passed(ID, at(150));
    assert_eq!(standings.get(ID).ready_since(at(150)), Some(at(150)));
    assert!(!standings.is_dead(ID, at(150)));
}

#[test]
fn who_fails_slowly_rests_for_as_long_as_a_failure_takes() {
    let standings = Standings::new(2);
    let id = EndpointId(0);
    assert!(standings.has_rested(id, at(1_000)), "nobody has failed there");
    standings.set_failed(id, at(5_000), at(5_001));
    assert!(!standings.has_rested(id, at(6_000)) && standings.has_rested(id, at(6_001)));
    standings.set_failed(id, at(7_000), at(10_000));
    // a quick one does not make the slow ones quicker that are under way
    standings.set_failed(id, at(10_000), at(10_001));
    assert!(!standings.has_rested(id, at(12_999)) && standings.has_rested(id, at(13_000)));
    standings.set_failed(id, at(20_000), at(620_000));
    assert!(standings.has_rested(id, at(630_000)), "and no longer than any failure is waited for");
    assert!(standings.has_rested(EndpointId(1), at(620_000)));
}
