//! One server under one load after the other.

use super::progress::Progress;
use crate::clock;
use crate::engine::{self, Measured, Watch};
use crate::hiccups;
use crate::load::Load;
use crate::machine::{self, Ticks};
use crate::measure::{self, Bound};
use crate::result::{Outcome, Run, SPOILED};
use crate::units::{digits, shown};
use crate::validity;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two looks at how far a load is.
const LOOK: Duration = Duration::from_millis(100);

/// What loads of one command have in common.
#[derive(Debug)]
pub struct Bench<'b> {
    /// Ends everything when it is stopped.
    pub watch: &'b Watch,
    /// Where it is said how far it is.
    pub progress: &'b Progress,
}

/// What can be asked of the process of a server.
pub trait Process {
    /// CPU seconds of all its threads until now.
    fn cpu(&mut self) -> Option<f64>;

    /// Resident bytes.
    fn resident(&mut self) -> Option<u64>;

    /// How it has ended, if it is known to have.
    fn ended(&mut self) -> Option<String>;
}

impl<P: Process + ?Sized> Process for &mut P {
    fn cpu(&mut self) -> Option<f64> {
        (**self).cpu()
    }

    fn resident(&mut self) -> Option<u64> {
        (**self).resident()
    }

    fn ended(&mut self) -> Option<String> {
        (**self).ended()
    }
}

/// What is done to servers while a load runs.
pub trait Script {
    /// When there is something to do, from the first judged moment; `None`: never again.
    fn due(&self) -> Option<Duration>;

    /// Does what is due.
    fn act(&mut self);
}

/// Nothing is done.
#[derive(Debug)]
pub struct NoScript;

impl Script for NoScript {
    fn due(&self) -> Option<Duration> {
        None
    }

    fn act(&mut self) {}
}

/// A server whose process is not known.
#[derive(Debug)]
pub struct Unknown;

impl Process for Unknown {
    fn cpu(&mut self) -> Option<f64> {
        None
    }

    fn resident(&mut self) -> Option<u64> {
        None
    }

    fn ended(&mut self) -> Option<String> {
        None
    }
}

impl Bench<'_> {
    /// Makes a load and says what came of it.
    ///
    /// # Errors
    /// The generator cannot run.
    pub fn run(
        &self,
        load: &Load,
        label: &str,
        server: &str,
        process: &mut dyn Process,
    ) -> Result<(Measured, Run), engine::Error> {
        self.play(load, label, server, process, &mut NoScript)
    }

    /// The same, while a script is played.
    ///
    /// # Errors
    /// The generator cannot run.
    pub fn play(
        &self,
        load: &Load,
        label: &str,
        server: &str,
        process: &mut dyn Process,
        script: &mut dyn Script,
    ) -> Result<(Measured, Run), engine::Error> {
        let watch = self.watch.again();
        let what = match load.pace.rate() {
            Some(rate) => format!("{server}: {label}, {} requests/s", digits(rate)),
            None => format!("{server}: {label}, as fast as it goes"),
        };
        let mut shown_run = self.progress.begin(what, load.warm_up + load.length);
        let before = Ticks::now();
        let mut cpu = None;
        let is_over = AtomicBool::new(false);
        let (measured, hiccups) = std::thread::scope(|scope| {
            let is_over = &is_over;
            let watched = machine::cores().into_iter().map(|core| scope.spawn(move || hiccups::watch(core, is_over)));
            let watched: Vec<_> = watched.collect();
            let running = scope.spawn(|| engine::offer(load, &watch));
            while !running.is_finished() {
                let progress = watch.progress();
                let until_begun = progress.begun.map(|begun| Duration::from_nanos(begun.since(clock::now())));
                // what opening connections and warming up cost is not what requests cost
                if cpu.is_none() && until_begun.is_some_and(|left| left.is_zero()) {
                    cpu = Some(process.cpu());
                }
                if let Some(begun) = progress.begun {
                    let passed = Duration::from_nanos((clock::now() + load.warm_up).since(begun));
                    shown_run.tell(passed, progress.ended, progress.failed);
                }
                let act = progress.begun.zip(script.due()).map(|(begun, due)| begun + due);
                if act.is_some_and(|at| at <= clock::now()) {
                    script.act();
                    continue;
                }
                let until_act = act.map(|at| Duration::from_nanos(at.since(clock::now())));
                let waits = until_begun.filter(|left| !left.is_zero()).into_iter().chain(until_act);
                clock::wait(waits.min().unwrap_or(LOOK).min(LOOK));
            }
            let measured = running.join().unwrap_or(Err(engine::Error::Panicked));
            is_over.store(true, Ordering::Relaxed);
            let hiccups: Option<Vec<_>> = watched.into_iter().map(|core| core.join().ok().flatten()).collect();
            measured.map(|measured| (measured, hiccups))
        })?;
        let mut run = measure::run(load, &measured, label, server, before);
        let of_core = |hiccups: &Vec<_>| hiccups::share(hiccups, measured.begun, load.length);
        run.stood_still = hiccups.map(|cores| cores.iter().map(of_core).fold(0.0, f64::max));
        run.server_cpu = process.cpu().zip(cpu.flatten()).map(|(after, before)| after - before);
        run.server_resident = process.resident();
        shown_run.end(&summary(&run));
        Ok((measured, run))
    }
}

