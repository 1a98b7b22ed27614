//! One thread of a load: its loop, its connections, its schedule.

use super::connection::{Came, Connection, Request, State};
use super::naps::Naps;
use super::precedence::take_for_generator;
use super::watch::Watch;
use crate::arrivals::{self, Arrival, Arrivals, Mix};
use crate::clock;
use crate::load::{Load, Pace, Target};
use crate::machine;
use crate::stats::Tallies;
use crate::units::Moment;
use crate::wire::{Ended, Failure, Link, Readiness};
use rand::rngs::StdRng;
use rustix::event::epoll;
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};
use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Events that are taken at once: few, since the clock is looked at between any two of them.
const EVENTS: usize = 64;
/// One answer is read in pieces of this size.
const BUFFER: usize = 64 << 10;
/// Who is later than this, in nanoseconds, opens no connection: that takes as long as two or three requests, and after a hiccup of the server it
/// would take a thousand of them in a row.
const HURRY: u64 = 50_000;

/// When a request was due, and where it is: row and serial of its connection; slot and stream of that, where it is shared.
type Deadline = (Moment, usize, u32, (usize, u32));

/// What one thread has seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) tallies: Tallies,
    pub(super) ended: Moment,
    pub(super) opened: u64,
    pub(super) unopened: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Judged requests that were under way when it was ended before its time.
    pub(super) unfinished: u64,
    /// 0 to 1.
    pub(super) busy: f64,
    /// Nanoseconds.
    pub(super) cpu: u64,
    pub(super) is_realtime: bool,
}

pub(super) struct Generator<'l> {
    pub(super) load: &'l Load,
    pub(super) targets: Arc<[Target]>,
    pub(super) watch: &'l Watch,
    pub(super) epoll: OwnedFd,
    pub(super) events: Vec<epoll::Event>,
    pub(super) buffer: Vec<u8>,
    arrivals: Option<Arrivals>,
    pub(super) next: Option<Arrival>,
    /// Of a closed loop, which has no schedule.
    pub(super) mix: Mix,
    pub(super) rng: StdRng,
    pub(super) connections: Vec<Connection>,
    /// Rows to take again.
    free: Vec<usize>,
    /// Connections that may take a request, the longest idle first: all of them are used. Some have ended since.
    pub(super) idle: VecDeque<(usize, u32)>,
    /// Requests that found every connection busy.
    pub(super) waiting: VecDeque<Request>,
    /// Requests under way by due time, some of which have ended; all have the same timeout.
    pub(super) deadlines: VecDeque<Deadline>,
    /// Connections that had more to read than was read at once.
    pub(super) unread: VecDeque<(usize, u32, epoll::EventFlags)>,
    /// Kept for its memory.
    pub(super) ended: Vec<Ended>,
    pub(super) connections_max: usize,
    pub(super) open: usize,
    pub(super) in_flight: u64,
    pub(super) in_flight_since: Moment,
    /// The warm-up's begin, and that of what is judged.
    pub(super) start: Moment,
    pub(super) judged: Moment,
    /// Nothing is due from here on.
    pub(super) end: Moment,
    pub(super) tallies: Tallies,
    opened: u64,
    /// Connections of the start for which this machine had no descriptor or port.
    unopened: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Judged requests that watchers have not been told of: ended, failed.
    pub(super) untold: (u64, u64),
    /// Nanoseconds in which there was nothing to do.
    pub(super) idled: u64,
    pub(super) naps: Naps,
    is_realtime: bool,
}

