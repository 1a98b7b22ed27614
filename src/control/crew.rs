//! The crew: one thread per worker, replaced when it panics or stalls.
//!
//! The listening sockets belong to the crew, the workers get duplicates. So when a worker is gone, connections wait in the kernel's
//! queue for its successor instead of being reset, and no other worker notices. A worker that has stalled cannot be ended from
//! outside; it is marked as retired, and ends by itself if it ever goes on.

use crate::limits::STALL;
use crate::net::driver::Step;
use crate::net::{listener, mailbox};
use crate::observe::access_log::AccessLogThread;
use crate::observe::labels::WorkerState;
use crate::units::{Instant, WorkerId};
use crate::worker::{self, Command, Seat, Shared};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

/// Restarts of one worker are this far apart at least, so that one that cannot run does not burn its core.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// All workers.
pub(super) struct Crew {
    shared: Arc<Shared>,
    log: Option<Arc<AccessLogThread>>,
    posts: Vec<Post>,
    draining: bool,
}

/// One worker's place, whoever holds it.
struct Post {
    id: WorkerId,
    /// One per listener.
    sockets: Vec<OwnedFd>,
    holder: Option<Holder>,
    /// When a holder was last put here.
    filled: Instant,
}

struct Holder {
    thread: JoinHandle<()>,
    mailbox: mailbox::Sender<Command>,
    retired: Arc<AtomicBool>,
}

impl Crew {
    /// Nobody works yet; `sockets[worker][listener]`.
    pub(super) fn new(shared: Arc<Shared>, log: Option<Arc<AccessLogThread>>, sockets: Vec<Vec<OwnedFd>>) -> Self {
        let post = |(index, sockets)| Post {
            id: WorkerId::from_index(index),
            sockets,
            holder: None,
            filled: Instant::default(),
        };
        let posts = sockets.into_iter().enumerate().map(post).collect();
        Self { shared, log, posts, draining: false }
    }

    /// Starts every worker and waits until each has its event loop.
    ///
    /// # Errors
    /// A thread could not be started, or its driver is refused.
    pub(super) fn start(&mut self, now: Instant) -> io::Result<Vec<Step>> {
        let (shared, log) = (&self.shared, self.log.as_deref());
        let ready = self.posts.iter_mut().map(|post| post.fill(shared, log, now)).collect::<io::Result<Vec<_>>>()?;
        let steps = ready
            .into_iter()
            .map(|ready| ready.recv().unwrap_or_else(|_| Err(io::Error::other("a worker ended at once"))))
            .collect::<io::Result<Vec<_>>>()?;
        for post in &self.posts {
            self.shared.stats.set_worker_state(post.id, WorkerState::Running);
        }
        Ok(steps)
    }

    /// Delivers a command to every worker.
    pub(super) fn tell(&self, command: Command) {
        for post in &self.posts {
            let sent = post.holder.as_ref().map(|holder| holder.mailbox.send(command));
            if sent == Some(mailbox::Sent::Full) {
                tracing::warn!("worker {} does not read its mailbox; {command:?} is lost", post.id.index());
            }
        }
    }

    /// Tells every worker to finish what it has and end.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.tell(Command::Drain);
        // without these, the kernel would still accept into queues that nobody empties
        self.posts.iter_mut().for_each(|post| post.sockets.clear());
    }

    /// True when no worker runs any more.
    pub(super) fn is_done(&self) -> bool {
        self.posts.iter().all(|post| !post.is_held())
    }

    /// Replaces who panicked or stalled.
    pub(super) fn look(&mut self, now: Instant) {
        if self.draining {
            return;
        }
        for post in &mut self.posts {
            let stats = &self.shared.stats;
            let held = post.is_held();
            let last_turn = stats.worker(post.id).last_turn.unwrap_or_default().max(post.filled);
            let stalled = held && now.since(last_turn) > STALL;
            if held && !stalled {
                stats.set_worker_state(post.id, WorkerState::Running);
                continue;
            }
            stats.set_worker_state(post.id, if held { WorkerState::Stalled } else { WorkerState::Stopped });
            if now.since(post.filled) < RESTART_PAUSE {
                continue;
            }
            let what = if held { "has stalled" } else { "has ended by a panic" };
            tracing::error!("worker {} {what}; it is replaced, the other workers go on", post.id.index());
            stats.count_worker_restart(post.id);
            if let Some(holder) = post.holder.take() {
                // Relaxed: it is looked at now and then, by a thread that stands still at the moment
                holder.retired.store(true, Ordering::Relaxed);
            }
            if let Err(error) = post.fill(&self.shared, self.log.as_deref(), now) {
                tracing::error!("worker {} cannot be replaced: {error}", post.id.index());
            }
        }
    }
}

impl Post {
    fn is_held(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| !holder.thread.is_finished())
    }

    fn fill(
        &mut self,
        shared: &Arc<Shared>,
        log: Option<&AccessLogThread>,
        now: Instant,
    ) -> io::Result<Receiver<io::Result<Step>>> {
        self.filled = now;
        let (sender, mailbox) = mailbox::mailbox()?;
        let retired = Arc::new(AtomicBool::new(false));
        let seat = Seat {
            id: self.id,
            sockets: self.sockets.iter().map(listener::duplicate).collect::<io::Result<_>>()?,
            mailbox,
            log: log.map(AccessLogThread::sender),
            retired: Arc::clone(&retired),
        };
        let (ready_sender, ready) = std::sync::mpsc::channel();
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name(format!("worker-{}", self.id.index())).spawn(move || {
            worker::run(seat, &shared, |step| {
                let _ = ready_sender.send(step);
            });
        })?;
        self.holder = Some(Holder { thread, mailbox: sender, retired });
        Ok(ready)
    }
}
