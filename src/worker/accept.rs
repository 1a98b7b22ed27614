//! `accept`: from a listener's queue to a task of its own.
//!
//! Each worker drains its own queue in batches. A connection over the listener's cap is closed at once, which costs the least;
//! when descriptors run out, accepting pauses until some have been given back, instead of spinning on the error.

use super::Refusal;
use super::client::{Connection, Peer};
use super::connection;
use super::door::Door;
use super::seat::ConnectionSeat;
use crate::net::clock;
use crate::net::driver::{self, CLOSING_TURNS};
use crate::net::fault::is_out_of_descriptors;
use crate::net::guarded::guarded;
use crate::net::listener::Accepted;
use crate::net::stream::{Stream, shutdown_fd};
use crate::net::timer::TICK;
use crate::observe::labels::RefuseReason;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

/// How long accepting pauses when no descriptor is left.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts on one listener until it is closed or the worker drains.
pub(super) async fn accept(door: Rc<Door>) {
    let watch = door.worker.timers.watch();
    let (mut in_vain, mut turns) = (0, 0);
    while door.listener.ready().await.is_ok() && !door.is_leaving() {
        match door.listener.accept_batch(|accepted| admit(&door, accepted)) {
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
                if !door.is_leaving() {
                    let at = door.at();
                    at.generation.recorder.accept_exhausted(at.row);
                    at.generation.complain(at.row, Refusal::Exhausted(error.raw_os_error().unwrap_or_default()));
                }
                watch.sleep_until(clock::now() + PAUSE).await;
            }
        }
    }
}

/// Takes what is still in the queue, then closes it: what the kernel has accepted for us is served, what comes later is refused.
pub(super) fn close(door: &Rc<Door>) {
    while door.listener.accept_batch(|accepted| admit(door, accepted)).is_ok_and(|accepted| accepted > 0) {}
    shutdown_fd(door.listener.fd(), Shutdown::Read);
}

fn admit(door: &Rc<Door>, accepted: Accepted) {
    let at = door.at();
    let (worker, listener, config) = (&at.generation, at.row, at.config());
    worker.recorder.connection_accepted(listener);
    let mut peer = Peer::new(accepted.peer, &config.trusted_proxies);
    peer.trusted |= accepted.peer.is_none() && config.unix_trusted;
    if config.proxy_protocol && !peer.may_relay() {
        worker.recorder.connection_refused(listener, RefuseReason::ProxyProtocol);
        return;
    }
    let Some(seat) = ConnectionSeat::take(door, &at) else {
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
    let mut connection = Connection::new(&at, door, stream, peer);
    driver::spawn(async move {
        if guarded(connection::run(&seat, &mut connection)).await.is_none() {
            seat.worker().life.panic_caught();
        }
        drop((connection, seat));
    });
}
