//! A downstream connection's place: under its listener's `max_connections`, and under its client's `max_connections_per_client`.
//!
//! The two are taken one after the other, because behind a PROXY header the client is not known when the connection is accepted.

use super::Refusal;
use super::state::Worker;
use crate::observe::labels::RefuseReason;
use crate::policy::client_slots::Taken;
use crate::policy::concurrency::LocalSlots;
use crate::units::ListenerId;
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

/// A downstream connection's place; dropping it gives it back.
pub(super) struct ConnectionSeat {
    worker: Rc<Worker>,
    listener: ListenerId,
    client_slot: Cell<Option<usize>>,
}

impl ConnectionSeat {
    /// Room for one more connection on this listener; `None` when it has its `max_connections`, or all listeners together what descriptors
    /// allow, which has been counted.
    pub(super) fn take(worker: &Rc<Worker>, listener: ListenerId) -> Option<Self> {
        if !worker.connection_slots.borrow_mut()[listener.index()].acquire() {
            worker.recorder.connection_refused(listener, RefuseReason::MaxConnections);
            worker.complain(listener, Refusal::ConnectionsMax);
            return None;
        }
        let has_descriptor = worker.descriptor_slots.borrow_mut().as_mut().is_none_or(LocalSlots::acquire);
        if !has_descriptor {
            worker.connection_slots.borrow_mut()[listener.index()].release();
            worker.recorder.connection_refused(listener, RefuseReason::Descriptors);
            worker.complain(listener, Refusal::Descriptors);
            return None;
        }
        worker.recorder.connection_opened(listener);
        worker.connections.set(worker.connections.get() + 1);
        Some(Self { worker: Rc::clone(worker), listener, client_slot: Cell::default() })
    }

    /// The worker that the connection lives on.
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Counts the connection as one of `client`'s; false when the client has its `max_connections_per_client`, which has been counted.
    pub(super) fn claim_for(&self, client: Option<IpAddr>) -> bool {
        let slots = &self.worker.shared.client_slots[self.listener.index()];
        let (Some(slots), Some(client)) = (slots, client) else { return true };
        match slots.acquire(client) {
            Taken::Slot(slot) => self.client_slot.set(Some(slot)),
            Taken::Uncounted => {}
            Taken::Refused => {
                self.worker.recorder.connection_refused(self.listener, RefuseReason::MaxPerClient);
                return false;
            }
        }
        true
    }
}

impl Drop for ConnectionSeat {
    fn drop(&mut self) {
        let worker = &self.worker;
        let index = self.listener.index();
        if let (Some(slot), Some(slots)) = (self.client_slot.get(), &worker.shared.client_slots[index]) {
            slots.release(slot);
        }
        worker.connection_slots.borrow_mut()[index].release();
        if let Some(slots) = worker.descriptor_slots.borrow_mut().as_mut() {
            slots.release();
        }
        worker.recorder.connection_closed(self.listener);
        worker.connections.set(worker.connections.get() - 1);
        worker.look_for_end();
    }
}
