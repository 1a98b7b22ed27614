//! One core: an event loop and everything it owns.
//!
//! A worker shares nothing that is written per request: it has its own balancers, pools, buffers, timers, leases and counters, all
//! owned by one thread and reached through plain cells. What it reads from others is immutable ([`Shared`]) or a lease taken now
//! and then from a reservoir. It hears from the control thread through its mailbox only.
//!
//! [`accept`] takes connections, [`connection`] runs one of them, [`exchange`] is the straight line of a request, with one file a
//! verb where the verb is long: [`plan`] (route, admit, encode), [`attempt`] (checkout or connect, send, listen), [`answer`] (await the
//! head, classify it) and [`relay`] (the body on its way down), or [`tunnel`] instead of it; [`upload`] goes on beside them.

mod accept;
mod answer;
mod attempt;
mod attempts;
mod connection;
mod cutting;
mod discard;
mod exchange;
#[cfg(test)]
pub(crate) mod failing;
mod failure;
mod going;
mod plan;
mod proxied;
mod record;
mod relay;
mod report;
mod request_id;
mod seat;
mod shared;
mod state;
mod tunnel;
mod upload;
mod verdict;

pub use report::{Refusal, Report, eject_reason, readmit_reason};
pub use shared::Shared;

use crate::net::block::Blocks;
use crate::net::driver::{self, EventLoop, Step};
use crate::net::guarded::guarded;
use crate::net::listener::Listener;
use crate::net::mailbox::Mailbox;
use crate::net::{clock, timer};
use crate::observe::access_log::LogSender;
use crate::observe::labels::DriverRung;
use crate::observe::recorder::Recorder;
use crate::units::{ClusterId, EndpointId, ListenerId, WorkerId};
use state::Worker;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How often a worker shows that it lives, reaps idle connections and trims its stock.
const BEAT: Duration = Duration::from_millis(500);

/// What the control thread tells a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// An active probe has changed its mind about an endpoint.
    Health {
        /// The cluster.
        cluster: ClusterId,
        /// The endpoint in it.
        endpoint: EndpointId,
        /// The new state.
        healthy: bool,
    },
    /// Accept no more, finish what is in flight, end.
    Drain,
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
    /// Set when this worker is to be, or has been, replaced: by the control thread, or by the worker itself when one of its own tasks
    /// has panicked. It then takes no new connections, finishes what it has, and ends; what it counts is ignored from the moment its
    /// successor begins ([`Recorder`]).
    pub retired: Arc<AtomicBool>,
}

/// What a worker writes with.
struct Hands {
    recorder: Recorder,
    log: Option<LogSender>,
    retired: Arc<AtomicBool>,
    stock: Rc<RefCell<Blocks>>,
}

/// Runs a worker on the calling thread until it has drained. `ready` hears which event loop runs, or why none does.
pub fn run(seat: Seat, shared: &Arc<Shared>, ready: impl FnOnce(io::Result<Step>)) {
    if let Some(core) = shared.config.gateway.cores[seat.id.index()] {
        core_affinity::set_for_current(core_affinity::CoreId { id: core });
    }
    // monoio leaks what is still spawned when a runtime is dropped, and may touch it: it is never dropped, not by a panic either
    let mut event_loop = match EventLoop::new(shared.config.gateway.driver) {
        Ok(event_loop) => ManuallyDrop::new(event_loop),
        Err(error) => return ready(Err(error)),
    };
    let (step, stock) = (event_loop.step(), event_loop.stock());
    event_loop.block_on(async {
        match begin(seat, shared, step, stock) {
            Ok(worker) => {
                ready(Ok(step));
                worker.ended().await;
                worker.close_idle_upstream();
                // closes that were queued by the last drops go out with one more turn of the loop
                worker.timers.watch().sleep_until(clock::now() + 2 * timer::TICK).await;
            }
            Err(error) => ready(Err(error)),
        }
    });
}

fn begin(seat: Seat, shared: &Arc<Shared>, step: Step, stock: Rc<RefCell<Blocks>>) -> io::Result<Rc<Worker>> {
    let Seat { id, sockets, mailbox, log, retired } = seat;
    let listeners = sockets.into_iter().map(|s| Listener::new(s).map(Rc::new)).collect::<io::Result<Vec<_>>>()?;
    let recorder = shared.stats.recorder(id);
    recorder.driver(match step {
        Step::Multishot => DriverRung::IoUringMultishot,
        Step::Defer => DriverRung::IoUringDeferTaskrun,
        Step::Coop => DriverRung::IoUringCoopTaskrun,
        Step::Plain => DriverRung::IoUring,
        Step::Epoll => DriverRung::Epoll,
    });
    let hands = Hands { recorder, log, retired, stock };
    let worker = Worker::new(shared, listeners.clone(), hands)?;
    for (index, listener) in listeners.into_iter().enumerate() {
        spawn(&worker, accept::accept(Rc::clone(&worker), ListenerId::from_index(index), listener));
    }
    let timers = Rc::clone(&worker.timers);
    spawn(&worker, async move { timers.run().await });
    spawn(&worker, beat(Rc::clone(&worker)));
    let told = Rc::clone(&worker);
    spawn(&worker, async move {
        let _ = mailbox.run(|command| state::on_command(&told, command)).await;
    });
    Ok(worker)
}

/// Runs one of the worker's own tasks. When it panics, the worker retires: its connections are finished, which they would not be if
/// the panic ended the thread, and a successor is put in its place at once.
fn spawn(worker: &Rc<Worker>, task: impl Future<Output = ()> + 'static) {
    let worker = Rc::clone(worker);
    driver::spawn(async move {
        if guarded(task).await.is_none() {
            worker.recorder.panic_caught();
            worker.retire();
        }
    });
}

async fn beat(worker: Rc<Worker>) {
    let watch = worker.timers.watch();
    loop {
        worker.beat(clock::now());
        watch.sleep_until(clock::now() + BEAT).await;
    }
}
