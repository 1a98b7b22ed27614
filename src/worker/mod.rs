//! One core: an event loop and everything it owns.
//!
//! A worker shares nothing that is written per request: it has its own balancers, pools, buffers, timers, leases and counters, all
//! owned by one thread and reached through plain cells. What it reads from others is immutable ([`Shared`]) or a lease taken now
//! and then from a reservoir. It hears from the control thread through its mailbox only.
//!
//! What follows from the configuration is a [`generation`], over what does not ([`state`]); [`succession`] takes the next one into use, a
//! [`door`] tells who comes in which one it is, and a request ends under the one that it began with.
//!
//! [`accept`] takes connections, [`connection`] runs one of them ([`client`]), [`exchange`] is the straight line of a request, with one file a
//! verb where the verb is long: [`plan`] (route, admit), [`identify`] (identify, authorize; [`believed`] and [`logins`] remember, [`decision`] asks somebody else, [`waiting`] waits), [`opening`] (checkout or connect), [`encoding`] and [`conversation`] (send, listen), [`answer`]
//! (await the head, classify it) and [`relay`] (the body on its way down), or [`tunnel`] instead of it; [`upload`] goes on beside them.

mod accept;
mod answer;
mod attempt;
mod attempts;
mod believed;
mod charges;
mod client;
mod compression;
mod connection;
mod conversation;
mod cors;
mod cutting;
mod decision;
mod discard;
mod door;
mod down;
mod encoding;
mod ending;
mod estate;
mod exchange;
#[cfg(test)]
pub(crate) mod failing;
mod failure;
mod generation;
mod going;
mod greeting;
mod handshakes;
mod hashing;
mod hidden;
mod hop;
mod identify;
mod inbound;
mod incoming;
mod kept;
mod lease;
mod line;
mod locating;
mod log_fields;
mod logins;
mod meaning;
mod mirror;
mod notice;
mod opening;
mod opinions;
mod own_answers;
mod own_lines;
mod own_request;
mod pacing;
mod parting;
mod plan;
mod priority;
mod proxied;
mod record;
mod relay;
mod report;
mod request_id;
mod rewriting;
mod seat;
mod shared;
mod side;
mod signed;
mod state;
mod sticky;
mod succession;
mod tunnel;
mod up;
mod upload;
mod variables;
mod verifier;
mod waiting;

pub use door::DoorKey;
pub use estate::Estate;
pub(crate) use greeting::failure as handshake_failure;
pub use notice::{Notice, Reason};
pub use report::{Refusal, Report, eject_reason, readmit_reason};
pub use shared::Shared;
pub use succession::{LogTo, Preparation};

use crate::config::{self, Config, Driver};
use crate::net::block::Blocks;
use crate::net::clock;
use crate::net::driver::{self, EventLoop, Refused, Step};
use crate::net::guarded::{caught, guarded};
use crate::net::listener::Listener;
use crate::net::mailbox::Mailbox;
use crate::observe::access_log::LogSender;
use crate::observe::labels::DriverRung;
use crate::observe::recorder::Recorder;
use crate::units::{ClusterId, EndpointId, WorkerId};
use state::{Hands, Worker};
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use succession::Succession;
use tokio::sync::mpsc::{Sender, UnboundedSender};

/// How often a worker shows that it lives, reaps idle connections and trims its stock.
const BEAT: Duration = Duration::from_millis(500);

/// What the control thread tells a worker.
pub enum Command {
    /// An active probe has changed its mind about an endpoint.
    Health {
        /// The cluster as it was then: its ids are these.
        of: Arc<config::Cluster>,
        /// The cluster.
        cluster: ClusterId,
        /// The endpoint in it.
        endpoint: EndpointId,
        /// The new state.
        healthy: bool,
    },
    /// Some clusters have other endpoints.
    Endpoints(Arc<Shared>),
    /// Prepare for the next configuration, without a change to anything.
    Prepare(Box<Preparation>),
    /// Take the generation into use that was prepared.
    Adopt {
        /// Its number.
        generation: u64,
        /// Who hears that it is in use on this worker.
        done: UnboundedSender<WorkerId>,
    },
    /// Drop what was prepared: another worker could not.
    Abandon,
    /// Accept no more, finish what is in flight, end.
    Drain,
    /// The same, while another process accepts on these doors: their queues are its own, and idle connections have time to be told.
    HandOver(Vec<DoorKey>),
    /// The drain's time is over: tell clients so where they have no answer yet, log what is in flight, end.
    Cut,
    /// Fail, for the tests of those who notice.
    #[cfg(test)]
    Fail(failing::Way),
}

/// What a worker needs to begin; crosses to its thread.
pub struct Seat {
    /// Which worker.
    pub id: WorkerId,
    /// One listening socket per listener.
    pub sockets: Vec<OwnedFd>,
    /// Where commands arrive.
    pub mailbox: Mailbox<Command>,
    /// Where access log records go.
    pub log: Option<LogSender>,
    /// To the control thread, which tells the operator; with the configuration that the ids are of.
    pub reports: Sender<(Arc<Config>, Report)>,
    /// Given when this worker is to be, or has been, replaced. It then takes no new connections, finishes what it has, and ends; what it
    /// counts is added to what its successor does ([`Recorder`]).
    pub notice: Arc<Notice>,
}

/// What a worker has found on the ladder of drivers.
#[derive(Debug)]
pub struct Climbed {
    /// The step that holds; `None` when none does.
    pub step: Option<Step>,
    /// Those that do not.
    pub refused: Vec<Refused>,
}

