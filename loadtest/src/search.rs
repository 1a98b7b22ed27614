//! The search for capacity, as a pure state machine: [`Search::step`] says what to try next, [`Search::observe`] takes what came of it.
//!
//! Rates stand on a ladder whose rungs are half of the wanted width apart. Short trials climb by half at a time until one does not pass (or
//! descend until one does) and then halve what is between; each may be wrong. Full trials decide: at both ends of the bracket in turn, up
//! to five each. An end *holds* when four have passed and *breaks* when three have not; an end that is neither (three of five) is too close
//! to the edge to be an end, and the bracket moves by a rung (in the spirit of MLRsearch, draft-ietf-bmwg-mlrsearch).

use std::collections::BTreeMap;

/// Trials at one rate that decide, at most.
const VOTES: u32 = 5;
/// Passed ones with which a rate holds.
const HOLDS: u32 = 4;
/// Failed ones with which it breaks.
const BREAKS: u32 = VOTES - HOLDS + 2;
/// Factor of a step while nothing is known.
const STRIDE: f64 = 1.5;
/// Full trials after which a search that has not settled gives up.
const FULL_MAX: u32 = 40;
/// Ends may move so often without a trial before they are known to go round in a circle.
const MOVES_MAX: u32 = 16;
/// Rungs between the ends of a bracket of the wanted width.
const WIDTH_RUNGS: i32 = 2;

/// What is searched for, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// The first rate that is tried, requests a second.
    pub start: f64,
    /// Below it there is no capacity.
    pub min: f64,
    /// Above it nothing is tried.
    pub max: f64,
    /// Width of the bracket as a share of the rate: 0.05.
    pub width: f64,
}

/// A trial to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Requests a second.
    pub rate: f64,
    /// It counts as a vote; else it only looks around.
    pub is_full: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// This.
    Try(Trial),
    /// Nothing: it is found.
    Done(Found),
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// It holds, by these votes (passed, made); `None`: nothing above `min` did.
    pub holds: Option<(f64, (u32, u32))>,
    /// It breaks; `None`: even `max` did not.
    pub breaks: Option<(f64, (u32, u32))>,
    /// The bracket is as narrow as was asked for; else trials contradicted each other until patience ended.
    pub is_settled: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    passed: u32,
    made: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    Holds,
    Breaks,
    Between,
}

impl Votes {
    fn standing(self) -> Standing {
        match (self.passed, self.made - self.passed) {
            (passed, _) if passed >= HOLDS => Standing::Holds,
            (_, failed) if failed >= BREAKS => Standing::Breaks,
            _ if self.made >= VOTES => Standing::Between,
            _ => Standing::Open,
        }
    }
}

/// The state machine.
#[derive(Clone, Debug)]
pub struct Search {
    bounds: Bounds,
    /// Rungs: the highest that passed and the lowest that did not, in short trials.
    passed: Option<i32>,
    failed: Option<i32>,
    /// Ends that full trials are made at, once short ones have done their part.
    ends: Option<(i32, i32)>,
    votes: BTreeMap<i32, Votes>,
    full: u32,
    /// The last full trial was at the upper end.
    was_upper: bool,
    asked: Option<(i32, bool)>,
}

