//! How a generator waits: by sleep or by looking, whichever is less, and what it does when it wakes.

use super::generator::Generator;
use super::naps::Nap;
use crate::clock::{self, timespec};
use crate::units::Moment;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use std::io;
use std::time::Duration;

/// However long nothing is due, it is looked whether the load was stopped: nanoseconds.
const NAP: u64 = 50_000_000;

impl Generator<'_> {
    /// When something has to be done at the latest.
    pub(super) fn wake(&self, now: Moment) -> Moment {
        if (!self.waiting.is_empty() && self.open < self.connections_max) || !self.unread.is_empty() {
            return now;
        }
        let due = self.next.map(|arrival| self.moment(arrival));
        let late = self.deadlines.front().map(|(due, ..)| *due + self.load.timeout);
        let waits = self.waiting.front().map(|request| request.due + self.load.timeout);
        due.into_iter().chain(late).chain(waits).min().unwrap_or(Moment(u64::MAX))
    }

    /// Waits until something happens or `until`, and handles it; returns what time it is then. It may be a little earlier.
    pub(super) fn poll(&mut self, now: Moment, until: Moment) -> io::Result<Moment> {
        let left = until.since(now).min(NAP);
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let mut woken = match self.naps.choose(now, left) {
            Nap::Sleep(time) if left > 0 => {
                let cpu = clock::thread_cpu();
                self.take_events(&mut events, time)?;
                let woken = clock::now();
                let (took, cpu) = (woken.since(now), clock::thread_cpu() - cpu);
                self.naps.learn(woken, took, cpu, events.is_empty().then(|| took.saturating_sub(time)));
                woken
            }
            _ => self.spin(&mut events, until)?,
        };
        if left > 0 {
            self.idled += woken.since(now);
        }
        for event in &events {
            let (flags, data) = (event.flags, event.data.u64());
            self.on_ready((data >> 32) as usize, data as u32, flags, woken);
            self.catch_up(woken);
            woken = clock::now();
        }
        self.events = events;
        Ok(woken)
    }

    /// Looks for events until there are some, or until then; once at least.
    fn spin(&self, events: &mut Vec<epoll::Event>, until: Moment) -> io::Result<Moment> {
        loop {
            self.take_events(events, 0)?;
            let now = clock::now();
            if now >= until || !events.is_empty() {
                return Ok(now);
            }
        }
    }

    /// Those there are, or that come within `time` nanoseconds.
    fn take_events(&self, events: &mut Vec<epoll::Event>, time: u64) -> io::Result<()> {
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timespec(Duration::from_nanos(time)))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