impl<'l> Generator<'l> {
    /// Thread `row` of `threads`, pinned to `core`.
    pub(super) fn new(
        load: &'l Load,
        row: usize,
        threads: usize,
        core: Option<usize>,
        watch: &'l Watch,
    ) -> io::Result<Self> {
        let cores = machine::cores().len(); // before it may only run on one of them
        if let Some(core) = core {
            let mut set = CpuSet::new();
            set.set(core);
            sched_setaffinity(None, &set)?;
        }
        // a closed loop has no schedule to keep, and could take the whole core from a server that shares it
        let is_realtime =
            core.is_some() && !matches!(load.pace, Pace::Closed) && take_for_generator(cores, load.is_alone);
        // else the kernel may wake it 50 µs late, to save power
        set_current_timer_slack(NonZeroU64::new(1))?;
        let share = |all: usize| all / threads + usize::from(row < all % threads);
        let mut arrivals = Arrivals::new(load, row, threads);
        let next = arrivals.as_mut().and_then(Iterator::next);
        let connections = share(load.connections).max(1);
        Ok(Self {
            load,
            targets: Arc::clone(&load.targets),
            watch,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            buffer: vec![0; BUFFER],
            arrivals,
            next,
            mix: Mix::new(&load.targets),
            rng: arrivals::rng(load, row),
            connections: (0..connections).map(|_| Connection::new()).collect(),
            free: (0..connections).rev().collect(),
            idle: VecDeque::with_capacity(connections),
            waiting: VecDeque::new(),
            deadlines: VecDeque::with_capacity(1_024),
            unread: VecDeque::new(),
            ended: Vec::new(),
            connections_max: share(load.connections_max).max(connections),
            open: 0,
            in_flight: 0,
            in_flight_since: Moment::default(),
            start: Moment(u64::MAX),
            judged: Moment(u64::MAX),
            end: Moment(u64::MAX),
            tallies: Tallies::new(load),
            opened: 0,
            unopened: 0,
            sent: 0,
            received: 0,
            untold: (0, 0),
            idled: 0,
            naps: Naps::new(is_realtime, clock::now()),
            is_realtime,
        })
    }

    /// Opens the connections of the start and waits for them, until `deadline`; who is refused is asked again with the first requests.
    pub(super) fn open(&mut self, deadline: Moment) -> io::Result<()> {
        if self.load.reconnects {
            return Ok(());
        }
        let wanted = self.connections.len();
        for opened in 0..wanted {
            if let Err(failure) = self.connect(None) {
                // of a server that refuses requests tell; what this machine lacks would stay hidden in fewer connections
                self.unopened = if failure == Failure::Local { (wanted - opened) as u64 } else { 0 };
                break;
            }
        }
        let mut now = clock::now();
        while self.open > self.idle.len() && now < deadline && !self.watch.is_stopped() {
            now = self.poll(now, deadline)?;
        }
        Ok(())
    }

    /// The load itself, from `start`.
    pub(super) fn run(mut self, start: Moment) -> io::Result<Seen> {
        self.start = start;
        self.judged = start + self.load.warm_up;
        self.end = self.judged + self.load.length;
        let mut now = self.poll(clock::now(), start)?;
        while now < start && !self.watch.is_stopped() {
            now = self.poll(now, start)?;
        }
        let (cpu, began) = (clock::thread_cpu(), now);
        (self.idled, self.in_flight_since) = (0, self.judged);
        if matches!(self.load.pace, Pace::Closed) {
            for _ in 0..self.connections.len() * self.load.protocol.streams() {
                let target = self.mix.draw(&mut self.rng);
                self.begin(now, target, now);
            }
        }
        while !self.has_ended(now) {
            self.catch_up(now);
            now = clock::now();
            self.read_on(now);
            self.open_for_waiting(now);
            now = self.poll(now, self.wake(now))?;
        }
        self.fly(0, now);
        self.tell(1);
        let took = now.since(began).max(1);
        Ok(Seen {
            tallies: self.tallies,
            ended: now,
            opened: self.opened,
            unopened: self.unopened,
            sent: self.sent,
            received: self.received,
            unfinished: if now > self.judged { self.in_flight } else { 0 },
            busy: 1.0 - self.idled as f64 / took as f64,
            cpu: clock::thread_cpu() - cpu,
            is_realtime: self.is_realtime,
        })
    }

    fn has_ended(&self, now: Moment) -> bool {
        let is_over = if self.arrivals.is_some() { self.next.is_none() } else { now >= self.end };
        self.watch.is_stopped() || (is_over && now >= self.end && self.in_flight == 0)
    }

