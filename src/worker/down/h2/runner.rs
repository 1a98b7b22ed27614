//! Runners: tasks that serve streams, one after the other.
//!
//! What it takes to serve a request is some kilobytes of a task's state. A runner has them once, and waits in the worker's stock between two
//! streams; the stock shrinks with the beat, as that of blocks does.

use crate::error::{ProxyError, Rule};
use crate::http::Version;
use crate::http::reply::{self, ReplyTo};
use crate::net::block::Block;
use crate::net::guarded::guarded;
use crate::net::lane::Lane;
use crate::net::stream::Stream;
use crate::net::{clock, driver};
use crate::units::{Instant, ListenerId};
use crate::worker::client::Client;
use crate::worker::discard::Served;
use crate::worker::exchange::{self, Request};
use crate::worker::generation::{Generation, Pinned};
use crate::worker::greeting::SessionFacts;
use crate::worker::inbound::Inbound;
use crate::worker::kept::Kept;
use crate::worker::record::Record;
use crate::worker::state::Worker;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::Shutdown;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Runners that a worker keeps, at most: some four kilobytes each.
const RUNNERS_KEPT: usize = 256;

/// A request of a stream.
pub(in crate::worker) struct Work {
    pub(super) client: Rc<Client>,
    pub(super) session: Option<Rc<SessionFacts>>,
    pub(super) pinned: Pinned,
    pub(super) listener: ListenerId,
    /// Its head; or why that is not taken.
    pub(super) head: Result<Box<Kept>, (ProxyError, Option<Rule>)>,
    /// The head's bytes, which were taken; or what is known of a head that is refused.
    pub(super) inbox: Block,
    pub(super) at: Instant,
}

/// See the module.
pub(in crate::worker) struct Runner {
    pub(super) lane: Rc<Lane>,
    work: RefCell<Option<Work>>,
    waker: RefCell<Option<Waker>>,
    is_dismissed: Cell<bool>,
    /// The connection that gave it its work is gone.
    is_orphan: Cell<bool>,
}

impl Runner {
    /// Has it serve a stream, for which its lane was begun.
    pub(super) fn give(&self, work: Work) {
        *self.work.borrow_mut() = Some(work);
        self.wake();
    }

