//! The crew: one thread per worker, replaced when it panics or stalls.
//!
//! The listening sockets belong to the crew, the workers get duplicates. So when a worker is gone, connections wait in the kernel's
//! queue for its successor instead of being reset, and no other worker notices.
//!
//! A worker of which a task has panicked gives notice: it finishes the connections that it has while its successor takes the new ones. One
//! that cannot finish them (its ring, timers or mailbox are gone) drops them, so that clients see an end, and ends at once. A worker that
//! has stalled cannot be ended from outside; it is given notice, and does the same if it ever goes on. However a worker ends, it gives back
//! what it had ([`worker::run`]).
//!
//! The next configuration comes in two steps ([`succession`]): every worker prepares, and only when all have done so it is adopted; whoever
//! takes a worker's place meanwhile begins with the one that the crew has.

mod muster;
mod succession;

pub(super) use muster::{NoCrew, reasons};
pub(super) use succession::Next;

use crate::config::Config;
use crate::limits;
use crate::net::driver::Step;
use crate::net::{listener, mailbox};
use crate::observe::access_log::AccessLogThread;
use crate::observe::labels::WorkerState;
use crate::units::{Instant, WorkerId};
use crate::worker::{self, Command, DoorKey, Muster, Notice, Reason, Report, Seat, Shared};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// Restarts of one worker are this far apart at least, so that one that cannot run does not burn its core.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Looks that are further apart than this share of what counts as a stall are a break: they come ten times a second, and a worker beats
/// twice.
const BREAK_SHARE: u32 = 4;

/// How often, and how long, to look whether workers have ended that are told to while a start fails.
const LOOK_FOR_END: Duration = Duration::from_millis(10);
const LOOKS_FOR_END: u32 = 200;
/// Tries to replace a worker of which nothing is said after the first: a minute's.
const QUIET_TRIES: u32 = 60;

/// Workers that have agreed on a step and wait to begin.
pub(super) struct Mustered(Vec<muster::Roll>);

/// All workers.
pub(super) struct Crew {
    shared: Arc<Shared>,
    log: Option<Arc<AccessLogThread>>,
    reports: Sender<(Arc<Config>, Report)>,
    posts: Vec<Post>,
    /// Of the ladder of drivers: all workers are on one.
    step: Step,
    /// Who has been replaced and still finishes what it has.
    leavers: Vec<Leaver>,
    draining: bool,
    /// When they were last looked at.
    looked: Instant,
    /// When looking began again after a break; what workers did before that says nothing.
    back: Instant,
    /// [`limits::STALL`], but for tests.
    stall: Duration,
    /// [`RESTART_PAUSE`], but for tests.
    pause: Duration,
}

/// One worker's place, whoever holds it.
struct Post {
    id: WorkerId,
    /// One per listener, in the order of the configuration.
    sockets: Vec<(DoorKey, OwnedFd)>,
    holder: Option<Holder>,
    /// When a holder was last put here.
    filled: Instant,
    /// Holders in a row that could not begin.
    failures: u32,
}

struct Leaver {
    id: WorkerId,
    holder: Holder,
    /// It was replaced because it stood still.
    stalled: bool,
}

impl Leaver {
    /// Whether there is something to wait for: it works, or at least did so after it had stalled. One that never comes back has nobody who
    /// waits for it.
    fn is_finishing(&self) -> bool {
        let is_back = !self.stalled || self.holder.notice.is_heard();
        is_back && !self.holder.thread.is_finished()
    }
}

struct Holder {
    thread: JoinHandle<()>,
    mailbox: mailbox::Sender<Command>,
    notice: Arc<Notice>,
}

impl Crew {
    /// Nobody works yet; `sockets[worker][listener]`. What workers report goes to `reports`.
    pub(super) fn new(
        shared: Arc<Shared>,
        log: Option<Arc<AccessLogThread>>,
        sockets: Vec<Vec<OwnedFd>>,
        reports: Sender<(Arc<Config>, Report)>,
    ) -> Self {
        let post = |(index, sockets): (usize, Vec<OwnedFd>)| Post {
            id: WorkerId::from_index(index),
            sockets: shared.config.listeners.iter().map(DoorKey::of).zip(sockets).collect(),
            holder: None,
            filled: Instant::default(),
            failures: 0,
        };
        let posts = sockets.into_iter().enumerate().map(post).collect();
        Self {
            shared,
            log,
            reports,
            posts,
            step: Step::Multishot,
            leavers: Vec::new(),
            draining: false,
            looked: Instant::default(),
            back: Instant::default(),
            stall: limits::STALL,
            pause: RESTART_PAUSE,
        }
    }

