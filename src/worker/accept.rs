//! `accept`: from a listener's queue to a task of its own.
//!
//! Each worker drains its own queue in batches. A connection over the listener's cap is closed at once, which costs the least;
//! when descriptors run out, accepting pauses until some have been given back, instead of spinning on the error.

use super::Refusal;
use super::connection::{self, Connection, Peer};
use super::seat::ConnectionSeat;
use super::state::Worker;
use crate::net::clock;
use crate::net::driver::{self, CLOSING_TURNS};
use crate::net::fault::is_out_of_descriptors;
use crate::net::guarded::guarded;
use crate::net::listener::{Accepted, Listener};
use crate::net::stream::{Stream, shutdown_fd};
use crate::net::timer::TICK;
use crate::observe::labels::RefuseReason;
use crate::units::ListenerId;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

/// How long accepting pauses when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts on one listener until the worker drains.
pub(super) async fn accept(worker: Rc<Worker>, id: ListenerId, listener: Rc<Listener>) {
    let watch = worker.timers.watch();
    let (mut in_vain, mut turns) = (0, 0);
    while listener.ready().await.is_ok() && !worker.is_draining() {
        match listener.accept_batch(|accepted| admit(&worker, id, accepted)) {
            // Once: another worker was faster, on a unix socket, which they share. Again and again: one that drains has shut it down, which
            // makes it ready for ever, and on epoll whoever waits for what is ready gives no turn to the task that would hear of the drain.
            Ok(0) if in_vain > 0 => watch.sleep_until(clock::now() + TICK).await,
            Ok(0) => in_vain += 1,
            Ok(_) => (in_vain, turns) = (0, 0),
            // what was dropped a moment ago is about to be closed
            Err(error) if is_out_of_descriptors(&error) && turns < CLOSING_TURNS => {
                turns += 1;
                driver::next_turn().await;
            }
            Err(error) => {
                turns = 0;
                if !worker.is_draining() {
                    worker.recorder.accept_exhausted(id);
                    worker.complain(id, Refusal::Exhausted(error.raw_os_error().unwrap_or_default()));
                }
                watch.sleep_until(clock::now() + PAUSE).await;
            }
        }
    }
}

/// Takes what is still in the queue, then closes it: what the kernel has accepted for us is served, what comes later is refused.
pub(super) fn close(worker: &Rc<Worker>, id: ListenerId, listener: &Listener) {
    while listener.accept_batch(|accepted| admit(worker, id, accepted)).is_ok_and(|accepted| accepted > 0) {}
    shutdown_fd(listener.fd(), Shutdown::Read);
}

fn admit(worker: &Rc<Worker>, listener: ListenerId, accepted: Accepted) {
    let config = &worker.shared.config.listeners[listener.index()];
    worker.recorder.connection_accepted(listener);
    let mut peer = Peer::new(accepted.peer, &config.trusted_proxies);
    peer.trusted |= accepted.peer.is_none() && config.unix_trusted;
    if config.proxy_protocol && !peer.may_relay() {
        worker.recorder.connection_refused(listener, RefuseReason::ProxyProtocol);
        return;
    }
    let Some(seat) = ConnectionSeat::take(worker, listener) else {
        return; // dropped, and so closed
    };
    // behind a PROXY header the client is somebody else, who claims the seat when that has been read
    if !config.proxy_protocol && !seat.claim_for(peer.client()) {
        return;
    }
    let stream = match Stream::from_fd(accepted.fd) {
        Ok(stream) => stream,
        Err(error) => {
            worker.recorder.connection_refused(listener, RefuseReason::Exhausted);
            return worker.complain(listener, Refusal::Unwatched(error.raw_os_error().unwrap_or_default()));
        }
    };
    let mut connection = Connection::new(worker, listener, stream, peer);
    driver::spawn(async move {
        if guarded(connection::run(&seat, &mut connection)).await.is_none() {
            seat.worker().recorder.panic_caught();
        }
        drop((connection, seat));
    });
}
