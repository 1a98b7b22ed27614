//! Which generation is in use on this core, and how the next one comes: prepared first, then, when all cores are prepared, adopted.
//!
//! Preparing is all that can fail (a new listener's socket has to be registered), and changes nothing. Adopting is one step on the
//! worker's own thread, between two tasks: no request sees half of it.

use super::door::{At, Door, DoorKey};
use super::generation::Generation;
use super::shared::Shared;
use super::state::Worker;
use super::{Command, Reason, accept, cutting, spawn};
use crate::limits::HANDOVER_IDLE;
use crate::net::clock;
use crate::net::driver;
use crate::net::guarded::guarded;
use crate::net::listener::Listener;
use crate::observe::access_log::LogSender;
use crate::observe::recorder::Recorder;
use crate::units::{Instant, ListenerId};
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// What a worker gets to prepare for.
pub struct Preparation {
    /// The next configuration.
    pub shared: Arc<Shared>,
    /// The sockets of doors that are new.
    pub sockets: Vec<(DoorKey, OwnedFd)>,
    /// Where access log records go.
    pub log: LogTo,
    /// Who hears how it went.
    pub done: UnboundedSender<io::Result<()>>,
}

/// Where a generation's access log records go.
pub enum LogTo {
    /// Nowhere.
    Nowhere,
    /// Where those of the one before go.
    Same,
    /// Somewhere else.
    To(LogSender),
}

/// A generation that can be adopted.
struct Prepared {
    shared: Arc<Shared>,
    doors: Vec<(DoorKey, Rc<Listener>)>,
    log: LogTo,
}

/// The generations of one worker.
pub(super) struct Succession {
    worker: Rc<Worker>,
    current: RefCell<Rc<Generation>>,
    /// Those before it that something in flight still uses.
    old: RefCell<Vec<Weak<Generation>>>,
    doors: RefCell<Vec<Rc<Door>>>,
    prepared: RefCell<Option<Prepared>>,
    /// Doors so far.
    tags: Cell<u16>,
}