    /// Calls every worker up, on the best step of the ladder that all of them can have. They wait for [`Crew::begin`], and end if what is
    /// returned is dropped.
    ///
    /// # Errors
    /// A thread could not be started, or its driver is refused. Then all of them end.
    pub(super) fn muster(&mut self, now: Instant) -> Result<Mustered, NoCrew> {
        let common = Common { shared: &self.shared, log: self.log.as_deref(), reports: &self.reports };
        let recruit = |post: &mut Post| {
            let (roll, recruit) = muster::roll();
            post.fill(&common, Step::Multishot, recruit, now).map(|()| roll)
        };
        let rolls = self.posts.iter_mut().map(recruit).collect::<io::Result<Vec<_>>>().map_err(NoCrew::Thread)?;
        self.step = muster::agree(&rolls)?;
        Ok(Mustered(rolls))
    }

    /// Has them begin, and waits until each has.
    ///
    /// # Errors
    /// One of them cannot. Then the others have ended, as far as they can within a moment.
    pub(super) fn begin(&mut self, Mustered(rolls): Mustered) -> Result<Step, NoCrew> {
        let begun = muster::begin(&rolls);
        if begun.is_err() {
            self.drain();
            self.tell(|| Command::Cut);
            for _ in 0..LOOKS_FOR_END {
                if self.is_done() {
                    break;
                }
                std::thread::park_timeout(LOOK_FOR_END);
            }
        }
        begun?;
        for post in &self.posts {
            self.shared.stats.set_worker_state(post.id, WorkerState::Running);
        }
        Ok(self.step)
    }

    /// What the workers share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has a worker fail.
    #[cfg(test)]
    pub(super) fn order(&self, worker: usize, way: crate::worker::failing::Way) {
        if let Some(holder) = &self.posts[worker].holder {
            holder.mailbox.send(Command::Fail(way));
        }
    }

    /// Delivers a command to every worker, also to those that were replaced and still finish what they have.
    pub(super) fn tell(&self, command: impl Fn() -> Command) {
        self.tell_each(|_| command());
    }

    /// The same with a command for each.
    fn tell_each(&self, command: impl Fn(WorkerId) -> Command) {
        let holders = self.posts.iter().filter_map(|post| Some((post.id, post.holder.as_ref()?)));
        let leavers = self.leavers.iter().map(|leaver| (leaver.id, &leaver.holder));
        for (id, holder) in holders.chain(leavers) {
            if holder.mailbox.send(command(id)) == mailbox::Sent::Full {
                tracing::warn!("worker {} does not read its mailbox; what it was told is lost", id.index());
            }
        }
    }

    /// Tells every worker to finish what it has and end.
    pub(super) fn drain(&mut self) {
        self.end(|_| Command::Drain);
    }

    /// The same, when another process has taken so many sockets of these doors, the first ones.
    pub(super) fn hand_over(&mut self, taken: &[(DoorKey, usize)]) {
        self.end(|worker| {
            let kept = taken.iter().filter(|(_, sockets)| worker.index() < *sockets);
            Command::HandOver(kept.map(|(key, _)| key.clone()).collect())
        });
    }

    fn end(&mut self, command: impl Fn(WorkerId) -> Command) {
        self.draining = true;
        self.tell_each(command);
        // without these, the kernel would still accept into queues that nobody empties
        self.posts.iter_mut().for_each(|post| post.sockets.clear());
    }