    fn dismiss(&self) {
        self.is_dismissed.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// The next request; `None`: it is not needed any more.
    async fn next(&self) -> Option<Work> {
        poll_fn(|cx| {
            if let Some(work) = self.work.borrow_mut().take() {
                return Poll::Ready(Some(work));
            }
            if self.is_dismissed.get() {
                return Poll::Ready(None);
            }
            let mut waker = self.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|set| set.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    async fn run(self: &Rc<Self>, worker: &Worker) {
        let stream = Stream::of_lane(&self.lane);
        while let Some(work) = self.next().await {
            serve(&stream, work).await;
            self.lane.finish();
            if self.is_orphan.replace(false) {
                self.come_home(worker);
            }
        }
    }

    /// Its connection is gone. It comes back by itself when it has ended what it serves.
    pub(super) fn leave(self: Rc<Self>, worker: &Worker) {
        self.lane.leave();
        match self.lane.is_finished() {
            true => self.come_home(worker),
            false => self.is_orphan.set(true),
        }
    }

    fn come_home(self: &Rc<Self>, worker: &Worker) {
        self.lane.take_blocks().into_iter().for_each(|block| worker.put(block));
        worker.put_runner(Rc::clone(self));
    }
}

/// A worker's stock of runners.
#[derive(Default)]
pub(in crate::worker) struct Runners {
    idle: Vec<Rc<Runner>>,
    /// The fewest there were since the last trim: so many were not needed.
    low: usize,
}

impl Runners {
    /// Dismisses half of those that were not needed since the last call.
    pub(in crate::worker) fn trim(&mut self) {
        let surplus = self.low.div_ceil(2).min(self.idle.len());
        self.idle.drain(self.idle.len() - surplus..).for_each(|runner| runner.dismiss());
        self.low = self.idle.len();
    }
}

impl Worker {
    /// A runner that serves nobody.
    pub(super) fn take_runner(self: &Rc<Self>) -> Rc<Runner> {
        let mut runners = self.runners.borrow_mut();
        let idle = runners.idle.pop();
        runners.low = runners.low.min(runners.idle.len());
        drop(runners);
        idle.unwrap_or_else(|| self.make_runner())
    }

    /// Gives it back, when its lane is no stream's any more.
    pub(super) fn put_runner(&self, runner: Rc<Runner>) {
        let mut runners = self.runners.borrow_mut();
        if runners.idle.len() < RUNNERS_KEPT && !runner.is_dismissed.get() {
            return runners.idle.push(runner);
        }
        drop(runners);
        runner.dismiss();
    }

    fn make_runner(self: &Rc<Self>) -> Rc<Runner> {
        let runner = Rc::new(Runner {
            lane: Lane::new(),
            work: RefCell::default(),
            waker: RefCell::default(),
            is_dismissed: Cell::new(false),
            is_orphan: Cell::new(false),
        });
        let (worker, running) = (Rc::clone(self), Rc::clone(&runner));
        driver::spawn(async move {
            if guarded(running.run(&worker)).await.is_none() {
                worker.life.panic_caught();
                // nobody will serve on it: the stream is reset, and the runner is not used again
                running.is_dismissed.set(true);
                running.lane.abandon();
            }
        });
        runner
    }
}

/// Serves one request to its last byte.
async fn serve(stream: &Stream, work: Work) {
    let Work { client, session, pinned, listener, head, mut inbox, at } = work;
    let worker = &*pinned;
    let _counted = Counted::new(worker, listener);
    let watch = worker.timers.watch_client(stream, client.door.tag);
    let session = session.as_deref();
    let inbound = Inbound { worker, client: &client, listener, stream, watch: &watch, session };
    let mut record = Record::new(&inbound, at);
    let served = match head {
        Ok(kept) => {
            let request = Request { kept, arrived: at, now: at };
            exchange::exchange(&inbound, &mut inbox, &mut record, request).await
        }
        Err(refused) => refuse(&inbound, &mut inbox, &mut record, refused),
    };
    let sent = match served.last.is_empty() {
        true => {
            worker.put(served.last);
            Ok(())
        }
        false => inbound.send(served.last, inbound.config().body_timeout).await,
    };
    if sent.is_err() {
        stream.shutdown(Shutdown::Both);
    }
    record.finish(worker, clock::now(), sent);
    worker.put(inbox);
}

/// Counts a stream that is served, until it is dropped.
struct Counted<'w> {
    worker: &'w Generation,
    listener: ListenerId,
}

impl<'w> Counted<'w> {
    fn new(worker: &'w Generation, listener: ListenerId) -> Self {
        worker.recorder.stream_opened(listener);
        Self { worker, listener }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.worker.recorder.stream_closed(self.listener);
    }
}

/// A request whose head is not taken: one reply.
fn refuse(
    inbound: &Inbound<'_>,
    inbox: &mut Block,
    record: &mut Record,
    (error, rule): (ProxyError, Option<Rule>),
) -> Served {
    let worker = inbound.worker;
    let mut last = worker.blocks.borrow_mut().small();
    let now = clock::now();
    let to = ReplyTo {
        version: Version::Http2,
        // RFC 9110 §9.3.2: no content for HEAD, whatever is wrong with the rest of it
        head_only: inbox.unread().starts_with(b"HEAD "),
        close: false,
        date: &worker.date(now),
        server: &inbound.config().server,
        rules: None,
        lines: b"",
        call_type: None,
        errors: &inbound.config().errors,
        id: b"",
    };
    match rule {
        Some(rule) => {
            record.on_malformed(rule);
            reply::malformed(last.vec_mut(), rule, &to);
        }
        None => reply::error(last.vec_mut(), error, &[], &to),
    }
    record.on_unread(inbound, inbox.unread());
    record.on_error(error);
    record.response_bytes = last.unread().len() as u64;
    inbox.clear();
    Served { last, close: false, linger: false, at: now }
}