impl Succession {
    /// The first generation of this worker, with a door for each listener in `sockets`, which are in the order of the configuration's.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        shared: &Arc<Shared>,
        recorder: Recorder,
        log: Option<LogSender>,
        listeners: Vec<Rc<Listener>>,
    ) -> Rc<Self> {
        let first = Generation::new(worker, shared, recorder, log.map(Rc::new), None, clock::now());
        let succession = Rc::new(Self {
            worker: Rc::clone(worker),
            current: RefCell::new(Rc::clone(&first)),
            old: RefCell::default(),
            doors: RefCell::default(),
            prepared: RefCell::default(),
            tags: Cell::new(0),
        });
        for (row, listener) in listeners.into_iter().enumerate() {
            let at = At { generation: Rc::clone(&first), row: ListenerId::from_index(row) };
            succession.open(DoorKey::of(at.config()), listener, at);
        }
        succession
    }

    /// The one in use.
    pub(super) fn current(&self) -> Rc<Generation> {
        Rc::clone(&self.current.borrow())
    }

    fn open(&self, key: DoorKey, listener: Rc<Listener>, at: At) {
        self.tags.set(self.tags.get().wrapping_add(1));
        let door = Door::new(key, self.tags.get(), listener, at);
        self.doors.borrow_mut().push(Rc::clone(&door));
        let worker = Rc::clone(&self.worker);
        driver::spawn(async move {
            if guarded(accept::accept(Rc::clone(&door))).await.is_none() {
                worker.life.panic_caught();
            }
            if !door.is_closed() {
                worker.on_task_over(Reason::Deaf);
            }
        });
    }

    /// Carries out what the control thread says.
    pub(super) fn on_command(&self, command: Command) {
        match command {
            Command::Health { of, cluster, endpoint, healthy } => {
                let current = self.current();
                // one that comes meanwhile has heard of it in another way
                if current.shared.config.clusters.get(cluster.index()).is_some_and(|own| Arc::ptr_eq(own, &of)) {
                    let now = clock::now();
                    current.cluster(cluster).borrow_mut().set_health(endpoint, healthy, now);
                    current.publish_endpoints_of(now, |id| id == cluster);
                }
            }
            Command::Endpoints(shared) => self.follow(shared),
            Command::Prepare(preparation) => self.prepare(*preparation),
            Command::Adopt { generation, done } => {
                self.adopt(generation);
                // whoever waits for it may have given up
                let _ = done.send(self.worker.life.worker());
            }
            Command::Abandon => drop(self.prepared.take()),
            Command::Drain => self.drain(&[]),
            Command::HandOver(doors) => self.hand_over(&doors),
            Command::Cut => spawn(&self.worker, Reason::Panicked, cutting::cut(Rc::clone(&self.worker))),
            #[cfg(test)]
            Command::Fail(way) => way.fail(),
        }
    }

    /// Closes all doors but these.
    fn drain(&self, kept: &[DoorKey]) {
        self.doors.borrow().iter().filter(|door| !kept.contains(&door.key)).for_each(accept::close);
        self.worker.draining.set(true);
        if self.worker.idle_until.get() <= clock::now() {
            self.worker.timers.hurry_idle();
        }
        self.worker.end_tunnels(self.current().shared.config.gateway.drain_timeout);
        self.worker.look_for_end();
    }

    /// Most clients send another request before an idle connection has to end, and are told with its response; only then nobody finds a
    /// connection closed that he has just used.
    fn hand_over(&self, kept: &[DoorKey]) {
        let drain_timeout = self.current().shared.config.gateway.drain_timeout;
        let until = clock::now() + HANDOVER_IDLE.min(drain_timeout / 2);
        self.worker.idle_until.set(until);
        self.drain(kept);
        let worker = Rc::clone(&self.worker);
        driver::spawn(async move {
            worker.timers.watch().sleep_until(until).await;
            worker.timers.hurry_idle();
        });
    }

    fn prepare(&self, preparation: Preparation) {
        let Preparation { shared, sockets, log, done } = preparation;
        let register = |(key, socket)| Ok((key, Rc::new(Listener::new(socket)?)));
        let doors = sockets.into_iter().map(register).collect::<io::Result<Vec<_>>>();
        let prepared = doors.map(|doors| *self.prepared.borrow_mut() = Some(Prepared { shared, doors, log }));
        let _ = done.send(prepared);
    }

    /// Takes the generation of this number into use, if that is the one that was prepared.
    fn adopt(&self, number: u64) {
        let Some(Prepared { shared, doors, log }) = self.prepared.take().filter(|it| it.shared.number == number) else {
            return;
        };
        let (before, now) = (self.current(), clock::now());
        let log = match log {
            LogTo::Nowhere => None,
            LogTo::Same => before.log.clone(),
            LogTo::To(sender) => Some(Rc::new(sender)),
        };
        let next = self.replace(&before, &shared, log, now);
        self.move_doors(&next, doors);
        // what was there before is told of by its new names at once
        next.beat(now);
        self.publish_use();
    }

    /// Takes up other endpoints of some clusters, if nothing else differs: a step in which nothing can fail. A configuration that was
    /// prepared meanwhile has these endpoints itself.
    fn follow(&self, shared: Arc<Shared>) {
        let (before, now) = (self.current(), clock::now());
        if !before.shared.has_same_rows(&shared) || before.shared.number >= shared.number {
            return;
        }
        let next = self.replace(&before, &shared, before.log.clone(), now);
        self.move_doors(&next, Vec::new());
        next.publish_endpoints_of(now, |cluster| !next.shares_cluster(&before, cluster));
    }

    fn replace(
        &self,
        before: &Rc<Generation>,
        shared: &Arc<Shared>,
        log: Option<Rc<LogSender>>,
        now: Instant,
    ) -> Rc<Generation> {
        let recorder = Recorder::under(&self.worker.life, Arc::clone(&shared.stats));
        let next = Generation::new(&self.worker, shared, recorder, log, Some(before), now);
        *self.current.borrow_mut() = Rc::clone(&next);
        before.retire_for(&next);
        let mut old = self.old.borrow_mut();
        old.retain(|old| old.strong_count() > 0);
        old.push(Rc::downgrade(before));
        next
    }

    /// Moves the doors whose addresses stay, opens those that are new, and closes the others.
    fn move_doors(&self, next: &Rc<Generation>, new: Vec<(DoorKey, Rc<Listener>)>) {
        let config = &next.shared.config;
        let at = |key: &DoorKey| {
            let row = config.listeners.iter().position(|listener| DoorKey::of(listener) == *key)?;
            Some(At { generation: Rc::clone(next), row: ListenerId::from_index(row) })
        };
        let doors = std::mem::take(&mut *self.doors.borrow_mut());
        let is_new = |key: &DoorKey| new.iter().any(|(other, _)| other == key);
        for door in doors {
            match at(&door.key).filter(|_| !is_new(&door.key)) {
                Some(at) => {
                    door.move_to(at);
                    self.doors.borrow_mut().push(door);
                }
                None => {
                    accept::close(&door);
                    door.close();
                }
            }
        }
        for (key, listener) in new {
            if let Some(at) = at(&key) {
                self.open(key, listener, at);
            }
        }
    }

    /// Shows that the loop turns, and does what is due now and then.
    pub(super) fn beat(&self, now: Instant) {
        self.worker.beat(now);
        self.worker.obey_notice();
        self.current().beat(now);
        self.publish_use();
    }

    /// Says what is in flight under each generation.
    fn publish_use(&self) {
        self.current.borrow().publish_use();
        let mut old = self.old.borrow_mut();
        old.retain(|old| old.strong_count() > 0);
        old.iter().filter_map(Weak::upgrade).for_each(|old| old.publish_use());
    }
}
