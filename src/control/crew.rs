//! The crew: one thread per worker, replaced when it panics or stalls.
//!
//! The listening sockets belong to the crew, the workers get duplicates. So when a worker is gone, connections wait in the kernel's
//! queue for its successor instead of being reset, and no other worker notices.

use crate::limits::STALL;
use crate::net::driver::Step;
use crate::net::{listener, mailbox};
use crate::observe::access_log::LogWriter;
use crate::units::WorkerId;
use crate::worker::{self, Command, Seat, Shared};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Restarts of one worker are this far apart at least, so that one that cannot run does not burn its core.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// All workers.
#[derive(Debug)]
pub(super) struct Crew {
    shared: Arc<Shared>,
    posts: Vec<Post>,
    draining: bool,
}

/// One worker's place, whoever holds it.
#[derive(Debug)]
struct Post {
    id: WorkerId,
    /// One per listener.
    sockets: Vec<OwnedFd>,
    log: Option<Arc<LogWriter>>,
    holder: Option<Holder>,
    /// Replaced while stalled; each ends by itself if it ever goes on.
    stalled: Vec<JoinHandle<()>>,
    restarted: Option<Instant>,
}

#[derive(Debug)]
struct Holder {
    thread: JoinHandle<()>,
    mailbox: mailbox::Sender<Command>,
    retired: Arc<AtomicBool>,
    heartbeat: u64,
    seen: Instant,
}

impl Crew {
    /// Nobody works yet; `sockets[worker][listener]`.
    pub(super) fn new(shared: Arc<Shared>, sockets: Vec<Vec<OwnedFd>>, logs: Vec<Option<Arc<LogWriter>>>) -> Self {
        let posts = sockets
            .into_iter()
            .zip(logs)
            .enumerate()
            .map(|(index, (sockets, log))| Post {
                id: WorkerId::from_index(index),
                sockets,
                log,
                holder: None,
                stalled: Vec::new(),
                restarted: None,
            })
            .collect();
        Self { shared, posts, draining: false }
    }

    /// Starts every worker and waits until each has its event loop.
    ///
    /// # Errors
    /// A thread could not be started, or its driver is refused.
    pub(super) fn start(&mut self) -> io::Result<Vec<Step>> {
        let ready = self.posts.iter_mut().map(|post| post.fill(&self.shared)).collect::<io::Result<Vec<_>>>()?;
        ready.into_iter().map(|ready| ready.recv().unwrap_or_else(|_| Err(io::Error::other("the worker died")))).collect()
    }

    /// Delivers a command to every worker.
    pub(super) fn tell(&self, command: Command) {
        for holder in self.posts.iter().filter_map(|post| post.holder.as_ref()) {
            if holder.mailbox.send(command) == mailbox::Sent::Full {
                tracing::warn!("a worker does not read its mailbox; dropped {command:?}");
            }
        }
    }

    /// Tells every worker to finish what it has and end.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        self.tell(Command::Drain);
    }

    /// True when no worker runs any more.
    pub(super) fn is_done(&self) -> bool {
        self.posts.iter().all(|post| post.holder.as_ref().is_none_or(|holder| holder.thread.is_finished()))
    }

    /// True when every worker runs.
    pub(super) fn is_whole(&self) -> bool {
        self.posts.iter().all(|post| post.holder.as_ref().is_some_and(|holder| !holder.thread.is_finished()))
    }

    /// Replaces who panicked or stalled.
    pub(super) fn look(&mut self, now: Instant) {
        for post in &mut self.posts {
            let Some(holder) = &mut post.holder else { continue };
            let stats = self.shared.stats.worker(post.id);
            let heartbeat = stats.heartbeat();
            if heartbeat != holder.heartbeat {
                (holder.heartbeat, holder.seen) = (heartbeat, now);
            }
            let dead = holder.thread.is_finished();
            let stalled = !dead && now.duration_since(holder.seen) > STALL;
            let paused = post.restarted.is_some_and(|at| now.duration_since(at) < RESTART_PAUSE);
            if self.draining || !(dead || stalled) || paused {
                continue;
            }
            let what = if dead { "panicked" } else { "stalled" };
            tracing::error!("worker {} {what}; it is replaced, the other workers go on", post.id.index());
            stats.on_restart();
            post.replace(now, &self.shared);
        }
    }
}

impl Post {
    fn fill(&mut self, shared: &Arc<Shared>) -> io::Result<std::sync::mpsc::Receiver<io::Result<Step>>> {
        let (sender, mailbox) = mailbox::mailbox()?;
        let retired = Arc::new(AtomicBool::new(false));
        let seat = Seat {
            id: self.id,
            sockets: self.sockets.iter().map(listener::duplicate).collect::<io::Result<_>>()?,
            mailbox,
            log: self.log.clone(),
            retired: Arc::clone(&retired),
        };
        let (ready_sender, ready) = std::sync::mpsc::channel();
        let shared = Arc::clone(shared);
        let heartbeat = shared.stats.worker(self.id).heartbeat();
        let thread = std::thread::Builder::new().name(format!("worker-{}", self.id.index())).spawn(move || {
            worker::run(seat, &shared, |step| {
                let _ = ready_sender.send(step);
            });
        })?;
        self.holder = Some(Holder { thread, mailbox: sender, retired, heartbeat, seen: Instant::now() });
        Ok(ready)
    }

    fn replace(&mut self, now: Instant, shared: &Arc<Shared>) {
        self.restarted = Some(now);
        if let Some(holder) = self.holder.take() {
            // Relaxed is enough: it is looked at every second by a thread that stands still at the moment
            holder.retired.store(true, Ordering::Relaxed);
            if !holder.thread.is_finished() {
                self.stalled.push(holder.thread);
            }
        }
        self.stalled.retain(|thread| !thread.is_finished());
        if let Err(error) = self.fill(shared) {
            tracing::error!("worker {} cannot be replaced: {error}", self.id.index());
        }
    }
}