    pub(super) fn moment(&self, arrival: Arrival) -> Moment {
        Moment(self.start.0.saturating_add(arrival.due))
    }

    /// Begins what is due, and gives up what took too long.
    pub(super) fn catch_up(&mut self, mut now: Moment) {
        while let Some(arrival) = self.next {
            let due = self.moment(arrival);
            if due > now {
                break;
            }
            self.next = self.arrivals.as_mut().and_then(Iterator::next);
            self.begin(due, arrival.target, now);
            now = clock::now();
        }
        while let Some(&(due, row, serial, place)) = self.deadlines.front() {
            let connection = &self.connections[row];
            let is_under_way =
                connection.serial == serial && connection.request_at(place).is_some_and(|it| it.due == due);
            if is_under_way && due + self.load.timeout > now {
                break;
            }
            self.deadlines.pop_front();
            if is_under_way && matches!(self.connections[row].state, State::Shared) {
                self.expire(row, place, now);
            } else if is_under_way {
                self.settle(row, None, Some(Failure::Timeout), false, now);
            }
        }
        while self.waiting.front().is_some_and(|request| request.due + self.load.timeout <= now) {
            let request = self.waiting.pop_front().expect("there is one");
            self.record(request, None, Some(Failure::Unsent), now);
        }
    }

    /// Begins a request that is due.
    fn begin(&mut self, due: Moment, target: u32, now: Moment) {
        let request = Request { target, due, begun: now };
        self.fly(1, now);
        if due >= self.judged {
            self.tallies.lag.saturating_record(now.since(due));
        }
        while let Some((row, serial)) = self.idle.pop_front() {
            let connection = &mut self.connections[row];
            if connection.serial != serial {
                continue;
            }
            if let Some(mux) = &mut connection.mux {
                mux.is_listed = false;
            }
            if connection.has_room() {
                return self.send(row, request, now);
            }
        }
        let may_open = self.open < self.connections_max;
        if may_open && self.waiting.is_empty() && now.since(due) < HURRY {
            return self.connect_for(request, now);
        }
        if !may_open && due >= self.judged {
            self.tallies.waited += 1;
        }
        self.waiting.push_back(request);
    }

    /// Opens a connection for the request that waits for the longest time, if there may be one more; only when nothing is due.
    fn open_for_waiting(&mut self, now: Moment) {
        if self.open < self.connections_max
            && let Some(request) = self.waiting.pop_front()
        {
            self.connect_for(Request { begun: now, ..request }, now);
        }
    }

    fn connect_for(&mut self, request: Request, now: Moment) {
        if let Err(failure) = self.connect(Some(request)) {
            self.record(request, None, Some(failure), now);
        }
    }

    /// Enters a deadline; one that has waited for its connection stands before those that were due after it.
    pub(super) fn enter(&mut self, due: Moment, row: usize, serial: u32, place: (usize, u32)) {
        let later = self.deadlines.iter().rev().take_while(|(other, ..)| *other > due).count();
        self.deadlines.insert(self.deadlines.len() - later, (due, row, serial, place));
    }

    fn send(&mut self, row: usize, request: Request, now: Moment) {
        if self.connections[row].mux.is_some() {
            return self.send_shared(row, request, now);
        }
        let serial = self.connections[row].serial;
        self.enter(request.due, row, serial, (0, 0));
        let connection = &mut self.connections[row];
        let target = &self.targets[request.target as usize];
        if let Came::Ended { status, failure, keeps } = connection.begin(request, target, &mut self.sent) {
            self.settle(row, status, failure, keeps, now);
        }
    }