/// How often one run is made again, and how often all those of a command.
const REPEATS_OF_ONE: u32 = 5;
const REPEATS_OF_ALL: u32 = 20;

/// Runs that the machine spoiled are made again, so that one hiccup does not cost a whole command; on a machine that is always busy that ends
/// soon, and the gates say so.
#[derive(Debug, Default)]
pub struct Repeats {
    of_one: u32,
    of_all: u32,
}

impl Repeats {
    /// Whether this run is to be made again, which is said and which its label says then. `bound` as [`validity::gates`] takes it.
    pub fn again(&mut self, run: &mut Run, bound: Option<Bound>, progress: &Progress) -> bool {
        let why = validity::spoiled(run, bound);
        let Some(why) = why.filter(|_| self.of_one < REPEATS_OF_ONE && self.of_all < REPEATS_OF_ALL) else {
            self.of_one = 0;
            return false;
        };
        (self.of_one, self.of_all) = (self.of_one + 1, self.of_all + 1);
        SPOILED.clone_into(&mut run.label);
        progress.say(&format!("  does not count, and is made again: {why}"));
        true
    }

    /// Leaves in a result that some runs were made again.
    pub fn conclude(&self, outcome: &mut Outcome) {
        match self.of_all {
            0 => {}
            1 => outcome.remarks.push("1 run was spoiled by the machine and made again".to_owned()),
            many => outcome.remarks.push(format!("{many} runs were spoiled by the machine and made again")),
        }
    }
}

/// A run in a line.
#[must_use]
pub fn summary(run: &Run) -> String {
    let percentile = |value: Option<f64>| shown(value.unwrap_or(f64::INFINITY));
    let failed = run.due - run.good;
    let failures = if failed > 0 { format!(", {} failed", digits(failed as f64)) } else { String::new() };
    if run.rate.is_none() {
        return format!(
            "{} requests/s{failures} (saturation: it has no latency)",
            digits(run.good as f64 / run.length)
        );
    }
    let (p50, p99) = (percentile(run.latency.p50), percentile(run.latency.p99));
    format!("p50 {p50}, p99 {p99}{failures}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Spectrum;

    #[test]
    fn what_is_spoiled_is_made_again_but_not_for_ever() {
        let lag = Spectrum { p999: Some(0.01), ..Spectrum::default() };
        let late = Run { rate: Some(100.0), label: "full".to_owned(), lag, ..Run::default() };
        let fine = Run { rate: Some(100.0), label: "full".to_owned(), ..Run::default() };
        let progress = Progress::new(true);
        let bound = Bound { quantile: 0.99, time: 0.005, failures: 1e-4 };
        let (mut repeats, mut outcome) = (Repeats::default(), Outcome::default());
        let mut again = |run: &Run| {
            let mut run = run.clone();
            let again = repeats.again(&mut run, Some(bound), &progress);
            assert_eq!(run.label, if again { SPOILED } else { "full" });
            again
        };
        assert!(!again(&fine));
        for round in 0..REPEATS_OF_ALL / REPEATS_OF_ONE {
            assert!((0..REPEATS_OF_ONE).all(|_| again(&late)), "round {round}");
            assert!(!again(&late), "the same run is given up, round {round}");
        }
        assert!(!again(&late), "a machine that is always busy stays what it is");
        repeats.conclude(&mut outcome);
        assert_eq!(outcome.remarks, ["20 runs were spoiled by the machine and made again"]);
    }
}