    /// Another descriptor of every listening socket, by door in the order of the configuration.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(super) fn duplicate_sockets(&self) -> io::Result<Vec<(DoorKey, Vec<OwnedFd>)>> {
        let of = |key: DoorKey| {
            let own = self.posts.iter().flat_map(|post| &post.sockets).filter(|(other, _)| *other == key);
            let sockets = own.map(|(_, socket)| listener::duplicate(socket)).collect::<io::Result<_>>()?;
            Ok((key, sockets))
        };
        self.shared.config.listeners.iter().map(DoorKey::of).map(of).collect()
    }

    /// True when no worker runs any more, except for those that have stalled, were replaced, and did not come back.
    pub(super) fn is_done(&self) -> bool {
        let mut holders = self.posts.iter().filter_map(|post| post.holder.as_ref());
        holders.all(|holder| holder.thread.is_finished()) && !self.leavers.iter().any(Leaver::is_finishing)
    }

    /// A control thread that was held up too (SIGSTOP, a frozen container or machine) is in no position to judge, until the workers have
    /// had their time again: what it sees first is how long it was away.
    fn on_look(&mut self, now: Instant) {
        if now.since(std::mem::replace(&mut self.looked, now)) > self.stall / BREAK_SHARE {
            self.back = now;
        }
    }

    /// Replaces who panicked or stalled; in a drain, marks who has ended.
    pub(super) fn look(&mut self, now: Instant) {
        if self.draining {
            for post in self.posts.iter().filter(|post| !post.is_held()) {
                self.shared.stats.set_worker_state(post.id, WorkerState::Stopped);
            }
            return;
        }
        self.leavers.retain(|leaver| !leaver.holder.thread.is_finished());
        self.on_look(now);
        for post in &mut self.posts {
            let stats = &self.shared.stats;
            let held = post.is_held();
            let last_turn = stats.worker(post.id).last_turn.unwrap_or_default().max(post.filled).max(self.back);
            let stalled = held && now.since(last_turn) > self.stall;
            if held && !stalled {
                stats.set_worker_state(post.id, WorkerState::Running);
                continue;
            }
            stats.set_worker_state(post.id, if held { WorkerState::Stalled } else { WorkerState::Stopped });
            if now.since(post.filled) < self.pause {
                continue;
            }
            if let Some(holder) = post.holder.take() {
                if stalled {
                    holder.notice.give(Reason::Stalled);
                }
                let reason = holder.notice.reason().unwrap_or(Reason::Panicked);
                post.failures = if reason.is_of_beginning() { post.failures + 1 } else { 0 };
                if !post.is_quiet() {
                    tracing::error!("worker {} {reason}; it is replaced, the other workers go on", post.id.index());
                }
                self.leavers.push(Leaver { id: post.id, holder, stalled });
            }
            let successor = muster::Successor {
                worker: post.id,
                step: self.step,
                stats: Arc::clone(stats),
                is_quiet: post.failures > 0,
                has_fallen: false,
            };
            let common = Common { shared: &self.shared, log: self.log.as_deref(), reports: &self.reports };
            if let Err(error) = post.fill(&common, self.step, successor, now) {
                post.failures += 1;
                if !post.is_quiet() {
                    tracing::error!("worker {} cannot be replaced: {error}", post.id.index());
                }
            }
        }
    }
}

/// What everybody gets who takes a post.
struct Common<'c> {
    shared: &'c Arc<Shared>,
    log: Option<&'c AccessLogThread>,
    reports: &'c Sender<(Arc<Config>, Report)>,
}

impl Post {
    /// Whether nothing new can be said of it.
    fn is_quiet(&self) -> bool {
        self.failures > 1 && !self.failures.is_multiple_of(QUIET_TRIES)
    }

    /// Somebody is here and has not retired.
    fn is_held(&self) -> bool {
        let works = |holder: &Holder| !holder.thread.is_finished() && !holder.notice.is_given();
        self.holder.as_ref().is_some_and(works)
    }

    fn fill(
        &mut self,
        Common { shared, log, reports }: &Common<'_>,
        from: Step,
        muster: impl Muster + Send + 'static,
        now: Instant,
    ) -> io::Result<()> {
        self.filled = now;
        let (sender, mailbox) = mailbox::mailbox()?;
        let notice = Arc::new(Notice::default());
        let seat = Seat {
            id: self.id,
            sockets: self.sockets.iter().map(|(_, socket)| listener::duplicate(socket)).collect::<io::Result<_>>()?,
            mailbox,
            log: log.map(AccessLogThread::sender),
            reports: Sender::clone(reports),
            notice: Arc::clone(&notice),
        };
        let shared = Arc::clone(shared);
        let id = self.id.index();
        let thread = std::thread::Builder::new().name(format!("worker-{id}")).spawn(move || {
            let left = worker::run(seat, shared, from, muster);
            if left > 0 {
                tracing::warn!(
                    "worker {id} has ended, but {left} of its sockets and operations could not be given back"
                );
            }
        })?;
        self.holder = Some(Holder { thread, mailbox: sender, notice });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