    /// Opens a connection, for `request` if there is one.
    fn connect(&mut self, request: Option<Request>) -> Result<(), Failure> {
        let link = Link::connect(self.load.address, self.load.tls.as_ref())?;
        let row = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::new());
            self.connections.len() - 1
        });
        self.connections[row].take(link, request);
        let serial = self.connections[row].serial;
        let link = self.connections[row].link.as_ref().expect("it was just taken");
        let data = epoll::EventData::new_u64((row as u64) << 32 | u64::from(serial));
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        if epoll::add(&self.epoll, link.descriptor(), data, flags).is_err() {
            self.connections[row].free();
            self.free.push(row);
            return Err(Failure::Local);
        }
        (self.open, self.opened) = (self.open + 1, self.opened + 1);
        if let Some(request) = request {
            self.enter(request.due, row, serial, (0, 0));
        }
        Ok(())
    }

    pub(super) fn on_ready(&mut self, row: usize, serial: u32, flags: epoll::EventFlags, now: Moment) {
        if self.connections[row].serial != serial {
            return;
        }
        if self.connections[row].mux.is_some() {
            return self.on_shared(row, flags, now);
        }
        if let State::Connecting(request) = self.connections[row].state {
            match self.connections[row].connected(now) {
                Ok((Readiness::Later, _)) => {}
                Ok((Readiness::Ready, shaken)) => {
                    self.count(shaken);
                    if let Some(streams) = self.streams() {
                        return self.share(row, streams, now);
                    }
                    self.begin_on(row, request, now);
                }
                Err(failure) => self.settle(row, None, Some(failure), false, now),
            }
            return;
        }
        if flags.contains(epoll::EventFlags::OUT)
            && let State::Busy(request, _) = self.connections[row].state
        {
            let target = &self.targets[request.target as usize];
            if let Came::Ended { status, failure, keeps } = self.connections[row].push(target, &mut self.sent) {
                return self.settle(row, status, failure, keeps, now);
            }
        }
        let ends = flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR);
        if ends || flags.contains(epoll::EventFlags::IN) {
            let target = self.connections[row].request().map(|request| &self.targets[request.target as usize]);
            match self.connections[row].pull(target, ends, &mut self.buffer, &mut self.received) {
                Came::Nothing => {}
                Came::Ended { status, failure, keeps } => {
                    self.settle(row, status, failure, keeps && !ends, clock::now());
                }
                Came::Gone => self.close(row, now),
                Came::Unread => self.unread.push_back((row, serial, flags)),
            }
        }
    }

    /// A connection may be used, for the request that has waited for it or the next one.
    fn begin_on(&mut self, row: usize, request: Option<Request>, now: Moment) {
        let Some(request) = request else { return self.release(row, now) };
        let target = &self.targets[request.target as usize];
        if let Came::Ended { status, failure, keeps } = self.connections[row].begin(request, target, &mut self.sent) {
            self.settle(row, status, failure, keeps, now);
        }
    }

    /// The request under way on a connection has ended, if there is one; so has the connection, unless it is kept.
    fn settle(&mut self, row: usize, status: Option<u16>, failure: Option<Failure>, keeps: bool, now: Moment) {
        if let Some(request) = self.connections[row].request() {
            self.record(request, status, failure, now);
        }
        if keeps && !self.load.reconnects {
            self.release(row, now);
        } else {
            self.close(row, now);
        }
    }

    /// A connection may take a request.
    fn release(&mut self, row: usize, now: Moment) {
        let is_closed_loop = matches!(self.load.pace, Pace::Closed) && self.start.0 != u64::MAX;
        if let Some(mut request) = self.waiting.pop_front() {
            request.begun = now;
            self.send(row, request, now);
        } else if is_closed_loop && now < self.end && now >= self.start {
            self.fly(1, now);
            let target = self.mix.draw(&mut self.rng);
            self.send(row, Request { target, due: now, begun: now }, now);
        } else {
            let connection = &mut self.connections[row];
            connection.state = State::Idle;
            self.idle.push_back((row, connection.serial));
        }
    }

    pub(super) fn close(&mut self, row: usize, now: Moment) {
        self.connections[row].free();
        self.free.push(row);
        self.open -= 1;
        // for who waits another one is opened when nothing is due
        if matches!(self.load.pace, Pace::Closed) && now >= self.start && now < self.end {
            self.fly(1, now);
            let target = self.mix.draw(&mut self.rng);
            self.connect_for(Request { target, due: now, begun: now }, now);
        }
    }
}
