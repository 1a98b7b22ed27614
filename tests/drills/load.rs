//! The open-loop load: requests begin when they are due, however long those before them take.
//!
//! A thread with its own tokio runtime, so that a script may block. Connections are kept and used in turn, so that every worker of a
//! gateway has its share; when all wait for an answer another one is opened, as new clients would. Latency counts from the moment
//! at which a request was due, also when the load itself was late.

use anyhow::anyhow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::Connection;
use crate::clock::{self, Moment};
use crate::traffic::{End, Sample, Traffic};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Connections at once; a client of its own behind each.
const CONNECTIONS_MAX: usize = 8_000;
/// How often the load looks for what is due.
const TICK: Duration = Duration::from_millis(1);

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    pub(crate) per_second: u32,
    /// Every so many-th request is a POST; 0 for none.
    pub(crate) post_every: u64,
    /// Connections from the beginning.
    pub(crate) connections: usize,
    /// Ends after so many requests; else when told to.
    pub(crate) requests: Option<u64>,
}

/// A load that runs. Dropping it stops it.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<Traffic>>>,
}

impl Load {
    /// Begins.
    pub(crate) fn start(plan: Plan) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, drive(plan, &stopped))
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Sends no more, and returns when everything that was sent has ended.
    pub(crate) fn stop(self) -> anyhow::Result<Traffic> {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Returns when all requests of the plan have ended.
    pub(crate) fn finish(mut self) -> anyhow::Result<Traffic> {
        let thread = self.thread.take().ok_or_else(|| anyhow!("the load has ended"))?;
        thread.join().map_err(|_| anyhow!("the load panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connections of one load.
struct Pool {
    target: SocketAddr,
    idle: RefCell<VecDeque<Connection>>,
    /// Requests under way, each on a connection.
    busy: Cell<usize>,
}

async fn drive(plan: Plan, stop: &AtomicBool) -> anyhow::Result<Traffic> {
    let pool = Rc::new(Pool::open(plan.target, plan.connections).await);
    let mut under_way = JoinSet::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (begin, mut sent, mut samples) = (clock::now(), 0_u64, Vec::new());
    let gap_us = 1_000_000.0 / f64::from(plan.per_second);
    let due = |number: u64| begin + Duration::from_secs_f64(number as f64 * gap_us / 1e6);
    while !stop.load(Ordering::Relaxed) && plan.requests.is_none_or(|requests| sent < requests) {
        ticks.tick().await;
        let now = clock::now();
        while due(sent) <= now && plan.requests.is_none_or(|requests| sent < requests) {
            let is_post = plan.post_every > 0 && sent % plan.post_every == 0;
            under_way.spawn_local(one_request(Rc::clone(&pool), is_post, due(sent)));
            sent += 1;
        }
        while let Some(sample) = under_way.try_join_next() {
            samples.push(sample?);
        }
    }
    while let Some(sample) = under_way.join_next().await {
        samples.push(sample?);
    }
    samples.sort_unstable_by_key(|sample| sample.id);
    Ok(Traffic(samples))
}

async fn one_request(pool: Rc<Pool>, is_post: bool, due: Moment) -> Sample {
    // unlike any other request of this run, whatever the load
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let late = clock::now().saturating_sub(due);
    let end = timeout(PATIENCE, pool.ask(id, is_post)).await.unwrap_or(End::TimedOut);
    Sample { id, is_post, due, late, latency: clock::now().saturating_sub(due), end }
}

impl Pool {
    async fn open(target: SocketAddr, connections: usize) -> Self {
        let mut idle = VecDeque::with_capacity(connections);
        for _ in 0..connections {
            // those that fail are opened again by the first requests, and count there
            idle.extend(Connection::open(target).await.ok());
        }
        Self { target, idle: RefCell::new(idle), busy: Cell::new(0) }
    }

    async fn ask(&self, id: u64, is_post: bool) -> End {
        if self.busy.get() >= CONNECTIONS_MAX {
            return End::NotSent;
        }
        let _busy = Busy::begin(&self.busy);
        let connection = match self.checkout() {
            Some(connection) => connection,
            None => match Connection::open(self.target).await {
                Ok(connection) => connection,
                Err(_) => return End::NotConnected,
            },
        };
        let (end, connection) = connection.ask(id, is_post).await;
        self.idle.borrow_mut().extend(connection);
        end
    }

    /// The one that has waited longest, of those that the gateway has not closed.
    fn checkout(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop_front()).find(Connection::is_usable)
    }
}

/// A request under way, also when it is given up.
struct Busy<'a>(&'a Cell<usize>);

impl<'a> Busy<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
