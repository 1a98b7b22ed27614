//! What goes wrong, and when: a list of phases that repeats, with another service failing each time.

use super::service::{Mode, Service};
use std::io;
use std::time::Duration;

/// A phase: how long, what the failing service does, and how it is told.
const PHASES: [(u64, Mode, &str); 6] = [
    (4, Mode::Well, "all services are well"),
    (7, Mode::Gone, "refuses connections, as if its process had been killed"),
    (5, Mode::Well, "came back"),
    (7, Mode::HalfErrors, "answers every second request with 503"),
    (5, Mode::Well, "answers properly again"),
    (7, Mode::Hanging, "takes requests but does not answer for 5 s"),
];

/// Where the demo stands in its phases.
pub(super) struct Script {
    services: usize,
    phase: usize,
    victim: usize,
    started: bool,
}

impl Script {
    /// At the beginning, for that many services.
    pub(super) fn new(services: usize) -> Self {
        Self { services, phase: 0, victim: 0, started: false }
    }

    /// Puts the services into the state that belongs to this time since the start.
    pub(super) fn play(&mut self, elapsed: Duration, services: &mut [Service]) -> io::Result<()> {
        let (phase, victim) = at(elapsed, self.services);
        if self.started && (phase, victim) == (self.phase, self.victim) {
            return Ok(());
        }
        (self.phase, self.victim, self.started) = (phase, victim, true);
        for (index, service) in services.iter_mut().enumerate() {
            service.set_mode(if index == victim { PHASES[phase].1 } else { Mode::Well })?;
        }
        Ok(())
    }

    /// What is going on now, in words.
    pub(super) fn describe(&self, services: &[Service]) -> String {
        let (_, _, text) = PHASES[self.phase];
        if self.phase == 0 { text.to_owned() } else { format!("{} {text}", services[self.victim].name()) }
    }
}

/// The phase and the failing service at this time since the start.
///
/// The victim changes before each of the three failures, so that a service never returns and fails in one breath.
fn at(elapsed: Duration, services: usize) -> (usize, usize) {
    let round_seconds: u64 = PHASES.iter().map(|phase| phase.0).sum();
    let round = usize::try_from(elapsed.as_secs() / round_seconds).unwrap_or(0);
    let mut left = elapsed.as_secs() % round_seconds;
    let mut phase = 0;
    while left >= PHASES[phase].0 {
        left -= PHASES[phase].0;
        phase += 1;
    }
    // phases 1–2, 3–4 and 5 have one victim each
    let failure = round * 3 + phase.saturating_sub(1) / 2;
    (phase, failure % services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_failed_is_well_before_the_next_one_fails() {
        let mut previous = at(Duration::ZERO, 3);
        for second in 1..200 {
            let now = at(Duration::from_secs(second), 3);
            if PHASES[now.0].1 != Mode::Well && now != previous {
                assert_eq!(PHASES[previous.0].1, Mode::Well, "second {second}");
            }
            previous = now;
        }
    }

    #[test]
    fn something_fails_within_ten_seconds_and_every_failure_within_a_minute() {
        let modes: Vec<_> = (0..60).map(|second| PHASES[at(Duration::from_secs(second), 3).0].1).collect();
        assert!(modes[..10].contains(&Mode::Gone));
        assert!(modes.contains(&Mode::HalfErrors) && modes.contains(&Mode::Hanging));
    }
}
