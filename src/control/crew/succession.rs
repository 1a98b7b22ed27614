//! How a crew takes the next configuration into use: prepared by every worker, or by none.
//!
//! A worker that ends meanwhile counts as prepared: whoever takes its place begins with what is in use then. One that stands still does
//! not: it cannot be replaced as fast as somebody waits for an answer, and the others must not go on without it.

use super::{Crew, Post};
use crate::net::{clock, listener, mailbox};
use crate::observe::access_log::AccessLogThread;
use crate::worker::{Command, DoorKey, LogTo, Preparation, Reason, Shared};
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How long workers may take to prepare, all together, and to adopt: many of their beats.
const PATIENCE: Duration = Duration::from_secs(4);

/// How often a look is taken while they are waited for.
const LOOK: Duration = Duration::from_millis(100);

/// What comes.
pub(in crate::control) struct Next {
    pub(in crate::control) shared: Arc<Shared>,
    pub(in crate::control) log: Option<Arc<AccessLogThread>>,
    /// Of doors that are new: one socket a worker.
    pub(in crate::control) sockets: Vec<(DoorKey, Vec<OwnedFd>)>,
}

/// Why it does not.
#[derive(Debug, thiserror::Error)]
pub(in crate::control) enum NotPrepared {
    /// A worker stands still.
    #[error("worker {0} does not answer; try again when it has been replaced")]
    Silent(usize),
    /// Some of them do.
    #[error("not all workers have answered in time; try again when those that stand still have been replaced")]
    Late,
    /// A worker lacks something.
    #[error("a worker cannot prepare: {0}")]
    Lacking(#[from] io::Error),
}

impl Crew {
    /// Has every worker prepare for what comes.
    ///
    /// # Errors
    /// One of them cannot. Then none of them has anything of it.
    pub(in crate::control) async fn prepare(&mut self, next: &Next) -> Result<(), NotPrepared> {
        let prepared = match self.ask_to_prepare(next) {
            Ok(mut answers) => {
                let all = async {
                    while let Some(prepared) = answers.recv().await {
                        prepared?;
                    }
                    Ok(())
                };
                self.wait_for(all, |_| None).await.unwrap_or(Err(NotPrepared::Late))
            }
            Err(error) => Err(error),
        };
        if prepared.is_err() {
            self.tell(|| Command::Abandon);
        }
        prepared
    }

    fn ask_to_prepare(&self, next: &Next) -> Result<UnboundedReceiver<io::Result<()>>, NotPrepared> {
        let (done, answers) = unbounded_channel();
        let is_same = |log: &Arc<AccessLogThread>| self.log.as_ref().is_some_and(|own| Arc::ptr_eq(own, log));
        for post in self.posts.iter().filter(|post| post.is_held()) {
            let socket = |(key, sockets): &(DoorKey, Vec<OwnedFd>)| {
                listener::duplicate(&sockets[post.id.index()]).map(|socket| (key.clone(), socket))
            };
            let log = match &next.log {
                None => LogTo::Nowhere,
                Some(log) if is_same(log) => LogTo::Same,
                Some(log) => LogTo::To(log.sender()),
            };
            let sockets = next.sockets.iter().map(socket).collect::<io::Result<_>>()?;
            let preparation = Preparation { shared: Arc::clone(&next.shared), sockets, log, done: done.clone() };
            if post.send(Command::Prepare(Box::new(preparation))) == mailbox::Sent::Full {
                return Err(NotPrepared::Silent(post.id.index()));
            }
        }
        Ok(answers)
    }

    /// Has all workers go on with other endpoints, in which nothing can fail. False: one of them does not read what it is told; then it is to be
    /// told again.
    pub(in crate::control) fn follow(&mut self, shared: &Arc<Shared>) -> bool {
        self.shared = Arc::clone(shared);
        let leavers = self.leavers.iter().map(|leaver| &leaver.holder);
        let holders = self.posts.iter().filter_map(|post| post.holder.as_ref()).chain(leavers);
        let told = holders.map(|holder| holder.mailbox.send(Command::Endpoints(Arc::clone(shared))));
        // all are told, whoever is not
        told.filter(|sent| *sent == mailbox::Sent::Full).count() == 0
    }

    /// Takes into use what all workers have prepared, and waits until they have done so; whoever has not by then does it later.
    pub(in crate::control) async fn adopt(&mut self, Next { shared, log, sockets }: Next) {
        let mut sockets: Vec<(DoorKey, std::vec::IntoIter<OwnedFd>)> =
            sockets.into_iter().map(|(key, sockets)| (key, sockets.into_iter())).collect();
        for post in &mut self.posts {
            let mut kept = std::mem::take(&mut post.sockets);
            for key in shared.config.listeners.iter().map(DoorKey::of) {
                let new = sockets.iter_mut().find(|(other, _)| *other == key).and_then(|(_, sockets)| sockets.next());
                let old = || Some(kept.swap_remove(kept.iter().position(|(other, _)| *other == key)?).1);
                if let Some(socket) = new.or_else(old) {
                    post.sockets.push((key, socket));
                }
            }
        }
        (self.shared, self.log) = (shared, log);
        let (done, mut answers) = unbounded_channel();
        let generation = self.shared.number;
        let mut waiting = Vec::new();
        for post in &self.posts {
            let told = post.send(Command::Adopt { generation, done: done.clone() });
            if let (mailbox::Sent::Full, Some(holder)) = (told, &post.holder) {
                // it would go on under a configuration that nobody knows of any more; whoever takes its place does not
                holder.notice.give(Reason::Stalled);
            }
            if post.is_held() {
                waiting.push(post.id);
            }
        }
        drop(done);
        // until each has answered, or ended; one that retires may never read its mailbox again
        let waiting = RefCell::new(waiting);
        let all = async {
            while let Some(id) = answers.recv().await {
                waiting.borrow_mut().retain(|other| *other != id);
            }
        };
        let is_over = |crew: &Self| waiting.borrow().iter().all(|id| !crew.posts[id.index()].is_held()).then_some(());
        if self.wait_for(all, is_over).await.is_none() {
            tracing::warn!("not all workers use generation {generation} yet: one of them stands still");
        }
    }

    /// Waits for all workers, as long as there is patience; `None`: some of them have not answered. `is_over`: there is nothing to wait for
    /// any more. Who waits is not away: what stands still meanwhile does so for the next look too.
    async fn wait_for<T>(&mut self, all: impl Future<Output = T>, is_over: impl Fn(&Self) -> Option<T>) -> Option<T> {
        let (mut all, mut look) = (pin!(all), interval(LOOK));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let patience = sleep(PATIENCE);
        let mut patience = pin!(patience);
        loop {
            tokio::select! {
                biased;
                done = &mut all => return Some(done),
                () = &mut patience => return None,
                _ = look.tick() => {
                    self.on_look(clock::now());
                    if let Some(over) = is_over(self) {
                        return Some(over);
                    }
                }
            }
        }
    }
}

impl Post {
    fn send(&self, command: Command) -> mailbox::Sent {
        self.holder.as_ref().map_or(mailbox::Sent::Gone, |holder| holder.mailbox.send(command))
    }
}
