//! How workers begin: all of them on one step of the ladder of drivers.
//!
//! Each tries on its own thread, as some rings demand, and tells what it got. A limit on locked memory may allow a ring to some of them and
//! not to others; then all climb down to the step of the last, because a gateway whose workers differ in speed and in what they can do is
//! nothing that anybody could plan with. What was refused is logged once, with what to do about it.

use crate::net::driver::{Refused, Step};
use crate::observe::stats::Stats;
use crate::units::WorkerId;
use crate::worker::{Climbed, Muster, Order};
use std::io;
use std::sync::Arc;
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

/// Why there is no crew.
#[derive(Debug)]
pub(crate) enum NoCrew {
    /// There is no thread for a worker, or no descriptor to give it.
    Thread(io::Error),
    /// None of the steps that the configuration allows holds, for these reasons.
    Refused(Vec<Refused>),
    /// A worker has an event loop and cannot begin.
    Begin(io::Error),
}

/// Brings all workers to one step; they wait for [`begin`] then, or end if that does not come.
///
/// # Errors
/// No step holds for one of them.
pub(super) fn agree(rolls: &[Roll]) -> Result<Step, NoCrew> {
    let mut refused = Vec::new();
    let mut steps: Vec<Option<Step>> = vec![None; rolls.len()];
    let step = loop {
        for (roll, held) in rolls.iter().zip(&mut steps).filter(|(_, held)| held.is_none()) {
            let climbed = roll.climbed.recv().map_err(|_| NoCrew::Begin(ended()))?;
            *held = climbed.step;
            if held.is_none() {
                return Err(NoCrew::Refused(climbed.refused));
            }
            note(&mut refused, climbed.refused);
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
    Ok(step)
}

/// Has workers begin that have agreed.
///
/// # Errors
/// One of them cannot.
pub(super) fn begin(rolls: &[Roll]) -> Result<(), NoCrew> {
    for roll in rolls {
        let _ = roll.orders.send(Order::Begin);
    }
    for roll in rolls {
        roll.begun.recv().unwrap_or_else(|_| Err(ended())).map_err(NoCrew::Begin)?;
    }
    Ok(())
}

fn ended() -> io::Error {
    io::Error::other("a worker ended at once")
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
    for reason in reasons(refused) {
        tracing::warn!("all workers run on {step}: {reason}");
    }
}

/// A sentence for all steps that were refused for one reason, with what to do about it.
pub(crate) fn reasons(refused: &[Refused]) -> impl Iterator<Item = String> {
    refused.chunk_by(|a, b| a.error.raw_os_error() == b.error.raw_os_error()).map(|refused| {
        let names: Vec<_> = refused.iter().map(|refused| refused.step.name()).collect();
        format!("{} refused: {}: {}", names.join(", "), refused[0].error, refused[0].advice())
    })
}

/// Who takes the place of a worker that has failed: on the step of the others, if it can, and rather on epoll than not at all, whatever
/// the configuration says, because connections wait for it. A ring may be refused while the one before still has its own.
pub(super) struct Successor {
    pub(super) worker: WorkerId,
    pub(super) step: Step,
    pub(super) stats: Arc<Stats>,
    /// It is not the first that tries, and all has been said.
    pub(super) is_quiet: bool,
    pub(super) has_fallen: bool,
}

impl Muster for Successor {
    fn climbed(&mut self, Climbed { step, refused }: Climbed) -> Order {
        let (worker, wanted) = (self.worker.index(), self.step);
        for reason in reasons(&refused).filter(|_| !self.is_quiet) {
            tracing::warn!("worker {worker}: {reason}");
        }
        match step {
            Some(step) if step != wanted => {
                tracing::warn!("worker {worker} goes on with {step}, the others run on {wanted}");
                Order::Begin
            }
            Some(_) => Order::Begin,
            None if !self.has_fallen => {
                self.has_fallen = true;
                Order::From(Step::Epoll)
            }
            None => Order::End,
        }
    }

    fn begun(&mut self, begun: io::Result<()>) {
        match begun {
            Ok(()) => self.stats.count_worker_restart(self.worker),
            Err(error) if !self.is_quiet => tracing::error!("worker {} cannot begin: {error}", self.worker.index()),
            Err(_) => {}
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
            let call_up = |best| {
                let (roll, recruit) = roll();
                (roll, thread::spawn(move || worker(recruit, best)))
            };
            let (rolls, workers): (Vec<_>, Vec<_>) = bests.into_iter().map(call_up).unzip();
            assert_eq!(agree(&rolls).unwrap(), worst);
            begin(&rolls).unwrap();
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
        let NoCrew::Refused(why) = agree(&rolls).unwrap_err() else { panic!("it was refused") };
        let why: Vec<_> = reasons(&why).collect();
        assert!(
            why.len() == 1 && why[0].starts_with("io_uring-plain refused: ") && why[0].contains("RLIMIT_MEMLOCK"),
            "{why:?}"
        );
        drop(rolls);
        assert_eq!((waiting.join().unwrap(), failing.join().unwrap()), (None, Order::End));
    }

    #[test]
    fn a_successor_rather_runs_on_epoll_than_not_at_all_and_is_counted_once_it_runs() {
        let stats = Stats::new(&crate::observe::fixture::config(), 1);
        let worker = WorkerId(0);
        let mut successor =
            Successor { worker, step: Step::Multishot, stats: Arc::clone(&stats), is_quiet: false, has_fallen: false };
        let mut climb = |step| successor.climbed(Climbed { step, refused: vec![refused(Step::Plain)] });
        assert_eq!([climb(None), climb(None)], [Order::From(Step::Epoll), Order::End]);
        assert_eq!(climb(Some(Step::Epoll)), Order::Begin);
        successor.begun(Err(ended()));
        assert_eq!(stats.worker(worker).restarts, 0);
        successor.begun(Ok(()));
        assert_eq!(stats.worker(worker).restarts, 1);
    }
}