impl Search {
    /// Nothing is known.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            passed: None,
            failed: None,
            ends: None,
            votes: BTreeMap::new(),
            full: 0,
            was_upper: true,
            asked: None,
        }
    }

    /// The rate of a rung.
    fn rate(&self, rung: i32) -> f64 {
        self.bounds.start * (1.0 + self.bounds.width / f64::from(WIDTH_RUNGS)).powi(rung)
    }

    fn stride(&self) -> i32 {
        let rung = (1.0 + self.bounds.width / f64::from(WIDTH_RUNGS)).ln();
        ((STRIDE.ln() / rung).round() as i32).max(WIDTH_RUNGS)
    }

    /// The highest rung that may be tried.
    fn top(&self) -> i32 {
        let rung = (1.0 + self.bounds.width / f64::from(WIDTH_RUNGS)).ln();
        ((self.bounds.max / self.bounds.start).ln() / rung).floor() as i32
    }

    fn standing(&self, rung: i32) -> Standing {
        self.votes.get(&rung).copied().unwrap_or_default().standing()
    }

    /// What to do next. Asked again before [`Search::observe`], it says the same.
    pub fn step(&mut self) -> Step {
        if self.ends.is_none() {
            if let Some(rung) = self.look_around() {
                return self.ask(rung, false);
            }
            self.ends = Some(match (self.passed, self.failed) {
                (Some(passed), Some(_)) => (passed, passed + WIDTH_RUNGS),
                (Some(passed), None) => (passed, passed + 1),
                (None, _) => return self.done(None, None, true),
            });
        }
        self.decide()
    }

    /// The next short trial; `None` when the bracket is narrow or at the end of the ladder.
    fn look_around(&self) -> Option<i32> {
        match (self.passed, self.failed) {
            (None, None) => Some(0.min(self.top())),
            (Some(passed), None) if passed >= self.top() => None,
            (Some(passed), None) => Some((passed + self.stride()).min(self.top())),
            (None, Some(failed)) => {
                let rung = failed - self.stride();
                (self.rate(rung) >= self.bounds.min).then_some(rung)
            }
            (Some(passed), Some(failed)) => (failed - passed > WIDTH_RUNGS).then_some((passed + failed) / 2),
        }
    }

    fn decide(&mut self) -> Step {
        for _ in 0..MOVES_MAX {
            let (low, high) = self.ends.expect("short trials have chosen them");
            if self.full >= FULL_MAX {
                return self.give_up();
            }
            if self.rate(low) < self.bounds.min {
                return self.done(None, Some(high), true);
            }
            let has_upper = high <= self.top();
            self.ends = Some(match (self.standing(low), self.standing(high)) {
                (Standing::Holds, _) if !has_upper => return self.done(Some(low), None, true),
                (Standing::Holds, Standing::Breaks) => return self.done(Some(low), Some(high), true),
                (Standing::Breaks, _) => (low - WIDTH_RUNGS, low),
                (Standing::Between, _) => (low - 1, low + 1),
                (_, Standing::Holds) => (high, high + WIDTH_RUNGS),
                (_, Standing::Between) => (high - 1, high + 1),
                (lower, upper) => {
                    let upper_is_open = has_upper && upper == Standing::Open;
                    let is_upper = upper_is_open && (lower != Standing::Open || !self.was_upper);
                    return self.ask(if is_upper { high } else { low }, true);
                }
            });
        }
        // rungs beside each other that neither hold nor break: the bracket cannot be narrower than they are
        let with =
            |standing| self.votes.iter().filter(move |(_, votes)| votes.standing() == standing).map(|(rung, _)| *rung);
        let above = with(Standing::Holds).max().map(|low| {
            let is_end = |rung: &i32| matches!(self.standing(*rung), Standing::Open | Standing::Breaks);
            (low + 1..).find(is_end).expect("rungs have no end")
        });
        match above.filter(|rung| *rung <= self.top() && self.standing(*rung) == Standing::Open) {
            Some(rung) => self.ask(rung, true),
            None => self.give_up(),
        }
    }

    fn ask(&mut self, rung: i32, is_full: bool) -> Step {
        self.asked = Some((rung, is_full));
        Step::Try(Trial { rate: self.rate(rung), is_full })
    }

    /// The trial that was asked for has passed, or not.
    pub fn observe(&mut self, has_passed: bool) {
        let Some((rung, is_full)) = self.asked.take() else { return };
        if is_full {
            let votes = self.votes.entry(rung).or_default();
            votes.made += 1;
            votes.passed += u32::from(has_passed);
            self.full += 1;
            self.was_upper = self.ends.is_some_and(|(_, high)| high == rung);
        } else if has_passed {
            self.passed = Some(self.passed.map_or(rung, |other| other.max(rung)));
        } else {
            self.failed = Some(self.failed.map_or(rung, |other| other.min(rung)));
        }
    }

    fn end(&self, rung: i32) -> (f64, (u32, u32)) {
        let votes = self.votes.get(&rung).copied().unwrap_or_default();
        (self.rate(rung), (votes.passed, votes.made))
    }

    fn done(&self, holds: Option<i32>, breaks: Option<i32>, is_settled: bool) -> Step {
        let end = |rung| self.end(rung);
        Step::Done(Found { holds: holds.map(end), breaks: breaks.map(end), is_settled })
    }

    /// The narrowest that can be stood for; twice as wide as was asked for will do.
    fn give_up(&self) -> Step {
        let with =
            |standing| self.votes.iter().filter(move |(_, votes)| votes.standing() == standing).map(|(rung, _)| *rung);
        let pairs = with(Standing::Holds).flat_map(|low| with(Standing::Breaks).map(move |high| (low, high)));
        let narrowest = pairs.filter(|(low, high)| low < high).min_by_key(|(low, high)| high - low);
        match narrowest {
            Some((low, high)) => self.done(Some(low), Some(high), high - low <= 2 * WIDTH_RUNGS),
            None => self.done(with(Standing::Holds).max(), None, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const BOUNDS: Bounds = Bounds { start: 1_000.0, min: 1.0, max: 1e7, width: 0.05 };

    /// Runs a search against a server whose trials pass with this chance at a rate; also says how many trials that took.
    fn search(bounds: Bounds, mut passes: impl FnMut(Trial) -> bool) -> (Found, u32) {
        let mut search = Search::new(bounds);
        for trials in 0.. {
            match search.step() {
                Step::Done(found) => return (found, trials),
                Step::Try(trial) => {
                    assert!(trial.rate <= bounds.max * 1.000_001 && trial.rate > 0.0, "{trial:?}");
                    assert_eq!(search.step(), Step::Try(trial), "asked again it says the same");
                    search.observe(passes(trial));
                }
            }
        }
        unreachable!("a search ends")
    }

    #[test]
    fn a_sharp_edge_is_bracketed_wherever_it_is() {
        for edge in [1.5, 40.0, 999.0, 1_000.0, 1_001.0, 23_456.0, 987_654.0] {
            let (found, trials) = search(BOUNDS, |trial| trial.rate <= edge);
            let (holds, breaks) = (found.holds.expect("it holds somewhere").0, found.breaks.expect("and breaks").0);
            assert!(found.is_settled && holds <= edge && edge < breaks, "{edge}: {found:?}");
            assert!(breaks / holds <= 1.051, "{edge}: {found:?}");
            assert_eq!((found.holds.unwrap().1, found.breaks.unwrap().1), ((4, 4), (0, 3)));
            assert!(trials < 45, "{edge}: {trials} trials");
        }
    }

    #[test]
    fn what_never_or_always_holds_is_said() {
        let (found, _) = search(BOUNDS, |_| false);
        assert_eq!(found, Found { holds: None, breaks: None, is_settled: true });
        let bounds = Bounds { max: 5_000.0, ..BOUNDS };
        let (found, _) = search(bounds, |_| true);
        assert!(found.breaks.is_none() && found.is_settled, "{found:?}");
        assert!((4_800.0..=5_000.0).contains(&found.holds.unwrap().0), "{found:?}");
        let (found, _) = search(Bounds { max: 200.0, ..BOUNDS }, |trial| trial.rate < 150.0);
        assert!(found.holds.unwrap().0 < 150.0 && found.breaks.unwrap().0 >= 150.0, "{found:?}");
    }

    #[test]
    fn an_edge_that_is_blurred_is_bracketed_within_the_blur_and_the_width() {
        // the chance to pass falls from 97 to 3 % over 6 % of the rate, as trials of some seconds do
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let edge = 10f64.powf(2.0 + 3.0 * rng.random::<f64>());
            let (found, trials) = search(BOUNDS, |trial| {
                let chance = 1.0 / (1.0 + ((trial.rate / edge - 1.0) * 110.0).exp());
                rng.random::<f64>() < chance
            });
            assert!(found.is_settled && trials < 80, "seed {seed}: {found:?} after {trials}");
            let (holds, breaks) = (found.holds.unwrap().0, found.breaks.unwrap().0);
            assert!(holds < edge * 1.03 && breaks > edge * 0.97, "seed {seed}: {found:?}, edge {edge}");
            assert!(breaks / holds <= 1.104, "seed {seed}: {found:?}");
        }
    }

    #[test]
    fn a_server_that_contradicts_itself_ends_the_search_all_the_same() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (found, trials) = search(Bounds { max: 1e5, ..BOUNDS }, |_| rng.random::<f64>() < 0.6);
            assert!(trials < 100, "seed {seed}: {found:?} after {trials}");
        }
    }
}
