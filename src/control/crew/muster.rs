//! How workers begin: all of them on one step of the ladder of drivers.
//!
//! Each tries on its own thread, as some rings demand, and tells what it got. A limit on locked memory may allow a ring to some of them and
//! not to others; then all climb down to the step of the last, because a gateway whose workers differ in speed and in what they can do is
//! nothing that anybody could plan with. What was refused is logged once, with what to do about it.

use crate::net::driver::{Refused, Step};
use crate::units::WorkerId;
use crate::worker::{Climbed, Muster, Order};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A worker's line in the roll, on the side of who calls it.
pub(super) struct Roll {
    climbed: Receiver<Climbed>,
    orders: Sender<Order>,
    begun: Receiver<io::Result<()>>,
}

/// The same, on the side of the worker.
pub(super) struct Recruit {
    climbed: Sender<Climbed>,
    orders: Receiver<Order>,
    begun: Sender<io::Result<()>>,
}

/// A line in the roll, both sides of it.
pub(super) fn roll() -> (Roll, Recruit) {
    let ((climbed, hears_climbed), (orders, hears_orders), (begun, hears_begun)) = (channel(), channel(), channel());
    (Roll { climbed: hears_climbed, orders, begun: hears_begun }, Recruit { climbed, orders: hears_orders, begun })
}

impl Muster for Recruit {
    fn climbed(&mut self, climbed: Climbed) -> Order {
        // whoever called the roll is gone when another worker could not begin
        let _ = self.climbed.send(climbed);
        self.orders.recv().unwrap_or(Order::End)
    }

    fn begun(&mut self, begun: io::Result<()>) {
        let _ = self.begun.send(begun);
    }
}

/// Brings all workers to one step, and has them begin.
///
/// # Errors
/// No step holds for one of them, or one could not begin.
pub(super) fn agree(rolls: &[Roll]) -> io::Result<Step> {
    let mut refused = Vec::new();
    let mut steps: Vec<Option<Step>> = vec![None; rolls.len()];
    let step = loop {
        for (roll, held) in rolls.iter().zip(&mut steps).filter(|(_, held)| held.is_none()) {
            let climbed = roll.climbed.recv().map_err(|_| io::Error::other("a worker ended at once"))?;
            note(&mut refused, climbed.refused);
            *held = climbed.step;
            if held.is_none() {
                let last = refused.pop().map_or_else(|| io::Error::other("no driver to try"), |last| last.error);
                return Err(last);
            }
        }
        let worst = steps.iter().flatten().max().copied().unwrap_or(Step::Multishot);
        let better = |held: &Option<Step>| held.is_some_and(|held| held < worst);
        if !steps.iter().any(better) {
            break worst;
        }
        for (roll, held) in rolls.iter().zip(&mut steps).filter(|(_, held)| better(held)) {
            let _ = roll.orders.send(Order::From(worst));
            *held = None;
        }
    };
    refused.sort_by_key(|refused| refused.step);
    log(&refused, step);
    for roll in rolls {
        let _ = roll.orders.send(Order::Begin);
    }
    for roll in rolls {
        roll.begun.recv().map_err(|_| io::Error::other("a worker ended at once"))??;
    }
    Ok(step)
}

/// Each step once, whoever was refused it.
fn note(all: &mut Vec<Refused>, refused: Vec<Refused>) {
    for refused in refused {
        if !all.iter().any(|known| known.step == refused.step) {
            all.push(refused);
        }
    }
}

/// One line for all steps that were refused for one reason.
fn log(refused: &[Refused], step: Step) {
    for refused in refused.chunk_by(|a, b| a.error.raw_os_error() == b.error.raw_os_error()) {
        let names: Vec<_> = refused.iter().map(|refused| refused.step.name()).collect();
        let Some(Refused { error, .. }) = refused.first() else { continue };
        let advice = refused[0].advice();
        tracing::warn!("all workers run on {step}: {} refused: {error}: {advice}", names.join(", "));
    }
}

/// Who takes the place of a worker that has failed: on the step of the others, if it can.
pub(super) struct Successor {
    pub(super) worker: WorkerId,
    pub(super) step: Step,
}

impl Muster for Successor {
    fn climbed(&mut self, Climbed { step, refused }: Climbed) -> Order {
        let (worker, wanted) = (self.worker.index(), self.step);
        for Refused { step, error } in &refused {
            tracing::warn!("worker {worker} was refused {step}: {error}");
        }
        match step {
            Some(step) if step != wanted => {
                tracing::warn!("worker {worker} goes on with {step}, the others run on {wanted}");
            }
            Some(_) => {}
            None => tracing::error!("worker {worker} has no event loop"),
        }
        Order::Begin
    }

    fn begun(&mut self, begun: io::Result<()>) {
        if let Err(error) = begun {
            tracing::error!("worker {} cannot begin: {error}", self.worker.index());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    fn refused(step: Step) -> Refused {
        Refused { step, error: io::Error::from_raw_os_error(libc::ENOMEM) }
    }

    /// A worker that gets no better step than `best`; which one it begins with.
    fn worker(mut recruit: Recruit, best: Step) -> Option<Step> {
        let mut from = Step::Multishot;
        loop {
            let step = from.max(best);
            let refused = Step::ALL.into_iter().filter(|s| *s >= from && *s < step).map(refused).collect();
            match recruit.climbed(Climbed { step: Some(step), refused }) {
                Order::Begin => {
                    recruit.begun(Ok(()));
                    return Some(step);
                }
                Order::From(step) => from = step,
                Order::End => return None,
            }
        }
    }

    #[test]
    fn all_workers_take_the_step_of_the_last() {
        for bests in [
            vec![Step::Multishot; 4],
            vec![Step::Multishot, Step::Epoll, Step::Defer],
            vec![Step::Plain, Step::Multishot],
        ] {
            let worst = *bests.iter().max().unwrap();
            let begin = |best| {
                let (roll, recruit) = roll();
                (roll, thread::spawn(move || worker(recruit, best)))
            };
            let (rolls, workers): (Vec<_>, Vec<_>) = bests.into_iter().map(begin).unzip();
            assert_eq!(agree(&rolls).unwrap(), worst);
            assert!(workers.into_iter().all(|worker| worker.join().unwrap() == Some(worst)));
        }
    }

    #[test]
    fn one_without_any_step_ends_all() {
        let (well, recruit) = roll();
        let waiting = thread::spawn(move || worker(recruit, Step::Multishot));
        let (failed, mut recruit) = roll();
        let failing =
            thread::spawn(move || recruit.climbed(Climbed { step: None, refused: vec![refused(Step::Plain)] }));
        let rolls = [well, failed];
        assert_eq!(agree(&rolls).unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        drop(rolls);
        assert_eq!((waiting.join().unwrap(), failing.join().unwrap()), (None, Order::End));
    }
}
