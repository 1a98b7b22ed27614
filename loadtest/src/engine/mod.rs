//! Makes a load: one thread a core, each with an epoll loop, connections and a schedule of its own, which share nothing while they run.
//!
//! A request is begun when it is due, whatever became of those before it. An idle connection takes it, else a new one is opened, else
//! (when there may be no more) it waits; its time counts from when it was due in any case. The loop sleeps until the next request
//! is due, or looks at the clock until then where that is shorter than a sleep costs ([`naps`]), and looks at the clock between any two things that it does, so that a burst of
//! answers does not make requests late; where it may and has a core of its own, it goes before everything else there ([`take_precedence`]). How late they were is measured and is a gate of the result.

mod connection;
mod generator;
mod ledger;
mod mux;
mod naps;
mod precedence;
mod shared;
mod turn;
mod watch;

pub use precedence::{Precedence, take_for_generator, take_precedence};
pub use watch::{Progress, Watch};

use crate::clock;
use crate::load::{Load, Pace};
use crate::stats::Tallies;
use crate::units::{Moment, nanos};
use generator::Generator;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Connections of the start are given so long.
const OPENING: Duration = Duration::from_secs(5);
/// Between the last connection of the start and the first request.
const BREATH: Duration = Duration::from_millis(20);

/// What was seen of a load.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Of judged requests.
    pub tallies: Tallies,
    /// When the first judged request was due.
    pub begun: Moment,
    /// From there to the end of the last answer.
    pub took: Duration,
    /// It was stopped before its time.
    pub is_partial: bool,
    /// Judged requests that were under way when it was stopped: nobody knows what would have become of them.
    pub unfinished: u64,
    /// Connections of the start for which this machine had no descriptor or port.
    pub unopened: u64,
    /// Connections that were opened, with those of the start.
    pub connections_opened: u64,
    /// Bytes.
    pub sent: u64,
    /// Bytes.
    pub received: u64,
    /// Part of its time in which the busiest thread worked.
    pub busy: f64,
    /// CPU time of all threads.
    pub cpu: Duration,
    /// Every thread went before the ordinary ones of its core.
    pub is_realtime: bool,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refuses what the generator itself needs.
    #[error("the load generator cannot run here: {0}")]
    System(#[from] std::io::Error),
    /// A defect of the generator.
    #[error("a thread of the load generator has panicked")]
    Panicked,
}

/// Makes the load and waits for its end; that is `warm_up`, `length` and at most `timeout` after the connections of the start.
///
/// # Errors
/// The system does not give what a generator needs. That the server does not answer is no error, but what is measured.
pub fn offer(load: &Load, watch: &Watch) -> Result<Measured, Error> {
    let threads = load.cores.len().max(1);
    let (ready, all_ready) = mpsc::channel();
    let seen = thread::scope(|scope| {
        let mut starts = Vec::new();
        let mut handles = Vec::new();
        for row in 0..threads {
            let (start, started) = mpsc::sync_channel(1);
            let (ready, core) = (ready.clone(), load.cores.get(row).copied());
            starts.push(start);
            let work = move || -> Result<_, Error> {
                let mut generator = Generator::new(load, row, threads, core, watch)?;
                generator.open(clock::now() + OPENING)?;
                // who waits for it may be gone only after a panic, which is told elsewhere
                let _ = ready.send(());
                drop(ready);
                let Ok(start) = started.recv() else { return Err(Error::Panicked) };
                Ok(generator.run(start)?)
            };
            handles.push(thread::Builder::new().name(format!("load-{row}")).spawn_scoped(scope, work)?);
        }
        drop(ready);
        let opened = all_ready.iter().count();
        let start = clock::now() + BREATH;
        watch.begins(start + load.warm_up);
        if opened == threads {
            // one that has panicked in between is told at its join
            starts.iter().for_each(|to| _ = to.send(start));
        }
        drop(starts);
        let ends = handles.into_iter().map(|handle| handle.join().unwrap_or(Err(Error::Panicked)));
        ends.collect::<Result<Vec<_>, Error>>().map(|seen| (start, seen))
    });
    let (start, seen) = seen?;
    Ok(sum(load, start, seen, watch))
}

fn sum(load: &Load, start: Moment, seen: Vec<generator::Seen>, watch: &Watch) -> Measured {
    let begun = start + load.warm_up;
    let mut measured = Measured {
        tallies: Tallies::new(load),
        begun,
        took: Duration::ZERO,
        is_partial: watch.is_stopped(),
        unfinished: 0,
        unopened: 0,
        connections_opened: 0,
        sent: 0,
        received: 0,
        busy: 0.0,
        cpu: Duration::ZERO,
        is_realtime: true,
    };
    for thread in seen {
        measured.tallies.add(&thread.tallies);
        measured.took = measured.took.max(Duration::from_nanos(thread.ended.since(begun)));
        measured.unfinished += thread.unfinished;
        measured.unopened += thread.unopened;
        measured.connections_opened += thread.opened;
        measured.sent += thread.sent;
        measured.received += thread.received;
        measured.busy = measured.busy.max(thread.busy);
        measured.cpu += Duration::from_nanos(thread.cpu);
        measured.is_realtime &= thread.is_realtime;
    }
    measured
}

impl Measured {
    /// Requests in flight on average over the judged time.
    #[must_use]
    pub fn in_flight(&self, load: &Load) -> f64 {
        let length = if self.is_partial { nanos(self.took).min(nanos(load.length)) } else { nanos(load.length) };
        self.tallies.in_flight.iter().map(|part| *part as f64).sum::<f64>() / (length as f64).max(1.0)
    }

    /// Requests a second that ended, for a closed loop.
    #[must_use]
    pub fn rate(&self, load: &Load) -> f64 {
        let over = match load.pace {
            Pace::Closed => self.took.min(load.length),
            _ => load.length,
        };
        self.tallies.due() as f64 / over.as_secs_f64().max(1e-9)
    }
}

#[cfg(test)]
mod http2_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
