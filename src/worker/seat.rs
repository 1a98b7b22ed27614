//! A downstream connection's place: under its listener's `max_connections`, and under its client's `max_connections_per_client`.
//!
//! The two are taken one after the other, because behind a PROXY header the client is not known when the connection is accepted. Each
//! place is given back where it was taken, whatever configuration comes meanwhile.

use super::Refusal;
use super::door::{At, Door};
use super::generation::Hand;
use super::state::Worker;
use crate::observe::labels::RefuseReason;
use crate::policy::client_slots::{ClientSlots, Taken};
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

/// A downstream connection's place; dropping it gives it back.
pub(super) struct ConnectionSeat {
    door: Rc<Door>,
    slots: Hand,
    /// Those of all listeners together.
    descriptors: Hand,
    client: Cell<Option<(Arc<ClientSlots>, usize)>>,
}

impl ConnectionSeat {
    /// Room for one more connection on this listener; `None` when it has its `max_connections`, or all listeners together what descriptors
    /// allow, which has been counted.
    pub(super) fn take(door: &Rc<Door>, at: &At) -> Option<Self> {
        let (generation, listener) = (&at.generation, at.row);
        let refuse = |reason, refusal| {
            generation.recorder.connection_refused(listener, reason);
            generation.complain(listener, refusal);
        };
        let slots = &generation.connection_slots[listener.index()];
        if !slots.borrow_mut().acquire() {
            refuse(RefuseReason::MaxConnections, Refusal::ConnectionsMax);
            return None;
        }
        let descriptors = &generation.descriptor_slots;
        if !descriptors.borrow_mut().acquire() {
            slots.borrow_mut().release();
            refuse(RefuseReason::Descriptors, Refusal::Descriptors);
            return None;
        }
        generation.recorder.connection_opened(listener);
        door.connections.set(door.connections.get() + 1);
        let worker = generation.worker();
        worker.connections.set(worker.connections.get() + 1);
        let (slots, descriptors) = (Rc::clone(slots), Rc::clone(descriptors));
        Some(Self { door: Rc::clone(door), slots, descriptors, client: Cell::default() })
    }

    /// The worker that the connection lives on.
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.door.worker
    }

    /// Counts the connection as one of `client`'s; false when the client has its `max_connections_per_client`, which has been counted.
    pub(super) fn claim_for(&self, client: Option<IpAddr>) -> bool {
        let at = self.door.at();
        let slots = &at.generation.shared.client_slots[at.row.index()];
        let (Some(slots), Some(client)) = (slots, client) else { return true };
        match slots.acquire(client) {
            Taken::Slot(slot) => self.client.set(Some((Arc::clone(slots), slot))),
            Taken::Uncounted => {}
            Taken::Refused => {
                at.generation.recorder.connection_refused(at.row, RefuseReason::MaxPerClient);
                return false;
            }
        }
        true
    }
}

impl Drop for ConnectionSeat {
    fn drop(&mut self) {
        if let Some((slots, slot)) = self.client.take() {
            slots.release(slot);
        }
        self.slots.borrow_mut().release();
        self.descriptors.borrow_mut().release();
        let (door, at) = (&self.door, self.door.at());
        at.generation.recorder.connection_closed(at.row);
        door.connections.set(door.connections.get() - 1);
        door.worker.connections.set(door.worker.connections.get() - 1);
        door.worker.look_for_end();
    }
}