/// What a worker is told that has climbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// To begin with what it has.
    Begin,
    /// To climb again, from this step on: another worker got no better one.
    From(Step),
    /// To end: there will be no gateway.
    End,
}

/// Who hears how the beginning of a worker goes.
pub trait Muster {
    /// It has climbed. Without a step it can only be sent to another one, or end.
    fn climbed(&mut self, climbed: Climbed) -> Order;
    /// It has begun, or could not.
    fn begun(&mut self, begun: io::Result<()>);
}

/// Runs a worker on the calling thread until it has drained, or cannot go on; `from` is the best step of the ladder that it may have.
///
/// However it ends, by then it has given back what it had: connections are closed, their slots are free, the ring is gone. Returns how many
/// sockets and operations could not be given back, because the kernel still has them.
pub fn run(seat: Seat, shared: Arc<Shared>, from: Step, mut muster: impl Muster) -> usize {
    if let Some(core) = shared.config.gateway.cores[seat.id.index()] {
        core_affinity::set_for_current(core_affinity::CoreId { id: core });
    }
    let Some(mut event_loop) = climb(shared.config.gateway.driver, from, &mut muster) else {
        seat.notice.give(Reason::Loopless);
        return 0;
    };
    let (step, stock, notice) = (event_loop.step(), event_loop.stock(), Arc::clone(&seat.notice));
    let recorder = shared.stats.recorder(seat.id);
    // to the end of this function, whatever the event loop leaves behind
    let _tenure = recorder.tenure();
    let life_notice = Arc::clone(&notice);
    let life = async move {
        let begun = begin(seat, &shared, recorder, step, stock);
        // the generation that this one is may end long before the worker
        drop(shared);
        let (told, worker) = match begun {
            Ok(worker) => (Ok(()), Some(worker)),
            Err(error) => (Err(error), None),
        };
        if told.is_err() {
            life_notice.give(Reason::Failed);
        }
        muster.begun(told);
        drop(muster);
        if let Some(worker) = worker {
            worker.ended().await;
        }
    };
    if caught(|| event_loop.block_on(life)).is_none() {
        notice.give(Reason::Panicked);
    }
    event_loop.end()
}

/// The event loop to begin with; `None` when there is none, or is to be none. A step that is ordered is tried whatever `driver` says.
fn climb(mut driver: Driver, mut from: Step, muster: &mut impl Muster) -> Option<EventLoop> {
    loop {
        let mut refused = Vec::new();
        let Ok(event_loop) = EventLoop::new(driver, from, &mut refused) else {
            let Order::From(step) = muster.climbed(Climbed { step: None, refused }) else { return None };
            (driver, from) = (Driver::Auto, step);
            continue;
        };
        match muster.climbed(Climbed { step: Some(event_loop.step()), refused }) {
            Order::Begin => return Some(event_loop),
            Order::From(step) => {
                event_loop.end();
                from = step;
            }
            Order::End => {
                event_loop.end();
                return None;
            }
        }
    }
}

fn begin(
    seat: Seat,
    shared: &Arc<Shared>,
    recorder: Recorder,
    step: Step,
    stock: Rc<RefCell<Blocks>>,
) -> io::Result<Rc<Worker>> {
    let Seat { sockets, mailbox, log, reports, notice, .. } = seat;
    let listeners = sockets.into_iter().map(|s| Listener::new(s).map(Rc::new)).collect::<io::Result<Vec<_>>>()?;
    recorder.driver(match step {
        Step::Multishot => DriverRung::IoUringMultishot,
        Step::Defer => DriverRung::IoUringDeferTaskrun,
        Step::Coop => DriverRung::IoUringCoopTaskrun,
        Step::Plain => DriverRung::IoUring,
        Step::Epoll => DriverRung::Epoll,
    });
    let worker = Worker::new(Hands { life: Rc::clone(recorder.life()), reports, notice, stock })?;
    let succession = Succession::begin(&worker, shared, recorder, log, listeners);
    let timers = Rc::clone(&worker.timers);
    spawn(&worker, Reason::Timeless, async move { timers.run().await });
    spawn(&worker, Reason::Panicked, beat(Rc::clone(&worker), Rc::clone(&succession)));
    let told = Rc::clone(&worker);
    spawn(&worker, Reason::Unreachable, async move {
        // one at a time: whoever was told something that it cannot do must still hear of the drain
        let obey = |command| {
            if caught(|| succession.on_command(command)).is_none() {
                told.life.panic_caught();
                told.retire(Reason::Panicked);
            }
        };
        let _ = mailbox.run(obey).await;
    });
    Ok(worker)
}

/// Runs one of the worker's own tasks. When it panics, or ends before its time, the worker retires for this `reason`: its connections are
/// finished, which they would not be if the thread ended, and a successor is put in its place at once.
fn spawn(worker: &Rc<Worker>, reason: Reason, task: impl Future<Output = ()> + 'static) {
    let worker = Rc::clone(worker);
    driver::spawn(async move {
        if guarded(task).await.is_none() {
            worker.life.panic_caught();
        }
        worker.on_task_over(reason);
    });
}

async fn beat(worker: Rc<Worker>, succession: Rc<Succession>) {
    let watch = worker.timers.watch();
    loop {
        succession.beat(clock::now());
        watch.sleep_until(clock::now() + BEAT).await;
    }
}
